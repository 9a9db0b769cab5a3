//! A disk in memory that fails, tears and forgets, for tests and simulations.
//!
//! It keeps two states: what a program sees, and what would be found after the machine died.
//! Between them lie the steps that were not synced, and at a crash any part of them may have
//! reached the disk ([`Keep`]): writes by blocks of [`BLOCK`] bytes, names one change at a time (a
//! rename is one change, as on every journalling file system).
//!
//! Every call of a [`Disk`] method is one operation with a number, and a [`Fault`] is planned for a
//! number. The model is unkind where real systems are: after a failed [`Disk::sync_data`] what was
//! not durable stays visible, and a later sync that succeeds does not make it durable (the pages
//! were marked clean). A failed [`Disk::sync_dir`] may be tried again: names go through a journal,
//! which does not forget.
//!
//! Clones share one disk. Nothing here reads a clock or a random source: what is random comes from
//! seeds.

// It plays a disk in tests: what it indexes it has put there itself.
#![allow(clippy::indexing_slicing)]

mod state;

use super::{Disk, Kind, Metadata};
use jiff::Timestamp;
use state::{Change, Node, State, dead, errno, parent};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that reach the disk together or not at all.
pub(super) const BLOCK: usize = 512;

/// What happens at one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this error number and does nothing.
    Fail(i32),
    /// It is a write: this many bytes are written, then it fails with this error number. Else as
    /// [`Fault::Fail`].
    Partial(usize, i32),
    /// Every operation that changes something fails with this error number from here on, until
    /// [`FaultyDisk::heal`].
    FailFrom(i32),
    /// The machine dies before it.
    CrashBefore,
    /// The machine dies after it.
    CrashAfter,
    /// It is a write: this many bytes are written, then the machine dies. Else as
    /// [`Fault::CrashAfter`].
    Torn(usize),
}

/// What of that which was not synced is found after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All of it.
    All,
    /// None of it.
    Nothing,
    /// Each piece or not, by this seed.
    Some(u64),
}

/// An operation, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Name of the method.
    pub method: &'static str,
    /// What it was applied to.
    pub path: PathBuf,
    /// How many bytes it was to write, if it is a write.
    pub bytes: usize,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

/// An open file of a [`FaultyDisk`].
#[derive(Debug, Clone)]
pub struct FaultyFile {
    inode: usize,
    path: PathBuf,
    write: bool,
    /// Start of the machine that it was opened under.
    start: u64,
}

impl FaultyDisk {
    /// An empty disk with these folders, durable.
    pub fn new(folders: &[&Path]) -> FaultyDisk {
        let disk = FaultyDisk::default();
        let mut state = disk.lock();
        for folder in folders {
            state.put_folders(folder);
        }
        drop(state);
        disk
    }

    /// Plans a fault for the operation with this number, counted from 0 over the disk's life.
    pub fn plan(&self, operation: usize, fault: Fault) {
        self.lock().faults.insert(operation, fault);
    }

    /// Right before the operation with this number someone else puts another file in the place of
    /// this one.
    pub fn replace_before(&self, operation: usize, path: &Path, bytes: &[u8]) {
        self.lock().replacements.insert(operation, (path.to_owned(), bytes.to_vec()));
    }

    /// Each call of this method on this path fails with this error number, until
    /// [`FaultyDisk::heal`].
    pub fn refuse(&self, method: &'static str, path: &Path, errno: i32) {
        self.lock().refused.insert((method, path.to_owned()), errno);
    }

    /// Forgets what is planned, and lets everything succeed again that [`Fault::FailFrom`] made
    /// fail.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.faults.clear();
        state.refused.clear();
        state.failing = None;
    }

    /// The operations so far.
    pub fn operations(&self) -> Vec<Operation> {
        self.lock().operations.clone()
    }

    /// Whether the machine died; every operation fails until [`FaultyDisk::restart`].
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// The machine dies, if it did not, and starts again with what reached the disk.
    pub fn restart(&self, keep: Keep) {
        self.lock().restart(keep);
    }

    /// A disk in the same state that goes its own way; its operations are counted again and nothing
    /// is planned.
    pub fn fork(&self) -> FaultyDisk {
        let state = self.lock();
        let fork = State {
            seen: state.seen.clone(),
            durable: state.durable.clone(),
            changes: state.changes.clone(),
            inodes: state.inodes.clone(),
            operations: Vec::new(),
            faults: BTreeMap::new(),
            refused: BTreeMap::new(),
            replacements: BTreeMap::new(),
            failing: None,
            ..*state
        };
        FaultyDisk { state: Arc::new(Mutex::new(fork)) }
    }

    /// What [`Disk::free_space`] says; unlimited at first.
    pub fn set_free_space(&self, bytes: u64) {
        self.lock().free = Some(bytes);
    }

    /// The time that files get when they are written.
    pub fn set_now(&self, now: Timestamp) {
        self.lock().now = now;
    }

    /// Someone else puts a file there, whole and durable, and its folders.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        self.lock().put(path, bytes);
    }

    /// Someone else gives a file that is there to this user.
    pub fn give(&self, path: &Path, user: u32) {
        let mut state = self.lock();
        if let Some(Node::File(inode)) = state.seen.get(path).copied() {
            state.inodes[inode].user = user;
        }
    }

    /// Someone else gives a file that is there another name, durably.
    pub fn put_link(&self, path: &Path, other: &Path) {
        let mut state = self.lock();
        if let Some(node) = state.seen.get(other).copied() {
            state.put_folders(parent(path));
            state.seen.insert(path.to_owned(), node);
            state.durable.insert(path.to_owned(), node);
        }
    }

    /// Someone else removes a name, durably, and all below it.
    pub fn take_away(&self, path: &Path) {
        let mut state = self.lock();
        state.seen.retain(|name, _| !name.starts_with(path));
        state.durable.retain(|name, _| !name.starts_with(path));
        state.changes.retain(|change| match change {
            Change::Link(name, _) | Change::Unlink(name, _) => !name.starts_with(path),
            Change::Rename(from, to, _) => !from.starts_with(path) && !to.starts_with(path),
        });
    }

    /// The files that a program sees, with their bytes.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.lock();
        let file = |(path, node): (&PathBuf, &Node)| match node {
            Node::File(inode) => Some((path.clone(), state.inodes[*inode].seen.clone())),
            Node::Folder => None,
        };
        state.seen.iter().filter_map(file).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One operation: counted, then failed or not as planned. `act` gets how many bytes to write.
    fn operate<T>(
        &self,
        operation: Operation,
        changes: bool,
        act: impl FnOnce(&mut State, usize) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.lock();
        if state.dead {
            return Err(dead());
        }
        let number = state.operations.len();
        if let Some((path, bytes)) = state.replacements.remove(&number) {
            state.put(&path, &bytes);
        }
        let (writes, bytes) = (operation.method == "write_at", operation.bytes);
        let syncs = operation.method == "sync_data";
        let refused = state.refused.get(&(operation.method, operation.path.clone())).copied();
        state.operations.push(operation);
        let fault = state.faults.get(&number).copied().or(refused.map(Fault::Fail));
        if let Some(Fault::FailFrom(errno)) = fault {
            state.failing = Some(errno);
        }
        let failing = state.failing.filter(|_| changes).map(Fault::Fail);
        match failing.or(fault) {
            None | Some(Fault::FailFrom(_)) => act(&mut state, bytes),
            // A sync that fails runs, so that it can spoil what it should have saved.
            Some(Fault::Fail(errno) | Fault::Partial(_, errno)) if syncs => {
                let _ = act(&mut state, usize::MAX);
                Err(io::Error::from_raw_os_error(errno))
            }
            Some(Fault::Partial(count, errno)) if writes => {
                act(&mut state, count.min(bytes))?;
                Err(io::Error::from_raw_os_error(errno))
            }
            Some(Fault::Fail(errno) | Fault::Partial(_, errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::CrashBefore) => {
                state.dead = true;
                Err(dead())
            }
            Some(Fault::Torn(count)) if writes => {
                let _ = act(&mut state, count.min(bytes));
                state.dead = true;
                Err(dead())
            }
            Some(Fault::CrashAfter | Fault::Torn(_)) => {
                let _ = act(&mut state, bytes);
                state.dead = true;
                Err(dead())
            }
        }
    }
}

impl Disk for FaultyDisk {
    type File = FaultyFile;

    fn create(&mut self, path: &Path) -> io::Result<FaultyFile> {
        self.operate(operation("create", path, 0), true, |state, _| {
            let inode = state.add_inode();
            state.link(path, Node::File(inode))?;
            Ok(FaultyFile { inode, path: path.to_owned(), write: true, start: state.starts })
        })
    }

    fn open(&mut self, path: &Path, write: bool) -> io::Result<FaultyFile> {
        self.operate(operation("open", path, 0), write, |state, _| match state.find(path)? {
            Node::File(inode) => Ok(FaultyFile { inode, path: path.to_owned(), write, start: state.starts }),
            Node::Folder => Err(errno(libc::EISDIR)),
        })
    }

    fn read_at(&mut self, file: &FaultyFile, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.operate(operation("read_at", &file.path, 0), false, |state, _| {
            let bytes = &state.file(file)?.seen;
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            Ok(bytes[start..start.saturating_add(length).min(bytes.len())].to_vec())
        })
    }

    fn write_at(&mut self, file: &FaultyFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.operate(operation("write_at", &file.path, bytes.len()), true, |state, count| {
            if !file.write {
                return Err(errno(libc::EBADF));
            }
            let now = state.now;
            let inode = state.file(file)?;
            inode.modified = now;
            inode.write(offset as usize, &bytes[..count]);
            Ok(())
        })
    }

    // Room is a matter of the disk's size, and this one has none.
    fn reserve(&mut self, _: &FaultyFile, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&mut self, file: &FaultyFile) -> io::Result<()> {
        self.operate(operation("sync_data", &file.path, 0), true, |state, spoil| {
            let inode = state.file(file)?;
            if spoil > 0 {
                inode.pending.iter_mut().for_each(|piece| piece.doomed = true);
            } else {
                inode.sync();
            }
            Ok(())
        })
    }

    fn sync_dir(&mut self, folder: &Path) -> io::Result<()> {
        self.operate(operation("sync_dir", folder, 0), true, |state, _| {
            state.require_folder(folder)?;
            state.sync_names(folder);
            Ok(())
        })
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(operation("rename", from, 0), true, |state, _| state.rename(from, to))
    }

    fn rename_new(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(operation("rename_new", from, 0), true, |state, _| match state.seen.get(to) {
            Some(_) => Err(errno(libc::EEXIST)),
            None => state.rename(from, to),
        })
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.operate(operation("remove", path, 0), true, |state, _| {
            let node = state.find(path)?;
            if node == Node::Folder {
                return Err(errno(libc::EISDIR));
            }
            state.seen.remove(path);
            state.changes.push(Change::Unlink(path.to_owned(), node));
            Ok(())
        })
    }

    fn make_folder(&mut self, path: &Path) -> io::Result<()> {
        self.operate(operation("make_folder", path, 0), true, |state, _| match state.seen.get(path) {
            Some(Node::Folder) => Ok(()),
            Some(Node::File(_)) => Err(errno(libc::EEXIST)),
            None => state.link(path, Node::Folder),
        })
    }

    fn list(&mut self, folder: &Path, each: &mut dyn FnMut(&OsStr)) -> io::Result<()> {
        self.operate(operation("list", folder, 0), false, |state, _| {
            state.require_folder(folder)?;
            state
                .seen
                .keys()
                .filter(|path| parent(path) == folder)
                .filter_map(|path| path.file_name())
                .for_each(each);
            Ok(())
        })
    }

    fn metadata(&mut self, path: &Path) -> io::Result<Metadata> {
        self.operate(operation("metadata", path, 0), false, |state, _| match state.find(path)? {
            Node::Folder => {
                let (modified, inode) = (state.now, u64::MAX);
                Ok(Metadata { kind: Kind::Folder, length: 0, modified, links: 1, user: 0, inode })
            }
            Node::File(inode) => Ok(state.known(inode)),
        })
    }

    fn describe(&mut self, file: &FaultyFile) -> io::Result<Metadata> {
        self.operate(operation("describe", &file.path, 0), false, |state, _| {
            state.file(file)?;
            Ok(state.known(file.inode))
        })
    }

    fn free_space(&mut self, path: &Path) -> io::Result<u64> {
        self.operate(operation("free_space", path, 0), false, |state, _| Ok(state.free.unwrap_or(u64::MAX)))
    }

    fn random(&mut self) -> io::Result<[u8; 16]> {
        self.operate(operation("random", Path::new(""), 0), false, |state, _| {
            state.randoms += 1;
            Ok(u128::from(state.randoms).to_be_bytes())
        })
    }
}

fn operation(method: &'static str, path: &Path, bytes: usize) -> Operation {
    Operation { method, path: path.to_owned(), bytes }
}

#[cfg(test)]
mod tests;
