//! How a link child ends: what it still answers, what it stores.

use super::*;
use wire::secure::put_not_taken;

#[test]
fn a_drain_answers_what_is_there_and_is_over_when_all_is_written() {
    let mut rig = Rig::new();
    rig.come_up();
    let busy = rig.program(&["a"]);
    let idle = rig.program(&[]);
    rig.broker.drain(rig.now);
    rig.turn();
    assert!(!rig.broker.accepts() && !rig.broker.over());
    assert!(rig.broker.session(idle).unwrap().finished());
    rig.broker.client_gone(idle);
    rig.say(&["A"]);
    assert!(rig.took(&Effect::HangUp) && !rig.broker.over());
    assert_eq!(rig.got(busy), ["A"]);
    assert!(rig.broker.session(busy).unwrap().finished());
    rig.broker.client_gone(busy);
    rig.turn();
    assert!(rig.broker.over());
}

#[test]
fn a_drain_with_files_to_be_taken_in_waits_rather_than_turns() {
    let mut rig = Rig::new();
    rig.come_up();
    rig.program(&["a"]);
    rig.broker.files_came(rig.now);
    rig.broker.drain(rig.now);
    rig.turn();
    rig.broker.status(rig.now);
    assert!(rig.broker.deadline().is_some_and(|at| at > rig.now.mono), "the files are the next child's");
}

#[test]
fn a_drain_s_end_stores_what_is_critical_and_does_not_wait_for_a_program_that_reads_nothing() {
    let mut rig = Rig::new();
    rig.come_up();
    let id = rig.program(&["plain", "critical:1"]);
    rig.broker.drain(rig.now);
    rig.turn();
    rig.wait(4.9);
    assert!(!rig.broker.over());
    rig.wait(0.2);
    assert!(rig.broker.over());
    assert_eq!(rig.got(id), ["con_lost", "con_delayed"]);
    assert_eq!(rig.broker.spool.waiting().messages, 1);
    rig.broker.status(rig.now);
    assert_eq!(rig.broker.deadline(), None);
}

#[test]
fn a_drain_waits_for_stored_messages_that_are_on_their_way_and_sends_no_more_of_them() {
    let mut rig = Rig::new();
    rig.lose_link();
    let id = rig.program(&["critical:a"; 70]);
    assert_eq!(rig.got(id).len(), 70);
    rig.broker.client_gone(id);
    rig.come_up();
    assert_eq!(rig.sent().len(), 64);
    rig.broker.drain(rig.now);
    rig.turn();
    assert!(!rig.broker.over());
    rig.say(&["ok"; 64]);
    assert!(rig.sent().is_empty() && rig.broker.over());
    assert_eq!(rig.broker.spool.waiting().messages, 6);
}

#[test]
fn a_drain_is_not_over_while_a_request_is_held_back_though_its_program_has_gone() {
    let mut rig = secure::rig();
    rig.come_up_secure();
    rig.program(&["critical:pay:1"]);
    rig.put(|out| put_not_taken(out, 1, "away"));
    (0..held::SUPPLY).for_each(|_| rig.broker.held.spend());
    let gone = rig.program(&["critical:log:a"]);
    assert!(rig.got(gone).is_empty());
    for id in rig.broker.clients() {
        rig.broker.client_gone(id);
    }
    rig.broker.drain(rig.now);
    assert!(!rig.broker.over());
    rig.turn();
    assert!(rig.broker.over());
    assert_eq!(rig.broker.spool.waiting().messages, 2);
}

#[test]
fn close_connection_exit_ends_the_child_at_once_and_stores_what_is_critical() {
    let mut rig = Rig::new();
    rig.come_up();
    let other = rig.program(&["critical:1", "plain"]);
    let id = rig.program(&["close_connection_exit"]);
    rig.turn();
    assert!(rig.broker.over());
    assert_eq!(rig.got(id), ["ok"]);
    assert_eq!(rig.got(other), ["con_delayed", "con_lost"]);
}
