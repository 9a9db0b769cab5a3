//! The record as its caller sees it, on the disk model and on the real disk.

mod errors;
mod room;

use super::*;
use base::disk::{Fault, FaultyDisk, FolderLock, Keep, RealDisk};

const DIR: &str = "/spool/.received/msul1";
const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn new_disk() -> FaultyDisk {
    FaultyDisk::new(&[Path::new("/spool")])
}

fn begin(disk: &FaultyDisk, epoch: &str) -> Record<FaultyDisk> {
    let mut record = Record::open(disk.clone(), Path::new(DIR));
    record.begin_epoch(epoch).unwrap();
    record
}

fn key(text: &str) -> Key {
    Key::new(text.as_bytes()).unwrap()
}

fn add<D: Disk>(record: &mut Record<D>, sequences: std::ops::Range<u64>) {
    let answers: Vec<(u64, String)> =
        sequences.map(|sequence| (sequence, format!("answer {sequence}"))).collect();
    let answers: Vec<_> =
        answers.iter().map(|(sequence, answer)| (*sequence, None, answer.as_bytes())).collect();
    record.add(&answers).unwrap();
}

fn answers_file(disk: &FaultyDisk) -> Vec<u8> {
    disk.files()[&Path::new(DIR).join("answers")].clone()
}

fn methods(disk: &FaultyDisk, from: usize) -> Vec<&'static str> {
    disk.operations()[from..].iter().map(|operation| operation.method).collect()
}

#[test]
fn a_repeat_is_answered_from_the_record_until_it_is_settled() {
    let disk = new_disk();
    let mut record = begin(&disk, A);
    assert_eq!(record.look_up(1, None), Look::Unknown);
    record.add(&[(1, None, b"one".as_slice()), (3, Some(&key("K")), b"two\nlines")]).unwrap();
    for _ in 0..2 {
        assert_eq!(record.look_up(1, None), Look::Answered(b"one"));
        assert_eq!(record.look_up(2, None), Look::Unknown);
        assert_eq!(record.look_up(3, None), Look::Answered(b"two\nlines"));
        assert_eq!(record.look_up(9, Some(&key("K"))), Look::Answered(b"two\nlines"), "by its key");
        assert_eq!(record.look_up(9, Some(&key("L"))), Look::Unknown);
        assert_eq!(record.mark(), 0);
        disk.restart(Keep::Nothing);
        record = begin(&disk, A);
    }
    record.settled(3);
    record.settled(2);
    assert_eq!(
        (record.look_up(1, None), record.look_up(2, None)),
        (Look::SettledBefore, Look::SettledBefore)
    );
    assert_eq!(record.look_up(3, None), Look::Answered(b"two\nlines"));
    assert_eq!(record.mark(), 2);
    add(&mut record, 4..5);
    disk.restart(Keep::Nothing);
    let mut record = Record::open(disk.clone(), Path::new(DIR));
    assert_eq!(record.begin_epoch(A).unwrap(), 2, "the floor went to disk with the answer");
    assert_eq!(record.look_up(2, None), Look::SettledBefore);
    assert_eq!(record.look_up(4, None), Look::Answered(b"answer 4"));
}

#[test]
fn answers_that_are_ready_together_are_one_write_and_one_sync() {
    let disk = new_disk();
    let mut record = begin(&disk, A);
    let from = disk.operations().len();
    add(&mut record, 1..200);
    record.settled(100);
    assert_eq!(methods(&disk, from), ["write_at", "metadata", "sync_data"]);
    add(&mut record, 150..150);
    add(&mut record, 150..160);
    record.may_run(1, false).unwrap();
    assert_eq!(disk.operations().len(), from + 3, "what is there already costs nothing");
}

#[test]
fn a_new_epoch_forgets_the_answers_of_the_old_and_keeps_client_keys() {
    let disk = new_disk();
    let mut record = begin(&disk, A);
    record.add(&[(5, Some(&key("K")), b"old"), (6, None, b"old")]).unwrap();
    record.settled(6);
    let mut record = begin(&disk, B);
    for _ in 0..2 {
        assert_eq!(record.mark(), 0);
        assert_eq!(record.look_up(6, None), Look::Unknown);
        assert_eq!(record.look_up(1, None), Look::Unknown);
        assert_eq!(record.look_up(1, Some(&key("K"))), Look::Answered(b"old"));
        disk.restart(Keep::Nothing);
        record = begin(&disk, B);
    }
    record.add(&[(6, None, b"new")]).unwrap();
    assert_eq!(begin(&disk, B).look_up(6, None), Look::Answered(b"new"));
}

#[test]
fn nothing_is_said_before_an_epoch_was_begun() {
    let disk = new_disk();
    let mut record = begin(&disk, A);
    add(&mut record, 1..2);
    let mut record = Record::open(disk.clone(), Path::new(DIR));
    assert_eq!(record.look_up(1, None), Look::NotReady);
    assert!(matches!(record.add(&[(2, None, b"")]), Err(RecordError::NotReady)));
    assert!(matches!(record.may_run(0, false), Err(RecordError::NotReady)) && !record.is_ready());
    for wrong in ["", "x", &A[1..], "gggggggggggggggggggggggggggggggg"] {
        assert!(matches!(record.begin_epoch(wrong), Err(RecordError::BadEpoch)));
    }
    // A new epoch that could not be begun has forgotten nothing.
    disk.plan(disk.operations().len(), Fault::FailFrom(libc::EROFS));
    let text = record.begin_epoch(B).unwrap_err().to_string();
    assert!(text.contains("Read-only file system") && text.ends_with("critical messages refused"), "{text}");
    assert_eq!(record.look_up(1, None), Look::NotReady);
    disk.heal();
    record.begin_epoch(A).unwrap();
    assert!(record.trouble().is_none() && record.is_ready());
    assert_eq!(record.look_up(1, None), Look::Answered(b"answer 1"));
}

#[test]
fn after_a_failed_sync_the_file_is_left_and_a_new_one_takes_its_name() {
    let disk = new_disk();
    let mut record = begin(&disk, A);
    add(&mut record, 1..2);
    let from = disk.operations().len();
    disk.plan(from + 2, Fault::Fail(libc::EIO));
    add(&mut record, 2..4);
    let taken =
        ["write_at", "metadata", "sync_data", "create", "write_at", "sync_data", "rename", "sync_dir"];
    assert_eq!(methods(&disk, from), taken);
    disk.restart(Keep::Nothing);
    let record = begin(&disk, A);
    assert!((1..4).all(|sequence| matches!(record.look_up(sequence, None), Look::Answered(_))));
}

/// Bytes that so many links write that begin with these epochs in turn.
fn written_by(disk: &FaultyDisk, links: usize, epochs: &[&str]) -> usize {
    let from = disk.operations().len();
    for link in 0..links {
        let mut record = Record::open_with_step(disk.clone(), Path::new(DIR), 20_000);
        record.begin_epoch(epochs[link % epochs.len()]).unwrap();
    }
    disk.operations()[from..].iter().map(|operation| operation.bytes).sum()
}

#[test]
fn a_caller_that_comes_again_and_again_has_next_to_nothing_written_whatever_its_record_holds() {
    let disk = new_disk();
    let mut record = begin(&disk, A);
    let long = [b'x'; 1_000];
    for sequence in 1..20 {
        record.add(&[(sequence, Some(&key(&format!("K{sequence}"))), &long)]).unwrap();
    }
    // The first finds the last answers, and ends them.
    assert!(written_by(&disk, 1, &[A]) < 2 * long.len());
    let length = answers_file(&disk).len();
    assert!(written_by(&disk, 200, &[A]) <= 200 * TAIL_LEFT as usize);
    assert_eq!(answers_file(&disk).len(), length, "it does not grow by that");
    // With another epoch each time it grows by a line, and is written anew when it has twice what
    // it must hold.
    let written = written_by(&disk, 200, &[B, A]);
    assert!(written < 200 * 2 * TAIL_LEFT as usize, "{written}");
    let (links, written) = (1000, written_by(&disk, 1000, &[B, A]));
    assert!(answers_file(&disk).len() < 2 * length + 30_000, "it does not grow for ever");
    assert!(written < links * 400, "{written}");
    let record = begin(&disk, A);
    assert_eq!(record.look_up(1, None), Look::Unknown);
    assert_eq!(record.look_up(1, Some(&key("K1"))), Look::Answered(&long));
}

#[test]
fn a_name_that_a_killed_process_left_unsynced_is_durable_before_it_is_answered_from() {
    let disk = new_disk();
    add(&mut begin(&disk, A), 1..3);
    let other = disk.fork();
    add(&mut begin(&other, A), 3..40);
    let (new, path) = (Path::new(DIR).join(".new"), Path::new(DIR).join("answers"));
    let mut killed = disk.clone();
    let file = killed.create(&new).unwrap();
    killed.write_at(&file, 0, &answers_file(&other)).unwrap();
    killed.sync_data(&file).unwrap();
    killed.rename(&new, &path).unwrap();
    for _ in 0..2 {
        let record = begin(&disk, A);
        assert!((1..40).all(|sequence| matches!(record.look_up(sequence, None), Look::Answered(_))));
        disk.restart(Keep::Nothing);
    }
}

#[test]
fn what_a_failed_sync_left_behind_is_not_taken_for_durable_by_the_next_process() {
    let disk = new_disk();
    let mut record = begin(&disk, A);
    add(&mut record, 1..30);
    // The sync fails, and so does all else until the process is gone.
    disk.plan(disk.operations().len() + 2, Fault::FailFrom(libc::EIO));
    assert!(record.add(&[(30, None, b"thirty")]).is_err());
    drop(record);
    disk.heal();
    let record = begin(&disk, A);
    // A sync that succeeds proves nothing now.
    assert_eq!(record.look_up(30, None), Look::Answered(b"thirty"));
    drop(record);
    disk.restart(Keep::Nothing);
    assert_eq!(begin(&disk, A).look_up(30, None), Look::Answered(b"thirty"));
}

#[test]
fn on_a_disk_that_is_full_answers_are_refused_and_nothing_is_run_until_it_is_not() {
    let disk = new_disk();
    let mut record = begin(&disk, A);
    add(&mut record, 1..2);
    disk.plan(disk.operations().len(), Fault::FailFrom(libc::ENOSPC));
    let text = record.add(&[(2, None, b"two")]).unwrap_err().to_string();
    assert!(text.contains("No space left"), "{text}");
    assert_eq!(record.look_up(2, None), Look::Unknown);
    assert_eq!(record.look_up(1, None), Look::Answered(b"answer 1"), "what is durable stays known");
    assert!(record.may_run(0, false).is_err() && record.trouble().is_some());
    disk.heal();
    record.may_run(0, false).unwrap();
    record.add(&[(2, None, b"two")]).unwrap();
    disk.restart(Keep::Nothing);
    assert_eq!(begin(&disk, A).look_up(2, None), Look::Answered(b"two"));
}

#[test]
fn a_caller_that_settles_nothing_is_refused_at_the_bound() {
    let disk = new_disk();
    let mut record = begin(&disk, A);
    add(&mut record, 1..ANSWERS_MOST as u64);
    record.may_run(0, false).unwrap();
    assert!(matches!(record.may_run(1, false), Err(RecordError::Full)), "one is running");
    let most = ANSWERS_MOST as u64;
    assert!(matches!(record.add(&[(most, None, b""), (most + 1, None, b"")]), Err(RecordError::Full)));
    assert_eq!(record.look_up(most, None), Look::Unknown, "all of a call or nothing");
    add(&mut record, most..most + 1);
    assert!(matches!(record.may_run(0, false), Err(RecordError::Full)));
    record.settled(100);
    record.may_run(0, false).unwrap();
    add(&mut record, most + 1..most + 50);
}

#[test]
fn behind_a_message_that_is_being_run_fewer_are_answered_so_that_what_was_sent_meanwhile_has_room() {
    let disk = new_disk();
    let mut record = begin(&disk, A);
    let most = ANSWERS_BEHIND_ONE as u64;
    // The first is being run.
    add(&mut record, 2..most + 1);
    record.may_run(0, true).unwrap();
    assert!(matches!(record.may_run(1, true), Err(RecordError::HeldUp)), "it counts, too");
    add(&mut record, most + 1..most + 2);
    assert!(matches!(record.may_run(0, true), Err(RecordError::HeldUp)));
    // It is answered; as many as `lonc` has in flight were sent before it could settle any.
    add(&mut record, 1..2);
    add(&mut record, most + 2..most + 4096);
    record.may_run(0, false).unwrap();
}

#[test]
fn an_answer_that_is_too_long_is_remembered_as_such() {
    let disk = new_disk();
    let mut record = begin(&disk, A);
    let longest = vec![b'\\'; ANSWER_MOST];
    let longer = vec![b'x'; ANSWER_MOST + 1];
    record.add(&[(1, None, longest.as_slice()), (2, Some(&key("K")), longer.as_slice())]).unwrap();
    for record in [record, begin(&disk, A)] {
        assert_eq!(record.look_up(1, None), Look::Answered(&longest));
        assert_eq!(record.look_up(2, None), Look::Answered(NOT_KEPT));
        assert_eq!(record.look_up(3, Some(&key("K"))), Look::Answered(NOT_KEPT));
    }
    let mut record = begin(&disk, A);
    let most = (ANSWERS_BYTES_MOST / ANSWER_MOST) as u64;
    let answers: Vec<_> = (2..most + 2).map(|sequence| (sequence, None, longest.as_slice())).collect();
    record.add(&answers).unwrap();
    assert_eq!(record.look_up(most - 1, None), Look::Answered(&longest));
    assert_eq!(record.look_up(most + 1, None), Look::Answered(NOT_KEPT), "memory is bounded in all");
    let record = begin(&disk, A);
    assert_eq!(record.look_up(most - 1, None), Look::Answered(&longest));
}

#[test]
fn the_file_is_written_anew_when_it_has_grown_and_holds_what_it_must() {
    let folder = tempfile::tempdir().unwrap();
    let dir = super::folder(folder.path(), &HostId::new("msul1").unwrap());
    let _lock = FolderLock::try_acquire(&dir).unwrap().unwrap();
    let mut record = Record::open(RealDisk, &dir);
    record.begin_epoch(A).unwrap();
    let mut largest = 0;
    for round in 0..200 {
        add(&mut record, round * 100..(round + 1) * 100);
        record.settled(round * 100);
        largest = largest.max(std::fs::metadata(dir.join("answers")).unwrap().len());
    }
    assert!(largest > COMPACTION_STEP / 2 && largest < COMPACTION_STEP + 64 * 1024, "{largest}");
    let mut record = Record::open(RealDisk, &dir);
    record.begin_epoch(A).unwrap();
    assert_eq!(record.look_up(19_999, None), Look::Answered(b"answer 19999"));
    assert!(std::fs::metadata(dir.join("answers")).unwrap().len() < COMPACTION_STEP + 64 * 1024);
    let names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|name| name.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn what_a_killed_process_left_unsynced_is_durable_before_it_is_answered_from() {
    let disk = new_disk();
    let mut record = begin(&disk, A);
    add(&mut record, 1..2);
    let synced = answers_file(&disk).len();
    let ahead = disk.fork();
    let mut later = begin(&ahead, A);
    add(&mut later, 2..4);
    // What the process wrote when it was killed: the machine lives on, and every program sees the
    // bytes.
    let (mut raw, path) = (disk.clone(), Path::new(DIR).join("answers"));
    let file = raw.open(&path, true).unwrap();
    raw.write_at(&file, synced as u64, &answers_file(&ahead)[synced..]).unwrap();
    for _ in 0..2 {
        let record = begin(&disk, A);
        for (sequence, answer) in [(1, b"answer 1"), (2, b"answer 2"), (3, b"answer 3")] {
            assert_eq!(record.look_up(sequence, None), Look::Answered(answer));
        }
        // Its answers may have been sent again by now, and the caller has settled them.
        disk.restart(Keep::Nothing);
    }
}

#[test]
fn a_tail_cut_anywhere_is_cut_off_and_the_lines_before_it_stay() {
    let disk = new_disk();
    let mut record = begin(&disk, A);
    add(&mut record, 1..6);
    let whole = answers_file(&disk);
    let first = memchr::memchr(b'\n', &whole).unwrap() + 1;
    for length in first..whole.len() {
        let disk = disk.fork();
        disk.put(&Path::new(DIR).join("answers"), &whole[..length]);
        let record = begin(&disk, A);
        // A line that lost its newline alone is whole.
        let until = if whole[length] == b'\n' { length + 1 } else { length };
        let text = String::from_utf8_lossy(&whole[..until]);
        let whole_lines: Vec<&str> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
        for sequence in 1..6 {
            let found = record.look_up(sequence, None) != Look::Unknown;
            let says = format!("answer {sequence}\n");
            assert_eq!(found, whole_lines.iter().any(|line| line.ends_with(&says)), "cut at {length}");
        }
        assert!(disk.files().keys().all(|path| !path.to_string_lossy().contains("damaged")));
        assert!(answers_file(&disk).ends_with(b"\n"));
    }
}

#[test]
fn damage_in_the_middle_hides_nothing_else_and_the_file_is_set_aside_once() {
    let disk = new_disk();
    let mut record = begin(&disk, A);
    add(&mut record, 1..5);
    let whole = answers_file(&disk);
    let last_line = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    // Without its newline the line before the last is a part of the tail.
    for place in 0..last_line - 1 {
        let disk = disk.fork();
        let mut bytes = whole.clone();
        bytes[place] ^= 0x55;
        disk.put(&Path::new(DIR).join("answers"), &bytes);
        let record = begin(&disk, A);
        let known = (1..5).filter(|sequence| record.look_up(*sequence, None) != Look::Unknown).count();
        // A newline that is none joins two lines.
        let line = whole[..place].iter().filter(|byte| **byte == b'\n').count();
        let hit = if whole[place] == b'\n' { line..=line + 1 } else { line..=line };
        let answers = whole.split_inclusive(|byte| *byte == b'\n').enumerate();
        let answers = answers.filter(|(_, line)| memchr::memmem::find(line, b" answer ").is_some());
        let lost = answers.filter(|(number, _)| hit.contains(number)).count();
        assert_eq!(known, 4 - lost, "byte {place}");
        let copy = Path::new(DIR).join("damaged-1");
        assert_eq!(disk.files()[&copy], bytes, "byte {place}");
        begin(&disk, A);
        assert!(!disk.files().contains_key(&Path::new(DIR).join("damaged-2")), "not again");
    }
}

#[test]
fn a_file_without_any_whole_line_is_damage_and_no_tail() {
    for content in [&b""[..], b"\0\0\0\0", b"nonsense\n", &vec![b'x'; 3_000_000]] {
        let disk = new_disk();
        disk.put(&Path::new(DIR).join("answers"), content);
        let mut record = begin(&disk, A);
        assert_eq!(disk.files()[&Path::new(DIR).join("damaged-1")], content);
        add(&mut record, 1..2);
        assert_eq!(begin(&disk, A).look_up(1, None), Look::Answered(b"answer 1"));
    }
}

#[test]
fn a_file_that_cannot_be_read_refuses_all_and_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join(".received/msul1");
    std::fs::create_dir_all(dir.join("answers")).unwrap();
    let mut record = Record::open(RealDisk, &dir);
    assert!(record.trouble().unwrap().to_string().contains("answers: "), "{:?}", record.trouble());
    assert!(record.begin_epoch(A).is_err());
    assert_eq!(record.look_up(1, None), Look::NotReady);
    assert!(dir.join("answers").is_dir());
    std::fs::remove_dir(dir.join("answers")).unwrap();
    record.begin_epoch(A).unwrap();
    assert_eq!(record.look_up(1, None), Look::Unknown);
}

#[test]
fn a_read_that_fails_once_is_tried_again_and_never_taken_for_an_empty_record() {
    let disk = new_disk();
    add(&mut begin(&disk, A), 1..2);
    let from = disk.operations().len();
    disk.plan(from + 2, Fault::Fail(libc::EIO));
    let mut record = Record::open(disk.clone(), Path::new(DIR));
    assert!(record.trouble().is_none());
    disk.plan(disk.operations().len(), Fault::Fail(libc::EIO));
    disk.plan(disk.operations().len() + 1, Fault::Fail(libc::EIO));
    let mut other = Record::open(disk.clone(), Path::new(DIR));
    assert!(other.trouble().is_some());
    other.begin_epoch(A).unwrap();
    assert_eq!(other.look_up(1, None), Look::Answered(b"answer 1"));
    record.begin_epoch(A).unwrap();
    assert_eq!(record.look_up(1, None), Look::Answered(b"answer 1"));
}

#[test]
fn a_file_that_someone_removed_is_written_anew_from_memory() {
    let disk = new_disk();
    let mut record = begin(&disk, A);
    add(&mut record, 1..3);
    disk.take_away(Path::new("/spool/.received"));
    add(&mut record, 3..4);
    disk.restart(Keep::Nothing);
    let record = begin(&disk, A);
    assert!((1..4).all(|sequence| matches!(record.look_up(sequence, None), Look::Answered(_))));
}

#[test]
fn a_check_of_every_flipped_byte_and_every_truncation_says_what_a_start_does() {
    let sample = new_disk();
    let mut record = begin(&sample, A);
    record.add(&[(1, Some(&key("K")), b"one".as_slice()), (2, None, b"two\nlines"), (7, None, b"")]).unwrap();
    let whole = answers_file(&sample);
    let path = Path::new(DIR).join("answers");
    let flips = (0..whole.len()).flat_map(|place| {
        let whole = &whole;
        [1 << (place % 8), whole[place] ^ b'\n'].map(move |change| {
            let mut bytes = whole.clone();
            bytes[place] ^= change;
            bytes
        })
    });
    let cuts = (0..whole.len()).map(|length| whole[..length].to_vec());
    let (mut damaged, mut torn) = (0, 0);
    for bytes in flips.chain(cuts) {
        let disk = sample.fork();
        disk.put(&path, &bytes);
        let context = String::from_utf8_lossy(&bytes).into_owned();
        let (files, mut found) = (disk.files(), Vec::new());
        let tally = check(&mut disk.clone(), Path::new(DIR), &mut |finding| found.push(finding)).unwrap();
        assert_eq!(disk.files(), files, "{context}");
        drop(begin(&disk, A));
        let aside = disk.files().keys().any(|path| path.ends_with("damaged-1"));
        assert_eq!(tally.damaged, aside, "{context}: {found:?}");
        assert_eq!(found.iter().any(|finding| finding.damage), aside, "{context}: {found:?}");
        assert!(found.iter().all(|finding| finding.path == path && finding.line.is_some()), "{found:?}");
        damaged += usize::from(aside);
        torn += usize::from(!aside && !found.is_empty());
        let after = check(&mut disk.clone(), Path::new(DIR), &mut |found| panic!("{found}")).unwrap();
        assert_eq!((after.damaged, after.set_aside), (false, u64::from(aside)), "{context}");
    }
    assert!(damaged > 100 && torn > 50, "{damaged} damaged, {torn} torn");
    let none = check(&mut new_disk(), Path::new(DIR), &mut |found| panic!("{found}")).unwrap();
    assert_eq!(none, RecordTally::default());
}
