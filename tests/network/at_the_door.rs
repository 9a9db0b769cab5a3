//! Who gets into `lond` while others crowd at its door, and what one host alone can have of it.

use crate::common::frames::{self, Frame, Head};
use crate::common::handler;
use crate::common::network::Network;
use crate::common::pair::{CALLED, CALLER};
use crate::common::secure_caller::{self, SecureCaller};
use crate::common::secure_pair::TwoHosts;
use crate::common::{process, wait};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Children of one caller.
const CHILDREN_OF_ONE: usize = 8;

/// Says at its end that it is time to go.
struct Going<'a>(&'a AtomicBool);

impl Drop for Going<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_stranger_with_hundreds_of_silent_connections_a_second_keeps_no_host_of_the_table_away() {
    const A_SECOND: u32 = 430;
    let both = TwoHosts::new();
    let lond = both.other.lond();
    let (stop, to) = (AtomicBool::new(false), both.other.address);
    std::thread::scope(|scope| {
        // Whatever this finds, the crowd goes: the scope waits for it.
        let going = Going(&stop);
        let crowd = scope.spawn(|| {
            // From 127.0.0.1, which is no host's.
            let (begun, mut made, mut open) = (Instant::now(), 0, Vec::new());
            while !stop.load(Ordering::SeqCst) {
                let due = (begun.elapsed().as_secs_f64() * f64::from(A_SECOND)) as usize;
                while made < due {
                    made += 1;
                    open.extend(TcpStream::connect(to));
                }
                // Those that were closed need not be kept, and the oldest were.
                if open.len() > 600 {
                    open.drain(..300);
                }
                wait::let_pass(Duration::from_millis(2));
            }
            made
        });
        wait::until_true("a crowd", || {
            both.other.lond_status().is_some_and(|status| status["crowded"].as_u64() > Some(300))
        });
        // Even from the crowd's own address, where all have one share: who speaks takes a silent
        // one's place.
        let key = both.network.key(CALLER);
        let hello = secure_caller::hello(CALLER, CALLED);
        let tries = (1..=10).find(|_| SecureCaller::open_with(&key, both.other.address, &hello).is_ok());
        assert!(tries.is_some(), "ten calls from the crowd's address in vain");
        let begun = Instant::now();
        let lonc = both.one.lonc();
        both.one.wait_link(CALLED, "up");
        let took = begun.elapsed();
        assert_eq!(both.one.ask(CALLED, "ping"), CALLED);
        // Again, while it goes on.
        lonc.signal(nix::sys::signal::Signal::SIGHUP);
        wait::until_true("a link that is new", || {
            both.one.log("lonc.log").contains("started anew") && both.one.ask(CALLED, "ping") == CALLED
        });
        // As many as may be opening, the link, and those whose end was not noticed yet.
        let children = lond.children().len();
        assert!(children < 100, "{children}");
        assert!(took < Duration::from_secs(15), "it took {took:?}");
        drop(going);
        assert!(crowd.join().expect("the crowd") > 300);
    });
    let lines = both.other.log("lond.log").matches("in the opening dialogue").count();
    assert!(lines <= 3, "{lines} lines");
}

#[test]
fn a_host_that_opens_link_after_link_with_slow_requests_has_a_few_children_and_others_get_in() {
    const OTHER: &str = "msua2";
    let network = Network::secure(&[CALLER, OTHER, CALLED]);
    let (one, mut called) = (network.host(OTHER), network.host(CALLED));
    called.set("lond", "drain_timeout", "\"20s\"");
    let (over, waits) = std::sync::mpsc::channel::<()>();
    let waits = std::sync::Mutex::new(waits);
    let slow = handler::Program::start(&called.handler("slow"), move |_| {
        let _ = waits.lock().map(|waits| waits.recv());
        Some(b"at last".to_vec())
    });
    let lond = called.lond();
    let (key, mut links, mut most) = (network.key(CALLER), Vec::new(), 0);
    for _ in 0..60 {
        let mut link = SecureCaller::open(&key, called.address, CALLER, CALLED);
        link.request(b"slow:request");
        links.push(link);
        most = most.max(lond.children().len());
    }
    // One that was just killed, and one that is being opened.
    assert!(most <= CHILDREN_OF_ONE + 3, "{most} children");
    assert!(process::descriptors(lond.pid()) < 60, "{}", process::descriptors(lond.pid()));
    let mut newest = links.pop().expect("a link");
    assert_eq!(newest.ask("ping"), CALLED);
    let lonc = one.lonc();
    one.wait_link(CALLED, "up");
    assert_eq!(one.ask(CALLED, "ping"), CALLED);
    assert!(called.log("lond.log").contains("links that have not ended"), "{}", called.log("lond.log"));
    drop((links, newest, lonc));
    drop(over);
    wait::until_true("all to have ended", || lond.children().is_empty());
    drop(slow);
}

/// Bytes that a process, and children of it that were reaped, have written to files and sockets.
fn written(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).expect("read what it wrote");
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.expect("a count").parse().expect("a number")
}

#[test]
fn a_host_that_dials_again_and_again_has_its_record_written_once() {
    const LENGTH: usize = 10_000;
    const MESSAGES: u64 = 100;
    const DIALS: u64 = 60;
    let mut both = TwoHosts::new();
    let echo = handler::Program::echo(&both.other.handler("echo"));
    let lond = both.other.lond();
    let key = both.network.key(CALLER);
    let dial = || SecureCaller::open(&key, both.other.address, CALLER, CALLED);
    let mut link = dial();
    let text = format!("echo:{}", "x".repeat(LENGTH));
    let asked: Vec<u64> = (1..=MESSAGES)
        .map(|sequence| link.critical(&Head { sequence, settled: 1, key: String::new() }, text.as_bytes()))
        .collect();
    asked.into_iter().for_each(|id| assert_eq!(link.answer(id), text));
    drop(link);
    let rest = || wait::until_true("every child to be gone", || lond.children().is_empty());
    rest();
    let before = written(lond.pid());
    for _ in 0..DIALS {
        // A repeat is answered from the record, which is open by then.
        assert_eq!(dial().ask_critical(1, 1, "", &text), text);
    }
    rest();
    let each = (written(lond.pid()) - before) / DIALS;
    assert!(each < 5 * LENGTH as u64, "{each} bytes a dial, of a record of {MESSAGES} times {LENGTH}");
    drop(echo);
}

/// A handler that answers each connection with almost all of a long line, and ends it when the gate
/// opens.
struct Begins {
    said: Arc<AtomicUsize>,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Begins {
    const LENGTH: usize = 4_000_000;

    fn new() -> Begins {
        Begins { said: Arc::default(), gate: Arc::default() }
    }

    fn serve(&self, socket: &Path) {
        let listener = UnixListener::bind(socket).expect("listen as a handler");
        let (said, gate) = (self.said.clone(), self.gate.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let (said, gate) = (said.clone(), gate.clone());
                std::thread::spawn(move || Begins::answer(connection, &said, &gate));
            }
        });
    }

    fn answer(connection: UnixStream, said: &AtomicUsize, gate: &(Mutex<bool>, Condvar)) {
        let mut lines = BufReader::new(connection);
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|count| count > 0) {
            let piece = [b'x'; 50_000];
            for _ in 0..Begins::LENGTH / piece.len() {
                if lines.get_mut().write_all(&piece).is_err() {
                    return;
                }
                said.fetch_add(piece.len(), Ordering::SeqCst);
            }
            let (open, opened) = gate;
            let closed = open.lock().expect("the gate");
            drop(opened.wait_while(closed, |open| !*open).expect("the gate"));
            if lines.get_mut().write_all(b"\n").is_err() {
                return;
            }
            line.clear();
        }
    }
}

#[test]
fn answers_that_many_handlers_begin_and_do_not_end_cost_a_child_of_lond_less_than_64_mib() {
    const HANDLERS: u64 = 3;
    let mut both = TwoHosts::new();
    both.other.set("lond", "max_line", "\"4MiB\"");
    let begins = Begins::new();
    for number in 0..HANDLERS {
        begins.serve(&both.other.handler(&format!("long{number}")));
    }
    let lond = both.other.lond();
    let mut hello = secure_caller::hello(CALLER, CALLED);
    hello.insert("max_line".to_owned(), (4 << 20).to_string());
    hello.insert("window".to_owned(), (9 << 20).to_string());
    let mut link =
        SecureCaller::open_with(&both.network.key(CALLER), both.other.address, &hello).expect("a link");
    assert_eq!(link.ask("ping"), CALLED);
    let child = lond.only_child();
    let ids: Vec<u64> = (0..8 * HANDLERS)
        .map(|number| link.request(format!("long{}:", number % HANDLERS).as_bytes()))
        .collect();
    // What lond does not take stays with the handlers: all have said what they can.
    let mut before = 0;
    wait::until_true("the handlers to be held up", || {
        let said = begins.said.load(Ordering::SeqCst);
        said > 8 << 20 && std::mem::replace(&mut before, said) == said
    });
    // That is no reason not to serve others.
    assert_eq!(link.ask("ping"), CALLED);
    *begins.gate.0.lock().expect("the gate") = true;
    begins.gate.1.notify_all();
    for id in ids {
        assert_eq!(link.answer(id).len(), Begins::LENGTH);
    }
    let most = process::peak_memory(child).expect("the child lives");
    assert!(most < 64 << 10, "{most} KiB");
}

#[test]
fn the_shortest_requests_that_the_largest_window_has_room_for_cost_a_child_of_lond_less_than_64_mib() {
    const WINDOW: u64 = 6 << 20;
    let mut both = TwoHosts::new();
    both.other.set("lond", "window", &WINDOW.to_string());
    // It takes what its socket has room for, and never answers.
    let _never = UnixListener::bind(both.other.handler("never")).expect("listen as a handler");
    let lond = both.other.lond();
    let hello = secure_caller::hello(CALLER, CALLED);
    let mut link =
        SecureCaller::open_with(&both.network.key(CALLER), both.other.address, &hello).expect("a link");
    let each = Frame::new(frames::REQUEST, 0, "never:").cost();
    // Room for one more, which is answered when all have been taken.
    let requests: Vec<Frame> =
        (1..WINDOW / each).map(|id| Frame::new(frames::REQUEST, id, "never:")).collect();
    let last = requests.len() as u64 + 1;
    link.writer.queue(requests).expect("send to lond");
    link.writer.queue([Frame::new(frames::REQUEST, last, "ping")]).expect("send to lond");
    let answer = link.frame().expect("a link").expect("an answer");
    assert_eq!((answer.kind, answer.id, answer.text()), (frames::ANSWER, last, CALLED.to_owned()));
    let most = process::peak_memory(lond.only_child()).expect("the child lives");
    println!("at most {most} KiB");
    assert!(most < 64 << 10, "{most} KiB");
}

#[test]
fn a_host_that_fills_its_record_to_all_its_bounds_costs_a_child_of_lond_less_than_64_mib() {
    const LENGTH: usize = 64 * 1024;
    const MESSAGES: u64 = 400;
    let mut both = TwoHosts::new();
    // The longest answer that is kept, each byte of which takes two in the record.
    let answer = |_: &[u8]| Some(vec![b'\\'; LENGTH]);
    let long = handler::Program::start(&both.other.handler("long"), answer);
    let lond = both.other.lond();
    let key = both.network.key(CALLER);
    let dial = |epoch: char| {
        let mut hello = secure_caller::hello(CALLER, CALLED);
        hello.insert("epoch".to_owned(), epoch.to_string().repeat(32));
        SecureCaller::open_with(&key, both.other.address, &hello).expect("a link")
    };
    let mut largest = 0;
    for epoch in ['a', 'a', 'b'] {
        let mut link = dial(epoch);
        assert_eq!(link.ask("ping"), CALLED);
        let child = lond.only_child();
        for sequence in 1..=MESSAGES {
            let answer = link.ask_critical(sequence, 1, &format!("key-{epoch}-{sequence}"), "long:");
            assert!(
                answer.starts_with("\\\\") || answer.starts_with("error:answered before"),
                "{answer:.80}"
            );
        }
        largest = largest.max(process::peak_memory(child).expect("the child lives"));
        drop(link);
        wait::until_true("the child to be gone", || lond.children().is_empty());
    }
    let record = both.other.dir.join("delayed/.received").join(CALLER).join("answers");
    let size = std::fs::metadata(record).expect("a record").len();
    assert!(size > 16 << 20, "{size} bytes are no full record");
    assert!(largest < 64 << 10, "{largest} KiB");
    drop(long);
}
