//! What a queue of requests in flight does when answers come, do not come, and the link ends.

use super::*;
use crate::sessions::Sessions;

const TIMEOUT: Duration = Duration::from_secs(300);

fn entry(purpose: Purpose, owner: Option<Owner>) -> Entry {
    Entry { owner, purpose, size: 10 }
}

fn owner(slot: u64) -> Option<Owner> {
    Some(Owner { client: Sessions::new(1, Instant::now()).add(), slot, user: Some(7) })
}

#[test]
fn an_overdue_entry_loses_its_owner_but_keeps_its_place() {
    let start = Instant::now();
    let mut pending = Pending::new(TIMEOUT, WireKind::Classic);
    pending.push(entry(Purpose::Plain, owner(0)), start);
    pending.push(entry(Purpose::Plain, owner(1)), start + Duration::from_secs(1));
    assert_eq!(pending.next_overdue(), Some(start + TIMEOUT));
    assert!(pending.expire(start + TIMEOUT - Duration::from_millis(1)).is_empty());
    let overdue = pending.expire(start + TIMEOUT);
    assert_eq!(overdue.len(), 1);
    assert_eq!(overdue[0].owner.slot, 0);
    assert!(pending.expire(start + TIMEOUT).is_empty());
    assert_eq!(pending.answered_first(start + TIMEOUT).unwrap().owner, None);
    assert_eq!(pending.next_overdue(), Some(start + TIMEOUT + Duration::from_secs(1)));
    assert_eq!(pending.answered_first(start + TIMEOUT).unwrap().owner.unwrap().slot, 1);
    assert!(pending.answered_first(start + TIMEOUT).is_none());
}

#[test]
fn a_heartbeat_s_time_runs_from_when_all_before_it_was_answered() {
    let start = Instant::now();
    let later = start + Duration::from_secs(60);
    let mut pending = Pending::new(TIMEOUT, WireKind::Classic);
    pending.push(entry(Purpose::Plain, owner(0)), start);
    pending.push(entry(Purpose::Probe, None), start);
    assert_eq!(pending.dead_at(start), Some(start + TIMEOUT));
    pending.answered_first(later);
    assert_eq!(pending.dead_at(later), Some(later + PROBE_TIMEOUT));
    assert_eq!(pending.next_overdue(), None);
    pending.answered_first(later);
    assert_eq!(pending.dead_at(later), None);
    assert!(!pending.probing());
}

#[test]
fn a_silent_peer_is_given_up_one_timeout_after_the_first_overdue_request() {
    let start = Instant::now();
    let mut pending = Pending::new(TIMEOUT, WireKind::Classic);
    pending.push(entry(Purpose::Plain, owner(0)), start);
    assert_eq!(pending.dead_at(start), Some(start + TIMEOUT * 2));
    let heard = start + TIMEOUT + Duration::from_secs(7);
    assert_eq!(pending.dead_at(heard), Some(heard + TIMEOUT));
}

#[test]
fn an_overdue_critical_request_says_whether_it_is_stored_and_the_others_are_offered_for_storing() {
    let start = Instant::now();
    let mut pending = Pending::new(TIMEOUT, WireKind::Classic);
    let critical = |text: &[u8]| Purpose::Critical {
        request: text.into(),
        sequence: None,
        stored: false,
        passed: false,
    };
    pending.push(entry(critical(b"a"), owner(0)), start);
    pending.push(entry(Purpose::Plain, owner(1)), start);
    pending.push(entry(critical(b"b"), owner(2)), start + Duration::from_secs(9));
    assert!(!pending.unstored_overdue(start));
    assert!(pending.unstored_overdue(start + TIMEOUT));
    let last = pending.insure(|requests| {
        let texts: Vec<_> = requests.iter().map(|one| (one.user, one.sequence, one.request)).collect();
        assert_eq!(texts, [(Some(7), None, &b"a"[..]), (Some(7), None, b"b")]);
        vec![Insured::Stored(Sequence(7)), Insured::Stored(Sequence(8))]
    });
    assert_eq!(last, Some(Sequence(8)));
    assert_eq!(pending.insure(|_| panic!("all are stored")), None);
    let overdue: Vec<_> = pending.expire(start + TIMEOUT).iter().map(|one| one.critical).collect();
    assert_eq!(overdue, [Some(true), None]);
}

#[test]
fn what_its_user_has_no_room_for_is_offered_once_and_holds_up_nothing_newer() {
    let start = Instant::now();
    let mut pending = Pending::new(TIMEOUT, WireKind::Classic);
    let critical =
        || Purpose::Critical { request: b"x"[..].into(), sequence: None, stored: false, passed: false };
    pending.push(entry(critical(), owner(0)), start);
    pending.push(entry(critical(), owner(1)), start);
    assert!(pending.has_unstored());
    pending.insure(|_| vec![Insured::Over, Insured::Failed]);
    let mut offered = 0;
    pending.insure(|requests| {
        offered = requests.len();
        vec![Insured::Stored(Sequence(3))]
    });
    assert_eq!(offered, 1, "the one that others may have passed is not stored behind them");
    assert!(!pending.has_unstored() && !pending.unstored_overdue(start + TIMEOUT));
    let overdue: Vec<_> = pending.expire(start + TIMEOUT).iter().map(|one| one.critical).collect();
    assert_eq!(overdue, [Some(false), Some(true)]);
}

#[test]
fn one_that_takes_long_keeps_no_room_but_its_own() {
    let now = Instant::now();
    let mut pending = Pending::new(TIMEOUT, WireKind::Secure);
    pending.push(entry(Purpose::Plain, None), now);
    for number in 2..3 * MAX_IN_FLIGHT as u64 {
        assert!(!pending.full());
        pending.push(entry(Purpose::Plain, None), now);
        assert!(matches!(pending.answered(number), Found::Entry(_)));
    }
    assert_eq!(pending.len(), 1);
    assert!(matches!(pending.answered(1), Found::Entry(_)));
    assert!(matches!(pending.answered(1), Found::Late));
}

#[test]
fn the_bounds_hold_and_are_given_back() {
    let now = Instant::now();
    let mut pending = Pending::new(TIMEOUT, WireKind::Classic);
    while !pending.full() {
        pending.push(entry(Purpose::Plain, None), now);
    }
    assert_eq!(pending.len(), MAX_IN_FLIGHT);
    pending.answered_first(now);
    assert!(!pending.full());
    assert_eq!(pending.take_all().count(), MAX_IN_FLIGHT - 1);
    let (mut replayed, all) = (0, (usize::MAX, usize::MAX));
    while pending.replay_room(all) {
        let sequence = Some(Sequence(replayed));
        pending.push(
            entry(Purpose::Critical { request: Box::default(), sequence, stored: true, passed: false }, None),
            now,
        );
        replayed += 1;
    }
    assert_eq!(replayed as usize, MAX_REPLAYED);
    pending.answered_first(now);
    let less = MAX_REPLAYED - 1;
    assert!(pending.replay_room(all) && !pending.replay_room((less, usize::MAX)));
}

#[test]
fn numbered_answers_come_in_any_order_and_a_late_one_is_told_from_one_to_nothing() {
    let start = Instant::now();
    let mut pending = Pending::new(TIMEOUT, WireKind::Secure);
    for slot in 0..4 {
        assert_eq!(pending.next_number(), slot + 1);
        pending.push(entry(Purpose::Plain, owner(slot)), start + Duration::from_secs(slot));
    }
    assert!(matches!(pending.answered(3), Found::Entry(entry) if entry.owner.unwrap().slot == 2));
    assert!(matches!(pending.answered(3), Found::Late));
    assert!(matches!(pending.answered(5), Found::Unknown));
    assert!(matches!(pending.answered(0), Found::Unknown));
    let overdue = pending.expire(start + TIMEOUT + Duration::from_secs(1));
    let numbers: Vec<_> = overdue.iter().map(|one| one.cancelled).collect();
    assert_eq!(numbers, [Some(1), Some(2)]);
    assert_eq!((pending.len(), pending.next_number()), (1, 5));
    assert!(matches!(pending.answered(1), Found::Late));
    assert!(matches!(pending.answered(4), Found::Entry(_)));
    assert!(pending.is_empty() && pending.bytes == 0);
    assert_eq!((pending.next_number(), pending.next_overdue(), pending.dead_at(start)), (5, None, None));
}

#[test]
fn an_overdue_critical_request_keeps_its_number_and_its_sequence_is_known_until_it_is_answered() {
    let start = Instant::now();
    let mut pending = Pending::new(TIMEOUT, WireKind::Secure);
    let critical = |number| Purpose::Critical {
        request: b"x"[..].into(),
        sequence: Some(Sequence(number)),
        stored: false,
        passed: false,
    };
    pending.push(entry(critical(7), owner(0)), start);
    pending.push(entry(critical(8), owner(1)), start + Duration::from_secs(9));
    assert_eq!(pending.least_unstored(), Some(Sequence(7)));
    pending.insure(|requests| requests.iter().filter_map(|one| one.sequence).map(Insured::Stored).collect());
    assert_eq!(pending.least_unstored(), None);
    let overdue = pending.expire(start + TIMEOUT);
    assert_eq!((overdue.len(), overdue[0].critical, overdue[0].cancelled), (1, Some(true), None));
    assert!(matches!(pending.answered(1), Found::Entry(entry) if entry.owner.is_none()));
    assert!(matches!(pending.answered(2), Found::Entry(entry) if entry.owner.is_some()));
}
