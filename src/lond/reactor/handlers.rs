//! A handler of the configuration, as one link uses it: over [`Lanes`] where answers come in the
//! order of the requests, over one connection ([`Tagged`]) where they say what they belong to.

use super::lanes::{self, Lanes};
use super::room::Room;
use super::tagged::Tagged;
use crate::handler::{Reply, Ticket};
use crate::service::{MessageName, Order};
use base::HostId;
use config::Form;
use net::{Event, Registry, Token};
use std::time::Instant;

/// Tokens that a handler takes.
pub(super) const TOKENS: usize = lanes::TOKENS;

/// See the module. What the functions do is said at those of [`Lanes`].
#[derive(Debug)]
pub(super) enum Handler {
    Lanes(Box<Lanes>),
    Tagged(Box<Tagged>),
}

impl Handler {
    /// A handler whose connections are made when requests of `caller` come. It takes [`TOKENS`]
    /// tokens from `first_token` on.
    pub(super) fn new(
        config: &config::Handler,
        caller: &HostId,
        max_line: usize,
        first_token: usize,
        now: Instant,
    ) -> Handler {
        match config.socket_form() {
            Form::Line => Handler::Lanes(Lanes::new(config, max_line, first_token, now).into()),
            Form::Tagged => Handler::Tagged(Tagged::new(config, caller, max_line, first_token, now).into()),
        }
    }

    /// Takes note of an event for the connection with this number, which is its token less the
    /// first.
    pub(super) fn note(&mut self, number: usize, event: &Event) {
        match self {
            Handler::Lanes(lanes) => lanes.note(number, event),
            Handler::Tagged(tagged) => tagged.note(event),
        }
    }

    /// Passes a request on, now or in [`Handler::write`]; `name`: of a critical message.
    pub(super) fn ask(
        &mut self,
        ticket: Ticket,
        order: Order,
        name: Option<&MessageName>,
        request: &mut Vec<u8>,
        now: Instant,
    ) {
        match self {
            Handler::Lanes(lanes) => lanes.ask(ticket, order, request, now),
            Handler::Tagged(tagged) => tagged.ask(ticket, order, name, request, now),
        }
    }

    pub(super) fn withdraw(&mut self, ticket: Ticket) -> bool {
        match self {
            Handler::Lanes(lanes) => lanes.withdraw(ticket),
            Handler::Tagged(tagged) => tagged.withdraw(ticket),
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Handler::Lanes(lanes) => lanes.deadline(),
            Handler::Tagged(tagged) => tagged.deadline(),
        }
    }

    pub(super) fn has_work(&self, wanted: bool, room: &Room, now: Instant) -> bool {
        match self {
            Handler::Lanes(lanes) => lanes.has_work(wanted, room, now),
            Handler::Tagged(tagged) => tagged.has_work(wanted, room),
        }
    }

    pub(super) fn begun(&self) -> impl Iterator<Item = (Token, usize)> {
        let (lanes, tagged) = match self {
            Handler::Lanes(lanes) => (Some(lanes.begun()), None),
            Handler::Tagged(tagged) => (None, Some(tagged.begun())),
        };
        lanes.into_iter().flatten().chain(tagged)
    }

    pub(super) fn read(
        &mut self,
        wanted: bool,
        room: &mut Room,
        scratch: &mut [u8],
        now: Instant,
        answer: &mut impl FnMut(Ticket, Reply<'_>),
    ) {
        match self {
            Handler::Lanes(lanes) => lanes.read(wanted, room, scratch, now, answer),
            Handler::Tagged(tagged) => tagged.read(wanted, room, scratch, now, answer),
        }
    }

    pub(super) fn write(
        &mut self,
        registry: &Registry,
        scratch: &mut [u8],
        now: Instant,
        answer: &mut impl FnMut(Ticket, Reply<'_>),
    ) {
        match self {
            Handler::Lanes(lanes) => lanes.write(registry, scratch, now, answer),
            Handler::Tagged(tagged) => tagged.write(registry, scratch, now, answer),
        }
    }

    pub(super) fn reachable(&self) -> Option<bool> {
        match self {
            Handler::Lanes(lanes) => lanes.reachable(),
            Handler::Tagged(tagged) => tagged.reachable(),
        }
    }

    pub(super) fn take_back(&mut self) -> bool {
        match self {
            Handler::Lanes(lanes) => lanes.take_back(),
            Handler::Tagged(tagged) => tagged.take_back(),
        }
    }

    pub(super) fn hold_critical(&mut self, hold: bool) {
        match self {
            Handler::Lanes(lanes) => lanes.hold_critical(hold),
            Handler::Tagged(tagged) => tagged.hold_critical(hold),
        }
    }

    pub(super) fn pause(&mut self, wanted: bool, room: &Room, now: Instant) {
        match self {
            Handler::Lanes(lanes) => lanes.pause(wanted, room, now),
            Handler::Tagged(tagged) => tagged.pause(wanted, room, now),
        }
    }
}
