//! What was dropped in and can be no message: it goes to `corrupt/`, as a whole and unread, or out
//! of the way of others. What cannot be moved stays, and is remembered.

use super::TakenIn;
use crate::spool::layout::{CORRUPT, NAME_MOST};
use crate::spool::{Disk, Kind, Spool};
use jiff::Timestamp;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

impl<D: Disk> Spool<D> {
    /// Puts what is no plain file out of the way: somebody was quick when it was moved here.
    pub(super) fn put_away(&mut self, inbox: &Path, name: OsString, now: Timestamp, taken: &mut TakenIn) {
        let why = "it is no plain file, and was not opened";
        let path = inbox.join(&name);
        // A link, a pipe or a socket holds nothing, and a confined process may not move it.
        if self.disk.metadata(&path).is_ok_and(|found| found.kind == Kind::Other)
            && self.disk.remove(&path).is_ok()
        {
            taken.say(format!("take in {}: {why}; removed", path.display()));
            return;
        }
        self.move_away(inbox, name, why, now, taken);
    }

    /// Moves what cannot be a message to `corrupt/`.
    pub(super) fn move_away(
        &mut self,
        inbox: &Path,
        name: OsString,
        why: &str,
        now: Timestamp,
        taken: &mut TakenIn,
    ) {
        let from = inbox.join(&name);
        let folder = self.dir.join(CORRUPT);
        let mut to = folder.join(&name);
        if self.disk.metadata(&to).is_ok() {
            to = folder.join(other_name(&name, now));
        }
        let free = self.disk.metadata(&to).is_err_and(|cause| cause.kind() == io::ErrorKind::NotFound);
        let moved = if free {
            match self.disk.rename(&from, &to) {
                // Someone took the folder away.
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => self
                    .disk
                    .make_folder(&folder)
                    .and_then(|()| self.disk.sync_dir(&self.dir))
                    .and_then(|()| self.disk.rename(&from, &to)),
                moved => moved,
            }
        } else {
            Err(io::Error::other("its name is taken in corrupt/"))
        };
        match moved {
            Ok(()) => {
                taken.say(format!("take in {}: {why}; moved to {}", from.display(), to.display()));
                taken.corrupt += 1;
                self.corrupt += 1;
                // The new name first: a file must not be in neither place.
                let synced = self.disk.sync_dir(&folder).and_then(|()| self.disk.sync_dir(inbox));
                if let Err(cause) = synced {
                    log::warn!("sync {}: {cause}; it may come back", folder.display());
                }
            }
            Err(cause) => {
                taken.say(format!("take in {}: {why}; it stays: {cause}", from.display()));
                if !self.hide(inbox, &name) {
                    self.stuck.insert(name);
                }
            }
        }
    }

    /// Gives a folder a hidden name where it is: one that its owner lets nobody write to can be
    /// moved to no other. Whether it was one.
    fn hide(&mut self, inbox: &Path, name: &OsStr) -> bool {
        let from = inbox.join(name);
        if !self.disk.metadata(&from).is_ok_and(|found| found.kind == Kind::Folder) {
            return false;
        }
        let mut hidden = [b".", name.as_bytes()].concat();
        hidden.truncate(NAME_MOST);
        self.disk.rename_new(&from, &inbox.join(OsString::from_vec(hidden))).is_ok()
    }
}

/// A name beside one that is taken in `corrupt/`, no longer than a name may be.
fn other_name(name: &OsStr, now: Timestamp) -> OsString {
    let end = format!("@{}", now.as_nanosecond()).into_bytes();
    let mut other = name.as_bytes().to_vec();
    other.truncate(NAME_MOST.saturating_sub(end.len()));
    other.extend(end);
    OsString::from_vec(other)
}
