//! Hosts whose links come from two addresses in turns, each in place of the other: most likely two
//! machines with one key. Pure.
//!
//! One change of address is a host that has moved. That it comes back to the one before within
//! [`WITHIN`] is something else: a copied disk, a machine that was replaced and still runs.

use base::HostId;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long after a change of address the next one belongs to it; so long a host stays under
/// suspicion after the last.
pub(super) const WITHIN: Duration = Duration::from_secs(600);

/// Changes of address that make a suspicion: there and back.
const CHANGES: u32 = 2;

/// Hosts that are kept in mind; beyond them, which only tables that change often can lead to, all
/// are forgotten.
const MOST_HOSTS: usize = 10_000;

#[derive(Debug)]
struct Rivalry {
    /// Of the link that was replaced last, and of the one in its place.
    places: [IpAddr; 2],
    changes: u32,
    at: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rivals(HashMap<HostId, Rivalry>);

impl Rivals {
    /// A link of `host` from the address `new` has taken the place of one from `old`; whether this
    /// is suspicious by now.
    pub(super) fn replaced(&mut self, host: &HostId, old: IpAddr, new: IpAddr, now: Instant) -> bool {
        let (old, new) = (old.to_canonical(), new.to_canonical());
        if old == new {
            return false;
        }
        if self.0.len() >= MOST_HOSTS && !self.0.contains_key(host) {
            self.0.clear();
        }
        let before = self.0.get(host).filter(|rivalry| now.saturating_duration_since(rivalry.at) < WITHIN);
        let changes = before.map_or(1, |rivalry| rivalry.changes.saturating_add(1));
        self.0.insert(host.clone(), Rivalry { places: [old, new], changes, at: now });
        changes >= CHANGES
    }

    /// From where beside `here`, where a link of it comes from, `host` calls by suspicion.
    pub(super) fn of(&self, host: &HostId, here: IpAddr, now: Instant) -> Option<IpAddr> {
        let rivalry = self.0.get(host)?;
        let suspicious = rivalry.changes >= CHANGES && now.saturating_duration_since(rivalry.at) < WITHIN;
        rivalry.places.into_iter().find(|place| suspicious && *place != here.to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_moves_is_no_rival_of_its_own_but_one_that_comes_and_goes_between_two_addresses_is() {
        let (now, mut rivals) = (Instant::now(), Rivals::default());
        let (host, other) = (HostId::new("a").unwrap(), HostId::new("b").unwrap());
        let [x, y] = [1, 2].map(|n| IpAddr::from([127, 0, 0, n]));
        assert!(
            !rivals.replaced(&host, x, x, now),
            "the same machine, back before its old link was found dead"
        );
        assert!(!rivals.replaced(&host, x, y, now));
        assert_eq!(rivals.of(&host, y, now), None);
        assert!(!rivals.replaced(&host, y, x, now + WITHIN), "it has moved back");
        let soon = now + WITHIN + Duration::from_secs(30);
        assert!(rivals.replaced(&host, x, y, soon));
        assert_eq!(rivals.of(&host, y, soon), Some(x));
        assert_eq!(rivals.of(&host, x, soon), Some(y));
        assert_eq!(rivals.of(&other, y, soon), None);
        assert_eq!(rivals.of(&host, y, soon + WITHIN), None, "one of them is gone");
    }
}
