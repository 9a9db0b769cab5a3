//! `lon reload`: the configuration is read anew, and only the links that it changes are touched.
//!
//! A child has a copy of the whole configuration, of which it uses what [`Footing`] compares: where that is the
//! same, the child stays, its TCP connection and its clients with it; that its peer has other pins it is told. Where it differs, the child is told to drain and
//! the next one goes on with the same listening socket, so that no `connect` fails meanwhile.
//! A configuration that is not sound changes nothing. Of one that is, only a new peer's socket can fail: that is an
//! error in the log and in the status, as it is at the start.

use super::DESCRIPTORS_A_PEER;
use super::{GRACE, Replace, Supervisor};
use crate::base::{HostId, Pin, WireKind};
use crate::config::{Config, Host, Peer};
use crate::supervise::anew;
use crate::supervise::control::ToLink;
use crate::supervise::limit::raise_descriptor_limit;
use crate::supervise::table::{Event, State};
use crate::supervise::title;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

impl Supervisor<'_> {
    /// Takes over what the files say now; the answer to who asked for it.
    pub(super) fn reload(&mut self, now: Instant) -> String {
        // Whatever the files say: the log is where it was.
        self.open_log_anew(now);
        if self.stopping.is_some() {
            return anew::refused(&["lonc is stopping".to_owned()]);
        }
        let current = &self.start.config;
        let read = anew::reload(self.start.load, current)
            .and_then(|config| anew::own_pin(&config).map(|key| (config, key)));
        let (config, key) = match read {
            Ok(read) => read,
            Err(problems) => return anew::refused(&problems),
        };
        let plan = Plan::between(&Footing::of(current, self.key), &Footing::of(&config, key));
        self.retire(&plan.removed, now);
        self.replace(&plan.changed, &config);
        for peer in &plan.repinned {
            let pins = config.pins.of(peer).iter().map(ToString::to_string).collect();
            self.send(peer, &ToLink::Pins(pins), now);
        }
        self.key = key;
        self.take_over(config, now);
        self.start.restarts.forgive();
        let Plan { added, removed, changed, repinned: _, kept } = plan;
        let done = format!(
            "{} replaced, {} added, {} removed, {kept} kept",
            anew::links(changed.len()),
            added.len(),
            removed.len()
        );
        anew::taken_over(&self.start.config, &done)
    }

    /// Peers that are no longer in the table: their sockets go, their children drain.
    fn retire(&mut self, removed: &[HostId], now: Instant) {
        for peer in removed {
            log::info!("{peer} is no longer in the table: its socket goes");
            if let Some(socket) = self.listeners.remove(peer) {
                socket.remove();
            }
            self.passages.close(peer);
            let deadline = now + self.drain_timeout(peer) + GRACE;
            self.tell(peer, Event::Retire { deadline }, now);
        }
    }

    /// Children with another footing than the next ones: each in its turn. Those that are on their way out
    /// already, or yet to be started, are followed by one with the new configuration anyway.
    fn replace(&mut self, changed: &[HostId], config: &Config) {
        for peer in changed {
            let Some(State::Running { pid, .. }) = self.children.table.state(peer) else { continue };
            let next = config.peer(peer).map(|peer| peer.drain_timeout).unwrap_or_default();
            let drain = self.drain_timeout(peer).max(next);
            self.replacing.push_back(Replace { peer: peer.clone(), pid, drain });
        }
    }

    fn take_over(&mut self, config: Config, now: Instant) {
        let before = std::mem::replace(&mut self.start.config, Arc::new(config));
        let config = &self.start.config;
        log::set_max_level(config.log_level);
        raise_descriptor_limit(config.peers.len(), DESCRIPTORS_A_PEER);
        for (id, socket) in &self.listeners {
            let Some(peer) = config.peer(id) else { continue };
            let changed = before.peer(id).is_none_or(|old| old.socket_mode != peer.socket_mode);
            if changed && let Err(error) = socket.set_mode(peer.socket_mode) {
                log::error!("{error}");
            }
        }
        self.board.reconfigure(config);
        self.board.set_own_pin(self.key);
        title::set(self.board.doing());
        self.listen_where_missing(now);
        self.keep_watch(now);
    }
}

/// What the children of one configuration stand on.
#[derive(Debug)]
struct Footing<'a> {
    config: &'a Config,
    /// The pin of this host's own key.
    key: Option<Pin>,
    /// For each end of an id behind a dot, the ids that have it: a file in the delayed directory is for the longest id
    /// that ends its name, so a child whose id ends another's must know of that one.
    longer: HashMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Footing<'a> {
    fn of(config: &'a Config, key: Option<Pin>) -> Footing<'a> {
        let mut longer: HashMap<_, BTreeSet<_>> = HashMap::new();
        for id in config.hosts.ids().map(HostId::as_str) {
            for (dot, _) in id.match_indices('.') {
                let end = id.get(dot + 1..).unwrap_or_default();
                longer.entry(end).or_default().insert(id);
            }
        }
        Footing { config, key, longer }
    }

    /// Whether every child stands on other ground.
    fn differs(&self, other: &Footing<'_>) -> bool {
        let (a, b) = (self.config, other.config);
        (&a.id, &a.run_dir, &a.spool_dir, &a.log_dir) != (&b.id, &b.run_dir, &b.spool_dir, &b.log_dir)
            || (&a.key_dir, a.log_level) != (&b.key_dir, b.log_level)
    }

    /// Whether a child of `peer` stands on the same ground in both, but for what [`Footing::differs`] tells, and for
    /// which pins the peer has.
    fn same_for(&self, other: &Footing<'_>, peer: &HostId) -> bool {
        let (Some(a), Some(b)) = (self.config.peer(peer), other.config.peer(peer)) else { return false };
        let same_keys = match b.wire {
            WireKind::Classic => true,
            // Without a pin there is no link at all, and a child that knows why.
            WireKind::Secure => {
                let has_pins = |config: &Config| !config.pins.of(peer).is_empty();
                self.key == other.key && has_pins(self.config) == has_pins(other.config)
            }
        };
        alike(a, b) && same_keys && self.longer.get(peer.as_str()) == other.longer.get(peer.as_str())
    }

    /// Whether `peer` is called by other pins.
    fn repins(&self, other: &Footing<'_>, peer: &HostId) -> bool {
        let secure = other.config.peer(peer).is_some_and(|peer| peer.wire == WireKind::Secure);
        secure && anew::pins_of(self.config, peer) != anew::pins_of(other.config, peer)
    }
}

/// Whether both are the same to a child, which knows neither the line of the table nor the mode of its socket.
fn alike(a: &Peer, b: &Peer) -> bool {
    let host = Host { line: b.host.line, ..a.host.clone() };
    Peer { host, socket_mode: b.socket_mode, ..a.clone() } == *b
}

/// What a reload does to the links.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    added: Vec<HostId>,
    removed: Vec<HostId>,
    changed: Vec<HostId>,
    /// Of those kept: their children are told the peers' new pins.
    repinned: Vec<HostId>,
    kept: usize,
}

impl Plan {
    fn between(old: &Footing<'_>, new: &Footing<'_>) -> Plan {
        let ids = |config: &Config| config.peers.iter().map(|peer| peer.host.id.clone()).collect::<Vec<_>>();
        let (before, after) = (ids(old.config), ids(new.config));
        let (had, has) = (before.iter().collect::<HashSet<_>>(), after.iter().collect::<HashSet<_>>());
        let all = old.differs(new);
        let mut plan = Plan::default();
        for peer in &after {
            if !had.contains(peer) {
                plan.added.push(peer.clone());
            } else if all || !old.same_for(new, peer) {
                plan.changed.push(peer.clone());
            } else {
                plan.repinned.extend(old.repins(new, peer).then(|| peer.clone()));
                plan.kept += 1;
            }
        }
        plan.removed = before.iter().filter(|peer| !has.contains(peer)).cloned().collect();
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const HOSTS: &str = "me:d:r:h:127.0.0.1\nb:d:r:h:127.0.0.2\nc:d:r:h:127.0.0.3\na.c:d:r:h:127.0.0.4\n";

    fn id(text: &str) -> HostId {
        HostId::new(text).unwrap()
    }

    fn config(folder: &Path, hosts: &str, more: &str) -> Config {
        std::fs::write(folder.join("hosts.tab"), hosts).unwrap();
        let toml = folder.join("lonnet.toml");
        std::fs::write(&toml, format!("id = \"me\"\n{more}")).unwrap();
        Config::load(&toml).unwrap()
    }

    /// What a reload from the first to the second does, as `changed; added; removed; kept`.
    fn plan(first: (&str, &str, Option<Pin>), second: (&str, &str, Option<Pin>)) -> String {
        let folder = tempfile::tempdir().unwrap();
        let old = config(folder.path(), first.0, first.1);
        let new = config(folder.path(), second.0, second.1);
        let plan = Plan::between(&Footing::of(&old, first.2), &Footing::of(&new, second.2));
        let ids = |ids: &[HostId]| ids.iter().map(HostId::as_str).collect::<Vec<_>>().join(",");
        format!("{}; {}; {}; {}", ids(&plan.changed), ids(&plan.added), ids(&plan.removed), plan.kept)
    }

    #[test]
    fn a_table_that_says_the_same_in_other_lines_changes_no_link() {
        let moved =
            "# a comment\n\na.c:d:r:h:127.0.0.4\nc:d:r:h:127.0.0.3\nb:d:r:h:127.0.0.2\nme:d:r:h:127.0.0.1\n";
        assert_eq!(plan((HOSTS, "", None), (moved, "[lonc]\nsocket_mode = \"0600\"\n", None)), "; ; ; 3");
    }

    #[test]
    fn only_links_whose_ground_has_changed_are_replaced() {
        let own = "[host.b]\nrequest_timeout = \"7s\"\n";
        assert_eq!(plan((HOSTS, "", None), (HOSTS, own, None)), "b; ; ; 2");
        let other = HOSTS.replace("127.0.0.2", "127.0.0.9").replace("c:d:r:h:127.0.0.3\na.c", "e");
        // c goes, and a.c with it; e comes.
        assert_eq!(plan((HOSTS, "", None), (&other, "", None)), "b; e; c,a.c; 0");
        for all in ["spool_dir = \"other\"\n", "log_level = \"debug\"\n"] {
            assert_eq!(plan((HOSTS, "", None), (HOSTS, all, None)), "b,c,a.c; ; ; 0", "{all}");
        }
        for none in ["[lond]\nmax_opening = 3\n", "status_dir = \"other\"\n"] {
            assert_eq!(plan((HOSTS, "", None), (HOSTS, none, None)), "; ; ; 3", "{none}");
        }
    }

    #[test]
    fn a_new_key_of_our_own_replaces_the_secure_links_alone() {
        let classic = "[host.b]\nwire = \"classic\"\n";
        assert_eq!(
            plan((HOSTS, classic, Some(Pin::of(b"x"))), (HOSTS, classic, Some(Pin::of(b"y")))),
            "c,a.c; ; ; 1"
        );
    }

    #[test]
    fn a_peers_pins_are_a_set_that_its_secure_link_depends_on() {
        let folder = tempfile::tempdir().unwrap();
        let [x, y, z] = [b"x", b"y", b"z"].map(|key| Pin::of(key));
        let with = |pins: &str| {
            std::fs::write(folder.path().join("hosts.pins"), pins).unwrap();
            config(folder.path(), HOSTS, "[host.c]\nwire = \"classic\"\n")
        };
        let old = with(&format!("b {x}\nb {y}\n"));
        for (pins, changed) in [
            (format!("# moved\nb {y}\nb {x}\n"), None),
            (format!("b {x}\nb {y}\nc {z}\n"), None),
            (format!("b {x}\n"), None),
            (format!("b {x}\nb {y}\na.c {z}\n"), Some("a.c")),
        ] {
            let new = with(&pins);
            let plan = Plan::between(&Footing::of(&old, None), &Footing::of(&new, None));
            assert_eq!(plan.changed.first().map(HostId::as_str), changed, "{pins}");
            assert_eq!(plan.kept, 3 - usize::from(changed.is_some()), "{pins}");
            let told = anew::pins_of(&new, &id("b")) != anew::pins_of(&old, &id("b"));
            assert_eq!(plan.repinned, if told { vec![id("b")] } else { Vec::new() }, "{pins}");
        }
    }

    #[test]
    fn a_host_whose_id_ends_in_anothers_changes_what_files_that_one_takes_in() {
        let without = HOSTS.replace("a.c:d:r:h:127.0.0.4\n", "");
        assert_eq!(plan((&without, "", None), (HOSTS, "", None)), "c; a.c; ; 1");
    }
}
