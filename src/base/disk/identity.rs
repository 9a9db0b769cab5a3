//! Which file or folder it is, whatever its name leads to later.

use serde::{Deserialize, Serialize};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Tells a file or folder from another one that has come to stand in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Of what has this name now.
    ///
    /// # Errors
    /// What the system said.
    pub fn named(path: &Path) -> io::Result<Identity> {
        fs::metadata(path).map(|found| Identity::of(&found))
    }

    /// Of what was looked at.
    pub fn of(found: &Metadata) -> Identity {
        Identity { device: found.dev(), inode: found.ino() }
    }
}
