//! The dial: a look-up, then attempts at the peer's addresses beside each other, of which one
//! becomes the link.

use super::sockets::Sockets;
use crate::connection::Connection;
use crate::link::Now;
use crate::race::{ADDRESSES_MOST, Addresses, Race};
use crate::turn::Dialled;
use base::WireKind;
use base::line::Outgoing;
use config::Target;
use net::{Event, Token};
use std::net::SocketAddr;
use wire::secure::Tunnel;

/// Of attempts to reach the peer, of which one becomes the link and keeps its token.
pub(super) const FIRST_ATTEMPT: usize = 4;
/// More than there are of them at a time, with a link beside.
pub(super) const ATTEMPTS: usize = 4 * ADDRESSES_MOST;

/// What a dial has made so far, and what is known from those before it.
#[derive(Default)]
pub(super) struct Dialling {
    addresses: Addresses,
    /// A dial waits for its addresses.
    looks_up: bool,
    /// Why it could not even begin.
    failed: Option<String>,
    /// A dial that has its addresses.
    race: Option<Race>,
    attempts: Vec<Attempt>,
    /// How many attempts there ever were: each has the next token in turn.
    count: usize,
}

struct Attempt {
    address: SocketAddr,
    token: Token,
    connection: Connection,
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
    pub(super) fn deadline(&self) -> Option<std::time::Instant> {
        self.race.as_ref().and_then(Race::deadline)
    }

    /// Whether an attempt may be gone on with now.
    pub(super) fn readable(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.connection.readable())
    }

    /// Whether connections are being made.
    pub(super) fn is_under_way(&self) -> bool {
        self.race.is_some()
    }
}

impl Sockets {
    pub(super) fn begin_dial(&mut self, now: Now) {
        match &self.peer.target {
            Target::Address(address) => self.race(&[*address], now),
            Target::Lookup { name, port } => match self.resolver.begin(name, *port) {
                Ok(Some(addresses)) => self.race(&addresses, now),
                Ok(None) => self.dialling.looks_up = true,
                Err(why) => self.dialling.failed = Some(why),
            },
        }
    }

    fn race(&mut self, found: &[SocketAddr], now: Now) {
        let order = self.dialling.addresses.order(found);
        self.dialling.race = Some(Race::new(order, now.mono));
    }

    /// What the poll said of the link, or of an attempt.
    pub(super) fn note_link(&mut self, token: Token, event: &Event) {
        if let Some(link) = self.link.as_mut().filter(|link| link.token == token) {
            link.connection.note(event);
        }
        for attempt in self.dialling.attempts.iter_mut().filter(|attempt| attempt.token == token) {
            attempt.connection.note(event);
        }
    }

    /// Begins the attempts that are due and goes on with those that are under way, until one is the
    /// link or all have failed.
    pub(super) fn go_on_dialling(&mut self, now: Now) -> Dialled {
        self.take_addresses(now);
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

    /// What a look-up has found is tried, or kept for the next dial.
    fn take_addresses(&mut self, now: Now) {
        let Some(found) = self.resolver.ended() else { return };
        let wanted = std::mem::take(&mut self.dialling.looks_up);
        match found {
            Ok(addresses) if wanted => self.race(&addresses, now),
            Ok(addresses) => self.resolver.keep(addresses),
            Err(why) if wanted => self.dialling.failed = Some(why),
            // The dial that wanted it has failed already, and that was said.
            Err(_) => {}
        }
    }

    fn attempt(&mut self, address: SocketAddr, now: Now) {
        let tunnel = match (self.peer.wire, &self.keys) {
            (WireKind::Classic, _) => Ok(None),
            (WireKind::Secure, Some((identity, pins))) => Tunnel::caller(identity, &self.peer.host.id, pins)
                .map(Some)
                .map_err(|error| error.to_string()),
            (WireKind::Secure, None) => Err("no key of our own to show".to_owned()),
        };
        let token = Token(FIRST_ATTEMPT + self.dialling.count % ATTEMPTS);
        self.dialling.count = self.dialling.count.wrapping_add(1);
        let registry = &self.registry;
        let made = tunnel.and_then(|tunnel| {
            let made = Connection::begin(address, self.peer.bind, tunnel, registry, token);
            made.map_err(|error| format!("connect to {address}: {error}"))
        });
        match (made, &mut self.dialling.race) {
            (Ok(connection), _) => {
                self.dialling.attempts.push(Attempt { address, token, connection, connected: false });
            }
            (Err(why), Some(race)) => race.failed(address, why, now.mono),
            (Err(_), None) => {}
        }
    }

    /// Goes on with each attempt. The first that is ready is the link; those that have failed are
    /// gone.
    fn advance_attempts(&mut self, now: Now) -> Dialled {
        let (mut at, mut reached) = (0, false);
        while let Some(attempt) = self.dialling.attempts.get_mut(at) {
            let advanced = attempt.connection.advance(&mut self.scratch);
            let newly = !attempt.connected && attempt.connection.is_connected();
            attempt.connected |= newly;
            reached |= newly;
            match (advanced, &mut self.dialling.race) {
                (Ok(true), _) => {
                    let Attempt { address, token, connection, .. } = self.dialling.attempts.swap_remove(at);
                    // The others are closed.
                    self.dialling.race = None;
                    self.dialling.attempts.clear();
                    self.link = Some(Linked { connection, address, token, opened: false });
                    return Dialled::Connected;
                }
                (Ok(false), race) => {
                    if let Some(race) = race.as_mut().filter(|_| newly) {
                        race.connected(now.mono);
                    }
                    at += 1;
                }
                (Err(why), race) => {
                    let address = self.dialling.attempts.swap_remove(at).address;
                    if let Some(race) = race {
                        race.failed(address, why, now.mono);
                    }
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
        self.dialling.looks_up = false;
        self.dialling.failed = None;
        if let Some(Linked { mut connection, address, opened, .. }) = self.link.take() {
            connection.last_words(out);
            if !opened {
                self.dialling.addresses.spoiled(address);
            }
        }
    }
}
