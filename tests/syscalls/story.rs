//! The story in which one call fails: two whole hosts, from their start over an outage, a reload
//! and a HUP to their end.
//!
//! What is done once is tolerant: a call that fails may cost an answer, a connection, a child, a
//! HUP. What must hold all the same is checked, and everything has a bound:
//! - at the start the program serves, or says what failed and exits with 1, and a second start
//!   serves;
//! - the supervisor lives to its end and exits with 0 when told to stop; no process panics;
//! - the link comes up, the spool drains, a plain request is answered, all without help from
//!   outside;
//! - every message that was acknowledged arrives, in order, and once;
//! - what fails is said in the log, by its system's words.

use crate::common::local::Local;
use crate::common::network::Host;
use crate::common::pair::CALLED;
use crate::common::process;
use crate::common::program::Program;
use crate::common::secure_pair::TwoHosts;
use crate::common::tally::Tally;
use crate::common::wait;
use crate::plan::{Fault, Tested};
use crate::quiet::may_be_quiet;
use crate::shim::{Control, Seen};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is before the number of a critical request to the handler that counts.
const CRITICAL: &str = "do:c";
/// What a plain request is.
const PLAIN: &str = "do:plain";
/// What the dropped file asks.
const DROPPED: &str = "do:dropped";
/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(30);
/// How long a HUP may take to be seen before it is sent again: it may have failed, and the old
/// program gone on.
const HUP_PATIENCE: Duration = Duration::from_secs(10);

/// How a story ended.
pub struct Outcome {
    /// What was counted, and whether the chosen call came.
    pub seen: Seen,
    /// What did not hold.
    pub problems: Vec<String>,
    /// The first start was refused, as it may be.
    pub refused: bool,
    /// What the tested program has said.
    pub said: String,
}

/// Tells the story with a fault, or with none, in one of the two programs.
pub fn tell(tested: Tested, fault: Option<&Fault>) -> Outcome {
    let hosts = prepare();
    std::fs::create_dir(hosts.network.dir().join("zones")).expect("make a folder");
    let control = Control::new(hosts.network.dir().join("shim"), fault);
    let teller = Teller {
        tested,
        fault,
        hosts: &hosts,
        control: &control,
        problems: RefCell::default(),
        refused: Cell::new(false),
    };
    teller.tell()
}

/// Two hosts of which the first calls the second, with short pauses.
fn prepare() -> TwoHosts {
    let mut hosts = TwoHosts::new();
    // Something for the other end to replace at a reload.
    hosts.one.set("lonc", "request_timeout", "\"20s\"");
    hosts.one.set("lonc", "spool_keep_free", "0");
    hosts.other.set("lond", "opening_timeout", "\"3s\"");
    hosts
}

struct Teller<'a> {
    tested: Tested,
    fault: Option<&'a Fault>,
    hosts: &'a TwoHosts,
    control: &'a Control,
    problems: RefCell<Vec<String>>,
    refused: Cell<bool>,
}

impl Teller<'_> {
    fn tell(self) -> Outcome {
        let mut lond = self.start(Tested::Lond);
        let lonc = self.start(Tested::Lonc);
        let mut sender = Sender::new(self.hosts.one.socket(CALLED));
        self.until("the link to be up", || self.link_is("up"));
        sender.send(3);
        self.ask_plain();

        self.stop(lond, "lond");
        sender.send(3);
        self.drop_file();
        if self.tested == Tested::Lonc {
            // The next child begins with what the one before it has stored.
            self.reload(&lonc);
            sender.send(1);
        }
        lond = self.start(Tested::Lond);
        lonc.signal(Signal::SIGUSR1);
        self.until("the link to be up after the outage", || self.link_is("up"));
        sender.send(1);

        match self.tested {
            Tested::Lonc => self.hang_up(&lonc),
            Tested::Lond => {
                self.reload(&lond);
                sender.send(1);
                self.hang_up(&lond);
            }
            Tested::Lon => unreachable!("it has a story of its own"),
        }
        sender.send(2);

        // From here on everything has to come right by itself.
        self.until("the link to be up at the end", || self.link_is("up"));
        self.until("the spool to drain", || self.peer()["delayed"] == 0);
        self.ask_plain();
        self.until("everything acknowledged to arrive", || self.tally(&sender).lost == 0);
        self.until("the dropped file to arrive", || {
            self.hosts.counter.done().iter().any(|line| line == DROPPED)
        });
        self.judge(&sender);
        self.stop(lonc, "lonc");
        self.stop(lond, "lond");
        let seen = self.control.seen();
        let said = self.judge_logs(&seen);
        Outcome { seen, problems: self.problems.take(), refused: self.refused.get(), said }
    }

    fn complain(&self, problem: String) {
        self.problems.borrow_mut().push(problem);
    }

    /// Waits; what does not come is a problem, and the story goes on.
    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + wait::PATIENCE;
        while !holds() {
            if Instant::now() >= deadline {
                return self.complain(format!("waited in vain for {what}"));
            }
            // Each look may be a question to the program, and so calls of its own that are counted.
            wait::let_pass(PAUSE);
        }
    }

    fn host_of(&self, program: Tested) -> &Host {
        if program == Tested::Lond { &self.hosts.other } else { &self.hosts.one }
    }

    /// Starts a program; the tested one may refuse once.
    fn start(&self, program: Tested) -> Program {
        let host = self.host_of(program);
        let name = program.name();
        let errors = host.dir.join(format!("{name}.stderr"));
        for _ in 0..2 {
            let mut command = host.command(name);
            command.arg("--foreground");
            if program == self.tested {
                // With no zone to be looked for in a hundred folders, of which none would matter.
                self.control
                    .attach(command.env("TZ", "UTC").env("TZDIR", self.hosts.network.dir().join("zones")));
            }
            let socket = host.dir.join(format!("run/{name}.sock"));
            // The admin socket is there before the address is listened on, without which `lond`
            // does not start.
            let listens = |program: Tested| program != Tested::Lond || process::listens(host.address);
            let serves = |_: &Program| listens(program) && Local::try_connect(&socket).is_ok();
            match Program::try_start(&mut command, name, errors.clone(), host.pid_file(name), serves) {
                Ok(program) => return program,
                Err((status, said)) => {
                    self.refused.set(true);
                    let last = said.lines().last().unwrap_or_default();
                    let clear = last.contains(&format!("{name}: ")) || last.contains(" ERROR ");
                    let words = self.fault.and_then(Fault::words);
                    let named = words.is_none_or(|words| last.contains(&words));
                    if status.code() != Some(1) || !clear || !named || !self.control.seen().hit() {
                        self.complain(format!("the start of {name} failed with {status}, saying {last:?}"));
                    }
                }
            }
        }
        panic!("{name} does not start at all: {:?}", self.problems.borrow());
    }

    /// Tells a program to stop; it must obey.
    fn stop(&self, program: Program, name: &str) {
        let status = program.stop();
        if !status.success() {
            self.complain(format!("{name} ended with {status} when told to stop"));
        }
    }

    /// What `lonc` says of the link, through its admin socket.
    fn peer(&self) -> Value {
        let said = ask(&self.hosts.one.dir.join("run/lonc.sock"), "status").unwrap_or_default();
        let status: Value = serde_json::from_str(&said).unwrap_or_default();
        status["peers"][0].clone()
    }

    fn link_is(&self, state: &str) -> bool {
        self.peer()["state"] == state
    }

    /// A plain request is answered by the handler, sooner or later.
    fn ask_plain(&self) {
        let socket = self.hosts.one.socket(CALLED);
        self.until("a plain request to be answered", || ask(&socket, PLAIN).as_deref() == Some("ok"));
    }

    fn drop_file(&self) {
        let folder = self.hosts.one.dir.join("delayed");
        let (hidden, name) = (folder.join(".dropped"), folder.join(format!("1.{CALLED}")));
        std::fs::write(&hidden, format!("{DROPPED}\n")).expect("write a file");
        std::fs::rename(&hidden, &name).expect("drop a file");
    }

    /// Changes the tested host's configuration, and has it taken over, which replaces the children.
    fn reload(&self, program: &Program) {
        let before = children(program);
        let host = self.host_of(self.tested);
        let config = host.config();
        let text = std::fs::read_to_string(&config).expect("read lonnet.toml");
        let changed = text.replace("drain_timeout = \"1s\"", "drain_timeout = \"2s\"");
        std::fs::write(&config, changed).expect("write lonnet.toml");
        let socket = host.dir.join(format!("run/{}.sock", self.tested.name()));
        self.until("a reload to be done", || {
            ask(&socket, "reload").is_some_and(|said| said.starts_with("reloaded: "))
        });
        self.until("the children to be others", || others(&before, &children(program)));
    }

    /// HUP, until the children are others: one that fails leaves the old program, which says so,
    /// and the next one works.
    fn hang_up(&self, program: &Program) {
        let before = children(program);
        for _ in 0..3 {
            let failed_before = self.failed_restarts();
            program.signal(Signal::SIGHUP);
            let until = Instant::now() + HUP_PATIENCE;
            while Instant::now() < until && self.failed_restarts() == failed_before {
                if others(&before, &children(program)) {
                    return;
                }
                wait::let_pass(PAUSE);
            }
        }
        self.complain("three times HUP, and the children are the same".to_owned());
    }

    /// How often the tested program has said that it could not be started anew.
    fn failed_restarts(&self) -> usize {
        let log = self.host_of(self.tested).log(&format!("{}.log", self.tested.name()));
        log.matches("the old program goes on").count()
    }

    fn tally(&self, sender: &Sender) -> Tally {
        Tally::of(CRITICAL, &sender.acknowledged, &self.hosts.counter.done())
    }

    fn judge(&self, sender: &Sender) {
        let tally = self.tally(sender);
        if tally != (Tally { messages: sender.acknowledged.len(), ..Tally::default() }) {
            self.complain(format!(
                "{tally:?}: acknowledged {:?}, done {:?}",
                sender.acknowledged,
                self.hosts.counter.done()
            ));
        }
        sender.problems.iter().for_each(|problem| self.complain(problem.clone()));
    }

    fn judge_logs(&self, seen: &Seen) -> String {
        let mut said = String::new();
        for (host, name) in [(&self.hosts.one, "lonc"), (&self.hosts.other, "lond")] {
            let errors = std::fs::read(host.dir.join(format!("{name}.stderr"))).unwrap_or_default();
            let text = host.log(&format!("{name}.log")) + &String::from_utf8_lossy(&errors);
            if let Some(line) = text.lines().find(|line| line.contains("panicked")) {
                self.complain(format!("a panic: {line}"));
            }
            if name == self.tested.name() {
                said = text;
            }
        }
        let hit = self.fault.filter(|fault| seen.hit() && !may_be_quiet(fault, seen.object()));
        let words = hit.and_then(Fault::words);
        if let Some(words) = words
            && !said.contains(&words)
        {
            self.complain(format!("not said: {words}"));
        }
        said
    }
}

/// All, whatever they are called: one whose title could not be set has its parent's.
fn children(program: &Program) -> Vec<u32> {
    process::children(program.pid())
}

/// Whether there are children, and none of those that were before.
fn others(before: &[u32], now: &[u32]) -> bool {
    !now.is_empty() && now.iter().all(|child| !before.contains(child))
}

/// One request on a connection of its own; none when there was no answer.
fn ask(socket: &Path, request: &str) -> Option<String> {
    Local::try_connect(socket).ok()?.try_ask(request).ok()
}

/// A local program that sends numbered critical messages on one connection, as long as that holds.
struct Sender {
    socket: PathBuf,
    connection: Option<Local>,
    next: u64,
    acknowledged: Vec<u64>,
    problems: Vec<String>,
}

impl Sender {
    fn new(socket: PathBuf) -> Sender {
        Sender { socket, connection: None, next: 1, acknowledged: Vec::new(), problems: Vec::new() }
    }

    fn send(&mut self, count: u64) {
        for number in self.next..self.next + count {
            let request = format!("critical:{CRITICAL}{number}");
            if self.connection.is_none() {
                self.connection = Local::try_connect(&self.socket).ok();
            }
            let Some(open) = self.connection.as_mut() else { continue };
            match open.try_ask(&request).as_deref() {
                Ok("ok" | "con_delayed") => self.acknowledged.push(number),
                Ok("con_failed") => {}
                // The connection between lond and the handler broke: an answer, and not one that
                // the message is kept.
                Ok(error) if error.starts_with("error:do: ") => {}
                Ok(other) => self.problems.push(format!("{request} was answered {other:?}")),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.problems.push(format!("{request} was not answered in {:?}", wait::PATIENCE));
                    self.connection = None;
                }
                Err(_) => self.connection = None,
            }
        }
        self.next += count;
    }
}
