//! A start on trial, in the program that HUP is to start: all of it that changes nothing.
//!
//! The program that serves starts the next one as a child first ([`super::restart`]), with what it
//! would leave it and a pipe, both named in the environment as [`VARIABLE`] together with the pid
//! that they are meant for. The new program then reads its arguments, what would be left to it, the
//! configuration, this host's key; sees whether it could write to its folders and logs, have its
//! signals and wait for events; says [`WORD`] with its version; and stays for the rest of its first
//! second, in which most of what is wrong with a program shows. At its end it looks at the files
//! once more, so that what `exec` finds is as young as can be, and exits 0.
//!
//! It takes over no descriptor, and touches no lock, pid file or socket. What is wrong it says
//! through the pipe, a line each after [`PROBLEMS`], and exits 1; of a panic the log has the place.
//! A signal to stop ends it.

use super::background;
use super::exec_state;
use super::files::log_file;
use super::inheritance::Inherited;
use super::own_key::OwnKey;
use super::reload::Load;
use super::sandbox;
use super::signals::{Signal, Signals};
use super::title;
use config::{Config, ConfigErrors};
use net::{Events, Interest, Poll, Token};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};
use owner::Owner;
use std::fs::File;
use std::io::{self, PipeWriter, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Name of the environment variable: `<pid>:<descriptor of what is left>:<descriptor of the
/// pipe>:<milliseconds>`.
pub const VARIABLE: &str = "LONNET_TRIAL";
/// What a program says that can start, before a space and its version.
pub const WORD: &str = "+can start";
/// What comes before the problems of one that cannot.
pub const PROBLEMS: &str = "\n-";
/// Bytes of them that are said: any pipe has room for as many with nobody reading.
pub const MAX_SAID: usize = 3 * 1024;

/// A start on trial that this process was made for.
#[derive(Debug)]
pub struct Trial {
    left: File,
    pipe: PipeWriter,
    /// It ends then.
    until: Instant,
}

impl Trial {
    /// This process's, if it is one. To be called first in `main`, and once.
    pub fn of_this_process() -> Option<Trial> {
        Trial::described_by(&std::env::var(VARIABLE).ok()?)
    }

    fn described_by(text: &str) -> Option<Trial> {
        let (left, pipe, life) = addressed_to_us(text)?;
        // Of a leftover of the variable that has our number by chance, nothing need be open.
        let is_open = |number: RawFd| {
            // SAFETY: only looked at; the kernel says if the number is not open.
            exec_state::set_close_on_exec(unsafe { BorrowedFd::borrow_raw(number) }, true).is_ok()
        };
        if left == pipe || !is_open(left) || !is_open(pipe) {
            return None;
        }
        // SAFETY: the program that made this process left the numbers to it alone, and for this.
        let (left, pipe) = unsafe { (OwnedFd::from_raw_fd(left), OwnedFd::from_raw_fd(pipe)) };
        Some(Trial { left: left.into(), pipe: pipe.into(), until: Instant::now() + life })
    }

    /// Starts as far as nothing is changed; whether this program can be the next one.
    pub fn run<L: Inherited>(self, program: &'static str, file: &Path, load: Load, foreground: bool) -> bool {
        title::set("trial");
        let Trial { left, mut pipe, until } = self;
        let next = Next { program, file, load, foreground };
        let proven = next.prove::<L>(left, &mut pipe, until);
        if let Err(problems) = &proven {
            let mut said = format!("{PROBLEMS}{}", problems.join("\n"));
            said.truncate(said.floor_char_boundary(MAX_SAID));
            // If the program that wants to know is gone, nobody does.
            let _ = pipe.write_all(said.as_bytes());
        }
        proven.is_ok()
    }
}

fn addressed_to_us(text: &str) -> Option<(RawFd, RawFd, Duration)> {
    let mut parts = text.split(':');
    let pid: u32 = parts.next()?.parse().ok()?;
    let mut descriptor = || parts.next()?.parse().ok().filter(|fd: &RawFd| *fd > 2);
    let (left, pipe) = (descriptor()?, descriptor()?);
    let life = Duration::from_millis(parts.next()?.parse().ok()?);
    (pid == std::process::id()).then_some((left, pipe, life))
}

/// What this program would be, if it were the next one.
#[derive(Debug, Clone, Copy)]
struct Next<'a> {
    program: &'static str,
    /// The file of the configuration.
    file: &'a Path,
    /// Reads it.
    load: Load,
    /// Whether it logs to standard error too.
    foreground: bool,
}

impl Next<'_> {
    /// Starts as far as nothing is changed, says so in `pipe`, and lives until then; else what is
    /// wrong.
    fn prove<L: Inherited>(
        self,
        left: File,
        pipe: &mut PipeWriter,
        until: Instant,
    ) -> Result<(), Vec<String>> {
        let Next { program, file, load, foreground } = self;
        let inheritance: L = exec_state::look_at(left).map_err(one)?;
        let common = inheritance.common();
        // Of the program that serves: where somebody looks, and the next one's own is not to be
        // begun yet.
        base::logging::init(program, common.log.path(), log::LevelFilter::Warn, foreground).map_err(one)?;
        let look = || {
            let config = load(file).map_err(|ConfigErrors(problems)| lines(&problems))?;
            // A program that keeps root has no more rights over files than the user, once it is the
            // next one.
            let owner = Owner::beside_root(&config).map_err(one)?;
            let _acting = owner.as_ref().map(Owner::act).transpose().map_err(one)?;
            let key = OwnKey::load(&config)?;
            sandbox::judge_for(program, config.sandbox).map_err(one)?;
            let changed = common.ground.as_ref().map(|ground| ground.changed_in(&config)).unwrap_or_default();
            if !changed.is_empty() {
                return Err(changed);
            }
            if common.key && key.is_missed() {
                return Err(vec![format!("{}: the key is gone", config.key_dir.display())]);
            }
            background::can_make_folders(&config).map_err(one)?;
            can_log(program, &config)
        };
        look()?;
        let mut poll = Poll::new().map_err(|error| one(format!("wait for events: {error}")))?;
        let mut signals = Signals::new()
            .and_then(|mut signals| {
                poll.registry().register(&mut signals, Token(0), Interest::READABLE)?;
                Ok(signals)
            })
            .map_err(|error| one(format!("take signals: {error}")))?;
        // Nobody reads it if the program that serves is gone; the kernel ends this one then.
        let _ = writeln!(pipe, "{WORD} {}", env!("CARGO_PKG_VERSION"));
        wait(&mut poll, &mut signals, until).map_err(one)?;
        look()
    }
}

/// Waits until it is time, or a signal to stop comes.
fn wait(poll: &mut Poll, signals: &mut Signals, until: Instant) -> Result<(), String> {
    let mut events = Events::with_capacity(1);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        match poll.poll(&mut events, Some(left)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(format!("wait for events: {error}"));
            }
            Ok(()) | Err(_) => {}
        }
        if signals.pending().iter().any(|signal| matches!(signal, Signal::Stop | Signal::Quit)) {
            return Err("its start was told to stop".to_owned());
        }
    }
}

/// Whether the log could be written; it is neither made nor written to.
fn can_log(program: &str, config: &Config) -> Result<(), Vec<String>> {
    let file = log_file(program, config);
    match faccessat(AT_FDCWD, &file, AccessFlags::W_OK, AtFlags::AT_EACCESS) {
        // It will be made; its folder was looked at.
        Ok(()) | Err(nix::errno::Errno::ENOENT) => Ok(()),
        Err(errno) => Err(one(format!("open {}: {}", file.display(), io::Error::from(errno)))),
    }
}

fn one(problem: impl ToString) -> Vec<String> {
    vec![problem.to_string()]
}

fn lines(problems: &[impl ToString]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// Descriptors that a start on trial is given, for [`VARIABLE`].
pub(super) fn value(pid: u32, left: BorrowedFd<'_>, pipe: BorrowedFd<'_>, life: Duration) -> String {
    format!("{pid}:{}:{}:{}", left.as_raw_fd(), pipe.as_raw_fd(), life.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, IntoRawFd};

    #[test]
    fn what_is_meant_for_another_process_is_not_taken() {
        let (reader, pipe) = io::pipe().unwrap();
        let pid = std::process::id();
        let life = Duration::from_millis(1000);
        let ours = value(pid, reader.as_fd(), pipe.as_fd(), life);
        assert!(matches!(addressed_to_us(&ours), Some((_, _, found)) if found == life));
        let another = value(pid + 1, reader.as_fd(), pipe.as_fd(), life);
        for text in
            [another, format!("{pid}:7:8"), format!("{pid}:2:8:5"), format!("{pid}:7:x:5"), String::new()]
        {
            assert_eq!(addressed_to_us(&text), None, "{text}");
        }
    }

    #[test]
    fn a_leftover_whose_descriptors_are_not_two_that_are_open_is_no_trial() {
        let (reader, pipe) = io::pipe().unwrap();
        let (pid, [left, pipe]) =
            (std::process::id(), [OwnedFd::from(reader), pipe.into()].map(OwnedFd::into_raw_fd));
        // No limit of descriptors goes that far.
        let closed = RawFd::MAX;
        for (left, pipe) in [(left, left), (left, closed), (closed, pipe), (closed, closed - 1)] {
            assert!(Trial::described_by(&format!("{pid}:{left}:{pipe}:5")).is_none(), "{left}, {pipe}");
        }
        assert!(Trial::described_by(&format!("{pid}:{left}:{pipe}:5")).is_some());
    }

    #[test]
    fn a_log_that_the_user_could_not_write_is_said_before_it_is_needed() {
        let Some(nobody) = Owner::named("nobody").ok().filter(|_| nix::unistd::geteuid().is_root()) else {
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        mode(folder.path(), 0o755);
        std::fs::write(folder.path().join("hosts.tab"), "me:d:r:h:127.0.0.1\n").unwrap();
        std::fs::write(folder.path().join("lonnet.toml"), "id = \"me\"\n").unwrap();
        let config = Config::load(&folder.path().join("lonnet.toml")).unwrap();
        background::make_folders(&config, Some(&nobody)).unwrap();
        let log = log_file("lonc", &config);
        let could = || {
            let _acting = nobody.act().unwrap();
            can_log("lonc", &config).map_err(|problems| problems.join("|"))
        };
        assert_eq!(could(), Ok(()), "it will be made");
        assert!(!log.exists());
        std::fs::write(&log, "").unwrap();
        mode(&log, 0o644);
        let refused = could().unwrap_err();
        assert!(refused.starts_with(&format!("open {}: Permission denied", log.display())), "{refused}");
        mode(&log, 0o646);
        assert_eq!(could(), Ok(()));
    }
}
