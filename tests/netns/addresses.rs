//! Addresses that change or go away, at either end of a link.

use crate::preload;
use crate::world::{CONNECT_TIMEOUT, Fault, ONE, OTHER, OTHER_IP, PORT, World};

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
    let Some(library) = preload::library("slow_names.c", &world.one.host.dir) else { return };
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
