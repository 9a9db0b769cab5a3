//! The link to the peer: where it stands, when the next dial is, the bytes in and out.
//!
//! Owns the state machine and its one deadline. Every change goes through [`Link::enter`], which also logs it. It never
//! gives up: after each failure the next dial is due, first after half a second, then doubling to a minute, each time
//! somewhere between half of that and the whole, so that a thousand hosts don't dial a returning one at once.

use crate::config::{HostId, Peer, Wire};
use crate::status::LinkState;
use crate::wire::classic::{Cipher, Opening, Progress};
use crate::wire::line::{LineReader, Outgoing};
use jiff::Timestamp;
use std::time::{Duration, Instant};

/// First pause before a redial.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause before a redial.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A link that was up this long, or answered a request, was a good one: the pauses begin anew.
const GOOD_AFTER: Duration = Duration::from_secs(5);
/// Bytes that wait to be written to the peer; at this mark no more requests are taken.
const OUT_HIGH_WATER: usize = 1 << 20;

/// The time, read once a turn by the reactor.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For timers.
    pub mono: Instant,
    /// For people.
    pub wall: Timestamp,
}

#[derive(Debug)]
enum State {
    Down {
        until: Instant,
    },
    Connecting {
        until: Instant,
    },
    Opening {
        opening: Opening,
        until: Instant,
    },
    Up {
        cipher: Cipher,
        since: Instant,
    },
    /// No dial will be made: the child ends, or this version cannot speak the configured wire.
    Shut,
}

/// What happens to a link.
#[derive(Debug)]
pub enum Event {
    /// The deadline passed.
    Due,
    /// Somebody wants the link up now.
    DialNow,
    /// The TCP connection is made.
    Connected,
    /// The opening dialogue ended well.
    Opened(Cipher),
    /// The connection failed or is no longer of use, and why.
    Lost(String),
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
    /// What came from the peer.
    pub reader: LineReader,
    /// What is for the peer.
    pub out: Outgoing,
    /// When bytes last came.
    pub last_heard: Instant,
    caller: HostId,
    called: HostId,
    connect_timeout: Duration,
    opening_timeout: Duration,
    failures: u32,
    answered_any: bool,
    random: fastrand::Rng,
    since: Timestamp,
    last_error: Option<(String, Timestamp)>,
    attempts_ended: u64,
    changed: bool,
}

impl Link {
    /// A link that dials at the first [`Event::Due`], or never if this version cannot speak the peer's wire.
    pub fn new(peer: &Peer, caller: &HostId, seed: u64, now: Now) -> Link {
        let mut link = Link {
            state: State::Down { until: now.mono },
            // An enciphered answer takes two hex digits a byte.
            reader: LineReader::new(2 * peer.max_line + 64),
            out: Outgoing::default(),
            last_heard: now.mono,
            caller: caller.clone(),
            called: peer.host.id.clone(),
            connect_timeout: peer.connect_timeout,
            opening_timeout: peer.opening_timeout,
            failures: 0,
            answered_any: false,
            random: fastrand::Rng::with_seed(seed),
            since: now.wall,
            last_error: None,
            attempts_ended: 0,
            changed: true,
        };
        match peer.wire {
            Wire::Classic => {}
            Wire::Secure => {
                let why = "wire \"secure\" is not in this version: set wire = \"classic\" for this host";
                link.attempts_ended = 1;
                link.enter(State::Shut, Some(why), now);
            }
        }
        link
    }

    /// What happens next in each state. No arm stands for "the rest": a new event has to be thought about here.
    pub fn on(&mut self, event: Event, now: Now) -> Option<Action> {
        match (&self.state, event) {
            (State::Down { .. }, Event::Due | Event::DialNow) => {
                if matches!(self.state, State::Down { until } if until > now.mono) {
                    self.failures = 0;
                }
                self.enter(State::Connecting { until: now.mono + self.connect_timeout }, None, now);
                Some(Action::Dial)
            }
            (State::Connecting { .. }, Event::Due) => {
                let why = format!("no connection within {:?}", self.connect_timeout);
                self.fail(&why, now)
            }
            (State::Connecting { .. }, Event::Connected) => {
                self.reader.reset();
                self.out.clear();
                self.last_heard = now.mono;
                let opening = Opening::begin(self.called.clone(), self.caller.clone(), &mut self.out);
                self.enter(State::Opening { opening, until: now.mono + self.opening_timeout }, None, now);
                None
            }
            (State::Opening { opening, .. }, Event::Due) => {
                let why = format!("no answer to {} within {:?}", opening.step(), self.opening_timeout);
                self.fail(&why, now)
            }
            (State::Opening { .. }, Event::Opened(cipher)) => {
                self.answered_any = false;
                self.attempts_ended += 1;
                self.enter(State::Up { cipher, since: now.mono }, None, now);
                None
            }
            (State::Up { since, .. }, Event::Lost(why)) => {
                if self.answered_any || now.mono.duration_since(*since) >= GOOD_AFTER {
                    self.failures = 0;
                }
                self.fail(&why, now)
            }
            (State::Connecting { .. } | State::Opening { .. }, Event::Lost(why)) => self.fail(&why, now),
            (
                State::Down { .. } | State::Connecting { .. } | State::Opening { .. } | State::Up { .. },
                Event::Stop,
            ) => {
                self.enter(State::Shut, None, now);
                Some(Action::HangUp)
            }
            // What was under way when the state changed comes too late and means nothing any more.
            (State::Down { .. }, Event::Connected | Event::Opened(_) | Event::Lost(_))
            | (State::Connecting { .. }, Event::DialNow | Event::Opened(_))
            | (State::Opening { .. }, Event::DialNow | Event::Connected)
            | (State::Up { .. }, Event::Due | Event::DialNow | Event::Connected | Event::Opened(_)) => None,
            (
                State::Shut,
                Event::Due
                | Event::DialNow
                | Event::Connected
                | Event::Opened(_)
                | Event::Lost(_)
                | Event::Stop,
            ) => None,
        }
    }

    /// Goes on with the opening dialogue as far as whole lines have come. Answers that come after the last one stay
    /// in `reader`.
    pub fn go_on_opening(&mut self, now: Now) -> Option<Action> {
        loop {
            let State::Opening { opening, until } = &mut self.state else { return None };
            let progress = match self.reader.next_line()? {
                crate::wire::line::Line::Whole(line) => opening.answer(line, &mut self.out),
                crate::wire::line::Line::TooLong => {
                    let why = format!("an endless line in answer to {}", opening.step());
                    return self.on(Event::Lost(why), now);
                }
            };
            match progress {
                Ok(Progress::Next { warning }) => {
                    *until = now.mono + self.opening_timeout;
                    if let Some(warning) = warning {
                        log::warn!("opening: {warning}; going on");
                    }
                }
                Ok(Progress::Done(cipher)) => return self.on(Event::Opened(cipher), now),
                Err(error) => return self.on(Event::Lost(error.to_string()), now),
            }
        }
    }

    fn fail(&mut self, why: &str, now: Now) -> Option<Action> {
        let whole = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        let pause = whole.mul_f64(0.5 + self.random.f64() / 2.0);
        self.failures += 1;
        self.attempts_ended += 1;
        self.enter(State::Down { until: now.mono + pause }, Some(why), now);
        Some(Action::HangUp)
    }

    /// The one place where the state changes; logs it.
    fn enter(&mut self, state: State, why: Option<&str>, now: Now) {
        let (before, was_up) = (self.state(), self.is_up());
        let repeated =
            why.is_some() && why == self.last_error.as_ref().map(|(text, _)| &**text) && self.failures > 1;
        self.state = state;
        if was_up != self.is_up() {
            self.since = now.wall;
        }
        self.changed = true;
        if let Some(why) = why {
            self.last_error = Some((why.to_owned(), now.wall));
        }
        let (before, after) = (before.as_str(), self.doing(now));
        match (&self.state, why) {
            // The same failure again every minute is no news.
            (_, Some(why)) if repeated => log::debug!("{before} -> {after} ({why})"),
            (_, Some(why)) => log::warn!("{before} -> {after} ({why})"),
            (State::Up { .. } | State::Shut, None) => log::info!("{before} -> {after}"),
            (State::Down { .. } | State::Connecting { .. } | State::Opening { .. }, None) => {
                log::debug!("{before} -> {after}");
            }
        }
    }

    /// Notes that a request was answered.
    pub fn answered(&mut self) {
        self.answered_any = true;
    }

    /// The cipher of a link that is up.
    pub fn cipher(&self) -> Option<&Cipher> {
        match &self.state {
            State::Up { cipher, .. } => Some(cipher),
            State::Down { .. } | State::Connecting { .. } | State::Opening { .. } | State::Shut => None,
        }
    }

    /// The parts that answering a line needs at once: the line reader, and the cipher of a link that is up.
    pub fn answers(&mut self) -> Option<(&mut LineReader, &Cipher)> {
        match &self.state {
            State::Up { cipher, .. } => Some((&mut self.reader, cipher)),
            State::Down { .. } | State::Connecting { .. } | State::Opening { .. } | State::Shut => None,
        }
    }

    /// The parts that sending a request needs at once.
    pub fn sending(&mut self) -> Option<(&mut Outgoing, &Cipher)> {
        match &self.state {
            State::Up { cipher, .. } => Some((&mut self.out, cipher)),
            State::Down { .. } | State::Connecting { .. } | State::Opening { .. } | State::Shut => None,
        }
    }

    /// Whether requests are answered.
    pub fn is_up(&self) -> bool {
        self.cipher().is_some()
    }

    /// Whether so much waits to be written that no more is to be added.
    pub fn clogged(&self) -> bool {
        self.out.len() >= OUT_HIGH_WATER
    }

    /// How many attempts have come to an end, well or not.
    pub fn attempts_ended(&self) -> u64 {
        self.attempts_ended
    }

    /// When [`Event::Due`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Down { until } | State::Connecting { until } | State::Opening { until, .. } => Some(until),
            State::Up { .. } | State::Shut => None,
        }
    }

    /// The state's name.
    pub fn state(&self) -> LinkState {
        match self.state {
            State::Down { .. } | State::Shut => LinkState::Down,
            State::Connecting { .. } => LinkState::Connecting,
            State::Opening { .. } => LinkState::Opening,
            State::Up { .. } => LinkState::Up,
        }
    }

    /// What it does, in words.
    pub fn doing(&self, now: Now) -> String {
        match &self.state {
            State::Down { until } => {
                let pause = until.saturating_duration_since(now.mono);
                format!("down, next dial in {:.1} s", pause.as_secs_f64())
            }
            State::Connecting { .. } => "connecting".to_owned(),
            State::Opening { opening, .. } => {
                format!("opening: waiting for the answer to {}", opening.step())
            }
            State::Up { .. } => "up".to_owned(),
            State::Shut => "down, not dialling".to_owned(),
        }
    }

    /// Since when the link is up, or is not.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// The last thing that went wrong, and when.
    pub fn last_error(&self) -> Option<&(String, Timestamp)> {
        self.last_error.as_ref()
    }

    /// Whether the state changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }
}
