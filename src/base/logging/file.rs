//! The log file: opened for appending, and again when it is to be, so that it may be renamed at any
//! time.
//!
//! Opening again keeps the number of the descriptor. If it fails, lines go on into the file that
//! was open, the first of them says why, and it is tried again, once a second at most, before later
//! lines.

use super::common::Common;
use super::place::Out;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::uio;
use nix::unistd;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Permission bits of a log file that is made again.
const MODE: u32 = 0o640;
/// Pause between two tries to open it again.
const AGAIN: Duration = Duration::from_secs(1);

/// Opens a file to append lines to. One that is a pipe or a terminal is not waited for either, then
/// or later.
///
/// # Errors
/// What the system said.
pub fn open(path: &Path, mode: u32) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new().append(true).create(true).mode(mode).custom_flags(flags).open(path)
}

/// One `write`, again if a signal came before anything was written.
///
/// # Errors
/// What the system said.
pub fn write_once(file: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    write_parts_once(file, &[IoSlice::new(bytes)])
}

/// [`write_once`] of what lies in several places.
///
/// # Errors
/// What the system said.
pub fn write_parts_once(file: &OwnedFd, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    loop {
        match uio::writev(file, parts) {
            Err(Errno::EINTR) => {}
            written => return Ok(written?),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: OwnedFd,
    /// The generation that it was opened in.
    generation: u64,
    /// It could not be opened again: it is tried again then.
    again: Option<Instant>,
}

/// The file is to be opened again, by this process alone.
static HERE: AtomicBool = AtomicBool::new(false);

/// Has this process open the file again, and no other.
pub(super) fn open_here() {
    HERE.store(true, Ordering::Relaxed);
}

impl LogFile {
    /// Opens it.
    ///
    /// # Errors
    /// What the system said.
    pub fn open(path: &Path) -> io::Result<LogFile> {
        let generation = Common::get().generation();
        Ok(LogFile { path: path.to_owned(), file: open(path, MODE)?.into(), generation, again: None })
    }

    /// The descriptor's number, the same for as long as this lives.
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Opens the file again if that is wanted and was not done; what to say if it cannot be, once.
    pub fn follow(&mut self, now: Instant) -> Option<String> {
        let wanted = Common::get().generation();
        let here = HERE.load(Ordering::Relaxed);
        if (wanted == self.generation && !here) || self.again.is_some_and(|at| now < at) {
            return None;
        }
        let opened = open(&self.path, MODE)
            .and_then(|file| unistd::dup3(&file, &mut self.file, OFlag::O_CLOEXEC).map_err(io::Error::from));
        match opened {
            Ok(()) => {
                (self.generation, self.again) = (wanted, None);
                HERE.store(false, Ordering::Relaxed);
                None
            }
            Err(error) => {
                let first = self.again.replace(now + AGAIN).is_none();
                let path = self.path.display();
                first.then(|| format!("open {path} anew: {error}; the file that was there goes on"))
            }
        }
    }
}

impl Out for LogFile {
    const LONGEST: usize = usize::MAX;

    fn write_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_once(&self.file, bytes)
    }
}
