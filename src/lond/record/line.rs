//! A line of the record, and back.
//!
//! Pure. The lines are described in `docs/spool.md`. Each is proven by its CRC-32 and says by itself what it is about, the
//! epoch included, so that a damaged neighbour changes nothing in what it means. [`parse`] never panics, whatever the
//! bytes.

use super::Key;

/// Digits of an epoch.
const EPOCH_DIGITS: usize = 32;
/// Digits of a sequence.
const SEQUENCE_DIGITS: usize = 20;
/// Bytes of the CRC and of the space behind it.
const CRC_LENGTH: usize = 9;
/// Stands where an answer has no client key; no key holds it.
const NO_KEY: &[u8] = b"*";

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// The epoch is this one, and all sequences below are settled.
    Floor { epoch: String, floor: u64 },
    /// A critical message was answered.
    Answer { epoch: String, sequence: u64, key: Option<Key>, answer: Vec<u8> },
    /// The message of a client key was answered, under a sequence that is settled or of an earlier epoch.
    Key { key: Key, answer: Vec<u8> },
}

/// Whether `text` can be an epoch.
pub fn is_epoch(text: &str) -> bool {
    text.len() == EPOCH_DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// Adds a [`Line::Floor`].
pub fn append_floor(out: &mut Vec<u8>, epoch: &str, floor: u64) {
    append(out, |out| out.extend_from_slice(format!("floor {epoch} {floor:020}").as_bytes()));
}

/// Adds a [`Line::Answer`].
pub fn append_answer(out: &mut Vec<u8>, epoch: &str, sequence: u64, key: Option<&Key>, answer: &[u8]) {
    append(out, |out| {
        out.extend_from_slice(format!("answer {epoch} {sequence:020} ").as_bytes());
        out.extend_from_slice(key.map_or(NO_KEY, Key::as_bytes));
        out.push(b' ');
        append_escaped(out, answer);
    });
}

/// Adds a [`Line::Key`].
pub fn append_key(out: &mut Vec<u8>, key: &Key, answer: &[u8]) {
    append(out, |out| {
        out.extend_from_slice(b"key ");
        out.extend_from_slice(key.as_bytes());
        out.push(b' ');
        append_escaped(out, answer);
    });
}

/// Bytes of a floor's line, with its newline.
pub const FLOOR_LENGTH: u64 = (CRC_LENGTH + "floor ".len() + EPOCH_DIGITS + 1 + SEQUENCE_DIGITS + 1) as u64;

/// Bytes of the line of an answer without a client key.
pub fn answer_length(answer: &[u8]) -> u64 {
    let before = CRC_LENGTH + "answer ".len() + EPOCH_DIGITS + 1 + SEQUENCE_DIGITS + 1 + NO_KEY.len() + 1;
    (before + escaped_length(answer) + 1) as u64
}

/// Bytes of the line of a client key.
pub fn key_length(key: &Key, answer: &[u8]) -> u64 {
    (CRC_LENGTH + "key ".len() + key.as_bytes().len() + 1 + escaped_length(answer) + 1) as u64
}

fn escaped_length(answer: &[u8]) -> usize {
    answer.len() + memchr::memchr2_iter(b'\n', b'\\', answer).count()
}

/// What a line without its newline says; `None` if it cannot be proven.
pub fn parse(line: &[u8]) -> Option<Line> {
    let (crc, text) = line.split_at_checked(9)?;
    if crc != crc_text(text) {
        return None;
    }
    let mut parts = text.splitn(2, |byte| *byte == b' ');
    match (parts.next()?, parts.next()?) {
        (b"floor", rest) => {
            let (epoch, floor) = epoch_and_number(rest)?;
            floor.1.is_empty().then_some(Line::Floor { epoch, floor: floor.0 })
        }
        (b"answer", rest) => {
            let (epoch, (sequence, rest)) = epoch_and_number(rest)?;
            let mut parts = rest.strip_prefix(b" ")?.splitn(2, |byte| *byte == b' ');
            let key = match parts.next()? {
                NO_KEY => None,
                key => Some(Key::new(key)?),
            };
            Some(Line::Answer { epoch, sequence, key, answer: unescape(parts.next()?)? })
        }
        (b"key", rest) => {
            let mut parts = rest.splitn(2, |byte| *byte == b' ');
            Some(Line::Key { key: Key::new(parts.next()?)?, answer: unescape(parts.next()?)? })
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
        let mut lines = vec![Vec::new(); 6];
        append_floor(&mut lines[0], EPOCH, 42);
        append_answer(&mut lines[1], EPOCH, u64::MAX, None, b"ok");
        append_answer(&mut lines[2], EPOCH, 7, Some(&key), &every);
        append_answer(&mut lines[3], EPOCH, 8, Some(&key), b"");
        append_key(&mut lines[4], &key, b"two\nlines and a \\");
        append_key(&mut lines[5], &Key::new(b"-").unwrap(), b" ");
        lines
    }

    #[test]
    fn a_line_is_laid_out_as_documented() {
        let mut line = Vec::new();
        append_answer(&mut line, EPOCH, 42, Key::new(b"K").as_ref(), b"a\\b\nc");
        let text = format!("answer {EPOCH} 00000000000000000042 K a\\\\b\\nc");
        let crc = crc32fast::hash(text.as_bytes());
        assert_eq!(String::from_utf8(line).unwrap(), format!("{crc:08x} {text}\n"));
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
        assert_eq!(read(0), Line::Floor { epoch: EPOCH.to_owned(), floor: 42 });
        let answer = |sequence, key, answer: &[u8]| Line::Answer {
            epoch: EPOCH.to_owned(),
            sequence,
            key,
            answer: answer.to_vec(),
        };
        assert_eq!(read(1), answer(u64::MAX, None, b"ok"));
        let every: Vec<u8> = (0..=255).collect();
        assert_eq!(read(2), answer(7, Some(key.clone()), &every));
        assert_eq!(read(3), answer(8, Some(key.clone()), b""));
        assert_eq!(read(4), Line::Key { key, answer: b"two\nlines and a \\".to_vec() });
        assert_eq!(read(5), Line::Key { key: Key::new(b"-").unwrap(), answer: b" ".to_vec() });
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
