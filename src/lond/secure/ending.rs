//! The ways a link ends, and what becomes of its requests then.
//!
//! Told to end, or when the caller says no more, the link *drains*: what was taken is answered. A
//! caller that is told to go away (GOAWAY) stops sending when it hears that; what it has sent by
//! then is taken too, and it closes when it has its answers, so that nothing is lost on the way.
//! What must not be makes it *leave* at once, with an ERROR. When there is no link any more, it is
//! *broken off*, and settles. Each way has its reason, which is the first one: what follows from it
//! changes nothing.

use super::course::State;
use super::{Reason, Recorder, Secure};
use crate::handler::Ticket;
use crate::service::Effect;
use std::time::Instant;

/// In a GOAWAY: whatever the caller has sent by the time it reads this is taken.
pub(super) const EVERYTHING: u64 = u64::MAX;

/// What the caller is told when the link ends in order.
#[derive(Debug, Clone, Copy)]
pub(super) struct GoAway {
    /// Requests above this id are not taken.
    pub last: u64,
    /// Whether it was told.
    pub told: bool,
}

impl<R: Recorder> Secure<R> {
    /// The caller sends nothing more; it may still read.
    pub fn end_of_input(&mut self) {
        self.input.end();
        match self.course.state() {
            State::Hello => self.enter(State::Leaving(Reason::CallerClosed)),
            State::Open => {
                // There is nobody to be told that no further request is taken.
                self.output.go_away(GoAway { last: self.input.highest(), told: true });
                self.enter(State::Draining(Reason::CallerClosed));
            }
            State::Draining(_) | State::Leaving(_) | State::Settling(_) | State::Ended(_) => {}
            State::Lingering(reason) => self.break_off(reason.clone()),
        }
    }

    /// Ends the link: answers what was taken, within the drain timeout.
    pub fn finish(&mut self, reason: Reason, now: Instant) {
        let deadline = self.course.told_to_end(now + self.settings.drain_timeout);
        match self.course.state() {
            State::Hello => self.enter(State::Leaving(reason)),
            State::Open => {
                // A caller that has a newer link sends nothing over this one, and that link waits
                // for its end. Any other may have sent requests that are on their way: they are
                // taken, and the caller closes.
                let by_caller = matches!(reason, Reason::Replaced | Reason::Exit);
                let last = if by_caller { self.input.highest() } else { EVERYTHING };
                self.output.go_away(GoAway { last, told: false });
                self.enter(State::Draining(reason));
            }
            State::Draining(_) | State::Leaving(_) | State::Settling(_) => {}
            State::Lingering(_) | State::Ended(_) => return,
        }
        self.course.hurries(deadline);
    }

    /// The connection broke.
    pub fn lost(&mut self, cause: String) {
        match self.course.state() {
            State::Hello | State::Open | State::Draining(_) => self.break_off(Reason::Lost(cause)),
            State::Leaving(reason) | State::Lingering(reason) => self.break_off(reason.clone()),
            State::Settling(_) | State::Ended(_) => {}
        }
    }

    /// What came must not be: says so, and leaves.
    pub(super) fn fail(&mut self, text: &str, reason: Reason, now: Instant) {
        self.output.error(text);
        self.leave(reason, now);
    }

    /// Drops what was not begun to be run and leaves.
    pub(super) fn leave(&mut self, reason: Reason, now: Instant) {
        self.drop_requests();
        self.course.leaves_by(now + self.settings.drain_timeout);
        self.enter(State::Leaving(reason));
    }

    /// There is no link any more. Critical messages that a handler has got are waited for.
    pub(super) fn break_off(&mut self, reason: Reason) {
        self.drop_requests();
        self.output.cut();
        self.course.settles();
        if self.requests.has_critical() {
            let withdraw = self.requests.flying().filter_map(|(id, flight)| {
                let handler = flight.handler?;
                Some(Effect::Withdraw { handler, ticket: Ticket(id) })
            });
            self.todo.extend(withdraw);
            self.enter(State::Settling(reason));
        } else {
            self.enter(State::Ended(reason));
        }
    }

    /// Drops the requests that were not begun to be run, and the answers that were not encoded.
    fn drop_requests(&mut self) {
        self.output.drop_answers();
        self.untaken.clear();
        self.requests.plain.clear();
        self.requests.critical.clear();
        for todo in std::mem::take(&mut self.todo) {
            match todo {
                Effect::Ask { ticket, .. }
                | Effect::Log { ticket, .. }
                | Effect::AskBack(ticket)
                | Effect::Load(ticket) => self.withdrawn(ticket),
                Effect::Opened | Effect::Withdraw { .. } | Effect::Refused(_) | Effect::Shut => {}
            }
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        self.check_patience(now);
        if !self.course.is_due(now) {
            return;
        }
        match self.course.state() {
            State::Hello => self.break_off(Reason::OpeningTimeout),
            State::Open => {}
            State::Leaving(reason) | State::Lingering(reason) => self.break_off(reason.clone()),
            State::Draining(_) => {
                let unanswered = self.requests.open() + self.output.answers() + self.untaken.len();
                self.break_off(Reason::DrainTimeout { unanswered });
                self.course.give_up();
            }
            State::Settling(_) => {
                self.course.has_time();
                self.course.give_up();
            }
            State::Ended(_) => {}
        }
    }

    /// Why the link can be left, once everything is answered.
    pub(super) fn drained(&self) -> Option<Reason> {
        match self.course.state() {
            State::Draining(reason)
                if self.requests.open() == 0
                    && !self.input.keeps_chunks()
                    && self.output.answers() == 0
                    && self.untaken.len() == 0
                    && self.output.goes_away().is_none_or(|away| {
                        away.told && (away.last < EVERYTHING || self.input.has_ended())
                    }) =>
            {
                Some(reason.clone())
            }
            State::Draining(_)
            | State::Hello
            | State::Open
            | State::Leaving(_)
            | State::Lingering(_)
            | State::Settling(_)
            | State::Ended(_) => None,
        }
    }

    /// Whether answers reach nobody any more.
    pub(super) fn is_gone(&self) -> bool {
        self.course.state().is_gone()
    }

    /// Whether there is no link any more.
    pub fn is_cut(&self) -> bool {
        self.course.state().is_cut()
    }

    /// Why the link ended, once it has.
    pub fn ended(&self) -> Option<&Reason> {
        self.course.state().ended()
    }
}
