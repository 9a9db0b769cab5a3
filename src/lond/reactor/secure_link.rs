//! The secure wire as the reactor holds it: the tunnel, and the session in it once the caller has
//! proved who it is.
//!
//! Until then nothing but the tunnel exists: no handler, no record, and of the caller's bytes at
//! most what the tunnel takes ([`wire::secure::MAX_HANDSHAKE`]). A caller that is turned
//! away gets the alert that says why; the link lingers for a moment, since closing it with bytes
//! unread would take that back.

use crate::Reason;
use crate::Suspect;
use crate::keeper::Keeper;
use crate::secure::{LINGER, Secure};
use crate::service::Effect;
use base::line::Outgoing;
use base::{HostId, Pin};
use net::{SEALED_FULL, Stream, TcpStream, write_sealed};
use std::io;
use std::time::Instant;
use wire::secure::{Tunnel, TunnelError};

/// One secure link.
#[derive(Debug)]
pub(super) struct SecureLink {
    tunnel: Tunnel,
    /// What is known of the caller if its key is not taken.
    suspect: Suspect,
    /// The key that the caller has shown, if it is no host's.
    refused_key: Option<Pin>,
    stage: Stage,
    /// Plaintext that came and was not looked at yet.
    plain: Vec<u8>,
}

#[derive(Debug)]
enum Stage {
    /// It is not known who calls; by then it must be.
    Handshake(Instant),
    /// The caller is known by its key, and served.
    Session(Box<Secure<Keeper>>),
    /// The caller is turned away. `until` then it may take in why.
    Refused { reason: Reason, until: Instant, shut: bool },
    /// It is over.
    Ended(Reason),
}

impl SecureLink {
    /// A link on which the caller begins to prove who it is.
    pub(super) fn new(tunnel: Tunnel, suspect: Suspect, opening_deadline: Instant) -> SecureLink {
        let stage = Stage::Handshake(opening_deadline);
        SecureLink { tunnel, suspect, refused_key: None, stage, plain: Vec::new() }
    }

    /// The key of a caller that was turned away for it.
    pub(super) fn refused_key(&self) -> Option<Pin> {
        self.refused_key
    }

    /// The pin of the key that the caller is shown.
    pub(super) fn own_pin(&self) -> Pin {
        self.tunnel.own_pin()
    }

    /// Takes what was read. When the caller has just proved who it is: who, and by which key; then
    /// [`SecureLink::open`] or [`SecureLink::refuse`] must follow.
    pub(super) fn receive(&mut self, ciphertext: &[u8], now: Instant) -> Option<(HostId, Pin)> {
        match &mut self.stage {
            Stage::Handshake(_) => match self.tunnel.feed(ciphertext, &mut self.plain) {
                Ok(()) => return self.tunnel.peer().cloned(),
                Err(error) => {
                    if let TunnelError::UnknownKey(pin) = error {
                        self.refused_key = Some(pin);
                    }
                    self.refuse(self.suspect.describe(&error), now);
                }
            },
            Stage::Session(session) => {
                session.heard(now);
                let fed = self.tunnel.feed(ciphertext, &mut self.plain);
                session.push(&self.plain, now);
                self.plain.clear();
                match fed {
                    Ok(()) if self.tunnel.peer_closed() => session.end_of_input(),
                    Ok(()) => {}
                    Err(error) => session.lost(error.to_string()),
                }
            }
            Stage::Refused { .. } | Stage::Ended(_) => {}
        }
        None
    }

    /// The caller is known: from here on there is a session.
    pub(super) fn open(&mut self, mut session: Secure<Keeper>, now: Instant) {
        session.push(&self.plain, now);
        self.plain.clear();
        self.stage = Stage::Session(Box::new(session));
    }

    /// Turns the caller away.
    pub(super) fn refuse(&mut self, why: String, now: Instant) {
        self.tunnel.close();
        self.stage = Stage::Refused { reason: Reason::Refused(why.into()), until: now + LINGER, shut: false };
    }

    /// The session, once there is one.
    pub(super) fn session(&mut self) -> Option<&mut Secure<Keeper>> {
        match &mut self.stage {
            Stage::Session(session) => Some(session),
            Stage::Handshake(_) | Stage::Refused { .. } | Stage::Ended(_) => None,
        }
    }

    /// How many requests handlers have.
    pub(super) fn under_way(&self) -> usize {
        match &self.stage {
            Stage::Session(session) => session.under_way(),
            Stage::Handshake(_) | Stage::Refused { .. } | Stage::Ended(_) => 0,
        }
    }

    /// Whether the caller keeps a critical message that this handler did not take.
    pub(super) fn awaits(&self, handler: usize) -> bool {
        match &self.stage {
            Stage::Session(session) => session.awaits(handler),
            Stage::Handshake(_) | Stage::Refused { .. } | Stage::Ended(_) => false,
        }
    }

    /// Whether an answer to a critical message is still to be recorded.
    pub(super) fn has_unrecorded(&self) -> bool {
        match &self.stage {
            Stage::Session(session) => session.has_unrecorded(),
            Stage::Handshake(_) | Stage::Refused { .. } | Stage::Ended(_) => false,
        }
    }

    /// The next thing to do.
    pub(super) fn step(&mut self, now: Instant) -> Option<Effect> {
        let written = self.tunnel.out().is_empty();
        match &mut self.stage {
            Stage::Session(session) => session.step(now, written),
            Stage::Refused { shut: shut @ false, .. } if written => {
                *shut = true;
                Some(Effect::Shut)
            }
            Stage::Refused { .. } | Stage::Handshake(_) | Stage::Ended(_) => None,
        }
    }

    /// Says that nothing more will be said.
    pub(super) fn close(&mut self) {
        self.tunnel.close();
    }

    /// Writes what there is to say, as far as the socket takes it.
    ///
    /// # Errors
    /// What the socket said.
    pub(super) fn flush(&mut self, link: &mut Stream<TcpStream>, now: Instant) -> io::Result<()> {
        let mut nothing = Outgoing::default();
        loop {
            // Before it is asked whether there is room: see `write_sealed`.
            link.flush(self.tunnel.out())?;
            let full = self.tunnel.out().len() >= SEALED_FULL;
            let frames = match &mut self.stage {
                Stage::Session(session) => {
                    if !full {
                        session.fill(now);
                    }
                    session.outgoing()
                }
                Stage::Handshake(_) | Stage::Refused { .. } | Stage::Ended(_) => &mut nothing,
            };
            let sealed = write_sealed(&mut self.tunnel, frames, link)?;
            if let Stage::Session(session) = &mut self.stage
                && self.tunnel.out().take_moved()
            {
                session.moved(now);
            }
            // The caller's window bounds how often this goes round.
            if sealed == 0 || !self.tunnel.out().is_empty() {
                return Ok(());
            }
        }
    }

    /// The caller sends nothing more.
    pub(super) fn end_of_input(&mut self) {
        match &mut self.stage {
            Stage::Handshake(_) => self.stage = Stage::Ended(Reason::CallerClosed),
            Stage::Session(session) => session.end_of_input(),
            Stage::Refused { reason, .. } => self.stage = Stage::Ended(reason.clone()),
            Stage::Ended(_) => {}
        }
    }

    /// The connection broke.
    pub(super) fn lost(&mut self, cause: &io::Error) {
        match &mut self.stage {
            Stage::Handshake(_) => self.stage = Stage::Ended(Reason::Lost(cause.to_string())),
            Stage::Session(session) => session.lost(cause.to_string()),
            Stage::Refused { reason, .. } => self.stage = Stage::Ended(reason.clone()),
            Stage::Ended(_) => {}
        }
    }

    /// Ends the link.
    pub(super) fn finish(&mut self, reason: Reason, now: Instant) {
        match &mut self.stage {
            Stage::Handshake(_) => self.stage = Stage::Ended(reason),
            Stage::Session(session) => session.finish(reason, now),
            Stage::Refused { .. } | Stage::Ended(_) => {}
        }
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        match &mut self.stage {
            Stage::Handshake(deadline) if *deadline <= now => {
                self.stage = Stage::Ended(Reason::OpeningTimeout);
            }
            Stage::Refused { reason, until, .. } if *until <= now => {
                self.stage = Stage::Ended(reason.clone());
            }
            Stage::Session(session) => session.tick(now),
            Stage::Handshake(_) | Stage::Refused { .. } | Stage::Ended(_) => {}
        }
    }

    /// When [`SecureLink::tick`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Handshake(deadline) => Some(*deadline),
            Stage::Session(session) => session.deadline(),
            Stage::Refused { until, .. } => Some(*until),
            Stage::Ended(_) => None,
        }
    }

    /// Whether the caller is to be read now.
    pub(super) fn wants_input(&self) -> bool {
        match &self.stage {
            Stage::Handshake(_) | Stage::Refused { .. } => true,
            Stage::Session(session) => session.wants_input(),
            Stage::Ended(_) => false,
        }
    }

    /// Whether answers of handlers are to be taken now.
    pub(super) fn wants_answers(&self) -> bool {
        match &self.stage {
            Stage::Session(session) => session.wants_answers(),
            Stage::Handshake(_) | Stage::Refused { .. } | Stage::Ended(_) => true,
        }
    }

    /// Whether [`SecureLink::step`] has something to do.
    pub(super) fn has_work(&self) -> bool {
        let written = !self.tunnel.wants_write();
        match &self.stage {
            Stage::Session(session) => session.has_work(written),
            Stage::Refused { shut, .. } => written && !shut,
            Stage::Handshake(_) | Stage::Ended(_) => false,
        }
    }

    /// Whether there is nobody at the other end any more, though work may be left.
    pub(super) fn is_cut(&self) -> bool {
        match &self.stage {
            Stage::Session(session) => session.is_cut(),
            Stage::Handshake(_) | Stage::Refused { .. } => false,
            Stage::Ended(_) => true,
        }
    }

    /// Why the link ended, once it has.
    pub(super) fn ended(&self) -> Option<&Reason> {
        match &self.stage {
            Stage::Session(session) => session.ended(),
            Stage::Ended(reason) => Some(reason),
            Stage::Handshake(_) | Stage::Refused { .. } => None,
        }
    }
}
