//! [`Config::load`]: all files read, and what only they together can tell.
//!
//! Lays `[host.<id>]` over `[lonc]` for each line of `hosts.tab`. Nothing is written anywhere; a
//! problem in one file or section does not keep those of the others from being found.

use super::handler::HandlerSettings;
use super::hosts::Table;
use super::package;
use super::place;
use super::problem::{ConfigErrors, MAX_PROBLEMS, Problem};
use super::section::Report;
use super::settings::{DEFAULT_HOSTS, Overlay, Settings};
use super::source::{Source, attempt, bounded, read, report_syntax, text_of};
use super::value::{self, MAX_SOCKET_PATH};
use super::warnings;
use super::{Builtin, Config, Host, HostId, Hosts, Peer, PinFile, Pins, Service, Target};
use nix::sys::statvfs::statvfs;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// The longest name that `lonc` gives a socket of its own in `run_dir`; and that of `lonsvc`.
const OWN_SOCKET: &str = "lonc.sock";
const SERVICES_SOCKET: &str = "lonsvc.sock";

impl Config {
    /// Reads and checks `file`, and the table and the pins that it names.
    ///
    /// # Errors
    /// Every problem of all files, in the order of the files.
    pub fn load(file: &Path) -> Result<Config, ConfigErrors> {
        Config::load_from(file, &attempt)
    }

    /// [`Config::load`] with the files from elsewhere than the disk: `source` gives the first
    /// [`MAX_FILE`] bytes of each, and one more where there are more.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_from(file: &Path, source: Source<'_>) -> Result<Config, ConfigErrors> {
        let mut problems = match load(file, source) {
            Ok(config) => return Ok(config),
            Err(problems) => problems,
        };
        if problems.len() > MAX_PROBLEMS {
            problems.truncate(MAX_PROBLEMS);
            problems.push(Problem::of(file, "there are more problems than these"));
        }
        Err(ConfigErrors(problems))
    }
}

fn load(file: &Path, source: Source<'_>) -> Result<Config, Vec<Problem>> {
    let bytes = read(file, source).map_err(|problem| vec![problem])?;
    let text = text_of(file, &bytes).map_err(|problem| vec![problem])?;
    let mut report = Report::new(file, text);
    // Where the syntax is broken, the parser gives what it could read of the rest: that may tell
    // where hosts.tab is.
    let (document, errors) = DeTable::parse_recoverable(text);
    let document = document.get_ref();
    if !errors.is_empty() {
        let lines = report_syntax(&mut report, &errors);
        if let Some(hosts) = hosts_beside_errors(document, &report, &lines) {
            let table = Table::parse_file(&folder(file).join(hosts), source);
            report.problems.extend(table.map_or_else(|problem| vec![problem], |table| table.problems));
        }
        return Err(report.problems);
    }
    let mut settings = Settings::read(document, file, &mut report);
    let files = package::files(folder(file)).unwrap_or_else(|problem| {
        report.problems.push(problem);
        Vec::new()
    });
    package::read_folder(&files, source, &mut settings, &mut report);
    settings.handler_files = files;
    let hosts_file = folder(file).join(&settings.hosts);
    let pins_file = folder(file).join(&settings.pins);
    let table = Table::parse_file(&hosts_file, source);
    let pins = read_pins(&pins_file, source, table.as_ref().ok());
    let config = resolve(settings, file, table, pins, &mut report);
    let others = [file, &hosts_file, &pins_file];
    let place_of = |path: &Path| match others.iter().position(|other| *other == path) {
        Some(0) => (0, PathBuf::new()),
        Some(place) => (1 + place, PathBuf::new()),
        None => (1, path.to_owned()),
    };
    report.problems.sort_by_key(|problem| (place_of(&problem.file), problem.line));
    match config {
        Some(config) if report.problems.is_empty() => Ok(config),
        Some(_) | None => Err(report.problems),
    }
}

/// `hosts.pins`; `None`: it is not there, which may be as it should.
pub(super) fn read_pins(file: &Path, source: Source<'_>, table: Option<&Table>) -> Option<PinFile> {
    let read = source(file);
    if read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return None;
    }
    Some(match bounded(file, read) {
        Ok(bytes) => PinFile::parse(file, &bytes, table.map(|table| &table.hosts)),
        Err(problem) => PinFile { problems: vec![problem], ..PinFile::default() },
    })
}

impl Table {
    pub(super) fn parse_file(file: &Path, source: Source<'_>) -> Result<Table, Problem> {
        Ok(Table::parse(file, &read(file, source)?))
    }
}

/// Where `hosts.tab` is, if a file with broken syntax still tells.
fn hosts_beside_errors<'a>(
    document: &'a DeTable<'_>,
    report: &Report,
    broken: &BTreeSet<usize>,
) -> Option<&'a str> {
    let Some((key, value)) = document.get_key_value("hosts") else { return Some(DEFAULT_HOSTS) };
    let readable = !broken.contains(&report.line_of(key.span().start));
    match value.get_ref() {
        // What broke the syntax may have made a name of half the file.
        text @ DeValue::String(hosts) if readable && value::text(text).is_ok() => Some(hosts),
        _ => None,
    }
}

/// The folder that relative paths begin at.
pub(super) fn folder(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

/// `None` only where the report has a problem.
fn resolve(
    settings: Settings,
    file: &Path,
    table: Result<Table, Problem>,
    mut pins: Option<PinFile>,
    report: &mut Report,
) -> Option<Config> {
    if let Some(pins) = &mut pins {
        report.problems.append(&mut pins.problems);
    }
    let absolute = match place::settled(file) {
        Ok(absolute) => absolute,
        Err(error) => {
            report.problem(None, format!("has no absolute path: {error}"));
            return None;
        }
    };
    let base = folder(&absolute);
    check_socket_lengths(&settings, base, table.as_ref().ok(), report);
    let table = match table {
        Ok(table) => table,
        Err(problem) => {
            report.problems.push(problem);
            return None;
        }
    };
    check_ids(&settings, &table, report);
    let Table { hosts, problems, warnings, .. } = table;
    let damaged = !problems.is_empty();
    report.problems.extend(problems);
    let id = settings.id.as_ref()?.value.clone();
    let disk = size_of_disk(&base.join(&settings.spool_dir));
    let peers = peers(&settings, &hosts, &id, disk);
    warnings::refuse_small_windows(&settings, &peers, report);
    warnings::warn_of_large_windows(&settings, &peers, report);
    if !damaged {
        warnings::warn_of_pins(&settings, &peers, pins.as_ref().map(|file| &file.pins), report);
        warnings::warn_of_binds(&settings, &peers, report);
    }
    report.warnings.extend(warnings);
    let PinFile { pins, warnings, .. } = pins.unwrap_or_default();
    report.warnings.extend(warnings);
    let warnings = std::mem::take(&mut report.warnings);
    let network = Network { id, hosts, peers, pins };
    Some(assemble(settings, &absolute, network, warnings))
}

/// What the table and the pins say of the hosts, and which of them this one is.
pub(super) struct Network {
    pub id: HostId,
    pub hosts: Hosts,
    /// Every host but this one, in the order of the table.
    pub peers: Vec<Peer>,
    pub pins: Pins,
}

/// A configuration of its parts. `file`: its absolute path.
pub(super) fn assemble(settings: Settings, file: &Path, network: Network, warnings: Vec<Problem>) -> Config {
    let Network { id, hosts, peers, pins } = network;
    let base = folder(file);
    let run_dir = place::within(base, &settings.run_dir);
    Config {
        id,
        hosts,
        hosts_file: base.join(&settings.hosts),
        pins,
        pins_file: base.join(&settings.pins),
        key_dir: place::within(base, &settings.key_dir),
        run_dir: run_dir.clone(),
        spool_dir: place::within(base, &settings.spool_dir),
        log_dir: place::within(base, &settings.log_dir),
        status_dir: place::within(base, &settings.status_dir),
        user: settings.user,
        log_level: settings.log_level,
        sandbox: settings.sandbox,
        peers,
        lond: settings.lond,
        handlers: settings.handlers.into_iter().map(|own| own.settled(base, &run_dir)).collect(),
        handler_files: settings.handler_files.iter().map(|file| place::within(base, file)).collect(),
        builtins: Builtin::with(settings.builtins),
        local: settings.local,
        services: settings
            .services
            .into_iter()
            .map(|own| Service {
                program: place::within(base, &own.program),
                dir: place::within(base, &own.dir),
                ..own
            })
            .collect(),
        places: settings.places,
        warnings,
        file: file.to_owned(),
    }
}

/// A Unix socket's path has an end that no configuration can move: better said here than at the
/// first `bind`.
fn check_socket_lengths(settings: &Settings, base: &Path, table: Option<&Table>, report: &mut Report) {
    let run_dir = place::within(base, &settings.run_dir);
    let own = if settings.services.is_empty() { OWN_SOCKET } else { SERVICES_SOCKET };
    let ids = table.into_iter().flat_map(|table| table.hosts.ids()).map(HostId::as_str);
    if let Some(longest) = ids.chain([own]).max_by_key(|name| name.len())
        && let Some(what) = check_socket_length(&run_dir.join(longest), "run_dir")
    {
        report.problem(settings.run_dir_line, what);
    }
    for own in &settings.handlers {
        let about = format!("handler.{}: socket", own.handler.name);
        let length = check_socket_length(&own.socket(base, &run_dir), &about);
        report.problems.extend(length.map(|what| Problem::at(&own.file, own.socket_line, what)));
    }
}

fn check_socket_length(path: &Path, about: &str) -> Option<String> {
    let length = path.as_os_str().as_bytes().len();
    (length > MAX_SOCKET_PATH).then(|| {
        format!(
            "{about}: {} is longer than the {MAX_SOCKET_PATH} bytes that a Unix socket's path may have",
            path.display()
        )
    })
}

/// Every id that `lonnet.toml` names has a line in the table.
fn check_ids(settings: &Settings, table: &Table, report: &mut Report) {
    let known = |id: &HostId| table.hosts.get(id).is_some() || table.damaged.contains(id);
    let stranger = |id: &HostId| format!("{:?} has no line in {}", id.as_str(), settings.hosts.display());
    let own = settings.id.as_ref();
    if let Some(own) = own.filter(|own| !known(&own.value)) {
        report.problem(Some(own.line), format!("id: {}", stranger(&own.value)));
    }
    for (host, _) in &settings.host {
        if !known(&host.value) {
            report.problem(Some(host.line), format!("host.{}: {}", host.value, stranger(&host.value)));
        } else if own.is_some_and(|own| own.value == host.value) {
            let what = format!("host.{}: is this host itself: lonc makes no link to it", host.value);
            report.warning(Some(host.line), what);
        }
    }
    for HandlerSettings { handler, .. } in &settings.handlers {
        handler.access.check(&format!("handler.{}", handler.name), &settings.hosts, table, report);
    }
    settings.local.0.iter().for_each(|rule| rule.check(&settings.hosts, table, report));
    for (Builtin { name, access }, _) in &settings.builtins {
        access.check(&format!("builtin.{name}"), &settings.hosts, table, report);
    }
}

/// Every host but this one, with what holds for it.
pub(super) fn peers(settings: &Settings, hosts: &Hosts, own: &HostId, disk: u64) -> Vec<Peer> {
    let own_keys: HashMap<&HostId, &Overlay> =
        settings.host.iter().map(|(id, keys)| (&id.value, keys)).collect();
    let no_keys = Overlay::default();
    let peer = |host: &Host| {
        let keys = own_keys.get(&host.id).copied().unwrap_or(&no_keys).over(&settings.lonc);
        Peer {
            host: host.clone(),
            target: target(host, &keys),
            bind: keys.bind(),
            wire: keys.wire(),
            request_timeout: keys.request_timeout(),
            connect_timeout: keys.connect_timeout(),
            opening_timeout: keys.opening_timeout(),
            drain_timeout: keys.drain_timeout(),
            busy_poll: keys.busy_poll(),
            socket_mode: keys.socket_mode(),
            max_line: keys.max_line(),
            heartbeat: keys.heartbeat(),
            heartbeat_missed: keys.heartbeat_missed(),
            window: keys.window(),
            spool: keys.spool(disk),
        }
    };
    hosts.iter().filter(|host| host.id != *own).map(peer).collect()
}

/// Bytes of the file system that this folder is on, or will be when it is made; one without a bound
/// where that cannot be told.
pub(super) fn size_of_disk(folder: &Path) -> u64 {
    let found = folder.ancestors().find_map(|path| statvfs(path).ok());
    found.map_or(u64::MAX, |disk| disk.blocks().saturating_mul(disk.fragment_size()))
}

fn target(host: &Host, keys: &Overlay) -> Target {
    match (keys.address, host.address) {
        (Some(address), _) => Target::Address(address.with_port(keys.port())),
        (None, Some(ip)) => Target::Address(SocketAddr::new(ip, keys.port())),
        (None, None) => Target::Lookup { name: host.name.clone(), port: keys.port() },
    }
}
