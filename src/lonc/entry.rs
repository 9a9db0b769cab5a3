//! Where a link child begins.
//!
//! Takes the peer's spool lock before anything else, so that two children never serve one peer:
//! where a child of a `lonc` that was killed is still there it waits until that one has ended, for
//! a bounded time. Then it takes over the programs that the one before it has left. It has that
//! folder and no other: where another comes to stand in its place the next child goes on. Where
//! there can be no lock, because the delayed directory cannot be used or the `lonc` of another
//! `run_dir` has it, plain requests are served all the same and critical ones are answered
//! `con_failed`, until there can be one: the log and the status say who has it.
//!
//! Then it has all that it needs, and gives up the rest of what `user` may do before it hears a
//! byte of the peer or of a program.

use super::broker::Broker;
use super::handover::Takeover;
use super::link::Now;
use super::permlog::PermLog;
use super::reactor::{Given, Reactor};
use super::settings::{LinkKeys, LinkSettings};
use base::Pin;
use base::disk::{Above, Guarded, RealDisk, locked_by};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::error::Error;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::spool::{Spool, SpoolLock};
use supervise::control::Channel;
use supervise::places::{child_holder, is_same_place};
use supervise::sandbox::{self, Calls, Folder};
use supervise::signals::ToldToEnd;
use supervise::title;

/// How much longer than `drain_timeout` the child of a `lonc` that was killed may take to end.
const ORPHAN_GRACE: Duration = Duration::from_secs(2);
/// Pause before its lock is tried again, in milliseconds.
const LOCK_PAUSE: u8 = 50;

/// What a link child is born with.
#[derive(Debug)]
pub struct Seed {
    /// Whom to serve, and how.
    pub settings: LinkSettings,
    /// The peer's pins, on the secure wire.
    pub pins: Vec<Pin>,
    /// The peer's local socket, listening; non-blocking.
    pub listener: UnixListener,
    /// The child's end of the control socket: receives `ToLink`, sends `FromLink`.
    pub control: OwnedFd,
    /// Where the programs of the child before this one are, if it had any.
    pub passage: Option<Takeover>,
}

/// Serves one peer until told to stop; exits 0 then.
pub fn run(seed: Seed) -> ! {
    let peer = seed.settings.peer.host.id.clone();
    match serve(seed) {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            log::error!("serve {peer}: {error}; ending");
            std::process::exit(1)
        }
    }
}

fn serve(seed: Seed) -> Result<(), Box<dyn Error>> {
    let Seed { settings, pins, listener, control, passage } = seed;
    let peer = settings.peer.clone();
    base::logging::set_host(peer.host.id.as_str());
    title::set(&format!("{} starting", peer.host.id));
    let dir = settings.spool_path();
    let ourselves = child_holder("lonc", &settings.run_dir);
    let lock = take_lock(&ourselves, peer.drain_timeout, &dir, control.as_fd());
    // What is outside of the folder and the log is opened before this process gives that up.
    let above = Arc::new(Above::open(&[&settings.spool_dir]));
    let told = ToldToEnd::new()?;
    let disk = Guarded::new(RealDisk, &dir, lock, ourselves).with_above(above).to_this_folder();
    let control = Channel::from_fd(control)?.taking_descriptors();
    base::logging::keep_zone();
    let folders = [Folder::Own(&dir), Folder::Log(&settings.log_dir)];
    let sandbox = sandbox::enter(settings.sandbox, &folders, Calls::Accepts)?.to_string();
    let spool = Spool::open(disk, &dir, peer.spool);
    let now = Now { mono: Instant::now(), wall: jiff::Timestamp::now() };
    let keys = match &settings.keys {
        LinkKeys::Shown(identity) => Some((identity.clone(), pins)),
        LinkKeys::None | LinkKeys::Barred(_) => None,
    };
    let permlog = PermLog::new(&settings.log_dir);
    let broker = Broker::new(settings, spool, getrandom::u64()?, now);
    let given = Given { peer, keys, listener, control, passage, permlog, sandbox };
    Reactor::new(broker, told, given)?.run()?;
    Ok(())
}

/// The lock of the peer's spool, if it can be had.
fn take_lock(
    ourselves: &str,
    drain_timeout: Duration,
    dir: &Path,
    control: BorrowedFd<'_>,
) -> Option<SpoolLock> {
    let give_up = Instant::now() + drain_timeout + ORPHAN_GRACE;
    let mut said = false;
    loop {
        match SpoolLock::try_acquire(dir) {
            Ok(Some(lock)) => return Some(lock),
            Ok(None) => {}
            Err(error) => {
                log::error!("{error}; critical requests are kept nowhere until that is put right");
                return None;
            }
        }
        let holder = SpoolLock::holder(dir);
        // Who says nothing is of a program before there was a name in the file.
        let is_orphan = holder.as_ref().is_none_or(|holder| is_same_place(holder, ourselves));
        if !is_orphan || Instant::now() >= give_up || !wait_supervised(control) {
            let dir = dir.display();
            log::error!("lock {dir}: {}; critical requests are con_failed until it ends", locked_by(holder));
            return None;
        }
        if !std::mem::replace(&mut said, true) {
            log::info!("lock {}: {}; waiting for its end", dir.display(), locked_by(holder));
        }
    }
}

/// Waits for [`LOCK_PAUSE`]; whether the supervisor is still there.
fn wait_supervised(control: BorrowedFd<'_>) -> bool {
    // Only its end is of interest: what it says is heard when there is a loop.
    let mut ends = [PollFd::new(control, PollFlags::empty())];
    let waited = poll(&mut ends, PollTimeout::from(LOCK_PAUSE));
    !waited.is_ok_and(|ended| ended > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn of(run_dir: &str) -> String {
        format!("lonc, process 7 (its child 8), run_dir {run_dir}")
    }

    #[test]
    fn a_child_waits_for_what_is_left_of_a_killed_lonc_and_for_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("msul1");
        let (ours, supervisor) = UnixStream::pair().unwrap();
        let minute = Duration::from_secs(60);
        let held = SpoolLock::try_acquire(&dir).unwrap().unwrap();
        held.sign(&of("/run/a"));
        let begun = Instant::now();
        assert!(take_lock(&of("/run/b"), minute, &dir, ours.as_fd()).is_none(), "another lonc may never end");
        assert!(begun.elapsed() < minute / 2);
        let had = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| take_lock(&of("/run/a"), minute, &dir, ours.as_fd()));
            // However late it is let go of, it is had then.
            drop(held);
            waiting.join().unwrap()
        });
        let held = had.unwrap();
        held.sign(&of("/run/a"));
        let begun = Instant::now();
        assert!(take_lock(&of("/run/a"), Duration::ZERO, &dir, ours.as_fd()).is_none());
        assert!(begun.elapsed() >= ORPHAN_GRACE, "it is given the time that it may take");
        drop(supervisor);
        assert!(take_lock(&of("/run/a"), minute, &dir, ours.as_fd()).is_none());
        assert!(begun.elapsed() < minute, "a supervisor that has gone is not waited for");
    }
}
