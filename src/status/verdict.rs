//! Whether all is well: what `lon status --check` says of two snapshots. Pure.
//!
//! | what | is |
//! | --- | --- |
//! | a link that is not up: its last attempt failed, or for [`FIRST_DIAL`] there was none that ended | bad |
//! | a link that is not up yet, or that ends | a warning |
//! | an error since the link is up: messages that could not be stored, for instance | a warning |
//! | messages that wait for longer than [`WAITS_LONG`] although the link is up | a warning |
//! | a handler at the peer that takes no messages, or one of this host that hosts' messages wait for | a warning |
//! | an address that `lond` is to listen on and cannot | a warning |
//! | something in `failed/` or `corrupt/` | a warning: a person is to look |
//! | a HUP after which the old program went on | a warning |
//!
//! That a program does not run, or may not be asked, is for whoever asks to say.

use super::{LinkState, PeerStatus, ServeSnapshot, Snapshot, ago, one_line, set_aside};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

/// How long a link may take to come up before that is bad, when no attempt has failed.
pub(crate) const FIRST_DIAL: SignedDuration = SignedDuration::from_secs(30);

/// How long a message may wait for a host whose link is up.
pub(crate) const WAITS_LONG: SignedDuration = SignedDuration::from_mins(5);

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Somebody is to look, by day.
    Warning,
    /// Something does not work.
    Bad,
}

impl Level {
    /// `warning`, `bad`.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Warning => "warning",
            Level::Bad => "bad",
        }
    }
}

/// One thing that is not well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is about: a peer's id, or a program's name.
    pub about: String,
    /// What it is, as one line.
    pub what: String,
}

impl Finding {
    /// A finding; `what` becomes one line.
    pub fn new(level: Level, about: impl ToString, what: &str) -> Finding {
        Finding { level, about: about.to_string(), what: one_line(what) }
    }
}

/// What is not well, the worst first. `now`: by the clock of the snapshots.
pub fn findings(lonc: &Snapshot, lond: Option<&ServeSnapshot>, now: Timestamp) -> Vec<Finding> {
    let mut found = Vec::new();
    for peer in &lonc.peers {
        look_at(peer, now, &mut found);
    }
    let restarts = [
        ("lonc", lonc.not_restarted.as_deref()),
        ("lond", lond.and_then(|lond| lond.not_restarted.as_deref())),
    ];
    for (program, why) in restarts {
        if let Some(why) = why {
            found.push(Finding::new(Level::Warning, program, &format!("not restarted: {why}")));
        }
    }
    for handler in lond.iter().flat_map(|lond| &lond.handlers) {
        let why = handler.last_error.as_deref().unwrap_or("it takes no messages");
        let what = match handler.waiting {
            0 if handler.is_unable() => format!("its program cannot be run: {why}"),
            0 => continue,
            hosts => format!("messages of {hosts} hosts wait for it: {why}"),
        };
        found.push(Finding::new(Level::Warning, format!("handler {}", handler.name), &what));
    }
    for missing in lond.iter().flat_map(|lond| &lond.not_listening) {
        let what = format!("not listening on {}: {}; tried again", missing.address, missing.why);
        found.push(Finding::new(Level::Warning, "lond", &what));
    }
    found.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    found
}

fn look_at(peer: &PeerStatus, now: Timestamp, found: &mut Vec<Finding>) {
    let mut say = |level, what: &str| found.push(Finding::new(level, &peer.peer, what));
    let stands = format!("{} {}", peer.state.as_str(), ago(peer.since, now));
    let trouble = peer.last_error.as_ref().filter(|_| !peer.last_error_past);
    match (peer.state, trouble) {
        (LinkState::Up, None) => {}
        (LinkState::Up, Some(error)) => say(Level::Warning, &format!("{stands}, and since then: {error}")),
        (LinkState::Draining | LinkState::Stopped, _) => say(Level::Warning, &stands),
        (LinkState::Starting | LinkState::Connecting | LinkState::Opening | LinkState::Down, Some(error)) => {
            say(Level::Bad, &format!("{stands}: {error}"));
        }
        (LinkState::Starting | LinkState::Connecting | LinkState::Opening | LinkState::Down, None) => {
            let long = now.duration_since(peer.since) >= FIRST_DIAL;
            say(if long { Level::Bad } else { Level::Warning }, &format!("{stands}: not up yet"));
        }
    }
    if let (LinkState::Up, Some(oldest)) = (peer.state, peer.oldest)
        && peer.delayed > 0
        && now.duration_since(oldest) >= WAITS_LONG
    {
        let what = format!("{} messages wait, the oldest for {}", peer.delayed, ago(oldest, now));
        say(Level::Warning, &what);
    }
    for away in &peer.away {
        let since = ago(away.since, now);
        say(
            Level::Warning,
            &format!("its handler {:?} takes no messages, for {since}: {}", away.handler, away.why),
        );
    }
    let aside = set_aside(peer.failed, peer.corrupt);
    if !aside.is_empty() {
        say(Level::Warning, &format!("set aside: {aside}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    const NOW: &str = "2026-11-20T09:12:14Z";

    /// What is said of one peer, `level what` a line.
    fn said(change: impl FnOnce(&mut PeerStatus)) -> Vec<String> {
        let mut peer = fixture::peer("msul1", LinkState::Up, "2026-11-20T09:12:10Z");
        change(&mut peer);
        let found = findings(&fixture::snapshot(vec![peer]), None, fixture::time(NOW));
        found.iter().map(|finding| format!("{} {}", finding.level.as_str(), finding.what)).collect()
    }

    #[test]
    fn a_link_that_failed_is_bad_one_that_begins_is_a_warning_and_an_up_one_is_well() {
        assert_eq!(said(|_| {}), Vec::<String>::new());
        for state in [LinkState::Starting, LinkState::Connecting, LinkState::Opening, LinkState::Down] {
            let word = state.as_str();
            assert_eq!(said(|peer| peer.state = state), [format!("warning {word} 4 s: not up yet")]);
            let failed =
                |peer: &mut PeerStatus| (peer.state, peer.last_error) = (state, Some("refused".into()));
            assert_eq!(said(failed), [format!("bad {word} 4 s: refused")]);
            let long = |peer: &mut PeerStatus| {
                (peer.state, peer.since) = (state, fixture::time("2026-11-20T09:11:44Z"));
            };
            assert_eq!(said(long), [format!("bad {word} 30 s: not up yet")]);
        }
        assert_eq!(said(|peer| peer.state = LinkState::Draining), ["warning draining 4 s"]);
    }

    #[test]
    fn an_error_of_before_the_link_was_up_is_none_and_one_since_then_is_a_warning() {
        let past =
            |peer: &mut PeerStatus| (peer.last_error, peer.last_error_past) = (Some("reset".into()), true);
        assert_eq!(said(past), Vec::<String>::new());
        let since = |peer: &mut PeerStatus| peer.last_error = Some("no\nspace".into());
        assert_eq!(said(since), ["warning up 4 s, and since then: no space"]);
    }

    #[test]
    fn what_waits_for_long_and_what_was_set_aside_are_warnings() {
        let waits = |stored: &str| {
            let stored = fixture::time(stored);
            said(|peer| (peer.delayed, peer.oldest) = (2, Some(stored)))
        };
        assert_eq!(waits("2026-11-20T09:07:15Z"), Vec::<String>::new());
        assert_eq!(waits("2026-11-20T09:07:14Z"), ["warning 2 messages wait, the oldest for 5 min"]);
        assert_eq!(said(|peer| peer.corrupt = 1), ["warning set aside: 1 corrupt"]);
        let old = |peer: &mut PeerStatus| peer.oldest = Some(fixture::time("2026-11-19T09:07:14Z"));
        assert_eq!(said(old), Vec::<String>::new(), "nothing waits");
    }

    #[test]
    fn the_worst_stands_first() {
        let mut down = fixture::peer("msul2", LinkState::Down, NOW);
        down.last_error = Some("refused".into());
        let mut aside = fixture::peer("msul1", LinkState::Up, NOW);
        aside.failed = 1;
        let snapshot =
            Snapshot { not_restarted: Some("it hangs".into()), ..fixture::snapshot(vec![aside, down]) };
        let about: Vec<String> =
            findings(&snapshot, None, fixture::time(NOW)).into_iter().map(|finding| finding.about).collect();
        assert_eq!(about, ["msul2", "msul1", "lonc"]);
    }
}
