//! Critical messages a second: `scripts/bench critical`.
//!
//! What this disk syncs; what is stored and synced for a peer that is away; what of that is then
//! replayed to a program which counts, one at a time and with a window; and what is answered while
//! the link is up. Several builds are measured in turn, round by round. Ratios are those of one
//! round: to the disk for what is stored, for the rest to the build that was named first.
//!
//! `scripts/bench peers` has the same without what is live, as rows of its own.

use crate::median;
use crate::report::spread;
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
/// Bytes of a request, as many as the other measurements of this kind use.
const REQUEST: usize = 200;
/// Bytes of its line in a spool, for the disk alone.
const LINE: usize = REQUEST + 72;
/// Messages in flight, where there are many.
const MANY: usize = 64;
/// When a replay is left.
const REPLAY_MOST: Duration = Duration::from_secs(4);
/// Bytes of the file that the disk alone is measured with.
const FILE: usize = 1 << 20;

/// How much is measured.
pub struct Length {
    pub rounds: usize,
    /// How long each measurement takes.
    pub time: Duration,
    /// Messages that are replayed.
    pub replayed: u64,
    /// Whether what is answered while the link is up is measured, too.
    pub live: bool,
}

/// One build's numbers, of one round each.
#[derive(Default)]
struct Numbers {
    store: [Vec<f64>; 2],
    replay: [Vec<f64>; 2],
    live: [Vec<f64>; 4],
}

/// What was measured: of the disk alone, and of each build.
pub struct Measured {
    disk: [Vec<f64>; 2],
    builds: Vec<Numbers>,
}

/// Measures the programs in each of `bins`, on the disk that `folder` is on.
pub fn measure(bins: &[PathBuf], length: &Length, folder: &Path) -> Result<Measured> {
    let builds = bins.iter().map(|_| Numbers::default()).collect();
    let mut measured = Measured { disk: [Vec::new(), Vec::new()], builds };
    for _ in 0..length.rounds {
        for (at_once, numbers) in [1, MANY].into_iter().zip(&mut measured.disk) {
            numbers.push(syncs(at_once, length.time, folder)?);
        }
        for (bin, numbers) in bins.iter().zip(&mut measured.builds) {
            round(bin, length, folder, numbers)?;
        }
    }
    Ok(measured)
}

/// Measures the programs in each of `bins`, and prints what came of it.
pub fn run(bins: &[PathBuf], rounds: usize) -> Result<()> {
    let length = Length { rounds, time: Duration::from_millis(1500), replayed: 100_000, live: true };
    let Measured { disk, builds } = measure(bins, &length, &std::env::temp_dir())?;
    println!("messages a second of {REQUEST} bytes, medians of {rounds} rounds");
    line("this disk, 1 a sync", &disk[0], "", None);
    line("this disk, 64 a sync", &disk[1], "", None);
    for (bin, numbers) in bins.iter().zip(&builds) {
        println!("{}", bin.display());
        let first = builds.first().filter(|first| !std::ptr::eq(*first, numbers));
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

/// A table of what is stored and replayed beside what the disk alone syncs, by the names of builds.
pub fn table(measured: &Measured, names: &[String]) -> String {
    let Measured { disk: [one, many], builds } = measured;
    let mut text = format!(
        "Critical messages of {REQUEST} bytes a second, beside lines that this disk alone takes, one or {MANY} with each \
         sync; medians of {} rounds, and half of what lies between the least and the most:\n\n\
         | | a second | of the disk, in the same round |\n| --- | ---: | ---: |\n",
        one.len()
    );
    let mut row = |name: &str, numbers: &[f64], disk: &[f64]| {
        let ratios = numbers.iter().zip(disk).map(|(number, disk)| number / disk);
        let (rate, ratio) = (spread(numbers.iter().copied()), spread(ratios));
        text.push_str(&format!("| {name} | {rate} | {ratio} |\n"));
    };
    row("this disk, 1 a sync", one, one);
    row("this disk, 64 a sync", many, many);
    for (name, Numbers { store, replay, .. }) in names.iter().zip(builds) {
        row(&format!("{name}, stored and synced, 1 in flight"), &store[0], one);
        row(&format!("{name}, the same, 64 in flight"), &store[1], many);
        row(&format!("{name}, replayed to a handler that counts, one at a time"), &replay[0], one);
        row(&format!("{name}, the same, window of 64"), &replay[1], many);
    }
    text + "\n"
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
fn syncs(at_once: usize, time: Duration, folder: &Path) -> Result<f64> {
    let file = tempfile::tempfile_in(folder)?;
    file.write_all_at(&vec![0; FILE], 0)?;
    file.sync_all()?;
    let batch = vec![b'x'; LINE * at_once];
    let (start, mut count, mut at) = (Instant::now(), 0, 0);
    while start.elapsed() < time {
        if at + batch.len() > FILE {
            at = 0;
        }
        file.write_all_at(&batch, at as u64)?;
        file.sync_data()?;
        (at, count) = (at + batch.len(), count + at_once);
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

fn round(bin: &Path, length: &Length, folder: &Path, numbers: &mut Numbers) -> Result<()> {
    for (way, handler, tagged) in [(0, "count", false), (1, "tagged", true)] {
        let rig = Rig::new_in(folder, bin, &[FAR])?;
        let counter = Counter::of_this_thread();
        serve(&rig.handler_socket(handler), tagged, &counter)?;
        let _lonc = rig.start("lonc", NEAR)?;
        let socket = rig.socket(FAR);
        wait("the peer to be found away", || {
            ask(&socket, handler, 1, Until::Asked(1)).is_ok_and(|answers| answers.0 == "con_delayed")
        })?;
        if way == 0 {
            numbers.store[0].push(rate(&socket, handler, 1, length.time)?);
            numbers.store[1].push(rate(&socket, handler, MANY, length.time)?);
        }
        let waiting = rig.status(FAR)?["delayed"].as_u64().unwrap_or(0);
        ask(&socket, handler, 1000, Until::Asked(length.replayed.saturating_sub(waiting)))?;
        numbers.replay[way].push(replayed(&rig, &counter, length.replayed)?);
        if length.live {
            let [one, many] = live(bin, length.time, folder, (handler, tagged))?;
            numbers.live[2 * way].push(one);
            numbers.live[2 * way + 1].push(many);
        }
    }
    Ok(())
}

/// Messages a second that are answered by the peer, with one in flight and with many.
fn live(bin: &Path, time: Duration, folder: &Path, (handler, tagged): (&str, bool)) -> Result<[f64; 2]> {
    let rig = Rig::new_in(folder, bin, &[FAR])?;
    serve(&rig.handler_socket(handler), tagged, &Counter::of_this_thread())?;
    let _far = rig.start("lond", FAR)?;
    let _lonc = rig.start("lonc", NEAR)?;
    rig.wait_up(FAR)?;
    let socket = rig.socket(FAR);
    Ok([rate(&socket, handler, 1, time)?, rate(&socket, handler, MANY, time)?])
}

/// Messages a second, from the first to the last that the program behind the handler gets.
fn replayed(rig: &Rig, counter: &Counter, most: u64) -> Result<f64> {
    let _far = rig.start("lond", FAR)?;
    let before = counter.count();
    let first = counter.wait_for(before + 1, PATIENCE);
    let start = Instant::now();
    let last = counter.wait_for(before + most, REPLAY_MOST);
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

/// Messages a second, with so many unanswered at once, for so long.
pub fn rate(socket: &Path, handler: &str, in_flight: usize, time: Duration) -> Result<f64> {
    let start = Instant::now();
    let (_, count) = ask(socket, handler, in_flight, Until::Over(time))?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// When no more is asked.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// When this time is over.
    Over(Duration),
    /// When there were so many.
    Asked(u64),
}

/// Sends critical messages, with so many unanswered at once, until then; the last answer, and how
/// many there were.
pub fn ask(socket: &Path, handler: &str, in_flight: usize, until: Until) -> Result<(String, u64)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!("critical:{handler}:");
    let request = format!("{head}{}\n", "x".repeat(REQUEST - handler.len() - 1));
    let batch = request.repeat(in_flight);
    let (start, mut sent, mut answered, mut last) = (Instant::now(), 0, 0, String::new());
    let mut scratch = vec![0; 1 << 16];
    let goes_on = |sent: u64| match until {
        Until::Over(time) => start.elapsed() < time,
        Until::Asked(most) => sent < most,
    };
    while goes_on(sent) || answered < sent {
        let room = in_flight as u64 - (sent - answered);
        let room = match until {
            Until::Over(_) => room,
            Until::Asked(most) => room.min(most - sent),
        };
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
