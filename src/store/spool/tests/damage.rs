//! Damaged, cut, foreign and unreadable files.

use super::*;

const REQUESTS: [&str; 5] = ["one", "second message", "3", "the fourth", "five"];

/// A disk with one small segment, and the segment's path and lines.
fn small() -> (FaultyDisk, PathBuf, Vec<u8>) {
    let disk = new_disk();
    let mut spool = open(&disk);
    store_well(&mut spool, &REQUESTS);
    let path = spool.segment_path(Sequence(1));
    let mut bytes = disk.files()[&path].clone();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes.truncate(used);
    (disk, path, bytes)
}

/// Which line a byte is in, and its place there.
fn line_of(bytes: &[u8], place: usize) -> (usize, usize) {
    let before = &bytes[..place];
    let line = before.iter().filter(|byte| **byte == b'\n').count();
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    (line, place - start)
}

fn corrupt(disk: &FaultyDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(DIR).join("corrupt");
    disk.files().into_iter().filter(|(path, _)| path.starts_with(&folder)).collect()
}

#[test]
fn every_changed_byte_is_found_set_aside_once_and_hides_no_neighbour() {
    let (original, path, lines) = small();
    let mut seen = 0;
    for place in 0..lines.len() {
        for change in [0xff, 1, 4, 0x20, 0x80, lines[place] ^ b'\n', lines[place]] {
            let (mut damaged, disk) = (lines.clone(), original.fork());
            damaged[place] ^= change;
            if damaged == lines {
                continue;
            }
            seen += 1;
            disk.put(&path, &damaged);
            let (line, column) = line_of(&lines, place);
            let is_newline = lines[place] == b'\n';
            let lost = !is_newline && column != record::MARK_AT;
            let expected: Vec<&str> = REQUESTS
                .iter()
                .enumerate()
                .filter(|(index, _)| !(lost && *index == line))
                .map(|(_, text)| *text)
                .collect();
            let context = format!("byte {place} changed by {change:#x}");
            let mut spool = open(&disk);
            assert_eq!(spool.waiting().messages as usize, expected.len(), "{context}");
            assert_eq!(replay(&mut spool, false), expected, "{context}");
            let copies = corrupt(&disk);
            // A newline at the very end that became zero is no damage: all is there.
            let at_end = place + 1 == lines.len() && damaged[place] == 0;
            let damage = usize::from(lost || (is_newline && !at_end));
            assert_eq!(copies.len(), damage, "{context}");
            assert_eq!(spool.waiting().corrupt as usize, damage, "{context}");
            if lost {
                let end =
                    place - column + lines[place - column..].iter().position(|b| *b == b'\n').unwrap() + 1;
                assert_eq!(copies[0].1, damaged[place - column..end], "{context}");
            }
            // Not again at the next start, and nothing of it is lost.
            let mut again = open(&disk);
            assert_eq!(corrupt(&disk), copies, "{context}");
            assert_eq!(replay(&mut again, true), expected, "{context}");
            let stored = store_well(&mut again, &["new"])[0];
            assert!(stored > Sequence(5), "{context}: {stored} may have been used");
            assert_eq!(replay(&mut again, true), ["new"]);
            assert!(
                !disk.files().contains_key(&path),
                "{context}: the segment goes once its damage is copied"
            );
        }
    }
    assert!(seen > 2000);
}

#[test]
fn every_truncation_keeps_what_is_whole_and_sets_the_rest_aside() {
    let (original, path, lines) = small();
    for length in 0..lines.len() {
        let disk = original.fork();
        disk.put(&path, &lines[..length]);
        // All of a line but its newline is a whole message.
        let whole = lines[..length].iter().filter(|byte| **byte == b'\n').count()
            + usize::from(lines[length] == b'\n');
        let torn = lines[length] != b'\n' && length > 0 && lines[length - 1] != b'\n';
        let mut spool = open(&disk);
        assert_eq!(replay(&mut spool, true), REQUESTS[..whole], "cut at {length}");
        assert_eq!(corrupt(&disk).len(), usize::from(torn), "cut at {length}");
        assert_eq!(store(&mut spool, &["new"]).iter().filter(|result| result.is_ok()).count(), 1);
        assert_eq!(replay(&mut spool, true), ["new"]);
    }
}

#[test]
fn a_segment_of_garbage_does_not_hide_the_segments_around_it() {
    let disk = new_disk();
    let mut spool = open(&disk);
    let texts: Vec<String> = (0..30).map(|number| format!("{number:0>100}")).collect();
    store_well(&mut spool, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    let paths: Vec<PathBuf> = segments(&disk).into_keys().collect();
    assert!(paths.len() > 4);
    let garbage: Vec<u8> = (0..SEGMENT).map(|index| (index * 7 % 251) as u8).collect();
    disk.put(&paths[1], &garbage);
    let mut spool = open(&disk);
    let found = replay(&mut spool, true);
    assert_eq!(found.len(), 25, "a segment holds five");
    assert!(found.iter().all(|text| texts.contains(text)) && found.is_sorted());
    assert_eq!(corrupt(&disk).len(), 1);
    assert_eq!(corrupt(&disk)[0].1, garbage[..]);
}

#[test]
fn damage_that_cannot_be_copied_keeps_its_segment() {
    let (disk, path, mut lines) = small();
    lines[80] ^= 1;
    disk.put(&path, &lines);
    // Everything that writes to corrupt/ fails; the rest does not.
    let new = Path::new(DIR).join("corrupt").join(base::disk::own::own_new());
    disk.put(&new.join("in the way"), b"");
    let mut spool = open(&disk);
    assert_eq!(replay(&mut spool, true).len(), 4);
    assert!(disk.files().contains_key(&path));
    disk.take_away(&new);
    let spool = open(&disk);
    assert!(spool.is_empty());
    assert_eq!(corrupt(&disk).len(), 1);
    assert!(!disk.files().contains_key(&path));
}

#[test]
fn what_rots_while_the_spool_is_open_is_set_aside_too() {
    let disk = new_disk();
    let mut spool = open(&disk);
    store_well(&mut spool, &REQUESTS);
    let mut other = disk.clone();
    let file = other.open(&spool.segment_path(Sequence(1)), true).unwrap();
    other.write_at(&file, 90, b"?").unwrap();
    assert_eq!(replay(&mut spool, true), ["one", "3", "the fourth", "five"]);
    assert!(spool.is_empty(), "what is gone does not wait");
    assert_eq!(spool.waiting().corrupt, 1);
}

#[test]
fn a_segment_that_cannot_be_read_and_foreign_files_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("delayed/msul1");
    let mut spool = Spool::open_with_segments(RealDisk, &dir, limits(), SEGMENT);
    store_well(&mut spool, &["x"; 40]);
    drop(spool);
    std::fs::create_dir(dir.join("00000000000000000003.seg")).unwrap();
    std::fs::write(dir.join("README"), "someone's").unwrap();
    let mut spool = Spool::open_with_segments(RealDisk, &dir, limits(), SEGMENT);
    assert_eq!(replay(&mut spool, true).len(), 40, "those before and behind it come");
    assert!(store_well(&mut spool, &["new"])[0] > Sequence(40));
    assert_eq!(replay(&mut spool, true), ["new"]);
    assert!(dir.join("00000000000000000003.seg").is_dir());
    assert_eq!(std::fs::read_to_string(dir.join("README")).unwrap(), "someone's");
}

/// Fifteen messages in three segments.
fn fifteen(disk: &FaultyDisk) -> Vec<String> {
    let texts: Vec<String> = (0..15).map(|number| format!("{number:0>100}")).collect();
    store_well(&mut open(disk), &texts.iter().map(String::as_str).collect::<Vec<_>>());
    texts
}

/// The next so many calls of the disk fail.
fn cannot_be_read(disk: &FaultyDisk, calls: usize) {
    let from = disk.operations().len();
    (from..from + calls).for_each(|number| disk.plan(number, Fault::Fail(libc::EIO)));
}

#[test]
fn a_segment_that_fails_to_be_read_at_the_start_keeps_its_place_and_comes_in_its_turn() {
    let disk = new_disk();
    let texts = fifteen(&disk);
    let path = segments(&disk).into_keys().next().unwrap();
    let bytes = disk.files()[&path].clone();
    // Larger than any segment: it fails at each try.
    disk.put(&path, &vec![0; segment::MAX_SEGMENT_BYTES as usize + 1]);
    let mut spool = open(&disk);
    assert!(!spool.is_empty() && spool.has_unsent() && spool.waiting().messages == 10);
    assert!(store_well(&mut spool, &["new"])[0] > Sequence(15));
    spool.next_unsent().unwrap_err();
    disk.put(&path, &bytes);
    let all: Vec<String> = texts.iter().cloned().chain(["new".to_owned()]).collect();
    assert_eq!(replay(&mut spool, true), all);
    assert!(spool.is_empty() && !spool.passes_over());
}

#[test]
fn a_read_that_fails_is_tried_again_in_its_turn_and_nothing_overtakes_it() {
    let disk = new_disk();
    let texts = fifteen(&disk);
    let mut spool = open(&disk);
    // The first message is read again, from the first segment: once it fails ...
    cannot_be_read(&disk, 1);
    assert_eq!(spool.next_unsent().unwrap().unwrap().request, texts[0].as_bytes());
    // ... then the rest of that segment, as often as is endured.
    for _ in 1..reread::READ_PATIENCE {
        cannot_be_read(&disk, 3);
        let error = spool.next_unsent().unwrap_err();
        assert!(error.to_string().starts_with("read /delayed/msul1/"), "{error}");
        disk.heal();
    }
    assert_eq!(replay(&mut spool, true), texts[1..]);
}

#[test]
fn a_read_that_goes_on_failing_does_not_stop_the_rest_for_ever_and_is_tried_again() {
    let disk = new_disk();
    let texts = fifteen(&disk);
    let mut spool = open(&disk);
    assert_eq!(spool.next_unsent().unwrap().unwrap().request, texts[0].as_bytes());
    for _ in 0..reread::READ_PATIENCE {
        cannot_be_read(&disk, 3);
        spool.next_unsent().unwrap_err();
        disk.heal();
    }
    let below = spool.settled_below();
    assert!(spool.passes_over());
    assert_eq!(replay(&mut spool, true), texts[5..], "the segments behind it");
    assert!(!spool.is_empty() && !spool.has_unsent());
    assert_eq!(spool.settled_below(), below, "what was passed over is not settled");
    cannot_be_read(&disk, 3);
    spool.reread().unwrap_err();
    disk.heal();
    assert!(spool.reread().unwrap() && !spool.passes_over());
    assert_eq!(replay(&mut spool, true), texts[1..5], "the first is on its way");
    spool.settle(Sequence(1));
    assert!(spool.is_empty() && spool.waiting() == Waiting::default());
    assert!(!spool.reread().unwrap());
}

#[test]
fn a_segment_that_is_passed_over_unseen_is_counted_when_it_can_be_read_again() {
    let disk = new_disk();
    let texts = fifteen(&disk);
    let path = segments(&disk).into_keys().next().unwrap();
    let bytes = disk.files()[&path].clone();
    disk.put(&path, &vec![0; segment::MAX_SEGMENT_BYTES as usize + 1]);
    let mut spool = open(&disk);
    for _ in 0..reread::READ_PATIENCE {
        spool.next_unsent().unwrap_err();
    }
    assert_eq!(replay(&mut spool, true), texts[5..]);
    assert!(spool.is_empty() && spool.passes_over());
    disk.put(&path, &bytes);
    assert!(spool.reread().unwrap());
    assert_eq!(spool.waiting().messages, 5);
    assert_eq!(replay(&mut spool, true), texts[..5]);
    assert!(spool.is_empty());
}

#[test]
fn a_segment_that_could_be_read_again_stays_if_damage_in_it_cannot_be_copied() {
    for copied in [true, false] {
        let disk = new_disk();
        let texts = fifteen(&disk);
        let path = segments(&disk).into_keys().next().unwrap();
        let mut bytes = disk.files()[&path].clone();
        disk.put(&path, &vec![0; segment::MAX_SEGMENT_BYTES as usize + 1]);
        let mut spool = open(&disk);
        for _ in 0..reread::READ_PATIENCE {
            spool.next_unsent().unwrap_err();
        }
        assert_eq!(replay(&mut spool, true), texts[5..]);
        // The first of its five messages.
        bytes[80] ^= 1;
        disk.put(&path, &bytes);
        if !copied {
            let new = Path::new(DIR).join("corrupt").join(base::disk::own::own_new());
            disk.put(&new.join("in the way"), b"");
        }
        assert!(spool.reread().unwrap());
        assert_eq!(replay(&mut spool, true), texts[1..5]);
        assert_eq!(disk.files().contains_key(&path), !copied);
    }
}

#[test]
fn a_message_that_was_found_and_cannot_be_read_again_is_passed_over_too() {
    let disk = new_disk();
    let texts = fifteen(&disk);
    let path = segments(&disk).into_keys().next().unwrap();
    let mut spool = open(&disk);
    disk.refuse("read_at", &path, libc::EIO);
    // The first, which was found at the start, and then the rest of its segment.
    for _ in 0..2 * reread::READ_PATIENCE {
        spool.next_unsent().unwrap_err();
    }
    assert_eq!(replay(&mut spool, true), texts[5..]);
    disk.heal();
    assert!(spool.passes_over() && spool.reread().unwrap());
    assert_eq!(replay(&mut spool, true), texts[..5]);
    assert!(spool.is_empty() && !spool.passes_over());
}
