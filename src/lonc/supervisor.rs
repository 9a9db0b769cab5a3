//! `lonc`'s supervisor: a child for each peer, their listening sockets, signals, the status.
//!
//! Owns every listening Unix socket for as long as it runs, through any number of HUPs and reloads: a child that dies or is
//! replaced leaves its peer's socket open, and who connects meanwhile waits for the next child. A peer whose socket
//! cannot be made is an error in the log and in the status, and tried again; the others are served. One thread, one `Poll`; with
//! nothing to do it looks after its files every two seconds, and sleeps.
//!
//! Fails to start when `Poll`, the signals or the admin socket cannot be had. Afterwards nothing is fatal but
//! `Poll` itself: a child that floods, garbles or does not read its control socket is killed and started anew. What others
//! take away under it (folders, sockets, the pid file) is made again within a few seconds: `keeping`.

// Whatever comes from outside, a supervisor goes on: nothing here may panic.
#![deny(clippy::indexing_slicing, clippy::string_slice)]

mod board;
mod children;
mod keeping;
mod left;
mod listening;
mod passages;
mod reload;
mod stop;
mod watch;

pub use left::Left;

use super::entry::{self, Seed};
use super::settings::Links;
use crate::base::HostId;
use crate::base::log_quota::Repeats;
use crate::status::LinkState;
use crate::supervise::admin::{About, Admin, Asked};
use crate::supervise::control::ToLink;
use crate::supervise::insist::insist;
use crate::supervise::limit::raise_descriptor_limit;
use crate::supervise::own_key::OwnKey;
use crate::supervise::signals::{Signal, Signals};
use crate::supervise::sockets::{self, LocalSocket};
use crate::supervise::startup::{self, Start};
use crate::supervise::table::{Action, Event, State};
use crate::supervise::{spawn, title};
use board::Board;
use children::Children;
use jiff::Timestamp;
use mio::{Events, Interest, Poll, Token};
use passages::Passages;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use watch::Watch;

/// Children on their way out at a time while all are replaced: the others serve meanwhile.
pub const REPLACED_AT_ONCE: usize = 16;
/// How much longer than `drain_timeout` a child may take to end before it is killed.
pub const GRACE: Duration = Duration::from_secs(2);
/// How long killed children may take to be gone when the supervisor stops.
const LAST_WAIT: Duration = Duration::from_secs(2);
/// Children forked, told or killed in one turn of the loop, so that signals are heard while thousands start.
const ACTIONS_A_TURN: usize = 64;

/// Descriptors that the supervisor needs for each peer: its socket, a control socket, the two ends of a passage.
const DESCRIPTORS_A_PEER: u64 = 4;
/// Name of the admin socket in `run_dir`.
const ADMIN_SOCKET: &str = "lonc.sock";

const SIGNALS: Token = Token(0);
const ADMIN: Token = Token(1);
const WATCH: Token = Token(2);
/// Tokens of children and of the admin socket's clients; each is used once.
const FIRST_FREE: usize = 16;

/// Where a child begins: [`entry::run`].
pub type Entry = fn(Seed) -> !;

/// The program `lonc`.
pub fn main() -> ExitCode {
    startup::main("lonc", |start| serve(start, entry::run))
}

/// Why the supervisor cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// No `Poll`, or it failed.
    #[error("wait for events: {0}")]
    Poll(io::Error),
    /// Signals cannot be had.
    #[error("take signals: {0}")]
    Signals(io::Error),
    /// The admin socket cannot be made.
    #[error("open the status socket: {0}")]
    Admin(io::Error),
    /// This host's key cannot be used, or others may have read it.
    #[error("{0}")]
    Key(String),
}

/// Serves until told to stop.
///
/// # Errors
/// As said at the head of this file.
pub fn serve(start: &mut Start<Left>, entry: Entry) -> Result<(), SupervisorError> {
    let mut supervisor = Supervisor::new(start, entry)?;
    supervisor.start.ready.tell();
    supervisor.run()
}

/// A child with another configuration than the next one for its peer will have.
#[derive(Debug)]
struct Replace {
    peer: HostId,
    pid: u32,
    /// How long it may go on answering: by its own configuration or the next one's, whichever is longer.
    drain: Duration,
}

struct Supervisor<'a> {
    start: &'a mut Start<Left>,
    entry: Entry,
    poll: Poll,
    signals: Signals,
    children: Children,
    listeners: BTreeMap<HostId, LocalSocket>,
    /// Some peer has no socket: when it is tried again.
    listen_again: Option<Instant>,
    /// Peers whose children are yet to be told of another local socket.
    untold: BTreeSet<HostId>,
    passages: Passages,
    board: Board,
    admin: Admin,
    /// What the links depend on.
    links: Links,
    /// `None` where the system has no watch for us: `keep_watch` tries again.
    watch: Option<Watch>,
    /// Why there was none the last time, if it was said.
    watch_trouble: Option<String>,
    /// The watch has more to read than one turn's share.
    watch_again: bool,
    /// Children that are to be replaced, if they have not ended before.
    replacing: VecDeque<Replace>,
    /// The supervisor was told to stop; by then it gives up waiting for children.
    stopping: Option<Instant>,
    next_token: usize,
    scratch: Vec<u8>,
    /// What could not be made again of what had gone.
    trouble: Repeats,
}

impl<'a> Supervisor<'a> {
    fn new(start: &'a mut Start<Left>, entry: Entry) -> Result<Self, SupervisorError> {
        let now = Instant::now();
        let anew = start.legacy.is_some();
        let poll = insist(anew, "make a poll", Poll::new).map_err(SupervisorError::Poll)?;
        let signals = insist(anew, "take signals", || {
            let mut signals = Signals::new()?;
            poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
            Ok(signals)
        });
        let signals = signals.map_err(SupervisorError::Signals)?;
        let (left, mut descriptors) = match start.legacy.take() {
            Some((left, descriptors)) => (Some(left), Some(descriptors)),
            None => (None, None),
        };
        let mut take = |number| descriptors.as_mut().and_then(|left| left.take(number));
        let config = &start.config;
        raise_descriptor_limit(config.peers.len(), DESCRIPTORS_A_PEER);
        // Refused at the start, where somebody looks; a program that serves already goes on.
        let key = if left.is_none() {
            OwnKey::load(config).map_err(|problems| SupervisorError::Key(problems.join("; ")))?
        } else {
            let (key, problem) = OwnKey::load_again(config);
            problem.iter().for_each(|problem| log::error!("{problem}; no secure link can be made"));
            key
        };
        let admin_fd = left.as_ref().and_then(|left| left.admin).and_then(&mut take);
        let mut admin_left = admin_fd.zip(left.as_ref().map(|left| left.admin_mark));
        if !anew {
            sockets::sweep(&config.run_dir);
            board::sweep(&config.status_dir);
        }
        // A descriptor that was tried is gone; then the socket is made anew.
        let admin_path = config.run_dir.join(ADMIN_SOCKET);
        let admin = insist(anew, "open the status socket", || {
            Admin::new(&admin_path, admin_left.take(), poll.registry(), ADMIN)
        });
        let admin = admin.map_err(SupervisorError::Admin)?;
        let left_watch = left.as_ref().and_then(|left| left.watch);
        let watch = left_watch.and_then(|left| {
            Watch::take_over(left, &mut take, &config.spool_dir, poll.registry(), WATCH)
                .inspect_err(|error| {
                    log::warn!("watch {}: {error}; watched anew", config.spool_dir.display())
                })
                .ok()
        });
        let started = left.as_ref().map_or_else(Timestamp::now, |left| left.started);
        let mut board = Board::new(config, started, now);
        board.set_own_pin(key.pin());
        let links = Links::new(config.clone(), key);
        let mut supervisor = Supervisor {
            start,
            entry,
            poll,
            signals,
            children: Children::default(),
            listeners: BTreeMap::new(),
            listen_again: None,
            untold: BTreeSet::new(),
            trouble: Repeats::default(),
            passages: Passages::default(),
            board,
            admin,
            links,
            watch,
            watch_trouble: None,
            watch_again: false,
            replacing: VecDeque::new(),
            stopping: None,
            next_token: FIRST_FREE,
            scratch: vec![0; crate::base::line::READ_SIZE],
        };
        if let Some(left) = left {
            supervisor.adopt(left, take, now);
        }
        supervisor.listen_where_missing(now);
        supervisor.keep_watch(now);
        // Said when every socket is there: whoever waits for this line finds them.
        if !anew {
            let links = supervisor.start.config.peers.len();
            log::info!("started, {links} link{}", if links == 1 { "" } else { "s" });
        }
        // Of those that ended during an `exec` no signal may be left.
        supervisor.reap(now);
        supervisor.board.write_if_due();
        title::set(supervisor.board.doing());
        Ok(supervisor)
    }

    fn run(&mut self) -> Result<(), SupervisorError> {
        let mut events = Events::with_capacity(1024);
        loop {
            // The poll tells of signals, too; but for those whose handler was short of memory to wake it.
            self.hear_signals(Instant::now());
            self.turn(Instant::now());
            if self.stopping.is_some_and(|give_up| self.children.is_empty() || give_up <= Instant::now()) {
                self.finish();
                return Ok(());
            }
            match self.poll.poll(&mut events, self.timeout(Instant::now())) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(SupervisorError::Poll(error)),
            }
            let now = Instant::now();
            self.board.see_clock(now);
            for event in &events {
                match event.token() {
                    SIGNALS => self.hear_signals(now),
                    ADMIN => {
                        let token = &mut self.next_token;
                        self.admin.accept(self.poll.registry(), now, || next(token));
                    }
                    WATCH => self.watch_again = true,
                    token if self.admin.has(token) => self.admin_client(token, now),
                    token => self.hear(token, now),
                }
            }
        }
    }

    /// What is to be done because of the time, or is left over from the turn before.
    fn turn(&mut self, now: Instant) {
        self.restart(now);
        if self.stopping.is_none() {
            self.keep_places(now);
        }
        if self.watch_again {
            self.look_for_files(now);
        }
        if self.listen_again.is_some_and(|at| at <= now) {
            self.listen_where_missing(now);
        }
        while !self.replacing.is_empty() && self.children.leaving() < REPLACED_AT_ONCE {
            let Some(Replace { peer, pid, drain }) = self.replacing.pop_front() else { break };
            if self.children.table.key_of(pid) == Some(&peer) {
                let deadline = now + drain + GRACE;
                self.tell(&peer, Event::Drain { deadline }, now);
            }
        }
        for _ in 0..ACTIONS_A_TURN {
            let Some((peer, action)) = self.children.table.due(now) else { break };
            self.act(&peer, action, now);
        }
        let token = &mut self.next_token;
        self.admin.accept_if_due(self.poll.registry(), now, || next(token));
        let board = &self.board;
        self.admin.turn(now, || crate::status::json(&board.snapshot(Timestamp::now())));
        self.board.write_if_due();
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        if self.watch_again {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.children.table.next_deadline(),
            self.admin.deadline(),
            self.board.deadline(),
            self.start.restarts.deadline(),
            self.listen_again,
            self.stopping.or(Some(self.start.places.deadline())),
        ];
        deadlines.into_iter().flatten().min().map(|at| at.saturating_duration_since(now))
    }

    fn hear_signals(&mut self, now: Instant) {
        for signal in self.signals.pending() {
            self.signal(signal, now);
        }
    }

    fn signal(&mut self, signal: Signal, now: Instant) {
        match signal {
            Signal::Child => self.reap(now),
            Signal::Probe => self.probe(now),
            // In its turn: the other signals that came with it must not be forgotten by an `exec`.
            Signal::Restart if self.stopping.is_none() => self.start.restarts.want(),
            Signal::Restart => {}
            Signal::Stop if self.stopping.is_some() => self.quit(now),
            Signal::Stop => self.stop(now),
            Signal::Quit => self.quit(now),
        }
    }

    /// Every link is seen after now: those that wait for a child get it, the others a probe.
    fn probe(&mut self, now: Instant) {
        if self.stopping.is_some() {
            return;
        }
        self.open_log_anew(now);
        log::info!("seeing after every link");
        self.listen_where_missing(now);
        for peer in self.children.keys() {
            self.tell(&peer, Event::Hurry, now);
            self.send(&peer, &ToLink::Probe, now);
        }
        self.board.touch();
    }

    /// The log's file may have been renamed. A child opens it anew before its next line in any case; it is told, so that one
    /// with nothing to say lets go of the old one.
    fn open_log_anew(&mut self, now: Instant) {
        crate::base::logging::open_anew();
        for peer in self.children.keys() {
            self.send(&peer, &ToLink::LogAnew, now);
        }
    }

    fn tell(&mut self, peer: &HostId, event: Event, now: Instant) {
        if let Some(action) = self.children.table.tell(peer, event, now) {
            self.act(peer, action, now);
        }
    }

    fn act(&mut self, peer: &HostId, action: Action, now: Instant) {
        match action {
            Action::Start => match self.fork(peer) {
                Ok(pid) => {
                    self.tell(peer, Event::Started { pid }, now);
                    self.board.starting(peer, pid);
                }
                Err(error) => {
                    log::error!("{peer}: start a child: {error}; tried again later");
                    let doing = "no child could be started";
                    let error = Some(format!("start a child: {error}"));
                    self.board.unserved(peer, LinkState::Starting, doing, error, Timestamp::now());
                    self.tell(peer, Event::StartFailed, now);
                }
            },
            Action::TellHandOver if self.passages.has(peer) => self.send(peer, &ToLink::HandOver, now),
            Action::TellDrain | Action::TellHandOver => self.send(peer, &ToLink::Drain, now),
            Action::Kill(pid) => {
                log::warn!("{peer}: killing child {pid}: it did not end or answer in time");
                spawn::kill_now(pid);
            }
        }
    }

    fn fork(&mut self, id: &HostId) -> io::Result<u32> {
        let (Some(settings), Some(listener)) = (self.links.of(id), self.listeners.get(id)) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it has no socket"));
        };
        let (pins, listener) = (self.links.pins(id).into_iter().collect(), listener.listener().try_clone()?);
        let passage = self.passages.for_child(id)?;
        let token = next(&mut self.next_token);
        let control = self.children.open_control(id, token, self.poll.registry())?;
        self.untold.remove(id);
        let mut keep = vec![listener.as_raw_fd(), control.as_raw_fd()];
        keep.extend(passage.ends().map(|end| end.as_raw_fd()));
        let entry = self.entry;
        let forked = spawn::spawn(keep, move || {
            crate::base::logging::set_host(settings.peer.host.id.as_str());
            title::set(&format!("{} starting", settings.peer.host.id));
            entry(Seed { settings, pins, listener, control, passage })
        });
        if forked.is_err() {
            self.children.close_control(id, self.poll.registry());
        }
        forked
    }

    /// Sends through the child's control socket. A child that does not read there is killed.
    fn send(&mut self, peer: &HostId, message: &ToLink, now: Instant) {
        if let Err(error) = self.children.send(peer, message) {
            self.broken(peer, &error, now);
        }
    }

    fn broken(&mut self, peer: &HostId, error: &io::Error, now: Instant) {
        log::error!("{peer}: control socket: {error}");
        self.children.close_control(peer, self.poll.registry());
        self.admin.reported(peer, u64::MAX);
        self.tell(peer, Event::Kill, now);
    }

    /// A child's control socket is ready.
    fn hear(&mut self, token: Token, now: Instant) {
        // An event of this turn may be for a socket that was closed earlier in the turn.
        let Some(peer) = self.children.peer_of(token).cloned() else { return };
        match self.listen_to(&peer) {
            Ok(false) => {}
            Ok(true) => {
                self.children.close_control(&peer, self.poll.registry());
                self.admin.reported(&peer, u64::MAX);
                let deadline = self.drain_deadline(&peer, now);
                self.tell(&peer, Event::Lost { deadline }, now);
            }
            Err(error) => self.broken(&peer, &error, now),
        }
    }

    /// Takes in what the child says; whether it has closed the socket.
    fn listen_to(&mut self, peer: &HostId) -> io::Result<bool> {
        let (reports, closed) = self.children.hear(peer, &mut self.scratch)?;
        for (number, status) in reports {
            self.board.note(status);
            if let Some(number) = number {
                self.admin.reported(peer, number);
            }
        }
        Ok(closed)
    }

    fn admin_client(&mut self, token: Token, now: Instant) {
        let asked = self.children.with_control();
        match self.admin.ready(token, &mut self.scratch, now, asked) {
            None => {}
            Some(Asked::Status(number)) => {
                for peer in self.children.with_control().collect::<Vec<_>>() {
                    self.send(&peer, &ToLink::Report(number), now);
                }
            }
            Some(Asked::About) => {
                let about = About::this_process("lonc", &self.start.config, self.stops_within());
                self.admin.answer(token, &crate::status::json(&about));
            }
            Some(Asked::Reload) => {
                let answer = self.reload(now);
                self.admin.answer(token, &answer);
            }
        }
    }

    fn reap(&mut self, now: Instant) {
        while let Some((pid, end)) = spawn::reap() {
            if self.start.restarts.ended(&self.start.image, pid, end, now) {
                continue;
            }
            let Some(peer) = self.children.table.key_of(pid).cloned() else {
                log::debug!("process {pid}, which is no child of ours, {end}");
                continue;
            };
            // Its last words may still be unread.
            if let Err(error) = self.listen_to(&peer) {
                log::error!("{peer}: control socket: {error}");
            }
            self.children.close_control(&peer, self.poll.registry());
            self.admin.reported(&peer, u64::MAX);
            self.tell(&peer, Event::Exited, now);
            self.say_ended(&peer, pid, end, now);
        }
    }

    fn say_ended(&mut self, peer: &HostId, pid: u32, end: spawn::End, now: Instant) {
        let next = match self.children.table.state(peer) {
            Some(State::Waiting { start_at }) => match start_at.saturating_duration_since(now) {
                Duration::ZERO => "starting anew".to_owned(),
                pause => format!("starting anew in {pause:.1?}"),
            },
            Some(State::Running { .. } | State::Draining { .. } | State::Killed { .. }) | None => {
                "stopped".to_owned()
            }
        };
        let error = match end {
            spawn::End::Exited(0) => {
                log::info!("{peer}: child {pid} ended; {next}");
                None
            }
            spawn::End::Exited(_) | spawn::End::Killed(_) => {
                log::warn!("{peer}: child {pid} {end}; {next}");
                Some(format!("the child {end}"))
            }
        };
        self.board.unserved(peer, LinkState::Starting, &next, error, Timestamp::now());
    }

    fn drain_deadline(&self, peer: &HostId, now: Instant) -> Instant {
        now + self.drain_timeout(peer) + GRACE
    }

    fn drain_timeout(&self, peer: &HostId) -> Duration {
        self.start.config.peer(peer).map(|peer| peer.drain_timeout).unwrap_or_default()
    }
}

fn next(token: &mut usize) -> Token {
    *token += 1;
    Token(*token)
}
