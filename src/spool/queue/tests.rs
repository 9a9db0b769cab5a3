//! The bookkeeping of a spool, without a disk.

use super::*;

fn located(queue: &Queue) -> Located {
    let cursor = queue.cursor().unwrap();
    let stored_at = Timestamp::from_second(cursor.least.0 as i64).unwrap();
    Located { segment: cursor.segment, offset: cursor.offset, length: 10, stored_at }
}

fn store(queue: &mut Queue, count: u64) {
    for _ in 0..count {
        let sequence = queue.take_sequence();
        queue.place(sequence);
    }
    queue.appended(100 * count, Load { messages: count, bytes: 10 * count });
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
    assert_eq!((queue.waiting(), queue.disk_bytes()), (Load::default(), 1000));
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
    assert_eq!(queue.waiting(), Load { messages: 4, bytes: 40 });
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
    assert_eq!(queue.waiting().messages, 3);
    queue.skip_segment();
    assert_eq!(queue.waiting().messages, 3);
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
