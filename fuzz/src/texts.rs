//! Files that people and other hosts write, and the status that programs write for each other.

use super::files;
use jiff::{Timestamp, tz::TimeZone};
use lonnet::base::logging::steers;
use lonnet::base::{HostId, Pins};
use lonnet::config::{Config, Hosts, MAX_FILE, PinFile, Problem, Target};
use lonnet::status::{
    ServeSnapshot, Snapshot, callers, classic_text, findings, json, one_peer, parse, table,
};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Every problem is one line that begins with the file and, as far as it has a line, that.
fn check_problems(problems: &[Problem], files: &[(&Path, usize)]) {
    for problem in problems {
        let text = problem.to_string();
        assert!(!text.contains(['\n', '\r']), "{text:?}");
        let (_, lines) = files.iter().find(|(file, _)| *file == problem.file).expect("a file that was read");
        let file = problem.file.display();
        match problem.line {
            Some(line) => {
                assert!((1..=*lines).contains(&line), "{text}: there are {lines} lines");
                assert!(text.starts_with(&format!("{file}:{line}: ")));
            }
            None => assert!(text.starts_with(&format!("{file}: "))),
        }
    }
}

fn lines(bytes: &[u8]) -> usize {
    1 + bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// A `hosts.tab`: what is wrong is said with its line, whatever stands around it; hosts are found
/// by what their lines say; a table that is written anew is the same.
pub fn hosts(bytes: &[u8]) {
    let file = Path::new("hosts.tab");
    let problems = |bytes: &[u8]| Hosts::parse(file, bytes).map_or_else(|errors| errors.0, |_| Vec::new());
    let found = problems(bytes);
    check_problems(&found, &[(file, lines(bytes))]);
    let wrong: BTreeSet<Option<usize>> = found.iter().map(|problem| problem.line).collect();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let marked = index == 0 && line.starts_with(b"\xef\xbb\xbf");
        if !marked && !problems(line).is_empty() {
            assert!(wrong.contains(&Some(index + 1)), "line {} is wrong by itself", index + 1);
        }
    }
    let more = [bytes, b"\nnot a host\nlast-and-sound:msu:library:last.example:\n"].concat();
    let behind = problems(&more).iter().filter(|problem| problem.line > Some(lines(bytes))).count();
    assert!(behind == 1 || found.len() > 9_000, "{behind} problems behind the end");
    let Ok(table) = Hosts::parse(file, bytes) else { return };
    let mut again = String::new();
    let mut by_address = HashMap::new();
    for host in table.iter() {
        assert_eq!(table.get(&host.id), Some(host));
        assert!((1..=lines(bytes)).contains(&host.line));
        let address = host.address.map_or_else(String::new, |ip| match ip {
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        });
        by_address.extend(host.address.map(|ip| (ip, &host.id)));
        again += &format!("{}:{}:{}:{}:{address}\n", host.id, host.domain, host.role.0, host.name);
    }
    for (address, id) in by_address {
        assert_eq!(table.by_address(address).map(|host| &host.id), Some(id), "the last line with it decides");
    }
    let again = Hosts::parse(file, again.as_bytes()).expect("what was read can be read");
    let facts = |table: &Hosts| -> Vec<_> {
        let facts = |host: &lonnet::config::Host| {
            (host.id.clone(), host.domain.clone(), host.role.clone(), host.name.clone(), host.address)
        };
        table.iter().map(facts).collect()
    };
    assert_eq!(facts(&again), facts(&table));
}

/// A `hosts.pins`: every problem is one line, and a key is one host's.
pub fn pins(bytes: &[u8]) {
    let path = Path::new("hosts.pins");
    let file = PinFile::parse(path, bytes, None);
    check_problems(&file.problems, &[(path, lines(bytes))]);
    check_problems(&file.warnings, &[(path, lines(bytes))]);
    for line in String::from_utf8_lossy(bytes).lines() {
        let mut words = line.split_whitespace();
        let (Some(id), Some(pin)) = (words.next(), words.next()) else { continue };
        let (Ok(id), Ok(pin)) = (HostId::new(id), pin.parse()) else { continue };
        let pinned = file.pins.of(&id).contains(&pin);
        assert_eq!(pinned, file.pins.who(&pin) == Some(&id));
        assert_eq!(Pins::from_pairs([(id.clone(), pin)]).who(&pin), Some(&id));
    }
}

/// A whole configuration, `lonnet.toml` and what it names: every problem says where, all of them at
/// once and each time the same; a configuration without problems keeps every bound.
pub fn config(bytes: &[u8]) {
    let files = files(bytes);
    let folder = Path::new("/net");
    let source = |path: &Path| -> io::Result<Vec<u8>> {
        let name = path.strip_prefix(folder).ok().and_then(Path::to_str);
        let content = name.and_then(|name| files.get(name)).ok_or(io::ErrorKind::NotFound)?;
        assert!(content.len() as u64 <= MAX_FILE);
        Ok(content.clone())
    };
    let main = folder.join("lonnet.toml");
    let config = match Config::load_from(&main, &source) {
        Ok(config) => config,
        Err(errors) => {
            assert!(!errors.0.is_empty() && errors.0.len() <= 10_001);
            let again = Config::load_from(&main, &source).expect_err("it was wrong before");
            assert_eq!(again, errors);
            for problem in &errors.0 {
                let text = problem.to_string();
                assert!(
                    text.starts_with(&problem.file.display().to_string()) && !text.contains('\n'),
                    "{text:?}"
                );
                let content = source(&problem.file).unwrap_or_default();
                assert!(problem.line.is_none_or(|line| (1..=lines(&content)).contains(&line)), "{text}");
            }
            return;
        }
    };
    assert!(config.warnings.iter().all(|warning| !warning.to_string().contains('\n')));
    assert!(config.hosts.get(&config.id).is_some() && config.peer(&config.id).is_none());
    assert_eq!(config.peers.len() + 1, config.hosts.len());
    for folder in [&config.run_dir, &config.spool_dir, &config.log_dir, &config.status_dir, &config.key_dir] {
        assert!(folder.is_absolute());
    }
    let year = Duration::from_secs(366 * 24 * 3600);
    for peer in &config.peers {
        assert_eq!(config.peer(&peer.host.id), Some(peer));
        assert!(config.socket_path(&peer.host.id).as_os_str().len() <= 107);
        let times = [peer.request_timeout, peer.connect_timeout, peer.opening_timeout, peer.heartbeat];
        assert!(
            times.iter().all(|time| *time > Duration::ZERO && *time <= year) && peer.drain_timeout <= year
        );
        assert!((256..=16 << 20).contains(&peer.max_line) && peer.socket_mode <= 0o777);
        assert!(peer.window as usize >= 2 * peer.max_line + 65536 && peer.window <= 64 << 20);
        assert!(peer.spool.messages > 0 && peer.spool.bytes > 0);
        assert!(
            matches!(&peer.target, Target::Lookup { name, .. } if !name.is_empty())
                || matches!(peer.target, Target::Address(address) if address.port() > 0)
        );
    }
    assert!(!config.lond.listen.is_empty() && config.lond.full_load > 0.0 && config.lond.max_opening > 0);
    let names: BTreeSet<&str> = config.handlers.iter().map(|handler| handler.name.as_str()).collect();
    assert_eq!(names.len(), config.handlers.len());
}

/// A status that a program wrote or answered: what can be read is written as the same, and every
/// view of it has its lines and nothing that steers a terminal.
pub fn status(bytes: &[u8]) {
    let now = Timestamp::UNIX_EPOCH;
    if let Ok(snapshot) = parse::<Snapshot>(bytes) {
        let text = json(&snapshot);
        assert!(!text.contains('\n'));
        assert_eq!(parse::<Snapshot>(text.as_bytes()).expect("what was written"), snapshot);
        let rows = |text: String, allowed: &[char]| {
            assert!(!text.contains(|c: char| steers(c) && !allowed.contains(&c)), "{text:?}");
            text.lines().count()
        };
        for at in [now, snapshot.written, Timestamp::MIN, Timestamp::MAX] {
            let most = 2 * snapshot.peers.len() + 4;
            for (width, running) in [(None, true), (Some(80), false)] {
                assert!(rows(table(&snapshot, at, &TimeZone::UTC, width, running), &['\n']) <= most);
            }
            for peer in &snapshot.peers {
                assert!(
                    rows(one_peer(peer, None, at, &TimeZone::UTC, true), &['\n']) <= 12 + peer.away.len()
                );
            }
            let away: usize = snapshot.peers.iter().map(|peer| peer.away.len()).sum();
            let most_found = 3 * snapshot.peers.len() + away + 1;
            assert!(findings(&snapshot, None, at).len() <= most_found);
        }
        assert!(rows(classic_text(&snapshot, &TimeZone::UTC), &['\n', '\t']) <= 2 * snapshot.peers.len() + 8);
    }
    if let Ok(snapshot) = parse::<ServeSnapshot>(bytes) {
        let text = json(&snapshot);
        assert_eq!(parse::<ServeSnapshot>(text.as_bytes()).expect("what was written"), snapshot);
        for at in [now, snapshot.written, Timestamp::MIN, Timestamp::MAX] {
            let text = callers(&snapshot, at);
            assert!(text.lines().count() <= snapshot.links.len() + 2);
            assert!(!text.contains(|c: char| steers(c) && c != '\n'), "{text:?}");
        }
    }
}
