//! The local socket of each peer.
//!
//! One that cannot be made (a full disk, something else in its place) is an error in the log and in the status, once; it is
//! tried again every [`LISTEN_PAUSE`], and its peer is served from when that succeeds.

use super::Supervisor;
use crate::status::LinkState;
use crate::supervise::sockets::LocalSocket;
use jiff::Timestamp;
use std::time::{Duration, Instant};

/// Pause before sockets that could not be made are tried again.
const LISTEN_PAUSE: Duration = Duration::from_secs(2);

impl Supervisor<'_> {
    /// Makes the sockets that are not there, and wants a child for each peer that has one.
    pub(super) fn listen_where_missing(&mut self, now: Instant) {
        let config = &self.start.config;
        let tried_before = self.listen_again.take().is_some();
        for peer in &config.peers {
            let id = &peer.host.id;
            if self.listeners.contains_key(id) {
                continue;
            }
            match LocalSocket::listen(&config.socket_path(id), peer.socket_mode) {
                Ok(socket) => {
                    self.listeners.insert(id.clone(), socket);
                }
                Err(error) => {
                    self.listen_again = Some(now + LISTEN_PAUSE);
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
        for id in self.listeners.keys() {
            self.children.table.want(id.clone(), now);
        }
    }
}
