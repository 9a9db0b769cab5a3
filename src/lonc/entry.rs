//! Where a link child begins.
//!
//! Takes the peer's spool lock before anything else, so that two children never serve one peer: a child that replaces
//! another waits here until that one has ended. Then it takes over the programs that the one before it has left.
//! Where there can be no lock because the delayed directory cannot be used,
//! plain requests are served all the same and critical ones that would have to be stored are answered `con_failed`, until
//! there can be one.

use super::broker::Broker;
use super::handover::Passage;
use super::link::Now;
use super::permlog::PermLog;
use super::reactor::Reactor;
use crate::config::{Config, Peer, Pin, Wire};
use crate::disk::{Guarded, RealDisk};
use crate::spool::{Spool, SpoolLock};
use crate::supervise::control::Channel;
use crate::supervise::title;
use crate::wire::secure::{HostKey, KeyError, TlsIdentity};
use std::error::Error;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Times that a key which the system does not let us read is tried again.
const KEY_TRIES: u32 = 10;
/// Pause between two of them.
const KEY_PAUSE: Duration = Duration::from_millis(100);

/// What a link child is born with.
#[derive(Debug)]
pub struct Seed {
    /// The whole configuration.
    pub config: Arc<Config>,
    /// The peer to serve.
    pub peer: Peer,
    /// The peer's local socket, listening; non-blocking.
    pub listener: UnixListener,
    /// The child's end of the control socket: receives `ToLink`, sends `FromLink`.
    pub control: OwnedFd,
    /// Where the programs of the child before this one are, and where this one's go.
    pub passage: Passage,
}

/// Serves one peer until told to stop; exits 0 then.
pub fn run(seed: Seed) -> ! {
    let peer = seed.peer.host.id.clone();
    match serve(seed) {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            log::error!("serve {peer}: {error}; ending");
            std::process::exit(1)
        }
    }
}

fn serve(seed: Seed) -> Result<(), Box<dyn Error>> {
    let Seed { config, peer, listener, control, passage } = seed;
    crate::logging::set_host(peer.host.id.as_str());
    title::set(&format!("{} starting", peer.host.id));
    let dir = config.spool_path(&peer.host.id);
    let lock = SpoolLock::acquire_blocking(&dir).inspect_err(|error| {
        log::error!("{error}; critical requests are kept nowhere until that is put right")
    });
    let spool = Spool::open(Guarded::new(RealDisk, &dir, lock.ok()), &dir, peer.spool);
    let now = Now { mono: Instant::now(), wall: jiff::Timestamp::now() };
    let (keys, barred) = match keys(&config, &peer) {
        Ok(keys) => (keys, None),
        Err(why) => (None, Some(why)),
    };
    let broker = Broker::new(&config, &peer, spool, barred.as_deref(), getrandom::u64()?, now);
    let control = Channel::from_fd(control)?;
    let permlog = PermLog::new(&config.log_dir);
    Reactor::new(peer, keys, broker, listener, control, passage, permlog)?.run()?;
    Ok(())
}

/// What the peer is shown and what it is to show, where the wire asks for keys.
///
/// # Errors
/// There is no way to know the peer, or to be known: what to put right. The peer is not dialled then; a key or pin that is
/// mended is seen at the next reload.
fn keys(config: &Config, peer: &Peer) -> Result<Option<(TlsIdentity, Vec<Pin>)>, String> {
    if peer.wire == Wire::Classic {
        return Ok(None);
    }
    let pins = config.pins.of(&peer.host.id).to_vec();
    if pins.is_empty() {
        return Err(format!("no pin for {} in {}", peer.host.id, config.pins_file.display()));
    }
    // A link that cannot be made for want of it waits for a reload: a moment's want is not to cost that.
    let mut key = HostKey::load(&config.key_dir);
    for _ in 0..KEY_TRIES {
        let Err(error @ KeyError::Read { .. }) = &key else { break };
        log::warn!("{error}; tried again");
        // Nothing is served yet that this could hold up: the programs of this peer wait in the backlog of its socket.
        std::thread::sleep(KEY_PAUSE);
        key = HostKey::load(&config.key_dir);
    }
    let key = key.map_err(|error| error.to_string())?;
    let identity = TlsIdentity::new(&key).map_err(|error| error.to_string())?;
    Ok(Some((identity, pins)))
}
