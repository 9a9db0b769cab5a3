//! The spool, on a file system in memory, where a sync costs no more than its call: what the
//! program itself costs.

use criterion::{Criterion, Throughput};
use lonnet::store::spool::{RealDisk, Spool, SpoolLimits};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Messages of one store.
const BATCH: usize = 64;
/// Bytes of a message.
const MESSAGE: usize = 200;
/// Messages that a spool has at most before another is begun.
const MOST: u64 = 50_000;

/// A new spool, in memory where there is such a file system.
fn new() -> (TempDir, Spool<RealDisk>) {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
    let limits = SpoolLimits { messages: u64::MAX, bytes: u64::MAX, keep_free: 0 };
    let spool = Spool::open(RealDisk, &dir.path().join("far"), limits);
    (dir, spool)
}

fn store(spool: &mut Spool<RealDisk>, batch: &[&[u8]]) {
    let stored = spool.store(batch, jiff::Timestamp::UNIX_EPOCH);
    assert!(stored.iter().all(Result::is_ok), "{stored:?}");
}

pub(super) fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("spool");
    let message = [b'x'; MESSAGE];
    let batch = [&message[..]; BATCH];
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("store 64 of 200 bytes", |bencher| {
        bencher.iter_custom(|times| timed(times, |spool| store(spool, &batch)));
    });
    group.bench_function("store, replay and settle 64 of 200 bytes", |bencher| {
        bencher.iter_custom(|times| {
            timed(times, |spool| {
                store(spool, &batch);
                let mut replayed = 0;
                while let Ok(Some(message)) = spool.next_unsent() {
                    spool.settle(message.sequence);
                    replayed += 1;
                }
                assert_eq!(replayed, BATCH);
            })
        });
    });
}

/// How long it takes, so many times, in spools that do not grow for ever.
fn timed(times: u64, mut each: impl FnMut(&mut Spool<RealDisk>)) -> Duration {
    let (mut left, mut took) = (times, Duration::ZERO);
    while left > 0 {
        let (_dir, mut spool) = new();
        // The first makes a segment.
        each(&mut spool);
        let count = left.min(MOST / BATCH as u64);
        let begun = Instant::now();
        (0..count).for_each(|_| each(&mut spool));
        took += begun.elapsed();
        left -= count;
    }
    took
}
