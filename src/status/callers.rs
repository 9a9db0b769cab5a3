//! What `lond` tells: who has a link to this host, and who was turned away.

use super::HandlerStatus;
use super::columns::{Head, columns};
use super::{Uptime, ago, not_restarted, one_line};
use base::{HostId, WireKind};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

const HEADS: [Head; 5] =
    [Head::left("CALLER"), Head::left("SINCE"), Head::left("WIRE"), Head::left("FROM"), Head::right("PID")];

/// One link that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerStatus {
    /// The host at the other end.
    pub caller: HostId,
    /// What is spoken.
    pub wire: WireKind,
    /// Whether only the two hosts can read what crosses the link.
    pub private: bool,
    /// When it was open.
    pub since: Timestamp,
    /// Process that serves it.
    pub pid: u32,
    /// Where it comes from.
    pub address: SocketAddr,
    /// The pin that the caller's key matched; none on the classic wire.
    pub pin: Option<String>,
    /// The pin of this host's own key that it was shown; none on the classic wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_pin: Option<String>,
    /// What confines the process: `Landlock 7, seccomp`, or `nothing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// Another address from which links of the same host come in turns with this one: two machines
    /// with one key, most likely.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rival: Option<IpAddr>,
}

/// An address that is to be listened on and cannot be; it is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotListening {
    /// As the configuration has it.
    pub address: SocketAddr,
    /// What the system said last.
    pub why: String,
}

/// A host that had a link and has none now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoneCaller {
    /// The host that was at the other end.
    pub caller: HostId,
    /// What was spoken.
    pub wire: WireKind,
    /// When its last link was opened.
    pub last: Timestamp,
}

/// All links to one `lond`. Counts are since [`ServeSnapshot::started`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServeSnapshot {
    /// `lond`.
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
    /// The pin of this host's own key, where one is needed and there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_pin: Option<String>,
    /// Why the last HUP left the program as it was, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_restarted: Option<String>,
    /// The last line that it logged.
    pub last_log: String,
    /// What it listens on.
    pub listen: Vec<SocketAddr>,
    /// What it is to listen on and cannot; not there in what an older program wrote.
    #[serde(default)]
    pub not_listening: Vec<NotListening>,
    /// How each handler of the configuration does, in its order.
    #[serde(default)]
    pub handlers: Vec<HandlerStatus>,
    /// The built-in requests that callers were refused: the name, and how often.
    #[serde(default)]
    pub refused_builtins: BTreeMap<String, u64>,
    /// Every link that was opened and has not ended, by caller; an older one of the same caller is
    /// on its way out.
    pub links: Vec<CallerStatus>,
    /// Hosts of the table that have had a link since the start and have none now.
    #[serde(default)]
    pub gone: Vec<GoneCaller>,
    /// Connections now whose callers are not known yet.
    pub opening: usize,
    /// Most of them.
    pub max_opening: usize,
    /// Connections refused by their address.
    pub refused: u64,
    /// Connections closed because others were in the opening dialogue: newcomers, and those that
    /// gave way to one.
    pub crowded: u64,
    /// Connections whose callers were turned away: a wrong key, no key, nonsense.
    pub unauthenticated: u64,
    /// Link children killed.
    pub killed: u64,
}

/// The table of callers as it is at `now`: a summary line, then a line a link.
pub fn callers(snapshot: &ServeSnapshot, now: Timestamp) -> String {
    let mut text = summary(snapshot, now);
    text.push('\n');
    for NotListening { address, why } in &snapshot.not_listening {
        text.push_str(&format!("not listening on {address}: {}; tried again\n", one_line(why)));
    }
    text.push_str(&not_restarted(snapshot.not_restarted.as_deref()));
    for handler in &snapshot.handlers {
        text.push_str(&handler.line(now));
    }
    for (name, refused) in &snapshot.refused_builtins {
        text.push_str(&format!("built-in {name}: {refused} refused\n"));
    }
    if snapshot.links.is_empty() {
        return text;
    }
    let rows: Vec<Vec<String>> = snapshot
        .links
        .iter()
        .map(|link| {
            let wire = link.wire.as_str();
            vec![
                link.caller.to_string(),
                ago(link.since, now),
                if link.private { wire.to_owned() } else { format!("{wire}, not private") },
                link.address.to_string(),
                link.pid.to_string(),
            ]
        })
        .collect();
    text.push_str(&columns(&HEADS, &rows));
    // Links are in the order of their callers: a line each, of the newest link.
    for links in snapshot.links.chunk_by(|one, next| one.caller == next.caller) {
        text.push_str(&links.last().and_then(rivalry).unwrap_or_default());
    }
    text
}

/// What is to be said of a host whose key two machines seem to have.
fn rivalry(link: &CallerStatus) -> Option<String> {
    let (caller, here, there) = (&link.caller, link.address.ip(), link.rival?);
    Some(format!(
        "{caller}: links come from {here} and {there} in turns, each ends the other: two machines with one key? \
         Give one an id and a key of its own\n"
    ))
}

/// `2 callers on 127.0.0.1:5663, 1 opening; in 3 h: 20 refused, 4 not authenticated, 9 beyond
/// max_opening, 1 killed`
fn summary(snapshot: &ServeSnapshot, now: Timestamp) -> String {
    let mut text = match snapshot.links.len() {
        0 => "no callers".to_owned(),
        1 => "1 caller".to_owned(),
        many => format!("{many} callers"),
    };
    match snapshot.listen.as_slice() {
        [] => text.push_str(&format!(", {}", one_line(&snapshot.doing))),
        listen => {
            let listen: Vec<String> = listen.iter().map(SocketAddr::to_string).collect();
            text.push_str(&format!(" on {}", listen.join(", ")));
        }
    }
    if snapshot.opening > 0 {
        text.push_str(&format!(", {} opening", snapshot.opening));
    }
    let counts: Vec<String> = [
        (snapshot.refused, "refused"),
        (snapshot.unauthenticated, "not authenticated"),
        (snapshot.crowded, "beyond max_opening"),
        (snapshot.killed, "killed"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, word)| format!("{count} {word}"))
    .collect();
    if !counts.is_empty() {
        text.push_str(&format!("; in {}: {}", ago(snapshot.started, now), counts.join(", ")));
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{fixture, json};

    const NOW: &str = "2026-11-20T09:12:14Z";

    pub(crate) fn snapshot(links: Vec<CallerStatus>) -> ServeSnapshot {
        ServeSnapshot {
            program: "lond".into(),
            version: "0.1.0".into(),
            id: HostId::new("msua1").expect("an id"),
            pid: 4600,
            started: fixture::time("2026-11-20T06:00:00Z"),
            written: fixture::time(NOW),
            written_uptime: None,
            doing: "serving".into(),
            own_pin: None,
            not_restarted: None,
            last_log: String::new(),
            listen: vec!["127.0.0.3:5663".parse().expect("an address")],
            not_listening: Vec::new(),
            handlers: Vec::new(),
            refused_builtins: BTreeMap::new(),
            links,
            gone: vec![],
            opening: 0,
            max_opening: 64,
            refused: 0,
            crowded: 0,
            unauthenticated: 0,
            killed: 0,
        }
    }

    pub(crate) fn link(caller: &str, wire: WireKind) -> CallerStatus {
        CallerStatus {
            caller: HostId::new(caller).expect("an id"),
            wire,
            private: wire.is_private(),
            since: fixture::time("2026-11-20T09:02:14Z"),
            pid: 4611,
            address: "127.0.0.2:40000".parse().expect("an address"),
            pin: wire.is_private().then(|| "sha256:AAAA".into()),
            rival: None,
            own_pin: wire.is_private().then(|| "sha256:BBBB".into()),
            sandbox: Some("Landlock 7, seccomp".into()),
        }
    }

    #[test]
    fn a_classic_caller_is_marked_not_private_and_what_was_turned_away_is_counted() {
        let mut busy = snapshot(vec![link("msul1", WireKind::Secure), link("msul2", WireKind::Classic)]);
        (busy.opening, busy.refused, busy.crowded) = (1, 20, 9);
        (busy.unauthenticated, busy.killed) = (4, 1);
        assert_eq!(
            callers(&busy, fixture::time(NOW)),
            "2 callers on 127.0.0.3:5663, 1 opening; in 3 h: 20 refused, 4 not authenticated, 9 beyond max_opening, \
             1 killed\n\
             CALLER  SINCE   WIRE                  FROM              PID\n\
             msul1   10 min  secure                127.0.0.2:40000  4611\n\
             msul2   10 min  classic, not private  127.0.0.2:40000  4611\n"
        );
        assert_eq!(callers(&snapshot(vec![]), fixture::time(NOW)), "no callers on 127.0.0.3:5663\n");
        let address = "10.0.0.3:5663".parse().expect("an address");
        let half = ServeSnapshot {
            not_listening: vec![NotListening { address, why: "Cannot assign\nit".into() }],
            ..snapshot(vec![])
        };
        assert_eq!(
            callers(&half, fixture::time(NOW)),
            "no callers on 127.0.0.3:5663\nnot listening on 10.0.0.3:5663: Cannot assign it; tried again\n"
        );
        let stayed = ServeSnapshot { not_restarted: Some("exec: no\nsuch file".into()), ..snapshot(vec![]) };
        assert_eq!(
            callers(&stayed, fixture::time(NOW)),
            "no callers on 127.0.0.3:5663\nnot restarted: exec: no such file\n"
        );
    }

    #[test]
    fn two_machines_with_one_key_are_told_with_both_addresses() {
        let rival = Some("127.0.0.9".parse().expect("an address"));
        let text = callers(
            &snapshot(vec![CallerStatus { rival, ..link("msul1", WireKind::Secure) }]),
            fixture::time(NOW),
        );
        let told = text.lines().last().expect("a line");
        assert!(told.starts_with("msul1: links come from 127.0.0.2 and 127.0.0.9 in turns"), "{text}");
    }

    #[test]
    fn the_json_reads_back_the_same() {
        let rival = Some("127.0.0.9".parse().expect("an address"));
        let snapshot = snapshot(vec![CallerStatus { rival, ..link("msul1", WireKind::Secure) }]);
        let text = json(&snapshot);
        assert!(text.contains(r#""wire":"secure","private":true"#), "{text}");
        assert_eq!(serde_json::from_str::<ServeSnapshot>(&text).expect("our own JSON"), snapshot);
    }
}
