//! Programs that ask, and how long they waited for each answer.

use crate::rig::Result;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A program asks, gets its answer, and pauses for so long: what is measured is latency, not how
/// much the machine can do.
const PAUSE: Duration = Duration::from_millis(1);

/// Latencies, in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
}

/// Asks at each of these sockets, on a connection each, for this long.
pub fn measure(sockets: &[PathBuf], time: Duration) -> Result<Latency> {
    measure_as(sockets, None, time)
}

/// The same, connected as this user.
pub fn measure_as(sockets: &[PathBuf], user: Option<u32>, time: Duration) -> Result<Latency> {
    let end = Instant::now() + time;
    let threads: Vec<_> = sockets
        .iter()
        .map(|socket| {
            let stream = connect_as(socket, user)?;
            Ok(std::thread::spawn(move || ask_until(stream, end)))
        })
        .collect::<Result<_>>()?;
    let mut waited = Vec::new();
    for thread in threads {
        waited.extend(thread.join().map_err(|_| "ask: the thread panicked")??);
    }
    waited.sort_unstable();
    let at =
        |part: f64| waited.get((waited.len() as f64 * part) as usize).map(|time| time.as_secs_f64() * 1e6);
    match (at(0.5), at(0.99)) {
        (Some(p50), Some(p99)) => Ok(Latency { p50, p99 }),
        _ => Err("measure: nothing was answered".into()),
    }
}

/// Connects as another user, which is noted at that moment and stays so.
fn connect_as(socket: &Path, user: Option<u32>) -> Result<UnixStream> {
    let Some(user) = user else { return Ok(UnixStream::connect(socket)?) };
    let socket = socket.to_owned();
    let connect = move || {
        // The system call itself changes this thread alone. SAFETY: it gets numbers.
        match unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) } {
            0 => UnixStream::connect(&socket),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    Ok(std::thread::spawn(connect).join().map_err(|_| "connect: the thread panicked")??)
}

fn ask_until(mut stream: UnixStream, end: Instant) -> std::io::Result<Vec<Duration>> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut waited = Vec::new();
    let mut line = String::new();
    while Instant::now() < end {
        let began = Instant::now();
        stream.write_all(b"pong\n")?;
        line.clear();
        reader.read_line(&mut line)?;
        waited.push(began.elapsed());
        if line == "con_lost\n" {
            return Err(std::io::Error::other("the link was lost"));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(waited)
}

/// Programs that keep asking one peer, with requests ahead, until this is dropped.
pub struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// So many programs, each with so many requests ahead of their answers.
    pub fn start(
        socket: &Path,
        user: Option<u32>,
        request: &str,
        programs: usize,
        ahead: usize,
    ) -> Result<Crowd> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for _ in 0..programs {
            let stream = connect_as(socket, user)?;
            stream.set_read_timeout(Some(Duration::from_millis(100)))?;
            let (stop, line) = (stop.clone(), format!("{request}\n"));
            threads.push(std::thread::spawn(move || press(stream, &line, ahead, &stop)));
        }
        Ok(Crowd { stop, threads })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn press(mut stream: UnixStream, line: &str, ahead: usize, stop: &AtomicBool) {
    let Ok(mut reader) = stream.try_clone().map(BufReader::new) else { return };
    if stream.write_all(line.repeat(ahead).as_bytes()).is_err() {
        return;
    }
    let mut answer = String::new();
    while !stop.load(Ordering::SeqCst) {
        // A peer that hangs answers nothing, which is what this is for.
        if reader.read_line(&mut answer).is_ok() {
            if answer.is_empty() || stream.write_all(line.as_bytes()).is_err() {
                return;
            }
            answer.clear();
        }
    }
}
