//! What is begun when, what is put, and what the window has then.

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
fn a_long_message_is_begun_when_all_of_it_has_room_and_is_overtaken_by_an_eighth_at_most() {
    let long = message_cost(4 * MAX_BODY);
    let window = 2 * long as u64;
    let mut sending = Sending::new(window as u32);
    for name in 1..=3 {
        sending.push(text(name, 4 * MAX_BODY));
    }
    assert_eq!(names(&put(&mut sending, usize::MAX)), [1; 4], "the second leaves no room for short ones");
    let mut overtook = 0;
    while sending.pass(1, overtook % 2 == 0) {
        overtook += 1;
    }
    let eighth = window / u64::from(FOR_SHORT);
    assert_eq!(overtook, eighth / cost(1) as u64);
    sending.push(text(10, 1));
    assert!(put(&mut sending, usize::MAX).is_empty(), "nor does one from the queue overtake it now");
    assert!(sending.widen((long / 2) as u32));
    assert_eq!(names(&put(&mut sending, usize::MAX)), [10, 2, 2, 2, 2], "of what it has left");
    assert!(sending.pass(1, false), "the third may be overtaken as well");
    assert!(sending.widen(u32::MAX - window as u32));
    assert_eq!(names(&put(&mut sending, usize::MAX)), [3; 4]);
}

#[test]
fn a_message_as_long_as_the_window_is_sent_and_short_ones_pass_what_fills_it() {
    let window = message_cost(2 * MAX_BODY) as u32;
    let mut sending = Sending::new(window);
    sending.push(text(1, 2 * MAX_BODY + 1));
    sending.push(text(2, 1));
    assert_eq!(names(&put(&mut sending, usize::MAX)), [2]);
    assert!(sending.widen(1 + 64 + 64));
    assert!(put(&mut sending, usize::MAX).is_empty());
    assert!(sending.widen(1));
    assert_eq!(names(&put(&mut sending, usize::MAX)), [1, 1, 1]);
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
                        assert!(open.remove(&message.name).is_some() && !sent.contains_key(&message.name));
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

#[test]
fn nothing_waits_for_ever_though_the_receiver_tells_what_it_gives_back_in_portions() {
    for max_line in [MAX_BODY + 1, 20 * MAX_BODY, 16 << 20] {
        let window = u32::try_from(crate::secure::least_window(max_line)).unwrap();
        let (mut sending, mut credit) = (Sending::new(window), super::super::Credit::new(window));
        let (mut random, mut name, mut sent) = (fastrand::Rng::with_seed(max_line as u64), 0, 0);
        for round in 0..80 {
            // Short ones never cease while there are long ones.
            let long = if round < 40 { random.u8(..2) } else { 0 };
            for length in std::iter::repeat_n(max_line, long.into()).chain([1; 100]) {
                name += 1;
                sending.push(Text { name, length, in_turn: random.bool() });
            }
            sending.fill(&mut Outgoing::default(), usize::MAX, |_, chunk, _| {
                assert!(credit.take(cost(chunk.range.len())));
                credit.give_back(cost(chunk.range.len()));
                sent += u32::from(!chunk.more);
            });
            if let Some(bytes) = credit.due() {
                credit.told(bytes);
                assert!(sending.widen(bytes.get()));
            }
        }
        assert_eq!((sent, sending.is_empty()), (name, true), "{max_line}");
    }
}
