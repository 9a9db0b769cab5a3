//! Files that are made under a hidden name of their maker's own and take their place whole.
//!
//! Two programs, or two processes of one, that make the same file at the same time never touch each
//! other's: the hidden name holds the maker's process id and a random number, and it is made
//! exclusively (`O_EXCL`). Only what was made here is ever removed here. What a killed process left
//! behind is swept away by a later one ([`sweep`]).

use super::Disk;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Times that another name is tried when one is taken.
pub const NAME_TRIES: u32 = 16;

/// A hidden file as old as this is no work in progress: it was left behind.
const LEFT_BEHIND: Duration = Duration::from_secs(60);

/// Files that are removed at a time of those that other processes left: the others go the next
/// time.
const LEFT_MOST: usize = 1000;

/// What a hidden name in a folder that one process has under a lock begins with.
const NEW: &str = ".new-";

/// A file that is being made. Dropped before it took its place, it is removed.
#[derive(Debug)]
pub struct OwnFile {
    file: File,
    hidden: Hidden,
    target: PathBuf,
}

/// A hidden name, removed when this is dropped.
#[derive(Debug)]
struct Hidden {
    path: PathBuf,
    /// The file bears it.
    borne: bool,
}

impl OwnFile {
    /// Makes the file that is to become `target`, with exactly these permission bits, whatever the
    /// umask is.
    ///
    /// # Errors
    /// What the system said; nothing is left then.
    pub fn create(target: &Path, mode: u32) -> io::Result<OwnFile> {
        let (file, hidden) = exclusively(|| {
            let hidden = hidden_name(target)?;
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create_new(true).mode(mode).open(&hidden)?;
            Ok((file, Hidden { path: hidden, borne: true }))
        })?;
        file.set_permissions(Permissions::from_mode(mode))?;
        Ok(OwnFile { file, hidden, target: target.to_owned() })
    }

    /// The file, to be written.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Takes the place of what is at the target, if anything is.
    ///
    /// # Errors
    /// What the system said; the target is as it was, and the hidden file is gone.
    pub fn replace(self) -> io::Result<()> {
        let (mut hidden, target) = self.close();
        fs::rename(&hidden.path, target)?;
        hidden.borne = false;
        Ok(())
    }

    /// Takes its place if nothing has it.
    ///
    /// # Errors
    /// `AlreadyExists`, or what the system said; the target is as it was, and the hidden file is
    /// gone.
    pub fn place(self) -> io::Result<()> {
        let (hidden, target) = self.close();
        fs::hard_link(&hidden.path, target)
    }

    /// As [`OwnFile::place`], by a step that those who watch the folder see as a file moved in.
    ///
    /// # Errors
    /// As [`OwnFile::place`].
    pub fn move_in(self) -> io::Result<()> {
        let (mut hidden, target) = self.close();
        rename_new(&hidden.path, &target)?;
        hidden.borne = false;
        Ok(())
    }

    /// Who sees the file in its place finds that its maker has done with it.
    fn close(self) -> (Hidden, PathBuf) {
        let OwnFile { file, hidden, target } = self;
        drop(file);
        (hidden, target)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if self.borne {
            // What led here is what is reported; a name that stays is swept away later.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Moves a name to one that nothing has. A file system that cannot promise that is asked before
/// whether the name is taken.
///
/// # Errors
/// `AlreadyExists`, or what the system said.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Err(Errno::EINVAL | Errno::ENOSYS) => match fs::symlink_metadata(to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
            Err(error) => Err(error),
        },
        moved => Ok(moved?),
    }
}

/// Calls `make` again with another name while one is taken, a bounded number of times.
pub fn exclusively<T>(mut make: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..NAME_TRIES {
        match make() {
            Err(error) if is_taken(&error) => {}
            made => return made,
        }
    }
    make()
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::AddrInUse)
}

/// `.<name>.<pid>-<random>` beside `target`.
fn hidden_name(target: &Path) -> io::Result<PathBuf> {
    let mut name = prefix(target);
    name.push(format!("{}-{:08x}", std::process::id(), getrandom::u32().map_err(io::Error::other)?));
    Ok(target.with_file_name(name))
}

/// What every hidden name of `target` begins with.
fn prefix(target: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".");
    name
}

/// The hidden name of this process in a folder that is used under a lock. One that was left there
/// by a process of this number, which is gone, gives way to the next.
pub fn own_new() -> String {
    format!("{NEW}{}", std::process::id())
}

/// Removes what other processes left under such names: for who has the folder's lock, so that none
/// of them is at work. Nothing that fails here matters.
pub fn remove_left<D: Disk>(disk: &mut D, folder: &Path) {
    let mut left = Vec::new();
    let listed = disk.list(folder, &mut |name| {
        if is_left_new(name) && left.len() < LEFT_MOST {
            left.push(folder.join(name));
        }
    });
    match listed {
        Ok(()) => left.iter().for_each(|path| drop(disk.remove(path))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            log::warn!("list {}: {error}; what killed processes left there stays", folder.display())
        }
    }
}

fn is_left_new(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(NEW.as_bytes()) && *name != *own_new()
}

/// Removes what killed processes left of files that were to become `target`. Nothing that fails
/// here matters.
pub fn sweep(target: &Path) {
    let prefix = prefix(target);
    let Some(folder) = target.parent() else { return };
    for path in hidden_in(folder) {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.starts_with(prefix.as_encoded_bytes()) && is_left_behind(&path) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// The hidden files of a folder; none, with a word, where it cannot be listed.
pub fn hidden_in(folder: &Path) -> Vec<PathBuf> {
    let is_hidden = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".");
    match fs::read_dir(folder) {
        Ok(entries) => entries.flatten().filter(is_hidden).map(|entry| entry.path()).collect(),
        Err(error) => {
            log::warn!("list {}: {error}; what killed programs left there stays", folder.display());
            Vec::new()
        }
    }
}

/// Whether it is so old that nobody is at work on it.
pub fn is_left_behind(path: &Path) -> bool {
    let changed = fs::symlink_metadata(path).and_then(|found| found.modified());
    changed.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age >= LEFT_BEHIND))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    }

    #[test]
    fn two_who_make_the_same_file_at_once_have_files_of_their_own_and_each_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("status.json");
        let first = OwnFile::create(&target, 0o644).unwrap();
        let second = OwnFile::create(&target, 0o644).unwrap();
        first.file().write_all(b"the first").unwrap();
        second.file().write_all(b"2").unwrap();
        first.replace().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"the first");
        second.replace().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"2");
        assert_eq!(names(folder.path()), ["status.json"]);
    }

    #[test]
    fn a_place_that_is_taken_is_left_as_it_is_and_nothing_hidden_stays() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("host.key");
        fs::write(&target, "precious").unwrap();
        for attempt in [OwnFile::place, OwnFile::move_in] {
            let error = attempt(OwnFile::create(&target, 0o600).unwrap()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        drop(OwnFile::create(&target, 0o600).unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        assert_eq!(names(folder.path()), ["host.key"]);
        fs::remove_file(&target).unwrap();
        OwnFile::create(&target, 0o600).unwrap().place().unwrap();
        assert_eq!(fs::metadata(&target).unwrap().nlink(), 1, "the hidden name is gone");
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn only_what_is_old_is_swept_away() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("status.json");
        let at_work = OwnFile::create(&target, 0o644).unwrap();
        let old = folder.path().join(".status.json.1-0000");
        let other = folder.path().join(".another.1-0000");
        for path in [&old, &other] {
            let file = File::create(path).unwrap();
            file.set_modified(SystemTime::now() - 2 * LEFT_BEHIND).unwrap();
        }
        sweep(&target);
        assert!(!old.exists() && other.exists());
        at_work.replace().unwrap();
    }

    #[test]
    fn what_other_processes_left_under_a_lock_is_removed_and_ones_own_is_not() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".new-1", &own_new(), "epoch", ".newer"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        remove_left(&mut crate::disk::RealDisk, folder.path());
        let mut left = names(folder.path());
        left.sort();
        assert_eq!(left, [&own_new(), ".newer", "epoch"]);
        remove_left(&mut crate::disk::RealDisk, &folder.path().join("missing"));
    }
}
