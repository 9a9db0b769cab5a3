//! `reload` asked of `lonc`: what changes is replaced, all else goes on untouched.

use crate::Test;
use crate::lonc::{HOSTS, LONC, hang, world};
use crate::world::{World, children_of, is_alive, open_files_of, pause};
use nix::sys::signal::Signal;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

pub const TESTS: &[Test] = &[
    ("a_reload_touches_only_links_that_have_changed", touches_only_what_has_changed),
    ("a_reload_of_a_bad_configuration_says_where_it_is_bad_and_changes_nothing", says_what_is_bad),
    ("what_a_reload_cannot_change_is_said", what_cannot_change_is_said),
    ("no_connect_fails_while_reloads_replace_every_child", no_connect_fails),
    ("a_child_that_hangs_is_killed_and_replaced_at_a_reload", a_hung_child_is_killed),
    ("a_moved_delayed_directory_is_watched_after_a_reload", a_moved_spool_is_watched),
    ("a_reload_and_hup_work_in_turn", reload_and_hup_in_turn),
];

/// The last line of the answer.
fn reload(world: &World) -> String {
    let answer = world.ask("lonc.sock", "reload").unwrap();
    answer.trim_end().lines().last().unwrap().to_owned()
}

fn touches_only_what_has_changed() {
    let mut world = world();
    let pid = world.start();
    let [kept, changed, gone] = ["msul1", "msul2", "msul3"].map(|peer| world.child_of(peer));
    assert_eq!(reload(&world), "reloaded: 0 links replaced, 0 added, 0 removed, 3 kept");
    let hosts = format!("# moved by a line\n{}", HOSTS.replace("msul3", "msul4"));
    world.configure(&hosts, &format!("{LONC}[host.msul2]\nrequest_timeout = \"7s\"\n"));
    assert_eq!(reload(&world), "reloaded: 1 link replaced, 1 added, 1 removed, 1 kept");
    world.wait("the changed one is replaced", || world.child_of("msul2") != changed);
    world.wait("the removed one is gone", || !is_alive(gone));
    assert!(!world.path("run/msul3").exists());
    world.child_of("msul4");
    assert_eq!(world.child_of("msul1"), kept);
    assert!(!is_alive(changed));
    world.wait("the status shows it", || {
        world.status_of("msul3").is_null()
            && world.status_of("msul4")["state"] == "up"
            && world.status_of("msul1")["pid"] == kept
    });
    assert_eq!(children_of(pid).len(), 3);
    assert!(!world.log().contains("started anew, "), "the program was not started anew");
    // Back again: what was removed is served as if it had never been away.
    world.configure(HOSTS, &LONC.replace("0640", "0600"));
    assert_eq!(reload(&world), "reloaded: 1 link replaced, 1 added, 1 removed, 1 kept");
    world.wait("the child is a new one", || world.child_of("msul3") != gone);
    assert_eq!(world.child_of("msul1"), kept);
    assert_eq!(world.path("run/msul1").metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

fn says_what_is_bad() {
    let mut world = world();
    world.start();
    let before = ["msul1", "msul2", "msul3"].map(|peer| world.child_of(peer));
    world.configure(&format!("{HOSTS}bad line\nworse\n"), LONC);
    let answer = world.ask("lonc.sock", "reload").unwrap();
    let table = world.path("hosts.tab");
    for (line, place) in answer.lines().zip([5, 6]) {
        assert!(line.starts_with(&format!("error:{}:{place}: ", table.display())), "{answer}");
    }
    assert!(!answer.contains("reloaded"), "{answer}");
    assert!(world.log().contains("the old configuration stays"));
    assert_eq!(["msul1", "msul2", "msul3"].map(|peer| world.child_of(peer)), before);
}

fn what_cannot_change_is_said() {
    let mut world = world();
    world.start();
    let before = world.child_of("msul1");
    let file = world.path("lonnet.toml");
    for (key, instead) in [("run_dir", "stop and start instead"), ("log_dir", "send HUP instead")] {
        world.configure(&HOSTS.replace("127.0.0.2", "127.0.0.9"), &format!("{key} = \"elsewhere\"\n{LONC}"));
        assert_eq!(reload(&world), format!("error:{}: {key} has changed: {instead}", file.display()));
        assert_eq!(world.child_of("msul1"), before, "nothing else is taken over either");
    }
    world.configure_as(Some("nobody"), HOSTS, LONC);
    let said = format!("error:{}: user has changed: stop and start instead", file.display());
    assert_eq!(reload(&world), said);
    assert!(!world.path("elsewhere").exists());
}

fn no_connect_fails() {
    let mut world = world();
    let pid = world.start();
    let mut children = ["msul1", "msul2", "msul3"].map(|peer| world.child_of(peer));
    world.wait("all is written that a start writes", || {
        ["msul1", "msul2", "msul3"].iter().all(|peer| world.status_of(peer)["state"] == "up")
    });
    let files = open_files_of(pid);
    let (stop, path) = (AtomicBool::new(false), world.path("run/msul1"));
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
                world.configure(HOSTS, &format!("{LONC}request_timeout = \"{time}s\"\n"));
                assert_eq!(reload(&world), "reloaded: 3 links replaced, 0 added, 0 removed, 0 kept");
                for (peer, before) in ["msul1", "msul2", "msul3"].into_iter().zip(&mut children) {
                    world.wait("the child is a new one", || world.child_of(peer) != *before);
                    *before = world.child_of(peer);
                }
                world.wait("three children, none a zombie", || {
                    let children = children_of(pid);
                    children.len() == 3 && children.iter().all(|(_, state)| *state != 'Z')
                });
                world.wait("no descriptor leaks", || open_files_of(pid) == files);
            }
        }));
        stop.store(true, Ordering::Relaxed);
        assert!(connects.join().unwrap() > 0);
        passed.unwrap();
    });
}

fn a_hung_child_is_killed() {
    let mut world = world();
    world.start();
    let (hung, other) = (world.child_of("msul1"), world.child_of("msul2"));
    let _client = hang(&world, "msul1");
    world.configure(HOSTS, &format!("{LONC}[host.msul1]\nrequest_timeout = \"7s\"\n"));
    assert_eq!(reload(&world), "reloaded: 1 link replaced, 0 added, 0 removed, 2 kept");
    world.wait("the child is a new one", || world.child_of("msul1") != hung);
    assert!(!is_alive(hung));
    assert!(world.log().contains(&format!("msul1: killing child {hung}")));
    assert_eq!(world.child_of("msul2"), other);
}

fn a_moved_spool_is_watched() {
    let mut world = world();
    world.start();
    let before = world.child_of("msul2");
    world.configure(HOSTS, &format!("spool_dir = \"elsewhere\"\n{LONC}"));
    assert_eq!(reload(&world), "reloaded: 3 links replaced, 0 added, 0 removed, 0 kept");
    world.wait("the child is a new one", || world.child_of("msul2") != before);
    world.wait("it is up", || world.status_of("msul2")["state"] == "up");
    std::fs::write(world.path("elsewhere/1234_1.msul2"), "log:x\n").unwrap();
    // A look between its making and its last byte tells of it twice.
    world.wait("its child was told", || {
        let doing = world.status_of("msul2")["doing"].to_string();
        doing.contains("1 files") || doing.contains("2 files")
    });
}

fn reload_and_hup_in_turn() {
    let mut world = world();
    let pid = world.start();
    let mut child = world.child_of("msul1");
    for time in 1..=3 {
        world.configure(HOSTS, &format!("{LONC}request_timeout = \"{time}s\"\n"));
        assert_eq!(reload(&world), "reloaded: 3 links replaced, 0 added, 0 removed, 0 kept");
        // At once, while the reload is still replacing children.
        world.signal(Signal::SIGHUP);
        world.wait("the program began anew", || world.log().matches("started anew, ").count() == time);
        world.wait("the child is a new one", || world.child_of("msul1") != child);
        world.wait("the old children are gone", || !is_alive(child) && children_of(pid).len() == 3);
        child = world.child_of("msul1");
        assert!(reload(&world).starts_with("reloaded: 0 links replaced"), "the configuration is the same");
    }
}
