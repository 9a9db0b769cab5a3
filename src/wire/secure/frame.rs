//! Frames: a stream of bytes to frames and back.
//!
//! ```text
//! 0   u8   kind
//! 1   u8   flags     bit 0, MORE: another chunk of the same message follows
//!                    bit 1, BROKEN: of an answer: the handler had got the request and gave none
//!                    the others are sent 0 and ignored
//! 2   u16  length of the body, at most 16384
//! 4   u64  request id; 0 where the kind has none
//! 12  body
//! ```
//!
//! Integers are big-endian. A kind of `0x80` and above that is not known is skipped, body and all;
//! any other is an error. An error ends the link: there is no telling where the next frame begins,
//! so [`FrameReader`] gives out nothing after one. A frame is judged when its header is there,
//! before its body is waited for.
//!
//! Guarantees: reading never allocates for a frame (bodies are borrowed) and holds at most one
//! unfinished frame and what was pushed last; no bytes make it panic.

mod put;

pub(super) use put::put_hello;
pub use put::{
    put_answer, put_broken_answer, put_cancel, put_critical, put_error, put_go_away, put_held, put_not_taken,
    put_ping, put_pong, put_ready, put_request, put_window,
};

/// Longest body; a longer message travels in chunks, a longer body ends the link.
pub const MAX_BODY: usize = 16 * 1024;

/// Bytes before the body.
pub const HEADER: usize = 12;

/// What a frame of a message costs of the window beside its body, so that a flood of small ones is
/// bounded too.
pub const FRAME_COST: usize = 64;

/// Most messages begun and not ended. Only messages longer than a frame are ever unfinished, so a
/// sender that begins none before the window holds all of it has so many with a window of more than
/// 64 MiB at the earliest. One more is an error that ends the link.
pub const MAX_UNFINISHED: usize = 4096;

/// Longest PING.
const MAX_PING: usize = 8;

/// Longest text of an ERROR that we send; it is for a log line. More is cut off.
const MAX_ERROR_TEXT: usize = 512;

/// The flag bit that says that more chunks of this message follow.
const MORE: u8 = 1;

/// The flag bit that says that the handler had got the request and gave no answer: the text is the
/// called side's.
const BROKEN: u8 = 2;

/// Longest reason in a NOT_TAKEN that we send. More is cut off.
const MAX_REASON: usize = 512;

/// Commands that a HELD may name.
pub const MAX_HELD: usize = 64;

/// Longest body of a NOT_TAKEN, READY or HELD that is taken.
const MAX_NOTE: usize = 8192;

/// Allocation that an empty reader may keep.
const KEPT_CAPACITY: usize = 128 * 1024;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The opening frame of both ends.
    Hello = 0x01,
    /// A chunk of a request.
    Request = 0x02,
    /// A chunk of a critical request.
    Critical = 0x03,
    /// A chunk of an answer.
    Answer = 0x04,
    /// Nobody waits for the answer any more.
    Cancel = 0x05,
    /// Are you there?
    Ping = 0x06,
    /// I am there: the answer to a PING.
    Pong = 0x07,
    /// That many more bytes may be sent.
    Window = 0x08,
    /// No request above this id will be run.
    GoAway = 0x09,
    /// Why the link ends.
    Error = 0x0a,
    /// A critical request was not taken by its handler, and nothing was done: it stays with the
    /// caller. A caller that does not know this kind passes over it, and keeps the message until
    /// its time is over.
    NotTaken = 0xa0,
    /// A handler that had not taken a critical request is back.
    Ready = 0xa1,
    /// The handlers whose messages the caller keeps while it sends those of others.
    Held = 0xa2,
}

impl Kind {
    /// The kind of a frame; `None`: one that is to be skipped.
    fn of(byte: u8) -> Result<Option<Kind>, FrameError> {
        Ok(Some(match byte {
            0x01 => Kind::Hello,
            0x02 => Kind::Request,
            0x03 => Kind::Critical,
            0x04 => Kind::Answer,
            0x05 => Kind::Cancel,
            0x06 => Kind::Ping,
            0x07 => Kind::Pong,
            0x08 => Kind::Window,
            0x09 => Kind::GoAway,
            0x0a => Kind::Error,
            0xa0 => Kind::NotTaken,
            0xa1 => Kind::Ready,
            0xa2 => Kind::Held,
            0x80.. => return Ok(None),
            unknown => return Err(FrameError::UnknownKind(unknown)),
        }))
    }

    /// Whether frames of this kind belong to a request.
    fn has_id(self) -> bool {
        match self {
            Kind::Request | Kind::Critical | Kind::Answer | Kind::Cancel | Kind::NotTaken => true,
            Kind::Hello
            | Kind::Ping
            | Kind::Pong
            | Kind::Window
            | Kind::GoAway
            | Kind::Error
            | Kind::Ready
            | Kind::Held => false,
        }
    }

    /// Whether a message of this kind may be longer than a frame; these are the kinds that cost of
    /// the window.
    fn has_chunks(self) -> bool {
        match self {
            Kind::Request | Kind::Critical | Kind::Answer => true,
            Kind::Hello
            | Kind::Cancel
            | Kind::Ping
            | Kind::Pong
            | Kind::Window
            | Kind::GoAway
            | Kind::Error
            | Kind::NotTaken
            | Kind::Ready
            | Kind::Held => false,
        }
    }

    /// Lengths that the body may have.
    fn lengths(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Kind::Hello | Kind::Request | Kind::Critical | Kind::Answer | Kind::Error => 0..=MAX_BODY,
            Kind::Cancel => 0..=0,
            Kind::Ping | Kind::Pong => 0..=MAX_PING,
            Kind::Window => 4..=4,
            Kind::GoAway => 8..=8,
            Kind::NotTaken | Kind::Ready | Kind::Held => 0..=MAX_NOTE,
        }
    }
}

/// One frame; its body is the reader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The opening frame: see [`super::CallerHello`] and [`super::CalledHello`].
    Hello(&'a [u8]),
    /// A chunk of a request.
    Request {
        /// The request.
        id: u64,
        /// Whether more chunks follow.
        more: bool,
        /// The chunk.
        body: &'a [u8],
    },
    /// A chunk of a critical request; the first begins with a [`CriticalHead`].
    Critical {
        /// The request.
        id: u64,
        /// Whether more chunks follow.
        more: bool,
        /// The chunk, its head included.
        body: &'a [u8],
    },
    /// A chunk of an answer.
    Answer {
        /// The request that it answers.
        id: u64,
        /// Whether more chunks follow.
        more: bool,
        /// The handler had got the request and gave no answer: these are the called side's words.
        broken: bool,
        /// The chunk.
        body: &'a [u8],
    },
    /// Nobody waits for this request's answer any more.
    Cancel {
        /// The request.
        id: u64,
    },
    /// To be sent back as a PONG.
    Ping(&'a [u8]),
    /// What a PING of ours held.
    Pong(&'a [u8]),
    /// That many more bytes may be sent.
    Window(u32),
    /// Requests above this id were not and will not be run; the others are still answered.
    GoAway {
        /// The last id that is served.
        last: u64,
    },
    /// Why the other side ends the link: its words, any bytes.
    Error(&'a [u8]),
    /// This critical request was not taken by its handler, and nothing was done.
    NotTaken {
        /// The request.
        id: u64,
        /// Why, any bytes.
        why: &'a [u8],
    },
    /// This handler, which had not taken a critical request, is back.
    Ready(&'a [u8]),
    /// The handlers whose messages the caller keeps for now: their names, each with a newline
    /// behind it.
    Held(&'a [u8]),
}

impl Frame<'_> {
    /// What the frame costs of the window; nothing for those that no message is made of.
    pub fn cost(&self) -> usize {
        match self {
            Frame::Request { body, .. } | Frame::Critical { body, .. } | Frame::Answer { body, .. } => {
                cost(body.len())
            }
            Frame::Hello(_)
            | Frame::Cancel { .. }
            | Frame::Ping(_)
            | Frame::Pong(_)
            | Frame::Window(_)
            | Frame::GoAway { .. }
            | Frame::Error(_)
            | Frame::NotTaken { .. }
            | Frame::Ready(_)
            | Frame::Held(_) => 0,
        }
    }
}

/// Why what came can be no frame, or no message. All of these are the other side's fault and end
/// the link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A kind that must be known and is not.
    #[error("read a frame: its kind 0x{0:02x} is unknown")]
    UnknownKind(u8),
    /// A body longer than any may be.
    #[error("read a frame of kind 0x{kind:02x}: {length} bytes are more than {MAX_BODY}")]
    TooLong {
        /// The kind's byte.
        kind: u8,
        /// What its header says.
        length: usize,
    },
    /// A body that cannot be that kind's.
    #[error("read a {kind:?} frame: it cannot have {length} bytes")]
    Length {
        /// The kind.
        kind: Kind,
        /// What its header says.
        length: usize,
    },
    /// A request's frame without an id, or another with one.
    #[error("read a {kind:?} frame: it cannot have the id {id}")]
    Id {
        /// The kind.
        kind: Kind,
        /// The id.
        id: u64,
    },
    /// MORE on a frame that is always whole.
    #[error("read a {0:?} frame: it cannot have more chunks")]
    Chunked(Kind),
    /// A critical request too short for its head.
    #[error("read a critical request: {length} bytes end within its head")]
    ShortHead {
        /// Length of its first chunk.
        length: usize,
    },
    /// A client's key that is none.
    #[error("read a critical request: its key is not 1 to 64 of A-Z a-z 0-9 . _ -")]
    BadKey,
    /// A message that began as one kind and goes on as another.
    #[error("read message {0}: its chunks are of different kinds")]
    KindChanged(u64),
    /// More messages begun and not ended than are kept.
    #[error("read message {id}: {} others are unfinished", MAX_UNFINISHED)]
    TooManyUnfinished {
        /// The one too many.
        id: u64,
    },
}

/// Collects bytes and gives them out as frames.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    /// First byte not yet given out.
    start: usize,
    /// An error was given out: nothing follows it.
    failed: bool,
}

impl FrameReader {
    /// A reader for a new link.
    pub fn new() -> FrameReader {
        FrameReader::default()
    }

    /// Bytes held that no frame was made of yet.
    pub fn len(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds bytes. Take all frames out before more are pushed: then no more than one unfinished
    /// frame is held.
    pub fn push(&mut self, bytes: &[u8]) {
        self.tail().extend_from_slice(bytes);
    }

    /// The buffer to append to, for one who makes the bytes in place; the same holds as for
    /// [`FrameReader::push`].
    pub fn tail(&mut self) -> &mut Vec<u8> {
        if self.failed {
            // What follows an error is nothing; it must not pile up either.
            self.buffer.clear();
            self.start = 0;
        }
        self.make_room();
        &mut self.buffer
    }

    /// The next frame, or `None` when more bytes are needed; after an error always `None`.
    pub fn next_frame(&mut self) -> Option<Result<Frame<'_>, FrameError>> {
        if self.failed {
            return None;
        }
        loop {
            let at = self.start;
            let header = self.buffer[at..].first_chunk::<HEADER>()?;
            match Header::parse(header) {
                Ok(header) => {
                    let body = at + HEADER..at + HEADER + header.length;
                    self.buffer.get(body.clone())?;
                    self.start = body.end;
                    if let Some(kind) = header.kind {
                        return Some(frame(kind, &header, &self.buffer[body]));
                    }
                }
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
    }

    /// Drops what was given out, so that the buffer does not creep; gives a big allocation back
    /// once it is empty.
    fn make_room(&mut self) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(KEPT_CAPACITY);
        } else {
            // What is left is less than a frame when all frames are taken out before a push, so the
            // move is short.
            self.buffer.drain(..self.start);
        }
        self.start = 0;
    }
}

/// The first twelve bytes, checked.
struct Header {
    /// `None`: to be skipped.
    kind: Option<Kind>,
    more: bool,
    broken: bool,
    length: usize,
    id: u64,
}

impl Header {
    fn parse(bytes: &[u8; HEADER]) -> Result<Header, FrameError> {
        let [kind_byte, flags, length_high, length_low, id @ ..] = *bytes;
        let mut kind = Kind::of(kind_byte)?;
        let (more, broken) = (flags & MORE != 0, flags & BROKEN != 0);
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        let id = u64::from_be_bytes(id);
        if length > MAX_BODY {
            return Err(FrameError::TooLong { kind: kind_byte, length });
        }
        // What may be passed over is passed over when it makes no sense, too.
        kind.take_if(|kind| {
            kind_byte >= 0x80 && (more || kind.has_id() != (id != 0) || !kind.lengths().contains(&length))
        });
        if let Some(kind) = kind {
            if !kind.lengths().contains(&length) {
                return Err(FrameError::Length { kind, length });
            }
            if kind.has_id() != (id != 0) {
                return Err(FrameError::Id { kind, id });
            }
            if more && !kind.has_chunks() {
                return Err(FrameError::Chunked(kind));
            }
        }
        Ok(Header { kind, more, broken, length, id })
    }
}

/// The frame of a kind; the header was checked.
fn frame<'a>(kind: Kind, header: &Header, body: &'a [u8]) -> Result<Frame<'a>, FrameError> {
    let Header { id, more, broken, .. } = *header;
    let wrong = || FrameError::Length { kind, length: body.len() };
    Ok(match kind {
        Kind::Hello => Frame::Hello(body),
        Kind::Request => Frame::Request { id, more, body },
        Kind::Critical => Frame::Critical { id, more, body },
        Kind::Answer => Frame::Answer { id, more, broken, body },
        Kind::Cancel => Frame::Cancel { id },
        Kind::Ping => Frame::Ping(body),
        Kind::Pong => Frame::Pong(body),
        Kind::Window => Frame::Window(u32::from_be_bytes(body.try_into().map_err(|_| wrong())?)),
        Kind::GoAway => Frame::GoAway { last: u64::from_be_bytes(body.try_into().map_err(|_| wrong())?) },
        Kind::Error => Frame::Error(body),
        Kind::NotTaken => Frame::NotTaken { id, why: body },
        Kind::Ready => Frame::Ready(body),
        Kind::Held => Frame::Held(body),
    })
}

/// What a frame with so long a body costs of the window.
pub const fn cost(body: usize) -> usize {
    FRAME_COST + body
}

/// What a whole message of `length` bytes (the head of a critical one included) costs of the
/// window, in all its chunks. A sender that begins a message only when the window has room for all
/// of it never leaves several begun that block each other.
pub const fn message_cost(length: usize) -> usize {
    let frames = if length == 0 { 1 } else { length.div_ceil(MAX_BODY) };
    length + frames * FRAME_COST
}

#[cfg(test)]
mod tests;
