//! What one user of this host may have of a peer's spool, and of the way there, while another may
//! come.

use crate::common::handler;
use crate::common::local::Local;
use crate::common::pair::{CALLED, Pair};
use crate::common::secure_pair::TwoHosts;
use crate::common::{skip, wait};
use nix::unistd::{Gid, Uid, chown};
use serde_json::{Value, json};
use std::fs;

/// Users that nothing here belongs to.
const GREEDY: u32 = 47_110;
const LATER: u32 = 47_120;

fn stored(pair: &Pair, user: u32, count: usize) -> usize {
    let mut client = Local::connect_as(&pair.host.socket(CALLED), user, &[]);
    let answers = (0..count).map(|number| client.ask(&format!("critical:log:{user}-{number}")));
    answers.filter(|answer| answer == "con_delayed").count()
}

/// Whose messages wait, in order, and whose files.
fn users(pair: &Pair, of: &str) -> Vec<Value> {
    let said = pair.host.lon(&["queue", CALLED, "--json"]);
    let queue: Value = serde_json::from_slice(&said.stdout).expect("JSON");
    queue[of].as_array().expect("a list").iter().map(|one| one["user"].clone()).collect()
}

#[test]
fn a_user_who_fills_a_spool_leaves_room_for_another_before_and_after_a_restart() {
    if !nix::unistd::geteuid().is_root() {
        skip::skipped("needs root, to connect as others");
        return;
    }
    let pair = Pair::down_with(|host| {
        host.set("lonc", "spool_messages", "16").set("lonc", "socket_mode", "\"0666\"");
    });
    pair.host.open_to_all();
    assert_eq!(stored(&pair, GREEDY, 30), 12);
    assert_eq!(stored(&pair, LATER, 1), 1);
    let log = pair.host.log("lonc.log");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("has its share of the spool")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains(&format!("user {GREEDY} has its share of the spool: 12 messages")), "{log}");
    assert_eq!(pair.host.status(CALLED).expect("a status")["lost"], 18);

    // Whose they are outlasts the process.
    let mut pair = pair.restart();
    pair.host.wait_link(CALLED, "down");
    assert_eq!(stored(&pair, GREEDY, 5), 0);
    let mut expected = vec![json!(GREEDY); 12];
    expected.push(json!(LATER));
    assert_eq!(users(&pair, "messages"), expected);
    let table = String::from_utf8(pair.host.lon(&["queue", CALLED]).stdout).expect("text");
    assert!(table.lines().nth(1).is_some_and(|head| head.contains("USER")), "{table}");
    assert_eq!(table.matches(&format!("  {GREEDY}  log:")).count(), 12, "{table}");

    // Files of who has its share stay, and come when there is room; another's are taken in at once.
    for (name, user) in [("1", GREEDY), ("2", LATER)] {
        let path = pair.host.dir.join("delayed").join(format!(".{name}"));
        fs::write(&path, format!("log:file-{name}\n")).expect("write a file");
        chown(&path, Some(Uid::from_raw(user)), Some(Gid::from_raw(user))).expect("give it away");
        fs::rename(&path, pair.host.dir.join("delayed").join(format!("{name}.{CALLED}")))
            .expect("drop it in");
    }
    wait::until_true("the file of the one to be taken in", || users(&pair, "messages").len() == 14);
    assert_eq!(users(&pair, "files"), [json!(GREEDY)]);
    pair.come_back();
    let came = pair.fake.wait_received("log:", 15);
    assert_eq!(&came[12..], [format!("log:{LATER}-0"), "log:file-2".to_owned(), "log:file-1".to_owned()]);
}

/// Requests that a link has room for, and connections that the greedy one has.
const IN_FLIGHT: usize = 4096;
const CONNECTIONS: usize = 64;

#[test]
fn a_user_whose_requests_hang_by_the_thousand_leaves_others_their_turns() {
    if !nix::unistd::geteuid().is_root() {
        skip::skipped("needs root, to connect as others");
        return;
    }
    let mut both = TwoHosts::new();
    let gate = wait::Gate::default();
    let waits = gate.clone();
    let _hangs = handler::Program::start(&both.other.handler("hangs"), move |line| {
        waits.pass();
        Some(line.to_vec())
    });
    both.one.set("lonc", "socket_mode", "\"0666\"");
    let (_lonc, _lond) = both.start();
    both.one.open_to_all();
    let each = IN_FLIGHT / CONNECTIONS;
    let mut greedy: Vec<Local> = (0..CONNECTIONS)
        .map(|number| {
            let mut client = Local::connect_as(&both.one.socket(CALLED), GREEDY, &[]);
            let lines: String = (0..each).map(|line| format!("hangs:{number}-{line}\n")).collect();
            client.send(lines.as_bytes());
            client
        })
        .collect();
    let in_flight = || both.one.status(CALLED).and_then(|status| status["in_flight"].as_u64());
    wait::until_true("as many in flight as one user may have", || {
        in_flight() >= Some(3 * IN_FLIGHT as u64 / 4)
    });
    let mut polite = Local::connect_as(&both.one.socket(CALLED), LATER, &[]);
    for round in 0..100 {
        assert_eq!(polite.ask("ping"), CALLED, "round {round}");
    }
    assert_eq!(in_flight(), Some(3 * IN_FLIGHT as u64 / 4), "no request of the greedy one was answered");
    gate.open();
    for (number, client) in greedy.iter_mut().enumerate() {
        for line in 0..each {
            assert_eq!(client.answer(), format!("hangs:{number}-{line}"));
        }
        assert_eq!(polite.ask("ping"), CALLED);
    }
}
