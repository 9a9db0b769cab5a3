//! The link child's loop: the only place of it that has a clock, and with [`sockets`] the only one
//! that has sockets.
//!
//! Waits for what happens, notes it, and lets the [`Turn`] do what follows from it; hears the
//! supervisor. All sockets are watched edge-triggered ([`net::Stream`]); whether one is read
//! depends on what the broker's buffers hold at that moment. What was readable and is not read now
//! stays noted, so that no edge is ever lost.

mod dialling;
mod sockets;
#[cfg(test)]
mod tests;

use super::broker::Broker;
use super::handover::Takeover;
use super::link::Now;
use super::permlog::PermLog;
use super::turn::Turn;
use crate::messages::{FromLink, ToLink};
use base::{Pin, pages};
use config::Peer;
use net::{BusyPoll, Events, Interest, Poll, Token};
use sockets::Sockets;
use std::io::{self, ErrorKind};
use std::mem;
use std::time::{Duration, Instant};
use store::spool::Disk;
use supervise::control::Channel;
use supervise::signals::ToldToEnd;
use wire::secure::TlsIdentity;

const LISTENER: Token = Token(0);
const CONTROL: Token = Token(1);
const SIGNALS: Token = Token(2);

/// A child for which nothing has come for so long gives back what it does not use.
const IDLE: Duration = Duration::from_secs(1);

/// What a link child has beside its broker.
#[derive(Debug)]
pub struct Given {
    /// Whom it dials.
    pub peer: Peer,
    /// On the secure wire: what the peer is shown, and what it is to show.
    pub keys: Option<(TlsIdentity, Vec<Pin>)>,
    /// Where programs connect; non-blocking.
    pub listener: std::os::unix::net::UnixListener,
    /// What it says to the supervisor, and hears from it.
    pub control: Channel<FromLink, ToLink>,
    /// Where the programs of the child before it are, if it had any.
    pub passage: Option<Takeover>,
    /// Where deliveries are noted.
    pub permlog: PermLog,
    /// What confines this process, in words.
    pub sandbox: String,
}

/// See the module.
pub struct Reactor<D: Disk> {
    poll: Poll,
    busy_poll: BusyPoll,
    supervised: bool,
    told: ToldToEnd,
    sockets: Sockets,
    turn: Turn<D>,
}

impl<D: Disk> Reactor<D> {
    /// A reactor for `broker`, with the programs that are in the passage; `told`: hears of the
    /// signals by which it is to end.
    ///
    /// # Errors
    /// The system has no poll to give, or too few descriptors for those programs; the process is to
    /// end then.
    pub fn new(mut broker: Broker<D>, mut told: ToldToEnd, mut given: Given) -> io::Result<Reactor<D>> {
        let poll = Poll::new()?;
        poll.registry().register(&mut told, SIGNALS, Interest::READABLE)?;
        let busy_poll = BusyPoll::new(given.peer.busy_poll);
        let passage = given.passage.take();
        let programs = passage.map_or(Ok(Vec::new()), |passage| sockets::take_over(&passage, &mut broker))?;
        let mut sockets = Sockets::new(poll.registry().try_clone()?, given)?;
        let mut turn = Turn::new(broker);
        for (id, stream) in programs {
            turn.program_came(&mut sockets, id, |sockets| sockets.add_client(id, stream));
        }
        Ok(Reactor { poll, busy_poll, supervised: true, told, sockets, turn })
    }

    /// Runs until the broker is over.
    ///
    /// # Errors
    /// The poll itself failed.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        self.turn.begin(&mut self.sockets, now());
        while !self.turn.over() {
            let timeout = self.timeout();
            let under_way = self.turn.broker().under_way();
            match self.busy_poll.poll(&mut self.poll, &mut events, timeout, under_way) {
                Ok(()) => self.sockets.tidy |= events.is_empty() && timeout.is_none_or(|time| time >= IDLE),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let now = now();
            for event in &events {
                match event.token() {
                    LISTENER => self.sockets.note_listener(),
                    CONTROL => self.read_control(now),
                    SIGNALS => self.told_to_end(now),
                    token => {
                        if let Some((id, takes)) = self.sockets.note(token, event) {
                            self.turn.program_is_ready(&self.sockets, id);
                            if takes {
                                self.turn.program_takes(&mut self.sockets, id);
                            }
                        }
                    }
                }
            }
            self.turn.run(&mut self.sockets, now);
            if mem::take(&mut self.sockets.tidy) {
                self.sockets.scratch.give_back();
                pages::give_back_stack();
            }
        }
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        if self.turn.has_work(&self.sockets) || self.sockets.may_go_on_dialling() {
            return Some(Duration::ZERO);
        }
        let deadline = [self.turn.deadline(), self.sockets.deadline()].into_iter().flatten().min();
        deadline.map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn read_control(&mut self, now: Now) {
        let (messages, closed) = self.sockets.hear_supervisor();
        for message in messages {
            match message {
                ToLink::Probe => self.turn.broker().probe(now),
                ToLink::Drain => self.end(now),
                // What programs have sent and was not read is the next child's to read.
                ToLink::HandOver => {
                    self.sockets.way_came();
                    self.turn.broker().hand_over(now);
                }
                ToLink::Report(number) => self.turn.report(&mut self.sockets, Some(number), now),
                ToLink::TakeIn => self.turn.broker().files_came(now),
                ToLink::Listen => self.listen_on_next(now),
                ToLink::Pins(pins) => self.repin(&pins, now),
                ToLink::LogAnew => base::logging::follow(),
                // What follows from these is done in the turn.
                ToLink::Addresses { number, answer } => self.sockets.take_addresses(number, answer, now),
                ToLink::Begun { attempt } => self.sockets.attempt_begun(attempt, now),
                ToLink::NotBegun { attempt, why } => self.sockets.attempt_not_begun(attempt, why, now),
            }
        }
        if closed && self.supervised {
            self.supervised = false;
            log::warn!("the supervisor is gone: answering what is there, then ending");
            self.end(now);
        }
    }

    /// No child follows.
    fn end(&mut self, now: Now) {
        self.sockets.no_way_comes();
        self.turn.drain(&mut self.sockets, now);
    }

    /// Goes on with the socket that came over the control socket. Who waits at the one before it,
    /// whose name is gone, is taken in first.
    fn listen_on_next(&mut self, now: Now) {
        let Some(next) = self.sockets.next_listener() else { return };
        self.sockets.note_listener();
        self.turn.accept_all(&mut self.sockets, now);
        self.sockets.listen_on(next);
    }

    /// A signal that was meant for this process, or for all of the service. If it is not stopping,
    /// the next child goes on with the programs; if it is, they see the end.
    fn told_to_end(&mut self, now: Now) {
        if self.told.take() {
            log::info!("told by a signal to end");
            self.turn.broker().hand_over(now);
        }
    }

    /// The peer's pins are others: they count for the next call, and for the link if its key is no
    /// longer among them.
    fn repin(&mut self, pins: &[String], now: Now) {
        let pins: Vec<Pin> = pins.iter().filter_map(|pin| pin.parse().ok()).collect();
        if !self.sockets.repin(pins) {
            self.turn.link_down(&mut self.sockets, "its key is no longer in hosts.pins".to_owned(), now);
        }
    }
}

fn now() -> Now {
    Now { mono: Instant::now(), wall: jiff::Timestamp::now() }
}
