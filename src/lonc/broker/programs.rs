//! The programs as the broker has them: their sessions, whose turn it is to be served, and to whom
//! something is to be written.
//!
//! A program waits for its turn once, while there is something of it to serve; it is *touched*,
//! once until that is taken, when its answers grew or it may be finished. Whoever changes a session
//! here has it weighed, as [`crate::sessions`] wants it: but for answers, of which many come at
//! once, when the last of them is there ([`Programs::answered`]).

use super::turns::Turns;
use crate::pending::Owner;
use crate::session::{ClientId, Hoarder, Rest, Session};
use crate::sessions::Sessions;
use std::time::Instant;

/// See the module.
#[derive(Debug)]
pub(super) struct Programs {
    sessions: Sessions,
    /// Programs whose lines wait to be served, in turn.
    turns: Turns<ClientId>,
    /// Programs whose answers grew, or that may be finished.
    touched: Vec<ClientId>,
    /// Those of them that got answers which are not weighed yet.
    answered: Vec<ClientId>,
}

impl Programs {
    /// None yet; lines of up to `max_line` bytes.
    pub(super) fn new(max_line: usize, now: Instant) -> Programs {
        Programs {
            sessions: Sessions::new(max_line, now),
            turns: Turns::default(),
            touched: Vec::new(),
            answered: Vec::new(),
        }
    }

    /// Their sessions, for what concerns neither turns nor what is to be written.
    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The same, to be changed.
    pub(super) fn sessions_mut(&mut self) -> &mut Sessions {
        &mut self.sessions
    }

    // What they do.

    /// One sent something.
    pub(super) fn sent(&mut self, id: ClientId, bytes: &[u8]) {
        if let Some(session) = self.sessions.get(id) {
            session.push(bytes);
            self.did_something(id);
        }
    }

    /// One has taken some of its answers, so there may be room for more of its requests.
    pub(super) fn read(&mut self, id: ClientId) {
        if self.sessions.peek(id).is_some() {
            self.did_something(id);
        }
    }

    fn did_something(&mut self, id: ClientId) {
        self.enqueue(id);
        self.sessions.was_active(id);
        self.sessions.weigh(id);
    }

    /// Nothing more is read of one; it still gets its answers.
    pub(super) fn close_input(&mut self, id: ClientId) {
        if let Some(session) = self.sessions.get(id) {
            session.close_input();
            self.touch(id);
        }
    }

    // Whose turn it is.

    /// Has one wait for its turn, if there is something of it to serve and it does not wait yet.
    fn enqueue(&mut self, id: ClientId) {
        if let Some(session) = self.sessions.get(id)
            && !session.queued
            && session.can_serve()
        {
            session.queued = true;
            self.turns.push(session.user, id);
        }
    }

    /// Whether nothing of anybody waits to be served.
    pub(super) fn none_waits(&self) -> bool {
        self.turns.is_empty()
    }

    /// Whether nothing waits of a user who `may` be served.
    pub(super) fn none_may(&self, may: impl Fn(u32) -> bool) -> bool {
        self.turns.none(may)
    }

    /// The next one of a user who `may` be served, whose turn it is.
    pub(super) fn next(&mut self, may: impl Fn(u32) -> bool) -> Option<ClientId> {
        self.turns.pop(may)
    }

    /// The session of one whose turn it is, if it is still there. [`Programs::served`] ends its
    /// turn.
    pub(super) fn serve(&mut self, id: ClientId) -> Option<&mut Session> {
        let session = self.sessions.get(id)?;
        session.queued = false;
        Some(session)
    }

    /// The turn of one is over: it may have got answers, and waits behind its user's others if
    /// there is more of it.
    pub(super) fn served(&mut self, id: ClientId) {
        self.enqueue(id);
        self.touch(id);
        self.sessions.weigh(id);
    }

    /// A request of one is held back no longer, nor are the later ones.
    pub(super) fn go_on(&mut self, id: ClientId) {
        if let Some(session) = self.sessions.get(id) {
            session.holding = false;
            self.enqueue(id);
        }
    }

    // What they are to get.

    /// Fills the slot of one that is still there.
    pub(super) fn answer(&mut self, owner: Owner, answer: &[u8]) {
        self.answer_of_many(owner, answer);
        self.answered();
    }

    /// The same for one of many answers that come together: [`Programs::answered`] follows the
    /// last.
    pub(super) fn answer_of_many(&mut self, owner: Owner, answer: &[u8]) {
        let id = owner.client;
        if let Some(session) = self.sessions.get(id).filter(|session| session.takes_answers()) {
            session.answer(owner.slot, answer);
            if !std::mem::replace(&mut session.answered, true) {
                self.answered.push(id);
            }
        }
    }

    /// Draws the consequences of answers: there is something to be written, and
    /// there may be room for more requests.
    pub(super) fn answered(&mut self) {
        let mut answered = std::mem::take(&mut self.answered);
        for id in answered.drain(..) {
            if let Some(session) = self.sessions.get(id) {
                session.answered = false;
                self.enqueue(id);
                self.touch(id);
                self.sessions.weigh(id);
            }
        }
        // Its room serves the next.
        self.answered = answered;
    }

    fn touch(&mut self, id: ClientId) {
        if let Some(session) = self.sessions.get(id)
            && !std::mem::replace(&mut session.touched, true)
        {
            self.touched.push(id);
        }
    }

    /// Those to whom something may be to be written, into `touched`, which is empty. Some may be
    /// gone.
    pub(super) fn take_touched(&mut self, touched: &mut Vec<ClientId>) {
        std::mem::swap(&mut self.touched, touched);
        for id in touched {
            if let Some(session) = self.sessions.get(*id) {
                session.touched = false;
            }
        }
    }

    /// Gives up those who keep others waiting: see [`Sessions::keep_time`].
    pub(super) fn keep_time(&mut self, now: Instant) -> Vec<(ClientId, u32, Hoarder)> {
        let given_up = self.sessions.keep_time(now);
        given_up.iter().for_each(|(id, ..)| self.touch(*id));
        given_up
    }

    // From one child to the next.

    /// One that the child before this one had.
    pub(super) fn resume(&mut self, rest: Rest<'_>) -> ClientId {
        let id = self.sessions.resume(rest);
        self.enqueue(id);
        self.touch(id);
        id
    }

    /// Serves and reads them no more: they wait to go to the next child. Those whose lines don't
    /// fit in `room` are closed instead; what is left of it.
    pub(super) fn park(&mut self, mut room: usize) -> usize {
        for id in self.sessions.ids() {
            let Some(session) = self.sessions.get(id) else { continue };
            match room.checked_sub(session.reader.len()) {
                Some(left) => {
                    room = left;
                    session.park();
                }
                None => self.close_input(id),
            }
        }
        let sessions = &mut self.sessions;
        self.turns.retain(|id| sessions.get(id).is_some_and(|session| session.queued));
        room
    }

    /// One could not go after all: what was read of it is served here.
    pub(super) fn unpark(&mut self, id: ClientId) {
        if let Some(session) = self.sessions.get(id) {
            session.unpark();
            self.enqueue(id);
            self.touch(id);
        }
    }
}
