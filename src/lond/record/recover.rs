//! What is found of a record at the start, and what cannot be read of it.

use super::kept::{ANSWER_MOST, Kept};
use super::{ANSWERS, NEW, Record, State, line};
use crate::disk::{Context, Disk, Kind, StepError};
use std::io;
use std::path::Path;

/// Bytes that are read at a time.
const CHUNK: usize = 1024 * 1024;
/// Longest line: an answer that is escaped throughout, and what stands before it. A longer one is damage.
const LINE_MOST: usize = 2 * ANSWER_MOST + 256;
/// Largest file that is read; a larger one is not a record's. What a record must hold takes less than 100 MiB.
const FILE_MOST: u64 = 1024 * 1024 * 1024;
/// How often a read is tried: unlike a sync, it may be tried again.
const READ_TRIES: usize = 2;
/// Copies of damaged files that are kept; at the bound the next is only reported.
const DAMAGED_MOST: u32 = 100;

/// What the file was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaded {
    /// Whole, or without its tail, or not there.
    Whole,
    /// There are bytes that cannot be read; the file was not copied yet.
    Damaged {
        /// How many.
        bytes: u64,
    },
}

/// Reads lines and remembers what they say.
#[derive(Default)]
struct Reader {
    kept: Kept,
    /// The line that has begun.
    line: Vec<u8>,
    /// That one is too long: its bytes are passed over.
    too_long: bool,
    good: u64,
    /// Bytes without a proven line since the last one.
    unproven: u64,
    /// Bytes without a proven line that one came behind.
    damaged: u64,
}

impl Reader {
    fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.extend(&bytes[..end]);
            self.end_line(1);
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.too_long || self.line.len() + bytes.len() > LINE_MOST {
            self.too_long = true;
            self.unproven += (self.line.len() + bytes.len()) as u64;
            self.line = Vec::new();
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self, newline: u64) {
        match line::parse(&self.line).filter(|_| !self.too_long) {
            Some(line) => {
                self.kept.take(line);
                self.good += 1;
                self.damaged += std::mem::take(&mut self.unproven);
            }
            None => self.unproven += self.line.len() as u64 + newline,
        }
        self.line.clear();
        self.too_long = false;
    }
}

impl<D: Disk> Record<D> {
    /// Reads the file, unless that was done.
    pub(super) fn read_once(&mut self) -> Result<(), StepError> {
        if self.state != State::Unread {
            return Ok(());
        }
        self.file = None;
        let mut tries = 1;
        let (kept, loaded) = loop {
            match self.read() {
                Err(error) if !error.is_missing() && tries < READ_TRIES => {
                    log::warn!("{error}; read again");
                    tries += 1;
                }
                Err(error) if error.is_missing() => break (Kept::default(), Loaded::Whole),
                read => break read?,
            }
        };
        self.kept = kept;
        self.state = State::Read(loaded);
        Ok(())
    }

    fn read(&mut self) -> Result<(Kept, Loaded), StepError> {
        let path = self.dir.join(ANSWERS);
        let found = self.disk.metadata(&path).context("read", &path)?;
        if found.kind != Kind::File || found.length > FILE_MOST {
            let cause = io::Error::other("it is not a record: no plain file, or too large");
            return Err(cause).context("read", &path);
        }
        let mut reader = Reader::default();
        self.each_chunk(&path, |_, bytes, _| {
            reader.feed(bytes);
            Ok(())
        })?;
        // A last line that lost nothing but its newline is proven all the same.
        reader.end_line(0);
        // The first line was durable before the file had its name: without any, more is missing than a tail.
        if reader.damaged > 0 || reader.good == 0 {
            let bytes = reader.damaged + if reader.good == 0 { reader.unproven } else { 0 };
            return Ok((reader.kept, Loaded::Damaged { bytes }));
        }
        if reader.unproven > 0 {
            log::warn!("read {}: its last {} bytes are not whole; cut off", path.display(), reader.unproven);
        }
        Ok((reader.kept, Loaded::Whole))
    }

    /// Copies the damaged file to a name of its own, before the record is written anew without what is damaged.
    pub(super) fn set_damaged_aside(&mut self, damaged: u64) -> Result<(), StepError> {
        let (path, new) = (self.dir.join(ANSWERS), self.dir.join(NEW));
        for number in 1..=DAMAGED_MOST {
            let copy = self.dir.join(format!("damaged-{number}"));
            match self.disk.metadata(&copy) {
                Ok(_) => continue,
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => return Err(cause).context("make", &copy),
            }
            let file = self.create_hidden(&new)?;
            self.each_chunk(&path, |disk, bytes, offset| {
                disk.write_at(&file, offset, bytes).context("write", &new)
            })?;
            self.disk.sync_data(&file).context("sync", &new)?;
            self.disk.rename(&new, &copy).context("rename", &new)?;
            self.disk.sync_dir(&self.dir).context("sync", &self.dir)?;
            log::error!(
                "read {}: {damaged} of its bytes are damaged; answers may be lost, and messages run again; a copy \
                 is kept as {}",
                path.display(),
                copy.display()
            );
            return Ok(());
        }
        log::error!(
            "read {}: {damaged} of its bytes are damaged; answers may be lost, and messages run again; \
             {DAMAGED_MOST} copies are there already, no more are made",
            path.display()
        );
        Ok(())
    }

    fn each_chunk(
        &mut self,
        path: &Path,
        mut each: impl FnMut(&mut D, &[u8], u64) -> Result<(), StepError>,
    ) -> Result<(), StepError> {
        let file = self.disk.open(path, false).context("open", path)?;
        let mut offset = 0;
        loop {
            let bytes = self.disk.read_at(&file, offset, CHUNK).context("read", path)?;
            if bytes.is_empty() {
                return Ok(());
            }
            each(&mut self.disk, &bytes, offset)?;
            offset += bytes.len() as u64;
        }
    }

    /// Makes the folder and the one above, and their names durable.
    pub(super) fn make_folders(&mut self) -> Result<(), StepError> {
        let dir = self.dir.clone();
        let received = dir.parent().unwrap_or(Path::new("."));
        let spool = received.parent().unwrap_or(Path::new("."));
        for folder in [spool, received, &dir] {
            self.disk.make_folder(folder).context("make", folder)?;
        }
        for folder in [spool, received] {
            self.disk.sync_dir(folder).context("sync", folder)?;
        }
        Ok(())
    }
}
