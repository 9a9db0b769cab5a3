//! Folders that root makes for the user, without being led astray.
//!
//! A path is walked from `/`, component by component, by descriptors. A link is followed only where
//! root alone can have put it. A folder is made, and given away, only within one in which the user
//! may not write: there nobody can put another folder in its place between the two steps; and what
//! is given away was just made, is root's and is empty, or it is not given away. From the first
//! folder on in which the user may write, the rest is made by the user's own rights.

use super::Owner;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, fchown, unlinkat};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// Permission bits of a folder above one that is wanted.
const ABOVE: u32 = 0o755;
/// Permission bits of any folder until it is whose it is to be.
const FIRST: u32 = 0o700;
/// Links that a path may lead through; as many as the kernel follows.
const MAX_LINKS: u32 = 40;
/// To look at, and to go on from, without opening.
const LOOK: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Makes the folder `path`, which may exist, with these permission bits, and what of its parents is
/// missing. What is made belongs to `owner`; `None`: to who this process is. What is there already
/// stays as it is.
///
/// # Errors
/// What the system said; what was made stays.
pub fn make(path: &Path, mode: u32, owner: Option<&Owner>) -> io::Result<()> {
    let Some(owner) = owner else { return make_here(path, mode) };
    let path = std::path::absolute(path)?;
    match Walk::begin(owner)?.make(&path, mode)? {
        Reached::Whole => Ok(()),
        Reached::Theirs => super::acting_as(Some(owner), || make_here(&path, mode)),
    }
}

/// Whether root alone decides where `path`, which must be a folder, leads and what is in it: the
/// user cannot swap, remove or link anything there.
///
/// # Errors
/// What the system said.
pub fn root_alone(path: &Path, owner: &Owner) -> io::Result<bool> {
    let path = std::path::absolute(path)?;
    let mut walk = Walk::begin(owner)?;
    walk.queue(&path);
    while let Some(name) = walk.ahead.pop_front() {
        if !walk.guarded()? {
            return Ok(false);
        }
        match walk.step(&name)? {
            Step::Entered => {}
            Step::Missing => return Err(io::ErrorKind::NotFound.into()),
            Step::Theirs => return Ok(false),
        }
    }
    walk.guarded()
}

/// With the rights that this thread has.
fn make_here(path: &Path, mode: u32) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    for above in missing.into_iter().rev().filter(|path| !path.as_os_str().is_empty()) {
        match DirBuilder::new().mode(FIRST).create(above) {
            Ok(()) => {
                let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
                let made = File::options().read(true).custom_flags(flags).open(above)?;
                made.set_permissions(Permissions::from_mode(if above == path { mode } else { ABOVE }))?;
            }
            // Another program of this host makes the same folders.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && above.is_dir() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// How far a path could be made as root.
enum Reached {
    Whole,
    /// From a folder on in which the user may write.
    Theirs,
}

/// What one component led to.
enum Step {
    Entered,
    Missing,
    /// A link that somebody else may have put there.
    Theirs,
}

/// On the way along a path.
struct Walk<'a> {
    owner: &'a Owner,
    at: OwnedFd,
    ahead: VecDeque<OsString>,
    links: u32,
}

impl<'a> Walk<'a> {
    fn begin(owner: &'a Owner) -> io::Result<Walk<'a>> {
        let at = open("/", LOOK | OFlag::O_DIRECTORY, Mode::empty())?;
        Ok(Walk { owner, at, ahead: VecDeque::new(), links: 0 })
    }

    fn make(mut self, path: &Path, mode: u32) -> io::Result<Reached> {
        self.queue(path);
        while let Some(name) = self.ahead.pop_front() {
            if !self.guarded()? {
                return Ok(Reached::Theirs);
            }
            match self.step(&name)? {
                Step::Entered => {}
                Step::Theirs => return Ok(Reached::Theirs),
                Step::Missing => {
                    let mode = if self.ahead.is_empty() { mode } else { ABOVE };
                    match give_new_folder(self.at.as_fd(), &name, mode, self.owner) {
                        Ok(made) => self.at = made,
                        // Another program of this host makes the same folders.
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                            self.ahead.push_front(name);
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(Reached::Whole)
    }

    /// What is to be walked next, before what is ahead already.
    fn queue(&mut self, path: &Path) {
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.ahead.push_front(name.to_owned()),
                Component::ParentDir => self.ahead.push_front("..".into()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }

    /// Whether the user can neither put anything into the folder that was come to, nor take what
    /// root puts there.
    fn guarded(&self) -> io::Result<bool> {
        let found = fstat(&self.at)?;
        // In one with the sticky bit, others may put what they like, but not touch what is there.
        let kept = found.st_mode & libc::S_ISVTX != 0;
        Ok(found.st_uid == 0 && (kept || !self.owner.may_write(found.st_uid, found.st_gid, found.st_mode)))
    }

    fn step(&mut self, name: &OsStr) -> io::Result<Step> {
        let next = match openat(&self.at, name, LOOK, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(Step::Missing),
            next => next?,
        };
        let found = fstat(&next)?;
        match kind(&found) {
            SFlag::S_IFDIR => self.at = next,
            // The link itself is read, not the name once more.
            SFlag::S_IFLNK if found.st_uid == 0 => {
                self.links += 1;
                if self.links > MAX_LINKS {
                    return Err(Errno::ELOOP.into());
                }
                let to = PathBuf::from(readlinkat(&next, "")?);
                if to.is_absolute() {
                    self.at = open("/", LOOK | OFlag::O_DIRECTORY, Mode::empty())?;
                }
                self.queue(&to);
            }
            SFlag::S_IFLNK => return Ok(Step::Theirs),
            _ => return Err(io::ErrorKind::NotADirectory.into()),
        }
        Ok(Step::Entered)
    }
}

fn kind(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT
}

/// Makes a folder in one in which the user may not write, and gives it to the user.
fn give_new_folder(at: BorrowedFd<'_>, name: &OsStr, mode: u32, owner: &Owner) -> io::Result<OwnedFd> {
    mkdirat(at, name, Mode::from_bits_truncate(FIRST))?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let given = openat(at, name, flags, Mode::empty()).map_err(io::Error::from).and_then(|made| {
        let found = fstat(&made)?;
        let fresh = found.st_uid == 0 && found.st_mode & 0o7077 == 0 && is_empty(&made)?;
        if !fresh {
            return Err(io::Error::other("another folder came to stand in its place"));
        }
        fchmod(&made, Mode::from_bits_truncate(mode))?;
        fchown(&made, Some(owner.uid), Some(owner.gid))?;
        Ok(made)
    });
    if given.is_err() {
        // It is what was made, or nothing of ours; a folder with something in it stays.
        let _ = unlinkat(at, name, UnlinkatFlags::RemoveDir);
    }
    given
}

fn is_empty(folder: &OwnedFd) -> io::Result<bool> {
    let mut entries = Dir::from_fd(folder.try_clone()?)?;
    let own = |name: &[u8]| matches!(name, b"." | b"..");
    for entry in entries.iter() {
        if !own(entry?.file_name().to_bytes()) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::tests::nobody;
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, chown, symlink};

    /// A folder that root alone writes to, and `nobody`.
    fn place() -> Option<(tempfile::TempDir, Owner)> {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        Some((folder, nobody()?))
    }

    fn give(path: &Path, to: &Owner) {
        chown(path, Some(to.uid.as_raw()), Some(to.gid.as_raw())).unwrap();
    }

    fn owner_and_mode(path: &Path) -> (u32, u32) {
        let found = fs::symlink_metadata(path).unwrap();
        (found.uid(), found.mode() & 0o7777)
    }

    #[test]
    fn folders_that_root_makes_are_the_users_with_the_modes_that_were_asked_for() {
        let Some((folder, nobody)) = place() else { return };
        let path = folder.path().join("a/b/c");
        make(&path, 0o750, Some(&nobody)).unwrap();
        assert_eq!(owner_and_mode(&path), (nobody.uid.as_raw(), 0o750));
        for above in ["a", "a/b"] {
            assert_eq!(owner_and_mode(&folder.path().join(above)), (nobody.uid.as_raw(), 0o755));
        }
        // What is there stays what it is.
        let ours = folder.path().join("ours");
        fs::create_dir(&ours).unwrap();
        fs::set_permissions(&ours, Permissions::from_mode(0o700)).unwrap();
        make(&ours, 0o755, Some(&nobody)).unwrap();
        assert_eq!(owner_and_mode(&ours), (0, 0o700));
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(make(&folder.path().join("file/x"), 0o755, Some(&nobody)).is_err());
    }

    #[test]
    fn links_are_followed_only_where_root_alone_can_have_put_them() {
        let Some((folder, nobody)) = place() else { return };
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("real")).unwrap();
        symlink("real", at("ours")).unwrap();
        symlink(at("ours"), at("twice")).unwrap();
        make(&at("twice/../ours/run"), 0o755, Some(&nobody)).unwrap();
        assert_eq!(owner_and_mode(&at("real/run")).0, nobody.uid.as_raw());

        // A folder of root's alone, and a link to it where the user may write.
        fs::create_dir(at("secret")).unwrap();
        fs::set_permissions(at("secret"), Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(at("home")).unwrap();
        give(&at("home"), &nobody);
        symlink(at("secret"), at("home/delayed")).unwrap();
        assert!(make(&at("home/delayed/new"), 0o750, Some(&nobody)).is_err());
        assert!(make(&at("home/delayed"), 0o750, Some(&nobody)).is_ok(), "it is there, wherever that is");
        assert_eq!(fs::read_dir(at("secret")).unwrap().count(), 0);
        assert_eq!(owner_and_mode(&at("secret")), (0, 0o700));
        // What is missing there is made with the user's own rights, also behind a folder of root's.
        make(&at("home/a/b"), 0o750, Some(&nobody)).unwrap();
        assert_eq!(owner_and_mode(&at("home/a/b")), (nobody.uid.as_raw(), 0o750));
        fs::create_dir(at("home/roots")).unwrap();
        assert!(make(&at("home/roots/new"), 0o750, Some(&nobody)).is_err());
        // A link that the user put into a folder of root's, one that all may write to.
        fs::create_dir(at("tmp")).unwrap();
        fs::set_permissions(at("tmp"), Permissions::from_mode(0o1777)).unwrap();
        {
            let _acting = nobody.act().unwrap();
            symlink(at("secret"), at("tmp/link")).unwrap();
        }
        assert!(make(&at("tmp/link/new"), 0o750, Some(&nobody)).is_err());
        make(&at("tmp/new"), 0o750, Some(&nobody)).unwrap();
        assert_eq!(owner_and_mode(&at("tmp/new")), (nobody.uid.as_raw(), 0o750));
        assert_eq!(fs::read_dir(at("secret")).unwrap().count(), 0);
        symlink("loop", at("loop")).unwrap();
        assert_eq!(make(&at("loop/x"), 0o755, Some(&nobody)).unwrap_err().raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn a_folder_that_came_to_stand_in_the_place_of_the_one_that_was_made_is_not_given_away() {
        let Some((folder, nobody)) = place() else { return };
        let secret = folder.path().join("secret");
        fs::create_dir(&secret).unwrap();
        fs::write(secret.join("shadow"), "").unwrap();
        fs::set_permissions(&secret, Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(folder.path().join("home")).unwrap();
        give(&folder.path().join("home"), &nobody);
        // As fast as it can, somebody swaps what is made for the folder of root's, as the user may
        // within its own.
        fs::rename(&secret, folder.path().join("home/secret")).unwrap();
        let home = folder.path().join("home");
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _acting = nobody.act().unwrap();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = fs::rename(home.join("delayed"), home.join("aside"));
                    let _ = fs::rename(home.join("secret"), home.join("delayed"));
                    let _ = fs::rename(home.join("delayed"), home.join("secret"));
                    let _ = fs::remove_dir(home.join("aside"));
                }
            });
            for _ in 0..2000 {
                // Whether it can be made meanwhile does not matter.
                let _ = make(&home.join("delayed"), 0o750, Some(&nobody));
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let roots = ["secret", "delayed", "aside"].map(|name| home.join(name));
        let roots = roots.iter().find(|path| path.join("shadow").exists()).unwrap();
        assert_eq!(owner_and_mode(roots), (0, 0o700));
    }

    #[test]
    fn root_alone_decides_only_where_the_user_may_write_nowhere_on_the_way() {
        let Some((folder, nobody)) = place() else { return };
        let keys = folder.path().join("a/keys");
        fs::create_dir_all(&keys).unwrap();
        assert!(root_alone(&keys, &nobody).unwrap());
        fs::set_permissions(&keys, Permissions::from_mode(0o770)).unwrap();
        assert!(root_alone(&keys, &nobody).unwrap(), "by a group that it is not in");
        chown(&keys, None, Some(nobody.gid.as_raw())).unwrap();
        assert!(!root_alone(&keys, &nobody).unwrap());
        chown(&keys, None, Some(0)).unwrap();
        give(&folder.path().join("a"), &nobody);
        assert!(!root_alone(&keys, &nobody).unwrap());
        assert!(root_alone(&folder.path().join("b"), &nobody).is_err());
    }
}
