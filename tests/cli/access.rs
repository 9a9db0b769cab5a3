//! `lon check` looks with the rights of the user who serves.

use crate::place::{Place, Said};
use nix::sys::socket::Shutdown;
use nix::unistd::{User, geteuid};
use std::fs::{self, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;

const TOML: &str = "id = \"here\"\nuser = \"nobody\"\n[lonc]\nwire = \"classic\"\n[lond]\nclassic = \"allow\"\n\
    listen = [\"127.0.0.1:0\"]\n";

/// A place that `nobody` serves, in which all is as it should be; and its user id. Nothing where
/// the tests are not root.
fn place() -> Option<(Place, u32)> {
    let nobody = User::from_name("nobody").ok().flatten().filter(|_| geteuid().is_root());
    let Some(nobody) = nobody.map(|user| user.uid.as_raw()) else {
        crate::skip::skipped("needs root and a user nobody");
        return None;
    };
    let place = Place::new();
    fs::set_permissions(place.0.path(), Permissions::from_mode(0o755)).unwrap();
    for name in ["keys", "run", "delayed", "log", "status"] {
        chown(place.path(name), Some(nobody), None).unwrap();
    }
    fs::write(place.path("lonnet.toml"), TOML).unwrap();
    let said = place.run(&["check"]);
    assert_eq!(said.code, 0, "{said:?}");
    Some((place, nobody))
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// That it is an error, in so many words after the place's folder.
fn assert_error(place: &Place, said: &Said, what: &str) {
    let what = what.replace("PLACE", &place.0.path().display().to_string());
    let is_error = |line: &str| line.contains(&what) && !line.starts_with("warning");
    assert!(said.code == 1 && said.out.lines().any(is_error), "{what}: {}", said.out);
}

#[test]
fn check_sees_each_folder_and_file_that_the_user_cannot_use() {
    let Some((place, nobody)) = place() else { return };
    for (folder, key) in
        [("run", "run_dir"), ("delayed", "spool_dir"), ("log", "log_dir"), ("status", "status_dir")]
    {
        chown(place.path(folder), Some(0), None).unwrap();
        let said = place.run(&["check"]);
        assert_error(
            &place,
            &said,
            &format!("{key}: PLACE/{folder}: nobody cannot use it: Permission denied"),
        );
        chown(place.path(folder), Some(nobody), None).unwrap();
    }
    // What a command of root's once left there, and records of answers.
    for (name, what) in [
        ("delayed/there", "spool_dir: PLACE/delayed/there: nobody cannot use it"),
        ("delayed/.received", "spool_dir: PLACE/delayed/.received: nobody cannot use it"),
    ] {
        fs::create_dir(place.path(name)).unwrap();
        mode(&place.path(name), 0o750);
        assert_error(&place, &place.run(&["check"]), what);
        chown(place.path(name), Some(nobody), None).unwrap();
        assert_eq!(place.run(&["check"]).code, 0, "{name}");
    }
    fs::create_dir(place.path("delayed/.received/there")).unwrap();
    chown(place.path("delayed/.received/there"), Some(nobody), None).unwrap();
    for (name, what) in [
        ("delayed/1.there", "spool_dir: PLACE/delayed/1.there: nobody cannot use it"),
        ("delayed/there/00000000000000000001.seg", "there/00000000000000000001.seg: nobody cannot use it"),
        ("delayed/.received/there/record", "spool_dir: PLACE/delayed/.received/there/record: nobody"),
        ("log/lonc.log", "log_dir: PLACE/log/lonc.log: nobody cannot write to it"),
        ("run/lond.pid", "run_dir: PLACE/run/lond.pid: nobody cannot write to it"),
        ("lonnet.toml", "PLACE/lonnet.toml: nobody cannot read it"),
        ("hosts.tab", "PLACE/hosts.tab: nobody cannot read it"),
    ] {
        let path = place.path(name);
        if !path.exists() {
            fs::write(&path, "").unwrap();
        }
        mode(&path, 0o600);
        assert_error(&place, &place.run(&["check"]), what);
        mode(&path, 0o666);
        assert_eq!(place.run(&["check"]).code, 0, "{name}");
    }
    // A folder above is named, since it is that one which is to be opened.
    mode(place.0.path(), 0o700);
    let said = place.run(&["check"]);
    assert_error(&place, &said, "run_dir: PLACE/run: nobody cannot use it: PLACE is closed to it");
}

#[test]
fn check_knows_which_folders_root_makes_at_the_start_and_which_the_user_must() {
    let Some((place, nobody)) = place() else { return };
    fs::remove_dir(place.path("log")).unwrap();
    assert_eq!(place.run(&["check"]).code, 0, "root makes it, in a folder of root's");
    fs::create_dir(place.path("home")).unwrap();
    mode(&place.path("home"), 0o555);
    chown(place.path("home"), Some(nobody), None).unwrap();
    fs::write(place.path("lonnet.toml"), format!("log_dir = \"home/log\"\n{TOML}")).unwrap();
    let what = "log_dir: PLACE/home: nobody cannot make what is missing there: Permission denied";
    assert_error(&place, &place.run(&["check"]), what);
    mode(&place.path("home"), 0o755);
    assert_eq!(place.run(&["check"]).code, 0);
    fs::create_dir(place.path("roots")).unwrap();
    mode(&place.path("roots"), 0o700);
    fs::write(place.path("lonnet.toml"), format!("log_dir = \"roots/log\"\n{TOML}")).unwrap();
    assert_error(
        &place,
        &place.run(&["check"]),
        "log_dir: PLACE/roots: nobody cannot reach what is to be made",
    );
}

#[test]
fn check_sees_a_handler_that_the_user_cannot_connect_to_without_connecting() {
    let Some((place, _)) = place() else { return };
    let socket = place.path("app.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    fs::write(
        place.path("lonnet.toml"),
        format!("{TOML}[handler.app]\nsocket = \"app.sock\"\nallow = [\"*\"]\n"),
    )
    .unwrap();
    mode(&socket, 0o755);
    let what = "handler.app: socket: PLACE/app.sock: nobody cannot connect to it";
    assert_error(&place, &place.run(&["check"]), what);
    mode(&socket, 0o666);
    let said = place.run(&["check"]);
    assert!(said.code == 0 && !said.out.contains("handler"), "{said:?}");
    assert!(listener.accept().is_err(), "nobody has connected");
}

#[test]
fn check_sees_a_program_of_a_handler_that_the_user_cannot_run() {
    let Some((place, _)) = place() else { return };
    let (file, text) =
        (place.path("once"), format!("{TOML}[handler.app]\nexec = [\"./once\"]\nallow = [\"*\"]\n"));
    fs::write(place.path("lonnet.toml"), text).unwrap();
    let what =
        "handler.app: program: PLACE/once: No such file or directory (os error 2): requests are not taken";
    assert_error(&place, &place.run(&["check"]), what);
    fs::write(&file, "#!/bin/sh\n").unwrap();
    mode(&file, 0o700);
    assert_error(&place, &place.run(&["check"]), "handler.app: program: PLACE/once: nobody cannot run it");
    mode(&file, 0o755);
    let said = place.run(&["check"]);
    assert!(said.code == 0 && !said.out.contains("handler"), "{said:?}");
}

#[test]
fn check_names_the_file_and_line_of_a_handler_that_a_package_brings() {
    let place = Place::new();
    fs::create_dir(place.path("handlers.d")).unwrap();
    let text = "[handler.app]\nallow = [\"*\"]\nsocket = \"app.sock\"\n\n[handler.run]\nallow = [\"*\"]\n\
                worker = [\"./none\"]\n";
    fs::write(place.path("handlers.d/app.toml"), text).unwrap();
    let said = place.run(&["check"]);
    let (file, folder) = (place.path("handlers.d/app.toml"), place.path("handlers.d"));
    let (file, folder) = (file.display(), folder.display());
    let lines = [
        format!(
            "{file}:7: handler.run: program: {folder}/none: No such file or directory (os error 2): requests"
        ),
        format!("warning: {file}:3: handler.app: socket: {folder}/app.sock: No such file or directory"),
    ];
    let found: Vec<&str> = said.out.lines().collect();
    assert!(
        found.len() == 2 && lines.iter().zip(&found).all(|(line, own)| own.starts_with(line)),
        "{found:?}"
    );
}

#[test]
fn check_holds_the_free_space_against_the_bounds() {
    let place = Place::new();
    let toml = |lonc: &str| crate::place::TOML.replace("[lonc]\n", &format!("[lonc]\n{lonc}\n"));
    fs::write(place.path("lonnet.toml"), toml("spool_keep_free = \"900000 TiB\"")).unwrap();
    let said = place.run(&["check"]);
    assert_error(
        &place,
        &said,
        "are to stay free (spool_keep_free): critical messages that have to wait are answered",
    );
    fs::write(place.path("lonnet.toml"), toml("spool_keep_free = 0\nspool_bytes = \"900000 TiB\"")).unwrap();
    let said = place.run(&["check"]);
    let warned = said.out.lines().any(|line| line.starts_with("warning: ") && line.contains("(spool_bytes)"));
    assert!(said.code == 0 && warned, "{said:?}");
}

#[test]
fn check_tries_the_addresses_that_are_listened_on_and_serves_nobody_there() {
    let place = Place::new();
    let listen = |addresses: &str| {
        let toml = crate::place::TOML.replace("[lond]\n", &format!("[lond]\nlisten = [{addresses}]\n"));
        fs::write(place.path("lonnet.toml"), toml).unwrap();
        place.run(&["check"])
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let said = listen(&format!("\"127.0.0.1:{port}\""));
    assert_error(&place, &said, &format!("lond.listen: 127.0.0.1:{port}: another program listens there"));
    // At once: a process that another test is just starting has a copy of the descriptor for a
    // moment, and closing this one alone would leave the port taken for as long.
    nix::sys::socket::shutdown(taken.as_raw_fd(), Shutdown::Both).unwrap();
    drop(taken);
    let said = listen(&format!("\"0.0.0.0:{port}\", \"[::]:{port}\""));
    assert!(said.code == 0 && !said.out.contains("listen"), "both are served: {said:?}");
    // Of the documentation: no machine has it.
    let said = listen("\"192.0.2.1:5663\"");
    let warned =
        said.out.lines().any(|line| line.starts_with("warning: ") && line.contains("192.0.2.1:5663: "));
    assert!(said.code == 0 && warned, "it may come: {said:?}");
    let Some((place, _)) = self::place() else { return };
    fs::write(place.path("lonnet.toml"), TOML.replace("127.0.0.1:0", "127.0.0.1:80")).unwrap();
    assert_error(&place, &place.run(&["check"]), "lond.listen: 127.0.0.1:80: only root may: nobody cannot");
}

#[test]
fn somebody_else_is_told_that_the_users_rights_were_not_looked_at() {
    let Some((place, nobody)) = place() else { return };
    fs::write(place.path("lonnet.toml"), TOML.replace("nobody", "www-data")).unwrap();
    if User::from_name("www-data").ok().flatten().is_none() {
        crate::skip::skipped("needs a second user, www-data");
        return;
    }
    let mut command = place.lon(&["check"]);
    std::os::unix::process::CommandExt::uid(&mut command, nobody);
    let said = Said::of(&command.output().unwrap());
    let what = "user: what www-data may do was not looked at: only root or www-data itself can";
    assert!(said.code == 0 && said.out.contains(what), "{said:?}");
}
