//! The secure wire over real sockets.

use super::rig::{PATIENCE, id};
use super::secure_rig::{Link, *};
use super::*;
use ::wire::secure::{MAX_BODY, put_ping, put_window};
use config::Hosts;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream as StdStream};
use supervise::signals::ToldToEnd;

fn told(link: &mut Link) -> FromServe {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let received = link.supervisor.receive(&mut [0; 1024]).unwrap();
        if let Some(message) = received.messages.into_iter().next() {
            return message;
        }
        assert!(!received.closed && Instant::now() < deadline, "nothing was told");
        std::thread::yield_now();
    }
}

#[test]
fn a_link_is_opened_by_key_told_to_the_supervisor_and_serves() {
    let rig = SecureRig::new();
    let _program = Program::start(rig.rig.socket());
    let mut link = rig.open();
    let opened = FromServe::Opened {
        caller: id("msua1"),
        pin: Some(rig.caller.pin().to_string()),
        own_pin: Some(rig.ours.pin().to_string()),
        wire: base::WireKind::Secure,
        sandbox: Some("nothing".to_owned()),
    };
    assert_eq!(told(&mut link), opened);
    assert_eq!(link.ask("ping"), "msul1");
    assert_eq!(link.ask("log:hello"), "ok");
    assert!(link.ask("load").parse::<u32>().is_ok());
    assert_eq!(link.ask("pong"), "msul1:con_lost");
    assert_eq!(link.ask("echo:caf\u{e9}"), "caf\u{e9}");
    let long = "x".repeat(1 << 20);
    assert_eq!(link.ask(&format!("echo:{}", &long[5..])), long[5..]);
    assert_eq!(link.ask("exit"), "bye");
    assert!(link.rest().ends_with("GOAWAY 7"));
    drop(link.socket);
    assert_eq!(link.child.join().unwrap(), Reason::Exit);
}

#[test]
fn a_request_that_takes_a_minute_delays_no_other() {
    let rig = SecureRig::new();
    let program = Program::start(rig.rig.socket());
    let mut link = rig.open();
    let slow: Vec<u64> = (0..3).map(|number| link.begin(&format!("echo:slow{number}"))).collect();
    for round in 0..50 {
        let ids: Vec<u64> = (0..200).map(|number| link.begin(&format!("echo:{round}.{number}"))).collect();
        for (number, id) in ids.into_iter().enumerate() {
            assert_eq!(link.answer(id), format!("{round}.{number}"));
        }
    }
    assert!(slow.iter().all(|id| !link.answers.contains_key(id)));
    assert!(program.connections() <= lanes::POOL);
    program.release();
    for (number, id) in slow.into_iter().enumerate() {
        assert_eq!(link.answer(id), format!("slow{number}"));
    }
}

#[test]
fn a_cancelled_request_that_waits_for_a_connection_is_never_passed_on() {
    let rig = SecureRig::new();
    let program = Program::start(rig.rig.socket());
    let mut link = rig.open();
    for number in 0..lanes::POOL {
        link.begin(&format!("echo:slow{number}"));
        program.saw(&format!("echo:slow{number}"));
    }
    let cancelled = link.begin("echo:never");
    let kept = link.begin("echo:later");
    let mut bytes = Vec::new();
    ::wire::secure::put_cancel(&mut bytes, cancelled);
    link.send(&bytes);
    assert_eq!(link.ask("ping"), "msul1");
    program.release();
    assert_eq!(link.answer(kept), "later");
    assert_eq!(program.runs("echo:never"), 0);
    assert!(!link.answers.contains_key(&cancelled));
}

#[test]
fn a_wrong_key_gets_an_alert_and_the_supervisor_hears_which_was_seen() {
    let rig = SecureRig::new();
    let stranger = identity();
    let mut link = rig.connect_as(&stranger);
    link.write_out().unwrap();
    let error = loop {
        match link.read_once() {
            Ok(0) => panic!("closed without an alert"),
            Ok(_) => link.write_out().unwrap(),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("refused with the alert"), "{error}");
    let FromServe::Refused { why, key } = told(&mut link) else { panic!("opened") };
    assert!(why.contains(&format!("seen {}", stranger.pin())), "{why}");
    assert_eq!(key, Some(stranger.pin().to_string()));
    drop(link.socket);
    assert!(matches!(link.child.join().unwrap(), Reason::Refused(_)));
    assert!(!rig.rig.config.spool_dir.exists(), "no record was touched");
}

#[test]
fn a_host_that_is_pinned_and_not_in_the_table_is_refused() {
    let mut rig = SecureRig::new();
    rig.rig.config.hosts =
        Hosts::parse(&rig.rig.config.hosts_file, b"msul1:msu:library:a.example:127.0.0.1\n").unwrap();
    let mut link = rig.connect();
    link.shake_hands();
    link.rest();
    let FromServe::Refused { why, key: _ } = told(&mut link) else { panic!("opened") };
    assert!(why.contains("msua1 is not in"), "{why}");
}

#[test]
fn before_authentication_nothing_is_touched_and_little_is_taken() {
    for (first, piece) in
        [(&b"\x16\x03\x01\x40\x00"[..], 1000), (b"\x16\x03\x03\xff\xff", 16384), (b"\x16", 3)]
    {
        let rig = SecureRig::new();
        let mut link = rig.connect();
        let _ = link.socket.write_all(first);
        // It is heard out for a moment, so that it can read why, and no longer.
        let deadline = Instant::now() + PATIENCE;
        while link.socket.write_all(&vec![0x16; piece]).is_ok() {
            assert!(Instant::now() < deadline, "nothing stops a stranger");
        }
        assert!(matches!(told(&mut link), FromServe::Refused { .. }));
        assert!(!rig.rig.config.spool_dir.exists());
    }
}

#[test]
fn a_silent_caller_costs_no_turns_and_is_let_go_at_the_deadline() {
    let mut rig = SecureRig::new();
    rig.rig.config.lond.opening_timeout = Duration::from_millis(200);
    let mut link = rig.connect();
    assert_eq!(link.socket.read(&mut [0; 10]).unwrap(), 0);
    assert_eq!(link.reason(), Reason::OpeningTimeout);
    let mut link = rig.connect();
    link.shake_hands();
    assert_eq!(link.rest(), "", "authenticated, and never a HELLO");
    assert_eq!(link.reason(), Reason::OpeningTimeout);
}

#[test]
fn a_caller_that_stops_reading_gets_no_more_than_its_window_and_loses_nothing() {
    let rig = SecureRig::new();
    let _program = Program::start(rig.rig.socket());
    let mut link = rig.open();
    link.generous = false;
    let text = "x".repeat(50_000);
    let ids: Vec<u64> = (0..60).map(|_| link.begin(&format!("echo:{text}"))).collect();
    let more: Vec<u64> = (0..60).map(|_| link.begin("echo:y")).collect();
    // 60 answers of 50,000 bytes are within 4 MiB; the rest of it is used up so:
    link.until(|link| ids.iter().chain(&more).all(|id| link.answers.contains_key(id)));
    let again: Vec<u64> = (0..60).map(|_| link.begin(&format!("echo:{text}"))).collect();
    let mut ping = Vec::new();
    put_ping(&mut ping, 1);
    link.send(&ping);
    link.until(|link| link.saw.contains(&"PONG".to_owned()));
    let cost = |answers: usize| answers * (50_000 + 4 * 64);
    link.until(|link| {
        cost(60 + 1 + again.iter().filter(|id| link.answers.contains_key(id)).count()) + 60 * 65 > 4 << 20
    });
    link.send(&ping);
    link.saw.clear();
    link.until(|link| link.saw.contains(&"PONG".to_owned()));
    assert!(again.iter().any(|id| !link.answers.contains_key(id)), "the window holds");
    let mut window = Vec::new();
    put_window(&mut window, 4 << 20 >> 1);
    link.send(&window);
    link.until(|link| again.iter().all(|id| link.answers.contains_key(id)));
}

#[test]
fn a_repeat_on_the_next_link_is_answered_from_the_record() {
    let rig = SecureRig::new();
    let program = Program::start(rig.rig.socket());
    let mut first = rig.open();
    assert_eq!(first.critical(1, "echo:once"), "once");
    drop(first.socket);
    first.child.join().unwrap();
    let mut second = rig.open();
    assert_eq!(second.critical(1, "echo:once"), "once");
    let by_key = second.begin_critical(2, Some("K"), "echo:keyed");
    assert_eq!(second.answer(by_key), "keyed");
    let again = second.begin_critical(3, Some("K"), "echo:keyed");
    assert_eq!(second.answer(again), "keyed");
    assert_eq!((program.runs("echo:once"), program.runs("echo:keyed")), (1, 1));
}

#[test]
fn a_message_that_runs_on_a_lost_link_is_waited_for_by_the_next_and_not_run_again() {
    for told_to_end in [false, true] {
        let rig = SecureRig::new();
        let program = Program::start(rig.rig.socket());
        let mut older = rig.open();
        older.begin_critical(1, None, "echo:slow");
        program.saw("echo:slow");
        let mut newer = rig.open();
        let again = newer.begin_critical(1, None, "echo:slow");
        assert_eq!(newer.ask("ping"), "msul1", "everything else is served meanwhile");
        assert!(!rig.record_is_free());
        if told_to_end {
            older.supervisor.send(&ToServe::Replaced).unwrap();
            older.until(|link| link.saw.iter().any(|frame| frame.starts_with("GOAWAY")));
        } else {
            older.socket.shutdown(std::net::Shutdown::Both).unwrap();
        }
        program.release();
        assert_eq!(newer.answer(again), "slow");
        assert_eq!(program.runs("echo:slow"), 1);
        drop(older.socket);
        older.child.join().unwrap();
    }
}

#[test]
fn critical_messages_reach_a_handler_in_their_order() {
    let rig = SecureRig::new();
    let program = Program::start(rig.rig.socket());
    let mut link = rig.open();
    let ids: Vec<u64> = (1..=500).map(|n| link.begin_critical(n, None, &format!("echo:{n}"))).collect();
    for (n, id) in (1..).zip(ids) {
        assert_eq!(link.answer(id), n.to_string());
    }
    assert_eq!(program.connections(), 1);
}

#[test]
fn told_to_end_it_says_goaway_and_answers_what_is_sent_until_the_caller_closes() {
    let rig = SecureRig::new();
    let program = Program::start(rig.rig.socket());
    let mut link = rig.open();
    let slow = link.begin("echo:slow");
    program.saw("echo:slow");
    link.supervisor.send(&ToServe::Drain).unwrap();
    let goaway = format!("GOAWAY {}", u64::MAX);
    link.until(|link| link.saw.contains(&goaway));
    let late = link.begin("ping");
    program.release();
    assert_eq!(link.answer(slow), "slow");
    assert_eq!(link.answer(late), "msul1");
    drop(link.socket);
    assert_eq!(link.child.join().unwrap(), Reason::Drained);
}

#[test]
fn a_caller_that_is_gone_without_a_word_is_found_by_the_heartbeat() {
    let mut rig = SecureRig::new();
    rig.rig.config.lond.heartbeat = Duration::from_millis(50);
    rig.rig.config.lond.heartbeat_missed = 2;
    let mut link = rig.open();
    // One PING, and no more: this thread may be so slow that it is read only when the link was
    // given up. That answers keep a link is tried on a clock of the tests' own.
    link.until(|link| link.saw.iter().any(|frame| frame == "PING"));
    // From here on it neither reads nor writes.
    assert_eq!(link.child.join().unwrap(), Reason::Silent(Duration::from_millis(150)));
}

/// Carries bytes both ways; those towards `lond` go through `mangle`, with the place at which they
/// begin.
fn relay(
    caller: StdStream,
    called: StdStream,
    mut mangle: impl FnMut(usize, &[u8]) -> Vec<u8> + Send + 'static,
) {
    let (mut from, mut to) = (called.try_clone().unwrap(), caller.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    std::thread::spawn(move || {
        let (mut from, mut to, mut at) = (caller, called, 0);
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if to.write_all(&mangle(at, &buffer[..count])).is_err() {
                break;
            }
            at += count;
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}

#[test]
fn whoever_changes_a_byte_on_the_way_ends_the_link_and_nothing_wrong_is_ever_answered() {
    let rig = SecureRig::new();
    let _program = Program::start(rig.rig.socket());
    let mut broken = 0;
    for seed in 0..24_u64 {
        let pair = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let near = StdStream::connect(listener.local_addr().unwrap()).unwrap();
            (near, listener.accept().unwrap().0)
        };
        let ((socket, from), (to, stream)) = (pair(), pair());
        let mut random = fastrand::Rng::with_seed(seed);
        let place = random.usize(..3000);
        let mut held = Vec::new();
        relay(from, to, move |at, bytes| {
            let mut bytes = bytes.to_vec();
            let Some(here) = place.checked_sub(at).filter(|here| *here < bytes.len()) else {
                return std::mem::take(&mut held).into_iter().chain(bytes).collect();
            };
            match seed % 4 {
                0 => bytes[here] ^= 1 << random.u8(..8),
                1 => drop(bytes.remove(here)),
                2 => bytes.extend_from_within(here..),
                // The rest comes after what follows it.
                _ => {
                    held = bytes.split_off(here);
                    held.reverse();
                }
            }
            bytes
        });
        let mut link = rig.connect_over(&rig.caller, socket, stream);
        link.socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut wrong = None;
        let outcome = (|| -> io::Result<()> {
            while !link.tunnel.established() {
                link.write_out()?;
                if link.read_once()? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            link.write_out()?;
            link.tunnel.seal(&hello()).map_err(io::Error::other)?;
            link.write_out()?;
            for id in 1..=20 {
                let mut bytes = Vec::new();
                let text = format!("echo:{id}.{}", "x".repeat(60));
                ::wire::secure::put_request(&mut bytes, id, false, text.as_bytes());
                link.tunnel.seal(&bytes).map_err(io::Error::other)?;
                link.write_out()?;
                while !link.answers.contains_key(&id) {
                    if link.read_once()? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                if link.answers[&id] != text["echo:".len()..] {
                    wrong = Some(link.answers[&id].clone());
                }
            }
            Ok(())
        })();
        assert_eq!(wrong, None, "seed {seed}");
        assert!(link.answers.keys().all(|id| (1..=20).contains(id)));
        assert!(!link.saw.iter().any(|frame| frame.starts_with("ERROR")), "no frame was ever misread");
        broken += usize::from(outcome.is_err());
        drop(link.socket);
        link.child.join().unwrap();
    }
    assert!(broken >= 18, "what was changed was not sent: {broken}");
}

#[test]
fn a_message_longer_than_a_chunk_comes_through_the_record_too() {
    let rig = SecureRig::new();
    let _program = Program::start(rig.rig.socket());
    let mut link = rig.open();
    let text = "x".repeat(MAX_BODY - 50);
    assert_eq!(link.critical(1, &format!("echo:{text}")), text);
}

#[test]
fn a_caller_that_says_nothing_is_waited_for_asleep() {
    let rig = SecureRig::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _silent = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let (_supervisor, control) = supervise::control::pair().unwrap();
    let pins = base::Pins::from_pairs([(id("msua1"), rig.caller.pin())]);
    let admission = ::wire::secure::Admission::new(&rig.ours, pins).unwrap();
    let tunnel = Box::new(Tunnel::called(&admission).unwrap());
    let now = Instant::now();
    let deadline = now + Duration::from_secs(10);
    let directory = Arc::new(directory(rig.rig.config.clone()));
    let suspect = Suspect::new(directory.clone(), rig.ours.pin(), None);
    let accepted = Accepted::Secure { tunnel, suspect, directory };
    let told = ToldToEnd::new().unwrap();
    let mut reactor = Reactor::new(
        ServeSettings::of(&rig.rig.config).into(),
        accepted,
        Given { stream, control, told, ledger: Ledger::new().unwrap(), confined: Confined::nothing() },
        deadline,
    )
    .unwrap();
    reactor.turn.run(&mut reactor.sockets, now);
    assert_eq!(reactor.timeout(now), Some(Duration::from_secs(10)));
    assert!(reactor.sockets.read_size <= 16 * 1024);
}
