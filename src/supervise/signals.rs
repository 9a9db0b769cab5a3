//! Signals as values, on a mio source.
//!
//! The mask is part of what `exec` keeps, so both ends of it are minded here: [`block`] before an
//! `exec` or a `fork`, and [`Signals::new`] empties the mask once its handlers stand, whatever mask
//! the program was given. A signal that comes between the two waits and is not lost. (The original
//! left the mask blocked: its second HUP never came through.)

use net::{SourceFd, source_of};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal as Number, signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use signal_hook_mio::v1_0::Signals as Source;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// What a person or another program can ask of a supervisor, and that a child has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// CHLD: a child has ended. Comes first, so that the others find the table up to date.
    Child,
    /// USR1: see after every link.
    Probe,
    /// TERM, INT: end in order.
    Stop,
    /// QUIT: end now.
    Quit,
    /// HUP: start again. Comes last, and is carried out when the others are answered: `exec` would
    /// forget them.
    Restart,
}

/// The numbers, and what they mean.
const MEANINGS: [(Number, Signal); 6] = [
    (Number::SIGCHLD, Signal::Child),
    (Number::SIGUSR1, Signal::Probe),
    (Number::SIGHUP, Signal::Restart),
    (Number::SIGTERM, Signal::Stop),
    (Number::SIGINT, Signal::Stop),
    (Number::SIGQUIT, Signal::Quit),
];

/// Bytes of the kernel's sets of signals.
const SIGNAL_SET: usize = 8;

/// The signals of this process, for as long as it lives.
pub struct Signals(Source);

impl Signals {
    /// Installs handlers, then empties the signal mask.
    ///
    /// # Errors
    /// When there are no descriptors, or the system refuses.
    pub fn new() -> io::Result<Signals> {
        let source = Source::new(MEANINGS.map(|(number, _)| number as i32))?;
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        Ok(Signals(source))
    }

    /// What came since the last call, each once, in the order of [`Signal`].
    pub fn pending(&mut self) -> Vec<Signal> {
        let came: Vec<i32> = self.0.pending().collect();
        let mut signals: Vec<Signal> =
            MEANINGS.iter().filter(|(n, _)| came.contains(&(*n as i32))).map(|(_, signal)| *signal).collect();
        signals.sort_unstable();
        signals.dedup();
        signals
    }
}

source_of!([] Signals, |it| it.0);

/// Blocks every signal; returns the mask as it was, for [`restore`].
///
/// # Errors
/// None that the system documents for these arguments.
pub fn block() -> io::Result<SigSet> {
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    Ok(before)
}

/// Sets the mask back.
///
/// # Errors
/// None that the system documents for these arguments.
pub fn restore(mask: &SigSet) -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None)?)
}

/// In a child just forked, all signals blocked: undoes the handlers of its parent, then empties the
/// mask.
///
/// TERM ends a child that has not asked to hear of it ([`ToldToEnd`]) yet: it has taken nothing.
/// HUP, USR1, INT and QUIT are ignored: they are meant for the supervisor, but a terminal sends
/// them to the whole group and `pkill` to every process of the name; the supervisor tells a child
/// what it needs.
///
/// # Errors
/// None that the system documents for these arguments.
pub fn undo_in_child() -> io::Result<()> {
    for (number, meaning) in MEANINGS {
        let disposition = match (number, meaning) {
            (Number::SIGTERM, _) | (_, Signal::Child) => SigHandler::SigDfl,
            (_, Signal::Probe | Signal::Restart | Signal::Stop | Signal::Quit) => SigHandler::SigIgn,
        };
        // SAFETY: neither disposition is a function, so none can do what a handler must not.
        // signal-hook's own record of its handlers is stale from here on, which nobody asks in a
        // child.
        unsafe { signal(number, disposition) }?;
    }
    restore(&SigSet::empty())
}

/// In a child that is about to become a program of another kind: every signal does what it does by
/// default, none is blocked.
///
/// # Errors
/// None that the system documents for these arguments.
pub fn default_for_program() -> io::Result<()> {
    // The default, with no flags and no mask: all zero, in whichever order the kernel of this
    // machine has them.
    let default = [0_u64; 32];
    let no_answer = std::ptr::null_mut::<u64>();
    for number in 1..=libc::SIGRTMAX() {
        // Not through the C library, which keeps two for itself: what this process was started with
        // may ignore them. The two that nobody can have are refused. SAFETY: the kernel reads no
        // more than is there, and writes nowhere; the disposition is no function.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), no_answer, SIGNAL_SET) };
    }
    restore(&SigSet::empty())
}

/// Has a write beyond the limit of file sizes (`ulimit -f`) be an error like that of a full disk,
/// which it is handled as, in place of the end of the process. Children have it so, too; a program
/// of another kind that is started must not.
pub fn ignore_file_limit() {
    // SAFETY: the disposition is no function, so none can do what a handler must not.
    let ignored = unsafe { signal(Number::SIGXFSZ, SigHandler::SigIgn) };
    // The system documents no error for this; there is no log yet, and all goes on as if there were
    // no limit.
    debug_assert!(ignored.is_ok());
}

/// In a child: TERM and INT as something to wait for, so that it ends in its own time. They may
/// come from a person, or from a service manager that stops every process of a service at once.
///
/// They are blocked from here on, in this thread and those that it starts. A descriptor, not
/// handlers: a child that panics or is killed leaves nothing half done, and there is one for each
/// of thousands of children.
#[derive(Debug)]
pub struct ToldToEnd(SignalFd);

impl ToldToEnd {
    /// From now on. To be called before there are other threads: one that does not block them would
    /// end the process.
    ///
    /// # Errors
    /// When there are no descriptors.
    pub fn new() -> io::Result<ToldToEnd> {
        let mut wanted = SigSet::empty();
        wanted.add(Number::SIGTERM);
        wanted.add(Number::SIGINT);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&wanted), None)?;
        Ok(ToldToEnd(SignalFd::with_flags(&wanted, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// Whether one has come since the last call.
    pub fn take(&mut self) -> bool {
        let mut came = false;
        while let Ok(Some(_)) = self.0.read_signal() {
            came = true;
        }
        came
    }
}

impl AsFd for ToldToEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

source_of!([] ToldToEnd, |it| SourceFd(&it.0.as_raw_fd()));

/// In a child that has children of its own: that one of them has ended, as something to wait for.
/// Blocked from here on, as with [`ToldToEnd`].
#[derive(Debug)]
pub struct ChildEnded(SignalFd);

impl ChildEnded {
    /// From now on.
    ///
    /// # Errors
    /// When there are no descriptors.
    pub fn new() -> io::Result<ChildEnded> {
        let mut wanted = SigSet::empty();
        wanted.add(Number::SIGCHLD);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&wanted), None)?;
        Ok(ChildEnded(SignalFd::with_flags(&wanted, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// Takes note of those that have ended so far: they are to be reaped now.
    pub fn clear(&mut self) {
        while let Ok(Some(_)) = self.0.read_signal() {}
    }
}

source_of!([] ChildEnded, |it| SourceFd(&it.0.as_raw_fd()));

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::raise;

    #[test]
    fn a_child_hears_once_that_it_is_told_to_end() {
        // A thread of its own: from then on it blocks both signals.
        let ended = std::thread::spawn(|| {
            let mut told = ToldToEnd::new().unwrap();
            let mut heard = vec![told.take()];
            for signal in [Number::SIGTERM, Number::SIGINT] {
                // To this thread alone.
                raise(signal).unwrap();
                heard.extend([told.take(), told.take()]);
            }
            heard
        });
        assert_eq!(ended.join().unwrap(), [false, true, false, true, false]);
    }

    #[test]
    fn a_write_beyond_the_limit_of_file_sizes_ends_no_process() {
        ignore_file_limit();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
        let ignored = u64::from_str_radix(ignored, 16).unwrap();
        assert_ne!(ignored & (1 << (Number::SIGXFSZ as i32 - 1)), 0, "{status}");
    }
}
