//! What crosses `exec` at HUP: the program begins anew under its own pid and keeps its sockets and children.
//!
//! The old program describes what it leaves ([`exec`]) as JSON in a nameless file; the number of that file's
//! descriptor goes into the environment as [`VARIABLE`], together with the pid that it is meant for, so that no
//! other process takes it for its own. The descriptors that are described stay open across `exec`; every other one
//! has the close-on-exec flag. The new program takes each by its number, once ([`Descriptors::take`]); what it does
//! not take is closed.
//! When `exec` fails, everything is as before and the old program goes on.

use super::signals::{self, Signal, Signals};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::execve;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::{CString, NulError, OsString};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Name of the environment variable: `<pid>:<descriptor>`.
pub const VARIABLE: &str = "LONNET_HANDOFF";

/// What the kernel appends to the path of a program whose file was removed.
const DELETED: &str = " (deleted)";

/// Why the handoff failed.
#[derive(Debug, thiserror::Error)]
pub enum HandoffError {
    /// The path of this program cannot be told.
    #[error("find this program: {0}")]
    Program(io::Error),
    /// What is left cannot be written down.
    #[error("describe what is handed over: {0}")]
    Describe(io::Error),
    /// `exec` failed; the old program goes on.
    #[error("exec {}: {cause}", path.display())]
    Exec {
        /// The program.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The new program cannot read what the old one left.
    #[error("read what was handed over: {0}")]
    Read(io::Error),
}

/// How this program is to be started anew.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// This program, to be started with `arguments` (the program's own name not among them); they must not depend
    /// on the working directory, which a daemon leaves. To be called at the start: the path is that of the file
    /// which was started, so that an upgraded file in its place is what runs next.
    ///
    /// # Errors
    /// When the path cannot be told.
    pub fn new(arguments: Vec<OsString>) -> Result<Program, HandoffError> {
        let path = std::env::current_exe().map_err(HandoffError::Program)?;
        Ok(Program { path: without_deleted(path), arguments })
    }
}

fn without_deleted(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_suffix(DELETED)) {
        Some(text) if !path.exists() => PathBuf::from(text),
        _ => path,
    }
}

/// What is described, and the numbers of the descriptors that the new program may take.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    descriptors: Vec<RawFd>,
    legacy: T,
}

/// Why the old program is still there after [`exec`].
#[derive(Debug)]
pub struct Stayed {
    /// What failed; `None` if a signal to stop came first.
    pub error: Option<HandoffError>,
    /// Signals that came meanwhile and are still to be answered.
    pub late: Vec<Signal>,
}

/// Starts `program` anew in this process and leaves it `legacy` and `descriptors`. Returns only when that failed, or
/// when a signal to stop came first: then the signal mask, descriptors and all else are as before.
pub fn exec<T: Serialize>(
    program: &Program,
    legacy: &T,
    descriptors: &[BorrowedFd<'_>],
    signals: &mut Signals,
) -> Stayed {
    let mask = match signals::block() {
        Ok(mask) => mask,
        Err(cause) => return Stayed { error: Some(HandoffError::Describe(cause)), late: Vec::new() },
    };
    // From here on signals wait for the new program; those that the handlers took before would die with the old
    // one. CHLD, USR1 and HUP need no answer if `exec` succeeds: the new program reaps and starts all links anew.
    let late = signals.pending();
    let stop = late.iter().any(|signal| matches!(signal, Signal::Stop | Signal::Quit));
    let error = (!stop).then(|| replace_image(program, legacy, descriptors));
    if let Err(cause) = signals::restore(&mask) {
        log::error!("restore the signal mask: {cause}");
    }
    Stayed { error, late }
}

fn replace_image<T: Serialize>(
    program: &Program,
    legacy: &T,
    descriptors: &[BorrowedFd<'_>],
) -> HandoffError {
    let error = try_exec(program, legacy, descriptors);
    for fd in descriptors {
        // It was open and had the flag a moment ago; a kernel that refuses this now has refused nothing before.
        if let Err(errno) = set_close_on_exec(*fd, true) {
            log::error!("close descriptor {} on exec: {errno}", fd.as_raw_fd());
        }
    }
    error
}

fn try_exec<T: Serialize>(program: &Program, legacy: &T, descriptors: &[BorrowedFd<'_>]) -> HandoffError {
    let described =
        describe(&Envelope { descriptors: descriptors.iter().map(AsRawFd::as_raw_fd).collect(), legacy });
    let file = match described {
        Ok(file) => file,
        Err(cause) => return HandoffError::Describe(cause),
    };
    let fail = |cause: io::Error| HandoffError::Exec { path: program.path.clone(), cause };
    let strings = match strings_for(program, file.as_raw_fd()) {
        Ok(strings) => strings,
        Err(error) => return fail(io::Error::new(io::ErrorKind::InvalidInput, error)),
    };
    for fd in descriptors {
        if let Err(errno) = set_close_on_exec(*fd, false) {
            return fail(errno.into());
        }
    }
    let (path, arguments, environment) = strings;
    let Err(errno) = execve(&path, &arguments, &environment);
    fail(errno.into())
}

/// A nameless file, which stays open across `exec`, with the JSON of `envelope`.
fn describe<T: Serialize>(envelope: &Envelope<T>) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"lonnet-handoff", MFdFlags::empty())?);
    let mut writer = io::BufWriter::new(&mut file);
    serde_json::to_writer(&mut writer, envelope)?;
    writer.flush()?;
    drop(writer);
    file.rewind()?;
    Ok(file)
}

fn strings_for(program: &Program, file: RawFd) -> Result<(CString, Vec<CString>, Vec<CString>), NulError> {
    let path = CString::new(program.path.clone().into_os_string().into_vec())?;
    let mut arguments = vec![path.clone()];
    for argument in &program.arguments {
        arguments.push(CString::new(argument.clone().into_vec())?);
    }
    let mut environment = vec![CString::new(format!("{VARIABLE}={}:{file}", std::process::id()))?];
    for (name, value) in std::env::vars_os().filter(|(name, _)| name != VARIABLE) {
        let mut both = name.into_vec();
        both.push(b'=');
        both.extend(value.into_vec());
        environment.push(CString::new(both)?);
    }
    Ok((path, arguments, environment))
}

fn set_close_on_exec(fd: BorrowedFd<'_>, on: bool) -> nix::Result<()> {
    let flag = if on { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    fcntl(fd, FcntlArg::F_SETFD(flag)).map(drop)
}

/// What the old program left, if this is a new one under its pid. To be called once, before anything else is opened.
///
/// # Errors
/// When what was left cannot be read.
pub fn receive<T: DeserializeOwned>() -> Result<Option<(T, Descriptors)>, HandoffError> {
    let Some(file) = std::env::var(VARIABLE).ok().and_then(|text| addressed_to_us(&text)) else {
        return Ok(None);
    };
    // The link tells a leftover of the variable from a file that is still there.
    let link = std::fs::read_link(format!("/proc/self/fd/{file}")).unwrap_or_default();
    if !link.starts_with(Path::new("/memfd:lonnet-handoff (deleted)")) {
        return Ok(None);
    }
    // SAFETY: the descriptor is the nameless file of the program before this one, which left its number to this
    // process alone; nothing else in this program knows it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(file) });
    let (numbers, legacy) = parse(io::BufReader::new(file))?;
    let mut left = Descriptors(BTreeSet::new());
    for number in numbers {
        // SAFETY: only looked at; the kernel says if the number is not open.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        set_close_on_exec(fd, true).map_err(|errno| HandoffError::Read(errno.into()))?;
        left.0.insert(number);
    }
    Ok(Some((legacy, left)))
}

/// Reads a description: the numbers of the descriptors that were left, and the rest.
///
/// # Errors
/// It is none.
pub fn parse<T: DeserializeOwned>(description: impl io::Read) -> Result<(Vec<RawFd>, T), HandoffError> {
    let envelope: Envelope<T> =
        serde_json::from_reader(description).map_err(|error| HandoffError::Read(error.into()))?;
    match envelope.descriptors.iter().find(|number| **number < 0) {
        Some(number) => {
            let cause = format!("{number} is no descriptor");
            Err(HandoffError::Read(io::Error::new(io::ErrorKind::InvalidData, cause)))
        }
        None => Ok((envelope.descriptors, envelope.legacy)),
    }
}

fn addressed_to_us(text: &str) -> Option<RawFd> {
    let (pid, file) = text.split_once(':')?;
    (pid.parse() == Ok(std::process::id())).then(|| file.parse().ok().filter(|fd| *fd > 2)).flatten()
}

/// The descriptors that were left; those not taken are closed with this.
#[derive(Debug)]
pub struct Descriptors(BTreeSet<RawFd>);

impl Descriptors {
    /// The descriptor with this number, if it was left and not taken yet.
    pub fn take(&mut self, number: RawFd) -> Option<OwnedFd> {
        if !self.0.remove(&number) {
            return None;
        }
        // SAFETY: the program before this one left it open for this one and for no other owner; it is in the set
        // once, and is taken out of it here.
        Some(unsafe { OwnedFd::from_raw_fd(number) })
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        while let Some(number) = self.0.first().copied() {
            drop(self.take(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_left_for_another_process_is_not_taken() {
        let pid = std::process::id();
        assert_eq!(addressed_to_us(&format!("{pid}:7")), Some(7));
        for other in
            [format!("{}:7", pid + 1), format!("{pid}:1"), format!("{pid}:x"), "7".into(), String::new()]
        {
            assert_eq!(addressed_to_us(&other), None, "{other}");
        }
    }

    #[test]
    fn a_program_that_was_replaced_is_found_in_its_old_place() {
        assert_eq!(without_deleted("/no/such/lonc (deleted)".into()), Path::new("/no/such/lonc"));
        assert_eq!(without_deleted("/no/such/lonc".into()), Path::new("/no/such/lonc"));
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("lonc (deleted)");
        std::fs::write(&odd, "").unwrap();
        assert_eq!(without_deleted(odd.clone()), odd, "a file may be called so");
    }

    #[test]
    fn a_failed_exec_leaves_everything_as_it_was() {
        let program = Program { path: "/no/such/program".into(), arguments: vec!["x".into()] };
        let (ours, _theirs) = super::super::control::pair().unwrap();
        let flags = || fcntl(&ours, FcntlArg::F_GETFD).unwrap();
        let before = flags();
        let error = replace_image(&program, &"what", &[ours.as_fd()]).to_string();
        assert_eq!(error, "exec /no/such/program: No such file or directory (os error 2)");
        assert_eq!(flags(), before);
        assert_eq!(before & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }
}
