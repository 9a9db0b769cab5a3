//! A turn of a link child: the order in which it takes in what has come, lets the broker carry on,
//! and gives out what there is.
//!
//! [`Turn`] owns the broker and knows nothing of sockets: these are behind [`Io`]. The reactor is
//! one `Io`, the simulated network of `tests/sim` another, so that what is proved of the order
//! there is proved of the program. Guarantees:
//!
//! - Everything that has come is told to the broker before it carries on, a bounded amount from
//!   each program and the peer.
//! - What the broker says is done before anything that it has for the peer or for programs is
//!   written.
//! - Programs are handed over last: with all that was read of them and not taken, and all answers
//!   that they have not got.
//! - A child that is to end for good takes what programs have sent by then ([`Turn::drain`]).
//!
//! The order itself is a value, [`ORDER`], for the simulation to break on purpose.

mod needs;
mod to_read;

pub use needs::{Accepted, Dialled, HandedOver, Io, Read};

use super::broker::{Broker, Effect};
use super::handover::PER_MESSAGE;
use super::link::Now;
use super::session::ClientId;
use super::sessions::Admission;
use base::Credentials;
use base::line::READ_SIZE;
use base::log_quota::Repeats;
use std::io;
use std::time::Instant;
use store::spool::Disk;
use to_read::ToRead;

/// Programs accepted in one turn.
const ACCEPT_BUDGET: usize = 256;
/// Bytes read from one program, or from the peer, in one turn.
const READ_BUDGET: usize = 4 * READ_SIZE;

/// A part of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Programs that wait to be connected are taken.
    Accept,
    /// A dial that is under way is gone on with.
    Dial,
    /// What the peer has sent is read.
    ReadLink,
    /// What programs have sent is read.
    ReadPrograms,
    /// The broker carries on, and what it says is done.
    CarryOn,
    /// What there is for the peer and for programs is written.
    Write,
    /// Programs that can go to the next child go.
    HandOver,
    /// The supervisor is told what is new.
    Report,
}

/// The steps of a turn, each once.
pub const ORDER: [Step; 8] = [
    Step::Accept,
    Step::Dial,
    Step::ReadLink,
    Step::ReadPrograms,
    Step::CarryOn,
    Step::Write,
    Step::HandOver,
    Step::Report,
];

/// See the module.
pub struct Turn<D: Disk> {
    broker: Broker<D>,
    /// Programs to read from in this turn.
    to_read: ToRead,
    /// Room for those to whom something is to be written.
    touched: Vec<ClientId>,
    /// The connection to the peer has been told that the link is open.
    opened: bool,
    accept_repeats: Repeats,
    hand_over_repeats: Repeats,
}

impl<D: Disk> Turn<D> {
    /// The turns of this broker's child.
    pub fn new(broker: Broker<D>) -> Turn<D> {
        Turn {
            broker,
            to_read: ToRead::default(),
            touched: Vec::new(),
            opened: false,
            accept_repeats: Repeats::default(),
            hand_over_repeats: Repeats::default(),
        }
    }

    /// The broker, to be told what the turn is not.
    pub fn broker(&mut self) -> &mut Broker<D> {
        &mut self.broker
    }

    /// Whether the child is to end now.
    pub fn over(&self) -> bool {
        self.broker.over()
    }

    /// Whether the next turn has something to do already.
    pub fn has_work(&self, io: &impl Io) -> bool {
        !self.to_read.is_empty() || (self.broker.hears() && io.is_link_readable()) || self.may_accept(io)
    }

    /// When the next turn is due, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        self.broker.deadline()
    }

    /// Does all that can be done now, in the [`ORDER`].
    pub fn run(&mut self, io: &mut impl Io, now: Now) {
        self.run_in(&ORDER, io, now);
    }

    /// [`Turn::run`] in another order.
    pub fn run_in(&mut self, order: &[Step], io: &mut impl Io, now: Now) {
        for step in order {
            match step {
                Step::Accept => self.accept(io, now),
                Step::Dial => self.go_on_dialling(io, now),
                Step::ReadLink => self.read_link(io, now),
                Step::ReadPrograms => self.read_programs(io),
                Step::CarryOn => self.carry_on(io, now),
                Step::Write => self.write(io, now),
                Step::HandOver => {
                    while self.hand_over(io, now) {
                        self.carry_on(io, now);
                        self.write(io, now);
                    }
                }
                Step::Report => {
                    if self.broker.take_changed() {
                        self.report(io, None, now);
                    }
                    io.flush_reports();
                }
            }
        }
    }

    /// Tells the supervisor how this child is.
    pub fn report(&mut self, io: &mut impl Io, answer_to: Option<u64>, now: Now) {
        let status = self.broker.status(now);
        io.report(answer_to, status);
    }

    // What happens between turns.

    /// The first turn: nothing has come yet.
    pub fn begin(&mut self, io: &mut impl Io, now: Now) {
        let order: Vec<Step> = ORDER.into_iter().skip_while(|step| *step != Step::CarryOn).collect();
        self.run_in(&order, io, now);
    }

    /// A program of the child before this one, as the broker knows it already: `add` gives its
    /// connection to `io`, and says whether that can have it.
    pub fn program_came<I: Io>(&mut self, io: &mut I, id: ClientId, add: impl FnOnce(&mut I) -> bool) {
        if add(io) {
            self.program_is_ready(io, id);
        } else {
            self.broker.client_gone(id);
        }
    }

    /// A program may have sent something, or take more. Most often it is read in the next turn;
    /// whoever is left off for want of room comes here again when its answers have been written.
    pub fn program_is_ready(&mut self, io: &impl Io, id: ClientId) {
        if !io.is_readable(id) || self.broker.may_read(id) == 0 {
            return;
        }
        self.to_read.add(id);
    }

    /// A program takes more of its answers.
    pub fn program_takes(&mut self, io: &mut impl Io, id: ClientId) {
        self.write_program(io, id);
    }

    /// What programs have sent by now is still taken; then the child ends.
    pub fn drain(&mut self, io: &mut impl Io, now: Now) {
        for id in self.broker.clients() {
            self.program_is_ready(io, id);
        }
        self.read_programs(io);
        self.broker.drain(now);
    }

    /// Takes in whoever waits at the local socket, however many: its name is gone, and nobody else
    /// comes there.
    pub fn accept_all(&mut self, io: &mut impl Io, now: Now) {
        while self.may_accept(io) {
            self.accept(io, now);
        }
    }

    /// The connection to the peer is over.
    pub fn link_down(&mut self, io: &mut impl Io, why: String, now: Now) {
        self.hang_up(io);
        self.broker.link_lost(why, now);
    }

    // The programs.

    fn may_accept(&self, io: &impl Io) -> bool {
        self.broker.accepts() && io.may_accept()
    }

    fn accept(&mut self, io: &mut impl Io, now: Now) {
        io.accepts_again(now);
        for _ in 0..ACCEPT_BUDGET {
            if !self.may_accept(io) {
                return;
            }
            match io.accept(now) {
                Accepted::Waiting { who } => self.admit(io, who, now),
                Accepted::Nobody | Accepted::Again => {}
                Accepted::NoRoom(cause) => {
                    if !self.make_room(io, &cause, now) {
                        io.pause_accepting(&cause, now);
                    }
                }
            }
        }
    }

    /// Takes one more program, within the bounds on all and on each user.
    fn admit(&mut self, io: &mut impl Io, who: Credentials, now: Now) {
        let user = who.user;
        let more = format!("too many programs are connected, user {user} is one more");
        let text = loop {
            match self.broker.admit(user) {
                Admission::Welcome => break None,
                Admission::InPlaceOf(idle) if self.is_idle(io, idle) => {
                    self.close(io, idle);
                    break Some(format!("{more}: the one that was idle for longest is closed"));
                }
                Admission::InPlaceOf(_) => {}
                Admission::Full => {
                    io.turn_away();
                    return self.warn(&format!("{more}, and none is idle: it is turned away"), now);
                }
            }
        };
        if let Some(text) = text {
            self.warn(&text, now);
        }
        let id = self.broker.client_connected();
        self.broker.client_belongs(id, who);
        if io.let_in(id) {
            // A program writes as soon as it is connected: most often its request is there already.
            self.program_is_ready(io, id);
        } else {
            self.broker.client_gone(id);
        }
    }

    fn warn(&mut self, text: &str, now: Now) {
        if let Some(line) = self.accept_repeats.line(text, now.mono) {
            log::warn!("{line}");
        }
    }

    /// Closes the program that was idle for longest; whether there is one.
    fn make_room(&mut self, io: &mut impl Io, want: &io::Error, now: Now) -> bool {
        loop {
            let Some(idle) = self.broker.idlest_client() else { return false };
            if self.is_idle(io, idle) {
                self.close(io, idle);
                break;
            }
        }
        let text = format!(
            "accept a program's connection: {want}; the program that was idle for longest is closed for the one that comes"
        );
        if let Some(line) = self.accept_repeats.line(&text, now.mono) {
            log::error!("{line}");
        }
        true
    }

    /// Whether a program that the broker takes for idle is. What it has sent meanwhile, or before
    /// it was let in, is read first: a request that lies in the socket would be lost with its
    /// connection.
    fn is_idle(&mut self, io: &mut impl Io, id: ClientId) -> bool {
        self.read_program(io, id);
        self.program_is_ready(io, id);
        self.broker.session(id).is_none_or(|session| session.is_idle())
    }

    fn read_programs(&mut self, io: &mut impl Io) {
        for id in self.broker.take_fed() {
            self.program_is_ready(io, id);
        }
        for _ in 0..self.to_read.len() {
            let Some(id) = self.to_read.next() else { break };
            self.read_program(io, id);
            self.program_is_ready(io, id);
        }
    }

    /// Reads what the broker has room for, up to a budget.
    fn read_program(&mut self, io: &mut impl Io, id: ClientId) {
        let mut budget = READ_BUDGET;
        while budget > 0 {
            let most = self.broker.may_read(id).min(READ_SIZE);
            if most == 0 {
                return;
            }
            let broker = &mut self.broker;
            match io.read(id, most, &mut |bytes| broker.client_sent(id, bytes)) {
                Read::Bytes(count) => budget = budget.saturating_sub(count),
                Read::Last(_) => return,
                Read::End => return self.broker.client_closed_input(id),
                Read::Gone => return self.close(io, id),
            }
        }
    }

    /// Writes a program's answers; closes its connection when it is finished or gone.
    fn write_program(&mut self, io: &mut impl Io, id: ClientId) {
        let Some(session) = self.broker.session(id) else { return };
        let waited = session.answers.out.len();
        let gone = !io.write(id, &mut session.answers.out);
        let wrote = session.answers.out.len() < waited;
        if gone || session.finished() {
            return self.close(io, id);
        }
        if wrote {
            self.broker.client_read(id);
        }
        self.program_is_ready(io, id);
    }

    fn close(&mut self, io: &mut impl Io, id: ClientId) {
        io.close(id);
        self.broker.client_gone(id);
    }

    /// Hands over the programs that can go to the next child; whether some could not after all, and
    /// are served here.
    fn hand_over(&mut self, io: &mut impl Io, now: Now) -> bool {
        let forced = match self.broker.hands_over() {
            Some(forced) if forced || io.may_hand_over(now) => forced,
            Some(_) | None => return false,
        };
        let going = self.broker.take_going();
        let mut some_stay = false;
        for group in going.chunks(PER_MESSAGE) {
            let programs: Vec<_> =
                group.iter().filter_map(|id| Some((*id, self.broker.rest(*id)?))).collect();
            match io.hand_over(programs, now) {
                HandedOver::Gone => {
                    for &id in group {
                        io.let_go(id);
                        self.broker.client_gone(id);
                    }
                }
                HandedOver::Later(error) if !forced => {
                    if let Some(line) = self.hand_over_repeats.line(&error.to_string(), now.mono) {
                        log::warn!("hand {} programs over: {line}; tried again", group.len());
                    }
                    group.iter().for_each(|id| self.broker.client_waits(*id));
                }
                HandedOver::Later(error) | HandedOver::Stay(error) => {
                    log::warn!(
                        "hand {} programs over: {error}; they are served to the end here",
                        group.len()
                    );
                    some_stay = true;
                    group.iter().for_each(|id| self.broker.client_stays(*id));
                }
            }
        }
        some_stay
    }

    // The peer.

    /// Lets the broker carry on, and does what it says.
    fn carry_on(&mut self, io: &mut impl Io, now: Now) {
        self.broker.turn(now);
        loop {
            let effects = self.broker.take_effects();
            if effects.is_empty() {
                return;
            }
            let mut delivered = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Dial => {
                        self.hang_up(io);
                        io.dial(now);
                        self.go_on_dialling(io, now);
                    }
                    Effect::HangUp => self.hang_up(io),
                    Effect::Delivered { request } => delivered.push(request),
                }
            }
            if !delivered.is_empty() {
                io.delivered(&delivered, now);
            }
        }
    }

    fn go_on_dialling(&mut self, io: &mut impl Io, now: Now) {
        loop {
            match io.dialled(now) {
                Dialled::UnderWay => return,
                Dialled::Reached => self.broker.link_reached(now),
                Dialled::Connected => {
                    self.opened = false;
                    self.broker.link_connected(now);
                }
                Dialled::Failed(why) => self.broker.link_lost(why, now),
            }
        }
    }

    fn read_link(&mut self, io: &mut impl Io, now: Now) {
        let mut budget = READ_BUDGET;
        while budget > 0 && self.broker.hears() && io.is_link_readable() {
            let broker = &mut self.broker;
            match io.read_link(&mut |bytes| broker.link_received(bytes, now)) {
                Ok(0) => break,
                Ok(count) => budget = budget.saturating_sub(count),
                Err(why) => self.link_down(io, why, now),
            }
        }
        self.note_opened(io);
    }

    /// Writes to the peer and to the programs what they take.
    fn write(&mut self, io: &mut impl Io, now: Now) {
        self.write_link(io, now);
        let mut touched = std::mem::take(&mut self.touched);
        self.broker.take_touched(&mut touched);
        for id in touched.drain(..) {
            self.write_program(io, id);
        }
        self.touched = touched;
    }

    /// Writes until the peer takes no more, or there is no more.
    fn write_link(&mut self, io: &mut impl Io, now: Now) {
        loop {
            let mut moved = false;
            let written = io.write_link(self.broker.link_out(), &mut moved);
            if moved {
                self.broker.link_moved(now);
            }
            match written {
                Ok(0) => return,
                Ok(_) => self.broker.link_wrote(),
                Err(why) => {
                    self.link_down(io, why, now);
                    self.carry_on(io, now);
                }
            }
        }
    }

    /// Tells the connection that the link is open, the first time that it is.
    fn note_opened(&mut self, io: &mut impl Io) {
        if !self.opened && self.broker.link_is_up() {
            self.opened = true;
            io.link_opened();
        }
    }

    /// The one place where the connection to the peer ends, or all that were to become it.
    fn hang_up(&mut self, io: &mut impl Io) {
        // It may have been opened and lost in one turn.
        self.note_opened(io);
        io.hang_up(self.broker.link_out());
        self.broker.link_out().clear();
    }
}
