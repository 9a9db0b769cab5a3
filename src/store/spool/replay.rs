//! Reading what waits, and settling it.
//!
//! A cursor goes once over the segments and *locates* messages, one ahead of what is asked for; a
//! located message is read again from its place when it is sent, so that a lost link costs no
//! second search. Progress is one byte in the message's line, written and not synced: after a crash
//! of the machine it may be gone.

use super::queue::{Cursor, Located};
use super::record::{self, ANSWERED, MARK_AT};
use super::segment::{Found, Scan};
use super::survey::READ_TRIES;
use super::{Context, Disk, Message, Spool, SpoolError};
use base::Sequence;
use jiff::Timestamp;
use std::io;

/// Hidden name of the file of no bytes that takes the place of a segment.
const HOLLOW: &str = ".hollow";

/// Bytes of one segment that are being read: all that the cursor has not passed.
#[derive(Debug, Default)]
pub(super) struct Window {
    segment: Option<Sequence>,
    base: u64,
    pub(super) bytes: Vec<u8>,
}

impl Window {
    /// The bytes from `offset` on, if they are here.
    fn from(&self, segment: Sequence, offset: u64) -> Option<&[u8]> {
        if self.segment != Some(segment) {
            return None;
        }
        let skip = usize::try_from(offset.checked_sub(self.base)?).ok()?;
        self.bytes.get(skip..).filter(|rest| !rest.is_empty())
    }
}

impl<D: Disk> Spool<D> {
    /// The next message that was not sent; it counts as sent now.
    ///
    /// # Errors
    /// The next message cannot be read. After `READ_PATIENCE` such calls in a row it is passed
    /// over (see [`Spool::reread`]), and the next call goes on behind it; leave time between them.
    /// Or the folder cannot be used ([`Spool::trouble`]): each call tries again.
    pub fn next_unsent(&mut self) -> Result<Option<Message>, SpoolError> {
        self.make_ready()?;
        loop {
            let Some((sequence, located)) = self.queue.first_unsent() else {
                match self.locate() {
                    Ok(true) => continue,
                    Ok(false) => return Ok(None),
                    Err(error) => {
                        if self.see_whether_gone(Some(&error)) {
                            return Err(error);
                        }
                        if self.patience_ends(&error) {
                            self.queue.skip_segment();
                        }
                        return Err(error);
                    }
                }
            };
            match self.read_message(sequence, &located) {
                Ok(Some(message)) => {
                    self.failed_reads = 0;
                    self.queue.mark_sent(sequence);
                    self.drop_used_window();
                    return Ok(Some(message));
                }
                // It rotted since it was located; its bytes are in corrupt/ now.
                Ok(None) => drop(self.queue.settle(sequence)),
                Err(error) => {
                    if self.see_whether_gone(Some(&error)) {
                        return Err(error);
                    }
                    if self.patience_ends(&error) {
                        self.queue.skip(sequence);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Everything up to `last` counts as sent: the caller has it on the link already.
    pub fn sent_through(&mut self, last: Sequence) {
        loop {
            while let Some((sequence, _)) = self.queue.first_unsent().filter(|(first, _)| *first <= last) {
                self.queue.mark_sent(sequence);
            }
            let ahead = self.queue.cursor().is_some_and(|cursor| cursor.least <= last);
            if self.queue.first_unsent().is_some() || !ahead {
                break;
            }
            match self.locate() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    log::warn!("{error}; messages up to {last} may be sent twice");
                    break;
                }
            }
        }
        self.drop_used_window();
    }

    /// The link is lost: what was sent and not settled is unsent again.
    pub fn rewind(&mut self) {
        self.queue.rewind();
    }

    /// A message that was sent is to be sent again.
    pub fn unsend(&mut self, sequence: Sequence) {
        self.queue.unsend(sequence);
    }

    /// Keeps a message of this command back, which is unsent: those of others go past it. `false`:
    /// as many are kept back as may be (`HELD_MOST`), and everything waits.
    pub fn hold(&mut self, sequence: Sequence, command: &str) -> bool {
        self.queue.hold(sequence, command)
    }

    /// The messages of this command that are held are unsent again, in their places.
    pub fn release(&mut self, command: &str) {
        self.queue.release(command);
    }

    /// The first message of this command that is held, to be tried. It stays held until it is
    /// settled.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn first_held(&mut self, command: &str) -> Result<Option<Message>, SpoolError> {
        self.make_ready()?;
        while let Some((sequence, located)) = self.queue.first_held(command) {
            match self.read_message(sequence, &located)? {
                Some(message) => return Ok(Some(message)),
                // It rotted since it was located; its bytes are in corrupt/ now.
                None => drop(self.queue.settle(sequence)),
            }
        }
        Ok(None)
    }

    /// Whether one that was stored before this message is unsent, and not held.
    pub fn is_unsent_before(&self, sequence: Sequence) -> bool {
        self.queue.first_unsent().is_some_and(|(first, _)| first < sequence)
    }

    /// How many messages of this command are held.
    pub fn held(&self, command: &str) -> u64 {
        self.queue.held(command)
    }

    /// Whether messages wait that a new one must not overtake: all but those that are held.
    pub fn has_backlog(&self) -> bool {
        !self.is_empty() && !self.queue.only_held()
    }

    /// The message was answered: it is done. Answers may come in any order. What does not wait is
    /// passed over.
    pub fn settle(&mut self, sequence: Sequence) {
        let Some(located) = self.queue.settle(sequence) else {
            log::debug!("{}: message {sequence} does not wait", self.dir.display());
            return;
        };
        if self.queue.removable() != Some(located.segment) {
            self.mark_answered(&located);
        }
        self.remove_finished();
        self.locate_oldest();
    }

    /// The message was refused for good: it goes to `failed/`, synced, and is then settled.
    ///
    /// # Errors
    /// The file could not be written; the message still waits, as sent ([`Spool::unsend`]).
    pub fn set_aside(
        &mut self,
        sequence: Sequence,
        request: &[u8],
        answer: &[u8],
        now: Timestamp,
    ) -> Result<(), SpoolError> {
        let kept = self.write_failed(sequence, request, answer, now);
        self.see_whether_gone(kept.as_ref().err());
        kept?;
        self.settle(sequence);
        Ok(())
    }

    /// Locates a message if messages wait and none is located, so that the age of the oldest is
    /// known.
    pub(super) fn locate_oldest(&mut self) {
        while self.prepared && self.queue.wants_locating() {
            match self.locate() {
                Ok(true) => {}
                Ok(false) => break,
                // Said when it is to be sent.
                Err(error) => {
                    log::debug!("{error}; the age of what waits is not known");
                    break;
                }
            }
        }
        self.window = Window::default();
    }

    /// Moves the cursor past the next message that waits; `false` at the end. After an error it
    /// stands where it stood.
    fn locate(&mut self) -> Result<bool, SpoolError> {
        while let Some(cursor) = self.queue.cursor() {
            if self.queue.is_unknown_here() {
                self.examine_again(cursor.segment, cursor.bound)?;
            } else if cursor.offset < cursor.end {
                self.fill_window(&cursor)?;
                if self.step(&cursor) {
                    return Ok(true);
                }
            } else {
                let lost = self.queue.unread_here();
                if lost > 0 {
                    let path = self.segment_path(cursor.segment);
                    log::error!("read {}: {lost} messages are gone from it", path.display());
                }
                if !self.queue.end_segment() {
                    return Ok(false);
                }
            }
        }
        Ok(false)
    }

    /// Passes one thing in the window; whether it was a message that waits.
    fn step(&mut self, cursor: &Cursor) -> bool {
        let window = std::mem::take(&mut self.window);
        let bytes = window.from(cursor.segment, cursor.offset).unwrap_or_default();
        let mut scan = Scan::new(bytes, cursor.least, cursor.bound);
        let found = scan.next();
        let (passed, least) = (scan.at() as u64, scan.least());
        let mut located = false;
        match found {
            Some(Found::Record(record)) if !record.answered => {
                let place = Located {
                    segment: cursor.segment,
                    offset: cursor.offset,
                    length: record.request.len() as u64,
                    user: record.user,
                    stored_at: record.stored_at,
                };
                self.queue.locate(record.sequence, place, passed);
                located = true;
            }
            Some(Found::Record(_)) => self.queue.pass(passed, least),
            Some(Found::Damaged(damage)) => {
                self.keep_damage_or_pin(cursor.segment, cursor.offset, damage);
                self.queue.pass(passed, least);
            }
            None => self.queue.pass(cursor.end - cursor.offset, least),
        }
        self.window = window;
        located
    }

    /// Reads what the cursor has not passed of its segment, unless it is here.
    fn fill_window(&mut self, cursor: &Cursor) -> Result<(), SpoolError> {
        if self.window.from(cursor.segment, cursor.offset).is_none() {
            self.window = Window::default();
            let length = (cursor.end - cursor.offset) as usize;
            let bytes = self.read_segment(cursor.segment, cursor.offset, length)?;
            self.window = Window { segment: Some(cursor.segment), base: cursor.offset, bytes };
        }
        Ok(())
    }

    fn drop_used_window(&mut self) {
        let used = self.queue.cursor().is_none_or(|at| self.window.from(at.segment, at.offset).is_none());
        if used {
            self.window = Window::default();
        }
    }

    /// Reads a located message again; `None`: it is not there any more.
    fn read_message(&mut self, sequence: Sequence, at: &Located) -> Result<Option<Message>, SpoolError> {
        let length = record::HEADER + at.length as usize;
        let mut bytes = match self.window.from(at.segment, at.offset).and_then(|bytes| bytes.get(..length)) {
            Some(bytes) => bytes.to_vec(),
            None => self.read_segment(at.segment, at.offset, length)?,
        };
        let found = record::parse(&bytes).filter(|record| record.sequence == sequence);
        match found.map(|record| (record.stored_at, record.request.len())) {
            Some((stored_at, length)) => {
                // What was read is the message: a long one is not copied.
                bytes.truncate(record::HEADER + length);
                bytes.drain(..record::HEADER);
                Ok(Some(Message { sequence, stored_at, request: bytes }))
            }
            None => {
                self.keep_damage_or_pin(at.segment, at.offset, &bytes);
                Ok(None)
            }
        }
    }

    pub(super) fn read_segment(
        &mut self,
        name: Sequence,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, SpoolError> {
        let path = self.segment_path(name);
        let mut tries = 1;
        loop {
            let file = match self.reader.take().filter(|(open, _)| *open == name) {
                Some((_, file)) => Ok(file),
                None => self.disk.open(&path, false),
            };
            let read = file.and_then(|file| {
                let bytes = self.disk.read_at(&file, offset, length)?;
                self.reader = Some((name, file));
                Ok(bytes)
            });
            match read {
                Ok(bytes) => return Ok(bytes),
                Err(cause) if tries < READ_TRIES => {
                    self.warn(format!("read {}: {cause}; read again", path.display()));
                    tries += 1;
                }
                Err(cause) => return Err(cause).context("read", &path),
            }
        }
    }

    /// Notes progress in the message's line. Not synced, and a failure means only that it may be
    /// sent again.
    fn mark_answered(&mut self, at: &Located) {
        let path = self.segment_path(at.segment);
        let file = match self.marker.take().filter(|(open, _)| *open == at.segment) {
            Some((_, file)) => Ok(file),
            None => self.disk.open(&path, true),
        };
        let marked = file.and_then(|file| {
            self.disk.write_at(&file, at.offset + MARK_AT as u64, &[ANSWERED])?;
            self.marker = Some((at.segment, file));
            Ok(())
        });
        if let Err(cause) = marked {
            self.warn(format!("mark what was answered in {}: {cause}; it may be sent again", path.display()));
        }
    }

    /// Removes the segments that nothing waits in. The last stays: it is appended to.
    pub(super) fn remove_finished(&mut self) {
        let mut removed = false;
        while let Some(name) = self.queue.removable() {
            let path = self.segment_path(name);
            // An open file would keep its room.
            (self.reader, self.marker) = (None, None);
            match self.disk.remove(&path) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                    log::warn!("remove {}: {cause}; it is tried again at the next start", path.display());
                    self.queue.pin(name);
                }
                Ok(()) | Err(_) => {
                    self.queue.removed(name);
                    removed = true;
                }
            }
        }
        while let Some((name, altogether)) = self.queue.hollow() {
            (self.reader, self.marker) = (None, None);
            if let Err(error) = self.hollow(name, altogether) {
                log::warn!("{error}; that is tried again at the next start");
                self.queue.pin(name);
            }
            removed = true;
        }
        if removed && let Err(cause) = self.disk.sync_dir(&self.dir) {
            log::warn!("sync {}: {cause}; answered messages may be sent again", self.dir.display());
        }
    }

    /// Takes its bytes from a segment that is done with, and its name too if that bounds nothing.
    fn hollow(&mut self, name: Sequence, altogether: bool) -> Result<(), SpoolError> {
        let path = self.segment_path(name);
        if altogether {
            self.disk.remove(&path).context("remove", &path)?;
            self.queue.removed(name);
            return Ok(());
        }
        let hidden = self.dir.join(HOLLOW);
        if let Err(cause) = self.disk.remove(&hidden)
            && cause.kind() != io::ErrorKind::NotFound
        {
            return Err(cause).context("remove", &hidden);
        }
        self.disk.create(&hidden).context("make", &hidden)?;
        self.disk.rename(&hidden, &path).context("rename", &hidden)?;
        self.queue.hollowed(name);
        Ok(())
    }
}
