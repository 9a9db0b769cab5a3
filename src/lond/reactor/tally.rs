//! What one link knows of its handlers, for the status: counted here, and told to the supervisor
//! once a second at most.

use crate::handler::Reply;
use crate::status::HandlerStatus;
use jiff::Timestamp;
use std::time::{Duration, Instant};

/// Least time between two reports.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Longest error that is told, in characters. More is cut off.
const MAX_ERROR: usize = 300;

/// See the module.
#[derive(Debug)]
pub struct Tally {
    handlers: Vec<HandlerStatus>,
    changed: bool,
    /// When the next may be told.
    next: Instant,
}

impl Tally {
    /// Of handlers with these names.
    pub fn new<'a>(names: impl Iterator<Item = &'a str>, now: Instant) -> Tally {
        let handler = |name: &str| HandlerStatus { name: name.to_owned(), ..HandlerStatus::default() };
        Tally { handlers: names.map(handler).collect(), changed: false, next: now }
    }

    /// It was asked.
    pub fn asked(&mut self, number: usize) {
        self.of(number, |handler| handler.in_flight += 1);
    }

    /// A request was taken back from it.
    pub fn withdrawn(&mut self, number: usize) {
        self.of(number, |handler| handler.in_flight = handler.in_flight.saturating_sub(1));
    }

    /// This came of a request.
    pub fn replied(&mut self, number: usize, reply: &Reply<'_>) {
        self.of(number, |handler| {
            handler.in_flight = handler.in_flight.saturating_sub(1);
            match reply {
                Reply::Answer(_) => handler.done += 1,
                Reply::Broken(_) | Reply::NotTaken(_) => {
                    handler.errors += 1;
                    let text = String::from_utf8_lossy(&reply.text()).chars().take(MAX_ERROR).collect();
                    (handler.last_error, handler.last_error_at) = (Some(text), Some(Timestamp::now()));
                }
            }
        });
    }

    /// Whether a connection to it could be made when that was tried last, and whether the caller
    /// waits for it.
    pub fn stands(&mut self, number: usize, tried: Option<bool>, waits: bool) {
        let differs = self.handlers.get(number).is_some_and(|handler| {
            (tried.is_some() && handler.reachable != tried) || handler.waiting != u64::from(waits)
        });
        if differs {
            self.of(number, |handler| {
                handler.waiting = u64::from(waits);
                if tried.is_some() && handler.reachable != tried {
                    (handler.reachable, handler.tried) = (tried, Some(Timestamp::now()));
                }
            });
        }
    }

    /// What is to be told now, if there is news.
    pub fn report(&mut self, now: Instant) -> Option<Vec<HandlerStatus>> {
        if self.deadline()? > now {
            return None;
        }
        (self.changed, self.next) = (false, now + REPORT_EVERY);
        Some(self.handlers.clone())
    }

    /// When [`Tally::report`] has something.
    pub fn deadline(&self) -> Option<Instant> {
        self.changed.then_some(self.next)
    }

    /// What is to be told at the end, if that was not told before.
    pub fn last(self) -> Option<Vec<HandlerStatus>> {
        self.changed.then_some(self.handlers)
    }

    fn of(&mut self, number: usize, change: impl FnOnce(&mut HandlerStatus)) {
        if let Some(handler) = self.handlers.get_mut(number) {
            change(handler);
            self.changed = true;
        }
    }
}
