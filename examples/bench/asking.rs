//! A work: so many connections, so many requests of each on their way, for so long; every answer
//! must be its request's. One loop over all connections.

use crate::rig::Result;
use crate::speech::{Said, Speech};
use crate::stream::{Address, Connection, READ};
use hdrhistogram::Histogram;
use mio::{Events, Poll};
use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Digits of the number in each request, at most.
const DIGITS: usize = 12;

/// What is asked, and how.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    pub name: &'static str,
    /// A connection for each request.
    pub churn: bool,
    pub connections: usize,
    /// Requests on their way on each.
    pub ahead: usize,
    /// Bytes of a request, if it is long enough for its prefix and a number.
    pub bytes: usize,
}

/// Who is asked.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Each connection goes to the next of them.
    pub addresses: Vec<Address>,
    pub speech: Speech,
    /// Before the number of each request.
    pub prefix: &'static str,
}

/// What came of it.
#[derive(Debug)]
pub struct Came {
    /// Answers while it was counted.
    pub answers: u64,
    /// Answers in all.
    pub all: u64,
    pub seconds: f64,
    /// From a request to its answer, in nanoseconds.
    pub times: Histogram<u64>,
}

/// A request whose number can be changed.
struct Request {
    bytes: Vec<u8>,
    number: Range<usize>,
    next: u64,
}

impl Request {
    fn new(prefix: &str, bytes: usize) -> Request {
        let mut request = prefix.as_bytes().to_vec();
        request.resize(bytes.max(prefix.len() + 1), b'x');
        let number = prefix.len()..request.len().min(prefix.len() + DIGITS);
        Request { bytes: request, number, next: 0 }
    }

    /// The request with this number, as far as it has room for it.
    fn numbered(&mut self, mut number: u64) -> &[u8] {
        for digit in self.bytes[self.number.clone()].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        &self.bytes
    }
}

/// A work while it is done.
struct Bench<'a> {
    asked: &'a Asked,
    work: &'a Work,
    request: Request,
    came: Came,
}

/// A connection, and what waits for its answer on it.
struct Program {
    connection: Connection,
    asked: VecDeque<(u64, Instant)>,
    /// When it began to connect.
    begun: Instant,
}

/// Does a work for so long, and counts from when it has gone on for `warm`.
pub fn press(asked: &Asked, work: &Work, warm: Duration, time: Duration) -> Result<Came> {
    let mut poll = Poll::new()?;
    let request = Request::new(asked.prefix, work.bytes);
    let came = Came { answers: 0, all: 0, seconds: time.as_secs_f64(), times: Histogram::new(3)? };
    let mut bench = Bench { asked, work, request, came };
    let mut programs = Vec::new();
    for at in 0..work.connections {
        programs.push(begin(&mut bench, &poll, at)?);
    }
    let begin_at = Instant::now() + warm;
    let (end, mut last) = (begin_at + time, Instant::now());
    let (mut events, mut scratch) = (Events::with_capacity(256), vec![0; READ]);
    loop {
        poll.poll(&mut events, Some(Duration::from_millis(10)))?;
        let now = Instant::now();
        if now >= end {
            return Ok(bench.came);
        }
        if now > last + PATIENCE {
            return Err(format!("no answer within {PATIENCE:?}").into());
        }
        for event in &events {
            let at = event.token().0;
            let program = &mut programs[at];
            let mut answered = false;
            if program.connection.read(&mut scratch)? {
                answered = take(program, &mut bench, at, now >= begin_at)?;
                last = now;
            }
            if answered && work.churn {
                program.connection.forget(poll.registry())?;
                programs[at] = begin(&mut bench, &poll, at)?;
            } else {
                program.connection.write()?;
            }
        }
    }
}

/// Connects, and asks as soon as that may be.
fn begin(bench: &mut Bench<'_>, poll: &Poll, at: usize) -> Result<Program> {
    let Bench { asked, work, request, .. } = bench;
    let begun = Instant::now();
    let mut connection = asked.addresses[at % asked.addresses.len()].connect(PATIENCE)?;
    connection.watch(poll.registry(), at)?;
    let mut program = Program { connection, asked: VecDeque::new(), begun };
    match asked.speech.greeting(at) {
        Some(greeting) => program.connection.out.extend_from_slice(greeting.as_bytes()),
        None => ask(&mut program, asked, request, work.ahead, at, begun),
    }
    program.connection.write()?;
    Ok(program)
}

fn ask(program: &mut Program, asked: &Asked, request: &mut Request, count: usize, at: usize, now: Instant) {
    for _ in 0..count {
        let number = request.next;
        request.next += 1;
        asked.speech.ask(&mut program.connection.out, request.numbered(number), at);
        program.asked.push_back((number, now));
    }
}

/// Takes the answers that have come, and asks again for each; whether there were any.
fn take(program: &mut Program, bench: &mut Bench<'_>, at: usize, counts: bool) -> Result<bool> {
    let Bench { asked, work, request, came } = bench;
    let now = Instant::now();
    let (mut used, mut answers, mut ready) = (0, 0, false);
    while let Some((said, length)) = asked.speech.take(&program.connection.held[used..]) {
        match said {
            Said::Ready => ready = true,
            Said::Nothing => {}
            Said::Answer(answer) => {
                let (number, sent) = program.asked.pop_front().ok_or("an answer that nobody asked for")?;
                let answer = &program.connection.held[used..][answer];
                if answer != request.numbered(number) {
                    let answer = answer[..answer.len().min(80)].escape_ascii();
                    return Err(format!("request {number} is answered \"{answer}\"").into());
                }
                answers += 1;
                if counts {
                    came.times.record(now.duration_since(sent).as_nanos() as u64)?;
                }
            }
        }
        used += length;
    }
    program.connection.held.drain(..used);
    came.all += answers;
    came.answers += if counts { answers } else { 0 };
    if ready {
        // What connecting costs is a part of what a request on a connection of its own does.
        let sent = if work.churn { program.begun } else { now };
        ask(program, asked, request, work.ahead, at, sent);
    }
    if !work.churn {
        ask(program, asked, request, answers as usize, at, now);
    }
    Ok(answers > 0)
}
