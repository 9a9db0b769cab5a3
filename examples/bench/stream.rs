//! Connections that do not wait, and a program behind a handler that is nothing but that: for works
//! in which the load must not be what is measured.

use crate::rig::Result;
use mio::event::Source;
use mio::net::{TcpStream, UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Registry, Token};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Bytes that one read asks for.
pub const READ: usize = 256 << 10;

/// Where somebody listens.
#[derive(Debug, Clone)]
pub enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A connection, what has come over it, and what could not be written to it yet.
pub struct Connection {
    stream: Stream,
    pub held: Vec<u8>,
    pub out: Vec<u8>,
    /// Bytes of `out` that were written.
    written: usize,
}

impl Address {
    /// Begins to connect; what is written before that is done goes when it is. Who has no room for
    /// more connections that it has not taken up is waited for, so long, as any program would.
    pub fn connect(&self, patience: Duration) -> io::Result<Connection> {
        match self {
            Address::Unix(path) => match UnixStream::connect(path) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => wait_to_connect(path, patience),
                connected => connected.map(Connection::from),
            },
            Address::Tcp(address) => TcpStream::connect(*address).map(Connection::from),
        }
    }
}

/// Connects by a call that the kernel holds until there is room.
fn wait_to_connect(path: &Path, patience: Duration) -> io::Result<Connection> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Of a connection that is being made this is how long that may take.
    socket.set_write_timeout(Some(patience))?;
    socket.connect(&SockAddr::unix(path)?)?;
    socket.set_nonblocking(true)?;
    Ok(Connection::from(UnixStream::from_std(OwnedFd::from(socket).into())))
}

impl From<UnixStream> for Connection {
    fn from(stream: UnixStream) -> Connection {
        Connection { stream: Stream::Unix(stream), held: Vec::new(), out: Vec::new(), written: 0 }
    }
}

impl From<TcpStream> for Connection {
    fn from(stream: TcpStream) -> Connection {
        // Only slower without.
        let _ = stream.set_nodelay(true);
        Connection { stream: Stream::Tcp(stream), held: Vec::new(), out: Vec::new(), written: 0 }
    }
}

impl Connection {
    pub fn watch(&mut self, registry: &Registry, token: usize) -> io::Result<()> {
        self.source().register(registry, Token(token), Interest::READABLE | Interest::WRITABLE)
    }

    pub fn forget(&mut self, registry: &Registry) -> io::Result<()> {
        self.source().deregister(registry)
    }

    fn source(&mut self) -> &mut dyn Source {
        match &mut self.stream {
            Stream::Unix(stream) => stream,
            Stream::Tcp(stream) => stream,
        }
    }

    /// Reads all that is there into [`Connection::held`], by way of `scratch`; whether anything
    /// came. At its end, an error: nobody here ends on purpose.
    pub fn read(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        let mut came = false;
        loop {
            let read = match &mut self.stream {
                Stream::Unix(stream) => stream.read(scratch),
                Stream::Tcp(stream) => stream.read(scratch),
            };
            match read {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.held.extend_from_slice(&scratch[..count]);
                    came = true;
                    // Less than there was room for: the rest will wake whoever waits.
                    if count < scratch.len() {
                        return Ok(came);
                    }
                }
                Err(error) if is_not_yet(&error) => return Ok(came),
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what can be written.
    pub fn write(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            let rest = &self.out[self.written..];
            let taken = match &mut self.stream {
                Stream::Unix(stream) => stream.write(rest),
                Stream::Tcp(stream) => stream.write(rest),
            };
            match taken {
                Ok(count) => self.written += count,
                Err(error) if is_not_yet(&error) => break,
                Err(error) => return Err(error),
            }
        }
        // What is left is moved only when it is the lesser part.
        if self.written >= self.out.len() / 2 {
            self.out.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}

/// A program that gives each line back; it goes on until this program ends.
pub fn serve(socket: &Path, tagged: bool) -> Result<()> {
    let mut listener = UnixListener::bind(socket)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, Token(0), Interest::READABLE)?;
    thread::spawn(move || {
        let mut events = Events::with_capacity(256);
        let mut scratch = vec![0; READ];
        // Their places are their tokens, less one.
        let mut all: Vec<Option<Connection>> = Vec::new();
        while poll.poll(&mut events, None).is_ok() {
            for event in &events {
                if event.token() == Token(0) {
                    while let Ok((stream, _)) = listener.accept() {
                        let place = all.iter().position(Option::is_none).unwrap_or(all.len());
                        let mut connection = Connection::from(stream);
                        let watched = connection.watch(poll.registry(), place + 1);
                        all.resize_with(all.len().max(place + 1), || None);
                        all[place] = watched.ok().map(|()| connection);
                    }
                } else if let Some(place) = all.get_mut(event.token().0 - 1)
                    && let Some(connection) = place
                    && give_back(connection, &mut scratch, tagged).is_err()
                {
                    *place = None;
                }
            }
        }
    });
    Ok(())
}

fn give_back(connection: &mut Connection, scratch: &mut [u8], tagged: bool) -> io::Result<()> {
    if connection.read(scratch)? {
        let Connection { held, out, .. } = connection;
        let whole = memchr::memrchr(b'\n', held).map_or(0, |at| at + 1);
        if tagged {
            for line in held[..whole].split_inclusive(|byte| *byte == b'\n') {
                let mut blanks = memchr::memchr_iter(b' ', line);
                let (tag, text) = (blanks.next().unwrap_or(0), blanks.nth(2).unwrap_or(0));
                out.extend_from_slice(&line[..tag]);
                out.extend_from_slice(&line[text..]);
            }
        } else {
            out.extend_from_slice(&held[..whole]);
        }
        held.drain(..whole);
    }
    connection.write()
}
