//! Critical messages: run once, whatever happens to links and processes.
//!
//! Each is looked up in the record before it is run, and its answer is in the record before it is sent. The record
//! is on disk and belongs to one process at a time: while an older link of the same caller still has it, critical
//! messages wait here, and nothing else does.

use super::answer::Answer;
use super::recorder::{Opening, Recalled, Recorded, Recorder, Wanted};
use super::requests::{Critical, Meeting, Request, Said, Unrecorded};
use super::{Reason, Secure, State};
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

/// The record cannot be used just now.
#[derive(Debug)]
pub struct Waiting {
    /// Why.
    why: String,
    /// It is tried again then, if a message waits for it.
    retry: Instant,
    /// The oldest such message has waited since.
    since: Option<Instant>,
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

impl Critical {
    /// One that nobody follows.
    pub fn alone(head: CriticalHead, command: &str) -> Critical {
        let CriticalHead { sequence, settled, key } = head;
        Critical { sequence, key, settled, command: command.into(), followers: Vec::new() }
    }
}

impl<R: Recorder> Secure<R> {
    /// Opens the record for the caller's epoch, or tries so again, and says our HELLO if that is still to be said.
    pub(super) fn open_record(&mut self, now: Instant) {
        match self.recorder.open(&self.epoch) {
            Opening::Open(mark) => {
                self.record_waits = None;
                self.greet(mark);
            }
            Opening::Busy => {
                let why = "an older link of yours does not end, and has the record of critical messages";
                self.wait_for_record(why, now + BUSY_RETRY, now);
            }
            Opening::Failed(cause) => self.record_failed(&cause, now),
        }
    }

    /// The record cannot be used.
    fn record_failed(&mut self, cause: &str, now: Instant) {
        if let Some(line) = self.record_repeats.line(cause, now) {
            log::warn!("{line}; critical messages wait");
        }
        self.wait_for_record(cause, now + BROKEN_RETRY, now);
    }

    /// The caller is told no mark, which is always true.
    fn wait_for_record(&mut self, why: &str, retry: Instant, now: Instant) {
        let since = self.record_waits.as_ref().and_then(|waiting| waiting.since);
        let since = since.or(self.needs_record().then_some(now));
        self.record_waits = Some(Waiting { why: why.to_owned(), retry, since });
        self.greet(0);
    }

    /// Whether the record can be used.
    fn has_record(&self) -> bool {
        self.record_waits.is_none() && self.recorder.is_open()
    }

    /// Whether a message waits for the record.
    fn needs_record(&self) -> bool {
        !self.requests.critical.is_empty() || self.requests.has_unrecorded()
    }

    /// Whether the record is to be opened now: when the caller has said which epoch it is in, and again after a while.
    pub(super) fn wants_record(&self, now: Instant) -> bool {
        let first = matches!(self.state, State::Open | State::Draining(_)) && !self.greeted;
        first || self.record_deadline().is_some_and(|retry| retry <= now)
    }

    /// When it is to be opened again.
    pub(super) fn record_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Open | State::Draining(_) | State::Settling(_) => {
                self.record_waits.as_ref().filter(|_| self.needs_record()).map(|waiting| waiting.retry)
            }
            State::Hello | State::Leaving(_) | State::Lingering(_) | State::Ended(_) => None,
        }
    }

    /// Whether critical messages are to be taken now.
    pub(super) fn takes_critical(&self) -> bool {
        self.has_record() && self.no_room.as_ref().is_none_or(|no_room| no_room.retry.is_none())
    }

    /// When the message that there was no room for is tried again.
    pub(super) fn room_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Open | State::Draining(_) if self.has_record() && !self.requests.critical.is_empty() => {
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
        match (&self.record_waits, &self.no_room) {
            (Some(Waiting { why, since: Some(since), .. }), _) if self.needs_record() => Some((why, *since)),
            (None, Some(no_room)) if !self.requests.critical.is_empty() => {
                Some((&no_room.why, no_room.since))
            }
            (Some(_) | None, _) => None,
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
            State::Settling(_) if self.has_record() => {}
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
    pub(super) fn take_critical(&mut self, now: Instant) -> bool {
        if self.requests.critical.is_empty() {
            return false;
        }
        match self.requests.meet() {
            Meeting::Follows => true,
            Meeting::Waits => false,
            Meeting::Alone => {
                let request = self.requests.critical.pop_front();
                let taken = request.is_some();
                request.into_iter().for_each(|request| self.look_up(request, now));
                taken
            }
        }
    }

    /// Looks a critical message up in the record, and runs it if nothing is known of it.
    fn look_up(&mut self, request: Request, now: Instant) {
        let Some(head) = &request.head else { return };
        let found = self.recorder.recall(&Wanted {
            ticket: Ticket(request.id),
            sequence: head.sequence,
            command: command(&request.text),
            settled: head.settled,
            held: &request.held,
            running: self.requests.critical_open(),
            key: head.key.as_ref(),
        });
        if !matches!(found, Recalled::NoRoom(_)) {
            self.no_room = None;
        }
        let Recorded { text, broken } = match found {
            Recalled::New => return self.run(request),
            Recalled::AnsweredByKey(Recorded { text, broken }) => {
                // It is an answer to this sequence from now on, however soon the key is forgotten.
                let Request { id, cost, head, text: asked, .. } = request;
                if let Some(head) = head {
                    let critical = Critical { key: None, ..Critical::alone(head, command(&asked)) };
                    self.requests.answered(id, cost, critical, Said { text: &text, broken }, false);
                }
                return;
            }
            Recalled::Answered(recorded) => recorded,
            Recalled::SettledBefore => Recorded { text: (*b"error:settled before").into(), broken: false },
            Recalled::NoRoom(cause) => {
                self.requests.critical.push_front(request);
                return self.wait_for_room(&cause, now);
            }
            Recalled::Failed(cause) => {
                self.requests.critical.push_front(request);
                return self.record_failed(&cause, now);
            }
        };
        let Request { id, cost, .. } = request;
        self.send(Answer { id, cost, cancellable: false, last: false, broken, text });
    }

    /// Whether an answer to a critical message is still to be recorded, be the record usable or not.
    pub fn has_unrecorded(&self) -> bool {
        self.requests.has_unrecorded()
    }

    /// Records the answers to critical messages, all with one sync, so that they may be sent: none is before. To be called
    /// once a turn, and before a handler gets the next of them. Lets go of the record when nobody will be answered from
    /// it any more, so that the next link's process may have it.
    pub fn record(&mut self, now: Instant) {
        if self.has_record() && self.requests.has_unrecorded() {
            let answers: Vec<&Unrecorded> = self.requests.unrecorded().collect();
            match self.recorder.add(&answers) {
                Ok(()) => self.recorded(),
                Err(cause) => self.record_failed(&cause, now),
            }
        }
        if self.is_gone() && !self.requests.has_critical() {
            self.recorder.close();
        }
    }

    /// The answers are in the record.
    fn recorded(&mut self) {
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
