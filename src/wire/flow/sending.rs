//! Messages on their way out as frames: chunks, whose turn it is, and the other side's window.
//!
//! A message *waits* until the window has room for all of it; then it is *begun*, and its part of
//! the window set aside, so that what was begun can always be ended and several begun ones never
//! block each other. Messages are begun in the order in which they came, but for one thing: those
//! in one frame overtake the longer ones that wait for room, or they would wait until what is
//! before these was worked off at the other side. A part of the window ([`FOR_SHORT`]) is left to
//! them, and no more than that overtakes the long one at the front, or it might wait for ever.
//! Those *in turn* stand in a queue of their own, before the others: one is sent whole before the
//! next is begun. Of what was begun, messages in one frame are sent whole; the longer ones take
//! turns, a chunk each, and a chunk is never held up by more than another chunk's worth of short
//! ones.
//!
//! Bounded: what was begun by the window; how much may wait is for the owner to say
//! ([`Sending::waiting`], [`Sending::bytes`]), as is how many bytes of frames may wait to be
//! written (`until` in [`Sending::fill`]).

use crate::secure::{MAX_BODY, cost, message_cost};
use base::line::Outgoing;
use std::collections::VecDeque;
use std::ops::Range;

/// The part of the window that long messages leave to short ones when they begin.
const FOR_SHORT: u32 = 8;

/// What can be sent in chunks.
pub trait Message {
    /// Bytes of it that go into frames.
    fn length(&self) -> usize;

    /// Whether it waits for the one of its kind before it to be sent whole.
    fn is_in_turn(&self) -> bool;
}

/// A part of a message, which a frame is to be put of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Which bytes of it.
    pub range: Range<usize>,
    /// Whether others follow.
    pub more: bool,
}

impl Chunk {
    /// Whether the message begins with it.
    pub fn is_first(&self) -> bool {
        self.range.start == 0
    }
}

/// What [`Sending::cancel`] found.
#[derive(Debug)]
pub enum Cancelled<'a, M> {
    /// Nothing of it was sent, nor will be.
    Dropped(M),
    /// A part of it was sent; the rest follows.
    UnderWay(&'a mut M),
    /// It is not here, or no more.
    Unknown,
}

#[derive(Debug)]
struct Begun<M> {
    message: M,
    sent: usize,
}

/// One side's way out.
#[derive(Debug)]
pub struct Sending<M> {
    /// What the other side lets us send; what was begun is taken off already.
    window: u64,
    /// What is set aside for the rest of what was begun.
    reserved: u64,
    /// The window that we had at first.
    whole: u32,
    /// Not in turn, and in one frame.
    waiting_short: VecDeque<M>,
    /// Not in turn, and in several.
    waiting_long: VecDeque<M>,
    waiting_in_turn: VecDeque<M>,
    /// What was taken of the window since a long message stands at the front.
    overtaken: u32,
    /// One in turn was begun and is not sent whole.
    turn_taken: bool,
    /// Begun, and in one frame.
    short: VecDeque<M>,
    /// Begun, and in several.
    long: VecDeque<Begun<M>>,
    /// Bytes of short ones that were put since the last chunk of a long one, while there is one.
    passed: usize,
    /// Bytes that were not put.
    bytes: usize,
}

impl<M: Message> Sending<M> {
    /// To a side that lets us send so much at first.
    pub fn new(window: u32) -> Sending<M> {
        Sending {
            window: window.into(),
            reserved: 0,
            whole: window,
            waiting_short: VecDeque::new(),
            waiting_long: VecDeque::new(),
            waiting_in_turn: VecDeque::new(),
            overtaken: 0,
            turn_taken: false,
            short: VecDeque::new(),
            long: VecDeque::new(),
            passed: 0,
            bytes: 0,
        }
    }

    /// The other side lets us send so much more; `false`: more than can be meant.
    pub fn widen(&mut self, bytes: u32) -> bool {
        self.window = self.window.saturating_add(bytes.into());
        self.window.saturating_add(self.reserved) <= u64::from(u32::MAX)
    }

    /// Whether a message of this length, which is not here yet, may be put now, in one frame; it is
    /// taken off the window then. Spares most messages the way through the queues.
    pub fn pass(&mut self, length: usize, in_turn: bool) -> bool {
        let cost = message_cost(length) as u64;
        let first = match in_turn {
            true => self.waiting_in_turn.is_empty() && !self.turn_taken,
            false => self.waiting_short.is_empty(),
        };
        let passes = first && length <= MAX_BODY && cost <= self.window && self.may_overtake(cost);
        if passes {
            self.take_for_short(cost);
        }
        passes
    }

    /// Takes a message that is to be sent.
    pub fn push(&mut self, message: M) {
        self.bytes += message.length();
        let queue = match (message.is_in_turn(), message.length() > MAX_BODY) {
            (true, _) => &mut self.waiting_in_turn,
            (false, true) => &mut self.waiting_long,
            (false, false) => &mut self.waiting_short,
        };
        queue.push_back(message);
    }

    /// Begins what the window has room for, and has `put` put frames of that into `out` until
    /// `until` bytes wait there.
    pub fn fill(
        &mut self,
        out: &mut Outgoing,
        until: usize,
        mut put: impl FnMut(&mut M, &Chunk, &mut Outgoing),
    ) {
        self.begin();
        while out.len() < until {
            let in_turn = if (self.short.is_empty() || self.passed >= MAX_BODY)
                && let Some(mut long) = self.long.pop_front()
            {
                self.passed = 0;
                let chunk = self.chunk(&long.message, long.sent);
                put(&mut long.message, &chunk, out);
                long.sent = chunk.range.end;
                let ended = long.message.is_in_turn() && !chunk.more;
                if chunk.more {
                    self.long.push_back(long);
                }
                ended
            } else if let Some(mut short) = self.short.pop_front() {
                let chunk = self.chunk(&short, 0);
                self.passed += if self.long.is_empty() { 0 } else { cost(chunk.range.len()) };
                put(&mut short, &chunk, out);
                short.is_in_turn()
            } else {
                return;
            };
            if in_turn {
                self.turn_taken = false;
            }
            self.begin();
        }
    }

    /// The next chunk of a message of which so much was sent; counts it as sent.
    fn chunk(&mut self, message: &M, sent: usize) -> Chunk {
        let length = message.length();
        let end = length.min(sent + MAX_BODY);
        self.reserved -= cost(end - sent) as u64;
        self.bytes -= end - sent;
        Chunk { range: sent..end, more: end < length }
    }

    fn begin(&mut self) {
        while self.begin_long() || self.begin_short() {}
    }

    /// Begins the next message in one frame, if there is room for it and it may overtake those
    /// that have none.
    fn begin_short(&mut self) -> bool {
        let turn = self.in_turn().is_some_and(|message| message.length() <= MAX_BODY);
        let queue = if turn { &self.waiting_in_turn } else { &self.waiting_short };
        let Some(length) = queue.front().map(M::length) else { return false };
        let cost = message_cost(length) as u64;
        if cost > self.window || !self.may_overtake(cost) {
            return false;
        }
        let queue = if turn { &mut self.waiting_in_turn } else { &mut self.waiting_short };
        let Some(message) = queue.pop_front() else { return false };
        self.take_for_short(cost);
        self.reserved += cost;
        self.turn_taken |= turn;
        self.short.push_back(message);
        true
    }

    /// Begins the next message in several frames, if there is room for it and what is left to the
    /// short ones.
    fn begin_long(&mut self) -> bool {
        let turn = self.in_turn().is_some_and(|message| message.length() > MAX_BODY);
        let queue = if turn { &mut self.waiting_in_turn } else { &mut self.waiting_long };
        let Some(length) = queue.front().map(M::length) else { return false };
        let cost = message_cost(length) as u64;
        // The receiver may keep a quarter of the window back, untold: that must not be waited for.
        let most = u64::from(self.whole / 4 * 3);
        let left = u64::from(self.whole / FOR_SHORT).min(most.saturating_sub(cost));
        if cost + left > self.window {
            return false;
        }
        let Some(message) = queue.pop_front() else { return false };
        self.window -= cost;
        self.reserved += cost;
        self.turn_taken |= turn;
        self.overtaken = 0;
        self.long.push_back(Begun { message, sent: 0 });
        true
    }

    /// The next of those in turn, if it is its turn.
    fn in_turn(&self) -> Option<&M> {
        self.waiting_in_turn.front().filter(|_| !self.turn_taken)
    }

    /// Whether a long message waits for room.
    fn is_long_waiting(&self) -> bool {
        !self.waiting_long.is_empty() || self.in_turn().is_some_and(|message| message.length() > MAX_BODY)
    }

    /// Whether a short message may be begun before the long ones that wait.
    fn may_overtake(&self, cost: u64) -> bool {
        !self.is_long_waiting() || u64::from(self.overtaken) + cost <= u64::from(self.whole / FOR_SHORT)
    }

    /// Takes a short message's cost off the window.
    fn take_for_short(&mut self, cost: u64) {
        self.window -= cost;
        // No more than an eighth of 32 bits.
        self.overtaken = if self.is_long_waiting() { self.overtaken + cost as u32 } else { 0 };
    }

    /// Looks for a message that nobody wants sent any more. One in turn cannot be called back.
    pub fn cancel(&mut self, is_it: impl Fn(&M) -> bool) -> Cancelled<'_, M> {
        let is_it = |message: &M| !message.is_in_turn() && is_it(message);
        let waiting = take_out(&mut self.waiting_short, is_it);
        if let Some(message) = waiting.or_else(|| take_out(&mut self.waiting_long, is_it)) {
            self.bytes -= message.length();
            return Cancelled::Dropped(message);
        }
        let begun = |begun: &Begun<M>| begun.sent == 0 && is_it(&begun.message);
        let unsent = take_out(&mut self.short, is_it)
            .or_else(|| take_out(&mut self.long, begun).map(|begun| begun.message));
        if let Some(message) = unsent {
            let cost = message_cost(message.length()) as u64;
            self.bytes -= message.length();
            self.reserved -= cost;
            self.window += cost;
            return Cancelled::Dropped(message);
        }
        match self.long.iter_mut().find(|begun| is_it(&begun.message)) {
            Some(begun) => Cancelled::UnderWay(&mut begun.message),
            None => Cancelled::Unknown,
        }
    }

    /// Those of which nothing was sent.
    pub fn unsent(&self) -> impl Iterator<Item = &M> {
        let long = self.long.iter().filter(|begun| begun.sent == 0).map(|begun| &begun.message);
        let waiting = self.waiting_in_turn.iter().chain(&self.waiting_short).chain(&self.waiting_long);
        waiting.chain(&self.short).chain(long)
    }

    /// How many were not begun.
    pub fn waiting(&self) -> usize {
        self.waiting_short.len() + self.waiting_long.len() + self.waiting_in_turn.len()
    }

    /// How many were not sent whole.
    pub fn len(&self) -> usize {
        self.waiting() + self.short.len() + self.long.len()
    }

    /// Whether every message was sent whole.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of messages that were not put.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Drops all that was not sent. No rest of a message may be awaited any more.
    pub fn clear(&mut self) {
        self.waiting_short.clear();
        self.waiting_long.clear();
        self.waiting_in_turn.clear();
        self.overtaken = 0;
        self.short.clear();
        self.long.clear();
        self.turn_taken = false;
        self.bytes = 0;
        self.window += std::mem::take(&mut self.reserved);
    }
}

fn take_out<T>(queue: &mut VecDeque<T>, is_it: impl Fn(&T) -> bool) -> Option<T> {
    let at = queue.iter().position(is_it)?;
    queue.remove(at)
}

#[cfg(test)]
mod tests;
