//! `hosts.pins`: the public keys of the hosts, `id sha256:BASE64`, one pin a line, the same file on each host.
//!
//! A pin is the SHA-256 of a key's SubjectPublicKeyInfo (DER), so a certificate may be renewed around a key. A host
//! may have several while its keys change over. A key is one host's: that is what identity on the secure wire is, so
//! the same pin for two ids is an error. `#` begins a comment; blank lines and spaces don't matter. A bad line is a
//! [`Problem`] with its line, whatever bytes it has; the lines after it are read nevertheless.

use super::problem::{Problem, keep};
use super::{HostId, Hosts};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

/// What a pin begins with: the only hash that there is.
const PREFIX: &str = "sha256:";

/// Bytes of a hash.
const HASH: usize = 32;

/// Most pins of one host: a change of keys needs two. More is an error, since a caller compares against each.
const MAX_PER_HOST: usize = 8;

/// What to do about two hosts with one key: most often one machine was copied from the other, key and all.
const ONE_KEY_EACH: &str = "a key is one host's; if one machine is a copy of the other, move keys/host.key away there, \
                            make it a key of its own (lon pin --make), and give it that line here";

/// What some editors put before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

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

#[derive(Debug, Default, PartialEq, Eq)]
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
        let mut sets = Sets::default();
        for (id, pin) in pairs {
            sets.add(id, pin);
        }
        Pins(Arc::new(sets))
    }
}

impl Sets {
    /// Adds a pin that is new; otherwise says whose it is already.
    fn add(&mut self, id: HostId, pin: Pin) -> Option<&HostId> {
        if self.who.contains_key(&pin) {
            return self.who.get(&pin);
        }
        self.of.entry(id.clone()).or_default().push(pin);
        self.who.insert(pin, id);
        None
    }
}

/// What reading a file came to.
#[derive(Debug, Default)]
pub struct PinFile {
    /// The lines that are right.
    pub pins: Pins,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What is hardly meant.
    pub warnings: Vec<Problem>,
}

impl PinFile {
    /// Reads every line; what is wrong with one does not stop the next. `hosts` tells which ids are known; `None`:
    /// that cannot be told.
    pub fn parse(file: &Path, bytes: &[u8], hosts: Option<&Hosts>) -> PinFile {
        let mut found = PinFile::default();
        let mut sets = Sets::default();
        let mut lines = HashMap::new();
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        for (index, bytes) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let line = index + 1;
            let (id, pin) = match parse_line(bytes) {
                Ok(None) => continue,
                Ok(Some(pair)) => pair,
                Err(what) => {
                    keep(&mut found.problems, Problem::at(file, line, what));
                    continue;
                }
            };
            if let Some(hosts) = hosts.filter(|hosts| hosts.get(&id).is_none()) {
                let what = format!("{id} is none of the {} hosts of the table", hosts.len());
                keep(&mut found.warnings, Problem::at(file, line, what));
            }
            if sets.of.get(&id).is_some_and(|pins| pins.len() >= MAX_PER_HOST && !pins.contains(&pin)) {
                let what = format!("{id} has {MAX_PER_HOST} pins already");
                keep(&mut found.problems, Problem::at(file, line, what));
                continue;
            }
            let first = *lines.entry(pin).or_insert(line);
            match sets.add(id.clone(), pin) {
                None => {}
                Some(owner) if *owner == id => {
                    let what = format!("the same pin of {id} stands in line {first} already");
                    keep(&mut found.warnings, Problem::at(file, line, what));
                }
                Some(owner) => {
                    let what = format!("the same pin is {owner}'s in line {first}: {ONE_KEY_EACH}");
                    keep(&mut found.problems, Problem::at(file, line, what));
                }
            }
        }
        found.pins = Pins(Arc::new(sets));
        found
    }
}

/// `id sha256:BASE64`, or nothing.
fn parse_line(bytes: &[u8]) -> Result<Option<(HostId, Pin)>, String> {
    let text = str::from_utf8(bytes).map_err(|_| "the line is not UTF-8 text".to_owned())?;
    let mut words = text.split('#').next().unwrap_or_default().split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (None, ..) => Ok(None),
        (Some(id), Some(pin), None) => Ok(Some((HostId::new(id)?, pin.parse()?))),
        (Some(_), None, _) => Err("want two words: id sha256:BASE64".to_owned()),
        (Some(_), Some(_), Some(more)) => {
            Err(format!("want two words: id sha256:BASE64; {more:?} is a third"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> PinFile {
        let hosts = Hosts::parse(Path::new("hosts.tab"), b"a:d:r:n:127.0.0.1\nb:d:r:n:127.0.0.2\n").unwrap();
        PinFile::parse(Path::new("hosts.pins"), text.as_bytes(), Some(&hosts))
    }

    fn said(problems: &[Problem]) -> Vec<String> {
        problems.iter().map(ToString::to_string).collect()
    }

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

    #[test]
    fn several_pins_a_host_are_found_by_host_and_by_pin() {
        let [one, two, three] = [Pin::of(b"1"), Pin::of(b"2"), Pin::of(b"3")];
        let file = parse(&format!("\u{feff}# the hosts\na {one}\r\n\n  b\t{two} # old\nb {three}"));
        assert_eq!((said(&file.problems), said(&file.warnings)), (vec![], vec![]));
        let [a, b, c] = ["a", "b", "c"].map(|id| HostId::new(id).unwrap());
        assert_eq!(file.pins.of(&a), [one]);
        assert_eq!(file.pins.of(&b), [two, three]);
        assert_eq!(file.pins.of(&c), []);
        assert_eq!(file.pins.who(&three), Some(&b));
        assert_eq!(file.pins.who(&Pin::of(b"4")), None);
        assert_eq!(file.pins.len(), 3);
        let pairs = Pins::from_pairs([(a, one), (b.clone(), two), (b, three)]);
        assert_eq!(file.pins, pairs);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_the_rest_is_read() {
        let pin = Pin::of(b"1");
        let text = format!(
            "a\na {pin} x\na sha256:abc\n../a {pin}\na {pin}\nb {pin}\na {pin}\nstranger {}",
            Pin::of(b"2")
        );
        let file = parse(&text);
        assert_eq!(
            said(&file.problems),
            [
                "hosts.pins:1: want two words: id sha256:BASE64",
                "hosts.pins:2: want two words: id sha256:BASE64; \"x\" is a third",
                "hosts.pins:3: want sha256: and 44 characters of base64, not \"sha256:abc\"",
                "hosts.pins:4: host id \"../a\" begins with a dot",
                "hosts.pins:6: the same pin is a's in line 5: a key is one host's; if one machine is a copy of the \
                 other, move keys/host.key away there, make it a key of its own (lon pin --make), and give it that \
                 line here",
            ]
        );
        assert_eq!(
            said(&file.warnings),
            [
                "hosts.pins:7: the same pin of a stands in line 5 already",
                "hosts.pins:8: stranger is none of the 2 hosts of the table",
            ]
        );
        assert_eq!(file.pins.len(), 2);
        let not_text = PinFile::parse(Path::new("p"), b"a \xff\n", None);
        assert_eq!(said(&not_text.problems), ["p:1: the line is not UTF-8 text"]);
    }

    #[test]
    fn a_host_has_at_most_eight_pins() {
        let text: String = (0..9).map(|number| format!("a {}\n", Pin::of(&[number]))).collect();
        let file = parse(&text);
        assert_eq!(said(&file.problems), ["hosts.pins:9: a has 8 pins already"]);
        assert_eq!(file.pins.len(), 8);
    }
}
