//! Hosts in a temporary folder, with the programs of this build: one that calls, and others that
//! are called.
//!
//! Every program is a child of this one and ends with its guard. What cannot be done is an error
//! with the step's name.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What any step may say.
pub type Failure = Box<dyn Error>;
pub type Result<T> = std::result::Result<T, Failure>;

/// How long anything that will happen may take.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Whatever port is free on an address of our own.
const PORT: u16 = 25_663;
/// Addresses of our own that hosts have.
const ADDRESSES: usize = 199;

/// The host that calls, and its id.
pub const NEAR: &str = "near";

/// The handlers of each host, and what the configuration says of them.
const HANDLERS: [(&str, &str); 5] = [
    ("slow", ""),
    ("count", ""),
    ("big", ""),
    ("line", ""),
    ("tagged", "format = \"tagged\"\nwindow = 64\n"),
];

/// Hosts of all rigs until now: those of one that is there at the same time have others' places.
static HOSTS: AtomicUsize = AtomicUsize::new(0);

/// The hosts: a folder each, below one that goes with this value.
pub struct Rig {
    dir: tempfile::TempDir,
    bin: PathBuf,
    /// The place of the first host.
    first: usize,
    hosts: Vec<String>,
}

/// A program in the foreground, stopped when this is dropped.
pub struct Program(Child);

impl Rig {
    /// Folders, keys and tables for the host that calls and these others.
    pub fn new(bin: &Path, others: &[&str]) -> Result<Rig> {
        Rig::new_in(&std::env::temp_dir(), bin, others)
    }

    /// The same, below this folder.
    pub fn new_in(folder: &Path, bin: &Path, others: &[&str]) -> Result<Rig> {
        let dir = tempfile::tempdir_in(folder)?;
        let hosts: Vec<_> = [&[NEAR], others].concat().iter().map(|id| (*id).to_owned()).collect();
        let first = HOSTS.fetch_add(hosts.len(), Ordering::Relaxed);
        let rig = Rig { dir, bin: bin.to_owned(), first, hosts };
        let mut table = String::new();
        for id in &rig.hosts {
            table.push_str(&format!("{id}:bench:library:localhost:{}\n", rig.ip(id)));
        }
        fs::write(rig.path("hosts.tab"), table)?;
        let mut pins = String::new();
        for id in &rig.hosts {
            rig.configure(id)?;
            pins.push_str(&rig.make_key(id)?);
        }
        fs::write(rig.path("hosts.pins"), pins)?;
        Ok(rig)
    }

    fn ip(&self, id: &str) -> Ipv4Addr {
        own_address((self.place(id) % ADDRESSES) as u8 + 1)
    }

    /// Hosts that share an address have ports of their own.
    fn port(&self, id: &str) -> u16 {
        PORT + (self.place(id) / ADDRESSES) as u16
    }

    fn place(&self, id: &str) -> usize {
        self.first + self.hosts.iter().position(|host| host == id).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn configure(&self, id: &str) -> Result<()> {
        let mut text = format!("id = \"{id}\"\nhosts = \"../hosts.tab\"\npins = \"../hosts.pins\"\n");
        if nix::unistd::geteuid().is_root() {
            text.push_str("user = \"root\"\n");
        }
        // Ten million messages, and a quarter that is another user's.
        text.push_str(&format!(
            "[lonc]\nport = {PORT}\nbind = \"{}\"\nsocket_mode = \"0666\"\nspool_messages = 40000000\n\
             spool_bytes = \"16GiB\"\n",
            self.ip(id)
        ));
        text.push_str(&format!("[lond]\nlisten = [\"{}:{}\"]\n", self.ip(id), self.port(id)));
        for other in self.hosts.iter().filter(|other| id == NEAR && self.port(other) != PORT) {
            let address = format!("{}:{}", self.ip(other), self.port(other));
            text.push_str(&format!("[host.{other}]\naddress = \"{address}\"\n"));
        }
        for (handler, form) in HANDLERS {
            let socket = self.handler_socket(handler).display().to_string();
            text.push_str(&format!("[handler.{handler}]\nsocket = \"{socket}\"\nallow = [\"*\"]\n{form}"));
        }
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(self.path(id).join("keys"))?;
        fs::write(self.path(id).join("lonnet.toml"), text)?;
        Ok(())
    }

    /// Has all of them look again for so long before they sleep; whether this build can.
    pub fn busy_poll(&self, time: &str) -> Result<bool> {
        let setting = format!("busy_poll = \"{time}\"\n");
        for id in &self.hosts {
            let path = self.path(id).join("lonnet.toml");
            let mut text = fs::read_to_string(&path)?;
            for section in ["[lonc]\n", "[lond]\n"] {
                text = text.replace(section, &format!("{section}{setting}"));
            }
            fs::write(path, text)?;
        }
        Ok(self.command("lon", NEAR).arg("check").output()?.status.success())
    }

    fn command(&self, program: &str, id: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.arg("--config").arg(self.path(id).join("lonnet.toml")).stdin(Stdio::null());
        command
    }

    /// The key of a host; its line for `hosts.pins`.
    fn make_key(&self, id: &str) -> Result<String> {
        // `lon pin` reads the whole configuration, of which this file is a part.
        fs::write(self.path("hosts.pins"), "")?;
        let said = self.command("lon", id).args(["pin", "--make"]).output()?;
        let text = String::from_utf8(said.stdout)?;
        let line = text.lines().find(|line| line.contains(" sha256:"));
        let line = line.ok_or_else(|| format!("make a key: {}", String::from_utf8_lossy(&said.stderr)))?;
        Ok(format!("{line}\n"))
    }

    /// Starts `lonc` or `lond` of a host.
    pub fn start(&self, name: &str, id: &str) -> Result<Program> {
        let log = fs::File::options().create(true).append(true).open(self.path(id).join("said"))?;
        let child =
            self.command(name, id).arg("--foreground").stdout(log.try_clone()?).stderr(log).spawn()?;
        let program = Program(child);
        let pid_file = self.path(id).join("run").join(format!("{name}.pid"));
        wait_looking(Duration::from_millis(1), "a program to start", || {
            fs::read_to_string(&pid_file).is_ok_and(|pid| pid.trim() == program.pid().to_string())
        })?;
        Ok(program)
    }

    /// Lets everybody go through the folders above the local sockets.
    pub fn open_to_all(&self) -> Result<()> {
        for name in ["", NEAR] {
            fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    /// The local socket of a peer.
    pub fn socket(&self, peer: &str) -> PathBuf {
        self.path(NEAR).join("run").join(peer)
    }

    /// The spool of a peer.
    pub fn spool(&self, peer: &str) -> PathBuf {
        self.path(NEAR).join("delayed").join(peer)
    }

    /// Where the program behind a handler of [`HANDLERS`] listens.
    pub fn handler_socket(&self, handler: &str) -> PathBuf {
        self.path(&format!("{handler}.sock"))
    }

    /// What the broker says of a peer.
    pub fn status(&self, peer: &str) -> Result<serde_json::Value> {
        let said = self.command("lon", NEAR).args(["status", "--json"]).output()?;
        let status: serde_json::Value = serde_json::from_slice(&said.stdout)?;
        let peers = status["peers"].as_array().ok_or("read the status: no peers")?;
        peers
            .iter()
            .find(|it| it["peer"] == peer)
            .cloned()
            .ok_or_else(|| "read the status: no such peer".into())
    }

    /// Waits until a link is up.
    pub fn wait_up(&self, peer: &str) -> Result<()> {
        wait("a link to be up", || self.status(peer).is_ok_and(|status| status["state"] == "up"))
    }

    /// Waits until so many messages wait for a peer.
    pub fn wait_delayed(&self, peer: &str, count: u64) -> Result<()> {
        wait("messages to be found", || self.status(peer).is_ok_and(|status| status["delayed"] == count))
    }
}

/// An address that no other process's rig has.
pub fn own_address(last: u8) -> Ipv4Addr {
    let pid = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, pid[2].max(1), pid[3].max(1), last)
}

impl From<Child> for Program {
    fn from(child: Child) -> Program {
        Program(child)
    }
}

impl Program {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// It and its children.
    pub fn all(&self) -> Vec<u32> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        std::iter::once(pid).chain(children.split_whitespace().filter_map(|word| word.parse().ok())).collect()
    }

    /// Sends a signal to it and its children.
    pub fn signal_all(&self, which: nix::sys::signal::Signal) {
        for pid in self.all() {
            // One that has just ended needs none.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), which);
        }
    }

    /// Memory of it and its children, each page that several share counted once: KiB.
    pub fn pss(&self) -> u64 {
        self.all().into_iter().map(|pid| memory(pid, "Pss")).sum()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal_all(nix::sys::signal::Signal::SIGCONT);
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.0.id() as i32),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.0.wait();
    }
}

/// One of the sums of `/proc/PID/smaps_rollup`, `Pss` say: KiB; 0 of a process that is gone.
pub fn memory(pid: u32, which: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let value = |line: &str| line.strip_prefix(which)?.strip_prefix(':').map(str::to_owned);
    let value = text.lines().find_map(value).unwrap_or_default();
    value.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// Waits for a condition.
pub fn wait(what: &str, holds: impl FnMut() -> bool) -> Result<()> {
    wait_looking(Duration::from_millis(20), what, holds)
}

/// Waits for a condition that is looked for with such a pause: it lies in another process, or in
/// files of another's, and nothing tells of it.
pub fn wait_looking(pause: Duration, what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() > end {
            return Err(format!("waited in vain for {what}").into());
        }
        std::thread::sleep(pause);
    }
    Ok(())
}

/// A program that answers each line after a pause; it goes on until this program ends.
pub fn serve_slowly(socket: &Path, pause: Duration) -> Result<()> {
    serve_each(socket, pause, b"done".to_vec())
}

/// A program that answers each line with this; it goes on until this program ends.
pub fn serve_with(socket: &Path, answer: Vec<u8>) -> Result<()> {
    serve_each(socket, Duration::ZERO, answer)
}

fn serve_each(socket: &Path, pause: Duration, mut answer: Vec<u8>) -> Result<()> {
    let listener = UnixListener::bind(socket)?;
    answer.push(b'\n');
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(std::io::Result::ok) {
            let answer = answer.clone();
            std::thread::spawn(move || answer_each(&stream, pause, &answer));
        }
    });
    Ok(())
}

fn answer_each(mut stream: &UnixStream, pause: Duration, answer: &[u8]) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        std::thread::sleep(pause);
        if stream.write_all(answer).is_err() {
            return;
        }
        line.clear();
    }
}
