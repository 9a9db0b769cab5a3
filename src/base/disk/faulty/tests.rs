//! The model of a disk must itself be as unkind as it says.

use super::*;

fn made(disk: &mut FaultyDisk, name: &str, bytes: &[u8]) -> FaultyFile {
    let file = disk.create(Path::new(name)).unwrap();
    disk.write_at(&file, 0, bytes).unwrap();
    file
}

fn read(disk: &FaultyDisk, name: &str) -> Option<Vec<u8>> {
    disk.files().remove(Path::new(name))
}

#[test]
fn only_what_was_synced_is_sure_to_be_there_after_a_crash() {
    let mut disk = FaultyDisk::new(&[Path::new("/")]);
    let file = made(&mut disk, "/a", b"durable");
    disk.sync_data(&file).unwrap();
    assert_eq!(read(&disk, "/a").unwrap(), b"durable");
    let nameless = disk.fork();
    nameless.restart(Keep::Nothing);
    assert_eq!(read(&nameless, "/a"), None, "its name was not synced");
    disk.sync_dir(Path::new("/")).unwrap();
    disk.write_at(&file, 0, b"DURABLE").unwrap();
    for (keep, expected) in [(Keep::Nothing, b"durable"), (Keep::All, b"DURABLE")] {
        let disk = disk.fork();
        disk.restart(keep);
        assert_eq!(read(&disk, "/a").unwrap(), expected);
    }
    disk.restart(Keep::Nothing);
    assert!(disk.write_at(&file, 0, b"x").is_err(), "a file does not stay open through a crash");
}

#[test]
fn a_crash_keeps_any_part_block_by_block() {
    let mut disk = FaultyDisk::new(&[Path::new("/")]);
    let file = made(&mut disk, "/a", &[0; 2 * BLOCK]);
    disk.sync_data(&file).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk.write_at(&file, 0, &[1; 2 * BLOCK]).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let disk = disk.fork();
        disk.restart(Keep::Some(seed));
        let bytes = read(&disk, "/a").unwrap();
        assert!(bytes[..BLOCK].iter().all(|byte| *byte == bytes[0]));
        seen.insert((bytes[0], bytes[BLOCK]));
    }
    assert_eq!(seen.len(), 4);
}

#[test]
fn a_sync_after_a_failed_one_does_not_bring_back_what_that_lost() {
    let mut disk = FaultyDisk::new(&[Path::new("/")]);
    let file = made(&mut disk, "/a", b"lost");
    disk.sync_dir(Path::new("/")).unwrap();
    disk.plan(disk.operations().len(), Fault::Fail(libc::EIO));
    assert!(disk.sync_data(&file).is_err());
    disk.sync_data(&file).unwrap();
    disk.restart(Keep::Nothing);
    assert_eq!(read(&disk, "/a").unwrap(), b"");
}

#[test]
fn a_rename_happens_whole_or_not_at_all() {
    let mut disk = FaultyDisk::new(&[Path::new("/x")]);
    made(&mut disk, "/a", b"");
    disk.sync_dir(Path::new("/")).unwrap();
    disk.rename(Path::new("/a"), Path::new("/x/b")).unwrap();
    for seed in 0..20 {
        let disk = disk.fork();
        disk.restart(Keep::Some(seed));
        assert_eq!(disk.files().len(), 1);
    }
}

#[test]
fn a_planned_fault_strikes_once_or_until_it_is_healed() {
    let mut disk = FaultyDisk::new(&[Path::new("/")]);
    disk.plan(0, Fault::Fail(libc::EIO));
    disk.plan(2, Fault::FailFrom(libc::EROFS));
    assert!(disk.create(Path::new("/a")).is_err());
    assert!(disk.create(Path::new("/a")).is_ok());
    assert!(disk.create(Path::new("/b")).is_err());
    assert!(disk.open(Path::new("/a"), false).is_ok(), "reading goes on");
    disk.heal();
    assert!(disk.create(Path::new("/b")).is_ok());
    disk.plan(disk.operations().len(), Fault::CrashBefore);
    assert!(disk.remove(Path::new("/b")).is_err() && disk.is_dead());
    assert!(disk.open(Path::new("/a"), false).is_err(), "nothing works until the restart");
}
