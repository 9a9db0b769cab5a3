//! The local socket: many clients, many requests, odd clients.

use crate::common::pair::Pair;
use crate::common::process;
use std::io::Write;
use std::time::{Duration, Instant};

/// The longest line by default.
const MAX_LINE: usize = 1 << 20;

#[test]
fn ten_thousand_requests_ahead_are_answered_in_order() {
    let pair = Pair::up();
    let mut client = pair.host.connect("msul1");
    let mut writer = client.writer();
    let sender = std::thread::spawn(move || {
        let all: String = (0..10_000).map(|number| format!("echo:{number}\n")).collect();
        writer.write_all(all.as_bytes()).expect("send ahead");
    });
    for number in 0..10_000 {
        assert_eq!(client.answer(), format!("echo:{number}"));
    }
    sender.join().expect("the sender");
}

#[test]
fn requests_are_pipelined_on_the_link() {
    let pair = Pair::up();
    let gate = crate::common::wait::Gate::default();
    let waits = gate.clone();
    pair.fake.answer_with(move |seen| {
        if seen.request == b"echo:0" {
            waits.pass();
        }
        crate::common::fake_lond::Reply::Line(seen.request.clone())
    });
    let mut clients: Vec<_> = (0..50).map(|_| pair.host.connect("msul1")).collect();
    clients[0].send(b"echo:0\n");
    pair.fake.wait_received("echo:0", 1);
    for (number, client) in clients.iter_mut().enumerate().skip(1) {
        client.send(format!("echo:{number}\n").as_bytes());
    }
    // The first is not answered, and yet the others are on their way.
    crate::common::wait::until_true("the others to be in flight", || {
        pair.host.status("msul1").is_some_and(|status| status["in_flight"].as_u64() >= Some(50))
    });
    gate.open();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.answer(), format!("echo:{number}"));
    }
}

#[test]
fn hundreds_of_short_connections_at_once_each_get_their_own_answer() {
    let pair = Pair::up();
    let socket = pair.host.socket("msul1");
    std::thread::scope(|scope| {
        for worker in 0..20 {
            let socket = &socket;
            scope.spawn(move || {
                for round in 0..5 {
                    let mut clients: Vec<_> =
                        (0..20).map(|_| crate::common::local::Local::connect(socket)).collect();
                    for (number, client) in clients.iter_mut().enumerate() {
                        client.send(format!("echo:{worker}-{round}-{number}\n").as_bytes());
                    }
                    for (number, client) in clients.iter_mut().enumerate() {
                        assert_eq!(client.answer(), format!("echo:{worker}-{round}-{number}"));
                    }
                }
            });
        }
    });
    let status = pair.host.status("msul1").expect("a status");
    assert!(status["done"].as_u64() >= Some(2000), "{status}");
}

#[test]
fn a_client_that_does_not_read_its_answers_slows_nobody_and_loses_nothing() {
    const COUNT: usize = 20_000;
    let pair = Pair::up();
    let filler = "x".repeat(2000);
    let mut lazy = pair.host.connect("msul1");
    let mut writer = lazy.writer();
    let text = filler.clone();
    let sender = std::thread::spawn(move || {
        for number in 0..COUNT {
            writer.write_all(format!("echo:{number} {text}\n").as_bytes()).expect("send ahead");
        }
    });
    // Let it fill what there is to fill; then it must be the only one who waits.
    pair.fake.wait_received("echo:100 ", 1);
    let mut diligent = pair.host.connect("msul1");
    for number in 0..200 {
        let started = Instant::now();
        assert_eq!(diligent.ask(&format!("echo:{number}")), format!("echo:{number}"));
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
    let memory = process::peak_memory(pair.lonc.only_child()).expect("the child lives");
    assert!(memory < 64 << 10, "{memory} KiB for a client that does not read");
    for number in 0..COUNT {
        assert_eq!(lazy.answer(), format!("echo:{number} {filler}"));
    }
    sender.join().expect("the sender");
}

#[test]
fn bytes_pass_unchanged() {
    let pair = Pair::up();
    let mut client = pair.host.connect("msul1");
    let every: Vec<u8> = (0..=255).filter(|&byte| byte != b'\n').collect();
    let line = [b"echo:".as_slice(), &every, b" \r"].concat();
    client.send(&[&line, b"\n".as_slice()].concat());
    assert_eq!(client.answer_bytes(), line);
}

#[test]
fn a_line_of_the_longest_length_passes_and_a_longer_one_is_an_error_after_which_the_connection_goes_on() {
    let pair = Pair::up();
    let mut client = pair.host.connect("msul1");
    let longest = format!("echo:{}", "x".repeat(MAX_LINE - 5));
    assert_eq!(client.ask(&longest), longest);
    let mut writer = client.writer();
    let sender = std::thread::spawn(move || {
        let too_long = format!("echo:{}\necho:after\n", "x".repeat(3 * MAX_LINE));
        writer.write_all(too_long.as_bytes()).expect("send");
    });
    let answer = client.answer();
    assert!(answer.starts_with("error:"), "{:.100}", answer);
    assert_eq!(client.answer(), "echo:after");
    sender.join().expect("the sender");
    assert!(pair.fake.received("echo:").iter().all(|line| line.len() <= MAX_LINE));
}

#[test]
fn the_longest_line_is_what_the_configuration_says() {
    let pair = Pair::up_with(|host| {
        host.set("lonc", "max_line", "1000");
    });
    let mut client = pair.host.connect("msul1");
    let longest = format!("echo:{}", "x".repeat(995));
    assert_eq!(client.ask(&longest), longest);
    assert!(client.ask(&format!("{longest}x")).starts_with("error:"));
    assert_eq!(client.ask("ping"), "msul1");
}

#[test]
fn a_line_may_come_in_pieces_and_many_lines_in_one() {
    let pair = Pair::up();
    let mut client = pair.host.connect("msul1");
    for byte in b"echo:slowly typed\n" {
        client.send(&[*byte]);
    }
    assert_eq!(client.answer(), "echo:slowly typed");
    client.send(b"echo:a\necho:b\n\n\necho:c\n");
    assert_eq!([client.answer(), client.answer(), client.answer()], ["echo:a", "echo:b", "echo:c"]);
}

#[test]
fn a_client_that_dies_in_the_middle_of_a_line_leaves_no_trace() {
    let pair = Pair::up();
    for _ in 0..50 {
        let mut dying = pair.host.connect("msul1");
        dying.send(b"echo:complete\necho:half a li");
        drop(dying);
        assert_eq!(pair.ask("echo:next"), "echo:next");
    }
    let received = pair.fake.received("echo:");
    assert!(
        received
            .iter()
            .all(|line| line == "echo:complete" || line == "echo:next" || line == "echo:half a li"),
        "{received:?}"
    );
    crate::common::wait::until_true("the broker to notice that its clients are gone", || {
        pair.host.status("msul1").is_some_and(|status| status["clients"] == 0)
    });
}

#[test]
fn a_client_that_dies_with_requests_in_flight_costs_nobody_an_answer() {
    let pair = Pair::up();
    let mut witness = pair.host.connect("msul1");
    for number in 0..50 {
        let mut dying = pair.host.connect("msul1");
        dying.send("echo:for nobody\n".repeat(100).as_bytes());
        drop(dying);
        assert_eq!(witness.ask(&format!("echo:{number}")), format!("echo:{number}"));
    }
}

#[test]
fn close_connection_exit_ends_the_child_and_a_new_one_takes_its_place() {
    let pair = Pair::up();
    let before = pair.lonc.only_child();
    let mut client = pair.host.connect("msul1");
    client.send(b"close_connection_exit\n");
    crate::common::wait::until_true(
        "another child",
        || matches!(pair.lonc.children()[..], [child] if child != before),
    );
    pair.host.wait_link("msul1", "up");
    assert_eq!(pair.ask("ping"), "msul1");
    assert!(pair.fake.connections() >= 2, "the link was not closed");
    assert!(process::alive(pair.lonc.pid()));
}
