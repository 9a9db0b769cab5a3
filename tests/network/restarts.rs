//! Signals to a running `lonc`: HUP, USR1, TERM, INT, QUIT.

use crate::common::fake_lond::{Fault, Reply, Step};
use crate::common::load::Load;
use crate::common::local::Local;
use crate::common::network::Network;
use crate::common::pair::{CALLED, CALLER, Pair};
use crate::common::{process, wait};
use crate::crashes::check_delivery;
use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Sends HUP and waits until the child of before is replaced and the link is up again.
fn hup(pair: &mut Pair) {
    let before = pair.lonc.only_child();
    let connections = pair.fake.connections();
    pair.lonc.signal(Signal::SIGHUP);
    wait::until_true("another child", || matches!(pair.lonc.children()[..], [child] if child != before));
    wait::until_true("another link", || pair.fake.connections() > connections);
    pair.host.wait_link(CALLED, "up");
    pair.lonc.assert_running();
}

#[test]
fn ten_restarts_keep_the_pid_the_socket_and_every_critical_message() {
    let mut pair = Pair::up();
    let socket = pair.host.socket(CALLED);
    let load = Load::start(&socket, "load");
    let stop = AtomicBool::new(false);
    let acknowledged = std::thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            let mut connections = 0;
            while !stop.load(Ordering::SeqCst) {
                Local::try_connect(&socket).expect("the socket of a peer is always there");
                connections += 1;
                wait::let_pass(Duration::from_millis(1));
            }
            connections
        });
        hup(&mut pair);
        let descriptors = process::descriptors(pair.lonc.pid());
        for _ in 1..10 {
            hup(&mut pair);
            load.wait_for_more(5);
        }
        wait::until_true("no descriptor to be leaked", || {
            process::descriptors(pair.lonc.pid()) <= descriptors
        });
        wait::until_true("no zombie to be left", || process::zombies(pair.lonc.pid()).is_empty());
        stop.store(true, Ordering::SeqCst);
        assert!(connecting.join().expect("the connecting client") > 0);
        load.finish()
    });
    check_delivery(&pair, "load", &acknowledged);
}

#[test]
fn a_request_in_flight_during_a_restart_is_answered() {
    let mut pair = Pair::up();
    let mut client = pair.host.connect(CALLED);
    client.send("echo:before\n".repeat(100).as_bytes());
    hup(&mut pair);
    for _ in 0..100 {
        let answer = client.answer();
        assert!(answer == "echo:before" || answer == "con_lost", "{answer}");
    }
}

#[test]
fn a_restart_with_a_bad_configuration_says_where_and_keeps_the_old_one() {
    let mut pair = Pair::up();
    let child = pair.lonc.only_child();
    let good = std::fs::read_to_string(pair.host.config()).expect("the configuration");
    let line = good.lines().count() + 2;
    let bad = format!("{good}\nno_such_key = 1\n");
    std::fs::write(pair.host.config(), bad).expect("write the configuration");
    pair.lonc.signal(Signal::SIGHUP);
    wait::until_true("the error in the log", || {
        let log = pair.host.log("lonc.log");
        log.lines().any(|said| said.contains("ERROR") && said.contains(&format!("lonnet.toml:{line}:")))
    });
    assert_eq!(pair.ask("ping"), "msul1");
    assert_eq!(pair.lonc.only_child(), child, "the child was replaced");
    std::fs::write(pair.host.config(), good).expect("write the configuration");
    hup(&mut pair);
    assert_eq!(pair.ask("ping"), "msul1");
}

#[test]
fn a_restart_takes_new_hosts_in_and_lets_old_ones_go() {
    let mut network = Network::new(&[CALLER, CALLED]);
    let host = network.host(CALLER);
    let lonc = host.lonc();
    assert!(host.socket(CALLED).exists());
    network.add("msul2");
    let host = network.host(CALLER);
    lonc.signal(Signal::SIGHUP);
    wait::until_true("a socket for the new host", || Local::try_connect(&host.socket("msul2")).is_ok());
    wait::until_true("two children", || lonc.children().len() == 2);
    assert_eq!(host.ask("msul2", "critical:log:kept"), "con_delayed");

    network.write_table(&format!("{CALLER}:test:access:{CALLER}.example:{}\n", host.address.ip()));
    let mut host = host;
    for peer in [CALLED, "msul2"] {
        host.unset(&format!("host.{peer}"), "address");
    }
    let text = std::fs::read_to_string(host.config()).expect("the configuration");
    let without: Vec<_> = text.lines().filter(|line| !line.starts_with("[host.")).collect();
    std::fs::write(host.config(), without.join("\n")).expect("write the configuration");
    lonc.signal(Signal::SIGHUP);
    wait::until_true("the sockets to go", || {
        !host.socket(CALLED).exists() && !host.socket("msul2").exists() && lonc.children().is_empty()
    });
    assert!(host.spool("msul2").exists(), "what waited was deleted");
}

#[test]
fn usr1_dials_a_link_in_backoff_at_once() {
    let pair = Pair::prepare(
        |_| {},
        |fake| {
            fake.fail_at(Step::Init, Fault::Close);
            fake.listen();
        },
    );
    // By then the pauses between attempts have grown to seconds.
    wait::until_true("five attempts", || pair.fake.connections() >= 5);
    pair.host.wait_link(CALLED, "down");
    pair.fake.behave();
    let started = Instant::now();
    pair.dial_now();
    assert!(started.elapsed() < Duration::from_secs(2), "it took {:?}", started.elapsed());
    assert_eq!(pair.ask("ping"), "msul1");
}

#[test]
fn usr1_rewrites_the_status_files_and_keeps_links_that_answer() {
    let pair = Pair::up();
    let file = pair.host.dir.join("status/loncstatus.txt");
    std::fs::remove_file(&file).expect("remove a status file");
    pair.lonc.signal(Signal::SIGUSR1);
    let text = wait::until("the status file", || std::fs::read_to_string(&file).ok());
    let pid = pair.lonc.pid();
    let head = text.lines().next().expect("a first line");
    assert!(head.starts_with("LONC status ") && head.ends_with(&format!(" - parent {pid}")), "{head}");
    assert_eq!(text.lines().nth(1), Some(""));
    let line = text.lines().find(|line| line.contains("\tmsul1\t")).expect("a line for the peer");
    assert!(line.starts_with(&format!("{}\t", pair.lonc.only_child())), "{line}");
    assert_eq!(pair.ask("ping"), "msul1");
    assert_eq!(pair.fake.connections(), 1, "a link that answers was redialled");
}

#[test]
fn usr1_redials_a_link_whose_other_end_no_longer_answers() {
    let pair = Pair::up();
    pair.fake.answer_with(|_| Reply::Nothing);
    pair.lonc.signal(Signal::SIGUSR1);
    wait::until_true("another connection", || pair.fake.connections() >= 2);
    pair.fake.behave();
    wait::until_true("the link to serve again", || pair.ask("ping") == CALLED);
}

#[test]
fn term_and_int_and_quit_leave_no_process_no_socket_and_no_pid_file() {
    for which in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let pair = Pair::up();
        let Pair { mut lonc, fake, host, network } = pair;
        let children = lonc.children();
        lonc.signal(which);
        lonc.wait();
        assert!(!host.socket(CALLED).exists(), "{which}: the socket is left");
        assert!(!host.pid_file("lonc").exists(), "{which}: the pid file is left");
        wait::until_true("the children to end", || children.iter().all(|&child| !process::alive(child)));
        let left: Vec<_> =
            std::fs::read_dir(host.dir.join("run")).expect("the folder run").flatten().collect();
        assert!(left.is_empty(), "{which}: {left:?}");
        drop((fake, network));
    }
}

#[test]
fn a_stop_that_comes_together_with_a_restart_is_not_lost() {
    let network = Network::new(&[CALLER, CALLED]);
    let host = network.host(CALLER);
    for mut program in [host.lonc(), host.lond()] {
        // Held meanwhile, it finds both when it goes on.
        for which in [Signal::SIGSTOP, Signal::SIGHUP, Signal::SIGTERM, Signal::SIGCONT] {
            program.signal(which);
        }
        assert!(program.wait().success());
    }
}

#[test]
fn term_stores_the_critical_messages_that_are_in_flight() {
    let pair = Pair::up();
    pair.fake.answer_with(|_| Reply::Nothing);
    let mut client = pair.host.connect(CALLED);
    client.send(b"critical:log:in flight\n");
    pair.fake.wait_received("log:in flight", 1);
    let Pair { lonc, mut fake, host, network } = pair;
    assert!(lonc.stop().success());
    assert_eq!(client.try_answer().ok().flatten().as_deref(), Some(&b"con_delayed"[..]));
    fake.stop();
    fake.behave();
    fake.listen();
    let lonc = host.lonc();
    fake.wait_received("log:in flight", 2);
    drop((lonc, network));
}
