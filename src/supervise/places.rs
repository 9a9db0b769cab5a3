//! What a supervisor has in folders that others may empty under it: the folders themselves, and its
//! two locks.
//!
//! One lock is the pid file in `run_dir`, the other lies with the spool (`.lonc.<number>.lock`, the
//! number for the `run_dir`), so that an emptied `run_dir` lets no second program start beside the
//! first. Another `run_dir` with the same spool has a lock of its own there: what keeps those two
//! apart is the lock of each peer's folder.
//!
//! Every [`KEEP_PAUSE`] all of it is looked at, and what is gone is made again; what another
//! program has made meanwhile is left to it. The supervisor does the same for its sockets then
//! ([`Places::keep`] says when, and whether `run_dir` is its own). Looking costs a few system
//! calls; a watch by the kernel would not see a folder above being renamed.
//!
//! Where there can be no lock with the spool (a disk that is full, or read-only), the program
//! serves without, and tries again.

use super::background;
use super::files::pid_file;
use super::lock::{LockError, PidLock, holder};
use base::log_quota::Quota;
use config::Config;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
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
    socket: String,
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
        if let Some(pid) = holder(&path)? {
            return Err(LockError::Running { pid: Some(pid), path });
        }
        // The file may have been removed a moment ago; the sockets beside it are not to be taken
        // from who serves there.
        let socket = path.with_extension("sock");
        let mut said = Said::default();
        match serves(&socket) {
            Ok(Some(pid)) => {
                return Err(LockError::Running { pid: Some(pid).filter(|pid| *pid > 0), path: socket });
            }
            Ok(None) => {}
            Err(error) => {
                said.socket = format!("ask who serves at {}: {error}; taken for nobody", socket.display());
            }
        }
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
        spool: Option<(OwnedFd, PathBuf)>,
    ) -> Result<Places, LockError> {
        let path = pid_file(program, config);
        let pid = match pid {
            Some(fd) => PidLock::adopt(fd, &path),
            None => PidLock::take(&path)?,
        };
        let spool = spool.map(|(fd, path)| PidLock::adopt(fd, &path).with_note(&note(&config.run_dir)));
        // An older program leaves none, and the configuration may name another folder: seen to at
        // once.
        Ok(Places {
            program,
            pid,
            spool,
            next: Instant::now(),
            said: Said::default(),
            returns: Quota::default(),
        })
    }

    /// Writes the number of this process, once it is the one that will serve; says what could not
    /// be had.
    ///
    /// # Errors
    /// The pid file cannot be written.
    pub fn write_pid(&mut self) -> Result<(), LockError> {
        let early = [&self.said.socket, &self.said.spool];
        early.into_iter().filter(|said| !said.is_empty()).for_each(|said| log::warn!("{said}"));
        if let Some(Err(error)) = self.spool.as_mut().map(PidLock::write_pid) {
            log::warn!("{error}; a second start would not be told this process's number");
        }
        self.pid.write_pid()
    }

    /// The descriptors of the locks: the pid file's, and the other one's if there is one.
    pub fn descriptors(&self) -> (BorrowedFd<'_>, Option<BorrowedFd<'_>>) {
        (self.pid.as_fd(), self.spool.as_ref().map(AsFd::as_fd))
    }

    /// The lock that lies with the spool, if there is one, and where it lies: the next program may
    /// be told another place.
    pub fn spool_lock(&self) -> Option<(BorrowedFd<'_>, &Path)> {
        self.spool.as_ref().map(|lock| (lock.as_fd(), lock.path()))
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
                        base::logging::open_anew();
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

/// The number of who listens on the admin socket of a supervisor, if somebody does; 0 where the
/// system does not tell it. Its children have no copy of that socket, so nobody does once it has
/// ended.
fn serves(path: &Path) -> io::Result<Option<u32>> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => {}
        // It listens, and is busy.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(0)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    Ok(Some(getsockopt(&socket, PeerCredentials)?.pid().try_into().unwrap_or_default()))
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
    PidLock::take(&spool_lock(program, config)).map(|lock| lock.with_note(&note(&config.run_dir)))
}

/// The lock that lies with the spool: one for each `run_dir`. Names with a leading dot are nobody's
/// message.
fn spool_lock(program: &str, config: &Config) -> PathBuf {
    let number = crc32fast::hash(real_path(&config.run_dir).as_os_str().as_encoded_bytes());
    config.spool_dir.join(format!(".{program}.{number:08x}.lock"))
}

fn note(run_dir: &Path) -> String {
    format!("run_dir {}", real_path(run_dir).display())
}

/// What a child of the supervisor says of itself in the lock of a folder that it alone may use.
pub fn child_holder(program: &str, run_dir: &Path) -> String {
    let (parent, child) = (nix::unistd::getppid(), std::process::id());
    format!("{program}, process {parent} (its child {child}), {}", note(run_dir))
}

/// Whether two who said so of themselves have one `run_dir`: then one is of the same program, or of
/// what was left of it.
pub fn is_same_place(one: &str, other: &str) -> bool {
    let place = |holder| str::split_once(holder, "), ").map(|(_, place)| place.to_owned());
    place(one).is_some() && place(one) == place(other)
}

/// The folder, whichever way leads to it.
fn real_path(run_dir: &Path) -> PathBuf {
    let above = |path: &Path| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    // While it is away its name alone counts, as it will be made again.
    run_dir.canonicalize().ok().or_else(|| above(run_dir)).unwrap_or_else(|| run_dir.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::running_pid;

    fn config(folder: &Path, more: &str) -> Config {
        std::fs::write(folder.join("hosts.tab"), "me:d:r:h:127.0.0.1\n").unwrap();
        let file = folder.join("lonnet.toml");
        std::fs::write(&file, format!("id = \"me\"\n{more}")).unwrap();
        let config = Config::load(&file).unwrap();
        background::make_folders(&config, None).unwrap();
        config
    }

    fn names(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn the_lock_follows_the_spool_and_two_run_dirs_with_one_spool_have_one_each() {
        let _still = crate::still::no_program_starts();
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (config(folder.path(), ""), config(folder.path(), "run_dir = \"run2\"\n"));
        let mut places = Places::take("lonc", &first).unwrap();
        let now = Instant::now();
        places.write_pid().unwrap();
        let mut others = Places::take("lonc", &second).unwrap();
        others.write_pid().unwrap();
        assert_eq!(names(&first.spool_dir), 2);
        std::fs::remove_file(first.run_dir.join("lonc.pid")).unwrap();
        let error = Places::take("lonc", &first).unwrap_err().to_string();
        assert!(error.starts_with(&format!("already running with pid {} (", std::process::id())), "{error}");
        assert!(places.keep(&first, now - KEEP_PAUSE).is_none(), "it is not time");
        let kept = places.keep(&first, now + KEEP_PAUSE).unwrap();
        assert_eq!((kept.ours, kept.back), (true, vec![first.run_dir.join("lonc.pid")]));

        // Another spool, at a reload or at HUP: nothing had gone, and nothing is left in the one
        // before.
        let moved = config(folder.path(), "spool_dir = \"elsewhere\"\n");
        let kept = places.keep(&moved, now + 2 * KEEP_PAUSE).unwrap();
        assert!(kept.ours && kept.back.is_empty(), "{kept:?}");
        assert_eq!((names(&first.spool_dir), names(&moved.spool_dir)), (1, 1));
        let (fd, path) = places.spool_lock().unwrap();
        let left = (fd.try_clone_to_owned().unwrap(), path.to_owned());
        let pid = places.descriptors().0.try_clone_to_owned().unwrap();
        drop(places);
        let mut places = Places::adopt("lonc", &first, Some(pid), Some(left)).unwrap();
        let kept = places.keep(&first, Instant::now()).unwrap();
        assert!(kept.ours && kept.back.is_empty(), "{kept:?}");
        assert_eq!((names(&first.spool_dir), names(&moved.spool_dir)), (2, 0));
        others.release();
        places.release();
        assert_eq!((names(&first.spool_dir), names(&first.run_dir)), (0, 0));
        assert_eq!(running_pid(&first.run_dir.join("lonc.pid")), None);
    }

    #[test]
    fn a_spool_that_cannot_be_locked_is_no_hindrance_and_is_locked_once_it_can_be() {
        let _still = crate::still::no_program_starts();
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), "");
        let in_the_way = spool_lock("lonc", &config);
        std::fs::create_dir(&in_the_way).unwrap();
        let mut places = Places::take("lonc", &config).unwrap();
        places.write_pid().unwrap();
        assert!(places.spool_lock().is_none());
        let said = places.said.spool.clone();
        assert!(said.starts_with(&format!("lock {}: ", in_the_way.display())), "{said}");
        assert!(
            said.ends_with("; until it can be had, the pid file alone keeps a second start away"),
            "{said}"
        );
        let mut now = Instant::now() + KEEP_PAUSE;
        assert!(places.keep(&config, now).unwrap().ours);
        std::fs::remove_dir(&in_the_way).unwrap();
        now += KEEP_PAUSE;
        assert!(places.keep(&config, now).unwrap().back.is_empty());
        assert_eq!(running_pid(&in_the_way), Some(std::process::id()));
        let run_dir = config.run_dir.canonicalize().unwrap();
        let text = format!("{}\nrun_dir {}\n", std::process::id(), run_dir.display());
        assert_eq!(std::fs::read_to_string(&in_the_way).unwrap(), text, "whose it is");
        assert_eq!(places.said.spool, "");
    }

    #[test]
    fn whether_somebody_serves_at_a_socket_is_told_from_what_cannot_be_told() {
        let _still = crate::still::no_program_starts();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lonc.sock");
        assert_eq!(serves(&path).unwrap(), None, "nothing is there");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        assert_eq!(serves(&path).unwrap(), None, "nobody listens");
        listener.listen(0).unwrap();
        assert_eq!(serves(&path).unwrap(), Some(std::process::id()));
        // Who has connected and was not taken in fills its queue, and waits in it when gone, too.
        assert_eq!(serves(&path).unwrap(), Some(0), "it listens, and is busy");
        let error = serves(&path.join("below")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn a_start_where_somebody_serves_who_is_busy_does_not_guess_his_number() {
        let _still = crate::still::no_program_starts();
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), "");
        let socket = pid_file("lonc", &config).with_extension("sock");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&socket).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let _waits = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        let error = Places::take("lonc", &config).unwrap_err().to_string();
        assert_eq!(error, format!("already running with pid unknown ({})", socket.display()));
    }

    #[test]
    fn who_holds_a_lock_is_known_to_be_of_this_place_or_of_another() {
        let _still = crate::still::no_program_starts();
        let holder = |pid, run_dir| format!("lonc, process {pid} (its child {}), run_dir {run_dir}", pid + 1);
        assert!(is_same_place(&holder(7, "/run/a"), &holder(9, "/run/a")));
        assert!(!is_same_place(&holder(7, "/run/a"), &holder(7, "/run/b")));
        assert!(!is_same_place("", "") && !is_same_place("?", "?"));
        let (parent, child) = (nix::unistd::getppid(), std::process::id());
        let of = |run_dir: &str| child_holder("lonc", Path::new(run_dir));
        let said = format!("lonc, process {parent} (its child {child}), run_dir /no/such/run");
        assert_eq!(of("/no/such/run"), said);
        assert!(is_same_place(&of("/no/such/a"), &of("/no/such/a")));
        assert!(!is_same_place(&of("/no/such/a"), &of("/no/such/b")));
    }
}
