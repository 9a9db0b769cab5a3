//! One handler whose answers come in order, and all connections to it that this link has.
//!
//! A request comes to a handler in one of three ways. On the classic wire ([`Order::Kept`]) all go
//! one after the other over one connection. Critical messages ([`Order::Once`]) have a connection
//! to themselves too, and each is passed on only when the one before it was answered and
//! [`Lanes::ask`]'s caller has recorded that: whenever this process dies, it is one message at
//! most that was run and is not in the record. Others ([`Order::Free`]) have a connection each
//! while they are being answered: an idle one, else a new one, up to [`POOL`]; beyond that they
//! wait here for the first connection that is done: one that is unanswered may take a minute, and
//! nobody can know before. Only a program that has been quick all along gets some of them *ahead*,
//! on the connections that it has ([`Pace`]), so that many go with one write and their answers come
//! with one read.
//!
//! A program may serve one connection until its end before it comes to the next. That is noticed by
//! a connection from which it has read *nothing* for [`STARVED`] while another is idle: then the
//! idle one is closed, oldest first. When the program came to the other connection after that, it
//! gets its requests one at a time over one connection for the rest of the link, and that is closed
//! as soon as it is idle, so that other links come to it as well. A program that was seen to answer
//! on a connection while an older one was open is never treated so: it has merely too few workers.
//!
//! A critical message that the program could not be given is not answered: its caller keeps it
//! ([`Reply::NotTaken`]), and those that wait here behind it go back with it, so that none
//! overtakes it. From then on the program is *watched*: a connection to it is tried, in pauses that
//! grow ([`super::watch`]), until there is one; then the caller is told ([`Lanes::take_back`]).
//!
//! Bounded: [`POOL`] connections and one; the requests that wait here are within the link's
//! flow-control window. A connection that had nothing to do for [`IDLE`] is closed.

mod lane;
mod pace;

use self::lane::{Heard, Lane};
use self::pace::Pace;
use super::room::Room;
use super::watch::Watch;
use crate::handler::{Reply, Ticket};
use crate::service::Order;
use base::Texts;
use net::{Event, Registry, Token};
use std::time::{Duration, Instant};

/// Connections of one link to one handler over which requests go in no order. At the bound requests
/// wait.
pub(super) const POOL: usize = 16;

/// How long such a connection is kept without a request.
pub(super) const IDLE: Duration = Duration::from_secs(30);

/// How long a connection that the program does not read may wait beside one that is idle; and how
/// long one is kept idle for a program that serves one at a time.
pub(super) const STARVED: Duration = Duration::from_millis(100);

/// How long such a connection may wait beside others that are busy; then those get nothing new
/// until it was served.
pub(super) const PASSED_OVER: Duration = Duration::from_secs(1);

/// Tokens that a handler takes.
pub(super) const TOKENS: usize = POOL + 1;

/// Place of the connection for requests whose order counts; the pool has those after it.
const ORDERED: usize = 0;

/// A handler of the configuration, as one link uses it.
#[derive(Debug)]
pub(super) struct Lanes {
    config: config::Handler,
    max_line: usize,
    /// Token of the first lane; the others have those after it.
    first_token: usize,
    /// [`ORDERED`], and at most [`POOL`] more; a place whose connection was closed is used again.
    lanes: Vec<Lane>,
    habit: Habit,
    pace: Pace,
    /// No connection is idle and none may be made, in this turn.
    all_busy: bool,
    /// The connection that is given a group of requests in this turn, and how large a group.
    group: (usize, usize),
    /// No connection before this place has room for a request ahead in this turn.
    ahead_from: usize,
    /// Critical messages that wait for those before them.
    critical: Texts<Ticket>,
    /// The one that was passed on last.
    once: Option<Ticket>,
    /// An answer to one is not recorded.
    holds_critical: bool,
    /// Whether a caller waits for the program, which is away.
    watch: Watch,
    /// Other requests that wait for a connection.
    waiting: Texts<Ticket>,
    /// Room for the one of them that is passed on.
    passed_on: Vec<u8>,
    /// When a connection was last closed for the sake of another.
    relieved: Instant,
}

/// What is known of how the program serves its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// Nothing.
    Unknown,
    /// It has answered on a connection while an older one was open.
    Beside,
    /// It comes to a connection when the one before it was closed.
    OneByOne,
}

/// A connection that starves, and the idle one whose end may help it.
#[derive(Debug)]
struct Relief {
    starved: usize,
    idle: usize,
    due: Instant,
}

impl Lanes {
    /// A handler whose connections are made when requests come. It takes [`TOKENS`] tokens from
    /// `first_token` on.
    pub(super) fn new(config: &config::Handler, max_line: usize, first_token: usize, now: Instant) -> Lanes {
        Lanes {
            lanes: vec![Lane::new(config, max_line, first_token, now)],
            config: config.clone(),
            max_line,
            first_token,
            habit: Habit::Unknown,
            pace: Pace::new(now),
            all_busy: false,
            group: (ORDERED, 1),
            ahead_from: TOKENS,
            critical: Texts::default(),
            once: None,
            holds_critical: false,
            watch: Watch::default(),
            waiting: Texts::default(),
            passed_on: Vec::new(),
            relieved: now,
        }
    }

    /// Takes note of an event for the connection with this number, which is its token less the
    /// first.
    pub(super) fn note(&mut self, number: usize, event: &Event) {
        if let Some(lane) = self.lanes.get_mut(number) {
            lane.program.note(event);
        }
    }

    /// Passes a request on, now or in [`Lanes::write`].
    pub(super) fn ask(&mut self, ticket: Ticket, order: Order, request: &mut Vec<u8>, now: Instant) {
        let waiting = match order {
            Order::Kept => return self.lanes[ORDERED].ask(ticket, request, now),
            Order::Once => &mut self.critical,
            Order::Free => &mut self.waiting,
        };
        waiting.hand_over(ticket, request);
    }

    /// Forgets a request that was not passed on yet; whether it was there.
    pub(super) fn withdraw(&mut self, ticket: Ticket) -> bool {
        self.waiting.remove(|waiting| *waiting == ticket).is_some()
            || self.critical.remove(|waiting| *waiting == ticket).is_some()
            || self.lanes.iter_mut().any(|lane| lane.program.withdraw(ticket))
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let programs = self.lanes.iter().filter_map(|lane| lane.program.deadline());
        let closes = self.lanes.iter().filter_map(|lane| lane.closes(self.habit));
        programs
            .chain(closes)
            .chain(self.relief().map(|relief| relief.due))
            .chain(self.watch.deadline())
            .min()
    }

    /// Whether there is something to read, if answers are `wanted`, or to pass on.
    pub(super) fn has_work(&self, wanted: bool, room: &Room, now: Instant) -> bool {
        self.lanes.iter().any(|lane| lane.program.has_work(wanted, room))
            || (!self.critical.is_empty() && self.ordered_place().is_some())
            || (!self.waiting.is_empty() && self.idle_place(now).is_some())
    }

    /// The connections, and how much of an answer each has begun.
    pub(super) fn begun(&self) -> impl Iterator<Item = (Token, usize)> {
        self.lanes.iter().map(|lane| lane.program.begun())
    }

    /// First part of a turn: reads answers, if they are `wanted` and there is room, and says which
    /// requests are overdue.
    pub(super) fn read(
        &mut self,
        wanted: bool,
        room: &mut Room,
        scratch: &mut [u8],
        now: Instant,
        answer: &mut impl FnMut(Ticket, Reply<'_>),
    ) {
        let mut heard = Vec::new();
        let mut away = None;
        let once = self.once;
        let mut told = |ticket, reply: Reply<'_>| {
            note_untaken(once, ticket, reply, &mut away);
            answer(ticket, reply);
        };
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            let Heard { anything, answers, after, whole } = lane.read(wanted, room, scratch, now, &mut told);
            if anything {
                heard.push(at);
            }
            if at != ORDERED {
                self.pace.answered(answers, after, now);
                whole.into_iter().for_each(|(count, after)| self.pace.group_done(count, after));
            }
            if lane.take_closed(now) {
                self.pace.closed();
            }
            if lane.closes(self.habit).is_some_and(|at| at <= now) {
                lane.program.close(now);
            }
        }
        self.give_back(away, now, answer);
        for at in heard {
            self.learn(at, now);
        }
        self.relieve(now);
        self.make_room_ahead(now);
        self.all_busy = false;
    }

    /// How many requests each connection may have in this turn. Not more than one while there is a
    /// connection that the program has not come to, or one on which it is slow.
    fn make_room_ahead(&mut self, now: Instant) {
        let pool = self.lanes.iter_mut().skip(ORDERED + 1);
        if pool.filter_map(|lane| lane.program.at_oldest(now)).any(|since| since > pace::SLOW) {
            self.pace.slow(now);
        }
        let comes_to_all = self.habit == Habit::Beside && !self.lanes.iter().any(Lane::is_starved);
        let depth = if comes_to_all { self.pace.depth(now) } else { 1 };
        for lane in &mut self.lanes {
            lane.make_room_ahead(depth);
        }
        self.ahead_from = if depth > 1 { ORDERED + 1 } else { TOKENS };
    }

    /// A critical message could not be passed on, for this reason: those behind it must not
    /// overtake it, and go back too.
    fn give_back(&mut self, away: Option<String>, now: Instant, answer: &mut impl FnMut(Ticket, Reply<'_>)) {
        let Some(why) = away else { return };
        self.once = None;
        for ticket in self.critical.iter() {
            answer(*ticket, Reply::NotTaken(&why));
        }
        self.critical.clear();
        self.watch.begin(now);
    }

    /// Whether a connection to the program could be made when that was tried last; `None`: it was
    /// not tried.
    pub(super) fn reachable(&self) -> Option<bool> {
        let tried = self.lanes.iter().filter_map(|lane| lane.program.tried());
        tried.max_by_key(|(at, _)| *at).map(|(_, made)| made)
    }

    /// Whether a program that could not be given a critical message has come back since the last
    /// call.
    pub(super) fn take_back(&mut self) -> bool {
        self.watch.take_back()
    }

    /// Whether there is an answer to a critical message that could not be recorded: then no other
    /// is passed on.
    pub(super) fn hold_critical(&mut self, hold: bool) {
        self.holds_critical = hold;
    }

    /// Last part of a turn: passes on what waited, dials where need be, and writes requests.
    pub(super) fn write(
        &mut self,
        registry: &Registry,
        scratch: &mut [u8],
        now: Instant,
        answer: &mut impl FnMut(Ticket, Reply<'_>),
    ) {
        if self.watch.is_due(now) {
            self.lanes[ORDERED].program.probe(now);
        }
        self.pass_on(now);
        let mut away = None;
        let once = self.once;
        let mut told = |ticket, reply: Reply<'_>| {
            note_untaken(once, ticket, reply, &mut away);
            answer(ticket, reply);
        };
        let mut connected = false;
        for lane in &mut self.lanes {
            lane.program.write(registry, scratch, now, &mut told);
            if lane.program.take_made() {
                connected |= lane.program.is_connected();
                lane.begin();
                self.pace.connected(lane.program.process(), now);
            }
        }
        self.give_back(away, now, answer);
        if connected {
            self.watch.came_back();
        }
    }

    /// End of a turn: whether the connections will be read in the next one. While they are not, the
    /// program's time stands still.
    pub(super) fn pause(&mut self, wanted: bool, room: &Room, now: Instant) {
        for lane in &mut self.lanes {
            lane.program.pause(wanted, room, now);
        }
    }

    /// Passes on what can be. Where both kinds wait for one connection, the older goes first.
    fn pass_on(&mut self, now: Instant) {
        let come_together = self.waiting.len() > POOL;
        self.group = (ORDERED, if come_together { self.pace.group(now) } else { 1 });
        loop {
            let critical = self.critical.front().copied();
            let critical = critical.and_then(|ticket| Some((ticket, self.ordered_place()?)));
            let free = self.waiting.front().copied();
            let free = free.and_then(|ticket| Some((ticket, self.free_place(now)?)));
            let (from, at) = match (critical, free) {
                (Some((first, at)), Some((second, _))) if first < second => (&mut self.critical, at),
                (_, Some((_, at))) => (&mut self.waiting, at),
                (Some((_, at)), None) => (&mut self.critical, at),
                (None, None) => break,
            };
            if let Some(ticket) = from.pop(&mut self.passed_on) {
                if critical.is_some_and(|(first, _)| first == ticket) {
                    self.once = Some(ticket);
                }
                self.lanes[at].ask(ticket, &self.passed_on, now);
            }
        }
        base::texts::give_back(&mut self.passed_on);
    }

    /// The place for the next critical message, if it may be passed on.
    fn ordered_place(&self) -> Option<usize> {
        match self.habit {
            _ if self.holds_critical => None,
            Habit::Unknown | Habit::Beside => self.lanes[ORDERED].program.is_free().then_some(ORDERED),
            Habit::OneByOne => self.only_place(),
        }
    }

    /// The place for the next other request: one that is idle, else a new one, else one where it
    /// goes ahead.
    fn free_place(&mut self, now: Instant) -> Option<usize> {
        if self.all_busy {
            return self.place_ahead();
        }
        let (at, size) = self.group;
        if self.lanes[at].has_room_ahead(size) {
            return Some(at);
        }
        let best = self.idle_place(now);
        let may_grow = match self.habit {
            Habit::Unknown | Habit::Beside => self.lanes.len() <= POOL && !self.passes_over(now),
            Habit::OneByOne => false,
        };
        if best.is_none() && may_grow {
            let token = self.first_token + self.lanes.len();
            self.lanes.push(Lane::new(&self.config, self.max_line, token, now));
            return Some(self.lanes.len() - 1);
        }
        (self.all_busy, self.group.0) = (best.is_none(), best.unwrap_or(ORDERED));
        best.or_else(|| self.place_ahead())
    }

    /// A busy connection that may have another request: the first, so that it gets many at once.
    fn place_ahead(&mut self) -> Option<usize> {
        let found = (self.ahead_from..self.lanes.len()).find(|at| self.lanes[*at].has_room_ahead(usize::MAX));
        self.ahead_from = found.unwrap_or(TOKENS);
        found
    }

    /// Of the idle connections of the pool the one that was used last, so that the others grow old.
    fn idle_place(&self, now: Instant) -> Option<usize> {
        match self.habit {
            Habit::OneByOne => self.only_place(),
            Habit::Unknown | Habit::Beside if self.passes_over(now) => None,
            Habit::Unknown | Habit::Beside => {
                let pool = self.lanes.iter().enumerate().skip(ORDERED + 1);
                let free = pool.filter(|(_, lane)| lane.program.is_free());
                free.max_by_key(|(_, lane)| (lane.program.is_connected(), lane.used)).map(|(at, _)| at)
            }
        }
    }

    /// For a program that serves one at a time: a place, once nothing is open on any.
    fn only_place(&self) -> Option<usize> {
        if self.lanes.iter().any(|lane| !lane.program.is_free()) {
            return None;
        }
        Some(self.lanes.iter().position(|lane| lane.program.is_connected()).unwrap_or(ORDERED))
    }

    /// Whether the program is busy on others while it has long not come to one.
    fn passes_over(&self, now: Instant) -> bool {
        self.lanes.iter().any(|lane| lane.is_starved() && lane.asked + PASSED_OVER <= now)
    }

    /// What an answer on this connection tells of the program.
    fn learn(&mut self, at: usize, now: Instant) {
        let lane = &mut self.lanes[at];
        let (helped, dialed) = (std::mem::take(&mut lane.helped), (lane.program.dialed(), at));
        if self.habit != Habit::Unknown {
            return;
        }
        // One that has something to read may be at its end.
        let beside_older = self.lanes.iter().enumerate().any(|(other, lane)| {
            let open = lane.program.is_connected() && !lane.program.is_readable();
            open && (lane.program.dialed(), other) < dialed
        });
        if beside_older {
            self.habit = Habit::Beside;
        } else if helped || self.passes_over(now) {
            log::info!("handler {}: serves one connection at a time, and so gets one", self.config.name);
            self.habit = Habit::OneByOne;
        }
    }

    /// Closes an idle connection for the sake of one that starves.
    fn relieve(&mut self, now: Instant) {
        // Asked of the kernel only now, since it seldom comes to this.
        for lane in &mut self.lanes {
            if lane.is_starved() && lane.asked + STARVED <= now {
                lane.program.look_whether_read();
            }
        }
        if let Some(Relief { starved, idle, due }) = self.relief()
            && due <= now
        {
            self.lanes[idle].program.close(now);
            self.lanes[starved].helped = true;
            self.relieved = now;
        }
    }

    /// Which connection starves, and what is to be closed for it, and when.
    fn relief(&self) -> Option<Relief> {
        let lanes = || self.lanes.iter().enumerate();
        let (starved, waits) =
            lanes().filter(|(_, lane)| lane.is_starved()).min_by_key(|(_, lane)| lane.asked)?;
        let (idle, rests) = lanes()
            .filter(|(_, lane)| lane.program.is_free() && lane.program.is_connected())
            .min_by_key(|(at, lane)| (lane.program.dialed(), *at))?;
        let due = match self.habit {
            Habit::OneByOne => rests.used,
            Habit::Unknown | Habit::Beside => waits.asked.max(rests.used).max(self.relieved) + STARVED,
        };
        Some(Relief { starved, idle, due })
    }
}

/// Notes why the critical message that was passed on last was not taken, if it is that.
fn note_untaken(once: Option<Ticket>, ticket: Ticket, reply: Reply<'_>, away: &mut Option<String>) {
    match reply {
        Reply::NotTaken(why) if once == Some(ticket) => *away = Some(why.to_owned()),
        Reply::NotTaken(_) | Reply::Answer(_) | Reply::Broken(_) => {}
    }
}

#[cfg(test)]
mod tests;
