//! Who is meant and how it is spoken to: the id of a host, the kind of a wire, and the letters that
//! names have.
//!
//! Pure. A [`HostId`] that exists is one that may stand in a path, in a cipher key and on the wire.

use std::fmt;

/// Whether all of `bytes` are letters of a name: `A-Z a-z 0-9 . _ -`. True of none at all.
pub fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// What the programs, and the services that they start, make for themselves in `run_dir`.
const OWN_NAMES: [&str; 8] =
    ["lonc.pid", "lond.pid", "lonsvc.pid", "lonc.sock", "lond.sock", "lonsvc.sock", "service", "handler"];

/// Id of a host. It becomes a file name, a part of the cipher key and a word of the wire: 1 to 64
/// of `A-Z a-z 0-9 . _ -`, no leading dot, and not a name that `run_dir` has other use for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostId(String);

impl HostId {
    /// Longest id in bytes.
    pub const MAX: usize = 64;

    /// Checks a text.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with the id's place.
    pub fn new(text: &str) -> Result<HostId, String> {
        if text.is_empty() {
            return Err("the host id is empty".into());
        }
        if text.len() > Self::MAX {
            return Err(format!("host id is longer than {} characters", Self::MAX));
        }
        if text.starts_with('.') {
            return Err(format!("host id {text:?} begins with a dot"));
        }
        if !is_plain(text.as_bytes()) {
            return Err(format!("host id {text:?} has characters other than A-Z a-z 0-9 . _ -"));
        }
        if OWN_NAMES.contains(&text) {
            return Err(format!(
                "host id {text:?} is the name of a file that the programs make for themselves"
            ));
        }
        Ok(HostId(text.to_owned()))
    }

    /// Stands for an id that nothing tells. A host may have it, and is then one of which nothing is
    /// known.
    pub fn unknown() -> HostId {
        HostId("-".to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for HostId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        HostId::new(&text)
    }
}

impl From<HostId> for String {
    fn from(id: HostId) -> String {
        id.0
    }
}

/// What is spoken on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WireKind {
    /// TLS 1.3 with pinned keys.
    Secure,
    /// What the original speaks: not private.
    Classic,
}

impl WireKind {
    /// The word of the configuration and of every view: `secure`, `classic`.
    pub fn as_str(self) -> &'static str {
        match self {
            WireKind::Secure => "secure",
            WireKind::Classic => "classic",
        }
    }

    /// Whether only the two hosts can read what crosses the link.
    pub fn is_private(self) -> bool {
        match self {
            WireKind::Secure => true,
            WireKind::Classic => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_what_may_be_a_file_and_a_word() {
        let long = "x".repeat(HostId::MAX);
        for good in ["a", "msu.1_b-C", &long] {
            assert_eq!(HostId::new(good).as_ref().map(HostId::as_str), Ok(good));
        }
        let longer = format!("{long}x");
        for bad in ["", ".a", "a/b", "a b", "a:b", "caf\u{e9}", "a\n", "lonc.pid", "lond.sock", &longer] {
            assert!(HostId::new(bad).is_err(), "{bad:?}");
        }
    }
}
