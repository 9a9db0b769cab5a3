//! A process's view of its host's disk: it may die at any operation, and a sabotaged one leaves
//! things out.

use crate::sabotage::Sabotage;
use lonnet::base::disk::{Disk, FaultyDisk, Metadata};
use std::cell::Cell;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A process, as its disk sees it.
#[derive(Debug, Default)]
pub struct Life {
    /// Operations until it dies in the middle of a step; `None`: it does not.
    pub fuse: Cell<Option<u32>>,
    /// It was killed: what it does from here on happens to nobody.
    pub dead: Cell<bool>,
}

/// Where a message's progress mark is in its line.
const MARK_AT: usize = 21;

/// Whether the path is of the record, or a folder of it.
fn is_record(path: &Path) -> bool {
    path.starts_with("/spool/.received")
}

/// Whether it is a file that is being made, to take the place of another.
fn is_new(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".new"))
}

/// Whether a program dropped this file, wherever it is by now.
pub fn is_dropped(path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder == Path::new("/spool") || folder.ends_with("dropped"))
}

/// An open file, and its name.
#[derive(Debug, Clone)]
pub struct SimFile {
    file: <FaultyDisk as Disk>::File,
    path: PathBuf,
    /// It was there when it was opened, and not synced since.
    found: Rc<Cell<bool>>,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct SimDisk {
    pub disk: FaultyDisk,
    pub life: Rc<Life>,
    pub sabotage: Sabotage,
}

impl SimDisk {
    /// Whether the path is of a segment.
    fn is_segment(path: &Path) -> bool {
        path.extension().is_some_and(|end| end == "seg")
    }

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
    type File = SimFile;

    fn create(&mut self, path: &Path) -> io::Result<SimFile> {
        self.lives()?;
        Ok(SimFile { file: self.disk.create(path)?, path: path.to_owned(), found: Rc::default() })
    }
    fn open(&mut self, path: &Path, write: bool) -> io::Result<SimFile> {
        self.lives()?;
        let found = Rc::new(Cell::new(write));
        Ok(SimFile { file: self.disk.open(path, write)?, path: path.to_owned(), found })
    }
    fn read_at(&mut self, file: &SimFile, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.lives()?;
        let read = self.disk.read_at(&file.file, offset, length);
        if self.sabotage == Sabotage::DroppedFileRemovedEarly && is_dropped(&file.path) {
            self.disk.take_away(&file.path);
        }
        read
    }
    fn write_at(&mut self, file: &SimFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.lives()?;
        match self.sabotage {
            Sabotage::NeverMarked if Self::is_segment(&file.path) && bytes == b"+" => Ok(()),
            Sabotage::MarkedAhead if Self::is_segment(&file.path) && bytes.get(MARK_AT) == Some(&b'-') => {
                let mut bytes = bytes.to_vec();
                bytes[MARK_AT] = b'+';
                self.disk.write_at(&file.file, offset, &bytes)
            }
            Sabotage::CompactionLosesNewest if is_record(&file.path) && is_new(&file.path) => {
                let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
                let is_answer = |line: &&[u8]| line.windows(8).any(|word| word == b" answer ");
                if let Some(newest) = lines.iter().rposition(is_answer) {
                    lines.remove(newest);
                }
                self.disk.write_at(&file.file, offset, &lines.concat())
            }
            _ => self.disk.write_at(&file.file, offset, bytes),
        }
    }
    fn reserve(&mut self, file: &SimFile, _: u64, length: u64) -> io::Result<()> {
        self.lives()?;
        match self.disk.free_space(&file.path)? {
            free if free < length => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            _ => Ok(()),
        }
    }
    fn sync_data(&mut self, file: &SimFile) -> io::Result<()> {
        self.lives()?;
        match self.sabotage {
            Sabotage::DataNotSynced => Ok(()),
            Sabotage::SegmentsNotSynced if Self::is_segment(&file.path) => Ok(()),
            Sabotage::RecordNotSynced if is_record(&file.path) => Ok(()),
            Sabotage::FailedSyncSwallowed => self.disk.sync_data(&file.file).or(Ok(())),
            Sabotage::RecordSyncFailureIgnored if is_record(&file.path) => {
                self.disk.sync_data(&file.file).or(Ok(()))
            }
            Sabotage::RecoveredUnsynced if file.found.take() && is_record(&file.path) => Ok(()),
            _ => self.disk.sync_data(&file.file),
        }
    }
    fn sync_dir(&mut self, folder: &Path) -> io::Result<()> {
        self.lives()?;
        match self.sabotage {
            Sabotage::NamesNotSynced => Ok(()),
            Sabotage::SpoolNamesNotSynced if !is_record(folder) => Ok(()),
            _ => self.disk.sync_dir(folder),
        }
    }
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.lives()?;
        let refused = to.parent().is_some_and(|folder| folder.ends_with("failed"));
        match self.sabotage {
            Sabotage::RefusedDropped if refused => self.disk.remove(from),
            _ => self.disk.rename(from, to),
        }
    }
    fn rename_new(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.lives()?;
        self.disk.rename_new(from, to)
    }
    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.lives()?;
        match self.sabotage {
            Sabotage::DroppedFileKept if is_dropped(path) => Ok(()),
            Sabotage::SegmentRemovedEarly if Self::is_segment(path) => {
                let next = self.disk.files().into_keys().find(|other| {
                    Self::is_segment(other) && other.parent() == path.parent() && other.as_path() > path
                });
                if let Some(next) = next {
                    self.disk.take_away(&next);
                }
                self.disk.remove(path)
            }
            _ => self.disk.remove(path),
        }
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
    fn describe(&mut self, file: &SimFile) -> io::Result<Metadata> {
        self.lives()?;
        self.disk.describe(&file.file)
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
