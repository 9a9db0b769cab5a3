//! Whether the caller is still there: what counts as a sign of it, and what is done when none
//! comes.

use super::{Reason, Recorder, Secure, State};
use std::time::Instant;
use wire::flow::Beat;

impl<R: Recorder> Secure<R> {
    /// A byte came over the link, whatever it meant.
    pub fn heard(&mut self, now: Instant) {
        self.heartbeat.heard(now);
    }

    /// Bytes that had to wait went on their way to the caller: it takes what it is sent, be it
    /// slowly. A PING waits behind them, and its PONG too.
    pub fn moved(&mut self, now: Instant) {
        self.heartbeat.heard(now);
    }

    /// Tries the caller if it was silent for long. To be called when all that came was read. One
    /// that has said that it says no more is left to the kernel's own timeouts.
    pub fn beat(&mut self, now: Instant) {
        match &self.state {
            State::Open | State::Draining(_) if self.input_ended => {}
            State::Open | State::Draining(_) => match self.heartbeat.beat(now) {
                Beat::None => {}
                Beat::Ping => {
                    self.pings += 1;
                    self.control.ping(self.pings);
                }
                Beat::Dead => self.break_off(Reason::Silent(self.heartbeat.patience())),
            },
            State::Hello | State::Leaving(_) | State::Lingering(_) | State::Settling(_) | State::Ended(_) => {
            }
        }
    }
}
