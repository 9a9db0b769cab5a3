//! The virtual network: connections that are slow, break at any byte, or swallow what they are
//! given.
//!
//! Owns the bytes on their way and those that arrived and were not read. It tells nobody: who
//! drives the simulation delivers what is due. Bytes of one direction stay in order, those of
//! different connections don't.

use crate::wiretap::Wiretap;
use std::collections::VecDeque;

/// Microseconds since the simulation began.
pub type Time = u64;

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Caller,
    Called,
}

impl End {
    pub fn other(self) -> End {
        match self {
            End::Caller => End::Called,
            End::Called => End::Caller,
        }
    }
}

/// What travels.
#[derive(Debug)]
pub enum Item {
    Bytes(Vec<u8>),
    /// The sender says no more.
    Fin,
    /// The connection is no more.
    Reset,
}

/// What one end gets.
#[derive(Debug, Default)]
pub struct Pipe {
    pub travelling: VecDeque<(Time, Item)>,
    pub arrived: VecDeque<u8>,
    /// After what arrived there is nothing more.
    pub ended: bool,
    pub reset: bool,
    /// Bytes in `travelling`.
    flying: usize,
    /// Nothing of this direction arrives any more.
    pub swallows: bool,
    last_due: Time,
}

/// What becomes of a connection on its own.
#[derive(Debug, Clone, Copy)]
pub struct Fate {
    /// After so many bytes from this end.
    pub from: End,
    pub bytes: usize,
    /// It swallows from then on rather than break.
    pub silent: bool,
    /// Only what comes from `from` is swallowed.
    pub one_way: bool,
}

#[derive(Debug)]
pub struct Conn {
    pub caller: usize,
    pub called: usize,
    pub capacity: usize,
    pub delay: (Time, Time),
    pub fate: Option<Fate>,
    /// What the called end reads, and what the caller reads.
    pub to_called: Pipe,
    pub to_caller: Pipe,
    /// An end is closed.
    pub closed: [bool; 2],
    /// On the secure wire.
    pub wiretap: Option<Wiretap>,
}

impl Conn {
    pub fn new(
        caller: usize,
        called: usize,
        capacity: usize,
        delay: (Time, Time),
        fate: Option<Fate>,
        secure: bool,
    ) -> Conn {
        Conn {
            caller,
            called,
            capacity,
            delay,
            fate,
            to_called: Pipe::default(),
            to_caller: Pipe::default(),
            closed: [false; 2],
            wiretap: secure.then(|| Wiretap::new(caller, called)),
        }
    }

    /// What this end reads.
    pub fn input(&mut self, end: End) -> &mut Pipe {
        match end {
            End::Caller => &mut self.to_caller,
            End::Called => &mut self.to_called,
        }
    }

    pub fn room(&mut self, from: End) -> usize {
        let capacity = self.capacity;
        let pipe = self.input(from.other());
        capacity.saturating_sub(pipe.flying + pipe.arrived.len())
    }

    /// Sends; at most [`Conn::room`] bytes. Returns when something is due.
    pub fn send(&mut self, from: End, bytes: &[u8], now: Time, random: &mut fastrand::Rng) -> Option<Time> {
        let mut bytes = bytes;
        let mut breaks = None;
        if let Some(fate) = self.fate.as_mut().filter(|fate| fate.from == from) {
            if bytes.len() >= fate.bytes {
                bytes = &bytes[..fate.bytes];
                breaks = self.fate.take();
            } else {
                fate.bytes -= bytes.len();
            }
        }
        let mut due = self.put(from, Item::Bytes(bytes.to_vec()), now, random);
        if let Some(fate) = breaks {
            if fate.silent {
                self.input(from.other()).swallows = true;
                self.input(from).swallows |= !fate.one_way;
            } else {
                due = self.put(from, Item::Reset, now, random).max(due);
                let back = self.put(from.other(), Item::Reset, now, random);
                // Both are delivered by one event that looks at both directions.
                due = due.max(back);
            }
        }
        due
    }

    /// The last thing from this end.
    pub fn close(&mut self, from: End, reset: bool, now: Time, random: &mut fastrand::Rng) -> Option<Time> {
        let place = from as usize;
        if std::mem::replace(&mut self.closed[place], true) {
            return None;
        }
        self.put(from, if reset { Item::Reset } else { Item::Fin }, now, random)
    }

    /// This end says no more, and still reads.
    pub fn shut(&mut self, from: End, now: Time, random: &mut fastrand::Rng) -> Option<Time> {
        self.put(from, Item::Fin, now, random)
    }

    fn put(&mut self, from: End, item: Item, now: Time, random: &mut fastrand::Rng) -> Option<Time> {
        let (least, most) = self.delay;
        let pipe = self.input(from.other());
        if pipe.swallows {
            return None;
        }
        let due = (now + random.u64(least..=most)).max(pipe.last_due);
        if let Item::Bytes(bytes) = &item {
            pipe.flying += bytes.len();
        }
        pipe.last_due = due;
        pipe.travelling.push_back((due, item));
        Some(due)
    }

    /// Moves what is due to where it is read; whether there was anything.
    pub fn deliver(&mut self, end: End, now: Time) -> bool {
        let pipe = self.input(end);
        let mut any = false;
        while pipe.travelling.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, item)) = pipe.travelling.pop_front() else { break };
            if let Item::Bytes(bytes) = &item {
                pipe.flying -= bytes.len();
            }
            if pipe.swallows {
                continue;
            }
            any = true;
            match item {
                Item::Bytes(bytes) => pipe.arrived.extend(bytes),
                Item::Fin => pipe.ended = true,
                Item::Reset => (pipe.reset, pipe.ended) = (true, true),
            }
        }
        any
    }
}
