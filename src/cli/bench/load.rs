//! A thread a program, each with its connection; all begin when all are connected.

use super::work::Work;
use crate::Failure;
use client::{Connection, Outcome};
use hdrhistogram::Histogram;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How often it is said how far a work is.
const OFTEN: Duration = Duration::from_millis(500);
/// Stack of a thread: it has a read buffer on it.
const STACK: usize = 256 * 1024;
/// Digits that a time is kept to: to one in a hundred, which no two runs agree to; one more would
/// be eight times the memory, for each program.
const DIGITS: u8 = 2;
/// Longer than that is as long.
const LONGEST: Duration = Duration::from_secs(3600);
/// Kinds of answers that are counted apart; others are counted together.
const KINDS: usize = 20;
const OTHERS: &str = "others";

/// What came of a work.
#[derive(Debug)]
pub(super) struct Taken {
    /// From the first request to the last answer.
    pub(super) elapsed: Duration,
    /// From a request to its answer, in nanoseconds; of the other host's answers only.
    pub(super) times: Histogram<u64>,
    /// Answers that are not the other host's, and how many.
    pub(super) others: BTreeMap<Vec<u8>, u64>,
}

impl Taken {
    pub(super) fn new() -> Result<Taken, Failure> {
        let times = Histogram::new(DIGITS).map_err(uncounted)?;
        Ok(Taken { elapsed: Duration::ZERO, times, others: BTreeMap::new() })
    }

    pub(super) fn answered(&mut self, answer: &[u8], took: Duration) -> Result<(), Failure> {
        if let Outcome::Answer(_) = Outcome::of(answer) {
            let nanos = u64::try_from(took.min(LONGEST).as_nanos()).unwrap_or(u64::MAX);
            return self.times.record(nanos).map_err(uncounted);
        }
        let known = self.others.len() < KINDS || self.others.contains_key(answer);
        let kind = if known { answer.to_owned() } else { OTHERS.into() };
        *self.others.entry(kind).or_default() += 1;
        Ok(())
    }

    fn add(&mut self, one: &Taken) -> Result<(), Failure> {
        self.elapsed = self.elapsed.max(one.elapsed);
        for (answer, count) in &one.others {
            *self.others.entry(answer.clone()).or_default() += count;
        }
        self.times.add(&one.times).map_err(uncounted)
    }
}

/// There is no room for the numbers.
fn uncounted(error: impl std::fmt::Display) -> Failure {
    Failure::did("count", "answers", error)
}

/// Does a work at the socket at `path`. Answers that are out at its end are waited for as long as
/// `patience`. `progress` gets how long it has taken and how many answers there are; at the end,
/// nothing.
///
/// # Errors
/// No connection is to be had, one broke, or answers did not come.
pub(super) fn run(
    work: &Work,
    path: &Path,
    patience: Duration,
    progress: &mut dyn FnMut(Option<(Duration, u64)>),
) -> Result<Taken, Failure> {
    let failed = |error| Failure::did("bench", path.display(), error);
    let open = || Connection::open(path, Some(Instant::now() + patience)).map_err(failed);
    let connections: Vec<Connection> = (0..work.programs).map(|_| open()).collect::<Result<_, _>>()?;
    let (answers, numbers) = (AtomicU64::new(0), AtomicU64::new(1));
    let begun = Instant::now();
    let taken = thread::scope(|scope| {
        let (done, ended) = mpsc::channel();
        for connection in connections {
            let (done, answers, numbers) = (done.clone(), &answers, &numbers);
            let mut program = Program { work, connection, sent: VecDeque::new(), answers, numbers };
            let run = move || {
                // Whoever waited for it has given up where it is not taken.
                let _ = done.send(program.run(begun, patience, path));
            };
            thread::Builder::new().stack_size(STACK).spawn_scoped(scope, run).map_err(failed)?;
        }
        gather(work.programs, &ended, || progress(Some((begun.elapsed(), answers.load(Ordering::Relaxed)))))
    });
    progress(None);
    taken
}

/// What all programs have, when all have ended; or the first error.
fn gather(
    programs: usize,
    ended: &mpsc::Receiver<Result<Taken, Failure>>,
    mut look: impl FnMut(),
) -> Result<Taken, Failure> {
    let mut all = Taken::new()?;
    let mut left = programs;
    while left > 0 {
        match ended.recv_timeout(OFTEN) {
            Ok(one) => {
                all.add(&one?)?;
                left -= 1;
            }
            Err(RecvTimeoutError::Timeout) => look(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(all)
}

/// One of the programs of a work.
struct Program<'a> {
    work: &'a Work,
    connection: Connection,
    /// When each request that has no answer was sent, the oldest first.
    sent: VecDeque<Instant>,
    /// Answers of all programs.
    answers: &'a AtomicU64,
    /// The number of the next request of any.
    numbers: &'a AtomicU64,
}

impl Program<'_> {
    fn run(&mut self, begun: Instant, patience: Duration, path: &Path) -> Result<Taken, Failure> {
        let failed = |error: io::Error| Failure::did("bench", path.display(), error);
        let end = begun + self.work.time;
        let mut taken = Taken::new()?;
        loop {
            let now = Instant::now();
            if now < end {
                self.send(now).map_err(failed)?;
            }
            if self.sent.is_empty() {
                return Ok(taken);
            }
            if now >= end + patience {
                let what = format!("{} requests have no answer after {patience:?}", self.sent.len());
                return Err(Failure::did("bench", path.display(), what));
            }
            self.connection.turn(None, Some(end + patience)).map_err(failed)?;
            self.take(begun, &mut taken, path)?;
        }
    }

    fn send(&mut self, now: Instant) -> io::Result<()> {
        while self.sent.len() < self.work.ahead && self.connection.has_room() {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            self.connection.send(&self.work.request.numbered(number))?;
            self.sent.push_back(now);
        }
        Ok(())
    }

    fn take(&mut self, begun: Instant, taken: &mut Taken, path: &Path) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::did("bench", path.display(), error);
        let now = Instant::now();
        let mut count = 0;
        while let Some(answer) = self.connection.next_answer().map_err(failed)? {
            // There is one for each: the connection sees to that.
            let sent = self.sent.pop_front().unwrap_or(now);
            taken.answered(&answer, now.duration_since(sent))?;
            count += 1;
        }
        if count > 0 {
            taken.elapsed = now.duration_since(begun);
            self.answers.fetch_add(count, Ordering::Relaxed);
        }
        Ok(())
    }
}
