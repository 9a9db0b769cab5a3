//! What waits, waits on disk: the memory of a link child does not grow with it, neither while it
//! waits nor while it is replayed. The spool is written by this test from `docs/spool.md` alone.

use crate::common::pair::{CALLED, Pair};
use crate::common::{process, wait};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Messages of the long backlog, and of the short one.
const LONG: u64 = 100_000;
const SHORT: u64 = 1_000;
/// Messages of one segment that this test writes; below 1 MiB.
const IN_A_SEGMENT: u64 = 6_000;
/// How much more memory the long backlog may cost than the short one, which does not fill one
/// segment: that segment, a summary for each of the others, what the peer's window lets be in
/// flight, and what the allocator keeps of it all. In memory the long one would be 20 MB.
const MORE: u64 = 6 << 10;
/// A test program, unoptimized, on a machine that is busy with others.
const REPLAY: Duration = Duration::from_secs(180);

#[test]
fn memory_does_not_grow_with_the_backlog_while_it_waits_or_is_replayed() {
    let (short, long) = (peaks(SHORT), peaks(LONG));
    for (what, short, long) in [("waiting", short.0, long.0), ("replayed", short.1, long.1)] {
        assert!(long <= short + MORE, "{what}: {long} KiB with {LONG} messages, {short} KiB with {SHORT}");
    }
}

/// The most memory that the child ever had: while so many messages waited, and when they were
/// delivered.
fn peaks(count: u64) -> (u64, u64) {
    let mut pair = Pair::prepare(|host| write_spool(&host.spool(CALLED), count), |_| {});
    wait::until_true("the messages to be found", || waiting(&pair) == Some(count));
    let peak = |pair: &Pair| process::peak_memory(pair.lonc.only_child()).expect("the child lives");
    let while_waiting = peak(&pair);
    pair.come_back();
    let delivered = wait::within(REPLAY, || (waiting(&pair) == Some(0)).then_some(()));
    assert!(delivered.is_some(), "{:?} messages are left", waiting(&pair));
    (while_waiting, peak(&pair))
}

fn waiting(pair: &Pair) -> Option<u64> {
    pair.host.status(CALLED)?["delayed"].as_u64()
}

fn write_spool(folder: &Path, count: u64) {
    fs::create_dir_all(folder).expect("make a folder");
    for first in (1..=count).step_by(IN_A_SEGMENT as usize) {
        let lines: String = (first..=count.min(first + IN_A_SEGMENT - 1)).map(line).collect();
        assert!(lines.len() < 1 << 20, "a segment of {} bytes", lines.len());
        fs::write(folder.join(format!("{first:020}.seg")), lines).expect("write a segment");
    }
}

fn line(sequence: u64) -> String {
    let request = format!("log:{}", "x".repeat(60));
    let (before, behind) =
        (format!("{sequence:020} "), format!(" 2026-03-01T12:30:00.123456Z {:010} ", request.len()));
    let crc = crc32fast::hash(format!("{before}{behind}{request}").as_bytes());
    format!("{before}-{behind}{crc:08x} {request}\n")
}
