//! What stands between two hosts and means well: a path that swallows large packets, and one that
//! forgets idle connections.

use crate::common::wait;
use crate::world::{Fault, World};

/// Lines that each log may have.
const LOG_LINES: usize = 60;

/// Waits until neither host has a connection that it had before, but another.
fn replaced(world: &World, before: &[Vec<u16>; 2]) {
    for (site, before) in [&world.one, &world.other].into_iter().zip(before) {
        wait::until_true("another connection", || {
            let now = site.dialled_from();
            !now.is_empty() && now.iter().all(|port| !before.contains(port))
        });
    }
}

/// The middle forgets the connections that there are, without a word; new ones pass.
fn forget(world: &World) -> [Vec<u16>; 2] {
    let flows = [&world.one, &world.other].map(|site| site.dialled_from());
    let ports: Vec<String> = flows.iter().flatten().map(u16::to_string).collect();
    let ports = ports.join(", ");
    world.middle.faults(&format!("tcp sport {{ {ports} }} drop\ntcp dport {{ {ports} }} drop"));
    flows
}

#[test]
fn a_large_message_that_the_path_swallows_does_not_hide_from_the_heartbeat_that_the_link_is_dead() {
    let Some(world) = World::up(true) else { return };
    let large = "x".repeat(100_000);
    let one = &world.one.host;
    let peer = world.one.peer;
    assert_eq!(one.ask(peer, &format!("echo:{large}")), format!("echo:{large}"));
    let fault = Fault::begins();
    world.middle.faults("meta length > 1100 drop");
    // Small ones pass.
    world.flows();
    assert_eq!(one.ask(peer, &format!("echo:{large}")), "con_lost");
    let swallowed = Fault::begins();
    assert_eq!(one.ask(peer, &format!("critical:do:large {large}")), "con_delayed");
    world.one.found_dead(swallowed);
    world.heal(fault);
    wait::until_true("the large message", || {
        world.other.counter.done().iter().any(|done| done.len() > 100_000)
    });
    assert_eq!(world.other.counter.done().iter().filter(|done| done.len() > 100_000).count(), 1);
    assert_eq!(one.ask(peer, &format!("echo:{large}")), format!("echo:{large}"));
    world.finish(LOG_LINES);
}

#[test]
fn idle_links_that_the_path_has_forgotten_are_found_by_the_heartbeat_and_made_anew() {
    let Some(mut world) = World::up(true) else { return };
    world.rest();
    let fault = Fault::begins();
    let before = forget(&world);
    world.found_dead(fault);
    replaced(&world, &before);
    world.healed(fault);
    world.load();
    world.finish(LOG_LINES);
}

#[test]
fn an_idle_classic_link_that_the_path_has_forgotten_is_found_when_usr1_asks() {
    let Some(mut world) = World::up(false) else { return };
    world.rest();
    let fault = Fault::begins();
    let before = forget(&world);
    world.one.dial_now();
    world.other.dial_now();
    replaced(&world, &before);
    world.healed(fault);
    world.load();
    world.finish(LOG_LINES);
}
