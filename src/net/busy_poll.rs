//! Busy polling: to look again for a while before one sleeps.
//!
//! To wake a process up that sleeps costs more than it takes a near peer to answer. So who has a
//! processor to spare may look whether something has come, again and again, giving way to whoever
//! else wants to run, for a bounded time before it sleeps.
//!
//! It is done only while it is worth it: while waits of late were shorter than that bound on the
//! average, and little is under way. Of what is much it is better that more comes together,
//! meanwhile. After the first long wait it ends until some were short again: a process that is idle
//! sleeps.

use mio::{Events, Poll};
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// With more requests under way than this a process sleeps at once.
pub(super) const FEW: usize = 4;

/// A wait counts as so many times the bound at most: after a long one some short ones suffice.
const LONGEST: u32 = 8;

/// See the head of this file.
#[derive(Debug)]
pub struct BusyPoll {
    /// How long is looked before each sleep; no time: not at all.
    most: Duration,
    /// How long waits took of late.
    usual: Duration,
}

/// What it is done with: a clock, and the poll.
trait Waits {
    fn now(&self) -> Instant;
    /// Waits so long for events; whether there are some.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool>;
    /// Lets others run.
    fn give_way(&mut self);
}

struct Real<'a> {
    poll: &'a mut Poll,
    events: &'a mut Events,
}

impl Waits for Real<'_> {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        self.poll.poll(self.events, timeout)?;
        Ok(!self.events.is_empty())
    }

    fn give_way(&mut self) {
        thread::yield_now();
    }
}

impl BusyPoll {
    /// Looks for so long before each sleep.
    pub fn new(most: Duration) -> BusyPoll {
        BusyPoll { most, usual: most * LONGEST }
    }

    /// Waits for events, as the poll does, with so many requests under way.
    ///
    /// # Errors
    /// What the poll said.
    pub fn poll(
        &mut self,
        poll: &mut Poll,
        events: &mut Events,
        timeout: Option<Duration>,
        under_way: usize,
    ) -> io::Result<()> {
        self.wait(&mut Real { poll, events }, timeout, under_way)
    }

    fn wait(
        &mut self,
        waits: &mut impl Waits,
        timeout: Option<Duration>,
        under_way: usize,
    ) -> io::Result<()> {
        if self.most.is_zero() || timeout == Some(Duration::ZERO) {
            return waits.wait(timeout).map(drop);
        }
        let begun = waits.now();
        let mut came = false;
        if under_way <= FEW && self.usual < self.most {
            let most = timeout.map_or(self.most, |timeout| timeout.min(self.most));
            loop {
                came = waits.wait(Some(Duration::ZERO))?;
                if came || waits.now().duration_since(begun) >= most {
                    break;
                }
                waits.give_way();
            }
        }
        if !came {
            let waited = waits.now().duration_since(begun);
            waits.wait(timeout.map(|timeout| timeout.saturating_sub(waited)))?;
        }
        let took = waits.now().duration_since(begun).min(self.most * LONGEST);
        self.usual = (self.usual * 3 + took) / 4;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_micros(50);
    const SHORT: Duration = Duration::from_micros(10);

    /// Something comes at a time; a look takes a microsecond.
    struct Fake {
        now: Instant,
        comes: Instant,
        looks: usize,
        sleeps: Vec<Option<Duration>>,
    }

    impl Waits for Fake {
        fn now(&self) -> Instant {
            self.now
        }

        fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
            if timeout == Some(Duration::ZERO) {
                self.looks += 1;
                self.now += Duration::from_micros(1);
            } else {
                self.sleeps.push(timeout);
                let until = timeout.map_or(self.comes, |timeout| self.comes.min(self.now + timeout));
                self.now = self.now.max(until);
            }
            Ok(self.comes <= self.now)
        }

        fn give_way(&mut self) {}
    }

    /// One wait for what comes after this time: how many looks, and what sleeps.
    fn wait(
        poll: &mut BusyPoll,
        after: Duration,
        timeout: Option<Duration>,
        under_way: usize,
    ) -> (usize, Vec<Option<Duration>>) {
        let now = Instant::now();
        let mut fake = Fake { now, comes: now + after, looks: 0, sleeps: Vec::new() };
        poll.wait(&mut fake, timeout, under_way).unwrap();
        (fake.looks, fake.sleeps)
    }

    /// After enough of them that came soon.
    fn warm() -> BusyPoll {
        let mut poll = BusyPoll::new(MOST);
        for _ in 0..20 {
            wait(&mut poll, SHORT, None, 1);
        }
        poll
    }

    #[test]
    fn what_comes_soon_again_and_again_is_looked_for_and_not_slept_for() {
        assert_eq!(wait(&mut BusyPoll::new(MOST), SHORT, None, 1), (0, vec![None]), "the first time");
        assert_eq!(wait(&mut warm(), SHORT, None, 1), (10, vec![]));
    }

    #[test]
    fn it_looks_no_longer_than_it_may_and_after_one_long_wait_not_at_all() {
        let hour = Duration::from_secs(3600);
        let mut poll = warm();
        assert_eq!(wait(&mut poll, hour, None, 0), (50, vec![None]));
        for _ in 0..100 {
            assert_eq!(wait(&mut poll, hour, None, 0), (0, vec![None]), "an idle process looks");
        }
        for _ in 0..20 {
            wait(&mut poll, SHORT, None, 1);
        }
        assert_eq!(wait(&mut poll, SHORT, None, 1), (10, vec![]), "it never looks again");
    }

    #[test]
    fn it_sleeps_at_once_with_much_under_way_and_where_it_is_not_wanted() {
        assert_eq!(wait(&mut warm(), SHORT, None, FEW), (10, vec![]));
        assert_eq!(wait(&mut warm(), SHORT, None, FEW + 1), (0, vec![None]));
        let mut off = BusyPoll::new(Duration::ZERO);
        for _ in 0..20 {
            assert_eq!(wait(&mut off, SHORT, None, 1), (0, vec![None]));
        }
    }

    #[test]
    fn it_is_not_longer_than_what_is_due() {
        let soon = Duration::from_micros(5);
        // The last of them is the wait for what is left of the time, which is none.
        assert_eq!(wait(&mut warm(), SHORT, Some(soon), 1), (6, vec![]));
        let later = Duration::from_secs(1);
        assert_eq!(wait(&mut warm(), 2 * MOST, Some(later), 1), (50, vec![Some(later - MOST)]));
        assert_eq!(wait(&mut warm(), SHORT, Some(Duration::ZERO), 1), (1, vec![]));
    }
}
