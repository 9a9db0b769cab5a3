//! Who is let in while nobody knows yet who calls, and in whose place: pure.
//!
//! At most `max_opening` children serve callers that are not known yet. That is no single pool:
//!
//! - Strangers, whose address is no host's, may have half of it ([`Bounds::strangers`]), and one
//!   *origin* among them a quarter of that half ([`Bounds::each`]). The rest is kept for the
//!   addresses of the table, which may have all.
//! - Where there is no room, a newcomer takes the place of one of the origin that has the most, if
//!   that still has as many as the newcomer's own then; a host of the table takes any stranger's
//!   place. The oldest that has said nothing goes first.
//! - Where all have as many, one that is older than [`SILENT_FOR`] and has said nothing gives way,
//!   or one that is not done after [`SPEAKS_FOR`]. A newcomer that has said something itself need
//!   not wait so long: a silent one gives way to it after [`WAITS`]. Else the newcomer is turned
//!   away. So a silent crowd makes no more forks than that.
//! - While as many are on their way out as one origin may have (for a host of the table: as all
//!   strangers may have), nobody more is killed for a newcomer.
//!
//! An origin is an IPv4 address, or the /64 of an IPv6 one: who has one address there has all of
//! them.

use super::lobby::WAITS;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Older than that, a connection that has said nothing gives way to a newcomer. A caller speaks
/// first, on both wires.
pub(super) const SILENT_FOR: Duration = Duration::from_secs(1);
/// Older than that, one gives way that has spoken and is not known yet: a handshake takes two round
/// trips.
pub(super) const SPEAKS_FOR: Duration = Duration::from_secs(3);
/// One origin among strangers may have this part of their room, ...
const PART_OF_ONE: usize = 4;
/// ... and so much of a small one.
const LEAST_OF_ONE: usize = 2;

/// Where a connection comes from, as far as bounds go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Origin(IpAddr);

impl Origin {
    /// Of an address.
    pub(super) fn of(address: IpAddr) -> Origin {
        Origin(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// How many may be in the opening dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// In all: `max_opening`.
    pub all: usize,
    /// Of these, from addresses that are no host's.
    pub strangers: usize,
    /// Of those, from one origin.
    pub each: usize,
}

impl Bounds {
    /// With `max_opening` in all.
    pub(super) fn new(max_opening: usize) -> Bounds {
        let strangers = max_opening.div_ceil(2);
        Bounds {
            all: max_opening,
            strangers,
            each: (strangers / PART_OF_ONE).max(LEAST_OF_ONE).min(strangers),
        }
    }
}

/// One whose caller is not known yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guest {
    /// The child that it is with.
    pub pid: u32,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether the address is a host's.
    pub familiar: bool,
    /// It has not said a byte.
    pub silent: bool,
    /// When it came.
    pub since: Instant,
    /// It is on its way out already; its process counts until it is gone.
    pub leaves: bool,
}

/// What is known of a newcomer, for which room is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asks {
    /// Where it comes from.
    pub origin: Origin,
    /// Whether the address is a host's.
    pub familiar: bool,
    /// It has said something.
    pub speaks: bool,
}

/// What becomes of a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is room.
    Welcome,
    /// It is let in, and this child is killed.
    InPlaceOf(u32),
    /// There is none.
    TurnedAway,
}

/// Judges a newcomer. `guests`: all that are in the opening dialogue now.
pub(super) fn judge(bounds: Bounds, guests: &[Guest], asks: Asks, now: Instant) -> Verdict {
    let Asks { origin, familiar, speaks } = asks;
    let mut counts: HashMap<Origin, usize> = HashMap::new();
    for guest in guests {
        *counts.entry(guest.origin).or_default() += 1;
    }
    let count = |origin: Origin| counts.get(&origin).copied().unwrap_or(0);
    let (own, strangers) = (count(origin), guests.iter().filter(|guest| !guest.familiar).count());
    let own_most = if familiar { bounds.all } else { bounds.each };
    let strangers_full = !familiar && strangers >= bounds.strangers;
    if own < own_most && !strangers_full && guests.len() < bounds.all {
        return Verdict::Welcome;
    }
    // A process that is killed is one until it is gone, which takes its time on a busy machine.
    let leaving = guests.iter().filter(|guest| guest.leaves).count();
    if leaving >= if familiar { bounds.strangers } else { bounds.each } {
        return Verdict::TurnedAway;
    }
    let stays = |guest: &&Guest| !guest.leaves;
    let candidates: Vec<&Guest> = if own >= own_most {
        guests.iter().filter(|guest| guest.origin == origin).filter(stays).collect()
    } else if familiar && strangers > 0 {
        guests.iter().filter(|guest| !guest.familiar).filter(stays).collect()
    } else if strangers_full {
        guests.iter().filter(|guest| !guest.familiar).filter(stays).collect()
    } else {
        guests.iter().filter(stays).collect()
    };
    let oldest = |guests: &mut dyn Iterator<Item = &Guest>| {
        guests.min_by_key(|guest| (!guest.silent, guest.since)).map(|guest| Verdict::InPlaceOf(guest.pid))
    };
    let most = candidates.iter().map(|guest| count(guest.origin)).max().unwrap_or(0);
    if most > own + 1 {
        let given_up = oldest(&mut candidates.iter().copied().filter(|guest| count(guest.origin) == most));
        return given_up.unwrap_or(Verdict::TurnedAway);
    }
    if familiar && candidates.iter().any(|guest| !guest.familiar) {
        return oldest(&mut candidates.iter().copied()).unwrap_or(Verdict::TurnedAway);
    }
    let had_its_time = |guest: &&Guest| {
        let patience = match guest.silent {
            true if speaks => WAITS,
            true => SILENT_FOR,
            false => SPEAKS_FOR,
        };
        now.saturating_duration_since(guest.since) >= patience
    };
    oldest(&mut candidates.iter().copied().filter(had_its_time)).unwrap_or(Verdict::TurnedAway)
}

/// The first stranger that gives way where there is no room for any child more.
pub(super) fn oldest_stranger(guests: &[Guest]) -> Option<u32> {
    let strangers = guests.iter().filter(|guest| !guest.familiar && !guest.leaves);
    strangers.min_by_key(|guest| (!guest.silent, guest.since)).map(|guest| guest.pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A door on a clock of the test's own.
    struct Door {
        bounds: Bounds,
        guests: Vec<Guest>,
        now: Instant,
        next: u32,
    }

    impl Door {
        fn new(max_opening: usize) -> Door {
            Door { bounds: Bounds::new(max_opening), guests: Vec::new(), now: Instant::now(), next: 0 }
        }

        fn call(&mut self, from: IpAddr, familiar: bool) -> Verdict {
            self.call_and(from, familiar, false)
        }

        fn call_and(&mut self, from: IpAddr, familiar: bool, speaks: bool) -> Verdict {
            let origin = Origin::of(from);
            let verdict = judge(self.bounds, &self.guests, Asks { origin, familiar, speaks }, self.now);
            if let Verdict::InPlaceOf(pid) = verdict {
                self.guests.retain(|guest| guest.pid != pid);
            }
            if verdict != Verdict::TurnedAway {
                self.next += 1;
                let (pid, since) = (self.next, self.now);
                self.guests.push(Guest { pid, origin, familiar, silent: !speaks, since, leaves: false });
            }
            let strangers = self.guests.iter().filter(|guest| !guest.familiar).count();
            assert!(self.guests.len() <= self.bounds.all && strangers <= self.bounds.strangers);
            verdict
        }

        fn of(&self, from: IpAddr) -> usize {
            self.guests.iter().filter(|guest| guest.origin == Origin::of(from)).count()
        }
    }

    #[test]
    fn half_of_the_room_is_for_strangers_and_a_quarter_of_that_for_one_of_them() {
        let bounds = |max_opening| {
            let Bounds { all, strangers, each } = Bounds::new(max_opening);
            (all, strangers, each)
        };
        assert_eq!(bounds(64), (64, 32, 8));
        assert_eq!(bounds(9), (9, 5, 2));
        assert_eq!(bounds(3), (3, 2, 2));
        assert_eq!(bounds(1), (1, 1, 1));
    }

    #[test]
    fn the_first_stranger_to_go_is_the_oldest_that_is_silent_and_no_host() {
        let mut door = Door::new(64);
        door.call(ip("192.0.2.1"), true);
        assert_eq!(oldest_stranger(&door.guests), None);
        for n in 1..=3 {
            door.now += Duration::from_millis(1);
            door.call(IpAddr::from([198, 51, 100, n]), false);
        }
        door.guests[1].silent = false;
        assert_eq!(oldest_stranger(&door.guests), Some(3));
        door.guests[2].leaves = true;
        assert_eq!(oldest_stranger(&door.guests), Some(4));
        door.guests[3].leaves = true;
        assert_eq!(oldest_stranger(&door.guests), Some(2));
    }

    #[test]
    fn one_stranger_has_its_share_however_often_it_calls_and_makes_few_forks() {
        let mut door = Door::new(64);
        let mut forks = 0;
        for _ in 0..4300 {
            forks += usize::from(door.call(ip("198.51.100.7"), false) != Verdict::TurnedAway);
            assert!(door.of(ip("198.51.100.7")) <= door.bounds.each);
            door.now += Duration::from_secs(1) / 430;
        }
        assert!(forks <= 11 * door.bounds.each, "{forks} forks in ten seconds");
        assert_eq!(door.call(ip("198.51.100.8"), false), Verdict::Welcome, "another stranger");
        assert_eq!(door.call(ip("192.0.2.1"), true), Verdict::Welcome, "a host");
    }

    #[test]
    fn an_ipv6_network_is_one_origin_and_a_mapped_address_is_an_ipv4_one() {
        let mut door = Door::new(64);
        for n in 0..1000 {
            let from = Ipv6Addr::new(0x2001, 0xdb8, 0, 7, n, n, n, n);
            door.call(from.into(), false);
        }
        assert_eq!(door.guests.len(), door.bounds.each);
        assert_eq!(door.call(ip("2001:db8:0:8::1"), false), Verdict::Welcome);
        assert_eq!(Origin::of(ip("::ffff:192.0.2.1")), Origin::of(ip("192.0.2.1")));
        assert_ne!(Origin::of(ip("192.0.2.1")), Origin::of(ip("192.0.2.2")));
    }

    #[test]
    fn a_host_of_the_table_is_always_let_in_among_any_crowd_of_strangers() {
        for max_opening in [1, 2, 3, 8, 64] {
            let mut door = Door::new(max_opening);
            for n in 0..1000_u32 {
                door.call(IpAddr::from(n.to_be_bytes()), false);
            }
            assert!(!door.guests.is_empty());
            for n in 0..max_opening as u8 {
                let verdict = door.call(IpAddr::from([192, 0, 2, n]), true);
                assert_ne!(verdict, Verdict::TurnedAway, "host {n} of {max_opening}");
            }
            assert!(door.guests.iter().all(|guest| guest.familiar));
        }
    }

    #[test]
    fn one_host_at_the_door_keeps_no_other_away() {
        let mut door = Door::new(8);
        for _ in 0..100 {
            door.call(ip("192.0.2.1"), true);
        }
        assert_eq!(door.of(ip("192.0.2.1")), 8);
        // A stranger has its share where one host has the room of all.
        let mut other = Door { guests: door.guests.clone(), ..Door::new(8) };
        assert_eq!(other.call(ip("198.51.100.7"), false), Verdict::InPlaceOf(1));
        // Each time the oldest of whoever has the most gives way, until all have as many.
        for n in 2..=8 {
            let oldest =
                door.guests.iter().find(|guest| door.of(ip("192.0.2.1")) > 1 && guest.pid > 0).unwrap();
            let expected = Verdict::InPlaceOf(oldest.pid);
            assert_eq!(door.call(IpAddr::from([192, 0, 2, n]), true), expected);
        }
        assert_eq!(
            door.call(ip("192.0.2.9"), true),
            Verdict::TurnedAway,
            "all have one, and had no time yet"
        );
        // A stranger has room of its own only where nobody of the table needs it.
        assert_eq!(door.call(ip("198.51.100.7"), false), Verdict::TurnedAway);
    }

    #[test]
    fn among_many_that_have_one_each_who_says_nothing_gives_way_first_and_nobody_at_once() {
        let mut door = Door::new(8);
        for n in 1..=4 {
            door.call(IpAddr::from([198, 51, 100, n]), false);
        }
        door.guests[0].silent = false;
        assert_eq!(door.call(ip("198.51.100.9"), false), Verdict::TurnedAway);
        door.now += SILENT_FOR;
        assert_eq!(door.call(ip("198.51.100.9"), false), Verdict::InPlaceOf(2), "the oldest silent one");
        door.guests.iter_mut().for_each(|guest| guest.silent = false);
        door.now += SILENT_FOR;
        assert_eq!(
            door.call(ip("198.51.100.10"), false),
            Verdict::TurnedAway,
            "they may be about to be known"
        );
        door.now += SPEAKS_FOR;
        assert_eq!(door.call(ip("198.51.100.10"), false), Verdict::InPlaceOf(1));
    }

    #[test]
    fn who_speaks_takes_the_place_of_one_that_is_silent_though_both_have_the_address_of_a_crowd() {
        let mut door = Door::new(64);
        for _ in 0..100 {
            door.call(ip("198.51.100.7"), false);
        }
        let (speak, each) =
            (|door: &mut Door| door.call_and(ip("198.51.100.7"), false, true), door.bounds.each);
        assert_eq!(speak(&mut door), Verdict::TurnedAway, "they may be about to speak");
        door.now += WAITS;
        assert_eq!(door.call(ip("198.51.100.7"), false), Verdict::TurnedAway, "it is silent, too");
        for n in 1..=each as u32 {
            assert_eq!(speak(&mut door), Verdict::InPlaceOf(n));
        }
        door.now += SILENT_FOR;
        assert_eq!(speak(&mut door), Verdict::TurnedAway, "all have spoken");
    }

    #[test]
    fn who_is_on_its_way_out_is_not_given_up_again_and_counts_until_it_is_gone() {
        let mut door = Door::new(2);
        door.call(ip("192.0.2.1"), true);
        door.call(ip("192.0.2.1"), true);
        door.guests.iter_mut().for_each(|guest| guest.leaves = true);
        assert_eq!(door.call(ip("192.0.2.2"), true), Verdict::TurnedAway);
        // However slowly those that were killed go, they are few.
        let mut door = Door::new(64);
        for second in 0..100 {
            for _ in 0..100 {
                let asks = Asks { origin: Origin::of(ip("198.51.100.7")), familiar: false, speaks: false };
                let pid = second * 100 + 1;
                match judge(door.bounds, &door.guests, asks, door.now) {
                    Verdict::InPlaceOf(given_up) => {
                        let guest = door.guests.iter_mut().find(|guest| guest.pid == given_up);
                        guest.unwrap().leaves = true;
                    }
                    Verdict::Welcome => {}
                    Verdict::TurnedAway => continue,
                }
                let (pid, since) = (pid + door.guests.len() as u32, door.now);
                let origin = asks.origin;
                door.guests.push(Guest { pid, origin, familiar: false, silent: true, since, leaves: false });
            }
            door.now += SILENT_FOR;
        }
        assert_eq!(door.guests.len(), 2 * door.bounds.each);
    }
}
