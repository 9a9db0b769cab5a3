//! What the original is known to fail, each row of the table in `docs/wire.md` a test, at both ends
//! where it has two.
//!
//! "HUP works only the first time" and "a timeout kills the child" have their tests in `restarts`
//! and `timeouts` for `lonc`, and here for `lond`.

use crate::common::caller::Caller;
use crate::common::network::Network;
use crate::common::pair::{CALLED, CALLER, Pair};
use crate::common::{process, wait};
use nix::sys::signal::Signal;
use std::fs;
use std::time::Duration;

#[test]
fn a_client_that_shuts_its_writing_half_gets_every_answer_and_then_the_end() {
    let pair = Pair::up();
    for request in ["ping", "echo:hello", "critical:log:hello", "encrypt:ping"] {
        let mut client = pair.host.connect(CALLED);
        client.send(format!("{request}\n").as_bytes());
        client.finish();
        assert!(["msul1", "echo:hello", "ok"].contains(&client.answer().as_str()));
        assert_eq!(client.try_answer().expect("the end"), None);
    }
    let mut client = pair.host.connect(CALLED);
    client.send("echo:many\n".repeat(500).as_bytes());
    client.finish();
    for _ in 0..500 {
        assert_eq!(client.answer(), "echo:many");
    }
    assert_eq!(client.try_answer().expect("the end"), None);
}

#[test]
fn a_half_closed_client_gets_its_answers_while_the_host_is_away_too() {
    let pair = Pair::down();
    let mut client = pair.host.connect(CALLED);
    client.send(b"ping\ncritical:log:kept\n");
    client.finish();
    assert_eq!([client.answer(), client.answer()], ["con_lost", "con_delayed"]);
    assert_eq!(client.try_answer().expect("the end"), None);
}

#[test]
fn a_caller_that_shuts_its_writing_half_gets_every_answer_and_then_the_end() {
    let network = Network::new(&[CALLER, CALLED]);
    let host = network.host(CALLED);
    let _lond = host.lond();
    let (mut caller, _) = Caller::open(network.address(CALLER).ip(), host.address, CALLED);
    caller.send(b"ping\nversion\nping\n");
    caller.finish();
    assert_eq!(caller.hear().as_deref(), Some(CALLED));
    assert!(caller.hear().is_some());
    assert_eq!(caller.hear().as_deref(), Some(CALLED));
    assert_eq!(caller.hear(), None);
}

#[test]
fn no_stray_blank_line_is_sent_after_a_delayed_enciphered_message() {
    let mut pair = Pair::down();
    for number in 0..5 {
        assert_eq!(pair.ask(&format!("critical:encrypt:log:m-{number}")), "con_delayed");
    }
    pair.come_back();
    pair.fake.wait_received("log:", 5);
    assert_eq!(pair.ask("echo:after"), "echo:after");
    assert!(pair.fake.requests().iter().all(|seen| !seen.line.is_empty()), "a blank line was sent");
}

#[test]
fn blank_lines_get_no_answer_from_either_program() {
    let network = Network::new(&[CALLER, CALLED]);
    let host = network.host(CALLED);
    let _lond = host.lond();
    let (mut caller, _) = Caller::open(network.address(CALLER).ip(), host.address, CALLED);
    caller.send(b"\n\nping\n\nversion:1\n\n\nping\n");
    assert_eq!(caller.hear().as_deref(), Some(CALLED));
    assert!(caller.hear().is_some_and(|answer| answer.starts_with("version:")));
    assert_eq!(caller.hear().as_deref(), Some(CALLED));
    assert_eq!(caller.ask("ping"), CALLED);

    let pair = Pair::up();
    let mut client = pair.host.connect(CALLED);
    client.send(b"\n\necho:1\n\necho:2\n");
    assert_eq!([client.answer(), client.answer()], ["echo:1", "echo:2"]);
    assert_eq!(client.ask("echo:3"), "echo:3");
    assert!(pair.fake.requests().iter().all(|seen| !seen.line.is_empty()), "a blank line was passed on");
}

#[test]
fn lond_restarts_on_hup_the_tenth_time_as_the_first_and_is_never_away() {
    let network = Network::new(&[CALLER, CALLED]);
    let host = network.host(CALLED);
    let mut lond = host.lond();
    let from = network.address(CALLER).ip();
    for _ in 0..10 {
        let (mut caller, _) = Caller::open(from, host.address, CALLED);
        assert_eq!(caller.ask("ping"), CALLED);
        let before = lond.only_child();
        lond.signal(Signal::SIGHUP);
        // The link of before may be interrupted; a new one is to be had at any time.
        wait::until_true("the child of before to go", || !process::alive(before));
        lond.assert_running();
    }
    // The last one may have ended just now.
    wait::until_true("no zombie to be left", || process::zombies(lond.pid()).is_empty());
    let (mut caller, _) = Caller::open(from, host.address, CALLED);
    assert_eq!(caller.ask("ping"), CALLED);
}

#[test]
fn lond_keeps_the_old_configuration_when_the_new_one_is_bad_and_says_where() {
    let network = Network::new(&[CALLER, CALLED]);
    let mut host = network.host(CALLED);
    let lond = host.lond();
    let (mut caller, _) = Caller::open(network.address(CALLER).ip(), host.address, CALLED);
    host.set("lond", "no_such_key", "1");
    lond.signal(Signal::SIGHUP);
    wait::until_true("the error in the log", || {
        let log = host.log("lond.log");
        log.lines().any(|line| line.contains("ERROR") && line.contains("lonnet.toml:"))
    });
    assert_eq!(caller.ask("ping"), CALLED);
}

#[test]
fn with_no_child_left_the_supervisor_sleeps() {
    let network = Network::new(&[CALLER]);
    let host = network.host(CALLER);
    let (lonc, lond) = (host.lonc(), host.lond());
    assert!(lonc.children().is_empty());
    let pids = [lonc.pid(), lond.pid()];
    wait::until_true("two seconds in which no supervisor used a tick", || {
        let before = pids.map(process::ticks);
        wait::let_pass(Duration::from_secs(2));
        pids.map(process::ticks) == before
    });
}

#[test]
fn children_that_keep_dying_do_not_make_the_supervisor_spin() {
    let pair = Pair::up();
    for _ in 0..6 {
        for child in pair.lonc.children() {
            process::signal(child, Signal::SIGKILL);
        }
        // While the supervisor pauses there is nobody to kill, which is the point.
        wait::let_pass(Duration::from_millis(200));
    }
    wait::until_true("two seconds in which the supervisor used next to nothing", || {
        let before = process::ticks(pair.lonc.pid());
        wait::let_pass(Duration::from_secs(2));
        process::ticks(pair.lonc.pid()) <= before + 2
    });
    wait::until_true("the peer to be served again", || {
        pair.host.status_file(CALLED).is_some_and(|status| status["state"] == "up")
    });
    assert_eq!(pair.ask("ping"), "msul1");
}

#[test]
fn a_pid_file_that_names_another_live_process_stops_no_start_of_lond() {
    let network = Network::new(&[CALLER]);
    let host = network.host(CALLER);
    fs::create_dir_all(host.dir.join("run")).expect("make a folder");
    fs::write(host.pid_file("lond"), format!("{}\n", std::process::id())).expect("write a pid file");
    assert!(host.lond().stop().success());
}
