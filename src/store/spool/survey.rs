//! What a spool's folder holds, read and not changed: for the start of a link child, and for those
//! who only look.
//!
//! A read that fails is tried once more, since unlike a sync it may be. What is not there is an
//! error of kind `NotFound`, at once.

use super::layout::{self, CORRUPT, DROPPED, EPOCH, FAILED, SPARE};
use super::segment::MAX_SEGMENT_BYTES;
use super::{Context, Disk, Kind, SpoolError};
use base::Sequence;
use base::disk::LOCK;
use std::ffi::OsString;
use std::io;
use std::path::Path;

/// How often a read is tried before what it was for is passed over.
pub(super) const READ_TRIES: usize = 2;

/// The names in a spool's folder, by what they are.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Segments, rising.
    pub segments: Vec<Sequence>,
    /// What has a segment's name and is no plain file. It never was a segment, and must not bound
    /// one.
    pub irregular: Vec<Sequence>,
    /// Files that are not the spool's.
    pub foreign: Vec<OsString>,
}

/// Lists the folder; one that is not there holds nothing.
pub(super) fn names<D: Disk>(disk: &mut D, dir: &Path) -> Result<Names, SpoolError> {
    let mut names = Names::default();
    let mut found = Vec::new();
    let listed = disk.list(dir, &mut |name| match name.to_str() {
        Some(EPOCH | SPARE | FAILED | CORRUPT | DROPPED | LOCK) => {}
        Some(hidden) if hidden.starts_with('.') => {}
        known => match known.and_then(layout::parse_segment_name) {
            Some(sequence) => found.push(sequence),
            None => names.foreign.push(name.to_owned()),
        },
    });
    match listed {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        listed => listed.context("list", dir)?,
    }
    found.sort();
    for name in found {
        let kind = disk.metadata(&dir.join(layout::segment_name(name)));
        let plain = kind.map_or(true, |found| found.kind == Kind::File);
        if plain { &mut names.segments } else { &mut names.irregular }.push(name);
    }
    Ok(names)
}

/// The bound of each segment's sequences: the next one's name.
pub(super) fn bound(segments: &[Sequence], index: usize) -> Sequence {
    segments.get(index + 1).copied().unwrap_or(Sequence(u64::MAX))
}

/// A whole segment. `size` is set as soon as it is known, for a segment that cannot be read.
///
/// # Errors
/// It cannot be read, or is too large to be a segment.
pub(super) fn read_segment<D: Disk>(
    disk: &mut D,
    path: &Path,
    size: &mut u64,
) -> Result<Vec<u8>, SpoolError> {
    let found = again(path, || disk.metadata(path)).context("read", path)?;
    *size = found.length;
    if found.length > MAX_SEGMENT_BYTES {
        return Err(io::Error::other("it is larger than any segment")).context("read", path);
    }
    read_file(disk, path, found.length as usize).context("read", path)
}

/// Up to `most` bytes of a file.
///
/// # Errors
/// What the system said.
pub(super) fn read_file<D: Disk>(disk: &mut D, path: &Path, most: usize) -> io::Result<Vec<u8>> {
    again(path, || {
        let file = disk.open(path, false)?;
        disk.read_at(&file, 0, most)
    })
}

/// How many files a subfolder has, hidden ones not counted; a folder that is not there has none.
pub(super) fn count<D: Disk>(disk: &mut D, folder: &Path) -> Result<u64, SpoolError> {
    let mut count = 0;
    let hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
    match disk.list(folder, &mut |name| count += u64::from(!hidden(name))) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(0),
        listed => listed.context("list", folder).map(|()| count),
    }
}

pub(super) fn again<T>(path: &Path, mut step: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut tries = 1;
    loop {
        match step() {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound && tries < READ_TRIES => {
                log::warn!("read {}: {cause}; read again", path.display());
                tries += 1;
            }
            done => return done,
        }
    }
}
