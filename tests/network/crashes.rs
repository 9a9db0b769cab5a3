//! `kill -9` of children and supervisors, under load.

use crate::common::load::{Load, all_arrived, assert_all_arrived};
use crate::common::local::Local;
use crate::common::pair::{CALLED, Pair};
use crate::common::{process, wait};
use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicBool, Ordering};

/// Waits until what was acknowledged has arrived, and checks its order.
pub fn check_delivery(pair: &Pair, name: &str, acknowledged: &[u64]) {
    assert!(!acknowledged.is_empty(), "nothing was acknowledged");
    let prefix = format!("log:{name}-");
    wait::until_true("everything acknowledged to arrive", || {
        all_arrived(name, acknowledged, &pair.fake.received(&prefix))
    });
    assert_all_arrived(name, acknowledged, &pair.fake.received(&prefix));
}

#[test]
fn a_child_that_is_killed_is_replaced_and_the_socket_was_never_away() {
    let pair = Pair::up();
    let socket = pair.host.socket(CALLED);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            let mut connections = 0;
            while !stop.load(Ordering::SeqCst) {
                Local::try_connect(&socket).expect("the socket of a peer is always there");
                connections += 1;
            }
            connections
        });
        for _ in 0..3 {
            let child = pair.lonc.only_child();
            process::signal(child, Signal::SIGKILL);
            wait::until_true(
                "another child",
                || matches!(pair.lonc.children()[..], [other] if other != child),
            );
            pair.host.wait_link(CALLED, "up");
        }
        stop.store(true, Ordering::SeqCst);
        assert!(connecting.join().expect("the connecting client") > 0);
    });
    wait::until_true("requests to be served", || pair.ask("ping") == "msul1");
    assert!(process::zombies(pair.lonc.pid()).is_empty());
}

#[test]
fn a_client_that_connects_while_the_child_is_dead_is_served_by_the_next() {
    let pair = Pair::up();
    let child = pair.lonc.only_child();
    // Stopped, it accepts nothing; the client waits in the backlog of the socket.
    process::signal(child, Signal::SIGSTOP);
    let mut client = pair.host.connect(CALLED);
    client.send(b"critical:log:from the backlog\n");
    process::signal(child, Signal::SIGKILL);
    let answer = client.answer();
    assert!(answer == "ok" || answer == "con_delayed", "{answer}");
    pair.fake.wait_received("log:from the backlog", 1);
}

#[test]
fn a_child_killed_under_load_loses_nothing_that_was_acknowledged() {
    let pair = Pair::up();
    let load = Load::start(&pair.host.socket(CALLED), "load");
    for _ in 0..5 {
        load.wait_for_more(50);
        if let Some(&child) = pair.lonc.children().first() {
            process::signal(child, Signal::SIGKILL);
        }
    }
    load.wait_for_more(50);
    check_delivery(&pair, "load", &load.finish());
}

#[test]
fn a_supervisor_killed_under_load_loses_nothing_that_was_acknowledged_and_leaves_no_child() {
    let mut pair = Pair::up();
    let load = Load::start(&pair.host.socket(CALLED), "load");
    for _ in 0..3 {
        load.wait_for_more(50);
        let children = pair.lonc.children();
        pair = pair.kill_and_restart();
        wait::until_true("the orphans to end", || children.iter().all(|&child| !process::alive(child)));
    }
    load.wait_for_more(50);
    check_delivery(&pair, "load", &load.finish());
}

#[test]
fn outages_under_load_lose_nothing_that_was_acknowledged() {
    let mut pair = Pair::up();
    let load = Load::start(&pair.host.socket(CALLED), "load");
    for round in 0..4 {
        load.wait_for_more(50);
        if round % 2 == 0 {
            pair.fake.cut();
        } else {
            pair.fake.stop();
            load.wait_for_more(50);
            pair.come_back();
        }
    }
    load.wait_for_more(50);
    check_delivery(&pair, "load", &load.finish());
}

#[test]
fn everything_killed_at_once_while_messages_wait_loses_nothing_that_was_acknowledged() {
    let mut pair = Pair::down();
    let load = Load::start(&pair.host.socket(CALLED), "load");
    for _ in 0..3 {
        load.wait_for_more(20);
        for child in pair.lonc.children() {
            process::signal(child, Signal::SIGKILL);
        }
        pair = pair.kill_and_restart();
    }
    load.wait_for_more(20);
    pair.come_back();
    check_delivery(&pair, "load", &load.finish());
}
