//! What every role needs to do its work: the poll, its children's control sockets, tokens, and what
//! the program began with.

use super::{Inheritance, Role};
use crate::admin::Admin;
use crate::controls::{self, Controls, Ends};
use crate::own_key::OwnKey;
use crate::signals::Signals;
use crate::startup::Start;
use base::disk::Identity;
use base::log_quota::Repeats;
use config::Config;
use jiff::Timestamp;
use net::{Poll, Registry, Token};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Numbers that were not used yet.
#[derive(Debug)]
pub struct Tokens(usize);

impl Tokens {
    pub(super) fn from(first: usize) -> Tokens {
        Tokens(first)
    }

    /// One that nobody has had.
    pub fn fresh(&mut self) -> Token {
        self.0 += 1;
        Token(self.0)
    }
}

/// What a role is made from.
#[derive(Debug)]
pub struct Ground<'g> {
    /// The configuration that the role begins with.
    pub config: &'g Arc<Config>,
    /// This host's key.
    pub key: &'g OwnKey,
    /// Where sockets are registered.
    pub registry: &'g Registry,
    /// The names by which the poll tells of them.
    pub tokens: &'g mut Tokens,
    /// The program before this one serves already, under this pid: what can be tried again later is
    /// no reason to end.
    pub serves: bool,
    /// When the first program under this pid started.
    pub started: Timestamp,
    /// When this turn began.
    pub now: Instant,
}

/// See the head of this file.
pub struct Machine<'a, R: Role> {
    /// What the program began with.
    pub start: &'a mut Start<Inheritance<R::Own>>,
    /// The one poll.
    pub poll: Poll,
    pub(super) signals: Signals,
    /// The status socket.
    pub admin: Admin<R::Key>,
    /// What children are told by.
    pub controls: Controls<R::Key, R::Tell, R::Hear>,
    /// This host's key.
    pub key: OwnKey,
    /// For new sockets.
    pub tokens: Tokens,
    /// One buffer for every read.
    pub scratch: Vec<u8>,
    /// The program was told to stop; by then it gives up waiting for children.
    pub(super) stopping: Option<Instant>,
    /// What could not be made again of what had gone.
    pub(super) trouble: Repeats,
    /// Where the log lies, as far as that is known.
    pub(super) log_folder: Option<Identity>,
}

impl<R: Role> Machine<'_, R> {
    /// Whether the program was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Makes the control socket of a child that is about to be forked; gives the child's end beside
    /// it. The other end is to be kept ([`Controls::keep`]) once it is known what the child is
    /// called.
    ///
    /// # Errors
    /// When there are no descriptors.
    pub fn open_control(&mut self) -> io::Result<Ends<R::Tell, R::Hear>> {
        controls::open(self.poll.registry(), self.tokens.fresh())
    }

    /// Closes a child's control socket, if it is open; nobody waits for its report any more.
    pub fn close_control(&mut self, key: &R::Key) {
        self.controls.close(key, self.poll.registry());
        self.admin.reported(key, u64::MAX);
    }

    /// Goes on with another configuration; gives the one before.
    pub fn take_over(&mut self, config: Arc<Config>, key: OwnKey) -> Arc<Config> {
        log::set_max_level(config.log_level);
        self.key = key;
        std::mem::replace(&mut self.start.config, config)
    }

    /// What to log of something that could not be made again: seldom enough.
    pub fn trouble(&mut self, text: &str, now: Instant) -> Option<String> {
        self.trouble.line(text, now)
    }

    /// Makes the status socket again, if it is gone.
    pub(super) fn keep_admin(&mut self, back: &mut Vec<PathBuf>, now: Instant) {
        if self.admin.is_in_place() {
            return;
        }
        match self.admin.listen_anew(self.poll.registry()) {
            Ok(()) => back.push(self.start.admin_path()),
            Err(error) => {
                let text = format!("open the status socket: {error}; tried again");
                if let Some(line) = self.trouble(&text, now) {
                    log::error!("{line}");
                }
            }
        }
    }
}
