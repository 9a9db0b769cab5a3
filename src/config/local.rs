//! `[[local]]`: who of this host may ask which peer what.
//!
//! Owns the rule: of the rules in the order of the file, the first whose `peers` and `commands`
//! match decides, by `allow`, and for a message that may be kept by `critical`. Without any rule
//! whoever can open the socket may ask; where there are rules and none matches, nobody may. Names
//! of users and groups are looked up when the file is read, so that nobody who serves has to.

use super::hosts::Table;
use super::problem::{Place, Problem};
use super::section::{Report, Section};
use super::value;
use base::{Credentials, HostId};
use nix::unistd::{Group, User};
use std::path::Path;
use toml::de::DeValue;

/// What programs of the broker's own user may always ask: so `lond` asks back for `pong`.
const ASKED_BACK: &[u8] = b"ping";

/// One entry of `allow` or `critical`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whoever {
    /// `"*"`: whoever can open the socket.
    Everyone,
    /// `"user:www"`, `"user:33"`.
    User(u32),
    /// `"group:www"`, `"group:33"`.
    Group(u32),
}

impl Whoever {
    fn covers(self, who: &Credentials) -> bool {
        match self {
            Whoever::Everyone => true,
            Whoever::User(user) => who.user == user,
            Whoever::Group(group) => who.groups.contains(&group),
        }
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRule {
    /// For requests to these peers; `None`: to all.
    pub peers: Option<Vec<HostId>>,
    /// For these commands; `None`: for all.
    pub commands: Option<Vec<String>>,
    /// Who may ask.
    pub allow: Vec<Whoever>,
    /// Who may have messages kept; `None`: whoever may ask.
    pub critical: Option<Vec<Whoever>>,
    /// Where it begins.
    pub place: Option<Place>,
}

/// All rules, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalRules(pub Vec<LocalRule>);

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unallowed<'a> {
    /// By this rule.
    By(&'a LocalRule),
    /// There are rules, and none for this peer and command.
    NoRule,
}

impl LocalRules {
    /// Those for one peer, and where they stand left out: what a link depends on.
    pub fn of_peer(&self, peer: &HostId) -> LocalRules {
        let mine = self.0.iter().filter(|rule| rule.is_for_peer(peer));
        let mut rules: Vec<_> =
            mine.map(|rule| LocalRule { peers: None, place: None, ..rule.clone() }).collect();
        if rules.is_empty() && !self.0.is_empty() {
            // There are rules, and none is for this peer: one that is for nobody.
            rules.push(LocalRule {
                commands: None,
                allow: Vec::new(),
                critical: None,
                peers: None,
                place: None,
            });
        }
        LocalRules(rules)
    }

    /// Whether `who` may ask `peer` for `command`, and have it kept if it is `critical`. `own`: the
    /// broker's user.
    ///
    /// # Errors
    /// He may not: why.
    pub fn judge(
        &self,
        peer: &HostId,
        command: &[u8],
        critical: bool,
        who: &Credentials,
        own: u32,
    ) -> Result<(), Unallowed<'_>> {
        if self.0.is_empty() || (!critical && command == ASKED_BACK && who.user == own) {
            return Ok(());
        }
        let matching = |rule: &&LocalRule| rule.is_for_peer(peer) && rule.is_for_command(command);
        let rule = self.0.iter().find(matching).ok_or(Unallowed::NoRule)?;
        let keepers = rule.critical.as_ref().filter(|_| critical);
        let named = keepers.unwrap_or(&rule.allow).iter().any(|entry| entry.covers(who));
        if named { Ok(()) } else { Err(Unallowed::By(rule)) }
    }
}

impl LocalRule {
    fn is_for_peer(&self, peer: &HostId) -> bool {
        self.peers.as_ref().is_none_or(|peers| peers.contains(peer))
    }

    fn is_for_command(&self, command: &[u8]) -> bool {
        self.commands.as_ref().is_none_or(|all| all.iter().any(|one| one.as_bytes() == command))
    }

    /// Whether each peer that it names is one.
    pub(super) fn check(&self, hosts_file: &Path, table: &Table, report: &mut Report) {
        for id in self.peers.iter().flatten() {
            if table.hosts.get(id).is_none() && !table.damaged.contains(id) {
                let what = format!("local: peers: {:?} has no line in {}", id.as_str(), hosts_file.display());
                let (file, line) = match &self.place {
                    Some(place) => (place.file.clone(), Some(place.line)),
                    None => (report.file().to_owned(), None),
                };
                report.problems.push(Problem { file, line, what });
            }
        }
    }
}

/// Takes `[[local]]`.
pub(super) fn read_local(tables: Vec<Section<'_>>, report: &mut Report) -> LocalRules {
    let rules = tables.into_iter().map(|mut section| {
        let file = report.file().to_owned();
        let place = section.line.map(|line| Place { file, line });
        if !section.has("allow") {
            let what = "local: no `allow`: nobody may ask what this rule is for";
            report.warning(section.line, what.to_owned());
        }
        let rule = LocalRule {
            peers: section.take(report, "peers", |value| value::list(value, HostId::new)),
            commands: section.take(report, "commands", |value| value::list(value, command)),
            allow: section.take(report, "allow", whoever).unwrap_or_default(),
            critical: section.take(report, "critical", whoever),
            place,
        };
        section.finish(report);
        rule
    });
    LocalRules(rules.collect())
}

fn command(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(':') || text.chars().any(char::is_control) {
        return Err(format!("{text:?} is no command: want the word before the first colon"));
    }
    Ok(text.to_owned())
}

fn whoever(value: &DeValue<'_>) -> Result<Vec<Whoever>, String> {
    value::list(value, |text| match text.split_once(':') {
        None if text == "*" => Ok(Whoever::Everyone),
        Some(("user", name)) => {
            number(name, |name| User::from_name(name).map(|found| found.map(|user| user.uid.as_raw())))
                .map(Whoever::User)
                .map_err(|why| format!("user {name:?}: {why}"))
        }
        Some(("group", name)) => {
            number(name, |name| Group::from_name(name).map(|found| found.map(|group| group.gid.as_raw())))
                .map(Whoever::Group)
                .map_err(|why| format!("group {name:?}: {why}"))
        }
        None | Some(_) => Err(format!("want \"*\", \"user:NAME\" or \"group:NAME\", not {text:?}")),
    })
}

fn number(name: &str, look_up: impl Fn(&str) -> nix::Result<Option<u32>>) -> Result<u32, String> {
    match name.parse() {
        Ok(number) => Ok(number),
        Err(_) => look_up(name).map_err(|error| error.to_string())?.ok_or_else(|| "there is none".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 33;

    fn rule(peers: &[&str], commands: &[&str], allow: Whoever, critical: Option<Whoever>) -> LocalRule {
        let all =
            |list: &[&str]| (!list.is_empty()).then(|| list.iter().map(|&one| one.to_owned()).collect());
        let peers: Option<Vec<String>> = all(peers);
        LocalRule {
            peers: peers.map(|ids| ids.iter().map(|id| HostId::new(id).unwrap()).collect()),
            commands: all(commands),
            allow: vec![allow],
            critical: critical.map(|one| vec![one]),
            place: Some(Place { file: "lonnet.toml".into(), line: 1 }),
        }
    }

    #[test]
    fn the_first_rule_that_matches_peer_and_command_decides_and_none_is_nobody() {
        let rules = LocalRules(vec![
            rule(&["a"], &["echo", "log"], Whoever::User(7), Some(Whoever::Group(70))),
            rule(&["a"], &["echo"], Whoever::Everyone, None),
            rule(&["b"], &[], Whoever::Group(70), None),
        ]);
        let (seven, grouped) = (Credentials::of_user(7), Credentials { user: 8, groups: [60, 70].into() });
        let may = |rules: &LocalRules, peer: &str, command: &str, critical, who: &Credentials| {
            let peer = HostId::new(peer).unwrap();
            let all = rules.judge(&peer, command.as_bytes(), critical, who, OWN).is_ok();
            let of_peer = rules.of_peer(&peer);
            let own = of_peer.judge(&peer, command.as_bytes(), critical, who, OWN).is_ok();
            assert_eq!(all, own, "what a link knows of them says the same");
            all
        };
        for (peer, command, critical, to_seven, to_grouped) in [
            ("a", "echo", false, true, false),
            ("a", "echo", true, false, true),
            ("a", "log", false, true, false),
            ("a", "other", false, false, false),
            ("b", "anything", false, false, true),
            ("b", "anything", true, false, true),
            ("c", "echo", false, false, false),
        ] {
            assert_eq!(may(&rules, peer, command, critical, &seven), to_seven, "{peer} {command} {critical}");
            assert_eq!(
                may(&rules, peer, command, critical, &grouped),
                to_grouped,
                "{peer} {command} {critical}"
            );
        }
        assert!(may(&LocalRules::default(), "a", "echo", true, &Credentials::nobody()));
        let own = Credentials::of_user(OWN);
        assert!(may(&rules, "c", "ping", false, &own), "so lond asks back");
        assert!(
            !may(&rules, "c", "ping", true, &own) && !may(&rules, "c", "ping", false, &Credentials::nobody())
        );
    }
}
