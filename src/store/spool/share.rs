//! What one user may have in the spool: a share that shrinks as the spool fills.
//!
//! A user's next message is stored if what then waits of that user is no more than [`SHARE`] times
//! what is then free, or if nothing of that user waits yet (a dynamic threshold, as in the shared
//! buffers of switches: Choudhury and Hahne, 1998). A user alone comes to three quarters of a
//! bound. A user who comes then has three quarters of what is left, and the first one must wait
//! until less of his waits. So nothing has to be set, nothing is reserved for users who do not
//! exist, and who comes later finds room.
//!
//! This is asked for messages and for the bytes of their lines: of the spool's bounds, and of what
//! the file system has left. The latter is known from the last time that a segment was made, since
//! room for lines has been taken by then; it is asked for again before anybody is refused for it.

use super::queue::{Loads, User};
use super::record;
use super::store::StoreError;
use super::{Disk, Spool};
use std::collections::BTreeMap;
use std::fmt;

/// A user may have this many times as much as is free.
pub(super) const SHARE: u64 = 3;

/// Why each user who was refused was.
pub(super) type Refused = BTreeMap<User, StoreError>;

/// Whose share of the spool is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{user} has its share of the spool: {held} {what} of its own wait, and the {free} that are free are kept for others"
)]
pub struct Over {
    /// The user.
    pub user: Whose,
    /// What is used up.
    what: What,
    held: u64,
    free: u64,
}

/// A user, or the one who stands for all that are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whose(pub Option<u32>);

impl fmt::Display for Whose {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(user) => write!(out, "user {user}"),
            None => out.write_str("an unknown user"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Messages,
    Bytes,
}

impl fmt::Display for What {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            What::Messages => "messages",
            What::Bytes => "bytes",
        })
    }
}

impl<D: Disk> Spool<D> {
    /// Whether this user may have one more line of this length, beside those of a batch that is
    /// not written yet: its loads, and the bytes of its lines.
    ///
    /// # Errors
    /// The share is used up.
    pub(super) fn require_share(
        &mut self,
        user: User,
        length: u64,
        batch: &Loads,
        batched: u64,
    ) -> Result<(), Over> {
        let (waiting, new) = (self.queue.waiting(), batch.of(user));
        let messages = waiting.of(user).messages + new.messages;
        let free = self.limits.messages.saturating_sub(waiting.all.messages + batch.all.messages);
        within(user, What::Messages, messages, 1, free)?;
        let bytes = waiting.of(user).bytes + new.bytes;
        let held = bytes + messages * record::line_len(user, b"");
        let within_bytes = |free| within(user, What::Bytes, held, length, free);
        within_bytes(self.free_of_bound(batched))?;
        if self
            .on_disk
            .is_some_and(|free| within_bytes(free.saturating_add(self.free_in_segments(batched))).is_err())
        {
            self.on_disk = None;
            if let Ok(free) = self.disk.free_space(&self.dir) {
                let free = free.saturating_sub(self.limits.keep_free);
                self.on_disk = Some(free);
                within_bytes(free.saturating_add(self.free_in_segments(batched)))?;
            }
        }
        Ok(())
    }

    /// Bytes of lines that the spool's bound has room for.
    fn free_of_bound(&self, batched: u64) -> u64 {
        let segments = self.queue.disk_bytes() + self.spare.unwrap_or(0);
        self.limits.bytes.saturating_sub(segments) + self.free_in_segments(batched)
    }

    /// Bytes of lines for which there is room on disk already.
    fn free_in_segments(&self, batched: u64) -> u64 {
        let last = self.queue.last().filter(|_| self.append.is_some() || self.reusable);
        let room = last.map_or(0, |last| last.size.saturating_sub(last.end + batched));
        room + self.spare.unwrap_or(0)
    }
}

fn within(user: User, what: What, held: u64, wanted: u64, free: u64) -> Result<(), Over> {
    if held == 0 || held + wanted <= free.saturating_sub(wanted).saturating_mul(SHARE) {
        return Ok(());
    }
    Err(Over { user: Whose(user), what, held, free })
}
