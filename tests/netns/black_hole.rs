//! Packets vanish: both ways, or one way only. Nobody says so, and only silence tells.

use crate::world::{CONNECT_TIMEOUT, Fault, ONE_IP, OTHER_IP, World, time_of};

/// Lines that each log may have after one outage: a start, two links, a loss, a few dials in vain.
const LOG_LINES: usize = 40;

/// Makes the fault, sees it found, held up, shown, and healed.
fn outage(secure: bool, rules: &str) {
    let Some(world) = World::up(secure) else { return };
    let fault = Fault::begins();
    world.middle.faults(rules);
    for status in world.found_dead(fault) {
        let why = status["last_error"].as_str().expect("a reason");
        assert!(!why.is_empty() && time_of(&status["last_error_at"]) >= time_of(&status["since"]));
        assert_ne!(status["state"], "up");
    }
    world.traffic().iter().for_each(|traffic| traffic.is_held_up());
    // New dials fare no better, and say so.
    for site in [&world.one, &world.other] {
        let status = site.last_error(&format!("no connection within {CONNECT_TIMEOUT:?}"));
        assert_ne!(status["state"], "up");
    }
    world.heal(fault);
    world.finish(LOG_LINES);
}

#[test]
fn a_black_hole_is_found_by_the_heartbeat_and_heals_unaided_with_everything_once_and_in_order() {
    outage(true, "drop");
}

#[test]
fn a_black_hole_on_the_classic_wire_is_found_by_unanswered_requests_and_heals_unaided_in_order() {
    outage(false, "drop");
}

#[test]
fn a_network_that_loses_all_that_one_host_sends_is_found_at_both_ends_and_heals_unaided() {
    outage(true, &format!("ip saddr {ONE_IP} drop"));
}

#[test]
fn a_network_that_loses_all_that_the_other_host_sends_is_found_at_both_ends_on_the_classic_wire() {
    outage(false, &format!("ip saddr {OTHER_IP} drop"));
}
