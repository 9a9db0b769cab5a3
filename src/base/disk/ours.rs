//! Whose a name is that stands in a folder where others may make names, too.
//!
//! The delayed directory may be open to local programs. What they put there under the name of a
//! peer's folder, or of a lock, is not used: it would be read, written over or blanked as if it
//! were ours.

use nix::unistd::geteuid;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A right of everybody to write.
const OTHERS_WRITE: u32 = 0o002;

/// Whether what belongs to this user may be used, in a folder that belongs to `above`: it is
/// root's, this process's user's, or that of who may replace it anyway.
pub fn is_ours(user: u32, above: u32) -> bool {
    user == 0 || user == above || user == geteuid().as_raw()
}

/// Whether what is at `path` may be used; a symbolic link may, if both it and what it leads to are
/// ours.
///
/// # Errors
/// `PermissionDenied`, with whose it is and what to do; or what the system said, `NotFound` if
/// nothing is there.
pub fn check_ours(path: &Path) -> io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let above = fs::metadata(above)?.uid();
    check(&fs::symlink_metadata(path)?, above)?;
    check(&fs::metadata(path)?, above)
}

fn check(found: &Metadata, above: u32) -> io::Result<()> {
    let denied = |what: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    if !is_ours(found.uid(), above) {
        return denied(not_ours(found.uid()));
    }
    if !found.is_symlink() && found.mode() & OTHERS_WRITE != 0 {
        return denied("everybody may write there: it is not used until that is changed (chmod o-w)".into());
    }
    Ok(())
}

/// What is said of something of this user's.
pub fn not_ours(user: u32) -> String {
    format!("user {user} has made it: it is not used; remove it, or give it to who runs this (chown)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

    /// A user who is nobody here.
    const OTHER: u32 = 61_234;

    #[test]
    fn what_others_have_made_or_may_write_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let [own, link] = ["own", "link"].map(|name| folder.path().join(name));
        assert_eq!(check_ours(&own).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::create_dir(&own).unwrap();
        symlink(&own, &link).unwrap();
        check_ours(&own).unwrap();
        check_ours(&link).unwrap();
        fs::set_permissions(&own, Permissions::from_mode(0o757)).unwrap();
        let said = check_ours(&link).unwrap_err().to_string();
        assert!(said.contains("everybody may write there"), "{said}");
        fs::set_permissions(&own, Permissions::from_mode(0o775)).unwrap();
        check_ours(&own).unwrap();
        if !geteuid().is_root() {
            return;
        }
        let foreign = |path: &Path| {
            let said = check_ours(path).unwrap_err().to_string();
            assert!(said.starts_with("user 61234 has made it: it is not used"), "{said}");
        };
        lchown(&link, Some(OTHER), None).unwrap();
        foreign(&link);
        check_ours(&own).unwrap();
        lchown(&link, Some(0), None).unwrap();
        chown(&own, Some(OTHER), None).unwrap();
        foreign(&link);
        foreign(&own);
        // Who has the folder above may do with it what he likes.
        chown(folder.path(), Some(OTHER), None).unwrap();
        check_ours(&own).unwrap();
    }
}
