//! `hosts.tab`: one host a line, `id:domain:role:hostname:ip`.
//!
//! Owns what a line means and the two ways to find one: by id and by address, both without a walk
//! through the table, since it may have thousands of lines and `lond` asks for every caller. `#`
//! begins a comment; blank lines, spaces around fields and a carriage return at the end don't
//! matter. A bad line is a [`Problem`] with its line, whatever bytes it has; the lines after it are
//! read nevertheless.

use super::problem::{ConfigErrors, Problem, keep};
use base::{HostId, is_plain};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// Fields of a line.
const FIELDS: usize = 5;

/// Longest name that the DNS knows.
const MAX_NAME: usize = 253;

/// What some editors put before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

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
    /// Place in `hosts` by id.
    by_id: HashMap<HostId, usize>,
    /// Place in `hosts` of the last line with an address.
    by_address: HashMap<IpAddr, usize>,
}

/// What reading a table came to.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// The lines that are right.
    pub hosts: Hosts,
    /// Ids of lines that are wrong otherwise, so that nobody says of them that they are missing.
    pub damaged: HashSet<HostId>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What is hardly meant.
    pub warnings: Vec<Problem>,
}

impl Hosts {
    /// Reads a table from bytes; `file` is what problems name.
    ///
    /// # Errors
    /// Every line that is wrong.
    pub fn parse(file: &Path, bytes: &[u8]) -> Result<Hosts, ConfigErrors> {
        let table = Table::parse(file, bytes);
        if table.problems.is_empty() { Ok(table.hosts) } else { Err(ConfigErrors(table.problems)) }
    }

    /// All hosts in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter()
    }

    /// All ids in the order of the file.
    pub fn ids(&self) -> impl Iterator<Item = &HostId> {
        self.hosts.iter().map(|host| &host.id)
    }

    /// How many hosts there are.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// The host with this id.
    pub fn get(&self, id: &HostId) -> Option<&Host> {
        self.hosts.get(self.place(id)?)
    }

    /// Who calls from `address`: the table's *last* line with it, as the original decides (an IPv4
    /// address mapped into IPv6 counts as IPv4).
    pub fn by_address(&self, address: IpAddr) -> Option<&Host> {
        self.hosts.get(*self.by_address.get(&address.to_canonical())?)
    }

    /// Whether some host has no address, so that an unknown caller may be one whose name is yet to
    /// be looked up.
    pub fn has_unaddressed(&self) -> bool {
        self.hosts.iter().any(|host| host.address.is_none())
    }

    /// Adds a host of which nothing but its id is known, behind all others, unless it is there
    /// already.
    pub(super) fn add_unknown(&mut self, id: &HostId) {
        if self.get(id).is_none() {
            let (domain, name) = (String::new(), String::new());
            self.push(Host {
                id: id.clone(),
                domain,
                role: Role(String::new()),
                name,
                address: None,
                line: 0,
            });
        }
    }

    /// Place of a host in the order of the file.
    pub(super) fn place(&self, id: &HostId) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// Adds a line; the caller has made sure that its id is new. Returns who had its address
    /// before.
    fn push(&mut self, host: Host) -> Option<&Host> {
        let place = self.hosts.len();
        self.by_id.insert(host.id.clone(), place);
        let before = host.address.and_then(|address| self.by_address.insert(address, place));
        self.hosts.push(host);
        self.hosts.get(before?)
    }
}

impl Table {
    /// Reads every line; what is wrong with one does not stop the next.
    pub(super) fn parse(file: &Path, bytes: &[u8]) -> Table {
        let mut table = Table::default();
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        for (index, bytes) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let line = index + 1;
            if let Err(whats) = table.take_line(file, line, bytes) {
                for what in whats {
                    keep(&mut table.problems, Problem::at(file, line, what));
                }
            }
        }
        table
    }

    fn take_line(&mut self, file: &Path, line: usize, bytes: &[u8]) -> Result<(), Vec<String>> {
        let text = str::from_utf8(bytes).map_err(|_| vec!["the line is not UTF-8 text".to_owned()])?;
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            return Ok(());
        }
        let host = parse_line(text, line).map_err(|wrong| {
            self.damaged.extend(wrong.id);
            wrong.whats
        })?;
        if let Some(first) = self.hosts.get(&host.id) {
            return Err(vec![format!(
                "host id {:?} stands in line {} already",
                host.id.as_str(),
                first.line
            )]);
        }
        let (id, address) = (host.id.clone(), host.address);
        if let (Some(before), Some(address)) = (self.hosts.push(host), address) {
            let what = format!(
                "{id} has the address {address}, as has {} in line {}: a caller from there is taken for {id}",
                before.id, before.line
            );
            keep(&mut self.warnings, Problem::at(file, line, what));
        }
        Ok(())
    }
}

/// What is wrong with a line; its id where that is right.
struct Wrong {
    id: Option<HostId>,
    whats: Vec<String>,
}

/// Takes `id:domain:role:hostname:ip` apart. The address is all that follows the fourth colon,
/// since it may have colons itself, in brackets.
fn parse_line(text: &str, line: usize) -> Result<Host, Wrong> {
    let fields: Vec<&str> = text.splitn(FIELDS, ':').map(str::trim).collect();
    let id = HostId::new(fields.first().copied().unwrap_or_default());
    let &[_, domain, role, name, address] = fields.as_slice() else {
        let what = format!("{} of 5 fields: want id:domain:role:hostname:ip", fields.len());
        return Err(Wrong { id: id.ok(), whats: vec![what] });
    };
    let mut whats = Vec::new();
    let mut note = |result: Result<(), String>| whats.extend(result.err());
    note(id.as_ref().map(|_| ()).map_err(Clone::clone));
    note(check_word("domain", domain));
    note(check_word("role", role));
    note(check_name(name));
    let parsed = parse_address(address);
    note(parsed.as_ref().map(|_| ()).map_err(Clone::clone));
    if name.is_empty() && address.is_empty() {
        note(Err("neither host name nor address: nothing says where the host is".into()));
    }
    match (id, parsed) {
        (Ok(id), Ok(address)) if whats.is_empty() => Ok(Host {
            id,
            domain: domain.to_owned(),
            role: Role(role.to_owned()),
            name: name.to_owned(),
            address,
            line,
        }),
        (id, _) => Err(Wrong { id: id.ok(), whats }),
    }
}

fn check_word(field: &str, word: &str) -> Result<(), String> {
    if word.is_empty() {
        return Err(format!("the {field} is empty"));
    }
    if word.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("the {field} {word:?} has a space or control character in it"));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), String> {
    if name.len() > MAX_NAME {
        return Err(format!("the host name is longer than {MAX_NAME} characters"));
    }
    if !is_plain(name.as_bytes()) {
        return Err(format!("the host name {name:?} has characters other than A-Z a-z 0-9 . _ -"));
    }
    Ok(())
}

/// `10.0.0.1`, `[::1]`, or nothing.
fn parse_address(text: &str) -> Result<Option<IpAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let address = match text.strip_prefix('[') {
        Some(rest) => match rest.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok()) {
            Some(address) => IpAddr::V6(address).to_canonical(),
            None => return Err(format!("{text:?} is not an IPv6 address in brackets")),
        },
        None if text.parse::<Ipv6Addr>().is_ok() => {
            return Err(format!("an IPv6 address stands in brackets: [{text}]"));
        }
        None if text.contains(':') => {
            let fields = FIELDS + text.matches(':').count();
            return Err(format!("{fields} fields instead of 5: want id:domain:role:hostname:ip"));
        }
        None => match text.parse::<Ipv4Addr>() {
            Ok(address) => IpAddr::V4(address),
            Err(_) => return Err(format!("{text:?} is not an IP address")),
        },
    };
    if address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(format!("{address} is not the address of one host"));
    }
    Ok(Some(address))
}
