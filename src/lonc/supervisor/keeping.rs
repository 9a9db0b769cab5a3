//! What others may take away under a `lonc` that runs: its folders, locks, sockets, and the watch over the delayed directory.
//!
//! Looked at every [`crate::supervise::places::KEEP_PAUSE`]; what is gone is made again, with one line for all of it. Links
//! and connected programs notice nothing: a child is told of its peer's new socket and goes on. Where another program has
//! `run_dir` by now, its sockets are left alone.

use super::Supervisor;
use crate::supervise::places::Kept;
use crate::supervise::sockets::LocalSocket;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Instant;

impl Supervisor<'_> {
    /// Looks after all of it, if it is time.
    pub(super) fn keep_places(&mut self, now: Instant) {
        let Some(Kept { ours, mut back }) = self.start.places.keep(&self.start.config, now) else { return };
        if ours {
            self.keep_admin(&mut back, now);
            self.keep_sockets(&mut back, now);
        }
        self.start.places.say_back(&back, now);
        self.board.see_files();
        self.tell_listeners(now);
        self.keep_watch(now);
    }

    fn keep_admin(&mut self, back: &mut Vec<PathBuf>, now: Instant) {
        if self.admin.is_in_place() {
            return;
        }
        match self.admin.listen_anew(self.poll.registry()) {
            Ok(()) => back.push(self.start.config.run_dir.join(super::ADMIN_SOCKET)),
            Err(error) => self.say_trouble(&format!("open the status socket: {error}; tried again"), now),
        }
    }

    fn keep_sockets(&mut self, back: &mut Vec<PathBuf>, now: Instant) {
        let mut failures = Vec::new();
        for (id, socket) in self.listeners.iter_mut().filter(|(_, socket)| !socket.is_in_place()) {
            let Some(peer) = self.start.config.peer(id) else { continue };
            match LocalSocket::listen(socket.path(), peer.socket_mode) {
                Ok(new) => {
                    back.push(new.path().to_owned());
                    *socket = new;
                    self.untold.insert(id.clone());
                }
                Err(error) => {
                    failures
                        .push(format!("{id}: {error}; no program finds this link until that is put right"));
                }
            }
        }
        failures.iter().for_each(|text| self.say_trouble(text, now));
    }

    /// Tells children of the new sockets of their peers. One that does not read just now is told the next time.
    fn tell_listeners(&mut self, now: Instant) {
        let mut broken = Vec::new();
        let (children, listeners) = (&mut self.children, &self.listeners);
        self.untold.retain(|id| {
            let Some(socket) = listeners.get(id) else { return false };
            match children.send_listener(id, socket.as_fd()) {
                Ok(told) => !told,
                Err(error) => {
                    broken.push((id.clone(), error));
                    false
                }
            }
        });
        broken.iter().for_each(|(id, error)| self.broken(id, error, now));
    }

    fn say_trouble(&mut self, text: &str, now: Instant) {
        if let Some(line) = self.trouble.line(text, now) {
            log::error!("{line}");
        }
    }
}
