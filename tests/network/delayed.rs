//! Critical messages: stored while the other host is away, delivered in order when it is back.

use crate::common::fake_lond::Reply;
use crate::common::pair::Pair;
use crate::common::process;
use crate::common::wait::{self, Gate};
use std::collections::HashSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("log:{prefix}-{number}")).collect()
}

#[test]
fn while_the_link_is_down_requests_are_lost_and_critical_ones_delayed_at_once() {
    let pair = Pair::down();
    let started = Instant::now();
    let mut client = pair.host.connect("msul1");
    client.send(b"ping\ncritical:log:kept\nping\nencrypt:ping\ncritical:encrypt:log:also kept\n");
    let answers: Vec<_> = (0..5).map(|_| client.answer()).collect();
    assert_eq!(answers, ["con_lost", "con_delayed", "con_lost", "con_lost", "con_delayed"]);
    assert!(started.elapsed() < Duration::from_secs(5), "not at once: {:?}", started.elapsed());
}

#[test]
fn a_stored_message_is_a_line_that_cat_and_grep_show() {
    let pair = Pair::down();
    assert_eq!(pair.ask("critical:log:to be seen with grep"), "con_delayed");
    let mut found = 0;
    for entry in std::fs::read_dir(pair.host.spool("msul1")).expect("the spool").flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "seg") {
            let bytes = std::fs::read(entry.path()).expect("a segment");
            let text = String::from_utf8_lossy(&bytes).into_owned();
            found += text.lines().filter(|line| line.contains("log:to be seen with grep")).count();
        }
    }
    assert_eq!(found, 1);
    let listing = pair.host.lon(&["queue", "msul1"]);
    assert!(String::from_utf8_lossy(&listing.stdout).contains("log:to be seen with grep"), "{listing:?}");
    let status = pair.host.status("msul1").expect("a status");
    assert_eq!(status["delayed"], 1, "{status}");
}

#[test]
fn what_was_delayed_arrives_in_order_when_the_host_is_back_and_is_noted_in_the_perm_log() {
    let mut pair = Pair::down();
    let mut client = pair.host.connect("msul1");
    for message in numbered("m", 100) {
        assert_eq!(client.ask(&format!("critical:{message}")), "con_delayed");
    }
    pair.come_back();
    assert_eq!(pair.fake.wait_received("log:", 100), numbered("m", 100));
    pair.host.wait_delivered("msul1");
    wait::until_true("the perm log", || pair.host.log("lonnet.perm.log").lines().count() == 100);
    for (number, line) in pair.host.log("lonnet.perm.log").lines().enumerate() {
        let (epoch, rest) = line.split_once(':').expect("<epoch>:...");
        assert!(epoch.parse::<u64>().expect("an epoch") > 1_700_000_000, "{line}");
        let local_time = rest.strip_prefix(&format!("S:msul1:log:m-{number}:")).unwrap_or_else(|| {
            panic!("not <epoch>:S:msul1:log:m-{number}:<local time>: {line}");
        });
        assert!(!local_time.is_empty(), "{line}");
    }
}

#[test]
fn what_was_delayed_enciphered_is_sent_enciphered() {
    let mut pair = Pair::down();
    assert_eq!(pair.ask("critical:encrypt:log:secret delayed"), "con_delayed");
    assert_eq!(pair.ask("critical:log:open"), "con_delayed");
    pair.come_back();
    assert_eq!(pair.fake.wait_received("log:", 2), ["log:secret delayed", "log:open"]);
    let lines: Vec<_> = pair.fake.requests().into_iter().map(|seen| seen.line).collect();
    assert_eq!(lines[0], b"enc:18:6f5e9db1c3c85cd30b5859a52d41f4ac9f3b375ab2d09744");
    assert_eq!(lines[1], b"log:open");
}

#[test]
fn new_critical_messages_queue_behind_stored_ones_and_plain_requests_do_not_wait() {
    let mut pair = Pair::down();
    let mut client = pair.host.connect("msul1");
    for message in numbered("old", 50) {
        assert_eq!(client.ask(&format!("critical:{message}")), "con_delayed");
    }
    // The first stored message is not answered until the gate opens, so the rest of the queue
    // waits.
    let gate = Gate::default();
    pair.fake.listen();
    let waits = gate.clone();
    pair.fake.answer_with(move |seen| {
        if seen.text() == "log:old-0" {
            waits.pass();
        }
        Reply::Line(if seen.request.starts_with(b"log:") { b"ok".to_vec() } else { seen.request.clone() })
    });
    pair.dial_now();
    pair.fake.wait_received("log:old-0", 1);
    for message in numbered("new", 10) {
        assert_eq!(client.ask(&format!("critical:{message}")), "con_delayed", "{message}");
    }
    let mut plain = pair.host.connect("msul1");
    plain.send(b"echo:does not wait\n");
    wait::until_true("the plain request to be in flight", || {
        pair.host.status("msul1").is_some_and(|status| status["in_flight"].as_u64() >= Some(2))
    });
    gate.open();
    assert_eq!(plain.answer(), "echo:does not wait");
    let expected = [numbered("old", 50), numbered("new", 10)].concat();
    assert_eq!(pair.fake.wait_received("log:", 60), expected);
    // Once the queue is empty, critical messages are answered by the other host again.
    wait::until_true("the queue to be empty", || pair.ask("critical:log:direct") == "ok");
}

#[test]
fn a_critical_message_in_flight_when_the_link_dies_is_delayed_and_arrives() {
    let mut pair = Pair::up();
    pair.fake.answer_with(|_| Reply::Nothing);
    let mut client = pair.host.connect("msul1");
    let all: String = (0..20).map(|number| format!("critical:log:m-{number}\n")).collect();
    client.send(all.as_bytes());
    client.send(b"echo:plain\n");
    pair.fake.wait_received("log:", 1);
    pair.fake.stop();
    for _ in 0..20 {
        assert_eq!(client.answer(), "con_delayed");
    }
    assert_eq!(client.answer(), "con_lost");
    let before = pair.fake.received("log:").len();
    pair.come_back();
    let received = pair.fake.wait_received("log:", before + 20);
    assert_eq!(received[before..], numbered("m", 20));
}

#[test]
fn the_queue_goes_on_where_it_was_when_the_link_dies_in_the_middle_of_it() {
    let mut pair = Pair::down();
    let mut client = pair.host.connect("msul1");
    for message in numbered("m", 200) {
        assert_eq!(client.ask(&format!("critical:{message}")), "con_delayed");
    }
    let closed_at = Mutex::new(HashSet::new());
    pair.fake.answer_with(move |seen| {
        // The link dies at every fortieth message, the first time that it comes.
        let text = seen.text();
        let number: usize = text.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or_default();
        if number % 40 == 39 && closed_at.lock().expect("the numbers").insert(number) {
            return Reply::Close;
        }
        Reply::Line(b"ok".to_vec())
    });
    pair.fake.listen();
    pair.lonc.signal(nix::sys::signal::Signal::SIGUSR1);
    wait::until_true("every message to arrive", || {
        let received = pair.fake.received("log:");
        numbered("m", 200).iter().all(|message| received.contains(message))
    });
    let mut firsts = Vec::new();
    for message in pair.fake.received("log:") {
        if !firsts.contains(&message) {
            firsts.push(message);
        }
    }
    assert_eq!(firsts, numbered("m", 200));
    assert!(pair.fake.connections() >= 5, "the link did not die five times");
}

#[test]
fn a_refused_or_unknown_message_is_set_aside_and_the_next_one_follows() {
    let mut pair = Pair::down();
    let mut client = pair.host.connect("msul1");
    for request in ["log:first", "refuse:this", "no such command", "log:last"] {
        assert_eq!(client.ask(&format!("critical:{request}")), "con_delayed");
    }
    pair.come_back();
    assert_eq!(pair.fake.wait_received("log:", 2), ["log:first", "log:last"]);
    let failed = pair.host.spool("msul1").join("failed");
    let texts = || -> Vec<String> {
        let entries = std::fs::read_dir(&failed).into_iter().flatten().flatten();
        let mut texts: Vec<_> =
            entries.map(|entry| std::fs::read(entry.path()).expect("a failed message")).collect();
        texts.sort();
        texts.into_iter().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect()
    };
    wait::until_true("two failed messages", || texts().len() == 2);
    let all = texts().concat();
    assert!(all.contains("refuse:this") && all.contains("no such command"), "{all}");
    let status = pair.host.status("msul1").expect("a status");
    assert_eq!((&status["failed"], &status["delayed"]), (&2.into(), &0.into()), "{status}");
    // Sent once: an answer that will not get better is not asked for again.
    pair.fake.cut();
    wait::until_true("another connection", || pair.fake.connections() >= 2);
    pair.dial_now();
    assert_eq!(pair.ask("critical:log:more"), "ok");
    assert_eq!(pair.fake.received("refuse:").len(), 1);
}

#[test]
fn messages_of_many_clients_keep_the_order_of_each() {
    let mut pair = Pair::down();
    let socket = pair.host.socket("msul1");
    std::thread::scope(|scope| {
        for client in 0..10 {
            let socket = &socket;
            scope.spawn(move || {
                let mut connection = crate::common::local::Local::connect(socket);
                let all: String = (0..100).map(|n| format!("critical:log:c{client}-{n}\n")).collect();
                connection.send(all.as_bytes());
                for _ in 0..100 {
                    assert_eq!(connection.answer(), "con_delayed");
                }
            });
        }
    });
    pair.come_back();
    let received = pair.fake.wait_received("log:", 1000);
    for client in 0..10 {
        let prefix = format!("log:c{client}-");
        let of_client: Vec<_> =
            received.iter().filter(|message| message.starts_with(&prefix)).cloned().collect();
        assert_eq!(of_client, numbered(&format!("c{client}"), 100));
    }
}

#[test]
fn a_backlog_survives_stop_and_start_and_kill() {
    let mut pair = Pair::down();
    for round in 0..4 {
        let mut client = pair.host.connect("msul1");
        for number in 0..10 {
            assert_eq!(client.ask(&format!("critical:log:m-{}", round * 10 + number)), "con_delayed");
        }
        drop(client);
        let child = pair.lonc.only_child();
        pair = match round {
            0 => pair.restart(),
            1 => {
                process::signal(child, nix::sys::signal::Signal::SIGKILL);
                pair
            }
            _ => pair.kill_and_restart(),
        };
        wait::until_true("the peer to be served again", || {
            pair.lonc.children().iter().any(|&pid| pid != child)
        });
    }
    pair.come_back();
    assert_eq!(pair.fake.wait_received("log:", 40), numbered("m", 40));
}
