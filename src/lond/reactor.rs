//! The loop of a link child: the only place with sockets and a clock.
//!
//! Waits for what happens, notes it, and lets the [`Turn`] do what follows from it; hears the
//! supervisor. [`Sockets`] is what a turn has of the world: the link, the control socket, the
//! connections to the handlers, and the ping back to the caller. It sleeps until an event or the
//! earliest deadline. Whether a source is read follows from what the buffers hold, so that a caller
//! or program that does not read stops its source and costs a bounded amount of memory.
//!
//! Failures: [`Reactor::new`] fails when the system gives no poll or no descriptor.
//! [`Reactor::run`] always comes to an end with a [`Reason`]; a broken link, a poll that fails and
//! a supervisor that is gone are reasons too. A link that broke may leave the loop turning: see
//! [`super::secure::Secure`].

mod ask_back;
mod effects;
mod handlers;
mod lanes;
mod log_request;
mod program;
mod refusals;
mod room;
mod secure_link;
mod sockets;
mod tagged;
mod tally;
mod watch;
mod wire;

use self::wire::Wire;
use super::Reason;
use super::Suspect;
use super::access::Rights;
use super::classic::{self, Classic};
use super::confined::Confined;
use super::ledger::Ledger;
use super::service::{Route, Service};
use super::settings::{Directory, ServeSettings};
use super::turn::{Link, Turn};
use crate::messages::{FromServe, ToServe};
use ::wire::secure::{MAX_HANDSHAKE, Tunnel};
use ask_back::AskBack;
use base::line::READ_SIZE;
use base::logging;
use base::pages::Pages;
use base::{HostId, Pin, pages};
use config::Host;
use handlers::Handler;
use net::{BusyPoll, Events, Interest, Poll, Registry, Stream, TcpStream, Token};
use secure_link::SecureLink;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use supervise::control::Channel;
use supervise::signals::ToldToEnd;
use tally::Tally;

const LINK: Token = Token(0);
const CONTROL: Token = Token(1);
const ASK_BACK: Token = Token(2);
const SIGNALS: Token = Token(3);
/// The handlers have this token and those after it.
const FIRST_HANDLER: usize = 4;

/// Events taken at a time; what is left comes with the next.
const EVENTS: usize = 64;

/// A child for which nothing has come for so long gives back what it does not use.
const IDLE: Duration = Duration::from_secs(1);

/// Bytes that one read asks for until it is known who calls: what a stranger costs is bounded.
const OPENING_READ: usize = 16 * 1024;

// All that a stranger can make this process hold: what one read brings, and what the tunnel takes.
const _: () = assert!(OPENING_READ + MAX_HANDSHAKE <= 64 * 1024);

/// Why a link could not be served.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {cause}")]
pub struct SetupError {
    /// What was tried, as verb and object.
    step: &'static str,
    cause: io::Error,
}

impl SetupError {
    /// A step that failed.
    pub(super) fn at(step: &'static str) -> impl FnOnce(io::Error) -> SetupError {
        move |cause| SetupError { step, cause }
    }
}

/// What is known of the caller when its link is accepted.
#[derive(Debug)]
pub enum Accepted<'a> {
    /// It speaks the classic wire, and is this host by its address.
    Classic(&'a Host),
    /// It speaks TLS, and is to prove who it is.
    Secure {
        /// The called end.
        tunnel: Box<Tunnel>,
        /// What is known of it if its key is not taken.
        suspect: Suspect,
        /// Where it is looked up by its key.
        directory: Arc<Directory>,
    },
}

/// The loop and all that it holds.
#[derive(Debug)]
pub struct Reactor {
    poll: Poll,
    busy_poll: BusyPoll,
    told: ToldToEnd,
    sockets: Sockets,
    turn: Turn<Wire>,
}

/// What a turn has of the world.
#[derive(Debug)]
struct Sockets {
    settings: Arc<ServeSettings>,
    /// Where a caller is looked up by its key.
    directory: Option<Arc<Directory>>,
    registry: Registry,
    /// One buffer for every read.
    scratch: Pages,
    /// Bytes of it that one read may bring: few until it is known who calls.
    read_size: usize,
    /// What is not used is to be given back at the end of the turn.
    tidy: bool,
    /// `None`: it is no more, though work may be left.
    link: Option<Stream<TcpStream>>,
    control: Channel<FromServe, ToServe>,
    /// What there is once it is known who calls.
    known: Option<Known>,
    ledger: Ledger,
    confined: Confined,
    opening_deadline: Instant,
}

/// What a caller that is known has.
#[derive(Debug)]
struct Known {
    caller: HostId,
    /// The key by which it is known, on the secure wire.
    pin: Option<Pin>,
    handlers: Vec<Handler>,
    /// What is told of them.
    tally: Tally,
    ask_back: AskBack,
}

impl Known {
    fn new(settings: &ServeSettings, caller: &HostId, pin: Option<Pin>, now: Instant) -> Known {
        let tokens = (FIRST_HANDLER..).step_by(handlers::TOKENS);
        let handlers = settings.handlers.iter().zip(tokens);
        Known {
            caller: caller.clone(),
            pin,
            handlers: handlers
                .map(|(handler, token)| Handler::new(handler, caller, settings.max_line, token, now))
                .collect(),
            tally: Tally::new(settings.handlers.iter().map(|handler| &*handler.name), now),
            ask_back: AskBack::new(settings.run_dir.join(caller.as_str()), ASK_BACK),
        }
    }
}

/// What `caller` is served with.
fn service(settings: &ServeSettings, caller: &Host) -> Service {
    let Rights { handlers, barred } = Rights::of(settings, caller);
    let routes = settings.handlers.iter().zip(handlers);
    let routes = routes.map(|(handler, right)| Route { name: handler.name.clone(), right }).collect();
    Service { id: settings.id.clone(), caller: caller.id.clone(), routes, barred }
}

/// What a child has for its link.
#[derive(Debug)]
pub struct Given {
    /// The link's connection.
    pub stream: std::net::TcpStream,
    /// The child's end of the control socket.
    pub control: OwnedFd,
    /// The signals that end it.
    pub told: ToldToEnd,
    /// What hosts have had logged.
    pub ledger: Ledger,
    /// What it has left itself of files.
    pub confined: Confined,
}

impl Reactor {
    /// Gets ready to serve the link that was given.
    ///
    /// # Errors
    /// When the system gives no poll, no random numbers, or refuses a socket.
    pub fn new(
        settings: Arc<ServeSettings>,
        accepted: Accepted<'_>,
        given: Given,
        opening_deadline: Instant,
    ) -> Result<Reactor, SetupError> {
        let Given { stream, control, mut told, ledger, confined } = given;
        let fail = SetupError::at;
        let poll = Poll::new().map_err(fail("make poll"))?;
        let registry = poll.registry();
        net::unblock(&stream).map_err(fail("make link non-blocking"))?;
        let link = Stream::of_tcp(TcpStream::from_std(stream), registry, LINK).map_err(fail("watch link"))?;
        let mut control = Channel::from_fd(control).map_err(fail("take control socket"))?;
        registry
            .register(&mut control, CONTROL, Interest::READABLE | Interest::WRITABLE)
            .map_err(fail("watch control socket"))?;
        registry.register(&mut told, SIGNALS, Interest::READABLE).map_err(fail("watch signals"))?;
        let (wire, known, directory) = match accepted {
            Accepted::Secure { tunnel, suspect, directory } => {
                let link = SecureLink::new(*tunnel, suspect, opening_deadline);
                (Wire::Secure(Box::new(link)), None, Some(directory))
            }
            Accepted::Classic(caller) => {
                let seed = getrandom::u64().map_err(io::Error::other).map_err(fail("read random numbers"))?;
                let own = classic::Settings {
                    service: service(&settings, caller),
                    max_line: settings.max_line,
                    drain_timeout: settings.drain_timeout,
                };
                let serve = Classic::new(own, fastrand::Rng::with_seed(seed), opening_deadline);
                let known = Known::new(&settings, &caller.id, None, Instant::now());
                (Wire::Classic(Box::new(serve)), Some(known), None)
            }
        };
        let busy_poll = BusyPoll::new(settings.busy_poll);
        let read_size = if known.is_some() { READ_SIZE } else { OPENING_READ };
        let sockets = Sockets {
            settings,
            directory,
            registry: poll.registry().try_clone().map_err(fail("watch with a poll"))?,
            scratch: Pages::new(READ_SIZE).map_err(fail("make a buffer"))?,
            read_size,
            tidy: false,
            link: Some(link),
            control,
            known,
            ledger,
            confined,
            opening_deadline,
        };
        Ok(Reactor { poll, busy_poll, told, sockets, turn: Turn::new(wire) })
    }

    /// Serves the link to its end.
    pub fn run(mut self) -> Reason {
        let reason = match self.turns() {
            Ok(reason) => reason,
            Err(error) => Reason::Lost(format!("wait for events: {error}")),
        };
        self.teardown(&reason);
        reason
    }

    /// Turns until the link has ended. An error is the poll's.
    fn turns(&mut self) -> io::Result<Reason> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let timeout = self.timeout(Instant::now());
            let under_way = self.turn.look().under_way();
            match self.busy_poll.poll(&mut self.poll, &mut events, timeout, under_way) {
                Ok(()) => self.sockets.tidy |= events.is_empty() && timeout.is_none_or(|time| time >= IDLE),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
                Err(error) => return Err(error),
            }
            let now = Instant::now();
            self.note(&events, now);
            self.turn.run(&mut self.sockets, now);
            if let Some(reason) = self.turn.look().ended() {
                return Ok(reason.clone());
            }
            if mem::take(&mut self.sockets.tidy) {
                self.sockets.scratch.give_back();
                pages::give_back_stack();
            }
        }
    }

    /// How long to sleep; nothing at all while a budget or a bound left work undone.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        let (wire, sockets) = (self.turn.look(), &self.sockets);
        if self.turn.has_work(sockets) || sockets.handlers_have_work(wire, now) {
            return Some(Duration::ZERO);
        }
        let deadline = wire.deadline().into_iter().chain(sockets.deadline()).min();
        deadline.map(|deadline| deadline.saturating_duration_since(now))
    }

    fn note(&mut self, events: &Events, now: Instant) {
        for event in events {
            match (event.token(), &mut self.sockets.link, &mut self.sockets.known) {
                (LINK, Some(link), _) => drop(link.note(event)),
                (CONTROL, _, _) => self.control(now),
                (SIGNALS, _, _) => {
                    if self.told.take() {
                        self.turn.link().finish(Reason::Drained, now);
                    }
                }
                (ASK_BACK, _, Some(known)) => known.ask_back.note(event),
                (Token(number), _, Some(known)) if number >= FIRST_HANDLER => {
                    let number = number - FIRST_HANDLER;
                    if let Some(handler) = known.handlers.get_mut(number / handlers::TOKENS) {
                        handler.note(number % handlers::TOKENS, event);
                    }
                }
                // Of a socket that was closed meanwhile.
                (Token(_), _, _) => {}
            }
        }
    }

    /// Hears the supervisor, and writes what waits for it.
    fn control(&mut self, now: Instant) {
        let Sockets { control, scratch, .. } = &mut self.sockets;
        let heard = control.flush().and_then(|_| control.receive(scratch));
        let closed = match heard {
            Ok(received) => {
                for message in received.messages {
                    match message {
                        ToServe::Drain => self.turn.link().finish(Reason::Drained, now),
                        ToServe::Replaced => self.turn.link().finish(Reason::Replaced, now),
                        ToServe::LogAnew => logging::follow(),
                        ToServe::Rights(rights) => self.turn.link().change_rights(rights),
                        // Not for a link.
                        ToServe::Listen | ToServe::EndWithin(_) => {}
                    }
                }
                received.closed
            }
            Err(error) => {
                log::warn!("hear the supervisor: {error}; ending the link");
                true
            }
        };
        if closed {
            // Said again with each event of a dead socket; only the first time counts.
            self.turn.link().finish(Reason::Orphaned, now);
        }
    }

    /// The one way to the end: says why; dropping the reactor closes all that it holds.
    fn teardown(mut self, reason: &Reason) {
        let why = reason.to_string();
        let key =
            || self.sockets.known.as_ref().and_then(|known| known.pin).or(self.turn.look().refused_key());
        let refused = |why| FromServe::Refused { why, key: key().map(|pin| pin.to_string()) };
        let (message, level) = match reason {
            Reason::Refused(what) => (refused(what.to_string()), log::Level::Warn),
            Reason::OpeningTimeout => (refused(why), log::Level::Warn),
            Reason::CallerClosed | Reason::Exit | Reason::Drained | Reason::Replaced => {
                (FromServe::Closed { why, fault: false }, log::Level::Info)
            }
            Reason::Orphaned
            | Reason::DrainTimeout { .. }
            | Reason::Lost(_)
            | Reason::Violation(_)
            | Reason::CallerError(_)
            | Reason::Silent(_)
            | Reason::Record(_) => (FromServe::Closed { why, fault: true }, log::Level::Warn),
        };
        if let Some(report) = self.sockets.known.take().and_then(|known| known.tally.last()) {
            // Where that fails, so does what follows.
            let _ = self.sockets.control.send(&FromServe::Handlers(report));
        }
        // The supervisor says it, seldom enough that no caller can fill the log. Where there is
        // none, nobody comes any more either.
        match (reason, self.sockets.control.send(&message)) {
            (Reason::Orphaned, _) => log::log!(level, "link closed: {reason}"),
            (_, Ok(())) => log::debug!("link closed: {reason}"),
            (_, Err(error)) => {
                log::log!(level, "link closed: {reason} (the supervisor is not told: {error})")
            }
        }
    }
}

#[cfg(test)]
mod tests;
