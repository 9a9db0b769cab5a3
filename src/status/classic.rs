//! The original's `loncstatus.txt`: a head line, an empty line, a line a process.
//!
//! `<pid>\t<host id>\t<local time>: <what it does>\t<its last log line>`. Programs of the network
//! read it by its tabs, so a tab or newline inside a text becomes a space. The supervisor's own
//! line comes first, under the name that the original gave it.

use super::{Snapshot, one_line};
use jiff::{Timestamp, tz::TimeZone};

/// What the supervisor's line has in place of a host id.
const PARENT: &str = "PARENT";

/// The whole file. Each line's time is that at which the process came to do what it does.
pub fn classic_text(snapshot: &Snapshot, zone: &TimeZone) -> String {
    let mut text = format!("LONC status {} - parent {}\n\n", local(snapshot.written, zone), snapshot.pid);
    let mut line = |pid: u32, who: &str, since: Timestamp, doing: &str, last_log: &str| {
        let (doing, last_log) = (one_line(doing), one_line(last_log));
        text.push_str(&format!("{pid}\t{who}\t{}: {doing}\t{last_log}\n", local(since, zone)));
    };
    line(snapshot.pid, PARENT, snapshot.started, &snapshot.doing, &snapshot.last_log);
    for peer in &snapshot.peers {
        line(peer.pid, peer.peer.as_str(), peer.since, &peer.doing, &peer.last_log);
    }
    text
}

/// `Fri Nov  6 09:12:14 2026`, as perl's `scalar(localtime)` gives it.
fn local(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime("%a %b %e %H:%M:%S %Y").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LinkState, fixture};

    #[test]
    fn the_file_is_as_the_original_wrote_it() {
        let mut up = fixture::peer("msul1", LinkState::Up, "2026-11-20T09:12:13Z");
        up.last_log = "connected".into();
        let mut down = fixture::peer("msul2", LinkState::Down, "2026-11-09T23:30:00Z");
        down.pid = 0;
        down.doing = "down,\tnext dial in 4 s".into();
        down.last_log = "two\nlines\r\u{1b}[31m".into();
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        assert_eq!(
            classic_text(&fixture::snapshot(vec![up, down]), &zone),
            "LONC status Fri Nov 20 10:12:14 2026 - parent 4700\n\
             \n\
             4700\tPARENT\tFri Nov  6 09:00:00 2026: keeping 2 links\tstarted\n\
             4711\tmsul1\tFri Nov 20 10:12:13 2026: up\tconnected\n\
             0\tmsul2\tTue Nov 10 00:30:00 2026: down, next dial in 4 s\ttwo lines  [31m\n"
        );
    }
}
