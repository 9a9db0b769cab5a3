//! The reactor's hold on one connection to a handler: carries bytes between a local program's
//! socket and the [`Talk`] that decides what they mean.
//!
//! Owns the connection. Whatever ends it ends in `drop_connection`, with the fault as its
//! parameter; the conversation answers the requests that this costs, and says whether to dial
//! again.

use super::room::Room;
use crate::handler::socket::Conversation;
use crate::handler::{Fault, Reply, Talk, Ticket};
use base::log_quota::Repeats;
use net::{Event, ReadOutcome, Registry, Stream, Token, UnixStream, credentials};
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Reads of one program in one turn of the loop; then the others have theirs.
const READ_BUDGET: usize = 4;
/// Reads of a program that takes no more: more than a socket's buffer has for it.
const READ_AT_END: usize = 256;

/// One connection to a handler, or the place for one.
#[derive(Debug)]
pub(super) struct Program<C> {
    name: String,
    path: PathBuf,
    token: Token,
    conversation: C,
    connection: Option<Stream<UnixStream>>,
    /// When the connection was made.
    dialed: Option<Instant>,
    /// When a connection was tried last, and whether it could be made.
    tried: Option<(Instant, bool)>,
    /// The program is known to have read something of what it was sent on this connection.
    was_read: bool,
    /// The process that listened when the connection was made.
    process: Option<u32>,
    /// A connection was made since that was asked last.
    made: bool,
    /// The program has ended a connection since that was asked last.
    closed: bool,
    repeats: Repeats,
}

impl<C: Talk> Program<C> {
    /// A place whose connection is made when the first request comes.
    pub(super) fn new(name: &str, path: PathBuf, token: Token, conversation: C) -> Program<C> {
        Program {
            name: name.to_owned(),
            path,
            token,
            conversation,
            connection: None,
            dialed: None,
            tried: None,
            was_read: false,
            process: None,
            made: false,
            closed: false,
            repeats: Repeats::default(),
        }
    }

    /// Takes note of an event.
    pub(super) fn note(&mut self, event: &Event) {
        if let Some(connection) = &mut self.connection {
            connection.note(event);
        }
    }

    /// Passes a request on.
    pub(super) fn ask(&mut self, ticket: Ticket, request: &[u8], now: Instant) {
        self.conversation.ask(ticket, request, now);
    }

    /// Forgets a request that was not passed on yet; whether it was there.
    pub(super) fn withdraw(&mut self, ticket: Ticket) -> bool {
        self.conversation.withdraw(ticket)
    }

    /// Has a connection made, if there is none, to see whether the program is there.
    pub(super) fn probe(&mut self, now: Instant) {
        self.conversation.probe(now);
    }

    /// Whether no request is open: neither waiting nor one whose late answer is still awaited.
    pub(super) fn is_free(&self) -> bool {
        self.conversation.is_free()
    }

    /// Whether there is a connection.
    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// When the connection that there is, or was last, was made.
    pub(super) fn dialed(&self) -> Option<Instant> {
        self.dialed
    }

    /// When a connection was tried last, and whether it could be made.
    pub(super) fn tried(&self) -> Option<(Instant, bool)> {
        self.tried
    }

    /// Whether the program is known to have read something on this connection, and so to serve it.
    pub(super) fn was_read(&self) -> bool {
        self.was_read
    }

    /// Whether a connection was made since the last call.
    pub(super) fn take_made(&mut self) -> bool {
        std::mem::take(&mut self.made)
    }

    /// The process that listened when the connection was made.
    pub(super) fn process(&self) -> Option<u32> {
        self.process
    }

    /// Whether the program has ended a connection since the last call.
    pub(super) fn take_closed(&mut self) -> bool {
        std::mem::take(&mut self.closed)
    }

    /// Looks whether the program has read all that it was sent. What was sent must be one request,
    /// and all of it: a program may read as it likes what comes later.
    pub(super) fn look_whether_read(&mut self) {
        if let Some(connection) = &self.connection
            && self.conversation.outgoing().is_empty()
        {
            self.was_read |= unread(connection.socket()) == Some(0);
        }
    }

    /// Closes the connection, on which no request is open.
    pub(super) fn close(&mut self, now: Instant) {
        debug_assert!(self.is_free());
        self.drop_connection(&Fault::Idle, now, &mut |_, _| {});
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.conversation.deadline()
    }

    /// The connection, and how much of an answer it has begun.
    pub(super) fn begun(&self) -> (Token, usize) {
        (self.token, self.conversation.begun())
    }

    /// Whether the program is to be read, if answers are `wanted`, and may have something.
    pub(super) fn has_work(&self, wanted: bool, room: &Room) -> bool {
        wanted && room.may_read(self.token) && self.is_readable()
    }

    /// Whether the program may have said something that was not read.
    pub(super) fn is_readable(&self) -> bool {
        self.connection.as_ref().is_some_and(Stream::readable)
    }

    /// First half of a turn: reads answers, if they are `wanted` and there is room, and says which
    /// requests are overdue. Whether the program has said anything.
    pub(super) fn read(
        &mut self,
        wanted: bool,
        room: &mut Room,
        scratch: &mut [u8],
        now: Instant,
        answer: &mut impl FnMut(Ticket, Reply<'_>),
    ) -> bool {
        let mut budget = READ_BUDGET;
        while wanted && budget > 0 && room.may_read(self.token) {
            let before = self.conversation.begun();
            let more = self.read_once(scratch, now, answer);
            room.took(before, self.conversation.begun());
            if !more {
                break;
            }
            budget -= 1;
        }
        let heard = budget < READ_BUDGET;
        if let Err(fault) = self.conversation.overdue(now, answer) {
            self.drop_connection(&fault, now, answer);
        }
        heard
    }

    /// Second half of a turn: dials if need be, and writes requests.
    pub(super) fn write(
        &mut self,
        registry: &Registry,
        scratch: &mut [u8],
        now: Instant,
        answer: &mut impl FnMut(Ticket, Reply<'_>),
    ) {
        if self.conversation.wants_dial(now) {
            self.dial(registry, now, answer);
        }
        let Some(connection) = &mut self.connection else { return };
        if let Err(error) = connection.flush(self.conversation.outgoing(), registry, self.token) {
            // The program may have answered before it closed: all of that lies here.
            let mut budget = READ_AT_END;
            while budget > 0 && self.read_once(scratch, now, answer) {
                budget -= 1;
            }
            // Where its end was read, what was not written waits for another connection by now.
            if self.connection.is_some() {
                self.drop_connection(&Fault::Broken(error), now, answer);
            }
        }
    }

    /// End of a turn: whether the program will be read in the next one. While it is not, its time
    /// stands still.
    pub(super) fn pause(&mut self, wanted: bool, room: &Room, now: Instant) {
        self.conversation.pause(!(wanted && room.may_read(self.token)), now);
    }

    /// Reads once; whether there may be more.
    fn read_once(
        &mut self,
        scratch: &mut [u8],
        now: Instant,
        answer: &mut impl FnMut(Ticket, Reply<'_>),
    ) -> bool {
        let Some(connection) = self.connection.as_mut().filter(|connection| connection.readable()) else {
            return false;
        };
        let fault = match connection.read(scratch) {
            Ok(ReadOutcome::Nothing) => return false,
            Ok(ReadOutcome::Bytes(count)) => {
                self.was_read = true;
                match self.conversation.received(&scratch[..count], now, answer) {
                    Ok(()) => return true,
                    Err(fault) => fault,
                }
            }
            Ok(ReadOutcome::End) => Fault::Closed,
            // What a program left unread makes the kernel say so once, and then that this is the
            // end. A reset that is not the end says nothing about what the program has.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => match connection.read(scratch) {
                Ok(ReadOutcome::End) => Fault::Unread,
                Ok(ReadOutcome::Nothing | ReadOutcome::Bytes(_)) | Err(_) => Fault::Broken(error),
            },
            Err(error) => Fault::Broken(error),
        };
        self.drop_connection(&fault, now, answer);
        false
    }

    fn dial(&mut self, registry: &Registry, now: Instant, answer: &mut impl FnMut(Ticket, Reply<'_>)) {
        let dialed =
            UnixStream::connect(&self.path).and_then(|socket| Stream::of_unix(socket, registry, self.token));
        match dialed {
            Ok(connection) => {
                self.process = credentials::process_of(&connection.socket());
                (self.connection, self.made) = (Some(connection), true);
                (self.dialed, self.tried, self.was_read) = (Some(now), Some((now, true)), false);
                self.conversation.dialed(now);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.conversation.busy(now),
            // Nothing of the request has left us, and the want is ours and may pass: no answer yet,
            // as for a full queue.
            Err(error) if is_shortage(&error) => {
                let text = format!("handler {}: connect: {error}; tried again", self.name);
                if let Some(line) = self.repeats.line(&text, now) {
                    log::warn!("{line}");
                }
                self.conversation.busy(now);
            }
            Err(error) => {
                self.tried = Some((now, false));
                self.drop_connection(&Fault::Away(error), now, answer);
            }
        }
    }

    fn drop_connection(&mut self, fault: &Fault, now: Instant, answer: &mut impl FnMut(Ticket, Reply<'_>)) {
        match fault {
            // A program that closes a connection with no request on it does as it likes.
            Fault::Idle | Fault::Closed if !self.conversation.is_waiting() => {
                log::debug!("handler {}: {fault}", self.name)
            }
            Fault::Away(_)
            | Fault::Busy(_)
            | Fault::Idle
            | Fault::Broken(_)
            | Fault::Unread
            | Fault::Closed
            | Fault::Unasked
            | Fault::Malformed(_)
            | Fault::PoolEnded
            | Fault::Stuck(_) => {
                let text = format!("handler {} ({}): {fault}", self.name, self.path.display());
                if let Some(line) = self.repeats.line(&text, now) {
                    log::warn!("{line}");
                }
            }
        }
        self.closed |= match fault {
            Fault::Closed | Fault::Unread | Fault::Broken(_) | Fault::PoolEnded => true,
            Fault::Away(_)
            | Fault::Busy(_)
            | Fault::Idle
            | Fault::Unasked
            | Fault::Malformed(_)
            | Fault::Stuck(_) => false,
        };
        // Closing a socket takes it out of the poll; there is no other descriptor for it.
        self.connection = None;
        self.was_read = false;
        self.conversation.failed(fault, now, answer);
    }
}

impl Program<Conversation> {
    /// How many requests the program has.
    pub(super) fn open(&self) -> usize {
        self.conversation.open()
    }

    /// Whether a request would be passed on at once, with nothing before it that waits to be
    /// written.
    pub(super) fn takes(&self) -> bool {
        self.conversation.takes()
    }

    /// For how long the program has been at its oldest request. Not while it is not read.
    pub(super) fn at_oldest(&self, now: Instant) -> Option<Duration> {
        self.conversation.at_oldest(now)
    }
}

impl Program<crate::handler::tagged::Conversation> {
    /// Whether a process of `lond`'s own had no place for a request, or no program, since the last
    /// call.
    pub(super) fn take_short(&mut self) -> bool {
        self.conversation.take_short()
    }
}

/// Whether it is this host that lacks something just now, descriptors or memory, and not the
/// program that is away.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOMEM,
        libc::ENOBUFS,
        libc::ENOSPC,
        libc::EADDRNOTAVAIL,
        libc::EINTR,
    ];
    error.raw_os_error().is_some_and(|code| shortages.contains(&code))
}

/// What the other end of a socket has not read of what was sent to it; not a number of bytes, but 0
/// when it is nothing.
fn unread(socket: &UnixStream) -> Option<libc::c_int> {
    let mut unread = 0;
    // SAFETY: the descriptor is open as long as the socket is borrowed, and the request writes one
    // int where it is told.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) };
    (done == 0).then_some(unread)
}
