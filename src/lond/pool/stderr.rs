//! What programs say on standard error, as lines for the log: whole, escaped, and no more than a
//! quota. Pure.

use crate::handler::builtin::printable;
use std::time::{Duration, Instant};

/// Longest line in bytes; a longer one becomes several.
const MAX_LINE: usize = 1000;
/// Bytes that all processes of a handler may have logged at once; as many come back in [`REFILL`].
const MOST_BYTES: u64 = 64 * 1024;
const REFILL: Duration = Duration::from_secs(60);

/// A line that was begun by one process.
#[derive(Debug, Default)]
pub(super) struct Begun(Vec<u8>);

impl Begun {
    /// Takes what it says; `line` gets each that is whole.
    pub(super) fn push(&mut self, bytes: &[u8], line: &mut impl FnMut(&[u8])) {
        for &byte in bytes {
            if byte != b'\n' {
                self.0.push(byte);
            }
            if byte == b'\n' || self.0.len() >= MAX_LINE {
                self.end(line);
            }
        }
    }

    /// It says nothing more.
    pub(super) fn end(&mut self, line: &mut impl FnMut(&[u8])) {
        if !self.0.is_empty() {
            line(&self.0);
            self.0.clear();
        }
    }
}

/// How much more may be logged.
#[derive(Debug)]
pub(super) struct Bytes {
    left: u64,
    at: Instant,
    left_out: u64,
}

impl Bytes {
    pub(super) fn new(now: Instant) -> Bytes {
        Bytes { left: MOST_BYTES, at: now, left_out: 0 }
    }

    /// What is logged of a line, if anything.
    pub(super) fn line(&mut self, line: &[u8], now: Instant) -> Option<String> {
        let passed = now.saturating_duration_since(self.at).min(REFILL);
        let back = u128::from(MOST_BYTES) * passed.as_nanos() / REFILL.as_nanos();
        if back > 0 {
            self.left = (self.left + u64::try_from(back).unwrap_or(MOST_BYTES)).min(MOST_BYTES);
            self.at = now;
        }
        let length = line.len() as u64;
        if length > self.left {
            self.left_out += 1;
            return None;
        }
        self.left -= length;
        let text = printable(line);
        Some(match std::mem::take(&mut self.left_out) {
            0 => text,
            more => format!("{text} (and {more} lines before it were left out)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_and_one_without_end_in_parts() {
        let (mut begun, mut lines) = (Begun::default(), Vec::new());
        let mut line = |bytes: &[u8]| lines.push(bytes.to_vec());
        for part in [&b"fir"[..], b"st\n\nsecond\nth", b"ird", &[b'x'; 2100]] {
            begun.push(part, &mut line);
        }
        begun.end(&mut line);
        begun.end(&mut line);
        let lengths: Vec<_> = lines.iter().map(Vec::len).collect();
        assert_eq!(lines[..2], [b"first".to_vec(), b"second".to_vec()]);
        assert_eq!(lengths[2..], [1000, 1000, 105]);
    }

    #[test]
    fn what_is_beyond_the_quota_is_counted_and_the_quota_fills_again() {
        let now = Instant::now();
        let mut bytes = Bytes::new(now);
        let line = [b'a'; 1000];
        let logged = (0..100).filter(|_| bytes.line(&line, now).is_some()).count();
        assert_eq!(logged, 65);
        let said = bytes.line(b"\x1b[2J", now + REFILL).unwrap();
        assert_eq!(said, "\\x1b[2J (and 35 lines before it were left out)");
        assert_eq!((0..100).filter(|_| bytes.line(&line, now + REFILL).is_some()).count(), 65);
    }
}
