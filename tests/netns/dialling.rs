//! Dials that fail, each in its own way: the status says how, and the next ones come in growing
//! pauses, or at once when somebody asks.

use crate::common::wait;
use crate::world::{CONNECT_TIMEOUT, Fault, Site, World};

/// Lines that each log may have.
const LOG_LINES: usize = 80;

/// The pauses, in seconds, that followed each dial that failed, as the log has them.
fn pauses(site: &Site) -> Vec<f64> {
    let log = site.host.log("lonc.log");
    let said = log.lines().filter_map(|line| line.split_once(" -> down, next dial in ")?.1.split_once(" s "));
    said.map(|(pause, _)| pause.parse().expect("a pause")).collect()
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
    // So that the log has every dial.
    let talkative = |world: &mut World| {
        world.one.host.set("", "log_level", "\"debug\"");
    };
    let Some(mut world) = World::up_with(true, talkative) else { return };
    world.rest();
    let before = pauses(&world.one).len();
    let fault = Fault::begins();
    world.other.lond = None;
    wait::until_true("a pause of three seconds", || {
        pauses(&world.one)[before..].last().is_some_and(|pause| *pause >= 3.0)
    });
    let grown = pauses(&world.one).split_off(before);
    // Each is between half of twice what the one before was at most, and the whole. Said in tenths
    // of a second.
    for pair in grown.windows(2) {
        assert!(pair[1] >= pair[0] - 0.1 && pair[1] <= 4.0 * pair[0] + 0.3, "{grown:?}");
    }
    world.one.dial_now();
    wait::until_true("a short pause", || {
        pauses(&world.one)[before + grown.len()..].iter().any(|pause| *pause <= 0.5)
    });
    world.other.start_lond();
    world.one.dial_now();
    world.healed(fault);
    world.load();
    world.finish(usize::MAX);
}
