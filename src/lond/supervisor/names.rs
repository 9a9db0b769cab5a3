//! Addresses of the hosts that the table knows by name alone, for the room that is kept for them at
//! the door.
//!
//! A look-up blocks, and the supervisor has one thread. So a child of its own looks all names up,
//! says what it finds, and ends. That is done only when the door is crowded, once in [`EVERY`] at
//! most; with nobody at the door nothing runs. What was found stays until it is found again. A host
//! that had a link is known by where that came from, too.
//!
//! What is known here decides who waits at the door and who need not, and nothing else: who a
//! caller is, its key says, or its child's own look-up.

use super::door::Origin;
use super::{Lond, Machine};
use crate::access;
use crate::messages::ToServe;
use base::HostId;
use config::Config;
use net::{Interest, Token};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use supervise::control::{self, Channel};
use supervise::{spawn, title};

/// No sooner than that all names are looked up again.
pub(super) const EVERY: Duration = Duration::from_secs(60);
/// How long the child takes for all names; those that it has not found by then are left out.
const LOOK_UPS_TAKE: Duration = Duration::from_secs(30);
/// Addresses that are kept of a name; those beyond are left out.
const ADDRESSES_OF_ONE: usize = 16;

/// What the child says: these are the addresses of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Found {
    host: HostId,
    addresses: Vec<IpAddr>,
}

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
    pid: u32,
    token: Token,
    channel: Channel<ToServe, Found>,
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
        self.looking.as_ref().map(|looking| looking.pid)
    }

    fn take(&mut self, found: Found) {
        let origins: Vec<Origin> =
            found.addresses.into_iter().take(ADDRESSES_OF_ONE).map(Origin::of).collect();
        for origin in &origins {
            *self.origins.entry(*origin).or_default() += 1;
        }
        let before = self.found.insert(found.host, origins);
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
        let (ours, theirs) = control::pair()?;
        let mut channel = Channel::from_fd(ours)?;
        let token = m.tokens.fresh();
        m.poll.registry().register(&mut channel, token, Interest::READABLE | Interest::WRITABLE)?;
        let config = m.start.config.clone();
        let pid = spawn::spawn(vec![theirs.as_raw_fd()], move || look_up(&config, theirs))?;
        Ok(Looking { pid, token, channel })
    }

    /// What the child has found; whether the token is its.
    pub(super) fn hear_names(&mut self, m: &mut Machine<'_>, token: Token) -> bool {
        let Some(looking) = self.names.looking.as_mut().filter(|looking| looking.token == token) else {
            return false;
        };
        match looking.channel.receive(&mut m.scratch) {
            Ok(received) => received.messages.into_iter().for_each(|found| self.names.take(found)),
            Err(error) => log::warn!("look hosts' names up: {error}"),
        }
        true
    }

    /// A child has ended; whether it was this one.
    pub(super) fn names_ended(&mut self, m: &mut Machine<'_>, pid: u32) -> bool {
        let Some(token) = self.names.looking.as_ref().filter(|looking| looking.pid == pid).map(|l| l.token)
        else {
            return false;
        };
        self.hear_names(m, token);
        if let Some(mut looking) = self.names.looking.take()
            && let Err(error) = m.poll.registry().deregister(&mut looking.channel)
        {
            log::debug!("deregister the socket of process {pid}: {error}");
        }
        true
    }
}

/// The child: looks all names up and ends.
fn look_up(config: &Config, control: OwnedFd) -> Infallible {
    title::set("looking names up");
    let hosts: Vec<_> = config.hosts.iter().filter(|host| host.address.is_none()).collect();
    let names = hosts.iter().map(|host| host.name.clone()).collect();
    let until = Instant::now() + LOOK_UPS_TAKE;
    let found = access::look_all_up(names, access::addresses);
    let mut to = UnixStream::from(control);
    // There is nothing else to do than to be read.
    let mut said = to.set_nonblocking(false);
    while said.is_ok()
        && let Ok((at, mut addresses)) = found.recv_timeout(until.saturating_duration_since(Instant::now()))
    {
        addresses.truncate(ADDRESSES_OF_ONE);
        if let Some(host) = hosts.get(at) {
            said = say(&mut to, &Found { host: host.id.clone(), addresses });
        }
    }
    // Whoever does not read any more has ended, or began again.
    std::process::exit(0)
}

fn say(to: &mut UnixStream, found: &Found) -> io::Result<()> {
    let mut line = serde_json::to_vec(found)?;
    line.push(b'\n');
    to.write_all(&line)
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
        names.take(Found { host: host("msul1"), addresses: vec![ip("192.0.2.1"), ip("2001:db8::1")] });
        names.called(&host("msul2"), ip("::ffff:192.0.2.2"));
        for known in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::ffff", "192.0.2.2"] {
            assert!(names.know(ip(known)), "{known}");
        }
        assert!(!names.know(ip("192.0.2.3")) && !names.know(ip("2001:db8:0:1::1")));
        names.take(Found { host: host("msul1"), addresses: vec![ip("192.0.2.4")] });
        names.called(&host("msul2"), ip("192.0.2.5"));
        assert!(!names.know(ip("192.0.2.1")) && !names.know(ip("192.0.2.2")), "they moved");
        let many: Vec<IpAddr> = (0..1000_u32).map(|n| IpAddr::from(n.to_be_bytes())).collect();
        names.take(Found { host: host("msul1"), addresses: many });
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
            names.take(Found { host, addresses: vec![ip(n), ip(10 + n)] });
        }
        names.retain(&config("msul1:d:library:b.example:\nmsul2:d:library:c.example:127.0.0.2\n"));
        let known: Vec<u8> = (0..20).filter(|n| names.know(ip(*n))).collect();
        assert_eq!(known, [1, 2, 11], "by name and by its last link; by its last link");
        assert_eq!(names.last, None);
    }

    #[test]
    fn what_the_child_says_fits_a_line_of_the_control_socket() {
        let addresses = vec![IpAddr::from([0xffff_u16; 8]); ADDRESSES_OF_ONE];
        let longest = Found { host: HostId::new("a").unwrap(), addresses };
        assert!(serde_json::to_vec(&longest).unwrap().len() + 1000 < control::MAX_LINE);
    }
}
