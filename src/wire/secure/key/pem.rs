//! The one kind of PEM that a key file has: what stands in it is decoded into memory that is wiped,
//! which a library's own buffers are not.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, Zeroizing};

const BEGIN: &[u8] = b"-----BEGIN PRIVATE KEY-----";
const END: &[u8] = b"-----END PRIVATE KEY-----";

/// What is wrong with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PemError {
    /// There is no key of this kind in it.
    None,
    /// There is the beginning of one, and not all of it.
    Broken,
}

/// The first PKCS#8 key in `text`.
///
/// # Errors
/// There is none, or it is broken.
pub(super) fn decode(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, PemError> {
    let mut lines = text.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii);
    lines.find(|line| *line == BEGIN).ok_or(PemError::None)?;
    // No longer than the text: it is never moved to another place, which would not be wiped.
    let mut body = Zeroizing::new(Vec::with_capacity(text.len()));
    loop {
        match lines.next() {
            None => return Err(PemError::Broken),
            Some(END) => break,
            Some(line) => body.extend_from_slice(line),
        }
    }
    let mut bytes = Zeroizing::new(vec![0; body.len()]);
    let length = STANDARD.decode_slice(&*body, &mut bytes).map_err(|_| PemError::Broken)?;
    bytes.get_mut(length..).unwrap_or_default().zeroize();
    bytes.truncate(length);
    Ok(bytes)
}

/// A key as text.
pub(super) fn encode(key: &[u8]) -> Zeroizing<String> {
    // 48 bytes are 64 characters: one line.
    let mut text = Zeroizing::new(String::with_capacity(BEGIN.len() + END.len() + 2 * key.len() + 16));
    text.push_str("-----BEGIN PRIVATE KEY-----\n");
    STANDARD.encode_string(key, &mut text);
    text.push_str("\n-----END PRIVATE KEY-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded_whatever_stands_before_it_and_how_lines_end() {
        let text = encode(b"a key that is no key");
        assert_eq!(**decode(text.as_bytes()).unwrap(), *b"a key that is no key");
        let other = format!("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n{}", *text);
        assert_eq!(**decode(other.replace('\n', "\r\n").as_bytes()).unwrap(), *b"a key that is no key");
        let cut = "-----BEGIN PRIVATE KEY-----\nYSBrZXkg\ndGhhdA==\n  -----END PRIVATE KEY-----";
        assert_eq!(**decode(cut.as_bytes()).unwrap(), *b"a key that");
        assert_eq!(decode(b"").unwrap_err(), PemError::None);
        for broken in ["YSBrZXkg\n", "YSBrZXkg*\n-----END PRIVATE KEY-----\n"] {
            let text = format!("-----BEGIN PRIVATE KEY-----\n{broken}");
            assert_eq!(decode(text.as_bytes()).unwrap_err(), PemError::Broken);
        }
    }
}
