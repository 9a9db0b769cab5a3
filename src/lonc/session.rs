//! A local program of one link: its lines in, its answers out, each in its own order.
//!
//! Owns each program's two buffers and the slots of its unanswered requests: a request takes the
//! next one, and answers leave in their order ([`InOrder`]). A program that does not read its
//! answers is not read from: [`Session::wants_read`] says so from what the buffers hold. An id is
//! never given to two programs, so an answer for a program that left finds nobody, rather than
//! another. What all programs may hold together is bounded in [`super::sessions`].

use base::Credentials;
use base::line::{KEPT_SPARINGLY, LineReader, Outgoing};
use std::borrow::Cow;
use std::time::Instant;
use wire::flow::InOrder;

/// Bytes of lines that are not processed which every program may have.
pub const ALWAYS: usize = 2048;

/// Why a program was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hoarder {
    /// It began a line, and did not end it.
    Line,
    /// It did not read its answers.
    Answers,
}

/// Unanswered requests of one program; more of its lines wait in its buffer.
const MAX_SLOTS: usize = 1024;
/// Bytes of answers a program has not read; at this mark, or that of two of the longest lines, each
/// further answer is replaced by [`UNREAD`]. Only a program that reads (almost) nothing gets there,
/// with long answers to the requests it had sent before it was stopped at [`OUT_HIGH_WATER`];
/// holding them back on the link instead would hold back every other program's.
const OUT_CAP: usize = 8 << 20;
/// What stands for an answer beyond [`OUT_CAP`].
const UNREAD: &[u8] = b"error:too many answers wait to be read";
/// What a program is told that did not end its line while others waited for room.
const UNENDED: &[u8] = b"error:the line was not ended in time, and others wait for room";
/// Bytes of answers a program has not read; at this mark its lines are left unprocessed. Room for
/// the short answers of 10,000 requests sent ahead by a program that reads none before it has sent
/// all.
const OUT_HIGH_WATER: usize = 4 << 20;
/// Bytes of lines not yet processed; at this mark the program is not read from. A line longer than
/// that raises it.
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

/// One program: what was read of it and not taken, what it is owed, and whether it is read.
#[derive(Debug)]
pub struct Session {
    /// What was read of it and not taken as a request.
    pub reader: LineReader,
    /// What it is owed and what was not written yet, in the order of its requests.
    pub answers: InOrder<()>,
    /// Bytes of answers beyond which each is replaced: [`OUT_CAP`], or two of the longest lines.
    cap: usize,
    /// Whether `reader` may hold a whole line.
    pub has_lines: bool,
    /// Whether a newline has come since it held none.
    newline: bool,
    /// Whether it stands in the broker's queue of sessions to serve.
    pub queued: bool,
    /// Whether a request of it is held back, and its later ones with it.
    pub holding: bool,
    /// Whose it is: the user that connected.
    pub(super) user: u32,
    /// The same, and its groups.
    pub(super) who: Credentials,
    /// What was counted of its lines and of its answers.
    pub(super) weighed: (usize, usize),
    /// It is not read for want of room, and stands in the queue of those.
    pub(super) starved: bool,
    /// It did something since the last turn of the loop.
    pub(super) active: bool,
    /// It is among those that are touched.
    pub(super) touched: bool,
    /// The room that its buffers keep between requests, if more than a little.
    pub(super) room: usize,
    /// It got answers that are not weighed yet.
    pub(super) answered: bool,
    /// When it last sent something or took an answer.
    pub(super) active_at: Instant,
    in_high_water: usize,
    /// No more lines come: the program shut its writing half, or the child drains.
    closed: bool,
    /// It goes to the next child as soon as all that was taken of its requests is answered: nothing
    /// more is read or taken here.
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

impl Session {
    pub(super) fn new(max_line: usize, now: Instant) -> Session {
        Session {
            reader: LineReader::sparing(max_line),
            answers: InOrder::new(Outgoing::sparing()),
            cap: OUT_CAP.max(2 * max_line),
            has_lines: false,
            newline: false,
            queued: false,
            holding: false,
            user: 0,
            who: Credentials::nobody(),
            weighed: (0, 0),
            starved: false,
            active: false,
            touched: false,
            room: 0,
            answered: false,
            active_at: now,
            in_high_water: IN_HIGH_WATER.max(max_line + 1),
            closed: false,
            parked: false,
            abandoned: false,
        }
    }

    /// Takes the next slot, for a request; its number.
    pub fn take_slot(&mut self) -> u64 {
        self.answers.owe(())
    }

    /// The answer to the request that has this slot.
    pub fn answer(&mut self, slot: u64, answer: &[u8]) {
        let over = self.unread() + answer.len() > self.cap;
        self.answers.answer(slot, |()| Cow::Borrowed(if over { UNREAD } else { answer }));
    }

    /// Bytes of answers that it has not read.
    fn unread(&self) -> usize {
        self.answers.out.len() + self.answers.early_bytes()
    }

    /// Bytes of memory that its answers take.
    pub(super) fn answers_memory(&self) -> usize {
        self.answers.out.memory() + self.answers.early_bytes()
    }

    /// Whether no further request may be taken before answers have gone out.
    fn is_full(&self) -> bool {
        self.answers.slots() >= MAX_SLOTS || self.unread() >= OUT_HIGH_WATER
    }

    /// Its buffers keep so much room between requests, or as little as they can.
    pub(super) fn keep_room(&mut self, room: usize) {
        self.reader.keep(room.max(KEPT_SPARINGLY));
        self.answers.out.keep(room.max(KEPT_SPARINGLY));
        self.room = room;
    }

    /// What a child before this one had of a program.
    pub(super) fn resume(rest: Rest<'_>, max_line: usize, now: Instant) -> Session {
        let mut session = Session::new(max_line, now);
        session.has_lines = !rest.unread.is_empty();
        session.newline = rest.unread.contains(&b'\n');
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
        self.parked && self.answers.slots() == 0 && !self.finished()
    }

    /// Takes bytes that the program sent.
    pub fn push(&mut self, bytes: &[u8]) {
        self.reader.push(bytes);
        self.newline = (self.has_lines && self.newline) || memchr::memchr(b'\n', bytes).is_some();
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

    /// Whether it is read and has nothing but the beginning of a line, so that only more bytes can
    /// make that go.
    pub(super) fn needs_turn(&self) -> bool {
        let has_whole = self.has_lines && self.newline;
        self.wants_read() && !has_whole && !self.reader.is_over()
    }

    /// Bytes that may be read before it stops by itself.
    pub(super) fn room(&self) -> usize {
        self.in_high_water.saturating_sub(self.reader.len())
    }

    /// Whether it is owed nothing and has nothing to be written: it may be given up for another.
    pub(super) fn is_idle(&self) -> bool {
        !self.has_lines && !self.holding && self.answers.is_empty()
    }

    /// Whether it has begun a long line and not ended it.
    pub(super) fn holds_beginning(&self) -> bool {
        !self.has_lines && !self.closed && !self.parked && self.reader.len() >= ALWAYS
    }

    /// Whether it is to be told anything.
    pub(super) fn takes_answers(&self) -> bool {
        !self.abandoned
    }

    /// It keeps others waiting, and that is the end of it. Nothing more is read; what it asked is
    /// still answered, unless it is for the answers that it goes.
    pub(super) fn give_up(&mut self, why: Hoarder) {
        self.closed = true;
        self.has_lines = false;
        self.queued = false;
        self.reader.reset();
        match why {
            Hoarder::Line => {
                let slot = self.take_slot();
                self.answer(slot, UNENDED);
            }
            Hoarder::Answers => {
                self.answers.forget();
                self.answers.out = Outgoing::sparing();
                self.abandoned = true;
            }
        }
    }

    /// Whether its lines can be processed now.
    pub fn can_serve(&self) -> bool {
        self.has_lines && !self.holding && !self.parked && !self.is_full()
    }

    /// Whether nothing more will happen: the connection is to be closed.
    pub fn finished(&self) -> bool {
        self.abandoned || self.closed && !self.has_lines && self.answers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_read_stops_being_served_and_then_read() {
        let mut session = Session::new(1 << 20, Instant::now());
        let mut taken = 0;
        while !session.is_full() {
            let slot = session.take_slot();
            session.answer(slot, &[b'x'; 1000]);
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
        let mut session = Session::new(1 << 20, Instant::now());
        let first = session.take_slot();
        let mut held = 0;
        while !session.is_full() {
            let slot = session.take_slot();
            session.answer(slot, &[b'x'; 100_000]);
            held += 100_000;
        }
        assert!((OUT_HIGH_WATER..OUT_HIGH_WATER + 200_000).contains(&held));
        session.answer(first, b"go");
        assert!(session.answers.out.len() > held && session.answers.early_bytes() == 0);
    }

    #[test]
    fn what_a_program_does_not_read_is_bounded_and_each_request_still_has_its_line() {
        let mut session = Session::new(1 << 20, Instant::now());
        let big = vec![b'x'; 1 << 20];
        let slots: Vec<u64> = (0..100).map(|_| session.take_slot()).collect();
        for slot in slots {
            session.answer(slot, &big);
        }
        assert!(session.answers.out.len() < OUT_CAP + (1 << 16));
        let lines: Vec<&[u8]> = session.answers.out.bytes().split(|&c| c == b'\n').collect();
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
        let slot = session.take_slot();
        assert!(!session.finished());
        session.answer(slot, b"pong");
        assert!(!session.finished());
        session.answers.out.clear();
        assert!(session.finished());
    }
}
