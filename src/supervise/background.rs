//! Becoming a daemon: as the right user, out of the terminal's sight, with errors still told to who started it.
//!
//! [`detach`] forks; the first process waits until the second says that it serves ([`Ready::tell`]) and exits 0, or
//! prints the error that it was told ([`Ready::fail`]) and exits 1. So a taken port or pid file is seen by the
//! command that caused it, and who sees exit code 0 may connect.
//! [`become_user`] makes the folders that are missing, gives those it made to the user, and drops root for good.

use crate::config::Config;
use nix::unistd::{self, AccessFlags, ForkResult, Gid, Uid, User, fork};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What the second process says when it serves.
const READY: u8 = b'+';
/// What comes before the text of its error.
const FAILED: u8 = b'-';
/// Longest text of an error that the first process prints; more is cut.
const MAX_TEXT: u64 = 64 * 1024;
/// Permission bits of a folder that every local program may look into: sockets, status.
const OPEN: u32 = 0o755;
/// Permission bits of a folder that holds requests and who sent them: the delayed directory, the logs.
const CLOSED: u32 = 0o750;

/// Why the program cannot go on as a daemon.
#[derive(Debug, thiserror::Error)]
pub enum BackgroundError {
    /// Started as root with nobody to become.
    #[error(
        "refusing to serve as root: set user = \"www\" (or user = \"root\" if that is meant) in {}",
        .0.display()
    )]
    Root(PathBuf),
    /// Started as somebody who cannot become the user of the configuration.
    #[error("become user {wanted}: only root may, and {actual} has started the program")]
    OtherUser {
        /// `user` of the configuration.
        wanted: String,
        /// Who started the program.
        actual: String,
    },
    /// The system has no such user.
    #[error("become user {0}: there is no such user")]
    NoUser(String),
    /// The system refused a step.
    #[error("become user {user}: {step}: {cause}")]
    Step {
        /// `user` of the configuration.
        user: String,
        /// What was refused.
        step: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// A folder of the configuration cannot be made.
    #[error("make folder {}: {cause}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A folder of the configuration cannot be written to.
    #[error("write to folder {}: {cause}", path.display())]
    Closed {
        /// The folder, or the one that it would be made in.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The second process could not be made.
    #[error("go to the background: {0}")]
    Detach(io::Error),
}

/// Makes the folders of `config` that are missing and becomes its `user`.
///
/// # Errors
/// As [`BackgroundError`] has them. Folders that were made stay.
pub fn become_user(config: &Config) -> Result<(), BackgroundError> {
    let user = user_to_become(config)?;
    make_folders(config, user.as_ref())?;
    let Some(user) = user else { return Ok(()) };
    let step = |step, done: nix::Result<()>| {
        done.map_err(|errno| BackgroundError::Step { user: user.name.clone(), step, cause: errno.into() })
    };
    let name = CString::new(user.name.clone()).map_err(|_| BackgroundError::NoUser(user.name.clone()))?;
    step("set its groups", unistd::initgroups(&name, user.gid))?;
    step("set its group", unistd::setgid(user.gid))?;
    step("set its id", unistd::setuid(user.uid))?;
    // The kernel has refused silently before (setuid past a process limit); root that was kept would go unseen.
    if Uid::effective() != user.uid
        || Gid::effective() != user.gid
        || unistd::setuid(Uid::from_raw(0)).is_ok()
    {
        let cause = io::Error::other("root was not given up");
        return Err(BackgroundError::Step { user: user.name, step: "see that it holds", cause });
    }
    Ok(())
}

/// `None`: this process is the right one already.
fn user_to_become(config: &Config) -> Result<Option<User>, BackgroundError> {
    let euid = Uid::effective();
    let Some(name) = &config.user else {
        return if euid.is_root() { Err(BackgroundError::Root(config.file.clone())) } else { Ok(None) };
    };
    let user = User::from_name(name).ok().flatten().ok_or_else(|| BackgroundError::NoUser(name.clone()))?;
    if user.uid == euid {
        return Ok(None);
    }
    if euid.is_root() {
        return Ok(Some(user));
    }
    let actual = User::from_uid(euid).ok().flatten().map_or_else(|| euid.to_string(), |user| user.name);
    Err(BackgroundError::OtherUser { wanted: name.clone(), actual })
}

/// Makes the folders of `config` that are missing; gives those it made to `owner`.
///
/// # Errors
/// When one cannot be made.
pub fn make_folders(config: &Config, owner: Option<&User>) -> Result<(), BackgroundError> {
    folders(config).into_iter().try_for_each(|(folder, mode)| make_folder(folder, mode, owner))
}

/// Makes the folders of `config` that are missing, each as far as that goes: those that were made, and why others could not
/// be. There are none where all are there.
pub fn make_missing(config: &Config) -> Vec<Result<PathBuf, BackgroundError>> {
    folders(config)
        .into_iter()
        // A link that leads nowhere is there, and nothing can be made in its place.
        .filter(|(folder, _)| {
            folder.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        })
        .map(|(folder, mode)| make_folder(folder, mode, None).map(|()| folder.clone()))
        .collect()
}

/// The folders of `config`, each with its permission bits.
fn folders(config: &Config) -> [(&PathBuf, u32); 4] {
    [
        (&config.run_dir, OPEN),
        (&config.status_dir, OPEN),
        (&config.spool_dir, CLOSED),
        (&config.log_dir, CLOSED),
    ]
}

/// Whether this process could make the folders of `config` that are missing and write to those that are there; makes
/// none.
///
/// # Errors
/// When it could not.
pub fn can_make_folders(config: &Config) -> Result<(), BackgroundError> {
    let folders = [&config.run_dir, &config.status_dir, &config.spool_dir, &config.log_dir];
    folders.into_iter().try_for_each(|folder| {
        let Some(there) = folder.ancestors().find(|path| path.exists()) else { return Ok(()) };
        let usable = match unistd::access(there, AccessFlags::W_OK | AccessFlags::X_OK) {
            _ if !there.is_dir() => Err(io::ErrorKind::NotADirectory.into()),
            access => access.map_err(io::Error::from),
        };
        usable.map_err(|cause| BackgroundError::Closed { path: there.to_owned(), cause })
    })
}

/// Makes `folder` and what of its parents is missing; gives what was made, and that alone, to `owner`.
fn make_folder(folder: &Path, mode: u32, owner: Option<&User>) -> Result<(), BackgroundError> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev() {
        let mode = if path == folder { mode } else { OPEN };
        let made = match std::fs::DirBuilder::new().mode(mode).create(path) {
            // Another program of this host makes the same folders.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made,
        };
        let given = made.and_then(|()| match owner {
            Some(user) => std::os::unix::fs::chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())),
            None => Ok(()),
        });
        given.map_err(|cause| BackgroundError::Folder { path: path.to_owned(), cause })?;
    }
    Ok(())
}

/// Tells the process that started the program how it went.
#[derive(Debug, Default)]
pub struct Ready(Option<PipeWriter>);

impl Ready {
    /// Nobody waits: the program runs in the foreground, or anew after `exec`.
    pub fn nobody() -> Ready {
        Ready(None)
    }

    /// The program serves; the first process exits 0.
    pub fn tell(&mut self) {
        if let Some(mut pipe) = self.0.take() {
            // If it was killed meanwhile, nobody is left to tell.
            let _ = pipe.write_all(&[READY]);
        }
    }

    /// The program ends with this error; the first process prints it and exits 1. Returns whether somebody was told.
    pub fn fail(&mut self, error: &str) -> bool {
        let Some(mut pipe) = self.0.take() else { return false };
        pipe.write_all(&[FAILED]).and_then(|()| pipe.write_all(error.as_bytes())).is_ok()
    }
}

/// Goes to the background: returns in a new process in a session of its own, its standard descriptors at
/// `/dev/null`, in the folder `/`. The first process never returns from here.
///
/// # Errors
/// When a step fails; in the first process before the second is made, else in the second.
pub fn detach(program: &str) -> Result<Ready, BackgroundError> {
    let (reader, writer) = io::pipe().map_err(BackgroundError::Detach)?;
    // SAFETY: the program has one thread until it serves.
    match unsafe { fork() } {
        Err(errno) => Err(BackgroundError::Detach(errno.into())),
        Ok(ForkResult::Parent { .. }) => {
            drop(writer);
            wait_until_ready(program, reader)
        }
        Ok(ForkResult::Child) => {
            drop(reader);
            leave_terminal().map(|()| Ready(Some(writer))).map_err(BackgroundError::Detach)
        }
    }
}

fn leave_terminal() -> io::Result<()> {
    unistd::setsid()?;
    std::env::set_current_dir("/")?;
    let null: File = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    unistd::dup2_stdin(&null)?;
    unistd::dup2_stdout(&null)?;
    unistd::dup2_stderr(&null)?;
    Ok(())
}

fn wait_until_ready(program: &str, reader: PipeReader) -> ! {
    let mut told = Vec::new();
    // Ends when the second process has told, or has ended without a word.
    let _ = reader.take(MAX_TEXT).read_to_end(&mut told);
    let error = match told.split_first() {
        Some((&READY, _)) => std::process::exit(0),
        Some((_, text)) => String::from_utf8_lossy(text).into_owned(),
        None => "start: ended before it was ready; the log may say why".to_owned(),
    };
    crate::logging::console::say(program, error);
    std::process::exit(1)
}
