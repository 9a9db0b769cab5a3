//! Whose the files are, with which modes, and what a process takes over from who started it.

use crate::common::caller::Caller;
use crate::common::network::{Host, Network, root};
use crate::common::pair::{CALLED, CALLER};
use crate::common::program::Program;
use crate::common::{process, wait};
use nix::sys::signal::Signal;
use nix::unistd::User;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A network with a host that serves as `nobody` and may make its folders; nothing where the tests
/// are not root.
fn as_nobody() -> Option<(Network, Host, User)> {
    as_nobody_with(&[CALLER, CALLED])
}

/// The same in a network of these hosts; the first is the one.
pub fn as_nobody_with(ids: &[&str]) -> Option<(Network, Host, User)> {
    let nobody = User::from_name("nobody").ok().flatten();
    let Some(nobody) = nobody.filter(|_| root()) else {
        crate::common::skipped("needs root and a user nobody");
        return None;
    };
    let network = Network::new(ids);
    let mut host = network.host(ids[0]);
    host.set("", "user", "\"nobody\"");
    for folder in [network.dir(), &host.dir] {
        give(folder, &nobody);
    }
    Some((network, host, nobody))
}

fn give(path: &Path, to: &User) {
    chown(path, Some(to.uid.as_raw()), Some(to.gid.as_raw())).expect("give a file away");
}

/// Starts a program by a shell that does something before.
pub fn by_a_shell(host: &Host, name: &'static str, before: &str) -> Program {
    let direct = host.command(name);
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{before}; exec \"$0\" \"$@\"")).arg(direct.get_program());
    command.args(direct.get_args());
    for (key, value) in direct.get_envs() {
        command.env(key, value.unwrap_or_default());
    }
    host.start(command, name)
}

/// Every file and folder below one with its permission bits; links and what goes away meanwhile
/// left out.
fn modes(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("list a folder").flatten() {
            let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
            found.push((entry.path(), metadata.mode() & 0o7777));
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn whatever_the_umask_at_the_start_everything_has_the_mode_that_it_should_have() {
    for umask in ["000", "077"] {
        let network = Network::new(&[CALLER, CALLED]);
        let host = network.host(CALLER);
        let lonc = by_a_shell(&host, "lonc", &format!("umask {umask}"));
        let lond = by_a_shell(&host, "lond", &format!("umask {umask}"));
        host.wait_link(CALLED, "down");
        assert_eq!(host.ask(CALLED, "critical:log:kept"), "con_delayed");
        fs::write(host.dir.join("delayed/1.msul1"), "log:dropped\n").expect("drop a file");
        let (file, moved) = (host.dir.join("delayed/1.msul1"), host.dir.join("delayed/msul1/dropped"));
        let none = || fs::read_dir(&moved).is_ok_and(|mut left| left.next().is_none());
        wait::until_true("the dropped file to be taken in", || !file.exists() && none());
        wait::until_true("the status files", || {
            ["loncstatus.txt", "status.json", "lond.json"]
                .iter()
                .all(|name| host.dir.join("status").join(name).exists())
        });
        let expected = |path: &Path| {
            let inside = path.strip_prefix(&host.dir).expect("a path below the host's folder");
            let folder = inside.components().next().map(|first| first.as_os_str().to_owned());
            let name = path.file_name().and_then(OsStr::to_str).expect("a name");
            match (folder.as_deref().and_then(OsStr::to_str), path.is_dir()) {
                (Some("run"), true) | (Some("status"), true) => 0o755,
                (_, true) => 0o750,
                (Some("run"), false) if name.ends_with(".pid") => 0o644,
                (Some("run"), false) if name == CALLED || name.ends_with(".sock") => 0o660,
                (Some("status"), false) => 0o644,
                (_, false) if name == "lonnet.perm.log" => 0o600,
                (_, false) => 0o640,
            }
        };
        let mut seen = 0;
        for folder in ["run", "status", "delayed", "log"] {
            let top = host.dir.join(folder);
            assert_eq!(fs::metadata(&top).expect("a folder").mode() & 0o7777, expected(&top), "{umask}");
            for (path, mode) in modes(&top) {
                // Files that are being made have no name of their own yet.
                if path.file_name().is_some_and(|name| name.as_bytes().starts_with(b".")) && !path.is_dir() {
                    continue;
                }
                assert_eq!(mode, expected(&path), "umask {umask}: {} has {mode:o}", path.display());
                seen += 1;
            }
        }
        assert!(seen >= 10, "{seen} files");
        drop((lonc, lond));
    }
}

#[test]
fn descriptors_that_were_open_at_the_start_are_closed() {
    let network = Network::new(&[CALLER, CALLED]);
    let host = network.host(CALLER);
    let held = host.dir.join("held");
    for name in ["lonc", "lond"] {
        let before = format!("exec 7>'{}'; exec 9<&7", held.display());
        let program = by_a_shell(&host, name, &before);
        let holds = |pid| {
            let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("list descriptors");
            entries.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == held))
        };
        let others = process::children(program.pid());
        assert!(!holds(program.pid()) && !others.into_iter().any(holds), "{name}");
        // What HUP hands over stays.
        let before = host.log(&format!("{name}.log")).matches("started anew, ").count();
        program.signal(Signal::SIGHUP);
        wait::until_true("the program to begin anew", || {
            host.log(&format!("{name}.log")).matches("started anew, ").count() > before
        });
        assert!(!holds(program.pid()), "{name}");
        assert!(program.stop().success());
    }
}

/// What `/proc` says of a process: no new privileges, no core dump, its memory for nobody but root.
fn assert_confined(pid: u32, what: &str) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    assert!(status.contains("NoNewPrivs:\t1\n"), "{what}: {status}");
    assert!(status.contains("CapBnd:\t0000000000000000\n"), "{what}: no program can gain rights: {status}");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    let core =
        limits.lines().find(|line| line.starts_with("Max core file size")).expect("the limit of cores");
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{what}: {core}");
    // The kernel gives the files of a process whose memory is its own alone to root.
    let memory = fs::metadata(format!("/proc/{pid}/environ")).expect("a file of the process");
    let uids = status.lines().find(|line| line.starts_with("Uid:")).expect("uids");
    assert!(!uids.contains("\t0\t"), "{what}: told apart by another user than root only: {uids}");
    assert_eq!(memory.uid(), 0, "{what}");
}

#[test]
fn no_process_gains_privileges_dumps_its_memory_or_shows_it_to_its_own_user() {
    let Some((network, host, _)) = as_nobody() else { return };
    let (lonc, lond) = (host.lonc(), host.lond());
    // A caller that says nothing, so that there is a child of lond.
    let _caller = Caller::connect(network.address(CALLED).ip(), host.address).expect("call lond");
    let child = wait::until("a child of lond", || lond.children().first().copied());
    for (pid, what) in [
        (lonc.pid(), "lonc"),
        (lonc.only_child(), "a child of lonc"),
        (lond.pid(), "lond"),
        (child, "a child of lond"),
    ] {
        wait::until_true("its title", || !process::title(pid).is_empty());
        assert_confined(pid, what);
    }
    let child = lonc.only_child();
    for (program, log) in [(&lonc, "lonc.log"), (&lond, "lond.log")] {
        program.signal(Signal::SIGHUP);
        wait::until_true("the program to begin anew", || host.log(log).contains("started anew, "));
        assert_confined(program.pid(), "after HUP");
    }
    let next = wait::until("the next child", || lonc.children().into_iter().find(|&next| next != child));
    assert_confined(next, "a child after HUP");
}

#[test]
fn a_folder_whose_name_is_no_text_hinders_no_restart() {
    let network = Network::new(&[CALLER, CALLED]);
    let mut host = network.host(CALLER);
    let odd = network.dir().join(OsStr::from_bytes(b"caf\xe9\xff"));
    fs::rename(&host.dir, &odd).expect("rename the host's folder");
    host.dir = odd;
    for name in ["lonc", "lond"] {
        let program = if name == "lonc" { host.lonc() } else { host.lond() };
        let log = format!("{name}.log");
        for times in 1..=2 {
            program.signal(Signal::SIGHUP);
            wait::until_true("the program to begin anew", || {
                let text = host.log(&log);
                assert!(!text.contains("ERROR"), "{text}");
                text.matches("started anew, ").count() == times
            });
        }
        assert!(program.stop().success());
    }
}

#[test]
fn a_configuration_that_is_named_by_way_of_another_folder_does_not_need_that_folder_later() {
    let network = Network::new(&[CALLER, CALLED]);
    let host = network.host(CALLER);
    let aside = network.dir().join("aside");
    for name in ["lonc", "lond"] {
        fs::create_dir(&aside).expect("make a folder");
        let direct = host.command(name);
        let mut command = Command::new(direct.get_program());
        command.current_dir(network.dir()).arg("--config").arg(format!("aside/../{CALLER}/lonnet.toml"));
        command.env("LONNET_TRIAL_LIFE", "20");
        let program = host.start(command, name);
        fs::remove_dir(&aside).expect("remove the folder");
        let status = host.dir.join("status").join(if name == "lonc" { "status.json" } else { "lond.json" });
        wait::until_true("the status", || status.exists());
        fs::remove_file(&status).expect("remove the status");
        program.signal(Signal::SIGUSR1);
        wait::until_true("the status to be written anew", || status.exists());
        let log = format!("{name}.log");
        fs::rename(host.dir.join("log").join(&log), host.dir.join("log/old")).expect("move the log away");
        program.signal(Signal::SIGHUP);
        wait::until_true("a log in its place", || host.log(&log).contains("started anew, "));
        assert!(!host.log(&log).contains("ERROR"), "{}", host.log(&log));
        assert!(program.stop().success());
    }
}

#[test]
fn a_configuration_that_only_root_can_read_is_refused_at_the_start_as_it_would_be_at_hup() {
    let Some((network, host, _)) = as_nobody() else { return };
    let table = network.dir().join("hosts.tab");
    for file in [host.config(), table] {
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("close a file");
        for name in ["lonc", "lond"] {
            let output = host.command(name).output().expect("start");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{said}");
            let name = file.file_name().expect("a name").to_string_lossy().into_owned();
            assert!(said.contains(&name) && said.contains("as nobody"), "{said}");
            assert!(!host.dir.join("run").exists(), "nothing was made");
        }
        let check = host.lon(&["check"]);
        let said = String::from_utf8_lossy(&check.stdout).into_owned();
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        assert_eq!(check.status.code(), Some(1), "{said}");
        assert!(said.contains(&name) && said.contains("nobody cannot read it"), "{said}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("open a file");
    }
    assert!(host.lonc().stop().success());
}

#[test]
fn what_root_stores_before_the_first_start_is_the_users_and_is_taken_in() {
    let Some((_network, host, nobody)) = as_nobody() else { return };
    let output = host.lon(&["critical", CALLED, "log:early"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let delayed = host.dir.join("delayed");
    assert_eq!(fs::metadata(&delayed).expect("the delayed directory").mode() & 0o7777, 0o750);
    let files: Vec<PathBuf> = modes(&host.dir).into_iter().map(|(path, _)| path).collect();
    let made: Vec<&PathBuf> = files.iter().filter(|path| path.starts_with(&delayed)).collect();
    assert_eq!(made.len(), 2, "{made:?}");
    for path in made {
        assert_eq!(fs::metadata(path).expect("a file").uid(), nobody.uid.as_raw(), "{}", path.display());
    }
    let _lonc = host.lonc();
    wait::until_true("the message to be taken in", || {
        let queue = host.lon(&["queue", CALLED]);
        String::from_utf8_lossy(&queue.stdout).contains("1 message waits")
    });
    assert!(!host.log("lonc.log").contains("ERROR"), "{}", host.log("lonc.log"));
}

#[test]
fn root_stores_nothing_where_the_user_has_put_a_link_to_a_folder_of_roots() {
    let Some((network, host, nobody)) = as_nobody() else { return };
    let secret = network.dir().join("secret");
    fs::create_dir(&secret).expect("make a folder");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o700)).expect("close it");
    symlink(&secret, host.dir.join("delayed")).expect("make a link");
    let output = host.lon(&["critical", CALLED, "log:astray"]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert_eq!(fs::read_dir(&secret).expect("list a folder").count(), 0);
    // As the user, with whose rights the link was made, it is no other.
    give(&secret, &nobody);
    assert_eq!(host.lon(&["critical", CALLED, "log:ours"]).status.code(), Some(4));
    let file = fs::read_dir(&secret).expect("list a folder").next().expect("a file").expect("a file");
    assert_eq!(file.metadata().expect("a file").uid(), nobody.uid.as_raw());
}

#[test]
fn a_second_start_makes_nothing_before_it_has_the_lock() {
    let network = Network::new(&[CALLER, CALLED]);
    let mut host = network.host(CALLER);
    let _lonc = host.lonc();
    for key in ["spool_dir", "log_dir", "status_dir"] {
        host.set("", key, &format!("\"new/{key}\""));
    }
    let second = host.command("lonc").output().expect("start a second one");
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    let cron = host.command("lonc").arg("--if-not-running").output().expect("start for cron");
    assert_eq!(cron.status.code(), Some(0), "{cron:?}");
    assert!(!host.dir.join("new").exists(), "{:?}", modes(&host.dir));
}

#[test]
fn a_spool_that_another_user_has_made_is_not_used_and_it_is_said_whose_it_is() {
    if !root() {
        return crate::common::skipped("needs root");
    }
    let (open, third) = (fs::Permissions::from_mode(0o1777), "msul3");
    let network = Network::new(&[CALLER, CALLED, third]);
    let host = network.host(CALLER);
    let delayed = host.dir.join("delayed");
    let foreign = host.spool(CALLED);
    fs::create_dir_all(&foreign).expect("make a folder");
    fs::set_permissions(&delayed, open.clone()).expect("open the delayed directory");
    fs::set_permissions(&foreign, open).expect("open the folder");
    chown(&foreign, Some(61_234), None).expect("give it away");
    let _lonc = host.lonc();
    assert_eq!(host.ask(CALLED, "critical:log:1"), "con_failed");
    assert_eq!(host.ask(third, "critical:log:1"), "con_delayed", "the other peers go on");
    let dropped = delayed.join("a.msul1");
    fs::write(&dropped, "log:dropped\n").expect("drop a file in");
    let said = |verb: &str| format!("{verb} {}: user 61234 has made it: it is not used", foreign.display());
    wait::until_true("whose it is", || host.log("lonc.log").matches(&said("use")).count() >= 2);
    let names = fs::read_dir(&foreign).expect("the folder").count();
    assert!(names == 0 && dropped.exists(), "nothing was put there");
    fs::remove_dir(&foreign).expect("remove it");
    wait::until_true("a folder of its own", || host.ask(CALLED, "critical:log:2") == "con_delayed");
    wait::until_true("the file to be taken in", || !dropped.exists());
}
