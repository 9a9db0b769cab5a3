//! What was sent on a classic link and not yet answered, first sent first.
//!
//! The classic wire has no request ids: the n-th answer belongs to the n-th request. So an entry stays here until its
//! answer has come or the link is gone, even when nobody waits for it any more. That is how a late answer is
//! recognised and dropped instead of being given to the next request.
//!
//! `owner` and `stored` are independent: a critical request may have been stored as a precaution while its program
//! still waits, and a stored message that is replayed has no program.

use super::session::ClientId;
use crate::spool::Sequence;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Requests in flight on a link; at this mark no more are taken from the programs.
const MAX_IN_FLIGHT: usize = 4096;
/// Bytes of requests in flight, likewise; one request may go beyond it.
const MAX_BYTES: usize = 4 << 20;
/// Stored messages being replayed at once. Small: after an outage in the middle of a replay these are sent again.
const MAX_REPLAYED: usize = 64;
/// Their bytes, likewise; one message may go beyond it.
const MAX_REPLAYED_BYTES: usize = 1 << 20;
/// How long a heartbeat may take, from when everything sent before it was answered.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The program and the slot that an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The program.
    pub client: ClientId,
    /// Its slot.
    pub slot: u64,
}

/// Why something was sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A plain request.
    Plain,
    /// A critical request, kept until it is answered.
    Critical {
        /// In the form in which it is stored.
        request: Box<[u8]>,
        /// Its place in the spool, if it is there.
        stored: Option<Sequence>,
    },
    /// A heartbeat of ours.
    Probe,
}

/// Something in flight.
#[derive(Debug)]
pub struct Entry {
    /// Who waits for the answer; `None`: nobody (any more).
    pub owner: Option<Owner>,
    /// Whether it was sent enciphered, so that its answer may be.
    pub enciphered: bool,
    /// Why it was sent.
    pub purpose: Purpose,
    /// Bytes counted against the bounds.
    pub size: usize,
}

/// An entry whose time is over; it stays in flight without its owner.
#[derive(Debug, PartialEq, Eq)]
pub struct Overdue {
    /// Who waited.
    pub owner: Owner,
    /// Whether it was critical, and if so whether it is in the spool.
    pub critical: Option<bool>,
}

/// The entries of one link.
#[derive(Debug)]
pub struct Pending {
    entries: VecDeque<(Instant, Entry)>,
    /// Entries at the front that were looked at by `expire` already; all later ones have later deadlines.
    expired: usize,
    bytes: usize,
    replayed: usize,
    replayed_bytes: usize,
    probes: usize,
    timeout: Duration,
}

impl Pending {
    /// None yet; each may take `timeout`.
    pub fn new(timeout: Duration) -> Pending {
        Pending {
            entries: VecDeque::new(),
            expired: 0,
            bytes: 0,
            replayed: 0,
            replayed_bytes: 0,
            probes: 0,
            timeout,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the programs' requests must wait.
    pub fn full(&self) -> bool {
        self.entries.len() >= MAX_IN_FLIGHT || self.bytes >= MAX_BYTES
    }

    /// Whether another stored message may be replayed.
    pub fn replay_room(&self) -> bool {
        self.replayed < MAX_REPLAYED && self.replayed_bytes < MAX_REPLAYED_BYTES && !self.full()
    }

    /// Whether a heartbeat is under way.
    pub fn probing(&self) -> bool {
        self.probes > 0
    }

    /// Whether anything but heartbeats is in flight.
    pub fn any_requests(&self) -> bool {
        self.entries.len() > self.probes
    }

    /// Notes that something was sent.
    pub fn push(&mut self, entry: Entry, now: Instant) {
        self.count(&entry, true);
        let allowed = if entry.purpose == Purpose::Probe { PROBE_TIMEOUT } else { self.timeout };
        self.entries.push_back((now + allowed, entry));
    }

    /// Takes the entry that the next answer belongs to.
    pub fn answered(&mut self, now: Instant) -> Option<Entry> {
        let (_, entry) = self.entries.pop_front()?;
        self.expired = self.expired.saturating_sub(1);
        self.count(&entry, false);
        if let Some((deadline, next)) = self.entries.front_mut()
            && next.purpose == Purpose::Probe
        {
            *deadline = now + PROBE_TIMEOUT;
        }
        Some(entry)
    }

    /// Takes everything: the link is gone.
    pub fn take_all(&mut self) -> impl Iterator<Item = Entry> + use<> {
        let entries = std::mem::take(&mut self.entries);
        *self = Pending::new(self.timeout);
        entries.into_iter().map(|(_, entry)| entry)
    }

    /// Has the critical requests that are not in the spool stored, in the order in which they were sent, and notes
    /// what `store` says of each. They stay in flight and keep their owners. Returns the last place given.
    pub fn insure(&mut self, store: impl FnOnce(&[&[u8]]) -> Vec<Option<Sequence>>) -> Option<Sequence> {
        let mut requests = Vec::new();
        let mut places = Vec::new();
        for (_, entry) in &mut self.entries {
            match &mut entry.purpose {
                // One that was given up (answered `con_failed`) has no owner: nobody was told that it would arrive.
                Purpose::Critical { request, stored: stored @ None } if entry.owner.is_some() => {
                    requests.push(&**request);
                    places.push((stored, entry.size));
                }
                Purpose::Critical { .. } | Purpose::Plain | Purpose::Probe => {}
            }
        }
        if requests.is_empty() {
            return None;
        }
        let mut last = None;
        for (result, (stored, size)) in store(&requests).into_iter().zip(places) {
            if result.is_some() {
                *stored = result;
                last = result;
                self.replayed += 1;
                self.replayed_bytes += size;
            }
        }
        last
    }

    /// Whether a critical request's time is over while it is not in the spool.
    pub fn unstored_overdue(&self, now: Instant) -> bool {
        self.entries.range(self.expired..).take_while(|(deadline, _)| *deadline <= now).any(|(_, entry)| {
            entry.owner.is_some() && matches!(entry.purpose, Purpose::Critical { stored: None, .. })
        })
    }

    /// The entries whose time is over since the last call, for their owners to be told.
    pub fn expire(&mut self, now: Instant) -> Vec<Overdue> {
        let mut overdue = Vec::new();
        while let Some((deadline, entry)) = self.entries.get_mut(self.expired) {
            if entry.purpose != Purpose::Probe && *deadline > now {
                break;
            }
            if let Some(owner) = entry.owner.take() {
                let critical = match &entry.purpose {
                    Purpose::Critical { stored, .. } => Some(stored.is_some()),
                    Purpose::Plain | Purpose::Probe => None,
                };
                overdue.push(Overdue { owner, critical });
            }
            self.expired += 1;
        }
        overdue
    }

    /// When [`Pending::expire`] will find something.
    pub fn next_overdue(&self) -> Option<Instant> {
        let waits =
            |(deadline, entry): &(Instant, Entry)| (entry.purpose != Purpose::Probe).then_some(*deadline);
        self.entries.range(self.expired..).find_map(waits)
    }

    /// When the link is to be given up, unless an answer comes: a heartbeat's time is over, or the peer has been
    /// silent for another `request_timeout` after the first request in flight became overdue.
    pub fn dead_at(&self, last_heard: Instant) -> Option<Instant> {
        let (deadline, entry) = self.entries.front()?;
        Some(match entry.purpose {
            Purpose::Probe => *deadline,
            // A heartbeat waits behind a request: that it is still unanswered when its time is over says enough.
            Purpose::Plain | Purpose::Critical { .. } if self.probes > 0 => *deadline,
            Purpose::Plain | Purpose::Critical { .. } => (*deadline).max(last_heard) + self.timeout,
        })
    }

    fn count(&mut self, entry: &Entry, added: bool) {
        let change = |counter: &mut usize, by: usize| {
            *counter = if added { *counter + by } else { counter.saturating_sub(by) };
        };
        change(&mut self.bytes, entry.size);
        match entry.purpose {
            Purpose::Critical { stored: Some(_), .. } => {
                change(&mut self.replayed, 1);
                change(&mut self.replayed_bytes, entry.size);
            }
            Purpose::Critical { stored: None, .. } | Purpose::Plain => {}
            Purpose::Probe => change(&mut self.probes, 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lonc::session::Sessions;

    const TIMEOUT: Duration = Duration::from_secs(300);

    fn entry(purpose: Purpose, owner: Option<Owner>) -> Entry {
        Entry { owner, enciphered: false, purpose, size: 10 }
    }

    fn owner(slot: u64) -> Option<Owner> {
        Some(Owner { client: Sessions::new(1).add(), slot })
    }

    #[test]
    fn an_overdue_entry_loses_its_owner_but_keeps_its_place() {
        let start = Instant::now();
        let mut pending = Pending::new(TIMEOUT);
        pending.push(entry(Purpose::Plain, owner(0)), start);
        pending.push(entry(Purpose::Plain, owner(1)), start + Duration::from_secs(1));
        assert_eq!(pending.next_overdue(), Some(start + TIMEOUT));
        assert!(pending.expire(start + TIMEOUT - Duration::from_millis(1)).is_empty());
        let overdue = pending.expire(start + TIMEOUT);
        assert_eq!(overdue.len(), 1);
        assert_eq!(overdue[0].owner.slot, 0);
        assert!(pending.expire(start + TIMEOUT).is_empty());
        assert_eq!(pending.answered(start + TIMEOUT).unwrap().owner, None);
        assert_eq!(pending.next_overdue(), Some(start + TIMEOUT + Duration::from_secs(1)));
        assert_eq!(pending.answered(start + TIMEOUT).unwrap().owner.unwrap().slot, 1);
        assert!(pending.answered(start + TIMEOUT).is_none());
    }

    #[test]
    fn a_heartbeat_s_time_runs_from_when_all_before_it_was_answered() {
        let start = Instant::now();
        let later = start + Duration::from_secs(60);
        let mut pending = Pending::new(TIMEOUT);
        pending.push(entry(Purpose::Plain, owner(0)), start);
        pending.push(entry(Purpose::Probe, None), start);
        assert_eq!(pending.dead_at(start), Some(start + TIMEOUT));
        pending.answered(later);
        assert_eq!(pending.dead_at(later), Some(later + PROBE_TIMEOUT));
        assert_eq!(pending.next_overdue(), None);
        pending.answered(later);
        assert_eq!(pending.dead_at(later), None);
        assert!(!pending.probing());
    }

    #[test]
    fn a_silent_peer_is_given_up_one_timeout_after_the_first_overdue_request() {
        let start = Instant::now();
        let mut pending = Pending::new(TIMEOUT);
        pending.push(entry(Purpose::Plain, owner(0)), start);
        assert_eq!(pending.dead_at(start), Some(start + TIMEOUT * 2));
        let heard = start + TIMEOUT + Duration::from_secs(7);
        assert_eq!(pending.dead_at(heard), Some(heard + TIMEOUT));
    }

    #[test]
    fn an_overdue_critical_request_says_whether_it_is_stored_and_the_others_are_offered_for_storing() {
        let start = Instant::now();
        let mut pending = Pending::new(TIMEOUT);
        let critical = |text: &[u8]| Purpose::Critical { request: text.into(), stored: None };
        pending.push(entry(critical(b"a"), owner(0)), start);
        pending.push(entry(Purpose::Plain, owner(1)), start);
        pending.push(entry(critical(b"b"), owner(2)), start + Duration::from_secs(9));
        assert!(!pending.unstored_overdue(start));
        assert!(pending.unstored_overdue(start + TIMEOUT));
        let last = pending.insure(|requests| {
            assert_eq!(requests, [b"a", b"b"]);
            vec![Some(Sequence(7)), Some(Sequence(8))]
        });
        assert_eq!(last, Some(Sequence(8)));
        assert_eq!(pending.insure(|_| unreachable!("all are stored")), None);
        let overdue: Vec<_> = pending.expire(start + TIMEOUT).iter().map(|one| one.critical).collect();
        assert_eq!(overdue, [Some(true), None]);
    }

    #[test]
    fn the_bounds_hold_and_are_given_back() {
        let now = Instant::now();
        let mut pending = Pending::new(TIMEOUT);
        while !pending.full() {
            pending.push(entry(Purpose::Plain, None), now);
        }
        assert_eq!(pending.len(), MAX_IN_FLIGHT);
        pending.answered(now);
        assert!(!pending.full());
        assert_eq!(pending.take_all().count(), MAX_IN_FLIGHT - 1);
        let mut replayed = 0;
        while pending.replay_room() {
            let stored = Some(Sequence(replayed));
            pending.push(entry(Purpose::Critical { request: Box::default(), stored }, None), now);
            replayed += 1;
        }
        assert_eq!(replayed as usize, MAX_REPLAYED);
        pending.answered(now);
        assert!(pending.replay_room());
    }
}
