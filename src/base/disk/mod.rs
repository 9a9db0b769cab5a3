//! What all that must survive a crash asks of the file system, one durable step a method.
//!
//! A test puts [`FaultyDisk`] in the place of [`RealDisk`] and fails, tears or loses each step.
//! Nothing here retries, and nothing is durable but what was synced: bytes and length by
//! [`Disk::sync_data`] on their file, names by [`Disk::sync_dir`] on their folder. A step that
//! fails becomes a [`StepError`]; a [`FolderLock`] keeps other processes away from the files, and
//! [`Guarded`] has the files be used under it alone. Files outside such folders are made by
//! [`own`].

mod above;
mod faulty;
mod guarded;
mod identity;
mod lock;
mod ours;
pub mod own;
mod step;

pub use above::Above;
pub use faulty::{Fault, FaultyDisk, Keep, Operation};
pub use guarded::{Guarded, locked_by};
pub use identity::Identity;
pub use lock::FolderLock;
pub use lock::LOCK;
pub use ours::{check_ours, is_ours, not_ours};
pub use step::Context;
pub use step::StepError;

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Permission bits of the files that are made.
const FILE_MODE: u32 = 0o640;
/// Permission bits of the folders that are made: requests, answers and who sent them are in them.
const FOLDER_MODE: u32 = 0o750;

/// Bytes that are asked for beyond what a file was said to have.
const GROWTH: usize = 4096;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A plain file.
    File,
    /// A folder, which has names and no bytes of its own.
    Folder,
    /// Anything else, a symbolic link among them.
    Other,
}

/// What is known of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What it stands for.
    pub kind: Kind,
    /// Bytes of the file.
    pub length: u64,
    /// When its bytes changed last.
    pub modified: Timestamp,
    /// Names that it has.
    pub links: u64,
    /// Whose it is.
    pub user: u32,
    /// What tells it from every other file that is there.
    pub inode: u64,
}

/// A file system.
pub trait Disk {
    /// An open file.
    type File;

    /// Makes a file that must not exist, for reading and writing.
    ///
    /// # Errors
    /// What the system said; so for every method.
    fn create(&mut self, path: &Path) -> io::Result<Self::File>;

    /// Opens a plain file, for reading and also, if asked, for writing.
    ///
    /// # Errors
    /// What the system said; a symbolic link is refused.
    fn open(&mut self, path: &Path, write: bool) -> io::Result<Self::File>;

    /// Reads up to `length` bytes from `offset`; fewer only where the file ends.
    ///
    /// # Errors
    /// What the system said.
    fn read_at(&mut self, file: &Self::File, offset: u64, length: usize) -> io::Result<Vec<u8>>;

    /// Writes all of `bytes`. After an error any part of them may have been written.
    ///
    /// # Errors
    /// What the system said.
    fn write_at(&mut self, file: &Self::File, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Sets room aside for bytes that will be written behind `offset`, so that a full disk cannot
    /// refuse them. The file's length stays. A file system that cannot do that promises nothing,
    /// and this is no error.
    ///
    /// # Errors
    /// What the system said: there is no room.
    fn reserve(&mut self, file: &Self::File, offset: u64, length: u64) -> io::Result<()>;

    /// Makes what was written to the file durable. After an error it is unknown what is, and a
    /// later sync that succeeds proves nothing.
    ///
    /// # Errors
    /// What the system said.
    fn sync_data(&mut self, file: &Self::File) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// What the system said.
    fn sync_dir(&mut self, folder: &Path) -> io::Result<()>;

    /// Moves a name within the file system, replacing a file of that name.
    ///
    /// # Errors
    /// What the system said.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;

    /// Moves a name within the file system to one that nothing has.
    ///
    /// # Errors
    /// `AlreadyExists`, or what the system said; nothing was replaced.
    fn rename_new(&mut self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system said.
    fn remove(&mut self, path: &Path) -> io::Result<()>;

    /// Makes a folder, which may exist.
    ///
    /// # Errors
    /// What the system said.
    fn make_folder(&mut self, path: &Path) -> io::Result<()>;

    /// Calls `each` for every name in a folder, in no order.
    ///
    /// # Errors
    /// What the system said.
    fn list(&mut self, folder: &Path, each: &mut dyn FnMut(&OsStr)) -> io::Result<()>;

    /// What a name stands for, symbolic links not followed.
    ///
    /// # Errors
    /// What the system said.
    fn metadata(&mut self, path: &Path) -> io::Result<Metadata>;

    /// What an open file is: whatever becomes of the name that it was opened by.
    ///
    /// # Errors
    /// What the system said.
    fn describe(&mut self, file: &Self::File) -> io::Result<Metadata>;

    /// Bytes that are free for this user on the file system of `path`.
    ///
    /// # Errors
    /// What the system said.
    fn free_space(&mut self, path: &Path) -> io::Result<u64>;

    /// Random bytes, for a name that no other may have.
    ///
    /// # Errors
    /// What the system said.
    fn random(&mut self) -> io::Result<[u8; 16]>;

    /// Whether what is kept here is out of this process's reach for good, and only another process
    /// can go on.
    fn is_lost(&self) -> bool {
        false
    }
}

/// The file system of this host.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    type File = File;

    fn create(&mut self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)
    }

    fn open(&mut self, path: &Path, write: bool) -> io::Result<File> {
        // Non-blocking, so that a pipe which someone put there cannot hold the caller up.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        OpenOptions::new().read(true).write(write).custom_flags(flags).open(path)
    }

    fn read_at(&mut self, file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        // Room for what the file has, not for all that was asked for: a short file may be one of
        // thousands.
        let there = file.metadata()?.len().saturating_sub(offset);
        let mut bytes = vec![0; length.min(usize::try_from(there).map_or(length, |there| there + 1))];
        let mut filled = 0;
        while filled < length {
            if filled == bytes.len() {
                // It has grown.
                bytes.resize(length.min(filled + GROWTH), 0);
            }
            let Some(room) = bytes.get_mut(filled..) else { break };
            match file.read_at(room, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn write_at(&mut self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn reserve(&mut self, file: &File, offset: u64, length: u64) -> io::Result<()> {
        let range = i64::try_from(offset).and_then(|offset| Ok((offset, i64::try_from(length)?)));
        let (offset, length) = range.map_err(io::Error::other)?;
        loop {
            match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, length) {
                Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn sync_data(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_dir(&mut self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        own::rename_new(from, to)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn make_folder(&mut self, path: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(FOLDER_MODE).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            made => made,
        }
    }

    fn list(&mut self, folder: &Path, each: &mut dyn FnMut(&OsStr)) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            each(&entry?.file_name());
        }
        Ok(())
    }

    fn metadata(&mut self, path: &Path) -> io::Result<Metadata> {
        known(&fs::symlink_metadata(path)?)
    }

    fn describe(&mut self, file: &File) -> io::Result<Metadata> {
        known(&file.metadata()?)
    }

    fn free_space(&mut self, path: &Path) -> io::Result<u64> {
        let found = statvfs(path)?;
        Ok(found.blocks_available().saturating_mul(found.fragment_size()))
    }

    fn random(&mut self) -> io::Result<[u8; 16]> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(bytes)
    }
}

fn known(found: &fs::Metadata) -> io::Result<Metadata> {
    let kind = match found.file_type() {
        kind if kind.is_file() => Kind::File,
        kind if kind.is_dir() => Kind::Folder,
        _ => Kind::Other,
    };
    // A time that jiff cannot hold is as good as a very old one: the file is not being written.
    let modified = Timestamp::try_from(found.modified()?).unwrap_or(Timestamp::MIN);
    Ok(Metadata {
        kind,
        length: found.len(),
        modified,
        links: found.nlink(),
        user: found.uid(),
        inode: found.ino(),
    })
}
