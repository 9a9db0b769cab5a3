//! HUP: what a `lonc` leaves to the one that follows it, beside what every program leaves, and how
//! that one takes it over.

use super::children::Replace;
use super::passages::LeftPassage;
use super::watch::{LeftWatch, Watch};
use super::{GRACE, Lonc, Machine, drain_timeout};
use crate::dials::LeftQuestion;
use base::HostId;
use serde::{Deserialize, Serialize};
use status::PeerStatus;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Instant;
use supervise::control;
use supervise::sockets::{LocalSocket, Mark};
use supervise::table::{self, Event};

/// Sockets, children, and what is known of the links.
#[derive(Debug, Serialize, Deserialize)]
pub struct Own {
    /// The watch over the delayed directory.
    pub watch: Option<LeftWatch>,
    /// The local sockets.
    pub listeners: Vec<(HostId, RawFd)>,
    /// What their files are known by; an older program does not say.
    #[serde(default)]
    pub marks: Vec<(HostId, Option<Mark>)>,
    /// The ways of connected programs to the next child, which the children of an older program
    /// have from their birth.
    #[serde(default)]
    pub passages: Vec<LeftPassage>,
    /// The ways of those that are between two children.
    #[serde(default)]
    pub between: Vec<LeftPassage>,
    /// Every child that was not reaped.
    pub children: Vec<LeftChild>,
    /// The last status of each link.
    pub statuses: Vec<PeerStatus>,
    /// What children have asked for their dials; an older program has none.
    #[serde(default)]
    pub dials: Vec<LeftQuestion<HostId>>,
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

impl Lonc {
    pub(super) fn leave_all(&self, m: &Machine<'_>, now: Instant) -> io::Result<Own> {
        let mut children = Vec::new();
        for (peer, state) in self.table.iter() {
            let Some(state) = table::Carried::from_state(state, now) else { continue };
            children.push(LeftChild { peer: peer.clone(), state, control: m.controls.leave(peer)? });
        }
        let listeners = &self.sockets.listeners;
        let [passages, between] = self.passages.leave();
        Ok(Own {
            watch: self.lookout.watch.as_ref().map(Watch::leave),
            listeners: listeners
                .iter()
                .map(|(peer, socket)| (peer.clone(), socket.as_fd().as_raw_fd()))
                .collect(),
            marks: listeners.iter().map(|(peer, socket)| (peer.clone(), socket.mark())).collect(),
            passages,
            between,
            children,
            statuses: self.board.peers().to_vec(),
            dials: self.dialling.dials.leave(),
        })
    }

    /// Takes over what the program before `exec` left: sockets of peers that are still there, and
    /// every child, to be replaced in turn.
    pub(super) fn adopt(
        &mut self,
        m: &mut Machine<'_>,
        left: Own,
        take: &mut impl FnMut(RawFd) -> Option<OwnedFd>,
        now: Instant,
    ) {
        log::info!("started anew, {} links", m.start.config.peers.len());
        for status in left.statuses {
            self.board.note(status);
        }
        let marks: HashMap<HostId, Option<Mark>> = left.marks.into_iter().collect();
        self.adopt_sockets(m, left.listeners, marks, take);
        let config = &m.start.config;
        let passages = [left.passages, left.between];
        self.passages.adopt(passages, &mut *take, |peer| config.peer(peer).is_some());
        for child in left.children {
            self.adopt_child(m, child, take, now);
        }
        self.line_up();
        self.dialling.dials.adopt(left.dials);
        self.retarget(m, now);
    }

    fn adopt_sockets(
        &mut self,
        m: &Machine<'_>,
        listeners: Vec<(HostId, RawFd)>,
        mut marks: HashMap<HostId, Option<Mark>>,
        take: &mut impl FnMut(RawFd) -> Option<OwnedFd>,
    ) {
        for (id, number) in listeners {
            let Some(fd) = take(number) else { continue };
            let path = m.start.config.socket_path(&id);
            let socket = LocalSocket::adopt(&path, fd, marks.remove(&id).flatten());
            let Some(peer) = m.start.config.peer(&id) else {
                log::info!("{id} is no longer in the table: its socket goes");
                socket.remove();
                continue;
            };
            // One that is gone, or is another's by now, is made anew.
            if !socket.is_in_place() || !socket.takes_connections() {
                continue;
            }
            if let Err(error) = socket.set_mode(peer.socket_mode) {
                log::error!("{error}");
            }
            self.sockets.listeners.insert(id, socket);
        }
    }

    fn adopt_child(
        &mut self,
        m: &mut Machine<'_>,
        child: LeftChild,
        take: &mut impl FnMut(RawFd) -> Option<OwnedFd>,
        now: Instant,
    ) {
        let LeftChild { peer, state, control } = child;
        self.table.adopt(peer.clone(), state.state(now));
        let token = m.tokens.fresh();
        if let Some((number, carried)) = control
            && let Some(fd) = take(number)
            && let Err(error) = m.controls.resume(peer.clone(), (fd, carried), m.poll.registry(), token)
        {
            log::error!("{peer}: take over its control socket: {error}");
        }
        if m.start.config.peer(&peer).is_some() {
            let drain = drain_timeout(&m.start.config, &peer);
            self.replacing.push_back(Replace { peer, pid: state.pid, drain });
        } else {
            let deadline = now + GRACE;
            self.tell(m, &peer, Event::Retire { deadline }, now);
        }
    }
}
