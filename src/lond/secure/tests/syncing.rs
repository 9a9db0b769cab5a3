//! Answers that are written and not synced: when they are, and what becomes of them if that fails.

use super::*;

/// One whose handler has these messages, and has answered none of them.
fn asked(count: u64) -> Bench {
    let mut bench = Bench::open();
    for number in 1..=count {
        bench.critical(number, number, None, "echo:x");
    }
    bench
}

fn record(bench: &mut Bench) -> &mut FakeRecord {
    &mut bench.session.memory.recorder
}

#[test]
fn while_more_is_being_run_one_sync_is_for_many_answers_and_the_last_waits_for_nothing() {
    let mut bench = asked(5);
    for number in 0..4 {
        bench.answer(number, b"y");
        assert!(!bench.session.has_unrecorded(), "it is written: the next may be run");
        assert_eq!(bench.read_now(), "");
    }
    assert_eq!(
        (record(&mut bench).adds, record(&mut bench).unsynced.len(), record(&mut bench).syncs),
        (4, 4, 0)
    );
    bench.answer(4, b"z");
    assert_eq!(bench.read_now(), "ANSWER 1 y, ANSWER 2 y, ANSWER 3 y, ANSWER 4 y, ANSWER 5 z");
    assert_eq!((record(&mut bench).syncs, bench.session.sync_deadline()), (1, None));
}

#[test]
fn an_answer_waits_for_others_for_a_moment_at_most() {
    let mut bench = asked(2);
    bench.answer(0, b"y");
    let due = bench.session.sync_deadline().expect("it is to be synced");
    assert!(due <= bench.now + Duration::from_millis(1));
    assert!(bench.session.deadline() <= Some(due), "the child wakes then");
    assert_eq!(bench.read_now(), "");
    bench.now = due;
    bench.work();
    assert_eq!(bench.read_now(), "ANSWER 1 y");
}

#[test]
fn at_the_bound_answers_are_synced_before_more_is_run() {
    let most = UNSYNCED as u64;
    let mut bench = asked(2 * most);
    for number in 0..UNSYNCED {
        bench.session.answer(bench.asked[number], Reply::Answer(b"y"));
        bench.session.record(bench.now);
        assert!(record(&mut bench).unsynced.len() < UNSYNCED);
    }
    assert_eq!(record(&mut bench).syncs, 1);
}

#[test]
fn a_repeat_of_what_is_written_and_not_synced_has_it_synced_before_it_is_answered() {
    let mut bench = asked(2);
    bench.answer(0, b"y");
    let mut bytes = Vec::new();
    let head = CriticalHead { sequence: 1, settled: 1, key: None };
    put_critical(&mut bytes, 3, false, Some(&head), b"echo:x");
    bench.session.push(&bytes, bench.now);
    assert_eq!(bench.session.step(bench.now, true), None);
    bench.session.fill(bench.now);
    assert_eq!(bench.session.outgoing().bytes(), b"", "the machine might forget it");
    bench.work();
    assert_eq!(bench.read_now(), "ANSWER 1 y, ANSWER 3 y");
    assert_eq!((record(&mut bench).syncs, bench.asked.len()), (1, 2), "it is not run again");
}

#[test]
fn after_a_sync_that_failed_nothing_is_answered_or_run_until_all_is_written_again_and_synced() {
    let mut bench = asked(3);
    bench.answer(0, b"y");
    bench.answer(1, b"y");
    record(&mut bench).sync_fails = Some("a sick disk");
    assert_eq!(bench.read(), "");
    assert!(bench.session.has_unrecorded(), "handlers get no more");
    record(&mut bench).sync_fails = None;
    let before = record(&mut bench).adds;
    bench.wait(1.0);
    assert_eq!(bench.read_now(), "", "the third is being run");
    assert_eq!((record(&mut bench).adds, record(&mut bench).unsynced.len()), (before + 1, 2), "both at once");
    bench.answer(2, b"z");
    assert_eq!(bench.read_now(), "ANSWER 1 y, ANSWER 2 y, ANSWER 3 z");
}

#[test]
fn a_link_that_broke_syncs_at_once_what_is_written_and_then_lets_go() {
    let mut bench = asked(2);
    bench.handlers_hold = true;
    bench.answer(0, b"y");
    bench.session.lost("gone".to_owned());
    bench.work();
    assert_eq!((record(&mut bench).unsynced.len(), record(&mut bench).let_go), (0, true));
    assert_eq!(bench.ended().as_deref(), Some("lost: gone"));
}
