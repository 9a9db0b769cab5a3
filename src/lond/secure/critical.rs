//! Critical messages: run once, whatever happens to links and processes.
//!
//! Each is looked up in the record before it is run, its answer is written to the record before the
//! next is run, and synced before it is sent ([`super::syncing`]). The record is on disk and
//! belongs to one process at a time: while an older link of the same caller still has it, critical
//! messages wait here, and nothing else does.

use super::answer::Answer;
use super::course::State;
use super::recorder::{Recalled, Recorded, Recorder, Wanted};
use super::requests::{Critical, Meeting, Request, Said, Unrecorded};
use super::{Reason, Secure};
use crate::handler::{Reply, Ticket};
use base::command;
use std::time::{Duration, Instant};
use wire::secure::CriticalHead;

/// How much longer than the drain timeout, within which an older link must have let go, critical
/// messages wait for the record. Then the link ends with an ERROR: an answer would mean that the
/// message was delivered, and so its caller keeps it and dials again.
pub(super) const RECORD_PATIENCE: Duration = Duration::from_secs(5);

/// What an answer says that never came.
const NO_ANSWER: &[u8] = b"error:the link ended before the handler answered; it is not known what was done";

impl Critical {
    /// One that nobody follows.
    pub(super) fn alone(head: CriticalHead, command: &str) -> Critical {
        let CriticalHead { sequence, settled, key } = head;
        Critical { sequence, key, settled, command: command.into(), followers: Vec::new() }
    }
}

impl<R: Recorder> Secure<R> {
    /// Opens the record for the caller's epoch, or tries so again, and says our HELLO if that is
    /// still to be said.
    pub(super) fn open_record(&mut self, now: Instant) {
        let needed = self.needs_record();
        let mark = self.memory.open(needed, now);
        self.greet(mark);
    }

    /// Whether a message waits for the record.
    fn needs_record(&self) -> bool {
        !self.requests.critical.is_empty() || self.requests.has_unrecorded()
    }

    /// Whether the record is to be opened now: when the caller has said which epoch it is in, and
    /// again after a while.
    pub(super) fn wants_record(&self, now: Instant) -> bool {
        let first =
            matches!(self.course.state(), State::Open | State::Draining(_)) && !self.output.has_greeted();
        first || self.record_deadline().is_some_and(|retry| retry <= now)
    }

    /// When it is to be opened again.
    pub(super) fn record_deadline(&self) -> Option<Instant> {
        match self.course.state() {
            State::Open | State::Draining(_) | State::Settling(_) => {
                self.memory.retry().filter(|_| self.needs_record())
            }
            State::Hello | State::Leaving(_) | State::Lingering(_) | State::Ended(_) => None,
        }
    }

    /// When the message that there was no room for is tried again.
    pub(super) fn room_deadline(&self) -> Option<Instant> {
        match self.course.state() {
            State::Open | State::Draining(_) if !self.requests.critical.is_empty() => {
                self.memory.room_retry()
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
        if self.room_deadline().is_some_and(|retry| retry <= now) {
            self.memory.try_room_again();
        }
    }

    /// Ends what has waited for the record too long.
    pub(super) fn check_patience(&mut self, now: Instant) {
        let patience = self.settings.drain_timeout + RECORD_PATIENCE;
        let waits_for = self.memory.waits_for(self.needs_record(), !self.requests.critical.is_empty());
        let Some((why, since)) = waits_for else { return };
        if now.saturating_duration_since(since) < patience && !self.memory.is_lost() {
            return;
        }
        let why = why.to_owned();
        match self.course.state() {
            State::Open | State::Draining(_) => self.fail(&why, Reason::Record(why.clone()), now),
            // Those that may not be run are their caller's again.
            State::Settling(_) if self.memory.is_usable() => {}
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
        let found = self.memory.recorder.recall(&Wanted {
            ticket: Ticket(request.id),
            sequence: head.sequence,
            command: command(&request.text),
            settled: head.settled,
            held: &request.held,
            running: self.requests.critical_open(),
            behind: self.requests.has_critical_before(head.sequence),
            key: head.key.as_ref(),
        });
        if !matches!(found, Recalled::NoRoom(_) | Recalled::HeldUp(_)) {
            self.memory.has_room();
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
                self.memory.wait_for_room(&cause, now);
                return;
            }
            Recalled::HeldUp(cause) => {
                self.requests.critical.push_front(request);
                self.memory.wait_for_an_earlier_one(&cause, now);
                return;
            }
            Recalled::Failed(cause) => {
                self.requests.critical.push_front(request);
                self.memory.failed(&cause, true, now);
                // There may be nothing to wait for.
                return self.check_patience(now);
            }
        };
        let Request { id, cost, .. } = request;
        self.send(Answer { id, cost, cancellable: false, last: false, broken, text });
    }

    /// Whether an answer to a critical message is still to be written, be the record usable or not.
    pub fn has_unrecorded(&self) -> bool {
        self.requests.has_unrecorded()
    }

    /// Writes the answers to critical messages to the record. To be called before a handler gets
    /// the next of them.
    pub fn record(&mut self, now: Instant) {
        if !self.memory.is_usable() || !self.requests.has_unrecorded() {
            return;
        }
        let answers: Vec<&Unrecorded> = self.requests.unrecorded().collect();
        match self.memory.recorder.write(&answers) {
            Ok(()) => {
                self.requests.wrote(now);
                // Before more is run.
                if self.is_much_unsynced() {
                    self.sync_now(now);
                }
            }
            Err(cause) => self.not_recorded(&cause, now),
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
