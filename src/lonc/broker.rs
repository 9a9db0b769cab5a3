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

mod away;
mod clients;
mod delivery;
mod draining;
mod handing;
mod hearing;
mod held;
mod report;
mod sending;
mod serving;
#[cfg(test)]
pub(super) mod tests;

use super::link::{Action, Event, Link, Now};
use super::pending::{Entry, Owner, Pending, Purpose};
use super::protocol::{Message, Terms};
use super::session::{ClientId, Hoarder, Session};
use super::sessions::Sessions;
use super::settings::LinkSettings;
use away::Away;
use base::log_quota::Repeats;
use base::{HostId, WireKind};
use delivery::Store;
use handing::Handing;
use held::Held;
use sending::answer_to;
use status::LinkState;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use store::spool::{Disk, Spool};

/// How long the programs wait for a dial to end before they are answered `con_lost`, when the child
/// is new or the peer has asked to be dialled anew: long enough that a restart of either end is not
/// seen by them.
const DIAL_GRACE: Duration = Duration::from_secs(1);
/// Bytes of requests that were taken and are not answered, wherever they are; at this mark no more
/// are taken. One may go beyond it.
const MAX_TAKEN_BYTES: usize = 4 << 20;
/// Least time between two reports of counters that changed while the state did not.
const REPORT_EVERY: Duration = Duration::from_millis(250);

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

/// How long programs wait for a dial.
#[derive(Debug, Clone, Copy)]
struct Grace {
    until: Instant,
    /// It is over when more dials than these have ended.
    attempts: u64,
}

/// What is told about the broker.
#[derive(Debug, Default, Clone, Copy)]
struct Counters {
    done: u64,
    lost: u64,
}

/// See the module.
pub struct Broker<D: Disk> {
    peer: HostId,
    wire: WireKind,
    settings: LinkSettings,
    sessions: Sessions,
    /// Programs whose lines wait to be served, in turn.
    queue: VecDeque<ClientId>,
    /// Programs whose answers grew, or that may be finished.
    touched: Vec<ClientId>,
    link: Link,
    pending: Pending,
    spool: Spool<D>,
    /// Critical requests gathered for the next sync.
    stores: Vec<Store>,
    stores_bytes: usize,
    /// Critical requests that wait so that the backlog can shrink.
    held: Held,
    /// Handlers at the peer that are away.
    away: Away,
    /// Programs wait for a dial to end.
    grace: Option<Grace>,
    /// The peer takes no more requests on this connection.
    leaving: bool,
    /// When the delayed directory is to be looked at again, or the spool to be read again after an
    /// error.
    take_in_at: Option<Instant>,
    replay_at: Option<Instant>,
    /// When what was passed over in the spool is to be tried again.
    reread_at: Option<Instant>,
    drain_timeout: Duration,
    /// No new requests; by then everything is over.
    draining: Option<Instant>,
    /// The programs go to the next child.
    handing: Option<Handing>,
    /// The time of `draining` has passed: what a program has not read by now it will not get.
    forced: bool,
    counters: Counters,
    spool_error: Option<(String, Now)>,
    spool_repeats: Repeats,
    /// For what is said of programs.
    client_repeats: Repeats,
    effects: Vec<Effect>,
    /// The state changed in a way that the supervisor is to hear of at once.
    changed: bool,
    reported: (u64, u64, u64),
    reported_at: Instant,
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
            peer: peer.host.id.clone(),
            wire: peer.wire,
            sessions: Sessions::new(peer.max_line, now.mono),
            queue: VecDeque::new(),
            touched: Vec::new(),
            link: Link::new(peer, terms, settings.keys.barred(), seed, now),
            pending: Pending::new(peer.request_timeout, peer.wire),
            spool,
            stores: Vec::new(),
            stores_bytes: 0,
            held: Held::new(),
            away: Away::default(),
            grace: Some(Grace { until: now.mono + DIAL_GRACE, attempts: 0 }),
            leaving: false,
            take_in_at: Some(now.mono),
            replay_at: None,
            reread_at: None,
            drain_timeout: peer.drain_timeout,
            draining: None,
            handing: None,
            forced: false,
            counters: Counters::default(),
            spool_error: None,
            spool_repeats: Repeats::default(),
            client_repeats: Repeats::default(),
            effects: Vec::new(),
            changed: true,
            reported: (0, 0, 0),
            reported_at: now.mono,
            turned_at: now,
            settings,
        }
    }

    // What the reactor tells.

    /// Whether the peer is to be heard: there is room for its answers.
    pub fn hears(&self) -> bool {
        self.sessions.hears()
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

    /// The peer has gone in order, and is dialled anew at once; programs wait for that.
    fn left(&mut self, now: Now) {
        self.grace = Some(Grace { until: now.mono + DIAL_GRACE, attempts: self.link.attempts_ended() });
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

    /// Files for this peer have appeared in the delayed directory.
    pub fn files_appeared(&mut self, now: Now) {
        self.take_in_at = Some(now.mono);
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
            if self.queue.is_empty() || self.blocked(now) {
                break;
            }
        }
        self.end_drain(now);
        let waiting = self.spool.waiting();
        let counts = (waiting.messages, waiting.failed, waiting.corrupt);
        self.changed |= self.link.take_changed();
        if counts != self.reported && now.mono >= self.reported_at + REPORT_EVERY {
            self.changed = true;
        }
    }

    /// What is to be done, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The programs that may have something to be written, or may be finished. Some may be gone.
    pub fn take_touched(&mut self) -> Vec<ClientId> {
        std::mem::take(&mut self.touched)
    }

    /// A program's session.
    pub fn session(&mut self, id: ClientId) -> Option<&mut Session> {
        self.sessions.get(id)
    }

    /// The link's bytes to be written.
    pub fn link_out(&mut self) -> &mut base::line::Outgoing {
        &mut self.link.out
    }

    /// Whether new programs are welcome.
    pub fn accepts(&self) -> bool {
        self.draining.is_none()
    }

    /// Whether the child is to end now, once what can be written has been written.
    pub fn over(&self) -> bool {
        self.draining.is_some()
            && self.pending.is_empty()
            && self.queue.is_empty()
            && self.held.is_empty()
            && self.stores.is_empty()
            && (self.sessions.is_empty() || self.forced)
    }

    /// When [`Broker::turn`] is to be called at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let waiting = self.spool.waiting();
        let report = ((waiting.messages, waiting.failed, waiting.corrupt) != self.reported)
            .then(|| self.reported_at + REPORT_EVERY);
        [
            self.link.deadline(),
            self.pending.next_overdue(),
            self.pending.dead_at(self.link.last_heard()),
            self.grace.map(|grace| grace.until),
            // Files are left to the next child.
            self.take_in_at.filter(|_| self.draining.is_none()),
            self.replay_at,
            self.reread_at,
            self.held.deadline(),
            self.link.is_up().then(|| self.away.deadline(self.turned_at)).flatten(),
            self.sessions.deadline(),
            self.draining.filter(|_| !self.forced),
            report,
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
        let ended = self.link.attempts_ended();
        if self.grace.is_some_and(|grace| grace.until <= now.mono || ended > grace.attempts) {
            self.grace = None;
        }
        self.expire(now);
        if self.pending.dead_at(self.link.last_heard()).is_some_and(|at| at <= now.mono) {
            self.link_event(Event::Lost("the peer has stopped answering".into()), now);
        }
        if self.leaving && self.pending.is_empty() {
            self.left(now);
        }
        if !self.forced && self.draining.is_some_and(|deadline| deadline <= now.mono) {
            self.forced = true;
            self.link_event(Event::Stop, now);
        }
    }

    /// Programs that keep others waiting go.
    fn give_up_hoarders(&mut self, now: Now) {
        for (id, user, why) in self.sessions.keep_time(now.mono) {
            self.touched.push(id);
            let what = match why {
                Hoarder::Line => "began a long line and did not end it, while others waited for room",
                Hoarder::Answers => "does not read its answers, and there is no room for those of others",
            };
            let text = format!("a program of user {user} {what}: its connection is closed");
            if let Some(line) = self.client_repeats.line(&text, now.mono) {
                log::warn!("{line}");
            }
        }
    }

    /// The spool's folder was taken away and made anew: its sequences begin anew too, under another
    /// epoch. What was sent in this conversation is known to the peer under the old one, so the
    /// next message needs a new conversation.
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

    /// Whether serving must wait for the link or the clock.
    fn blocked(&self, now: Now) -> bool {
        let waits = self.grace.is_some_and(|grace| grace.until > now.mono);
        waits
            || self.taken_bytes() >= MAX_TAKEN_BYTES
            || (self.link.is_up() && (self.leaving || self.pending.full() || self.link.clogged()))
    }

    /// Bytes of the requests that were taken and are not answered: on the link, held back, about to
    /// be stored.
    fn taken_bytes(&self) -> usize {
        self.pending.bytes() + self.stores_bytes + self.held.bytes()
    }

    /// Fills a program's slot, if the program is still there.
    fn answer(&mut self, owner: Owner, answer: &[u8]) {
        answer_to(owner, answer, &mut self.sessions, &mut self.queue, &mut self.touched);
    }
}
