//! What a link child gives up once it has what it needs: every file but its own folder's, every
//! system call that it has no use for, all capabilities.
//!
//! A child parses what strangers send. Should one of them take it over, it finds itself in a
//! process that can answer its own link and nothing else: no other file can be opened (Landlock),
//! no program or process started, no connection made to elsewhere, nobody signalled or looked into
//! (seccomp). What is given up cannot be had back.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `files` | Landlock: the folders that are left |
//! | `calls` | seccomp: the system calls that are left |
//! | `capabilities` | root's rights, where a child is root |
//!
//! How it fails: `sandbox = "auto"` takes what the kernel has, and says what that is;
//! `"required"` is refused at the start by a kernel without ([`judge`]), and a child that cannot be
//! confined then does not serve. `docs/adr/0086` says why which calls are left, and what they get
//! that are not.

mod calls;
mod capabilities;
mod files;

pub use calls::Calls;
pub use files::Folder;

use config::Sandbox;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// The oldest Landlock that is of use: with the first one no file can be moved to another folder.
const LEAST_LANDLOCK: u32 = 2;

/// Supervisors that confine their link children.
const HAVE_LINKS: [&str; 2] = ["lonc", "lond"];

/// What confines a process, or would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InForce {
    /// The version of Landlock's interface.
    pub landlock: Option<u32>,
    /// Whether system calls are looked at.
    pub seccomp: bool,
}

impl InForce {
    /// Nothing.
    pub const NOTHING: InForce = InForce { landlock: None, seccomp: false };

    /// What this kernel has.
    pub fn in_this_kernel() -> InForce {
        let landlock = files::version().filter(|version| *version >= LEAST_LANDLOCK);
        InForce { landlock, seccomp: calls::can_be_filtered() }
    }

    /// What of both it has not.
    pub fn missing(self) -> Option<&'static str> {
        match (self.landlock, self.seccomp) {
            (Some(_), true) => None,
            (None, true) => Some("Landlock"),
            (Some(_), false) => Some("seccomp"),
            (None, false) => Some("Landlock and seccomp"),
        }
    }
}

/// `Landlock 7, seccomp`
impl fmt::Display for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.landlock, self.seccomp) {
            (Some(version), true) => write!(f, "Landlock {version}, seccomp"),
            (Some(version), false) => write!(f, "Landlock {version}"),
            (None, true) => f.write_str("seccomp"),
            (None, false) => f.write_str("nothing"),
        }
    }
}

/// Why a process is not confined as it was to be.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel has not what is required.
    #[error("sandbox is \"required\", and this kernel has no {0}")]
    Missing(&'static str),
    /// What a process is to be left alone of cannot be made, so that it would be left more.
    #[error("sandbox is \"required\", and a link would reach the records of others: make {folder}: {cause}", folder = folder.display())]
    Unmade {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It has, and refused.
    #[error("{step}: {cause}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        cause: io::Error,
    },
}

/// What children will be confined by in this kernel.
///
/// # Errors
/// That is not all that is required.
pub fn judge(wanted: Sandbox) -> Result<InForce, SandboxError> {
    let there = match wanted {
        Sandbox::Off => return Ok(InForce::NOTHING),
        Sandbox::Auto | Sandbox::Required => InForce::in_this_kernel(),
    };
    match there.missing() {
        Some(missing) if wanted == Sandbox::Required => Err(SandboxError::Missing(missing)),
        Some(_) | None => Ok(there),
    }
}

/// [`judge`], for the supervisor `program`, if that has link children.
///
/// # Errors
/// What is wrong, as the end of a line.
pub fn judge_for(program: &str, wanted: Sandbox) -> Result<Option<InForce>, String> {
    if !HAVE_LINKS.contains(&program) {
        return Ok(None);
    }
    judge(wanted).map(Some).map_err(|error| format!("confine link children: {error}"))
}

/// Says in the log what children are confined by.
pub fn say(wanted: Sandbox, there: InForce) {
    match there.missing() {
        None => log::info!("link children are confined by {there}"),
        Some(_) if wanted == Sandbox::Off => {
            log::warn!("link children are not confined: sandbox = \"off\"");
        }
        Some(missing) => {
            log::warn!("link children are confined by {there} alone: this kernel has no {missing}")
        }
    }
}

/// Makes what is the same for all children that will be confined to `calls`. To be called once,
/// before they are forked; without it each makes it for itself.
pub fn prepare(calls: Calls) {
    calls::prepare(calls);
}

/// Confines this process, which must have one thread, to `folders` and `calls`; what is in force
/// then. Capabilities go whatever is wanted.
///
/// # Errors
/// The system refused what it has; or it has not what is required. This process is not to serve
/// then.
pub fn enter(wanted: Sandbox, folders: &[Folder<'_>], calls: Calls) -> Result<InForce, SandboxError> {
    let refused = |step| move |cause| SandboxError::Refused { step, cause };
    capabilities::drop_all().map_err(refused("drop capabilities"))?;
    let there = judge(wanted)?;
    if there.landlock.is_some() {
        files::leave(folders).map_err(refused("restrict files with Landlock"))?;
        // What was opened before could be cut off by a process that was taken over.
        base::logging::open_own();
    }
    if there.seccomp {
        calls::leave(calls).map_err(refused("restrict system calls with seccomp"))?;
    }
    Ok(there)
}

/// Confines a process that looks names up, and has one thread yet: no file is changed, no program
/// started, no other process reached.
///
/// # Errors
/// As [`enter`].
pub fn enter_look_up(wanted: Sandbox) -> Result<(), SandboxError> {
    let refused = |step| move |cause| SandboxError::Refused { step, cause };
    capabilities::drop_all().map_err(refused("drop capabilities"))?;
    let there = judge(wanted)?;
    if there.landlock.is_some() {
        files::leave_reading().map_err(refused("restrict files with Landlock"))?;
    }
    if there.seccomp {
        calls::leave_look_up().map_err(refused("restrict system calls with seccomp"))?;
    }
    Ok(())
}

/// Confines this process further, to these of the folders that [`enter`] has left it.
///
/// # Errors
/// The system refused.
pub fn narrow(there: InForce, folders: &[Folder<'_>]) -> Result<(), SandboxError> {
    match there.landlock {
        Some(_) => files::leave(folders)
            .map_err(|cause| SandboxError::Refused { step: "restrict files with Landlock", cause }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_force_is_said_in_the_words_of_the_kernel() {
        let all = InForce { landlock: Some(7), seccomp: true };
        assert_eq!(all.to_string(), "Landlock 7, seccomp");
        assert_eq!((all.missing(), InForce::NOTHING.missing()), (None, Some("Landlock and seccomp")));
        assert_eq!(InForce { landlock: None, ..all }.to_string(), "seccomp");
        assert_eq!(InForce { seccomp: false, ..all }.to_string(), "Landlock 7");
        assert_eq!(InForce { seccomp: false, ..all }.missing(), Some("seccomp"));
        assert_eq!(judge(Sandbox::Off).unwrap(), InForce::NOTHING);
    }
}
