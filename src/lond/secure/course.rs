//! Where a session stands, and when it goes on by itself: see the drawing in [`super`].
//!
//! There is one deadline: that of the opening, of the drain or of the linger, whichever the state
//! has. A link that was told to end has one more, by which it is over in every state; it is set
//! when that is told first and holds from then on.

use super::Reason;
use base::HostId;
use std::time::Instant;

/// A state of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// The caller's HELLO is to come.
    Hello,
    /// Requests are answered.
    Open,
    /// No new request is taken; those that were are still answered.
    Draining(Reason),
    /// What was encoded still goes out.
    Leaving(Reason),
    /// All is said; what still comes is thrown away.
    Lingering(Reason),
    /// There is no link any more; critical messages that are being run are waited for.
    Settling(Reason),
    /// The process can go.
    Ended(Reason),
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            State::Hello => "waiting for HELLO",
            State::Open => "open",
            State::Draining(_) => "draining",
            State::Leaving(_) => "leaving",
            State::Lingering(_) => "lingering",
            State::Settling(_) => "settling",
            State::Ended(_) => "ended",
        }
    }

    /// Whether answers reach nobody any more.
    pub(super) fn is_gone(&self) -> bool {
        match self {
            State::Hello | State::Open | State::Draining(_) => false,
            State::Leaving(_) | State::Lingering(_) | State::Settling(_) | State::Ended(_) => true,
        }
    }

    /// Whether there is no link any more.
    pub(super) fn is_cut(&self) -> bool {
        match self {
            State::Settling(_) | State::Ended(_) => true,
            State::Hello | State::Open | State::Draining(_) | State::Leaving(_) | State::Lingering(_) => {
                false
            }
        }
    }

    /// Why the link ended, once it has.
    pub(super) fn ended(&self) -> Option<&Reason> {
        match self {
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

/// See the module.
#[derive(Debug)]
pub(super) struct Course {
    state: State,
    /// When the state changes by itself: the opening's, the drain's or the linger's end.
    deadline: Option<Instant>,
    /// By when the link is over since it was told to end, if it was.
    told_end: Option<Instant>,
    /// What is still being run is recorded as an error now, while the session settles.
    giving_up: bool,
}

impl Course {
    /// The caller's HELLO is to come by then.
    pub(super) fn new(opening_deadline: Instant) -> Course {
        Course { state: State::Hello, deadline: Some(opening_deadline), told_end: None, giving_up: false }
    }

    /// Where the session stands.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// The one place where the state changes; says so of this caller's link.
    pub(super) fn enter(&mut self, state: State, caller: &HostId) {
        let (from, to) = (self.state.name(), state.name());
        match &state {
            State::Hello | State::Open => log::debug!("link of {caller}: {from} -> {to}"),
            State::Draining(reason)
            | State::Leaving(reason)
            | State::Lingering(reason)
            | State::Settling(reason)
            | State::Ended(reason) => log::debug!("link of {caller}: {from} -> {to} ({reason})"),
        }
        self.state = state;
    }

    // The deadline.

    /// When the session goes on by itself.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether it does now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// The state has no deadline.
    pub(super) fn has_time(&mut self) {
        self.deadline = None;
    }

    /// The state ends then, whatever was said before.
    pub(super) fn lasts_until(&mut self, at: Instant) {
        self.deadline = Some(at);
    }

    /// The link is told to end by then; what it was told first holds. When that is.
    pub(super) fn told_to_end(&mut self, by: Instant) -> Instant {
        *self.told_end.get_or_insert(by)
    }

    /// The state ends then at the latest.
    pub(super) fn hurries(&mut self, by: Instant) {
        self.deadline = Some(self.deadline.map_or(by, |earlier| earlier.min(by)));
    }

    /// A new state ends then, or when the link was told to be over.
    pub(super) fn leaves_by(&mut self, by: Instant) {
        self.deadline = Some(self.told_end.map_or(by, |earlier| earlier.min(by)));
    }

    /// A new state ends when the link was told to be over, if it was.
    pub(super) fn settles(&mut self) {
        self.deadline = self.told_end;
    }

    // The last means.

    /// What is still being run is given up in the next step.
    pub(super) fn give_up(&mut self) {
        self.giving_up = true;
    }

    /// Whether it is to be given up.
    pub(super) fn gives_up(&self) -> bool {
        self.giving_up
    }

    /// It was given up.
    pub(super) fn gave_up(&mut self) {
        self.giving_up = false;
    }
}
