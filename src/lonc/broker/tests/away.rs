//! Handlers that are away at the peer: their messages are kept, tried again, and nothing overtakes
//! them.

use super::secure::{Got, rig};
use super::*;
use crate::broker::away::{Away, HOLD_AFTER, RELAPSE, RETRY_FIRST, Way};
use base::Sequence;
use wire::secure::{MAX_HELD, put_broken_answer, put_not_taken, put_ready};

const WHY: &str = "pay: connect: connection refused";

fn message(number: u64, sequence: u64, settled: u64, text: &str) -> Got {
    Got::critical(number, sequence, settled, text)
}

impl<D: Disk> Rig<D> {
    fn not_taken(&mut self, numbers: &[u64]) {
        self.put(|out| numbers.iter().for_each(|number| put_not_taken(out, *number, WHY)));
    }

    /// The messages among what was sent.
    fn messages(&mut self) -> Vec<Got> {
        let mut sent = self.frames();
        sent.retain(|got| matches!(got, Got::Critical(..)));
        sent
    }

    fn hold_after(&mut self) {
        self.wait(HOLD_AFTER.as_secs_f64());
    }
}

#[test]
fn a_message_that_is_not_taken_is_stored_at_once_and_tried_again_with_pauses_that_grow() {
    let mut rig = rig();
    rig.come_up_secure();
    let program = rig.program(&["critical:pay:1"]);
    assert_eq!(rig.frames(), [message(1, 1, 1, "pay:1")]);
    rig.not_taken(&[1]);
    assert_eq!(rig.got(program), ["con_delayed"]);
    assert_eq!(rig.broker.spool.waiting().messages, 1);
    let away = rig.broker.status(rig.now).away;
    assert_eq!((away.len(), &*away[0].handler, &*away[0].why), (1, "pay", WHY));
    let (mut pause, mut number) = (RETRY_FIRST, 2);
    for _ in 0..6 {
        rig.wait(pause.as_secs_f64() - 0.01);
        assert_eq!(rig.messages(), []);
        rig.wait(0.01);
        assert_eq!(rig.messages(), [message(number, 1, 1, "pay:1")]);
        rig.not_taken(&[number]);
        (pause, number) = ((2 * pause).min(Duration::from_secs(30)), number + 1);
        // Heartbeats go on meanwhile.
        rig.put(|out| wire::secure::put_pong(out, b""));
    }
    rig.wait(pause.as_secs_f64());
    assert_eq!(rig.frames().last(), Some(&message(number, 1, 1, "pay:1")));
    rig.reply(number, "paid");
    assert_eq!(rig.broker.spool.waiting().messages, 0);
    assert_eq!(rig.effects.pop(), Some(Effect::Delivered { request: b"pay:1".to_vec() }));
    assert_eq!(rig.broker.status(rig.now).away, []);
}

#[test]
fn it_is_tried_as_soon_as_the_handler_is_back_or_the_link_is_a_new_one() {
    let mut rig = rig();
    rig.come_up_secure();
    rig.program(&["critical:pay:1"]);
    rig.frames();
    rig.not_taken(&[1]);
    rig.put(|out| put_ready(out, "other"));
    assert_eq!(rig.frames(), []);
    rig.put(|out| put_ready(out, "pay"));
    assert_eq!(rig.frames(), [message(2, 1, 1, "pay:1")]);
    rig.not_taken(&[2]);
    rig.broker.link_lost("reset".to_owned(), rig.now);
    rig.come_up_secure();
    assert_eq!(rig.messages(), [message(1, 1, 1, "pay:1")]);
}

#[test]
fn those_that_were_sent_behind_it_are_kept_too_and_go_out_in_their_order() {
    let mut rig = rig();
    rig.come_up_secure();
    let program = rig.program(&["critical:pay:1", "critical:pay:2", "critical:pay:3"]);
    assert_eq!(rig.frames().len(), 3);
    rig.not_taken(&[1, 2, 3]);
    assert_eq!(rig.got(program), ["con_delayed"; 3]);
    assert_eq!(rig.frames(), []);
    rig.put(|out| put_ready(out, "pay"));
    assert_eq!(
        rig.frames(),
        [message(4, 1, 1, "pay:1")],
        "the others wait until it is known whether this one is taken"
    );
    rig.reply(4, "paid");
    assert_eq!(rig.frames(), [message(5, 2, 2, "pay:2"), message(6, 3, 2, "pay:3")]);
}

#[test]
fn for_a_while_all_wait_for_it_then_others_go_past_it_and_its_own_keep_their_order() {
    let mut rig = rig();
    rig.come_up_secure();
    rig.program(&["critical:pay:1"]);
    rig.frames();
    rig.not_taken(&[1]);
    let program = rig.program(&["critical:log:a", "critical:pay:2", "critical:log:b"]);
    assert_eq!(rig.got(program), ["con_delayed"; 3]);
    rig.wait(RETRY_FIRST.as_secs_f64());
    assert_eq!(rig.frames(), [message(2, 1, 1, "pay:1")]);
    rig.not_taken(&[2]);
    rig.hold_after();
    // HELD stands before what goes past: what is settled is not about pay. And pay's first is
    // tried, for it is time.
    let sent = rig.frames();
    assert_eq!(sent[..2], [Got::Held("pay\n".to_owned()), message(3, 2, 2, "log:a")]);
    assert_eq!(sent[2..], [message(4, 4, 2, "log:b"), message(5, 1, 1, "pay:1")]);
    rig.put(|out| put_answer_all(out, &[3, 4]));
    rig.not_taken(&[5]);
    assert_eq!(rig.broker.spool.waiting().messages, 2);
    assert_eq!(rig.broker.status(rig.now).away[0].held, Some(2));
    // A new one of another command has nothing before it, and is answered live; one of pay's is
    // stored.
    let (live, stored) = (rig.program(&["critical:log:c"]), rig.program(&["critical:pay:3"]));
    assert_eq!(rig.frames(), [message(6, 5, 5, "log:c")]);
    rig.reply(6, "ok");
    assert_eq!((rig.got(live), rig.got(stored)), (vec!["ok".to_owned()], vec!["con_delayed".to_owned()]));
    rig.put(|out| put_ready(out, "pay"));
    assert_eq!(rig.frames(), [message(7, 1, 1, "pay:1")]);
    rig.reply(7, "paid");
    assert_eq!(
        rig.frames(),
        [Got::Held(String::new()), message(8, 3, 3, "pay:2"), message(9, 6, 3, "pay:3")]
    );
    rig.put(|out| put_answer_all(out, &[8, 9]));
    assert!(rig.broker.spool.is_empty());
    assert_eq!(rig.broker.status(rig.now).away, []);
}

fn put_answer_all(out: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        wire::secure::put_answer(out, *number, false, b"ok");
    }
}

#[test]
fn one_that_was_being_tried_when_those_behind_it_were_held_is_still_the_first_on_the_next_link() {
    let mut rig = rig();
    rig.come_up_secure();
    rig.program(&["critical:pay:1", "critical:pay:2"]);
    rig.frames();
    rig.not_taken(&[1, 2]);
    rig.wait(RETRY_FIRST.as_secs_f64());
    assert_eq!(rig.messages(), [message(3, 1, 1, "pay:1")]);
    // Nothing is heard of it; meanwhile the other is held, and the link is lost.
    rig.hold_after();
    rig.broker.link_lost("reset".to_owned(), rig.now);
    rig.come_up_secure();
    assert_eq!(rig.messages(), [message(1, 1, 1, "pay:1")]);
    rig.reply(1, "paid");
    assert_eq!(rig.messages(), [message(2, 2, 2, "pay:2")]);
}

#[test]
fn a_handler_that_goes_again_soon_after_it_came_back_holds_the_others_up_no_second_time() {
    let mut rig = rig();
    rig.come_up_secure();
    rig.program(&["critical:pay:1", "critical:pay:2"]);
    rig.frames();
    rig.not_taken(&[1, 2]);
    rig.hold_after();
    rig.frames();
    rig.reply(3, "paid");
    let sent = rig.frames();
    assert_eq!(sent.last(), Some(&message(4, 2, 2, "pay:2")));
    rig.not_taken(&[4]);
    rig.program(&["critical:log:x"]);
    let sent = rig.frames();
    assert_eq!(sent.last(), Some(&message(5, 3, 3, "log:x")), "it waits for nobody: {sent:?}");
}

#[test]
fn what_a_handler_took_and_did_not_answer_goes_to_failed_with_what_the_peer_says_but_its_own_words_deliver() {
    let mut rig = rig();
    rig.program(&["critical:pay:1", "critical:pay:2"]);
    rig.wait(2.0);
    assert_eq!(rig.broker.spool.waiting().messages, 2);
    rig.come_up_secure();
    rig.frames();
    rig.put(|out| put_broken_answer(out, 1, false, b"error:pay: connection closed by the program"));
    rig.reply(2, "error:no such account");
    assert_eq!((rig.broker.spool.waiting().messages, rig.broker.spool.waiting().failed), (0, 1));
    let failed = rig.dir.path().join("delayed/msul1/failed/00000000000000000001");
    let text = std::fs::read_to_string(failed).unwrap();
    assert!(text.contains("pay:1") && text.contains("error:pay: connection closed by the program"), "{text}");
    let delivered = Effect::Delivered { request: b"pay:2".to_vec() };
    assert!(
        rig.effects.contains(&delivered)
            && !rig.effects.contains(&Effect::Delivered { request: b"pay:1".to_vec() })
    );
}

#[test]
fn one_that_cannot_be_stored_is_con_failed() {
    let mut rig = rig();
    rig.come_up_secure();
    let program = rig.program(&["critical:pay:1"]);
    rig.frames();
    rig.spoil_spool();
    rig.not_taken(&[1]);
    assert_eq!(rig.got(program), ["con_failed"]);
}

#[test]
fn one_that_was_sent_behind_it_and_comes_back_while_it_is_tried_again_is_no_further_try() {
    let mut rig = rig();
    rig.come_up_secure();
    rig.program(&["critical:pay:1", "critical:pay:2"]);
    rig.frames();
    rig.not_taken(&[1]);
    rig.wait(RETRY_FIRST.as_secs_f64());
    assert_eq!(rig.messages(), [message(3, 1, 1, "pay:1")]);
    rig.not_taken(&[2]);
    rig.wait(RETRY_FIRST.as_secs_f64() * 3.0);
    assert_eq!(rig.messages(), [], "it is not known whether the first is taken");
    rig.reply(3, "paid");
    assert_eq!(rig.messages(), [message(4, 2, 2, "pay:2")]);
}

/// What `Away` says alone, with a time of its own.
struct Alone {
    away: Away,
    now: Now,
}

impl Alone {
    fn new() -> Alone {
        Alone { away: Away::default(), now: Rig::new().now }
    }

    fn refused(&mut self, command: &str, sequence: u64) -> bool {
        self.away.refused(command, Some(Sequence(sequence)), WHY.to_owned(), self.now)
    }

    fn way(&mut self, command: &str, sequence: u64) -> Way {
        self.away.way(command, Sequence(sequence), self.now)
    }

    /// Time until something is to be done.
    fn left(&self) -> Option<Duration> {
        self.away.deadline(self.now).map(|at| at - self.now.mono)
    }
}

#[test]
fn the_handlers_that_are_away_are_bounded_and_one_that_has_long_been_back_makes_room() {
    let mut alone = Alone::new();
    for number in 0..MAX_HELD {
        assert!(alone.refused(&format!("h{number}"), number as u64));
    }
    assert!(!alone.refused("one more", 100));
    assert!(alone.refused("h7", 7), "one that is known");
    alone.away.come_back("h7", alone.now);
    alone.now.mono += RELAPSE - Duration::from_millis(1);
    assert!(!alone.refused("one more", 100), "it may be away again");
    alone.now.mono += Duration::from_millis(1);
    assert!(alone.refused("one more", 100));
    assert!(!alone.refused("another", 101));
}

#[test]
fn a_handler_that_is_away_has_its_next_try_and_the_end_of_the_others_patience_to_come() {
    let mut alone = Alone::new();
    alone.refused("pay", 1);
    assert_eq!(alone.left(), Some(RETRY_FIRST));
    alone.now.mono += RETRY_FIRST;
    assert_eq!(alone.left(), Some(HOLD_AFTER - RETRY_FIRST), "what is due waits for something else");
    assert_eq!(alone.way("pay", 1), Way::Send);
    assert_eq!(alone.left(), Some(HOLD_AFTER - RETRY_FIRST), "while it is tried");
    assert_eq!(alone.way("log", 2), Way::Wait);
    alone.refused("pay", 1);
    assert_eq!(alone.left(), Some(2 * RETRY_FIRST));
    alone.now.mono += 2 * RETRY_FIRST;
    assert_eq!(alone.way("pay", 1), Way::Send);
    alone.now.mono += HOLD_AFTER - 3 * RETRY_FIRST;
    assert_eq!(alone.way("log", 2), Way::Send, "from that time on, not after it");
    assert_eq!(alone.way("pay", 3), Way::Pass);
    assert_eq!(alone.left(), None);
    alone.refused("pay", 1);
    assert_eq!(alone.left(), Some(4 * RETRY_FIRST));
    alone.away.put_off("pay", alone.now.mono + HOLD_AFTER);
    assert_eq!(alone.left(), Some(HOLD_AFTER));
}
