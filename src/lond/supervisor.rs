//! `lond`'s supervisor: accepts, forks a child for each link, sees to it that each caller has one.
//!
//! On the secure wire a caller is known by its key, on the classic one by its address. At most
//! `max_opening` connections have callers that are not known yet; half of that is kept for
//! addresses of the table, and the oldest that says nothing gives way to a newcomer. A child whose
//! caller is not known in time is killed. A newer link of a caller replaces the older, whatever the
//! wires; when a host that had no link opens one, `lonc` is sent USR1, so that it dials back. What
//! it has in common with other supervisors is in [`supervise::daemon`].
//!
//! | file | what it owns |
//! | --- | --- |
//! | `children` | what is done with each child, as `links` says |
//! | `accept` | who is let in to a child |
//! | `callers` | whose address is whose: pure |
//! | `refusal_quota` | how often callers who are turned away are named: pure |
//! | `rivals` | hosts whose key two machines have: pure |
//! | `room` | who gives way to a newcomer; how many children there may be |
//! | `lobby` | connections that there is no room for, and that may yet say something |
//! | `door` | who gives way to whom while nobody knows who calls: pure |
//! | `names` | addresses of hosts that the table has no address of |
//! | `links` | where each child stands: pure |
//! | `listeners` | the TCP sockets |
//! | `absent` | addresses that cannot be listened on for now: pure |
//! | `greeting` | USR1 for `lonc` |
//! | `pools` | the processes that run handlers' programs |
//! | `board` | counts, status |
//! | `reload` | another configuration, in the same process |
//! | `inheritance` | HUP: another program, under the same pid |
//!
//! Fails to start when no address can be listened on; where one can be, the others are tried again
//! for ever. With no descriptors left it pauses accepting for a second.

// Whatever comes from outside, a supervisor goes on: nothing here may panic.
#![deny(clippy::indexing_slicing, clippy::string_slice)]

mod absent;
mod accept;
mod board;
mod callers;
mod children;
mod door;
mod greeting;
mod inheritance;
mod links;
mod listeners;
mod lobby;
mod log_quota;
mod names;
mod pools;
mod refusal_quota;
mod reload;
mod rivals;
mod room;

pub use greeting::GREET_PAUSE;
pub use inheritance::Own;
pub use supervise::daemon::GRACE;

use super::entry::{self, Seed};
use super::ledger::Ledger;
use super::messages::{FromServe, ToServe};
use super::settings::{Directory, ServeSettings};
use absent::Absent;
use accept::Coming;
use base::HostId;
use base::log_quota::Repeats;
use board::{Board, Seen};
use callers::Callers;
use config::Config;
use greeting::Greeting;
use jiff::{SignedDuration, Timestamp};
use links::{Event, Links};
use listeners::{ListenError, Listener, addresses};
use lobby::Lobby;
use log_quota::{HostQuotas, Visits};
use names::Names;
use net::Token;
use pools::Pools;
use refusal_quota::RefusalQuota;
use status;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use supervise::daemon::{self, DaemonError, Ground, Inheritance, Problem, Role};
use supervise::exec_state::Descriptors;
use supervise::limit::raise_descriptor_limit;
use supervise::own_key::OwnKey;
use supervise::retry::retry;
use supervise::sandbox::{self, Calls};
use supervise::startup::{self, Start};
use supervise::{publish, spawn, strays, table, title};

/// Descriptors that the supervisor needs for each child: a control socket.
const DESCRIPTORS_A_LINK: u64 = 1;

/// How long what killed programs leave may take to be gone when the supervisor stops.
const LAST_STRAYS: Duration = Duration::from_secs(2);

/// Where a child begins: [`entry::run`].
pub type Entry = fn(Seed) -> !;

type Machine<'a> = daemon::Machine<'a, Lond>;

/// The program `lond`.
pub fn main() -> ExitCode {
    startup::main("lond", |start| serve(start, entry::run))
}

/// Why `lond` cannot serve, beside what any supervisor cannot do without.
#[derive(Debug, thiserror::Error)]
enum LondError {
    /// There is no memory to share with children.
    #[error("share memory with children: {0}")]
    Memory(io::Error),
    /// Processes that programs leave behind would be nobody's.
    #[error("take in what programs leave behind: {0}")]
    Strays(io::Error),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// Serves until told to stop.
///
/// # Errors
/// As said at the head of this file, and as [`daemon::serve`].
pub fn serve(start: &mut Start<Inheritance<Own>>, entry: Entry) -> Result<(), DaemonError> {
    daemon::serve(start, |ground| Lond::open(ground, entry).map_err(Problem::from))
}

/// See the head of this file.
struct Lond {
    entry: Entry,
    /// What links are served by, and who may call.
    settings: Arc<ServeSettings>,
    directory: Arc<Directory>,
    callers: Callers,
    listeners: Vec<Listener>,
    /// What is to be listened on and cannot be.
    absent: Absent,
    links: Links,
    /// Who runs the programs of handlers.
    pools: Pools,
    /// Connections whose children are about to be forked, in this turn.
    coming: Vec<Coming>,
    /// Connections that there is no room for, and that may yet say something.
    lobby: Lobby,
    names: Names,
    /// Children that there are descriptors for.
    descriptors: usize,
    board: Board,
    voice: Voice,
    ledger: Ledger,
    greeting: Greeting,
    /// No accepting before this.
    accept_again: Option<Instant>,
    /// In this turn those that have not opened were heard already, for want of room.
    heard_unopened: bool,
    /// What the title says.
    shown: Option<usize>,
}

/// What the log was told of late, so that no crowd fills it.
struct Voice {
    /// Of callers who are turned away, of those beyond `max_opening`, and of links that cannot be
    /// started.
    refused: RefusalQuota,
    crowd: RefusalQuota,
    failures: RefusalQuota,
    /// Of links whose callers are known.
    hosts: HostQuotas,
    visits: Visits,
    /// Of descriptors that cannot be had.
    shortages: Repeats,
}

impl Default for Voice {
    fn default() -> Voice {
        Voice {
            refused: RefusalQuota::new(refusal_quota::NAMED_AGAIN),
            crowd: RefusalQuota::new(refusal_quota::SHORTAGE_AGAIN),
            failures: RefusalQuota::new(refusal_quota::SHORTAGE_AGAIN),
            hosts: HostQuotas::default(),
            visits: Visits::default(),
            shortages: Repeats::default(),
        }
    }
}

impl Lond {
    fn open(ground: Ground<'_>, entry: Entry) -> Result<Lond, LondError> {
        let Ground { config, key, registry, tokens, serves, started, now } = ground;
        sandbox::prepare(Calls::ConnectsToHandlers);
        let ledger = retry(serves, "share memory", Ledger::new).map_err(LondError::Memory)?;
        // Before the status socket: whoever finds that there takes it that this program serves.
        let wanted = if serves { &[][..] } else { &config.lond.listen };
        let (listeners, missing) = listeners::open_all(wanted, registry, tokens)?;
        let mut lond = Lond {
            entry,
            settings: Arc::new(ServeSettings::of(config)),
            directory: Arc::new(Directory::new(config.clone(), key)),
            callers: Callers::new(config, key.pin()),
            listeners,
            absent: Absent::default(),
            links: Links::default(),
            pools: Pools::default(),
            coming: Vec::new(),
            lobby: Lobby::default(),
            names: Names::default(),
            descriptors: raise_descriptor_limit(room::links_of(config), DESCRIPTORS_A_LINK),
            board: Board::new(started, now),
            voice: Voice::default(),
            ledger,
            greeting: Greeting::default(),
            accept_again: None,
            heard_unopened: false,
            shown: None,
        };
        for (address, error) in missing {
            lond.miss(address, &error, now);
        }
        // What the programs of handlers leave behind when who runs them is killed.
        strays::take_in().map_err(LondError::Strays)?;
        Ok(lond)
    }
}

impl Role for Lond {
    const PROGRAM: &'static str = "lond";
    const FILES: &'static [&'static str] = &["lond.json"];
    /// What a status tells is known here.
    const REPORTS: bool = false;
    type Key = u32;
    type Tell = ToServe;
    type Hear = FromServe;
    type Own = Own;

    fn board(&self) -> &publish::Board {
        self.board.common()
    }

    fn board_mut(&mut self) -> &mut publish::Board {
        self.board.common_mut()
    }

    fn begin(&mut self, m: &mut Machine<'_>, left: Option<(Own, Descriptors)>, now: Instant) {
        match left {
            Some((left, descriptors)) => self.adopt(m, left, descriptors, now),
            None => log::info!("started, listening on {}", addresses(&self.listeners)),
        }
        self.want_pools(m, now);
    }

    fn turn(&mut self, m: &mut Machine<'_>, now: Instant) {
        while let Some((pid, action)) = self.links.overdue(now) {
            self.act(m, pid, action, now);
        }
        self.turn_pools(m, now);
        if self.accept_again.is_none_or(|at| at <= now) {
            self.accept_again = None;
            self.accept(m, now);
        }
        self.empty_lobby(m, now);
        self.fork_coming(m, now);
        self.try_absent(m, now);
        self.greeting.greet_if_due(&m.start.config, now);
        if !m.is_stopping() && self.shown != Some(self.links.open()) {
            self.shown = Some(self.links.open());
            title::set(&format!("supervisor, {} links", self.links.open()));
        }
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        let accept = match self.accept_again {
            Some(at) => Some(at),
            None => self.listeners.iter().any(|listener| listener.ready).then_some(now),
        };
        let deadlines = [
            self.links.next_deadline(),
            self.pools.deadline(),
            accept,
            self.greeting.deadline(),
            self.absent.deadline(),
            self.lobby.deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    fn ready(&mut self, m: &mut Machine<'_>, token: Token, now: Instant) {
        if let Some(listener) = self.listeners.iter_mut().find(|listener| listener.token == token) {
            listener.ready = true;
        } else if !self.hear_names(m, token) {
            self.hear_lobby(m, token, now);
            self.fork_coming(m, now);
        }
    }

    fn probe(&mut self, m: &mut Machine<'_>, now: Instant) {
        self.say_links();
        self.hurry_pools(m, now);
    }

    fn heard(&mut self, m: &mut Machine<'_>, pid: &u32, message: FromServe, now: Instant) {
        self.told(m, *pid, message, now);
    }

    fn lost(&mut self, m: &mut Machine<'_>, pid: &u32, now: Instant) {
        let deadline = self.drain_deadline(now);
        match self.pools.name_of(*pid).cloned() {
            Some(name) => self.tell_pool(m, &name, table::Event::Lost { deadline }, now),
            None => self.tell(m, *pid, Event::Lost { deadline }, now),
        }
    }

    fn kill(&mut self, m: &mut Machine<'_>, pid: &u32, now: Instant) {
        match self.pools.name_of(*pid).cloned() {
            Some(name) => self.tell_pool(m, &name, table::Event::Kill, now),
            None => self.tell(m, *pid, Event::Kill, now),
        }
    }

    fn key_of(&self, pid: u32) -> Option<u32> {
        (self.links.get(pid).is_some() || self.pools.name_of(pid).is_some()).then_some(pid)
    }

    fn ended(&mut self, m: &mut Machine<'_>, pid: &u32, _: u32, end: spawn::End, now: Instant) {
        if let Some(name) = self.pools.name_of(*pid).cloned() {
            return self.pool_ended(m, &name, *pid, end, now);
        }
        self.say_ended(*pid, end, now);
        if self.links.get(*pid).is_some_and(|link| link.opened.is_some()) {
            self.board.changed();
        }
        self.tell(m, *pid, Event::Exited, now);
    }

    fn ended_beside(&mut self, m: &mut Machine<'_>, pid: u32, _now: Instant) -> bool {
        if self.names_ended(m, pid) {
            return true;
        }
        if self.key_of(pid).is_none() {
            // What a program has left behind may have children in its turn.
            strays::kill(|_| false);
        }
        false
    }

    fn control_name(&self, pid: &u32) -> String {
        match self.pools.name_of(*pid) {
            Some(name) => format!("handler {name}: control socket of process {pid}"),
            None => format!("{}: control socket of child {pid}", self.name(*pid)),
        }
    }

    fn log_moved(&mut self, m: &mut Machine<'_>, now: Instant) {
        let deadline = self.drain_deadline(now);
        for pid in self.pids() {
            self.tell(m, pid, links::Event::Drain { deadline }, now);
        }
    }

    fn follow_log(&mut self, m: &mut Machine<'_>, now: Instant) {
        let pids = self.pids().into_iter().chain(self.pools.pids());
        pids.collect::<Vec<_>>().iter().for_each(|pid| self.send(m, pid, &ToServe::LogAnew, now));
    }

    fn reload(
        &mut self,
        m: &mut Machine<'_>,
        config: Arc<Config>,
        key: OwnKey,
        now: Instant,
    ) -> Result<String, Vec<String>> {
        self.change(m, config, key, now)
    }

    fn keep(&mut self, m: &mut Machine<'_>, back: &mut Vec<PathBuf>, now: Instant) {
        self.keep_pools(m, back, now);
    }

    fn clock_was_set(&mut self, step: SignedDuration) {
        self.board.clock_was_set(&mut self.links, step);
    }

    fn snapshot(&self, config: &Config, _now: Timestamp) -> String {
        status::json(&self.board.snapshot(config, self.seen()))
    }

    fn files(&self, config: &Config, now: Timestamp) -> Vec<String> {
        vec![self.snapshot(config, now) + "\n"]
    }

    fn leave(&self, m: &Machine<'_>, now: Instant) -> io::Result<Own> {
        self.leave_all(m, now)
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.listeners.iter().map(AsFd::as_fd).chain(self.pools.descriptors()).collect()
    }

    fn longest_drain(&self, config: &Config) -> Duration {
        config.lond.drain_timeout
    }

    fn close_doors(&mut self, _m: &mut Machine<'_>) {
        self.listeners.drain(..).for_each(Listener::close);
        self.absent.retain(|_| false);
        self.lobby.close();
    }

    fn drain_all(&mut self, m: &mut Machine<'_>, deadline: Instant, now: Instant) {
        for pid in self.pids() {
            self.tell(m, pid, Event::Drain { deadline }, now);
        }
        self.pools.end_by(deadline);
    }

    fn kill_all(&mut self, _m: &mut Machine<'_>, now: Instant) {
        self.pools.kill_all(now);
        for pid in self.pids() {
            if self.links.tell(pid, Event::Kill).is_some() {
                spawn::kill_now(pid);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.links.is_empty() && self.pools.is_empty()
    }

    fn stopped(&mut self, _config: &Config) {
        self.pools.remove_sockets();
        if let Some(pid) = self.names.pid() {
            spawn::kill_now(pid);
        }
        for (pid, link) in self.links.iter() {
            log::error!("child {pid}, from {}, is still there", link.remote);
        }
        // Of programs whose process was killed.
        let left = strays::end_strays(LAST_STRAYS);
        if left > 0 {
            log::error!("{left} processes of handlers' programs are still there");
        }
    }
}

impl Lond {
    /// What there is to tell of.
    fn seen(&self) -> Seen<'_> {
        Seen { listeners: &self.listeners, absent: &self.absent, links: &self.links, pools: &self.pools }
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
        now + self.settings.drain_timeout + GRACE
    }
}
