//! Where a path leads for good: absolute, and without `..`.
//!
//! What is kept as `FOLDER/../run` is gone with FOLDER, though nothing of ours is in it. A link
//! that `..` goes back over is followed, as the kernel would; any other stays, so that it can be
//! switched to another place later.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The path, absolute and without `..` as far as what stands before these is there.
///
/// # Errors
/// It has no absolute path: the working directory is gone, or it is empty.
pub fn settled(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let mut whole = PathBuf::new();
    for component in absolute.components() {
        match (component, fs::symlink_metadata(&whole)) {
            (Component::ParentDir, Ok(found)) if found.is_dir() => {
                whole.pop();
            }
            // Through a link, or nowhere: then it is for whoever opens the path to say so.
            (Component::ParentDir, _) => match fs::canonicalize(&whole) {
                Ok(real) if real.is_dir() => whole = real.parent().map_or(real.clone(), Path::to_owned),
                Ok(_) | Err(_) => whole.push(".."),
            },
            (other, _) => whole.push(other),
        }
    }
    Ok(whole)
}

/// [`settled`], for a path that a folder's configuration names; `base` is that folder, absolute.
pub(super) fn within(base: &Path, path: &Path) -> PathBuf {
    let joined = base.join(path);
    settled(&joined).unwrap_or(joined)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn two_dots_lead_where_the_kernel_would_go_and_links_beside_them_stay() {
        let folder = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::create_dir_all(top.join("c/d")).unwrap();
        symlink("c/d", top.join("link")).unwrap();
        fs::write(top.join("file"), "").unwrap();
        for (path, leads_to) in [
            ("a/../run", "run"),
            ("a/b/../../run", "run"),
            ("a/./b//run", "a/b/run"),
            ("link/run", "link/run"),
            ("link/../run", "c/run"),
            ("link/../d/../run", "c/run"),
            // What is not there, or is no folder, leads nowhere as before.
            ("new/../run", "new/../run"),
            ("file/../run", "file/../run"),
        ] {
            assert_eq!(settled(&top.join(path)).unwrap(), top.join(leads_to), "{path}");
            assert_eq!(within(&top, Path::new(path)), top.join(leads_to), "{path}");
        }
        assert_eq!(settled(Path::new("/../..")).unwrap(), Path::new("/"));
        assert!(settled(Path::new("")).is_err());
        let here = std::env::current_dir().unwrap();
        assert_eq!(settled(Path::new("x/y")).unwrap(), here.join("x/y"));
    }
}
