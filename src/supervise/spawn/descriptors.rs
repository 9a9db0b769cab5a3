//! A table of descriptors for the thread that forks, with nothing in it but what its children are
//! given.
//!
//! A child begins with a copy of the table of the thread that forks it, and closes what it was not
//! given. Of a supervisor of thousands of links that would be tens of thousands of descriptors for
//! each of thousands of children. So that thread leaves the table that it shares with its process,
//! without copying what is in there, and takes what the children are given out of it, one by one:
//! a group costs what it is given, however many links there are (`docs/adr/0105`).
//!
//! Some places do not let a process take its own (`pidfd_getfd` is barred by some containers, or
//! unknown before Linux 5.6). There the table is copied and what is not given closed, once for a
//! group.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use owner::confine;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// The standard three are below.
const FIRST: RawFd = 3;

/// Has this thread go on with a table of its own: the standard three and these, each under the
/// number that it has in this process. What owns a descriptor is to be dropped by another thread.
///
/// # Errors
/// What the system said; this thread may have too few descriptors then, its process has all.
pub(super) fn keep_only(mut keep: Vec<RawFd>) -> io::Result<()> {
    keep.retain(|number| *number >= FIRST);
    keep.sort_unstable();
    keep.dedup();
    let Some(last) = keep.last().copied() else { return confine::leave_descriptors_from(FIRST) };
    if !can_take(last) {
        confine::leave_descriptors_from(RawFd::MAX)?;
        return confine::close_all_but(keep);
    }
    confine::leave_descriptors_from(FIRST)?;
    let process = this_process()?;
    // Out of the way of all that is to come.
    let process = duplicate_above(process.as_fd(), last + 1)?;
    keep.into_iter().try_for_each(|number| take(process.as_fd(), number))
}

fn can_take(number: RawFd) -> bool {
    this_process().and_then(|process| take_anywhere(process.as_fd(), number)).is_ok()
}

/// Takes this one under its number. Those of lower numbers have been taken: what is free is below,
/// or it.
fn take(process: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    let taken = take_anywhere(process, number)?;
    if taken.as_raw_fd() == number {
        // For the child that is given it.
        let _ = taken.into_raw_fd();
        return Ok(());
    }
    // SAFETY: `number` is free in this thread's table, which nobody else has.
    Errno::result(unsafe { libc::dup3(taken.as_raw_fd(), number, libc::O_CLOEXEC) })?;
    Ok(())
}

fn take_anywhere(process: BorrowedFd<'_>, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes three numbers.
    own(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
}

fn this_process() -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers.
    own(unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) })
}

fn duplicate_above(descriptor: BorrowedFd<'_>, least: RawFd) -> io::Result<OwnedFd> {
    own(fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(least))?.into())
}

/// What a call gave that makes a descriptor.
fn own(made: libc::c_long) -> io::Result<OwnedFd> {
    let number = RawFd::try_from(Errno::result(made)?).map_err(io::Error::other)?;
    // SAFETY: it was made just now, and nobody else has its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spawn::{Birth, spawn_apart};
    use std::convert::Infallible;
    use std::fs::{self, File};
    use std::io::Read;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// So many that a supervisor of a few hundred links has.
    const MANY: usize = 400;

    fn open_ones() -> Vec<RawFd> {
        let all = fs::read_dir("/proc/thread-self/fd").unwrap();
        all.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
    }

    fn many() -> Vec<File> {
        (0..MANY).map(|_| File::open("/dev/null").unwrap()).collect()
    }

    /// What a thread has once it has left this process's table; `keep`, and what it has beside.
    fn left_with(keep: &[RawFd], leave: impl FnOnce(Vec<RawFd>) + Send) -> (Vec<RawFd>, Vec<RawFd>) {
        let all = std::thread::scope(|scope| {
            let looks = scope.spawn(|| {
                leave(keep.to_vec());
                open_ones()
            });
            looks.join().unwrap()
        });
        // The standard three, and that of the look itself.
        all.into_iter().filter(|number| *number >= FIRST).partition(|number| keep.contains(number))
    }

    #[test]
    fn a_thread_that_forks_has_what_is_given_under_its_number_and_its_process_has_all() {
        let files = many();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let keep = [files[7].as_raw_fd(), writer.as_raw_fd(), files[8].as_raw_fd()];
        let ways: [fn(Vec<RawFd>); 2] = [
            |keep| keep_only(keep).unwrap(),
            |keep| {
                confine::leave_descriptors_from(RawFd::MAX).unwrap();
                confine::close_all_but(keep).unwrap();
            },
        ];
        for leave in ways {
            let (mut kept, beside) = left_with(&keep, |keep| {
                leave(keep);
                // It is the same file.
                let written = nix::unistd::write(&writer, b"x");
                assert_eq!(written, Ok(1));
            });
            kept.sort_unstable();
            let mut keep = keep.to_vec();
            keep.sort_unstable();
            assert_eq!(kept, keep);
            assert_eq!(beside.len(), 1, "the look itself: {beside:?}");
            let mut byte = [0];
            reader.read_exact(&mut byte).unwrap();
            assert!(files.iter().all(|file| file.metadata().is_ok()), "the process has lost one");
        }
        assert!(left_with(&[], |keep| keep_only(keep).unwrap()).0.is_empty());
    }

    /// Descriptors that the last child was forked with.
    static FORKED_WITH: AtomicUsize = AtomicUsize::new(0);

    /// Called in a child before any of it has run.
    unsafe extern "C" fn count() {
        // SAFETY: asks for a flag, and changes nothing.
        let is_open = |number: &RawFd| unsafe { libc::fcntl(*number, libc::F_GETFD) } >= 0;
        FORKED_WITH.store((0..4096).filter(is_open).count(), Ordering::Relaxed);
    }

    #[test]
    fn a_child_is_forked_with_what_its_group_is_given_however_many_its_parent_has() {
        // SAFETY: what is called does what may be done in a child of a program with threads.
        assert_eq!(unsafe { libc::pthread_atfork(None, None, Some(count)) }, 0);
        let _files = many();
        let pipes: Vec<_> = (0..3).map(|_| std::io::pipe().unwrap()).collect();
        let (readers, writers): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
        let births = writers.into_iter().map(|writer| {
            let keep = vec![writer.as_raw_fd()];
            let entry = move || -> Infallible {
                let both = [FORKED_WITH.load(Ordering::Relaxed), (0..4096).filter(is_there).count()];
                let _ =
                    nix::unistd::write(&writer, &both.map(|count| u8::try_from(count).unwrap_or(u8::MAX)));
                std::process::exit(0)
            };
            Birth { keep, entry }
        });
        let forked = spawn_apart(births.collect()).unwrap();
        assert!(forked.iter().all(Result::is_ok), "{forked:?}");
        for mut reader in readers {
            let mut said = Vec::new();
            // Its end comes when nobody has the other one any more, neither this process nor a
            // sibling.
            reader.read_to_end(&mut said).unwrap();
            assert_eq!(said, [6, 4], "the standard three and its group's; those and its own");
        }
    }

    fn is_there(number: &RawFd) -> bool {
        // SAFETY: asks for a flag, and changes nothing.
        unsafe { libc::fcntl(*number, libc::F_GETFD) >= 0 }
    }
}
