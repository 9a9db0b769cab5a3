//! Becoming a daemon: as the right user, out of the terminal's sight, with errors still told to who
//! started it.
//!
//! [`detach`] forks; the first process waits until the second says that it serves ([`Ready::tell`])
//! and exits 0, or prints the error that it was told ([`Ready::fail`]) and exits 1. So a taken port
//! or pid file is seen by the command that caused it, and who sees exit code 0 may connect.
//! [`user_to_become`] says who is to serve, `owner::folders` and [`make_folders`] make what is
//! missing for that user, and [`become_user`] drops root for good.

use config::Config;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{self, AccessFlags, ForkResult, Gid, Uid, User, fork};
use owner::{self, Owner, OwnerError, confine};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What the second process says when it serves.
const READY: u8 = b'+';
/// What comes before the text of its error.
const FAILED: u8 = b'-';
/// Longest text of an error that the first process prints; more is cut.
const MAX_TEXT: u64 = 64 * 1024;
/// Permission bits of a folder that every local program may look into: sockets, status.
const OPEN: u32 = 0o755;
/// Permission bits of a folder that holds requests and who sent them: the delayed directory, the
/// logs.
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
    /// There is no such user, or the system could not say.
    #[error("become user: {0}")]
    NoUser(#[from] OwnerError),
    /// The user cannot read what root has read.
    #[error("read {} as {user}: {cause}: neither HUP nor lon reload could; let {user} read it", path.display())]
    Unreadable {
        /// `user` of the configuration.
        user: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The process's rights, umask or descriptors could not be set.
    #[error("set up the process: {0}")]
    SetUp(io::Error),
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

/// Whom this process is to become; `None`: it is the right one already.
///
/// # Errors
/// It is root and has nobody to become, or somebody else and has another one.
pub fn user_to_become(config: &Config) -> Result<Option<Owner>, BackgroundError> {
    let euid = Uid::effective();
    let Some(name) = &config.user else {
        return if euid.is_root() { Err(BackgroundError::Root(config.file.clone())) } else { Ok(None) };
    };
    let owner = Owner::named(name)?;
    if owner.uid == euid {
        return Ok(None);
    }
    if euid.is_root() {
        return Ok(Some(owner));
    }
    let actual = User::from_uid(euid).ok().flatten().map_or_else(|| euid.to_string(), |user| user.name);
    Err(BackgroundError::OtherUser { wanted: name.clone(), actual })
}

/// Whether `owner` can read what root has read to start: as that user the program reads it again,
/// at HUP and at a reload.
///
/// # Errors
/// It cannot.
pub fn can_read_again(config: &Config, owner: Option<&Owner>) -> Result<(), BackgroundError> {
    let Some(owner) = owner else { return Ok(()) };
    match unreadable(config, owner)? {
        Some((path, cause)) => Err(BackgroundError::Unreadable { user: owner.name.clone(), path, cause }),
        None => Ok(()),
    }
}

/// The first file of the configuration that `owner` cannot read, and why.
///
/// # Errors
/// The user's rights were not to be had.
pub fn unreadable(config: &Config, owner: &Owner) -> Result<Option<(PathBuf, io::Error)>, BackgroundError> {
    let _acting = owner.act().map_err(BackgroundError::SetUp)?;
    let files = [&config.file, &config.hosts_file, &config.pins_file];
    let files = files.into_iter().chain(&config.handler_files);
    // A pipe, whose other end is not there, is not waited for; without pins a network may do.
    let open = |path: &Path| OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    Ok(files.into_iter().find_map(|path: &PathBuf| {
        let cause = open(path).err().filter(|error| error.kind() != io::ErrorKind::NotFound)?;
        Some((path.clone(), cause))
    }))
}

/// Becomes `owner`, for good.
///
/// # Errors
/// The system refused a step.
pub fn become_user(owner: Option<&Owner>) -> Result<(), BackgroundError> {
    let Some(owner) = owner else { return Ok(()) };
    let fail = |step, cause| BackgroundError::Step { user: owner.name.clone(), step, cause };
    let step = |step, done: nix::Result<()>| done.map_err(|errno| fail(step, errno.into()));
    let name = CString::new(owner.name.clone()).map_err(|_| fail("set its groups", Errno::EINVAL.into()))?;
    owner::bound_none().map_err(|cause| fail("give up what programs could gain", cause))?;
    step("set its groups", unistd::initgroups(&name, owner.gid))?;
    step("set its group", unistd::setgid(owner.gid))?;
    step("set its id", unistd::setuid(owner.uid))?;
    // The kernel has refused silently before (setuid past a process limit); root that was kept
    // would go unseen.
    if Uid::effective() != owner.uid
        || Gid::effective() != owner.gid
        || unistd::setuid(Uid::from_raw(0)).is_ok()
    {
        return Err(fail("see that it holds", io::Error::other("root was not given up")));
    }
    confine::keep_memory_to_itself().map_err(BackgroundError::SetUp)
}

/// Makes the folders in which the locks lie, if they are missing: for `owner`, or for who this
/// process is. Nothing else is made before the locks are had: a start that is refused changes
/// nothing.
///
/// # Errors
/// When one cannot be made.
pub fn make_lock_folders(config: &Config, owner: Option<&Owner>) -> Result<(), BackgroundError> {
    make_folder(&config.run_dir, OPEN, owner)?;
    make_folder(&config.spool_dir, CLOSED, owner)
}

/// Makes the folders of `config` that are missing: for `owner`, or for who this process is.
///
/// # Errors
/// When one cannot be made; those that were made stay.
pub fn make_folders(config: &Config, owner: Option<&Owner>) -> Result<(), BackgroundError> {
    folders(config).into_iter().try_for_each(|(folder, mode)| make_folder(folder, mode, owner))
}

/// Makes the folders of `config` that are missing, each as far as that goes: those that were made,
/// and why others could not be. There are none where all are there.
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

fn make_folder(path: &Path, mode: u32, owner: Option<&Owner>) -> Result<(), BackgroundError> {
    owner::folders::make(path, mode, owner)
        .map_err(|cause| BackgroundError::Folder { path: path.to_owned(), cause })
}

/// Whether this process could make the folders of `config` that are missing and write to those that
/// are there; makes none.
///
/// # Errors
/// When it could not.
pub fn can_make_folders(config: &Config) -> Result<(), BackgroundError> {
    let folders = [&config.run_dir, &config.status_dir, &config.spool_dir, &config.log_dir];
    folders.into_iter().try_for_each(|folder| {
        let Some(there) = folder.ancestors().find(|path| path.exists()) else { return Ok(()) };
        let (wanted, as_it_acts) = (AccessFlags::W_OK | AccessFlags::X_OK, AtFlags::AT_EACCESS);
        let usable = match unistd::faccessat(AT_FDCWD, there, wanted, as_it_acts) {
            _ if !there.is_dir() => Err(io::ErrorKind::NotADirectory.into()),
            access => access.map_err(io::Error::from),
        };
        usable.map_err(|cause| BackgroundError::Closed { path: there.to_owned(), cause })
    })
}

/// Tells the process that started the program how it went.
#[derive(Debug, Default)]
pub struct Ready(Option<PipeWriter>);

impl Ready {
    /// Nobody waits: the program runs in the foreground, or again after `exec`.
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

    /// The program ends with this error; the first process prints it and exits 1. Returns whether
    /// somebody was told.
    pub fn fail(&mut self, error: &str) -> bool {
        let Some(mut pipe) = self.0.take() else { return false };
        pipe.write_all(&[FAILED]).and_then(|()| pipe.write_all(error.as_bytes())).is_ok()
    }
}

/// Goes to the background: returns in a new process in a session of its own, its standard
/// descriptors at `/dev/null`, in the folder `/`. The first process never returns from here.
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
    base::logging::console::say(program, error);
    std::process::exit(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    /// A place where `nobody` may read everything; `None` where the tests cannot act as that.
    fn place() -> Option<(tempfile::TempDir, Config, Owner)> {
        let nobody = Owner::named("nobody").ok().filter(|_| Uid::effective().is_root())?;
        let folder = tempfile::tempdir().unwrap();
        set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        std::fs::write(folder.path().join("hosts.tab"), "me:d:r:h:127.0.0.1\n").unwrap();
        let file = folder.path().join("lonnet.toml");
        std::fs::write(&file, "id = \"me\"\nuser = \"nobody\"\n").unwrap();
        Some((folder, Config::load(&file).unwrap(), nobody))
    }

    #[test]
    fn a_start_is_refused_where_its_user_could_not_read_the_configuration_again() {
        let Some((_folder, config, nobody)) = place() else { return };
        can_read_again(&config, Some(&nobody)).unwrap();
        for file in [&config.file, &config.hosts_file] {
            set_permissions(file, Permissions::from_mode(0o600)).unwrap();
            let error = can_read_again(&config, Some(&nobody)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("read {} as nobody: ", file.display())), "{error}");
            can_read_again(&config, None).unwrap();
            set_permissions(file, Permissions::from_mode(0o644)).unwrap();
        }
    }

    #[test]
    fn whether_a_user_could_write_to_the_folders_is_told_before_anything_is_made() {
        let Some((folder, config, nobody)) = place() else { return };
        let could = || {
            let _acting = nobody.act().unwrap();
            can_make_folders(&config).map_err(|error| error.to_string())
        };
        let refused = could().unwrap_err();
        assert!(refused.starts_with(&format!("write to folder {}: ", folder.path().display())), "{refused}");
        set_permissions(folder.path(), Permissions::from_mode(0o757)).unwrap();
        assert_eq!(could(), Ok(()));
        // Writing alone is not enough: names are looked up in it, too.
        set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        make_folders(&config, Some(&nobody)).unwrap();
        assert_eq!(could(), Ok(()));
        set_permissions(&config.spool_dir, Permissions::from_mode(0o200)).unwrap();
        let refused = could().unwrap_err();
        assert!(
            refused.starts_with(&format!("write to folder {}: ", config.spool_dir.display())),
            "{refused}"
        );
    }
}
