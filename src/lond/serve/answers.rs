//! The answers of one link: given in any order, sent in the order of the requests.
//!
//! Owns a slot for each request whose answer cannot be sent yet, and the bytes that wait for the caller. An answer
//! to the oldest request goes straight to those bytes; only one that came early has an allocation of its own.
//!
//! Bounded: see the constants. [`Answers::saturated`] says when no further request is to be taken, and
//! [`Answers::wants_from`] when no further answer; a caller that does not read thus stops everything before it
//! costs memory.

use crate::handler::Ticket;
use crate::wire::classic::Cipher;
use crate::wire::line::Outgoing;
use std::collections::VecDeque;
use std::rc::Rc;

/// Requests of one link that may be without an answer sent. At the bound the caller is not read.
pub const MAX_SLOTS: usize = 1024;

/// Bytes of requests that handlers may have before them, for one link. At the bound the caller is not read; the
/// request that reaches it is still taken.
pub const MAX_ASKED_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of answers that wait for the caller, and as many again that wait for an older answer. At either bound the
/// caller is not read. At the first no handler is read either; at the second only the one that owes the oldest
/// answer. The answers that one read brings still come on top.
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Who owes an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The handler with this number.
    Handler(usize),
    /// The reactor.
    Reactor,
}

/// The cipher that an answer is to be enciphered with, if its request was.
pub type Seal = Option<Rc<Cipher>>;

#[derive(Debug)]
struct Slot {
    seal: Seal,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    /// Still owed; `bytes`: of the request.
    Owed { from: Source, bytes: usize },
    /// The line, enciphered if it is to be, without its newline.
    Here(Vec<u8>),
}

/// The answers of one link.
#[derive(Debug, Default)]
pub struct Answers {
    out: Outgoing,
    slots: VecDeque<Slot>,
    /// Ticket of the first slot.
    first: u64,
    /// Sum of the requests' bytes in `Answer::Owed`.
    asked_bytes: usize,
    /// Sum of the lines' bytes in `Answer::Here`.
    early_bytes: usize,
}

impl Answers {
    /// The answer to the newest request, known at once.
    pub fn give(&mut self, answer: &[u8], seal: Seal) {
        if self.slots.is_empty() {
            write(answer, seal.as_deref(), &mut self.out);
            self.first += 1;
        } else {
            let line = sealed(answer, seal.as_deref());
            self.early_bytes += line.len();
            self.slots.push_back(Slot { seal: None, answer: Answer::Here(line) });
        }
    }

    /// A slot for the newest request, of so many bytes, which `from` will answer.
    pub fn owe(&mut self, from: Source, bytes: usize, seal: Seal) -> Ticket {
        let ticket = Ticket(self.first + self.slots.len() as u64);
        self.asked_bytes += bytes;
        self.slots.push_back(Slot { seal, answer: Answer::Owed { from, bytes } });
        ticket
    }

    /// The answer that was owed.
    pub fn answer(&mut self, ticket: Ticket, answer: &[u8]) {
        let at = ticket.0.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let Some(slot) = at.and_then(|at| self.slots.get_mut(at)) else {
            debug_assert!(false, "{ticket:?} was answered before");
            return;
        };
        let Answer::Owed { bytes, .. } = slot.answer else {
            debug_assert!(false, "{ticket:?} was answered before");
            return;
        };
        self.asked_bytes -= bytes;
        if at == Some(0) {
            write(answer, slot.seal.as_deref(), &mut self.out);
            self.slots.pop_front();
            self.first += 1;
            self.send_early();
        } else {
            let line = sealed(answer, slot.seal.as_deref());
            self.early_bytes += line.len();
            slot.answer = Answer::Here(line);
        }
    }

    /// Moves on what waited for an older answer.
    fn send_early(&mut self) {
        while let Some(Slot { answer: Answer::Here(line), .. }) = self.slots.front() {
            self.early_bytes -= line.len();
            self.out.push_line(line);
            self.slots.pop_front();
            self.first += 1;
        }
    }

    /// Bytes that wait for the caller.
    pub fn out(&mut self) -> &mut Outgoing {
        &mut self.out
    }

    /// Whether every answer was sent.
    pub fn all_sent(&self) -> bool {
        self.slots.is_empty() && self.out.is_empty()
    }

    /// Requests whose answers were not sent whole.
    pub fn unanswered(&self) -> usize {
        self.slots.len()
    }

    /// Whether no further request is to be taken for now.
    pub fn saturated(&self) -> bool {
        self.slots.len() >= MAX_SLOTS
            || self.asked_bytes >= MAX_ASKED_BYTES
            || self.early_bytes >= MAX_ANSWER_BYTES
            || self.out.len() >= MAX_ANSWER_BYTES
    }

    /// Whether answers of this handler are to be taken now.
    pub fn wants_from(&self, handler: usize) -> bool {
        let owes_oldest = match self.slots.front() {
            Some(Slot { answer: Answer::Owed { from, .. }, .. }) => *from == Source::Handler(handler),
            Some(Slot { answer: Answer::Here(_), .. }) | None => false,
        };
        self.out.len() < MAX_ANSWER_BYTES && (owes_oldest || self.early_bytes < MAX_ANSWER_BYTES)
    }
}

fn write(answer: &[u8], seal: Option<&Cipher>, out: &mut Outgoing) {
    match seal {
        None => out.push_line(answer),
        Some(cipher) => {
            cipher.seal(answer, out.tail());
            out.tail().push(b'\n');
        }
    }
}

fn sealed(answer: &[u8], seal: Option<&Cipher>) -> Vec<u8> {
    match seal {
        None => answer.to_vec(),
        Some(cipher) => {
            let mut line = Vec::new();
            cipher.seal(answer, &mut line);
            line
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(answers: &mut Answers) -> String {
        let text = String::from_utf8_lossy(answers.out().bytes()).into_owned();
        answers.out().clear();
        text
    }

    #[test]
    fn answers_given_in_any_order_leave_in_the_order_of_the_requests() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut answers = Answers::default();
            let mut owed = Vec::new();
            let mut expected = String::new();
            for number in 0..200 {
                expected.push_str(&format!("{number}\n"));
                if random.bool() {
                    answers.give(number.to_string().as_bytes(), None);
                } else {
                    owed.push((answers.owe(Source::Handler(number % 3), 10, None), number.to_string()));
                }
            }
            random.shuffle(&mut owed);
            for (ticket, text) in owed {
                answers.answer(ticket, text.as_bytes());
            }
            assert_eq!(sent(&mut answers), expected);
            assert!(answers.all_sent());
            assert_eq!((answers.asked_bytes, answers.early_bytes), (0, 0));
        }
    }

    #[test]
    fn each_bound_stops_the_requests_and_is_lifted_when_there_is_room() {
        let mut answers = Answers::default();
        let tickets: Vec<_> = (0..MAX_SLOTS).map(|_| answers.owe(Source::Reactor, 1, None)).collect();
        assert!(answers.saturated());
        answers.answer(tickets[0], b"x");
        assert!(!answers.saturated());

        let mut answers = Answers::default();
        let ticket = answers.owe(Source::Handler(0), MAX_ASKED_BYTES, None);
        assert!(answers.saturated());
        answers.answer(ticket, b"x");
        assert!(!answers.saturated());

        let mut answers = Answers::default();
        let oldest = answers.owe(Source::Handler(0), 1, None);
        answers.give(&[b'x'; MAX_ANSWER_BYTES], None);
        assert!(answers.saturated());
        assert!(answers.wants_from(0), "the handler that owes the oldest answer is still read");
        assert!(!answers.wants_from(1));
        answers.answer(oldest, b"x");
        assert!(answers.saturated(), "now the bytes wait for the caller");
        assert!(!answers.wants_from(0));
        answers.out().clear();
        assert!(!answers.saturated());
        assert!(answers.wants_from(1));
    }
}
