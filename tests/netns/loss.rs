//! A network that loses a third of all packets: TCP fights on, links may be lost, and nothing else
//! is.

use crate::common::wait;
use crate::world::{Fault, World};
use std::time::Duration;

/// How long it loses.
const LASTS: Duration = Duration::from_secs(5);
/// Lines that each log may have: each lost link and each new one is two or three.
const LOG_LINES: usize = 80;

fn third_lost(secure: bool) {
    let Some(world) = World::up(secure) else { return };
    let fault = Fault::begins();
    world.middle.faults("numgen random mod 100 < 30 drop");
    let before = world.traffic().map(|traffic| traffic.answers());
    wait::let_pass(LASTS);
    // Both hosts get answers all the same, sooner or later.
    for (traffic, before) in world.traffic().iter().zip(before) {
        wait::until_true("answers in spite of the loss", || {
            let now = traffic.answers();
            now.answered > before.answered && now.done + now.delayed > before.done + before.delayed
        });
    }
    world.heal(fault);
    world.finish(LOG_LINES);
}

#[test]
fn with_a_third_of_all_packets_lost_traffic_goes_on_and_every_message_is_done_once_and_in_order() {
    third_lost(true);
}

#[test]
fn with_a_third_of_all_packets_lost_the_classic_wire_loses_nothing_and_keeps_the_order() {
    third_lost(false);
}
