//! The broker's part when the child is to end for good: what was read is still answered, for a
//! while.
//!
//! Where the next child goes on with the programs see `handing`.

use super::Broker;
use super::ending::{Ending, Limit};
use crate::link::{Event, Now};
use std::time::Instant;
use store::spool::Disk;

impl<D: Disk> Broker<D> {
    /// Takes no more requests than have been read, closes the programs' connections, and ends when
    /// these are answered or `drain_timeout` is over.
    pub fn drain(&mut self, now: Now) {
        self.drain_by(now.mono + self.settings.peer.drain_timeout);
    }

    pub(super) fn drain_by(&mut self, deadline: Instant) {
        if !self.ending.has_begun() {
            self.ending = Ending::Draining(Limit::By(deadline));
            self.report.changes();
            self.grace.end();
            for id in self.clients() {
                self.client_closed_input(id);
            }
        }
    }

    /// Ends the link once nothing is under way any more.
    pub(super) fn end_drain(&mut self, now: Now) {
        // Stored messages in flight are waited for too, so that they need not be sent again.
        if self.ending.has_begun()
            && self.pending.is_empty()
            && self.programs.none_waits()
            && self.held.is_empty()
        {
            self.link_event(Event::Stop, now);
        }
    }
}
