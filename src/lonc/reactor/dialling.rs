//! The dial: a look-up, then attempts at the peer's addresses beside each other, of which one becomes the link.

use super::{ATTEMPTS, FIRST_ATTEMPT, Reactor};
use crate::config::{Target, Wire};
use crate::lonc::connection::Connection;
use crate::lonc::link::Now;
use crate::lonc::race::{Addresses, Race};
use crate::spool::Disk;
use crate::wire::secure::Tunnel;
use mio::Token;
use mio::event::Event;
use std::net::SocketAddr;

/// What a dial has made so far, and what is known from those before it.
#[derive(Default)]
pub(super) struct Dialling {
    addresses: Addresses,
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

impl<D: Disk> Reactor<D> {
    pub(super) fn dial(&mut self, now: Now) {
        match &self.peer.target {
            Target::Address(address) => self.race(&[*address], now),
            Target::Lookup { name, port } => match self.resolver.begin(name, *port) {
                Ok(Some(addresses)) => self.race(&addresses, now),
                Ok(None) => {}
                Err(why) => self.broker.link_lost(why, now),
            },
        }
    }

    pub(super) fn resolved(&mut self, now: Now) {
        match self.resolver.ended() {
            Some(Ok(addresses)) if self.broker.is_dialling() => self.race(&addresses, now),
            Some(Ok(addresses)) => self.resolver.keep(addresses),
            Some(Err(why)) => self.broker.link_lost(why, now),
            None => {}
        }
    }

    fn race(&mut self, found: &[SocketAddr], now: Now) {
        self.hang_up();
        let order = self.dialling.addresses.order(found);
        self.dialling.race = Some(Race::new(order, now.mono));
        self.go_on_dialling(now);
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

    /// Begins the attempts that are due and goes on with those that are under way, until one is the link or all have failed.
    pub(super) fn go_on_dialling(&mut self, now: Now) {
        while self.dialling.race.is_some() {
            while let Some(address) = self.dialling.race.as_mut().and_then(|race| race.due(now.mono)) {
                self.attempt(address, now);
            }
            let failed = match self.advance_attempts(now) {
                Some(linked) => {
                    // The others are closed.
                    (self.dialling.race, self.link) = (None, Some(linked));
                    self.dialling.attempts.clear();
                    return self.broker.link_connected(now);
                }
                None => self.dialling.race.as_ref().and_then(Race::lost),
            };
            if let Some(why) = failed {
                self.dialling.race = None;
                return self.broker.link_lost(why, now);
            }
            // One that has failed makes the next due at once.
            if self.dialling.deadline().is_none_or(|at| at > now.mono) {
                return;
            }
        }
    }

    fn attempt(&mut self, address: SocketAddr, now: Now) {
        let tunnel = match (self.peer.wire, &self.keys) {
            (Wire::Classic, _) => Ok(None),
            (Wire::Secure, Some((identity, pins))) => Tunnel::caller(identity, &self.peer.host.id, pins)
                .map(Some)
                .map_err(|error| error.to_string()),
            (Wire::Secure, None) => Err("no key of our own to show".to_owned()),
        };
        let token = Token(FIRST_ATTEMPT + self.dialling.count % ATTEMPTS);
        self.dialling.count = self.dialling.count.wrapping_add(1);
        let registry = self.poll.registry();
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

    /// The first attempt that is ready, if one is; those that have failed are gone.
    fn advance_attempts(&mut self, now: Now) -> Option<Linked> {
        let (mut at, mut reached) = (0, false);
        while let Some(attempt) = self.dialling.attempts.get_mut(at) {
            let advanced = attempt.connection.advance(&mut self.scratch);
            let newly = !attempt.connected && attempt.connection.is_connected();
            attempt.connected |= newly;
            reached |= newly;
            match (advanced, &mut self.dialling.race) {
                (Ok(true), _) => {
                    let Attempt { address, token, connection, .. } = self.dialling.attempts.swap_remove(at);
                    return Some(Linked { connection, address, token, opened: false });
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
        if reached && self.dialling.attempts.iter().any(|attempt| attempt.connected) {
            self.broker.link_reached(now);
        }
        None
    }

    /// Notes that the link is open, the first time that it is.
    pub(super) fn note_opened(&mut self) {
        if let Some(link) = self.link.as_mut().filter(|link| !link.opened)
            && self.broker.link_is_up()
        {
            link.opened = true;
            self.dialling.addresses.opened(link.address);
        }
    }

    /// The one place where the connection to the peer ends, or all that were to become it.
    pub(super) fn hang_up(&mut self) {
        // It may have been opened and lost in one turn.
        self.note_opened();
        self.dialling.race = None;
        self.dialling.attempts.clear();
        if let Some(Linked { mut connection, address, opened, .. }) = self.link.take() {
            connection.last_words(self.broker.link_out());
            if !opened {
                self.dialling.addresses.spoiled(address);
            }
        }
        self.broker.link_out().clear();
    }
}
