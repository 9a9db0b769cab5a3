//! `lon stop [--timeout T]`: ends `lonc`, `lond` and `lonsvc` in order, and returns when they are
//! gone.
//!
//! All are told at once (TERM); each answers what it has in flight and stores what is critical, for
//! as long as its `drain_timeout` lets it. The command waits for the end of the processes
//! themselves, so that a start right behind it finds no lock, no socket and no address taken. Exit
//! code 0 when none runs any more, also when none ran; 1 when one could not be told, or has not
//! ended in time: it goes on ending then.

use super::bearings::about;
use super::{Failure, complain, patience, print};
use config::Config;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};
use supervise::files::pid_file;
use supervise::lock::running_pid;

/// How much longer than a program says that it may take it is waited for.
const GRACE: Duration = Duration::from_secs(5);
/// How long a program may take that does not say.
const UNTOLD: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Wait no longer than this for their end: 30s, 2m. Default: as long as their drain_timeout
    /// lets them, and some seconds.
    #[arg(long, value_name = "T", value_parser = super::duration)]
    timeout: Option<Duration>,
}

pub(super) fn run(config: &Config, arguments: &Arguments) -> Result<u8, Failure> {
    let begun = Instant::now();
    let mut failed = false;
    let mut ending = Vec::new();
    for name in programs(config) {
        match Running::find(config, name) {
            Ok(None) => print(format!("{name} does not run\n").as_bytes())?,
            Ok(Some(running)) => match running.tell_to_end() {
                Ok(()) => ending.push(running),
                Err(error) => {
                    failed = true;
                    complain(format_args!("stop {name} [{}]: {error}", running.pid));
                }
            },
            Err(error) => {
                failed = true;
                complain(format_args!("stop {name}: {error}"));
            }
        }
    }
    let longest = ending.iter().map(|running| running.within).max().unwrap_or_default();
    let deadline = begun + arguments.timeout.unwrap_or(longest);
    for running in ending {
        let Running { name, pid, .. } = &running;
        if running.has_ended_by(deadline).map_err(|error| Failure::did("wait for", name, error))? {
            print(format!("{name} [{pid}] has ended\n").as_bytes())?;
        } else {
            failed = true;
            let waited = begun.elapsed();
            complain(format_args!(
                "stop {name} [{pid}]: it has not ended within {waited:.1?}; it goes on ending"
            ));
        }
    }
    Ok(u8::from(failed))
}

/// Those that may run. Who has no services is not told of `lonsvc`, unless it runs all the same.
fn programs(config: &Config) -> Vec<&'static str> {
    let serves = !config.services.is_empty() || running_pid(&pid_file("lonsvc", config)).is_some();
    let services = serves.then_some("lonsvc");
    // Services use the links: they are told first.
    services.into_iter().chain(["lonc", "lond"]).collect()
}

/// A program that runs.
struct Running {
    name: &'static str,
    pid: u32,
    /// Stands for the process itself, and for no other that comes to have its number.
    process: OwnedFd,
    /// How long its end may take.
    within: Duration,
}

impl Running {
    fn find(config: &Config, name: &'static str) -> io::Result<Option<Running>> {
        let file = pid_file(name, config);
        let about = about(config, name).ok();
        let Some(pid) = running_pid(&file).or(about.as_ref().map(|about| about.pid)) else { return Ok(None) };
        let process = match open_process(pid) {
            Ok(process) => process,
            Err(Errno::ESRCH) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        // It may have ended, and another process have its number, before it was opened; then nobody
        // says so any more.
        if running_pid(&file) != Some(pid)
            && super::bearings::about(config, name).map(|about| about.pid).ok() != Some(pid)
        {
            return Ok(None);
        }
        let told = about.map(|about| Duration::from_millis(about.stops_within_ms));
        Ok(Some(Running { name, pid, process, within: told.unwrap_or(UNTOLD).saturating_add(GRACE) }))
    }

    fn tell_to_end(&self) -> io::Result<()> {
        let (process, no_info) = (self.process.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: the descriptor is open; without `siginfo` the kernel makes it up as for `kill`.
        let told = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process, libc::SIGTERM, no_info, 0) };
        match Errno::result(told) {
            // It has ended meanwhile.
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn has_ended_by(&self, deadline: Instant) -> io::Result<bool> {
        loop {
            let mut fds = [PollFd::new(self.process.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, patience(deadline)) {
                Ok(0) if deadline <= Instant::now() => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn open_process(pid: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: it takes a number and flags, and touches no memory.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
