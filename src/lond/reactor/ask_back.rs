//! The other way round: what this host's own `lonc` gets when it pings the caller of a link
//! (`pong`).
//!
//! Owns one short connection to the caller's local socket. Requests that come while it is under way
//! share its answer, so any number of them cost one connection. Whatever goes wrong, or takes
//! longer than [`DEADLINE`], is no answer (`con_lost`): the caller asked whether the way is open,
//! and so far it is not.

use crate::handler::Ticket;
use base::line::{Line, LineReader, Outgoing};
use net::{Event, ReadOutcome, Registry, Stream, Token, UnixStream};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long the ping may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// Longest answer that is passed on; it should be a host id.
const MAX_ANSWER: usize = 1024;

/// The ping that is under way, if one is.
#[derive(Debug)]
pub(super) struct AskBack {
    path: PathBuf,
    token: Token,
    /// Requests that wait for the answer; at most as many as a link may have open.
    waiting: Vec<Ticket>,
    ping: Option<Ping>,
}

#[derive(Debug)]
struct Ping {
    connection: Stream<UnixStream>,
    out: Outgoing,
    reader: LineReader,
    deadline: Instant,
}

impl AskBack {
    /// Asks through the local socket at `path`.
    pub(super) fn new(path: PathBuf, token: Token) -> AskBack {
        AskBack { path, token, waiting: Vec::new(), ping: None }
    }

    /// A request for the answer.
    pub(super) fn ask(&mut self, ticket: Ticket) {
        self.waiting.push(ticket);
    }

    /// Takes note of an event.
    pub(super) fn note(&mut self, event: &Event) {
        if let Some(ping) = &mut self.ping {
            ping.connection.note(event);
        }
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ping.as_ref().map(|ping| ping.deadline)
    }

    /// Does what can be done; gives the answer, or that there is none, to all that wait.
    pub(super) fn work(
        &mut self,
        registry: &Registry,
        scratch: &mut [u8],
        now: Instant,
        answer: &mut impl FnMut(Ticket, Option<&[u8]>),
    ) {
        if self.waiting.is_empty() {
            return;
        }
        if self.ping.is_none() {
            match Ping::begin(&self.path, registry, self.token, now) {
                Ok(ping) => self.ping = Some(ping),
                Err(error) => return self.end(Err(error), answer),
            }
        }
        let Some(ping) = &mut self.ping else { return };
        match ping.work(registry, self.token, scratch, now) {
            Ok(None) => {}
            Ok(Some(line)) => self.end(Ok(line), answer),
            Err(error) => self.end(Err(error), answer),
        }
    }

    fn end(&mut self, result: io::Result<Vec<u8>>, answer: &mut impl FnMut(Ticket, Option<&[u8]>)) {
        self.ping = None;
        if let Err(error) = &result {
            log::debug!("ask back through {}: {error}", self.path.display());
        }
        for ticket in self.waiting.drain(..) {
            answer(ticket, result.as_deref().ok());
        }
    }
}

impl Ping {
    fn begin(path: &PathBuf, registry: &Registry, token: Token, now: Instant) -> io::Result<Ping> {
        let connection = Stream::of_unix(UnixStream::connect(path)?, registry, token)?;
        let mut out = Outgoing::default();
        out.push_line(b"ping");
        Ok(Ping { connection, out, reader: LineReader::new(MAX_ANSWER), deadline: now + DEADLINE })
    }

    /// The answer, once it is there.
    fn work(
        &mut self,
        registry: &Registry,
        token: Token,
        scratch: &mut [u8],
        now: Instant,
    ) -> io::Result<Option<Vec<u8>>> {
        self.connection.flush(&mut self.out, registry, token)?;
        while self.connection.readable() {
            match self.connection.read(scratch)? {
                ReadOutcome::Nothing => break,
                ReadOutcome::End => return Err(io::ErrorKind::UnexpectedEof.into()),
                ReadOutcome::Bytes(count) => {
                    self.reader.push(&scratch[..count]);
                    match self.reader.next_line() {
                        Some(Line::Whole(line)) => return Ok(Some(line.to_vec())),
                        Some(Line::TooLong) => return Err(io::ErrorKind::InvalidData.into()),
                        None => {}
                    }
                }
            }
        }
        if now >= self.deadline { Err(io::ErrorKind::TimedOut.into()) } else { Ok(None) }
    }
}
