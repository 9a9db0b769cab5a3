//! `lon init DIR --id ID`: a folder with a configuration to start from, which passes `lon check`.
//!
//! All or nothing: what was made is taken away again when a later step fails, and nothing else is; no file that is
//! there already is touched.

use super::{Failure, print};
use crate::config::{Config, HostId};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Folder of this host's key, for its owner alone. The other folders are made by `lonc` and `lond`, which know which
/// user they become.
const KEYS: (&str, u32) = ("keys", 0o700);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Folder to make; it may exist, but not the files in it.
    dir: PathBuf,
    /// This host's id.
    #[arg(long)]
    id: String,
    /// Its domain.
    #[arg(long, default_value = "local")]
    domain: String,
    /// What it is for.
    #[arg(long, default_value = "library")]
    role: String,
    /// Its name in the DNS.
    #[arg(long, default_value = "localhost")]
    name: String,
    /// Its address.
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
    let mut make = || -> Result<(), (PathBuf, io::Error)> {
        made.folders(dir, 0o755)?;
        made.file(&settings, &settings_text(&id, arguments))?;
        made.file(&dir.join("hosts.tab"), &hosts_text(&id, arguments))?;
        made.folder(&dir.join(KEYS.0), KEYS.1)
    };
    make().map_err(|(path, error)| Failure::did("make", path.display(), error))?;
    // The other arguments are checked where all that they become is checked.
    Config::load(&settings)?;
    made.keep();
    let text = format!(
        "made {}\nnext: add the other hosts to {}, then: lon --config {} check\n",
        settings.display(),
        dir.join("hosts.tab").display(),
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
    /// Makes a file that must not exist.
    fn file(&mut self, path: &Path, text: &str) -> Result<(), (PathBuf, io::Error)> {
        let blame = |error| (path.to_owned(), error);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).map_err(blame)?;
        self.folders_and_files.push((path.to_owned(), Kind::File));
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(blame)
    }

    /// Makes a folder, if it is not there.
    fn folder(&mut self, path: &Path, mode: u32) -> Result<(), (PathBuf, io::Error)> {
        match DirBuilder::new().mode(mode).create(path) {
            Ok(()) => self.folders_and_files.push((path.to_owned(), Kind::Folder)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(error) => return Err((path.to_owned(), error)),
        }
        Ok(())
    }

    /// Makes a folder and those above it that are not there.
    fn folders(&mut self, path: &Path, mode: u32) -> Result<(), (PathBuf, io::Error)> {
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
            // The failure that led here is what is reported; a folder that others have filled meanwhile stays.
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

fn settings_text(id: &HostId, arguments: &Arguments) -> String {
    let Arguments { address, port, .. } = arguments;
    let listen = SocketAddr::new(*address, *port);
    format!(
        r#"# lonnet: see etc/lonnet.toml of the package for every key. Relative paths begin at this file's folder.

id = "{id}"             # this host's line in hosts.tab
hosts = "hosts.tab"     # id:domain:role:hostname:ip, one host a line
pins = "hosts.pins"     # the keys of the hosts, for the secure wire
key_dir = "keys"
run_dir = "run"         # the socket of each peer: echo ping | nc -U run/<id>
spool_dir = "delayed"   # messages that wait for their host
log_dir = "log"
status_dir = "status"
# user = "www"          # become this user when started as root; without it lonc and lond refuse to serve as root

[lonc]
port = {port}             # where every host's lond listens
# bind = "{address}"    # the address that links are made from: set it where this host has several
wire = "classic"        # NOT PRIVATE: whoever can listen on the network can read it. The only wire of this version
request_timeout = "300s"
socket_mode = "0660"

[lond]
listen = ["{listen}"]
classic = "allow"       # NOT PRIVATE, and a caller is known by its address alone: only for networks that you trust

# [host.other]          # anything of [lonc], for one host
# address = "192.0.2.7:5663"

# [handler.echo]        # requests `echo` and `echo:...` go to a program of yours: a line each way, in order
# socket = "/run/echo.sock"
# allow = ["*"]         # or ids, "role:library", "domain:local"
# timeout = "60s"
"#
    )
}
