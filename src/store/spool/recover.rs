//! What is found at the start.
//!
//! Two steps: *loading* reads the names and every segment, one at a time, and counts what waits;
//! *preparing* makes folders and the epoch and syncs the names that everything else rests on.
//! Nothing is sent before both are done: what is read after a killed process may not be on disk,
//! but its sequence was reserved before, and with the name of that reservation durable it can never
//! name another message. So a disk that cannot be written to is not delivered from, but counted.
//!
//! Neither step appends to a segment that holds anything: its tail is uncertain. An empty segment,
//! named by the next sequence, goes behind it.

use super::layout::{CORRUPT, FAILED, SPARE};
use super::queue::{Queue, Segment};
use super::segment::{self, Found, Scan};
use super::survey::{self, Names};
use super::{Context, Disk, Kind, Spool, SpoolError, replay};
use base::Sequence;
use base::disk::own::remove_left;
use std::collections::VecDeque;
use std::io;
use std::path::Path;

/// Foreign names that are reported one by one; the rest is only counted.
const FOREIGN_NAMED: usize = 5;

/// A segment as it was found.
struct Examined {
    segment: Segment,
    /// The first sequence that it can never have held.
    next: Sequence,
    /// Nothing but zeros.
    empty: bool,
}

impl<D: Disk> Spool<D> {
    /// Does what of loading and preparing is still to be done.
    pub(super) fn make_ready(&mut self) -> Result<(), SpoolError> {
        let ready = self.load_once().and_then(|()| self.prepare_once());
        self.trouble = ready.clone().err();
        ready
    }

    /// The folder is not what it was: find out again what is there. Sequences go on.
    pub(super) fn start_over(&mut self) {
        self.loaded = false;
        self.prepared = false;
        self.append = None;
        self.reader = None;
        self.marker = None;
    }

    fn load_once(&mut self) -> Result<(), SpoolError> {
        if self.loaded {
            return Ok(());
        }
        let names = survey::names(&mut self.disk, &self.dir)?;
        for name in names.foreign.iter().take(FOREIGN_NAMED) {
            log::warn!("{}: not a file of the spool; left alone", self.dir.join(name).display());
        }
        if let Some(more @ 1..) = names.foreign.len().checked_sub(FOREIGN_NAMED) {
            log::warn!("{}: {more} more files are not the spool's; left alone", self.dir.display());
        }
        self.failed = survey::count(&mut self.disk, &self.dir.join(FAILED))?;
        self.corrupt = survey::count(&mut self.disk, &self.dir.join(CORRUPT))?;
        self.load_segments(&names);
        self.loaded = true;
        Ok(())
    }

    fn load_segments(&mut self, names: &Names) {
        let mut next = self.queue.next_sequence();
        for name in &names.irregular {
            log::error!("read {}: it is not a plain file; left alone", self.segment_path(*name).display());
            next = next.max(name.next());
        }
        let mut segments = VecDeque::with_capacity(names.segments.len());
        self.reusable = false;
        for (index, name) in names.segments.iter().enumerate() {
            let found = self.examine(*name, survey::bound(&names.segments, index));
            next = next.max(found.next);
            self.reusable = found.empty;
            segments.push_back(found.segment);
        }
        self.spare = None;
        self.spare_tried_at = None;
        self.window = replay::Window::default();
        self.queue = Queue::new(segments, next);
    }

    /// Reads one segment from end to end, keeps copies of its damage and counts what waits in it.
    fn examine(&mut self, name: Sequence, bound: Sequence) -> Examined {
        let mut segment = Segment::empty(name, 0);
        let path = self.segment_path(name);
        match survey::read_segment(&mut self.disk, &path, &mut segment.size) {
            Ok(bytes) => self.count_lines(segment, &bytes, bound),
            Err(error) => {
                log::error!("{error}; it is tried again when its turn comes");
                segment.pinned = true;
                segment.unknown = true;
                let most = segment::most_records(segment.size.max(self.segment_bytes));
                Examined { segment, next: Sequence(name.0.saturating_add(most)), empty: false }
            }
        }
    }

    /// Keeps copies of a segment's damage and counts what waits in it.
    fn count_lines(&mut self, mut segment: Segment, bytes: &[u8], bound: Sequence) -> Examined {
        let name = segment.name;
        let mut next = name;
        let mut scan = Scan::new(bytes, name, bound);
        let mut empty = true;
        loop {
            let start = scan.at() as u64;
            let Some(found) = scan.next() else { break };
            empty = false;
            match found {
                Found::Record(record) => {
                    next = next.max(record.sequence.next());
                    if !record.answered {
                        segment.waiting.add(record.user, record.request.len() as u64);
                    }
                }
                Found::Damaged(damage) => {
                    let most = segment::most_records(damage.len() as u64);
                    next = Sequence(next.0.saturating_add(most));
                    segment.pinned |= !self.keep_damage(name, start, damage);
                }
            }
        }
        segment.end = scan.at() as u64;
        segment.unread = segment.waiting.clone();
        Examined { segment, next, empty }
    }

    /// The segment whose turn it is could not be read at the start: another try.
    pub(super) fn examine_again(&mut self, name: Sequence, bound: Sequence) -> Result<(), SpoolError> {
        let mut segment = Segment::empty(name, 0);
        let path = self.segment_path(name);
        let bytes = survey::read_segment(&mut self.disk, &path, &mut segment.size)?;
        let found = self.count_lines(segment, &bytes, bound);
        self.queue.skip_to(found.next);
        self.queue.known_here(found.segment);
        Ok(())
    }

    fn prepare_once(&mut self) -> Result<(), SpoolError> {
        if self.prepared {
            return Ok(());
        }
        self.make_folders()?;
        for folder in [self.dir.clone(), self.dir.join(FAILED), self.dir.join(CORRUPT)] {
            remove_left(&mut self.disk, &folder);
        }
        self.prepare_epoch()?;
        self.prepare_spare();
        if !self.reusable && self.queue.last().is_some() {
            self.begin_behind();
        }
        let (dir, parent) = (self.dir.clone(), self.parent().to_owned());
        self.disk.sync_dir(&dir).context("sync", &dir)?;
        self.disk.sync_dir(&parent).context("sync", &parent)?;
        self.prepared = true;
        self.remove_finished();
        self.locate_oldest();
        Ok(())
    }

    fn make_folders(&mut self) -> Result<(), SpoolError> {
        let (dir, parent) = (self.dir.clone(), self.parent().to_owned());
        match self.disk.make_folder(&dir) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                self.disk.make_folder(&parent).context("make", &parent)?;
                self.parent_is_new = true;
                self.disk.make_folder(&dir).context("make", &dir)?;
            }
            made => made.context("make", &dir)?,
        }
        if self.parent_is_new {
            let above = parent.parent().filter(|above| !above.as_os_str().is_empty());
            let above = above.unwrap_or(Path::new("."));
            self.disk.sync_dir(above).context("sync", above)?;
            self.parent_is_new = false;
        }
        for folder in [dir.join(FAILED), dir.join(CORRUPT)] {
            self.disk.make_folder(&folder).context("make", &folder)?;
        }
        Ok(())
    }

    /// A spare that is whole is used; one that was not finished is replaced when one is needed. It
    /// never holds a message.
    fn prepare_spare(&mut self) {
        let path = self.dir.join(SPARE);
        let size = self.segment_bytes;
        let whole = self.disk.metadata(&path).is_ok_and(|it| it.kind == Kind::File && it.length == size);
        let zeros = whole
            && survey::read_file(&mut self.disk, &path, size as usize)
                .is_ok_and(|bytes| bytes.len() as u64 == size && bytes.iter().all(|byte| *byte == 0));
        self.spare = zeros.then_some(size);
    }

    /// Puts an empty segment behind what was found, so that all of that can go once it is settled.
    /// Where none can be made, what waits is delivered all the same: a full disk must be delivered
    /// from, or it stays full.
    fn begin_behind(&mut self) {
        let name = self.queue.next_name(self.queue.next_sequence());
        let path = self.segment_path(name);
        match self.disk.create(&path) {
            Ok(_) => {
                self.queue.add_segment(name, 0);
                self.reusable = true;
            }
            Err(cause) => {
                log::warn!("make {}: {cause}; the first store will try again", path.display());
                if cause.kind() == io::ErrorKind::AlreadyExists {
                    self.queue.burn_name(name);
                }
            }
        }
    }

    pub(super) fn move_to_corrupt(&mut self, name: &str, content: &[u8]) -> Result<(), SpoolError> {
        let from = self.dir.join(name);
        let folder = self.dir.join(CORRUPT);
        let to = folder.join(format!("{name}@{:08x}", crc32fast::hash(content)));
        self.disk.rename(&from, &to).context("rename", &from)?;
        self.corrupt += 1;
        log::error!("read {}: it is damaged; moved to {}", from.display(), to.display());
        self.disk.sync_dir(&folder).context("sync", &folder)
    }
}
