//! `failed/` and `corrupt/`: what was refused, and what could not be read.
//!
//! A file appears there whole and durable or not at all: written under a hidden name, synced,
//! renamed, its folder synced. The hidden name is this process's own; what a crash left of
//! another's is removed at the next start.

use super::layout::{self, CORRUPT, FAILED};
use super::record::time_text;
use super::{Context, Disk, Spool, SpoolError, survey};
use base::Sequence;
use base::disk::own::own_new;
use base::request::shown;
use jiff::Timestamp;
use std::io;
use std::path::Path;

/// What a file in [`FAILED`] begins with.
pub(super) const REFUSED: &str = "refused ";

impl<D: Disk> Spool<D> {
    /// A text file with what was refused and the answer. An automatic key is left out: who has it
    /// sent again wants it done, not the answer that is remembered.
    pub(super) fn write_failed(
        &mut self,
        sequence: Sequence,
        request: &[u8],
        answer: &[u8],
        now: Timestamp,
    ) -> Result<(), SpoolError> {
        let folder = self.dir.join(FAILED);
        let name = sequence.to_string();
        // After a crash the same message can be refused again: its file is replaced, and counted
        // once.
        let again = self.disk.metadata(&folder.join(&name)).is_ok();
        let mut text = format!("{REFUSED}{}\nanswer  ", time_text(now)).into_bytes();
        text.extend_from_slice(answer);
        text.extend_from_slice(b"\nrequest ");
        text.extend_from_slice(shown(request));
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

    /// Keeps a copy of a damaged stretch in `corrupt/<segment>@<offset>` and reports it, unless the
    /// copy is there already. Returns whether the copy is durable.
    pub(super) fn keep_damage(&mut self, name: Sequence, offset: u64, damage: &[u8]) -> bool {
        let folder = self.dir.join(CORRUPT);
        let segment = self.segment_path(name);
        let kept = match copy_of(&mut self.disk, &folder, name, offset, damage) {
            Ok(DamageCopy::There(_)) => self.disk.sync_dir(&folder).context("sync", &folder),
            Ok(DamageCopy::Missing(copy)) => {
                let written = self.write_durably(&folder, &copy, damage);
                if written.is_ok() {
                    self.corrupt += 1;
                    log::error!(
                        "read {}: {} bytes at {offset} are damaged, or were never stored whole; copied to {}",
                        segment.display(),
                        damage.len(),
                        folder.join(&copy).display()
                    );
                }
                written
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &kept {
            log::error!("{error}; {} has damage at {offset} and stays", segment.display());
        }
        kept.is_ok()
    }

    /// Writes a file so that it is there whole or not at all.
    pub(super) fn write_durably(
        &mut self,
        folder: &Path,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), SpoolError> {
        let (new, path) = (folder.join(own_new()), folder.join(name));
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
}

/// The copy of a damaged stretch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DamageCopy {
    /// It was made before; its name.
    There(String),
    /// There is none; the name that it is to have.
    Missing(String),
}

/// Looks for the copy of the damaged stretch at `offset` of a segment.
///
/// # Errors
/// What has its name cannot be read, or has another content.
pub(super) fn copy_of<D: Disk>(
    disk: &mut D,
    folder: &Path,
    name: Sequence,
    offset: u64,
    damage: &[u8],
) -> Result<DamageCopy, SpoolError> {
    let short = format!("{}@{offset}", layout::segment_name(name));
    // Another stretch may have begun at this offset before; then the content names the copy.
    let long = format!("{short}-{:08x}", crc32fast::hash(damage));
    for copy in [short, long.clone()] {
        match survey::read_file(disk, &folder.join(&copy), damage.len() + 1) {
            Ok(found) if found == damage => return Ok(DamageCopy::There(copy)),
            Ok(_) => {}
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(DamageCopy::Missing(copy)),
            Err(cause) => return Err(cause).context("read", &folder.join(copy)),
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists)).context("make", &folder.join(long))
}
