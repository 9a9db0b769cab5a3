//! Children that hand their programs over to the next ones.
//!
//! A child that is to do so is sent the end of its peer's passage with that word, and has none
//! before. Descriptors that lie in passages count against what `user` may have under way; so as
//! many children hand over at a time as there is room for what they say that they have, twice.
//! Whatever a child puts in there in truth, it is bounded by the passage's buffer; and no child can
//! put in more than its own limit of open files lets it, which is below that of this process
//! ([`supervise::limit::Tiers`]). So the sockets of other peers' dials are never refused for that.

use super::children::Replace;
use super::{GRACE, Lonc, Machine, REPLACED_AT_ONCE, drain_timeout};
use crate::handover::IN_PASSAGE;
use crate::messages::ToLink;
use base::HostId;
use std::os::fd::AsFd;
use std::time::Instant;
use supervise::daemon::Role;
use supervise::limit;
use supervise::table::{Event, State};

/// What goes along with the connections of one child: a file for each message.
const BESIDE: u64 = 60;

impl Lonc {
    /// Whether one more child can hand over now.
    fn has_room(&self, peer: &HostId) -> bool {
        let room = self.tiers.under_way() / 2;
        let has = |peer: &HostId| (self.board.clients(peer) + BESIDE).min(IN_PASSAGE);
        // A child that is on its way out is noted to have what it had, or has none left.
        let under_way: u64 = self.passages.peers().map(has).sum();
        under_way == 0 || under_way + has(peer) <= room
    }

    /// Has children replaced, a few at a time.
    pub(super) fn replace_in_turn(&mut self, m: &mut Machine<'_>, now: Instant) {
        while let Some(Replace { peer, pid, drain }) = self.replacing.front() {
            if self.table.leaving() >= REPLACED_AT_ONCE {
                break;
            }
            let (peer, pid, drain) = (peer.clone(), *pid, *drain);
            let is_there = self.table.key_of(pid) == Some(&peer);
            if is_there && !self.has_room(&peer) {
                break;
            }
            self.replacing.pop_front();
            if is_there {
                self.tell(m, &peer, Event::Drain { deadline: now + drain + GRACE }, now);
            }
        }
    }

    /// A child was told by a signal to end, or cannot go on.
    pub(super) fn wants_to_hand_over(&mut self, m: &mut Machine<'_>, peer: &HostId, now: Instant) {
        if m.is_stopping() {
            return self.send(m, peer, &ToLink::Drain, now);
        }
        let deadline = now + drain_timeout(&m.start.config, peer) + GRACE;
        self.tell(m, peer, Event::Drain { deadline }, now);
    }

    /// Tells a child to hand over.
    pub(super) fn tell_hand_over(&mut self, m: &mut Machine<'_>, peer: &HostId, now: Instant) {
        match self.passages.open(peer) {
            Ok(true) => {
                if let Some(State::Draining { pid, .. }) = self.table.state(peer) {
                    limit::raise_of(pid, self.tiers.hands_over);
                }
                self.tell_untold(m, now);
            }
            Ok(false) => self.send(m, peer, &ToLink::HandOver, now),
            Err(error) => {
                log::error!(
                    "{peer}: make a way to the next process: {error}; its programs are served and closed"
                );
                self.send(m, peer, &ToLink::Drain, now);
            }
        }
    }

    /// Sends children that are to hand over what they need for that. One that does not read just
    /// now is told when it does, if that is before it is killed.
    pub(super) fn tell_untold(&mut self, m: &mut Machine<'_>, now: Instant) {
        let mut over = Vec::new();
        for (peer, passage) in self.passages.untold() {
            let [into, _] = passage.ends();
            match m.controls.send_descriptor(peer, &ToLink::HandOver, into.as_fd()) {
                Ok(false) => {}
                Ok(true) => over.push((peer.clone(), None)),
                // Whoever of this user has them under way; the child may still be told.
                Err(error) if error.raw_os_error() == Some(libc::ETOOMANYREFS) => {}
                Err(error) => over.push((peer.clone(), Some(error))),
            }
        }
        for (peer, error) in over {
            self.passages.told(&peer);
            if let Some(error) = error {
                self.broken(m, &peer, &error, now);
            }
        }
    }
}
