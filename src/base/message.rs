//! What names a message: the [`Sequence`] in its sender's spool, the client's own [`Key`], the
//! [`command`] that it gives.
//!
//! Pure. Each has one grammar, on disk, on the wire and at a local socket alike.

use super::is_plain;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use std::fmt;
use std::sync::Arc;

/// Number of a message in its peer's spool, never used twice there; gives the order. Shown as 20
/// digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    /// Digits that it is shown with.
    pub const DIGITS: usize = 20;

    /// The number after this one.
    pub fn next(self) -> Sequence {
        Sequence(self.0.saturating_add(1))
    }

    /// Reads exactly 20 digits.
    pub fn from_digits(digits: &[u8]) -> Option<Sequence> {
        (digits.len() == Self::DIGITS).then(|| decimal(digits)).flatten().map(Sequence)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}", self.0)
    }
}

/// A client's own name for a critical request, `critical;key=K:...`: its repetitions are answered,
/// not run. 1 to 64 of `A-Z a-z 0-9 . _ -`. Clones share its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

/// What an automatic key begins with.
const AUTOMATIC: &str = "lon.";
/// Its length in bytes: 128 random bits in base64 behind that.
const AUTOMATIC_LENGTH: usize = AUTOMATIC.len() + 22;

impl Key {
    /// Longest key in bytes.
    pub const MAX: usize = 64;

    /// A random key for a message that its program gave none, so that a copy of it is known for
    /// what it is. Nobody is shown one: not handlers, nor who looks at what waits. `None`: the
    /// system has no random numbers.
    pub fn automatic() -> Option<Key> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).ok()?;
        Key::new(format!("{AUTOMATIC}{}", BASE64_URL_SAFE_NO_PAD.encode(random)).as_bytes())
    }

    /// Whether it has the form of [`Key::automatic`].
    pub fn is_automatic(&self) -> bool {
        is_automatic(&self.0)
    }

    /// A key, if `bytes` can be one.
    pub fn new(bytes: &[u8]) -> Option<Key> {
        let fits = (1..=Self::MAX).contains(&bytes.len()) && is_plain(bytes);
        let text = str::from_utf8(bytes).ok().filter(|_| fits)?;
        Some(Key(text.into()))
    }

    /// The key as it goes over the wire.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether this key has the form of [`Key::automatic`].
pub(crate) fn is_automatic(key: &str) -> bool {
    key.len() == AUTOMATIC_LENGTH && key.starts_with(AUTOMATIC)
}

/// Longest command name that has an order of its own.
const MAX_COMMAND: usize = 64;

/// The command of a request: the word before its first colon, by which `lond` finds the handler.
/// Each has an order of its own; both ends must tell them apart alike. One that is longer than 64
/// bytes, or has others than `A-Z a-z 0-9 . _ -`, is the empty one, whose messages are in one order
/// together.
pub fn command(request: &[u8]) -> &str {
    let end = memchr::memchr(b':', request).unwrap_or(request.len());
    let name = request.get(..end).unwrap_or_default();
    let fits = name.len() <= MAX_COMMAND && is_plain(name);
    str::from_utf8(name).ok().filter(|_| fits).unwrap_or_default()
}

/// The number that decimal digits, and nothing else, stand for; none at all stand for 0. `None` if
/// it is beyond 64 bits.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_1_to_64_plain_characters() {
        let long = [b'k'; 65];
        for good in [&b"a"[..], b"-", b"A-z.0_9", &long[..64]] {
            assert_eq!(Key::new(good).map(|key| key.to_string().into_bytes()).as_deref(), Some(good));
        }
        for bad in [&b""[..], &long, b"*", b"a b", b"a:b", b"a\n", b"caf\xc3\xa9", b"\0"] {
            assert_eq!(Key::new(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_automatic_key_is_told_from_one_that_a_program_gave_and_none_is_made_twice() {
        let made: std::collections::BTreeSet<Key> = (0..100).map(|_| Key::automatic().unwrap()).collect();
        assert!(made.len() == 100 && made.iter().all(Key::is_automatic), "{made:?}");
        for given in
            ["lon.", "lon.backup", "order-4711", "xlon.AAAAAAAAAAAAAAAAAAAAAA", "lon.AAAAAAAAAAAAAAAAAAAAAAA"]
        {
            assert!(!Key::new(given.as_bytes()).unwrap().is_automatic(), "{given}");
        }
    }

    #[test]
    fn a_sequence_is_twenty_digits_and_fits() {
        let text = Sequence(u64::MAX).to_string();
        assert_eq!(Sequence::from_digits(text.as_bytes()), Some(Sequence(u64::MAX)));
        assert_eq!(Sequence::from_digits(Sequence(7).to_string().as_bytes()), Some(Sequence(7)));
        for bad in ["", "7", "+0000000000000000007", "18446744073709551616", "000000000000000000007"] {
            assert_eq!(Sequence::from_digits(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_command_is_the_plain_word_before_the_first_colon() {
        let long = [b'c'; MAX_COMMAND + 1];
        assert_eq!(command(&long[1..]).as_bytes(), &long[1..]);
        for (request, expected) in [
            (&b"log:a:b"[..], "log"),
            (b"ping", "ping"),
            (b"", ""),
            (b"a b:c", ""),
            (b"\xff:c", ""),
            (&long, ""),
        ] {
            assert_eq!(command(request), expected, "{}", request.escape_ascii());
        }
    }
}
