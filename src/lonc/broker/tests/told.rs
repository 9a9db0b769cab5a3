//! What the supervisor is told, and when.

use super::*;
use crate::broker::away::HOLD_AFTER;
use wire::secure::{put_go_away, put_not_taken};

/// A rig whose link is never dialled, so that nothing but the spool has news.
fn still() -> Rig {
    let mut rig = Rig::barred(peer(), Some("no pin"));
    rig.wait(2.0);
    rig.broker.status(rig.now);
    rig.broker.take_changed();
    rig
}

impl Rig {
    /// Requests that were answered, and that were lost.
    fn counted(&mut self) -> (u64, u64) {
        let told = self.broker.status(self.now);
        (told.done, told.lost)
    }
}

#[test]
fn counters_that_changed_are_told_a_quarter_of_a_second_after_the_last_report() {
    let mut rig = still();
    assert_eq!(rig.broker.deadline(), None);
    let reported = rig.now.mono;
    rig.wait(0.1);
    rig.program(&["critical:1"]);
    assert!(!rig.broker.take_changed());
    assert_eq!(rig.broker.deadline(), Some(reported + Duration::from_millis(250)));
    rig.wait(0.15);
    assert!(rig.broker.take_changed());
    assert_eq!(rig.broker.status(rig.now).delayed, 1);
    rig.wait(10.0);
    assert!(!rig.broker.take_changed(), "nothing has changed");
    assert_eq!(rig.broker.deadline(), None);
}

#[test]
fn the_last_error_is_the_later_one_of_the_link_s_and_the_spool_s() {
    let mut peer = peer();
    peer.spool.messages = 0;
    let mut rig = Rig::with(peer);
    rig.lose_link();
    let error = |rig: &mut Rig| rig.broker.status(rig.now).last_error.unwrap();
    assert_eq!(error(&mut rig), "test");
    rig.now.mono += Duration::from_millis(1);
    rig.program(&["critical:1"]);
    let spool = error(&mut rig);
    assert_ne!(spool, "test");
    rig.wait(61.0);
    assert_eq!(error(&mut rig), spool);
    rig.lose_link();
    assert_eq!(error(&mut rig), "test");
}

#[test]
fn an_error_from_before_the_link_came_up_is_past_but_not_while_the_child_drains() {
    let mut rig = Rig::new();
    rig.lose_link();
    assert!(!rig.broker.status(rig.now).last_error_past);
    rig.come_up();
    assert!(rig.broker.status(rig.now).last_error_past);
    rig.broker.drain(rig.now);
    assert!(!rig.broker.status(rig.now).last_error_past);
}

#[test]
fn only_the_secure_wire_is_told_to_be_private() {
    let told = |rig: &mut Rig| rig.broker.status(rig.now);
    let (classic, secure) = (told(&mut Rig::new()), told(&mut secure::rig()));
    assert_eq!((&*classic.wire, classic.private), ("classic", false));
    assert_eq!((&*secure.wire, secure.private), ("secure", true));
}

#[test]
fn the_link_is_dialled_then_up_then_neither_and_its_dialling_is_told() {
    let mut rig = secure::rig();
    assert!(rig.broker.is_dialling() && !rig.broker.link_is_up());
    let before = rig.broker.status(rig.now).doing;
    rig.broker.link_reached(rig.now);
    assert!(rig.broker.is_dialling());
    assert_ne!(rig.broker.status(rig.now).doing, before, "the tunnel is waited for now");
    rig.come_up_secure();
    assert!(!rig.broker.is_dialling() && rig.broker.link_is_up());
    rig.lose_link();
    assert!(!rig.broker.is_dialling() && !rig.broker.link_is_up());
}

#[test]
fn what_is_answered_is_done_and_what_is_not_is_lost_unless_it_is_stored() {
    let mut rig = Rig::new();
    rig.come_up();
    let id = rig.program(&["a", "critical:b"]);
    rig.say(&["A", "B"]);
    assert_eq!((rig.got(id).len(), rig.counted()), (2, (2, 0)));
    rig.ask(id, &["a", "critical:b"]);
    rig.lose_link();
    assert_eq!((rig.got(id).len(), rig.counted()), (2, (2, 1)));
    rig.ask(id, &["with the link down", "critical:c"]);
    assert_eq!((rig.got(id).len(), rig.counted()), (2, (2, 2)));
    rig.ask(id, &["critical:"]);
    assert_eq!((rig.got(id).len(), rig.counted()), (1, (2, 3)));
    rig.come_up();
    assert_eq!(rig.sent(), ["b", "c"]);
    rig.say(&["B", "refused"]);
    assert_eq!(rig.counted(), (3, 3), "one was delivered, the other set aside");
    rig.ask(id, &["slow", "slow", "critical:slow"]);
    rig.wait(300.0);
    assert_eq!((rig.got(id).len(), rig.counted()), (3, (3, 5)));
}

#[test]
fn what_finds_no_room_in_the_spool_is_lost() {
    let mut peer = peer();
    peer.spool.messages = 1;
    let mut rig = Rig::with(peer);
    rig.lose_link();
    let id = rig.program(&["critical:1", "critical:2"]);
    assert_eq!((rig.got(id), rig.counted()), (vec!["con_delayed".into(), "con_failed".into()], (0, 1)));
}

#[test]
fn what_a_leaving_peer_will_not_run_is_lost_unless_it_is_stored() {
    let mut rig = secure::rig();
    rig.come_up_secure();
    let id = rig.program(&["a", "b", "b", "critical:c"]);
    rig.put(|out| put_go_away(out, 1));
    rig.reply(1, "A");
    assert_eq!((rig.got(id).len(), rig.counted()), (4, (1, 2)));
}

#[test]
fn what_is_not_taken_is_lost_unless_it_is_stored() {
    let mut rig = secure::rig();
    rig.come_up_secure();
    let id = rig.program(&["critical:pay:1"]);
    rig.put(|out| put_not_taken(out, 1, "away"));
    assert_eq!((rig.got(id), rig.counted()), (vec!["con_delayed".into()], (0, 0)));
    // No peer of ours says it of what is not critical.
    rig.ask(id, &["plain"]);
    rig.put(|out| put_not_taken(out, 2, "away"));
    assert_eq!((rig.got(id), rig.counted()), (vec!["con_lost".into()], (0, 1)));

    let mut rig = secure::rig();
    rig.come_up_secure();
    let id = rig.program(&["critical:pay:1"]);
    rig.spoil_spool();
    rig.put(|out| put_not_taken(out, 1, "away"));
    assert_eq!((rig.got(id), rig.counted()), (vec!["con_failed".into()], (0, 1)));
}

#[test]
fn what_is_newer_than_one_in_flight_that_cannot_be_stored_is_lost() {
    let mut peer = peer();
    peer.wire = WireKind::Secure;
    peer.spool.messages = 1;
    let mut rig = Rig::with(peer);
    rig.come_up_secure();
    rig.program(&["critical:pay:1"]);
    rig.put(|out| put_not_taken(out, 1, "away"));
    rig.wait(HOLD_AFTER.as_secs_f64());
    let live = rig.program(&["critical:log:a"]);
    assert!(rig.got(live).is_empty(), "it is in flight");
    let newer = rig.program(&["critical:pay:2"]);
    assert_eq!((rig.got(newer), rig.counted().1), (vec!["con_failed".into()], 1));
    assert!(rig.got(live).is_empty());
}
