//! HUP: what a `lonc` leaves to the one that follows it under the same pid, and how that one takes it over.
//!
//! Nothing is let go before the new program has it: one that does not pass its trial, or an `exec` that fails, leaves
//! the old program as it was.

use super::passages::LeftPassage;
use super::watch::{LeftWatch, Watch};
use super::{GRACE, Replace, Supervisor, next};
use crate::base::HostId;
use crate::status::PeerStatus;
use crate::supervise::control;
use crate::supervise::sockets::{LocalSocket, Mark};
use crate::supervise::startup::{Common, Legacy, Start};
use crate::supervise::table::{self, Event};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Instant;

/// Sockets, children, and what is known of the links. Descriptors are numbers; the handoff keeps them open.
#[derive(Debug, Serialize, Deserialize)]
pub struct Left {
    /// Lock and log.
    pub common: Common,
    /// When the first program under this pid started.
    pub started: Timestamp,
    /// The socket that `lon status` asks on.
    pub admin: Option<RawFd>,
    /// What its file is known by; an older program does not say.
    #[serde(default)]
    pub admin_mark: Option<Mark>,
    /// The watch over the delayed directory.
    pub watch: Option<LeftWatch>,
    /// The local sockets.
    pub listeners: Vec<(HostId, RawFd)>,
    /// What their files are known by; an older program does not say.
    #[serde(default)]
    pub marks: Vec<(HostId, Option<Mark>)>,
    /// The ways of connected programs to the next child; an older program has none.
    #[serde(default)]
    pub passages: Vec<LeftPassage>,
    /// Every child that was not reaped.
    pub children: Vec<LeftChild>,
    /// The last status of each link.
    pub statuses: Vec<PeerStatus>,
}

/// A child that goes on while the program of its supervisor is replaced.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeftChild {
    /// Whom it serves.
    pub peer: HostId,
    /// Where it stands.
    pub state: table::Carried,
    /// Its control socket, if it has not let go of it, and what is under way on it.
    pub control: Option<(RawFd, control::Carried)>,
}

impl Legacy for Left {
    fn common(&self) -> &Common {
        &self.common
    }
}

impl Supervisor<'_> {
    /// What a HUP asks for, step by step: see [`crate::supervise::restart`].
    pub(super) fn restart(&mut self, now: Instant) {
        while let Some(step) = self.start.restarts.step(now) {
            let left = self.leave(now);
            let Start { restarts, image, places, .. } = &mut *self.start;
            let (lock, spool_lock) = places.descriptors();
            let listeners = self.listeners.values().map(AsFd::as_fd);
            let mut open: Vec<BorrowedFd<'_>> = vec![lock, self.admin.as_fd()];
            open.extend(spool_lock);
            open.extend(listeners.chain(self.children.descriptors()));
            open.extend(self.passages.descriptors());
            open.extend(self.watch.as_ref().map(Watch::as_fd));
            let late = restarts.carry_out(step, image, left, &open, &mut self.signals, now);
            late.into_iter().for_each(|signal| self.signal(signal, now));
        }
        self.board.set_failure(self.start.restarts.failure());
    }

    fn leave(&self, now: Instant) -> io::Result<Left> {
        Ok(Left {
            common: Common::of(self.start, self.links.key().pin().is_some(), &self.start.restarts),
            started: self.board.started(),
            admin: Some(self.admin.as_fd().as_raw_fd()),
            admin_mark: self.admin.mark(),
            watch: self.watch.as_ref().map(Watch::leave),
            listeners: self
                .listeners
                .iter()
                .map(|(peer, socket)| (peer.clone(), socket.as_fd().as_raw_fd()))
                .collect(),
            marks: self.listeners.iter().map(|(peer, socket)| (peer.clone(), socket.mark())).collect(),
            passages: self.passages.leave(),
            children: self.children.leave(now)?,
            statuses: self.board.peers().to_vec(),
        })
    }

    /// Takes over what the program before `exec` left: sockets of peers that are still there, and every child, to
    /// be replaced in turn.
    pub(super) fn adopt(&mut self, left: Left, mut take: impl FnMut(i32) -> Option<OwnedFd>, now: Instant) {
        log::info!("started anew, {} links", self.start.config.peers.len());
        for status in left.statuses {
            self.board.note(status);
        }
        let mut marks: HashMap<HostId, Option<Mark>> = left.marks.into_iter().collect();
        for (id, number) in left.listeners {
            let Some(fd) = take(number) else { continue };
            let path = self.start.config.socket_path(&id);
            let socket = LocalSocket::adopt(&path, fd, marks.remove(&id).flatten());
            let Some(peer) = self.start.config.peer(&id) else {
                log::info!("{id} is no longer in the table: its socket goes");
                socket.remove();
                continue;
            };
            // One that is gone, or is another's by now, is made anew.
            if !socket.is_in_place() {
                continue;
            }
            if let Err(error) = socket.set_mode(peer.socket_mode) {
                log::error!("{error}");
            }
            self.listeners.insert(id, socket);
        }
        let config = &self.start.config;
        self.passages.adopt(left.passages, &mut take, |peer| config.peer(peer).is_some());
        for child in left.children {
            let control = child.control.and_then(|(number, carried)| Some((take(number)?, carried)));
            let (peer, token) = (child.peer, next(&mut self.next_token));
            self.children.adopt(peer.clone(), child.state, control, token, self.poll.registry(), now);
            if self.start.config.peer(&peer).is_some() {
                let drain = self.drain_timeout(&peer);
                self.replacing.push_back(Replace { peer, pid: child.state.pid, drain });
            } else {
                let deadline = now + GRACE;
                self.tell(&peer, Event::Retire { deadline }, now);
            }
        }
    }
}
