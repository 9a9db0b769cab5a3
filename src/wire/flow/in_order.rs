//! Answers that are given in any order and sent in the order of the requests: on the classic wire,
//! and to local programs.
//!
//! Owns a slot for each request whose answer cannot be sent yet, and the bytes that wait to be
//! written. The answer to the oldest request goes straight to those; only one that came early has
//! an allocation of its own.
//!
//! Bounds are the owner's to keep: [`InOrder::slots`], [`InOrder::early_bytes`] and `out` say how
//! it stands.

use base::line::Outgoing;
use std::borrow::Cow;
use std::collections::VecDeque;

#[derive(Debug)]
enum Slot<T> {
    /// The answer is to come.
    Owed(T),
    /// It is here, and an older one is not.
    Here(Vec<u8>),
}

/// The answers to one asker; `T`: what is known of a request until it is answered.
#[derive(Debug)]
pub struct InOrder<T> {
    /// Lines that wait to be written.
    pub out: Outgoing,
    slots: VecDeque<Slot<T>>,
    /// Number of the first slot.
    first: u64,
    /// Bytes of the answers that came early.
    early_bytes: usize,
}

impl<T> InOrder<T> {
    /// Nothing is owed yet; what is to be written goes to `out`.
    pub fn new(out: Outgoing) -> InOrder<T> {
        InOrder { out, slots: VecDeque::new(), first: 0, early_bytes: 0 }
    }

    /// A slot for the newest request; its number.
    pub fn owe(&mut self, of: T) -> u64 {
        self.slots.push_back(Slot::Owed(of));
        self.first + self.slots.len() as u64 - 1
    }

    /// The answer to the newest request, known at once.
    pub fn give(&mut self, line: Cow<'_, [u8]>) {
        if self.slots.is_empty() {
            self.out.push_line(&line);
            self.first += 1;
        } else {
            self.early_bytes += line.len();
            self.slots.push_back(Slot::Here(line.into_owned()));
        }
    }

    /// The answer to the request with this number, made of what is known of that. One that was
    /// answered before, or never asked, is a fault of the owner's, and nothing happens.
    pub fn answer<'a>(&mut self, number: u64, line: impl FnOnce(T) -> Cow<'a, [u8]>) {
        let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if at == Some(0) && matches!(self.slots.front(), Some(Slot::Owed(_))) {
            if let Some(Slot::Owed(of)) = self.slots.pop_front() {
                self.first += 1;
                self.out.push_line(&line(of));
            }
            return self.send_early();
        }
        let slot = at.and_then(|at| self.slots.get_mut(at));
        let Some(slot @ Slot::Owed(_)) = slot else {
            debug_assert!(false, "request {number} was answered before");
            return;
        };
        if let Slot::Owed(of) = std::mem::replace(slot, Slot::Here(Vec::new())) {
            let line = line(of).into_owned();
            self.early_bytes += line.len();
            *slot = Slot::Here(line);
        }
    }

    /// Moves on what waited for an older answer.
    fn send_early(&mut self) {
        while let Some(Slot::Here(line)) = self.slots.front() {
            self.early_bytes -= line.len();
            self.out.push_line(line);
            self.slots.pop_front();
            self.first += 1;
        }
    }

    /// What is known of the oldest request, whose answer holds up the others.
    pub fn oldest(&self) -> Option<&T> {
        match self.slots.front() {
            Some(Slot::Owed(of)) => Some(of),
            Some(Slot::Here(_)) | None => None,
        }
    }

    /// Requests whose answers were not moved on.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of answers that wait for an older one.
    pub fn early_bytes(&self) -> usize {
        self.early_bytes
    }

    /// Whether nothing is owed and nothing waits.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.out.is_empty()
    }

    /// Forgets what is owed; what waits to be written stays.
    pub fn forget(&mut self) {
        self.first += self.slots.len() as u64;
        self.slots.clear();
        self.early_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_given_in_any_order_leave_in_the_order_of_the_requests() {
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut answers = InOrder::new(Outgoing::default());
            let mut owed = Vec::new();
            let mut expected = String::new();
            for number in 0..200 {
                expected.push_str(&format!("{number}\n"));
                if random.bool() {
                    answers.give(number.to_string().into_bytes().into());
                } else {
                    owed.push(answers.owe(number));
                }
            }
            random.shuffle(&mut owed);
            for number in owed {
                answers.answer(number, |number| number.to_string().into_bytes().into());
            }
            assert_eq!(answers.out.bytes(), expected.as_bytes(), "seed {seed}");
            assert_eq!((answers.slots(), answers.early_bytes(), answers.oldest()), (0, 0, None));
        }
    }

    #[test]
    fn only_what_came_early_is_counted_as_held() {
        let mut answers = InOrder::new(Outgoing::default());
        let (first, second) = (answers.owe('a'), answers.owe('b'));
        answers.answer(second, |_| b"early"[..].into());
        assert_eq!((answers.early_bytes(), answers.oldest(), answers.slots()), (5, Some(&'a'), 2));
        answers.answer(first, |_| b"first"[..].into());
        assert_eq!(
            (answers.early_bytes(), answers.slots(), answers.out.bytes()),
            (0, 0, &b"first\nearly\n"[..])
        );
        assert!(!answers.is_empty());
        answers.out.clear();
        assert!(answers.is_empty());
        let forgotten = answers.owe('c');
        answers.forget();
        assert!(answers.is_empty());
        assert!(answers.owe('d') > forgotten, "an answer that comes late is to another request");
        let mut answers = InOrder::new(Outgoing::default());
        answers.give(b"at once"[..].into());
        assert_eq!(answers.owe('b'), 1, "each request has a number");
    }
}
