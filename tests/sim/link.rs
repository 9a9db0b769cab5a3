//! A link process of `lonc` in the simulation: its life, and what is checked of it after each turn.
//!
//! The turn itself is `lonc::turn`, over [`crate::link_io`].

use crate::dialling::Asking;
use crate::disk::{Life, SimDisk, is_dropped};
use crate::ledger::{Attempt, Checked};
use crate::link_io::LinkIo;
use crate::net::{End, Time};
use crate::sabotage::Sabotage;
use crate::scenario::*;
use crate::watch::LinkWatch;
use crate::world::World;
use lonnet::base::{Credentials, HostId, WireKind};
use lonnet::config::{LocalRules, Peer, fixture};
use lonnet::lonc::broker::Broker;
use lonnet::lonc::handover::{Passage, Room};
use lonnet::lonc::link::Now;
use lonnet::lonc::session::ClientId;
use lonnet::lonc::settings::{LinkKeys, LinkSettings};
use lonnet::lonc::turn::{Dialled, ORDER, Step, Turn};
use lonnet::status::LinkState;
use lonnet::store::spool::Spool;
use lonnet::store::spool::SpoolLimits;
use lonnet::wire::secure::least_window;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// The most that a link may have waiting for the peer: its own mark, and what one turn adds to it.
const MOST_OUT: usize = (1 << 20) + (256 << 10);

pub struct LinkProcess {
    pub host: usize,
    pub peer: usize,
    pub secure: bool,
    pub process: Option<(Box<Turn<SimDisk>>, Rc<Life>)>,
    pub conn: Option<usize>,
    /// Number of the last dial.
    pub dial: u64,
    /// What its process asks for its dials.
    pub asking: Asking,
    pub wake: Option<Time>,
    /// Its process, and the next one: started, and waiting for the lock.
    pub pid: u32,
    pub next_pid: Option<u32>,
    /// Programs between two processes, in the order in which they lie in the passage.
    pub passage: Option<Passage>,
    pub passing: VecDeque<usize>,
    /// Programs that wait to be accepted.
    pub door: VecDeque<usize>,
    /// Programs that have gone, as far as the process has not noticed.
    pub lost: Vec<ClientId>,
    /// What the process is about to hear of its dial.
    pub news: Option<Dialled>,
    /// Its process was told to end for good.
    pub drained: bool,
    /// From the next process on it speaks the other wire.
    pub other_wire: bool,
    /// Its spool is removed before the next process begins.
    pub wiped: bool,
    /// Until then its connections are not what they should be: its called end, or its calling one.
    pub mistaken: Option<(bool, Time)>,
    pub watch: LinkWatch,
    /// The spool's first epoch file, for [`Sabotage::SequenceReset`].
    first_epoch: Option<Vec<u8>>,
}

/// What happens to a link process.
pub enum LinkInput {
    /// Something has come, or time has passed.
    Turn,
    /// So it goes with a dial.
    Dialled(Dialled),
    Drain,
    Probe,
    HandOver,
    TakeIn,
    /// A program has sent something, takes more of its answers, or has gone.
    Program(ClientId),
}

impl LinkProcess {
    pub fn new(host: usize, peer: usize, secure: bool) -> LinkProcess {
        LinkProcess {
            host,
            peer,
            secure,
            process: None,
            conn: None,
            dial: 0,
            asking: Asking::default(),
            wake: None,
            pid: 0,
            next_pid: None,
            passage: None,
            passing: VecDeque::new(),
            door: VecDeque::new(),
            lost: Vec::new(),
            news: None,
            drained: false,
            other_wire: false,
            wiped: false,
            mistaken: None,
            watch: LinkWatch::default(),
            first_epoch: None,
        }
    }
}

/// An end of a virtual connection, to be written to.
pub struct Sink<'a> {
    pub world: &'a mut World,
    pub conn: usize,
    pub from: End,
}

impl io::Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Sink { world, conn, from } = self;
        let count = bytes.len().min(world.conns[*conn].room(*from));
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let World { conns, names, broken, random, sabotage, now, .. } = &mut **world;
        let conn = &mut conns[*conn];
        let passed = match &mut conn.wiretap {
            Some(wiretap) => wiretap.pass(*from, &bytes[..count], names, *sabotage, random),
            None => Ok(bytes[..count].to_vec()),
        };
        match passed {
            Ok(bytes) => drop(conn.send(*from, &bytes, *now, random)),
            Err(why) => *broken = Some(why),
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub fn id_of(host: usize) -> HostId {
    HostId::new(&format!("h{host}")).unwrap_or_else(|_| unreachable!("it is a good id"))
}

fn settings(this: usize, peer: Peer) -> LinkSettings {
    let at = |path: &str| PathBuf::from(path);
    LinkSettings {
        id: id_of(this),
        peer,
        keys: LinkKeys::None,
        local: LocalRules::default(),
        user: 0,
        run_dir: at("/run"),
        spool_dir: at("/spool"),
        log_dir: at("/log"),
        log_level: log::LevelFilter::Off,
        sandbox: config::Sandbox::Off,
    }
}

/// The order of a turn: the product's own, or one that is broken on purpose.
fn order_of(sabotage: Sabotage) -> Vec<Step> {
    let mut order = ORDER.to_vec();
    let place = |order: &[Step], step| order.iter().position(|it| *it == step);
    if sabotage == Sabotage::WrittenFirst
        && let (Some(from), Some(to)) = (place(&order, Step::Write), place(&order, Step::CarryOn))
    {
        order.swap(from, to);
    }
    order
}

/// Turns as long as there is something to do at once, as the reactor does.
fn turn_on(turn: &mut Turn<SimDisk>, io: &mut LinkIo<'_>, now: Now) -> Checked {
    let order = order_of(io.world.sabotage);
    for _ in 0..1000 {
        turn.run_in(&order, io, now);
        if io.is_dead() {
            return Ok(());
        }
        io.world.check_link(io.number, turn.broker())?;
        if turn.over() || !turn.has_work(io) {
            return Ok(());
        }
    }
    Err(format!("link {} turns and turns", io.number))
}

impl World {
    fn peer(&self, link: &LinkProcess) -> Peer {
        Peer {
            wire: if link.secure { WireKind::Secure } else { WireKind::Classic },
            request_timeout: Duration::from_micros(REQUEST_TIMEOUT),
            connect_timeout: Duration::from_micros(CONNECT_TIMEOUT),
            opening_timeout: Duration::from_micros(OPENING_TIMEOUT),
            drain_timeout: Duration::from_micros(DRAIN_TIMEOUT),
            max_line: MAX_LINE,
            heartbeat: Duration::from_micros(HEARTBEAT),
            heartbeat_missed: HEARTBEAT_MISSED,
            window: least_window(MAX_LINE) as u32,
            spool: SpoolLimits { messages: self.scenario.spool_messages, bytes: 1 << 22, keep_free: 4096 },
            ..fixture::peer(id_of(link.peer).as_str())
        }
    }

    /// A link's process has the lock, and begins.
    pub fn start_link(&mut self, number: usize) -> Checked {
        let link = &mut self.links[number];
        if link.process.is_some() || !self.hosts[link.host].up {
            return Ok(());
        }
        let Some(pid) = link.next_pid.take() else { return Ok(()) };
        link.pid = pid;
        link.watch = LinkWatch::default();
        link.asking = Asking::default();
        link.drained = false;
        if std::mem::take(&mut link.other_wire) {
            link.secure = !link.secure;
            let senders = self.senders(number);
            self.ledger.changes_wire(&senders);
        }
        if std::mem::take(&mut self.links[number].wiped) {
            self.wipe_spool(number);
        }
        let link = &self.links[number];
        let (this, peer) = (link.host, self.peer(link));
        let dir = PathBuf::from(format!("/spool/{}", peer.host.id));
        let epoch = dir.join("epoch");
        if self.sabotage == Sabotage::SequenceReset {
            match self.links[number].first_epoch.clone() {
                Some(first) => self.hosts[this].disk.put(&epoch, &first),
                None => self.links[number].first_epoch = self.hosts[this].disk.files().get(&epoch).cloned(),
            }
        }
        let life = Rc::new(Life::default());
        let disk = self.disk(this, &life);
        let spool = Spool::open_with_segments(disk, &dir, peer.spool, self.scenario.segment_bytes);
        self.trace(|_| format!("link {number}: epoch {}, {:?}", spool.epoch(), spool.waiting()));
        let (seed, now) = (self.random.u64(..), self.clock());
        let mut broker = Broker::new(settings(this, peer), spool, seed, now);
        let came = self.take_over(number, &mut broker)?;
        let mut turn = Box::new(Turn::new(broker));
        let mut io = LinkIo { world: self, number, life: life.clone(), deaf: false };
        for id in came {
            turn.program_came(&mut io, id, |_| true);
        }
        turn.begin(&mut io, now);
        self.links[number].process = Some((turn, life));
        self.link_step(number, LinkInput::Turn)
    }

    /// Takes the programs out of the passage.
    fn take_over(&mut self, number: usize, broker: &mut Broker<SimDisk>) -> Result<Vec<ClientId>, String> {
        let failed = |cause: io::Error| format!("passage of link {number}: {cause}");
        let Some(passage) = &self.links[number].passage else { return Ok(Vec::new()) };
        let (mut rests, mut room) = (Vec::new(), Room::default());
        let takeover = passage.takeover().map_err(failed)?;
        while let Some(handed) = takeover.receive(&mut room).map_err(failed)? {
            rests.extend(handed.into_iter().map(|(_, rest)| rest));
        }
        let mut came = Vec::new();
        for rest in rests {
            let Some(program) = self.links[number].passing.pop_front() else {
                return Err(format!("a program came out of the passage of link {number} that did not go in"));
            };
            let id = broker.client_handed(rest);
            broker.client_belongs(id, Credentials::of_user(self.user_of(program)));
            self.programs[program].comes_out(id);
            came.push(id);
        }
        if !self.links[number].passing.is_empty() {
            return Err(format!("programs went into the passage of link {number} and did not come out"));
        }
        Ok(came)
    }

    /// The supervisor is gone, and with it the programs that are between two processes, or wait at
    /// the local socket.
    pub fn lose_passage(&mut self, number: usize) {
        self.links[number].passage = None;
        let between = std::mem::take(&mut self.links[number].passing);
        for program in between.into_iter().chain(std::mem::take(&mut self.links[number].door)) {
            self.disconnect(program);
        }
    }

    /// The process is gone, with all that it had in memory.
    pub fn end_link(&mut self, number: usize) -> Checked {
        if self.links[number].process.take().is_none() {
            return Ok(());
        }
        self.hang_up(number, true);
        self.links[number].lost.clear();
        for program in 0..self.programs.len() {
            if self.programs[program].link() == number && self.programs[program].is_served() {
                self.disconnect(program);
            }
        }
        self.exited(number, self.links[number].pid)
    }

    pub fn hang_up(&mut self, number: usize, reset: bool) {
        self.links[number].dial += 1;
        self.links[number].asking.give_up();
        self.links[number].news = None;
        if let Some(conn) = self.links[number].conn.take() {
            self.close(conn, End::Caller, reset);
        }
    }

    /// Something happens to a link's process, and it does what follows.
    pub fn link_step(&mut self, number: usize, input: LinkInput) -> Checked {
        let Some((mut turn, life)) = self.links[number].process.take() else { return Ok(()) };
        let now = self.clock();
        let mut io = LinkIo { world: self, number, life: life.clone(), deaf: false };
        match input {
            LinkInput::Turn => {}
            LinkInput::Dialled(news) => io.world.links[number].news = Some(news),
            LinkInput::Drain => {
                // Of a process that is told twice the first time counts.
                let already = std::mem::replace(&mut io.world.links[number].drained, true);
                for program in 0..io.world.programs.len() {
                    let it = &io.world.programs[program];
                    if it.link() == number && it.is_served() && !already {
                        io.world.writes_at_drain(program);
                    }
                }
                io.deaf = io.world.sabotage == Sabotage::DrainedUnread;
                turn.drain(&mut io, now);
                io.deaf = false;
            }
            LinkInput::Probe if io.world.sabotage == Sabotage::ProbeIgnored => {}
            LinkInput::Probe => turn.broker().probe(now),
            LinkInput::HandOver if io.world.sabotage == Sabotage::PendingForgotten => {
                turn.broker().hand_over(now);
                self.links[number].process = Some((turn, life));
                return self.end_link(number);
            }
            LinkInput::HandOver => turn.broker().hand_over(now),
            LinkInput::TakeIn => turn.broker().files_came(now),
            LinkInput::Program(client) => {
                turn.program_is_ready(&io, client);
                turn.program_takes(&mut io, client);
            }
        }
        let carried = turn_on(&mut turn, &mut io, now);
        match self.sabotage {
            Sabotage::SilenceIgnored => turn.broker().link_moved(now),
            Sabotage::DialledAtOnce if turn.broker().status(now).state == LinkState::Down => {
                turn.broker().probe(now);
            }
            _ => {}
        }
        let host = self.links[number].host;
        let over = turn.over();
        let late =
            self.sabotage == Sabotage::BackoffKept && turn.broker().status(now).state == LinkState::Down;
        let late = if late { 20 * SECOND } else { 0 };
        let deadline = turn.deadline().map(|at| self.time_of(at) + late);
        self.links[number].process = Some((turn, life.clone()));
        if life.dead.get() {
            self.trace(|_| format!("link {number} dies in the middle of a step"));
            carried?;
            return self.end_link(number);
        }
        if self.hosts[host].disk.is_dead() {
            return carried;
        }
        if over {
            carried?;
            return self.end_link(number);
        } else if let Some(at) = deadline {
            self.wake_link(number, at);
        }
        carried
    }

    /// Messages that were refused or settled, and that a crash may have brought back.
    fn came_back(&self, number: usize) -> u64 {
        let here = |program: &usize| self.programs.get(*program).is_some_and(|it| it.link() == number);
        let settled = self.machine_died;
        let refused = |attempts: &[Attempt]| {
            settled || attempts.iter().any(|attempt| attempt.refused || attempt.unheard)
        };
        let messages = self.ledger.messages.iter().filter(|it| here(&it.program) && refused(&it.attempts));
        if self.certain { 0 } else { messages.count() as u64 }
    }

    /// Whose a program is, as its link is told.
    pub fn user_of(&self, program: usize) -> u32 {
        match self.sabotage {
            Sabotage::UsersUntold => program as u32,
            _ => (program % self.scenario.users) as u32,
        }
    }

    /// Nobody waits for an answer that is there.
    fn check_answers(&self, number: usize, broker: &mut Broker<SimDisk>) -> Checked {
        for (program, it) in self.programs.iter().enumerate().filter(|(_, it)| it.link() == number) {
            let Some(session) = it.client().and_then(|id| broker.session(id)) else { continue };
            if it.takes(self.scenario.socket) && !session.answers.out.is_empty() {
                return Err(format!("link {number} sleeps with answers that program {program} would take"));
            }
        }
        Ok(())
    }

    fn check_link(&mut self, number: usize, broker: &mut Broker<SimDisk>) -> Checked {
        let waits = broker.link_out().len();
        if waits > MOST_OUT {
            return Err(format!("link {number}: {waits} bytes wait for the peer"));
        }
        let conn = self.links[number].conn;
        let takes = conn.is_some_and(|conn| self.conns[conn].room(End::Caller) > 0);
        if takes && waits > 0 {
            return Err(format!("link {number} sleeps with {waits} bytes that the peer would take"));
        }
        self.check_answers(number, broker)?;
        let status = broker.status(self.clock());
        let most = match (self.scenario.users, self.scenario.spool_messages) {
            (1, all) => (all * 3 / 4).max(1),
            (_, all) => all,
        };
        let sent: u64 = self.ledger.messages.len() as u64 * 4;
        let beyond = status.delayed > most && status.delayed > most + self.came_back(number);
        if beyond || status.in_flight > sent.min(4096 + 1) {
            return Err(format!("link {number}: {} stored, {} in flight", status.delayed, status.in_flight));
        }
        self.note_state(number, &status)
    }

    /// Why the network is not at rest; `None` when it is.
    pub fn unsettled(&mut self) -> Option<String> {
        let now = self.clock();
        for (number, link) in self.links.iter_mut().enumerate() {
            let Some((turn, _)) = &mut link.process else {
                return Some(format!("link {number} has no process"));
            };
            let status = turn.broker().status(now);
            if status.state != LinkState::Up || status.delayed > 0 || status.in_flight > 0 {
                return Some(format!("link {number}: {status:?}"));
            }
        }
        for (number, host) in self.hosts.iter().enumerate() {
            let left = host.disk.files().into_keys().find(|path| is_dropped(path));
            if let Some(file) = left {
                return Some(format!("host {number} has not taken in {}", file.display()));
            }
        }
        let busy = self.programs.iter().enumerate().find(|(_, program)| !program.is_done());
        busy.map(|(number, program)| format!("program {number}: {program:?}"))
    }
}
