//! TERM, INT and QUIT: how `lond` ends.
//!
//! Nobody is let in any more; the children finish what they have for a bounded time, or none at all. What is left of
//! them then was killed, and is said.

use super::board::Seen;
use super::links::Event;
use super::listeners::Listener;
use super::{LAST_WAIT, Supervisor};
use crate::supervise::{spawn, title};
use std::time::Instant;

impl Supervisor<'_> {
    /// No new callers; the children finish what they have, for a bounded time.
    pub(super) fn stop(&mut self, now: Instant) {
        log::info!("stopping");
        title::set("supervisor, stopping");
        self.close_doors("stopping");
        let deadline = self.drain_deadline(now);
        self.stopping = Some(deadline + LAST_WAIT);
        for pid in self.pids() {
            self.tell(pid, Event::Drain { deadline }, now);
        }
    }

    /// The children are killed at once.
    pub(super) fn quit(&mut self, now: Instant) {
        log::warn!("stopping at once");
        self.close_doors("stopping at once");
        self.stopping = Some(now + LAST_WAIT);
        for pid in self.pids() {
            if self.links.tell(pid, Event::Kill).is_some() {
                spawn::kill_now(pid);
            }
        }
    }

    fn close_doors(&mut self, doing: &'static str) {
        self.start.restarts.cancel();
        self.listeners.drain(..).for_each(Listener::close);
        self.absent.retain(|_| false);
        self.lobby.close();
        self.admin.close(self.poll.registry());
        self.board.set_doing(doing);
    }

    pub(super) fn finish(&mut self) {
        if let Some(pid) = self.names.pid() {
            spawn::kill_now(pid);
        }
        for (pid, link) in self.links.iter() {
            log::error!("child {pid}, from {}, is still there", link.remote);
        }
        self.board.set_doing("stopped");
        let seen = Seen { listeners: &self.listeners, absent: &self.absent, links: &self.links };
        self.board.write(&self.start.config, seen);
        log::info!("stopped");
        self.start.places.release();
    }
}
