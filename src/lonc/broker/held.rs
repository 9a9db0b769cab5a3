//! Critical requests that are held back for a moment, so that what is stored can catch up.
//!
//! While stored messages wait, new critical ones are stored behind them. Programs that send as fast
//! as they are answered store faster than any peer can take, since storing is all that their answer
//! waits for: the backlog of a short outage would grow for ever on a link that is up. So on a link
//! that is up, storing behind a backlog costs a permit, and each two messages that leave the
//! backlog earn one; there is a supply of [`SUPPLY`] for programs that don't send in a flood.
//! Without a permit a request waits here, in its turn, [`PATIENCE`] at most, and its program with
//! it; plain requests of others pass. So under a flood the backlog shrinks half as fast as it is
//! replayed, and the flood gets the peer's pace.

use super::Broker;
use super::sending::{Kept, Sender};
use crate::link::Now;
use crate::pending::Owner;
use base::request::Forward;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use store::spool::Disk;

/// Permits that a link has when it comes up, and the most that it can have.
pub(super) const SUPPLY: u32 = 1024;
/// How long a request waits for a permit: then it is stored all the same, since the peer may be
/// stuck.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes held back; at this mark the oldest are stored all the same.
const MAX_BYTES: usize = 4 << 20;

#[derive(Debug)]
struct Waiting {
    since: Instant,
    owner: Owner,
    text: Box<[u8]>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Held {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// In halves of a permit.
    halves: u32,
}

impl Held {
    pub(super) fn new() -> Held {
        Held { waiting: VecDeque::new(), bytes: 0, halves: 2 * SUPPLY }
    }

    /// The link has come up.
    pub(super) fn supply(&mut self) {
        self.halves = 2 * SUPPLY;
    }

    /// A message has left the backlog.
    pub(super) fn earn(&mut self) {
        self.halves = (self.halves + 1).min(2 * SUPPLY);
    }

    /// A request is stored behind the backlog of a link that is up.
    pub(super) fn spend(&mut self) {
        self.halves = self.halves.saturating_sub(2);
    }

    /// Whether a new request would have to wait.
    pub(super) fn must_wait(&self) -> bool {
        !self.waiting.is_empty() || self.halves < 2
    }

    pub(super) fn hold(&mut self, owner: Owner, text: &[u8], now: Now) {
        self.bytes += text.len();
        self.waiting.push_back(Waiting { since: now.mono, owner, text: text.into() });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the first has waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|first| first.since + PATIENCE)
    }

    /// The first, if it need not wait any longer; `free`: none has to.
    fn take(&mut self, free: bool, now: Now) -> Option<Waiting> {
        let patient = self.deadline()? > now.mono && self.bytes < MAX_BYTES && self.halves < 2;
        if patient && !free {
            return None;
        }
        let first = self.waiting.pop_front()?;
        self.bytes -= first.text.len();
        Some(first)
    }
}

impl<D: Disk> Broker<D> {
    /// Lets go of what need not be held back any longer.
    pub(super) fn release_held(&mut self, now: Now) {
        loop {
            let backlog = self.spool.has_backlog() || !self.stores.is_empty();
            let free = !self.link.is_up() || self.ending.has_begun() || !backlog;
            if self.link.is_up() && !backlog && (self.pending.full() || self.link.clogged() || self.leaving) {
                return;
            }
            let Some(waiting) = self.held.take(free, now) else { return };
            let owner = waiting.owner;
            self.programs.go_on(owner.client);
            let forward = Forward { critical: true, text: &waiting.text };
            let stores_empty = self.stores.is_empty();
            let Broker { link, pending, spool, away, .. } = self;
            match (Sender { link, pending, spool, away }).forward(forward, owner, stores_empty, now) {
                Kept::Sent => {}
                Kept::ToStore | Kept::ToStoreAtOnce => self.gather(owner, &waiting.text),
                // A critical request is never lost, but it may be longer than the peer takes.
                Kept::Lost => self.programs.answer(owner, super::CON_LOST),
                Kept::Refused(why) => {
                    self.report.one_lost();
                    self.programs.answer(owner, format!("error:{why}").as_bytes());
                }
            }
        }
    }
}
