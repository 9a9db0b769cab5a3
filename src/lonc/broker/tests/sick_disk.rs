//! What cannot be read of the spool for a while, on the model of a disk.

use super::*;
use crate::broker::away::HOLD_AFTER;
use base::disk::FaultyDisk;
use std::path::PathBuf;
use wire::secure::{put_not_taken, put_ready};

/// A rig, its disk, and where its messages are; these are stored, and the link is down.
fn rig_with(peer: Peer, stored: &[&str]) -> (Rig<FaultyDisk>, FaultyDisk, PathBuf) {
    let mut made = None;
    let make = |delayed: &Path| made.insert(FaultyDisk::new(&[delayed])).clone();
    let mut rig = Rig::on(make, peer, None);
    let disk = made.unwrap();
    rig.lose_link();
    let id = rig.program(stored);
    assert_eq!(rig.got(id), vec!["con_delayed"; stored.len()]);
    let files = disk.files();
    let segment = files.keys().find(|path| path.extension().is_some_and(|end| end == "seg"));
    let segment = segment.expect("it was stored in one").clone();
    (rig, disk, segment)
}

#[test]
fn a_spool_that_cannot_be_read_is_tried_again_after_five_seconds() {
    let (mut rig, disk, segment) = rig_with(peer(), &["critical:1", "critical:2"]);
    disk.refuse("read_at", &segment, libc::EIO);
    rig.come_up();
    disk.heal();
    assert!(rig.sent().is_empty());
    assert!(rig.broker.status(rig.now).last_error.is_some());
    assert_eq!(rig.broker.deadline(), Some(rig.now.mono + Duration::from_secs(5)));
    rig.wait(4.9);
    assert!(rig.sent().is_empty());
    rig.wait(0.1);
    assert_eq!(rig.sent(), ["1", "2"]);
}

#[test]
fn what_was_passed_over_is_tried_again_every_half_minute() {
    let (mut rig, disk, segment) = rig_with(peer(), &["critical:1"]);
    disk.refuse("read_at", &segment, libc::EIO);
    rig.come_up();
    for _ in 0..100 {
        if rig.broker.spool.passes_over() {
            break;
        }
        rig.wait(5.0);
    }
    rig.wait(0.1);
    assert!(rig.broker.spool.passes_over());
    let due = rig.now.mono + Duration::from_secs(30);
    assert!(!rig.broker.agenda.rereads(true, due - Duration::from_nanos(1)));
    assert!(rig.broker.agenda.rereads(true, due));
    rig.wait(30.0);
    disk.heal();
    rig.wait(29.9);
    assert!(rig.sent().is_empty());
    rig.wait(0.1);
    assert_eq!(rig.sent(), ["1"]);
    rig.say(&["ok"]);
    assert_eq!(rig.delivered(), ["1"]);
    rig.wait(0.1);
    rig.broker.status(rig.now);
    assert_eq!(rig.broker.deadline(), None);
}

#[test]
fn the_first_of_a_handler_s_messages_that_cannot_be_read_is_tried_again_after_five_seconds() {
    let mut peer = peer();
    peer.wire = WireKind::Secure;
    let (mut rig, disk, segment) = rig_with(peer, &["critical:pay:1"]);
    rig.come_up_secure();
    rig.put(|out| put_not_taken(out, 1, "away"));
    rig.wait(HOLD_AFTER.as_secs_f64());
    rig.frames();
    rig.put(|out| put_not_taken(out, 2, "away"));
    disk.refuse("read_at", &segment, libc::EIO);
    rig.put(|out| put_ready(out, "pay"));
    disk.heal();
    assert!(rig.frames().is_empty());
    rig.wait(4.9);
    assert!(rig.frames().is_empty());
    rig.wait(0.1);
    assert_eq!(rig.frames(), [secure::Got::critical(3, 1, 1, "pay:1")]);
}
