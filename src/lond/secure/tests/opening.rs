//! HELLO, and what comes instead of it.

use super::*;
use wire::secure::NO_EPOCH;

fn altered(from: &str, to: &str) -> Vec<u8> {
    let bytes = hello(window());
    let text = String::from_utf8(bytes[12..].to_vec()).unwrap();
    assert!(text.contains(from));
    raw(1, 0, text.replace(from, to).as_bytes())
}

#[test]
fn hello_is_answered_with_the_mark_once_the_supervisor_was_told() {
    let mut bench = Bench::new();
    bench.session.memory.recorder.floor = 17;
    bench.caller.theirs = window().into();
    bench.send(&hello(window()));
    assert_eq!(bench.effects(), ["opened", &format!("open record {EPOCH}")]);
    assert_eq!(bench.read(), "HELLO mark 17");
    bench.request(1, b"ping");
    assert_eq!(bench.read(), "ANSWER 1 msul1");
    bench.session.heard(bench.now + Duration::from_secs(10));
    bench.wait(20.0);
    assert_eq!(bench.ended(), None, "the opening deadline is over");
}

#[test]
fn what_is_no_right_hello_is_told_and_left_and_nothing_is_touched() {
    for (sent, error) in [
        (altered("id=msua1", "id=msua2"), "your key is not that of msua2"),
        (altered("to=msul1", "to=msul2"), "this is msul1, not msul2"),
        (altered("versions=1-1", "versions=2-3"), "no common version: this is 1-1"),
        (altered("epoch=", "apoch="), "read HELLO: epoch is missing"),
        (altered("window=", "window=99999"), "read HELLO: window cannot have that value"),
        (raw(1, 0, b"GET / HTTP/1.0\r\n\r\n"), "read HELLO: not \"lonnet\" and lines name=value"),
        (raw(2, 1, b"ping"), "a Request frame is not for the caller to send now"),
        (raw(3, 1, &[0; 17]), "a Critical frame is not for the caller to send now"),
        (raw(4, 1, b"x"), "a Answer frame is not for the caller to send now"),
        (raw(5, 1, b""), "a Cancel frame is not for the caller to send now"),
        (raw(6, 0, b""), "a Ping frame is not for the caller to send now"),
        (raw(7, 0, b""), "a Pong frame is not for the caller to send now"),
        (raw(8, 0, &[0; 4]), "a Window frame is not for the caller to send now"),
        (raw(9, 0, &[0; 8]), "a GoAway frame is not for the caller to send now"),
        (raw(0x7f, 0, b""), "read a frame: its kind 0x7f is unknown"),
    ] {
        let mut bench = Bench::new();
        assert_eq!(bench.exchange(&sent), format!("ERROR {error}"));
        assert_eq!(bench.effects(), ["shut"]);
        assert_eq!(bench.exchange(&hello(window())), "", "nothing more is heard");
        bench.end_of_input();
        let known = match error.strip_prefix("your key is not that of ") {
            Some(claimed) => format!("the pin of msua1, which says it is {claimed}"),
            None => format!("the pin of msua1: {error}"),
        };
        assert_eq!(bench.ended().unwrap(), format!("refused: {known}"));
    }
}

#[test]
fn a_version_in_common_is_spoken_and_unknown_names_are_ignored() {
    for sent in [altered("versions=1-1", "versions=1-2"), altered("program=", "colour=red\nprogram=")] {
        let mut bench = Bench::new();
        assert_eq!(bench.exchange(&sent), "HELLO mark 0");
    }
}

#[test]
fn frames_of_unknown_kinds_above_0x80_are_ignored_and_an_error_ends_the_link_without_one() {
    let mut bench = Bench::new();
    let mut bytes = raw(0x80, 7, &[0xff; 500]);
    bytes.extend(hello(window()));
    bytes.extend(raw(0xff, 0, b""));
    bench.caller.theirs = window().into();
    assert_eq!(bench.exchange(&bytes), "HELLO mark 0");
    bench.effects();
    assert_eq!(bench.exchange(&raw(10, 0, b"bad \x07 luck")), "");
    assert_eq!(bench.effects(), ["shut"]);
    bench.end_of_input();
    assert_eq!(bench.ended().unwrap(), "the caller says: bad \\x07 luck");
}

#[test]
fn a_caller_that_never_says_hello_is_let_go_at_the_deadline() {
    let mut bench = Bench::new();
    bench.send(&hello(window())[..40]);
    bench.wait(9.9);
    assert_eq!(bench.ended(), None);
    bench.wait(0.1);
    assert_eq!(bench.ended().as_deref(), Some("the opening dialogue was not done in time"));
    let mut told = Bench::new();
    told.finish(Reason::Drained);
    told.end_of_input();
    assert_eq!(told.ended().as_deref(), Some("told to end"));
    assert_eq!(told.read(), "", "nothing is said before HELLO");
}

#[test]
fn a_caller_without_an_epoch_is_served_and_its_record_is_left_alone_and_no_critical_message_is_taken() {
    let mut bench = Bench::new();
    bench.caller.theirs = window().into();
    bench.send(&altered(&format!("epoch={EPOCH}"), &format!("epoch={NO_EPOCH}")));
    assert_eq!(bench.effects(), ["opened"]);
    assert_eq!(bench.read(), "HELLO mark 0");
    bench.request(1, b"ping");
    assert_eq!(bench.read(), "ANSWER 1 msul1");
    bench.send(&raw(3, 2, &[0; 17]));
    assert!(bench.read().contains("a Critical frame is not for the caller to send now"));
}
