//! Whether this process alone runs the program of its handler.
//!
//! One supervisor never has two such processes at a time. But where it is killed, its processes end
//! what they have in hand, and another `lond` may be started meanwhile; and where such a process is
//! killed with all above it, what its programs have started is nobody's. So each takes a lock
//! beside the handler's socket before it starts a program, and ends what carries the handler's
//! mark: who holds the lock knows that nobody is left whose that is.
//!
//! Where the lock cannot be had for another cause than that somebody has it, that is said, and the
//! handler is served all the same.

use config::Handler;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use supervise::lock::{LockError, PidLock};
use supervise::strays::{self, Found};

/// In the environment of every program: the socket of its handler.
pub(super) const MARK: &str = "LONNET_POOL";

/// Pause before the lock is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long what was left behind may take to end.
const ENDING: Duration = Duration::from_secs(2);

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Alone {
    name: String,
    socket: PathBuf,
    lock: Option<PidLock>,
    had: bool,
    /// When it is tried again, and since when it is tried.
    again: Instant,
    since: Instant,
}

impl Alone {
    pub(super) fn new(handler: &Handler, now: Instant) -> Alone {
        let (name, socket) = (handler.name.clone(), handler.socket.clone());
        Alone { name, socket, lock: None, had: false, again: now, since: now }
    }

    pub(super) fn is_had(&self) -> bool {
        self.had
    }

    /// Since when programs cannot be started, if they cannot.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        (!self.had).then_some(self.since)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.had).then_some(self.again)
    }

    /// Tries to be, if it is time.
    pub(super) fn try_now(&mut self, now: Instant) {
        if self.had || now < self.again {
            return;
        }
        match PidLock::take(&lock_of(&self.socket)) {
            Ok(mut lock) => {
                if let Err(error) = lock.write_pid() {
                    log::warn!("handler {}: {error}; others cannot tell who has it", self.name);
                }
                self.lock = Some(lock);
            }
            Err(LockError::Running { pid, .. }) => {
                if self.again == self.since {
                    let whose = pid.map_or_else(String::new, |pid| format!(" {pid}"));
                    log::info!(
                        "handler {}: process{whose} of an earlier lond ends; its program is run when it has",
                        self.name
                    );
                }
                self.again = now + PAUSE;
                return;
            }
            Err(error @ LockError::File { .. }) => log::warn!(
                "handler {}: {error}; what an earlier lond may still run of its program is not waited for",
                self.name
            ),
        }
        self.had = true;
        self.collect();
    }

    /// Ends what an earlier process has left of the handler's programs.
    fn collect(&self) {
        let mark = [MARK.as_bytes(), b"=", self.socket.as_os_str().as_encoded_bytes()].concat();
        let Found { killed, left } = strays::kill_marked(&mark, ENDING);
        if killed > 0 {
            log::warn!("handler {}: killed {killed} processes that an earlier lond had left", self.name);
        }
        if left > 0 {
            log::error!("handler {}: {left} processes that an earlier lond had left do not end", self.name);
        }
    }

    /// This process ends, and its programs have ended.
    pub(super) fn release(&mut self) {
        self.lock.take().into_iter().for_each(|lock| lock.remove());
    }
}

/// A name that no handler can have.
fn lock_of(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(":lock");
    path.into()
}
