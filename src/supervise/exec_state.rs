//! What crosses `exec` at HUP: the program begins again under its own pid and keeps its sockets and
//! children.
//!
//! The old program describes what it leaves ([`exec`]) as JSON in a nameless file; the number of
//! that file's descriptor goes into the environment as [`VARIABLE`], together with the pid that it
//! is meant for, so that no other process takes it for its own. The descriptors that are described
//! stay open across `exec`; every other one has the close-on-exec flag. The new program takes each
//! by its number, once ([`Descriptors::take`]); what it does not take is closed, and so is, at
//! every start, what is open and was not left ([`super::startup`]). When `exec` fails, everything
//! is as before and the old program goes on.

use super::image::Program;
use super::signals::{self, Signal, Signals};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

/// Name of the environment variable: `<pid>:<descriptor>`.
pub const VARIABLE: &str = "LONNET_HANDOFF";

/// Times that what was left is read before the system's refusal counts.
const READ_TRIES: u32 = 3;

/// Why what crosses `exec` could not be handed over.
#[derive(Debug, thiserror::Error)]
pub enum ExecStateError {
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

/// What is described, and the numbers of the descriptors that the new program may take.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    descriptors: Vec<RawFd>,
    /// Under the name that programs of before give it.
    #[serde(rename = "legacy")]
    inheritance: T,
}

/// Why the old program is still there after [`exec`].
#[derive(Debug)]
pub struct Stayed {
    /// What failed; `None` if a signal to stop came first.
    pub error: Option<ExecStateError>,
    /// Signals that came meanwhile and are still to be answered.
    pub late: Vec<Signal>,
}

/// Starts `program` again in this process and leaves it `inheritance` and `descriptors`. Returns
/// only when that failed, or when a signal to stop came first: then the signal mask, descriptors
/// and all else are as before.
pub fn exec<T: Serialize>(
    program: &Program,
    inheritance: &T,
    descriptors: &[BorrowedFd<'_>],
    signals: &mut Signals,
) -> Stayed {
    let mask = match signals::block() {
        Ok(mask) => mask,
        Err(cause) => return Stayed { error: Some(ExecStateError::Describe(cause)), late: Vec::new() },
    };
    // From here on signals wait for the new program; those that the handlers took before would die
    // with the old one. CHLD, USR1 and HUP need no answer if `exec` succeeds: the new program reaps
    // and starts all links again.
    let late = signals.pending();
    let stop = late.iter().any(|signal| matches!(signal, Signal::Stop | Signal::Quit));
    let error = (!stop).then(|| replace_image(program, inheritance, descriptors));
    if let Err(cause) = signals::restore(&mask) {
        log::error!("restore the signal mask: {cause}");
    }
    Stayed { error, late }
}

fn replace_image<T: Serialize>(
    program: &Program,
    inheritance: &T,
    descriptors: &[BorrowedFd<'_>],
) -> ExecStateError {
    let error = try_exec(program, inheritance, descriptors);
    for fd in descriptors {
        // It was open and had the flag a moment ago; a kernel that refuses this now has refused
        // nothing before.
        if let Err(errno) = set_close_on_exec(*fd, true) {
            log::error!("close descriptor {} on exec: {errno}", fd.as_raw_fd());
        }
    }
    error
}

fn try_exec<T: Serialize>(
    program: &Program,
    inheritance: &T,
    descriptors: &[BorrowedFd<'_>],
) -> ExecStateError {
    let file = match describe(inheritance, descriptors) {
        Ok(file) => file,
        Err(cause) => return ExecStateError::Describe(cause),
    };
    let fail = |cause: io::Error| ExecStateError::Exec { path: program.path().to_owned(), cause };
    let to = format!("{}:{}", std::process::id(), file.as_raw_fd());
    let call = match program.call(VARIABLE, &to, &[]) {
        Ok(call) => call,
        Err(error) => return fail(io::Error::new(io::ErrorKind::InvalidInput, error)),
    };
    if let Err(errno) = set_close_on_exec(file.as_fd(), false) {
        return fail(errno.into());
    }
    for fd in descriptors {
        if let Err(errno) = set_close_on_exec(*fd, false) {
            return fail(errno.into());
        }
    }
    fail(call.exec())
}

/// A nameless file, closed on `exec` as yet, with the JSON of what is left.
///
/// # Errors
/// When there is no room for it.
pub(super) fn describe<T: Serialize>(inheritance: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<File> {
    let envelope =
        Envelope { descriptors: descriptors.iter().map(AsRawFd::as_raw_fd).collect(), inheritance };
    let mut file = File::from(memfd_create(c"lonnet-handoff", MFdFlags::MFD_CLOEXEC)?);
    let mut writer = io::BufWriter::new(&mut file);
    serde_json::to_writer(&mut writer, &envelope)?;
    writer.flush()?;
    drop(writer);
    file.rewind()?;
    Ok(file)
}

/// Sets or clears the flag.
///
/// # Errors
/// When the number is not open.
pub(super) fn set_close_on_exec(fd: BorrowedFd<'_>, on: bool) -> nix::Result<()> {
    let flag = if on { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    fcntl(fd, FcntlArg::F_SETFD(flag)).map(drop)
}

/// What the old program left, if this is a new one under its pid. To be called once, before
/// anything else is opened.
///
/// # Errors
/// When what was left cannot be read.
pub fn receive<T: DeserializeOwned>() -> Result<Option<(T, Descriptors)>, ExecStateError> {
    let Some(file) = std::env::var(VARIABLE).ok().and_then(|text| addressed_to_us(&text)) else {
        return Ok(None);
    };
    // The link tells a leftover of the variable from a file that is still there.
    let link = std::fs::read_link(format!("/proc/self/fd/{file}")).unwrap_or_default();
    if !link.starts_with(Path::new("/memfd:lonnet-handoff (deleted)")) {
        return Ok(None);
    }
    // SAFETY: the descriptor is the nameless file of the program before this one, which left its
    // number to this process alone; nothing else in this program knows it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(file) });
    let (numbers, inheritance) = parse(&*read_whole(file).map_err(ExecStateError::Read)?)?;
    let mut left = Descriptors(BTreeSet::new());
    for number in numbers {
        // SAFETY: only looked at; the kernel says if the number is not open.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        set_close_on_exec(fd, true).map_err(|errno| ExecStateError::Read(errno.into()))?;
        left.0.insert(number);
    }
    Ok(Some((inheritance, left)))
}

/// What the program before this one wrote. There is no other copy, and all links depend on it: a
/// refusal of the system counts only when it lasts.
fn read_whole(mut file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for _ in 1..READ_TRIES {
        if file.read_to_end(&mut bytes).is_ok() {
            return Ok(bytes);
        }
        bytes.clear();
        file.rewind()?;
    }
    file.read_to_end(&mut bytes).map(|_| bytes)
}

/// Reads a description: the numbers of the descriptors that were left, and the rest.
///
/// # Errors
/// It is none.
pub fn parse<T: DeserializeOwned>(description: impl io::Read) -> Result<(Vec<RawFd>, T), ExecStateError> {
    let envelope: Envelope<T> =
        serde_json::from_reader(description).map_err(|error| ExecStateError::Read(error.into()))?;
    match envelope.descriptors.iter().find(|number| **number < 0) {
        Some(number) => {
            let cause = format!("{number} is no descriptor");
            Err(ExecStateError::Read(io::Error::new(io::ErrorKind::InvalidData, cause)))
        }
        None => Ok((envelope.descriptors, envelope.inheritance)),
    }
}

/// What is described in `file`; of the descriptors it has the numbers, nothing more.
///
/// # Errors
/// When this program does not understand it.
pub(super) fn look_at<T: DeserializeOwned>(file: File) -> Result<T, ExecStateError> {
    parse(io::BufReader::new(file)).map(|(_, inheritance)| inheritance)
}

fn addressed_to_us(text: &str) -> Option<RawFd> {
    let (pid, file) = text.split_once(':')?;
    (pid.parse() == Ok(std::process::id())).then(|| file.parse().ok().filter(|fd| *fd > 2)).flatten()
}

/// The descriptors that were left; those not taken are closed with this.
#[derive(Debug)]
pub struct Descriptors(BTreeSet<RawFd>);

impl Descriptors {
    /// The numbers of the descriptors that stay open.
    pub(super) fn numbers(&self) -> Vec<RawFd> {
        self.0.iter().copied().collect()
    }

    /// The descriptor with this number, if it was left and not taken yet.
    pub fn take(&mut self, number: RawFd) -> Option<OwnedFd> {
        if !self.0.remove(&number) {
            return None;
        }
        // SAFETY: the program before this one left it open for this one and for no other owner; it
        // is in the set once, and is taken out of it here.
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
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::IntoRawFd;

    #[test]
    fn what_is_left_for_another_process_is_not_taken() {
        let pid = std::process::id();
        assert_eq!(addressed_to_us(&format!("{pid}:7")), Some(7));
        for other in
            [format!("{}:7", pid + 1), format!("{pid}:2"), format!("{pid}:x"), "7".into(), String::new()]
        {
            assert_eq!(addressed_to_us(&other), None, "{other}");
        }
    }

    #[test]
    fn a_number_that_no_descriptor_can_have_is_an_error() {
        let of = |numbers: &str| {
            parse::<u8>(format!(r#"{{"descriptors":{numbers},"legacy":7}}"#).as_bytes())
                .map_err(|error| error.to_string())
        };
        assert_eq!(of("[0,3,4]"), Ok((vec![0, 3, 4], 7)));
        assert_eq!(of("[3,-1]"), Err("read what was handed over: -1 is no descriptor".to_owned()));
    }

    #[test]
    fn a_descriptor_that_was_left_and_is_not_taken_is_closed() {
        let (reader, writer) = io::pipe().unwrap();
        let (_, taken) = io::pipe().unwrap();
        let numbers = [writer.into_raw_fd(), taken.into_raw_fd()];
        let mut left = Descriptors(BTreeSet::from(numbers));
        let taken = left.take(numbers[1]).unwrap();
        assert!(left.take(numbers[1]).is_none(), "each is taken once");
        drop(left);
        assert!(fcntl(&taken, FcntlArg::F_GETFD).is_ok(), "it has an owner");
        // A process that another test starts just now may hold a copy for a moment.
        let mut end = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut end, PollTimeout::from(60_000_u16)), Ok(1), "it stayed open");
    }

    #[test]
    fn a_failed_exec_leaves_everything_as_it_was() {
        let program = Program::new(Some("/no/such/program".into()), vec!["x".into()]).unwrap();
        let (ours, _theirs) = super::super::control::pair().unwrap();
        let flags = || fcntl(&ours, FcntlArg::F_GETFD).unwrap();
        let before = flags();
        let error = replace_image(&program, &"what", &[ours.as_fd()]).to_string();
        assert_eq!(error, "exec /no/such/program: No such file or directory (os error 2)");
        assert_eq!(flags(), before);
        assert_eq!(before & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }
}
