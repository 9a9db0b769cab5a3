//! A network of two hundred hosts, most of which are away.

use crate::common::fake_lond::{FakeLond, Fault, Step};
use crate::common::network::Network;
use crate::common::{process, wait};
use std::time::Duration;

const HOSTS: usize = 200;
const THERE: usize = 50;
/// Of those that are away, these accept and say nothing.
const SILENT: usize = 10;

#[test]
fn of_two_hundred_hosts_the_fifty_that_are_there_are_served_and_the_others_cost_little() {
    let ids: Vec<String> = (0..HOSTS).map(|number| format!("host{number:03}")).collect();
    let network = Network::new(&[vec!["msua1".to_owned()], ids.clone()].concat());
    let fakes: Vec<FakeLond> = ids[..THERE + SILENT]
        .iter()
        .enumerate()
        .map(|(number, id)| {
            let fake = FakeLond::start(id, "msua1", network.address(id));
            if number >= THERE {
                fake.fail_at(Step::Init, Fault::Silence);
            }
            fake
        })
        .collect();
    let host = network.host("msua1");
    let lonc = host.lonc();
    let states = || -> Vec<(String, String)> {
        let Ok(bytes) = std::fs::read(host.dir.join("status/status.json")) else { return Vec::new() };
        let snapshot: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        let peers = snapshot["peers"].as_array().expect("peers").clone();
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        peers.iter().map(|peer| (text(&peer["peer"]), text(&peer["state"]))).collect()
    };
    wait::until_true("fifty links to be up", || {
        states().iter().filter(|(_, state)| state == "up").count() == THERE
    });
    let now = states();
    assert_eq!(now.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), ids, "in the order of hosts.tab");
    for (number, (id, state)) in now.iter().enumerate() {
        assert_eq!(
            number < THERE,
            state == "up",
            "{id} is {state}: {:?}; {}",
            host.status(id),
            host.log("lonc.log")
        );
    }
    wait::until_true("a child for each host", || lonc.children().len() == HOSTS);
    for id in &ids[..THERE] {
        assert_eq!(host.ask(id, "ping"), *id);
    }
    for id in ids[THERE + SILENT..].iter().step_by(7) {
        assert_eq!(host.ask(id, "ping"), "con_lost");
        assert_eq!(host.ask(id, "critical:log:kept"), "con_delayed");
    }
    let family = || {
        let mut pids = lonc.children();
        pids.push(lonc.pid());
        pids.into_iter().map(process::ticks).sum::<u64>()
    };
    wait::until_true("two seconds that cost less than a quarter of a core", || {
        let before = family();
        wait::let_pass(Duration::from_secs(2));
        family() - before < 50
    });
    drop(fakes);
    wait::until_true("every link to be down", || {
        let states = states();
        states.len() == HOSTS && states.iter().all(|(_, state)| state != "up")
    });
}
