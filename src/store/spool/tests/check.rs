//! What a check says, against what a start does.

use super::*;
use crate::spool::{Finding, MAX_REQUEST, Tally, Told, check, check_dropped};
use jiff::SignedDuration;
use std::cell::Cell;

/// What a check came to.
struct Checked {
    tally: Tally,
    waits: Vec<String>,
    findings: Vec<Finding>,
}

fn run(disk: &FaultyDisk) -> Checked {
    run_pausing(disk, &mut || {})
}

fn run_pausing(disk: &FaultyDisk, pause: &mut dyn FnMut()) -> Checked {
    let (mut waits, mut findings) = (Vec::new(), Vec::new());
    let tally = check(&mut disk.clone(), Path::new(DIR), pause, &mut |told| match told {
        Told::Waits(record) => waits.push(String::from_utf8_lossy(record.request).into_owned()),
        Told::Finding(finding) => findings.push(finding),
    });
    Checked { tally: tally.unwrap(), waits, findings }
}

/// Segments with settled, refused and waiting messages, some damage that was set aside, an epoch.
fn sample() -> FaultyDisk {
    let disk = new_disk();
    let mut spool = Spool::open_with_segments(disk.clone(), Path::new(DIR), limits(), 512);
    store_well(
        &mut spool,
        &["the first", "second, settled", "third, refused", "4", "a fifth message of some length"],
    );
    store_well(&mut spool, &["6", "seven", "8th"]);
    for _ in 0..3 {
        spool.next_unsent().unwrap();
    }
    spool.settle(Sequence(2));
    spool.set_aside(Sequence(3), b"third, refused", b"refused", now()).unwrap();
    let last = segments(&disk).into_keys().next_back().unwrap();
    let mut bytes = disk.files()[&last].clone();
    let place = bytes.iter().position(|byte| *byte == b'\n').unwrap() - 1;
    bytes[place] ^= 1;
    disk.put(&last, &bytes);
    drop(open(&disk));
    assert_eq!(corrupt_files(&disk), 1);
    assert!(segments(&disk).len() >= 3);
    disk
}

fn corrupt_files(disk: &FaultyDisk) -> usize {
    let folder = Path::new(DIR).join("corrupt");
    disk.files().keys().filter(|path| path.starts_with(&folder)).count()
}

/// Holds what a check says of the disk against what a start does with it.
fn compare(disk: &FaultyDisk, context: &str) -> bool {
    let (files, operations) = (disk.files(), disk.operations().len());
    let checked = run(disk);
    assert_eq!(disk.files(), files, "{context}: a check changes nothing");
    let read_only = ["list", "metadata", "open", "describe", "read_at"];
    let changing = |method: &&str| !read_only.contains(method);
    assert_eq!(methods(disk, operations).into_iter().find(changing), None, "{context}");
    let aside = corrupt_files(disk);
    let mut spool = open(disk);
    assert_eq!(spool.waiting().messages, checked.tally.waiting, "{context}");
    assert_eq!(replay(&mut spool, false), checked.waits, "{context}");
    let damaged = corrupt_files(disk) > aside;
    assert_eq!(checked.tally.damaged > 0, damaged, "{context}: {:?}", checked.findings);
    let reported = checked.findings.iter().filter(|finding| finding.damage).count();
    assert_eq!(
        (reported, checked.tally.damaged),
        (corrupt_files(disk) - aside, reported as u64),
        "{context}"
    );
    drop(spool);
    let again = run(disk);
    assert_eq!(again.tally.damaged, 0, "{context}: after a start all is set aside: {:?}", again.findings);
    assert_eq!(again.waits, checked.waits, "{context}");
    damaged
}

fn checked_files(disk: &FaultyDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let file = |path: &Path| path.extension().is_some_and(|end| end == "seg") || path.ends_with("epoch");
    disk.files().into_iter().filter(|(path, _)| path.parent() == Some(Path::new(DIR)) && file(path)).collect()
}

#[test]
fn a_check_of_every_flipped_byte_says_what_a_start_does() {
    let sample = sample();
    assert!(!compare(&sample.fork(), "as it is"));
    let (mut damaged, mut seen) = (0, 0);
    for (path, bytes) in checked_files(&sample) {
        for place in 0..bytes.len() {
            for change in [1 << (place % 8), bytes[place] ^ b'\n'] {
                let mut flipped = bytes.clone();
                flipped[place] ^= change;
                let disk = sample.fork();
                disk.put(&path, &flipped);
                seen += 1;
                let context = format!("{}: byte {place} changed by {change:#x}", path.display());
                damaged += usize::from(compare(&disk, &context));
            }
        }
    }
    assert!(seen > 1500 && damaged > 500, "{damaged} of {seen}");
}

#[test]
fn a_check_of_every_truncation_says_what_a_start_does() {
    let sample = sample();
    let mut damaged = 0;
    for (path, bytes) in checked_files(&sample) {
        for length in 0..bytes.len() {
            let disk = sample.fork();
            disk.put(&path, &bytes[..length]);
            damaged += usize::from(compare(&disk, &format!("{} cut at {length}", path.display())));
        }
    }
    assert!(damaged > 100, "{damaged}");
}

#[test]
fn a_finding_names_file_and_line_and_says_whether_a_copy_is_there() {
    let disk = new_disk();
    let mut spool = open(&disk);
    store_well(&mut spool, &["one", "two", "three"]);
    let (path, mut bytes) = segments(&disk).into_iter().next().unwrap();
    bytes[72 + 3 + 72] ^= 1;
    disk.put(&path, &bytes);
    let said =
        |disk: &FaultyDisk| -> Vec<String> { run(disk).findings.iter().map(Finding::to_string).collect() };
    let place = format!("{}:2: 75 bytes at 75 are damaged", path.display());
    assert_eq!(said(&disk), std::slice::from_ref(&place));
    drop(open(&disk));
    let copy = "00000000000000000001.seg@75";
    assert_eq!(said(&disk), [format!("{place}, and set aside as corrupt/{copy}")]);
    bytes[record::MARK_AT] = b'?';
    disk.put(&path, &bytes);
    assert!(said(&disk)[0].starts_with(&format!("{}:1: the progress mark", path.display())));
    let tally = run(&disk).tally;
    assert_eq!((tally.sound, tally.waiting, tally.damaged, tally.set_aside), (2, 2, 0, 1));
}

#[test]
fn what_a_start_passes_over_is_damage_to_a_check_and_what_it_leaves_alone_is_not() {
    let disk = new_disk();
    store_well(&mut open(&disk), &["one"]);
    disk.put(&Path::new(DIR).join("notes"), b"mine");
    disk.put(&Path::new(DIR).join("failed/7"), b"something else");
    disk.put(&Path::new(DIR).join("00000000000000000009.seg/file"), b"");
    let huge = vec![b'x'; segment::MAX_SEGMENT_BYTES as usize + 1];
    disk.put(&Path::new(DIR).join("00000000000000000010.seg"), &huge);
    let checked = run(&disk);
    assert_eq!(checked.waits, ["one"]);
    let names = |damage: bool| -> Vec<String> {
        let named = checked.findings.iter().filter(|finding| finding.damage == damage);
        named.map(|finding| finding.path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(names(true), ["00000000000000000009.seg", "00000000000000000010.seg"]);
    assert_eq!(names(false), ["notes", "7"]);
    assert_eq!((checked.tally.damaged, checked.tally.failed), (2, 1));
    assert_eq!(run(&new_disk()).tally, Tally::default(), "no folder, nothing wrong");
}

#[test]
fn a_line_that_is_being_written_is_no_damage() {
    let disk = new_disk();
    let mut spool = open(&disk);
    store_well(&mut spool, &["one", "two"]);
    let (path, whole) = segments(&disk).into_iter().next().unwrap();
    let mut half = whole.clone();
    half[100..].fill(0);
    disk.put(&path, &half);
    let pauses = Cell::new(0);
    let checked = run_pausing(&disk, &mut || {
        pauses.set(pauses.get() + 1);
        disk.put(&path, &whole);
    });
    assert_eq!((checked.tally.damaged, checked.waits), (0, vec!["one".to_owned(), "two".to_owned()]));
    assert_eq!(pauses.get(), 1);
    // A file that changes each time is given up, and what was read last counts.
    let mut length = 100;
    disk.put(&path, &half);
    let checked = run_pausing(&disk, &mut || {
        length += 1;
        disk.put(&path, &whole[..length]);
    });
    assert_eq!((checked.tally.damaged, length), (1, 104));
}

#[test]
fn a_check_of_dropped_files_says_what_taking_them_in_does() {
    let (young, old) = (SignedDuration::from_secs(1), SignedDuration::from_hours(1));
    let cases: [(&[u8], SignedDuration, bool, bool); 7] = [
        (b"ping\n", young, true, false),
        (b"", young, false, false),
        (b"", old, false, true),
        (b"\nping\n", young, false, true),
        (b"unfinished", young, false, false),
        (b"unfinished", old, true, false),
        (&[b'x'; MAX_REQUEST + 1], young, false, true),
    ];
    for (content, age, whole, damage) in cases {
        let disk = new_disk();
        let path = Path::new("/delayed/msul1/dropped/1.msul1");
        disk.set_now(now() - age);
        disk.put(path, content);
        let mut found = Vec::new();
        let mut tell = |finding| found.push(finding);
        assert_eq!(check_dropped(&mut disk.clone(), path, now(), &mut tell), whole, "{found:?}");
        assert_eq!(found.iter().any(|finding: &Finding| finding.damage), damage, "{found:?}");
        assert_eq!(found.is_empty(), whole);
        let taken = open(&disk).take_in(now());
        assert_eq!((taken.stored, taken.corrupt), (u64::from(whole), u64::from(damage)));
    }
}

#[test]
fn what_is_gone_while_a_check_runs_was_delivered_and_what_cannot_be_read_is_said() {
    let disk = sample();
    let findings = |disk: &FaultyDisk| {
        let found = run(disk).findings;
        found.into_iter().map(|one| (one.path, one.damage)).collect::<Vec<_>>()
    };
    let before = findings(&disk);
    assert!(before.iter().all(|(path, _)| !path.starts_with(Path::new(DIR).join("failed"))), "{before:?}");
    let first = segments(&disk).into_keys().next().unwrap();
    let refused =
        disk.files().into_keys().find(|path| path.starts_with(Path::new(DIR).join("failed"))).unwrap();
    for path in [&first, &refused] {
        disk.refuse("open", path, libc::ENOENT);
        assert_eq!(findings(&disk), before, "{path:?}");
        disk.refuse("open", path, libc::EIO);
        assert!(findings(&disk).contains(&(path.clone(), *path == first)));
        disk.heal();
    }
    disk.put(&Path::new(DIR).join("failed/.hidden"), b"");
    assert_eq!((findings(&disk), run(&disk).tally.failed), (before.clone(), 1));
    disk.refuse("list", &Path::new(DIR).join("failed"), libc::EIO);
    assert!(check(&mut disk.clone(), Path::new(DIR), &mut || {}, &mut |_| {}).is_err());
    disk.heal();
    disk.take_away(&Path::new(DIR).join("failed"));
    assert_eq!(findings(&disk), before, "a folder that is not there");
}

#[test]
fn an_epoch_that_is_gone_is_missed_where_there_are_messages_and_nowhere_else() {
    let disk = sample();
    let epoch = Path::new(DIR).join("epoch");
    let missed = |disk: &FaultyDisk| run(disk).findings.iter().filter(|one| one.path == epoch).count();
    assert_eq!(missed(&disk), 0);
    disk.take_away(&epoch);
    assert_eq!(missed(&disk), 1);
    for path in segments(&disk).into_keys() {
        disk.take_away(&path);
    }
    assert_eq!(missed(&disk), 0);
}
