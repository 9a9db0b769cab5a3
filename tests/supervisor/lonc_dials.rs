//! What a link child of `lonc` may ask for its dials: asked by children that ask what they are told
//! to.

use crate::Test;
use crate::lonc::{HOSTS, LONC};
use crate::world::{World, children_of, open_files_of};
use nix::sys::signal::Signal;
use std::net::{SocketAddr, TcpListener};

pub const TESTS: &[Test] = &[
    ("a_child_is_connected_to_its_own_peer_by_the_supervisor_and_nowhere_else", to_its_own_peer),
    ("a_child_that_asks_for_addresses_without_end_is_told_so_and_hurts_nobody", asks_without_end),
    ("a_program_that_follows_at_hup_knows_no_answer_of_before_and_gives_another", after_hup),
    ("a_name_is_looked_up_by_a_process_that_ends_when_it_has_said_what_it_found", by_name),
];

/// `msul1` and `msul2` are at these addresses.
fn world(one: SocketAddr, other: SocketAddr) -> World {
    World::new("lonc", HOSTS, &more(one, other))
}

fn more(one: SocketAddr, other: SocketAddr) -> String {
    format!("{LONC}[host.msul1]\naddress = \"{one}\"\n[host.msul2]\naddress = \"{other}\"\n")
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn dial(world: &World, peer: &str, what: &str) -> String {
    world.ask(peer, &format!("dial {what}")).unwrap()
}

fn to_its_own_peer() {
    let ((listening, one), (_other, other)) = (listen(), listen());
    let mut world = world(one, other);
    let pid = world.start();
    let _all = ["msul1", "msul2", "msul3"].map(|peer| world.child_of(peer));
    let open = open_files_of(pid);
    assert_eq!(dial(&world, "msul1", "1 7 0"), format!("1: Ok([{one}]), 7: to {one}"));
    assert_eq!(dial(&world, "msul2", "1 8 0"), format!("1: Ok([{other}]), 8: to {other}"));
    listening.set_nonblocking(false).unwrap();
    let (_connected, from) = listening.accept().unwrap();
    assert_eq!(from.ip().to_string(), "127.0.0.1");
    for (elsewhere, why) in [("2 1 0", "looked up anew"), ("1 1 1", "no such address")] {
        let said = dial(&world, "msul1", elsewhere);
        assert!(said.contains("1: connect: ") && said.contains(why), "{elsewhere}: {said}");
    }
    world.wait("no socket stays with the supervisor", || open_files_of(pid) <= open);
    // The peer has another address: the child that asks is not told the old one.
    drop(listening);
    world.configure(HOSTS, &more(other, one));
    world.ask("lonc.sock", "reload").unwrap();
    world.wait("the next child", || {
        dial(&world, "msul1", "1 9 0") == format!("1: Ok([{other}]), 9: to {other}")
    });
}

fn asks_without_end() {
    let ((_listening, one), (_other, other)) = (listen(), listen());
    let mut world = world(one, other);
    world.start();
    let child = world.child_of("msul1");
    let answered: u32 = world.ask("msul1", "flood 500").unwrap().parse().unwrap();
    assert!((32..500).contains(&answered), "{answered} questions were answered");
    assert_eq!(dial(&world, "msul2", "1 8 0"), format!("1: Ok([{other}]), 8: to {other}"));
    assert_eq!(world.child_of("msul1"), child);
    let said = world.log().matches("asks for addresses without end").count();
    assert_eq!(said, 1);
    assert_eq!(world.ask("msul1", "flood 50000"), None, "it is killed");
    assert_ne!(world.child_of("msul1"), child);
    assert_eq!(world.log().matches("asks for dials without end").count(), 1);
    assert_eq!(dial(&world, "msul2", "1 9 0"), format!("1: Ok([{other}]), 9: to {other}"));
}

fn after_hup() {
    let ((_listening, one), (_other, other)) = (listen(), listen());
    let mut world = world(one, other);
    world.start();
    let before = world.child_of("msul1");
    assert!(dial(&world, "msul1", "1 1 0").ends_with(&format!("1: to {one}")));
    world.signal(Signal::SIGHUP);
    world.wait("the next child", || world.child_of("msul1") != before);
    assert!(dial(&world, "msul1", "1 1 0").ends_with(&format!("1: to {one}")));
}

fn by_name() {
    let hosts = HOSTS.replace(":a:127.0.0.2", ":localhost:");
    let mut world = World::new("lonc", &hosts, &format!("{LONC}[host.msul1]\nport = 5\n"));
    let pid = world.start();
    let _all = ["msul1", "msul2", "msul3"].map(|peer| world.child_of(peer));
    let (open, children) = (open_files_of(pid), children_of(pid).len());
    for _ in 0..3 {
        let said = dial(&world, "msul1", "1 1 0");
        assert!(said.starts_with("1: Ok([") && said.contains("127.0.0.1:5"), "{said}");
        world.wait("nothing of the look-up is left", || {
            open_files_of(pid) <= open && children_of(pid).len() == children
        });
    }
    assert!(!world.log().contains("no child of ours"), "{}", world.log());
}
