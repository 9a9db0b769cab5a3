//! A link child dies when it has taken a critical message and not answered it: who asked keeps a
//! copy, and the message is run once all the same.

use crate::common::handler::Program as Handler;
use crate::common::network::Host;
use crate::common::pair::{CALLED, CALLER};
use crate::common::secure_pair::TwoHosts;
use crate::common::wait::{self, Gate};
use crate::common::{preload, process};
use lonnet::client::{self, HostId, Outcome};
use lonnet::config::Config;
use nix::sys::signal::Signal;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// `lon critical`, which is to be waited for.
fn critical(host: &Host, request: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lon"));
    command.arg("--config").arg(host.config()).args(["critical", CALLED, request]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("start lon")
}

/// Its answer is `con_delayed`, for the copy that it has stored itself.
fn assert_stored(lon: Child) {
    let output = lon.wait_with_output().expect("the end of lon");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(4), &b"con_delayed\n"[..]), "{said}");
    assert!(said.contains(": storing\n"), "{said}");
}

#[test]
fn a_message_that_is_being_run_when_its_link_child_is_killed_is_run_once_though_lon_stores_it_too() {
    let mut both = TwoHosts::new();
    let (gate, ran) = (Gate::default(), Arc::new(Mutex::new(Vec::new())));
    let _program = Handler::start(&both.other.handler("job"), {
        let (gate, ran) = (gate.clone(), ran.clone());
        move |line| {
            ran.lock().expect("ran").push(String::from_utf8_lossy(line).into_owned());
            gate.pass();
            Some(line.to_vec())
        }
    });
    let (lonc, _lond) = both.start();
    let lon = critical(&both.one, "job:by lon");
    wait::until_true("the message in its handler", || ran.lock().expect("ran").len() == 1);
    // The same, asked by a program.
    let config = Config::load(&both.one.config()).expect("the configuration");
    let peer = HostId::new(CALLED).expect("an id");
    let asking = std::thread::spawn(move || {
        client::critical(&config, &peer, b"job:by a program", None, Instant::now() + wait::PATIENCE)
    });
    wait::until_true("both of them on their way", || {
        both.one.status(CALLED).is_some_and(|status| status["in_flight"] == 2)
    });
    process::signal(lonc.only_child(), Signal::SIGKILL);
    assert_stored(lon);
    gate.open();
    let outcome = asking.join().expect("the program").expect("an outcome");
    assert!(matches!(outcome, Outcome::Answer(_) | Outcome::Delayed), "{outcome:?}");
    // What is stored later is run later: nothing is on its way when that is done.
    wait::until_true("the last message", || {
        both.one.ask(CALLED, "critical:job:last");
        ran.lock().expect("ran").iter().any(|line| line == "job:last")
    });
    both.one.wait_delivered(CALLED);
    let ran = ran.lock().expect("ran").clone();
    for line in ["job:by lon", "job:by a program"] {
        assert_eq!(ran.iter().filter(|run| *run == line).count(), 1, "{ran:?}");
    }
}

#[test]
fn a_message_that_is_stored_when_its_link_child_is_killed_is_run_once_though_lon_stores_it_too() {
    let both = TwoHosts::new();
    let Some(library) = preload::library("network/die_with_the_answer.c", both.network.dir()) else { return };
    let marker = both.one.spool(CALLED).join("die");
    let mut command = both.one.command("lonc");
    command.env("LD_PRELOAD", library).env("LONNET_TEST_DIE", &marker);
    let lonc = both.one.start(command, "lonc");
    both.one.wait_link(CALLED, "down");
    for round in 0..2 {
        std::fs::write(&marker, "").expect("have it die");
        assert_stored(critical(&both.one, &format!("do:{round}")));
        assert!(!marker.exists(), "the child died as it was about to answer");
        wait::until_true("both copies in the spool", || {
            both.one.status(CALLED).is_some_and(|status| status["delayed"] == 2 * (round + 1))
        });
    }
    // The key is for the other host alone.
    let listed = both.one.lon(&["queue", CALLED]);
    let listed = String::from_utf8_lossy(&listed.stdout);
    assert!(listed.contains("do:0\n") && !listed.contains("key="), "{listed}");
    let _lond = both.other.lond();
    lonc.signal(Signal::SIGUSR1);
    both.one.wait_link(CALLED, "up");
    both.one.wait_delivered(CALLED);
    assert_eq!(both.counter.done(), ["do:0", "do:1"]);
    wait::until_true("the perm log", || both.one.log("lonnet.perm.log").lines().count() == 4);
    assert!(!both.one.log("lonnet.perm.log").contains("key="), "{CALLER}'s perm log has the requests alone");
}
