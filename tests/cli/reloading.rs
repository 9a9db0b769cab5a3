//! `lon reload`, and `lon status` where `lond` runs too.

use crate::place::Place;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

/// Plays a program's own socket: one line, which must be `want`, answered by `answer`.
fn program(want: &'static str, answer: &'static str) -> impl FnOnce(UnixStream) + Send + 'static {
    move |mut stream| {
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, format!("{want}\n"));
        stream.write_all(answer.as_bytes()).unwrap();
    }
}

#[test]
fn reload_tells_what_each_program_did() {
    let place = Place::new();
    let lonc = place
        .listen("lonc.sock", program("reload", "reloaded: 2 links replaced, 1 added, 0 removed, 3 kept\n"));
    let lond = place.listen("lond.sock", program("reload", "reloaded: 0 links ended, 4 kept\n"));
    let said = place.run(&["reload"]);
    lonc.join().unwrap();
    lond.join().unwrap();
    assert_eq!(said.code, 0);
    assert_eq!(
        said.out,
        "lonc: reloaded: 2 links replaced, 1 added, 0 removed, 3 kept\nlond: reloaded: 0 links ended, 4 kept\n"
    );
    assert!(said.err.lines().all(|line| line.starts_with("lon: warning: ")), "{}", said.err);
}

#[test]
fn a_program_that_keeps_its_old_configuration_makes_the_code_1() {
    let place = Place::new();
    let lonc =
        place.listen("lonc.sock", program("reload", "error:hosts.tab:7: bad\nerror:hosts.tab:9: bad\n"));
    let said = place.run(&["reload"]);
    lonc.join().unwrap();
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    let mut lines = said.err.lines().filter(|line| !line.starts_with("lon: warning: "));
    assert_eq!(lines.next(), Some("lon: lonc: hosts.tab:7: bad"));
    assert_eq!(lines.next(), Some("lon: lonc: hosts.tab:9: bad"));
    assert_eq!(lines.next(), Some("lon: lonc: the old configuration stays"));
    assert!(lines.next().is_some_and(|line| line.starts_with("lon: lond does not run: ")), "{}", said.err);
}

#[test]
fn a_program_that_is_away_is_no_failure_and_both_are() {
    let place = Place::new();
    let lond = place.listen("lond.sock", program("reload", "reloaded: 1 link ended, 0 kept\n"));
    let said = place.run(&["reload"]);
    lond.join().unwrap();
    assert_eq!((said.code, said.out.as_str()), (0, "lond: reloaded: 1 link ended, 0 kept\n"));

    let said = Place::new().run(&["reload"]);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert!(said.err.contains("lon: nothing to reload; if run_dir is new ("), "{}", said.err);
}

#[test]
fn an_answer_that_breaks_off_is_a_failure() {
    for answer in ["", "error:", "nonsense\n"] {
        let place = Place::new();
        let lonc = place.listen("lonc.sock", program("reload", answer));
        let said = place.run(&["reload"]);
        lonc.join().unwrap();
        assert_eq!(said.code, 1, "{answer:?}: {}", said.err);
    }
}

#[test]
fn a_wrong_configuration_is_told_without_asking_anyone() {
    let place = Place::new();
    std::fs::write(place.path("lonnet.toml"), "id = \"here\"\nnonsense = 1\n").unwrap();
    let said = place.run(&["reload"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("lonnet.toml:2: "), "{}", said.err);
    assert!(!said.err.contains("does not run"), "{}", said.err);
}

const LONC: &str = concat!(
    r#"{"program":"lonc","version":"0.1.0","id":"here","pid":4700,"started":"2026-11-20T08:00:00Z","#,
    r#""written":"2026-11-20T08:12:14Z","doing":"","last_log":"","peers":[]}"#,
    "\n"
);
const LOND: &str = concat!(
    r#"{"program":"lond","version":"0.1.0","id":"here","pid":4600,"started":"2026-11-20T08:00:00Z","#,
    r#""written":"2026-11-20T08:12:14Z","doing":"serving","last_log":"","listen":["127.0.0.1:5663"],"links":["#,
    r#"{"caller":"there","wire":"classic","private":false,"since":"2020-11-20T08:00:00Z","pid":7,"#,
    r#""address":"127.0.0.2:4000","pin":null}],"opening":0,"max_opening":64,"refused":0,"crowded":0,"#,
    r#""unauthenticated":3,"killed":0}"#,
    "\n"
);

#[test]
fn status_shows_the_callers_below_the_links_and_marks_the_classic_ones() {
    let place = Place::new();
    let lonc = place.listen("lonc.sock", program("status", LONC));
    let lond = place.listen("lond.sock", program("status", LOND));
    let said = place.run(&["status"]);
    lonc.join().unwrap();
    lond.join().unwrap();
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines[..2], ["no links: no other host in hosts.tab", ""]);
    assert!(lines[2].starts_with("1 caller on 127.0.0.1:5663; in "), "{}", said.out);
    assert!(lines[2].ends_with(": 3 not authenticated"), "{}", said.out);
    assert!(
        lines[4].contains("classic, not private") && lines[4].ends_with("127.0.0.2:4000    7"),
        "{}",
        said.out
    );
}

#[test]
fn status_as_json_has_what_lond_says_beside_the_links_or_null() {
    let place = Place::new();
    let lonc = place.listen("lonc.sock", program("status", LONC));
    let lond = place.listen("lond.sock", program("status", LOND));
    let said = place.run(&["status", "--json"]);
    lonc.join().unwrap();
    lond.join().unwrap();
    let both: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, both["pid"].as_u64()), (0, Some(4700)));
    assert_eq!(both["lond"]["links"][0]["caller"], "there");

    let place = Place::new();
    let lonc = place.listen("lonc.sock", program("status", LONC));
    let said = place.run(&["status", "--json"]);
    lonc.join().unwrap();
    let alone: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert!(said.code == 0 && alone["lond"].is_null() && alone.as_object().unwrap().contains_key("lond"));
}
