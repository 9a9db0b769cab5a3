//! A folder with the files, and what `Config::load` says of them.

use lonnet::base::HostId;
use lonnet::config::Config;
use std::fs;
use std::path::PathBuf;

/// A folder with a `lonnet.toml` and a `hosts.tab`.
pub struct Folder(tempfile::TempDir);

pub const HOSTS: &str = "msul1:msu:library:zaphod:127.0.0.2\nmsua1:msu:access:agrajag:127.0.0.3\n";

impl Folder {
    pub fn new(toml: &str, hosts: &str) -> Folder {
        let folder = Folder(tempfile::tempdir().expect("a temporary folder"));
        fs::write(folder.toml(), toml).expect("lonnet.toml is written");
        fs::write(folder.0.path().join("hosts.tab"), hosts).expect("hosts.tab is written");
        folder
    }

    /// Puts a `hosts.pins` beside them.
    pub fn with_pins(self, pins: &str) -> Folder {
        fs::write(self.path("hosts.pins"), pins).expect("hosts.pins is written");
        self
    }

    pub fn toml(&self) -> PathBuf {
        self.0.path().join("lonnet.toml")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn load(&self) -> Config {
        Config::load(&self.toml()).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// All problems, without the folder's name.
    pub fn problems(&self) -> Vec<String> {
        match Config::load(&self.toml()) {
            Ok(config) => panic!("no problem found; warnings: {:?}", config.warnings),
            Err(errors) => errors.0.iter().map(|problem| self.shorten(&problem.to_string())).collect(),
        }
    }

    pub fn warnings(&self) -> Vec<String> {
        self.load().warnings.iter().map(|warning| self.shorten(&warning.to_string())).collect()
    }

    pub fn shorten(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

pub fn id(text: &str) -> HostId {
    HostId::new(text).expect("an id")
}

/// Every key that there is, none with its default.
pub const EVERY_KEY: &str = r#"
id = "msua1"
hosts = "hosts.tab"
pins = "/etc/pins"
key_dir = "k"
run_dir = "r"
spool_dir = "s"
log_dir = "l"
status_dir = "st"
user = "www"
log_level = "debug"
sandbox = "required"

[lonc]
port = 7663
bind = "127.0.0.3"
wire = "classic"
request_timeout = "5m"
connect_timeout = "500ms"
opening_timeout = "2s"
drain_timeout = "0s"
busy_poll = "30us"
socket_mode = "0600"
max_line = "64KiB"
heartbeat = "3s"
heartbeat_missed = 2
window = "192KiB"
spool_messages = 10
spool_bytes = "2 MiB"
spool_keep_free = 0

[lond]
listen = ["127.0.0.3:5663", "[::1]:5664", "127.0.0.4"]
classic = "allow"
max_opening = 5
opening_timeout = "3s"
max_line = 4096
heartbeat = "4s"
heartbeat_missed = 5
window = 100000
full_load = 2.5
drain_timeout = "1s"
busy_poll = "1ms"
log_quota = "64KiB"

[handler.echo]
socket = "app.sock"
allow = ["msul1", "role:library", "domain:msu"]
deny = ["msua1"]
private_only = true
timeout = "10s"
format = "tagged"
window = 3

[[local]]
peers = ["msul1"]
commands = ["echo", "log"]
allow = ["user:33", "group:root"]
critical = ["*"]

[builtin.log]
allow = ["msul1"]
deny = ["role:access"]

[service.jobs]
command = ["bin/jobs", "-v"]
user = "nobody"
dir = "work"
env = { PATH = "/bin", TZ = "UTC" }
restart = "on-failure"
drain_timeout = "3s"
open_files = 100
memory = "1GiB"
"#;
