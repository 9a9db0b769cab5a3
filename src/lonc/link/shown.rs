//! What a link shows of itself: to the status, and to who must know when it has something to do.

use super::{Link, Now, State};
use crate::protocol::Protocol;
use base::WireKind;
use jiff::{SignedDuration, Timestamp};
use status::LinkState;
use std::time::Instant;

impl Link {
    /// The wire that is spoken.
    pub fn wire(&self) -> WireKind {
        self.wire
    }

    /// How many attempts have come to an end, well or not.
    pub fn attempts_ended(&self) -> u64 {
        self.attempts_ended
    }

    /// When [`Event::Due`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Down { until } | State::Connecting { until, .. } | State::Opening { until } => Some(until),
            State::Up { .. } => [self.beat_at(), self.probe].into_iter().flatten().min(),
            State::Shut => None,
        }
    }

    /// The state's name.
    pub fn state(&self) -> LinkState {
        match self.state {
            State::Down { .. } | State::Shut => LinkState::Down,
            State::Connecting { .. } => LinkState::Connecting,
            State::Opening { .. } => LinkState::Opening,
            State::Up { .. } => LinkState::Up,
        }
    }

    /// What it does, in words.
    pub fn doing(&self, now: Now) -> String {
        match &self.state {
            State::Down { until } => {
                let pause = until.saturating_duration_since(now.mono);
                format!("down, next dial in {:.1} s", pause.as_secs_f64())
            }
            State::Connecting { reached: false, .. } => "connecting".to_owned(),
            State::Connecting { reached: true, .. } => "connecting: TCP is there, waiting for TLS".to_owned(),
            State::Opening { .. } => {
                let waits_for = self.protocol.as_ref().map(Protocol::waits_for).unwrap_or_default();
                format!("opening: waiting for {waits_for}")
            }
            State::Up { .. } => "up".to_owned(),
            State::Shut => "down, not dialling".to_owned(),
        }
    }

    /// When the next dial is due, where it waits for one.
    pub fn next_dial(&self, now: Now) -> Option<Timestamp> {
        let State::Down { until } = self.state else { return None };
        let pause = SignedDuration::try_from(until.saturating_duration_since(now.mono)).ok()?;
        now.wall.checked_add(pause).ok()
    }

    /// Whether what went wrong at `at` is past: the link came up after it.
    pub fn is_past(&self, at: Now) -> bool {
        self.is_up() && at.mono <= self.since.mono
    }

    /// Since when the link is up, or is not.
    pub fn since(&self) -> Now {
        self.since
    }

    /// The last thing that went wrong, and when.
    pub fn last_error(&self) -> Option<&(String, Now)> {
        self.last_error.as_ref()
    }

    /// Whether the state changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }
}
