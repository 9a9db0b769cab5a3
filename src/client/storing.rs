//! Critical messages for a broker that is away: they are stored in the delayed directory, where the
//! broker finds them.
//!
//! In the original's form, a file a message. Root stores as the user that the broker becomes.

use crate::asking::Client;
use crate::connection::MAX_ANSWER;
use crate::outcome::{ClientError, Outcome};
use crate::request::{CRITICAL, as_critical_once, check_request, critical_line};
use base::{HostId, Key};
use config::Config;
use jiff::Timestamp;
use nix::unistd::{Uid, User, geteuid};
use owner::{self, Owner, folders};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Instant;
use store::spool::drop_in_file;

/// What the broker says of a message that it stored; said here too when the broker is away.
pub const CON_DELAYED: &[u8] = b"con_delayed";

/// Permission bits of the delayed directory.
const FOLDER_MODE: u32 = 0o750;

/// Asks `request` as a critical one. When the broker is away, or goes before it answers, stores it
/// in the delayed directory for the broker to find, and says [`Outcome::Delayed`].
///
/// A broker that went after it took the message up may then have it twice, and it is run once all
/// the same: what was given no key is sent, and stored, with an automatic one. (Not on the classic
/// wire, which knows no keys.) What has no answer at `deadline` is not stored: the broker has it.
///
/// # Errors
/// [`ClientError::Request`], [`ClientError::Deadline`], or [`ClientError::Store`]: why it could not
/// be stored.
pub fn critical(
    config: &Config,
    peer: &HostId,
    request: &[u8],
    key: Option<&Key>,
    deadline: Instant,
) -> Result<Outcome, ClientError> {
    let line = critical_line(request, key).map_err(ClientError::Request)?;
    let keyed = as_critical_once(&line, longest_line(config, peer));
    let asked = Client::connect(config, peer, deadline)
        .and_then(|mut client| client.critical(&keyed, None, deadline));
    let left = match asked {
        Err(ClientError::Away { .. }) => line,
        Err(ClientError::Broken { .. }) => keyed,
        asked => return asked,
    };
    store(config, peer, &left).map(|_| Outcome::Delayed).map_err(ClientError::Store)
}

/// Longest line in bytes that the broker takes for this peer.
pub fn longest_line(config: &Config, peer: &HostId) -> usize {
    config.peer(peer).map_or(MAX_ANSWER, |peer| peer.max_line)
}

/// Stores a message in the delayed directory in the original's form, for the broker to take in.
/// Root does so as the user that the broker becomes; nobody else may, unless the folder's mode lets
/// him.
///
/// # Errors
/// `InvalidInput` for what cannot be a request to this peer; `PermissionDenied`, with who may;
/// else what the system said.
pub fn store(config: &Config, peer: &HostId, request: &[u8]) -> io::Result<PathBuf> {
    let request = request.strip_prefix(CRITICAL).unwrap_or(request);
    check_request(request).map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
    let max_line = longest_line(config, peer);
    if request.len() > max_line {
        let what = format!("the request is longer than {max_line} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let owner = Owner::beside_root(config).map_err(io::Error::other)?;
    make_delayed(config, owner.as_ref())?;
    owner::acting_as(owner.as_ref(), || {
        drop_in_file(&config.spool_dir, peer, request, Timestamp::now(), std::process::id())
    })
    .map_err(|error| with_who_may(config, error))
}

/// Says who may store, where this user may not. Those of the broker's group may ask a broker that
/// runs, and look at what waits, but store nothing themselves: whoever makes files there is bound
/// by no rule of `[[local]]`.
fn with_who_may(config: &Config, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    let owner = std::fs::metadata(&config.spool_dir).ok().map(|found| Uid::from_raw(found.uid()));
    let named = owner.and_then(|uid| User::from_uid(uid).ok().flatten()).map(|user| user.name);
    let who = match named.or_else(|| config.user.clone()) {
        Some(user) if user != "root" => format!("root and {user}"),
        Some(_) | None => "root".to_owned(),
    };
    let what =
        format!("{error}: while lonc is away only {who} may store messages: start lonc, and ask again");
    io::Error::new(error.kind(), what)
}

/// Makes the delayed directory where no broker has been started yet, for the user that the broker
/// becomes. Who is another user makes none: it would be of no use to the broker.
fn make_delayed(config: &Config, owner: Option<&Owner>) -> io::Result<()> {
    let foreign = match config.user.as_deref() {
        Some(name) if !geteuid().is_root() => {
            Owner::named(name).map_err(io::Error::other)?.uid != geteuid() && !config.spool_dir.exists()
        }
        Some(_) | None => false,
    };
    if foreign {
        let what = "is not there, and only root or the broker's user may make it";
        return Err(io::Error::new(io::ErrorKind::NotFound, what));
    }
    folders::make(&config.spool_dir, FOLDER_MODE, owner)
}
