//! What a process of ours gives up, and what it does not take over from who started it.
//!
//! Neither it nor what it starts gains privileges by executing a file (`no_new_privs`), and its
//! memory, in which this host's key is, goes into no file: no core dump, and no look into it for
//! other programs of the same user. Permission bits of what it makes are those that it asks for,
//! whatever the caller's umask; and descriptors that it was not given on purpose are closed: a lock
//! that somebody held while starting it would be held for as long as it runs.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use std::io;
use std::os::fd::RawFd;

/// Takes nothing away from the modes that are asked for but what no file of ours has: a right of
/// others to write. Where a group is to write (sockets), the mode is set once the file is there.
const UMASK: Mode = Mode::S_IWGRP.union(Mode::S_IWOTH);

/// Times that closing is tried, should the kernel lack memory for a moment.
const CLOSE_TRIES: u32 = 3;

/// Sets this process's umask, gives up new privileges and core dumps. To be called first in `main`;
/// the parts that the system takes back when rights change ([`keep_memory_to_itself`]) once more
/// after that.
///
/// # Errors
/// What the system said.
pub fn confine() -> io::Result<()> {
    umask(UMASK);
    prctl::set_no_new_privs()?;
    // Where a program takes core dumps, the kernel asks the flag alone; where a file does, either
    // is enough.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    keep_memory_to_itself()
}

/// No core dump, and nobody but root looks into this process's memory; holds until the next `exec`
/// or change of rights.
///
/// # Errors
/// What the system said.
pub fn keep_memory_to_itself() -> io::Result<()> {
    Ok(prctl::set_dumpable(false)?)
}

/// Closes every descriptor but the standard three and `keep`. No object may own one of those that
/// go.
///
/// # Errors
/// What the system said.
pub fn close_all_but(mut keep: Vec<RawFd>) -> io::Result<()> {
    keep.extend([0, 1, 2]);
    keep.sort_unstable();
    keep.dedup();
    let gaps = keep.iter().zip(keep.iter().skip(1)).map(|(one, next)| (one + 1, next - 1));
    let gaps = gaps.filter(|(first, last)| first <= last);
    let after = keep.last().map(|last| (last + 1, RawFd::MAX));
    for (first, last) in gaps.chain(after) {
        close_range(first, last, 0)?;
    }
    Ok(())
}

/// Gives this thread a table of descriptors of its own, a copy of those that it has shared with
/// others below `first`. What lies behind is not copied, however much there is, and stays open for
/// the others.
///
/// # Errors
/// What the system said.
pub fn leave_descriptors_from(first: RawFd) -> io::Result<()> {
    close_range(first, RawFd::MAX, libc::CLOSE_RANGE_UNSHARE)
}

fn close_range(first: RawFd, last: RawFd, flags: libc::c_uint) -> io::Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        // SAFETY: who calls `close_all_but` says that nothing owns these descriptors, or never uses
        // what does; those of a table that others have stay open there.
        let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
        match Errno::result(done) {
            Ok(_) => return Ok(()),
            Err(errno) if tries >= CLOSE_TRIES => return Err(errno.into()),
            Err(_) => {}
        }
    }
}
