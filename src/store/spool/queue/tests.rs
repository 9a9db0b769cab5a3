//! The bookkeeping of a spool, without a disk.

use super::load::Load;
use super::*;

fn located(queue: &Queue) -> Located {
    let cursor = queue.cursor().unwrap();
    let stored_at = Timestamp::from_second(cursor.least.0 as i64).unwrap();
    Located { segment: cursor.segment, offset: cursor.offset, length: 10, user: None, stored_at }
}

fn store(queue: &mut Queue, count: u64) {
    for _ in 0..count {
        let sequence = queue.take_sequence();
        queue.place(sequence);
    }
    let mut loads = Loads::default();
    (0..count).for_each(|_| loads.add(None, 10));
    queue.appended(100 * count, &loads);
}

fn locate(queue: &mut Queue) {
    let (sequence, place) = (queue.cursor().unwrap().least, located(queue));
    queue.locate(sequence, place, 100);
}

fn two_segments() -> Queue {
    let mut queue = Queue::new(VecDeque::new(), Sequence(1));
    queue.add_segment(queue.next_name(queue.next_sequence()), 1000);
    store(&mut queue, 3);
    queue.add_segment(queue.next_name(queue.next_sequence()), 1000);
    store(&mut queue, 2);
    queue
}

#[test]
fn a_segment_may_go_once_all_before_it_is_settled_and_never_the_last() {
    let mut queue = two_segments();
    for _ in 0..3 {
        locate(&mut queue);
    }
    assert!(queue.end_segment());
    locate(&mut queue);
    locate(&mut queue);
    assert!(!queue.end_segment());
    for sequence in [5, 4, 3, 1] {
        assert!(queue.settle(Sequence(sequence)).is_some());
        assert_eq!(queue.removable(), None, "2 waits");
    }
    assert_eq!(queue.settle(Sequence(1)), None, "settled already");
    queue.settle(Sequence(2));
    assert_eq!(queue.removable(), Some(Sequence(1)));
    queue.removed(Sequence(1));
    assert_eq!(queue.removable(), None);
    assert_eq!((queue.waiting().all, queue.disk_bytes()), (Load::default(), 1000));
    assert_eq!(queue.next_sequence(), Sequence(6));
}

#[test]
fn a_lost_link_makes_the_unsettled_unsent_in_order() {
    let mut queue = two_segments();
    for sequence in 1..=3 {
        locate(&mut queue);
        queue.mark_sent(Sequence(sequence));
    }
    queue.settle(Sequence(2));
    queue.rewind();
    assert_eq!(queue.first_unsent().unwrap().0, Sequence(1));
    queue.mark_sent(Sequence(1));
    assert_eq!(queue.first_unsent().unwrap().0, Sequence(3));
    assert_eq!(queue.oldest(), Some(Timestamp::from_second(1).unwrap()));
    assert_eq!(queue.waiting().all, Load { messages: 4, bytes: 40 });
}

#[test]
fn the_name_after_a_failed_store_shuts_its_leftovers_out() {
    let mut queue = two_segments();
    let first = queue.take_sequence();
    queue.take_sequence();
    queue.close_after_failure(first);
    assert_eq!(queue.next_name(queue.next_sequence()), first);
    queue.add_segment(first, 1000);
    assert_eq!(queue.take_sequence(), Sequence(8), "a refused sequence is not given out again");
    // A failure of the first store in a segment: its own name cannot be taken twice.
    queue.close_after_failure(first);
    assert!(queue.next_name(queue.next_sequence()) > Sequence(8));
}

#[test]
fn what_damage_took_is_not_counted_and_what_cannot_be_read_is() {
    let mut queue = two_segments();
    locate(&mut queue);
    queue.end_segment();
    assert_eq!(queue.waiting().all.messages, 3);
    queue.skip_segment();
    assert_eq!(queue.waiting().all.messages, 3);
    assert_eq!(queue.first_unsent().unwrap().0, Sequence(1));
    queue.mark_sent(Sequence(1));
    assert!(!queue.has_unsent());
    store(&mut queue, 1);
    assert!(queue.has_unsent(), "what is stored behind it goes on");
}

#[test]
fn a_pinned_segment_does_not_keep_the_others() {
    let mut queue = two_segments();
    queue.add_segment(queue.next_name(queue.next_sequence()), 1000);
    queue.skip_segment();
    locate(&mut queue);
    locate(&mut queue);
    queue.settle(Sequence(4));
    queue.settle(Sequence(5));
    assert_eq!(queue.removable(), Some(Sequence(4)));
    queue.removed(Sequence(4));
    assert_eq!(queue.cursor().unwrap().segment, Sequence(6));
}

#[test]
fn a_segment_for_a_given_sequence_is_named_by_it_and_never_below_a_name_that_was_tried() {
    let mut queue = two_segments();
    for _ in 0..10 {
        queue.take_sequence();
    }
    assert_eq!(queue.floor(), Sequence(6));
    assert_eq!(queue.next_name(Sequence(9)), Sequence(9));
    queue.burn_name(Sequence(9));
    assert_eq!(queue.next_name(Sequence(9)), Sequence(10));
    queue.add_segment(Sequence(12), 1000);
    assert_eq!(queue.floor(), Sequence(12), "what is lower would lie before the segment's name");
    queue.place(Sequence(14));
    assert_eq!(queue.floor(), Sequence(15));
    assert_eq!(queue.next_sequence(), Sequence(16));
}

/// As many segments, each with one message.
fn one_in_each(segments: usize) -> Queue {
    let mut queue = Queue::new(VecDeque::new(), Sequence(1));
    for _ in 0..segments {
        queue.add_segment(queue.next_name(queue.next_sequence()), 1000);
        store(&mut queue, 1);
    }
    queue
}

#[test]
fn what_no_cursor_has_passed_waits_and_is_to_be_located_until_something_is() {
    let mut queue = two_segments();
    assert_eq!((queue.unread_here(), queue.unsent_located()), (3, 0));
    assert_eq!(queue.settled_below(), Sequence(1));
    assert!(queue.wants_locating() && !queue.has_unknown());
    for _ in 0..2 {
        locate(&mut queue);
    }
    assert_eq!((queue.unread_here(), queue.unsent_located()), (1, 2));
    assert!(!queue.wants_locating(), "the oldest is known");
    locate(&mut queue);
    queue.end_segment();
    locate(&mut queue);
    locate(&mut queue);
    (1..=5).for_each(|sequence| assert!(queue.settle(Sequence(sequence)).is_some()));
    assert_eq!((queue.unread_here(), queue.unsent_located()), (0, 0));
    assert!(!queue.wants_locating(), "there is nothing more");
}

#[test]
fn the_bytes_of_the_segments_are_counted_as_their_files_grow_and_shrink() {
    let mut queue = Queue::new(VecDeque::new(), Sequence(1));
    queue.add_segment(Sequence(1), 300);
    queue.add_segment(Sequence(2), 0);
    queue.resize_last(1000);
    assert_eq!((queue.disk_bytes(), queue.last().unwrap().size), (1300, 1000));
    queue.resize_last(500);
    assert_eq!((queue.disk_bytes(), queue.last().unwrap().size), (800, 500));
    queue.hollowed(Sequence(1));
    assert_eq!(queue.disk_bytes(), 500);
    queue.hollowed(Sequence(1));
    assert_eq!(queue.disk_bytes(), 500);
}

#[test]
fn what_is_held_is_counted_until_it_is_settled_or_released() {
    let mut queue = two_segments();
    for sequence in 1..=3 {
        locate(&mut queue);
        assert!(queue.hold(Sequence(sequence), if sequence == 2 { "log" } else { "pay" }));
    }
    assert!(!queue.only_held(), "two are unread");
    queue.end_segment();
    for sequence in 4..=5 {
        locate(&mut queue);
        queue.settle(Sequence(sequence));
    }
    assert!(queue.only_held());
    assert_eq!(queue.oldest(), Some(Timestamp::from_second(1).unwrap()));
    assert!(!queue.may_restore(Sequence(1), 0, Sequence(1)), "it is known where it lies");
    queue.settle(Sequence(2));
    assert_eq!(queue.held.len(), 2);
    assert!(queue.only_held());
    queue.release("pay");
    assert_eq!((queue.held.len(), queue.unsent_located()), (0, 2));
    assert!(!queue.only_held());
}

#[test]
fn a_segment_behind_what_is_held_is_hollowed_once_it_was_read_to_its_end_and_is_done() {
    let mut queue = one_in_each(5);
    locate(&mut queue);
    queue.hold(Sequence(1), "pay");
    queue.end_segment();
    locate(&mut queue);
    queue.settle(Sequence(2));
    assert_eq!(queue.hollow(), None, "it is still being read");
    queue.end_segment();
    assert_eq!(queue.hollow(), Some((Sequence(2), false)));
    queue.hollowed(Sequence(2));
    assert_eq!(queue.hollow(), None, "once is enough");
    locate(&mut queue);
    queue.end_segment();
    assert_eq!(queue.hollow(), None, "a message waits in it");
    queue.settle(Sequence(3));
    assert_eq!(queue.hollow(), Some((Sequence(3), true)), "the hollow one bounds the first");
}

#[test]
fn a_segment_that_could_be_read_in_its_turn_is_counted_by_what_was_found() {
    let unknown = Segment { unknown: true, ..Segment::empty(Sequence(1), 10) };
    let mut queue = Queue::new(VecDeque::from([unknown, Segment::empty(Sequence(10), 1000)]), Sequence(11));
    assert!(queue.has_unknown() && queue.wants_locating());
    let mut load = Loads::one(Some(7), 10);
    load.add(None, 20);
    let (waiting, unread) = (load.clone(), load.clone());
    queue.known_here(Segment { end: 200, waiting, unread, ..Segment::empty(Sequence(1), 700) });
    assert!(!queue.has_unknown());
    assert_eq!((queue.disk_bytes(), queue.waiting(), queue.unread_here()), (1700, &load, 2));
}

#[test]
fn what_was_passed_over_is_restored_with_what_was_stored_behind_it() {
    let mut queue = two_segments();
    assert_eq!(queue.passed_over(), None);
    queue.skip_segment();
    assert_eq!(queue.passed_over(), Some((Sequence(1), Sequence(4))));
    // The last, which is appended to while it is passed over.
    queue.skip_segment();
    store(&mut queue, 3);
    let located = |sequence| Located {
        segment: Sequence(4),
        offset: 0,
        length: 10,
        user: None,
        stored_at: Timestamp::from_second(sequence as i64).unwrap(),
    };
    queue.restore(Sequence(1), Vec::new(), false);
    queue.restore(Sequence(4), vec![(Sequence(4), located(4)), (Sequence(5), located(5))], false);
    assert_eq!(
        queue.waiting().all,
        Load { messages: 5, bytes: 50 },
        "two again, and three that were not read"
    );
    assert_eq!(queue.passed_over(), None);
}

#[test]
fn a_segment_whose_damage_could_not_be_copied_stays_when_it_is_done_with() {
    let mut queue = two_segments();
    for sequence in 1..=3 {
        locate(&mut queue);
        queue.settle(Sequence(sequence));
    }
    assert_eq!(queue.removable(), Some(Sequence(1)));
    queue.pin(Sequence(1));
    assert_eq!(queue.removable(), None);
}

#[test]
fn a_segment_of_which_nothing_is_known_bounds_the_one_before_it_and_does_not_stand_for_a_hollow_one() {
    let mut queue = one_in_each(5);
    locate(&mut queue);
    queue.hold(Sequence(1), "pay");
    queue.end_segment();
    // It could not be read, nor its size be asked for.
    let second = queue.find(Sequence(2)).unwrap();
    (second.size, second.unknown) = (0, true);
    queue.skip_segment();
    locate(&mut queue);
    queue.settle(Sequence(3));
    queue.end_segment();
    assert_eq!(queue.hollow(), Some((Sequence(3), false)));
}

#[test]
fn only_what_the_cursor_has_passed_and_nobody_located_may_be_restored() {
    let mut queue = two_segments();
    locate(&mut queue);
    assert!(!queue.may_restore(Sequence(1), 0, Sequence(1)), "it is located");
    queue.settle(Sequence(1));
    assert!(queue.may_restore(Sequence(1), 0, Sequence(1)));
    for (offset, sequence) in [(100, 2), (200, 3)] {
        assert!(!queue.may_restore(Sequence(1), offset, Sequence(sequence)), "its turn is to come");
    }
    assert!(queue.may_restore(Sequence(4), 100, Sequence(5)), "in another segment than is read");
}
