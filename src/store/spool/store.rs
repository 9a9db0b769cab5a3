//! Storing: batches, and segments made ahead of need.
//!
//! A batch is one write and one sync, into a segment whose zeros and name are on disk already. When
//! a write or a sync fails, every message of the batch is refused, its place is filled with zeros
//! again as far as that goes, and the segment is closed: what a failed sync left in memory must not
//! be trusted. The next segment takes the first refused sequence as its name, so that leftovers are
//! shut out even if they reach the disk later.

use super::layout::SPARE;
use super::queue::Loads;
use super::record::{self, MAX_REQUEST};
use super::share::{Over, Refused};
use super::{Context, Disk, Spool, SpoolError};
use base::Sequence;
use jiff::Timestamp;
use std::io;

/// Why a message was not stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A bound is reached.
    #[error("the spool is full: {0}; message refused")]
    Full(#[from] Full),
    /// One user has as much as it may have while others may come.
    #[error("{0}; message refused")]
    Over(#[from] Over),
    /// The request is longer than a record may be.
    #[error("request of {length} bytes is longer than the {MAX_REQUEST} that can be stored; message refused")]
    TooLong {
        /// Bytes of the request.
        length: usize,
    },
    /// The request is not one line.
    #[error("request holds a newline; message refused")]
    NotOneLine,
    /// The sequence was not given out, or can no longer be stored in order: a higher one was put
    /// into a segment, or this one was and that failed.
    #[error(
        "sequence {sequence} is not among those from {least} to below {next} that may be stored; message refused"
    )]
    OutOfOrder {
        /// The one that it was to be stored under.
        sequence: Sequence,
        /// The least that may be stored.
        least: Sequence,
        /// The least that was not given out.
        next: Sequence,
    },
    /// A step on disk failed.
    #[error("{0}; message refused")]
    Disk(#[from] SpoolError),
}

/// The bound that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// As many messages wait as may.
    #[error("{limit} messages wait")]
    Messages {
        /// The bound.
        limit: u64,
    },
    /// The segments take as much room as they may.
    #[error("its segments take {used} bytes of {limit}, and {wanted} more are needed")]
    Bytes {
        /// Bytes on disk.
        used: u64,
        /// Bytes of the segment that is needed.
        wanted: u64,
        /// The bound.
        limit: u64,
    },
    /// The file system has too little left.
    #[error("{free} bytes are free on its file system, {wanted} are needed and {keep} must stay free")]
    FileSystem {
        /// Bytes free.
        free: u64,
        /// Bytes of the segment that is needed.
        wanted: u64,
        /// Bytes to stay free.
        keep: u64,
    },
}

/// A message that is to be stored.
#[derive(Debug, Clone, Copy)]
pub struct NewMessage<'a> {
    /// Whose it is; all of whom that is not known are one user.
    pub user: Option<u32>,
    /// The sequence that it has, from [`Spool::allocate`]; without one it gets the next.
    pub sequence: Option<Sequence>,
    /// The request.
    pub request: &'a [u8],
}

/// What the refusal of one message at a bound means for those behind it.
pub(super) enum Refusal<'a> {
    /// Nothing: each has its own answer.
    IsSingle,
    /// They are refused too: they will be tried again together, and must not overtake it. If it is
    /// only its user who has enough, that is so for that user's, and noted here.
    KeepsOrder(&'a mut Refused),
}

/// Lines that will be one write.
#[derive(Default)]
struct Batch {
    lines: Vec<u8>,
    loads: Loads,
    /// Where their results are, and their sequences.
    members: Vec<(usize, Sequence)>,
}

impl<D: Disk> Spool<D> {
    /// Appends messages of nobody that is known, with one write and one sync for each segment that
    /// they go to (as a rule: one). An `Ok` is on disk. Takes time for the disk; call it with all
    /// that waits together.
    pub fn store<'a>(&mut self, requests: &[&'a [u8]], now: Timestamp) -> Vec<Result<Sequence, StoreError>> {
        let new = |request: &&'a [u8]| NewMessage { user: None, sequence: None, request };
        self.store_batch(&requests.iter().map(new).collect::<Vec<_>>(), now, Refusal::IsSingle)
    }

    /// [`Spool::store`] under sequences that [`Spool::allocate`] gave out: rising, each higher than
    /// all that were stored before. One that is not is refused ([`StoreError::OutOfOrder`]), and so
    /// is one whose store was tried and failed: what it left on the disk must not meet another try.
    pub fn store_at(
        &mut self,
        requests: &[(Sequence, &[u8])],
        now: Timestamp,
    ) -> Vec<Result<Sequence, StoreError>> {
        let new = requests.iter().map(|(sequence, request)| NewMessage {
            user: None,
            sequence: Some(*sequence),
            request,
        });
        self.store_batch(&new.collect::<Vec<_>>(), now, Refusal::IsSingle)
    }

    /// [`Spool::store`] and [`Spool::store_at`] for messages of which it is known whose they are.
    pub fn store_all(
        &mut self,
        messages: &[NewMessage<'_>],
        now: Timestamp,
    ) -> Vec<Result<Sequence, StoreError>> {
        self.store_batch(messages, now, Refusal::IsSingle)
    }

    /// Stores messages that have a sequence, or else get the next.
    pub(super) fn store_batch(
        &mut self,
        messages: &[NewMessage<'_>],
        now: Timestamp,
        mut refusal: Refusal<'_>,
    ) -> Vec<Result<Sequence, StoreError>> {
        if let Err(error) = self.ready_to_store() {
            return messages.iter().map(|_| Err(error.clone().into())).collect();
        }
        let mut results = Vec::with_capacity(messages.len());
        let mut batch = Batch::default();
        // After a step failed the rest of this call is refused: a sick disk is not asked again for
        // each message.
        let mut broken = None;
        for message in messages {
            let known = match (&broken, &refusal) {
                (Some(error), _) => Some(error),
                (None, Refusal::KeepsOrder(refused)) => refused.get(&message.user),
                (None, Refusal::IsSingle) => None,
            };
            let placed = match known {
                Some(error) => Err(StoreError::clone(error)),
                None => self.place(message, now, &mut batch, &mut results),
            };
            match (&placed, &mut refusal) {
                (Err(error @ StoreError::Over(_)), Refusal::KeepsOrder(refused)) => {
                    refused.insert(message.user, error.clone());
                }
                (Err(error), Refusal::KeepsOrder(_)) | (Err(error @ StoreError::Disk(_)), _) => {
                    broken = Some(error.clone());
                }
                (Ok(_) | Err(_), _) => {}
            }
            results.push(placed);
        }
        self.flush(&mut batch, &mut results).ok();
        self.make_spare();
        self.locate_oldest();
        results
    }

    fn ready_to_store(&mut self) -> Result<(), SpoolError> {
        if self.append.is_some()
            && let Some(last) = self.queue.last()
        {
            // Appending to a file that someone removed would succeed, and be lost.
            let path = self.segment_path(last.name);
            if let Err(cause) = self.disk.metadata(&path)
                && cause.kind() == io::ErrorKind::NotFound
            {
                log::error!("append to {}: the file was removed; what waited in it is lost", path.display());
                self.start_over();
            }
        } else if self.prepared
            && let Err(cause) = self.disk.metadata(&self.dir)
            && cause.kind() == io::ErrorKind::NotFound
        {
            log::error!("store in {}: it was removed; what waited in it is lost", self.dir.display());
            self.start_over();
        }
        self.make_ready()
    }

    /// Puts a request into the batch, which is flushed first if the segment cannot take both.
    fn place(
        &mut self,
        message: &NewMessage<'_>,
        now: Timestamp,
        batch: &mut Batch,
        results: &mut [Result<Sequence, StoreError>],
    ) -> Result<Sequence, StoreError> {
        let NewMessage { user, sequence: given, request } = *message;
        if request.len() > MAX_REQUEST {
            return Err(StoreError::TooLong { length: request.len() });
        }
        if memchr::memchr(b'\n', request).is_some() {
            return Err(StoreError::NotOneLine);
        }
        if self.queue.waiting().all.messages + batch.loads.all.messages >= self.limits.messages {
            return Err(Full::Messages { limit: self.limits.messages }.into());
        }
        let length = record::line_len(user, request);
        self.require_share(user, length, &batch.loads, batch.lines.len() as u64)?;
        if let Some(sequence) = given {
            self.require_order(sequence, self.queue.floor())?;
        }
        if !self.fits(batch.lines.len() as u64 + length) {
            self.flush(batch, results)?;
            if !self.fits(length) {
                self.begin_segment(length, given)?;
            }
        }
        let sequence = match given {
            Some(sequence) => sequence,
            None => self.take_reserved()?,
        };
        self.queue.place(sequence);
        record::append_line(&mut batch.lines, sequence, now, user, request);
        batch.loads.add(user, request.len() as u64);
        batch.members.push((results.len(), sequence));
        Ok(sequence)
    }

    fn require_order(&self, sequence: Sequence, least: Sequence) -> Result<(), StoreError> {
        let next = self.queue.next_sequence();
        if (least..next).contains(&sequence) {
            return Ok(());
        }
        Err(StoreError::OutOfOrder { sequence, least, next })
    }

    fn fits(&self, bytes: u64) -> bool {
        self.append.is_some() && self.queue.last().is_some_and(|last| last.end + bytes <= last.size)
    }

    /// Writes and syncs the batch, or refuses all of it.
    fn flush(
        &mut self,
        batch: &mut Batch,
        results: &mut [Result<Sequence, StoreError>],
    ) -> Result<(), StoreError> {
        let batch = std::mem::take(batch);
        let (Some(file), Some(last), Some((_, first))) =
            (&self.append, self.queue.last(), batch.members.first())
        else {
            return Ok(());
        };
        let (offset, path) = (last.end, self.segment_path(last.name));
        let written = self.disk.write_at(file, offset, &batch.lines).context("write", &path);
        match written.and_then(|()| self.disk.sync_data(file).context("sync", &path)) {
            Ok(()) => {
                self.queue.appended(batch.lines.len() as u64, &batch.loads);
                Ok(())
            }
            Err(error) => {
                let _ = self.disk.write_at(file, offset, &vec![0; batch.lines.len()]);
                self.append = None;
                self.queue.close_after_failure(*first);
                let error = StoreError::from(error);
                for (index, _) in batch.members {
                    results[index] = Err(error.clone());
                }
                Err(error)
            }
        }
    }

    /// Makes a segment that can take `bytes` the one that is appended to. The one before stays that
    /// on an error. If the sequence of the first message is `given`, no other can take its place.
    fn begin_segment(&mut self, bytes: u64, given: Option<Sequence>) -> Result<(), StoreError> {
        let size = self.segment_bytes.max(bytes);
        let reusable = self.queue.last().filter(|_| self.reusable).map(|last| (last.name, last.size));
        let begun = if let Some((name, found)) = reusable {
            self.fill_last(name, found, size)
        } else {
            let name = self.queue.next_name(given.unwrap_or(self.queue.next_sequence()));
            given.map_or(Ok(()), |sequence| self.require_order(sequence, name))?;
            if self.spare == Some(size) {
                self.adopt_spare(name, size)
            } else {
                self.make_segment(name, size)
            }
        };
        if let Err(StoreError::Disk(error)) = &begun
            && error.is_missing()
        {
            // The folder is gone: the next store looks again.
            self.start_over();
        }
        begun
    }

    /// The empty segment found at the start gets its zeros.
    fn fill_last(&mut self, name: Sequence, found: u64, size: u64) -> Result<(), StoreError> {
        self.check_room(size.saturating_sub(found))?;
        // Whatever comes of it, this is the only try: a sync that failed must not be tried again on
        // the same file.
        self.reusable = false;
        let path = self.segment_path(name);
        let file = self.disk.open(&path, true).context("open", &path)?;
        if found < size {
            self.disk.write_at(&file, 0, &vec![0; size as usize]).context("fill", &path)?;
            self.disk.sync_data(&file).context("sync", &path)?;
            self.queue.resize_last(size);
        }
        self.append = Some(file);
        Ok(())
    }

    fn adopt_spare(&mut self, name: Sequence, size: u64) -> Result<(), StoreError> {
        self.spare = None;
        let (from, to) = (self.dir.join(SPARE), self.segment_path(name));
        self.disk.rename(&from, &to).context("rename", &from)?;
        let opened = self.disk.open(&to, true).context("open", &to);
        let file = opened.and_then(|file| {
            self.disk.sync_dir(&self.dir).context("sync", &self.dir)?;
            Ok(file)
        });
        self.finish_segment(name, size, file)
    }

    fn make_segment(&mut self, name: Sequence, size: u64) -> Result<(), StoreError> {
        self.check_room(size)?;
        let path = self.segment_path(name);
        let file = match self.disk.create(&path).context("make", &path) {
            Ok(file) => file,
            Err(error) => {
                if error.cause.kind() == io::ErrorKind::AlreadyExists {
                    self.queue.burn_name(name);
                }
                return Err(error.into());
            }
        };
        let filled = self.disk.write_at(&file, 0, &vec![0; size as usize]).context("fill", &path);
        let synced = filled
            .and_then(|()| self.disk.sync_data(&file).context("sync", &path))
            .and_then(|()| self.disk.sync_dir(&self.dir).context("sync", &self.dir));
        self.finish_segment(name, size, synced.map(|()| file))
    }

    fn finish_segment(
        &mut self,
        name: Sequence,
        size: u64,
        file: Result<D::File, SpoolError>,
    ) -> Result<(), StoreError> {
        match file {
            Ok(file) => {
                self.queue.add_segment(name, size);
                self.append = Some(file);
                self.remove_finished();
                Ok(())
            }
            Err(error) => {
                // The name is taken again only if nothing bears it any more.
                let removed = self.disk.remove(&self.segment_path(name));
                if removed.is_err_and(|cause| cause.kind() != io::ErrorKind::NotFound) {
                    self.queue.burn_name(name);
                }
                Err(error.into())
            }
        }
    }

    /// Makes the next segment's zeros once three quarters of the last one are used. A failure costs
    /// nothing now: the segment is made when it is needed, or that store is refused.
    fn make_spare(&mut self) {
        let size = self.segment_bytes;
        let Some(last) = self.queue.last().filter(|last| last.size == size && last.end >= size / 4 * 3)
        else {
            return;
        };
        let due = self.append.is_some() && self.spare.is_none() && self.spare_tried_at != Some(last.name);
        if !due {
            return;
        }
        self.spare_tried_at = Some(last.name);
        if self.check_room(size).is_err() {
            return;
        }
        match self.write_spare(size) {
            Ok(()) => self.spare = Some(size),
            Err(error) => {
                log::warn!("{error}; the next segment will be made when it is needed");
                let _ = self.disk.remove(&self.dir.join(SPARE));
            }
        }
    }

    fn write_spare(&mut self, size: u64) -> Result<(), SpoolError> {
        let path = self.dir.join(SPARE);
        // One that a failed step left behind: it never held a message.
        if let Err(cause) = self.disk.remove(&path)
            && cause.kind() != io::ErrorKind::NotFound
        {
            return Err(cause).context("remove", &path);
        }
        let file = self.disk.create(&path).context("make", &path)?;
        self.disk.write_at(&file, 0, &vec![0; size as usize]).context("fill", &path)?;
        self.disk.sync_data(&file).context("sync", &path)?;
        self.disk.sync_dir(&self.dir).context("sync", &self.dir)
    }

    /// Whether `wanted` more bytes of segments are within the bounds.
    fn check_room(&mut self, wanted: u64) -> Result<(), StoreError> {
        let used = self.queue.disk_bytes() + self.spare.unwrap_or(0);
        if used + wanted > self.limits.bytes {
            return Err(Full::Bytes { used, wanted, limit: self.limits.bytes }.into());
        }
        let free = self.disk.free_space(&self.dir).context("ask for the free space of", &self.dir)?;
        let keep = self.limits.keep_free;
        self.on_disk = Some(free.saturating_sub(keep.saturating_add(wanted)));
        if free < keep.saturating_add(wanted) {
            return Err(Full::FileSystem { free, wanted, keep }.into());
        }
        Ok(())
    }
}
