//! HUP: what a program leaves to the one that follows it under the same pid.
//!
//! Nothing is let go before the new program has it: one that does not pass its trial, or an `exec`
//! that fails, leaves the old program as it was. Descriptors are numbers;
//! [`crate::exec_state`] keeps them open.

use super::{Daemon, Machine, Role};
use crate::inheritance::{Common, Inherited};
use crate::restart::Left;
use crate::sockets::Mark;
use crate::startup::Start;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Instant;

/// See the head of this file. `T` is the role's own.
#[derive(Debug, Serialize, Deserialize)]
pub struct Inheritance<T> {
    /// Lock and log.
    pub common: Common,
    /// When the first program under this pid started; not there in what a program left that did not
    /// say so.
    #[serde(default)]
    pub started: Option<Timestamp>,
    /// The socket that `lon status` asks on.
    #[serde(default)]
    pub admin: Option<RawFd>,
    /// What its file is known by; an older program does not say.
    #[serde(default)]
    pub admin_mark: Option<Mark>,
    /// Beside these, in one object.
    #[serde(flatten)]
    pub own: T,
}

impl<T: DeserializeOwned> Inherited for Inheritance<T> {
    fn common(&self) -> &Common {
        &self.common
    }
}

impl<R: Role> Daemon<'_, R> {
    /// What a HUP asks for, step by step: see [`crate::restart`].
    pub(super) fn restart(&mut self, now: Instant) {
        while let Some(step) = self.machine.start.restarts.step(now) {
            let Daemon { role, machine } = self;
            let inheritance = leave(role, machine, now);
            let Start { restarts, image, places, .. } = &mut *machine.start;
            let (lock, spool_lock) = places.descriptors();
            let mut open: Vec<BorrowedFd<'_>> = vec![lock, machine.admin.as_fd()];
            open.extend(spool_lock);
            open.extend(machine.controls.descriptors());
            open.extend(role.descriptors());
            let left = Left { inheritance, descriptors: &open };
            let late = restarts.carry_out(step, image, left, &mut machine.signals, now);
            late.into_iter().for_each(|signal| self.signal(signal, now));
        }
        self.role.board_mut().set_failure(self.machine.start.restarts.failure());
    }
}

fn leave<R: Role>(role: &R, machine: &Machine<'_, R>, now: Instant) -> io::Result<Inheritance<R::Own>> {
    Ok(Inheritance {
        common: machine.start.common(machine.key.pin().is_some()),
        started: Some(role.board().started()),
        admin: Some(machine.admin.as_fd().as_raw_fd()),
        admin_mark: machine.admin.mark(),
        own: role.leave(machine, now)?,
    })
}
