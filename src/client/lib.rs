//! For Rust programs: one request, its answer; many requests ahead of their answers; a critical
//! message when the broker is away.
//!
//! A [`Client`] is one connection to a peer's local socket. It keeps the rule of that socket (a
//! request is a line, every request gets one answer line, in order) and the bounds below, and never
//! blocks on writing while answers wait to be read: so two ends that both have much to say cannot
//! stop each other. What the connection's end leaves unanswered is kept and can be taken back with
//! [`Client::into_unanswered`].
//!
//! Errors are [`io::Error`]: `InvalidInput` for what cannot be a request, `UnexpectedEof` when the
//! broker closed before it answered, `InvalidData` for an answer beyond [`MAX_ANSWER`], else what
//! the system said.

use base::HostId;
use base::line::{Line, LineReader, Outgoing, READ_SIZE};
use config::Config;
use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::geteuid;
use owner::{self, Owner, folders};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use store::spool::drop_in_file;

/// Most requests that are sent ahead of their answers; [`Client::has_room`] is false then.
pub const MAX_AHEAD: usize = 10_000;

/// Most bytes of such requests; one request may go beyond.
pub const MAX_AHEAD_BYTES: usize = 4 * 1024 * 1024;

/// Longest answer in bytes: the longest line that any configuration allows.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// What the broker says of a message that it stored; said here too when the broker is away.
pub const CON_DELAYED: &[u8] = b"con_delayed";

/// What makes a request a critical one.
pub const CRITICAL: &[u8] = b"critical:";

/// Permission bits of the delayed directory.
const FOLDER_MODE: u32 = 0o750;

/// A connection to one peer's local socket.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    /// Bytes of requests not yet written.
    out: Outgoing,
    answers: LineReader,
    /// Requests without an answer, the oldest first. Those at the end may still stand in `out`.
    unanswered: VecDeque<Vec<u8>>,
    unanswered_bytes: usize,
    /// The broker has closed: what is in `answers` is all there will be.
    ended: bool,
}

impl Client {
    /// Connects to the socket of `peer`.
    ///
    /// # Errors
    /// What the system says; `NotFound` and `ConnectionRefused` mean that the broker is away.
    pub fn connect(config: &Config, peer: &HostId) -> io::Result<Client> {
        Client::connect_to(&config.socket_path(peer))
    }

    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect_to(path: &Path) -> io::Result<Client> {
        let stream = UnixStream::connect(path)?;
        stream.set_nonblocking(true)?;
        Ok(Client {
            stream,
            out: Outgoing::default(),
            answers: LineReader::new(MAX_ANSWER),
            unanswered: VecDeque::new(),
            unanswered_bytes: 0,
            ended: false,
        })
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    /// As the module says. Also `InvalidInput` while requests sent before have no answer yet.
    pub fn reply(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        if !self.unanswered.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "earlier requests wait for their answers",
            ));
        }
        self.send(request)?;
        loop {
            if let Some(answer) = self.next_answer()? {
                return Ok(answer);
            }
            self.turn(None)?;
        }
    }

    /// Sends all `requests`, many ahead, and gives each answer to `each`, in order.
    ///
    /// # Errors
    /// As the module says, and what `each` returns. Requests not yet taken from the iterator are
    /// not sent then.
    pub fn reply_all<R: AsRef<[u8]>>(
        &mut self,
        requests: impl IntoIterator<Item = R>,
        mut each: impl FnMut(Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut requests = requests.into_iter().fuse();
        loop {
            while self.has_room() {
                let Some(request) = requests.next() else { break };
                self.send(request.as_ref())?;
            }
            if self.unanswered.is_empty() {
                return Ok(());
            }
            self.turn(None)?;
            while let Some(answer) = self.next_answer()? {
                each(answer)?;
            }
        }
    }

    /// Whether another request may be sent before an answer has been taken.
    pub fn has_room(&self) -> bool {
        self.unanswered.len() < MAX_AHEAD && self.unanswered_bytes < MAX_AHEAD_BYTES
    }

    /// Requests that wait for their answers.
    pub fn waiting(&self) -> usize {
        self.unanswered.len()
    }

    /// Takes a request up; [`Client::turn`] writes it.
    ///
    /// # Errors
    /// `InvalidInput` for what cannot be a request, and when there is no room.
    pub fn send(&mut self, request: &[u8]) -> io::Result<()> {
        check_request(request)?;
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
    /// ends when `other` can be read, and returns whether it can.
    ///
    /// # Errors
    /// What the system says of waiting. That the broker has closed is told by
    /// [`Client::next_answer`], since there may be answers yet to take.
    pub fn turn(&mut self, other: Option<BorrowedFd<'_>>) -> io::Result<bool> {
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
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => return Ok(false),
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
        if self.out.flush_to(&mut &self.stream).is_err() {
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

/// Sends `request` as a critical one. When the broker is away, or goes before it answers, stores it
/// in the delayed directory for the broker to find, and answers [`CON_DELAYED`].
///
/// A broker that went after it took the message up may then have it twice: better than not at all.
///
/// # Errors
/// `InvalidInput` for what cannot be a request; else why it could not be stored.
pub fn critical(config: &Config, peer: &HostId, request: &[u8]) -> io::Result<Vec<u8>> {
    check_request(request)?;
    let asked = Client::connect(config, peer).and_then(|mut client| client.reply(&as_critical(request)));
    match asked {
        Ok(answer) => Ok(answer),
        Err(_) => store(config, peer, request).map(|_| CON_DELAYED.to_owned()),
    }
}

/// The request with [`CRITICAL`] before it, once.
pub fn as_critical(request: &[u8]) -> Vec<u8> {
    if request.starts_with(CRITICAL) { request.to_owned() } else { [CRITICAL, request].concat() }
}

/// Stores a message in the delayed directory in the original's form, for the broker to take in.
/// Root does so as the user that the broker becomes.
///
/// # Errors
/// `InvalidInput` for what cannot be a request to this peer; else what the system said.
pub fn store(config: &Config, peer: &HostId, request: &[u8]) -> io::Result<PathBuf> {
    let request = request.strip_prefix(CRITICAL).unwrap_or(request);
    check_request(request)?;
    let max_line = config.peer(peer).map_or(MAX_ANSWER, |peer| peer.max_line);
    if request.len() > max_line {
        let what = format!("the request is longer than {max_line} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let owner = Owner::beside_root(config).map_err(io::Error::other)?;
    make_delayed(config, owner.as_ref())?;
    owner::acting_as(owner.as_ref(), || {
        drop_in_file(&config.spool_dir, peer, request, Timestamp::now(), std::process::id())
    })
}

/// Makes the delayed directory where no broker has been started yet, for the user that the broker
/// becomes. Who is another user makes none: it would be of no use to the broker.
fn make_delayed(config: &Config, owner: Option<&Owner>) -> io::Result<()> {
    let foreign = match config.user.as_deref() {
        Some(name) if !geteuid().is_root() => {
            Owner::named(name).map_err(io::Error::other)?.uid != geteuid() && !config.spool_dir.exists()
        }
        Some(_) | None => false,
    };
    if foreign {
        let what = "is not there, and only root or the broker's user may make it";
        return Err(io::Error::new(io::ErrorKind::NotFound, what));
    }
    folders::make(&config.spool_dir, FOLDER_MODE, owner)
}

/// Whether this can be a request.
fn check_request(request: &[u8]) -> io::Result<()> {
    let what = match memchr::memchr(b'\n', request) {
        Some(_) => "a request is one line",
        None if request.is_empty() => "the request is empty",
        None => return Ok(()),
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

#[cfg(test)]
mod tests;
