//! Addresses of the hosts that the table knows by name alone, for the room that is kept for them at
//! the door.
//!
//! They are looked up by a process of its own ([`supervise::look_up`]), all together. That is done
//! only when the door is crowded, once in [`EVERY`] at most; with nobody at the door nothing runs.
//! What was found stays until it is found again. A host that had a link is known by where that came
//! from, too.
//!
//! What is known here decides who waits at the door and who need not, and nothing else: who a
//! caller is, its key says, or its child's own look-up.

use super::door::Origin;
use super::{Lond, Machine};
use base::HostId;
use config::Config;
use net::Token;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use supervise::look_up::LookUp;

/// No sooner than that all names are looked up again.
pub(super) const EVERY: Duration = Duration::from_secs(60);
/// How long the child takes for all names; those that it has not found by then are left out.
const LOOK_UPS_TAKE: Duration = Duration::from_secs(30);
/// Addresses that are kept of a name; those beyond are left out.
const ADDRESSES_OF_ONE: usize = 16;

/// What is known of hosts' addresses beside the table. Bounded by the table: one origin for each
/// host that had a link, and [`ADDRESSES_OF_ONE`] for each that is known by name.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Where the last link of each host came from.
    called_from: HashMap<HostId, Origin>,
    found: HashMap<HostId, Vec<Origin>>,
    /// How often each origin is in the two: a crowd at the door asks often.
    origins: HashMap<Origin, usize>,
    looking: Option<Looking>,
    /// When the last look-ups began.
    last: Option<Instant>,
}

#[derive(Debug)]
struct Looking {
    process: LookUp,
    /// Whose names were asked for, in their order.
    hosts: Vec<HostId>,
}

impl Names {
    /// Whether a host may be meant by this address, as far as is known beside the table.
    pub(super) fn know(&self, address: IpAddr) -> bool {
        self.origins.contains_key(&Origin::of(address))
    }

    /// A host has a link from this address.
    pub(super) fn called(&mut self, host: &HostId, from: IpAddr) {
        let origin = Origin::of(from);
        *self.origins.entry(origin).or_default() += 1;
        let before = self.called_from.insert(host.clone(), origin);
        self.forget(before);
    }

    /// Another configuration: hosts that are gone are forgotten, and names may be looked up at
    /// once.
    pub(super) fn retain(&mut self, config: &Config) {
        let called = self.called_from.extract_if(|host, _| config.hosts.get(host).is_none());
        let called: Vec<Origin> = called.map(|(_, origin)| origin).collect();
        let by_name = |host: &HostId| config.hosts.get(host).is_some_and(|host| host.address.is_none());
        let found = self.found.extract_if(|host, _| !by_name(host));
        let found: Vec<Origin> = found.flat_map(|(_, origins)| origins).collect();
        self.forget(called.into_iter().chain(found));
        self.last = None;
    }

    fn forget(&mut self, origins: impl IntoIterator<Item = Origin>) {
        for origin in origins {
            if let Entry::Occupied(mut count) = self.origins.entry(origin) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }

    /// The child that looks names up, while there is one.
    pub(super) fn pid(&self) -> Option<u32> {
        self.looking.as_ref().map(|looking| looking.process.pid())
    }

    fn take(&mut self, host: HostId, addresses: impl IntoIterator<Item = IpAddr>) {
        let origins: Vec<Origin> = addresses.into_iter().take(ADDRESSES_OF_ONE).map(Origin::of).collect();
        for origin in &origins {
            *self.origins.entry(*origin).or_default() += 1;
        }
        let before = self.found.insert(host, origins);
        self.forget(before.into_iter().flatten());
    }
}

impl Lond {
    /// The door is crowded: has the names of hosts looked up, if there are any and it was not done
    /// a moment ago.
    pub(super) fn look_names_up(&mut self, m: &mut Machine<'_>, now: Instant) {
        let due = self.names.last.is_none_or(|last| now.saturating_duration_since(last) >= EVERY);
        if !due || self.names.looking.is_some() || !m.start.config.hosts.has_unaddressed() {
            return;
        }
        self.names.last = Some(now);
        match self.fork_looking(m) {
            Ok(looking) => self.names.looking = Some(looking),
            Err(error) => log::warn!("look hosts' names up: {error}; they wait at the door like strangers"),
        }
    }

    fn fork_looking(&mut self, m: &mut Machine<'_>) -> io::Result<Looking> {
        let hosts = m.start.config.hosts.iter().filter(|host| host.address.is_none());
        let (hosts, names) = hosts.map(|host| (host.id.clone(), host.name.clone())).unzip();
        let token = m.tokens.fresh();
        let process = LookUp::begin(names, LOOK_UPS_TAKE, m.start.config.sandbox, m.poll.registry(), token)?;
        Ok(Looking { process, hosts })
    }

    /// What the process has found; whether the token is its.
    pub(super) fn hear_names(&mut self, m: &mut Machine<'_>, token: Token) -> bool {
        let Some(looking) = self.names.looking.as_mut().filter(|it| it.process.token() == token) else {
            return false;
        };
        match looking.process.hear(&mut m.scratch) {
            Ok(found) => {
                let found = found.into_iter().filter_map(|found| {
                    // Of a name that could not be looked up nothing is known.
                    Some((looking.hosts.get(found.name)?.clone(), found.answer.unwrap_or_default()))
                });
                for (host, addresses) in found.collect::<Vec<_>>() {
                    self.names.take(host, addresses.iter().map(SocketAddr::ip));
                }
            }
            Err(error) => log::warn!("look hosts' names up: {error}"),
        }
        true
    }

    /// A child has ended; whether it was this one.
    pub(super) fn names_ended(&mut self, m: &mut Machine<'_>, pid: u32) -> bool {
        let looking = self.names.looking.as_ref().filter(|looking| looking.process.pid() == pid);
        let Some(token) = looking.map(|looking| looking.process.token()) else { return false };
        self.hear_names(m, token);
        if let Some(looking) = self.names.looking.take() {
            looking.process.close(m.poll.registry());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_known_by_its_name_or_by_the_last_link_from_there() {
        let host = |id: &str| HostId::new(id).unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut names = Names::default();
        assert!(!names.know(ip("192.0.2.1")));
        names.take(host("msul1"), [ip("192.0.2.1"), ip("2001:db8::1")]);
        names.called(&host("msul2"), ip("::ffff:192.0.2.2"));
        for known in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::ffff", "192.0.2.2"] {
            assert!(names.know(ip(known)), "{known}");
        }
        assert!(!names.know(ip("192.0.2.3")) && !names.know(ip("2001:db8:0:1::1")));
        names.take(host("msul1"), [ip("192.0.2.4")]);
        names.called(&host("msul2"), ip("192.0.2.5"));
        assert!(!names.know(ip("192.0.2.1")) && !names.know(ip("192.0.2.2")), "they moved");
        let many: Vec<IpAddr> = (0..1000_u32).map(|n| IpAddr::from(n.to_be_bytes())).collect();
        names.take(host("msul1"), many);
        assert_eq!(names.found[&host("msul1")].len(), ADDRESSES_OF_ONE);
    }

    #[test]
    fn after_a_reload_hosts_that_are_gone_or_have_an_address_are_forgotten_and_names_looked_up_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let config = |table: &str| {
            std::fs::write(dir.path().join("lonnet.toml"), "id = \"msua1\"\n").unwrap();
            std::fs::write(
                dir.path().join("hosts.tab"),
                format!("msua1:d:access:a.example:127.0.0.1\n{table}"),
            )
            .unwrap();
            Config::load(&dir.path().join("lonnet.toml")).unwrap()
        };
        let ip = |n: u8| IpAddr::from([192, 0, 2, n]);
        let mut names = Names { last: Some(Instant::now()), ..Names::default() };
        for n in 1..=3 {
            let host = HostId::new(&format!("msul{n}")).unwrap();
            names.called(&host, ip(n));
            names.take(host, [ip(n), ip(10 + n)]);
        }
        names.retain(&config("msul1:d:library:b.example:\nmsul2:d:library:c.example:127.0.0.2\n"));
        let known: Vec<u8> = (0..20).filter(|n| names.know(ip(*n))).collect();
        assert_eq!(known, [1, 2, 11], "by name and by its last link; by its last link");
        assert_eq!(names.last, None);
    }
}
