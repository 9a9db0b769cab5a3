//! One process of a program, and what it is for.

use super::once::FirstLine;
use super::pipes::Pipes;
use super::queue::Ask;
use super::stderr;
use super::worker::Talk;
use crate::handler::tag::Said;
use std::time::{Duration, Instant};

/// Bytes that may wait for one process before it is given more.
const MOST_UNREAD: usize = 1 << 20;

/// What came of a request.
pub(super) type Tell<'t> = dyn FnMut(&Ask, Result<Said<'_>, String>) + 't;

/// What a process is for.
#[derive(Debug)]
pub(super) enum Work {
    /// One request, which is gone once it was said what came of it.
    Once { ask: Option<Ask>, line: FirstLine, by: Instant },
    /// One request after the other; it is the one with this number.
    Kept { number: usize, talk: Talk },
}

#[derive(Debug)]
pub(super) struct Process {
    pub pid: u32,
    pub work: Work,
    pub pipes: Pipes,
    pub said: stderr::Begun,
    /// When it was started.
    pub since: Instant,
    pub killed: bool,
    /// It has closed its output, or was told to end: by when it must have.
    pub leaves: Option<Instant>,
}

impl Process {
    pub(super) fn takes_more(&self) -> bool {
        !self.killed
            && self.leaves.is_none()
            && self.pipes.output.is_open()
            && self.pipes.listens()
            && self.pipes.out.len() < MOST_UNREAD
    }

    /// When it is to be killed.
    pub(super) fn deadline(&self, timeout: Duration) -> Option<Instant> {
        let by = match &self.work {
            Work::Once { by, .. } => Some(*by),
            Work::Kept { talk, .. } => talk.deadline(timeout),
        };
        by.into_iter().chain(self.leaves).min().filter(|_| !self.killed)
    }
}

impl Work {
    /// Takes what it says.
    ///
    /// # Errors
    /// It says what it was not asked for.
    pub(super) fn heard(&mut self, bytes: &[u8], tell: &mut Tell<'_>) -> Result<(), String> {
        match self {
            Work::Once { line, .. } => {
                line.push(bytes);
                Ok(())
            }
            Work::Kept { talk, .. } => talk.received(bytes, &mut |ask, said| tell(&ask, said)),
        }
    }
}
