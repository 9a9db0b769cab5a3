//! A turn of a link child: the order in which it takes answers and requests, records, asks
//! handlers, and writes.
//!
//! [`Turn`] owns what is spoken on the link ([`Link`]) and knows nothing of sockets and programs:
//! these are behind [`Io`]. The reactor is one `Io`, the simulated network of `tests/sim` another,
//! so that what is proved of the order there is proved of the program. Guarantees:
//!
//! - Handlers are read before they are written to, so that one that has closed its connection
//!   meanwhile is dialled again rather than given a request to lose.
//! - The answers to critical messages are written to the record before a handler gets the next of
//!   them; where they could not be, no handler does. They are synced at the end of a turn, many at
//!   once: when that is, and that none is sent before, is the session's own.
//! - What is written to the caller goes last: all of a turn together, the end of a link with its
//!   last words.
//! - A silent caller is tried only when all that came was read.
//!
//! The order itself is a value, [`ORDER`], for the simulation to break on purpose.

use super::Reason;
use super::service::Effect;
use net::ReadOutcome;
use std::io;
use std::time::Instant;

/// Reads of the link in one turn; then the handlers have theirs.
const READ_BUDGET: usize = 4;

/// A part of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// What is due is done.
    Tick,
    /// What handlers have answered is taken.
    ReadHandlers,
    /// Requests are taken, and what follows from them is done.
    TakeRequests,
    /// The answers to critical messages are written to the record.
    Record,
    /// Handlers get no critical message while one is not written.
    Hold,
    /// Handlers get what is for them.
    AskHandlers,
    /// The record is synced, if it is time.
    Sync,
    /// A silent caller is tried.
    Beat,
    /// What there is for the caller is written; the link is closed if there is nobody any more.
    Write,
    /// Whose time runs while the child sleeps is noted, and the supervisor is told what is new.
    Rest,
}

/// A turn. Answers are written again when handlers were asked: those that could not be asked have
/// theirs at once.
pub const ORDER: [Step; 11] = [
    Step::Tick,
    Step::ReadHandlers,
    Step::TakeRequests,
    Step::Record,
    Step::Hold,
    Step::AskHandlers,
    Step::Record,
    Step::Sync,
    Step::Beat,
    Step::Write,
    Step::Rest,
];

/// What is spoken on a link, whichever wire it is: what each of these means is said where the wires
/// are.
pub trait Link {
    /// Does what is due.
    fn tick(&mut self, now: Instant);
    /// When that is.
    fn deadline(&self) -> Option<Instant>;
    /// The next thing to do.
    fn step(&mut self, now: Instant) -> Option<Effect>;
    /// Whether there is one though nothing happens.
    fn has_work(&self) -> bool;
    /// Whether the caller is to be read now.
    fn wants_input(&self) -> bool;
    /// The caller sends nothing more.
    fn end_of_input(&mut self);
    /// The connection broke.
    fn lost(&mut self, cause: &io::Error);
    /// Writes the answers to critical messages to the record.
    fn record(&mut self, now: Instant);
    /// Whether one is still to be written.
    fn has_unrecorded(&self) -> bool;
    /// Syncs what was written, if it is time, so that it may be sent.
    fn sync(&mut self, now: Instant);
    /// Tries the caller if it was silent for long.
    fn beat(&mut self, now: Instant);
    /// Whether there is nobody at the other end any more, though work may be left.
    fn is_cut(&self) -> bool;
    /// Why the link ended, once it has.
    fn ended(&self) -> Option<&Reason>;
}

/// What a turn needs of the world. Nothing of it waits.
pub trait Io<L: Link> {
    /// Takes what handlers have answered, as far as `link` wants it, and tells it which answers
    /// will not come.
    fn read_handlers(&mut self, link: &mut L, now: Instant);
    /// Whether a read of the link may find something.
    fn is_link_readable(&self) -> bool;
    /// Reads from the caller once, and tells `link` what it said.
    ///
    /// # Errors
    /// The connection broke.
    fn read_link(&mut self, link: &mut L, now: Instant) -> io::Result<ReadOutcome>;
    /// Does what `link` has decided.
    ///
    /// # Errors
    /// The connection broke.
    fn carry_out(&mut self, link: &mut L, effect: Effect, now: Instant) -> io::Result<()>;
    /// Whether handlers are to get no critical message from now on.
    fn hold_critical(&mut self, hold: bool);
    /// Passes on to handlers what is for them, and tells `link` what they cannot be asked.
    fn ask_handlers(&mut self, link: &mut L, now: Instant);
    /// Writes to the caller what it takes.
    ///
    /// # Errors
    /// The connection broke.
    fn write_link(&mut self, link: &mut L, now: Instant) -> io::Result<()>;
    /// Closes the connection, if it is there.
    fn close_link(&mut self);
    /// The end of a turn: only now is it known what the buffers hold while the child sleeps.
    fn rest(&mut self, link: &mut L, now: Instant);
}

/// See the module.
#[derive(Debug)]
pub struct Turn<L> {
    link: L,
}

impl<L: Link> Turn<L> {
    /// The turns of the child that serves this link.
    pub fn new(link: L) -> Turn<L> {
        Turn { link }
    }

    /// What is spoken on the link.
    pub fn link(&mut self) -> &mut L {
        &mut self.link
    }

    /// The same, to be looked at.
    pub fn look(&self) -> &L {
        &self.link
    }

    /// Whether the next turn has something to do already.
    pub fn has_work(&self, io: &impl Io<L>) -> bool {
        self.link.has_work() || (self.link.wants_input() && io.is_link_readable())
    }

    /// Does all that can be done now, in the [`ORDER`].
    pub fn run(&mut self, io: &mut impl Io<L>, now: Instant) {
        self.run_in(&ORDER, io, now);
    }

    /// [`Turn::run`] in another order.
    pub fn run_in(&mut self, order: &[Step], io: &mut impl Io<L>, now: Instant) {
        for step in order {
            match step {
                Step::Tick => self.link.tick(now),
                Step::ReadHandlers => io.read_handlers(&mut self.link, now),
                Step::TakeRequests => {
                    let taken = self.take_requests(io, now);
                    self.unless_lost(taken);
                }
                Step::Record => self.link.record(now),
                Step::Hold => io.hold_critical(self.link.has_unrecorded()),
                Step::Sync => self.link.sync(now),
                Step::AskHandlers => io.ask_handlers(&mut self.link, now),
                // What the kernel still holds is a sign of life.
                Step::Beat if io.is_link_readable() => {}
                Step::Beat => self.link.beat(now),
                Step::Write => {
                    let written = io.write_link(&mut self.link, now);
                    self.unless_lost(written);
                    if self.link.is_cut() {
                        io.close_link();
                    }
                }
                Step::Rest => io.rest(&mut self.link, now),
            }
        }
    }

    fn unless_lost(&mut self, done: io::Result<()>) {
        if let Err(error) = done {
            self.link.lost(&error);
        }
    }

    fn take_requests(&mut self, io: &mut impl Io<L>, now: Instant) -> io::Result<()> {
        self.carry_out(io, now)?;
        let mut budget = READ_BUDGET;
        while budget > 0 && self.link.wants_input() && io.is_link_readable() {
            match io.read_link(&mut self.link, now)? {
                ReadOutcome::Nothing => break,
                ReadOutcome::Bytes(_) => {}
                ReadOutcome::End => self.link.end_of_input(),
            }
            self.carry_out(io, now)?;
            budget -= 1;
        }
        Ok(())
    }

    fn carry_out(&mut self, io: &mut impl Io<L>, now: Instant) -> io::Result<()> {
        while let Some(effect) = self.link.step(now) {
            io.carry_out(&mut self.link, effect, now)?;
        }
        Ok(())
    }
}
