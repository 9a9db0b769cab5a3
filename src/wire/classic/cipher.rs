//! The cipher of the classic wire: IDEA in ECB mode, `enc:<length>:<hex>`.

use base::HostId;
use idea::Idea;
use idea::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

const BLOCK: usize = 8;

/// What is wrong with an `enc:` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    /// It does not begin with `enc:<digits>:`.
    #[error("not of the form enc:<length>:<hex>")]
    Form,
    /// The text after the length is no hex, or of odd length.
    #[error("what follows the length is no hex")]
    Hex,
    /// The bytes are not a whole number of blocks.
    #[error("{0} bytes are not a whole number of 8-byte blocks")]
    Blocks(usize),
    /// The length is beyond what the blocks hold.
    #[error("length {length} is beyond the {held} bytes of the blocks")]
    Length {
        /// The length that the line gives.
        length: usize,
        /// How many bytes the blocks hold.
        held: usize,
    },
}

/// A cipher that both ends agreed on.
#[derive(Clone)]
pub struct Cipher {
    idea: Idea,
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher")
    }
}

impl Cipher {
    /// The cipher of a link: `called` and `caller` are host ids, `buildkey` is what `ekey` was
    /// answered with.
    pub fn agree(called: &HostId, caller: &HostId, buildkey: &[u8]) -> Cipher {
        Cipher { idea: Idea::new(&Array(key(called, caller, buildkey))) }
    }

    /// Appends `enc:<length>:<hex>` for `text` to `out`, without a newline.
    pub fn seal(&self, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(format!("enc:{}:", text.len()).as_bytes());
        let blocks = text.len() / BLOCK + 1;
        let from = out.len();
        out.resize(from + blocks * BLOCK * 2, 0);
        for (number, hex_block) in out[from..].chunks_exact_mut(BLOCK * 2).enumerate() {
            let mut block = [b' '; BLOCK];
            let plain = &text[number * BLOCK..text.len().min((number + 1) * BLOCK)];
            block[..plain.len()].copy_from_slice(plain);
            let mut block = Array(block);
            self.idea.encrypt_block(&mut block);
            hex::encode_to_slice(&block[..], hex_block)
                .unwrap_or_else(|_| debug_assert!(false, "sizes agree"));
        }
    }

    /// The text of a line `enc:<length>:<hex>`.
    ///
    /// # Errors
    /// A line of another form.
    pub fn open(&self, line: &[u8]) -> Result<Vec<u8>, CipherError> {
        let rest = line.strip_prefix(b"enc:").ok_or(CipherError::Form)?;
        let colon = rest.iter().position(|&c| c == b':').ok_or(CipherError::Form)?;
        let (digits, hex_text) = (&rest[..colon], &rest[colon + 1..]);
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(CipherError::Form);
        }
        let length =
            std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
        let mut bytes = hex::decode(hex_text).map_err(|_| CipherError::Hex)?;
        let held = bytes.len();
        if held % BLOCK != 0 {
            return Err(CipherError::Blocks(held));
        }
        if length > held {
            return Err(CipherError::Length { length, held });
        }
        for block in bytes.chunks_exact_mut(BLOCK) {
            let mut copy = Array([0; BLOCK]);
            copy.copy_from_slice(block);
            self.idea.decrypt_block(&mut copy);
            block.copy_from_slice(&copy);
        }
        bytes.truncate(length);
        Ok(bytes)
    }
}

fn key(called: &HostId, caller: &HostId, buildkey: &[u8]) -> [u8; 16] {
    let ids = format!("{called}{caller}").to_ascii_uppercase().into_bytes();
    let ids: Vec<u8> = ids
        .into_iter()
        .map(|c| match c {
            b'G'..=b'P' => c - b'G' + b'0',
            b'Q'..=b'Z' => c - b'Q' + b'0',
            other => other,
        })
        .collect();
    let unit = [&ids, buildkey].concat();
    let text = unit.repeat(3);
    let mut key = [0; 16];
    for (at, &c) in text.iter().take(32).enumerate() {
        let nibble = if c.is_ascii_alphabetic() { c.wrapping_add(9) & 15 } else { c & 15 };
        key[at / 2] |= if at % 2 == 0 { nibble << 4 } else { nibble };
    }
    key
}

/// A new buildkey: 32 upper-case hex digits, so that no later part of the key text (nor the newline
/// that the original leaves at the end of the line it reads) comes into the key even with the
/// shortest ids.
pub fn make_buildkey(random: &mut fastrand::Rng) -> String {
    format!("{:032X}", random.u128(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> HostId {
        HostId::new(text).unwrap()
    }

    /// Called, caller, buildkey, key, and texts with what they are enciphered to: seen on the wire
    /// of the original.
    type Vector =
        (&'static str, &'static str, &'static str, &'static str, &'static [(&'static [u8], &'static str)]);
    const VECTORS: &[Vector] = &[
        (
            "msul1",
            "msua1",
            "41342A79EAFBE8FC990EFC7D2928",
            "62451624a141342a79eafbe8fc990efc",
            &[
                (b"", "enc:0:220cf50e55d8be59"),
                (b"ping", "enc:4:e9cf4008a9e0407d"),
                (b"12345678", "enc:8:4ef0d1948ba8fd93220cf50e55d8be59"),
                (b"log:secret delayed", "enc:18:6f5e9db1c3c85cd30b5859a52d41f4ac9f3b375ab2d09744"),
            ],
        ),
        (
            "huba20",
            "hubl14",
            "90317B79EB0F1AFF2D3C9E84512",
            "14ba2014b51490317b79eb0f1aff2d3c",
            &[(b"log:hello", "enc:9:25bd24d113785b88a03c355989ef3158")],
        ),
        (
            "a",
            "b",
            "7",
            "ab7ab7ab700000000000000000000000",
            &[(b"log:hello", "enc:9:57a0b04ad20e51bb164dd74e065b8d99")],
        ),
        (
            "north-1",
            "south_2",
            "12345ABCDEF67890ABCDEF",
            "78131d128431f212345abcdef67890ab",
            &[(b"caf\xc3\xa9:\x00\xff", "enc:8:540a286131c548b35c9941989cf0f713")],
        ),
    ];

    #[test]
    fn the_vectors_of_the_original_hold_both_ways() {
        let mut seen = 0;
        for (called, caller, buildkey, expected_key, texts) in VECTORS {
            let (called, caller) = (id(called), id(caller));
            assert_eq!(hex::encode(key(&called, &caller, buildkey.as_bytes())), *expected_key);
            let cipher = Cipher::agree(&called, &caller, buildkey.as_bytes());
            for (text, line) in *texts {
                let mut sealed = Vec::new();
                cipher.seal(text, &mut sealed);
                assert_eq!(String::from_utf8_lossy(&sealed), *line);
                assert_eq!(cipher.open(line.as_bytes()).unwrap(), *text);
                let digits = line.rfind(':').unwrap() + 1;
                let upper = format!("{}{}", &line[..digits], line[digits..].to_uppercase());
                assert_eq!(cipher.open(upper.as_bytes()).unwrap(), *text);
                seen += 1;
            }
        }
        assert_eq!(seen, 7);
    }

    #[test]
    fn every_length_comes_back_as_it_went() {
        let cipher = Cipher::agree(&id("msul1"), &id("msua1"), b"0123456789ABCDEF");
        for length in 0..100 {
            let text: Vec<u8> = (0..length).map(|at| (at * 37 + length) as u8).collect();
            let mut sealed = Vec::new();
            cipher.seal(&text, &mut sealed);
            assert_eq!(sealed.len(), format!("enc:{length}:").len() + (length / 8 + 1) * 16);
            assert_eq!(cipher.open(&sealed).unwrap(), text);
        }
    }

    #[test]
    fn a_bad_line_is_refused_with_its_reason_and_never_panics() {
        let cipher = Cipher::agree(&id("a"), &id("b"), b"7");
        let block = "57a0b04ad20e51bb";
        for (line, error) in [
            ("ping".to_owned(), CipherError::Form),
            ("enc:".to_owned(), CipherError::Form),
            ("enc:4".to_owned(), CipherError::Form),
            (format!("enc::{block}"), CipherError::Form),
            (format!("enc:-1:{block}"), CipherError::Form),
            (format!("enc:+4:{block}"), CipherError::Form),
            (format!("enc:4:{}", &block[1..]), CipherError::Hex),
            (format!("enc:4:{}zz", &block[2..]), CipherError::Hex),
            (format!("enc:4:{}", &block[2..]), CipherError::Blocks(7)),
            (format!("enc:9:{block}"), CipherError::Length { length: 9, held: 8 }),
            (
                format!("enc:99999999999999999999999:{block}"),
                CipherError::Length { length: usize::MAX, held: 8 },
            ),
            ("enc:1:".to_owned(), CipherError::Length { length: 1, held: 0 }),
        ] {
            assert_eq!(cipher.open(line.as_bytes()), Err(error), "{line}");
        }
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..10_000 {
            let mut line = b"enc:8:".to_vec();
            line.extend((0..random.usize(0..40)).map(|_| random.u8(..)));
            let _ = cipher.open(&line);
        }
    }

    #[test]
    fn a_buildkey_is_long_enough_for_the_shortest_ids() {
        let mut random = fastrand::Rng::with_seed(1);
        let first = make_buildkey(&mut random);
        assert_eq!(first.len(), 32);
        assert!(first.bytes().all(|c| c.is_ascii_digit() || c.is_ascii_uppercase()));
        assert_ne!(first, make_buildkey(&mut random));
    }
}
