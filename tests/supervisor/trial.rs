//! HUP with a program that cannot start: the one that serves goes on. Tried for a real second, as
//! for everybody.

use crate::lonc::{HOSTS, LONC, world};
use crate::lond::Called;
use crate::world::{World, children_of, is_alive, open_files_of, send, status_field, title_of};
use crate::{ROLE, Test};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("a_lonc_that_cannot_start_leaves_the_old_one_serving", lonc_that_cannot_start),
    ("a_lond_that_cannot_start_leaves_the_old_one_serving", lond_that_cannot_start),
    ("a_program_that_hangs_at_its_start_is_killed_and_the_old_one_goes_on", one_that_hangs),
    ("a_restart_without_the_key_is_refused_and_its_links_stay", without_the_key),
    ("a_link_that_is_switched_to_another_program_is_followed", a_switched_link),
    ("hups_during_a_trial_are_one_more_restart_and_none_is_lost", hups_during_a_trial),
    ("a_signal_that_is_not_for_a_trial_does_not_end_it", a_signal_for_others),
    ("a_stop_ends_the_trial_too", a_stop_ends_the_trial),
    ("what_a_configuration_is_warned_of_is_in_the_log_at_the_start_and_after_hup", warnings_are_logged),
    ("a_trial_ends_with_the_supervisor_that_is_killed", a_killed_supervisor_takes_its_trial_along),
    ("a_trial_holds_nothing_of_the_supervisor_and_changes_nothing", a_trial_holds_nothing),
];

fn pids(supervisor: u32) -> Vec<u32> {
    children_of(supervisor).into_iter().map(|(pid, _)| pid).collect()
}

fn all_serve(world: &World) {
    for peer in ["msul1", "msul2", "msul3"] {
        world.child_of(peer);
    }
}

/// A script that starts this test program as something else.
fn as_another(role: &str) -> String {
    format!("{ROLE}='{role}' exec '{}' \"$@\"", std::env::current_exe().unwrap().display())
}

/// Sends HUP and waits for the error that says `why`, the `number`th of its kind. The same children
/// as `before` serve then, and the status says why, too.
fn refused(world: &World, number: usize, before: &[u32], why: &str) {
    world.signal(Signal::SIGHUP);
    let said = |log: &str| log.lines().filter(|line| line.contains(" ERROR restart: ")).count();
    world.wait(&format!("refused: {why}"), || said(&world.log()) == number);
    let log = world.log();
    let line = log.lines().rfind(|line| line.contains(" ERROR restart: ")).unwrap();
    assert!(line.contains(why), "wanted {why:?} in: {line}");
    assert!(line.contains(&world.path("program").display().to_string()), "{line}");
    assert!(line.ends_with("; the old program goes on; put that right and send HUP again"), "{line}");
    assert!(!log.contains("started anew"), "{log}");
    assert_eq!(pids(world.pid()), before, "{why}: the children");
}

/// Everything that can be wrong with a program file and shows at once or within a second.
fn everything_wrong(world: &World, crashing: &str, serves: &mut dyn FnMut(), status: &dyn Fn() -> String) {
    let good = std::env::current_exe().unwrap();
    serves();
    status();
    let (pid, before) = (world.pid(), pids(world.pid()));
    let (files, title) = (open_files_of(pid), title_of(pid));
    let [plain, garbage] = ["plain", "garbage"].map(|name| world.path(name));
    std::fs::write(&plain, "#!/bin/sh\n").unwrap();
    std::fs::write(&garbage, [0x7f, b'E', b'L', b'F', 1, 2, 3]).unwrap();
    std::fs::set_permissions(&garbage, PermissionsExt::from_mode(0o755)).unwrap();
    let scripts = [
        ("exit 0", "(exited with 0)"),
        ("exit 1", "(exited with 1)"),
        ("sleep 0.5", "(exited with 0)"),
        ("kill -SEGV $$", "(killed by SIGSEGV)"),
        ("kill -KILL $$", "(killed by SIGKILL)"),
        (r#"echo '+can start 9' > /proc/$$/fd/"$(echo $LONNET_TRIAL | cut -d: -f3)""#, "(exited with 0)"),
        (&as_another("reads another form"), "read what was handed over: missing field `moons`"),
        (&as_another("panics"), "(panicked)"),
        (&as_another(crashing), "(killed by SIGABRT)"),
    ];
    let mut number = 0;
    let mut check = |why: &str| {
        number += 1;
        refused(world, number, &before, why);
        serves();
        let told = status();
        assert!(told.contains("\"not_restarted\":"), "{told}");
        assert_eq!(title_of(pid), title, "{why}");
        // Who has just asked may have to be closed yet.
        world.wait("no descriptor leaks", || open_files_of(pid) == files);
    };
    for (file, why) in [
        (Path::new("/no/such/program"), "exec: No such file or directory"),
        (&plain, "exec: Permission denied"),
        (&garbage, "exec: Exec format error"),
    ] {
        world.install(file);
        check(why);
    }
    for (script, why) in scripts {
        world.install_script(script);
        check(why);
    }
    // The program is well again; now the place that it would find is not.
    world.install(&good);
    let text = std::fs::read_to_string(world.path("lonnet.toml")).unwrap();
    for (line, why) in [
        ("nonsense = 1", "lonnet.toml:2: "),
        ("status_dir = \"hosts.tab/status\"", "hosts.tab: not a directory"),
        ("run_dir = \"elsewhere\"", "run_dir has changed: stop and start instead"),
    ] {
        let (first, others) = text.split_once('\n').unwrap();
        std::fs::write(world.path("lonnet.toml"), format!("{first}\n{line}\n{others}")).unwrap();
        check(why);
    }
    std::fs::write(world.path("lonnet.toml"), text).unwrap();
    world.signal(Signal::SIGHUP);
    world.wait("it began anew", || world.log().contains("started anew, "));
    world.wait("nothing is left to say", || !status().contains("not_restarted"));
    assert_eq!(world.pid(), pid);
    assert_eq!(status_field(pid, "SigBlk"), "0000000000000000");
}

fn lonc_that_cannot_start() {
    let mut world = world();
    world.through_a_link();
    world.start();
    let child = world.child_of("msul1");
    all_serve(&world);
    let mut serves = || assert_eq!(world.child_of("msul1"), child);
    everything_wrong(&world, "lonc that crashes", &mut serves, &|| world.ask("lonc.sock", "status").unwrap());
    world.wait("the child is a new one", || world.child_of("msul1") != child);
}

fn ping(link: &mut TcpStream) {
    let mut answer = [0; 4];
    link.write_all(b"ping\n").unwrap();
    link.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"pong");
}

fn lond_that_cannot_start() {
    let mut called = Called::new("");
    called.world.through_a_link();
    called.serve();
    let (mut link, child) = called.open(2);
    let mut serves = || ping(&mut link);
    everything_wrong(&called.world, "lond that crashes", &mut serves, &|| {
        called.world.ask("lond.sock", "status").unwrap()
    });
    called.world.wait("the link has ended", || !is_alive(child));
    called.open(3);
}

fn one_that_hangs() {
    let mut world = world();
    world.through_a_link();
    world.start();
    let child = world.child_of("msul1");
    all_serve(&world);
    let before = pids(world.pid());
    // What a script starts must end with it.
    world.install_script(&format!("sleep 300 & echo $! > '{}'; wait", world.path("sleeper").display()));
    refused(&world, 1, &before, "it did not end its start within 11s");
    let sleeper: u32 = std::fs::read_to_string(world.path("sleeper")).unwrap().trim().parse().unwrap();
    world.wait("what it has started is gone", || !is_alive(sleeper));
    assert_eq!(world.child_of("msul1"), child);
}

fn without_the_key() {
    let mut world = world();
    world.through_a_link();
    world.configure(HOSTS, &LONC.replace("wire = \"classic\"\n", ""));
    let pin = world.make_key();
    std::fs::write(world.path("hosts.pins"), format!("msul1 {pin}\n")).unwrap();
    world.start();
    all_serve(&world);
    let before = pids(world.pid());
    let key = world.path("keys/host.key");
    let mode = |mode| std::fs::set_permissions(&key, PermissionsExt::from_mode(mode)).unwrap();
    mode(0o644);
    refused(&world, 1, &before, "host.key");
    mode(0o600);
    std::fs::rename(&key, world.path("away")).unwrap();
    refused(&world, 2, &before, "the key is gone");
    std::fs::rename(world.path("away"), &key).unwrap();
    world.signal(Signal::SIGHUP);
    world.wait("it began anew", || world.log().contains("started anew, "));
}

fn a_switched_link() {
    let mut world = world();
    world.through_a_link();
    let pid = world.start();
    world.child_of("msul1");
    let running = || std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let first = running();
    let (one, other) = (world.path("version-1"), world.path("version-2"));
    for (time, version) in [&one, &other, &one].into_iter().enumerate() {
        std::fs::copy(&first, version).unwrap();
        world.install(version);
        world.signal(Signal::SIGHUP);
        world.wait("it began anew", || world.log().matches("started anew, ").count() == time + 1);
        assert_eq!(&running(), version, "the link is followed each time");
        std::fs::remove_file(version).unwrap();
    }
    // A script in the link's place that ends in the program is as good.
    world.install_script(&format!("exec '{}' \"$@\"", first.display()));
    world.signal(Signal::SIGHUP);
    world.wait("it began anew", || world.log().matches("started anew, ").count() == 4);
    assert_eq!(running(), first);
    world.child_of("msul1");
}

fn hups_during_a_trial() {
    let mut world = world();
    world.through_a_link();
    let pid = world.start();
    all_serve(&world);
    let count = |what: &str| world.log().matches(what).count();
    world.signal(Signal::SIGHUP);
    world.wait("a trial is under way", || count("INFO trying ") == 1 && trial_of(pid).is_some());
    for _ in 0..20 {
        world.signal(Signal::SIGHUP);
        crate::world::pause();
    }
    world.wait("the first has taken over", || count("started anew, ") == 1);
    world.wait("and the second", || count("started anew, ") == 2);
    let begun = Instant::now();
    world.wait("no third comes", || begun.elapsed() > Duration::from_millis(1500));
    assert_eq!((count("INFO trying "), count("started anew, ")), (2, 2));
    // One that comes while a program is found wanting is not lost either.
    world.install_script("exec sleep 1");
    world.signal(Signal::SIGHUP);
    // Not before it runs: until then the trial would begin with what is installed next.
    let runs = || children_of(pid).into_iter().any(|(child, _)| title_of(child).starts_with("sleep"));
    world.wait("a third trial", || runs() || count(" ERROR restart: ") == 1);
    world.install(&std::env::current_exe().unwrap());
    world.signal(Signal::SIGHUP);
    world.wait("the third is refused", || count(" ERROR restart: ") == 1);
    world.wait("the fourth takes over", || count("started anew, ") == 3);
}

/// The process of a trial, once it is one.
fn trial_of(pid: u32) -> Option<u32> {
    children_of(pid).into_iter().map(|(child, _)| child).find(|child| title_of(*child) == "lonc: trial")
}

/// HUP with a program that never says a word; gives its process once it runs.
fn hanging_trial(world: &mut World, pid: u32) -> u32 {
    world.install_script("exec sleep 300");
    world.signal(Signal::SIGHUP);
    let mut trial = None;
    world.wait("a trial is under way", || {
        let sleeps = |child: &u32| title_of(*child).starts_with("sleep");
        trial = children_of(pid).into_iter().map(|(child, _)| child).find(sleeps);
        trial.is_some()
    });
    trial.unwrap()
}

fn a_signal_for_others() {
    let mut world = world();
    world.through_a_link();
    let pid = world.start();
    world.child_of("msul1");
    world.signal(Signal::SIGHUP);
    let mut trial = None;
    // Before its handlers stand a signal would end it; a moment later it waits.
    world.wait("a trial has its signals", || {
        let caught = |trial: &u32| {
            let caught = u64::from_str_radix(&status_field(*trial, "SigCgt:"), 16).unwrap();
            caught & (1 << (Signal::SIGUSR1 as i32 - 1)) != 0
        };
        trial = trial_of(pid).filter(caught);
        trial.is_some()
    });
    for _ in 0..20 {
        send(trial.unwrap(), Signal::SIGUSR1);
        crate::world::pause();
    }
    world.wait("it takes over", || world.log().contains("started anew, "));
    assert!(!world.log().contains(" ERROR "), "{}", world.log());
}

fn warnings_are_logged() {
    let mut world = world();
    world.configure(&format!("{HOSTS}msul4:d:library:d:127.0.0.4\n"), LONC);
    world.start();
    let warned = || {
        let log = world.log();
        let of_msul4 =
            |line: &&str| line.contains(" WARN ") && line.contains("hosts.tab:5: msul4 has the address");
        log.lines().filter(of_msul4).count()
    };
    assert_eq!(warned(), 1, "{}", world.log());
    world.signal(Signal::SIGHUP);
    world.wait("it began anew", || world.log().contains("started anew, "));
    assert_eq!(warned(), 2, "{}", world.log());
}

fn a_stop_ends_the_trial() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let mut world = world();
        world.through_a_link();
        let pid = world.start();
        world.child_of("msul1");
        let trial = hanging_trial(&mut world, pid);
        world.signal(signal);
        assert!(world.ended().success());
        world.wait("the trial is gone", || !is_alive(trial));
        assert!(!world.log().contains(" ERROR "), "{}", world.log());
    }
}

fn a_killed_supervisor_takes_its_trial_along() {
    let mut world = world();
    world.through_a_link();
    let pid = world.start();
    world.child_of("msul1");
    let trial = hanging_trial(&mut world, pid);
    world.signal(Signal::SIGKILL);
    world.ended();
    world.wait("the trial is gone", || !is_alive(trial));
}

fn a_trial_holds_nothing() {
    let mut world = world();
    world.through_a_link();
    let pid = world.start();
    all_serve(&world);
    let numbers = |name: &str| std::fs::read_to_string(world.path(name)).unwrap();
    let pid_file = numbers("run/lonc.pid");
    world.signal(Signal::SIGHUP);
    let mut trial = None;
    world.wait("a trial is under way", || {
        trial = trial_of(pid);
        trial.is_some()
    });
    let trial = trial.unwrap();
    let mut links = Vec::new();
    world.wait("it has begun to wait", || {
        let files = std::fs::read_dir(format!("/proc/{trial}/fd")).unwrap().flatten();
        links = files.filter_map(|file| std::fs::read_link(file.path()).ok()).collect();
        links.iter().any(|link| link.starts_with("anon_inode:[eventpoll]"))
    });
    // Its signals are a pair of sockets; beside those, none.
    let count = |what: &str| links.iter().filter(|link| link.to_string_lossy().contains(what)).count();
    assert!(count("socket:") <= 2, "{links:?}");
    assert_eq!((count("lonc.pid"), count("inotify"), count("memfd")), (0, 0, 0), "{links:?}");
    assert_eq!(numbers("run/lonc.pid"), pid_file);
    // Killed, it is one that cannot start.
    send(trial, Signal::SIGKILL);
    world.wait("that is said", || world.log().contains("(killed by SIGKILL)"));
    assert!(world.path("run/msul1").exists());
}
