//! Folders above the one that a process keeps its files in, opened while it could open them.
//!
//! A folder that is made is there after a crash only once the folder above was synced. A process
//! that gives up every folder but its own syncs those above by what it opened before.

use super::Identity;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Above(Vec<(PathBuf, File)>);

impl Above {
    /// Opens these folders; one that cannot be opened is synced as any other, by its path.
    pub fn open(folders: &[&Path]) -> Above {
        let mut opened = Vec::new();
        for path in folders {
            match File::open(path) {
                Ok(file) => opened.push((path.to_path_buf(), file)),
                Err(error) => log::warn!("open folder {}: {error}; it is synced by its path", path.display()),
            }
        }
        Above(opened)
    }

    /// Makes the names in a folder durable, if it is one of these; `None`: it is none.
    pub(super) fn sync(&self, folder: &Path) -> Option<io::Result<()>> {
        let (path, file) = self.0.iter().find(|(path, _)| path == folder)?;
        Some(is_there(path, file).and_then(|()| file.sync_all()))
    }
}

/// Another folder of that name has other names in it.
fn is_there(path: &Path, file: &File) -> io::Result<()> {
    match Identity::named(path)? == Identity::of(&file.metadata()?) {
        true => Ok(()),
        false => {
            Err(io::Error::new(io::ErrorKind::NotFound, "another folder has come to stand in its place"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_folder_is_synced_by_what_was_opened_as_long_as_that_is_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let (one, missing) = (root.path().join("one"), root.path().join("two"));
        fs::create_dir(&one).unwrap();
        let above = Above::open(&[&one, &missing]);
        assert!(matches!(above.sync(&one), Some(Ok(()))));
        assert!(above.sync(&missing).is_none() && above.sync(root.path()).is_none());
        fs::rename(&one, root.path().join("moved")).unwrap();
        fs::create_dir(&one).unwrap();
        assert_eq!(above.sync(&one).unwrap().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
