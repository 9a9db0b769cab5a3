//! The programs behind `lond` on the secure wire, as they come.

use crate::common::local::Local;
use crate::common::pair::CALLED;
use crate::common::process;
use crate::common::secure_pair::TwoHosts;
use crate::common::wait;
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A program that serves one connection until its end before it takes the next: `while (accept) {
/// while (read) ... }`.
struct Serial {
    listener: UnixListener,
    open: Arc<Mutex<Option<UnixStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Serial {
    /// Answers each line with itself.
    fn echo(socket: &Path) -> Serial {
        let listener = UnixListener::bind(socket).expect("listen as a handler");
        let (accepting, open) = (listener.try_clone().expect("clone a listener"), Arc::default());
        let kept: Arc<Mutex<Option<UnixStream>>> = Arc::clone(&open);
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                *kept.lock().expect("open") = stream.try_clone().ok();
                let (mut reader, mut line) = (BufReader::new(&stream), Vec::new());
                while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                    if (&stream).write_all(&line).is_err() {
                        break;
                    }
                    line.clear();
                }
            }
        });
        Serial { listener, open, thread: Some(thread) }
    }
}

impl Drop for Serial {
    fn drop(&mut self) {
        let _ = nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let Some(open) = self.open.lock().expect("open").as_ref() {
            let _ = open.shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn a_program_that_serves_one_connection_at_a_time_answers_every_request_of_many_programs() {
    let mut both = TwoHosts::new();
    let socket = both.other.handler("one");
    both.other.set("handler.one", "timeout", "\"5s\"");
    let _program = Serial::echo(&socket);
    let (_lonc, _lond) = both.start();
    let mut clients: Vec<Local> = (0..20).map(|_| both.one.connect(CALLED)).collect();
    for round in 0..20 {
        // Plain requests at once, so that each wants a connection, and critical ones among them.
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(format!("one:{round}.{number}\ncritical:one:{round}.{number}c\n").as_bytes());
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.answer(), format!("one:{round}.{number}"));
            assert_eq!(client.answer(), format!("one:{round}.{number}c"));
        }
    }
}

#[test]
fn a_child_of_lond_that_is_killed_runs_at_most_one_message_again() {
    let both = TwoHosts::new();
    let (_lonc, lond) = both.start();
    let mut sent: HashMap<String, usize> = HashMap::new();
    let mut kills = 0;
    for round in 0..5 {
        let mut client = both.one.connect(CALLED);
        let texts: Vec<String> = (0..300).map(|number| format!("do:{round}.{number}")).collect();
        let lines: String = texts.iter().map(|text| format!("critical:{text}\n")).collect();
        let done = both.counter.done().len();
        client.send(lines.as_bytes());
        wait::until_true("some to be done", || both.counter.done().len() > done + 20);
        lond.children().iter().for_each(|&pid| process::signal(pid, Signal::SIGKILL));
        kills += 1;
        for text in &texts {
            let answer = client.answer();
            assert!(answer == "ok" || answer == "con_delayed", "{text}: {answer}");
            sent.insert(text.clone(), 0);
        }
        both.one.wait_link(CALLED, "up");
    }
    wait::until_true("all to arrive", || {
        let done = both.counter.done();
        sent.keys().all(|text| done.contains(text))
    });
    for text in both.counter.done() {
        *sent.get_mut(&text).expect("nothing else is done") += 1;
    }
    let again: usize = sent.values().map(|times| times - 1).sum();
    assert!(again <= kills, "{again} run again after {kills} kills");
}
