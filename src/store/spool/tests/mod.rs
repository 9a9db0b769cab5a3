//! The spool as its caller sees it, on the disk model and on the real disk.

mod arrival;
mod arrived;
mod check;
mod damage;
mod dropped;
mod errors;
mod held;
mod many_arrive;
mod sequences;
mod shares;

use super::*;
use base::disk::{Fault, FaultyDisk, Keep};
use std::collections::BTreeMap;

const DIR: &str = "/delayed/msul1";
const SEGMENT: u64 = 1024;

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn limits() -> SpoolLimits {
    SpoolLimits { messages: 1_000_000, bytes: 1 << 30, keep_free: 0 }
}

fn new_disk() -> FaultyDisk {
    FaultyDisk::new(&[Path::new("/delayed")])
}

fn open(disk: &FaultyDisk) -> Spool<FaultyDisk> {
    Spool::open_with_segments(disk.clone(), Path::new(DIR), limits(), SEGMENT)
}

fn store<D: Disk>(spool: &mut Spool<D>, requests: &[&str]) -> Vec<Result<Sequence, StoreError>> {
    let requests: Vec<&[u8]> = requests.iter().map(|request| request.as_bytes()).collect();
    spool.store(&requests, now())
}

/// The same of one user.
fn store_as<D: Disk>(
    spool: &mut Spool<D>,
    user: Option<u32>,
    requests: &[&str],
) -> Vec<Result<Sequence, StoreError>> {
    let messages: Vec<_> = requests
        .iter()
        .map(|request| NewMessage { user, sequence: None, request: request.as_bytes() })
        .collect();
    spool.store_all(&messages, now())
}

/// The same, each of another user, so that no share but the bound itself is used up.
fn store_each<D: Disk>(spool: &mut Spool<D>, requests: &[&str]) -> Vec<Result<Sequence, StoreError>> {
    let each = (1000..).zip(requests);
    each.map(|(user, request)| store_as(spool, Some(user), &[request]).remove(0)).collect()
}

fn store_well<D: Disk>(spool: &mut Spool<D>, requests: &[&str]) -> Vec<Sequence> {
    store(spool, requests).into_iter().map(Result::unwrap).collect()
}

/// All that is unsent, as text; each is settled if asked for.
fn replay<D: Disk>(spool: &mut Spool<D>, settle: bool) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(message) = spool.next_unsent().unwrap() {
        found.push(String::from_utf8_lossy(&message.request).into_owned());
        if settle {
            spool.settle(message.sequence);
        }
    }
    found
}

fn segments(disk: &FaultyDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    disk.files().into_iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "seg")).collect()
}

/// Methods of the operations since `from`.
fn methods(disk: &FaultyDisk, from: usize) -> Vec<&'static str> {
    disk.operations()[from..].iter().map(|operation| operation.method).collect()
}

#[test]
fn what_is_stored_comes_out_in_order_until_it_is_settled() {
    let disk = new_disk();
    let mut spool = open(&disk);
    assert!(spool.is_empty() && !spool.has_unsent());
    assert_eq!(store_well(&mut spool, &["one", "two"]), [Sequence(1), Sequence(2)]);
    store_well(&mut spool, &["three"]);
    assert_eq!(
        spool.waiting(),
        Waiting { messages: 3, bytes: 11, oldest: Some(now()), failed: 0, corrupt: 0 }
    );
    assert_eq!(replay(&mut spool, false), ["one", "two", "three"]);
    assert!(!spool.is_empty() && !spool.has_unsent());
    spool.settle(Sequence(2));
    spool.settle(Sequence(2));
    spool.settle(Sequence(99));
    assert_eq!(spool.waiting().messages, 2);
    spool.rewind();
    assert!(spool.has_unsent());
    assert_eq!(replay(&mut spool, true), ["one", "three"]);
    assert!(spool.is_empty());
    assert_eq!(spool.waiting(), Waiting::default());
}

#[test]
fn a_batch_is_one_write_and_one_sync_and_the_next_segment_was_made_ahead() {
    let disk = new_disk();
    let mut spool = open(&disk);
    store_well(&mut spool, &["the segment is made with the first"]);
    let from = disk.operations().len();
    store_well(&mut spool, &["a", "b", "c", "d"]);
    assert_eq!(methods(&disk, from), ["metadata", "write_at", "sync_data"]);
    let long = "x".repeat(400);
    store_well(&mut spool, &[&long]);
    assert!(disk.files().contains_key(&Path::new(DIR).join("spare")), "made at three quarters");
    let from = disk.operations().len();
    store_well(&mut spool, &[&long]);
    let taken = ["metadata", "rename", "open", "sync_dir", "write_at", "sync_data"];
    assert_eq!(methods(&disk, from), taken, "no zeros are written while a caller waits");
    assert_eq!(segments(&disk).len(), 2);
}

#[test]
fn what_is_on_the_link_already_is_not_given_out() {
    let disk = new_disk();
    let mut spool = open(&disk);
    store_well(&mut spool, &["one", "two", "three"]);
    spool.sent_through(Sequence(2));
    assert_eq!(spool.next_unsent().unwrap().unwrap().sequence, Sequence(3));
    spool.settle(Sequence(1));
    spool.rewind();
    assert_eq!(replay(&mut spool, false), ["two", "three"]);
}

#[test]
fn no_sequence_comes_twice_though_all_was_delivered_and_the_process_restarted() {
    let disk = new_disk();
    let mut last = 0;
    for round in 0..5 {
        let mut spool = open(&disk);
        let epoch = spool.epoch().to_owned();
        let stored = store_well(&mut spool, &["x"; 30]);
        assert!(stored[0].0 > last, "round {round}");
        last = stored[29].0;
        replay(&mut spool, true);
        drop(spool);
        disk.restart(Keep::All);
        let spool = open(&disk);
        assert!(spool.is_empty());
        assert_eq!(spool.epoch(), epoch);
        assert_eq!(segments(&disk).len(), 1, "an empty one for what comes");
    }
}

#[test]
fn a_request_larger_than_a_segment_gets_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("delayed/msul1");
    let big = vec![b'b'; 2 * 1024 * 1024];
    let mut spool = Spool::open(RealDisk, &dir, limits());
    let results = spool.store(&[b"before", &big, b"after", &vec![0; MAX_REQUEST + 1], b"two\nlines"], now());
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    assert!(matches!(results[3], Err(StoreError::TooLong { .. })));
    assert!(matches!(results[4], Err(StoreError::NotOneLine)));
    let mut spool = Spool::open(RealDisk, &dir, limits());
    let lengths: Vec<usize> = replay(&mut spool, true).iter().map(String::len).collect();
    assert_eq!(lengths, [6, big.len(), 5]);
}

#[test]
fn each_bound_refuses_with_its_cause_and_the_spool_goes_on_when_there_is_room() {
    let disk = new_disk();
    let bounds = SpoolLimits { messages: 3, ..limits() };
    let mut spool = Spool::open_with_segments(disk, Path::new(DIR), bounds, SEGMENT);
    let results = store_each(&mut spool, &["1", "2", "3", "4"]);
    assert!(matches!(results[3], Err(StoreError::Full(Full::Messages { limit: 3 }))));
    replay(&mut spool, true);
    store_well(&mut spool, &["5"]);

    let disk = new_disk();
    let bounds = SpoolLimits { bytes: 16384, ..limits() };
    let mut spool = Spool::open_with_segments(disk.clone(), Path::new(DIR), bounds, 4096);
    let long = "x".repeat(1000);
    let results = store_each(&mut spool, &[long.as_str(); 20]);
    assert!(matches!(results[19], Err(StoreError::Full(Full::Bytes { .. }))));
    let stored = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(replay(&mut spool, true).len(), stored);
    store_well(&mut spool, &[&long, &long]);
    assert!(disk.files().values().map(|bytes| bytes.len() as u64).sum::<u64>() <= 16384 + 100);

    let disk = new_disk();
    disk.set_free_space(64 * 1024);
    let bounds = SpoolLimits { keep_free: 64 * 1024, ..limits() };
    let mut spool = Spool::open_with_segments(disk.clone(), Path::new(DIR), bounds, SEGMENT);
    let results = store(&mut spool, &["x"]);
    let text = results[0].as_ref().unwrap_err().to_string();
    assert!(text.contains("65536 must stay free") && text.ends_with("message refused"), "{text}");
    disk.set_free_space(1024 * 1024);
    store_well(&mut spool, &["x"]);
}

#[test]
fn a_small_bound_still_leaves_room_for_segments() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = SpoolLimits { bytes: 100_000, ..limits() };
    let mut spool = Spool::open(RealDisk, &folder.path().join("msul1"), bounds);
    for _ in 0..2000 {
        store_well(&mut spool, &["a message of some length, so that segments roll over"]);
        replay(&mut spool, true);
    }
}

#[test]
fn a_bound_is_of_four_segments_at_least_and_may_be_reached_exactly() {
    let disk = new_disk();
    let bounds = SpoolLimits { bytes: 40_000, ..limits() };
    let mut spool = Spool::open_with_segments(disk.clone(), Path::new(DIR), bounds, 1 << 20);
    let long = "x".repeat(9_000);
    let stored = store_each(&mut spool, &[long.as_str(); 5]);
    let sizes: Vec<usize> = segments(&disk).values().map(Vec::len).collect();
    assert_eq!(sizes, [10_000; 4]);
    assert!(matches!(stored[4], Err(StoreError::Full(Full::Bytes { .. }))));
    // The same for what is to stay free.
    let disk = new_disk();
    disk.set_free_space(5 * SEGMENT);
    let bounds = SpoolLimits { keep_free: 4 * SEGMENT, ..limits() };
    let mut spool = Spool::open_with_segments(disk.clone(), Path::new(DIR), bounds, SEGMENT);
    store_well(&mut spool, &["x"]);
    let disk = new_disk();
    disk.set_free_space(5 * SEGMENT - 1);
    let mut spool = Spool::open_with_segments(disk, Path::new(DIR), bounds, SEGMENT);
    assert!(matches!(store(&mut spool, &["x"])[0], Err(StoreError::Full(Full::FileSystem { .. }))));
}

#[test]
fn the_longest_request_is_stored_and_no_longer_one() {
    let disk = new_disk();
    let mut spool = open(&disk);
    let mut long = vec![b'x'; MAX_REQUEST];
    assert!(spool.store(&[&long], now())[0].is_ok());
    assert_eq!(spool.next_unsent().unwrap().unwrap().request.len(), MAX_REQUEST);
    assert_eq!(open(&disk).next_unsent().unwrap().unwrap().request.len(), MAX_REQUEST, "after a start too");
    long.push(b'x');
    assert!(matches!(spool.store(&[&long], now())[0], Err(StoreError::TooLong { .. })));
}

#[test]
fn after_a_failed_sync_the_segment_is_left_and_the_refused_do_not_come() {
    let disk = new_disk();
    let mut spool = open(&disk);
    store_well(&mut spool, &["kept"]);
    let from = disk.operations().len();
    disk.plan(from + 2, Fault::Fail(libc::EIO));
    let results = store(&mut spool, &["refused 1", "refused 2"]);
    assert_eq!(methods(&disk, from)[2], "sync_data");
    let text = results[0].as_ref().unwrap_err().to_string();
    assert!(text.starts_with("sync /delayed/msul1/00000000000000000001.seg: "), "{text}");
    assert!(matches!(results[1], Err(StoreError::Disk(_))));
    assert_eq!(
        replay(&mut open(&disk.fork()), true),
        ["kept"],
        "a process that starts now does not see them"
    );
    let from = disk.operations().len();
    assert_eq!(store_well(&mut spool, &["next"]), [Sequence(4)]);
    let old = spool.segment_path(Sequence(1));
    assert!(
        !disk.operations()[from..]
            .iter()
            .any(|operation| operation.path == old && operation.method != "metadata")
    );
    for keep in [Keep::All, Keep::Nothing, Keep::Some(1), Keep::Some(2), Keep::Some(3)] {
        let disk = disk.fork();
        disk.restart(keep);
        assert_eq!(replay(&mut open(&disk), true), ["kept", "next"], "{keep:?}");
    }
    assert_eq!(replay(&mut spool, true), ["kept", "next"]);
}

#[test]
fn a_read_only_file_system_refuses_with_its_cause_and_works_again_afterwards() {
    let disk = new_disk();
    let mut spool = open(&disk);
    store_well(&mut spool, &["one"]);
    disk.plan(disk.operations().len(), Fault::FailFrom(libc::EROFS));
    for _ in 0..3 {
        let text = store(&mut spool, &["two"])[0].as_ref().unwrap_err().to_string();
        assert!(text.contains("Read-only file system"), "{text}");
    }
    // So does a process that starts meanwhile.
    let copy = disk.fork();
    copy.plan(0, Fault::FailFrom(libc::EROFS));
    let mut other = open(&copy);
    assert!(other.trouble().is_some());
    assert!(store(&mut other, &["two"])[0].is_err());
    assert_eq!(other.waiting().messages, 1, "counted, though not sent");
    assert!(other.next_unsent().is_err());
    disk.heal();
    store_well(&mut spool, &["three"]);
    assert_eq!(replay(&mut spool, true), ["one", "three"]);
}

#[test]
fn a_folder_that_is_taken_away_is_made_anew() {
    let disk = new_disk();
    let mut spool = open(&disk);
    store_well(&mut spool, &["lost with the folder"]);
    let epoch = spool.epoch().to_owned();
    disk.take_away(Path::new("/delayed"));
    assert_eq!(store_well(&mut spool, &["two"]), [Sequence(2)]);
    assert_ne!(spool.epoch(), epoch);
    disk.restart(Keep::Nothing);
    assert_eq!(replay(&mut open(&disk), true), ["two"]);
}

#[test]
fn a_folder_that_cannot_be_made_refuses_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("delayed");
    std::fs::write(&blocked, "not a folder").unwrap();
    let mut spool = Spool::open(RealDisk, &blocked.join("msul1"), limits());
    assert!(spool.trouble().is_some() && spool.is_empty());
    let text = store(&mut spool, &["x"])[0].as_ref().unwrap_err().to_string();
    assert!(text.contains("Not a directory"), "{text}");
    std::fs::remove_file(&blocked).unwrap();
    store_well(&mut spool, &["x"]);
    assert!(spool.trouble().is_none());
    assert_eq!(replay(&mut spool, true), ["x"]);
}

#[test]
fn a_refused_message_goes_to_a_file_that_a_person_can_read_and_is_counted_once() {
    let disk = new_disk();
    let mut spool = open(&disk);
    let automatic = format!("critical;key={}:do:something", base::Key::automatic().unwrap());
    store_well(&mut spool, &[&automatic, "next"]);
    let message = spool.next_unsent().unwrap().unwrap();
    spool.set_aside(message.sequence, &message.request, b"unknown_cmd", now()).unwrap();
    let path = Path::new(DIR).join("failed/00000000000000000001");
    let text = "refused 2026-03-01T12:00:00.000000Z\nanswer  unknown_cmd\nrequest do:something\n";
    assert_eq!(disk.files()[&path], text.as_bytes());
    assert_eq!((spool.waiting().failed, spool.waiting().messages), (1, 1));
    // The mark is lost, the file is not: it comes again and is refused again.
    disk.restart(Keep::Nothing);
    let mut spool = open(&disk);
    assert_eq!(spool.waiting().failed, 1);
    let message = spool.next_unsent().unwrap().unwrap();
    spool.set_aside(message.sequence, &message.request, b"unknown_cmd", now()).unwrap();
    assert_eq!(spool.waiting().failed, 1);
    assert_eq!(replay(&mut spool, true), ["next"]);
}

#[test]
fn an_epoch_that_is_damaged_is_set_aside_and_a_new_one_begins() {
    let disk = new_disk();
    let old = open(&disk).epoch().to_owned();
    assert_eq!(old.len(), 32);
    disk.put(&Path::new(DIR).join("epoch"), b"nonsense");
    let spool = open(&disk);
    assert_ne!(spool.epoch(), old);
    assert_eq!(spool.waiting().corrupt, 1);
    assert_eq!(open(&disk).epoch(), spool.epoch());
}

#[test]
fn a_hundred_thousand_messages_are_read_one_segment_at_a_time_and_leave_no_segment_behind() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("delayed/msul1");
    let count = || std::fs::read_dir(&dir).unwrap().count();
    let mut spool = Spool::open(RealDisk, &dir, limits());
    let mut number = 0u64;
    for _ in 0..1000 {
        let requests: Vec<String> = (0..100).map(|index| format!("message {}", number + index)).collect();
        let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
        store_well(&mut spool, &requests);
        number += 100;
        assert!(spool.queue.located() <= 1 && spool.window.bytes.is_empty(), "the backlog stays on disk");
    }
    let full = count();
    assert!(full > 8, "{full} names");
    let mut spool = Spool::open(RealDisk, &dir, limits());
    assert_eq!(spool.waiting().messages, 100_000);
    let mut next = 0u64;
    let mut window = VecDeque::new();
    while let Some(message) = spool.next_unsent().unwrap() {
        assert_eq!(message.request, format!("message {next}").as_bytes());
        next += 1;
        window.push_back(message.sequence);
        if window.len() == 64 {
            spool.settle(window.pop_front().unwrap());
        }
        assert!(spool.queue.located() <= 64);
        assert!(spool.window.bytes.len() as u64 <= SEGMENT_BYTES);
    }
    assert_eq!(next, 100_000);
    for sequence in window {
        spool.settle(sequence);
    }
    assert!(spool.is_empty() && spool.window.bytes.is_empty());
    let left: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let left = left.iter().filter(|name| name.to_string_lossy().ends_with(".seg")).count();
    assert_eq!(left, 1);
}
