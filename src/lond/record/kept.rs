//! What is remembered of one caller, in memory.
//!
//! Pure. The bounds are here, and what happens at each: see the constants.

use super::Key;
use super::line::{self, Line};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// Answers to unsettled sequences that are kept. A caller settles in time what it sends; the answer beyond is refused
/// ([`super::RecordError::Full`]), and should not be asked for ([`super::Record::may_run`]).
pub const ANSWERS_MOST: usize = 8192;
/// Bytes of them: 16 MiB. An answer that would be beyond is remembered as [`NOT_KEPT`].
pub const ANSWERS_BYTES_MOST: usize = 16 * 1024 * 1024;
/// Client keys that are kept; at the bound the oldest is forgotten.
pub const KEYS_MOST: usize = 10_000;
/// Bytes of keys with their answers: 8 MiB; at the bound the oldest are forgotten.
pub const KEYS_BYTES_MOST: usize = 8 * 1024 * 1024;
/// Bytes that are written at a time where all is written.
const PIECE: usize = 256 * 1024;
/// Longest answer that is kept; a longer one is remembered as [`NOT_KEPT`].
pub const ANSWER_MOST: usize = 64 * 1024;
/// The answer to a repeat whose first answer was not kept.
pub const NOT_KEPT: &[u8] = b"error:answered before; the answer was too long to keep";

/// See the module.
#[derive(Debug, Default)]
pub struct Kept {
    /// The caller's epoch; none as long as nothing is known of it.
    epoch: Option<String>,
    /// All sequences below are settled.
    floor: u64,
    /// Of this epoch, none below the floor.
    answers: BTreeMap<u64, Arc<[u8]>>,
    answer_bytes: usize,
    /// Of any epoch.
    keys: HashMap<Key, Arc<[u8]>>,
    /// The same keys, oldest first.
    by_age: VecDeque<Key>,
    key_bytes: usize,
}

impl Kept {
    /// The caller's epoch.
    pub fn epoch(&self) -> Option<&str> {
        self.epoch.as_deref()
    }

    /// All sequences below are settled.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The answer to a sequence.
    pub fn answer(&self, sequence: u64) -> Option<&[u8]> {
        self.answers.get(&sequence).map(|answer| &**answer)
    }

    /// The answer to the first message with a client key.
    pub fn answer_to_key(&self, key: &Key) -> Option<&[u8]> {
        self.keys.get(key).map(|answer| &**answer)
    }

    /// How many more answers may be kept.
    pub fn room(&self) -> usize {
        ANSWERS_MOST.saturating_sub(self.answers.len())
    }

    /// How many more bytes of answers may be kept.
    pub fn room_bytes(&self) -> usize {
        ANSWERS_BYTES_MOST.saturating_sub(self.answer_bytes)
    }

    /// The caller is in this epoch. If that is a new one, nothing is known of its sequences.
    pub fn begin(&mut self, epoch: &str) {
        if self.epoch() != Some(epoch) {
            self.epoch = Some(epoch.to_owned());
            self.floor = 0;
            self.answers.clear();
            self.answer_bytes = 0;
        }
    }

    /// All sequences below are settled.
    pub fn settle(&mut self, below: u64) {
        if below > self.floor {
            self.floor = below;
            while let Some(first) = self.answers.first_entry().filter(|first| *first.key() < below) {
                self.answer_bytes -= first.remove().len();
            }
        }
    }

    /// Takes in what a line says. The lines of a record, in order, restore it.
    pub fn take(&mut self, line: Line) {
        match line {
            Line::Floor { epoch, floor } => {
                self.begin(&epoch);
                self.settle(floor);
            }
            Line::Answer { epoch, sequence, key, answer } => {
                self.begin(&epoch);
                self.insert(sequence, key, answer.into());
            }
            Line::Key { key, answer } => self.insert_key(key, answer.into()),
        }
    }

    /// Keeps an answer; the first one to a sequence or key stays. Bounds on answers are the caller's to keep: while
    /// a record is read, those are here that a later line drops.
    pub fn insert(&mut self, sequence: u64, key: Option<Key>, answer: Arc<[u8]>) {
        if let Some(key) = key {
            self.insert_key(key, Arc::clone(&answer));
        }
        if sequence >= self.floor && !self.answers.contains_key(&sequence) {
            self.answer_bytes += answer.len();
            self.answers.insert(sequence, answer);
        }
    }

    fn insert_key(&mut self, key: Key, answer: Arc<[u8]>) {
        if self.keys.contains_key(&key) {
            return;
        }
        self.key_bytes += key.as_bytes().len() + answer.len();
        self.by_age.push_back(key.clone());
        self.keys.insert(key, answer);
        while self.keys.len() > KEYS_MOST || self.key_bytes > KEYS_BYTES_MOST {
            let Some(oldest) = self.by_age.pop_front() else { break };
            let answer = self.keys.remove(&oldest);
            self.key_bytes -= oldest.as_bytes().len() + answer.map_or(0, |answer| answer.len());
        }
    }

    /// Gives `write` the fewest lines that say all of it, then `more` lines, then a floor line again: [`PIECE`] at a time or
    /// a little more.
    ///
    /// # Errors
    /// The first of `write`; nothing more is given to it then.
    pub fn each_piece<E>(&self, more: &[u8], mut write: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let Some(epoch) = &self.epoch else { return Ok(()) };
        let mut piece = Vec::new();
        line::append_floor(&mut piece, epoch, self.floor);
        let mut flow = |piece: &mut Vec<u8>, least: usize| {
            let full = piece.len() >= least;
            if full {
                write(piece)?;
                piece.clear();
            }
            Ok(())
        };
        for key in &self.by_age {
            if let Some(answer) = self.keys.get(key) {
                line::append_key(&mut piece, key, answer);
                flow(&mut piece, PIECE)?;
            }
        }
        for (sequence, answer) in &self.answers {
            line::append_answer(&mut piece, epoch, *sequence, None, answer);
            flow(&mut piece, PIECE)?;
        }
        piece.extend_from_slice(more);
        line::append_floor(&mut piece, epoch, self.floor);
        flow(&mut piece, 1)
    }

    /// How many bytes [`Kept::each_piece`] gives without `more`.
    pub fn length(&self) -> u64 {
        if self.epoch.is_none() {
            return 0;
        }
        let keys = self.keys.iter().map(|(key, answer)| line::key_length(key, answer));
        let answers = self.answers.values().map(|answer| line::answer_length(answer));
        2 * line::FLOOR_LENGTH + keys.sum::<u64>() + answers.sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key::new(format!("key-{number}").as_bytes()).unwrap()
    }

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
            kept.insert(number as u64, Some(key(number)), b"ok".as_slice().into());
            kept.settle(number as u64);
        }
        for kept in [&kept, &restored(&kept)] {
            assert_eq!(kept.keys.len(), KEYS_MOST);
            assert!((0..5).all(|number| kept.answer_to_key(&key(number)).is_none()));
            assert_eq!(kept.answer_to_key(&key(5)), Some(&b"ok"[..]));
            assert_eq!(kept.by_age.front(), Some(&key(5)));
        }
        let long: Arc<[u8]> = vec![b'x'; ANSWER_MOST].into();
        for number in 0..600 {
            kept.insert(0, Some(key(100_000 + number)), Arc::clone(&long));
            assert!(kept.key_bytes <= KEYS_BYTES_MOST);
        }
        assert!(kept.keys.len() < 300 && kept.keys.len() == kept.by_age.len());
        kept.insert(999_999, None, b"with \n newlines \\ and more \n".as_slice().into());
        assert_eq!(restored(&kept).keys.len(), kept.keys.len());
        assert!(kept.answer_to_key(&key(100_599)).is_some());
    }

    #[test]
    fn the_first_answer_to_a_key_stays_and_is_kept_through_a_new_epoch() {
        let mut kept = Kept::default();
        kept.begin("00000000000000000000000000000001");
        kept.insert(1, Some(key(1)), b"first".as_slice().into());
        kept.insert(2, Some(key(1)), b"second".as_slice().into());
        kept.begin("00000000000000000000000000000002");
        assert_eq!(kept.answer(1), None);
        assert_eq!(kept.answer_to_key(&key(1)), Some(&b"first"[..]));
        assert_eq!((kept.room(), kept.room_bytes()), (ANSWERS_MOST, ANSWERS_BYTES_MOST));
    }
}
