//! What the programs have of the broker together: who is taken, read, heard for, and given up.

use super::*;
use crate::session::ALWAYS;
use crate::sessions::{Admission, MAX_OF_USER};
use base::Credentials;

/// An answer of which a hundred are more than a program may leave unread.
fn big() -> String {
    "x".repeat(50_000)
}

#[test]
fn programs_are_counted_by_the_user_whose_they_are() {
    let mut rig = Rig::new();
    let ids: Vec<_> = (0..MAX_OF_USER).map(|_| rig.broker.client_connected()).collect();
    ids.iter().for_each(|id| rig.broker.client_belongs(*id, Credentials::of_user(1000)));
    assert!(matches!(rig.broker.admit(1000), Admission::InPlaceOf(_)));
    assert_eq!(rig.broker.admit(1001), Admission::Welcome);
}

#[test]
fn the_program_that_may_go_is_one_that_is_owed_nothing() {
    let mut rig = Rig::new();
    rig.come_up();
    assert_eq!(rig.broker.idlest_client(), None);
    let first = rig.program(&[]);
    rig.wait(0.1);
    let second = rig.program(&[]);
    assert_eq!(rig.broker.idlest_client(), Some(first));
    rig.ask(first, &["waits"]);
    assert_eq!(rig.broker.idlest_client(), Some(second));
}

#[test]
fn a_program_is_read_as_far_as_there_is_room_and_again_when_there_is_some() {
    // The first dial has not ended, so that no line is taken.
    let mut rig = Rig::new();
    for user in [1, 2] {
        let id = rig.program(&[]);
        rig.broker.client_belongs(id, Credentials::of_user(user));
        let room = rig.broker.may_read(id);
        assert!(room > 4_000_000, "{room}");
        rig.broker.client_sent(id, &b"line of ten\n".repeat(room / 12 + 1));
    }
    let [long, other] = [3, 4].map(|user| {
        let id = rig.program(&[]);
        rig.broker.client_belongs(id, Credentials::of_user(user));
        assert_eq!(rig.broker.may_read(id), ALWAYS);
        rig.broker.client_sent(id, &[b'x'; ALWAYS]);
        id
    });
    assert!(rig.broker.may_read(long) > ALWAYS, "one may go on to the end of its line");
    assert_eq!(rig.broker.may_read(other), 0);
    rig.broker.client_gone(long);
    assert_eq!(rig.broker.take_fed(), [other]);
}

#[test]
fn a_program_that_reads_its_answers_is_served_again() {
    let mut rig = Rig::new();
    rig.come_up();
    let id = rig.program(&["big"; 100]);
    let sent = rig.sent();
    rig.say(&vec![&*big(); sent.len()]);
    rig.ask(id, &["next"]);
    assert!(rig.sent().is_empty(), "too much waits to be read");
    assert_eq!(rig.got(id).len(), 100);
    assert_eq!(rig.sent(), ["next"]);
}

#[test]
fn programs_that_leave_no_room_for_the_answers_of_others_are_given_up() {
    let mut rig = Rig::new();
    rig.come_up();
    assert!(rig.broker.hears());
    let deaf = [rig.program(&["big"; 300]), rig.program(&["big"; 300])];
    let sent = rig.sent();
    rig.say(&vec![&*big(); sent.len()]);
    assert!(!rig.broker.hears());
    assert!(deaf.iter().all(|id| !rig.broker.session(*id).unwrap().finished()));
    assert!(rig.broker.deadline().is_some_and(|at| at <= rig.now.mono + Duration::from_secs(2)));
    rig.wait(2.0);
    assert!(deaf.iter().all(|id| rig.broker.session(*id).unwrap().finished()));
    assert!(rig.broker.hears());
}

#[test]
fn no_more_requests_are_in_flight_than_may_be_though_a_turn_takes_many() {
    let mut rig = Rig::new();
    rig.come_up();
    for user in 0..80 {
        rig.program_of(user, &["many"; 100]);
    }
    assert_eq!(rig.broker.pending.len(), 4096);
}

#[test]
fn a_program_that_sends_its_lines_one_by_one_has_no_more_turns_than_another() {
    let mut rig = Rig::new();
    rig.come_up();
    let greedy = rig.broker.client_connected();
    for _ in 0..200 {
        rig.broker.client_sent(greedy, b"flood\n");
    }
    let modest = rig.broker.client_connected();
    rig.broker.client_sent(modest, b"modest\n");
    rig.turn();
    let place = rig.sent().iter().position(|line| line == "modest");
    assert_eq!(place, Some(serving::QUANTUM));
}

#[test]
fn a_user_with_many_programs_has_no_more_turns_than_one_with_a_single_one() {
    let mut rig = Rig::new();
    rig.come_up();
    for _ in 0..20 {
        let greedy = rig.broker.client_connected();
        rig.broker.client_belongs(greedy, Credentials::of_user(1000));
        rig.broker.client_sent(greedy, &b"flood\n".repeat(100));
    }
    for user in 1001..1011 {
        let polite = rig.broker.client_connected();
        rig.broker.client_belongs(polite, Credentials::of_user(user));
        rig.broker.client_sent(polite, b"polite\n");
    }
    rig.turn();
    let sent = rig.sent();
    assert_eq!(sent.iter().rposition(|line| line == "polite"), Some(serving::QUANTUM + 9));
}

#[test]
fn beside_others_a_user_has_few_requests_in_flight_and_alone_it_leaves_room() {
    let mut rig = Rig::new();
    rig.come_up();
    let greedy: Vec<_> = (0..50).map(|_| rig.program_of(1000, &[])).collect();
    let flood = vec!["flood"; 100];
    for id in &greedy {
        rig.ask(*id, &flood);
    }
    assert_eq!(rig.sent().len(), 3072, "alone");
    let polite = rig.program_of(1001, &["polite"]);
    assert_eq!(rig.sent(), ["polite"], "it has room at once");
    // From now on what is answered makes no room for the greedy one until few are in flight.
    rig.say(&vec!["ok"; 3072]);
    let sent = rig.sent();
    assert_eq!(sent, vec!["flood"; rivals::MOST]);
    let mut floods = 3072 + rivals::MOST;
    for _ in 0..3 {
        rig.say(&["ok"; 10]);
        rig.ask(polite, &["polite"]);
        let sent = rig.sent();
        let place = sent.iter().position(|line| line == "polite");
        assert!(place.is_some_and(|place| place <= rivals::MOST), "{sent:?}");
        assert!(sent.len() <= 11, "as many as were answered, and the polite one's: {sent:?}");
        floods += sent.len() - 1;
    }
    // The polite one is silent: the deadline is when it counts no longer.
    let deadline = rig.broker.deadline().unwrap();
    assert!(deadline <= rig.now.mono + Duration::from_secs(1));
    rig.wait(1.0);
    assert_eq!(floods + rig.sent().len(), 50 * 100, "all that waited");
}

#[test]
fn a_program_with_long_lines_has_no_longer_turns_than_one_with_short_ones() {
    let mut rig = Rig::new();
    rig.come_up();
    let long = "x".repeat(serving::QUANTUM_BYTES / 2);
    let greedy = rig.broker.client_connected();
    rig.broker.client_sent(greedy, format!("{long}\n").repeat(10).as_bytes());
    let modest = rig.broker.client_connected();
    rig.broker.client_sent(modest, b"modest\n");
    rig.turn();
    let place = rig.sent().iter().position(|line| line == "modest");
    assert_eq!(place, Some(3));
}

#[test]
fn of_many_answers_that_come_together_a_program_is_written_to_once_and_weighed_when_all_are_there() {
    let mut rig = Rig::new();
    rig.come_up();
    let ids = [rig.program(&["a"; 40]), rig.program(&["b"; 24])];
    assert_eq!(rig.sent().len(), 64);
    let answers = ["answer"; 64].join("\n") + "\n";
    rig.broker.link_received(answers.as_bytes(), rig.now);
    let mut touched = Vec::new();
    rig.broker.take_touched(&mut touched);
    assert_eq!(touched, ids);
    let unread = |rig: &mut Rig| ids.map(|id| rig.broker.session(id).unwrap().weighed.1);
    assert_eq!(unread(&mut rig), [40 * 7, 24 * 7]);
    touched.clear();
    rig.broker.take_touched(&mut touched);
    assert!(touched.is_empty());
    // Each may be written to again.
    rig.ask(ids[1], &["c"]);
    rig.broker.link_received(b"another\n", rig.now);
    rig.broker.take_touched(&mut touched);
    assert_eq!(touched, [ids[1]]);
}
