//! The link to the peer: where it stands, when the next dial is, the bytes in and out.
//!
//! Owns the state machine, its deadlines, and the conversation with the peer while there is a
//! connection. Every change goes through [`Link::enter`], which also logs it. It never gives up:
//! after each failure the next dial is due, first after half a second, then doubling to a minute,
//! each time somewhere between half of that and the whole, so that a thousand hosts don't dial a
//! returning one at once.

mod shown;
#[cfg(test)]
mod tests;

use super::protocol::{Classic, Heard, Message, Protocol, Secure, Terms};
use base::WireKind;
use base::clock::put_right;
use base::line::Outgoing;
use base::log_quota::Quota;
use config::Peer;
use jiff::Timestamp;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use wire::flow::{Beat, Heartbeat};

/// First pause before a redial.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause before a redial.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A link that was up this long, or answered a request, was a good one: the next pause is
/// the shortest again.
const GOOD_AFTER: Duration = Duration::from_secs(5);
/// A peer that goes away in order is dialled at once; after so many times in a row, each before the
/// link was [`GOOD_AFTER`], no sooner than this after the last dial.
const LEAVES_AT_ONCE: u32 = 8;
const BETWEEN_DIALS: Duration = Duration::from_millis(250);
/// A peer that does so this often in a row does not just start again: from then on there are pauses
/// as after a failure. Two hosts with one key do this: each replaces the other's link.
const MOST_QUICK_LEAVES: u32 = 200;
/// How long the peer may take over a heartbeat that a person asked for.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that wait to be written to the peer; at this mark no more requests are taken.
const OUT_HIGH_WATER: usize = 1 << 20;

/// The time, read once a turn by the reactor.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// What deadlines and pauses are counted by: it is never set.
    pub mono: Instant,
    /// What people and files are told. It may be set at any time.
    pub wall: Timestamp,
}

impl Now {
    /// The wall clock's time of this moment as it is told `now`, when that clock may have been set
    /// since.
    pub fn told(self, now: Now) -> Timestamp {
        put_right(self.mono, self.wall, now.mono, now.wall)
    }
}

#[derive(Debug)]
enum State {
    Down {
        until: Instant,
    },
    Connecting {
        until: Instant,
        /// TCP is there, and the tunnel is not.
        reached: bool,
    },
    Opening {
        until: Instant,
    },
    Up {
        since: Instant,
    },
    /// No dial will be made: the child ends, or there is no way to speak with the peer.
    Shut,
}

/// What happens to a link.
#[derive(Debug)]
pub enum Event {
    /// The deadline passed.
    Due,
    /// Somebody wants the link up now.
    DialNow,
    /// On the secure wire: the TCP connection is made, and the tunnel is asked for.
    Reached,
    /// The connection is made: TCP and, on the secure wire, the tunnel.
    Connected,
    /// The opening ended well.
    Opened,
    /// The connection failed or is no longer of use, and why.
    Lost(String),
    /// The peer has answered everything and wants to be dialled again.
    Left,
    /// The child ends.
    Stop,
}

/// What the reactor is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make a connection.
    Dial,
    /// Close the connection, if there is one.
    HangUp,
}

/// See the module.
#[derive(Debug)]
pub struct Link {
    state: State,
    /// The conversation, while there is a connection.
    protocol: Option<Protocol>,
    /// What is for the peer.
    pub out: Outgoing,
    /// Of the connection that there is, or was last.
    heart: Heartbeat,
    /// By then a heartbeat asked for by a person must be answered.
    probe: Option<Instant>,
    wire: WireKind,
    terms: Terms,
    connect_timeout: Duration,
    opening_timeout: Duration,
    failures: u32,
    answered_any: bool,
    /// When the last dial began.
    dialled: Option<Instant>,
    /// Links in a row that the peer left before they were [`GOOD_AFTER`].
    quick_leaves: u32,
    random: fastrand::Rng,
    since: Now,
    last_error: Option<(String, Now)>,
    attempts_ended: u64,
    changed: bool,
    /// For what the log says of this link.
    quota: Quota,
}

impl Link {
    /// A link that dials at the first [`Event::Due`]; with `barred` it never does, for that reason.
    pub fn new(peer: &Peer, terms: Terms, barred: Option<&str>, seed: u64, now: Now) -> Link {
        let mut link = Link {
            state: State::Down { until: now.mono },
            protocol: None,
            out: Outgoing::default(),
            heart: Heartbeat::new(peer.heartbeat, peer.heartbeat_missed, now.mono),
            probe: None,
            wire: peer.wire,
            terms,
            connect_timeout: peer.connect_timeout,
            opening_timeout: peer.opening_timeout,
            failures: 0,
            answered_any: false,
            dialled: None,
            quick_leaves: 0,
            random: fastrand::Rng::with_seed(seed),
            since: now,
            last_error: None,
            attempts_ended: 0,
            changed: true,
            quota: Quota::default(),
        };
        if barred.is_some() {
            link.attempts_ended = 1;
            link.enter(State::Shut, barred, now);
        }
        link
    }

    /// The spool's epoch, which each conversation begins with.
    pub fn set_epoch(&mut self, epoch: &str) {
        epoch.clone_into(&mut self.terms.epoch);
    }

    /// The epoch that this conversation, or the next, was begun with.
    pub fn epoch(&self) -> &str {
        &self.terms.epoch
    }

    /// What happens next in each state. No arm stands for "the rest": a new event has to be thought
    /// about here.
    pub fn on(&mut self, event: Event, now: Now) -> Option<Action> {
        match (&self.state, event) {
            (State::Down { until }, Event::Due | Event::DialNow) => self.dial(*until, now),
            (State::Connecting { reached: false, .. }, Event::Due) => {
                self.fail(&format!("no connection within {:?}", self.connect_timeout), now)
            }
            (State::Connecting { reached: true, .. }, Event::Due) => {
                self.fail(&format!("TCP is there, no TLS answer within {:?}", self.opening_timeout), now)
            }
            (State::Connecting { reached: true, .. }, Event::Reached) => None,
            (State::Connecting { reached: false, .. }, Event::Reached) => {
                let until = now.mono + self.opening_timeout;
                self.enter(State::Connecting { until, reached: true }, None, now);
                None
            }
            (State::Connecting { .. }, Event::Connected) => {
                self.begin(now);
                self.enter(State::Opening { until: now.mono + self.opening_timeout }, None, now);
                None
            }
            (State::Opening { .. }, Event::Due) => {
                let waits_for = self.protocol.as_ref().map(Protocol::waits_for).unwrap_or_default();
                let why = format!("{waits_for}: nothing within {:?}", self.opening_timeout);
                self.fail(&why, now)
            }
            (State::Opening { .. }, Event::Opened) => {
                self.answered_any = false;
                self.attempts_ended += 1;
                self.enter(State::Up { since: now.mono }, None, now);
                None
            }
            (State::Up { .. }, Event::Due) => self.beat(now),
            (State::Up { .. }, Event::Left) => {
                // No failure of anybody's: dialled at once.
                self.protocol = None;
                self.leave(now);
                Some(Action::HangUp)
            }
            (State::Connecting { .. } | State::Opening { .. } | State::Up { .. }, Event::Lost(why)) => {
                self.fail(&why, now)
            }
            (
                State::Down { .. } | State::Connecting { .. } | State::Opening { .. } | State::Up { .. },
                Event::Stop,
            ) => {
                self.protocol = None;
                self.enter(State::Shut, None, now);
                Some(Action::HangUp)
            }
            // What was under way when the state changed comes too late and means nothing any more.
            (
                State::Down { .. },
                Event::Reached | Event::Connected | Event::Opened | Event::Lost(_) | Event::Left,
            )
            | (State::Connecting { .. }, Event::DialNow | Event::Opened | Event::Left)
            | (State::Opening { .. }, Event::DialNow | Event::Reached | Event::Connected | Event::Left)
            | (State::Up { .. }, Event::DialNow | Event::Reached | Event::Connected | Event::Opened) => None,
            (
                State::Shut,
                Event::Due
                | Event::DialNow
                | Event::Reached
                | Event::Connected
                | Event::Opened
                | Event::Lost(_)
                | Event::Left
                | Event::Stop,
            ) => None,
        }
    }

    /// Dials, at `due` or before it, as somebody wants: who wants that has reason to hope, and what
    /// failed before is forgotten.
    fn dial(&mut self, due: Instant, now: Now) -> Option<Action> {
        if due > now.mono {
            self.failures = 0;
        }
        self.dialled = Some(now.mono);
        let until = now.mono + self.connect_timeout;
        self.enter(State::Connecting { until, reached: false }, None, now);
        Some(Action::Dial)
    }

    /// A new connection, a new conversation.
    fn begin(&mut self, now: Now) {
        self.out.clear();
        self.heart.heard(now.mono);
        self.probe = None;
        let Terms { caller, called, max_line, .. } = &self.terms;
        self.protocol = Some(match self.wire {
            WireKind::Classic => {
                Protocol::Classic(Classic::begin(called, caller, *max_line as usize, &mut self.out))
            }
            WireKind::Secure => Protocol::Secure(Secure::begin(&self.terms, &mut self.out)),
        });
    }

    /// The peer has been silent: asks whether it is there, or gives it up.
    fn beat(&mut self, now: Now) -> Option<Action> {
        if self.probe.is_some_and(|until| until <= now.mono) {
            let why = format!("no answer to a heartbeat within {PROBE_TIMEOUT:?}");
            return self.fail(&why, now);
        }
        self.beat_at()?;
        match self.heart.beat(now.mono) {
            Beat::None => None,
            Beat::Dead => {
                let silence = now.mono.duration_since(self.heart.last_heard());
                self.fail(&format!("nothing heard for {silence:?}"), now)
            }
            Beat::Ping => {
                let asked = self.protocol.as_mut().is_some_and(|protocol| protocol.ping(&mut self.out));
                debug_assert!(asked, "only the secure wire has heartbeats");
                None
            }
        }
    }

    /// When the next heartbeat is due.
    fn beat_at(&self) -> Option<Instant> {
        let secure = self.wire == WireKind::Secure && matches!(self.state, State::Up { .. });
        secure.then(|| self.heart.deadline())
    }

    /// Has the peer asked whether it is there, to be answered soon. `false` where only a request
    /// can ask that.
    pub fn probe(&mut self, now: Now) -> bool {
        let asked = self.protocol.as_mut().is_some_and(|protocol| protocol.ping(&mut self.out));
        if asked && self.probe.is_none() {
            self.probe = Some(now.mono + PROBE_TIMEOUT);
        }
        asked
    }

    /// Notes that the peer has answered a heartbeat.
    pub fn ponged(&mut self) {
        self.probe = None;
    }

    /// Takes bytes that came.
    pub fn receive(&mut self, bytes: &[u8], now: Now) {
        self.heart.heard(now.mono);
        if let Some(protocol) = &mut self.protocol {
            protocol.receive(bytes);
        }
    }

    /// Bytes that had to wait were written. Behind many of them a heartbeat waits too, and so does
    /// its answer, though the link does what it can: not until nothing goes either way is it given
    /// up.
    pub fn moved(&mut self, now: Now) {
        self.heart.heard(now.mono);
        if let Some(until) = &mut self.probe {
            *until = now.mono + PROBE_TIMEOUT;
        }
    }

    /// Tells what the peer has said: see [`Protocol::hear`].
    ///
    /// # Errors
    /// The connection is of no more use.
    pub fn hear(&mut self, tell: impl FnMut(Heard<'_>) -> ControlFlow<()>) -> Result<(), String> {
        match &mut self.protocol {
            Some(protocol) => protocol.hear(&mut self.out, tell),
            None => Ok(()),
        }
    }

    /// Notes that the opening has come a step further: each has its own deadline.
    pub fn progressed(&mut self, now: Now) {
        if let State::Opening { until } = &mut self.state {
            *until = now.mono + self.opening_timeout;
        }
    }

    /// Sends a request on a link that is up.
    pub fn send(&mut self, message: Message<'_>) {
        if let Some(protocol) = &mut self.protocol {
            protocol.send(message, &mut self.out);
        }
    }

    /// Whether the peer takes a request of this many bytes.
    ///
    /// # Errors
    /// It does not: what to tell the program.
    pub fn takes(&self, length: usize) -> Result<(), String> {
        self.protocol.as_ref().map_or(Ok(()), |protocol| protocol.takes(length))
    }

    /// Tells the peer that nobody waits for this answer any more.
    pub fn cancel(&mut self, number: u64) {
        if let Some(protocol) = &mut self.protocol {
            protocol.cancel(number, &mut self.out);
        }
    }

    /// Carries on with what waits to be sent, as `out` empties.
    pub fn carry_on(&mut self) {
        if let Some(protocol) = &mut self.protocol {
            protocol.carry_on(&mut self.out);
        }
    }

    /// Whether repeats of a critical message are recognised by the peer.
    pub fn knows_repeats(&self) -> bool {
        self.protocol.as_ref().is_some_and(Protocol::knows_repeats)
    }

    /// The one way down but [`Event::Left`] and [`Event::Stop`].
    fn fail(&mut self, why: &str, now: Now) -> Option<Action> {
        self.protocol = None;
        if let State::Up { since } = self.state
            && (self.answered_any || now.mono.duration_since(since) >= GOOD_AFTER)
        {
            self.failures = 0;
        }
        let whole = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        let pause = whole.mul_f64(0.5 + self.random.f64() / 2.0);
        self.failures += 1;
        self.attempts_ended += 1;
        self.enter(State::Down { until: now.mono + pause }, Some(why), now);
        Some(Action::HangUp)
    }

    /// Logs a line about this link. A peer can bring it up and down as often as it likes: what that
    /// makes is bounded.
    pub fn say(&mut self, level: log::Level, line: &str, now: Now) {
        let line = match level {
            log::Level::Error | log::Level::Warn | log::Level::Info => self.quota.line(line, now.mono),
            log::Level::Debug | log::Level::Trace => Some(line.to_owned()),
        };
        if let Some(line) = line {
            log::log!(level, "{line}");
        }
    }

    /// The peer has left a link that was up.
    fn leave(&mut self, now: Now) {
        let lasted = match self.state {
            State::Up { since } => now.mono.duration_since(since),
            State::Down { .. } | State::Connecting { .. } | State::Opening { .. } | State::Shut => {
                Duration::ZERO
            }
        };
        if self.answered_any || lasted >= GOOD_AFTER {
            self.failures = 0;
        }
        self.quick_leaves = if lasted < GOOD_AFTER { self.quick_leaves + 1 } else { 0 };
        if let Some(beyond) = self.quick_leaves.checked_sub(MOST_QUICK_LEAVES) {
            let why = "the peer leaves each link as soon as it is up: does another host have our key?";
            let pause = FIRST_PAUSE.saturating_mul(1 << beyond.min(16)).min(LONGEST_PAUSE);
            return self.enter(State::Down { until: now.mono + pause }, Some(why), now);
        }
        let soonest = match self.dialled {
            Some(dialled) if self.quick_leaves > LEAVES_AT_ONCE => (dialled + BETWEEN_DIALS).max(now.mono),
            Some(_) | None => now.mono,
        };
        self.enter(State::Down { until: soonest }, None, now);
    }

    /// The one place where the state changes; logs it.
    fn enter(&mut self, state: State, why: Option<&str>, now: Now) {
        let (before, was_up) = (self.state(), self.is_up());
        let repeated =
            why.is_some() && why == self.last_error.as_ref().map(|(text, _)| &**text) && self.failures > 1;
        self.state = state;
        if was_up != self.is_up() {
            self.since = now;
        }
        self.changed = true;
        if let Some(why) = why {
            self.last_error = Some((why.to_owned(), now));
        }
        let (before, after) = (before.as_str(), self.doing(now));
        let level = match (&self.state, why) {
            // The same failure again every minute is no news.
            (_, Some(_)) if repeated => log::Level::Debug,
            (_, Some(_)) => log::Level::Warn,
            (State::Up { .. } | State::Shut, None) => log::Level::Info,
            (State::Down { .. } | State::Connecting { .. } | State::Opening { .. }, None) => {
                log::Level::Debug
            }
        };
        let line = match why {
            Some(why) => format!("{before} -> {after} ({why})"),
            None => format!("{before} -> {after}"),
        };
        self.say(level, &line, now);
    }

    /// Notes that a request was answered.
    pub fn answered(&mut self) {
        self.answered_any = true;
    }

    /// Whether requests are answered.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// Whether so much waits to be sent that no more is to be added.
    pub fn clogged(&self) -> bool {
        self.out.len() >= OUT_HIGH_WATER || !self.protocol.as_ref().is_none_or(Protocol::has_room)
    }

    /// The last sign of life.
    pub fn last_heard(&self) -> Instant {
        self.heart.last_heard()
    }
}
