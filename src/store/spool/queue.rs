//! What waits, what is on its way, what is done: the bookkeeping of one spool.
//!
//! Pure: no file, no clock. It knows the segments by their summaries and keeps one [`Located`] for
//! each message that was read and not settled, which the caller's window bounds; the backlog itself
//! is only counted. A message is *unread* until the cursor passes it, then *unsent* or *sent*,
//! until it is settled.
//!
//! Segments split the sequences among them by their names: a segment holds those from its own name
//! up to the next segment's. What a failed store may have left behind in a closed segment lies past
//! that bound and is never read.

use base::Sequence;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What is known of one segment file.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    /// Lower bound of its sequences; names the file.
    pub name: Sequence,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes that hold lines; appending goes on here.
    pub end: u64,
    /// Its messages that were not settled.
    pub waiting: Loads,
    /// Those of them that the cursor has not passed.
    pub unread: Loads,
    /// Whether it must stay on disk although nothing in it waits: it could not be read, or damage
    /// in it could not be copied.
    pub pinned: bool,
    /// It could not be read when it was found: what waits in it is not known before its turn comes.
    pub unknown: bool,
}

impl Segment {
    /// A segment without messages.
    pub(super) fn empty(name: Sequence, size: u64) -> Segment {
        let (waiting, unread) = (Loads::default(), Loads::default());
        Segment { name, size, end: 0, waiting, unread, pinned: false, unknown: false }
    }

    fn finished(&self) -> bool {
        self.waiting.all.messages == 0 && !self.pinned
    }
}

/// Where a message that was read lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Located {
    /// Name of its segment.
    pub segment: Sequence,
    /// Where its line begins.
    pub offset: u64,
    /// Bytes of its request.
    pub length: u64,
    /// Whose it is.
    pub user: User,
    /// When it was stored.
    pub stored_at: Timestamp,
}

/// Where reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Name of the segment that is being read.
    pub segment: Sequence,
    /// Where its next line begins.
    pub offset: u64,
    /// The least sequence that may come there.
    pub least: Sequence,
    /// Where what is known of the segment ends: equal to `offset` when all of it was read.
    pub end: u64,
    /// The first sequence that belongs to the next segment, or was not given out.
    pub bound: Sequence,
}

/// The bookkeeping of one spool.
#[derive(Debug)]
pub(super) struct Queue {
    /// By name, rising.
    segments: VecDeque<Segment>,
    /// Sent and not settled. Every key is below those that the cursor has not passed; disjoint from
    /// `unsent`.
    sent: BTreeMap<Sequence, Located>,
    /// Read, or sent before the link was lost, and not sent since.
    unsent: BTreeMap<Sequence, Located>,
    /// Read, and kept back, by their commands: others go past them. Those that are tried while they
    /// are kept back stay here.
    held: held::Held,
    /// Index of the segment that is being read.
    reading: usize,
    offset: u64,
    least: Sequence,
    /// Sum over the segments.
    waiting: Loads,
    /// Sum over the segments.
    unread: Loads,
    /// Sum over the segments.
    disk_bytes: u64,
    /// The sequence that is given out next: above all that were.
    next: Sequence,
    /// The least sequence that may be stored: above all that were put into a segment here, so that
    /// those in the segments rise. What was given out below it and not stored never will be.
    floor: Sequence,
    /// The least name that the next segment may have: above those that were tried.
    least_name: Sequence,
    /// First refused sequence of the segment that was closed last: a segment of this name shuts
    /// what its failed store left behind out.
    seal: Option<Sequence>,
    /// Names of the segments that are unknown and have not had their turn.
    unknown: BTreeSet<Sequence>,
    /// Names of the segments that messages may wait in which the cursor has passed and did not
    /// locate.
    passed_over: BTreeSet<Sequence>,
}

impl Queue {
    /// A queue of these segments, by name, rising; `next` is the first sequence that was certainly
    /// never used.
    pub(super) fn new(segments: VecDeque<Segment>, next: Sequence) -> Queue {
        debug_assert!(segments.iter().zip(segments.iter().skip(1)).all(|(a, b)| a.name < b.name));
        let mut queue = Queue {
            sent: BTreeMap::new(),
            unsent: BTreeMap::new(),
            held: held::Held::default(),
            reading: 0,
            offset: 0,
            least: segments.front().map_or(next, |first| first.name),
            waiting: Loads::default(),
            unread: Loads::default(),
            disk_bytes: segments.iter().map(|segment| segment.size).sum(),
            next,
            floor: next,
            least_name: segments.back().map_or(Sequence(0), |last| last.name.next()),
            seal: None,
            unknown: segments.iter().filter(|segment| segment.unknown).map(|segment| segment.name).collect(),
            passed_over: BTreeSet::new(),
            segments,
        };
        for segment in &queue.segments {
            queue.waiting.join(&segment.waiting);
            queue.unread.join(&segment.unread);
        }
        queue
    }

    /// What waits: all that was not settled.
    pub(super) fn waiting(&self) -> &Loads {
        &self.waiting
    }

    /// Whether a message waits that was not sent, or may.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty() || self.unread.all.messages > 0 || !self.unknown.is_empty()
    }

    /// When the oldest message was stored, as far as one is located.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        let first =
            |map: &BTreeMap<Sequence, Located>| map.iter().next().map(|(key, at)| (*key, at.stored_at));
        let held = self.held.first().map(|(key, at)| (key, at.stored_at));
        let oldest =
            [first(&self.sent), first(&self.unsent), held].into_iter().flatten().min_by_key(|at| at.0);
        oldest.map(|(_, stored_at)| stored_at)
    }

    /// Whether messages wait and none of them is located: the cursor should be moved on.
    pub(super) fn wants_locating(&self) -> bool {
        let ahead = self.unread.all.messages > 0 || !self.unknown.is_empty();
        self.sent.is_empty() && self.unsent.is_empty() && ahead
    }

    /// Messages whose place is held in memory.
    #[cfg(test)]
    pub(super) fn located(&self) -> usize {
        self.sent.len() + self.unsent.len() + self.held.len()
    }

    /// Bytes of the segment files.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    /// The sequence that the next message gets.
    pub(super) fn next_sequence(&self) -> Sequence {
        self.next
    }

    /// Gives out a sequence. It is used up, whatever becomes of the message.
    pub(super) fn take_sequence(&mut self) -> Sequence {
        let taken = self.next;
        self.next = taken.next();
        taken
    }

    /// Sequences below this may be in use.
    pub(super) fn skip_to(&mut self, sequence: Sequence) {
        self.next = self.next.max(sequence);
    }

    /// The least sequence that may be stored.
    pub(super) fn floor(&self) -> Sequence {
        self.floor
    }

    /// A message with this sequence is put into the last segment, whatever comes of it.
    pub(super) fn place(&mut self, sequence: Sequence) {
        debug_assert!((self.floor..self.next).contains(&sequence));
        self.floor = sequence.next();
    }

    /// Below this nothing waits but what is held: the least message that was not settled, else the
    /// next sequence. Lower where it is not known which messages wait.
    pub(super) fn settled_below(&self) -> Sequence {
        let located = [self.sent.keys().next(), self.unsent.keys().next()].into_iter().flatten().copied();
        let unread = (self.unread.all.messages > 0).then_some(self.least);
        let hidden = [self.unknown.first(), self.passed_over.first()].into_iter().flatten().copied();
        located.chain(unread).chain(hidden).min().unwrap_or(self.next)
    }

    /// The last segment: the one that is appended to, if any is.
    pub(super) fn last(&self) -> Option<&Segment> {
        self.segments.back()
    }

    /// The name for the next segment, if `first` shall be the first that it holds. It may come out
    /// higher.
    pub(super) fn next_name(&self, first: Sequence) -> Sequence {
        self.seal.filter(|seal| *seal >= self.least_name).unwrap_or(first).max(self.least_name)
    }

    /// A name was tried and may be taken now: it is not used again.
    pub(super) fn burn_name(&mut self, name: Sequence) {
        self.seal = None;
        self.least_name = self.least_name.max(name.next());
        self.next = self.next.max(name.next());
    }

    /// A new segment was made under [`Queue::next_name`].
    pub(super) fn add_segment(&mut self, name: Sequence, size: u64) {
        debug_assert!(self.last().is_none_or(|last| last.name < name));
        if self.segments.is_empty() {
            (self.reading, self.offset, self.least) = (0, 0, name);
        }
        self.seal = None;
        self.least_name = name.next();
        self.next = self.next.max(name);
        self.floor = self.floor.max(name);
        self.disk_bytes += size;
        self.segments.push_back(Segment::empty(name, size));
    }

    /// The last segment, still empty, was given its full size.
    pub(super) fn resize_last(&mut self, size: u64) {
        if let Some(last) = self.segments.back_mut() {
            self.disk_bytes = self.disk_bytes - last.size + size;
            last.size = size;
        }
    }

    /// Messages were appended to the last segment and are on disk.
    pub(super) fn appended(&mut self, line_bytes: u64, loads: &Loads) {
        let Some(last) = self.segments.back_mut() else { return };
        last.end += line_bytes;
        for sum in [&mut last.waiting, &mut last.unread, &mut self.waiting, &mut self.unread] {
            sum.join(loads);
        }
    }

    /// A store into the last segment failed; `first` is the first sequence that was refused.
    pub(super) fn close_after_failure(&mut self, first: Sequence) {
        self.seal = Some(first);
    }

    /// Where reading goes on; `None` when there is no segment.
    pub(super) fn cursor(&self) -> Option<Cursor> {
        let segment = self.segments.get(self.reading)?;
        let bound = self.segments.get(self.reading + 1).map_or(self.next, |next| next.name);
        let (offset, least) = (self.offset, self.least);
        Some(Cursor { segment: segment.name, offset, least, end: segment.end, bound })
    }

    /// The cursor passed bytes without a message that waits.
    pub(super) fn pass(&mut self, bytes: u64, least: Sequence) {
        self.offset += bytes;
        self.least = least;
    }

    /// The cursor passed a message that waits.
    pub(super) fn locate(&mut self, sequence: Sequence, located: Located, line_bytes: u64) {
        let one = Loads::one(located.user, located.length);
        if let Some(segment) = self.segments.get_mut(self.reading) {
            segment.unread.take(&one);
        }
        self.unread.take(&one);
        self.unsent.insert(sequence, located);
        self.pass(line_bytes, sequence.next());
    }

    /// Messages of the segment that is being read which the cursor has not passed.
    pub(super) fn unread_here(&self) -> u64 {
        self.segments.get(self.reading).map_or(0, |segment| segment.unread.all.messages)
    }

    /// The segment was read to its end. What of it was counted as unread was lost to damage
    /// meanwhile. Goes on to the next segment and returns whether there is one.
    pub(super) fn end_segment(&mut self) -> bool {
        if let Some(segment) = self.segments.get_mut(self.reading) {
            let lost = std::mem::take(&mut segment.unread);
            segment.waiting.take(&lost);
            self.waiting.take(&lost);
            self.unread.take(&lost);
        }
        self.next_segment()
    }

    fn next_segment(&mut self) -> bool {
        let Some(next) = self.segments.get(self.reading + 1) else { return false };
        (self.reading, self.offset, self.least) = (self.reading + 1, 0, next.name);
        true
    }

    /// The segment's damage could not be copied: it stays.
    pub(super) fn pin(&mut self, name: Sequence) {
        if let Some(segment) = self.find(name) {
            segment.pinned = true;
        }
    }

    /// The first message that was located and not sent.
    pub(super) fn first_unsent(&self) -> Option<(Sequence, Located)> {
        self.unsent.first_key_value().map(|(sequence, located)| (*sequence, *located))
    }

    /// An unsent message is sent now.
    pub(super) fn mark_sent(&mut self, sequence: Sequence) {
        if let Some(located) = self.unsent.remove(&sequence) {
            self.sent.insert(sequence, located);
        }
    }

    /// A message that was sent and not settled is unsent again.
    pub(super) fn unsend(&mut self, sequence: Sequence) {
        if let Some(located) = self.sent.remove(&sequence) {
            self.unsent.insert(sequence, located);
        }
    }

    /// All that was sent and not settled is unsent again.
    pub(super) fn rewind(&mut self) {
        self.unsent.append(&mut self.sent);
    }

    /// The message is done; where it lay. `None` if it does not wait.
    pub(super) fn settle(&mut self, sequence: Sequence) -> Option<Located> {
        let located = self.take_located(sequence)?;
        let one = Loads::one(located.user, located.length);
        if let Some(segment) = self.find(located.segment) {
            segment.waiting.take(&one);
        }
        self.waiting.take(&one);
        Some(located)
    }

    fn take_located(&mut self, sequence: Sequence) -> Option<Located> {
        let located = self.sent.remove(&sequence).or_else(|| self.unsent.remove(&sequence));
        located.or_else(|| self.held.remove(sequence))
    }

    fn is_located(&self, sequence: Sequence) -> bool {
        self.sent.contains_key(&sequence)
            || self.unsent.contains_key(&sequence)
            || self.held.contains(sequence)
    }

    /// A segment that nothing waits in and that may go: never the last, which is appended to, and
    /// never from behind one that still waits, since its name bounds that one.
    pub(super) fn removable(&self) -> Option<Sequence> {
        let before_last = self.segments.len().saturating_sub(1);
        let first = self.segments.iter().take(before_last).find(|segment| !segment.pinned)?;
        first.finished().then_some(first.name)
    }

    /// The segment's file is gone.
    pub(super) fn removed(&mut self, name: Sequence) {
        let Some(index) = self.segments.iter().position(|segment| segment.name == name) else { return };
        self.unknown.remove(&name);
        self.passed_over.remove(&name);
        if index == self.reading {
            self.end_segment();
        }
        if let Some(segment) = self.segments.remove(index) {
            self.disk_bytes -= segment.size;
        }
        if index < self.reading {
            self.reading -= 1;
        }
    }

    fn find(&mut self, name: Sequence) -> Option<&mut Segment> {
        let index = self.segments.binary_search_by_key(&name, |segment| segment.name).ok()?;
        self.segments.get_mut(index)
    }
}

mod held;
mod hidden;
mod load;
pub use held::HELD_MOST;
pub(super) use load::{Loads, User};
#[cfg(test)]
mod tests;
