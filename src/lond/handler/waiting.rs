//! What every conversation with a program has: requests that wait for a connection, the dial that
//! they wait for, and what the end of a connection costs.

use super::{CONNECT_RETRY, Fault, Reply, Ticket};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A connection is to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dial {
    /// The first request has waited since.
    since: Instant,
    /// When it is tried.
    next: Instant,
}

impl Dial {
    /// At once.
    pub(super) fn begin(now: Instant) -> Dial {
        Dial { since: now, next: now }
    }

    /// Again after a pause: there was no room.
    pub(super) fn again(self, now: Instant) -> Dial {
        Dial { next: now + CONNECT_RETRY, ..self }
    }

    /// Whether it is time.
    pub(super) fn is_due(self, now: Instant) -> bool {
        self.next <= now
    }

    /// When it is, or when the first request has waited for this long.
    pub(super) fn deadline(self, timeout: Duration) -> Instant {
        self.next.min(self.since + timeout)
    }

    /// Whether the first request has waited for this long.
    pub(super) fn is_overdue(self, timeout: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= timeout
    }
}

/// Requests that no connection has seen a byte of, oldest first.
#[derive(Debug, Default)]
pub(super) struct Held {
    requests: VecDeque<(Ticket, Box<[u8]>)>,
    /// Those that the last connection took nothing of were given to this one, which has answered
    /// none yet. What it takes nothing of either is given up.
    second_try: bool,
}

impl Held {
    /// One more, behind the others.
    pub(super) fn push(&mut self, ticket: Ticket, line: &[u8]) {
        self.requests.push_back((ticket, line.into()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Forgets one; whether it was there.
    pub(super) fn withdraw(&mut self, ticket: Ticket) -> bool {
        let before = self.requests.len();
        self.requests.retain(|(held, _)| *held != ticket);
        self.requests.len() < before
    }

    /// All of them, which are passed on now.
    pub(super) fn take(&mut self) -> VecDeque<(Ticket, Box<[u8]>)> {
        std::mem::take(&mut self.requests)
    }

    /// The program has answered on this connection.
    pub(super) fn has_answered(&mut self) {
        self.second_try = false;
    }

    /// No connection could be made: they are given up.
    pub(super) fn give_up(&mut self) -> Vec<Ticket> {
        self.requests.drain(..).map(|(ticket, _)| ticket).collect()
    }

    /// A connection has ended that took all but these bytes. What no byte was taken of goes to the
    /// next one, once; those whose second try that was are given up. `newest`: what was passed on
    /// last of what is open, if its line, with its newline, is no longer than this; it is open no
    /// more.
    pub(super) fn take_back(
        &mut self,
        mut unsent: &[u8],
        mut newest: impl FnMut(usize) -> Option<(Ticket, usize)>,
    ) -> Vec<Ticket> {
        let mut count = 0;
        while let Some((ticket, length)) = newest(unsent.len()) {
            let (rest, line) = unsent.split_at(unsent.len() - length);
            self.requests.push_front((ticket, line[..length - 1].into()));
            (unsent, count) = (rest, count + 1);
        }
        let second = std::mem::replace(&mut self.second_try, false);
        if second {
            return self.requests.drain(..count).map(|(ticket, _)| ticket).collect();
        }
        self.second_try = count > 0;
        Vec::new()
    }
}

/// Tells of the requests that the end of a connection costs: the program has those that were
/// `taken`, or may have them.
pub(super) fn tell(
    name: &str,
    fault: &Fault,
    (taken, untaken): (Vec<Ticket>, Vec<Ticket>),
    answer: &mut impl FnMut(Ticket, Reply<'_>),
) {
    if taken.is_empty() && untaken.is_empty() {
        return;
    }
    let why = format!("{name}: {fault}");
    let text = format!("error:{why}");
    for ticket in taken {
        answer(ticket, Reply::Broken(text.as_bytes()));
    }
    for ticket in untaken {
        answer(ticket, Reply::NotTaken(&why));
    }
}
