//! Messages that are held, so that others go past them.

use super::*;

/// Stores and locates these, and holds those that begin with `pay`.
fn with_held(disk: &FaultyDisk, requests: &[&str]) -> Spool<FaultyDisk> {
    let mut spool = open(disk);
    store_well(&mut spool, requests);
    hold_pay(&mut spool);
    spool
}

/// Holds those that begin with `pay`, and settles the others; their texts.
fn hold_pay(spool: &mut Spool<FaultyDisk>) -> Vec<String> {
    let mut passed = Vec::new();
    while let Some(message) = spool.next_unsent().unwrap() {
        if message.request.starts_with(b"pay") {
            spool.unsend(message.sequence);
            assert!(spool.hold(message.sequence, "pay"));
        } else {
            passed.push(String::from_utf8_lossy(&message.request).into_owned());
            spool.settle(message.sequence);
        }
    }
    passed
}

#[test]
fn others_go_past_what_is_held_and_it_comes_in_its_order_when_it_is_released() {
    let disk = new_disk();
    let mut spool = with_held(&disk, &["pay:1", "log:a", "pay:2", "log:b"]);
    assert_eq!((spool.waiting().messages, spool.held("pay"), spool.held("log")), (2, 2, 0));
    assert!(!spool.has_unsent() && !spool.has_backlog() && !spool.is_empty());
    assert_eq!((spool.settled_below(), spool.settled_below_of("pay")), (Sequence(5), Sequence(1)));
    assert_eq!(spool.first_held("pay").unwrap().unwrap().request, b"pay:1");
    // While it is tried it stays held, and a lost link changes nothing of that.
    spool.rewind();
    spool.unsend(Sequence(1));
    assert_eq!(spool.held("pay"), 2);
    store_well(&mut spool, &["log:c"]);
    assert!(spool.has_backlog());
    spool.settle(Sequence(1));
    assert_eq!(spool.settled_below_of("pay"), Sequence(3));
    spool.release("pay");
    assert_eq!(spool.settled_below(), Sequence(3));
    assert_eq!(replay(&mut spool, true), ["pay:2", "log:c"]);
    assert!(spool.is_empty());
}

#[test]
fn a_start_finds_what_was_held_in_its_place() {
    let disk = new_disk();
    drop(with_held(&disk, &["pay:1", "log:a", "pay:2", "log:b"]));
    assert_eq!(replay(&mut open(&disk), false), ["pay:1", "pay:2"]);
}

#[test]
fn a_segment_behind_what_is_held_gives_its_room_back_when_it_is_done_with() {
    let disk = new_disk();
    let long = "x".repeat(300);
    let log = format!("log:{long}");
    let mut spool = open(&disk);
    store_well(&mut spool, &["pay:1"]);
    // Each round fills a segment or more, which is done with while pay:1 waits.
    for _ in 0..20 {
        store_well(&mut spool, &[&log, &log, &log]);
        hold_pay(&mut spool);
        let bytes: usize = segments(&disk).values().map(Vec::len).sum();
        assert!(bytes <= 4 * SEGMENT as usize, "{bytes} bytes");
        assert!(segments(&disk).len() <= 5, "{:?}", segments(&disk).keys());
    }
    assert_eq!((spool.waiting().messages, spool.held("pay")), (1, 1));
    store_well(&mut spool, &["log:last"]);
    drop(spool);
    let mut spool = open(&disk);
    assert_eq!(replay(&mut spool, true), ["pay:1", "log:last"]);
    assert_eq!(segments(&disk).len(), 1);
}

#[test]
fn only_so_many_are_held() {
    let disk = new_disk();
    let mut spool = Spool::open(disk.clone(), Path::new(DIR), limits());
    let requests: Vec<&[u8]> = vec![b"pay"; HELD_MOST + 1];
    assert!(spool.store(&requests, now()).iter().all(Result::is_ok));
    for _ in 0..HELD_MOST {
        let message = spool.next_unsent().unwrap().unwrap();
        spool.unsend(message.sequence);
        assert!(spool.hold(message.sequence, "pay"));
    }
    let message = spool.next_unsent().unwrap().unwrap();
    spool.unsend(message.sequence);
    assert!(!spool.hold(message.sequence, "pay"));
    assert!(spool.has_backlog() && spool.has_unsent());
}
