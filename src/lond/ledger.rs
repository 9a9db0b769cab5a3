//! What each host has had written to the log of late, over all its links.
//!
//! A child of `lond` is new with each link and remembers nothing, so a bound that it kept by itself
//! would begin again with each call. The ledger lies in memory that the supervisor makes and all
//! its children share: whichever of them serves a host finds what the others had written for it. It
//! begins again with the program (a HUP, a start).
//!
//! Each host has [`Ledger::take`]: so many bytes of `log:` requests at once, which come back evenly
//! within a minute; and [`Ledger::may_speak`]: so many children a minute that say something by
//! themselves; and [`Ledger::may_say_barred`]: so many lines a minute about what it may not ask.
//! What `log:` was refused is counted, and told in a line a minute. Bounded: [`SLOTS`] hosts, more
//! than a table has; any beyond share one slot.

use base::HostId;
use base::logging;
use base::shared::{self, Shareable};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Hosts that are kept apart.
const SLOTS: usize = 16 * 1024;
/// Places at which a host's slot is looked for.
const TRIES: usize = 64;
/// In which a quota comes back whole; between two lines about requests that were refused.
const MINUTE: Duration = Duration::from_secs(60);
/// Children of one host in a minute that speak.
const VOICES: u64 = base::log_quota::MOST_LINES;
/// What a line costs beside its text: time, program, process, host, level.
pub const LINE: u64 = 100;

/// Of one host. Times are microseconds since the ledger began.
#[derive(Debug)]
struct Slot {
    /// The digest of its id; 0: nobody's yet.
    host: AtomicU64,
    /// When its quota of bytes will be whole again.
    bytes: AtomicU64,
    /// When its quota of children that speak will be whole again.
    voices: AtomicU64,
    /// Its `log:` requests that were refused and not told of.
    refused: AtomicU64,
    /// The next line about these comes then at the earliest.
    tell: AtomicU64,
    /// When its quota of lines about requests that it may not ask will be whole again.
    barred: AtomicU64,
    /// Such requests that no line told of.
    unsaid: AtomicU64,
}

#[derive(Debug)]
struct Slots([Slot; SLOTS + 1]);

// SAFETY: atomics and nothing else; zero is a value of each.
unsafe impl Shareable for Slots {}

/// Why a text may not be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// It may be later.
    Now,
    /// It is longer than the whole quota.
    Ever,
}

/// See the module. A copy is the same ledger.
#[derive(Debug, Clone, Copy)]
pub struct Ledger {
    slots: &'static Slots,
    begun: Instant,
}

impl Ledger {
    /// A ledger that this process shares with the children which it forks from now on.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new() -> io::Result<Ledger> {
        Ok(Ledger { slots: shared::zeroed()?, begun: Instant::now() })
    }

    /// Takes so many bytes of the host's `quota` a minute for a line, if there are so many.
    ///
    /// # Errors
    /// There are not.
    pub fn take(&self, host: &HostId, bytes: u64, quota: u64, now: Instant) -> Result<(), Over> {
        let cost = bytes.saturating_add(LINE);
        if cost > quota {
            return Err(Over::Ever);
        }
        if self.draw(&self.slot(host).bytes, cost, quota, now) { Ok(()) } else { Err(Over::Now) }
    }

    /// Counts a `log:` request that was refused.
    pub fn refuse(&self, host: &HostId) {
        self.slot(host).refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How many of the host's requests were refused, if it is time to tell: whoever asks has to.
    pub fn to_tell(&self, host: &HostId, now: Instant) -> Option<u64> {
        let slot = self.slot(host);
        let (now, tell) = (self.micros(now), slot.tell.load(Ordering::Relaxed));
        if now < tell || slot.refused.load(Ordering::Relaxed) == 0 {
            return None;
        }
        // Another child may be telling just now.
        let next = now.saturating_add(micros(MINUTE));
        slot.tell.compare_exchange(tell, next, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        Some(slot.refused.swap(0, Ordering::Relaxed)).filter(|refused| *refused > 0)
    }

    /// The host asked what it may not: whether that is to be said, and of how many such requests no
    /// line told before.
    pub fn may_say_barred(&self, host: &HostId, now: Instant) -> Option<u64> {
        let slot = self.slot(host);
        if self.draw(&slot.barred, 1, VOICES, now) {
            return Some(slot.unsaid.swap(0, Ordering::Relaxed));
        }
        slot.unsaid.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Whether a child that has just come to know that it serves this host may say anything by
    /// itself.
    pub fn may_speak(&self, host: &HostId, now: Instant) -> bool {
        self.draw(&self.slot(host).voices, 1, VOICES, now)
    }

    /// This process serves `host` from here on: its lines name that host, and are written if it may
    /// speak.
    pub fn log_for(&self, host: &HostId, now: Instant) {
        logging::set_host(host.as_str());
        if self.may_speak(host, now) {
            logging::speak_again();
        } else {
            logging::be_silent();
        }
    }

    /// Takes `cost` of what comes back at `quota` a minute and is never more than that.
    fn draw(&self, whole_at: &AtomicU64, cost: u64, quota: u64, now: Instant) -> bool {
        let (now, minute) = (self.micros(now), micros(MINUTE));
        let share = u128::from(cost) * u128::from(minute) / u128::from(quota.max(1));
        let share = u64::try_from(share).unwrap_or(u64::MAX);
        let drawn = whole_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| {
            let after = at.max(now).saturating_add(share);
            (after.saturating_sub(now) <= minute).then_some(after)
        });
        drawn.is_ok()
    }

    fn slot(&self, host: &HostId) -> &Slot {
        let mut hasher = DefaultHasher::new();
        host.hash(&mut hasher);
        // 0 is nobody.
        let digest = hasher.finish().max(1);
        let (first, slots) = (digest % SLOTS as u64, &self.slots.0);
        for step in 0..TRIES as u64 {
            let Some(slot) = slots.get(((first + step) % SLOTS as u64) as usize) else { break };
            let owner = match slot.host.compare_exchange(0, digest, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => digest,
                Err(owner) => owner,
            };
            if owner == digest {
                return slot;
            }
        }
        &slots[SLOTS]
    }

    fn micros(&self, now: Instant) -> u64 {
        micros(now.saturating_duration_since(self.begun))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostId {
        HostId::new(text).unwrap()
    }

    #[test]
    fn a_host_has_its_quota_at_once_and_again_within_a_minute_whatever_others_took() {
        let ledger = Ledger::new().unwrap();
        let (a, b, start) = (host("a"), host("b"), ledger.begun);
        let takes = |host: &HostId, at: Instant| {
            (0..1000).filter(|_| ledger.take(host, 1000 - LINE, 60_000, at).is_ok()).count()
        };
        assert_eq!(takes(&a, start), 60);
        assert_eq!(takes(&a, start + Duration::from_secs(3)), 3, "a thousand bytes a second");
        assert_eq!(takes(&b, start + Duration::from_secs(3)), 60);
        assert_eq!(takes(&a, start + Duration::from_secs(3600)), 60, "no more is saved up");
        assert_eq!(ledger.take(&a, 60_000, 60_000, start + 2 * Duration::from_secs(3600)), Err(Over::Ever));
    }

    #[test]
    fn what_a_host_may_not_ask_is_said_so_often_and_then_counted() {
        let ledger = Ledger::new().unwrap();
        let (a, b, start) = (host("a"), host("b"), ledger.begun);
        let said: Vec<u64> = (0..1000).filter_map(|_| ledger.may_say_barred(&a, start)).collect();
        assert_eq!(said, [0; VOICES as usize]);
        assert_eq!(ledger.may_say_barred(&b, start), Some(0), "another host has its own");
        assert_eq!(ledger.may_say_barred(&a, start + MINUTE), Some(1000 - VOICES));
        assert_eq!(ledger.may_say_barred(&a, start + MINUTE), Some(0));
    }

    #[test]
    fn what_was_refused_is_told_once_a_minute_and_all_of_it() {
        let ledger = Ledger::new().unwrap();
        let (a, start) = (host("a"), ledger.begun);
        assert_eq!(ledger.to_tell(&a, start), None);
        ledger.refuse(&a);
        assert_eq!(ledger.to_tell(&a, start), Some(1));
        (0..7).for_each(|_| ledger.refuse(&a));
        assert_eq!(ledger.to_tell(&a, start + Duration::from_secs(59)), None);
        assert_eq!(ledger.to_tell(&host("b"), start + MINUTE), None);
        assert_eq!(ledger.to_tell(&a, start + MINUTE), Some(7));
    }

    #[test]
    fn a_child_that_is_forked_takes_of_what_its_siblings_left() {
        let ledger = Ledger::new().unwrap();
        let (a, start) = (host("a"), ledger.begun);
        // A thread stands for the child: what counts is that the copy is the same ledger.
        let taken =
            std::thread::spawn(move || (0..15).filter(|_| ledger.may_speak(&host("a"), start)).count());
        assert_eq!(taken.join().unwrap(), 15);
        assert_eq!((0..15).filter(|_| ledger.may_speak(&a, start)).count() as u64, VOICES - 15);
    }

    #[test]
    fn as_many_hosts_as_a_table_has_are_kept_apart() {
        let ledger = Ledger::new().unwrap();
        let (hosts, start) = ((0..10_000).map(|n| host(&format!("h{n}"))), ledger.begun);
        for host in hosts {
            assert_eq!((0..40).filter(|_| ledger.may_speak(&host, start)).count() as u64, VOICES, "{host}");
        }
    }
}
