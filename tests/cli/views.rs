//! `lon queue`.

use crate::place::Place;
use lonnet::store::spool::{RealDisk, Spool};
use serde_json::{Value, json};
use std::fs;

#[test]
fn queue_shows_what_waits_for_whom() {
    let place = Place::new();
    let said = place.run(&["queue"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "nothing waits\n", ""));
    assert_eq!(place.run(&["critical", "there", "log:one"]).code, 4);
    let said = place.run(&["queue"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines.len(), 2, "{}", said.out);
    assert!(lines[1].starts_with("there ") && lines[1].contains("1 file"), "{}", said.out);
    let said = place.run(&["queue", "there"]);
    assert!(said.out.starts_with("there: no message stored; 1 file dropped in\n"), "{}", said.out);
    assert_eq!(place.run(&["queue", "other"]).out, "other: nothing waits\n");
    assert_eq!(place.run(&["queue", "nobody"]).code, 1);
    assert_eq!(place.run(&["queue", "--full"]).code, 2);
}

#[test]
fn queue_lists_what_a_broker_has_stored() {
    let place = Place::new();
    let toml = place.path("lonnet.toml");
    let limits = lonnet::config::Config::load(&toml).unwrap().peers[0].spool;
    let mut spool = Spool::open(RealDisk, &place.path("delayed/there"), limits);
    for stored in spool.store(&[b"log:caf\xe9", b"log:two"], jiff::Timestamp::now()) {
        stored.unwrap();
    }
    let said = place.run(&["queue"]);
    let row: Vec<&str> = said.out.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(row[..3], ["there", "2", "15"], "{}", said.out);
    let said = place.run(&["queue", "there"]);
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines[0], "there: 2 messages wait, 15 bytes");
    assert!(lines[2].ends_with("  log:caf\\xe9"), "{}", said.out);
    assert!(lines[3].ends_with("  log:two"), "{}", said.out);
    assert_eq!((lines.len(), said.code, said.err.as_str()), (4, 0, ""));
}

/// A spool for `there` with three messages, the second of them damaged; returns the segment.
fn damaged_spool(place: &Place) -> std::path::PathBuf {
    let limits = lonnet::config::Config::load(&place.path("lonnet.toml")).unwrap().peers[0].spool;
    let folder = place.path("delayed/there");
    let mut spool = Spool::open(RealDisk, &folder, limits);
    for stored in spool.store(&[b"log:one", b"log:two", b"log:three"], jiff::Timestamp::now()) {
        stored.unwrap();
    }
    let segment = folder.join("00000000000000000001.seg");
    let mut bytes = fs::read(&segment).unwrap();
    let place = bytes.windows(3).position(|text| text == b"two").unwrap();
    bytes[place] = b'T';
    fs::write(&segment, bytes).unwrap();
    segment
}

#[test]
fn queue_check_says_what_is_damaged_and_where_it_looked() {
    let place = Place::new();
    let said = place.run(&["queue", "check"]);
    let looked = |spools: u32| {
        let folder = place.path("delayed");
        format!(
            "{}: looked at the spools of {spools} hosts and what 0 callers were answered",
            folder.display()
        )
    };
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert_eq!(said.out.lines().next(), Some(&*looked(0)));
    let segment = damaged_spool(&place);
    fs::write(place.path("delayed/1.there"), "ping\n").unwrap();
    fs::write(place.path("delayed/2.nobody"), "ping\n").unwrap();
    let before = fs::read(&segment).unwrap();
    for arguments in [&["queue", "check"][..], &["queue", "check", "there"]] {
        let said = place.run(arguments);
        assert_eq!((said.code, said.err.as_str()), (1, ""), "{}", said.out);
        let damage = format!("{}:2: 79 bytes at 79 are damaged", segment.display());
        assert_eq!(said.out.lines().next(), Some(&*damage));
        let stray = format!("warning: {}: is for no host", place.path("delayed/2.nobody").display());
        assert_eq!(said.out.contains(&stray), arguments.len() == 2, "{}", said.out);
        let totals = "messages: 2 sound, 2 of them wait; 1 dropped in; 0 failed; answers: 0 sound; damaged: 1; \
                      set aside before: 0\n";
        assert!(said.out.contains(&looked(1)) && said.out.ends_with(totals), "{}", said.out);
    }
    assert_eq!(fs::read(&segment).unwrap(), before);
    let names = fs::read_dir(place.path("delayed/there")).unwrap().count();
    assert_eq!(place.run(&["queue", "check", "other"]).code, 0);
    assert_eq!(place.run(&["queue", "check", "nobody"]).code, 1);
    assert_eq!(fs::read_dir(place.path("delayed/there")).unwrap().count(), names, "nothing is left behind");
}

#[test]
fn queue_check_reads_what_other_hosts_were_answered() {
    let place = Place::new();
    let folder = place.path("delayed/.received/other");
    fs::create_dir_all(&folder).unwrap();
    let mut record = lonnet::store::record::Record::open(RealDisk, &folder);
    record.begin_epoch(&"a".repeat(32)).unwrap();
    record.add(&[(1, None, b"one"), (2, None, b"two")]).unwrap();
    let said = place.run(&["queue", "check"]);
    assert!(said.code == 0 && said.out.contains("what 1 callers were answered"), "{}", said.out);
    // Two answers, and what is settled: before them, and where the file and each write to it begin.
    assert!(said.out.contains("answers: 5 sound"), "{}", said.out);
    let file = folder.join("answers");
    let text = fs::read_to_string(&file).unwrap().replace("one", "eno");
    fs::write(&file, text).unwrap();
    let said = place.run(&["queue", "check", "other"]);
    assert_eq!(said.code, 1);
    assert!(said.out.starts_with(&format!("{}:4: ", file.display())), "{}", said.out);
}

#[test]
fn a_host_called_check_is_asked_for_behind_two_hyphens() {
    let place = Place::new();
    let table = fs::read_to_string(place.path("hosts.tab")).unwrap();
    fs::write(place.path("hosts.tab"), table + "check:msu:library:d:127.0.0.4\n").unwrap();
    assert_eq!(place.run(&["queue", "--", "check"]).out, "check: nothing waits\n");
    assert!(place.run(&["queue", "check"]).out.contains("looked at"));
    assert!(place.run(&["queue", "check", "check"]).out.contains("looked at"));
}

#[test]
fn queue_shows_hosts_that_are_gone_from_the_table_and_whole_requests() {
    let place = Place::new();
    let limits = lonnet::config::Config::load(&place.path("lonnet.toml")).unwrap().peers[0].spool;
    let mut spool = Spool::open(RealDisk, &place.path("delayed/gone"), limits);
    let long = format!("log:{}", "x".repeat(1000));
    spool.store(&[long.as_bytes()], jiff::Timestamp::now()).remove(0).unwrap();
    fs::write(place.path("delayed/1.nobody"), "ping\n").unwrap();
    let said = place.run(&["queue"]);
    let lines: Vec<&str> = said.out.lines().collect();
    assert!(lines[1].starts_with("gone (no longer in hosts.tab)"), "{}", said.out);
    assert_eq!(lines[2..], ["1 file for no host of hosts.tab: 1.nobody"]);
    let said = place.run(&["queue", "gone"]);
    assert!(said.out.contains("no longer in hosts.tab: nobody sends it"), "{}", said.out);
    assert!(said.code == 0 && !said.out.contains(&long));
    let said = place.run(&["queue", "gone", "--full"]);
    assert!(said.out.ends_with(&format!("  {long}\n")), "{}", said.out);
}

#[test]
fn queue_as_json_has_every_host_and_every_message() {
    let place = Place::new();
    let asked = |arguments: &[&str], code: i32| -> Value {
        let said = place.run(&[arguments, &["--json"]].concat());
        assert_eq!((said.code, said.err.as_str(), said.out.lines().count()), (code, "", 1), "{said:?}");
        serde_json::from_str(&said.out).unwrap()
    };
    let nothing = asked(&["queue"], 0);
    assert_eq!(nothing["peers"].as_array().unwrap().len(), 2, "those too for which nothing waits: {nothing}");
    assert_eq!((&nothing["peers"][0]["waiting"], &nothing["strays"]), (&json!(0), &json!([])));
    let limits = lonnet::config::Config::load(&place.path("lonnet.toml")).unwrap().peers[0].spool;
    let mut spool = Spool::open(RealDisk, &place.path("delayed/there"), limits);
    let long = vec![b'x'; 1000];
    spool.store(&[b"log:caf\xe9", &long], jiff::Timestamp::now()).into_iter().for_each(|stored| {
        stored.unwrap();
    });
    fs::write(place.path("delayed/1.there"), "ping\n").unwrap();
    fs::write(place.path("delayed/2.nobody"), "ping\n").unwrap();
    fs::create_dir(place.path("delayed/gone")).unwrap();
    let all = asked(&["queue"], 0);
    assert_eq!(all["strays"], json!(["2.nobody"]));
    let there = &all["peers"][0];
    assert_eq!(
        (&there["peer"], &there["waiting"], &there["bytes"], &there["dropped_in"], &there["stranger"]),
        (&json!("there"), &json!(2), &json!(1008), &json!(1), &json!(false))
    );
    assert_eq!((&all["peers"][2]["peer"], &all["peers"][2]["stranger"]), (&json!("gone"), &json!(true)));
    let one = asked(&["queue", "there"], 0);
    let first = &one["messages"][0];
    assert_eq!(
        (&first["sequence"], &first["request"], &first["whole"], &first["bytes"]),
        (&json!(1), &json!("log:caf\\xe9"), &json!(true), &json!(8))
    );
    assert!(first["stored_at"].is_string() && one["files"][0]["name"] == "1.there", "{one}");
    assert_eq!(one["messages"][1]["whole"], false);
    let full = asked(&["queue", "there", "--full"], 0);
    assert_eq!(full["messages"][1]["request"], String::from_utf8(long).unwrap());
}

#[test]
fn queue_check_as_json_has_every_finding_and_the_totals() {
    let place = Place::new();
    let asked = |code: i32| -> Value {
        let said = place.run(&["queue", "check", "--json"]);
        assert_eq!((said.code, said.err.as_str(), said.out.lines().count()), (code, "", 1), "{said:?}");
        serde_json::from_str(&said.out).unwrap()
    };
    let sound = asked(0);
    assert_eq!((&sound["findings"], &sound["damaged"], &sound["spools"]), (&json!([]), &json!(0), &json!(0)));
    let segment = damaged_spool(&place);
    fs::write(place.path("delayed/2.nobody"), "ping\n").unwrap();
    let found = asked(1);
    let damage = &found["findings"][0];
    assert_eq!(
        (&damage["file"], &damage["line"], &damage["damage"]),
        (&json!(segment.display().to_string()), &json!(2), &json!(true))
    );
    assert_eq!(found["findings"][1]["damage"], false, "{found}");
    assert_eq!((&found["damaged"], &found["waiting"]), (&json!(1), &json!(2)));
}
