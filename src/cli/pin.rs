//! `lon pin`: this host's line for `hosts.pins`; both lines while a new key waits for `lon rotate
//! --switch`.
//!
//! With `--make` a host that has no key yet gets one; nothing is ever overwritten.

use super::{Failure, as_service_user, print, service_user};
use config::Config;
use owner::{Owner, folders};
use std::io;
use wire::secure::{HostKey, KeyError, KeyFile};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Make a key where there is none yet.
    #[arg(long)]
    make: bool,
}

pub(super) fn run(config: &Config, arguments: &Arguments) -> Result<u8, Failure> {
    if arguments.make {
        make_folder(config)?;
    }
    let text = with_keys(config, |owner| {
        let current = match HostKey::load(&config.key_dir) {
            Err(KeyError::Missing(_)) if arguments.make => {
                let owner = owner.map(|owner| (owner.uid.as_raw(), owner.gid.as_raw()));
                match HostKey::make_file(&config.key_dir, KeyFile::Current, owner) {
                    // Another has made it in this moment.
                    Err(KeyError::Make { cause, .. }) if cause.kind() == io::ErrorKind::AlreadyExists => {
                        HostKey::load(&config.key_dir)?
                    }
                    made => made?,
                }
            }
            loaded => loaded?,
        };
        let mut text = line(config, &current);
        match HostKey::load_file(&config.key_dir, KeyFile::New) {
            Ok(new) => text.push_str(&line(config, &new)),
            Err(KeyError::Missing(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(text)
    })?;
    print(text.as_bytes())?;
    Ok(0)
}

/// Does `work` with this host's keys: root does it as the user that the programs become, unless
/// root alone decides what is in `key_dir`; then it gets the user, whose the files are to be that
/// it makes.
pub(super) fn with_keys<T>(
    config: &Config,
    work: impl FnOnce(Option<&Owner>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    match service_user(config)? {
        Some(owner) if folders::root_alone(&config.key_dir, &owner).unwrap_or(false) => work(Some(&owner)),
        Some(_) | None => as_service_user(config, || work(None)),
    }
}

/// A line of `hosts.pins`.
pub(super) fn line(config: &Config, key: &HostKey) -> String {
    format!("{} {}\n", config.id, key.pin())
}

/// Makes the folder of the keys if need be, for the user that the programs become.
fn make_folder(config: &Config) -> Result<(), Failure> {
    let folder = &config.key_dir;
    let owner = service_user(config)?;
    folders::make(folder, 0o700, owner.as_ref())
        .map_err(|error| Failure::did("make", folder.display(), error))
}
