//! What callers may take of `lond`: connections, time, memory.

use crate::common::caller::Caller;
use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::program::Program;
use crate::common::{process, wait};
use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, Instant};

struct Limited {
    lond: Program,
    host: Host,
    from: IpAddr,
    _network: Network,
}

fn start(settings: &[(&str, &str)]) -> Limited {
    let network = Network::new(&[CALLER, CALLED]);
    let mut host = network.host(CALLED);
    for (key, value) in settings {
        host.set("lond", key, value);
    }
    let lond = host.lond();
    Limited { lond, host, from: network.address(CALLER).ip(), _network: network }
}

impl Limited {
    fn connect(&self) -> Caller {
        Caller::connect(self.from, self.host.address).expect("connect to lond")
    }

    fn open(&self) -> Caller {
        Caller::open(self.from, self.host.address, CALLED).0
    }
}

#[test]
fn a_caller_that_does_not_finish_the_opening_dialogue_is_closed_at_its_deadline() {
    let limited = start(&[("opening_timeout", "\"1s\"")]);
    let started = Instant::now();
    let mut silent = limited.connect();
    let mut half_way = limited.connect();
    assert!(!half_way.ask("init").is_empty());
    // A trickle of bytes is no progress.
    let mut trickling = limited.connect();
    let mut writer = trickling.writer();
    let trickle = std::thread::spawn(move || {
        while writer.write_all(b"x").is_ok() {
            wait::let_pass(Duration::from_millis(100));
        }
    });
    for caller in [&mut silent, &mut half_way, &mut trickling] {
        assert_eq!(caller.hear(), None);
    }
    assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    drop(trickling);
    trickle.join().expect("the trickle");
    wait::until_true("the children to end", || limited.lond.children().is_empty());
    assert_eq!(limited.open().ask("ping"), CALLED);
}

#[test]
fn beyond_max_opening_new_connections_are_closed_at_once_and_open_links_go_on() {
    let limited = start(&[("max_opening", "3"), ("opening_timeout", "\"3s\"")]);
    let mut open = limited.open();
    assert_eq!(open.ask("ping"), CALLED);
    let mut waiting: Vec<_> = (0..3).map(|_| limited.connect()).collect();
    for caller in &mut waiting {
        assert!(!caller.ask("init").is_empty());
    }
    let started = Instant::now();
    for _ in 0..5 {
        let mut refused = limited.connect();
        let answer = refused.hear();
        assert!(answer.is_none() || answer.as_deref() == Some("refused"), "{answer:?}");
    }
    assert!(started.elapsed() < Duration::from_millis(2500), "not at once: {:?}", started.elapsed());
    assert_eq!(open.ask("ping"), CALLED);
    for caller in &mut waiting {
        assert_eq!(caller.hear(), None);
    }
    // Each counts until its process is gone.
    wait::until_true("only the open link's child to be left", || limited.lond.children().len() == 1);
    assert_eq!(limited.open().ask("ping"), CALLED);
}

#[test]
fn a_gigabyte_without_a_newline_takes_no_memory_and_is_answered_with_an_error() {
    const LENGTH: usize = 200 << 20;
    let limited = start(&[]);
    let mut caller = limited.open();
    assert_eq!(caller.ask("ping"), CALLED);
    let child = limited.lond.only_child();
    let mut writer = caller.writer();
    let sender = std::thread::spawn(move || {
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..LENGTH / chunk.len() {
            writer.write_all(&chunk).expect("send");
        }
        writer.write_all(b"\nping\n").expect("send");
    });
    let answer = caller.hear().expect("an answer");
    assert!(answer.starts_with("error:"), "{answer:.100}");
    assert_eq!(caller.hear().as_deref(), Some(CALLED));
    sender.join().expect("the sender");
    let memory = process::peak_memory(child).expect("the child lives");
    assert!(memory < 64 << 10, "{memory} KiB");
}

#[test]
fn an_endless_flood_before_the_dialogue_is_refused_and_ended_in_bounded_memory() {
    let limited = start(&[("opening_timeout", "\"2s\"")]);
    let mut caller = limited.connect();
    let mut writer = caller.writer();
    let sender = std::thread::spawn(move || {
        let chunk = vec![b'x'; 1 << 20];
        // Only lond ends this.
        while writer.write_all(&chunk).is_ok() {}
    });
    let child = limited.lond.only_child();
    let mut memory = 0;
    wait::until_true("the child to end", || {
        memory = process::peak_memory(child).unwrap_or(memory);
        !process::alive(child)
    });
    assert!((1..64 << 10).contains(&memory), "{memory} KiB");
    assert_eq!(caller.hear().as_deref().unwrap_or("refused"), "refused");
    drop(caller);
    sender.join().expect("the sender");
    assert_eq!(limited.open().ask("ping"), CALLED);
}

#[test]
fn a_caller_that_does_not_read_its_answers_takes_no_memory_and_loses_none() {
    const COUNT: usize = 300_000;
    let limited = start(&[]);
    let mut caller = limited.open();
    let child = limited.lond.only_child();
    let mut writer = caller.writer();
    let sender = std::thread::spawn(move || {
        let all = "unknown request number nothing\n".repeat(COUNT);
        writer.write_all(all.as_bytes()).expect("send");
    });
    // It reads nothing until lond reads no more, which shows in lond doing nothing.
    wait::until_true("lond to rest", || {
        let before = process::ticks(child);
        wait::let_pass(Duration::from_millis(300));
        process::ticks(child) == before
    });
    for _ in 0..COUNT {
        assert_eq!(caller.hear_bytes().as_deref(), Some(&b"unknown_cmd"[..]));
    }
    sender.join().expect("the sender");
    let memory = process::peak_memory(child).expect("the child lives");
    assert!(memory < 64 << 10, "{memory} KiB");
}

#[test]
fn callers_that_come_and_go_leave_nothing_behind() {
    let limited = start(&[]);
    drop(limited.open());
    wait::until_true("the child to end", || limited.lond.children().is_empty());
    let descriptors = process::descriptors(limited.lond.pid());
    for number in 0..100 {
        match number % 3 {
            0 => drop(limited.connect()),
            1 => assert!(!limited.connect().ask("init").is_empty()),
            _ => assert_eq!(limited.open().ask("ping"), CALLED),
        }
    }
    wait::until_true("every child to end", || {
        limited.lond.children().is_empty() && process::zombies(limited.lond.pid()).is_empty()
    });
    wait::until_true("no descriptor to be leaked", || {
        process::descriptors(limited.lond.pid()) <= descriptors
    });
}
