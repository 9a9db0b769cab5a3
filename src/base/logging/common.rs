//! What all processes of a program know of their log: whether its file is to be opened again, and
//! how many lines could not be written.
//!
//! It lies in memory that they share, since children come and go: what a child had to leave out is
//! told by whoever writes next, and a supervisor that opens the file again need not wait for
//! thousands of children to do it before their next lines.

use crate::shared::{self, Shareable};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// See the module. Zero is how it begins.
#[derive(Debug)]
pub(super) struct Common {
    generation: AtomicU64,
    /// What was left out of the file.
    pub file: LeftOut,
    /// What was left out of standard error.
    pub console: LeftOut,
}

// SAFETY: atomics and nothing else; zero is a value of each.
unsafe impl Shareable for Common {}

impl Common {
    /// Without memory to share, each process has its own: it counts for itself, and follows at HUP
    /// alone.
    const fn alone() -> Common {
        Common { generation: AtomicU64::new(0), file: LeftOut::none(), console: LeftOut::none() }
    }

    /// What this process shares with those that it forks.
    pub(super) fn get() -> &'static Common {
        static ALONE: Common = Common::alone();
        static SHARED: OnceLock<&'static Common> = OnceLock::new();
        SHARED.get_or_init(|| shared::zeroed().unwrap_or(&ALONE))
    }

    /// How often the file was to be opened again.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The file is to be opened again, by every process.
    pub(super) fn open_anew(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

/// Lines that could not be written and were not told of yet.
#[derive(Debug)]
pub(super) struct LeftOut {
    lines: AtomicU64,
    /// Why the last of them could not, as the system numbers it; 0: it could in part.
    cause: AtomicI32,
}

impl LeftOut {
    const fn none() -> LeftOut {
        LeftOut { lines: AtomicU64::new(0), cause: AtomicI32::new(0) }
    }

    /// So many more, for this reason.
    pub(super) fn add(&self, lines: u64, cause: i32) {
        self.cause.store(cause, Ordering::Relaxed);
        self.lines.fetch_add(lines, Ordering::Relaxed);
    }

    /// How many there are, and why: whoever asks has to tell of them, or to put them back.
    pub(super) fn take(&self) -> (u64, i32) {
        (self.lines.swap(0, Ordering::Relaxed), self.cause.load(Ordering::Relaxed))
    }
}
