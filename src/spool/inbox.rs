//! Files of the original's kind: `delayed/<anything>.<peer>`, one message each, its first line the request.
//!
//! Programs of the host drop them there; they are taken into the spool in the order of their names and then
//! removed. A file is removed only once its message is on disk in the spool. If the machine or the process dies
//! between the two, the message is taken in again: such a file has no identity that would tell (see
//! `docs/spool.md`).

use super::aside::CORRUPT;
use super::record::{MAX_REQUEST, Sequence};
use super::store::Refusal;
use super::{Context, Disk, Kind, Metadata, Spool, SpoolError, StoreError, survey};
use jiff::{SignedDuration, Timestamp};
use std::collections::BinaryHeap;
use std::ffi::OsString;
use std::io;
use std::path::Path;

/// Files that one call takes at most; [`TakenIn::more`] says that others are there.
pub const TAKE_IN_MOST: usize = 256;
/// How long a file without a newline is left to the program that may be writing it; also the pause before a
/// file that could not be taken in should be tried again.
pub const WRITER_PAUSE: SignedDuration = SignedDuration::from_secs(5);
/// Bytes of requests that one store takes from files.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Names that are remembered because they could not be moved away. At the bound nothing more is taken in.
const STUCK_MOST: usize = 10_000;

/// What [`Spool::take_in`] did.
#[derive(Debug, Default)]
pub struct TakenIn {
    /// Messages that are in the spool now.
    pub stored: u64,
    /// Files that went to `corrupt/`.
    pub corrupt: u64,
    /// More files are there: call again when other work is done.
    pub more: bool,
    /// Some files were left; when to call again.
    pub retry_at: Option<Timestamp>,
    /// Why files were left although they are whole.
    pub refused: Option<StoreError>,
    /// Why files were left of which nothing is known.
    pub trouble: Option<SpoolError>,
}

impl TakenIn {
    fn retry(&mut self, at: Timestamp) {
        self.retry_at = Some(self.retry_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// What a file turned out to be.
pub(super) enum Dropped {
    /// A message.
    Request(Metadata, Vec<u8>),
    /// May still be being written until then.
    Unfinished(Timestamp),
    /// It can never be one, and why: it goes to `corrupt/`.
    Unusable(String),
    /// What it is cannot be told just now; none behind it may overtake it.
    Unreadable(io::Error),
    /// A folder, or gone.
    NotOurs,
}

impl<D: Disk> Spool<D> {
    /// Takes in the files of `delayed` whose name `belongs` to this peer, in the order of their names. Hidden
    /// files are left alone.
    pub fn take_in(&mut self, delayed: &Path, belongs: &dyn Fn(&str) -> bool, now: Timestamp) -> TakenIn {
        let mut taken = TakenIn::default();
        if let Err(error) = self.make_ready() {
            taken.refused = Some(error.into());
            taken.retry(later(now));
            return taken;
        }
        self.remove_taken_in(delayed, now, &mut taken);
        let names = match self.first_names(delayed, belongs, &mut taken) {
            Ok(names) => names,
            Err(cause) => {
                taken.trouble = Err::<(), _>(cause).context("list", delayed).err();
                taken.retry(later(now));
                return taken;
            }
        };
        let mut batch: Vec<(OsString, Metadata, Vec<u8>)> = Vec::new();
        for name in names {
            match look_at(&mut self.disk, &delayed.join(&name), now) {
                Dropped::Request(found, request) => batch.push((name, found, request)),
                Dropped::Unfinished(until) => taken.retry(until),
                Dropped::Unusable(why) => self.move_away(delayed, name, &why, now, &mut taken),
                Dropped::Unreadable(cause) => {
                    taken.trouble = Err::<(), _>(cause).context("take in", &delayed.join(&name)).err();
                    taken.retry(later(now));
                    break;
                }
                Dropped::NotOurs => {}
            }
            if batch.iter().map(|(_, _, request)| request.len()).sum::<usize>() >= BATCH_BYTES
                && !self.store_files(delayed, std::mem::take(&mut batch), now, &mut taken)
            {
                return taken;
            }
        }
        self.store_files(delayed, batch, now, &mut taken);
        if taken.more && taken.stored + taken.corrupt == 0 {
            // The first names are all of files that must be left for now: calling again at once would change nothing.
            taken.more = false;
            taken.retry(later(now));
        }
        taken
    }

    /// Files that were taken in and could not be removed are tried again, unless someone has put another under that name.
    fn remove_taken_in(&mut self, delayed: &Path, now: Timestamp, taken: &mut TakenIn) {
        for (name, known) in std::mem::take(&mut self.taken_in) {
            let path = delayed.join(&name);
            let removed = match self.disk.metadata(&path) {
                Ok(found) if found == known => self.disk.remove(&path),
                Ok(_) => Ok(()),
                Err(cause) => Err(cause),
            };
            match removed {
                Ok(()) => {}
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(_) => {
                    self.taken_in.insert(name, known);
                    taken.retry(later(now));
                }
            }
        }
    }

    /// The first names in order; memory does not grow with the folder.
    fn first_names(
        &mut self,
        delayed: &Path,
        belongs: &dyn Fn(&str) -> bool,
        taken: &mut TakenIn,
    ) -> io::Result<Vec<OsString>> {
        let mut first = BinaryHeap::new();
        let (stuck, taken_in) = (&self.stuck, &self.taken_in);
        self.disk.list(delayed, &mut |name| {
            let text = name.to_string_lossy();
            if text.starts_with('.') || !belongs(&text) || stuck.contains(name) || taken_in.contains_key(name)
            {
                return;
            }
            first.push(name.to_owned());
            if first.len() > TAKE_IN_MOST {
                first.pop();
                taken.more = true;
            }
        })?;
        if self.stuck.len() + self.taken_in.len() >= STUCK_MOST {
            taken.more = false;
            return Err(io::Error::other("too many files there cannot be removed"));
        }
        Ok(first.into_sorted_vec())
    }

    /// Stores the messages, then removes their files. Returns whether to go on.
    fn store_files(
        &mut self,
        delayed: &Path,
        batch: Vec<(OsString, Metadata, Vec<u8>)>,
        now: Timestamp,
        taken: &mut TakenIn,
    ) -> bool {
        if batch.is_empty() {
            return true;
        }
        let requests: Vec<(Option<Sequence>, &[u8])> =
            batch.iter().map(|(_, _, request)| (None, request.as_slice())).collect();
        let mut results = self.store_batch(&requests, now, Refusal::EndsBatch).into_iter();
        let mut stored = Vec::new();
        for (name, found, _) in batch {
            match results.next() {
                Some(Ok(_)) => stored.push((name, found)),
                Some(Err(error)) => taken.refused = Some(error),
                None => {}
            }
        }
        taken.stored += stored.len() as u64;
        let mut removed = false;
        for (name, found) in stored {
            let path = delayed.join(&name);
            match self.disk.remove(&path) {
                Ok(()) => removed = true,
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => {
                    log::error!(
                        "remove {}: {cause}; it is in the spool, and would be taken in again at the next start",
                        path.display()
                    );
                    self.taken_in.insert(name, found);
                    taken.retry(later(now));
                }
            }
        }
        if removed && let Err(cause) = self.disk.sync_dir(delayed) {
            log::warn!("sync {}: {cause}; files that were taken in may come back", delayed.display());
        }
        if taken.refused.is_some() {
            taken.more = false;
            taken.retry(later(now));
        }
        taken.refused.is_none()
    }

    /// Moves what cannot be a message to `corrupt/`.
    fn move_away(&mut self, delayed: &Path, name: OsString, why: &str, now: Timestamp, taken: &mut TakenIn) {
        let from = delayed.join(&name);
        let folder = self.dir.join(CORRUPT);
        let mut to = folder.join(&name);
        if self.disk.metadata(&to).is_ok() {
            let mut other = name.clone();
            other.push(format!("@{}", now.as_nanosecond()));
            to = folder.join(other);
        }
        let free = self.disk.metadata(&to).is_err_and(|cause| cause.kind() == io::ErrorKind::NotFound);
        let moved = if free {
            self.disk.rename(&from, &to)
        } else {
            Err(io::Error::other("its name is taken in corrupt/"))
        };
        match moved {
            Ok(()) => {
                log::error!("take in {}: {why}; moved to {}", from.display(), to.display());
                taken.corrupt += 1;
                self.corrupt += 1;
                // The new name first: a file must not be in neither place.
                let synced = self.disk.sync_dir(&folder).and_then(|()| self.disk.sync_dir(delayed));
                if let Err(cause) = synced {
                    log::warn!("sync {}: {cause}; it may come back", folder.display());
                }
            }
            Err(cause) => {
                log::error!("take in {}: {why}; it stays: {cause}", from.display());
                self.stuck.insert(name);
            }
        }
    }
}

/// Reads a file that was dropped in.
pub(super) fn look_at<D: Disk>(disk: &mut D, path: &Path, now: Timestamp) -> Dropped {
    let found = match disk.metadata(path) {
        Ok(found) if found.kind == Kind::File => found,
        Ok(_) => return Dropped::NotOurs,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Dropped::NotOurs,
        Err(cause) => return Dropped::Unreadable(cause),
    };
    let mut line = match survey::read_file(disk, path, MAX_REQUEST + 1) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Dropped::NotOurs,
        Err(cause) => return Dropped::Unusable(cause.to_string()),
    };
    match memchr::memchr(b'\n', &line) {
        Some(end) => line.truncate(end),
        None if line.len() > MAX_REQUEST => {
            return Dropped::Unusable(format!("its first line is longer than {MAX_REQUEST} bytes"));
        }
        None => {
            let age = now.duration_since(found.modified);
            // A time far ahead says nothing about a writer.
            if age < WRITER_PAUSE && age > -WRITER_PAUSE {
                return Dropped::Unfinished(later(now));
            }
        }
    }
    if line.is_empty() {
        return Dropped::Unusable("it holds no request".to_owned());
    }
    Dropped::Request(found, line)
}

fn later(now: Timestamp) -> Timestamp {
    now.checked_add(WRITER_PAUSE).unwrap_or(Timestamp::MAX)
}
