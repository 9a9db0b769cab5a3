//! Files of the original's kind, as they lie in the peer's folder.

use super::*;
use jiff::SignedDuration;

pub(super) const INBOX: &str = "/delayed/msul1/dropped";

pub(super) fn put(disk: &FaultyDisk, name: &str, text: &[u8]) {
    disk.put(&Path::new(INBOX).join(name), text);
}

pub(super) fn there(disk: &FaultyDisk, name: &str) -> bool {
    disk.files().contains_key(&Path::new(INBOX).join(name))
}

pub(super) fn take_in(spool: &mut Spool<FaultyDisk>, now: Timestamp) -> TakenIn {
    spool.take_in(now)
}

#[test]
fn files_are_taken_in_by_name_behind_what_waits_and_then_removed() {
    let disk = new_disk();
    let mut spool = open(&disk);
    store_well(&mut spool, &["stored before"]);
    put(&disk, "2.msul1", b"encrypt:second\n");
    put(&disk, "10.msul1", b"first, by name\nnot the first line\n");
    put(&disk, ".3.msul1", b"hidden\n");
    let from = disk.operations().len();
    let taken = take_in(&mut spool, now());
    assert_eq!((taken.stored, taken.corrupt, taken.more), (2, 1, false));
    assert!(taken.retry_at.is_none() && taken.refused.is_none());
    let order = methods(&disk, from);
    let place = |method| order.iter().position(|other| *other == method).unwrap();
    assert!(place("sync_data") < place("remove"), "removed only when stored: {order:?}");
    assert_eq!(replay(&mut spool, true), ["stored before", "first, by name", "encrypt:second"]);
    assert!(!there(&disk, "2.msul1") && !there(&disk, "10.msul1"));
    assert!(there(&disk, ".3.msul1"));
}

#[test]
fn a_file_that_may_be_being_written_is_left_for_a_while() {
    let disk = new_disk();
    let mut spool = open(&disk);
    disk.set_now(now());
    put(&disk, "a.msul1", b"no newline yet");
    put(&disk, "b.msul1", b"");
    put(&disk, "c.msul1", b"whole\n");
    let soon = now() + SignedDuration::from_secs(1);
    let taken = take_in(&mut spool, soon);
    assert_eq!((taken.stored, taken.corrupt), (1, 0));
    assert_eq!(taken.retry_at, Some(soon + WRITER_PAUSE));
    let taken = take_in(&mut spool, soon + WRITER_PAUSE);
    assert_eq!(
        (taken.stored, taken.corrupt),
        (1, 1),
        "one without a newline is a message, an empty one is none"
    );
    assert_eq!(replay(&mut spool, true), ["whole", "no newline yet"]);
    assert!(disk.files().contains_key(&Path::new(DIR).join("corrupt/b.msul1")));
}

#[test]
fn what_cannot_be_a_message_goes_to_corrupt_under_a_name_of_its_own() {
    let disk = new_disk();
    let mut spool = open(&disk);
    let long = vec![b'x'; MAX_REQUEST + 1];
    for _ in 0..2 {
        put(&disk, "long.msul1", &long);
        put(&disk, "blank.msul1", b"\n");
        put(&disk, "good.msul1", b"good\n");
        let taken = take_in(&mut spool, now());
        assert_eq!((taken.stored, taken.corrupt), (1, 2));
    }
    assert_eq!(spool.waiting().corrupt, 4);
    assert_eq!(open(&disk).waiting().corrupt, 4);
    assert_eq!(replay(&mut spool, true), ["good", "good"]);
}

#[test]
fn what_is_set_aside_finds_its_folder_though_somebody_has_removed_that() {
    let disk = new_disk();
    let mut spool = open(&disk);
    disk.take_away(&Path::new(DIR).join("corrupt"));
    put(&disk, "b.msul1", b"\nthe first line is empty\n");
    assert_eq!(take_in(&mut spool, now()).corrupt, 1);
    assert!(disk.files().contains_key(&Path::new(DIR).join("corrupt/b.msul1")));
}

#[test]
fn a_full_spool_leaves_the_files_and_their_order() {
    let disk = new_disk();
    let bounds = SpoolLimits { messages: 2, ..limits() };
    let mut spool = Spool::open_with_segments(disk.clone(), Path::new(DIR), bounds, SEGMENT);
    for name in ["1", "2", "3", "4"] {
        let file = format!("{name}.msul1");
        put(&disk, &file, format!("{name}\n").as_bytes());
        disk.give(&Path::new(INBOX).join(file), name.parse().unwrap());
    }
    let taken = take_in(&mut spool, now());
    assert_eq!(taken.stored, 2);
    assert!(matches!(taken.refused, Some(StoreError::Full(Full::Messages { .. }))));
    assert!(taken.retry_at.is_some() && there(&disk, "3.msul1") && there(&disk, "4.msul1"));
    assert_eq!(replay(&mut spool, true), ["1", "2"]);
    assert_eq!(take_in(&mut spool, now()).stored, 2);
    assert_eq!(replay(&mut spool, true), ["3", "4"]);
}

#[test]
fn a_great_many_files_are_taken_in_parts() {
    let disk = new_disk();
    let mut spool = open(&disk);
    for number in 0..600 {
        put(&disk, &format!("{number:04}.msul1"), format!("{number}\n").as_bytes());
    }
    let (mut calls, mut more) = (0, true);
    while more {
        more = take_in(&mut spool, now()).more;
        calls += 1;
    }
    assert_eq!(calls, 3);
    assert_eq!(replay(&mut spool, true), (0..600).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn unfinished_files_do_not_make_the_caller_spin() {
    let disk = new_disk();
    let mut spool = open(&disk);
    disk.set_now(now());
    for number in 0..=TAKE_IN_MOST {
        put(&disk, &format!("{number:04}.msul1"), b"being written");
    }
    assert!(take_in(&mut spool, now()).more, "one was not looked at yet");
    let taken = take_in(&mut spool, now());
    assert!(!taken.more && taken.retry_at.is_some());
}

#[test]
fn a_file_that_cannot_be_removed_is_stored_once() {
    let disk = new_disk();
    put(&disk, "1.msul1", b"once\n");
    // Which operation the removal will be is found on a copy.
    let copy = disk.fork();
    take_in(&mut open(&copy), now());
    let removal = methods(&copy, 0).iter().rposition(|method| *method == "remove").unwrap();
    disk.plan(removal, Fault::Fail(libc::EACCES));
    let mut spool = open(&disk);
    let taken = take_in(&mut spool, now());
    assert_eq!(taken.stored, 1);
    assert!(there(&disk, "1.msul1"));
    assert!(taken.retry_at.is_some());
    assert_eq!(take_in(&mut spool, now()).stored, 0);
    assert!(!there(&disk, "1.msul1"), "its removal is tried again");
    // As long as it cannot be removed.
    put(&disk, "2.msul1", b"once\n");
    disk.refuse("remove", &Path::new(INBOX).join("2.msul1"), libc::EACCES);
    assert_eq!(take_in(&mut spool, now()).stored, 1);
    let taken = take_in(&mut spool, now());
    assert_eq!((taken.stored, taken.retry_at.is_some()), (0, true));
    assert!(there(&disk, "2.msul1"));
}

#[test]
fn files_of_more_bytes_than_one_store_takes_are_taken_in_by_one_call() {
    let disk = new_disk();
    let mut spool = open(&disk);
    let line = [vec![b'x'; 1_500_000], b"\n".to_vec()].concat();
    for number in 0..5 {
        put(&disk, &format!("{number}.msul1"), &line);
    }
    let taken = take_in(&mut spool, now());
    assert_eq!((taken.stored, taken.more), (5, false));
    assert_eq!(replay(&mut spool, true).len(), 5);
}

#[test]
fn a_file_that_takes_the_place_of_one_that_could_not_be_removed_is_not_removed_unread() {
    let disk = new_disk();
    put(&disk, "1.msul1", b"once\n");
    let copy = disk.fork();
    take_in(&mut open(&copy), now());
    let removal = methods(&copy, 0).iter().rposition(|method| *method == "remove").unwrap();
    disk.plan(removal, Fault::Fail(libc::EACCES));
    let mut spool = open(&disk);
    take_in(&mut spool, now());
    put(&disk, "1.msul1", b"another\n");
    assert_eq!(take_in(&mut spool, now()).stored, 1);
    assert_eq!(replay(&mut spool, true), ["once", "another"]);
}

#[test]
fn a_file_that_is_replaced_while_it_is_taken_in_is_not_removed_unread_and_its_successor_is_next() {
    let setting = || {
        let disk = new_disk();
        let spool = open(&disk);
        put(&disk, "1.msul1", b"first\n");
        (spool, disk)
    };
    let (mut spool, disk) = setting();
    let from = disk.operations().len();
    take_in(&mut spool, now());
    let removal = from + methods(&disk, from).iter().rposition(|method| *method == "remove").unwrap();
    let mut both = 0;
    // Between the last look and the removal nobody can know.
    for moment in from..removal {
        let (mut spool, disk) = setting();
        disk.replace_before(moment, &Path::new(INBOX).join("1.msul1"), b"second, and longer\n");
        let taken = take_in(&mut spool, now());
        assert_eq!((taken.stored, taken.corrupt), (1, 0), "replaced before operation {moment}");
        let left = there(&disk, "1.msul1");
        assert_eq!(taken.retry_at.is_some(), left, "what is left is asked for again");
        assert_eq!(take_in(&mut spool, now() + WRITER_PAUSE).stored, u64::from(left));
        assert!(!there(&disk, "1.msul1"));
        let all = replay(&mut spool, true);
        assert_eq!(all.last().map(String::as_str), Some("second, and longer"), "{moment}");
        both += usize::from(all == ["first", "second, and longer"]);
    }
    assert!(both > 2, "{both} of {} moments were behind the first look", removal - from);
}

#[test]
fn a_folder_without_files_may_be_missing_and_one_that_cannot_be_listed_is_tried_again() {
    let disk = new_disk();
    let mut spool = open(&disk);
    let taken = take_in(&mut spool, now());
    assert!(taken.retry_at.is_none() && taken.trouble.is_none(), "{taken:?}");
    disk.refuse("list", Path::new(INBOX), libc::EIO);
    let taken = take_in(&mut spool, now());
    assert!(taken.retry_at == Some(now() + WRITER_PAUSE) && taken.trouble.is_some(), "{taken:?}");
}

#[test]
fn a_file_that_comes_while_those_before_it_are_taken_in_has_its_turn_behind_them() {
    let disk = new_disk();
    let mut spool = open(&disk);
    for number in 0..TAKE_IN_MOST + 1 {
        put(&disk, &format!("{number:04}.msul1"), b"before\n");
    }
    assert!(take_in(&mut spool, now()).more);
    put(&disk, "9999.msul1", b"behind\n");
    spool.files_came();
    let taken = take_in(&mut spool, now());
    assert_eq!((taken.stored, taken.more), (1, true), "the last of those that were known");
    let taken = take_in(&mut spool, now());
    assert_eq!((taken.stored, taken.more), (1, false));
    assert_eq!(replay(&mut spool, true).last().map(String::as_str), Some("behind"));
    // Files that must be left for now are not looked at again and again for that.
    disk.set_now(now());
    put(&disk, "1.msul1", b"being written");
    spool.files_came();
    assert!(!take_in(&mut spool, now()).more);
}

#[test]
fn a_file_with_several_lines_sends_the_first_and_is_set_aside_for_the_others() {
    let disk = new_disk();
    let mut spool = open(&disk);
    put(&disk, "1.msul1", b"first\nsecond\nthird\n");
    put(&disk, "2.msul1", b"only blank lines follow\n\n\r\n");
    let long = [b"short\n".to_vec(), vec![b'x'; 200_000]].concat();
    put(&disk, "3.msul1", &long);
    let taken = take_in(&mut spool, now());
    assert_eq!((taken.stored, taken.corrupt), (3, 2));
    assert_eq!(replay(&mut spool, true), ["first", "only blank lines follow", "short"]);
    let files = disk.files();
    assert_eq!(files[&Path::new(DIR).join("corrupt/1.msul1")], b"first\nsecond\nthird\n");
    assert_eq!(files[&Path::new(DIR).join("corrupt/3.msul1")], long);
    assert!(["1.msul1", "2.msul1", "3.msul1"].iter().all(|name| !there(&disk, name)));
    assert_eq!(take_in(&mut open(&disk), now()).stored, 0, "it is not taken in again");
}

#[test]
fn a_file_that_has_another_name_is_set_aside_unread_and_one_whose_other_name_goes_is_taken() {
    let disk = new_disk();
    let mut spool = open(&disk);
    disk.set_now(now());
    let (secret, other) = (Path::new("/keys/secret"), Path::new("/delayed/3.tmp"));
    disk.put(secret, b"the key\n");
    disk.put_link(&Path::new(INBOX).join("1.msul1"), secret);
    put(&disk, "2.msul1", b"good\n");
    let from = disk.operations().len();
    // It may be one that is just being put in its place.
    let soon = now() + SignedDuration::from_secs(1);
    let taken = take_in(&mut spool, soon);
    assert_eq!((taken.stored, taken.corrupt, taken.retry_at), (1, 0, Some(soon + WRITER_PAUSE)));
    let taken = take_in(&mut spool, soon + WRITER_PAUSE);
    assert_eq!((taken.stored, taken.corrupt), (0, 1));
    let done = disk.operations();
    let mut touched = done[from..].iter().filter(|one| one.path.ends_with("1.msul1"));
    assert!(touched.all(|one| ["metadata", "rename"].contains(&one.method)), "it was opened: {done:?}");
    assert_eq!(replay(&mut spool, true), ["good"]);
    assert_eq!(disk.files()[&Path::new(DIR).join("corrupt/1.msul1")], b"the key\n");

    disk.set_now(soon + WRITER_PAUSE);
    disk.put(other, b"linked\n");
    disk.put_link(&Path::new(INBOX).join("3.msul1"), other);
    assert_eq!(take_in(&mut spool, soon + WRITER_PAUSE).stored, 0);
    disk.take_away(other);
    assert_eq!(take_in(&mut spool, soon + WRITER_PAUSE).stored, 1);
    assert_eq!(replay(&mut spool, true), ["linked"]);
}

#[test]
fn a_file_that_cannot_be_read_is_tried_again_for_half_a_minute_before_it_is_set_aside() {
    // It can be read again after a while.
    let disk = new_disk();
    let mut spool = open(&disk);
    put(&disk, "1.msul1", b"first\n");
    put(&disk, "2.msul1", b"second\n");
    let refuse = |disk: &FaultyDisk, code: i32| {
        let next = disk.operations().len();
        let opens = next + 2;
        // The metadata of the folder's list, then of the file; it is opened twice.
        for at in [opens, opens + 2] {
            disk.plan(at, Fault::Fail(code));
        }
    };
    refuse(&disk, libc::EIO);
    let taken = take_in(&mut spool, now());
    assert!(taken.trouble.is_some() && taken.corrupt == 0, "{taken:?}");
    assert_eq!((taken.stored, taken.retry_at), (0, Some(now() + WRITER_PAUSE)), "nothing overtakes it");
    let later = now() + WRITER_PAUSE;
    assert_eq!(take_in(&mut spool, later).stored, 2);
    assert_eq!(replay(&mut spool, true), ["first", "second"]);
    // It never can, and it is this file alone: the others are not held up.
    put(&disk, "3.msul1", b"third\n");
    put(&disk, "4.msul1", b"fourth\n");
    refuse(&disk, libc::EACCES);
    let taken = take_in(&mut spool, later);
    assert_eq!((taken.stored, taken.corrupt), (1, 0), "{taken:?}");
    refuse(&disk, libc::EACCES);
    assert_eq!(take_in(&mut spool, later + SignedDuration::from_secs(29)).corrupt, 0);
    refuse(&disk, libc::EACCES);
    assert_eq!(take_in(&mut spool, later + SignedDuration::from_secs(30)).corrupt, 1);
    assert!(disk.files().contains_key(&Path::new(DIR).join("corrupt/3.msul1")));
}

#[test]
fn names_that_were_listed_are_kept_for_the_next_call_and_those_behind_are_found_in_their_turn() {
    let disk = new_disk();
    let mut spool = open(&disk);
    for number in 0..5000 {
        put(&disk, &format!("{number:05}.msul1"), format!("{number}\n").as_bytes());
    }
    let mut more = true;
    while more {
        more = take_in(&mut spool, now()).more;
    }
    let done = disk.operations();
    let lists = done.iter().filter(|one| one.method == "list" && one.path == Path::new(INBOX));
    assert_eq!(lists.count(), 2);
    assert_eq!(replay(&mut spool, true), (0..5000).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn many_files_are_one_batch_and_what_is_done_for_nothing_is_counted_right() {
    let disk = new_disk();
    let mut spool = open(&disk);
    for name in ["1", "2", "3"] {
        put(&disk, &format!("{name}.msul1"), b"a request\n");
    }
    let from = disk.operations().len();
    assert_eq!(take_in(&mut spool, now()).stored, 3);
    let first = segments(&disk).into_keys().next().unwrap();
    let operations = disk.operations();
    let syncs = operations[from..].iter().filter(|one| one.method == "write_at" && one.path == first);
    assert_eq!(syncs.count(), 2, "its zeros, and all lines at once");
    // One of so many that the others have to wait is set aside, and one is stored: they have their
    // turn at once.
    disk.set_now(now());
    for number in 2..=TAKE_IN_MOST {
        put(&disk, &format!("{number:04}.msul1"), b"being written");
    }
    put(&disk, "0000.msul1", b"\n");
    put(&disk, "0001.msul1", b"good\n");
    let taken = take_in(&mut spool, now());
    assert_eq!((taken.stored, taken.corrupt, taken.more), (1, 1, true));
}

#[test]
fn a_file_that_is_gone_or_became_a_link_is_no_trouble_and_holds_nothing_up() {
    for (method, code) in [("open", libc::ENOENT), ("open", libc::ELOOP), ("metadata", libc::ENOENT)] {
        let disk = new_disk();
        let mut spool = open(&disk);
        put(&disk, "1.msul1", b"gone\n");
        put(&disk, "2.msul1", b"there\n");
        disk.refuse(method, &Path::new(INBOX).join("1.msul1"), code);
        let taken = take_in(&mut spool, now());
        assert_eq!((taken.stored, taken.retry_at), (1, None), "{method} {code}");
        assert!(taken.trouble.is_none());
    }
    // Someone removes it between its storing and its removal.
    let disk = new_disk();
    let mut spool = open(&disk);
    put(&disk, "1.msul1", b"once\n");
    disk.refuse("remove", &Path::new(INBOX).join("1.msul1"), libc::ENOENT);
    let taken = take_in(&mut spool, now());
    assert_eq!((taken.stored, taken.retry_at), (1, None));
}

#[test]
fn what_cannot_be_moved_away_stays_and_no_other_way_is_tried() {
    let disk = new_disk();
    let mut spool = open(&disk);
    put(&disk, "1.msul1", b"\n");
    disk.refuse("rename", &Path::new(INBOX).join("1.msul1"), libc::EIO);
    let from = disk.operations().len();
    assert_eq!(take_in(&mut spool, now()).corrupt, 0);
    assert!(there(&disk, "1.msul1"));
    assert_eq!(methods(&disk, from).iter().filter(|method| **method == "rename").count(), 1);
    take_in(&mut spool, now());
    assert_eq!(methods(&disk, from).iter().filter(|method| **method == "rename").count(), 1, "nor once more");
}

#[test]
fn the_longest_request_may_lack_its_newline_and_a_pause_is_over_when_it_is() {
    let disk = new_disk();
    let mut spool = open(&disk);
    disk.set_now(now());
    put(&disk, "long.msul1", &vec![b'x'; MAX_REQUEST]);
    let early = now() + WRITER_PAUSE - SignedDuration::from_nanos(1);
    assert_eq!(take_in(&mut spool, early).stored, 0);
    let taken = take_in(&mut spool, now() + WRITER_PAUSE);
    assert_eq!((taken.stored, taken.corrupt), (1, 0));
}

#[test]
fn what_comes_far_behind_the_first_line_is_not_lost() {
    let disk = new_disk();
    let mut spool = open(&disk);
    let far = [b"first".to_vec(), vec![b'\n'; 100_000], b"second\n".to_vec()].concat();
    put(&disk, "1.msul1", &far);
    let taken = take_in(&mut spool, now());
    assert_eq!((taken.stored, taken.corrupt), (1, 1));
    assert_eq!(disk.files()[&Path::new(DIR).join("corrupt/1.msul1")], far);
}

#[test]
fn a_file_is_not_set_aside_because_this_process_lacks_something() {
    for code in [libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
        let disk = new_disk();
        let mut spool = open(&disk);
        put(&disk, "1.msul1", b"a request\n");
        disk.refuse("open", &Path::new(INBOX).join("1.msul1"), code);
        for seconds in [0, 30, 60] {
            assert_eq!(take_in(&mut spool, now() + SignedDuration::from_secs(seconds)).corrupt, 0);
        }
        disk.heal();
        assert_eq!(take_in(&mut spool, now() + SignedDuration::from_secs(61)).stored, 1);
    }
}

#[test]
fn a_file_that_could_not_be_removed_is_remembered_until_it_is_known_to_be_gone() {
    let disk = new_disk();
    let mut spool = open(&disk);
    put(&disk, "1.msul1", b"once\n");
    let path = &Path::new(INBOX).join("1.msul1");
    disk.refuse("remove", path, libc::EIO);
    assert_eq!(take_in(&mut spool, now()).stored, 1);
    disk.heal();
    disk.refuse("metadata", path, libc::EIO);
    assert!(take_in(&mut spool, now()).retry_at.is_some(), "nobody knows");
    disk.heal();
    disk.take_away(path);
    assert_eq!(take_in(&mut spool, now()).retry_at, None);
    put(&disk, "1.msul1", b"another\n");
    take_in(&mut spool, now());
    assert_eq!(replay(&mut spool, true), ["once", "another"]);
}

#[test]
fn no_more_files_that_stay_are_remembered_than_is_said() {
    let disk = new_disk();
    let mut spool = open(&disk);
    put(&disk, "0.msul1", b"stored, and stays\n");
    disk.refuse("remove", &Path::new(INBOX).join("0.msul1"), libc::EIO);
    take_in(&mut spool, now());
    spool.stuck.extend((2..10_000).map(|number| format!("{number}.msul1").into()));
    assert!(take_in(&mut spool, now()).trouble.is_none());
    spool.stuck.insert("1.msul1".into());
    assert!(take_in(&mut spool, now()).trouble.is_some());
}

#[test]
fn a_file_with_another_name_is_said_to_have_one() {
    let disk = new_disk();
    put(&disk, "1.msul1", b"linked\n");
    disk.put_link(&Path::new(INBOX).join(".1"), &Path::new(INBOX).join("1.msul1"));
    let said = |now| {
        let mut said = Vec::new();
        let path = &Path::new(INBOX).join("1.msul1");
        crate::spool::check_dropped(&mut disk.clone(), path, now, &mut |finding| said.push(finding.what));
        said.concat()
    };
    let written = disk.clone().metadata(&Path::new(INBOX).join("1.msul1")).unwrap().modified;
    assert_eq!(said(written), "it has another name, and waits for that to go");
    let old = said(written + WRITER_PAUSE);
    assert!(old.starts_with("it has another name as well, and was not read"), "{old}");
}
