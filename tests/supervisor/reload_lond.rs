//! `reload` asked of `lond`: links that the new configuration does not let stay end, the others
//! learn nothing.

use crate::Test;
use crate::lond::{Called, free_port, hello, pin, rest, settings};
use crate::world::{children_of, is_alive, open_files_of};
use lonnet::base::Pin;
use nix::sys::signal::Signal;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("a_removed_pin_closes_its_link_at_the_next_reload_and_no_other", a_removed_pin_closes_its_link),
    ("several_pins_of_a_host_let_its_link_stay_while_its_key_changes", several_pins_let_a_link_stay),
    ("a_host_that_leaves_the_table_loses_its_link", a_host_that_leaves_loses_its_link),
    ("a_new_key_of_londs_own_ends_the_secure_links_alone", a_new_key_ends_secure_links),
    ("classic_links_end_when_the_classic_wire_is_refused", classic_links_end_when_refused),
    ("a_handler_that_changes_ends_every_link", a_handler_that_changes_ends_every_link),
    ("whoever_is_not_known_yet_calls_anew_after_the_pins_have_changed", the_unknown_call_anew),
    ("a_reload_of_lond_moves_its_listening_sockets", a_reload_moves_listening_sockets),
    ("all_of_ipv4_and_all_of_ipv6_are_served_side_by_side", both_families_are_served_side_by_side),
    ("a_reload_of_lond_that_fails_changes_nothing", a_reload_that_fails_changes_nothing),
    ("lond_reloads_again_and_again_and_leaks_nothing", reloads_leak_nothing),
];

fn a_removed_pin_closes_its_link() {
    let called = Called::start_secure("");
    let (gone, gone_pid) = called.open_secure(2);
    let (_kept, kept_pid) = called.open_secure(3);
    let (_classic, classic_pid) = called.open(5);
    assert_eq!(called.reload(), "reloaded: 0 links ended, 3 kept");
    called.world.pin(&[(3, pin(3)), (2, Pin::of(b"another"))]);
    assert_eq!(called.reload(), "reloaded: 1 link ended, 2 kept");
    assert_eq!(rest(&gone), "drained");
    called.world.wait("its child is gone", || !is_alive(gone_pid));
    assert!(is_alive(kept_pid) && is_alive(classic_pid));
    assert!(!called.world.log().contains("started anew, "));
}

fn several_pins_let_a_link_stay() {
    let called = Called::start_secure("");
    let (_link, pid) = called.open_secure(2);
    called.world.pin(&[(2, Pin::of(b"the next")), (2, pin(2)), (3, pin(3))]);
    assert_eq!(called.reload(), "reloaded: 0 links ended, 1 kept");
    called.world.pin(&[(2, Pin::of(b"the next")), (3, pin(3))]);
    assert_eq!(called.reload(), "reloaded: 1 link ended, 0 kept");
    called.world.wait("its child is gone", || !is_alive(pid));
}

fn a_host_that_leaves_loses_its_link() {
    let mut called = Called::start_secure("");
    let (gone, _) = called.open_secure(2);
    let (other_role, _) = called.open_secure(3);
    let (moved, _) = called.open(5);
    let (_kept, kept_pid) = called.open_secure(4);
    called.world.pin(&[(3, pin(3)), (4, pin(4))]);
    let line =
        |n: u8| called.hosts.lines().find(|line| line.starts_with(&format!("h{n}:"))).unwrap().to_owned();
    let hosts = called.hosts.replace(&format!("{}\n", line(2)), "# h2 is gone\n");
    let hosts = hosts.replace(&line(3), &line(3).replace("access", "library"));
    called.hosts = hosts.replace(&line(5), &format!("{}9", line(5)));
    called.configure("");
    assert_eq!(called.reload(), "reloaded: 3 links ended, 1 kept");
    for link in [gone, other_role, moved] {
        assert_eq!(rest(&link), "drained");
    }
    assert!(is_alive(kept_pid));
}

fn a_new_key_ends_secure_links() {
    let called = Called::start_secure("");
    let (secure, _) = called.open_secure(2);
    let (_classic, classic_pid) = called.open(5);
    called.world.make_key();
    assert_eq!(called.reload(), "reloaded: 1 link ended, 1 kept");
    assert_eq!(rest(&secure), "drained");
    assert!(is_alive(classic_pid));
    // A key that cannot be used is no reason to end anything.
    let (_again, pid) = called.open_secure(2);
    let key = called.world.path("keys/host.key");
    std::fs::write(&key, "no key").unwrap();
    let answer = called.reload();
    assert!(answer.starts_with(&format!("error:read {}: ", key.display())), "{answer}");
    assert!(is_alive(pid));
}

fn classic_links_end_when_refused() {
    let called = Called::start_secure("");
    let (_secure, secure_pid) = called.open_secure(2);
    let (classic, _) = called.open(5);
    let refusing = settings(called.address, "").replace("allow", "refuse");
    called.world.configure(&called.hosts, &refusing);
    assert_eq!(called.reload(), "reloaded: 1 link ended, 1 kept");
    assert_eq!(rest(&classic), "drained");
    assert!(is_alive(secure_pid));
}

fn a_handler_that_changes_ends_every_link() {
    let called = Called::start_secure("");
    let (secure, _) = called.open_secure(2);
    let (classic, _) = called.open(5);
    let limits = "max_opening = 7\n";
    called.configure(limits);
    assert_eq!(called.reload(), "reloaded: 0 links ended, 2 kept", "what the supervisor alone knows");
    called.configure(&format!("{limits}[handler.echo]\nsocket = \"echo.sock\"\nallow = [\"*\"]\n"));
    assert_eq!(called.reload(), "reloaded: 2 links ended, 0 kept");
    assert_eq!((rest(&secure).as_str(), rest(&classic).as_str()), ("drained", "drained"));
    let (again, _) = called.open_secure(2);
    let rules = "allow = [\"h2\"]\nprivate_only = true\n[builtin.log]\ndeny = [\"h2\"]\n";
    called.configure(&format!("{limits}[handler.echo]\nsocket = \"echo.sock\"\n{rules}"));
    assert_eq!(called.reload(), "reloaded: 0 links ended, 1 kept", "a link learns what its caller may ask");
    called.configure(&format!("{limits}[handler.echo]\nsocket = \"other.sock\"\n{rules}"));
    assert_eq!(called.reload(), "reloaded: 1 link ended, 0 kept");
    assert_eq!(rest(&again), "drained");
}

fn the_unknown_call_anew() {
    let called = Called::start_secure("");
    let mut opening = called.call(77);
    let pid = hello(&mut opening).1;
    assert_eq!(called.reload(), "reloaded: 0 links ended, 0 kept");
    assert!(is_alive(pid), "nothing has changed");
    called.world.pin(&[(3, pin(3))]);
    assert_eq!(called.reload(), "reloaded: 0 links ended, 0 kept");
    assert_eq!(rest(&opening), "drained", "it was born with the pins of before");
    called.world.wait("its child is gone", || !is_alive(pid));
}

fn a_reload_moves_listening_sockets() {
    let mut called = Called::start_secure("");
    let (_link, pid) = called.open_secure(2);
    let old = called.address;
    called.address.set_port(free_port(&old.ip().to_string()));
    called.configure("");
    assert_eq!(called.reload(), "reloaded: 0 links ended, 1 kept; addresses: 1 added, 1 removed");
    assert!(TcpStream::connect(old).is_err());
    let (_newer, _) = called.open_secure(3);
    assert!(is_alive(pid), "a link outlives the socket that it came through");
    // Every address of the port, and back: one must go before the other can come. Another test may
    // have the port on an address of its own just then; the reload says so and changes nothing, and
    // the next port is tried.
    let mut answer = String::new();
    for _ in 0..5 {
        let all = format!("0.0.0.0:{}", called.address.port());
        let everywhere = settings(called.address, "").replace(&called.address.to_string(), &all);
        called.world.configure(&called.hosts, &everywhere);
        answer = called.reload();
        if !answer.contains("Address already in use") {
            break;
        }
        called.address.set_port(free_port(&called.address.ip().to_string()));
        called.configure("");
        assert_eq!(called.reload(), "reloaded: 0 links ended, 2 kept; addresses: 1 added, 1 removed");
    }
    assert_eq!(answer, "reloaded: 0 links ended, 2 kept; addresses: 1 added, 1 removed");
    TcpStream::connect(called.address).unwrap();
    called.configure("");
    assert_eq!(called.reload(), "reloaded: 0 links ended, 2 kept; addresses: 1 added, 1 removed");
    assert_eq!(called.status()["listen"][0], called.address.to_string());
}

fn both_families_are_served_side_by_side() {
    if TcpListener::bind("[::1]:0").is_err() {
        crate::skip::skipped("there is no IPv6");
        return;
    }
    let mut called = Called::start_secure("");
    let mut answer = String::new();
    let listen = |called: &Called, addresses: &[&str]| {
        let port = called.address.port();
        let all: Vec<String> = addresses.iter().map(|address| format!("{address}:{port}")).collect();
        let text = settings(called.address, "").replace(&called.address.to_string(), &all.join("\", \""));
        called.world.configure(&called.hosts, &text);
    };
    // Another test may have the port on an address of its own just then.
    for _ in 0..5 {
        listen(&called, &["0.0.0.0", "[::]"]);
        answer = called.reload();
        if !answer.contains("Address already in use") {
            break;
        }
        called.address.set_port(free_port(&called.address.ip().to_string()));
        called.configure("");
        called.reload();
    }
    assert_eq!(answer, "reloaded: 0 links ended, 0 kept; addresses: 2 added, 1 removed");
    let port = called.address.port();
    let served = |what: &str| {
        TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|error| panic!("IPv4, {what}: {error}"));
        TcpStream::connect(("::1", port)).unwrap_or_else(|error| panic!("IPv6, {what}: {error}"));
    };
    served("both");
    called.world.signal(Signal::SIGHUP);
    called.world.wait("it began anew", || called.world.log().contains("started anew, "));
    served("both after HUP");
    assert!(!called.world.log().contains("ERROR"), "{}", called.world.log());
    listen(&called, &["[::]"]);
    assert_eq!(called.reload(), "reloaded: 0 links ended, 0 kept; addresses: 1 added, 2 removed");
    served("one for both");
    // At HUP, too, one becomes two.
    listen(&called, &["[::]", "0.0.0.0"]);
    called.world.signal(Signal::SIGHUP);
    let times = || called.world.log().matches("started anew, ").count();
    called.world.wait("it began anew", || times() == 2);
    served("two at HUP");
    assert!(!called.world.log().contains("ERROR"), "{}", called.world.log());
}

fn a_reload_that_fails_changes_nothing() {
    let called = Called::start_secure("");
    let (_link, pid) = called.open_secure(2);
    let taken = TcpListener::bind((called.address.ip(), 0)).unwrap();
    called.world.pin(&[(3, pin(3))]);
    let other = settings(called.address, "")
        .replace(&called.address.to_string(), &taken.local_addr().unwrap().to_string());
    called.world.configure(&called.hosts, &other);
    let answer = called.reload();
    assert!(answer.starts_with("error:listen on "), "{answer}");
    called.world.configure(&format!("{}bad line\n", called.hosts), &settings(called.address, ""));
    let answer = called.reload();
    assert!(
        answer.starts_with(&format!("error:{}:10: ", called.world.path("hosts.tab").display())),
        "{answer}"
    );
    std::fs::write(called.world.path("hosts.pins"), "h2 sha256:short\n").unwrap();
    called.configure("");
    let answer = called.reload();
    assert!(
        answer.starts_with(&format!("error:{}:1: ", called.world.path("hosts.pins").display())),
        "{answer}"
    );
    assert!(is_alive(pid));
    assert_eq!(hello(&mut called.call(3)).0, "h3", "it listens where it did");
}

fn reloads_leak_nothing() {
    let called = Called::start_secure("");
    let pid = called.world.pid();
    let files = open_files_of(pid);
    for time in 1..=10 {
        let (link, _) = called.open_secure(2);
        called.configure(&format!("max_line = {}\n", 100_000 + time));
        assert_eq!(called.reload(), "reloaded: 1 link ended, 0 kept");
        assert_eq!(rest(&link), "drained");
        called.world.wait("all children are gone and reaped", || children_of(pid).is_empty());
        called.world.wait("no descriptor leaks", || open_files_of(pid) == files);
    }
    // HUP after reloads, and the other way round.
    called.world.signal(Signal::SIGHUP);
    called.world.wait("it began anew", || called.world.log().contains("started anew, "));
    let begun = Instant::now();
    let (_link, _) = called.open_secure(3);
    assert_eq!(called.reload(), "reloaded: 0 links ended, 1 kept");
    assert!(begun.elapsed() < Duration::from_secs(10));
}
