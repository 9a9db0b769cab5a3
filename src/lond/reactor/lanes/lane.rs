//! One connection of [`Lanes`](super::Lanes): what it has been used for.

use super::{Habit, IDLE, STARVED};
use crate::handler::socket::Conversation;
use crate::handler::{Reply, Ticket};
use crate::reactor::program::Program;
use crate::reactor::room::Room;
use net::Token;
use std::time::{Duration, Instant};

/// A connection that the program closes this soon after it was busy was not closed for being idle.
const BEHIND_ANSWER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) program: Program<Conversation>,
    /// When it was last busy.
    pub(super) used: Instant,
    /// When its open request came; of several, the first.
    pub(super) asked: Instant,
    /// Another was closed so that the program may come to this one.
    pub(super) helped: bool,
    /// Answers on the connection.
    answered: usize,
    /// Those since it had no request last.
    in_group: usize,
    /// Requests that it may have at once in this turn.
    room: usize,
}

/// What the program has said on one connection.
#[derive(Debug)]
pub(super) struct Heard {
    /// Anything at all.
    pub(super) anything: bool,
    /// Answers whose time is known.
    pub(super) answers: usize,
    /// How long the program was at the first of them.
    pub(super) after: Duration,
    /// Those were the last that were open: how many there were since the connection had no request,
    /// and how long the program was at all of them.
    pub(super) whole: Option<(usize, Duration)>,
}

impl Lane {
    /// A place whose connection is made when the first request comes.
    pub(super) fn new(config: &config::Handler, max_line: usize, token: usize, now: Instant) -> Lane {
        let conversation = Conversation::new(&config.name, config.timeout, max_line, now);
        let program = Program::new(&config.name, config.socket.clone(), Token(token), conversation);
        Lane { program, used: now, asked: now, helped: false, answered: 0, in_group: 0, room: 1 }
    }

    /// Passes a request on.
    pub(super) fn ask(&mut self, ticket: Ticket, request: &[u8], now: Instant) {
        if self.program.is_free() {
            (self.asked, self.helped, self.in_group) = (now, false, 0);
        }
        self.used = now;
        self.program.ask(ticket, request, now);
    }

    /// Whether a request is open of which the program, as far as is known, has read nothing.
    pub(super) fn is_starved(&self) -> bool {
        !self.program.is_free() && !self.program.was_read()
    }

    /// When its connection is closed if nothing comes.
    pub(super) fn closes(&self, habit: Habit) -> Option<Instant> {
        let idle = match habit {
            Habit::Unknown | Habit::Beside => IDLE,
            Habit::OneByOne => STARVED,
        };
        (self.program.is_free() && self.program.is_connected()).then(|| self.used + idle)
    }

    /// Takes what the program has said.
    pub(super) fn read(
        &mut self,
        wanted: bool,
        room: &mut Room,
        scratch: &mut [u8],
        now: Instant,
        told: &mut impl FnMut(Ticket, Reply<'_>),
    ) -> Heard {
        let was_free = self.program.is_free();
        if !was_free {
            self.used = now;
        }
        let after = self.program.at_oldest(now);
        let mut answers = 0;
        let anything = self.program.read(wanted, room, scratch, now, &mut |ticket, reply| {
            answers += usize::from(matches!(reply, Reply::Answer(_)));
            told(ticket, reply);
        });
        self.answered += answers;
        self.in_group += answers;
        let is_whole = !was_free && self.program.is_free() && self.in_group > 0;
        let whole = is_whole.then(|| (self.in_group, now.saturating_duration_since(self.asked)));
        match after {
            Some(after) => Heard { anything, answers, after, whole },
            None => Heard { anything, answers: 0, after: Duration::ZERO, whole: None },
        }
    }

    /// The connection was made.
    pub(super) fn begin(&mut self) {
        self.answered = 0;
    }

    /// Whether the program has closed the connection behind an answer.
    pub(super) fn take_closed(&mut self, now: Instant) -> bool {
        self.program.take_closed() && self.answered > 0 && now < self.used + BEHIND_ANSWER
    }

    /// How many requests it may have in this turn: up to `depth`, if the program has shown that it
    /// keeps the connection behind an answer, and takes what it is sent.
    pub(super) fn make_room_ahead(&mut self, depth: usize) {
        self.room = if self.answered >= 2 && self.program.takes() { depth } else { 1 };
    }

    /// Whether it has requests and may have one more; `at_most`: of a group.
    pub(super) fn has_room_ahead(&self, at_most: usize) -> bool {
        (1..self.room.min(at_most)).contains(&self.program.open())
    }
}
