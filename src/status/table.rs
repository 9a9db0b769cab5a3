//! The table of `lon status`, for a tired person: what matters most stands on top and at the left.
//!
//! A summary line, then a line a peer. A column that would be empty throughout is left out; the
//! last error, which may be long, stands at the end, whole, or cut in its middle where the lines
//! are to fit a terminal.

use super::columns::{Head, columns, columns_within};
use super::{LinkState, PeerStatus, Snapshot, not_restarted, one_line};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

/// What stands before an error that is none any more.
pub(super) const PAST: &str = "past: ";

/// A time that lies further ahead than this is of another clock: this one was set since.
const AHEAD: SignedDuration = SignedDuration::from_secs(5);

const HEADS: [Head; 10] = [
    Head::left("PEER"),
    Head::left("STATE"),
    Head::left("NEXT DIAL"),
    Head::left("WIRE"),
    Head::right("IN FLIGHT"),
    Head::right("DONE"),
    Head::right("LOST"),
    Head::left("DELAYED"),
    Head::left("SET ASIDE"),
    Head::left("LAST ERROR"),
];

/// The order in which the summary counts states.
const STATES: [LinkState; 7] = [
    LinkState::Up,
    LinkState::Opening,
    LinkState::Connecting,
    LinkState::Down,
    LinkState::Starting,
    LinkState::Draining,
    LinkState::Stopped,
];

/// The table as it is at `now`. The clock times of errors are those of `zone`. With `width` no line
/// but a narrow terminal's has more characters. `running`: it is what `lonc` says now, not what it
/// said last.
pub fn table(
    snapshot: &Snapshot,
    now: Timestamp,
    zone: &TimeZone,
    width: Option<usize>,
    running: bool,
) -> String {
    let mut text = summary(&snapshot.peers);
    text.push('\n');
    text.push_str(&not_restarted(snapshot.not_restarted.as_deref()));
    if snapshot.peers.is_empty() {
        return text;
    }
    let rows: Vec<Vec<String>> = snapshot
        .peers
        .iter()
        .map(|peer| {
            vec![
                peer.peer.to_string(),
                state(peer, now, running),
                next_dial(peer, now),
                wire(peer),
                peer.in_flight.to_string(),
                peer.done.to_string(),
                if peer.lost == 0 { String::new() } else { peer.lost.to_string() },
                delayed(peer, now),
                set_aside(peer.failed, peer.corrupt),
                last_error(peer, now, zone),
            ]
        })
        .collect();
    text + &match width {
        Some(width) => columns_within(&HEADS, &rows, width),
        None => columns(&HEADS, &rows),
    }
}

/// How long ago `then` was, in its largest unit: `4 s`, `5 min`, `3 h`, `12 d`. A time yet to come,
/// as two clocks may have it, is `0 s`.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    age(now.duration_since(then))
}

/// A length of time in its largest unit; less than none is `0 s`.
pub fn age(age: SignedDuration) -> String {
    let seconds = age.as_secs().max(0);
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `3 links: 2 up, 1 down; 12 messages delayed`.
fn summary(peers: &[PeerStatus]) -> String {
    let count = |state: LinkState| peers.iter().filter(|peer| peer.state == state).count();
    let total = |number: fn(&PeerStatus) -> u64| peers.iter().map(number).fold(0, u64::saturating_add);
    let mut text = match peers.len() {
        0 => return "no links: no other host in hosts.tab".to_owned(),
        1 => "1 link: ".to_owned(),
        many => format!("{many} links: "),
    };
    let states: Vec<String> = STATES
        .into_iter()
        .map(|state| (count(state), state.as_str()))
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    text.push_str(&states.join(", "));
    match total(|peer| peer.delayed) {
        0 => text.push_str("; no messages delayed"),
        1 => text.push_str("; 1 message delayed"),
        many => text.push_str(&format!("; {many} messages delayed")),
    }
    let aside = set_aside(total(|peer| peer.failed), total(|peer| peer.corrupt));
    if !aside.is_empty() {
        text.push_str(&format!(", {aside}"));
    }
    text
}

/// `up 3 h`; `was up 3 h` of a broker that does not say it any more.
pub(super) fn state(peer: &PeerStatus, now: Timestamp, running: bool) -> String {
    let was = if running || peer.state == LinkState::Stopped { "" } else { "was " };
    format!("{was}{} {}", peer.state.as_str(), ago(peer.since, now))
}

/// `in 4 s`, for a link that waits for its next dial.
pub(super) fn next_dial(peer: &PeerStatus, now: Timestamp) -> String {
    peer.next_dial.map_or_else(String::new, |at| format!("in {}", age(at.duration_since(now))))
}

pub(super) fn wire(peer: &PeerStatus) -> String {
    let wire = one_line(&peer.wire);
    if peer.private { wire } else { format!("{wire}, not private") }
}

/// `12, oldest 5 min`; `-` for none, so that the eye finds those that have some.
fn delayed(peer: &PeerStatus, now: Timestamp) -> String {
    match (peer.delayed, peer.oldest) {
        (0, _) => "-".to_owned(),
        (count, None) => count.to_string(),
        (count, Some(oldest)) => format!("{count}, oldest {}", stored(oldest, now)),
    }
}

/// How long ago a message was stored, by the clock of then. Which clock was right nobody knows.
pub(super) fn stored(then: Timestamp, now: Timestamp) -> String {
    match then.duration_since(now) {
        ahead if ahead > AHEAD => format!("{} ahead: the clock was set", age(ahead)),
        _ => ago(then, now),
    }
}

/// `1 failed, 2 corrupt`; nothing for none.
pub fn set_aside(failed: u64, corrupt: u64) -> String {
    let counts = [(failed, "failed"), (corrupt, "corrupt")];
    let parts: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    parts.join(", ")
}

/// `09:12:10 connect: refused`; the date too when it was more than a day ago; `past: ` before one
/// that is over.
fn last_error(peer: &PeerStatus, now: Timestamp, zone: &TimeZone) -> String {
    let Some(error) = &peer.last_error else { return String::new() };
    let past = if peer.last_error_past { PAST } else { "" };
    match peer.last_error_at {
        None => format!("{past}{}", one_line(error)),
        Some(at) => {
            let form = if now.duration_since(at).as_hours() < 24 { "%H:%M:%S" } else { "%Y-%m-%d %H:%M" };
            format!("{past}{} {}", at.to_zoned(zone.clone()).strftime(form), one_line(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    const NOW: &str = "2026-11-20T09:12:14Z";

    fn shown(peers: Vec<PeerStatus>) -> String {
        table(&fixture::snapshot(peers), fixture::time(NOW), &TimeZone::UTC, None, true)
    }

    #[test]
    fn a_tired_person_sees_what_is_down_and_what_waits() {
        let mut up = fixture::peer("msul1", LinkState::Up, "2026-11-20T06:10:00Z");
        (up.in_flight, up.done) = (3, 120_417);
        up.last_error = Some("reset by peer".into());
        up.last_error_at = Some(fixture::time("2026-11-20T06:09:58Z"));
        up.last_error_past = true;
        let mut down = fixture::peer("a-long-name", LinkState::Down, "2026-11-20T09:12:10Z");
        (down.delayed, down.oldest) = (12, Some(fixture::time("2026-11-20T09:07:00Z")));
        (down.lost, down.next_dial) = (31, Some(fixture::time("2026-11-20T09:12:40Z")));
        down.last_error = Some("connect 127.0.0.2:5663:\nconnection refused".into());
        down.last_error_at = Some(fixture::time("2026-11-20T09:12:10Z"));
        let mut secure = fixture::peer("msul3", LinkState::Connecting, "2026-11-20T09:12:12Z");
        (secure.wire, secure.private) = ("secure".into(), true);
        (secure.failed, secure.corrupt) = (1, 2);
        secure.last_error = Some("x".repeat(100));
        secure.last_error_at = Some(fixture::time("2026-11-18T09:12:10Z"));
        let peers = vec![up, down, secure];
        let long = "x".repeat(100);
        let text = shown(peers.clone());
        assert_eq!(
            text,
            format!(
                "3 links: 1 up, 1 connecting, 1 down; 12 messages delayed, 1 failed, 2 corrupt\n\
                 PEER         STATE           NEXT DIAL  WIRE                  IN FLIGHT    DONE  LOST  DELAYED           SET ASIDE            LAST ERROR\n\
                 msul1        up 3 h                     classic, not private          3  120417        -                                      past: 06:09:58 reset by peer\n\
                 a-long-name  down 4 s        in 26 s    classic, not private          0       0    31  12, oldest 5 min                       09:12:10 connect 127.0.0.2:5663: connection refused\n\
                 msul3        connecting 2 s             secure                        0       0        -                 1 failed, 2 corrupt  2026-11-18 09:12 {long}\n"
            ),
            "in a pipe nothing is cut"
        );
        let text = table(&fixture::snapshot(peers), fixture::time(NOW), &TimeZone::UTC, Some(160), true);
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest == Some(160) && text.contains("09:12:10") && text.contains("refused\n"), "{text}");
    }

    #[test]
    fn what_a_broker_said_last_does_not_pass_for_what_is() {
        let up = fixture::peer("msul1", LinkState::Up, "2026-11-20T06:10:00Z");
        let stopped = fixture::peer("msul2", LinkState::Stopped, "2026-11-20T09:02:14Z");
        let snapshot = fixture::snapshot(vec![up, stopped]);
        let text = table(&snapshot, fixture::time(NOW), &TimeZone::UTC, None, false);
        assert!(text.starts_with("2 links: 1 up, 1 stopped; "), "{text}");
        assert!(text.contains("\nmsul1  was up 3 h ") && text.contains("\nmsul2  stopped 10 min "), "{text}");
    }

    #[test]
    fn a_message_from_a_clock_that_was_ahead_is_not_shown_as_new() {
        let now = fixture::time(NOW);
        assert_eq!(stored(now + SignedDuration::from_secs(2), now), "0 s");
        assert_eq!(stored(now + SignedDuration::from_hours(30), now), "30 h ahead: the clock was set");
        assert_eq!(stored(now - SignedDuration::from_hours(30), now), "30 h");
    }

    #[test]
    fn columns_that_have_nothing_to_say_are_left_out() {
        let text = shown(vec![fixture::peer("msul1", LinkState::Up, NOW)]);
        assert_eq!(
            text,
            "1 link: 1 up; no messages delayed\n\
             PEER   STATE   WIRE                  IN FLIGHT  DONE  DELAYED\n\
             msul1  up 0 s  classic, not private          0     0  -\n"
        );
        assert_eq!(shown(vec![]), "no links: no other host in hosts.tab\n");
        let stayed =
            Snapshot { not_restarted: Some("it ended (exited with 1)".into()), ..fixture::snapshot(vec![]) };
        let text = table(&stayed, fixture::time(NOW), &TimeZone::UTC, None, true);
        assert_eq!(text, format!("{}not restarted: it ended (exited with 1)\n", shown(vec![])));
    }

    #[test]
    fn ages_are_given_in_their_largest_unit() {
        let now = fixture::time(NOW);
        for (seconds, said) in [
            (-5, "0 s"),
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (3600, "1 h"),
            (172_799, "47 h"),
            (172_800, "2 d"),
        ] {
            let then = now - jiff::SignedDuration::from_secs(seconds);
            assert_eq!(ago(then, now), said);
        }
    }
}
