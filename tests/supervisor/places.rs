//! What others take away under a supervisor that runs, and what it leaves to them.

use crate::Test;
use crate::lonc::world;
use crate::world::{World, pause};
use lonnet::supervise::lock::{PidLock, running_pid};
use nix::sys::signal::Signal;
use std::fs;
use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// Within that what was taken away is to be there again.
const BACK: Duration = Duration::from_secs(5);
/// How much longer a busy machine may take.
const BUSY: Duration = Duration::from_secs(3);

pub const TESTS: &[Test] = &[
    ("an_emptied_run_dir_is_filled_again_with_one_line", an_emptied_run_dir_is_filled_again),
    ("one_socket_that_is_removed_comes_back_and_so_does_the_pid_file_alone", one_socket_that_is_removed),
    ("a_second_start_in_an_emptied_run_dir_is_refused_by_the_lock_with_the_spool", a_second_start_is_refused),
    ("a_start_without_the_lock_with_the_spool_says_so_once", without_the_lock_with_the_spool),
    ("a_start_takes_no_socket_from_who_serves_there_though_its_pid_file_is_gone", sockets_are_not_taken),
    ("what_another_program_has_in_run_dir_is_left_alone", what_another_has_is_left_alone),
    ("at_stop_only_what_is_ones_own_is_removed", at_stop_only_ones_own_is_removed),
    ("folders_that_are_removed_are_made_again_and_used", folders_are_made_again),
    ("lond_makes_its_socket_and_pid_file_again", lond_makes_its_own_again),
    ("locks_and_sockets_are_known_again_after_hup", all_is_known_again_after_hup),
];

/// Waits for what is to be back.
fn wait_back(world: &World, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + BACK + BUSY;
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not come back; the log:\n{}", world.log());
        pause();
    }
}

fn empty(world: &World, folder: &str) {
    for entry in fs::read_dir(world.path(folder)).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

/// Whether the sockets and the pid file of `pid` are there.
fn is_whole(world: &World, pid: u32) -> bool {
    running_pid(&world.path("run/lonc.pid")) == Some(pid)
        && ["msul1", "msul2", "msul3"].iter().all(|peer| world.ask(peer, "pid").is_some())
        && world.ask("lonc.sock", "status").is_some()
}

fn lines_of(world: &World, text: &str) -> usize {
    world.log().lines().filter(|line| line.contains(text)).count()
}

fn an_emptied_run_dir_is_filled_again() {
    let mut world = world();
    let pid = world.start();
    let children = ["msul1", "msul2", "msul3"].map(|peer| world.child_of(peer));
    empty(&world, "run");
    wait_back(&world, "run_dir", || is_whole(&world, pid));
    assert_eq!(["msul1", "msul2", "msul3"].map(|peer| world.child_of(peer)), children, "they go on");
    assert_eq!(lines_of(&world, "made again"), 1, "{}", world.log());
    let log = world.log();
    let line = log.lines().find(|line| line.contains("made again")).unwrap();
    for name in ["WARN", "run/lonc.pid", "run/lonc.sock", "run/msul1", "run/msul2", "run/msul3"] {
        assert!(line.contains(name), "{name}: {line}");
    }
    // Again, and it is not held against it that it was so before.
    empty(&world, "run");
    wait_back(&world, "run_dir", || is_whole(&world, pid));
    world.signal(Signal::SIGTERM);
    assert!(world.ended().success());
    assert_eq!(fs::read_dir(world.path("run")).unwrap().count(), 0);
}

fn one_socket_that_is_removed() {
    let mut world = world();
    let pid = world.start();
    let child = world.child_of("msul2");
    fs::remove_file(world.path("run/msul2")).unwrap();
    wait_back(&world, "the socket", || world.path("run/msul2").exists());
    assert_eq!(world.child_of("msul2"), child);
    assert!(world.log().contains("run/msul2 had gone"), "{}", world.log());
    fs::remove_file(world.path("run/lonc.pid")).unwrap();
    wait_back(&world, "the pid file", || running_pid(&world.path("run/lonc.pid")) == Some(pid));
    fs::remove_file(world.path("run/lonc.sock")).unwrap();
    wait_back(&world, "the admin socket", || world.ask("lonc.sock", "status").is_some());
    assert_eq!(lines_of(&world, "made again"), 3, "{}", world.log());
}

fn a_second_start_is_refused() {
    let mut world = world();
    let pid = world.start();
    world.child_of("msul1");
    for emptied in 0..3 {
        empty(&world, "run");
        let second = world.run(&["--foreground"]);
        assert_eq!(second.status.code(), Some(1), "{emptied}");
        let said = String::from_utf8(second.stderr).unwrap();
        assert!(said.starts_with(&format!("lonc: start: already running with pid {pid} (")), "{said}");
        let silent = world.run(&["--if-not-running"]);
        assert!(silent.status.success() && silent.stderr.is_empty() && silent.stdout.is_empty());
    }
    wait_back(&world, "run_dir", || is_whole(&world, pid));
    world.configure(crate::lonc::HOSTS, &format!("spool_dir = \"another\"\n{}", crate::lonc::LONC));
    assert_eq!(world.run(&["--foreground"]).status.code(), Some(1));
    assert!(!world.path("another").exists(), "who is refused at once changes nothing");
}

/// There are no pins in this world; nothing is said of that.
fn warned_in(world: &World) -> Vec<String> {
    let warned = |line: &&str| line.contains(" WARN") && !line.contains("hosts.pins");
    world.log().lines().filter(warned).map(str::to_owned).collect()
}

fn without_the_lock_with_the_spool() {
    let mut world = world();
    world.start();
    let hidden = |name: &String| name.starts_with(".lonc.") && name.ends_with(".lock");
    let names = fs::read_dir(world.path("delayed")).unwrap();
    let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let lock = world.path("delayed").join(names.find(hidden).unwrap());
    world.signal(Signal::SIGTERM);
    assert!(world.ended().success());
    assert_eq!(warned_in(&world), [""; 0]);
    fs::create_dir(&lock).unwrap();
    fs::remove_file(world.path("log/lonc.log")).unwrap();
    world.start();
    let warned = warned_in(&world);
    let [line] = warned.as_slice() else { panic!("{warned:?}") };
    assert!(line.contains(&format!("WARN lock {}: ", lock.display())), "{line}");
    assert!(line.ends_with("; until it can be had, the pid file alone keeps a second start away"), "{line}");
}

fn sockets_are_not_taken() {
    let mut world = world();
    let pid = world.start();
    let child = world.child_of("msul1");
    // With another spool no lock there is met.
    for n in 0..3 {
        world.configure(crate::lonc::HOSTS, &format!("spool_dir = \"spool{n}\"\n{}", crate::lonc::LONC));
        let _ = fs::remove_file(world.path("run/lonc.pid"));
        let second = world.run(&["--foreground"]);
        assert_eq!(second.status.code(), Some(1));
        let said = String::from_utf8(second.stderr).unwrap();
        assert!(said.starts_with(&format!("lonc: start: already running with pid {pid} (")), "{said}");
    }
    wait_back(&world, "the pid file", || is_whole(&world, pid));
    assert_eq!(world.child_of("msul1"), child);
}

/// Takes the place of a second program: its pid file, and the socket of a peer.
fn take_run_dir(world: &World) -> (PidLock, UnixListener) {
    let path = world.path("run/lonc.pid");
    let mut lock = None;
    world.wait("the pid file can be had", || {
        // If the supervisor was quicker, once more.
        let _ = fs::remove_file(&path);
        lock = PidLock::take(&path).ok();
        lock.is_some()
    });
    let mut lock = lock.unwrap();
    lock.write_pid().unwrap();
    let _ = fs::remove_file(world.path("run/msul1"));
    (lock, UnixListener::bind(world.path("run/msul1")).unwrap())
}

fn leads_to(world: &World, listener: &UnixListener) -> bool {
    let _client = UnixStream::connect(world.path("run/msul1")).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener.accept().is_ok()
}

fn what_another_has_is_left_alone() {
    let mut world = world();
    let pid = world.start();
    world.child_of("msul1");
    let (lock, listener) = take_run_dir(&world);
    let said = format!("another lonc, process {}, has it", std::process::id());
    wait_back(&world, "the word", || world.log().contains(&said));
    fs::remove_file(world.path("run/msul2")).unwrap();
    // Two looks later.
    let begun = Instant::now();
    world.wait("it has looked again", || begun.elapsed() > BACK);
    assert!(leads_to(&world, &listener) && lock.is_in_place());
    assert!(!world.path("run/msul2").exists(), "what is missing there is another's to make");
    assert_eq!(lines_of(&world, &said), 1, "it is said once");
    lock.remove();
    drop((lock, listener));
    wait_back(&world, "run_dir", || is_whole(&world, pid));
}

fn at_stop_only_ones_own_is_removed() {
    let mut world = world();
    world.start();
    world.child_of("msul1");
    let (lock, listener) = take_run_dir(&world);
    world.signal(Signal::SIGTERM);
    assert!(world.ended().success());
    assert!(lock.is_in_place() && leads_to(&world, &listener));
    let mut names: Vec<_> =
        fs::read_dir(world.path("run")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["lonc.pid", "msul1"], "its own is gone");
}

fn folders_are_made_again() {
    let mut world = world();
    let pid = world.start();
    let child = world.child_of("msul1");
    for folder in ["run", "status", "delayed"] {
        fs::remove_dir_all(world.path(folder)).unwrap();
    }
    wait_back(&world, "run_dir", || world.path("run").exists() && is_whole(&world, pid));
    wait_back(&world, "spool_dir", || world.path("delayed").exists());
    assert_eq!(world.child_of("msul1"), child);
    wait_back(&world, "the status", || world.status_of("msul1")["state"] == "up");
    // The folder that came back is the one that is watched.
    wait_back(&world, "the watch", || {
        fs::write(world.path("delayed/1.msul2"), "log:x\n").unwrap();
        let doing = world.status_of("msul2")["doing"].as_str().unwrap_or_default().to_owned();
        !doing.ends_with(" 0 files")
    });
    let second = world.run(&["--foreground"]);
    assert_eq!(second.status.code(), Some(1));
    fs::remove_dir_all(world.path("log")).unwrap();
    // The line that says so is in the new file.
    wait_back(&world, "log_dir", || world.log().contains("/log had gone"));
}

fn lond_makes_its_own_again() {
    let port = 20_000 + u16::try_from(std::process::id() % 40_000).unwrap();
    let mut world = World::new(
        "lond",
        crate::lonc::HOSTS,
        &format!("[lond]\nclassic = \"allow\"\nlisten = [\"127.0.0.77:{port}\"]\n"),
    );
    let pid = world.start();
    let whole = |world: &World| {
        running_pid(&world.path("run/lond.pid")) == Some(pid) && world.ask("lond.sock", "status").is_some()
    };
    world.wait("it serves", || whole(&world));
    empty(&world, "run");
    let second = world.run(&["--foreground"]);
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains(&format!("already running with pid {pid}")), "{said}");
    wait_back(&world, "run_dir", || whole(&world));
    assert_eq!(lines_of(&world, "made again"), 1, "{}", world.log());
    world.signal(Signal::SIGTERM);
    assert!(world.ended().success());
    assert_eq!(fs::read_dir(world.path("run")).unwrap().count(), 0);
    let left: Vec<_> = fs::read_dir(world.path("delayed")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn all_is_known_again_after_hup() {
    let mut world = world();
    let pid = world.start();
    let child = world.child_of("msul1");
    let mut connected = UnixStream::connect(world.path("run/msul3")).unwrap();
    world.signal(Signal::SIGHUP);
    world.wait("the program began anew", || world.log().contains("started anew, "));
    world.wait("the child is a new one", || world.child_of("msul1") != child);
    empty(&world, "run");
    assert_eq!(world.run(&["--foreground"]).status.code(), Some(1), "both locks cross exec");
    wait_back(&world, "run_dir", || is_whole(&world, pid));
    assert_eq!(lines_of(&world, "made again"), 1, "nothing was made again at HUP:\n{}", world.log());
    world.signal(Signal::SIGTERM);
    assert!(world.ended().success());
    for folder in ["run", "delayed"] {
        // The folders of peers stay.
        let files = fs::read_dir(world.path(folder)).unwrap().map(Result::unwrap);
        let left: Vec<_> = files.filter(|entry| !entry.path().is_dir()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    // It was let go of with its child.
    let _ = connected.read(&mut [0; 1]);
}
