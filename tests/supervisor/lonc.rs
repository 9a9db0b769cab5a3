//! `lonc`'s supervisor.

use crate::Test;
use crate::world::{World, children_of, is_alive, open_files_of, pause, send, status_field, title_of};
use nix::sys::signal::Signal;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const HOSTS: &str = "me:d:library:localhost:127.0.0.1\nmsul1:d:library:a:127.0.0.2\n\
                     msul2:d:library:b:127.0.0.3\nmsul3:d:library:c:127.0.0.4\n";
pub const LONC: &str = "[lonc]\nwire = \"classic\"\ndrain_timeout = \"500ms\"\nsocket_mode = \"0640\"\n";

pub const TESTS: &[Test] = &[
    ("each_peer_has_a_socket_and_a_child_and_ps_shows_what_each_is", each_peer_has_a_socket_and_a_child),
    ("a_child_that_dies_is_replaced_and_its_socket_stays", a_child_that_dies_is_replaced),
    ("a_child_that_keeps_dying_waits_and_usr1_ends_the_wait", a_child_that_keeps_dying_waits),
    ("a_child_has_nothing_of_its_parents_but_what_it_needs", a_child_has_nothing_of_its_parents),
    ("a_panic_in_a_child_is_logged_and_the_child_replaced", a_panic_in_a_child_is_logged),
    ("a_panic_in_the_supervisor_is_logged_with_its_place_and_its_children_end", a_panic_in_the_supervisor),
    ("hup_works_the_tenth_time_as_the_first_and_no_connect_fails", hup_works_the_tenth_time),
    ("hup_with_a_bad_configuration_keeps_the_old_and_a_good_one_is_followed", hup_follows_the_configuration),
    ("a_hung_child_is_killed_at_hup_and_replaced", a_hung_child_is_killed_at_hup),
    ("term_removes_sockets_and_pid_file_and_leaves_no_child", term_leaves_nothing),
    ("term_kills_a_child_that_hangs_and_a_second_term_does_so_at_once", term_kills_a_child_that_hangs),
    ("quit_ends_at_once", quit_ends_at_once),
    ("status_is_answered_with_what_all_children_report", status_is_answered),
    ("status_does_not_wait_for_ever_and_bounds_who_asks", status_does_not_wait_for_ever),
    ("usr1_probes_every_link_and_writes_the_status_files", usr1_probes_every_link),
    ("a_file_dropped_into_the_delayed_directory_is_told_to_its_child", a_dropped_file_is_told),
    ("what_is_not_a_socket_costs_its_own_peer_alone", what_is_not_a_socket_costs_its_peer),
    ("with_nothing_to_do_the_supervisor_sleeps", with_nothing_to_do_it_sleeps),
];

pub fn world() -> World {
    World::new("lonc", HOSTS, LONC)
}

fn each_peer_has_a_socket_and_a_child() {
    let mut world = world();
    let pid = world.start();
    let pids: HashSet<u32> = ["msul1", "msul2", "msul3"].map(|peer| world.child_of(peer)).into();
    assert_eq!(pids.len(), 3);
    let children: HashSet<u32> = children_of(pid).into_iter().map(|(child, _)| child).collect();
    assert_eq!(children, pids);
    assert_eq!(title_of(pid), "lonc: supervisor, 3 links");
    assert_eq!(title_of(world.child_of("msul2")), "lonc: msul2 up");
    let socket = world.path("run/msul1").metadata().unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o640);
    assert_eq!(std::fs::read_to_string(world.path("run/lonc.pid")).unwrap(), format!("{pid}\n"));
    assert!(!world.path("run/me").exists(), "this host itself is no peer");
    world.wait("the status files show it", || {
        world.status_of("msul3")["state"] == "up"
            && std::fs::read_to_string(world.path("status/loncstatus.txt")).unwrap().contains("\tmsul3\t")
    });
}

fn a_child_that_dies_is_replaced() {
    let mut world = world();
    world.start();
    let first = world.child_of("msul1");
    send(first, Signal::SIGKILL);
    // A connect finds the socket whether the next child is there or not.
    let mut stream = UnixStream::connect(world.path("run/msul1")).unwrap();
    stream.write_all(b"pid\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    if answer.is_empty() {
        // The dying child had accepted it.
        answer = world.child_of("msul1").to_string();
    }
    assert_ne!(answer, first.to_string());
    world.wait("the death is logged", || world.log().contains("killed by SIGKILL; starting anew"));
}

fn a_child_that_keeps_dying_waits() {
    let mut world = world();
    world.start();
    for death in 1..=4 {
        world.child_of("msul1");
        assert_eq!(world.ask("msul1", "die"), None);
        world.wait("the death is noticed", || world.log().matches("exited with 3").count() == death);
    }
    let log = world.log();
    for pause in ["exited with 3; starting anew\n", "anew in 500.0ms\n", "anew in 1.0s\n", "anew in 2.0s\n"] {
        assert!(log.contains(pause), "{pause}");
    }
    // The next pause would be 4 s: that of this death is cut short, and the streak forgotten.
    world.child_of("msul1");
    world.ask("msul1", "die");
    world.wait("the death is noticed", || world.log().contains("anew in 4.0s"));
    let begun = Instant::now();
    world.signal(Signal::SIGUSR1);
    world.child_of("msul1");
    assert!(begun.elapsed() < Duration::from_secs(4));
}

fn a_child_has_nothing_of_its_parents() {
    let mut world = world();
    world.start();
    world.child_of("msul3");
    let answer = world.ask("msul1", "files").unwrap();
    let files: Vec<&str> = answer.split('|').map(|line| line.split_once(' ').unwrap().1).collect();
    // Three standard descriptors, the log, its listener, its control socket; its own poll (which
    // has an epoll), the folder being read and this connection. It has the way to the next child
    // when it is told to hand over.
    assert!(files.iter().filter(|file| file.starts_with("socket:")).count() == 3, "{answer}");
    assert!(!answer.contains("lonc.pid") && !answer.contains("inotify"), "{answer}");
    assert_eq!(files.iter().filter(|file| file.contains("eventpoll")).count(), 1, "{answer}");
    assert_eq!(files.len(), 3 + 1 + 3 + 1 + 1, "{answer}");
    let signals = world.ask("msul1", "signals").unwrap();
    let mask = |name: &str| {
        let (_, rest) = signals.split_once(name).unwrap();
        u64::from_str_radix(rest.split('|').next().unwrap().trim(), 16).unwrap()
    };
    let bit = |signal: Signal| 1_u64 << (signal as i32 - 1);
    assert_eq!(mask("SigBlk:"), 0);
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGPIPE] {
        assert_ne!(mask("SigIgn:") & bit(signal), 0, "{signal} is ignored");
    }
    assert_eq!((mask("SigCgt:") | mask("SigIgn:")) & (bit(Signal::SIGTERM) | bit(Signal::SIGCHLD)), 0);
    assert_eq!(mask("SigCgt:") & 0xffff & !bit(Signal::SIGSEGV) & !bit(Signal::SIGBUS), 0, "no handlers");
}

fn a_panic_in_a_child_is_logged() {
    let mut world = world();
    world.start();
    let first = world.child_of("msul1");
    assert_eq!(world.ask("msul1", "panic"), None);
    assert_ne!(world.child_of("msul1"), first);
    let log = world.log();
    assert!(log.contains(&format!("lonc[{first}] msul1 ERROR panicked at ")), "{log}");
    assert!(log.contains(&format!("msul1: child {first} panicked; starting anew")), "{log}");
    world.wait("the status tells so", || {
        world.status_of("msul1")["last_error"].as_str().is_some_and(|error| error == "the child panicked")
    });
}

fn a_panic_in_the_supervisor() {
    let mut world = world();
    world.play("lonc that panics");
    world.start();
    let child = world.child_of("msul1");
    std::fs::write(world.path("panic"), "").unwrap();
    assert_eq!(world.ask("lonc.sock", "reload"), None);
    assert_eq!(world.ended().code(), Some(101));
    world.wait("its children end", || !is_alive(child));
    let log = world.log();
    let place = "ERROR panicked at tests/supervisor/roles.rs:";
    assert!(log.lines().any(|line| line.contains(place) && line.contains("on purpose")), "{log}");
    // Nothing is in the way of the next one.
    std::fs::remove_file(world.path("panic")).unwrap();
    std::fs::remove_file(world.path("log/lonc.log")).unwrap();
    world.start();
    assert_ne!(world.child_of("msul1"), child);
}

fn hup_works_the_tenth_time() {
    let mut world = world();
    let pid = world.start();
    let mut child = world.child_of("msul1");
    let (stop, path) = (AtomicBool::new(false), world.path("run/msul1"));
    world.wait("all are up", || {
        ["msul1", "msul2", "msul3"].iter().all(|p| world.status_of(p)["state"] == "up")
    });
    let files = open_files_of(pid);
    std::thread::scope(|scope| {
        let connects = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                UnixStream::connect(&path).expect("a connect never fails");
                count += 1;
                pause();
            }
            count
        });
        // The connecting thread must end however this one does.
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for time in 1..=10 {
                world.signal(Signal::SIGHUP);
                world
                    .wait("the program began anew", || world.log().matches("started anew, ").count() == time);
                for peer in ["msul1", "msul2", "msul3"] {
                    let before = if peer == "msul1" { child } else { 0 };
                    world.wait("the child is a new one", || world.child_of(peer) != before);
                }
                child = world.child_of("msul1");
                world.wait("three children, none a zombie", || {
                    let children = children_of(pid);
                    children.len() == 3 && children.iter().all(|(_, state)| *state != 'Z')
                });
                world.wait("no descriptor leaks", || open_files_of(pid) == files);
            }
        }));
        stop.store(true, Ordering::Relaxed);
        assert!(connects.join().unwrap() > 10);
        passed.unwrap();
    });
    assert_eq!(title_of(pid), "lonc: supervisor, 3 links");
    assert_eq!(world.pid(), pid);
    assert_eq!(status_field(pid, "SigBlk"), "0000000000000000");
    world.signal(Signal::SIGTERM);
    assert!(world.ended().success());
}

fn hup_follows_the_configuration() {
    let mut world = world();
    let pid = world.start();
    let gone = world.child_of("msul3");
    world.configure(&format!("{HOSTS}bad line\n"), LONC);
    world.signal(Signal::SIGHUP);
    let problem = format!("ERROR restart: {}:5: ", world.path("hosts.tab").display());
    world.wait("the problem is logged", || world.log().contains(&problem));
    assert_eq!(world.child_of("msul3"), gone, "the old children go on");
    world.configure(HOSTS, &format!("run_dir = \"elsewhere\"\n{LONC}"));
    world.signal(Signal::SIGHUP);
    world.wait("a new run_dir is refused", || {
        world.log().contains("run_dir has changed: stop and start instead")
    });
    let hosts = HOSTS.replace("msul3", "msul4");
    world.configure(&hosts, &LONC.replace("0640", "0600"));
    world.signal(Signal::SIGHUP);
    world.wait("the new peer has a socket", || world.path("run/msul4").exists());
    world.child_of("msul4");
    assert_eq!(world.path("run/msul1").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    world.wait("the old peer's child is gone", || !is_alive(gone));
    assert!(!world.path("run/msul3").exists());
    world.wait("each peer has a child", || children_of(pid).len() == 3);
    world.wait("the status shows it", || {
        world.status_of("msul3").is_null() && world.status_of("msul4")["state"] == "up"
    });
}

fn a_hung_child_is_killed_at_hup() {
    let mut world = world();
    world.start();
    let hung = world.child_of("msul1");
    let _client = hang(&world, "msul1");
    world.signal(Signal::SIGHUP);
    world.wait("the program began anew", || world.log().contains("started anew, "));
    assert_ne!(world.child_of("msul1"), hung);
    assert!(!is_alive(hung));
    assert!(world.log().contains(&format!("msul1: killing child {hung}")));
}

/// Has the child of `peer` hang with this connection open.
pub fn hang(world: &World, peer: &str) -> UnixStream {
    let mut stream = UnixStream::connect(world.path("run").join(peer)).unwrap();
    stream.write_all(b"hang\n").unwrap();
    stream.read_exact(&mut [0; "hanging".len()]).unwrap();
    stream
}

fn term_leaves_nothing() {
    let mut world = world();
    let pid = world.start();
    world.child_of("msul1");
    let children = children_of(pid);
    let left_behind = UnixListener::bind(world.path("run/stranger")).unwrap();
    world.signal(Signal::SIGTERM);
    assert!(world.ended().success());
    assert!(children.iter().all(|(child, _)| !is_alive(*child)));
    let run: Vec<_> = std::fs::read_dir(world.path("run")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(run, ["stranger"], "what was not made here stays");
    assert_eq!(world.status_file()["doing"], "stopped");
    assert_eq!(world.status_of("msul1")["pid"], 0);
    drop(left_behind);
}

fn term_kills_a_child_that_hangs() {
    for at_once in [false, true] {
        let mut world = world();
        if at_once {
            world.configure(HOSTS, &LONC.replace("500ms", "60s"));
        }
        world.start();
        let hung = world.child_of("msul1");
        let _client = hang(&world, "msul1");
        world.signal(Signal::SIGTERM);
        world.wait("it is stopping", || world.log().contains("INFO stopping"));
        if at_once {
            world.signal(Signal::SIGTERM);
        }
        assert!(world.ended().success());
        assert!(!is_alive(hung));
        assert!(!world.path("run/lonc.pid").exists());
    }
}

fn quit_ends_at_once() {
    let mut world = world();
    world.configure(HOSTS, &LONC.replace("500ms", "60s"));
    world.start();
    let hung = world.child_of("msul1");
    let _client = hang(&world, "msul1");
    world.signal(Signal::SIGQUIT);
    assert!(world.ended().success());
    assert!(!is_alive(hung));
    assert_eq!(std::fs::read_dir(world.path("run")).unwrap().count(), 0);
}

fn status_is_answered() {
    let mut world = world();
    let pid = world.start();
    let children = ["msul1", "msul2", "msul3"].map(|peer| world.child_of(peer));
    let begun = Instant::now();
    let answer = world.ask("lonc.sock", "status").unwrap();
    assert!(begun.elapsed() < Duration::from_millis(900), "it does not wait without need");
    assert_eq!(answer.matches('\n').count(), 1);
    let status: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((status["pid"].as_u64(), status["program"].as_str()), (Some(pid.into()), Some("lonc")));
    for (place, child) in children.into_iter().enumerate() {
        assert_eq!(status["peers"][place]["pid"], child);
        assert_eq!(status["peers"][place]["state"], "up");
    }
    assert_eq!(world.ask("lonc.sock", "nonsense").unwrap(), "error:unknown command\n");
    assert_eq!(world.ask("lonc.sock", &"x".repeat(10_000)).unwrap(), "error:unknown command\n");
}

fn status_does_not_wait_for_ever() {
    let mut world = world();
    world.start();
    let _client = hang(&world, "msul1");
    let begun = Instant::now();
    let answer = world.ask("lonc.sock", "status").unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(900));
    assert!(answer.contains("\"msul2\""));
    // Sixteen may ask; those beyond are closed at once.
    let mut silent: Vec<UnixStream> =
        (0..40).map(|_| UnixStream::connect(world.path("run/lonc.sock")).unwrap()).collect();
    let closed = |stream: &mut UnixStream| {
        stream.set_nonblocking(true).unwrap();
        matches!(stream.read(&mut [0; 8]), Ok(0))
    };
    world.wait("all but sixteen are closed", || {
        silent.iter_mut().filter_map(|s| closed(s).then_some(())).count() == 24
    });
    drop(silent);
    world.wait("the next is served", || world.ask("lonc.sock", "status").is_some());
}

fn usr1_probes_every_link() {
    let mut world = world();
    world.start();
    world.wait("all are up", || {
        ["msul1", "msul2", "msul3"].iter().all(|p| world.status_of(p)["state"] == "up")
    });
    let before = world.path("status/loncstatus.txt").metadata().unwrap().ino();
    world.signal(Signal::SIGUSR1);
    world.wait("every child was probed, and the files tell so", || {
        ["msul1", "msul2", "msul3"]
            .iter()
            .all(|peer| world.status_of(peer)["doing"] == "up, 1 probes, 0 files")
    });
    assert_ne!(world.path("status/loncstatus.txt").metadata().unwrap().ino(), before);
}

fn a_dropped_file_is_told() {
    let mut world = world();
    world.start();
    world.wait("it is up", || world.status_of("msul2")["state"] == "up");
    std::fs::write(world.path("delayed/1234_1.msul2"), "log:x\n").unwrap();
    std::fs::write(world.path("delayed/1234_1.stranger"), "log:x\n").unwrap();
    // Once or twice: a file that is written is noticed when it is made, too.
    let told = |world: &World| {
        let doing = world.status_of("msul2")["doing"].to_string();
        doing.contains("1 files") || doing.contains("2 files")
    };
    world.wait("its child was told", || told(&world));
    let mut moved = std::fs::read_dir(world.path("delayed/msul2/dropped")).unwrap().flatten();
    assert!(moved.any(|entry| entry.file_name().to_string_lossy().ends_with(".1234_1.msul2")));
    assert_eq!(world.status_of("msul1")["doing"], "up, 0 probes, 0 files");

    // The watch outlives a restart.
    let child = world.child_of("msul2");
    world.signal(Signal::SIGHUP);
    world.wait("a new child is up", || {
        let status = world.status_of("msul2");
        status["pid"] != child && status["doing"] == "up, 0 probes, 0 files"
    });
    std::fs::write(world.path("delayed/1234_2.msul2"), "log:x\n").unwrap();
    world.wait("the new child was told", || told(&world));
}

fn what_is_not_a_socket_costs_its_peer() {
    let mut world = world();
    std::fs::create_dir(world.path("run")).unwrap();
    std::fs::write(world.path("run/msul2"), "precious").unwrap();
    drop(UnixListener::bind(world.path("run/msul3")).unwrap());
    world.start();
    world.child_of("msul1");
    world.child_of("msul3");
    assert!(world.log().contains("msul2: listen on "));
    world.wait("the status tells so", || {
        world.status_of("msul2")["last_error"].as_str().is_some_and(|error| error.contains("not a socket"))
    });
    assert_eq!(std::fs::read(world.path("run/msul2")).unwrap(), b"precious");
    std::fs::remove_file(world.path("run/msul2")).unwrap();
    world.signal(Signal::SIGUSR1);
    world.wait("it is served now", || world.path("run/msul2").exists());
    world.child_of("msul2");
}

fn with_nothing_to_do_it_sleeps() {
    let mut world = world();
    let pid = world.start();
    world.wait("all are up", || {
        ["msul1", "msul2", "msul3"].iter().all(|p| world.status_of(p)["state"] == "up")
    });
    let woken = || status_field(pid, "voluntary_ctxt_switches");
    // It has gone to sleep for good once it was not woken for a while; a supervisor that polls
    // never does.
    let (mut last, mut since) = (woken(), Instant::now());
    world.wait("it sleeps", || {
        let now = woken();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(1500)
    });
}
