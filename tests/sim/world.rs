//! The simulated network: hosts, their processes, and the clock that moves from event to event.
//!
//! Everything that is random comes from the seed. After every event the bounds are checked; promises about messages
//! are checked by the ledger as things happen.

use crate::child::{Child, Locks};
use crate::disk::{Life, SimDisk};
use crate::ledger::{Attempt, Checked, HANDLERS, Kind, Ledger, Manner, Plan};
use crate::link::{LinkInput, LinkProcess};
use crate::net::{Conn, End, Fate, Time};
use crate::program::Program;
use crate::sabotage::Sabotage;
use crate::scenario::*;
use crate::supervisor::Supervisor;
use crate::wiretap::{Mistaken, Names, PORTION};
use lonnet::base::disk::{Fault, FaultyDisk, Keep};
use lonnet::lonc::link::Now;
use lonnet::lonc::turn::Dialled;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Numbers of those who drop files, by link: above those of programs.
const FILES: usize = 1_000_000;
/// Events of one seed; more means that something turns round and round.
const MAX_EVENTS: usize = 200_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    Deliver(usize, bool),
    WakeLink(usize),
    WakeChild(usize),
    /// The network has decided about a dial.
    Dialled(usize, u64),
    SupervisorUp(usize),
    Supervise(usize),
    /// A file is put into the delayed directory of a link's host.
    DropFile(usize),
    TakeIn(usize),
    /// Limits in time are looked at.
    Watch,
    Program(usize),
    /// A handler runs a request; it answers it.
    Run(usize),
    Answer(usize),
    /// A newer link from this child's caller is open.
    Replaced(usize),
    Trouble(Trouble),
    MachineUp(usize),
    DiskWell(usize),
    /// A host's handler may be back.
    HandlerBack(usize, usize),
    Check,
}

pub struct Host {
    pub disk: FaultyDisk,
    pub up: bool,
    /// Until then nobody listens.
    pub listens_at: Time,
    /// Until then that handler of its is away.
    pub away_until: [Time; HANDLERS.len()],
    pub locks: Locks,
    pub supervisor: Option<Supervisor>,
}

/// A request that a handler has.
pub struct Job {
    pub child: usize,
    pub host: usize,
    pub ticket: lonnet::handler::Ticket,
    pub text: String,
    pub ordered: bool,
    pub alive: bool,
    pub answered: bool,
}

pub struct World {
    pub scenario: Scenario,
    pub sabotage: Sabotage,
    pub random: fastrand::Rng,
    pub now: Time,
    pub base: Instant,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    counter: u64,
    pub hosts: Vec<Host>,
    pub links: Vec<LinkProcess>,
    pub programs: Vec<Program>,
    pub children: Vec<Option<Child>>,
    pub conns: Vec<Conn>,
    /// Deliveries that are planned.
    planned: HashSet<(usize, bool, Time)>,
    pub jobs: Vec<Job>,
    pub ledger: Ledger,
    /// From, to, until.
    partitions: Vec<(usize, usize, Time)>,
    pub replace_later: Vec<usize>,
    pub pids: u32,
    pub names: Names,
    /// Files to be dropped, in their order: link and message.
    files: VecDeque<(usize, usize)>,
    /// What was called settled when an answer was recorded: caller, called, epoch.
    pub settled: HashMap<(usize, usize, String), u64>,
    /// At rest each link carries one more message, longer than what its ends keep back of a window: by its connection.
    pub last_words: Vec<(usize, usize)>,
    /// Nothing happens in the scenario that lets a settled message come back.
    pub certain: bool,
    /// A machine has died: what it had not synced is gone, the marks of what was settled among it.
    pub machine_died: bool,
    /// The first promise that was broken where there is nobody to be told.
    pub broken: Option<String>,
    pub trace: bool,
}

/// Runs one seed to its end.
///
/// # Errors
/// The promise that was broken.
pub fn run(seed: u64, sabotage: Sabotage, trace: bool) -> Result<crate::ledger::Counts, String> {
    let mut world = World::new(seed, sabotage, trace);
    world.live()?;
    Ok(world.ledger.counts)
}

impl World {
    fn new(seed: u64, sabotage: Sabotage, trace: bool) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let scenario = Scenario::of(&mut random, sabotage);
        let host = |_| Host {
            disk: FaultyDisk::new(&[Path::new("/spool")]),
            up: true,
            listens_at: 0,
            away_until: [0; HANDLERS.len()],
            locks: Locks::default(),
            supervisor: None,
        };
        let mut world = World {
            sabotage,
            random,
            now: 0,
            base: Instant::now(),
            events: BinaryHeap::new(),
            counter: 0,
            hosts: (0..scenario.hosts).map(host).collect(),
            links: Vec::new(),
            programs: Vec::new(),
            children: Vec::new(),
            conns: Vec::new(),
            planned: HashSet::new(),
            jobs: Vec::new(),
            ledger: Ledger::default(),
            partitions: Vec::new(),
            replace_later: Vec::new(),
            pids: 0,
            names: Names::new(!scenario.keeps_all()),
            files: VecDeque::new(),
            settled: HashMap::new(),
            last_words: Vec::new(),
            certain: scenario.keeps_all(),
            machine_died: false,
            broken: None,
            trace,
            scenario,
        };
        world.trace(|world| format!("{:?}", world.scenario));
        for (number, (caller, called, secure)) in world.scenario.links.clone().into_iter().enumerate() {
            world.links.push(LinkProcess::new(caller, called, secure));
            for _ in 0..world.scenario.programs_per_link {
                let program = world.programs.len();
                let mut todo = std::collections::VecDeque::new();
                for place in 0..world.scenario.messages_per_program {
                    todo.push_back(world.message(program, place, called, secure));
                }
                world.programs.push(Program::new(number, todo));
                let begin = world.random.u64(..5 * SECOND);
                world.at(begin, Event::Program(program));
            }
        }
        for host in 0..world.hosts.len() {
            world.at(0, Event::SupervisorUp(host));
        }
        world.plan_files();
        world.at(SECOND, Event::Watch);
        if world.scenario.spool_messages < SPOOL_MESSAGES {
            world.ledger.may_be_refused.extend(0..world.programs.len());
        }
        for (at, trouble) in world.scenario.troubles.clone() {
            world.at(at, Event::Trouble(trouble));
        }
        world.at(FAULTS_END, Event::Check);
        world
    }

    fn message(&mut self, program: usize, place: usize, target: usize, secure: bool) -> usize {
        let critical = self.random.u32(..100) < self.scenario.critical_percent;
        let kind = match (critical, self.random.u32(..8)) {
            (true, 0) => Kind::Log,
            (true, _) => Kind::Critical,
            (false, 0) => Kind::Ping,
            (false, _) => Kind::Plain,
        };
        let long = self.random.u32(..100) < self.scenario.long_percent;
        let padding = if long { self.random.usize(10_000..MAX_LINE - 100) } else { self.random.usize(..60) };
        let long_answer = !long && self.random.u32(..100) < self.scenario.long_answers_percent;
        let reply = if long_answer { self.random.usize(10_000..MAX_LINE - 200) } else { 0 };
        let key = secure && self.random.u32(..100) < self.scenario.key_percent;
        let encrypt = self.random.u32(..100) < self.scenario.encrypt_percent;
        let odd = self.random.u32(..100) < self.scenario.odd_percent;
        let manner = match (odd, kind) {
            (true, Kind::Critical) if self.random.bool() => Manner::Refused,
            (true, _) => Manner::Odd,
            (false, _) => Manner::Done,
        };
        let handler = usize::from(self.random.u32(..4) == 0);
        self.ledger.add(Plan {
            kind,
            manner,
            secure,
            program,
            place,
            target,
            padding,
            reply,
            key,
            encrypt,
            handler,
        })
    }

    /// A plain message for each link, longer than a portion of a window, from a program of its own.
    fn say_last_words(&mut self) {
        for link in 0..self.links.len() {
            let LinkProcess { peer: target, secure, conn, .. } = self.links[link];
            let (program, place) = (self.programs.len(), 0);
            let (kind, manner, padding, reply) = (Kind::Plain, Manner::Done, PORTION as usize, 0);
            let (key, encrypt, handler) = (false, false, 0);
            let plan =
                Plan { kind, manner, secure, program, place, target, padding, reply, key, encrypt, handler };
            let message = self.ledger.add(plan);
            self.programs.push(Program::new(link, VecDeque::from([message])));
            self.last_words.push((conn.unwrap_or(usize::MAX), message));
            self.at(self.now, Event::Program(program));
        }
    }

    /// Files that programs drop into the delayed directories, while a broker is there or not.
    fn plan_files(&mut self) {
        for (link, (_, target, secure)) in self.scenario.links.clone().into_iter().enumerate() {
            let mut at = 0;
            for place in 0..self.scenario.files_per_link {
                // What a process, a machine or a disk does between the sync and the removal makes it come twice.
                let secure = secure && self.certain;
                let program = FILES + link;
                let (kind, manner, padding) = (Kind::Critical, Manner::Done, self.random.usize(..60));
                let (key, encrypt, handler, reply) = (false, self.random.bool(), 0, 0);
                let plan = Plan {
                    kind,
                    manner,
                    secure,
                    program,
                    place,
                    target,
                    padding,
                    reply,
                    key,
                    encrypt,
                    handler,
                };
                let message = self.ledger.add(plan);
                at += self.random.u64(MILLI..FAULTS_END / 8);
                self.files.push_back((link, message));
                self.at(at, Event::DropFile(link));
            }
        }
    }

    /// Somebody drops the next file for a link.
    fn drop_file(&mut self, link: usize) {
        let (host, peer) = (self.links[link].host, self.links[link].peer);
        if !self.hosts[host].up {
            self.after(SECOND, 2 * SECOND, Event::DropFile(link));
            return;
        }
        let Some(next) = self.files.iter().position(|(of, _)| *of == link) else { return };
        let Some((_, message)) = self.files.remove(next) else { return };
        let it = &mut self.ledger.messages[message];
        let (at, refused) = (self.now, false);
        let acknowledged = Some(at);
        it.attempts.push(Attempt {
            connection: 0,
            at,
            acknowledged,
            refused,
            unheard: false,
            delayed: false,
        });
        let text = it.line.strip_prefix("critical:").unwrap_or(&it.line).to_owned() + "\n";
        let disk = &self.hosts[host].disk;
        disk.set_now(self.clock().wall);
        disk.put(Path::new(&format!("/spool/{message:06}.h{peer}")), text.as_bytes());
        if self.hosts[host].supervisor.is_some() {
            self.after(0, SECOND / 10, Event::TakeIn(link));
        }
    }

    /// The programs, and the droppers of files, whose messages a link carries.
    pub fn senders(&self, link: usize) -> Vec<usize> {
        let of = |(number, program): (usize, &Program)| (program.link() == link).then_some(number);
        self.programs.iter().enumerate().filter_map(of).chain([FILES + link]).collect()
    }

    pub fn at(&mut self, time: Time, event: Event) {
        self.counter += 1;
        self.events.push(Reverse((time.max(self.now), self.counter, event)));
    }

    pub fn after(&mut self, least: Time, most: Time, event: Event) {
        let pause = self.random.u64(least..=most);
        self.at(self.now + pause, event);
    }

    pub fn trace(&self, text: impl FnOnce(&World) -> String) {
        if self.trace {
            println!("{:>11.6} {}", self.now as f64 / 1e6, text(self));
        }
    }

    /// The clock as the cores see it.
    pub fn clock(&self) -> Now {
        let passed = Duration::from_micros(self.now);
        let begin = jiff::Timestamp::from_second(1_700_000_000).unwrap_or_default();
        Now { mono: self.base + passed, wall: begin + passed }
    }

    pub fn time_of(&self, instant: Instant) -> Time {
        // Rounded up, so that what is due then is due.
        u64::try_from(instant.saturating_duration_since(self.base).as_nanos().div_ceil(1000))
            .unwrap_or(u64::MAX)
    }

    fn live(&mut self) -> Checked {
        for _ in 0..MAX_EVENTS {
            let Some(Reverse((time, _, event))) = self.events.pop() else {
                return Err("the simulation came to a standstill".to_owned());
            };
            self.now = self.now.max(time);
            if event == Event::Check {
                match self.unsettled() {
                    // Where a connection takes a few bytes at a time, such a message would be overdue.
                    None if self.last_words.is_empty() && self.scenario.capacity >= PORTION as usize => {
                        self.say_last_words();
                        self.at(self.now + SECOND, Event::Check);
                    }
                    None => return self.at_rest(),
                    Some(why) if self.now >= FAULTS_END + SETTLED_WITHIN => {
                        return Err(format!(
                            "not settled {} s after the last fault: {why}",
                            SETTLED_WITHIN / SECOND
                        ));
                    }
                    Some(_) => self.at(self.now + SECOND, Event::Check),
                }
                continue;
            }
            self.trace(|_| format!("{event:?}"));
            self.happen(event)?;
            if let Some(broken) = self.broken.take() {
                return Err(broken);
            }
            for host in 0..self.hosts.len() {
                if self.hosts[host].up && self.hosts[host].disk.is_dead() {
                    self.machine_dies(host)?;
                }
            }
        }
        Err(format!("more than {MAX_EVENTS} events"))
    }

    fn happen(&mut self, event: Event) -> Checked {
        match event {
            Event::Deliver(conn, called) => self.deliver(conn, called),
            Event::WakeLink(link) => match self.links[link].wake {
                Some(at) if at <= self.now => {
                    self.links[link].wake = None;
                    self.link_step(link, LinkInput::Turn)
                }
                Some(_) | None => Ok(()),
            },
            Event::WakeChild(child) => match self.children[child].as_mut() {
                Some(it) if it.wake.is_some_and(|at| at <= self.now) => {
                    it.wake = None;
                    self.child_turn(child)
                }
                Some(_) | None => Ok(()),
            },
            Event::Dialled(link, dial) => self.dialled(link, dial),
            Event::SupervisorUp(host) => self.supervisor_up(host),
            Event::Supervise(host) => self.supervise(host),
            Event::DropFile(link) => {
                self.drop_file(link);
                Ok(())
            }
            Event::TakeIn(link) => self.link_step(link, LinkInput::TakeIn),
            Event::Watch => {
                self.at(self.now + SECOND, Event::Watch);
                self.watch()
            }
            Event::Program(program) => self.program(program),
            Event::Run(job) => self.run_job(job),
            Event::Answer(job) => self.answer_job(job),
            Event::Replaced(child) => self.finish_child(child, lonnet::lond::Reason::Replaced),
            Event::Trouble(trouble) => self.trouble(trouble),
            Event::MachineUp(host) => {
                self.machine_up(host);
                Ok(())
            }
            Event::HandlerBack(host, handler) => self.handler_back(host, handler),
            Event::DiskWell(host) => {
                self.hosts[host].disk.heal();
                self.hosts[host].disk.set_free_space(u64::MAX);
                Ok(())
            }
            Event::Check => Ok(()),
        }
    }

    // The network.

    /// Plans the deliveries of a connection.
    pub fn plan(&mut self, conn: usize) {
        for called in [false, true] {
            let end = if called { End::Called } else { End::Caller };
            let due = self.conns[conn].input(end).travelling.front().map(|(due, _)| *due);
            if let Some(due) = due
                && self.planned.insert((conn, called, due))
            {
                self.at(due, Event::Deliver(conn, called));
            }
        }
    }

    fn parted(&self, from: usize, to: usize) -> Option<Time> {
        let parted =
            self.partitions.iter().filter(|(a, b, until)| *a == from && *b == to && *until > self.now);
        parted.map(|(_, _, until)| *until).max()
    }

    fn deliver(&mut self, conn: usize, called: bool) -> Checked {
        self.planned.retain(|(of, to, due)| *of != conn || *to != called || *due > self.now);
        let end = if called { End::Called } else { End::Caller };
        let (caller, called_host) = (self.conns[conn].caller, self.conns[conn].called);
        let (from, to) = if called { (caller, called_host) } else { (called_host, caller) };
        if let Some(until) = self.parted(from, to) {
            // The kernels send it again until it passes.
            self.at(until + 200 * MILLI, Event::Deliver(conn, called));
            return Ok(());
        }
        let any = self.conns[conn].deliver(end, self.now);
        self.plan(conn);
        if !any {
            return Ok(());
        }
        match end {
            End::Called => {
                match self.children.iter().position(|c| c.as_ref().is_some_and(|c| c.conn == Some(conn))) {
                    Some(child) => self.child_turn(child),
                    None => Ok(()),
                }
            }
            End::Caller => match self.links.iter().position(|link| link.conn == Some(conn)) {
                Some(link) => self.link_step(link, LinkInput::Turn),
                None => Ok(()),
            },
        }
    }

    /// The other end has read, so there is room: whoever waits to write is woken.
    pub fn room_made(&mut self, conn: usize, writer: End) {
        let at = self.now + 100;
        match writer {
            End::Caller => {
                if let Some(link) = self.links.iter().position(|link| link.conn == Some(conn)) {
                    self.wake_link(link, at);
                }
            }
            End::Called => {
                if let Some(child) =
                    self.children.iter().position(|c| c.as_ref().is_some_and(|c| c.conn == Some(conn)))
                {
                    self.wake_child(child, at);
                }
            }
        }
    }

    pub fn wake_link(&mut self, link: usize, at: Time) {
        if self.links[link].wake.is_none_or(|planned| planned > at) {
            self.links[link].wake = Some(at);
            self.at(at, Event::WakeLink(link));
        }
    }

    pub fn wake_child(&mut self, child: usize, at: Time) {
        let Some(it) = self.children[child].as_mut() else { return };
        if it.wake.is_none_or(|planned| planned > at) {
            it.wake = Some(at);
            self.at(at, Event::WakeChild(child));
        }
    }

    pub fn close(&mut self, conn: usize, end: End, reset: bool) {
        let (now, random) = (self.now, &mut self.random);
        self.conns[conn].close(end, reset, now, random);
        self.plan(conn);
    }

    fn dialled(&mut self, link: usize, dial: u64) -> Checked {
        let it = &self.links[link];
        if it.dial != dial || it.process.is_none() || it.conn.is_some() {
            return Ok(());
        }
        let (caller, mut called, secure) = (it.host, it.peer, it.secure);
        let mut mistaken = None;
        if let Some((of_called, _)) = it.mistaken.filter(|(_, until)| secure && *until > self.now) {
            let known =
                |other| self.scenario.links.iter().any(|(from, to, _)| (*from, *to) == (caller, other));
            if of_called {
                // One that this host has no other link with: its own address may lead back to itself.
                mistaken = Some(Mistaken::Called(called));
                called = (0..self.hosts.len()).find(|&it| it != called && !known(it)).unwrap_or(caller);
            } else {
                mistaken = (0..3).find(|&other| other != caller && other != called).map(Mistaken::Caller);
            }
        }
        if self.parted(caller, called).is_some()
            || self.parted(called, caller).is_some()
            || !self.hosts[called].up
        {
            // Nothing comes back; the caller's own deadline ends it.
            return Ok(());
        }
        if self.hosts[called].listens_at > self.now {
            return self.link_step(link, LinkInput::Dialled(Dialled::Failed("refused".to_owned())));
        }
        let mut fate = None;
        if self.now < FAULTS_END {
            let breaks = self.random.u32(..100) < self.scenario.breaking_percent;
            let swallows = self.random.u32(..100) < self.scenario.swallowing_percent;
            if breaks || swallows {
                let from = if self.random.bool() { End::Caller } else { End::Called };
                let bytes = self.random.usize(1..3000);
                let one_way = self.random.bool();
                fate = Some(Fate { from, bytes, silent: !breaks, one_way });
            }
        }
        let conn = self.conns.len();
        self.conns.push(Conn::new(caller, called, self.scenario.capacity, self.scenario.delay, fate, secure));
        if let Some(wiretap) = &mut self.conns[conn].wiretap {
            wiretap.mistaken = mistaken;
        }
        self.links[link].conn = Some(conn);
        self.accept(conn, caller, called, secure);
        self.link_step(link, LinkInput::Dialled(Dialled::Connected))
    }

    // Faults.

    fn trouble(&mut self, trouble: Trouble) -> Checked {
        match trouble {
            Trouble::KillLink(link, None) => self.end_link(link)?,
            Trouble::KillLink(link, fuse) => {
                if let Some((_, life)) = &self.links[link].process {
                    life.fuse.set(fuse);
                }
            }
            Trouble::KillChild(host, fuse) => {
                let alive: Vec<usize> = self.children_of(host);
                if !alive.is_empty() {
                    let child = alive[self.random.usize(..alive.len())];
                    match (fuse, &self.children[child]) {
                        (Some(_), Some(it)) => it.life.fuse.set(fuse),
                        (None, _) | (_, None) => self.kill_child(child)?,
                    }
                }
            }
            Trouble::DrainLink(link) => return self.link_step(link, LinkInput::Drain),
            Trouble::DrainChildren(host) => {
                for child in self.children_of(host) {
                    self.finish_child(child, lonnet::lond::Reason::Drained)?;
                }
            }
            Trouble::ListenerDown(host, time) => {
                self.hosts[host].listens_at = (self.now + time).min(FAULTS_END);
                for child in self.children_of(host) {
                    self.finish_child(child, lonnet::lond::Reason::Orphaned)?;
                }
            }
            Trouble::MachineDies(host) => self.machine_dies(host)?,
            Trouble::DiskFails(host, operation, errno) => {
                let disk = &self.hosts[host].disk;
                disk.plan(disk.operations().len() + operation, Fault::Fail(errno));
                self.disk_trouble(host);
                self.at(FAULTS_END, Event::DiskWell(host));
            }
            Trouble::DiskDies(host, operation, bytes) => {
                let disk = &self.hosts[host].disk;
                disk.plan(disk.operations().len() + operation, Fault::Torn(bytes));
                self.disk_trouble(host);
                self.at(FAULTS_END, Event::DiskWell(host));
            }
            Trouble::DiskSick(host, time, errno) => {
                let disk = &self.hosts[host].disk;
                disk.plan(disk.operations().len(), Fault::FailFrom(errno));
                self.disk_trouble(host);
                self.at((self.now + time).min(FAULTS_END), Event::DiskWell(host));
            }
            Trouble::DiskFull(host, time) => {
                self.hosts[host].disk.set_free_space(1000);
                self.disk_trouble(host);
                self.at((self.now + time).min(FAULTS_END), Event::DiskWell(host));
            }
            Trouble::Partition(from, to, time) => {
                let until = (self.now + time).min(FAULTS_END);
                self.partitions.push((from, to, until));
                if self.random.bool() {
                    self.partitions.push((to, from, until));
                }
            }
            Trouble::Cut(host, silent) => {
                let open = |(number, link): (usize, &LinkProcess)| (link.host == host).then_some(number);
                let links: Vec<usize> = self.links.iter().enumerate().filter_map(open).collect();
                for link in links {
                    let Some(conn) = self.links[link].conn else { continue };
                    if silent {
                        self.conns[conn].to_called.swallows = true;
                        self.conns[conn].to_caller.swallows = true;
                    } else {
                        self.close(conn, End::Called, true);
                        let (now, random) = (self.now, &mut self.random);
                        // The called side hears of it in its own time.
                        self.conns[conn].close(End::Caller, true, now, random);
                        self.plan(conn);
                    }
                }
            }
            Trouble::Probe(link) => return self.probe(link),
            Trouble::Hup(host) => return self.hup(host),
            Trouble::Reload(link, other_wire) => {
                self.links[link].other_wire =
                    other_wire && self.hosts[self.links[link].host].supervisor.is_some();
                return self.replace(link);
            }
            Trouble::KillSupervisor(host) => return self.kill_supervisor(host),
            Trouble::HandlerDies(host) => return self.handler_dies(host),
            Trouble::HandlerAway(host, handler, time) => {
                // It goes with what it was given; what is passed on to it from now on is not taken.
                let back = (self.now + time).min(FAULTS_END);
                self.hosts[host].away_until[handler] = back;
                self.handler_dies(host)?;
                let found = self.random.u64(..SECOND);
                self.at(back + found, Event::HandlerBack(host, handler));
                for child in self.children_of(host) {
                    self.child_turn(child)?;
                }
            }
            Trouble::WipeSpool(link) => {
                self.links[link].wiped = true;
                return self.end_link(link);
            }
            Trouble::WipeRecord(host) => return self.wipe_record(host),
            Trouble::Mistaken(link, called, time) => {
                self.links[link].mistaken = Some((called, (self.now + time).min(FAULTS_END)));
                // The next connection is one.
                if let Some(conn) = self.links[link].conn {
                    self.close(conn, End::Called, true);
                }
            }
        }
        Ok(())
    }

    /// From now on this host's brokers may refuse what they should store.
    fn disk_trouble(&mut self, host: usize) {
        for (number, program) in self.programs.iter().enumerate() {
            if self.links[program.link()].host == host {
                self.ledger.may_be_refused.insert(number);
            }
        }
    }

    pub fn children_of(&self, host: usize) -> Vec<usize> {
        let of = |(number, child): (usize, &Option<Child>)| {
            child.as_ref().filter(|child| child.host == host).map(|_| number)
        };
        self.children.iter().enumerate().filter_map(of).collect()
    }

    /// Power is lost: every process is gone, and what was not synced perhaps too.
    pub fn machine_dies(&mut self, host: usize) -> Checked {
        if !std::mem::replace(&mut self.hosts[host].up, false) {
            return Ok(());
        }
        self.hosts[host].supervisor = None;
        let silent = self.random.bool();
        for conn in &mut self.conns {
            if silent && (conn.caller == host || conn.called == host) {
                conn.to_called.swallows = true;
                conn.to_caller.swallows = true;
            }
        }
        for link in 0..self.links.len() {
            if self.links[link].host == host {
                self.links[link].next_pid = None;
                self.lose_passage(link);
                self.end_link(link)?;
            }
        }
        for child in self.children_of(host) {
            self.kill_child(child)?;
        }
        for job in self.jobs.iter_mut().filter(|job| job.host == host) {
            job.alive = false;
        }
        self.machine_died = true;
        self.after(SECOND / 10, 5 * SECOND, Event::MachineUp(host));
        Ok(())
    }

    fn machine_up(&mut self, host: usize) {
        let keep = match self.random.u32(..4) {
            0 => Keep::Nothing,
            1 => Keep::All,
            _ => Keep::Some(self.random.u64(..)),
        };
        self.hosts[host].disk.restart(keep);
        self.hosts[host].up = true;
        self.after(0, SECOND, Event::SupervisorUp(host));
    }

    /// A spool that was removed while no process had it.
    pub fn wipe_spool(&mut self, link: usize) {
        let (host, peer) = (self.links[link].host, self.links[link].peer);
        let senders = self.senders(link);
        self.ledger.give_up_unsent(&senders);
        let dir = format!("/spool/h{peer}");
        let epoch = self.hosts[host].disk.files().get(Path::new(&format!("{dir}/epoch"))).cloned();
        self.hosts[host].disk.take_away(Path::new(&dir));
        if let Some(epoch) = epoch.filter(|_| self.sabotage == Sabotage::EpochReused) {
            self.hosts[host].disk.put(Path::new(&format!("{dir}/epoch")), &first_epoch_file(&epoch));
        }
    }

    fn wipe_record(&mut self, host: usize) -> Checked {
        if !self.hosts[host].up {
            return Ok(());
        }
        for child in self.children_of(host) {
            self.kill_child(child)?;
        }
        self.hosts[host].disk.take_away(Path::new("/spool/.received"));
        self.settled.retain(|(_, called, _), _| *called != host);
        for link in 0..self.links.len() {
            if self.links[link].peer == host {
                let senders = self.senders(link);
                self.ledger.forget_runs(&senders);
            }
        }
        Ok(())
    }

    pub fn disk(&self, host: usize, life: &Rc<Life>) -> SimDisk {
        SimDisk { disk: self.hosts[host].disk.clone(), life: life.clone(), sabotage: self.sabotage }
    }
}

/// An epoch file with the same epoch and nothing reserved, as a spool that was wiped and forgot to begin anew would have it.
fn first_epoch_file(found: &[u8]) -> Vec<u8> {
    let epoch = String::from_utf8_lossy(&found[..32.min(found.len())]).into_owned();
    let text = format!("{epoch} {:020}", 1);
    format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes())).into_bytes()
}
