//! A handler that answers in any order, and the one connection to it that this link has.
//!
//! Requests are passed on as they come, however many there are: many go with one write. Critical
//! messages alone are held back: of those the program has as many at once as `window` says, in
//! their order, and none while an answer to one of them is not recorded. So whenever this process
//! dies, that many at most were run and are not in the record; a program that has more than one
//! keeps marks of its own, by the names of the messages.
//!
//! A critical message that the program did not take, be it away or saying `later`, is its caller's
//! again, and so are those that wait here behind it. A program that is away is watched, as
//! [`super::lanes`] does; one that says `later` is asked again when the caller likes. Where a
//! process of `lond`'s own had no place for it, or no program, the caller is told within a second
//! to send it again.

use super::program::Program;
use super::room::Room;
use super::watch::{Again, Watch};
use crate::handler::tag::{self, Speaker};
use crate::handler::tagged::Conversation;
use crate::handler::{Reply, Ticket};
use crate::service::{MessageName, Order};
use base::HostId;
use net::{Event, Registry, Token};
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// How long the connection is kept without a request.
const IDLE: Duration = Duration::from_secs(30);

/// How much longer than a request may take this side waits where `lond` itself runs the program:
/// the process that does so keeps the time, and a request may wait there before it is begun.
const OWN_PATIENCE: Duration = Duration::from_secs(5);

/// A handler of the configuration, as one link uses it.
#[derive(Debug)]
pub(super) struct Tagged {
    caller: HostId,
    window: usize,
    program: Program<Conversation>,
    /// Critical messages that wait for those before them, as they will be passed on.
    critical: VecDeque<(Ticket, Box<[u8]>)>,
    /// Those that were passed on and not answered.
    in_hand: BTreeSet<Ticket>,
    /// An answer to one is not recorded.
    holds_critical: bool,
    watch: Watch,
    /// What its own process had no place for is to come again.
    again: Again,
    back: bool,
    /// When the connection was last busy.
    used: Instant,
    line: Vec<u8>,
}

impl Tagged {
    /// A handler whose connection, with this token, is made when requests come.
    pub(super) fn new(
        config: &config::Handler,
        caller: &HostId,
        max_line: usize,
        token: usize,
        now: Instant,
    ) -> Tagged {
        let (speaker, timeout) = match config.program {
            Some(_) => (Speaker::Pool, 2 * config.timeout + OWN_PATIENCE),
            None => (Speaker::Program, config.timeout),
        };
        let conversation = Conversation::new(&config.name, speaker, timeout, max_line);
        Tagged {
            caller: caller.clone(),
            window: config.window,
            program: Program::new(&config.name, config.socket.clone(), Token(token), conversation),
            critical: VecDeque::new(),
            in_hand: BTreeSet::new(),
            holds_critical: false,
            watch: Watch::default(),
            again: Again::default(),
            back: false,
            used: now,
            line: Vec::new(),
        }
    }

    /// Takes note of an event for the connection.
    pub(super) fn note(&mut self, event: &Event) {
        self.program.note(event);
    }

    /// Passes a request on, now or in [`Tagged::write`].
    pub(super) fn ask(
        &mut self,
        ticket: Ticket,
        order: Order,
        name: Option<&MessageName>,
        request: &[u8],
        now: Instant,
    ) {
        let id = name.map_or_else(|| "-".to_owned(), MessageName::id);
        let given = name.and_then(|name| name.key.as_ref()).filter(|key| !key.is_automatic());
        let key = given.map_or(&b"-"[..], |key| key.as_bytes());
        let (from, id) = (self.caller.as_str().as_bytes(), id.as_bytes());
        let request = tag::Request { tag: ticket.0, from, id, key, text: request };
        self.line.clear();
        request.put(&mut self.line);
        match order {
            Order::Once => self.critical.push_back((ticket, self.line.as_slice().into())),
            Order::Kept | Order::Free => self.program.ask(ticket, &self.line, now),
        }
        self.used = now;
    }

    /// Forgets a request that was not passed on yet; whether it was there.
    pub(super) fn withdraw(&mut self, ticket: Ticket) -> bool {
        let before = self.critical.len();
        self.critical.retain(|(waiting, _)| *waiting != ticket);
        let withdrawn = self.critical.len() < before || self.program.withdraw(ticket);
        if withdrawn {
            self.in_hand.remove(&ticket);
        }
        withdrawn
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let idle = (self.program.is_free() && self.program.is_connected()).then(|| self.used + IDLE);
        let deadlines = [self.program.deadline(), self.watch.deadline(), self.again.deadline(), idle];
        deadlines.into_iter().flatten().min()
    }

    /// Whether there is something to read, if answers are `wanted`, or to pass on.
    pub(super) fn has_work(&self, wanted: bool, room: &Room) -> bool {
        self.program.has_work(wanted, room) || (!self.critical.is_empty() && self.may_pass_on())
    }

    /// The connection, and how much of an answer it has begun.
    pub(super) fn begun(&self) -> (Token, usize) {
        self.program.begun()
    }

    /// First part of a turn: as [`super::lanes::Lanes::read`].
    pub(super) fn read(
        &mut self,
        wanted: bool,
        room: &mut Room,
        scratch: &mut [u8],
        now: Instant,
        answer: &mut impl FnMut(Ticket, Reply<'_>),
    ) {
        let was_free = self.program.is_free();
        let mut away = None;
        let Tagged { in_hand, again, .. } = self;
        let mut told = |ticket, reply: Reply<'_>| {
            tell(in_hand.remove(&ticket), &mut away, again, (ticket, reply), answer);
        };
        self.program.read(wanted, room, scratch, now, &mut told);
        self.give_back(away, now, answer);
        if !was_free {
            self.used = now;
        } else if self.program.is_free() && self.program.is_connected() && self.used + IDLE <= now {
            self.program.close(now);
        }
    }

    /// Last part of a turn: as [`super::lanes::Lanes::write`].
    pub(super) fn write(
        &mut self,
        registry: &Registry,
        scratch: &mut [u8],
        now: Instant,
        answer: &mut impl FnMut(Ticket, Reply<'_>),
    ) {
        if self.watch.is_due(now) {
            self.program.probe(now);
        }
        self.back |= self.again.is_due(now);
        while self.may_pass_on()
            && let Some((ticket, line)) = self.critical.pop_front()
        {
            self.in_hand.insert(ticket);
            self.program.ask(ticket, &line, now);
        }
        let mut away = None;
        let Tagged { in_hand, again, .. } = self;
        let mut told = |ticket, reply: Reply<'_>| {
            tell(in_hand.remove(&ticket), &mut away, again, (ticket, reply), answer);
        };
        self.program.write(registry, scratch, now, &mut told);
        self.give_back(away, now, answer);
        if self.program.is_connected() {
            self.watch.came_back();
        }
    }

    /// Whether the program may have another critical message.
    fn may_pass_on(&self) -> bool {
        !self.holds_critical && self.in_hand.len() < self.window
    }

    /// A critical message was not taken, for this reason: those behind it must not overtake it, and
    /// go back too.
    fn give_back(&mut self, away: Option<String>, now: Instant, answer: &mut impl FnMut(Ticket, Reply<'_>)) {
        let short = self.program.take_short();
        let Some(why) = away else { return };
        if short {
            self.again.not_taken(fastrand::f64(), now);
        }
        for (ticket, _) in self.critical.drain(..) {
            answer(ticket, Reply::NotTaken(&why));
        }
        if !self.program.is_connected() {
            self.watch.begin(now);
        }
    }

    /// Whether a connection to the program could be made when that was tried last; `None`: it was
    /// not tried.
    pub(super) fn reachable(&self) -> Option<bool> {
        self.program.tried().map(|(_, made)| made)
    }

    /// Whether a program that could not be given a critical message has come back since the last
    /// call.
    pub(super) fn take_back(&mut self) -> bool {
        self.watch.take_back() | std::mem::take(&mut self.back)
    }

    /// Whether there is an answer to a critical message that could not be recorded.
    pub(super) fn hold_critical(&mut self, hold: bool) {
        self.holds_critical = hold;
    }

    /// End of a turn: as [`super::lanes::Lanes::pause`].
    pub(super) fn pause(&mut self, wanted: bool, room: &Room, now: Instant) {
        self.program.pause(wanted, room, now);
    }
}

/// Tells what came of a request; of a `critical` message that was not taken, notes why, and of one
/// that was, that there was a place for it.
fn tell(
    critical: bool,
    away: &mut Option<String>,
    again: &mut Again,
    (ticket, reply): (Ticket, Reply<'_>),
    answer: &mut impl FnMut(Ticket, Reply<'_>),
) {
    match reply {
        Reply::NotTaken(why) if critical => {
            away.get_or_insert_with(|| why.to_owned());
        }
        Reply::Answer(_) | Reply::Broken(_) if critical => again.taken(),
        Reply::NotTaken(_) | Reply::Answer(_) | Reply::Broken(_) => {}
    }
    answer(ticket, reply);
}

#[cfg(test)]
mod tests;
