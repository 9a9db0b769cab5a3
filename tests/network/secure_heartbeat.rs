//! Links that are dead although nobody says so: found by the heartbeat, and made anew.

use crate::common::frames;
use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::process;
use crate::common::relay::{Manner, Relay};
use crate::common::secure_lond::{Opening, SecureLond};
use crate::common::secure_pair::{SecurePair, TwoHosts};
use crate::common::wait;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// As configured here; a dead link is found one of them and three more after its last byte.
const HEARTBEAT: Duration = Duration::from_millis(500);
const FOUND_WITHIN: Duration = Duration::from_secs(2);
/// What a busy machine may add.
const BUSY: Duration = Duration::from_secs(15);

fn short_heartbeat(host: &mut Host) {
    let heartbeat = format!("\"{}ms\"", HEARTBEAT.as_millis());
    for section in ["lonc", "lond"] {
        host.set(section, "heartbeat", &heartbeat);
        host.set(section, "heartbeat_missed", "3");
    }
}

fn wait_not_up(host: &Host) {
    wait::until_true("the dead link to be found", || {
        host.status(CALLED).is_some_and(|status| status["state"] != "up")
    });
}

#[test]
fn an_idle_link_is_tried_and_stays() {
    let pair = SecurePair::up_with(short_heartbeat);
    wait::until_true("several tries", || pair.fake.control(frames::PING).len() >= 5);
    assert_eq!(pair.fake.connections(), 1);
    assert_eq!(pair.ask("ping"), CALLED);
}

#[test]
fn a_peer_that_falls_silent_is_found_and_dialled_anew() {
    let pair = SecurePair::prepare(short_heartbeat, |fake| {
        fake.open_with(Opening::Mute);
        fake.listen();
    });
    pair.host.wait_link(CALLED, "up");
    let began = Instant::now();
    pair.fake.open_with(Opening::Serve);
    wait::until_true("another link", || pair.fake.connections() == 2);
    assert!(began.elapsed() < FOUND_WITHIN + BUSY, "it took {:?}", began.elapsed());
    pair.host.wait_link(CALLED, "up");
    assert_eq!(pair.ask("ping"), CALLED);
    let error = pair.host.status(CALLED).expect("a status")["last_error"].to_string();
    assert!(error.contains("nothing heard"), "{error}");
}

#[test]
fn a_lond_whose_processes_are_stopped_is_found_and_is_back_when_they_go_on() {
    let mut both = TwoHosts::new();
    short_heartbeat(&mut both.one);
    let (_lonc, lond) = both.start();
    let stopped = [vec![lond.pid()], lond.children()].concat();
    assert_eq!(stopped.len(), 2);
    let began = Instant::now();
    stopped.iter().for_each(|&pid| process::signal(pid, Signal::SIGSTOP));
    wait_not_up(&both.one);
    let took = began.elapsed();
    assert_eq!(both.one.ask(CALLED, "critical:do:later"), "con_delayed");
    stopped.iter().for_each(|&pid| process::signal(pid, Signal::SIGCONT));
    assert!(took < FOUND_WITHIN + BUSY, "it took {took:?}");
    both.one.wait_link(CALLED, "up");
    assert_eq!(both.one.ask(CALLED, "ping"), CALLED);
    wait::until_true("the message", || both.counter.done() == ["do:later"]);
}

#[test]
fn a_link_whose_packets_are_dropped_is_found_at_both_ends() {
    let mut both = TwoHosts::new();
    let relay = Relay::before(both.other.address);
    both.one.set("host.msul1", "address", &format!("\"{}\"", relay.address()));
    short_heartbeat(&mut both.one);
    short_heartbeat(&mut both.other);
    let (_lonc, lond) = both.start();
    let child = lond.only_child();
    let began = Instant::now();
    relay.do_this(Manner::Swallow);
    wait_not_up(&both.one);
    assert!(began.elapsed() < FOUND_WITHIN + BUSY, "the caller took {:?}", began.elapsed());
    wait::until_true("lond's child to end", || !process::alive(child));
    assert!(began.elapsed() < FOUND_WITHIN + BUSY, "the called side took {:?}", began.elapsed());
    assert_eq!(both.one.ask(CALLED, "ping"), "con_lost");
    relay.do_this(Manner::Pass);
    relay.cut();
    _lonc.signal(Signal::SIGUSR1);
    both.one.wait_link(CALLED, "up");
    assert_eq!(both.one.ask(CALLED, "ping"), CALLED);
}

#[test]
fn usr1_finds_a_link_whose_packets_are_dropped_before_the_heartbeat_would() {
    let network = Network::secure(&[CALLER, CALLED]);
    let mut host = network.host(CALLER);
    let mut fake = SecureLond::away(CALLED, network.key(CALLED), network.address(CALLED));
    fake.listen();
    let relay = Relay::before(network.address(CALLED));
    host.set("host.msul1", "address", &format!("\"{}\"", relay.address()));
    let lonc = host.lonc();
    host.wait_link(CALLED, "up");
    relay.do_this(Manner::Swallow);
    let began = Instant::now();
    lonc.signal(Signal::SIGUSR1);
    wait_not_up(&host);
    // The default heartbeat would find it after a minute.
    assert!(began.elapsed() < Duration::from_secs(30), "it took {:?}", began.elapsed());
}

#[test]
fn a_host_that_accepts_and_says_nothing_is_given_up_at_each_step_and_dialled_again() {
    let pair = SecurePair::prepare(
        |host| {
            host.set("lonc", "opening_timeout", "\"500ms\"");
        },
        |fake| {
            fake.open_with(Opening::SilentTcp);
            fake.listen();
        },
    );
    wait::until_true("two calls", || pair.fake.connections() >= 2);
    pair.fake.open_with(Opening::SilentTls);
    let before = pair.fake.connections();
    wait::until_true("two more calls", || pair.fake.connections() >= before + 2);
    assert_eq!(pair.ask("ping"), "con_lost");
    pair.fake.open_with(Opening::Serve);
    wait::until_true("the link", || {
        pair.lonc.signal(Signal::SIGUSR1);
        pair.host.status(CALLED).is_some_and(|status| status["state"] == "up")
    });
    assert_eq!(pair.ask("ping"), CALLED);
}
