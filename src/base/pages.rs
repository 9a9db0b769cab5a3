//! Memory that costs what is used of it: a buffer of whole pages, and the stack.
//!
//! A link child is one of thousands, and idle most of the time. What it has used once it gives back
//! when it has nothing to do.

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of a page, or a part of one: what is given back is counted in these.
const PAGE: usize = 4096;

/// A buffer, zeros at first, whose pages the system gives when they are first written to, and gets
/// back with [`Pages::give_back`].
#[derive(Debug)]
pub struct Pages {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is this value's alone.
unsafe impl Send for Pages {}

impl Pages {
    /// A buffer of `length` bytes, which must be more than none.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new(length: usize) -> io::Result<Pages> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, wherever the system likes; none that is there is changed.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Pages { start, length })
    }

    /// Gives the memory back; the buffer is all zeros then.
    pub fn give_back(&mut self) {
        // SAFETY: this value's own mapping, which nothing else refers to while it is borrowed so.
        // Where the system refuses, it stays as it is, which is right as well.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.length, libc::MADV_DONTNEED) };
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: so many bytes of this value's own mapping, all of them initialized: with zeros.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed by who writes alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: this value's own mapping, which ends with it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Bytes below the frame of [`give_back_stack`] that are left alone: what it calls has its frames
/// there.
const BELOW: usize = PAGE;

/// Where the stack begins, lowest byte first, and ends; 0: nobody has said so.
static STACK: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

/// Notes that this thread is all that runs in this process, on a stack that is whole memory of its
/// own: one that a program has made, not that of `main`, which grows. From then on
/// [`give_back_stack`] has an effect.
pub fn know_stack() {
    #[cfg(target_env = "gnu")]
    {
        let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
        let (mut bottom, mut length) = (ptr::null_mut(), 0);
        // SAFETY: the first writes the attributes of this thread; the others read them, and give
        // back what they have taken, once they are there.
        let known = unsafe {
            libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) == 0 && {
                let told = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut bottom, &raw mut length);
                libc::pthread_attr_destroy(attributes.as_mut_ptr());
                told == 0
            }
        };
        if known {
            let bottom = bottom.expose_provenance();
            STACK[0].store(bottom, Ordering::Relaxed);
            STACK[1].store(bottom.saturating_add(length), Ordering::Relaxed);
        }
    }
}

/// Gives back what functions that have returned have left of this thread's stack, if it is the one
/// that is known.
#[inline(never)]
pub fn give_back_stack() {
    let [bottom, top] = [&STACK[0], &STACK[1]].map(|end| end.load(Ordering::Relaxed));
    let here = 0_u8;
    let here = ptr::from_ref(&here).addr();
    let end = here.saturating_sub(BELOW) & !(PAGE - 1);
    if !(bottom..top).contains(&here) || end <= bottom || bottom == 0 {
        return;
    }
    // SAFETY: from the lowest byte of this thread's own stack up to well below this frame, where
    // no frame is: what lies there is read by nobody.
    unsafe { libc::madvise(ptr::with_exposed_provenance_mut(bottom), end - bottom, libc::MADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the page of this address has memory, by the kernel.
    fn is_there(address: usize) -> bool {
        let mut there = 0_u8;
        let page = ptr::with_exposed_provenance_mut(address & !(PAGE - 1));
        // SAFETY: it writes a byte for the one page that it is asked about.
        let asked = unsafe { libc::mincore(page, PAGE, &raw mut there) };
        assert_eq!(asked, 0);
        there & 1 == 1
    }

    #[test]
    fn a_buffer_has_the_pages_that_were_written_to_and_gives_them_back() {
        let mut pages = Pages::new(64 << 10).unwrap();
        assert_eq!(pages.len(), 64 << 10);
        let at = |pages: &Pages, place: usize| pages.start.expose_provenance().get() + place;
        assert!(!is_there(at(&pages, 0)));
        pages[70] = 7;
        assert!(is_there(at(&pages, 0)) && !is_there(at(&pages, 32 << 10)));
        pages.give_back();
        assert!(!is_there(at(&pages, 0)));
        assert!(pages.iter().all(|byte| *byte == 0));
    }

    #[inline(never)]
    fn use_stack() -> usize {
        let mut below = [1_u8; 256 << 10];
        std::hint::black_box(&mut below);
        below.as_ptr().expose_provenance()
    }

    #[test]
    fn a_stack_is_given_back_below_who_uses_it_and_only_where_it_is_known() {
        let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(|| {
            let kept = std::hint::black_box([7_u8; 4096]);
            let deep = use_stack();
            give_back_stack();
            assert!(is_there(deep), "nobody has said which stack it is");
            know_stack();
            std::thread::spawn(give_back_stack).join().unwrap();
            assert!(is_there(deep), "it is another thread's");
            give_back_stack();
            assert!(!is_there(deep));
            assert_eq!(kept, [7; 4096]);
        });
        thread.unwrap().join().unwrap();
    }
}
