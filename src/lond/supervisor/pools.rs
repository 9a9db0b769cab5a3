//! The process of each handler that runs its program ([`crate::pool`]), and the socket where link
//! children find it.
//!
//! The socket is made here and passed on at the fork, and stays when the process ends: who connects
//! meanwhile waits for the next one. A process is started again with growing pauses; HUP replaces
//! all, a few at a time, and a reload those whose handler has changed. At the end they are told
//! when no link child is left that could need them.
//!
//! What a process that is killed leaves of its programs comes to the supervisor, and is killed
//! ([`supervise::strays`]).

use super::{GRACE, Lond, Machine};
use crate::messages::ToServe;
use crate::pool::{self, Seed, Settings};
use base::json_path::JsonPath;
use config::Config;
use serde::{Deserialize, Serialize};
use status::{HandlerStatus, ProgramStatus};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use supervise::daemon::Role;
use supervise::exec_state::Descriptors;
use supervise::sockets::{LocalSocket, Mark};
use supervise::table::{self, Action, Event, State, Table};
use supervise::{control, spawn, strays};

/// Processes on their way out at a time while all are replaced.
const REPLACED_AT_ONCE: usize = 4;
/// Pause before sockets that could not be made are tried again.
const LISTEN_PAUSE: Duration = Duration::from_secs(2);
/// How much longer than a link a process may take at the end: as long as it takes to kill what its
/// programs have started.
const POOL_GRACE: Duration = Duration::from_secs(1);
/// Permission bits of a socket, and of the folder that they are in.
const SOCKET_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Pools {
    table: Table<String>,
    known: BTreeMap<String, Known>,
    /// Processes that are to be replaced, if they have not ended before.
    replacing: VecDeque<(String, u32)>,
    /// Some handler has no socket: when it is tried again.
    again: Option<Instant>,
    /// Those that are yet to be told of another socket.
    untold: BTreeSet<String>,
    /// The program ends, and kills them by then.
    ends: Option<Instant>,
}

/// What is known of one.
#[derive(Debug)]
struct Known {
    settings: Settings,
    socket: Option<LocalSocket>,
    /// What its process has told.
    status: HandlerStatus,
    /// What those before it have told.
    before: HandlerStatus,
}

/// What of it crosses `exec`.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeftPool {
    name: String,
    state: Option<table::Carried>,
    control: Option<(RawFd, control::Carried)>,
    socket: Option<(RawFd, JsonPath, Option<Mark>)>,
}

impl Pools {
    /// The handler whose process this is.
    pub(super) fn name_of(&self, pid: u32) -> Option<&String> {
        self.table.key_of(pid)
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.table.iter().filter_map(|(_, state)| state.pid()).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.table.next_deadline().into_iter().chain(self.again).min()
    }

    /// The listening sockets.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.known.values().filter_map(|known| known.socket.as_ref()).map(AsFd::as_fd)
    }

    /// What is known of the program of this handler, if it has one.
    pub(super) fn status(&self, name: &str) -> Option<HandlerStatus> {
        let Known { status, before, .. } = self.known.get(name)?;
        let mut all = before.clone();
        all.add(status);
        Some(all)
    }

    /// Every process is to be killed by then; they are told when the links are gone.
    pub(super) fn end_by(&mut self, deadline: Instant) {
        self.ends = Some(deadline);
        (self.again, self.replacing) = (None, VecDeque::new());
    }

    /// What a process is told that is to end. At the end of all, what the links have left of the
    /// time that they had is its programs'.
    fn order_to_end(&self, now: Instant) -> ToServe {
        match self.ends {
            Some(deadline) => ToServe::EndWithin((deadline - GRACE).saturating_duration_since(now)),
            None => ToServe::Drain,
        }
    }

    /// There is no time: all are killed.
    pub(super) fn kill_all(&mut self, now: Instant) {
        self.remove_sockets();
        self.table.kill_all(now).iter().for_each(|(_, pid)| spawn::kill_now(*pid));
    }

    /// Removes the files of their sockets.
    pub(super) fn remove_sockets(&mut self) {
        self.known.values_mut().filter_map(|known| known.socket.take()).for_each(|socket| socket.remove());
    }

    /// Makes the socket of a handler.
    fn listen(&mut self, name: &str) -> io::Result<()> {
        let Some(known) = self.known.get_mut(name) else { return Ok(()) };
        let path = &known.settings.handler.socket;
        if let Some(folder) = path.parent() {
            let named = |cause: io::Error| io::Error::other(format!("make {}: {cause}", folder.display()));
            owner::folders::make(folder, FOLDER_MODE, None).map_err(named)?;
        }
        known.socket = Some(LocalSocket::listen(path, SOCKET_MODE).map_err(io::Error::other)?);
        Ok(())
    }
}

impl Lond {
    /// Wants a process for every handler that has a program, and whose socket is there.
    pub(super) fn want_pools(&mut self, m: &mut Machine<'_>, now: Instant) {
        self.pools.again = None;
        for settings in Settings::all(&m.start.config) {
            let name = settings.handler.name.clone();
            let new = || Known {
                settings,
                socket: None,
                status: HandlerStatus { name: name.clone(), ..HandlerStatus::default() },
                before: HandlerStatus { name: name.clone(), ..HandlerStatus::default() },
            };
            if self.pools.known.entry(name.clone()).or_insert_with(new).socket.is_none()
                && let Err(error) = self.pools.listen(&name)
            {
                let text = format!("handler {name}: {error}; its program is not run until that is put right");
                self.pool_failed(m, &name, &text, now);
                self.pools.again = Some(now + LISTEN_PAUSE);
                continue;
            }
            self.pools.table.want(name, now);
        }
    }

    /// Says what is wrong with the process of a handler; it is what went wrong last.
    fn pool_failed(&mut self, m: &mut Machine<'_>, name: &str, text: &str, now: Instant) {
        if let Some(line) = m.trouble(text, now) {
            log::error!("{line}");
        }
        if let Some(known) = self.pools.known.get_mut(name) {
            known.before.last_error = Some(text.to_owned());
            known.before.last_error_at = Some(jiff::Timestamp::now());
            self.board.changed();
        }
    }

    /// What is to be done because of the time.
    pub(super) fn turn_pools(&mut self, m: &mut Machine<'_>, now: Instant) {
        if self.pools.again.is_some_and(|at| at <= now) {
            self.want_pools(m, now);
        }
        if let Some(deadline) = self.pools.ends
            && (self.links.is_empty() || deadline <= now)
        {
            self.pools.remove_sockets();
            // Time for them to end their programs themselves, which they do best.
            let deadline = deadline + POOL_GRACE;
            for name in self.pool_names() {
                self.tell_pool(m, &name, Event::Retire { deadline }, now);
            }
        }
        self.replace_pools(m, now);
        while let Some((name, action)) = self.pools.table.due(now) {
            self.act_pool(m, &name, action, now);
        }
    }

    fn pool_names(&self) -> Vec<String> {
        self.pools.table.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Those that wait for their next start are started now.
    pub(super) fn hurry_pools(&mut self, m: &mut Machine<'_>, now: Instant) {
        for name in self.pool_names() {
            self.tell_pool(m, &name, Event::Hurry, now);
        }
    }

    /// Has processes replaced, a few at a time.
    fn replace_pools(&mut self, m: &mut Machine<'_>, now: Instant) {
        while self.pools.table.leaving() < REPLACED_AT_ONCE
            && let Some((name, pid)) = self.pools.replacing.pop_front()
        {
            if self.pools.table.key_of(pid) == Some(&name) {
                let deadline = self.drain_deadline(now);
                self.tell_pool(m, &name, Event::Drain { deadline }, now);
            }
        }
    }

    pub(super) fn tell_pool(&mut self, m: &mut Machine<'_>, name: &String, event: Event, now: Instant) {
        if let Some(action) = self.pools.table.tell(name, event, now) {
            self.act_pool(m, name, action, now);
        }
    }

    fn act_pool(&mut self, m: &mut Machine<'_>, name: &String, action: Action, now: Instant) {
        match action {
            Action::Start => self.start_pool(m, name, now),
            Action::TellDrain | Action::TellHandOver => {
                if let Some(pid) = self.pools.table.state(name).and_then(State::pid) {
                    self.send(m, &pid, &self.pools.order_to_end(now), now);
                }
            }
            Action::Kill(pid) => {
                log::warn!(
                    "handler {name}: killing process {pid}, which runs its program: it did not end in time"
                );
                spawn::kill_now(pid);
            }
        }
    }

    fn start_pool(&mut self, m: &mut Machine<'_>, name: &String, now: Instant) {
        match self.fork_pool(m, name) {
            Ok(pid) => {
                log::info!("handler {name}: process {pid} runs its program");
                self.tell_pool(m, name, Event::Started { pid }, now);
            }
            Err(error) => {
                let text = format!("handler {name}: start a process: {error}; tried again later");
                self.pool_failed(m, name, &text, now);
                self.tell_pool(m, name, Event::StartFailed, now);
            }
        }
    }

    fn fork_pool(&mut self, m: &mut Machine<'_>, name: &String) -> io::Result<u32> {
        let known = self.pools.known.get(name);
        let Some((settings, socket)) =
            known.and_then(|known| Some((&known.settings, known.socket.as_ref()?)))
        else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it has no socket"));
        };
        let listener = socket.listener().try_clone()?;
        let (opening, control) = m.open_control()?;
        let keep = vec![listener.as_raw_fd(), control.as_raw_fd()];
        let seed = Seed { settings: settings.clone(), listener, control };
        let pid = spawn::spawn(keep, move || pool::run(seed))?;
        self.pools.untold.remove(name);
        m.controls.keep(pid, opening);
        Ok(pid)
    }

    /// A process has told how its program does.
    pub(super) fn pool_told(&mut self, pid: u32, status: HandlerStatus) {
        let Some(known) = self.pools.name_of(pid).cloned().and_then(|name| self.pools.known.get_mut(&name))
        else {
            return;
        };
        // That more or fewer run or wait is no reason to write the file.
        let telling = |status: &HandlerStatus| {
            (status.program.map(|program| (program.restarts, program.unable)), status.last_error_at)
        };
        let news = telling(&known.status) != telling(&status);
        known.status = status;
        if news {
            self.board.changed();
        }
    }

    /// A process was reaped.
    pub(super) fn pool_ended(
        &mut self,
        m: &mut Machine<'_>,
        name: &String,
        pid: u32,
        end: spawn::End,
        now: Instant,
    ) {
        // Its programs have ended with it; what these have started has come to this process.
        strays::kill(|_| false);
        let told = self.pools.table.state(name).is_some_and(State::was_told);
        if told || end == spawn::End::Exited(0) {
            log::info!("handler {name}: process {pid}, which ran its program, {end}");
        } else {
            let text = format!("handler {name}: process {pid}, which ran its program, {end}; starting anew");
            self.pool_failed(m, name, &text, now);
        }
        if let Some(known) = self.pools.known.get_mut(name) {
            let fresh = HandlerStatus {
                name: name.clone(),
                program: Some(ProgramStatus::default()),
                ..HandlerStatus::default()
            };
            let ended = std::mem::replace(&mut known.status, fresh).ended();
            known.before.add(&ended);
        }
        self.tell_pool(m, name, Event::Exited, now);
        self.forget_pool_if_gone(m, name);
        self.board.changed();
    }

    fn forget_pool_if_gone(&mut self, m: &Machine<'_>, name: &String) {
        if self.pools.table.state(name).is_none() && !has_program(&m.start.config, name) {
            self.pools.known.remove(name);
        }
    }

    /// Goes on with another configuration, which the machine has already.
    pub(super) fn change_pools(&mut self, m: &mut Machine<'_>, now: Instant) {
        let config = m.start.config.clone();
        let gone: Vec<String> =
            self.pools.known.keys().filter(|name| !has_program(&config, name)).cloned().collect();
        for name in gone {
            log::info!("handler {name}: its program is run no more");
            if let Some(socket) = self.pools.known.get_mut(&name).and_then(|known| known.socket.take()) {
                socket.remove();
            }
            let deadline = self.drain_deadline(now);
            self.tell_pool(m, &name, Event::Retire { deadline }, now);
            self.forget_pool_if_gone(m, &name);
        }
        for settings in Settings::all(&config) {
            let name = settings.handler.name.clone();
            let Some(known) = self.pools.known.get_mut(&name) else { continue };
            if known.settings == settings {
                continue;
            }
            known.settings = settings;
            if let Some(State::Running { pid, .. }) = self.pools.table.state(&name) {
                self.pools.replacing.push_back((name, pid));
            }
        }
        self.want_pools(m, now);
    }

    /// Makes those sockets again that are gone, and tells their processes.
    pub(super) fn keep_pools(&mut self, m: &mut Machine<'_>, back: &mut Vec<PathBuf>, now: Instant) {
        let missing = |known: &Known| known.socket.as_ref().is_some_and(|socket| !socket.is_in_place());
        let gone: Vec<String> = self
            .pools
            .known
            .iter()
            .filter(|(_, known)| missing(known))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            match self.pools.listen(&name) {
                Ok(()) => {
                    let known = self.pools.known.get(&name);
                    back.extend(known.map(|known| known.settings.handler.socket.clone()));
                    self.pools.untold.insert(name);
                }
                Err(error) => {
                    let text = format!("handler {name}: {error}; no link finds it until that is put right");
                    self.pool_failed(m, &name, &text, now);
                }
            }
        }
        let Pools { known, untold, table, .. } = &mut self.pools;
        let mut broken = Vec::new();
        untold.retain(|name| {
            let socket = known.get(name).and_then(|known| known.socket.as_ref());
            let (Some(socket), Some(pid)) = (socket, table.state(name).and_then(State::pid)) else {
                return false;
            };
            match m.controls.send_descriptor(&pid, &ToServe::Listen, socket.as_fd()) {
                Ok(told) => !told,
                Err(error) => {
                    broken.push((pid, error));
                    false
                }
            }
        });
        broken.iter().for_each(|(pid, error)| self.broken(m, pid, error, now));
    }

    /// What the next program needs to go on with them.
    pub(super) fn leave_pools(&self, m: &Machine<'_>, now: Instant) -> io::Result<Vec<LeftPool>> {
        let mut left = Vec::new();
        for (name, known) in &self.pools.known {
            let state = self.pools.table.state(name);
            let control = match state.and_then(State::pid) {
                Some(pid) => m.controls.leave(&pid)?,
                None => None,
            };
            let socket = known.socket.as_ref().map(|socket| {
                (socket.as_fd().as_raw_fd(), JsonPath(socket.path().to_owned()), socket.mark())
            });
            let state = state.and_then(|state| table::Carried::from_state(state, now));
            left.push(LeftPool { name: name.clone(), state, control, socket });
        }
        Ok(left)
    }

    /// Takes over what the program before `exec` left: each process is replaced in its turn, and
    /// who connects meanwhile waits for the next one.
    pub(super) fn adopt_pools(
        &mut self,
        m: &mut Machine<'_>,
        left: Vec<LeftPool>,
        descriptors: &mut Descriptors,
        now: Instant,
    ) {
        let mut config: BTreeMap<String, Settings> =
            Settings::all(&m.start.config).into_iter().map(|one| (one.handler.name.clone(), one)).collect();
        for LeftPool { name, state, control, socket } in left {
            let settings = config.remove(&name);
            let socket = socket.and_then(|(number, path, mark)| {
                Some(LocalSocket::adopt(&path.0, descriptors.take(number)?, mark))
            });
            let wanted = settings.is_some();
            let keeps = |socket: &LocalSocket| {
                settings.as_ref().is_some_and(|settings| settings.handler.socket == socket.path())
            };
            let socket = socket.filter(|socket| {
                let keeps = keeps(socket);
                if !keeps {
                    socket.remove();
                }
                keeps
            });
            if let Some(settings) = settings {
                let status = HandlerStatus { name: name.clone(), ..HandlerStatus::default() };
                let known = Known { settings, socket, before: status.clone(), status };
                self.pools.known.insert(name.clone(), known);
            }
            let Some(state) = state else { continue };
            self.pools.table.adopt(name.clone(), state.state(now));
            if let Some((number, carried)) = control
                && let Some(fd) = descriptors.take(number)
                && let Err(error) =
                    m.controls.resume(state.pid, (fd, carried), m.poll.registry(), m.tokens.fresh())
            {
                log::error!("handler {name}: take over the control socket of process {}: {error}", state.pid);
            }
            if wanted {
                self.pools.replacing.push_back((name, state.pid));
            } else {
                let deadline = now + self.settings.drain_timeout + GRACE;
                self.tell_pool(m, &name, Event::Retire { deadline }, now);
            }
        }
    }
}

fn has_program(config: &Config, name: &str) -> bool {
    config.handlers.iter().any(|handler| handler.name == name && handler.program.is_some())
}
