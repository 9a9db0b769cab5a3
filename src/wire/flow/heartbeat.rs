//! Finds out that the other side is gone though no socket says so.
//!
//! When nothing was heard for a pause, a PING is due, and another after each further pause; after a
//! number of pauses in which none brought a byte back, the link is dead. Pure: who holds the link
//! passes the time and every sign of life.

use std::time::{Duration, Instant};

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Nothing is due.
    None,
    /// The other side is to be asked for a sign.
    Ping,
    /// The link is dead.
    Dead,
}

/// One side's watch over the other.
#[derive(Debug)]
pub struct Heartbeat {
    pause: Duration,
    /// PINGs in a row that may stay unheard.
    missed: u32,
    heard: Instant,
    /// PINGs since then; at most `missed`.
    pings: u32,
}

impl Heartbeat {
    /// A watch that begins now.
    pub fn new(pause: Duration, missed: u32, now: Instant) -> Heartbeat {
        Heartbeat { pause, missed, heard: now, pings: 0 }
    }

    /// A sign of life: bytes came, or bytes that had to wait went on their way.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.pings = 0;
    }

    /// When the last sign of life was.
    pub fn last_heard(&self) -> Instant {
        self.heard
    }

    /// When [`Heartbeat::beat`] has something to say.
    pub fn deadline(&self) -> Instant {
        self.heard + self.pause * (self.pings + 1)
    }

    /// What is due now. A PING is due once.
    pub fn beat(&mut self, now: Instant) -> Beat {
        if now < self.deadline() {
            Beat::None
        } else if self.pings == self.missed {
            Beat::Dead
        } else {
            self.pings += 1;
            Beat::Ping
        }
    }

    /// How long a silence ends the link.
    pub fn patience(&self) -> Duration {
        self.pause * (self.missed + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(15);

    #[test]
    fn a_silent_link_is_dead_after_the_pause_and_the_missed_ones() {
        let begun = Instant::now();
        let mut watch = Heartbeat::new(PAUSE, 3, begun);
        for number in 1..=3 {
            assert_eq!(watch.deadline(), begun + number * PAUSE);
            assert_eq!(watch.beat(begun + number * PAUSE - Duration::from_nanos(1)), Beat::None);
            assert_eq!(watch.beat(begun + number * PAUSE), Beat::Ping);
            assert_eq!(watch.beat(begun + number * PAUSE), Beat::None, "once");
        }
        assert_eq!(watch.beat(begun + watch.patience()), Beat::Dead);
        assert_eq!(watch.patience(), Duration::from_secs(60));
    }

    #[test]
    fn any_byte_begins_the_count_anew() {
        let begun = Instant::now();
        let mut watch = Heartbeat::new(PAUSE, 1, begun);
        assert_eq!(watch.beat(begun + PAUSE), Beat::Ping);
        watch.heard(begun + PAUSE + Duration::from_secs(1));
        assert_eq!(watch.beat(begun + 2 * PAUSE), Beat::None);
        assert_eq!(watch.beat(begun + 2 * PAUSE + Duration::from_secs(1)), Beat::Ping);
        assert_eq!(watch.beat(begun + 3 * PAUSE + Duration::from_secs(1)), Beat::Dead);
    }
}
