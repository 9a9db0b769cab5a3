//! Handlers that are away at the peer, and what becomes of their messages.
//!
//! The peer answers NOT_TAKEN to a critical message that its handler could not be given. The
//! message stays in the spool, in its place, and is tried again: when the peer says that the
//! handler is back, when a new link is up, and in pauses that grow from [`RETRY_FIRST`] to
//! [`RETRY_MOST`]. For [`HOLD_AFTER`] everything behind it waits, so that the order of all messages
//! is kept. After that the messages of its command are *held*: those of other commands go past
//! them, and only the first of them is tried. When that is taken, the others are sent in their
//! order. So the order is kept for each command, whatever happens, and for all of them as long as
//! no handler is away for longer than that.
//!
//! ```text
//!            NOT_TAKEN                   HOLD_AFTER                    the first is answered
//!   (none) ------------> everything waits ------------> its own are held ---------------------> (none)
//!                          |  the first is answered                                                ^
//!                          +-----------------------------------------------------------------------+
//! ```
//!
//! Bounded: [`MAX_HELD`] commands; one more makes everything wait. How many messages may be held,
//! the spool says.

use crate::link::Now;
use crate::protocol::HeldCommands;
use base::Sequence;
use status::AwayStatus;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use wire::secure::MAX_HELD;

/// How long all messages wait for one whose handler is away.
pub(super) const HOLD_AFTER: Duration = Duration::from_secs(5);
/// Pause before the first of a handler's messages is tried again; it doubles ...
pub(super) const RETRY_FIRST: Duration = Duration::from_secs(1);
/// ... up to this.
pub(super) const RETRY_MOST: Duration = Duration::from_secs(30);
/// A handler that is away again so soon after it had come back has been away all the time, for
/// those that wait for it.
pub(super) const RELAPSE: Duration = Duration::from_secs(60);

/// A handler that did not take a message.
#[derive(Debug)]
struct Absent {
    /// When it was found away.
    since: Now,
    /// What the peer said.
    why: String,
    /// The first message is tried then.
    next: Instant,
    /// The pause after that.
    pause: Duration,
    /// The message that is being tried.
    trial: Option<Sequence>,
    /// Others go past its messages.
    passed: bool,
    /// When it took a message, after it was away: it is not away now, but perhaps again at once.
    back: Option<Instant>,
}

/// What is to become of the next stored message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It is sent.
    Send,
    /// It is to wait, and all behind it.
    Wait,
    /// It is held, and those behind it go past it.
    Pass,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Away {
    absent: BTreeMap<Box<str>, Absent>,
    held: HeldCommands,
}

impl Away {
    /// The handler did not take this message. `false`: more handlers are away than can be kept
    /// apart, so that everything must wait.
    pub(super) fn refused(
        &mut self,
        command: &str,
        sequence: Option<Sequence>,
        why: String,
        now: Now,
    ) -> bool {
        if !self.absent.contains_key(command) {
            self.absent.retain(|_, absent| absent.back.is_none_or(|at| at + RELAPSE > now.mono));
            if self.absent.len() >= MAX_HELD {
                return false;
            }
        }
        let absent = self.absent.entry(command.into()).or_insert_with(|| Absent {
            since: now,
            why: String::new(),
            next: now.mono,
            pause: RETRY_FIRST,
            trial: None,
            passed: false,
            back: None,
        });
        absent.why = why;
        let relapse = absent.back.take();
        if relapse.is_some_and(|at| at + RELAPSE <= now.mono) {
            (absent.since, absent.pause) = (now, RETRY_FIRST);
        }
        // Those that were sent behind it come back with it, or while it is tried again: that is no
        // further try.
        let tried = absent.trial.is_some() && absent.trial == sequence;
        let due = absent.trial.is_none() && absent.next <= now.mono;
        if tried || relapse.is_some() || due {
            absent.trial = None;
            absent.next = now.mono + absent.pause;
            absent.pause = (2 * absent.pause).min(RETRY_MOST);
        }
        true
    }

    /// The peer says that the handler is back: its first message is tried now.
    pub(super) fn back(&mut self, command: &str, now: Now) {
        if let Some(absent) = self.absent.get_mut(command) {
            (absent.next, absent.pause) = (now.mono, RETRY_FIRST);
        }
    }

    /// There is a new link: all are tried.
    pub(super) fn link_up(&mut self, now: Now) {
        for absent in self.absent.values_mut() {
            (absent.next, absent.pause, absent.trial) = (now.mono, RETRY_FIRST, None);
        }
    }

    /// This message was answered. Whether that says of a handler that it is back: then what is held
    /// of this command is to be released.
    pub(super) fn answered(&mut self, command: &str, sequence: Sequence, now: Now) -> bool {
        let Some(absent) = self.absent.get_mut(command).filter(|absent| absent.trial == Some(sequence))
        else {
            return false;
        };
        absent.trial = None;
        self.come_back(command, now);
        true
    }

    /// Nothing of this command is held any more, or waits for a try.
    pub(super) fn come_back(&mut self, command: &str, now: Now) {
        if let Some(absent) = self.absent.get_mut(command) {
            absent.back = Some(now.mono);
            absent.passed = false;
        }
        self.update();
    }

    /// The first message of a handler that is away is being tried.
    pub(super) fn tries(&mut self, command: &str, sequence: Sequence) {
        if let Some(absent) = self.absent.get_mut(command) {
            absent.trial = Some(sequence);
        }
    }

    /// Reading the first message failed: it is tried again then.
    pub(super) fn put_off(&mut self, command: &str, until: Instant) {
        if let Some(absent) = self.absent.get_mut(command) {
            absent.next = until;
        }
    }

    /// What is to become of the next stored message of this command.
    pub(super) fn way(&mut self, command: &str, sequence: Sequence, now: Now) -> Way {
        let waits = |absent: &Absent| {
            absent.trial.is_some() && !absent.passed && absent.since.mono + HOLD_AFTER > now.mono
        };
        // Until it is known whether a message that is being tried is taken, those behind it wait.
        let stalled = self.absent.values().any(waits);
        let Some(absent) = self.absent.get_mut(command).filter(|absent| absent.back.is_none()) else {
            return if stalled { Way::Wait } else { Way::Send };
        };
        if absent.passed || absent.since.mono + HOLD_AFTER <= now.mono {
            absent.passed = true;
            self.update();
            return Way::Pass;
        }
        if !stalled && absent.next <= now.mono {
            absent.trial = Some(sequence);
            return Way::Send;
        }
        Way::Wait
    }

    /// Whether a new message of this command must be stored behind those that wait.
    pub(super) fn blocks(&self, command: &str) -> bool {
        self.absent.get(command).is_some_and(|absent| absent.back.is_none())
    }

    /// The commands whose first message that is held is to be tried now.
    pub(super) fn due(&self, now: Now) -> Vec<Box<str>> {
        let due = |absent: &Absent| absent.passed && absent.trial.is_none() && absent.next <= now.mono;
        self.absent.iter().filter(|(_, absent)| due(absent)).map(|(command, _)| command.clone()).collect()
    }

    /// When [`Away::way`] or [`Away::due`] will say something else.
    pub(super) fn deadline(&self, now: Now) -> Option<Instant> {
        let away = self.absent.values().filter(|absent| absent.back.is_none());
        let times = away.flat_map(|absent| {
            let next = absent.trial.is_none().then_some(absent.next);
            let hold = (!absent.passed).then_some(absent.since.mono + HOLD_AFTER);
            [next, hold]
        });
        // What is past already waits for something else: a link that has room, or a message.
        times.flatten().filter(|at| *at > now.mono).min()
    }

    /// The commands whose messages others go past.
    pub(super) fn held(&self) -> &HeldCommands {
        &self.held
    }

    /// What there is to tell; `waiting` says how many messages of a command are held.
    pub(super) fn status(&self, now: Now, waiting: impl Fn(&str) -> u64) -> Vec<AwayStatus> {
        let away = self.absent.iter().filter(|(_, absent)| absent.back.is_none());
        away.map(|(command, absent)| AwayStatus {
            handler: command.to_string(),
            since: absent.since.told(now),
            why: absent.why.clone(),
            held: absent.passed.then(|| waiting(command)),
        })
        .collect()
    }

    fn update(&mut self) {
        let passed = || self.absent.iter().filter(|(_, absent)| absent.passed).map(|(command, _)| command);
        if !self.held.iter().eq(passed()) {
            self.held = HeldCommands::new(passed().cloned().collect());
        }
    }
}
