//! The one machine of all supervisors: signals, clients of the status socket, control sockets,
//! reaping, HUP, reload, what others may take away, the status files, and the end. What a program
//! is beside that is its [`Role`].
//!
//! One thread, one `Poll`. A turn answers signals, does what is due because of the time, and sleeps
//! until an event or the earliest deadline; with nothing to do it looks after its files every two
//! seconds, and sleeps.
//!
//! ```text
//!            signals, clients, control sockets, ends of children
//!                               │
//!   Daemon ── what happened ──> Role ── what to do about it ──> Machine
//!                                      (poll, control sockets, status socket, tokens)
//! ```
//!
//! | file | what it owns |
//! | --- | --- |
//! | `role` | what a program is to this machine: the trait, and what follows from it |
//! | `machine` | what every role needs to do its work |
//! | `inheritance` | HUP: what a program leaves to the one that follows it under the same pid |
//! | `ending` | TERM, INT and QUIT |
//!
//! Fails to start when `Poll`, the signals or the status socket cannot be had, or the role cannot
//! do without something. Afterwards nothing is fatal but `Poll` itself: a child that floods,
//! garbles or does not read its control socket is killed.

mod ending;
mod inheritance;
mod machine;
mod role;

pub use inheritance::Inheritance;
pub use machine::{Ground, Machine, Tokens};
pub use role::{Problem, Role};

use super::admin::{About, Admin, Asked};
use super::own_key::OwnKey;
use super::places::Kept;
use super::publish::sweep;
use super::retry::retry;
use super::sandbox;
use super::signals::{Signal, Signals};
use super::startup::Start;
use super::{reload, sockets, spawn};
use base::disk::Identity;
use base::log_quota::Repeats;
use jiff::Timestamp;
use net::{Events, Interest, Poll, Token};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much longer than its own deadline a child may take to end before it is killed.
pub const GRACE: Duration = Duration::from_secs(2);
/// How long killed children may take to be gone when the supervisor stops.
pub const LAST_WAIT: Duration = Duration::from_secs(2);

const SIGNALS: Token = Token(0);
const ADMIN: Token = Token(1);
/// This one and those up to [`FIRST_FREE`] are the role's own, for sockets that it has one of.
pub const FIRST_OF_ROLE: usize = 2;
/// Tokens of children, of clients and of the role's other sockets; each is used once.
const FIRST_FREE: usize = 16;

/// Events taken at a time; what is left comes with the next.
const EVENTS: usize = 1024;

/// Why the supervisor cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// No `Poll`, or it failed.
    #[error("wait for events: {0}")]
    Poll(io::Error),
    /// Signals cannot be had.
    #[error("take signals: {0}")]
    Signals(io::Error),
    /// The status socket cannot be made.
    #[error("open the status socket: {0}")]
    Admin(io::Error),
    /// Link children cannot be confined as it is required.
    #[error("{0}")]
    Sandbox(String),
    /// This host's key cannot be used, or others may have read it.
    #[error("{0}")]
    Key(String),
    /// The role cannot do without something.
    #[error(transparent)]
    Role(Problem),
}

/// Serves in the role that `open` makes, until told to stop.
///
/// # Errors
/// As said at the head of this file.
pub fn serve<R: Role>(
    start: &mut Start<Inheritance<R::Own>>,
    open: impl FnOnce(Ground<'_>) -> Result<R, Problem>,
) -> Result<(), DaemonError> {
    let mut daemon = Daemon::new(start, open)?;
    daemon.machine.start.ready.tell();
    daemon.run()
}

struct Daemon<'a, R: Role> {
    role: R,
    machine: Machine<'a, R>,
}

impl<'a, R: Role> Daemon<'a, R> {
    fn new(
        start: &'a mut Start<Inheritance<R::Own>>,
        open: impl FnOnce(Ground<'_>) -> Result<R, Problem>,
    ) -> Result<Self, DaemonError> {
        let now = Instant::now();
        let serves = start.inheritance.is_some();
        let poll = retry(serves, "make a poll", Poll::new).map_err(DaemonError::Poll)?;
        let signals = retry(serves, "take signals", || {
            let mut signals = Signals::new()?;
            poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
            Ok(signals)
        });
        let signals = signals.map_err(DaemonError::Signals)?;
        let mut left = start.inheritance.take();
        Self::sandbox(start, serves)?;
        let key = Self::key(start, serves)?;
        let mut tokens = Tokens::from(FIRST_FREE);
        let started = left.as_ref().and_then(|(left, _)| left.started).unwrap_or_else(Timestamp::now);
        let ground = Ground {
            config: &start.config,
            key: &key,
            registry: poll.registry(),
            tokens: &mut tokens,
            serves,
            started,
            now,
        };
        let mut role = open(ground).map_err(DaemonError::Role)?;
        let admin_left = left.as_mut().and_then(|(left, descriptors)| {
            Some((left.admin.and_then(|number| descriptors.take(number))?, left.admin_mark))
        });
        let admin = Self::admin(start, &poll, serves, admin_left)?;
        role.board_mut().set_own_pin(key.pin());
        let log_folder = Identity::named(&start.config.log_dir).ok();
        let mut machine = Machine {
            start,
            poll,
            signals,
            admin,
            controls: Default::default(),
            key,
            tokens,
            scratch: vec![0; base::line::READ_SIZE],
            stopping: None,
            trouble: Repeats::default(),
            log_folder,
        };
        role.begin(&mut machine, left.map(|(left, descriptors)| (left.own, descriptors)), now);
        let mut daemon = Daemon { role, machine };
        // Of those that ended during an `exec` no signal may be left.
        daemon.reap(now);
        daemon.write_if_due();
        Ok(daemon)
    }

    /// As with the key: a program that serves already goes on, with children that do not.
    fn sandbox(start: &Start<Inheritance<R::Own>>, serves: bool) -> Result<(), DaemonError> {
        let wanted = start.config.sandbox;
        match sandbox::judge_for(R::PROGRAM, wanted) {
            Ok(there) => there.into_iter().for_each(|there| sandbox::say(wanted, there)),
            Err(problem) if serves => log::error!("{problem}; no link is served"),
            Err(problem) => return Err(DaemonError::Sandbox(problem)),
        }
        Ok(())
    }

    fn key(start: &Start<Inheritance<R::Own>>, serves: bool) -> Result<OwnKey, DaemonError> {
        // Refused at the start, where somebody looks; a program that serves already goes on.
        if !serves {
            return OwnKey::load(&start.config).map_err(|problems| DaemonError::Key(problems.join("; ")));
        }
        let (key, problem) = OwnKey::load_again(&start.config);
        problem.iter().for_each(|problem| log::error!("{problem}; no secure link can be made"));
        Ok(key)
    }

    fn admin(
        start: &Start<Inheritance<R::Own>>,
        poll: &Poll,
        serves: bool,
        mut left: Option<(std::os::fd::OwnedFd, Option<sockets::Mark>)>,
    ) -> Result<Admin<R::Key>, DaemonError> {
        let config = &start.config;
        if !serves {
            sockets::sweep(&config.run_dir);
            sweep(&config.status_dir, R::FILES);
        }
        // A descriptor that was tried is gone; then the socket is made again.
        let path = start.admin_path();
        let admin = retry(serves, "open the status socket", || {
            Admin::new(&path, left.take(), poll.registry(), ADMIN)
        });
        admin.map_err(DaemonError::Admin)
    }

    fn run(&mut self) -> Result<(), DaemonError> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            // The poll tells of signals, too; but for those whose handler was short of memory to
            // wake it.
            self.hear_signals(Instant::now());
            self.turn(Instant::now());
            let gave_up = |give_up| give_up <= Instant::now();
            if self.machine.stopping.is_some_and(|at| self.role.is_empty() || gave_up(at)) {
                self.finish();
                return Ok(());
            }
            match self.machine.poll.poll(&mut events, self.timeout(Instant::now())) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(DaemonError::Poll(error)),
            }
            let now = Instant::now();
            if let Some(step) = self.role.board_mut().see_clock(now) {
                self.role.clock_was_set(step);
            }
            for event in &events {
                self.event(event.token(), now);
            }
        }
    }

    fn event(&mut self, token: Token, now: Instant) {
        let Daemon { role, machine } = self;
        match token {
            SIGNALS => self.hear_signals(now),
            ADMIN => machine.admin.accept(machine.poll.registry(), now, || machine.tokens.fresh()),
            token if machine.admin.has(token) => self.admin_client(token, now),
            // An event of this turn may be for a socket that was closed earlier in the turn.
            token => match machine.controls.key_of(token).cloned() {
                Some(key) => role.hear(machine, &key, now),
                None => role.ready(machine, token, now),
            },
        }
    }

    /// What is to be done because of the time, or is left over from the turn before.
    fn turn(&mut self, now: Instant) {
        self.restart(now);
        if !self.machine.is_stopping() {
            self.keep_places(now);
        }
        let Daemon { role, machine } = self;
        role.turn(machine, now);
        machine.admin.accept_if_due(machine.poll.registry(), now, || machine.tokens.fresh());
        let config = &machine.start.config;
        machine.admin.turn(now, || role.snapshot(config, Timestamp::now()));
        self.write_if_due();
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        let Daemon { role, machine } = self;
        let deadlines = [
            role.deadline(now),
            machine.admin.deadline(),
            role.board().deadline(),
            machine.start.restarts.deadline(),
            machine.stopping.or(Some(machine.start.places.deadline())),
        ];
        deadlines.into_iter().flatten().min().map(|at| at.saturating_duration_since(now))
    }

    fn hear_signals(&mut self, now: Instant) {
        for signal in self.machine.signals.pending() {
            self.signal(signal, now);
        }
    }

    fn signal(&mut self, signal: Signal, now: Instant) {
        let stopping = self.machine.is_stopping();
        match signal {
            Signal::Child => self.reap(now),
            Signal::Probe if !stopping => {
                self.open_log_anew(now);
                self.role.probe(&mut self.machine, now);
                self.role.board_mut().changed();
            }
            // In its turn: the other signals that came with it must not be forgotten by an `exec`.
            Signal::Restart if !stopping => self.machine.start.restarts.want(),
            Signal::Probe | Signal::Restart => {}
            Signal::Stop if stopping => self.quit(now),
            Signal::Stop => self.stop(now),
            Signal::Quit => self.quit(now),
        }
    }

    /// The log's file may have been renamed. A child opens it again before its next line in any
    /// case; it is told, so that one with nothing to say lets go of the old one.
    fn open_log_anew(&mut self, now: Instant) {
        base::logging::open_anew();
        self.role.follow_log(&mut self.machine, now);
    }

    fn admin_client(&mut self, token: Token, now: Instant) {
        let Daemon { role, machine } = self;
        let asked = if R::REPORTS { machine.controls.keys() } else { Vec::new() };
        match machine.admin.ready(token, &mut machine.scratch, now, asked.iter().cloned()) {
            None => {}
            Some(Asked::Status(number)) => {
                asked.iter().for_each(|key| role.ask_report(machine, key, number, now));
            }
            Some(Asked::About) => {
                let within = role.longest_drain(&machine.start.config) + GRACE + LAST_WAIT;
                let about = About::this_process(R::PROGRAM, &machine.start.config, within);
                machine.admin.answer(token, &status::json(&about));
            }
            Some(Asked::Reload) => {
                let answer = self.reload(now);
                self.machine.admin.answer(token, &answer);
            }
        }
    }

    /// Takes over what the files say now; the answer to who asked for it.
    fn reload(&mut self, now: Instant) -> String {
        // Whatever the files say: the log is where it was.
        self.open_log_anew(now);
        let Daemon { role, machine } = self;
        if machine.is_stopping() {
            return reload::refused(&[format!("{} is stopping", R::PROGRAM)]);
        }
        let read = reload::read(machine.start.load, &machine.start.config)
            .and_then(|config| match sandbox::judge_for(R::PROGRAM, config.sandbox) {
                Ok(_) => Ok(config),
                Err(problem) => Err(vec![problem]),
            })
            .and_then(|config| OwnKey::load(&config).map(|key| (Arc::new(config), key)));
        let done = read.and_then(|(config, key)| role.reload(machine, config, key, now));
        match done {
            Ok(done) => {
                machine.start.restarts.forgive();
                let board = role.board_mut();
                board.set_own_pin(machine.key.pin());
                board.changed();
                reload::taken_over(&machine.start.config, &done)
            }
            Err(problems) => reload::refused(&problems),
        }
    }

    fn reap(&mut self, now: Instant) {
        let Daemon { role, machine } = self;
        while let Some((pid, end)) = spawn::reap() {
            if machine.start.restarts.ended(&machine.start.image, pid, end, now)
                || role.ended_beside(machine, pid, now)
            {
                continue;
            }
            let Some(key) = role.key_of(pid) else {
                log::debug!("process {pid}, which is no child of ours, {end}");
                continue;
            };
            // Its last words may still be unread.
            if let Err(error) = role.listen_to(machine, &key, now) {
                log::error!("{}: {error}", role.control_name(&key));
            }
            machine.close_control(&key);
            role.ended(machine, &key, pid, end, now);
        }
    }

    /// Whether another folder has come to stand in the place of the log's: then the log goes on
    /// there. Children that are confined have the one before, so that they are to be replaced.
    fn see_log_folder(&mut self, now: Instant) {
        let Daemon { role, machine } = self;
        let folder = &machine.start.config.log_dir;
        let there = Identity::named(folder).ok();
        if there.is_none() || there == machine.log_folder {
            return;
        }
        if std::mem::replace(&mut machine.log_folder, there).is_some() {
            base::logging::open_anew();
            log::warn!("{} is another folder now: the log goes on there", folder.display());
            role.follow_log(machine, now);
            role.log_moved(machine, now);
        }
    }

    /// Looks after what others may take away, if it is time: what is gone is made again, with one
    /// line for all of it. Where another program has `run_dir` by now, its sockets are left alone.
    fn keep_places(&mut self, now: Instant) {
        let machine = &mut self.machine;
        let Some(Kept { ours, mut back }) = machine.start.places.keep(&machine.start.config, now) else {
            return;
        };
        self.see_log_folder(now);
        let Daemon { role, machine } = self;
        if ours {
            machine.keep_admin(&mut back, now);
            role.keep(machine, &mut back, now);
        }
        machine.start.places.say_back(&back, now);
        role.board_mut().see_files(&machine.start.config.status_dir, R::FILES);
        role.kept(machine, now);
    }

    fn write_if_due(&mut self) {
        if self.role.board().deadline().is_some_and(|at| at <= Instant::now()) {
            self.write();
        }
    }

    fn write(&mut self) {
        let (begun, config) = (Instant::now(), &self.machine.start.config);
        let contents = self.role.files(config, Timestamp::now());
        let files: Vec<_> = R::FILES.iter().copied().zip(contents).collect();
        self.role.board_mut().write(&config.status_dir, &files, begun);
    }
}
