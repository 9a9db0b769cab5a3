//! Keeps two processes from using one folder's files at a time.
//!
//! The lock is on an open file, so it is gone with the process, however that ends, and nothing stale can be left.

use super::{Context, StepError};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// File in the folder that is locked.
pub(crate) const LOCK: &str = "lock";

/// The right to use one folder; given back when dropped, by closing the file, which cannot fail as unlocking it could.
#[derive(Debug)]
pub struct FolderLock {
    _held: File,
}

impl FolderLock {
    /// Waits for the lock of `dir`; the folder is made if need be. A process with a deadline tries
    /// [`FolderLock::try_acquire`] again instead.
    ///
    /// # Errors
    /// The folder or the file cannot be made, or not locked.
    pub fn acquire_blocking(dir: &Path) -> Result<FolderLock, StepError> {
        let file = open(dir)?;
        loop {
            match file.lock() {
                Ok(()) => return Ok(FolderLock { _held: file }),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("lock", &dir.join(LOCK)),
            }
        }
    }

    /// The lock, or `None` when another process has it.
    ///
    /// # Errors
    /// The folder or the file cannot be made, or not locked.
    pub fn try_acquire(dir: &Path) -> Result<Option<FolderLock>, StepError> {
        let file = open(dir)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(FolderLock { _held: file })),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(TryLockError::Error(error)) => return Err(error).context("lock", &dir.join(LOCK)),
            }
        }
    }
}

fn open(dir: &Path) -> Result<File, StepError> {
    make_folders(dir)?;
    let path = dir.join(LOCK);
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o640).open(&path).context("open", &path)
}

/// Makes the folder and those above it. The names that are made above `dir` are durable; who owns the files in `dir`
/// syncs its own name and theirs.
fn make_folders(dir: &Path) -> Result<(), StepError> {
    let missing: Vec<&Path> = dir.ancestors().skip(1).take_while(|above| !above.exists()).collect();
    fs::create_dir_all(dir).context("make", dir)?;
    for made in missing {
        let above = made.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
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
        let held = FolderLock::acquire_blocking(&dir).unwrap();
        assert!(FolderLock::try_acquire(&dir).unwrap().is_none());
        drop(held);
        assert!(FolderLock::try_acquire(&dir).unwrap().is_some());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("delayed"), "a file").unwrap();
        let error = FolderLock::acquire_blocking(&folder.path().join("delayed/msul1")).unwrap_err();
        assert!(error.to_string().starts_with("make "), "{error}");
    }
}
