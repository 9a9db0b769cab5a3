//! A host that was away is back: `lonc` is sent USR1, so that it does not wait with its own
//! dialling.

use config::Config;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};
use supervise::{files, lock, spawn};

/// `lonc` is not signalled more often than this.
pub const GREET_PAUSE: Duration = Duration::from_secs(1);

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    /// `lonc` is to be signalled then.
    at: Option<Instant>,
    last: Option<Instant>,
}

impl Greeting {
    /// A host is back.
    pub(super) fn want(&mut self, now: Instant) {
        self.at = Some(self.last.map_or(now, |last| (last + GREET_PAUSE).max(now)));
    }

    /// When [`Greeting::greet_if_due`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.at
    }

    /// Signals `lonc`, if it is time and it runs.
    pub(super) fn greet_if_due(&mut self, config: &Config, now: Instant) {
        if self.at.is_none_or(|at| at > now) {
            return;
        }
        (self.at, self.last) = (None, Some(now));
        let file = files::pid_file("lonc", config);
        if let Some(pid) = lock::running_pid(&file)
            && !spawn::send(pid, Signal::SIGUSR1)
        {
            log::warn!("signal lonc, process {pid}: refused; it will dial in its own time");
        }
    }
}
