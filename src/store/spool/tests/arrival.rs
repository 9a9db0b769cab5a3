//! Files on their way from the delayed directory into the folders of peers.

use super::*;
use base::HostId;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const DELAYED: &str = "/delayed";
/// As long as a file is left to its maker, and as the longest pause.
const PAUSE: Duration = Duration::from_secs(5);

fn id(text: &str) -> HostId {
    HostId::new(text).unwrap()
}

fn owner(name: &str) -> Option<HostId> {
    inbox_owner(name, |id| ["msul1", "msul2"].contains(&id)).map(id)
}

fn place(name: &str) -> PathBuf {
    Path::new(DELAYED).join(name)
}

fn moved(name: &str) -> PathBuf {
    Path::new(DELAYED).join(owner(name).unwrap().as_str()).join("dropped").join(name)
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
        if let Some(peer) = owner(name) {
            self.arrivals.notice(peer, name.into(), self.mono);
        }
    }

    fn pass(&mut self) -> Passed {
        self.arrivals.pass(&mut self.disk.clone(), Path::new(DELAYED), &owner, self.mono, self.wall)
    }

    /// Passes until nothing is due.
    fn settle(&mut self) -> BTreeSet<HostId> {
        let mut told = BTreeSet::new();
        while self.is_due() {
            told.extend(self.pass().peers);
        }
        told
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
    assert_eq!(
        rig.names(),
        [&left[..], &["1.msul1", "2.msul2"].map(moved)]
            .concat()
            .into_iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
    assert_eq!(rig.arrivals.deadline(rig.mono), None, "it is not looked at again");
    assert_eq!(rig.disk.files()[&moved("1.msul1")], b"ping\n");
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
        names.map(|name| rig.names().contains(&moved(&name)))
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
    let renamed = operations[from..].iter().filter(|one| one.method == "rename");
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
        let renamed = rig.disk.operations()[before..].iter().filter(|one| one.method == "rename").count();
        assert!(renamed <= MOVED_A_PASS);
        let now_there: BTreeSet<_> = rig.names().into_iter().filter(|path| path.starts_with(DIR)).collect();
        let new = now_there.difference(&there).next();
        assert!(new.is_none_or(|new| there.last().is_none_or(|last| last < new)), "one was overtaken");
        (there, passes) = (now_there, passes + 1);
    }
    assert_eq!(
        there.into_iter().collect::<Vec<_>>(),
        names.iter().map(|name| moved(name)).collect::<Vec<_>>()
    );
}

#[test]
fn a_file_whose_name_is_taken_waits_until_that_one_was_taken_in_and_so_do_those_behind_it() {
    let mut rig = Rig::new();
    rig.put("1.msul1", b"first\n");
    rig.settle();
    rig.put("1.msul1", b"second\n");
    rig.put("2.msul1", b"third\n");
    let passed = rig.pass();
    assert!(passed.peers.is_empty() && passed.trouble.is_empty(), "{passed:?}");
    assert_eq!(rig.disk.files()[&moved("1.msul1")], b"first\n");
    assert!(!rig.is_due() && rig.names().contains(&place("2.msul1")), "it is not overtaken");
    rig.disk.take_away(&moved("1.msul1"));
    rig.later(Duration::from_millis(100));
    rig.settle();
    assert_eq!(rig.disk.files()[&moved("1.msul1")], b"second\n");
    assert_eq!(rig.disk.files()[&moved("2.msul1")], b"third\n");
}

#[test]
fn what_cannot_be_moved_stays_in_order_is_said_and_tried_again_and_other_peers_do_not_wait() {
    for (method, path) in [
        ("rename", place("1.msul1")),
        ("metadata", place("1.msul1")),
        ("metadata", moved("1.msul1")),
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
        assert!(["1.msul1", "2.msul1", "3.msul1"].iter().all(|name| rig.names().contains(&moved(name))));
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
        assert_eq!(rig.names().contains(&moved("2.msul1")), overtaken, "{code}");
        // When its maker is done with it, it need not be looked into.
        rig.later(PAUSE);
        rig.settle();
        assert!(["1.msul1", "2.msul1"].iter().all(|name| rig.names().contains(&moved(name))), "{code}");
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
                    let files = rig.disk.files();
                    let found: Vec<_> =
                        [place(name), moved(name)].iter().filter_map(|at| files.get(at)).cloned().collect();
                    assert_eq!(found, [name.as_bytes()], "{name}, operation {at}, {end:?}");
                }
            };
            check(&rig);
            rig.arrivals = Arrivals::default();
            rig.settle();
            check(&rig);
            assert!(names.iter().all(|name| rig.names().contains(&moved(name))));
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
    assert!(rig.names().contains(&moved("2.msul1")));
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
        assert!(!disk.files().contains_key(&moved("1.msul1")), "{keep:?}: it came back");
    }
}
