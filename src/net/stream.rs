//! A non-blocking stream socket, and what is known of its readiness.
//!
//! mio tells of readiness once, when it comes about (edge-triggered). So an event sets a flag here,
//! and only what shows that nothing is left (`WouldBlock`, a short read) clears it. Who reads or
//! writes decides by its buffers whether it wants to; the flags say whether it would get anything.
//!
//! TCP tells of room only to who has found none, and is watched for it once for all. A Unix socket
//! tells whoever watches each time that the other end has read something: it is watched for room
//! only while it has none, or each answer that is read would wake its sender.

use base::line::Outgoing;
use mio::event::{Event, Source};
use mio::net::{TcpStream, UnixStream};
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
    /// The poll tells when there is room to write.
    watched_for_room: bool,
}

impl<S: Source + Read + Write> Stream<S> {
    fn watched(
        mut socket: S,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<Stream<S>> {
        registry.register(&mut socket, token, interest)?;
        let watched_for_room = interest.is_writable();
        Ok(Stream { socket, readable: true, writable: true, read_closed: false, watched_for_room })
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

    fn write_waiting(&mut self, out: &mut Outgoing) -> io::Result<()> {
        if self.writable && !out.is_empty() {
            self.writable = out.flush_to(&mut self.socket)?;
        }
        Ok(())
    }
}

impl Stream<TcpStream> {
    /// Registers a socket for both directions, once for all. It counts as ready until it is found
    /// not to be.
    ///
    /// # Errors
    /// What the registry said.
    pub fn of_tcp(socket: TcpStream, registry: &Registry, token: Token) -> io::Result<Stream<TcpStream>> {
        Self::watched(socket, registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// The same for one that has nothing to be read before an event says so.
    pub(super) fn of_unconnected(
        socket: TcpStream,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Stream<TcpStream>> {
        let stream = Self::of_tcp(socket, registry, token)?;
        Ok(Stream { readable: false, ..stream })
    }

    /// Writes what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// What the system said, other than `WouldBlock` and `Interrupted`.
    pub fn flush(&mut self, out: &mut Outgoing) -> io::Result<()> {
        self.write_waiting(out)
    }
}

impl Stream<UnixStream> {
    /// Registers a socket for what is to be read; what may be written is watched for when it is
    /// needed. It counts as ready until it is found not to be.
    ///
    /// # Errors
    /// What the registry said.
    pub fn of_unix(socket: UnixStream, registry: &Registry, token: Token) -> io::Result<Stream<UnixStream>> {
        Self::watched(socket, registry, token, Interest::READABLE)
    }

    /// Writes what waits, as far as the socket takes it. Where it takes no more, the poll that it
    /// was registered with tells under `token` when it does again.
    ///
    /// # Errors
    /// What the system said, other than `WouldBlock` and `Interrupted`; or the registry.
    pub fn flush(&mut self, out: &mut Outgoing, registry: &Registry, token: Token) -> io::Result<()> {
        self.write_waiting(out)?;
        let wanted = !self.writable;
        if wanted != self.watched_for_room {
            let interest = if wanted { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            registry.reregister(&mut self.socket, token, interest)?;
            self.watched_for_room = wanted;
        }
        Ok(())
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::time::Duration;

    const TOKEN: Token = Token(7);

    struct Rig {
        poll: Poll,
        stream: Stream<UnixStream>,
        other: std::os::unix::net::UnixStream,
    }

    impl Rig {
        fn new() -> Rig {
            let (ours, other) = std::os::unix::net::UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            let poll = Poll::new().unwrap();
            let stream = Stream::of_unix(UnixStream::from_std(ours), poll.registry(), TOKEN).unwrap();
            Rig { poll, stream, other }
        }

        fn flush(&mut self, out: &mut Outgoing) {
            self.stream.flush(out, self.poll.registry(), TOKEN).unwrap();
        }

        /// Takes note of what is told at once; how many times something was, and whether the
        /// socket takes bytes again.
        fn hear(&mut self) -> (usize, bool) {
            let mut events = Events::with_capacity(8);
            self.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            let takes = events.iter().filter(|event| event.token() == TOKEN);
            let takes: Vec<bool> = takes.map(|event| self.stream.note(event)).collect();
            (takes.len(), takes.contains(&true))
        }
    }

    #[test]
    fn who_has_room_is_not_woken_when_the_other_end_reads() {
        let mut rig = Rig::new();
        assert_eq!(rig.hear(), (0, false), "at the start");
        for round in 0..3 {
            let mut out = Outgoing::default();
            out.push_line(b"an answer");
            rig.flush(&mut out);
            assert!(out.is_empty());
            let mut bytes = [0; 10];
            rig.other.read_exact(&mut bytes).unwrap();
            assert_eq!(rig.hear(), (0, false), "{round}");
            rig.other.write_all(b"a request").unwrap();
            assert_eq!(rig.hear(), (1, false), "{round}");
            assert_eq!(rig.stream.read(&mut [0; 64]).unwrap(), ReadOutcome::Bytes(9));
        }
    }

    #[test]
    fn who_has_none_is_told_when_there_is_some_each_time_and_then_no_more() {
        let mut rig = Rig::new();
        for round in 0..3 {
            let mut out = Outgoing::default();
            while out.is_empty() {
                out.push_line(&[b'x'; 4096]);
                rig.flush(&mut out);
            }
            assert_eq!(rig.hear(), (0, false), "{round}: there is no room");
            let mut taken = Vec::new();
            rig.other.set_nonblocking(true).unwrap();
            let _ = rig.other.read_to_end(&mut taken);
            let (told, takes) = rig.hear();
            assert!(told > 0 && takes, "{round}: nothing tells of the room");
            rig.flush(&mut out);
            assert!(out.is_empty(), "{round}");
            taken.clear();
            let _ = rig.other.read_to_end(&mut taken);
            assert_eq!(rig.hear(), (0, false), "{round}: it has room and is told of more");
        }
    }

    #[test]
    fn what_was_read_before_it_was_watched_for_is_told_of_too() {
        let mut rig = Rig::new();
        let mut out = Outgoing::default();
        while out.is_empty() {
            out.push_line(&[b'x'; 4096]);
            rig.stream.write_waiting(&mut out).unwrap();
        }
        rig.other.set_nonblocking(true).unwrap();
        let _ = rig.other.read_to_end(&mut Vec::new());
        rig.flush(&mut out);
        assert_eq!(rig.hear(), (1, true));
    }

    #[test]
    fn the_other_ends_end_is_told_of_whether_there_is_room_or_not() {
        for full in [false, true] {
            let mut rig = Rig::new();
            let mut out = Outgoing::default();
            while full && out.is_empty() {
                out.push_line(&[b'x'; 4096]);
                rig.flush(&mut out);
            }
            let Rig { mut poll, mut stream, other } = rig;
            drop(other);
            let mut events = Events::with_capacity(8);
            poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            for event in &events {
                stream.note(event);
            }
            assert!(stream.readable(), "full: {full}");
            let mut more = Outgoing::default();
            more.push_line(b"more");
            assert!(stream.flush(&mut more, poll.registry(), TOKEN).is_err(), "full: {full}");
        }
    }
}
