//! What comes of a process that was started for one request. Pure.
//!
//! Its answer is the first line that it says, if it exits with 0. With [`LATER`] it has not taken
//! the request. Any other end is an error of `lond`'s own, and so is one with 0 without a word: an
//! empty answer has to be said, by an empty line.

use crate::handler::tag::Said;
use std::borrow::Cow;
use supervise::spawn::End;

/// Exit code of a program that cannot take its request now: `EX_TEMPFAIL` of `sysexits.h`.
const LATER: i32 = 75;

/// The first line of what a process says; what is behind it is dropped.
#[derive(Debug)]
pub(super) struct FirstLine {
    bytes: Vec<u8>,
    max_line: usize,
    whole: bool,
}

impl FirstLine {
    pub(super) fn new(max_line: usize) -> FirstLine {
        FirstLine { bytes: Vec::new(), max_line, whole: false }
    }

    /// Takes what it says. One byte more than a line may have is kept, to tell that it is too long.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.whole {
            return;
        }
        let end = memchr::memchr(b'\n', bytes);
        let room = (self.max_line + 1).saturating_sub(self.bytes.len());
        let line = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        self.bytes.extend_from_slice(line.get(..room).unwrap_or(line));
        self.whole = end.is_some() || self.bytes.len() > self.max_line;
    }
}

/// What came of the request.
pub(super) fn outcome(end: End, line: &FirstLine) -> Outcome<'_> {
    match end {
        End::Exited(0) if line.bytes.len() > line.max_line => {
            Outcome::Failed(format!("answer longer than {} bytes", line.max_line))
        }
        End::Exited(0) if line.bytes.is_empty() && !line.whole => {
            Outcome::Failed("exit 0 without an answer".to_owned())
        }
        End::Exited(0) => Outcome::Said(Said::Answer(&line.bytes)),
        End::Exited(LATER) => Outcome::Said(Said::Later),
        End::Exited(code) => Outcome::Failed(format!("exit {code}")),
        End::Killed(signal) => Outcome::Failed(format!("killed by {signal}")),
    }
}

/// What came of a request, before it is said whose.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome<'a> {
    /// Said by the program.
    Said(Said<'a>),
    /// It broke off; how.
    Failed(String),
}

/// The error that who has asked is answered.
pub(super) fn error<'a>(name: &str, why: impl Into<Cow<'a, str>>) -> String {
    format!("error:{name}: {}", why.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::Signal;

    fn line(parts: &[&[u8]]) -> FirstLine {
        let mut line = FirstLine::new(8);
        parts.iter().for_each(|part| line.push(part));
        line
    }

    #[test]
    fn the_first_line_is_the_answer_whole_or_not() {
        for (parts, answer) in [
            (&[&b"one\ntwo\n"[..]][..], &b"one"[..]),
            (&[b"o", b"ne", b"\n", b"two"], b"one"),
            (&[b"no newline".split_at(2).0], b"no"),
            (&[b"\nsecond"], b""),
            (&[b"12345678\n9"], b"12345678"),
        ] {
            let line = line(parts);
            assert_eq!(outcome(End::Exited(0), &line), Outcome::Said(Said::Answer(answer)));
        }
        for parts in [&[&b"123456789"[..]][..], &[b"12345678", b"9\n"], &[&[b'x'; 100_000]]] {
            let line = line(parts);
            assert!(line.bytes.len() <= 9, "what is too long is not kept");
            let why = "answer longer than 8 bytes".to_owned();
            assert_eq!(outcome(End::Exited(0), &line), Outcome::Failed(why));
        }
    }

    #[test]
    fn how_it_ended_says_whether_it_took_the_request_and_what_went_wrong() {
        let silent = "exit 0 without an answer".to_owned();
        assert_eq!(outcome(End::Exited(0), &line(&[])), Outcome::Failed(silent));
        let line = line(&[b"words\n"]);
        assert_eq!(outcome(End::Exited(75), &line), Outcome::Said(Said::Later));
        for (end, why) in [(End::Exited(3), "exit 3"), (End::Killed(Signal::SIGSEGV), "killed by SIGSEGV")] {
            assert_eq!(outcome(end, &line), Outcome::Failed(why.to_owned()));
        }
        assert_eq!(error("pay", "exit 3"), "error:pay: exit 3");
    }
}
