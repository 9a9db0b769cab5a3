//! What one link knows of its handlers, for the status: counted here, and told to the supervisor
//! once a second at most.

use crate::handler::Reply;
use crate::service::Barred;
use base::clock::WallClock;
use jiff::Timestamp;
use status::HandlerStatus;
use std::time::{Duration, Instant};

/// Least time between two reports.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Longest error that is told, in characters. More is cut off.
const MAX_ERROR: usize = 300;

/// See the module.
#[derive(Debug)]
pub(super) struct Tally {
    handlers: Vec<HandlerStatus>,
    changed: bool,
    /// The times that were noted are of this clock.
    clock: WallClock,
    /// When the next may be told.
    next: Instant,
}

impl Tally {
    /// Of handlers with these names.
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>, now: Instant) -> Tally {
        let handler = |name: &str| HandlerStatus { name: name.to_owned(), ..HandlerStatus::default() };
        let clock = WallClock::new(now, Timestamp::now());
        Tally { handlers: names.map(handler).collect(), changed: false, clock, next: now }
    }

    /// One more request was passed to this handler.
    pub(super) fn asked(&mut self, number: usize) {
        self.of(number, |handler| handler.in_flight += 1);
    }

    /// The caller asked what it may not. Built-in requests are told of behind the handlers, once
    /// there is something to tell.
    pub(super) fn refused(&mut self, barred: Barred) {
        let number = match barred {
            Barred::Handler(number) | Barred::InClear(number) => number,
            Barred::Builtin(name) => {
                let found = self.handlers.iter().position(|handler| handler.name == name);
                found.unwrap_or_else(|| {
                    self.handlers.push(HandlerStatus { name: name.to_owned(), ..HandlerStatus::default() });
                    self.handlers.len() - 1
                })
            }
        };
        self.of(number, |handler| handler.refused += 1);
    }

    /// A request was taken back from it.
    pub(super) fn withdrawn(&mut self, number: usize) {
        self.of(number, |handler| handler.in_flight = handler.in_flight.saturating_sub(1));
    }

    /// This came of a request.
    pub(super) fn replied(&mut self, number: usize, reply: &Reply<'_>) {
        let error = match reply {
            Reply::Answer(_) => None,
            Reply::Broken(_) | Reply::NotTaken(_) => {
                let text = String::from_utf8_lossy(&reply.text()).chars().take(MAX_ERROR).collect();
                Some((text, self.wall()))
            }
        };
        self.of(number, |handler| {
            handler.in_flight = handler.in_flight.saturating_sub(1);
            match error {
                None => handler.done += 1,
                Some((text, at)) => {
                    handler.errors += 1;
                    (handler.last_error, handler.last_error_at) = (Some(text), Some(at));
                }
            }
        });
    }

    /// Whether a connection to it could be made when that was tried last, and whether the caller
    /// waits for it.
    pub(super) fn stands(&mut self, number: usize, tried: Option<bool>, waits: bool) {
        let differs = self.handlers.get(number).is_some_and(|handler| {
            (tried.is_some() && handler.reachable != tried) || handler.waiting != u64::from(waits)
        });
        if differs {
            let wall = self.wall();
            self.of(number, |handler| {
                handler.waiting = u64::from(waits);
                if tried.is_some() && handler.reachable != tried {
                    (handler.reachable, handler.tried) = (tried, Some(wall));
                }
            });
        }
    }

    /// What is to be told now, if there is news.
    pub(super) fn report(&mut self, now: Instant) -> Option<Vec<HandlerStatus>> {
        if self.deadline()? > now {
            return None;
        }
        self.wall();
        (self.changed, self.next) = (false, now + REPORT_EVERY);
        Some(self.handlers.clone())
    }

    /// When [`Tally::report`] has something.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.changed.then_some(self.next)
    }

    /// What is to be told at the end, if that was not told before.
    pub(super) fn last(mut self) -> Option<Vec<HandlerStatus>> {
        self.wall();
        self.changed.then_some(self.handlers)
    }

    /// What the wall clock says; the times that were noted are told by the same clock.
    fn wall(&mut self) -> Timestamp {
        let wall = Timestamp::now();
        self.see_clock(Instant::now(), wall);
        wall
    }

    fn see_clock(&mut self, mono: Instant, wall: Timestamp) {
        if let Some(step) = self.clock.look(mono, wall) {
            self.handlers.iter_mut().for_each(|handler| handler.clock_was_set(step));
        }
    }

    fn of(&mut self, number: usize, change: impl FnOnce(&mut HandlerStatus)) {
        if let Some(handler) = self.handlers.get_mut(number) {
            change(handler);
            self.changed = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    #[test]
    fn what_was_noted_is_told_by_the_clock_as_it_is_now() {
        let mono = Instant::now();
        let mut tally = Tally::new(["echo"].into_iter(), mono);
        tally.asked(0);
        tally.replied(0, &Reply::Broken(b"error:echo: no answer"));
        tally.stands(0, Some(false), true);
        let noted = tally.handlers.clone();
        let years = SignedDuration::from_hours(20 * 365 * 24);
        let (mono, wall) = (Instant::now(), Timestamp::now());
        tally.see_clock(mono, wall);
        assert_eq!(tally.handlers, noted, "nobody has set it");
        tally.see_clock(mono, wall - years);
        let handler = &tally.handlers[0];
        let moved = |at: Option<Timestamp>| at.map(|at| at - years);
        let near = |at: Option<Timestamp>, then: Option<Timestamp>| {
            at.zip(moved(then)).is_some_and(|(at, then)| at.duration_since(then).abs().as_secs() < 60)
        };
        assert!(near(handler.last_error_at, noted[0].last_error_at), "{handler:?}, before {noted:?}");
        assert!(near(handler.tried, noted[0].tried), "{handler:?}, before {noted:?}");
        // The clock is what it was again before it is told.
        let told = tally.last().expect("it is news");
        assert!(told[0].tried.is_some_and(|at| Timestamp::now().duration_since(at).as_secs().abs() < 60));
    }
}
