//! `lon queue check`, for a record: what a start would find in it. Changes nothing, takes no lock.

use super::recover::DAMAGED;
use super::{ANSWERS, recover};
use crate::spool::Finding;
use base::disk::{Context, Disk, StepError};
use std::ffi::OsStr;
use std::io;
use std::path::Path;

/// What a record holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordTally {
    /// Lines that were proven.
    pub sound: u64,
    /// Whether a start would set the file aside.
    pub damaged: bool,
    /// Files that were set aside before.
    pub set_aside: u64,
}

/// Checks the record in a folder; one without a file remembers nothing.
///
/// # Errors
/// The folder cannot be listed.
pub fn check<D: Disk>(
    disk: &mut D,
    dir: &Path,
    tell: &mut dyn FnMut(Finding),
) -> Result<RecordTally, StepError> {
    let mut tally = RecordTally { set_aside: set_aside(disk, dir)?, ..RecordTally::default() };
    let path = dir.join(ANSWERS);
    match recover::read(disk, &path) {
        Err(error) if error.is_missing() => {}
        Err(error) => {
            tally.damaged = true;
            let what = format!("{}: critical messages of this caller are refused", error.cause);
            tell(Finding::damage(&path, None, what));
        }
        Ok(found) => {
            tally.sound = found.good;
            if let Some((bytes, line)) = found.damaged {
                tally.damaged = true;
                let what = match bytes {
                    0 => "it holds nothing, and was never written so".to_owned(),
                    bytes => format!("{bytes} bytes are damaged, here first"),
                };
                tell(Finding::damage(&path, Some(line), what));
            }
            if let Some((bytes, line)) = found.torn {
                let what = format!("{bytes} bytes at the end are not whole: a start cuts them off");
                tell(Finding::warning(&path, Some(line), what));
            }
        }
    }
    Ok(tally)
}

fn set_aside<D: Disk>(disk: &mut D, dir: &Path) -> Result<u64, StepError> {
    let mut count = 0;
    let damaged = |name: &OsStr| name.to_str().is_some_and(|name| name.starts_with(DAMAGED));
    match disk.list(dir, &mut |name| count += u64::from(damaged(name))) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(0),
        listed => listed.context("list", dir).map(|()| count),
    }
}
