//! A host in the middle of a star, and the hosts around it, each with a key, an address and
//! programs of its own; and hosts that stand in the table of the one in the middle and are away.

use crate::rig::{PATIENCE, Program, Result, wait};
use lonnet::base::Pin;
use lonnet::wire::secure::HostKey;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The host in the middle.
pub const HUB: &str = "hub";
/// How many hosts around it are started at a time.
const STARTED_AT_ONCE: usize = 32;
/// Hosts whose addresses differ in the last byte alone.
const A_NET: usize = 250;

/// What the ids of hosts begin with that are away; no other's does.
const AWAY: char = 'a';

/// Whether this is the id of a host that is away.
pub fn is_away(id: &str) -> bool {
    id.starts_with(AWAY)
}

/// See the head of this file.
pub struct Star {
    dir: tempfile::TempDir,
    bin: PathBuf,
    /// Whatever no other run on this machine has.
    port: u32,
    /// The hosts around it.
    spokes: Vec<String>,
    pins: Vec<Pin>,
}

impl Star {
    /// Folders and keys of the host in the middle and of so many around it.
    pub fn new(bin: &Path, spokes: usize) -> Result<Star> {
        let port = 26_000 + std::process::id() % 4_000;
        let spokes = (1..=spokes).map(|number| format!("s{number:04}")).collect();
        let mut star =
            Star { dir: tempfile::tempdir()?, bin: bin.to_owned(), port, spokes, pins: Vec::new() };
        for number in 0..=star.spokes.len() {
            let pin = star.make_host(number)?;
            star.pins.push(pin);
        }
        for number in 1..=star.spokes.len() {
            star.write_tables(&star.dir_of(number), [0, number].into_iter())?;
        }
        Ok(star)
    }

    /// The one in the middle is number 0; those beyond the spokes are away.
    fn id(&self, number: usize) -> String {
        match number.checked_sub(1) {
            None => HUB.to_owned(),
            Some(at) => self.spokes.get(at).cloned().unwrap_or_else(|| format!("{AWAY}{number:04}")),
        }
    }

    fn ip(number: usize) -> String {
        format!("127.200.{}.{}", number / A_NET, 1 + number % A_NET)
    }

    fn dir_of(&self, number: usize) -> PathBuf {
        self.dir.path().join(self.id(number))
    }

    fn make_host(&self, number: usize) -> Result<Pin> {
        let (id, ip, port, dir) = (self.id(number), Star::ip(number), self.port, self.dir_of(number));
        DirBuilder::new().recursive(true).mode(0o700).create(dir.join("keys"))?;
        let user = if nix::unistd::geteuid().is_root() { "user = \"root\"\n" } else { "" };
        let text = format!(
            "id = \"{id}\"\n{user}[lonc]\nport = {port}\nbind = \"{ip}\"\n[lond]\nlisten = [\"{ip}:{port}\"]\n"
        );
        fs::write(dir.join("lonnet.toml"), text)?;
        Ok(HostKey::make(&dir.join("keys"))?.pin())
    }

    fn write_tables(&self, dir: &Path, numbers: impl Iterator<Item = usize>) -> Result<()> {
        let (mut hosts, mut pins) = (String::new(), String::new());
        for number in numbers {
            let (id, ip) = (self.id(number), Star::ip(number));
            writeln!(hosts, "{id}:bench:library:localhost:{ip}")?;
            // Of a host that is away nobody has the key.
            let nobodys = || Pin::of(id.as_bytes());
            writeln!(pins, "{id} {}", self.pins.get(number).copied().unwrap_or_else(nobodys))?;
        }
        fs::write(dir.join("hosts.tab"), hosts)?;
        Ok(fs::write(dir.join("hosts.pins"), pins)?)
    }

    /// Has the host in the middle know so many hosts, itself among them.
    pub fn know(&self, lines: usize) -> Result<()> {
        self.write_tables(&self.dir_of(0), 0..lines)
    }

    fn command(&self, program: &str, number: usize) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.arg("--config").arg(self.dir_of(number).join("lonnet.toml")).stdin(Stdio::null());
        command
    }

    fn spawn(&self, program: &str, number: usize) -> Result<Program> {
        let said = File::options().create(true).append(true).open(self.dir_of(number).join("said"))?;
        let mut command = self.command(program, number);
        Ok(command.arg("--foreground").stdout(said.try_clone()?).stderr(said).spawn()?.into())
    }

    /// Has the host in the middle know nothing of how its links were.
    pub fn forget(&self) -> Result<()> {
        let files = self.dir_of(0).join("status");
        if files.exists() { Ok(fs::remove_dir_all(files)?) } else { Ok(()) }
    }

    /// Begins a program of the host in the middle; it need not serve yet.
    pub fn begin_hub(&self, program: &str) -> Result<Program> {
        self.spawn(program, 0)
    }

    /// Starts a program of each of the others.
    pub fn start_spokes(&self, program: &str) -> Result<Spokes> {
        let mut spokes = Spokes(Vec::new());
        let all: Vec<usize> = (1..=self.spokes.len()).collect();
        for some in all.chunks(STARTED_AT_ONCE) {
            let begun = spokes.0.len();
            for &number in some {
                spokes.0.push(self.spawn(program, number)?);
            }
            for (&number, spoke) in some.iter().zip(&spokes.0[begun..]) {
                let pid_file = self.dir_of(number).join("run").join(format!("{program}.pid"));
                wait("a program to start", || {
                    fs::read_to_string(&pid_file).is_ok_and(|pid| pid.trim() == spoke.pid().to_string())
                })?;
            }
        }
        Ok(spokes)
    }

    /// What a supervisor of the host in the middle says of itself and its links.
    ///
    /// # Errors
    /// It is not there, or says nothing.
    pub fn ask_status(&self, program: &str) -> Result<String> {
        let mut stream = UnixStream::connect(self.dir_of(0).join("run").join(format!("{program}.sock")))?;
        stream.write_all(b"status\n")?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        if said.is_empty() { Err("ask for the status: nothing was said".into()) } else { Ok(said) }
    }

    /// `lon` at the host in the middle.
    ///
    /// # Errors
    /// It could not do it; what it said.
    pub fn lon(&self, arguments: &[&str]) -> Result<Output> {
        let said = self.command("lon", 0).args(arguments).output()?;
        if said.status.success() {
            return Ok(said);
        }
        Err(format!("lon {}: {}", arguments.join(" "), String::from_utf8_lossy(&said.stderr)).into())
    }
}

/// The programs of the hosts around; they end together.
pub struct Spokes(Vec<Program>);

impl Drop for Spokes {
    fn drop(&mut self) {
        tell(self.0.iter().map(Program::pid), Signal::SIGTERM);
    }
}

/// Sends a signal to each; one that has just ended needs none.
pub fn tell(pids: impl Iterator<Item = u32>, signal: Signal) {
    for pid in pids {
        let _ = kill(Pid::from_raw(pid as i32), signal);
    }
}

/// Waits for all of these to be gone.
pub fn wait_gone(pids: &[u32]) -> Result<()> {
    let gone = |pid: &u32| !Path::new(&format!("/proc/{pid}")).exists();
    wait(&format!("processes to end within {PATIENCE:?}"), || pids.iter().all(gone))
}
