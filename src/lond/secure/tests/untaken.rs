//! Critical messages that a handler did not take: the caller is told, keeps them, and nothing
//! overtakes them.

use super::*;
use wire::secure::put_held;

const AWAY: Reply<'static> = Reply::NotTaken("echo: connect: connection refused");

impl Bench {
    fn settling(&mut self, id: u64, sequence: u64, settled: u64, text: &str) {
        let mut bytes = Vec::new();
        put_critical(
            &mut bytes,
            id,
            false,
            Some(&CriticalHead { sequence, settled, key: None }),
            text.as_bytes(),
        );
        self.send(&bytes);
    }
}

#[test]
fn a_message_that_is_not_taken_is_not_answered_not_recorded_and_is_run_when_it_comes_again() {
    let mut bench = Bench::open();
    bench.critical(1, 10, None, "echo:x");
    bench.reply(0, AWAY);
    assert_eq!(bench.read(), "NOT_TAKEN 1 echo: connect: connection refused");
    assert_eq!((bench.session.memory.recorder.adds, bench.session.memory.recorder.answers.len()), (0, 0));
    assert_eq!(bench.session.credit.held(), 0, "its part of the window is given back");
    bench.effects();
    bench.critical(2, 10, None, "echo:x");
    assert_eq!(bench.effects(), ["ask in order 0 echo:x"]);
    bench.answer(1, b"done");
    assert_eq!(bench.read(), "ANSWER 2 done");
    assert_eq!(bench.session.memory.recorder.answers[&10].0, b"done");
}

#[test]
fn what_was_sent_behind_it_does_not_overtake_it_when_the_handler_is_back_before_the_caller_has_heard() {
    let mut bench = Bench::open();
    bench.critical(1, 10, None, "echo:first");
    bench.reply(0, AWAY);
    // Sent before NOT_TAKEN was read; the handler is back already.
    bench.critical(2, 11, None, "echo:second");
    bench.critical(3, 12, None, "other:third");
    let asked = bench.effects();
    assert_eq!(asked, ["ask in order 0 echo:first", "ask in order 2 other:third"]);
    let why = "echo: connect: connection refused";
    assert_eq!(bench.read(), format!("NOT_TAKEN 1 {why}, NOT_TAKEN 2 {why}"));
    bench.critical(4, 10, None, "echo:first");
    bench.critical(5, 11, None, "echo:second");
    assert_eq!(bench.effects(), ["ask in order 0 echo:first", "ask in order 0 echo:second"]);
}

#[test]
fn a_log_message_beyond_the_quota_is_not_taken_nor_is_any_behind_it_before_it_comes_again() {
    let mut bench = Bench::open();
    bench.critical(1, 10, None, "log:too much");
    bench.critical(2, 11, None, "log:second");
    bench.critical(3, 12, None, "echo:third");
    assert_eq!(bench.effects(), ["log too much", "ask in order 0 echo:third"]);
    assert_eq!(bench.read(), "NOT_TAKEN 1 log: too much, NOT_TAKEN 2 log: too much");
    bench.request(4, b"log:too much");
    assert_eq!(bench.read(), "ANSWER 4 error:log: too much", "a plain one is answered");
    bench.effects();
    bench.critical(5, 10, None, "log:first");
    bench.critical(6, 11, None, "log:second");
    assert_eq!(bench.effects(), ["log first", "log second"]);
    assert_eq!(bench.read(), "ANSWER 5 ok, ANSWER 6 ok");
}

#[test]
fn one_that_its_caller_does_not_keep_is_not_waited_for() {
    let mut bench = Bench::open();
    bench.critical(1, 10, None, "echo:first");
    bench.reply(0, AWAY);
    bench.effects();
    bench.settling(2, 11, 10, "echo:second");
    assert_eq!(bench.effects(), [""; 0], "10 may still come");
    bench.settling(3, 12, 11, "echo:third");
    assert_eq!(bench.effects(), ["ask in order 0 echo:third"], "10 is settled: nobody has it any more");
}

#[test]
fn the_caller_hears_that_the_handler_is_back_behind_what_was_not_taken_and_only_if_it_waits() {
    let mut bench = Bench::open();
    bench.session.handler_back(0);
    bench.work();
    assert_eq!(bench.read(), "");
    bench.critical(1, 10, None, "echo:x");
    bench.session.answer(bench.asked[0], AWAY);
    bench.session.handler_back(0);
    bench.work();
    assert_eq!(bench.read(), "NOT_TAKEN 1 echo: connect: connection refused, READY echo");
}

#[test]
fn one_that_follows_the_same_message_is_not_taken_either_and_both_are_new_when_they_come_again() {
    let mut bench = Bench::open();
    bench.critical(1, 10, key("K"), "echo:x");
    bench.critical(2, 11, key("K"), "echo:x");
    bench.reply(0, AWAY);
    let why = "echo: connect: connection refused";
    assert_eq!(bench.read(), format!("NOT_TAKEN 1 {why}, NOT_TAKEN 2 {why}"));
    bench.effects();
    bench.critical(3, 10, key("K"), "echo:x");
    bench.critical(4, 11, key("K"), "echo:x");
    assert_eq!(bench.effects(), ["ask in order 0 echo:x"]);
    bench.answer(1, b"done");
    assert_eq!(bench.read(), "ANSWER 3 done, ANSWER 4 done");
    assert_eq!(bench.session.credit.held(), 0);
}

#[test]
fn a_handler_that_took_a_message_and_gave_no_answer_is_told_from_one_that_said_error_itself() {
    let mut bench = Bench::open();
    bench.critical(1, 10, None, "echo:x");
    bench.critical(2, 11, None, "echo:y");
    bench.reply(0, Reply::Broken(b"error:echo: connection closed by the program"));
    bench.answer(1, b"error:no such account");
    let broken = "BROKEN 1 error:echo: connection closed by the program";
    assert_eq!(bench.read(), format!("{broken}, ANSWER 2 error:no such account"));
    bench.critical(3, 10, None, "echo:x");
    assert_eq!(bench.read(), broken.replace('1', "3"), "and so are repeats");
}

#[test]
fn a_plain_request_that_is_not_taken_is_answered_at_once() {
    let mut bench = Bench::open();
    bench.request(1, b"echo:x");
    bench.reply(0, AWAY);
    assert_eq!(bench.read(), "ANSWER 1 error:echo: connect: connection refused");
}

#[test]
fn one_that_is_not_taken_while_the_link_settles_is_nobodys_and_the_record_is_let_go() {
    let mut bench = Bench::open();
    bench.critical(1, 10, None, "echo:x");
    bench.session.lost("reset".to_owned());
    bench.work();
    assert!(!bench.session.memory.recorder.let_go);
    bench.reply(0, AWAY);
    assert!(bench.session.memory.recorder.let_go && bench.ended().is_some());
    assert_eq!(bench.session.memory.recorder.adds, 0);
}

#[test]
fn what_a_caller_holds_is_said_of_the_messages_that_it_sends_after_that() {
    let mut bench = Bench::open();
    let mut bytes = Vec::new();
    let message = |id: u64, sequence, settled, text: &[u8], bytes: &mut Vec<u8>| {
        put_critical(bytes, id, false, Some(&CriticalHead { sequence, settled, key: None }), text);
    };
    message(1, 10, 10, b"other:a", &mut bytes);
    put_held(&mut bytes, [b"echo".as_slice()].into_iter());
    message(2, 20, 20, b"other:b", &mut bytes);
    put_held(&mut bytes, [].into_iter());
    message(3, 30, 9, b"other:c", &mut bytes);
    bench.send(&bytes);
    assert_eq!(
        bench.session.memory.recorder.told,
        [("other", 10, ""), ("other", 20, "echo"), ("other", 9, "")].map(|(command, settled, held)| (
            command.to_owned(),
            settled,
            held.to_owned()
        ))
    );
}

#[test]
fn a_caller_that_holds_what_can_be_no_command_or_too_many_breaks_the_rules() {
    let many: Vec<u8> = (0..=64).flat_map(|number| format!("c{number}\n").into_bytes()).collect();
    for body in [&many[..], b"two words\n", b"echo\nx:y\n"] {
        let mut bench = Bench::open();
        let said = bench.exchange(&raw(0xa2, 0, body));
        assert_eq!(said, "ERROR HELD names more than 64 commands, or what can be none");
    }
}
