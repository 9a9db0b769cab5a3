//! A link process of `lonc` in the simulation, and the local programs that use it.

use crate::disk::{Life, SimDisk};
use crate::ledger::{Attempt, Checked};
use crate::net::{End, Time};
use crate::sabotage::Sabotage;
use crate::scenario::*;
use crate::world::{Event, World};
use lonnet::config::{Config, Host, HostId, Hosts, Lond, Peer, Pins, Role, SpoolLimits, Target, Wire};
use lonnet::lonc::broker::{Broker, Effect};
use lonnet::lonc::session::ClientId;
use lonnet::spool::Spool;
use lonnet::status::LinkState;
use lonnet::wire::secure::least_window;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// What a program's socket takes of answers that it has not read.
const SOCKET: usize = 400;
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
    /// Answers that it had before their time ([`Sabotage::AcknowledgedEarly`]).
    early: usize,
}

impl LinkProcess {
    pub fn new(host: usize, peer: usize, secure: bool) -> LinkProcess {
        LinkProcess { host, peer, secure, process: None, conn: None, dial: 0, wake: None, first_epoch: None }
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
            early: 0,
        }
    }

    pub fn link(&self) -> usize {
        self.link
    }

    fn is_done(&self) -> bool {
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
        let mut bytes = bytes[..count].to_vec();
        if world.sabotage == Sabotage::FramesSwapped && *from == End::Caller {
            swap_criticals(&mut bytes);
        }
        let (now, random) = (world.now, &mut world.random);
        world.conns[*conn].send(*from, &bytes, now, random);
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

fn config(this: usize, peer: Peer) -> Config {
    let at = |path: &str| PathBuf::from(path);
    Config {
        file: at("/lonnet.toml"),
        id: id_of(this),
        hosts: Hosts::default(),
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

    /// The supervisor starts a link's process.
    pub fn start_link(&mut self, number: usize) -> Checked {
        let link = &self.links[number];
        if link.process.is_some() || !self.hosts[link.host].up {
            return Ok(());
        }
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
        let broker = Broker::new(&config(this, peer.clone()), &peer, spool, None, seed, now);
        self.links[number].process = Some((Box::new(broker), life));
        self.link_step(number, LinkInput::Turn)
    }

    /// The process is gone, with all that it had in memory.
    pub fn kill_link(&mut self, number: usize, restart: bool) {
        if self.links[number].process.take().is_none() {
            return;
        }
        self.hang_up(number, true);
        for program in 0..self.programs.len() {
            if self.programs[program].link == number && self.programs[program].client.is_some() {
                self.disconnect(program);
            }
        }
        if restart {
            self.after(0, SECOND, Event::StartLink(number));
        }
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
            LinkInput::Probe => broker.probe(now),
            LinkInput::Sent(client, bytes) => broker.client_sent(client, &bytes),
            LinkInput::InputClosed(client) => broker.client_closed_input(client),
            LinkInput::Gone(client) => broker.client_gone(client),
        }
        let carried = self.carry_on(number, &mut broker, &life);
        let host = self.links[number].host;
        let over = broker.over();
        let deadline = broker.deadline().map(|at| self.time_of(at));
        self.links[number].process = Some((broker, life.clone()));
        if life.dead.get() {
            self.trace(|_| format!("link {number} dies in the middle of a step"));
            self.kill_link(number, true);
            return carried;
        }
        if self.hosts[host].disk.is_dead() {
            return carried;
        }
        if over {
            self.kill_link(number, true);
        } else if let Some(at) = deadline {
            self.wake_link(number, at);
        }
        carried
    }

    fn carry_on(&mut self, number: usize, broker: &mut Broker<SimDisk>, life: &Life) -> Checked {
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
                        Effect::Delivered { .. } => {}
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

    fn check_link(&self, number: usize, broker: &mut Broker<SimDisk>) -> Checked {
        let waits = broker.link_out().len();
        if waits > MOST_OUT {
            return Err(format!("link {number}: {waits} bytes wait for the peer"));
        }
        let status = broker.status(self.clock());
        // The one beyond the limit is the batch that reached it.
        let most = self.scenario.spool_messages;
        let sent: u64 = self.ledger.messages.len() as u64 * 4;
        if status.delayed > most || status.in_flight > sent.min(4096 + 1) {
            return Err(format!("link {number}: {} stored, {} in flight", status.delayed, status.in_flight));
        }
        Ok(())
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
        let count = out.len().min(SOCKET.saturating_sub(self.programs[receiver].socket.len()));
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
        let said = [it.line.as_slice(), &it.socket, unwritten].concat();
        for (line, (message, attempt)) in said.split(|byte| *byte == b'\n').zip(&it.open) {
            if line == b"con_failed" {
                self.ledger.messages[*message].attempts[*attempt].refused = true;
            }
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
            let early = self.programs[program].early > 0;
            if early {
                self.programs[program].early -= 1;
            } else {
                self.trace(|_| format!("program {program}: message {message} answered {line:.60}"));
                self.ledger.answered(message, attempt, &line, self.now, self.scenario.calm)?;
            }
        }
        Ok(())
    }

    /// The connection is gone; what was not answered has an unknown fate. What has a key is asked again.
    fn disconnect(&mut self, program: usize) {
        let it = &mut self.programs[program];
        it.client = None;
        it.shut = false;
        it.early = 0;
        it.unsent.clear();
        it.socket.clear();
        it.line.clear();
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
                1 if !self.scenario.calm => {
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
        let busy = self.programs.iter().enumerate().find(|(_, program)| !program.is_done());
        busy.map(|(number, program)| format!("program {number}: {program:?}"))
    }
}

/// Two CRITICAL frames, one right after the other and each whole, change places.
fn swap_criticals(bytes: &mut [u8]) {
    const HEADER: usize = 12;
    const CRITICAL: u8 = 3;
    let frame = |bytes: &[u8], at: usize| -> Option<(u8, usize)> {
        let header = bytes.get(at..at + HEADER)?;
        let end = at + HEADER + usize::from(u16::from_be_bytes([header[2], header[3]]));
        (end <= bytes.len()).then_some((header[0], end))
    };
    let mut at = 0;
    while let Some((kind, end)) = frame(bytes, at) {
        match frame(bytes, end) {
            Some((CRITICAL, last)) if kind == CRITICAL => {
                // The ids stay where they are, so that it is no fault of the wire.
                let (first, second) = (bytes[at + 4..at + 12].to_vec(), bytes[end + 4..end + 12].to_vec());
                bytes[at + 4..at + 12].copy_from_slice(&second);
                bytes[end + 4..end + 12].copy_from_slice(&first);
                bytes[at..last].rotate_left(end - at);
                return;
            }
            _ => at = end,
        }
    }
}
