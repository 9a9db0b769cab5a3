//! [`Config::load`]: both files read, and what only both together can tell.
//!
//! Lays `[host.<id>]` over `[lonc]` for each line of `hosts.tab`. Nothing is written anywhere; a problem in one
//! file or section does not keep those of the others from being found.

use super::hosts::Table;
use super::problem::{ConfigErrors, MAX_PROBLEMS, Problem};
use super::section::Report;
use super::settings::{DEFAULT_HOSTS, HandlerSettings, Overlay, Settings};
use super::value::MAX_SOCKET_PATH;
use super::{Allow, Config, Handler, Host, HostId, Hosts, Peer, Target, Wire};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Longest file that is read: 5,000 hosts are half a megabyte; beyond this it is not one of ours.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Ids that one warning spells out.
const MAX_NAMES: usize = 5;

/// The longest name that `lonc` gives a socket of its own in `run_dir`.
const OWN_SOCKET: &str = "lonc.sock";

impl Config {
    /// Reads and checks `file` and the table that it names.
    ///
    /// # Errors
    /// Every problem of both files, in the order of the files.
    pub fn load(file: &Path) -> Result<Config, ConfigErrors> {
        let mut problems = match load(file) {
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

fn load(file: &Path) -> Result<Config, Vec<Problem>> {
    let bytes = read(file).map_err(|problem| vec![problem])?;
    let text = str::from_utf8(&bytes).map_err(|error| {
        let line = 1 + memchr::memchr_iter(b'\n', &bytes[..error.valid_up_to()]).count();
        vec![Problem::at(file, line, "the line is not UTF-8 text")]
    })?;
    let mut report = Report::new(file, text);
    // Where the syntax is broken, the parser gives what it could read of the rest: that may tell where hosts.tab is.
    let (document, errors) = DeTable::parse_recoverable(text);
    let document = document.get_ref();
    if !errors.is_empty() {
        let lines = report_syntax(&mut report, &errors);
        if let Some(hosts) = hosts_beside_errors(document, &report, &lines) {
            let table = Table::parse_file(&folder(file).join(hosts));
            report.problems.extend(table.map_or_else(|problem| vec![problem], |table| table.problems));
        }
        return Err(report.problems);
    }
    let settings = Settings::read(document, &mut report);
    let table = Table::parse_file(&folder(file).join(&settings.hosts));
    let config = resolve(settings, file, table, &mut report);
    report.problems.sort_by_key(|problem| (problem.file != file, problem.line));
    match config {
        Some(config) if report.problems.is_empty() => Ok(config),
        Some(_) | None => Err(report.problems),
    }
}

/// The whole file, unless it is too long for one of ours.
fn read(file: &Path) -> Result<Vec<u8>, Problem> {
    let attempt = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(file)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match attempt() {
        Ok(bytes) if bytes.len() as u64 > MAX_FILE => {
            Err(Problem::of(file, format!("is longer than {} MiB: not a file of this kind", MAX_FILE >> 20)))
        }
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(Problem::of(file, format!("cannot be read: {error}"))),
    }
}

impl Table {
    fn parse_file(file: &Path) -> Result<Table, Problem> {
        Ok(Table::parse(file, &read(file)?))
    }
}

/// Reports one problem a line, since what follows an error in the same line is mostly its echo. Returns the lines.
fn report_syntax(report: &mut Report, errors: &[toml::de::Error]) -> BTreeSet<usize> {
    let mut lines = BTreeSet::new();
    for error in errors {
        let line = error.span().map_or(1, |span| report.line_of(span.start));
        if lines.insert(line) {
            report.problem(Some(line), error.message().replace('\n', ", "));
        }
    }
    lines
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
        DeValue::String(hosts) if readable && !hosts.is_empty() => Some(hosts),
        _ => None,
    }
}

/// The folder that relative paths begin at.
fn folder(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

/// `None` only where the report has a problem.
fn resolve(
    settings: Settings,
    file: &Path,
    table: Result<Table, Problem>,
    report: &mut Report,
) -> Option<Config> {
    let absolute = match std::path::absolute(file) {
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
    let peers = peers(&settings, &hosts, &id);
    if !damaged {
        warn_of_wires(&settings, &peers, report);
        warn_of_binds(&settings, &peers, report);
    }
    report.warnings.extend(warnings);
    Some(Config {
        id,
        hosts,
        hosts_file: base.join(&settings.hosts),
        pins: base.join(&settings.pins),
        key_dir: base.join(&settings.key_dir),
        run_dir: base.join(&settings.run_dir),
        spool_dir: base.join(&settings.spool_dir),
        log_dir: base.join(&settings.log_dir),
        status_dir: base.join(&settings.status_dir),
        user: settings.user,
        log_level: settings.log_level,
        peers,
        lond: settings.lond,
        handlers: settings
            .handlers
            .into_iter()
            .map(|own| Handler { socket: base.join(&own.handler.socket), ..own.handler })
            .collect(),
        warnings: std::mem::take(&mut report.warnings),
        file: absolute.clone(),
    })
}

/// A Unix socket's path has an end that no configuration can move: better said here than at the first `bind`.
fn check_socket_lengths(settings: &Settings, base: &Path, table: Option<&Table>, report: &mut Report) {
    let run_dir = base.join(&settings.run_dir);
    let ids = table.into_iter().flat_map(|table| table.hosts.ids()).map(HostId::as_str);
    if let Some(longest) = ids.chain([OWN_SOCKET]).max_by_key(|name| name.len()) {
        check_socket_length(&run_dir.join(longest), "run_dir", settings.run_dir_line, report);
    }
    for own in &settings.handlers {
        let about = format!("handler.{}: socket", own.handler.name);
        check_socket_length(&base.join(&own.handler.socket), &about, Some(own.socket_line), report);
    }
}

fn check_socket_length(path: &Path, about: &str, line: Option<usize>, report: &mut Report) {
    let length = path.as_os_str().as_bytes().len();
    if length > MAX_SOCKET_PATH {
        let what = format!(
            "{about}: {} is longer than the {MAX_SOCKET_PATH} bytes that a Unix socket's path may have",
            path.display()
        );
        report.problem(line, what);
    }
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
    for HandlerSettings { handler, allow_line, .. } in &settings.handlers {
        if handler.allow.is_empty() {
            report.warning(
                *allow_line,
                format!("handler.{}: allow: is empty: nobody may use it", handler.name),
            );
        }
        for entry in &handler.allow {
            match entry {
                Allow::Host(id) if !known(id) => {
                    report.problem(*allow_line, format!("handler.{}: allow: {}", handler.name, stranger(id)));
                }
                Allow::Everyone | Allow::Host(_) | Allow::Role(_) | Allow::Domain(_) => {}
            }
        }
    }
}

/// Every host but this one, with what holds for it.
fn peers(settings: &Settings, hosts: &Hosts, own: &HostId) -> Vec<Peer> {
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
            socket_mode: keys.socket_mode(),
            max_line: keys.max_line(),
            spool: keys.spool(),
        }
    };
    hosts.iter().filter(|host| host.id != *own).map(peer).collect()
}

fn target(host: &Host, keys: &Overlay) -> Target {
    match (keys.address, host.address) {
        (Some(address), _) => Target::Address(address.with_port(keys.port())),
        (None, Some(ip)) => Target::Address(SocketAddr::new(ip, keys.port())),
        (None, None) => Target::Lookup { name: host.name.clone(), port: keys.port() },
    }
}

/// Says of each line that asks for the wire that this version does not speak what comes of it; once for all the
/// hosts that a default holds for.
fn warn_of_wires(settings: &Settings, peers: &[Peer], report: &mut Report) {
    let line_of = line_of_key(settings, settings.lonc_line, |keys| keys.wire.map(|wire| wire.line));
    let secure = peers.iter().filter(|peer| peer.wire == Wire::Secure).map(|peer| &peer.host.id);
    for (line, ids) in by_line(secure, line_of) {
        let what = format!(
            "wire \"secure\" is not in this version: requests to {} are answered con_lost; set wire = \"classic\"",
            names(&ids)
        );
        report.warning(line, what);
    }
    if !settings.lond.classic {
        let what = "lond: classic \"refuse\" leaves no wire that this version serves: every caller is turned away; \
                    set classic = \"allow\"";
        report.warning(settings.lond_line, what.to_owned());
    }
}

/// Says where an address of one family is to be bound for a link to one of the other.
fn warn_of_binds(settings: &Settings, peers: &[Peer], report: &mut Report) {
    let line_of = line_of_key(settings, settings.lonc_line, |keys| keys.bind.map(|bind| bind.line));
    let crossed = |peer: &&Peer| match (&peer.target, peer.bind) {
        (Target::Address(address), Some(bind)) => address.is_ipv4() != bind.is_ipv4(),
        (Target::Address(_), None) | (Target::Lookup { .. }, _) => false,
    };
    let ids = peers.iter().filter(crossed).map(|peer| &peer.host.id);
    for (line, ids) in by_line(ids, line_of) {
        let what =
            format!("bind is an address of the other family than {}: no link can be made", names(&ids));
        report.warning(line, what);
    }
}

/// Finds the line that decides over one key for one host: its own section's, `[lonc]`'s, or `fallback`.
fn line_of_key<'a>(
    settings: &'a Settings,
    fallback: Option<usize>,
    line: impl Fn(&Overlay) -> Option<usize>,
) -> impl Fn(&HostId) -> Option<usize> {
    let below = line(&settings.lonc).or(fallback);
    let own: HashMap<&'a HostId, usize> =
        settings.host.iter().filter_map(|(id, keys)| Some((&id.value, line(keys)?))).collect();
    move |id| own.get(id).copied().or(below)
}

/// Gathers ids by the line that decides over them.
fn by_line<'a>(
    ids: impl Iterator<Item = &'a HostId>,
    line_of: impl Fn(&HostId) -> Option<usize>,
) -> BTreeMap<Option<usize>, Vec<&'a HostId>> {
    let mut lines: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for id in ids {
        lines.entry(line_of(id)).or_default().push(id);
    }
    lines
}

/// `msul1, msul2 and 4995 more`.
fn names(ids: &[&HostId]) -> String {
    let mut text = ids.iter().take(MAX_NAMES).map(|id| id.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(more) = ids.len().checked_sub(MAX_NAMES).filter(|&more| more > 0) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
