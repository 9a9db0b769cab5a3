//! Settings: `lonnet.toml`, `hosts.tab` and `hosts.pins` as checked values.
//!
//! Owns the meaning of every key. Text becomes a type that cannot be wrong, once, here; nothing
//! behind this module sees an unparsed value. [`Config::load`] reports *all* errors of these files
//! at once, each as `file:line: what is wrong`, and touches nothing on disk.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `resolve` | [`Config::load`]: all files, and what only they together can tell |
//! | `salvage` | what the tools can go by while a file has mistakes: what is right in it, and what
//! a running program goes by |
//! | `warnings` | what is no error and yet hardly meant: warnings that name hosts |
//! | `settings` | `lonnet.toml`, each key by itself: its name, type and default |
//! | `handler` | `[handler.<name>]` |
//! | `package` | the files of `handlers.d` |
//! | `service` | `[service.<name>]` |
//! | `source` | the bytes of a file, as text and as TOML |
//! | `access` | who of the other hosts may ask what |
//! | `local` | `[[local]]`: who of this host may ask what |
//! | `section` | the keys of one table with their lines; what nobody asked for is unknown |
//! | `value` | one value to one checked type |
//! | `hosts` | `hosts.tab` |
//! | `pins` | `hosts.pins`: which pin is whose |
//! | `place` | where a path leads for good |
//! | `fixture` | settings for tests |
//! | `problem` | what is wrong, and where |

// A supervisor runs this: nothing here may panic, whatever comes from outside.
#![deny(clippy::indexing_slicing, clippy::string_slice)]

mod access;
pub mod fixture;
mod handler;
mod hosts;
mod local;
mod package;
mod pins;
mod place;
mod problem;
mod resolve;
mod salvage;
mod section;
mod service;
mod settings;
mod source;
mod value;
mod warnings;

pub use access::{Access, BUILTINS, Builtin, Entries, Judgement, Who};
pub use handler::{Form, Handler, Program, Run};
pub use hosts::{Host, Hosts, Role};
pub use local::{LocalRule, LocalRules, Unallowed, Whoever};
pub use pins::PinFile;
pub use place::settled;
pub use problem::{ConfigErrors, Place, Problem};
pub use salvage::{PeerAbout, Salvage, Whereabouts};
pub use service::{Restart, Service};
pub use source::{MAX_FILE, Source};

use base::{HostId, Pins, WireKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use store::spool::SpoolLimits;

/// Whether link children are confined (`sandbox`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// By what the kernel has.
    Auto,
    /// By all that can be, or nobody is served.
    Required,
    /// Not at all, for whoever looks for a mistake.
    Off,
}

/// Everything that the programs read from `lonnet.toml`, `hosts.tab` and `hosts.pins`, checked,
/// with defaults filled in and relative paths made absolute against the folder of the file.
#[derive(Debug, Clone)]
pub struct Config {
    /// Absolute path of the `lonnet.toml` that this was read from.
    pub file: PathBuf,
    /// This host's id; it has a line in [`Config::hosts`].
    pub id: HostId,
    /// The table of all hosts.
    pub hosts: Hosts,
    /// Path of `hosts.tab`.
    pub hosts_file: PathBuf,
    /// The pinned keys of the hosts; a file that is not there is an empty set.
    pub pins: Pins,
    /// Path of `hosts.pins`.
    pub pins_file: PathBuf,
    /// Folder of this host's own key.
    pub key_dir: PathBuf,
    /// Folder of the per-peer sockets, pid files and locks.
    pub run_dir: PathBuf,
    /// The delayed directory.
    pub spool_dir: PathBuf,
    /// Folder of `lonc.log`, `lond.log`, `lonnet.perm.log`.
    pub log_dir: PathBuf,
    /// Folder of the status files.
    pub status_dir: PathBuf,
    /// User to become when started as root; `None`: refuse to serve as root.
    pub user: Option<String>,
    /// What is logged: `error`, `warn`, `info` (default), `debug`.
    pub log_level: log::LevelFilter,
    /// Whether link children are confined.
    pub sandbox: Sandbox,
    /// How `lonc` deals with each other host: all of [`Config::hosts`] in its order, without this
    /// host itself. [`Config::peer`] counts on that.
    pub peers: Vec<Peer>,
    /// How `lond` serves.
    pub lond: Lond,
    /// What `lond` passes requests to, by request name; names are unique.
    pub handlers: Vec<Handler>,
    /// The files of `handlers.d` beside [`Config::file`].
    pub handler_files: Vec<PathBuf>,
    /// What `lond` answers itself, and to whom: all of [`BUILTINS`], in that order.
    pub builtins: Vec<Builtin>,
    /// Who of this host may ask which peer what.
    pub local: LocalRules,
    /// What `lonsvc` starts; names are unique.
    pub services: Vec<Service>,
    /// Where keys stand, by their names: see [`Config::place_of`].
    pub places: BTreeMap<String, Place>,
    /// What is no error and yet hardly meant, for `lon check` and the log.
    pub warnings: Vec<Problem>,
}

/// How `lonc` deals with one other host: `[lonc]` overlaid with `[host.<id>]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    /// The peer's line in `hosts.tab`.
    pub host: Host,
    /// Where its `lond` listens.
    pub target: Target,
    /// Address that the link is made from; `None`: any.
    pub bind: Option<IpAddr>,
    /// What is spoken on the link.
    pub wire: WireKind,
    /// How long a request may wait for its answer (default 300 s).
    pub request_timeout: Duration,
    /// How long the TCP connection may take to be made (default 20 s).
    pub connect_timeout: Duration,
    /// How long each step of the opening dialogue may take (default 20 s).
    pub opening_timeout: Duration,
    /// How long a child that was told to stop may go on answering what it has (default 5 s).
    pub drain_timeout: Duration,
    /// How long the link child looks again for what comes before it sleeps, while that is
    /// worth it: at most 1 ms (default: not at all).
    pub busy_poll: Duration,
    /// Permission bits of the peer's local socket (default 0660).
    pub socket_mode: u32,
    /// Longest request or answer line in bytes, its newline not counted (default 1 MiB).
    pub max_line: usize,
    /// On the secure wire: a link on which nothing was heard for so long is tried (default 15 s).
    pub heartbeat: Duration,
    /// After so many tries without a byte, one each `heartbeat`, it is dead (default 3).
    pub heartbeat_missed: u32,
    /// On the secure wire: bytes that the other side may send ahead of what was taken; at least
    /// `2 * max_line + 65536` (default 4 MiB, or that if it is more); with more than 6 MiB
    /// a process may come to hold more than 64 MiB.
    pub window: u32,
    /// Bounds of the peer's spool.
    pub spool: SpoolLimits,
}

/// Where a peer's `lond` is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The address is known.
    Address(SocketAddr),
    /// The table gives no address: look the name up before each dial.
    Lookup {
        /// Host name of the table.
        name: String,
        /// TCP port.
        port: u16,
    },
}

/// The `[lond]` table.
#[derive(Debug, Clone, PartialEq)]
pub struct Lond {
    /// Addresses to listen on (default `[::]:port`, with `port` from `[lonc]`).
    pub listen: Vec<SocketAddr>,
    /// Whether callers that speak the classic wire are served, known by their address (default:
    /// refused).
    pub classic: bool,
    /// Most connections that have not finished the opening dialogue (default 64); more are closed
    /// at once.
    pub max_opening: usize,
    /// How long the opening dialogue may take in all (default 10 s).
    pub opening_timeout: Duration,
    /// Longest request or answer line in bytes, its newline not counted (default 1 MiB).
    pub max_line: usize,
    /// On the secure wire: a link on which nothing was heard for so long is tried (default 15 s).
    pub heartbeat: Duration,
    /// After so many tries without a byte, one each `heartbeat`, it is dead (default 3).
    pub heartbeat_missed: u32,
    /// On the secure wire: bytes that the other side may send ahead of what was taken; at least
    /// `2 * max_line + 65536` (default 4 MiB, or that if it is more); with more than 6 MiB
    /// a process may come to hold more than 64 MiB.
    pub window: u32,
    /// Load average that counts as 100 % for the built-in `load` (default: the number of
    /// processors).
    pub full_load: f64,
    /// How long a child that was told to stop may go on answering what it has (default 5 s).
    pub drain_timeout: Duration,
    /// How long a link child looks again for what comes before it sleeps, while that is worth
    /// it: at most 1 ms (default: not at all).
    pub busy_poll: Duration,
    /// Bytes that the `log:` requests of one host may add to the log at once, over all its links;
    /// they come back evenly within a minute (default 4 MiB).
    pub log_quota: u64,
}

impl Config {
    /// The peer with this id, if the table has it and it is not this host.
    pub fn peer(&self, id: &HostId) -> Option<&Peer> {
        // The peers stand in the order of the table, of which this host alone is missing: so a peer
        // is at its host's place or one before, and the table's map serves for both.
        let place = self.hosts.place(id)?;
        [Some(place), place.checked_sub(1)]
            .into_iter()
            .flatten()
            .filter_map(|place| self.peers.get(place))
            .find(|peer| peer.host.id == *id)
    }

    /// Where a key stands, or else the nearest table around it that does: `user`, `lond.listen`,
    /// `handler.echo.socket`. `None` where nothing of it is in the files.
    pub fn place_of(&self, name: &str) -> Option<&Place> {
        let mut name = name;
        loop {
            match (self.places.get(name), name.rsplit_once('.')) {
                (Some(place), _) => return Some(place),
                (None, Some((above, _))) => name = above,
                (None, None) => return None,
            }
        }
    }

    /// Path of the peer's local socket.
    pub fn socket_path(&self, peer: &HostId) -> PathBuf {
        self.run_dir.join(peer.as_str())
    }

    /// Path of the peer's folder in the delayed directory.
    pub fn spool_path(&self, peer: &HostId) -> PathBuf {
        self.spool_dir.join(peer.as_str())
    }
}
