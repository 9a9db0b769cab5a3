//! A program that could not be given a critical message is looked for until it is back; where a
//! process of `lond`'s own had no place for one, its sender is told to send it again. Pure.

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

/// When the sender of a critical message is told to send it again, for which a process of `lond`'s
/// own had no place or no program. That process says nothing when it has: with hosts that flood it
/// the place would be another's before the message is here, and the message has one by its share.
#[derive(Debug)]
pub(super) struct Again {
    next: Option<Instant>,
    pause: Duration,
}

impl Default for Again {
    fn default() -> Again {
        Again { next: None, pause: WATCH_FIRST }
    }
}

impl Again {
    /// A message was not taken. `part` of the second half of the pause is waited, from 0 to 1, so
    /// that not all hosts come at once.
    pub(super) fn not_taken(&mut self, part: f64, now: Instant) {
        self.next = Some(now + self.pause.div_f64(2.0) + self.pause.div_f64(2.0).mul_f64(part));
        self.pause = (2 * self.pause).min(WATCH_MOST);
    }

    /// One was taken.
    pub(super) fn taken(&mut self) {
        *self = Again::default();
    }

    /// Whether it is time.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.next.take_if(|next| *next <= now).is_some()
    }

    /// When that is.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }
}
