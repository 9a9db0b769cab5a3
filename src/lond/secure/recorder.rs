//! What a session asks of the record of its caller: see [`Recorder`].
//!
//! The session owns its recorder. What is in the record, and how it is kept, is
//! [`store::record`]'s.

use super::requests::Unrecorded;
use crate::handler::Ticket;
use base::Key;
use std::collections::BTreeSet;
use std::fmt::Debug;

/// Keeps the answers to one caller's critical messages, while this process has its record. Takes
/// time for the disk.
pub trait Recorder: Debug {
    /// Opens the record for this epoch of the caller's spool, or tries so again.
    fn open(&mut self, epoch: &str) -> Opening;

    /// Whether it is open.
    fn is_open(&self) -> bool;

    /// What is known of a message; notes what its caller says to be settled.
    fn recall(&mut self, wanted: &Wanted<'_>) -> Recalled;

    /// Writes answers, so that they outlast this process.
    ///
    /// # Errors
    /// None of them was written, and what was written and not synced may be lost; why. All of both
    /// is to be written again.
    fn write(&mut self, answers: &[&Unrecorded]) -> Result<(), String>;

    /// Makes all that was written outlast the machine. After `Ok`, and only then, it may be sent.
    ///
    /// # Errors
    /// As [`Recorder::write`].
    fn sync(&mut self) -> Result<(), String>;

    /// Whether this process will never have the record again: its folder was taken away, and it is
    /// left no other.
    fn is_lost(&self) -> bool {
        false
    }

    /// Lets go of the record: nobody will be answered from it any more.
    fn close(&mut self);
}

/// How opening the record went.
#[derive(Debug, PartialEq, Eq)]
pub enum Opening {
    /// It is open; its mark.
    Open(u64),
    /// Another process has it.
    Busy,
    /// It cannot be used, for this reason.
    Failed(String),
}

/// A critical message that is to be looked up.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Which request it is.
    pub ticket: Ticket,
    /// Its sequence in the caller's spool.
    pub sequence: u64,
    /// In whose order it is.
    pub command: &'a str,
    /// The caller has settled every sequence below this.
    pub settled: u64,
    /// But not those of these commands; or, if its own is one of them, of that alone.
    pub held: &'a BTreeSet<Box<str>>,
    /// How many others are being run or recorded.
    pub running: usize,
    /// One with a lower sequence is among them: until it is answered the caller can settle nothing
    /// of what is.
    pub behind: bool,
    /// The key that its client gave it.
    pub key: Option<&'a Key>,
}

/// An answer that is in the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// What was answered.
    pub text: Box<[u8]>,
    /// It stands for the answer of a handler that gave none.
    pub broken: bool,
}

/// What the record has of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recalled {
    /// Nothing: it is to be run.
    New,
    /// What was answered under its sequence.
    Answered(Recorded),
    /// What was answered to another message with the same key.
    AnsweredByKey(Recorded),
    /// The caller itself has settled this sequence before.
    SettledBefore,
    /// Nothing, and there is no room for its answer, for this reason: it may not be run.
    NoRoom(String),
    /// Nothing, and it may not be run before an earlier one is answered, for this reason.
    HeldUp(String),
    /// It cannot be used, for this reason; nothing may be run.
    Failed(String),
}
