//! The dial: the supervisor is asked for the peer's addresses, then for attempts at them beside
//! each other, of which one becomes the link.
//!
//! An attempt begins when it is asked for: that its socket comes a moment later changes nothing of
//! the race. What is asked and not answered, because the supervisor's program was replaced, ends
//! with the dial.

use super::sockets::Sockets;
use crate::connection::Connection;
use crate::link::Now;
use crate::messages::FromLink;
use crate::race::{ADDRESSES_MOST, Addresses, Race};
use crate::resolve::{Found, Resolver};
use crate::turn::Dialled;
use base::WireKind;
use base::line::Outgoing;
use net::{Event, Token};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Instant;
use supervise::look_up::Answer;
use wire::secure::Tunnel;

/// Of attempts to reach the peer, of which one becomes the link and keeps its token.
pub(super) const FIRST_ATTEMPT: usize = 3;
/// More than there are of them at a time, with a link beside.
pub(super) const ATTEMPTS: usize = 4 * ADDRESSES_MOST;

/// What a dial has made so far, and what is known from those before it.
#[derive(Default)]
pub(super) struct Dialling {
    addresses: Addresses,
    resolver: Resolver,
    /// What the dial tries, as the supervisor knows it.
    found: Option<Found>,
    /// Why it could not even begin.
    failed: Option<String>,
    /// A dial that has its addresses.
    race: Option<Race>,
    attempts: Vec<Attempt>,
    /// How many attempts there ever were: each is called by its number, and has the next token in
    /// turn.
    count: u64,
}

struct Attempt {
    number: u64,
    address: SocketAddr,
    token: Token,
    /// Its socket, once the supervisor has sent it.
    connection: Option<Connection>,
    /// Its TCP connection is made.
    connected: bool,
}

/// The connection that won.
pub(super) struct Linked {
    pub(super) connection: Connection,
    address: SocketAddr,
    token: Token,
    /// The link was opened over it.
    opened: bool,
}

impl Dialling {
    /// When the next attempt is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.race.as_ref().and_then(Race::deadline)
    }

    /// Whether an attempt may be gone on with now.
    pub(super) fn readable(&self) -> bool {
        self.attempts.iter().filter_map(|attempt| attempt.connection.as_ref()).any(Connection::readable)
    }

    /// Whether connections are being made.
    pub(super) fn is_under_way(&self) -> bool {
        self.race.is_some()
    }

    /// An attempt has failed, if it is still under way.
    fn attempt_failed(&mut self, number: u64, why: String, now: Now) {
        let Some(at) = self.attempts.iter().position(|attempt| attempt.number == number) else { return };
        let address = self.attempts.swap_remove(at).address;
        if let Some(race) = &mut self.race {
            race.failed(address, why, now.mono);
        }
    }

    fn race(&mut self, found: Found, now: Now) {
        let order = self.addresses.order(&found.addresses);
        self.race = Some(Race::new(order, now.mono));
        self.found = Some(found);
    }
}

impl Sockets {
    pub(super) fn begin_dial(&mut self, now: Now) {
        match self.dialling.resolver.begin() {
            Ok(found) => self.dialling.race(found, now),
            Err(number) => {
                if let Err(error) = self.control.send(&FromLink::LookUp { number }) {
                    self.dialling.failed = Some(format!("look up: ask the supervisor: {error}"));
                }
            }
        }
    }

    /// What was looked up is tried, or kept for the next dial.
    pub(super) fn take_addresses(&mut self, number: u64, answer: Answer, now: Now) {
        match self.dialling.resolver.answered(number, answer) {
            Some(Ok(found)) => self.dialling.race(found, now),
            Some(Err(why)) => self.dialling.failed = Some(why),
            None => {}
        }
    }

    /// What the poll said of the link, or of an attempt.
    pub(super) fn note_link(&mut self, token: Token, event: &Event) {
        if let Some(link) = self.link.as_mut().filter(|link| link.token == token) {
            link.connection.note(event);
        }
        for attempt in self.dialling.attempts.iter_mut().filter(|attempt| attempt.token == token) {
            if let Some(connection) = &mut attempt.connection {
                connection.note(event);
            }
        }
    }

    /// Begins the attempts that are due and goes on with those that are under way, until one is the
    /// link or all have failed.
    pub(super) fn go_on_dialling(&mut self, now: Now) -> Dialled {
        if let Some(why) = self.dialling.failed.take() {
            return Dialled::Failed(why);
        }
        while self.dialling.race.is_some() {
            while let Some(address) = self.dialling.race.as_mut().and_then(|race| race.due(now.mono)) {
                self.attempt(address, now);
            }
            match self.advance_attempts(now) {
                Dialled::UnderWay => {}
                news => return news,
            }
            if let Some(why) = self.dialling.race.as_ref().and_then(Race::lost) {
                self.dialling.race = None;
                return Dialled::Failed(why);
            }
            // One that has failed makes the next due at once.
            if self.dialling.deadline().is_none_or(|at| at > now.mono) {
                break;
            }
        }
        Dialled::UnderWay
    }

    /// Has an attempt begun.
    fn attempt(&mut self, address: SocketAddr, now: Now) {
        let attempt = self.dialling.count;
        self.dialling.count = attempt.wrapping_add(1);
        let place = usize::try_from(attempt % ATTEMPTS as u64).unwrap_or_default();
        let token = Token(FIRST_ATTEMPT + place);
        let (connection, connected) = (None, false);
        self.dialling.attempts.push(Attempt { number: attempt, address, token, connection, connected });
        let found = self.dialling.found.as_ref();
        let place = found.and_then(|found| found.addresses.iter().position(|it| *it == address));
        let asked = match (found, place) {
            (Some(found), Some(place)) => {
                self.control.send(&FromLink::Connect { attempt, number: found.number, place })
            }
            // A race is over what was found.
            (None, _) | (_, None) => Err(ErrorKind::NotFound.into()),
        };
        if let Err(error) = asked {
            let why = format!("connect to {address}: ask the supervisor: {error}");
            self.dialling.attempt_failed(attempt, why, now);
        }
    }

    /// The supervisor has begun an attempt: its socket has come, if this process could have it.
    pub(super) fn attempt_begun(&mut self, number: u64, now: Now) {
        let begun = self.control.take_descriptor();
        // With the dial that it was for, it is over.
        let Some(attempt) = self.dialling.attempts.iter_mut().find(|it| it.number == number) else { return };
        let made = match (begun, self.peer.wire, &self.keys) {
            (None, ..) => Err("no socket came: the limit of open files is reached".to_owned()),
            (Some(begun), WireKind::Classic, _) => Ok((begun, None)),
            (Some(begun), WireKind::Secure, Some((identity, pins))) => {
                let tunnel = Tunnel::caller(identity, &self.peer.host.id, pins);
                tunnel.map(|tunnel| (begun, Some(tunnel))).map_err(|error| error.to_string())
            }
            (Some(_), WireKind::Secure, None) => Err("no key of our own to show".to_owned()),
        };
        let made = made.and_then(|(begun, tunnel)| {
            Connection::go_on(begun, tunnel, &self.registry, attempt.token).map_err(|error| error.to_string())
        });
        match made {
            Ok(connection) => attempt.connection = Some(connection),
            Err(why) => {
                let why = format!("connect to {}: {why}", attempt.address);
                self.dialling.attempt_failed(number, why, now);
            }
        }
    }

    /// The supervisor could not begin an attempt.
    pub(super) fn attempt_not_begun(&mut self, number: u64, why: String, now: Now) {
        self.dialling.attempt_failed(number, why, now);
    }

    /// Goes on with each attempt. The first that is ready is the link; those that have failed are
    /// gone.
    fn advance_attempts(&mut self, now: Now) -> Dialled {
        let (mut at, mut reached) = (0, false);
        while let Some(attempt) = self.dialling.attempts.get_mut(at) {
            let Some(connection) = &mut attempt.connection else {
                at += 1;
                continue;
            };
            let advanced = connection.advance(&mut self.scratch);
            let newly = !attempt.connected && connection.is_connected();
            attempt.connected |= newly;
            reached |= newly;
            match advanced {
                Ok(true) => {
                    let Attempt { address, token, connection, .. } = self.dialling.attempts.swap_remove(at);
                    // The others are closed.
                    self.dialling.race = None;
                    self.dialling.attempts.clear();
                    self.link =
                        connection.map(|connection| Linked { connection, address, token, opened: false });
                    return Dialled::Connected;
                }
                Ok(false) => {
                    if let Some(race) = self.dialling.race.as_mut().filter(|_| newly) {
                        race.connected(now.mono);
                    }
                    at += 1;
                }
                Err(why) => {
                    let number = attempt.number;
                    self.dialling.attempt_failed(number, why, now);
                }
            }
        }
        let reached = reached && self.dialling.attempts.iter().any(|attempt| attempt.connected);
        if reached { Dialled::Reached } else { Dialled::UnderWay }
    }

    /// Notes that the link is open over the connection that won.
    pub(super) fn note_opened(&mut self) {
        if let Some(link) = &mut self.link {
            link.opened = true;
            self.dialling.addresses.opened(link.address);
        }
    }

    /// Ends the connection to the peer, or all that were to become it.
    pub(super) fn end_link(&mut self, out: &mut Outgoing) {
        self.dialling.race = None;
        self.dialling.attempts.clear();
        self.dialling.resolver.give_up();
        self.dialling.failed = None;
        if let Some(Linked { mut connection, address, opened, .. }) = self.link.take() {
            connection.last_words(out);
            if !opened {
                self.dialling.addresses.spoiled(address);
            }
        }
    }
}
