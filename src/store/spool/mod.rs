//! The delayed directory of one peer: messages that wait for a link, on disk, in order.
//!
//! [`Spool`] owns the folder `delayed/<peer>/` (its files are described in `docs/spool.md`);
//! [`SpoolLock`] keeps others out. It guarantees:
//!
//! - [`Spool::store`] answers `Ok` only for what is on disk: written, synced, its segment's name
//!   synced before.
//! - What it answered `Ok` for is given out by [`Spool::next_unsent`], in the order of the
//!   sequences, at every start again until it is settled, whatever step failed or was lost
//!   meanwhile. After a crash of the machine, settled messages of segments that still exist may be
//!   given out again.
//! - No sequence comes twice in one epoch, whether [`Spool::store`] gave it to a message that it
//!   stored or [`Spool::allocate`] to one that is sent at once and may be stored later under it
//!   ([`Spool::store_at`]).
//! - Nothing unread is deleted: what cannot be read is copied or moved to `corrupt/` and reported
//!   once.
//!
//! How it fails: [`Spool::open`] never does; while its folder cannot be used nothing is sent, every
//! store is refused with the cause, and the next call tries again. After a failed write or sync
//! nothing is appended to that segment again. A failing read is tried again for a while, in its
//! turn; what goes on failing is passed over, and tried again from time to time
//! ([`Spool::reread`]). Errors are logged here only where no caller learns of them; a payload never
//! is.
//!
//! ```text
//! Spool ── store    batches, segments ahead of need       ┐
//!       ── share    what one user may have of the bounds  │
//!       ── replay   reading, settling, progress marks     │
//!       ── reread   what could not be read                ├─ queue, segment, record (pure) ─ disk
//!       ── recover  what is found at the start            │
//!       ── epoch    the numbers that may be given out     │
//!       ── aside    failed/ and corrupt/                  │
//!       ── survey   reading for all of them               │
//!       ── inbox    files of the original's kind          ┘
//! arrival: how those come from the delayed directory, which all peers share, into the folder
//! layout: the names in the folder, for all of them
//! check, inspect: the spool as those see it who only look
//! ```

mod arrival;
mod aside;
mod check;
mod epoch;
mod inbox;
mod inbox_owner;
mod inspect;
mod layout;
mod queue;
mod record;
mod recover;
mod replay;
mod reread;
mod segment;
mod share;
mod store;
mod survey;

pub use arrival::{Arrivals, MOVED_A_PASS, Passed};
pub use base::disk::{Disk, FolderLock as SpoolLock, Kind, Metadata, RealDisk, StepError as SpoolError};
pub use check::{Finding, Tally, Told, check, check_dropped};
pub use inbox::{TAKE_IN_MOST, TakenIn, WRITER_PAUSE};
pub use inbox_owner::inbox_owner;
pub use inspect::{
    Delayed, FULL_BYTES, InboxFile, LISTED_MOST, Listed, Listing, PREVIEW_BYTES, delayed, drop_in_file,
    inspect, moved_in,
};
pub use queue::HELD_MOST;
pub use record::MAX_REQUEST;
pub use segment::SEGMENT_BYTES;
pub use share::{Over, Whose};
pub use store::{Full, NewMessage, StoreError};

use base::Sequence;
use base::disk::Context;
use jiff::Timestamp;
use queue::Queue;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A segment is at most this part of the spool's bound, so that a small bound does not mean no
/// segment at all.
const SEGMENTS_IN_BOUND: u64 = 4;
/// ... but never smaller than this.
const LEAST_SEGMENT_BYTES: u64 = 4096;

/// Bounds of one peer's spool; beyond them a critical message is answered `con_failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Most messages that may wait (default 1,000,000).
    pub messages: u64,
    /// Most bytes of segments on disk (default 1 GiB).
    pub bytes: u64,
    /// Bytes that must stay free on the file system (default 64 MiB, or a sixteenth of a smaller
    /// file system).
    pub keep_free: u64,
}

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The sequence under which the peer knows the message.
    pub sequence: Sequence,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// The request, as it was stored.
    pub request: Vec<u8>,
}

/// What waits in a spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Messages that were not settled.
    pub messages: u64,
    /// Bytes of their requests.
    pub bytes: u64,
    /// When the oldest of them was stored.
    pub oldest: Option<Timestamp>,
    /// Files in `failed/`.
    pub failed: u64,
    /// Files in `corrupt/`.
    pub corrupt: u64,
}

/// The delayed messages of one peer. One process at a time may have it: take the [`SpoolLock`]
/// first.
#[derive(Debug)]
pub struct Spool<D: Disk> {
    disk: D,
    dir: PathBuf,
    limits: SpoolLimits,
    segment_bytes: u64,
    epoch: String,
    /// Sequences below this may be in use: it is durable with the epoch before one of them is given
    /// out.
    reserved: Sequence,
    queue: Queue,
    /// Whether the folder was read.
    loaded: bool,
    /// Whether the folder can be written to: its subfolders, epoch and names are durable.
    prepared: bool,
    /// The delayed directory was made by this process, and its name may not be durable. Asked for
    /// only then: the folder above need not be ours to open.
    parent_is_new: bool,
    /// Why the folder could not be used the last time that was tried.
    trouble: Option<SpoolError>,
    /// The queue's last segment, open for appending.
    append: Option<D::File>,
    /// The queue's last segment holds nothing but zeros and was not written to by this process.
    reusable: bool,
    /// Bytes of the file of zeros that waits to become a segment.
    spare: Option<u64>,
    /// Bytes that the file system had left, when that was asked for last, beside those that must
    /// stay free and those of the spool's segments.
    on_disk: Option<u64>,
    /// The segment that a spare was tried for already.
    spare_tried_at: Option<Sequence>,
    /// What is being read of a segment: dropped when all of it was given out.
    window: replay::Window,
    reader: Option<(Sequence, D::File)>,
    marker: Option<(Sequence, D::File)>,
    /// Calls in a row in which what is next could not be read.
    failed_reads: u32,
    failed: u64,
    corrupt: u64,
    /// Names in the inbox that were found unusable and could not be moved away.
    stuck: BTreeSet<OsString>,
    /// Names in the inbox that are to be looked at.
    listed: inbox::Listed,
    /// Files may have come to the inbox since it was listed last.
    came: bool,
    /// Files in the inbox that could not be read, and since when.
    unreadable: BTreeMap<OsString, Timestamp>,
    /// Files in the inbox that were taken in and could not be removed, as they were.
    taken_in: BTreeMap<OsString, Metadata>,
    /// What [`Spool::warn`] said last.
    warned: String,
}

impl<D: Disk> Spool<D> {
    /// Opens the folder, making it if need be, and finds out what waits. Trouble is logged and kept
    /// ([`Spool::trouble`]); storing tries again.
    pub fn open(disk: D, dir: &Path, limits: SpoolLimits) -> Spool<D> {
        Self::open_with_segments(disk, dir, limits, SEGMENT_BYTES)
    }

    /// [`Spool::open`] with segments of another size, for tests that want many of them.
    pub fn open_with_segments(disk: D, dir: &Path, limits: SpoolLimits, segment_bytes: u64) -> Spool<D> {
        let most = (limits.bytes / SEGMENTS_IN_BOUND).max(LEAST_SEGMENT_BYTES);
        let mut spool = Spool {
            disk,
            dir: dir.to_owned(),
            limits,
            segment_bytes: segment_bytes.min(most),
            epoch: String::new(),
            reserved: Sequence(0),
            queue: Queue::new(VecDeque::new(), Sequence(1)),
            loaded: false,
            prepared: false,
            parent_is_new: false,
            trouble: None,
            append: None,
            reusable: false,
            spare: None,
            on_disk: None,
            spare_tried_at: None,
            window: replay::Window::default(),
            reader: None,
            marker: None,
            failed_reads: 0,
            failed: 0,
            corrupt: 0,
            stuck: BTreeSet::new(),
            listed: inbox::Listed::default(),
            came: false,
            unreadable: BTreeMap::new(),
            taken_in: BTreeMap::new(),
            warned: String::new(),
        };
        if let Err(error) = spool.make_ready() {
            log::error!("{error}; nothing can be delayed until that is put right");
        }
        spool
    }

    /// What waits. Constant time.
    pub fn waiting(&self) -> Waiting {
        let load = self.queue.waiting().all;
        Waiting {
            messages: load.messages,
            bytes: load.bytes,
            oldest: self.queue.oldest(),
            failed: self.failed,
            corrupt: self.corrupt,
        }
    }

    /// Whether nothing waits, as far as that is known, and no segment's turn is to come of which
    /// nothing is known. What was sent and not settled waits.
    pub fn is_empty(&self) -> bool {
        self.queue.waiting().all.messages == 0 && !self.queue.has_unknown()
    }

    /// Whether [`Spool::next_unsent`] has something to give. Nothing, while the folder cannot be
    /// used.
    pub fn has_unsent(&self) -> bool {
        self.prepared && self.queue.has_unsent()
    }

    /// Random name of this spool's life, 32 hex digits: made once when the folder is new. With the
    /// sequence it names a message for ever. Empty as long as the folder could not be written to.
    /// It changes while the process runs if the folder is taken away and made anew: then a link
    /// that was opened with the old one must be opened again, and sequences that were allocated
    /// before cannot be stored.
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// Why the folder could not be used when that was last tried; `None` when it could.
    pub fn trouble(&self) -> Option<&SpoolError> {
        self.trouble.as_ref()
    }

    /// Whether another process had the folder when it was last asked for: what waits there is not
    /// known, and must not be overtaken.
    pub fn is_anothers(&self) -> bool {
        self.trouble.as_ref().is_some_and(SpoolError::is_locked)
    }

    /// Whether the folder is another one by now, which only another process can have. Nothing is
    /// stored or sent here any more.
    pub fn is_lost(&self) -> bool {
        self.disk.is_lost()
    }

    /// The folder that this spool is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn segment_path(&self, name: Sequence) -> PathBuf {
        self.dir.join(layout::segment_name(name))
    }

    /// Says what went wrong and was put right, or will be: a disk in trouble is a person's affair.
    /// The same thing again and again is said once, or a flood of messages would be one of lines.
    fn warn(&mut self, text: String) {
        if self.warned != text {
            log::warn!("{text}");
            self.warned = text;
        }
    }

    fn parent(&self) -> &Path {
        self.dir.parent().unwrap_or(Path::new("."))
    }
}

#[cfg(test)]
mod tests;
