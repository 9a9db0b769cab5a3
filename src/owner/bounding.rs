//! Root's rights as far as a program could gain them by being executed: the capability bounding
//! set. Who has become `user` has none of root's rights; with this no file that is executed, be it
//! root's (setuid) or one with rights of its own, gives any back. (`no_new_privs` says so too: this
//! holds where somebody forgets that.)

use nix::errno::Errno;
use std::io;

/// Empties the set, for this process and all that come of it. Who has no right to do so has none to
/// give up, and that is no error.
///
/// # Errors
/// What the system said.
pub fn bound_none() -> io::Result<()> {
    // Up to the first that the kernel does not know.
    for capability in 0..64 {
        // SAFETY: numbers alone.
        let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        match Errno::result(done) {
            Ok(_) => {}
            Err(Errno::EINVAL | Errno::EPERM) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
