//! The local socket of each peer.
//!
//! One that cannot be made (a full disk, something else in its place) is an error in the log and in
//! the status, once; it is tried again every [`LISTEN_PAUSE`], and its peer is served from when
//! that succeeds. One that others take away is made again: links and connected programs notice
//! nothing, a child is told of its peer's new socket and goes on. A child has a copy of its peer's
//! socket, and none of ours shuts it; one that was shut is made again, and such a child is killed.

use super::{Lonc, Machine, order};
use crate::messages::ToLink;
use base::HostId;
use jiff::Timestamp;
use status::LinkState;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use supervise::daemon::Role;
use supervise::sockets::LocalSocket;

/// Pause before sockets that could not be made are tried again.
const LISTEN_PAUSE: Duration = Duration::from_secs(2);

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// Those that are there.
    pub listeners: BTreeMap<HostId, LocalSocket>,
    /// Some peer has no socket: when it is tried again.
    pub again: Option<Instant>,
    /// Peers whose children are yet to be told of another local socket.
    pub untold: BTreeSet<HostId>,
}

impl Sockets {
    /// No peer has one any more.
    pub(super) fn remove_all(&mut self) {
        self.again = None;
        std::mem::take(&mut self.listeners).values().for_each(LocalSocket::remove);
    }
}

impl Lonc {
    /// Makes the sockets that are not there, and wants a child for each peer that has one.
    pub(super) fn listen_where_missing(&mut self, m: &mut Machine<'_>, now: Instant) {
        let config = &m.start.config;
        let tried_before = self.sockets.again.take().is_some();
        for peer in &config.peers {
            let id = &peer.host.id;
            if self.sockets.listeners.contains_key(id) {
                continue;
            }
            match LocalSocket::listen(&config.socket_path(id), peer.socket_mode) {
                Ok(socket) => {
                    self.sockets.listeners.insert(id.clone(), socket);
                }
                Err(error) => {
                    self.sockets.again = Some(now + LISTEN_PAUSE);
                    let said = tried_before && self.board.last_error(id) == Some(&error.to_string());
                    if !said {
                        log::error!("{id}: {error}; the link is not served until that is put right");
                        let doing = "not served: no local socket";
                        let error = Some(error.to_string());
                        self.board.unserved(id, LinkState::Down, doing, error, Timestamp::now());
                    }
                }
            }
        }
        for id in self.sockets.listeners.keys() {
            let at = if self.later.contains(id) { order::later(now) } else { now };
            self.table.want(id.clone(), at);
        }
    }

    /// Makes those again that are gone.
    pub(super) fn keep_sockets(&mut self, m: &mut Machine<'_>, back: &mut Vec<PathBuf>, now: Instant) {
        let names_changed = self.run_names.may_have_changed(&m.start.config.run_dir, SystemTime::now());
        let mut failures = Vec::new();
        let mut shut = Vec::new();
        let Sockets { listeners, untold, .. } = &mut self.sockets;
        for (id, socket) in listeners.iter_mut() {
            let takes_connections = socket.takes_connections();
            if takes_connections && (!names_changed || socket.is_in_place()) {
                continue;
            }
            shut.extend((!takes_connections).then(|| id.clone()));
            let Some(peer) = m.start.config.peer(id) else { continue };
            match LocalSocket::listen(socket.path(), peer.socket_mode) {
                Ok(new) => {
                    back.push(new.path().to_owned());
                    *socket = new;
                    untold.insert(id.clone());
                }
                Err(error) => {
                    self.run_names.forget();
                    failures
                        .push(format!("{id}: {error}; no program finds this link until that is put right"));
                }
            }
        }
        for id in shut {
            log::error!("{id}: its child has shut its local socket; it is killed, and the next one begun");
            self.kill(m, &id, now);
        }
        for line in failures.iter().filter_map(|text| m.trouble(text, now)) {
            log::error!("{line}");
        }
    }

    /// The socket for a child that is about to be forked: another one if the child before has shut
    /// it.
    ///
    /// # Errors
    /// There is none, or no descriptor for a copy.
    pub(super) fn listener_for_child(&mut self, m: &Machine<'_>, id: &HostId) -> io::Result<UnixListener> {
        let none = || io::Error::new(io::ErrorKind::NotFound, "it has no socket");
        let socket = self.sockets.listeners.get_mut(id).ok_or_else(none)?;
        if !socket.takes_connections() {
            let peer = m.start.config.peer(id).ok_or_else(none)?;
            log::error!("{id}: the child before has shut the local socket; it is made again");
            *socket = LocalSocket::listen(socket.path(), peer.socket_mode).map_err(io::Error::other)?;
        }
        socket.listener().try_clone()
    }

    /// Tells children of the new sockets of their peers. One that does not read just now is told
    /// the next time.
    pub(super) fn tell_listeners(&mut self, m: &mut Machine<'_>, now: Instant) {
        let mut broken = Vec::new();
        let Sockets { listeners, untold, .. } = &mut self.sockets;
        untold.retain(|id| {
            let Some(socket) = listeners.get(id) else { return false };
            match m.controls.send_descriptor(id, &ToLink::Listen, socket.as_fd()) {
                Ok(told) => !told,
                Err(error) => {
                    broken.push((id.clone(), error));
                    false
                }
            }
        });
        broken.iter().for_each(|(id, error)| self.broken(m, id, error, now));
    }
}
