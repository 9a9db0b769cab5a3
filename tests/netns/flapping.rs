//! A link that comes and goes, again and again: the dials have pauses, the logs stay short, and the end of it is noticed.

use crate::common::wait;
use crate::world::{ONE_IP, OTHER_IP, SHORTEST_PAUSE, World};
use std::time::{Duration, Instant};

/// Up so long and down so long, this often.
const HALF: Duration = Duration::from_millis(300);
const TIMES: usize = 8;
/// A link that is up is lost at most once a flap; each loss is one line, and so is each new link, at both of its ends,
/// beside what goes wrong with a dial. The start has some, too.
const LOG_LINES: usize = 20 + 12 * TIMES;

/// Lets the network flap; counts the packets by which each host began a connection.
fn flap(world: &World, down: impl Fn(), up: impl Fn()) {
    for (name, from) in [("one", ONE_IP), ("other", OTHER_IP)] {
        world.middle.count(name, &format!("ip saddr {from} tcp flags & (syn | ack) == syn"));
    }
    let began = Instant::now();
    for _ in 0..TIMES {
        down();
        wait::let_pass(HALF);
        up();
        wait::let_pass(HALF);
    }
    let lasted = began.elapsed();
    let dialled = ["one", "other"].map(|name| world.middle.counted(name));
    // A pause before each dial, and a host that is seen again may be dialled at once, once; a first packet that is
    // not answered is sent again after a second.
    let pauses = lasted.as_millis() / SHORTEST_PAUSE.as_millis();
    for dialled in dialled {
        assert!(u128::from(dialled) <= 2 * pauses, "{dialled} dials in {lasted:?}");
    }
    world.healed(lasted);
}

#[test]
fn a_cable_that_flaps_is_ridden_out_and_nothing_is_lost_repeated_or_out_of_order() {
    let Some(world) = World::up(true) else { return };
    let set = |state| world.middle.ip(&format!("link set to1 {state}\n"));
    flap(&world, || set("down"), || set("up"));
    world.finish(LOG_LINES);
}

#[test]
fn a_path_that_resets_everything_again_and_again_brings_no_flood_of_dials_or_log_lines() {
    let Some(world) = World::up(true) else { return };
    flap(
        &world,
        || world.middle.faults("meta l4proto tcp reject with tcp reset"),
        || world.middle.faults(""),
    );
    world.finish(LOG_LINES);
}

#[test]
fn classic_links_over_a_path_that_resets_everything_again_and_again_lose_nothing() {
    let Some(world) = World::up(false) else { return };
    flap(
        &world,
        || world.middle.faults("meta l4proto tcp reject with tcp reset"),
        || world.middle.faults(""),
    );
    world.finish(LOG_LINES);
}
