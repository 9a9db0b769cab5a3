//! What a link child of `lond` depends on, and who may call: both handed over at the fork.
//!
//! [`ServeSettings`] are the same for every link: a reload ends all of them where these are no
//! longer equal in more than in who may ask what; that the children are told. A [`Directory`] is
//! what callers are found in; a link depends on what it has of its own caller ([`CallerSettings`]),
//! and on no other host. So a setting that a child can see is one that is compared.

use base::{HostId, Pin, Pins, WireKind};
use config::{Access, Builtin, Config, Handler, Host, Hosts, Sandbox};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use supervise::own_key::OwnKey;
use wire::secure::Admission;

/// See the head of this file.
#[derive(Debug, Clone, PartialEq)]
pub struct ServeSettings {
    /// This host.
    pub id: HostId,
    /// Where `lonc`'s sockets are.
    pub run_dir: PathBuf,
    /// Where the records of critical messages are.
    pub spool_dir: PathBuf,
    /// What is logged.
    pub log_level: log::LevelFilter,
    /// Whether link children are confined.
    pub sandbox: Sandbox,
    /// What requests are passed to.
    pub handlers: Vec<Handler>,
    /// What is answered without one, and to whom.
    pub builtins: Vec<Builtin>,
    /// How long the opening dialogue may take in all.
    pub opening_timeout: Duration,
    /// Longest request or answer line in bytes.
    pub max_line: usize,
    /// A link on which nothing was heard for so long is tried.
    pub heartbeat: Duration,
    /// After so many tries without a byte it is dead.
    pub heartbeat_missed: u32,
    /// Bytes that the caller may send ahead of what was taken.
    pub window: u32,
    /// Load average that counts as 100 %.
    pub full_load: f64,
    /// How long a child that was told to stop may go on.
    pub drain_timeout: Duration,
    /// How long a link child looks again before it sleeps.
    pub busy_poll: Duration,
    /// Bytes that one host may have logged at once.
    pub log_quota: u64,
}

impl ServeSettings {
    /// What `config` says.
    pub fn of(config: &Config) -> ServeSettings {
        let lond = &config.lond;
        ServeSettings {
            id: config.id.clone(),
            run_dir: config.run_dir.clone(),
            spool_dir: config.spool_dir.clone(),
            log_level: config.log_level,
            sandbox: config.sandbox,
            handlers: config.handlers.clone(),
            builtins: config.builtins.clone(),
            opening_timeout: lond.opening_timeout,
            max_line: lond.max_line,
            heartbeat: lond.heartbeat,
            heartbeat_missed: lond.heartbeat_missed,
            window: lond.window,
            full_load: lond.full_load,
            drain_timeout: lond.drain_timeout,
            busy_poll: lond.busy_poll,
            log_quota: lond.log_quota,
        }
    }
}

impl ServeSettings {
    /// Whether `next` differs in more than in who may ask what, which a child can be told.
    pub fn differ_beyond_access(&self, next: &ServeSettings) -> bool {
        let mut same = self.clone();
        same.builtins.clone_from(&next.builtins);
        for (own, its) in same.handlers.iter_mut().zip(&next.handlers) {
            own.access.clone_from(&its.access);
        }
        same != *next
    }

    /// Whether someone may ask what that host might not, or the other way round.
    pub fn differ_in_access(&self, next: &ServeSettings) -> bool {
        let access = |settings: &ServeSettings| -> Vec<Access> {
            let handlers = settings.handlers.iter().map(|handler| handler.access.without_places());
            handlers.chain(settings.builtins.iter().map(|own| own.access.without_places())).collect()
        };
        access(self) != access(next)
    }
}

/// What a link depends on of its own caller.
#[derive(Debug, Clone, PartialEq)]
pub struct CallerSettings {
    /// Its line of the table; which line that is, is not told.
    host: Host,
    /// By which key it knows this host, on the secure wire.
    own_pin: Option<Pin>,
}

/// Who may call, by which key or address, and what they are shown.
#[derive(Debug, Clone)]
pub struct Directory {
    /// For the tables alone, which are large and in the memory that a child has of its parent.
    config: Arc<Config>,
    /// Made once for all who call. An error: the secure wire cannot be served.
    admission: Result<Admission, String>,
}

impl Directory {
    /// Of `config`. The key is shown to hosts that are both in the table and in the pins.
    pub fn new(config: Arc<Config>, key: &OwnKey) -> Directory {
        let admission = key.identity().map_err(str::to_owned).and_then(|identity| {
            // This host does not call itself: who shows its key does not belong here.
            let others = config.hosts.iter().filter(|host| host.id != config.id);
            let pins =
                others.flat_map(|host| config.pins.of(&host.id).iter().map(|pin| (host.id.clone(), *pin)));
            Admission::new(identity, Pins::from_pairs(pins)).map_err(|error| error.to_string())
        });
        Directory { config, admission }
    }

    /// This host.
    pub fn id(&self) -> &HostId {
        &self.config.id
    }

    /// The table.
    pub fn hosts(&self) -> &Hosts {
        &self.config.hosts
    }

    /// Where the table is.
    pub fn hosts_file(&self) -> &Path {
        &self.config.hosts_file
    }

    /// Where the log is.
    pub fn log_dir(&self) -> &Path {
        &self.config.log_dir
    }

    /// All pins, also of hosts that may not call.
    pub fn pins(&self) -> &Pins {
        &self.config.pins
    }

    /// Whether the classic wire is served.
    pub fn classic(&self) -> bool {
        self.config.lond.classic
    }

    /// Who is taken on the secure wire.
    ///
    /// # Errors
    /// It cannot be served, whoever calls; why.
    pub fn admission(&self) -> Result<&Admission, &str> {
        self.admission.as_ref().map_err(String::as_str)
    }

    /// Wipes this host's key in this process, which shows it to nobody more.
    pub fn forget_key(&self) {
        self.admission.iter().for_each(Admission::forget_key);
    }

    /// What a link to `caller` depends on, if it is a host.
    pub fn caller(&self, caller: &HostId, wire: WireKind) -> Option<CallerSettings> {
        let host = Host { line: 0, ..self.hosts().get(caller)?.clone() };
        let own_pin = match wire {
            WireKind::Secure => self.admission.as_ref().ok().map(Admission::own_pin),
            WireKind::Classic => None,
        };
        Some(CallerSettings { host, own_pin })
    }
}

/// Two are the same if each caller is taken by one as by the other.
impl PartialEq for Directory {
    fn eq(&self, other: &Directory) -> bool {
        let own = |directory: &Directory| directory.admission().map(Admission::own_pin).ok();
        own(self) == own(other)
            && (self.id(), self.classic()) == (other.id(), other.classic())
            && self.pins() == other.pins()
            && self.hosts().iter().eq(other.hosts().iter())
    }
}
