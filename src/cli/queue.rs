//! `lon queue [PEER]`: what waits to be sent. Only reads; the broker may run or not. `lon queue
//! check` is in `check`.
//!
//! Without a host: a line for each that has something, hosts that are no longer in the table too.
//! With one: a line for each message, the oldest first, its request with unprintable bytes escaped,
//! the beginning of it, and cut to the width of the terminal (`--full`: the whole of it, as far as
//! a listing holds it; in a pipe nothing is cut to a width). A folder that cannot be read is an
//! error, since "nothing waits" would be a guess.

mod as_json;
pub(super) mod check;

use super::bearings::Bearings;
use super::{Failure, print, terminal};
use base::HostId;
use config::Config;
use jiff::Timestamp;
use nix::unistd::{Uid, User};
use status::{Head, ago, columns, cut, one_line, set_aside};
use std::collections::{BTreeMap, BTreeSet};
use store::spool::inbox_owner;
use store::spool::{self, Delayed, Listing};

/// Names of users.
type Users = BTreeMap<u32, String>;

const HOSTS_HEADS: [Head; 7] = [
    Head::left("PEER"),
    Head::right("WAITING"),
    Head::right("BYTES"),
    Head::left("OLDEST"),
    Head::left("DROPPED IN"),
    Head::left("SET ASIDE"),
    Head::left("UNREADABLE"),
];

const MESSAGES_HEADS: [Head; 5] = [
    Head::right("SEQUENCE"),
    Head::left("AGE"),
    Head::right("BYTES"),
    Head::left("USER"),
    Head::left("REQUEST"),
];

/// Whose a message is that says of no user.
const UNKNOWN: &str = "-";

/// What stands beside a host that has messages and no link.
const NO_PEER: &str = "no longer in hosts.tab";

/// Files for no host that are named; the rest is counted.
const STRAYS_NAMED: usize = 5;

pub(super) fn run(bearings: &Bearings, peer: Option<&str>, full: bool, as_json: bool) -> Result<u8, Failure> {
    let (config, now) = (&bearings.config, Timestamp::now());
    let delayed = delayed(config)?;
    let listing = |peer: &HostId| {
        let files = delayed.files.get(peer).map_or(&[][..], Vec::as_slice);
        spool::inspect(&config.spool_dir, peer, files, full)
            .map_err(|error| Failure::did("list", config.spool_path(peer).display(), error))
    };
    let text = match peer {
        None => {
            let mut waiting = Vec::new();
            let peers = config.peers.iter().map(|peer| (&peer.host.id, false));
            for (peer, stranger) in peers.chain(delayed.strangers.iter().map(|stranger| (stranger, true))) {
                waiting.push((peer.to_string(), stranger, listing(peer)?));
            }
            if as_json {
                as_json::hosts(&waiting, &delayed.strays)
            } else {
                hosts(&waiting, &delayed.strays, now)
            }
        }
        Some(peer) => {
            let peer = named(bearings, &delayed, peer)?;
            let (stranger, listing) = (delayed.strangers.contains(&peer), listing(&peer)?);
            if as_json {
                as_json::messages(peer.as_str(), stranger, &listing)
            } else {
                let width = terminal::width().filter(|_| !full).unwrap_or(usize::MAX);
                messages(&peer, stranger, &listing, &users(&listing), now, width)
            }
        }
    };
    print(text.as_bytes())?;
    Ok(0)
}

/// The host that an argument names: a peer, or one that is none any more and has a folder.
fn named(bearings: &Bearings, delayed: &Delayed<'_>, text: &str) -> Result<HostId, Failure> {
    match HostId::new(text) {
        Ok(id) if delayed.strangers.contains(&id) => Ok(id),
        Ok(_) | Err(_) => bearings.peer(text),
    }
}

/// What stands in the delayed directory, by whose it is as the broker sees it.
pub(super) fn delayed(config: &Config) -> Result<Delayed<'_>, Failure> {
    let host = |id: &str| HostId::new(id).ok().and_then(|id| config.hosts.get(&id)).map(|host| &host.id);
    let peer = |id: &str| host(id).filter(|id| config.peer(id).is_some());
    spool::delayed(&config.spool_dir, peer, |name| inbox_owner(name, |id| host(id).is_some()).and_then(peer))
        .map_err(|error| Failure::did("list", config.spool_dir.display(), error))
}

/// A line for each host that has something, and one for files that are nobody's.
fn hosts(waiting: &[as_json::Waiting], strays: &[String], now: Timestamp) -> String {
    let rows: Vec<Vec<String>> = waiting
        .iter()
        .filter(|(_, _, listing)| *listing != Listing::default())
        .map(|(peer, stranger, listing)| {
            vec![
                if *stranger { format!("{peer} ({NO_PEER})") } else { peer.clone() },
                listing.waiting.to_string(),
                listing.bytes.to_string(),
                oldest(listing).map(|oldest| ago(oldest, now)).unwrap_or_else(|| "-".to_owned()),
                some(listing.inbox.len() as u64, "file"),
                set_aside(listing.failed, listing.corrupt),
                some(listing.unreadable, "segment"),
            ]
        })
        .collect();
    let mut text = if rows.is_empty() { "nothing waits\n".to_owned() } else { columns(&HOSTS_HEADS, &rows) };
    if !strays.is_empty() {
        let named: Vec<String> = strays.iter().take(STRAYS_NAMED).map(|name| one_line(name)).collect();
        let more = if strays.len() > STRAYS_NAMED { ", ..." } else { "" };
        let files = some(strays.len() as u64, "file");
        text.push_str(&format!("{files} for no host of hosts.tab: {}{more}\n", named.join(", ")));
    }
    text
}

/// The users that a listing speaks of, by their names; one that has none by its number.
fn users(listing: &Listing) -> Users {
    let stored = listing.messages.iter().filter_map(|message| message.user);
    let users: BTreeSet<u32> = stored.chain(listing.inbox.iter().map(|file| file.user)).collect();
    let name = |user: u32| User::from_uid(Uid::from_raw(user)).ok().flatten().map(|found| found.name);
    users.into_iter().map(|user| (user, name(user).unwrap_or_else(|| user.to_string()))).collect()
}

/// A head line, then a line for each message.
fn messages(
    peer: &HostId,
    stranger: bool,
    listing: &Listing,
    users: &Users,
    now: Timestamp,
    width: usize,
) -> String {
    let mut head = match listing.waiting {
        0 if listing.inbox.is_empty() => format!("{peer}: nothing waits"),
        0 => format!("{peer}: no message stored"),
        1 => format!("{peer}: 1 message waits, {} bytes", listing.bytes),
        many => format!("{peer}: {many} messages wait, {} bytes", listing.bytes),
    };
    let aside = set_aside(listing.failed, listing.corrupt);
    for (text, end) in [
        (some(listing.inbox.len() as u64, "file"), " dropped in"),
        (aside, ""),
        (some(listing.unreadable, "segment"), " unreadable"),
    ] {
        if !text.is_empty() {
            head.push_str(&format!("; {text}{end}"));
        }
    }
    if stranger {
        head.push_str(&format!("; {NO_PEER}: nobody sends it"));
    }
    head.push('\n');
    let user = |user: Option<u32>| {
        let name = user.and_then(|user| users.get(&user));
        name.cloned().unwrap_or_else(|| UNKNOWN.to_owned())
    };
    let stored = listing.messages.iter().map(|message| {
        let mut request = message.request.escape_ascii().to_string();
        if (message.request.len() as u64) < message.length {
            request.push('…');
        }
        let age = ago(message.stored_at, now);
        vec![message.sequence.0.to_string(), age, message.length.to_string(), user(message.user), request]
    });
    let dropped = listing.inbox.iter().map(|file| {
        let name = format!("file {}", file.name.escape_debug());
        let age = ago(file.modified, now);
        vec!["-".to_owned(), age, file.length.to_string(), user(Some(file.user)), name]
    });
    let rows: Vec<Vec<String>> = stored.chain(dropped).collect();
    if rows.is_empty() {
        return head;
    }
    for line in columns(&MESSAGES_HEADS, &rows).lines() {
        head.push_str(&cut(line, width));
        head.push('\n');
    }
    if let Some(more) = listing.waiting.checked_sub(listing.messages.len() as u64).filter(|&more| more > 0) {
        head.push_str(&format!("and {more} more messages\n"));
    }
    head
}

/// When the first thing that waits was stored.
fn oldest(listing: &Listing) -> Option<Timestamp> {
    let stored = listing.messages.iter().map(|message| message.stored_at).min();
    let dropped = listing.inbox.iter().map(|file| file.modified).min();
    stored.into_iter().chain(dropped).min()
}

/// `1 file`, `2 files`; nothing for none.
fn some(count: u64, what: &str) -> String {
    match count {
        0 => String::new(),
        1 => format!("1 {what}"),
        many => format!("{many} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Sequence;
    use store::spool::{InboxFile, Listed};

    const NOW: &str = "2026-11-20T09:12:14Z";

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn id(text: &str) -> HostId {
        HostId::new(text).unwrap()
    }

    fn listed(sequence: u64, request: &[u8]) -> Listed {
        Listed {
            sequence: Sequence(sequence),
            stored_at: time("2026-11-20T09:07:14Z"),
            user: Some(47_110).filter(|_| sequence > 9),
            length: request.len() as u64,
            request: request.to_vec(),
        }
    }

    fn some_wait() -> Listing {
        let mut long = listed(10, &[b'x'; 100]);
        long.length = 1000;
        Listing {
            messages: vec![listed(9, b"log:caf\xe9\t1"), long],
            waiting: 5,
            bytes: 1200,
            inbox: vec![InboxFile {
                name: "a.msul1".into(),
                length: 9,
                modified: time("2026-11-20T08:12:14Z"),
                user: 0,
            }],
            failed: 2,
            corrupt: 1,
            unreadable: 0,
        }
    }

    #[test]
    fn a_dropped_file_is_listed_for_the_one_host_whose_broker_takes_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lonnet.toml");
        std::fs::write(&file, "id = \"msua1\"\n[lonc]\nwire = \"classic\"\n").unwrap();
        let line = |id: &str| format!("{id}:msu:library:localhost:127.0.0.1\n");
        let table: String = ["msua1", "msul1", "a.msul1"].map(line).concat();
        std::fs::write(folder.path().join("hosts.tab"), table).unwrap();
        let config = Config::load(&file).unwrap();
        assert_eq!(delayed(&config).unwrap(), Delayed::default(), "without the folder nothing is in it");
        std::fs::create_dir(&config.spool_dir).unwrap();
        for name in ["2.msul1", "1.msul1", "3.a.msul1", "4.stranger", ".5.msul1", "msul1", "6.msua1"] {
            std::fs::write(config.spool_dir.join(name), "ping\n").unwrap();
        }
        for name in ["gone", "a.msul1", ".received"] {
            std::fs::create_dir(config.spool_dir.join(name)).unwrap();
        }
        let Delayed { files, strays, strangers } = delayed(&config).unwrap();
        assert_eq!(
            (strays, strangers),
            (["4.stranger", "6.msua1", "msul1"].map(str::to_owned).to_vec(), vec![id("gone")])
        );
        assert_eq!(files[&id("msul1")], ["1.msul1", "2.msul1"]);
        assert_eq!(files[&id("a.msul1")], ["3.a.msul1"]);
        assert_eq!(files.len(), 2);
    }

    #[test]
    fn each_host_that_has_something_has_a_line() {
        let [full, idle, aside] = ["msul1", "msul2", "msul3"].map(str::to_owned);
        let failed = Listing { failed: 1, ..Listing::default() };
        assert_eq!(
            hosts(
                &[
                    (full, false, some_wait()),
                    (idle.clone(), false, Listing::default()),
                    (aside, false, failed)
                ],
                &[],
                time(NOW)
            ),
            "PEER   WAITING  BYTES  OLDEST  DROPPED IN  SET ASIDE\n\
             msul1        5   1200  1 h     1 file      2 failed, 1 corrupt\n\
             msul3        0      0  -                   1 failed\n"
        );
        assert_eq!(hosts(&[(idle, false, Listing::default())], &[], time(NOW)), "nothing waits\n");
        let strays: Vec<String> = (1..=6).map(|n| format!("{n}.x\n")).collect();
        assert_eq!(
            hosts(&[], &strays, time(NOW)),
            "nothing waits\n6 files for no host of hosts.tab: 1.x , 2.x , 3.x , 4.x , 5.x , ...\n"
        );
    }

    #[test]
    fn each_message_of_a_host_has_a_line_that_fits() {
        let listing = some_wait();
        let text = messages(&id("msul1"), false, &listing, &users(&listing), time(NOW), 47);
        assert_eq!(
            text,
            format!(
                "msul1: 5 messages wait, 1200 bytes; 1 file dropped in; 2 failed, 1 corrupt\n\
                 SEQUENCE  AGE    BYTES  USER   REQUEST\n\
                 \x20      9  5 min     10  -      log:caf\\xe9\\t1\n\
                 \x20     10  5 min   1000  47110  {}…\n\
                 \x20      -  1 h        9  root   file a.msul1\n\
                 and 3 more messages\n",
                "x".repeat(15)
            )
        );
        let text = messages(&id("msul1"), false, &listing, &users(&listing), time(NOW), usize::MAX);
        assert!(text.contains(&format!("{}…\n", "x".repeat(100))), "{text}");
        assert_eq!(
            messages(&id("msul2"), false, &Listing::default(), &Users::new(), time(NOW), 80),
            "msul2: nothing waits\n"
        );
        assert!(
            messages(&id("gone"), true, &listing, &Users::new(), time(NOW), 80)
                .contains("; no longer in hosts.tab: nobody sends it\n")
        );
    }
}
