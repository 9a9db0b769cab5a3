//! What a request is passed to at `lond`.
//!
//! | file | what it answers |
//! | --- | --- |
//! | `builtin` | the requests that `lond` itself knows: their names and the text of their answers |
//! | `socket` | requests passed to a local program through its Unix socket, answered in their order |
//! | `tagged` | likewise, answered in any order |
//! | `waiting` | what both have: requests that wait for a connection, and what its end costs |
//! | `tag` | how requests and answers have their tags |
//!
//! Everything here is pure: bytes and the time come in, answers go out. The sockets are the
//! reactor's.

pub mod builtin;
pub mod socket;
pub mod tag;
pub mod tagged;
mod waiting;

use base::line::Outgoing;
use std::borrow::Cow;
use std::io;
use std::time::{Duration, Instant};

/// Names one request of a link from the moment it is taken until it is answered. Tickets count up
/// and are never used twice on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What came of a request that was passed to a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The handler's own words, whatever they are.
    Answer(&'a [u8]),
    /// The handler has got the request, or may have, and there is no answer of its own: ours,
    /// `error:...`.
    Broken(&'a [u8]),
    /// The handler has not got the request, and nothing was done: why, beginning with the handler's
    /// name.
    NotTaken(&'a str),
}

impl Reply<'_> {
    /// The answer to a request that is not kept by anyone, whose place must be filled.
    pub fn text(&self) -> Cow<'_, [u8]> {
        match self {
            Reply::Answer(text) | Reply::Broken(text) => Cow::Borrowed(text),
            Reply::NotTaken(why) => Cow::Owned(format!("error:{why}").into_bytes()),
        }
    }
}

/// Pause before `connect` is tried again when the program's queue of connections is full. A Unix
/// socket gives no event for room in that queue. Tried until the oldest request is overdue.
pub const CONNECT_RETRY: Duration = Duration::from_millis(20);

/// Why a connection to a program ended or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// `connect` failed.
    #[error("connect: {0}")]
    Away(io::Error),
    /// Its queue of connections stayed full.
    #[error("connect: its queue of connections was full for {0:?}")]
    Busy(Duration),
    /// The connection broke.
    #[error("connection lost: {0}")]
    Broken(io::Error),
    /// The program's end was closed before all that we had sent was read.
    #[error("connection closed by the program before it had read the request")]
    Unread,
    /// We closed it: there was nothing to ask for a long time.
    #[error("connection closed: nothing to ask")]
    Idle,
    /// The program closed it.
    #[error("connection closed by the program")]
    Closed,
    /// The program sent something with no request open.
    #[error("more answers than requests")]
    Unasked,
    /// The program sent a line that is no answer.
    #[error(transparent)]
    Malformed(#[from] tag::TagError),
    /// The process of `lond`'s own ended that runs the program: whether that was given the request
    /// died with it.
    #[error(
        "the process of lond that runs its program has ended; whether the request was begun is not known"
    )]
    PoolEnded,
    /// The late answer did not come either.
    #[error("stuck behind a request that was not answered within {0:?}")]
    Stuck(Duration),
}

/// A conversation with a local program over a connection that comes and goes.
pub trait Talk {
    /// Passes a request on. Bounded by the caller: `lond` has a bounded number and size of requests
    /// in flight.
    fn ask(&mut self, ticket: Ticket, request: &[u8], now: Instant);
    /// Whether a connection is to be made now.
    fn wants_dial(&self, now: Instant) -> bool;
    /// The connection was made.
    fn dialed(&mut self, now: Instant);
    /// `connect` found the program's queue of connections full, or this host short of what it
    /// takes.
    fn busy(&mut self, now: Instant);
    /// Whether the connection has a request open.
    fn is_waiting(&self) -> bool;
    /// Whether no request is open or held.
    fn is_free(&self) -> bool;
    /// Forgets a request that is held; whether it was there. One that was passed on is the
    /// program's.
    fn withdraw(&mut self, ticket: Ticket) -> bool;
    /// Bytes that wait for the program; empty unless there is a connection.
    fn outgoing(&mut self) -> &mut Outgoing;
    /// Bytes of what the program has begun to say and not ended.
    fn begun(&self) -> usize;
    /// Takes what the program sent and gives out the answers.
    ///
    /// # Errors
    /// It sent more than it was asked for: the connection is to be dropped and
    /// [`Talk::failed`] called.
    fn received(
        &mut self,
        bytes: &[u8],
        now: Instant,
        answer: &mut impl FnMut(Ticket, Reply<'_>),
    ) -> Result<(), Fault>;
    /// When [`Talk::overdue`] or [`Talk::wants_dial`] has something to do.
    fn deadline(&self) -> Option<Instant>;
    /// Answers what the program took too long over.
    ///
    /// # Errors
    /// It took too long for the connection as a whole: that is to be dropped and
    /// [`Talk::failed`] called.
    fn overdue(&mut self, now: Instant, answer: &mut impl FnMut(Ticket, Reply<'_>)) -> Result<(), Fault>;
    /// The connection is no more, or could not be made: says of every request that it costs what
    /// came of it. What was held behind an overdue request dials again, and so does, once, what no
    /// byte was sent of.
    ///
    /// A request is known not to be taken when no connection could be made for it, when two
    /// connections in a row took no byte of it, and when the kernel says, by a reset, that the
    /// program's end was closed with bytes unread: the last byte on the connection is the newline
    /// of its last request, without which no program has a request.
    fn failed(&mut self, fault: &Fault, now: Instant, answer: &mut impl FnMut(Ticket, Reply<'_>));
    /// Has a connection made though there is no request, to see whether the program is there.
    fn probe(&mut self, now: Instant);
    /// Notes whether the reactor reads the program just now. While it does not, since the caller
    /// does not take its answers, the program is not to blame for the time that passes.
    fn pause(&mut self, paused: bool, now: Instant);
}
