//! What there is to tell of the broker: what it has counted, what went wrong with its spool, and
//! whether the supervisor, and by it a status page, is to hear of it.
//!
//! A change of state is told at once. Counters that change while the state does not are told at
//! most every [`REPORT_EVERY`]. What is logged of the spool and of programs passes here too, so
//! that the same fault is not logged for each request.

use super::Broker;
use crate::link::Now;
use base::WireKind;
use base::log_quota::{ByUser, Repeats};
use status::{LinkState, PeerStatus};
use std::time::{Duration, Instant};
use store::spool::{Disk, StoreError, Waiting};

/// Least time between two reports of counters that changed while the state did not.
const REPORT_EVERY: Duration = Duration::from_millis(250);

/// Messages in the spool: those that wait, those set aside as failed, those as corrupt.
type Counts = (u64, u64, u64);

fn counts(waiting: &Waiting) -> Counts {
    (waiting.messages, waiting.failed, waiting.corrupt)
}

/// See the module.
#[derive(Debug)]
pub(super) struct Report {
    /// Requests that were answered by the peer.
    done: u64,
    /// Requests of which nobody knows whether they were carried out, or that were refused.
    lost: u64,
    /// Requests that their programs may not ask.
    refused: u64,
    /// For what is said of those.
    refused_repeats: ByUser,
    /// What went wrong with the spool last.
    spool_error: Option<(String, Now)>,
    /// For what is said of the spool.
    spool_repeats: Repeats,
    /// For what is said of users who have their share of the spool.
    share_repeats: Repeats,
    /// For what is said of dropped files that can be no message.
    aside_repeats: Repeats,
    /// For what is said of programs.
    client_repeats: Repeats,
    /// The supervisor is to hear of a change at once.
    changed: bool,
    /// What was told of the spool last.
    told: Counts,
    told_at: Instant,
}

impl Report {
    /// Nothing was told yet: the first thing is, at once.
    pub(super) fn new(now: Instant) -> Report {
        Report {
            done: 0,
            lost: 0,
            refused: 0,
            refused_repeats: ByUser::default(),
            spool_error: None,
            spool_repeats: Repeats::default(),
            share_repeats: Repeats::default(),
            aside_repeats: Repeats::default(),
            client_repeats: Repeats::default(),
            changed: true,
            told: (0, 0, 0),
            told_at: now,
        }
    }

    /// One more request was answered by the peer.
    pub(super) fn one_done(&mut self) {
        self.done += 1;
    }

    /// One more request was lost, or refused.
    pub(super) fn one_lost(&mut self) {
        self.lost += 1;
    }

    /// One more request was one that its program may not ask: what to log of that, if anything.
    /// Such lines are bounded, whatever they say; each user has some of its own.
    pub(super) fn one_refused(&mut self, user: u32, command: &[u8], text: &str, now: Now) -> Option<String> {
        self.refused += 1;
        self.refused_repeats.line(user, command, text, now.mono)
    }

    /// The state changed in a way that the supervisor is to hear of at once.
    pub(super) fn changes(&mut self) {
        self.changed = true;
    }

    /// At the end of a turn: the supervisor is to hear of the spool's counters if they are others
    /// than it knows, and it has not just heard of some.
    pub(super) fn end_turn(&mut self, waiting: &Waiting, now: Instant) {
        self.changed |= self.deadline(waiting).is_some_and(|at| at <= now);
    }

    /// When the supervisor is to hear of the spool's counters, if they are others than it knows.
    pub(super) fn deadline(&self, waiting: &Waiting) -> Option<Instant> {
        (counts(waiting) != self.told).then(|| self.told_at + REPORT_EVERY)
    }

    /// What to log of something about the spool, if anything.
    pub(super) fn spool_line(&mut self, text: &str, now: Now) -> Option<String> {
        self.spool_repeats.line(text, now.mono)
    }

    /// What to log of a dropped file that can be no message, if anything: whoever drops files may
    /// drop thousands of those.
    pub(super) fn aside_line(&mut self, text: &str, now: Now) -> Option<String> {
        self.aside_repeats.line(text, now.mono)
    }

    /// What to log of something about a program, if anything.
    pub(super) fn client_line(&mut self, text: &str, now: Now) -> Option<String> {
        self.client_repeats.line(text, now.mono)
    }

    /// Something is wrong with the spool.
    pub(super) fn spool_error(&mut self, error: &dyn std::error::Error, now: Now) {
        let text = error.to_string();
        if let Some(line) = self.spool_line(&text, now) {
            log::error!("{line}");
            self.changes();
        }
        self.spool_error = Some((text, now));
    }

    /// A message was not stored. Of users who have their share each is named.
    pub(super) fn not_stored(&mut self, error: &StoreError, now: Now) {
        let StoreError::Over(over) = error else { return self.spool_error(error, now) };
        let text = error.to_string();
        if let Some(line) = self.share_repeats.line_about(over.user.0, &text, now.mono) {
            log::warn!("{line}");
            self.changes();
        }
        self.spool_error = Some((text, now));
    }

    /// The later of the spool's last error and of `links`, the link's.
    fn last_error<'a>(&'a self, links: Option<&'a (String, Now)>) -> Option<&'a (String, Now)> {
        match (links, &self.spool_error) {
            (Some(link), Some(spool)) => Some(if spool.1.mono > link.1.mono { spool } else { link }),
            (link, spool) => link.or(spool.as_ref()),
        }
    }
}

impl<D: Disk> Broker<D> {
    /// Whether there is news for the supervisor since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.report.changed)
    }

    /// What there is to tell.
    pub fn status(&mut self, now: Now) -> PeerStatus {
        let waiting = self.spool.waiting();
        self.report.told = counts(&waiting);
        self.report.told_at = now.mono;
        let last_error = self.report.last_error(self.link.last_error());
        let ending = self.ending.has_begun();
        let wire = self.settings.peer.wire;
        PeerStatus {
            peer: self.settings.peer.host.id.clone(),
            pid: std::process::id(),
            state: if ending { LinkState::Draining } else { self.link.state() },
            since: self.link.since().told(now),
            next_dial: if ending { None } else { self.link.next_dial(now) },
            doing: if ending { "answering what is there, then ending".into() } else { self.link.doing(now) },
            wire: match wire {
                WireKind::Classic => "classic".to_owned(),
                WireKind::Secure => "secure".to_owned(),
            },
            private: wire == WireKind::Secure,
            // The reactor has the key.
            own_pin: None,
            // The reactor knows what confines it.
            sandbox: None,
            in_flight: self.pending.len() as u64,
            done: self.report.done,
            lost: self.report.lost,
            refused: self.report.refused,
            clients: self.programs.sessions().len() as u64,
            delayed: waiting.messages,
            delayed_bytes: waiting.bytes,
            oldest: waiting.oldest,
            failed: waiting.failed,
            corrupt: waiting.corrupt,
            last_error: last_error.map(|(text, _)| text.clone()),
            last_error_at: last_error.map(|(_, at)| at.told(now)),
            last_error_past: !ending && last_error.is_some_and(|(_, at)| self.link.is_past(*at)),
            last_log: base::logging::last_line(),
            away: self.away.status(now, |command| self.spool.held(command)),
        }
    }
}
