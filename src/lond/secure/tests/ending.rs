//! GOAWAY, exit, and the ways a link ends.

use super::*;

#[test]
fn told_to_end_it_answers_what_the_caller_has_sent_until_it_closes() {
    for reason in [Reason::Drained, Reason::Orphaned] {
        let mut bench = Bench::open();
        bench.request(1, b"echo:1");
        bench.finish(reason.clone());
        assert_eq!(bench.read(), format!("GOAWAY {}", u64::MAX));
        bench.request(2, b"echo:2");
        bench.answer(0, b"one");
        assert_eq!(bench.read(), "ANSWER 1 one");
        assert_eq!(bench.effects(), ["ask 0 echo:1", "ask 0 echo:2"], "it was on its way");
        bench.answer(1, b"two");
        assert_eq!(bench.read(), "ANSWER 2 two");
        assert_eq!(bench.effects(), [""; 0], "more may come");
        bench.end_of_input();
        assert_eq!(bench.ended(), Some(reason.to_string()));
    }
}

#[test]
fn replaced_it_says_so_answers_what_it_took_and_leaves() {
    let reason = Reason::Replaced;
    let mut bench = Bench::open();
    bench.request(1, b"echo:1");
    let mut bytes = Vec::new();
    put_request(&mut bytes, 2, true, b"ec");
    bench.send(&bytes);
    bench.finish(reason.clone());
    assert_eq!(bench.read(), "GOAWAY 2");
    bench.request(3, b"echo:3");
    let mut bytes = Vec::new();
    put_request(&mut bytes, 4, true, b"echo:4");
    put_request(&mut bytes, 4, false, b"more");
    put_request(&mut bytes, 2, false, b"ho:2");
    put_cancel(&mut bytes, 3);
    bench.send(&bytes);
    assert_eq!(bench.effects(), ["ask 0 echo:1", "ask 0 echo:2"], "what is above is not run");
    bench.answer(1, b"two");
    assert_eq!(bench.read(), "ANSWER 2 two");
    assert!(!bench.session.memory.recorder.let_go);
    bench.answer(0, b"one");
    assert_eq!(bench.read(), "ANSWER 1 one");
    assert_eq!(bench.effects(), ["shut"]);
    assert!(bench.session.memory.recorder.let_go, "at once, for the link that came after this one");
    assert!(bench.session.wants_input(), "lingering");
    bench.wait(LINGER.as_secs_f64());
    assert_eq!(bench.ended(), Some(reason.to_string()));
}

#[test]
fn an_idle_link_that_is_replaced_still_says_goaway() {
    let mut bench = Bench::open();
    bench.request(1, b"ping");
    bench.read();
    bench.finish(Reason::Replaced);
    assert_eq!(bench.read(), "GOAWAY 1");
    assert_eq!(bench.effects(), ["shut"]);
}

#[test]
fn a_request_that_takes_longer_than_the_drain_timeout_is_left() {
    let mut bench = Bench::open();
    bench.request(1, b"echo:1");
    bench.finish(Reason::Drained);
    bench.wait(3.0);
    bench.finish(Reason::Orphaned);
    bench.wait(1.9);
    assert_eq!(bench.ended(), None);
    bench.wait(0.1);
    assert_eq!(bench.ended().as_deref(), Some("told to end, 1 requests not answered in time"));
}

#[test]
fn exit_is_answered_bye_and_then_the_link_is_gone() {
    let mut bench = Bench::open();
    bench.request(1, b"echo:1");
    bench.request(2, b"exit");
    assert_eq!(bench.read(), "ANSWER 2 bye, GOAWAY 2");
    bench.request(3, b"ping");
    bench.answer(0, b"one");
    assert_eq!(bench.read(), "ANSWER 1 one");
    bench.end_of_input();
    assert_eq!(bench.ended().as_deref(), Some("the caller said exit"));
}

#[test]
fn a_caller_that_says_no_more_gets_its_answers() {
    let mut bench = Bench::open();
    let mut bytes = Vec::new();
    put_message(&mut bytes, 1, b"echo:1");
    put_request(&mut bytes, 2, true, b"half");
    bench.send(&bytes);
    bench.end_of_input();
    assert!(!bench.session.wants_input());
    assert_eq!(bench.session.deadline(), None);
    bench.wait(600.0);
    bench.answer(0, b"one");
    assert_eq!(bench.read(), "ANSWER 1 one", "and no PING: it has said that it answers none");
    assert_eq!(bench.ended().as_deref(), Some("closed by the caller"));
}

#[test]
fn the_first_reason_is_the_one_that_is_told() {
    let mut bench = Bench::open();
    bench.send(&raw(0x0b, 0, b""));
    bench.finish(Reason::Drained);
    bench.session.lost("reset".to_owned());
    bench.work();
    assert_eq!(
        bench.ended().as_deref(),
        Some("the caller broke the rules: read a frame: its kind 0x0b is unknown")
    );
    // A caller that does not even take the ERROR.
    let mut bench = Bench::open();
    bench.session.push(&raw(0x0b, 0, b""), bench.now);
    assert_eq!(bench.session.step(bench.now, false), None, "it waits to be taken");
    bench.now += DRAIN;
    bench.session.tick(bench.now);
    assert!(bench.ended().unwrap().starts_with("the caller broke the rules"));
}
