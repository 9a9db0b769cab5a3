//! Keeps two processes from using one folder's files at a time.
//!
//! The lock is on an open file, so it is gone with the process, however that ends, and nothing
//! stale can be left.

use super::{Context, FILE_MODE, FOLDER_MODE, Identity, StepError, check_ours};
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// File in the folder that is locked.
pub const LOCK: &str = "lock";

/// Bytes of that file that are looked at: who has the lock.
const HOLDER_MOST: u64 = 1024;

/// Times that the file is opened again when another process removed it meanwhile.
const ATTEMPTS: usize = 100;

/// The right to use one folder; given back when dropped, by closing the file, which cannot fail as
/// unlocking it could.
#[derive(Debug)]
pub struct FolderLock {
    held: File,
    /// Keeps the folder's number from being given to another folder.
    folder: File,
    dir: PathBuf,
}

/// Where a lock that was had stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Who wants the folder meets it.
    Held,
    /// Its file was removed: another process may have locked a new one.
    FileGone,
    /// The folder was removed, or another has come to stand in its place.
    FolderGone,
}

impl FolderLock {
    /// The lock of `dir`, which is made if need be, or `None` when another process has it.
    ///
    /// # Errors
    /// The folder or the file cannot be made, or not locked; or the folder is one that others have
    /// made, or may write in.
    pub fn try_acquire(dir: &Path) -> Result<Option<FolderLock>, StepError> {
        for _ in 0..ATTEMPTS {
            let file = open(dir)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(TryLockError::Error(error)) => return Err(error).context("lock", &dir.join(LOCK)),
            }
            let folder = File::open(dir).context("open", dir)?;
            let lock = FolderLock { held: file, folder, dir: dir.to_owned() };
            if lock.standing() == Standing::Held {
                return Ok(Some(lock));
            }
        }
        Err(io::Error::other("it is removed again and again")).context("lock", &dir.join(LOCK))
    }

    /// Says in the file who has the lock, for those who meet it. A disk that is full may not take
    /// it.
    pub fn sign(&self, holder: &str) {
        let line = format!("{holder}\n");
        // Written over before it is cut, so that a reader always finds a name.
        let signed =
            self.held.write_all_at(line.as_bytes(), 0).and_then(|()| self.held.set_len(line.len() as u64));
        if let Err(error) = signed {
            log::warn!("write {}: {error}; others cannot tell who has it", self.dir.join(LOCK).display());
        }
    }

    /// Whether the path still leads to what is locked.
    pub fn standing(&self) -> Standing {
        let same = |named: io::Result<Metadata>, had: io::Result<Metadata>| match (named, had) {
            (Ok(named), Ok(had)) => Identity::of(&named) == Identity::of(&had),
            // What the system does not tell just now is no sign that it is gone.
            (Err(error), _) => error.kind() != io::ErrorKind::NotFound,
            (_, Err(_)) => true,
        };
        if !same(fs::metadata(&self.dir), self.folder.metadata()) {
            Standing::FolderGone
        } else if !same(fs::metadata(self.dir.join(LOCK)), self.held.metadata()) {
            Standing::FileGone
        } else {
            Standing::Held
        }
    }

    /// Who has, or had last, the lock of `dir`, as far as that one has said so.
    pub fn holder(dir: &Path) -> Option<String> {
        let mut text = String::new();
        File::open(dir.join(LOCK)).ok()?.take(HOLDER_MOST).read_to_string(&mut text).ok()?;
        text.lines().next().filter(|line| !line.is_empty()).map(str::to_owned)
    }
}

fn open(dir: &Path) -> Result<File, StepError> {
    make_folders(dir)?;
    check_ours(dir).context("use", dir)?;
    let path = dir.join(LOCK);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(FILE_MODE).custom_flags(libc::O_NOFOLLOW);
    options.open(&path).context("open", &path)
}

/// Makes the folder and those above it. The names that are made above `dir` are durable; who owns
/// the files in `dir` syncs its own name and theirs.
fn make_folders(dir: &Path) -> Result<(), StepError> {
    let missing: Vec<&Path> = dir.ancestors().skip(1).take_while(|above| !above.exists()).collect();
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(dir).context("make", dir)?;
    for made in missing {
        let above = made.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(above).and_then(|above| above.sync_all()).context("sync", above)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn one_holder_at_a_time_and_the_next_when_it_is_gone_and_it_is_said_who() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("delayed/msul1");
        let held = FolderLock::try_acquire(&dir).unwrap().unwrap();
        assert_eq!(FolderLock::holder(&dir), None);
        held.sign("lonc, process 1234567, run_dir /run/lonnet");
        held.sign("lonc, process 7, run_dir /run");
        assert!(FolderLock::try_acquire(&dir).unwrap().is_none());
        assert_eq!(FolderLock::holder(&dir).as_deref(), Some("lonc, process 7, run_dir /run"));
        drop(held);
        assert!(FolderLock::try_acquire(&dir).unwrap().is_some());
    }

    #[test]
    fn a_lock_whose_file_or_folder_was_removed_is_known_to_keep_nobody_away() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("delayed/msul1");
        let held = FolderLock::try_acquire(&dir).unwrap().unwrap();
        assert_eq!(held.standing(), Standing::Held);
        fs::remove_file(dir.join(LOCK)).unwrap();
        assert_eq!(held.standing(), Standing::FileGone);
        let other = FolderLock::try_acquire(&dir).unwrap().unwrap();
        assert_eq!((held.standing(), other.standing()), (Standing::FileGone, Standing::Held));
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(held.standing(), Standing::FolderGone);
        drop(FolderLock::try_acquire(&dir).unwrap().unwrap());
        assert_eq!(held.standing(), Standing::FolderGone, "another folder of that name");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("delayed"), "a file").unwrap();
        let error = FolderLock::try_acquire(&folder.path().join("delayed/msul1")).unwrap_err();
        assert!(error.to_string().starts_with("make "), "{error}");
    }
}
