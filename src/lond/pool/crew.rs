//! All processes of one program: started, given requests, heard, killed, seen off.
//!
//! Those that are kept are started again as [`supervise::table`] says. What came of a request is
//! told as soon as it is known: of a process for one request when that has ended, or was killed for
//! its time. A process is gone when it was reaped; what is still open of its pipes then does not
//! matter, and what is left of its group is killed.

use super::Settings;
use super::alone::MARK;
use super::once::{self, FirstLine, Outcome};
use super::one::{Process, Tell, Work};
use super::pipes::Pipes;
use super::process::{self, PATH};
use super::queue::Ask;
use super::stderr;
use super::worker::Talk;
use crate::handler::tag::{NONE, Said};
use base::log_quota::Repeats;
use config::Run;
use net::{Event, Registry};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::{Duration, Instant};
use supervise::spawn::{self, End};
use supervise::strays;
use supervise::table::{self, Action, State, Table};

/// Pause before another process for a request is tried where the system gave none.
const FORK_PAUSE: Duration = Duration::from_millis(500);
/// How long a process has to live until its program is taken for one that can be run.
const SETTLED: Duration = Duration::from_secs(1);
/// How long a process that says nothing more may take to end.
const LEAVE: Duration = Duration::from_secs(1);

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Crew {
    settings: Settings,
    registry: Registry,
    processes: BTreeMap<usize, Process>,
    by_pid: HashMap<u32, usize>,
    /// Of those that are kept.
    table: Table<usize>,
    next: usize,
    /// No process for a request is started before this.
    again: Option<Instant>,
    /// Since when there is no process that could take a request, nor can one be had at once.
    stuck: Option<Instant>,
    /// Why the program cannot be run: no process of it has come so far as to serve since.
    cannot: Option<String>,
    log: stderr::Bytes,
    faults: Repeats,
    /// Processes that were kept and ended by themselves.
    pub(super) restarts: u64,
    /// What went wrong last, if that was not asked for yet.
    pub(super) fault: Option<String>,
}

impl Crew {
    pub(super) fn new(settings: Settings, registry: Registry, now: Instant) -> Crew {
        let mut table = Table::default();
        if let Some(Run::Kept(count)) = settings.handler.program.as_ref().map(|program| program.run) {
            (0..count).for_each(|number| table.want(number, now));
        }
        Crew {
            settings,
            registry,
            processes: BTreeMap::new(),
            by_pid: HashMap::new(),
            table,
            next: 0,
            again: None,
            stuck: None,
            cannot: None,
            log: stderr::Bytes::new(now),
            faults: Repeats::default(),
            restarts: 0,
            fault: None,
        }
    }

    fn name(&self) -> &str {
        &self.settings.handler.name
    }

    /// Processes that were not seen off.
    pub(super) fn len(&self) -> usize {
        self.processes.len()
    }

    /// Requests that were begun and not answered.
    pub(super) fn open(&self) -> usize {
        let open = |process: &Process| match &process.work {
            Work::Once { ask, .. } => usize::from(ask.is_some()),
            Work::Kept { talk, .. } => talk.open(),
        };
        self.processes.values().map(open).sum()
    }

    pub(super) fn note(&mut self, id: usize, which: usize, event: &Event) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.pipes.note(which, event);
        }
    }

    /// Says what is wrong, seldom enough; it is what went wrong last.
    fn fault(&mut self, text: &str, now: Instant) {
        if let Some(line) = self.faults.line(text, now) {
            log::warn!("handler {}: {line}", self.name());
        }
        self.fault = Some(text.to_owned());
    }

    /// Whether a request can be begun now.
    pub(super) fn has_room(&self, now: Instant) -> bool {
        let Some(program) = &self.settings.handler.program else { return false };
        match program.run {
            Run::Each(most) => self.processes.len() < most && self.again.is_none_or(|at| at <= now),
            Run::Kept(_) => self.least_busy().is_some(),
        }
    }

    /// The process that is kept and can take most.
    fn least_busy(&self) -> Option<usize> {
        let room = |process: &Process| match &process.work {
            Work::Kept { talk, .. } if process.takes_more() => talk.room(),
            Work::Kept { .. } | Work::Once { .. } => 0,
        };
        let best = self.processes.iter().max_by_key(|(_, process)| room(process))?;
        (room(best.1) > 0).then_some(*best.0)
    }

    /// Has a request begun.
    ///
    /// # Errors
    /// It cannot be now: the request comes back.
    pub(super) fn begin(&mut self, ask: Ask, now: Instant) -> Result<(), Ask> {
        match self.settings.handler.program.as_ref().map(|program| program.run) {
            Some(Run::Kept(_)) => {
                let process = self.least_busy().and_then(|id| self.processes.get_mut(&id));
                match process.map(|process| (&mut process.work, &mut process.pipes)) {
                    Some((Work::Kept { talk, .. }, pipes)) => {
                        talk.ask(ask, &mut pipes.out, now);
                        Ok(())
                    }
                    Some((Work::Once { .. }, _)) | None => Err(ask),
                }
            }
            Some(Run::Each(_)) => self.begin_once(ask, now),
            None => Err(ask),
        }
    }

    fn begin_once(&mut self, ask: Ask, now: Instant) -> Result<(), Ask> {
        let given = |word: &[u8]| if word == NONE { Vec::new() } else { word.to_vec() };
        let (id, key) = (given(&ask.id), given(&ask.key));
        let words = [("LONNET_FROM", &*ask.from), ("LONNET_ID", &*id), ("LONNET_KEY", &*key)];
        let line = FirstLine::new(self.settings.max_line);
        match self.start(&words) {
            Ok((pid, mut pipes)) => {
                pipes.out.push_line(&ask.text);
                let by = now + self.settings.handler.timeout;
                self.add(pid, pipes, Work::Once { ask: Some(ask), line, by }, now);
                (self.again, self.stuck) = (None, None);
                Ok(())
            }
            Err(error) => {
                self.again = Some(now + FORK_PAUSE);
                self.stuck.get_or_insert(now);
                self.fault(&format!("start a process: {error}; tried again"), now);
                Err(ask)
            }
        }
    }

    fn start(&self, words: &[(&str, &[u8])]) -> io::Result<(u32, Pipes)> {
        let handler = &self.settings.handler;
        let program = handler.program.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let seconds = handler.timeout.as_secs_f64().to_string();
        let mut environment = vec![
            ("PATH", PATH.as_bytes()),
            (MARK, handler.socket.as_os_str().as_encoded_bytes()),
            ("LONNET_HANDLER", handler.name.as_bytes()),
            ("LONNET_TIMEOUT", seconds.as_bytes()),
        ];
        environment.extend(words);
        let started = process::start(program, &environment)?;
        Ok((started.pid, Pipes::new(started, &self.registry, token(self.next))?))
    }

    fn add(&mut self, pid: u32, pipes: Pipes, work: Work, now: Instant) {
        let said = stderr::Begun::default();
        let process = Process { pid, work, pipes, said, since: now, killed: false, leaves: None };
        self.by_pid.insert(pid, self.next);
        self.processes.insert(self.next, process);
        self.next += 1;
    }

    /// Starts those that are to be kept and are not there, if it is time.
    pub(super) fn start_due(&mut self, now: Instant) {
        self.again = self.again.filter(|at| *at > now);
        while let Some((number, action)) = self.table.due(now) {
            match action {
                Action::Start => self.start_kept(number, now),
                Action::Kill(pid) => strays::kill_child(pid),
                Action::TellDrain | Action::TellHandOver => {}
            }
        }
        if self.cannot.is_some() && self.settles().is_some_and(|at| at <= now) {
            self.cannot = None;
        }
        let waits = |state: State| matches!(state, State::Waiting { .. });
        if !self.table.is_empty() {
            let stuck = self.table.iter().all(|(_, state)| waits(state));
            self.stuck = if stuck { self.stuck.or(Some(now)) } else { None };
        }
    }

    /// When a process that is kept will have lived for so long that its program can be run.
    fn settles(&self) -> Option<Instant> {
        let kept = |process: &&Process| matches!(process.work, Work::Kept { .. });
        self.processes.values().filter(kept).map(|process| process.since + SETTLED).min()
    }

    fn start_kept(&mut self, number: usize, now: Instant) {
        let event = match self.start(&[]) {
            Ok((pid, pipes)) => {
                let text = format!("program started, process {pid}");
                if let Some(line) = self.faults.line(&text, now) {
                    log::info!("handler {}: {line}", self.name());
                }
                let talk = Talk::new(self.settings.handler.form, self.settings.max_line);
                self.add(pid, pipes, Work::Kept { number, talk }, now);
                table::Event::Started { pid }
            }
            Err(error) => {
                self.fault(&format!("start a process: {error}; tried again"), now);
                self.cannot = Some(format!("start a process: {error}"));
                table::Event::StartFailed
            }
        };
        self.table.tell(&number, event, now);
    }

    /// Reads once of each that has said something. `back` gets what was given to one and not begun.
    pub(super) fn read(
        &mut self,
        scratch: &mut [u8],
        now: Instant,
        back: &mut Vec<Ask>,
        tell: &mut Tell<'_>,
    ) {
        let mut broken = Vec::new();
        for (id, process) in &mut self.processes {
            if let Some(bytes) = process.pipes.output.read(scratch) {
                self.cannot = None;
                process.work.heard(bytes, tell).err().into_iter().for_each(|why| broken.push((*id, why)));
            }
            if !process.pipes.output.is_open() && matches!(process.work, Work::Kept { .. }) {
                // Its end will be told in a moment, if it is that.
                process.leaves.get_or_insert(now + LEAVE);
            }
            if let Some(bytes) = process.pipes.errors.read(scratch) {
                let name = &self.settings.handler.name;
                process.said.push(bytes, &mut |line| say(name, &mut self.log, line, now));
            }
        }
        for (id, why) in broken {
            self.kill(id, &why, now, back, tell);
        }
    }

    /// Whether there is more to read.
    pub(super) fn has_work(&self) -> bool {
        let readable =
            |process: &Process| process.pipes.output.is_readable() || process.pipes.errors.is_readable();
        self.processes.values().any(readable)
    }

    /// Tells each what waits for it.
    pub(super) fn write(&mut self) {
        for process in self.processes.values_mut() {
            process.pipes.write(matches!(process.work, Work::Once { .. }));
        }
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let timeout = self.settings.handler.timeout;
        let processes = self.processes.values().filter_map(|process| process.deadline(timeout));
        let settles = self.settles().filter(|_| self.cannot.is_some());
        processes.chain(self.table.next_deadline()).chain(self.again).chain(settles).min()
    }

    /// Kills those that have taken too long.
    pub(super) fn kill_overdue(&mut self, now: Instant, back: &mut Vec<Ask>, tell: &mut Tell<'_>) {
        let timeout = self.settings.handler.timeout;
        let late = self
            .processes
            .iter()
            .filter(|(_, process)| process.deadline(timeout).is_some_and(|at| at <= now));
        let late: Vec<(usize, bool)> =
            late.map(|(id, process)| (*id, process.leaves.is_some_and(|at| at <= now))).collect();
        for (id, leaves) in late {
            let why = if leaves {
                "its program has closed its output".to_owned()
            } else {
                format!("no answer within {timeout:?}")
            };
            self.kill(id, &why, now, back, tell);
        }
    }

    /// Kills one with all that it has started, and says why of what it had begun.
    fn kill(&mut self, id: usize, why: &str, now: Instant, back: &mut Vec<Ask>, tell: &mut Tell<'_>) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.killed = true;
        let pid = process.pid;
        strays::kill_child(pid);
        let name = &self.settings.handler.name;
        match &mut process.work {
            Work::Once { ask, .. } => {
                if let Some(ask) = ask.take() {
                    tell(&ask, Err(once::error(name, why)));
                }
            }
            Work::Kept { number, talk } => {
                let (begun, rest) = talk.ended(process.pipes.read_by_it());
                begun.iter().for_each(|ask| tell(ask, Err(once::error(name, why))));
                back.extend(rest);
                self.table.tell(number, table::Event::Kill, now);
            }
        }
        self.fault(&format!("process {pid}: {why}; killed"), now);
    }

    /// Reaps all that have ended, and sees them off.
    pub(super) fn reap(
        &mut self,
        scratch: &mut [u8],
        now: Instant,
        back: &mut Vec<Ask>,
        tell: &mut Tell<'_>,
    ) {
        let mut reaped = false;
        while let Some((pid, end)) = spawn::reap() {
            reaped = true;
            spawn::kill_rest_of_group(pid);
            if let Some(id) = self.by_pid.remove(&pid)
                && let Some(process) = self.processes.remove(&id)
            {
                self.see_off(process, end, scratch, now, back, tell);
            }
        }
        if reaped {
            // What it has started outside of its group has come to this process, or will when the
            // next of them ends.
            let by_pid = &self.by_pid;
            strays::kill(|session| by_pid.contains_key(&session));
        }
    }

    fn see_off(
        &mut self,
        mut process: Process,
        end: End,
        scratch: &mut [u8],
        now: Instant,
        back: &mut Vec<Ask>,
        tell: &mut Tell<'_>,
    ) {
        let Process { pid, pipes, work, said, killed, .. } = &mut process;
        let name = self.settings.handler.name.clone();
        let mut heard = Ok(());
        pipes.output.last(scratch, |bytes| {
            if heard.is_ok() {
                heard = work.heard(bytes, tell);
            }
        });
        let mut line = |line: &[u8]| say(&name, &mut self.log, line, now);
        pipes.errors.last(scratch, |bytes| said.push(bytes, &mut line));
        said.end(&mut line);
        let file = self.settings.handler.program.as_ref().map(|program| program.file.display());
        let unstarted =
            file.and_then(|file| pipes.fate().map(|why| format!("start {file}: {why}; nothing was done")));
        let nothing =
            matches!(work, Work::Kept { .. }) && pipes.read_by_it() == 0 && !pipes.output.has_said();
        self.cannot = match &unstarted {
            Some(why) => {
                self.fault(why, now);
                Some(why.clone())
            }
            None if nothing && !*killed => Some(format!("its program {end} before it read a request")),
            None => None,
        };
        match work {
            Work::Once { ask, line, .. } => {
                let Some(ask) = ask.take() else { return };
                match unstarted {
                    // Nothing was done: who keeps it may try again.
                    Some(why) if ask.is_critical() => tell(&ask, Ok(Said::Away(why.as_bytes()))),
                    Some(why) => tell(&ask, Err(once::error(&name, why))),
                    None => match once::outcome(end, line) {
                        Outcome::Said(said) => tell(&ask, Ok(said)),
                        Outcome::Failed(why) => {
                            tell(&ask, Err(once::error(&name, &why)));
                            self.fault = Some(why);
                        }
                    },
                }
            }
            Work::Kept { number, talk } => {
                let read = if unstarted.is_some() { 0 } else { pipes.read_by_it() };
                let (begun, rest) = talk.ended(read);
                let why = match heard {
                    Err(why) => why,
                    Ok(()) => format!("its program {end} before it answered"),
                };
                begun.iter().for_each(|ask| tell(ask, Err(once::error(&name, &why))));
                back.extend(rest);
                self.table.tell(number, table::Event::Exited, now);
                let (number, pid) = (*number, *pid);
                self.say_ended(number, pid, end, unstarted.is_none(), now);
            }
        }
    }

    fn say_ended(&mut self, number: usize, pid: u32, end: End, was_program: bool, now: Instant) {
        let next = match self.table.state(&number) {
            Some(State::Waiting { start_at }) if start_at > now => {
                format!("starting anew in {:.1?}", start_at.saturating_duration_since(now))
            }
            Some(_) => "starting anew".to_owned(),
            None => {
                log::debug!("handler {}: process {pid} {end}", self.name());
                return;
            }
        };
        self.restarts += 1;
        if was_program {
            self.fault(&format!("process {pid} {end}; {next}"), now);
        }
    }

    /// Why the program cannot be run, if it cannot.
    pub(super) fn cannot(&self) -> Option<&str> {
        self.cannot.as_deref()
    }

    /// Since when no request could be begun, and none can be for now.
    pub(super) fn stuck_since(&self) -> Option<Instant> {
        self.stuck
    }

    /// Nothing more is to be begun: those that are kept are told to end. Others end by themselves.
    pub(super) fn retire(&mut self, now: Instant) {
        for process in self.processes.values_mut() {
            if let Work::Kept { number, .. } = &process.work {
                self.table.tell(number, table::Event::Retire { deadline: now + LEAVE }, now);
                process.pipes.close_input();
                spawn::send(process.pid, nix::sys::signal::Signal::SIGTERM);
                process.leaves = Some(now + LEAVE);
            }
        }
        let waiting: Vec<usize> = self.table.iter().map(|(number, _)| *number).collect();
        for number in waiting {
            self.table.tell(&number, table::Event::Retire { deadline: now }, now);
        }
    }

    /// There is no time: all are killed, and of what they had begun it is said so.
    pub(super) fn kill_all(&mut self, why: &str, now: Instant, back: &mut Vec<Ask>, tell: &mut Tell<'_>) {
        let ids: Vec<usize> = self.processes.keys().copied().collect();
        ids.into_iter().for_each(|id| self.kill(id, why, now, back, tell));
    }
}

/// The first of the tokens of a process's pipes.
fn token(id: usize) -> usize {
    super::reactor::FIRST + super::reactor::STEP * id + super::reactor::OF_PROCESS
}

fn say(name: &str, log: &mut stderr::Bytes, line: &[u8], now: Instant) {
    if let Some(text) = log.line(line, now) {
        log::info!("handler {name}: says: {text}");
    }
}

#[cfg(test)]
mod tests;
