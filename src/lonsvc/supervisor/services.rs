//! What is done with the program of each service, as the table says: started, told, killed,
//! replaced; and what is known of it.

use super::{Lonsvc, Machine, doing};
use crate::program::{self, Seed};
use config::{Config, Restart, Service};
use jiff::Timestamp;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use status::{ServiceState, ServiceStatus};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use supervise::own_key::OwnKey;
use supervise::table::{Action, Event, State};
use supervise::{spawn, title};

/// Programs on their way out at a time while all are replaced.
const REPLACED_AT_ONCE: usize = 4;

/// What is known of one service.
#[derive(Debug)]
pub(super) struct Known {
    /// As the next start will have it.
    pub service: Service,
    /// Since when its program stands where it does.
    pub since: Timestamp,
    /// How often its program was started.
    pub starts: u64,
    /// What went wrong last, and when.
    pub last_error: Option<(String, Timestamp)>,
    /// Its program has ended, and is not to be started again.
    pub over: bool,
    /// The supervisor has stopped.
    stopped: bool,
}

impl Known {
    /// Of a service whose program was not started yet.
    pub(super) fn new(service: Service) -> Known {
        let since = Timestamp::now();
        Known { service, since, starts: 0, last_error: None, over: false, stopped: false }
    }

    /// The supervisor ends.
    pub(super) fn stop(&mut self, now: Timestamp) {
        (self.stopped, self.since) = (true, now);
    }
}

/// A program that is to be replaced.
#[derive(Debug)]
pub(super) struct Replace {
    /// Whose it is.
    pub name: String,
    /// The process that is to end; a later one of the same name is not.
    pub pid: u32,
    /// How long it may take to end.
    pub drain: Duration,
}

impl Lonsvc {
    /// All services whose programs run or are to be started.
    pub(super) fn names(&self) -> Vec<String> {
        self.table.iter().map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn drain_timeout(&self, name: &str) -> Duration {
        self.services.get(name).map(|known| known.service.drain_timeout).unwrap_or_default()
    }

    /// Wants a program for every service of the configuration, but for those that are over.
    pub(super) fn want_all(&mut self, config: &Config, now: Instant) {
        for service in &config.services {
            let new = || Known::new(service.clone());
            let known = self.services.entry(service.name.clone()).or_insert_with(new);
            if !known.over {
                self.table.want(service.name.clone(), now);
            }
        }
    }

    /// Goes on with another configuration; what was done, in words.
    pub(super) fn change(
        &mut self,
        m: &mut Machine<'_>,
        config: Arc<Config>,
        key: OwnKey,
        now: Instant,
    ) -> String {
        let wanted: BTreeSet<&str> = config.services.iter().map(|service| service.name.as_str()).collect();
        let gone = |name: &String| !wanted.contains(name.as_str());
        let removed: Vec<String> = self.services.keys().filter(|name| gone(name)).cloned().collect();
        for name in &removed {
            log::info!("{name} is no longer a service: its program ends");
            let deadline = now + self.drain_timeout(name);
            self.tell(m, name, Event::Retire { deadline }, now);
        }
        let (mut added, mut changed, mut kept) = (0, 0, 0);
        for service in &config.services {
            match self.services.get(&service.name) {
                None => added += 1,
                Some(known) if known.service == *service => kept += 1,
                Some(_) => {
                    changed += 1;
                    self.renew(service);
                }
            }
        }
        m.take_over(config.clone(), key);
        removed.iter().for_each(|name| self.forget_if_gone(m, name));
        self.want_all(&config, now);
        self.board.set_doing(&doing(&config));
        title::set(self.board.doing());
        let services = if changed == 1 { "1 service" } else { &format!("{changed} services") };
        format!("{services} replaced, {added} added, {} removed, {kept} kept", removed.len())
    }

    /// A service is another one now: its program is followed by the next. One that is yet to be
    /// started begins as the new one.
    fn renew(&mut self, service: &Service) {
        let drain = self.drain_timeout(&service.name);
        let Some(known) = self.services.get_mut(&service.name) else { return };
        (known.service, known.over) = (service.clone(), false);
        if let Some(State::Running { pid, .. }) = self.table.state(&service.name) {
            self.replacing.push_back(Replace { name: service.name.clone(), pid, drain });
        }
    }

    /// Has programs replaced, a few at a time.
    pub(super) fn replace_in_turn(&mut self, m: &mut Machine<'_>, now: Instant) {
        while self.table.leaving() < REPLACED_AT_ONCE
            && let Some(Replace { name, pid, drain }) = self.replacing.pop_front()
        {
            if self.table.key_of(pid) == Some(&name) {
                self.tell(m, &name, Event::Drain { deadline: now + drain }, now);
            }
        }
    }

    pub(super) fn tell(&mut self, m: &mut Machine<'_>, name: &String, event: Event, now: Instant) {
        let before = self.table.state(name);
        let action = self.table.tell(name, event, now);
        self.moved(name, before);
        if let Some(action) = action {
            self.act(m, name, action, now);
        }
    }

    /// Notes that a program stands elsewhere, if it does.
    fn moved(&mut self, name: &String, before: Option<State>) {
        if self.table.state(name) != before
            && let Some(known) = self.services.get_mut(name)
        {
            known.since = Timestamp::now();
            self.board.changed();
        }
    }

    pub(super) fn act(&mut self, m: &mut Machine<'_>, name: &String, action: Action, now: Instant) {
        match action {
            Action::Start => self.start(m, name, now),
            Action::TellDrain | Action::TellHandOver => {
                if let Some(pid) = self.table.state(name).and_then(State::pid)
                    && !spawn::send(pid, Signal::SIGTERM)
                {
                    log::warn!("{name}: tell its program, process {pid}, to end: refused");
                }
            }
            Action::Kill(pid) => kill(name, pid, "it did not end in time"),
        }
    }

    /// Before it is the program, a child says what it has to through its control socket.
    pub(super) fn kill_broken(&mut self, name: &String, now: Instant) {
        let before = self.table.state(name);
        if let Some(Action::Kill(pid)) = self.table.tell(name, Event::Kill, now) {
            kill(name, pid, "its control socket is broken");
        }
        self.moved(name, before);
    }

    fn start(&mut self, m: &mut Machine<'_>, name: &String, now: Instant) {
        match self.fork(m, name) {
            Ok(pid) => {
                log::info!("{name}: started, process {pid}");
                if let Some(known) = self.services.get_mut(name) {
                    known.starts += 1;
                }
                self.tell(m, name, Event::Started { pid }, now);
            }
            Err(error) => {
                log::error!("{name}: start its program: {error}; tried again later");
                self.note_error(name, format!("start its program: {error}"));
                self.tell(m, name, Event::StartFailed, now);
            }
        }
    }

    fn fork(&mut self, m: &mut Machine<'_>, name: &String) -> io::Result<u32> {
        let Some(known) = self.services.get(name) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it is no service"));
        };
        let mut service = known.service.clone();
        // Who keeps root for others' sake does not give it to those that have not asked for it.
        service.user = service.user.or_else(|| m.start.acting.as_ref().map(|owner| owner.name().to_owned()));
        let log = program::open_log(&log_file(&m.start.config, name))?;
        let (opening, control) = m.open_control()?;
        let keep = vec![control.as_raw_fd(), log.as_raw_fd()];
        let seed = Seed { service, config: m.start.config.file.clone(), control, log, parent: Pid::this() };
        let pid = spawn::spawn(keep, move || program::run(seed))?;
        m.controls.keep(name.clone(), opening);
        Ok(pid)
    }

    pub(super) fn note_error(&mut self, name: &str, error: String) {
        if let Some(known) = self.services.get_mut(name) {
            known.last_error = Some((error, Timestamp::now()));
            self.board.changed();
        }
    }

    /// A program was reaped: what follows is said.
    pub(super) fn program_ended(
        &mut self,
        m: &mut Machine<'_>,
        name: &String,
        pid: u32,
        end: spawn::End,
        now: Instant,
    ) {
        spawn::kill_rest_of_group(pid);
        let told = self.table.state(name).is_some_and(State::was_told);
        let over = !told && self.is_over(name, end);
        if over {
            if let Some(known) = self.services.get_mut(name) {
                known.over = true;
            }
            // It has ended already: there is nothing to tell it.
            let _ = self.table.tell(name, Event::Retire { deadline: now }, now);
        }
        self.tell(m, name, Event::Exited, now);
        self.say_ended(name, pid, end, told, now);
        self.forget_if_gone(m, name);
    }

    /// Whether the program of this service, which has ended so, is not to be started again.
    fn is_over(&self, name: &str, end: spawn::End) -> bool {
        let restart = self.services.get(name).map_or(Restart::Never, |known| known.service.restart);
        match restart {
            Restart::Always => false,
            Restart::OnFailure => end == spawn::End::Exited(0),
            Restart::Never => true,
        }
    }

    fn say_ended(&mut self, name: &str, pid: u32, end: spawn::End, told: bool, now: Instant) {
        let next = match self.table.state(&name.to_owned()) {
            Some(State::Waiting { start_at }) => match start_at.saturating_duration_since(now) {
                Duration::ZERO => "starting anew".to_owned(),
                pause => format!("starting anew in {pause:.1?}"),
            },
            Some(State::Running { .. } | State::Draining { .. } | State::Killed { .. }) => {
                "starting anew".to_owned()
            }
            None => "not started again".to_owned(),
        };
        let in_order = match end {
            spawn::End::Exited(0) => true,
            spawn::End::Killed(Signal::SIGTERM) => told,
            spawn::End::Exited(_) | spawn::End::Killed(_) => false,
        };
        if in_order {
            log::info!("{name}: process {pid} {end}; {next}");
        } else {
            log::warn!("{name}: process {pid} {end}; {next}");
            let not_started = self.services.get(name).and_then(|known| known.last_error.as_ref());
            let said = not_started.is_some_and(|(error, _)| error.starts_with("start its program"));
            if !(said && end == spawn::End::Exited(program::NOT_EXECUTED)) {
                self.note_error(name, format!("its program {end}"));
            }
        }
    }

    /// A service that is no longer one is forgotten with its last program.
    fn forget_if_gone(&mut self, m: &Machine<'_>, name: &String) {
        let is_one = m.start.config.services.iter().any(|service| service.name == *name);
        if self.table.state(name).is_none() && !is_one {
            self.services.remove(name);
            self.board.changed();
        }
    }

    /// What is told of each.
    pub(super) fn statuses(&self, now: Timestamp) -> Vec<ServiceStatus> {
        let mono = Instant::now();
        let status = |(name, known): (&String, &Known)| {
            let state = self.table.state(name);
            let next_start = match state {
                Some(State::Waiting { start_at }) => {
                    now.checked_add(start_at.saturating_duration_since(mono)).ok()
                }
                Some(State::Running { .. } | State::Draining { .. } | State::Killed { .. }) | None => None,
            };
            let (error, at) = known.last_error.clone().unzip();
            ServiceStatus {
                name: name.clone(),
                state: match state {
                    _ if known.stopped => ServiceState::Stopped,
                    None => ServiceState::Ended,
                    Some(State::Waiting { .. }) => ServiceState::Waiting,
                    Some(State::Running { .. }) => ServiceState::Running,
                    Some(State::Draining { .. }) => ServiceState::Ending,
                    Some(State::Killed { .. }) => ServiceState::Killed,
                },
                since: known.since,
                pid: state.and_then(State::pid).unwrap_or(0),
                starts: known.starts,
                next_start,
                last_error: error,
                last_error_at: at,
            }
        };
        self.services.iter().map(status).collect()
    }
}

/// What a service says goes there.
fn log_file(config: &Config, name: &str) -> PathBuf {
    config.log_dir.join(format!("service.{name}.log"))
}

/// Kills a program with all that it has started, and says why.
pub(super) fn kill(name: &str, pid: u32, why: &str) {
    log::warn!("{name}: killing its program, process {pid}: {why}");
    spawn::kill_group_now(pid);
}
