//! What a seed stands for: the network, its load, and the faults that come over it.

use crate::ledger::HANDLERS;
use crate::net::Time;
use crate::sabotage::Sabotage;

pub const SECOND: Time = 1_000_000;
pub const MILLI: Time = 1_000;

/// When the last fault ends.
pub const FAULTS_END: Time = 30 * SECOND;
/// How long after that every link is up, every request answered and every spool empty: the longest
/// pause before a redial (60 s), the time in which a silent link is found (twice `request_timeout`
/// on the classic wire, 16 s), connecting and opening (5 s each), the drain timeout and the
/// [`PATIENCE`] with a record (2 s + 5 s), and 17 s to carry out what waited.
pub const SETTLED_WITHIN: Time = 110 * SECOND;

pub const REQUEST_TIMEOUT: Time = 8 * SECOND;
pub const CONNECT_TIMEOUT: Time = 5 * SECOND;
pub const OPENING_TIMEOUT: Time = 5 * SECOND;
pub const DRAIN_TIMEOUT: Time = 2 * SECOND;
pub const HEARTBEAT: Time = 2 * SECOND;
pub const HEARTBEAT_MISSED: u32 = 2;
/// How long a link goes on while what it is asked cannot be recorded.
pub const PATIENCE: Time = DRAIN_TIMEOUT + 5 * SECOND;
pub const MAX_LINE: usize = 40_000;
/// Messages that may wait in a spool, unless it is a small one.
pub const SPOOL_MESSAGES: u64 = 1000;

/// A fault, when its time comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// `kill -9` of a link's process; `Some`: at its nth disk operation from now.
    KillLink(usize, Option<u32>),
    /// The same of one of the host's serving children.
    KillChild(usize, Option<u32>),
    /// A link's process is told to end, and started anew.
    DrainLink(usize),
    /// The host's serving children are told to end.
    DrainChildren(usize),
    /// Nobody listens on that host for so long.
    ListenerDown(usize, Time),
    MachineDies(usize),
    /// The nth disk operation from now fails, so.
    DiskFails(usize, usize, i32),
    /// The machine dies at the nth disk operation from now, in the middle of it, as far as it can.
    DiskDies(usize, usize, usize),
    /// Everything that changes the disk fails for so long.
    DiskSick(usize, Time, i32),
    /// No space is left for so long.
    DiskFull(usize, Time),
    /// Nothing passes from the one to the other for so long.
    Partition(usize, usize, Time),
    /// A connection of the host breaks or, `true`, swallows what it is given.
    Cut(usize, bool),
    Probe(usize),
    /// HUP of `lonc`: its children are replaced, and the programs pass from child to child.
    Hup(usize),
    /// A reload replaces one child; `true`: the link speaks the other wire from then on.
    Reload(usize, bool),
    /// `kill -9` of `lonc`'s supervisor.
    KillSupervisor(usize),
    /// The program behind the host's handler dies with all that it was given.
    HandlerDies(usize),
    /// It is away for so long: the host, which of its handlers.
    HandlerAway(usize, usize, Time),
    /// A link's process is killed, and an operator removes its spool before the next begins.
    WipeSpool(usize),
    /// An operator removes what the host has recorded of its callers' messages.
    WipeRecord(usize),
    /// For so long whoever is at one end of this link's connections is not who the other end
    /// thinks; `true`: the called end.
    Mistaken(usize, bool, Time),
}

/// How much goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Nothing at all: then nothing may be lost, late or refused.
    Calm,
    /// Restarts and reloads in order, under load: then nothing may be lost or refused either on the
    /// secure wire.
    Gentle,
    /// Anything.
    Rough,
}

#[derive(Debug)]
pub struct Scenario {
    pub hosts: usize,
    /// Caller, called, secure.
    pub links: Vec<(usize, usize, bool)>,
    pub programs_per_link: usize,
    /// What a program's socket takes of answers that it has not read.
    pub socket: usize,
    pub messages_per_program: usize,
    pub critical_percent: u32,
    pub key_percent: u32,
    pub encrypt_percent: u32,
    pub odd_percent: u32,
    /// Files that are dropped into the delayed directory for each link.
    pub files_per_link: usize,
    pub weather: Weather,
    pub troubles: Vec<(Time, Trouble)>,
    pub delay: (Time, Time),
    pub capacity: usize,
    /// Percent of connections that break after some bytes, and that swallow them.
    pub breaking_percent: u32,
    pub swallowing_percent: u32,
    pub handler_delay: (Time, Time),
    pub slow_percent: u32,
    /// Requests that a handler is given ahead of its answers.
    pub handler_depth: usize,
    /// Connections that a child has to a handler for what needs no order: requests that it runs at
    /// a time.
    pub handler_places: usize,
    pub long_percent: u32,
    /// Of the short requests so many have long answers.
    pub long_answers_percent: u32,
    pub spool_messages: u64,
    /// Users whose programs there are. Files are of the first.
    pub users: usize,
    pub segment_bytes: u64,
    pub record_step: u64,
}

impl Weather {
    fn of(random: &mut fastrand::Rng) -> Weather {
        match random.u32(..10) {
            0 => Weather::Calm,
            1 | 2 => Weather::Gentle,
            _ => Weather::Rough,
        }
    }
}

impl Scenario {
    /// Answers that a child of `lond` may have written and not synced.
    pub fn unsynced(&self) -> usize {
        1 + self.record_step as usize % 5
    }

    /// Critical messages of one link that a handler may have at once: the first of them is a line
    /// handler, the other a tagged one that begins them in their order and answers them in any.
    pub fn windows(&self) -> [usize; HANDLERS.len()] {
        [1, [1, 1, 2, 3, 8][self.record_step as usize / 5 % 5]]
    }

    pub fn of(random: &mut fastrand::Rng, sabotage: Sabotage) -> Scenario {
        let weather = Weather::of(random);
        let rough = weather == Weather::Rough;
        let hosts = if random.u32(..10) < 7 { 2 } else { 3 };
        let links = Self::links(random, hosts, sabotage);
        let troubles = Self::troubles(random, weather, hosts, &links, sabotage);
        let long_percent = match random.u32(..20) {
            0..=3 => 6,
            4 if weather != Weather::Gentle => 60,
            _ => 0,
        };
        let slow = rough && (random.u32(..10) < 3 || sabotage == Sabotage::WithdrawnKept);
        let base = random.u64(1..=40) * MILLI;
        Scenario {
            hosts,
            programs_per_link: random.usize(1..=3),
            socket: match random.u32(..3) {
                0 if long_percent == 0 => 20,
                _ => 400,
            },
            messages_per_program: random.usize(3..=18),
            critical_percent: random.u32(40..=90),
            key_percent: if random.bool() { 25 } else { 0 },
            encrypt_percent: if random.bool() { 20 } else { 0 },
            odd_percent: if random.bool() { 20 } else { 0 },
            files_per_link: if random.u32(..4) == 0 { random.usize(1..8) } else { 0 },
            weather,
            troubles,
            delay: (50, base),
            capacity: match random.u32(..4) {
                0 if rough && long_percent < 10 => random.usize(100..4000),
                // More than a window.
                1 if long_percent > 0 => 4 * 65_536,
                _ => 65_536,
            },
            breaking_percent: if rough { random.u32(..4) * 15 } else { 0 },
            swallowing_percent: if rough { random.u32(..3) * 8 } else { 0 },
            handler_delay: match weather {
                Weather::Gentle => (100, 5 * MILLI),
                Weather::Calm | Weather::Rough => (100, random.u64(1..=100) * MILLI),
            },
            slow_percent: match slow {
                true if sabotage == Sabotage::WithdrawnKept => 40,
                true => random.u32(..30),
                false => 0,
            },
            handler_depth: random.usize(1..=4),
            handler_places: match random.usize(1..=4) {
                // What waits is what may be withdrawn.
                _ if sabotage == Sabotage::WithdrawnKept => 1,
                places => places,
            },
            long_percent,
            long_answers_percent: if long_percent > 0 { random.u32(..60) } else { 0 },
            spool_messages: if rough && random.u32(..8) == 0 { random.u64(3..10) } else { SPOOL_MESSAGES },
            users: 1 + usize::from(sabotage != Sabotage::UsersUntold && random.u32(..4) == 0),
            segment_bytes: random.u64(4096..16384),
            record_step: random.u64(200..4000),
            links,
        }
    }

    /// One at least.
    fn links(random: &mut fastrand::Rng, hosts: usize, sabotage: Sabotage) -> Vec<(usize, usize, bool)> {
        let mut links = Vec::new();
        let secure_percent = if sabotage == Sabotage::AnswerTwice { 0 } else { 75 };
        for caller in 0..hosts {
            for called in 0..hosts {
                if caller != called && (links.is_empty() || random.u32(..10) < 4) {
                    links.push((caller, called, random.u32(..100) < secure_percent));
                }
            }
        }
        links
    }

    /// Those of the weather, and those without which the sabotage could not show.
    fn troubles(
        random: &mut fastrand::Rng,
        weather: Weather,
        hosts: usize,
        links: &[(usize, usize, bool)],
        sabotage: Sabotage,
    ) -> Vec<(Time, Trouble)> {
        let count = match weather {
            Weather::Calm => 0,
            Weather::Gentle => random.usize(1..7),
            Weather::Rough => random.usize(1..12),
        };
        let mut troubles: Vec<(Time, Trouble)> = Vec::new();
        let mut gentle_at = 0;
        for _ in 0..count {
            // What happens in order has time to: one thing after the other.
            gentle_at += random.u64(3 * SECOND / 2..4 * SECOND);
            let at = match weather {
                Weather::Rough => random.u64(..FAULTS_END * 9 / 10),
                Weather::Calm | Weather::Gentle => gentle_at.min(FAULTS_END),
            };
            let trouble = match weather {
                Weather::Rough => Self::trouble(random, hosts, links.len()),
                Weather::Calm | Weather::Gentle => Self::gentle_trouble(random, hosts, links.len()),
            };
            troubles.push((at, trouble));
        }
        if sabotage == Sabotage::FailedSyncSwallowed {
            // A sync must fail while something is stored, and the machine die before it is sent.
            let at = random.u64(2 * SECOND..8 * SECOND);
            troubles.push((SECOND, Trouble::ListenerDown(links[0].1, 20 * SECOND)));
            troubles.push((at, Trouble::DiskSick(links[0].0, SECOND, libc::EIO)));
            troubles.push((at + SECOND + SECOND / 10, Trouble::MachineDies(links[0].0)));
        }
        if sabotage == Sabotage::PatienceWithoutEnd {
            // Messages come while there is no room for long enough.
            troubles.push((SECOND, Trouble::DiskFull(links[0].1, 12 * SECOND)));
        }
        troubles
    }

    /// Whether every message that waits or is answered stays known: no process dies in the middle
    /// of something, and no disk fails.
    pub fn keeps_all(&self) -> bool {
        self.troubles.iter().all(|(_, trouble)| match trouble {
            Trouble::KillLink(_, fuse) => fuse.is_none(),
            Trouble::MachineDies(_)
            | Trouble::DiskFails(..)
            | Trouble::DiskDies(..)
            | Trouble::DiskSick(..)
            | Trouble::DiskFull(..)
            | Trouble::WipeSpool(_)
            | Trouble::WipeRecord(_) => false,
            Trouble::KillChild(..)
            | Trouble::DrainLink(_)
            | Trouble::DrainChildren(_)
            | Trouble::ListenerDown(..)
            | Trouble::Partition(..)
            | Trouble::Cut(..)
            | Trouble::Probe(_)
            | Trouble::Hup(_)
            | Trouble::Reload(..)
            | Trouble::KillSupervisor(_)
            | Trouble::HandlerDies(_)
            | Trouble::HandlerAway(..)
            | Trouble::Mistaken(..) => true,
        })
    }

    fn gentle_trouble(random: &mut fastrand::Rng, hosts: usize, links: usize) -> Trouble {
        let (host, link) = (random.usize(..hosts), random.usize(..links));
        match random.u32(..8) {
            0..=2 => Trouble::Hup(host),
            3..=4 => Trouble::DrainChildren(host),
            5 | 6 => Trouble::Reload(link, false),
            _ => Trouble::Probe(link),
        }
    }

    fn trouble(random: &mut fastrand::Rng, hosts: usize, links: usize) -> Trouble {
        let host = random.usize(..hosts);
        let link = random.usize(..links);
        let errno = *random.choice(&[libc::EIO, libc::ENOSPC]).unwrap_or(&libc::EIO);
        let time = random.u64(SECOND / 10..8 * SECOND);
        let fuse = random.bool().then(|| random.u32(..8));
        match random.u32(..31) {
            0 | 1 => Trouble::KillLink(link, fuse),
            2..=4 => Trouble::KillChild(host, fuse),
            5 => Trouble::DrainLink(link),
            6 => Trouble::DrainChildren(host),
            7 => Trouble::ListenerDown(host, time),
            8 => Trouble::MachineDies(host),
            9 => Trouble::DiskFails(host, random.usize(..12), errno),
            10 => Trouble::DiskDies(host, random.usize(..12), random.usize(..700)),
            11 => Trouble::DiskSick(host, time, errno),
            // Longer than the patience with it, some of them.
            12 => Trouble::DiskFull(host, 2 * time),
            13 | 14 => Trouble::Partition(host, (host + random.usize(1..hosts)) % hosts, time),
            15 | 16 => Trouble::Cut(host, random.u32(..3) == 0),
            17..=19 => Trouble::Hup(host),
            20 => Trouble::Reload(link, random.u32(..4) == 0),
            21 | 22 => Trouble::KillSupervisor(host),
            23 | 24 => Trouble::HandlerDies(host),
            25 => Trouble::WipeSpool(link),
            26 if random.bool() => Trouble::WipeRecord(host),
            28..=30 => {
                let away = random.u64(SECOND / 10..20 * SECOND);
                Trouble::HandlerAway(host, random.usize(..HANDLERS.len()), away)
            }
            27 => Trouble::Mistaken(link, random.bool(), time),
            _ => Trouble::Probe(link),
        }
    }
}
