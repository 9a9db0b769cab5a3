//! Landlock: of all files those in a process's own folders are left, and no TCP port.
//!
//! What is handled is all that the library knows up to [`TESTED`], as far as the kernel has it. A
//! rule is for what a path leads to now: a folder that is removed and made again is another one.
//! What was opened before stays open.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, PathFdError,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope, make_bitflags,
};
use std::io;
use std::path::Path;

/// The newest version whose restrictions were tried with these programs. A later kernel has more;
/// they are not asked for before they were seen to do no harm.
const TESTED: ABI = ABI::V7;

/// `LANDLOCK_CREATE_RULESET_VERSION`: what version the kernel has.
const ASK_VERSION: libc::c_long = 1;

/// A folder that is left to a process.
#[derive(Debug, Clone, Copy)]
pub enum Folder<'a> {
    /// Its files may be made, read, written, moved within, and removed.
    Own(&'a Path),
    /// Its files may be made and written to, and not be read: the log is opened again there.
    Log(&'a Path),
}

impl<'a> Folder<'a> {
    fn path(self) -> &'a Path {
        match self {
            Folder::Own(path) | Folder::Log(path) => path,
        }
    }

    /// All that a store does with plain files and folders: no links, devices, pipes or sockets, and
    /// nothing is executed.
    fn rights(self) -> BitFlags<AccessFs> {
        match self {
            Folder::Own(_) => make_bitflags!(AccessFs::{
                ReadFile | ReadDir | WriteFile | Truncate | RemoveFile | RemoveDir | MakeReg | MakeDir | Refer
            }),
            Folder::Log(_) => make_bitflags!(AccessFs::{ WriteFile | MakeReg }),
        }
    }
}

/// The version of Landlock that this kernel has, if it has it.
pub(super) fn version() -> Option<u32> {
    // SAFETY: with this flag nothing is made, and no memory of ours is looked at.
    let answer = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, ASK_VERSION)
    };
    u32::try_from(answer).ok().filter(|version| *version > 0)
}

/// Leaves all files to this process, to be read alone, and `/dev/null`; sockets too.
///
/// # Errors
/// The system refused; nothing is in force then.
pub(super) fn leave_reading() -> io::Result<()> {
    let read = make_bitflags!(AccessFs::{ ReadFile | ReadDir });
    let all = PathFd::new("/").map_err(io::Error::other)?;
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(TESTED))
        .and_then(|ruleset| ruleset.scope(Scope::Signal))
        .and_then(Ruleset::create)
        .and_then(|ruleset| ruleset.no_new_privs(false).add_rule(PathBeneath::new(all, read)))
        .map_err(io::Error::other)?;
    if let Ok(null) = PathFd::new("/dev/null") {
        let write = make_bitflags!(AccessFs::{ ReadFile | WriteFile });
        ruleset = ruleset.add_rule(PathBeneath::new(null, write)).map_err(io::Error::other)?;
    }
    ruleset.restrict_self().map(drop).map_err(io::Error::other)
}

/// Leaves these folders to this process. One that is not there is left out.
///
/// # Errors
/// The system refused; nothing is in force then.
pub(super) fn leave(folders: &[Folder<'_>]) -> io::Result<()> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(TESTED))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(TESTED)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(TESTED)))
        .and_then(Ruleset::create)
        .map_err(io::Error::other)?
        // Every process of ours has given them up at its start.
        .no_new_privs(false);
    for folder in folders {
        match PathFd::new(folder.path()) {
            Ok(opened) => {
                let rule = PathBeneath::new(opened, folder.rights());
                ruleset = ruleset.add_rule(rule).map_err(io::Error::other)?;
            }
            Err(PathFdError::OpenCall { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    let done = ruleset.restrict_self().map_err(io::Error::other)?;
    match done.ruleset {
        RulesetStatus::NotEnforced => Err(io::Error::other("it is not in force")),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}
