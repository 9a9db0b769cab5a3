//! `hosts.tab`: one host a line, `id:domain:role:hostname:ip`.

use std::fmt;
use std::net::IpAddr;

/// Id of a host. It becomes a file name, a part of the cipher key and a word of the wire: 1 to 64 of
/// `A-Z a-z 0-9 . _ -`, no leading dot, and not a name that `run_dir` has other use for (`lonc.pid`, `*.lock`, ...).
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
        let usable = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        if text.is_empty() {
            return Err("the host id is empty".into());
        }
        if text.len() > Self::MAX {
            return Err(format!("host id is longer than {} characters", Self::MAX));
        }
        if text.starts_with('.') {
            return Err(format!("host id {text:?} begins with a dot"));
        }
        if !text.bytes().all(usable) {
            return Err(format!("host id {text:?} has characters other than A-Z a-z 0-9 . _ -"));
        }
        if [".pid", ".lock", ".sock", ".tmp"].iter().any(|end| text.ends_with(end)) {
            return Err(format!("host id {text:?} ends like a file that the programs make for themselves"));
        }
        Ok(HostId(text.to_owned()))
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

/// What a host is for (`library`, `access`, ...); any word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role(pub String);

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Internal name.
    pub id: HostId,
    /// Institution.
    pub domain: String,
    /// What it is for.
    pub role: Role,
    /// Name in the DNS.
    pub name: String,
    /// Address; `None`: look the name up.
    pub address: Option<IpAddr>,
    /// Line of the file, counted from 1.
    pub line: usize,
}

/// The table, in the order of the file; ids are unique.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    hosts: Vec<Host>,
}

impl Hosts {
    /// All hosts in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter()
    }

    /// The host with this id.
    pub fn get(&self, id: &HostId) -> Option<&Host> {
        self.hosts.iter().find(|host| host.id == *id)
    }

    /// Who calls from `address`: the table's *last* line with it, as the original decides (an IPv4 address
    /// mapped into IPv6 counts as IPv4).
    pub fn by_address(&self, address: IpAddr) -> Option<&Host> {
        let address = address.to_canonical();
        self.hosts.iter().rev().find(|host| host.address == Some(address))
    }
}
