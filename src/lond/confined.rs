//! What a link child leaves itself of files: the log, to be written to; on the secure wire the
//! records of critical messages, and of these, once it is known who calls, that caller's alone.
//!
//! Before a byte of the caller was looked at [`Confined::begin`] gives up all else. Then
//! [`Confined::narrow`] makes the folder of the caller's record, where that can be made, and gives
//! up the others. One that is taken away and made again later is none of this process's: its link
//! ends at once with the next critical message, and the next child has the new one.

use crate::settings::Directory;
use base::HostId;
use base::disk::{Above, Disk, Identity, RealDisk};
use config::Sandbox;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::record;
use supervise::sandbox::{self, Calls, Folder, InForce, SandboxError};

/// See the head of this file.
#[derive(Debug, Clone)]
pub struct Confined {
    in_force: InForce,
    /// It is not to serve with less.
    required: bool,
    above: Arc<Above>,
    log_dir: PathBuf,
    /// This process serves one link alone.
    own: bool,
}

impl Confined {
    /// Not at all.
    pub fn nothing() -> Confined {
        Confined {
            in_force: InForce::NOTHING,
            required: false,
            above: Arc::default(),
            log_dir: PathBuf::new(),
            own: false,
        }
    }

    /// Confines this process. `records`: where they are, if its link may have one.
    ///
    /// # Errors
    /// It is not to serve.
    pub fn begin(wanted: Sandbox, log_dir: &Path, records: Option<&Path>) -> Result<Confined, SandboxError> {
        let all = records.map(record::folder_of_all);
        let mut above = Above::default();
        if let (Some(spool), Some(all)) = (records, &all) {
            // The record cannot be made either, and says so each time that it is needed.
            let made = [spool, all].into_iter().try_for_each(|folder| RealDisk.make_folder(folder));
            if let Err(error) = made {
                log::warn!("make {}: {error}; this link has no record", all.display());
            }
            above = Above::open(&[spool, all]);
        }
        base::logging::keep_zone();
        let mut folders = vec![Folder::Log(log_dir)];
        folders.extend(all.as_deref().map(Folder::Own));
        let in_force = sandbox::enter(wanted, &folders, Calls::ConnectsToHandlers)?;
        let required = wanted == Sandbox::Required;
        Ok(Confined { in_force, required, above: Arc::new(above), log_dir: log_dir.to_owned(), own: true })
    }

    /// Leaves this process of all records that of `caller`.
    ///
    /// # Errors
    /// It is not to serve.
    pub fn narrow(&self, spool_dir: &Path, caller: &HostId) -> Result<(), SandboxError> {
        let own = record::folder(spool_dir, caller);
        if let Err(cause) = RealDisk.make_folder(&own) {
            if self.required {
                return Err(SandboxError::Unmade { folder: own, cause });
            }
            // It may be made later, and there must be something then to make it in.
            log::warn!("make {}: {cause}; this link can reach the records of others", own.display());
            return Ok(());
        }
        sandbox::narrow(self.in_force, &[Folder::Log(&self.log_dir), Folder::Own(&own)])
    }

    /// The folder of this caller's record, if this process was left no other.
    pub fn only(&self, spool_dir: &Path, caller: &HostId) -> Option<Identity> {
        self.in_force.landlock?;
        Identity::named(&record::folder(spool_dir, caller)).ok()
    }

    /// It is known who calls, who was shown all that is shown: this process, if it is a link's own,
    /// needs the key no more.
    pub fn forget_key(&self, directory: &Directory) {
        if self.own {
            directory.forget_key();
        }
    }

    /// What of the folders above the record can be synced.
    pub fn above(&self) -> Arc<Above> {
        self.above.clone()
    }

    /// What confines this process, in words.
    pub fn in_words(&self) -> String {
        self.in_force.to_string()
    }
}
