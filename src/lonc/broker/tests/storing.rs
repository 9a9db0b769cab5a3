//! What becomes of critical messages: stored, sent again, set aside, refused.

use super::*;

#[test]
fn with_the_link_down_plain_requests_are_lost_and_critical_ones_stored_at_once() {
    let mut rig = Rig::new();
    rig.lose_link();
    let id = rig.program(&["plain", "critical:log:1", "critical:encrypt:log:2"]);
    assert_eq!(rig.got(id), ["con_lost", "con_delayed", "con_delayed"]);
    assert_eq!(rig.broker.spool.waiting().messages, 2);
}

#[test]
fn stored_messages_are_replayed_in_order_and_new_critical_ones_queue_behind_while_plain_ones_pass() {
    let mut rig = Rig::new();
    rig.lose_link();
    let id = rig.program(&["critical:1", "critical:encrypt:2"]);
    assert_eq!(rig.got(id).len(), 2);
    rig.come_up();
    let sealed = rig.sent();
    assert_eq!(sealed[0], "1");
    let cipher = Cipher::agree(&host("msul1").id, &host("msua1").id, BUILDKEY.as_bytes());
    assert_eq!(cipher.open(sealed[1].as_bytes()).unwrap(), b"2");
    rig.ask(id, &["critical:3", "plain"]);
    assert_eq!(rig.got(id), ["con_delayed"]);
    assert_eq!(rig.sent(), ["plain", "3"]);
    rig.say(&["ok", "ok", "PLAIN", "ok"]);
    assert_eq!(rig.got(id), ["PLAIN"]);
    assert_eq!(rig.delivered(), ["1", "encrypt:2", "3"]);
    assert!(rig.broker.spool.is_empty());
    rig.ask(id, &["critical:4"]);
    assert_eq!(rig.sent(), ["4"]);
    rig.say(&["FOUR"]);
    assert_eq!(rig.got(id), ["FOUR"]);
    assert!(rig.delivered().is_empty());
}

#[test]
fn a_lost_link_loses_plain_requests_in_flight_and_stores_critical_ones_in_the_order_they_were_sent() {
    let mut rig = Rig::new();
    rig.come_up();
    let id = rig.program(&["critical:1", "plain", "critical:2"]);
    let gone = rig.program(&["critical:3"]);
    rig.broker.client_gone(gone);
    rig.sent();
    rig.lose_link();
    assert_eq!(rig.got(id), ["con_delayed", "con_lost", "con_delayed"]);
    rig.ask(id, &["critical:4"]);
    assert_eq!(rig.got(id), ["con_delayed"]);
    rig.come_up();
    assert_eq!(rig.sent(), ["1", "2", "3", "4"]);
    rig.say(&["ok"]);
    rig.lose_link();
    rig.come_up();
    assert_eq!(rig.sent(), ["2", "3", "4"], "what was answered is not sent again");
}

/// On the classic wire, where a request has no sequence that would put it in its place.
#[test]
fn what_was_in_flight_is_stored_before_what_was_gathered_after_it_in_the_turn_in_which_the_link_is_lost() {
    let mut rig = Rig::new();
    rig.come_up();
    let older = rig.program(&["critical:1", "critical:2"]);
    assert_eq!(rig.sent(), ["1", "2"]);
    let newer = rig.broker.client_connected();
    for text in [b"3", b"4"] {
        let slot = rig.broker.session(newer).unwrap().take_slot();
        let before = rig.broker.taken_bytes();
        rig.broker.gather(Owner { client: newer, slot, user: None }, text);
        assert_eq!(rig.broker.taken_bytes() - before, text.len());
    }
    rig.lose_link();
    for id in [older, newer] {
        assert_eq!(rig.got(id), ["con_delayed", "con_delayed"]);
    }
    rig.come_up();
    assert_eq!(rig.sent(), ["1", "2", "3", "4"]);
}

#[test]
fn an_overdue_critical_request_is_stored_and_its_late_answer_counts_as_its_delivery() {
    let mut rig = Rig::new();
    rig.come_up();
    let first = rig.program(&["critical:slow"]);
    rig.wait(250.0);
    let second = rig.program(&["critical:behind"]);
    rig.sent();
    rig.wait(50.0);
    assert_eq!(rig.got(first), ["con_delayed"]);
    assert!(rig.got(second).is_empty(), "its own time is not over");
    assert!(rig.sent().is_empty(), "what is in flight is not sent twice");
    let third = rig.program(&["critical:newer"]);
    assert_eq!(rig.got(third), ["con_delayed"], "it queues behind what is stored");
    assert_eq!(rig.sent(), ["newer"]);
    rig.say(&["LATE", "BEHIND", "ok"]);
    assert_eq!(rig.got(second), ["BEHIND"]);
    assert_eq!(rig.delivered(), ["slow", "newer"]);
    assert!(rig.broker.spool.is_empty());
}

#[test]
fn what_was_stored_as_a_precaution_is_sent_first_with_the_next_link() {
    let mut rig = Rig::new();
    rig.come_up();
    let first = rig.program(&["critical:1"]);
    rig.wait(250.0);
    let second = rig.program(&["critical:2"]);
    rig.wait(50.0);
    let third = rig.program(&["critical:3"]);
    rig.sent();
    rig.lose_link();
    assert_eq!(rig.got(second), ["con_delayed"]);
    assert_eq!((rig.got(first).len(), rig.got(third).len()), (1, 1));
    rig.come_up();
    assert_eq!(rig.sent(), ["1", "2", "3"]);
}

#[test]
fn a_rejected_stored_message_is_set_aside_and_the_next_follows() {
    let mut rig = Rig::new();
    rig.lose_link();
    let id = rig.program(&["critical:a", "critical:b", "critical:c", "critical:d"]);
    rig.got(id);
    rig.come_up();
    rig.say(&["refused", "unknown_cmd", "", "error:busy"]);
    assert_eq!(rig.delivered(), ["d"]);
    let waiting = rig.broker.spool.waiting();
    assert_eq!((waiting.messages, waiting.failed), (0, 3));
}

#[test]
fn a_full_spool_says_con_failed_and_the_status_says_why() {
    let mut peer = peer();
    peer.spool.messages = 2;
    let mut rig = Rig::with(peer);
    rig.lose_link();
    rig.wait(0.001);
    for (user, answer) in [(1, "con_delayed"), (2, "con_delayed"), (3, "con_failed")] {
        let id = rig.program_of(user, &["critical:1"]);
        assert_eq!(rig.got(id), [answer]);
    }
    let error = rig.broker.status(rig.now).last_error.unwrap();
    assert_eq!(error, "the spool is full: 2 messages wait; message refused");
}

#[test]
fn a_user_who_has_its_share_is_refused_and_named_once_a_minute_and_another_finds_room() {
    let mut peer = peer();
    peer.spool.messages = 8;
    let mut rig = Rig::with(peer);
    rig.lose_link();
    rig.wait(0.001);
    let greedy = rig.program_of(1000, &["critical:g"; 9]);
    let answers = rig.got(greedy);
    assert_eq!(
        (&answers[..6], &answers[6..]),
        (&["con_delayed"; 6].map(String::from)[..], &["con_failed"; 3].map(String::from)[..])
    );
    assert!(rig.broker.take_changed());
    let status = rig.broker.status(rig.now);
    assert_eq!(status.lost, 3, "they are counted as others are");
    assert!(
        status.last_error.unwrap().starts_with("user 1000 has its share of the spool: 6 messages of its own")
    );
    let other = rig.program_of(1001, &["critical:o"; 2]);
    assert_eq!(rig.got(other), ["con_delayed", "con_failed"]);
    assert!(rig.broker.take_changed(), "that is told of this user too");
    let again = rig.program_of(1000, &["critical:g"]);
    assert_eq!(rig.got(again), ["con_failed"]);
    assert!(!rig.broker.take_changed(), "once a minute");
    let nobody = rig.program_of(u32::MAX, &["critical:n"]);
    assert_eq!(rig.got(nobody), ["con_delayed"], "of whom nothing is known is a user too");
}

/// What is in flight and has no room is answered by the peer, or fails; what others store
/// meanwhile is not held up by it, nor overtaken later.
#[test]
fn what_a_user_who_has_its_share_has_in_flight_holds_nobody_up() {
    let mut peer = peer();
    peer.spool.messages = 4;
    let mut rig = Rig::with(peer);
    rig.come_up();
    let greedy =
        rig.program_of(1000, &["critical:1", "critical:2", "critical:3", "critical:4", "critical:5"]);
    assert_eq!(rig.sent().len(), 5);
    let other = rig.broker.client_connected();
    let slot = rig.broker.session(other).unwrap().take_slot();
    rig.broker.gather(Owner { client: other, slot, user: Some(1001) }, b"6");
    rig.turn();
    assert_eq!(rig.got(other), ["con_delayed"]);
    rig.lose_link();
    let answers = rig.got(greedy);
    assert_eq!(answers, ["con_delayed", "con_delayed", "con_delayed", "con_failed", "con_failed"]);
    rig.come_up();
    assert_eq!(rig.sent(), ["1", "2", "3", "6"]);
}

#[test]
fn a_spool_that_stays_full_is_told_once_a_minute_not_once_a_request() {
    let mut peer = peer();
    peer.spool.messages = 0;
    let mut rig = Rig::with(peer);
    rig.lose_link();
    rig.broker.take_changed();
    let mut told = 0;
    let mut id = rig.program(&["critical:first"]);
    assert!(rig.broker.take_changed());
    for _ in 0..100 {
        id = rig.program(&["critical:again"]);
        told += usize::from(rig.broker.take_changed());
    }
    assert_eq!(rig.got(id), ["con_failed"]);
    assert_eq!(told, 0);
    rig.now.mono += Duration::from_secs(60);
    rig.program(&["critical:again"]);
    assert!(rig.broker.take_changed());
}

#[test]
fn files_are_taken_in_when_it_is_said_that_they_came() {
    let mut rig = Rig::new();
    rig.come_up();
    rig.drop_in("1.msul1", "whole\n");
    let unended = rig.drop_in("2.msul1", "perhaps being written");
    let file = std::fs::File::options().write(true).open(unended).unwrap();
    file.set_modified(rig.now.wall.into()).unwrap();
    rig.turn();
    assert!(rig.sent().is_empty(), "nobody has said that they are there");
    rig.broker.files_came(rig.now);
    rig.wait(0.001);
    assert_eq!(rig.sent(), ["whole"]);
    rig.broker.status(rig.now);
    rig.say(&["ok"]);
    rig.broker.status(rig.now);
    assert_eq!(rig.broker.deadline(), Some(rig.now.mono + Duration::from_secs(5)));
    rig.wait(4.9);
    assert!(rig.sent().is_empty());
    rig.wait(0.1);
    assert_eq!(rig.sent(), ["perhaps being written"]);
}

#[test]
fn a_file_that_is_told_of_while_others_are_taken_in_is_not_forgotten() {
    let mut rig = Rig::new();
    for number in 0..300 {
        rig.drop_in(&format!("{number:03}.msul1"), "one of many\n");
    }
    rig.broker.files_came(rig.now);
    rig.turn();
    assert_eq!(rig.broker.spool.waiting().messages, 256);
    rig.drop_in("999.msul1", "the last\n");
    rig.broker.files_came(rig.now);
    while rig.broker.deadline().is_some_and(|at| at <= rig.now.mono) {
        rig.turn();
        rig.broker.status(rig.now);
    }
    assert_eq!(rig.broker.spool.waiting().messages, 301);
}
