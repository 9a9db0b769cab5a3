//! The user that the service's files belong to, and how root touches them.
//!
//! Started as root, the programs become `user`; and what root's `lon` makes for them must be
//! theirs. Whoever has that user's rights (a handler, a program on a web server) can put links in
//! the place of files, and swap folders, wherever it may write. So root touches such a place in one
//! of two ways only:
//!
//! - as that user ([`Owner::act`]): what the user may not do, root does not do for it;
//! - where the user may not write ([`folders`]): by descriptors, component by component, links
//!   followed only where nobody but root can have put them.

mod bounding;
pub mod confine;
pub mod folders;

pub use bounding::bound_none;

use config::Config;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{
    Gid, Uid, User, geteuid, getgrouplist, getgroups, setfsgid, setfsuid, setgroups, setresgid, setresuid,
};
use std::ffi::CString;
use std::io;
use std::marker::PhantomData;

/// The system call with numbers of 32 bits.
#[cfg(target_pointer_width = "64")]
const SETGROUPS: libc::c_long = libc::SYS_setgroups;
#[cfg(target_pointer_width = "32")]
const SETGROUPS: libc::c_long = libc::SYS_setgroups32;

/// Who the user is, to the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The login name, as in `user = ...`.
    pub name: String,
    /// Its id.
    pub uid: Uid,
    /// Its own group.
    pub gid: Gid,
    /// All its groups, its own among them.
    pub groups: Vec<Gid>,
}

/// Why the user cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The system has no such user.
    #[error("there is no user {0:?}")]
    Unknown(String),
    /// The system could not say.
    #[error("look up user {0:?}: {1}")]
    LookUp(String, io::Error),
}

impl Owner {
    /// The user with this name.
    ///
    /// # Errors
    /// There is none, or the system could not say.
    pub fn named(name: &str) -> Result<Owner, OwnerError> {
        let fail = |errno: Errno| OwnerError::LookUp(name.to_owned(), errno.into());
        let unknown = || OwnerError::Unknown(name.to_owned());
        let user = User::from_name(name).map_err(fail)?.ok_or_else(unknown)?;
        let text = CString::new(name).map_err(|_| unknown())?;
        let groups = getgrouplist(&text, user.gid).map_err(fail)?;
        Ok(Owner { name: user.name, uid: user.uid, gid: user.gid, groups })
    }

    /// The user of `config`, where this process is root and that user is another one; else this
    /// process does what it does as who it is.
    ///
    /// # Errors
    /// As [`Owner::named`].
    pub fn beside_root(config: &Config) -> Result<Option<Owner>, OwnerError> {
        let Some(name) = config.user.as_deref().filter(|_| geteuid().is_root()) else { return Ok(None) };
        Ok(Some(Owner::named(name)?).filter(|owner| !owner.uid.is_root()))
    }

    /// From here on, and until the value is dropped, this thread has the user's rights over files
    /// (and sockets that are files), and no more. Other threads are what they were. Needs root.
    ///
    /// # Errors
    /// The system refused; all is as before then.
    pub fn act(&self) -> io::Result<Acting> {
        let acting = Acting {
            name: self.name.clone(),
            groups: getgroups()?,
            gid: setfsgid(Gid::from_raw(u32::MAX)),
            uid: setfsuid(Uid::from_raw(u32::MAX)),
            dumpable: prctl::get_dumpable().unwrap_or(false),
            one_thread: PhantomData,
        };
        set_groups(&self.groups)?;
        setfsgid(self.gid);
        setfsuid(self.uid);
        acting.restore_dumpable();
        // Neither call tells of its failure; one that changes nothing tells what holds.
        if (setfsuid(Uid::from_raw(u32::MAX)), setfsgid(Gid::from_raw(u32::MAX))) != (self.uid, self.gid) {
            return Err(io::Error::other(format!("the rights of {} were not to be had", self.name)));
        }
        Ok(acting)
    }

    /// Becomes this user, with all its groups, for good. For a process that is root, whomever it
    /// acts as.
    ///
    /// # Errors
    /// The system refused, or the process is somebody else.
    pub fn become_for_good(&self) -> io::Result<()> {
        if geteuid() == self.uid && !self.uid.is_root() {
            return Ok(());
        }
        if !self.uid.is_root() {
            bound_none()?;
        }
        setgroups(&self.groups)?;
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)?;
        // Root that stays root has only acted as somebody else until now.
        setfsgid(self.gid);
        setfsuid(self.uid);
        if geteuid() == self.uid { Ok(()) } else { Err(io::Error::other("the system kept the old one")) }
    }

    /// Whether this user may write to something with this owner, group and these permission bits.
    fn may_write(&self, uid: u32, gid: u32, mode: u32) -> bool {
        let bit = match () {
            () if uid == self.uid.as_raw() => return true, // Who owns it can give itself the right.
            () if self.groups.iter().any(|group| group.as_raw() == gid) => 0o020,
            () => 0o002,
        };
        mode & bit != 0
    }
}

/// Does `work` as `owner` if there is one, else as who this process is: see [`Owner::act`].
///
/// # Errors
/// The rights were not to be had; else what `work` gives.
pub fn acting_as<T, E: From<io::Error>>(
    owner: Option<&Owner>,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let _acting = owner.map(Owner::act).transpose()?;
    work()
}

/// A thread that has a user's rights over files: see [`Owner::act`].
#[derive(Debug)]
pub struct Acting {
    name: String,
    groups: Vec<Gid>,
    gid: Gid,
    uid: Uid,
    dumpable: bool,
    /// The rights are those of the thread that has taken them, and must be given back there.
    one_thread: PhantomData<*const ()>,
}

impl Acting {
    /// Whose rights they are.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whoever changes its rights has what the system thinks fit for that (`fs.suid_dumpable`).
    fn restore_dumpable(&self) {
        // Dumps are a matter of their own: whoever makes files with the right rights goes on
        // without.
        let _ = prctl::set_dumpable(self.dumpable);
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        // The real user id is root's still, so none of these can be refused.
        setfsuid(self.uid);
        setfsgid(self.gid);
        let _ = set_groups(&self.groups);
        self.restore_dumpable();
    }
}

/// `setgroups` of this thread alone: that of the C library has every thread of the process do it.
fn set_groups(groups: &[Gid]) -> io::Result<()> {
    let numbers: Vec<libc::gid_t> = groups.iter().map(|group| group.as_raw()).collect();
    // SAFETY: the kernel reads as many numbers as there are in the array.
    let done = unsafe { libc::syscall(SETGROUPS, numbers.len(), numbers.as_ptr()) };
    Ok(Errno::result(done).map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    /// The user `nobody`, where the tests may act as another user.
    pub(super) fn nobody() -> Option<Owner> {
        Owner::named("nobody").ok().filter(|_| geteuid().is_root())
    }

    #[test]
    fn root_acting_as_a_user_has_its_rights_over_files_and_only_in_that_thread() {
        let Some(nobody) = nobody() else { return };
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let secret = folder.path().join("secret");
        fs::write(&secret, "of root").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let (ask, asked) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            // A thread that was there before; one that is begun meanwhile begins with these rights.
            let file = secret.as_path();
            let other = scope.spawn(move || {
                asked.recv().unwrap();
                fs::read(file).unwrap()
            });
            let _acting = nobody.act().unwrap();
            assert_eq!(fs::read(&secret).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            fs::write(folder.path().join("theirs"), "").unwrap();
            ask.send(()).unwrap();
            assert_eq!(other.join().unwrap(), b"of root");
        });
        assert_eq!(fs::read(&secret).unwrap(), b"of root");
        let theirs = fs::metadata(folder.path().join("theirs")).unwrap();
        assert_eq!((theirs.uid(), theirs.gid()), (nobody.uid.as_raw(), nobody.gid.as_raw()));
        fs::write(folder.path().join("ours"), "").unwrap();
        assert_eq!(fs::metadata(folder.path().join("ours")).unwrap().uid(), 0);
        let denied: io::Result<()> = acting_as(Some(&nobody), || fs::read(&secret).map(drop));
        assert!(denied.is_err());
    }

    #[test]
    fn a_user_that_is_not_there_is_an_error_with_its_name() {
        assert_eq!(
            Owner::named("no-such-user").unwrap_err().to_string(),
            "there is no user \"no-such-user\""
        );
        assert!(matches!(Owner::named("a\0b"), Err(OwnerError::Unknown(_) | OwnerError::LookUp(..))));
    }
}
