//! The conversation with a local program on a Unix socket that answers in any order: each request
//! has a tag, and its answer begins with the same.
//!
//! Owns, for one program and one link: the requests that wait for an answer, and the bytes both
//! ways. Pure, as [`super::socket`] is, whose rules hold where this says nothing else. A request's
//! tag is its ticket, so no two on a link have the same and what comes with the tag of a request
//! that was answered already (its own answer, late) is known for that and dropped.
//!
//! - Each request has `timeout` from when it was passed on. Past it that one is answered `error:`;
//!   the others are not held up.
//! - A program that says nothing at all for another `timeout` while it is late is given up.
//! - When the connection ends, what was passed on is answered `error:`, since the program may have
//!   acted on it; what no byte was sent of is asked again on the next connection, once.
//! - `later`, `busy` and `away` are no answers: the program has not taken the request.

use super::tag::{Answer, Said, Speaker};
use super::waiting::{Dial, Held, tell};
use super::{Fault, Reply, Talk, Ticket};
use base::Numbered;
use base::line::{Line, LineReader, Outgoing};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Most bytes that stand before the text of an answer.
const BEFORE_TEXT: usize = 32;

#[derive(Debug, Clone, Copy)]
enum State {
    /// No connection, and no request that needs one.
    Away,
    /// A connection is to be made.
    Dialing(Dial),
    /// There is a connection.
    Up,
}

/// A request that was passed on.
#[derive(Debug)]
struct Open {
    /// The length of its line.
    length: usize,
    /// When it was passed on.
    asked: Instant,
}

/// One link's conversation with one program.
#[derive(Debug)]
pub struct Conversation {
    name: String,
    timeout: Duration,
    max_line: usize,
    /// Who answers.
    speaker: Speaker,
    state: State,
    /// Requests on the connection.
    open: Numbered<Open>,
    /// The same in the order in which they were passed on, with those that were answered meanwhile.
    order: VecDeque<Ticket>,
    /// The last that was passed on over this connection.
    last: Option<Ticket>,
    /// Their bytes that the program has not taken.
    out: Outgoing,
    /// Requests that no connection has seen.
    held: Held,
    reader: LineReader,
    /// A request is overdue and nothing was heard since it was passed on: since when.
    silent: Option<Instant>,
    /// When the program answered last.
    heard: Option<Instant>,
    /// The reactor stopped reading the program at this time: its clock stands.
    paused: Option<Instant>,
    /// A process of `lond`'s own had no place for a request, or no program, since that was asked
    /// last.
    short: bool,
}

impl Conversation {
    /// A conversation with the program `name`, whose answers may have up to `max_line` bytes.
    pub fn new(name: &str, speaker: Speaker, timeout: Duration, max_line: usize) -> Conversation {
        Conversation {
            name: name.to_owned(),
            timeout,
            max_line,
            speaker,
            state: State::Away,
            open: Numbered::default(),
            order: VecDeque::new(),
            last: None,
            out: Outgoing::default(),
            held: Held::default(),
            reader: LineReader::new(max_line + BEFORE_TEXT),
            silent: None,
            heard: None,
            paused: None,
            short: false,
        }
    }

    /// Whether a process of `lond`'s own had no place for a request, or no program to give it to,
    /// since the last call.
    pub fn take_short(&mut self) -> bool {
        std::mem::take(&mut self.short)
    }

    fn push(&mut self, ticket: Ticket, line: &[u8], now: Instant) {
        self.out.push_line(line);
        self.open.insert(ticket.0, Open { length: line.len() + 1, asked: now });
        self.order.push_back(ticket);
        self.last = self.last.max(Some(ticket));
    }

    fn release(&mut self, now: Instant) {
        for (ticket, line) in self.held.take() {
            self.push(ticket, &line, now);
        }
    }

    /// The oldest request that is unanswered.
    fn oldest(&self) -> Option<(Ticket, Instant)> {
        let open = |ticket: &Ticket| Some((*ticket, self.open.get(ticket.0)?.asked));
        self.order.iter().find_map(open)
    }

    /// Forgets in what order those were passed on that are answered.
    fn trim(&mut self) {
        while self.order.front().is_some_and(|ticket| self.open.get(ticket.0).is_none()) {
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.open.len() + 64 {
            self.order.retain(|ticket| self.open.get(ticket.0).is_some());
        }
    }

    /// Takes the line that was read last; `too_long`: its end is missing.
    fn take(
        &mut self,
        line: &[u8],
        too_long: bool,
        answer: &mut impl FnMut(Ticket, Reply<'_>),
    ) -> Result<(), Fault> {
        let Answer { tag, said } = Answer::parse(line, self.speaker)?;
        let ticket = Ticket(tag);
        if self.open.remove(ticket.0).is_none() {
            // One that was answered for it, since it was late, or twice by it.
            return if Some(ticket) <= self.last { Ok(()) } else { Err(Fault::Unasked) };
        }
        let too_long = too_long || matches!(said, Said::Answer(text) if text.len() > self.max_line);
        match said {
            _ if too_long => {
                let text = format!("error:{}: answer longer than {} bytes", self.name, self.max_line);
                answer(ticket, Reply::Broken(text.as_bytes()));
            }
            Said::Answer(text) => answer(ticket, Reply::Answer(text)),
            Said::Failed(text) => answer(ticket, Reply::Broken(text)),
            Said::Later => answer(ticket, Reply::NotTaken(&format!("{}: not now", self.name))),
            Said::Busy => {
                self.short = true;
                answer(ticket, Reply::NotTaken(&format!("{}: busy", self.name)));
            }
            Said::Away(why) => {
                self.short = true;
                let why = String::from_utf8_lossy(why);
                answer(ticket, Reply::NotTaken(&format!("{}: {why}", self.name)));
            }
        }
        Ok(())
    }

    fn enter(&mut self, state: State, why: &str) {
        log::debug!("handler {}: {:?} -> {state:?} ({why})", self.name, self.state);
        self.state = state;
    }
}

impl Talk for Conversation {
    fn ask(&mut self, ticket: Ticket, line: &[u8], now: Instant) {
        match self.state {
            State::Up => self.push(ticket, line, now),
            State::Away => {
                self.held.push(ticket, line);
                self.enter(State::Dialing(Dial::begin(now)), "a request came");
            }
            State::Dialing(_) => self.held.push(ticket, line),
        }
    }

    fn wants_dial(&self, now: Instant) -> bool {
        matches!(self.state, State::Dialing(dial) if dial.is_due(now))
    }

    fn dialed(&mut self, now: Instant) {
        debug_assert!(matches!(self.state, State::Dialing(_)), "not dialing");
        (self.silent, self.heard, self.last) = (None, None, None);
        self.release(now);
        self.enter(State::Up, "connected");
    }

    fn busy(&mut self, now: Instant) {
        if let State::Dialing(dial) = self.state {
            self.enter(State::Dialing(dial.again(now)), "its queue is full");
        }
    }

    fn is_waiting(&self) -> bool {
        !self.open.is_empty()
    }

    fn is_free(&self) -> bool {
        match self.state {
            State::Away => true,
            State::Up => self.open.is_empty(),
            State::Dialing(_) => false,
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
        let mut reader = std::mem::replace(&mut self.reader, LineReader::new(0));
        reader.push(bytes);
        let taken = loop {
            let (line, too_long) = match reader.next_line() {
                None => break Ok(()),
                Some(Line::Whole(line)) => (line, false),
                // Its beginning is still there.
                Some(Line::TooLong) => (reader.rest().0, true),
            };
            if let Err(fault) = self.take(line, too_long, answer) {
                break Err(fault);
            }
            (self.silent, self.heard) = (None, Some(now));
            self.held.has_answered();
        };
        reader.compact();
        self.reader = reader;
        self.trim();
        taken
    }

    fn deadline(&self) -> Option<Instant> {
        let timeout = self.timeout;
        match self.state {
            State::Away => None,
            State::Dialing(dial) => Some(dial.deadline(timeout)),
            State::Up if self.paused.is_some() => None,
            State::Up => {
                let oldest = self.oldest().map(|(_, asked)| asked + timeout);
                let silent = self.silent.map(|since| since + timeout);
                [oldest, silent].into_iter().flatten().min()
            }
        }
    }

    fn overdue(&mut self, now: Instant, answer: &mut impl FnMut(Ticket, Reply<'_>)) -> Result<(), Fault> {
        let timeout = self.timeout;
        let over = |from: Instant| now.saturating_duration_since(from) >= timeout;
        match self.state {
            State::Away => return Ok(()),
            State::Dialing(dial) if dial.is_overdue(timeout, now) => return Err(Fault::Busy(self.timeout)),
            State::Dialing(_) => return Ok(()),
            State::Up if self.paused.is_some() => return Ok(()),
            State::Up if self.silent.is_some_and(over) => return Err(Fault::Stuck(2 * self.timeout)),
            State::Up => {}
        }
        let text = format!("error:{}: no answer within {:?}", self.name, self.timeout);
        while let Some((ticket, asked)) = self.oldest().filter(|(_, asked)| over(*asked)) {
            self.open.remove(ticket.0);
            self.trim();
            answer(ticket, Reply::Broken(text.as_bytes()));
            if self.heard.is_none_or(|heard| heard <= asked) {
                self.silent.get_or_insert(now);
            }
        }
        Ok(())
    }

    fn failed(&mut self, fault: &Fault, now: Instant, answer: &mut impl FnMut(Ticket, Reply<'_>)) {
        let mut untaken;
        let next = match self.state {
            State::Away => return,
            State::Dialing(_) => {
                untaken = self.held.give_up();
                State::Away
            }
            State::Up => {
                let Conversation { held, open, order, out, .. } = self;
                untaken = held.take_back(out.bytes(), |most| {
                    // What was answered was sent, and so was all before it.
                    let newest = order.back().copied()?;
                    let length =
                        open.get(newest.0).map(|open| open.length).filter(|length| *length <= most)?;
                    open.remove(newest.0);
                    order.pop_back();
                    Some((newest, length))
                });
                if matches!(fault, Fault::Unread) && out.is_empty() {
                    untaken.extend(order.pop_back().filter(|last| open.remove(last.0).is_some()));
                }
                if held.is_empty() { State::Away } else { State::Dialing(Dial::begin(now)) }
            }
        };
        let taken = self.open.take_all().map(|(tag, _)| Ticket(tag)).collect();
        self.order.clear();
        self.out.clear();
        self.silent = None;
        self.reader = LineReader::new(self.max_line + BEFORE_TEXT);
        self.enter(next, "the connection ended");
        let ended = matches!(fault, Fault::Broken(_) | Fault::Unread | Fault::Closed);
        let fault = if ended && self.speaker == Speaker::Pool { &Fault::PoolEnded } else { fault };
        tell(&self.name, fault, (taken, untaken), answer);
    }

    fn probe(&mut self, now: Instant) {
        if matches!(self.state, State::Away) {
            self.enter(State::Dialing(Dial::begin(now)), "looking whether it is back");
        }
    }

    fn pause(&mut self, paused: bool, now: Instant) {
        match (self.paused, paused) {
            (None, true) => self.paused = Some(now),
            (Some(since), false) => {
                for (_, open) in self.open.from_mut(0) {
                    open.asked += now.saturating_duration_since(since.max(open.asked));
                }
                if let Some(silent) = &mut self.silent {
                    *silent += now.saturating_duration_since(since.max(*silent));
                }
                self.paused = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }
}

#[cfg(test)]
mod tests;
