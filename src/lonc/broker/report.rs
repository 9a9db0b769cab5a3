//! The broker's part that tells how it is: what the supervisor, and by it a status page, is shown.

use super::Broker;
use crate::link::Now;
use base::WireKind;
use status::{LinkState, PeerStatus};
use store::spool::Disk;

impl<D: Disk> Broker<D> {
    /// Whether there is news for the supervisor since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// What there is to tell.
    pub fn status(&mut self, now: Now) -> PeerStatus {
        let waiting = self.spool.waiting();
        self.reported = (waiting.messages, waiting.failed, waiting.corrupt);
        self.reported_at = now.mono;
        let last_error = match (self.link.last_error(), &self.spool_error) {
            (Some(link), Some(spool)) => Some(if spool.1.mono > link.1.mono { spool } else { link }),
            (link, spool) => link.or(spool.as_ref()),
        };
        let draining = self.draining.is_some();
        PeerStatus {
            peer: self.peer.clone(),
            pid: std::process::id(),
            state: if draining { LinkState::Draining } else { self.link.state() },
            since: self.link.since().told(now),
            next_dial: if draining { None } else { self.link.next_dial(now) },
            doing: if draining {
                "answering what is there, then ending".into()
            } else {
                self.link.doing(now)
            },
            wire: match self.wire {
                WireKind::Classic => "classic".to_owned(),
                WireKind::Secure => "secure".to_owned(),
            },
            private: self.wire == WireKind::Secure,
            // The reactor has the key.
            own_pin: None,
            in_flight: self.pending.len() as u64,
            done: self.counters.done,
            lost: self.counters.lost,
            clients: self.sessions.len() as u64,
            delayed: waiting.messages,
            delayed_bytes: waiting.bytes,
            oldest: waiting.oldest,
            failed: waiting.failed,
            corrupt: waiting.corrupt,
            last_error: last_error.map(|(text, _)| text.clone()),
            last_error_at: last_error.map(|(_, at)| at.told(now)),
            last_error_past: !draining && last_error.is_some_and(|(_, at)| self.link.is_past(*at)),
            last_log: base::logging::last_line(),
            away: self.away.status(now, |command| self.spool.held(command)),
        }
    }
}
