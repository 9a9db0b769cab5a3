//! A link child of `lond` in the simulation: the part that its reactor has in the real program.

use crate::disk::Life;
use crate::ledger::HANDLERS;
use crate::net::Time;
use crate::recorder::{Notes, SimRecorder};
use crate::wiretap::Mistaken;
use lonnet::base::line::Outgoing;
use lonnet::handler::{Reply, Ticket};
use lonnet::lond::Reason;
use lonnet::lond::secure::Secure;
use lonnet::lond::serve::Serve;
use lonnet::lond::service::Effect;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
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
    Classic(Box<Serve>),
}

#[derive(Debug)]
pub struct Child {
    pub host: usize,
    pub caller: usize,
    /// Who is taken for somebody else on its connection.
    pub mistaken: Option<Mistaken>,
    /// `None`: closed.
    pub conn: Option<usize>,
    pub wire: Wire,
    /// What was asked of its record and not looked at yet.
    pub notes: Notes,
    pub life: Rc<Life>,
    /// What was taken from the session and waits to be written.
    pub out: Outgoing,
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
    /// Recording failed some time.
    pub trouble: bool,
    /// The epoch that its caller's spool has, and below what its caller has settled everything.
    pub epoch: String,
    pub settled: u64,
    /// Since then there was no room to record what it was asked.
    pub no_room_since: Option<Time>,
    /// The same of answers that could not be recorded.
    pub unrecorded_since: Option<Time>,
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

impl Child {
    pub fn step(&mut self, now: Instant) -> Option<Effect> {
        match &mut self.wire {
            Wire::Secure(session) => session.step(now, self.out.is_empty()),
            Wire::Classic(serve) => serve.step(now),
        }
    }

    pub fn push(&mut self, bytes: &[u8], now: Instant) {
        match &mut self.wire {
            Wire::Secure(session) => {
                session.heard(now);
                session.push(bytes, now);
            }
            Wire::Classic(serve) => serve.push(bytes),
        }
    }

    pub fn end_of_input(&mut self) {
        match &mut self.wire {
            Wire::Secure(session) => session.end_of_input(),
            Wire::Classic(serve) => serve.end_of_input(),
        }
    }

    pub fn lost(&mut self) {
        match &mut self.wire {
            Wire::Secure(session) => session.lost("reset".to_owned()),
            Wire::Classic(serve) => serve.lost(&io::ErrorKind::ConnectionReset.into()),
        }
    }

    pub fn finish(&mut self, reason: Reason, now: Instant) {
        match &mut self.wire {
            Wire::Secure(session) => session.finish(reason, now),
            Wire::Classic(serve) => serve.finish(reason, now),
        }
    }

    pub fn tick(&mut self, now: Instant) {
        match &mut self.wire {
            Wire::Secure(session) => session.tick(now),
            Wire::Classic(serve) => serve.tick(now),
        }
    }

    pub fn answer(&mut self, ticket: Ticket, reply: Reply<'_>) {
        match &mut self.wire {
            Wire::Secure(session) => session.answer(ticket, reply),
            Wire::Classic(serve) => serve.answer(ticket, &reply.text()),
        }
    }

    pub fn wants_input(&self) -> bool {
        match &self.wire {
            Wire::Secure(session) => session.wants_input(),
            Wire::Classic(serve) => serve.wants_input(),
        }
    }

    pub fn has_work(&self) -> bool {
        match &self.wire {
            Wire::Secure(session) => session.has_work(self.out.is_empty()),
            Wire::Classic(serve) => serve.has_work(),
        }
    }

    pub fn is_cut(&self) -> bool {
        match &self.wire {
            Wire::Secure(session) => session.is_cut(),
            Wire::Classic(serve) => serve.ended().is_some(),
        }
    }

    pub fn ended(&self) -> Option<&Reason> {
        match &self.wire {
            Wire::Secure(session) => session.ended(),
            Wire::Classic(serve) => serve.ended(),
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        match &self.wire {
            Wire::Secure(session) => session.deadline(),
            Wire::Classic(serve) => serve.deadline(),
        }
    }
}
