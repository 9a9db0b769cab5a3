//! `lon init` and `lon check`.

use crate::place::{HOSTS, Place, Said, TOML, lon};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

#[test]
fn init_makes_a_folder_that_passes_check() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("new/net");
    let said = Said::of(
        &lon(&["init", dir.to_str().unwrap(), "--id", "msua1", "--address", "127.0.0.3", "--port", "7001"])
            .output()
            .unwrap(),
    );
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let hosts = fs::read_to_string(dir.join("hosts.tab")).unwrap();
    assert!(hosts.ends_with("\nmsua1:local:library:localhost:127.0.0.3\n"), "{hosts}");
    assert_eq!(fs::metadata(dir.join("keys")).unwrap().mode() & 0o7777, 0o700);
    let file = dir.join("lonnet.toml");
    let config = lonnet::config::Config::load(&file).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.lond.listen, ["127.0.0.3:7001".parse().unwrap()]);
    assert!(!config.lond.classic, "no classic callers unless they are asked for");
    assert_eq!(config.user, None);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let said = Said::of(&lon(&["--config", file.to_str().unwrap(), "check"]).output().unwrap());
    assert_eq!(said.code, 0, "{said:?}");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("\nwire = \"secure\""), "{text}");
    let classic: Vec<&str> = text.lines().filter(|line| line.contains("\"classic\"")).collect();
    assert_eq!(classic.len(), 2, "{text}");
    assert!(classic.iter().all(|line| line.starts_with("# ") && line.contains("NOT PRIVATE")), "{classic:?}");
}

#[test]
fn init_makes_a_key_that_is_private_and_pins_it() {
    let place = tempfile::tempdir().unwrap();
    let said = Said::of(&lon(&["init", place.path().to_str().unwrap(), "--id", "msua1"]).output().unwrap());
    assert_eq!(said.code, 0, "{said:?}");
    let key = place.path().join("keys/host.key");
    assert_eq!(fs::metadata(&key).unwrap().mode() & 0o7777, 0o600);
    let pins = fs::read_to_string(place.path().join("hosts.pins")).unwrap();
    let line = pins.lines().last().unwrap();
    assert!(line.starts_with("msua1 sha256:"), "{pins}");
    assert!(said.out.contains(&format!("\n{line}\n")), "{said:?}");
    let file = place.path().join("lonnet.toml");
    let pin = Said::of(&lon(&["--config", file.to_str().unwrap(), "pin"]).output().unwrap());
    assert_eq!((pin.code, pin.out), (0, format!("{line}\n")));
    let config = lonnet::config::Config::load(&file).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.pins.of(&config.id).len(), 1);
}

#[test]
fn init_takes_an_ipv6_address() {
    let place = tempfile::tempdir().unwrap();
    let said = Said::of(
        &lon(&["init", place.path().to_str().unwrap(), "--id", "six", "--address", "::1"]).output().unwrap(),
    );
    assert_eq!(said.code, 0, "{said:?}");
    assert!(fs::read_to_string(place.path().join("hosts.tab")).unwrap().ends_with("localhost:[::1]\n"));
    assert!(fs::read_to_string(place.path().join("lonnet.toml")).unwrap().contains("\"[::1]:5663\""));
}

#[test]
fn init_overwrites_nothing_and_undoes_only_what_it_made() {
    for existing in ["lonnet.toml", "hosts.tab", "hosts.pins", "keys", "keys/host.key"] {
        let place = tempfile::tempdir().unwrap();
        if existing.starts_with("keys/") {
            fs::create_dir(place.path().join("keys")).unwrap();
        }
        fs::write(place.path().join(existing), "mine").unwrap();
        fs::create_dir(place.path().join("run")).unwrap();
        let before = listing(place.path());
        let said =
            Said::of(&lon(&["init", place.path().to_str().unwrap(), "--id", "msua1"]).output().unwrap());
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{existing}");
        let path = place.path().join(existing);
        assert_eq!(said.err, format!("lon: make {}: File exists (os error 17)\n", path.display()));
        let names = |all: BTreeMap<PathBuf, _>| all.into_keys().collect::<Vec<_>>();
        assert_eq!(names(listing(place.path())), names(before), "{existing}");
        assert_eq!(fs::read(path).unwrap(), b"mine");
    }
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("a/b");
    let dir = dir.to_str().unwrap();
    for (arguments, code) in [
        (&["--id", "a b"][..], 2),
        (&["--id", "a", "--domain", "a b"], 1),
        (&["--id", "a", "--address", "0.0.0.0"], 1),
        (&["--id", "a", "--port", "0"], 2),
        (&[], 2),
    ] {
        let said = Said::of(&lon(&[&["init", dir], arguments].concat()).output().unwrap());
        assert_eq!(said.code, code, "{arguments:?}: {said:?}");
        assert!(!place.path().join("a").exists(), "{arguments:?}");
    }
}

#[test]
fn of_many_that_init_one_folder_at_once_one_does_and_what_it_made_is_whole() {
    for _ in 0..10 {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("lonnet");
        let all: Vec<_> = (0..4)
            .map(|n| {
                let mut command = lon(&["init", dir.to_str().unwrap(), "--id", &format!("host{n}")]);
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let said: Vec<Said> =
            all.into_iter().map(|child| Said::of(&child.wait_with_output().unwrap())).collect();
        let done: Vec<&Said> = said.iter().filter(|said| said.code == 0).collect();
        assert_eq!(done.len(), 1, "{said:?}");
        let file = dir.join("lonnet.toml");
        let pin = Said::of(&lon(&["--config", file.to_str().unwrap(), "pin"]).output().unwrap());
        assert!(pin.code == 0 && done[0].out.contains(pin.out.trim_end()), "{pin:?} {done:?}");
        let mut names: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["hosts.pins", "hosts.tab", "keys", "lonnet.toml"]);
    }
}

/// Every path under `folder` with what a change would change.
fn listing(folder: &Path) -> BTreeMap<PathBuf, (u64, u32, i64, i64, i64, i64)> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let is = fs::symlink_metadata(&path).unwrap();
            all.insert(
                path.clone(),
                (is.size(), is.mode(), is.mtime(), is.mtime_nsec(), is.ctime(), is.ctime_nsec()),
            );
            if is.is_dir() {
                folders.push(path);
            }
        }
    }
    let is = fs::symlink_metadata(folder).unwrap();
    all.insert(
        folder.to_owned(),
        (is.size(), is.mode(), is.mtime(), is.mtime_nsec(), is.ctime(), is.ctime_nsec()),
    );
    all
}

#[test]
fn check_says_all_that_is_wrong_or_hardly_meant_and_touches_nothing() {
    let place = Place::new();
    fs::remove_dir(place.path("status")).unwrap();
    let before = listing(place.0.path());
    let said = place.run(&["check"]);
    let file = place.path("lonnet.toml");
    let file = file.display();
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert_eq!(said.out, format!("{file}: no errors\n"));
    assert_eq!(listing(place.0.path()), before);

    let more = "[handler.app]\nsocket = \"app.sock\"\nallow = [\"*\"]\n[handler.file]\nsocket = \"hosts.tab\"\nallow = [\"*\"]\n";
    let toml = TOML
        .replace("\"root\"", "\"nobody-of-that-name\"")
        .replace("[lonc]", "log_dir = \"hosts.tab/log\"\n[lonc]");
    fs::write(place.path("lonnet.toml"), toml + more).unwrap();
    fs::write(place.path("hosts.tab"), format!("{HOSTS}twin:msu:access:d:127.0.0.1\n")).unwrap();
    fs::set_permissions(place.path("keys"), fs::Permissions::from_mode(0o755)).unwrap();
    let before = listing(place.0.path());
    let said = place.run(&["check"]);
    let dir = place.0.path().display();
    assert_eq!((said.code, said.err.as_str()), (1, ""));
    // `user` is in the second line, `log_dir` in the third, and the handlers behind the rest.
    let last = TOML.lines().count() + 1;
    let (app, other) = (last + 2, last + 5);
    assert_eq!(
        said.out,
        format!(
            "{file}:3: log_dir: {dir}/hosts.tab is no folder\n\
             {file}:2: user: there is no user \"nobody-of-that-name\"\n\
             warning: {dir}/hosts.tab:4: twin has the address 127.0.0.1, as has here in line 1: a caller from there \
             is taken for twin\n\
             warning: {file}: key_dir: {dir}/keys is open to others than its owner (mode 0755): chmod 0700\n\
             warning: {file}:{app}: handler.app: socket: {dir}/app.sock: No such file or directory (os error 2): requests \
             are answered error: until a program listens there\n\
             warning: {file}:{other}: handler.file: socket: {dir}/hosts.tab: is no socket: requests are answered error: until \
             a program listens there\n"
        )
    );
    assert_eq!(listing(place.0.path()), before);
}

#[test]
fn check_reports_both_files_at_once() {
    let place = Place::new();
    fs::write(place.path("lonnet.toml"), "id = \"here\"\nwhat = 1\n").unwrap();
    fs::write(place.path("hosts.tab"), "here:msu:access:a:127.0.0.1\n\nx\n").unwrap();
    let said = place.run(&["check"]);
    let dir = place.0.path().display();
    assert_eq!(said.code, 1);
    assert_eq!(
        said.out,
        format!(
            "{dir}/lonnet.toml:2: what: unknown key\n{dir}/hosts.tab:3: 1 of 5 fields: want \
             id:domain:role:hostname:ip\n"
        )
    );
}

#[test]
fn check_as_json_has_every_error_and_warning_with_its_file_and_line() {
    let place = Place::new();
    let asked = |code: i32| {
        let said = place.run(&["check", "--json"]);
        assert_eq!((said.code, said.err.as_str(), said.out.lines().count()), (code, "", 1), "{said:?}");
        serde_json::from_str::<serde_json::Value>(&said.out).unwrap()
    };
    assert_eq!(asked(0), serde_json::json!({ "errors": [], "warnings": [] }));
    fs::set_permissions(place.path("keys"), fs::Permissions::from_mode(0o755)).unwrap();
    let report = asked(0);
    assert!(report["warnings"][0]["what"].as_str().unwrap().contains("open to others"), "{report}");
    assert!(report["warnings"][0]["line"].is_null(), "{report}");
    fs::write(place.path("lonnet.toml"), format!("what = 1\n{TOML}")).unwrap();
    let report = asked(1);
    let file = place.path("lonnet.toml").display().to_string();
    let error = serde_json::json!({ "file": file, "line": 1, "what": "what: unknown key" });
    assert_eq!(report["errors"], serde_json::json!([error]));
}
