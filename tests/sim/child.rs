//! A link child of `lond` in the simulation: the part that its reactor has in the real program.

use crate::disk::Life;
use crate::ledger::HANDLERS;
use crate::net::Time;
use crate::recorder::{Notes, SimRecorder};
use crate::wiretap::Mistaken;
use lonnet::base::line::Outgoing;
use lonnet::lond::Reason;
use lonnet::lond::classic::Classic;
use lonnet::lond::handler::{Reply, Ticket};
use lonnet::lond::secure::Secure;
use lonnet::lond::service::Effect;
use lonnet::lond::turn::{Link, Turn};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

/// The locks that processes of a host hold.
pub type Locks = Rc<RefCell<HashSet<PathBuf>>>;

/// A lock; given back when its process lets go or dies.
#[derive(Debug)]
pub struct Guard {
    pub locks: Locks,
    pub path: PathBuf,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.locks.borrow_mut().remove(&self.path);
    }
}

#[derive(Debug)]
pub enum Wire {
    Secure(Box<Secure<SimRecorder>>),
    Classic(Box<Classic>),
}

/// What is spoken on a link, and what waits to be written: there is no tunnel here.
#[derive(Debug)]
pub struct SimLink {
    pub wire: Wire,
    /// What was taken from the session and waits to be written.
    pub out: Outgoing,
}

#[derive(Debug)]
pub struct Child {
    pub host: usize,
    pub caller: usize,
    /// Who is taken for somebody else on its connection.
    pub mistaken: Option<Mistaken>,
    /// `None`: closed.
    pub conn: Option<usize>,
    /// `None`: a turn is being made.
    pub turn: Option<Turn<SimLink>>,
    pub secure: bool,
    /// What was asked of its record and not looked at yet.
    pub notes: Notes,
    pub life: Rc<Life>,
    pub opened: bool,
    pub replaced: bool,
    pub wake: Option<Time>,
    /// The last sign of life of the caller.
    pub heard: Time,
    /// Its end of input was told.
    pub end_told: bool,
    /// The message under each sequence and each ticket, as far as this child has learnt them.
    pub by_sequence: HashMap<u64, usize>,
    pub sequences: BTreeMap<Ticket, u64>,
    /// What each handler has and is to get.
    pub handlers: [ToHandler; HANDLERS.len()],
    /// What handlers have said, and was not read yet.
    pub said: VecDeque<(Ticket, Said)>,
    /// Handlers get no critical message now.
    pub held: bool,
    /// Recording failed some time.
    pub trouble: bool,
    /// The epoch that its caller's spool has, and below what its caller has settled everything.
    pub epoch: String,
    pub settled: u64,
    /// Since then there was no room to record what it was asked.
    pub no_room_since: Option<Time>,
    /// The same of answers that could not be recorded.
    pub unrecorded_since: Option<Time>,
    /// Sequences whose answers are written to its record and not synced.
    pub unsynced: BTreeSet<u64>,
    /// Below what everything was settled when the first of them was written.
    pub floor_written: Option<u64>,
}

/// What a child has for a handler.
#[derive(Debug, Default)]
pub struct ToHandler {
    /// Requests in order that the handler has not been given, and those that it has.
    pub waiting: VecDeque<(Ticket, String)>,
    pub passed: VecDeque<usize>,
    /// The same of those that need no order.
    pub plain: VecDeque<(Ticket, String)>,
    pub asked: Vec<usize>,
    /// When it will have run what it was given in order.
    pub busy_until: Time,
}

/// What a handler says to a request.
#[derive(Debug)]
pub enum Said {
    Answer(String),
    Gone,
}

impl Child {
    /// What is spoken on its link, between two turns.
    pub fn link(&mut self) -> Option<&mut SimLink> {
        self.turn.as_mut().map(Turn::link)
    }

    pub fn is_cut(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| turn.look().is_cut())
    }
}

impl SimLink {
    pub fn push(&mut self, bytes: &[u8], now: Instant) {
        match &mut self.wire {
            Wire::Secure(session) => {
                session.heard(now);
                session.push(bytes, now);
            }
            Wire::Classic(serve) => serve.push(bytes),
        }
    }

    pub fn finish(&mut self, reason: Reason, now: Instant) {
        match &mut self.wire {
            Wire::Secure(session) => session.finish(reason, now),
            Wire::Classic(serve) => serve.finish(reason, now),
        }
    }

    pub fn answer(&mut self, ticket: Ticket, reply: Reply<'_>) {
        match &mut self.wire {
            Wire::Secure(session) => session.answer(ticket, reply),
            Wire::Classic(serve) => serve.answer(ticket, &reply.text()),
        }
    }
}

impl Link for SimLink {
    fn tick(&mut self, now: Instant) {
        match &mut self.wire {
            Wire::Secure(session) => session.tick(now),
            Wire::Classic(serve) => serve.tick(now),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.wire {
            Wire::Secure(session) => session.deadline(),
            Wire::Classic(serve) => serve.deadline(),
        }
    }

    fn step(&mut self, now: Instant) -> Option<Effect> {
        match &mut self.wire {
            Wire::Secure(session) => session.step(now, self.out.is_empty()),
            Wire::Classic(serve) => serve.step(now),
        }
    }

    fn has_work(&self) -> bool {
        match &self.wire {
            Wire::Secure(session) => session.has_work(self.out.is_empty()),
            Wire::Classic(serve) => serve.has_work(),
        }
    }

    fn wants_input(&self) -> bool {
        match &self.wire {
            Wire::Secure(session) => session.wants_input(),
            Wire::Classic(serve) => serve.wants_input(),
        }
    }

    fn end_of_input(&mut self) {
        match &mut self.wire {
            Wire::Secure(session) => session.end_of_input(),
            Wire::Classic(serve) => serve.end_of_input(),
        }
    }

    fn lost(&mut self, cause: &io::Error) {
        match &mut self.wire {
            Wire::Secure(session) => session.lost(cause.to_string()),
            Wire::Classic(serve) => serve.lost(cause),
        }
    }

    fn record(&mut self, now: Instant) {
        match &mut self.wire {
            Wire::Secure(session) => session.record(now),
            Wire::Classic(_) => {}
        }
    }

    fn has_unrecorded(&self) -> bool {
        match &self.wire {
            Wire::Secure(session) => session.has_unrecorded(),
            Wire::Classic(_) => false,
        }
    }

    fn sync(&mut self, now: Instant) {
        match &mut self.wire {
            Wire::Secure(session) => session.sync(now),
            Wire::Classic(_) => {}
        }
    }

    fn beat(&mut self, now: Instant) {
        match &mut self.wire {
            Wire::Secure(session) => session.beat(now),
            Wire::Classic(_) => {}
        }
    }

    fn is_cut(&self) -> bool {
        match &self.wire {
            Wire::Secure(session) => session.is_cut(),
            Wire::Classic(serve) => serve.ended().is_some(),
        }
    }

    fn ended(&self) -> Option<&Reason> {
        match &self.wire {
            Wire::Secure(session) => session.ended(),
            Wire::Classic(serve) => serve.ended(),
        }
    }
}
