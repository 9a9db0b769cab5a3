//! `lon pin`: this host's line for `hosts.pins`; both lines while a new key waits for `lon rotate --switch`.
//!
//! With `--make` a host that has no key yet gets one; nothing is ever overwritten.

use super::{Failure, print};
use crate::config::Config;
use crate::wire::secure::{HostKey, KeyError, KeyFile};
use nix::unistd::{User, chown, geteuid};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Make a key where there is none yet.
    #[arg(long)]
    make: bool,
}

pub(super) fn run(config: &Config, arguments: &Arguments) -> Result<u8, Failure> {
    let current = match HostKey::load(&config.key_dir) {
        Err(KeyError::Missing(_)) if arguments.make => match make(config) {
            // Another has made it in this moment.
            Err(Failure::Key(KeyError::Make { cause, .. }))
                if cause.kind() == io::ErrorKind::AlreadyExists =>
            {
                HostKey::load(&config.key_dir)?
            }
            made => made?,
        },
        loaded => loaded?,
    };
    let mut text = line(config, &current);
    match HostKey::load_file(&config.key_dir, KeyFile::New) {
        Ok(new) => text.push_str(&line(config, &new)),
        Err(KeyError::Missing(_)) => {}
        Err(error) => return Err(error.into()),
    }
    print(text.as_bytes())?;
    Ok(0)
}

/// A line of `hosts.pins`.
pub(super) fn line(config: &Config, key: &HostKey) -> String {
    format!("{} {}\n", config.id, key.pin())
}

/// Makes the first key, and its folder if need be, for the user that the programs become.
fn make(config: &Config) -> Result<HostKey, Failure> {
    let folder = &config.key_dir;
    let failed = |cause: String| Failure::did("make", folder.display(), cause);
    let user = match config.user.as_deref() {
        Some(name) if geteuid().is_root() => User::from_name(name)
            .map_err(|error| failed(format!("look up user {name:?}: {error}")))?
            .map_or_else(|| Err(failed(format!("there is no user {name:?}"))), |user| Ok(Some(user)))?,
        Some(_) | None => None,
    };
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {
            if let Some(user) = &user {
                chown(folder, Some(user.uid), Some(user.gid)).map_err(|error| failed(error.to_string()))?;
            }
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error.to_string())),
    }
    let owner = user.map(|user| (user.uid.as_raw(), user.gid.as_raw()));
    Ok(HostKey::make_file(folder, KeyFile::Current, owner)?)
}
