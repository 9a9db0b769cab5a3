//! Dials by the supervisor for its link children: who makes the calls, what a silent name server
//! holds up, and what becomes of a dial when a child, the program or the address goes meanwhile.

use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::preload;
use crate::common::program::Program;
use crate::common::{process, wait};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// A third host.
pub const FURTHER: &str = "msul9";

/// Processes of a program that look names up.
pub fn looking_up(lonc: &Program) -> Vec<u32> {
    let looks = |pid: &u32| process::title(*pid).contains(": looking ");
    process::children(lonc.pid()).into_iter().filter(looks).collect()
}

fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// Has a host know this peer as `localhost`, which is at that port.
pub fn by_name(network: &Network, host: &mut Host, peer: &str, port: u16) {
    let table = fs::read_to_string(network.dir().join("hosts.tab")).expect("the table");
    let lines = table.lines().map(|line| match line.split(':').collect::<Vec<_>>().as_slice() {
        [id, domain, role, ..] if *id == peer => format!("{id}:{domain}:{role}:localhost:\n"),
        _ => format!("{line}\n"),
    });
    network.write_table(&lines.collect::<String>());
    host.unset(&format!("host.{peer}"), "address");
    host.set(&format!("host.{peer}"), "port", &port.to_string());
    host.set("lonc", "bind", "\"127.0.0.1\"");
}

/// The calls that a program and its children made, as `calls.c` notes them: who, and what.
fn calls(noted: &Path) -> BTreeSet<(u32, String)> {
    let noted = fs::read_to_string(noted).unwrap_or_default();
    let call = |line: &str| {
        let (pid, call) = line.split_once(' ')?;
        Some((pid.parse().ok()?, call.to_owned()))
    };
    noted.lines().filter_map(call).collect()
}

#[test]
fn a_link_child_of_lonc_looks_nothing_up_and_connects_to_nothing_and_has_one_thread() {
    let network = Network::secure(&[CALLER, CALLED]);
    let (mut one, mut other) = (network.host(CALLER), network.host(CALLED));
    let port = network.address(CALLED).port();
    let listens = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    by_name(&network, &mut one, CALLED, port);
    // What is confined could not note its calls.
    one.set("", "sandbox", "\"off\"");
    other.set("lond", "listen", &format!("[\"{listens}\"]"));
    other.address = listens;
    let Some(library) = preload::library("network/calls.c", &one.dir) else { return };
    let noted = one.dir.join("calls");
    let mut command = one.command("lonc");
    command.env("LD_PRELOAD", library).env("LONNET_TEST_CALLS", &noted);
    let _lond = other.lond();
    let lonc = one.start(command, "lonc");
    one.wait_link(CALLED, "up");
    assert_eq!(one.ask(CALLED, "ping"), CALLED);
    let child = lonc.only_child();
    assert_eq!(threads(child), 1);
    // So does the next one, whose supervisor has been replaced.
    lonc.signal(Signal::SIGHUP);
    wait::until_true("another child", || lonc.children().iter().any(|pid| *pid != child));
    one.wait_link(CALLED, "up");
    assert_eq!(one.ask(CALLED, "critical:ping"), CALLED);
    let next = lonc.only_child();
    assert_eq!(threads(next), 1);
    let made = calls(&noted);
    let by = |pid: u32| made.iter().filter(|(by, _)| *by == pid).map(|(_, call)| &**call).collect::<Vec<_>>();
    for child in [child, next] {
        assert!(by(child).is_empty(), "{:?}", by(child));
    }
    assert_eq!(by(lonc.pid()), ["connect", "socket"]);
    assert!(made.iter().any(|(pid, call)| call == "getaddrinfo" && *pid != lonc.pid()), "{made:?}");
}

#[test]
fn a_name_server_that_never_answers_holds_up_no_other_link_and_neither_hup_nor_a_stop() {
    let network = Network::new(&[CALLER, CALLED, FURTHER]);
    let (mut one, other) = (network.host(CALLER), network.host(CALLED));
    by_name(&network, &mut one, FURTHER, 5663);
    one.set("lonc", "bind", &format!("\"{}\"", one.address.ip()));
    let Some(library) = preload::library("netns/slow_names.c", &one.dir) else { return };
    let mut command = one.command("lonc");
    // Longer than the test may take.
    command.env("LD_PRELOAD", library).env("LONNET_TEST_LOOKUP_TAKES", "3600000");
    let _lond = other.lond();
    let lonc = one.start(command, "lonc");
    one.wait_link(CALLED, "up");
    let said = |text: &str| {
        one.status(FURTHER).is_some_and(|it| it["last_error"].as_str().is_some_and(|it| it.contains(text)))
    };
    wait::until_true("the dial to end by its own deadline", || said("no connection within 2s"));
    let looking = looking_up(&lonc);
    assert_eq!(looking.len(), 1, "each name is looked up once at a time");
    for _ in 0..3 {
        lonc.signal(Signal::SIGUSR1);
        assert_eq!(one.ask(CALLED, "encrypt:log:meanwhile"), "ok");
    }
    let children = lonc.children();
    lonc.signal(Signal::SIGHUP);
    wait::until_true("other children", || {
        let now: Vec<u32> = lonc.children();
        now.iter().all(|pid| !children.contains(pid)) && now.len() >= 2
    });
    one.wait_link(CALLED, "up");
    wait::until_true("what was looked up for the program before to end", || !process::alive(looking[0]));
    wait::until_true("the name to be looked up anew", || looking_up(&lonc).len() == 1);
    assert!(lonc.stop().success());
    // That no process is left behind, the network sees to.
}

/// A host whose peer takes connections and says nothing.
struct Dialling {
    lonc: Program,
    one: Host,
    network: Network,
    silent: TcpListener,
}

impl Dialling {
    fn begun() -> (Dialling, TcpStream) {
        let network = Network::secure(&[CALLER, CALLED]);
        let mut one = network.host(CALLER);
        one.set("lonc", "opening_timeout", "\"600s\"");
        one.set("lonc", "connect_timeout", "\"600s\"");
        let silent = TcpListener::bind(network.address(CALLED)).expect("listen");
        let lonc = one.lonc();
        let dialling = Dialling { lonc, one, network, silent };
        let connection = dialling.called();
        dialling.one.wait_link(CALLED, "connecting");
        (dialling, connection)
    }

    /// The next connection.
    fn called(&self) -> TcpStream {
        self.silent.set_nonblocking(true).expect("set it up");
        let (connection, _) = wait::until("a connection", || self.silent.accept().ok());
        connection.set_nonblocking(false).expect("set it up");
        connection.set_read_timeout(Some(Duration::from_secs(30))).expect("set it up");
        connection
    }

    /// Its link comes up when the peer speaks: this dial has ended then.
    fn heals(self, connection: TcpStream) {
        let other = self.network.host(CALLED);
        let address = self.silent.local_addr().expect("an address");
        drop((self.silent, connection));
        // A program that another test is just starting may have a copy of it until it runs.
        wait::until_true("nobody to listen there", || TcpStream::connect(address).is_err());
        let _lond = other.lond();
        self.lonc.signal(Signal::SIGUSR1);
        self.one.wait_link(CALLED, "up");
        assert_eq!(self.one.ask(CALLED, "ping"), CALLED);
    }
}

/// Waits for the end of a connection, which comes when no process has it any more.
fn ends(connection: &mut TcpStream) {
    loop {
        match connection.read(&mut [0; 4096]) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                // A process that is killed may have something unread, which is no orderly end.
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the connection stays open");
                return;
            }
        }
    }
}

#[test]
fn the_connection_of_a_child_that_is_killed_in_mid_dial_is_closed_and_the_next_child_dials() {
    let (dialling, mut connection) = Dialling::begun();
    let child = dialling.lonc.only_child();
    let open = process::descriptors(dialling.lonc.pid());
    process::signal(child, Signal::SIGKILL);
    ends(&mut connection);
    let next = dialling.called();
    assert_ne!(dialling.lonc.only_child(), child);
    wait::until_true("no descriptor to be kept", || process::descriptors(dialling.lonc.pid()) <= open);
    dialling.heals(next);
}

#[test]
fn a_hup_in_mid_dial_ends_that_dial_and_the_next_child_dials() {
    let (dialling, mut connection) = Dialling::begun();
    for _ in 0..5 {
        let child = dialling.lonc.only_child();
        dialling.lonc.signal(Signal::SIGHUP);
        ends(&mut connection);
        connection = dialling.called();
        wait::until_true("another child", || dialling.lonc.children().iter().all(|pid| *pid != child));
    }
    dialling.heals(connection);
}

#[test]
fn a_reload_that_changes_the_address_in_mid_dial_is_followed_at_once() {
    let (mut dialling, mut connection) = Dialling::begun();
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = elsewhere.local_addr().expect("an address");
    let begun = Instant::now();
    dialling.one.set(&format!("host.{CALLED}"), "address", &format!("\"{address}\""));
    let reloaded = dialling.one.lon(&["reload"]);
    assert!(reloaded.status.success(), "{reloaded:?}");
    ends(&mut connection);
    elsewhere.set_nonblocking(true).expect("set it up");
    let _there = wait::until("a connection to the new address", || elsewhere.accept().ok());
    assert!(begun.elapsed() < Duration::from_secs(600), "no deadline was waited for");
    assert!(dialling.silent.accept().is_err(), "nobody dials the old one");
    dialling.one.set(
        &format!("host.{CALLED}"),
        "address",
        &format!("\"{}\"", dialling.network.address(CALLED)),
    );
    let reloaded = dialling.one.lon(&["reload"]);
    assert!(reloaded.status.success(), "{reloaded:?}");
    let back = dialling.called();
    dialling.heals(back);
}

#[test]
fn where_no_more_files_can_be_opened_a_dial_fails_with_that_reason_and_the_link_comes_when_they_can() {
    let network = Network::secure(&[CALLER, CALLED]);
    let (one, other) = (network.host(CALLER), network.host(CALLED));
    let mut lond = other.lond();
    let lonc = one.lonc();
    one.wait_link(CALLED, "up");
    let child = lonc.only_child();
    // Of the supervisor, which makes the socket, and of the child, which is sent it.
    for (pid, said) in [(lonc.pid(), "Too many open files"), (child, "no socket came: ")] {
        drop(lond);
        // The link that is lost has given its descriptor back.
        one.wait_link(CALLED, "down");
        let limit = process::open_no_more_files(pid);
        wait::until_true("a dial to fail", || {
            lonc.signal(Signal::SIGUSR1);
            let log = one.log("lonc.log");
            log.lines()
                .any(|line| line.contains(&format!("connect to {}: ", other.address)) && line.contains(said))
        });
        assert_eq!(process::children(lonc.pid()), [child], "its process goes on");
        limit.lift();
        lond = other.lond();
        lonc.signal(Signal::SIGUSR1);
        one.wait_link(CALLED, "up");
        assert_eq!(one.ask(CALLED, "ping"), CALLED);
    }
}
