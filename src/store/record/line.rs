//! A line of the record, and back.
//!
//! Pure. The lines are described in `docs/spool.md`. Each is proven by its CRC-32 and says by
//! itself what it is about, the epoch included, so that a damaged neighbour changes nothing in what
//! it means. [`parse`] never panics, whatever the bytes.

use super::Answered;
use base::Key;
use base::command;
use std::collections::BTreeMap;

/// Digits of an epoch.
const EPOCH_DIGITS: usize = 32;
/// Digits of a sequence.
const SEQUENCE_DIGITS: usize = 20;
/// Bytes of the CRC and of the space behind it.
const CRC_LENGTH: usize = 9;
/// Stands where an answer has no client key; no key holds it.
const NO_KEY: &[u8] = b"*";
/// Stands between an answer's key and its command; neither holds it.
const OF: u8 = b'@';
/// What an answer begins with that stands for one that a handler did not give.
const BROKEN: &[u8] = b"\\!";

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The epoch is this one, and all sequences below are settled; but of some commands only those
    /// below another.
    Floor { epoch: String, floor: u64, held: BTreeMap<Box<str>, u64> },
    /// A critical message was answered.
    Answer { epoch: String, sequence: u64, key: Option<Key>, command: String, broken: bool, answer: Vec<u8> },
    /// The message of a client key was answered, under a sequence that is settled or of an earlier
    /// epoch.
    Key { key: Key, broken: bool, answer: Vec<u8> },
}

/// Whether `text` can be an epoch.
pub(super) fn is_epoch(text: &str) -> bool {
    text.len() == EPOCH_DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// Adds a [`Line::Floor`].
pub(super) fn append_floor(out: &mut Vec<u8>, epoch: &str, floor: u64, held: &BTreeMap<Box<str>, u64>) {
    append(out, |out| {
        out.extend_from_slice(format!("floor {epoch} {floor:020}").as_bytes());
        for (command, floor) in held {
            out.extend_from_slice(format!(" {floor:020}{}{command}", char::from(OF)).as_bytes());
        }
    });
}

/// Adds a [`Line::Answer`].
pub(super) fn append_answer(out: &mut Vec<u8>, epoch: &str, answered: &Answered<'_>) {
    let Answered { sequence, key, command, broken, text } = answered;
    append(out, |out| {
        out.extend_from_slice(format!("answer {epoch} {sequence:020} ").as_bytes());
        out.extend_from_slice(key.map_or(NO_KEY, Key::as_bytes));
        if !command.is_empty() {
            out.push(OF);
            out.extend_from_slice(command.as_bytes());
        }
        out.push(b' ');
        append_text(out, *broken, text);
    });
}

/// Adds a [`Line::Key`].
pub(super) fn append_key(out: &mut Vec<u8>, key: &Key, broken: bool, answer: &[u8]) {
    append(out, |out| {
        out.extend_from_slice(b"key ");
        out.extend_from_slice(key.as_bytes());
        out.push(b' ');
        append_text(out, broken, answer);
    });
}

/// Bytes of the line that says what is settled.
pub(super) fn floor_length(held: &BTreeMap<Box<str>, u64>) -> u64 {
    let before = CRC_LENGTH + "floor ".len() + EPOCH_DIGITS + 1 + SEQUENCE_DIGITS;
    let held: usize = held.keys().map(|command| 1 + SEQUENCE_DIGITS + 1 + command.len()).sum();
    (before + held + 1) as u64
}

/// Bytes of the line of an answer without a client key.
pub(super) fn answer_length(command: &str, broken: bool, answer: &[u8]) -> u64 {
    let before = CRC_LENGTH + "answer ".len() + EPOCH_DIGITS + 1 + SEQUENCE_DIGITS + 1 + NO_KEY.len() + 1;
    let command = if command.is_empty() { 0 } else { 1 + command.len() };
    (before + command + text_length(broken, answer) + 1) as u64
}

/// Bytes of the line of a client key.
pub(super) fn key_length(key: &Key, broken: bool, answer: &[u8]) -> u64 {
    (CRC_LENGTH + "key ".len() + key.as_bytes().len() + 1 + text_length(broken, answer) + 1) as u64
}

fn text_length(broken: bool, answer: &[u8]) -> usize {
    let broken = if broken { BROKEN.len() } else { 0 };
    let escaped = answer.iter().filter(|byte| matches!(byte, b'\n' | b'\\')).count();
    broken + answer.len() + escaped
}

/// What a line without its newline says; `None` if it cannot be proven.
pub(super) fn parse(line: &[u8]) -> Option<Line> {
    let (crc, text) = line.split_at_checked(9)?;
    if crc != crc_text(text) {
        return None;
    }
    let mut parts = text.splitn(2, |byte| *byte == b' ');
    match (parts.next()?, parts.next()?) {
        (b"floor", rest) => {
            let (epoch, (floor, rest)) = epoch_and_number(rest)?;
            Some(Line::Floor { epoch, floor, held: floors(rest)? })
        }
        (b"answer", rest) => {
            let (epoch, (sequence, rest)) = epoch_and_number(rest)?;
            let mut parts = rest.strip_prefix(b" ")?.splitn(2, |byte| *byte == b' ');
            let mut names = parts.next()?.splitn(2, |byte| *byte == OF);
            let key = match names.next()? {
                NO_KEY => None,
                key => Some(Key::new(key)?),
            };
            let command = names.next().map_or(Some(String::new()), whole_command)?;
            let (broken, answer) = read_text(parts.next()?)?;
            Some(Line::Answer { epoch, sequence, key, command, broken, answer })
        }
        (b"key", rest) => {
            let mut parts = rest.splitn(2, |byte| *byte == b' ');
            let key = Key::new(parts.next()?)?;
            let (broken, answer) = read_text(parts.next()?)?;
            Some(Line::Key { key, broken, answer })
        }
        _ => None,
    }
}

fn append(out: &mut Vec<u8>, text: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(b"00000000 ");
    let after = out.len();
    text(out);
    let crc = crc_text(&out[after..]);
    out[start..after].copy_from_slice(&crc);
    out.push(b'\n');
}

/// CRC-32 as lower-case hex, and a space.
fn crc_text(text: &[u8]) -> [u8; 9] {
    let crc = crc32fast::hash(text);
    let mut digits = *b"00000000 ";
    for (place, digit) in digits.iter_mut().take(8).enumerate() {
        *digit = b"0123456789abcdef"[(crc >> (28 - 4 * place)) as usize & 15];
    }
    digits
}

/// Epoch, number, and what follows.
fn epoch_and_number(rest: &[u8]) -> Option<(String, (u64, &[u8]))> {
    let (epoch, rest) = rest.split_at_checked(EPOCH_DIGITS)?;
    let (number, rest) = rest.strip_prefix(b" ")?.split_at_checked(SEQUENCE_DIGITS)?;
    let epoch = std::str::from_utf8(epoch).ok().filter(|text| is_epoch(text))?;
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    Some((epoch.to_owned(), (number, rest)))
}

/// The floors of commands of which less is settled.
fn floors(rest: &[u8]) -> Option<BTreeMap<Box<str>, u64>> {
    let mut held = BTreeMap::new();
    let mut parts = rest.split(|byte| *byte == b' ');
    if parts.next() != Some(b"") {
        return None;
    }
    for part in parts {
        let (floor, command) = part.split_at_checked(SEQUENCE_DIGITS)?;
        let floor = std::str::from_utf8(floor).ok()?.parse().ok()?;
        held.insert(whole_command(command.strip_prefix(&[OF])?)?.into(), floor);
    }
    Some(held)
}

/// These bytes, if they are a command's name and nothing else.
fn whole_command(name: &[u8]) -> Option<String> {
    let known = command(name);
    (!known.is_empty() && known.len() == name.len()).then(|| known.to_owned())
}

fn append_text(out: &mut Vec<u8>, broken: bool, answer: &[u8]) {
    if broken {
        out.extend_from_slice(BROKEN);
    }
    append_escaped(out, answer);
}

/// Whether it stands for an answer that a handler did not give, and the text.
fn read_text(text: &[u8]) -> Option<(bool, Vec<u8>)> {
    match text.strip_prefix(BROKEN) {
        Some(text) => Some((true, unescape(text)?)),
        None => Some((false, unescape(text)?)),
    }
}

/// A newline is written `\n` and a backslash `\\`; all other bytes as they are.
fn append_escaped(out: &mut Vec<u8>, answer: &[u8]) {
    for byte in answer {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            byte => out.push(*byte),
        }
    }
}

fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut answer = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        answer.push(match byte {
            b'\\' => match bytes.next()? {
                b'n' => b'\n',
                b'\\' => b'\\',
                _ => return None,
            },
            byte => *byte,
        });
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: &str = "0123456789abcdef0123456789abcdef";

    fn all_kinds() -> Vec<Vec<u8>> {
        let key = Key::new(b"order-7.b_C").unwrap();
        let every: Vec<u8> = (0..=255).collect();
        let mut lines = vec![Vec::new(); 9];
        append_floor(&mut lines[0], EPOCH, 42, &BTreeMap::new());
        append_answer(&mut lines[1], EPOCH, &(u64::MAX, None, b"ok".as_slice()).into());
        append_answer(&mut lines[2], EPOCH, &(7, Some(&key), every.as_slice()).into());
        append_answer(&mut lines[3], EPOCH, &(8, Some(&key), b"".as_slice()).into());
        append_key(&mut lines[4], &key, false, b"two\nlines and a \\");
        append_key(&mut lines[5], &Key::new(b"-").unwrap(), false, b" ");
        append_floor(
            &mut lines[6],
            EPOCH,
            9,
            &BTreeMap::from([("mail".into(), 3), ("pay-1".into(), u64::MAX)]),
        );
        let (text, broken) = (b"error:x".as_slice(), true);
        let answered = Answered { sequence: 10, key: None, command: "pay-1", broken, text };
        append_answer(&mut lines[7], EPOCH, &answered);
        append_key(&mut lines[8], &key, true, b"\\!");
        lines
    }

    #[test]
    fn a_line_is_laid_out_as_documented() {
        let mut line = Vec::new();
        let key = Key::new(b"K");
        let (text, broken) = (b"a\\b\nc".as_slice(), true);
        let answered = Answered { sequence: 42, key: key.as_ref(), command: "pay", broken, text };
        append_answer(&mut line, EPOCH, &answered);
        let text = format!("answer {EPOCH} 00000000000000000042 K@pay \\!a\\\\b\\nc");
        let crc = crc32fast::hash(text.as_bytes());
        assert_eq!(String::from_utf8(line).unwrap(), format!("{crc:08x} {text}\n"));
    }

    #[test]
    fn a_floor_line_holds_the_names_of_commands_and_nothing_else() {
        for (name, whole) in [("pay", true), ("", false), ("pay:1", false), ("pay 1", false)] {
            let mut text = Vec::new();
            append_floor(&mut text, EPOCH, 9, &BTreeMap::from([(name.into(), 3)]));
            assert_eq!(parse(&text[..text.len() - 1]).is_some(), whole, "{name:?}");
        }
    }

    #[test]
    fn any_bytes_come_back() {
        let key = Key::new(b"order-7.b_C").unwrap();
        let lines = all_kinds();
        let read = |index: usize| {
            let line: &[u8] = &lines[index];
            assert_eq!(memchr::memchr(b'\n', line), Some(line.len() - 1));
            parse(&line[..line.len() - 1]).unwrap()
        };
        assert_eq!(read(0), Line::Floor { epoch: EPOCH.to_owned(), floor: 42, held: BTreeMap::new() });
        let answer = |sequence, key, answer: &[u8]| Line::Answer {
            epoch: EPOCH.to_owned(),
            sequence,
            key,
            command: String::new(),
            broken: false,
            answer: answer.to_vec(),
        };
        assert_eq!(read(1), answer(u64::MAX, None, b"ok"));
        let every: Vec<u8> = (0..=255).collect();
        assert_eq!(read(2), answer(7, Some(key.clone()), &every));
        assert_eq!(read(3), answer(8, Some(key.clone()), b""));
        let keyed = |key: &Key, broken, answer: &[u8]| Line::Key {
            key: key.clone(),
            broken,
            answer: answer.to_vec(),
        };
        assert_eq!(read(4), keyed(&key, false, b"two\nlines and a \\"));
        assert_eq!(read(5), keyed(&Key::new(b"-").unwrap(), false, b" "));
        let held = BTreeMap::from([("mail".into(), 3), ("pay-1".into(), u64::MAX)]);
        assert_eq!(read(6), Line::Floor { epoch: EPOCH.to_owned(), floor: 9, held });
        let Line::Answer { sequence: 10, key: None, command, broken: true, answer, .. } = read(7) else {
            panic!("{:?}", read(7));
        };
        assert_eq!((command.as_str(), answer.as_slice()), ("pay-1", b"error:x".as_slice()));
        assert_eq!(read(8), keyed(&key, true, b"\\!"));
    }

    #[test]
    fn a_changed_bit_anywhere_breaks_the_line_and_so_does_a_cut() {
        for line in all_kinds() {
            let mut line = line[..line.len() - 1].to_vec();
            for place in 0..line.len() {
                for bit in 0..8 {
                    line[place] ^= 1 << bit;
                    assert_eq!(parse(&line), None, "byte {place}, bit {bit}");
                    line[place] ^= 1 << bit;
                }
                assert_eq!(parse(&line[..place]), None);
            }
        }
    }
}
