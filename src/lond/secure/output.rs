//! What goes to the caller: answers by chunks, within the window that it gave, and the frames that
//! are no answers.
//!
//! Nothing goes before our HELLO. Of the frames that are no answers each waits in a place of its
//! own, so none can pile up; [`OUT_FULL`] bounds what waits to be taken.

use super::answer::{Answer, MAX_ANSWER_BYTES, OUT_FULL, PASS_UNTIL, put};
use super::ending::GoAway;
use super::requests::Said;
use super::untaken::Untaken;
use crate::service::Service;
use base::line::Outgoing;
use wire::flow::{Cancelled, Control, Credit, Sending};
use wire::secure::{CalledHello, put_error, put_go_away};

/// See the module.
#[derive(Debug)]
pub(super) struct Output {
    /// Frames that wait to be taken.
    out: Outgoing,
    sending: Sending<Answer>,
    /// Longest answer that the caller takes.
    caller_max_line: usize,
    control: Control,
    /// Our HELLO was said.
    greeted: bool,
    /// The caller is to send no more requests: see [`GoAway`].
    go_away: Option<GoAway>,
}

impl Output {
    /// Nothing goes yet.
    pub(super) fn new() -> Output {
        Output {
            out: Outgoing::default(),
            sending: Sending::new(0),
            caller_max_line: 0,
            control: Control::default(),
            greeted: false,
            go_away: None,
        }
    }

    /// The frames that wait to go through the tunnel.
    pub(super) fn frames(&mut self) -> &mut Outgoing {
        &mut self.out
    }

    /// Whether none does.
    pub(super) fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Nothing more reaches the caller: what waits is dropped.
    pub(super) fn cut(&mut self) {
        self.out.clear();
    }

    // The HELLOs.

    /// The caller has said what it takes: so many bytes of answers at first, and of each at most.
    pub(super) fn caller_takes(&mut self, window: u32, max_line: u32) {
        self.sending = Sending::new(window);
        self.caller_max_line = usize::try_from(max_line).unwrap_or(usize::MAX);
    }

    /// Whether our HELLO was said.
    pub(super) fn has_greeted(&self) -> bool {
        self.greeted
    }

    /// Says our HELLO.
    pub(super) fn greet(&mut self, hello: &CalledHello) {
        self.greeted = true;
        hello.put(self.out.tail());
    }

    // Answers.

    /// Sends the answer to a request at once, if the caller takes it whole and nothing is before
    /// it; whether it did. Who calls gives back then what the request cost.
    pub(super) fn pass(&mut self, id: u64, Said { text, broken }: Said<'_>) -> bool {
        let passes = self.greeted
            && self.out.len() < PASS_UNTIL
            && text.len() <= self.caller_max_line
            && self.sending.is_empty()
            && self.sending.pass(text.len(), false);
        if passes {
            put(self.out.tail(), id, false, broken, text);
        }
        passes
    }

    /// Sends an answer when it is its turn, as far as the caller takes it.
    pub(super) fn push(&mut self, answer: Answer) {
        self.sending.push(answer.within(self.caller_max_line));
    }

    /// The caller takes so much more; `false` if that is beyond all bounds.
    pub(super) fn widen(&mut self, bytes: u32) -> bool {
        self.sending.widen(bytes)
    }

    /// Nobody waits for the answer to this request: drops it if it may be dropped and nothing of it
    /// was encoded; what the request cost then.
    pub(super) fn cancel(&mut self, id: u64) -> Option<usize> {
        match self.sending.cancel(|answer| answer.id == id && answer.cancellable) {
            Cancelled::Dropped(answer) => Some(answer.cost),
            Cancelled::UnderWay(_) | Cancelled::Unknown => None,
        }
    }

    /// Drops the answers that were not encoded.
    pub(super) fn drop_answers(&mut self) {
        self.sending.clear();
    }

    /// How many answers were not encoded whole.
    pub(super) fn answers(&self) -> usize {
        self.sending.len()
    }

    /// Whether no more answers may come for now.
    pub(super) fn is_full(&self) -> bool {
        self.sending.bytes() >= MAX_ANSWER_BYTES
    }

    /// Encodes the answers that there is room for; whether the last of them was among these.
    pub(super) fn fill_answers(&mut self, credit: &mut Credit) -> bool {
        let mut last = false;
        self.sending
            .fill(&mut self.out, OUT_FULL, |answer, chunk, out| last |= answer.put(chunk, credit, out));
        last
    }

    // What is no answer.

    /// Encodes what is no answer.
    pub(super) fn fill_control(&mut self, credit: &mut Credit, untaken: &mut Untaken, service: &Service) {
        if self.out.len() >= OUT_FULL {
            return;
        }
        self.control.put(credit, &mut self.out);
        untaken.fill(&mut self.out, credit, service);
        if let Some(GoAway { last, told: told @ false }) = &mut self.go_away {
            *told = true;
            put_go_away(self.out.tail(), *last);
        }
    }

    /// The caller has sent a PING with this body.
    pub(super) fn pinged(&mut self, body: &[u8]) {
        self.control.pinged(body);
    }

    /// A PING of ours is due.
    pub(super) fn ping(&mut self, number: u64) {
        self.control.ping(number);
    }

    /// Says what was wrong, instead of all answers that were not encoded.
    pub(super) fn error(&mut self, text: &str) {
        self.drop_answers();
        put_error(self.out.tail(), text);
    }

    /// No more requests are taken.
    pub(super) fn go_away(&mut self, go_away: GoAway) {
        self.go_away = Some(go_away);
    }

    /// What the caller is told of that, or was.
    pub(super) fn goes_away(&self) -> Option<GoAway> {
        self.go_away
    }
}
