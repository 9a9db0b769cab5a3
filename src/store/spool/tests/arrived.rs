//! Files that were dropped in, in the order in which they came, each its user's.

use super::dropped::{INBOX, put, take_in, there};
use super::*;
use crate::spool::layout::Arrived;

/// A name as the supervisor gives it.
fn arrived(number: u64, user: u32) -> String {
    let name = Arrived { number, user, name: "x.msul1".as_ref() }.file_name();
    name.into_string().unwrap()
}

#[test]
fn files_are_taken_in_in_the_order_in_which_they_came_behind_those_of_a_version_before() {
    let disk = new_disk();
    let mut spool = open(&disk);
    for (name, text) in [
        ("z.msul1".to_owned(), &b"before\n"[..]),
        (arrived(9, 1), b"first\n"),
        (arrived(10, 0), b"second\n"),
        (arrived(11, 1), b"third\n"),
    ] {
        put(&disk, &name, text);
    }
    assert_eq!(take_in(&mut spool, now()).stored, 4);
    assert_eq!(replay(&mut spool, true), ["before", "first", "second", "third"]);
}

#[test]
fn very_many_files_of_a_user_who_has_its_share_do_not_hold_up_anothers() {
    let disk = new_disk();
    let bounds = SpoolLimits { messages: 8, ..limits() };
    let mut spool = Spool::open_with_segments(disk.clone(), Path::new(DIR), bounds, SEGMENT);
    let give = |name: &str, user| disk.give(&Path::new(INBOX).join(name), user);
    for number in 0..4200 {
        put(&disk, &arrived(number, 1000), b"greedy\n");
        give(&arrived(number, 1000), 1000);
    }
    put(&disk, &arrived(4200, 1001), b"another's\n");
    give(&arrived(4200, 1001), 1001);
    let (mut calls, mut more) = (0, true);
    while more {
        more = take_in(&mut spool, now()).more;
        calls += 1;
        assert!(calls < 100, "it does not come to an end");
    }
    assert!(!there(&disk, &arrived(4200, 1001)), "it was taken in");
    assert!(there(&disk, &arrived(4199, 1000)));
    assert_eq!(replay(&mut spool, true).last().map(String::as_str), Some("another's"));
}

#[test]
fn a_file_that_cannot_be_read_just_now_holds_up_its_own_users_alone() {
    let disk = new_disk();
    let mut spool = open(&disk);
    for (number, user) in [(1, 1000), (2, 1001), (3, 1000)] {
        put(&disk, &arrived(number, user), format!("{number}\n").as_bytes());
    }
    // Its owner has a lease on it.
    let leased = Path::new(INBOX).join(arrived(1, 1000));
    disk.refuse("open", &leased, libc::EAGAIN);
    let taken = take_in(&mut spool, now());
    assert_eq!((taken.stored, taken.trouble.is_some()), (1, true), "{taken:?}");
    assert!(there(&disk, &arrived(3, 1000)) && !there(&disk, &arrived(2, 1001)));
    disk.heal();
    assert_eq!(take_in(&mut spool, taken.retry_at.unwrap()).stored, 2);
    assert_eq!(replay(&mut spool, true), ["2", "1", "3"]);
    // What the whole process lacks holds up all.
    for (number, user) in [(4, 1000), (5, 1001)] {
        put(&disk, &arrived(number, user), b"ping\n");
    }
    disk.refuse("open", &Path::new(INBOX).join(arrived(4, 1000)), libc::EMFILE);
    assert_eq!(take_in(&mut spool, now()).stored, 0);
}

#[test]
fn a_folder_that_its_owner_lets_nobody_move_is_hidden_where_it_is() {
    let disk = new_disk();
    let name = Arrived { number: 1, user: 7, name: "x.msul1".as_ref() }.file_name();
    let path = Path::new(DIR).join("dropped").join(&name);
    disk.put(&path.join("inside"), b"");
    disk.refuse("rename", &path, libc::EACCES);
    let mut spool = open(&disk);
    let taken = spool.take_in(now());
    assert!(taken.aside[0].contains("; it stays: "), "{:?}", taken.aside);
    assert!(spool.stuck.is_empty(), "it need not be remembered");
    assert!(spool.take_in(now()).aside.is_empty());
    assert!(open(&disk).take_in(now()).aside.is_empty(), "nor by the next process");
}
