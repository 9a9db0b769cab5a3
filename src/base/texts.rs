//! Texts that wait in a queue, first in, first out: short ones in one piece of memory.
//!
//! A text that comes and goes asks for no memory of its own, and what was asked for in a busy
//! moment is given back when nothing waits. A text of [`LONG`] bytes or more that is handed over is
//! not copied.

use crate::line::extend;
use std::borrow::Cow;
use std::collections::VecDeque;

/// Bytes from which a text that is handed over keeps its own memory.
pub const LONG: usize = 4096;
/// Bytes and places that are kept when nothing waits.
const KEPT: usize = 64 << 10;
const PLACES_KEPT: usize = 1024;

/// Gives the memory of a long text back; that of a short one is kept for the next.
pub fn give_back(text: &mut Vec<u8>) {
    if text.capacity() > 2 * LONG {
        *text = Vec::new();
    }
}

/// Where a text is.
#[derive(Debug)]
enum Place {
    /// Among the others, from this byte on, so many bytes.
    Among(usize, usize),
    /// By itself.
    Own(Vec<u8>),
}

/// A queue of texts, and what is known of each.
#[derive(Debug)]
pub struct Texts<T> {
    queue: VecDeque<(T, Place)>,
    bytes: Vec<u8>,
    /// How many of them are of texts that wait.
    waiting: usize,
}

impl<T> Default for Texts<T> {
    fn default() -> Texts<T> {
        Texts { queue: VecDeque::new(), bytes: Vec::new(), waiting: 0 }
    }
}

impl<T> Texts<T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What is known of the one that waits longest.
    pub fn front(&self) -> Option<&T> {
        self.queue.front().map(|(of, _)| of)
    }

    /// What is known of each, in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.queue.iter().map(|(of, _)| of)
    }

    /// One more, which is a copy, or handed over.
    pub fn push(&mut self, of: T, text: Cow<'_, [u8]>) {
        let place = match text {
            Cow::Owned(text) if text.len() >= LONG => Place::Own(text),
            text => {
                let begin = self.bytes.len();
                extend(&mut self.bytes, &text);
                self.waiting += text.len();
                Place::Among(begin, text.len())
            }
        };
        self.queue.push_back((of, place));
    }

    /// [`Texts::push`] of what somebody has room for: a short one is copied, so that the room is
    /// there for the next; a long one is taken.
    pub fn hand_over(&mut self, of: T, text: &mut Vec<u8>) {
        let taken =
            if text.len() < LONG { Cow::Borrowed(text.as_slice()) } else { std::mem::take(text).into() };
        self.push(of, taken);
    }

    /// Takes the one that waits longest out: what is known of it is returned, and its text is in
    /// `text` then, in the place of whatever was there.
    pub fn pop(&mut self, text: &mut Vec<u8>) -> Option<T> {
        let (of, place) = self.queue.pop_front()?;
        match place {
            Place::Own(own) => *text = own,
            Place::Among(begin, length) => {
                text.clear();
                text.extend_from_slice(self.bytes.get(begin..begin + length).unwrap_or_default());
                self.waiting -= length;
            }
        }
        self.tidy();
        Some(of)
    }

    /// Takes this one out, wherever it stands.
    pub fn remove(&mut self, is_it: impl FnMut(&T) -> bool) -> Option<T> {
        let at = self.iter().position(is_it)?;
        let (of, place) = self.queue.remove(at)?;
        if let Place::Among(_, length) = place {
            self.waiting -= length;
        }
        self.tidy();
        Some(of)
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.waiting = 0;
        self.tidy();
    }

    /// Keeps the memory within twice what waits, and a little; at no more cost than what went was
    /// to write.
    fn tidy(&mut self) {
        if self.queue.is_empty() {
            self.bytes.clear();
            if self.bytes.capacity() > KEPT {
                self.bytes.shrink_to(KEPT);
            }
            if self.queue.capacity() > PLACES_KEPT {
                self.queue.shrink_to(PLACES_KEPT);
            }
        } else if self.bytes.len() > KEPT && self.waiting < self.bytes.len() / 2 {
            let mut kept = Vec::with_capacity(self.waiting);
            for (_, place) in &mut self.queue {
                if let Place::Among(begin, length) = place {
                    let from = std::mem::replace(begin, kept.len());
                    kept.extend_from_slice(self.bytes.get(from..from + *length).unwrap_or_default());
                }
            }
            self.bytes = kept;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_comes_goes_and_is_taken_out_each_text_is_its_own_and_in_order() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut texts = Texts::default();
            let mut expected: VecDeque<(u32, Vec<u8>)> = VecDeque::new();
            let mut popped = Vec::new();
            for number in 0..3000 {
                match random.u8(..8) {
                    0..=3 => {
                        let length = if random.u8(..20) == 0 { random.usize(..3 * LONG) } else { 60 };
                        let text = vec![number as u8; length];
                        expected.push_back((number, text.clone()));
                        texts.push(number, if random.bool() { text.into() } else { Cow::Borrowed(&text) });
                    }
                    4..=6 => {
                        let first = expected.pop_front();
                        assert_eq!(texts.pop(&mut popped), first.as_ref().map(|(number, _)| *number));
                        if let Some((_, text)) = first {
                            assert_eq!(popped, text, "seed {seed}");
                        }
                    }
                    _ => {
                        let which = random.u32(..=number);
                        let at = expected.iter().position(|(number, _)| *number == which);
                        let removed = at.and_then(|at| expected.remove(at)).map(|(number, _)| number);
                        assert_eq!(texts.remove(|number| *number == which), removed);
                    }
                }
                assert_eq!((texts.len(), texts.front()), (expected.len(), expected.front().map(|it| &it.0)));
            }
        }
    }

    #[test]
    fn what_waits_alone_takes_memory_though_the_queue_is_never_empty() {
        let mut texts = Texts::default();
        texts.push(0, Cow::Borrowed(&[0; 100]));
        for number in 1..10_000 {
            texts.push(number, Cow::Borrowed(&[1; 100]));
            texts.pop(&mut Vec::new());
            assert!(texts.bytes.len() <= KEPT + 100, "{} bytes", texts.bytes.len());
        }
        // Nor by what is taken out behind one that stays.
        for number in 10_000..20_000 {
            texts.push(number, Cow::Borrowed(&[1; 100]));
            assert_eq!(texts.remove(|it| *it == number), Some(number));
            assert!(texts.bytes.len() <= KEPT + 100, "{} bytes", texts.bytes.len());
        }
        let mut text = Vec::new();
        assert_eq!((texts.pop(&mut text), text.as_slice()), (Some(9999), &[1; 100][..]));
        texts.push(1, Cow::Borrowed(&[1; 2 * KEPT]));
        assert_eq!(texts.remove(|number| *number == 1), Some(1));
        assert!(texts.is_empty() && texts.bytes.is_empty() && texts.bytes.capacity() <= KEPT);
    }
}
