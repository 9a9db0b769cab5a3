//! How long programs wait for a dial before they are answered `con_lost`.
//!
//! Where the child is new, or the peer has gone in order, the link is most likely up in a moment:
//! requests that come meanwhile wait for the end of one dial, [`DIAL_GRACE`] at most, so that a
//! restart of either end is not seen by programs.

use std::time::{Duration, Instant};

/// How long programs wait for a dial to end at most.
const DIAL_GRACE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Grace {
    /// What is waited for; `None`: nothing, requests are taken as they come.
    dial: Option<Dial>,
}

/// The dial that is waited for.
#[derive(Debug)]
struct Dial {
    /// It is waited for until then.
    until: Instant,
    /// It has ended when more dials than these have.
    attempts: u64,
}

impl Grace {
    /// Programs wait for the next dial; `attempts` have ended by now.
    pub(super) fn begun(attempts: u64, now: Instant) -> Grace {
        Grace { dial: Some(Dial { until: now + DIAL_GRACE, attempts }) }
    }

    /// Nothing is waited for any more.
    pub(super) fn end(&mut self) {
        self.dial = None;
    }

    /// Ends it when its time is over or the dial has ended; `attempts` have by now.
    pub(super) fn keep_time(&mut self, attempts: u64, now: Instant) {
        self.dial.take_if(|dial| dial.until <= now || attempts > dial.attempts);
    }

    /// Whether requests wait now.
    pub(super) fn holds(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|until| until > now)
    }

    /// When it is over at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.dial.as_ref().map(|dial| dial.until)
    }
}
