//! This host's own key, as the links of both programs show it.
//!
//! Read with the configuration, by the supervisor alone: a child that shows it has it from its
//! parent's memory, where it is lent to it at the fork ([`OwnKey::lend`]), so that whatever becomes
//! of the file meanwhile, all links show one key, and no child makes a certificate of its own. A
//! key on the disk that is another one counts from the next reload, or HUP.

use base::Pin;
use config::Config;
use std::time::Duration;
use wire::secure::{HostKey, KeyError, TlsIdentity};

/// Times that a key which the system does not let us read is tried again, where links depend on it.
const TRIES: u32 = 10;
/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(100);

/// See the head of this file. Two are the same if they are to the links.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnKey {
    /// Another host has a pin: then this one needs a key to show.
    needed: bool,
    /// What is shown, or why there is nothing to show.
    identity: Result<TlsIdentity, String>,
}

impl OwnKey {
    /// What lies in the configuration's folder. That no key is there is no error: there are
    /// networks without.
    ///
    /// # Errors
    /// The key is there, and needed, and cannot be used; what is wrong with it.
    pub fn load(config: &Config) -> Result<OwnKey, Vec<String>> {
        let needed = needs_key(config);
        match identity(config) {
            Err(error) if needed && !matches!(error, KeyError::Missing(_)) => Err(vec![error.to_string()]),
            identity => Ok(OwnKey { needed, identity: identity.map_err(|error| error.to_string()) }),
        }
    }

    /// As [`OwnKey::load`], for a program that serves already and goes on whatever is wrong, which
    /// is given beside the key. A link that cannot be made for want of it waits for a reload: a
    /// moment's want is not to cost that.
    pub fn load_again(config: &Config) -> (OwnKey, Option<String>) {
        let needed = needs_key(config);
        let mut found = identity(config);
        for _ in 0..TRIES {
            let Err(error @ KeyError::Read { .. }) = &found else { break };
            log::warn!("{error}; tried again");
            // There is no loop yet that could wait: the children serve on, and what comes for this
            // process stays queued.
            std::thread::sleep(PAUSE);
            found = identity(config);
        }
        let problem = found.as_ref().err().filter(|error| needed && !matches!(error, KeyError::Missing(_)));
        let problem = problem.map(ToString::to_string);
        (OwnKey { needed, identity: found.map_err(|error| error.to_string()) }, problem)
    }

    /// What is shown to another host.
    ///
    /// # Errors
    /// There is nothing to show; why.
    pub fn identity(&self) -> Result<&TlsIdentity, &str> {
        self.identity.as_ref().map_err(String::as_str)
    }

    /// What is forked meanwhile can show the key; no other process that is forked can.
    pub fn lend<T>(&self, fork: impl FnOnce() -> T) -> T {
        match &self.identity {
            Ok(identity) => identity.lend(fork),
            Err(_) => fork(),
        }
    }

    /// Its pin; `None` where there is no key, or no other host has a pin: then nothing needs it.
    pub fn pin(&self) -> Option<Pin> {
        self.identity.as_ref().ok().filter(|_| self.needed).map(TlsIdentity::pin)
    }

    /// Whether a key is needed, and none is there.
    pub fn is_missed(&self) -> bool {
        self.needed && self.identity.is_err()
    }
}

fn identity(config: &Config) -> Result<TlsIdentity, KeyError> {
    TlsIdentity::new(&HostKey::load(&config.key_dir)?)
}

fn needs_key(config: &Config) -> bool {
    config.peers.iter().any(|peer| !config.pins.of(&peer.host.id).is_empty())
}
