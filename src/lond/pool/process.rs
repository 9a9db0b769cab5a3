//! A program is started: between fork and exec nothing of this process's is left to it.
//!
//! It has a session, and so a group, of its own; every signal as it is by default; the standard
//! three descriptors, which are pipes, and no other; the folder `/`; the environment that it is
//! given, and nothing else. It is killed when this process ends. What it cannot have back is what
//! `lond` has given up for good: it gains no privileges by executing a file, and leaves no core
//! dumps.

use net::pipe::{Receiver, Sender};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{self, Pid, getppid};
use std::convert::Infallible;
use std::ffi::CString;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use supervise::{signals, spawn};

/// Exit code of one that could not become its program; why, it has said.
const NOT_EXECUTED: i32 = 127;
/// Descriptors that a program may have by default, as those expect that know of no more; it can
/// have as many as `lond` by asking.
const OPEN_FILES: u64 = 1024;
/// Where a program finds others.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process just started, and this end of its pipes.
pub(super) struct Started {
    pub pid: u32,
    pub input: Sender,
    pub output: Receiver,
    pub errors: Receiver,
    /// Why it could not become its program; closed without a word if it has.
    pub fate: Receiver,
}

/// The program's end of the pipes.
struct Ends {
    input: PipeReader,
    output: PipeWriter,
    errors: PipeWriter,
    fate: PipeWriter,
}

/// What is executed.
struct Call {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

/// Starts a process of `program` with this environment: names and values.
///
/// # Errors
/// There is none: no descriptors, no processes, or a zero byte in what it is given.
pub(super) fn start(program: &config::Program, environment: &[(&str, &[u8])]) -> io::Result<Started> {
    let call = call(program, environment)?;
    let (theirs_in, input) = io::pipe()?;
    let (output, theirs_out) = io::pipe()?;
    let (errors, theirs_err) = io::pipe()?;
    let (fate, theirs_fate) = io::pipe()?;
    let input = Sender::from(OwnedFd::from(input));
    input.set_nonblocking(true)?;
    let receiver = |pipe: PipeReader| {
        let pipe = Receiver::from(OwnedFd::from(pipe));
        pipe.set_nonblocking(true).map(|()| pipe)
    };
    let (output, errors, fate) = (receiver(output)?, receiver(errors)?, receiver(fate)?);
    let ends = Ends { input: theirs_in, output: theirs_out, errors: theirs_err, fate: theirs_fate };
    let keep =
        vec![ends.input.as_raw_fd(), ends.output.as_raw_fd(), ends.errors.as_raw_fd(), ends.fate.as_raw_fd()];
    let parent = Pid::this();
    let pid = spawn::spawn(keep, move || become_program(&call, ends, parent))?;
    Ok(Started { pid, input, output, errors, fate })
}

fn call(program: &config::Program, environment: &[(&str, &[u8])]) -> io::Result<Call> {
    let path = CString::new(program.file.as_os_str().as_bytes())?;
    let arguments = program.arguments.iter().map(|argument| CString::new(argument.as_str()));
    let arguments = std::iter::once(Ok(path.clone())).chain(arguments).collect::<Result<_, _>>()?;
    let variable = |(name, value): &(&str, &[u8])| CString::new([name.as_bytes(), b"=", value].concat());
    let environment = environment.iter().map(variable).collect::<Result<_, _>>()?;
    Ok(Call { path, arguments, environment })
}

/// In the child: executes the program, or says why not.
fn become_program(call: &Call, ends: Ends, parent: Pid) -> Infallible {
    let Ends { input, output, errors, mut fate } = ends;
    let error = match execute(call, &input, &output, &errors, parent) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    // Nobody is left to know if that fails.
    let _ = write!(fate, "{error}");
    std::process::exit(NOT_EXECUTED)
}

fn execute(
    call: &Call,
    input: &PipeReader,
    output: &PipeWriter,
    errors: &PipeWriter,
    parent: Pid,
) -> io::Result<Infallible> {
    unistd::setsid()?;
    unistd::dup2_stdin(input)?;
    unistd::dup2_stdout(output)?;
    unistd::dup2_stderr(errors)?;
    unistd::chdir("/")?;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, soft.min(OPEN_FILES), hard)?;
    set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        return Err(io::Error::other("the process that started it is gone"));
    }
    // From here on a signal ends it, as it would any program.
    signals::default_for_program()?;
    Ok(unistd::execve(&call.path, &call.arguments, &call.environment)?)
}
