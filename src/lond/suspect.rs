//! What is known of a caller whose key is not taken: what a person looks for in the log. Pure.

use super::settings::Directory;
use base::{HostId, Pin};
use std::sync::Arc;
use wire::secure::TunnelError;

/// A caller that may have to be turned away.
#[derive(Debug)]
pub struct Suspect {
    directory: Arc<Directory>,
    /// The pin of this host's own key.
    own: Pin,
    by_address: Option<HostId>,
}

impl Suspect {
    /// Who calls from an address that is this host's, if it is one's. `own`: this host's pin.
    pub fn new(directory: Arc<Directory>, own: Pin, by_address: Option<HostId>) -> Suspect {
        Suspect { directory, own, by_address }
    }

    /// Why it is turned away, with what is known of its key and its address.
    pub fn describe(&self, error: &TunnelError) -> String {
        match error {
            TunnelError::UnknownKey(pin) => match self.owner(pin) {
                Some(owner) => format!("{owner}, seen {pin}; {}", self.address()),
                None => format!("{error}; {}", self.address()),
            },
            error if error.is_about_keys() => format!("{error}; {}", self.address()),
            error => error.to_string(),
        }
    }

    /// What is known of a key that is not taken.
    fn owner(&self, pin: &Pin) -> Option<String> {
        let id = self.directory.id();
        match self.directory.pins().who(pin) {
            _ if *pin == self.own => Some("it shows this host's own key: a copy of this machine?".to_owned()),
            Some(host) if host == id => {
                Some(format!("it shows a key of this host, {id}: a copy of this machine?"))
            }
            Some(host) if self.directory.hosts().get(host).is_none() => {
                let file = self.directory.hosts_file().display();
                Some(format!("a known pin, that of {host}, which has no line in {file}"))
            }
            Some(_) | None => None,
        }
    }

    fn address(&self) -> String {
        let Some(id) = &self.by_address else { return "the address is no host's either".to_owned() };
        let pins: Vec<String> = self.directory.pins().of(id).iter().map(ToString::to_string).collect();
        let expected = if pins.is_empty() { "no pin is known".to_owned() } else { pins.join(" or ") };
        format!("by the address it is {id}, of which was expected: {expected}")
    }
}
