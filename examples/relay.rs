//! Someone who listens in: passes connections on and keeps a copy of every byte, for
//! `scripts/demo`.
//!
//!     relay LISTEN TO FROM FILE
//!
//! Accepts at LISTEN (`ip:port`) and calls TO from the address FROM, once for each; what passes, in
//! either direction, is appended to FILE. Goes on until it is killed. A connection that fails is
//! closed at both sides; that FILE cannot be written, or LISTEN is taken, ends it with a word and
//! exit code 1.

use socket2::{Domain, Socket, Type};
use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, to, from, file] = &arguments[..] else { return Err("want LISTEN TO FROM FILE".into()) };
    let (listen, to): (SocketAddr, SocketAddr) = (listen.parse()?, to.parse()?);
    let from: IpAddr = from.parse()?;
    let file = Arc::new(File::options().create(true).append(true).open(file)?);
    let listener = TcpListener::bind(listen)?;
    for near in listener.incoming() {
        let near = near?;
        match call(from, to) {
            Ok(far) => join(&near, &far, &file)?,
            Err(error) => eprintln!("relay: call {to}: {error}"),
        }
    }
    Ok(())
}

fn call(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// Passes bytes both ways, a thread each.
fn join(near: &TcpStream, far: &TcpStream, file: &Arc<File>) -> io::Result<()> {
    for (from, to) in [(near, far), (far, near)] {
        let (from, to, file) = (from.try_clone()?, to.try_clone()?, file.clone());
        std::thread::spawn(move || {
            if let Err(error) = pass(&from, &to, &file) {
                eprintln!("relay: {error}");
            }
            // The other direction ends with this one; the sockets may be closed already.
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, mut file: &File) -> io::Result<()> {
    let mut bytes = [0; 16 * 1024];
    loop {
        match from.read(&mut bytes)? {
            0 => return Ok(()),
            count => {
                file.write_all(&bytes[..count])?;
                to.write_all(&bytes[..count])?;
            }
        }
    }
}
