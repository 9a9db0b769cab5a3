//! A folder with a configuration, a service of a few lines, and a `lonsvc` that runs on it.

use crate::wait;
use lonnet::status::{ServiceState, ServiceStatus, ServicesSnapshot};
use lonnet::supervise::restart::LIFE_VARIABLE;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Notes in the file `$OUT` that it has started, and each TERM; ends at that, and leaves a process
/// of its own behind.
const SERVICE: &str = r#"#!/bin/sh
trap 'echo "term $$" >> "$OUT"; exit 0' TERM
sleep 1000 &
echo "start $$ $!" >> "$OUT"
wait
"#;

pub struct World {
    folder: TempDir,
    running: Option<Child>,
}

impl World {
    pub fn new(services: &str) -> World {
        let world = World { folder: tempfile::tempdir().unwrap(), running: None };
        fs::set_permissions(world.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(world.path("hosts.tab"), "me:d:r:h:127.0.0.1\n").unwrap();
        world.script("service", SERVICE);
        world.configure(services);
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the configuration; `$OUT` in it is a file that a service may write to.
    pub fn configure(&self, services: &str) {
        let user = if geteuid().is_root() { "user = \"root\"" } else { "" };
        self.configure_as(user, services);
    }

    pub fn configure_as(&self, user: &str, services: &str) {
        let services = services.replace("$OUT", self.path("out").to_str().unwrap());
        let text = format!("id = \"me\"\n{user}\n{services}");
        fs::write(self.path("lonnet.toml"), text).unwrap();
    }

    /// Writes a program by another process: one that is forked from this one meanwhile would hold
    /// it open for writing, and such a file cannot be executed.
    pub fn script(&self, name: &str, text: &str) {
        let mut writing = Command::new("sh");
        writing.arg("-c").arg("printf '%s' \"$2\" > \"$1\" && chmod 755 \"$1\"");
        let written = writing.arg("sh").arg(self.path(name)).arg(text).status().unwrap();
        assert!(written.success());
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lonsvc"));
        command.arg("--config").arg(self.path("lonnet.toml")).arg("--foreground");
        // Most tests are not about the second that a trial takes.
        command.env(LIFE_VARIABLE, "20").stdin(Stdio::null()).stderr(Stdio::null());
        command
    }

    pub fn start(&mut self) -> u32 {
        let command = self.command();
        self.start_as(command)
    }

    pub fn start_as(&mut self, mut command: Command) -> u32 {
        self.running = Some(command.spawn().unwrap());
        self.wait("lonsvc serves", |world| world.log().contains("started, "));
        self.pid()
    }

    pub fn pid(&self) -> u32 {
        self.running.as_ref().unwrap().id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for the end of `lonsvc`.
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.running.take().unwrap();
        wait::within(PATIENCE, || child.try_wait().unwrap()).unwrap_or_else(|| {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("lonsvc did not end; its log:\n{}", self.log());
        })
    }

    pub fn lon(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lon"));
        command.arg("--config").arg(self.path("lonnet.toml")).args(arguments);
        command.stdin(Stdio::null()).output().unwrap()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log/lonsvc.log")).unwrap_or_default()
    }

    /// What the services have noted.
    pub fn noted(&self) -> String {
        fs::read_to_string(self.path("out")).unwrap_or_default()
    }

    /// Says a line to the status socket.
    pub fn ask(&self, line: &str) -> Option<String> {
        let mut stream = UnixStream::connect(self.path("run/lonsvc.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(format!("{line}\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer).filter(|answer| !answer.is_empty())
    }

    pub fn snapshot(&self) -> Option<ServicesSnapshot> {
        serde_json::from_str(&self.ask("status")?).ok()
    }

    pub fn status(&self, name: &str) -> Option<ServiceStatus> {
        self.snapshot()?.services.into_iter().find(|service| service.name == name)
    }

    /// The process of a service that runs, once it is its program that does.
    pub fn process(&self, name: &str) -> u32 {
        let mut pid = 0;
        self.wait("a service runs", |world| {
            let running = world.status(name).filter(|status| status.state == ServiceState::Running);
            pid = running.map_or(0, |status| status.pid);
            world.noted().lines().any(|line| line.starts_with(&format!("start {pid} ")))
        });
        pid
    }

    pub fn wait(&self, what: &str, mut done: impl FnMut(&World) -> bool) {
        let so = wait::within(PATIENCE, || done(self).then_some(()));
        assert!(so.is_some(), "waited in vain until {what}; the log:\n{}\n{:?}", self.log(), self.snapshot());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut child) = self.running.take() {
            // QUIT takes its programs along, also those that hang.
            let _ = kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGQUIT);
            let _ = wait::within(Duration::from_secs(5), || child.try_wait().unwrap());
            // One that was reaped is not there to be killed.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }
}

pub fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// A field of `/proc/<pid>/status`.
pub fn status_field(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line[name.len() + 1..].trim().to_owned()
}
