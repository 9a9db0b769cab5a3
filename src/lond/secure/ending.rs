//! The ways a link ends, and what becomes of its requests then.
//!
//! Told to end, or when the caller says no more, the link *drains*: what was taken is answered. A
//! caller that is told to go away (GOAWAY) stops sending when it hears that; what it has sent by
//! then is taken too, and it closes when it has its answers, so that nothing is lost on the way.
//! What must not be makes it *leave* at once, with an ERROR. When there is no link any more, it is
//! *broken off*, and settles. Each way has its reason, which is the first one: what follows from it
//! changes nothing.

use super::{Reason, Recorder, Secure, State};
use crate::handler::Ticket;
use crate::service::Effect;
use std::time::Instant;
use wire::flow::Assembly;
use wire::secure::put_error;

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
        self.input_ended = true;
        // What was begun will not be ended.
        self.assembly = Assembly::new(self.settings.max_line);
        match &self.state {
            State::Hello => self.enter(State::Leaving(Reason::CallerClosed)),
            State::Open => {
                // There is nobody to be told that no further request is taken.
                self.go_away = Some(GoAway { last: self.ids.highest(), told: true });
                self.enter(State::Draining(Reason::CallerClosed));
            }
            State::Draining(_) | State::Leaving(_) | State::Settling(_) | State::Ended(_) => {}
            State::Lingering(reason) => self.break_off(reason.clone()),
        }
    }

    /// Ends the link: answers what was taken, within the drain timeout.
    pub fn finish(&mut self, reason: Reason, now: Instant) {
        let deadline = self.drain_deadline.unwrap_or(now + self.settings.drain_timeout);
        self.drain_deadline = Some(deadline);
        match &self.state {
            State::Hello => self.enter(State::Leaving(reason)),
            State::Open => {
                // A caller that has a newer link sends nothing over this one, and that link waits
                // for its end. Any other may have sent requests that are on their way: they are
                // taken, and the caller closes.
                let by_caller = matches!(reason, Reason::Replaced | Reason::Exit);
                let last = if by_caller { self.ids.highest() } else { EVERYTHING };
                self.go_away = Some(GoAway { last, told: false });
                self.enter(State::Draining(reason));
            }
            State::Draining(_) | State::Leaving(_) | State::Settling(_) => {}
            State::Lingering(_) | State::Ended(_) => return,
        }
        self.deadline = Some(self.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
    }

    /// The connection broke.
    pub fn lost(&mut self, cause: String) {
        match &self.state {
            State::Hello | State::Open | State::Draining(_) => self.break_off(Reason::Lost(cause)),
            State::Leaving(reason) | State::Lingering(reason) => self.break_off(reason.clone()),
            State::Settling(_) | State::Ended(_) => {}
        }
    }

    /// What came must not be: says so, and leaves.
    pub(super) fn fail(&mut self, text: &str, reason: Reason, now: Instant) {
        self.sending.clear();
        put_error(self.out.tail(), text);
        self.leave(reason, now);
    }

    /// Drops what was not begun to be run and leaves.
    pub(super) fn leave(&mut self, reason: Reason, now: Instant) {
        self.drop_requests();
        let deadline = now + self.settings.drain_timeout;
        self.deadline = Some(self.drain_deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        self.enter(State::Leaving(reason));
    }

    /// There is no link any more. Critical messages that a handler has got are waited for.
    pub(super) fn break_off(&mut self, reason: Reason) {
        self.drop_requests();
        self.out.clear();
        self.deadline = self.drain_deadline;
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
        self.sending.clear();
        self.untaken.clear();
        self.requests.plain.clear();
        self.requests.critical.clear();
        for todo in std::mem::take(&mut self.todo) {
            match todo {
                Effect::Ask { ticket, .. }
                | Effect::Log { ticket, .. }
                | Effect::AskBack(ticket)
                | Effect::Load(ticket) => self.withdrawn(ticket),
                Effect::Opened | Effect::Withdraw { .. } | Effect::Shut => {}
            }
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        self.check_patience(now);
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        match &self.state {
            State::Hello => self.break_off(Reason::OpeningTimeout),
            State::Open => {}
            State::Leaving(reason) | State::Lingering(reason) => self.break_off(reason.clone()),
            State::Draining(_) => {
                let unanswered = self.requests.open() + self.sending.len() + self.untaken.len();
                self.break_off(Reason::DrainTimeout { unanswered });
                self.giving_up = true;
            }
            State::Settling(_) => {
                self.deadline = None;
                self.giving_up = true;
            }
            State::Ended(_) => {}
        }
    }

    /// Why the link can be left, once everything is answered.
    pub(super) fn drained(&self) -> Option<Reason> {
        match &self.state {
            State::Draining(reason)
                if self.requests.open() == 0
                    && self.assembly.kept() == 0
                    && self.sending.is_empty()
                    && self.untaken.len() == 0
                    && self
                        .go_away
                        .is_none_or(|away| away.told && (away.last < EVERYTHING || self.input_ended)) =>
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
        match &self.state {
            State::Hello | State::Open | State::Draining(_) => false,
            State::Leaving(_) | State::Lingering(_) | State::Settling(_) | State::Ended(_) => true,
        }
    }

    /// Whether there is no link any more.
    pub fn is_cut(&self) -> bool {
        match &self.state {
            State::Settling(_) | State::Ended(_) => true,
            State::Hello | State::Open | State::Draining(_) | State::Leaving(_) | State::Lingering(_) => {
                false
            }
        }
    }

    /// Why the link ended, once it has.
    pub fn ended(&self) -> Option<&Reason> {
        match &self.state {
            State::Ended(reason) => Some(reason),
            State::Hello
            | State::Open
            | State::Draining(_)
            | State::Leaving(_)
            | State::Lingering(_)
            | State::Settling(_) => None,
        }
    }
}
