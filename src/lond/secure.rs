//! What one secure link's frames mean: the opening, requests and their answers, flow control,
//! heartbeat, the end.
//!
//! Without sockets and clock, as `classic` is for the classic wire; the record of critical messages
//! is its own, behind [`Recorder`]. The reactor pushes in what the tunnel gives out, takes
//! [`Effect`]s out with [`Secure::step`] until there are none, carries them out, gives the answers
//! in, has the answers to critical messages written to the record ([`Secure::record`]) and that
//! synced ([`Secure::sync`], once a turn), and sends [`Secure::fill`]'s frames through the tunnel.
//! The tunnel has proved who calls before any of this exists.
//!
//! ```text
//!          HELLO          told to end: GOAWAY; caller's end of input        all is answered
//!   Hello ------> Open ----------------------------------------> Draining -----------------+
//!     |             |       what must not be: ERROR                  |                     v
//!     +-------------+------------------------------------------------+----------------> Leaving
//!                   |                                                |                     | all is sent
//!                   |   the connection broke, silence, deadline      |     EOF, deadline   v
//!                   +--------------------> Settling <----------------+---------------- Lingering
//!                                             | no critical message is being run
//!                                             v
//!                                           Ended
//! ```
//!
//! Every request is answered exactly once unless it was cancelled or the link ends before, in
//! whatever order the answers come. A link that broke *settles*: a critical message that a handler
//! has got is waited for and recorded, since the caller will send it again over the next link,
//! whose process cannot serve critical ones before this one has let go of the record. Told to end
//! meanwhile, at the drain timeout what was not answered is recorded as an error: it may have been
//! done, and is not to be done twice.
//!
//! Memory: requests are within the window that our HELLO gives ([`Settings::window`]; what is kept
//! beside a small one is some times the 64 bytes that its frame costs, so a flood of them takes a
//! few windows), answers within [`answer::MAX_ANSWER_BYTES`] and [`answer::OUT_FULL`]; of PINGs
//! that come faster than PONGs leave the newest is answered. So the link is always read, and a PING
//! is answered however busy it is.
//!
//! Failures: what must not be costs the link, which ends with an ERROR frame. Nothing panics.

mod answer;
mod beating;
mod course;
mod critical;
mod ending;
mod frames;
mod ids;
mod input;
mod memory;
mod output;
mod recorder;
mod requests;
mod syncing;
mod untaken;

pub use recorder::{Opening, Recalled, Recorded, Recorder, Wanted};
pub use requests::{HeldCommands, Unrecorded};
pub use syncing::UNSYNCED_MOST;

use super::Reason;
use super::access::Rights;
use super::service::{Effect, MessageName, Order, Service, Verdict};
use crate::handler::{Reply, Ticket};
use answer::{Answer, MAX_ANSWER_BYTES};
use base::line::Outgoing;
use base::{command, texts};
use beating::Pulse;
use course::{Course, State};
use input::Input;
use memory::Memory;
use output::Output;
use requests::{Critical, Plain, Request, Requests, Said};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use untaken::{LOG, Untaken};
use wire::flow::Credit;
use wire::secure::{CalledHello, CriticalHead, Hello, Versions};

pub use super::classic::LINGER;

/// What our HELLO says that we run.
const PROGRAM: &str = concat!("lond/", env!("CARGO_PKG_VERSION"));

/// What a link is served with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whom, and what for. The caller is known by its key.
    pub service: Service,
    /// Longest request in bytes.
    pub max_line: usize,
    /// Bytes of requests that the caller may have sent and not got back.
    pub window: u32,
    /// Silence after which the caller is tried.
    pub heartbeat: Duration,
    /// PINGs in a row that may stay unheard.
    pub heartbeat_missed: u32,
    /// Answers to critical messages that may be written to the record and not synced: at the bound
    /// they are synced before a handler gets the next. [`UNSYNCED_MOST`], but in tests.
    pub unsynced: usize,
    /// How long in-flight requests may go on once the link is told to end.
    pub drain_timeout: Duration,
}

/// The called side of one secure link.
#[derive(Debug)]
pub struct Secure<R: Recorder> {
    settings: Settings,
    /// Where the session stands.
    course: Course,
    /// What comes from the caller.
    input: Input,
    /// The window that the caller was given.
    credit: Credit,
    /// What goes to the caller.
    output: Output,
    pulse: Pulse,
    requests: Requests,
    untaken: Untaken,
    memory: Memory<R>,
    /// What the reactor is to do, in order.
    todo: VecDeque<Effect>,
    /// For the text of a request, which has come back.
    room: Vec<u8>,
}

impl<R: Recorder> Secure<R> {
    /// A link whose tunnel has just been made; `recorder` has the record of its caller, not opened
    /// yet.
    pub fn new(settings: Settings, recorder: R, opening_deadline: Instant, now: Instant) -> Secure<R> {
        Secure {
            course: Course::new(opening_deadline),
            input: Input::new(settings.max_line),
            credit: Credit::new(settings.window),
            output: Output::new(),
            pulse: Pulse::new(settings.heartbeat, settings.heartbeat_missed, now),
            requests: Requests::default(),
            untaken: Untaken::default(),
            memory: Memory::new(recorder),
            todo: VecDeque::new(),
            room: Vec::new(),
            settings,
        }
    }

    /// The next thing to do; `None` when more bytes, answers or room for answers are needed.
    /// `written`: nothing that was taken from [`Secure::outgoing`] waits any more.
    pub fn step(&mut self, now: Instant, written: bool) -> Option<Effect> {
        while self.todo.is_empty() && self.advance(now, written) {}
        self.todo.pop_front()
    }

    /// Does the next thing that can be done; whether there was any.
    fn advance(&mut self, now: Instant, written: bool) -> bool {
        match self.course.state() {
            State::Hello | State::Lingering(_) | State::Ended(_) => false,
            State::Open | State::Draining(_) => {
                if self.wants_record(now) {
                    self.open_record(now);
                    return true;
                }
                self.try_room_again(now);
                if self.can_take() && self.take(now) {
                    return true;
                }
                if let Some(reason) = self.drained() {
                    self.enter(State::Leaving(reason));
                    return true;
                }
                false
            }
            State::Leaving(reason) if written && self.output.is_empty() => {
                let reason = reason.clone();
                if self.input.has_ended() {
                    self.break_off(reason);
                } else {
                    self.todo.push_back(Effect::Shut);
                    self.course.lasts_until(now + LINGER);
                    self.enter(State::Lingering(reason));
                }
                true
            }
            State::Leaving(_) => false,
            State::Settling(_) if self.wants_record(now) => {
                self.open_record(now);
                true
            }
            State::Settling(reason) if !self.requests.has_critical() => {
                let reason = reason.clone();
                self.enter(State::Ended(reason));
                true
            }
            State::Settling(_) if self.course.gives_up() => {
                self.course.gave_up();
                self.give_up();
                true
            }
            State::Settling(_) => false,
        }
    }

    /// Whether a request is to be taken now.
    fn can_take(&self) -> bool {
        !self.is_full()
            && (!self.requests.plain.is_empty()
                || (self.memory.takes() && !self.requests.critical.is_empty()))
    }

    /// Takes a request, plain and critical ones in turn; whether there was one.
    fn take(&mut self, now: Instant) -> bool {
        if self.requests.critical_is_next() && self.memory.takes() && self.take_critical(now) {
            return true;
        }
        let mut text = std::mem::take(&mut self.room);
        let request = self.requests.plain.pop(&mut text);
        if let Some(Plain { id, cost }) = request {
            self.decide(id, cost, None, &mut text);
        }
        self.take_room(text);
        request.is_some()
    }

    /// What a request was in serves the next one.
    pub fn take_room(&mut self, mut text: Vec<u8>) {
        texts::give_back(&mut text);
        if self.room.capacity() < text.capacity() {
            self.room = text;
        }
    }

    fn is_full(&self) -> bool {
        self.output.is_full() || self.requests.unrecorded_bytes() >= MAX_ANSWER_BYTES
    }

    /// Runs a critical request.
    fn run(&mut self, request: Request) {
        let Request { id, cost, head, mut text, .. } = request;
        self.decide(id, cost, head, &mut text);
    }

    /// Answers a request, or says who is to, who then has its text.
    fn decide(&mut self, id: u64, cost: usize, head: Option<CriticalHead>, text: &mut Vec<u8>) {
        let critical = head.map(|head| Critical::alone(head, command(text)));
        let verdict = self.settings.service.decide(text, true);
        let (answer, last): (&[u8], bool) = match verdict {
            Verdict::Answer(answer) => (answer, false),
            Verdict::Refused(barred) => {
                self.todo.push_back(Effect::Refused(barred));
                (b"refused", false)
            }
            Verdict::Exit => (b"bye", true),
            // This wire has no cipher of its own.
            Verdict::AgreeCipher => (b"unknown_cmd", false),
            Verdict::Log(text) => {
                if let Some(critical) = &critical
                    && let Some(why) = self.untaken.must_wait(LOG, critical)
                {
                    return self.untaken.push(id, cost, why);
                }
                self.todo.push_back(Effect::Log { ticket: Ticket(id), text: text.to_vec() });
                return self.requests.start(id, cost, None, critical);
            }
            Verdict::AskBack => {
                self.todo.push_back(Effect::AskBack(Ticket(id)));
                return self.requests.start(id, cost, None, critical);
            }
            Verdict::Load => {
                self.todo.push_back(Effect::Load(Ticket(id)));
                return self.requests.start(id, cost, None, critical);
            }
            Verdict::Ask(handler) => {
                if let Some(critical) = &critical
                    && let Some(why) = self.untaken.must_wait(handler, critical)
                {
                    return self.untaken.push(id, cost, why);
                }
                let order = if critical.is_some() { Order::Once } else { Order::Free };
                let name = critical.as_ref().map(|critical| {
                    let Critical { sequence, key, .. } = critical;
                    let (epoch, key) = (self.memory.epoch(), key.clone());
                    MessageName { epoch, sequence: *sequence, key }
                });
                let request = std::mem::take(text);
                self.todo.push_back(Effect::Ask { handler, ticket: Ticket(id), order, name, request });
                return self.requests.start(id, cost, Some(handler), critical);
            }
        };
        match critical {
            None if !last
                && !self.is_gone()
                && self.output.pass(id, Said { text: answer, broken: false }) =>
            {
                self.credit.give_back(cost);
            }
            None => {
                let text = answer.into();
                self.send(Answer { id, cost, cancellable: true, last, broken: false, text });
            }
            Some(critical) => {
                self.requests.answered(id, cost, critical, Said { text: answer, broken: false }, last);
            }
        }
    }

    /// What came of a request.
    pub fn answer(&mut self, ticket: Ticket, reply: Reply<'_>) {
        let Some(flight) = self.requests.land(ticket.0) else {
            debug_assert!(self.is_gone(), "{ticket:?} was answered before");
            return;
        };
        let (id, cost) = (ticket.0, flight.cost);
        let (text, broken) = match (&flight.critical, reply) {
            (Some(_), Reply::NotTaken(why)) => return self.not_taken(id, flight, why),
            (_, Reply::Answer(_) | Reply::NotTaken(_)) => (reply.text(), false),
            (_, Reply::Broken(_)) => (reply.text(), true),
        };
        match flight.critical {
            Some(critical) => {
                self.requests.answered(id, cost, critical, Said { text: &text, broken }, false);
            }
            None if flight.cancelled => self.credit.give_back(cost),
            // At once where the caller takes it and nothing is before it: it is not copied then.
            None if !self.is_gone() && self.output.pass(id, Said { text: &text, broken }) => {
                self.credit.give_back(cost);
            }
            None => {
                let text = text.into();
                self.send(Answer { id, cost, cancellable: true, last: false, broken, text });
            }
        }
    }

    /// The configuration was read again, with other rights of this caller.
    pub fn change_rights(&mut self, rights: Rights) {
        self.settings.service.change(rights);
    }

    /// What this host's own `lonc` answered to the ping; `None`: nothing.
    pub fn asked_back(&mut self, ticket: Ticket, answer: Option<&[u8]>) {
        let answer = self.settings.service.asked_back(answer);
        self.answer(ticket, Reply::Answer(&answer));
    }

    /// The handler had not got this request, and will not.
    pub fn withdrawn(&mut self, ticket: Ticket) {
        let Some(flight) = self.requests.land(ticket.0) else { return };
        if let Some(critical) = &flight.critical {
            self.requests.forget(critical);
        }
        self.credit.give_back(flight.cost);
    }

    fn send(&mut self, answer: Answer) {
        if self.is_gone() {
            self.credit.give_back(answer.cost);
        } else {
            self.output.push(answer);
        }
    }

    /// Encodes what there is room for.
    pub fn fill(&mut self, now: Instant) {
        if !self.output.has_greeted() || self.is_gone() {
            return;
        }
        self.fill_control();
        if self.output.fill_answers(&mut self.credit) {
            self.finish(Reason::Exit, now);
        }
        self.fill_control();
    }

    fn fill_control(&mut self) {
        self.output.fill_control(&mut self.credit, &mut self.untaken, &self.settings.service);
    }

    /// The frames that wait to go through the tunnel.
    pub fn outgoing(&mut self) -> &mut Outgoing {
        self.output.frames()
    }

    /// When [`Secure::tick`] or [`Secure::beat`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let beats = matches!(self.course.state(), State::Open | State::Draining(_));
        let beat = (beats && !self.input.has_ended()).then(|| self.pulse.deadline());
        let ended = self.ended().is_some();
        let record = [self.record_deadline(), self.room_deadline(), self.sync_deadline()];
        let deadlines = [self.course.deadline(), beat].into_iter().chain(record);
        deadlines.flatten().min().filter(|_| !ended)
    }

    /// Whether the caller is to be read now.
    pub fn wants_input(&self) -> bool {
        match self.course.state() {
            State::Hello | State::Open | State::Draining(_) => !self.input.has_ended(),
            State::Leaving(_) | State::Settling(_) | State::Ended(_) => false,
            State::Lingering(_) => true,
        }
    }

    /// Whether answers of handlers are to be taken now. Those of a link that is no more are: they
    /// cost nothing.
    pub fn wants_answers(&self) -> bool {
        !self.is_full()
    }

    /// How many requests handlers have.
    pub fn under_way(&self) -> usize {
        self.requests.under_way()
    }

    /// Whether [`Secure::step`] has something to do.
    pub fn has_work(&self, written: bool) -> bool {
        !self.todo.is_empty()
            || match self.course.state() {
                State::Open | State::Draining(_) => self.can_take() || self.drained().is_some(),
                State::Leaving(_) => written && self.output.is_empty(),
                State::Settling(_) => self.course.gives_up() || !self.requests.has_critical(),
                State::Hello | State::Lingering(_) | State::Ended(_) => false,
            }
    }

    /// Says our HELLO; `mark`: the record's.
    fn greet(&mut self, mark: u64) {
        if self.output.has_greeted() || self.is_gone() {
            return;
        }
        let hello = Hello {
            versions: Versions::OURS,
            id: self.settings.service.id.clone(),
            window: self.settings.window,
            max_line: u32::try_from(self.settings.max_line).unwrap_or(u32::MAX),
            program: PROGRAM.to_owned(),
        };
        self.output.greet(&CalledHello { hello, mark });
    }

    fn enter(&mut self, state: State) {
        self.course.enter(state, &self.settings.service.caller);
    }
}

#[cfg(test)]
mod tests;
