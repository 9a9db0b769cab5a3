//! Whether the caller is still there: what counts as a sign of it, and what is done when none
//! comes.

use super::course::State;
use super::{Reason, Recorder, Secure};
use std::time::{Duration, Instant};
use wire::flow::{Beat, Heartbeat};

/// The signs of the caller, and how often it was asked for one.
#[derive(Debug)]
pub(super) struct Pulse {
    heartbeat: Heartbeat,
    /// PINGs of ours so far. Each carries its number.
    pings: u64,
}

impl Pulse {
    /// The caller is there now; it is tried after a silence of `pause`, and so often before it is
    /// given up.
    pub(super) fn new(pause: Duration, missed: u32, now: Instant) -> Pulse {
        Pulse { heartbeat: Heartbeat::new(pause, missed, now), pings: 0 }
    }

    /// When the caller is to be tried, or given up.
    pub(super) fn deadline(&self) -> Instant {
        self.heartbeat.deadline()
    }

    /// The number of the next PING.
    fn next_ping(&mut self) -> u64 {
        self.pings += 1;
        self.pings
    }
}

impl<R: Recorder> Secure<R> {
    /// A byte came over the link, whatever it meant.
    pub fn heard(&mut self, now: Instant) {
        self.pulse.heartbeat.heard(now);
    }

    /// Bytes that had to wait went on their way to the caller: it takes what it is sent, be it
    /// slowly. A PING waits behind them, and its PONG too.
    pub fn moved(&mut self, now: Instant) {
        self.pulse.heartbeat.heard(now);
    }

    /// Tries the caller if it was silent for long. To be called when all that came was read. One
    /// that has said that it says no more is left to the kernel's own timeouts.
    pub fn beat(&mut self, now: Instant) {
        match self.course.state() {
            State::Open | State::Draining(_) if self.input.has_ended() => {}
            State::Open | State::Draining(_) => match self.pulse.heartbeat.beat(now) {
                Beat::None => {}
                Beat::Ping => self.output.ping(self.pulse.next_ping()),
                Beat::Dead => self.break_off(Reason::Silent(self.pulse.heartbeat.patience())),
            },
            State::Hello | State::Leaving(_) | State::Lingering(_) | State::Settling(_) | State::Ended(_) => {
            }
        }
    }
}
