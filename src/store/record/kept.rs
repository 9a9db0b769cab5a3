//! What is remembered of one caller, in memory.
//!
//! Pure. The bounds are here, and what happens at each: see the constants.

use super::Answered;
use super::keys::Keys;
use super::line::{self, Line};
use base::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Answers that are kept while an earlier message is being run: until that is answered the caller
/// can settle none of them, and the next message waits ([`super::RecordError::HeldUp`]).
pub const ANSWERS_BEHIND_ONE: usize = 8192;
/// Answers to unsettled sequences that are kept. More than [`ANSWERS_BEHIND_ONE`], by as many as a
/// caller has in flight: what it sent before it had the answer to the earlier message says nothing
/// of that in its `settled`, and has to be run before the caller sends more. A caller settles in
/// time what it sends; the answer beyond is refused ([`super::RecordError::Full`]), and should not
/// be asked for ([`super::Record::may_run`]).
pub const ANSWERS_MOST: usize = ANSWERS_BEHIND_ONE + 4096;
/// Bytes of them: 16 MiB. An answer that would be beyond is remembered as [`NOT_KEPT`].
pub const ANSWERS_BYTES_MOST: usize = 16 * 1024 * 1024;
/// Bytes that are written at a time where all is written.
const PIECE: usize = 256 * 1024;
/// Longest answer that is kept; a longer one is remembered as [`NOT_KEPT`].
pub const ANSWER_MOST: usize = 64 * 1024;
/// The answer to a repeat whose first answer was not kept.
pub const NOT_KEPT: &[u8] = b"error:answered before; the answer was too long to keep";

/// An answer that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// What was answered.
    pub text: Arc<[u8]>,
    /// It stands for one that the handler, which had got the message, did not give.
    pub broken: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The caller's epoch; none as long as nothing is known of it.
    epoch: Option<String>,
    /// All sequences below are settled, but for what `held` says.
    floor: u64,
    /// Commands of which only the sequences below this are settled: less than the floor.
    held: BTreeMap<Box<str>, u64>,
    /// Of this epoch, with their commands; none below its command's floor.
    answers: BTreeMap<u64, (Box<str>, Answer)>,
    answer_bytes: usize,
    /// Bytes of the lines of all answers: counted as they come and go, since [`Kept::length`] is
    /// asked for with each message.
    answer_lines: u64,
    /// Of any epoch.
    keys: Keys,
}

impl Kept {
    /// The caller's epoch.
    pub(super) fn epoch(&self) -> Option<&str> {
        self.epoch.as_deref()
    }

    /// All sequences of this command's messages below are settled.
    pub(super) fn floor_of(&self, command: &str) -> u64 {
        self.held.get(command).copied().unwrap_or(self.floor)
    }

    /// The least floor of all commands'.
    pub(super) fn least_floor(&self) -> u64 {
        self.held.values().copied().fold(self.floor, u64::min)
    }

    /// Adds the line that says what is settled.
    pub(super) fn append_floor(&self, out: &mut Vec<u8>) {
        line::append_floor(out, self.epoch().unwrap_or_default(), self.floor, &self.held);
    }

    /// The answer to a sequence.
    pub(super) fn answer(&self, sequence: u64) -> Option<&Answer> {
        self.answers.get(&sequence).map(|(_, answer)| answer)
    }

    /// The answer to the first message with a client key.
    pub(super) fn answer_to_key(&self, key: &Key) -> Option<&Answer> {
        self.keys.get(key)
    }

    /// How many more answers may be kept, of `most` in all.
    pub(super) fn room(&self, most: usize) -> usize {
        most.saturating_sub(self.answers.len())
    }

    /// How many more bytes of answers may be kept.
    pub(super) fn room_bytes(&self) -> usize {
        ANSWERS_BYTES_MOST.saturating_sub(self.answer_bytes)
    }

    /// The caller is in this epoch. If that is a new one, nothing is known of its sequences.
    pub(super) fn begin(&mut self, epoch: &str) {
        if self.epoch() != Some(epoch) {
            self.epoch = Some(epoch.to_owned());
            self.floor = 0;
            self.held.clear();
            self.answers.clear();
            self.answer_bytes = 0;
            self.answer_lines = 0;
        }
    }

    /// What a message of this command says to be settled: all sequences below, but for those of
    /// commands that the caller holds. If its own is one of these, what it says is about that
    /// alone.
    pub(super) fn settle(&mut self, command: &str, below: u64, held: &BTreeSet<Box<str>>) {
        for name in held {
            if !self.held.contains_key(name) {
                self.held.insert(name.clone(), self.floor);
            }
        }
        if held.contains(command) {
            if let Some(floor) = self.held.get_mut(command) {
                *floor = below.max(*floor);
            }
        } else {
            self.floor = below.max(self.floor);
            for (_, floor) in self.held.iter_mut().filter(|(name, _)| !held.contains(*name)) {
                *floor = below.max(*floor);
            }
        }
        self.drop_settled();
    }

    fn drop_settled(&mut self) {
        self.held.retain(|_, floor| *floor < self.floor);
        let settled: Vec<u64> = self
            .answers
            .range(..self.floor)
            .filter(|(sequence, (command, _))| **sequence < self.floor_of(command))
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in settled {
            if let Some((command, answer)) = self.answers.remove(&sequence) {
                self.answer_bytes -= answer.text.len();
                self.answer_lines -= line::answer_length(&command, answer.broken, &answer.text);
            }
        }
    }

    /// Takes in what a line says. The lines of a record, in order, restore it.
    pub(super) fn take(&mut self, line: Line) {
        match line {
            Line::Floor { epoch, floor, held } => {
                self.begin(&epoch);
                self.floor = floor.max(self.floor);
                self.held = held;
                self.drop_settled();
            }
            Line::Answer { epoch, sequence, key, command, broken, answer } => {
                self.begin(&epoch);
                let answer = Answer { text: answer.into(), broken };
                self.insert(sequence, key, &command, answer);
            }
            Line::Key { key, broken, answer } => {
                self.keys.insert(key, Answer { text: answer.into(), broken })
            }
        }
    }

    /// Keeps an answer; the first one to a sequence or key stays. Bounds on answers are the
    /// caller's to keep: while a record is read, those are here that a later line drops.
    pub(super) fn insert(&mut self, sequence: u64, key: Option<Key>, command: &str, answer: Answer) {
        if let Some(key) = key {
            self.keys.insert(key, answer.clone());
        }
        if sequence >= self.floor_of(command) && !self.answers.contains_key(&sequence) {
            self.answer_bytes += answer.text.len();
            self.answer_lines += line::answer_length(command, answer.broken, &answer.text);
            self.answers.insert(sequence, (command.into(), answer));
        }
    }

    /// Gives `write` the fewest lines that say all of it, then `more` lines, then a floor line
    /// again: [`PIECE`] at a time or a little more.
    ///
    /// # Errors
    /// The first of `write`; nothing more is given to it then.
    pub(super) fn each_piece<E>(
        &self,
        more: &[u8],
        mut write: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(epoch) = &self.epoch else { return Ok(()) };
        let mut piece = Vec::new();
        self.append_floor(&mut piece);
        let mut flow = |piece: &mut Vec<u8>, least: usize| {
            let full = piece.len() >= least;
            if full {
                write(piece)?;
                piece.clear();
            }
            Ok(())
        };
        for (key, Answer { text, broken }) in self.keys.by_age() {
            line::append_key(&mut piece, key, *broken, text);
            flow(&mut piece, PIECE)?;
        }
        for (sequence, (command, Answer { text, broken })) in &self.answers {
            let (sequence, broken) = (*sequence, *broken);
            let answered = Answered { sequence, key: None, command, broken, text };
            line::append_answer(&mut piece, epoch, &answered);
            flow(&mut piece, PIECE)?;
        }
        piece.extend_from_slice(more);
        self.append_floor(&mut piece);
        flow(&mut piece, 1)
    }

    /// How many bytes [`Kept::each_piece`] gives without `more`. Takes no longer the more there is.
    pub(super) fn length(&self) -> u64 {
        if self.epoch.is_none() {
            return 0;
        }
        2 * line::floor_length(&self.held) + self.keys.lines() + self.answer_lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::keys::KEYS_MOST;
    use crate::record::keys::tests::{key, said};

    fn restored(kept: &Kept) -> Kept {
        let mut again = Kept::default();
        let mut lines = Vec::new();
        kept.each_piece(b"", |piece| {
            assert!(piece.len() <= PIECE + 2 * ANSWER_MOST + 256, "{}", piece.len());
            lines.extend_from_slice(piece);
            Ok::<(), ()>(())
        })
        .unwrap();
        assert_eq!(kept.length(), lines.len() as u64);
        for text in lines.split(|byte| *byte == b'\n').filter(|text| !text.is_empty()) {
            again.take(line::parse(text).unwrap());
        }
        again
    }

    #[test]
    fn at_the_bound_the_oldest_keys_are_forgotten_and_a_restart_forgets_the_same() {
        let mut kept = Kept::default();
        kept.begin("00000000000000000000000000000001");
        for number in 0..KEYS_MOST + 5 {
            kept.insert(number as u64, Some(key(number)), "", said(b"ok"));
            kept.settle("", number as u64, &BTreeSet::new());
        }
        for kept in [&kept, &restored(&kept)] {
            assert_eq!(kept.keys.by_age().count(), KEYS_MOST);
            assert!((0..5).all(|number| kept.answer_to_key(&key(number)).is_none()));
            assert_eq!(kept.answer_to_key(&key(5)), Some(&said(b"ok")));
            assert_eq!(kept.keys.by_age().next(), Some((&key(5), &said(b"ok"))));
        }
        let long = said(&[b'x'; ANSWER_MOST]);
        for number in 0..600 {
            kept.insert(0, Some(key(100_000 + number)), "", long.clone());
        }
        assert!(kept.keys.by_age().count() < 300);
        let broken = Answer { text: b"with \n newlines \\ and more \n".as_slice().into(), broken: true };
        kept.insert(999_999, None, "pay", broken);
        kept.settle("log", 5, &BTreeSet::from(["pay".into()]));
        assert!(restored(&kept).keys.by_age().eq(kept.keys.by_age()));
        assert!(kept.answer_to_key(&key(100_599)).is_some());
    }

    #[test]
    fn the_first_answer_to_a_key_stays_and_is_kept_through_a_new_epoch() {
        let mut kept = Kept::default();
        kept.begin("00000000000000000000000000000001");
        kept.insert(1, Some(key(1)), "", said(b"first"));
        kept.insert(2, Some(key(1)), "", said(b"second"));
        kept.begin("00000000000000000000000000000002");
        assert_eq!(kept.answer(1), None);
        assert_eq!(kept.answer_to_key(&key(1)), Some(&said(b"first")));
        assert_eq!((kept.room(ANSWERS_MOST), kept.room_bytes()), (ANSWERS_MOST, ANSWERS_BYTES_MOST));
    }

    #[test]
    fn what_is_held_has_a_floor_of_its_own_until_the_caller_says_more_and_a_restart_knows_the_same() {
        let mut kept = Kept::default();
        let held = BTreeSet::from(["pay".into()]);
        let none = BTreeSet::new();
        kept.begin("00000000000000000000000000000001");
        kept.settle("log", 10, &none);
        // 10 is one of pay's that is not taken; others go past it.
        for sequence in 11..20 {
            kept.settle("log", sequence, &held);
            kept.insert(sequence, None, "log", said(b"ok"));
        }
        for kept in [&kept, &restored(&kept)] {
            assert_eq!((kept.floor_of("log"), kept.floor_of("pay"), kept.answers.len()), (19, 10, 1));
        }
        // It is taken, and another: what they are answered stays until pay's own messages say more.
        kept.settle("pay", 10, &held);
        kept.insert(10, None, "pay", said(b"paid"));
        kept.insert(21, None, "pay", said(b"paid too"));
        kept.settle("log", 30, &held);
        for kept in [&kept, &restored(&kept)] {
            assert_eq!(kept.answer(10), Some(&said(b"paid")));
            assert_eq!(kept.answer(21), Some(&said(b"paid too")));
            assert_eq!((kept.floor_of("log"), kept.answer(19)), (30, None));
        }
        kept.settle("pay", 22, &held);
        assert_eq!((kept.floor_of("pay"), kept.answers.len()), (22, 0));
        // Nothing is held any more: what a message says is about all.
        kept.settle("log", 25, &none);
        assert_eq!((kept.floor_of("pay"), kept.floor_of("log"), kept.held.len()), (25, 30, 1));
        kept.settle("pay", 31, &none);
        assert_eq!((kept.floor_of("pay"), kept.floor_of("log"), kept.held.len()), (31, 31, 0));
    }

    #[test]
    fn what_is_settled_gives_its_room_back_and_is_not_kept_again() {
        let mut kept = Kept::default();
        let none = BTreeSet::new();
        kept.begin("00000000000000000000000000000001");
        kept.settle("", 1, &none);
        let (room, empty) = (kept.room_bytes(), kept.length());
        for sequence in 1..=3 {
            kept.insert(sequence, None, "", said(&[b'x'; 100]));
        }
        kept.insert(2, None, "", said(b"another"));
        assert_eq!((kept.room_bytes(), kept.answer(2)), (room - 300, Some(&said(&[b'x'; 100]))));
        kept.settle("", 3, &none);
        assert_eq!(kept.room_bytes(), room - 100);
        kept.insert(1, None, "", said(b"late"));
        assert_eq!((kept.room_bytes(), kept.answer(1)), (room - 100, None));
        kept.settle("", 4, &none);
        assert_eq!((kept.room_bytes(), kept.length()), (room, empty));
    }
}
