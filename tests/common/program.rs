//! A program in the foreground, as long as a test wants it.

use super::{process, wait};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

/// The number in a pid file.
pub fn pid_in(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// A program in the foreground; dropped, it is told to stop and must obey.
pub struct Program {
    child: Child,
    name: &'static str,
    errors: PathBuf,
    pid_file: PathBuf,
}

impl Program {
    /// Starts `command` and waits until the pid file names it; what it says goes to the file
    /// `errors`.
    pub fn start(command: &mut Command, name: &'static str, errors: PathBuf, pid_file: PathBuf) -> Program {
        let started = Program::try_start(command, name, errors, pid_file, |_| true);
        started.unwrap_or_else(|(status, said)| panic!("{name} ended: {status}\n{said}"))
    }

    /// Starts `command` and waits until the pid file names it and it `serves`; an error when it
    /// ends before, with what it said.
    pub fn try_start(
        command: &mut Command,
        name: &'static str,
        errors: PathBuf,
        pid_file: PathBuf,
        serves: impl Fn(&Program) -> bool,
    ) -> Result<Program, (ExitStatus, String)> {
        let file = fs::File::options().append(true).create(true).open(&errors).expect("make a log");
        command.stdout(file.try_clone().expect("clone a file")).stderr(file);
        Program::await_start(command, name, errors, pid_file, serves)
    }

    /// As [`Program::start`], for a command whose outputs are set already; what it says there is
    /// the caller's to know.
    pub fn start_heard(command: &mut Command, name: &'static str, pid_file: PathBuf) -> Program {
        let started = Program::await_start(command, name, PathBuf::new(), pid_file, |_| true);
        started.unwrap_or_else(|(status, _)| panic!("{name} ended: {status}"))
    }

    fn await_start(
        command: &mut Command,
        name: &'static str,
        errors: PathBuf,
        pid_file: PathBuf,
        serves: impl Fn(&Program) -> bool,
    ) -> Result<Program, (ExitStatus, String)> {
        let child = command.spawn().expect("start a program");
        let mut program = Program { child, name, errors, pid_file };
        let what = format!("{name} to serve, or to end");
        let ended = wait::until(&what, || match program.child.try_wait().expect("wait for a program") {
            Some(status) => Some(Some(status)),
            None if pid_in(&program.pid_file) == Some(program.pid()) && serves(&program) => Some(None),
            None => None,
        });
        match ended {
            Some(status) => Err((status, program.said())),
            None => Ok(program),
        }
    }

    /// The supervisor's pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails the test when the program has ended.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().expect("wait for a program") {
            panic!("{} ended: {status}\n{}", self.name, self.said());
        }
    }

    /// What it said on standard error.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.errors).unwrap_or_default()).into_owned()
    }

    fn said_last(&self) -> String {
        let said = self.said();
        let lines: Vec<_> = said.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// Sends the supervisor a signal.
    pub fn signal(&self, which: Signal) {
        process::signal(self.pid(), which);
    }

    /// Its link children that live: those whose title names a host. A program on trial is no such
    /// child, nor is a look-up.
    pub fn children(&self) -> Vec<u32> {
        let others = ["supervisor", "trial", "looking "];
        let serves = |pid: &u32| {
            let title = process::title(*pid);
            let what = title.strip_prefix(self.name).and_then(|rest| rest.strip_prefix(": "));
            what.is_some_and(|what| !others.iter().any(|other| what.starts_with(other)))
        };
        process::children(self.pid()).into_iter().filter(serves).collect()
    }

    /// Its only child, once there is exactly one.
    pub fn only_child(&self) -> u32 {
        wait::until("exactly one child", || match self.children()[..] {
            [child] => Some(child),
            _ => None,
        })
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let ended = wait::patiently(|| self.child.try_wait().expect("wait for a program"));
        ended.unwrap_or_else(|| panic!("{} does not end; it said last:\n{}", self.name, self.said_last()))
    }

    /// Tells it to stop and waits.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Ends the supervisor, and only it, at once.
    pub fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if panicking {
                // Its children notice by themselves; what is left, the network ends.
                self.signal(Signal::SIGKILL);
                let _ = self.child.wait();
            } else {
                self.signal(Signal::SIGTERM);
                self.wait();
            }
        }
        if panicking {
            eprintln!("--- {} [{}] said last:\n{}", self.name, self.child.id(), self.said_last());
        }
    }
}
