//! Memory that a supervisor and its children share: what must be known across processes that come
//! and go.
//!
//! Made before a fork, it is every later child's too; an `exec` leaves it behind. It holds atomics
//! and nothing else, so that no process can find it half written, wherever another one was killed.

use std::io;
use std::ptr;

/// A type that may be shared so.
///
/// # Safety
/// All its bytes zero are a value, it is changed through atomics alone, and it holds no address of
/// one process.
pub unsafe trait Shareable: Sync {}

/// A new `T`, all zero, that this process and the children it forks from now on have in common.
///
/// # Errors
/// There is no memory.
pub fn zeroed<T: Shareable>() -> io::Result<&'static T> {
    const { assert!(align_of::<T>() <= 4096, "the system's pages are aligned to that") };
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, where the system likes; nothing that is there already is touched.
    let mapped = unsafe { libc::mmap(ptr::null_mut(), size_of::<T>(), protection, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as large as `T`, aligned, never unmapped, and zero, which is a value of it (see
    // `Shareable`); whoever changes it, in whichever process, does so through atomics.
    Ok(unsafe { &*mapped.cast::<T>() })
}
