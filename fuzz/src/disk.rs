//! What is found on disk at a start: a peer's spool, files that were dropped in, and a caller's
//! record.

use super::files;
use jiff::{SignedDuration, Timestamp};
use lonnet::base::Sequence;
use lonnet::base::disk::FaultyDisk;
use lonnet::store::record::{self, Look, Record};
use lonnet::store::spool::SpoolLimits;
use lonnet::store::spool::inbox_owner;
use lonnet::store::spool::{Finding, Spool, Told, check, check_dropped};
use std::path::Path;

const DELAYED: &str = "/delayed";
const SPOOL: &str = "/delayed/msul1";
const RECORD: &str = "/delayed/.received/msul1";

fn open(disk: &FaultyDisk) -> Spool<FaultyDisk> {
    let limits = SpoolLimits { messages: 1000, bytes: 1 << 20, keep_free: 0 };
    Spool::open_with_segments(disk.clone(), Path::new(SPOOL), limits, 4096)
}

fn replay(spool: &mut Spool<FaultyDisk>) -> Vec<(Sequence, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some(message) = spool.next_unsent().expect("a disk without faults") {
        found.push((message.sequence, message.request));
    }
    found
}

/// What waits, and how much damage there is, as a check sees it.
fn look(disk: &FaultyDisk) -> (Vec<(Sequence, Vec<u8>)>, u64) {
    let mut waits = Vec::new();
    let tally = check(&mut disk.clone(), Path::new(SPOOL), &mut || {}, &mut |told| match told {
        Told::Waits(record) => waits.push((record.sequence, record.request.to_vec())),
        Told::Finding(finding) => assert!(!finding.to_string().contains('\n'), "{finding}"),
    });
    (waits, tally.expect("a disk without faults").damaged)
}

fn corrupt(disk: &FaultyDisk) -> u64 {
    let folder = Path::new(SPOOL).join("corrupt");
    disk.files().keys().filter(|path| path.starts_with(&folder)).count() as u64
}

/// A spool's folder: a start sets aside what a check calls damage, delivers what a check says that
/// waits, in order, and the same at the next start; what is stored then comes behind it.
pub fn spool(bytes: &[u8]) {
    let disk = FaultyDisk::new(&[Path::new(DELAYED)]);
    for (name, content) in files(bytes) {
        let plain = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
        // Subfolders are what they are.
        if plain && !["failed", "corrupt"].contains(&name.as_str()) {
            disk.put(&Path::new(SPOOL).join(name), &content);
        }
    }
    let before = disk.files();
    let (waits, damaged) = look(&disk);
    assert_eq!(disk.files(), before, "a check changes nothing");
    let mut spool = open(&disk);
    let found = replay(&mut spool);
    assert!(spool.trouble().is_none());
    assert_eq!(found, waits);
    assert_eq!(corrupt(&disk), damaged);
    assert!(found.is_sorted_by(|a, b| a.0 < b.0));
    drop(spool);
    assert_eq!(look(&disk), (waits, 0), "all damage is set aside");
    let mut spool = open(&disk);
    let mut expected = found;
    match spool.store(&[b"new"], Timestamp::UNIX_EPOCH).remove(0) {
        Ok(stored) => expected.push((stored, b"new".to_vec())),
        // A segment's name may say so: better none than one that was used before.
        Err(error) => {
            let last = spool.dir().join("18446744073709551615.seg");
            let named = error.to_string().contains("no sequence is left") || disk.files().contains_key(&last);
            assert!(named, "{error}");
        }
    }
    assert_eq!(replay(&mut spool), expected);
    drop(spool);
    let mut spool = open(&disk);
    assert_eq!(replay(&mut spool), expected);
    for (sequence, _) in expected {
        spool.settle(sequence);
    }
    assert!(spool.is_empty());
    drop(spool);
    assert!(replay(&mut open(&disk)).is_empty(), "what was settled does not come again");
    assert_eq!(corrupt(&disk), damaged);
}

/// A file that was dropped in: its first line is its name, the rest its content. It is at most one
/// host's, and taking it in does what a check says.
pub fn dropped(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).replace(['/', '\0'], "_");
    let content = parts.next().unwrap_or_default();
    let owner = inbox_owner(name.as_ref(), |id| ["msul1", "a.msul1", "b"].contains(&id));
    if let Some(owner) = owner {
        assert!(name.ends_with(&format!(".{owner}")) && !name.starts_with('.'));
    }
    let Some("msul1") = owner else { return };
    let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1000);
    for age in [SignedDuration::ZERO, SignedDuration::from_hours(1), -SignedDuration::from_hours(1)] {
        let disk = FaultyDisk::new(&[Path::new(DELAYED)]);
        let path = Path::new(DELAYED).join("msul1/dropped").join(&name);
        disk.set_now(now - age);
        disk.put(&path, content);
        let mut findings = Vec::new();
        let whole = check_dropped(&mut disk.clone(), &path, now, &mut |finding| findings.push(finding));
        let damaged = findings.iter().any(|finding: &Finding| finding.damage);
        // One whose first line is a request and has others behind it is sent, and set aside with
        // them.
        assert!(if whole { damaged != findings.is_empty() } else { !findings.is_empty() });
        let mut spool = open(&disk);
        let taken = spool.take_in(now);
        assert_eq!((taken.stored, taken.corrupt), (u64::from(whole), u64::from(damaged)));
        assert_eq!(disk.files().contains_key(&path), !whole && !damaged);
        if whole {
            let rest = content.splitn(2, |byte| *byte == b'\n').nth(1).unwrap_or_default();
            let rest = !rest.iter().all(|byte| matches!(byte, b'\n' | b'\r'));
            assert_eq!(damaged, rest, "nothing of a file goes without a word, and nothing else is damage");
        }
        let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let found: Vec<Vec<u8>> = replay(&mut spool).into_iter().map(|(_, request)| request).collect();
        assert_eq!(found, if whole { vec![line.to_vec()] } else { Vec::new() });
    }
}

/// A caller's record: a start sets it aside when a check calls it damaged, keeps what can be
/// proven, and what it writes is read as the same.
pub fn record(bytes: &[u8]) {
    let disk = FaultyDisk::new(&[Path::new(DELAYED)]);
    let (folder, file) = (Path::new(RECORD), Path::new(RECORD).join("answers"));
    // Behind whatever it is, a sound line that was written here.
    let other = FaultyDisk::new(&[Path::new(DELAYED)]);
    let epoch = "0123456789abcdef".repeat(2);
    let mut sound = Record::open(other.clone(), folder);
    sound.begin_epoch(&epoch).expect("a disk without faults");
    sound.add(&[(u64::MAX, None, b"sound")]).expect("a disk without faults");
    let behind = [bytes, b"\n", other.files()[&file].as_slice()].concat();
    for content in [bytes, &behind] {
        disk.put(&file, content);
        let aside = |disk: &FaultyDisk| disk.files().keys().filter(|path| **path != file).count();
        let before = aside(&disk);
        let look = |disk: &FaultyDisk| {
            let mut findings = Vec::new();
            let tally = record::check(&mut disk.clone(), folder, &mut |finding| findings.push(finding));
            let damaged = tally.expect("a disk without faults").damaged;
            assert_eq!(findings.iter().any(|finding| finding.damage), damaged, "{findings:?}");
            let lines = 1 + disk.files()[&file].iter().filter(|byte| **byte == b'\n').count() as u64;
            assert!(
                findings.iter().all(|finding| finding.line.is_some_and(|line| line >= 1 && line <= lines))
            );
            damaged
        };
        let damaged = look(&disk);
        let mut record = Record::open(disk.clone(), folder);
        record.begin_epoch(&epoch).expect("a disk without faults");
        assert_eq!(aside(&disk) > before, damaged);
        if content.len() > bytes.len() {
            let found = record.look_up(u64::MAX, None);
            assert!(matches!(found, Look::Answered(_)), "{found:?}: the sound line is hidden");
        }
        let written = disk.files()[&file].clone();
        assert!(!look(&disk));
        let mut again = Record::open(disk.clone(), folder);
        again.begin_epoch(&epoch).expect("a disk without faults");
        assert_eq!(disk.files()[&file], written);
        assert_eq!(again.mark(), record.mark());
    }
}
