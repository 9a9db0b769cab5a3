//! The classic cipher once more, from `docs/wire.md` and for these tests only.

use idea::Idea;
use idea::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

/// The cipher of one link.
pub struct Cipher(Idea);

impl Cipher {
    /// From the ids of both ends and the buildkey.
    pub fn new(called: &str, caller: &str, buildkey: &str) -> Cipher {
        let ids: String = format!("{called}{caller}")
            .to_uppercase()
            .chars()
            .map(|c| match c {
                'G'..='P' => (c as u8 - b'G' + b'0') as char,
                'Q'..='Z' => (c as u8 - b'Q' + b'0') as char,
                other => other,
            })
            .collect();
        let text: Vec<u8> = format!("{ids}{buildkey}").repeat(3).bytes().take(32).collect();
        let nibble = |at: usize| match text.get(at) {
            Some(c) if c.is_ascii_alphabetic() => c.wrapping_add(9) & 15,
            Some(c) => c & 15,
            None => 0,
        };
        let key: [u8; 16] = std::array::from_fn(|at| nibble(2 * at) << 4 | nibble(2 * at + 1));
        Cipher(Idea::new(&Array(key)))
    }

    /// The line for `text`.
    pub fn seal(&self, text: &[u8]) -> Vec<u8> {
        let mut padded = text.to_vec();
        padded.resize((text.len() / 8 + 1) * 8, b' ');
        let mut line = format!("enc:{}:", text.len());
        for chunk in padded.chunks_exact(8) {
            let mut block = Array(<[u8; 8]>::try_from(chunk).expect("a chunk of eight"));
            self.0.encrypt_block(&mut block);
            line.push_str(&hex::encode(&block[..]));
        }
        line.into_bytes()
    }

    /// The text of `line`, which must be a well-formed `enc:` line.
    pub fn open(&self, line: &[u8]) -> Vec<u8> {
        let line = std::str::from_utf8(line).expect("an enc: line is ASCII");
        let mut parts = line.splitn(3, ':');
        assert_eq!(parts.next(), Some("enc"), "{line}");
        let length: usize = parts.next().expect("a length").parse().expect("a length");
        let mut text = hex::decode(parts.next().expect("hex")).expect("hex");
        assert_eq!(text.len(), (length / 8 + 1) * 8, "{line}");
        for chunk in text.chunks_exact_mut(8) {
            let mut block = Array(<[u8; 8]>::try_from(&*chunk).expect("a chunk of eight"));
            self.0.decrypt_block(&mut block);
            chunk.copy_from_slice(&block);
        }
        text.truncate(length);
        text
    }
}

#[test]
fn the_tests_own_cipher_makes_the_lines_that_the_original_made() {
    let cipher = Cipher::new("msul1", "msua1", "41342A79EAFBE8FC990EFC7D2928");
    for (text, line) in [
        ("", "enc:0:220cf50e55d8be59"),
        ("ping", "enc:4:e9cf4008a9e0407d"),
        ("12345678", "enc:8:4ef0d1948ba8fd93220cf50e55d8be59"),
        ("log:secret delayed", "enc:18:6f5e9db1c3c85cd30b5859a52d41f4ac9f3b375ab2d09744"),
    ] {
        assert_eq!(cipher.seal(text.as_bytes()), line.as_bytes());
        assert_eq!(cipher.open(line.as_bytes()), text.as_bytes());
    }
    let odd = Cipher::new("north-1", "south_2", "12345ABCDEF67890ABCDEF");
    assert_eq!(odd.seal(b"caf\xc3\xa9:\x00\xff"), b"enc:8:540a286131c548b35c9941989cf0f713");
    let short = Cipher::new("a", "b", "7");
    assert_eq!(short.seal(b"log:hello"), b"enc:9:57a0b04ad20e51bb164dd74e065b8d99");
}
