//! Disks that really fill, and are freed again: small file systems of each test's own, mounted
//! before the programs start.

use crate::common::load::Load;
use crate::common::network::Host;
use crate::common::pair::CALLED;
use crate::common::secure_pair::TwoHosts;
use crate::common::small_disk::{SmallDisk, only_with_own_mounts};
use crate::common::tally::Tally;
use crate::common::{process, wait};
use crate::secure_once::settle;
use nix::sys::signal::Signal;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// Room for a few segments. What is kept free by default must leave some of it.
const SPOOL_BYTES: u64 = 8 << 20;
/// Room for what the other folders hold in a test.
/// Programs that send critical messages at the same time.
const SENDERS: usize = 12;
const SMALL_BYTES: u64 = 1 << 20;
/// So long that a segment holds ten of them.
const LONG: usize = 100_000;

/// Puts each folder of a host on a disk of its own: the delayed directory comes last.
fn small_disks(host: &Host) -> Vec<SmallDisk> {
    let mut disks: Vec<_> =
        ["run", "log", "status"].map(|folder| SmallDisk::mount(&host.dir.join(folder), SMALL_BYTES)).into();
    disks.push(SmallDisk::mount(&host.dir.join("delayed"), SPOOL_BYTES));
    disks
}

fn long(number: usize) -> String {
    format!("do:{number:04} {}", "x".repeat(LONG))
}

#[test]
fn messages_are_refused_while_the_disk_is_full_and_taken_again_as_soon_as_it_is_freed() {
    only_with_own_mounts(|| {
        let both = TwoHosts::new();
        let disk = SmallDisk::mount(&both.one.dir.join("delayed"), SPOOL_BYTES);
        let lonc = both.one.lonc();
        both.one.wait_link(CALLED, "down");
        let mut client = both.one.connect(CALLED);
        let mut kept = Vec::new();
        let mut number = 0;
        let mut send = |wanted: &str| {
            let answer = client.ask(&format!("critical:{}", long(number)));
            assert!(answer == "con_delayed" || answer == "con_failed", "{answer}");
            if answer == "con_delayed" {
                kept.push(long(number));
            }
            number += 1;
            answer == wanted
        };
        for _ in 0..3 {
            assert!(send("con_delayed"), "with the settings as they are by default");
            disk.fill();
            // What a segment was made with is still there to be used up.
            assert!((0..30).any(|_| send("con_failed")));
            disk.free();
            assert!(send("con_delayed"), "the disk is free again");
        }
        let _lond = both.other.lond();
        lonc.signal(Signal::SIGUSR1);
        wait::until_true("all that was kept to be done", || both.counter.done().len() >= kept.len());
        assert!(both.counter.done() == kept, "other than what was kept, in its order");
    });
}

#[test]
fn hup_on_full_disks_keeps_lonc_serving_and_its_status_comes_up_to_date_when_they_are_freed() {
    only_with_own_mounts(|| {
        let both = TwoHosts::new();
        let disks = small_disks(&both.one);
        let (mut lonc, _lond) = both.start();
        let load = Load::start_as(&both.one.socket(CALLED), "critical:do:");
        load.wait_for_more(20);
        disks.iter().for_each(SmallDisk::fill);
        for _ in 0..3 {
            let child = lonc.only_child();
            lonc.signal(Signal::SIGHUP);
            wait::until_true("another child", || !process::alive(child));
            lonc.assert_running();
            both.one.wait_link(CALLED, "up");
            assert_eq!(both.one.ask(CALLED, "ping"), CALLED);
        }
        let reload = both.one.lon(&["reload"]);
        assert!(
            reload.status.success() || String::from_utf8_lossy(&reload.stdout).contains("lonc: reloaded")
        );
        let written = || both.one.status_file(CALLED).map(|status| status["pid"].clone());
        let pid = lonc.only_child();
        assert_ne!(written(), Some(pid.into()), "the disk of the status was not full");
        disks.iter().for_each(SmallDisk::free);
        wait::until_true("a status file of today", || written() == Some(pid.into()));
        load.wait_for_more(20);
        let acknowledged = load.finish();
        let tally = settle("do:", &acknowledged, || both.counter.done());
        assert_eq!(tally, Tally { messages: acknowledged.len(), ..Tally::default() });
    });
}

#[test]
fn hup_on_full_disks_keeps_lond_serving_and_what_it_could_not_record_is_done_once_when_they_are_freed() {
    only_with_own_mounts(|| {
        let both = TwoHosts::new();
        let disks = small_disks(&both.other);
        let (_lonc, mut lond) = both.start();
        let load = Load::start_as(&both.one.socket(CALLED), "critical:do:");
        load.wait_for_more(20);
        disks.iter().for_each(SmallDisk::fill);
        lond.signal(Signal::SIGHUP);
        wait::until_true("plain requests to be served", || both.one.ask(CALLED, "ping") == CALLED);
        lond.assert_running();
        // They wait here, since the other host could not keep their answers.
        wait::until_true("messages to wait", || {
            both.one.status(CALLED).is_some_and(|status| status["delayed"].as_u64() > Some(0))
        });
        disks.iter().for_each(SmallDisk::free);
        load.wait_for_more(20);
        let acknowledged = load.finish();
        let tally = settle("do:", &acknowledged, || both.counter.done());
        assert_eq!(tally, Tally { messages: acknowledged.len(), ..Tally::default() });
    });
}

#[test]
fn the_status_file_of_lond_comes_up_to_date_by_itself_when_its_disk_is_freed() {
    only_with_own_mounts(|| {
        let both = TwoHosts::new();
        let disk = SmallDisk::mount(&both.other.dir.join("status"), SMALL_BYTES);
        let links = || {
            let text = std::fs::read_to_string(both.other.dir.join("status/lond.json")).unwrap_or_default();
            let status: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            status["links"].as_array().map_or(0, Vec::len)
        };
        let _lond = both.other.lond();
        disk.fill();
        let _lonc = both.one.lonc();
        both.one.wait_link(CALLED, "up");
        wait::until_true("the failure to be said", || {
            both.other.log("lond.log").contains("it is out of date")
        });
        assert_eq!(links(), 0, "the disk was not full");
        disk.free();
        // Nothing else happens.
        wait::until_true("the link to be in the file", || links() == 1);
    });
}

#[test]
fn a_disk_that_is_full_for_longer_than_lond_is_patient_has_nothing_run_again() {
    only_with_own_mounts(|| {
        let both = TwoHosts::new();
        let disk = SmallDisk::mount(&both.other.dir.join("delayed/.received"), SMALL_BYTES);
        let (_lonc, _lond) = both.start();
        let load = Load::start_as(&both.one.socket(CALLED), "critical:do:");
        for _ in 0..2 {
            load.wait_for_more(50);
            disk.fill();
            // The lines of lond about the same trouble are one a minute; each end of a link is one
            // of lonc.
            let ended = || both.one.log("lonc.log").matches("up -> ").count();
            let before = ended();
            wait::until_true("lond to give the link up", || {
                // What lond had set aside is used up, too.
                disk.fill();
                ended() > before
            });
            disk.free();
        }
        load.wait_for_more(50);
        let acknowledged = load.finish();
        let tally = settle("do:", &acknowledged, || both.counter.done());
        assert_eq!(tally, Tally { messages: acknowledged.len(), ..Tally::default() });
    });
}

#[test]
fn a_full_disk_has_nothing_run_again_though_messages_are_under_way_beside_each_other() {
    only_with_own_mounts(|| {
        let both = TwoHosts::new();
        let disk = SmallDisk::mount(&both.other.dir.join("delayed/.received"), SMALL_BYTES);
        let (_lonc, _lond) = both.start();
        let prefixes: Vec<String> = (0..SENDERS).map(|sender| format!("do:{sender}-")).collect();
        let start = |prefix: &String| Load::start_as(&both.one.socket(CALLED), &format!("critical:{prefix}"));
        let loads: Vec<Load> = prefixes.iter().map(start).collect();
        let refused = || both.one.log("lonc.log").matches("up -> ").count();
        for _ in 0..2 {
            loads.iter().for_each(|load| load.wait_for_more(20));
            let before = refused();
            wait::until_true("lond to have no more room", || {
                disk.fill();
                refused() > before
            });
            disk.free();
        }
        loads.iter().for_each(|load| load.wait_for_more(20));
        for (load, prefix) in loads.into_iter().zip(&prefixes) {
            let acknowledged = load.finish();
            let tally = settle(prefix, &acknowledged, || both.counter.done());
            assert_eq!(tally, Tally { messages: acknowledged.len(), ..Tally::default() }, "{prefix}");
        }
    });
}

#[test]
fn started_on_full_disks_lonc_serves_refuses_what_it_cannot_keep_and_keeps_it_once_they_are_freed() {
    only_with_own_mounts(|| {
        let both = TwoHosts::new();
        let disks = ["log", "status", "delayed"]
            .map(|folder| SmallDisk::mount(&both.one.dir.join(folder), SMALL_BYTES * 4));
        disks.iter().for_each(SmallDisk::fill);
        let lond = both.other.lond();
        let lonc = both.one.lonc();
        both.one.wait_link(CALLED, "up");
        assert_eq!(both.one.ask(CALLED, "ping"), CALLED);
        lond.stop();
        both.one.wait_link(CALLED, "down");
        assert_eq!(both.one.ask(CALLED, "critical:do:refused"), "con_failed");
        disks.iter().for_each(SmallDisk::free);
        assert_eq!(both.one.ask(CALLED, "critical:do:kept"), "con_delayed");
        let _lond = both.other.lond();
        lonc.signal(Signal::SIGUSR1);
        wait::until_true("what was kept to be done", || both.counter.done() == ["do:kept"]);
    });
}

#[test]
fn a_start_that_a_full_disk_prevents_says_so_and_the_next_one_succeeds_when_it_is_freed() {
    only_with_own_mounts(|| {
        let both = TwoHosts::new();
        for (host, name) in [(&both.one, "lonc"), (&both.other, "lond")] {
            let disk = SmallDisk::mount(&host.dir.join("run"), SMALL_BYTES);
            disk.fill();
            let start = || host.command(name).arg("--if-not-running").output().expect("start a program");
            let refused = start();
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!(refused.status.code(), Some(1), "{said}");
            assert!(said.contains(&format!("{name}.pid: No space left")), "{said}");
            disk.free();
            let pid = host.pid_file(name);
            assert!(start().status.success());
            let pid = crate::common::program::pid_in(&pid).expect("a pid");
            assert!(process::alive(pid));
            process::signal(pid, Signal::SIGTERM);
            wait::until_true("its end", || !process::alive(pid));
            disk.unmount();
        }
    });
}

#[test]
fn programs_that_are_killed_while_every_disk_is_full_are_started_again_on_it() {
    only_with_own_mounts(|| {
        let both = TwoHosts::new();
        let disks =
            [small_disks(&both.one), small_disks(&both.other)].into_iter().flatten().collect::<Vec<_>>();
        let (lonc, lond) = both.start();
        assert_eq!(both.one.ask(CALLED, "critical:do:before"), "ok");
        disks.iter().for_each(SmallDisk::fill);
        let all = [vec![lonc.pid(), lond.pid()], lonc.children(), lond.children()].concat();
        all.iter().for_each(|&pid| process::signal(pid, Signal::SIGKILL));
        lonc.kill();
        lond.kill();
        let started = AtomicBool::new(false);
        let (_lonc, _lond) = std::thread::scope(|scope| {
            // Whatever the start gives back is gone at once.
            scope.spawn(|| {
                while !started.load(Ordering::SeqCst) {
                    disks.iter().for_each(SmallDisk::fill);
                }
            });
            let programs = both.start();
            started.store(true, Ordering::SeqCst);
            programs
        });
        assert_eq!(both.one.ask(CALLED, "ping"), CALLED);
        disks.iter().for_each(SmallDisk::free);
        wait::until_true("critical messages to be taken", || {
            both.one.ask(CALLED, "critical:do:behind") != "con_failed"
        });
        wait::until_true("them to be done", || {
            both.counter.done().last().is_some_and(|last| last == "do:behind")
        });
        assert_eq!(both.counter.done().iter().filter(|text| *text == "do:before").count(), 1);
    });
}

#[test]
fn a_child_that_is_killed_while_segments_are_made_loses_nothing_and_the_order_holds() {
    let both = TwoHosts::new();
    let lonc = both.one.lonc();
    both.one.wait_link(CALLED, "down");
    let load = Load::start_as(&both.one.socket(CALLED), &format!("critical:do:{}", "x".repeat(LONG)));
    for _ in 0..15 {
        load.wait_for_more(fastrand::u64(1..12));
        // Between two acknowledgements, which is most often within a store, and each tenth store
        // makes a segment.
        wait::let_pass(std::time::Duration::from_micros(fastrand::u64(..3000)));
        for child in lonc.children() {
            process::signal(child, Signal::SIGKILL);
            wait::until_true("its end", || !process::alive(child));
            // The next one at once, though so many have died young.
            lonc.signal(Signal::SIGUSR1);
        }
    }
    load.wait_for_more(5);
    let _lond = both.other.lond();
    lonc.signal(Signal::SIGUSR1);
    load.wait_for_more(5);
    let acknowledged = load.finish();
    let prefix = format!("do:{}", "x".repeat(LONG));
    let tally = settle(&prefix, &acknowledged, || both.counter.done());
    assert_eq!(tally, Tally { messages: acknowledged.len(), ..Tally::default() });
    let corrupt = both.one.status(CALLED).map(|status| status["corrupt"].clone());
    assert_eq!(corrupt, Some(0.into()), "a killed process leaves nothing that looks damaged");
}

#[test]
fn a_peer_whose_socket_could_not_be_made_is_served_unaided_once_it_can_be() {
    let both = TwoHosts::new();
    std::fs::create_dir_all(both.one.socket(CALLED)).expect("something in the way");
    let _lond = both.other.lond();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lonc"));
    command.arg("--config").arg(both.one.config());
    assert!(command.output().expect("start lonc").status.success());
    let pid = crate::common::program::pid_in(&both.one.pid_file("lonc")).expect("a pid");
    wait::until_true("the status to say so", || {
        both.one.status(CALLED).is_some_and(|status| status["doing"] == "not served: no local socket")
    });
    std::fs::remove_dir(both.one.socket(CALLED)).expect("clear the way");
    both.one.wait_link(CALLED, "up");
    assert_eq!(both.one.ask(CALLED, "ping"), CALLED);
    let said = both.one.log("lonc.log").matches("is not served until").count();
    assert_eq!(said, 1, "said other than once");
    process::signal(pid, Signal::SIGTERM);
    wait::until_true("its end", || !process::alive(pid));
}

#[test]
fn files_for_a_peer_whose_folder_is_on_another_file_system_stay_which_is_said_and_are_sent_once_it_is_not() {
    only_with_own_mounts(|| {
        let both = TwoHosts::new();
        let host = &both.one;
        let delayed = host.dir.join("delayed");
        let disk = SmallDisk::mount(&host.spool(CALLED), SPOOL_BYTES);
        let _lond = both.other.lond();
        let lonc = host.lonc();
        host.wait_link(CALLED, "up");
        let files = ["1", "2"].map(|name| delayed.join(format!("{name}.{CALLED}")));
        for (number, file) in files.iter().enumerate() {
            std::fs::write(file, format!("do:{number}\n")).expect("drop a file in");
        }
        let why = "its folder is on another file system than the delayed directory";
        wait::until_true("a line in the log", || host.log("lonc.log").contains(why));
        wait::until_true("the status to say it", || {
            let status = host.status(CALLED).expect("a status");
            status["last_error"].as_str().is_some_and(|error| error.contains(why))
        });
        let said = host.lon(&["check"]);
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(text.contains("is on another file system") && said.status.code() == Some(1), "{text}");
        let queue = host.lon(&["queue", CALLED]);
        let text = String::from_utf8_lossy(&queue.stdout).into_owned();
        assert!(text.contains("2 files dropped in"), "{text}");
        assert_eq!(host.ask(CALLED, "critical:do:asked"), "ok", "its spool is well");
        assert!(files.iter().all(|file| file.exists()));
        assert!(lonc.stop().success());
        disk.unmount();
        let _lonc = host.lonc();
        wait::until_true("both to be done", || both.counter.done().len() >= 3);
        assert_eq!(both.counter.done(), ["do:asked", "do:0", "do:1"]);
    });
}
