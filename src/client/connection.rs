//! One connection to a peer's local socket, and what waits for its answer on it.
//!
//! Keeps the rule of that socket (a request is a line, every request gets one answer line, in
//! order) and the bounds below, and never blocks on writing while answers wait to be read: so two
//! ends that both have much to say cannot stop each other. What the connection's end leaves
//! unanswered is kept and can be taken back with [`Connection::into_unanswered`].
//!
//! Errors are [`io::Error`]: `InvalidInput` for what cannot be a request, `UnexpectedEof` when the
//! broker closed before it answered, `InvalidData` for an answer beyond [`MAX_ANSWER`] or one that
//! nobody asked for, else what the system said.

use crate::request::check_request;
use base::line::{Line, LineReader, Outgoing, READ_SIZE};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr};
use nix::sys::socket::{connect, recv, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Most requests that are sent ahead of their answers; [`Connection::has_room`] is false then.
pub const MAX_AHEAD: usize = 10_000;

/// Most bytes of such requests; one request may go beyond.
pub const MAX_AHEAD_BYTES: usize = 4 * 1024 * 1024;

/// Longest answer in bytes: the longest line that any configuration allows.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// A connection to one peer's local socket.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    /// Bytes of requests not yet written.
    out: Outgoing,
    /// Bytes that the system took.
    written: u64,
    answers: LineReader,
    /// Requests without an answer, the oldest first. Those at the end may still stand in `out`.
    unanswered: VecDeque<Vec<u8>>,
    unanswered_bytes: usize,
    /// The broker has closed: what is in `answers` is all there will be.
    ended: bool,
}

impl Connection {
    /// Connects to the socket at `path`, `<run_dir>/<peer>`. A broker that takes no connection up
    /// is waited for until `deadline`.
    ///
    /// # Errors
    /// What the system says; `NotFound` and `ConnectionRefused` mean that the broker is away,
    /// `TimedOut` that it took the connection up too late.
    pub fn open(path: &Path, deadline: Option<Instant>) -> io::Result<Connection> {
        let stream = connect_by(path, deadline)?;
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream,
            out: Outgoing::default(),
            written: 0,
            answers: LineReader::new(MAX_ANSWER),
            unanswered: VecDeque::new(),
            unanswered_bytes: 0,
            ended: false,
        })
    }

    /// Whether nothing is on its way, and the broker has neither closed nor said anything that
    /// nobody asked for.
    pub fn is_idle(&self) -> bool {
        let silent = || {
            let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
            recv(self.stream.as_raw_fd(), &mut [0], flags) == Err(Errno::EAGAIN)
        };
        self.unanswered.is_empty() && self.answers.is_empty() && !self.ended && silent()
    }

    /// Bytes that the system has taken up so far: of a request behind them, the broker has none.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whether another request may be sent before an answer has been taken.
    pub fn has_room(&self) -> bool {
        self.unanswered.len() < MAX_AHEAD && self.unanswered_bytes < MAX_AHEAD_BYTES
    }

    /// Requests that wait for their answers.
    pub fn waiting(&self) -> usize {
        self.unanswered.len()
    }

    /// Takes a request up; [`Connection::turn`] writes it.
    ///
    /// # Errors
    /// `InvalidInput` for what cannot be a request, and when there is no room.
    pub fn send(&mut self, request: &[u8]) -> io::Result<()> {
        check_request(request).map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
        if !self.has_room() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "too many requests wait for their answers",
            ));
        }
        self.out.push_line(request);
        self.unanswered_bytes += request.len();
        self.unanswered.push_back(request.to_owned());
        Ok(())
    }

    /// The next answer, if it has been read.
    ///
    /// # Errors
    /// `UnexpectedEof` when there will be none for a request that waits; `InvalidData` for an
    /// answer that is too long, or that nobody asked for.
    pub fn next_answer(&mut self) -> io::Result<Option<Vec<u8>>> {
        let answer = match self.answers.next_line() {
            Some(Line::Whole(answer)) => answer.to_owned(),
            Some(Line::TooLong) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the answer is longer than any may be",
                ));
            }
            None if self.ended && !self.unanswered.is_empty() => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the broker closed without an answer",
                ));
            }
            None => return Ok(None),
        };
        let Some(request) = self.unanswered.pop_front() else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer came that nobody asked for"));
        };
        self.unanswered_bytes -= request.len();
        Ok(Some(answer))
    }

    /// Waits until something can be done, and does it: writes requests, reads what has come. Also
    /// ends when `other` can be read, and returns whether it can; and at `deadline`.
    ///
    /// # Errors
    /// What the system says of waiting. That the broker has closed is told by
    /// [`Connection::next_answer`], since there may be answers yet to take.
    pub fn turn(&mut self, other: Option<BorrowedFd<'_>>, deadline: Option<Instant>) -> io::Result<bool> {
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(2);
        fds.extend(other.map(|other| PollFd::new(other, PollFlags::POLLIN)));
        // A connection that has ended would report its hang-up over and over: it is left out.
        if !self.ended {
            let mut interest = PollFlags::POLLIN;
            interest.set(PollFlags::POLLOUT, !self.out.is_empty());
            fds.push(PollFd::new(self.stream.as_fd(), interest));
        }
        if fds.is_empty() {
            return Ok(false);
        }
        match poll(&mut fds, patience(deadline)) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let ready = |fd: Option<&PollFd<'_>>| fd.and_then(PollFd::any).unwrap_or(false);
        let others = other.is_some() && ready(fds.first());
        if !self.ended && ready(fds.last()) {
            self.write();
            self.read();
        }
        Ok(others)
    }

    /// Ends the connection and gives back the requests that have no answer, the oldest first.
    /// Whether the broker took them up is not known.
    pub fn into_unanswered(self) -> impl Iterator<Item = Vec<u8>> {
        self.unanswered.into_iter()
    }

    fn write(&mut self) {
        // A broker that no longer reads may have answered before it closed: the answers are read
        // first, and their end tells the rest.
        let mut counted = Counted { stream: &self.stream, written: &mut self.written };
        if self.out.flush_to(&mut counted).is_err() {
            self.out.clear();
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; READ_SIZE];
        match (&self.stream).read(&mut buffer) {
            Ok(0) => self.end(),
            Ok(count) => self.answers.push(&buffer[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.end(),
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.out.clear();
    }
}

/// A stream, and how much it has taken.
struct Counted<'a> {
    stream: &'a UnixStream,
    written: &'a mut u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.stream.write(bytes)?;
        *self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Connects; a full queue of connections is waited for until `deadline`, which is what the time for
/// sending says of a connection that is being made.
fn connect_by(path: &Path, deadline: Option<Instant>) -> io::Result<UnixStream> {
    let address = UnixAddr::new(path)?;
    let made = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if let Some(deadline) = deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        // None at all would be for ever.
        let left = i64::try_from(left.as_millis()).unwrap_or(i64::MAX / 1000).clamp(1, i64::MAX / 1000);
        setsockopt(&made, SendTimeout, &TimeVal::milliseconds(left))?;
    }
    loop {
        match connect(made.as_raw_fd(), &address) {
            Ok(()) => break,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(UnixStream::from(made))
}

/// How long a poll may take.
fn patience(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    // The poll counts in whole milliseconds: one more, rather than too early.
    let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}
