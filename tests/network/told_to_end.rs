//! TERM and INT sent to children themselves, by a person or by a service manager that ends every
//! process at once.

use crate::common::fake_lond::Reply;
use crate::common::handler;
use crate::common::network::Network;
use crate::common::pair::{CALLED, CALLER, Pair};
use crate::common::wait::Gate;
use crate::common::{process, wait};
use crate::handover::hold_slow_answers;
use nix::sys::signal::Signal;

#[test]
fn a_child_of_lonc_that_is_told_by_a_signal_answers_what_it_has_and_its_programs_stay_connected() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let pair = Pair::up_with(|host| {
            host.set("lonc", "drain_timeout", "\"20s\"");
        });
        let gate = hold_slow_answers(&pair);
        let [mut slow, mut idle] = [(); 2].map(|()| pair.host.connect(CALLED));
        assert_eq!(idle.ask("echo:1"), "echo:1");
        slow.send(b"echo:slow\n");
        pair.fake.wait_received("echo:slow", 1);
        let child = pair.lonc.only_child();
        process::signal(child, signal);
        pair.host.wait_link(CALLED, "draining");
        idle.send(b"echo:2\n");
        gate.open();
        assert_eq!(slow.answer(), "echo:slow", "{signal}");
        assert_eq!(idle.answer(), "echo:2", "{signal}");
        wait::until_true("another child", || matches!(pair.lonc.children()[..], [other] if other != child));
        assert_eq!(slow.ask("echo:3"), "echo:3", "{signal}");
        assert!(pair.host.log("lonc.log").contains(&format!("child {child} ended; starting anew")));
    }
}

#[test]
fn critical_messages_that_a_child_has_in_flight_when_it_is_told_by_a_signal_are_stored() {
    let pair = Pair::up();
    pair.fake.answer_with(|_| Reply::Nothing);
    let mut program = pair.host.connect(CALLED);
    program.send(b"critical:log:in flight\n");
    pair.fake.wait_received("log:in flight", 1);
    process::signal(pair.lonc.only_child(), Signal::SIGTERM);
    assert_eq!(program.answer(), "con_delayed");
    pair.fake.behave();
    pair.fake.wait_received("log:in flight", 2);
}

#[test]
fn a_child_of_lond_that_is_told_by_a_signal_answers_what_it_has_and_the_caller_comes_back() {
    for (network, signal) in [
        (Network::new(&[CALLER, CALLED]), Signal::SIGTERM),
        (Network::secure(&[CALLER, CALLED]), Signal::SIGTERM),
        (Network::secure(&[CALLER, CALLED]), Signal::SIGINT),
    ] {
        let (one, mut other) = (network.host(CALLER), network.host(CALLED));
        other.set("lond", "drain_timeout", "\"20s\"");
        let (gate, reached) = (Gate::default(), Gate::default());
        let (passing, arrived) = (gate.clone(), reached.clone());
        let _program = handler::Program::start(&other.handler("do"), move |line| {
            arrived.open();
            passing.pass();
            Some(line.to_vec())
        });
        let (lond, _lonc) = (other.lond(), one.lonc());
        one.wait_link(CALLED, "up");
        let mut program = one.connect(CALLED);
        program.send(b"critical:do:slow\n");
        reached.pass();
        let child = lond.only_child();
        process::signal(child, signal);
        gate.open();
        assert_eq!(program.answer(), "do:slow", "{signal}");
        wait::until_true("the child to end", || !process::alive(child));
        wait::until_true("the link to be back", || one.ask(CALLED, "ping") == CALLED);
        let log = other.log("lond.log");
        assert!(log.contains("link closed: told to end"), "{log}");
        assert!(log.contains(&format!("child {child} ended")), "{log}");
    }
}

#[test]
fn when_every_process_gets_term_at_once_nothing_that_was_taken_is_lost_and_nothing_is_left() {
    for supervisor_first in [true, false] {
        let pair = Pair::up();
        pair.fake.answer_with(|_| Reply::Nothing);
        let mut program = pair.host.connect(CALLED);
        program.send(b"critical:log:in flight\n");
        pair.fake.wait_received("log:in flight", 1);
        let mut all = [pair.lonc.pid(), pair.lonc.only_child()];
        if !supervisor_first {
            all.reverse();
        }
        all.iter().for_each(|&pid| process::signal(pid, Signal::SIGTERM));
        assert_eq!(program.answer(), "con_delayed");
        let Pair { mut lonc, mut fake, host, network } = pair;
        assert!(lonc.wait().success());
        wait::until_true("every process to end", || all.iter().all(|&pid| !process::alive(pid)));
        assert!(!host.socket(CALLED).exists() && !host.pid_file("lonc").exists());
        assert!(!host.log("lonc.log").contains("killed"));
        fake.stop();
        fake.behave();
        fake.listen();
        let lonc = host.lonc();
        fake.wait_received("log:in flight", 2);
        drop((lonc, network));
    }
}
