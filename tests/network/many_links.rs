//! One `lond` with links from a hundred hosts and more, each of which is a `lonc` of its own: what
//! a link costs while it is idle, and what comes when all of them dial at once. And a `lonc` most
//! of whose hosts are away.

use crate::common::network::Network;
use crate::common::program::Program;
use crate::common::{process, wait};
use std::collections::BTreeSet;
use std::fs;

const HOSTS: usize = 120;
const HUB: &str = "msul1";
/// KiB that a link child may have for itself while its link is idle. These programs are not
/// optimized, which costs them more of the stack; those that are installed need two thirds of it.
const OWN: u64 = 328;
/// Of so many connections at most `lond` has to turn one away that finds no room, while all dial at
/// once: for each host a few.
const TURNED_AWAY: u64 = 4 * HOSTS as u64;

/// Memory that only this process has written to: KiB. It is what many children cost, however they
/// share the rest.
fn own_memory(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the child lives");
    let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).expect("a sum");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn middle(pids: impl Iterator<Item = u32>) -> u64 {
    let mut all: Vec<u64> = pids.map(own_memory).collect();
    all.sort_unstable();
    all[all.len() / 2]
}

#[test]
fn links_of_a_hundred_and_twenty_hosts_cost_little_and_all_are_back_after_a_restart() {
    let ids: Vec<String> = (0..HOSTS).map(|number| format!("msua{number:03}")).collect();
    let network = Network::secure(&[vec![HUB.to_owned()], ids.clone()].concat());
    let hub = network.host(HUB);
    let lond = hub.lond();
    // Each knows the one in the middle alone: a child a host, not one for each of the others.
    let spokes: Vec<_> = ids
        .iter()
        .map(|id| {
            let mut host = network.host(id);
            host.know_only(id, HUB, &network);
            let lonc = host.start(host.command("lonc"), "lonc");
            (host, lonc)
        })
        .collect();
    let callers = || -> BTreeSet<String> {
        let status = hub.lond_status().unwrap_or_default();
        let links = status["links"].as_array().cloned().unwrap_or_default();
        links.iter().filter_map(|link| Some(link["caller"].as_str()?.to_owned())).collect()
    };
    let all: BTreeSet<String> = ids.iter().cloned().collect();
    wait::until_true("all links to be up", || callers() == all);
    let called = |lond: &Program| lond.children().into_iter();
    wait::until_true("links to cost what idle ones do", || {
        // For who runs it at scale, with the output shown.
        let (of_lond, of_lonc) = (middle(called(&lond)), middle(calling(&spokes)));
        println!("of lond {of_lond} KiB, of lonc {of_lonc} KiB");
        of_lond < OWN && of_lonc < OWN
    });
    assert_eq!(lond.children().len(), HOSTS, "a process for each link and no other");
    for pid in called(&lond).chain(calling(&spokes)) {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the child lives").count();
        assert_eq!(threads, 1, "what is forked by a thread has that one alone");
    }
    process::signal(lond.pid(), nix::sys::signal::Signal::SIGKILL);
    drop(lond);
    let lond = hub.lond();
    wait::until_true("all links to be back", || callers() == all);
    let status = hub.lond_status().expect("lond's status");
    let turned_away = status["crowded"].as_u64().expect("a count");
    println!("turned away {turned_away}");
    assert!(turned_away <= TURNED_AWAY, "a storm: {status}");
    assert_eq!(status["unauthenticated"], 0);
    for (host, _) in spokes.iter().step_by(17) {
        assert_eq!(host.ask(HUB, "ping"), HUB);
    }
    drop(lond);
}

fn calling(spokes: &[(crate::common::network::Host, Program)]) -> impl Iterator<Item = u32> + '_ {
    spokes.iter().map(|(_, lonc)| lonc.only_child())
}

/// More than are forked together.
const AWAY: usize = 24;
/// The last by its name.
const THERE: &str = "msuz";

/// Whom the children of a supervisor serve, in the order of their births.
fn births(lonc: &Program) -> Vec<String> {
    let pid = lonc.pid();
    let listed =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("the kernel lists them");
    let title = |child: &str| process::title(child.parse().expect("a number"));
    listed.split_whitespace().filter_map(|it| Some(title(it).split_whitespace().nth(1)?.to_owned())).collect()
}

#[test]
fn hosts_that_were_there_have_their_children_before_those_that_were_away_at_the_next_start() {
    let away: Vec<String> = (0..AWAY).map(|number| format!("msua{number:02}")).collect();
    let network = Network::secure(&[away.clone(), vec![HUB.to_owned(), THERE.to_owned()]].concat());
    let (hub, there) = (network.host(HUB), network.host(THERE));
    let _lond = there.lond();
    let lonc = hub.lonc();
    let settled = |peers: &[String]| {
        peers.iter().all(|peer| hub.status_file(peer).is_some_and(|status| !status["last_error"].is_null()))
    };
    wait::until_true("those who are away to be noted so", || settled(&away));
    hub.wait_link(THERE, "up");
    assert_eq!(births(&lonc).last().map(String::as_str), Some(THERE), "nothing was known of them");

    assert!(lonc.stop().success());
    let lonc = hub.lonc();
    wait::until_true("all children to be there", || lonc.children().len() == AWAY + 1);
    assert_eq!(births(&lonc).first().map(String::as_str), Some(THERE));
}
