//! The client keys that are remembered of one caller, with the answers to their first messages.
//!
//! Pure. Bounded in number and bytes; at a bound the oldest are forgotten.

use super::kept::Answer;
use super::line;
use base::Key;
use std::collections::{HashMap, VecDeque};

/// Client keys that are kept; at the bound the oldest is forgotten.
pub const KEYS_MOST: usize = 10_000;
/// Bytes of keys with their answers: 8 MiB; at the bound the oldest are forgotten.
pub const KEYS_BYTES_MOST: usize = 8 * 1024 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Keys {
    answers: HashMap<Key, Answer>,
    /// The same keys, oldest first.
    by_age: VecDeque<Key>,
    bytes: usize,
    /// Bytes of the lines of all keys.
    lines: u64,
}

impl Keys {
    /// The answer to the first message with this key.
    pub(super) fn get(&self, key: &Key) -> Option<&Answer> {
        self.answers.get(key)
    }

    /// All of them, oldest first.
    pub(super) fn by_age(&self) -> impl Iterator<Item = (&Key, &Answer)> {
        self.by_age.iter().filter_map(|key| self.answers.get_key_value(key))
    }

    /// Bytes of the lines that say all of it.
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }

    /// Keeps the answer to a key; the first one stays.
    pub(super) fn insert(&mut self, key: Key, answer: Answer) {
        if self.answers.contains_key(&key) {
            return;
        }
        self.bytes += key.as_bytes().len() + answer.text.len();
        self.lines += line::key_length(&key, answer.broken, &answer.text);
        self.by_age.push_back(key.clone());
        self.answers.insert(key, answer);
        while self.answers.len() > KEYS_MOST || self.bytes > KEYS_BYTES_MOST {
            let Some(oldest) = self.by_age.pop_front() else { break };
            let Some(answer) = self.answers.remove(&oldest) else { continue };
            self.bytes -= oldest.as_bytes().len() + answer.text.len();
            self.lines -= line::key_length(&oldest, answer.broken, &answer.text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key::new(format!("key-{number}").as_bytes()).unwrap()
    }

    fn said(text: &[u8]) -> Answer {
        Answer { text: text.into(), broken: false }
    }

    #[test]
    fn the_bytes_that_keys_may_have_may_be_used_up() {
        let mut kept = Keys::default();
        let keys = 128;
        let text = said(&vec![b'x'; KEYS_BYTES_MOST / keys - key(1000).as_bytes().len()]);
        for number in 0..keys {
            assert_eq!(key(1000 + number).as_bytes().len(), key(1000).as_bytes().len());
            kept.insert(key(1000 + number), text.clone());
        }
        assert_eq!((kept.bytes, kept.answers.len()), (KEYS_BYTES_MOST, keys));
        kept.insert(key(1000 + keys), text);
        assert_eq!((kept.answers.len(), kept.get(&key(1000))), (keys, None));
        assert_eq!(kept.by_age.len(), keys);
    }
}
