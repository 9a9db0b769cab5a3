//! One handler and all connections to it that this link has.
//!
//! A request comes to a handler in one of two ways. Where the order counts ([`Order::Kept`]: the classic wire, and
//! critical messages) all go one after the other over one connection that is there for nothing else. Where it does
//! not, each has a connection to itself while it is being answered: an idle one, else a new one, up to [`POOL`];
//! beyond that requests wait here for the first connection that is done. None is ever passed on behind another that
//! is unanswered, since that one may take a minute, and nobody can know before.
//!
//! Bounded: [`POOL`] connections and one; the requests that wait here are within the link's flow-control window.
//! A connection that had nothing to do for [`IDLE`] is closed.

use super::program::Program;
use crate::handler::Ticket;
use crate::handler::socket::Conversation;
use crate::lond::service::Order;
use mio::event::Event;
use mio::{Registry, Token};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Connections of one link to one handler over which requests go in no order. At the bound requests wait.
pub const POOL: usize = 16;

/// How long such a connection is kept without a request.
pub const IDLE: Duration = Duration::from_secs(30);

/// Tokens that a handler takes.
pub const TOKENS: usize = POOL + 1;

/// A handler of the configuration, as one link uses it.
#[derive(Debug)]
pub struct Handler {
    config: crate::config::Handler,
    max_line: usize,
    /// Token of the ordered connection; the pool has those after it.
    first_token: usize,
    ordered: Program,
    /// At most [`POOL`]; a place whose connection was closed is used again.
    pool: Vec<Lane>,
    /// Requests that wait for a connection of the pool. Not empty only while each has one to answer.
    waiting: VecDeque<(Ticket, Box<[u8]>)>,
}

#[derive(Debug)]
struct Lane {
    program: Program,
    used: Instant,
}

impl Handler {
    /// A handler whose connections are made when requests come. It takes [`TOKENS`] tokens from `first_token` on.
    pub fn new(
        config: &crate::config::Handler,
        max_line: usize,
        first_token: usize,
        now: Instant,
    ) -> Handler {
        Handler {
            ordered: program(config, max_line, first_token, now),
            config: config.clone(),
            max_line,
            first_token,
            pool: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Takes note of an event for the connection with this number, which is its token less the first.
    pub fn note(&mut self, number: usize, event: &Event) {
        match number.checked_sub(1) {
            None => self.ordered.note(event),
            Some(at) => {
                if let Some(lane) = self.pool.get_mut(at) {
                    lane.program.note(event);
                }
            }
        }
    }

    /// Passes a request on.
    pub fn ask(&mut self, ticket: Ticket, order: Order, request: &[u8], now: Instant) {
        match order {
            Order::Kept => self.ordered.ask(ticket, request, now),
            Order::Free => match self.free_lane(now) {
                Some(lane) => lane.ask(ticket, request, now),
                None => self.waiting.push_back((ticket, request.into())),
            },
        }
    }

    /// Forgets a request that was not passed on yet; whether it was there.
    pub fn withdraw(&mut self, ticket: Ticket) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
        self.waiting.len() < before
            || self.ordered.withdraw(ticket)
            || self.pool.iter_mut().any(|lane| lane.program.withdraw(ticket))
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.programs().filter_map(Program::deadline).chain(self.pool.iter().filter_map(Lane::closes)).min()
    }

    /// Whether there is something to read, if answers are `wanted`, or to pass on.
    pub fn has_work(&self, wanted: bool) -> bool {
        let room = || self.pool.iter().any(|lane| lane.program.is_free());
        self.programs().any(|program| program.has_work(wanted)) || (!self.waiting.is_empty() && room())
    }

    /// First half of a turn: reads answers, if they are `wanted`, and says which requests are overdue.
    pub fn read(
        &mut self,
        wanted: bool,
        scratch: &mut [u8],
        now: Instant,
        answer: &mut impl FnMut(Ticket, &[u8]),
    ) {
        self.ordered.read(wanted, scratch, now, answer);
        for lane in &mut self.pool {
            let was_free = lane.program.is_free();
            lane.program.read(wanted, scratch, now, answer);
            if !was_free {
                lane.used = now;
            } else if lane.closes().is_some_and(|at| at <= now) {
                lane.program.close(now);
            }
        }
    }

    /// Second half of a turn: passes on what waited, dials where need be, and writes requests.
    pub fn write(
        &mut self,
        registry: &Registry,
        scratch: &mut [u8],
        now: Instant,
        answer: &mut impl FnMut(Ticket, &[u8]),
    ) {
        while !self.waiting.is_empty() {
            let Some(at) = self.free_place(now) else { break };
            if let Some((ticket, request)) = self.waiting.pop_front() {
                self.lane(at, now).ask(ticket, &request, now);
            }
        }
        self.ordered.write(registry, scratch, now, answer);
        for lane in &mut self.pool {
            lane.program.write(registry, scratch, now, answer);
        }
    }

    /// End of a turn: whether the connections will be read in the next one. While they are not, the program's time
    /// stands still.
    pub fn pause(&mut self, wanted: bool, now: Instant) {
        self.ordered.pause(wanted, now);
        for lane in &mut self.pool {
            lane.program.pause(wanted, now);
        }
    }

    fn programs(&self) -> impl Iterator<Item = &Program> {
        std::iter::once(&self.ordered).chain(self.pool.iter().map(|lane| &lane.program))
    }

    /// A connection for a request that has come just now; none while older ones wait.
    fn free_lane(&mut self, now: Instant) -> Option<&mut Program> {
        if !self.waiting.is_empty() {
            return None;
        }
        let at = self.free_place(now)?;
        Some(self.lane(at, now))
    }

    /// Of the idle connections the one that was used last, so that the others grow old; else a place for a new one.
    fn free_place(&mut self, now: Instant) -> Option<usize> {
        let free = self.pool.iter().enumerate().filter(|(_, lane)| lane.program.is_free());
        let best = free.max_by_key(|(_, lane)| (lane.program.is_connected(), lane.used)).map(|(at, _)| at);
        if best.is_none() && self.pool.len() < POOL {
            let token = self.first_token + 1 + self.pool.len();
            let program = program(&self.config, self.max_line, token, now);
            self.pool.push(Lane { program, used: now });
            return Some(self.pool.len() - 1);
        }
        best
    }

    fn lane(&mut self, at: usize, now: Instant) -> &mut Program {
        let lane = &mut self.pool[at];
        lane.used = now;
        &mut lane.program
    }
}

impl Lane {
    /// When its connection is closed if nothing comes.
    fn closes(&self) -> Option<Instant> {
        (self.program.is_free() && self.program.is_connected()).then(|| self.used + IDLE)
    }
}

fn program(config: &crate::config::Handler, max_line: usize, token: usize, now: Instant) -> Program {
    let conversation = Conversation::new(&config.name, config.timeout, max_line, now);
    Program::new(&config.name, config.socket.clone(), Token(token), conversation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lond::reactor::tests::rig::PATIENCE;
    use mio::{Events, Poll};
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    /// A handler on a clock that the test moves, and its program.
    struct Bench {
        handler: Handler,
        listener: UnixListener,
        poll: Poll,
        now: Instant,
        answers: Vec<(u64, String)>,
        _dir: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Bench {
            let dir = tempfile::tempdir().unwrap();
            let socket = dir.path().join("echo.sock");
            let listener = UnixListener::bind(&socket).unwrap();
            let now = Instant::now();
            let config = crate::config::Handler {
                name: "echo".to_owned(),
                socket,
                allow: Vec::new(),
                timeout: Duration::from_secs(60),
            };
            let handler = Handler::new(&config, 1000, 100, now);
            Bench { handler, listener, poll: Poll::new().unwrap(), now, answers: Vec::new(), _dir: dir }
        }

        fn ask(&mut self, ticket: u64) {
            self.handler.ask(Ticket(ticket), Order::Free, ticket.to_string().as_bytes(), self.now);
        }

        fn turn(&mut self) {
            let mut events = Events::with_capacity(64);
            self.poll.poll(&mut events, Some(Duration::from_millis(1))).unwrap();
            for event in &events {
                self.handler.note(event.token().0 - 100, event);
            }
            let answers = &mut self.answers;
            let mut answer = |ticket: Ticket, text: &[u8]| {
                answers.push((ticket.0, String::from_utf8_lossy(text).into_owned()));
            };
            self.handler.read(true, &mut [0; 1000], self.now, &mut answer);
            self.handler.write(self.poll.registry(), &mut [0; 1000], self.now, &mut answer);
        }

        fn accept(&self) -> BufReader<UnixStream> {
            let (connection, _) = self.listener.accept().unwrap();
            connection.set_read_timeout(Some(PATIENCE)).unwrap();
            BufReader::new(connection)
        }

        /// The program answers a request on this connection, and the answer is taken.
        fn serve(&mut self, connection: &mut BufReader<UnixStream>) -> String {
            let mut line = String::new();
            connection.read_line(&mut line).unwrap();
            connection.get_mut().write_all(line.as_bytes()).unwrap();
            let before = self.answers.len();
            let deadline = Instant::now() + PATIENCE;
            while self.answers.len() == before {
                assert!(Instant::now() < deadline);
                self.turn();
            }
            line.trim_end().to_owned()
        }
    }

    #[test]
    fn each_request_has_a_connection_of_its_own_and_those_beyond_the_pool_wait_for_the_first_that_is_free() {
        let mut bench = Bench::new();
        for ticket in 0..POOL as u64 + 2 {
            bench.ask(ticket);
        }
        bench.turn();
        let mut connections: Vec<_> = (0..POOL).map(|_| bench.accept()).collect();
        bench.turn();
        assert!(!bench.handler.has_work(true), "those that wait do so without a turn");
        assert!(bench.handler.withdraw(Ticket(17)));
        assert!(!bench.handler.withdraw(Ticket(3)), "the program has it");
        assert_eq!(bench.serve(&mut connections[7]), "7");
        assert_eq!(bench.serve(&mut connections[7]), "16");
        assert_eq!(bench.answers, [(7, "7".to_owned()), (16, "16".to_owned())]);
    }

    #[test]
    fn a_connection_that_is_not_used_is_closed_after_a_while_and_the_last_used_is_used_first() {
        let mut bench = Bench::new();
        bench.ask(1);
        bench.ask(2);
        bench.turn();
        let (mut first, mut second) = (bench.accept(), bench.accept());
        bench.serve(&mut first);
        bench.now += Duration::from_secs(10);
        bench.serve(&mut second);
        assert_eq!(bench.handler.deadline(), Some(bench.now - Duration::from_secs(10) + IDLE));
        bench.now += Duration::from_secs(10);
        bench.ask(3);
        bench.turn();
        assert_eq!(bench.serve(&mut second), "3");
        bench.now += Duration::from_secs(10);
        bench.turn();
        assert_eq!(first.read(&mut [0]).unwrap(), 0, "closed");
        bench.ask(4);
        bench.turn();
        assert_eq!(bench.serve(&mut second), "4");
    }
}
