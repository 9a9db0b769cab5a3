//! What a request costs, and where: `scripts/bench where`.
//!
//! Requests of 64 bytes to a handler that gives them back, of programs that have one unanswered
//! each, and of four that have 64. For each work: requests a second; the processor's time that a
//! request takes in the link children of `lonc` and `lond`, in programs and kernel; and where
//! `perf` may count them, their system calls. The load and the handler are loops over all their
//! connections, in threads of this program. Several builds are measured in turn, round by round.

use crate::median;
use crate::rig::{NEAR, Program, Result, Rig};
use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The host that is called.
const FAR: &str = "far";
/// How long each work is done before it is measured, and while it is.
const BEFORE: Duration = Duration::from_millis(300);
const TIME: Duration = Duration::from_secs(2);
/// Bytes of a request.
const REQUEST: usize = 64;
/// Bytes that one read asks for.
const READ: usize = 256 << 10;

/// What is measured: the handler, programs, and requests of each that are unanswered.
const WORKS: [(&str, usize, usize); 6] =
    [("line", 1, 1), ("line", 16, 1), ("line", 64, 1), ("line", 4, 64), ("tagged", 64, 1), ("tagged", 4, 64)];

/// The system calls that are counted.
const CALLS: [&str; 3] = ["epoll_wait", "recvfrom", "sendto"];

/// What one work cost in one round: requests a second; then for `lonc` and `lond` microseconds in
/// the program, in the kernel, and the calls.
type Costs = (f64, [[f64; 2 + CALLS.len()]; 2]);

/// Measures the programs in each of `bins`.
pub fn run(bins: &[PathBuf], rounds: usize) -> Result<()> {
    let mut all: Vec<Vec<Vec<Costs>>> = vec![vec![Vec::new(); WORKS.len()]; bins.len()];
    for _ in 0..rounds {
        for (bin, of_bin) in bins.iter().zip(&mut all) {
            round(bin, of_bin)?;
        }
    }
    println!("requests of {REQUEST} bytes, medians of {rounds} rounds; each of lonc's and lond's link child");
    println!("us: of a processor, in the program + in the kernel, a request; calls: a request");
    for (bin, of_bin) in bins.iter().zip(&all) {
        println!("{}", bin.display());
        println!("  {:<14} {:>9}  {:<50} lond", "work", "a second", "lonc");
        for ((handler, programs, ahead), costs) in WORKS.iter().zip(of_bin) {
            let of = |pick: &dyn Fn(&Costs) -> f64| median(costs.iter().map(pick));
            print!("  {:<14} {:>9.0}", format!("{handler} {programs}x{ahead}"), of(&|costs| costs.0));
            for side in 0..2 {
                let costs: [f64; 2 + CALLS.len()] = std::array::from_fn(|at| of(&|costs| costs.1[side][at]));
                let [user, system, calls @ ..] = costs;
                let names = CALLS.iter().zip(calls);
                let named = names.map(|(name, count)| format!("{name} {count:.2}")).collect::<Vec<_>>();
                print!("  {:<50}", format!("us {user:.2}+{system:.2} {}", named.join(" ")));
            }
            println!();
        }
    }
    Ok(())
}

fn round(bin: &Path, numbers: &mut [Vec<Costs>]) -> Result<()> {
    let rig = Rig::new(bin, &[FAR])?;
    for (handler, tagged) in [("line", false), ("tagged", true)] {
        serve(&rig.handler_socket(handler), tagged)?;
    }
    let lond = rig.start("lond", FAR)?;
    let lonc = rig.start("lonc", NEAR)?;
    rig.wait_up(FAR)?;
    for ((handler, programs, ahead), numbers) in WORKS.iter().zip(numbers) {
        let mut load = Load::new(&rig.socket(FAR), handler, *programs, *ahead)?;
        load.press(BEFORE)?;
        let sides = [child(&lonc)?, child(&lond)?];
        let counters = sides.map(count_calls);
        let before = sides.map(times);
        let (start, count) = (Instant::now(), load.press(TIME)?);
        let (seconds, after) = (start.elapsed().as_secs_f64(), sides.map(times));
        let mut costs = [[f64::NAN; 2 + CALLS.len()]; 2];
        for ((cost, counter), (before, after)) in
            costs.iter_mut().zip(counters).zip(before.into_iter().zip(after))
        {
            let each = |microseconds: f64| microseconds / count as f64;
            (cost[0], cost[1]) = (each(after[0] - before[0]), each(after[1] - before[1]));
            for (cost, calls) in cost[2..].iter_mut().zip(counted(counter)) {
                *cost = each(calls);
            }
        }
        numbers.push((count as f64 / seconds, costs));
    }
    Ok(())
}

/// The link child of a supervisor.
fn child(supervisor: &Program) -> Result<u32> {
    supervisor.all().get(1).copied().ok_or_else(|| "find the link child: there is none".into())
}

/// What a process has used of a processor, in the program and in the kernel: microseconds.
fn times(pid: u32) -> [f64; 2] {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let words: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // A tick is a hundredth of a second on every Linux that there is.
    [11, 12].map(|at| words.get(at).and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0) * 1e4)
}

/// Counts a process's system calls while it is measured, if `perf` is here and may.
fn count_calls(pid: u32) -> Option<Child> {
    let events = CALLS.map(|name| format!("syscalls:sys_enter_{name}")).join(",");
    let seconds = TIME.as_secs_f64().to_string();
    let mut perf = Command::new("perf");
    perf.args(["stat", "-x,", "-e", &events, "-p", &pid.to_string(), "sleep", &seconds]);
    perf.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().ok()
}

fn counted(counter: Option<Child>) -> [f64; CALLS.len()] {
    let said = counter.and_then(|counter| counter.wait_with_output().ok());
    let said = said.map(|said| String::from_utf8_lossy(&said.stderr).into_owned()).unwrap_or_default();
    CALLS.map(|name| {
        let line = said.lines().find(|line| line.contains(&format!("sys_enter_{name}")));
        line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(f64::NAN)
    })
}

/// A connection, and what could not be written to it yet.
struct Connection {
    stream: UnixStream,
    out: Vec<u8>,
}

impl Connection {
    fn new(mut stream: UnixStream, poll: &Poll, token: usize) -> std::io::Result<Connection> {
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(token), both)?;
        Ok(Connection { stream, out: Vec::new() })
    }

    /// Reads once, behind what is in `held` already; how much. `None`: there is no more for now.
    fn read(&mut self, held: &mut Vec<u8>) -> std::io::Result<Option<usize>> {
        let before = held.len();
        held.resize(before + READ, 0);
        let read = self.stream.read(&mut held[before..]);
        held.truncate(before + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&mut self) -> std::io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Programs, each with so many requests unanswered.
struct Load {
    poll: Poll,
    programs: Vec<Connection>,
    request: Vec<u8>,
    scratch: Vec<u8>,
}

impl Load {
    fn new(socket: &Path, handler: &str, programs: usize, ahead: usize) -> Result<Load> {
        let poll = Poll::new()?;
        let mut request = format!("{handler}:{}", "x".repeat(REQUEST - handler.len() - 1)).into_bytes();
        request.push(b'\n');
        let mut load = Load { poll, programs: Vec::new(), request, scratch: Vec::new() };
        for token in 0..programs {
            let mut program = Connection::new(UnixStream::connect(socket)?, &load.poll, token)?;
            program.out = load.request.repeat(ahead);
            program.write()?;
            load.programs.push(program);
        }
        Ok(load)
    }

    /// Asks for each answer again; how many came.
    fn press(&mut self, time: Duration) -> Result<u64> {
        let (end, mut count) = (Instant::now() + time, 0);
        let mut events = Events::with_capacity(256);
        while Instant::now() < end {
            self.poll.poll(&mut events, Some(Duration::from_millis(10)))?;
            for event in &events {
                let program = &mut self.programs[event.token().0];
                loop {
                    self.scratch.clear();
                    let Some(read) = program.read(&mut self.scratch)? else { break };
                    if self.scratch.starts_with(b"con_lost") || self.scratch.starts_with(b"error:") {
                        return Err("ask: the link was lost".into());
                    }
                    let answers = memchr::memchr_iter(b'\n', &self.scratch).count();
                    count += answers as u64;
                    (0..answers).for_each(|_| program.out.extend_from_slice(&self.request));
                    if read < READ {
                        break;
                    }
                }
                program.write()?;
            }
        }
        Ok(count)
    }
}

/// A program that gives each line back; it goes on until this program ends.
fn serve(socket: &Path, tagged: bool) -> Result<()> {
    let mut listener = UnixListener::bind(socket)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, Token(0), Interest::READABLE)?;
    thread::spawn(move || {
        let mut events = Events::with_capacity(256);
        // Their places are their tokens, less one; and what each has begun to ask.
        let mut all: Vec<Option<(Connection, Vec<u8>)>> = Vec::new();
        while poll.poll(&mut events, None).is_ok() {
            for event in &events {
                if event.token() == Token(0) {
                    while let Ok((stream, _)) = listener.accept() {
                        let connection = Connection::new(stream, &poll, all.len() + 1);
                        all.push(connection.ok().map(|connection| (connection, Vec::new())));
                    }
                } else if let Some(place) = all.get_mut(event.token().0 - 1)
                    && let Some((connection, held)) = place
                    && give_back(connection, held, tagged).is_err()
                {
                    *place = None;
                }
            }
        }
    });
    Ok(())
}

fn give_back(connection: &mut Connection, held: &mut Vec<u8>, tagged: bool) -> std::io::Result<()> {
    while let Some(read) = connection.read(held)? {
        let whole = memchr::memrchr(b'\n', held).map_or(0, |at| at + 1);
        if tagged {
            for line in held[..whole].split_inclusive(|byte| *byte == b'\n') {
                let mut blanks = memchr::memchr_iter(b' ', line);
                let (tag, text) = (blanks.next().unwrap_or(0), blanks.nth(2).unwrap_or(0));
                connection.out.extend_from_slice(&line[..tag]);
                connection.out.extend_from_slice(&line[text..]);
            }
        } else {
            connection.out.extend_from_slice(&held[..whole]);
        }
        held.drain(..whole);
        if read < READ {
            break;
        }
    }
    connection.write()
}
