//! Connections that are reset in mid-traffic: by something in the middle, and by the kernel under
//! the programs.

use crate::common::skip::skipped;
use crate::common::wait;
use crate::world::{Fault, PORT, World};

/// How often.
const ROUNDS: usize = 3;
/// Lines that each log may have: some for the start, then a loss, a dial or two and a new link each
/// round.
const LOG_LINES: usize = 20 + 16 * ROUNDS;

/// Waits until both hosts have lost the connections of before and made others.
fn replaced(world: &World, before: &[Vec<u16>; 2]) {
    for (site, before) in [&world.one, &world.other].into_iter().zip(before) {
        wait::until_true("another connection", || {
            let now = site.dialled_from();
            !now.is_empty() && now.iter().all(|port| !before.contains(port))
        });
    }
}

fn dialled(world: &World) -> [Vec<u16>; 2] {
    [&world.one, &world.other].map(|site| {
        let ports = site.dialled_from();
        assert_eq!(ports.len(), 1, "one link, one connection");
        ports
    })
}

fn resets_in_mid_traffic(secure: bool) {
    let Some(world) = World::up(secure) else { return };
    for _ in 0..ROUNDS {
        let before = dialled(&world);
        let fault = Fault::begins();
        let flows: Vec<String> = before.iter().flatten().map(u16::to_string).collect();
        let flows = flows.join(", ");
        world.middle.faults(&format!(
            "tcp sport {{ {flows} }} reject with tcp reset\ntcp dport {{ {flows} }} reject with tcp reset"
        ));
        replaced(&world, &before);
        world.heal(fault);
        world.flows();
    }
    world.finish(LOG_LINES);
}

#[test]
fn links_that_are_reset_in_mid_traffic_are_made_anew_and_every_message_is_done_once_and_in_order() {
    resets_in_mid_traffic(true);
}

#[test]
fn classic_links_that_are_reset_in_mid_traffic_are_made_anew_and_lose_nothing() {
    resets_in_mid_traffic(false);
}

#[test]
fn connections_that_the_kernel_ends_under_the_programs_are_made_anew() {
    let Some(world) = World::up(true) else { return };
    for round in 0..ROUNDS {
        let before = dialled(&world);
        let fault = Fault::begins();
        let port = format!("= :{PORT}");
        let site = if round % 2 == 0 { &world.one } else { &world.other };
        site.space.must("ss", &["--kill", "--tcp", "state", "established", "dport", &port], "");
        if site.dialled_from() == before[round % 2] {
            // It says nothing when the kernel was built without it.
            skipped("ss --kill: this kernel ends no connections for others");
            break;
        }
        world.healed(fault);
        world.flows();
    }
    world.finish(LOG_LINES);
}
