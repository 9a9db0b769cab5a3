//! A host that loses its power says nothing, and comes back as if nothing had been.

use crate::common::wait;
use crate::world::{Fault, OTHER, World};
use serde_json::Value;

/// Lines that each log may have.
const LOG_LINES: usize = 60;

/// Who has called the first host, as its `lond` knows.
fn callers(world: &World) -> Vec<Value> {
    let status = world.one.host.lond_status();
    status.and_then(|status| status["links"].as_array().cloned()).unwrap_or_default()
}

/// The other host is off for as long as it takes the first to find out; then both are linked both
/// ways as before.
fn outage(mut world: World) -> World {
    let before = callers(&world);
    assert_eq!(before[0]["caller"], OTHER);
    let fault = Fault::begins();
    world.power_off_the_other();
    world.one.found_dead(fault);
    world.power_on_the_other();
    world.healed(fault);
    wait::until_true("one link from the host that is back", || {
        let now = callers(&world);
        now.len() == 1 && now[0]["pid"] != before[0]["pid"]
    });
    world
}

#[test]
fn a_host_that_loses_its_power_and_comes_back_is_linked_both_ways_and_nothing_acknowledged_is_lost() {
    let Some(world) = World::up(true) else { return };
    outage(world).finish(LOG_LINES);
}

#[test]
fn a_host_that_speaks_the_classic_wire_and_loses_its_power_is_linked_both_ways_when_it_is_back() {
    let Some(world) = World::up(false) else { return };
    outage(world).finish(LOG_LINES);
}

#[test]
fn the_call_of_a_host_that_is_back_replaces_its_old_link_which_nobody_has_found_dead() {
    // This lond would not find out for an hour by itself; and where nothing is on its way, no
    // kernel does, either.
    let patient = |world: &mut World| {
        world.one.host.set("lond", "heartbeat", "\"1h\"");
    };
    let Some(mut world) = World::up_with(true, patient) else { return };
    world.rest();
    let mut world = outage(world);
    // The kernel would have asked, and learnt it, after a minute.
    let log = world.one.host.log("lond.log");
    assert!(log.contains(" in place of "), "{log}");
    world.load();
    world.finish(LOG_LINES);
}
