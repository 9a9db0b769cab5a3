//! Critical messages: looked up before they are run, recorded before they are answered.

use super::*;

#[test]
fn an_answer_leaves_when_it_is_in_the_record_and_a_repeat_is_answered_from_there() {
    let mut bench = Bench::open();
    bench.critical(1, 10, None, "echo:x");
    assert_eq!(bench.effects(), ["ask in order 0 echo:x"]);
    assert_eq!(bench.read(), "");
    bench.session.answer(bench.asked[0], Reply::Answer(b"done"));
    bench.session.fill(bench.now);
    assert_eq!(bench.session.outgoing().bytes(), b"", "not recorded yet");
    bench.work();
    assert_eq!(bench.read(), "ANSWER 1 done");
    assert_eq!(bench.session.memory.recorder.answers[&10].0, b"done");
    bench.critical(2, 10, None, "echo:x");
    assert_eq!(bench.read(), "ANSWER 2 done");
    assert_eq!(bench.effects(), [""; 0], "not run again");
    assert_eq!(bench.session.credit.held(), 0);
}

#[test]
fn answers_of_one_turn_are_recorded_together_and_started_in_the_order_they_came() {
    let mut bench = Bench::open();
    let mut bytes = Vec::new();
    for number in 1..=5 {
        let head = CriticalHead { sequence: number, settled: 1, key: None };
        put_critical(&mut bytes, number, false, Some(&head), format!("echo:{number}").as_bytes());
    }
    bench.send(&bytes);
    let asked: Vec<String> = (1..=5).map(|number| format!("ask in order 0 echo:{number}")).collect();
    assert_eq!(bench.effects(), asked);
    for ticket in std::mem::take(&mut bench.asked) {
        bench.session.answer(ticket, Reply::Answer(b"y"));
    }
    bench.work();
    assert_eq!(bench.session.memory.recorder.adds, 1);
    assert_eq!(bench.caller.done.len(), 0);
    bench.read();
    assert_eq!(bench.caller.done.len(), 5);
}

#[test]
fn what_is_built_in_is_recorded_too_and_log_and_exit_happen_once() {
    let mut bench = Bench::open();
    bench.critical(1, 1, None, "log:once");
    bench.critical(2, 1, None, "log:once");
    assert_eq!(bench.effects(), ["log once"]);
    assert_eq!(bench.read(), "ANSWER 1 ok, ANSWER 2 ok");
    bench.critical(3, 2, None, "exit");
    assert_eq!(bench.read(), "ANSWER 3 bye, GOAWAY 3");
    assert_eq!(bench.session.memory.recorder.answers[&2].0, b"bye");
}

#[test]
fn refused_is_recorded_as_an_answer_and_a_right_that_comes_later_does_not_change_it() {
    let mut bench = Bench::open();
    bench.critical(1, 1, None, "secret:x");
    assert_eq!(bench.read(), "ANSWER 1 refused");
    assert_eq!(bench.session.memory.recorder.answers[&1].0, b"refused");
    assert_eq!(bench.effects(), ["refused Handler(1)"]);
    let handlers = vec![Right::Full; 3];
    bench.session.change_rights(Rights { handlers, ..Rights::default() });
    bench.critical(2, 1, None, "secret:x");
    assert_eq!(bench.read(), "ANSWER 2 refused", "the same message");
    bench.critical(3, 2, None, "secret:x");
    assert_eq!(bench.effects(), ["ask in order 1 secret:x"], "another one");
}

#[test]
fn the_same_message_or_key_in_flight_waits_for_the_first_ones_answer() {
    let mut bench = Bench::open();
    bench.critical(1, 10, key("K"), "echo:x");
    bench.critical(2, 10, key("K"), "echo:x");
    bench.critical(3, 11, key("K"), "echo:x");
    bench.critical(4, 11, None, "echo:x");
    bench.critical(5, 12, key("L"), "echo:y");
    assert_eq!(bench.effects(), ["ask in order 0 echo:x", "ask in order 0 echo:y"]);
    bench.answer(0, b"one");
    assert_eq!(bench.read(), "ANSWER 1 one, ANSWER 2 one, ANSWER 3 one, ANSWER 4 one");
    assert_eq!(
        (&bench.session.memory.recorder.answers[&10], &bench.session.memory.recorder.answers[&11]),
        (&(b"one".to_vec(), false), &(b"one".to_vec(), false))
    );
    bench.answer(1, b"two");
    assert_eq!(bench.read(), "ANSWER 5 two");
    // Later, from the record: a retry of the client under a new sequence.
    bench.critical(6, 13, key("K"), "echo:x");
    assert_eq!(bench.read(), "ANSWER 6 one");
    assert_eq!(
        bench.session.memory.recorder.answers[&13].0, b"one",
        "it answers to its own sequence from now on"
    );
    assert_eq!(bench.effects(), [""; 0]);
    assert_eq!(bench.session.credit.held(), 0);
}

#[test]
fn a_repeat_that_comes_in_the_turn_of_the_answer_waits_for_the_record() {
    let mut bench = Bench::open();
    bench.critical(1, 10, None, "echo:x");
    bench.session.answer(bench.asked[0], Reply::Answer(b"done"));
    // The reactor reads the repeat before it records.
    let mut bytes = Vec::new();
    let head = CriticalHead { sequence: 10, settled: 1, key: None };
    put_critical(&mut bytes, 2, false, Some(&head), b"echo:x");
    bench.session.push(&bytes, bench.now);
    assert_eq!(bench.session.step(bench.now, true), None);
    bench.work();
    assert_eq!(bench.read(), "ANSWER 1 done, ANSWER 2 done");
    assert_eq!(bench.asked.len(), 1);
}

#[test]
fn what_the_caller_has_settled_is_not_run() {
    let mut bench = Bench::new();
    bench.session.memory.recorder.floor = 5;
    let mut bench = bench.opened(window());
    bench.critical(1, 4, None, "echo:x");
    assert_eq!(bench.read(), "ANSWER 1 error:settled before");
    assert_eq!(bench.effects(), [""; 0]);
}

#[test]
fn while_an_older_link_has_the_record_critical_messages_wait_and_nothing_else_does() {
    let mut bench = Bench::new();
    bench.session.memory.recorder.busy = true;
    let mut bench = bench.opened(window());
    bench.critical(1, 1, None, "echo:critical");
    bench.request(2, b"echo:plain");
    bench.request(3, b"ping");
    assert_eq!(bench.exchange(&raw(6, 0, b"p")), "ANSWER 3 msul1, PONG p");
    bench.effects();
    bench.wait(0.02);
    bench.wait(0.02);
    bench.session.memory.recorder.busy = false;
    assert_eq!(bench.effects().len(), 2, "asked for again after a pause, not all the time");
    bench.wait(0.02);
    assert_eq!(bench.effects()[1], "ask in order 0 echo:critical");
    bench.answer(1, b"done");
    assert_eq!(bench.read(), "ANSWER 1 done", "HELLO is said once");
    assert_eq!(bench.session.deadline(), Some(bench.session.pulse.deadline()));
}

#[test]
fn a_record_that_stays_away_ends_the_link_rather_than_answer_a_message_that_was_not_run() {
    for broken in [None, Some("sync answers: no space left")] {
        let mut bench = Bench::new();
        (bench.session.memory.recorder.busy, bench.session.memory.recorder.broken) =
            (broken.is_none(), broken);
        let mut bench = bench.opened(window());
        bench.wait(14.0);
        bench.critical(1, 1, None, "echo:x");
        for _ in 0..11 {
            bench.session.heard(bench.now);
            bench.wait(1.0);
        }
        let saw = bench.read();
        assert!(saw.starts_with("ERROR ") && saw.ends_with(broken.unwrap_or("critical messages")), "{saw}");
        bench.end_of_input();
        assert!(bench.ended().unwrap().starts_with("critical messages cannot be served: "));
        assert_eq!(bench.asked.len(), 0, "nothing was run");
    }
}

#[test]
fn a_record_that_this_process_can_never_have_again_ends_the_link_at_once() {
    for full in [false, true] {
        let mut bench = Bench::open();
        let recorder = &mut bench.session.memory.recorder;
        recorder.lost = true;
        match full {
            true => recorder.full = Some("make room: no such folder"),
            false => recorder.broken = Some("sync answers: no such folder"),
        }
        bench.critical(1, 1, None, "echo:x");
        bench.wait(0.0);
        let saw = bench.read();
        assert!(saw.starts_with("ERROR ") && saw.contains("no such folder: its folder was removed"), "{saw}");
        bench.end_of_input();
        assert!(bench.ended().unwrap().starts_with("critical messages cannot be served: "));
        assert_eq!(bench.asked.len(), 0, "nothing was run");
    }
}

#[test]
fn what_there_is_no_room_for_waits_and_what_is_being_run_is_answered() {
    let mut bench = Bench::open();
    bench.critical(1, 1, None, "echo:x");
    bench.session.memory.recorder.full = Some("make room: no space left");
    bench.critical(2, 2, None, "echo:y");
    assert_eq!(bench.effects(), ["ask in order 0 echo:x"]);
    bench.answer(0, b"done");
    assert_eq!(bench.read(), "ANSWER 1 done", "its room was there");
    bench.wait(0.9);
    bench.session.memory.recorder.full = None;
    assert_eq!(bench.effects(), [""; 0], "asked for again after a pause, and the record is not opened again");
    bench.wait(0.1);
    assert_eq!(bench.effects(), ["ask in order 0 echo:y"]);
    bench.answer(1, b"done");
    assert_eq!(bench.read(), "ANSWER 2 done");
    assert_eq!(bench.session.deadline(), Some(bench.session.pulse.deadline()));
}

#[test]
fn a_message_that_there_is_no_room_for_ends_the_link_in_the_end_however_often_it_is_tried() {
    let mut bench = Bench::open();
    bench.session.memory.recorder.full = Some("make room: no space left");
    bench.critical(1, 1, None, "echo:x");
    for second in 0..10 {
        assert!(!bench.read().starts_with("ERROR"), "after {second} seconds");
        bench.session.heard(bench.now);
        bench.wait(1.0);
    }
    let saw = bench.read();
    assert!(saw.starts_with("ERROR ") && saw.ends_with("no space left"), "{saw}");
    assert_eq!(bench.asked.len(), 0, "nothing was run");
}

#[test]
fn while_a_message_is_run_for_long_those_behind_it_wait_at_the_bound_and_the_link_stays() {
    let mut bench = Bench::open();
    bench.session.memory.recorder.most_behind = Some(1);
    bench.critical(1, 1, None, "echo:slow");
    bench.critical(2, 2, None, "other:quick");
    bench.answer(1, b"done");
    assert_eq!(bench.read(), "ANSWER 2 done");
    bench.critical(3, 3, None, "other:next");
    assert_eq!(bench.effects(), ["ask in order 0 echo:slow", "ask in order 2 other:quick"]);
    for second in 0..60 {
        assert_eq!(bench.read(), "", "after {second} seconds");
        bench.session.heard(bench.now);
        bench.wait(1.0);
    }
    bench.request(4, b"ping");
    assert_eq!(bench.read(), "ANSWER 4 msul1", "plain ones pass");
    bench.answer(0, b"done too");
    assert_eq!(bench.read(), "ANSWER 1 done too");
    assert_eq!(bench.effects(), ["ask in order 2 other:next"], "at once");
    bench.answer(2, b"and this");
    assert_eq!(bench.read(), "ANSWER 3 and this");
    assert_eq!(bench.session.deadline(), Some(bench.session.pulse.deadline()));
}

#[test]
fn a_record_that_fails_for_a_moment_costs_nothing() {
    let mut bench = Bench::open();
    bench.critical(1, 1, None, "echo:x");
    bench.session.memory.recorder.broken = Some("no space left");
    bench.critical(2, 2, None, "echo:y");
    bench.answer(0, b"done");
    assert_eq!(bench.read(), "", "run, not recorded: not answered");
    bench.wait(1.0);
    bench.session.memory.recorder.broken = None;
    bench.wait(1.0);
    assert_eq!(bench.read(), "ANSWER 1 done");
    assert_eq!(bench.asked.len(), 2, "the second is run now");
    bench.answer(1, b"too");
    assert_eq!(bench.read(), "ANSWER 2 too");
}

#[test]
fn a_link_that_broke_waits_for_what_handlers_have_and_records_it() {
    let mut bench = Bench::open();
    bench.critical(1, 1, None, "echo:x");
    bench.request(2, b"echo:plain");
    bench.session.lost("reset".to_owned());
    bench.work();
    assert_eq!(bench.ended(), None);
    assert!(bench.session.is_cut() && !bench.session.memory.recorder.let_go);
    assert_eq!(bench.session.deadline(), None, "the handler's own timeout is the bound");
    bench.answer(1, b"for nobody");
    bench.answer(0, b"done");
    assert_eq!(bench.session.memory.recorder.answers[&1].0, b"done");
    assert_eq!(bench.ended().as_deref(), Some("lost: reset"));
    assert_eq!(bench.read(), "");

    // What the handler had not got is left to the next link.
    let mut bench = Bench::open();
    bench.handlers_hold = true;
    bench.critical(1, 1, None, "echo:x");
    bench.session.lost("reset".to_owned());
    bench.work();
    assert_eq!(bench.ended().as_deref(), Some("lost: reset"));
    assert!(bench.session.memory.recorder.answers.is_empty());
}

#[test]
fn told_to_end_it_gives_a_handler_the_drain_timeout_and_then_records_that_it_is_not_known() {
    for lost_first in [false, true] {
        let mut bench = Bench::open();
        bench.critical(1, 1, None, "echo:x");
        bench.request(2, b"echo:plain");
        if lost_first {
            bench.session.lost("reset".to_owned());
        }
        bench.finish(Reason::Replaced);
        bench.wait(4.9);
        assert_eq!(bench.ended(), None);
        assert!(bench.session.memory.recorder.answers.is_empty());
        bench.wait(0.1);
        let reason = if lost_first { "lost: reset" } else { "told to end, 2 requests not answered in time" };
        assert_eq!(bench.ended().as_deref(), Some(reason));
        let text = String::from_utf8(bench.session.memory.recorder.answers[&1].0.clone()).unwrap();
        assert!(text.starts_with("error:the link ended before"), "{text}");
        assert!(bench.session.memory.recorder.let_go);
    }
}

#[test]
fn plain_and_critical_requests_take_turns_when_both_wait() {
    let mut bench = Bench::open();
    let mut bytes = Vec::new();
    for id in 1..=3 {
        put_request(&mut bytes, id, false, format!("echo:plain{id}").as_bytes());
    }
    for id in 4..=6 {
        let head = CriticalHead { sequence: id, settled: 1, key: None };
        put_critical(&mut bytes, id, false, Some(&head), format!("echo:once{id}").as_bytes());
    }
    bench.send(&bytes);
    let first: Vec<bool> = bench.effects().iter().take(4).map(|effect| effect.contains("order")).collect();
    assert_eq!(first.iter().filter(|critical| **critical).count(), 2, "{first:?}");
}
