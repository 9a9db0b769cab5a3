//! What is said to a program that is kept running, and what it says. Pure.
//!
//! In the form `line` it has one request at a time and answers with a line. In the form `tagged` it
//! has up to [`MOST_OPEN`], under tags of the pool's own, and answers in any order. One that says
//! what it was not asked for is broken, and is to be killed.

use super::queue::Ask;
use crate::handler::tag::{Answer, Said, Speaker};
use base::line::{Line, LineReader, Outgoing};
use config::Form;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Requests that one process of the form `tagged` has at a time.
const MOST_OPEN: usize = 128;

/// One request that it was given.
#[derive(Debug)]
struct Open {
    ask: Ask,
    tag: u64,
    /// Where its line begins, in bytes since the process was started.
    start: u64,
    since: Instant,
}

/// A conversation with one process.
#[derive(Debug)]
pub(super) struct Talk {
    form: Form,
    max_line: usize,
    reader: LineReader,
    /// In the order in which they were given.
    open: VecDeque<Open>,
    next: u64,
}

impl Talk {
    pub(super) fn new(form: Form, max_line: usize) -> Talk {
        // With the digits of a tag.
        let reader = LineReader::sparing(max_line + 32);
        Talk { form, max_line, reader, open: VecDeque::new(), next: 1 }
    }

    /// How many more it can be given.
    pub(super) fn room(&self) -> usize {
        let most = match self.form {
            Form::Line => 1,
            Form::Tagged => MOST_OPEN,
        };
        most - self.open.len().min(most)
    }

    /// Gives it a request.
    pub(super) fn ask(&mut self, ask: Ask, out: &mut Outgoing, now: Instant) {
        let (tag, start) = (self.next, out.end());
        self.next += 1;
        match self.form {
            Form::Line => out.push_line(&ask.text),
            Form::Tagged => {
                ask.request(tag).put(out.tail());
                out.tail().push(b'\n');
            }
        }
        self.open.push_back(Open { ask, tag, start, since: now });
    }

    /// Takes what it says, and gives out what comes of its requests.
    ///
    /// # Errors
    /// It says what it was not asked for: it is broken.
    pub(super) fn received(
        &mut self,
        bytes: &[u8],
        answer: &mut impl FnMut(Ask, Result<Said<'_>, String>),
    ) -> Result<(), String> {
        self.reader.push(bytes);
        while let Some(line) = self.reader.next_line() {
            let too_long = format!("answer longer than {} bytes", self.max_line);
            let line = match (line, self.form) {
                (Line::Whole(line), _) => line,
                (Line::TooLong, Form::Line) => {
                    let open = self.open.pop_front().ok_or("it says more than it was asked")?;
                    answer(open.ask, Err(too_long));
                    continue;
                }
                // Whose, is lost with the line.
                (Line::TooLong, Form::Tagged) => return Err(too_long),
            };
            let (open, said) = match self.form {
                Form::Line => {
                    let open = self.open.pop_front().ok_or("it says more than it was asked")?;
                    (open, Said::Answer(line))
                }
                Form::Tagged => {
                    let Answer { tag, said } =
                        Answer::parse(line, Speaker::Program).map_err(|error| error.to_string())?;
                    let at = self.open.iter().position(|open| open.tag == tag);
                    let open = at.and_then(|at| self.open.remove(at));
                    (open.ok_or_else(|| format!("it answers {tag}, which it was not asked"))?, said)
                }
            };
            match said {
                Said::Answer(text) if text.len() > self.max_line => answer(open.ask, Err(too_long)),
                said => answer(open.ask, Ok(said)),
            }
        }
        // Of a line form nothing may be begun without a request.
        let unasked = self.form == Form::Line && self.open.is_empty() && !self.reader.is_empty();
        self.reader.compact();
        if unasked { Err("it says more than it was asked".to_owned()) } else { Ok(()) }
    }

    /// By when it must have answered what it has had longest.
    pub(super) fn deadline(&self, timeout: Duration) -> Option<Instant> {
        self.open.front().map(|open| open.since + timeout)
    }

    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// It is no more, and has read so many bytes: what it had begun, and what it had not.
    pub(super) fn ended(&mut self, read: u64) -> (Vec<Ask>, Vec<Ask>) {
        let (begun, rest): (Vec<_>, Vec<_>) = self.open.drain(..).partition(|open| open.start < read);
        let asks = |open: Vec<Open>| open.into_iter().map(|open| open.ask).collect();
        (asks(begun), asks(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::tag::Request;

    fn ask(tag: u64, text: &[u8]) -> Ask {
        Ask::new(1, &Request { tag, from: b"msua1", id: b"e/1", key: b"-", text }, Instant::now())
    }

    fn heard(talk: &mut Talk, bytes: &[u8]) -> (Vec<String>, Result<(), String>) {
        let mut all = Vec::new();
        let done = talk.received(bytes, &mut |ask, said| {
            let said = said.map(|said| match said {
                Said::Answer(text) => String::from_utf8_lossy(text).into_owned(),
                other => format!("{other:?}"),
            });
            all.push(format!("{} {}", ask.tag, said.unwrap_or_else(|why| format!("failed: {why}"))));
        });
        (all, done)
    }

    #[test]
    fn of_the_form_line_it_has_one_at_a_time_and_its_line_is_the_answer() {
        let (mut talk, mut out, now) = (Talk::new(Form::Line, 10), Outgoing::default(), Instant::now());
        talk.ask(ask(7, b"echo: one "), &mut out, now);
        assert_eq!((talk.room(), out.bytes()), (0, &b"echo: one \n"[..]));
        assert_eq!(talk.deadline(Duration::from_secs(1)), Some(now + Duration::from_secs(1)));
        assert_eq!(heard(&mut talk, b"7!la"), (vec![], Ok(())));
        assert_eq!(heard(&mut talk, b"ter\n"), (vec!["7 7!later".to_owned()], Ok(())));
        assert_eq!((talk.room(), talk.deadline(Duration::ZERO)), (1, None));
        talk.ask(ask(8, b"x"), &mut out, now);
        let long = [b'x'; 11];
        let (said, done) = heard(&mut talk, &[&long[..], b"\n"].concat());
        assert_eq!((&*said, done), (&["8 failed: answer longer than 10 bytes".to_owned()][..], Ok(())));
        assert!(heard(&mut talk, b"u").1.is_err(), "not even a part of a line");
        talk.ask(ask(9, b"x"), &mut out, now);
        let (said, done) = heard(&mut talk, b"nasked\nmore\n");
        assert_eq!(said, ["9 unasked"]);
        assert!(done.unwrap_err().contains("more than it was asked"));
    }

    #[test]
    fn of_the_form_tagged_it_has_many_under_tags_of_the_pools_own_and_answers_in_any_order() {
        let (mut talk, mut out, now) = (Talk::new(Form::Tagged, 100), Outgoing::default(), Instant::now());
        for tag in [700, 700, 3] {
            talk.ask(ask(tag, b"echo:x"), &mut out, now);
        }
        assert_eq!(out.bytes(), b"1 msua1 e/1 - echo:x\n2 msua1 e/1 - echo:x\n3 msua1 e/1 - echo:x\n");
        let (said, done) = heard(&mut talk, b"3 three\n1!later\n2 \n");
        assert_eq!((&*said, done), (&["3 three", "700 Later", "700 "].map(str::to_owned)[..], Ok(())));
        assert_eq!(talk.room(), MOST_OPEN);
        talk.ask(ask(5, b"echo:x"), &mut out, now);
        for (line, why) in
            [(&b"9 x\n"[..], "answers 9"), (b"4!busy\n", "nothing else"), (b"hello\n", "decimal tag")]
        {
            let (said, done) = heard(&mut talk, line);
            assert!(said.is_empty() && done.unwrap_err().contains(why));
        }
        let (_, done) = heard(&mut talk, &[b'1'; 300]);
        assert!(done.unwrap_err().contains("longer than 100"));
    }

    #[test]
    fn what_it_has_read_nothing_of_was_not_begun() {
        let now = Instant::now();
        let given = |read: u64| {
            let (mut talk, mut out) = (Talk::new(Form::Tagged, 100), Outgoing::default());
            for tag in 1..4 {
                talk.ask(ask(tag, b"echo"), &mut out, now);
            }
            assert_eq!(out.len(), 57);
            let (begun, rest) = talk.ended(read);
            assert_eq!(talk.room(), MOST_OPEN);
            (begun.len(), rest.iter().map(|ask| ask.tag).collect::<Vec<_>>())
        };
        assert_eq!(given(0), (0, vec![1, 2, 3]));
        assert_eq!(given(1), (1, vec![2, 3]));
        assert_eq!(given(19), (1, vec![2, 3]));
        assert_eq!(given(20), (2, vec![3]));
        assert_eq!(given(57), (3, vec![]));
    }
}
