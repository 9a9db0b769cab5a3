//! A hundred HUPs of `lonc` and of `lond` under load, on either wire: programs, callers and
//! messages notice nothing, and nothing is left behind by any of them.

use crate::common::handler;
use crate::common::local::Local;
use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::program::Program;
use crate::common::secure_pair::Counter;
use crate::common::tally::Tally;
use crate::common::{process, wait};
use nix::sys::signal::Signal;
use std::net::TcpStream;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Programs that stay connected.
const PROGRAMS: usize = 20;
/// Times that each program is started anew.
const TIMES: usize = 100;
/// What is open and resident is looked at first after so many, when caches and buffers have found
/// their size.
const SETTLED: usize = 20;
/// KiB that may be resident in a process more after [`TIMES`] than after [`SETTLED`]: what an
/// allocator keeps differs from run to run, and what leaked even 50 KiB a HUP would be seen.
const MORE_MEMORY: u64 = 4 << 10;

/// Two hosts at work.
struct Stage {
    one: Host,
    other: Host,
    lonc: Program,
    lond: Program,
    counter: Counter,
    /// Whoever loads them has this for reading, and lets go where nothing is under way.
    rest: RwLock<()>,
    stop: AtomicBool,
    answered: AtomicU64,
    _echo: handler::Program,
    _network: Network,
}

/// What the processes have: supervisor and child of `lonc`, of `lond`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    descriptors: [usize; 4],
    memory: [u64; 4],
}

impl Stage {
    fn set(network: Network) -> Stage {
        let (mut one, mut other) = (network.host(CALLER), network.host(CALLED));
        one.set("lonc", "drain_timeout", "\"20s\"");
        other.set("lond", "drain_timeout", "\"20s\"");
        let counter = Counter::start(&mut other);
        let echo = handler::Program::echo(&other.handler("echo"));
        let (lond, lonc) = (other.lond(), one.lonc());
        one.wait_link(CALLED, "up");
        let (rest, stop, answered) = (RwLock::default(), AtomicBool::new(false), AtomicU64::new(0));
        Stage { one, other, lonc, lond, counter, rest, stop, answered, _echo: echo, _network: network }
    }

    /// HUP to both. Each has begun anew then, and has the children that belong to that.
    fn hup(&self) {
        let begun = || [self.one.log("lonc.log"), self.other.log("lond.log")].map(|log| anew(&log));
        let (before, child) = (begun(), self.lonc.only_child());
        self.lonc.signal(Signal::SIGHUP);
        self.lond.signal(Signal::SIGHUP);
        wait::until_true("both to begin anew", || begun() == before.map(|count| count + 1));
        wait::until_true("another child", || matches!(self.lonc.children()[..], [other] if other != child));
    }

    /// Nothing is stored any more.
    fn wait_delivered(&self) {
        self.one.wait_delivered(CALLED);
    }

    /// With nothing under way, and after just one request each way since a HUP.
    fn held(&self) -> Held {
        let _rest = self.rest.write().expect("rest");
        self.wait_delivered();
        self.hup();
        self.one.wait_link(CALLED, "up");
        let mut program = self.one.connect(CALLED);
        assert_eq!(program.ask("echo:at rest"), "echo:at rest");
        assert_eq!(program.ask("critical:do:at rest"), "ok");
        drop(program);
        wait::until("one child of each, and nobody but the programs that stay connected", || {
            let (lonc, lond) = (self.lonc.pid(), self.lond.pid());
            let ([link], [serving]) = (&process::children(lonc)[..], &process::children(lond)[..]) else {
                return None;
            };
            let pids = [lonc, *link, lond, *serving];
            let clients = self.one.status(CALLED)?["clients"].as_u64()?;
            let held = Held {
                descriptors: pids.map(process::descriptors_but_segments),
                memory: pids.map(|pid| process::memory(pid).unwrap_or_default()),
            };
            (clients == PROGRAMS as u64).then_some(held)
        })
    }

    /// One program that stays connected, with requests ahead, every fifth critical; gives how many
    /// it has sent.
    fn program(&self, name: usize, may_be_lost: bool) -> u64 {
        let mut program = Local::connect(&self.one.socket(CALLED));
        let mut count = 0;
        while !self.stop.load(Ordering::SeqCst) {
            let load = self.rest.read().expect("rest");
            let numbers: Vec<u64> = (count + 1..=count + 5).collect();
            let request = |number: &u64| match number % 5 {
                0 => format!("critical:do:{name}-{number}\n"),
                _ => format!("echo:{name}-{number}\n"),
            };
            program.send(numbers.iter().map(request).collect::<String>().as_bytes());
            for number in numbers {
                let answer = program.answer();
                match number % 5 {
                    0 => assert!(answer == "ok" || answer == "con_delayed", "program {name}: {answer}"),
                    _ if may_be_lost && answer == "con_lost" => {}
                    _ => assert_eq!(answer, format!("echo:{name}-{number}")),
                }
                count = number;
                self.answered.fetch_add(1, Ordering::SeqCst);
            }
            drop(load);
            wait::let_pass(Duration::from_millis(fastrand::u64(10..60)));
        }
        count
    }

    /// Connects again and again, both to the peer's socket and to `lond`.
    fn callers(&self) -> u64 {
        let mut calls = 0;
        while !self.stop.load(Ordering::SeqCst) {
            let load = self.rest.read().expect("rest");
            let answer = Local::connect(&self.one.socket(CALLED)).ask("critical:do:passing by");
            assert!(answer == "ok" || answer == "con_delayed", "{answer}");
            drop(TcpStream::connect(self.other.address).expect("lond listens"));
            drop(load);
            calls += 1;
            wait::let_pass(Duration::from_millis(20));
        }
        calls
    }
}

/// How often a log says that a program took over.
pub fn anew(log: &str) -> usize {
    log.matches(" started anew, ").count()
}

/// Has whoever loads stop, however a test ends: without that it would wait for them for ever.
pub struct Stopping<'a>(pub &'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn a_hundred_hups(network: Network, may_be_lost: bool) {
    let mut stage = Stage::set(network);
    let sent = std::thread::scope(|scope| {
        let stopping = Stopping(&stage.stop);
        let stage = &stage;
        let programs: Vec<_> =
            (0..PROGRAMS).map(|name| scope.spawn(move || stage.program(name, may_be_lost))).collect();
        let callers = scope.spawn(|| stage.callers());
        let busy = || {
            let from = stage.answered.load(Ordering::SeqCst);
            wait::until_true("the load to go on", || {
                let over = callers.is_finished() || programs.iter().any(|program| program.is_finished());
                over || stage.answered.load(Ordering::SeqCst) > from + 50
            });
        };
        let mut settled = None;
        for time in 1..=TIMES {
            busy();
            match time {
                SETTLED => settled = Some(stage.held()),
                TIMES => {
                    let (before, after) = (settled.expect("looked at"), stage.held());
                    assert_eq!(after.descriptors, before.descriptors, "descriptors");
                    for (after, before) in after.memory.into_iter().zip(before.memory) {
                        assert!(after <= before + MORE_MEMORY, "{after} KiB, and {before} KiB before");
                    }
                }
                _ => stage.hup(),
            }
        }
        drop(stopping);
        assert!(callers.join().expect("the callers") > TIMES as u64);
        programs.into_iter().map(|program| program.join().expect("a program")).collect::<Vec<u64>>()
    });
    stage.wait_delivered();
    stage.lonc.assert_running();
    stage.lond.assert_running();
    for log in [stage.one.log("lonc.log"), stage.other.log("lond.log")] {
        assert_eq!(anew(&log), TIMES, "each HUP was an exec");
        assert!(!log.contains(" ERROR "), "{log}");
    }
    let done = stage.counter.done();
    for (name, count) in sent.into_iter().enumerate() {
        let wanted: Vec<u64> = (1..=count).filter(|number| number % 5 == 0).collect();
        let good = Tally { messages: wanted.len(), ..Tally::default() };
        assert_eq!(Tally::of(&format!("do:{name}-"), &wanted, &done), good, "critical requests of {name}");
    }
}

#[test]
fn a_hundred_hups_of_both_programs_leave_no_scratch_on_the_secure_wire() {
    a_hundred_hups(Network::secure(&[CALLER, CALLED]), false);
}

#[test]
fn a_hundred_hups_of_both_programs_leave_no_scratch_on_the_classic_wire() {
    // Its link has no word for going away: what is on it when `lond` closes it has no answer, and
    // is told so.
    a_hundred_hups(Network::new(&[CALLER, CALLED]), true);
}
