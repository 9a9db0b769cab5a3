//! What root's `lon` makes for the service, and with which modes; what `lon` itself gives up.

use crate::place::{Place, Said};
use nix::unistd::{User, geteuid};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

/// A place that `nobody` serves, without the folder of its keys, in a folder of root's; and the
/// user's id.
fn place() -> Option<(Place, u32)> {
    let nobody = User::from_name("nobody").ok().flatten().filter(|_| geteuid().is_root());
    let Some(nobody) = nobody.map(|user| user.uid.as_raw()) else {
        crate::skip::skipped("needs root and a user nobody");
        return None;
    };
    let place = Place::new();
    fs::set_permissions(place.0.path(), Permissions::from_mode(0o755)).unwrap();
    fs::remove_dir(place.path("keys")).unwrap();
    fs::write(place.path("lonnet.toml"), "id = \"here\"\nuser = \"nobody\"\n").unwrap();
    Some((place, nobody))
}

fn owner_and_mode(path: &Path) -> (u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.mode() & 0o7777)
}

#[test]
fn root_makes_and_changes_keys_as_the_user_unless_root_alone_decides_what_is_in_their_folder() {
    let Some((place, nobody)) = place() else { return };
    let made = place.run(&["pin", "--make"]);
    assert_eq!((made.code, made.err.as_str()), (0, ""));
    let (keys, key) = (place.path("keys"), place.path("keys/host.key"));
    assert_eq!((owner_and_mode(&keys), owner_and_mode(&key)), ((nobody, 0o700), (nobody, 0o600)));
    // Both in the user's folder, and in one of root's, of which the user may have the key alone.
    for (owner, mode) in [(nobody, 0o700), (0, 0o755)] {
        chown(&keys, Some(owner), None).unwrap();
        fs::set_permissions(&keys, Permissions::from_mode(mode)).unwrap();
        let said = place.run(&["rotate", "--prepare"]);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{owner}");
        assert_eq!(owner_and_mode(&place.path("keys/host.key.new")), (nobody, 0o600));
        assert_eq!(place.run(&["rotate", "--undo"]).code, 0);
    }
    // A key of root's alone, to which the user leads in its own folder.
    chown(&keys, Some(nobody), None).unwrap();
    let secret = place.path("secret.key");
    fs::rename(&key, &secret).unwrap();
    chown(&secret, Some(0), None).unwrap();
    symlink(&secret, &key).unwrap();
    for command in [&["pin"][..], &["rotate"]] {
        let said = place.run(command);
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{command:?}");
        assert!(said.err.contains("Permission denied"), "{said:?}");
    }
}

#[test]
fn root_shows_nothing_of_what_a_link_in_the_users_folders_leads_to() {
    let Some((place, nobody)) = place() else { return };
    let secret = place.path("secret");
    fs::create_dir(&secret).unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o700)).unwrap();
    fs::write(secret.join("1.there"), "of root\n").unwrap();
    for name in ["delayed", "status"] {
        fs::remove_dir(place.path(name)).unwrap();
        symlink(&secret, place.path(name)).unwrap();
        std::os::unix::fs::lchown(place.path(name), Some(nobody), None).unwrap();
    }
    fs::write(secret.join("status.json"), "\"of root\"").unwrap();
    for command in [&["queue"][..], &["queue", "there"], &["queue", "check"], &["status"]] {
        let said = place.run(command);
        assert!(said.code != 0 && !said.out.contains("1.there"), "{command:?}: {said:?}");
        assert!(
            said.err.contains("Permission denied") && !said.err.contains("of root"),
            "{command:?}: {said:?}"
        );
    }
}

#[test]
fn who_may_ask_and_not_store_is_told_so_while_the_broker_is_away_and_who_may() {
    let Some((place, nobody)) = place() else { return };
    // Of the group of the folder: it may look there, and no more.
    chown(place.path("delayed"), Some(0), Some(nobody)).unwrap();
    for (owner, who) in [("nobody", "root"), ("daemon", "root and daemon")] {
        let Some(user) = User::from_name(owner).ok().flatten() else { continue };
        if owner != "nobody" {
            chown(place.path("delayed"), Some(user.uid.as_raw()), None).unwrap();
        }
        let mut command = place.lon(&["critical", "there", "log:x"]);
        std::os::unix::process::CommandExt::gid(&mut command, nobody);
        std::os::unix::process::CommandExt::uid(&mut command, nobody);
        let said = Said::of(&command.output().unwrap());
        assert_eq!((said.code, said.out.as_str()), (5, "con_failed\n"), "{said:?}");
        let delayed = place.path("delayed");
        let expected = format!(
            "lon: store message for there in {}: Permission denied (os error 13): while lonc is away only {who} may \
             store messages: start lonc, and ask again\n",
            delayed.display()
        );
        assert!(said.err.ends_with(&expected), "{said:?}");
        assert_eq!(fs::read_dir(&delayed).unwrap().count(), 0);
    }
}

#[test]
fn whatever_the_umask_of_who_stores_a_message_its_modes_are_the_same() {
    for umask in ["000", "077"] {
        let place = Place::new();
        fs::remove_dir(place.path("delayed")).unwrap();
        let direct = place.lon(&["critical", "there", "log:kept"]);
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("umask {umask}; exec \"$0\" \"$@\"")).arg(direct.get_program());
        let said = Said::of(&command.args(direct.get_args()).output().unwrap());
        assert_eq!(said.code, 4, "{said:?}");
        let file = fs::read_dir(place.path("delayed")).unwrap().next().unwrap().unwrap().path();
        let modes = [place.path("delayed"), file].map(|path| owner_and_mode(&path).1);
        assert_eq!(modes.map(|mode| format!("{mode:o}")), ["750", "640"], "{umask}");
    }
}

#[test]
fn lon_gains_no_privileges_and_dumps_no_memory() {
    let place = Place::new();
    let mut child =
        place.lon(&["reply", "there"]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let look = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", child.id())).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !look("status").contains("NoNewPrivs:\t1\n") {
        assert!(std::time::Instant::now() < deadline, "{}", look("status"));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let core =
        |limits: &str| limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
    while core(&look("limits")).split_whitespace().skip(4).take(2).any(|limit| limit != "0") {
        assert!(std::time::Instant::now() < deadline, "{}", look("limits"));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(child.stdin.take());
    child.wait().unwrap();
}
