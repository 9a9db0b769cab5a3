//! The lines of the `tagged` form, as they are written and read at both ends.
//!
//! ```text
//! to a program:  <tag> <from> <id> <key> <request>
//! from it:       <tag> <answer>
//!                <tag>!later               not taken: keep it
//! and from a process of lond's own, which runs programs, alone:
//!                <tag>!busy                not taken: too many wait already
//!                <tag>!away <why>          not taken: the program cannot be run
//!                <tag>!failed <error:...>  taken, and no answer of the program's own will come
//! ```
//!
//! `tag`: decimal, as the asking end chose it; `from`: the asking host's id; `id`:
//! `<epoch>/<sequence>` of a critical message; `key`: the client's own; `-` where there is none.
//! The request and the answer are what is left of the line, with all their blanks. Answers come in
//! any order. The newline is no part of what is parsed, and is not written here either.
//!
//! Pure. What is no such line is a [`TagError`], which says what was wrong with which line.

use super::builtin::printable;
use base::decimal;
use base::line::without_return;
use std::io::Write;

/// Stands where there is no id or no key.
pub const NONE: &[u8] = b"-";

/// Most digits of a tag.
const MAX_DIGITS: usize = 20;
/// So much of a line that is none is shown.
const SHOWN: usize = 60;

/// Why a line is none of this form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: \"{line}\"")]
pub struct TagError {
    what: &'static str,
    line: String,
}

impl TagError {
    fn of(line: &[u8], what: &'static str) -> TagError {
        let shown = line.get(..SHOWN).unwrap_or(line);
        let more = if shown.len() < line.len() { "..." } else { "" };
        TagError { what, line: printable(shown) + more }
    }
}

/// A request, on its way to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// By which its answer is known.
    pub tag: u64,
    /// Who asks.
    pub from: &'a [u8],
    /// `<epoch>/<sequence>` of a critical message, or [`NONE`].
    pub id: &'a [u8],
    /// The client's own key, or [`NONE`].
    pub key: &'a [u8],
    /// What is asked.
    pub text: &'a [u8],
}

impl<'a> Request<'a> {
    /// Whether it is a critical message, which its sender keeps until it is answered.
    pub fn is_critical(&self) -> bool {
        self.id != NONE
    }

    /// Appends its line, without a newline.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_number(self.tag, out);
        for word in [self.from, self.id, self.key, self.text] {
            out.push(b' ');
            out.extend_from_slice(word);
        }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(line: &'a [u8]) -> Result<Request<'a>, TagError> {
        let fail = |what| move || TagError::of(line, what);
        let (tag, rest) = number(line).ok_or_else(fail("a request without a decimal tag"))?;
        let mut words = rest.splitn(5, |byte| *byte == b' ');
        // What is before the first blank belongs to the tag.
        let behind = words.next().is_some_and(<[u8]>::is_empty);
        let mut word = || words.next().filter(|word| behind && !word.is_empty());
        let (Some(from), Some(id), Some(key)) = (word(), word(), word()) else {
            return Err(TagError::of(line, "a request without <from> <id> <key> behind its tag"));
        };
        let text = words.next().ok_or_else(fail("a request without its text"))?;
        Ok(Request { tag, from, id, key, text })
    }
}

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<'a> {
    /// The program's own answer.
    Answer(&'a [u8]),
    /// It was not taken: it is to be kept, and asked again later.
    Later,
    /// It was not taken, since too many wait.
    Busy,
    /// It was not taken, since the program cannot be run: why.
    Away(&'a [u8]),
    /// It was taken, or may have been, and no answer of the program's will come: `lond`'s own,
    /// `error:...`.
    Failed(&'a [u8]),
}

/// Who says something of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// A program, which answers or says `!later`.
    Program,
    /// A process of `lond`'s own.
    Pool,
}

/// An answer, or what is said in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The request's.
    pub tag: u64,
    /// What came of it.
    pub said: Said<'a>,
}

impl<'a> Answer<'a> {
    /// Appends its line, without a newline.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_number(self.tag, out);
        let (mark, text): (&[u8], &[u8]) = match self.said {
            Said::Answer(text) => (b" ", text),
            Said::Later => (b"!later", b""),
            Said::Busy => (b"!busy", b""),
            Said::Away(why) => (b"!away ", why),
            Said::Failed(text) => (b"!failed ", text),
        };
        out.extend_from_slice(mark);
        out.extend_from_slice(text);
    }

    /// Reads a line. A carriage return behind a word is no part of it; in an answer it is.
    ///
    /// # Errors
    /// It is none, or one that this speaker has no right to.
    pub fn parse(line: &'a [u8], speaker: Speaker) -> Result<Answer<'a>, TagError> {
        let fail = |what| Err(TagError::of(line, what));
        let Some((tag, rest)) = number(line) else { return fail("an answer without a decimal tag") };
        let said = match (rest.split_first(), speaker) {
            (Some((b' ', text)), _) => Said::Answer(text),
            (Some((b'!', word)), _) if without_return(word) == b"later" => Said::Later,
            (Some((b'!', b"busy")), Speaker::Pool) => Said::Busy,
            (Some((b'!', word)), Speaker::Pool) => {
                match (word.strip_prefix(b"failed "), word.strip_prefix(b"away ")) {
                    (Some(text), _) => Said::Failed(text),
                    (None, Some(why)) => Said::Away(why),
                    (None, None) => return fail("an unknown word behind the tag of an answer"),
                }
            }
            (Some((b'!', _)), Speaker::Program) => return fail("want <tag>!later, nothing else behind a !"),
            (Some(_) | None, _) => return fail("an answer without a blank behind its tag"),
        };
        Ok(Answer { tag, said })
    }
}

fn put_number(number: u64, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{number}");
}

/// The number that a line begins with, and what is behind it.
fn number(line: &[u8]) -> Option<(u64, &[u8])> {
    let end = line.iter().take(MAX_DIGITS + 1).take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = line.split_at_checked(end)?;
    let number = (1..=MAX_DIGITS).contains(&end).then(|| decimal(digits)).flatten()?;
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_back_as_it_was_written_with_all_its_blanks() {
        let long = [b'x'; 100_000];
        for (tag, id, key, text) in [
            (0, &b"-"[..], &b"-"[..], &b"echo:one"[..]),
            (u64::MAX, b"00ff/00000000000000000007", b"k-1.2", b"  echo : two  "),
            (7, b"-", b"k", b""),
            (8, b"e/1", b"-", b"\xff\x00\r"),
            (9, b"-", b"-", &long),
        ] {
            let request = Request { tag, from: b"msua1", id, key, text };
            let mut line = Vec::new();
            request.put(&mut line);
            assert_eq!(Request::parse(&line), Ok(request), "{}", line.escape_ascii());
            assert_eq!(request.is_critical(), id != b"-");
        }
        let mut line = Vec::new();
        Request { tag: 12, from: b"a", id: b"e/3", key: b"-", text: b"echo:x y" }.put(&mut line);
        assert_eq!(line, b"12 a e/3 - echo:x y");
    }

    #[test]
    fn what_is_no_request_is_said_with_the_line() {
        for (line, what) in [
            (&b""[..], "decimal tag"),
            (b"x a - - echo", "decimal tag"),
            (b" 1 a - - echo", "decimal tag"),
            (b"-1 a - - echo", "decimal tag"),
            (b"18446744073709551616 a - - echo", "decimal tag"),
            (b"000000000000000000001 a - - echo", "decimal tag"),
            (b"1", "behind its tag"),
            (b"1x a - - echo", "behind its tag"),
            (b"1  - - echo", "behind its tag"),
            (b"1 a - ", "behind its tag"),
            (b"1 a - -", "without its text"),
        ] {
            let error = Request::parse(line).unwrap_err().to_string();
            let shown = format!("\"{}\"", printable(line));
            assert!(error.contains(what) && error.ends_with(&shown), "{error}");
        }
        let error = Request::parse(&[b'x'; 1000]).unwrap_err().to_string();
        assert!(error.len() < 120 && error.ends_with("xxx...\""), "{error}");
    }

    #[test]
    fn what_is_said_comes_back_as_it_was_written() {
        for (said, line) in [
            (Said::Answer(b"got  it "), &b"5 got  it "[..]),
            (Said::Answer(b""), b"5 "),
            (Said::Answer(b"!later"), b"5 !later"),
            (Said::Answer(b"\xff\r"), b"5 \xff\r"),
            (Said::Later, b"5!later"),
            (Said::Busy, b"5!busy"),
            (Said::Away(b"start /x: no"), b"5!away start /x: no"),
            (Said::Failed(b"error:echo: exit 3"), b"5!failed error:echo: exit 3"),
        ] {
            let (answer, mut out) = (Answer { tag: 5, said }, Vec::new());
            answer.put(&mut out);
            assert_eq!(out, line);
            assert_eq!(Answer::parse(line, Speaker::Pool), Ok(answer));
            let own = matches!(said, Said::Busy | Said::Away(_) | Said::Failed(_));
            assert_eq!(Answer::parse(line, Speaker::Program).is_err(), own, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_answer_is_said_with_the_line() {
        let later = Answer { tag: 1, said: Said::Later };
        assert_eq!(Answer::parse(b"1!later\r", Speaker::Program), Ok(later));
        for (line, what) in [
            (&b"hello"[..], "decimal tag"),
            (b"", "decimal tag"),
            (b"99999999999999999999 x", "decimal tag"),
            (b"1", "without a blank"),
            (b"1:x", "without a blank"),
            (b"1!later x", "nothing else"),
            (b"1!busy", "nothing else"),
            (b"1!", "nothing else"),
            (b"1\x1b[2J", "without a blank"),
        ] {
            let error = Answer::parse(line, Speaker::Program).unwrap_err().to_string();
            assert!(error.contains(what) && error.ends_with(&format!("\"{}\"", printable(line))), "{error}");
        }
        for line in [&b"1!failed"[..], b"1!soon", b"1!busy x"] {
            assert!(Answer::parse(line, Speaker::Pool).is_err());
        }
    }
}
