//! HUP and reload while programs are connected: they keep their connections, and each request has
//! its one answer.

use crate::common::fake_lond::{Reply, well_behaved};
use crate::common::local::Local;
use crate::common::network::Host;
use crate::common::pair::{CALLED, Pair};
use crate::common::wait::Gate;
use crate::common::{process, wait};
use crate::hundred_hups::{Stopping, anew};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Programs that stay connected.
const PROGRAMS: usize = 100;
/// Requests that each sends ahead of their answers.
const AHEAD: usize = 8;

/// Long enough that only a request that is stuck would not be answered by then.
fn patient(host: &mut Host) {
    host.set("lonc", "drain_timeout", "\"20s\"");
}

/// What one program does until it is told to stop: its requests are cut anywhere by its writes, and
/// every tenth is critical. Each answer must be the one to its own request. Gives how many there
/// were.
fn pipeline(socket: &Path, name: usize, stop: &AtomicBool, answered: &AtomicU64) -> u64 {
    let mut program = Local::connect(socket);
    let mut count = 0;
    while !stop.load(Ordering::SeqCst) {
        let mut requests = String::new();
        let mut wanted = Vec::new();
        for _ in 0..AHEAD {
            count += 1;
            if count % 10 == 0 {
                requests.push_str(&format!("critical:log:load-{name}-{count}\n"));
                wanted.push(None);
            } else {
                requests.push_str(&format!("echo:{name}-{count}\n"));
                wanted.push(Some(format!("echo:{name}-{count}")));
            }
        }
        let (first, second) = requests.split_at(fastrand::usize(..requests.len()));
        program.send(first.as_bytes());
        wait::let_pass(Duration::from_millis(fastrand::u64(..20)));
        program.send(second.as_bytes());
        for wanted in wanted {
            let answer = program.answer();
            match wanted {
                Some(echo) => assert_eq!(answer, echo, "program {name}"),
                None => assert!(answer == "ok" || answer == "con_delayed", "program {name}: {answer}"),
            }
            answered.fetch_add(1, Ordering::SeqCst);
        }
        wait::let_pass(Duration::from_millis(fastrand::u64(10..60)));
    }
    count
}

/// Has [`PROGRAMS`] pipelining while `restart` is called `times` times, each with another child
/// after it. Checks that nothing was lost, repeated or left open.
fn under_load(pair: &mut Pair, times: usize, mut restart: impl FnMut(&mut Pair, usize)) {
    let socket = pair.host.socket(CALLED);
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let sent = std::thread::scope(|scope| {
        // However this ends, the programs are not to go on for ever.
        let stopping = Stopping(&stop);
        let programs: Vec<_> = (0..PROGRAMS)
            .map(|name| {
                let (socket, stop, answered) = (&socket, &stop, &answered);
                scope.spawn(move || (name, pipeline(socket, name, stop, answered)))
            })
            .collect();
        let served = || {
            let from = answered.load(Ordering::SeqCst);
            let busy = || answered.load(Ordering::SeqCst) > from + 200;
            wait::until_true("the load to go on", || {
                busy() || programs.iter().any(std::thread::ScopedJoinHandle::is_finished)
            });
        };
        // With its link up and nothing on trial: each of these is a descriptor more or less.
        let descriptors = |pair: &Pair| {
            wait::until("a child that is up and nothing else", || {
                let is_up = || pair.host.status(CALLED).is_some_and(|status| status["state"] == "up");
                let (lonc, up) = (pair.lonc.pid(), is_up());
                let children = process::children(lonc);
                let [child] = children[..] else { return None };
                let counts = [lonc, child].map(process::descriptors_but_segments);
                (up && is_up() && process::children(lonc) == children).then_some(counts)
            })
        };
        served();
        let mut before = None;
        for number in 0..times {
            let child = pair.lonc.only_child();
            restart(pair, number);
            wait::until_true(
                "another child",
                || matches!(pair.lonc.children()[..], [other] if other != child),
            );
            served();
            // The first restart may open what stays open, as a watch does.
            before.get_or_insert_with(|| descriptors(pair));
        }
        wait::until_true("as many descriptors as at first", || Some(descriptors(pair)) == before);
        drop(stopping);
        programs
            .into_iter()
            .map(|program| program.join().expect("a program"))
            .collect::<HashMap<usize, u64>>()
    });
    pair.host.wait_delivered(CALLED);
    let mut received: HashMap<usize, Vec<u64>> = HashMap::new();
    for text in pair.fake.received("log:load-") {
        let (name, number) = text["log:load-".len()..].split_once('-').expect("a name and a number");
        let name = name.parse().expect("a name");
        received.entry(name).or_default().push(number.parse().expect("a number"));
    }
    for (name, count) in sent {
        let wanted: Vec<u64> = (1..=count).filter(|number| number % 10 == 0).collect();
        assert_eq!(received.remove(&name).unwrap_or_default(), wanted, "critical requests of {name}");
    }
}

#[test]
fn a_hundred_programs_that_send_ahead_keep_their_connections_through_a_hundred_restarts() {
    let mut pair = Pair::up_with(patient);
    // Every ninth has another one in its middle.
    under_load(&mut pair, 100, |pair, number| {
        pair.lonc.signal(Signal::SIGHUP);
        if number % 9 == 0 {
            // Once more in the middle of the first.
            wait::let_pass(Duration::from_millis(fastrand::u64(..40)));
            pair.lonc.signal(Signal::SIGHUP);
        }
    });
    pair.lonc.assert_running();
    let log = pair.host.log("lonc.log");
    assert!(anew(&log) >= 100, "{} programs took over", anew(&log));
    assert!(log.contains("connected programs over"), "nobody was handed over");
    assert!(!log.contains("served to the end here"), "some did not fit");
}

#[test]
fn programs_keep_their_connections_when_a_reload_replaces_their_child() {
    let mut pair = Pair::up_with(patient);
    under_load(&mut pair, 20, |pair, number| {
        pair.host.set(&format!("host.{CALLED}"), "request_timeout", &format!("\"{}s\"", 100 + number));
        let output = pair.host.lon(&["reload"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("1 link replaced"), "{said}");
    });
}

/// Restarts, and waits for the next child.
fn restart(pair: &Pair) {
    let child = pair.lonc.only_child();
    pair.lonc.signal(Signal::SIGHUP);
    wait::until_true("another child", || matches!(pair.lonc.children()[..], [other] if other != child));
}

#[test]
fn a_request_that_the_old_child_never_read_is_answered_on_the_same_connection() {
    let pair = Pair::up_with(patient);
    let mut program = pair.host.connect(CALLED);
    let mut ended = pair.host.connect(CALLED);
    assert_eq!(program.ask("echo:1"), "echo:1");
    assert_eq!(ended.ask("echo:1"), "echo:1");
    let child = pair.lonc.only_child();
    process::signal(child, Signal::SIGSTOP);
    pair.lonc.signal(Signal::SIGHUP);
    wait::until_true("the child to be told", || pair.host.log("lonc.log").contains("started anew"));
    program.send(b"echo:2\necho:3\nech");
    ended.send(b"echo:2\n");
    ended.finish();
    process::signal(child, Signal::SIGCONT);
    wait::until_true("another child", || matches!(pair.lonc.children()[..], [other] if other != child));
    assert_eq!([program.answer(), program.answer()], ["echo:2", "echo:3"]);
    assert_eq!(ended.answer(), "echo:2");
    assert_eq!(ended.try_answer().expect("the end"), None);
    program.send(b"o:4\n");
    assert_eq!(program.answer(), "echo:4");
}

#[test]
fn half_a_line_and_what_is_left_of_one_that_is_too_long_pass_to_the_next_child() {
    let pair = Pair::up_with(|host| {
        patient(host);
        host.set("lonc", "max_line", "\"64KiB\"");
    });
    let [mut half, mut long] = [(); 2].map(|()| pair.host.connect(CALLED));
    half.send(format!("echo:{}", "x".repeat(50_000)).as_bytes());
    long.send("y".repeat(100_000).as_bytes());
    assert!(long.answer().starts_with("error:"));
    for _ in 0..2 {
        restart(&pair);
        half.send(b"z");
        long.send(b"z");
    }
    half.send(b"\n");
    assert_eq!(half.answer(), format!("echo:{}zz", "x".repeat(50_000)));
    long.send(b"\necho:next\n");
    assert_eq!(long.answer(), "echo:next");
}

#[test]
fn who_waits_for_an_answer_when_the_time_is_up_is_told_so_and_stays_connected() {
    let pair = Pair::up();
    pair.fake.answer_with(|_| Reply::Nothing);
    let mut program = pair.host.connect(CALLED);
    program.send(b"echo:slow\ncritical:log:slow\n");
    pair.fake.wait_received("log:slow", 1);
    pair.lonc.signal(Signal::SIGHUP);
    assert_eq!([program.answer(), program.answer()], ["con_lost", "con_delayed"]);
    pair.fake.behave();
    assert_eq!(program.ask("echo:after"), "echo:after");
}

/// A program whose slow request is on the link while its child is replaced.
fn waiting_in_a_drain(pair: &Pair) -> Local {
    let mut program = pair.host.connect(CALLED);
    program.send(b"echo:slow\n");
    pair.fake.wait_received("echo:slow", 1);
    pair.lonc.signal(Signal::SIGHUP);
    pair.host.wait_link(CALLED, "draining");
    program
}

#[test]
fn an_answer_that_comes_in_time_is_waited_for_and_its_program_stays_connected() {
    let pair = Pair::up_with(patient);
    let gate = hold_slow_answers(&pair);
    let mut program = waiting_in_a_drain(&pair);
    program.send(b"echo:meanwhile\n");
    gate.open();
    assert_eq!([program.answer(), program.answer()], ["echo:slow", "echo:meanwhile"]);
}

/// The fake answers `echo:slow` only when the gate is open.
pub fn hold_slow_answers(pair: &Pair) -> Gate {
    let gate = Gate::default();
    pair.fake.answer_with({
        let gate = gate.clone();
        move |seen| {
            if seen.text() == "echo:slow" {
                gate.pass();
            }
            well_behaved(CALLED, seen)
        }
    });
    gate
}

/// A link whose drain may take 20 s, and a program that waits for the answer to `echo:slow`, which
/// comes when the gate is open.
pub fn with_a_program_that_waits() -> (Pair, Gate, Local) {
    let pair = Pair::up_with(patient);
    let gate = hold_slow_answers(&pair);
    let mut program = pair.host.connect(CALLED);
    program.send(b"echo:slow\n");
    pair.fake.wait_received("echo:slow", 1);
    (pair, gate, program)
}

#[test]
fn programs_that_a_child_died_before_taking_over_are_served_by_the_one_after_it() {
    let pair = Pair::up_with(patient);
    let gate = hold_slow_answers(&pair);
    let [mut slow, mut idle] = [(); 2].map(|()| pair.host.connect(CALLED));
    assert_eq!(idle.ask("echo:1"), "echo:1");
    slow.send(b"echo:slow\n");
    pair.fake.wait_received("echo:slow", 1);
    let old = pair.lonc.only_child();
    pair.lonc.signal(Signal::SIGHUP);
    pair.host.wait_link(CALLED, "draining");
    // With the supervisor held, the old child ends and none follows: the peer's lock is free, and
    // the next child, which takes programs over only when it has the lock, must wait for it.
    process::signal(pair.lonc.pid(), Signal::SIGSTOP);
    gate.open();
    assert_eq!(slow.answer(), "echo:slow");
    let lock = wait::until("the peer's lock", || {
        let file = File::open(pair.host.spool(CALLED).join("lock")).expect("the lock");
        Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()
    });
    process::signal(pair.lonc.pid(), Signal::SIGCONT);
    let next = wait::until("the next child", || match pair.lonc.children()[..] {
        [next] if next != old => Some(next),
        _ => None,
    });
    idle.send(b"echo:2\n");
    process::signal(next, Signal::SIGKILL);
    wait::until_true("the one after it", || matches!(pair.lonc.children()[..], [third] if third != next));
    drop(lock);
    assert_eq!(idle.answer(), "echo:2");
    assert_eq!(slow.ask("echo:3"), "echo:3");
}

#[test]
fn when_the_supervisor_is_killed_meanwhile_answers_still_come_and_then_the_end() {
    let pair = Pair::up_with(patient);
    let gate = hold_slow_answers(&pair);
    let mut program = waiting_in_a_drain(&pair);
    let Pair { lonc, fake, host, network } = pair;
    lonc.kill();
    gate.open();
    assert_eq!(program.answer(), "echo:slow");
    assert_eq!(program.try_answer().expect("the end"), None);
    drop((fake, host, network));
}

#[test]
fn stopping_during_a_restart_lets_go_of_every_program() {
    let pair = Pair::up_with(patient);
    let gate = hold_slow_answers(&pair);
    let [mut slow, mut idle] = [(); 2].map(|()| pair.host.connect(CALLED));
    assert_eq!(idle.ask("echo:1"), "echo:1");
    slow.send(b"echo:slow\n");
    pair.fake.wait_received("echo:slow", 1);
    pair.lonc.signal(Signal::SIGHUP);
    pair.host.wait_link(CALLED, "draining");
    pair.lonc.signal(Signal::SIGTERM);
    assert_eq!(idle.try_answer().expect("the end"), None);
    gate.open();
    assert_eq!(slow.answer(), "echo:slow");
    assert_eq!(slow.try_answer().expect("the end"), None);
}
