//! Who of the other hosts may ask what: `allow`, `deny` and `private_only` of `[handler.<name>]`,
//! and `allow` and `deny` of `[builtin.<name>]`.
//!
//! Owns the rule: whom `deny` names may not ask, whatever else names that host; of the others, whom
//! `allow` names may. A handler without `allow` is for nobody; a built-in request without one is
//! for every host of the table.

use super::hosts::{Host, Table};
use super::problem::{Place, Problem};
use super::section::{Report, Section};
use super::value;
use base::HostId;
use std::fmt;
use std::path::Path;

/// The requests that `lond` answers itself and that can have rules.
pub const BUILTINS: [&str; 6] = ["ping", "pong", "version", "load", "log", "exit"];

/// One entry of `allow` or `deny`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// `"*"`: every host of the table.
    Everyone,
    /// `"msul1"`: one host.
    Host(HostId),
    /// `"role:library"`.
    Role(String),
    /// `"domain:msu"`.
    Domain(String),
}

impl Who {
    /// Whether this entry covers `host`.
    pub fn covers(&self, host: &Host) -> bool {
        match self {
            Who::Everyone => true,
            Who::Host(id) => *id == host.id,
            Who::Role(role) => *role == host.role.0,
            Who::Domain(domain) => *domain == host.domain,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Everyone => f.write_str("*"),
            Who::Host(id) => write!(f, "{id}"),
            Who::Role(role) => write!(f, "role:{role}"),
            Who::Domain(domain) => write!(f, "domain:{domain}"),
        }
    }
}

/// The entries of one key, and where that stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    /// In the order of the file.
    pub entries: Vec<Who>,
    /// `None`: the key is not there, and this is its default.
    pub place: Option<Place>,
}

impl Entries {
    fn covering(&self, host: &Host) -> Option<&Who> {
        self.entries.iter().find(|entry| entry.covers(host))
    }
}

/// Who may ask one handler, or for one built-in request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Who may; `None`: nothing is said, and nobody may.
    pub allow: Option<Entries>,
    /// Who may not, whatever `allow` says.
    pub deny: Entries,
    /// Only what did not cross the network in the clear is passed on (default: all is).
    pub private_only: bool,
}

/// What the rules say of a host, and by which entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement<'a> {
    /// It may ask: this entry of `allow` covers it.
    Allowed(&'a Who),
    /// It may not: this entry of `deny` covers it.
    Denied(&'a Who),
    /// It may not: no entry of `allow` covers it.
    NotAllowed,
    /// It may not: there is no `allow`, so nobody may.
    Nobody,
}

impl Access {
    /// Whoever is in the table may ask.
    pub fn everyone() -> Access {
        let allow = Some(Entries { entries: vec![Who::Everyone], place: None });
        Access { allow, deny: Entries::default(), private_only: false }
    }

    /// What the rules say of `host`.
    pub fn judge(&self, host: &Host) -> Judgement<'_> {
        if let Some(entry) = self.deny.covering(host) {
            return Judgement::Denied(entry);
        }
        match &self.allow {
            None => Judgement::Nobody,
            Some(allow) => allow.covering(host).map_or(Judgement::NotAllowed, Judgement::Allowed),
        }
    }

    /// The same rule, wherever it stands.
    pub fn without_places(&self) -> Access {
        let bare = |list: &Entries| Entries { entries: list.entries.clone(), place: None };
        Access {
            allow: self.allow.as_ref().map(bare),
            deny: bare(&self.deny),
            private_only: self.private_only,
        }
    }

    /// Takes the keys of a handler.
    pub(super) fn of_handler(section: &mut Section<'_>, report: &mut Report) -> Access {
        let said = section.has("allow");
        let access = Access {
            allow: entries(section, report, "allow"),
            deny: entries(section, report, "deny").unwrap_or_default(),
            private_only: section.take(report, "private_only", value::flag).unwrap_or(false),
        };
        if !said {
            let what = format!("{} is for nobody: no `allow`", section.spoken());
            report.warning(section.line, what);
        }
        access
    }

    /// Says what no host of the table can be meant by. `about`: `handler.echo`.
    pub(super) fn check(&self, about: &str, hosts_file: &Path, table: &Table, report: &mut Report) {
        let allow = self.allow.iter().map(|allow| ("allow", allow));
        for (key, Entries { entries, place }) in allow.chain([("deny", &self.deny)]) {
            let Some(Place { file, line }) = place else { continue };
            let problem = |what| Problem { file: file.clone(), line: Some(*line), what };
            let all = entries.contains(&Who::Everyone);
            let hint = match key {
                "allow" if entries.is_empty() => Some(format!("{about}: allow: is empty: nobody may use it")),
                "deny" if all => {
                    Some(format!("{about}: deny: \"*\" denies it to everyone: nobody may use it"))
                }
                _ if all && entries.len() > 1 => {
                    Some(format!("{about}: {key}: \"*\" covers every host: the other entries change nothing"))
                }
                _ => None,
            };
            if let Some(hint) = hint {
                report.warnings.push(problem(hint));
            }
            for entry in entries {
                let somebody = table.hosts.iter().any(|host| entry.covers(host));
                let named = || hosts_file.display();
                match entry {
                    Who::Everyone => {}
                    Who::Host(id) if somebody || table.damaged.contains(id) => {}
                    Who::Host(id) => {
                        let what = format!("{about}: {key}: {:?} has no line in {}", id.as_str(), named());
                        report.problems.push(problem(what));
                    }
                    Who::Role(_) | Who::Domain(_) if somebody || !table.damaged.is_empty() => {}
                    Who::Role(_) | Who::Domain(_) => {
                        let what = format!("{about}: {key}: \"{entry}\" covers no host of {}", named());
                        report.warnings.push(problem(what));
                    }
                }
            }
        }
    }
}

/// A request that `lond` answers itself, and who may ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builtin {
    /// One of [`BUILTINS`].
    pub name: &'static str,
    /// Who may.
    pub access: Access,
}

impl Builtin {
    /// All of them, as they are where nothing is said: for everyone.
    pub fn all() -> Vec<Builtin> {
        BUILTINS.map(|name| Builtin { name, access: Access::everyone() }).into()
    }

    /// All of them, with what is said of some.
    pub(super) fn with(said: Vec<(Builtin, Place)>) -> Vec<Builtin> {
        let mut all = Builtin::all();
        for (own, _) in said {
            all.iter_mut().filter(|one| one.name == own.name).for_each(|one| *one = own.clone());
        }
        all
    }
}

/// Takes `[builtin.<name>]`: those of which something is said, with where each begins.
pub(super) fn read_builtins(tables: Section<'_>, report: &mut Report) -> Vec<(Builtin, Place)> {
    let mut builtins = Vec::new();
    for (name, mut section) in tables.tables(report) {
        let Some(mut builtin) = Builtin::all().into_iter().find(|builtin| builtin.name == name) else {
            let what = format!("no request of this name can have rules: want one of {}", BUILTINS.join(", "));
            report.problem(section.line, section.about_all(&what));
            continue;
        };
        if let Some(allow) = entries(&mut section, report, "allow") {
            builtin.access.allow = Some(allow);
        }
        builtin.access.deny = entries(&mut section, report, "deny").unwrap_or_default();
        // A table that is named has a line.
        let place = Place { file: report.file().to_owned(), line: section.line.unwrap_or(1) };
        section.finish(report);
        builtins.push((builtin, place));
    }
    builtins
}

fn entries(section: &mut Section<'_>, report: &mut Report, key: &str) -> Option<Entries> {
    let placed = section.take_placed(report, key, value::hosts)?;
    let place = Some(Place { file: report.file().to_owned(), line: placed.line });
    Some(Entries { entries: placed.value, place })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn list(entries: &[Who]) -> Option<Entries> {
        Some(Entries { entries: entries.to_vec(), place: None })
    }

    fn one(id: &str) -> Who {
        Who::Host(HostId::new(id).unwrap())
    }

    #[test]
    fn deny_wins_and_without_allow_it_is_for_nobody() {
        let host = fixture::host("msul1");
        let (role, domain) = (Who::Role("library".into()), Who::Domain("msu".into()));
        let judged = |allow: Option<Entries>, deny: Option<Entries>| {
            let access = Access { allow, deny: deny.unwrap_or_default(), private_only: false };
            match access.judge(&host) {
                Judgement::Allowed(who) => format!("allowed {who}"),
                Judgement::Denied(who) => format!("denied {who}"),
                Judgement::NotAllowed => "not allowed".to_owned(),
                Judgement::Nobody => "nobody".to_owned(),
            }
        };
        for (allow, deny, said) in [
            (None, None, "nobody"),
            (list(&[]), None, "not allowed"),
            (list(&[Who::Everyone]), None, "allowed *"),
            (list(&[one("msul2"), role.clone()]), None, "allowed role:library"),
            (list(&[one("msul2"), one("msul1")]), None, "allowed msul1"),
            (list(std::slice::from_ref(&domain)), None, "allowed domain:msu"),
            (list(&[Who::Role("access".into()), Who::Domain("x".into())]), None, "not allowed"),
            (list(&[one("msul1")]), list(&[Who::Everyone]), "denied *"),
            (list(&[one("msul1")]), list(&[domain]), "denied domain:msu"),
            (list(&[Who::Everyone]), list(&[one("msul2"), one("msul1")]), "denied msul1"),
            (list(&[Who::Everyone]), list(&[one("msul2")]), "allowed *"),
            (None, list(&[role]), "denied role:library"),
        ] {
            let shown = format!("{allow:?} {deny:?}");
            assert_eq!(judged(allow, deny), said, "{shown}");
        }
    }

    #[test]
    fn built_in_requests_are_for_everyone_where_nothing_is_said() {
        let host = fixture::host("msul1");
        let all = Builtin::all();
        assert_eq!(all.iter().map(|builtin| builtin.name).collect::<Vec<_>>(), BUILTINS);
        assert!(all.iter().all(|b| b.access.judge(&host) == Judgement::Allowed(&Who::Everyone)));
    }
}
