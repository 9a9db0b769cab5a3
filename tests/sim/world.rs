//! The simulated network: hosts, their processes, and the clock that moves from event to event.
//!
//! Everything that is random comes from the seed. After every event the bounds are checked;
//! promises about messages are checked by the ledger as things happen.

use crate::child::{Child, Locks};
use crate::disk::{Life, SimDisk};
use crate::ledger::{Attempt, Checked, HANDLERS, Kind, Ledger, Manner, Plan};
use crate::link::{LinkInput, LinkProcess, id_of};
use crate::net::{Conn, Time};
use crate::program::Program;
use crate::sabotage::Sabotage;
use crate::scenario::*;
use crate::supervisor::Supervisor;
use crate::wiretap::{Names, PORTION};
use lonnet::base::disk::FaultyDisk;
use lonnet::lonc::link::Now;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
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
    /// A child's question for addresses is with its supervisor: link, process, number.
    AskAddresses(usize, u32, u64),
    /// A name is looked up: whose supervisor, which program of it, the host of that name.
    LookedUp(usize, u32, usize),
    /// An answer is with the child.
    Addresses(usize, u32, u64, Option<SocketAddr>),
    /// A child's wish to be connected is with its supervisor: link, process, dial, number.
    AskConnection(usize, u32, u64, u64),
    /// A child hears that it could not be.
    NotBegun(usize, u64),
    /// A child that was adopted is replaced in its turn.
    ReplaceChild(usize, u32),
    SupervisorUp(usize),
    Supervise(usize),
    /// A file is put into the delayed directory of a link's host.
    DropFile(usize),
    /// A host's supervisor moves such files to the folders of their links.
    MoveFiles(usize),
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

/// When a handler answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// When those before it are answered: a line each way.
    InOrder,
    /// When it is done: they were begun in their order, and have tags.
    InAnyOrder,
    /// When it is done: it has a connection of its own, or needs no order.
    Beside,
}

/// A request that a handler has.
pub struct Job {
    pub child: usize,
    pub host: usize,
    pub ticket: lonnet::lond::handler::Ticket,
    pub text: String,
    pub order: Answers,
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
    pub planned: HashSet<(usize, bool, Time)>,
    pub jobs: Vec<Job>,
    pub ledger: Ledger,
    /// From, to, until.
    pub partitions: Vec<(usize, usize, Time)>,
    pub replace_later: Vec<usize>,
    pub pids: u32,
    pub names: Names,
    /// Files to be dropped, in their order: link and message.
    files: VecDeque<(usize, usize)>,
    /// What was called settled when an answer was recorded: caller, called, epoch.
    pub settled: HashMap<(usize, usize, String), u64>,
    /// At rest each link carries one more message, longer than what its ends keep back of a window:
    /// by its connection.
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
            ledger: Ledger { windows: scenario.windows(), ..Ledger::default() },
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
                // What a process, a machine or a disk does between the sync and the removal makes
                // it come twice.
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
        let name = format!("{message:06}.h{peer}");
        disk.put(&Path::new("/spool").join(&name), text.as_bytes());
        let now = self.clock().mono;
        if let Some(supervisor) = &mut self.hosts[host].supervisor {
            supervisor.arrivals.notice(id_of(peer), name.into(), now);
            self.after(0, SECOND / 10, Event::MoveFiles(host));
        }
    }

    /// The programs, and the droppers of files, whose messages a link carries.
    /// The record that a host has of a caller was opened: what is in it is synced.
    pub fn recovered(&mut self, caller: usize, host: usize) {
        let is_of = |link: &usize| (self.links[*link].host, self.links[*link].peer) == (caller, host);
        let links: Vec<usize> = (0..self.links.len()).filter(is_of).collect();
        let senders: Vec<usize> = links.into_iter().flat_map(|link| self.senders(link)).collect();
        self.ledger.recovered(&senders, host);
    }

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
                    // Where a connection takes a few bytes at a time, such a message would be
                    // overdue.
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
            Event::AskAddresses(link, pid, number) => {
                self.asked_addresses(link, pid, number);
                Ok(())
            }
            Event::LookedUp(host, program, called) => {
                self.looked_up(host, program, called);
                Ok(())
            }
            Event::Addresses(link, pid, number, found) => self.addresses(link, pid, number, found),
            Event::AskConnection(link, pid, dial, number) => self.asked_connection(link, pid, dial, number),
            Event::NotBegun(link, dial) => self.not_begun(link, dial),
            Event::ReplaceChild(link, pid) => self.replace_child(link, pid),
            Event::SupervisorUp(host) => self.supervisor_up(host),
            Event::Supervise(host) => self.supervise(host),
            Event::DropFile(link) => {
                self.drop_file(link);
                Ok(())
            }
            Event::MoveFiles(host) => self.move_files(host),
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

    pub fn children_of(&self, host: usize) -> Vec<usize> {
        let of = |(number, child): (usize, &Option<Child>)| {
            child.as_ref().filter(|child| child.host == host).map(|_| number)
        };
        self.children.iter().enumerate().filter_map(of).collect()
    }

    pub fn disk(&self, host: usize, life: &Rc<Life>) -> SimDisk {
        SimDisk { disk: self.hosts[host].disk.clone(), life: life.clone(), sabotage: self.sabotage }
    }
}
