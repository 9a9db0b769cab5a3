//! `lon reload`: the configuration is read again, and only the links that it changes are touched.
//!
//! Where the settings that a child was handed over ([`crate::settings`]) are the same, the
//! child stays, its TCP connection and its clients with it; that its peer has other pins it is
//! told. Where they differ, the child is told to drain and the next one goes on with the same
//! listening socket, so that no `connect` fails meanwhile. A configuration that is not sound
//! changes nothing. Of one that is, only a new peer's socket can fail: that is an error in the log
//! and in the status, as it is at the start.

use super::children::Replace;
use super::{DESCRIPTORS_A_PEER, GRACE, Lonc, Machine, drain_timeout};
use crate::messages::ToLink;
use crate::settings::Links;
use base::HostId;
use config::Config;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;
use store::spool::Arrivals;
use supervise::daemon::Role;
use supervise::limit::raise_descriptor_limit;
use supervise::own_key::OwnKey;
use supervise::reload;
use supervise::table::{Event, State};
use supervise::title;

impl Lonc {
    /// Goes on with another configuration and key; what was done, in words.
    pub(super) fn change(
        &mut self,
        m: &mut Machine<'_>,
        config: Arc<Config>,
        key: OwnKey,
        now: Instant,
    ) -> String {
        let links = Links::new(config.clone(), key.clone());
        let plan = Plan::between(&self.links, &links);
        self.retire(m, &plan.removed, now);
        self.replace(m, &plan.changed, &config);
        for peer in &plan.repinned {
            let pins = links.pins(peer).iter().map(ToString::to_string).collect();
            self.send(m, peer, &ToLink::Pins(pins), now);
        }
        self.links = links;
        self.take_over(m, config, key, now);
        self.retarget(m, now);
        let Plan { added, removed, changed, repinned: _, kept } = plan;
        format!(
            "{} replaced, {} added, {} removed, {kept} kept",
            reload::links(changed.len()),
            added.len(),
            removed.len()
        )
    }

    /// Peers that are no longer in the table: their sockets go, their children drain.
    fn retire(&mut self, m: &mut Machine<'_>, removed: &[HostId], now: Instant) {
        for peer in removed {
            log::info!("{peer} is no longer in the table: its socket goes");
            if let Some(socket) = self.sockets.listeners.remove(peer) {
                socket.remove();
            }
            self.passages.close(peer);
            let deadline = now + drain_timeout(&m.start.config, peer) + GRACE;
            self.tell(m, peer, Event::Retire { deadline }, now);
        }
    }

    /// Children with other settings than the next ones: each in its turn. Those that are on their
    /// way out already, or yet to be started, are followed by one with the new settings anyway.
    pub(super) fn replace(&mut self, m: &Machine<'_>, changed: &[HostId], config: &Config) {
        for peer in changed {
            let Some(State::Running { pid, .. }) = self.table.state(peer) else { continue };
            let drain = drain_timeout(&m.start.config, peer).max(drain_timeout(config, peer));
            self.replacing.push_back(Replace { peer: peer.clone(), pid, drain });
        }
        self.line_up();
    }

    fn take_over(&mut self, m: &mut Machine<'_>, config: Arc<Config>, key: OwnKey, now: Instant) {
        raise_descriptor_limit(config.peers.len(), DESCRIPTORS_A_PEER);
        let before = m.take_over(config.clone(), key);
        for (id, socket) in &self.sockets.listeners {
            let Some(peer) = config.peer(id) else { continue };
            let changed = before.peer(id).is_none_or(|old| old.socket_mode != peer.socket_mode);
            if changed && let Err(error) = socket.set_mode(peer.socket_mode) {
                log::error!("{error}");
            }
        }
        self.board.reconfigure(&config);
        title::set(self.board.common().doing());
        self.run_names.forget();
        self.spool_names.forget();
        self.listen_where_missing(m, now);
        self.keep_folders(m, now);
        // Files may be others' by now.
        self.lookout.arrivals = Arrivals::default();
        self.keep_watch(m);
    }
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
    fn between(old: &Links, new: &Links) -> Plan {
        let (before, after): (Vec<_>, Vec<_>) = (old.peers().collect(), new.peers().collect());
        let (had, has): (HashSet<_>, HashSet<_>) =
            (before.iter().copied().collect(), after.iter().copied().collect());
        let mut plan = Plan::default();
        for peer in after {
            if !had.contains(peer) {
                plan.added.push(peer.clone());
            } else if old.of(peer) != new.of(peer) {
                plan.changed.push(peer.clone());
            } else {
                plan.repinned.extend((old.pins(peer) != new.pins(peer)).then(|| peer.clone()));
                plan.kept += 1;
            }
        }
        plan.removed = before.into_iter().filter(|peer| !has.contains(peer)).cloned().collect();
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Pin;
    use std::path::Path;
    use wire::secure::HostKey;

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
    fn plan(first: (&str, &str), second: (&str, &str)) -> String {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] = [first, second].map(|(hosts, more)| links(config(folder.path(), hosts, more)));
        said(&Plan::between(&old, &new))
    }

    fn links(config: Config) -> Links {
        let key = OwnKey::load(&config).unwrap();
        Links::new(config.into(), key)
    }

    fn said(plan: &Plan) -> String {
        let ids = |ids: &[HostId]| ids.iter().map(HostId::as_str).collect::<Vec<_>>().join(",");
        format!("{}; {}; {}; {}", ids(&plan.changed), ids(&plan.added), ids(&plan.removed), plan.kept)
    }

    #[test]
    fn a_table_that_says_the_same_in_other_lines_changes_no_link() {
        let moved =
            "# a comment\n\na.c:d:r:h:127.0.0.4\nc:d:r:h:127.0.0.3\nb:d:r:h:127.0.0.2\nme:d:r:h:127.0.0.1\n";
        assert_eq!(plan((HOSTS, ""), (moved, "[lonc]\nsocket_mode = \"0600\"\n")), "; ; ; 3");
    }

    #[test]
    fn only_links_whose_ground_has_changed_are_replaced() {
        let own = "[host.b]\nrequest_timeout = \"7s\"\n";
        assert_eq!(plan((HOSTS, ""), (HOSTS, own)), "b; ; ; 2");
        let other = HOSTS.replace("127.0.0.2", "127.0.0.9").replace("c:d:r:h:127.0.0.3\na.c", "e");
        // c goes, and a.c with it; e comes.
        assert_eq!(plan((HOSTS, ""), (&other, "")), "b; e; c,a.c; 0");
        for all in ["spool_dir = \"other\"\n", "log_level = \"debug\"\n", "sandbox = \"off\"\n"] {
            assert_eq!(plan((HOSTS, ""), (HOSTS, all)), "b,c,a.c; ; ; 0", "{all}");
        }
        for none in ["[lond]\nmax_opening = 3\n", "status_dir = \"other\"\n"] {
            assert_eq!(plan((HOSTS, ""), (HOSTS, none)), "; ; ; 3", "{none}");
        }
    }

    #[test]
    fn a_new_key_of_our_own_replaces_the_secure_links_alone() {
        let classic = "[host.b]\nwire = \"classic\"\n";
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        std::fs::create_dir(&keys).unwrap();
        let pins = ["b", "c", "a.c"].map(|id| format!("{id} {}\n", Pin::of(id.as_bytes())));
        std::fs::write(folder.path().join("hosts.pins"), pins.concat()).unwrap();
        let with_a_key = || {
            HostKey::make(&keys).unwrap();
            links(config(folder.path(), HOSTS, classic))
        };
        let old = with_a_key();
        // The same key elsewhere is no change.
        let moved = format!("key_dir = \"elsewhere\"\n{classic}");
        std::fs::rename(&keys, folder.path().join("elsewhere")).unwrap();
        let same = links(config(folder.path(), HOSTS, &moved));
        assert_eq!(said(&Plan::between(&old, &same)), "; ; ; 3");
        std::fs::create_dir(&keys).unwrap();
        assert_eq!(said(&Plan::between(&old, &with_a_key())), "c,a.c; ; ; 1");
        // Nor is there one to show, if it is gone.
        std::fs::remove_file(keys.join("host.key")).unwrap();
        let none = links(config(folder.path(), HOSTS, classic));
        assert_eq!(said(&Plan::between(&old, &none)), "c,a.c; ; ; 1");
    }

    #[test]
    fn a_peers_pins_are_a_set_that_its_secure_link_depends_on() {
        let folder = tempfile::tempdir().unwrap();
        let [x, y, z] = [b"x", b"y", b"z"].map(|key| Pin::of(key));
        let with = |pins: &str| {
            std::fs::write(folder.path().join("hosts.pins"), pins).unwrap();
            links(config(folder.path(), HOSTS, "[host.c]\nwire = \"classic\"\n"))
        };
        let old = with(&format!("b {x}\nb {y}\n"));
        for (pins, changed) in [
            (format!("# moved\nb {y}\nb {x}\n"), None),
            (format!("b {x}\nb {y}\nc {z}\n"), None),
            (format!("b {x}\n"), None),
            (format!("b {x}\nb {y}\na.c {z}\n"), Some("a.c")),
        ] {
            let new = with(&pins);
            let plan = Plan::between(&old, &new);
            assert_eq!(plan.changed.first().map(HostId::as_str), changed, "{pins}");
            assert_eq!(plan.kept, 3 - usize::from(changed.is_some()), "{pins}");
            let told = new.pins(&id("b")) != old.pins(&id("b"));
            assert_eq!(plan.repinned, if told { vec![id("b")] } else { Vec::new() }, "{pins}");
        }
    }

    #[test]
    fn a_host_whose_id_ends_in_anothers_changes_no_link_of_that_one() {
        let without = HOSTS.replace("a.c:d:r:h:127.0.0.4\n", "");
        assert_eq!(plan((&without, ""), (HOSTS, "")), "; a.c; ; 2");
    }
}
