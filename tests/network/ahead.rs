//! Two whole hosts on the secure wire, and a handler that gets several plain requests at once on
//! each connection, since it is quick; and `lon bench` between the two.

use crate::common::pair::CALLED;
use crate::common::secure_pair::TwoHosts;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Requests that are sent ahead.
const MANY: usize = 20_000;

/// Requests that a handler can have in all, beside one on each connection.
const AHEAD: usize = 16 * 15;

/// How often each request was run.
type Runs = Arc<Mutex<HashMap<String, usize>>>;

/// A program that gives back each line, and closes a connection behind so many; what it has run.
fn closing_behind(lines: usize, socket: &Path) -> Runs {
    let (listener, runs) = (UnixListener::bind(socket).expect("listen"), Runs::default());
    let shared = runs.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, runs) = (stream.expect("a connection"), shared.clone());
            std::thread::spawn(move || {
                let requests = BufReader::new(&stream).lines();
                for request in requests.map_while(Result::ok).take(lines) {
                    *runs.lock().expect("runs").entry(request.clone()).or_default() += 1;
                    if (&stream).write_all(format!("{request}\n").as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    runs
}

/// The answers to as many requests ahead as there are, of which those that are no answers of the
/// program's are left out; what the program has run.
fn answers(lines: usize) -> (Vec<String>, Runs) {
    let mut both = TwoHosts::new();
    let runs = closing_behind(lines, &both.other.handler("job"));
    let (_lonc, _lond) = both.start();
    let mut client = both.one.connect(CALLED);
    let mut writer = client.writer();
    let answers = std::thread::scope(|scope| {
        scope.spawn(move || {
            let all: String = (0..MANY).map(|number| format!("job:{number}\n")).collect();
            writer.write_all(all.as_bytes()).expect("send");
        });
        (0..MANY).map(|_| client.answer()).collect()
    });
    (answers, runs)
}

#[test]
fn what_a_program_that_closes_its_connections_was_given_ahead_is_answered_once_and_run_once() {
    let (answers, runs) = answers(100);
    let mut lost = 0;
    for (number, answer) in answers.iter().enumerate() {
        if answer.starts_with("error:job: connection closed by the program") {
            lost += 1;
        } else {
            assert_eq!(*answer, format!("job:{number}"));
        }
    }
    assert!(lost <= AHEAD, "{lost} lost");
    let runs = runs.lock().expect("runs");
    assert!(runs.values().all(|times| *times == 1), "{runs:?}");
    assert_eq!(runs.len(), MANY - lost, "what was run was answered");
}

#[test]
fn a_program_that_answers_one_request_a_connection_never_reads_a_second_one() {
    let (answers, runs) = answers(1);
    // It may close while the next is on its way, which it then has not read.
    let unread = "error:job: connection closed by the program before it had read the request";
    let lost = answers.iter().filter(|answer| *answer == unread).count();
    for (number, answer) in answers.iter().enumerate() {
        assert!(*answer == format!("job:{number}") || answer == unread, "{number}: {answer}");
    }
    let runs = runs.lock().expect("runs");
    assert!(runs.values().all(|times| *times == 1), "{runs:?}");
    assert_eq!(runs.len(), MANY - lost, "what was run was answered");
}

#[test]
fn a_user_measures_a_link_without_a_handler_and_with_one() {
    let mut both = TwoHosts::new();
    let runs = closing_behind(usize::MAX, &both.other.handler("job"));
    let (_lonc, _lond) = both.start();
    let measured = |arguments: &[&str]| {
        let output = both.one.lon(&[&["bench", CALLED, "--for", "300ms", "--json"], arguments].concat());
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON")
    };
    let built_in = measured(&[]);
    assert_eq!(built_in["peer"], CALLED);
    for (place, name) in ["round trip", "rate", "throughput"].into_iter().enumerate() {
        let work = &built_in["works"][place];
        assert!(work["name"] == name && work["answered"].as_u64() > Some(0), "{work}");
        assert_eq!(work["others"], serde_json::json!({}));
    }
    let work = &measured(&["job:%", "--programs", "2", "--ahead", "8", "--size", "64"])["works"][0];
    // One was asked before the count began.
    let ran = runs.lock().expect("runs").len() as u64;
    assert!(work["answered"] == ran - 1 && ran > 16, "{ran}: {work}");
}
