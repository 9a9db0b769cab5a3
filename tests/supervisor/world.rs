//! A folder with a configuration, and a supervisor that runs on it.

use crate::ROLE;
use lonnet::base::Pin;
use lonnet::supervise::restart::LIFE_VARIABLE;
use lonnet::wire::secure::HostKey;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct World {
    folder: TempDir,
    role: &'static str,
    running: Option<Child>,
    /// What the process is to be, beside what its `role` is called.
    plays: &'static str,
    /// What is started.
    program: PathBuf,
    /// How long a program is tried at HUP; `None`: as long as it is for everybody.
    trial_life: Option<&'static str>,
}

impl World {
    /// A world for `role` with `id` and these `hosts`, `id` among them, and further lines of
    /// configuration.
    pub fn new(role: &'static str, hosts: &str, more: &str) -> World {
        let world = World {
            folder: tempfile::tempdir().unwrap(),
            role,
            plays: role,
            running: None,
            program: std::env::current_exe().unwrap(),
            // Most tests are not about the second that it takes.
            trial_life: Some("20"),
        };
        world.configure(hosts, more);
        world
    }

    /// Has another role be played under the same name.
    pub fn play(&mut self, role: &'static str) {
        self.plays = role;
    }

    /// Has the program be started by way of a link that [`World::install`] switches, and be tried
    /// for as long as it is for everybody.
    pub fn through_a_link(&mut self) {
        (self.program, self.trial_life) = (self.path("program"), None);
        self.install(&std::env::current_exe().unwrap());
    }

    /// Has the link lead to this file, at one stroke.
    pub fn install(&self, file: &Path) {
        let new = self.path("program.new");
        std::os::unix::fs::symlink(file, &new).unwrap();
        std::fs::rename(new, &self.program).unwrap();
    }

    /// Has the link lead to a script.
    pub fn install_script(&self, script: &str) {
        let file = self.path(&format!("script-{}", fastrand::u64(..)));
        // Written by another process: one that is forked from this one meanwhile would hold it open
        // for writing, and such a file cannot be executed.
        let mut writing = Command::new("sh");
        writing.arg("-c").arg("printf '#!/bin/sh\n%s\n' \"$2\" > \"$1\" && chmod 755 \"$1\"");
        let written = writing.arg("sh").args([file.as_os_str(), script.as_ref()]).status().unwrap();
        assert!(written.success());
        self.install(&file);
    }

    /// Writes the configuration anew.
    pub fn configure(&self, hosts: &str, more: &str) {
        self.configure_as(Some("root").filter(|_| nix::unistd::geteuid().is_root()), hosts, more);
    }

    pub fn configure_as(&self, user: Option<&str>, hosts: &str, more: &str) {
        let user = user.map_or(String::new(), |user| format!("user = {user:?}\n"));
        let text = format!("id = \"me\"\n{user}{more}");
        std::fs::write(self.path("lonnet.toml"), text).unwrap();
        std::fs::write(self.path("hosts.tab"), hosts).unwrap();
    }

    /// Makes this host's key anew; gives its pin.
    pub fn make_key(&self) -> Pin {
        let folder = self.path("keys");
        std::fs::create_dir_all(&folder).unwrap();
        // There is none the first time.
        let _ = std::fs::remove_file(folder.join("host.key"));
        HostKey::make(&folder).unwrap().pin()
    }

    /// Writes `hosts.pins`: of each host `h<n>` these pins.
    pub fn pin(&self, pins: &[(u8, Pin)]) {
        let lines: String = pins.iter().map(|(n, pin)| format!("h{n} {pin}\n")).collect();
        std::fs::write(self.path("hosts.pins"), lines).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env(ROLE, self.plays).env("LONNET_TEST_RUN", self.path("run")).arg("--config");
        command.arg(self.path("lonnet.toml")).args(arguments).stdin(Stdio::null());
        match self.trial_life {
            Some(life) => command.env(LIFE_VARIABLE, life),
            None => command.env_remove(LIFE_VARIABLE),
        };
        command
    }

    /// Starts it in the foreground and waits until it serves.
    pub fn start(&mut self) -> u32 {
        let command = self.command(&["--foreground"]);
        self.start_as(command)
    }

    /// The same with a command that the test has changed.
    pub fn start_as(&mut self, mut command: Command) -> u32 {
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        self.running = Some(child);
        self.wait("the supervisor serves", || self.log().contains("started, "));
        pid
    }

    /// Starts it and waits for its end; with what it has said.
    pub fn run(&self, arguments: &[&str]) -> Output {
        output_of(self.command(arguments))
    }

    pub fn pid(&self) -> u32 {
        self.running.as_ref().unwrap().id()
    }

    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Waits for the supervisor's end.
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.running.take().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > deadline {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("the supervisor did not end; its log:\n{}", self.log());
            }
            pause();
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path(&format!("log/{}.log", self.role))).unwrap_or_default()
    }

    /// Says a line to a Unix socket in the run folder; `None` if the answer does not come.
    pub fn ask(&self, socket: &str, line: &str) -> Option<String> {
        let mut stream = UnixStream::connect(self.path("run").join(socket)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(format!("{line}\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer).filter(|answer| !answer.is_empty())
    }

    /// The pid of the child that serves `peer`.
    pub fn child_of(&self, peer: &str) -> u32 {
        let mut pid = None;
        self.wait("a child answers", || {
            pid = self.ask(peer, "pid").and_then(|pid| pid.parse().ok());
            pid.is_some()
        });
        pid.unwrap()
    }

    pub fn status_file(&self) -> serde_json::Value {
        let text = std::fs::read_to_string(self.path("status/status.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// What the status file says of a peer.
    pub fn status_of(&self, peer: &str) -> serde_json::Value {
        let status = self.status_file();
        let peers = status["peers"].as_array().cloned().unwrap_or_default();
        peers.into_iter().find(|entry| entry["peer"] == peer).unwrap_or_default()
    }

    pub fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < deadline, "waited in vain until {what}; the log:\n{}", self.log());
            pause();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut child) = self.running.take() {
            // QUIT takes its children along, also those that hang.
            send(child.id(), Signal::SIGQUIT);
            let deadline = Instant::now() + Duration::from_secs(5);
            while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
                pause();
            }
            // One that was reaped is not there to be killed.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }
}

/// Starts a program and waits for its end, and for the end of what it says: what it leaves in the
/// background must not hold that open.
pub fn output_of(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let stdout = all_of(child.stdout.take().unwrap());
    let stderr = all_of(child.stderr.take().unwrap());
    let mut said = Vec::new();
    for (name, pipe) in [("standard output", stdout), ("standard error", stderr)] {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(text) = pipe.recv_timeout(left) else {
            // It may be the one that hangs, or have left somebody who does.
            let ended = child.try_wait().unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?}: its {name} was not closed within {PATIENCE:?}; its end by then: {ended:?}");
        };
        said.push(text);
    }
    let stderr = said.pop().unwrap();
    Output { status: ended(&mut child, deadline), stdout: said.pop().unwrap(), stderr }
}

/// Reads a pipe to its end, beside the test: reading may never end.
fn all_of(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        // The test may have given up.
        let _ = tell.send(bytes);
    });
    told
}

fn ended(child: &mut Child, deadline: Instant) -> ExitStatus {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("a program closed its output and did not end within {PATIENCE:?}");
        }
        pause();
    }
}

/// Between two looks at a condition.
pub fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

pub fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}

/// What `ps` shows.
pub fn title_of(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
}

/// Children, alive or zombies, with the letters of their states.
pub fn children_of(pid: u32) -> Vec<(u32, char)> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let state = |child: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
        Some((child, stat.rsplit_once(") ")?.1.chars().next()?))
    };
    list.split_ascii_whitespace().filter_map(|child| state(child.parse().ok()?)).collect()
}

pub fn open_files_of(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

pub fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// A field of `/proc/<pid>/status`.
pub fn status_field(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line[name.len() + 1..].trim().to_owned()
}
