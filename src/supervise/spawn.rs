//! The one `fork`, what a child undoes of its parent, and reaping.
//!
//! A supervisor has one thread that does anything, so its child may do what any process may: where
//! another thread forks ([`spawn_apart`]), the first waits for its end. The child starts with an
//! empty signal mask, without its parent's handlers, and with no descriptor of its parent's but the
//! standard three, the log and those it was given: it holds no pid lock, no other peer's listener,
//! no control socket of a sibling. It never returns into its parent's code: when it panics, that is
//! logged (by the panic hook) and it exits with [`PANICKED`]. Closing what it was not given takes
//! one system call for each gap (`close_range`, Linux 5.9); who forks apart has a table of
//! descriptors for that alone ([`descriptors`]), however many thousand its process has.

mod descriptors;

use super::signals;
use base::pages;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use owner::confine;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

/// Exit code of a child that panicked.
pub const PANICKED: i32 = 101;

/// Exit code of a child that could not shed its parent's signals or descriptors.
const UNFIT: i32 = 102;

/// Bytes of the stack of a child that is forked by [`spawn_apart`]; what it does not use costs
/// nothing.
const STACK: usize = 2 << 20;

/// Forks a child that runs `entry` and has no descriptors but the standard three, the log and
/// `keep`. In the parent, `entry` is dropped, and with it what the child was to own.
///
/// # Errors
/// What `fork` said; there is no child then.
pub fn spawn(keep: Vec<RawFd>, entry: impl FnOnce() -> Infallible) -> io::Result<u32> {
    let mask = signals::block()?;
    let forked = fork_into(|| Birth { keep, entry });
    restore(&mask);
    forked
}

/// The numbers of processes, in the order of their births, or why there is none.
pub type Forked = io::Result<Vec<io::Result<u32>>>;

/// A child that is to be forked: what it keeps of this process's descriptors, and where it begins.
#[derive(Debug)]
pub struct Birth<F> {
    /// As of [`spawn`].
    pub keep: Vec<RawFd>,
    /// As of [`spawn`].
    pub entry: F,
}

/// As [`spawn`], for children that are some of thousands and live long: each has a stack and a heap
/// of its own, and does not write where its parent's memory has gaps, which would cost it a page
/// each. And between one and the next nothing is written here, so that those which are forked
/// together share what they have of their parent's. (`docs/adr/0105`.)
///
/// They are forked from a thread that ends at once, so that they can have no `PR_SET_PDEATHSIG`:
/// that tells of the end of a thread. What they are given is dropped by the thread that calls this:
/// the other has descriptors of its own, and would close none of this process's.
///
/// # Errors
/// What the system said of the thread and its descriptors: there are no children. Else, of each
/// what [`spawn`] says.
pub fn spawn_apart<F>(births: Vec<Birth<F>>) -> Forked
where
    F: FnOnce() -> Infallible,
{
    let mask = signals::block()?;
    let births = Lent(births);
    let forked = thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK);
        let forks = thread.spawn_scoped(scope, move || fork_all(births.take_back()))?;
        let done = forks.join().map_err(|_| io::Error::other("the thread that forks panicked"))?;
        let (_births, forked) = done.take_back();
        forked
    });
    restore(&mask);
    forked
}

/// What was not taken by a child, and what came of them.
fn fork_all<F: FnOnce() -> Infallible>(births: Vec<Birth<F>>) -> Lent<(Vec<Option<Birth<F>>>, Forked)> {
    let mut births: Vec<Option<Birth<F>>> = births.into_iter().map(Some).collect();
    let mut forked = Vec::with_capacity(births.len());
    let given = births.iter().flatten().flat_map(|birth| &birth.keep).copied();
    if let Err(error) = descriptors::keep_only(given.chain(base::logging::descriptor()).collect()) {
        return Lent((births, Err(error)));
    }
    for birth in &mut births {
        // Taken by the child: here each stays what it is until all are forked.
        forked.push(fork_into(|| {
            pages::know_stack();
            birth.take().unwrap_or_else(|| std::process::exit(UNFIT))
        }));
    }
    Lent((births, Ok(forked)))
}

/// What a thread has while the one that has made it waits for its end.
struct Lent<T>(T);

// SAFETY: who lends it does nothing until the other thread has ended, so that one of them has it at
// a time; nothing in it belongs to a thread, as what is made for a child before a fork.
unsafe impl<T> Send for Lent<T> {}

impl<T> Lent<T> {
    fn take_back(self) -> T {
        self.0
    }
}

fn fork_into<F: FnOnce() -> Infallible>(birth: impl FnOnce() -> Birth<F>) -> io::Result<u32> {
    // SAFETY: no other thread of this process does anything (see the head of this file), so no lock
    // is held by a thread that the child lacks.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let Birth { keep, entry } = birth();
            begin_child(keep, entry)
        }
        ForkResult::Parent { child } => Ok(child.as_raw().unsigned_abs()),
    }
}

/// Not an error of [`spawn`]: the child is there or not whatever becomes of the mask.
fn restore(mask: &SigSet) {
    if let Err(error) = signals::restore(mask) {
        log::error!("restore the signal mask: {error}");
    }
}

fn begin_child(keep: Vec<RawFd>, entry: impl FnOnce() -> Infallible) -> ! {
    if let Err(error) = signals::undo_in_child().and_then(|()| close_all_but(keep)) {
        log::error!("begin child: {error}");
        std::process::exit(UNFIT);
    }
    base::logging::forget_last_line();
    // What unwinding could leave half done is not looked at again: the process ends.
    let Err(_) = catch_unwind(AssertUnwindSafe(entry));
    std::process::exit(PANICKED)
}

/// Closes every descriptor but the standard three, the log's and `keep`. The objects of the parent
/// that own these descriptors lie in frames and fields that the child never comes back to, so none
/// of them is used or dropped after this.
fn close_all_but(keep: Vec<RawFd>) -> io::Result<()> {
    confine::close_all_but(keep.iter().copied().chain(base::logging::descriptor()).collect())
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Killed(Signal),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Exited(PANICKED) => write!(f, "panicked"),
            End::Exited(code) => write!(f, "exited with {code}"),
            End::Killed(signal) => write!(f, "killed by {signal}"),
        }
    }
}

/// The next child that has ended and was not reaped yet, without waiting; to be called until it
/// gives `None`, since one signal may stand for many children.
pub fn reap() -> Option<(u32, End)> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => {
                return Some((pid.as_raw().unsigned_abs(), End::Exited(code)));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                return Some((pid.as_raw().unsigned_abs(), End::Killed(signal)));
            }
            Ok(WaitStatus::StillAlive) => return None,
            // Stops are not asked for; should one be told, it is no end.
            Ok(
                WaitStatus::Stopped(..)
                | WaitStatus::Continued(..)
                | WaitStatus::PtraceEvent(..)
                | WaitStatus::PtraceSyscall(..),
            )
            | Err(Errno::EINTR) => {}
            // ECHILD: there are no children. Nothing else is documented.
            Err(_) => return None,
        }
    }
}

/// Kills a child that was not reaped yet, so that the number cannot have become another process's.
pub fn kill_now(pid: u32) {
    send(pid, Signal::SIGKILL);
}

/// As [`kill_now`], with all of the group that the child leads, if it leads one by now.
pub fn kill_group_now(pid: u32) {
    kill_now(pid);
    kill_rest_of_group(pid);
}

/// Kills what a child that was reaped has left of the group that it led. While there is something
/// of that, the system gives the number to nobody else.
pub fn kill_rest_of_group(pid: u32) {
    if let Ok(group) = i32::try_from(pid)
        && group > 1
    {
        // There may be none: that of a child that is killed before it has made it.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
}

/// Sends a signal, if the number can be a process's; whether it could be sent.
pub fn send(pid: u32, signal: Signal) -> bool {
    // 0 and negative numbers would mean whole groups.
    i32::try_from(pid).is_ok_and(|pid| pid > 0 && kill(Pid::from_raw(pid), signal).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_means_a_group_is_sent_nothing() {
        // One that does nothing to who has not asked for it.
        assert!(!send(0, Signal::SIGURG), "0 means the group of this process");
        assert!(!send(u32::MAX, Signal::SIGURG), "-1 means everybody");
        assert!(send(std::process::id(), Signal::SIGURG));
    }
}
