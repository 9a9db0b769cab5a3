//! The room that is set aside for answers before their messages are run.

use super::*;
use base::disk::Metadata;
use base::disk::own::own_new;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::rc::Rc;

/// What one answer needs.
const ONE: u64 = ROOM_FOR_ONE;
/// What each beside it needs.
const EACH: u64 = ROOM_FOR_EACH;

/// The disk model, and what was asked of it to set aside.
#[derive(Clone)]
struct Roomy {
    disk: FaultyDisk,
    /// Where, and how much.
    asked: Rc<RefCell<Vec<(u64, u64)>>>,
    /// Whether the next ones find no room.
    refused: Rc<RefCell<VecDeque<bool>>>,
}

impl Roomy {
    fn new() -> Roomy {
        Roomy { disk: new_disk(), asked: Rc::default(), refused: Rc::default() }
    }

    fn begin(&self, step: u64) -> Record<Roomy> {
        let mut record = Record::open_with_step(self.clone(), Path::new(DIR), step);
        record.begin_epoch(A).unwrap();
        record
    }

    /// What was asked for since the last call.
    fn asked(&self) -> Vec<(u64, u64)> {
        self.asked.take()
    }

    fn refuse(&self, which: &[bool]) {
        *self.refused.borrow_mut() = which.iter().copied().collect();
    }

    fn length(&self) -> u64 {
        answers_file(&self.disk).len() as u64
    }

    /// How often a new file was begun.
    fn created(&self) -> usize {
        self.disk.operations().iter().filter(|one| one.method == "create").count()
    }
}

impl Disk for Roomy {
    type File = <FaultyDisk as Disk>::File;

    fn create(&mut self, path: &Path) -> io::Result<Self::File> {
        self.disk.create(path)
    }

    fn open(&mut self, path: &Path, write: bool) -> io::Result<Self::File> {
        self.disk.open(path, write)
    }

    fn read_at(&mut self, file: &Self::File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.disk.read_at(file, offset, length)
    }

    fn write_at(&mut self, file: &Self::File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_at(file, offset, bytes)
    }

    fn reserve(&mut self, _: &Self::File, offset: u64, length: u64) -> io::Result<()> {
        self.asked.borrow_mut().push((offset, length));
        match self.refused.borrow_mut().pop_front() {
            Some(true) => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            Some(false) | None => Ok(()),
        }
    }

    fn sync_data(&mut self, file: &Self::File) -> io::Result<()> {
        self.disk.sync_data(file)
    }

    fn sync_dir(&mut self, folder: &Path) -> io::Result<()> {
        self.disk.sync_dir(folder)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn rename_new(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename_new(from, to)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn make_folder(&mut self, path: &Path) -> io::Result<()> {
        self.disk.make_folder(path)
    }

    fn list(&mut self, folder: &Path, each: &mut dyn FnMut(&OsStr)) -> io::Result<()> {
        self.disk.list(folder, each)
    }

    fn metadata(&mut self, path: &Path) -> io::Result<Metadata> {
        self.disk.metadata(path)
    }

    fn describe(&mut self, file: &Self::File) -> io::Result<Metadata> {
        self.disk.describe(file)
    }

    fn free_space(&mut self, path: &Path) -> io::Result<u64> {
        self.disk.free_space(path)
    }

    fn random(&mut self) -> io::Result<[u8; 16]> {
        self.disk.random()
    }
}

fn answer(record: &mut Record<Roomy>, sequence: u64, length: u64) {
    record.add(&[(sequence, None, vec![b'x'; length as usize].as_slice())]).unwrap();
}

/// Lets the file grow by this many bytes, all of which are settled.
fn grow(disk: &Roomy, record: &mut Record<Roomy>, sequence: u64, by: u64) {
    let before = disk.length();
    answer(record, sequence, 0);
    let line = disk.length() - before;
    answer(record, sequence + 1, by - 2 * line);
    assert_eq!(disk.length(), before + by);
    record.settled(sequence + 2);
}

#[test]
fn the_room_for_one_holds_the_longest_answer_and_not_much_more() {
    let text = vec![b'\\'; ANSWER_MOST];
    let key = key(&"k".repeat(64));
    let command = "c".repeat(64);
    let (mut longest, kept) = (Vec::new(), Kept::default());
    kept.append_floor(&mut longest);
    let (key, command, text) = (Some(&key), command.as_str(), text.as_slice());
    line::append_answer(&mut longest, A, &Answered { sequence: 1, key, command, broken: true, text });
    assert!((longest.len() as u64..longest.len() as u64 + 1024).contains(&ONE), "{}", longest.len());
}

#[test]
fn room_is_set_aside_for_what_is_run_and_only_when_it_is_used_up_for_more() {
    let disk = Roomy::new();
    let mut record = disk.begin(COMPACTION_STEP);
    assert_eq!(disk.asked(), [], "nothing is run yet");
    let begun = disk.length();
    record.may_run(2, false).unwrap();
    assert_eq!(disk.asked(), [(begun, ONE + 2 * EACH + ROOM_STEP)]);
    record.may_run(2, false).unwrap();
    grow(&disk, &mut record, 1, ROOM_STEP);
    record.may_run(2, false).unwrap();
    assert_eq!(disk.asked(), [], "there is as much as is needed");
    record.may_run(3, false).unwrap();
    assert_eq!(disk.asked(), [(begun + ROOM_STEP, ONE + 3 * EACH + ROOM_STEP)]);
    grow(&disk, &mut record, 10, ROOM_STEP + 1);
    record.may_run(3, false).unwrap();
    assert_eq!(disk.asked(), [(begun + 2 * ROOM_STEP + 1, ONE + 3 * EACH + ROOM_STEP)]);
    assert_eq!(disk.created(), 1);
}

#[test]
fn where_there_is_no_room_what_is_settled_gives_way_unless_others_are_being_run() {
    let disk = Roomy::new();
    let mut record = disk.begin(COMPACTION_STEP);
    grow(&disk, &mut record, 1, 10_000);
    let grown = disk.length();
    disk.refuse(&[true]);
    let text = record.may_run(1, false).unwrap_err().to_string();
    assert!(text.starts_with("make room in ") && text.contains("/answers: No space left"), "{text}");
    assert_eq!(disk.asked(), [(grown, ONE + EACH + ROOM_STEP)]);
    assert_eq!((disk.length(), disk.created()), (grown, 1));
    disk.refuse(&[true, true]);
    let text = record.may_run(0, false).unwrap_err().to_string();
    assert!(text.contains("/answers: No space left"), "{text}");
    disk.refuse(&[true, false]);
    disk.asked();
    record.may_run(0, false).unwrap();
    let length = disk.length();
    assert!(length < 1000, "{length}");
    assert_eq!(disk.asked(), [(grown, ONE + ROOM_STEP), (length, ONE)]);
    record.may_run(0, false).unwrap();
    assert_eq!(disk.asked(), [], "the new file has its room");
    record.may_run(1, false).unwrap();
    assert_eq!(disk.asked(), [(length, ONE + EACH + ROOM_STEP)]);
}

/// A record whose file has grown by so much, on a disk that has `more` than it takes to be tight.
fn grown(by: u64, more: i64) -> (Roomy, Record<Roomy>) {
    let disk = Roomy::new();
    let mut record = disk.begin(COMPACTION_STEP);
    grow(&disk, &mut record, 1, by / 2);
    grow(&disk, &mut record, 3, by - by / 2);
    let tight = disk.length() + 2 * (ONE + ROOM_STEP);
    disk.disk.set_free_space(tight.checked_add_signed(more).unwrap());
    (disk, record)
}

#[test]
fn a_file_that_has_grown_is_written_anew_while_the_disk_has_room_for_another_like_it() {
    // What it must hold is two lines that say the same, as it has them already.
    for (by, more, anew) in
        [(ROOM_STEP, -1, true), (ROOM_STEP, 0, false), (ROOM_STEP - 1, -1, false), (2 * ROOM_STEP, -1, true)]
    {
        let (disk, mut record) = grown(by, more);
        let before = disk.length();
        record.may_run(1, false).unwrap();
        assert_eq!(disk.created(), 1 + usize::from(anew), "{by} {more}");
        assert_eq!(disk.length() < before, anew, "{by} {more}");
        assert_eq!(disk.asked(), [(disk.length(), ONE + EACH + ROOM_STEP)], "{by} {more}");
    }
}

#[test]
fn where_it_cannot_be_written_anew_the_old_file_is_gone_on_with_unless_it_lost_its_name() {
    let (disk, mut record) = grown(2 * ROOM_STEP, -1);
    let before = disk.length();
    let hidden = Path::new(DIR).join(own_new());
    disk.disk.refuse("create", &hidden, libc::ENOSPC);
    record.may_run(1, false).unwrap();
    assert_eq!(disk.asked(), [(before, ONE + EACH + ROOM_STEP)]);
    disk.disk.heal();
    let (disk, mut record) = grown(2 * ROOM_STEP, -1);
    disk.disk.refuse("sync_dir", Path::new(DIR), libc::EIO);
    let text = record.may_run(1, false).unwrap_err().to_string();
    assert!(text.starts_with("sync "), "{text}");
    assert_eq!(disk.asked().len(), 1, "none in a file that is done with");
    disk.disk.heal();
    record.may_run(1, false).unwrap();
}

#[test]
fn what_is_being_run_keeps_its_room_when_the_file_is_written_anew() {
    // It has grown.
    let disk = Roomy::new();
    let mut record = disk.begin(2000);
    let begun = disk.length();
    record.may_run(1, false).unwrap();
    let until = begun + ONE + EACH + ROOM_STEP;
    assert_eq!(disk.asked(), [(begun, until - begun)]);
    answer(&mut record, 1, 0);
    let line = disk.length() - begun;
    record.settled(2);
    // One byte less than it may have, and then that byte.
    answer(&mut record, 2, 2000 - 2 * line - 1);
    assert_eq!((disk.created(), disk.length()), (1, begun + 1999));
    record.settled(3);
    answer(&mut record, 3, 1);
    let end = begun + 1999 + line + 1;
    assert_eq!(disk.created(), 2);
    assert_eq!(disk.asked(), [(disk.length(), until - end)]);
    record.may_run(1, false).unwrap();
    assert_eq!(disk.asked(), [], "what is left is enough");
}

#[test]
fn a_file_is_written_anew_when_it_has_grown_by_as_much_as_it_may_and_not_before() {
    for (less, created) in [(1, 1), (0, 2)] {
        let disk = Roomy::new();
        let mut record = disk.begin(2000);
        let begun = disk.length();
        answer(&mut record, 1, 0);
        let line = disk.length() - begun;
        answer(&mut record, 2, 2000 - 2 * line - less);
        assert_eq!(disk.created(), created);
    }
}

#[test]
fn after_a_failed_write_the_new_file_has_the_room_that_is_left_or_else_none() {
    for refused in [&[false][..], &[true, false]] {
        let disk = Roomy::new();
        let mut record = disk.begin(COMPACTION_STEP);
        let begun = disk.length();
        record.may_run(1, false).unwrap();
        let until = begun + ONE + EACH + ROOM_STEP;
        answer(&mut record, 1, 0);
        let line = disk.length() - begun;
        disk.asked();
        disk.refuse(refused);
        disk.disk.plan(disk.disk.operations().len(), Fault::Fail(libc::EIO));
        answer(&mut record, 2, 1000);
        let end = begun + 2 * line + 1000;
        assert_eq!(disk.asked(), [(disk.length(), until - end)], "all but what the answers take");
        let needed = if refused[0] { 1 } else { 0 };
        record.may_run(1, false).unwrap();
        assert_eq!(disk.asked().len(), needed);
    }
}
