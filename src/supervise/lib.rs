//! What `lonc`, `lond` and `lonsvc` share as supervisors.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `startup` | the way from `main` to a supervisor's loop; arguments |
//! | `background` | detaching, becoming `user` |
//! | `lock` | a locked file with a pid in it |
//! | `limit` | the system's limit of open files |
//! | `places` | folders and locks that others may take away: looked after, made again |
//! | `names` | whether names in a folder may have changed since they were looked at |
//! | `table` | which child runs, which waits for its next start: pure |
//! | `spawn` | the one `fork`, and what a child undoes of its parent; reaping |
//! | `daemon` | the one machine of all supervisors, and what a role is to it |
//! | `strays` | processes that programs have left behind |
//! | `control`, `controls` | the duplex socket to a child; those of all children |
//! | `signals` | signals as values, on a mio source |
//! | `restart` | HUP in the program that serves: a trial of the next one, then `exec` |
//! | `trial` | HUP in the program that is tried: its whole start, as far as it changes nothing |
//! | `image` | which program that is, and how it is called |
//! | `files` | what a program's own files are called |
//! | `inheritance` | what every program leaves to the one after it |
//! | `exec_state` | what crosses `exec` |
//! | `title` | what `ps` shows |
//! | `sockets` | listening Unix sockets, put in their place at one stroke |
//! | `admin` | the socket on which `lon status` and `lon reload` ask |
//! | `publish` | files of the status: when they are written, and how |
//! | `reload` | what a reload reads, and what it cannot change |
//! | `own_key` | this host's key, as all links show it |
//! | `sandbox` | what a link child gives up: files, system calls, capabilities |
//! | `retry` | steps that a process which serves already tries again |

// Whatever comes from outside, a supervisor goes on: nothing here may panic.
#![deny(clippy::indexing_slicing, clippy::string_slice)]

pub mod admin;
pub mod background;
pub mod control;
pub mod controls;
pub mod daemon;
pub mod exec_state;
pub mod files;
pub mod image;
pub mod inheritance;
pub mod limit;
pub mod lock;
pub mod look_up;
pub mod names;
pub mod own_key;
pub mod places;
pub mod publish;
pub mod reload;
pub mod restart;
pub mod retry;
pub mod sandbox;
pub mod signals;
pub mod sockets;
pub mod spawn;
pub mod startup;
pub mod strays;
pub mod table;
pub mod title;
pub mod trial;

pub use startup::Start;

/// A program that a test starts has copies of all descriptors for a moment, until it calls `exec`:
/// a lock that was let go of is still held then, and a socket that was closed still open.
#[cfg(test)]
mod still {
    use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

    static STARTS: RwLock<()> = RwLock::new(());

    /// No test starts a program as long as it is kept.
    pub(crate) fn no_program_starts() -> RwLockReadGuard<'static, ()> {
        STARTS.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be kept while one is started.
    pub(crate) fn a_program_starts() -> RwLockWriteGuard<'static, ()> {
        STARTS.write().unwrap_or_else(PoisonError::into_inner)
    }
}
