//! The broker's part that sees to it that a critical message arrives: answers, deadlines, storing, replay.

use super::{Broker, CON_DELAYED, CON_FAILED, CON_LOST, Effect, enqueue, send};
use crate::config::HostId;
use crate::lonc::inbox_owner::inbox_owner;
use crate::lonc::link::{Event, Now};
use crate::lonc::pending::{Entry, Owner, Purpose};
use crate::spool::{Disk, Sequence};
use crate::wire::classic::Cipher;
use crate::wire::line::Line;
use std::borrow::Cow;
use std::time::Duration;

/// Pause after the spool could not be read, before it is tried again.
const REPLAY_PAUSE: Duration = Duration::from_secs(5);

/// Least pause before the delayed directory is looked at again for files that could not be taken in.
const LEAST_RETRY: Duration = Duration::from_millis(100);

/// A critical request that is to be stored at the next sync.
#[derive(Debug)]
pub(super) struct Store {
    /// Who is to be told.
    pub owner: Option<Owner>,
    /// In the form in which it is stored.
    pub request: Box<[u8]>,
}

impl<D: Disk> Broker<D> {
    /// Gives the peer's lines to those whose answers they are.
    pub(super) fn take_answers(&mut self, now: Now) {
        loop {
            let Some((reader, cipher)) = self.link.answers() else { return };
            let Some(line) = reader.next_line() else { return };
            let Some(entry) = self.pending.answered(now.mono) else {
                // From here on no answer could be given to its request with certainty.
                self.link_event(Event::Lost("the peer sent an answer to no request".into()), now);
                return;
            };
            let answer = match line {
                Line::TooLong => Cow::Borrowed(&b"error:the answer is longer than max_line"[..]),
                Line::Whole(line) if entry.enciphered => decipher(line, cipher),
                Line::Whole(line) => Cow::Borrowed(line),
            };
            if let Some(owner) = entry.owner {
                self.counters.done += 1;
                if let Some(session) = self.sessions.get(owner.client) {
                    session.answers.fill(owner.slot, &answer);
                    enqueue(&mut self.queue, owner.client, session);
                    self.touched.push(owner.client);
                }
            }
            let outcome = Outcome::of(&entry, &answer);
            self.link.answered();
            if let Purpose::Critical { request, stored: Some(sequence) } = entry.purpose {
                self.close_stored(sequence, request, outcome, now);
            }
        }
    }

    /// A stored message was answered.
    fn close_stored(&mut self, sequence: Sequence, request: Box<[u8]>, outcome: Outcome, now: Now) {
        match outcome {
            Outcome::ToItsProgram => self.spool.settle(sequence),
            Outcome::Delivered => {
                self.counters.done += 1;
                self.spool.settle(sequence);
                self.effects.push(Effect::Delivered { request: request.into_vec() });
            }
            Outcome::Rejected(answer) => {
                log::warn!("message {sequence} was rejected by the peer: moved to failed/");
                // If that fails it stays where it is, counts as sent, and is tried again with the next link.
                if let Err(error) = self.spool.set_aside(sequence, &request, &answer, now.wall) {
                    self.note_spool_error(&error, now);
                }
            }
        }
    }

    /// Tells the owners of what is overdue. Each request fails alone: the link stays, and so does the entry, which
    /// recognises the late answer.
    pub(super) fn expire(&mut self, now: Now) {
        if self.pending.unstored_overdue(now.mono) {
            self.insure(now);
        }
        for overdue in self.pending.expire(now.mono) {
            let answer = match overdue.critical {
                None => CON_LOST,
                Some(true) => CON_DELAYED,
                Some(false) => CON_FAILED,
            };
            if overdue.critical != Some(true) {
                self.counters.lost += 1;
            }
            self.answer(overdue.owner, answer);
        }
    }

    /// Stores every critical request in flight, so that whatever is stored next comes behind them.
    fn insure(&mut self, now: Now) {
        let mut problem = None;
        let spool = &mut self.spool;
        let last = self.pending.insure(|requests| {
            let mut places = Vec::with_capacity(requests.len());
            for result in spool.store(requests, now.wall) {
                places.push(result.map_err(|error| problem = Some(error)).ok());
            }
            places
        });
        if let Some(last) = last {
            self.spool.sent_through(last);
        }
        if let Some(error) = problem {
            self.note_spool_error(&error, now);
        }
    }

    /// The link is gone: what was in flight gets no answer from it.
    pub(super) fn give_up_pending(&mut self, now: Now) {
        for entry in self.pending.take_all() {
            match (entry.purpose, entry.owner) {
                (Purpose::Plain, Some(owner)) => {
                    self.counters.lost += 1;
                    self.answer(owner, CON_LOST);
                }
                (Purpose::Critical { stored: Some(_), .. }, Some(owner)) => self.answer(owner, CON_DELAYED),
                (Purpose::Critical { request, stored: None }, Some(owner)) => {
                    self.stores_bytes += request.len();
                    self.stores.push(Store { owner: Some(owner), request });
                }
                (Purpose::Plain | Purpose::Critical { .. }, None) | (Purpose::Probe, _) => {}
            }
        }
        self.spool.rewind();
        self.commit(now);
    }

    /// Stores what was gathered: one sync for all.
    pub(super) fn commit(&mut self, now: Now) {
        if self.stores.is_empty() {
            return;
        }
        let stores = std::mem::take(&mut self.stores);
        self.stores_bytes = 0;
        let requests: Vec<&[u8]> = stores.iter().map(|store| &*store.request).collect();
        let results = self.spool.store(&requests, now.wall);
        debug_assert_eq!(results.len(), stores.len());
        let mut problem = None;
        for (store, result) in stores.iter().zip(results) {
            let answer = match result {
                Ok(_) => CON_DELAYED,
                Err(error) => {
                    self.counters.lost += 1;
                    problem = Some(error);
                    CON_FAILED
                }
            };
            if let Some(owner) = store.owner {
                self.answer(owner, answer);
            }
        }
        if let Some(error) = problem {
            self.note_spool_error(&error, now);
        }
    }

    /// Sends what is stored, oldest first, a bounded number at a time.
    pub(super) fn replay(&mut self, now: Now) {
        if self.replay_at.is_some_and(|at| at <= now.mono) {
            self.replay_at = None;
        }
        let held = self.draining.is_some() || self.replay_at.is_some();
        while !held
            && self.link.is_up()
            && self.pending.replay_room()
            && !self.link.clogged()
            && self.spool.has_unsent()
        {
            match self.spool.next_unsent() {
                Ok(Some(message)) => {
                    let text = message.request.into_boxed_slice();
                    let stored = Some(message.sequence);
                    let purpose = Purpose::Critical { request: text.clone(), stored };
                    let sent = send(&text, None, purpose, &mut self.link, &mut self.pending, now);
                    debug_assert!(sent, "the link is up");
                }
                Ok(None) => return,
                Err(error) => {
                    self.note_spool_error(&error, now);
                    self.replay_at = Some(now.mono + REPLAY_PAUSE);
                    return;
                }
            }
        }
    }

    /// Takes in the files that local programs dropped into the delayed directory.
    pub(super) fn take_in(&mut self, now: Now) {
        if self.draining.is_some() || self.take_in_at.is_none_or(|at| at > now.mono) {
            return;
        }
        self.take_in_at = None;
        self.insure(now);
        let hosts = &self.hosts;
        let is_host = |id: &str| HostId::new(id).is_ok_and(|id| hosts.get(&id).is_some());
        let belongs = |name: &str| inbox_owner(name, is_host) == Some(self.peer.as_str());
        let taken = self.spool.take_in(&self.delayed_dir, &belongs, now.wall);
        if taken.stored > 0 {
            log::info!("took {} messages in from files in the delayed directory", taken.stored);
        }
        if taken.more {
            self.take_in_at = Some(now.mono);
        } else if let Some(at) = taken.retry_at {
            let pause = Duration::try_from(at.duration_since(now.wall)).unwrap_or_default();
            self.take_in_at = Some(now.mono + pause.max(LEAST_RETRY));
        }
        if let Some(error) = taken.refused {
            self.note_spool_error(&error, now);
        }
    }

    fn note_spool_error(&mut self, error: &dyn std::error::Error, now: Now) {
        let text = error.to_string();
        if let Some(line) = self.spool_repeats.line(&text, now.mono) {
            log::error!("{line}");
            self.changed = true;
        }
        self.spool_error = Some((text, now.wall));
    }
}

/// What an answer means for a stored message.
enum Outcome {
    /// Its program was still waiting and has got the answer, whatever it is.
    ToItsProgram,
    Delivered,
    /// It will not get better by asking again.
    Rejected(Vec<u8>),
}

impl Outcome {
    fn of(entry: &Entry, answer: &[u8]) -> Outcome {
        match (entry.owner, answer) {
            (Some(_), _) => Outcome::ToItsProgram,
            (None, b"refused" | b"unknown_cmd" | b"") => Outcome::Rejected(answer.to_vec()),
            (None, _) => Outcome::Delivered,
        }
    }
}

/// The answer to an enciphered request. Some versions of the original answer some of them in clear.
fn decipher<'a>(line: &'a [u8], cipher: &Cipher) -> Cow<'a, [u8]> {
    if !line.starts_with(b"enc:") {
        return Cow::Borrowed(line);
    }
    match cipher.open(line) {
        Ok(mut text) => {
            while text.last() == Some(&b'\n') {
                text.pop();
            }
            match text.contains(&b'\n') {
                false => Cow::Owned(text),
                true => Cow::Borrowed(b"error:the deciphered answer has more than one line"),
            }
        }
        Err(error) => Cow::Owned(format!("error:the answer could not be deciphered: {error}").into_bytes()),
    }
}
