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
//!
//! A process that is confined to its folder cannot begin again in another one. It says so at its
//! start ([`Guarded::to_this_folder`]); then nothing is made or taken in another folder of that
//! name, and [`Disk::is_lost`] tells that another process is to go on.

use super::lock::Standing;
use super::{Above, Disk, FolderLock, Identity, Metadata};
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
    /// This process has the folder that this was, if it was there, and can have no other.
    only: Option<Option<Identity>>,
    /// It is another one by now.
    lost: bool,
}

impl<D: Disk> Guarded<D> {
    /// `disk`, under the lock of `folder`; `None`: it could not be had yet. Others are told that
    /// `holder` has it.
    pub fn new(disk: D, folder: &Path, lock: Option<FolderLock>, holder: String) -> Guarded<D> {
        lock.iter().for_each(|lock| lock.sign(&holder));
        let (folder, above) = (folder.to_owned(), Arc::default());
        Guarded { disk, folder, lock, holder, gone: false, above, only: None, lost: false }
    }

    /// From here on no other folder is had than the one that has this name now.
    pub fn to_this_folder(self) -> Guarded<D> {
        Guarded { only: Some(Identity::named(&self.folder).ok()), ..self }
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
            Some(Standing::FolderGone) => {
                (self.lock, self.gone) = (None, true);
                self.lost |= self.only.is_some();
            }
            None => {}
        }
        if self.gone {
            return Err(io::Error::new(io::ErrorKind::NotFound, "its folder was removed"));
        }
        let lock = match FolderLock::try_acquire(&self.folder) {
            Ok(lock) => lock,
            Err(error) => {
                // There was none, or another, when this process was confined.
                let there = Identity::named(&self.folder).ok();
                self.lost |= there.is_some() && self.only.is_some_and(|only| only != there);
                return Err(io::Error::other(error));
            }
        };
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

    /// Whether this process can have another folder.
    fn may_begin_anew(&self) -> io::Result<()> {
        match self.only {
            None => Ok(()),
            Some(_) => Err(io::Error::other("its folder was removed; the next process has another")),
        }
    }

    /// As [`Guarded::locked`], for a step by which who keeps files there begins again if it is in
    /// `folder`.
    fn locked_anew(&mut self, folder: &Path) -> io::Result<&mut D> {
        if folder == self.folder && self.gone {
            self.may_begin_anew()?;
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

    fn rename_new(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.locked()?.rename_new(from, to)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.locked()?.remove(path)
    }

    fn make_folder(&mut self, path: &Path) -> io::Result<()> {
        if self.gone && path != self.folder && self.folder.starts_with(path) {
            // One that it is to stand in again.
            self.may_begin_anew()?;
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

    fn is_lost(&self) -> bool {
        self.lost
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
    #[test]
    fn a_process_that_can_have_one_folder_alone_makes_no_other_and_knows_when_it_is_lost() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("msul1");
        let begun = || {
            let lock = FolderLock::try_acquire(&folder).unwrap();
            Guarded::new(RealDisk, &folder, lock, "this test".to_owned()).to_this_folder()
        };
        let mut disk = begun();
        std::fs::remove_file(folder.join("lock")).unwrap();
        disk.create(&folder.join("one")).unwrap();
        assert!(!disk.is_lost(), "the lock alone was removed");
        std::fs::remove_dir_all(above.path()).unwrap();
        assert_eq!(disk.metadata(&folder).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(disk.is_lost());
        for wrong in [disk.make_folder(&folder), disk.list(&folder, &mut |_| {})] {
            assert_ne!(wrong.unwrap_err().kind(), io::ErrorKind::NotFound, "it is not empty");
        }
        assert!(disk.make_folder(above.path()).is_err());
        assert!(!above.path().exists(), "nothing is made");
        std::fs::create_dir_all(&folder).unwrap();
        assert!(disk.list(&folder, &mut |_| panic!("it is another one")).is_err());
        assert!(disk.create(&folder.join("two")).is_err());
        assert!(!begun().is_lost(), "the next process has it");
    }

    #[test]
    fn a_process_that_had_no_folder_to_be_confined_to_is_lost_when_there_is_one_that_it_cannot_have() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("spool/msul1");
        std::fs::write(above.path().join("spool"), "in the way").unwrap();
        let begun = || Guarded::new(RealDisk, &folder, None, "this test".to_owned()).to_this_folder();
        let mut disk = begun();
        assert!(disk.create(&folder.join("one")).is_err() && !disk.is_lost());
        // As a confined process sees it: it is there, and cannot be used.
        std::fs::remove_file(above.path().join("spool")).unwrap();
        std::fs::create_dir_all(folder.join("lock")).unwrap();
        assert!(disk.create(&folder.join("one")).is_err() && disk.is_lost());
        let mut next = begun();
        assert!(next.create(&folder.join("one")).is_err() && !next.is_lost(), "the next has the same one");
    }
}
