//! TERM, INT and QUIT: how `lonc` ends.
//!
//! No socket is left for new clients; the children finish what they have for a bounded time, or none at all. What is
//! left of them then was killed, and is said.

use super::{GRACE, LAST_WAIT, Supervisor};
use crate::status::LinkState;
use crate::supervise::sockets::LocalSocket;
use crate::supervise::table::{Action, Event};
use crate::supervise::{spawn, title};
use jiff::Timestamp;
use std::time::{Duration, Instant};

impl Supervisor<'_> {
    /// No new clients; the children finish what they have, for a bounded time.
    pub(super) fn stop(&mut self, now: Instant) {
        log::info!("stopping");
        title::set("supervisor, stopping");
        self.board.set_doing("stopping");
        self.close_sockets();
        self.replacing.clear();
        let deadline = now + self.longest_drain() + GRACE;
        self.stopping = Some(deadline + LAST_WAIT);
        for peer in self.children.keys() {
            self.tell(&peer, Event::Retire { deadline }, now);
        }
    }

    /// How long any child may go on.
    fn longest_drain(&self) -> Duration {
        self.start.config.peers.iter().map(|peer| peer.drain_timeout).max().unwrap_or_default()
    }

    /// How long an end in order may take.
    pub(super) fn stops_within(&self) -> Duration {
        self.longest_drain() + GRACE + LAST_WAIT
    }

    /// The children are killed at once.
    pub(super) fn quit(&mut self, now: Instant) {
        log::warn!("stopping at once");
        self.close_sockets();
        self.replacing.clear();
        self.stopping = Some(now + LAST_WAIT);
        for peer in self.children.keys() {
            // Retired first, so that nothing follows it; the order to drain is not sent.
            if self.children.table.tell(&peer, Event::Retire { deadline: now }, now).is_some() {
                log::debug!("{peer}: no time to drain");
            }
            if let Some(Action::Kill(pid)) = self.children.table.tell(&peer, Event::Kill, now) {
                spawn::kill_now(pid);
            }
        }
    }

    fn close_sockets(&mut self) {
        self.start.restarts.cancel();
        self.listen_again = None;
        std::mem::take(&mut self.listeners).values().for_each(LocalSocket::remove);
        self.passages.close_all();
        self.admin.close(self.poll.registry());
    }

    pub(super) fn finish(&mut self) {
        for (peer, state) in self.children.table.iter() {
            log::error!("{peer}: child {:?} is still there", state.pid());
        }
        let now = Timestamp::now();
        for id in self.start.config.peers.iter().map(|peer| &peer.host.id) {
            self.board.unserved(id, LinkState::Stopped, "stopped", None, now);
        }
        self.board.set_doing("stopped");
        self.board.write();
        log::info!("stopped");
        self.start.places.release();
    }
}
