//! What `lon reply` and `lon critical` share: where requests come from, where answers go, what they
//! mean.
//!
//! Requests from standard input are sent as they come, ahead of their answers and within the bounds
//! of [`Connection`]; answers are printed as they come, in order. When the broker goes, everything
//! not answered, and what is yet to be read, is answered by the command itself: every request has
//! its one line of output.

use super::{Asked, Failure, complain, print};
use base::line::{Line, LineReader, READ_SIZE};
use client::{Connection, MAX_ANSWER, Outcome};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

/// What is said to who may not ask.
pub(super) const REFUSED: &[u8] = b"refused";

/// Answers a request in the broker's place, and says on standard error why, if it has not said so
/// before.
pub(super) type Stand<'a> = dyn FnMut(&[u8], &io::Error) -> Vec<u8> + 'a;

/// Why the rules of this host refuse a prepared request, if they do.
pub(super) type Judge<'a> = dyn Fn(&[u8]) -> Option<String> + 'a;

/// Asks everything and returns the highest exit code. `prepare` makes what is sent of a request as
/// it was given; `judge` tells this host's own `refused` from the peer's; `stand_in` answers what
/// the broker cannot: it gets the prepared request if that was sent, else the request as it was
/// given.
pub(super) fn run(
    asked: &Asked,
    connected: io::Result<Connection>,
    prepare: impl Fn(&[u8]) -> Vec<u8>,
    judge: &Judge<'_>,
    stand_in: &mut Stand<'_>,
) -> Result<u8, Failure> {
    let mut output = Output::default();
    let mut source = match &asked.request {
        Some(request) => Source::Argument(Some(one_request(request.as_bytes())?.to_owned())),
        None => Source::Input { lines: LineReader::new(MAX_ANSWER), ended: false },
    };
    let broken = match connected {
        Err(error) => error,
        Ok(mut client) => match pump(&mut client, &mut source, &prepare, judge, &mut output)? {
            None => return output.finish(),
            Some(error) => {
                for request in client.into_unanswered() {
                    output.answer(&stand_in(&request, &error))?;
                }
                output.flush()?;
                error
            }
        },
    };
    while let Some(request) = source.wait_next()? {
        output.answer(&stand_in(&request, &broken))?;
        output.flush()?;
    }
    output.finish()
}

/// Moves requests and answers until all is answered (`None`) or the broker is gone (why).
fn pump(
    client: &mut Connection,
    source: &mut Source,
    prepare: impl Fn(&[u8]) -> Vec<u8>,
    judge: &Judge<'_>,
    output: &mut Output,
) -> Result<Option<io::Error>, Failure> {
    // Of each request that waits for its answer; as many as the client takes.
    let mut barred: VecDeque<Option<String>> = VecDeque::new();
    loop {
        while client.has_room() {
            let Some(request) = source.next()? else { break };
            let prepared = prepare(&request);
            if let Err(error) = client.send(&prepared) {
                return Err(Failure::did("send", "request", error));
            }
            barred.push_back(judge(&prepared));
        }
        if client.waiting() == 0 && source.is_done() {
            return Ok(None);
        }
        let input = io::stdin();
        let wanted = source.wants_input() && client.has_room();
        match client.turn(wanted.then(|| input.as_fd()), None) {
            Ok(true) => source.read()?,
            Ok(false) => {}
            Err(error) => return Ok(Some(error)),
        }
        loop {
            match client.next_answer() {
                Ok(Some(answer)) => {
                    let why = barred.pop_front().flatten().filter(|_| answer == REFUSED);
                    output.answer(&answer)?;
                    output.say_barred(why);
                }
                Ok(None) => break,
                Err(error) => return Ok(Some(error)),
            }
        }
        output.flush()?;
    }
}

/// An argument that is one request.
fn one_request(request: &[u8]) -> Result<&[u8], Failure> {
    if request.is_empty() {
        return Err(Failure::Usage("the request is empty: a blank line is no request".into()));
    }
    if request.contains(&b'\n') {
        return Err(Failure::Usage("the request has a newline in it: a request is one line".into()));
    }
    Ok(request)
}

/// Where requests come from.
enum Source {
    /// The command line; `None` when it was taken.
    Argument(Option<Vec<u8>>),
    /// Standard input, read by descriptor: a buffer of the standard library in between would hide
    /// from `poll` what it holds.
    Input { lines: LineReader, ended: bool },
}

impl Source {
    /// The next request that is there already.
    fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        match self {
            Source::Argument(request) => Ok(request.take()),
            Source::Input { lines, .. } => loop {
                match lines.next_line() {
                    // No request, and so without an answer.
                    Some(Line::Whole(b"")) => {}
                    Some(Line::Whole(line)) => return Ok(Some(line.to_owned())),
                    Some(Line::TooLong) => {
                        let what = format!("a line is longer than {MAX_ANSWER} bytes");
                        return Err(Failure::did("read", "standard input", what));
                    }
                    None => return Ok(None),
                }
            },
        }
    }

    /// The next request, waiting for it.
    fn wait_next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            match self.next()? {
                Some(request) => return Ok(Some(request)),
                None if self.is_done() => return Ok(None),
                None => self.read()?,
            }
        }
    }

    /// Whether standard input has more to give.
    fn wants_input(&self) -> bool {
        matches!(self, Source::Input { ended: false, .. })
    }

    /// Whether there will be no more requests. Meaningful once [`Source::next`] has given `None`.
    fn is_done(&self) -> bool {
        match self {
            Source::Argument(request) => request.is_none(),
            Source::Input { lines, ended } => *ended && lines.is_empty(),
        }
    }

    /// Reads what is there; waits if nothing is.
    fn read(&mut self) -> Result<(), Failure> {
        let Source::Input { lines, ended } = self else { return Ok(()) };
        let input = io::stdin();
        let mut buffer = [0; READ_SIZE];
        match nix::unistd::read(&input, &mut buffer) {
            Ok(0) => {
                *ended = true;
                // A last line without its newline is a request like the others.
                if lines.mid_line() {
                    lines.push(b"\n");
                }
                Ok(())
            }
            Ok(count) => {
                lines.push(&buffer[..count]);
                Ok(())
            }
            Err(Errno::EINTR) => Ok(()),
            // Whoever gave us this descriptor made it non-blocking.
            Err(Errno::EAGAIN) => {
                match poll(&mut [PollFd::new(input.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => Ok(()),
                    Err(error) => Err(Failure::did("read", "standard input", io::Error::from(error))),
                }
            }
            Err(error) => Err(Failure::did("read", "standard input", io::Error::from(error))),
        }
    }
}

/// Standard output, and what was said there.
#[derive(Default)]
struct Output {
    /// Answers that came together are written together; never more than [`READ_SIZE`] and one
    /// answer.
    pending: Vec<u8>,
    /// The highest exit code of the answers so far.
    highest: u8,
    /// Why this host refused a request, as it was said last.
    barred: Option<String>,
}

impl Output {
    fn answer(&mut self, answer: &[u8]) -> Result<(), Failure> {
        self.highest = self.highest.max(code_of(answer));
        self.pending.extend_from_slice(answer);
        self.pending.push(b'\n');
        if self.pending.len() >= READ_SIZE { self.flush() } else { Ok(()) }
    }

    /// Says why this host refused a request, unless that was said of the one before.
    fn say_barred(&mut self, why: Option<String>) {
        if let Some(why) = why.filter(|why| self.barred.as_ref() != Some(why)) {
            complain(&why);
            self.barred = Some(why);
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if !self.pending.is_empty() {
            print(&self.pending)?;
            self.pending.clear();
        }
        Ok(())
    }

    fn finish(mut self) -> Result<u8, Failure> {
        self.flush()?;
        Ok(self.highest)
    }
}

/// What an answer means as an exit code. `error:` is what the broker and the other end's `lond` say
/// of a request that was not answered; a handler whose own words begin so is taken for them, since
/// the line is all there is to tell by.
pub(super) fn code_of(answer: &[u8]) -> u8 {
    match Outcome::of(answer) {
        Outcome::Answer(_) => 0,
        Outcome::Lost => 3,
        Outcome::Delayed => 4,
        Outcome::Failed => 5,
        Outcome::Refused => 6,
        Outcome::Error(_) => 7,
    }
}
