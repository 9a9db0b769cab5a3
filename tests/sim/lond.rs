//! `lond` in the simulation: its children, and the handler that they ask.
//!
//! The handler is a program of its own: what it was given it may still run when the child that gave
//! it is dead.

use crate::child::{Child, Said, SimLink, Wire};
use crate::disk::Life;
use crate::ledger::{Checked, HANDLERS};
use crate::link::id_of;
use crate::lond_io::ChildIo;
use crate::net::{End, Time};
use crate::recorder::{Notes, SimRecorder};
use crate::sabotage::Sabotage;
use crate::scenario::*;
use crate::world::{Answers, Event, Job, World};
use lonnet::base::line::Outgoing;
use lonnet::lond::Reason;
use lonnet::lond::classic::{self, Classic};
use lonnet::lond::handler::Ticket;
use lonnet::lond::keeper::Keeper;
use lonnet::lond::secure::{self, Secure};
use lonnet::lond::service::{Route, Service};
use lonnet::lond::turn::{Link, ORDER, Step, Turn};
use lonnet::wire::secure::least_window;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// The order of a turn: the product's own, or one that is broken on purpose.
fn order_of(sabotage: Sabotage) -> Vec<Step> {
    let mut order = ORDER.to_vec();
    let place = |order: &[Step], step| order.iter().position(|it| *it == step).unwrap_or_default();
    match sabotage {
        Sabotage::HeldTooSoon => {
            order.retain(|it| *it != Step::Hold);
            order.remove(place(&order, Step::Record));
            order.insert(place(&order, Step::ReadHandlers), Step::Hold);
        }
        Sabotage::RecordedTooLate => {
            order.retain(|it| *it != Step::Record);
            order.insert(place(&order, Step::Rest), Step::Record);
        }
        _ => {}
    }
    order
}

impl World {
    /// A connection has come, and a child is forked for it.
    pub fn accept(&mut self, conn: usize, caller: usize, host: usize, secure: bool) {
        let now = self.clock().mono;
        let service = Service {
            id: id_of(host),
            caller: id_of(caller),
            routes: HANDLERS.map(Route::open).to_vec(),
            barred: Vec::new(),
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
                unsynced: match self.sabotage {
                    Sabotage::UnsyncedWithoutBound => usize::MAX,
                    _ => self.scenario.unsynced(),
                },
                drain_timeout,
            };
            let recorder = SimRecorder {
                keeper: Keeper::new(Path::new("/spool"), &id_of(caller)),
                disk: self.disk(host, &life),
                locks: self.hosts[host].locks.clone(),
                step: self.scenario.record_step,
                notes: notes.clone(),
                opened: false,
                deferred: Vec::new(),
            };
            Wire::Secure(Box::new(Secure::new(settings, recorder, opening, now)))
        } else {
            let settings = classic::Settings { service, max_line: MAX_LINE, drain_timeout };
            let random = fastrand::Rng::with_seed(self.random.u64(..));
            Wire::Classic(Box::new(Classic::new(settings, random, opening)))
        };
        self.children.push(Some(Child {
            host,
            caller,
            mistaken: self.conns[conn].wiretap.as_ref().and_then(|wiretap| wiretap.mistaken),
            conn: Some(conn),
            turn: Some(Turn::new(SimLink { wire, out: Outgoing::default() })),
            secure,
            notes,
            life,
            opened: false,
            replaced: false,
            wake: None,
            heard: self.now,
            end_told: false,
            by_sequence: HashMap::new(),
            sequences: BTreeMap::new(),
            handlers: Default::default(),
            said: VecDeque::new(),
            held: false,
            trouble: false,
            epoch: String::new(),
            settled: 0,
            no_room_since: None,
            unrecorded_since: None,
            unsynced: BTreeSet::new(),
            floor_written: None,
        }));
        self.ledger.children = self.children.len();
        let child = self.children.len() - 1;
        self.wake_child(child, self.now);
    }

    pub fn finish_child(&mut self, number: usize, reason: Reason) -> Checked {
        let now = self.clock().mono;
        let Some(child) = self.children[number].as_mut() else { return Ok(()) };
        if let Some(link) = child.link() {
            link.finish(reason, now);
        }
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

    /// A turn of the child's loop.
    pub fn child_turn(&mut self, number: usize) -> Checked {
        let Some(mut child) = self.children[number].take() else { return Ok(()) };
        let turned = self.turns(number, &mut child);
        let (dead, sick) = (child.life.dead.get(), self.hosts[child.host].disk.is_dead());
        let link = child.turn.as_ref().map(Turn::look);
        let ended = link.and_then(Link::ended).cloned();
        let deadline = link.and_then(Link::deadline).map(|at| self.time_of(at));
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

    /// Turns as long as there is something to do at once, as the reactor does.
    fn turns(&mut self, number: usize, child: &mut Child) -> Checked {
        let (now, order) = (self.clock().mono, order_of(self.sabotage));
        let Some(mut turn) = child.turn.take() else { return Ok(()) };
        let mut io = ChildIo { world: self, number, child, wrong: Ok(()) };
        let mut rest = 1000;
        while rest > 0 {
            turn.run_in(&order, &mut io, now);
            let over = io.is_dead() || turn.look().ended().is_some() || !turn.has_work(&io);
            if io.wrong.is_err() || over {
                break;
            }
            rest -= 1;
        }
        if io.wrong.is_ok() && !io.is_dead() && turn.look().ended().is_none() {
            let left = io.write(turn.link());
            io.wrong = left.and_then(|left| match left {
                0 => Ok(()),
                _ => Err(format!("child {number} sleeps with {left} bytes that its caller would take")),
            });
        }
        let wrong = io.wrong;
        child.turn = Some(turn);
        match rest {
            0 => Err(format!("child {number} turns and turns: {child:?}")),
            _ => wrong,
        }
    }

    // The handler.

    pub fn handler_pause(&mut self) -> Time {
        let (least, most) = self.scenario.handler_delay;
        if self.now < FAULTS_END && self.random.u32(..100) < self.scenario.slow_percent {
            self.random.u64(SECOND / 2..REQUEST_TIMEOUT * 5 / 4)
        } else {
            self.random.u64(least..=most.max(least))
        }
    }

    pub fn job(&mut self, child: usize, host: usize, ticket: Ticket, text: String, order: Answers) -> usize {
        self.jobs.push(Job { child, host, ticket, text, order, alive: true, answered: false });
        self.jobs.len() - 1
    }

    pub fn is_away(&self, host: usize, handler: usize) -> bool {
        self.hosts[host].away_until[handler] > self.now
    }

    /// A handler that was away is back, and children that look for it find it.
    pub fn handler_back(&mut self, host: usize, handler: usize) -> Checked {
        if self.is_away(host, handler) {
            return Ok(());
        }
        for number in self.children_of(host) {
            let Some(mut child) = self.children[number].take() else { continue };
            if let Some(SimLink { wire: Wire::Secure(session), .. }) = child.link() {
                session.handler_back(handler);
            }
            self.children[number] = Some(child);
            self.child_turn(number)?;
        }
        Ok(())
    }

    pub fn run_job(&mut self, job: usize) -> Checked {
        let Job { child, host, text, alive, order, .. } = &self.jobs[job];
        if !alive {
            return Ok(());
        }
        let (child, host, order) = (*child, *host, *order);
        let message = message_of(text).ok_or_else(|| format!("a handler got {text:?}"))?;
        if *text != self.ledger.messages[message].request {
            return Err(format!("message {message} came as {text:?}"));
        }
        self.trace(|_| format!("message {message} runs, asked by child {child}"));
        self.ledger.run(message, child, host, self.certain)?;
        let latest = match order {
            Answers::InOrder | Answers::Beside => MILLI,
            // Those that it has begun after this one are done before it, some of them.
            Answers::InAnyOrder => self.handler_pause().max(MILLI),
        };
        self.after(0, latest, Event::Answer(job));
        Ok(())
    }

    pub fn answer_job(&mut self, job: usize) -> Checked {
        let Job { child: number, ticket, order, answered, .. } = self.jobs[job];
        if answered {
            return Ok(());
        }
        let Some(mut child) = self.children[number].take() else { return Ok(()) };
        let handler = handler_of(&self.jobs[job].text);
        if order == Answers::InOrder && child.handlers[handler].passed.front() != Some(&job) {
            // Answers come in the order of the requests: it comes when the one before has.
            self.children[number] = Some(child);
            self.after(10, MILLI, Event::Answer(job));
            return Ok(());
        }
        child.handlers[handler].passed.retain(|passed| *passed != job);
        child.handlers[handler].asked.retain(|asked| *asked != job);
        self.jobs[job].answered = true;
        let Some(message) = message_of(&self.jobs[job].text) else { return Ok(()) };
        let answer = self.ledger.messages[message].answer.clone();
        child.said.push_back((ticket, Said::Answer(answer)));
        self.children[number] = Some(child);
        self.child_turn(number)
    }
}

impl World {
    /// The program behind a host's handler dies: of what it had some was done, and nothing is
    /// answered.
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
            child.said.push_back((ticket, Said::Gone));
            self.children[number] = Some(child);
            self.child_turn(number)?;
        }
        Ok(())
    }
}

/// The number of the message that a request is.
pub fn message_of(text: &str) -> Option<usize> {
    text.split(':').nth(1)?.parse().ok()
}

/// The number of the handler that a request is for.
fn handler_of(text: &str) -> usize {
    let name = text.split(':').next().unwrap_or_default();
    HANDLERS.iter().position(|handler| *handler == name).unwrap_or_default()
}
