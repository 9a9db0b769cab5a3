//! What the links do, for a person and for a program: one snapshot type, and its views.
//!
//! A link child makes a [`PeerStatus`] whenever its state changes; `lonc`'s supervisor keeps the
//! last of each in a [`Snapshot`] and writes the views. What each field is called in JSON:
//! `docs/status.md`. `lond`'s has a [`ServeSnapshot`] of who calls. Nothing here reads a clock or a
//! file: the time, and where on earth it is read, are arguments. A view never fails, and whatever a
//! text holds, a line of a view stays one line.

// A supervisor runs this: nothing here may panic, whatever comes from outside.
#![deny(clippy::indexing_slicing, clippy::string_slice)]

mod callers;
mod classic;
mod columns;
mod handlers;
mod one;
mod services;
mod table;
mod verdict;

pub use callers::{CallerStatus, GoneCaller, NotListening, ServeSnapshot, callers};
pub use classic::classic_text;
pub use columns::{Head, columns, columns_within, cut, cut_middle};
pub use handlers::{HandlerStatus, ProgramStatus};
pub use one::one_peer;
pub use services::{ServiceState, ServiceStatus, ServicesSnapshot, service_findings, services};
pub use table::{age, ago, set_aside, table};
pub use verdict::{Finding, Level, findings};

use base::logging::steers;
use base::{HostId, WireKind};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Where a link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// No child serves the peer just now; the supervisor starts one.
    Starting,
    /// The host's name is being looked up, or the TCP connection is being made.
    Connecting,
    /// The opening dialogue is under way.
    Opening,
    /// Requests are answered.
    Up,
    /// The last attempt failed or the link was lost; the next dial is at a known time.
    Down,
    /// The child answers what it has and ends.
    Draining,
    /// `lonc` was stopped.
    Stopped,
}

impl LinkState {
    /// The word that every view uses: `up`, `down`, ...
    pub fn as_str(self) -> &'static str {
        match self {
            LinkState::Starting => "starting",
            LinkState::Connecting => "connecting",
            LinkState::Opening => "opening",
            LinkState::Up => "up",
            LinkState::Down => "down",
            LinkState::Draining => "draining",
            LinkState::Stopped => "stopped",
        }
    }
}

/// What is known of one peer's link at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The host called.
    pub peer: HostId,
    /// Process that serves it; 0 when there is none.
    pub pid: u32,
    /// Where the link stands.
    pub state: LinkState,
    /// Since when it is up, or since when it is not: dialling in vain does not make an outage
    /// younger.
    pub since: Timestamp,
    /// When the peer is dialled next, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_dial: Option<Timestamp>,
    /// What the child does, in words (`up`, `connecting to 127.0.0.2:5663`, `down, next dial in 4
    /// s`).
    pub doing: String,
    /// `classic` or `secure`.
    pub wire: String,
    /// Whether what crosses the link is enciphered so that only the peer can read it.
    pub private: bool,
    /// The pin of this host's own key that the peer is shown; none on the classic wire, or without
    /// a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_pin: Option<String>,
    /// What confines the process: `Landlock 7, seccomp`, or `nothing`; none where there is no
    /// process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// Requests sent on the link whose answers have not come.
    pub in_flight: u64,
    /// Requests answered by the peer since the child started.
    pub done: u64,
    /// Requests that the broker answered itself with `con_lost`, `con_failed` or `error:` since the
    /// child started.
    pub lost: u64,
    /// Requests that programs may not ask by `[[local]]`, since the child started.
    #[serde(default)]
    pub refused: u64,
    /// Local programs connected.
    pub clients: u64,
    /// Messages in the spool.
    pub delayed: u64,
    /// Their bytes, newlines not counted.
    pub delayed_bytes: u64,
    /// When the oldest of them was stored.
    pub oldest: Option<Timestamp>,
    /// Messages in `failed/`.
    pub failed: u64,
    /// Files in `corrupt/`.
    pub corrupt: u64,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
    /// When it did.
    pub last_error_at: Option<Timestamp>,
    /// The link has come up since: it is no trouble any more.
    #[serde(default)]
    pub last_error_past: bool,
    /// The last line that the process logged.
    pub last_log: String,
    /// Handlers at the peer that do not take messages just now.
    #[serde(default)]
    pub away: Vec<AwayStatus>,
}

/// A handler at a peer that did not take a critical message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwayStatus {
    /// Its command: the word that its requests begin with; empty for those that have no order of
    /// their own.
    pub handler: String,
    /// When it was found away.
    pub since: Timestamp,
    /// What the peer says.
    pub why: String,
    /// Its messages that others go past; none as long as all wait for it.
    pub held: Option<u64>,
}

impl PeerStatus {
    /// Of a link of which nothing is known but that a child is to be started for it.
    pub fn starting(peer: HostId, wire: WireKind, since: Timestamp) -> PeerStatus {
        PeerStatus {
            peer,
            pid: 0,
            state: LinkState::Starting,
            since,
            next_dial: None,
            doing: LinkState::Starting.as_str().to_owned(),
            wire: wire.as_str().to_owned(),
            private: wire.is_private(),
            own_pin: None,
            sandbox: None,
            in_flight: 0,
            done: 0,
            lost: 0,
            refused: 0,
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

    /// Whether what went wrong last is past by the times that are told.
    pub fn error_is_past(&self) -> bool {
        self.state == LinkState::Up && self.last_error_at.is_some_and(|at| at <= self.since)
    }
}

/// When something was by a clock that nobody sets: seconds since the machine's start, and which
/// start that was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uptime {
    /// The kernel's name for this start of the machine.
    pub boot: String,
    /// Seconds from that start to the moment that is told.
    pub seconds: u64,
}

impl Uptime {
    /// How long ago this was at `now`; `None` when the machine was started again since.
    pub fn age(&self, now: &Uptime) -> Option<Duration> {
        (self.boot == now.boot).then(|| Duration::from_secs(now.seconds.saturating_sub(self.seconds)))
    }
}

/// A snapshot as one line of JSON, without a newline.
pub fn json(snapshot: &impl Serialize) -> String {
    // Texts, numbers and times always have a JSON form; should one not, that is told where it is
    // looked for.
    serde_json::to_string(snapshot)
        .unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }).to_string())
}

/// The snapshot in the first line of what was written or answered; lines behind it are not looked
/// at.
///
/// # Errors
/// It is none.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(text.split(|&byte| byte == b'\n').next().unwrap_or_default())
}

/// `text` with whatever could end a line, move a column, steer a terminal or turn the text as a
/// space.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if steers(c) { ' ' } else { c }).collect()
}

/// The line that says why the last HUP left the program as it was, if it did.
fn not_restarted(why: Option<&str>) -> String {
    why.map_or_else(String::new, |why| format!("not restarted: {}\n", one_line(why)))
}

/// All links of one `lonc`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// `lonc`.
    pub program: String,
    /// Version of the program.
    pub version: String,
    /// This host.
    pub id: HostId,
    /// Process id of the supervisor.
    pub pid: u32,
    /// When it started.
    pub started: Timestamp,
    /// When this snapshot was made.
    pub written: Timestamp,
    /// The same by the machine's uptime, which tells the snapshot's age after the clock was set,
    /// too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_uptime: Option<Uptime>,
    /// What the supervisor does, in words.
    pub doing: String,
    /// The delayed directory: where messages go while the broker is away, whatever is wrong with
    /// its files by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "base::json_path::optional")]
    pub spool_dir: Option<PathBuf>,
    /// The pin of this host's own key, where one is needed and there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_pin: Option<String>,
    /// Why the last HUP left the program as it was, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_restarted: Option<String>,
    /// The last line that it logged.
    pub last_log: String,
    /// One entry a peer, in the order of `hosts.tab`.
    pub peers: Vec<PeerStatus>,
}

#[cfg(test)]
pub(crate) mod fixture {
    use super::*;

    pub(super) fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    pub(crate) fn peer(id: &str, state: LinkState, since: &str) -> PeerStatus {
        let id = HostId::new(id).expect("an id");
        PeerStatus {
            pid: 4711,
            state,
            doing: state.as_str().to_owned(),
            ..PeerStatus::starting(id, WireKind::Classic, time(since))
        }
    }

    pub(super) fn snapshot(peers: Vec<PeerStatus>) -> Snapshot {
        Snapshot {
            program: "lonc".into(),
            version: "0.1.0".into(),
            id: HostId::new("msua1").expect("an id"),
            pid: 4700,
            started: time("2026-11-06T08:00:00Z"),
            written: time("2026-11-20T09:12:14Z"),
            written_uptime: None,
            doing: "keeping 2 links".into(),
            spool_dir: None,
            own_pin: None,
            not_restarted: None,
            last_log: "started".into(),
            peers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_one_line_and_reads_back_the_same() {
        let mut peer = fixture::peer("msul1", LinkState::Down, "2026-11-20T09:00:00Z");
        peer.last_error = Some("two\nlines\tand a \"quote\"".into());
        peer.last_error_at = Some(peer.since);
        peer.oldest = Some(peer.since);
        let snapshot = fixture::snapshot(vec![peer]);
        let text = json(&snapshot);
        assert!(!text.contains('\n'));
        assert!(text.contains(r#""state":"down""#), "{text}");
        assert_eq!(serde_json::from_str::<Snapshot>(&text).expect("our own JSON"), snapshot);
    }
}
