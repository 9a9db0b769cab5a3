//! `lon init DIR --id ID`: a folder with a configuration and a key to start from, which passes `lon
//! check`.
//!
//! All or nothing: what was made is taken away again when a later step fails, and nothing else is;
//! no file that is there already is touched.

use super::{Failure, print};
use base::disk::own::OwnFile;
use base::{HostId, Pin};
use config::Config;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use wire::secure::{HostKey, KeyError, KeyFile};

/// Folder of this host's key, for its owner alone. The other folders are made by `lonc` and `lond`,
/// which know which user they become.
const KEYS: (&str, u32) = ("keys", 0o700);

/// Permission bits of the files: the user that the programs become must be able to read them,
/// whoever made them.
const FILE_MODE: u32 = 0o644;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Folder to make; it may exist, but not the files in it.
    dir: PathBuf,
    /// This host's id in hosts.tab: short, the same on every host.
    #[arg(long)]
    id: String,
    /// Its domain.
    #[arg(long, default_value = "local")]
    domain: String,
    /// What it is for, by which handlers may let it ask ("role:library").
    #[arg(long, default_value = "library")]
    role: String,
    /// Its name in the DNS.
    #[arg(long, default_value = "localhost")]
    name: String,
    /// Its IP address, where the other hosts reach its lond.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// The port of every host's lond.
    #[arg(long, default_value_t = 5663, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let dir = &arguments.dir;
    let id = HostId::new(&arguments.id).map_err(Failure::Usage)?;
    let settings = dir.join("lonnet.toml");
    let mut made = Made::default();
    let pins = dir.join("hosts.pins");
    let mut make = || -> Result<Pin, Failure> {
        made.folders(dir, 0o755)?;
        made.file(&settings, &settings_text(&id, arguments))?;
        made.file(&dir.join("hosts.tab"), &hosts_text(&id, arguments))?;
        made.folder(&dir.join(KEYS.0), KEYS.1)?;
        let pin = made.key(&dir.join(KEYS.0))?;
        made.file(&pins, &pins_text(&id, pin))?;
        Ok(pin)
    };
    let pin = make()?;
    // The other arguments are checked where all that they become is checked.
    Config::load(&settings)?;
    made.keep();
    let text = format!(
        "made {}, and a key; this host's line of hosts.pins, on every host:\n{id} {pin}\n\
         next: add the other hosts to {} and {}, then: lon --config {} check\n",
        settings.display(),
        dir.join("hosts.tab").display(),
        pins.display(),
        settings.display()
    );
    print(text.as_bytes())?;
    Ok(0)
}

/// What this run made, the oldest first; taken away when dropped, unless it is kept.
#[derive(Default)]
struct Made {
    folders_and_files: Vec<(PathBuf, Kind)>,
}

enum Kind {
    Folder,
    File,
}

impl Made {
    /// Makes a file that must not exist; it is there whole or not at all.
    fn file(&mut self, path: &Path, text: &str) -> Result<(), Failure> {
        let blame = |error| Failure::did("make", path.display(), error);
        let new = OwnFile::create(path, FILE_MODE).map_err(blame)?;
        new.file().write_all(text.as_bytes()).and_then(|()| new.file().sync_all()).map_err(blame)?;
        new.place().map_err(blame)?;
        self.folders_and_files.push((path.to_owned(), Kind::File));
        Ok(())
    }

    /// Makes this host's key, which must not exist.
    fn key(&mut self, key_dir: &Path) -> Result<Pin, KeyError> {
        let key = HostKey::make(key_dir)?;
        self.folders_and_files.push((KeyFile::Current.path(key_dir), Kind::File));
        Ok(key.pin())
    }

    /// Makes a folder, if it is not there.
    fn folder(&mut self, path: &Path, mode: u32) -> Result<(), Failure> {
        match DirBuilder::new().mode(mode).create(path) {
            Ok(()) => self.folders_and_files.push((path.to_owned(), Kind::Folder)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(error) => return Err(Failure::did("make", path.display(), error)),
        }
        Ok(())
    }

    /// Makes a folder and those above it that are not there.
    fn folders(&mut self, path: &Path, mode: u32) -> Result<(), Failure> {
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() && !path.exists() => self.folders(parent, mode)?,
            Some(_) | None => {}
        }
        self.folder(path, mode)
    }

    fn keep(mut self) {
        self.folders_and_files.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for (path, kind) in self.folders_and_files.iter().rev() {
            // The failure that led here is what is reported; a folder that others have filled
            // meanwhile stays.
            let _ = match kind {
                Kind::Folder => fs::remove_dir(path),
                Kind::File => fs::remove_file(path),
            };
        }
    }
}

fn hosts_text(id: &HostId, arguments: &Arguments) -> String {
    let Arguments { domain, role, name, address, .. } = arguments;
    let address = match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    format!(
        "# The hosts of the network, one a line, the same file on each host:\n\
         # id:domain:role:hostname:ip\n\
         # An IPv6 address stands in brackets; without an address the host name is looked up.\n\
         {id}:{domain}:{role}:{name}:{address}\n"
    )
}

fn pins_text(id: &HostId, pin: Pin) -> String {
    format!(
        "# The keys of the hosts, the same file on each host: id sha256:BASE64, as lon pin prints it there.\n\
         # Several lines for one id while its keys change over: lon rotate.\n\
         {id} {pin}\n"
    )
}

fn settings_text(id: &HostId, arguments: &Arguments) -> String {
    let Arguments { address, port, .. } = arguments;
    let listen = SocketAddr::new(*address, *port);
    format!(
        r#"# lonnet: see etc/lonnet.toml of the package for every key. Relative paths begin at this file's folder.

id = "{id}"             # this host's line in hosts.tab
hosts = "hosts.tab"     # id:domain:role:hostname:ip, one host a line
pins = "hosts.pins"     # the keys of the hosts: id sha256:BASE64, a line each, as lon pin prints it
key_dir = "keys"
run_dir = "run"         # the socket of each peer: echo ping | nc -U run/<id>
spool_dir = "delayed"   # messages that wait for their host
log_dir = "log"
status_dir = "status"
# user = "www"          # become this user when started as root; without it lonc and lond refuse to serve as root

[lonc]
port = {port}             # where every host's lond listens
# bind = "{address}"    # the address that links are made from: set it where this host has several
wire = "secure"         # TLS 1.3 between the keys in hosts.pins
# wire = "classic"      # NOT PRIVATE: for hosts that speak nothing else; better host by host, below
request_timeout = "300s"
socket_mode = "0660"

[lond]
listen = ["{listen}"]
# classic = "allow"     # NOT PRIVATE, and a caller is known by its address alone: only for networks that you trust

# [host.other]          # anything of [lonc], for one host
# address = "192.0.2.7:5663"
# wire = "classic"      # NOT PRIVATE

# [handler.echo]        # requests `echo` and `echo:...` go to a program of yours: a line each way, in order
# socket = "/run/echo.sock"
# allow = ["*"]         # ids, "role:library", "domain:local"; without this key nobody may ask it
# timeout = "60s"
"#
    )
}
