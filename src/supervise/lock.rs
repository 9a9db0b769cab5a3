//! A locked file with a pid in it: one supervisor a folder.
//!
//! The lock, not the file or the number in it, says that a supervisor runs: the kernel lets go of
//! it when the last descriptor is closed, however the process ended, so a stale file (of a dead
//! process, or with a number that is another's by now) stops nobody. It is a lock of the open file
//! (`F_OFD_SETLK`), which crosses `fork` and `exec`, and which [`holder`] can ask for without
//! taking it, so that asking cannot make a start fail.

use base::disk::{Identity, is_ours, not_ours};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Times that [`PidLock::take`] opens the file again when another process removed it meanwhile.
const ATTEMPTS: usize = 100;

/// Bytes of a pid file that are looked at: its first line.
const LONGEST: u64 = 32;

/// Why the lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("already running with pid {} ({})", pid.map_or("unknown".to_owned(), |pid| pid.to_string()), path.display())]
    Running {
        /// The number in the file, if it holds one by now.
        pid: Option<u32>,
        /// The pid file.
        path: PathBuf,
    },
    /// The file cannot be used.
    #[error("lock {}: {cause}", path.display())]
    File {
        /// The pid file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// The pid file, locked for as long as this, or a copy of its descriptor, lives.
#[derive(Debug)]
pub struct PidLock {
    file: File,
    path: PathBuf,
    /// What stands in the file behind the number, for people.
    note: String,
    /// The number is in the file.
    written: bool,
}

impl PidLock {
    /// Makes the file if need be, locks and blanks it: until [`PidLock::write_pid`] it names
    /// nobody.
    ///
    /// # Errors
    /// When another process has the lock, or the file cannot be opened.
    pub fn take(path: &Path) -> Result<PidLock, LockError> {
        let fail = |cause| LockError::File { path: path.to_owned(), cause };
        for _ in 0..ATTEMPTS {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o644);
            // One of these locks lies where others may make names: what is another's is not
            // blanked.
            options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
            let file = options.open(path).map_err(|cause| fail(without_link(cause)))?;
            check(&file, path).map_err(fail)?;
            if let Some(lock) = PidLock::lock(file, path)? {
                return Ok(lock);
            }
        }
        Err(fail(io::Error::other("the file is removed again and again")))
    }

    /// Locks and blanks what was opened as `path`; `None` if that leads elsewhere by now: the
    /// holder before us may have removed the file between our opening and locking it.
    fn lock(file: File, path: &Path) -> Result<Option<PidLock>, LockError> {
        let fail = |cause| LockError::File { path: path.to_owned(), cause };
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
            Ok(_) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => {
                return Err(LockError::Running { pid: pid_in(&file), path: path.to_owned() });
            }
            Err(errno) => return Err(fail(errno.into())),
        }
        let locked = file.metadata().map_err(fail)?;
        match Identity::named(path) {
            Ok(named) if named == Identity::of(&locked) => {
                blank(&file).map_err(fail)?;
                Ok(Some(PidLock::held(file, path)))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fail(error)),
        }
    }

    /// The lock as the program before `exec` held it.
    pub fn adopt(fd: OwnedFd, path: &Path) -> PidLock {
        PidLock::held(fd.into(), path)
    }

    fn held(file: File, path: &Path) -> PidLock {
        PidLock { file, path: path.to_owned(), note: String::new(), written: false }
    }

    /// Has a line stand in the file behind the number, for people.
    pub fn with_note(mut self, note: &str) -> PidLock {
        note.clone_into(&mut self.note);
        self
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its path still leads to the file that is locked: who opens it meets this lock.
    pub fn is_in_place(&self) -> bool {
        match (Identity::named(&self.path), self.file.metadata()) {
            (Ok(named), Ok(locked)) => named == Identity::of(&locked),
            // What the system does not tell just now is no sign that it is gone.
            (Err(error), _) => error.kind() != io::ErrorKind::NotFound,
            (_, Err(_)) => true,
        }
    }

    /// Takes it again if its file is gone, or another has come to stand in its place; whether it
    /// did. What is missing of the number is written.
    ///
    /// # Errors
    /// As [`PidLock::take`] and [`PidLock::write_pid`]; what was locked stays so until there is
    /// another.
    pub fn keep(&mut self) -> Result<bool, LockError> {
        let missing = !self.is_in_place();
        if missing {
            *self = PidLock::take(&self.path)?.with_note(&self.note);
        }
        if !self.written {
            self.write_pid()?;
        }
        Ok(missing)
    }

    /// Writes the number of this process.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_pid(&mut self) -> Result<(), LockError> {
        let end = if self.note.is_empty() { "" } else { "\n" };
        let line = format!("{}\n{}{end}", std::process::id(), self.note);
        // Written over before it is cut, so that a reader always finds a number.
        let written =
            self.file.write_all_at(line.as_bytes(), 0).and_then(|()| self.file.set_len(line.len() as u64));
        written
            .and_then(|()| (&self.file).flush())
            .map_err(|cause| LockError::File { path: self.path.clone(), cause })?;
        self.written = true;
        Ok(())
    }

    /// Removes the file, unless its name is another's by now; the lock goes with this value.
    pub fn remove(&self) {
        if self.is_in_place()
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            log::warn!("remove {}: {error}", self.path.display());
        }
    }
}

impl AsFd for PidLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The process that holds the lock on `path` just now, if one does.
///
/// # Errors
/// The file is there and cannot be opened.
pub fn holder(path: &Path) -> Result<Option<u32>, LockError> {
    match File::open(path) {
        Ok(file) => Ok(holder_of(file)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(LockError::File { path: path.to_owned(), cause }),
    }
}

/// [`holder`], as far as it can be known.
pub fn running_pid(path: &Path) -> Option<u32> {
    holder(path).ok().flatten()
}

fn holder_of(file: File) -> Option<u32> {
    let mut lock = whole_file(libc::F_WRLCK);
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)).ok()?;
    if i32::from(lock.l_type) == libc::F_UNLCK {
        return None;
    }
    pid_in(&file)
}

/// Overwrites what an earlier process left. Not cut off: a full disk would not give back what that
/// let go of, and a program that was killed could not be started again.
/// That the file is a plain one, of ours.
fn check(file: &File, path: &Path) -> io::Result<()> {
    let found = file.metadata()?;
    let above = path.parent().and_then(|above| above.metadata().ok()).map_or(0, |above| above.uid());
    if !is_ours(found.uid(), above) {
        return Err(io::Error::other(not_ours(found.uid())));
    }
    if !found.is_file() || found.nlink() > 1 {
        return Err(io::Error::other("it is no plain file of one name: it is not used; remove it"));
    }
    Ok(())
}

fn without_link(cause: io::Error) -> io::Error {
    if cause.raw_os_error() != Some(libc::ELOOP) {
        return cause;
    }
    io::Error::other("it is a symbolic link: it is not used; remove it")
}

fn blank(file: &File) -> io::Result<()> {
    let length = file.metadata()?.len();
    file.write_all_at(&vec![b' '; length.min(LONGEST) as usize], 0)?;
    if length > LONGEST { file.set_len(LONGEST) } else { Ok(()) }
}

fn pid_in(file: &File) -> Option<u32> {
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).ok()?;
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(line).ok()?.trim().parse().ok().filter(|pid| *pid != 0)
}

fn whole_file(kind: i32) -> libc::flock {
    // SAFETY: `flock` is a struct of integers, for which zero is a value; `l_pid` must be zero for
    // these locks.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = i16::try_from(kind).unwrap_or(i16::MAX);
    lock.l_whence = 0;
    lock
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_lock_is_held_once_and_told_by_its_pid() {
        let _still = crate::still::no_program_starts();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lonc.pid");
        assert_eq!(running_pid(&path), None);
        let mut lock = PidLock::take(&path).unwrap();
        lock.write_pid().unwrap();
        let pid = std::process::id();
        assert_eq!(running_pid(&path), Some(pid));
        let error = PidLock::take(&path).unwrap_err().to_string();
        assert_eq!(error, format!("already running with pid {pid} ({})", path.display()));
        lock.remove();
        assert!(!path.exists());
        assert_eq!(running_pid(&path), None);
    }

    #[test]
    fn what_is_no_file_of_ours_is_neither_locked_nor_written() {
        let _still = crate::still::no_program_starts();
        let folder = tempfile::tempdir().unwrap();
        let [path, precious] = ["lonc.lock", "precious"].map(|name| folder.path().join(name));
        fs::write(&precious, "precious").unwrap();
        let refused = |why: &str| {
            let said = PidLock::take(&path).unwrap_err().to_string();
            assert_eq!(said, format!("lock {}: {why}", path.display()));
            assert_eq!(fs::read(&precious).unwrap(), b"precious");
            fs::remove_file(&path).unwrap();
        };
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        refused("it is a symbolic link: it is not used; remove it");
        fs::hard_link(&precious, &path).unwrap();
        refused("it is no plain file of one name: it is not used; remove it");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        refused("it is no plain file of one name: it is not used; remove it");
        if nix::unistd::geteuid().is_root() {
            fs::write(&path, "another's").unwrap();
            std::os::unix::fs::chown(&path, Some(61_234), None).unwrap();
            refused(&not_ours(61_234));
        }
        PidLock::take(&path).unwrap();
    }

    #[test]
    fn a_stale_pid_file_stops_nobody() {
        let _still = crate::still::no_program_starts();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lonc.pid");
        // Of a process that is gone, of one that is someone else's, of no process, and nonsense.
        for stale in [
            "4194304\n",
            "1\n",
            "0\n",
            "-1\n",
            "many words\nin two lines\n",
            "many words\nin two lines, and longer than any number\n",
            "",
        ] {
            std::fs::write(&path, stale).unwrap();
            assert_eq!(running_pid(&path), None, "{stale:?}");
            let mut lock = PidLock::take(&path).unwrap();
            assert_eq!(running_pid(&path), None, "{stale:?}: it names nobody yet");
            let kept = std::fs::metadata(&path).unwrap().len();
            assert_eq!(kept, LONGEST.min(stale.len() as u64), "room that a full disk would not give back");
            lock.write_pid().unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
            drop(lock);
        }
        assert_eq!(running_pid(&path), None, "the file stays, the lock does not");
    }

    #[test]
    fn the_lock_lives_as_long_as_a_copy_of_its_descriptor() {
        let _still = crate::still::no_program_starts();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lonc.pid");
        let mut lock = PidLock::take(&path).unwrap();
        lock.write_pid().unwrap();
        let copy = lock.as_fd().try_clone_to_owned().unwrap();
        drop(lock);
        assert_eq!(running_pid(&path), Some(std::process::id()));
        let adopted = PidLock::adopt(copy, &path);
        assert!(matches!(PidLock::take(&path), Err(LockError::Running { .. })));
        adopted.remove();
        drop(PidLock::take(&path).unwrap());
    }

    #[test]
    fn a_lock_whose_file_went_away_is_had_again_and_anothers_is_left_alone() {
        let _still = crate::still::no_program_starts();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lonc.pid");
        let mut lock = PidLock::take(&path).unwrap().with_note("of /run/lonnet");
        lock.write_pid().unwrap();
        assert!(!lock.keep().unwrap(), "it is there");
        std::fs::remove_file(&path).unwrap();
        lock.remove();
        assert!(lock.keep().unwrap());
        assert_eq!(running_pid(&path), Some(std::process::id()));
        let text = format!("{}\nof /run/lonnet\n", std::process::id());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);

        std::fs::remove_file(&path).unwrap();
        let mut other = PidLock::take(&path).unwrap();
        assert!(matches!(lock.keep(), Err(LockError::Running { pid: None, .. })));
        other.write_pid().unwrap();
        assert!(matches!(lock.keep(), Err(LockError::Running { pid: Some(_), .. })));
        lock.remove();
        assert!(other.is_in_place(), "it was another's");
        other.remove();
        assert!(lock.keep().unwrap());
        // A number that could not be written is written later.
        lock.written = false;
        std::fs::write(&path, "").unwrap();
        assert!(!lock.keep().unwrap());
        assert_eq!(running_pid(&path), Some(std::process::id()));
    }

    #[test]
    fn a_file_that_was_removed_before_it_could_be_locked_is_no_lock() {
        let _still = crate::still::no_program_starts();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/lonc.pid");
        std::fs::create_dir(folder.path().join("run")).unwrap();
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = open().unwrap();
        std::fs::remove_file(&path).unwrap();
        let again = file.try_clone().unwrap();
        assert!(PidLock::lock(again, &path).unwrap().is_none(), "whoever comes next meets no lock");
        let other = PidLock::take(&path).unwrap();
        assert!(PidLock::lock(file, &path).unwrap().is_none(), "another holds the one that is there");
        drop(other);
        let lock = PidLock::lock(open().unwrap(), &path).unwrap().unwrap();
        assert!(lock.is_in_place());
        // What cannot be told is an error, no reason to try again and again.
        let file = open().unwrap();
        drop(lock);
        std::fs::rename(folder.path().join("run"), folder.path().join("elsewhere")).unwrap();
        std::fs::write(folder.path().join("run"), "").unwrap();
        let error = PidLock::lock(file, &path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("lock {}: Not a directory", path.display())), "{error}");
    }

    #[test]
    fn a_folder_in_the_place_of_the_pid_file_is_an_error_that_names_it() {
        let _still = crate::still::no_program_starts();
        let folder = tempfile::tempdir().unwrap();
        let error = PidLock::take(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("lock {}: ", folder.path().display())), "{error}");
    }
}
