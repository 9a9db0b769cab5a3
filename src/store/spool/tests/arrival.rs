//! Files on their way from the delayed directory into the folders of peers.

use super::*;
use crate::spool::layout::Arrived;
use base::HostId;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::{Duration, Instant};

const DELAYED: &str = "/delayed";
/// As long as a file is left to its maker, and as the longest pause.
const PAUSE: Duration = Duration::from_secs(5);

fn id(text: &str) -> HostId {
    HostId::new(text).unwrap()
}

fn owner(name: &OsStr) -> Option<HostId> {
    inbox_owner(name, |id| ["msul1", "msul2"].contains(&id)).map(id)
}

fn place(name: &str) -> PathBuf {
    Path::new(DELAYED).join(name)
}

/// Where it was moved from, if this is the path of a file that was moved.
fn origin(path: &Path) -> Option<PathBuf> {
    let folder = path.parent().filter(|folder| folder.ends_with("dropped"))?;
    if path.file_name()?.as_encoded_bytes().starts_with(b".") {
        return None;
    }
    let arrived = Arrived::parse(path.file_name()?).unwrap();
    assert!(folder.starts_with(place(owner(arrived.name).unwrap().as_str())));
    Some(Path::new(DELAYED).join(arrived.name))
}

/// Arrivals on a disk, and a clock: whole files that were just written are there.
struct Rig {
    disk: FaultyDisk,
    arrivals: Arrivals,
    mono: Instant,
    wall: Timestamp,
}

impl Rig {
    fn new() -> Rig {
        let (disk, arrivals) = (new_disk(), Arrivals::default());
        disk.set_now(now());
        Rig { disk, arrivals, mono: Instant::now(), wall: now() }
    }

    fn put(&mut self, name: &str, text: &[u8]) {
        self.disk.put(&place(name), text);
        if let Some(peer) = owner(name.as_ref()) {
            self.arrivals.notice(peer, name.into(), self.mono);
        }
    }

    fn pass(&mut self) -> Passed {
        self.arrivals.pass(&mut self.disk.clone(), Path::new(DELAYED), &owner, self.mono, self.wall)
    }

    /// Passes until nothing is due.
    fn settle(&mut self) -> BTreeSet<HostId> {
        let mut told = BTreeSet::new();
        for _ in 0..1000 {
            if !self.is_due() {
                return told;
            }
            told.extend(self.pass().peers);
        }
        panic!("it does not come to an end");
    }

    fn is_due(&self) -> bool {
        self.arrivals.deadline(self.mono).is_some_and(|at| at <= self.mono)
    }

    fn later(&mut self, passed: Duration) {
        self.mono += passed;
        self.wall += passed;
    }

    fn names(&self) -> Vec<PathBuf> {
        self.disk.files().into_keys().collect()
    }

    /// The files that were moved, in the order in which they came: their names, and what is in
    /// them.
    fn moved(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let file = |(path, text): (PathBuf, _)| Some((origin(&path)?, text));
        self.disk.files().into_iter().filter_map(file).collect()
    }

    fn is_moved(&self, name: &str) -> bool {
        self.moved().iter().any(|(path, _)| *path == place(name))
    }
}

#[test]
fn each_file_goes_to_the_folder_of_its_peer_and_what_is_nobodys_stays() {
    let mut rig = Rig::new();
    for name in ["1.msul1", "2.msul2", ".hidden.msul1", "3.stranger", "msul1.tmp"] {
        // Nobody has noticed them: they were there before.
        rig.disk.put(&place(name), b"ping\n");
    }
    rig.disk.clone().make_folder(&place("folder.msul1")).unwrap();
    assert_eq!(rig.settle(), ["msul1", "msul2"].map(id).into());
    let left = [".hidden.msul1", "3.stranger", "msul1.tmp"].map(place);
    assert!(left.iter().all(|path| rig.names().contains(path)));
    assert_eq!(rig.moved(), ["1.msul1", "2.msul2"].map(|name| (place(name), b"ping\n".to_vec())));
    assert_eq!(rig.arrivals.deadline(rig.mono), None, "it is not looked at again");
}

#[test]
fn a_file_is_left_to_its_maker_until_it_has_a_line_or_is_not_changed_any_more() {
    let mut rig = Rig::new();
    let long = vec![b'x'; 100_000];
    let cases: [(&str, &[u8]); 4] =
        [("1.msul1", b""), ("2.msul1", b"begun"), ("3.msul1", &long), ("4.msul1", b"two names\n")];
    for (name, text) in cases {
        rig.put(name, text);
    }
    rig.disk.put_link(&place("other"), &place("4.msul1"));
    rig.put("5.msul1", b"whole\nand begun");
    rig.put("6.msul1", &[&long[..], b"\n"].concat());
    assert_eq!(rig.settle(), [id("msul1")].into());
    let at = |rig: &Rig| {
        let names = ["1", "2", "3", "4", "5", "6"].map(|name| format!("{name}.msul1"));
        names.map(|name| rig.is_moved(&name))
    };
    assert_eq!(at(&rig), [false, false, false, false, true, true]);
    // Its maker has gone on.
    rig.put("2.msul1", b"begun, and done\n");
    rig.settle();
    assert_eq!(at(&rig), [false, true, false, false, true, true]);
    let due = rig.arrivals.deadline(rig.mono).unwrap();
    assert!(due <= rig.mono + PAUSE, "the others are looked at again");
    rig.later(PAUSE);
    rig.settle();
    assert_eq!(at(&rig), [true; 6], "whatever they are, the child sees");
}

#[test]
fn a_file_that_is_whole_is_not_overtaken_though_nobody_has_said_that_its_maker_is_done() {
    let mut rig = Rig::new();
    rig.put("1.msul1", b"");
    rig.settle();
    // Written to, and still open somewhere.
    rig.disk.put(&place("1.msul1"), b"first\n");
    rig.put("2.msul1", b"second\n");
    let from = rig.disk.operations().len();
    rig.settle();
    let operations = rig.disk.operations();
    let renamed = operations[from..].iter().filter(|one| one.method == "rename_new");
    let moved: Vec<_> = renamed.map(|one| one.path.clone()).collect();
    assert_eq!(moved, ["1.msul1", "2.msul1"].map(place));
}

#[test]
fn thousands_of_files_move_in_the_order_of_their_names_and_another_peer_has_its_turn_between() {
    let mut rig = Rig::new();
    let names: Vec<String> = (0..1000).map(|number| format!("{number:04}.msul1")).collect();
    names.iter().rev().for_each(|name| rig.put(name, b"ping\n"));
    let (mut there, mut passes) = (BTreeSet::new(), 0);
    while rig.is_due() {
        let before = rig.disk.operations().len();
        if passes == 3 {
            rig.put("1.msul2", b"ping\n");
        }
        let passed = rig.pass();
        assert_eq!(passed.peers.contains(&id("msul2")), passes == 3, "it does not wait for the others");
        let renamed = rig.disk.operations()[before..].iter().filter(|one| one.method == "rename_new").count();
        assert!(renamed <= MOVED_A_PASS);
        let first = |(path, _): (PathBuf, _)| path.to_str().unwrap().ends_with("msul1").then_some(path);
        let now_there: BTreeSet<_> = rig.moved().into_iter().filter_map(first).collect();
        let new = now_there.difference(&there).next();
        assert!(new.is_none_or(|new| there.last().is_none_or(|last| last < new)), "one was overtaken");
        (there, passes) = (now_there, passes + 1);
    }
    assert_eq!(
        there.into_iter().collect::<Vec<_>>(),
        names.iter().map(|name| place(name)).collect::<Vec<_>>()
    );
}

#[test]
fn files_of_one_name_are_moved_in_the_order_in_which_they_came_and_hold_nobody_up() {
    let mut rig = Rig::new();
    let texts = [&b"first\n"[..], b"second\n", b"third\n"];
    for text in texts {
        rig.put("1.msul1", text);
        assert_eq!(rig.settle(), [id("msul1")].into());
    }
    rig.put("0.msul1", b"fourth\n");
    rig.settle();
    let moved: Vec<_> = rig.moved().into_iter().map(|(_, text)| text).collect();
    assert_eq!(moved, [&texts[..], &[b"fourth\n"]].concat(), "whatever their names are");
    let mut spool = open(&rig.disk);
    assert_eq!(spool.take_in(rig.wall).stored, 4);
    assert_eq!(replay(&mut spool, true), ["first", "second", "third", "fourth"]);
}

#[test]
fn a_supervisor_counts_on_behind_the_files_that_are_there_though_the_clock_was_put_back() {
    let mut rig = Rig::new();
    rig.put("1.msul1", b"first\n");
    rig.settle();
    rig.arrivals = Arrivals::default();
    rig.wall -= Duration::from_secs(1_000_000);
    rig.put("0.msul1", b"second\n");
    rig.later(PAUSE);
    rig.settle();
    // Another program with the same delayed directory counts for itself.
    let mut other = Arrivals::default();
    for (number, name) in ["3.msul1", "4.msul1"].into_iter().enumerate() {
        rig.disk.put(&place(name), b"ping\n");
        let arrivals = if number == 0 { &mut other } else { &mut rig.arrivals };
        arrivals.notice(id("msul1"), name.into(), rig.mono);
        arrivals.pass(&mut rig.disk, Path::new(DELAYED), &owner, rig.mono, rig.wall);
    }
    let moved: Vec<_> = rig.moved().into_iter().map(|(path, _)| path).collect();
    assert_eq!(moved, ["1.msul1", "0.msul1", "3.msul1", "4.msul1"].map(place));
}

#[test]
fn a_name_that_is_no_text_is_moved_as_any_other_and_so_is_one_that_is_as_long_as_may_be() {
    use std::os::unix::ffi::OsStrExt;
    let rig = &mut Rig::new();
    let odd = OsStr::from_bytes(b"\xff\xfe.msul1");
    let long = "x".repeat(249) + ".msul1";
    for name in [odd, long.as_ref()] {
        rig.disk.put(&Path::new(DELAYED).join(name), b"ping\n");
    }
    rig.settle();
    let names: BTreeSet<_> = rig.names().iter().map(|path| path.file_name().unwrap().len()).collect();
    assert_eq!(names, [20 + 1 + 10 + 1 + odd.len(), 255].into());
    assert_eq!(open(&rig.disk).take_in(rig.wall).stored, 2);
}

#[test]
fn thousands_of_files_that_are_never_finished_do_not_keep_others_from_being_noticed() {
    let mut rig = Rig::new();
    for number in 0..600 {
        rig.put(&format!("0{number:04}.msul1"), b"for ever begun");
    }
    rig.put("9.msul1", b"another's\n");
    rig.settle();
    assert!(rig.is_moved("9.msul1"));
    // They are written to again and again; one of them is finished.
    for round in 0..3 {
        rig.later(PAUSE);
        for number in 0..600 {
            rig.disk.set_now(rig.wall);
            rig.disk.put(&place(&format!("0{number:04}.msul1")), b"for ever begun");
        }
        rig.disk.put(&place("00500.msul1"), b"finished\n");
        rig.put(&format!("9{round}.msul1"), b"another's\n");
        rig.settle();
        assert!(rig.is_moved(&format!("9{round}.msul1")));
        assert!(rig.is_moved("00500.msul1"), "it is found though it was forgotten");
    }
    assert!(rig.arrivals.deadline(rig.mono).is_some_and(|at| at > rig.mono && at <= rig.mono + PAUSE));
    rig.later(PAUSE);
    rig.settle();
    assert!(rig.names().iter().all(|path| origin(path).is_some()), "in the end all are moved");
}

#[test]
fn a_file_that_alone_cannot_be_moved_or_looked_into_is_passed_and_tried_again() {
    for (method, code, is_said) in [
        // A folder that nobody may write to came to stand in its place.
        ("rename_new", libc::EACCES, true),
        // Its maker has a lease on it; a socket came to stand in its place.
        ("open", libc::EAGAIN, false),
        ("open", libc::ENXIO, false),
    ] {
        let mut rig = Rig::new();
        rig.disk.refuse(method, &place("1.msul1"), code);
        rig.put("1.msul1", b"first\n");
        rig.put("2.msul1", b"second\n");
        let passed = rig.pass();
        assert!(passed.trouble.is_empty() && passed.alone.len() == usize::from(is_said), "{passed:?}");
        assert!(rig.is_moved("2.msul1") && !rig.is_moved("1.msul1"), "{method} {code}");
        rig.disk.heal();
        rig.later(PAUSE);
        rig.settle();
        assert!(rig.is_moved("1.msul1"));
        assert!(rig.names().iter().all(|path| origin(path).is_some()), "nothing else is left");
    }
    // Where the folder takes nothing, none passes another, though a process was killed as it tried.
    let mut rig = Rig::new();
    rig.put("0.msul1", b"before\n");
    rig.settle();
    let probe = Path::new(DIR).join("dropped/.probe");
    rig.disk.put(&probe, b"");
    rig.disk.refuse("remove", &probe, libc::EACCES);
    rig.disk.refuse("rename_new", &place("1.msul1"), libc::EACCES);
    rig.put("1.msul1", b"first\n");
    rig.put("2.msul1", b"second\n");
    assert_eq!(rig.pass().trouble.len(), 1);
    assert!(!rig.is_moved("2.msul1"));
}

#[test]
fn what_is_no_plain_file_is_left_and_said_and_whoever_is_quick_with_one_is_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let wall = now() + PAUSE;
    let pass = |arrivals: &mut Arrivals| {
        let passed = arrivals.pass(&mut RealDisk, folder.path(), &owner, Instant::now(), wall);
        (passed.irregular.into_keys().collect::<Vec<_>>(), passed.trouble.len())
    };
    std::os::unix::fs::symlink("/etc/hostname", at("1.msul1")).unwrap();
    std::fs::create_dir(at("2.msul2")).unwrap();
    assert_eq!(pass(&mut Arrivals::default()), (["msul1", "msul2"].map(id).to_vec(), 0));
    assert!(at("1.msul1").is_symlink() && at("2.msul2").is_dir());

    // As they are when they took the place of a file between the look at it and its move.
    std::fs::create_dir_all(at("msul1/dropped")).unwrap();
    for number in 0..3 {
        let name =
            |number| at("msul1/dropped").join(Arrived { number, user: 7, name: "x".as_ref() }.file_name());
        std::os::unix::fs::symlink("/etc/hostname", name(number)).unwrap();
        std::fs::create_dir(name(10 + number)).unwrap();
        std::fs::write(name(20 + number), "good\n").unwrap();
    }
    let mut spool = Spool::open(RealDisk, &at("msul1"), limits());
    let taken = spool.take_in(wall);
    assert_eq!((taken.stored, taken.corrupt, taken.aside.len()), (3, 3, 6), "{:?}", taken.aside);
    assert!(
        taken.aside[0].ends_with("it is no plain file, and was not opened; removed"),
        "{:?}",
        taken.aside
    );
    assert_eq!(std::fs::read_dir(at("msul1/dropped")).unwrap().count(), 0);
    assert_eq!(spool.waiting().corrupt, 3);
}

#[test]
fn what_cannot_be_moved_stays_in_order_is_said_and_tried_again_and_other_peers_do_not_wait() {
    for (method, path) in [
        ("rename_new", place("1.msul1")),
        ("metadata", place("1.msul1")),
        ("list", Path::new(DIR).join("dropped")),
        ("make_folder", Path::new(DIR).join("dropped")),
        ("sync_dir", DELAYED.into()),
    ] {
        let mut rig = Rig::new();
        let code = libc::EXDEV;
        rig.disk.refuse(method, &path, code);
        if method == "sync_dir" {
            rig.put("1.msul1", b"first\n");
        } else {
            rig.put("1.msul1", b"first\n");
            rig.put("1.msul2", b"another's\n");
        }
        rig.put("2.msul1", b"second\n");
        let passed = rig.pass();
        assert_eq!(passed.trouble.len(), 1, "{method} {path:?}");
        assert_eq!(passed.trouble[0].0, id("msul1"));
        assert_eq!(passed.trouble[0].1.cause.raw_os_error(), Some(code));
        assert!(["1.msul1", "2.msul1"].iter().all(|name| rig.names().contains(&place(name))));
        assert_eq!(passed.peers.contains(&id("msul2")), method != "sync_dir");
        // It is tried again in growing pauses, and a file that comes meanwhile does not change
        // that.
        let mut pauses = Vec::new();
        for _ in 0..8 {
            rig.put("3.msul1", b"third\n");
            let due = rig.arrivals.deadline(rig.mono).unwrap();
            pauses.push(due - rig.mono);
            rig.later(due - rig.mono);
            rig.pass();
        }
        assert!(pauses.is_sorted() && pauses[0] > Duration::ZERO && pauses[7] == PAUSE, "{pauses:?}");
        rig.disk.heal();
        rig.later(PAUSE);
        assert_eq!(rig.settle(), [id("msul1")].into());
        assert!(["1.msul1", "2.msul1", "3.msul1"].iter().all(|name| rig.is_moved(name)));
    }
}

#[test]
fn a_file_that_cannot_be_read_just_now_is_not_overtaken_and_one_that_may_not_be_read_is() {
    for (code, overtaken) in [(libc::EIO, false), (libc::EMFILE, false), (libc::EACCES, true)] {
        let mut rig = Rig::new();
        rig.disk.refuse("open", &place("1.msul1"), code);
        rig.put("1.msul1", b"first\n");
        rig.put("2.msul1", b"second\n");
        assert_eq!(rig.pass().trouble.is_empty(), overtaken);
        assert_eq!(rig.is_moved("2.msul1"), overtaken, "{code}");
        // When its maker is done with it, it need not be looked into.
        rig.later(PAUSE);
        rig.settle();
        assert!(["1.msul1", "2.msul1"].iter().all(|name| rig.is_moved(name)), "{code}");
    }
}

#[test]
fn wherever_the_process_or_the_machine_ends_a_file_is_in_one_place_and_whole() {
    let names = ["1.msul1", "2.msul1", "1.msul2"];
    let begun = || {
        let mut rig = Rig::new();
        names.iter().for_each(|name| rig.put(name, name.as_bytes()));
        rig.later(PAUSE);
        rig
    };
    let mut rig = begun();
    rig.settle();
    let operations = rig.disk.operations().len();
    assert!(operations > 15, "{operations}");
    let ends = [None, Some(Keep::All), Some(Keep::Nothing)];
    for at in 0..operations {
        for end in ends.into_iter().chain((0..20).map(|seed| Some(Keep::Some(seed)))) {
            let mut rig = begun();
            rig.disk.plan(at, Fault::CrashBefore);
            rig.pass();
            // A process that is killed leaves what it did.
            rig.disk.restart(end.unwrap_or(Keep::All));
            rig.disk.heal();
            let check = |rig: &Rig| {
                for name in names {
                    let here =
                        |(path, _): &(PathBuf, _)| *path == place(name) || origin(path) == Some(place(name));
                    let files = rig.disk.files().into_iter().filter(here);
                    let found: Vec<_> = files.map(|(_, text)| text).collect();
                    assert_eq!(found, [name.as_bytes()], "{name}, operation {at}, {end:?}");
                }
            };
            check(&rig);
            rig.arrivals = Arrivals::default();
            rig.settle();
            check(&rig);
            assert!(names.iter().all(|name| rig.is_moved(name)));
        }
    }
}

#[test]
fn a_peers_folder_that_was_removed_is_made_again() {
    let mut rig = Rig::new();
    rig.put("1.msul1", b"ping\n");
    rig.settle();
    rig.disk.take_away(Path::new(DIR));
    rig.put("2.msul1", b"ping\n");
    assert_eq!(rig.settle(), [id("msul1")].into());
    assert!(rig.is_moved("2.msul1"));
    // A file that is gone when its turn comes is no reason to make it.
    rig.disk.take_away(Path::new(DIR));
    rig.arrivals.notice(id("msul1"), "3.msul1".into(), rig.mono);
    assert_eq!(rig.settle(), [id("msul1")].into(), "another process may have moved it");
    assert!(rig.disk.clone().metadata(Path::new(DIR)).is_err());
}

#[test]
fn a_folder_that_cannot_be_listed_is_listed_later_and_one_that_is_gone_is_not() {
    let mut rig = Rig::new();
    rig.disk.put(&place("1.msul1"), b"ping\n");
    rig.disk.refuse("list", Path::new(DELAYED), libc::EACCES);
    assert!(rig.pass().unlisted.is_some());
    assert_eq!(rig.arrivals.deadline(rig.mono), Some(rig.mono + PAUSE));
    rig.disk.heal();
    rig.later(PAUSE);
    assert_eq!(rig.settle(), [id("msul1")].into());
    rig.disk.take_away(Path::new(DELAYED));
    rig.arrivals.look_again();
    let passed = rig.pass();
    assert!(passed.unlisted.is_none() && rig.arrivals.deadline(rig.mono).is_none());
    assert_eq!(Arrivals::none().deadline(rig.mono), None);
}

#[test]
fn a_file_is_taken_in_once_it_was_moved_and_stays_gone() {
    let mut rig = Rig::new();
    rig.put("1.msul1", b"ping\n");
    rig.settle();
    let mut spool = open(&rig.disk);
    assert_eq!(spool.take_in(rig.wall).stored, 1);
    for keep in [Keep::Nothing, Keep::Some(1), Keep::Some(2), Keep::Some(3)] {
        let disk = rig.disk.fork();
        disk.restart(keep);
        assert!(!disk.files().contains_key(&place("1.msul1")), "{keep:?}: it came back");
        let moved = disk.files().into_keys().filter_map(|path| origin(&path)).count();
        assert_eq!(moved, 0, "{keep:?}: it came back");
    }
}
