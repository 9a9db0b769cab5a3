//! Two real hosts, each with its `lonc` and its `lond`.

use crate::common::fake_lond::{FakeLond, Fault, Step};
use crate::common::handler;
use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::wait;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

fn two() -> (Network, Host, Host) {
    let network = Network::new(&[CALLER, CALLED]);
    let (one, other) = (network.host(CALLER), network.host(CALLED));
    (network, one, other)
}

#[test]
fn both_hosts_ask_each_other_and_pong_asks_back() {
    let (_network, one, other) = two();
    let (_lond_one, _lond_other) = (one.lond(), other.lond());
    let (_lonc_one, _lonc_other) = (one.lonc(), other.lonc());
    one.wait_link(CALLED, "up");
    other.wait_link(CALLER, "up");
    assert_eq!(one.ask(CALLED, "ping"), CALLED);
    assert_eq!(other.ask(CALLER, "ping"), CALLER);
    assert_eq!(one.ask(CALLED, "pong"), "msul1:msua1");
    assert_eq!(other.ask(CALLER, "encrypt:pong"), "msua1:msul1");
    assert_eq!(one.ask(CALLED, "encrypt:log:a secret"), "ok");
    wait::until_true("the text in the other's log", || {
        other.log("lond.log").lines().any(|line| line.contains("a secret") && line.contains(CALLER))
    });
    assert_eq!(one.ask(CALLED, "unheard_of"), "unknown_cmd");
}

#[test]
fn a_handler_is_reached_through_both_programs_in_clear_and_enciphered() {
    let (_network, one, mut other) = two();
    let socket = other.handler("echo");
    let _program = handler::Program::echo(&socket);
    let _lond = other.lond();
    let _lonc = one.lonc();
    one.wait_link(CALLED, "up");
    let mut client = one.connect(CALLED);
    for number in 0..2000 {
        let prefix = if number % 2 == 0 { "" } else { "encrypt:" };
        client.send(format!("{prefix}echo:{number}\n").as_bytes());
    }
    for number in 0..2000 {
        assert_eq!(client.answer(), format!("echo:{number}"));
    }
    let long = format!("echo:{}", "x".repeat(200_000));
    assert_eq!(client.ask(&format!("encrypt:{long}")), long);
}

#[test]
fn what_was_delayed_while_a_host_was_away_is_in_its_log_in_order() {
    let (_network, one, other) = two();
    let _lonc = one.lonc();
    one.wait_link(CALLED, "down");
    for number in 0..50 {
        assert_eq!(one.ask(CALLED, &format!("critical:log:delayed message {number:02}")), "con_delayed");
    }
    let _lond = other.lond();
    _lonc.signal(Signal::SIGUSR1);
    let texts = || -> Vec<String> {
        let log = other.log("lond.log");
        let found = log.lines().filter_map(|line| line.split_once("delayed message "));
        found.map(|(_, number)| number.chars().take(2).collect()).collect()
    };
    wait::until_true("fifty texts in the log", || texts().len() >= 50);
    assert_eq!(texts(), (0..50).map(|number| format!("{number:02}")).collect::<Vec<_>>());
}

#[test]
fn lond_tells_lonc_when_a_host_that_was_away_connects() {
    let (network, one, other) = two();
    let _lond_one = one.lond();
    // In the place of the other host, something that closes: the pauses between attempts grow to
    // seconds.
    let closing = FakeLond::start(CALLED, CALLER, network.address(CALLED));
    closing.fail_at(Step::Init, Fault::Close);
    let _lonc_one = one.lonc();
    wait::until_true("five attempts", || closing.connections() >= 5);
    one.wait_link(CALLED, "down");
    drop(closing);
    let _lond_other = other.lond();
    let started = Instant::now();
    let _lonc_other = other.lonc();
    other.wait_link(CALLER, "up");
    one.wait_link(CALLED, "up");
    assert!(started.elapsed() < Duration::from_secs(3), "it took {:?}", started.elapsed());
    assert_eq!(one.ask(CALLED, "ping"), CALLED);
}

#[test]
fn lon_says_what_happened_in_its_exit_code() {
    let (_network, one, other) = two();
    let lond = other.lond();
    let _lonc = one.lonc();
    one.wait_link(CALLED, "up");
    let code = |arguments: &[&str]| one.lon(arguments).status.code();
    let reply = one.lon(&["reply", CALLED, "ping"]);
    assert_eq!((reply.status.code(), reply.stdout.as_slice()), (Some(0), &b"msul1\n"[..]), "{reply:?}");
    assert_eq!(code(&["critical", CALLED, "log:hello"]), Some(0));
    assert_eq!(code(&["reply", CALLED, "unheard_of"]), Some(6));
    assert_eq!(code(&["reply"]), Some(2));
    assert_eq!(code(&["reply", "nobody", "ping"]), Some(1));
    lond.stop();
    one.wait_link(CALLED, "down");
    assert_eq!(code(&["reply", CALLED, "ping"]), Some(3));
    assert_eq!(code(&["critical", CALLED, "log:later"]), Some(4));
    let table = String::from_utf8_lossy(&one.lon(&["status"]).stdout).into_owned();
    let line = table.lines().find(|line| line.contains(CALLED)).expect("a line for the peer");
    assert!(line.contains("down") && line.contains("not private"), "{table}");
}
