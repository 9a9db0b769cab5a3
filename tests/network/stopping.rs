//! `lon stop` and `lon wait`; what the status says of what was stopped, of what went wrong before,
//! and of a port that swallows.

use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::secure_pair::TwoHosts;
use crate::common::{process, wait};
use crate::handover::with_a_program_that_waits;
use nix::sys::signal::Signal;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::process::Command;

fn lon(host: &Host, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = host.lon(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Starts a program in the background, as a person would; it must start.
fn start(host: &Host, program: &str) {
    let mut command: Command = host.command(program);
    let output = command.output().expect("start a program");
    assert!(output.status.success(), "{program}: {output:?}");
}

#[test]
fn a_start_right_behind_a_stop_finds_nothing_in_its_way_again_and_again() {
    let both = TwoHosts::new();
    for round in 0..10 {
        start(&both.one, "lond");
        start(&both.one, "lonc");
        let pids = ["lonc", "lond"].map(|name| {
            let pid = fs::read_to_string(both.one.pid_file(name)).expect("a pid file");
            pid.trim().parse::<u32>().expect("a pid")
        });
        let (code, out, err) = lon(&both.one, &["stop"]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{round}: {out}");
        assert!(out.contains("lonc [") && out.contains("lond ["), "{out}");
        assert!(!pids.into_iter().any(process::alive), "{round}");
        assert_eq!(process::with_files_in(&both.one.dir), [0; 0], "{round}");
    }
    let (code, out, _) = lon(&both.one, &["stop"]);
    assert_eq!((code, out.as_str()), (Some(0), "lonc does not run\nlond does not run\n"));
    let (code, _, err) = lon(&both.one, &["status"]);
    assert!(code == Some(1) && err.contains("lonc does not run: it was stopped "), "{err}");
    assert_eq!(lon(&both.one, &["status", "--check"]).0, Some(3));
    let shown = lon(&both.one, &["status"]).1;
    assert!(shown.starts_with("1 link: 1 stopped; ") && !shown.contains("down"), "{shown}");
}

#[test]
fn stop_waits_for_the_end_of_a_drain_and_says_when_that_takes_too_long() {
    let (pair, gate, mut program) = with_a_program_that_waits();
    let (code, _, err) = lon(&pair.host, &["stop", "--timeout", "100ms"]);
    assert!(code == Some(1) && err.contains("has not ended within"), "{code:?} {err}");
    assert!(process::alive(pair.lonc.pid()), "it answers what it has");
    gate.open();
    assert_eq!(program.answer(), "echo:slow");
    let mut lonc = pair.lonc;
    assert!(lonc.wait().success());
}

#[test]
fn wait_returns_when_the_link_is_up_and_when_nothing_waits_and_says_what_is_not_so_in_time() {
    let both = TwoHosts::new();
    let _lonc = both.one.lonc();
    let (code, _, err) = lon(&both.one, &["wait", CALLED, "--timeout", "300ms"]);
    assert!(code == Some(1) && err.starts_with(&format!("lon: wait: {CALLED}: ")), "{code:?} {err}");
    assert_eq!(both.one.ask(CALLED, "critical:do:1"), "con_delayed");
    let (code, _, err) = lon(&both.one, &["wait", "--drained", "--timeout", "300ms"]);
    assert!(code == Some(1) && err.contains("1 messages wait"), "{code:?} {err}");
    let _lond = both.other.lond();
    assert_eq!(lon(&both.one, &["wait", "--up", "--drained"]).0, Some(0));
    assert_eq!(both.counter.done(), ["do:1"]);
    assert_eq!(both.one.status(CALLED).expect("a status")["state"], "up");
}

#[test]
fn an_error_of_before_the_link_was_up_is_shown_as_past_and_is_no_finding() {
    let both = TwoHosts::new();
    let lonc = both.one.lonc();
    both.one.wait_link(CALLED, "down");
    let down = both.one.status(CALLED).expect("a status");
    assert_eq!(down["last_error_past"], false);
    assert!(down["next_dial"].is_string(), "{down}");
    assert_eq!(lon(&both.one, &["status", "--check"]).0, Some(2));
    let _lond = both.other.lond();
    lonc.signal(Signal::SIGUSR1);
    assert_eq!(lon(&both.one, &["wait"]).0, Some(0));
    let up = both.one.status(CALLED).expect("a status");
    assert!(up["last_error_past"] == true && up["next_dial"].is_null(), "{up}");
    assert!(lon(&both.one, &["status"]).1.contains("past: "));
    assert_eq!(lon(&both.one, &["status", "--check"]).0, Some(0));
}

#[test]
fn a_port_that_takes_connections_and_says_nothing_is_told_apart_from_one_that_is_away() {
    let network = Network::secure(&[CALLER, CALLED]);
    let host = network.host(CALLER);
    let swallows = TcpListener::bind(network.address(CALLED)).expect("listen");
    let taking = std::thread::spawn(move || {
        let (mut stream, _) = swallows.accept().expect("a caller");
        // Until the caller gives up.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let _lonc = host.lonc();
    wait::until_true("the reason", || {
        let status = host.status(CALLED).expect("a status");
        status["last_error"].as_str().is_some_and(|why| why.contains("TCP is there, no TLS answer within 3s"))
    });
    taking.join().expect("the port");
}

#[test]
fn why_a_restart_came_to_nothing_is_said_until_a_reload_succeeds() {
    let both = TwoHosts::new();
    let (lonc, lond) = both.start();
    let whole = fs::read_to_string(both.one.config()).expect("read");
    let shown = |host: &Host| lon(host, &["status"]).1;
    fs::write(both.one.config(), format!("{whole}\n[lonc\n")).expect("write");
    lonc.signal(Signal::SIGHUP);
    wait::until_true("the failure", || shown(&both.one).contains("not restarted: "));
    fs::write(both.one.config(), &whole).expect("write");
    assert!(shown(&both.one).contains("not restarted: "), "nothing has changed yet");
    assert_eq!(lon(&both.one, &["reload"]).0, Some(0));
    assert!(!shown(&both.one).contains("not restarted"));
    let whole = fs::read_to_string(both.other.config()).expect("read");
    fs::write(both.other.config(), format!("{whole}\n[lonc\n")).expect("write");
    lond.signal(Signal::SIGHUP);
    let said = || both.other.lond_status().is_some_and(|status| status["not_restarted"].is_string());
    wait::until_true("the failure", said);
    fs::write(both.other.config(), &whole).expect("write");
    assert_eq!(lon(&both.other, &["reload"]).0, Some(0));
    assert!(!said());
}

fn rotate(host: &Host, option: &[&str]) -> (Option<i32>, String, String) {
    lon(host, &[&["rotate"], option].concat())
}

#[test]
fn the_old_key_stays_until_every_link_is_up_with_the_new_one() {
    let network = Network::secure(&[CALLER, CALLED]);
    let (one, other) = (network.host(CALLER), network.host(CALLED));
    let (_lond_one, _lonc_one) = (one.lond(), one.lonc());
    let (lond_other, lonc_other) = (other.lond(), other.lonc());
    for host in [&one, &other] {
        assert_eq!(lon(host, &["wait", "--up"]).0, Some(0));
    }
    assert_eq!(rotate(&one, &["--prepare"]).0, Some(0));
    let new = lon(&one, &["pin"]).1.lines().last().expect("two lines").to_owned();
    network.write_pins(&format!("{}{new}\n", network.pins()));
    for host in [&one, &other] {
        assert_eq!(lon(host, &["reload"]).0, Some(0));
    }
    assert_eq!(rotate(&one, &["--switch"]).0, Some(0));
    let old = one.dir.join("keys/host.key.old");
    let refused = |why: &str| {
        let (code, _, err) = rotate(&one, &["--finish"]);
        assert!(code == Some(1) && err.contains(why), "{why}: {code:?} {err}");
        assert!(old.exists(), "{why}");
    };
    // The programs still show the old one.
    refused(&format!("{CALLED}: lonc does not show it the new key yet"));
    assert_eq!(lon(&one, &["reload"]).0, Some(0));
    // The other host is away, both ways.
    assert!(lond_other.stop().success() && lonc_other.stop().success());
    wait::until_true("the loss of the link", || one.status(CALLED).is_some_and(|link| link["state"] != "up"));
    refused(&format!("{CALLED}: "));
    let lond_other = other.lond();
    assert_eq!(lon(&one, &["wait", "--up"]).0, Some(0));
    wait::until_true("the end of its link to us", || {
        one.lond_status().is_some_and(|status| status["links"].as_array().is_some_and(Vec::is_empty))
    });
    refused(&format!("{CALLED}: called us "));
    let _lonc_other = other.lonc();
    assert_eq!(lon(&other, &["wait", "--up"]).0, Some(0));
    wait::until_true("both ways up with the new key", || rotate(&one, &["--finish"]).0 == Some(0));
    assert!(!old.exists());
    drop(lond_other);
}

#[test]
fn the_old_key_goes_all_the_same_when_that_is_meant() {
    let network = Network::secure(&[CALLER, CALLED]);
    let one = network.host(CALLER);
    let _lonc = one.lonc();
    assert_eq!(rotate(&one, &["--prepare"]).0, Some(0));
    let new = lon(&one, &["pin"]).1.lines().last().expect("two lines").to_owned();
    network.write_pins(&format!("{}{new}\n", network.pins()));
    assert_eq!(rotate(&one, &["--switch"]).0, Some(0));
    assert_eq!(lon(&one, &["reload"]).0, Some(0));
    let (code, _, err) = rotate(&one, &["--finish"]);
    let typed = format!("lon --config {} rotate --finish --force", one.config().display());
    assert!(code == Some(1) && err.contains(&typed), "{err}");
    assert_eq!(rotate(&one, &["--finish", "--force"]).0, Some(0));
    assert!(!one.dir.join("keys/host.key.old").exists());
}
