//! How a record's file is written: appended to, gone on with after a restart, written anew; and the
//! room in it.
//!
//! Whatever fails here leaves the old file as it is, or no file that is appended to ([`Record`]
//! says what that means).

use super::recover::Tail;
use super::{ANSWERS, ROOM_FOR_EACH, ROOM_FOR_ONE, ROOM_STEP, Record, TAIL_LEFT};
use base::disk::own::own_new;
use base::disk::{Context, Disk, StepError};
use std::io;
use std::path::Path;

impl<D: Disk> Record<D> {
    /// Goes on with the file that was read, once it is durable. A sync alone would not do: after a
    /// failed one the kernel may hold for clean what is not on disk. So the tail is written again,
    /// the same bytes at the same place.
    pub(super) fn go_on(&mut self, tail: Tail, other_epoch: bool) -> Result<(), StepError> {
        let path = self.dir.join(ANSWERS);
        let file = self.disk.open(&path, true).context("open", &path)?;
        let length = tail.ends - tail.begins;
        let mut text = self.disk.read_at(&file, tail.begins, length as usize + 1).context("read", &path)?;
        if text.len() as u64 != length {
            return Err(io::Error::other("someone else writes to it")).context("read", &path);
        }
        if other_epoch || length > TAIL_LEFT {
            self.kept.append_floor(&mut text);
        }
        self.disk.write_at(&file, tail.begins, &text).context("write", &path)?;
        self.disk.sync_data(&file).context("sync", &path)?;
        self.disk.sync_dir(&self.dir).context("sync", &self.dir)?;
        self.end = tail.begins + text.len() as u64;
        self.unsynced = false;
        self.room_until = 0;
        self.file = Some(file);
        Ok(())
    }

    pub(super) fn append(&mut self, text: &[u8]) -> Result<(), StepError> {
        let Some(file) = &self.file else { return Ok(()) };
        if let Err(cause) = self.disk.write_at(file, self.end, text) {
            return Err(cause).context("write", &self.dir.join(ANSWERS));
        }
        self.unsynced = true;
        self.end += text.len() as u64;
        Ok(())
    }

    pub(super) fn sync_file(&mut self) -> Result<(), StepError> {
        let Some(file) = &self.file else { return Ok(()) };
        self.disk.sync_data(file).context("sync", &self.dir.join(ANSWERS))?;
        self.unsynced = false;
        Ok(())
    }

    pub(super) fn make_room(&mut self, running: usize) -> Result<(), StepError> {
        let room = ROOM_FOR_ONE + ROOM_FOR_EACH * running as u64;
        if self.room_until >= self.end + room {
            return Ok(());
        }
        // Later there might be no room for a second file, and the first could neither grow nor be
        // shortened.
        if self.is_tight() {
            match self.write_anew(&[], room + ROOM_STEP) {
                Ok(()) => return Ok(()),
                Err(error) if self.file.is_none() => return Err(error),
                Err(_) => {}
            }
        }
        let Some(file) = self.file.as_ref() else { return Ok(()) };
        let path = self.dir.join(ANSWERS);
        match self.disk.reserve(file, self.end, room + ROOM_STEP).context("make room in", &path) {
            Ok(()) => {
                self.room_until = self.end + room + ROOM_STEP;
                Ok(())
            }
            // What is settled need not take up room on a disk that has none. But those that are
            // being run rely on what was set aside for them.
            Err(error) if running == 0 => self.write_anew(&[], room).map_err(|_| error),
            Err(error) => Err(error),
        }
    }

    /// Whether the file has grown, and the disk will soon have no room for another like it.
    pub(super) fn is_tight(&mut self) -> bool {
        // Not what this process has added: one that goes on with a file finds most of it grown
        // already.
        let grown = self.end.saturating_sub(self.kept.length());
        grown >= ROOM_STEP
            && self
                .disk
                .free_space(&self.dir)
                .is_ok_and(|free| free < self.end + 2 * (ROOM_FOR_ONE + ROOM_STEP))
    }

    pub(super) fn compact_if_due(&mut self) {
        if self.end < self.compact_at {
            return;
        }
        let room = self.room_until.saturating_sub(self.end);
        if let Err(error) = self.write_anew(&[], room) {
            log::warn!("{error}; the record goes on without being shortened");
            self.compact_at = self.end.saturating_add(self.step);
        }
    }

    /// Writes what is kept, and `more` lines, to a new file that takes the name. Until the renaming
    /// begins the old file can still be appended to; from then on it cannot, whatever comes of it.
    /// In the new one `room` is set aside.
    pub(super) fn write_anew(&mut self, more: &[u8], room: u64) -> Result<(), StepError> {
        let (new, path) = (self.dir.join(own_new()), self.dir.join(ANSWERS));
        let (file, length) = self.write_hidden(&new, more, room)?;
        self.file = None;
        self.disk.rename(&new, &path).context("rename", &new)?;
        self.disk.sync_dir(&self.dir).context("sync", &self.dir)?;
        self.file = Some(file);
        self.end = length;
        self.unsynced = false;
        self.room_until = self.end + room;
        self.compact_at = self.compacted_at(self.end);
        Ok(())
    }

    /// When a file is written anew that must hold so many bytes.
    pub(super) fn compacted_at(&self, holds: u64) -> u64 {
        (2 * holds).max(holds.saturating_add(self.step))
    }

    /// A new file with what is kept and `more`, synced, and room for more; its length. Nothing is
    /// left of it after an error, as far as that goes.
    pub(super) fn write_hidden(
        &mut self,
        new: &Path,
        more: &[u8],
        room: u64,
    ) -> Result<(D::File, u64), StepError> {
        let file = self.create_hidden(new)?;
        let mut length = 0;
        let mut write = |disk: &mut D, bytes: &[u8]| {
            disk.write_at(&file, length, bytes).context("write", new)?;
            length += bytes.len() as u64;
            Ok(())
        };
        let disk = &mut self.disk;
        // All of this file is durable before it has its name: its tail is no more than the line at
        // its end.
        let mut written = self.kept.each_piece(more, |piece| write(disk, piece));
        if room > 0 && written.is_ok() {
            written = disk.reserve(&file, length, room).context("make room in", new);
        }
        let synced = written.and_then(|()| disk.sync_data(&file).context("sync", new));
        if synced.is_err() {
            let _ = disk.remove(new);
        }
        synced.map(|()| (file, length))
    }

    pub(super) fn create_hidden(&mut self, new: &Path) -> Result<D::File, StepError> {
        match self.disk.create(new) {
            // What a crash left: the hidden name is this process's own.
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.remove(new).context("remove", new)?;
            }
            // Someone took the folder away.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => self.make_folders()?,
            created => return created.context("make", new),
        }
        self.disk.create(new).context("make", new)
    }
}
