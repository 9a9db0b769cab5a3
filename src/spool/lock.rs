//! Keeps two processes from serving one peer's spool at a time.
//!
//! The lock is on an open file, so it is gone with the process, however that ends, and nothing stale can be left.

use super::{Context, SpoolError};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// File in the spool's folder that is locked.
pub(super) const LOCK: &str = "lock";

/// The right to use one spool; given back when dropped.
#[derive(Debug)]
pub struct SpoolLock {
    _held: Flock<File>,
}

impl SpoolLock {
    /// Waits for the lock of the spool in `dir`; the folder is made if need be.
    ///
    /// # Errors
    /// The folder or the file cannot be made, or not locked.
    pub fn acquire_blocking(dir: &Path) -> Result<SpoolLock, SpoolError> {
        let path = dir.join(LOCK);
        let mut file = open(dir)?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(held) => return Ok(SpoolLock { _held: held }),
                Err((again, nix::Error::EINTR)) => file = again,
                Err((_, cause)) => return Err(io::Error::from(cause)).context("lock", &path),
            }
        }
    }

    /// The lock, or `None` when another process has it.
    ///
    /// # Errors
    /// The folder or the file cannot be made, or not locked.
    pub fn try_acquire(dir: &Path) -> Result<Option<SpoolLock>, SpoolError> {
        match Flock::lock(open(dir)?, FlockArg::LockExclusiveNonblock) {
            Ok(held) => Ok(Some(SpoolLock { _held: held })),
            Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
            Err((_, cause)) => Err(io::Error::from(cause)).context("lock", &dir.join(LOCK)),
        }
    }
}

fn open(dir: &Path) -> Result<File, SpoolError> {
    make_folders(dir)?;
    let path = dir.join(LOCK);
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o640).open(&path).context("open", &path)
}

/// Makes the folder and those above it. The spool itself syncs the names of its folder and in it, and can count on
/// the one above when this has made it.
fn make_folders(dir: &Path) -> Result<(), SpoolError> {
    let delayed = dir.parent().filter(|delayed| !delayed.exists());
    fs::create_dir_all(dir).context("make", dir)?;
    if let Some(above) = delayed.and_then(Path::parent) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        File::open(above).and_then(|above| above.sync_all()).context("sync", above)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_the_next_when_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("delayed/msul1");
        let held = SpoolLock::acquire_blocking(&dir).unwrap();
        assert!(SpoolLock::try_acquire(&dir).unwrap().is_none());
        drop(held);
        assert!(SpoolLock::try_acquire(&dir).unwrap().is_some());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("delayed"), "a file").unwrap();
        let error = SpoolLock::acquire_blocking(&folder.path().join("delayed/msul1")).unwrap_err();
        assert!(error.to_string().starts_with("make "), "{error}");
    }
}
