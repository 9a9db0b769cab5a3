//! What stands before the text of a critical request, so that it runs once.
//!
//! ```text
//! 0   u64  sequence    with the caller's id and spool epoch it names the message for ever
//! 8   u64  settled     every sequence below it is settled: its answer need not be kept any longer
//! 16  u8   length of the client's key; 0: none
//! 17  the client's key
//! ```
//!
//! Fails on a head that does not fit its chunk and on a key that cannot be one.

use super::frame::FrameError;
use base::Key;

/// The head of a critical request; its first chunk begins with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CriticalHead {
    /// The message's place in the caller's spool epoch.
    pub sequence: u64,
    /// Every sequence below this one is settled.
    pub settled: u64,
    /// The client's own key.
    pub key: Option<Key>,
}

impl CriticalHead {
    /// Bytes of a head without a key.
    const FIXED: usize = 17;

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        Self::FIXED + self.key.as_ref().map_or(0, |key| key.as_str().len())
    }

    /// Takes the head off the first chunk of a critical request; the rest is the request's text.
    ///
    /// # Errors
    /// The chunk is too short for it, or its key is none.
    pub fn split(body: &[u8]) -> Result<(CriticalHead, &[u8]), FrameError> {
        let short = FrameError::ShortHead { length: body.len() };
        let (sequence, rest) = body.split_first_chunk::<8>().ok_or(short.clone())?;
        let (settled, rest) = rest.split_first_chunk::<8>().ok_or(short.clone())?;
        let (&length, rest) = rest.split_first().ok_or(short.clone())?;
        let (key, request) = rest.split_at_checked(usize::from(length)).ok_or(short)?;
        let key = match key {
            [] => None,
            bytes => Some(Key::new(bytes).ok_or(FrameError::BadKey)?),
        };
        let head = CriticalHead {
            sequence: u64::from_be_bytes(*sequence),
            settled: u64::from_be_bytes(*settled),
            key,
        };
        Ok((head, request))
    }

    /// Appends the head to `out`.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let key = self.key.as_ref().map_or("", Key::as_str);
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.settled.to_be_bytes());
        // `Key::new` lets nothing longer than 64 bytes through.
        out.push(key.len() as u8);
        out.extend_from_slice(key.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_comes_back_as_it_was_put_and_every_cut_of_it_is_an_error() {
        for key in [None, Key::new(b"order-17"), Key::new(&[b'x'; 64])] {
            let head = CriticalHead { sequence: 42, settled: u64::MAX, key };
            let mut bytes = Vec::new();
            head.put(&mut bytes);
            assert_eq!(bytes.len(), head.size());
            for cut in 0..bytes.len() {
                assert_eq!(CriticalHead::split(&bytes[..cut]), Err(FrameError::ShortHead { length: cut }));
            }
            bytes.extend_from_slice(b"log:x");
            assert_eq!(CriticalHead::split(&bytes), Ok((head, &b"log:x"[..])));
        }
        let mut bad = vec![0; 16];
        bad.extend_from_slice(b"\x02a ");
        assert_eq!(CriticalHead::split(&bad), Err(FrameError::BadKey));
    }
}
