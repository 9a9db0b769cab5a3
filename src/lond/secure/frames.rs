//! What each frame of the caller means.
//!
//! Frames are taken as they come, however busy the link is; what they bring is bounded by the
//! window. A frame that must not be, or not now, is a [`Violation`] and ends the link with an ERROR
//! that says what was wrong.

use super::answer::Answer;
use super::course::State;
use super::requests::{Critical, Plain, Request};
use super::{Reason, Recorder, Secure};
use crate::handler::Ticket;
use crate::handler::builtin::printable;
use crate::service::{Effect, too_long_answer};
use base::command;
use std::collections::BTreeSet;
use std::time::Instant;
use wire::flow::Taken;
use wire::secure::{CallerHello, Frame, FrameError, FrameReader, HelloError, Kind, MAX_HELD, Versions, cost};

/// Bytes of the caller's ERROR that are shown in the log.
const MAX_ERROR_SHOWN: usize = 512;

/// What the caller must not do.
#[derive(Debug, thiserror::Error)]
pub(super) enum Violation {
    /// Bytes that are no frame, or chunks that are no message.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It speaks no version that we speak.
    #[error("no common version: this is {}", Versions::OURS)]
    Version,
    /// Its HELLO makes no sense.
    #[error(transparent)]
    Hello(HelloError),
    /// It says that it is another host than its key proves.
    #[error("your key is not that of {claimed}")]
    WrongId {
        /// Who it says that it is.
        claimed: String,
    },
    /// It called another host.
    #[error("this is {ours}, not {meant}")]
    WrongHost {
        /// The id of this host.
        ours: String,
        /// Whom it meant.
        meant: String,
    },
    /// A frame that cannot come in this state, or never from a caller.
    #[error("a {0:?} frame is not for the caller to send now")]
    Misplaced(Kind),
    /// More than the window lets it send.
    #[error("sent beyond the window")]
    Window,
    /// A window that grows beyond all bounds.
    #[error("the window has more than 32 bits")]
    TooWide,
    /// Ids go up, and each is used once.
    #[error("request id {0} is used twice, or far from the one before")]
    Id(u64),
    /// A HELD that names what can be no command, or more than there may be.
    #[error("HELD names more than {MAX_HELD} commands, or what can be none")]
    Held,
    /// A CANCEL of what cannot be cancelled.
    #[error("request {0} cannot be cancelled: it is critical, or was never sent")]
    Cancel(u64),
}

impl<R: Recorder> Secure<R> {
    /// Plaintext from the caller. Call [`Secure::step`] until it returns `None` before the next.
    pub fn push(&mut self, bytes: &[u8], now: Instant) {
        match self.course.state() {
            State::Hello | State::Open | State::Draining(_) => self.input.push(bytes),
            State::Leaving(_) | State::Lingering(_) | State::Settling(_) | State::Ended(_) => return,
        }
        let mut reader = self.input.take_reader();
        while let Some(frame) = reader.next_frame() {
            let taken = frame.map_err(Violation::from).and_then(|frame| self.frame(frame, now));
            if let Err(violation) = taken {
                let reason = match self.course.state() {
                    State::Hello => Reason::Refused(self.refusal(&violation).into()),
                    State::Open
                    | State::Draining(_)
                    | State::Leaving(_)
                    | State::Lingering(_)
                    | State::Settling(_)
                    | State::Ended(_) => Reason::Violation(violation.to_string()),
                };
                self.fail(&violation.to_string(), reason, now);
            }
            if self.is_gone() {
                reader = FrameReader::new();
                break;
            }
        }
        self.input.put_back(reader);
    }

    /// What the log says of a caller whose key is known and who is turned away.
    fn refusal(&self, violation: &Violation) -> String {
        let caller = &self.settings.service.caller;
        match violation {
            Violation::WrongId { claimed } => format!("the pin of {caller}, which says it is {claimed}"),
            other => format!("the pin of {caller}: {other}"),
        }
    }

    fn frame(&mut self, frame: Frame<'_>, now: Instant) -> Result<(), Violation> {
        match (self.course.state(), frame) {
            (State::Hello, Frame::Hello(body)) => self.hello(body),
            (State::Hello | State::Open | State::Draining(_), Frame::Error(text)) => {
                let shown = &text[..text.len().min(MAX_ERROR_SHOWN)];
                self.leave(Reason::CallerError(printable(shown)), now);
                Ok(())
            }
            (State::Hello, Frame::Request { .. }) => Err(Violation::Misplaced(Kind::Request)),
            (State::Hello, Frame::Critical { .. }) => Err(Violation::Misplaced(Kind::Critical)),
            (State::Hello, Frame::Cancel { .. }) => Err(Violation::Misplaced(Kind::Cancel)),
            (State::Hello, Frame::Ping(_)) => Err(Violation::Misplaced(Kind::Ping)),
            (State::Hello, Frame::Pong(_)) => Err(Violation::Misplaced(Kind::Pong)),
            (State::Hello, Frame::Window(_)) => Err(Violation::Misplaced(Kind::Window)),
            // Such kinds may be passed over.
            (State::Hello, Frame::Held(_))
            | (State::Hello | State::Open | State::Draining(_), Frame::NotTaken { .. } | Frame::Ready(_)) => {
                Ok(())
            }
            (State::Open | State::Draining(_), Frame::Held(body)) => {
                self.input.holds(held(body).ok_or(Violation::Held)?);
                Ok(())
            }
            (State::Open | State::Draining(_), Frame::Hello(_)) => Err(Violation::Misplaced(Kind::Hello)),
            (State::Hello | State::Open | State::Draining(_), Frame::Answer { .. }) => {
                Err(Violation::Misplaced(Kind::Answer))
            }
            (State::Hello | State::Open | State::Draining(_), Frame::GoAway { .. }) => {
                Err(Violation::Misplaced(Kind::GoAway))
            }
            (State::Open | State::Draining(_), Frame::Request { id, more, body }) => {
                self.chunk(id, more, body, false)
            }
            (State::Open | State::Draining(_), Frame::Critical { .. }) if !self.memory.has_epoch() => {
                Err(Violation::Misplaced(Kind::Critical))
            }
            (State::Open | State::Draining(_), Frame::Critical { id, more, body }) => {
                self.chunk(id, more, body, true)
            }
            (State::Open | State::Draining(_), Frame::Cancel { id }) => self.cancel(id),
            (State::Open | State::Draining(_), Frame::Ping(token)) => {
                self.output.pinged(token);
                Ok(())
            }
            // That it came is what counts.
            (State::Open | State::Draining(_), Frame::Pong(_)) => Ok(()),
            (State::Open | State::Draining(_), Frame::Window(bytes)) => {
                if self.output.widen(bytes) {
                    Ok(())
                } else {
                    Err(Violation::TooWide)
                }
            }
            // `push` takes nothing in these.
            (State::Leaving(_) | State::Lingering(_) | State::Settling(_) | State::Ended(_), _) => Ok(()),
        }
    }

    fn hello(&mut self, body: &[u8]) -> Result<(), Violation> {
        let CallerHello { hello, to, epoch } = CallerHello::parse(body).map_err(|error| match error {
            HelloError::NoCommonVersion { .. } => Violation::Version,
            HelloError::TooLong(_)
            | HelloError::NotHello
            | HelloError::Missing(_)
            | HelloError::Twice(_)
            | HelloError::Value(_)
            | HelloError::SmallWindow { .. } => Violation::Hello(error),
        })?;
        let service = &self.settings.service;
        if hello.id != service.caller {
            return Err(Violation::WrongId { claimed: hello.id.to_string() });
        }
        if to != service.id {
            return Err(Violation::WrongHost { ours: service.id.to_string(), meant: to.to_string() });
        }
        log::debug!("link of {}: it runs {}", service.caller, hello.program);
        self.memory.set_epoch(epoch);
        self.output.caller_takes(hello.window, hello.max_line);
        self.course.has_time();
        self.todo.push_back(Effect::Opened);
        self.enter(State::Open);
        if !self.memory.has_epoch() {
            // Not the beginning of another epoch: what is known of the last one is still needed.
            self.greet(0);
        }
        // Else the record is opened next, in this order: the supervisor tells an older link to end,
        // which has it perhaps.
        Ok(())
    }

    fn chunk(&mut self, id: u64, more: bool, body: &[u8], critical: bool) -> Result<(), Violation> {
        let chunk_cost = cost(body.len());
        if !self.credit.take(chunk_cost) {
            return Err(Violation::Window);
        }
        if self.input.begins(id) {
            if self.output.goes_away().is_some_and(|away| id > away.last) {
                // It will hear, or has heard, that this is not run.
                self.credit.give_back(chunk_cost);
                return Ok(());
            }
            if !self.input.begin(id) {
                return Err(Violation::Id(id));
            }
        }
        match self.input.chunk(id, more, body, critical)? {
            Taken::Unfinished => {}
            Taken::Whole { text, cost, .. } if !critical => {
                self.requests.plain.push(Plain { id, cost }, text)
            }
            Taken::Whole { head, text, cost } => {
                let (held, text) = (self.input.held(), text.into());
                self.requests.critical.push_back(Request { id, cost, head, held, text });
            }
            Taken::TooLong { cost, .. } => {
                let text = too_long_answer(self.settings.max_line).into();
                let (cancellable, broken) = (!critical, critical);
                self.send(Answer { id, cost, cancellable, last: false, broken, text });
            }
            Taken::Skipped { cost } => self.credit.give_back(cost),
        }
        Ok(())
    }

    fn cancel(&mut self, id: u64) -> Result<(), Violation> {
        if !self.input.has_come(id) {
            // After GOAWAY what is above its id may be cancelled as well as sent: neither is taken.
            return if self.output.goes_away().is_some() { Ok(()) } else { Err(Violation::Cancel(id)) };
        }
        if self.input.is_unfinished_critical(id) {
            return Err(Violation::Cancel(id));
        }
        self.credit.give_back(self.input.forget(id));
        if let Some(Plain { cost, .. }) = self.requests.plain.remove(|request| request.id == id) {
            self.credit.give_back(cost);
        } else if self.requests.critical.iter().any(|request| request.id == id) {
            return Err(Violation::Cancel(id));
        } else if let Some(flight) = self.requests.flight(id) {
            match (&flight.critical, flight.handler) {
                (Some(Critical { .. }), _) => return Err(Violation::Cancel(id)),
                (None, _) if flight.cancelled => {}
                (None, handler) => {
                    flight.cancelled = true;
                    self.todo.extend(handler.map(|handler| Effect::Withdraw { handler, ticket: Ticket(id) }));
                }
            }
        } else if let Some(cost) = self.output.cancel(id) {
            self.credit.give_back(cost);
        }
        Ok(())
    }
}

/// The commands that a HELD names.
fn held(body: &[u8]) -> Option<BTreeSet<Box<str>>> {
    let names = body.split(|byte| *byte == b'\n').filter(|name| !name.is_empty());
    let mut held = BTreeSet::new();
    for name in names {
        let known = command(name);
        if known.len() != name.len() || held.len() == MAX_HELD {
            return None;
        }
        held.insert(known.into());
    }
    Some(held)
}
