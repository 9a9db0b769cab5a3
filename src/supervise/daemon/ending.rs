//! TERM, INT and QUIT: how a program ends.
//!
//! Nobody is let in any more; the children finish what they have for a bounded time, or none at
//! all. What is left of them then was killed, and is said.

use super::{Daemon, GRACE, LAST_WAIT, Role};
use crate::title;
use std::time::Instant;

impl<R: Role> Daemon<'_, R> {
    /// The children finish what they have, for a bounded time.
    pub(super) fn stop(&mut self, now: Instant) {
        log::info!("stopping");
        title::set("supervisor, stopping");
        self.close("stopping");
        let deadline = now + self.role.longest_drain(&self.machine.start.config) + GRACE;
        self.machine.stopping = Some(deadline + LAST_WAIT);
        self.role.drain_all(&mut self.machine, deadline, now);
    }

    /// The children are killed at once.
    pub(super) fn quit(&mut self, now: Instant) {
        log::warn!("stopping at once");
        self.close("stopping at once");
        self.machine.stopping = Some(now + LAST_WAIT);
        self.role.kill_all(&mut self.machine, now);
    }

    fn close(&mut self, doing: &str) {
        let Daemon { role, machine } = self;
        machine.start.restarts.cancel();
        role.close_doors(machine);
        machine.admin.close(machine.poll.registry());
        role.board_mut().set_doing(doing);
    }

    pub(super) fn finish(&mut self) {
        self.role.stopped(&self.machine.start.config);
        self.role.board_mut().set_doing("stopped");
        self.write();
        log::info!("stopped");
        self.machine.start.places.release();
    }
}
