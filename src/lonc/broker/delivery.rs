//! The broker's part that sees to it that a critical message arrives: answers, deadlines, storing,
//! replay.

use super::agenda::{REPLAY_PAUSE, REREAD_PAUSE};
use super::away::Way;
use super::sending::Sender;
use super::stores::{Store, store_all};
use super::{Broker, CON_DELAYED, CON_FAILED, CON_LOST, Effect};
use crate::link::Now;
use crate::pending::{Found, Insured, Owner, Purpose};
use base::Sequence;
use base::command;
use base::request;
use std::time::Duration;
use store::spool::{Disk, Message, StoreError};

/// Pause before the next part is tried, after one that had been passed over could be read.
const REREAD_NEXT: Duration = Duration::from_millis(100);

/// Least pause before files that could not be taken in are looked at again.
const LEAST_RETRY: Duration = Duration::from_millis(100);

impl<D: Disk> Broker<D> {
    /// The peer's handlers did not take these: they are kept, and tried again. All that is in
    /// flight is stored first, since whatever is stored next comes behind it.
    pub(super) fn take_back(&mut self, not_taken: Vec<(u64, String)>, now: Now) {
        if not_taken.is_empty() {
            return;
        }
        self.insure(now);
        for (number, why) in not_taken {
            let Found::Entry(entry) = self.pending.answered(number) else { continue };
            let Purpose::Critical { request, sequence, stored, .. } = entry.purpose else {
                // No peer of ours says that of what is not critical; nobody keeps it, so it is
                // lost.
                self.report.one_lost();
                if let Some(owner) = entry.owner {
                    self.programs.answer(owner, CON_LOST);
                }
                continue;
            };
            let command = command(request::payload(&request).bytes);
            let text = format!("the handler of {command:?} did not take a message: {why}; it is kept");
            if let Some(line) = self.report.spool_line(&text, now) {
                log::warn!("{line}");
                self.report.changes();
            }
            if let Some(sequence) = sequence.filter(|_| stored) {
                self.spool.unsend(sequence);
            }
            if !self.away.refused(command, sequence, why, now) {
                self.agenda.pause_replay(now.mono);
            }
            if let Some(owner) = entry.owner {
                if !stored {
                    self.report.one_lost();
                }
                self.programs.answer(owner, if stored { CON_DELAYED } else { CON_FAILED });
            }
        }
    }

    /// A stored message was answered.
    pub(super) fn close_stored(
        &mut self,
        sequence: Sequence,
        request: Box<[u8]>,
        outcome: Outcome,
        now: Now,
    ) {
        let command = command(request::payload(&request).bytes);
        if self.away.answered(command, sequence, now) {
            let held = self.spool.held(command);
            log::info!("the handler of {command:?} takes messages again; {held} that were held back follow");
            self.spool.release(command);
            self.report.changes();
        }
        self.held.earn();
        match outcome {
            Outcome::ToItsProgram => self.spool.settle(sequence),
            Outcome::Delivered => {
                self.report.one_done();
                self.spool.settle(sequence);
                self.effects.push(Effect::Delivered { request: request.into_vec() });
            }
            Outcome::Rejected(answer) => {
                let text = format!("message {sequence} was rejected by the peer: moved to failed/");
                if let Some(line) = self.report.spool_line(&text, now) {
                    log::warn!("{line}");
                }
                // If that fails it stays where it is, and the peer is asked again in a while:
                // nothing is kept in memory that a sick disk would make grow.
                if let Err(error) = self.spool.set_aside(sequence, &request, &answer, now.wall) {
                    self.report.spool_error(&error, now);
                    self.spool.unsend(sequence);
                    self.agenda.pause_replay(now.mono);
                }
            }
        }
    }

    /// Tells the owners of what is overdue. Each request fails alone: the link stays, and so does
    /// the entry, which recognises the late answer.
    pub(super) fn expire(&mut self, now: Now) {
        if self.pending.unstored_overdue(now.mono) {
            self.insure(now);
        }
        for overdue in self.pending.expire(now.mono) {
            if let Some(number) = overdue.cancelled {
                self.link.cancel(number);
            }
            let answer = match overdue.critical {
                None => CON_LOST,
                Some(true) => CON_DELAYED,
                Some(false) => CON_FAILED,
            };
            if overdue.critical != Some(true) {
                self.report.one_lost();
            }
            self.programs.answer(overdue.owner, answer);
        }
    }

    /// Stores every critical request in flight, so that whatever is stored next comes behind them.
    pub(super) fn insure(&mut self, now: Now) {
        let Broker { pending, spool, report, .. } = self;
        let last = pending.insure(|requests| {
            let results = store_all(spool, requests, now);
            let insured = results.into_iter().map(|result| match result {
                Ok(place) => Insured::Stored(place),
                Err(error @ StoreError::Over(_)) => {
                    report.not_stored(&error, now);
                    Insured::Over
                }
                Err(error) => {
                    report.not_stored(&error, now);
                    Insured::Failed
                }
            });
            insured.collect()
        });
        if let Some(last) = last {
            self.spool.sent_through(last);
        }
    }

    /// The link is gone: what was in flight gets no answer from it.
    pub(super) fn give_up_pending(&mut self, now: Now) {
        let mut older = Vec::new();
        for entry in self.pending.take_all() {
            match (entry.purpose, entry.owner) {
                (Purpose::Plain, Some(owner)) => {
                    self.report.one_lost();
                    self.programs.answer(owner, CON_LOST);
                }
                (Purpose::Critical { stored: true, .. }, Some(owner)) => {
                    self.programs.answer(owner, CON_DELAYED)
                }
                (Purpose::Critical { passed: true, .. }, Some(owner)) => {
                    self.report.one_lost();
                    self.programs.answer(owner, CON_FAILED);
                }
                (Purpose::Critical { request, sequence, stored: false, passed: false }, Some(owner)) => {
                    older.push(Store { owner: Some(owner), sequence, request });
                }
                (Purpose::Plain | Purpose::Critical { .. }, None) | (Purpose::Probe, _) => {}
            }
        }
        // What was gathered in this turn is newer than what was in flight.
        self.stores.push_before(older);
        self.spool.rewind();
        self.commit(now);
    }

    /// Gathers a critical request for the next sync.
    pub(super) fn gather(&mut self, owner: Owner, text: &[u8]) {
        if self.link.is_up() {
            self.held.spend();
        }
        self.stores.push(owner, text);
    }

    /// Stores what was gathered: one sync for all. What is in flight is older: where it could not
    /// be stored when the first of these was, it goes first now, and while it cannot, nothing newer
    /// is kept before it.
    pub(super) fn commit(&mut self, now: Now) {
        if self.stores.is_empty() {
            return;
        }
        self.insure(now);
        if self.pending.has_unstored() {
            for store in self.stores.take() {
                self.report.one_lost();
                if let Some(owner) = store.owner {
                    self.programs.answer(owner, CON_FAILED);
                }
            }
            return;
        }
        let stores = self.stores.take();
        let messages: Vec<_> = stores.iter().map(Store::message).collect();
        let results = store_all(&mut self.spool, &messages, now);
        debug_assert_eq!(results.len(), stores.len());
        for (store, result) in stores.iter().zip(results) {
            let answer = match result {
                Ok(_) => CON_DELAYED,
                Err(error) => {
                    self.report.one_lost();
                    self.report.not_stored(&error, now);
                    CON_FAILED
                }
            };
            if let Some(owner) = store.owner {
                self.programs.answer(owner, answer);
            }
        }
    }

    /// Tries again to read what could not be read of the spool and was passed over.
    pub(super) fn reread(&mut self, now: Now) {
        if !self.agenda.rereads(self.spool.passes_over(), now.mono) {
            return;
        }
        let pause = match self.spool.reread() {
            Ok(true) => REREAD_NEXT,
            Ok(false) => REREAD_PAUSE,
            Err(error) => {
                self.report.spool_error(&error, now);
                REREAD_PAUSE
            }
        };
        self.agenda.reread_at(now.mono + pause);
    }

    /// Sends what is stored, oldest first, a bounded number at a time.
    pub(super) fn replay(&mut self, now: Now) {
        self.agenda.end_pause(now.mono);
        self.try_held(now);
        while self.may_replay() && self.spool.has_unsent() {
            match self.spool.next_unsent() {
                Ok(Some(message)) => {
                    let sequence = message.sequence;
                    let command = command(request::payload(&message.request).bytes);
                    match self.away.way(command, sequence, now) {
                        Way::Send => self.send_stored(message, now),
                        Way::Pass => {
                            self.spool.unsend(sequence);
                            if !self.spool.hold(sequence, command) {
                                return;
                            }
                        }
                        Way::Wait => return self.spool.unsend(sequence),
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    self.report.spool_error(&error, now);
                    self.agenda.pause_replay(now.mono);
                    return;
                }
            }
        }
        // What was just held may be due.
        self.try_held(now);
    }

    fn may_replay(&self) -> bool {
        !self.ending.has_begun()
            && !self.leaving
            && !self.agenda.replay_is_paused()
            && self.link.is_up()
            && self.pending.replay_room(self.rivals.of_replay(self.turned_at.mono))
            && !self.link.clogged()
    }

    /// Tries the first messages of handlers that are away, where it is time.
    fn try_held(&mut self, now: Now) {
        if !self.may_replay() {
            return;
        }
        for command in self.away.due(now) {
            match self.spool.first_held(&command) {
                // One that was on its way when the others were held, and came back, goes before
                // them.
                Ok(Some(message)) if self.spool.is_unsent_before(message.sequence) => {}
                Ok(Some(message)) => {
                    self.away.tries(&command, message.sequence);
                    self.send_stored(message, now);
                }
                Ok(None) => {
                    self.spool.release(&command);
                    self.away.come_back(&command, now);
                }
                Err(error) => {
                    self.report.spool_error(&error, now);
                    self.away.put_off(&command, now.mono + REPLAY_PAUSE);
                }
            }
        }
    }

    /// Sends a stored message; one that the peer can never take is set aside.
    fn send_stored(&mut self, message: Message, now: Now) {
        let text = message.request.into_boxed_slice();
        let size = request::payload(&text).bytes.len();
        if let Err(why) = self.link.takes(size) {
            let outcome = Outcome::Rejected(format!("error:{why}").into_bytes());
            return self.close_stored(message.sequence, text, outcome, now);
        }
        let Broker { link, pending, spool, away, .. } = self;
        Sender { link, pending, spool, away }.critical(None, text, Some(message.sequence), true, now);
    }

    /// Takes in the files that local programs dropped into the delayed directory, and the
    /// supervisor moved into the peer's folder.
    pub(super) fn take_in(&mut self, now: Now) {
        if self.ending.has_begun() || !self.agenda.takes_files(now.mono) {
            return;
        }
        self.insure(now);
        let taken = self.spool.take_in(now.wall);
        if taken.stored > 0 {
            let text = format!("took {} messages in from files in the delayed directory", taken.stored);
            if let Some(line) = self.report.spool_line(&text, now) {
                log::info!("{line}");
            }
        }
        for text in taken.aside {
            if let Some(line) = self.report.aside_line(&text, now) {
                log::error!("{line}");
            }
        }
        if taken.more {
            self.agenda.look_for_files(now.mono);
        } else if let Some(at) = taken.retry_at {
            let pause = Duration::try_from(at.duration_since(now.wall)).unwrap_or_default();
            self.agenda.look_for_files(now.mono + pause.max(LEAST_RETRY));
        }
        for error in taken.over.into_iter().chain(taken.refused) {
            self.report.not_stored(&error, now);
        }
        if let Some(error) = taken.trouble {
            self.report.spool_error(&error, now);
        }
    }
}

/// What an answer means for a stored message.
pub(super) enum Outcome {
    /// Its program was still waiting and has got the answer, whatever it is.
    ToItsProgram,
    Delivered,
    /// It will not get better by asking again.
    Rejected(Vec<u8>),
}

impl Outcome {
    /// `broken`: the handler had got the message and gave no answer. Then nobody knows what was
    /// done, and it is for a person to look.
    pub(super) fn of(owner: Option<Owner>, answer: &[u8], broken: bool) -> Outcome {
        match (owner, answer) {
            (Some(_), _) => Outcome::ToItsProgram,
            (None, b"refused" | b"unknown_cmd" | b"") => Outcome::Rejected(answer.to_vec()),
            (None, _) if broken => Outcome::Rejected(answer.to_vec()),
            (None, _) => Outcome::Delivered,
        }
    }
}
