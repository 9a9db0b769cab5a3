//! Connections that there is no room for, for as long as it takes to hear whether they say
//! something.
//!
//! A caller speaks first, on both wires, and its first words come right behind the connection. So
//! one that there is no room for is not closed at once: if it says something within [`WAITS`], it
//! takes the place of one that has said nothing for as long, of its own address too. That costs no
//! process, but a descriptor: at [`WAITING_MOST`], or a quarter of the children that there are
//! descriptors for, the one that waits longest is closed. At HUP all are closed; their callers dial
//! again.

use super::room::Way;
use super::{Lond, Machine};
use base::HostId;
use net::SourceFd;
use net::{Interest, Token};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// How long a connection waits for room.
pub(super) const WAITS: Duration = Duration::from_millis(250);
/// Connections that wait; beyond them the one that waits longest is closed.
pub(super) const WAITING_MOST: usize = 128;

/// A connection that has no child yet.
#[derive(Debug)]
pub(super) struct Newcomer {
    /// The connection; non-blocking.
    pub stream: TcpStream,
    /// Where it comes from.
    pub remote: SocketAddr,
    /// Who calls, by the address.
    pub caller: Option<HostId>,
    /// Whether the address is one of a host's.
    pub familiar: bool,
    /// It has said something.
    pub speaks: bool,
}

#[derive(Debug)]
struct Waiting {
    newcomer: Newcomer,
    until: Instant,
    token: Token,
}

/// Those that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct Lobby(VecDeque<Waiting>);

impl Lobby {
    /// When the next of them has waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.front().map(|waiting| waiting.until)
    }

    /// Closes all of them.
    pub(super) fn close(&mut self) {
        self.0.clear();
    }
}

/// What is heard of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    Spoken,
    Silent,
    Gone,
}

fn word_of(stream: &TcpStream) -> Word {
    match stream.peek(&mut [0]) {
        Ok(0) => Word::Gone,
        Ok(_) => Word::Spoken,
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Word::Silent
        }
        Err(_) => Word::Gone,
    }
}

impl Lond {
    /// Lets a newcomer in, has it wait, or turns it away; whether a fork was tried.
    pub(super) fn let_in(&mut self, m: &mut Machine<'_>, mut newcomer: Newcomer, now: Instant) -> bool {
        let mut way = self.make_way(m, &newcomer, now);
        if way == Way::Full {
            match word_of(&newcomer.stream) {
                Word::Spoken => {
                    newcomer.speaks = true;
                    way = self.make_way(m, &newcomer, now);
                }
                Word::Silent => {}
                Word::Gone => return false,
            }
        }
        match way {
            Way::Free => self.start_link(m, newcomer, now),
            Way::Full => self.have_wait(m, newcomer, now),
            Way::NoLinks => self.turn_away(m, newcomer, way, now),
        }
        way == Way::Free
    }

    fn have_wait(&mut self, m: &mut Machine<'_>, newcomer: Newcomer, now: Instant) {
        let most = WAITING_MOST.min(self.descriptors / 4);
        while self.lobby.0.len() >= most {
            let Some(oldest) = self.lobby.0.pop_front() else {
                return self.turn_away(m, newcomer, Way::Full, now);
            };
            self.leave_lobby(m, &oldest);
            self.turn_away(m, oldest.newcomer, Way::Full, now);
        }
        let token = m.tokens.fresh();
        let fd = newcomer.stream.as_raw_fd();
        match m.poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE) {
            Ok(()) => self.lobby.0.push_back(Waiting { newcomer, until: now + WAITS, token }),
            Err(error) => {
                log::debug!("register the connection of {}: {error}", newcomer.remote);
                self.turn_away(m, newcomer, Way::Full, now);
            }
        }
    }

    /// Something is heard of one that waits; whether the token is one's.
    pub(super) fn hear_lobby(&mut self, m: &mut Machine<'_>, token: Token, now: Instant) -> bool {
        let Some(at) = self.lobby.0.iter().position(|waiting| waiting.token == token) else { return false };
        let Some(mut waiting) = self.lobby.0.remove(at) else { return true };
        match word_of(&waiting.newcomer.stream) {
            Word::Gone => self.leave_lobby(m, &waiting),
            Word::Silent => self.lobby.0.insert(at, waiting),
            Word::Spoken => {
                waiting.newcomer.speaks = true;
                match self.make_way(m, &waiting.newcomer, now) {
                    // Whoever is to give way may have come a moment ago, and be about to speak.
                    Way::Full => self.lobby.0.insert(at, waiting),
                    way => self.decide(m, waiting, way, now),
                }
            }
        }
        true
    }

    /// Those that have waited long enough are let in now, or not at all.
    pub(super) fn empty_lobby(&mut self, m: &mut Machine<'_>, now: Instant) {
        while self.lobby.deadline().is_some_and(|until| until <= now) {
            let Some(waiting) = self.lobby.0.pop_front() else { return };
            let way =
                if waiting.newcomer.speaks { self.make_way(m, &waiting.newcomer, now) } else { Way::Full };
            self.decide(m, waiting, way, now);
        }
    }

    fn decide(&mut self, m: &mut Machine<'_>, waiting: Waiting, way: Way, now: Instant) {
        self.leave_lobby(m, &waiting);
        match way {
            Way::Free => self.start_link(m, waiting.newcomer, now),
            Way::Full | Way::NoLinks => self.turn_away(m, waiting.newcomer, way, now),
        }
    }

    /// A child that is forked next has a copy of the descriptor, so that closing it would not do.
    fn leave_lobby(&self, m: &Machine<'_>, waiting: &Waiting) {
        let fd = waiting.newcomer.stream.as_raw_fd();
        if let Err(error) = m.poll.registry().deregister(&mut SourceFd(&fd)) {
            log::debug!("deregister the connection of {}: {error}", waiting.newcomer.remote);
        }
    }
}
