//! `lon pin`, `lon rotate`, and what `lon check` says of keys and pins.

use crate::place::{Place, Said, lon};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

/// A network's folder on the secure wire with a key, whose line is in hosts.pins; the line.
fn place_with_key() -> (Place, String) {
    let place = Place::new();
    let toml = "id = \"here\"\nuser = \"root\"\n";
    fs::write(place.path("lonnet.toml"), toml).unwrap();
    let said = place.run(&["pin", "--make"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let others = ["there", "other"].map(|id| format!("{id} {}\n", pin_of(id)));
    fs::write(place.path("hosts.pins"), format!("{}{}", said.out, others.concat())).unwrap();
    (place, said.out)
}

fn pin_of(text: &str) -> lonnet::base::Pin {
    lonnet::base::Pin::of(text.as_bytes())
}

fn add_pin(place: &Place, line: &str) {
    let pins = fs::read_to_string(place.path("hosts.pins")).unwrap();
    fs::write(place.path("hosts.pins"), format!("{pins}{line}")).unwrap();
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What a step says; it must succeed.
fn step(place: &Place, option: &[&str]) -> String {
    let said = place.run(&[&["rotate"], option].concat());
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{option:?}");
    said.out
}

fn refused(place: &Place, option: &str) -> String {
    let before = names(&place.path("keys"));
    let said = place.run(&["rotate", option]);
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{option}");
    assert_eq!(names(&place.path("keys")), before, "{option}");
    said.err
}

#[test]
fn pin_prints_the_line_of_the_key_and_makes_one_only_when_told_to() {
    let place = Place::new();
    let said = place.run(&["pin"]);
    let key = place.path("keys/host.key");
    let missing = format!("lon: read {}: there is no key: lon pin --make makes one\n", key.display());
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (1, "", missing.as_str()));
    fs::remove_dir(place.path("keys")).unwrap();
    let made = place.run(&["pin", "--make"]);
    assert_eq!((made.code, made.err.as_str()), (0, ""));
    assert!(made.out.starts_with("here sha256:") && made.out.lines().count() == 1, "{made:?}");
    assert_eq!(fs::metadata(&key).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(place.path("keys")).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(place.run(&["pin", "--make"]).out, made.out, "it is not made again");
    assert_eq!(place.run(&["pin"]).out, made.out);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let said = place.run(&["pin"]);
    let open = format!("lon: read {}: readable by others (mode 0644): chmod 600 it\n", key.display());
    assert_eq!((said.code, said.err), (1, open));
}

#[test]
fn a_key_changes_over_in_three_steps_that_say_what_is_next() {
    let (place, old_line) = place_with_key();
    let keys = place.path("keys");
    let said = step(&place, &[]);
    assert!(said.contains("no change of keys") && said.contains(&old_line), "{said}");
    let typed = |command: &str| format!("lon --config {} {command}\n", place.path("lonnet.toml").display());
    assert!(said.ends_with(&typed("rotate --prepare")), "each hint names the configuration: {said}");

    let said = step(&place, &["--prepare"]);
    let lines = place.run(&["pin"]).out;
    let new_line = lines.strip_prefix(&old_line).expect("both lines while a new key waits").to_owned();
    assert!(said.contains(&new_line) && said.contains("EVERY host") && said.contains("--switch"), "{said}");
    assert_eq!(fs::metadata(keys.join("host.key.new")).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(step(&place, &[]).lines().last(), said.lines().last(), "asked again it says the same");

    let error = refused(&place, "--switch");
    assert!(error.contains("would refuse") && error.contains(new_line.trim_end()), "{error}");
    assert!(refused(&place, "--prepare").contains("waits already"));
    assert!(refused(&place, "--finish").contains("not in use yet"));
    add_pin(&place, &new_line);
    assert!(step(&place, &[]).contains("rotate --switch"));

    let said = step(&place, &["--switch"]);
    assert!(said.contains("lonnet.toml reload") && said.contains("--finish"), "{said}");
    assert_eq!(place.run(&["pin"]).out, new_line);
    assert_eq!(names(&keys), ["host.key", "host.key.old"]);
    assert!(refused(&place, "--switch").contains("in use already"));
    assert!(refused(&place, "--prepare").contains("not finished"));
    assert_eq!(place.run(&["check"]).code, 0);

    assert!(refused(&place, "--finish").contains("lonc does not run"));
    let said = step(&place, &["--finish", "--force"]);
    assert!(said.contains("remove this line") && said.contains(&old_line), "{said}");
    assert_eq!(names(&keys), ["host.key"]);
    assert_eq!(place.run(&["pin"]).out, new_line);
    assert!(refused(&place, "--finish").contains("no old key"));
    assert!(refused(&place, "--undo").contains("nothing is under way"));
    let check = place.run(&["check"]);
    let stale = format!("{} is none of this host's keys: remove the line\n", old_line.trim_end());
    assert!(check.code == 0 && check.out.contains(&stale), "{check:?}");
}

#[test]
fn a_change_of_keys_can_be_taken_back_before_and_after_the_switch() {
    let (place, old_line) = place_with_key();
    step(&place, &["--prepare"]);
    step(&place, &["--undo"]);
    assert_eq!(names(&place.path("keys")), ["host.key"]);
    step(&place, &["--prepare"]);
    let lines = place.run(&["pin"]).out;
    add_pin(&place, lines.lines().last().unwrap());
    step(&place, &["--switch"]);
    step(&place, &["--undo"]);
    assert_eq!(place.run(&["pin"]).out, lines, "the old key in use, the new one waits");
    step(&place, &["--switch"]);
    assert_eq!(format!("{old_line}{}", place.run(&["pin"]).out), lines);
}

#[test]
fn a_step_that_was_cut_off_goes_on_where_it_stopped() {
    // A switch cut off after the old key got its second name.
    let (place, old_line) = place_with_key();
    let keys = place.path("keys");
    step(&place, &["--prepare"]);
    let lines = place.run(&["pin"]).out;
    add_pin(&place, lines.lines().last().unwrap());
    fs::hard_link(keys.join("host.key"), keys.join("host.key.old")).unwrap();
    assert!(step(&place, &[]).contains("--switch"));
    step(&place, &["--switch"]);
    assert_eq!(format!("{old_line}{}", place.run(&["pin"]).out), lines);
    assert_eq!(names(&keys), ["host.key", "host.key.old"]);
    // An undo of it, cut off likewise.
    fs::hard_link(keys.join("host.key"), keys.join("host.key.new")).unwrap();
    assert!(step(&place, &[]).contains("--undo"));
    step(&place, &["--undo"]);
    assert_eq!(place.run(&["pin"]).out, lines);
    assert_eq!(names(&keys), ["host.key", "host.key.new"]);
}

#[test]
fn keys_that_no_step_leaves_behind_are_not_touched() {
    let (place, _) = place_with_key();
    let keys = place.path("keys");
    fs::copy(keys.join("host.key"), keys.join("host.key.new")).unwrap();
    for option in ["--switch", "--undo", "--prepare"] {
        assert!(refused(&place, option).contains("host.key.new is the key in use"), "{option}");
    }
}

#[test]
fn a_new_key_belongs_to_the_owner_of_the_present_one() {
    let (place, _) = place_with_key();
    let key = place.path("keys/host.key");
    if chown(&key, Some(4321), Some(4321)).is_err() {
        crate::skip::skipped("only root can give files away");
        return;
    }
    step(&place, &["--prepare"]);
    let new = fs::metadata(place.path("keys/host.key.new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (4321, 4321));
}

#[test]
fn check_says_what_is_wrong_with_keys_and_pins() {
    let (place, line) = place_with_key();
    let dir = place.0.path().display().to_string();
    let said = |code: i32| {
        let said = place.run(&["check"]);
        assert_eq!((said.code, said.err.as_str()), (code, ""), "{said:?}");
        said.out.replace(&format!("{dir}/"), "")
    };
    assert_eq!(said(0), "lonnet.toml: no errors\n");
    let pins = fs::read_to_string(place.path("hosts.pins")).unwrap();
    fs::write(place.path("hosts.pins"), pins.replace(&line, "")).unwrap();
    assert_eq!(
        said(0),
        format!("warning: hosts.pins: this host's own line is not in it: {line}lonnet.toml: no errors\n")
    );
    fs::write(place.path("hosts.pins"), &line).unwrap();
    assert_eq!(
        said(0),
        "warning: lonnet.toml: no pin for there, other in hosts.pins: they will not be dialled\n\
         lonnet.toml: no errors\n"
    );
    fs::write(place.path("hosts.pins"), format!("{pins}there {}\n", line.split(' ').nth(1).unwrap()))
        .unwrap();
    assert!(said(1).contains("hosts.pins:4: the same pin is here's in line 1"));
    fs::write(place.path("hosts.pins"), &pins).unwrap();
    fs::set_permissions(place.path("keys/host.key"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(
        said(1),
        "lonnet.toml: key_dir: read keys/host.key: readable by others (mode 0640): chmod 600 it\n"
    );
    fs::remove_file(place.path("keys/host.key")).unwrap();
    assert_eq!(
        said(1),
        "lonnet.toml: key_dir: read keys/host.key: there is no key: lon pin --make makes one\n"
    );
}

#[test]
fn check_of_a_copied_key_says_whose_it_is_and_that_this_host_needs_one_of_its_own() {
    let (place, line) = place_with_key();
    let dir = place.0.path().display().to_string();
    let (_, pin) = line.trim_end().split_once(' ').unwrap();
    // The machine was copied from `there`, key and all; with and without the line of the key that
    // it had once.
    for own in ["", &format!("here {}\n", pin_of("here"))] {
        fs::write(place.path("hosts.pins"), format!("{own}there {pin}\nother {}\n", pin_of("other")))
            .unwrap();
        let said = place.run(&["check"]);
        let out = said.out.replace(&format!("{dir}/"), "");
        let whose = "hosts.pins: this host's key, keys/host.key, is there's: it was copied from there";
        assert!(said.code == 1 && out.starts_with(whose), "{said:?}");
        assert!(
            out.contains("move it away") && out.contains("(lon --config lonnet.toml pin --make)"),
            "{out}"
        );
        assert!(!out.contains("own line is not in it"), "that line would make it two hosts' key: {out}");
    }
    // Whoever followed the old advice has one pin under two ids.
    fs::write(place.path("hosts.pins"), format!("there {pin}\n{line}")).unwrap();
    let said = place.run(&["check"]);
    assert!(
        said.code == 1 && said.out.contains("hosts.pins:2: the same pin is there's in line 1"),
        "{said:?}"
    );
    assert!(said.out.contains("a key of its own (lon pin --make)"), "{said:?}");
}

#[test]
fn check_says_when_the_key_or_its_folder_is_closed_to_the_user_who_serves() {
    let (place, _) = place_with_key();
    fs::write(place.path("lonnet.toml"), "id = \"here\"\nuser = \"nobody\"\n").unwrap();
    let (keys, key) = (place.path("keys"), place.path("keys/host.key"));
    let nobody = nix::unistd::User::from_name("nobody").unwrap().map(|user| user.uid.as_raw());
    if nobody.is_none() || chown(&key, nobody, None).is_err() {
        crate::skip::skipped("there is no user called nobody, or we are not root");
        return;
    }
    for (closed, open) in [(&keys, &key), (&key, &keys)] {
        chown(open, nobody, None).unwrap();
        chown(closed, Some(0), None).unwrap();
        let said = place.run(&["check"]);
        let what = format!(
            "key_dir: {} is closed to nobody, who is to read the key: chown -R nobody {}\n",
            closed.display(),
            keys.display()
        );
        assert!(said.code == 1 && said.out.contains(&what), "{said:?}");
    }
    chown(&key, nobody, None).unwrap();
    for folder in ["run", "delayed", "log", "status"] {
        chown(place.path(folder), nobody, None).unwrap();
    }
    let said = place.run(&["check"]);
    assert!(said.code == 0 && !said.out.contains("closed to"), "{said:?}");
}

#[test]
fn a_key_that_was_made_serves_openssl_too() {
    if Command::new("openssl").arg("version").output().is_err() {
        crate::skip::skipped("openssl is not installed");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let said = lon(&["init", place.path().to_str().unwrap(), "--id", "a"]).output().unwrap();
    assert!(said.status.success());
    let key = place.path().join("keys/host.key");
    let public = Command::new("openssl")
        .args(["pkey", "-pubout", "-outform", "DER", "-in"])
        .arg(&key)
        .output()
        .unwrap();
    assert!(public.status.success(), "{}", String::from_utf8_lossy(&public.stderr));
    let pins = fs::read_to_string(place.path().join("hosts.pins")).unwrap();
    assert!(pins.ends_with(&format!("\na {}\n", lonnet::base::Pin::of(&public.stdout))), "{pins}");
}

#[test]
fn of_two_who_change_the_key_at_once_one_is_refused_and_who_only_looks_is_not() {
    let (place, _) = place_with_key();
    let other = fs::File::open(place.path("keys")).unwrap();
    other.lock().unwrap();
    let said = refused(&place, "--prepare");
    assert!(said.contains("another lon rotate is at work"), "{said}");
    assert_eq!(names(&place.path("keys")), ["host.key"]);
    step(&place, &[]);
    // Closing would do, but for a program that another test is just starting: it has a copy for a
    // moment.
    other.unlock().unwrap();
    step(&place, &["--prepare"]);
}

#[test]
fn a_key_that_many_make_at_once_is_made_by_one_and_is_whole_at_every_moment() {
    for _ in 0..10 {
        let place = Place::new();
        let made: Vec<_> = (0..4)
            .map(|_| {
                place.lon(&["pin", "--make"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
            })
            .collect();
        let said: Vec<Said> =
            made.into_iter().map(|child| Said::of(&child.wait_with_output().unwrap())).collect();
        let pin = place.run(&["pin"]).out;
        assert!(pin.starts_with("here sha256:"), "{pin}");
        assert!(said.iter().all(|said| said.code == 0 && said.out == pin), "{said:?}");
        assert_eq!(names(&place.path("keys")), ["host.key"]);
    }
}
