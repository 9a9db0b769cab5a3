//! What each error of a step on a record leads to, and what none is; which files are gone on with.

use super::*;
use base::disk::own::own_new;

#[test]
fn what_cannot_be_read_is_said_by_a_check_and_not_taken_for_nothing() {
    let disk = new_disk();
    add(&mut begin(&disk, A), 1..3);
    let (folder, file) = (Path::new(DIR), Path::new(DIR).join("answers"));
    disk.refuse("open", &file, libc::EIO);
    let mut said = Vec::new();
    let tally = check(&mut disk.clone(), folder, &mut |finding| said.push(finding)).unwrap();
    assert!(tally.damaged && said.len() == 1, "{said:?}");
    disk.refuse("list", folder, libc::EIO);
    assert!(check(&mut disk.clone(), folder, &mut |_| {}).is_err());
    let tally = check(&mut new_disk(), folder, &mut |_| panic!("nothing is wrong")).unwrap();
    assert_eq!(tally, RecordTally::default());
}

#[test]
fn a_copy_of_damage_does_not_take_the_place_of_what_cannot_be_looked_at() {
    let disk = new_disk();
    add(&mut begin(&disk, A), 1..3);
    let mut bytes = answers_file(&disk);
    bytes[3] ^= 1;
    disk.put(&Path::new(DIR).join("answers"), &bytes);
    disk.put(&Path::new(DIR).join("damaged-1"), b"earlier");
    let copy = Path::new(DIR).join(format!("{}1", recover::DAMAGED));
    disk.refuse("metadata", &copy, libc::EIO);
    let mut record = Record::open(disk.clone(), Path::new(DIR));
    assert!(record.begin_epoch(A).is_err());
    assert_eq!(answers_file(&disk), bytes);
    disk.heal();
    record.begin_epoch(A).unwrap();
    assert_ne!(answers_file(&disk), bytes);
}

#[test]
fn a_new_file_goes_past_what_a_crash_left_and_else_says_its_cause() {
    let hidden = Path::new(DIR).join(own_new());
    let disk = new_disk();
    disk.put(&hidden, b"left over");
    add(&mut begin(&disk, A), 1..3);
    let disk = new_disk();
    let mut record = Record::open(disk.clone(), Path::new(DIR));
    disk.refuse("create", &hidden, libc::EIO);
    let Err(RecordError::Disk(error)) = record.begin_epoch(A) else { panic!("no error") };
    assert_eq!(error.cause.raw_os_error(), Some(libc::EIO));
    let tried = disk.operations().into_iter().filter(|one| one.method == "create" && one.path == hidden);
    assert_eq!(tried.count(), 1, "nothing was in its way");
}

#[test]
fn a_large_file_with_a_short_tail_is_gone_on_with() {
    let disk = new_disk();
    let mut record = begin(&disk, A);
    let text = vec![b'x'; ANSWER_MOST];
    for sequence in 1..=12 {
        record.add(&[(sequence, None, text.as_slice())]).unwrap();
    }
    let from = disk.operations().len();
    let record = begin(&disk, A);
    assert!(!methods(&disk, from).contains(&"create"), "nothing is written anew");
    assert_eq!(record.look_up(12, None), Look::Answered(&text));
    assert_eq!(record.compacted_at(0), COMPACTION_STEP);
    assert_eq!(record.compacted_at(COMPACTION_STEP), 2 * COMPACTION_STEP);
    assert_eq!(record.compacted_at(10 * COMPACTION_STEP), 20 * COMPACTION_STEP);
}

#[test]
fn a_file_that_has_grown_to_twice_what_it_must_hold_is_not_gone_on_with() {
    for (beyond, anew) in [(0, false), (1, true)] {
        let disk = new_disk();
        let mut record = begin(&disk, A);
        add(&mut record, 1..40);
        record.settled(40);
        add(&mut record, 40..41);
        let (length, holds) = (answers_file(&disk).len() as u64, record.kept.length());
        assert!(length > 2 * holds);
        let step = length - holds + 1 - beyond;
        let from = disk.operations().len();
        Record::open_with_step(disk.clone(), Path::new(DIR), step).begin_epoch(A).unwrap();
        assert_eq!(methods(&disk, from).contains(&"create"), anew, "{beyond}");
    }
}

#[test]
fn a_file_that_someone_else_writes_to_is_not_gone_on_with() {
    let disk = new_disk();
    add(&mut begin(&disk, A), 1..3);
    let path = Path::new(DIR).join("answers");
    let (whole, from) = (answers_file(&disk), disk.operations().len());
    let other = disk.fork();
    let other_from = other.operations().len();
    begin(&other, A);
    // Opened, read once more, and written to.
    let open = methods(&other, other_from).iter().rposition(|method| *method == "open").unwrap();
    disk.replace_before(from + open, &path, &[&whole[..], b"another's"].concat());
    let record = begin(&disk, A);
    assert_eq!(record.look_up(2, None), Look::Answered(b"answer 2"));
    assert!(!answers_file(&disk).ends_with(b"another's"));
}

#[test]
fn a_tail_that_has_grown_long_is_ended_so_that_the_next_link_finds_a_short_one() {
    for (more, ended) in [(0, false), (1, true)] {
        let disk = new_disk();
        let mut record = begin(&disk, A);
        let begun = answers_file(&disk).len();
        record.add(&[(1, None, b"")]).unwrap();
        let line = answers_file(&disk).len() - begun;
        let text = vec![b'x'; TAIL_LEFT as usize - line + more];
        record.add(&[(2, None, text.as_slice())]).unwrap();
        let before = answers_file(&disk).len();
        begin(&disk, A);
        assert_eq!(answers_file(&disk).len() > before, ended, "{more}");
    }
}
