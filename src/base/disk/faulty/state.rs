//! The two states of the model and what lies between them.

use super::{BLOCK, Fault, FaultyFile, Keep, Operation};
use crate::disk::{Kind, Metadata};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Folder,
    File(usize),
}

pub(super) type Names = BTreeMap<PathBuf, Node>;

/// A file.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    /// What a program reads.
    pub(super) seen: Vec<u8>,
    /// What is found after a crash that keeps nothing.
    pub(super) durable: Vec<u8>,
    pub(super) modified: Timestamp,
    /// Whose it is.
    pub(super) user: u32,
    /// Between the two, in the order of the writes.
    pub(super) pending: Vec<Piece>,
}

/// A block of a file as it was after a write that is not durable.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) at: usize,
    pub(super) bytes: Vec<u8>,
    /// A sync of it failed: no later sync makes it durable.
    pub(super) doomed: bool,
}

/// A change of names that is not durable.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Link(PathBuf, Node),
    Unlink(PathBuf, Node),
    Rename(PathBuf, PathBuf, Node),
}

/// The whole machine.
#[derive(Debug, Default)]
pub(super) struct State {
    /// What a program sees.
    pub(super) seen: Names,
    /// What is found after a crash that keeps nothing.
    pub(super) durable: Names,
    /// Between the two, in order.
    pub(super) changes: Vec<Change>,
    /// All files there ever were; a name holds an index.
    pub(super) inodes: Vec<Inode>,
    pub(super) operations: Vec<Operation>,
    /// By number of operation.
    pub(super) faults: BTreeMap<usize, Fault>,
    /// By method and path: what each such call fails with.
    pub(super) refused: BTreeMap<(&'static str, PathBuf), i32>,
    /// By number of operation: what someone else puts in which place right before it.
    pub(super) replacements: BTreeMap<usize, (PathBuf, Vec<u8>)>,
    /// What every change fails with, since a [`Fault::FailFrom`].
    pub(super) failing: Option<i32>,
    pub(super) dead: bool,
    /// How often the machine restarted.
    pub(super) starts: u64,
    /// What is said to be free; `None`: no end of it.
    pub(super) free: Option<u64>,
    pub(super) now: Timestamp,
    /// How many random numbers were given out: the next is that number.
    pub(super) randoms: u64,
}

impl State {
    /// The file behind a handle, unless the machine restarted since it was opened.
    pub(super) fn file(&mut self, file: &FaultyFile) -> io::Result<&mut Inode> {
        if file.start != self.starts {
            return Err(errno(libc::EBADF));
        }
        self.inodes.get_mut(file.inode).ok_or_else(|| errno(libc::EBADF))
    }

    /// Folders that are there, durably.
    pub(super) fn put_folders(&mut self, folder: &Path) {
        for above in folder.ancestors().filter(|above| !above.as_os_str().is_empty()) {
            self.seen.insert(above.to_owned(), Node::Folder);
            self.durable.insert(above.to_owned(), Node::Folder);
        }
    }

    /// A new empty file without a name.
    pub(super) fn add_inode(&mut self) -> usize {
        self.inodes.push(Inode { modified: self.now, ..Inode::default() });
        self.inodes.len() - 1
    }

    /// Someone else puts a file there, whole and durable, and its folders.
    pub(super) fn put(&mut self, path: &Path, bytes: &[u8]) {
        let inode = self.add_inode();
        self.put_folders(path.parent().unwrap_or(Path::new("/")));
        let (seen, durable, modified) = (bytes.to_vec(), bytes.to_vec(), self.now);
        self.inodes[inode] = Inode { seen, durable, modified, ..Inode::default() };
        self.seen.insert(path.to_owned(), Node::File(inode));
        self.durable.insert(path.to_owned(), Node::File(inode));
    }

    /// What there is to know of a file.
    pub(super) fn known(&self, inode: usize) -> Metadata {
        let links = self.seen.values().filter(|node| **node == Node::File(inode)).count() as u64;
        let Inode { seen, modified, user, .. } = &self.inodes[inode];
        Metadata {
            kind: Kind::File,
            length: seen.len() as u64,
            modified: *modified,
            links,
            user: *user,
            inode: inode as u64,
        }
    }

    /// What a program sees under a name.
    pub(super) fn find(&self, path: &Path) -> io::Result<Node> {
        self.seen.get(path).copied().ok_or_else(|| errno(libc::ENOENT))
    }

    /// An error unless a program sees a folder there.
    pub(super) fn require_folder(&self, path: &Path) -> io::Result<()> {
        match self.find(path)? {
            Node::Folder => Ok(()),
            Node::File(_) => Err(errno(libc::ENOTDIR)),
        }
    }

    /// Gives a new name.
    pub(super) fn link(&mut self, path: &Path, node: Node) -> io::Result<()> {
        self.require_folder(parent(path))?;
        if self.seen.contains_key(path) {
            return Err(errno(libc::EEXIST));
        }
        self.seen.insert(path.to_owned(), node);
        self.changes.push(Change::Link(path.to_owned(), node));
        Ok(())
    }

    /// Gives what has a name another one, in the place of what has that.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.find(from)?;
        self.require_folder(parent(to))?;
        self.seen.remove(from);
        self.seen.insert(to.to_owned(), node);
        self.changes.push(Change::Rename(from.to_owned(), to.to_owned(), node));
        Ok(())
    }

    /// Makes the changes to one folder durable. A rename is one change, whichever of its folders is
    /// synced.
    pub(super) fn sync_names(&mut self, folder: &Path) {
        for change in std::mem::take(&mut self.changes) {
            match change {
                change if change.touches(folder) => change.apply(&mut self.durable),
                change => self.changes.push(change),
            }
        }
    }

    /// The machine dies and starts again.
    pub(super) fn restart(&mut self, keep: Keep) {
        let mut random = fastrand::Rng::with_seed(match keep {
            Keep::Some(seed) => seed,
            Keep::All | Keep::Nothing => 0,
        });
        let mut kept = || match keep {
            Keep::All => true,
            Keep::Nothing => false,
            Keep::Some(_) => random.bool(),
        };
        for change in std::mem::take(&mut self.changes) {
            if kept() {
                change.apply(&mut self.durable);
            }
        }
        // What lies in a folder that was lost is lost with it.
        let folders: Vec<PathBuf> = self.durable.keys().cloned().collect();
        for path in folders {
            let above = parent(&path);
            if !above.as_os_str().is_empty() && above != path && !self.durable.contains_key(above) {
                self.durable.remove(&path);
            }
        }
        for inode in &mut self.inodes {
            for piece in std::mem::take(&mut inode.pending) {
                if kept() {
                    piece.apply(&mut inode.durable);
                }
            }
            inode.seen = inode.durable.clone();
        }
        self.seen = self.durable.clone();
        self.dead = false;
        self.starts += 1;
    }
}

impl Change {
    pub(super) fn touches(&self, folder: &Path) -> bool {
        match self {
            Change::Link(name, _) | Change::Unlink(name, _) => parent(name) == folder,
            Change::Rename(from, to, _) => parent(from) == folder || parent(to) == folder,
        }
    }

    pub(super) fn apply(&self, names: &mut Names) {
        match self {
            Change::Link(name, node) => {
                names.insert(name.clone(), *node);
            }
            Change::Unlink(name, node) => {
                if names.get(name) == Some(node) {
                    names.remove(name);
                }
            }
            Change::Rename(from, to, node) => {
                if names.get(from) == Some(node) {
                    names.remove(from);
                }
                names.insert(to.clone(), *node);
            }
        }
    }
}

impl Inode {
    /// Writes; every block that is touched becomes a piece that may be lost.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.seen.len() < end {
            self.seen.resize(end, 0);
        }
        self.seen[offset..end].copy_from_slice(bytes);
        let mut at = offset / BLOCK * BLOCK;
        while at < end {
            let until = (at + BLOCK).min(self.seen.len());
            self.pending.push(Piece { at, bytes: self.seen[at..until].to_vec(), doomed: false });
            at += BLOCK;
        }
    }

    /// Makes durable what no failed sync has doomed; a doomed piece is overtaken by a later one of
    /// its block.
    pub(super) fn sync(&mut self) {
        let mut left: Vec<Piece> = Vec::new();
        for piece in std::mem::take(&mut self.pending) {
            if piece.doomed {
                left.push(piece);
            } else {
                piece.apply(&mut self.durable);
                left.retain(|doomed| doomed.at != piece.at);
            }
        }
        self.pending = left;
    }
}

impl Piece {
    pub(super) fn apply(&self, durable: &mut Vec<u8>) {
        let end = self.at + self.bytes.len();
        if durable.len() < end {
            durable.resize(end, 0);
        }
        durable[self.at..end].copy_from_slice(&self.bytes);
    }
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

pub(super) fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

pub(super) fn dead() -> io::Error {
    io::Error::other("the machine is down")
}
