//! Secret bytes in memory of their own.
//!
//! They lie in pages that no dump has and that a child does not inherit: at a fork it has zeros
//! there, unless they are lent to it ([`Secret::lend`]). They are wiped when they are dropped, or
//! forgotten.

use nix::errno::Errno;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use zeroize::Zeroizing;

/// Bytes that one can have: whole pages.
const ROOM: usize = 16 * 1024;

/// See the head of this file.
pub(super) struct Secret {
    at: NonNull<AtomicU8>,
    length: usize,
}

// SAFETY: the pages are this value's alone, and are read and written by atomic steps.
unsafe impl Send for Secret {}
// SAFETY: as above.
unsafe impl Sync for Secret {}

impl Secret {
    /// A copy of these bytes; whoever has them wipes them.
    ///
    /// # Errors
    /// There are too many, or no memory.
    pub(super) fn copy(bytes: &[u8]) -> io::Result<Secret> {
        if bytes.len() > ROOM {
            return Err(io::Error::other("it is too long"));
        }
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: new pages, which nobody has.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), ROOM, access, kind, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("memory at no address"))?;
        let secret = Secret { at, length: bytes.len() };
        secret.advise(libc::MADV_DONTDUMP)?;
        secret.advise(libc::MADV_WIPEONFORK)?;
        secret.bytes().iter().zip(bytes).for_each(|(place, byte)| place.store(*byte, Ordering::Relaxed));
        Ok(secret)
    }

    /// A copy that is wiped when it is dropped: zeros where it was forgotten, or not lent.
    pub(super) fn read(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.bytes().iter().map(|place| place.load(Ordering::Relaxed)).collect())
    }

    /// What is forked meanwhile has them as well.
    pub(super) fn lend<T>(&self, fork: impl FnOnce() -> T) -> T {
        // Where the system refuses the child has zeros, and can sign nothing: that is said there.
        let lent = self.advise(libc::MADV_KEEPONFORK);
        let forked = fork();
        if lent.is_ok() {
            // It was granted before, for the same pages.
            let _ = self.advise(libc::MADV_WIPEONFORK);
        }
        forked
    }

    /// Wipes them, in this process.
    pub(super) fn forget(&self) {
        self.bytes().iter().for_each(|place| place.store(0, Ordering::SeqCst));
    }

    fn bytes(&self) -> &[AtomicU8] {
        // SAFETY: so many bytes are mapped there for as long as this value lives, and any bits are
        // a number.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.length) }
    }

    fn advise(&self, how: i32) -> io::Result<()> {
        // SAFETY: the pages are this value's, and none of this takes them away.
        let done = unsafe { libc::madvise(self.at.as_ptr().cast(), ROOM, how) };
        Errno::result(done)?;
        Ok(())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.forget();
        // SAFETY: they are this value's, which is no more. That the system keeps them does no harm.
        unsafe { libc::munmap(self.at.as_ptr().cast(), ROOM) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    /// What a forked child finds; it does nothing that memory of another thread could be in the way
    /// of.
    fn inherited(secret: &Secret, fork_it: impl FnOnce(&dyn Fn() -> ForkResult) -> ForkResult) -> bool {
        // SAFETY: the child reads some bytes and exits.
        match fork_it(&|| unsafe { fork() }.unwrap()) {
            ForkResult::Child => {
                let there = secret.bytes().iter().all(|place| place.load(Ordering::Relaxed) == 7);
                // SAFETY: it ends here, without what the parent would do at its end.
                unsafe { libc::_exit(i32::from(there)) }
            }
            ForkResult::Parent { child } => {
                matches!(waitpid(child, None).unwrap(), WaitStatus::Exited(_, 1))
            }
        }
    }

    #[test]
    fn a_child_has_a_secret_only_if_it_was_lent_and_nobody_has_one_that_was_forgotten() {
        let secret = Secret::copy(&[7; 48]).unwrap();
        assert_eq!(**secret.read(), [7; 48]);
        assert!(!inherited(&secret, |fork| fork()));
        assert!(inherited(&secret, |fork| secret.lend(fork)));
        assert!(!inherited(&secret, |fork| fork()), "it was lent once");
        secret.forget();
        assert_eq!(**secret.read(), [0; 48]);
        assert!(Secret::copy(&[0; ROOM + 1]).is_err());
    }
}
