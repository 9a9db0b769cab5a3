//! `hosts.pins`: the public keys of the hosts, `id sha256:BASE64`, one pin a line, the same file on
//! each host.
//!
//! A pin is the SHA-256 of a key's SubjectPublicKeyInfo (DER), so a certificate may be renewed
//! around a key. A host may have several while its keys change over. A key is one host's: that is
//! what identity on the secure wire is, so the same pin for two ids is an error. `#` begins a
//! comment; blank lines and spaces don't matter. A bad line is a [`Problem`] with its line,
//! whatever bytes it has; the lines after it are read nevertheless.

use super::Hosts;
use super::problem::{Problem, keep};
use base::{HostId, Pin, Pins};
use std::collections::HashMap;
use std::path::Path;

/// Most pins of one host: a change of keys needs two. More is an error, since a caller compares
/// against each.
const MAX_PER_HOST: usize = 8;

/// What to do about two hosts with one key: most often one machine was copied from the other, key
/// and all.
const ONE_KEY_EACH: &str = "a key is one host's; if one machine is a copy of the other, move keys/host.key away there, \
                            make it a key of its own (lon pin --make), and give it that line here";

/// What some editors put before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

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
    /// Reads every line; what is wrong with one does not stop the next. `hosts` tells which ids are
    /// known; `None`: that cannot be told.
    pub fn parse(file: &Path, bytes: &[u8], hosts: Option<&Hosts>) -> PinFile {
        let mut found = PinFile::default();
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
            let pins = found.pins.of(&id);
            if pins.len() >= MAX_PER_HOST && !pins.contains(&pin) {
                let what = format!("{id} has {MAX_PER_HOST} pins already");
                keep(&mut found.problems, Problem::at(file, line, what));
                continue;
            }
            let first = *lines.entry(pin).or_insert(line);
            match found.pins.add(id.clone(), pin) {
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
