//! A delayed directory that is full, read-only, not a folder, or holds garbage.

use crate::common::network::root;
use crate::common::pair::{CALLED, Pair};
use crate::common::wait;
use nix::sys::signal::Signal;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn segments(pair: &Pair) -> Vec<PathBuf> {
    let entries = fs::read_dir(pair.host.spool(CALLED)).expect("the spool").flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    paths.sort();
    paths
}

#[test]
fn a_full_queue_refuses_with_the_cause_in_the_log_and_takes_messages_again_when_it_is_empty() {
    let mut pair = Pair::down_with(|host| {
        host.set("lonc", "spool_messages", "4");
    });
    let mut client = pair.host.connect(CALLED);
    for number in 0..3 {
        assert_eq!(client.ask(&format!("critical:log:m-{number}")), "con_delayed");
    }
    for number in 3..6 {
        assert_eq!(client.ask(&format!("critical:log:m-{number}")), "con_failed");
    }
    let log = pair.host.log("lonc.log");
    let cause =
        "has its share of the spool: 3 messages of its own wait, and the 1 that are free are kept for others";
    let lines = log.lines().filter(|line| line.contains("WARN") && line.contains(cause)).count();
    assert_eq!(lines, 1, "once a minute: {log}");
    pair.come_back();
    assert_eq!(pair.fake.wait_received("log:", 3), ["log:m-0", "log:m-1", "log:m-2"]);
    wait::until_true("messages to be taken again", || client.ask("critical:log:after") == "ok");
    assert_eq!(pair.fake.received("log:m-").len(), 3, "a refused message was sent");
}

#[test]
fn a_disk_without_the_room_that_must_stay_free_refuses() {
    let pair = Pair::down_with(|host| {
        host.set("lonc", "spool_keep_free", &i64::MAX.to_string());
    });
    assert_eq!(pair.ask("critical:log:no room"), "con_failed");
    assert_eq!(pair.ask("ping"), "con_lost");
}

#[test]
fn a_file_where_the_folder_should_be_refuses_critical_messages_and_serves_the_rest() {
    let pair = Pair::prepare(
        |host| {
            fs::create_dir_all(host.dir.join("delayed")).expect("make a folder");
            fs::write(host.spool(CALLED), "in the way").expect("write a file");
        },
        |fake| fake.listen(),
    );
    wait::until_true("plain requests to be served", || pair.ask("ping") == "msul1");
    // With the link up the other host takes the message; without, nobody can.
    assert_eq!(pair.ask("critical:log:direct"), "ok");
    let mut pair = pair;
    pair.fake.stop();
    pair.host.wait_link(CALLED, "down");
    assert_eq!(pair.ask("critical:log:nowhere to go"), "con_failed");
    fs::remove_file(pair.host.spool(CALLED)).expect("clear the way");
    wait::until_true("the spool to work again", || pair.ask("critical:log:kept") == "con_delayed");
    pair.come_back();
    pair.fake.wait_received("log:kept", 1);
    assert!(pair.fake.received("log:nowhere").is_empty());
}

#[test]
fn garbage_in_the_folder_is_set_aside_and_hinders_nobody() {
    let noise: Vec<u8> = (0..100_000).map(|_| fastrand::u8(..)).collect();
    let mut pair = Pair::prepare(
        |host| {
            let spool = host.spool(CALLED);
            fs::create_dir_all(spool.join("a folder.seg")).expect("make a folder");
            fs::write(spool.join("00000000000000000001.seg"), &noise).expect("write noise");
            fs::write(spool.join("notes.txt"), "somebody's notes").expect("write a file");
            fs::create_dir_all(host.dir.join("delayed/a-folder.msul1")).expect("make a folder");
            fs::write(host.dir.join("delayed/unrelated"), "not for anybody").expect("write a file");
        },
        |_| {},
    );
    pair.host.wait_link(CALLED, "down");
    assert_eq!(pair.ask("critical:log:through the noise"), "con_delayed");
    pair.come_back();
    assert_eq!(pair.fake.wait_received("log:", 1), ["log:through the noise"]);
    let corrupt: Vec<_> =
        fs::read_dir(pair.host.spool(CALLED).join("corrupt")).expect("a folder corrupt").collect();
    assert!(!corrupt.is_empty(), "nothing was set aside");
    assert!(pair.host.log("lonc.log").contains("ERROR"), "nothing was said");
    assert_eq!(fs::read(pair.host.spool(CALLED).join("notes.txt")).expect("the notes"), b"somebody's notes");
    assert_eq!(fs::read(pair.host.dir.join("delayed/unrelated")).expect("a file"), b"not for anybody");
    assert!(pair.fake.requests().iter().all(|seen| seen.request.starts_with(b"log:")), "noise was sent");
}

#[test]
fn a_damaged_message_is_set_aside_and_its_neighbours_arrive_in_order() {
    let pair = Pair::down();
    let mut client = pair.host.connect(CALLED);
    for number in 0..20 {
        assert_eq!(client.ask(&format!("critical:log:m-{number:02}")), "con_delayed");
    }
    drop(client);
    let Pair { lonc, fake, host, network } = pair;
    lonc.stop();
    let lonc_log_before = host.log("lonc.log").len();
    let mut damaged = 0;
    let spool = host.spool(CALLED);
    for entry in fs::read_dir(&spool).expect("the spool").flatten() {
        let mut bytes = fs::read(entry.path()).unwrap_or_default();
        let found = bytes.windows(8).position(|window| window == b"log:m-07");
        if let Some(at) = found {
            bytes[at] ^= 0x20;
            fs::write(entry.path(), bytes).expect("damage a segment");
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
    let lonc = host.lonc();
    let mut pair = Pair { lonc, fake, host, network };
    pair.come_back();
    let expected: Vec<_> =
        (0..20).filter(|&number| number != 7).map(|number| format!("log:m-{number:02}")).collect();
    assert_eq!(pair.fake.wait_received("log:", 19), expected);
    let log = pair.host.log("lonc.log")[lonc_log_before..].to_owned();
    let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors.len(), 1, "said other than once: {errors:#?}");
    assert!(!errors[0].contains("og:m-07"), "the payload is in the log: {}", errors[0]);
    let status = pair.host.status(CALLED).expect("a status");
    assert_eq!(status["corrupt"], 1, "{status}");
}

#[test]
fn a_segment_that_ends_in_the_middle_of_a_message_gives_up_the_whole_ones() {
    let pair = Pair::down();
    for number in 0..5 {
        assert_eq!(pair.ask(&format!("critical:log:m-{number}")), "con_delayed");
    }
    let segment = segments(&pair).into_iter().next().expect("a segment");
    let Pair { lonc, fake, host, network } = pair;
    lonc.kill();
    let bytes = fs::read(&segment).expect("a segment");
    let last = bytes.windows(7).position(|window| window == b"log:m-4").expect("the last message");
    let file = fs::File::options().write(true).open(&segment).expect("open a segment");
    file.set_len(last as u64 + 3).expect("cut a segment");
    let lonc = host.lonc();
    let mut pair = Pair { lonc, fake, host, network };
    assert_eq!(pair.ask("critical:log:m-5"), "con_delayed");
    pair.come_back();
    let received = pair.fake.wait_received("log:", 5);
    assert_eq!(received, ["log:m-0", "log:m-1", "log:m-2", "log:m-3", "log:m-5"]);
}

/// A broker whose delayed directory is a small file system of its own, in a mount namespace of its
/// own; nothing where that cannot be had.
fn on_its_own_file_system(options: &str) -> Option<Pair> {
    let can =
        root() && Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
    if !can {
        crate::common::skipped("a mount namespace needs root and unshare");
        return None;
    }
    let mut prepared = Pair::prepare(
        |host| {
            host.set("lonc", "spool_keep_free", "0");
            fs::create_dir_all(host.dir.join("delayed")).expect("make a folder");
        },
        |_| {},
    );
    // The broker of that arrangement makes way for one in its own namespace.
    let Pair { lonc, fake, host, network } = prepared;
    lonc.stop();
    let plain = host.command("lonc");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c"]);
    command.arg(format!("mount -t tmpfs -o {options} tmpfs \"$0\" && exec \"$@\""));
    command.arg(host.dir.join("delayed")).arg(plain.get_program()).args(plain.get_args());
    let lonc = host.start(command, "lonc");
    prepared = Pair { lonc, fake, host, network };
    prepared.host.wait_link(CALLED, "down");
    Some(prepared)
}

#[test]
fn a_disk_that_is_really_full_refuses_what_it_cannot_keep_and_delivers_the_rest() {
    let Some(mut pair) = on_its_own_file_system("size=4m") else { return };
    let filler = "x".repeat(50_000);
    let mut client = pair.host.connect(CALLED);
    let mut kept = Vec::new();
    let mut refused = 0;
    for number in 0..120 {
        let message = format!("log:m-{number} {filler}");
        match client.ask(&format!("critical:{message}")).as_str() {
            "con_delayed" => kept.push(message),
            "con_failed" => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert!(!kept.is_empty() && refused > 0, "kept {}, refused {refused}", kept.len());
    pair.come_back();
    let received = pair.fake.wait_received("log:", kept.len());
    assert!(received == kept, "{} kept, {} received", kept.len(), received.len());
    wait::until_true("messages to be taken again", || client.ask("critical:log:after") == "ok");
}

#[test]
fn a_read_only_delayed_directory_refuses_critical_messages_and_serves_the_rest() {
    let Some(mut pair) = on_its_own_file_system("ro") else { return };
    assert_eq!(pair.ask("critical:log:nowhere to go"), "con_failed");
    pair.come_back();
    assert_eq!(pair.ask("echo:served"), "echo:served");
    assert_eq!(pair.ask("critical:log:direct"), "ok");
    pair.lonc.signal(Signal::SIGUSR1);
    assert_eq!(pair.ask("ping"), "msul1");
}
