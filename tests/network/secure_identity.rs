//! Who is let in on the secure wire: the holder of a pinned key, and nobody else; nothing before
//! that.

use crate::common::caller::Caller;
use crate::common::frames::{self, Frame};
use crate::common::handler::Program;
use crate::common::keys::{self, Key};
use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::secure_caller::{self, SecureCaller};
use crate::common::secure_lond::SecureLond;
use crate::common::secure_pair::TwoHosts;
use crate::common::{process, secure_link, wait};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

/// Waits until the link is down with an error that says all of this.
fn wait_refused(host: &Host, words: &[&str]) {
    wait::until_true(&format!("the link to be refused with {words:?}"), || {
        let error = host.status(CALLED).map(|status| status["last_error"].to_string()).unwrap_or_default();
        words.iter().all(|word| error.contains(word))
    });
    assert_eq!(host.ask(CALLED, "ping"), "con_lost");
}

/// What lond says to a caller that tries to ask at once, if anything but the end.
fn tries(key: &Key, both: &TwoHosts) -> Result<String, std::io::Error> {
    let hello = secure_caller::hello(CALLER, CALLED);
    SecureCaller::open_with(key, both.other.address, &hello).map(|mut link| link.ask("ping"))
}

#[test]
fn a_host_that_shows_another_key_than_its_pin_is_not_believed() {
    let network = Network::secure(&[CALLER, CALLED]);
    let host = network.host(CALLER);
    let stranger = Key::new();
    let mut fake = SecureLond::away(CALLED, stranger.clone(), network.address(CALLED));
    fake.listen();
    let _lonc = host.lonc();
    wait_refused(&host, &[]);
    wait::until_true("both pins in the log", || {
        let log = host.log("lonc.log");
        log.lines().any(|line| {
            line.contains(CALLED)
                && line.contains(&stranger.pin())
                && line.contains(&network.key(CALLED).pin())
        })
    });
    assert_eq!(fake.hellos().len(), 0, "nothing was said to it");
    wait::until_true("an alert", || fake.failures().iter().any(|error| error.contains("alert")));
    // With the right key, it is.
    fake.show(network.key(CALLED));
    wait::until_true("the link", || {
        _lonc.signal(nix::sys::signal::Signal::SIGUSR1);
        host.status(CALLED).is_some_and(|status| status["state"] == "up")
    });
}

#[test]
fn a_caller_with_another_key_than_its_pin_is_refused_and_both_sides_say_why() {
    let both = TwoHosts::new();
    let stranger = Key::new();
    stranger.write(&both.one.dir.join("keys"));
    let (_lond, _lonc) = (both.other.lond(), both.one.lonc());
    wait_refused(&both.one, &[]);
    wait::until_true("the pin in lond's log", || both.other.log("lond.log").contains(&stranger.pin()));
    let status = both.other.lond_status().expect("lond's status");
    assert!(status["unauthenticated"].as_u64() > Some(0), "{status}");
    assert_eq!(status["links"].as_array().map(Vec::len), Some(0), "{status}");
}

#[test]
fn a_host_without_a_pin_is_neither_dialled_nor_served() {
    let both = TwoHosts::new();
    let only = |id: &str| format!("{id} {}\n", both.network.key(id).pin());
    both.network.write_pins(&only(CALLED));
    let (_lond, _lonc) = (both.other.lond(), both.one.lonc());
    // The caller's pin is missing at lond.
    wait_refused(&both.one, &[]);
    assert!(tries(&both.network.key(CALLER), &both).is_err());
    drop((_lond, _lonc));
    // The pin of the host called is missing at lonc.
    both.network.write_pins(&only(CALLER));
    let _lonc = both.one.lonc();
    wait_refused(&both.one, &["pin"]);
    let said = String::from_utf8_lossy(&both.one.lon(&["check"]).stdout).into_owned();
    assert!(said.contains("no pin for msul1"), "{said}");
}

#[test]
fn swapped_pins_let_nobody_in() {
    let both = TwoHosts::new();
    let (one, other) = (both.network.key(CALLER).pin(), both.network.key(CALLED).pin());
    both.network.write_pins(&format!("{CALLER} {other}\n{CALLED} {one}\n"));
    let (_lond, _lonc) = (both.other.lond(), both.one.lonc());
    wait_refused(&both.one, &[]);
    assert!(tries(&both.network.key(CALLER), &both).is_err());
}

#[test]
fn a_key_is_one_host_and_its_word_about_another_is_not_believed() {
    let network = Network::secure(&[CALLER, CALLED, "msua3"]);
    let other = network.host(CALLED);
    let _lond = other.lond();
    let key = network.key("msua3");
    for (name, value, why) in [("id", CALLER, "key"), ("to", "msua3", CALLED), ("id", "nobody", "key")] {
        let mut hello = secure_caller::hello("msua3", CALLED);
        hello.insert(name.to_owned(), value.to_owned());
        let error =
            SecureCaller::open_with(&key, other.address, &hello).err().expect("a refusal").to_string();
        assert!(error.contains(why), "{name}={value}: {error}");
    }
    // From any address: here from 127.0.0.1, which is in no table.
    let mut link = SecureCaller::open(&key, other.address, "msua3", CALLED);
    assert_eq!(link.ask("ping"), CALLED);
    wait::until_true("the link in lond's status", || {
        let links = other.lond_status().expect("lond's status")["links"].clone();
        links.as_array().is_some_and(|links| links.iter().any(|link| link["caller"] == "msua3"))
    });
}

#[test]
fn a_caller_without_a_key_and_one_that_speaks_no_tls_reach_no_handler() {
    let mut both = TwoHosts::new();
    let socket = both.other.handler("echo");
    let program = Program::echo(&socket);
    let lond = both.other.lond();
    let to = both.other.address;
    // TLS without a certificate.
    let refused = secure_link::call(TcpStream::connect(to).expect("connect"), keys::nobody()).and_then(
        |(mut reader, writer)| {
            writer.frame(&frames::hello(&secure_caller::hello(CALLER, CALLED)))?;
            writer.frame(&Frame::new(frames::REQUEST, 1, "echo:x"))?;
            reader.frame()
        },
    );
    assert!(!matches!(refused, Ok(Some(_))), "{refused:?}");
    // Bytes that begin like TLS and are none, and others.
    for garbage in [
        &b"\x16\x03\x01\x40\x00\x01garbage that is no hello"[..],
        b"\x16\xff\xff\xff\xff",
        b"GET / HTTP/1.0\r\n\r\n",
        &[0; 1000],
    ] {
        let mut stream = TcpStream::connect(to).expect("connect");
        stream.set_read_timeout(Some(wait::PATIENCE)).expect("limit reading");
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(said.len() < 100, "an alert, or refused: {said:?}");
    }
    // The classic dialogue, from an address that the table has.
    let mut classic = Caller::connect(both.one.address.ip(), to).expect("connect");
    classic.send(b"init\n");
    assert_eq!(classic.hear().as_deref().unwrap_or("refused"), "refused");
    wait::until_true("all of them to be gone", || lond.children().is_empty());
    assert_eq!(program.connections(), 0);
    wait::until_true("the refusal in the log", || both.other.log("lond.log").contains("classic"));
    // What is right still is.
    let mut link = SecureCaller::open(&both.network.key(CALLER), to, CALLER, CALLED);
    assert_eq!(link.ask("echo:served"), "echo:served");
}

#[test]
fn a_caller_that_asks_before_its_hello_gets_no_answer() {
    let mut both = TwoHosts::new();
    let socket = both.other.handler("echo");
    let program = Program::echo(&socket);
    let _lond = both.other.lond();
    let key = both.network.key(CALLER);
    let (mut reader, writer) = secure_caller::connect(&key, both.other.address).expect("connect");
    writer.frame(&Frame::new(frames::REQUEST, 1, "echo:x")).expect("send");
    let answer = reader.frame().expect("read").expect("an ERROR");
    assert_eq!(answer.kind, frames::ERROR, "{answer:?}");
    assert_eq!(program.connections(), 0);
}

#[test]
fn a_key_that_others_can_read_is_refused_with_a_word_about_it() {
    let both = TwoHosts::new();
    let file = both.one.dir.join("keys/host.key");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("open the key");
    let check = both.one.lon(&["check"]);
    let said = String::from_utf8_lossy(&[check.stdout, check.stderr].concat()).into_owned();
    assert!(said.contains("readable by others") && said.contains("0644"), "{said}");
    assert_ne!(check.status.code(), Some(0));
    let pin = both.one.lon(&["pin"]);
    assert_eq!(pin.status.code(), Some(1));
    for program in ["lonc", "lond"] {
        let started = both.one.command(program).output().expect("run it");
        let said = String::from_utf8_lossy(&started.stderr).into_owned();
        assert_eq!(started.status.code(), Some(1), "{program}: {said}");
        assert!(
            said.starts_with(&format!("{program}: start: ")) && said.contains("readable by others"),
            "{said}"
        );
    }
}

#[test]
fn a_thousand_connections_that_never_authenticate_leave_a_link_its_answers() {
    let mut both = TwoHosts::new();
    both.other.set("lond", "max_opening", "20");
    both.other.set("lond", "opening_timeout", "\"30s\"");
    let (_lonc, lond) = both.start();
    let asking = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (mut local, asking) = (both.one.connect(CALLED), &asking);
                scope.spawn(move || {
                    let mut number = 0;
                    while asking.load(std::sync::atomic::Ordering::SeqCst) {
                        assert_eq!(local.ask(&format!("critical:do:{client}-{number}")), "ok");
                        number += 1;
                    }
                    number
                })
            })
            .collect();
        let mut silent = Vec::new();
        for number in 0..1000 {
            let mut stream = TcpStream::connect(both.other.address).expect("connect");
            // Some begin a handshake and never end it.
            if number % 2 == 0 {
                let _ = stream.write_all(b"\x16\x03\x01\x02\x00");
            }
            silent.push(stream);
        }
        wait::until_true("those beyond the bound to be counted", || {
            both.other.lond_status().is_some_and(|status| status["crowded"].as_u64() >= Some(900))
        });
        assert!(lond.children().len() <= 21, "{} children", lond.children().len());
        asking.store(false, std::sync::atomic::Ordering::SeqCst);
        let asked: Vec<u64> = clients.into_iter().map(|client| client.join().expect("a client")).collect();
        assert!(asked.iter().all(|&number| number > 0), "{asked:?}");
        assert_eq!(both.counter.done().len() as u64, asked.iter().sum::<u64>());
        for child in lond.children() {
            let memory = process::peak_memory(child).unwrap_or(0);
            assert!(memory < 32 << 10, "{memory} KiB in a child");
        }
    });
}

#[test]
fn a_caller_that_is_slow_to_authenticate_is_closed_when_its_time_is_over() {
    let mut both = TwoHosts::new();
    both.other.set("lond", "opening_timeout", "\"1s\"");
    let lond = both.other.lond();
    let mut silent = TcpStream::connect(both.other.address).expect("connect");
    silent.write_all(b"\x16").expect("send");
    let (mut reader, _writer) =
        secure_caller::connect(&both.network.key(CALLER), both.other.address).expect("connect");
    silent.set_read_timeout(Some(wait::PATIENCE)).expect("limit reading");
    let _ = silent.read_to_end(&mut Vec::new());
    while reader.frame().is_ok_and(|frame| frame.is_some()) {}
    wait::until_true("both to be gone", || lond.children().is_empty());
}
