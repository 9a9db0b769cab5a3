//! Files of the original's kind: `delayed/<anything>.<peer>`, one message each, its first line the
//! request.
//!
//! Programs of the host drop them there, and `arrival` moves them to `dropped/` in the peer's own
//! folder; from there they are taken into the spool in the order in which they came, and then
//! removed. A
//! file is removed only once its message is on disk in the spool. If the machine or the process
//! dies between the two, the message is taken in again: such a file has no identity that would tell
//! (see `docs/spool.md`). A file that has more than its first line, or was changed meanwhile, is
//! not removed but goes to `corrupt/`: nothing in it goes without a word.
//!
//! Whoever may drop files need not be somebody who may read what this process may. So a file that
//! has another name somewhere is not opened for its content, and a symbolic link is not followed.
//! Nor may it hold up others: a file that must wait holds up its own user's alone.
//!
//! Memory: what is read of a file is its first line; [`BATCH_BYTES`] of them and one more, and
//! [`NAMES_MOST`] names.

mod names;
mod unusable;

pub(super) use names::Listed;

use super::layout::DROPPED;
use super::record::MAX_REQUEST;
use super::store::Refusal;
use super::{Context, Disk, Kind, Metadata, NewMessage, Spool, SpoolError, StoreError, survey};
use jiff::{SignedDuration, Timestamp};
use names::First;
use std::ffi::OsString;
use std::io;
use std::path::Path;

/// Files that one call takes at most; [`TakenIn::more`] says that others are there.
pub const TAKE_IN_MOST: usize = 256;
/// Names that are kept of one look at the folder: a folder of very many is not listed again for
/// each call.
const NAMES_MOST: usize = 4096;
/// How long a file without a newline is left to the program that may be writing it; also the pause
/// before a file that could not be taken in should be tried again.
pub const WRITER_PAUSE: SignedDuration = SignedDuration::from_secs(5);
/// Bytes of requests that one store takes from files.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a file that are looked through at first for the end of its first line.
pub(super) const FIRST_READ: usize = 64 * 1024;
/// How long a file that cannot be read is tried again, every [`WRITER_PAUSE`], before it goes to
/// `corrupt/`.
const UNREADABLE_PAUSE: SignedDuration = SignedDuration::from_secs(30);
/// Names that are remembered because they could not be moved away. At the bound nothing more is
/// taken in.
const STUCK_MOST: usize = 10_000;

/// What [`Spool::take_in`] did.
#[derive(Debug, Default)]
pub struct TakenIn {
    /// Messages that are in the spool now.
    pub stored: u64,
    /// Files that went to `corrupt/`.
    pub corrupt: u64,
    /// What there is to say of files that can be no message, a line each.
    pub aside: Vec<String>,
    /// More files are there: call again when other work is done.
    pub more: bool,
    /// Some files were left; when to call again.
    pub retry_at: Option<Timestamp>,
    /// Why files were left although they are whole.
    pub refused: Option<StoreError>,
    /// Users whose files were left since they have their share of the spool, and how that is.
    pub over: Vec<StoreError>,
    /// Why files were left of which nothing is known.
    pub trouble: Option<SpoolError>,
}

impl TakenIn {
    /// Has this line logged.
    fn say(&mut self, line: String) {
        self.aside.push(line);
    }

    fn retry(&mut self, at: Timestamp) {
        self.retry_at = Some(self.retry_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// What a file turned out to be.
pub(super) enum Dropped {
    /// A message.
    Request {
        /// The file.
        found: Metadata,
        /// Its first line.
        line: Vec<u8>,
        /// It holds more than that.
        more: bool,
    },
    /// Its maker may not be done with it until then.
    Unfinished {
        /// When to look again.
        until: Timestamp,
        /// What it waits for, in words.
        why: &'static str,
    },
    /// It can never be one, and why: it goes to `corrupt/`.
    Unusable(String),
    /// What it is cannot be told just now.
    Unreadable {
        /// What the system said.
        cause: io::Error,
        /// None of the same user's behind it may overtake it.
        holds_up: bool,
    },
    /// A folder, a symbolic link, a pipe.
    Irregular,
    /// Nothing is there any more.
    Gone,
}

impl<D: Disk> Spool<D> {
    /// Files may have come since the folder was looked at last: [`Spool::take_in`] is to look again
    /// behind those of which it knows.
    pub fn files_came(&mut self) {
        self.came = true;
    }

    /// Takes in the files of `dropped/`, in the order in which they came. Hidden files are left
    /// alone.
    pub fn take_in(&mut self, now: Timestamp) -> TakenIn {
        let inbox = &self.dir.join(DROPPED);
        let mut taken = TakenIn::default();
        if let Err(error) = self.make_ready() {
            taken.refused = Some(error.into());
            taken.retry(later(now));
            return taken;
        }
        self.remove_taken_in(inbox, now, &mut taken);
        let names = match self.next_names(inbox) {
            Ok(names) => names,
            Err(cause) => {
                taken.trouble = Err::<(), _>(cause).context("list", inbox).err();
                taken.retry(later(now));
                return taken;
            }
        };
        self.unreadable.retain(|name, _| names.binary_search(name).is_ok());
        let mut batch: Vec<TakenFile> = Vec::new();
        for name in names {
            if self.listed.held.contains(&names::owner(&name)) {
                continue;
            }
            let dropped = look_at(&mut self.disk, &inbox.join(&name), now);
            if !matches!(dropped, Dropped::Unreadable { .. }) {
                self.unreadable.remove(&name);
            }
            match dropped {
                Dropped::Request { found, line, more } => batch.push(TakenFile { name, found, line, more }),
                Dropped::Unfinished { until, .. } => taken.retry(until),
                Dropped::Unusable(why) => self.move_away(inbox, name, &why, now, &mut taken),
                Dropped::Unreadable { cause, holds_up } => {
                    let since = *self.unreadable.entry(name.clone()).or_insert(now);
                    let lacking = is_shortage(&cause);
                    if now.duration_since(since).abs() >= UNREADABLE_PAUSE && !lacking {
                        self.unreadable.remove(&name);
                        self.move_away(inbox, name, &cause.to_string(), now, &mut taken);
                        continue;
                    }
                    taken.trouble = Err::<(), _>(cause).context("take in", &inbox.join(&name)).err();
                    taken.retry(later(now));
                    if lacking {
                        // So it would be with each.
                        self.listed.names.clear();
                        break;
                    }
                    if holds_up {
                        self.listed.held.insert(names::owner(&name));
                    }
                }
                Dropped::Irregular => self.put_away(inbox, name, now, &mut taken),
                Dropped::Gone => {}
            }
            if batch.iter().map(|file| file.line.len()).sum::<usize>() >= BATCH_BYTES
                && !self.store_files(inbox, std::mem::take(&mut batch), now, &mut taken)
            {
                self.listed = Listed::default();
                return taken;
            }
        }
        if self.store_files(inbox, batch, now, &mut taken) {
            self.end_round(now, &mut taken);
        } else {
            self.listed = Listed::default();
        }
        taken
    }

    /// Whether there is more to do at once.
    fn end_round(&mut self, now: Timestamp, taken: &mut TakenIn) {
        let listed = &mut self.listed;
        listed.progress |= taken.stored + taken.corrupt > 0;
        taken.more = !listed.names.is_empty();
        if !taken.more && listed.more {
            // If all that were looked at must be left for now, another look would find the same.
            taken.more = listed.progress;
            if !listed.progress {
                taken.retry(later(now));
            }
        }
        if self.listed.names.is_empty() {
            // Looked at again next time.
            self.listed = Listed::default();
            taken.more |= self.came;
        }
    }

    /// The names that this call is for, in order: those of the last look at the folder come first.
    fn next_names(&mut self, inbox: &Path) -> io::Result<Vec<OsString>> {
        if self.listed.names.is_empty() {
            self.came = false;
            self.listed = self.first_names(inbox)?;
        }
        let names = &mut self.listed.names;
        Ok(names.drain(..names.len().min(TAKE_IN_MOST)).collect())
    }

    /// Files that were taken in and could not be removed are tried again, unless someone has put
    /// another under that name.
    fn remove_taken_in(&mut self, inbox: &Path, now: Timestamp, taken: &mut TakenIn) {
        for (name, known) in std::mem::take(&mut self.taken_in) {
            let path = inbox.join(&name);
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
    fn first_names(&mut self, inbox: &Path) -> io::Result<Listed> {
        let mut first = First::default();
        let (stuck, taken_in) = (&self.stuck, &self.taken_in);
        let listed = self.disk.list(inbox, &mut |name| {
            let hidden = name.as_encoded_bytes().starts_with(b".");
            if hidden || stuck.contains(name) || taken_in.contains_key(name) {
                return;
            }
            first.add(name);
        });
        match listed {
            // It is made when the first file comes.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            listed => listed?,
        }
        if self.stuck.len() + self.taken_in.len() >= STUCK_MOST {
            return Err(io::Error::other("too many files there cannot be removed"));
        }
        Ok(first.listed())
    }

    /// Stores the messages, then removes their files. Returns whether to go on.
    fn store_files(
        &mut self,
        inbox: &Path,
        batch: Vec<TakenFile>,
        now: Timestamp,
        taken: &mut TakenIn,
    ) -> bool {
        if batch.is_empty() {
            return true;
        }
        let new = |file| {
            let TakenFile { found, line, .. }: &TakenFile = file;
            NewMessage { user: Some(found.user), sequence: None, request: line }
        };
        let messages: Vec<_> = batch.iter().map(new).collect();
        let mut over = std::mem::take(&mut self.listed.over);
        let results = self.store_batch(&messages, now, Refusal::KeepsOrder(&mut over));
        let mut stored = Vec::new();
        for (file, result) in batch.into_iter().zip(results) {
            match result {
                Ok(_) => stored.push(file),
                // Others' files are taken all the same.
                Err(StoreError::Over(_)) => taken.retry(later(now)),
                Err(error) => taken.refused = Some(error),
            }
        }
        taken.over = over.values().cloned().collect();
        self.listed.over = over;
        taken.stored += stored.len() as u64;
        let mut removed = false;
        for TakenFile { name, found, more, .. } in stored {
            let path = inbox.join(&name);
            let there = self.disk.metadata(&path).ok();
            if there.is_some_and(|there| there.inode != found.inode) {
                // Another file has taken its place: the next one.
                taken.retry(later(now));
                continue;
            }
            // What was written meanwhile would go with the file, and nobody would know.
            if more || there.is_some_and(|there| there != found) {
                let why = "it has more than its first line, which is in the spool; the rest is not sent";
                self.move_away(inbox, name, why, now, taken);
                continue;
            }
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
        if removed && let Err(cause) = self.disk.sync_dir(inbox) {
            log::warn!("sync {}: {cause}; files that were taken in may come back", inbox.display());
        }
        if taken.refused.is_some() {
            taken.retry(later(now));
        }
        taken.refused.is_none()
    }
}

/// A file that holds a message.
struct TakenFile {
    name: OsString,
    found: Metadata,
    line: Vec<u8>,
    more: bool,
}

/// Looks at a file that was dropped in.
pub(super) fn look_at<D: Disk>(disk: &mut D, path: &Path, now: Timestamp) -> Dropped {
    let Looked { found, line, more } = match survey::again(path, || look(disk, path)) {
        Ok(Some(looked)) => looked,
        Ok(None) => return Dropped::Irregular,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Dropped::Gone,
        // A symbolic link took its place.
        Err(cause) if cause.raw_os_error() == Some(libc::ELOOP) => return Dropped::Irregular,
        Err(cause) => {
            let holds_up = cause.kind() != io::ErrorKind::PermissionDenied;
            return Dropped::Unreadable { cause, holds_up };
        }
    };
    // A time far ahead says nothing about a writer.
    let fresh = now.duration_since(found.modified).abs() < WRITER_PAUSE;
    if found.links > 1 {
        // Some make a file under another name and link it here; that name goes at once.
        let why = "it has another name, and waits for that to go";
        return match fresh {
            true => Dropped::Unfinished { until: later(now), why },
            false => Dropped::Unusable("it has another name as well, and was not read".to_owned()),
        };
    }
    match line {
        FirstLine::TooLong => Dropped::Unusable(format!("its first line is longer than {MAX_REQUEST} bytes")),
        FirstLine::Open(_) if fresh => {
            Dropped::Unfinished { until: later(now), why: "it has no newline yet, and waits for it" }
        }
        FirstLine::Whole(line) | FirstLine::Open(line) if line.is_empty() => {
            Dropped::Unusable("it holds no request".to_owned())
        }
        FirstLine::Whole(line) | FirstLine::Open(line) => Dropped::Request { found, line, more },
    }
}

/// What one look at a file finds.
struct Looked {
    found: Metadata,
    line: FirstLine,
    /// Something else than line ends follows.
    more: bool,
}

enum FirstLine {
    Whole(Vec<u8>),
    /// The file ends within it.
    Open(Vec<u8>),
    TooLong,
}

/// Opens a plain file that has no other name, and reads its first line; `None`: it is no plain
/// file.
fn look<D: Disk>(disk: &mut D, path: &Path) -> io::Result<Option<Looked>> {
    let found = disk.metadata(path)?;
    let unread = |found| Some(Looked { found, line: FirstLine::Open(Vec::new()), more: false });
    if found.kind != Kind::File {
        return Ok(None);
    }
    if found.links > 1 {
        return Ok(unread(found));
    }
    let file = disk.open(path, false)?;
    // The name may stand for another file by now.
    let found = disk.describe(&file)?;
    if found.kind != Kind::File {
        return Ok(None);
    }
    if found.links > 1 {
        return Ok(unread(found));
    }
    let mut bytes = disk.read_at(&file, 0, FIRST_READ)?;
    let mut end = memchr::memchr(b'\n', &bytes);
    if end.is_none() && bytes.len() == FIRST_READ {
        bytes = disk.read_at(&file, 0, MAX_REQUEST + 1)?;
        end = memchr::memchr(b'\n', &bytes);
    }
    let Some(end) = end else {
        let line = if bytes.len() > MAX_REQUEST { FirstLine::TooLong } else { FirstLine::Open(bytes) };
        return Ok(Some(Looked { found, line, more: false }));
    };
    let blank = bytes[end..].iter().all(|byte| matches!(byte, b'\n' | b'\r'));
    let more = !blank || found.length > bytes.len() as u64;
    bytes.truncate(end);
    // One file of thousands: what was read behind the line is not kept.
    bytes.shrink_to_fit();
    Ok(Some(Looked { found, line: FirstLine::Whole(bytes), more }))
}

/// Whether it is this process or the system that lacks something just now, and not the file.
fn is_shortage(cause: &io::Error) -> bool {
    let shortages = [libc::EMFILE, libc::ENFILE, libc::ENOMEM];
    cause.raw_os_error().is_some_and(|code| shortages.contains(&code))
}

/// Whether it would be so with each other file, too.
pub(super) fn is_everybodys(cause: &io::Error) -> bool {
    is_shortage(cause) || cause.raw_os_error() == Some(libc::EIO)
}

fn later(now: Timestamp) -> Timestamp {
    now.checked_add(WRITER_PAUSE).unwrap_or(Timestamp::MAX)
}
