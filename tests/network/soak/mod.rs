//! Long runs, in short here: `scripts/soak` sets how many seconds each takes. The longest story is
//! [`kill9`].

mod field;
mod kill9;
mod mishaps;
mod traffic;

use crate::common::load::Load;
use crate::common::local::Local;
use crate::common::pair::{CALLED, Pair};
use crate::common::{process, wait};
use crate::crashes::check_delivery;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// What `scripts/soak` sets.
const SECONDS: &str = "LONNET_SOAK_SECONDS";

fn until_the_end() -> impl Fn() -> bool {
    let seconds = std::env::var(SECONDS).map_or(3, |text| text.parse().expect("a number of seconds"));
    let end = Instant::now() + Duration::from_secs(seconds);
    move || Instant::now() < end
}

/// Some time between two blows, so that they hit every phase.
fn breathe() {
    wait::let_pass(Duration::from_millis(fastrand::u64(10..400)));
}

#[test]
fn kill_child() {
    let pair = Pair::up();
    let load = Load::start(&pair.host.socket(CALLED), "load");
    let going_on = until_the_end();
    while going_on() {
        breathe();
        for child in pair.lonc.children() {
            process::signal(child, Signal::SIGKILL);
        }
    }
    load.wait_for_more(10);
    check_delivery(&pair, "load", &load.finish());
}

#[test]
fn kill_supervisor() {
    let mut pair = Pair::up();
    let load = Load::start(&pair.host.socket(CALLED), "load");
    let going_on = until_the_end();
    while going_on() {
        breathe();
        pair = pair.kill_and_restart();
    }
    load.wait_for_more(10);
    check_delivery(&pair, "load", &load.finish());
}

#[test]
fn outages() {
    let mut pair = Pair::up();
    let load = Load::start(&pair.host.socket(CALLED), "load");
    let going_on = until_the_end();
    while going_on() {
        breathe();
        if fastrand::bool() {
            pair.fake.cut();
        } else {
            pair.fake.stop();
            breathe();
            pair.fake.listen();
            pair.lonc.signal(Signal::SIGUSR1);
        }
    }
    load.wait_for_more(10);
    pair.dial_now();
    check_delivery(&pair, "load", &load.finish());
}

#[test]
fn restarts() {
    let mut pair = Pair::up();
    let load = Load::start(&pair.host.socket(CALLED), "load");
    let going_on = until_the_end();
    while going_on() {
        breathe();
        pair.lonc.signal(Signal::SIGHUP);
        Local::try_connect(&pair.host.socket(CALLED)).expect("the socket of a peer is always there");
    }
    load.wait_for_more(10);
    pair.lonc.assert_running();
    check_delivery(&pair, "load", &load.finish());
}

#[test]
fn churn() {
    let pair = Pair::up();
    let going_on = until_the_end();
    let socket = pair.host.socket(CALLED);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (socket, going_on) = (&socket, &going_on);
            scope.spawn(move || {
                let mut number = 0_u64;
                while going_on() {
                    let request = format!("echo:{worker}-{number}");
                    assert_eq!(Local::connect(socket).ask(&request), request);
                    number += 1;
                }
            });
        }
    });
    wait::until_true("no client to be left", || {
        pair.host.status(CALLED).is_some_and(|status| status["clients"] == 0)
    });
    let memory = process::peak_memory(pair.lonc.only_child()).expect("the child lives");
    assert!(memory < 64 << 10, "{memory} KiB");
}
