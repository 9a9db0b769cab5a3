//! What a child does between fork and exec, so that a program of another kind finds nothing of its
//! parent's: a session of its own, every signal as it is by default and none blocked, no descriptor
//! but the standard three (nothing to read; what it says goes to its log), an environment of what
//! the configuration names, its user, its folder, its limits. When its supervisor dies it is told
//! to end (TERM).
//!
//! What it cannot have back is what its parent has given up for good: it gains no privileges by
//! executing a file, and leaves no core dumps.

use super::messages::{FromProgram, ToProgram};
use config::Service;
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{self, Pid, getppid};
use owner::Owner;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use supervise::control::Channel;
use supervise::signals;

/// Exit code of a child that could not become its program; why, it has said.
pub(crate) const NOT_EXECUTED: i32 = 127;
/// What files have that the program makes, unless it says otherwise.
const UMASK: Mode = Mode::S_IWGRP.union(Mode::S_IWOTH);
/// Permission bits of its log.
const LOG_MODE: u32 = 0o640;

/// What a child is born with.
pub(crate) struct Seed {
    /// What it is to become.
    pub service: Service,
    /// Where the configuration is.
    pub config: std::path::PathBuf,
    /// Where it says what went wrong; closed by exec.
    pub control: OwnedFd,
    /// What it says goes there.
    pub log: File,
    /// The process that began it: it ends with that one.
    pub parent: Pid,
}

/// Opens the log of a service.
///
/// # Errors
/// What the system said.
pub(crate) fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(LOG_MODE).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// Becomes the program; ends if that cannot be.
pub(crate) fn run(seed: Seed) -> Infallible {
    let Seed { service, config, control, log, parent } = seed;
    let Err(Step { step, cause }) = become_program(&service, &config, &log, parent);
    let why = format!("{step}: {cause}");
    let told = Channel::<FromProgram, ToProgram>::from_fd(control)
        .and_then(|mut control| control.send(&FromProgram::NotStarted(why.clone())));
    if told.is_err() {
        log::error!("start: {why}");
    }
    std::process::exit(NOT_EXECUTED)
}

/// What could not be done, and why.
struct Step {
    step: String,
    cause: io::Error,
}

fn at<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Step {
    move |cause| Step { step: step.into(), cause: cause.into() }
}

fn become_program(service: &Service, config: &Path, log: &File, parent: Pid) -> Result<Infallible, Step> {
    unistd::setsid().map_err(at("begin a session"))?;
    standard_descriptors(log).map_err(at("set the standard descriptors"))?;
    umask(UMASK);
    limits(service).map_err(at("set limits"))?;
    let home = rights(service)?;
    // Who changes its rights would have it taken away.
    set_pdeathsig(Signal::SIGTERM).map_err(at("be told of the supervisor's end"))?;
    if getppid() != parent {
        return Err(at("begin")(io::Error::other("the supervisor is gone")));
    }
    let dir = service.dir.display();
    std::env::set_current_dir(&service.dir).map_err(at(format!("go to {dir}")))?;
    let (path, arguments, environment) = call(service, config, home).map_err(at("make its arguments"))?;
    // From here on a signal ends it, as it would any program.
    signals::default_for_program().map_err(at("set signals back"))?;
    let program = service.program.display();
    unistd::execve(&path, &arguments, &environment).map_err(at(format!("execute {program}")))
}

fn standard_descriptors(log: &File) -> io::Result<()> {
    let null = File::open("/dev/null")?;
    unistd::dup2_stdin(&null)?;
    unistd::dup2_stdout(log)?;
    Ok(unistd::dup2_stderr(log)?)
}

fn limits(service: &Service) -> io::Result<()> {
    let bounds = [(Resource::RLIMIT_NOFILE, service.open_files), (Resource::RLIMIT_AS, service.memory)];
    for (resource, bound) in bounds.into_iter().filter_map(|(resource, bound)| Some((resource, bound?))) {
        let (_, hard) = getrlimit(resource)?;
        setrlimit(resource, bound, bound).or_else(|errno| match errno {
            // Without the right to have more.
            Errno::EPERM => setrlimit(resource, bound.min(hard), hard),
            errno => Err(errno),
        })?;
    }
    Ok(())
}

/// Takes the rights of the service's user, whose home and name are given; of none, those that the
/// supervisor has for its files.
fn rights(service: &Service) -> Result<Vec<(String, String)>, Step> {
    let Some(name) = &service.user else { return Ok(Vec::new()) };
    let step = format!("become user {name}");
    let owner = Owner::named(name).map_err(|error| at(step.clone())(io::Error::other(error)))?;
    let user = unistd::User::from_uid(owner.uid).map_err(at(step.clone()))?;
    owner.become_for_good().map_err(at(step))?;
    let home = user.map_or_else(|| "/".to_owned(), |user| user.dir.to_string_lossy().into_owned());
    Ok(vec![("HOME".into(), home), ("USER".into(), name.clone()), ("LOGNAME".into(), name.clone())])
}

type Call = (CString, Vec<CString>, Vec<CString>);

fn call(service: &Service, config: &Path, home: Vec<(String, String)>) -> io::Result<Call> {
    let path = CString::new(service.program.as_os_str().as_bytes())?;
    let arguments = service.arguments.iter().map(|argument| CString::new(argument.as_str()));
    let arguments = std::iter::once(Ok(path.clone())).chain(arguments).collect::<Result<_, _>>()?;
    let mut all: BTreeMap<String, String> = home.into_iter().collect();
    all.extend(service.env.clone());
    all.insert("LONNET_SERVICE".into(), service.name.clone());
    let mut environment: Vec<CString> =
        all.iter().map(|(name, value)| CString::new(format!("{name}={value}"))).collect::<Result<_, _>>()?;
    environment.push(CString::new([b"LONNET_CONFIG=", config.as_os_str().as_bytes()].concat())?);
    Ok((path, arguments, environment))
}
