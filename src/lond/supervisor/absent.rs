//! Addresses that are to be listened on and cannot be, for now: which, why, and when each is tried
//! again. Pure.
//!
//! An address may come later than the program (an interface that is not up yet, a tunnel, a port
//! that another program still has), so it is tried again for ever, after pauses from
//! [`FIRST_PAUSE`] that double to [`LONGEST_PAUSE`]. It is said once why; another reason is said
//! again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Pause before an address is tried for the second time.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause between two tries.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Absent {
    /// Bounded by what the configuration names.
    addresses: Vec<Missing>,
    next: Option<Instant>,
    pause: Duration,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    /// As the configuration has it.
    pub address: SocketAddr,
    /// What the system said last.
    pub why: String,
}

impl Absent {
    /// An address could not be listened on; whether that is news.
    pub(super) fn note(&mut self, address: SocketAddr, why: String, now: Instant) -> bool {
        if self.next.is_none() {
            self.pause = FIRST_PAUSE;
            self.next = Some(now + self.pause);
        }
        match self.addresses.iter_mut().find(|missing| missing.address == address) {
            Some(missing) => std::mem::replace(&mut missing.why, why.clone()) != why,
            None => {
                self.addresses.push(Missing { address, why });
                true
            }
        }
    }

    /// What is to be tried now; the next pause begins.
    pub(super) fn due(&mut self, now: Instant) -> Vec<SocketAddr> {
        if self.next.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.next = Some(now + self.pause);
        self.addresses.iter().map(|missing| missing.address).collect()
    }

    /// Keeps those that `stays` says are still missing.
    pub(super) fn retain(&mut self, stays: impl Fn(SocketAddr) -> bool) {
        self.addresses.retain(|missing| stays(missing.address));
        if self.addresses.is_empty() {
            self.next = None;
        }
    }

    /// When [`Absent::due`] has something.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Missing> {
        self.addresses.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_tried_again_after_growing_pauses_for_ever_and_said_once() {
        let address = |n: u8| SocketAddr::from(([192, 0, 2, n], 5663));
        let (mut now, mut absent) = (Instant::now(), Absent::default());
        assert_eq!(absent.deadline(), None);
        assert!(absent.note(address(1), "not there".to_owned(), now));
        assert!(absent.note(address(2), "taken".to_owned(), now));
        assert!(absent.due(now).is_empty());
        let mut pauses = Vec::new();
        for _ in 0..20 {
            let next = absent.deadline().unwrap();
            pauses.push(next - now);
            now = next;
            assert_eq!(absent.due(now), [address(1), address(2)]);
            assert!(!absent.note(address(1), "not there".to_owned(), now), "no news");
        }
        assert!(pauses.is_sorted() && pauses[0] == FIRST_PAUSE && pauses[19] == LONGEST_PAUSE, "{pauses:?}");
        assert!(absent.note(address(1), "taken".to_owned(), now), "another reason");
        absent.retain(|address| address.ip() != std::net::IpAddr::from([192, 0, 2, 1]));
        assert_eq!(absent.iter().map(|missing| missing.address).collect::<Vec<_>>(), [address(2)]);
        absent.retain(|_| false);
        assert_eq!(absent.deadline(), None, "then nothing wakes");
        absent.note(address(3), "not there".to_owned(), now);
        assert_eq!(absent.deadline(), Some(now + FIRST_PAUSE), "the pauses begin anew");
    }
}
