//! Someone between two hosts, other versions of the wire, and another TLS library at the other end.

use crate::common::frames::{self, Frame};
use crate::common::handler::Program;
use crate::common::network::Network;
use crate::common::pair::{CALLED, CALLER};
use crate::common::relay::{EVIL, Manner, Relay};
use crate::common::secure_caller::{self, SecureCaller};
use crate::common::secure_pair::{SecurePair, TwoHosts};
use crate::common::{skipped, wait};
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Two hosts with someone between them.
fn with_relay(both: &mut TwoHosts) -> Relay {
    let relay = Relay::before(both.other.address);
    both.one.set("host.msul1", "address", &format!("\"{}\"", relay.address()));
    relay
}

#[test]
fn whoever_flips_drops_repeats_or_reorders_bytes_ends_links_and_makes_no_answer_wrong() {
    let mut both = TwoHosts::new();
    let relay = with_relay(&mut both);
    for (host, section) in [(&mut both.one, "lonc"), (&mut both.other, "lond")] {
        host.set(section, "heartbeat", "\"200ms\"");
    }
    both.one.set("lonc", "opening_timeout", "\"1s\"");
    let socket = both.other.handler("echo");
    let program = Program::echo(&socket);
    let (lonc, _lond) = both.start();
    let mut random = fastrand::Rng::with_seed(7);
    let (mut right, mut lost) = (0, 0);
    for manner in EVIL {
        let before = relay.spoilt();
        relay.do_this(manner);
        let began = Instant::now();
        while relay.spoilt() < before + 10 {
            assert!(began.elapsed() < wait::PATIENCE, "{manner:?}: too little was spoilt");
            let text = format!("echo:{:x}{}", random.u64(..), "x".repeat(random.usize(..3000)));
            match both.one.ask(CALLED, &text).as_str() {
                "con_lost" => {
                    lost += 1;
                    lonc.signal(Signal::SIGUSR1);
                }
                answer => {
                    assert_eq!(answer, text, "{manner:?}");
                    right += 1;
                }
            }
        }
    }
    assert!(right > 0 && lost > 0, "{right} right, {lost} lost");
    relay.do_this(Manner::Pass);
    relay.cut();
    wait::until_true("the link again", || {
        lonc.signal(Signal::SIGUSR1);
        both.one.ask(CALLED, "echo:again") == "echo:again"
    });
    drop(program);
}

#[test]
fn critical_messages_through_whoever_spoils_bytes_arrive_once_and_in_order() {
    let mut both = TwoHosts::new();
    let relay = with_relay(&mut both);
    for (host, section) in [(&mut both.one, "lonc"), (&mut both.other, "lond")] {
        host.set(section, "heartbeat", "\"200ms\"");
    }
    both.one.set("lonc", "opening_timeout", "\"1s\"");
    let (lonc, _lond) = both.start();
    relay.seldom(40);
    for (number, manner) in (0..400).zip(EVIL.iter().cycle()) {
        relay.do_this(*manner);
        let answer = both.one.ask(CALLED, &format!("critical:do:{number:03}"));
        assert!(answer == "ok" || answer == "con_delayed", "{answer}");
    }
    assert!(relay.spoilt() > 0);
    relay.do_this(Manner::Pass);
    relay.cut();
    lonc.signal(Signal::SIGUSR1);
    wait::until_true("all to arrive", || both.counter.done().len() >= 400);
    assert_eq!(both.counter.done(), (0..400).map(|number| format!("do:{number:03}")).collect::<Vec<_>>());
}

#[test]
fn what_is_asked_is_not_in_a_capture_of_the_secure_wire_and_is_in_one_of_the_classic_wire() {
    const TEXT: &str = "the-text-of-a-request-that-is-nobodys-business";
    let mut both = TwoHosts::new();
    let relay = with_relay(&mut both);
    let (_lonc, _lond) = both.start();
    for request in ["do:", "critical:do:", "critical;key=a-key-to-look-for:do:", "log:", "unheard_of:"] {
        both.one.ask(CALLED, &format!("{request}{TEXT}"));
    }
    assert_eq!(both.counter.done().len(), 3);
    assert!(relay.amount() > 1000, "{} bytes were captured", relay.amount());
    for text in [TEXT, "do:", "log:", "a-key-to-look-for", "unknown_cmd", "lonnet", CALLER, CALLED] {
        assert!(!relay.has_seen(text), "{text} is in the capture");
    }
    let classic = Network::new(&[CALLER, CALLED]);
    let (mut one, other) = (classic.host(CALLER), classic.host(CALLED));
    let relay = Relay::before(other.address);
    one.set("host.msul1", "address", &format!("\"{}\"", relay.address()));
    // Known by its address alone, and the relay has another.
    classic.write_table(&format!(
        "{CALLER}:t:access:a.example:127.0.0.1\n{CALLED}:t:library:b.example:{}\n",
        other.address.ip()
    ));
    let (_lond, _lonc) = (other.lond(), one.lonc());
    one.wait_link(CALLED, "up");
    one.ask(CALLED, &format!("log:{TEXT}"));
    assert!(relay.has_seen(TEXT));
}

#[test]
fn a_lond_of_version_two_alone_is_told_so_and_one_of_both_versions_is_spoken_to() {
    let pair = SecurePair::prepare(
        |_| {},
        |fake| {
            fake.say_in_hello("versions", "2-2");
            fake.listen();
        },
    );
    wait::until_true("an ERROR", || {
        pair.fake.control(frames::ERROR).iter().any(|frame| frame.text().contains("1-1"))
    });
    assert_eq!(pair.ask("ping"), "con_lost");
    let error = pair.host.status(CALLED).expect("a status")["last_error"].to_string();
    assert!(error.contains("2-2") && error.contains("1-1"), "{error}");
    pair.fake.say_in_hello("versions", "1-2");
    pair.fake.say_in_hello("colour", "a line that only version 2 knows");
    wait::until_true("the link", || {
        pair.lonc.signal(Signal::SIGUSR1);
        pair.host.status(CALLED).is_some_and(|status| status["state"] == "up")
    });
    assert_eq!(pair.ask("ping"), CALLED);
    pair.fake.say(&Frame::new(0x90, 9, "a kind that only version 2 knows"));
    assert_eq!(pair.ask("ping"), CALLED);
}

#[test]
fn a_lonc_of_version_two_alone_is_told_so_and_one_of_both_versions_is_served() {
    let both = TwoHosts::new();
    let _lond = both.other.lond();
    let key = both.network.key(CALLER);
    let mut hello = secure_caller::hello(CALLER, CALLED);
    hello.insert("versions".to_owned(), "2-3".to_owned());
    let error = SecureCaller::open_with(&key, both.other.address, &hello).err().expect("a refusal");
    assert_eq!(error.to_string(), "no common version: this is 1-1");
    hello.insert("versions".to_owned(), "1-2".to_owned());
    hello.insert("colour".to_owned(), "a line that only version 2 knows".to_owned());
    let mut link = SecureCaller::open_with(&key, both.other.address, &hello).expect("a link");
    link.writer.frame(&Frame::new(0xfe, 1, "a kind that only version 2 knows")).expect("send");
    assert_eq!(link.ask("ping"), CALLED);
    link.writer.frame(&Frame::new(0x0b, 1, "a kind that no version may add")).expect("send");
    assert!(link.last_words().contains("0xb") || link.last_words().is_empty());
}

/// A program of openssl's that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn openssl(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.current_dir(dir).args(arguments).stderr(Stdio::null());
    command
}

/// A key of openssl's in `keys/host.key` of a folder, a certificate around it, and its pin; nothing
/// where openssl is not.
fn openssl_key(dir: &Path) -> Option<String> {
    if !Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success()) {
        skipped("openssl is not installed: its client and server were not tried");
        return None;
    }
    let key = dir.join("keys/host.key");
    let run = |arguments: &[&str]| {
        let output = openssl(&dir.join("keys"), arguments).output().expect("run openssl");
        assert!(output.status.success(), "openssl {arguments:?}");
        output.stdout
    };
    run(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "host.key"]);
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600)).expect("close the key");
    run(&["req", "-x509", "-new", "-key", "host.key", "-subj", "/CN=any", "-days", "1", "-out", "cert.pem"]);
    let shell =
        "openssl pkey -in host.key -pubout -outform DER | openssl dgst -sha256 -binary | openssl base64";
    let output =
        Command::new("sh").current_dir(dir.join("keys")).args(["-c", shell]).output().expect("run sh");
    Some(format!("sha256:{}", String::from_utf8_lossy(&output.stdout).trim()))
}

#[test]
fn openssls_client_with_a_pinned_key_is_served_by_lond() {
    let both = TwoHosts::new();
    let Some(pin) = openssl_key(&both.one.dir) else { return };
    both.network.write_pins(&format!("{CALLER} {pin}\n{CALLED} {}\n", both.network.key(CALLED).pin()));
    let _lond = both.other.lond();
    let to = both.other.address.to_string();
    let mut command = openssl(
        &both.one.dir.join("keys"),
        &["s_client", "-connect", &to, "-key", "host.key", "-cert", "cert.pem", "-quiet", "-tls1_3"],
    );
    let mut client =
        Ended(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run openssl"));
    let mut stdin = client.0.stdin.take().expect("its input");
    let mut stdout = client.0.stdout.take().expect("its output");
    stdin.write_all(&frames::hello(&secure_caller::hello(CALLER, CALLED)).bytes()).expect("say HELLO");
    stdin.write_all(&Frame::new(frames::REQUEST, 1, "do:from openssl").bytes()).expect("ask");
    let (mut bytes, mut seen) = (Vec::new(), Vec::new());
    let mut chunk = [0; 4096];
    while !seen.iter().any(|frame: &Frame| frame.kind == frames::ANSWER) {
        let count = stdout.read(&mut chunk).expect("read from openssl");
        assert!(count > 0, "lond closed: {seen:?}");
        bytes.extend(&chunk[..count]);
        seen.extend(std::iter::from_fn(|| Frame::take(&mut bytes)));
    }
    assert_eq!(frames::read_hello(&seen[0])["id"], CALLED);
    let answer = seen.iter().find(|frame| frame.kind == frames::ANSWER).expect("an answer");
    assert_eq!((answer.id, answer.text().as_str()), (1, "ok"));
    assert_eq!(both.counter.done(), ["do:from openssl"]);
}

#[test]
fn openssls_server_with_a_pinned_key_hears_lonc_and_one_with_another_key_does_not() {
    for known in [true, false] {
        let mut both = TwoHosts::new();
        let Some(pin) = openssl_key(&both.other.dir) else { return };
        let pin = if known { pin } else { both.network.key(CALLED).pin() };
        both.network.write_pins(&format!("{CALLER} {}\n{CALLED} {pin}\n", both.network.key(CALLER).pin()));
        let mut command = openssl(
            &both.other.dir.join("keys"),
            &[
                "s_server",
                "-accept",
                "127.0.0.1:0",
                "-key",
                "host.key",
                "-cert",
                "cert.pem",
                "-Verify",
                "1",
                "-tls1_3",
            ],
        );
        let mut server =
            Ended(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run openssl"));
        let _open = server.0.stdin.take();
        let mut said = BufReader::new(server.0.stdout.take().expect("its output")).split(b'\n');
        let mut line =
            || said.next().and_then(|line| Some(String::from_utf8_lossy(&line.ok()?).into_owned()));
        let address =
            std::iter::from_fn(&mut line).find_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned));
        let address = address.expect("openssl says where it listens");
        both.one.set("host.msul1", "address", &format!("\"{address}\""));
        let _lonc = both.one.lonc();
        if known {
            // What it received, it prints: the HELLO.
            assert!(std::iter::from_fn(&mut line).any(|line| line.ends_with("lonnet")));
            assert!(std::iter::from_fn(&mut line).any(|line| line == format!("id={CALLER}")));
        } else {
            wait::until_true("the refusal", || both.one.log("lonc.log").contains(&pin));
            drop(server);
            assert!(!std::iter::from_fn(&mut line).any(|line| line.contains("lonnet")));
        }
    }
}

#[test]
fn a_host_that_keeps_breaking_the_rules_with_other_words_each_time_cannot_fill_the_log() {
    const SESSIONS: usize = 80;
    /// For the coming and going of one host's links, and for what was wrong with them, 20 each.
    const LINES_A_MINUTE: u64 = 40;
    let both = TwoHosts::new();
    let _lond = both.other.lond();
    let key = both.network.key(CALLER);
    let began = Instant::now();
    for number in 0..SESSIONS {
        let mut link = SecureCaller::open(&key, both.other.address, CALLER, CALLED);
        assert_eq!(link.ask("ping"), CALLED);
        let words = "so".repeat(number + 1);
        link.writer.frame(&Frame::new(if number % 2 == 0 { 0x0a } else { 0x0b }, 0, words)).expect("send");
        link.last_words();
    }
    let nobody = |status: serde_json::Value| status["links"].as_array().is_some_and(Vec::is_empty);
    wait::until_true("every child to be gone", || both.other.lond_status().is_some_and(nobody));
    let log = both.other.log("lond.log");
    let lines = log.lines().filter(|line| line.contains(CALLER)).count() as u64;
    let most = LINES_A_MINUTE * (1 + began.elapsed().as_secs() / 60);
    assert!((10..=most).contains(&lines), "{lines} lines, {most} at most:\n{log}");
    assert!(
        log.contains(&format!("{CALLER}: link open")) && log.contains(&format!("{CALLER}: link closed: "))
    );
}
