//! The client keys that are remembered of one caller, with the answers to their first messages.
//!
//! Pure. Bounded in number and bytes; at a bound the oldest are forgotten. Keys that a program gave
//! and automatic ones have bounds of their own: `lon critical` makes an automatic one for each
//! message, and however many those are, what a program asks again with its key is still known.

use super::kept::Answer;
use super::line;
use base::Key;
use std::collections::{HashMap, VecDeque};

/// Client keys that are kept, and as many automatic ones; at the bound the oldest is forgotten.
pub const KEYS_MOST: usize = 10_000;
/// Bytes of keys that programs gave, with their answers: 8 MiB; at the bound the oldest are
/// forgotten.
pub const KEYS_BYTES_MOST: usize = 8 * 1024 * 1024;
/// The same for automatic keys: 2 MiB. The second message with one comes soon after the first.
const AUTOMATIC_BYTES_MOST: usize = 2 * 1024 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Keys {
    given: Window,
    automatic: Window,
}

impl Keys {
    /// The answer to the first message with this key.
    pub(super) fn get(&self, key: &Key) -> Option<&Answer> {
        let window = if key.is_automatic() { &self.automatic } else { &self.given };
        window.answers.get(key)
    }

    /// All of them; of each kind the oldest first.
    pub(super) fn by_age(&self) -> impl Iterator<Item = (&Key, &Answer)> {
        self.given.by_age().chain(self.automatic.by_age())
    }

    /// Bytes of the lines that say all of it.
    pub(super) fn lines(&self) -> u64 {
        self.given.lines + self.automatic.lines
    }

    /// Keeps the answer to a key; the first one stays.
    pub(super) fn insert(&mut self, key: Key, answer: Answer) {
        if key.is_automatic() {
            self.automatic.insert(key, answer, AUTOMATIC_BYTES_MOST);
        } else {
            self.given.insert(key, answer, KEYS_BYTES_MOST);
        }
    }
}

/// The newest keys of one kind.
#[derive(Debug, Default)]
struct Window {
    answers: HashMap<Key, Answer>,
    /// The same keys, oldest first.
    by_age: VecDeque<Key>,
    bytes: usize,
    /// Bytes of the lines of all keys.
    lines: u64,
}

impl Window {
    fn by_age(&self) -> impl Iterator<Item = (&Key, &Answer)> {
        self.by_age.iter().filter_map(|key| self.answers.get_key_value(key))
    }

    fn insert(&mut self, key: Key, answer: Answer, bytes_most: usize) {
        if self.answers.contains_key(&key) {
            return;
        }
        self.bytes += key.as_bytes().len() + answer.text.len();
        self.lines += line::key_length(&key, answer.broken, &answer.text);
        self.by_age.push_back(key.clone());
        self.answers.insert(key, answer);
        while self.answers.len() > KEYS_MOST || self.bytes > bytes_most {
            let Some(oldest) = self.by_age.pop_front() else { break };
            let Some(answer) = self.answers.remove(&oldest) else { continue };
            self.bytes -= oldest.as_bytes().len() + answer.text.len();
            self.lines -= line::key_length(&oldest, answer.broken, &answer.text);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn key(number: usize) -> Key {
        Key::new(format!("key-{number}").as_bytes()).unwrap()
    }

    pub(in super::super) fn said(text: &[u8]) -> Answer {
        Answer { text: text.into(), broken: false }
    }

    #[test]
    fn the_bytes_that_keys_may_have_may_be_used_up() {
        let mut kept = Window::default();
        let keys = 128;
        let text = said(&vec![b'x'; KEYS_BYTES_MOST / keys - key(1000).as_bytes().len()]);
        for number in 0..keys {
            assert_eq!(key(1000 + number).as_bytes().len(), key(1000).as_bytes().len());
            kept.insert(key(1000 + number), text.clone(), KEYS_BYTES_MOST);
        }
        assert_eq!((kept.bytes, kept.answers.len()), (KEYS_BYTES_MOST, keys));
        kept.insert(key(1000 + keys), text, KEYS_BYTES_MOST);
        assert_eq!((kept.answers.len(), kept.answers.get(&key(1000))), (keys, None));
        assert_eq!(kept.by_age.len(), keys);
    }

    #[test]
    fn automatic_keys_push_out_no_key_that_a_program_gave_and_are_bounded_themselves() {
        let mut kept = Keys::default();
        kept.insert(key(1), said(b"paid"));
        let automatic: Vec<Key> = (0..KEYS_MOST + 5).map(|_| Key::automatic().unwrap()).collect();
        for key in &automatic {
            kept.insert(key.clone(), said(b"ok"));
        }
        assert_eq!(kept.get(&key(1)), Some(&said(b"paid")));
        assert!(automatic[..5].iter().all(|key| kept.get(key).is_none()));
        assert!(automatic[5..].iter().all(|key| kept.get(key).is_some()));
        let all: u64 = kept.by_age().map(|(key, answer)| line::key_length(key, false, &answer.text)).sum();
        assert_eq!((kept.by_age().count(), kept.lines()), (KEYS_MOST + 1, all));
        let long = said(&[b'x'; 64 * 1024]);
        for _ in 0..100 {
            kept.insert(Key::automatic().unwrap(), long.clone());
        }
        assert!(kept.automatic.bytes <= AUTOMATIC_BYTES_MOST && kept.get(&key(1)).is_some());
    }
}
