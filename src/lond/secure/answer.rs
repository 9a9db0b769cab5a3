//! An answer on its way to the caller, and what it owes the request that it is for.

use base::line::Outgoing;
use wire::flow::{Chunk, Credit, Message};
use wire::secure::{put_answer, put_broken_answer};

/// Bytes of frames that may wait to be taken. At the bound no frame of an answer is put.
pub(super) const OUT_FULL: usize = 256 * 1024;

/// The same for answers that are put as they come: what is no answer always finds room behind them.
pub(super) const PASS_UNTIL: usize = OUT_FULL / 2;

/// Bytes of answers that may wait to be sent. At the bound no handler is read and no request is
/// taken; the answers that one read of each handler brings still come on top.
pub(super) const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Answer {
    /// The request's id.
    pub id: u64,
    /// What the request cost of the window, to be given back when the answer begins to leave.
    pub cost: usize,
    /// Whether it may be dropped when nobody waits for it.
    pub cancellable: bool,
    /// After it the link says GOAWAY.
    pub last: bool,
    /// It stands for the answer of a handler that had got the request and gave none.
    pub broken: bool,
    /// What is answered, cut to what the caller takes.
    pub text: Box<[u8]>,
}

impl Message for Answer {
    fn length(&self) -> usize {
        self.text.len()
    }

    fn is_in_turn(&self) -> bool {
        false
    }
}

impl Answer {
    /// What a caller gets that takes answers of up to `max_line` bytes.
    pub(super) fn within(mut self, max_line: usize) -> Answer {
        if self.text.len() > max_line {
            let mut text = format!("error:answer longer than {max_line} bytes").into_bytes();
            text.truncate(max_line);
            self.text = text.into();
        }
        self
    }

    /// Puts a frame of it; whether the link says GOAWAY now.
    pub(super) fn put(&mut self, chunk: &Chunk, credit: &mut Credit, out: &mut Outgoing) -> bool {
        if chunk.is_first() {
            credit.give_back(self.cost);
        }
        put(out.tail(), self.id, chunk.more, self.broken, &self.text[chunk.range.clone()]);
        self.last && !chunk.more
    }
}

/// Puts a frame of an answer; `broken`: see [`Answer::broken`].
pub(super) fn put(out: &mut Vec<u8>, id: u64, more: bool, broken: bool, body: &[u8]) {
    let put = if broken { put_broken_answer } else { put_answer };
    put(out, id, more, body);
}
