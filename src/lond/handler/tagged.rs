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
//! - `later` and `busy` are no answers: the program has not taken the request.

use super::tag::{Answer, Said, Speaker};
use super::{CONNECT_RETRY, Fault, Reply, Talk, Ticket};
use base::line::{Line, LineReader, Outgoing};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Most bytes that stand before the text of an answer.
const BEFORE_TEXT: usize = 32;

/// What a plain request is told that there was no room for, and what a program says for that.
pub const BUSY: &str = "busy";

#[derive(Debug, Clone, Copy)]
enum State {
    /// No connection, and no request that needs one.
    Away,
    /// A connection is to be made: at `next`. The first request has waited since `since`.
    Dialing { since: Instant, next: Instant },
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
    open: BTreeMap<Ticket, Open>,
    /// The same in the order in which they were passed on, with those that were answered meanwhile.
    order: VecDeque<Ticket>,
    /// The last that was passed on over this connection.
    last: Option<Ticket>,
    /// Their bytes that the program has not taken.
    out: Outgoing,
    /// Requests that no connection has seen.
    held: VecDeque<(Ticket, Box<[u8]>)>,
    reader: LineReader,
    /// Requests that the last connection took nothing of were given to this one, which has answered
    /// none yet.
    second_try: bool,
    /// A request is overdue and nothing was heard since it was passed on: since when.
    silent: Option<Instant>,
    /// When the program answered last.
    heard: Option<Instant>,
    /// The reactor stopped reading the program at this time: its clock stands.
    paused: Option<Instant>,
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
            open: BTreeMap::new(),
            order: VecDeque::new(),
            last: None,
            out: Outgoing::default(),
            held: VecDeque::new(),
            reader: LineReader::new(max_line + BEFORE_TEXT),
            second_try: false,
            silent: None,
            heard: None,
            paused: None,
        }
    }

    fn push(&mut self, ticket: Ticket, line: &[u8], now: Instant) {
        self.out.push_line(line);
        self.open.insert(ticket, Open { length: line.len() + 1, asked: now });
        self.order.push_back(ticket);
        self.last = self.last.max(Some(ticket));
    }

    fn release(&mut self, now: Instant) {
        for (ticket, line) in std::mem::take(&mut self.held) {
            self.push(ticket, &line, now);
        }
    }

    /// The oldest request that is unanswered.
    fn oldest(&self) -> Option<(Ticket, Instant)> {
        let open = |ticket: &Ticket| Some((*ticket, self.open.get(ticket)?.asked));
        self.order.iter().find_map(open)
    }

    /// Forgets in what order those were passed on that are answered.
    fn trim(&mut self) {
        while self.order.front().is_some_and(|ticket| !self.open.contains_key(ticket)) {
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.open.len() + 64 {
            self.order.retain(|ticket| self.open.contains_key(ticket));
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
        if self.open.remove(&ticket).is_none() {
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
            Said::Busy => answer(ticket, Reply::NotTaken(BUSY)),
        }
        Ok(())
    }

    /// Takes back the requests of which the connection took nothing, to the front of those held;
    /// how many there are.
    fn hold_unsent(&mut self) -> usize {
        let mut unsent = self.out.bytes();
        let before = self.held.len();
        while let Some(ticket) = self.order.pop_back() {
            // What was answered was sent, and so was all before it.
            let Some(Open { length, .. }) = self.open.get(&ticket) else { break };
            let Some((rest, line)) = unsent.len().checked_sub(*length).map(|at| unsent.split_at(at)) else {
                self.order.push_back(ticket);
                break;
            };
            self.held.push_front((ticket, line[..line.len() - 1].into()));
            self.open.remove(&ticket);
            unsent = rest;
        }
        self.held.len() - before
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
                self.held.push_back((ticket, line.into()));
                self.enter(State::Dialing { since: now, next: now }, "a request came");
            }
            State::Dialing { .. } => self.held.push_back((ticket, line.into())),
        }
    }

    fn wants_dial(&self, now: Instant) -> bool {
        matches!(self.state, State::Dialing { next, .. } if next <= now)
    }

    fn dialed(&mut self, now: Instant) {
        debug_assert!(matches!(self.state, State::Dialing { .. }), "not dialing");
        (self.silent, self.heard, self.last) = (None, None, None);
        self.release(now);
        self.enter(State::Up, "connected");
    }

    fn busy(&mut self, now: Instant) {
        if let State::Dialing { since, .. } = self.state {
            self.enter(State::Dialing { since, next: now + CONNECT_RETRY }, "its queue is full");
        }
    }

    fn is_waiting(&self) -> bool {
        !self.open.is_empty()
    }

    fn is_free(&self) -> bool {
        match self.state {
            State::Away => true,
            State::Up => self.open.is_empty(),
            State::Dialing { .. } => false,
        }
    }

    fn withdraw(&mut self, ticket: Ticket) -> bool {
        let before = self.held.len();
        self.held.retain(|(held, _)| *held != ticket);
        let withdrawn = self.held.len() < before;
        if withdrawn && self.held.is_empty() && matches!(self.state, State::Dialing { .. }) {
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
            (self.silent, self.heard, self.second_try) = (None, Some(now), false);
        };
        reader.compact();
        self.reader = reader;
        self.trim();
        taken
    }

    fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Away => None,
            State::Dialing { since, next } => Some(next.min(since + self.timeout)),
            State::Up if self.paused.is_some() => None,
            State::Up => {
                let oldest = self.oldest().map(|(_, asked)| asked + self.timeout);
                let silent = self.silent.map(|since| since + self.timeout);
                [oldest, silent].into_iter().flatten().min()
            }
        }
    }

    fn overdue(&mut self, now: Instant, answer: &mut impl FnMut(Ticket, Reply<'_>)) -> Result<(), Fault> {
        let timeout = self.timeout;
        let over = |from: Instant| now.saturating_duration_since(from) >= timeout;
        match self.state {
            State::Away => return Ok(()),
            State::Dialing { since, .. } if over(since) => return Err(Fault::Busy(self.timeout)),
            State::Dialing { .. } => return Ok(()),
            State::Up if self.paused.is_some() => return Ok(()),
            State::Up if self.silent.is_some_and(over) => return Err(Fault::Stuck(2 * self.timeout)),
            State::Up => {}
        }
        let text = format!("error:{}: no answer within {:?}", self.name, self.timeout);
        while let Some((ticket, asked)) = self.oldest().filter(|(_, asked)| over(*asked)) {
            self.open.remove(&ticket);
            self.trim();
            answer(ticket, Reply::Broken(text.as_bytes()));
            if self.heard.is_none_or(|heard| heard <= asked) {
                self.silent.get_or_insert(now);
            }
        }
        Ok(())
    }

    fn failed(&mut self, fault: &Fault, now: Instant, answer: &mut impl FnMut(Ticket, Reply<'_>)) {
        let mut untaken = Vec::new();
        let next = match self.state {
            State::Away => return,
            State::Dialing { .. } => {
                untaken.extend(self.held.drain(..).map(|(ticket, _)| ticket));
                State::Away
            }
            State::Up => {
                let unsent = self.hold_unsent();
                if matches!(fault, Fault::Unread) && unsent == 0 && self.out.is_empty() {
                    let last = self.order.pop_back().filter(|last| self.open.remove(last).is_some());
                    untaken.extend(last);
                } else if self.second_try {
                    untaken.extend(self.held.drain(..unsent).map(|(ticket, _)| ticket));
                }
                self.second_try = !self.second_try && unsent > 0;
                if self.held.is_empty() { State::Away } else { State::Dialing { since: now, next: now } }
            }
        };
        let taken: Vec<_> = std::mem::take(&mut self.open).into_keys().collect();
        self.order.clear();
        self.out.clear();
        self.silent = None;
        self.reader = LineReader::new(self.max_line + BEFORE_TEXT);
        self.enter(next, "the connection ended");
        let why = format!("{}: {fault}", self.name);
        let text = format!("error:{why}");
        for ticket in taken {
            answer(ticket, Reply::Broken(text.as_bytes()));
        }
        for ticket in untaken {
            answer(ticket, Reply::NotTaken(&why));
        }
    }

    fn probe(&mut self, now: Instant) {
        if matches!(self.state, State::Away) {
            self.enter(State::Dialing { since: now, next: now }, "looking whether it is back");
        }
    }

    fn pause(&mut self, paused: bool, now: Instant) {
        match (self.paused, paused) {
            (None, true) => self.paused = Some(now),
            (Some(since), false) => {
                for open in self.open.values_mut() {
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
