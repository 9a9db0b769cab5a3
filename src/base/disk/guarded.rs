//! A disk that is used under the lock of one folder, and not without it.
//!
//! Where the lock cannot be had (no descriptors, a folder that cannot be made) every step that
//! begins with a path fails with that cause, and the next one tries to have it again. So who keeps
//! files there refuses, and goes on when the lock is to be had; another process that has the folder
//! meanwhile is never met, and is named.
//!
//! A lock keeps nobody away once its file was removed. Then it is taken again; and where the folder
//! itself was removed, or another stands in its place, each step fails with `NotFound` until the
//! folder is listed or made: what was known of it is void, and who keeps files there is to begin
//! again.

use super::lock::Standing;
use super::{Above, Disk, FolderLock, Metadata};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// See the head of this file.
#[derive(Debug)]
pub struct Guarded<D> {
    disk: D,
    folder: PathBuf,
    lock: Option<FolderLock>,
    /// What is said to others of who has the lock.
    holder: String,
    /// The folder was removed while its lock was had.
    gone: bool,
    /// Folders that cannot be opened any more, and may have to be synced.
    above: Arc<Above>,
}

impl<D: Disk> Guarded<D> {
    /// `disk`, under the lock of `folder`; `None`: it could not be had yet. Others are told that
    /// `holder` has it.
    pub fn new(disk: D, folder: &Path, lock: Option<FolderLock>, holder: String) -> Guarded<D> {
        lock.iter().for_each(|lock| lock.sign(&holder));
        Guarded { disk, folder: folder.to_owned(), lock, holder, gone: false, above: Arc::default() }
    }

    /// Syncs these folders by what was opened of them.
    pub fn with_above(self, above: Arc<Above>) -> Guarded<D> {
        Guarded { above, ..self }
    }

    fn locked(&mut self) -> io::Result<&mut D> {
        match self.lock.as_ref().map(FolderLock::standing) {
            Some(Standing::Held) => return Ok(&mut self.disk),
            Some(Standing::FileGone) => {
                log::warn!("{}: its lock was removed; taken again", self.folder.display());
                self.lock = None;
            }
            Some(Standing::FolderGone) => (self.lock, self.gone) = (None, true),
            None => {}
        }
        if self.gone {
            return Err(io::Error::new(io::ErrorKind::NotFound, "its folder was removed"));
        }
        let lock = FolderLock::try_acquire(&self.folder).map_err(io::Error::other)?;
        match lock {
            Some(lock) => {
                lock.sign(&self.holder);
                self.lock = Some(lock);
                Ok(&mut self.disk)
            }
            None => {
                let who = locked_by(FolderLock::holder(&self.folder));
                Err(io::Error::new(io::ErrorKind::ResourceBusy, who))
            }
        }
    }

    /// As [`Guarded::locked`], for a step by which who keeps files there begins again if it is in
    /// `folder`.
    fn locked_anew(&mut self, folder: &Path) -> io::Result<&mut D> {
        if folder == self.folder {
            self.gone = false;
        }
        self.locked()
    }
}

/// What is told of a folder that another process has.
pub fn locked_by(holder: Option<String>) -> String {
    format!("locked by {}", holder.as_deref().unwrap_or("another process"))
}

impl<D: Disk> Disk for Guarded<D> {
    type File = D::File;

    fn create(&mut self, path: &Path) -> io::Result<D::File> {
        self.locked()?.create(path)
    }

    fn open(&mut self, path: &Path, write: bool) -> io::Result<D::File> {
        self.locked()?.open(path, write)
    }

    // A file that is open was opened under the lock.

    fn read_at(&mut self, file: &D::File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.disk.read_at(file, offset, length)
    }

    fn write_at(&mut self, file: &D::File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_at(file, offset, bytes)
    }

    fn reserve(&mut self, file: &D::File, offset: u64, length: u64) -> io::Result<()> {
        self.disk.reserve(file, offset, length)
    }

    fn sync_data(&mut self, file: &D::File) -> io::Result<()> {
        self.disk.sync_data(file)
    }

    fn sync_dir(&mut self, folder: &Path) -> io::Result<()> {
        let above = self.above.clone();
        let disk = self.locked()?;
        above.sync(folder).unwrap_or_else(|| disk.sync_dir(folder))
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.locked()?.rename(from, to)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.locked()?.remove(path)
    }

    fn make_folder(&mut self, path: &Path) -> io::Result<()> {
        if self.gone && path != self.folder && self.folder.starts_with(path) {
            // One that it is to stand in again.
            return self.disk.make_folder(path);
        }
        self.locked_anew(path)?.make_folder(path)
    }

    fn list(&mut self, folder: &Path, each: &mut dyn FnMut(&OsStr)) -> io::Result<()> {
        self.locked_anew(folder)?.list(folder, each)
    }

    fn metadata(&mut self, path: &Path) -> io::Result<Metadata> {
        self.locked()?.metadata(path)
    }

    fn describe(&mut self, file: &D::File) -> io::Result<Metadata> {
        self.disk.describe(file)
    }

    fn free_space(&mut self, path: &Path) -> io::Result<u64> {
        self.locked()?.free_space(path)
    }

    fn random(&mut self) -> io::Result<[u8; 16]> {
        self.disk.random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;
    use std::time::{Duration, Instant};

    /// The lock was let go of; but a process that another test is just starting has a copy of its
    /// descriptor for a moment.
    fn soon<T>(mut step: impl FnMut() -> io::Result<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match step() {
                Ok(done) => return done,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn nothing_is_done_without_the_lock_and_it_goes_on_once_the_lock_can_be_had() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("msul1");
        let other = FolderLock::try_acquire(&folder).unwrap().unwrap();
        let mut disk = Guarded::new(RealDisk, &folder, None, "this test".to_owned());
        let file = folder.join("epoch");
        assert_eq!(disk.create(&file).unwrap_err().to_string(), "locked by another process");
        other.sign("lonc, process 7");
        assert_eq!(disk.create(&file).unwrap_err().to_string(), "locked by lonc, process 7");
        assert!(disk.list(&folder, &mut |_| panic!("nothing is to be seen")).is_err());
        drop(other);
        soon(|| disk.create(&file));
        assert!(FolderLock::try_acquire(&folder).unwrap().is_none(), "it keeps the lock");
        assert_eq!(FolderLock::holder(&folder).as_deref(), Some("this test"));
    }

    #[test]
    fn a_lock_that_was_removed_is_taken_again_unless_another_was_quicker() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("msul1");
        let lock = FolderLock::try_acquire(&folder).unwrap();
        let mut disk = Guarded::new(RealDisk, &folder, lock, "this test".to_owned());
        disk.create(&folder.join("one")).unwrap();
        std::fs::remove_file(folder.join("lock")).unwrap();
        disk.metadata(&folder.join("one")).unwrap();
        assert!(FolderLock::try_acquire(&folder).unwrap().is_none(), "it has it again");
        std::fs::remove_file(folder.join("lock")).unwrap();
        let other = FolderLock::try_acquire(&folder).unwrap();
        assert!(disk.metadata(&folder.join("one")).unwrap_err().to_string().contains("another process"));
        drop(other);
        soon(|| disk.metadata(&folder.join("one")));
    }

    #[test]
    fn where_the_folder_was_removed_nothing_is_there_until_it_is_begun_anew() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("msul1");
        let lock = FolderLock::try_acquire(&folder).unwrap();
        let mut disk = Guarded::new(RealDisk, &folder, lock, "this test".to_owned());
        std::fs::remove_dir_all(&folder).unwrap();
        // Another has made one of that name, which is not the one that was known.
        std::fs::create_dir(&folder).unwrap();
        for _ in 0..2 {
            let error = disk.create(&folder.join("two")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
        disk.list(&folder, &mut |name| assert_eq!(name, "lock")).unwrap();
        disk.create(&folder.join("two")).unwrap();
    }
}
