//! The answers on their way out: chunks, whose turn it is, and the caller's window.
//!
//! An answer *waits* until the caller's window has room for all of it; then it is *begun*. Answers are begun in the
//! order in which they came, so that a long one is not starved by short ones, and one begun can always be ended, so
//! that several never block each other. Those in one frame are sent whole; the longer ones take turns, a chunk each.
//!
//! Bounded: what was encoded and not yet taken stays below [`OUT_FULL`] and a frame; that stops everything else.
//! [`Sending::is_full`] says when nothing is to be asked for that could bring further answers. A caller that does
//! not read thus costs the bounds and no more.

use crate::wire::line::Outgoing;
use crate::wire::secure::{Credit, MAX_BODY, message_cost, put_answer, put_broken_answer};
use std::collections::VecDeque;

/// Bytes of frames that may wait to be taken. At the bound no answer is begun or continued.
pub const OUT_FULL: usize = 256 * 1024;

/// Bytes of answers that may wait to be sent. At the bound no handler is read and no request is taken; the answers
/// that one read of each handler brings still come on top.
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// An answer, and what it owes the request that it is for.
#[derive(Debug)]
pub struct Answer {
    /// The request's id.
    pub id: u64,
    /// What the request cost of the window, to be given back when the answer is begun.
    pub cost: usize,
    /// Whether it may be dropped when nobody waits for it.
    pub cancellable: bool,
    /// After it the link says GOAWAY.
    pub last: bool,
    /// It stands for the answer of a handler that had got the request and gave none.
    pub broken: bool,
    /// Its text.
    pub text: Box<[u8]>,
}

#[derive(Debug)]
struct Begun {
    id: u64,
    text: Box<[u8]>,
    sent: usize,
    last: bool,
    broken: bool,
}

/// The called side's way out.
#[derive(Debug)]
pub struct Sending {
    out: Outgoing,
    /// What the caller lets us send.
    window: u64,
    /// The part of it that is set aside for the rest of the answers begun.
    reserved: u64,
    /// Longest answer that the caller takes.
    max_line: usize,
    waiting: VecDeque<Answer>,
    begun: VecDeque<Begun>,
    /// Bytes of texts in `waiting` and of what is unsent in `begun`.
    bytes: usize,
}

impl Sending {
    /// For a caller that takes answers of up to `max_line` bytes, and `window` bytes at first.
    pub fn new(window: u32, max_line: u32) -> Sending {
        Sending {
            out: Outgoing::default(),
            window: window.into(),
            reserved: 0,
            max_line: usize::try_from(max_line).unwrap_or(usize::MAX),
            waiting: VecDeque::new(),
            begun: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Queues an answer.
    pub fn push(&mut self, mut answer: Answer) {
        if answer.text.len() > self.max_line {
            let mut text = format!("error:answer longer than {} bytes", self.max_line).into_bytes();
            text.truncate(self.max_line);
            answer.text = text.into();
        }
        self.bytes += answer.text.len();
        self.waiting.push_back(answer);
    }

    /// Drops an answer that nobody waits for and that was not begun; what its request cost.
    pub fn cancel(&mut self, id: u64) -> Option<usize> {
        let at = self.waiting.iter().position(|answer| answer.id == id && answer.cancellable)?;
        let answer = self.waiting.remove(at)?;
        self.bytes -= answer.text.len();
        Some(answer.cost)
    }

    /// The caller lets us send so much more; `false`: more than can be meant.
    pub fn widen(&mut self, bytes: u32) -> bool {
        self.window += u64::from(bytes);
        self.window <= u64::from(u32::MAX)
    }

    /// Encodes what there is room for. Returns whether the answer after which the link says GOAWAY is among it.
    pub fn fill(&mut self, credit: &mut Credit) -> bool {
        let mut last = false;
        while self.out.len() < OUT_FULL {
            let begun = self.begin(credit, &mut last);
            let continued = self.continue_one(&mut last);
            if !begun && !continued {
                break;
            }
        }
        last
    }

    /// Begins the answers whose turn it is; whether there were any.
    fn begin(&mut self, credit: &mut Credit, last: &mut bool) -> bool {
        let mut any = false;
        while self.out.len() < OUT_FULL {
            let fits =
                |answer: &Answer| message_cost(answer.text.len()) as u64 <= self.window - self.reserved;
            if !self.waiting.front().is_some_and(fits) {
                break;
            }
            let Some(answer) = self.waiting.pop_front() else { break };
            let cost = message_cost(answer.text.len()) as u64;
            any = true;
            credit.give_back(answer.cost);
            if answer.text.len() <= MAX_BODY {
                put(self.out.tail(), answer.id, false, answer.broken, &answer.text);
                self.window -= cost;
                self.bytes -= answer.text.len();
                *last |= answer.last;
            } else {
                self.reserved += cost;
                let Answer { id, text, last, broken, .. } = answer;
                self.begun.push_back(Begun { id, text, sent: 0, last, broken });
            }
        }
        any
    }

    /// Sends a chunk of the long answer whose turn it is; whether there is one.
    fn continue_one(&mut self, last: &mut bool) -> bool {
        if self.out.len() >= OUT_FULL {
            return false;
        }
        let Some(mut answer) = self.begun.pop_front() else { return false };
        let end = answer.text.len().min(answer.sent + MAX_BODY);
        let chunk = &answer.text[answer.sent..end];
        let more = end < answer.text.len();
        put(self.out.tail(), answer.id, more, answer.broken, chunk);
        let cost = message_cost(chunk.len()) as u64;
        self.window -= cost;
        self.reserved -= cost;
        self.bytes -= chunk.len();
        answer.sent = end;
        if more {
            self.begun.push_back(answer);
        } else {
            *last |= answer.last;
        }
        true
    }

    /// The frames that wait to be taken.
    pub fn out(&mut self) -> &mut Outgoing {
        &mut self.out
    }

    /// Whether no frame waits to be taken.
    pub fn is_taken(&self) -> bool {
        self.out.is_empty()
    }

    /// Whether there is room for a frame that is no answer.
    pub fn has_room(&self) -> bool {
        self.out.len() < OUT_FULL
    }

    /// Whether every answer was encoded.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.begun.is_empty()
    }

    /// How many answers were not.
    pub fn unsent(&self) -> usize {
        self.waiting.len() + self.begun.len()
    }

    /// Whether nothing is to be asked for that could bring further answers.
    pub fn is_full(&self) -> bool {
        self.bytes >= MAX_ANSWER_BYTES
    }

    /// Drops the answers; what was encoded stays.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.begun.clear();
        self.bytes = 0;
    }
}

fn put(out: &mut Vec<u8>, id: u64, more: bool, broken: bool, chunk: &[u8]) {
    if broken {
        put_broken_answer(out, id, more, chunk);
    } else {
        put_answer(out, id, more, chunk);
    }
}
