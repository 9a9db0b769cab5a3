//! What is written to a process and read of it, as fast as it goes.

use super::process::Started;
use base::line::Outgoing;
use net::pipe::{Receiver, Sender};
use net::{Event, Interest, ReadOutcome, Registry, Token};
use std::io::{self, Read};
use std::os::fd::AsRawFd;

/// Which pipe an event is of.
pub(super) const INPUT: usize = 0;
pub(super) const OUTPUT: usize = 1;
pub(super) const ERRORS: usize = 2;

/// Bytes that are read of a pipe whose process is no more: what it has left there, unless another
/// goes on writing.
const LAST_BYTES: usize = 1 << 20;

/// One end to read from.
#[derive(Debug)]
pub(super) struct Source {
    pipe: Receiver,
    readable: bool,
    open: bool,
    /// Something was read of it.
    said: bool,
}

impl Source {
    fn new(mut pipe: Receiver, registry: &Registry, token: Token) -> io::Result<Source> {
        registry.register(&mut pipe, token, Interest::READABLE)?;
        Ok(Source { pipe, readable: true, open: true, said: false })
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Whether anything was ever read of it.
    pub(super) fn has_said(&self) -> bool {
        self.said
    }

    pub(super) fn is_readable(&self) -> bool {
        self.readable && self.open
    }

    /// Reads once. A pipe that cannot be read has ended.
    pub(super) fn read<'s>(&mut self, scratch: &'s mut [u8]) -> Option<&'s [u8]> {
        if !self.is_readable() {
            return None;
        }
        match read(&mut self.pipe, scratch) {
            Ok(ReadOutcome::Bytes(count)) => {
                self.said = true;
                scratch.get(..count)
            }
            Ok(ReadOutcome::Nothing) => {
                self.readable = false;
                None
            }
            Ok(ReadOutcome::End) | Err(_) => {
                self.open = false;
                None
            }
        }
    }

    /// Reads what its process, which is no more, has left.
    pub(super) fn last(&mut self, scratch: &mut [u8], mut take: impl FnMut(&[u8])) {
        self.readable = true;
        let mut taken = 0;
        while taken < LAST_BYTES
            && let Some(bytes) = self.read(scratch)
        {
            taken += bytes.len();
            take(bytes);
        }
        self.open = false;
    }
}

fn read(pipe: &mut Receiver, scratch: &mut [u8]) -> io::Result<ReadOutcome> {
    loop {
        match pipe.read(scratch) {
            Ok(0) => return Ok(ReadOutcome::End),
            Ok(count) => return Ok(ReadOutcome::Bytes(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(ReadOutcome::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// All pipes of one process.
#[derive(Debug)]
pub(super) struct Pipes {
    /// `None`: closed, nothing more is to be written.
    input: Option<Sender>,
    writable: bool,
    /// It reads no more. The pipe is kept, to tell what it has read.
    deaf: bool,
    pub(super) out: Outgoing,
    pub(super) output: Source,
    pub(super) errors: Source,
    fate: Receiver,
}

impl Pipes {
    /// Has them watched, under three tokens from this one on.
    pub(super) fn new(started: Started, registry: &Registry, token: usize) -> io::Result<Pipes> {
        let Started { mut input, output, errors, fate, .. } = started;
        registry.register(&mut input, Token(token + INPUT), Interest::WRITABLE)?;
        Ok(Pipes {
            input: Some(input),
            writable: true,
            deaf: false,
            out: Outgoing::sparing(),
            output: Source::new(output, registry, Token(token + OUTPUT))?,
            errors: Source::new(errors, registry, Token(token + ERRORS))?,
            fate,
        })
    }

    pub(super) fn note(&mut self, which: usize, event: &Event) {
        match which {
            INPUT => self.writable |= event.is_writable() || event.is_write_closed() || event.is_error(),
            OUTPUT => self.output.readable = true,
            ERRORS => self.errors.readable = true,
            _ => {}
        }
    }

    /// Writes what waits; once nothing does, ends the input if it is to be `closed`. A process that
    /// reads no more is told nothing more: what becomes of that, its end or its answer says.
    pub(super) fn write(&mut self, closed: bool) {
        let Some(input) = &mut self.input else { return };
        if self.writable && !self.deaf && !self.out.is_empty() {
            match self.out.flush_to(input) {
                Ok(all) => self.writable = all,
                Err(_) => self.deaf = true,
            }
        }
        if closed && self.out.is_empty() {
            self.input = None;
        }
    }

    /// Nothing more is said to it.
    pub(super) fn close_input(&mut self) {
        self.input = None;
    }

    /// Whether it can be told more.
    pub(super) fn listens(&self) -> bool {
        self.input.is_some() && !self.deaf
    }

    /// How many bytes of what it was given the process has read.
    pub(super) fn read_by_it(&self) -> u64 {
        let unread = self.input.as_ref().map_or(0, unread);
        self.out.gone().saturating_sub(unread)
    }

    /// Why it could not become its program, if so. To be asked when it has ended.
    pub(super) fn fate(&mut self) -> Option<String> {
        let mut said = [0; 256];
        match read(&mut self.fate, &mut said) {
            Ok(ReadOutcome::Bytes(count)) => {
                Some(String::from_utf8_lossy(said.get(..count).unwrap_or_default()).into_owned())
            }
            Ok(ReadOutcome::Nothing | ReadOutcome::End) | Err(_) => None,
        }
    }
}

/// Bytes in the pipe that nobody has read.
fn unread(input: &Sender) -> u64 {
    let mut count: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the kernel writes one number to where there is one.
    let done = unsafe { libc::ioctl(input.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    if done == 0 { u64::try_from(count).unwrap_or(0) } else { 0 }
}
