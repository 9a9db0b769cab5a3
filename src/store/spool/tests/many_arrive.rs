//! Very many files that are dropped at once: how often the folder is looked at, counted by the
//! disk.

use super::*;
use crate::spool::layout::Arrived;
use base::HostId;
use std::ffi::OsStr;
use std::time::Instant;

const DELAYED: &str = "/delayed";

fn owner(name: &OsStr) -> Option<HostId> {
    let id = inbox_owner(name, |id| ["msul1", "msul2"].contains(&id))?;
    HostId::new(id).ok()
}

/// What was moved for a peer, in its order.
fn moved(disk: &FaultyDisk, peer: &str) -> Vec<String> {
    let folder = Path::new(DELAYED).join(peer).join("dropped");
    let files = disk.files();
    let names =
        files.keys().filter(|path| path.parent() == Some(&folder)).filter_map(|path| path.file_name());
    let mut all: Vec<_> = names.filter_map(Arrived::parse).map(|it| (it.number, it.name)).collect();
    all.sort_unstable();
    all.into_iter().map(|(_, name)| name.to_str().unwrap().to_owned()).collect()
}

#[test]
fn thousands_of_files_cost_a_few_looks_at_the_folder_and_are_moved_in_order() {
    let (disk, mut arrivals, begun) = (new_disk(), Arrivals::default(), Instant::now());
    disk.set_now(now());
    let names = |peer: &str, count: usize| -> Vec<String> {
        (0..count).map(|number| format!("{number:05}.{peer}")).collect()
    };
    // Of the second peer fewer than of the first, which was there before and has what is to spare.
    let all = [("msul1", names("msul1", 9_000)), ("msul2", names("msul2", 600))];
    for name in all.iter().flat_map(|(_, names)| names) {
        disk.put(&Path::new(DELAYED).join(name), b"log:text\n");
    }
    for _ in 0..2_000 {
        if arrivals.deadline(begun).is_none() {
            break;
        }
        let passed = arrivals.pass(&mut disk.clone(), Path::new(DELAYED), &owner, begun, now());
        assert!(passed.trouble.is_empty() && passed.alone.is_empty(), "{passed:?}");
    }
    for (peer, names) in &all {
        assert_eq!(moved(&disk, peer), *names);
    }
    let operations = disk.operations();
    let looks = operations.iter().filter(|one| one.method == "list" && one.path == Path::new(DELAYED));
    let looks = looks.count();
    assert!(looks <= 5, "{looks} looks at a folder of {} files", 9_600);
}
