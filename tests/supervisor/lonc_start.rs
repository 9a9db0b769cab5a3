//! How `lonc`'s supervisor starts: as which user, when it goes to the background, beside or after
//! another one, and what it refuses.

use crate::Test;
use crate::lonc::{HOSTS, LONC, world};
use crate::world::{is_alive, output_of, send, status_field};
use nix::sys::signal::Signal;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;

pub const TESTS: &[Test] = &[
    ("a_second_start_says_so_or_nothing_and_a_stale_pid_file_stops_nobody", a_second_start_says_so),
    ("it_refuses_to_serve_as_root_and_becomes_the_user_that_is_set", it_becomes_the_user),
    ("it_keeps_none_of_roots_groups_and_has_those_of_its_user", it_has_the_groups_of_its_user),
    ("the_background_is_entered_when_ready_and_errors_are_told", the_background_is_entered_when_ready),
    ("children_end_when_the_supervisor_is_killed_and_the_next_one_starts", children_end_with_the_supervisor),
    ("a_wrong_argument_exits_2_and_a_wrong_configuration_1", wrong_starts_exit),
];

fn a_second_start_says_so() {
    let mut world = world();
    std::fs::create_dir(world.path("run")).unwrap();
    // The number of a live process that is not ours to stop for.
    std::fs::write(world.path("run/lonc.pid"), "1\n").unwrap();
    let pid = world.start();
    let second = world.run(&["--foreground"]);
    assert_eq!(second.status.code(), Some(1));
    let file = world.path("run/lonc.pid");
    let said = format!("lonc: start: already running with pid {pid} ({})\n", file.display());
    assert_eq!(String::from_utf8(second.stderr).unwrap(), said);
    let silent = world.run(&["--if-not-running"]);
    assert!(silent.status.success() && silent.stderr.is_empty() && silent.stdout.is_empty());
    let before = world.child_of("msul1");
    world.signal(Signal::SIGHUP);
    world.wait("the program began anew", || world.log().contains("started anew, "));
    assert_eq!(world.run(&["--foreground"]).status.code(), Some(1), "the lock crosses exec");
    world.wait("the child is a new one", || world.child_of("msul1") != before);
}

fn it_becomes_the_user() {
    if !nix::unistd::geteuid().is_root() {
        return crate::skip::skipped("needs root, to become another user");
    }
    let mut world = world();
    world.configure_as(None, HOSTS, LONC);
    let refused = world.run(&[]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    let file = world.path("lonnet.toml");
    assert_eq!(
        said,
        format!(
            "lonc: start: refusing to serve as root: set user = \"www\" (or user = \"root\" if that is meant) in {}\n",
            file.display()
        )
    );
    assert!(!world.path("run").exists(), "nothing was made");
    world.configure_as(Some("no-such-user"), HOSTS, LONC);
    let refused = world.run(&[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("no-such-user"));
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let uid = nobody.uid.as_raw();
    std::fs::set_permissions(world.path("."), PermissionsExt::from_mode(0o755)).unwrap();
    world.configure_as(Some("root"), HOSTS, LONC);
    let mut command = world.command(&[]);
    command.uid(uid);
    let refused = output_of(command);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(said, "lonc: start: become user root: only root may, and nobody has started the program\n");
    world.configure_as(Some("nobody"), HOSTS, LONC);
    let pid = world.start();
    assert_eq!(status_field(pid, "Uid"), format!("{uid}\t{uid}\t{uid}\t{uid}"));
    assert_ne!(status_field(pid, "Gid").split('\t').next(), Some("0"));
    for folder in ["run", "delayed", "log", "status"] {
        assert_eq!(world.path(folder).metadata().unwrap().uid(), uid, "{folder}");
    }
    let child = world.child_of("msul1");
    assert_eq!(status_field(child, "Uid").split('\t').next(), Some(uid.to_string().as_str()));
    world.signal(Signal::SIGHUP);
    world.wait("HUP needs no root", || world.log().contains("started anew, "));
    world.wait("the child is a new one", || world.child_of("msul1") != child);
}

fn it_has_the_groups_of_its_user() {
    const ROOTS: [libc::gid_t; 2] = [4_000_001, 4_000_002];
    if !nix::unistd::geteuid().is_root() {
        return crate::skip::skipped("needs root, to give up its groups");
    }
    let mut world = world();
    std::fs::set_permissions(world.path("."), PermissionsExt::from_mode(0o755)).unwrap();
    world.configure_as(Some("nobody"), HOSTS, LONC);
    let mut command = world.command(&["--foreground"]);
    // SAFETY: one system call, between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::setgroups(ROOTS.len(), ROOTS.as_ptr()) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let pid = world.start_as(command);
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let mut own = nix::unistd::getgrouplist(c"nobody", nobody.gid).unwrap();
    own.sort_unstable_by_key(|group| group.as_raw());
    let own: Vec<String> = own.iter().map(ToString::to_string).collect();
    for pid in [pid, world.child_of("msul1")] {
        assert_eq!(status_field(pid, "Groups"), own.join(" "));
    }
}

fn the_background_is_entered_when_ready() {
    let world = world();
    // The status socket's place is taken by a folder: found only once the program is in the
    // background.
    std::fs::create_dir_all(world.path("run/lonc.sock")).unwrap();
    let failed = world.run(&[]);
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8(failed.stderr).unwrap();
    assert!(said.starts_with("lonc: start: open the status socket: listen on "), "{said}");
    assert!(!world.path("run/lonc.pid").exists());
    std::fs::remove_dir(world.path("run/lonc.sock")).unwrap();

    let started = world.run(&[]);
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    // Ready means that a connect succeeds from here on.
    UnixStream::connect(world.path("run/msul1")).unwrap();
    let pid: u32 = std::fs::read_to_string(world.path("run/lonc.pid")).unwrap().trim().parse().unwrap();
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/"));
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/fd/2")).unwrap().to_str(), Some("/dev/null"));
    let child = world.child_of("msul1");
    send(pid, Signal::SIGHUP);
    world.wait("the program began anew", || world.log().contains("started anew, "));
    world.wait("the child is a new one", || world.child_of("msul1") != child);
    send(pid, Signal::SIGTERM);
    world.wait("it has ended", || !is_alive(pid));
    assert!(!world.path("run/lonc.pid").exists());
}

fn children_end_with_the_supervisor() {
    let mut world = world();
    let pid = world.start();
    let child = world.child_of("msul1");
    world.signal(Signal::SIGKILL);
    assert!(!world.ended().success());
    world.wait("its child ends", || !is_alive(child));
    // Sockets and pid file are left behind, and stop nobody.
    assert!(world.path("run/msul1").exists() && world.path("run/lonc.pid").exists());
    std::fs::remove_file(world.path("log/lonc.log")).unwrap();
    assert_ne!(world.start(), pid);
    assert_ne!(world.child_of("msul1"), child);
}

fn wrong_starts_exit() {
    let world = world();
    assert_eq!(world.run(&["--no-such-option"]).status.code(), Some(2));
    let version = world.run(&["--version"]);
    assert!(version.status.success());
    assert!(String::from_utf8(version.stdout).unwrap().starts_with("lonc "));
    world.configure(&format!("{HOSTS}bad line\n"), &format!("nonsense = 1\n{LONC}"));
    let refused = world.run(&["--foreground"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.lines().count() >= 2 && said.lines().all(|line| line.starts_with("lonc: /")), "{said}");
    assert!(!world.path("run").exists(), "nothing was made");
}
