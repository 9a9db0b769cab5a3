//! `lond` is called: the opening dialogue, the cipher and the built-in requests as seen by an
//! independent caller.

use crate::common::caller::Caller;
use crate::common::cipher::Cipher;
use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::program::Program;
use crate::common::wait;
use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

/// A running lond of msul1, and the address that msua1 calls from.
struct Listening {
    lond: Program,
    host: Host,
    network: Network,
}

impl Listening {
    fn start() -> Listening {
        let network = Network::new(&[CALLER, CALLED]);
        let host = network.host(CALLED);
        let lond = host.lond();
        Listening { lond, host, network }
    }

    fn from(&self) -> IpAddr {
        self.network.address(CALLER).ip()
    }

    fn connect(&self) -> Caller {
        Caller::connect(self.from(), self.host.address).expect("connect to lond")
    }

    fn open(&self) -> Caller {
        Caller::open(self.from(), self.host.address, CALLED).0
    }

    fn open_with_cipher(&self) -> (Caller, Cipher) {
        Caller::open_with_cipher(self.from(), self.host.address, CALLED, CALLER)
    }
}

#[test]
fn the_opening_dialogue_is_answered_row_by_row() {
    let listening = Listening::start();
    let (mut caller, opening) = Caller::open(listening.from(), listening.host.address, CALLED);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    assert!(digits(&opening.challenge), "{}", opening.challenge);
    assert!(opening.version.strip_prefix("version:").is_some_and(|v| !v.is_empty()), "{}", opening.version);
    // Its own lonc does not run, so asking back has no answer.
    assert_eq!(opening.pong, "msul1:con_lost");
    assert!(
        !opening.buildkey.is_empty() && opening.buildkey.bytes().all(|c| c.is_ascii_alphanumeric()),
        "{}",
        opening.buildkey
    );
    assert_eq!(caller.ask("ping"), CALLED);
    let other = Caller::open(listening.from(), listening.host.address, CALLED).1;
    assert_ne!(other.challenge, opening.challenge);
    assert_ne!(other.buildkey, opening.buildkey);
}

#[test]
fn a_wrong_challenge_is_refused_and_closed() {
    let listening = Listening::start();
    let mut caller = listening.connect();
    let challenge = caller.ask("init");
    assert_eq!(caller.ask(&format!("{challenge}1")), "refused");
    assert_eq!(caller.hear(), None);
    assert_eq!(listening.open().ask("ping"), CALLED);
}

#[test]
fn nothing_is_served_before_the_challenge() {
    let listening = Listening::start();
    for early in ["ping", "version:1.0", "ekey", "log:hello", "sethost:msul1", "enc:4:e9cf4008a9e0407d"] {
        let mut caller = listening.connect();
        assert_eq!(caller.ask(early), "refused", "{early}");
        assert_eq!(caller.hear(), None, "{early}");
    }
    assert!(!listening.host.log("lond.log").contains("log:hello"));
}

#[test]
fn an_address_in_no_table_is_refused() {
    let listening = Listening::start();
    let mut stranger =
        Caller::connect("127.0.0.1".parse().expect("an address"), listening.host.address).expect("connect");
    stranger.send(b"init\n");
    let answer = stranger.hear();
    assert!(answer.is_none() || answer.as_deref() == Some("refused"), "{answer:?}");
    assert_eq!(stranger.hear(), None);
    wait::until_true("a line in the log", || listening.host.log("lond.log").contains("127.0.0.1"));
    assert_eq!(listening.open().ask("ping"), CALLED);
}

#[test]
fn a_caller_whose_line_has_no_address_is_known_by_its_name() {
    let network = Network::new(&[CALLED]);
    let own_line = std::fs::read_to_string(network.dir().join("hosts.tab")).expect("hosts.tab");
    network.write_table(&format!("{own_line}{CALLER}:test:access:localhost:\n"));
    let host = network.host(CALLED);
    let _lond = host.lond();
    let loopback = "127.0.0.1".parse().expect("an address");
    let (mut caller, _) = Caller::open(loopback, host.address, CALLED);
    assert_eq!(caller.ask("ping"), CALLED);
    let stranger = "127.0.0.9".parse().expect("an address");
    let mut stranger = Caller::connect(stranger, host.address).expect("connect");
    stranger.send(b"init\n");
    let answer = stranger.hear();
    assert!(answer.is_none() || answer.as_deref() == Some("refused"), "{answer:?}");
}

#[test]
fn the_classic_wire_is_refused_unless_it_is_allowed() {
    let network = Network::new(&[CALLER, CALLED]);
    let mut host = network.host(CALLED);
    host.set("lond", "classic", "\"refuse\"");
    let _lond = host.lond();
    let mut caller = Caller::connect(network.address(CALLER).ip(), host.address).expect("connect to lond");
    caller.send(b"init\n");
    let answer = caller.hear();
    assert!(answer.is_none() || answer.as_deref() == Some("refused"), "{answer:?}");
    assert_eq!(caller.hear(), None);
}

#[test]
fn a_caller_that_waits_before_pong_as_the_original_does_is_served() {
    let network = Network::new(&[CALLER, CALLED]);
    let mut host = network.host(CALLED);
    host.set("lond", "opening_timeout", "\"1s\"");
    let _lond = host.lond();
    let mut caller = Caller::connect(network.address(CALLER).ip(), host.address).expect("connect to lond");
    let challenge = caller.ask("init");
    assert_eq!(caller.ask(&challenge), "ok");
    assert_eq!(caller.ask("sethost:msul1"), "ok");
    assert!(caller.ask("version:1.70").starts_with("version:"));
    wait::let_pass(Duration::from_secs(3));
    assert_eq!(caller.ask("pong"), "msul1:con_lost");
    assert!(!caller.ask("ekey").is_empty());
    assert_eq!(caller.ask("ping"), CALLED);
}

#[test]
fn the_built_in_requests_answer_what_is_documented() {
    let listening = Listening::start();
    let mut caller = listening.open();
    assert_eq!(caller.ask("ping"), CALLED);
    assert_eq!(caller.ask("pong"), "msul1:con_lost");
    assert!(caller.ask("version").starts_with("version:"));
    let load = caller.ask("load");
    assert!(load.parse::<f64>().is_ok_and(|percent| percent >= 0.0), "{load}");
    assert_eq!(caller.ask("log:a text of the caller's"), "ok");
    assert_eq!(caller.ask("no_such_thing"), "unknown_cmd");
    assert_eq!(caller.ask("no_such_thing:with data"), "unknown_cmd");
    wait::until_true("the text in the log", || {
        let log = listening.host.log("lond.log");
        log.lines().any(|line| line.contains("a text of the caller's") && line.contains(CALLER))
    });
    assert_eq!(caller.ask("exit"), "bye");
    assert_eq!(caller.hear(), None);
}

#[test]
fn a_logged_text_cannot_forge_a_line_of_the_log() {
    let listening = Listening::start();
    let mut caller = listening.open();
    assert_eq!(caller.ask("log:one\r2026-01-01 lond[1] ERROR forged\x1b[2J"), "ok");
    wait::until_true("the text in the log", || listening.host.log("lond.log").contains("forged"));
    let log = listening.host.log("lond.log");
    assert!(!log.contains('\r') && !log.contains('\x1b'), "{log:?}");
}

#[test]
fn enciphered_requests_are_answered_enciphered() {
    let listening = Listening::start();
    let (mut caller, cipher) = listening.open_with_cipher();
    for request in ["ping", "log:secret", "version", "nonsense"] {
        caller.send(&[cipher.seal(request.as_bytes()), b"\n".to_vec()].concat());
        let answer = String::from_utf8(cipher.open(&caller.hear_bytes().expect("an answer"))).expect("text");
        match request {
            "ping" => assert_eq!(answer, CALLED),
            "log:secret" => assert_eq!(answer, "ok"),
            "version" => assert!(answer.starts_with("version:"), "{answer}"),
            _ => assert_eq!(answer, "unknown_cmd"),
        }
    }
    let upper = String::from_utf8(cipher.seal(b"ping")).expect("text").to_uppercase().replace("ENC", "enc");
    let answer = caller.ask(&upper);
    assert_eq!(cipher.open(answer.as_bytes()), CALLED.as_bytes());
}

#[test]
fn a_malformed_enciphered_request_is_an_error_and_the_link_goes_on() {
    let listening = Listening::start();
    let (mut caller, cipher) = listening.open_with_cipher();
    for bad in [
        "enc:",
        "enc:4",
        "enc:4:",
        "enc:x:e9cf4008a9e0407d",
        "enc:4:e9cf4008a9e0407",
        "enc:4:zzcf4008a9e0407d",
        "enc:4:e9cf4008a9e040",
        "enc:9:e9cf4008a9e0407d",
        "enc:99999999999999999999:e9cf4008a9e0407d",
        "enc:-1:e9cf4008a9e0407d",
    ] {
        let answer = caller.ask(bad);
        assert!(answer.starts_with("error:"), "{bad} was answered {answer}");
    }
    caller.send(&[cipher.seal(b"ping"), b"\n".to_vec()].concat());
    assert_eq!(cipher.open(&caller.hear_bytes().expect("an answer")), CALLED.as_bytes());

    let mut no_cipher = listening.connect();
    let challenge = no_cipher.ask("init");
    assert_eq!(no_cipher.ask(&challenge), "ok");
    let answer = no_cipher.ask("enc:4:e9cf4008a9e0407d");
    assert!(answer.starts_with("error:"), "{answer}");
    assert_eq!(no_cipher.ask("ping"), CALLED);
}

#[test]
fn ten_thousand_pipelined_requests_are_answered_in_order() {
    let listening = Listening::start();
    let (mut caller, cipher) = listening.open_with_cipher();
    let mut writer = caller.writer();
    let sealed = cipher.seal(b"ping");
    let sender = std::thread::spawn(move || {
        let mut all = Vec::new();
        for number in 0..10_000 {
            match number % 3 {
                0 => all.extend_from_slice(b"ping\n"),
                1 => all.extend_from_slice(b"unknown\n"),
                _ => all.extend_from_slice(&[sealed.as_slice(), b"\n"].concat()),
            }
        }
        writer.write_all(&all).expect("send ahead");
    });
    for number in 0..10_000 {
        let answer = caller.hear_bytes().expect("an answer");
        match number % 3 {
            0 => assert_eq!(answer, CALLED.as_bytes()),
            1 => assert_eq!(answer, b"unknown_cmd"),
            _ => assert_eq!(cipher.open(&answer), CALLED.as_bytes()),
        }
    }
    sender.join().expect("the sender");
}

#[test]
fn a_newer_link_from_a_host_replaces_the_older() {
    let listening = Listening::start();
    let mut older = listening.open();
    assert_eq!(older.ask("ping"), CALLED);
    let mut newer = listening.open();
    assert_eq!(newer.ask("ping"), CALLED);
    assert_eq!(older.hear(), None, "the older link was not closed");
    assert_eq!(newer.ask("ping"), CALLED);
    wait::until_true("one child to be left", || listening.lond.children().len() == 1);
}

#[test]
fn a_killed_child_costs_one_link_and_nothing_else() {
    let listening = Listening::start();
    let mut caller = listening.open();
    assert_eq!(caller.ask("ping"), CALLED);
    crate::common::process::signal(listening.lond.only_child(), nix::sys::signal::Signal::SIGKILL);
    assert_eq!(caller.hear(), None);
    assert_eq!(listening.open().ask("ping"), CALLED);
}

#[test]
fn term_closes_the_links_and_frees_the_port() {
    let listening = Listening::start();
    let mut caller = listening.open();
    assert_eq!(caller.ask("ping"), CALLED);
    let Listening { lond, host, network } = listening;
    assert!(lond.stop().success());
    assert_eq!(caller.hear(), None);
    assert!(!host.pid_file("lond").exists());
    assert!(!crate::common::process::listens(host.address));
    drop(network);
}
