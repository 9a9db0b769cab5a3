//! The conversation with a local program on a Unix socket: a line each way, answers in the order of
//! the requests.
//!
//! Owns, for one program and one link: the requests that wait for an answer, and the bytes both
//! ways. Pure: the reactor's glue makes the connection, carries the bytes and passes the time.
//! Every request that was asked is answered exactly once, by the program or by `error:<name>:
//! <cause>`; a fault never reaches further than that.
//!
//! The protocol has no ids, so an answer belongs to the oldest request on the connection, and a
//! conversation never has more than one: its requests reach the program in their order. From this
//! follows what a slow program gets:
//!
//! - Its time for a request runs from when the request was passed on or the answer before it came,
//!   whichever is later: being asked much at once does not make a program slow.
//! - Past `timeout` that request alone is answered `error:`. Its *late answer* is awaited for
//!   another `timeout`, and dropped when it comes; then those behind it go on as if nothing had
//!   been. Requests that arrive meanwhile are *held*: not passed on yet.
//! - If the late answer does not come, the connection is given up. What was passed on behind the
//!   overdue request is answered `error:`: it cannot be sent again, since the program may have
//!   acted on it. What was held goes to the new connection.
//!
//! A program that is away (`connect` fails) costs the requests that wait, not the next one: that
//! dials again. So does, once, a request of which the program cannot have seen a byte when its
//! connection ended.

use super::waiting::{Dial, Held, tell};
use super::{Fault, Reply, Talk, Ticket};
use base::line::{Line, LineReader, Outgoing};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
enum State {
    /// No connection, and no request that needs one.
    Away,
    /// A connection is to be made. Requests are held.
    Dialing(Dial),
    /// There is a connection.
    Up,
    /// There is a connection whose oldest request was answered `error:`; its late answer is
    /// awaited.
    Late,
}

/// One link's conversation with one program.
#[derive(Debug)]
pub struct Conversation {
    name: String,
    timeout: Duration,
    max_line: usize,
    state: State,
    /// Requests on the connection, oldest first, and the lengths of their lines; without the
    /// overdue one in [`State::Late`].
    asked: VecDeque<(Ticket, usize)>,
    /// Their bytes that the program has not taken.
    out: Outgoing,
    /// Requests that no connection has seen; empty in [`State::Up`] and [`State::Away`].
    held: Held,
    reader: LineReader,
    /// From here the program's time for its oldest request runs. Meaningful while one is open.
    clock_from: Instant,
    /// The reactor stopped reading the program at this time, since the caller does not read: its
    /// clock stands.
    paused: Option<Instant>,
}

impl Conversation {
    /// A conversation with the program `name`, whose answers may have up to `max_line` bytes.
    pub fn new(name: &str, timeout: Duration, max_line: usize, now: Instant) -> Conversation {
        Conversation {
            name: name.to_owned(),
            timeout,
            max_line,
            state: State::Away,
            asked: VecDeque::new(),
            out: Outgoing::default(),
            held: Held::default(),
            reader: LineReader::new(max_line),
            clock_from: now,
            paused: None,
        }
    }

    /// How many requests the program has.
    pub fn open(&self) -> usize {
        self.asked.len()
    }

    /// Whether a request would be passed on at once, with nothing before it that waits to be
    /// written.
    pub fn takes(&self) -> bool {
        matches!(self.state, State::Up) && self.out.is_empty()
    }

    /// For how long the program has been at its oldest request. Not while it is not read.
    pub fn at_oldest(&self, now: Instant) -> Option<Duration> {
        match (self.state, self.paused) {
            (State::Up, None) if self.asked.is_empty() => None,
            (State::Up | State::Late, None) => Some(now.saturating_duration_since(self.clock_from)),
            (State::Away | State::Dialing(_), _) | (State::Up | State::Late, Some(_)) => None,
        }
    }

    fn take_answers(
        &mut self,
        now: Instant,
        answer: &mut impl FnMut(Ticket, Reply<'_>),
    ) -> Result<(), Fault> {
        loop {
            // Anything at all without a request open is too much: the next request would get it for
            // its answer. (What is left of a line that was too long is still the last answer's.)
            if !self.is_waiting() {
                let more = self.reader.next_line().is_some() || !self.reader.is_empty();
                return if more { Err(Fault::Unasked) } else { Ok(()) };
            }
            let too_long;
            let reply = match self.reader.next_line() {
                None => return Ok(()),
                Some(Line::Whole(line)) => Reply::Answer(line),
                Some(Line::TooLong) => {
                    too_long = format!("error:{}: answer longer than {} bytes", self.name, self.max_line);
                    Reply::Broken(too_long.as_bytes())
                }
            };
            match self.state {
                State::Late => {
                    self.release(now);
                    self.enter(State::Up, "the late answer came");
                }
                State::Up => {
                    if let Some((ticket, _)) = self.asked.pop_front() {
                        answer(ticket, reply);
                    }
                }
                State::Away | State::Dialing(_) => debug_assert!(false, "no connection"),
            }
            self.held.has_answered();
            self.clock_from = now;
        }
    }

    fn push(&mut self, ticket: Ticket, request: &[u8]) {
        self.out.push_line(request);
        self.asked.push_back((ticket, request.len() + 1));
    }

    /// Passes on what was held.
    fn release(&mut self, now: Instant) {
        if self.asked.is_empty() {
            self.clock_from = now;
        }
        for (ticket, request) in self.held.take() {
            self.push(ticket, &request);
        }
    }

    fn enter(&mut self, state: State, why: &str) {
        log::debug!("handler {}: {:?} -> {state:?} ({why})", self.name, self.state);
        self.state = state;
    }
}

impl Talk for Conversation {
    fn ask(&mut self, ticket: Ticket, request: &[u8], now: Instant) {
        match self.state {
            State::Up => {
                if self.asked.is_empty() {
                    self.clock_from = now;
                }
                self.push(ticket, request);
            }
            State::Away => {
                self.held.push(ticket, request);
                self.enter(State::Dialing(Dial::begin(now)), "a request came");
            }
            State::Dialing(_) | State::Late => self.held.push(ticket, request),
        }
    }

    fn wants_dial(&self, now: Instant) -> bool {
        match self.state {
            State::Dialing(dial) => dial.is_due(now),
            State::Away | State::Up | State::Late => false,
        }
    }

    fn dialed(&mut self, now: Instant) {
        match self.state {
            State::Dialing(_) => {
                self.release(now);
                self.enter(State::Up, "connected");
            }
            State::Away | State::Up | State::Late => debug_assert!(false, "not dialing"),
        }
    }

    fn busy(&mut self, now: Instant) {
        match self.state {
            State::Dialing(dial) => self.enter(State::Dialing(dial.again(now)), "its queue is full"),
            State::Away | State::Up | State::Late => debug_assert!(false, "not dialing"),
        }
    }

    fn is_waiting(&self) -> bool {
        matches!(self.state, State::Late) || !self.asked.is_empty()
    }

    fn is_free(&self) -> bool {
        match self.state {
            State::Away => true,
            State::Up => self.asked.is_empty(),
            State::Dialing(_) | State::Late => false,
        }
    }

    fn withdraw(&mut self, ticket: Ticket) -> bool {
        let withdrawn = self.held.withdraw(ticket);
        if withdrawn && self.held.is_empty() && matches!(self.state, State::Dialing(_)) {
            self.enter(State::Away, "its request was withdrawn");
        }
        withdrawn
    }

    fn outgoing(&mut self) -> &mut Outgoing {
        &mut self.out
    }

    fn begun(&self) -> usize {
        self.reader.memory()
    }

    fn received(
        &mut self,
        bytes: &[u8],
        now: Instant,
        answer: &mut impl FnMut(Ticket, Reply<'_>),
    ) -> Result<(), Fault> {
        self.reader.push(bytes);
        let taken = self.take_answers(now, answer);
        // A connection that says nothing more keeps nothing of its last answer.
        self.reader.compact();
        taken
    }

    fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Away => None,
            State::Dialing(dial) => Some(dial.deadline(self.timeout)),
            State::Up if self.asked.is_empty() => None,
            State::Up | State::Late => match self.paused {
                None => Some(self.clock_from + self.timeout),
                Some(_) => None,
            },
        }
    }

    fn overdue(&mut self, now: Instant, answer: &mut impl FnMut(Ticket, Reply<'_>)) -> Result<(), Fault> {
        let over = |from: Instant| now.saturating_duration_since(from) >= self.timeout;
        match self.state {
            State::Away => Ok(()),
            State::Dialing(dial) if dial.is_overdue(self.timeout, now) => Err(Fault::Busy(self.timeout)),
            State::Up | State::Late if self.paused.is_some() => Ok(()),
            State::Up if over(self.clock_from) => {
                let Some((ticket, _)) = self.asked.pop_front() else { return Ok(()) };
                let text = format!("error:{}: no answer within {:?}", self.name, self.timeout);
                answer(ticket, Reply::Broken(text.as_bytes()));
                self.clock_from = now;
                self.enter(State::Late, "no answer in time");
                Ok(())
            }
            State::Late if over(self.clock_from) => Err(Fault::Stuck(2 * self.timeout)),
            State::Dialing(_) | State::Up | State::Late => Ok(()),
        }
    }

    fn failed(&mut self, fault: &Fault, now: Instant, answer: &mut impl FnMut(Ticket, Reply<'_>)) {
        let mut untaken;
        let next = match self.state {
            State::Away => return,
            State::Dialing(_) => {
                untaken = self.held.give_up();
                State::Away
            }
            State::Up | State::Late => {
                let Conversation { held, asked, out, .. } = self;
                untaken =
                    held.take_back(out.bytes(), |most| asked.pop_back_if(|(_, length)| *length <= most));
                if matches!(fault, Fault::Unread) && out.is_empty() {
                    untaken.extend(asked.pop_back().map(|(ticket, _)| ticket));
                }
                if held.is_empty() { State::Away } else { State::Dialing(Dial::begin(now)) }
            }
        };
        let taken = self.asked.drain(..).map(|(ticket, _)| ticket).collect();
        self.out.clear();
        self.reader = LineReader::new(self.max_line);
        self.enter(next, "the connection ended");
        tell(&self.name, fault, (taken, untaken), answer);
    }

    fn probe(&mut self, now: Instant) {
        match self.state {
            State::Away => {
                self.enter(State::Dialing(Dial::begin(now)), "looking whether it is back");
            }
            State::Dialing(_) | State::Up | State::Late => {}
        }
    }

    fn pause(&mut self, paused: bool, now: Instant) {
        match (self.paused, paused) {
            (None, true) => self.paused = Some(now),
            (Some(since), false) => {
                self.clock_from += now.saturating_duration_since(since.max(self.clock_from));
                self.paused = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }
}

#[cfg(test)]
mod tests;
