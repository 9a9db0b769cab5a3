//! The loop of a link child: the only place with sockets and a clock.
//!
//! Owns the link, the control socket, the connections to the handlers, the record of critical messages and the ping
//! back to the caller, and carries out what [`Serve`] or [`Secure`] decides. A turn reads what is ready (each source
//! within a budget), takes requests, records the answers to critical messages with one sync, and writes once to each
//! socket what came together; then it sleeps until an event or the earliest deadline. Whether a source is read
//! follows from what the buffers hold, so that a caller or program that does not read stops its source and costs a
//! bounded amount of memory.
//!
//! Failures: [`Reactor::new`] fails when the system gives no poll or no descriptor. [`Reactor::run`] always comes to
//! an end with a [`Reason`]; a broken link, a poll that fails and a supervisor that is gone are reasons too. A link
//! that broke may leave the loop turning: see [`Secure`].

mod ask_back;
mod effects;
mod handlers;
mod log_request;
mod program;
mod room;
mod secure_link;
mod tally;
mod wire;

use super::Reason;
use super::Suspect;
use super::access;
use super::entry;
use super::keeper::Keeper;
use super::ledger::Ledger;
use super::secure::{self, Secure};
use super::serve::{self, Serve};
use super::service::{Route, Service};
use crate::base::line::READ_SIZE;
use crate::base::logging;
use crate::base::{HostId, Pin};
use crate::config::{Config, Host};
use crate::net::{Events, Interest, Poll, ReadOutcome, Stream, TcpStream, Token};
use crate::supervise::control::{Channel, FromServe, ToServe};
use crate::supervise::places::child_holder;
use crate::supervise::signals::ToldToEnd;
use crate::supervise::title;
use crate::wire::secure::{MAX_HANDSHAKE, Tunnel};
use ask_back::AskBack;
use handlers::Handler;
use room::Room;
use secure_link::SecureLink;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tally::Tally;
use wire::Wire;

const LINK: Token = Token(0);
const CONTROL: Token = Token(1);
const ASK_BACK: Token = Token(2);
const SIGNALS: Token = Token(3);
/// The handlers have this token and those after it.
const FIRST_HANDLER: usize = 4;

/// Events taken at a time; what is left comes with the next.
const EVENTS: usize = 64;

/// Reads of the link in one turn of the loop; then the handlers have theirs.
const READ_BUDGET: usize = 4;

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
    },
}

/// The loop and all that it holds.
#[derive(Debug)]
pub struct Reactor {
    config: Arc<Config>,
    poll: Poll,
    /// One buffer for every read; small until it is known who calls.
    scratch: Box<[u8]>,
    wire: Wire,
    /// `None`: it is no more, though work may be left.
    link: Option<Stream<TcpStream>>,
    control: Channel<FromServe, ToServe>,
    told: ToldToEnd,
    /// What there is once it is known who calls.
    known: Option<Known>,
    ledger: Ledger,
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
    fn new(config: &Config, caller: &HostId, pin: Option<Pin>, now: Instant) -> Known {
        let tokens = (FIRST_HANDLER..).step_by(handlers::TOKENS);
        let handlers = config.handlers.iter().zip(tokens);
        Known {
            caller: caller.clone(),
            pin,
            handlers: handlers
                .map(|(handler, token)| Handler::new(handler, config.lond.max_line, token, now))
                .collect(),
            tally: Tally::new(config.handlers.iter().map(|handler| &*handler.name), now),
            ask_back: AskBack::new(config.socket_path(caller), ASK_BACK),
        }
    }
}

/// What `caller` is served with.
fn service(config: &Config, caller: &Host) -> Service {
    let routes = config
        .handlers
        .iter()
        .map(|handler| Route { name: handler.name.clone(), allowed: access::allowed(handler, caller) });
    Service { id: config.id.clone(), caller: caller.id.clone(), routes: routes.collect() }
}

impl Reactor {
    /// Gets ready to serve the link on `stream`. `control`: the child's end of the control socket; `told`: the signals
    /// that end it; `ledger`: what hosts have had logged.
    ///
    /// # Errors
    /// When the system gives no poll, no random numbers, or refuses a socket.
    pub fn new(
        config: Arc<Config>,
        accepted: Accepted<'_>,
        stream: std::net::TcpStream,
        control: OwnedFd,
        mut told: ToldToEnd,
        ledger: Ledger,
        opening_deadline: Instant,
    ) -> Result<Reactor, SetupError> {
        let fail = SetupError::at;
        let poll = Poll::new().map_err(fail("make poll"))?;
        let registry = poll.registry();
        stream.set_nonblocking(true).map_err(fail("make link non-blocking"))?;
        let link =
            Stream::register(TcpStream::from_std(stream), registry, LINK).map_err(fail("watch link"))?;
        let mut control = Channel::from_fd(control).map_err(fail("take control socket"))?;
        registry
            .register(&mut control, CONTROL, Interest::READABLE | Interest::WRITABLE)
            .map_err(fail("watch control socket"))?;
        registry.register(&mut told, SIGNALS, Interest::READABLE).map_err(fail("watch signals"))?;
        let (wire, known) = match accepted {
            Accepted::Secure { tunnel, suspect } => {
                (Wire::Secure(Box::new(SecureLink::new(*tunnel, suspect, opening_deadline))), None)
            }
            Accepted::Classic(caller) => {
                let seed = getrandom::u64().map_err(io::Error::other).map_err(fail("read random numbers"))?;
                let settings = serve::Settings {
                    service: service(&config, caller),
                    max_line: config.lond.max_line,
                    drain_timeout: config.lond.drain_timeout,
                };
                let serve = Serve::new(settings, fastrand::Rng::with_seed(seed), opening_deadline);
                let known = Known::new(&config, &caller.id, None, Instant::now());
                (Wire::Classic(Box::new(serve)), Some(known))
            }
        };
        let read_size = if known.is_some() { READ_SIZE } else { OPENING_READ };
        Ok(Reactor {
            config,
            scratch: vec![0; read_size].into_boxed_slice(),
            wire,
            link: Some(link),
            control,
            told,
            known,
            ledger,
            opening_deadline,
            poll,
        })
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
            match self.poll.poll(&mut events, self.timeout(Instant::now())) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
                Err(error) => return Err(error),
            }
            let now = Instant::now();
            self.note(&events, now);
            self.turn(now);
            if let Some(reason) = self.wire.ended() {
                return Ok(reason.clone());
            }
        }
    }

    /// How long to sleep; nothing at all while a budget or a bound left work undone.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        let handlers = || self.known.iter().flat_map(|known| &known.handlers);
        let room = Room::beside(handlers().flat_map(Handler::begun));
        let work_left = self.wire.has_work()
            || (self.link.as_ref().is_some_and(Stream::readable) && self.wire.wants_input())
            || handlers()
                .enumerate()
                .any(|(number, handler)| handler.has_work(self.wire.wants_answers_from(number), &room, now));
        if work_left {
            return Some(Duration::ZERO);
        }
        let ask_back = self.known.as_ref().and_then(|known| known.ask_back.deadline());
        let told = self.known.as_ref().and_then(|known| known.tally.deadline());
        handlers()
            .filter_map(Handler::deadline)
            .chain([self.wire.deadline(), ask_back, told].into_iter().flatten())
            .min()
            .map(|deadline| deadline.saturating_duration_since(now))
    }

    fn note(&mut self, events: &Events, now: Instant) {
        for event in events {
            match (event.token(), &mut self.link, &mut self.known) {
                (LINK, Some(link), _) => link.note(event),
                (CONTROL, _, _) => self.control(now),
                (SIGNALS, _, _) => {
                    if self.told.take() {
                        self.wire.finish(Reason::Drained, now);
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
        let heard = self.control.flush().and_then(|_| self.control.receive(&mut self.scratch));
        let closed = match heard {
            Ok(received) => {
                for message in received.messages {
                    match message {
                        ToServe::Drain => self.wire.finish(Reason::Drained, now),
                        ToServe::Replaced => self.wire.finish(Reason::Replaced, now),
                        ToServe::LogAnew => logging::follow(),
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
            self.wire.finish(Reason::Orphaned, now);
        }
    }

    /// Does all that can be done now. Programs are read before they are written to, so that one that has closed its
    /// connection meanwhile is dialed anew rather than given a request to lose.
    fn turn(&mut self, now: Instant) {
        self.wire.tick(now);
        if let Some(Known { handlers, tally, .. }) = &mut self.known {
            let mut room = Room::beside(handlers.iter().flat_map(Handler::begun));
            for (number, handler) in handlers.iter_mut().enumerate() {
                let wanted = self.wire.wants_answers_from(number);
                handler.read(wanted, &mut room, &mut self.scratch, now, &mut |ticket, reply| {
                    tally.replied(number, &reply);
                    self.wire.answer(ticket, reply);
                });
            }
        }
        if let Err(error) = self.take_requests(now) {
            self.wire.lost(&error);
        }
        // Before a handler gets the next critical message.
        self.record_answers(now);
        let unrecorded = self.wire.has_unrecorded();
        if let Some(known) = &mut self.known {
            let Known { handlers, tally, .. } = known;
            for (number, handler) in handlers.iter_mut().enumerate() {
                handler.hold_critical(unrecorded);
                handler.write(self.poll.registry(), &mut self.scratch, now, &mut |ticket, reply| {
                    tally.replied(number, &reply);
                    self.wire.answer(ticket, reply);
                });
                if handler.take_back() {
                    self.wire.handler_back(number);
                }
            }
            known.ask_back.work(self.poll.registry(), &mut self.scratch, now, &mut |ticket, answer| {
                self.wire.asked_back(ticket, answer);
            });
        }
        // Those that a handler could not be asked.
        self.record_answers(now);
        self.look_after_session(now);
        if let Some(link) = &mut self.link
            && let Err(error) = self.wire.flush(link, now)
        {
            self.wire.lost(&error);
        }
        if self.wire.is_cut() {
            self.link = None;
        }
        self.pause_handlers(now);
        self.report_handlers(now);
    }

    /// Only at the end of a turn is it known what the buffers hold while the loop sleeps, and so whose time runs.
    fn pause_handlers(&mut self, now: Instant) {
        let Some(Known { handlers, .. }) = &mut self.known else { return };
        let room = Room::beside(handlers.iter().flat_map(Handler::begun));
        for (number, handler) in handlers.iter_mut().enumerate() {
            handler.pause(self.wire.wants_answers_from(number), &room, now);
        }
    }

    /// Tells the supervisor how the handlers do, if there is news.
    fn report_handlers(&mut self, now: Instant) {
        let Some(Known { handlers, tally, .. }) = &mut self.known else { return };
        for (number, handler) in handlers.iter().enumerate() {
            tally.stands(number, handler.reachable(), self.wire.awaits(number));
        }
        if let Some(report) = tally.report(now)
            && let Err(error) = self.control.send(&FromServe::Handlers(report))
        {
            log::debug!("tell the supervisor how the handlers do: {error}");
        }
    }

    fn take_requests(&mut self, now: Instant) -> io::Result<()> {
        self.carry_out(now)?;
        let mut budget = READ_BUDGET;
        while budget > 0 && self.wire.wants_input() {
            let Some(link) = self.link.as_mut().filter(|link| link.readable()) else { break };
            match link.read(&mut self.scratch)? {
                ReadOutcome::Nothing => break,
                ReadOutcome::Bytes(count) => self.receive(count, now),
                ReadOutcome::End => self.wire.end_of_input(),
            }
            self.carry_out(now)?;
            budget -= 1;
        }
        Ok(())
    }

    /// Takes what was read into the buffer.
    fn receive(&mut self, count: usize, now: Instant) {
        let bytes = &self.scratch[..count];
        match &mut self.wire {
            Wire::Classic(serve) => serve.push(bytes),
            Wire::Secure(link) => {
                if let Some((caller, pin)) = link.receive(bytes, now) {
                    self.authenticated(&caller, pin, now);
                }
            }
        }
    }

    /// The caller has proved who it is: only now is there anything for it.
    fn authenticated(&mut self, caller: &HostId, pin: Pin, now: Instant) {
        let Wire::Secure(link) = &mut self.wire else { return };
        let (config, lond) = (&self.config, &self.config.lond);
        let Some(host) = config.hosts.get(caller) else {
            return link.refuse(format!("{caller} is not in {}", config.hosts_file.display()), now);
        };
        entry::knows(&self.ledger, caller, now);
        title::set(&format!("{caller} opening"));
        let settings = secure::Settings {
            service: service(config, host),
            max_line: lond.max_line,
            window: lond.window,
            heartbeat: lond.heartbeat,
            heartbeat_missed: lond.heartbeat_missed,
            drain_timeout: lond.drain_timeout,
        };
        self.known = Some(Known::new(config, caller, Some(pin), now));
        let keeper = Keeper::new(&config.spool_dir, caller).signed(child_holder("lond", config));
        link.open(Secure::new(settings, keeper, self.opening_deadline, now), now);
        // It holds what was just read, and all that was taken.
        self.scratch = vec![0; READ_SIZE].into_boxed_slice();
    }

    /// The one way to the end: says why; dropping the reactor closes all that it holds.
    fn teardown(mut self, reason: &Reason) {
        let why = reason.to_string();
        let key = || self.known.as_ref().and_then(|known| known.pin).or(self.wire.refused_key());
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
        if let Some(report) = self.known.take().and_then(|known| known.tally.last()) {
            // Where that fails, so does what follows.
            let _ = self.control.send(&FromServe::Handlers(report));
        }
        // The supervisor says it, seldom enough that no caller can fill the log. Where there is none, nobody comes any
        // more either.
        match (reason, self.control.send(&message)) {
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
