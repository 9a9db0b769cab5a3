//! Critical messages a second: `scripts/bench critical`.
//!
//! What this disk syncs; what is stored and synced for a peer that is away; what of that is then
//! replayed to a program which counts, one at a time and with a window; and what is answered while
//! the link is up. Several builds are measured in turn, round by round. Ratios are those of one
//! round: to the disk for what is stored, for the rest to the build that was named first.

use crate::median;
use crate::rig::{NEAR, PATIENCE, Result, Rig, wait};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// The host that is called.
const FAR: &str = "far";
/// How long each measurement takes.
const TIME: Duration = Duration::from_millis(1500);
/// Bytes of a request, as many as the other measurements of this kind use.
const REQUEST: usize = 200;
/// Bytes of its line in a spool, for the disk alone.
const LINE: usize = REQUEST + 72;
/// Messages in flight, where there are many.
const MANY: usize = 64;
/// Messages that are replayed, and after which a replay is left.
const REPLAYED: u64 = 100_000;
const REPLAY_MOST: Duration = Duration::from_secs(4);
/// Bytes of the file that the disk alone is measured with.
const FILE: usize = 1 << 20;

/// One build's numbers, of one round each.
#[derive(Default)]
struct Numbers {
    store: [Vec<f64>; 2],
    replay: [Vec<f64>; 2],
    live: [Vec<f64>; 4],
}

/// Measures the programs in each of `bins`.
pub fn run(bins: &[PathBuf], rounds: usize) -> Result<()> {
    let mut disk = [Vec::new(), Vec::new()];
    let mut all: Vec<Numbers> = bins.iter().map(|_| Numbers::default()).collect();
    for _ in 0..rounds {
        disk[0].push(syncs(1)?);
        disk[1].push(syncs(MANY)?);
        for (bin, numbers) in bins.iter().zip(&mut all) {
            round(bin, numbers)?;
        }
    }
    println!("messages a second of {REQUEST} bytes, medians of {rounds} rounds");
    line("this disk, 1 a sync", &disk[0], "", None);
    line("this disk, 64 a sync", &disk[1], "", None);
    for (bin, numbers) in bins.iter().zip(&all) {
        println!("{}", bin.display());
        let first = all.first().filter(|first| !std::ptr::eq(*first, numbers));
        let Numbers { store, replay, live } = numbers;
        line("  stored, 1 in flight", &store[0], "of the disk", Some(&disk[0]));
        line("  stored, 64 in flight", &store[1], "of the disk", Some(&disk[1]));
        line("  replayed, one at a time", &replay[0], "of the first", first.map(|it| &it.replay[0]));
        line("  replayed, window of 64", &replay[1], "of the first", first.map(|it| &it.replay[1]));
        line("  live, 1 in flight", &live[0], "of the first", first.map(|it| &it.live[0]));
        line("  live, 64 in flight", &live[1], "of the first", first.map(|it| &it.live[1]));
        line("  live, tagged, 1 in flight", &live[2], "of the first", first.map(|it| &it.live[2]));
        line("  live, tagged, 64 in flight", &live[3], "of the first", first.map(|it| &it.live[3]));
    }
    Ok(())
}

fn line(what: &str, numbers: &[f64], to: &str, others: Option<&Vec<f64>>) {
    print!("{what:<30} {:>10.0}", median(numbers.iter().copied()));
    if let Some(others) = others {
        let ratios = numbers.iter().zip(others).map(|(mine, other)| mine / other);
        print!("   {:>6.2} {to}", median(ratios));
    }
    println!();
}

/// Lines a second that this disk takes, so many with each sync: written over zeros, as a spool's
/// segments are.
fn syncs(at_once: usize) -> Result<f64> {
    let file = tempfile::tempfile()?;
    file.write_all_at(&vec![0; FILE], 0)?;
    file.sync_all()?;
    let batch = vec![b'x'; LINE * at_once];
    let (start, mut count, mut at) = (Instant::now(), 0, 0);
    while start.elapsed() < TIME {
        if at + batch.len() > FILE {
            at = 0;
        }
        file.write_all_at(&batch, at as u64)?;
        file.sync_data()?;
        (at, count) = (at + batch.len(), count + at_once);
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

fn round(bin: &Path, numbers: &mut Numbers) -> Result<()> {
    for (way, handler, tagged) in [(0, "count", false), (1, "tagged", true)] {
        let rig = Rig::new(bin, &[FAR])?;
        let counter = Counter::of_this_thread();
        serve(&rig.handler_socket(handler), tagged, &counter)?;
        let _lonc = rig.start("lonc", NEAR)?;
        let socket = rig.socket(FAR);
        wait("the peer to be found away", || {
            ask(&socket, handler, 1, Some(1)).is_ok_and(|answers| answers.0 == "con_delayed")
        })?;
        if way == 0 {
            numbers.store[0].push(rate(&socket, handler, 1)?);
            numbers.store[1].push(rate(&socket, handler, MANY)?);
        }
        let waiting = rig.status(FAR)?["delayed"].as_u64().unwrap_or(0);
        ask(&socket, handler, 1000, Some(REPLAYED.saturating_sub(waiting)))?;
        numbers.replay[way].push(replayed(&rig, &counter)?);
        let [one, many] = live(bin, handler, tagged)?;
        numbers.live[2 * way].push(one);
        numbers.live[2 * way + 1].push(many);
    }
    Ok(())
}

/// Messages a second that are answered by the peer, with one in flight and with many.
fn live(bin: &Path, handler: &str, tagged: bool) -> Result<[f64; 2]> {
    let rig = Rig::new(bin, &[FAR])?;
    serve(&rig.handler_socket(handler), tagged, &Counter::of_this_thread())?;
    let _far = rig.start("lond", FAR)?;
    let _lonc = rig.start("lonc", NEAR)?;
    rig.wait_up(FAR)?;
    let socket = rig.socket(FAR);
    Ok([rate(&socket, handler, 1)?, rate(&socket, handler, MANY)?])
}

/// Messages a second, from the first to the last that the program behind the handler gets.
fn replayed(rig: &Rig, counter: &Counter) -> Result<f64> {
    let _far = rig.start("lond", FAR)?;
    let before = counter.count();
    let first = counter.wait_for(before + 1, PATIENCE);
    let start = Instant::now();
    let last = counter.wait_for(before + REPLAYED, REPLAY_MOST);
    Ok((last - first) as f64 / start.elapsed().as_secs_f64())
}

/// How many messages the program behind the handler has got. Who waits for a number is woken by
/// that message alone, and takes nothing of the time of what is measured.
struct Counter {
    count: AtomicU64,
    awaited: AtomicU64,
    waits: Thread,
}

impl Counter {
    /// One that this thread will wait for.
    fn of_this_thread() -> Arc<Counter> {
        Arc::new(Counter { count: AtomicU64::new(0), awaited: AtomicU64::new(0), waits: thread::current() })
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    fn add(&self) {
        let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        if count == self.awaited.load(Ordering::SeqCst) {
            self.waits.unpark();
        }
    }

    /// Waits until there were so many, for so long at most; how many there were then.
    fn wait_for(&self, count: u64, most: Duration) -> u64 {
        let end = Instant::now() + most;
        self.awaited.store(count, Ordering::SeqCst);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if self.count() >= count || left.is_zero() {
                return self.count();
            }
            thread::park_timeout(left);
        }
    }
}

fn rate(socket: &Path, handler: &str, in_flight: usize) -> Result<f64> {
    let start = Instant::now();
    let (_, count) = ask(socket, handler, in_flight, None)?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Sends critical messages, with so many unanswered at once, until `TIME` is over or so many are
/// answered; the last answer, and how many there were.
fn ask(socket: &Path, handler: &str, in_flight: usize, most: Option<u64>) -> Result<(String, u64)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!("critical:{handler}:");
    let request = format!("{head}{}\n", "x".repeat(REQUEST - handler.len() - 1));
    let batch = request.repeat(in_flight);
    let (start, mut sent, mut answered, mut last) = (Instant::now(), 0, 0, String::new());
    let mut scratch = vec![0; 1 << 16];
    let goes_on = |sent: u64| most.map_or_else(|| start.elapsed() < TIME, |most| sent < most);
    while goes_on(sent) || answered < sent {
        let room = in_flight as u64 - (sent - answered);
        let room = most.map_or(room, |most| room.min(most - sent));
        if goes_on(sent) && room > 0 {
            stream.write_all(&batch.as_bytes()[..request.len() * room as usize])?;
            sent += room;
        }
        let count = stream.read(&mut scratch);
        let count =
            count.map_err(|error| format!("read answer {answered} of {sent} from {handler}: {error}"))?;
        if count == 0 {
            return Err("ask: the connection was closed".into());
        }
        let lines = memchr::memchr_iter(b'\n', &scratch[..count]).count() as u64;
        answered += lines;
        last = String::from_utf8_lossy(&scratch[..count]).trim_end().lines().last().unwrap_or("").into();
    }
    Ok((last, answered))
}

/// A program that counts what it is asked, and answers at once; it goes on until this program ends.
fn serve(socket: &Path, tagged: bool, counter: &Arc<Counter>) -> Result<()> {
    let listener = UnixListener::bind(socket)?;
    let counter = Arc::clone(counter);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(std::io::Result::ok) {
            let counter = Arc::clone(&counter);
            thread::spawn(move || answer(&stream, tagged, &counter));
        }
    });
    Ok(())
}

fn answer(mut stream: &UnixStream, tagged: bool, counter: &Counter) {
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let (mut line, mut answers) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        if !matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            return;
        }
        counter.add();
        if tagged {
            let tag = line.iter().position(|byte| *byte == b' ').unwrap_or_default();
            answers.extend_from_slice(&line[..tag]);
            answers.push(b' ');
        }
        answers.extend_from_slice(b"ok\n");
        // What came together is answered together.
        if memchr::memchr(b'\n', reader.buffer()).is_none() {
            if stream.write_all(&answers).is_err() {
                return;
            }
            answers.clear();
        }
    }
}
