//! Files that other programs drop into the delayed directory, as the original's do.

use crate::common::network::{Host, root};
use crate::common::pair::{CALLED, Pair};
use crate::common::{process, wait};
use nix::fcntl::{AT_FDCWD, RenameFlags};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

fn path(host: &Host, name: &str) -> PathBuf {
    host.dir.join("delayed").join(name)
}

fn drop_in(host: &Host, name: &str, text: &str) {
    fs::create_dir_all(host.dir.join("delayed")).expect("make the folder");
    fs::write(path(host, name), text).expect("drop a file in");
}

/// A file in `corrupt/` that was dropped in by this name.
fn aside(pair: &Pair, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(pair.host.spool(CALLED).join("corrupt")).ok()?.flatten();
    let end = format!(".{name}");
    entries.map(|entry| entry.path()).find(|path| path.to_string_lossy().ends_with(&end))
}

#[test]
fn files_that_were_there_before_the_start_are_sent_in_the_order_of_their_names() {
    let pair = Pair::prepare(
        |host| {
            drop_in(host, "1700000000.20_c.msul1", "log:third\n");
            drop_in(host, "1700000000.03_a.msul1", "log:first\n");
            drop_in(host, "1700000000.10_b.msul1", "log:second\nonly the first line counts\n");
        },
        |fake| fake.listen(),
    );
    assert_eq!(pair.fake.wait_received("log:", 3), ["log:first", "log:second", "log:third"]);
    wait::until_true("the files to be gone", || {
        ["1700000000.20_c.msul1", "1700000000.03_a.msul1", "1700000000.10_b.msul1"]
            .iter()
            .all(|name| !path(&pair.host, name).exists())
    });
    wait::until_true("the perm log", || {
        let log = pair.host.log("lonnet.perm.log");
        [":S:msul1:log:first:", ":S:msul1:log:second:", ":S:msul1:log:third:"]
            .iter()
            .all(|part| log.contains(part))
    });
}

#[test]
fn a_file_that_appears_while_the_link_is_up_is_sent_at_once() {
    let pair = Pair::up();
    drop_in(&pair.host, "written.msul1", "log:written\n");
    pair.fake.wait_received("log:written", 1);
    let elsewhere = pair.network.dir().join("being-made");
    fs::write(&elsewhere, "log:renamed\n").expect("write a file");
    fs::rename(&elsewhere, path(&pair.host, "renamed.msul1")).expect("move it in");
    pair.fake.wait_received("log:renamed", 1);
    assert_eq!(pair.fake.received("log:").len(), 2);
}

#[test]
fn files_dropped_in_while_the_host_is_away_are_kept_and_sent_when_it_is_back() {
    let mut pair = Pair::down();
    assert_eq!(pair.ask("critical:log:asked first"), "con_delayed");
    for number in 0..20 {
        drop_in(&pair.host, &format!("{number:02}.msul1"), &format!("log:m-{number}\n"));
    }
    wait::until_true("the files to be taken in", || {
        pair.host.status(CALLED).is_some_and(|status| status["delayed"] == 21)
    });
    pair.come_back();
    let received = pair.fake.wait_received("log:", 21);
    assert_eq!(received[0], "log:asked first");
    // Taken in as they appear, one by one or several together in the order of their names: written
    // in that order, they arrive in it.
    let expected: Vec<_> = (0..20).map(|number| format!("log:m-{number}")).collect();
    assert_eq!(received[1..], expected);
}

#[test]
fn a_thousand_files_dropped_in_while_child_and_supervisor_are_killed_arrive_all_and_in_order() {
    let mut pair = Pair::up();
    let files = 1000;
    for number in 0..files {
        let hidden = path(&pair.host, ".being-made");
        fs::write(&hidden, format!("log:m-{number:04}\n")).expect("write a file");
        fs::rename(&hidden, path(&pair.host, &format!("{number:04}.msul1"))).expect("move it in");
        match number % 250 {
            50 | 100 | 150 => {
                pair.lonc
                    .children()
                    .first()
                    .iter()
                    .for_each(|child| process::signal(**child, Signal::SIGKILL));
            }
            200 => pair = pair.kill_and_restart(),
            _ => {}
        }
    }
    let arrived = || {
        let mut seen = BTreeSet::new();
        // Those that were on their way when a process died may come twice.
        pair.fake.received("log:m-").into_iter().filter(|line| seen.insert(line.clone())).collect::<Vec<_>>()
    };
    wait::until_true("all of them", || arrived().len() == files);
    assert!(arrived().is_sorted(), "one was overtaken: {:?}", arrived());
    let left = |folder: PathBuf| {
        let entries = fs::read_dir(folder).expect("a folder").flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|end| end == CALLED)).count()
    };
    wait::until_true("the files to be gone", || {
        left(pair.host.dir.join("delayed")) + left(pair.host.spool(CALLED).join("dropped")) == 0
    });
}

#[test]
fn a_file_that_asks_to_be_enciphered_is() {
    let pair = Pair::up();
    drop_in(&pair.host, "secret.msul1", "encrypt:log:secret delayed\n");
    pair.fake.wait_received("log:secret", 1);
    let lines: Vec<_> = pair.fake.requests().into_iter().map(|seen| seen.line).collect();
    assert_eq!(lines, [b"enc:18:6f5e9db1c3c85cd30b5859a52d41f4ac9f3b375ab2d09744"]);
}

#[test]
fn a_file_that_is_still_being_written_is_not_sent_before_it_is_whole() {
    let pair = Pair::up();
    let name = path(&pair.host, "slowly.msul1");
    let mut file = fs::File::create(&name).expect("create a file");
    file.write_all(b"log:first half").expect("write");
    file.sync_all().expect("sync");
    drop_in(&pair.host, "other.msul1", "log:other\n");
    pair.fake.wait_received("log:other", 1);
    file.write_all(b", second half\n").expect("write");
    drop(file);
    pair.fake.wait_received("log:first half, second half", 1);
    assert_eq!(pair.fake.received("log:first half").len(), 1);
}

#[test]
fn files_for_other_hosts_and_hidden_files_are_left_alone() {
    let pair = Pair::up();
    let others = [".hidden.msul1", "message.stranger", "message.msul1.tmp"];
    for name in others {
        drop_in(&pair.host, name, "log:not to be sent\n");
    }
    drop_in(&pair.host, "message.msul1", "log:to be sent\n");
    pair.fake.wait_received("log:to be sent", 1);
    assert_eq!(pair.fake.received("log:").len(), 1);
    for name in others {
        assert!(path(&pair.host, name).exists(), "{name} is gone");
    }
}

#[test]
fn lon_critical_stores_a_file_while_the_broker_is_away_and_it_arrives_later() {
    let pair = Pair::up();
    let crate::common::pair::Pair { lonc, fake, host, network } = pair;
    lonc.stop();
    for number in 0..3 {
        let output = host.lon(&["critical", CALLED, &format!("log:offline-{number}")]);
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        assert_eq!(output.stdout, b"con_delayed\n");
    }
    let lonc = host.lonc();
    let pair = Pair { lonc, fake, host, network };
    let expected: Vec<_> = (0..3).map(|number| format!("log:offline-{number}")).collect();
    assert_eq!(pair.fake.wait_received("log:offline", 3), expected);
}

#[test]
fn a_file_that_is_no_message_is_set_aside_and_the_next_one_is_sent() {
    let pair = Pair::up();
    let huge = "x".repeat(17 << 20);
    drop_in(&pair.host, "a-huge.msul1", &huge);
    drop_in(&pair.host, "b-blank.msul1", "\n");
    drop_in(&pair.host, "c-good.msul1", "log:good\n");
    pair.fake.wait_received("log:good", 1);
    wait::until_true("the others to be set aside", || {
        !path(&pair.host, "a-huge.msul1").exists() && !path(&pair.host, "b-blank.msul1").exists()
    });
    let sizes = || {
        let corrupt = fs::read_dir(pair.host.spool(CALLED).join("corrupt")).expect("a folder corrupt");
        let sizes = corrupt.flatten().map(|entry| entry.metadata().expect("a file").len());
        sizes.collect::<BTreeSet<_>>()
    };
    wait::until_true("both to be in corrupt/", || sizes() == [1, huge.len() as u64].into());
    let errors = || pair.host.log("lonc.log").lines().filter(|line| line.contains("ERROR")).count();
    wait::until_true("a line in the log for each", || errors() == 2);
    assert_eq!(pair.fake.requests().len(), 1);
}

#[test]
fn a_file_that_may_not_be_read_is_set_aside_and_the_next_one_is_sent() {
    if root() {
        crate::common::skipped("root may read everything");
        return;
    }
    let pair = Pair::up();
    let elsewhere = pair.network.dir().join("unreadable");
    fs::write(&elsewhere, "log:unreadable\n").expect("write a file");
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o000)).expect("take the permissions away");
    fs::rename(&elsewhere, path(&pair.host, "a-unreadable.msul1")).expect("move it in");
    drop_in(&pair.host, "b-good.msul1", "log:good\n");
    pair.fake.wait_received("log:good", 1);
    wait::until_true("the file to be set aside", || !path(&pair.host, "a-unreadable.msul1").exists());
}

#[test]
fn a_file_with_several_lines_sends_the_first_and_is_set_aside_for_the_others_with_a_line_in_the_log() {
    let pair = Pair::up();
    drop_in(&pair.host, "three.msul1", "log:first\nlog:second\nlog:third\n");
    assert_eq!(pair.fake.wait_received("log:", 1), ["log:first"]);
    let text =
        wait::until("the file to be set aside", || fs::read_to_string(aside(&pair, "three.msul1")?).ok());
    assert_eq!(text, "log:first\nlog:second\nlog:third\n");
    assert!(!path(&pair.host, "three.msul1").exists());
    let log = pair.host.log("lonc.log");
    assert!(log.contains("ERROR take in") && log.contains("more than its first line"), "{log}");
    wait::until_true("the status to count it", || {
        pair.host.status(CALLED).is_some_and(|status| status["corrupt"] == 1)
    });
}

#[test]
fn whoever_swaps_a_file_for_other_things_as_it_is_moved_holds_up_no_other_and_leaves_nothing() {
    let pair = Pair::up();
    let [file, other] = ["0.msul1", ".other"].map(|name| path(&pair.host, name));
    let elsewhere = pair.network.dir().join("elsewhere");
    fs::write(&elsewhere, "log:elsewhere\n").expect("write a file");
    let done = AtomicBool::new(false);
    let exchange = || {
        let flags = RenameFlags::RENAME_EXCHANGE;
        let _ = nix::fcntl::renameat2(AT_FDCWD, &file, AT_FDCWD, &other, flags);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in (0_u32..).take_while(|_| !done.load(Ordering::Relaxed)) {
                // Once it was moved, by whichever name, there is a new one.
                if let Ok(mut new) = fs::File::create_new(&file) {
                    let _ = new.write_all(b"log:swapped\n");
                }
                if round % 2 == 0 {
                    let _ = std::os::unix::fs::symlink(&elsewhere, &other);
                } else if fs::create_dir(&other).is_ok() {
                    let _ = fs::set_permissions(&other, fs::Permissions::from_mode(0o555));
                }
                (0..50).for_each(|_| exchange());
            }
        });
        for number in 0..100 {
            drop_in(&pair.host, &format!("{number:03}.msul1"), &format!("log:good-{number}\n"));
        }
        pair.fake.wait_received("log:good-", 100);
        done.store(true, Ordering::Relaxed);
    });
    let expected: Vec<_> = (0..100).map(|number| format!("log:good-{number}")).collect();
    assert_eq!(pair.fake.received("log:good-"), expected);
    for path in [&file, &other] {
        let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
    }
    let left = || {
        let left = fs::read_dir(pair.host.spool(CALLED).join("dropped")).expect("a folder").flatten();
        let names = left.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.starts_with('.')).collect::<Vec<_>>()
    };
    wait::until_true("nothing to be left", || left().is_empty());
    assert_eq!(fs::read(&elsewhere).expect("read a file"), b"log:elsewhere\n");
}

#[test]
fn files_whose_names_are_no_text_are_sent_and_what_is_no_file_is_said_to_be_left() {
    let pair = Pair::up();
    let name = OsStr::from_bytes(b"\xff\xfe.msul1");
    fs::write(pair.host.dir.join("delayed").join(name), "log:no text\n").expect("drop a file in");
    pair.fake.wait_received("log:no text", 1);
    fs::create_dir(path(&pair.host, "folder.msul1")).expect("make a folder");
    wait::until_true("a line in the log", || {
        let line = "folder.msul1 is no plain file, and is left alone";
        pair.host.log("lonc.log").contains(line)
    });
}

#[test]
fn a_hard_link_to_a_file_that_its_maker_may_not_read_is_set_aside_and_not_sent() {
    let pair = Pair::up();
    let secret = pair.host.dir.join("keys.secret");
    fs::write(&secret, "log:the secret\n").expect("write a file");
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    fs::File::options().append(true).open(&secret).expect("open").set_modified(old).expect("make it old");
    fs::hard_link(&secret, path(&pair.host, "a-link.msul1")).expect("link it in");
    std::os::unix::fs::symlink(&secret, path(&pair.host, "b-link.msul1")).expect("link it in");
    drop_in(&pair.host, "c-good.msul1", "log:good\n");
    assert_eq!(pair.fake.wait_received("log:", 1), ["log:good"]);
    wait::until_true("the link to be set aside", || aside(&pair, "a-link.msul1").is_some());
    wait::until_true("a line in the log", || pair.host.log("lonc.log").contains("another name"));
    assert_eq!(pair.fake.received("log:"), ["log:good"]);
    assert!(secret.exists());
}
