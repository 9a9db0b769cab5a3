//! Two whole hosts on the secure wire: what is slow delays nothing else.

use crate::common::handler::Program;
use crate::common::pair::{CALLED, CALLER};
use crate::common::secure_caller::SecureCaller;
use crate::common::secure_pair::TwoHosts;
use crate::common::wait::{Gate, until_true};
use crate::common::{process, wait};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Most memory of a link child, in KiB: two windows, as many lines under way, and the program
/// itself.
const MEMORY: u64 = 64 << 10;

#[test]
fn both_hosts_dial_each_other_at_once_and_pong_asks_back() {
    let both = TwoHosts::new();
    let (_lond, _lond_back) = (both.other.lond(), both.one.lond());
    let (_lonc, _lonc_back) = (both.one.lonc(), both.other.lonc());
    both.one.wait_link(CALLED, "up");
    both.other.wait_link(CALLER, "up");
    assert_eq!(both.one.ask(CALLED, "pong"), "msul1:msua1");
    assert_eq!(both.other.ask(CALLER, "pong"), "msua1:msul1");
    for (host, caller) in [(&both.one, CALLED), (&both.other, CALLER)] {
        let status = host.lond_status().expect("lond's status");
        let links = status["links"].as_array().expect("links");
        assert_eq!(links.len(), 1, "one link each way: {status}");
        assert_eq!((&links[0]["caller"], &links[0]["private"]), (&caller.into(), &true.into()));
        assert_eq!(links[0]["pin"], both.network.key(caller).pin());
    }
}

#[test]
fn a_request_that_takes_long_delays_none_of_the_fast_ones_beside_it() {
    let mut both = TwoHosts::new();
    let gate = Gate::default();
    let slow = Arc::new(AtomicU64::new(0));
    let socket = both.other.handler("job");
    let _program = Program::start(&socket, {
        let (gate, slow) = (gate.clone(), slow.clone());
        move |line| {
            if line == b"job:slow" {
                slow.fetch_add(1, Ordering::SeqCst);
                gate.pass();
            }
            Some(line.to_vec())
        }
    });
    let (_lonc, _lond) = both.start();
    // The slow ones first, of several programs, and all of one handler.
    let mut waiting: Vec<_> = (0..3).map(|_| both.one.connect(CALLED)).collect();
    for client in &mut waiting {
        client.send(b"job:slow\n");
    }
    until_true("the slow requests in the handler", || slow.load(Ordering::SeqCst) == 3);
    // For so long that a program which had not read them would be waited for.
    wait::let_pass(Duration::from_millis(1200));
    let mut client = both.one.connect(CALLED);
    let mut writer = client.writer();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            use std::io::Write;
            let lines: String = (0..5000).map(|number| format!("job:{number}\n")).collect();
            writer.write_all(lines.as_bytes()).expect("send");
        });
        for number in 0..5000 {
            assert_eq!(client.answer(), format!("job:{number}"));
        }
    });
    // All fast ones were answered, and the slow ones still wait.
    assert_eq!(both.one.status(CALLED).expect("a status")["in_flight"], 3);
    gate.open();
    for client in &mut waiting {
        assert_eq!(client.answer(), "job:slow");
    }
}

#[test]
fn lines_of_a_mebibyte_pass_through_both_programs_and_the_handler() {
    let mut both = TwoHosts::new();
    let socket = both.other.handler("echo");
    let _program = Program::echo(&socket);
    let (_lonc, _lond) = both.start();
    let long = |letter: &str| format!("echo:{}", letter.repeat((1 << 20) - "critical:echo:".len()));
    std::thread::scope(|scope| {
        for letter in ["a", "b", "c"] {
            let mut client = both.one.connect(CALLED);
            scope.spawn(move || {
                for prefix in ["", "critical:"] {
                    client.send(format!("{prefix}{}\n", long(letter)).as_bytes());
                    assert!(client.answer_bytes() == long(letter).into_bytes(), "{letter} came back changed");
                }
            });
        }
    });
}

#[test]
fn a_caller_that_reads_no_answers_costs_lond_a_bounded_memory() {
    let mut both = TwoHosts::new();
    let socket = both.other.handler("echo");
    let _program = Program::echo(&socket);
    let lond = both.other.lond();
    let key = both.network.key(CALLER);
    let mut deaf = SecureCaller::open(&key, both.other.address, CALLER, CALLED);
    // 64 MiB of requests and nothing read: neither answers nor windows, so that it is the window
    // that bounds them.
    let line = format!("echo:{}", "x".repeat(100_000));
    for _ in 0..640 {
        deaf.request(line.as_bytes());
    }
    wait::let_pass(Duration::from_millis(500));
    let memory = process::peak_memory(lond.only_child()).expect("the child lives");
    assert!(memory < MEMORY, "{memory} KiB");
    // And when it reads, everything is there.
    for _ in 0..640 {
        let (_, answer) = deaf.next_answer().expect("an answer");
        assert!(answer == line.as_bytes(), "an answer that was changed");
    }
}

#[test]
fn a_caller_that_sends_beyond_the_window_loses_the_link() {
    let both = TwoHosts::new();
    let _lond = both.other.lond();
    let key = both.network.key(CALLER);
    let mut greedy = SecureCaller::open(&key, both.other.address, CALLER, CALLED);
    let window: u64 = greedy.hello["window"].parse().expect("a window");
    greedy.writer.allow(64 * window).expect("pretend");
    // Chunks of messages that never end: nothing of it can be given back.
    let chunk = vec![b'x'; 16384];
    for id in 1.. {
        let frame = crate::common::frames::Frame { kind: 2, flags: 1, id, body: chunk.clone() };
        if id * 16448 > 2 * window || greedy.writer.frame(&frame).is_err() {
            break;
        }
    }
    let said = greedy.last_words();
    assert!(said.is_empty() || said.contains("window") || said.contains("more"), "{said}");
}
