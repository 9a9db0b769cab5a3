//! The requests of one link, from when they are whole until they are answered.
//!
//! Owns those that wait to be taken, those that are being run, and the answers to critical ones
//! that must be in the record before they may be sent: those that are to be written, and those that
//! are written and to be synced. A critical message is known by its sequence
//! and by its client's key; one that comes while the same is being run *follows* it and shares its
//! answer.
//!
//! All of it is within the window that the caller was given.

use base::{Key, Numbered, Texts, command};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;
use wire::secure::CriticalHead;

/// The commands whose messages the caller holds while it sends those of others.
pub type HeldCommands = Arc<BTreeSet<Box<str>>>;

/// A request that is whole.
#[derive(Debug)]
pub(super) struct Request {
    /// Its id, which is also its ticket.
    pub id: u64,
    /// What it cost of the window.
    pub cost: usize,
    /// What makes it critical.
    pub head: Option<CriticalHead>,
    /// The commands that the caller held when it sent this.
    pub held: HeldCommands,
    /// What the caller asks, in plain text and whole.
    pub text: Vec<u8>,
}

/// A plain request that waits to be taken.
#[derive(Debug)]
pub(super) struct Plain {
    /// Its id, which is also its ticket.
    pub id: u64,
    /// What it cost of the window.
    pub cost: usize,
}

/// A request that is being run.
#[derive(Debug)]
pub(super) struct Flight {
    /// What it cost of the window.
    pub cost: usize,
    /// The handler that has it; `None`: the reactor.
    pub handler: Option<usize>,
    /// Nobody waits for its answer.
    pub cancelled: bool,
    /// What makes it critical.
    pub critical: Option<Critical>,
}

/// A critical message that is being run.
#[derive(Debug)]
pub(super) struct Critical {
    /// Its number in the caller's spool: by it the same message is known.
    pub sequence: u64,
    /// The key that its client gave it: by it the same message is known under another number.
    pub key: Option<Key>,
    /// In whose order it is.
    pub command: Box<str>,
    /// Every sequence below is settled, as it says: of its command at least.
    pub settled: u64,
    /// Who else waits for its answer.
    pub followers: Vec<Follower>,
}

/// What is said to a request, and whether it stands for the answer of a handler that gave none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said<'a> {
    /// The answer.
    pub text: &'a [u8],
    /// It is our own, for a handler that gave none.
    pub broken: bool,
}

/// A critical message that came while the same was being run.
#[derive(Debug)]
pub(super) struct Follower {
    /// The request's id.
    pub id: u64,
    /// What it cost of the window.
    pub cost: usize,
    sequence: u64,
    command: Box<str>,
}

/// An answer to a critical message that is not in the record yet.
#[derive(Debug, Clone)]
pub struct Unrecorded {
    /// The request's id.
    pub id: u64,
    /// What it cost of the window.
    pub cost: usize,
    /// The message's number in the caller's spool.
    pub sequence: u64,
    /// Its client's key, if that is not recorded yet.
    pub key: Option<Key>,
    /// In whose order it is.
    pub command: Box<str>,
    /// What is answered.
    pub text: Box<[u8]>,
    /// It stands for the answer of a handler that gave none.
    pub broken: bool,
    /// After it the link says GOAWAY.
    pub last: bool,
    /// It shares its sequence with one before it, which is recorded for both.
    same: bool,
}

/// How far a critical message has come that is not in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is being run under this id.
    Running(u64),
    /// Its answer is to be written, or to be synced.
    Answered,
}

/// What is to be done with a critical message that was not looked up yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meeting {
    /// The same is not being run.
    Alone,
    /// The same is being run: this one follows it.
    Follows,
    /// The same is about to be recorded for good: this one must wait for that.
    Waits,
}

/// The requests of one link.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Plain ones that were not taken yet.
    pub plain: Texts<Plain>,
    /// Critical ones that were not taken yet, in the order of their sequences.
    pub critical: VecDeque<Request>,
    /// A critical one is taken before a plain one, this time.
    critical_next: bool,
    flights: Numbered<Flight>,
    /// How many of them are critical.
    critical_flights: usize,
    sequences: BTreeMap<u64, Stage>,
    keys: HashMap<Key, Stage>,
    unrecorded: Vec<Unrecorded>,
    /// Bytes of texts in `unrecorded`.
    unrecorded_bytes: usize,
    /// Answers that are written and not synced, in their order, all before those in `unrecorded`.
    written: Vec<Unrecorded>,
    /// Bytes of their texts.
    written_bytes: usize,
    /// When the first of them was written.
    written_since: Option<Instant>,
}

impl Requests {
    /// Whether a critical request is to be taken before a plain one: in turn, or where no plain one
    /// waits. To be asked once for each that is taken.
    pub(super) fn critical_is_next(&mut self) -> bool {
        self.critical_next = !self.critical_next;
        self.critical_next || self.plain.is_empty()
    }

    /// Sets a request under way.
    pub(super) fn start(&mut self, id: u64, cost: usize, handler: Option<usize>, critical: Option<Critical>) {
        if let Some(Critical { sequence, key, .. }) = &critical {
            self.sequences.insert(*sequence, Stage::Running(id));
            if let Some(key) = key {
                self.keys.insert(key.clone(), Stage::Running(id));
            }
        }
        self.critical_flights += usize::from(critical.is_some());
        self.flights.insert(id, Flight { cost, handler, cancelled: false, critical });
    }

    /// Whether the message at the front of `critical` is the same as one that is under way; then it
    /// is taken from there if it can follow.
    pub(super) fn meet(&mut self) -> Meeting {
        match self.stage_of_first() {
            None => Meeting::Alone,
            Some((_, Stage::Answered)) => Meeting::Waits,
            Some((sequence, Stage::Running(id))) => {
                let leader = self.flights.get_mut(id).and_then(|flight| flight.critical.as_mut());
                if let (Some(leader), Some(Request { id: follower, cost, text, .. })) =
                    (leader, self.critical.pop_front())
                {
                    let command = command(&text).into();
                    leader.followers.push(Follower { id: follower, cost, sequence, command });
                    self.sequences.entry(sequence).or_insert(Stage::Running(id));
                }
                Meeting::Follows
            }
        }
    }

    /// How far the message at the front of `critical`, and with it its sequence, has come already.
    fn stage_of_first(&self) -> Option<(u64, Stage)> {
        let head = self.critical.front()?.head.as_ref()?;
        let by_key = || head.key.as_ref().and_then(|key| self.keys.get(key));
        let stage = self.sequences.get(&head.sequence).or_else(by_key)?;
        Some((head.sequence, *stage))
    }

    /// Whether the message at the front of `critical` waits for its own answer to be recorded.
    pub(super) fn repeat_waits(&self) -> bool {
        matches!(self.stage_of_first(), Some((_, Stage::Answered)))
    }

    /// A request that is being run.
    pub(super) fn flight(&mut self, id: u64) -> Option<&mut Flight> {
        self.flights.get_mut(id)
    }

    /// Takes a request that was being run out; it is for the caller to answer it.
    pub(super) fn land(&mut self, id: u64) -> Option<Flight> {
        let flight = self.flights.remove(id)?;
        self.critical_flights -= usize::from(flight.critical.is_some());
        Some(flight)
    }

    /// A critical message was not run after all, and may be run again.
    pub(super) fn forget(&mut self, critical: &Critical) {
        self.sequences.remove(&critical.sequence);
        for follower in &critical.followers {
            self.sequences.remove(&follower.sequence);
        }
        if let Some(key) = &critical.key {
            self.keys.remove(key);
        }
    }

    /// The answer to a critical message, to be recorded; those that follow share it.
    pub(super) fn answered(&mut self, id: u64, cost: usize, critical: Critical, said: Said<'_>, last: bool) {
        let Critical { sequence, key, command, followers, .. } = critical;
        let Said { text, broken } = said;
        self.sequences.insert(sequence, Stage::Answered);
        if let Some(key) = &key {
            self.keys.insert(key.clone(), Stage::Answered);
        }
        self.unrecorded_bytes += text.len() * (1 + followers.len());
        let text: Box<[u8]> = text.into();
        let same = false;
        self.unrecorded.push(Unrecorded {
            id,
            cost,
            sequence,
            key,
            command,
            text: text.clone(),
            broken,
            last,
            same,
        });
        for follower in followers {
            let same = self.sequences.insert(follower.sequence, Stage::Answered) == Some(Stage::Answered);
            let Follower { id, cost, sequence, command } = follower;
            self.unrecorded.push(Unrecorded {
                id,
                cost,
                sequence,
                key: None,
                command,
                text: text.clone(),
                broken,
                last,
                same,
            });
        }
    }

    /// The answers that must be written to the record.
    pub(super) fn unrecorded(&self) -> impl Iterator<Item = &Unrecorded> {
        self.unrecorded.iter().filter(|answer| !answer.same)
    }

    /// They were written.
    pub(super) fn wrote(&mut self, now: Instant) {
        self.written.append(&mut self.unrecorded);
        self.written_bytes += std::mem::take(&mut self.unrecorded_bytes);
        self.written_since.get_or_insert(now);
    }

    /// What was written and not synced may be lost: it is to be written again.
    pub(super) fn unwrite(&mut self) {
        self.written.append(&mut self.unrecorded);
        self.unrecorded = std::mem::take(&mut self.written);
        self.unrecorded_bytes += std::mem::take(&mut self.written_bytes);
        self.written_since = None;
    }

    /// What was written is synced: takes it out.
    pub(super) fn take_written(&mut self) -> Vec<Unrecorded> {
        let written = std::mem::take(&mut self.written);
        (self.written_bytes, self.written_since) = (0, None);
        self.forget_answers(&written);
        written
    }

    /// What is not synced never will be: takes it out.
    pub(super) fn take_unrecorded(&mut self) -> Vec<Unrecorded> {
        self.unwrite();
        let unrecorded = std::mem::take(&mut self.unrecorded);
        self.unrecorded_bytes = 0;
        self.forget_answers(&unrecorded);
        unrecorded
    }

    fn forget_answers(&mut self, answers: &[Unrecorded]) {
        for answer in answers {
            self.sequences.remove(&answer.sequence);
            if let Some(key) = &answer.key {
                self.keys.remove(key);
            }
        }
    }

    /// Bytes of the answers that are to be written or synced.
    pub(super) fn unrecorded_bytes(&self) -> usize {
        self.unrecorded_bytes + self.written_bytes
    }

    /// How many answers are written and not synced.
    pub(super) fn written(&self) -> usize {
        self.written.len()
    }

    /// Bytes of these.
    pub(super) fn written_bytes(&self) -> usize {
        self.written_bytes
    }

    /// When the first of them was written; `None`: there is none.
    pub(super) fn written_since(&self) -> Option<Instant> {
        self.written_since
    }

    /// Whether a critical message is being run.
    pub(super) fn runs_critical(&self) -> bool {
        self.critical_flights > 0
    }

    /// Whether a critical message is being run or its answer not recorded for good.
    pub(super) fn has_critical(&self) -> bool {
        self.critical_open() > 0 || !self.written.is_empty()
    }

    /// Whether there is one of them with a lower sequence than this.
    pub(super) fn has_critical_before(&self, sequence: u64) -> bool {
        self.sequences.first_key_value().is_some_and(|(first, _)| *first < sequence)
    }

    /// How many are being run, or their answers to be written.
    pub(super) fn critical_open(&self) -> usize {
        self.critical_flights + self.unrecorded.len()
    }

    /// Whether there is an answer to be written.
    pub(super) fn has_unrecorded(&self) -> bool {
        !self.unrecorded.is_empty()
    }

    /// Ids of the requests that are being run.
    pub(super) fn flying(&self) -> impl Iterator<Item = (u64, &Flight)> {
        self.flights.iter()
    }

    /// How many requests are being run.
    pub(super) fn under_way(&self) -> usize {
        self.flights.len()
    }

    /// How many requests are still to be answered.
    pub(super) fn open(&self) -> usize {
        let flying = self.flights.iter().map(|(_, flight)| flight).filter(|flight| !flight.cancelled);
        let waited_for: usize =
            flying.map(|flight| 1 + flight.critical.as_ref().map_or(0, |c| c.followers.len())).sum();
        let recorded = self.unrecorded.len() + self.written.len();
        waited_for + self.plain.len() + self.critical.len() + recorded
    }
}
