//! `lon check --who HOST`: what a host may ask here, each handler and each built-in request, and by
//! which entry of the configuration.

use crate::{Failure, print};
use base::HostId;
use config::{Access, Config, Host, Judgement, Place};
use serde::Serialize;
use status::json;
use std::path::Path;

/// What `private_only` says of a host that may ask.
const PRIVATE_ONLY: &str = "private_only: over the secure wire, or with encrypt:";

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    host: HostId,
    requests: Vec<Told>,
}

/// Whether the host may ask one thing.
#[derive(Serialize)]
struct Told {
    name: String,
    /// `handler` or `builtin`.
    kind: &'static str,
    may: bool,
    /// Only what did not cross the network in the clear.
    private_only: bool,
    /// By what, in words.
    why: String,
    /// The entry that decides, if one does.
    entry: Option<String>,
    /// File of the key that decides, or of the table where that is missing.
    file: Option<String>,
    /// Its line.
    line: Option<usize>,
}

pub(super) fn run(file: &Path, host: &str, as_json: bool) -> Result<u8, Failure> {
    let config = Config::load(file)?;
    let report = report(&config, known(&config, host)?);
    let text = if as_json { json(&report) + "\n" } else { table(&report) };
    print(text.as_bytes())?;
    Ok(0)
}

fn known<'a>(config: &'a Config, host: &str) -> Result<&'a Host, Failure> {
    let id = HostId::new(host).map_err(|what| Failure::did("check", format!("{host:?}"), what))?;
    let found = config.hosts.get(&id);
    found.ok_or_else(|| Failure::did("check", &id, format!("has no line in {}", config.hosts_file.display())))
}

fn report(config: &Config, host: &Host) -> Report {
    let told = |kind: &'static str, name: &str, access| {
        told(kind, name, access, host, config.place_of(&format!("{kind}.{name}")))
    };
    let handlers = config.handlers.iter().map(|own| told("handler", &own.name, &own.access));
    let builtins = config.builtins.iter().map(|own| told("builtin", own.name, &own.access));
    Report { host: host.id.clone(), requests: handlers.chain(builtins).collect() }
}

/// `table`: where what is asked for stands.
fn told(kind: &'static str, name: &str, access: &Access, host: &Host, table: Option<&Place>) -> Told {
    let allow = access.allow.as_ref().and_then(|allow| allow.place.as_ref());
    let deny = access.deny.place.as_ref();
    let at = |place: Option<&Place>| place.map_or(String::new(), |place| format!(" ({place})"));
    let (may, why, entry, place) = match access.judge(host) {
        Judgement::Allowed(who) if allow.is_none() => {
            (true, "nothing is said of it".to_owned(), Some(who), None)
        }
        Judgement::Allowed(who) => {
            (true, format!("allow has {:?}{}", who.to_string(), at(allow)), Some(who), allow)
        }
        Judgement::Denied(who) => {
            (false, format!("deny has {:?}{}", who.to_string(), at(deny)), Some(who), deny)
        }
        Judgement::NotAllowed => (false, format!("allow does not name it{}", at(allow)), None, allow),
        Judgement::Nobody => (false, format!("no `allow`{}", at(table)), None, table),
    };
    let why = if may && access.private_only { format!("{why}; {PRIVATE_ONLY}") } else { why };
    Told {
        name: name.to_owned(),
        kind,
        may,
        private_only: access.private_only,
        why,
        entry: entry.map(ToString::to_string),
        file: place.map(|place| place.file.display().to_string()),
        line: place.map(|place| place.line),
    }
}

fn table(report: &Report) -> String {
    let width = report.requests.iter().map(|told| told.name.chars().count()).max().unwrap_or(0);
    let line = |told: &Told| {
        let may = if told.may { "yes" } else { "no" };
        format!("{:<width$}  {may:<3}  {}\n", told.name, told.why)
    };
    report.requests.iter().map(line).collect()
}
