//! A process's view of its host's disk: it may die at any operation, and a sabotaged one leaves things out.

use crate::sabotage::Sabotage;
use lonnet::disk::{Disk, FaultyDisk, Metadata};
use std::cell::Cell;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::rc::Rc;

/// A process, as its disk sees it.
#[derive(Debug, Default)]
pub struct Life {
    /// Operations until it dies in the middle of a step; `None`: it does not.
    pub fuse: Cell<Option<u32>>,
    /// It was killed: what it does from here on happens to nobody.
    pub dead: Cell<bool>,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct SimDisk {
    pub disk: FaultyDisk,
    pub life: Rc<Life>,
    pub sabotage: Sabotage,
}

impl SimDisk {
    fn lives(&self) -> io::Result<()> {
        match self.life.fuse.get() {
            Some(0) => self.life.dead.set(true),
            Some(left) => self.life.fuse.set(Some(left - 1)),
            None => {}
        }
        if self.life.dead.get() { Err(io::Error::other("killed")) } else { Ok(()) }
    }
}

impl Disk for SimDisk {
    type File = <FaultyDisk as Disk>::File;

    fn create(&mut self, path: &Path) -> io::Result<Self::File> {
        self.lives()?;
        self.disk.create(path)
    }
    fn open(&mut self, path: &Path, write: bool) -> io::Result<Self::File> {
        self.lives()?;
        self.disk.open(path, write)
    }
    fn read_at(&mut self, file: &Self::File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.lives()?;
        self.disk.read_at(file, offset, length)
    }
    fn write_at(&mut self, file: &Self::File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.lives()?;
        self.disk.write_at(file, offset, bytes)
    }
    fn sync_data(&mut self, file: &Self::File) -> io::Result<()> {
        self.lives()?;
        match self.sabotage {
            Sabotage::DataNotSynced => Ok(()),
            Sabotage::FailedSyncSwallowed => self.disk.sync_data(file).or(Ok(())),
            _ => self.disk.sync_data(file),
        }
    }
    fn sync_dir(&mut self, folder: &Path) -> io::Result<()> {
        self.lives()?;
        if self.sabotage == Sabotage::NamesNotSynced { Ok(()) } else { self.disk.sync_dir(folder) }
    }
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.lives()?;
        self.disk.rename(from, to)
    }
    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.lives()?;
        self.disk.remove(path)
    }
    fn make_folder(&mut self, path: &Path) -> io::Result<()> {
        self.lives()?;
        self.disk.make_folder(path)
    }
    fn list(&mut self, folder: &Path, each: &mut dyn FnMut(&OsStr)) -> io::Result<()> {
        self.lives()?;
        self.disk.list(folder, each)
    }
    fn metadata(&mut self, path: &Path) -> io::Result<Metadata> {
        self.lives()?;
        self.disk.metadata(path)
    }
    fn free_space(&mut self, path: &Path) -> io::Result<u64> {
        self.lives()?;
        self.disk.free_space(path)
    }
    fn random(&mut self) -> io::Result<[u8; 16]> {
        self.lives()?;
        self.disk.random()
    }
}
