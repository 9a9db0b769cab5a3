//! `lon queue check`: reads all of a spool and says what is wrong with it. Changes nothing, takes
//! no lock.
//!
//! It reads with the code that a start reads with, so the two agree: what is *damage* here is what
//! a start would set aside or pass over, and what is told as waiting is what it would deliver. What
//! is odd and hinders nothing is a warning.
//!
//! A link child may write meanwhile. So damage is believed only when the same bytes are read twice,
//! with a pause between; a segment or file that is gone by then was delivered.

use super::aside::{DamageCopy, copy_of};
use super::epoch::{self, EpochFile};
use super::inbox::{Dropped, look_at};
use super::layout::{self, CORRUPT, EPOCH, FAILED};
use super::record::{MARK_AT, Record};
use super::segment::{Found, Scan};
use super::{Context, Disk, SpoolError, survey};
use base::Sequence;
use jiff::Timestamp;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// How often a segment with damage is read at most, while it changes each time. The last reading
/// counts then.
const READINGS: usize = 5;

/// One thing that is wrong, as `file:line: what`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file or folder that it was found in.
    pub path: PathBuf,
    /// The line, counted from 1; `None` where the whole file is meant.
    pub line: Option<u64>,
    /// What is wrong there, as the end of a line of `lon queue check`.
    pub what: String,
    /// Whether a start would set something aside, or pass it over; otherwise nothing is hindered.
    pub damage: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A file's name may hold anything, a newline too.
        let path = self.path.to_string_lossy();
        let path = path.escape_debug();
        match self.line {
            Some(line) => write!(f, "{path}:{line}: {}", self.what),
            None => write!(f, "{path}: {}", self.what),
        }
    }
}

impl Finding {
    /// What was written is not there any more, or not as it was.
    pub fn damage(path: &Path, line: Option<u64>, what: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line, what: what.into(), damage: true }
    }

    /// What a person may want to know of, though nothing is lost.
    pub fn warning(path: &Path, line: Option<u64>, what: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line, what: what.into(), damage: false }
    }
}

/// What a spool holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages in segments that were proven whole, settled ones too.
    pub sound: u64,
    /// Those of them that wait.
    pub waiting: u64,
    /// Findings that are damage.
    pub damaged: u64,
    /// Files in `corrupt/`.
    pub set_aside: u64,
    /// Files in `failed/`.
    pub failed: u64,
    /// Files that were dropped in and are whole requests.
    pub dropped_in: u64,
}

/// What a check comes across.
#[derive(Debug)]
pub enum Told<'a> {
    /// A message that would be delivered; in order.
    Waits(&'a Record<'a>),
    /// Something is wrong.
    Finding(Finding),
}

/// Checks one spool; a folder that is not there is an empty one. `pause` waits a moment for who may
/// be writing.
///
/// # Errors
/// The folder cannot be listed.
pub fn check<D: Disk>(
    disk: &mut D,
    dir: &Path,
    pause: &mut dyn FnMut(),
    tell: &mut dyn FnMut(Told<'_>),
) -> Result<Tally, SpoolError> {
    let mut check = Check { disk, dir, pause, tell, tally: Tally::default() };
    let names = survey::names(check.disk, dir)?;
    for name in &names.foreign {
        check.find(Finding::warning(&dir.join(name), None, "is not a file of the spool"));
    }
    for name in &names.irregular {
        let what = "is not a plain file: a start leaves it alone";
        check.find(Finding::damage(&dir.join(layout::segment_name(*name)), None, what));
    }
    for (index, name) in names.segments.iter().enumerate() {
        check.segment(*name, survey::bound(&names.segments, index));
    }
    check.epoch(names.segments.is_empty());
    check.tally.set_aside = survey::count(check.disk, &dir.join(CORRUPT))?;
    check.failed()?;
    Ok(check.tally)
}

/// Checks a file that was dropped in for a peer; returns whether it is a whole request.
pub fn check_dropped<D: Disk>(
    disk: &mut D,
    path: &Path,
    now: Timestamp,
    tell: &mut dyn FnMut(Finding),
) -> bool {
    match look_at(disk, path, now) {
        Dropped::Request { more: false, .. } => return true,
        Dropped::Request { more: true, .. } => {
            let what =
                format!("its first line is a request; there are others, with which it goes to {CORRUPT}/");
            tell(Finding::damage(path, None, what));
            return true;
        }
        Dropped::Unusable(why) => {
            tell(Finding::damage(path, None, format!("{why}: it goes to {CORRUPT}/ when it is taken in")));
        }
        Dropped::Unreadable { cause, .. } => tell(Finding::warning(path, None, format!("it waits: {cause}"))),
        Dropped::Unfinished { why, .. } => tell(Finding::warning(path, None, why)),
        Dropped::Irregular => {
            tell(Finding::damage(path, None, "is not a plain file: it is put away"));
        }
        Dropped::Gone => {}
    }
    false
}

struct Check<'a, D: Disk> {
    disk: &'a mut D,
    dir: &'a Path,
    pause: &'a mut dyn FnMut(),
    tell: &'a mut dyn FnMut(Told<'_>),
    tally: Tally,
}

impl<D: Disk> Check<'_, D> {
    fn find(&mut self, finding: Finding) {
        self.tally.damaged += u64::from(finding.damage);
        (self.tell)(Told::Finding(finding));
    }

    fn segment(&mut self, name: Sequence, bound: Sequence) {
        let path = self.dir.join(layout::segment_name(name));
        let bytes = match self.settled_bytes(&path, name, bound) {
            Ok(bytes) => bytes,
            // Delivered and removed meanwhile.
            Err(error) if error.is_missing() => return,
            Err(error) => {
                let what = format!("{}: a start passes it over", error.cause);
                return self.find(Finding::damage(&path, None, what));
            }
        };
        let mut scan = Scan::new(&bytes, name, bound);
        let (mut line, mut counted) = (1, 0);
        loop {
            let start = scan.at();
            let Some(found) = scan.next() else { break };
            line += memchr::memchr_iter(b'\n', &bytes[counted..start]).count() as u64;
            counted = start;
            match found {
                Found::Record(record) => self.record(&path, line, &record, bytes.get(start + MARK_AT)),
                Found::Damaged(damage) => self.damage(&path, name, line, start as u64, damage),
            }
        }
    }

    fn record(&mut self, path: &Path, line: u64, record: &Record<'_>, mark: Option<&u8>) {
        self.tally.sound += 1;
        if record.answered {
            return;
        }
        self.tally.waiting += 1;
        (self.tell)(Told::Waits(record));
        if mark != Some(&super::record::WAITS) {
            let what = "the progress mark is neither + nor -: the message is sent, perhaps again";
            self.find(Finding::warning(path, Some(line), what));
        }
    }

    fn damage(&mut self, path: &Path, name: Sequence, line: u64, offset: u64, damage: &[u8]) {
        let folder = self.dir.join(CORRUPT);
        let bytes = damage.len();
        let finding = match copy_of(self.disk, &folder, name, offset, damage) {
            Ok(DamageCopy::There(copy)) => {
                let what =
                    format!("{bytes} bytes at {offset} are damaged, and set aside as {CORRUPT}/{copy}");
                Finding::warning(path, Some(line), what)
            }
            Ok(DamageCopy::Missing(_)) => {
                Finding::damage(path, Some(line), format!("{bytes} bytes at {offset} are damaged"))
            }
            Err(error) => {
                let what = format!("{bytes} bytes at {offset} are damaged, and cannot be set aside: {error}");
                Finding::damage(path, Some(line), what)
            }
        };
        self.find(finding);
    }

    /// The bytes of a segment, once the damage in them is the same twice, or there is none.
    fn settled_bytes(&mut self, path: &Path, name: Sequence, bound: Sequence) -> Result<Vec<u8>, SpoolError> {
        let mut size = 0;
        let mut bytes = survey::read_segment(self.disk, path, &mut size)?;
        let mut damage = damage_in(&bytes, name, bound);
        for _ in 1..READINGS {
            if damage.is_empty() {
                break;
            }
            (self.pause)();
            let again = survey::read_segment(self.disk, path, &mut size)?;
            let damage_again = damage_in(&again, name, bound);
            let same = damage_again == damage;
            (bytes, damage) = (again, damage_again);
            if same {
                break;
            }
        }
        Ok(bytes)
    }

    fn epoch(&mut self, empty: bool) {
        let path = self.dir.join(EPOCH);
        match epoch::read(self.disk, self.dir) {
            Ok(EpochFile::Sound { .. }) => {}
            Ok(EpochFile::Damaged(_)) => {
                let what = "it is damaged: a start sets it aside, and a new epoch begins";
                self.find(Finding::damage(&path, None, what));
            }
            Ok(EpochFile::Missing) if empty => {}
            Ok(EpochFile::Missing) => {
                self.find(Finding::warning(&path, None, "it is gone: with a start a new epoch begins"));
            }
            Err(error) => {
                let what = format!("{}: nothing can be sent or stored", error.cause);
                self.find(Finding::damage(&path, None, what));
            }
        }
    }

    /// Whether each file in `failed/` is what is written there.
    fn failed(&mut self) -> Result<(), SpoolError> {
        let folder = self.dir.join(FAILED);
        let mut names = Vec::new();
        let listed = self.disk.list(&folder, &mut |name| {
            if !name.as_encoded_bytes().starts_with(b".") {
                names.push(name.to_owned());
            }
        });
        match listed {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            listed => listed.context("list", &folder)?,
        }
        names.sort();
        self.tally.failed = names.len() as u64;
        for name in &names {
            let path = folder.join(name);
            let what = match survey::read_file(self.disk, &path, super::aside::REFUSED.len()) {
                Ok(bytes) if bytes == super::aside::REFUSED.as_bytes() => continue,
                Ok(_) => "is not a refused message".to_owned(),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
                Err(cause) => cause.to_string(),
            };
            self.find(Finding::warning(&path, None, what));
        }
        Ok(())
    }
}

/// Where damage is, and what.
fn damage_in(bytes: &[u8], name: Sequence, bound: Sequence) -> Vec<(usize, Vec<u8>)> {
    let mut scan = Scan::new(bytes, name, bound);
    let mut damage = Vec::new();
    loop {
        let start = scan.at();
        match scan.next() {
            Some(Found::Damaged(stretch)) => damage.push((start, stretch.to_vec())),
            Some(Found::Record(_)) => {}
            None => return damage,
        }
    }
}
