//! The answers of one link, within their bounds: what order they leave in is [`InOrder`]'s.
//!
//! Bounded: see the constants. [`Answers::saturated`] says when no further request is to be taken,
//! and [`Answers::wants_from`] when no further answer; a caller that does not read thus stops
//! everything before it costs memory.

use crate::handler::Ticket;
use base::line::Outgoing;
use std::borrow::Cow;
use std::rc::Rc;
use wire::classic::Cipher;
use wire::flow::InOrder;

/// Requests of one link that may be without an answer sent. At the bound the caller is not read.
pub(super) const MAX_SLOTS: usize = 1024;

/// Bytes of requests that handlers may have before them, for one link. At the bound the caller is
/// not read; the request that reaches it is still taken.
pub(super) const MAX_ASKED_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of answers that wait for the caller, and as many again that wait for an older answer. At
/// either bound the caller is not read. At the first no handler is read either; at the second only
/// the one that owes the oldest answer. The answers that one read brings still come on top.
pub(super) const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Who owes an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The handler with this number.
    Handler(usize),
    /// The reactor: what it logs, loads, or asks this host's own `lonc`.
    Reactor,
}

/// The cipher that an answer is to be enciphered with, if its request was.
pub(super) type Seal = Option<Rc<Cipher>>;

/// What is known of a request until it is answered.
#[derive(Debug)]
struct Owed {
    seal: Seal,
    from: Source,
    /// Of the request.
    bytes: usize,
}

/// The answers of one link.
#[derive(Debug)]
pub(super) struct Answers {
    lines: InOrder<Owed>,
    /// Sum of the bytes of requests that have no answer.
    asked_bytes: usize,
}

impl Default for Answers {
    fn default() -> Answers {
        Answers { lines: InOrder::new(Outgoing::default()), asked_bytes: 0 }
    }
}

impl Answers {
    /// The answer to the newest request, known at once.
    pub(super) fn give(&mut self, answer: &[u8], seal: Seal) {
        self.lines.give(sealed(answer, seal.as_deref()));
    }

    /// A slot for the newest request, of so many bytes, which `from` will answer.
    pub(super) fn owe(&mut self, from: Source, bytes: usize, seal: Seal) -> Ticket {
        self.asked_bytes += bytes;
        Ticket(self.lines.owe(Owed { seal, from, bytes }))
    }

    /// The answer that was owed.
    pub(super) fn answer(&mut self, ticket: Ticket, answer: &[u8]) {
        let asked_bytes = &mut self.asked_bytes;
        self.lines.answer(ticket.0, |owed| {
            *asked_bytes -= owed.bytes;
            sealed(answer, owed.seal.as_deref())
        });
    }

    /// Bytes that wait for the caller.
    pub(super) fn out(&mut self) -> &mut Outgoing {
        &mut self.lines.out
    }

    /// Whether every answer was sent.
    pub(super) fn all_sent(&self) -> bool {
        self.lines.is_empty()
    }

    /// Requests whose answers were not sent whole.
    pub(super) fn unanswered(&self) -> usize {
        self.lines.slots()
    }

    /// Whether no further request is to be taken for now.
    pub(super) fn saturated(&self) -> bool {
        self.lines.slots() >= MAX_SLOTS
            || self.asked_bytes >= MAX_ASKED_BYTES
            || self.lines.early_bytes() >= MAX_ANSWER_BYTES
            || self.lines.out.len() >= MAX_ANSWER_BYTES
    }

    /// Whether answers of this handler are to be taken now.
    pub(super) fn wants_from(&self, handler: usize) -> bool {
        let owes_oldest = self.lines.oldest().is_some_and(|owed| owed.from == Source::Handler(handler));
        self.lines.out.len() < MAX_ANSWER_BYTES
            && (owes_oldest || self.lines.early_bytes() < MAX_ANSWER_BYTES)
    }
}

fn sealed<'a>(answer: &'a [u8], seal: Option<&Cipher>) -> Cow<'a, [u8]> {
    match seal {
        None => Cow::Borrowed(answer),
        Some(cipher) => {
            let mut line = Vec::new();
            cipher.seal(answer, &mut line);
            Cow::Owned(line)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
