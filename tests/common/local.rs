//! A local program: a client of a peer's Unix socket.

use super::wait::PATIENCE;
use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// One connection to a peer's socket.
pub struct Local {
    reader: BufReader<UnixStream>,
}

impl Local {
    /// Connects, or panics: the socket of a running broker is always there.
    pub fn connect(socket: &Path) -> Local {
        Local::try_connect(socket).unwrap_or_else(|error| panic!("connect {}: {error}", socket.display()))
    }

    /// Connects.
    pub fn try_connect(socket: &Path) -> io::Result<Local> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Local { reader: BufReader::new(stream) })
    }

    /// Connects as another user, which is noted at that moment and stays so.
    pub fn connect_as(socket: &Path, user: u32, groups: &'static [u32]) -> Local {
        let socket = socket.to_owned();
        let connect = move || {
            // The system calls themselves change this thread alone. SAFETY: each gets numbers, and
            // of the groups as many as there are.
            let done = unsafe {
                libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) == 0
                    && libc::syscall(libc::SYS_setresgid, user, user, user) == 0
                    && libc::syscall(libc::SYS_setresuid, user, user, user) == 0
            };
            assert!(done, "become user {user}: {}", std::io::Error::last_os_error());
            Local::connect(&socket)
        };
        std::thread::spawn(connect).join().expect("a connection")
    }

    /// A second handle for a thread that only writes.
    pub fn writer(&self) -> UnixStream {
        self.reader.get_ref().try_clone().expect("clone a socket")
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("send to the broker");
    }

    /// Sends bytes as they are; an error when the broker is gone.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Shuts the writing half, as `echo ping | nc -U` does.
    pub fn finish(&mut self) {
        self.reader.get_mut().shutdown(Shutdown::Write).expect("shut the writing half");
    }

    /// The next answer, or `None` when the broker has closed.
    pub fn try_answer(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        match line.pop() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(line)),
            Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The next answer, in bytes.
    pub fn answer_bytes(&mut self) -> Vec<u8> {
        self.try_answer().expect("read an answer").expect("an answer, not the end")
    }

    /// The next answer.
    pub fn answer(&mut self) -> String {
        String::from_utf8_lossy(&self.answer_bytes()).into_owned()
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, request: &str) -> String {
        self.try_ask(request).unwrap_or_else(|error| panic!("ask {request:?}: {error}"))
    }

    /// Sends a request and waits for its answer; an error when the broker goes away meanwhile.
    pub fn try_ask(&mut self, request: &str) -> io::Result<String> {
        self.reader.get_mut().write_all(format!("{request}\n").as_bytes())?;
        let answer = self.try_answer()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}
