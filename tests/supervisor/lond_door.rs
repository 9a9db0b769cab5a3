//! Who is let in to a child of `lond` where keys tell who calls; and what `lond` says of itself.

use crate::Test;
use crate::lond::{Called, hello, pin, rest, settings};
use crate::world::{children_of, is_alive};
use nix::sys::signal::Signal;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("any_address_may_call_where_the_secure_wire_can_serve_someone", any_address_may_call),
    (
        "a_child_that_says_that_its_caller_is_another_than_can_be_is_killed",
        a_child_that_lies_about_its_caller,
    ),
    ("without_a_key_or_any_pin_a_stranger_is_refused_at_once", without_key_or_pin_strangers_are_refused),
    ("a_newer_link_replaces_the_older_whatever_their_wires", a_newer_link_replaces_across_wires),
    ("a_refused_handshake_is_counted_and_said_once", a_refused_handshake_is_counted),
    (
        "a_wrong_key_from_a_host_of_the_table_is_said_among_any_number_of_strangers",
        a_kept_wrong_key_is_said_among_strangers,
    ),
    ("a_thousand_connections_that_never_authenticate_leave_a_link_its_speed", a_thousand_connections),
    ("one_stranger_with_any_number_of_silent_connections_keeps_nobody_away", one_stranger_keeps_nobody_away),
    ("a_host_that_is_known_by_name_alone_has_room_kept_at_the_door", a_host_known_by_name_has_room),
    ("a_caller_that_opens_link_after_link_has_a_few_children_and_its_newest_link_works", link_after_link),
    ("with_few_descriptors_links_that_are_ending_give_way_and_other_hosts_get_in", few_descriptors),
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

/// Each child says what a child would that somebody has taken over.
fn a_child_that_lies_about_its_caller() {
    let called = Called::start_secure("");
    let (link, pid) = called.open_secure(2);
    let lies = [
        (77, format!("nobody {}", pin(2)), "nobody: no host of the table"),
        (77, format!("h2 {}", pin(9)), "h2: the pin that it names is not that host's"),
        (78, format!("h5 {}", pin(2)), "h5: the pin that it names is not that host's"),
        (79, "h2 sha256:short".to_owned(), "h2: the pin that it names is not that host's"),
        (80, "h2".to_owned(), "h2: its address is not that host's"),
        (3, "h2".to_owned(), "h2: its address is not that host's"),
    ];
    for (number, lie, why) in lies {
        let mut stream = called.call(number);
        let (_, liar) = hello(&mut stream);
        stream.write_all(lie.as_bytes()).unwrap();
        assert_eq!(rest(&stream), "", "closed without a word");
        called.world.wait("the child that lies is gone", || !is_alive(liar));
        let said = format!("says that its caller is {why}; killed");
        called.world.wait("it is said", || called.world.log().contains(&said));
    }
    // One whose caller is known is no other's later on.
    let (mut third, liar) = called.open_secure(3);
    third.write_all(format!("h2 {}", pin(2)).as_bytes()).unwrap();
    assert_eq!(rest(&third), "");
    called.world.wait("the child that lies is gone", || !is_alive(liar));
    called
        .world
        .wait("it is said", || called.world.log().contains("h2: its caller is known already; killed"));
    let callers = || {
        let links = called.status()["links"].as_array().unwrap().clone();
        links.iter().map(|link| link["caller"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(callers(), ["h2"]);
    drop(link);
    called.world.wait("the link that nobody has replaced ends", || !is_alive(pid));
    let gone = called.status()["gone"].as_array().unwrap().clone();
    assert!(gone.iter().all(|host| host["caller"] != "nobody" && host["caller"] != "h5"), "{gone:?}");
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
    assert!(!log.contains("child "), "nothing else is said of them: {log}");
}

fn a_kept_wrong_key_is_said_among_strangers() {
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
    // Two processors are shared with other tests: what must not be is that the link waits for the
    // crowd.
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

fn one_stranger_keeps_nobody_away() {
    let called = Called::start_secure("max_opening = 16\n");
    let mut crowd: Vec<TcpStream> = (0..200).map(|_| called.call(77)).collect();
    called.world.wait("it has its share", || called.status()["opening"] == 2);
    called.world.wait("the others are closed", || called.status()["crowded"].as_u64().unwrap() >= 198);
    // Hosts, and strangers from elsewhere, while it goes on.
    for n in [2, 3, 78, 79, 4] {
        crowd.extend((0..50).map(|_| called.call(77)));
        let mut stream = called.call(n);
        let name = if n > 9 { "?".to_owned() } else { format!("h{n}") };
        assert_eq!(hello(&mut stream).0, name);
        assert!(children_of(called.world.pid()).len() <= 16);
    }
    let log = called.world.log();
    assert!(log.matches("are in the opening dialogue").count() <= 4, "it is said once a minute: {log}");
    // One that has said nothing for a while gives way to its own next.
    called.world.wait("another of its connections is served", || {
        let mut stream = called.call(77);
        let mut byte = [0];
        matches!(stream.read(&mut byte), Ok(1))
    });
}

fn a_host_known_by_name_has_room() {
    let mut called = Called::new("max_opening = 2\n");
    called.world.make_key();
    called.world.pin(&[(2, pin(2))]);
    let hosts = format!("{}wanderer:d:access:localhost:\n", called.hosts);
    called.world.configure(&hosts, &settings(called.address, "max_opening = 2\n"));
    called.serve();
    let from_localhost = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.connect(&called.address.into()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        TcpStream::from(socket)
    };
    // Strangers have one of the two places, and it is taken.
    let mut stranger = called.call(77);
    hello(&mut stranger);
    let mut kept = Vec::new();
    called.world.wait("there is a place beside the stranger", || {
        stranger.set_nonblocking(true).unwrap();
        if is_closed(&mut stranger) {
            stranger = called.call(77);
            return false;
        }
        let mut host = from_localhost();
        let let_in = matches!(host.read(&mut [0; 64]), Ok(count) if count > 0);
        kept = vec![host];
        let_in && called.status()["opening"] == 2
    });
    drop(kept);
    assert!(!called.world.log().contains("look hosts' names up: "), "{}", called.world.log());
}

/// A link of the host that does not end when a newer one replaces it.
fn stubborn(called: &Called, host: u8) -> (TcpStream, u32) {
    let mut stream = called.call(77);
    let pid = hello(&mut stream).1;
    stream.write_all(format!("h{host} {}", pin(host)).as_bytes()).unwrap();
    // The log has so many lines a minute.
    called.world.wait("the link is open", || {
        called.status()["links"].as_array().unwrap().iter().any(|link| link["pid"] == pid)
    });
    stream.write_all(b"stay").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"stays");
    (stream, pid)
}

fn link_after_link() {
    /// Of one host.
    const CHILDREN: usize = 8;
    let called = Called::start_secure("");
    let drains = settings(called.address, "").replace("500ms", "60s");
    called.world.configure(&called.hosts, &drains);
    assert!(called.reload().starts_with("reloaded: "));
    let (mut other, _) = called.open_secure(3);
    let mut links = Vec::new();
    for _ in 0..30 {
        links.push(stubborn(&called, 2));
        called.world.wait("a few children are left", || {
            children_of(called.world.pid()).iter().filter(|(_, state)| *state != 'Z').count() <= CHILDREN + 1
        });
    }
    let alive: Vec<usize> = (0..30).filter(|at| is_alive(links[*at].1)).collect();
    assert_eq!(alive, (0..CHILDREN - 1).chain([29]).collect::<Vec<_>>(), "the oldest, and the newest");
    slowest_of(&mut links[29].0, 3);
    slowest_of(&mut other, 3);
    let log = called.world.log();
    assert!(log.contains("h2: it has 8 links that have not ended"), "{log}");
    assert!(log.lines().count() < 100, "{log}");
}

fn few_descriptors() {
    let mut called = Called::new("");
    called.world.make_key();
    called.world.pin(&[2, 3, 4].map(|n| (n, pin(n))));
    let drains = settings(called.address, "").replace("500ms", "60s");
    called.world.configure(&called.hosts, &drains);
    // 64 are for other things: there may be eight children.
    let inner = called.world.command(&["--foreground"]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 72; exec \"$@\"", "sh"]).arg(inner.get_program()).args(inner.get_args());
    limited.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    called.world.start_as(limited);
    assert!(called.world.log().contains("open files, and the limit is 72"), "{}", called.world.log());
    let links: Vec<_> = (0..7).map(|_| stubborn(&called, 2)).collect();
    let (mut third, _) = called.open_secure(3);
    let (mut fourth, _) = called.open_secure(4);
    slowest_of(&mut third, 3);
    slowest_of(&mut fourth, 3);
    assert!(links.iter().filter(|(_, pid)| is_alive(*pid)).count() < 7, "some of the ending ones gave way");
    called.world.wait("there are eight", || children_of(called.world.pid()).len() <= 8);
    // Where nobody has two that are ending, a newcomer is closed at once, and it is said.
    let mut strangers: Vec<TcpStream> = Vec::new();
    called.world.wait("there is no room", || {
        strangers.extend((70..100).map(|n| called.call(n)));
        called.world.log().contains("as many as may be")
    });
    assert_eq!(hello(&mut called.call(5)).0, "h5", "a host of the table does not wait for strangers");
    slowest_of(&mut third, 3);
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
