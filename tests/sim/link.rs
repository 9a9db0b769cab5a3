//! A link process of `lonc` in the simulation, and the local programs that use it.

use crate::disk::{Life, SimDisk, is_dropped};
use crate::ledger::{Attempt, Checked};
use crate::net::{End, Time};
use crate::sabotage::Sabotage;
use crate::scenario::*;
use crate::watch::LinkWatch;
use crate::world::{Event, World};
use lonnet::config::{Config, Host, HostId, Hosts, Lond, Peer, Pins, Role, SpoolLimits, Target, Wire};
use lonnet::lonc::broker::{Broker, Effect};
use lonnet::lonc::handover::{PER_MESSAGE, Passage};
use lonnet::lonc::session::{ClientId, Rest};
use lonnet::spool::Spool;
use lonnet::status::LinkState;
use lonnet::wire::secure::least_window;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// The most that a link may have waiting for the peer: its own mark, and what one turn adds to it.
const MOST_OUT: usize = (1 << 20) + (256 << 10);

pub struct LinkProcess {
    pub host: usize,
    pub peer: usize,
    pub secure: bool,
    pub process: Option<(Box<Broker<SimDisk>>, Rc<Life>)>,
    pub conn: Option<usize>,
    /// Number of the last dial.
    pub dial: u64,
    pub wake: Option<Time>,
    /// Its process, and the next one: started, and waiting for the lock.
    pub pid: u32,
    pub next_pid: Option<u32>,
    /// Programs between two processes, in the order in which they lie in the passage.
    passage: Option<Passage>,
    passing: VecDeque<usize>,
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
    Turn,
    Connected,
    Readable,
    Lost(String),
    Drain,
    Probe,
    HandOver,
    TakeIn,
    Sent(ClientId, Vec<u8>),
    InputClosed(ClientId),
    Gone(ClientId),
}

/// A local program: it sends its messages in their order, over as many connections as it takes.
#[derive(Debug)]
pub struct Program {
    link: usize,
    client: Option<ClientId>,
    connection: u64,
    todo: VecDeque<usize>,
    /// Written, and not taken by the broker yet.
    unsent: VecDeque<u8>,
    /// Requests without an answer: message and attempt.
    open: VecDeque<(usize, usize)>,
    /// Answers that it has not read, and the beginning of a line that it has.
    socket: Vec<u8>,
    line: Vec<u8>,
    /// It shut its writing half.
    shut: bool,
    /// It is connected, and between two processes.
    handed: bool,
    /// Answers that it had before their time ([`Sabotage::AcknowledgedEarly`]).
    early: usize,
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
            wake: None,
            pid: 0,
            next_pid: None,
            passage: None,
            passing: VecDeque::new(),
            other_wire: false,
            wiped: false,
            mistaken: None,
            watch: LinkWatch::default(),
            first_epoch: None,
        }
    }
}

impl Program {
    pub fn new(link: usize, todo: VecDeque<usize>) -> Program {
        Program {
            link,
            client: None,
            connection: 0,
            todo,
            unsent: VecDeque::new(),
            open: VecDeque::new(),
            socket: Vec::new(),
            line: Vec::new(),
            shut: false,
            handed: false,
            early: 0,
        }
    }

    pub fn link(&self) -> usize {
        self.link
    }

    pub fn is_done(&self) -> bool {
        self.todo.is_empty() && self.open.is_empty() && self.unsent.is_empty() && self.socket.is_empty()
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

fn host(number: usize) -> Host {
    Host {
        id: id_of(number),
        domain: "sim".into(),
        role: Role("library".into()),
        name: "localhost".into(),
        address: None,
        line: 1,
    }
}

fn hosts() -> Hosts {
    let line = |number| format!("h{number}:sim:library:localhost:127.0.0.{}\n", number + 1);
    Hosts::parse(Path::new("/hosts.tab"), (0..3).map(line).collect::<String>().as_bytes()).unwrap_or_default()
}

fn config(this: usize, peer: Peer) -> Config {
    let at = |path: &str| PathBuf::from(path);
    Config {
        file: at("/lonnet.toml"),
        id: id_of(this),
        hosts: hosts(),
        hosts_file: at("/hosts.tab"),
        pins: Pins::default(),
        pins_file: at("/hosts.pins"),
        key_dir: at("/keys"),
        run_dir: at("/run"),
        spool_dir: at("/spool"),
        log_dir: at("/log"),
        status_dir: at("/status"),
        user: None,
        log_level: log::LevelFilter::Off,
        peers: vec![peer],
        lond: Lond {
            listen: Vec::new(),
            classic: true,
            max_opening: 1,
            opening_timeout: Duration::from_micros(OPENING_TIMEOUT),
            max_line: MAX_LINE,
            heartbeat: Duration::from_micros(HEARTBEAT),
            heartbeat_missed: HEARTBEAT_MISSED,
            window: least_window(MAX_LINE) as u32,
            full_load: 1.0,
            log_quota: 4 << 20,
            drain_timeout: Duration::from_micros(DRAIN_TIMEOUT),
        },
        handlers: Vec::new(),
        warnings: Vec::new(),
    }
}

impl World {
    fn peer(&self, link: &LinkProcess) -> Peer {
        Peer {
            host: host(link.peer),
            target: Target::Lookup { name: "localhost".into(), port: 1 },
            bind: None,
            wire: if link.secure { Wire::Secure } else { Wire::Classic },
            request_timeout: Duration::from_micros(REQUEST_TIMEOUT),
            connect_timeout: Duration::from_micros(CONNECT_TIMEOUT),
            opening_timeout: Duration::from_micros(OPENING_TIMEOUT),
            drain_timeout: Duration::from_micros(DRAIN_TIMEOUT),
            socket_mode: 0o660,
            max_line: MAX_LINE,
            heartbeat: Duration::from_micros(HEARTBEAT),
            heartbeat_missed: HEARTBEAT_MISSED,
            window: least_window(MAX_LINE) as u32,
            spool: SpoolLimits { messages: self.scenario.spool_messages, bytes: 1 << 22, keep_free: 4096 },
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
        let mut broker = Broker::new(&config(this, peer.clone()), &peer, spool, None, seed, now);
        self.take_over(number, &mut broker)?;
        self.links[number].process = Some((Box::new(broker), life));
        self.link_step(number, LinkInput::Turn)
    }

    /// Takes the programs out of the passage.
    fn take_over(&mut self, number: usize, broker: &mut Broker<SimDisk>) -> Checked {
        let failed = |cause: io::Error| format!("passage of link {number}: {cause}");
        let Some(passage) = &self.links[number].passage else { return Ok(()) };
        let mut rests = Vec::new();
        while let Some(handed) = passage.receive().map_err(failed)? {
            rests.extend(handed.into_iter().map(|(_, rest)| rest));
        }
        for rest in rests {
            let Some(program) = self.links[number].passing.pop_front() else {
                return Err(format!("a program came out of the passage of link {number} that did not go in"));
            };
            let it = &mut self.programs[program];
            it.client = Some(broker.client_handed(rest));
            it.handed = false;
        }
        if !self.links[number].passing.is_empty() {
            return Err(format!("programs went into the passage of link {number} and did not come out"));
        }
        Ok(())
    }

    /// Hands over the programs that can go to the next process, as the reactor does; whether some could not.
    fn hand_over(&mut self, number: usize, broker: &mut Broker<SimDisk>) -> Result<bool, String> {
        let failed = |cause: io::Error| format!("passage of link {number}: {cause}");
        let going = broker.take_going();
        let mut some_stay = false;
        for group in going.chunks(PER_MESSAGE) {
            if self.links[number].passage.is_none() {
                self.links[number].passage = Some(Passage::new().map_err(failed)?);
            }
            let Some(passage) = &self.links[number].passage else { continue };
            let handover = passage.try_clone().map_err(failed)?.into_handover();
            // No bytes pass through these: what programs read and write is kept here.
            let (stream, _) = UnixStream::pair().map_err(failed)?;
            let rests: Vec<_> = group.iter().filter_map(|id| broker.rest(*id)).collect();
            let programs: Vec<_> =
                rests.into_iter().map(|rest| (stream.as_fd(), self.garble(rest))).collect();
            // Where the supervisor is gone nobody reads at the other end.
            let supervised = self.hosts[self.links[number].host].supervisor.is_some();
            let sent = supervised && handover.send(&programs).is_ok();
            some_stay |= !sent;
            for &id in group {
                let of = |it: &Program| it.link == number && it.client == Some(id);
                match self.programs.iter().position(of) {
                    Some(program) if sent => {
                        self.trace(|_| format!("program {program} is handed over"));
                        let it = &mut self.programs[program];
                        (it.client, it.handed) = (None, true);
                        self.links[number].passing.push_back(program);
                        broker.client_gone(id);
                    }
                    Some(_) => broker.client_stays(id),
                    None => broker.client_gone(id),
                }
            }
        }
        Ok(some_stay)
    }

    fn garble<'a>(&mut self, mut rest: Rest<'a>) -> Rest<'a> {
        match self.sabotage {
            Sabotage::UnreadForgotten => rest.unread = b"".as_slice().into(),
            Sabotage::AnswersForgotten => rest.unsent = b"".as_slice().into(),
            Sabotage::HandedTwice => rest.unread = [&*rest.unread, &*rest.unread].concat().into(),
            _ => {}
        }
        rest
    }

    /// The supervisor is gone, and with it the programs that are between two processes.
    pub fn lose_passage(&mut self, number: usize) {
        self.links[number].passage = None;
        for program in std::mem::take(&mut self.links[number].passing) {
            self.disconnect(program);
        }
    }

    /// The process is gone, with all that it had in memory.
    pub fn end_link(&mut self, number: usize) -> Checked {
        if self.links[number].process.take().is_none() {
            return Ok(());
        }
        self.hang_up(number, true);
        for program in 0..self.programs.len() {
            if self.programs[program].link == number && self.programs[program].client.is_some() {
                self.disconnect(program);
            }
        }
        self.exited(number, self.links[number].pid)
    }

    fn hang_up(&mut self, number: usize, reset: bool) {
        self.links[number].dial += 1;
        if let Some(conn) = self.links[number].conn.take() {
            self.close(conn, End::Caller, reset);
        }
    }

    /// Something happens to a link's process, and it does what follows.
    pub fn link_step(&mut self, number: usize, input: LinkInput) -> Checked {
        let Some((mut broker, life)) = self.links[number].process.take() else { return Ok(()) };
        let now = self.clock();
        match input {
            LinkInput::Turn | LinkInput::Readable => {}
            LinkInput::Connected => broker.link_connected(now),
            LinkInput::Lost(why) => {
                self.hang_up(number, false);
                broker.link_lost(why, now);
            }
            LinkInput::Drain => broker.drain(now),
            LinkInput::Probe if self.sabotage == Sabotage::ProbeIgnored => {}
            LinkInput::Probe => broker.probe(now),
            LinkInput::HandOver if self.sabotage == Sabotage::PendingForgotten => {
                broker.hand_over(now);
                self.links[number].process = Some((broker, life));
                return self.end_link(number);
            }
            LinkInput::HandOver => broker.hand_over(now),
            LinkInput::TakeIn => broker.files_appeared(now),
            LinkInput::Sent(client, bytes) => broker.client_sent(client, &bytes),
            LinkInput::InputClosed(client) => broker.client_closed_input(client),
            LinkInput::Gone(client) => broker.client_gone(client),
        }
        let carried = self.carry_on(number, &mut broker, &life);
        match self.sabotage {
            Sabotage::SilenceIgnored => broker.link_moved(now),
            Sabotage::DialledAtOnce if broker.status(now).state == LinkState::Down => broker.probe(now),
            _ => {}
        }
        let host = self.links[number].host;
        let over = broker.over();
        let late = self.sabotage == Sabotage::BackoffKept && broker.status(now).state == LinkState::Down;
        let late = if late { 20 * SECOND } else { 0 };
        let deadline = broker.deadline().map(|at| self.time_of(at) + late);
        self.links[number].process = Some((broker, life.clone()));
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

    /// As the reactor's part of this name: whoever can go is handed over at the end.
    fn carry_on(&mut self, number: usize, broker: &mut Broker<SimDisk>, life: &Life) -> Checked {
        loop {
            self.advance(number, broker, life)?;
            if !self.hand_over(number, broker)? {
                return Ok(());
            }
        }
    }

    fn advance(&mut self, number: usize, broker: &mut Broker<SimDisk>, life: &Life) -> Checked {
        let now = self.clock();
        self.read_link(number, broker);
        // What was written may let more be done; a few rounds do.
        for _ in 0..1000 {
            broker.turn(now);
            let mut effects = broker.take_effects();
            let gone =
                |world: &World| life.dead.get() || world.hosts[world.links[number].host].disk.is_dead();
            if gone(self) {
                return Ok(());
            }
            while !effects.is_empty() {
                for effect in effects.drain(..) {
                    match effect {
                        Effect::Dial => {
                            self.hang_up(number, false);
                            self.note_dial(number)?;
                            let dial = self.links[number].dial;
                            self.after(MILLI, 50 * MILLI, Event::Dialled(number, dial));
                        }
                        Effect::HangUp => {
                            if self.links[number].secure {
                                self.write_link(number, broker);
                            }
                            self.hang_up(number, false);
                            broker.link_out().clear();
                        }
                        Effect::Delivered { request } => self.ledger.delivered(&request),
                    }
                }
                effects = broker.take_effects();
            }
            let wrote = self.write_link(number, broker);
            self.check_link(number, broker)?;
            let touched = broker.take_touched();
            for client in &touched {
                self.write_answers(number, *client, broker)?;
            }
            broker.take_changed();
            if !wrote && touched.is_empty() {
                return Ok(());
            }
        }
        Err(format!("link {number} turns and turns"))
    }

    /// Messages that were refused or settled, and that a crash may have brought back.
    fn came_back(&self, number: usize) -> u64 {
        let here = |program: &usize| self.programs.get(*program).is_some_and(|it| it.link == number);
        let settled = self.machine_died;
        let refused = |attempts: &[Attempt]| {
            settled || attempts.iter().any(|attempt| attempt.refused || attempt.unheard)
        };
        let messages = self.ledger.messages.iter().filter(|it| here(&it.program) && refused(&it.attempts));
        if self.certain { 0 } else { messages.count() as u64 }
    }

    fn check_link(&mut self, number: usize, broker: &mut Broker<SimDisk>) -> Checked {
        let waits = broker.link_out().len();
        if waits > MOST_OUT {
            return Err(format!("link {number}: {waits} bytes wait for the peer"));
        }
        let status = broker.status(self.clock());
        // The one beyond the limit is the batch that reached it.
        let most = self.scenario.spool_messages;
        let sent: u64 = self.ledger.messages.len() as u64 * 4;
        let beyond = status.delayed > most && status.delayed > most + self.came_back(number);
        if beyond || status.in_flight > sent.min(4096 + 1) {
            return Err(format!("link {number}: {} stored, {} in flight", status.delayed, status.in_flight));
        }
        self.note_state(number, &status)
    }

    fn read_link(&mut self, number: usize, broker: &mut Broker<SimDisk>) {
        let now = self.clock();
        let Some(conn) = self.links[number].conn else { return };
        loop {
            let pipe = self.conns[conn].input(End::Caller);
            if pipe.reset {
                pipe.arrived.clear();
            }
            if pipe.arrived.is_empty() {
                break;
            }
            let count = self.random.usize(1..=self.conns[conn].to_caller.arrived.len());
            let mut bytes: Vec<u8> = self.conns[conn].to_caller.arrived.drain(..count).collect();
            if self.sabotage == Sabotage::AnswerTwice
                && !self.links[number].secure
                && self.random.u32(..8) == 0
            {
                let whole = bytes.iter().position(|byte| *byte == b'\n').map(|at| bytes[..=at].to_vec());
                if let Some(line) = whole.filter(|line| line.starts_with(b"done:")) {
                    bytes.splice(0..0, line);
                }
            }
            broker.link_received(&bytes, now);
            self.links[number].watch.heard = self.now;
            self.room_made(conn, End::Called);
        }
        if self.conns[conn].to_caller.ended && self.links[number].conn == Some(conn) {
            self.hang_up(number, false);
            broker.link_lost("closed by the peer".to_owned(), now);
        }
    }

    /// Whether anything was written.
    fn write_link(&mut self, number: usize, broker: &mut Broker<SimDisk>) -> bool {
        let now = self.clock();
        let Some(conn) = self.links[number].conn else { return false };
        let mut any = false;
        loop {
            let before = broker.link_out().len();
            let mut sink = Sink { world: self, conn, from: End::Caller };
            // It fails with nothing but that there is no room.
            broker.link_out().flush_to(&mut sink).unwrap_or(false);
            if broker.link_out().take_moved() {
                broker.link_moved(now);
                self.links[number].watch.heard = self.now;
            }
            if broker.link_out().len() == before {
                return any;
            }
            any = true;
            self.plan(conn);
            broker.link_wrote();
        }
    }

    // The programs.

    fn write_answers(&mut self, number: usize, client: ClientId, broker: &mut Broker<SimDisk>) -> Checked {
        let of = |it: &Program| it.link == number && it.client == Some(client);
        let Some(program) = self.programs.iter().position(of) else { return Ok(()) };
        let Some(session) = broker.session(client) else { return Ok(()) };
        let out = &mut session.answers.out;
        self.note_refusals(program, out.bytes());
        let receiver = if self.sabotage == Sabotage::AnswerToAnother && self.random.u32(..10) == 0 {
            let other = |it: &Program| it.link == number && it.client.is_some_and(|other| other != client);
            self.programs.iter().position(other).unwrap_or(program)
        } else {
            program
        };
        let count = out.len().min(self.scenario.socket.saturating_sub(self.programs[receiver].socket.len()));
        self.programs[receiver].socket.extend_from_slice(&out.bytes()[..count]);
        out.wrote(count);
        let finished = session.finished();
        if count > 0 {
            broker.client_read(client);
            self.after(0, 20 * MILLI, Event::Program(receiver));
        }
        if finished {
            broker.client_gone(client);
            self.read_answers(program)?;
            if !self.programs[program].open.is_empty() && self.links[number].process.is_some() {
                return Err(format!("program {program} was closed with requests open"));
            }
            self.disconnect(program);
        }
        Ok(())
    }

    /// What is refused has no place in the order from when that is said, whether or not the program lives to read it.
    fn note_refusals(&mut self, program: usize, unwritten: &[u8]) {
        let it = &self.programs[program];
        if !self.ledger.may_be_refused.contains(&program) {
            return;
        }
        let said = [it.line.as_slice(), &it.socket, unwritten].concat();
        for (line, (message, attempt)) in said.split(|byte| *byte == b'\n').zip(&it.open) {
            if line == b"con_failed" {
                self.ledger.messages[*message].attempts[*attempt].refused = true;
            }
        }
    }

    /// Whether nothing that this program asks may be lost or refused.
    fn must_be_well(&self, program: usize) -> bool {
        match self.scenario.weather {
            Weather::Calm => true,
            Weather::Gentle => self.links[self.programs[program].link].secure,
            Weather::Rough => false,
        }
    }

    fn read_answers(&mut self, program: usize) -> Checked {
        let bytes = std::mem::take(&mut self.programs[program].socket);
        for byte in bytes {
            if byte != b'\n' {
                self.programs[program].line.push(byte);
                continue;
            }
            let line =
                String::from_utf8_lossy(&std::mem::take(&mut self.programs[program].line)).into_owned();
            let Some((message, attempt)) = self.programs[program].open.pop_front() else {
                return Err(format!("program {program} got {line:?} and had asked nothing"));
            };
            let line = match self.sabotage {
                Sabotage::FailureHidden if line == "con_failed" => "con_delayed".to_owned(),
                _ => line,
            };
            let early = self.programs[program].early > 0;
            if early {
                self.programs[program].early -= 1;
            } else {
                self.trace(|_| format!("program {program}: message {message} answered {line:.60}"));
                self.ledger.answered(message, attempt, &line, self.now, self.must_be_well(program))?;
            }
        }
        Ok(())
    }

    /// The connection is gone; what was not answered has an unknown fate. What has a key is asked again.
    fn disconnect(&mut self, program: usize) {
        let it = &mut self.programs[program];
        it.client = None;
        it.handed = false;
        it.shut = false;
        it.early = 0;
        it.unsent.clear();
        it.socket.clear();
        it.line.clear();
        if self.scenario.weather != Weather::Rough && !it.open.is_empty() {
            self.broken = Some(format!("program {program} was closed, and is owed answers: {it:?}"));
        }
        for (message, attempt) in std::mem::take(&mut it.open).into_iter().rev() {
            self.ledger.counts.unknown += 1;
            self.ledger.messages[message].attempts[attempt].unheard = true;
            if self.ledger.messages[message].line.starts_with("critical;key=") {
                it.todo.push_front(message);
            }
        }
        self.after(0, SECOND, Event::Program(program));
    }

    /// A program does something.
    pub fn program(&mut self, program: usize) -> Checked {
        let number = self.programs[program].link;
        self.read_answers(program)?;
        if self.programs[program].handed {
            // It is connected, and notices nothing.
            if !self.programs[program].shut
                && let Some(message) = self.programs[program].todo.pop_front()
            {
                self.ask(program, message);
            }
            self.after(MILLI, SECOND, Event::Program(program));
            return Ok(());
        }
        let Some((broker, _)) = self.links[number].process.as_mut() else {
            if !self.programs[program].is_done() {
                self.after(MILLI, SECOND, Event::Program(program));
            }
            return Ok(());
        };
        if self.programs[program].is_done() {
            return Ok(());
        }
        let client = match self.programs[program].client {
            Some(client) => client,
            None if broker.accepts() => {
                let client = broker.client_connected();
                self.programs[program].client = Some(client);
                self.programs[program].connection += 1;
                client
            }
            None => {
                self.after(MILLI, SECOND, Event::Program(program));
                return Ok(());
            }
        };
        let wants = broker.session(client).is_some_and(|session| session.wants_read());
        if !self.programs[program].shut {
            for _ in 0..self.random.usize(..3) {
                let Some(message) = self.programs[program].todo.pop_front() else { break };
                self.ask(program, message);
            }
        }
        let mut input = LinkInput::Turn;
        if wants && !self.programs[program].unsent.is_empty() {
            let unsent = &mut self.programs[program].unsent;
            let count =
                if self.random.u32(..4) == 0 { self.random.usize(1..=unsent.len()) } else { unsent.len() };
            input = LinkInput::Sent(client, unsent.drain(..count).collect());
        } else if self.programs[program].unsent.is_empty() && !self.programs[program].shut {
            match self.random.u32(..40) {
                0 => {
                    self.programs[program].shut = true;
                    input = LinkInput::InputClosed(client);
                }
                1 if self.scenario.weather == Weather::Rough => {
                    self.disconnect(program);
                    input = LinkInput::Gone(client);
                }
                _ => {}
            }
        }
        if let Some((broker, _)) = self.links[number].process.as_mut()
            && let Some(client) = self.programs[program].client
        {
            // It has read, so there is room for more answers.
            let touched = broker.session(client).is_some_and(|session| !session.answers.out.is_empty());
            if touched && let Some((mut broker, life)) = self.links[number].process.take() {
                let written = self.write_answers(number, client, &mut broker);
                if self.links[number].process.is_none() {
                    self.links[number].process = Some((broker, life));
                }
                written?;
            }
        }
        if !self.programs[program].is_done() {
            let more = self.random.u64(..2 * SECOND);
            self.at(self.now + more, Event::Program(program));
        }
        self.link_step(number, input)
    }

    fn ask(&mut self, program: usize, message: usize) {
        let connection = self.programs[program].connection;
        let it = &mut self.ledger.messages[message];
        it.attempts.push(Attempt {
            connection,
            at: self.now,
            acknowledged: None,
            refused: false,
            unheard: false,
            delayed: false,
        });
        let attempt = it.attempts.len() - 1;
        let line = it.line.clone();
        let early = self.sabotage == Sabotage::AcknowledgedEarly && it.kind.is_critical();
        if early && self.programs[program].early == self.programs[program].open.len() {
            it.attempts[attempt].acknowledged = Some(self.now);
            self.programs[program].early += 1;
        }
        self.programs[program].open.push_back((message, attempt));
        self.programs[program].unsent.extend(line.bytes());
        self.programs[program].unsent.push_back(b'\n');
    }

    /// Why the network is not at rest; `None` when it is.
    pub fn unsettled(&mut self) -> Option<String> {
        let now = self.clock();
        for (number, link) in self.links.iter_mut().enumerate() {
            let Some((broker, _)) = &mut link.process else {
                return Some(format!("link {number} has no process"));
            };
            let status = broker.status(now);
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
