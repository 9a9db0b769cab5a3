//! Small file systems that a test fills and frees, in a mount namespace of its own.
//!
//! [`with_own_mounts`] runs a test on a thread that has mounts of its own; what that thread starts,
//! threads and programs, sees them too, and nobody else does. They end with the last of these, so
//! nothing is left behind however the test ends. Where the machine does not permit that, the test
//! is told so.

use super::wait;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Name of the file that fills a disk. Hidden, so that it is no message in a delayed directory.
const FILLER: &str = ".filler";
/// Bytes that are written at once at first; the last ones are tried one by one.
const CHUNK: usize = 64 * 1024;

/// Runs `test`, and tells it whether it may mount.
pub fn with_own_mounts<T: Send + 'static>(test: impl FnOnce(bool) -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        let own = unshare(CloneFlags::CLONE_NEWNS).and_then(|()| {
            let nothing: Option<&str> = None;
            mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        });
        test(own.is_ok())
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// [`with_own_mounts`] for a test that is nothing without: skipped, with a word, where it may not
/// mount.
pub fn only_with_own_mounts(test: impl FnOnce() + Send + 'static) {
    with_own_mounts(
        |may| if may { test() } else { super::skipped("file systems of a test's own need root") },
    );
}

/// A small file system in memory; unmounted when it is dropped.
pub struct SmallDisk {
    at: PathBuf,
    mounted: bool,
}

impl SmallDisk {
    /// Mounts one of so many bytes; the folder is made if need be.
    pub fn mount(at: &Path, bytes: u64) -> SmallDisk {
        fs::create_dir_all(at).expect("make a folder");
        let options = format!("size={bytes},mode=0755");
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .expect("mount a tmpfs");
        SmallDisk { at: at.to_owned(), mounted: true }
    }

    /// Leaves no byte free. Called again, it takes what others have freed meanwhile.
    pub fn fill(&self) {
        let mut file =
            File::options().create(true).append(true).open(self.at.join(FILLER)).expect("open the filler");
        let bytes = [b'x'; CHUNK];
        let mut size = CHUNK;
        while size > 0 {
            match file.write(&bytes[..size]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
                Err(error) => panic!("fill {}: {error}", self.at.display()),
            }
        }
    }

    /// Gives back what [`SmallDisk::fill`] took.
    pub fn free(&self) {
        let _ = fs::remove_file(self.at.join(FILLER));
    }

    /// Unmounts it, which fails the test when somebody uses it still.
    pub fn unmount(mut self) {
        wait::until_true("nobody to use a disk any more", || match umount2(&self.at, MntFlags::empty()) {
            Ok(()) => true,
            Err(Errno::EBUSY) => false,
            Err(errno) => panic!("unmount {}: {errno}", self.at.display()),
        });
        self.mounted = false;
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = umount2(&self.at, MntFlags::MNT_DETACH);
        }
    }
}
