//! The last status of each link.
//!
//! The files that show them are written when a state has changed; a mere counter is no state.

use base::HostId;
use base::clock::moved;
use base::logging;
use config::Config;
use jiff::{SignedDuration, Timestamp};
use status::{AwayStatus, LinkState, PeerStatus, Snapshot};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;
use supervise::publish::{self, uptime};

/// The statuses, and when they are written next.
#[derive(Debug)]
pub(super) struct Board {
    common: publish::Board,
    spool_dir: PathBuf,
    id: HostId,
    /// In the order of `hosts.tab`.
    peers: Vec<PeerStatus>,
    places: HashMap<HostId, usize>,
}

impl Board {
    /// A board with all peers of `config`, none of them served since `started`.
    pub(super) fn new(config: &Config, started: Timestamp, now: Instant) -> Board {
        let peers: Vec<PeerStatus> = config
            .peers
            .iter()
            .map(|peer| PeerStatus::starting(peer.host.id.clone(), peer.wire, started))
            .collect();
        let places = peers.iter().enumerate().map(|(place, status)| (status.peer.clone(), place)).collect();
        Board {
            common: publish::Board::new(started, &doing(config), now),
            spool_dir: config.spool_dir.clone(),
            id: config.id.clone(),
            peers,
            places,
        }
    }

    /// Goes on with another configuration: what is known of peers that stay is kept.
    pub(super) fn reconfigure(&mut self, config: &Config) {
        let Board { peers, places, spool_dir, id, common: _ } =
            Board::new(config, Timestamp::now(), Instant::now());
        let before = std::mem::replace(&mut self.peers, peers);
        (self.places, self.spool_dir, self.id) = (places, spool_dir, id);
        self.common.set_doing(&doing(config));
        before.into_iter().for_each(|status| self.note(status));
        self.common.changed();
    }

    /// Puts right the times that were noted before the machine's clock was set.
    pub(super) fn clock_was_set(&mut self, step: SignedDuration) {
        for status in &mut self.peers {
            status.since = moved(status.since, step);
            status.next_dial = status.next_dial.map(|at| moved(at, step));
            status.last_error_at = status.last_error_at.map(|at| moved(at, step));
            for away in &mut status.away {
                away.since = moved(away.since, step);
            }
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

    /// What is known of each peer, in the order of the table.
    pub(super) fn peers(&self) -> &[PeerStatus] {
        &self.peers
    }

    /// Notes what a child said of its link. One that has had no error yet does not make the last
    /// one forgotten: that may be why it had to be started.
    pub(super) fn note(&mut self, mut status: PeerStatus) {
        let Some(old) = self.places.get(&status.peer).and_then(|place| self.peers.get_mut(*place)) else {
            return;
        };
        if status.last_error.is_none() {
            (status.last_error, status.last_error_at) = (old.last_error.clone(), old.last_error_at);
            status.last_error_past = status.error_is_past();
        }
        if is_change(old, &status) {
            self.common.changed();
        }
        *old = status;
    }

    /// How many programs the child of `peer` had when it last said so.
    pub(super) fn clients(&self, peer: &HostId) -> u64 {
        self.places.get(peer).and_then(|place| self.peers.get(*place)).map_or(0, |status| status.clients)
    }

    /// Whether the link to `peer` is up, as far as its child has said.
    pub(super) fn is_up(&self, peer: &HostId) -> bool {
        let status = self.places.get(peer).and_then(|place| self.peers.get(*place));
        status.is_some_and(|status| status.state == LinkState::Up)
    }

    /// What went wrong last with the link to `peer`.
    pub(super) fn last_error(&self, peer: &HostId) -> Option<&String> {
        self.places.get(peer).and_then(|place| self.peers.get(*place))?.last_error.as_ref()
    }

    /// Notes that no child serves `peer`, and why if something went wrong. What waits in its spool
    /// still does.
    pub(super) fn unserved(
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
        self.common.changed();
    }

    /// Notes what went wrong with what is for `peer`; its link may be well.
    pub(super) fn went_wrong(&mut self, peer: &HostId, error: String, now: Timestamp) {
        let Some(status) = self.places.get(peer).and_then(|place| self.peers.get_mut(*place)) else { return };
        (status.last_error, status.last_error_at, status.last_error_past) = (Some(error), Some(now), false);
        self.common.changed();
    }

    /// Notes that `pid` was started for `peer`.
    pub(super) fn starting(&mut self, peer: &HostId, pid: u32) {
        let Some(status) = self.places.get(peer).and_then(|place| self.peers.get_mut(*place)) else { return };
        status.pid = pid;
        "starting".clone_into(&mut status.doing);
        self.common.changed();
    }

    /// All that is known, at this moment.
    pub(super) fn snapshot(&self, now: Timestamp) -> Snapshot {
        Snapshot {
            program: "lonc".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            id: self.id.clone(),
            pid: std::process::id(),
            started: self.common.started(),
            written: now,
            written_uptime: uptime(),
            doing: self.common.doing().to_owned(),
            // A path that is no text would leave the others without a status.
            spool_dir: self.spool_dir.to_str().map(PathBuf::from),
            own_pin: self.common.own_pin(),
            not_restarted: self.common.failure(),
            last_log: logging::last_line(),
            peers: self.peers.clone(),
        }
    }
}

fn doing(config: &Config) -> String {
    format!("supervisor, {} links", config.peers.len())
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

#[cfg(test)]
mod tests {
    use super::*;
    use base::WireKind;

    #[test]
    fn all_times_of_a_link_but_those_on_disk_follow_a_clock_that_is_set() {
        let noted: Timestamp = "2026-11-20T08:12:14Z".parse().unwrap();
        let mut peer = PeerStatus::starting(HostId::new("msul1").unwrap(), WireKind::Classic, noted);
        (peer.next_dial, peer.last_error_at, peer.oldest) = (Some(noted), Some(noted), Some(noted));
        let (handler, why) = ("pay".to_owned(), "no socket".to_owned());
        peer.away = vec![AwayStatus { handler, since: noted, why, held: None }];
        let mut board = Board {
            common: publish::Board::new(noted, "", Instant::now()),
            spool_dir: PathBuf::new(),
            id: peer.peer.clone(),
            places: HashMap::from([(peer.peer.clone(), 0)]),
            peers: vec![peer],
        };
        let step = SignedDuration::from_hours(-5);
        board.clock_was_set(step);
        let PeerStatus { since, next_dial, last_error_at, oldest, away, .. } = &board.peers[0];
        let moved = noted + step;
        assert_eq!((*since, *next_dial, *last_error_at), (moved, Some(moved), Some(moved)));
        assert_eq!((away[0].since, *oldest), (moved, Some(noted)));
    }

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
