//! A host that loses its power says nothing, and comes back as if nothing had been.

use crate::common::wait;
use crate::world::{OTHER, World};
use std::time::Instant;

/// Lines that each log may have.
const LOG_LINES: usize = 60;

#[test]
fn a_host_that_loses_its_power_and_comes_back_is_linked_both_ways_and_its_new_call_replaces_the_old() {
    // The lond that was called by the lost host would not find out for an hour by itself.
    let Some(mut world) = World::up_with(true, |world| {
        world.one.host.set("lond", "heartbeat", "\"1h\"");
    }) else {
        return;
    };
    let called_by = |world: &World| world.one.host.lond_status().map(|status| status["links"].clone());
    let before = called_by(&world).expect("a status");
    assert_eq!(before[0]["caller"], OTHER);
    let began = Instant::now();
    world.power_off_the_other();
    world.one.found_dead(began);
    assert_eq!(called_by(&world), Some(before.clone()), "nobody has told it");
    world.power_on_the_other();
    world.healed(began.elapsed());
    wait::until_true("one link from the host that is back", || {
        called_by(&world).is_some_and(|links| {
            links.as_array().is_some_and(|links| links.len() == 1) && links[0]["pid"] != before[0]["pid"]
        })
    });
    world.finish(LOG_LINES);
}
