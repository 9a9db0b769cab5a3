//! Dials that fail, each in its own way: the status says how, and the next ones come in growing pauses, or at once when
//! somebody asks.

use crate::common::wait;
use crate::world::{CONNECT_TIMEOUT, Fault, Site, World};

/// Lines that each log may have.
const LOG_LINES: usize = 80;

/// The pause before the next dial that the status shows, in seconds.
fn pause(site: &Site) -> Option<f64> {
    let status = site.status();
    let doing = status["doing"].as_str()?;
    doing.strip_prefix("down, next dial in ")?.strip_suffix(" s")?.parse().ok()
}

#[test]
fn every_way_in_which_a_dial_can_fail_is_shown_and_got_over() {
    let Some(world) = World::up(true) else { return };
    let (one, fault) = (&world.one, Fault::begins());
    one.space.ip("link set net down\n");
    world.found_dead(fault);
    one.last_error("Network is unreachable");
    world.traffic()[0].is_held_up();
    one.space.ip("link set net up\nroute add default via 10.77.1.1\n");

    for (rules, shown) in [
        ("reject with icmp type host-unreachable", "No route to host".to_owned()),
        ("reject with icmp type net-unreachable", "Network is unreachable".to_owned()),
        ("meta l4proto tcp reject with tcp reset", "Connection refused".to_owned()),
        ("drop", format!("no connection within {CONNECT_TIMEOUT:?}")),
    ] {
        world.middle.faults(rules);
        // What was shown before may have the same words.
        let before = one.status()["last_error_at"].clone();
        one.dial_now();
        wait::until_true(&format!("the error {shown:?}"), || {
            let status = one.status();
            let said = status["last_error"].as_str().is_some_and(|error| error.contains(&shown));
            said && status["state"] != "up" && status["last_error_at"] != before
        });
        world.traffic()[0].is_held_up();
    }
    world.heal(fault);
    world.finish(LOG_LINES);
}

#[test]
fn the_pauses_between_dials_grow_and_usr1_makes_a_dial_at_once_and_the_pauses_short_again() {
    let Some(mut world) = World::up(true) else { return };
    // The status is as it was at the last event: without requests these are the dials.
    world.rest();
    let fault = Fault::begins();
    world.other.lond = None;
    let one = &world.one;
    one.last_error("Connection refused");
    // Each is between half of twice the one before and the whole of it.
    wait::until_true("a pause of three seconds", || pause(one).is_some_and(|pause| pause >= 3.0));
    one.dial_now();
    wait::until_true("a pause of half a second", || pause(one).is_some_and(|pause| pause <= 0.5));
    world.other.start_lond();
    world.one.dial_now();
    world.healed(fault);
    world.load();
    world.finish(LOG_LINES);
}
