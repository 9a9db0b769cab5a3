//! A link that comes and goes, again and again: the dials have pauses, the logs stay short, and the
//! end of it is noticed.

use crate::common::wait;
use crate::world::{Fault, ONE_IP, OTHER_IP, SHORTEST_PAUSE, World};
use std::time::Duration;

/// Up so long and down so long, this often.
const HALF: Duration = Duration::from_millis(300);
const TIMES: usize = 8;

/// Lets the network flap; counts the packets by which each host began a connection. Gives the lines
/// that each log may have.
fn flap(world: &World, down: impl Fn(), up: impl Fn()) -> usize {
    for (name, from) in [("one", ONE_IP), ("other", OTHER_IP)] {
        world.middle.count(name, &format!("ip saddr {from} tcp flags & (syn | ack) == syn"));
    }
    let fault = Fault::begins();
    for _ in 0..TIMES {
        down();
        wait::let_pass(HALF);
        up();
        wait::let_pass(HALF);
    }
    let lasted = fault.lasted();
    let dialled = ["one", "other"].map(|name| world.middle.counted(name));
    // A pause before each dial, and a host that is seen again may be dialled at once, once; a first
    // packet that is not answered is sent again after a second.
    let pauses = usize::try_from(lasted.as_millis() / SHORTEST_PAUSE.as_millis()).expect("a number");
    for dialled in dialled {
        assert!(dialled <= 2 * pauses as u64, "{dialled} dials in {lasted:?}");
    }
    world.healed(fault);
    // A link that is lost, and the one after it, are two lines each at most, at either end.
    20 + 6 * pauses
}

#[test]
fn a_cable_that_flaps_is_ridden_out_and_nothing_is_lost_repeated_or_out_of_order() {
    let Some(world) = World::up(true) else { return };
    let set = |state| world.middle.ip(&format!("link set to1 {state}\n"));
    let log_lines = flap(&world, || set("down"), || set("up"));
    world.finish(log_lines);
}

#[test]
fn a_path_that_resets_everything_again_and_again_brings_no_flood_of_dials_or_log_lines() {
    let Some(world) = World::up(true) else { return };
    let resets = || world.middle.faults("meta l4proto tcp reject with tcp reset");
    let log_lines = flap(&world, resets, || world.middle.faults(""));
    world.finish(log_lines);
}

#[test]
fn classic_links_over_a_path_that_resets_everything_again_and_again_lose_nothing() {
    let Some(world) = World::up(false) else { return };
    let resets = || world.middle.faults("meta l4proto tcp reject with tcp reset");
    let log_lines = flap(&world, resets, || world.middle.faults(""));
    world.finish(log_lines);
}
