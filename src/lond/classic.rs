//! What one link's lines mean: the opening dialogue, the built-in requests, and what goes to a
//! handler.
//!
//! Pure. The reactor pushes the caller's bytes in, takes [`Effect`]s out with [`Classic::step`]
//! until there are none, carries them out, gives the handlers' answers in, and writes
//! [`Classic::outgoing`]. Every request gets exactly one answer, in the order of the requests,
//! unless the link ends before.
//!
//! ```text
//!             init                 the challenge                EOF, told to end          no whole line left
//!   Init ------------> Challenged ---------------> Open --------------------> Finishing --------------------> Leaving
//!     |  anything else:     |                        |  exit: `bye`                                              ^
//!     |  `refused`          |                        +-----------------------------------------------------------+
//!     +---------------------+------------------------------------------------------------------------------------+
//!                       every answer is sent             EOF, deadline
//!             Leaving ------------------------> Lingering -------------> Ended
//! ```
//!
//! A link *lingers*, its writing half shut, because closing a socket with bytes unread makes the
//! kernel take back answers that the caller has not read yet.
//!
//! Failures: bad input costs an `error:` answer once the link is open, and the link before that.
//! Nothing panics.

mod answers;
mod request;

use super::Reason;
use super::access::Rights;
use super::service::{Effect, Order, Service, Verdict, too_long_answer};
use crate::handler::Ticket;
use answers::{Answers, Seal};
use base::line::{Line, LineReader, Outgoing};
use request::is_enciphered;
use std::io;
use std::time::{Duration, Instant};

/// Bytes of an unfinished line that are kept before the caller is known; more is `refused`. (No
/// line of the opening dialogue is longer than a host id and a word.)
pub const MAX_OPENING_LINE: usize = 1024;

/// How long a link lingers for the caller to read the last answers and close.
pub const LINGER: Duration = Duration::from_secs(1);

/// What a link is served with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whom, and what for. The caller is known by its address.
    pub service: Service,
    /// Longest request in bytes.
    pub max_line: usize,
    /// How long in-flight requests may go on once the link is told to end.
    pub drain_timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// The caller said nothing yet.
    Init,
    /// It is to repeat these digits.
    Challenged(String),
    /// Requests are answered.
    Open,
    /// Nothing more is read; what was read is still answered.
    Finishing(Reason),
    /// No further request is taken; the answers in flight go out.
    Leaving(Reason),
    /// All is said; what still comes is thrown away.
    Lingering(Reason),
    /// The connection is to be closed.
    Ended(Reason),
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            State::Init => "waiting for init",
            State::Challenged(_) => "challenged",
            State::Open => "open",
            State::Finishing(_) => "finishing",
            State::Leaving(_) => "leaving",
            State::Lingering(_) => "lingering",
            State::Ended(_) => "ended",
        }
    }
}

/// The caller's side of one link.
#[derive(Debug)]
pub struct Classic {
    settings: Settings,
    random: fastrand::Rng,
    state: State,
    /// When [`Classic::tick`] changes the state: before `Open` the opening's, then the drain's,
    /// then the linger's.
    deadline: Option<Instant>,
    /// The opening dialogue was done.
    opened: bool,
    /// The caller sends nothing more.
    input_ended: bool,
    /// [`Classic::step`] stopped with lines unread, for want of room.
    stalled: bool,
    reader: LineReader,
    /// The request being served; one allocation for all.
    request: Vec<u8>,
    cipher: Seal,
    answers: Answers,
}

impl Classic {
    /// A link that was just accepted. `random` makes challenges and keys: seed it from the system.
    pub fn new(settings: Settings, random: fastrand::Rng, opening_deadline: Instant) -> Classic {
        Classic {
            reader: LineReader::new(wire_limit(settings.max_line)),
            settings,
            random,
            state: State::Init,
            deadline: Some(opening_deadline),
            opened: false,
            input_ended: false,
            stalled: false,
            request: Vec::new(),
            cipher: None,
            answers: Answers::default(),
        }
    }

    /// Bytes from the caller. Call [`Classic::step`] until it returns `None` before the next.
    pub fn push(&mut self, bytes: &[u8]) {
        match self.state {
            State::Init | State::Challenged(_) | State::Open => self.reader.push(bytes),
            State::Finishing(_) | State::Leaving(_) | State::Lingering(_) | State::Ended(_) => {}
        }
    }

    /// The next thing to do; `None` when more bytes, answers or room for answers are needed.
    pub fn step(&mut self, now: Instant) -> Option<Effect> {
        loop {
            match &self.state {
                State::Init | State::Challenged(_) | State::Open | State::Finishing(_) => {
                    self.stalled = self.answers.saturated();
                    if self.stalled {
                        return None;
                    }
                    match self.next_line() {
                        Next::Request => {
                            if let Some(effect) = self.take() {
                                return Some(effect);
                            }
                        }
                        Next::TooLong => self.too_long(),
                        Next::Nothing => match &self.state {
                            State::Finishing(reason) => self.enter(State::Leaving(reason.clone())),
                            State::Init | State::Challenged(_) if self.reader.len() > MAX_OPENING_LINE => {
                                self.too_long();
                            }
                            State::Init | State::Challenged(_) | State::Open => return None,
                            State::Leaving(_) | State::Lingering(_) | State::Ended(_) => {}
                        },
                    }
                }
                State::Leaving(reason) if self.answers.all_sent() => {
                    let reason = reason.clone();
                    if self.input_ended {
                        self.enter(State::Ended(reason));
                        return None;
                    }
                    self.deadline = Some(now + LINGER);
                    self.enter(State::Lingering(reason));
                    return Some(Effect::Shut);
                }
                State::Leaving(_) | State::Lingering(_) | State::Ended(_) => return None,
            }
        }
    }

    /// The answer to a request.
    pub fn answer(&mut self, ticket: Ticket, answer: &[u8]) {
        self.answers.answer(ticket, answer);
    }

    /// The configuration was read again, with other rights of this caller.
    pub fn change_rights(&mut self, rights: Rights) {
        self.settings.service.change(rights);
    }

    /// What this host's own `lonc` answered to the ping; `None`: nothing.
    pub fn asked_back(&mut self, ticket: Ticket, answer: Option<&[u8]>) {
        self.answers.answer(ticket, &self.settings.service.asked_back(answer));
    }

    /// The caller sends nothing more; it may still read.
    pub fn end_of_input(&mut self) {
        self.input_ended = true;
        match &self.state {
            State::Init | State::Challenged(_) => self.enter(State::Leaving(Reason::CallerClosed)),
            State::Open => self.enter(State::Finishing(Reason::CallerClosed)),
            State::Finishing(_) | State::Leaving(_) => {}
            State::Lingering(reason) => self.enter(State::Ended(reason.clone())),
            State::Ended(_) => {}
        }
    }

    /// Ends the link: answers what was read, within the drain timeout.
    pub fn finish(&mut self, reason: Reason, now: Instant) {
        match &self.state {
            State::Init | State::Challenged(_) => self.enter(State::Leaving(reason)),
            State::Open => self.enter(State::Finishing(reason)),
            State::Finishing(_) | State::Leaving(_) => {}
            State::Lingering(_) | State::Ended(_) => return,
        }
        let drained = now + self.settings.drain_timeout;
        self.deadline = Some(self.deadline.map_or(drained, |deadline| deadline.min(drained)));
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        let reason = match &self.state {
            State::Init | State::Challenged(_) => Reason::OpeningTimeout,
            State::Open => return,
            State::Leaving(reason) if !self.opened => reason.clone(),
            State::Finishing(_) | State::Leaving(_) => {
                Reason::DrainTimeout { unanswered: self.answers.unanswered() }
            }
            State::Lingering(reason) => reason.clone(),
            State::Ended(_) => return,
        };
        self.enter(State::Ended(reason));
    }

    /// The connection broke.
    pub fn lost(&mut self, cause: &io::Error) {
        self.enter(State::Ended(Reason::Lost(cause.to_string())));
    }

    /// When [`Classic::tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Ended(_) => None,
            State::Init
            | State::Challenged(_)
            | State::Open
            | State::Finishing(_)
            | State::Leaving(_)
            | State::Lingering(_) => self.deadline,
        }
    }

    /// Whether the caller is to be read now.
    pub fn wants_input(&self) -> bool {
        match self.state {
            State::Init | State::Challenged(_) | State::Open => !self.stalled && !self.answers.saturated(),
            State::Finishing(_) | State::Leaving(_) | State::Ended(_) => false,
            State::Lingering(_) => true,
        }
    }

    /// Whether answers of this handler are to be taken now.
    pub fn wants_answers_from(&self, handler: usize) -> bool {
        self.answers.wants_from(handler)
    }

    /// Requests whose answers were not sent whole.
    pub fn unanswered(&self) -> usize {
        self.answers.unanswered()
    }

    /// Whether [`Classic::step`] stopped for want of room, and there is room now, or the last
    /// answer has gone.
    pub fn has_work(&self) -> bool {
        match self.state {
            State::Init | State::Challenged(_) | State::Open => self.stalled && !self.answers.saturated(),
            State::Finishing(_) => !self.answers.saturated(),
            State::Leaving(_) => self.answers.all_sent(),
            State::Lingering(_) | State::Ended(_) => false,
        }
    }

    /// Bytes that wait for the caller.
    pub fn outgoing(&mut self) -> &mut Outgoing {
        self.answers.out()
    }

    /// Why the link ended, once it has.
    pub fn ended(&self) -> Option<&Reason> {
        match &self.state {
            State::Ended(reason) => Some(reason),
            State::Init
            | State::Challenged(_)
            | State::Open
            | State::Finishing(_)
            | State::Leaving(_)
            | State::Lingering(_) => None,
        }
    }

    /// Copies the next line to `request`.
    fn next_line(&mut self) -> Next {
        match self.reader.next_line() {
            None => Next::Nothing,
            Some(Line::TooLong) => Next::TooLong,
            // The reader's limit leaves room for enciphered ones.
            Some(Line::Whole(line)) if line.len() > self.settings.max_line && !is_enciphered(line) => {
                Next::TooLong
            }
            Some(Line::Whole(line)) => {
                self.request.clear();
                self.request.extend_from_slice(line);
                Next::Request
            }
        }
    }

    fn too_long(&mut self) {
        match &self.state {
            State::Init | State::Challenged(_) => {
                self.refuse("a line that is no part of the opening dialogue")
            }
            State::Open | State::Finishing(_) => {
                self.answers.give(&too_long_answer(self.settings.max_line), None)
            }
            State::Leaving(_) | State::Lingering(_) | State::Ended(_) => {}
        }
    }

    fn refuse(&mut self, why: &'static str) {
        self.answers.give(b"refused", None);
        self.enter(State::Leaving(Reason::Refused(why.into())));
    }

    fn enter(&mut self, state: State) {
        let (from, to) = (self.state.name(), state.name());
        match &state {
            State::Init | State::Challenged(_) | State::Open => {
                log::debug!("link of {}: {from} -> {to}", self.settings.service.caller);
            }
            State::Finishing(reason)
            | State::Leaving(reason)
            | State::Lingering(reason)
            | State::Ended(reason) => {
                log::debug!("link of {}: {from} -> {to} ({reason})", self.settings.service.caller);
            }
        }
        self.state = state;
    }
}

/// What [`Classic::next_line`] found.
enum Next {
    Request,
    TooLong,
    Nothing,
}

/// Longest line that is taken off the link: room for `max_line` bytes enciphered, which are twice
/// as many and `enc:<length>:`. Whether the request itself is longer than `max_line` is seen when
/// the line is whole.
fn wire_limit(max_line: usize) -> usize {
    max_line.saturating_mul(2).saturating_add(64)
}

#[cfg(test)]
mod tests;
