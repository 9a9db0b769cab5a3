//! What `lond` remembers of one caller, on disk: the answers to its critical messages, so that a
//! repeat is answered and not run again.
//!
//! [`Record`] owns the folder `<spool_dir>/.received/<caller>/` ([`folder`]); its file is described
//! in `docs/spool.md`. It guarantees:
//!
//! - What [`Record::sync`] answered `Ok` for is found by [`Record::look_up`], at every start again:
//!   under its sequence until that is settled or the caller's epoch changes, under its client key
//!   until [`KEYS_MOST`] newer ones came. What was only written is found at the next start if it is
//!   the process that died, and perhaps if it is the machine.
//! - Nothing is found that was not given to `write`, and nothing of one epoch under a sequence of
//!   another.
//! - What a killed process left in the file is made durable before it is answered from; but no more
//!   of the file is written for that than may not be durable: a caller that comes again and again
//!   costs next to nothing.
//!
//! How it fails: [`Record::open`] never does; trouble is kept ([`Record::trouble`]), said once, and
//! tried again by each [`Record::begin_epoch`]. After a failed write or sync that file is never
//! written to again: a new one is written from memory and takes its name, or the answers are
//! refused. What cannot be read of the file is reported, and a copy of the file is kept as
//! `damaged-<n>`; what can be read counts. A tail that is no whole line is cut off: it was never
//! acknowledged.
//!
//! How it is meant to be used, by the child that serves a link:
//!
//! 1. Take the [`base::disk::FolderLock`] of the folder and keep it as long as the record.
//!    While a newer link of the same caller replaces an older, two children live for a moment; the
//!    new one opens the record only when it has the lock, so it finds all that the old one added,
//!    and what the old one still runs is not run again beside it.
//! 2. [`Record::open`], and [`Record::begin_epoch`] with the epoch of the caller's HELLO; the mark
//!    goes into ours.
//! 3. For a CRITICAL: [`Record::settled`], then [`Record::look_up_in`]. `Unknown`: ask
//!    [`Record::may_run`], run it, and [`Record::write`] the answer, together with all that are
//!    ready. Then the next may be run. One [`Record::sync`] is for many; after it they may be sent.
//!    A repeat that its key answers is written under its new sequence too, since keys are forgotten
//!    by age.
//!
//! `recover` reads the file, `write` writes it, `kept` is what is remembered in memory, `keys`
//! its part about client keys, `line` the form of a line.
//!
//! Where the record refuses, the caller must not get an answer: to it any answer, an `error:` too,
//! means that the message was delivered. The link is ended instead, and the message stays in the
//! caller's spool.

mod check;
mod kept;
mod keys;
mod line;
mod recover;
mod write;

pub use check::{RecordTally, check};
pub use kept::{ANSWER_MOST, ANSWERS_BEHIND_ONE, ANSWERS_BYTES_MOST, ANSWERS_MOST, NOT_KEPT};
pub use keys::{KEYS_BYTES_MOST, KEYS_MOST};

use base::HostId;
use base::Key;
use base::disk::own::remove_left;
use base::disk::{Disk, StepError};
use kept::{Answer, Kept};
use recover::Loaded;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// Folder in the spool directory with a folder for each caller. No host's id begins with a dot.
const RECEIVED: &str = ".received";
/// The record's file.
const ANSWERS: &str = "answers";
/// The file is written anew when it has grown to twice what it must hold, but not before it grew by
/// this: 1 MiB.
pub const COMPACTION_STEP: u64 = 1024 * 1024;
/// Room that is set aside on disk before a message is run, so that its answer can be recorded on a
/// disk that is full by then: for one answer of the longest kind ...
const ROOM_FOR_ONE: u64 = 2 * ANSWER_MOST as u64 + 1024;
/// ... and for each of the others that are run beside it: most are a few bytes.
const ROOM_FOR_EACH: u64 = 160;
/// More than that is set aside, so that it is not asked for with each message.
const ROOM_STEP: u64 = 64 * 1024;
/// A longer tail is not written again at its place: the whole file is written anew.
const TAIL_MOST: u64 = 1024 * 1024;
/// A longer tail is ended with a floor line, so that the next link finds a short one.
const TAIL_LEFT: u64 = 1024;

/// The folder of the record of one caller.
pub fn folder(spool_dir: &Path, caller: &HostId) -> PathBuf {
    spool_dir.join(RECEIVED).join(caller.as_str())
}

/// The folder of all records, which is in `spool_dir`.
pub fn folder_of_all(spool_dir: &Path) -> PathBuf {
    spool_dir.join(RECEIVED)
}

/// An answer to a critical message, to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered<'a> {
    /// The message's number in its caller's spool.
    pub sequence: u64,
    /// Its client's own.
    pub key: Option<&'a Key>,
    /// The message's: what is settled may differ from command to command.
    pub command: &'a str,
    /// It stands for the answer of a handler that had got the message and gave none.
    pub broken: bool,
    /// What is answered.
    pub text: &'a [u8],
}

impl<'a> From<(u64, Option<&'a Key>, &'a [u8])> for Answered<'a> {
    fn from((sequence, key, text): (u64, Option<&'a Key>, &'a [u8])) -> Answered<'a> {
        Answered { sequence, key, command: "", broken: false, text }
    }
}

impl<'a, const N: usize> From<(u64, Option<&'a Key>, &'a [u8; N])> for Answered<'a> {
    fn from((sequence, key, text): (u64, Option<&'a Key>, &'a [u8; N])) -> Answered<'a> {
        Answered::from((sequence, key, text.as_slice()))
    }
}

/// What is known of a critical message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look<'a> {
    /// It was answered so, by its handler: it is answered so again, and not run.
    Answered(&'a [u8]),
    /// Its handler had got it and gave no answer; this stood for it. It is not run again.
    Broken(&'a [u8]),
    /// The caller has settled it. It is not run. Only a caller that breaks its word asks.
    SettledBefore,
    /// Nothing: it was not run, or its answer was not recorded.
    Unknown,
    /// Nothing can be said: no epoch was begun with success. Nothing may be run.
    NotReady,
}

/// Why answers were not recorded, or a record cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecordError {
    /// The caller's fault: its epoch is not 32 hex digits.
    #[error("read the caller's epoch: it is not 32 hex digits; critical messages refused")]
    BadEpoch,
    /// Our fault: no epoch was begun with success.
    #[error("record an answer: no epoch was begun; answer not recorded")]
    NotReady,
    /// The caller has settled too little of what was answered.
    #[error("record an answer: {ANSWERS_MOST} answers are not settled; critical messages refused")]
    Full,
    /// The caller could settle nothing of what was answered: an earlier message is being run.
    #[error("run a critical message: {ANSWERS_BEHIND_ONE} were answered while an earlier one is being run")]
    HeldUp,
    /// A step on disk failed.
    #[error("{0}; critical messages refused")]
    Disk(#[from] StepError),
}

/// How far a record is to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// What is on disk is not known.
    Unread,
    /// It was read, and the file that it was read from is not to be trusted or appended to.
    Read(Loaded),
    /// What is in memory is on disk, and durable.
    Ready,
}

/// The record of one caller. One process at a time may have it.
#[derive(Debug)]
pub struct Record<D: Disk> {
    disk: D,
    dir: PathBuf,
    step: u64,
    state: State,
    kept: Kept,
    /// Open for appending; none after a step failed.
    file: Option<D::File>,
    /// Bytes of that file.
    end: u64,
    /// Not all of them are durable.
    unsynced: bool,
    /// Up to this offset room is set aside in that file.
    room_until: u64,
    /// The file is written anew when it has this many bytes.
    compact_at: u64,
    trouble: Option<RecordError>,
}

impl<D: Disk> Record<D> {
    /// Reads what is remembered. Trouble is logged and kept; beginning an epoch tries again.
    pub fn open(disk: D, dir: &Path) -> Record<D> {
        Self::open_with_step(disk, dir, COMPACTION_STEP)
    }

    /// [`Record::open`] with another step than [`COMPACTION_STEP`], for tests that want the file
    /// written anew often.
    pub fn open_with_step(disk: D, dir: &Path, step: u64) -> Record<D> {
        let mut record = Record {
            disk,
            dir: dir.to_owned(),
            step,
            state: State::Unread,
            kept: Kept::default(),
            file: None,
            end: 0,
            unsynced: false,
            room_until: 0,
            compact_at: 0,
            trouble: None,
        };
        if let Err(error) = record.read_once() {
            log::error!("{error}, until it can be read");
            record.trouble = Some(error.into());
        }
        record
    }

    /// A link begins, with the caller in this epoch; an epoch other than the last drops floor and
    /// answers and keeps the client keys. What may not be durable of the file is written again and
    /// synced, so that all that is answered from is durable; if the file is not whole, or holds far
    /// more than it must, it is written anew. Returns the [`Record::mark`].
    ///
    /// # Errors
    /// It is no epoch, or the record cannot be read or written. Nothing is forgotten by that, and
    /// the next call tries again.
    pub fn begin_epoch(&mut self, epoch: &str) -> Result<u64, RecordError> {
        if !line::is_epoch(epoch) {
            return Err(RecordError::BadEpoch);
        }
        let begun = self.try_to_begin(epoch);
        if begun.is_err() {
            // Memory may be ahead of the disk now.
            self.state = State::Unread;
        }
        self.note(begun.map_err(RecordError::from))?;
        Ok(self.mark())
    }

    /// [`Record::look_up_in`], of a message whose command is never held.
    pub fn look_up(&self, sequence: u64, key: Option<&Key>) -> Look<'_> {
        self.look_up_in("", sequence, key)
    }

    /// What is known of the message of this command with this sequence and, if its client gave one,
    /// key. Constant time.
    pub fn look_up_in(&self, command: &str, sequence: u64, key: Option<&Key>) -> Look<'_> {
        if self.state != State::Ready {
            return Look::NotReady;
        }
        if sequence < self.kept.floor_of(command) {
            return Look::SettledBefore;
        }
        match self.kept.answer(sequence).or_else(|| self.kept.answer_to_key(key?)) {
            Some(Answer { text, broken: false }) => Look::Answered(text),
            Some(Answer { text, broken: true }) => Look::Broken(text),
            None => Look::Unknown,
        }
    }

    /// The caller has settled all sequences below: their answers are dropped. Noted on disk with
    /// the next answer; until then a crash brings them back, which does no harm.
    pub fn settled(&mut self, below: u64) {
        self.settled_but("", below, &BTreeSet::new());
    }

    /// [`Record::settled`], said by a message of this command while the caller holds those of
    /// others: then it is not about these, or, if `command` is held itself, about it alone.
    pub fn settled_but(&mut self, command: &str, below: u64, held: &BTreeSet<Box<str>>) {
        if self.state == State::Ready {
            self.kept.settle(command, below, held);
        }
    }

    /// The high-water mark: every sequence up to it, itself included, is settled; 0 when none is
    /// known to be.
    pub fn mark(&self) -> u64 {
        self.kept.least_floor().saturating_sub(1)
    }

    /// Whether an epoch was begun with success, and what is in memory is on disk.
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Why the last step that could fail did; `None` when it did not.
    pub fn trouble(&self) -> Option<&RecordError> {
        self.trouble.as_ref()
    }

    /// Whether a message may be run, as far as its answer can be recorded, beside those of
    /// `running` others. After a failure it makes the new file first, and room for the answer, so
    /// that on a sick or full disk nothing is run in vain. `behind`: one with a lower sequence is
    /// being run, so that nothing of what is answered can be settled until that one is.
    ///
    /// # Errors
    /// As [`Record::add`]; or [`RecordError::HeldUp`].
    pub fn may_run(&mut self, running: usize, behind: bool) -> Result<(), RecordError> {
        if self.state == State::Ready {
            if behind && self.kept.room(ANSWERS_BEHIND_ONE) <= running {
                return Err(RecordError::HeldUp);
            }
            if self.kept.room(ANSWERS_MOST) <= running {
                return Err(RecordError::Full);
            }
        }
        self.write::<Answered<'_>>(&[])?;
        let made = self.make_room(running).map_err(RecordError::from);
        self.note(made)
    }

    /// [`Record::write`] and [`Record::sync`].
    ///
    /// # Errors
    /// As these.
    pub fn add<'a, A: Copy + Into<Answered<'a>>>(&mut self, answers: &[A]) -> Result<(), RecordError> {
        self.write(answers)?;
        self.sync()
    }

    /// Writes answers, with one write for all. From then on they outlast this process, and not the
    /// machine: before they are sent, [`Record::sync`]. [`Record::look_up`] finds them already. The
    /// first answer to a sequence or key stays; the answer to a sequence that is settled meanwhile
    /// is kept for its key alone.
    ///
    /// # Errors
    /// None of them was written, and those that were and are not synced may be lost: all of both
    /// are to be given to it again. Their messages were run, and as long as their answers are not
    /// recorded a repeat is run again.
    pub fn write<'a, A: Copy + Into<Answered<'a>>>(&mut self, answers: &[A]) -> Result<(), RecordError> {
        let answers: Vec<Answered<'_>> = answers.iter().map(|answer| (*answer).into()).collect();
        let written = self.try_to_write(&answers);
        self.note(written)
    }

    /// Makes all that was written durable, with one sync. After `Ok`, and only then, it may be
    /// sent. Takes time for the disk; call it once for many.
    ///
    /// # Errors
    /// As [`Record::write`].
    pub fn sync(&mut self) -> Result<(), RecordError> {
        let synced = self.try_to_sync();
        self.note(synced)
    }

    fn note(&mut self, result: Result<(), RecordError>) -> Result<(), RecordError> {
        self.trouble = result.clone().err();
        result
    }

    fn try_to_begin(&mut self, epoch: &str) -> Result<(), StepError> {
        self.read_once()?;
        // Whoever took the lock made the folder; its name has to be durable before anything in it
        // counts.
        self.make_folders()?;
        remove_left(&mut self.disk, &self.dir);
        let whole = match self.state {
            State::Read(Loaded::Damaged { bytes }) => {
                self.set_damaged_aside(bytes)?;
                self.state = State::Read(Loaded::Unfit);
                None
            }
            State::Read(Loaded::Whole(tail)) => Some(tail),
            State::Read(Loaded::Unfit) | State::Ready | State::Unread => None,
        };
        let other_epoch = self.kept.epoch() != Some(epoch);
        self.kept.begin(epoch);
        self.compact_at = self.compacted_at(self.kept.length());
        let fit = whole.filter(|tail| tail.ends < self.compact_at && tail.ends - tail.begins <= TAIL_MOST);
        let gone_on = fit.map(|tail| self.go_on(tail, other_epoch));
        match gone_on {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                self.write_anew(&[], 0)?;
                log::warn!("{error}; written to a new file instead");
            }
            None => self.write_anew(&[], 0)?,
        }
        self.state = State::Ready;
        Ok(())
    }

    fn try_to_write(&mut self, answers: &[Answered<'_>]) -> Result<(), RecordError> {
        if self.state != State::Ready {
            return Err(RecordError::NotReady);
        }
        let staged = self.stage(answers)?;
        if staged.is_empty() && self.file.is_some() {
            return Ok(());
        }
        let text = self.text_of(&staged);
        if self.file.is_some() {
            if let Err(error) = self.append(&text) {
                self.replace_failed(&text, &error)?;
            }
        } else {
            self.write_anew(&text, 0)?;
        }
        for Answered { sequence, key, command, broken, text } in staged {
            self.kept.insert(sequence, key.cloned(), command, Answer { text: text.into(), broken });
        }
        self.compact_if_due();
        Ok(())
    }

    fn try_to_sync(&mut self) -> Result<(), RecordError> {
        if self.state != State::Ready {
            return Err(RecordError::NotReady);
        }
        if !self.unsynced {
            return Ok(());
        }
        if self.file_is_there() {
            if let Err(error) = self.sync_file() {
                self.replace_failed(&[], &error)?;
            }
        } else {
            self.write_anew(&[], 0)?;
        }
        Ok(())
    }

    /// The file that failed is done with; a new one, whole, may still do. What is being run beside
    /// what is in it relies on its room, if there is any.
    fn replace_failed(&mut self, more: &[u8], failure: &StepError) -> Result<(), StepError> {
        self.file = None;
        let room = self.room_until.saturating_sub(self.end + more.len() as u64);
        self.write_anew(more, room).or_else(|_| self.write_anew(more, 0))?;
        log::warn!("{failure}; written to a new file instead");
        Ok(())
    }

    /// What of the answers is to be kept, each within the bounds.
    fn stage<'a>(&self, answers: &[Answered<'a>]) -> Result<Vec<Answered<'a>>, RecordError> {
        let mut room_bytes = self.kept.room_bytes();
        let mut new = BTreeSet::new();
        let mut staged = Vec::with_capacity(answers.len());
        for answered in answers {
            let Answered { sequence, key, command, text, .. } = *answered;
            let new_key = key.is_some_and(|key| self.kept.answer_to_key(key).is_none());
            let open = sequence >= self.kept.floor_of(command) && self.kept.answer(sequence).is_none();
            let new_sequence = open && new.insert(sequence);
            if !new_sequence && !new_key {
                continue;
            }
            let fits = text.len() <= ANSWER_MOST && (!new_sequence || text.len() <= room_bytes);
            let text = if fits { text } else { NOT_KEPT };
            if new_sequence {
                room_bytes = room_bytes.saturating_sub(text.len());
            }
            staged.push(Answered { text, ..*answered });
        }
        if new.len() > self.kept.room(ANSWERS_MOST) {
            return Err(RecordError::Full);
        }
        Ok(staged)
    }

    fn text_of(&self, staged: &[Answered<'_>]) -> Vec<u8> {
        let mut text = Vec::new();
        let epoch = self.kept.epoch().unwrap_or_default();
        if !staged.is_empty() && !self.unsynced {
            // Where what is not synced begins must be seen: see `Tail`.
            self.kept.append_floor(&mut text);
        }
        for answered in staged {
            line::append_answer(&mut text, epoch, answered);
        }
        text
    }

    /// Whether there is a file to append to. Appending to one that someone removed would succeed,
    /// and be lost.
    fn file_is_there(&mut self) -> bool {
        let path = self.dir.join(ANSWERS);
        if self.file.is_some()
            && let Err(cause) = self.disk.metadata(&path)
            && cause.kind() == io::ErrorKind::NotFound
        {
            log::error!("append to {}: the file was removed; it is written anew from memory", path.display());
            self.file = None;
        }
        self.file.is_some()
    }
}

#[cfg(test)]
mod tests;
