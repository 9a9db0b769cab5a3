//! Lines, as they cross a local socket, a classic link and a handler's socket.
//!
//! Owns two buffers: [`LineReader`] turns what was read into lines, [`Outgoing`] holds what is
//! still to be written. Both keep one allocation that they fill and drain, so that a line costs no
//! allocation of its own. A line ends in `\n`; the bytes before it are arbitrary. A line longer
//! than the limit is reported once and then skipped up to its newline without being kept: memory
//! stays below the limit plus one read.

use std::io;

/// Bytes that one read asks for, into a buffer that a reactor has for all its sockets.
pub const READ_SIZE: usize = 64 * 1024;

/// Room that one buffer of a link keeps when it is empty.
const KEPT: usize = 4 * READ_SIZE;

/// The same for a buffer of which there are thousands.
pub const KEPT_SPARINGLY: usize = 2048;

/// A buffer of at least so many bytes grows by so many more than are asked for, not to twice its
/// size.
const LARGE: usize = 1 << 20;

/// Adds bytes to a buffer that may become large: what is set aside for it is no more than a part of
/// it beyond its bytes.
pub fn extend(buffer: &mut Vec<u8>, bytes: &[u8]) {
    if buffer.len() + bytes.len() > LARGE && buffer.capacity() - buffer.len() < bytes.len() {
        buffer.reserve_exact(bytes.len() + LARGE);
    }
    buffer.extend_from_slice(bytes);
}

/// `line` without the carriage return at its end, if it has one.
pub fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// What [`LineReader::next_line`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A whole line, without its newline.
    Whole(&'a [u8]),
    /// A line longer than the limit begins here; said once, when the limit is passed. What is left
    /// of it is skipped.
    TooLong,
}

/// Collects bytes and gives them out as lines.
#[derive(Debug)]
pub struct LineReader {
    buffer: Vec<u8>,
    /// First byte not yet given out.
    start: usize,
    /// Bytes before this were searched for a newline already; `start <= searched`.
    searched: usize,
    max_line: usize,
    skipping: bool,
    /// Room that is kept when nothing is held.
    kept: usize,
}

impl LineReader {
    /// A reader for lines of up to `max_line` bytes, newline not counted.
    pub fn new(max_line: usize) -> LineReader {
        LineReader { buffer: Vec::new(), start: 0, searched: 0, max_line, skipping: false, kept: KEPT }
    }

    /// A reader of which there are thousands: see [`LineReader::compact`].
    pub fn sparing(max_line: usize) -> LineReader {
        LineReader { kept: KEPT_SPARINGLY, ..LineReader::new(max_line) }
    }

    /// Keeps so much room from now on when it is empty: see [`KEPT_SPARINGLY`].
    pub fn keep(&mut self, room: usize) {
        self.kept = room;
        if self.is_empty() && self.buffer.capacity() > room {
            self.clear();
            self.buffer.shrink_to(room);
        }
    }

    /// A sparing reader that goes on where another one stopped, with what that one had
    /// ([`LineReader::rest`]).
    pub fn resume(max_line: usize, rest: Vec<u8>, skipping: bool) -> LineReader {
        LineReader { buffer: rest, skipping, ..LineReader::sparing(max_line) }
    }

    /// Gives back what the lines that were given out took, so that the memory held is within twice
    /// the bytes held, and a little. To be called when a share of lines was given out; the time it
    /// takes is within that share.
    pub fn compact(&mut self) {
        if self.buffer.capacity() <= self.kept || self.start < self.len() {
            return;
        }
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.buffer.shrink_to(self.kept);
    }

    /// Bytes of memory that are set aside.
    pub fn room_kept(&self) -> usize {
        self.buffer.capacity()
    }

    /// Bytes of memory that are in use, those of lines that were given out included.
    pub fn memory(&self) -> usize {
        self.buffer.len()
    }

    /// The bytes held that no line was made of yet, and whether they begin within a line that is
    /// being skipped.
    pub fn rest(&self) -> (&[u8], bool) {
        (self.held(self.start), self.skipping)
    }

    /// Bytes held that no line was made of yet.
    pub fn len(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a line has begun whose newline has not come (a too long one that is being skipped
    /// counts). Meaningful once [`LineReader::next_line`] has returned `None`.
    pub fn mid_line(&self) -> bool {
        self.skipping || !self.is_empty()
    }

    /// Whether [`LineReader::next_line`] has something to do though no newline has come: bytes to
    /// skip, or a line to be said too long.
    pub fn is_over(&self) -> bool {
        (self.skipping && !self.is_empty()) || self.len() > self.max_line
    }

    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.make_room();
        extend(&mut self.buffer, bytes);
    }

    /// The next line, or `None` when more bytes are needed.
    pub fn next_line(&mut self) -> Option<Line<'_>> {
        loop {
            let newline = memchr::memchr(b'\n', self.held(self.searched)).map(|at| self.searched + at);
            if self.skipping {
                match newline {
                    None => {
                        self.clear();
                        return None;
                    }
                    Some(at) => {
                        self.consume_to(at + 1);
                        self.skipping = false;
                        continue;
                    }
                }
            }
            return match newline {
                Some(at) if at - self.start <= self.max_line => {
                    let line = self.start..at;
                    self.consume_to(at + 1);
                    Some(Line::Whole(self.buffer.get(line).unwrap_or_default()))
                }
                None if self.len() <= self.max_line => {
                    self.searched = self.buffer.len();
                    None
                }
                Some(_) | None => {
                    self.skipping = true;
                    self.searched = self.start;
                    Some(Line::TooLong)
                }
            };
        }
    }

    /// Forgets everything, for a new connection.
    pub fn reset(&mut self) {
        self.clear();
        self.skipping = false;
    }

    /// What lies at and after `from`, which is never behind the end.
    fn held(&self, from: usize) -> &[u8] {
        self.buffer.get(from..).unwrap_or_default()
    }

    fn consume_to(&mut self, at: usize) {
        self.start = at;
        self.searched = at;
    }

    fn clear(&mut self) {
        self.buffer.clear();
        self.consume_to(0);
    }

    /// Drops what was given out, so that the buffer does not creep; gives a big allocation back
    /// once it is empty.
    fn make_room(&mut self) {
        if self.start == self.buffer.len() {
            self.clear();
            if self.buffer.capacity() > self.kept {
                self.buffer.shrink_to(self.kept / 2);
            }
        } else if self.start >= READ_SIZE {
            self.buffer.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
    }
}

/// Bytes that wait to be written.
#[derive(Debug)]
pub struct Outgoing {
    buffer: Vec<u8>,
    start: usize,
    /// Room that is kept when nothing waits.
    kept: usize,
    /// Bytes that have gone, in all.
    gone: u64,
    /// The sink took no more when it was written to last.
    held_up: bool,
    /// It was held up, and took more since.
    moved: bool,
}

impl Default for Outgoing {
    fn default() -> Outgoing {
        Outgoing { buffer: Vec::new(), start: 0, kept: KEPT, gone: 0, held_up: false, moved: false }
    }
}

impl Outgoing {
    /// One of thousands: what it does not need it does not keep.
    pub fn sparing() -> Outgoing {
        Outgoing { kept: KEPT_SPARINGLY, ..Outgoing::default() }
    }

    /// Keeps so much room from now on when nothing waits: see [`KEPT_SPARINGLY`].
    pub fn keep(&mut self, room: usize) {
        self.kept = room;
        if self.is_empty() && self.buffer.capacity() > room {
            self.empty();
            self.buffer.shrink_to(room);
        }
    }

    /// Bytes of memory that are in use, those that have gone and were not given back included.
    pub fn memory(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that have gone since there is this object.
    pub fn gone(&self) -> u64 {
        self.gone
    }

    /// What [`Outgoing::gone`] will be when everything that waits now has gone.
    pub fn end(&self) -> u64 {
        self.gone + self.len() as u64
    }

    /// The bytes that wait.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Adds a line and its newline.
    pub fn push_line(&mut self, line: &[u8]) {
        if self.buffer.is_empty() {
            // Of a long line alone, no more than it.
            self.buffer.reserve_exact(line.len() + 1);
        }
        extend(&mut self.buffer, line);
        self.buffer.push(b'\n');
    }

    /// The buffer to append to, for a writer that makes its bytes in place.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Notes that the first `count` bytes were written.
    pub fn wrote(&mut self, count: usize) {
        self.start += count;
        self.gone += count as u64;
        debug_assert!(self.start <= self.buffer.len());
        if self.start == self.buffer.len() {
            self.empty();
        } else if self.start >= self.kept && self.start >= self.len() {
            self.buffer.drain(..self.start);
            self.start = 0;
            self.buffer.shrink_to(self.kept.max(2 * self.buffer.len()));
        }
    }

    /// Forgets everything: it counts as gone.
    pub fn clear(&mut self) {
        self.gone = self.end();
        self.held_up = false;
        self.empty();
    }

    fn empty(&mut self) {
        self.buffer.clear();
        self.start = 0;
        if self.buffer.capacity() > self.kept {
            self.buffer.shrink_to(self.kept / 4);
        }
    }

    /// Writes until nothing waits or the sink takes no more; returns whether nothing waits now.
    ///
    /// # Errors
    /// What the sink said, other than `WouldBlock` and `Interrupted`.
    pub fn flush_to(&mut self, sink: &mut impl io::Write) -> io::Result<bool> {
        while !self.is_empty() {
            match sink.write(self.bytes()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.moved |= self.held_up;
                    self.wrote(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.held_up = true;
                    return Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.held_up = false;
        Ok(true)
    }

    /// Whether, since the last call, the sink took more after it had taken no more: what is on its
    /// way to a peer then has come further. (That a sink takes bytes which need not wait says
    /// nothing of the peer.)
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }
}

#[cfg(test)]
mod tests;
