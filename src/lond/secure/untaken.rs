//! Critical messages that their handler did not take.
//!
//! A handler that is away costs no message: the caller is told NOT_TAKEN, keeps the message, and
//! sends it again after a while, or when it is told READY. Nothing was recorded of it, so that it
//! is new then.
//!
//! Order: what the caller has sent behind such a message, and before it heard of that, must not
//! overtake it when the handler comes back in between. So of that handler nothing with a higher
//! sequence is taken until the message itself has come again, or the caller says that it is settled
//! (it could not be kept, say).
//!
//! Bounded: a NOT_TAKEN that waits holds the request's part of the window; of handlers there are as
//! many as are configured.

use super::answer::OUT_FULL;
use super::requests::{Critical, Flight};
use super::{Recorder, Secure};
use crate::service::Service;
use base::line::Outgoing;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use wire::flow::Credit;
use wire::secure::{put_not_taken, put_ready};

/// Stands for a handler where `log:` requests are taken, by the reactor: as far as their host's
/// quota goes.
pub(super) const LOG: usize = usize::MAX;

/// A message that its handler did not take last.
#[derive(Debug)]
struct Awaited {
    /// Its number in the caller's spool: those above wait for it.
    sequence: u64,
    /// Why it was not taken.
    why: Arc<str>,
}

/// A NOT_TAKEN that is to be said.
#[derive(Debug)]
struct Note {
    id: u64,
    cost: usize,
    why: Arc<str>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Untaken {
    /// Of each handler the first message that it did not take, until that comes again.
    awaited: BTreeMap<usize, Awaited>,
    notes: VecDeque<Note>,
    /// Handlers that are back, of which the caller is to be told.
    back: BTreeSet<usize>,
}

impl Untaken {
    /// Why a message for this handler is not to be passed on, if it is not: one before it is
    /// awaited.
    pub(super) fn must_wait(&mut self, handler: usize, critical: &Critical) -> Option<Arc<str>> {
        let awaited = self.awaited.get(&handler)?;
        if critical.sequence > awaited.sequence && critical.settled <= awaited.sequence {
            return Some(Arc::clone(&awaited.why));
        }
        self.awaited.remove(&handler);
        None
    }

    /// The caller is to hear that this request was not taken.
    pub(super) fn push(&mut self, id: u64, cost: usize, why: Arc<str>) {
        self.notes.push_back(Note { id, cost, why });
    }

    /// How many requests the caller is still to hear that of.
    pub(super) fn len(&self) -> usize {
        self.notes.len()
    }

    /// Nobody is there to hear it.
    pub(super) fn clear(&mut self) {
        self.notes.clear();
    }

    /// Encodes what there is room for.
    pub(super) fn fill(&mut self, out: &mut Outgoing, credit: &mut Credit, service: &Service) {
        while out.len() < OUT_FULL
            && let Some(Note { id, cost, why }) = self.notes.pop_front()
        {
            put_not_taken(out.tail(), id, &why);
            credit.give_back(cost);
        }
        // Behind the NOT_TAKENs: who hears READY sends again what it has heard of.
        if self.notes.is_empty() {
            for handler in std::mem::take(&mut self.back) {
                if let Some(route) = service.routes.get(handler) {
                    put_ready(out.tail(), &route.name);
                }
            }
        }
    }
}

impl<R: Recorder> Secure<R> {
    /// The handler did not take this critical message, nor those that follow it.
    pub(super) fn not_taken(&mut self, id: u64, flight: Flight, why: &str) {
        let Flight { cost, handler, critical: Some(critical), .. } = flight else { return };
        self.requests.forget(&critical);
        let why: Arc<str> = why.into();
        if let Some(handler) = handler.or_else(|| (*critical.command == *"log").then_some(LOG)) {
            let (sequence, why) = (critical.sequence, Arc::clone(&why));
            let awaited = self.untaken.awaited.entry(handler).or_insert(Awaited { sequence, why });
            awaited.sequence = awaited.sequence.min(sequence);
        }
        let followers = critical.followers.iter().map(|follower| (follower.id, follower.cost));
        for (id, cost) in std::iter::once((id, cost)).chain(followers) {
            if self.is_gone() {
                self.credit.give_back(cost);
            } else {
                self.untaken.push(id, cost, Arc::clone(&why));
            }
        }
    }

    /// Whether the caller keeps a critical message that this handler did not take.
    pub fn awaits(&self, handler: usize) -> bool {
        self.untaken.awaited.contains_key(&handler)
    }

    /// A handler that had not taken a critical message is back.
    pub fn handler_back(&mut self, handler: usize) {
        if self.untaken.awaited.contains_key(&handler) && !self.is_gone() {
            self.untaken.back.insert(handler);
        }
    }
}
