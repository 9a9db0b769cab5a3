//! The spool, on a file system in memory and without syncs: what the program itself costs.

use criterion::{Criterion, Throughput};
use lonnet::base::disk::{Disk, Metadata, RealDisk};
use lonnet::store::spool::{Spool, SpoolLimits};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Messages of one store.
const BATCH: usize = 64;
/// Bytes of a message.
const MESSAGE: usize = 200;
/// Messages that a spool has at most before another is begun.
const MOST: u64 = 50_000;

/// The real one, on which nothing is synced.
#[derive(Debug)]
struct Unsynced(RealDisk);

impl Disk for Unsynced {
    type File = File;

    fn create(&mut self, path: &Path) -> io::Result<File> {
        self.0.create(path)
    }
    fn open(&mut self, path: &Path, write: bool) -> io::Result<File> {
        self.0.open(path, write)
    }
    fn read_at(&mut self, file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.0.read_at(file, offset, length)
    }
    fn write_at(&mut self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(file, offset, bytes)
    }
    fn reserve(&mut self, file: &File, offset: u64, length: u64) -> io::Result<()> {
        self.0.reserve(file, offset, length)
    }
    fn sync_data(&mut self, _: &File) -> io::Result<()> {
        Ok(())
    }
    fn sync_dir(&mut self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn rename_new(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename_new(from, to)
    }
    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn make_folder(&mut self, path: &Path) -> io::Result<()> {
        self.0.make_folder(path)
    }
    fn list(&mut self, folder: &Path, each: &mut dyn FnMut(&OsStr)) -> io::Result<()> {
        self.0.list(folder, each)
    }
    fn metadata(&mut self, path: &Path) -> io::Result<Metadata> {
        self.0.metadata(path)
    }
    fn describe(&mut self, file: &File) -> io::Result<Metadata> {
        self.0.describe(file)
    }
    fn free_space(&mut self, path: &Path) -> io::Result<u64> {
        self.0.free_space(path)
    }
    fn random(&mut self) -> io::Result<[u8; 16]> {
        self.0.random()
    }
}

/// A new spool, in memory where there is such a file system.
fn new() -> (TempDir, Spool<Unsynced>) {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
    let limits = SpoolLimits { messages: u64::MAX, bytes: u64::MAX, keep_free: 0 };
    let spool = Spool::open(Unsynced(RealDisk), &dir.path().join("far"), limits);
    (dir, spool)
}

fn store(spool: &mut Spool<Unsynced>, batch: &[&[u8]]) {
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
fn timed(times: u64, mut each: impl FnMut(&mut Spool<Unsynced>)) -> Duration {
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
