//! What others may take away under a `lond` that runs: its folders, its locks, its admin socket.
//!
//! Looked at every [`crate::supervise::places::KEEP_PAUSE`]; what is gone is made again, with one line for all of it.
//! Where another program has `run_dir` by now, its socket is left alone.

use super::{ADMIN_SOCKET, Supervisor};
use crate::supervise::places::Kept;
use std::time::Instant;

impl Supervisor<'_> {
    /// Looks after all of it, if it is time.
    pub(super) fn keep_places(&mut self, now: Instant) {
        let Some(Kept { ours, mut back }) = self.start.places.keep(&self.start.config, now) else { return };
        if ours && !self.admin.is_in_place() {
            match self.admin.listen_anew(self.poll.registry()) {
                Ok(()) => back.push(self.start.config.run_dir.join(ADMIN_SOCKET)),
                Err(error) => {
                    let text = format!("open the status socket: {error}; tried again");
                    if let Some(line) = self.trouble.line(&text, now) {
                        log::error!("{line}");
                    }
                }
            }
        }
        self.start.places.say_back(&back, now);
        self.board.see_file(&self.start.config);
    }
}
