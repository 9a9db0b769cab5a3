//! Chunks to whole messages.
//!
//! A message in one frame, as most are, is passed through without a copy. Chunks of different messages may be
//! interleaved; those of one come in order.
//!
//! Memory: the flow-control window bounds the bytes of all unfinished messages together (who holds the link sees to
//! that before a frame comes here), `max_line` bounds each, and [`MAX_UNFINISHED`] bounds their number. A message
//! that grows too long is said once; what was kept of it is dropped, and the rest is skipped as it comes.

use super::CriticalHead;
use super::frame::{FrameError, Kind};
use crate::wire::line::extend;
use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Most messages begun and not ended. Only messages longer than a frame are ever unfinished, so a sender that begins
/// none before the window holds all of it comes here with a window of more than 64 MiB at the earliest. One more is
/// an error that ends the link.
pub const MAX_UNFINISHED: usize = 4096;

/// What a chunk led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken<'a> {
    /// More chunks of this message are to come.
    Unfinished,
    /// The message is whole. What came in several chunks is the taker's: nothing of it is kept here.
    Whole {
        /// Of a critical request: what stood before it.
        head: Option<CriticalHead>,
        /// Its text.
        text: Cow<'a, [u8]>,
    },
    /// The message is longer than `max_line`; said once.
    TooLong {
        /// Of a critical request: what stood before it.
        head: Option<CriticalHead>,
        /// Whether chunks of it are still to come, which will be [`Taken::Skipped`].
        more: bool,
    },
    /// A chunk of a message that was too long.
    Skipped,
}

/// The unfinished messages of one direction of a link.
#[derive(Debug)]
pub struct Assembler {
    max_line: usize,
    unfinished: HashMap<u64, Unfinished>,
}

#[derive(Debug)]
struct Unfinished {
    kind: Kind,
    /// `None`: it was too long, and the rest is skipped.
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    head: Option<CriticalHead>,
    text: Vec<u8>,
}

impl Assembler {
    /// For messages of up to `max_line` bytes, the head of a critical one not counted.
    pub fn new(max_line: usize) -> Assembler {
        Assembler { max_line, unfinished: HashMap::new() }
    }

    /// How many messages are begun and not ended.
    pub fn unfinished(&self) -> usize {
        self.unfinished.len()
    }

    /// Whether a message of this id is begun and not ended.
    pub fn has_begun(&self, id: u64) -> bool {
        self.unfinished.contains_key(&id)
    }

    /// Takes a chunk of a request.
    ///
    /// # Errors
    /// The link cannot go on.
    pub fn request<'a>(&mut self, id: u64, more: bool, body: &'a [u8]) -> Result<Taken<'a>, FrameError> {
        self.take(Kind::Request, id, more, body)
    }

    /// Takes a chunk of a critical request.
    ///
    /// # Errors
    /// The link cannot go on.
    pub fn critical<'a>(&mut self, id: u64, more: bool, body: &'a [u8]) -> Result<Taken<'a>, FrameError> {
        self.take(Kind::Critical, id, more, body)
    }

    /// Takes a chunk of an answer.
    ///
    /// # Errors
    /// The link cannot go on.
    pub fn answer<'a>(&mut self, id: u64, more: bool, body: &'a [u8]) -> Result<Taken<'a>, FrameError> {
        self.take(Kind::Answer, id, more, body)
    }

    /// Drops what is there of a message that its sender has given up, and says whether there was any. No chunk of it
    /// may follow.
    pub fn forget(&mut self, id: u64) -> bool {
        self.unfinished.remove(&id).is_some()
    }

    fn take<'a>(&mut self, kind: Kind, id: u64, more: bool, body: &'a [u8]) -> Result<Taken<'a>, FrameError> {
        let begun = self.unfinished.len();
        match self.unfinished.entry(id) {
            Entry::Vacant(place) => {
                let (head, text) = if kind == Kind::Critical {
                    let (head, text) = CriticalHead::split(body)?;
                    (Some(head), text)
                } else {
                    (None, body)
                };
                if more && begun == MAX_UNFINISHED {
                    return Err(FrameError::TooManyUnfinished { id });
                }
                if text.len() > self.max_line {
                    if more {
                        place.insert(Unfinished { kind, kept: None });
                    }
                    return Ok(Taken::TooLong { head, more });
                }
                if more {
                    // No room ahead: it would cost more than the window counts where thousands are begun.
                    place.insert(Unfinished { kind, kept: Some(Kept { head, text: text.to_vec() }) });
                    return Ok(Taken::Unfinished);
                }
                Ok(Taken::Whole { head, text: Cow::Borrowed(text) })
            }
            Entry::Occupied(place) if place.get().kind != kind => Err(FrameError::KindChanged(id)),
            Entry::Occupied(mut place) => {
                let Some(kept) = &mut place.get_mut().kept else {
                    if !more {
                        place.remove();
                    }
                    return Ok(Taken::Skipped);
                };
                if kept.text.len() + body.len() > self.max_line {
                    let head = kept.head.take();
                    if more {
                        place.get_mut().kept = None;
                    } else {
                        place.remove();
                    }
                    return Ok(Taken::TooLong { head, more });
                }
                extend(&mut kept.text, body);
                if more {
                    return Ok(Taken::Unfinished);
                }
                let head = kept.head.take();
                let text = std::mem::take(&mut kept.text);
                place.remove();
                Ok(Taken::Whole { head, text: Cow::Owned(text) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::secure::MAX_BODY;

    fn head() -> CriticalHead {
        CriticalHead { sequence: 7, settled: 3, key: None }
    }

    #[test]
    fn a_message_in_one_frame_is_passed_through_and_keeps_nothing() {
        let mut assembler = Assembler::new(10);
        let text = b"log:x".to_vec();
        let Ok(Taken::Whole { head: None, text: whole }) = assembler.request(1, false, &text) else {
            panic!("not whole")
        };
        assert_eq!(whole.as_ptr(), text.as_ptr(), "no copy");
        let mut critical = Vec::new();
        head().put(&mut critical);
        critical.extend_from_slice(b"log:y");
        let whole = Taken::Whole { head: Some(head()), text: b"log:y"[..].into() };
        assert_eq!(assembler.critical(2, false, &critical), Ok(whole));
        assert_eq!(assembler.unfinished(), 0);
    }

    #[test]
    fn interleaved_chunks_become_the_messages_that_they_were() {
        let mut assembler = Assembler::new(100);
        let mut first = Vec::new();
        head().put(&mut first);
        assert_eq!(assembler.critical(1, true, &[&first[..], b"aa"].concat()), Ok(Taken::Unfinished));
        assert_eq!(assembler.request(2, true, b"xx"), Ok(Taken::Unfinished));
        assert_eq!(
            assembler.request(3, false, b"short"),
            Ok(Taken::Whole { head: None, text: b"short"[..].into() })
        );
        assert!(assembler.has_begun(1) && assembler.has_begun(2) && !assembler.has_begun(3));
        assert_eq!(assembler.unfinished(), 2);
        assert_eq!(assembler.critical(1, true, b"bb"), Ok(Taken::Unfinished));
        assert_eq!(assembler.request(2, false, b""), Ok(Taken::Whole { head: None, text: b"xx"[..].into() }));
        let whole = Taken::Whole { head: Some(head()), text: b"aabbcc"[..].into() };
        assert_eq!(assembler.critical(1, false, b"cc"), Ok(whole));
        assert_eq!(assembler.unfinished(), 0);
    }

    #[test]
    fn a_message_at_the_limit_passes_and_one_byte_more_is_said_once_and_skipped() {
        for chunk in 1..12 {
            for length in 0..20_usize {
                let mut assembler = Assembler::new(8);
                let text = vec![b'x'; length];
                let mut chunks: Vec<&[u8]> = text.chunks(chunk).collect();
                if chunks.is_empty() {
                    chunks.push(b"");
                }
                let (mut whole, mut too_long) = (0, 0);
                for (place, part) in chunks.iter().enumerate() {
                    match assembler.answer(9, place + 1 < chunks.len(), part).unwrap() {
                        Taken::Whole { text: found, .. } => {
                            whole += 1;
                            assert_eq!(found, text);
                        }
                        Taken::TooLong { more, .. } => {
                            too_long += 1;
                            assert_eq!(more, place + 1 < chunks.len());
                        }
                        Taken::Unfinished => assert_eq!(too_long, 0),
                        Taken::Skipped => assert_eq!(too_long, 1),
                    }
                }
                let expected = if length <= 8 { (1, 0) } else { (0, 1) };
                assert_eq!((whole, too_long), expected, "{length} in chunks of {chunk}");
                assert_eq!(assembler.unfinished(), 0);
            }
        }
    }

    #[test]
    fn an_endless_message_is_not_kept_in_memory() {
        let mut assembler = Assembler::new(100_000);
        let mut said = 0;
        for _ in 0..1000 {
            let taken = assembler.request(1, true, &[b'x'; MAX_BODY]).unwrap();
            said += usize::from(matches!(taken, Taken::TooLong { head: None, more: true }));
        }
        assert_eq!(said, 1);
        assert!(assembler.unfinished[&1].kept.is_none());
        assert_eq!(assembler.request(1, false, b"end"), Ok(Taken::Skipped));
        assert!(!assembler.forget(1));
    }

    #[test]
    fn what_no_honest_sender_does_is_an_error() {
        let mut assembler = Assembler::new(100);
        assert_eq!(assembler.request(1, true, b"a"), Ok(Taken::Unfinished));
        assert_eq!(assembler.answer(1, false, b"b"), Err(FrameError::KindChanged(1)));
        assert_eq!(assembler.critical(2, true, b"too short"), Err(FrameError::ShortHead { length: 9 }));
        for id in 2..=MAX_UNFINISHED as u64 {
            assert_eq!(assembler.request(id, true, b""), Ok(Taken::Unfinished));
        }
        let one_more = u64::MAX;
        assert_eq!(
            assembler.request(one_more, true, b""),
            Err(FrameError::TooManyUnfinished { id: one_more })
        );
        assert!(assembler.request(one_more, false, b"whole").is_ok(), "what is whole at once takes no place");
        assert!(assembler.forget(5));
        assert_eq!(assembler.request(one_more, true, b""), Ok(Taken::Unfinished));
    }
}
