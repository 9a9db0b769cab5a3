//! The public keys of hosts: a [`Pin`] is one, [`Pins`] are all that are known, and whose.
//!
//! Pure. A pin is the SHA-256 of a key's SubjectPublicKeyInfo (DER), so a certificate may be
//! renewed around a key. A host may have several while its keys change over; a key is one host's.

use super::HostId;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What a pin begins with: the only hash that there is.
const PREFIX: &str = "sha256:";

/// Bytes of a hash.
const HASH: usize = 32;

/// A public key, by the SHA-256 of its SubjectPublicKeyInfo.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pin([u8; HASH]);

impl Pin {
    /// The pin of a key, given its SubjectPublicKeyInfo as DER.
    pub fn of(key: &[u8]) -> Pin {
        let digest = ring::digest::digest(&ring::digest::SHA256, key);
        let mut hash = [0; HASH];
        hash.copy_from_slice(digest.as_ref());
        Pin(hash)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Pin, String> {
        let wrong = || format!("want sha256: and 44 characters of base64, not {text:?}");
        let hash = STANDARD.decode(text.strip_prefix(PREFIX).ok_or_else(wrong)?).map_err(|_| wrong())?;
        hash.try_into().map(Pin).map_err(|_| wrong())
    }
}

/// The pins of all hosts. A clone is the same set and costs nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins(Arc<Sets>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sets {
    of: HashMap<HostId, Vec<Pin>>,
    who: HashMap<Pin, HostId>,
}

impl Pins {
    /// The pins of a host, in the order of the file; none: no secure link to or from it.
    pub fn of(&self, id: &HostId) -> &[Pin] {
        self.0.of.get(id).map_or(&[], Vec::as_slice)
    }

    /// Whose key it is.
    pub fn who(&self, pin: &Pin) -> Option<&HostId> {
        self.0.who.get(pin)
    }

    /// How many pins there are.
    pub fn len(&self) -> usize {
        self.0.who.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.who.is_empty()
    }

    /// A set of these pins; of two that are the same the first stays.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (HostId, Pin)>) -> Pins {
        let mut pins = Pins::default();
        for (id, pin) in pairs {
            pins.add(id, pin);
        }
        pins
    }

    /// Adds a pin that is new; otherwise says whose it is already.
    pub fn add(&mut self, id: HostId, pin: Pin) -> Option<&HostId> {
        if self.0.who.contains_key(&pin) {
            return self.0.who.get(&pin);
        }
        let sets = Arc::make_mut(&mut self.0);
        sets.of.entry(id.clone()).or_default().push(pin);
        sets.who.insert(pin, id);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_the_hash_in_base64_and_nothing_else_is_one() {
        let pin = Pin::of(b"key");
        let text = pin.to_string();
        assert_eq!(text, "sha256:LHDhK3oGRvkiefQnx7OOczTY5Tic/xZ6HcMOc/gmtoM=");
        assert_eq!(text.parse(), Ok(pin));
        let bare = text.strip_prefix(PREFIX).unwrap();
        for bad in [
            "",
            "sha256:",
            bare,
            text.strip_suffix('=').unwrap(),
            &format!("{text}A"),
            &text.replace("256", "1"),
        ] {
            assert!(bad.parse::<Pin>().is_err(), "{bad:?}");
        }
    }
}
