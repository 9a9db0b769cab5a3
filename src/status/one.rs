//! `lon status PEER`: all that is known of one peer, a line each, nothing cut.
//!
//! What is not known or does not apply has no line. The names at the left are those of the JSON
//! fields as far as a person wants them.

use super::table::{PAST, next_dial, state, stored, wire};
use super::{CallerStatus, PeerStatus, ServeSnapshot, ago, one_line, set_aside};
use jiff::{Timestamp, tz::TimeZone};

/// Columns that the names at the left take.
const NAMES: usize = 12;

/// The peer as it is at `now`, and the links that it has made to `lond`, as old as that says; clock
/// times are those of `zone`. `running`: it is what `lonc` says now, not what it said last.
pub fn one_peer(
    peer: &PeerStatus,
    lond: Option<&ServeSnapshot>,
    now: Timestamp,
    zone: &TimeZone,
    running: bool,
) -> String {
    let clock = |at: Timestamp| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string();
    let mut text = format!("{}\n", peer.peer);
    let mut line = |name: &str, what: &str| {
        if !what.is_empty() {
            text.push_str(&format!("  {:NAMES$}{}\n", format!("{name}:"), one_line(what)));
        }
    };
    line("link", &format!("{}, since {}", state(peer, now, running), clock(peer.since)));
    line("next dial", &next_dial(peer, now));
    line("doing", &peer.doing);
    line("wire", &wire(peer));
    line("own key", peer.own_pin.as_deref().unwrap_or_default());
    line("process", &if peer.pid == 0 { String::new() } else { peer.pid.to_string() });
    line("sandbox", peer.sandbox.as_deref().unwrap_or_default());
    let PeerStatus { in_flight, done, lost, clients, refused, .. } = peer;
    let refused = if *refused > 0 { format!(", {refused} refused") } else { String::new() };
    line(
        "requests",
        &format!(
            "{in_flight} in flight, {done} answered, {lost} lost{refused}; {clients} programs connected"
        ),
    );
    line(
        "delayed",
        &match (peer.delayed, peer.oldest) {
            (0, _) => "nothing waits".to_owned(),
            (count, None) => format!("{count} messages, {} bytes", peer.delayed_bytes),
            (count, Some(oldest)) => {
                format!("{count} messages, {} bytes, oldest {}", peer.delayed_bytes, stored(oldest, now))
            }
        },
    );
    line("set aside", &set_aside(peer.failed, peer.corrupt));
    if let Some(error) = &peer.last_error {
        let past = if peer.last_error_past { PAST } else { "" };
        let when = peer.last_error_at.map(|at| format!("{} ({} ago) ", clock(at), ago(at, now)));
        line("last error", &format!("{past}{}{error}", when.unwrap_or_default()));
    }
    for away in &peer.away {
        let held =
            away.held.map_or_else(String::new, |held| format!("; others go past {held} of its messages"));
        let handler = if away.handler.is_empty() { "a handler" } else { &away.handler };
        line("away", &format!("{handler}, for {}: {}{held}", ago(away.since, now), away.why));
    }
    line("last log", &peer.last_log);
    let calls = lond.iter().flat_map(|lond| lond.links.iter().map(|link| (link, lond.written)));
    for (caller, now) in calls.filter(|(link, _)| link.caller == peer.peer) {
        let CallerStatus { wire, since, pid, address, .. } = caller;
        let private = if caller.private { "" } else { ", not private" };
        let sandbox = caller.sandbox.as_ref().map_or_else(String::new, |what| format!(", sandbox: {what}"));
        let what = format!(
            "since {} ({}), {}{private}, from {address}, process {pid}{sandbox}",
            clock(*since),
            ago(*since, now),
            wire.as_str()
        );
        line("calls us", &what);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callers::tests::{link, snapshot as served};
    use crate::{LinkState, fixture};
    use base::WireKind;

    fn caller(id: &str) -> CallerStatus {
        CallerStatus { address: "127.0.0.2:40000".parse().expect("an address"), ..link(id, WireKind::Secure) }
    }

    const NOW: &str = "2026-11-20T09:12:14Z";

    #[test]
    fn all_is_said_of_one_peer_and_nothing_is_cut() {
        let mut peer = fixture::peer("msul1", LinkState::Down, "2026-11-20T09:07:14Z");
        peer.doing = "down, next dial in 4.0 s".into();
        peer.next_dial = Some(fixture::time("2026-11-20T09:12:18Z"));
        (peer.in_flight, peer.done, peer.lost, peer.clients) = (1, 2, 3, 4);
        (peer.delayed, peer.delayed_bytes, peer.oldest) = (5, 60, Some(peer.since));
        peer.failed = 1;
        let long = format!("connect 127.0.0.2:5663: {}", "why ".repeat(200));
        peer.last_error = Some(format!("{long}\nend"));
        peer.last_error_at = Some(fixture::time("2026-11-20T09:12:10Z"));
        peer.last_log = "opening -> down".into();
        // By another clock, and one of another host.
        let (mine, other) = (caller("msul1"), caller("msul2"));
        let lond =
            ServeSnapshot { written: fixture::time("2026-11-20T09:22:14Z"), ..served(vec![mine, other]) };
        let show = |peer: &PeerStatus, lond: Option<&ServeSnapshot>, running| {
            one_peer(peer, lond, fixture::time(NOW), &TimeZone::UTC, running)
        };
        assert_eq!(
            show(&peer, Some(&lond), true),
            format!(
                "msul1\n  \
                 link:       down 5 min, since 2026-11-20 09:07:14\n  \
                 next dial:  in 4 s\n  \
                 doing:      down, next dial in 4.0 s\n  \
                 wire:       classic, not private\n  \
                 process:    4711\n  \
                 requests:   1 in flight, 2 answered, 3 lost; 4 programs connected\n  \
                 delayed:    5 messages, 60 bytes, oldest 5 min\n  \
                 set aside:  1 failed\n  \
                 last error: 2026-11-20 09:12:10 (4 s ago) {long} end\n  \
                 last log:   opening -> down\n  \
                 calls us:   since 2026-11-20 09:02:14 (20 min), secure, from 127.0.0.2:40000, process 4611, sandbox: Landlock 7, \
                 seccomp\n"
            )
        );
        let mut up = fixture::peer("msul1", LinkState::Up, NOW);
        (up.last_error, up.last_error_past) = (Some("reset by peer".into()), true);
        let text = show(&up, None, false);
        assert!(text.contains("link:       was up 0 s") && text.contains("past: reset by peer"), "{text}");
        assert!(!text.contains("next dial") && !text.contains("calls us"), "{text}");
    }
}
