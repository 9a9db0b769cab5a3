//! The wire of a link, as the reactor's loop sees it: one face for both.

use super::secure_link::SecureLink;
use crate::Reason;
use crate::access::Rights;
use crate::classic::Classic;
use crate::handler::{Reply, Ticket};
use crate::keeper::Keeper;
use crate::secure::Secure;
use crate::service::Effect;
use crate::turn::Link;
use base::Pin;
use net::{Stream, TcpStream};
use std::io;
use std::time::Instant;

/// What is spoken on the link.
#[derive(Debug)]
pub(super) enum Wire {
    /// Lines in the clear.
    Classic(Box<Classic>),
    /// Frames in a tunnel.
    Secure(Box<SecureLink>),
}

impl Wire {
    /// What is spoken in the tunnel, once it is known who calls.
    fn secure(&mut self) -> Option<&mut Secure<Keeper>> {
        match self {
            Wire::Classic(_) => None,
            Wire::Secure(link) => link.session(),
        }
    }

    /// What came of a request. On the classic wire nobody knows what is critical, and each has its
    /// place that must be filled: there a request that was not taken is answered `error:`, too.
    pub(super) fn answer(&mut self, ticket: Ticket, reply: Reply<'_>) {
        match self {
            Wire::Classic(session) => session.answer(ticket, &reply.text()),
            Wire::Secure(link) => {
                if let Some(session) = link.session() {
                    session.answer(ticket, reply);
                }
            }
        }
    }

    /// About how many requests are to be answered; on the secure wire those that handlers have.
    pub(super) fn under_way(&self) -> usize {
        match self {
            Wire::Classic(session) => session.unanswered(),
            Wire::Secure(link) => link.under_way(),
        }
    }

    /// What a request was in serves the next one.
    pub(super) fn take_room(&mut self, text: Vec<u8>) {
        if let Some(session) = self.secure() {
            session.take_room(text);
        }
    }

    /// Whether the caller keeps a critical message that this handler did not take.
    pub(super) fn awaits(&self, handler: usize) -> bool {
        match self {
            Wire::Classic(_) => false,
            Wire::Secure(link) => link.awaits(handler),
        }
    }

    /// The configuration was read again, with other rights of this caller.
    pub(super) fn change_rights(&mut self, rights: Rights) {
        match self {
            Wire::Classic(session) => session.change_rights(rights),
            Wire::Secure(link) => {
                if let Some(session) = link.session() {
                    session.change_rights(rights);
                }
            }
        }
    }

    /// A handler that had not taken a critical message is back.
    pub(super) fn handler_back(&mut self, handler: usize) {
        // On the classic wire every message was answered.
        if let Some(session) = self.secure() {
            session.handler_back(handler);
        }
    }

    /// What this host's own `lonc` answered to the ping; `None`: nothing.
    pub(super) fn asked_back(&mut self, ticket: Ticket, answer: Option<&[u8]>) {
        match self {
            Wire::Classic(session) => session.asked_back(ticket, answer),
            Wire::Secure(link) => {
                if let Some(session) = link.session() {
                    session.asked_back(ticket, answer);
                }
            }
        }
    }

    /// The key of a caller that was turned away for it.
    pub(super) fn refused_key(&self) -> Option<Pin> {
        match self {
            Wire::Classic(_) => None,
            Wire::Secure(link) => link.refused_key(),
        }
    }

    /// Says that nothing more will be said, where the wire has words for it.
    pub(super) fn close(&mut self) {
        match self {
            Wire::Classic(_) => {}
            Wire::Secure(link) => link.close(),
        }
    }

    /// Writes what there is to say, as far as the socket takes it.
    ///
    /// # Errors
    /// What the socket said.
    pub(super) fn flush(&mut self, link: &mut Stream<TcpStream>, now: Instant) -> io::Result<()> {
        match self {
            Wire::Classic(session) => link.flush(session.outgoing()),
            Wire::Secure(secure) => secure.flush(link, now),
        }
    }

    /// Ends the link.
    pub(super) fn finish(&mut self, reason: Reason, now: Instant) {
        match self {
            Wire::Classic(session) => session.finish(reason, now),
            Wire::Secure(link) => link.finish(reason, now),
        }
    }

    /// Whether answers of this handler are to be taken now.
    pub(super) fn wants_answers_from(&self, handler: usize) -> bool {
        match self {
            Wire::Classic(session) => session.wants_answers_from(handler),
            Wire::Secure(link) => link.wants_answers(),
        }
    }
}

impl Link for Wire {
    fn tick(&mut self, now: Instant) {
        match self {
            Wire::Classic(session) => session.tick(now),
            Wire::Secure(link) => link.tick(now),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Wire::Classic(session) => session.deadline(),
            Wire::Secure(link) => link.deadline(),
        }
    }

    fn step(&mut self, now: Instant) -> Option<Effect> {
        match self {
            Wire::Classic(session) => session.step(now),
            Wire::Secure(link) => link.step(now),
        }
    }

    fn has_work(&self) -> bool {
        match self {
            Wire::Classic(session) => session.has_work(),
            Wire::Secure(link) => link.has_work(),
        }
    }

    fn wants_input(&self) -> bool {
        match self {
            Wire::Classic(session) => session.wants_input(),
            Wire::Secure(link) => link.wants_input(),
        }
    }

    fn end_of_input(&mut self) {
        match self {
            Wire::Classic(session) => session.end_of_input(),
            Wire::Secure(link) => link.end_of_input(),
        }
    }

    fn lost(&mut self, cause: &io::Error) {
        match self {
            Wire::Classic(session) => session.lost(cause),
            Wire::Secure(link) => link.lost(cause),
        }
    }

    fn record(&mut self, now: Instant) {
        if let Some(session) = self.secure() {
            session.record(now);
        }
    }

    fn has_unrecorded(&self) -> bool {
        match self {
            Wire::Classic(_) => false,
            Wire::Secure(link) => link.has_unrecorded(),
        }
    }

    fn sync(&mut self, now: Instant) {
        if let Some(session) = self.secure() {
            session.sync(now);
        }
    }

    fn beat(&mut self, now: Instant) {
        if let Some(session) = self.secure() {
            session.beat(now);
        }
    }

    fn is_cut(&self) -> bool {
        match self {
            Wire::Classic(session) => session.ended().is_some(),
            Wire::Secure(link) => link.is_cut(),
        }
    }

    fn ended(&self) -> Option<&Reason> {
        match self {
            Wire::Classic(session) => session.ended(),
            Wire::Secure(link) => link.ended(),
        }
    }
}
