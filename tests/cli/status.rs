//! `lon status`, of a `lonc` and a `lond` that are played.

use crate::place::{Place, Said};
use crate::skip::skipped;
use lonnet::base::{HostId, WireKind};
use lonnet::status::{LinkState, PeerStatus, ServeSnapshot, Snapshot, json};
use lonnet::supervise::publish::uptime;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Stdio;

fn snapshot() -> Snapshot {
    let written = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(100);
    let (there, since) = (HostId::new("there").unwrap(), written - jiff::SignedDuration::from_secs(100));
    Snapshot {
        program: "lonc".into(),
        version: "0.1.0".into(),
        id: HostId::new("here").unwrap(),
        pid: 4700,
        started: written,
        written,
        written_uptime: None,
        own_pin: None,
        spool_dir: None,
        doing: "keeping 1 link".into(),
        not_restarted: None,
        last_log: String::new(),
        peers: vec![PeerStatus {
            pid: 4711,
            state: LinkState::Up,
            doing: "up".into(),
            in_flight: 2,
            done: 7,
            clients: 1,
            ..PeerStatus::starting(there, WireKind::Classic, since)
        }],
    }
}

/// Plays `lonc`'s own socket: one `status`, answered by `answer`.
fn lonc(answer: String) -> impl FnOnce(UnixStream) + Send + 'static {
    move |mut stream| {
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "status\n");
        stream.write_all(answer.as_bytes()).unwrap();
    }
}

#[test]
fn status_shows_what_the_running_lonc_says() {
    let place = Place::new();
    let lonc = place.listen("lonc.sock", lonc(json(&snapshot()) + "\n"));
    let said = place.run(&["status"]);
    lonc.join().unwrap();
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert_eq!(
        said.out,
        "1 link: 1 up; no messages delayed\n\
         PEER   STATE     WIRE                  IN FLIGHT  DONE  DELAYED\n\
         there  up 1 min  classic, not private          2     7  -\n\
         \n\
         lond does not run: nobody can call\n"
    );
}

#[test]
fn status_as_json_is_one_line() {
    let place = Place::new();
    let snapshot = snapshot();
    let lonc = place.listen("lonc.sock", lonc(json(&snapshot) + "\n"));
    let said = place.run(&["status", "--json"]);
    lonc.join().unwrap();
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert_eq!(said.out.lines().count(), 1);
    assert_eq!(serde_json::from_str::<Snapshot>(&said.out).unwrap(), snapshot);
}

#[test]
fn without_lonc_the_last_status_file_is_shown_with_its_age_and_the_code_says_so() {
    let place = Place::new();
    let said = place.run(&["status"]);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert!(said.err.contains("lon: ask ") && said.err.contains("lon: read "), "{}", said.err);

    fs::write(place.path("status/status.json"), json(&snapshot())).unwrap();
    let said = place.run(&["status"]);
    assert_eq!(said.code, 1);
    assert!(said.out.contains("there  was up 1 min"), "as it was then: {}", said.out);
    assert!(said.err.ends_with("lon: lonc does not run: this is what it wrote 1 min ago\n"), "{}", said.err);
}

#[test]
fn an_answer_that_is_no_status_is_an_error() {
    for answer in ["", "nonsense\n", "{}\n"] {
        let place = Place::new();
        let lonc = place.listen("lonc.sock", lonc(answer.to_owned()));
        let said = place.run(&["status"]);
        lonc.join().unwrap();
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{answer:?}");
        assert!(said.err.starts_with("lon: ask "), "{}", said.err);
    }
}

/// What `lon` says when `lonc` answers with `snapshot`.
fn said_of(snapshot: &Snapshot, arguments: &[&str]) -> Said {
    let place = Place::new();
    let lonc = place.listen("lonc.sock", lonc(json(snapshot) + "\n"));
    let said = place.run(arguments);
    lonc.join().unwrap();
    said
}

/// A snapshot whose link is down because of something that takes long to say.
fn down(error: &str) -> Snapshot {
    let mut snapshot = snapshot();
    let peer = &mut snapshot.peers[0];
    (peer.state, peer.lost) = (LinkState::Down, 31);
    peer.next_dial = Some(snapshot.written + jiff::SignedDuration::from_secs(26));
    (peer.last_error, peer.last_error_at) = (Some(error.to_owned()), Some(snapshot.written));
    snapshot
}

#[test]
fn in_a_pipe_an_error_is_never_cut_and_the_lost_count_and_the_next_dial_are_shown() {
    let error = format!("connect 127.0.0.2:5663: {} refused", "why ".repeat(100));
    let said = said_of(&down(&error), &["status"]);
    assert!(said.out.contains(&error), "{}", said.out);
    let head: Vec<&str> = said.out.lines().nth(1).unwrap().split("  ").map(str::trim).collect();
    assert!(head.contains(&"NEXT DIAL") && head.contains(&"LOST"), "{}", said.out);
    let row = said.out.lines().nth(2).unwrap();
    assert!(row.contains("down 1 min  in 26 s  ") && row.contains("  31  "), "{row}");
}

#[test]
fn on_a_terminal_an_error_is_cut_in_its_middle_to_the_width() {
    let place = Place::new();
    let size = nix::pty::Winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(&size, None).unwrap();
    let error = format!("connect 127.0.0.2:5663: {}refused", "why ".repeat(100));
    let lonc = place.listen("lonc.sock", lonc(json(&down(&error)) + "\n"));
    let mut child = place.lon(&["status"]).stdout(Stdio::from(pty.slave)).spawn().unwrap();
    assert!(child.wait().unwrap().success());
    lonc.join().unwrap();
    // The other end is closed by now: what follows the last byte is an error.
    let mut shown = Vec::new();
    let _ = File::from(pty.master).read_to_end(&mut shown);
    let shown = String::from_utf8(shown).unwrap();
    let row = shown.lines().nth(2).unwrap().trim_end();
    assert_eq!(row.chars().count(), 120, "{shown}");
    assert!(row.contains(" connect 1") && row.contains('…') && row.ends_with("why refused"), "{shown}");
}

#[test]
fn status_of_one_host_shows_all_of_it_and_nothing_of_the_others() {
    let mut snapshot = down(&"because ".repeat(100));
    let other = PeerStatus { peer: HostId::new("other").unwrap(), ..snapshot.peers[0].clone() };
    snapshot.peers.push(other);
    let said = said_of(&snapshot, &["status", "there"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(said.out.starts_with("there\n  link:       down 1 min, since "), "{}", said.out);
    assert!(said.out.contains(&"because ".repeat(99)) && !said.out.contains("other"), "{}", said.out);
    assert!(said.out.contains("31 lost") && said.out.contains("next dial:  in 26 s"), "{}", said.out);
    let said = said_of(&snapshot, &["status", "there", "--json"]);
    let shown: Snapshot = serde_json::from_str(&said.out).unwrap();
    assert_eq!(shown.peers, snapshot.peers[..1]);
    let said = said_of(&snapshot, &["status", "nobody"]);
    assert!(said.code == 1 && said.err.contains("lon: ask nobody: has no line in "), "{said:?}");
}

#[test]
fn a_stopped_broker_is_shown_as_stopped_for_as_long_as_it_is() {
    let place = Place::new();
    let mut stopped = snapshot();
    stopped.doing = "stopped".into();
    (stopped.peers[0].state, stopped.peers[0].since) = (LinkState::Stopped, stopped.written);
    fs::write(place.path("status/status.json"), json(&stopped)).unwrap();
    let said = place.run(&["status"]);
    assert_eq!(said.code, 1);
    assert!(
        said.out.starts_with("1 link: 1 stopped; ") && said.out.contains("\nthere  stopped 1 min "),
        "{said:?}"
    );
    assert!(said.err.ends_with("lon: lonc does not run: it was stopped 1 min ago\n"), "{said:?}");
    let said = place.run(&["status", "--json"]);
    let shown: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (&shown["running"], &shown["peers"][0]["state"]),
        (&Value::Bool(false), &Value::from("stopped"))
    );
}

#[test]
fn ages_are_true_though_the_clock_was_set_since() {
    // Whoever answers goes by a clock that is twenty years ahead of this test's.
    let mut ahead = snapshot();
    let step = jiff::SignedDuration::from_hours(20 * 365 * 24);
    ahead.written += step;
    ahead.peers[0].since += step;
    assert!(said_of(&ahead, &["status"]).out.contains("there  up 1 min"));
    // It was killed three minutes ago, by the only clock that nobody sets.
    let place = Place::new();
    let Some(mut then) = uptime() else { return skipped("the machine does not say how long it runs") };
    then.seconds = then.seconds.saturating_sub(200);
    ahead.written_uptime = Some(then);
    fs::write(place.path("status/status.json"), json(&ahead)).unwrap();
    let said = place.run(&["status"]);
    assert!(said.err.ends_with("lonc does not run: this is what it wrote 3 min ago\n"), "{said:?}");
}

/// The exit code of `lon status --check`, and what it says at the end.
fn checked(place: &Place, arguments: &[&str]) -> (i32, String) {
    let said = place.run(&[&["status", "--check"], arguments].concat());
    let at = said.out.rfind("\n\n").map_or(0, |at| at + 2);
    (said.code, said.out[at..].to_owned())
}

fn check_of(snapshot: &Snapshot) -> (i32, String) {
    let place = Place::new();
    let lonc = place.listen("lonc.sock", lonc(json(snapshot) + "\n"));
    let checked = checked(&place, &[]);
    lonc.join().unwrap();
    checked
}

#[test]
fn check_tells_by_its_exit_code_how_things_are() {
    assert_eq!(check_of(&snapshot()), (0, "all is well\n".to_owned()));
    let mut aside = snapshot();
    aside.peers[0].failed = 2;
    assert_eq!(check_of(&aside), (1, "warning: there: set aside: 2 failed\n".to_owned()));
    assert_eq!(check_of(&down("refused")), (2, "bad: there: down 1 min: refused\n".to_owned()));
    let place = Place::new();
    assert_eq!(checked(&place, &[]).0, 3, "no lonc, and it never ran");
    fs::write(place.path("status/status.json"), json(&snapshot())).unwrap();
    let (code, said) = checked(&place, &[]);
    assert!(code == 3 && said == "bad: lonc: does not run\n", "{code} {said}");
    drop(UnixListener::bind(place.path("run/lonc.sock")).unwrap());
    assert_eq!(checked(&place, &[]).0, 3, "a socket that a killed one left");
}

#[test]
fn check_counts_a_lond_that_ran_here_and_does_not_run_as_not_running() {
    let place = Place::new();
    fs::write(place.path("status/lond.json"), "{}").unwrap();
    let lonc = place.listen("lonc.sock", lonc(json(&snapshot()) + "\n"));
    assert_eq!(checked(&place, &[]), (3, "bad: lond: does not run\n".to_owned()));
    lonc.join().unwrap();
}

#[test]
fn check_of_one_host_is_about_its_link_alone() {
    let mut two = down("refused");
    two.peers.push(PeerStatus { peer: HostId::new("other").unwrap(), ..snapshot().peers[0].clone() });
    for (peer, code) in [("other", 0), ("there", 2)] {
        let place = Place::new();
        let lonc = place.listen("lonc.sock", lonc(json(&two) + "\n"));
        assert_eq!(checked(&place, &[peer]).0, code, "{peer}");
        lonc.join().unwrap();
    }
}

#[test]
fn check_as_json_has_the_code_and_the_findings() {
    let said = said_of(&down("refused"), &["status", "--check", "--json"]);
    assert_eq!(said.code, 2);
    let shown: Value = serde_json::from_str(&said.out).unwrap();
    let finding = serde_json::json!({ "level": "bad", "about": "there", "what": "down 1 min: refused" });
    assert_eq!(shown["check"], serde_json::json!({ "code": 2, "findings": [finding] }));
}

#[test]
fn check_says_by_its_code_that_whoever_asks_may_not_look() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can ask as somebody else");
    }
    const NOBODY: u32 = 65534;
    let place = Place::new();
    let asked = |arguments: &[&str]| {
        let mut lon = place.lon(arguments);
        let said = Said::of(&lon.uid(NOBODY).gid(NOBODY).stdin(Stdio::null()).output().unwrap());
        (said.code, said.err)
    };
    let open = |path: &str, mode: u32| {
        fs::set_permissions(place.path(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    open("", 0o700);
    let (code, error) = asked(&["status", "--check"]);
    assert!(code == 4 && error.contains("lonnet.toml: no permission"), "{code} {error}");
    open("", 0o755);
    let _listener = UnixListener::bind(place.path("run/lonc.sock")).unwrap();
    open("run/lonc.sock", 0o600);
    fs::write(place.path("status/status.json"), json(&snapshot())).unwrap();
    assert_eq!(asked(&["status", "--check"]).0, 4);
    open("run", 0o700);
    assert_eq!(asked(&["status", "--check"]).0, 4);
}

#[test]
fn watch_shows_the_status_again_and_again_until_nobody_reads() {
    let place = Place::new();
    let listener = UnixListener::bind(place.path("run/lonc.sock")).unwrap();
    let answering = std::thread::spawn(move || {
        for _ in 0..3 {
            lonc(json(&snapshot()) + "\n")(listener.accept().unwrap().0);
        }
    });
    let mut watching = place.lon(&["status", "--watch=1", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let shown: Snapshot = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(shown.peers.len(), 1);
    }
    drop(lines);
    answering.join().unwrap();
    assert_eq!(watching.wait().unwrap().code(), Some(1), "a pipe that nobody reads ends it");
}

#[test]
fn what_lond_knows_stands_beside_it() {
    let place = Place::new();
    let lonc = place.listen("lonc.sock", lonc(json(&snapshot()) + "\n"));
    let time = "2026-11-20T09:00:00Z";
    let lond: ServeSnapshot = serde_json::from_value(serde_json::json!({
        "program": "lond", "version": "1", "id": "here", "pid": 1, "started": time, "written": time,
        "doing": "serving", "last_log": "", "listen": [], "opening": 0, "max_opening": 1, "refused": 0,
        "crowded": 0, "unauthenticated": 0, "killed": 0, "links": [
            { "caller": "there", "wire": "secure", "private": true, "since": "2026-11-20T08:50:00Z", "pid": 2,
              "address": "127.0.0.2:1", "pin": "sha256:x" },
            { "caller": "other", "wire": "secure", "private": true, "since": time, "pid": 3,
              "address": "127.0.0.3:1", "pin": "sha256:y" }
        ]
    }))
    .unwrap();
    let answer = json(&lond) + "\n";
    let asked = place.listen("lond.sock", move |mut stream| {
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let said = place.run(&["status", "there"]);
    lonc.join().unwrap();
    asked.join().unwrap();
    let calls = said.out.lines().find(|line| line.starts_with("  calls us:")).unwrap();
    assert!(calls.ends_with("(10 min), secure, from 127.0.0.2:1, process 2"), "by lond's own clock: {calls}");
    assert!(!said.out.contains("127.0.0.3"), "{}", said.out);
}
