//! The duplex control socket between a supervisor and one child: JSON lines on a stream socket
//! pair.
//!
//! End of file on the child's side means that the supervisor is gone; on the supervisor's side,
//! that the child is. [`Channel::receive`] alone tells so: what is sent to an end that is gone is
//! dropped without an error.
//!
//! What waits to be sent is bounded by [`MAX_WAITING`] messages, and rarely comes near it: a
//! message that makes an earlier, still waiting one needless takes its place
//! ([`Message::supersedes`]), so a child whose supervisor is busy keeps only its newest status. At
//! the bound [`Channel::send`] fails: the other end has read nothing for that long; a supervisor
//! treats such a child as hung. A malformed line, one longer than [`MAX_LINE`], or more than
//! [`MAX_RECEIVED`] bytes in one go are errors of kind `InvalidData`: the other end is broken, and
//! the channel with it.

use base::line::{Line, LineReader, Outgoing};
use net::{SourceFd, source_of};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Most messages that wait to be sent; one more is an error of [`Channel::send`].
pub const MAX_WAITING: usize = 64;

/// Longest line in bytes, either way.
pub const MAX_LINE: usize = 64 * 1024;

/// Most bytes that one [`Channel::receive`] takes: an end that writes faster than it is read is
/// broken.
pub const MAX_RECEIVED: usize = 4 * 1024 * 1024;

/// Most descriptors that came over a channel and wait to be taken; more are closed. As many as an
/// end that was held up for a while may find with one look: see `lonc::race`.
pub const MAX_DESCRIPTORS: usize = 32;

/// What a [`Channel`] sends.
pub trait Message: Serialize + Clone {
    /// Whether `earlier`, which still waits to be sent, need not be sent before this one.
    fn supersedes(&self, earlier: &Self) -> bool;
}

/// One end of a control socket: sends `S`, receives `R`.
#[derive(Debug)]
pub struct Channel<S, R> {
    stream: UnixStream,
    /// Messages of which nothing was written; at most [`MAX_WAITING`].
    waiting: VecDeque<S>,
    /// The message being written.
    outgoing: Outgoing,
    reader: LineReader,
    /// The first line is the end of one that a program before this one had begun to read: it is
    /// dropped.
    drop_first: bool,
    /// What came with messages and was not taken, in their order: descriptors, at most
    /// [`MAX_DESCRIPTORS`], and the places of those that this process could not have.
    descriptors: VecDeque<Option<OwnedFd>>,
    /// Descriptors may come; else the system closes those that do.
    takes_descriptors: bool,
    receives: PhantomData<fn() -> R>,
}

/// What [`Channel::receive`] found.
#[derive(Debug, PartialEq, Eq)]
pub struct Received<R> {
    /// Whole messages, in the order they were sent.
    pub messages: Vec<R>,
    /// The other end is gone; nothing will follow.
    pub closed: bool,
}

/// What of a channel's state must cross `exec`, beside the descriptor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The rest of the message being written, then those that wait; lines of JSON.
    pub unsent: String,
    /// A line was read in part.
    pub mid_line: bool,
}

/// Makes the two ends of a control socket: non-blocking once a [`Channel`] has them, closed on
/// `exec`.
///
/// # Errors
/// What `socketpair` said: no more descriptors, for instance.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair()?;
    Ok((ours.into(), theirs.into()))
}

impl<S: Message, R: DeserializeOwned> Channel<S, R> {
    /// A channel on one end of a [`pair`]; makes it non-blocking.
    ///
    /// # Errors
    /// When the descriptor cannot be made non-blocking.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Channel::resume(fd, Carried::default())
    }

    /// A channel that goes on where one in the program before `exec` stopped.
    ///
    /// # Errors
    /// As [`Channel::from_fd`].
    pub fn resume(fd: OwnedFd, carried: Carried) -> io::Result<Self> {
        let stream = UnixStream::from(fd);
        net::unblock(&stream)?;
        let mut outgoing = Outgoing::default();
        outgoing.tail().extend_from_slice(carried.unsent.as_bytes());
        Ok(Channel {
            stream,
            waiting: VecDeque::new(),
            outgoing,
            reader: LineReader::new(MAX_LINE),
            drop_first: carried.mid_line,
            descriptors: VecDeque::new(),
            takes_descriptors: false,
            receives: PhantomData,
        })
    }

    /// The same for an end that is sent descriptors, which is not the one to be on guard: to a
    /// supervisor a child could send them only to use them up.
    #[must_use]
    pub fn taking_descriptors(mut self) -> Self {
        self.takes_descriptors = true;
        self
    }

    /// Queues `message` and writes as much as the socket takes; call [`Channel::flush`] when it
    /// takes more.
    ///
    /// # Errors
    /// `QuotaExceeded` at [`MAX_WAITING`]; `InvalidData` for a message longer than [`MAX_LINE`];
    /// else what `write` said. The message is not queued then.
    pub fn send(&mut self, message: &S) -> io::Result<()> {
        self.waiting.retain(|earlier| !message.supersedes(earlier));
        if self.waiting.len() >= MAX_WAITING {
            return Err(io::Error::new(
                ErrorKind::QuotaExceeded,
                "the other end of the control socket does not read",
            ));
        }
        if encode(message)?.len() > MAX_LINE {
            return Err(io::Error::new(ErrorKind::InvalidData, "control message is too long"));
        }
        self.waiting.push_back(message.clone());
        self.flush().map(drop)
    }

    /// Sends a message with a descriptor, which the other end takes by
    /// [`Channel::take_descriptor`]. Only where nothing waits to be sent, so that a descriptor is
    /// never kept open for an end that does not read; whether it was sent.
    ///
    /// # Errors
    /// What the system said, other than that there is no room now.
    pub fn send_descriptor(&mut self, message: &S, descriptor: BorrowedFd<'_>) -> io::Result<bool> {
        if !self.flush()? {
            return Ok(false);
        }
        let mut line = encode(message)?;
        line.push(b'\n');
        let numbers = [descriptor.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&numbers)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let to = self.stream.as_raw_fd();
        loop {
            match sendmsg::<()>(to, &[IoSlice::new(&line)], &rights, flags, None) {
                Ok(count) => {
                    self.outgoing.tail().extend_from_slice(line.get(count..).unwrap_or_default());
                    return Ok(true);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(false),
                // That the other end is gone is for `receive` to tell.
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(true),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The next descriptor that came with a message, to be taken for each such message in turn.
    /// There is none for one that came when this process could have no more.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front().flatten()
    }

    /// As `read`, and keeps the descriptors that came, if any may.
    fn read(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        if !self.takes_descriptors {
            return self.stream.read(scratch);
        }
        let mut space = cmsg_space!([RawFd; MAX_DESCRIPTORS]);
        let mut data = [IoSliceMut::new(scratch)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(self.stream.as_raw_fd(), &mut data, Some(&mut space), flags)?;
        if message.flags.contains(MsgFlags::MSG_CTRUNC) {
            // Its place is kept: the next one is another message's.
            self.descriptors.push_back(None);
            return Ok(message.bytes);
        }
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = part {
                for number in numbers {
                    // SAFETY: the kernel has just opened it for this process; nothing else knows
                    // it.
                    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
                    let room = self.descriptors.len() < MAX_DESCRIPTORS;
                    self.descriptors.push_back(Some(descriptor).filter(|_| room));
                }
            }
        }
        Ok(message.bytes)
    }

    /// Writes what waits, as far as the socket takes it; returns whether nothing waits now.
    ///
    /// # Errors
    /// What `write` said, other than that the other end is gone: that is for [`Channel::receive`]
    /// to tell.
    pub fn flush(&mut self) -> io::Result<bool> {
        loop {
            match self.outgoing.flush_to(&mut self.stream) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                    self.outgoing.clear();
                    self.waiting.clear();
                    return Ok(true);
                }
                Err(error) => return Err(error),
            }
            match self.waiting.pop_front() {
                Some(message) => self.outgoing.push_line(&encode(&message)?),
                None => return Ok(true),
            }
        }
    }

    /// Whether something waits to be written.
    pub fn wants_write(&self) -> bool {
        !self.outgoing.is_empty() || !self.waiting.is_empty()
    }

    /// Reads until the socket has no more, through `scratch`, which the caller has for all its
    /// sockets.
    ///
    /// # Errors
    /// `InvalidData` as said on top; else what `read` said. Messages before the fault are lost with
    /// the channel.
    pub fn receive(&mut self, scratch: &mut [u8]) -> io::Result<Received<R>> {
        self.receive_at_most(MAX_RECEIVED, scratch)
    }

    fn receive_at_most(&mut self, most: usize, scratch: &mut [u8]) -> io::Result<Received<R>> {
        let mut messages = Vec::new();
        let mut taken = 0;
        let closed = loop {
            match self.read(scratch) {
                Ok(0) => break true,
                Ok(count) => {
                    taken += count;
                    if taken > most {
                        return Err(io::Error::new(ErrorKind::InvalidData, "the control socket is flooded"));
                    }
                    self.reader.push(scratch.get(..count).unwrap_or_default());
                    self.decode(&mut messages)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The other end was closed with something of ours unread.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break true,
                Err(error) => return Err(error),
            }
        };
        Ok(Received { messages, closed })
    }

    fn decode(&mut self, messages: &mut Vec<R>) -> io::Result<()> {
        while let Some(line) = self.reader.next_line() {
            match line {
                _ if self.drop_first => self.drop_first = false,
                Line::Whole(bytes) => messages.push(
                    serde_json::from_slice(bytes)
                        .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?,
                ),
                Line::TooLong => {
                    return Err(io::Error::new(
                        ErrorKind::InvalidData,
                        "a line on the control socket is too long",
                    ));
                }
            }
        }
        Ok(())
    }

    /// What the program after `exec` must know to [`Channel::resume`].
    ///
    /// # Errors
    /// When a waiting message cannot be encoded.
    pub fn carried(&self) -> io::Result<Carried> {
        let mut unsent = self.outgoing.bytes().to_vec();
        for message in &self.waiting {
            unsent.extend_from_slice(&encode(message)?);
            unsent.push(b'\n');
        }
        // A message may have been written up to the middle of a character.
        let unsent =
            String::from_utf8(unsent).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        Ok(Carried { unsent, mid_line: self.drop_first || self.reader.mid_line() })
    }

    /// Gives the descriptor back; what waits is forgotten.
    pub fn into_fd(self) -> OwnedFd {
        self.stream.into()
    }
}

fn encode<S: Message>(message: &S) -> io::Result<Vec<u8>> {
    serde_json::to_vec(message).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

impl<S, R> AsFd for Channel<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

source_of!([S, R] Channel<S, R>, |it| SourceFd(&it.stream.as_raw_fd()));

#[cfg(test)]
mod tests;
