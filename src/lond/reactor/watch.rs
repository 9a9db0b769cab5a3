//! A program that could not be given a critical message is looked for until it is back. Pure.

use std::time::{Duration, Instant};

/// Pause before a connection is tried to a program that could not be given a critical message; it
/// doubles ...
pub(super) const WATCH_FIRST: Duration = Duration::from_millis(100);

/// ... up to this.
pub(super) const WATCH_MOST: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// When it is tried next, and the pause after that; `None`: nobody waits for the program.
    next: Option<(Instant, Duration)>,
    /// It was away, and is back.
    back: bool,
}

impl Watch {
    /// A caller waits for the program from now on.
    pub(super) fn begin(&mut self, now: Instant) {
        self.back = false;
        self.next.get_or_insert((now + WATCH_FIRST, 2 * WATCH_FIRST));
    }

    /// Whether it is to be tried now.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        match &mut self.next {
            Some(next) if next.0 <= now => {
                *next = (now + next.1, (2 * next.1).min(WATCH_MOST));
                true
            }
            Some(_) | None => false,
        }
    }

    /// When that is.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next.map(|(next, _)| next)
    }

    /// A connection could be made.
    pub(super) fn came_back(&mut self) {
        self.back |= self.next.take().is_some();
    }

    /// Whether it has come back since the last call.
    pub(super) fn take_back(&mut self) -> bool {
        std::mem::take(&mut self.back)
    }
}
