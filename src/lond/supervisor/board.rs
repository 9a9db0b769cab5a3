//! What `lond` tells of itself: counts, the answer to `status`, and `<status_dir>/lond.json`.
//!
//! The file is written when a link opens or closes; a count alone is no reason to write, so that a
//! crowd at the door does not cost disk writes.

use super::absent::Absent;
use super::links::Links;
use super::listeners::Listener;
use super::pools::Pools;
use super::rivals::Rivals;
use base::clock::moved;
use base::logging;
use base::{HostId, WireKind};
use config::{BUILTINS, Config};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use status::{CallerStatus, GoneCaller, NotListening, ServeSnapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;
use supervise::publish::{self, uptime};

/// What happened since the first program under this pid started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Connections refused by their address.
    pub refused: u64,
    /// Connections closed because others were there that had not finished: newcomers, and those
    /// that gave way to one.
    pub crowded: u64,
    /// Connections whose callers a child turned away.
    pub unauthenticated: u64,
    /// Children killed: they did not open, end or answer in time, or gave way.
    pub killed: u64,
}

/// What there is to tell of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    /// What is listened on.
    pub listeners: &'a [Listener],
    /// What is to be listened on and cannot be.
    pub absent: &'a Absent,
    /// The children, and what each has said of its link.
    pub links: &'a Links,
    /// Who runs handlers' programs.
    pub pools: &'a Pools,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Board {
    /// Counted by those who do it.
    pub counts: Counts,
    /// Whose links come from two addresses in turns: told by those who see it.
    pub rivals: Rivals,
    /// The last link of each host that had one, whether or not it has ended; hosts of the table, so
    /// at most as many.
    seen: BTreeMap<HostId, GoneCaller>,
    common: publish::Board,
}

impl Board {
    /// Nothing has happened yet.
    pub(super) fn new(started: Timestamp, now: Instant) -> Board {
        Board {
            counts: Counts::default(),
            rivals: Rivals::default(),
            seen: BTreeMap::new(),
            common: publish::Board::new(started, "serving", now),
        }
    }

    /// What every supervisor tells.
    pub(super) fn common(&self) -> &publish::Board {
        &self.common
    }

    /// The same, to tell more.
    pub(super) fn common_mut(&mut self) -> &mut publish::Board {
        &mut self.common
    }

    /// Puts right the times that were noted before the machine's clock was set.
    pub(super) fn clock_was_set(&mut self, links: &mut Links, step: SignedDuration) {
        for seen in self.seen.values_mut() {
            seen.last = moved(seen.last, step);
        }
        links.clock_was_set(step);
    }

    /// Has the file written: a link has opened or closed.
    pub(super) fn changed(&mut self) {
        self.common.changed();
    }

    /// Notes that `caller` has a link.
    pub(super) fn saw(&mut self, caller: &HostId, wire: WireKind, last: Timestamp) {
        self.seen.insert(caller.clone(), GoneCaller { caller: caller.clone(), wire, last });
        self.common.changed();
    }

    /// Who has had a link, for the program that follows.
    pub(super) fn seen(&self) -> Vec<GoneCaller> {
        self.seen.values().cloned().collect()
    }

    /// Forgets hosts that are not in the table.
    pub(super) fn forget_strangers(&mut self, config: &Config) {
        self.seen.retain(|caller, _| config.hosts.get(caller).is_some());
    }

    /// All that is known, at this moment.
    pub(super) fn snapshot(&self, config: &Config, seen: Seen<'_>) -> ServeSnapshot {
        let Seen { listeners, absent, links, pools } = seen;
        let now = Instant::now();
        let caller = |(pid, link): (u32, &super::links::Link)| {
            let (caller, opened) = (link.caller.clone()?, link.opened.as_ref()?);
            Some(CallerStatus {
                rival: self.rivals.of(&caller, link.remote.ip(), now),
                caller,
                wire: opened.wire,
                private: opened.wire.is_private(),
                since: opened.since,
                pid,
                address: link.remote,
                pin: opened.pin.clone(),
                own_pin: opened.own_pin.clone(),
                sandbox: opened.sandbox.clone(),
            })
        };
        let whole = |name: &str| {
            let mut whole = links.handler(name);
            pools.status(name).iter().for_each(|own| whole.add(own));
            whole
        };
        let mut callers: Vec<CallerStatus> = links.iter().filter_map(caller).collect();
        let here: BTreeSet<&HostId> = callers.iter().map(|link| &link.caller).collect();
        let gone = self.seen.values().filter(|seen| !here.contains(&seen.caller)).cloned().collect();
        callers.sort_by(|a, b| (&a.caller, a.since, a.pid).cmp(&(&b.caller, b.since, b.pid)));
        ServeSnapshot {
            program: "lond".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            id: config.id.clone(),
            pid: std::process::id(),
            started: self.common.started(),
            written: Timestamp::now(),
            written_uptime: uptime(),
            doing: self.common.doing().to_owned(),
            own_pin: self.common.own_pin(),
            not_restarted: self.common.failure(),
            last_log: logging::last_line(),
            listen: listeners.iter().map(|listener| listener.address).collect(),
            not_listening: absent
                .iter()
                .map(|missing| NotListening { address: missing.address, why: missing.why.clone() })
                .collect(),
            handlers: config.handlers.iter().map(|handler| whole(&handler.name)).collect(),
            refused_builtins: BUILTINS
                .map(|name| (name.to_owned(), links.handler(name).refused))
                .into_iter()
                .filter(|(_, refused)| *refused > 0)
                .collect(),
            links: callers,
            gone,
            opening: links.unopened(),
            max_opening: config.lond.max_opening,
            refused: self.counts.refused,
            crowded: self.counts.crowded,
            unauthenticated: self.counts.unauthenticated,
            killed: self.counts.killed,
        }
    }
}
