//! What is held: messages of commands whose handler is away, which those of other commands go past.
//!
//! They stay in their segments, waiting and counted, and keep their order. A segment behind one
//! that holds such a message may be done with long before it: its file is then *hollowed* (replaced
//! by one of no bytes, whose name still bounds the one before it), so that a few messages that wait
//! for long don't keep the room of all that came after them.

use super::{Loads, Located, Queue, Segment};
use base::Sequence;
use std::collections::BTreeMap;

/// Messages that may be held: each takes some 100 bytes of memory. At the bound everything waits
/// for them.
pub const HELD_MOST: usize = 100_000;

/// The messages that are held, by their commands.
#[derive(Debug, Default)]
pub(super) struct Held {
    by_command: BTreeMap<Box<str>, BTreeMap<Sequence, Located>>,
    count: usize,
}

impl Held {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn first(&self) -> Option<(Sequence, Located)> {
        let firsts = self.by_command.values().filter_map(|messages| messages.first_key_value());
        firsts.min_by_key(|(sequence, _)| **sequence).map(|(sequence, located)| (*sequence, *located))
    }

    pub(super) fn contains(&self, sequence: Sequence) -> bool {
        self.by_command.values().any(|messages| messages.contains_key(&sequence))
    }

    pub(super) fn remove(&mut self, sequence: Sequence) -> Option<Located> {
        let located = self.by_command.values_mut().find_map(|messages| messages.remove(&sequence))?;
        self.count -= 1;
        self.by_command.retain(|_, messages| !messages.is_empty());
        Some(located)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Located> {
        self.by_command.values().flat_map(BTreeMap::values)
    }
}

impl Queue {
    /// Keeps an unsent message of this command back; `false`: as many are as may be.
    pub(crate) fn hold(&mut self, sequence: Sequence, command: &str) -> bool {
        if self.held.count >= HELD_MOST {
            return false;
        }
        if let Some(located) = self.unsent.remove(&sequence) {
            let messages = match self.held.by_command.get_mut(command) {
                Some(messages) => messages,
                None => self.held.by_command.entry(command.into()).or_default(),
            };
            messages.insert(sequence, located);
            self.held.count += 1;
        }
        true
    }

    /// The messages of this command are unsent again.
    pub(crate) fn release(&mut self, command: &str) {
        if let Some(messages) = self.held.by_command.remove(command) {
            self.held.count -= messages.len();
            self.unsent.extend(messages);
        }
    }

    /// The first message of this command that is held.
    pub(crate) fn first_held(&self, command: &str) -> Option<(Sequence, Located)> {
        let (sequence, located) = self.held.by_command.get(command)?.first_key_value()?;
        Some((*sequence, *located))
    }

    /// How many messages are held: of this command; of all.
    pub(crate) fn held(&self, command: &str) -> u64 {
        self.held.by_command.get(command).map_or(0, |messages| messages.len() as u64)
    }

    /// Whether all that waits is held.
    pub(crate) fn only_held(&self) -> bool {
        self.waiting.all.messages == self.held.count as u64 && self.unknown.is_empty()
    }

    /// [`Queue::settled_below`], for messages of a command that is held.
    pub(crate) fn settled_below_of(&self, command: &str) -> Sequence {
        let below = self.settled_below();
        self.first_held(command).map_or(below, |(first, _)| first.min(below))
    }

    /// A segment that nothing waits in and that stands between others, since one before it has
    /// messages that are held; and whether its file may go altogether. One behind a hollow one may:
    /// that bounds the one before it.
    pub(crate) fn hollow(&self) -> Option<(Sequence, bool)> {
        if self.held.count == 0 {
            return None;
        }
        let done = |segment: &Segment| segment.finished() && !segment.unknown;
        let middle = self.segments.iter().zip(self.segments.iter().skip(1)).enumerate();
        let before_last = self.segments.len().saturating_sub(2);
        let passed = middle.take(before_last).filter(|(before, _)| before + 1 < self.reading);
        passed.map(|(_, pair)| pair).find_map(|(before, segment)| {
            let behind_hollow = before.size == 0 && done(before);
            (done(segment) && (segment.size > 0 || behind_hollow)).then_some((segment.name, behind_hollow))
        })
    }

    /// The segment's file has no bytes any more.
    pub(crate) fn hollowed(&mut self, name: Sequence) {
        let Some(segment) = self.find(name) else { return };
        let size = std::mem::take(&mut segment.size);
        segment.end = 0;
        segment.unread = Loads::default();
        self.disk_bytes -= size;
    }
}
