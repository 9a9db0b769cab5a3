//! How the child ends: not at all yet, for good, or so that the next child goes on with the
//! programs.
//!
//! ```text
//!   Not ---- drain ------> Draining     for good: `draining`
//!    +------ hand_over --> Handing      the programs go to the next child: `handing`
//! ```
//!
//! Whichever comes first holds. Either has a time by which everything is to be over; when that has
//! passed the end is *forced*: what a program has not read by then it will not get from here.

use super::handing::Handing;
use std::time::Instant;

/// See the module.
#[derive(Debug)]
pub(super) enum Ending {
    /// Requests are taken.
    Not,
    /// No new requests, and the programs' connections are closed.
    Draining(Limit),
    /// No new requests, and the programs go to the next child.
    Handing(Limit, Handing),
}

/// By when an end is over.
#[derive(Debug)]
pub(super) enum Limit {
    /// It is over by then, or forced.
    By(Instant),
    /// That time has passed: the end is forced.
    Passed,
}

impl Ending {
    /// Whether the child ends, in either way.
    pub(super) fn has_begun(&self) -> bool {
        self.limit().is_some()
    }

    /// Whether the time for it has passed.
    pub(super) fn is_forced(&self) -> bool {
        matches!(self.limit(), Some(Limit::Passed))
    }

    /// When that time passes, if it has not.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.limit() {
            Some(Limit::By(at)) => Some(*at),
            Some(Limit::Passed) | None => None,
        }
    }

    /// Forces the end if its time passes now; whether it does.
    pub(super) fn keep_time(&mut self, now: Instant) -> bool {
        let passes = self.deadline().is_some_and(|at| at <= now);
        if passes && let Ending::Draining(limit) | Ending::Handing(limit, _) = self {
            *limit = Limit::Passed;
        }
        passes
    }

    fn limit(&self) -> Option<&Limit> {
        match self {
            Ending::Not => None,
            Ending::Draining(limit) | Ending::Handing(limit, _) => Some(limit),
        }
    }
}
