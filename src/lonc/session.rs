//! A local program of one link: its lines in, its answers out, each in its own order.
//!
//! Owns each program's two buffers and the slots of its unanswered requests. A request takes the next slot; an answer
//! goes out when every slot before its own is answered. A program that does not read its answers is not read from:
//! [`Session::wants_read`] says so from what the buffers hold. An id is never given to two programs, so an answer
//! for a program that left finds nobody, rather than another. What all programs may hold together is bounded in
//! [`super::sessions`].

use super::sessions::Hoarder;
use crate::wire::line::{LineReader, Outgoing};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Instant;

/// Unanswered requests of one program; more of its lines wait in its buffer.
const MAX_SLOTS: usize = 1024;
/// Bytes of answers a program has not read; at this mark, or that of two of the longest lines, each further answer is
/// replaced by [`UNREAD`]. Only a program that reads (almost) nothing gets there, with long answers to the requests it had
/// sent before it was stopped at [`OUT_HIGH_WATER`]; holding them back on the link instead would hold back every other
/// program's.
const OUT_CAP: usize = 8 << 20;
/// What stands for an answer beyond [`OUT_CAP`].
const UNREAD: &[u8] = b"error:too many answers wait to be read";
/// What a program is told that did not end its line while others waited for room.
const UNENDED: &[u8] = b"error:the line was not ended in time, and others wait for room";
/// Bytes of answers a program has not read; at this mark its lines are left unprocessed. Room for the short answers
/// of 10,000 requests sent ahead by a program that reads none before it has sent all.
const OUT_HIGH_WATER: usize = 4 << 20;
/// Bytes of lines not yet processed; at this mark the program is not read from. A line longer than that raises it.
const IN_HIGH_WATER: usize = 4 << 20;

/// A program's connection. Never used again, so that nothing meant for one program reaches another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl ClientId {
    /// The place in the table, below the number of programs that were ever connected at once.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

#[derive(Debug)]
enum Slot {
    Waiting,
    Answered(Vec<u8>),
}

/// One program.
#[derive(Debug)]
pub struct Session {
    /// Its lines.
    pub reader: LineReader,
    /// Its answers.
    pub answers: Answers,
    /// Whether `reader` may hold a whole line.
    pub has_lines: bool,
    /// Whether it stands in the broker's queue of sessions to serve.
    pub queued: bool,
    /// Whether a request of it is held back, and its later ones with it.
    pub holding: bool,
    /// Whose it is: the user that connected.
    pub(super) user: u32,
    /// What was counted of its lines and of its answers.
    pub(super) weighed: (usize, usize),
    /// It is not read for want of room, and stands in the queue of those.
    pub(super) starved: bool,
    /// It did something since the last turn of the loop.
    pub(super) active: bool,
    /// When it last sent something or took an answer.
    pub(super) active_at: Instant,
    in_high_water: usize,
    /// No more lines come: the program shut its writing half, or the child drains.
    closed: bool,
    /// It goes to the next child as soon as all that was taken of its requests is answered: nothing more is read or
    /// taken here.
    parked: bool,
    /// It was given up: the connection is to be closed, whatever it is owed.
    abandoned: bool,
}

/// What the next child must have of a program beside its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest<'a> {
    /// What was read and not taken as a request.
    pub unread: Cow<'a, [u8]>,
    /// `unread` begins within a line that was answered as too long.
    pub skipping: bool,
    /// Answers that were not written yet; the first may have been in part.
    pub unsent: Cow<'a, [u8]>,
    /// The program has shut its writing half.
    pub ended: bool,
}

/// What a program is owed and what waits to be written to it.
#[derive(Debug)]
pub struct Answers {
    /// Bytes for the program.
    pub out: Outgoing,
    slots: VecDeque<Slot>,
    /// Number of the first slot in `slots`.
    first: u64,
    /// Bytes of the answers in `slots`.
    held: usize,
    /// See [`OUT_CAP`].
    cap: usize,
}

impl Answers {
    /// None are owed yet, to a program whose lines have up to `max_line` bytes.
    pub fn new(max_line: usize) -> Answers {
        let cap = OUT_CAP.max(2 * max_line);
        Answers { out: Outgoing::sparing(), slots: VecDeque::new(), first: 0, held: 0, cap }
    }

    /// Bytes of memory that answers take.
    pub fn memory(&self) -> usize {
        self.out.memory() + self.held
    }

    /// Takes the next slot.
    pub fn take_slot(&mut self) -> u64 {
        self.slots.push_back(Slot::Waiting);
        self.first + self.slots.len() as u64 - 1
    }

    /// Fills a slot. Answers whose turn it is move to `out`.
    pub fn fill(&mut self, slot: u64, answer: &[u8]) {
        let over = self.out.len() + self.held + answer.len() > self.cap;
        let answer = if over { UNREAD } else { answer };
        let Some(at) = slot.checked_sub(self.first).map(|at| at as usize).filter(|&at| at < self.slots.len())
        else {
            debug_assert!(false, "slot {slot} is not open");
            return;
        };
        if at > 0 {
            debug_assert!(matches!(self.slots[at], Slot::Waiting), "slot {slot} answered twice");
            self.slots[at] = Slot::Answered(answer.to_vec());
            self.held += answer.len();
            return;
        }
        self.out.push_line(answer);
        self.pop_first();
        while let Some(Slot::Answered(answer)) = self.slots.front_mut() {
            self.held -= answer.len();
            let answer = std::mem::take(answer);
            self.out.push_line(&answer);
            self.pop_first();
        }
    }

    fn pop_first(&mut self) {
        self.slots.pop_front();
        self.first += 1;
    }

    /// Whether no further request may be taken before answers have gone out.
    pub fn full(&self) -> bool {
        self.slots.len() >= MAX_SLOTS || self.out.len() + self.held >= OUT_HIGH_WATER
    }
}

impl Session {
    pub(super) fn new(max_line: usize, now: Instant) -> Session {
        Session {
            reader: LineReader::sparing(max_line),
            answers: Answers::new(max_line),
            has_lines: false,
            queued: false,
            holding: false,
            user: 0,
            weighed: (0, 0),
            starved: false,
            active: false,
            active_at: now,
            in_high_water: IN_HIGH_WATER.max(max_line + 1),
            closed: false,
            parked: false,
            abandoned: false,
        }
    }

    /// What a child before this one had of a program.
    pub(super) fn resume(rest: Rest<'_>, max_line: usize, now: Instant) -> Session {
        let mut session = Session::new(max_line, now);
        session.has_lines = !rest.unread.is_empty();
        session.reader = LineReader::resume(max_line, rest.unread.into_owned(), rest.skipping);
        session.answers.out.tail().extend_from_slice(&rest.unsent);
        session.closed = rest.ended;
        session
    }

    /// What a child after this one is to have of the program.
    pub fn rest(&self) -> Rest<'_> {
        let (unread, skipping) = self.reader.rest();
        let unsent = self.answers.out.bytes();
        Rest { unread: unread.into(), skipping, unsent: unsent.into(), ended: self.closed }
    }

    /// From now on it is neither read nor served: the next child will.
    pub fn park(&mut self) {
        self.parked = true;
        self.queued = false;
    }

    /// It cannot go after all: what was read is served here, and that is the end.
    pub fn unpark(&mut self) {
        self.parked = false;
        self.closed = true;
    }

    /// Whether it may go to the next child now: it is parked, and owed no answer.
    pub fn ready_to_go(&self) -> bool {
        self.parked && self.answers.slots.is_empty() && !self.finished()
    }

    /// Takes bytes that the program sent.
    pub fn push(&mut self, bytes: &[u8]) {
        self.reader.push(bytes);
        self.has_lines = true;
    }

    /// Notes that no more lines come.
    pub fn close_input(&mut self) {
        self.closed = true;
    }

    /// Whether the program's socket is to be read.
    pub fn wants_read(&self) -> bool {
        !self.closed && !self.parked && self.reader.len() < self.in_high_water
    }

    /// Bytes that may be read before it stops by itself.
    pub(super) fn room(&self) -> usize {
        self.in_high_water.saturating_sub(self.reader.len())
    }

    /// Whether it is owed nothing and has nothing to be written: it may be given up for another.
    pub(super) fn is_idle(&self) -> bool {
        !self.has_lines && !self.holding && self.answers.slots.is_empty() && self.answers.out.is_empty()
    }

    /// Whether it has begun a long line and not ended it.
    pub(super) fn holds_beginning(&self) -> bool {
        !self.has_lines && !self.closed && !self.parked && self.reader.len() >= super::sessions::ALWAYS
    }

    /// Whether it is to be told anything.
    pub(super) fn takes_answers(&self) -> bool {
        !self.abandoned
    }

    /// It keeps others waiting, and that is the end of it. Nothing more is read; what it asked is still answered, unless it
    /// is for the answers that it goes.
    pub(super) fn give_up(&mut self, why: Hoarder) {
        self.closed = true;
        self.has_lines = false;
        self.queued = false;
        self.reader.reset();
        match why {
            Hoarder::Line => {
                let slot = self.answers.take_slot();
                self.answers.fill(slot, UNENDED);
            }
            Hoarder::Answers => {
                self.answers.slots.clear();
                self.answers.held = 0;
                self.answers.out = Outgoing::sparing();
                self.abandoned = true;
            }
        }
    }

    /// Whether its lines can be processed now.
    pub fn can_serve(&self) -> bool {
        self.has_lines && !self.holding && !self.parked && !self.answers.full()
    }

    /// Whether nothing more will happen: the connection is to be closed.
    pub fn finished(&self) -> bool {
        self.abandoned
            || self.closed && !self.has_lines && self.answers.slots.is_empty() && self.answers.out.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_out_in_the_order_of_the_requests_whatever_their_own() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let mut answers = Answers::new(1 << 20);
            let mut slots: Vec<u64> = (0..50).map(|_| answers.take_slot()).collect();
            random.shuffle(&mut slots);
            for slot in slots {
                answers.fill(slot, format!("answer {slot}").as_bytes());
            }
            let expected: String = (0..50).map(|slot| format!("answer {slot}\n")).collect();
            assert_eq!(answers.out.bytes(), expected.as_bytes());
            assert_eq!(answers.held, 0);
            assert!(answers.slots.is_empty());
        }
    }

    #[test]
    fn a_program_that_does_not_read_stops_being_served_and_then_read() {
        let mut session = Session::new(1 << 20, Instant::now());
        let mut taken = 0;
        while !session.answers.full() {
            let slot = session.answers.take_slot();
            session.answers.fill(slot, &[b'x'; 1000]);
            taken += 1;
        }
        assert!(taken > 4000 && session.answers.out.len() < OUT_HIGH_WATER + 2000);
        let mut pushed = 0;
        while session.wants_read() {
            session.push(&[b'y'; 65536]);
            pushed += 65536;
        }
        assert!(!session.can_serve());
        assert!(pushed <= IN_HIGH_WATER + 65536);
        session.answers.out.clear();
        assert!(session.can_serve());
    }

    #[test]
    fn held_back_answers_count_towards_the_bound() {
        let mut answers = Answers::new(1 << 20);
        let first = answers.take_slot();
        let mut held = 0;
        while !answers.full() {
            let slot = answers.take_slot();
            answers.fill(slot, &[b'x'; 100_000]);
            held += 100_000;
        }
        assert!((OUT_HIGH_WATER..OUT_HIGH_WATER + 200_000).contains(&held));
        answers.fill(first, b"go");
        assert!(answers.out.len() > held && answers.held == 0);
    }

    #[test]
    fn what_a_program_does_not_read_is_bounded_and_each_request_still_has_its_line() {
        let mut answers = Answers::new(1 << 20);
        let big = vec![b'x'; 1 << 20];
        let slots: Vec<u64> = (0..100).map(|_| answers.take_slot()).collect();
        for slot in slots {
            answers.fill(slot, &big);
        }
        assert!(answers.out.len() < OUT_CAP + (1 << 16));
        let lines: Vec<&[u8]> = answers.out.bytes().split(|&c| c == b'\n').collect();
        assert_eq!(lines.len(), 101);
        assert_eq!(lines.iter().filter(|line| **line == UNREAD).count(), 93);
    }

    #[test]
    fn a_program_that_shut_its_writing_half_is_finished_only_when_all_is_answered_and_written() {
        let mut session = Session::new(100, Instant::now());
        session.push(b"ping\n");
        session.close_input();
        assert!(!session.wants_read() && !session.finished());
        while session.reader.next_line().is_some() {}
        session.has_lines = false;
        let slot = session.answers.take_slot();
        assert!(!session.finished());
        session.answers.fill(slot, b"pong");
        assert!(!session.finished());
        session.answers.out.clear();
        assert!(session.finished());
    }
}
