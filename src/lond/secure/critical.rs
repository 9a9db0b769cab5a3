//! Critical messages: run once, whatever happens to links and processes.
//!
//! Each is looked up in the record before it is run, and its answer is in the record before it is sent. The record
//! is on disk and belongs to one process at a time: while an older link of the same caller still has it, critical
//! messages wait here, and nothing else does.

use super::answer::Answer;
use super::requests::{Critical, Meeting, Request, Said, Unrecorded};
use super::{Reason, Secure, State, Todo};
use crate::base::command;
use crate::handler::{Reply, Ticket};
use crate::wire::secure::CriticalHead;
use std::time::{Duration, Instant};

/// Pause before the record is asked for again while an older link has it.
pub const BUSY_RETRY: Duration = Duration::from_millis(20);

/// Pause before it is tried again after a failure.
pub const BROKEN_RETRY: Duration = Duration::from_secs(1);

/// How much longer than the drain timeout, within which an older link must have let go, critical messages wait for
/// the record. Then the link ends with an ERROR: an answer would mean that the message was delivered, and so its
/// caller keeps it and dials anew.
pub const RECORD_PATIENCE: Duration = Duration::from_secs(5);

/// What an answer says that never came.
const NO_ANSWER: &[u8] = b"error:the link ended before the handler answered; it is not known what was done";

/// How it stands with the record.
#[derive(Debug)]
pub enum RecordState {
    /// Not asked for yet.
    Closed,
    /// It is open.
    Open,
    /// It cannot be used just now.
    Waiting {
        /// Why.
        why: String,
        /// It is tried again then, if a message waits for it.
        retry: Instant,
        /// The oldest such message has waited since.
        since: Option<Instant>,
    },
}

impl RecordState {
    /// Whether it can be used.
    pub fn is_open(&self) -> bool {
        match self {
            RecordState::Open => true,
            RecordState::Closed | RecordState::Waiting { .. } => false,
        }
    }
}

/// There is no room for the answer to another message. The record is as good as before for those that are being run: room
/// was set aside for them.
#[derive(Debug)]
pub struct NoRoom {
    /// Why.
    why: String,
    /// The oldest message that may not be run has waited since.
    since: Instant,
    /// It is tried again then; `None`: it is being tried.
    retry: Option<Instant>,
}

/// What the record has of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recalled<'a> {
    /// Nothing: it is to be run.
    New,
    /// What was answered under its sequence.
    Answered(Said<'a>),
    /// What was answered to another message with the same key.
    AnsweredByKey(Said<'a>),
    /// The caller itself has settled this sequence before.
    SettledBefore,
    /// Nothing, and there is no room for its answer, for this reason: it may not be run.
    NoRoom(&'a str),
    /// It cannot be used, for this reason; nothing may be run.
    Failed(&'a str),
}

impl Critical {
    /// One that nobody follows.
    pub fn alone(head: CriticalHead, command: &str) -> Critical {
        let CriticalHead { sequence, settled, key } = head;
        Critical { sequence, key, settled, command: command.into(), followers: Vec::new() }
    }
}

impl Secure {
    /// The record is open for the caller's epoch; `mark` is its mark.
    pub fn record_opened(&mut self, mark: u64) {
        self.record = RecordState::Open;
        self.greet(mark);
    }

    /// An older link has the record. The caller is told no mark, which is always true.
    pub fn record_busy(&mut self, now: Instant) {
        let why = "an older link of yours does not end, and has the record of critical messages";
        self.wait_for_record(why, now + BUSY_RETRY, now);
    }

    /// The record cannot be used.
    pub fn record_failed(&mut self, cause: &str, now: Instant) {
        if let Some(line) = self.record_repeats.line(cause, now) {
            log::warn!("{line}; critical messages wait");
        }
        self.wait_for_record(cause, now + BROKEN_RETRY, now);
    }

    fn wait_for_record(&mut self, why: &str, retry: Instant, now: Instant) {
        let since = match self.record {
            RecordState::Waiting { since, .. } => since,
            RecordState::Closed | RecordState::Open => None,
        };
        let since = since.or(self.needs_record().then_some(now));
        self.record = RecordState::Waiting { why: why.to_owned(), retry, since };
        self.greet(0);
    }

    /// Whether a message waits for the record.
    fn needs_record(&self) -> bool {
        !self.requests.critical.is_empty() || self.requests.has_unrecorded()
    }

    /// Whether the record is to be asked for again.
    pub(super) fn wants_record(&self, now: Instant) -> bool {
        self.record_deadline().is_some_and(|retry| retry <= now)
    }

    /// When it is to be asked for again.
    pub(super) fn record_deadline(&self) -> Option<Instant> {
        match (&self.state, &self.record) {
            (State::Open | State::Draining(_) | State::Settling(_), RecordState::Waiting { retry, .. })
                if self.needs_record() =>
            {
                Some(*retry)
            }
            (
                State::Hello
                | State::Open
                | State::Draining(_)
                | State::Leaving(_)
                | State::Lingering(_)
                | State::Settling(_)
                | State::Ended(_),
                RecordState::Waiting { .. } | RecordState::Closed | RecordState::Open,
            ) => None,
        }
    }

    /// Whether critical messages are to be taken now.
    pub(super) fn takes_critical(&self) -> bool {
        self.record.is_open() && self.no_room.as_ref().is_none_or(|no_room| no_room.retry.is_none())
    }

    /// When the message that there was no room for is tried again.
    pub(super) fn room_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Open | State::Draining(_)
                if self.record.is_open() && !self.requests.critical.is_empty() =>
            {
                self.no_room.as_ref()?.retry
            }
            State::Hello
            | State::Open
            | State::Draining(_)
            | State::Leaving(_)
            | State::Lingering(_)
            | State::Settling(_)
            | State::Ended(_) => None,
        }
    }

    /// Has it tried again if it is time.
    pub(super) fn try_room_again(&mut self, now: Instant) {
        if self.room_deadline().is_some_and(|retry| retry <= now)
            && let Some(no_room) = &mut self.no_room
        {
            no_room.retry = None;
        }
    }

    /// There is no room for the answer to the next message.
    fn wait_for_room(&mut self, cause: &str, now: Instant) {
        if let Some(line) = self.record_repeats.line(cause, now) {
            log::warn!("{line}; critical messages wait");
        }
        let since = self.no_room.as_ref().map_or(now, |no_room| no_room.since);
        self.no_room = Some(NoRoom { why: cause.to_owned(), since, retry: Some(now + BROKEN_RETRY) });
    }

    /// What messages wait for, and since when.
    fn waits_for(&self) -> Option<(&str, Instant)> {
        match (&self.record, &self.no_room) {
            (RecordState::Waiting { why, since: Some(since), .. }, _) if self.needs_record() => {
                Some((why, *since))
            }
            (RecordState::Open, Some(no_room)) if !self.requests.critical.is_empty() => {
                Some((&no_room.why, no_room.since))
            }
            (RecordState::Closed | RecordState::Open | RecordState::Waiting { .. }, _) => None,
        }
    }

    /// Ends what has waited for the record too long.
    pub(super) fn check_patience(&mut self, now: Instant) {
        let patience = self.settings.drain_timeout + RECORD_PATIENCE;
        let Some((why, since)) = self.waits_for() else { return };
        if now.saturating_duration_since(since) < patience {
            return;
        }
        let why = why.to_owned();
        match &self.state {
            State::Open | State::Draining(_) => self.fail(&why, Reason::Record(why.clone()), now),
            // Those that may not be run are their caller's again.
            State::Settling(_) if self.record.is_open() => {}
            State::Settling(reason) => {
                let reason = reason.clone();
                let lost = self.requests.take_unrecorded().len();
                log::error!("record {lost} answers to critical messages: {why}; those will be run again");
                self.enter(State::Ended(reason));
            }
            State::Hello | State::Leaving(_) | State::Lingering(_) | State::Ended(_) => {}
        }
    }

    /// Takes the next critical message; whether it could be.
    pub(super) fn take_critical(&mut self) -> bool {
        if self.requests.critical.is_empty() {
            return false;
        }
        match self.requests.meet() {
            Meeting::Follows => true,
            Meeting::Waits => false,
            Meeting::Alone => {
                self.recalling = self.requests.critical.pop_front();
                self.todo.push_back(Todo::Recall);
                self.recalling.is_some()
            }
        }
    }

    /// What the record has of the message that was to be looked up. To be called before the next step.
    pub fn recalled(&mut self, ticket: Ticket, found: Recalled<'_>, now: Instant) {
        let Some(request) = self.recalling.take_if(|request| request.id == ticket.0) else {
            debug_assert!(false, "{ticket:?} is not being looked up");
            return;
        };
        if !matches!(found, Recalled::NoRoom(_)) {
            self.no_room = None;
        }
        let Said { text, broken } = match found {
            Recalled::New => return self.run(request),
            Recalled::AnsweredByKey(said) => {
                // It is an answer to this sequence from now on, however soon the key is forgotten.
                let Request { id, cost, head, text, .. } = request;
                if let Some(head) = head {
                    let critical = Critical { key: None, ..Critical::alone(head, command(&text)) };
                    self.requests.answered(id, cost, critical, said, false);
                }
                return;
            }
            Recalled::Answered(said) => said,
            Recalled::SettledBefore => Said { text: b"error:settled before", broken: false },
            Recalled::NoRoom(cause) => {
                self.requests.critical.push_front(request);
                return self.wait_for_room(cause, now);
            }
            Recalled::Failed(cause) => {
                self.requests.critical.push_front(request);
                return self.record_failed(cause, now);
            }
        };
        let Request { id, cost, .. } = request;
        let text = text.into();
        self.send(Answer { id, cost, cancellable: false, last: false, broken, text });
    }

    /// Answers that must be in the record before they are sent. None while the record cannot be used.
    pub fn unrecorded(&self) -> impl Iterator<Item = &Unrecorded> {
        let usable = self.record.is_open();
        self.requests.unrecorded().filter(move |_| usable)
    }

    /// Whether there are any, be the record usable or not.
    pub fn has_unrecorded(&self) -> bool {
        self.requests.has_unrecorded()
    }

    /// They are in the record.
    pub fn recorded(&mut self) {
        for answer in self.requests.take_unrecorded() {
            let Unrecorded { id, cost, last, text, broken, .. } = answer;
            self.send(Answer { id, cost, cancellable: false, last, broken, text });
        }
    }

    /// The time is up: what handlers have not answered is recorded as an error.
    pub(super) fn give_up(&mut self) {
        let ids: Vec<u64> = self
            .requests
            .flying()
            .filter(|(_, flight)| flight.critical.is_some())
            .map(|(id, _)| id)
            .collect();
        for id in ids {
            self.answer(Ticket(id), Reply::Broken(NO_ANSWER));
        }
    }
}
