//! The link child's loop: the only place of it that has sockets and a clock.
//!
//! Owns the poll, the local socket, each program's stream, the stream to the peer, the control socket and the end of the
//! passage through which programs go to the next child. All sockets
//! are registered once, for both directions, edge-triggered; whether one is read depends on what the broker's buffers
//! hold at that moment. What was readable and is not read now stays on a list, so that no edge is ever lost.
//! One turn: wait, read (a bounded amount from each), let the broker carry on, write.

mod dialling;
mod handing;
#[cfg(test)]
mod tests;

use super::broker::{Broker, Effect};
use super::handover::{Handover, Passage};
use super::link::Now;
use super::permlog::PermLog;
use super::race::ADDRESSES_MOST;
use super::resolve::Resolver;
use super::session::ClientId;
use super::sessions::Admission;
use crate::config::{Peer, Pin};
use crate::logging::repeats::Repeats;
use crate::spool::Disk;
use crate::supervise::control::{Channel, FromLink, ToLink};
use crate::supervise::signals::ToldToEnd;
use crate::supervise::title;
use crate::wire::line::READ_SIZE;
use crate::wire::secure::TlsIdentity;
use dialling::{Dialling, Linked};
use mio::event::Event;
use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LISTENER: Token = Token(0);
const CONTROL: Token = Token(1);
const RESOLVER: Token = Token(2);
const SIGNALS: Token = Token(3);
/// Of attempts to reach the peer, of which one becomes the link and keeps its token.
const FIRST_ATTEMPT: usize = 4;
/// More than there are of them at a time, with a link beside.
const ATTEMPTS: usize = 4 * ADDRESSES_MOST;
const FIRST_CLIENT: usize = FIRST_ATTEMPT + ATTEMPTS;

/// Connections accepted in one turn.
const ACCEPT_BUDGET: usize = 256;
/// What a program is told that comes when there are too many.
const FULL: &[u8] = b"error:too many programs are connected\n";
/// Bytes read from one socket in one turn.
const READ_BUDGET: usize = 4 * READ_SIZE;
/// Pause in accepting after the system had no descriptor to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

struct Client {
    id: ClientId,
    stream: UnixStream,
    /// There may be something to read; no further edge comes before a read has found nothing.
    readable: bool,
    /// It stands in `to_read`.
    listed: bool,
    /// The end of its input has been announced: a read that leaves the socket empty must be followed by another,
    /// since no further edge comes for it.
    input_ends: bool,
}

/// See the module.
pub struct Reactor<D: Disk> {
    poll: Poll,
    listener: UnixListener,
    accept_ready: bool,
    accept_again_at: Option<Instant>,
    control: Channel<FromLink, ToLink>,
    supervised: bool,
    told: ToldToEnd,
    /// Where programs go when the next child is to serve them.
    handover: Handover,
    link: Option<Linked>,
    /// What is to become the link.
    dialling: Dialling,
    /// What the peer is shown and what it is to show, on the secure wire.
    keys: Option<(TlsIdentity, Vec<Pin>)>,
    clients: Vec<Option<Client>>,
    /// Programs to read from in this turn.
    to_read: Vec<ClientId>,
    resolver: Resolver,
    permlog: PermLog,
    accept_repeats: Repeats,
    peer: Peer,
    broker: Broker<D>,
    scratch: Vec<u8>,
}

impl<D: Disk> Reactor<D> {
    /// A reactor for `broker`, over sockets that are non-blocking already, with the programs that are in `passage`.
    ///
    /// # Errors
    /// The system has no poll to give, or too few descriptors for those programs; the process is to end then.
    pub fn new(
        peer: Peer,
        keys: Option<(TlsIdentity, Vec<Pin>)>,
        mut broker: Broker<D>,
        listener: std::os::unix::net::UnixListener,
        mut control: Channel<FromLink, ToLink>,
        passage: Passage,
        permlog: PermLog,
    ) -> io::Result<Reactor<D>> {
        let poll = Poll::new()?;
        let mut listener = UnixListener::from_std(listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        poll.registry().register(&mut control, CONTROL, Interest::READABLE | Interest::WRITABLE)?;
        let mut told = ToldToEnd::new()?;
        poll.registry().register(&mut told, SIGNALS, Interest::READABLE)?;
        let resolver = Resolver::new(Arc::new(Waker::new(poll.registry(), RESOLVER)?));
        let programs = handing::take_over(&passage, &mut broker)?;
        let mut reactor = Reactor {
            poll,
            listener,
            accept_ready: true,
            accept_again_at: None,
            control,
            supervised: true,
            told,
            handover: passage.into_handover(),
            link: None,
            dialling: Dialling::default(),
            keys,
            clients: Vec::new(),
            to_read: Vec::new(),
            resolver,
            permlog,
            accept_repeats: Repeats::default(),
            peer,
            broker,
            scratch: vec![0; READ_SIZE],
        };
        for (id, stream) in programs {
            reactor.add_client(id, stream);
        }
        Ok(reactor)
    }

    /// Runs until the broker is over.
    ///
    /// # Errors
    /// The poll itself failed.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        self.carry_on(now());
        while !self.broker.over() {
            match self.poll.poll(&mut events, self.timeout()) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let now = now();
            for event in &events {
                match event.token() {
                    LISTENER => self.accept_ready = true,
                    CONTROL => self.read_control(now),
                    RESOLVER => self.resolved(now),
                    SIGNALS => self.told_to_end(now),
                    Token(token) if token < FIRST_CLIENT => self.note_link(Token(token), event),
                    Token(token) => self.client_event(token - FIRST_CLIENT, event),
                }
            }
            self.accept(now);
            self.go_on_dialling(now);
            self.read_link(now);
            self.note_opened();
            for id in self.broker.take_fed() {
                self.list_for_reading(id);
            }
            self.read_clients();
            self.carry_on(now);
        }
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        let link_readable =
            self.broker.hears() && self.link.as_ref().is_some_and(|link| link.connection.readable());
        let link_readable = link_readable || self.dialling.readable();
        let more_to_read = !self.to_read.is_empty() || link_readable || self.may_accept();
        if more_to_read {
            return Some(Duration::ZERO);
        }
        let deadline = [self.broker.deadline(), self.accept_again_at, self.dialling.deadline()]
            .into_iter()
            .flatten()
            .min();
        deadline.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Lets the broker carry on, does what it says, writes what there is, hands over who can go.
    fn carry_on(&mut self, now: Now) {
        self.advance(now);
        while self.hand_over() {
            self.advance(now);
        }
        if self.broker.take_changed() {
            self.report(None, now);
        }
        if let Err(error) = self.control.flush() {
            log::warn!("tell the supervisor: {error}; tried again");
        }
    }

    fn advance(&mut self, now: Now) {
        self.broker.turn(now);
        let mut effects = self.broker.take_effects();
        while !effects.is_empty() {
            for effect in effects.drain(..) {
                match effect {
                    Effect::Dial => self.dial(now),
                    Effect::HangUp => self.hang_up(),
                    Effect::Delivered { request } => {
                        self.permlog.delivered(&self.peer.host.id, &request, now)
                    }
                }
            }
            effects = self.broker.take_effects();
        }
        self.write_link(now);
        for id in self.broker.take_touched() {
            self.write_client(id);
        }
    }

    // The supervisor.

    fn report(&mut self, report: Option<u64>, now: Now) {
        let mut status = Box::new(self.broker.status(now));
        status.own_pin = self.keys.as_ref().map(|(identity, _)| identity.pin().to_string());
        title::set(&format!("{} {}", status.peer, status.state.as_str()));
        if let Err(error) = self.control.send(&FromLink::Status { report, status }) {
            log::warn!("tell the supervisor: {error}; tried again");
        }
    }

    fn read_control(&mut self, now: Now) {
        let closed = match self.control.receive(&mut self.scratch) {
            Ok(received) => {
                for message in received.messages {
                    match message {
                        ToLink::Probe => self.broker.probe(now),
                        ToLink::Drain => self.drain(now),
                        // What programs have sent and was not read is the next child's to read.
                        ToLink::HandOver => self.broker.hand_over(now),
                        ToLink::Report(number) => self.report(Some(number), now),
                        ToLink::TakeIn => self.broker.files_appeared(now),
                        ToLink::Listen => self.listen_on_next(now),
                        ToLink::Pins(pins) => self.repin(&pins, now),
                        ToLink::LogAnew => crate::logging::follow(),
                    }
                }
                received.closed
            }
            Err(error) => {
                log::error!("read from the supervisor: {error}; ending");
                true
            }
        };
        if closed && self.supervised {
            self.supervised = false;
            log::warn!("the supervisor is gone: answering what is there, then ending");
            self.drain(now);
        }
    }

    /// Goes on with the socket that came over the control socket. Who waits at the one before it, whose name is gone, is
    /// taken in first.
    fn listen_on_next(&mut self, now: Now) {
        let Some(next) = self.control.take_descriptor() else {
            log::error!("read from the supervisor: no socket came with its word; programs find none");
            return;
        };
        let mut next = UnixListener::from_std(next.into());
        if let Err(error) = self.poll.registry().register(&mut next, LISTENER, Interest::READABLE) {
            log::error!("register the local socket: {error}; programs wait there for the next child");
            return;
        }
        self.accept_ready = true;
        while self.may_accept() {
            self.accept(now);
        }
        // Dropping the one before takes it out of the poll, unless another process has it too.
        if let Err(error) = self.poll.registry().deregister(&mut self.listener) {
            log::debug!("deregister the local socket: {error}");
        }
        self.listener = next;
        self.accept_ready = true;
    }

    /// A signal that was meant for this process, or for all of the service. If it is not stopping, the next child goes on
    /// with the programs; if it is, they see the end.
    fn told_to_end(&mut self, now: Now) {
        if self.told.take() {
            log::info!("told by a signal to end");
            self.broker.hand_over(now);
        }
    }

    /// The peer's pins are others: they count for the next call, and for the link if its key is no longer among them.
    fn repin(&mut self, pins: &[String], now: Now) {
        let pins: Vec<Pin> = pins.iter().filter_map(|pin| pin.parse().ok()).collect();
        let stays = match &self.link {
            Some(link) => link.connection.is_with_one_of(&pins),
            // What is being made was told the pins of before.
            None => !self.dialling.is_under_way(),
        };
        if let Some((_, known)) = &mut self.keys {
            *known = pins;
        }
        if !stays {
            self.link_down("its key is no longer in hosts.pins".to_owned(), now);
        }
    }

    /// What programs have sent by now is still taken.
    fn drain(&mut self, now: Now) {
        for index in 0..self.clients.len() {
            if let Some(client) = &mut self.clients[index] {
                client.readable = true;
                let id = client.id;
                self.list_for_reading(id);
            }
        }
        self.read_clients();
        self.broker.drain(now);
    }

    // The programs.

    fn may_accept(&self) -> bool {
        self.accept_ready && self.accept_again_at.is_none() && self.broker.accepts()
    }

    fn accept(&mut self, now: Now) {
        if self.accept_again_at.is_some_and(|at| at <= now.mono) {
            self.accept_again_at = None;
        }
        for _ in 0..ACCEPT_BUDGET {
            if !self.may_accept() {
                return;
            }
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.accept_ready = false,
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                // The limit of open files is lower than that of programs: one that is idle makes room.
                Err(error) if error.raw_os_error() == Some(libc::EMFILE) && self.make_room(&error, now) => {}
                Err(error) => {
                    let text = format!("accept a program's connection: {error}; programs wait");
                    if let Some(line) = self.accept_repeats.line(&text, now.mono) {
                        log::error!("{line}");
                    }
                    self.accept_again_at = Some(now.mono + ACCEPT_PAUSE);
                }
            }
        }
    }

    /// Takes one more program, within the bounds on all and on each user.
    fn admit(&mut self, mut stream: UnixStream, now: Now) {
        let user = user_of(&stream);
        let (taken, text) = match self.broker.admit(user) {
            Admission::Welcome => (true, None),
            Admission::InPlaceOf(idle) => {
                self.close_client(idle);
                let text = format!("too many programs are connected, user {user} is one more");
                (true, Some(format!("{text}: the one that was idle for longest is closed")))
            }
            Admission::Full => {
                // It most likely has not sent anything yet: it reads this, then the end.
                let _ = stream.write(FULL);
                let text = format!("too many programs are connected, user {user} is one more");
                (false, Some(format!("{text}, and none is idle: it is turned away")))
            }
        };
        if let Some(line) = text.and_then(|text| self.accept_repeats.line(&text, now.mono)) {
            log::warn!("{line}");
        }
        if taken {
            let id = self.broker.client_connected();
            self.broker.client_belongs(id, user);
            self.add_client(id, stream);
        }
    }

    /// Closes the program that was idle for longest; whether there is one.
    fn make_room(&mut self, want: &io::Error, now: Now) -> bool {
        let Some(idle) = self.broker.idlest_client() else { return false };
        self.close_client(idle);
        let text = format!(
            "accept a program's connection: {want}; the program that was idle for longest is closed for the one that comes"
        );
        if let Some(line) = self.accept_repeats.line(&text, now.mono) {
            log::error!("{line}");
        }
        true
    }

    fn add_client(&mut self, id: ClientId, mut stream: UnixStream) {
        let token = Token(FIRST_CLIENT + id.index());
        if let Err(error) =
            self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)
        {
            log::error!("register a program's connection: {error}; closed");
            self.broker.client_gone(id);
            return;
        }
        if self.clients.len() <= id.index() {
            self.clients.resize_with(id.index() + 1, || None);
        }
        self.clients[id.index()] =
            Some(Client { id, stream, readable: true, listed: false, input_ends: false });
        // A program writes as soon as it is connected: most often its request is there already.
        self.list_for_reading(id);
    }

    fn client_event(&mut self, index: usize, event: &Event) {
        let Some(Some(client)) = self.clients.get_mut(index) else { return };
        let id = client.id;
        if event.is_readable() || event.is_read_closed() {
            client.readable = true;
            client.input_ends |= event.is_read_closed();
            self.list_for_reading(id);
        }
        if event.is_writable() {
            self.write_client(id);
        }
    }

    /// Puts a program on the list of those to be read, if it may have sent something and the broker has room. One that
    /// is left off for want of room comes here again when its answers have been written.
    fn list_for_reading(&mut self, id: ClientId) {
        let Some(Some(client)) = self.clients.get_mut(id.index()) else { return };
        if client.id == id && client.readable && !client.listed && self.broker.may_read(id) > 0 {
            client.listed = true;
            self.to_read.push(id);
        }
    }

    fn read_clients(&mut self) {
        for id in std::mem::take(&mut self.to_read) {
            if let Some(Some(client)) = self.clients.get_mut(id.index())
                && client.id == id
            {
                client.listed = false;
                self.read_client(id);
                self.list_for_reading(id);
            }
        }
    }

    /// Reads what the broker has room for, up to a budget.
    fn read_client(&mut self, id: ClientId) {
        let Some(Some(client)) = self.clients.get_mut(id.index()) else { return };
        let mut budget = READ_BUDGET;
        while budget > 0 {
            let wanted = self.broker.may_read(id).min(self.scratch.len());
            if wanted == 0 {
                return;
            }
            match client.stream.read(&mut self.scratch[..wanted]) {
                Ok(0) => {
                    client.readable = false;
                    self.broker.client_closed_input(id);
                    return;
                }
                Ok(count) => {
                    self.broker.client_sent(id, &self.scratch[..count]);
                    budget = budget.saturating_sub(count);
                    if count < wanted && !client.input_ends {
                        // The socket is empty, and the next byte makes a new edge.
                        client.readable = false;
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    client.readable = false;
                    return;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    say_if_ours("read from", &error);
                    self.close_client(id);
                    return;
                }
            }
        }
    }

    /// Writes a program's answers; closes its connection when it is finished or gone.
    fn write_client(&mut self, id: ClientId) {
        let Some(Some(client)) = self.clients.get_mut(id.index()) else { return };
        let Some(session) = self.broker.session(id) else { return };
        if client.id != id {
            return;
        }
        let waited = session.answers.out.len();
        let flushed = session.answers.out.flush_to(&mut client.stream);
        let gone = flushed.inspect_err(|error| say_if_ours("write to", error)).is_err();
        let wrote = session.answers.out.len() < waited;
        if gone || session.finished() {
            self.close_client(id);
            return;
        }
        if wrote {
            self.broker.client_read(id);
        }
        self.list_for_reading(id);
    }

    fn close_client(&mut self, id: ClientId) {
        if let Some(place) = self.clients.get_mut(id.index())
            && place.as_ref().is_some_and(|client| client.id == id)
        {
            // Dropping the stream takes it out of the poll.
            *place = None;
        }
        self.broker.client_gone(id);
    }

    // The peer.

    fn read_link(&mut self, now: Now) {
        let mut budget = READ_BUDGET;
        while budget > 0 && self.broker.hears() {
            let Some(link) = self.link.as_mut().map(|link| &mut link.connection) else { return };
            if !link.readable() {
                return;
            }
            let broker = &mut self.broker;
            match link.read(&mut self.scratch, |bytes| broker.link_received(bytes, now)) {
                Ok(0) => return,
                Ok(count) => budget = budget.saturating_sub(count),
                Err(why) => self.link_down(why, now),
            }
        }
    }

    /// Writes until the socket takes no more, or there is no more.
    fn write_link(&mut self, now: Now) {
        loop {
            let Some(link) = self.link.as_mut().map(|link| &mut link.connection) else { return };
            let written = link.write(self.broker.link_out());
            if link.take_moved(self.broker.link_out()) {
                self.broker.link_moved(now);
            }
            match written {
                Ok(0) => return,
                Ok(_) => self.broker.link_wrote(),
                Err(why) => {
                    self.link_down(why, now);
                    self.broker.turn(now);
                }
            }
        }
    }

    fn link_down(&mut self, why: String, now: Now) {
        self.hang_up();
        self.broker.link_lost(why, now);
    }
}

/// A program that goes away does as it likes; but what this host lacks is said.
fn say_if_ours(verb: &str, error: &io::Error) {
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {}
        _ => log::warn!("{verb} a program: {error}; its connection is closed"),
    }
}

/// The user that connected, as the system says; nobody's if it does not.
fn user_of(stream: &UnixStream) -> u32 {
    getsockopt(stream, PeerCredentials).map_or(u32::MAX, |credentials| credentials.uid())
}

fn now() -> Now {
    Now { mono: Instant::now(), wall: jiff::Timestamp::now() }
}
