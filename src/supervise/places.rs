//! What a supervisor has in folders that others may empty under it: the folders themselves, and its two locks.
//!
//! One lock is the pid file in `run_dir`, the other lies with the spool (`.lonc.<number>.lock`, the number for the
//! `run_dir`), so that an emptied `run_dir` lets no second program start beside the first. Another `run_dir` with the same
//! spool has a lock of its own there: what keeps those two apart is the lock of each peer's folder.
//!
//! Every [`KEEP_PAUSE`] all of it is looked at, and what is gone is made again; what another program has made meanwhile is
//! left to it. The supervisor does the same for its sockets then ([`Places::keep`] says when, and whether `run_dir` is
//! its own). Looking costs a few system calls; a watch by the kernel would not see a folder above being renamed.
//!
//! Where there can be no lock with the spool (a disk that is full, or read-only), the program serves without, and tries
//! again.

use super::background;
use super::lock::{LockError, PidLock, running_pid};
use super::startup::pid_file;
use crate::config::Config;
use crate::logging::repeats::Quota;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Pause between two looks.
pub const KEEP_PAUSE: Duration = Duration::from_secs(2);

/// Names in a line about what was made again; the others are counted.
const NAMED: usize = 5;

/// See the head of this file.
#[derive(Debug)]
pub struct Places {
    program: &'static str,
    pid: PidLock,
    spool: Option<PidLock>,
    next: Instant,
    /// What went wrong with each the last time, and was said.
    said: Said,
    /// What was made again of late: somebody may remove it again and again.
    returns: Quota,
}

#[derive(Debug, Default)]
struct Said {
    folders: String,
    pid: String,
    spool: String,
}

/// What [`Places::keep`] found.
#[derive(Debug)]
pub struct Kept {
    /// Nobody else has `run_dir`: what is missing there is to be made again.
    pub ours: bool,
    /// What was gone, and was made again.
    pub back: Vec<PathBuf>,
}

impl Places {
    /// Takes both locks.
    ///
    /// # Errors
    /// Another process has one of them, or the pid file cannot be used. Nothing is left then.
    pub fn take(program: &'static str, config: &Config) -> Result<Places, LockError> {
        let path = pid_file(program, config);
        // Asked first, so that a start while another runs is told of that file, and makes none.
        if let Some(pid) = running_pid(&path) {
            return Err(LockError::Running { pid: Some(pid), path });
        }
        let mut said = Said::default();
        let spool = match take_spool(program, config) {
            Ok(lock) => Some(lock),
            Err(error @ LockError::Running { .. }) => return Err(error),
            Err(error @ LockError::File { .. }) => {
                said.spool = without(&error);
                None
            }
        };
        let pid = PidLock::take(&path).inspect_err(|_| spool.iter().for_each(PidLock::remove))?;
        Ok(Places { program, pid, spool, next: Instant::now() + KEEP_PAUSE, said, returns: Quota::default() })
    }

    /// Both as the program before `exec` had them.
    ///
    /// # Errors
    /// The pid file was not handed over, and cannot be had.
    pub fn adopt(
        program: &'static str,
        config: &Config,
        pid: Option<OwnedFd>,
        spool: Option<OwnedFd>,
    ) -> Result<Places, LockError> {
        let path = pid_file(program, config);
        let pid = match pid {
            Some(fd) => PidLock::adopt(fd, &path),
            None => PidLock::take(&path)?,
        };
        let spool = spool.map(|fd| PidLock::adopt(fd, &spool_lock(program, config)).with_note(&note(config)));
        // An older program leaves none, and the configuration may name another folder: seen to at once.
        Ok(Places {
            program,
            pid,
            spool,
            next: Instant::now(),
            said: Said::default(),
            returns: Quota::default(),
        })
    }

    /// Writes the number of this process, once it is the one that will serve; says what could not be had.
    ///
    /// # Errors
    /// The pid file cannot be written.
    pub fn write_pid(&mut self) -> Result<(), LockError> {
        if !self.said.spool.is_empty() {
            log::warn!("{}", self.said.spool);
        }
        if let Some(Err(error)) = self.spool.as_mut().map(PidLock::write_pid) {
            log::warn!("{error}; a second start would not be told this process's number");
        }
        self.pid.write_pid()
    }

    /// The descriptors of the locks: the pid file's, and the other one's if there is one.
    pub fn descriptors(&self) -> (BorrowedFd<'_>, Option<BorrowedFd<'_>>) {
        (self.pid.as_fd(), self.spool.as_ref().map(AsFd::as_fd))
    }

    /// When [`Places::keep`] looks again.
    pub fn deadline(&self) -> Instant {
        self.next
    }

    /// Looks after the folders and both locks, if it is time.
    pub fn keep(&mut self, config: &Config, now: Instant) -> Option<Kept> {
        if now < self.next {
            return None;
        }
        self.next = now + KEEP_PAUSE;
        let mut back = Vec::new();
        let mut trouble = String::new();
        for made in background::make_missing(config) {
            match made {
                Ok(folder) => {
                    if folder == config.log_dir {
                        crate::logging::open_anew();
                    }
                    back.push(folder);
                }
                Err(error) => {
                    trouble = format!("{error}; what belongs there is missing until that is put right")
                }
            }
        }
        say(&mut self.said.folders, trouble);
        let ours = self.keep_pid(&mut back);
        self.keep_spool(config, &mut back);
        Some(Kept { ours, back })
    }

    fn keep_pid(&mut self, back: &mut Vec<PathBuf>) -> bool {
        let kept = self.pid.keep();
        let trouble = match &kept {
            Ok(false) => String::new(),
            Ok(true) => {
                back.push(self.pid.path().to_owned());
                String::new()
            }
            Err(LockError::Running { pid, path }) => format!(
                "lock {}: another {}, process {}, has it, and the sockets there: this one serves who is connected, and \
                 takes its places back when that one has ended",
                path.display(),
                self.program,
                pid.map_or("unknown".to_owned(), |pid| pid.to_string())
            ),
            Err(error) => format!("{error}; tried again"),
        };
        say(&mut self.said.pid, trouble);
        !matches!(kept, Err(LockError::Running { .. }))
    }

    fn keep_spool(&mut self, config: &Config, back: &mut Vec<PathBuf>) {
        let wanted = spool_lock(self.program, config);
        let kept = match self.spool.as_mut().filter(|lock| lock.path() == wanted) {
            Some(lock) => lock.keep(),
            None => take_spool(self.program, config).and_then(|mut lock| {
                let written = lock.write_pid();
                if let Some(before) = self.spool.replace(lock) {
                    before.remove();
                }
                written.map(|()| false)
            }),
        };
        let trouble = match kept {
            Ok(missing) => {
                back.extend(missing.then_some(wanted));
                String::new()
            }
            Err(error) => without(&error),
        };
        say(&mut self.said.spool, trouble);
    }

    /// Says in one line what was gone and made again.
    pub fn say_back(&mut self, back: &[PathBuf], now: Instant) {
        if back.is_empty() {
            return;
        }
        let named: Vec<String> = back.iter().take(NAMED).map(|path| path.display().to_string()).collect();
        let more = match back.len() - named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let text = format!("{}{more} had gone, or had become another's: made again", named.join(", "));
        if let Some(line) = self.returns.line(&text, now) {
            log::warn!("{line}");
        }
    }

    /// Removes both files, as far as they are this program's own; the locks go with this value.
    pub fn release(&self) {
        self.pid.remove();
        self.spool.iter().for_each(PidLock::remove);
    }
}

/// Says what is wrong once, until it is something else.
fn say(said: &mut String, trouble: String) {
    if !trouble.is_empty() && *said != trouble {
        log::error!("{trouble}");
    }
    *said = trouble;
}

fn without(error: &LockError) -> String {
    format!("{error}; until it can be had, the pid file alone keeps a second start away")
}

fn take_spool(program: &str, config: &Config) -> Result<PidLock, LockError> {
    PidLock::take(&spool_lock(program, config)).map(|lock| lock.with_note(&note(config)))
}

/// The lock that lies with the spool: one for each `run_dir`. Names with a leading dot are nobody's message.
fn spool_lock(program: &str, config: &Config) -> PathBuf {
    let number = crc32fast::hash(run_dir(config).as_os_str().as_encoded_bytes());
    config.spool_dir.join(format!(".{program}.{number:08x}.lock"))
}

fn note(config: &Config) -> String {
    format!("run_dir {}", run_dir(config).display())
}

/// What a child of the supervisor says of itself in the lock of a folder that it alone may use.
pub fn child_holder(program: &str, config: &Config) -> String {
    let (parent, child) = (nix::unistd::getppid(), std::process::id());
    format!("{program}, process {parent} (its child {child}), {}", note(config))
}

/// Whether one who said so of itself has the same `run_dir`: then it is what is left of a program before this one.
pub fn is_of_this_place(holder: &str, config: &Config) -> bool {
    holder.ends_with(&format!("), {}", note(config)))
}

/// The folder, whichever way leads to it.
fn run_dir(config: &Config) -> PathBuf {
    let above = |path: &Path| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    // While it is away its name alone counts, as it will be made again.
    config
        .run_dir
        .canonicalize()
        .ok()
        .or_else(|| above(&config.run_dir))
        .unwrap_or_else(|| config.run_dir.clone())
}
