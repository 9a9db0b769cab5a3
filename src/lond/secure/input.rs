//! What comes from the caller: bytes to frames, and chunks to requests.
//!
//! Owns what tells one request from another, the ids that were used, and what the caller has said
//! of itself for all of them: that it sends nothing more, and which commands it holds.

use super::HeldCommands;
use super::ids::Ids;
use std::collections::BTreeSet;
use wire::flow::{Assembly, Taken};
use wire::secure::{FrameError, FrameReader, Kind};

/// See the module.
#[derive(Debug)]
pub(super) struct Input {
    reader: FrameReader,
    assembly: Assembly,
    /// Which request ids have come.
    ids: Ids,
    /// The commands that the caller holds now.
    held: HeldCommands,
    /// The caller sends nothing more.
    ended: bool,
    /// Longest request in bytes.
    max_line: usize,
}

impl Input {
    /// Nothing has come; requests of up to `max_line` bytes.
    pub(super) fn new(max_line: usize) -> Input {
        Input {
            reader: FrameReader::new(),
            assembly: Assembly::new(max_line),
            ids: Ids::default(),
            held: HeldCommands::default(),
            ended: false,
            max_line,
        }
    }

    // Bytes and frames.

    /// Takes bytes that came.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.reader.push(bytes);
    }

    /// The frames that came. They borrow the reader, so it is taken out while they are heeded.
    pub(super) fn take_reader(&mut self) -> FrameReader {
        std::mem::take(&mut self.reader)
    }

    /// Puts it back for what comes next.
    pub(super) fn put_back(&mut self, reader: FrameReader) {
        self.reader = reader;
    }

    /// The caller sends nothing more: what it began it will not end.
    pub(super) fn end(&mut self) {
        self.ended = true;
        self.assembly = Assembly::new(self.max_line);
    }

    /// Whether the caller sends nothing more.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    // Requests.

    /// The highest id that came.
    pub(super) fn highest(&self) -> u64 {
        self.ids.highest()
    }

    /// Whether a request with this id has come.
    pub(super) fn has_come(&self, id: u64) -> bool {
        self.ids.has_begun(id)
    }

    /// Whether a chunk of this id is the first of its request.
    pub(super) fn begins(&self, id: u64) -> bool {
        !self.assembly.has_begun(id)
    }

    /// Takes an id for a new request; `false` if it was used, or cannot be the next.
    pub(super) fn begin(&mut self, id: u64) -> bool {
        self.ids.begin(id)
    }

    /// Takes a chunk of a request.
    ///
    /// # Errors
    /// It can be none.
    pub(super) fn chunk<'a>(
        &mut self,
        id: u64,
        more: bool,
        body: &'a [u8],
        critical: bool,
    ) -> Result<Taken<'a>, FrameError> {
        if critical { self.assembly.critical(id, more, body) } else { self.assembly.request(id, more, body) }
    }

    /// Whether the request with this id is critical and not whole yet.
    pub(super) fn is_unfinished_critical(&self, id: u64) -> bool {
        self.assembly.kept_kind(id) == Some(Kind::Critical)
    }

    /// What came of the request with this id is of no use any more; what it cost of the window so
    /// far.
    pub(super) fn forget(&mut self, id: u64) -> usize {
        self.assembly.forget(id).unwrap_or(0)
    }

    /// Whether chunks of a request that is not whole are kept.
    pub(super) fn keeps_chunks(&self) -> bool {
        self.assembly.kept() > 0
    }

    // What the caller holds.

    /// From now on the caller holds these commands.
    pub(super) fn holds(&mut self, commands: BTreeSet<Box<str>>) {
        self.held = HeldCommands::new(commands);
    }

    /// The commands that the caller holds now.
    pub(super) fn held(&self) -> HeldCommands {
        self.held.clone()
    }
}
