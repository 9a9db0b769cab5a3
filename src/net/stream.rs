//! A non-blocking stream socket, and what is known of its readiness.
//!
//! mio tells of readiness once, when it comes about (edge-triggered). So an event sets a flag here,
//! and only what shows that nothing is left (`WouldBlock`, a short read) clears it. Who reads or
//! writes decides by its buffers whether it wants to; the flags say whether it would get anything.

use base::line::Outgoing;
use mio::event::{Event, Source};
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use std::io::{self, Read, Write};
use std::net::Shutdown;

/// What one read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    /// So many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The other end sends nothing more.
    End,
}

/// A socket and its readiness.
#[derive(Debug)]
pub struct Stream<S> {
    socket: S,
    readable: bool,
    writable: bool,
    /// The other end has shut its writing half: there is no further event for it, so a short read
    /// proves nothing.
    read_closed: bool,
}

impl<S: Source + Read + Write> Stream<S> {
    /// Registers a socket for both directions, once for all. It counts as ready until it is found
    /// not to be.
    ///
    /// # Errors
    /// What the registry said.
    pub fn register(mut socket: S, registry: &Registry, token: Token) -> io::Result<Stream<S>> {
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Stream { socket, readable: true, writable: true, read_closed: false })
    }

    /// A registered socket that has nothing to be read before an event says so.
    pub(super) fn not_readable_yet(socket: S) -> Stream<S> {
        Stream { socket, readable: false, writable: true, read_closed: false }
    }

    /// The socket itself, for what is no matter of reading and writing.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// Takes note of an event; whether it takes bytes again that it did not take.
    pub fn note(&mut self, event: &Event) -> bool {
        let was_writable = self.writable;
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
        self.read_closed |= event.is_read_closed() || event.is_error();
        self.writable && !was_writable
    }

    /// Whether a read may bring something.
    pub fn readable(&self) -> bool {
        self.readable
    }

    /// Takes it out of the poll: it is another's from now on.
    ///
    /// # Errors
    /// What the registry said.
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut self.socket)
    }

    /// Reads once.
    ///
    /// # Errors
    /// What the system said, other than `WouldBlock` and `Interrupted`.
    pub fn read(&mut self, scratch: &mut [u8]) -> io::Result<ReadOutcome> {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => {
                    self.readable = false;
                    return Ok(ReadOutcome::End);
                }
                Ok(count) => {
                    self.readable = count == scratch.len() || self.read_closed;
                    return Ok(ReadOutcome::Bytes(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(ReadOutcome::Nothing);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// What the system said, other than `WouldBlock` and `Interrupted`.
    pub fn flush(&mut self, out: &mut Outgoing) -> io::Result<()> {
        if self.writable && !out.is_empty() {
            self.writable = out.flush_to(&mut self.socket)?;
        }
        Ok(())
    }
}

impl Stream<UnixStream> {
    /// Keeps the other end from sending more: its writes fail from now on, so that it knows what
    /// was not taken. What it has sent before can still be read, and is followed by the end.
    ///
    /// # Errors
    /// What the system said.
    pub fn cut(&mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Read)?;
        (self.readable, self.read_closed) = (true, true);
        Ok(())
    }
}
