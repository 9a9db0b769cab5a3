//! When the broker's part that stores and replays has to look again: for files that were dropped
//! in, at a spool that could not be read, at what was passed over in it.
//!
//! Each time stands until it is done or put off; none is missed because another came first.

use std::time::{Duration, Instant};

/// Pause after the spool could not be read, before it is tried again.
pub(super) const REPLAY_PAUSE: Duration = Duration::from_secs(5);

/// Pause before what could not be read of the spool, and was passed over, is tried again.
pub(super) const REREAD_PAUSE: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(super) struct Agenda {
    /// When files that were dropped in are to be looked for again.
    files_at: Option<Instant>,
    /// Until when nothing is replayed, since the spool could not be read.
    replay_at: Option<Instant>,
    /// When what was passed over in the spool is to be tried again.
    reread_at: Option<Instant>,
}

impl Agenda {
    /// Files that were dropped in are looked for as soon as can be; nothing else is due.
    pub(super) fn new(now: Instant) -> Agenda {
        Agenda { files_at: Some(now), replay_at: None, reread_at: None }
    }

    /// The next look for files is then, whenever it was to be before.
    pub(super) fn look_for_files(&mut self, at: Instant) {
        self.files_at = Some(at);
    }

    /// Whether files are to be looked for now; that is done then.
    pub(super) fn takes_files(&mut self, now: Instant) -> bool {
        self.files_at.take_if(|at| *at <= now).is_some()
    }

    /// The spool's disk is in trouble. Looking for files then finds out whether it can be used, if
    /// nothing else asks.
    pub(super) fn pause_replay(&mut self, now: Instant) {
        let at = now + REPLAY_PAUSE;
        self.replay_at = Some(at);
        self.files_at = Some(self.files_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Ends the pause of [`Agenda::pause_replay`] when it is over.
    pub(super) fn end_pause(&mut self, now: Instant) {
        self.replay_at.take_if(|at| *at <= now);
    }

    /// Whether nothing is to be replayed for now.
    pub(super) fn replay_is_paused(&self) -> bool {
        self.replay_at.is_some()
    }

    /// Whether it is time to try what was passed over; `passes_over`: there is something. The first
    /// try is [`REREAD_PAUSE`] after it was found, each later one as [`Agenda::reread_at`] says.
    pub(super) fn rereads(&mut self, passes_over: bool, now: Instant) -> bool {
        if !passes_over {
            self.reread_at = None;
            return false;
        }
        *self.reread_at.get_or_insert(now + REREAD_PAUSE) <= now
    }

    /// The next try is then.
    pub(super) fn reread_at(&mut self, at: Instant) {
        self.reread_at = Some(at);
    }

    /// The first of all these times; `files_too`: files are still looked for.
    pub(super) fn deadline(&self, files_too: bool) -> Option<Instant> {
        let files_at = self.files_at.filter(|_| files_too);
        [files_at, self.replay_at, self.reread_at].into_iter().flatten().min()
    }
}
