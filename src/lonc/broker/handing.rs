//! The broker's part when the next child is to go on with the programs.
//!
//! Nothing more is read then, and no more requests are taken: what was read and not taken goes to
//! the next child as it is. A program that is owed no answer goes at once; one that is owed answers
//! goes when it has got them, or they wait to be written, at the latest when `drain_timeout` is
//! over and they were given as `con_lost` or stored. What goes along has the bound
//! [`HANDED_BYTES`]; a program beyond it is served and closed as by [`Broker::drain`], and so is
//! one that the reactor could not hand over ([`Broker::client_stays`]).

use super::Broker;
use super::ending::{Ending, Limit};
use crate::handover::{HANDED_BYTES, PER_MESSAGE};
use crate::link::Now;
use crate::session::{ClientId, Rest};
use crate::sessions::Sessions;
use store::spool::Disk;

/// Programs that became ready one by one go together when they fill a message, or when they are the
/// last: a message for each of thousands would fill the passage.
const GATHERED: usize = PER_MESSAGE;

/// The programs go to the next child.
#[derive(Debug)]
pub(super) struct Handing {
    /// What is left of [`HANDED_BYTES`].
    room: usize,
    /// Those that could go at once have gone.
    begun: bool,
}

impl Handing {
    /// Those that go now; all that are ready if the end is `forced`.
    fn going(&mut self, sessions: &Sessions, forced: bool) -> Vec<ClientId> {
        let mut room = self.room;
        let fits = |id: &ClientId| {
            let ready = sessions.peek(*id).filter(|session| session.ready_to_go());
            let left = ready.and_then(|session| room.checked_sub(session.answers.out.len()));
            room = left.unwrap_or(room);
            left.is_some()
        };
        let going: Vec<_> = sessions.ids().into_iter().filter(fits).collect();
        let last = going.len() == sessions.len() || forced;
        if self.begun && !last && going.len() < GATHERED {
            return Vec::new();
        }
        *self = Handing { room, begun: true };
        going
    }
}

impl<D: Disk> Broker<D> {
    /// Takes no more requests, and leaves the programs to the next child; ends when the requests
    /// that were taken are answered or `drain_timeout` is over.
    pub fn hand_over(&mut self, now: Now) {
        if self.ending.has_begun() {
            return;
        }
        self.report.changes();
        self.grace.end();
        let limit = Limit::By(now.mono + self.settings.peer.drain_timeout);
        let room = self.programs.park(HANDED_BYTES);
        self.ending = Ending::Handing(limit, Handing { room, begun: false });
    }

    /// Somebody has taken the spool's folder away, or put another in its place, and this child can
    /// have that one alone: the next goes on.
    pub(super) fn see_folder(&mut self, now: Now) {
        if self.spool.is_lost() && !self.ending.has_begun() {
            log::error!(
                "{}: it was removed; what waited in it is lost; the next process begins a new one",
                self.spool.dir().display()
            );
            self.hand_over(now);
        }
    }

    /// A program that the child before this one had.
    pub fn client_handed(&mut self, rest: Rest<'_>) -> ClientId {
        self.programs.resume(rest)
    }

    /// The programs that are to be handed over now. Each is to be forgotten then, or told to stay.
    pub fn take_going(&mut self) -> Vec<ClientId> {
        let forced = self.ending.is_forced();
        match &mut self.ending {
            Ending::Handing(_, handing) => handing.going(self.programs.sessions(), forced),
            Ending::Not | Ending::Draining(_) => Vec::new(),
        }
    }

    /// Whether the programs go to the next child; and if so, whether the time for that has passed.
    pub fn hands_over(&self) -> Option<bool> {
        matches!(self.ending, Ending::Handing(..)).then(|| self.ending.is_forced())
    }

    /// What the next child must have of a program.
    pub fn rest(&self, id: ClientId) -> Option<Rest<'_>> {
        Some(self.programs.sessions().peek(id)?.rest())
    }

    /// A program could not be handed over now, and is to be told of again.
    pub fn client_waits(&mut self, id: ClientId) {
        let waits = self.programs.sessions().peek(id).map(|session| session.answers.out.len());
        if let (Ending::Handing(_, handing), Some(bytes)) = (&mut self.ending, waits) {
            *handing = Handing { room: handing.room + bytes, begun: false };
        }
    }

    /// A program could not be handed over: what was read of it is served here.
    pub fn client_stays(&mut self, id: ClientId) {
        self.programs.unpark(id);
    }
}
