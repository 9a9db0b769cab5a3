//! Whether names in a folder may have gone, or be others' by now, since all of them were looked at.
//!
//! The system notes when a folder's names changed last, and nobody can set that time. So a folder
//! of thousands of names costs one look while nothing changes there. All names are looked at again
//! when that time or the folder itself is another; when it is so near that one more change could
//! bear the same time; and now and then whatever it says, since a file system of another host may
//! keep it badly (`docs/adr/0108`).

use base::disk::Identity;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Changes that are further apart than this have different times on every file system.
const APART: Duration = Duration::from_secs(3);
/// After so many looks at the folder alone all names are looked at: once a minute.
const LOOKS: u32 = 30;

/// What is known of one folder.
#[derive(Debug, Default)]
pub struct Names {
    /// The folder and its time, as they were just before all names were looked at.
    seen: Option<Seen>,
    /// How often it was looked at since.
    looks: u32,
}

/// Seconds and nanoseconds of the last change.
type Seen = (Identity, i64, i64);

impl Names {
    /// Whether names in `folder` may have changed since this was asked before: if so, the caller
    /// looks at all of them now. `wall` is the clock by which the system notes changes.
    pub fn may_have_changed(&mut self, folder: &Path, wall: SystemTime) -> bool {
        let now = fs::metadata(folder).ok().map(|it| (Identity::of(&it), it.ctime(), it.ctime_nsec()));
        let stands = now.is_some() && now == self.seen && self.looks < LOOKS;
        if stands {
            self.looks += 1;
            return false;
        }
        let long_ago = |(_, seconds, _): &Seen| {
            let at = u64::try_from(*seconds).map(Duration::from_secs).unwrap_or_default();
            wall.duration_since(SystemTime::UNIX_EPOCH + at).is_ok_and(|ago| ago >= APART)
        };
        (self.seen, self.looks) = (now.filter(long_ago), 0);
        true
    }

    /// Has all names looked at the next time: one of them is not as it should be.
    pub fn forget(&mut self) {
        self.seen = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_at_when_one_may_have_changed_and_now_and_then() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("run");
        let file = folder.join("msul1");
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "").unwrap();
        let soon = SystemTime::now();
        let later = soon + 10 * APART;
        let mut names = Names::default();
        assert!(names.may_have_changed(&folder, soon));
        assert!(names.may_have_changed(&folder, soon), "one more change could bear the same time");
        assert!(names.may_have_changed(&folder, later));
        assert!(!names.may_have_changed(&folder, later));
        // What is in a file is no matter of its name.
        fs::write(&file, "more").unwrap();
        assert!(!names.may_have_changed(&folder, later));
        let rename = || fs::rename(&file, folder.join("other")).unwrap();
        let remove = || fs::remove_file(folder.join("other")).unwrap();
        let another = || {
            fs::rename(&folder, above.path().join("old")).unwrap();
            fs::create_dir(&folder).unwrap();
        };
        let none = || fs::remove_dir(&folder).unwrap();
        let steps: [&dyn Fn(); 4] = [&rename, &remove, &another, &none];
        for step in steps {
            step();
            assert!(names.may_have_changed(&folder, later));
        }
        assert!(names.may_have_changed(&folder, later), "of what is not there nothing is known");
        fs::create_dir(&folder).unwrap();
        assert!(names.may_have_changed(&folder, later));
        let looks = (0..=LOOKS).map(|_| names.may_have_changed(&folder, later));
        assert_eq!(looks.filter(|all| *all).count(), 1, "once, after some looks at the folder alone");
        names.forget();
        assert!(names.may_have_changed(&folder, later));
        // A clock that was put back.
        names.forget();
        let before = soon - 10 * APART;
        assert!(names.may_have_changed(&folder, before) && names.may_have_changed(&folder, before));
    }
}
