//! When the link is dialled, given up and counted as away.

use super::*;

#[test]
fn programs_wait_for_the_first_dial_but_not_for_long() {
    let mut rig = Rig::new();
    let id = rig.program(&["early"]);
    assert!(rig.got(id).is_empty());
    rig.come_up();
    assert_eq!(rig.sent(), ["early"]);

    let mut rig = Rig::new();
    let id = rig.program(&["early", "critical:early"]);
    rig.wait(1.0);
    assert_eq!(rig.got(id), ["con_lost", "con_delayed"], "the dial hangs");

    let mut rig = Rig::new();
    let id = rig.program(&["early"]);
    rig.lose_link();
    assert_eq!(rig.got(id), ["con_lost"], "the dial failed");
}

#[test]
fn an_outage_is_as_old_as_the_loss_of_the_link_however_often_it_is_dialled_meanwhile() {
    let mut rig = Rig::new();
    rig.come_up();
    rig.wait(10.0);
    rig.lose_link();
    let lost = rig.now.wall;
    for _ in 0..5 {
        rig.wait(61.0);
        assert!(rig.took(&Effect::Dial));
        assert_eq!(rig.broker.status(rig.now).since, lost, "while it dials");
        rig.lose_link();
        assert_eq!(rig.broker.status(rig.now).since, lost, "between two dials");
    }
    rig.come_up();
    assert_eq!(rig.broker.status(rig.now).since, rig.now.wall);
}

#[test]
fn what_is_told_of_an_outage_is_as_long_ago_as_it_was_however_the_clock_is_set() {
    let mut rig = Rig::new();
    rig.come_up();
    rig.lose_link();
    rig.wait(0.1);
    let true_clock = rig.now.wall;
    for years in [20, -60, 0] {
        rig.now.wall = true_clock + jiff::SignedDuration::from_hours(years * 365 * 24);
        let told = rig.broker.status(rig.now);
        for time in [Some(told.since), told.last_error_at] {
            assert_eq!(rig.now.wall.duration_since(time.unwrap()), jiff::SignedDuration::from_millis(100));
        }
    }
}

#[test]
fn a_peer_that_answers_nothing_is_given_up_after_twice_the_request_timeout() {
    let mut rig = Rig::new();
    rig.come_up();
    let id = rig.program(&["a"]);
    rig.wait(300.0);
    assert_eq!(rig.got(id), ["con_lost"]);
    assert!(rig.broker.link.is_up());
    assert_eq!(rig.broker.deadline(), Some(rig.now.mono + Duration::from_secs(300)));
    rig.wait(300.0);
    assert!(!rig.broker.link.is_up() && rig.took(&Effect::HangUp));
}

#[test]
fn a_heartbeat_that_is_answered_keeps_the_link_and_one_that_is_not_ends_it() {
    let mut rig = Rig::new();
    rig.come_up();
    rig.broker.probe(rig.now);
    rig.broker.probe(rig.now);
    assert_eq!(rig.sent(), ["ping"]);
    rig.say(&["msul1"]);
    rig.wait(10.0);
    assert!(rig.broker.link.is_up());
    rig.broker.probe(rig.now);
    rig.wait(4.9);
    assert!(rig.broker.link.is_up());
    rig.wait(0.2);
    assert!(!rig.broker.link.is_up());
}

#[test]
fn usr1_dials_a_link_that_waits_for_its_next_dial_at_once() {
    let mut rig = Rig::new();
    for _ in 0..10 {
        rig.took(&Effect::Dial);
        rig.lose_link();
        rig.wait(61.0);
    }
    rig.lose_link();
    rig.took(&Effect::Dial);
    rig.broker.probe(rig.now);
    rig.turn();
    assert!(rig.took(&Effect::Dial));
    rig.lose_link();
    let next = rig.broker.link.deadline().unwrap();
    assert!(next <= rig.now.mono + Duration::from_millis(500), "the pauses begin with the shortest again");
}

#[test]
fn pauses_between_dials_double_from_half_a_second_to_a_minute_with_jitter() {
    let mut rig = Rig::new();
    rig.took(&Effect::Dial);
    let mut bases = Vec::new();
    for base in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] {
        rig.lose_link();
        let pause = rig.broker.link.deadline().unwrap().duration_since(rig.now.mono).as_secs_f64();
        assert!((base / 2.0..=base).contains(&pause), "{pause} of {base}");
        bases.push(pause / base);
        rig.wait(pause);
        assert!(rig.took(&Effect::Dial));
    }
    assert!(bases.iter().any(|part| (part - bases[0]).abs() > 0.02), "no jitter: {bases:?}");
}

#[test]
fn each_step_of_dialling_has_its_deadline() {
    let mut rig = Rig::new();
    rig.wait(20.0);
    assert!(rig.took(&Effect::HangUp), "connecting");
    rig.wait(1.0);
    rig.broker.link_connected(rig.now);
    for answer in ["123", "ok", "ok", "version:1", "msul1:x"] {
        rig.wait(19.9);
        assert!(!rig.took(&Effect::HangUp), "{answer}");
        rig.say(&[answer]);
    }
    rig.wait(20.0);
    assert!(rig.took(&Effect::HangUp), "ekey");
    let error = rig.broker.status(rig.now).last_error.unwrap();
    assert!(error.contains("ekey"), "{error}");
}

#[test]
fn a_host_that_cannot_be_spoken_with_is_never_dialled_and_its_critical_messages_are_kept() {
    let mut rig = Rig::barred(peer(), Some("no pin"));
    let id = rig.program(&["plain", "critical:1"]);
    rig.broker.probe(rig.now);
    rig.wait(100.0);
    assert_eq!(rig.got(id), ["con_lost", "con_delayed"]);
    assert!(!rig.took(&Effect::Dial));
    assert_eq!(rig.broker.status(rig.now).last_error.as_deref(), Some("no pin"));
    assert!(rig.dir.path().exists());
}

#[test]
fn nothing_to_do_means_no_deadline() {
    let mut rig = Rig::new();
    rig.come_up();
    rig.wait(2.0);
    rig.broker.status(rig.now);
    assert_eq!(rig.broker.deadline(), None);
}
