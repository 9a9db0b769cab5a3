//! Messages on their way out as frames: chunks, whose turn it is, and the other side's window.
//!
//! A message *waits* until the window has room for all of it; then it is *begun*, and its part of
//! the window set aside, so that what was begun can always be ended and several begun ones never
//! block each other. Messages are begun in the order in which they came: a long one at the front
//! waits until all of it has room, and nothing that came later overtakes it, or it might wait for
//! ever. Those *in turn* stand in a queue of their own, before the others: one is sent whole before
//! the next is begun. Of what was begun, messages in one frame are sent whole; the longer ones take
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
    waiting: VecDeque<M>,
    waiting_in_turn: VecDeque<M>,
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
            waiting: VecDeque::new(),
            waiting_in_turn: VecDeque::new(),
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
            false => self.waiting.is_empty(),
        };
        let passes = first && length <= MAX_BODY && cost <= self.window;
        if passes {
            self.window -= cost;
        }
        passes
    }

    /// Takes a message that is to be sent.
    pub fn push(&mut self, message: M) {
        self.bytes += message.length();
        let queue = if message.is_in_turn() { &mut self.waiting_in_turn } else { &mut self.waiting };
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
        loop {
            let turn = !self.turn_taken && !self.waiting_in_turn.is_empty();
            let queue = if turn { &mut self.waiting_in_turn } else { &mut self.waiting };
            let Some(length) = queue.front().map(M::length) else { return };
            let cost = message_cost(length) as u64;
            if cost > self.window {
                return;
            }
            let Some(message) = queue.pop_front() else { return };
            self.window -= cost;
            self.reserved += cost;
            self.turn_taken |= message.is_in_turn();
            if length <= MAX_BODY {
                self.short.push_back(message);
            } else {
                self.long.push_back(Begun { message, sent: 0 });
            }
        }
    }

    /// Looks for a message that nobody wants sent any more. One in turn cannot be called back.
    pub fn cancel(&mut self, is_it: impl Fn(&M) -> bool) -> Cancelled<'_, M> {
        let is_it = |message: &M| !message.is_in_turn() && is_it(message);
        if let Some(message) = take_out(&mut self.waiting, is_it) {
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
        self.waiting_in_turn.iter().chain(&self.waiting).chain(&self.short).chain(long)
    }

    /// How many were not begun.
    pub fn waiting(&self) -> usize {
        self.waiting.len() + self.waiting_in_turn.len()
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
        self.waiting.clear();
        self.waiting_in_turn.clear();
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
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Text {
        name: u32,
        length: usize,
        in_turn: bool,
    }

    impl Message for Text {
        fn length(&self) -> usize {
            self.length
        }
        fn is_in_turn(&self) -> bool {
            self.in_turn
        }
    }

    fn text(name: u32, length: usize) -> Text {
        Text { name, length, in_turn: false }
    }

    fn in_turn(name: u32, length: usize) -> Text {
        Text { name, length, in_turn: true }
    }

    /// What is put, as names and ranges; each chunk costs what a frame does.
    fn put(sending: &mut Sending<Text>, until: usize) -> Vec<(u32, Chunk)> {
        let (mut put, mut out) = (Vec::new(), Outgoing::default());
        sending.fill(&mut out, until, |message, chunk, out| {
            put.push((message.name, chunk.clone()));
            out.tail().extend(std::iter::repeat_n(0, cost(chunk.range.len())));
        });
        put
    }

    fn names(put: &[(u32, Chunk)]) -> Vec<u32> {
        put.iter().map(|(name, _)| *name).collect()
    }

    #[test]
    fn long_messages_take_turns_and_short_ones_pass_between_but_do_not_starve_them() {
        let mut sending = Sending::new(u32::MAX);
        sending.push(text(1, 2 * MAX_BODY + 1));
        sending.push(text(2, 2 * MAX_BODY));
        for name in 10..14 {
            sending.push(text(name, MAX_BODY / 2));
        }
        let put = put(&mut sending, usize::MAX);
        assert_eq!(names(&put), [10, 11, 1, 12, 13, 2, 1, 2, 1]);
        assert_eq!(put.last().unwrap().1, Chunk { range: 2 * MAX_BODY..2 * MAX_BODY + 1, more: false });
        assert!(sending.is_empty() && sending.bytes() == 0);
    }

    #[test]
    fn a_message_is_begun_when_all_of_it_has_room_and_nothing_overtakes_the_one_at_the_front() {
        let window = message_cost(2 * MAX_BODY) as u32;
        let mut sending = Sending::new(window);
        sending.push(text(1, 2 * MAX_BODY + 1));
        sending.push(text(2, 1));
        assert!(put(&mut sending, usize::MAX).is_empty());
        assert!(!sending.pass(1, false), "nothing passes it either");
        assert!(sending.widen(1 + 64));
        assert_eq!(names(&put(&mut sending, usize::MAX)), [1, 1, 1]);
        assert!(put(&mut sending, usize::MAX).is_empty(), "there is nothing left for the short one");
        assert!(sending.widen(65));
        assert_eq!(names(&put(&mut sending, usize::MAX)), [2]);
        assert!(!sending.pass(0, false), "a frame without a body costs, too");
        assert!(sending.widen(u32::MAX) && !sending.widen(1), "more than 32 bits");
    }

    #[test]
    fn one_in_turn_is_sent_whole_before_the_next_is_begun_and_goes_before_the_others() {
        let mut sending = Sending::new(u32::MAX);
        sending.push(text(9, 5));
        sending.push(in_turn(1, 3 * MAX_BODY));
        sending.push(in_turn(2, 5));
        sending.push(in_turn(3, 2 * MAX_BODY));
        assert_eq!(names(&put(&mut sending, 1)), [9]);
        assert_eq!(names(&put(&mut sending, 1)), [1]);
        assert!(!sending.pass(5, true) && sending.pass(5, false));
        assert_eq!(names(&put(&mut sending, usize::MAX)), [1, 1, 2, 3, 3]);
        assert!(sending.pass(5, true));
    }

    #[test]
    fn what_passes_the_queues_takes_its_part_of_the_window_and_waits_its_turn() {
        let mut sending = Sending::<Text>::new(2 * cost(1) as u32);
        assert!(sending.pass(1, false) && sending.pass(1, true) && !sending.pass(1, false));
        // One in turn is under way, and none waits.
        let mut sending = Sending::new(u32::MAX);
        sending.push(in_turn(1, 2 * MAX_BODY));
        assert!(!sending.is_empty());
        assert_eq!(names(&put(&mut sending, 1)), [1]);
        assert!(!sending.pass(1, true) && sending.pass(1, false));
        // One in turn waits, and none is under way.
        let mut sending = Sending::new(cost(1) as u32);
        sending.push(in_turn(1, 2));
        assert!(!sending.pass(1, true) && sending.pass(1, false));
    }

    #[test]
    fn no_more_is_put_once_as_many_bytes_wait_as_may_and_a_message_begins_with_its_first_chunk() {
        let mut sending = Sending::new(u32::MAX);
        sending.push(text(1, MAX_BODY + 1));
        let first = put(&mut sending, cost(MAX_BODY));
        let rest = put(&mut sending, usize::MAX);
        assert_eq!((names(&first), names(&rest)), (vec![1], vec![1]));
        assert!(first[0].1.is_first() && !rest[0].1.is_first());
    }

    #[test]
    fn what_is_dropped_gives_back_its_part_of_the_window_that_was_not_sent() {
        let mut sending = Sending::new(message_cost(2 * MAX_BODY) as u32);
        sending.push(in_turn(1, 2 * MAX_BODY));
        for message in [text(2, 1), in_turn(3, 1)] {
            sending.push(message);
        }
        assert_eq!(names(&put(&mut sending, 1)), [1]);
        sending.clear();
        assert_eq!((sending.len(), sending.bytes(), sending.unsent().count()), (0, 0, 0));
        assert!(put(&mut sending, usize::MAX).is_empty());
        assert!(sending.pass(MAX_BODY, true) && !sending.pass(0, true));
    }

    #[test]
    fn what_is_cancelled_gives_its_part_of_the_window_back_unless_it_is_under_way() {
        let room = message_cost(2 * MAX_BODY) as u32;
        let mut sending = Sending::new(room);
        sending.push(text(1, 2 * MAX_BODY));
        sending.push(text(2, 2 * MAX_BODY));
        sending.begin();
        assert!(matches!(sending.cancel(|text| text.name == 1), Cancelled::Dropped(Text { name: 1, .. })));
        assert_eq!(names(&put(&mut sending, 1)), [2]);
        assert!(matches!(sending.cancel(|text| text.name == 2), Cancelled::UnderWay(Text { name: 2, .. })));
        assert!(matches!(sending.cancel(|text| text.name == 1), Cancelled::Unknown));
        assert_eq!(sending.unsent().count(), 0);
        sending.push(text(3, 1));
        assert_eq!(sending.unsent().count(), 1);
        assert!(matches!(sending.cancel(|text| text.name == 3), Cancelled::Dropped(_)));
        assert_eq!(names(&put(&mut sending, usize::MAX)), [2]);
        assert!(sending.is_empty() && sending.bytes() == 0 && sending.reserved == 0);
    }

    #[test]
    fn whatever_comes_each_message_is_sent_once_and_whole_and_the_window_is_kept() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let window = message_cost(5 * MAX_BODY);
            let mut sending = Sending::new(window as u32);
            let (mut name, mut left) = (0, window as u64);
            let mut sent: BTreeMap<u32, usize> = BTreeMap::new();
            let mut open: BTreeMap<u32, usize> = BTreeMap::new();
            for _ in 0..300 {
                match random.u8(..6) {
                    0..=2 => {
                        name += 1;
                        let most = if random.bool() { 100 } else { 5 * MAX_BODY };
                        let message = Text { name, length: random.usize(..most), in_turn: random.bool() };
                        open.insert(name, message.length);
                        sending.push(message);
                    }
                    3 => {
                        let which = random.u32(..=name);
                        if let Cancelled::Dropped(message) = sending.cancel(|text| text.name == which) {
                            assert!(
                                open.remove(&message.name).is_some() && !sent.contains_key(&message.name)
                            );
                        }
                    }
                    4 => {
                        let more = random.u32(..100_000).min((window as u64 - left) as u32);
                        assert!(sending.widen(more));
                        left += u64::from(more);
                    }
                    _ => {
                        for (name, chunk) in put(&mut sending, random.usize(..200_000)) {
                            left = left.checked_sub(cost(chunk.range.len()) as u64).unwrap();
                            let length = open[&name];
                            assert_eq!(sent.insert(name, chunk.range.end).unwrap_or(0), chunk.range.start);
                            assert_eq!(chunk.more, chunk.range.end < length);
                            if !chunk.more {
                                open.remove(&name);
                            }
                        }
                    }
                }
            }
            assert_eq!(sending.len(), open.len(), "seed {seed}");
            let unsent: usize =
                open.iter().map(|(name, length)| length - sent.get(name).copied().unwrap_or(0)).sum();
            assert_eq!(sending.bytes(), unsent, "seed {seed}");
            assert_eq!(sending.window + sending.reserved, left, "seed {seed}");
        }
    }
}
