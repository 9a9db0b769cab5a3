//! Programs that send without pause through a broker that is killed, stopped and started under
//! them, and the deeds that their messages become on the other host. Every answer is checked as it
//! comes; what must be counted is counted.

use crate::common::handler;
use crate::common::local::Local;
use crate::common::network::Host;
use crate::common::tally::Tally;
use crate::common::wait;
use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Senders of small critical messages in each direction.
const SMALL: usize = 4;
/// Senders of long ones, so that segments are begun often: each has room for a few dozen.
const LONG: usize = 1;
/// Bytes that a long one is filled up with.
const LONG_BYTES: usize = 30_000;
/// Senders of plain requests in each direction.
const PLAIN: usize = 3;
/// Plain requests that a sender has ahead of their answers.
const AHEAD: u64 = 5;
/// Pause of a sender between two sends, so that a machine with two processors has time for the
/// mishaps, too.
const PAUSE: Duration = Duration::from_millis(4);

/// Connections in each direction.
pub const CONNECTIONS: u64 = (SMALL + LONG + PLAIN) as u64;

/// What senders counted.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub critical: u64,
    pub acknowledged: u64,
    pub delayed: u64,
    pub con_failed: u64,
    /// Critical messages whose connection ended before an answer came.
    pub unknown: u64,
    pub plain: u64,
    /// Plain requests that got their own answer.
    pub answered: u64,
    pub con_lost: u64,
    /// Connections that ended, of either kind.
    pub ended: u64,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        for (sum, more) in [
            (&mut self.critical, other.critical),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.delayed, other.delayed),
            (&mut self.con_failed, other.con_failed),
            (&mut self.unknown, other.unknown),
            (&mut self.plain, other.plain),
            (&mut self.answered, other.answered),
            (&mut self.con_lost, other.con_lost),
            (&mut self.ended, other.ended),
        ] {
            *sum += more;
        }
    }
}

/// A sender that has stopped.
struct Sent {
    name: String,
    acknowledged: Vec<u64>,
    counts: Counts,
    /// Answers that must not be.
    wrong: Vec<String>,
}

/// The senders of one direction.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Sent>>,
}

/// What the senders of one direction leave.
pub struct Left {
    pub counts: Counts,
    pub wrong: Vec<String>,
    /// By sender, the numbers that were acknowledged, in their order.
    acknowledged: Vec<(String, Vec<u64>)>,
}

impl Traffic {
    /// Starts them at a peer's socket.
    pub fn start(socket: &Path) -> Traffic {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let mut start = |name: String, send: fn(&mut Sender)| {
            let sent = Sent { name, acknowledged: Vec::new(), counts: Counts::default(), wrong: Vec::new() };
            let mut sender = Sender { socket: socket.to_owned(), stop: stop.clone(), open: None, sent };
            threads.push(std::thread::spawn(move || {
                send(&mut sender);
                sender.sent
            }));
        };
        (0..SMALL).for_each(|place| start(format!("small{place}"), |sender| critical(sender, 0)));
        (0..LONG).for_each(|place| start(format!("long{place}"), |sender| critical(sender, LONG_BYTES)));
        (0..PLAIN).for_each(|place| start(format!("plain{place}"), plain));
        Traffic { stop, threads }
    }

    /// Stops them.
    pub fn finish(self) -> Left {
        self.stop.store(true, Ordering::SeqCst);
        let mut left = Left { counts: Counts::default(), wrong: Vec::new(), acknowledged: Vec::new() };
        for thread in self.threads {
            let sent = thread.join().expect("a sender");
            left.counts.add(&sent.counts);
            left.wrong.extend(sent.wrong.into_iter().map(|what| format!("{}: {what}", sent.name)));
            left.acknowledged.push((sent.name, sent.acknowledged));
        }
        left
    }
}

impl Left {
    /// Compares what was acknowledged with what was done, sender by sender; the sum. What was done
    /// twice counts whether it was acknowledged or not.
    pub fn tally(&self, deeds: &Deeds) -> Tally {
        let mut sum = Tally::default();
        let done = deeds.done();
        for (name, acknowledged) in &self.acknowledged {
            let tally = Tally::of_numbers(acknowledged, done.get(name).map_or(&[][..], Vec::as_slice));
            sum.messages += tally.messages;
            sum.lost += tally.lost;
            sum.repeated += tally.repeated;
            sum.out_of_order += tally.out_of_order;
        }
        sum
    }

    /// Whether all that was acknowledged is done.
    pub fn all_done(&self, deeds: &Deeds) -> bool {
        let done = deeds.done();
        self.acknowledged.iter().all(|(name, acknowledged)| {
            let done: HashSet<u64> = done.get(name).into_iter().flatten().copied().collect();
            acknowledged.iter().all(|number| done.contains(number))
        })
    }
}

struct Sender {
    socket: PathBuf,
    stop: Arc<AtomicBool>,
    open: Option<Local>,
    sent: Sent,
}

impl Sender {
    fn going_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// The connection; none while no broker runs at all.
    fn connection(&mut self) -> Option<&mut Local> {
        if self.open.is_none() {
            self.open = Local::try_connect(&self.socket).ok();
        }
        self.open.as_mut()
    }

    /// The broker has closed, or was killed.
    fn ended(&mut self, error: &std::io::Error) {
        self.open = None;
        self.sent.counts.ended += 1;
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            self.sent.wrong.push(format!("no answer within {:?}", wait::PATIENCE));
        }
    }
}

fn critical(sender: &mut Sender, fill: usize) {
    let fill = "x".repeat(fill);
    for number in 0.. {
        wait::let_pass(PAUSE);
        if !sender.going_on() {
            return;
        }
        let request = format!("critical:do:{}:{number}:{fill}", sender.sent.name);
        let Some(connection) = sender.connection() else { continue };
        let answer = connection.try_ask(&request);
        let counts = &mut sender.sent.counts;
        counts.critical += 1;
        match answer.as_deref() {
            Ok(answer @ ("ok" | "con_delayed")) => {
                counts.acknowledged += 1;
                counts.delayed += u64::from(answer == "con_delayed");
                sender.sent.acknowledged.push(number);
            }
            Ok("con_failed") => counts.con_failed += 1,
            Ok(other) => sender.sent.wrong.push(format!("critical message {number} was answered {other:?}")),
            Err(error) => {
                counts.unknown += 1;
                sender.ended(error);
            }
        }
    }
}

/// Several requests ahead, then their answers: each its own, or none and the connection is gone.
fn plain(sender: &mut Sender) {
    let mut number = 0;
    while sender.going_on() {
        wait::let_pass(PAUSE);
        let requests: Vec<_> =
            (number..number + AHEAD).map(|number| format!("echo:{}:{number}", sender.sent.name)).collect();
        number += AHEAD;
        let Some(connection) = sender.connection() else { continue };
        let sent = connection.try_send(format!("{}\n", requests.join("\n")).as_bytes());
        sender.sent.counts.plain += AHEAD;
        if let Err(error) = sent {
            sender.ended(&error);
            continue;
        }
        for request in &requests {
            let Some(connection) = sender.open.as_mut() else { break };
            let answer = connection.try_answer().and_then(|line| line.ok_or(ErrorKind::UnexpectedEof.into()));
            let counts = &mut sender.sent.counts;
            match answer {
                Ok(answer) if answer == request.as_bytes() => counts.answered += 1,
                Ok(answer) if answer == b"con_lost" => counts.con_lost += 1,
                Ok(answer) => {
                    let answer = String::from_utf8_lossy(&answer).into_owned();
                    sender.sent.wrong.push(format!("{request} was answered {answer:?}"));
                }
                Err(error) => sender.ended(&error),
            }
        }
    }
}

/// The programs behind a host's `lond`: `echo:`, and `do:`, which keeps whose message it was given,
/// each time.
pub struct Deeds {
    done: Arc<Mutex<HashMap<String, Vec<u64>>>>,
    _programs: [handler::Program; 2],
}

impl Deeds {
    /// Listens as the handlers `do` and `echo` of a host.
    pub fn start(host: &mut Host) -> Deeds {
        let done: Arc<Mutex<HashMap<String, Vec<u64>>>> = Arc::default();
        let kept = done.clone();
        let doing = handler::Program::start(&host.handler("do"), move |line| {
            let text = std::str::from_utf8(line).expect("a message as it was sent");
            let mut words = text.splitn(4, ':').skip(1);
            let name = words.next().expect("a sender").to_owned();
            let number = words.next().and_then(|number| number.parse().ok()).expect("a number");
            kept.lock().expect("deeds").entry(name).or_default().push(number);
            Some(b"ok".to_vec())
        });
        let echo = handler::Program::echo(&host.handler("echo"));
        Deeds { done, _programs: [doing, echo] }
    }

    /// By sender, the numbers that were done, in their order.
    fn done(&self) -> HashMap<String, Vec<u64>> {
        self.done.lock().expect("deeds").clone()
    }
}
