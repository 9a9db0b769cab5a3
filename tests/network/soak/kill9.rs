//! `kill -9` at random, of both programs on both hosts, under load in both directions; and what
//! else befalls a host: processes that stop for a while, disks that fill, signals, reloads. See
//! [`super::mishaps`].

use super::field::{Befallen, Field};
use super::mishaps::{Daemon, Mishaps};
use super::traffic::{CONNECTIONS, Counts, Traffic};
use crate::common::network::Network;
use crate::common::pair::{CALLED, CALLER};
use crate::common::small_disk::with_own_mounts;
use crate::common::tally::Tally;
use std::time::{Duration, Instant};

/// Kills of a run without a chosen length.
const KILLS: usize = 100;
/// What `scripts/soak` sets.
const SEED: &str = "LONNET_SOAK_SEED";

#[test]
fn kill9() {
    with_own_mounts(|may_mount| {
        let field = Field::up(Network::secure(&[CALLER, CALLED]), may_mount);
        let story = run("secure", field, may_mount);
        // Each caller's messages are passed on one at a time, and the next when the answer is in
        // the record.
        assert!(story.tally.repeated <= story.repeats_allowed, "{story:?}");
    });
}

#[test]
fn kill9_classic() {
    with_own_mounts(|may_mount| {
        let field = Field::up(Network::new(&[CALLER, CALLED]), may_mount);
        run("classic", field, may_mount);
    });
}

/// What became of it.
#[derive(Debug)]
struct Story {
    tally: Tally,
    /// Messages that may have been in a handler of a `lond` child when it was killed: one each,
    /// `docs/delivery.md`.
    repeats_allowed: usize,
}

fn run(wire: &str, mut field: Field, may_mount: bool) -> Story {
    let seed = std::env::var(SEED).map_or_else(|_| fastrand::u64(..), |text| text.parse().expect("a seed"));
    println!("{wire} wire, {SEED}={seed}");
    if !may_mount {
        crate::common::skipped("kill -9 goes on with disks that do not fill: mounting needs root");
    }
    let traffic = field.ends.each_ref().map(|end| Traffic::start(&end.host.socket(end.peer)));
    let going_on = until_the_end();
    let mut mishaps = Mishaps::new(seed);
    while going_on(&field) {
        let (pause, mishap) = mishaps.draw();
        field.pass(pause);
        field.suffer(mishap);
    }
    field.relieve();
    let began = Instant::now();
    // What is sent goes to the other host's programs.
    let left = traffic.map(Traffic::finish);
    let all_done = field.recover(|ends| left[0].all_done(&ends[1].deeds) && left[1].all_done(&ends[0].deeds));
    let recovered = began.elapsed();

    let tallies = [left[0].tally(&field.ends[1].deeds), left[1].tally(&field.ends[0].deeds)];
    let killed_by_us = |daemon| field.ends.each_ref().map(|end| end.said(daemon, "killing child"));
    let (by_lonc, by_lond) = (killed_by_us(Daemon::Lonc), killed_by_us(Daemon::Lond));
    let befallen = field.end();
    let tally = sum(tallies);
    report(&befallen, [left[0].counts, left[1].counts], &tally, recovered);

    for (place, left) in left.iter().enumerate() {
        assert!(left.wrong.is_empty(), "{:#?}", left.wrong);
        let counts = left.counts;
        assert!(counts.acknowledged > 0 && counts.answered > 0, "nothing was sent: {counts:?}");
        // A program's connection ends with the child, or the listening socket, that it was with.
        let kills = befallen[place].kills;
        let reasons = (2 * kills.lonc + kills.lonc_children + by_lonc[place]) as u64;
        assert!(
            counts.ended <= reasons * CONNECTIONS,
            "{reasons} reasons for a connection to end: {counts:?}"
        );
    }
    assert_eq!((all_done, tally.lost, tally.out_of_order), (true, 0, 0), "{tally:?}");
    let killed: usize = befallen.iter().map(|befallen| befallen.kills.lond_children).sum();
    Story { tally, repeats_allowed: killed + by_lond.iter().sum::<usize>() }
}

/// So many kills, or as long as `scripts/soak` says.
fn until_the_end() -> impl Fn(&Field) -> bool {
    let seconds = std::env::var(super::SECONDS).ok();
    let end =
        seconds.map(|text| Instant::now() + Duration::from_secs(text.parse().expect("a number of seconds")));
    move |field| match end {
        Some(end) => Instant::now() < end,
        None => field.ends.iter().map(|end| end.befallen.kills.all()).sum::<usize>() < KILLS,
    }
}

fn sum(tallies: [Tally; 2]) -> Tally {
    let [a, b] = tallies;
    Tally {
        messages: a.messages + b.messages,
        lost: a.lost + b.lost,
        repeated: a.repeated + b.repeated,
        out_of_order: a.out_of_order + b.out_of_order,
    }
}

fn report(befallen: &[Befallen; 2], counts: [Counts; 2], tally: &Tally, recovered: Duration) {
    let all = |count: fn(&Befallen) -> usize| befallen.iter().map(count).sum::<usize>();
    let sent = |count: fn(&Counts) -> u64| counts.iter().map(count).sum::<u64>();
    println!(
        "killed {}: lonc {}, its children {}, lond {}, its children {}",
        all(|it| it.kills.all()),
        all(|it| it.kills.lonc),
        all(|it| it.kills.lonc_children),
        all(|it| it.kills.lond),
        all(|it| it.kills.lond_children),
    );
    println!(
        "stopped {}, disks filled {}, signals {}, reloads {}",
        all(|it| it.stops),
        all(|it| it.fills),
        all(|it| it.signals),
        all(|it| it.reloads),
    );
    println!(
        "critical messages sent {}, acknowledged {} ({} of them con_delayed), con_failed {}, connection ended {}",
        sent(|it| it.critical),
        sent(|it| it.acknowledged),
        sent(|it| it.delayed),
        sent(|it| it.con_failed),
        sent(|it| it.unknown),
    );
    println!(
        "plain requests sent {}, answered {}, con_lost {}; connections ended {}",
        sent(|it| it.plain),
        sent(|it| it.answered),
        sent(|it| it.con_lost),
        sent(|it| it.ended),
    );
    println!(
        "lost {}, repeated {}, out of order {}; all well again after {recovered:.1?}",
        tally.lost, tally.repeated, tally.out_of_order
    );
}
