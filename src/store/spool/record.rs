//! One stored message as one line of text, and back.
//!
//! Pure. The line is laid out byte by byte in `docs/spool.md`; everything before the request has a
//! fixed width, so that the progress mark can be overwritten in place and `cut -c72-` shows the
//! requests. Whose the message is stands behind the request, where it is known: a reader that does
//! not know of that still finds the message. [`parse`] proves a line by its length and CRC-32 and
//! never panics, whatever the bytes.

use base::{Sequence, decimal};
use jiff::Timestamp;
use std::ops::Range;

/// Bytes before the request.
pub(super) const HEADER: usize = 71;
/// Shortest line with its newline: an empty request.
pub(super) const SHORTEST_LINE: u64 = HEADER as u64 + 1;
/// Bytes between the request and the newline where the user is known: ` <uid> <CRC>`.
pub(super) const USER: usize = 20;
/// Where the progress mark stands in the line. The CRC does not cover it.
pub(super) const MARK_AT: usize = 21;
/// Longest request that a record may hold: 16 MiB. A longer one is refused
/// ([`super::StoreError::TooLong`]); a file dropped in whose first line is longer goes to
/// `corrupt/`.
pub const MAX_REQUEST: usize = 16 * 1024 * 1024;

/// The mark of a message that waits. Any byte but [`ANSWERED`] counts as this: a repeat is better
/// than a loss.
pub(super) const WAITS: u8 = b'-';
/// The mark of a message that was answered.
pub(super) const ANSWERED: u8 = b'+';

const SEQUENCE: Range<usize> = 0..20;
const TIME: Range<usize> = 23..50;
const LENGTH: Range<usize> = 51..61;
const CRC: Range<usize> = 62..70;

/// A line that was proven whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The sequence under which the peer knows the message.
    pub sequence: Sequence,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// Whose it is, if that is known.
    pub user: Option<u32>,
    /// Whether the progress mark says that it was answered.
    pub answered: bool,
    /// The request, in the form in which it is stored.
    pub request: &'a [u8],
}

impl Record<'_> {
    /// Bytes of the line without its newline.
    pub fn line_len(&self) -> usize {
        HEADER + self.request.len() + user_len(self.user)
    }
}

/// Bytes that the line of a request takes, its newline counted.
pub(super) fn line_len(user: Option<u32>, request: &[u8]) -> u64 {
    SHORTEST_LINE + (request.len() + user_len(user)) as u64
}

fn user_len(user: Option<u32>) -> usize {
    if user.is_some() { USER } else { 0 }
}

/// Adds the line of one waiting message to `out`.
pub(super) fn append_line(
    out: &mut Vec<u8>,
    sequence: Sequence,
    stored_at: Timestamp,
    user: Option<u32>,
    request: &[u8],
) {
    let start = out.len();
    let waits = WAITS as char;
    let head = format!("{sequence} {waits} {} {:010} 00000000 ", time_text(stored_at), request.len());
    debug_assert_eq!(head.len(), HEADER);
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(request);
    if let Some(user) = user {
        out.extend_from_slice(user_text(sequence, user).as_bytes());
    }
    out.push(b'\n');
    let crc = crc_text(&out[start..start + HEADER], request);
    out[start + CRC.start..start + CRC.end].copy_from_slice(&crc);
}

/// The record that `bytes` begin with, if they begin with a whole one. The newline is not looked
/// at: a line that lost nothing but its end is still proven by its CRC.
pub(super) fn parse(bytes: &[u8]) -> Option<Record<'_>> {
    let head = bytes.get(..HEADER)?;
    let sequence = Sequence::from_digits(&head[SEQUENCE])?;
    let length = usize::try_from(decimal(&head[LENGTH])?).ok()?;
    let request = bytes.get(HEADER..HEADER.checked_add(length)?)?;
    if head[HEADER - 1] != b' ' || head[CRC] != crc_text(head, request) {
        return None;
    }
    let stored_at = std::str::from_utf8(&head[TIME]).ok()?.parse().ok()?;
    let user = bytes.get(HEADER + length..).and_then(|behind| parse_user(sequence, behind));
    Some(Record { sequence, stored_at, user, answered: head[MARK_AT] == ANSWERED, request })
}

/// What stands between request and newline. Its CRC covers the sequence too: it is this message's.
fn user_text(sequence: Sequence, user: u32) -> String {
    let digits = format!("{user:010}");
    let crc = crc32fast::hash(format!("{sequence}{digits}").as_bytes());
    format!(" {digits} {crc:08x}")
}

/// The user that `behind` begins with, if it is proven.
fn parse_user(sequence: Sequence, behind: &[u8]) -> Option<u32> {
    let user = u32::try_from(decimal(behind.get(1..11)?)?).ok()?;
    behind.starts_with(user_text(sequence, user).as_bytes()).then_some(user)
}

/// CRC-32 of all that stands before the CRC except the mark, and of the request; as lower-case hex.
fn crc_text(head: &[u8], request: &[u8]) -> [u8; 8] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[..MARK_AT]);
    hasher.update(&head[MARK_AT + 1..CRC.start]);
    hasher.update(request);
    let mut text = [0; 8];
    for (digit, byte) in text.iter_mut().enumerate() {
        let nibble = (hasher.clone().finalize() >> (28 - 4 * digit)) & 15;
        *byte = b"0123456789abcdef"[nibble as usize];
    }
    text
}

/// The time with microseconds, always 27 characters. A clock outside the years 0 to 9999 is written
/// as 1970: the sequence gives the order, the time is for people.
pub(super) fn time_text(time: Timestamp) -> String {
    let text = time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    if text.len() == TIME.len() { text } else { "1970-01-01T00:00:00.000000Z".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Timestamp {
        "2026-03-01T12:30:00.123456Z".parse().unwrap()
    }

    #[test]
    fn a_line_is_laid_out_as_documented() {
        let mut line = Vec::new();
        append_line(&mut line, Sequence(42), at(), None, b"log:hello");
        let text = String::from_utf8(line).unwrap();
        assert_eq!(&text[..62], "00000000000000000042 - 2026-03-01T12:30:00.123456Z 0000000009 ");
        assert_eq!(&text[70..], " log:hello\n");
        let covered = "00000000000000000042  2026-03-01T12:30:00.123456Z 0000000009 log:hello";
        assert_eq!(&text[62..70], format!("{:08x}", crc32fast::hash(covered.as_bytes())));
    }

    #[test]
    fn any_bytes_come_back_and_the_mark_is_read_without_touching_the_crc() {
        let every: Vec<u8> = (0..=255u8).filter(|byte| *byte != b'\n').collect();
        for request in [&b""[..], b"ping", &every, &[0; 600]] {
            let mut line = Vec::new();
            append_line(&mut line, Sequence(u64::MAX), at(), None, request);
            assert_eq!(line.len() as u64, line_len(None, request));
            let found = parse(&line).unwrap();
            assert_eq!((found.sequence, found.stored_at, found.request), (Sequence(u64::MAX), at(), request));
            assert!(!found.answered);
            line[MARK_AT] = ANSWERED;
            assert!(parse(&line).unwrap().answered);
            line[MARK_AT] = b'?';
            assert!(!parse(&line).unwrap().answered, "an unknown mark waits");
        }
    }

    #[test]
    fn a_changed_bit_anywhere_but_in_mark_and_newline_breaks_the_record() {
        let mut line = Vec::new();
        append_line(&mut line, Sequence(7), at(), None, b"abcABC019 \xff\0");
        for place in (0..line.len() - 1).filter(|place| *place != MARK_AT) {
            for bit in 0..8 {
                line[place] ^= 1 << bit;
                assert_eq!(parse(&line), None, "byte {place}, bit {bit}");
                line[place] ^= 1 << bit;
            }
        }
        assert!(parse(&line).is_some());
    }

    #[test]
    fn whose_a_message_is_stands_behind_it_and_what_is_wrong_there_costs_no_more_than_that() {
        for user in [0, 1000, u32::MAX - 1] {
            let mut line = Vec::new();
            append_line(&mut line, Sequence(7), at(), Some(user), b"ping");
            assert_eq!(line.len() as u64, line_len(Some(user), b"ping"));
            let found = parse(&line).unwrap();
            assert_eq!(
                (found.user, found.request, found.line_len() + 1),
                (Some(user), &b"ping"[..], line.len())
            );
            let end = HEADER + 4;
            for place in end..line.len() - 1 {
                for bit in 0..8 {
                    line[place] ^= 1 << bit;
                    let found = parse(&line).unwrap();
                    assert_eq!((found.user, found.request), (None, &b"ping"[..]), "byte {place}, bit {bit}");
                    line[place] ^= 1 << bit;
                }
            }
            for cut in end..line.len() - 1 {
                assert_eq!(parse(&line[..cut]).unwrap().user, None, "cut at {cut}");
            }
            let text = String::from_utf8(line).unwrap();
            let covered = format!("00000000000000000007{user:010}");
            let crc = crc32fast::hash(covered.as_bytes());
            assert_eq!(&text[end..], format!(" {user:010} {crc:08x}\n"), "as documented");
        }
    }

    #[test]
    fn a_clock_outside_four_digit_years_keeps_the_width() {
        for time in [Timestamp::MIN, Timestamp::MAX, at()] {
            assert_eq!(time_text(time).len(), TIME.len());
        }
    }
}
