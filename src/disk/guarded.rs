//! A disk that is used under the lock of one folder, and not without it.
//!
//! Where the lock cannot be had (no descriptors, a folder that cannot be made) every step that begins with a path fails with
//! that cause, and the next one tries to have it again. So who keeps files there refuses, and goes on when the lock is to be
//! had; another process that has the folder meanwhile is never met.

use super::{Disk, FolderLock, Metadata};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

/// See the head of this file.
#[derive(Debug)]
pub struct Guarded<D> {
    disk: D,
    folder: PathBuf,
    lock: Option<FolderLock>,
}

impl<D: Disk> Guarded<D> {
    /// `disk`, under the lock of `folder`; `None`: it could not be had yet.
    pub fn new(disk: D, folder: &Path, lock: Option<FolderLock>) -> Guarded<D> {
        Guarded { disk, folder: folder.to_owned(), lock }
    }

    fn locked(&mut self) -> io::Result<&mut D> {
        if self.lock.is_none() {
            self.lock = FolderLock::try_acquire(&self.folder).map_err(io::Error::other)?;
        }
        match self.lock {
            Some(_) => Ok(&mut self.disk),
            None => Err(io::Error::other("another process has locked its folder")),
        }
    }
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

    fn sync_data(&mut self, file: &D::File) -> io::Result<()> {
        self.disk.sync_data(file)
    }

    fn sync_dir(&mut self, folder: &Path) -> io::Result<()> {
        self.locked()?.sync_dir(folder)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.locked()?.rename(from, to)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.locked()?.remove(path)
    }

    fn make_folder(&mut self, path: &Path) -> io::Result<()> {
        self.locked()?.make_folder(path)
    }

    fn list(&mut self, folder: &Path, each: &mut dyn FnMut(&OsStr)) -> io::Result<()> {
        self.locked()?.list(folder, each)
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

    #[test]
    fn nothing_is_done_without_the_lock_and_it_goes_on_once_the_lock_can_be_had() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("msul1");
        let other = FolderLock::try_acquire(&folder).unwrap();
        let mut disk = Guarded::new(RealDisk, &folder, None);
        let file = folder.join("epoch");
        assert!(disk.create(&file).unwrap_err().to_string().contains("another process"));
        assert!(disk.list(&folder, &mut |_| panic!("nothing is to be seen")).is_err());
        drop(other);
        disk.create(&file).unwrap();
        assert!(FolderLock::try_acquire(&folder).unwrap().is_none(), "it keeps the lock");
    }
}
