//! The epoch, and how far its sequences are reserved.
//!
//! Both stand in one file, so that neither can be lost without the other: where it is not known
//! which sequences may be in use, there is a new epoch, and they are names of other messages. The
//! file is replaced as a whole.
//!
//! No sequence is given out, to be stored or to be sent at once, that does not lie below the
//! durable reservation. So none comes twice in an epoch, whatever crashes, and whatever of the
//! segments is damaged or gone. A process begins where the last reservation ends: what that one
//! left unused are gaps, which mean nothing.

use super::layout::EPOCH;
use super::{Disk, Spool, SpoolError, StoreError, survey};
use base::Sequence;
use base::disk::Context;
use std::io;
use std::path::Path;

/// Digits of an epoch.
const EPOCH_DIGITS: usize = 32;
/// Bytes of the file: epoch, space, 20 digits, space, CRC-32 of what is before, newline.
const FILE_BYTES: usize = EPOCH_DIGITS + 1 + 20 + 1 + 8 + 1;
/// Sequences that are reserved at a time. Each reservation is a new file, two syncs; at most so
/// many numbers are left out by a start of the process.
pub(super) const RESERVED_AT_ONCE: u64 = 4096;

/// No sequence from here on is given out, whatever is found on disk: there must always be a next
/// one.
const SEQUENCES_END: Sequence = Sequence(u64::MAX - RESERVED_AT_ONCE);

impl<D: Disk> Spool<D> {
    /// Gives out the next sequence, for a message that is sent at once and perhaps stored later
    /// ([`Spool::store_at`]). It is used up, whatever becomes of the message, the process or the
    /// machine.
    ///
    /// # Errors
    /// [`StoreError::Disk`]: the folder cannot be used, or no more sequences could be reserved. The
    /// next call tries again.
    pub fn allocate(&mut self) -> Result<Sequence, StoreError> {
        self.make_ready()?;
        Ok(self.take_reserved()?)
    }

    /// The bound below which this spool has nothing to say any more: every sequence below it was
    /// settled, or refused, or never used, and will not be sent again. It is the least message that
    /// waits, else the next to be allocated; lower while a part of the spool cannot be read, and 0
    /// while the folder cannot be used.
    ///
    /// The spool does not know what became of sequences that were allocated and not stored: the
    /// caller takes the minimum of this and the least sequence that it has in flight.
    pub fn settled_below(&self) -> Sequence {
        if self.prepared { self.queue.settled_below() } else { Sequence(0) }
    }

    /// [`Spool::settled_below`], of the messages of a command that is held alone.
    pub fn settled_below_of(&self, command: &str) -> Sequence {
        if self.prepared { self.queue.settled_below_of(command) } else { Sequence(0) }
    }

    /// Takes the next sequence, reserving more if need be. None is used twice, so the last ones are
    /// not used at all: they are reached only where a segment has a name that was never given.
    pub(super) fn take_reserved(&mut self) -> Result<Sequence, SpoolError> {
        if self.queue.next_sequence() >= SEQUENCES_END {
            return Err(io::Error::other("no sequence is left: is one of its segments named too high?"))
                .context("number a message in", &self.dir);
        }
        if self.queue.next_sequence() >= self.reserved {
            let reserved = self.block_end();
            let written = self.write_epoch(&self.epoch.clone(), reserved);
            written.inspect_err(|error| self.warn(format!("reserve sequences: {error}")))?;
            self.reserved = reserved;
        }
        Ok(self.queue.take_sequence())
    }

    /// Reads the epoch, or makes one. One that cannot be understood is moved away: with a new epoch
    /// a receiver may see messages again, with a wrong one it could take new messages for old.
    pub(super) fn prepare_epoch(&mut self) -> Result<(), SpoolError> {
        let path = self.dir.join(EPOCH);
        match read(&mut self.disk, &self.dir)? {
            EpochFile::Sound { epoch, reserved } => {
                self.epoch = epoch;
                self.reserved = reserved;
                self.queue.skip_to(reserved);
                return Ok(());
            }
            EpochFile::Damaged(found) => self.move_to_corrupt(EPOCH, &found)?,
            EpochFile::Missing => {}
        }
        if self.queue.last().is_some() {
            log::warn!("{}: no epoch is left; a new one begins", self.dir.display());
        }
        let fresh = hex::encode(self.disk.random().context("make", &path)?);
        let reserved = self.block_end();
        self.write_epoch(&fresh, reserved)?;
        self.epoch = fresh;
        self.reserved = reserved;
        Ok(())
    }

    fn block_end(&self) -> Sequence {
        Sequence(self.queue.next_sequence().0.saturating_add(RESERVED_AT_ONCE))
    }

    fn write_epoch(&mut self, epoch: &str, reserved: Sequence) -> Result<(), SpoolError> {
        let dir = self.dir.clone();
        self.write_durably(&dir, EPOCH, &file_text(epoch, reserved))
    }
}

/// What the file is like.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EpochFile {
    /// It can be understood.
    Sound { epoch: String, reserved: Sequence },
    /// It cannot; its first bytes.
    Damaged(Vec<u8>),
    /// It is not there.
    Missing,
}

/// Reads the file.
///
/// # Errors
/// It cannot be read.
pub(super) fn read<D: Disk>(disk: &mut D, dir: &Path) -> Result<EpochFile, SpoolError> {
    let path = dir.join(EPOCH);
    match survey::read_file(disk, &path, FILE_BYTES + 1) {
        Ok(found) => Ok(match parse(&found) {
            Some((epoch, reserved)) => EpochFile::Sound { epoch, reserved },
            None => EpochFile::Damaged(found),
        }),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(EpochFile::Missing),
        Err(cause) => Err(cause).context("read", &path),
    }
}

fn file_text(epoch: &str, reserved: Sequence) -> Vec<u8> {
    let text = format!("{epoch} {reserved}");
    format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes())).into_bytes()
}

fn parse(found: &[u8]) -> Option<(String, Sequence)> {
    let text = std::str::from_utf8(found).ok()?;
    let (epoch, reserved) = (text.get(..EPOCH_DIGITS)?, text.get(EPOCH_DIGITS + 1..EPOCH_DIGITS + 21)?);
    let reserved = Sequence::from_digits(reserved.as_bytes())?;
    let hex = epoch.bytes().all(|digit| digit.is_ascii_hexdigit());
    (hex && found == file_text(epoch, reserved)).then(|| (epoch.to_owned(), reserved))
}
