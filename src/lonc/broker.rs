//! The broker of one link: it routes between the programs' sessions, the link, what is in flight,
//! and the spool.
//!
//! Pure but for the spool's disk, which is a parameter: time, random seed and bytes come as
//! arguments, and what is to be done comes back as [`Effect`]s. The parts don't know each other;
//! everything that passes from one to another passes here. What is promised to a program, answer by
//! answer, is in `docs/delivery.md`.
//!
//! Order of critical messages. A critical request is sent at once only while nothing is stored or
//! about to be; else it is stored behind what waits. When one in flight becomes overdue or the link
//! is lost, *all* critical requests in flight are stored, in the order in which they were sent,
//! before anything newer can be. So the order of sequences in the spool is the order in which the
//! requests were taken.

mod agenda;
mod away;
mod clients;
mod delivery;
mod draining;
mod ending;
mod grace;
mod handing;
mod hearing;
mod held;
mod programs;
mod report;
mod rivals;
mod sending;
mod serving;
mod stores;
#[cfg(test)]
pub(super) mod tests;
mod turns;

use super::link::{Action, Event, Link, Now};
use super::pending::{Entry, Pending, Purpose};
use super::protocol::{Message, Terms};
use super::session::Hoarder;
use super::settings::LinkSettings;
use agenda::Agenda;
use away::Away;
use base::credentials::known;
use ending::Ending;
use grace::Grace;
use held::Held;
use programs::Programs;
use report::Report;
use rivals::Rivals;
use status::LinkState;
use std::time::Instant;
use store::spool::{Disk, Spool};
use stores::Stores;

/// Bytes of requests that were taken and are not answered, wherever they are; at this mark no more
/// are taken. One may go beyond it.
const MAX_TAKEN_BYTES: usize = 4 << 20;

const CON_LOST: &[u8] = b"con_lost";
const CON_DELAYED: &[u8] = b"con_delayed";
const CON_FAILED: &[u8] = b"con_failed";

/// What the reactor is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make a connection to the peer.
    Dial,
    /// Close the connection to the peer, if there is one, and clear what is for it.
    HangUp,
    /// A stored message was delivered: note it in the permanent log.
    Delivered {
        /// In the form in which it was stored.
        request: Vec<u8>,
    },
}

/// See the module.
pub struct Broker<D: Disk> {
    settings: LinkSettings,
    /// The local programs, and whose turn it is.
    programs: Programs,
    link: Link,
    /// What was sent on the link and is not answered.
    pending: Pending,
    spool: Spool<D>,
    /// Who asks beside whom.
    rivals: Rivals,
    /// Critical requests gathered for the next sync.
    stores: Stores,
    /// Critical requests that wait so that the backlog can shrink.
    held: Held,
    /// Handlers at the peer that are away.
    away: Away,
    /// How long programs wait for a dial.
    grace: Grace,
    /// The peer takes no more requests on this connection.
    leaving: bool,
    /// When to look for files, and at the spool, again.
    agenda: Agenda,
    /// Whether the child ends, and how.
    ending: Ending,
    /// What there is to tell.
    report: Report,
    /// What the reactor is to do, in order.
    effects: Vec<Effect>,
    /// When the last turn was.
    turned_at: Now,
}

impl<D: Disk> Broker<D> {
    /// The broker of one peer, with the peer's spool, and a link that is dialled at the first
    /// [`Broker::turn`]; where its keys are [`super::settings::LinkKeys::Barred`], never.
    pub fn new(settings: LinkSettings, spool: Spool<D>, seed: u64, now: Now) -> Broker<D> {
        let peer = &settings.peer;
        let terms = Terms {
            caller: settings.id.clone(),
            called: peer.host.id.clone(),
            epoch: spool.epoch().to_owned(),
            window: peer.window,
            max_line: u32::try_from(peer.max_line).unwrap_or(u32::MAX),
        };
        Broker {
            programs: Programs::new(peer.max_line, now.mono),
            link: Link::new(peer, terms, settings.keys.barred(), seed, now),
            pending: Pending::new(peer.request_timeout, peer.wire),
            spool,
            rivals: Rivals::default(),
            stores: Stores::default(),
            held: Held::new(),
            away: Away::default(),
            grace: Grace::begun(0, now.mono),
            leaving: false,
            agenda: Agenda::new(now.mono),
            ending: Ending::Not,
            report: Report::new(now.mono),
            effects: Vec::new(),
            turned_at: now,
            settings,
        }
    }

    // What the reactor tells.

    /// Whether the peer is to be heard: there is room for its answers.
    pub fn hears(&self) -> bool {
        self.programs.sessions().hears()
    }

    /// Whether a connection to the peer is wanted and not made.
    pub fn is_dialling(&self) -> bool {
        self.link.state() == LinkState::Connecting
    }

    /// Whether the peer answers requests.
    pub fn link_is_up(&self) -> bool {
        self.link.is_up()
    }

    /// The TCP connection to the peer is made; the tunnel is not.
    pub fn link_reached(&mut self, now: Now) {
        self.link_event(Event::Reached, now);
    }

    /// The connection to the peer is made.
    pub fn link_connected(&mut self, now: Now) {
        self.link.set_epoch(self.spool.epoch());
        self.link_event(Event::Connected, now);
    }

    /// The peer sent something.
    pub fn link_received(&mut self, bytes: &[u8], now: Now) {
        self.link.receive(bytes, now);
        self.hear(now);
    }

    /// What was to be sent to the peer was written, in part at least.
    pub fn link_wrote(&mut self) {
        self.link.carry_on();
    }

    /// What had to wait was written to the peer, in part at least: it takes what it was sent, be it
    /// slowly.
    pub fn link_moved(&mut self, now: Now) {
        self.link.moved(now);
    }

    /// The connection to the peer, or the attempt to make one, failed.
    pub fn link_lost(&mut self, why: String, now: Now) {
        if self.leaving {
            // It said that it would.
            self.left(now);
        } else {
            self.link_event(Event::Lost(why), now);
        }
    }

    /// The peer has gone in order, and is dialled again at once; programs wait for that.
    fn left(&mut self, now: Now) {
        self.grace = Grace::begun(self.link.attempts_ended(), now.mono);
        self.link_event(Event::Left, now);
    }

    /// USR1: dial now, or try the link with a heartbeat.
    pub fn probe(&mut self, now: Now) {
        if !self.link.is_up() {
            self.link_event(Event::DialNow, now);
        } else if !self.link.probe(now) && !self.pending.probing() {
            let number = self.pending.next_number();
            self.link.send(Message { number, text: b"ping", once: None });
            self.pending.push(Entry { owner: None, purpose: Purpose::Probe, size: 4 }, now.mono);
        }
    }

    /// Files for this peer have come into its folder.
    pub fn files_came(&mut self, now: Now) {
        self.spool.files_came();
        self.agenda.look_for_files(now.mono);
    }

    // What the reactor does then.

    /// Carries on with everything that can be carried on with. To be called once a turn, after what
    /// happened was told.
    pub fn turn(&mut self, now: Now) {
        self.turned_at = now;
        self.keep_time(now);
        self.take_in(now);
        self.reread(now);
        // Each round may make room for the next: a failed store fills slots, which lets a program's
        // lines be served.
        loop {
            self.release_held(now);
            self.serve(now);
            self.commit(now);
            self.see_epoch(now);
            self.replay(now);
            if self.none_may(now) || self.blocked(now) {
                break;
            }
        }
        self.see_folder(now);
        self.end_drain(now);
        if self.link.take_changed() {
            self.report.changes();
        }
        self.report.end_turn(&self.spool.waiting(), now.mono);
    }

    /// What is to be done, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The link's bytes to be written.
    pub fn link_out(&mut self) -> &mut base::line::Outgoing {
        &mut self.link.out
    }

    /// Whether new programs are welcome.
    pub fn accepts(&self) -> bool {
        !self.ending.has_begun()
    }

    /// How many requests the peer has not answered.
    pub fn under_way(&self) -> usize {
        self.pending.len()
    }

    /// Whether the child is to end now, once what can be written has been written.
    pub fn over(&self) -> bool {
        self.ending.has_begun()
            && self.pending.is_empty()
            && self.programs.none_waits()
            && self.held.is_empty()
            && self.stores.is_empty()
            && (self.programs.sessions().is_empty() || self.ending.is_forced())
    }

    /// When [`Broker::turn`] is to be called at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        [
            self.link.deadline(),
            self.pending.next_overdue(),
            self.pending.dead_at(self.link.last_heard()),
            self.grace.deadline(),
            // Files are left to the next child.
            self.agenda.deadline(!self.ending.has_begun()),
            self.held.deadline(),
            self.link.is_up().then(|| self.away.deadline(self.turned_at)).flatten(),
            self.programs.sessions().deadline(),
            self.ending.deadline(),
            self.report.deadline(&self.spool.waiting()),
            // Who waits may have more then.
            (!self.programs.none_waits()).then(|| self.rivals.deadline(self.turned_at.mono)).flatten(),
            self.spool.has_unsent().then(|| self.rivals.replay_deadline(self.turned_at.mono)).flatten(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    // Within.

    fn keep_time(&mut self, now: Now) {
        self.give_up_hoarders(now);
        if self.link.deadline().is_some_and(|at| at <= now.mono) {
            self.link_event(Event::Due, now);
        }
        self.grace.keep_time(self.link.attempts_ended(), now.mono);
        self.expire(now);
        if self.pending.dead_at(self.link.last_heard()).is_some_and(|at| at <= now.mono) {
            self.link_event(Event::Lost("the peer has stopped answering".into()), now);
        }
        if self.leaving && self.pending.is_empty() {
            self.left(now);
        }
        if self.ending.keep_time(now.mono) {
            self.link_event(Event::Stop, now);
        }
    }

    /// Programs that keep others waiting go.
    fn give_up_hoarders(&mut self, now: Now) {
        for (_, user, why) in self.programs.keep_time(now.mono) {
            let what = match why {
                Hoarder::Line => "began a long line and did not end it, while others waited for room",
                Hoarder::Answers => "does not read its answers, and there is no room for those of others",
            };
            let text = format!("a program of user {user} {what}: its connection is closed");
            if let Some(line) = self.report.client_line(&text, now) {
                log::warn!("{line}");
            }
        }
    }

    /// The spool's folder was taken away and made anew: its sequences begin at the first again,
    /// under another epoch. What was sent in this conversation is known to the peer under the old
    /// one, so the next message needs a new conversation.
    fn see_epoch(&mut self, now: Now) {
        if self.link.is_up() && self.link.knows_repeats() && self.link.epoch() != self.spool.epoch() {
            self.link_event(Event::Lost("the spool has begun anew".into()), now);
        }
    }

    fn link_event(&mut self, event: Event, now: Now) {
        let action = self.link.on(event, now);
        self.act(action, now);
    }

    /// Whatever ends a connection ends it here.
    fn act(&mut self, action: Option<Action>, now: Now) {
        match action {
            Some(Action::Dial) => self.effects.push(Effect::Dial),
            Some(Action::HangUp) => {
                self.effects.push(Effect::HangUp);
                self.leaving = false;
                self.give_up_pending(now);
            }
            None => {}
        }
    }

    /// Whether nothing waits of a user who may have more in flight.
    fn none_may(&self, now: Now) -> bool {
        let Broker { programs, pending, rivals, .. } = self;
        programs.none_may(|user| rivals.allow(user, pending.of_user(known(user)), now.mono))
    }

    /// Whether serving must wait for the link or the clock.
    fn blocked(&self, now: Now) -> bool {
        self.grace.holds(now.mono)
            || self.taken_bytes() >= MAX_TAKEN_BYTES
            || (self.link.is_up() && (self.leaving || self.pending.full() || self.link.clogged()))
    }

    /// Bytes of the requests that were taken and are not answered: on the link, held back, about to
    /// be stored.
    fn taken_bytes(&self) -> usize {
        self.pending.bytes() + self.stores.bytes() + self.held.bytes()
    }
}
