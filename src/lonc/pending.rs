//! What was sent on a link and not yet answered, first sent first.
//!
//! Every request gets a number, from 1 upwards on each link. The secure wire carries it; on the
//! classic wire, which has none, the n-th answer belongs to the n-th request. So there an entry
//! stays until its answer has come or the link is gone, even when nobody waits for it any more:
//! that is how a late answer is recognised and dropped instead of being given to the next request.
//! On the secure wire an overdue plain request leaves at once, and its number says later whose
//! answer came too late.
//!
//! `owner` and `stored` are independent: a critical request may have been stored as a precaution
//! while its program still waits, and a stored message that is replayed has no program.

use super::session::ClientId;
use base::{Numbered, Sequence, WireKind};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use store::spool::NewMessage;

/// Requests in flight on a link; at this mark no more are taken from the programs.
pub(crate) const MAX_IN_FLIGHT: usize = 4096;
/// Bytes of requests in flight, likewise; one request may go beyond it.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// Stored messages being replayed at once. Small on the classic wire: after an outage in the middle
/// of a replay these are sent again.
const MAX_REPLAYED: usize = 64;
/// The same where the peer knows a repeat when it sees one.
const MAX_REPLAYED_ONCE: usize = 1024;
/// Their bytes, likewise; one message may go beyond it.
const MAX_REPLAYED_BYTES: usize = 1 << 20;
/// How long a heartbeat may take on the classic wire, from when everything sent before it was
/// answered.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The program and the slot that an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The program that asked.
    pub client: ClientId,
    /// The place of its request among its own.
    pub slot: u64,
    /// The user whose program it is; `None`: the system did not say.
    pub user: Option<u32>,
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
        /// Its number for ever, if it has one already.
        sequence: Option<Sequence>,
        /// Whether it is in the spool; then it has a sequence.
        stored: bool,
        /// It is not to be stored any more: its user had no room for it when that was tried, and
        /// newer ones of others may have been stored since.
        passed: bool,
    },
    /// A heartbeat of ours on the classic wire.
    Probe,
}

/// Something in flight.
#[derive(Debug)]
pub struct Entry {
    /// Who waits for the answer; `None`: nobody (any more).
    pub owner: Option<Owner>,
    /// Why it was sent.
    pub purpose: Purpose,
    /// Bytes counted against the bounds.
    pub size: usize,
}

impl Entry {
    fn wants_storing(&self) -> bool {
        let unstored = matches!(self.purpose, Purpose::Critical { stored: false, passed: false, .. });
        unstored && self.owner.is_some()
    }
}

/// An entry whose time is over.
#[derive(Debug, PartialEq, Eq)]
pub struct Overdue {
    /// Who is to be told that no answer came in time.
    pub owner: Owner,
    /// Whether it was critical, and if so whether it is in the spool.
    pub critical: Option<bool>,
    /// The number that was cancelled, if it is in flight no more.
    pub cancelled: Option<u64>,
}

/// What became of the attempt to store something that is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insured {
    /// It is in the spool, in this place.
    Stored(Sequence),
    /// Its user has too much there. Others go past it.
    Over,
    /// It is not, and nothing newer may be.
    Failed,
}

/// What a numbered answer is the answer to.
#[derive(Debug)]
pub enum Found {
    /// To this one, which is in flight no more.
    Entry(Entry),
    /// To one that was given up: dropped.
    Late,
    /// To a number that was never given.
    Unknown,
}

/// The entries of one link.
#[derive(Debug)]
pub struct Pending {
    /// By their numbers. One that is answered late leaves no gap behind it that would count towards
    /// a bound.
    entries: Numbered<(Instant, Entry)>,
    /// The number that is given next.
    next: u64,
    /// Entries with lower numbers were looked at by `expire` already; all later ones have later
    /// deadlines.
    expired: u64,
    bytes: usize,
    replayed: usize,
    replayed_bytes: usize,
    probes: usize,
    users: Users,
    /// Sequences in flight that are not in the spool.
    unstored: BTreeSet<Sequence>,
    timeout: Duration,
    wire: WireKind,
}

impl Pending {
    /// None yet; each may take `timeout`.
    pub fn new(timeout: Duration, wire: WireKind) -> Pending {
        Pending {
            entries: Numbered::default(),
            next: 1,
            expired: 1,
            bytes: 0,
            replayed: 0,
            replayed_bytes: 0,
            probes: 0,
            users: Users::default(),
            unstored: BTreeSet::new(),
            timeout,
            wire,
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

    /// Whether another stored message may be replayed: of them so many, and so many of their bytes,
    /// may be in flight, if there is room.
    pub fn replay_room(&self, (messages, bytes): (usize, usize)) -> bool {
        let most = match self.wire {
            WireKind::Classic => MAX_REPLAYED,
            WireKind::Secure => MAX_REPLAYED_ONCE,
        };
        let bytes = bytes.min(MAX_REPLAYED_BYTES);
        self.replayed < most.min(messages) && self.replayed_bytes < bytes && !self.full()
    }

    /// What this user waits for: requests, and their bytes.
    pub fn of_user(&self, user: Option<u32>) -> (usize, usize) {
        self.users.of(user)
    }

    /// Bytes of what is in flight.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a heartbeat is under way.
    pub fn probing(&self) -> bool {
        self.probes > 0
    }

    /// The least sequence in flight that is not in the spool.
    pub fn least_unstored(&self) -> Option<Sequence> {
        self.unstored.first().copied()
    }

    /// The number that [`Pending::push`] gives next.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// Notes that something was sent under [`Pending::next_number`].
    pub fn push(&mut self, entry: Entry, now: Instant) {
        self.tally(&entry, true);
        let allowed = if entry.purpose == Purpose::Probe { PROBE_TIMEOUT } else { self.timeout };
        self.entries.insert(self.next, (now + allowed, entry));
        self.next += 1;
    }

    /// Takes the entry that has waited longest: on the classic wire the next answer is its.
    pub fn answered_first(&mut self, now: Instant) -> Option<Entry> {
        let (_, (_, entry)) = self.entries.pop_first()?;
        self.tally(&entry, false);
        if let Some((deadline, Entry { purpose: Purpose::Probe, .. })) = self.entries.first_mut() {
            *deadline = now + PROBE_TIMEOUT;
        }
        Some(entry)
    }

    /// Takes the entry with this number.
    pub fn answered(&mut self, number: u64) -> Found {
        if number == 0 || number >= self.next_number() {
            return Found::Unknown;
        }
        match self.entries.remove(number) {
            Some((_, entry)) => {
                self.tally(&entry, false);
                Found::Entry(entry)
            }
            None => Found::Late,
        }
    }

    /// Takes the entries with these numbers: they will not be answered.
    pub fn take_each(&mut self, numbers: Vec<u64>) -> Vec<Entry> {
        let take = |number| match self.answered(number) {
            Found::Entry(entry) => Some(entry),
            Found::Late | Found::Unknown => None,
        };
        numbers.into_iter().filter_map(take).collect()
    }

    /// Takes everything, in the order in which it was sent: the link is gone. Numbers begin
    /// with the first again.
    pub fn take_all(&mut self) -> impl Iterator<Item = Entry> + use<> {
        let entries = self.entries.take_all();
        *self = Pending::new(self.timeout, self.wire);
        entries.map(|(_, (_, entry))| entry)
    }

    /// Has the critical requests that are not in the spool stored, in the order in which they were
    /// sent, and notes what `store` says of each. They stay in flight and keep their owners.
    /// Returns the last place given.
    pub fn insure(&mut self, store: impl FnOnce(&[NewMessage<'_>]) -> Vec<Insured>) -> Option<Sequence> {
        let mut requests = Vec::new();
        let mut places = Vec::new();
        for (_, (_, entry)) in self.entries.from_mut(0) {
            match &mut entry.purpose {
                // One that was given up (answered `con_failed`) has no owner: nobody was told that
                // it would arrive.
                Purpose::Critical { request, sequence, stored: stored @ false, passed: passed @ false } => {
                    if let Some(Owner { user, .. }) = entry.owner {
                        requests.push(NewMessage { user, sequence: *sequence, request });
                        places.push((sequence, stored, passed, entry.size));
                    }
                }
                Purpose::Critical { .. } | Purpose::Plain | Purpose::Probe => {}
            }
        }
        if requests.is_empty() {
            return None;
        }
        let mut last = None;
        for (result, (sequence, stored, passed, size)) in store(&requests).into_iter().zip(places) {
            match result {
                Insured::Stored(place) => {
                    self.unstored.remove(&place);
                    *sequence = Some(place);
                    *stored = true;
                    last = Some(place);
                    self.replayed += 1;
                    self.replayed_bytes += size;
                }
                Insured::Over => *passed = true,
                Insured::Failed => {}
            }
        }
        last
    }

    /// Whether a critical request that somebody waits for is to be in the spool, and is not.
    pub fn has_unstored(&self) -> bool {
        self.entries.iter().any(|(_, (_, entry))| entry.wants_storing())
    }

    /// Whether a critical request's time is over while it is not in the spool.
    pub fn unstored_overdue(&self, now: Instant) -> bool {
        let unseen = self.entries.from(self.expired).map(|(_, entry)| entry);
        unseen.take_while(|(deadline, _)| *deadline <= now).any(|(_, entry)| entry.wants_storing())
    }

    /// The entries whose time is over since the last call, for their owners to be told.
    pub fn expire(&mut self, now: Instant) -> Vec<Overdue> {
        let mut overdue = Vec::new();
        let mut cancelled = Vec::new();
        for (number, (deadline, entry)) in self.entries.from_mut(self.expired) {
            if entry.purpose != Purpose::Probe && *deadline > now {
                break;
            }
            self.expired = number + 1;
            let Some(owner) = entry.owner.take() else { continue };
            self.users.count(owner.user, entry.size, false);
            let (critical, leaves) = match &entry.purpose {
                Purpose::Critical { stored, .. } => (Some(*stored), false),
                Purpose::Plain | Purpose::Probe => (None, self.wire == WireKind::Secure),
            };
            cancelled.extend(leaves.then_some(number));
            overdue.push(Overdue { owner, critical, cancelled: leaves.then_some(number) });
        }
        for number in cancelled {
            self.answered(number);
        }
        overdue
    }

    /// When [`Pending::expire`] will find something.
    pub fn next_overdue(&self) -> Option<Instant> {
        let waits =
            |(deadline, entry): &(Instant, Entry)| (entry.purpose != Purpose::Probe).then_some(*deadline);
        self.entries.from(self.expired).find_map(|(_, entry)| waits(entry))
    }

    /// On the classic wire, when the link is to be given up, unless an answer comes: a heartbeat's
    /// time is over, or the peer has been silent for another `request_timeout` after the first
    /// request in flight became overdue. The secure wire has heartbeats that do not wait behind
    /// requests.
    pub fn dead_at(&self, last_heard: Instant) -> Option<Instant> {
        let (_, (deadline, entry)) = self.entries.first().filter(|_| self.wire == WireKind::Classic)?;
        Some(match entry.purpose {
            Purpose::Probe => *deadline,
            // A heartbeat waits behind a request: that it is still unanswered when its time is over
            // says enough.
            Purpose::Plain | Purpose::Critical { .. } if self.probes > 0 => *deadline,
            Purpose::Plain | Purpose::Critical { .. } => (*deadline).max(last_heard) + self.timeout,
        })
    }

    fn tally(&mut self, entry: &Entry, added: bool) {
        let change = |counter: &mut usize, by: usize| {
            *counter = if added { *counter + by } else { counter.saturating_sub(by) };
        };
        change(&mut self.bytes, entry.size);
        if let Some(owner) = entry.owner {
            self.users.count(owner.user, entry.size, added);
        }
        match &entry.purpose {
            Purpose::Critical { stored: true, .. } => {
                change(&mut self.replayed, 1);
                change(&mut self.replayed_bytes, entry.size);
            }
            Purpose::Critical { sequence: Some(sequence), .. } if added => {
                self.unstored.insert(*sequence);
            }
            Purpose::Critical { sequence: Some(sequence), .. } => {
                self.unstored.remove(sequence);
            }
            Purpose::Critical { .. } | Purpose::Plain => {}
            Purpose::Probe => change(&mut self.probes, 1),
        }
    }
}

/// What each user waits for: requests, and their bytes. In the order of the users, who are few.
#[derive(Debug, Default)]
struct Users(Vec<(Option<u32>, usize, usize)>);

impl Users {
    fn place(&self, user: Option<u32>) -> Result<usize, usize> {
        self.0.binary_search_by_key(&user, |(user, ..)| *user)
    }

    fn of(&self, user: Option<u32>) -> (usize, usize) {
        let found = self.place(user).ok().and_then(|at| self.0.get(at));
        found.map_or((0, 0), |(_, requests, bytes)| (*requests, *bytes))
    }

    /// Counts a request of a user, as one more or as one that is over.
    fn count(&mut self, user: Option<u32>, size: usize, added: bool) {
        let place = self.place(user);
        if let (Err(at), true) = (place, added) {
            return self.0.insert(at, (user, 1, size));
        }
        let (Ok(at) | Err(at)) = place;
        let Some((_, requests, bytes)) = self.0.get_mut(at).filter(|_| place.is_ok()) else { return };
        if added {
            (*requests, *bytes) = (*requests + 1, *bytes + size);
            return;
        }
        (*requests, *bytes) = (requests.saturating_sub(1), bytes.saturating_sub(size));
        if *requests == 0 {
            self.0.remove(at);
        }
    }
}

#[cfg(test)]
mod tests;
