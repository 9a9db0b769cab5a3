//! Handlers that are away, that go while they have a message, and that come back: no critical
//! message is lost by it.

use crate::common::handler::Program as Handler;
use crate::common::local::Local;
use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::program::Program;
use crate::common::wait;
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Two whole hosts; `pay` and `mail` are handlers of the second, whose programs are the test's
/// business.
struct Away {
    lonc: Program,
    lond: Program,
    one: Host,
    other: Host,
    pay: PathBuf,
    mail: PathBuf,
    done: Arc<Mutex<Vec<String>>>,
    _network: Network,
}

fn away() -> Away {
    let network = Network::secure(&[CALLER, CALLED]);
    let (one, mut other) = (network.host(CALLER), network.host(CALLED));
    let (pay, mail) = (other.handler("pay"), other.handler("mail"));
    let lond = other.lond();
    let lonc = one.lonc();
    one.wait_link(CALLED, "up");
    Away { lonc, lond, one, other, pay, mail, done: Arc::default(), _network: network }
}

impl Away {
    /// A program that does what it is asked; without an answer where `refuses` says so.
    fn program(&self, socket: &Path, refuses: impl Fn(usize) -> bool + Send + Sync + 'static) -> Handler {
        let done = self.done.clone();
        Handler::start(socket, move |line| {
            let mut done = done.lock().expect("done");
            done.push(String::from_utf8_lossy(line).into_owned());
            (!refuses(done.len())).then(|| b"done".to_vec())
        })
    }

    fn done(&self) -> Vec<String> {
        self.done.lock().expect("done").clone()
    }

    fn ask(&self, request: &str) -> String {
        Local::connect(&self.one.socket(CALLED)).ask(request)
    }

    fn wait_done(&self, count: usize) {
        wait::until_true("the messages to be done", || self.done().len() >= count);
        self.one.wait_delivered(CALLED);
    }

    /// Waits until lond says so of a handler.
    fn wait_handler(&self, name: &str, holds: impl Fn(&serde_json::Value) -> bool) {
        let look = || {
            let status = self.other.lond_status()?;
            let handler = status["handlers"].as_array()?.iter().find(|handler| handler["name"] == name)?;
            holds(handler).then_some(())
        };
        if wait::patiently(look).is_none() {
            panic!("{:?}", self.other.lond_status().map(|status| status["handlers"].clone()));
        }
    }

    fn failed(&self) -> Vec<String> {
        let folder = self.one.spool(CALLED).join("failed");
        let files = std::fs::read_dir(folder).expect("failed/");
        // One that is still being written has a hidden name.
        let names = files.map(|file| file.expect("an entry"));
        let whole = names.filter(|file| !file.file_name().as_encoded_bytes().starts_with(b"."));
        let mut texts: Vec<_> =
            whole.map(|file| std::fs::read_to_string(file.path()).expect("a failed message")).collect();
        texts.sort();
        texts
    }
}

fn numbered(prefix: &str, numbers: std::ops::RangeInclusive<usize>) -> Vec<String> {
    numbers.map(|number| format!("{prefix}:{number}")).collect()
}

#[test]
fn messages_for_a_handler_that_comes_up_later_are_all_kept_and_done_once_and_in_order() {
    let away = away();
    for number in 1..=20 {
        assert_eq!(away.ask(&format!("critical:pay:{number}")), "con_delayed");
    }
    let status = away.one.status(CALLED).expect("a status");
    assert_eq!((&status["away"][0]["handler"], &status["failed"]), (&"pay".into(), &0.into()));
    assert_eq!(away.ask("pay:plain"), "error:pay: connect: No such file or directory (os error 2)");
    away.wait_handler("pay", |pay| {
        (pay["reachable"] == false && pay["waiting"] == 1 && pay["in_flight"] == 0)
            && pay["last_error"].as_str().is_some_and(|error| error.contains("connect: No such file"))
    });
    let _others_lonc = away.other.lonc();
    let said = away.other.lon(&["status", "--check"]);
    let out = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(out.contains("handler pay: not reachable, 0 in flight, 0 answered, "), "{out}");
    assert!(out.contains("messages of 1 host wait for it; last error "), "{out}");
    assert!(out.contains("handler mail: not asked yet"), "{out}");
    assert!(out.contains("warning: handler pay: "), "{out}");
    let _pay = away.program(&away.pay, |_| false);
    away.wait_done(20);
    away.wait_handler("pay", |pay| pay["reachable"] == true && pay["waiting"] == 0 && pay["done"] == 20);
    assert_eq!(away.done(), numbered("pay", 1..=20));
    assert_eq!(away.failed(), [""; 0]);
    assert_eq!(away.ask("critical:pay:21"), "done");
    assert_eq!(away.one.status(CALLED).expect("a status")["away"], serde_json::json!([]));
}

#[test]
fn a_handler_that_dies_within_a_backlog_costs_the_message_that_it_had_and_no_other() {
    let away = away();
    for number in 1..=200 {
        assert_eq!(away.ask(&format!("critical:pay:{number}")), "con_delayed");
    }
    // Takes the fiftieth, and dies with it.
    let first = away.program(&away.pay, |count| count == 50);
    wait::until_true("the fiftieth", || away.done().len() == 50);
    drop(first);
    wait::until_true("the fiftieth to be set aside", || away.failed().len() == 1);
    let failed = away.failed();
    assert!(failed[0].contains("pay:50") && failed[0].contains("error:pay: "), "{failed:?}");
    let _second = away.program(&away.pay, |_| false);
    away.wait_done(200);
    // What links that have ended had counted stays.
    away.wait_handler("pay", |pay| pay["done"] == 199 && pay["errors"].as_u64() > Some(0));
    for child in away.lond.children() {
        crate::common::process::signal(child, Signal::SIGTERM);
    }
    wait::until_true("another link", || away.ask("ping") == CALLED);
    away.wait_handler("pay", |pay| pay["done"] == 199 && pay["in_flight"] == 0);
    assert_eq!(away.done(), numbered("pay", 1..=200), "once each, in order");
    assert_eq!(away.failed().len(), 1);
}

#[test]
fn a_program_that_listens_and_goes_without_reading_took_nothing() {
    let away = away();
    // Nobody accepts: the requests lie in the connection when it ends.
    let listener = std::os::unix::net::UnixListener::bind(&away.pay).expect("listen");
    let asking = std::thread::spawn({
        let socket = away.one.socket(CALLED);
        move || Local::connect(&socket).ask("critical:pay:1")
    });
    // One that was accepted and not read counts likewise.
    let (connection, _) = listener.accept().expect("a connection");
    wait::until_true("the request to be there", || {
        let mut byte = [0];
        nix::sys::socket::recv(
            std::os::fd::AsRawFd::as_raw_fd(&connection),
            &mut byte,
            nix::sys::socket::MsgFlags::MSG_PEEK | nix::sys::socket::MsgFlags::MSG_DONTWAIT,
        )
        .is_ok_and(|count| count == 1)
    });
    drop((connection, listener));
    assert_eq!(asking.join().expect("the asking program"), "con_delayed");
    std::fs::remove_file(&away.pay).expect("remove the socket");
    let _pay = away.program(&away.pay, |_| false);
    away.wait_done(1);
    assert_eq!(away.done(), ["pay:1"]);
}

#[test]
fn a_handler_that_is_away_for_long_holds_up_no_other_and_its_own_keep_their_order_through_restarts() {
    let mut away = away();
    let _mail = away.program(&away.mail, |_| false);
    for number in 1..=3 {
        assert_eq!(away.ask(&format!("critical:pay:{number}")), "con_delayed");
        assert_eq!(away.ask(&format!("critical:mail:{number}")), "con_delayed", "all wait at first");
    }
    wait::until_true("others to go past", || away.done().len() == 3);
    assert_eq!(away.done(), numbered("mail", 1..=3));
    wait::until_true("their answers", || {
        away.one.status(CALLED).is_some_and(|status| status["delayed"] == 3)
    });
    // From then on they are answered live.
    assert_eq!(away.ask("critical:mail:4"), "done");
    assert_eq!(away.ask("critical:pay:4"), "con_delayed");
    // Neither end's restart forgets what waits, or runs again what went past.
    away.lonc.kill();
    away.lonc = away.one.lonc();
    away.one.wait_link(CALLED, "up");
    assert_eq!(away.ask("critical:pay:5"), "con_delayed");
    away.lond.signal(Signal::SIGHUP);
    wait::until_true("others to go past again", || away.ask("critical:mail:5") == "done");
    let went_past = away.done();
    let _pay = away.program(&away.pay, |_| false);
    wait::until_true("pay's to be done", || away.done().len() >= went_past.len() + 5);
    away.one.wait_delivered(CALLED);
    let of = |prefix: &str| -> Vec<String> {
        away.done().into_iter().filter(|line| line.starts_with(prefix)).collect()
    };
    assert_eq!(of("pay"), numbered("pay", 1..=5));
    let mail = of("mail");
    assert_eq!(mail[..4], numbered("mail", 1..=4));
    assert!(mail[4..].iter().all(|line| line == "mail:5"), "{mail:?}");
    drop(away.other);
}
