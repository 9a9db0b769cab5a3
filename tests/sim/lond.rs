//! `lond` in the simulation: its children's turns, as the reactor does them, and the handler that they ask.
//!
//! The handler is a program of its own: what it was given it may still run when the child that gave it is dead.

use crate::child::{Child, Wire};
use crate::disk::Life;
use crate::ledger::{Checked, HANDLERS};
use crate::link::{Sink, id_of};
use crate::net::{End, Time};
use crate::recorder::{Note, Notes, SimRecorder};
use crate::sabotage::Sabotage;
use crate::scenario::*;
use crate::wiretap::Mistaken;
use crate::world::{Event, Job, World};
use lonnet::base::line::Outgoing;
use lonnet::handler::{Reply, Ticket};
use lonnet::lond::Reason;
use lonnet::lond::keeper::Keeper;
use lonnet::lond::secure::{self, Recalled, Secure};
use lonnet::lond::serve::{self, Serve};
use lonnet::lond::service::{Effect, Order, Route, Service};
use lonnet::wire::secure::least_window;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// The most that a child may have waiting for its caller: the cores' own mark, and a frame or an answer beyond it.
const MOST_OUT: usize = (1 << 20) + 2 * MAX_LINE + (256 << 10);
/// Bytes taken from a session that may wait to be written.
const OUT_FULL: usize = 256 * 1024;

impl World {
    /// A connection has come, and a child is forked for it.
    pub fn accept(&mut self, conn: usize, caller: usize, host: usize, secure: bool) {
        let now = self.clock().mono;
        let service = Service {
            id: id_of(host),
            caller: id_of(caller),
            routes: HANDLERS.map(|name| Route { name: name.to_owned(), allowed: true }).to_vec(),
        };
        let opening = now + Duration::from_micros(OPENING_TIMEOUT);
        let drain_timeout = Duration::from_micros(DRAIN_TIMEOUT);
        let (life, notes) = (Rc::new(Life::default()), Notes::default());
        let wire = if secure {
            let settings = secure::Settings {
                service,
                max_line: MAX_LINE,
                window: least_window(MAX_LINE) as u32,
                heartbeat: Duration::from_micros(HEARTBEAT),
                heartbeat_missed: HEARTBEAT_MISSED,
                drain_timeout,
            };
            let recorder = SimRecorder {
                keeper: Keeper::new(Path::new("/spool"), &id_of(caller)),
                disk: self.disk(host, &life),
                locks: self.hosts[host].locks.clone(),
                step: self.scenario.record_step,
                notes: notes.clone(),
                opened: false,
            };
            Wire::Secure(Box::new(Secure::new(settings, recorder, opening, now)))
        } else {
            let settings = serve::Settings { service, max_line: MAX_LINE, drain_timeout };
            let random = fastrand::Rng::with_seed(self.random.u64(..));
            Wire::Classic(Box::new(Serve::new(settings, random, opening)))
        };
        self.children.push(Some(Child {
            host,
            caller,
            mistaken: self.conns[conn].wiretap.as_ref().and_then(|wiretap| wiretap.mistaken),
            conn: Some(conn),
            wire,
            notes,
            life,
            out: Outgoing::default(),
            opened: false,
            replaced: false,
            wake: None,
            heard: self.now,
            end_told: false,
            by_sequence: HashMap::new(),
            sequences: BTreeMap::new(),
            handlers: Default::default(),
            trouble: false,
            epoch: String::new(),
            settled: 0,
            no_room_since: None,
            unrecorded_since: None,
        }));
        self.ledger.children = self.children.len();
        let child = self.children.len() - 1;
        self.wake_child(child, self.now);
    }

    pub fn finish_child(&mut self, number: usize, reason: Reason) -> Checked {
        let now = self.clock().mono;
        let Some(child) = self.children[number].as_mut() else { return Ok(()) };
        child.finish(reason, now);
        self.child_turn(number)
    }

    /// The process is gone; what the handler has of it may be run, or not.
    pub fn kill_child(&mut self, number: usize) -> Checked {
        let Some(child) = self.children[number].take() else { return Ok(()) };
        self.trace(|_| format!("child {number} is gone"));
        self.ledger.gone.insert(number);
        if let Some(conn) = child.conn {
            self.close(conn, End::Called, true);
        }
        let host = child.host;
        drop(child);
        if self.random.bool() {
            for job in self.jobs.iter_mut().filter(|job| job.child == number) {
                job.alive = false;
            }
        }
        if self.sabotage == Sabotage::RecordDropped {
            let disk = &self.hosts[host].disk;
            for path in disk.files().into_keys().filter(|path| path.ends_with("answers")) {
                disk.take_away(&path);
            }
        }
        Ok(())
    }

    /// Whether the child's process, or its machine, died just now.
    fn died(&self, child: &Child) -> bool {
        child.life.dead.get() || self.hosts[child.host].disk.is_dead()
    }

    /// A turn of the child's loop.
    pub fn child_turn(&mut self, number: usize) -> Checked {
        let Some(mut child) = self.children[number].take() else { return Ok(()) };
        let turned = self.turns(number, &mut child);
        let (dead, sick) = (child.life.dead.get(), self.hosts[child.host].disk.is_dead());
        let ended = child.ended().cloned();
        let deadline = child.deadline().map(|at| self.time_of(at));
        let trouble = child.trouble;
        let mistaken = child.mistaken;
        self.children[number] = Some(child);
        turned?;
        if dead {
            self.kill_child(number)?;
        } else if sick {
            // The machine is about to be found dead.
        } else if let Some(reason) = ended {
            self.trace(|_| format!("child {number} ends: {reason}"));
            match reason {
                Reason::Violation(_) | Reason::CallerError(_) if mistaken.is_none() => {
                    return Err(format!("child {number}: {reason}, on a wire that changes nothing"));
                }
                _ => {}
            }
            if !trouble && self.sabotage != Sabotage::RecordDropped {
                self.ledger.ended_in_order(number)?;
            }
            self.kill_child(number)?;
        } else if let Some(at) = deadline {
            self.wake_child(number, at);
        }
        Ok(())
    }

    fn turns(&mut self, number: usize, child: &mut Child) -> Checked {
        let now = self.clock().mono;
        child.tick(now);
        for _ in 0..1000 {
            self.carry_out(number, child)?;
            if self.died(child) {
                return Ok(());
            }
            let read = self.read_child(number, child)?;
            self.record(number, child);
            // Only now may a handler get the next critical message.
            self.pass_on(number, child);
            if self.died(child) {
                return Ok(());
            }
            self.write_child(child)?;
            if child.is_cut()
                && let Some(conn) = child.conn.take()
            {
                self.close(conn, End::Called, false);
            }
            if child.ended().is_some() || (!read && !child.has_work()) {
                return Ok(());
            }
        }
        // The rest of the work waits for the next event.
        self.children[number] = None;
        Err(format!("child {number} turns and turns: {child:?}"))
    }

    /// Whether anything was read.
    fn read_child(&mut self, number: usize, child: &mut Child) -> Result<bool, String> {
        let now = self.clock().mono;
        let mut any = false;
        while let Some(conn) = child.conn.filter(|_| child.wants_input()) {
            let pipe = self.conns[conn].input(End::Called);
            if pipe.reset {
                child.conn = None;
                self.close(conn, End::Called, false);
                child.lost();
                return Ok(true);
            }
            if pipe.arrived.is_empty() {
                if pipe.ended && !child.end_told {
                    child.end_told = true;
                    child.end_of_input();
                    any = true;
                }
                break;
            }
            let count = self.random.usize(1..=pipe.arrived.len());
            let bytes: Vec<u8> = self.conns[conn].to_called.arrived.drain(..count).collect();
            child.push(&bytes, now);
            child.heard = self.now;
            any = true;
            self.room_made(conn, End::Caller);
            self.carry_out(number, child)?;
            if self.died(child) {
                break;
            }
        }
        Ok(any)
    }

    /// What a session needs once a turn.
    fn record(&mut self, number: usize, child: &mut Child) {
        let now = self.clock().mono;
        if let Wire::Secure(session) = &mut child.wire {
            session.record(now);
            session.beat(now);
        }
        self.take_notes(number, child);
    }

    /// Looks at what was asked of the child's record.
    fn take_notes(&mut self, number: usize, child: &mut Child) {
        let notes = std::mem::take(&mut *child.notes.borrow_mut());
        for note in notes {
            match note {
                Note::Opened(epoch, mark) => self.opened(child, epoch, mark),
                Note::NotOpened => child.trouble = true,
                Note::Looked { ticket, sequence, settled, found } => {
                    child.sequences.insert(ticket, sequence);
                    child.settled = child.settled.max(settled);
                    child.trouble |= matches!(found, Recalled::Failed(_) | Recalled::NoRoom(_));
                    self.trace(|_| format!("child {number}: {sequence}, settled below {settled}: {found:?}"));
                    if matches!(found, Recalled::NoRoom(_)) {
                        child.no_room_since.get_or_insert(self.now);
                    } else if !matches!(found, Recalled::Failed(_)) {
                        child.no_room_since = None;
                    }
                }
                // Even if the process dies before it hears that this is recorded.
                Note::Adding(answers) => {
                    for (sequence, text) in answers {
                        if let Some(message) = child.by_sequence.get(&sequence) {
                            self.ledger.give_up(*message, &text);
                        }
                    }
                }
                Note::Added(_, None) => {}
                Note::Added(_, Some(false)) => {
                    child.trouble = true;
                    child.unrecorded_since.get_or_insert(self.now);
                }
                Note::Added(sequences, Some(true)) => {
                    child.unrecorded_since = None;
                    let noted = self.settled.entry((child.caller, child.host, child.epoch.clone()));
                    let noted = noted.or_default();
                    *noted = (*noted).max(child.settled);
                    for sequence in sequences {
                        if let Some(message) = child.by_sequence.get(&sequence) {
                            self.ledger.recorded(*message, number);
                        }
                    }
                }
            }
        }
    }

    /// The child has opened its record.
    fn opened(&mut self, child: &mut Child, epoch: String, mark: u64) {
        self.trace(|_| format!("a link of h{} begins with epoch {epoch}", child.caller));
        // While a handler is away less is settled for it than for others.
        let away = |(_, trouble): &(Time, Trouble)| matches!(trouble, Trouble::HandlerAway(..));
        let plain = !self.scenario.troubles.iter().any(away);
        let noted = self.settled.get(&(child.caller, child.host, epoch.clone())).copied();
        if let Some(below) = noted.filter(|below| plain && mark + 1 < *below) {
            self.broken = Some(format!(
                "the record of h{} says that all up to {mark} is settled, and all below {below} was",
                child.caller
            ));
        }
        // What it was told before, and could not write, it has forgotten.
        (child.epoch, child.settled) = (epoch, 0);
    }

    fn write_child(&mut self, child: &mut Child) -> Checked {
        let now = self.clock().mono;
        loop {
            if let Wire::Secure(session) = &mut child.wire
                && child.out.len() < OUT_FULL
            {
                session.fill(now);
                let frames = session.outgoing();
                child.out.tail().extend_from_slice(frames.bytes());
                frames.clear();
            }
            let Some(conn) = child.conn else { return Ok(()) };
            let mut sink = Sink { world: self, conn, from: End::Called };
            let out = match &mut child.wire {
                Wire::Secure(_) => &mut child.out,
                Wire::Classic(serve) => serve.outgoing(),
            };
            let before = out.len();
            // It fails with nothing but that there is no room.
            out.flush_to(&mut sink).unwrap_or(false);
            let (left, moved) = (out.len(), out.take_moved());
            if let Wire::Secure(session) = &mut child.wire
                && moved
            {
                session.moved(now);
                child.heard = self.now;
            }
            if left > MOST_OUT {
                return Err(format!("{left} bytes wait for the caller"));
            }
            if left == before {
                return Ok(());
            }
            self.plan(conn);
        }
    }

    fn carry_out(&mut self, number: usize, child: &mut Child) -> Checked {
        let now = self.clock().mono;
        loop {
            let effect = child.step(now);
            self.take_notes(number, child);
            let Some(effect) = effect.filter(|_| !self.died(child)) else { return Ok(()) };
            match effect {
                Effect::Opened => {
                    child.opened = true;
                    if let Some(Mistaken::Caller(other)) = child.mistaken {
                        let caller = child.caller;
                        return Err(format!(
                            "child {number} serves h{caller}, which says that it is h{other}"
                        ));
                    }
                    for (other, older) in self.children.iter_mut().enumerate() {
                        let Some(older) = older else { continue };
                        let same = older.host == child.host && older.caller == child.caller;
                        if same && older.opened && !older.replaced {
                            older.replaced = true;
                            self.replace_later.push(other);
                        }
                    }
                    for other in std::mem::take(&mut self.replace_later) {
                        self.after(100, 50 * MILLI, Event::Replaced(other));
                    }
                }
                Effect::Ask { handler, ticket, order, request } => {
                    let text = text_of(&request);
                    if let (Some(sequence), Some(message)) = (child.sequences.get(&ticket), message_of(&text))
                    {
                        child.by_sequence.insert(*sequence, message);
                    }
                    match order {
                        Order::Kept | Order::Once => {
                            child.handlers[handler].waiting.push_back((ticket, text));
                            self.pass_on(number, child);
                        }
                        Order::Free if self.is_away(child.host, handler) => {
                            self.not_taken(child, ticket, &text);
                        }
                        Order::Free => {
                            child.handlers[handler].plain.push_back((ticket, text));
                            self.pass_on(number, child);
                        }
                    }
                }
                Effect::Withdraw { ticket, .. } => {
                    let waiting = |child: &Child| -> usize {
                        child.handlers.iter().map(|handler| handler.waiting.len() + handler.plain.len()).sum()
                    };
                    let before = waiting(child);
                    for handler in &mut child.handlers {
                        handler.waiting.retain(|(waiting, _)| *waiting != ticket);
                        handler.plain.retain(|(waiting, _)| *waiting != ticket);
                    }
                    let withdrawn = waiting(child) < before;
                    if let Wire::Secure(session) = &mut child.wire
                        && withdrawn
                        && self.sabotage != Sabotage::WithdrawnKept
                    {
                        session.withdrawn(ticket);
                    }
                }
                Effect::AskBack(ticket) | Effect::Load(ticket) => child.answer(ticket, Reply::Answer(b"0")),
                Effect::Log { ticket, text } => {
                    let text = text_of(&text);
                    let message = text.parse().map_err(|_| format!("log of {text:?}"))?;
                    self.trace(|_| format!("child {number} logs message {message}"));
                    self.ledger.run(message, number, child.host, self.certain)?;
                    if let Some(sequence) = child.sequences.get(&ticket).copied() {
                        child.by_sequence.insert(sequence, message);
                    }
                    child.answer(ticket, Reply::Answer(b"ok"));
                }
                Effect::Shut => {
                    // The last words go first.
                    self.write_child(child)?;
                    if let Some(conn) = child.conn {
                        let (time, random) = (self.now, &mut self.random);
                        self.conns[conn].shut(End::Called, time, random);
                        self.plan(conn);
                    }
                }
            }
            if self.died(child) {
                return Ok(());
            }
        }
    }

    // The handler.

    fn handler_pause(&mut self) -> Time {
        let (least, most) = self.scenario.handler_delay;
        if self.now < FAULTS_END && self.random.u32(..100) < self.scenario.slow_percent {
            self.random.u64(SECOND / 2..REQUEST_TIMEOUT * 5 / 4)
        } else {
            self.random.u64(least..=most.max(least))
        }
    }

    fn job(&mut self, child: usize, host: usize, ticket: Ticket, text: String, ordered: bool) -> usize {
        self.jobs.push(Job { child, host, ticket, text, ordered, alive: true, answered: false });
        self.jobs.len() - 1
    }

    /// Gives the handler what it takes ahead.
    fn pass_on(&mut self, number: usize, child: &mut Child) {
        let early = self.sabotage == Sabotage::PassedOnEarly;
        let (depth, held) = match &child.wire {
            Wire::Secure(session) if !early => (1, session.has_unrecorded()),
            Wire::Secure(_) | Wire::Classic(_) => (self.scenario.handler_depth, false),
        };
        for handler in 0..HANDLERS.len() {
            if self.is_away(child.host, handler) {
                self.give_back(child, handler);
            }
            while child.handlers[handler].passed.len() < depth && !held && !self.is_away(child.host, handler)
            {
                let Some((ticket, text)) = child.handlers[handler].waiting.pop_front() else { break };
                let job = self.job(number, child.host, ticket, text, true);
                // One after the other: none before those that it was given earlier.
                let pause = self.handler_pause();
                let to = &mut child.handlers[handler];
                to.passed.push_back(job);
                to.busy_until = (self.now + pause).max(to.busy_until);
                let due = to.busy_until;
                self.at(due, Event::Run(job));
            }
            while child.handlers[handler].asked.len() < self.scenario.handler_places
                && let Some((ticket, text)) = child.handlers[handler].plain.pop_front()
            {
                let job = self.job(number, child.host, ticket, text, false);
                child.handlers[handler].asked.push(job);
                let due = self.now + self.handler_pause();
                self.at(due, Event::Run(job));
            }
        }
    }

    fn is_away(&self, host: usize, handler: usize) -> bool {
        self.hosts[host].away_until[handler] > self.now
    }

    /// What waits for a handler that is away: all of it goes back, since none may overtake the first.
    fn give_back(&mut self, child: &mut Child, handler: usize) {
        let to = &mut child.handlers[handler];
        let waiting: Vec<_> = to.waiting.drain(..).chain(to.plain.drain(..)).collect();
        for (ticket, text) in waiting {
            self.not_taken(child, ticket, &text);
        }
    }

    fn not_taken(&mut self, child: &mut Child, ticket: Ticket, text: &str) {
        self.trace(|_| format!("{text:?} is not taken"));
        self.ledger.counts.not_taken += 1;
        let critical = child.sequences.contains_key(&ticket);
        if let Some(message) = message_of(text).filter(|_| !critical) {
            // The answer is all that there will be.
            self.ledger.messages[message].given_up = true;
        }
        let reply = match self.sabotage {
            Sabotage::NotTakenAnswered => Reply::Broken(b"error:the handler is away"),
            _ => Reply::NotTaken("the handler is away"),
        };
        child.answer(ticket, reply);
    }

    /// A handler that was away is back, and children that look for it find it.
    pub fn handler_back(&mut self, host: usize, handler: usize) -> Checked {
        if self.is_away(host, handler) {
            return Ok(());
        }
        for number in self.children_of(host) {
            let Some(mut child) = self.children[number].take() else { continue };
            if let Wire::Secure(session) = &mut child.wire {
                session.handler_back(handler);
            }
            self.pass_on(number, &mut child);
            self.children[number] = Some(child);
            self.child_turn(number)?;
        }
        Ok(())
    }

    pub fn run_job(&mut self, job: usize) -> Checked {
        let Job { child, host, text, alive, .. } = &self.jobs[job];
        if !alive {
            return Ok(());
        }
        let (child, host) = (*child, *host);
        let message = message_of(text).ok_or_else(|| format!("a handler got {text:?}"))?;
        if *text != self.ledger.messages[message].request {
            return Err(format!("message {message} came as {text:?}"));
        }
        self.trace(|_| format!("message {message} runs, asked by child {child}"));
        self.ledger.run(message, child, host, self.certain)?;
        self.after(0, MILLI, Event::Answer(job));
        Ok(())
    }

    pub fn answer_job(&mut self, job: usize) -> Checked {
        let Job { child: number, ticket, ordered, answered, .. } = self.jobs[job];
        if answered {
            return Ok(());
        }
        let Some(mut child) = self.children[number].take() else { return Ok(()) };
        let handler = handler_of(&self.jobs[job].text);
        if ordered && child.handlers[handler].passed.front() != Some(&job) {
            // Answers come in the order of the requests: it comes when the one before has.
            self.children[number] = Some(child);
            self.after(10, MILLI, Event::Answer(job));
            return Ok(());
        }
        if ordered {
            child.handlers[handler].passed.pop_front();
        } else {
            child.handlers[handler].asked.retain(|asked| *asked != job);
        }
        self.jobs[job].answered = true;
        let Some(message) = message_of(&self.jobs[job].text) else { return Ok(()) };
        let answer = self.ledger.messages[message].answer.clone();
        child.answer(ticket, Reply::Answer(answer.as_bytes()));
        self.pass_on(number, &mut child);
        self.children[number] = Some(child);
        self.child_turn(number)
    }
}

/// What a child answers for a handler that is gone.
const HANDLER_GONE: &[u8] = b"error:the handler is gone; it is not known what was done";

impl World {
    /// The program behind a host's handler dies: of what it had some was done, and nothing is answered.
    pub fn handler_dies(&mut self, host: usize) -> Checked {
        for job in 0..self.jobs.len() {
            let it = &self.jobs[job];
            let (number, ticket) = (it.child, it.ticket);
            if it.host != host || !it.alive || it.answered {
                continue;
            }
            let message = message_of(&it.text);
            if let Some(message) = message {
                self.ledger.messages[message].given_up = true;
                if self.random.bool() && !self.ledger.messages[message].is_run() {
                    self.run_job(job)?;
                }
            }
            (self.jobs[job].alive, self.jobs[job].answered) = (false, true);
            let Some(mut child) = self.children[number].take() else { continue };
            for handler in &mut child.handlers {
                handler.passed.retain(|passed| *passed != job);
                handler.asked.retain(|asked| *asked != job);
            }
            child.answer(ticket, Reply::Broken(HANDLER_GONE));
            self.pass_on(number, &mut child);
            self.children[number] = Some(child);
            self.child_turn(number)?;
        }
        Ok(())
    }
}

fn text_of(request: &[u8]) -> String {
    String::from_utf8_lossy(request).into_owned()
}

/// The number of the message that a request is.
fn message_of(text: &str) -> Option<usize> {
    text.split(':').nth(1)?.parse().ok()
}

/// The number of the handler that a request is for.
fn handler_of(text: &str) -> usize {
    let name = text.split(':').next().unwrap_or_default();
    HANDLERS.iter().position(|handler| *handler == name).unwrap_or_default()
}
