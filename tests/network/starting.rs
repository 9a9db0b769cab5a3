//! Starting: pid files, left-behind sockets, the background, bad configurations; and doing nothing.

use crate::common::network::{Network, root};
use crate::common::pair::{CALLED, CALLER, Pair};
use crate::common::program::pid_in;
use crate::common::{process, wait};
use nix::sys::signal::Signal;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn a_second_start_says_that_one_runs_and_exits_1_or_0_in_silence_for_cron() {
    let network = Network::new(&[CALLER, CALLED]);
    let host = network.host(CALLER);
    for name in ["lonc", "lond"] {
        let first = if name == "lonc" { host.lonc() } else { host.lond() };
        for mode in [&["--foreground"][..], &[]] {
            let second = host.command(name).args(mode).output().expect("start a second one");
            assert_eq!(second.status.code(), Some(1), "{second:?}");
            let said = String::from_utf8_lossy(&second.stderr).into_owned();
            assert!(said.starts_with(&format!("{name}: ")), "{said}");
            assert!(said.contains(&first.pid().to_string()), "{said}");
            let cron =
                host.command(name).args(mode).arg("--if-not-running").output().expect("start for cron");
            assert_eq!(cron.status.code(), Some(0), "{cron:?}");
            assert!(cron.stdout.is_empty() && cron.stderr.is_empty(), "{cron:?}");
        }
    }
}

#[test]
fn a_stale_pid_file_of_a_dead_or_a_foreign_process_does_not_stop_a_start() {
    let network = Network::new(&[CALLER, CALLED]);
    let host = network.host(CALLER);
    fs::create_dir_all(host.dir.join("run")).expect("make a folder");
    let mut dead = Command::new("true").spawn().expect("run true");
    dead.wait().expect("wait for true");
    let foreign = std::process::id();
    for stale in [dead.id().to_string(), foreign.to_string(), "1".to_owned(), "nonsense".to_owned()] {
        fs::write(host.pid_file("lonc"), format!("{stale}\n")).expect("write a pid file");
        let lonc = host.lonc();
        assert_eq!(pid_in(&host.pid_file("lonc")), Some(lonc.pid()));
        assert!(lonc.stop().success());
    }
}

#[test]
fn a_socket_file_left_behind_is_replaced_and_something_else_in_its_place_hinders_only_that_peer() {
    let network = Network::new(&[CALLER, CALLED, "msul2"]);
    let host = network.host(CALLER);
    fs::create_dir_all(host.dir.join("run")).expect("make a folder");
    drop(std::os::unix::net::UnixListener::bind(host.socket(CALLED)).expect("leave a socket behind"));
    let lonc = host.lonc();
    host.wait_link(CALLED, "down");
    assert_eq!(host.ask(CALLED, "critical:log:hello"), "con_delayed");
    assert!(lonc.stop().success());

    fs::create_dir(host.socket("msul2")).expect("put a folder in the way");
    let mut command = host.command("lonc");
    let said = host.dir.join("stderr");
    command.arg("--foreground").stderr(fs::File::create(&said).expect("create a file")).stdout(Stdio::null());
    let mut child = command.spawn().expect("start lonc");
    wait::until_true("the other peer to be served", || {
        crate::common::local::Local::try_connect(&host.socket(CALLED)).is_ok()
    });
    wait::until_true("an error about the folder", || {
        host.log("lonc.log").lines().any(|line| line.contains("ERROR") && line.contains("msul2"))
    });
    assert_eq!(host.ask(CALLED, "critical:log:hello"), "con_delayed");
    process::signal(child.id(), Signal::SIGTERM);
    assert!(child.wait().expect("wait for lonc").success());
    assert!(host.socket("msul2").is_dir());
}

#[test]
fn a_peers_socket_has_the_mode_that_the_configuration_says() {
    use std::os::unix::fs::PermissionsExt;
    let network = Network::new(&[CALLER, CALLED, "msul2"]);
    let mut host = network.host(CALLER);
    host.set("host.msul2", "socket_mode", "\"0600\"");
    let _lonc = host.lonc();
    let mode = |peer| fs::metadata(host.socket(peer)).expect("the socket").permissions().mode() & 0o7777;
    assert_eq!((mode(CALLED), mode("msul2")), (0o660, 0o600));
}

#[test]
fn in_the_background_the_command_returns_when_the_program_is_ready() {
    let network = Network::new(&[CALLER, CALLED]);
    let host = network.host(CALLER);
    for name in ["lonc", "lond"] {
        let output = host.command(name).output().expect("start in the background");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let pid = pid_in(&host.pid_file(name)).expect("a pid file");
        assert!(process::alive(pid));
        wait::until_true("its title", || process::title(pid).starts_with(&format!("{name}: ")));
        if name == "lonc" {
            assert_eq!(host.ask(CALLED, "critical:log:hello"), "con_delayed");
        } else {
            assert!(process::listens(host.address));
        }
        process::signal(pid, Signal::SIGTERM);
        wait::until_true("its end", || !process::alive(pid) && !host.pid_file(name).exists());
    }
}

#[test]
fn a_bad_configuration_is_told_with_its_place_and_nothing_starts() {
    let network = Network::new(&[CALLER, CALLED]);
    let mut host = network.host(CALLER);
    host.set("lonc", "no_such_key", "1");
    let text = fs::read_to_string(host.config()).expect("the configuration");
    let line = text.lines().position(|line| line.starts_with("no_such_key")).expect("the line") + 1;
    for name in ["lonc", "lond"] {
        for mode in [&["--foreground"][..], &[]] {
            let output = host.command(name).args(mode).output().expect("start");
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains(&format!("lonnet.toml:{line}:")), "{said}");
            assert!(!host.pid_file(name).exists());
        }
    }
}

#[test]
fn a_taken_port_is_told_and_nothing_starts() {
    let network = Network::new(&[CALLER]);
    let host = network.host(CALLER);
    let _taken = std::net::TcpListener::bind(host.address).expect("take the port");
    let output = host.command("lond").output().expect("start");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with("lond: ") && said.contains(&host.address.to_string()), "{said}");
}

#[test]
fn as_root_without_a_user_nothing_is_served() {
    if !root() {
        crate::common::skipped("only root can be refused for being root");
        return;
    }
    let network = Network::new(&[CALLER, CALLED]);
    let mut host = network.host(CALLER);
    host.unset("", "user");
    for name in ["lonc", "lond"] {
        let output = host.command(name).output().expect("start");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("root") && said.contains("user"), "{said}");
    }
}

#[test]
fn as_root_the_programs_become_the_user_that_is_named() {
    let nobody = nix::unistd::User::from_name("nobody").ok().flatten();
    let Some(nobody) = nobody.filter(|_| root()) else {
        crate::common::skipped("needs root and a user nobody");
        return;
    };
    let network = Network::new(&[CALLER, CALLED]);
    let mut host = network.host(CALLER);
    host.set("", "user", "\"nobody\"");
    for folder in [network.dir(), &host.dir] {
        std::os::unix::fs::chown(folder, Some(nobody.uid.as_raw()), None).expect("give a folder away");
    }
    let lonc = host.lonc();
    let child = lonc.only_child();
    for pid in [lonc.pid(), child] {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
        let uids = status.lines().find(|line| line.starts_with("Uid:")).expect("uids");
        assert!(uids.split_whitespace().skip(1).all(|uid| uid == nobody.uid.to_string()), "{uids}");
    }
    assert_eq!(host.ask(CALLED, "critical:log:hello"), "con_delayed");
}

#[test]
fn ps_shows_what_each_process_is_and_does() {
    let mut pair = Pair::up();
    let child = pair.lonc.only_child();
    assert!(process::title(pair.lonc.pid()).starts_with("lonc: "), "{}", process::title(pair.lonc.pid()));
    assert_eq!(process::title(child), "lonc: msul1 up");
    pair.fake.stop();
    wait::until_true("the title of a link that is down", || {
        let title = process::title(child);
        title.starts_with("lonc: msul1 ") && title != "lonc: msul1 up"
    });
}

#[test]
fn with_nothing_to_do_nothing_runs() {
    let pair = Pair::up();
    assert_eq!(pair.ask("ping"), "msul1");
    let pids = [pair.lonc.pid(), pair.lonc.only_child()];
    wait::until_true("two seconds in which no process used a tick", || {
        let before = pids.map(process::ticks);
        wait::let_pass(Duration::from_secs(2));
        pids.map(process::ticks) == before
    });
}
