//! What the walks through the faults of a disk share: the faults, the ways in which a machine
//! forgets, and disks that a walk must find fault with.

pub mod walk;

use lonnet::base::disk::{Disk, Fault, FaultyDisk, Keep, Metadata};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::Path;

/// What of that which was not synced is found after a crash.
pub const KEEPS: [Keep; 6] =
    [Keep::Nothing, Keep::All, Keep::Some(11), Keep::Some(22), Keep::Some(33), Keep::Some(44)];

/// The faults that make sense for an operation.
pub fn faults_for(method: &str, bytes: usize) -> Vec<Fault> {
    let mut faults =
        vec![Fault::Fail(libc::EIO), Fault::FailFrom(libc::EROFS), Fault::CrashBefore, Fault::CrashAfter];
    if method == "write_at" && bytes > 1 {
        let edges = [1, 20, 21, 22, 71, 72, 511, 512, 513, bytes / 3, bytes / 2, bytes - 1];
        let prefixes: BTreeSet<usize> = edges.into_iter().filter(|prefix| *prefix < bytes).collect();
        faults.extend(prefixes.into_iter().map(Fault::Torn));
        faults.extend([0, bytes / 2].map(|prefix| Fault::Partial(prefix, libc::ENOSPC)));
    }
    faults
}

/// What is left out.
#[derive(Clone, Copy, PartialEq)]
pub enum Flaw {
    DataNotSynced,
    NamesNotSynced,
    FailedSyncSwallowed,
    FailedWriteSwallowed,
}

/// A disk that leaves out one thing which all that must survive a crash relies on: a walk must
/// notice each.
pub struct Careless(pub FaultyDisk, pub Flaw);

impl Disk for Careless {
    type File = <FaultyDisk as Disk>::File;

    fn create(&mut self, path: &Path) -> io::Result<Self::File> {
        self.0.create(path)
    }
    fn open(&mut self, path: &Path, write: bool) -> io::Result<Self::File> {
        self.0.open(path, write)
    }
    fn read_at(&mut self, file: &Self::File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.0.read_at(file, offset, length)
    }
    fn write_at(&mut self, file: &Self::File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let written = self.0.write_at(file, offset, bytes);
        if self.1 == Flaw::FailedWriteSwallowed { Ok(()) } else { written }
    }
    // Room is a matter of the disk's size, and this one has none.
    fn reserve(&mut self, _: &Self::File, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&mut self, file: &Self::File) -> io::Result<()> {
        match self.1 {
            Flaw::DataNotSynced => Ok(()),
            Flaw::FailedSyncSwallowed => self.0.sync_data(file).or(Ok(())),
            Flaw::NamesNotSynced | Flaw::FailedWriteSwallowed => self.0.sync_data(file),
        }
    }
    fn sync_dir(&mut self, folder: &Path) -> io::Result<()> {
        if self.1 == Flaw::NamesNotSynced { Ok(()) } else { self.0.sync_dir(folder) }
    }
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn rename_new(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename_new(from, to)
    }
    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn make_folder(&mut self, path: &Path) -> io::Result<()> {
        self.0.make_folder(path)
    }
    fn list(&mut self, folder: &Path, each: &mut dyn FnMut(&OsStr)) -> io::Result<()> {
        self.0.list(folder, each)
    }
    fn metadata(&mut self, path: &Path) -> io::Result<Metadata> {
        self.0.metadata(path)
    }
    fn describe(&mut self, file: &Self::File) -> io::Result<Metadata> {
        self.0.describe(file)
    }
    fn free_space(&mut self, path: &Path) -> io::Result<u64> {
        self.0.free_space(path)
    }
    fn random(&mut self) -> io::Result<[u8; 16]> {
        self.0.random()
    }
}
