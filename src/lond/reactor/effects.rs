//! What the wire decided, carried out.
//!
//! Fails where the link's socket does; whatever else goes wrong is told to whom it concerns.

use super::log_request::log;
use super::refusals::say_refused;
use super::wire::Wire;
use super::{Known, Sockets};
use crate::handler::{Reply, Ticket, builtin};
use crate::messages::FromServe;
use crate::service::Effect;
use base::Pin;
use nix::sys::sysinfo::sysinfo;
use std::io;
use std::net::Shutdown;
use std::time::Instant;
use supervise::title;

impl Sockets {
    pub(super) fn do_as_decided(&mut self, wire: &mut Wire, effect: Effect, now: Instant) -> io::Result<()> {
        match (effect, &mut self.known) {
            (Effect::Shut, _) => {
                wire.close();
                let Some(link) = &mut self.link else { return Ok(()) };
                wire.flush(link, now)?;
                match link.socket().shutdown(Shutdown::Write) {
                    // The caller was faster.
                    Err(error) if error.kind() != io::ErrorKind::NotConnected => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
            (Effect::Opened, Some(known)) => {
                log::debug!("link open");
                // A handshake has used more of the stack than a link ever does.
                self.tidy = true;
                title::set(&format!("{} serving", known.caller));
                let opened = FromServe::Opened {
                    caller: known.caller.clone(),
                    pin: known.pin.as_ref().map(Pin::to_string),
                    own_pin: match wire {
                        Wire::Secure(link) => Some(link.own_pin().to_string()),
                        Wire::Classic(_) => None,
                    },
                    wire: match known.pin {
                        Some(_) => base::WireKind::Secure,
                        None => base::WireKind::Classic,
                    },
                    sandbox: Some(self.confined.in_words()),
                };
                if let Err(error) = self.control.send(&opened) {
                    log::warn!("tell the supervisor that the link is open: {error}");
                }
            }
            (Effect::Ask { handler, ticket, order, name, mut request }, Some(known)) => {
                known.tally.asked(handler);
                known.handlers[handler].ask(ticket, order, name.as_ref(), &mut request, now);
                wire.take_room(request);
            }
            (Effect::Withdraw { handler, ticket }, Some(known)) => {
                known.withdraw(wire, handler, ticket);
            }
            (Effect::AskBack(ticket), Some(known)) => known.ask_back.ask(ticket),
            (Effect::Load(ticket), Some(_)) => {
                let average = sysinfo().ok().map(|system| system.load_average().0);
                let answer = builtin::load_answer(average, self.settings.full_load);
                wire.answer(ticket, Reply::Answer(answer.as_bytes()));
            }
            (Effect::Log { ticket, text }, Some(known)) => {
                let quota = self.settings.log_quota;
                let logged = log(&self.ledger, &known.caller, quota, &text, now);
                wire.answer(ticket, logged.reply());
            }
            (Effect::Refused(barred), Some(known)) => {
                known.tally.refused(barred);
                say_refused(&self.ledger, &self.settings, &known.caller, barred, now);
            }
            (
                Effect::Opened
                | Effect::Ask { .. }
                | Effect::Withdraw { .. }
                | Effect::AskBack(_)
                | Effect::Load(_)
                | Effect::Log { .. }
                | Effect::Refused(_),
                None,
            ) => debug_assert!(false, "an effect before the caller is known"),
        }
        Ok(())
    }
}

impl Known {
    /// Nobody waits for the answer to this request any more.
    fn withdraw(&mut self, wire: &mut Wire, handler: usize, ticket: Ticket) {
        if !self.handlers[handler].withdraw(ticket) {
            return;
        }
        self.tally.withdrawn(handler);
        if let Wire::Secure(link) = wire
            && let Some(session) = link.session()
        {
            session.withdrawn(ticket);
        }
    }
}
