//! Sequences given out before their messages are stored.

use super::*;
use crate::spool::epoch::RESERVED_AT_ONCE;
use crate::spool::layout::{self};

fn store_at(spool: &mut Spool<FaultyDisk>, requests: &[(u64, &str)]) -> Vec<Result<Sequence, StoreError>> {
    let requests: Vec<(Sequence, &[u8])> =
        requests.iter().map(|(sequence, request)| (Sequence(*sequence), request.as_bytes())).collect();
    spool.store_at(&requests, now())
}

fn out_of_order(results: &[Result<Sequence, StoreError>]) -> Vec<bool> {
    results.iter().map(|result| matches!(result, Err(StoreError::OutOfOrder { .. }))).collect()
}

#[test]
fn what_was_allocated_is_stored_under_its_sequence_and_gaps_stay_gaps() {
    let disk = new_disk();
    let mut spool = open(&disk);
    for expected in 1..=20 {
        assert_eq!(spool.allocate().unwrap(), Sequence(expected));
    }
    let long = "x".repeat(400);
    let stored = store_at(&mut spool, &[(2, "two"), (3, &long), (7, &long), (20, "twenty")]);
    assert!(stored.iter().all(Result::is_ok), "{stored:?}");
    assert_eq!(store_well(&mut spool, &["twenty-one"]), [Sequence(21)]);
    assert_eq!(segments(&disk).len(), 2, "a segment may begin at any sequence");
    assert!(segments(&disk).contains_key(&spool.segment_path(Sequence(20))));
    let mut again = open(&disk);
    assert_eq!(again.waiting().messages, 5);
    assert_eq!(replay(&mut again, true), ["two", long.as_str(), long.as_str(), "twenty", "twenty-one"]);
    assert_eq!(again.waiting(), Waiting::default());
}

#[test]
fn a_sequence_out_of_order_or_never_given_out_is_refused_alone() {
    let disk = new_disk();
    let mut spool = open(&disk);
    for _ in 0..9 {
        spool.allocate().unwrap();
    }
    let results = store_at(&mut spool, &[(4, "a"), (4, "b"), (3, "c"), (6, "d"), (10, "e"), (7, "f")]);
    assert_eq!(out_of_order(&results), [false, true, true, false, true, false]);
    let text = results[4].as_ref().unwrap_err().to_string();
    assert!(text.contains("10 is not among those from 00000000000000000007 to below"), "{text}");
    assert_eq!(store_well(&mut spool, &["g"]), [Sequence(10)]);
    assert_eq!(out_of_order(&store_at(&mut spool, &[(8, "h")])), [true]);
    assert_eq!(replay(&mut open(&disk), true), ["a", "d", "f", "g"]);
}

#[test]
fn a_store_under_given_sequences_that_failed_is_not_tried_again_and_higher_ones_are_stored() {
    let disk = new_disk();
    let mut spool = open(&disk);
    store_well(&mut spool, &["kept"]);
    for _ in 0..5 {
        spool.allocate().unwrap();
    }
    disk.plan(disk.operations().len() + 2, Fault::Fail(libc::EIO));
    let failed = store_at(&mut spool, &[(2, "refused"), (4, "refused too")]);
    assert!(failed.iter().all(|result| matches!(result, Err(StoreError::Disk(_)))), "{failed:?}");
    let results = store_at(&mut spool, &[(4, "again"), (5, "five")]);
    assert_eq!(out_of_order(&results), [true, false]);
    for keep in [Keep::All, Keep::Nothing, Keep::Some(1), Keep::Some(2), Keep::Some(3)] {
        let disk = disk.fork();
        disk.restart(keep);
        assert_eq!(replay(&mut open(&disk), true), ["kept", "five"], "{keep:?}");
    }
}

#[test]
fn a_block_is_reserved_by_one_new_file_and_a_start_goes_on_behind_it() {
    let disk = new_disk();
    let mut spool = open(&disk);
    let from = disk.operations().len();
    for _ in 0..RESERVED_AT_ONCE {
        spool.allocate().unwrap();
    }
    assert_eq!(methods(&disk, from), [""; 0], "the first block came with the epoch");
    spool.allocate().unwrap();
    assert_eq!(methods(&disk, from), ["create", "write_at", "sync_data", "rename", "sync_dir"]);
    let epoch = spool.epoch().to_owned();
    for keep in [Keep::All, Keep::Nothing, Keep::Some(5)] {
        let disk = disk.fork();
        disk.restart(keep);
        let mut spool = open(&disk);
        assert_eq!(spool.epoch(), epoch);
        let next = spool.allocate().unwrap();
        assert!(next > Sequence(RESERVED_AT_ONCE + 1), "{keep:?}: {next}");
        assert_eq!(store_well(&mut spool, &["x"]), [next.next()]);
    }
}

#[test]
fn what_cannot_be_reserved_is_not_given_out_and_the_cause_is_said() {
    let disk = new_disk();
    let mut spool = open(&disk);
    for _ in 0..RESERVED_AT_ONCE {
        spool.allocate().unwrap();
    }
    disk.plan(disk.operations().len(), Fault::FailFrom(libc::ENOSPC));
    for _ in 0..2 {
        let text = spool.allocate().unwrap_err().to_string();
        assert!(text.contains("No space left") && text.ends_with("message refused"), "{text}");
    }
    assert!(store(&mut spool, &["x"])[0].is_err(), "storing gives out sequences too");
    disk.heal();
    assert_eq!(spool.allocate().unwrap(), Sequence(RESERVED_AT_ONCE + 1));
    store_well(&mut spool, &["x"]);
}

#[test]
fn damage_to_a_line_behind_a_gap_does_not_bring_its_sequence_back() {
    let disk = new_disk();
    let mut spool = open(&disk);
    store_well(&mut spool, &["one"]);
    for _ in 0..3 * RESERVED_AT_ONCE {
        spool.allocate().unwrap();
    }
    let last = store_well(&mut spool, &["far behind the gap"])[0];
    let path = spool.segment_path(Sequence(1));
    let mut bytes = disk.files()[&path].clone();
    let place = bytes.windows(3).position(|part| part == b"far").unwrap();
    bytes[place] ^= 1;
    disk.put(&path, &bytes);
    let mut spool = open(&disk);
    assert_eq!(replay(&mut spool, false), ["one"]);
    assert!(spool.allocate().unwrap() > last);
    assert!(store_well(&mut spool, &["new"])[0] > last);
    assert_eq!(replay(&mut spool, true), ["new"]);
}

#[test]
fn a_changed_reservation_is_noticed_and_a_new_epoch_begins() {
    let disk = new_disk();
    let old = open(&disk).epoch().to_owned();
    let path = Path::new(DIR).join("epoch");
    let whole = disk.files()[&path].clone();
    for place in 0..whole.len() {
        let disk = disk.fork();
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        disk.put(&path, &bytes);
        let spool = open(&disk);
        assert!(spool.trouble().is_none());
        assert_ne!(spool.epoch(), old, "byte {place}");
        assert_eq!(spool.waiting().corrupt, 1);
    }
}

#[test]
fn settled_below_is_the_least_that_waits_and_else_the_next() {
    let disk = new_disk();
    let mut spool = open(&disk);
    assert_eq!(spool.settled_below(), Sequence(1));
    spool.allocate().unwrap();
    assert_eq!(spool.settled_below(), Sequence(2), "the caller knows of it");
    let texts = vec!["x".repeat(100); 15];
    store_well(&mut spool, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(spool.settled_below(), Sequence(2));
    let mut sent = Vec::new();
    while let Some(message) = spool.next_unsent().unwrap() {
        sent.push(message.sequence);
    }
    spool.settle(sent[1]);
    assert_eq!(spool.settled_below(), Sequence(2));
    spool.settle(sent[0]);
    assert_eq!(spool.settled_below(), sent[2]);
    spool.rewind();
    assert_eq!(spool.settled_below(), sent[2]);
    for sequence in &sent[2..] {
        spool.settle(*sequence);
    }
    assert_eq!(spool.settled_below(), Sequence(17));
}

#[test]
fn settled_below_stays_under_a_segment_that_cannot_be_read() {
    let disk = new_disk();
    let mut spool = open(&disk);
    let texts = vec!["x".repeat(100); 15];
    store_well(&mut spool, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    let paths: Vec<PathBuf> = segments(&disk).into_keys().collect();
    let second = layout::parse_segment_name(&paths[1].file_name().unwrap().to_string_lossy()).unwrap();
    let bytes = disk.files()[&paths[1]].clone();
    // Larger than any segment.
    disk.put(&paths[1], &vec![0; segment::MAX_SEGMENT_BYTES as usize + 1]);
    let mut spool = open(&disk);
    assert_eq!(spool.settled_below(), Sequence(1));
    for _ in 0..5 {
        let message = spool.next_unsent().unwrap().unwrap();
        spool.settle(message.sequence);
    }
    assert_eq!(spool.settled_below(), second, "its turn has not come");
    for _ in 0..reread::READ_PATIENCE {
        spool.next_unsent().unwrap_err();
    }
    assert_eq!(replay(&mut spool, true).len(), 5);
    assert_eq!(spool.settled_below(), second, "it was passed over");
    disk.put(&paths[1], &bytes);
    let mut spool = open(&disk);
    assert_eq!(replay(&mut spool, true).len(), 5);
    assert!(spool.settled_below() > Sequence(15));

    let blocked = new_disk();
    blocked.plan(0, Fault::FailFrom(libc::EROFS));
    assert_eq!(
        open(&blocked).settled_below(),
        Sequence(0),
        "nothing is known of a folder that cannot be used"
    );
}

#[test]
fn where_a_name_says_that_the_last_sequences_are_used_none_is_given_out_and_what_waits_is_delivered() {
    let disk = new_disk();
    store_well(&mut open(&disk), &["waits"]);
    for name in [u64::MAX, u64::MAX - 1, u64::MAX - 5000] {
        let disk = disk.fork();
        let path = Path::new(DIR).join(format!("{name:020}.seg"));
        disk.put(&path, b"");
        let mut spool = open(&disk);
        for _ in 0..5000 {
            // None comes twice, however often it is asked for.
            if spool.allocate().is_err() {
                break;
            }
        }
        let refused = spool.allocate().unwrap_err().to_string();
        assert!(refused.contains("no sequence is left"), "{refused}");
        assert!(store(&mut spool, &["new"]).remove(0).is_err());
        assert_eq!(replay(&mut spool, false), ["waits"]);
        drop(spool);
        disk.take_away(&path);
        disk.take_away(&Path::new(DIR).join("epoch"));
        assert_eq!(replay(&mut open(&disk), true), ["waits"]);
    }
}
