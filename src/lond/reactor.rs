//! The loop of a link child: the only place with sockets and a clock.
//!
//! Owns the link, the control socket, the connections to the handlers and the ping back to the caller, and carries
//! out what [`Serve`] decides. A turn reads what is ready (each source within a budget), takes requests, and writes
//! once to each socket what came together; then it sleeps until an event or the earliest deadline. Whether a
//! source is read follows from what the buffers hold, so that a caller or program that does not read stops its
//! source and costs a bounded amount of memory.
//!
//! Failures: [`Reactor::new`] fails when the system gives no poll or no descriptor. [`Reactor::run`] always comes to
//! an end with a [`Reason`]; a broken link, a poll that fails and a supervisor that is gone are reasons too.

mod ask_back;
mod program;
mod stream;

use super::access;
use super::serve::{Effect, Reason, Route, Serve, Settings};
use crate::config::{Config, Host, HostId, Wire};
use crate::handler::builtin;
use crate::handler::socket::Conversation;
use crate::supervise::control::{Channel, FromServe, ToServe};
use crate::supervise::title;
use crate::wire::line::READ_SIZE;
use ask_back::AskBack;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use program::Program;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use stream::{ReadOutcome, Stream};

const LINK: Token = Token(0);
const CONTROL: Token = Token(1);
const ASK_BACK: Token = Token(2);
/// The handlers have this token and those after it.
const FIRST_PROGRAM: usize = 3;

/// Events taken at a time; what is left comes with the next.
const EVENTS: usize = 64;

/// Reads of the link in one turn of the loop; then the handlers have theirs.
const READ_BUDGET: usize = 4;

/// Where the kernel tells the load average.
const LOADAVG: &str = "/proc/loadavg";

/// Why a link could not be served.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {cause}")]
pub struct SetupError {
    /// What was tried, as verb and object.
    step: &'static str,
    cause: io::Error,
}

/// The loop and all that it holds.
#[derive(Debug)]
pub struct Reactor {
    poll: Poll,
    /// One buffer for every read.
    scratch: Box<[u8]>,
    caller: HostId,
    full_load: f64,
    serve: Serve,
    link: Stream<TcpStream>,
    control: Channel<FromServe, ToServe>,
    programs: Vec<Program>,
    ask_back: AskBack,
}

impl Reactor {
    /// Gets ready to serve `caller` on `stream`. `control`: the child's end of the control socket.
    ///
    /// # Errors
    /// When the system gives no poll, no random numbers, or refuses a socket.
    pub fn new(
        config: &Config,
        caller: &Host,
        stream: std::net::TcpStream,
        control: OwnedFd,
        opening_deadline: Instant,
    ) -> Result<Reactor, SetupError> {
        let fail = |step| move |cause| SetupError { step, cause };
        let poll = Poll::new().map_err(fail("make poll"))?;
        let registry = poll.registry();
        stream.set_nonblocking(true).map_err(fail("make link non-blocking"))?;
        let link =
            Stream::register(TcpStream::from_std(stream), registry, LINK).map_err(fail("watch link"))?;
        let mut control = Channel::from_fd(control).map_err(fail("take control socket"))?;
        registry
            .register(&mut control, CONTROL, Interest::READABLE | Interest::WRITABLE)
            .map_err(fail("watch control socket"))?;
        let seed = getrandom::u64().map_err(io::Error::other).map_err(fail("read random numbers"))?;

        let routes = config
            .handlers
            .iter()
            .map(|handler| Route { name: handler.name.clone(), allowed: access::allowed(handler, caller) })
            .collect();
        let settings = Settings {
            id: config.id.clone(),
            caller: caller.id.clone(),
            routes,
            max_line: config.lond.max_line,
            drain_timeout: config.lond.drain_timeout,
        };
        let now = Instant::now();
        let programs = config
            .handlers
            .iter()
            .zip(FIRST_PROGRAM..)
            .map(|(handler, token)| {
                let conversation =
                    Conversation::new(&handler.name, handler.timeout, config.lond.max_line, now);
                Program::new(&handler.name, handler.socket.clone(), Token(token), conversation)
            })
            .collect();
        Ok(Reactor {
            scratch: vec![0; READ_SIZE].into_boxed_slice(),
            caller: caller.id.clone(),
            full_load: config.lond.full_load,
            serve: Serve::new(settings, fastrand::Rng::with_seed(seed), opening_deadline),
            link,
            control,
            programs,
            ask_back: AskBack::new(config.socket_path(&caller.id), ASK_BACK),
            poll,
        })
    }

    /// Serves the link to its end.
    pub fn run(mut self) -> Reason {
        let reason = match self.turns() {
            Ok(reason) => reason,
            Err(error) => Reason::Lost(error.to_string()),
        };
        self.teardown(&reason);
        reason
    }

    /// Turns until the link has ended. An error is the link's, or the poll's.
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
            self.turn(now)?;
            if let Some(reason) = self.serve.ended() {
                return Ok(reason.clone());
            }
        }
    }

    /// How long to sleep; nothing at all while a budget or a bound left work undone.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        let work_left = self.serve.has_work()
            || (self.link.readable() && self.serve.wants_input())
            || self
                .programs
                .iter()
                .enumerate()
                .any(|(number, program)| program.has_work(self.serve.wants_answers_from(number)));
        if work_left {
            return Some(Duration::ZERO);
        }
        let deadlines = self.programs.iter().map(Program::deadline);
        deadlines
            .chain([self.serve.deadline(), self.ask_back.deadline()])
            .flatten()
            .min()
            .map(|deadline| deadline.saturating_duration_since(now))
    }

    fn note(&mut self, events: &Events, now: Instant) {
        for event in events {
            match event.token() {
                LINK => self.link.note(event),
                CONTROL => self.control(now),
                ASK_BACK => self.ask_back.note(event),
                Token(number) => {
                    if let Some(program) = self.programs.get_mut(number.wrapping_sub(FIRST_PROGRAM)) {
                        program.note(event);
                    }
                }
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
                        ToServe::Drain => self.serve.finish(Reason::Drained, now),
                        ToServe::Replaced => self.serve.finish(Reason::Replaced, now),
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
            self.serve.finish(Reason::Orphaned, now);
        }
    }

    /// Does all that can be done now. Programs are read before they are written to, so that one that has closed its
    /// connection meanwhile is dialed anew rather than given a request to lose.
    fn turn(&mut self, now: Instant) -> io::Result<()> {
        self.serve.tick(now);
        for (number, program) in self.programs.iter_mut().enumerate() {
            let wanted = self.serve.wants_answers_from(number);
            program.read(wanted, &mut self.scratch, now, &mut |ticket, answer| {
                self.serve.answer(ticket, answer);
            });
        }
        self.take_requests(now)?;
        for program in &mut self.programs {
            program.write(self.poll.registry(), &mut self.scratch, now, &mut |ticket, answer| {
                self.serve.answer(ticket, answer);
            });
        }
        self.ask_back.work(self.poll.registry(), &mut self.scratch, now, &mut |ticket, answer| {
            self.serve.asked_back(ticket, answer);
        });
        self.link.flush(self.serve.outgoing())?;
        // Only now is it known what the buffers hold while the loop sleeps, and so whose time runs.
        for (number, program) in self.programs.iter_mut().enumerate() {
            program.pause(self.serve.wants_answers_from(number), now);
        }
        Ok(())
    }

    fn take_requests(&mut self, now: Instant) -> io::Result<()> {
        self.carry_out(now)?;
        let mut budget = READ_BUDGET;
        while budget > 0 && self.link.readable() && self.serve.wants_input() {
            match self.link.read(&mut self.scratch)? {
                ReadOutcome::Nothing => break,
                ReadOutcome::Bytes(count) => self.serve.push(&self.scratch[..count]),
                ReadOutcome::End => self.serve.end_of_input(),
            }
            self.carry_out(now)?;
            budget -= 1;
        }
        Ok(())
    }

    fn carry_out(&mut self, now: Instant) -> io::Result<()> {
        while let Some(effect) = self.serve.step(now) {
            match effect {
                Effect::Opened => {
                    log::info!("link open");
                    title::set(&format!("{} serving", self.caller));
                    let opened =
                        FromServe::Opened { caller: self.caller.clone(), pin: None, wire: Wire::Classic };
                    if let Err(error) = self.control.send(&opened) {
                        log::warn!("tell the supervisor that the link is open: {error}");
                    }
                }
                Effect::Ask { handler, ticket, request } => self.programs[handler].ask(ticket, request, now),
                Effect::AskBack(ticket) => self.ask_back.ask(ticket),
                Effect::Load(ticket) => {
                    // What cannot be read has no number in it, and is answered so.
                    let text = std::fs::read_to_string(LOADAVG).unwrap_or_default();
                    self.serve.answer(ticket, builtin::load_answer(&text, self.full_load).as_bytes());
                }
                Effect::Log(text) => {
                    crate::logging::always(format_args!(
                        "log from {}: {}",
                        self.caller,
                        builtin::printable(text)
                    ));
                }
                Effect::Shut => match self.link.socket().shutdown(Shutdown::Write) {
                    // The caller was faster.
                    Err(error) if error.kind() != io::ErrorKind::NotConnected => return Err(error),
                    Ok(()) | Err(_) => {}
                },
            }
        }
        Ok(())
    }

    /// The one way to the end: says why; dropping the reactor closes all that it holds.
    fn teardown(self, reason: &Reason) {
        match reason {
            Reason::CallerClosed | Reason::Exit | Reason::Drained | Reason::Replaced => {
                log::info!("link closed: {reason}");
            }
            Reason::Refused(_)
            | Reason::OpeningTimeout
            | Reason::Orphaned
            | Reason::DrainTimeout { .. }
            | Reason::Lost(_) => log::warn!("link closed: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests;
