//! `lond`'s supervisor. Each test has addresses of its own in 127.0.0.0/8: this host's, and one
//! each caller.

use crate::world::{PATIENCE, World, children_of, is_alive, open_files_of, status_field, title_of};
use crate::{ROLE, Test};
use lonnet::base::Pin;
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("a_caller_is_known_by_its_address_and_gets_a_child", a_caller_is_known_by_its_address),
    ("a_stranger_is_refused_and_so_is_everybody_without_the_classic_wire", a_stranger_is_refused),
    ("a_host_without_an_address_lets_a_child_look_it_up", a_host_without_an_address),
    ("an_address_of_the_configuration_is_known_too", an_address_of_the_configuration),
    ("a_newer_link_replaces_the_older", a_newer_link_replaces_the_older),
    ("beyond_max_opening_the_oldest_of_whoever_has_most_gives_way_to_a_newcomer", beyond_max_opening),
    ("a_child_that_does_not_open_in_time_is_killed", a_child_that_does_not_open),
    ("lonc_is_told_of_hosts_that_are_back_at_most_once_a_second", lonc_is_told),
    ("a_panic_in_a_child_of_lond_is_logged_with_its_place_and_the_others_serve_on", a_panic_in_a_child),
    ("a_panic_in_lond_itself_is_logged_with_its_place_and_its_children_end", a_panic_in_the_supervisor),
    ("lond_hup_works_the_tenth_time_as_the_first_and_no_connect_fails", hup_works_the_tenth_time),
    ("lond_hup_with_a_bad_configuration_keeps_the_old", hup_keeps_the_old),
    ("lond_term_ends_every_link_and_quit_does_so_at_once", term_ends_every_link),
    ("a_taken_port_is_an_error_of_the_start", a_taken_port_is_an_error),
    (
        "of_two_addresses_the_one_that_can_be_had_is_served_and_the_other_is_said_and_tried_again",
        an_address_that_cannot_be_had_is_tried_again,
    ),
];

/// A `lond`, and the addresses of its callers.
pub struct Called {
    pub world: World,
    pub address: SocketAddr,
    pub hosts: String,
}

impl Called {
    pub fn new(more: &str) -> Called {
        let mut random = fastrand::Rng::new();
        let net = format!("127.{}.{}", random.u8(1..=254), random.u8(..));
        let port = free_port(&format!("{net}.1"));
        let mut hosts = format!("me:d:library:h:{net}.1\n");
        for n in 2..=9 {
            hosts.push_str(&format!("h{n}:d:access:h:{net}.{n}\n"));
        }
        let address = format!("{net}.1:{port}").parse().unwrap();
        let world = World::new("lond", &hosts, &settings(address, more));
        Called { world, address, hosts }
    }

    pub fn start(more: &str) -> Called {
        let mut called = Called::new(more);
        called.serve();
        called
    }

    /// Starts it and waits until all is written that a start writes.
    pub fn serve(&mut self) {
        self.world.start();
        self.world.wait("the status is written", || self.world.path("status/lond.json").exists());
    }

    /// The same with a key of this host's own and a pin of each of h2 to h4.
    pub fn start_secure(more: &str) -> Called {
        let mut called = Called::new(more);
        called.world.make_key();
        called.world.pin(&[2, 3, 4].map(|n| (n, pin(n))));
        called.serve();
        called
    }

    /// Writes the settings anew.
    pub fn configure(&self, more: &str) {
        self.world.configure(&self.hosts, &settings(self.address, more));
    }

    /// What `lond` says of itself.
    pub fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.world.ask("lond.sock", "status").unwrap()).unwrap()
    }

    /// The last line of the answer.
    pub fn reload(&self) -> String {
        let answer = self.world.ask("lond.sock", "reload").unwrap();
        answer.trim_end().lines().last().unwrap().to_owned()
    }

    /// A connection from the host `h<n>`.
    pub fn call(&self, n: u8) -> TcpStream {
        let mut from = self.address;
        let std::net::IpAddr::V4(ip) = from.ip() else { panic!("an IPv4 address") };
        let [a, b, c, _] = ip.octets();
        from.set_ip([a, b, c, n].into());
        from.set_port(0);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&from.into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.into()
    }

    /// A link from `h<n>` that is open; with the pid of its child.
    pub fn open(&self, n: u8) -> (TcpStream, u32) {
        self.open_as(n, &format!("h{n}"))
    }

    /// The same on the secure wire, from an address that is no host's, with the pin of `pin(n)`.
    pub fn open_secure(&self, n: u8) -> (TcpStream, u32) {
        self.open_as(77, &format!("h{n} {}", pin(n)))
    }

    fn open_as(&self, from: u8, word: &str) -> (TcpStream, u32) {
        let mut stream = self.call(from);
        let pid = hello(&mut stream).1;
        stream.write_all(word.as_bytes()).unwrap();
        let said = format!("child {pid}");
        let open = |log: &str| log.lines().any(|line| line.contains("link open") && line.contains(&said));
        self.world.wait("the link is open", || open(&self.world.log()));
        (stream, pid)
    }
}

/// The pin of the key that `h<n>` has at first.
pub fn pin(n: u8) -> Pin {
    Pin::of(&[n])
}

pub fn settings(address: SocketAddr, more: &str) -> String {
    format!(
        "[lonc]\nwire = \"classic\"\n[lond]\nclassic = \"allow\"\nlisten = [\"{address}\"]\n\
         drain_timeout = \"500ms\"\n{more}"
    )
}

pub fn free_port(ip: &str) -> u16 {
    // Not listened on: a process that is just being started would have a copy, and the port be
    // taken for as long.
    let socket = lonnet::net::listen::bind(SocketAddr::new(ip.parse().unwrap(), 0), false).unwrap();
    socket.local_addr().unwrap().as_socket().unwrap().port()
}

/// What the child says first: whom it takes the caller for, and its pid.
pub fn hello(stream: &mut TcpStream) -> (String, u32) {
    let mut line = String::new();
    let mut byte = [0];
    while !line.ends_with('\n') {
        stream.read_exact(&mut byte).unwrap();
        line.push(byte[0].into());
    }
    let (name, pid) = line.trim().split_once(' ').unwrap();
    (name.to_owned(), pid.parse().unwrap())
}

/// All that still comes.
pub fn rest(mut stream: &TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn a_caller_is_known_by_its_address() {
    let called = Called::start("");
    let mut stream = called.call(2);
    let (name, pid) = hello(&mut stream);
    assert_eq!(name, "h2");
    assert_eq!(title_of(pid), "lond: h2 serving");
    assert_eq!(children_of(called.world.pid()).len(), 1);
    let (_open, _) = called.open(3);
    called.world.wait("the title counts it", || title_of(called.world.pid()) == "lond: supervisor, 1 links");
    drop(stream);
    called.world.wait("its child ends and is reaped", || children_of(called.world.pid()).len() == 1);
    assert!(!is_alive(pid));
}

fn a_stranger_is_refused() {
    let called = Called::start("");
    for _ in 0..20 {
        assert_eq!(rest(&called.call(77)), "refused\n");
    }
    let lines = called.world.log().matches("no host of the table has this address").count();
    assert_eq!(lines, 1, "an address is named once a minute");
    assert_eq!(children_of(called.world.pid()).len(), 0);

    let called = Called::new("");
    let text = settings(called.address, "").replace("allow", "refuse");
    called.world.configure(&called.hosts, &text);
    let mut called = called;
    called.world.start();
    assert_eq!(rest(&called.call(2)), "refused\n");
    assert!(called.world.log().contains("the classic wire is refused"));
}

fn a_host_without_an_address() {
    let mut called = Called::new("");
    let hosts = format!("{}wanderer:d:access:localhost:\n", called.hosts);
    called.world.configure(&hosts, &settings(called.address, ""));
    called.world.start();
    assert_eq!(hello(&mut called.call(77)).0, "?");
    assert_eq!(hello(&mut called.call(2)).0, "h2");
}

fn an_address_of_the_configuration() {
    let mut called = Called::new("");
    let mut there = called.address;
    let std::net::IpAddr::V4(ip) = there.ip() else { panic!("an IPv4 address") };
    let [a, b, c, _] = ip.octets();
    there.set_ip([a, b, c, 88].into());
    let text = settings(called.address, &format!("[host.h5]\naddress = \"{there}\"\n"));
    called.world.configure(&called.hosts, &text);
    called.world.start();
    assert_eq!(hello(&mut called.call(88)).0, "h5");
    assert_eq!(hello(&mut called.call(5)).0, "h5", "the table's own address stays");
}

fn a_newer_link_replaces_the_older() {
    let called = Called::start("");
    let (older, old_pid) = called.open(2);
    let (_other, other_pid) = called.open(3);
    let (_newer, new_pid) = called.open(2);
    assert_eq!(rest(&older), "replaced");
    called.world.wait("the older child is gone", || !is_alive(old_pid));
    assert!(is_alive(new_pid) && is_alive(other_pid));
}

fn beyond_max_opening() {
    let called = Called::start("max_opening = 3\n");
    let mut first: Vec<TcpStream> = (0..3).map(|_| called.call(2)).collect();
    first.iter_mut().for_each(|stream| drop(hello(stream)));
    let mut other = called.call(3);
    assert_eq!(hello(&mut other).0, "h3");
    assert_eq!(rest(&first.remove(0)), "", "closed without a word");
    called.world.wait("three are left", || children_of(called.world.pid()).len() == 3);
    let mut third = called.call(4);
    assert_eq!(hello(&mut third).0, "h4");
    assert_eq!(rest(&first.remove(0)), "");
    // When each has one, and none had its time, the newest is closed at once. On a busy machine a
    // second may go by.
    drop((first, other, third));
    for _ in 0..20 {
        called.world.wait("all have left", || children_of(called.world.pid()).is_empty());
        let begun = Instant::now();
        let mut guests: Vec<TcpStream> = [2, 3, 4].into_iter().map(|n| called.call(n)).collect();
        guests.iter_mut().for_each(|stream| drop(opens(stream)));
        let mut fourth = called.call(5);
        let let_in = opens(&mut fourth);
        if begun.elapsed() < Duration::from_millis(900) {
            assert_eq!(let_in, None);
            let log = called.world.log();
            assert!(log.contains("3 connections are in the opening dialogue"), "{log}");
            return;
        }
    }
    panic!("it never took less than a second");
}

fn a_child_that_does_not_open() {
    let called = Called::start("opening_timeout = \"100ms\"\n");
    let (_open, open_pid) = called.open(3);
    let mut stream = called.call(2);
    let pid = hello(&mut stream).1;
    assert_eq!(rest(&stream), "");
    called.world.wait("its child is gone", || !is_alive(pid));
    assert!(called.world.log().contains(&format!("h2: killing child {pid}")));
    assert!(is_alive(open_pid), "one that has opened stays");
}

fn lonc_is_told() {
    let called = Called::start("");
    let mut lonc = called.world.command(&[]);
    let mut lonc = Lonc(Command::env(&mut lonc, ROLE, "greeted").spawn().unwrap());
    let noted =
        || std::fs::read_to_string(called.world.path("run/greetings")).unwrap_or_default().lines().count();
    called.world.wait("it is there", || called.world.path("run/greetings").exists());
    let begun = Instant::now();
    let links: Vec<_> = (2..=6).map(|n| called.open(n)).collect();
    called.world.wait("it is told twice", || noted() == 2);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let (_newer, _) = called.open(2);
    drop(links);
    assert_eq!(noted(), 2, "a link that replaces one is no news");
    assert!(lonc.0.try_wait().unwrap().is_none());
}

/// Ends with the test.
struct Lonc(std::process::Child);

impl Drop for Lonc {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn a_panic_in_a_child() {
    let called = Called::start("");
    let (mut link, child) = called.open(2);
    let (mut other, _) = called.open(3);
    link.write_all(b"panic\n").unwrap();
    assert_eq!(rest(&link), "");
    called
        .world
        .wait("its end is logged", || called.world.log().contains(&format!("child {child} panicked")));
    let place = format!("lond[{child}] h2 ERROR panicked at tests/supervisor/roles.rs:");
    assert!(called.world.log().contains(&place), "{}", called.world.log());
    called.world.wait("the status tells so", || called.status()["links"].as_array().unwrap().len() == 1);
    other.write_all(b"ping\n").unwrap();
    let mut answer = [0; 4];
    other.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"pong");
    called.open(2);
}

fn a_panic_in_the_supervisor() {
    let mut called = Called::new("");
    called.world.play("lond that panics");
    called.serve();
    let (_link, child) = called.open(2);
    std::fs::write(called.world.path("panic"), "").unwrap();
    assert_eq!(called.world.ask("lond.sock", "reload"), None);
    assert_eq!(called.world.ended().code(), Some(101));
    called.world.wait("its child ends", || !is_alive(child));
    let log = called.world.log();
    let place = "ERROR panicked at tests/supervisor/roles.rs:";
    assert!(log.lines().any(|line| line.contains(place) && line.contains("on purpose")), "{log}");
}

fn hup_works_the_tenth_time() {
    let called = Called::start("");
    let pid = called.world.pid();
    let files = open_files_of(pid);
    for time in 1..=10 {
        let (link, _) = called.open(2);
        called.world.signal(Signal::SIGHUP);
        // From here on, and before the new program has come up, connections wait in the backlog.
        let mut next = called.call(3);
        assert_eq!(rest(&link), "drained");
        called.world.wait("it began anew", || called.world.log().matches("started anew, ").count() == time);
        if let Some(name) = opens(&mut next) {
            assert_eq!(name, "h3");
        }
        drop(next);
        called.world.wait("all children are gone and reaped", || children_of(pid).is_empty());
        called.world.wait("no descriptor leaks", || open_files_of(pid) == files);
    }
    assert_eq!(status_field(pid, "SigBlk"), "0000000000000000");
    called.world.wait("the title says so", || title_of(pid) == "lond: supervisor, 0 links");
}

/// Who a caller is taken for; `None` where its child was told to end before it could say.
fn opens(stream: &mut TcpStream) -> Option<String> {
    let mut text = [0; 64];
    let count = stream.read(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text[..count]).into_owned();
    text.split_once(' ').map(|(name, _)| name.to_owned())
}

fn hup_keeps_the_old() {
    let called = Called::start("");
    let (_link, pid) = called.open(2);
    called.world.configure(&called.hosts, "nonsense = 1\n");
    called.world.signal(Signal::SIGHUP);
    called.world.wait("the problem is logged", || called.world.log().contains("lonnet.toml:3: "));
    assert!(is_alive(pid));
    assert_eq!(hello(&mut called.call(3)).0, "h3");
    // Another address: the new one is listened on, the old one is not.
    let mut moved = called.address;
    moved.set_port(free_port(&called.address.ip().to_string()));
    called.world.configure(&called.hosts, &settings(moved, ""));
    called.world.signal(Signal::SIGHUP);
    called.world.wait("it began anew", || called.world.log().contains("started anew, "));
    called.world.wait("the new port answers", || TcpStream::connect(moved).is_ok());
    assert!(TcpStream::connect(called.address).is_err());
}

fn term_ends_every_link() {
    for (signal, last) in [(Signal::SIGTERM, "drained"), (Signal::SIGQUIT, "")] {
        let mut called = Called::start("");
        let (link, pid) = called.open(2);
        called.world.signal(signal);
        assert_eq!(rest(&link), last);
        assert!(called.world.ended().success());
        assert!(!is_alive(pid));
        assert!(!called.world.path("run/lond.pid").exists());
        assert!(TcpStream::connect(called.address).is_err());
    }
}

fn a_taken_port_is_an_error() {
    let called = Called::new("");
    let _taken = std::net::TcpListener::bind(called.address).unwrap();
    for arguments in [&["--foreground"][..], &[]] {
        let failed = called.world.run(arguments);
        assert_eq!(failed.status.code(), Some(1));
        let said = String::from_utf8(failed.stderr).unwrap();
        let expected = format!("lond: start: listen on {}: Address already in use", called.address);
        assert!(said.lines().any(|line| line.starts_with(&expected)), "{said}");
        assert_eq!(std::fs::read_dir(called.world.path("run")).unwrap().count(), 0, "nothing is left behind");
    }
}

fn an_address_that_cannot_be_had_is_tried_again() {
    let mut called = Called::new("");
    let taken = || {
        let other = std::net::TcpListener::bind((called.address.ip(), 0)).unwrap();
        let address = other.local_addr().unwrap();
        (other, address)
    };
    let (first, second) = (taken(), taken());
    let both = |other: SocketAddr| {
        let list = format!("\"{}\", \"{other}\"", called.address);
        settings(called.address, "").replace(&format!("\"{}\"", called.address), &list)
    };
    called.world.configure(&called.hosts, &both(first.1));
    called.world.start();
    let missing = |called: &Called| called.status()["not_listening"].as_array().unwrap().clone();
    let (_link, pid) = called.open(2);
    assert_eq!(missing(&called)[0]["address"], first.1.to_string());
    assert!(missing(&called)[0]["why"].as_str().unwrap().contains("Address already in use"));
    assert_eq!(called.status()["listen"], serde_json::json!([called.address.to_string()]));
    let said = |called: &Called, address: SocketAddr| {
        called.world.log().matches(&format!("listen on {address}: Address already in use")).count()
    };
    assert_eq!(said(&called, first.1), 1, "once, however often it is tried");
    drop(first.0);
    called.world.wait("it listens there", || TcpStream::connect(first.1).is_ok());
    called.world.wait("it is said", || called.world.log().contains(&format!("listening on {} now", first.1)));
    assert!(missing(&called).is_empty());
    // At a reload, and at HUP.
    called.world.configure(&called.hosts, &both(second.1));
    let answer = called.reload();
    let expected = format!(
        "reloaded: 0 links ended, 1 kept; addresses: 0 added, 1 removed; not listening on {} yet: Address already in use",
        second.1
    );
    assert!(answer.starts_with(&expected), "{answer}");
    assert!(is_alive(pid));
    called.world.signal(Signal::SIGHUP);
    called.world.wait("it began anew", || called.world.log().contains("started anew, "));
    assert_eq!(missing(&called)[0]["address"], second.1.to_string());
    assert_eq!(hello(&mut called.call(3)).0, "h3");
    drop(second.0);
    called.world.wait("it listens there too", || TcpStream::connect(second.1).is_ok());
    called.world.wait("nothing is missing", || missing(&called).is_empty());
    // With what is not missing any more nothing wakes.
    called.world.configure(&called.hosts, &settings(called.address, ""));
    assert_eq!(called.reload(), "reloaded: 0 links ended, 0 kept; addresses: 0 added, 1 removed");
}
