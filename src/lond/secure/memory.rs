//! How a session stands with the record of its caller: whether it can be used, and what is waited
//! for if not.
//!
//! Owns the [`Recorder`], and the two reasons to wait: the record cannot be used (an older link has
//! it, its disk is sick), or there is no room in it for the answer to another message. Each is
//! tried again after a pause, and each has waited since some time, after which the session loses
//! patience.

use super::recorder::{Opening, Recorder};
use base::log_quota::Repeats;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::secure::NO_EPOCH;

/// Pause before the record is opened again while an older link has it.
pub(super) const BUSY_RETRY: Duration = Duration::from_millis(20);

/// Pause before it is tried again after a failure.
pub(super) const BROKEN_RETRY: Duration = Duration::from_secs(1);

/// Said of a record whose folder is gone for this process.
const LOST: &str = "its folder was removed, and this process can have no other: the link ends, and the next one begins another";

/// The record cannot be used just now.
#[derive(Debug)]
struct Waiting {
    /// Why it cannot: what the caller is told when its patience ends.
    why: String,
    /// It is tried again then, if a message waits for it.
    retry: Instant,
    /// The oldest such message has waited since.
    since: Option<Instant>,
    /// It never can be by this process: there is nothing to wait for.
    lost: bool,
}

/// There is no room for the answer to another message. The record is as good as before for those
/// that are being run: room was set aside for them.
#[derive(Debug)]
struct NoRoom {
    /// Why it cannot: what the caller is told when its patience ends.
    why: String,
    /// The oldest message that may not be run has waited since; `None`: it waits for an earlier
    /// one, and that one's handler has its own time.
    since: Option<Instant>,
    /// It is tried again then; `None`: it is being tried.
    retry: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Memory<R> {
    /// The record itself: open or not, in this process's hands or not.
    pub recorder: R,
    /// Of the caller's spool, as its HELLO says; of none before that.
    epoch: Arc<str>,
    waits: Option<Waiting>,
    no_room: Option<NoRoom>,
    /// What is wrong is said once a minute.
    repeats: Repeats,
}

impl<R: Recorder> Memory<R> {
    /// With a record that is not open yet.
    pub(super) fn new(recorder: R) -> Memory<R> {
        Memory { recorder, epoch: "".into(), waits: None, no_room: None, repeats: Repeats::default() }
    }

    /// The caller's spool is in this epoch.
    pub(super) fn set_epoch(&mut self, epoch: String) {
        self.epoch = epoch.into();
    }

    /// The epoch of the caller's spool.
    pub(super) fn epoch(&self) -> Arc<str> {
        Arc::clone(&self.epoch)
    }

    /// Whether the caller has a spool, and so may send critical messages.
    pub(super) fn has_epoch(&self) -> bool {
        *self.epoch != *NO_EPOCH
    }

    /// Opens the record for the caller's epoch, or tries so again; its mark. None is told where it
    /// could not be opened, or 0, which is always true. `needed`: a message waits for it.
    pub(super) fn open(&mut self, needed: bool, now: Instant) -> u64 {
        match self.recorder.open(&self.epoch) {
            Opening::Open(mark) => {
                self.waits = None;
                return mark;
            }
            Opening::Busy => {
                let why = "an older link of yours does not end, and has the record of critical messages";
                self.wait(why, now + BUSY_RETRY, needed, now);
            }
            Opening::Failed(cause) => self.failed(&cause, needed, now),
        }
        0
    }

    /// The record cannot be used.
    pub(super) fn failed(&mut self, cause: &str, needed: bool, now: Instant) {
        if !self.has_lost(cause, now) {
            self.say(cause, now);
            self.wait(cause, now + BROKEN_RETRY, needed, now);
        }
    }

    /// Whether something failed because this process will never have the record again; then there
    /// is nothing to wait for.
    fn has_lost(&mut self, cause: &str, now: Instant) -> bool {
        let lost = self.recorder.is_lost();
        if lost {
            let why = format!("{cause}: {LOST}");
            self.waits = Some(Waiting { why, retry: now + BROKEN_RETRY, since: Some(now), lost });
        }
        lost
    }

    fn wait(&mut self, why: &str, retry: Instant, needed: bool, now: Instant) {
        let since = self.waits.as_ref().and_then(|waiting| waiting.since).or(needed.then_some(now));
        self.waits = Some(Waiting { why: why.to_owned(), retry, since, lost: false });
    }

    fn say(&mut self, cause: &str, now: Instant) {
        if let Some(line) = self.repeats.line(cause, now) {
            log::warn!("{line}; critical messages wait");
        }
    }

    /// Whether the record can be used.
    pub(super) fn is_usable(&self) -> bool {
        self.waits.is_none() && self.recorder.is_open()
    }

    /// When it is to be opened again, if it cannot.
    pub(super) fn retry(&self) -> Option<Instant> {
        self.waits.as_ref().map(|waiting| waiting.retry)
    }

    /// Whether messages may be looked up now.
    pub(super) fn takes(&self) -> bool {
        self.is_usable() && self.no_room.as_ref().is_none_or(|no_room| no_room.retry.is_none())
    }

    /// When the message that there was no room for is tried again.
    pub(super) fn room_retry(&self) -> Option<Instant> {
        self.no_room.as_ref().filter(|_| self.is_usable())?.retry
    }

    /// Has it tried again now.
    pub(super) fn try_room_again(&mut self) {
        if let Some(no_room) = &mut self.no_room {
            no_room.retry = None;
        }
    }

    /// There is no room for the answer to the next message.
    pub(super) fn wait_for_room(&mut self, cause: &str, now: Instant) {
        if self.has_lost(cause, now) {
            return;
        }
        self.say(cause, now);
        let since = self.no_room.as_ref().and_then(|no_room| no_room.since).unwrap_or(now);
        let (why, retry) = (cause.to_owned(), Some(now + BROKEN_RETRY));
        self.no_room = Some(NoRoom { why, since: Some(since), retry });
    }

    /// The next message is to be run when an earlier one is answered.
    pub(super) fn wait_for_an_earlier_one(&mut self, cause: &str, now: Instant) {
        self.say(cause, now);
        let (why, retry) = (cause.to_owned(), Some(now + BROKEN_RETRY));
        self.no_room = Some(NoRoom { why, since: None, retry });
    }

    /// It may have been that one.
    pub(super) fn another_is_recorded(&mut self) {
        if self.no_room.as_ref().is_some_and(|no_room| no_room.since.is_none()) {
            self.try_room_again();
        }
    }

    /// Room is no matter any more.
    pub(super) fn has_room(&mut self) {
        self.no_room = None;
    }

    /// Whether there is nothing to wait for: this process has lost the record for good.
    pub(super) fn is_lost(&self) -> bool {
        self.waits.as_ref().is_some_and(|waiting| waiting.lost)
    }

    /// What messages wait for, and since when: `needed` as in [`Memory::open`], `untaken`: some are
    /// still to be looked up.
    pub(super) fn waits_for(&self, needed: bool, untaken: bool) -> Option<(&str, Instant)> {
        match (&self.waits, &self.no_room) {
            (Some(Waiting { why, since: Some(since), .. }), _) if needed => Some((why, *since)),
            (None, Some(NoRoom { why, since: Some(since), .. })) if untaken => Some((why, *since)),
            (Some(_) | None, _) => None,
        }
    }
}
