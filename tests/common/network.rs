//! Hosts with addresses of their own in 127.0.0.0/8, their configuration, and their programs.
//!
//! Everything is below one temporary folder: `hosts.tab` and a folder a host. A program is stopped
//! with TERM when its guard is dropped, and must obey; a network that goes away must not leave a
//! process behind.

use super::keys::Key;
use super::local::Local;
use super::program::Program;
use super::{process, wait};
use lonnet::net::listen::could_listen;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// Ports below those that the kernel hands out by itself, so that nothing else takes one meanwhile.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// Has programs be tried for 20 ms at HUP: most tests are not about the second that it takes
/// otherwise.
pub const TRIAL_LIFE: (&str, &str) = ("LONNET_TRIAL_LIFE", "20");

/// Whether the tests run as root; the programs then have to be told that this is meant.
pub fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Some hosts and the table that names them.
pub struct Network {
    dir: TempDir,
    places: BTreeMap<String, SocketAddr>,
    table: String,
    /// The hosts' keys; none: the network speaks the classic wire.
    keys: Option<BTreeMap<String, Key>>,
}

impl Network {
    /// A network of these hosts that speaks the classic wire.
    pub fn new<S: AsRef<str>>(ids: &[S]) -> Network {
        Network::placed(&anywhere(ids), false)
    }

    /// A network of these hosts that speaks the secure wire: each has a key, and all pins are known
    /// to all.
    pub fn secure<S: AsRef<str>>(ids: &[S]) -> Network {
        Network::placed(&anywhere(ids), true)
    }

    /// A network of hosts at these addresses, which need not be this machine's; secure or classic.
    pub fn placed(hosts: &[(&str, SocketAddr)], secure: bool) -> Network {
        let dir = tempfile::Builder::new().prefix("lonnet").tempdir().expect("make a folder");
        let keys = secure.then(BTreeMap::new);
        let mut network = Network { dir, places: BTreeMap::new(), table: String::new(), keys };
        hosts.iter().for_each(|(id, address)| network.add_at(id, *address));
        network
    }

    /// Puts one more host into the table.
    pub fn add(&mut self, id: &str) {
        self.add_at(id, free_address());
    }

    fn add_at(&mut self, id: &str, address: SocketAddr) {
        let role = if id.contains('l') { "library" } else { "access" };
        self.table.push_str(&format!("{id}:test:{role}:{id}.example:{}\n", address.ip()));
        self.places.insert(id.to_owned(), address);
        self.write_table(&self.table);
        if let Some(keys) = &mut self.keys {
            keys.insert(id.to_owned(), Key::new());
            self.write_pins(&self.pins());
        }
    }

    /// The key of a host of a secure network.
    pub fn key(&self, id: &str) -> Key {
        self.keys.as_ref().expect("a secure network")[id].clone()
    }

    /// The text of the shared `hosts.pins`: each host's pin.
    pub fn pins(&self) -> String {
        let keys = self.keys.iter().flatten();
        keys.map(|(id, key)| format!("{id} {}\n", key.pin())).collect()
    }

    /// Replaces the text of the shared `hosts.pins`.
    pub fn write_pins(&self, text: &str) {
        fs::write(self.dir.path().join("hosts.pins"), text).expect("write hosts.pins");
    }

    /// Replaces the table's text.
    pub fn write_table(&self, text: &str) {
        fs::write(self.dir.path().join("hosts.tab"), text).expect("write hosts.tab");
    }

    /// The temporary folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where a host's lond listens.
    pub fn address(&self, id: &str) -> SocketAddr {
        self.places[id]
    }

    /// A host of the table, with a folder and a configuration of its own.
    pub fn host(&self, id: &str) -> Host {
        let mut host =
            Host { dir: self.dir.path().join(id), address: self.places[id], settings: BTreeMap::new() };
        fs::create_dir_all(&host.dir).expect("make a host's folder");
        host.put("", "id", &quoted(id));
        host.put("", "hosts", "\"../hosts.tab\"");
        if root() {
            host.put("", "user", "\"root\"");
        }
        host.put("lonc", "bind", &quoted(&host.address.ip().to_string()));
        host.put("lonc", "connect_timeout", "\"2s\"");
        host.put("lonc", "opening_timeout", "\"3s\"");
        host.put("lonc", "drain_timeout", "\"1s\"");
        host.put("lond", "listen", &format!("[\"{}\"]", host.address));
        host.put("lond", "drain_timeout", "\"1s\"");
        match &self.keys {
            Some(keys) => {
                host.put("", "pins", "\"../hosts.pins\"");
                keys[id].write(&host.dir.join("keys"));
            }
            None => {
                host.put("lonc", "wire", "\"classic\"");
                host.put("lond", "classic", "\"allow\"");
            }
        }
        for (other, address) in self.places.iter().filter(|(other, _)| *other != id) {
            host.put(&format!("host.{other}"), "address", &quoted(&address.to_string()));
        }
        host.write();
        host
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let left = || process::with_files_in(self.dir.path());
        if !std::thread::panicking() {
            wait::until_true("no process to be left behind", || left().is_empty());
        }
        for pid in left() {
            process::signal(pid, Signal::SIGKILL);
        }
    }
}

/// Each host at an address of its own on this machine.
fn anywhere<S: AsRef<str>>(ids: &[S]) -> Vec<(&str, SocketAddr)> {
    ids.iter().map(|id| (id.as_ref(), free_address())).collect()
}

/// An address in 127.0.0.0/8 with a port that nothing listens on; random, so that tests don't meet.
fn free_address() -> SocketAddr {
    loop {
        let ip = Ipv4Addr::new(127, fastrand::u8(1..255), fastrand::u8(..), fastrand::u8(1..255));
        let address = SocketAddr::new(IpAddr::V4(ip), fastrand::u16(PORTS));
        // Not listened on for that: a program that another test is just starting would have a copy
        // of the socket for a moment, and the port would be taken for as long.
        if could_listen(address, &[]).is_ok() {
            return address;
        }
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// One host: its folder, its settings, its programs.
pub struct Host {
    pub dir: PathBuf,
    pub address: SocketAddr,
    /// By section and key; the section "" is the top of the file.
    settings: BTreeMap<String, BTreeMap<String, String>>,
}

impl Host {
    /// Sets a key, its value written as TOML, and writes the file.
    pub fn set(&mut self, section: &str, key: &str, value: &str) -> &mut Host {
        self.put(section, key, value);
        self.write();
        self
    }

    /// Takes a key away and writes the file.
    pub fn unset(&mut self, section: &str, key: &str) {
        self.settings.get_mut(section).and_then(|keys| keys.remove(key)).expect("a key that is set");
        self.write();
    }

    /// Has a table of its own, with this host and one other alone.
    pub fn know_only(&mut self, own: &str, other: &str, network: &Network) -> &mut Host {
        let lines = network.table.lines().filter(|line| {
            let id = line.split(':').next();
            id == Some(own) || id == Some(other)
        });
        let table: String = lines.flat_map(|line| [line, "\n"]).collect();
        fs::write(self.dir.join("hosts.tab"), table).expect("write hosts.tab");
        let its = format!("host.{other}");
        self.settings.retain(|section, _| !section.starts_with("host.") || *section == its);
        self.set("", "hosts", "\"hosts.tab\"")
    }

    /// Names a program that serves the requests `name` and `name:...`; gives the path of its
    /// socket.
    pub fn handler(&mut self, name: &str) -> PathBuf {
        let socket = self.dir.join(format!("{name}.program"));
        self.set(&format!("handler.{name}"), "socket", &quoted(&socket.to_string_lossy()));
        self.set(&format!("handler.{name}"), "allow", "[\"*\"]");
        socket
    }

    fn put(&mut self, section: &str, key: &str, value: &str) {
        self.settings.entry(section.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
    }

    fn write(&self) {
        let mut text = String::new();
        for (section, keys) in &self.settings {
            if !section.is_empty() {
                text.push_str(&format!("\n[{section}]\n"));
            }
            for (key, value) in keys {
                text.push_str(&format!("{key} = {value}\n"));
            }
        }
        // At one stroke: a program that is being started may read it just now.
        let new = self.dir.join(".lonnet.toml.new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, self.config())).expect("write lonnet.toml");
    }

    /// The path of the configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.join("lonnet.toml")
    }

    /// The path of a peer's local socket.
    pub fn socket(&self, peer: &str) -> PathBuf {
        self.dir.join("run").join(peer)
    }

    /// A peer's folder in the delayed directory.
    pub fn spool(&self, peer: &str) -> PathBuf {
        self.dir.join("delayed").join(peer)
    }

    /// The text of a log file; nothing when there is none yet.
    pub fn log(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join("log").join(name)).unwrap_or_default()).into_owned()
    }

    /// Lets everybody go through the folders above the local sockets.
    pub fn open_to_all(&self) {
        for folder in [self.dir.parent().expect("a folder above"), &self.dir, &self.dir.join("run")] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("open a folder");
        }
    }

    /// Connects to a peer's socket.
    pub fn connect(&self, peer: &str) -> Local {
        Local::connect(&self.socket(peer))
    }

    /// One request, its answer.
    pub fn ask(&self, peer: &str, request: &str) -> String {
        self.connect(peer).ask(request)
    }

    /// Runs `lon` to its end.
    pub fn lon(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lon"));
        command.arg("--config").arg(self.config()).args(arguments).stdin(Stdio::null());
        command.output().expect("run lon")
    }

    /// What `lon status --json` says of a peer just now; nothing when it says nothing.
    pub fn status(&self, peer: &str) -> Option<serde_json::Value> {
        peer_of(&self.whole_status()?, peer)
    }

    /// What `lon status --json` says just now; nothing when no broker answers.
    fn whole_status(&self) -> Option<serde_json::Value> {
        let output = self.lon(&["status", "--json"]);
        // With no broker to ask, it shows what the last one wrote.
        let said = output.status.success().then_some(output.stdout)?;
        Some(serde_json::from_slice(&said).expect("the status is JSON"))
    }

    /// What `lond` says of itself just now through its admin socket; nothing when it does not
    /// answer.
    pub fn lond_status(&self) -> Option<serde_json::Value> {
        let mut socket = Local::try_connect(&self.dir.join("run/lond.sock")).ok()?;
        let said = socket.try_ask("status").ok()?;
        Some(serde_json::from_str(&said).expect("the status is JSON"))
    }

    /// What `status.json` says of a peer.
    pub fn status_file(&self, peer: &str) -> Option<serde_json::Value> {
        let bytes = fs::read(self.dir.join("status/status.json")).ok()?;
        peer_of(&serde_json::from_slice(&bytes).expect("status.json is JSON"), peer)
    }

    /// Waits until the link to a peer is in this state.
    pub fn wait_link(&self, peer: &str, state: &str) {
        wait::until_true(&format!("the link to {peer} to be {state}"), || {
            self.status(peer).is_some_and(|status| status["state"] == state)
        });
    }

    /// Waits until nothing is stored for a peer any more. While its child starts nobody has counted
    /// yet, so that only a link that is up says so.
    pub fn wait_delivered(&self, peer: &str) {
        wait::until_true(&format!("all that was stored for {peer} to be delivered"), || {
            self.status(peer).is_some_and(|status| status["state"] == "up" && status["delayed"] == 0)
        });
    }

    /// The command that starts a program of this host.
    pub fn command(&self, program: &str) -> Command {
        let path = match program {
            "lonc" => env!("CARGO_BIN_EXE_lonc"),
            "lond" => env!("CARGO_BIN_EXE_lond"),
            other => panic!("no program {other}"),
        };
        self.command_of(path.as_ref())
    }

    fn command_of(&self, path: &OsStr) -> Command {
        let mut command = Command::new(path);
        command.arg("--config").arg(self.config()).stdin(Stdio::null());
        command.env(TRIAL_LIFE.0, TRIAL_LIFE.1);
        command
    }

    /// Starts `lonc` and waits until it serves.
    pub fn lonc(&self) -> Program {
        self.start(self.command("lonc"), "lonc")
    }

    /// Starts `lond` and waits until it listens.
    pub fn lond(&self) -> Program {
        let program = self.start(self.command("lond"), "lond");
        wait::until_true("lond to listen", || process::listens(self.address));
        program
    }

    /// Starts a program in the foreground and waits until its pid file is there and, for `lonc`,
    /// its sockets are.
    pub fn start(&self, mut command: Command, name: &'static str) -> Program {
        let errors = self.dir.join(format!("{name}.stderr"));
        let mut program = Program::start(command.arg("--foreground"), name, errors, self.pid_file(name));
        if name == "lonc" {
            let others = self.settings.keys().filter_map(|section| section.strip_prefix("host."));
            for peer in others {
                wait::until_true(&format!("the socket of {peer}"), || {
                    program.assert_running();
                    Local::try_connect(&self.socket(peer)).is_ok()
                });
            }
        }
        program
    }

    /// The path of a program's pid file.
    pub fn pid_file(&self, name: &str) -> PathBuf {
        self.dir.join("run").join(format!("{name}.pid"))
    }
}

fn peer_of(snapshot: &serde_json::Value, peer: &str) -> Option<serde_json::Value> {
    snapshot["peers"].as_array()?.iter().find(|status| status["peer"] == peer).cloned()
}
