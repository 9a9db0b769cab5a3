//! When the record is synced, and what becomes of the answers then.
//!
//! An answer is written to the record as soon as it is there, which outlasts this process, and sent
//! only when it was synced, which outlasts the machine. One sync takes as long as some handlers
//! take for many messages; so it is made as late as that helps: at the end of a turn in which
//! nothing critical is being run any more, since nothing more would come soon, or a message that
//! was answered comes again; or else when as many answers wait for it as may, or the first of them
//! has waited for [`SYNC_WITHIN`].
//!
//! What a loss of power has run again is so bounded: fewer than [`UNSYNCED_MOST`] answers, and what
//! was being run.

use super::Secure;
use super::answer::Answer;
use super::recorder::Recorder;
use super::requests::Unrecorded;
use std::time::{Duration, Instant};

/// Answers that are written and not synced. At the bound they are synced before a handler gets
/// anything.
pub const UNSYNCED_MOST: usize = 256;

/// Bytes of them, likewise.
const UNSYNCED_BYTES_MOST: usize = 256 * 1024;

/// How long an answer that is written waits for others, so that one sync is for all. Some ten times
/// what a fast disk takes for one.
const SYNC_WITHIN: Duration = Duration::from_millis(1);

impl<R: Recorder> Secure<R> {
    /// Syncs what was written to the record, if it is time, so that it may be sent: none is before.
    /// To be called at the end of each turn. Lets go of the record when nobody will be answered
    /// from it any more, so that the next link's process may have it.
    pub fn sync(&mut self, now: Instant) {
        if self.is_sync_due(now) {
            self.sync_now(now);
        }
        if self.is_gone() && !self.requests.has_critical() {
            self.memory.recorder.close();
        }
    }

    /// When it is to be synced at the latest.
    pub(super) fn sync_deadline(&self) -> Option<Instant> {
        self.requests.written_since().filter(|_| self.memory.is_usable()).map(|since| since + SYNC_WITHIN)
    }

    fn is_sync_due(&self, now: Instant) -> bool {
        // An answer that nobody gets is still to let the next link have the record soon, and a
        // repeat that is taken next would find nothing else to do.
        let is_last = self.is_gone() || !self.requests.runs_critical() || self.requests.repeat_waits();
        self.sync_deadline().is_some_and(|deadline| is_last || deadline <= now || self.is_much_unsynced())
    }

    /// Whether as much is written and not synced as may be.
    pub(super) fn is_much_unsynced(&self) -> bool {
        self.requests.written() >= self.settings.unsynced
            || self.requests.written_bytes() >= UNSYNCED_BYTES_MOST
    }

    /// Syncs what was written; it is sent, or else to be written again.
    pub(super) fn sync_now(&mut self, now: Instant) {
        match self.memory.recorder.sync() {
            Ok(()) => self.synced(),
            Err(cause) => self.not_recorded(&cause, now),
        }
    }

    /// A write or a sync failed: what was not synced is not known to be on disk.
    pub(super) fn not_recorded(&mut self, cause: &str, now: Instant) {
        self.requests.unwrite();
        self.memory.failed(cause, true, now);
    }

    /// The answers are in the record for good.
    fn synced(&mut self) {
        self.memory.another_is_recorded();
        for answer in self.requests.take_written() {
            let Unrecorded { id, cost, last, text, broken, .. } = answer;
            self.send(Answer { id, cost, cancellable: false, last, broken, text });
        }
    }
}
