//! What waits, or may, and could not be read.
//!
//! A segment that could not be read at the start is *unknown* until its turn comes, and keeps its
//! place in the order: what is stored later does not overtake it. What goes on failing then is
//! *passed over*, so that the rest is not held up for ever: it stays on disk and counted, its
//! segment stays too, and it comes back by [`Queue::restore`] or at the next start. Neither kind is
//! ever below [`Queue::settled_below`].

use super::{Loads, Located, Queue, Segment};
use base::Sequence;

impl Queue {
    /// Whether there is a segment of which nothing is known yet.
    pub(crate) fn has_unknown(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// Whether the segment whose turn it is, is unknown.
    pub(crate) fn is_unknown_here(&self) -> bool {
        self.segments.get(self.reading).is_some_and(|segment| segment.unknown)
    }

    /// The segment whose turn it is could be read after all.
    pub(crate) fn known_here(&mut self, found: Segment) {
        let Some(segment) = self.segments.get_mut(self.reading) else { return };
        debug_assert!(segment.unknown && segment.name == found.name);
        self.unknown.remove(&found.name);
        self.disk_bytes = self.disk_bytes - segment.size + found.size;
        for sum in [&mut self.waiting, &mut self.unread] {
            sum.join(&found.waiting);
        }
        *segment = found;
    }

    /// The segment whose turn it is cannot be read: what is left of it is passed over. Goes on to
    /// the next segment.
    pub(crate) fn skip_segment(&mut self) {
        if let Some(segment) = self.segments.get_mut(self.reading) {
            self.unread.take(&std::mem::take(&mut segment.unread));
            segment.pinned = true;
            segment.unknown = false;
            self.offset = segment.end;
            self.unknown.remove(&segment.name);
            self.passed_over.insert(segment.name);
        }
        self.next_segment();
    }

    /// The message cannot be read: it is passed over.
    pub(crate) fn skip(&mut self, sequence: Sequence) {
        if let Some(located) = self.take_located(sequence) {
            self.pin(located.segment);
            self.passed_over.insert(located.segment);
        }
    }

    /// The first segment of those passed over, and the first sequence that belongs behind it.
    pub(crate) fn passed_over(&self) -> Option<(Sequence, Sequence)> {
        let name = *self.passed_over.first()?;
        let next = self.segments.iter().find(|segment| segment.name > name);
        Some((name, next.map_or(self.next, |next| next.name)))
    }

    /// Messages that are located and not sent.
    pub(crate) fn unsent_located(&self) -> usize {
        self.unsent.len()
    }

    /// Whether the cursor has passed this place and no message there is located.
    pub(crate) fn may_restore(&self, segment: Sequence, offset: u64, sequence: Sequence) -> bool {
        let ahead = self.cursor().is_some_and(|at| at.segment == segment && at.offset <= offset);
        !ahead && !self.is_located(sequence)
    }

    /// A segment that was passed over could be read: these of its messages are unsent again.
    /// `keep`: it must stay on disk all the same.
    pub(crate) fn restore(&mut self, name: Sequence, messages: Vec<(Sequence, Located)>, keep: bool) {
        self.passed_over.remove(&name);
        self.unsent.extend(messages);
        let mut waiting = Loads::default();
        let located = self.sent.values().chain(self.unsent.values()).chain(self.held.values());
        for located in located.filter(|at| at.segment == name) {
            waiting.add(located.user, located.length);
        }
        let Ok(index) = self.segments.binary_search_by_key(&name, |segment| segment.name) else { return };
        let segment = &mut self.segments[index];
        waiting.join(&segment.unread);
        // It is what was counted before, unless the segment was unknown or has lost something
        // since.
        self.waiting.take(&segment.waiting);
        self.waiting.join(&waiting);
        segment.waiting = waiting;
        segment.pinned = keep;
    }
}
