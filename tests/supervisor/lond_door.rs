//! Who is let in to a child of `lond` where keys tell who calls; and what `lond` says of itself.

use crate::Test;
use crate::lond::{Called, hello, pin, rest};
use crate::world::{children_of, is_alive};
use nix::sys::signal::Signal;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("any_address_may_call_where_the_secure_wire_can_serve_someone", any_address_may_call),
    ("without_a_key_or_any_pin_a_stranger_is_refused_at_once", without_key_or_pin_strangers_are_refused),
    ("a_newer_link_replaces_the_older_whatever_their_wires", a_newer_link_replaces_across_wires),
    ("a_refused_handshake_is_counted_and_said_once", a_refused_handshake_is_counted),
    (
        "a_wrong_key_from_a_host_of_the_table_is_said_among_any_number_of_strangers",
        a_host_s_wrong_key_is_said_among_strangers,
    ),
    ("a_thousand_connections_that_never_authenticate_leave_a_link_its_speed", a_thousand_connections),
    ("lond_tells_its_links_and_counts_on_its_socket_and_in_its_file", lond_tells_its_links),
    ("counts_and_links_cross_hup", counts_cross_hup),
];

fn any_address_may_call() {
    let called = Called::start_secure("");
    assert_eq!(hello(&mut called.call(77)).0, "?");
    assert_eq!(
        hello(&mut called.call(2)).0,
        "h2",
        "the address still tells who it would be on the classic wire"
    );
    let (_link, pid) = called.open_secure(3);
    assert!(is_alive(pid));
    assert!(!called.world.log().contains("refused"));
}

fn without_key_or_pin_strangers_are_refused() {
    for missing in ["keys/host.key", "hosts.pins"] {
        let mut called = Called::new("");
        called.world.make_key();
        called.world.pin(&[(2, pin(2))]);
        std::fs::remove_file(called.world.path(missing)).unwrap();
        called.world.start();
        assert_eq!(rest(&called.call(77)), "refused\n", "{missing}");
        assert_eq!(hello(&mut called.call(2)).0, "h2", "{missing}");
        assert_eq!(called.status()["refused"], 1);
    }
}

fn a_newer_link_replaces_across_wires() {
    let called = Called::start_secure("");
    let (classic, _) = called.open(2);
    let (secure, _) = called.open_secure(2);
    assert_eq!(rest(&classic), "replaced");
    let (_newest, _) = called.open_secure(2);
    assert_eq!(rest(&secure), "replaced");
    called.world.wait("one link is left", || called.status()["links"].as_array().unwrap().len() == 1);
}

fn a_refused_handshake_is_counted() {
    let called = Called::start_secure("");
    for _ in 0..20 {
        let mut stream = called.call(77);
        hello(&mut stream);
        stream.write_all(b"refuse expected sha256:A for h2, seen sha256:B").unwrap();
        assert_eq!(rest(&stream), "");
    }
    called.world.wait("all are counted", || called.status()["unauthenticated"] == 20);
    let log = called.world.log();
    assert_eq!(log.matches("expected sha256:A for h2, seen sha256:B").count(), 1, "{log}");
    called.world.wait("none is left", || called.status()["opening"] == 0);
    assert!(!log.contains("child"), "nothing else is said of them: {log}");
}

fn a_host_s_wrong_key_is_said_among_strangers() {
    let called = Called::start_secure("");
    let refused = |number: u8, why: &str| {
        let mut stream = called.call(number);
        hello(&mut stream);
        stream.write_all(format!("refuse {why}").as_bytes()).unwrap();
        assert_eq!(rest(&stream), "");
    };
    for number in 100..150 {
        refused(number, "a stranger");
    }
    refused(2, "expected sha256:A, seen sha256:B");
    called.world.wait("all are counted", || called.status()["unauthenticated"] == 51);
    let log = called.world.log();
    assert!(log.matches("a stranger").count() < 50, "strangers are said seldom");
    assert!(log.contains("expected sha256:A, seen sha256:B"), "{log}");
}

fn a_thousand_connections() {
    let called = Called::start_secure("max_opening = 8\nopening_timeout = \"500ms\"\n");
    let (mut link, link_pid) = called.open_secure(2);
    let quiet = slowest_of(&mut link, 100);
    let mut crowd: Vec<TcpStream> = Vec::new();
    let mut slowest = Duration::ZERO;
    while crowd.len() < 1000 {
        crowd.extend((0..10).map(|_| called.call(77)));
        slowest = slowest.max(slowest_of(&mut link, 1));
        assert!(children_of(called.world.pid()).len() <= 9, "eight strangers and the link");
    }
    // Two processors are shared with other tests: what must not be is that the link waits for the crowd.
    assert!(slowest < quiet + Duration::from_millis(500), "{slowest:?}, {quiet:?} when it was quiet");
    called.world.wait("all but eight are closed at once", || {
        crowd.iter_mut().for_each(|stream| stream.set_nonblocking(true).unwrap());
        crowd.retain_mut(|stream| !is_closed(stream));
        crowd.len() <= 8
    });
    called.world.wait("they are killed in time", || children_of(called.world.pid()).len() == 1);
    let status = called.status();
    assert_eq!(status["crowded"].as_u64().unwrap() + status["killed"].as_u64().unwrap(), 1000, "{status}");
    assert!(status["crowded"].as_u64().unwrap() >= 900, "{status}");
    assert!(called.world.log().lines().count() < 20, "{}", called.world.log());
    assert!(is_alive(link_pid));
    slowest_of(&mut link, 10);
    let (_next, _) = called.open_secure(3);
}

/// The longest of so many round trips.
fn slowest_of(link: &mut TcpStream, count: usize) -> Duration {
    let round_trip = |_| {
        let begun = Instant::now();
        link.write_all(b"ping").unwrap();
        link.read_exact(&mut [0; 4]).unwrap();
        begun.elapsed()
    };
    (0..count).map(round_trip).max().unwrap()
}

/// Whether the other end has closed; what it said before is read away.
fn is_closed(stream: &mut TcpStream) -> bool {
    loop {
        match stream.read(&mut [0; 64]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

fn lond_tells_its_links() {
    let called = Called::start_secure("");
    let written = || {
        let text = std::fs::read_to_string(called.world.path("status/lond.json")).unwrap_or_default();
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default()
    };
    called.world.wait("the file is there", || written()["links"].as_array().is_some_and(Vec::is_empty));
    let (secure, pid) = called.open_secure(3);
    let (_classic, _) = called.open(2);
    let status = called.status();
    assert_eq!(
        (status["program"].as_str(), status["pid"].as_u64()),
        (Some("lond"), Some(called.world.pid().into()))
    );
    let [classic, private] = [&status["links"][0], &status["links"][1]];
    assert_eq!((classic["caller"].as_str(), classic["wire"].as_str()), (Some("h2"), Some("classic")));
    assert_eq!((&classic["private"], &classic["pin"]), (&false.into(), &serde_json::Value::Null));
    assert_eq!((private["caller"].as_str(), private["wire"].as_str()), (Some("h3"), Some("secure")));
    assert_eq!((&private["private"], &private["pin"]), (&true.into(), &pin(3).to_string().into()));
    assert_eq!(private["pid"], pid);
    assert_eq!(private["address"], secure.local_addr().unwrap().to_string());
    assert_eq!(status["opening"], 0);
    let mut stranger = called.call(77);
    hello(&mut stranger);
    assert_eq!((&called.status()["opening"], &called.status()["max_opening"]), (&1.into(), &64.into()));
    called.world.wait("the file shows both", || written()["links"].as_array().is_some_and(|l| l.len() == 2));
    drop(secure);
    called.world.wait("the file shows that one is gone", || {
        written()["links"][0]["caller"] == "h2" && written()["links"][1].is_null()
    });
    assert_eq!(called.world.ask("lond.sock", "nonsense").unwrap(), "error:unknown command\n");
    let mut called = called;
    called.world.signal(Signal::SIGTERM);
    assert!(called.world.ended().success());
    assert!(!called.world.path("run/lond.sock").exists());
    let text = std::fs::read_to_string(called.world.path("status/lond.json")).unwrap();
    assert!(text.contains("\"doing\":\"stopped\"") && text.contains("\"links\":[]"), "{text}");
}

fn counts_cross_hup() {
    let called =
        Called::start_secure("drain_timeout = \"20s\"\n".trim_start_matches("drain_timeout = \"20s\"\n"));
    let mut stream = called.call(77);
    hello(&mut stream);
    stream.write_all(b"refuse it").unwrap();
    called.world.wait("it is counted", || called.status()["unauthenticated"] == 1);
    let started = called.status()["started"].clone();
    called.world.signal(Signal::SIGHUP);
    called.world.wait("it began anew", || called.world.log().contains("started anew, "));
    assert_eq!(called.status()["unauthenticated"], 1);
    assert_eq!(called.status()["started"], started);
}
