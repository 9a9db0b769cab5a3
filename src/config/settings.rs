//! `lonnet.toml`, each key by itself: its name, its type, its default.
//!
//! [`Settings::read`] goes on after a problem, so that all are reported at once. What only
//! `hosts.tab` can tell is checked in `resolve`.

use super::access::{Builtin, read_builtins};
use super::handler::{HandlerSettings, read_handlers};
use super::local::{LocalRules, read_local};
use super::problem::Place;
use super::section::{Placed, Report, Section, places};
use super::service::{Service, read_services};
use super::value::{self, Address};
use super::{Lond, Sandbox};
use base::{HostId, WireKind};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use store::spool::SpoolLimits;
use toml::de::DeTable;
use wire::secure::least_window;

pub(super) const DEFAULT_HOSTS: &str = "hosts.tab";
const DEFAULT_PORT: u16 = 5663;
const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const DEFAULT_STEP_TIMEOUT: Duration = Duration::from_secs(20);
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_SOCKET_MODE: u32 = 0o660;
const DEFAULT_MAX_LINE: usize = 1024 * 1024;
const DEFAULT_SPOOL: SpoolLimits = SpoolLimits { messages: 1_000_000, bytes: 1 << 30, keep_free: 64 << 20 };
/// By default no more than this part of a small file system is kept free: else nothing could be
/// delayed on it at all.
const KEPT_FREE_PART: u64 = 16;
const DEFAULT_MAX_OPENING: usize = 64;
const DEFAULT_ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(15);
const DEFAULT_HEARTBEAT_MISSED: u32 = 3;
/// The window where it is not less than the longest line needs.
const DEFAULT_WINDOW: usize = 4 * 1024 * 1024;
/// Longest window of which nothing is said where the longest line needs no more: a flood of the
/// shortest requests costs a child several times as much, and it is to hold 64 MiB at most.
const USUAL_WINDOW: usize = 6 * 1024 * 1024;
const DEFAULT_LOG_QUOTA: u64 = 4 << 20;

/// The file as it stands: defaults filled in, relative paths still relative.
#[derive(Debug)]
pub(super) struct Settings {
    /// `None`: missing or wrong, which is reported.
    pub id: Option<Placed<HostId>>,
    pub hosts: PathBuf,
    pub pins: PathBuf,
    /// Line of `pins`, if it is there.
    pub pins_line: Option<usize>,
    pub key_dir: PathBuf,
    pub run_dir: PathBuf,
    /// Line of `run_dir`, if it is there.
    pub run_dir_line: Option<usize>,
    pub spool_dir: PathBuf,
    pub log_dir: PathBuf,
    pub status_dir: PathBuf,
    pub user: Option<String>,
    pub log_level: log::LevelFilter,
    pub sandbox: Sandbox,
    pub lonc: Overlay,
    /// Line of `[lonc]`, if it is there.
    pub lonc_line: Option<usize>,
    /// `[host.<id>]`, with the line of each header.
    pub host: Vec<(Placed<HostId>, Overlay)>,
    pub lond: Lond,
    pub handlers: Vec<HandlerSettings>,
    /// The files of `handlers.d`.
    pub handler_files: Vec<PathBuf>,
    /// `[builtin.<name>]`, with where each begins.
    pub builtins: Vec<(Builtin, Place)>,
    pub local: LocalRules,
    pub services: Vec<Service>,
    /// Where keys stand, see [`super::section::places`].
    pub places: BTreeMap<String, Place>,
    /// The top of the file has a key that there is not: one of the others may have been meant.
    pub unknown_key: bool,
}

/// `[lonc]`, or a `[host.<id>]` that lies over it: what is `None` is left to what lies below.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// In `[host.<id>]` only.
    pub address: Option<Address>,
    pub port: Option<u16>,
    pub bind: Option<Placed<IpAddr>>,
    pub wire: Option<Placed<WireKind>>,
    pub request_timeout: Option<Duration>,
    pub connect_timeout: Option<Duration>,
    pub opening_timeout: Option<Duration>,
    pub drain_timeout: Option<Duration>,
    pub busy_poll: Option<Duration>,
    pub socket_mode: Option<u32>,
    pub max_line: Option<usize>,
    pub heartbeat: Option<Duration>,
    pub heartbeat_missed: Option<u32>,
    pub window: Option<Placed<u32>>,
    pub spool_messages: Option<u64>,
    pub spool_bytes: Option<u64>,
    pub spool_keep_free: Option<u64>,
}

impl Settings {
    /// Takes every key; what is wrong or unknown goes to the report.
    pub(super) fn read(document: &DeTable<'_>, file: &Path, report: &mut Report) -> Settings {
        let mut top = Section::top(document, report);
        let path = |top: &mut Section<'_>, report: &mut Report, key: &str, default: &str| {
            top.take(report, key, value::path).unwrap_or_else(|| PathBuf::from(default))
        };
        let hosts = path(&mut top, report, "hosts", DEFAULT_HOSTS);
        let pins = top.take_placed(report, "pins", value::path);
        let key_dir = path(&mut top, report, "key_dir", "keys");
        let spool_dir = path(&mut top, report, "spool_dir", "delayed");
        let log_dir = path(&mut top, report, "log_dir", "log");
        let status_dir = path(&mut top, report, "status_dir", "status");
        let run_dir = top.take_placed(report, "run_dir", value::path);
        if !top.has("id") {
            report.problem(None, "id: is missing: this host's id in hosts.tab".into());
        }
        let id = top.take_placed(report, "id", value::host_id);
        let user = top.take(report, "user", value::text);
        let log_level = top.take(report, "log_level", value::log_level).unwrap_or(log::LevelFilter::Info);
        let sandbox = top.take(report, "sandbox", value::sandbox).unwrap_or(Sandbox::Auto);

        let mut lonc = top.table(report, "lonc");
        let lonc_line = lonc.line;
        let lonc_keys = Overlay::read(&mut lonc, report);
        lonc.finish(report);
        let host = read_hosts(top.table(report, "host"), report);
        let lond = read_lond(top.table(report, "lond"), lonc_keys.port(), report);
        let handlers = read_handlers(top.table(report, "handler"), file, Path::new(""), report);
        let builtins = read_builtins(top.table(report, "builtin"), report);
        let local = read_local(top.array(report, "local"), report);
        let services = read_services(top.table(report, "service"), report);
        let unknown_key = top.has_more();
        top.finish(report);
        let places = places(document, report);
        Settings {
            id,
            hosts,
            pins_line: pins.as_ref().map(|pins| pins.line),
            pins: pins.map_or_else(|| PathBuf::from("hosts.pins"), |pins| pins.value),
            key_dir,
            run_dir_line: run_dir.as_ref().map(|run_dir| run_dir.line),
            run_dir: run_dir.map_or_else(|| PathBuf::from("run"), |run_dir| run_dir.value),
            spool_dir,
            log_dir,
            status_dir,
            user,
            log_level,
            sandbox,
            lonc: lonc_keys,
            lonc_line,
            host,
            lond,
            handlers,
            handler_files: Vec::new(),
            builtins,
            local,
            services,
            places,
            unknown_key,
        }
    }
}

impl Overlay {
    /// Takes the keys that `[lonc]` and `[host.<id>]` share.
    fn read(section: &mut Section<'_>, report: &mut Report) -> Overlay {
        Overlay {
            address: None,
            port: section.take(report, "port", value::port),
            bind: section.take_placed(report, "bind", value::ip),
            wire: section.take_placed(report, "wire", value::wire),
            request_timeout: section.take(report, "request_timeout", value::duration),
            connect_timeout: section.take(report, "connect_timeout", value::duration),
            opening_timeout: section.take(report, "opening_timeout", value::duration),
            drain_timeout: section.take(report, "drain_timeout", value::duration_or_zero),
            busy_poll: section.take(report, "busy_poll", value::moment),
            socket_mode: section.take(report, "socket_mode", value::mode),
            max_line: section.take(report, "max_line", value::max_line),
            heartbeat: section.take(report, "heartbeat", value::duration),
            heartbeat_missed: section.take(report, "heartbeat_missed", value::few),
            window: section.take_placed(report, "window", value::window),
            spool_messages: section.take(report, "spool_messages", value::count),
            spool_bytes: section.take(report, "spool_bytes", value::positive_size),
            spool_keep_free: section.take(report, "spool_keep_free", value::size),
        }
    }

    /// This one laid over `below`.
    pub(super) fn over(&self, below: &Overlay) -> Overlay {
        Overlay {
            address: self.address.or(below.address),
            port: self.port.or(below.port),
            bind: self.bind.or(below.bind),
            wire: self.wire.or(below.wire),
            request_timeout: self.request_timeout.or(below.request_timeout),
            connect_timeout: self.connect_timeout.or(below.connect_timeout),
            opening_timeout: self.opening_timeout.or(below.opening_timeout),
            drain_timeout: self.drain_timeout.or(below.drain_timeout),
            busy_poll: self.busy_poll.or(below.busy_poll),
            socket_mode: self.socket_mode.or(below.socket_mode),
            max_line: self.max_line.or(below.max_line),
            heartbeat: self.heartbeat.or(below.heartbeat),
            heartbeat_missed: self.heartbeat_missed.or(below.heartbeat_missed),
            window: self.window.or(below.window),
            spool_messages: self.spool_messages.or(below.spool_messages),
            spool_bytes: self.spool_bytes.or(below.spool_bytes),
            spool_keep_free: self.spool_keep_free.or(below.spool_keep_free),
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.port.unwrap_or(DEFAULT_PORT)
    }

    /// Where links are made from; `0.0.0.0` and `[::]` mean any address.
    pub(super) fn bind(&self) -> Option<IpAddr> {
        self.bind.map(|bind| bind.value).filter(|address| !address.is_unspecified())
    }

    pub(super) fn wire(&self) -> WireKind {
        self.wire.map_or(WireKind::Secure, |wire| wire.value)
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.request_timeout.unwrap_or(DEFAULT_REQUEST_TIMEOUT)
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT)
    }

    pub(super) fn opening_timeout(&self) -> Duration {
        self.opening_timeout.unwrap_or(DEFAULT_STEP_TIMEOUT)
    }

    pub(super) fn drain_timeout(&self) -> Duration {
        self.drain_timeout.unwrap_or(DEFAULT_DRAIN_TIMEOUT)
    }

    pub(super) fn busy_poll(&self) -> Duration {
        self.busy_poll.unwrap_or_default()
    }

    pub(super) fn socket_mode(&self) -> u32 {
        self.socket_mode.unwrap_or(DEFAULT_SOCKET_MODE)
    }

    pub(super) fn max_line(&self) -> usize {
        self.max_line.unwrap_or(DEFAULT_MAX_LINE)
    }

    pub(super) fn heartbeat(&self) -> Duration {
        self.heartbeat.unwrap_or(DEFAULT_HEARTBEAT)
    }

    pub(super) fn heartbeat_missed(&self) -> u32 {
        self.heartbeat_missed.unwrap_or(DEFAULT_HEARTBEAT_MISSED)
    }

    pub(super) fn window(&self) -> u32 {
        self.window.map_or_else(|| default_window(self.max_line()), |window| window.value)
    }

    /// `disk` is the size of the file system that the spool is on.
    pub(super) fn spool(&self, disk: u64) -> SpoolLimits {
        let keep_free = DEFAULT_SPOOL.keep_free.min(disk / KEPT_FREE_PART);
        SpoolLimits {
            messages: self.spool_messages.unwrap_or(DEFAULT_SPOOL.messages),
            bytes: self.spool_bytes.unwrap_or(DEFAULT_SPOOL.bytes),
            keep_free: self.spool_keep_free.unwrap_or(keep_free),
        }
    }
}

fn read_hosts(tables: Section<'_>, report: &mut Report) -> Vec<(Placed<HostId>, Overlay)> {
    let mut hosts = Vec::new();
    for (name, mut section) in tables.tables(report) {
        let address = section.take(report, "address", value::address);
        let overlay = Overlay { address, ..Overlay::read(&mut section, report) };
        match (HostId::new(name), section.line) {
            (Ok(id), Some(line)) => hosts.push((Placed { line, value: id }, overlay)),
            (Ok(_), None) => {}
            (Err(what), line) => report.problem(line, section.about_all(&what)),
        }
        section.finish(report);
    }
    hosts
}

/// Enough for the longest line and for a steady flow of short ones.
fn default_window(max_line: usize) -> u32 {
    // `value::max_line` bounds it far below.
    u32::try_from(least_window(max_line).max(DEFAULT_WINDOW)).unwrap_or(u32::MAX)
}

/// Whether a child may come to hold too much with this window.
pub(super) fn is_large_window(window: u32, max_line: usize) -> bool {
    window as usize > least_window(max_line).max(USUAL_WINDOW)
}

fn read_lond(mut section: Section<'_>, port: u16, report: &mut Report) -> Lond {
    let listen = section.take_placed(report, "listen", value::listen);
    if let Some(line) =
        listen.as_ref().filter(|listen| listen.value.iter().any(port_is_open)).map(|at| at.line)
    {
        report.warning(Some(line), section.about("listen", "the port 0 is another one at each start"));
    }
    let max_line = section.take(report, "max_line", value::max_line).unwrap_or(DEFAULT_MAX_LINE);
    let window = section.take_placed(report, "window", value::window);
    if let Some(window) = window.as_ref().filter(|window| (window.value as usize) < least_window(max_line)) {
        let what = format!("is less than 2 x max_line + 65536 = {}", least_window(max_line));
        report.problem(Some(window.line), section.about("window", &what));
    }
    if let Some(window) = window.as_ref().filter(|window| is_large_window(window.value, max_line)) {
        let what = format!(
            "is more than 6 MiB and than 2 x max_line + 65536 = {}: \
             a process may come to hold more than 64 MiB",
            least_window(max_line)
        );
        report.warning(Some(window.line), section.about("window", &what));
    }
    let lond = Lond {
        listen: listen.map_or_else(
            || vec![SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)],
            |listen| listen.value.into_iter().map(|address| address.with_port(port)).collect(),
        ),
        classic: section.take(report, "classic", value::permission).unwrap_or(false),
        max_opening: section.take(report, "max_opening", value::small_count).unwrap_or(DEFAULT_MAX_OPENING),
        opening_timeout: section
            .take(report, "opening_timeout", value::duration)
            .unwrap_or(DEFAULT_ACCEPT_TIMEOUT),
        max_line,
        heartbeat: section.take(report, "heartbeat", value::duration).unwrap_or(DEFAULT_HEARTBEAT),
        heartbeat_missed: section
            .take(report, "heartbeat_missed", value::few)
            .unwrap_or(DEFAULT_HEARTBEAT_MISSED),
        window: window.map_or_else(|| default_window(max_line), |window| window.value),
        full_load: section.take(report, "full_load", value::load).unwrap_or_else(processors),
        drain_timeout: section
            .take(report, "drain_timeout", value::duration_or_zero)
            .unwrap_or(DEFAULT_DRAIN_TIMEOUT),
        busy_poll: section.take(report, "busy_poll", value::moment).unwrap_or_default(),
        log_quota: section.take(report, "log_quota", value::positive_size).unwrap_or(DEFAULT_LOG_QUOTA),
    };
    section.finish(report);
    lond
}

fn port_is_open(address: &Address) -> bool {
    matches!(address, Address::Full(full) if full.port() == 0)
}

/// The load that keeps every processor busy.
fn processors() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64)
}
