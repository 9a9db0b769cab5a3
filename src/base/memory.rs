//! What the allocator does with long buffers.
//!
//! Failures: none that anybody could do something about. A system that knows nothing of this (musl,
//! say) keeps its ways.

/// Bytes of a buffer that is the system's again as soon as it is given back.
#[cfg(target_env = "gnu")]
const LONG: libc::c_int = 1 << 20;

/// Gives each long buffer pages of its own. Left to itself, glibc does so only until the first of
/// them was given back; from then on they lie among the small ones, and what was held for a moment
/// stays. To be called once, first in `main`.
pub fn part_long_buffers() {
    // Once one is set, neither is changed by use any more.
    #[cfg(target_env = "gnu")]
    for (what, bytes) in [(libc::M_MMAP_THRESHOLD, LONG), (libc::M_TRIM_THRESHOLD, 2 * LONG)] {
        // SAFETY: it takes two numbers and no address; in `main` no other thread allocates yet.
        unsafe { libc::mallopt(what, bytes) };
    }
}
