//! Requests on the secure wire: `lonc` and a lond of the tests' own.

use crate::common::frames::{self, Frame};
use crate::common::local::Local;
use crate::common::pair::CALLED;
use crate::common::secure_lond::{Answerer, Opening, Said};
use crate::common::secure_pair::SecurePair;
use crate::common::{process, wait};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Requests that a lond keeps, and what answers them.
type Held = Arc<Mutex<Vec<(Answerer, Vec<u8>)>>>;

/// Longest line, as configured by default.
const MAX_LINE: usize = 1 << 20;

/// Most memory of a link child, in KiB: two windows, as many lines under way, and the program
/// itself.
const MEMORY: u64 = 64 << 10;

#[test]
fn a_request_crosses_the_secure_link_and_the_status_says_that_it_is_private() {
    let pair = SecurePair::up();
    assert_eq!(pair.ask("ping"), CALLED);
    assert_eq!(pair.ask("encrypt:echo:what others call enciphered"), "echo:what others call enciphered");
    assert_eq!(pair.ask("critical:log:text"), "ok");
    assert_eq!(pair.ask("unheard_of"), "unknown_cmd");
    let status = pair.host.status(CALLED).expect("a status");
    assert_eq!((&status["wire"], &status["private"]), (&"secure".into(), &true.into()), "{status}");
    let table = String::from_utf8_lossy(&pair.host.lon(&["status"]).stdout).into_owned();
    assert!(table.contains("secure") && !table.contains("not private"), "{table}");
    assert_eq!(pair.fake.pins(), [pair.network.key("msua1").pin()]);
    let hello = &pair.fake.hellos()[0];
    assert_eq!((hello["id"].as_str(), hello["to"].as_str()), ("msua1", CALLED));
    assert_eq!(hello["epoch"].len(), 32, "{hello:?}");
}

#[test]
fn answers_that_come_in_any_order_reach_each_program_in_the_order_of_its_requests() {
    let pair = SecurePair::up();
    let held: Held = Arc::default();
    let keep = held.clone();
    pair.fake.answer_with(move |asked, answerer| {
        let mut held = keep.lock().expect("held");
        held.push((answerer.clone(), asked.request.clone()));
        if held.len() == 600 {
            fastrand::shuffle(&mut held);
            held.drain(..).for_each(|(answerer, request)| answerer.answer(&request));
        }
        Said::Nothing
    });
    std::thread::scope(|scope| {
        for client in 0..3 {
            let mut local = pair.host.connect(CALLED);
            scope.spawn(move || {
                for number in 0..200 {
                    local.send(format!("echo:{client}-{number}\n").as_bytes());
                }
                for number in 0..200 {
                    assert_eq!(local.answer(), format!("echo:{client}-{number}"));
                }
            });
        }
    });
}

#[test]
fn a_critical_request_keeps_its_place_in_the_local_order_too() {
    let pair = SecurePair::up();
    let held: Arc<Mutex<Vec<Answerer>>> = Arc::default();
    let keep = held.clone();
    pair.fake.answer_with(move |asked, answerer| {
        if asked.head.is_none() {
            return Said::Answer(asked.request.clone());
        }
        keep.lock().expect("held").push(answerer.clone());
        Said::Nothing
    });
    let mut client = pair.host.connect(CALLED);
    client.send(b"echo:first\ncritical:log:second\necho:third\n");
    assert_eq!(client.answer(), "echo:first");
    pair.fake.wait_received("echo:third", 1);
    wait::until_true("the critical request", || held.lock().expect("held").len() == 1);
    held.lock().expect("held")[0].answer(b"the second answer");
    assert_eq!(client.answer(), "the second answer");
    assert_eq!(client.answer(), "echo:third");
}

#[test]
fn lines_of_a_mebibyte_cross_both_ways_whole_and_short_ones_beside_them() {
    let pair = SecurePair::up();
    let long = |letter: &str| format!("echo:{}", letter.repeat(MAX_LINE - "critical:echo:".len()));
    std::thread::scope(|scope| {
        for letter in ["a", "b", "c"] {
            let mut client = pair.host.connect(CALLED);
            scope.spawn(move || {
                for prefix in ["", "critical:"] {
                    client.send(format!("{prefix}{}\n", long(letter)).as_bytes());
                    assert!(client.answer_bytes() == long(letter).into_bytes(), "{letter} came back changed");
                }
            });
        }
        let mut client = pair.host.connect(CALLED);
        scope.spawn(move || {
            for number in 0..500 {
                assert_eq!(client.ask(&format!("echo:{number}")), format!("echo:{number}"));
            }
        });
    });
    for size in [0, 1, 16383, 16384, 16385, 32768] {
        let text = format!("echo:{}", "x".repeat(size));
        assert_eq!(pair.ask(&text), text);
    }
    let mut client = pair.host.connect(CALLED);
    client.send(format!("echo:{}\nping\n", "x".repeat(MAX_LINE)).as_bytes());
    assert!(client.answer().starts_with("error:"));
    assert_eq!(client.answer(), CALLED);
}

#[test]
fn a_request_that_times_out_is_cancelled_at_the_peer_and_its_late_answer_given_to_nobody() {
    let pair = SecurePair::up_with(|host| {
        host.set("lonc", "request_timeout", "\"1s\"");
    });
    let held: Arc<Mutex<Option<(Answerer, u64)>>> = Arc::default();
    let keep = held.clone();
    pair.fake.answer_with(move |asked, answerer| {
        if asked.request != b"echo:slow" {
            return Said::Answer(asked.request.clone());
        }
        *keep.lock().expect("held") = Some((answerer.clone(), asked.id));
        Said::Nothing
    });
    let mut client = pair.host.connect(CALLED);
    client.send(b"echo:slow\necho:fast\n");
    assert_eq!(client.answer(), "con_lost");
    assert_eq!(client.answer(), "echo:fast");
    let cancels =
        wait::until("a CANCEL", || Some(pair.fake.control(frames::CANCEL)).filter(|all| !all.is_empty()));
    let (answerer, id) = held.lock().expect("held").take().expect("the slow request");
    assert_eq!(cancels.iter().map(|frame| frame.id).collect::<Vec<_>>(), [id]);
    answerer.answer(b"too late");
    for number in 0..10 {
        assert_eq!(client.ask(&format!("echo:{number}")), format!("echo:{number}"));
    }
    assert_eq!(pair.fake.connections(), 1, "the link stays");
}

#[test]
fn a_critical_request_that_times_out_is_delayed_and_never_cancelled() {
    let pair = SecurePair::up_with(|host| {
        host.set("lonc", "request_timeout", "\"1s\"");
    });
    let held: Arc<Mutex<Vec<Answerer>>> = Arc::default();
    let keep = held.clone();
    pair.fake.answer_with(move |asked, answerer| {
        if asked.head.is_none() {
            return Said::Answer(asked.request.clone());
        }
        keep.lock().expect("held").push(answerer.clone());
        Said::Nothing
    });
    assert_eq!(pair.ask("critical:log:slow"), "con_delayed");
    assert_eq!(pair.ask("echo:meanwhile"), "echo:meanwhile");
    held.lock().expect("held").remove(0).answer(b"ok");
    pair.host.wait_delivered(CALLED);
    assert_eq!(pair.fake.control(frames::CANCEL), []);
    assert_eq!(pair.fake.asked().iter().filter(|asked| asked.head.is_some()).count(), 1);
}

#[test]
fn no_more_is_sent_than_the_peers_window_takes() {
    // The least window of a side that takes lines of 64 KiB.
    const WINDOW: u64 = 2 * 65536 + 65536;
    let pair = SecurePair::prepare(
        |_| {},
        |fake| {
            fake.say_in_hello("max_line", "65536");
            fake.say_in_hello("window", &WINDOW.to_string());
            fake.listen();
        },
    );
    let held: Held = Arc::default();
    let (open, keep) = (crate::common::wait::Gate::default(), held.clone());
    let opened = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let through = opened.clone();
    pair.fake.answer_with(move |asked, answerer| {
        if through.load(std::sync::atomic::Ordering::SeqCst) {
            return Said::Answer(asked.request.clone());
        }
        keep.lock().expect("held").push((answerer.clone(), asked.request.clone()));
        Said::Nothing
    });
    pair.host.wait_link(CALLED, "up");
    let request = |number: usize| format!("echo:{number:04}{}", "x".repeat(991));
    let fits = usize::try_from(WINDOW).expect("small") / (64 + request(0).len());
    let mut client = pair.host.connect(CALLED);
    let mut writer = client.writer();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            use std::io::Write;
            for number in 0..1000 {
                writer.write_all(format!("{}\n", request(number)).as_bytes()).expect("send");
            }
        });
        wait::until_true("the window to be full", || held.lock().expect("held").len() >= fits);
        wait::let_pass(Duration::from_millis(300));
        assert_eq!(held.lock().expect("held").len(), fits);
        opened.store(true, std::sync::atomic::Ordering::SeqCst);
        open.open();
        held.lock().expect("held").drain(..).for_each(|(answerer, text)| answerer.answer(&text));
        for number in 0..1000 {
            assert_eq!(client.answer(), request(number));
        }
    });
    let long = "x".repeat(65536 - 5 + 1);
    assert!(pair.ask(&format!("echo:{long}")).starts_with("error:"), "longer than the peer takes");
}

#[test]
fn a_program_that_does_not_read_its_answers_costs_a_bounded_memory_and_delays_no_other() {
    let pair = SecurePair::up();
    let lazy = pair.host.connect(CALLED);
    let mut writer = lazy.writer();
    let line = format!("echo:{}\n", "x".repeat(200_000));
    let sending = std::thread::spawn(move || {
        use std::io::Write;
        // Until the broker reads no more, and then until the connection is closed.
        writer.set_write_timeout(Some(Duration::from_secs(2))).expect("limit writing");
        while writer.write_all(line.as_bytes()).is_ok() {}
    });
    sending.join().expect("the lazy client");
    for number in 0..100 {
        assert_eq!(pair.ask(&format!("echo:{number}")), format!("echo:{number}"));
    }
    let memory = process::peak_memory(pair.lonc.only_child()).expect("the child lives");
    assert!(memory < MEMORY, "{memory} KiB");
}

#[test]
fn a_peer_that_stops_reading_costs_a_bounded_memory_and_all_is_answered_when_it_reads_again() {
    let pair = SecurePair::prepare(
        |_| {},
        |fake| {
            fake.open_with(Opening::Deaf);
            fake.listen();
        },
    );
    pair.host.wait_link(CALLED, "up");
    const EACH: usize = 300;
    let line = |client: usize, number: usize| format!("echo:{client}-{number}-{}", "x".repeat(50_000));
    std::thread::scope(|scope| {
        for client in 0..4 {
            let mut local = pair.host.connect(CALLED);
            let mut writer = local.writer();
            scope.spawn(move || {
                use std::io::Write;
                for number in 0..EACH {
                    writer.write_all(format!("{}\n", line(client, number)).as_bytes()).expect("send");
                }
            });
            scope.spawn(move || {
                for number in 0..EACH {
                    assert!(local.answer() == line(client, number), "answer {number} of client {client}");
                }
            });
        }
        wait::until_true("requests in flight", || {
            pair.host.status(CALLED).is_some_and(|status| status["in_flight"].as_u64() > Some(10))
        });
        wait::let_pass(Duration::from_millis(500));
        pair.fake.open_with(Opening::Serve);
    });
    let memory = process::peak_memory(pair.lonc.only_child()).expect("the child lives");
    assert!(memory < MEMORY, "{memory} KiB");
    assert_eq!(pair.fake.connections(), 1);
}

#[test]
fn a_peer_that_breaks_the_wires_rules_loses_the_link_and_no_program_gets_a_wrong_answer() {
    let pair = SecurePair::up();
    let breaches = [
        ("an answer to what was never asked", Frame::new(frames::ANSWER, 1 << 40, "wrong")),
        ("a request from the called side", Frame::new(frames::REQUEST, 1, "ping")),
        ("a second HELLO", Frame::new(frames::HELLO, 0, "lonnet\nversions=1-1\n")),
        ("an unknown kind below 0x80", Frame::new(0x42, 0, "what")),
        ("an error", Frame::new(frames::ERROR, 0, "no more")),
    ];
    for (count, (what, breach)) in breaches.into_iter().enumerate() {
        assert_eq!(pair.ask("echo:before"), "echo:before");
        pair.fake.say(&breach);
        // Not hurried by USR1: its PING would be answered to a socket that is closed, and the reset
        // take the ERROR away.
        wait::until_true(&format!("another link after {what}"), || pair.fake.connections() == count + 2);
        pair.host.wait_link(CALLED, "up");
    }
    // Each breach is told; an ERROR is not answered.
    wait::until_true("the ERRORs", || pair.fake.control(frames::ERROR).len() >= 4);
    assert_eq!(pair.fake.control(frames::ERROR).len(), 4);
    // Kinds that a later version may have are passed over.
    let links = pair.fake.connections();
    pair.fake.say(&Frame::new(0x80, 7, "something new"));
    pair.fake.say(&Frame { kind: 0xff, flags: 0xff, id: u64::MAX, body: vec![0; frames::LONGEST] });
    assert_eq!(pair.ask("echo:after"), "echo:after");
    assert_eq!(pair.fake.connections(), links);
}

#[test]
fn a_request_whose_link_dies_is_lost_and_one_that_goes_away_with_a_goaway_is_asked_again() {
    let pair = SecurePair::up();
    pair.fake.answer_with(|asked, _| match asked.request.as_slice() {
        b"echo:cut" => Said::Cut,
        request => Said::Answer(request.to_vec()),
    });
    assert_eq!(pair.ask("echo:cut"), "con_lost");
    pair.dial_now();
    assert_eq!(pair.ask("echo:again"), "echo:again");
    let links = pair.fake.connections();
    // Nothing was asked on this link beyond its first request: it ends, and another is made.
    pair.fake.say(&Frame::new(frames::GOAWAY, 0, 1_u64.to_be_bytes()));
    pair.fake.cut();
    wait::until_true("another link", || {
        pair.lonc.signal(nix::sys::signal::Signal::SIGUSR1);
        pair.fake.connections() > links
    });
    pair.host.wait_link(CALLED, "up");
    assert_eq!(pair.ask("echo:still"), "echo:still");
}

#[test]
fn ten_thousand_requests_ahead_on_one_connection_are_answered_in_order() {
    let pair = SecurePair::up();
    let mut client = Local::connect(&pair.host.socket(CALLED));
    let mut writer = client.writer();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            use std::io::Write;
            let lines: String = (0..10_000).map(|number| format!("echo:{number}\n")).collect();
            writer.write_all(lines.as_bytes()).expect("send");
        });
        for number in 0..10_000 {
            assert_eq!(client.answer(), format!("echo:{number}"));
        }
    });
}
