//! `lond`'s supervisor: accepts, forks a child for each link, sees to it that each caller has one.
//!
//! On the secure wire a caller is known by its key, on the classic one by its address. At most `max_opening`
//! connections have callers that are not known yet; half of that is kept for addresses of the table, and the oldest that
//! says nothing gives way to a newcomer. A child whose caller is not known in time is killed. A newer link of a caller replaces the older, whatever the wires; when a host that had
//! no link opens one, `lonc` is sent USR1, so that it dials back.
//! One thread, one `Poll`; with nothing to do it looks after its files every two seconds, and sleeps.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `accept` | who is let in to a child |
//! | `callers` | whose address is whose: pure |
//! | `hush` | how often callers who are turned away are named: pure |
//! | `rivals` | hosts whose key two machines have: pure |
//! | `room` | who gives way to a newcomer; how many children there may be |
//! | `lobby` | connections that there is no room for, and that may yet say something |
//! | `door` | who gives way to whom while nobody knows who calls: pure |
//! | `names` | addresses of hosts that the table has no address of |
//! | `links` | where each child stands: pure |
//! | `listeners` | the TCP sockets |
//! | `absent` | addresses that cannot be listened on for now: pure |
//! | `board` | counts, status |
//! | `keeping` | what others may take away under it |
//! | `reload` | another configuration, in the same process |
//! | `left` | HUP: another program, under the same pid |
//! | `stop` | TERM, INT and QUIT |
//!
//! Fails to start when no address can be listened on, or the admin socket not be made; where one can be, the others are tried
//! again for ever. Afterwards nothing is fatal but `Poll` itself: with no
//! descriptors left it pauses accepting for a second; a child that garbles its control socket is killed.

// Whatever comes from outside, a supervisor goes on: nothing here may panic.
#![deny(clippy::indexing_slicing, clippy::string_slice)]

mod absent;
mod accept;
mod board;
mod callers;
mod door;
mod hush;
mod keeping;
mod left;
mod links;
mod listeners;
mod lobby;
mod names;
mod reload;
mod rivals;
mod room;
mod said;
mod stop;

pub use left::Left;

use super::entry::{self, Seed};
use super::ledger::Ledger;
use super::settings::{Directory, ServeSettings};
use crate::base::HostId;
use crate::base::log_quota::Repeats;
use crate::net::listen::only_v6;
use crate::status;
use crate::supervise::admin::{About, Admin, Asked};
use crate::supervise::control::{Channel, FromServe, ToServe};
use crate::supervise::insist::insist;
use crate::supervise::limit::raise_descriptor_limit;
use crate::supervise::own_key::OwnKey;
use crate::supervise::signals::{Signal, Signals};
use crate::supervise::startup::{self, Start};
use crate::supervise::{lock, sockets, spawn, title};
use absent::Absent;
use board::{Board, Seen};
use callers::Callers;
use hush::Hush;
use jiff::Timestamp;
use links::{Action, Event, Links, Opened, State};
use listeners::{ListenError, Listener};
use lobby::Lobby;
use mio::{Events, Interest, Poll, Token};
use names::Names;
use said::{Said, Visits};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much longer than its own deadline a child may take before it is killed.
pub const GRACE: Duration = Duration::from_secs(2);
/// `lonc` is not signalled more often than this.
pub const GREET_PAUSE: Duration = Duration::from_secs(1);
/// How long killed children may take to be gone when the supervisor stops.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Descriptors that the supervisor needs for each child: a control socket.
const DESCRIPTORS_A_LINK: u64 = 1;
/// Name of the admin socket in `run_dir`.
const ADMIN_SOCKET: &str = "lond.sock";

const SIGNALS: Token = Token(0);
const ADMIN: Token = Token(1);
/// Tokens of listeners, children and of the admin socket's clients; each is used once.
const FIRST_FREE: usize = 16;

/// Where a child begins: [`entry::run`].
pub type Entry = fn(Seed) -> !;

/// The program `lond`.
pub fn main() -> ExitCode {
    startup::main("lond", |start| serve(start, entry::run))
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
    /// There is no memory to share with children.
    #[error("share memory with children: {0}")]
    Memory(io::Error),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
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

struct Supervisor<'a> {
    start: &'a mut Start<Left>,
    entry: Entry,
    poll: Poll,
    signals: Signals,
    listeners: Vec<Listener>,
    /// What is to be listened on and cannot be.
    absent: Absent,
    links: Links,
    /// From just before the fork until the child closes it, breaks it or is reaped.
    controls: BTreeMap<u32, (Token, Channel<ToServe, FromServe>)>,
    /// The pids of `controls`.
    tokens: HashMap<Token, u32>,
    callers: Callers,
    /// Connections that there is no room for, and that may yet say something.
    lobby: Lobby,
    names: Names,
    /// Children that there are descriptors for.
    descriptors: usize,
    /// What links are served by, and who may call.
    settings: Arc<ServeSettings>,
    directory: Arc<Directory>,
    /// This host's own key.
    key: OwnKey,
    admin: Admin,
    board: Board,
    /// What is said of callers who are turned away, of those beyond `max_opening`, and of links that cannot be started.
    refused: Hush,
    crowd: Hush,
    failures: Hush,
    /// What is said of links whose callers are known.
    said: Said,
    visits: Visits,
    /// What is said of descriptors that cannot be had.
    shortages: Repeats,
    ledger: Ledger,
    /// No accepting before this.
    accept_again: Option<Instant>,
    /// In this turn those that have not opened were heard already, for want of room.
    heard_unopened: bool,
    /// `lonc` is to be signalled then.
    greet_at: Option<Instant>,
    last_greeting: Option<Instant>,
    /// The supervisor was told to stop; by then it gives up waiting for children.
    stopping: Option<Instant>,
    next_token: usize,
    /// What the title says.
    shown: Option<usize>,
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
        let ledger = insist(anew, "share memory", Ledger::new).map_err(SupervisorError::Memory)?;
        let (left, mut descriptors) = match start.legacy.take() {
            Some((left, descriptors)) => (Some(left), Some(descriptors)),
            None => (None, None),
        };
        let config = &start.config;
        // Refused at the start, where somebody looks; a program that serves already goes on.
        let key = if left.is_none() {
            OwnKey::load(config).map_err(|problems| SupervisorError::Key(problems.join("; ")))?
        } else {
            let (key, problem) = OwnKey::load_again(config);
            problem.iter().for_each(|problem| log::error!("{problem}; the secure wire is not served"));
            key
        };
        let (mut next_token, mut listeners, mut missing) = (FIRST_FREE, Vec::new(), Vec::new());
        if left.is_none() {
            // Before the status socket: whoever finds that there takes it that this program serves.
            for address in &config.lond.listen {
                let (token, alone) = (next(&mut next_token), only_v6(*address, &config.lond.listen));
                match Listener::open(*address, alone, token, poll.registry()) {
                    Ok(listener) => listeners.push(listener),
                    Err(error) => missing.push((*address, error)),
                }
            }
            // Who starts a program sees at once that it serves nobody; who has it started again and again need not.
            if listeners.is_empty() && !missing.is_empty() {
                return Err(missing.remove(0).1.into());
            }
        }
        let admin_fd = left.as_ref().and_then(|left: &Left| left.admin);
        let admin_fd = admin_fd.and_then(|number| descriptors.as_mut()?.take(number));
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
        let started = left.as_ref().and_then(|left| left.started).unwrap_or_else(Timestamp::now);
        let counts = left.as_ref().map(|left| left.counts).unwrap_or_default();
        let callers = Callers::new(config, key.pin());
        let most_links = raise_descriptor_limit(room::links_of(config), DESCRIPTORS_A_LINK);
        let mut board = Board::new(started, counts, now);
        board.set_own_pin(key.pin());
        let settings = Arc::new(ServeSettings::of(config));
        let directory = Arc::new(Directory::new(config.clone(), &key));
        let mut supervisor = Supervisor {
            start,
            entry,
            poll,
            signals,
            listeners,
            absent: Absent::default(),
            links: Links::default(),
            controls: BTreeMap::new(),
            tokens: HashMap::new(),
            callers,
            lobby: Lobby::default(),
            names: Names::default(),
            descriptors: most_links,
            settings,
            directory,
            key,
            admin,
            board,
            refused: Hush::new(hush::NAMED_AGAIN),
            crowd: Hush::new(hush::SHORTAGE_AGAIN),
            failures: Hush::new(hush::SHORTAGE_AGAIN),
            said: Said::default(),
            visits: Visits::default(),
            shortages: Repeats::default(),
            ledger,
            accept_again: None,
            heard_unopened: false,
            greet_at: None,
            last_greeting: None,
            stopping: None,
            next_token,
            shown: None,
            scratch: vec![0; crate::base::line::READ_SIZE],
            trouble: Repeats::default(),
        };
        match left.zip(descriptors) {
            Some((left, descriptors)) => supervisor.adopt(left, descriptors, now),
            None => {
                for (address, error) in missing {
                    supervisor.miss(address, &error, now);
                }
                log::info!("started, listening on {}", addresses(&supervisor.listeners));
            }
        }
        // Of those that ended during an `exec` no signal may be left.
        supervisor.reap();
        Ok(supervisor)
    }

    fn run(&mut self) -> Result<(), SupervisorError> {
        let mut events = Events::with_capacity(1024);
        loop {
            // The poll tells of signals, too; but for those whose handler was short of memory to wake it.
            self.hear_signals(Instant::now());
            self.turn(Instant::now());
            if self.stopping.is_some_and(|give_up| self.links.is_empty() || give_up <= Instant::now()) {
                self.finish();
                return Ok(());
            }
            match self.poll.poll(&mut events, self.timeout(Instant::now())) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(SupervisorError::Poll(error)),
            }
            let now = Instant::now();
            self.board.see_clock(&mut self.links, now);
            for event in &events {
                match event.token() {
                    SIGNALS => self.hear_signals(now),
                    ADMIN => {
                        let token = &mut self.next_token;
                        self.admin.accept(self.poll.registry(), now, || next(token));
                    }
                    token if self.admin.has(token) => self.admin_client(token, now),
                    token => match self.listeners.iter_mut().find(|listener| listener.token == token) {
                        Some(listener) => listener.ready = true,
                        None => self.hear(token, now),
                    },
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
        while let Some((pid, action)) = self.links.overdue(now) {
            self.act(pid, action, now);
        }
        if self.accept_again.is_none_or(|at| at <= now) {
            self.accept_again = None;
            self.accept(now);
        }
        self.empty_lobby(now);
        self.try_absent(now);
        if self.greet_at.is_some_and(|at| at <= now) {
            self.signal_lonc(now);
        }
        let token = &mut self.next_token;
        self.admin.accept_if_due(self.poll.registry(), now, || next(token));
        let (board, config) = (&mut self.board, &self.start.config);
        let seen = Seen { listeners: &self.listeners, absent: &self.absent, links: &self.links };
        self.admin.turn(now, || status::json(&board.snapshot(config, seen)));
        board.write_if_due(config, seen);
        if self.stopping.is_none() && self.shown != Some(self.links.open()) {
            self.shown = Some(self.links.open());
            title::set(&format!("supervisor, {} links", self.links.open()));
        }
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        let accept = match self.accept_again {
            Some(at) => Some(at),
            None => self.listeners.iter().any(|listener| listener.ready).then_some(now),
        };
        let deadlines = [
            self.links.next_deadline(),
            accept,
            self.greet_at,
            self.absent.deadline(),
            self.lobby.deadline(),
            self.admin.deadline(),
            self.board.deadline(),
            self.start.restarts.deadline(),
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
            Signal::Child => self.reap(),
            Signal::Probe => {
                self.open_log_anew(now);
                self.say_links();
                self.board.touch();
            }
            // In its turn: the other signals that came with it must not be forgotten by an `exec`.
            Signal::Restart if self.stopping.is_none() => self.start.restarts.want(),
            Signal::Restart => {}
            Signal::Stop if self.stopping.is_some() => self.quit(now),
            Signal::Stop => self.stop(now),
            Signal::Quit => self.quit(now),
        }
    }

    fn tell(&mut self, pid: u32, event: Event, now: Instant) {
        if let Some(action) = self.links.tell(pid, event) {
            self.act(pid, action, now);
        }
    }

    fn act(&mut self, pid: u32, action: Action, now: Instant) {
        match action {
            Action::Greet(_) => {
                self.say_life(pid, &format!("link open, child {pid}"), now);
                let soonest = self.last_greeting.map_or(now, |last| (last + GREET_PAUSE).max(now));
                self.greet_at = Some(soonest);
            }
            Action::Supersede(older) => {
                self.say_superseded(pid, older, now);
                let deadline = self.drain_deadline(now);
                self.tell(older, Event::Replace { deadline }, now);
                self.bound_children_of(pid, now);
            }
            Action::TellReplaced => self.send(pid, &ToServe::Replaced, now),
            Action::TellDrain => self.send(pid, &ToServe::Drain, now),
            Action::Kill => {
                self.say_killed(pid, now);
                spawn::kill_now(pid);
            }
        }
    }

    fn send(&mut self, pid: u32, message: &ToServe, now: Instant) {
        let Some((_, channel)) = self.controls.get_mut(&pid) else { return };
        if let Err(error) = channel.send(message) {
            self.broken(pid, &error, now);
        }
    }

    fn broken(&mut self, pid: u32, error: &io::Error, now: Instant) {
        log::error!("{}: control socket of child {pid}: {error}", self.name(pid));
        self.close_control(pid);
        self.tell(pid, Event::Kill, now);
    }

    /// A child's control socket is ready.
    pub(super) fn hear(&mut self, token: Token, now: Instant) {
        // An event of this turn may be for a socket that was closed earlier in the turn.
        if self.hear_names(token) || self.hear_lobby(token, now) {
            return;
        }
        let Some(pid) = self.tokens.get(&token).copied() else { return };
        match self.listen_to(pid, now) {
            Ok(false) => {}
            Ok(true) => {
                self.close_control(pid);
                let deadline = self.drain_deadline(now);
                self.tell(pid, Event::Lost { deadline }, now);
            }
            Err(error) => self.broken(pid, &error, now),
        }
    }

    /// Takes in what the child says; whether it has closed the socket.
    fn listen_to(&mut self, pid: u32, now: Instant) -> io::Result<bool> {
        let Some((_, channel)) = self.controls.get_mut(&pid) else { return Ok(false) };
        channel.flush()?;
        let received = channel.receive(&mut self.scratch)?;
        for message in received.messages {
            match message {
                FromServe::Handlers(handlers) => {
                    if self.links.handlers(pid, handlers) {
                        self.board.touch();
                    }
                }
                FromServe::Spoke => self.tell(pid, Event::Spoke, now),
                FromServe::Opened { caller, pin, own_pin, wire } => {
                    if let Some(link) = self.links.get(pid) {
                        self.names.called(&caller, link.remote.ip());
                    }
                    let opened = Opened { wire, pin, own_pin, since: Timestamp::now() };
                    self.board.saw(&caller, opened.wire, opened.since);
                    self.tell(pid, Event::Opened(caller, opened), now);
                }
                FromServe::Closed { why, fault } => self.say_closed(pid, &why, fault, now),
                FromServe::Refused { why, key } => self.handshake_refused(pid, &why, key.as_deref(), now),
            }
        }
        Ok(received.closed)
    }

    fn close_control(&mut self, pid: u32) {
        let Some((token, mut channel)) = self.controls.remove(&pid) else { return };
        self.tokens.remove(&token);
        // Closing alone would do, but for a moment a child just forked may hold a copy.
        if let Err(error) = self.poll.registry().deregister(&mut channel) {
            log::debug!("deregister the control socket of {pid}: {error}");
        }
    }

    /// A host that was away is back: `lonc` shall not wait with its own dialling.
    fn signal_lonc(&mut self, now: Instant) {
        (self.greet_at, self.last_greeting) = (None, Some(now));
        let file = startup::pid_file("lonc", &self.start.config);
        if let Some(pid) = lock::running_pid(&file)
            && !spawn::send(pid, nix::sys::signal::Signal::SIGUSR1)
        {
            log::warn!("signal lonc, process {pid}: refused; it will dial in its own time");
        }
    }

    fn reap(&mut self) {
        let now = Instant::now();
        while let Some((pid, end)) = spawn::reap() {
            if self.start.restarts.ended(&self.start.image, pid, end, now) {
                continue;
            }
            if self.names_ended(pid) {
                continue;
            }
            // Its last words may still be unread.
            if let Err(error) = self.listen_to(pid, now) {
                log::error!("{}: control socket of child {pid}: {error}", self.name(pid));
            }
            self.close_control(pid);
            self.say_ended(pid, end, now);
            if self.links.get(pid).is_some_and(|link| link.opened.is_some()) {
                self.board.touch();
            }
            self.tell(pid, Event::Exited, now);
        }
    }

    fn admin_client(&mut self, token: Token, now: Instant) {
        // The children need not be asked: what a status tells is known here.
        match self.admin.ready(token, &mut self.scratch, now, std::iter::empty()) {
            None | Some(Asked::Status(_)) => {}
            Some(Asked::About) => {
                let within = self.start.config.lond.drain_timeout + GRACE + LAST_WAIT;
                let about = About::this_process("lond", &self.start.config, within);
                self.admin.answer(token, &status::json(&about));
            }
            Some(Asked::Reload) => {
                let answer = self.reload(now);
                self.admin.answer(token, &answer);
            }
        }
    }

    /// The log's file may have been renamed. A child opens it anew before its next line in any case; it is told, so that one
    /// with nothing to say lets go of the old one.
    fn open_log_anew(&mut self, now: Instant) {
        crate::base::logging::open_anew();
        for pid in self.pids() {
            self.send(pid, &ToServe::LogAnew, now);
        }
    }

    fn say_links(&self) {
        log::info!("{} links, {} in the opening dialogue", self.links.open(), self.links.unopened());
        for (pid, link) in self.links.iter() {
            let state = match link.state {
                State::Opening { .. } => "opening",
                State::Open => "open",
                State::Ending { .. } => "ending",
                State::Killed => "killed",
            };
            log::info!("{}: {state}, from {}, child {pid}", self.name(pid), link.remote);
        }
    }

    fn pids(&self) -> Vec<u32> {
        self.links.iter().map(|(pid, _)| pid).collect()
    }

    /// How the log names the caller that this child serves.
    fn name(&self, pid: u32) -> String {
        match self.links.get(pid) {
            Some(link) => link.caller.as_ref().map_or_else(|| link.remote.to_string(), HostId::to_string),
            None => "unknown".to_owned(),
        }
    }

    fn drain_deadline(&self, now: Instant) -> Instant {
        now + self.start.config.lond.drain_timeout + GRACE
    }
}

fn addresses(listeners: &[Listener]) -> String {
    listeners.iter().map(|listener| listener.address.to_string()).collect::<Vec<_>>().join(", ")
}

fn next(token: &mut usize) -> Token {
    *token += 1;
    Token(*token)
}
