//! The last status of each link, and the status files that show them.
//!
//! The files are written when a state has changed (a mere counter is no state), no more often than [`Pace`] allows.
//! A file that cannot be written is logged once and tried again every few seconds.

use crate::base::clock::{WallClock, in_words, moved};
use crate::base::disk::own;
use crate::base::logging;
use crate::base::{HostId, Pin};
use crate::config::{Config, Peer};
use crate::status::{self, AwayStatus, LinkState, PeerStatus, Snapshot};
use crate::supervise::publish::{Pace, replace, uptime};
use jiff::{Timestamp, tz::TimeZone};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The files in the status folder.
const FILES: [&str; 2] = ["loncstatus.txt", "status.json"];

/// Removes what killed programs left of status files that they were writing.
pub fn sweep(status_dir: &Path) {
    FILES.iter().for_each(|name| own::sweep(&status_dir.join(name)));
}

/// The statuses, and when they are written next.
#[derive(Debug)]
pub struct Board {
    folder: PathBuf,
    spool_dir: PathBuf,
    id: HostId,
    started: Timestamp,
    doing: String,
    /// The pin of this host's own key.
    own_pin: Option<String>,
    /// Why the last restart came to nothing.
    failure: Option<String>,
    clock: WallClock,
    /// In the order of `hosts.tab`.
    peers: Vec<PeerStatus>,
    places: HashMap<HostId, usize>,
    pace: Pace,
    /// The last write failed, and it was said.
    failing: bool,
}

impl Board {
    /// A board with all peers of `config`, none of them served since `started`.
    pub fn new(config: &Config, started: Timestamp, now: Instant) -> Board {
        let peers: Vec<PeerStatus> = config.peers.iter().map(|peer| unserved(peer, started)).collect();
        let places = peers.iter().enumerate().map(|(place, status)| (status.peer.clone(), place)).collect();
        Board {
            folder: config.status_dir.clone(),
            spool_dir: config.spool_dir.clone(),
            id: config.id.clone(),
            started,
            doing: format!("supervisor, {} links", peers.len()),
            own_pin: None,
            failure: None,
            clock: WallClock::new(now, Timestamp::now()),
            peers,
            places,
            pace: Pace::new(now),
            failing: false,
        }
    }

    /// Goes on with another configuration: what is known of peers that stay is kept.
    pub fn reconfigure(&mut self, config: &Config) {
        let anew = Board::new(config, Timestamp::now(), Instant::now());
        let before = std::mem::take(&mut self.peers);
        (self.peers, self.places) = (anew.peers, anew.places);
        (self.folder, self.id, self.doing) = (anew.folder, anew.id, anew.doing);
        self.spool_dir = anew.spool_dir;
        before.into_iter().for_each(|status| self.note(status));
        self.pace.changed();
    }

    /// Puts right the times that were noted before the machine's clock was set, if it was. To be called before each turn.
    pub fn see_clock(&mut self, now: Instant) {
        let Some(step) = self.clock.look(now, Timestamp::now()) else { return };
        log::info!("the clock of this machine was set {}", in_words(step));
        self.started = moved(self.started, step);
        for status in &mut self.peers {
            status.since = moved(status.since, step);
            status.next_dial = status.next_dial.map(|at| moved(at, step));
            status.last_error_at = status.last_error_at.map(|at| moved(at, step));
        }
        self.pace.changed();
    }

    /// Since when the program runs.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// What the supervisor does, in words.
    pub fn doing(&self) -> &str {
        &self.doing
    }

    /// Says what the supervisor does.
    pub fn set_doing(&mut self, doing: &str) {
        doing.clone_into(&mut self.doing);
        self.pace.changed();
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

    /// The statuses.
    pub fn peers(&self) -> &[PeerStatus] {
        &self.peers
    }

    /// Notes what a child said of its link. One that has had no error yet does not make the last one forgotten: that may
    /// be why it had to be started.
    pub fn note(&mut self, mut status: PeerStatus) {
        let Some(old) = self.places.get(&status.peer).and_then(|place| self.peers.get_mut(*place)) else {
            return;
        };
        if status.last_error.is_none() {
            (status.last_error, status.last_error_at) = (old.last_error.clone(), old.last_error_at);
            status.last_error_past = status.error_is_past();
        }
        if is_change(old, &status) {
            self.pace.changed();
        }
        *old = status;
    }

    /// What went wrong last with the link to `peer`.
    pub fn last_error(&self, peer: &HostId) -> Option<&String> {
        self.places.get(peer).and_then(|place| self.peers.get(*place))?.last_error.as_ref()
    }

    /// Notes that no child serves `peer`, and why if something went wrong. What waits in its spool still does.
    pub fn unserved(
        &mut self,
        peer: &HostId,
        state: LinkState,
        doing: &str,
        error: Option<String>,
        now: Timestamp,
    ) {
        let Some(status) = self.places.get(peer).and_then(|place| self.peers.get_mut(*place)) else { return };
        (status.pid, status.state, status.since, status.next_dial) = (0, state, now, None);
        doing.clone_into(&mut status.doing);
        (status.in_flight, status.clients) = (0, 0);
        if error.is_some() {
            (status.last_error, status.last_error_at, status.last_error_past) = (error, Some(now), false);
        }
        self.pace.changed();
    }

    /// Notes that `pid` was started for `peer`.
    pub fn starting(&mut self, peer: &HostId, pid: u32) {
        let Some(status) = self.places.get(peer).and_then(|place| self.peers.get_mut(*place)) else { return };
        status.pid = pid;
        "starting".clone_into(&mut status.doing);
        self.pace.changed();
    }

    /// Has the files written though nothing has changed.
    pub fn touch(&mut self) {
        self.pace.changed();
    }

    /// Has the files written if one of them was removed.
    pub fn see_files(&mut self) {
        if !FILES.iter().all(|name| self.folder.join(name).exists()) {
            self.pace.changed();
        }
    }

    /// When [`Board::write_if_due`] will write.
    pub fn deadline(&self) -> Option<Instant> {
        self.pace.deadline()
    }

    /// Writes the files if something has changed and the last write is long enough ago.
    pub fn write_if_due(&mut self) {
        let begun = Instant::now();
        if self.deadline().is_some_and(|at| at <= begun) {
            self.write();
            match self.failing {
                true => self.pace.failed(Instant::now()),
                false => self.pace.wrote(begun, Instant::now()),
            }
        }
    }

    /// Writes the files.
    pub fn write(&mut self) {
        let snapshot = self.snapshot(Timestamp::now());
        let text = status::classic_text(&snapshot, &TimeZone::system());
        let mut json = status::json(&snapshot);
        json.push('\n');
        let mut failing = false;
        for (name, content) in FILES.into_iter().zip([text, json]) {
            if let Err(error) = replace(&self.folder.join(name), content.as_bytes()) {
                failing = true;
                if !self.failing {
                    log::error!("write {}: {error}; it is out of date", self.folder.join(name).display());
                }
            }
        }
        self.failing = failing;
    }

    /// All that is known, at this moment.
    pub fn snapshot(&self, now: Timestamp) -> Snapshot {
        Snapshot {
            program: "lonc".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            id: self.id.clone(),
            pid: std::process::id(),
            started: self.started,
            written: now,
            written_uptime: uptime(),
            doing: self.doing.clone(),
            // A path that is no text would leave the others without a status.
            spool_dir: self.spool_dir.to_str().map(PathBuf::from),
            own_pin: self.own_pin.clone(),
            not_restarted: self.failure.clone(),
            last_log: logging::last_line(),
            peers: self.peers.clone(),
        }
    }
}

/// Whether more than counters has changed.
fn is_change(old: &PeerStatus, new: &PeerStatus) -> bool {
    (old.pid, old.state, old.since, &old.doing) != (new.pid, new.state, new.since, &new.doing)
        || (&old.wire, old.private) != (&new.wire, new.private)
        || (old.delayed == 0, old.failed, old.corrupt) != (new.delayed == 0, new.failed, new.corrupt)
        || (&old.last_error, old.last_error_at, old.last_error_past)
            != (&new.last_error, new.last_error_at, new.last_error_past)
        || old.own_pin != new.own_pin
        || !old.away.iter().map(reason).eq(new.away.iter().map(reason))
}

/// All of it but the count.
fn reason(away: &AwayStatus) -> (&str, &str, bool) {
    (&away.handler, &away.why, away.held.is_some())
}

fn unserved(peer: &Peer, since: Timestamp) -> PeerStatus {
    PeerStatus {
        peer: peer.host.id.clone(),
        pid: 0,
        state: LinkState::Starting,
        since,
        next_dial: None,
        doing: "starting".to_owned(),
        wire: peer.wire.as_str().to_owned(),
        private: peer.wire.is_private(),
        own_pin: None,
        in_flight: 0,
        done: 0,
        lost: 0,
        clients: 0,
        delayed: 0,
        delayed_bytes: 0,
        oldest: None,
        failed: 0,
        corrupt: 0,
        last_error: None,
        last_error_at: None,
        last_error_past: false,
        last_log: String::new(),
        away: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_alone_are_no_change() {
        let text = r#"{"peer":"msul1","pid":1,"state":"up","since":"2026-11-20T08:12:14Z","doing":"up","wire":"classic",
            "private":false,"in_flight":0,"done":0,"lost":0,"clients":0,"delayed":1,"delayed_bytes":0,"oldest":null,
            "failed":0,"corrupt":0,"last_error":null,"last_error_at":null,"last_log":""}"#;
        let old: PeerStatus = serde_json::from_str(text).unwrap();
        let mut new = old.clone();
        (new.in_flight, new.done, new.lost, new.clients) = (1, 2, 3, 4);
        (new.delayed, new.delayed_bytes, new.last_log) = (5, 6, "line".into());
        assert!(!is_change(&old, &new));
        for change in [
            |s: &mut PeerStatus| s.state = LinkState::Down,
            |s: &mut PeerStatus| s.delayed = 0,
            |s: &mut PeerStatus| s.failed = 1,
            |s: &mut PeerStatus| s.last_error = Some("reset by peer".into()),
            |s: &mut PeerStatus| s.pid = 2,
        ] {
            let mut new = old.clone();
            change(&mut new);
            assert!(is_change(&old, &new));
        }
    }
}
