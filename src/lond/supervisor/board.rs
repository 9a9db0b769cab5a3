//! What `lond` tells of itself: counts, the answer to `status`, and `<status_dir>/lond.json`.
//!
//! The file is written when a link opens or closes, no more often than [`Pace`] allows; a count alone is no reason to
//! write, so that a crowd at the door does not cost disk writes. A file that cannot be written is logged once and
//! tried again every few seconds.

use super::absent::Absent;
use super::links::Links;
use super::listeners::Listener;
use super::rivals::Rivals;
use crate::base::clock::{WallClock, in_words, moved};
use crate::base::disk::own;
use crate::base::logging;
use crate::base::{HostId, Pin, WireKind};
use crate::config::Config;
use crate::status::{CallerStatus, GoneCaller, NotListening, ServeSnapshot, json};
use crate::supervise::publish::{Pace, replace, uptime};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

/// The file in the status folder.
const FILE: &str = "lond.json";

/// Removes what killed programs left of a status file that they were writing.
pub fn sweep(status_dir: &Path) {
    own::sweep(&status_dir.join(FILE));
}

/// What happened since the first program under this pid started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Connections refused by their address.
    pub refused: u64,
    /// Connections closed because others were there that had not finished: newcomers, and those that gave way to one.
    pub crowded: u64,
    /// Connections whose callers a child turned away.
    pub unauthenticated: u64,
    /// Children killed.
    pub killed: u64,
}

/// What there is to tell of.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// What is listened on.
    pub listeners: &'a [Listener],
    /// What is to be listened on and cannot be.
    pub absent: &'a Absent,
    /// The children.
    pub links: &'a Links,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Board {
    /// Counted by those who do it.
    pub counts: Counts,
    /// Whose links come from two addresses in turns: told by those who see it.
    pub rivals: Rivals,
    /// The last link of each host that had one, whether or not it has ended; hosts of the table, so at most as many.
    seen: BTreeMap<HostId, GoneCaller>,
    started: Timestamp,
    doing: &'static str,
    /// The pin of this host's own key.
    own_pin: Option<String>,
    /// Why the last restart came to nothing.
    failure: Option<String>,
    clock: WallClock,
    pace: Pace,
    /// The last write failed, and it was said.
    failing: bool,
}

impl Board {
    /// Goes on from what another program counted, if there was one.
    pub fn new(started: Timestamp, counts: Counts, now: Instant) -> Board {
        Board {
            counts,
            rivals: Rivals::default(),
            seen: BTreeMap::new(),
            started,
            doing: "serving",
            own_pin: None,
            failure: None,
            clock: WallClock::new(now, Timestamp::now()),
            pace: Pace::new(now),
            failing: false,
        }
    }

    /// Puts right the times that were noted before the machine's clock was set, if it was. To be called before each turn.
    pub fn see_clock(&mut self, links: &mut Links, now: Instant) {
        let Some(step) = self.clock.look(now, Timestamp::now()) else { return };
        log::info!("the clock of this machine was set {}", in_words(step));
        self.started = moved(self.started, step);
        for seen in self.seen.values_mut() {
            seen.last = moved(seen.last, step);
        }
        for opened in links.opened_mut() {
            opened.since = moved(opened.since, step);
        }
        self.pace.changed();
    }

    /// When the first program under this pid started.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// Says what the supervisor does.
    pub fn set_doing(&mut self, doing: &'static str) {
        self.doing = doing;
        self.pace.changed();
    }

    /// Notes that `caller` has a link.
    pub fn saw(&mut self, caller: &HostId, wire: WireKind, last: Timestamp) {
        self.seen.insert(caller.clone(), GoneCaller { caller: caller.clone(), wire, last });
        self.pace.changed();
    }

    /// Who has had a link, for the program that follows.
    pub fn seen(&self) -> Vec<GoneCaller> {
        self.seen.values().cloned().collect()
    }

    /// Forgets hosts that are not in the table.
    pub fn forget_strangers(&mut self, config: &Config) {
        self.seen.retain(|caller, _| config.hosts.get(caller).is_some());
    }

    /// Notes which key this host shows.
    pub fn set_own_pin(&mut self, pin: Option<Pin>) {
        self.own_pin = pin.map(|pin| pin.to_string());
        self.pace.changed();
    }

    /// Says why the last restart came to nothing, if it did.
    pub fn set_failure(&mut self, failure: Option<&str>) {
        if self.failure.as_deref() != failure {
            self.failure = failure.map(str::to_owned);
            self.pace.changed();
        }
    }

    /// Has the file written: a link has opened or closed, or someone wants it.
    pub fn touch(&mut self) {
        self.pace.changed();
    }

    /// Has the file written if it was removed.
    pub fn see_file(&mut self, config: &Config) {
        if !config.status_dir.join(FILE).exists() {
            self.pace.changed();
        }
    }

    /// When [`Board::write_if_due`] will write.
    pub fn deadline(&self) -> Option<Instant> {
        self.pace.deadline()
    }

    /// Writes the file if something has changed and the last write is long enough ago.
    pub fn write_if_due(&mut self, config: &Config, seen: Seen<'_>) {
        let begun = Instant::now();
        if self.deadline().is_some_and(|at| at <= begun) {
            self.write(config, seen);
            match self.failing {
                true => self.pace.failed(Instant::now()),
                false => self.pace.wrote(begun, Instant::now()),
            }
        }
    }

    /// Writes the file.
    pub fn write(&mut self, config: &Config, seen: Seen<'_>) {
        let text = json(&self.snapshot(config, seen)) + "\n";
        let file = config.status_dir.join(FILE);
        let written = replace(&file, text.as_bytes());
        if let Err(error) = &written
            && !self.failing
        {
            log::error!("write {}: {error}; it is out of date", file.display());
        }
        self.failing = written.is_err();
    }

    /// All that is known, at this moment.
    pub fn snapshot(&self, config: &Config, seen: Seen<'_>) -> ServeSnapshot {
        let Seen { listeners, absent, links } = seen;
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
            })
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
            started: self.started,
            written: Timestamp::now(),
            written_uptime: uptime(),
            doing: self.doing.to_owned(),
            own_pin: self.own_pin.clone(),
            not_restarted: self.failure.clone(),
            last_log: logging::last_line(),
            listen: listeners.iter().map(|listener| listener.address).collect(),
            not_listening: absent
                .iter()
                .map(|missing| NotListening { address: missing.address, why: missing.why.clone() })
                .collect(),
            handlers: config.handlers.iter().map(|handler| links.handler(&handler.name)).collect(),
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
