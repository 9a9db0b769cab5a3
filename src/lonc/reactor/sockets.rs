//! The sockets of a link child, as its [`Turn`](crate::turn::Turn) uses them.
//!
//! Owns the local socket, each program's stream, the stream to the peer, the control socket, and
//! the way by which programs go to the next child, once it is there; and of each, whether there may
//! be something to read.

use super::dialling::{ATTEMPTS, Dialling, FIRST_ATTEMPT, Linked};
use super::{CONTROL, Given, LISTENER};
use crate::broker::Broker;
use crate::handover::{Handover, Room, Takeover};
use crate::link::Now;
use crate::messages::{FromLink, ToLink};
use crate::permlog::PermLog;
use crate::session::{ClientId, Rest};
use crate::turn::{Accepted, Dialled, HandedOver, Io, Read};
use base::Pin;
use base::line::{Outgoing, READ_SIZE};
use base::log_quota::Repeats;
use base::pages::Pages;
use config::Peer;
use net::credentials;
use net::listen::nobody_waits;
use net::{Event, Interest, ReadOutcome, Registry, Stream, Token, UnixListener, UnixStream};
use status::PeerStatus;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use store::spool::Disk;
use supervise::control::Channel;
use supervise::title;
use wire::secure::TlsIdentity;

const FIRST_CLIENT: usize = FIRST_ATTEMPT + ATTEMPTS;
/// What a program is told that comes when there are too many.
const FULL: &[u8] = b"error:too many programs are connected\n";
/// Pause in accepting after the system had no descriptor to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Pause before programs are handed over that had to wait until others are taken.
const HAND_OVER_PAUSE: Duration = Duration::from_millis(50);

struct Client {
    id: ClientId,
    stream: Stream<UnixStream>,
}

/// The way of programs to the next child.
enum Way {
    /// The supervisor sends it when this child is to hand over, or when it is asked for it.
    NotYet { asked: bool },
    /// It is there.
    Open(Handover),
    /// No child follows.
    None,
}

/// See the module.
pub(super) struct Sockets {
    pub(super) registry: Registry,
    listener: UnixListener,
    accept_ready: bool,
    accept_again_at: Option<Instant>,
    /// Accepted, and not a program of ours yet.
    waiting: Option<UnixStream>,
    pub(super) control: Channel<FromLink, ToLink>,
    /// Where programs go when the next child is to serve them.
    way: Way,
    /// None can go just now: when they are to be tried again.
    hand_over_again: Option<Instant>,
    pub(super) link: Option<Linked>,
    /// What is to become the link.
    pub(super) dialling: Dialling,
    /// What the peer is shown and what it is to show, on the secure wire.
    pub(super) keys: Option<(TlsIdentity, Vec<Pin>)>,
    clients: Vec<Option<Client>>,
    permlog: PermLog,
    /// What confines this process, in words.
    sandbox: String,
    accept_repeats: Repeats,
    pub(super) peer: Peer,
    pub(super) scratch: Pages,
    /// What is not used is to be given back at the end of the turn.
    pub(super) tidy: bool,
}

impl Sockets {
    /// Those that were given, to be told of by `registry`'s poll.
    pub(super) fn new(registry: Registry, given: Given) -> io::Result<Sockets> {
        let Given { peer, keys, listener, mut control, passage: _, permlog, sandbox } = given;
        let mut listener = UnixListener::from_std(listener);
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        registry.register(&mut control, CONTROL, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Sockets {
            registry,
            listener,
            accept_ready: true,
            accept_again_at: None,
            waiting: None,
            control,
            way: Way::NotYet { asked: false },
            hand_over_again: None,
            link: None,
            dialling: Dialling::default(),
            keys,
            clients: Vec::new(),
            permlog,
            sandbox,
            accept_repeats: Repeats::default(),
            peer,
            scratch: Pages::new(READ_SIZE)?,
            tidy: false,
        })
    }

    /// What the poll said of the local socket.
    pub(super) fn note_listener(&mut self) {
        self.accept_ready = true;
    }

    /// What the poll said of the link or an attempt to make it, or of a program; which program that
    /// is, and whether it takes more of what waits for it.
    pub(super) fn note(&mut self, token: Token, event: &Event) -> Option<(ClientId, bool)> {
        let Some(index) = token.0.checked_sub(FIRST_CLIENT) else {
            self.note_link(token, event);
            return None;
        };
        let client = self.clients.get_mut(index)?.as_mut()?;
        let takes = client.stream.note(event);
        Some((client.id, takes))
    }

    /// Whether what is to become the link may be gone on with at once.
    pub(super) fn may_go_on_dialling(&self) -> bool {
        self.dialling.readable()
    }

    /// When there is something to be done if nothing happens before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.accept_again_at, self.hand_over_again, self.dialling.deadline()].into_iter().flatten().min()
    }

    /// What the supervisor says, and whether that was all: it is gone.
    pub(super) fn hear_supervisor(&mut self) -> (Vec<ToLink>, bool) {
        match self.control.receive(&mut self.scratch) {
            Ok(received) => (received.messages, received.closed),
            Err(error) => {
                log::error!("read from the supervisor: {error}; ending");
                (Vec::new(), true)
            }
        }
    }

    /// The socket that the supervisor has sent, in the poll.
    pub(super) fn next_listener(&mut self) -> Option<UnixListener> {
        let Some(next) = self.control.take_descriptor() else {
            log::error!("read from the supervisor: no socket came with its word; programs find none");
            return None;
        };
        let mut next = UnixListener::from_std(next.into());
        match self.registry.register(&mut next, LISTENER, Interest::READABLE) {
            Ok(()) => Some(next),
            Err(error) => {
                log::error!("register the local socket: {error}; programs wait there for the next child");
                None
            }
        }
    }

    /// The supervisor has sent the way to the next child.
    pub(super) fn way_came(&mut self) {
        self.way = match self.control.take_descriptor() {
            Some(end) => Way::Open(end.into()),
            None => {
                log::error!("read from the supervisor: no way to the next process came with its word");
                Way::None
            }
        };
    }

    /// There is no next child, unless the way to it is there already.
    pub(super) fn no_way_comes(&mut self) {
        if let Way::NotYet { .. } = self.way {
            self.way = Way::None;
        }
    }

    /// Goes on with this socket.
    pub(super) fn listen_on(&mut self, next: UnixListener) {
        // Dropping the one before takes it out of the poll, unless another process has it too.
        if let Err(error) = self.registry.deregister(&mut self.listener) {
            log::debug!("deregister the local socket: {error}");
        }
        self.listener = next;
        self.accept_ready = true;
    }

    /// The peer's pins are these from now on; whether the link may stay.
    pub(super) fn repin(&mut self, pins: Vec<Pin>) -> bool {
        let stays = match &self.link {
            Some(link) => link.connection.is_with_one_of(&pins),
            // What is being made was told the pins of before.
            None => !self.dialling.is_under_way(),
        };
        if let Some((_, known)) = &mut self.keys {
            *known = pins;
        }
        stays
    }

    /// A program's connection is served from now on; whether it can be.
    pub(super) fn add_client(&mut self, id: ClientId, stream: UnixStream) -> bool {
        let stream = match Stream::of_unix(stream, &self.registry, token_of(id)) {
            Ok(stream) => stream,
            Err(error) => {
                log::error!("register a program's connection: {error}; closed");
                return false;
            }
        };
        if self.clients.len() <= id.index() {
            self.clients.resize_with(id.index() + 1, || None);
        }
        if let Some(place) = self.clients.get_mut(id.index()) {
            *place = Some(Client { id, stream });
        }
        true
    }

    fn client(&self, id: ClientId) -> Option<&Client> {
        self.clients.get(id.index())?.as_ref().filter(|client| client.id == id)
    }
}

impl Io for Sockets {
    fn may_accept(&self) -> bool {
        self.accept_ready && self.accept_again_at.is_none()
    }

    fn accepts_again(&mut self, now: Now) {
        if self.accept_again_at.is_some_and(|at| at <= now.mono) {
            self.accept_again_at = None;
        }
    }

    fn accept(&mut self, now: Now) -> Accepted {
        match self.listener.accept() {
            Ok((stream, _)) => {
                let who = credentials::of(&stream);
                self.waiting = Some(stream);
                return Accepted::Waiting { who };
            }
            Err(error) => match (error.kind(), error.raw_os_error()) {
                (ErrorKind::WouldBlock, _) => {
                    self.accept_ready = false;
                    return Accepted::Nobody;
                }
                _ if nobody_waits(&error, &self.listener) => {
                    self.accept_ready = false;
                    return Accepted::Nobody;
                }
                (ErrorKind::Interrupted | ErrorKind::ConnectionAborted, _) => return Accepted::Again,
                // The limit of open files is lower than that of programs: one that is idle makes
                // room.
                (_, Some(libc::EMFILE)) => return Accepted::NoRoom(error),
                _ => self.pause_accepting(&error, now),
            },
        }
        Accepted::Nobody
    }

    fn let_in(&mut self, id: ClientId) -> bool {
        self.waiting.take().is_some_and(|stream| self.add_client(id, stream))
    }

    fn turn_away(&mut self) {
        if let Some(mut stream) = self.waiting.take() {
            // It most likely has not sent anything yet: it reads this, then the end.
            let _ = stream.write(FULL);
        }
    }

    fn pause_accepting(&mut self, cause: &io::Error, now: Now) {
        let text = format!("accept a program's connection: {cause}; programs wait");
        if let Some(line) = self.accept_repeats.line(&text, now.mono) {
            log::error!("{line}");
        }
        self.accept_again_at = Some(now.mono + ACCEPT_PAUSE);
    }

    fn is_readable(&self, id: ClientId) -> bool {
        self.client(id).is_some_and(|client| client.stream.readable())
    }

    fn read(&mut self, id: ClientId, most: usize, hand_on: &mut dyn FnMut(&[u8])) -> Read {
        let Sockets { clients, scratch, .. } = self;
        let client = clients.get_mut(id.index()).and_then(|client| client.as_mut());
        let Some(client) = client.filter(|client| client.id == id) else { return Read::Gone };
        let Some(room) = scratch.get_mut(..most) else { return Read::Last(0) };
        match client.stream.read(room) {
            Ok(ReadOutcome::End) => Read::End,
            Ok(ReadOutcome::Nothing) => Read::Last(0),
            Ok(ReadOutcome::Bytes(count)) => {
                hand_on(room.get(..count).unwrap_or_default());
                if client.stream.readable() { Read::Bytes(count) } else { Read::Last(count) }
            }
            Err(error) => {
                say_if_ours("read from", &error);
                Read::Gone
            }
        }
    }

    fn write(&mut self, id: ClientId, out: &mut Outgoing) -> bool {
        let Sockets { clients, registry, .. } = self;
        let client = clients.get_mut(id.index()).and_then(|client| client.as_mut());
        let Some(client) = client.filter(|client| client.id == id) else { return false };
        let written = client.stream.flush(out, registry, token_of(id));
        written.inspect_err(|error| say_if_ours("write to", error)).is_ok()
    }

    fn close(&mut self, id: ClientId) {
        if let Some(place) = self.clients.get_mut(id.index())
            && place.as_ref().is_some_and(|client| client.id == id)
        {
            // Dropping the stream takes it out of the poll.
            *place = None;
        }
    }

    fn may_hand_over(&mut self, now: Now) -> bool {
        match &mut self.way {
            Way::NotYet { asked } => {
                if !std::mem::replace(asked, true)
                    && let Err(error) = self.control.send(&FromLink::HandsOver)
                {
                    log::warn!("tell the supervisor: {error}; programs are served to the end here");
                }
                false
            }
            Way::Open(_) | Way::None => {
                let due = self.hand_over_again.is_none_or(|at| at <= now.mono);
                if due {
                    self.hand_over_again = None;
                }
                due
            }
        }
    }

    fn hand_over(&mut self, programs: Vec<(ClientId, Rest<'_>)>, now: Now) -> HandedOver {
        let Way::Open(way) = &self.way else {
            return HandedOver::Stay(io::Error::new(ErrorKind::NotConnected, "there is no next process"));
        };
        let with_streams = programs.into_iter().filter_map(|(id, rest)| {
            let client = self.client(id)?;
            Some((client.stream.socket().as_fd(), rest))
        });
        match way.send(&with_streams.collect::<Vec<_>>()) {
            Ok(()) => HandedOver::Gone,
            // Others of this user have as many under way as may be: they go when those are taken.
            Err(error) if error.raw_os_error() == Some(libc::ETOOMANYREFS) => {
                self.hand_over_again = Some(now.mono + HAND_OVER_PAUSE);
                HandedOver::Later(error)
            }
            Err(error) => HandedOver::Stay(error),
        }
    }

    /// Its connection stays open, in the passage, and so it would in the poll.
    fn let_go(&mut self, id: ClientId) {
        if let Some(Some(client)) = self.clients.get_mut(id.index())
            && client.id == id
            && let Err(error) = client.stream.deregister(&self.registry)
        {
            log::debug!("deregister a program's connection: {error}");
        }
        self.close(id);
    }

    fn is_link_readable(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.connection.readable())
    }

    fn read_link(&mut self, hand_on: &mut dyn FnMut(&[u8])) -> Result<usize, String> {
        match &mut self.link {
            Some(link) => link.connection.read(&mut self.scratch, hand_on),
            None => Ok(0),
        }
    }

    fn write_link(&mut self, out: &mut Outgoing, moved: &mut bool) -> Result<usize, String> {
        let Some(Linked { connection, .. }) = &mut self.link else { return Ok(0) };
        let written = connection.write(out);
        *moved = connection.take_moved(out);
        written
    }

    fn dial(&mut self, now: Now) {
        self.begin_dial(now);
    }

    fn dialled(&mut self, now: Now) -> Dialled {
        self.go_on_dialling(now)
    }

    fn link_opened(&mut self) {
        self.note_opened();
        // A handshake has used more of the stack than a link ever does.
        self.tidy = true;
    }

    fn hang_up(&mut self, out: &mut Outgoing) {
        self.end_link(out);
    }

    fn delivered(&mut self, requests: &[Vec<u8>], now: Now) {
        self.permlog.delivered(&self.peer.host.id, requests, now);
    }

    fn report(&mut self, answer_to: Option<u64>, mut status: PeerStatus) {
        status.sandbox = Some(self.sandbox.clone());
        status.own_pin = self.keys.as_ref().map(|(identity, _)| identity.pin().to_string());
        title::set(&format!("{} {}", status.peer, status.state.as_str()));
        let status = Box::new(status);
        if let Err(error) = self.control.send(&FromLink::Status { report: answer_to, status }) {
            log::warn!("tell the supervisor: {error}; tried again");
        }
    }

    fn flush_reports(&mut self) {
        if let Err(error) = self.control.flush() {
            log::warn!("tell the supervisor: {error}; tried again");
        }
    }
}

/// Takes the programs out of the passage.
pub(super) fn take_over<D: Disk>(
    passage: &Takeover,
    broker: &mut Broker<D>,
) -> io::Result<Vec<(ClientId, UnixStream)>> {
    let (mut programs, mut room) = (Vec::new(), Room::default());
    while let Some(handed) = passage.receive(&mut room)? {
        for (stream, rest) in handed {
            let stream = UnixStream::from_std(stream);
            let id = broker.client_handed(rest);
            broker.client_belongs(id, credentials::of(&stream));
            programs.push((id, stream));
        }
    }
    if !programs.is_empty() {
        log::info!("took {} connected programs over", programs.len());
    }
    Ok(programs)
}

fn token_of(id: ClientId) -> Token {
    Token(FIRST_CLIENT + id.index())
}

/// A program that goes away does as it likes; but what this host lacks is said.
fn say_if_ours(verb: &str, error: &io::Error) {
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {}
        _ => log::warn!("{verb} a program: {error}; its connection is closed"),
    }
}
