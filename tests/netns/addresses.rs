//! Addresses that change or go away, at either end of a link.

use crate::common::preload;
use crate::common::wait;
use crate::world::{BUSY, CONNECT_TIMEOUT, Fault, ONE, ONE_IP, OTHER, OTHER_IP, PORT, Site, World, time_of};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// Lines that each log may have.
const LOG_LINES: usize = 60;

/// Any address of their own, for calling and for listening.
fn anywhere(world: &mut World) {
    for site in [&mut world.one, &mut world.other] {
        site.host.set("lonc", "bind", "\"0.0.0.0\"");
        site.host.set("lond", "listen", &format!("[\"0.0.0.0:{PORT}\"]"));
    }
}

/// The other host has another address from now on.
fn move_the_other(world: &World) {
    world.other.space.ip(&format!(
        "addr del {OTHER_IP}/24 dev net\n\
         addr add 10.77.2.3/24 dev net\n\
         route add default via 10.77.2.1\n"
    ));
}

#[test]
fn a_host_that_moves_to_another_address_is_reached_there_after_a_reload() {
    let Some(mut world) = World::up_with(true, anywhere) else { return };
    let fault = Fault::begins();
    move_the_other(&world);
    world.found_dead(fault);
    world.one.host.set(&format!("host.{OTHER}"), "address", &format!("\"10.77.2.3:{PORT}\""));
    let reloaded = world.one.host.lon(&["reload"]);
    let said = String::from_utf8_lossy(&reloaded.stdout).into_owned();
    assert!(reloaded.status.success() && said.contains("lonc: reloaded: 1 link replaced"), "{said}");
    world.healed(fault);
    world.finish(LOG_LINES);
}

/// The first host knows the other by its name alone from now on, which has this address there.
fn by_name(world: &mut World, ip: &str) {
    world.write_table(&format!("{ONE}:test:access:{ONE}.example:\n{OTHER}:test:library:{OTHER}.example:\n"));
    world.one.host.unset(&format!("host.{OTHER}"), "address");
    name_is(world, ip);
}

fn name_is(world: &World, ip: &str) {
    let folder = world.one.host.dir.clone();
    world.one.space.instead_of("/etc/hosts", &format!("{ip} {OTHER}.example\n"), &folder);
}

#[test]
fn a_host_that_is_known_by_name_is_reached_at_its_new_address_unaided() {
    let configure = |world: &mut World| {
        anywhere(world);
        by_name(world, OTHER_IP);
    };
    let Some(world) = World::up_with(true, configure) else { return };
    let fault = Fault::begins();
    move_the_other(&world);
    world.found_dead(fault);
    name_is(&world, "10.77.2.3");
    world.healed(fault);
    world.finish(LOG_LINES);
}

#[test]
fn a_host_whose_name_takes_longer_to_look_up_than_a_dial_may_take_is_linked_all_the_same() {
    let Some(mut world) = World::prepare(true) else { return };
    let Some(library) = preload::library("netns/slow_names.c", &world.one.host.dir) else { return };
    by_name(&mut world, OTHER_IP);
    let takes = CONNECT_TIMEOUT.as_millis() * 5 / 2;
    world.one.environment =
        vec![("LD_PRELOAD", library), ("LONNET_TEST_LOOKUP_TAKES", takes.to_string().into())];
    world.start();
    world.flows();
    world.finish(LOG_LINES);
}

#[test]
fn a_host_whose_own_address_changes_calls_from_the_new_one_unaided() {
    let Some(world) = World::up_with(true, anywhere) else { return };
    let fault = Fault::begins();
    // The other host cannot call, and says so; it is called all the same.
    move_the_other(&world);
    world.other.found_dead(fault);
    world.other.host.wait_link(ONE, "up");
    let callers = world.one.host.lond_status().expect("a status")["links"].to_string();
    assert!(callers.contains("10.77.2.3"), "{callers}");
    world.one.last_error("no connection within");
    world.other.space.ip(&format!("addr add {OTHER_IP}/24 dev net\n"));
    world.healed(fault);
    world.finish(LOG_LINES);
}

#[test]
fn a_host_whose_only_address_is_away_for_a_while_says_so_and_calls_again_when_it_is_back() {
    // Both programs of both hosts are bound to their addresses.
    let Some(world) = World::up(true) else { return };
    let fault = Fault::begins();
    world.other.space.ip(&format!("addr del {OTHER_IP}/24 dev net\n"));
    world.found_dead(fault);
    world.other.last_error("Cannot assign requested address");
    world.other.space.ip(&format!("addr add {OTHER_IP}/24 dev net\nroute add default via 10.77.2.1\n"));
    world.healed(fault);
    world.finish(LOG_LINES);
}

/// An address that swallows all that is sent to it.
const BLACK_HOLE: &str = "10.77.2.9";

#[test]
fn of_the_addresses_of_a_name_one_that_swallows_packets_delays_no_link() {
    /// Longer than anything else here may take.
    const CONNECT: Duration = Duration::from_secs(60);
    let configure = |world: &mut World| {
        anywhere(world);
        by_name(world, &format!("{BLACK_HOLE} {OTHER}.example\n{OTHER_IP}"));
        world.one.host.set("lonc", "connect_timeout", &format!("\"{}s\"", CONNECT.as_secs()));
        world.middle.faults(&format!("ip daddr {BLACK_HOLE} drop"));
    };
    let begun = Instant::now();
    let Some(world) = World::up_with(true, configure) else { return };
    assert!(begun.elapsed() < CONNECT / 2, "{:?}", begun.elapsed());
    let made = |site: &Site| time_of(&site.status()["since"]);
    for hup in 1..=4 {
        let (before, begun) = (made(&world.one), Instant::now());
        world.other.lond.as_ref().expect("lond runs").signal(Signal::SIGHUP);
        wait::until_true("a new link", || world.one.status()["state"] == "up" && made(&world.one) > before);
        assert!(begun.elapsed() < BUSY, "HUP {hup}: {:?}", begun.elapsed());
        world.flows();
    }
    // The other address is the good one from now on, and this one the black hole.
    let fault = Fault::begins();
    world.middle.faults(&format!("ip daddr {OTHER_IP} drop"));
    world.other.space.ip(&format!("addr add {BLACK_HOLE}/24 dev net\n"));
    world.one.found_dead(fault);
    let begun = Instant::now();
    world.one.host.wait_link(OTHER, "up");
    assert!(begun.elapsed() < BUSY, "{:?}", begun.elapsed());
    assert!(world.one.host.log("lonc.log").lines().count() < LOG_LINES);
    world.middle.faults("");
}

#[test]
fn an_address_that_takes_connections_and_answers_nothing_delays_a_link_by_a_second() {
    const CONNECT: Duration = Duration::from_secs(60);
    let configure = |world: &mut World| {
        anywhere(world);
        by_name(world, &format!("{BLACK_HOLE} {OTHER}.example\n{OTHER_IP}"));
        world.one.host.set("lonc", "connect_timeout", &format!("\"{}s\"", CONNECT.as_secs()));
        world.other.space.ip(&format!("addr add {BLACK_HOLE}/24 dev net\n"));
        // TCP's own packets pass, what is said does not.
        world.middle.faults(&format!("ip daddr {BLACK_HOLE} tcp flags & psh == psh drop"));
    };
    let begun = Instant::now();
    let Some(world) = World::up_with(true, configure) else { return };
    assert!(begun.elapsed() < CONNECT / 2, "{:?}", begun.elapsed());
    world.flows();
    let callers = world.other.host.lond_status().expect("a status")["links"].to_string();
    assert!(callers.contains(ONE_IP), "{callers}");
    world.finish(LOG_LINES);
}

#[test]
fn an_address_to_listen_on_that_comes_later_is_served_when_it_is_there() {
    const LATER: &str = "10.77.2.7";
    let configure = |world: &mut World| {
        let both = format!("[\"{OTHER_IP}:{PORT}\", \"{LATER}:{PORT}\"]");
        world.other.host.set("lond", "listen", &both);
    };
    let Some(mut world) = World::up_with(true, configure) else { return };
    let missing = || world.other.host.lond_status().expect("a status")["not_listening"].clone();
    assert_eq!(missing()[0]["address"], format!("{LATER}:{PORT}"));
    let log = || world.other.host.log("lond.log");
    let said = format!("listen on {LATER}:{PORT}: Cannot assign requested address");
    assert_eq!(log().matches(&said).count(), 1, "{}", log());
    world.other.space.ip(&format!("addr add {LATER}/24 dev net\n"));
    wait::until_true("it to be listened on", || missing().as_array().is_some_and(Vec::is_empty));
    assert!(log().contains(&format!("listening on {LATER}:{PORT} now")), "{}", log());
    // The link goes over it, too.
    world.one.host.set(&format!("host.{OTHER}"), "address", &format!("\"{LATER}:{PORT}\""));
    let reloaded = world.one.host.lon(&["reload"]);
    assert!(reloaded.status.success(), "{reloaded:?}");
    world.one.host.wait_link(OTHER, "up");
    world.flows();
}
