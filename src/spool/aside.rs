//! `failed/` and `corrupt/`: what was refused, and what could not be read.
//!
//! A file appears there whole and durable or not at all: written under a hidden name, synced, renamed, its folder
//! synced. The hidden name is this module's own; what a crash left of it is replaced by the next.

use super::record::{Sequence, time_text};
use super::replay::READ_TRIES;
use super::{Context, Disk, Spool, SpoolError, segment};
use jiff::Timestamp;
use std::io;
use std::path::Path;

/// Folder of refused messages.
pub(super) const FAILED: &str = "failed";
/// Folder of what could not be read.
pub(super) const CORRUPT: &str = "corrupt";
/// Hidden name that files are written under.
const NEW: &str = ".new";

impl<D: Disk> Spool<D> {
    /// A text file with what was refused and the answer.
    pub(super) fn write_failed(
        &mut self,
        sequence: Sequence,
        request: &[u8],
        answer: &[u8],
        now: Timestamp,
    ) -> Result<(), SpoolError> {
        let folder = self.dir.join(FAILED);
        let name = sequence.to_string();
        // After a crash the same message can be refused again: its file is replaced, and counted once.
        let again = self.disk.metadata(&folder.join(&name)).is_ok();
        let mut text = format!("refused {}\nanswer  ", time_text(now)).into_bytes();
        text.extend_from_slice(answer);
        text.extend_from_slice(b"\nrequest ");
        text.extend_from_slice(request);
        text.push(b'\n');
        self.write_durably(&folder, &name, &text)?;
        if !again {
            self.failed += 1;
        }
        Ok(())
    }

    /// Keeps a copy of a damaged stretch, and says so once; without the copy the segment stays.
    pub(super) fn keep_damage_or_pin(&mut self, name: Sequence, offset: u64, damage: &[u8]) {
        if !self.keep_damage(name, offset, damage) {
            self.queue.pin(name);
        }
    }

    /// Keeps a copy of a damaged stretch in `corrupt/<segment>@<offset>` and reports it, unless the copy is there
    /// already. Returns whether the copy is durable.
    pub(super) fn keep_damage(&mut self, name: Sequence, offset: u64, damage: &[u8]) -> bool {
        let folder = self.dir.join(CORRUPT);
        let segment = segment::file_name(name);
        let short = format!("{segment}@{offset}");
        // Another stretch may have begun at this offset before; then the content names the copy.
        let long = format!("{short}-{:08x}", crc32fast::hash(damage));
        for copy in [short, long] {
            let path = folder.join(&copy);
            let kept = match self.read_whole(&path, damage.len() + 1) {
                Ok(found) if found == damage => self.disk.sync_dir(&folder).context("sync", &folder),
                Ok(_) => continue,
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                    let written = self.write_durably(&folder, &copy, damage);
                    if written.is_ok() {
                        self.corrupt += 1;
                        log::error!(
                            "read {}: {} bytes at {offset} are damaged, or were never stored whole; copied to {}",
                            self.dir.join(&segment).display(),
                            damage.len(),
                            path.display()
                        );
                    }
                    written
                }
                Err(cause) => Err(cause).context("read", &path),
            };
            if let Err(error) = &kept {
                let segment = self.dir.join(&segment);
                log::error!("{error}; {} has damage at {offset} and stays", segment.display());
            }
            return kept.is_ok();
        }
        false
    }

    /// Writes a file so that it is there whole or not at all.
    pub(super) fn write_durably(
        &mut self,
        folder: &Path,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), SpoolError> {
        let (new, path) = (folder.join(NEW), folder.join(name));
        let file = match self.create_new(folder, &new) {
            Ok(file) => file,
            Err(cause) => return Err(cause).context("make", &new),
        };
        let written = (|| {
            self.disk.write_at(&file, 0, bytes).context("write", &new)?;
            self.disk.sync_data(&file).context("sync", &new)?;
            self.disk.rename(&new, &path).context("rename", &new)
        })();
        if written.is_err() {
            let _ = self.disk.remove(&new);
        }
        written?;
        self.disk.sync_dir(folder).context("sync", folder)
    }

    fn create_new(&mut self, folder: &Path, new: &Path) -> io::Result<D::File> {
        match self.disk.create(new) {
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => self.disk.remove(new)?,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                self.disk.make_folder(folder)?;
                self.disk.sync_dir(&self.dir)?;
            }
            created => return created,
        }
        self.disk.create(new)
    }

    /// Up to `most` bytes of a small file.
    pub(super) fn read_whole(&mut self, path: &Path, most: usize) -> io::Result<Vec<u8>> {
        let mut tries = 1;
        loop {
            let read = self.disk.open(path, false).and_then(|file| self.disk.read_at(&file, 0, most));
            match read {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound && tries < READ_TRIES => {
                    self.warn(format!("read {}: {cause}; read again", path.display()));
                    tries += 1;
                }
                read => return read,
            }
        }
    }
}
