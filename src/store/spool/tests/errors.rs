//! What each error of a step leads to, and what none is.

use super::*;
use crate::spool::aside::{DamageCopy, copy_of};
use crate::spool::survey;
use base::disk::own::own_new;

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// How often something was done to a path.
fn done(disk: &FaultyDisk, method: &str, path: &Path) -> usize {
    disk.operations().iter().filter(|one| one.method == method && one.path == path).count()
}

#[test]
fn a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one() {
    let disk = new_disk();
    store_well(&mut open(&disk), &["waits"]);
    for name in ["", "failed", "corrupt"] {
        disk.refuse("list", &path(name), libc::EIO);
        let mut spool = open(&disk);
        assert!(spool.trouble().is_some(), "{name:?}");
        assert!(store(&mut spool, &["new"])[0].is_err(), "{name:?}");
        disk.heal();
        assert_eq!(replay(&mut spool, false), ["waits"], "{name:?}");
    }
}

#[test]
fn an_epoch_that_cannot_be_read_is_not_replaced_and_one_that_goes_on_is_damaged() {
    let disk = new_disk();
    let mut spool = open(&disk);
    store_well(&mut spool, &["waits"]);
    let before = disk.files()[&path("epoch")].clone();
    disk.refuse("open", &path("epoch"), libc::EIO);
    assert!(open(&disk).trouble().is_some());
    assert_eq!(disk.files()[&path("epoch")], before);
    disk.heal();
    disk.put(&path("epoch"), &[&before[..], b"x"].concat());
    open(&disk);
    assert_ne!(disk.files()[&path("epoch")], before);
    assert!(disk.files().keys().any(|name| name.starts_with(path("corrupt"))));
}

#[test]
fn a_folder_that_cannot_be_made_is_not_tried_another_way() {
    let disk = new_disk();
    disk.refuse("make_folder", &path(""), libc::EIO);
    assert!(open(&disk).trouble().is_some());
    assert_eq!(done(&disk, "make_folder", Path::new("/delayed")), 0, "that one is there");
}

#[test]
fn nothing_is_made_behind_what_is_not_there() {
    let disk = new_disk();
    assert!(open(&disk).is_empty());
    assert!(segments(&disk).is_empty());
}

#[test]
fn what_is_refused_is_set_aside_past_what_stands_in_its_way_and_else_says_its_cause() {
    let disk = new_disk();
    let mut spool = open(&disk);
    store_well(&mut spool, &["one", "two", "three"]);
    replay(&mut spool, false);
    disk.take_away(&path("failed"));
    spool.set_aside(Sequence(1), b"one", b"refused", now()).unwrap();
    disk.put(&path("failed").join(own_new()), b"left over");
    spool.set_aside(Sequence(2), b"two", b"refused", now()).unwrap();
    let failed = || disk.files().into_keys().filter(|name| name.starts_with(path("failed"))).count();
    assert_eq!((failed(), spool.waiting().failed), (2, 2));
    disk.refuse("create", &path("failed").join(own_new()), libc::EIO);
    let error = spool.set_aside(Sequence(3), b"three", b"refused", now()).unwrap_err();
    assert_eq!(error.cause.raw_os_error(), Some(libc::EIO));
    assert_eq!(done(&disk, "create", &path("failed").join(own_new())), 5, "two, twice each, and one");
    assert_eq!(spool.waiting().messages, 1);
}

#[test]
fn a_copy_of_damage_is_known_by_its_bytes() {
    let disk = new_disk();
    let folder = path("corrupt");
    let look = |damage: &[u8]| copy_of(&mut disk.clone(), &folder, Sequence(1), 7, damage);
    let short = "00000000000000000001.seg@7".to_owned();
    assert_eq!(look(b"damage").unwrap(), DamageCopy::Missing(short.clone()));
    disk.put(&folder.join(&short), b"damage");
    assert_eq!(look(b"damage").unwrap(), DamageCopy::There(short.clone()));
    for other in [&b"damag"[..], b"damage that went on"] {
        disk.put(&folder.join(&short), other);
        let DamageCopy::Missing(long) = look(b"damage").unwrap() else { panic!("{other:?}") };
        assert!(long.starts_with(&short) && long != short);
    }
    disk.refuse("open", &folder.join(&short), libc::EIO);
    assert_eq!(look(b"damage").unwrap_err().cause.raw_os_error(), Some(libc::EIO));
}

#[test]
fn a_sick_disk_is_not_asked_again_for_each_message() {
    let disk = new_disk();
    let mut spool = open(&disk);
    let first = disk.operations().len();
    disk.plan(first, Fault::FailFrom(libc::EIO));
    let long = "x".repeat(900);
    assert!(store(&mut spool, &[long.as_str(); 20]).iter().all(Result::is_err));
    assert_eq!(methods(&disk, first).iter().filter(|method| **method == "create").count(), 1);
}

#[test]
fn a_segment_of_no_bytes_that_a_start_left_gets_its_zeros() {
    let disk = new_disk();
    store_well(&mut open(&disk), &["waits"]);
    drop(open(&disk));
    assert_eq!(segments(&disk).values().map(Vec::len).collect::<Vec<_>>(), [SEGMENT as usize, 0]);
    let mut spool = open(&disk);
    store_well(&mut spool, &["new"]);
    assert_eq!(segments(&disk).values().map(Vec::len).collect::<Vec<_>>(), [SEGMENT as usize; 2]);
    assert_eq!(replay(&mut open(&disk), false), ["waits", "new"]);
}

/// A spool whose next segment was made ahead.
fn with_spare() -> FaultyDisk {
    let disk = new_disk();
    store_well(&mut open(&disk), &["x".repeat(SEGMENT as usize / 5 * 4).as_str()]);
    assert!(disk.files().contains_key(&path("spare")));
    disk
}

#[test]
fn a_segment_that_was_made_ahead_is_used_after_a_start_if_it_is_whole() {
    for (change, used) in [
        (None, true),
        (Some(vec![0; SEGMENT as usize - 1]), false),
        (Some(vec![0; SEGMENT as usize + 1]), false),
        (Some([vec![0; SEGMENT as usize - 1], b"x".to_vec()].concat()), false),
    ] {
        let disk = with_spare();
        if let Some(bytes) = &change {
            disk.put(&path("spare"), bytes);
        }
        let mut spool = open(&disk);
        // The first fills the segment that the start has made, the second needs another.
        let long = "y".repeat(SEGMENT as usize / 5 * 4);
        store_well(&mut spool, &[&long]);
        let made = done(&disk, "create", &path("spare"));
        assert_eq!(made, if used { 1 } else { 2 }, "{:?}", change.map(|bytes| bytes.len()));
        store_well(&mut spool, &[&long]);
        assert_eq!(replay(&mut open(&disk), false).len(), 3);
    }
}

#[test]
fn a_segment_that_cannot_be_made_ahead_is_tried_once() {
    let disk = new_disk();
    let mut spool = open(&disk);
    disk.refuse("create", &path("spare"), libc::ENOSPC);
    store_well(&mut spool, &["x".repeat(SEGMENT as usize / 5 * 4).as_str()]);
    for _ in 0..2 {
        store_well(&mut spool, &["1"]);
    }
    assert_eq!(done(&disk, "create", &path("spare")), 1);
}

#[test]
fn a_read_is_tried_as_often_as_is_said_and_no_more() {
    let disk = new_disk();
    store_well(&mut open(&disk), &["waits"]);
    let mut spool = open(&disk);
    let first = segments(&disk).into_keys().next().unwrap();
    disk.refuse("open", &first, libc::EIO);
    disk.refuse("read_at", &first, libc::EIO);
    let from = disk.operations().len();
    spool.next_unsent().unwrap_err();
    let tried = methods(&disk, from).iter().filter(|method| ["open", "read_at"].contains(method)).count();
    assert_eq!(tried, survey::READ_TRIES);
    assert!(!spool.is_unsent_before(Sequence(1)) && spool.is_unsent_before(Sequence(2)));
}

#[test]
fn the_largest_segment_is_read_and_no_larger_file() {
    let mut disk = new_disk();
    let (name, most) = (path("00000000000000000001.seg"), segment::MAX_SEGMENT_BYTES as usize);
    for (length, read) in [(most, true), (most + 1, false)] {
        disk.put(&name, &vec![0; length]);
        let mut size = 0;
        assert_eq!(survey::read_segment(&mut disk, &name, &mut size).is_ok(), read);
        assert_eq!(size, length as u64);
    }
}

#[test]
fn hidden_names_are_nobodys_business() {
    let disk = new_disk();
    store_well(&mut open(&disk), &["waits"]);
    disk.put(&path(".hidden"), b"");
    disk.put(&path("shown"), b"");
    let names = survey::names(&mut disk.clone(), Path::new(DIR)).unwrap();
    assert_eq!((names.segments.len(), names.foreign), (1, vec!["shown".into()]));
}

#[test]
fn a_segment_or_folder_that_someone_removed_takes_no_further_message_with_it() {
    let disk = new_disk();
    let mut spool = open(&disk);
    store_well(&mut spool, &["lost"]);
    disk.take_away(&segments(&disk).into_keys().next().unwrap());
    store_well(&mut spool, &["kept"]);
    assert_eq!(replay(&mut open(&disk), false), ["kept"]);
    let disk = new_disk();
    let mut spool = open(&disk);
    disk.take_away(Path::new(DIR));
    store_well(&mut spool, &["stored at once"]);
    assert_eq!(replay(&mut open(&disk), false), ["stored at once"]);
}

#[test]
fn a_name_that_is_taken_is_not_tried_twice() {
    let disk = new_disk();
    store_well(&mut open(&disk), &["waits"]);
    let next = path(&layout::segment_name(open(&disk.fork()).queue.next_sequence()));
    disk.refuse("create", &next, libc::EEXIST);
    let mut spool = open(&disk);
    store_well(&mut spool, &["new"]);
    assert_eq!(done(&disk, "create", &next), 1);
    assert_eq!(replay(&mut spool, false), ["waits", "new"]);
}

#[test]
fn what_counts_as_sent_is_all_that_is_located() {
    let disk = new_disk();
    store_well(&mut open(&disk), &["1", "2", "3", "4", "5"]);
    let mut spool = open(&disk);
    spool.sent_through(Sequence(2));
    assert_eq!(spool.queue.located(), 2);
    assert_eq!(replay(&mut spool, false), ["3", "4", "5"]);
}

#[test]
fn what_is_stored_behind_lines_that_were_wiped_out_comes() {
    let disk = new_disk();
    let mut spool = open(&disk);
    store_well(&mut spool, &["1", "2"]);
    spool.next_unsent().unwrap();
    let first = segments(&disk).into_keys().next().unwrap();
    let mut other = disk.clone();
    let file = other.open(&first, true).unwrap();
    other.write_at(&file, 0, &[0; SEGMENT as usize]).unwrap();
    drop(spool);
    let mut spool = open(&disk);
    store_well(&mut spool, &["1", "2", "3"]);
    spool.next_unsent().unwrap();
    let last = segments(&disk).into_keys().next_back().unwrap();
    let file = other.open(&last, true).unwrap();
    other
        .write_at(&file, record::line_len(None, b"1"), &vec![0; 2 * record::line_len(None, b"1") as usize])
        .unwrap();
    spool.window = Default::default();
    assert!(spool.next_unsent().unwrap().is_none());
    store_well(&mut spool, &["new"]);
    assert_eq!(replay(&mut spool, false), ["new"]);
}

#[test]
fn a_segment_that_cannot_be_removed_counts_and_one_that_is_gone_does_not() {
    for (code, stays) in [(libc::EIO, true), (libc::ENOENT, false)] {
        let disk = new_disk();
        let mut spool = open(&disk);
        store_well(&mut spool, &["x".repeat(900).as_str(); 2]);
        let first = segments(&disk).into_keys().next().unwrap();
        disk.refuse("remove", &first, code);
        replay(&mut spool, true);
        assert_eq!(spool.queue.disk_bytes() == 2 * SEGMENT, stays, "{code}");
        assert_eq!(done(&disk, "remove", &first), 1);
    }
}

#[test]
fn a_segment_of_nothing_but_damage_stays_until_that_is_copied() {
    let disk = new_disk();
    store_well(&mut open(&disk), &["one"]);
    let (first, mut bytes) = segments(&disk).into_iter().next().unwrap();
    bytes[72] ^= 1;
    disk.put(&first, &bytes);
    disk.put(&path("corrupt").join(own_new()).join("in the way"), b"");
    drop(open(&disk));
    assert!(disk.files().contains_key(&first));
    disk.take_away(&path("corrupt").join(own_new()));
    drop(open(&disk));
    assert!(!disk.files().contains_key(&first));
}

/// Three segments, each with a message.
fn one_in_each_of_three() -> (FaultyDisk, Spool<FaultyDisk>, Vec<PathBuf>) {
    let disk = new_disk();
    let mut spool = open(&disk);
    store_well(&mut spool, &["a".repeat(900).as_str(), &"b".repeat(900), &"c".repeat(900)]);
    let paths: Vec<_> = segments(&disk).into_keys().collect();
    assert_eq!(paths.len(), 3);
    (disk, spool, paths)
}

#[test]
fn a_segment_that_someone_removed_is_found_out_when_its_turn_comes_and_not_waited_for() {
    let (disk, mut spool, paths) = one_in_each_of_three();
    disk.take_away(&paths[1]);
    assert_eq!(spool.next_unsent().unwrap().unwrap().sequence, Sequence(1));
    assert!(spool.next_unsent().unwrap_err().is_missing());
    assert_eq!(spool.waiting().messages, 2, "what waited in it is lost");
    let first: Vec<_> = replay(&mut spool, true).iter().map(|text| text[..1].to_owned()).collect();
    assert_eq!(first, ["a", "c"], "what was sent and not settled is unsent again");
}

#[test]
fn a_segment_that_was_wiped_out_before_its_turn_is_passed_to_its_end() {
    let (disk, mut spool, paths) = one_in_each_of_three();
    disk.put(&paths[1], &[0; SEGMENT as usize]);
    let first: Vec<_> = replay(&mut spool, true).iter().map(|text| text[..1].to_owned()).collect();
    assert_eq!(first, ["a", "c"]);
    assert!(spool.is_empty());
}

#[test]
fn the_name_of_a_segment_that_could_not_be_made_is_taken_again_if_nothing_bears_it() {
    for (code, again) in [(libc::EIO, false), (libc::ENOENT, true)] {
        let disk = new_disk();
        let mut spool = open(&disk);
        let name = path(&layout::segment_name(Sequence(1)));
        disk.refuse("write_at", &name, libc::ENOSPC);
        disk.refuse("remove", &name, code);
        assert!(store(&mut spool, &["refused"])[0].is_err());
        disk.heal();
        if again {
            disk.take_away(&name);
        }
        store_well(&mut spool, &["stored"]);
        assert_eq!(done(&disk, "create", &name), 1 + usize::from(again), "{code}");
        assert_eq!(replay(&mut open(&disk), false), ["stored"]);
    }
}

#[test]
fn a_folder_that_another_process_has_is_told_from_one_in_trouble() {
    for (code, anothers) in [(libc::EBUSY, true), (libc::EIO, false)] {
        let disk = new_disk();
        disk.refuse("list", &path(""), code);
        let mut spool = open(&disk);
        assert_eq!((spool.trouble().is_some(), spool.is_anothers()), (true, anothers));
        disk.heal();
        store_well(&mut spool, &["stored"]);
        assert!(!spool.is_anothers());
    }
}
