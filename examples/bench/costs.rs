//! What a request costs, and where: `scripts/bench where`.
//!
//! Requests of 64 bytes to a handler that gives them back, of programs that have one unanswered
//! each, and of four that have 64. For each work: requests a second; the processor's time that a
//! request takes in the link children of `lonc` and `lond`, in programs and kernel; and where
//! `perf` may count them, their system calls. The load and the handler are loops over all their
//! connections, in threads of this program. Several builds are measured in turn, round by round.

use crate::median;
use crate::rig::{NEAR, PATIENCE, Program, Result, Rig};
use crate::stream::{Address, Connection, READ, serve};
use crate::usage::times;
use mio::{Events, Poll};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The host that is called.
const FAR: &str = "far";
/// How long each work is done before it is measured, and while it is.
const BEFORE: Duration = Duration::from_millis(300);
const TIME: Duration = Duration::from_secs(2);
/// Bytes of a request.
const REQUEST: usize = 64;

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
        let mut load = Load { poll, programs: Vec::new(), request, scratch: vec![0; READ] };
        let address = Address::Unix(socket.to_owned());
        for token in 0..programs {
            let mut program = address.connect(PATIENCE)?;
            program.watch(load.poll.registry(), token)?;
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
                if program.read(&mut self.scratch)? {
                    let lost = |held: &[u8]| held.starts_with(b"con_lost") || held.starts_with(b"error:");
                    if lost(&program.held) {
                        return Err("ask: the link was lost".into());
                    }
                    let answers = memchr::memchr_iter(b'\n', &program.held).count();
                    let whole = memchr::memrchr(b'\n', &program.held).map_or(0, |at| at + 1);
                    program.held.drain(..whole);
                    count += answers as u64;
                    (0..answers).for_each(|_| program.out.extend_from_slice(&self.request));
                }
                program.write()?;
            }
        }
        Ok(count)
    }
}
