//! Requests that `lond` passes to a local program's Unix socket.

use crate::common::caller::Caller;
use crate::common::handler;
use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::program::Program;
use crate::common::wait::{self, Gate};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A running lond with the handler `echo`, whose program is the test's business.
struct Serving {
    _lond: Program,
    host: Host,
    network: Network,
    socket: PathBuf,
}

fn serving(settings: &[(&str, &str)]) -> Serving {
    let network = Network::new(&[CALLER, CALLED]);
    let mut host = network.host(CALLED);
    let socket = host.handler("echo");
    for (key, value) in settings {
        host.set("handler.echo", key, value);
    }
    let lond = host.lond();
    Serving { _lond: lond, host, network, socket }
}

impl Serving {
    fn open(&self) -> Caller {
        Caller::open(self.network.address(CALLER).ip(), self.host.address, CALLED).0
    }
}

#[test]
fn a_handler_gets_the_whole_request_and_its_answers_come_in_order_among_built_in_ones() {
    let serving = serving(&[]);
    let program = handler::Program::echo(&serving.socket);
    let mut caller = serving.open();
    assert_eq!(caller.ask("echo"), "echo");
    assert_eq!(caller.ask("echo:"), "echo:");
    assert_eq!(caller.ask("echoes"), "unknown_cmd");
    let mut writer = caller.writer();
    let sender = std::thread::spawn(move || {
        let all: String = (0..10_000).map(|number| format!("echo:{number}\nping\n")).collect();
        writer.write_all(all.as_bytes()).expect("send ahead");
    });
    for number in 0..10_000 {
        assert_eq!(caller.hear(), Some(format!("echo:{number}")));
        assert_eq!(caller.hear().as_deref(), Some(CALLED));
    }
    sender.join().expect("the sender");
    assert_eq!(program.connections(), 1, "a request each its own connection");
}

#[test]
fn many_requests_are_in_flight_at_a_handler_at_once() {
    let serving = serving(&[]);
    let waiting = Mutex::new(Vec::new());
    // Answers nothing before it has the hundredth request, and then all of them.
    let _program = handler::Program::start(&serving.socket, move |line| {
        let mut waiting = waiting.lock().expect("the requests");
        waiting.push(line.to_vec());
        (waiting.len() == 100).then(|| waiting.join(&b'\n'))
    });
    let mut caller = serving.open();
    let all: String = (0..100).map(|number| format!("echo:{number}\n")).collect();
    caller.send(all.as_bytes());
    for number in 0..100 {
        assert_eq!(caller.hear(), Some(format!("echo:{number}")));
    }
}

#[test]
fn bytes_and_enciphered_requests_reach_a_handler_unchanged() {
    let serving = serving(&[]);
    let _program = handler::Program::echo(&serving.socket);
    let from = serving.network.address(CALLER).ip();
    let (mut caller, cipher) = Caller::open_with_cipher(from, serving.host.address, CALLED, CALLER);
    let line = b"echo:\x00\xff\r caf\xc3\xa9 ";
    caller.send(&[line.as_slice(), b"\n"].concat());
    assert_eq!(caller.hear_bytes().as_deref(), Some(&line[..]));
    caller.send(&[cipher.seal(line), b"\n".to_vec()].concat());
    assert_eq!(cipher.open(&caller.hear_bytes().expect("an answer")), line);
}

#[test]
fn a_handler_that_is_away_is_an_error_for_its_requests_only_and_is_found_when_it_comes() {
    let serving = serving(&[]);
    let mut caller = serving.open();
    caller.send(b"echo:1\nping\necho:2\n");
    assert!(caller.hear().is_some_and(|answer| answer.starts_with("error:")));
    assert_eq!(caller.hear().as_deref(), Some(CALLED));
    assert!(caller.hear().is_some_and(|answer| answer.starts_with("error:")));
    let _program = handler::Program::echo(&serving.socket);
    assert_eq!(caller.ask("echo:3"), "echo:3");
}

#[test]
fn a_handler_that_stays_away_is_logged_once_however_many_requests_come() {
    let serving = serving(&[]);
    let mut caller = serving.open();
    for number in 0..50 {
        assert!(caller.ask(&format!("echo:{number}")).starts_with("error:"));
    }
    let log = serving.host.log("lond.log");
    assert_eq!(log.lines().filter(|line| line.contains("handler echo")).count(), 1, "{log}");
}

#[test]
fn a_handler_that_is_restarted_fails_what_was_in_flight_and_serves_what_comes_after() {
    let serving = serving(&[]);
    let mut caller = serving.open();
    for round in 0..5 {
        let program = handler::Program::start(&serving.socket, |line| {
            (!line.starts_with(b"echo:stuck")).then(|| line.to_vec())
        });
        assert_eq!(caller.ask(&format!("echo:{round}")), format!("echo:{round}"));
        caller.send(b"echo:stuck\nping\n");
        wait::until_true("the program to be connected to", || program.connections() == 1);
        drop(program);
        assert!(caller.hear().is_some_and(|answer| answer.starts_with("error:")));
        assert_eq!(caller.hear().as_deref(), Some(CALLED));
    }
}

#[test]
fn a_handler_slow_past_its_timeout_fails_that_request_only_and_its_late_answer_goes_to_nobody() {
    let serving = serving(&[("timeout", "\"1s\"")]);
    let gate = Gate::default();
    let waits = gate.clone();
    let _program = handler::Program::start(&serving.socket, move |line| {
        if line == b"echo:slow" {
            waits.pass();
        }
        Some(line.to_vec())
    });
    let mut caller = serving.open();
    assert_eq!(caller.ask("echo:before"), "echo:before");
    let started = Instant::now();
    caller.send(b"echo:slow\nping\n");
    assert!(caller.hear().is_some_and(|answer| answer.starts_with("error:")));
    assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
    assert_eq!(caller.hear().as_deref(), Some(CALLED));
    gate.open();
    wait::until_true("the handler to serve again", || {
        let answer = caller.ask("echo:after");
        assert!(answer == "echo:after" || answer.starts_with("error:"), "{answer}");
        answer == "echo:after"
    });
    for number in 0..100 {
        assert_eq!(caller.ask(&format!("echo:{number}")), format!("echo:{number}"));
    }
}

#[test]
fn a_handler_that_answers_too_much_is_never_believed() {
    let serving = serving(&[]);
    let _program = handler::Program::start(&serving.socket, |line| Some([line, b"\nstray\nstray"].concat()));
    let mut caller = serving.open();
    for number in 0..20 {
        let answer = caller.ask(&format!("echo:{number}"));
        assert!(answer == format!("echo:{number}") || answer.starts_with("error:"), "{answer}");
    }
}

#[test]
fn a_handler_serves_only_those_it_allows() {
    for (allow, served) in [
        ("[\"*\"]", true),
        ("[\"msua1\"]", true),
        ("[\"role:access\"]", true),
        ("[\"domain:test\"]", true),
        ("[\"msul1\", \"role:library\", \"domain:other\"]", false),
        ("[]", false),
    ] {
        let serving = serving(&[("allow", allow)]);
        let _program = handler::Program::echo(&serving.socket);
        let expected = if served { "echo:hello" } else { "refused" };
        assert_eq!(serving.open().ask("echo:hello"), expected, "{allow}");
    }
}
