//! The bytes of a segment, read as lines.
//!
//! Pure. [`Scan`] gives out what it finds from the front: whole records and damaged stretches.
//! Zeros to the end, or the end of the bytes, end it. A damaged stretch runs to the next place
//! where a record can be proven: behind a newline, behind a run of zeros (a lost block), or one
//! byte on (a damaged newline). So damage never hides a neighbour, and damage that touches is one
//! stretch.

use super::record::{self, Record, SHORTEST_LINE};
use base::Sequence;

/// Bytes of a segment, unless its first record needs more or the spool's bound is small: 1 MiB.
pub const SEGMENT_BYTES: u64 = 1024 * 1024;
/// Largest segment file that is read: one record of the longest kind, with room. A larger one is
/// not ours; it is reported and left alone.
pub(super) const MAX_SEGMENT_BYTES: u64 = record::MAX_REQUEST as u64 + SEGMENT_BYTES;

/// One thing found in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A message.
    Record(Record<'a>),
    /// Bytes that no record of this segment can be proven in.
    Damaged(&'a [u8]),
}

/// Reads a segment's bytes from the front.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    least: Sequence,
    bound: Sequence,
}

impl<'a> Scan<'a> {
    /// A reader of `bytes`, which begin where a line does. Sequences that do not rise from `least`
    /// are damage, and so are those from `bound` on: they belong to a later segment. (A store that
    /// failed here may have left such a line behind; it was refused.)
    pub(super) fn new(bytes: &'a [u8], least: Sequence, bound: Sequence) -> Scan<'a> {
        Scan { bytes, at: 0, least, bound }
    }

    /// Bytes passed so far, newlines of records counted.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The least sequence that may come next.
    pub(super) fn least(&self) -> Sequence {
        self.least
    }

    fn record_at(&self, at: usize) -> Option<Record<'a>> {
        let here = self.least..self.bound;
        record::parse(&self.bytes[at..]).filter(|record| here.contains(&record.sequence))
    }

    fn ends_at(&self, at: usize) -> bool {
        let rest = &self.bytes[at..];
        rest.first().is_none_or(|byte| *byte == 0) && rest.iter().all(|byte| *byte == 0)
    }

    /// Where reading goes on after a place where no record is.
    fn end_of_damage(&self, start: usize) -> usize {
        for at in start + 1..self.bytes.len() {
            let (before, here) = (self.bytes[at - 1], self.bytes[at]);
            let may_begin = at == start + 1 || before == b'\n' || (before == 0 && here != 0);
            if may_begin && (self.record_at(at).is_some() || self.ends_at(at)) {
                return at;
            }
        }
        // Something but zeros is here, or the scan would have ended.
        self.bytes.iter().rposition(|byte| *byte != 0).map_or(self.bytes.len(), |last| last + 1)
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        if self.ends_at(self.at) {
            return None;
        }
        let start = self.at;
        let Some(record) = self.record_at(start) else {
            self.at = self.end_of_damage(start);
            return Some(Found::Damaged(&self.bytes[start..self.at]));
        };
        self.at += record.line_len();
        // A newline that was damaged is the next thing found; one that is missing at the end is no
        // loss.
        if self.bytes.get(self.at) == Some(&b'\n') {
            self.at += 1;
        }
        self.least = record.sequence.next();
        Some(Found::Record(record))
    }
}

/// Most messages that `bytes` of damage can have held. Their sequences lie below the reservation;
/// if that was lost with the epoch, the names of new segments must at least not fall among them.
pub(super) fn most_records(bytes: u64) -> u64 {
    bytes / SHORTEST_LINE + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn lines(requests: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, request) in (1..).zip(requests) {
            record::append_line(&mut bytes, Sequence(number), Timestamp::UNIX_EPOCH, None, request);
        }
        bytes
    }

    fn found(bytes: &[u8]) -> Vec<String> {
        Scan::new(bytes, Sequence(1), Sequence(100))
            .map(|found| match found {
                Found::Record(record) => String::from_utf8_lossy(record.request).into_owned(),
                Found::Damaged(bytes) => format!("damaged {}", bytes.len()),
            })
            .collect()
    }

    #[test]
    fn damage_up_to_the_end_is_one_piece() {
        let mut bytes = lines(&[b"one"]);
        bytes.extend_from_slice(b"no line at all\0and more\0\0\0");
        assert_eq!(found(&bytes), ["one", "damaged 23"]);
    }

    #[test]
    fn no_more_records_than_the_shortest_ones_fit_into_bytes() {
        let shortest = lines(&[b""]).len() as u64;
        for whole in [0, 1, 2, 1000] {
            assert_eq!(most_records(whole * shortest), whole + 1);
            assert_eq!(most_records(whole * shortest + shortest - 1), whole + 1);
        }
    }

    #[test]
    fn zeros_or_the_end_of_the_bytes_end_a_segment() {
        let mut bytes = lines(&[b"one", b"two\0\0"]);
        assert_eq!(found(&bytes), ["one", "two\0\0"]);
        bytes.resize(5000, 0);
        assert_eq!(found(&bytes), ["one", "two\0\0"]);
        assert!(found(&[0; 5000]).is_empty());
        assert!(found(&[]).is_empty());
    }

    #[test]
    fn a_damaged_newline_costs_no_message() {
        let mut bytes = lines(&[b"one", b"two", b"three"]);
        let first_end = 71 + 3;
        for wrong in [0, b'x', b' '] {
            bytes[first_end] = wrong;
            assert_eq!(found(&bytes), ["one", "damaged 1", "two", "three"]);
        }
        let cut = bytes.len() - 1;
        assert_eq!(found(&bytes[..cut]), ["one", "damaged 1", "two", "three"]);
    }

    #[test]
    fn a_block_of_zeros_in_the_middle_does_not_hide_what_follows() {
        let mut bytes = lines(&[&[b'a'; 441], &[b'b'; 440], b"after"]);
        bytes[512..1024].fill(0);
        assert_eq!(found(&bytes).last().unwrap(), "after");
        // The lost block ends exactly with a line: no newline is left before the next.
        let mut bytes = lines(&[&[b'a'; 440], b"after", b"last"]);
        bytes[..512].fill(0);
        assert_eq!(found(&bytes), ["damaged 512", "after", "last"]);
    }

    #[test]
    fn garbage_that_touches_is_one_stretch() {
        let mut bytes = b"no\nrecord\n\nat all\n".to_vec();
        bytes.extend(lines(&[b"good"]));
        bytes.extend(b"tail\nof\0garbage");
        bytes.resize(2000, 0);
        assert_eq!(found(&bytes), ["damaged 18", "good", "damaged 15"]);
    }

    #[test]
    fn sequences_that_do_not_rise_or_belong_to_a_later_segment_are_damage() {
        let mut bytes = lines(&[b"one", b"two"]);
        bytes.extend(lines(&[b"one again"]));
        assert_eq!(found(&bytes), ["one", "two", "damaged 81"]);
        let bytes = lines(&[b"one", b"two"]);
        let kinds: Vec<_> = Scan::new(&bytes, Sequence(1), Sequence(2)).collect();
        assert!(matches!(kinds[..], [Found::Record(_), Found::Damaged(_)]));
    }
}
