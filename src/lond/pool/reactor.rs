//! The loop of a pool: the only place with its poll and a clock.
//!
//! A turn hears processes, then link children, begins what can be begun, and writes. What is read
//! of each in a turn is bounded, so that none keeps the others waiting.
//!
//! Told to end, it connects to nobody any more, serves who is connected until that has nothing
//! open, and ends its processes; past its time all are killed, and what they had begun has failed.
//! So does it when its supervisor is gone. It exits when nothing is left of its programs.

use super::alone::Alone;
use super::clients::Clients;
use super::crew::Crew;
use super::once;
use super::queue::{Ask, Queue};
use super::{Seed, Settings};
use crate::handler::tag::{Request, Said};
use crate::messages::{FromServe, ToServe};
use base::line::READ_SIZE;
use base::logging;
use jiff::Timestamp;
use net::{Event, Events, Interest, Poll, Token, UnixListener};
use status::{HandlerStatus, ProgramStatus};
use std::io;
use std::time::{Duration, Instant};
use supervise::control::Channel;
use supervise::signals::{ChildEnded, ToldToEnd};
use supervise::{strays, title};

const CONTROL: Token = Token(0);
const SIGNALS: Token = Token(1);
const CHILDREN: Token = Token(2);
const LISTENER: Token = Token(3);
/// Connections have every [`STEP`]th token from this one on, processes the [`OF_PROCESS`]th behind
/// each of these, and those that follow.
pub(super) const FIRST: usize = 8;
pub(super) const STEP: usize = 8;
pub(super) const OF_PROCESS: usize = 4;

/// Events taken at a time; what is left comes with the next.
const EVENTS: usize = 256;
/// Connections accepted in a turn.
const ACCEPTED: usize = 64;
/// Bytes of requests that may wait, or of four that are as long as may be.
const WAITING_BYTES: usize = 32 << 20;
/// How long a critical request waits for a program that cannot be run before its sender is told to
/// keep it.
const MOMENT: Duration = Duration::from_secs(1);
/// How long what is killed at the end may take to be gone.
const ENDING: Duration = Duration::from_secs(5);
/// Least time between two reports.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// See the head of this file.
pub(super) struct Reactor {
    poll: Poll,
    control: Channel<FromServe, ToServe>,
    told: ToldToEnd,
    children: ChildEnded,
    listener: Option<UnixListener>,
    /// Somebody may wait to be accepted.
    knocks: bool,
    /// Some child has ended.
    reap: bool,
    core: Core,
    scratch: Box<[u8]>,
}

/// All but what wakes the loop.
struct Core {
    settings: Settings,
    alone: Alone,
    clients: Clients,
    crew: Crew,
    queue: Queue,
    /// It was told to end, and has to by then.
    ends: Option<Instant>,
    /// Its processes were told to.
    retired: bool,
    /// There is no time left.
    over: bool,
    board: Board,
}

/// What is told of it.
struct Board {
    told: HandlerStatus,
    next: Instant,
    error: Option<(String, Timestamp)>,
}

impl Reactor {
    /// # Errors
    /// When the system gives no poll, or refuses a socket.
    pub(super) fn new(seed: Seed) -> io::Result<Reactor> {
        let Seed { settings, listener, control } = seed;
        let now = Instant::now();
        let (mut told, mut children) = (ToldToEnd::new()?, ChildEnded::new()?);
        let poll = Poll::new()?;
        let registry = poll.registry();
        let mut control = Channel::from_fd(control)?.taking_descriptors();
        registry.register(&mut control, CONTROL, Interest::READABLE | Interest::WRITABLE)?;
        registry.register(&mut told, SIGNALS, Interest::READABLE)?;
        registry.register(&mut children, CHILDREN, Interest::READABLE)?;
        let handler = &settings.handler;
        let most = handler.program.as_ref().map_or(0, |program| program.waiting);
        let core = Core {
            alone: Alone::new(handler, now),
            clients: Clients::new(&handler.name, settings.max_line, registry.try_clone()?),
            crew: Crew::new(settings.clone(), registry.try_clone()?, now),
            queue: Queue::new(most, WAITING_BYTES.max(4 * settings.max_line)),
            ends: None,
            retired: false,
            over: false,
            board: Board { told: HandlerStatus::default(), next: now, error: None },
            settings,
        };
        let scratch = vec![0; READ_SIZE].into_boxed_slice();
        let mut reactor = Reactor {
            poll,
            control,
            told,
            children,
            listener: None,
            knocks: false,
            reap: false,
            core,
            scratch,
        };
        reactor.listen(listener)?;
        Ok(reactor)
    }

    /// Accepts who connects there; who has connected to the one before is accepted first.
    fn listen(&mut self, listener: std::os::unix::net::UnixListener) -> io::Result<()> {
        self.accept(usize::MAX);
        let mut listener = UnixListener::from_std(listener);
        self.poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        (self.listener, self.knocks) = (Some(listener), true);
        Ok(())
    }

    /// Serves until it has ended in order, or has no more time.
    ///
    /// # Errors
    /// The poll's.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let now = Instant::now();
            self.turn(now);
            if self.core.has_ended() {
                self.core.end();
                return Ok(());
            }
            match self.poll.poll(&mut events, self.timeout(now)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
                Err(error) => return Err(error),
            }
            let now = Instant::now();
            for event in &events {
                self.note(event, now);
            }
        }
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        if self.knocks || self.core.has_work() {
            return Some(Duration::ZERO);
        }
        self.core.deadline().map(|at| at.saturating_duration_since(now))
    }

    fn note(&mut self, event: &Event, now: Instant) {
        match event.token() {
            CONTROL => self.hear(now),
            SIGNALS => {
                if self.told.take() {
                    self.end(now, self.core.settings.drain_timeout);
                }
            }
            CHILDREN => {
                self.children.clear();
                self.reap = true;
            }
            LISTENER => self.knocks = true,
            Token(number) => {
                let number = number.saturating_sub(FIRST);
                let (id, part) = (number / STEP, number % STEP);
                match part.checked_sub(OF_PROCESS) {
                    Some(pipe) => self.core.crew.note(id, pipe, event),
                    None => self.core.clients.note(id, event),
                }
            }
        }
    }

    /// Hears the supervisor, and writes what waits for it.
    fn hear(&mut self, now: Instant) {
        let heard = self.control.flush().and_then(|_| self.control.receive(&mut self.scratch));
        let closed = match heard {
            Ok(received) => {
                for message in received.messages {
                    match message {
                        ToServe::Drain | ToServe::Replaced => {
                            self.end(now, self.core.settings.drain_timeout);
                        }
                        ToServe::EndWithin(time) => self.end(now, time),
                        ToServe::LogAnew => logging::follow(),
                        ToServe::Listen => self.listen_anew(),
                        // Not for this process: links ask what they may.
                        ToServe::Rights(_) => {}
                    }
                }
                received.closed
            }
            Err(error) => {
                log::warn!("handler {}: hear the supervisor: {error}; ending", self.core.name());
                true
            }
        };
        if closed {
            self.end(now, self.core.settings.drain_timeout);
        }
    }

    fn listen_anew(&mut self) {
        let Some(listener) = self.control.take_descriptor() else { return };
        if self.core.ends.is_none()
            && let Err(error) = self.listen(listener.into())
        {
            log::error!("handler {}: listen on its socket anew: {error}", self.core.name());
        }
    }

    /// Ends in order within this time, or sooner if it was told so before.
    fn end(&mut self, now: Instant, within: Duration) {
        self.listener = None;
        self.knocks = false;
        let by = now + within;
        self.core.ends = Some(self.core.ends.map_or(by, |ends| ends.min(by)));
    }

    fn accept(&mut self, most: usize) {
        let Some(listener) = &self.listener else { return };
        for _ in 0..most {
            match listener.accept() {
                Ok((socket, _)) => self.core.clients.add(socket),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        log::warn!("handler {}: accept a connection: {error}", self.core.name());
                    }
                    self.knocks = false;
                    return;
                }
            }
        }
    }

    fn turn(&mut self, now: Instant) {
        if self.knocks {
            self.accept(ACCEPTED);
        }
        let reap = std::mem::take(&mut self.reap);
        self.core.turn(reap, &mut self.scratch, now);
        if let Some(status) = self.core.report(now)
            && let Err(error) = self.control.send(&FromServe::Pool(status))
        {
            log::warn!("handler {}: tell the supervisor of it: {error}", self.core.name());
        }
    }
}

impl Core {
    fn name(&self) -> &str {
        &self.settings.handler.name
    }

    fn has_work(&self) -> bool {
        self.clients.has_work() || self.crew.has_work()
    }

    fn has_ended(&self) -> bool {
        self.over || (self.ends.is_some() && self.clients.is_empty() && self.crew.len() == 0)
    }

    fn turn(&mut self, reap: bool, scratch: &mut [u8], now: Instant) {
        let Core { clients, crew, board, .. } = self;
        let mut back = Vec::new();
        let mut tell = |ask: &Ask, said: Result<Said<'_>, String>| tell(clients, board, ask, said);
        if reap {
            crew.reap(scratch, now, &mut back, &mut tell);
        }
        crew.read(scratch, now, &mut back, &mut tell);
        crew.kill_overdue(now, &mut back, &mut tell);
        self.put_back(back);
        if self.ends.is_none() {
            self.alone.try_now(now);
        }
        if self.alone.is_had() {
            self.crew.start_due(now);
        }
        self.hear_clients(scratch, now);
        self.give_up(now);
        self.begin(now);
        self.crew.write();
        let gone = self.clients.write();
        self.forget(&gone);
        self.end_if_told(now);
    }

    /// What a process had not begun waits for the next one.
    fn put_back(&mut self, back: Vec<Ask>) {
        // The oldest in front.
        for ask in back.into_iter().rev().filter(|ask| self.clients.has(ask.client)) {
            self.queue.put_back(ask);
        }
    }

    /// Takes requests; who is one too many is told so at once, be it the one that comes or one that
    /// gives way to it.
    fn hear_clients(&mut self, scratch: &mut [u8], now: Instant) {
        let Core { clients, crew, queue, alone, .. } = self;
        let mut gave_way = Vec::new();
        let gone = clients.read(scratch, &mut |client, request: &Request<'_>| {
            match queue.push(Ask::new(client, request, now)) {
                Err(_) => Some(Said::Busy),
                Ok(others) => {
                    gave_way.extend(others);
                    // While there is room for more, nobody else waits for it.
                    if alone.is_had()
                        && crew.has_room(now)
                        && let Some(ask) = queue.take(|of| of == client)
                        && let Err(ask) = crew.begin(ask, now)
                    {
                        queue.put_back(ask);
                    }
                    None
                }
            }
        });
        gave_way.iter().for_each(|ask| clients.answer(ask.client, ask.tag, Said::Busy));
        self.forget(&gone);
    }

    /// What these connections have asked and nobody has begun is no longer wanted.
    fn forget(&mut self, gone: &[usize]) {
        if !gone.is_empty() {
            self.queue.take_all(|ask| gone.contains(&ask.client));
        }
    }

    /// Says of what has waited too long that it was not begun; of what nobody keeps at once, where
    /// the program cannot be run.
    fn give_up(&mut self, now: Instant) {
        let timeout = self.settings.handler.timeout;
        let late = self.queue.overdue(timeout, now);
        let why = format!("not begun within {timeout:?}: its program could not take it");
        late.iter().for_each(|ask| self.not_begun(ask, &why));
        let Some(since) = self.stuck_since() else { return };
        let cannot = self.crew.cannot().map(str::to_owned);
        if let Some(why) = &cannot {
            let plain = self.queue.take_all(|ask| !ask.is_critical());
            plain.iter().for_each(|ask| self.not_begun(ask, why));
        }
        if since + MOMENT <= now {
            let why = cannot.as_deref().unwrap_or("its program cannot be run just now");
            let critical = self.queue.take_all(Ask::is_critical);
            critical.iter().for_each(|ask| self.not_begun(ask, why));
        }
    }

    /// Since when no request can be begun.
    fn stuck_since(&self) -> Option<Instant> {
        self.alone.waits_since().or(self.crew.stuck_since())
    }

    fn not_begun(&mut self, ask: &Ask, why: &str) {
        let said = if ask.is_critical() {
            Ok(Said::Away(why.as_bytes()))
        } else {
            Err(once::error(&self.settings.handler.name, why))
        };
        tell(&mut self.clients, &mut self.board, ask, said);
    }

    /// Begins what can be begun.
    fn begin(&mut self, now: Instant) {
        while !self.queue.is_empty()
            && self.alone.is_had()
            && self.crew.has_room(now)
            && let Some(ask) = self.queue.take(|client| self.clients.takes(client))
        {
            if let Err(ask) = self.crew.begin(ask, now) {
                self.queue.put_back(ask);
                return;
            }
        }
    }

    fn end_if_told(&mut self, now: Instant) {
        let Some(by) = self.ends else { return };
        self.clients.close_idle();
        if by <= now {
            let Core { clients, crew, board, .. } = self;
            let mut tell = |ask: &Ask, said: Result<Said<'_>, String>| tell(clients, board, ask, said);
            let mut back = Vec::new();
            crew.kill_all(
                "ended before it answered: lond ends, or takes another program",
                now,
                &mut back,
                &mut tell,
            );
            back.extend(self.queue.take_all(|_| true));
            back.iter().for_each(|ask| self.not_begun(ask, "not begun: lond ends, or takes another program"));
            self.clients.write();
            self.over = true;
        } else if self.clients.is_empty() && !self.retired {
            self.retired = true;
            self.crew.retire(now);
        }
    }

    /// Sees to it that nothing is left of its programs.
    fn end(&mut self) {
        let left = strays::end_children(ENDING);
        if left > 0 {
            log::error!("handler {}: {left} processes of its program do not end", self.name());
        }
        self.alone.release();
    }

    /// When something is due that no event announces.
    fn deadline(&self) -> Option<Instant> {
        let waiting = self.queue.deadline(self.settings.handler.timeout);
        let stuck = self.stuck_since().filter(|_| !self.queue.is_empty()).map(|since| since + MOMENT);
        let report = self.is_news().then_some(self.board.next);
        // Past its moment, none that is critical waits.
        let stuck = stuck.filter(|at| *at > Instant::now());
        let alone = self.alone.deadline().filter(|_| self.ends.is_none());
        let deadlines = [self.crew.deadline(), alone, waiting, stuck, self.ends, report];
        deadlines.into_iter().flatten().min()
    }

    fn status(&self) -> HandlerStatus {
        let (last_error, last_error_at) = self.board.error.clone().unzip();
        let program = ProgramStatus {
            running: self.crew.len() as u64,
            restarts: self.crew.restarts,
            waiting: self.queue.len() as u64,
            unable: self.crew.cannot().is_some(),
        };
        let name = self.name().to_owned();
        HandlerStatus { name, program: Some(program), last_error, last_error_at, ..HandlerStatus::default() }
    }

    fn is_news(&self) -> bool {
        self.crew.fault.is_some() || self.status() != self.board.told
    }

    /// What is to be told now, if there is news.
    fn report(&mut self, now: Instant) -> Option<HandlerStatus> {
        if let Some(fault) = self.crew.fault.take() {
            self.board.error = Some((fault, Timestamp::now()));
        }
        if self.board.next > now || !self.is_news() {
            return None;
        }
        self.board.next = now + REPORT_EVERY;
        self.board.told = self.status();
        let open = self.crew.open();
        title::set(&format!("handler {}, {open} in hand, {} waiting", self.name(), self.queue.len()));
        Some(self.board.told.clone())
    }
}

/// Answers a request.
fn tell(clients: &mut Clients, board: &mut Board, ask: &Ask, said: Result<Said<'_>, String>) {
    match said {
        Ok(said) => clients.answer(ask.client, ask.tag, said),
        Err(error) => {
            clients.answer(ask.client, ask.tag, Said::Failed(error.as_bytes()));
            board.error = Some((error, Timestamp::now()));
        }
    }
}
