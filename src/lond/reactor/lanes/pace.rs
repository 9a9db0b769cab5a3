//! How quickly a handler answers, and so how many plain requests it may have on one connection.
//!
//! Pure. One to begin with: a request waits behind no other. A handler that has answered
//! [`IN_A_ROW`] of them within [`QUICK`] each gets twice as many, up to [`AHEAD_MOST`]. An answer
//! that takes longer halves that; one that takes longer than [`SLOW`], or has not come by then,
//! makes it one, for [`PAUSE`] at least. What was seen longer ago than that counts for nothing.
//!
//! Requests that come together, more than there are connections, go in *groups*, so that a few
//! connections have them and not all, with a write and a read each. Groups are as large as the
//! handler answers within [`QUICK`] as a whole: they are doubled and halved likewise.
//!
//! A program that closes its connections itself has at some time closed one with requests on it
//! that it will not answer. So it never gets more than one, until another process listens in its
//! place.

use std::time::{Duration, Instant};

/// Most requests that one connection has at once.
pub(super) const AHEAD_MOST: usize = 16;

/// An answer is quick that comes this soon after its request was passed on, or after the answer
/// before it on the same connection.
const QUICK: Duration = Duration::from_millis(2);

/// An answer that takes longer is that of a handler which may take any time over the next. (Where
/// there are fewer processors than processes, a quick one is often kept waiting for some
/// milliseconds.)
pub(super) const SLOW: Duration = Duration::from_millis(20);

/// For how long a slow answer is remembered, and for how long quick ones are.
const PAUSE: Duration = Duration::from_secs(1);

/// Quick answers after which there may be twice as many.
const IN_A_ROW: usize = 32;

/// See the module.
#[derive(Debug)]
pub(super) struct Pace {
    depth: usize,
    /// Quick answers since the depth changed last.
    quick: usize,
    group: usize,
    /// Answers in whole groups since their size changed last.
    whole: usize,
    /// When an answer came last.
    heard: Instant,
    /// One until then.
    slow_until: Instant,
    /// The program closes its connections itself.
    closes: bool,
    /// The process that listens.
    process: Option<u32>,
}

impl Pace {
    /// Nothing is known.
    pub(super) fn new(now: Instant) -> Pace {
        Pace {
            depth: 1,
            quick: 0,
            group: 1,
            whole: 0,
            heard: now,
            slow_until: now,
            closes: false,
            process: None,
        }
    }

    /// How many requests a connection may have.
    pub(super) fn depth(&self, now: Instant) -> usize {
        if now.saturating_duration_since(self.heard) > PAUSE { 1 } else { self.depth }
    }

    /// So many answers came at once, the first of them after this time.
    pub(super) fn answered(&mut self, count: usize, after: Duration, now: Instant) {
        if count == 0 {
            return;
        }
        (self.depth, self.heard) = (self.depth(now), now);
        if after > SLOW {
            self.slow(now);
        } else if after > QUICK {
            (self.depth, self.quick) = (self.depth.div_ceil(2), 0);
        } else if !self.closes && self.slow_until <= now && self.depth < AHEAD_MOST {
            self.quick += count;
            if self.quick >= IN_A_ROW {
                (self.depth, self.quick) = (2 * self.depth, 0);
            }
        }
    }

    /// How many requests a connection is given at once that has none.
    pub(super) fn group(&self, now: Instant) -> usize {
        self.group.min(self.depth(now))
    }

    /// A connection that had none was given so many, and all were answered after this time.
    pub(super) fn group_done(&mut self, count: usize, after: Duration) {
        if after > QUICK {
            (self.group, self.whole) = (self.group.div_ceil(2), 0);
        } else if count >= self.group && self.group < AHEAD_MOST {
            self.whole += count;
            if self.whole >= IN_A_ROW {
                (self.group, self.whole) = (2 * self.group, 0);
            }
        }
    }

    /// An answer took too long, or has not come for as long.
    pub(super) fn slow(&mut self, now: Instant) {
        (self.depth, self.quick, self.slow_until) = (1, 0, now + PAUSE);
        (self.group, self.whole) = (1, 0);
    }

    /// The program has closed a connection on which it had just answered.
    pub(super) fn closed(&mut self) {
        (self.depth, self.quick, self.closes) = (1, 0, true);
    }

    /// A connection was made, and this process listens.
    pub(super) fn connected(&mut self, process: Option<u32>, now: Instant) {
        if self.process != process {
            *self = Pace { process, ..Pace::new(now) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_micros(10);

    /// A handler that has been quick for long.
    fn quick(now: Instant) -> Pace {
        let mut pace = Pace::new(now);
        for _ in 0..4 {
            pace.answered(IN_A_ROW, MOMENT, now);
        }
        assert_eq!(pace.depth(now), AHEAD_MOST);
        pace
    }

    #[test]
    fn who_answers_quickly_gets_twice_as_many_again_and_again_up_to_the_bound() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let depths: Vec<_> = (0..6 * IN_A_ROW)
            .map(|_| {
                pace.answered(1, QUICK, now);
                pace.depth(now)
            })
            .collect();
        let expected: Vec<_> = (1..=6 * IN_A_ROW).map(|n| (1 << (n / IN_A_ROW).min(4)) as usize).collect();
        assert_eq!(depths, expected);
    }

    #[test]
    fn an_answer_that_takes_longer_halves_it_and_a_slow_one_ends_it_for_a_second() {
        let mut now = Instant::now();
        let mut pace = quick(now);
        let depths = [0; 5].map(|_| {
            pace.answered(1, QUICK + MOMENT, now);
            pace.depth(now)
        });
        assert_eq!(depths, [8, 4, 2, 1, 1]);
        let mut pace = quick(now);
        pace.answered(1, SLOW + MOMENT, now);
        pace.answered(9 * IN_A_ROW, MOMENT, now + PAUSE - MOMENT);
        assert_eq!(pace.depth(now + PAUSE - MOMENT), 1, "a second has not passed");
        now += PAUSE;
        pace.answered(IN_A_ROW, MOMENT, now);
        assert_eq!(pace.depth(now), 2);
        pace.slow(now);
        assert_eq!(pace.depth(now), 1, "one that has not come is as good as a slow one");
    }

    #[test]
    fn groups_are_as_large_as_is_answered_within_two_milliseconds() {
        let now = Instant::now();
        let mut pace = quick(now);
        let sizes = [(); 6].map(|_| {
            pace.group_done(IN_A_ROW, QUICK);
            pace.group(now)
        });
        assert_eq!(sizes, [2, 4, 8, 16, 16, 16]);
        pace.group_done(16, QUICK + MOMENT);
        assert_eq!(pace.group(now), 8);
        for _ in 0..9 * IN_A_ROW {
            pace.group_done(7, MOMENT);
        }
        assert_eq!(pace.group(now), 8, "smaller ones say nothing of larger ones");
        pace.answered(1, QUICK + MOMENT, now);
        pace.answered(1, QUICK + MOMENT, now);
        assert_eq!((pace.depth(now), pace.group(now)), (4, 4), "no more than a connection may have");
        pace.slow(now);
        assert_eq!(pace.group(now), 1);
    }

    #[test]
    fn what_was_quick_long_ago_has_to_show_it_again() {
        let now = Instant::now();
        let mut pace = quick(now);
        let later = now + PAUSE + MOMENT;
        assert_eq!(pace.depth(later), 1);
        pace.answered(1, MOMENT, later);
        assert_eq!(pace.depth(later), 1);
    }

    #[test]
    fn who_closes_its_connections_gets_one_at_a_time_until_another_process_listens() {
        let now = Instant::now();
        let mut pace = quick(now);
        pace.connected(None, now);
        assert_eq!(pace.depth(now), AHEAD_MOST);
        pace.closed();
        for _ in 0..9 {
            pace.answered(IN_A_ROW, MOMENT, now + PAUSE);
            pace.connected(None, now);
        }
        assert_eq!(pace.depth(now), 1);
        pace.connected(Some(1), now);
        pace.answered(IN_A_ROW, MOMENT, now);
        assert_eq!(pace.depth(now), 2);
    }
}
