//! Who calls, by the address; and what is said in the log of those who are turned away. Pure.

use crate::config::{Config, HostId, Pin, Target};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// What an address tells.
#[derive(Debug, PartialEq, Eq)]
pub enum Caller {
    /// It is this host's.
    Known(HostId),
    /// Only a host without an address in the table can be meant.
    Unaddressed,
    /// Nobody's.
    Stranger,
}

/// Knows whose address is whose, and who may be let in to a child.
#[derive(Debug, PartialEq, Eq)]
pub struct Callers {
    /// Whether the secure wire can serve anyone: some other host has a pin, and this one a key.
    secure: bool,
    /// Addresses that `[host.X] address` gives in place of the table's.
    instead: HashMap<IpAddr, HostId>,
}

impl Callers {
    /// For one configuration, with the pin that [`crate::supervise::anew::own_pin`] has of it.
    pub fn new(config: &Config, key: Option<Pin>) -> Callers {
        let mut instead = HashMap::new();
        for peer in &config.peers {
            if let Target::Address(address) = &peer.target {
                let ip = address.ip().to_canonical();
                if peer.host.address != Some(ip) {
                    instead.insert(ip, peer.host.id.clone());
                }
            }
        }
        Callers { secure: key.is_some(), instead }
    }

    /// Whom the address tells, if a child is to find out more; else why not.
    pub fn admit(&self, config: &Config, address: IpAddr) -> Result<Option<HostId>, &'static str> {
        match self.of(config, address) {
            Caller::Known(id) if self.secure || config.lond.classic => Ok(Some(id)),
            Caller::Unaddressed if self.secure || config.lond.classic => Ok(None),
            Caller::Stranger if self.secure => Ok(None),
            Caller::Stranger if config.lond.classic => Err("no host of the table has this address"),
            Caller::Known(_) | Caller::Unaddressed | Caller::Stranger => Err(
                "the classic wire is refused, and for the secure one this host lacks its key or every pin",
            ),
        }
    }

    /// Whose `address` is. The configuration's own word comes before the table's.
    pub fn of(&self, config: &Config, address: IpAddr) -> Caller {
        let address = address.to_canonical();
        let known =
            self.instead.get(&address).or_else(|| config.hosts.by_address(address).map(|host| &host.id));
        match known {
            Some(id) => Caller::Known(id.clone()),
            None if config.hosts.has_unaddressed() => Caller::Unaddressed,
            None => Caller::Stranger,
        }
    }
}

/// How often the same is said.
const WINDOW: Duration = Duration::from_secs(60);
/// Most lines in a window, whatever the addresses.
pub const MAX_LINES: usize = 30;

/// Keeps callers who are turned away from filling the log: at most a line a minute for each address, and
/// [`MAX_LINES`] a minute for all. What was not said is counted.
#[derive(Debug, Default)]
pub struct Hush {
    window: Option<Instant>,
    said: HashSet<IpAddr>,
    unsaid: u64,
}

impl Hush {
    /// Counts a caller; `Some` if it is to be said, with how many were not said since the last line.
    pub fn say(&mut self, address: IpAddr, now: Instant) -> Option<Unsaid> {
        if self.window.is_none_or(|begun| now.saturating_duration_since(begun) >= WINDOW) {
            self.window = Some(now);
            self.said.clear();
        }
        if self.said.len() < MAX_LINES && self.said.insert(address.to_canonical()) {
            return Some(Unsaid(std::mem::take(&mut self.unsaid)));
        }
        self.unsaid += 1;
        None
    }
}

/// How many were not said: the end of the line that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsaid(u64);

impl fmt::Display for Unsaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            unsaid => write!(f, " (and {unsaid} more since it was said last)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_strangers_is_a_few_lines_and_a_count() {
        let mut hush = Hush::default();
        let now = Instant::now();
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        assert_eq!(hush.say(address(1), now), Some(Unsaid(0)));
        for _ in 0..999 {
            assert_eq!(hush.say(address(1), now), None);
        }
        let said: Vec<u64> =
            (0..10_000).filter_map(|n| hush.say(address(n), now)).map(|unsaid| unsaid.0).collect();
        assert_eq!(said.len(), MAX_LINES - 1);
        let later = now + WINDOW;
        let unsaid = said.iter().sum::<u64>() + hush.say(address(1), later).unwrap().0;
        assert_eq!(unsaid, 999 + 10_000 - said.len() as u64, "every caller is said or counted");
        assert_eq!(hush.say(address(2), later), Some(Unsaid(0)));
        assert!(hush.said.len() <= MAX_LINES);
    }
}
