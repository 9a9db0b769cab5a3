//! Chunks to whole messages.
//!
//! A message in one frame, as most are, is passed through without a copy. Chunks of different
//! messages may be interleaved; those of one come in order.
//!
//! Memory: the flow-control window bounds the bytes of all unfinished messages together (who holds
//! the link sees to that with [`super::Credit`] before a frame comes here), `max_line` bounds each,
//! and [`MAX_UNFINISHED`] their number. What the chunks of a message took of the window is kept
//! with it, and comes out with it, to be given back. A message that grows too long is said once;
//! what was kept of it is dropped, and the rest is skipped as it comes.

use crate::secure::{CriticalHead, FrameError, Kind, MAX_UNFINISHED, cost};
use base::line::extend;
use std::borrow::Cow;
use std::collections::HashMap;

/// What a chunk led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken<'a> {
    /// More chunks of this message are to come.
    Unfinished,
    /// The message is whole. What came in several chunks is the taker's: nothing of it is kept
    /// here.
    Whole {
        /// Of a critical request: what stood before it.
        head: Option<CriticalHead>,
        /// What its chunks said, put together.
        text: Cow<'a, [u8]>,
        /// What all its chunks took of the window.
        cost: usize,
    },
    /// The message is longer than `max_line`; said once.
    TooLong {
        /// Of a critical request: what stood before it.
        head: Option<CriticalHead>,
        /// Whether chunks of it are still to come, which will be [`Taken::Skipped`].
        more: bool,
        /// What its chunks have taken of the window so far.
        cost: usize,
    },
    /// A chunk of a message that was too long.
    Skipped {
        /// What it took of the window.
        cost: usize,
    },
}

/// The unfinished messages of one direction of a link.
#[derive(Debug)]
pub struct Assembly {
    max_line: usize,
    unfinished: HashMap<u64, Unfinished>,
    /// How many of them are kept, and not skipped.
    kept: usize,
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
    /// What its chunks took of the window.
    cost: usize,
}

impl Assembly {
    /// For messages of up to `max_line` bytes, the head of a critical one not counted.
    pub fn new(max_line: usize) -> Assembly {
        Assembly { max_line, unfinished: HashMap::new(), kept: 0 }
    }

    /// How many messages are begun and not ended.
    pub fn unfinished(&self) -> usize {
        self.unfinished.len()
    }

    /// How many of them are kept: those that were too long are not.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// Whether a message of this id is begun and not ended.
    pub fn has_begun(&self, id: u64) -> bool {
        self.unfinished.contains_key(&id)
    }

    /// The kind of a message of which something is kept.
    pub fn kept_kind(&self, id: u64) -> Option<Kind> {
        self.unfinished.get(&id).filter(|unfinished| unfinished.kept.is_some()).map(|it| it.kind)
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

    /// Drops what is there of a message that nobody wants any more; what that took of the window,
    /// if anything was kept. No chunk of it may follow.
    pub fn forget(&mut self, id: u64) -> Option<usize> {
        let kept = self.unfinished.remove(&id)?.kept?;
        self.kept -= 1;
        Some(kept.cost)
    }

    fn take<'a>(&mut self, kind: Kind, id: u64, more: bool, body: &'a [u8]) -> Result<Taken<'a>, FrameError> {
        match self.unfinished.get(&id) {
            None => self.begin(kind, id, more, body),
            Some(unfinished) if unfinished.kind != kind => Err(FrameError::KindChanged(id)),
            Some(_) => Ok(self.go_on(id, more, body)),
        }
    }

    /// The first chunk of a message.
    fn begin<'a>(
        &mut self,
        kind: Kind,
        id: u64,
        more: bool,
        body: &'a [u8],
    ) -> Result<Taken<'a>, FrameError> {
        let (head, text) = if kind == Kind::Critical {
            let (head, text) = CriticalHead::split(body)?;
            (Some(head), text)
        } else {
            (None, body)
        };
        if more && self.unfinished.len() == MAX_UNFINISHED {
            return Err(FrameError::TooManyUnfinished { id });
        }
        let cost = cost(body.len());
        if text.len() > self.max_line {
            if more {
                self.unfinished.insert(id, Unfinished { kind, kept: None });
            }
            return Ok(Taken::TooLong { head, more, cost });
        }
        if !more {
            return Ok(Taken::Whole { head, text: Cow::Borrowed(text), cost });
        }
        // No room ahead: it would cost more than the window counts where thousands are begun.
        let kept = Some(Kept { head, text: text.to_vec(), cost });
        self.unfinished.insert(id, Unfinished { kind, kept });
        self.kept += 1;
        Ok(Taken::Unfinished)
    }

    /// Another chunk of a message that was begun.
    fn go_on<'a>(&mut self, id: u64, more: bool, body: &[u8]) -> Taken<'a> {
        let cost = cost(body.len());
        let Some(kept) = self.unfinished.get_mut(&id).and_then(|unfinished| unfinished.kept.as_mut()) else {
            if !more {
                self.unfinished.remove(&id);
            }
            return Taken::Skipped { cost };
        };
        let cost = cost + kept.cost;
        let too_long = kept.text.len() + body.len() > self.max_line;
        if !too_long {
            extend(&mut kept.text, body);
            kept.cost = cost;
            if more {
                return Taken::Unfinished;
            }
        }
        self.kept -= 1;
        let (head, text) = (kept.head.take(), std::mem::take(&mut kept.text));
        match self.unfinished.get_mut(&id) {
            Some(unfinished) if more => unfinished.kept = None,
            Some(_) | None => drop(self.unfinished.remove(&id)),
        }
        match too_long {
            true => Taken::TooLong { head, more, cost },
            false => Taken::Whole { head, text: Cow::Owned(text), cost },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secure::MAX_BODY;

    fn head() -> CriticalHead {
        CriticalHead { sequence: 7, settled: 3, key: None }
    }

    #[test]
    fn a_message_in_one_frame_is_passed_through_and_keeps_nothing() {
        let mut assembly = Assembly::new(10);
        let text = b"log:x".to_vec();
        let Ok(Taken::Whole { head: None, text: whole, cost: 69 }) = assembly.request(1, false, &text) else {
            panic!("not whole")
        };
        assert_eq!(whole.as_ptr(), text.as_ptr(), "no copy");
        let mut critical = Vec::new();
        head().put(&mut critical);
        critical.extend_from_slice(b"log:y");
        let whole = Taken::Whole { head: Some(head()), text: b"log:y"[..].into(), cost: 64 + 17 + 5 };
        assert_eq!(assembly.critical(2, false, &critical), Ok(whole));
        assert_eq!(assembly.unfinished(), 0);
    }

    #[test]
    fn interleaved_chunks_become_the_messages_that_they_were() {
        let mut assembly = Assembly::new(100);
        let mut first = Vec::new();
        head().put(&mut first);
        assert_eq!(assembly.critical(1, true, &[&first[..], b"aa"].concat()), Ok(Taken::Unfinished));
        assert_eq!(assembly.request(2, true, b"xx"), Ok(Taken::Unfinished));
        assert_eq!(
            assembly.request(3, false, b"short"),
            Ok(Taken::Whole { head: None, text: b"short"[..].into(), cost: 69 })
        );
        assert!(assembly.has_begun(1) && assembly.has_begun(2) && !assembly.has_begun(3));
        assert_eq!(assembly.unfinished(), 2);
        let kinds = [1, 2, 3].map(|id| assembly.kept_kind(id));
        assert_eq!(kinds, [Some(Kind::Critical), Some(Kind::Request), None]);
        assert_eq!(assembly.critical(1, true, b"bb"), Ok(Taken::Unfinished));
        let whole = Taken::Whole { head: None, text: b"xx"[..].into(), cost: 64 + 2 + 64 };
        assert_eq!(assembly.request(2, false, b""), Ok(whole));
        let whole = Taken::Whole { head: Some(head()), text: b"aabbcc"[..].into(), cost: 3 * 64 + 17 + 6 };
        assert_eq!(assembly.critical(1, false, b"cc"), Ok(whole));
        assert_eq!(assembly.unfinished(), 0);
    }

    #[test]
    fn a_message_at_the_limit_passes_and_one_byte_more_is_said_once_and_skipped() {
        for chunk in 1..12 {
            for length in 0..20_usize {
                let mut assembly = Assembly::new(8);
                let text = vec![b'x'; length];
                let mut chunks: Vec<&[u8]> = text.chunks(chunk).collect();
                if chunks.is_empty() {
                    chunks.push(b"");
                }
                let (mut whole, mut too_long) = (0, 0);
                for (place, part) in chunks.iter().enumerate() {
                    match assembly.answer(9, place + 1 < chunks.len(), part).unwrap() {
                        Taken::Whole { text: found, .. } => {
                            whole += 1;
                            assert_eq!(found, text);
                        }
                        Taken::TooLong { more, cost, .. } => {
                            assert_eq!(cost, (place + 1) * 64 + (length.min((place + 1) * chunk)));
                            too_long += 1;
                            assert_eq!(more, place + 1 < chunks.len());
                        }
                        Taken::Unfinished => assert_eq!(too_long, 0),
                        Taken::Skipped { .. } => assert_eq!(too_long, 1),
                    }
                }
                let expected = if length <= 8 { (1, 0) } else { (0, 1) };
                assert_eq!((whole, too_long), expected, "{length} in chunks of {chunk}");
                assert_eq!(assembly.unfinished(), 0);
            }
        }
    }

    #[test]
    fn an_endless_message_is_not_kept_in_memory() {
        let mut assembly = Assembly::new(100_000);
        let mut said = 0;
        for _ in 0..1000 {
            let taken = assembly.request(1, true, &[b'x'; MAX_BODY]).unwrap();
            said += usize::from(matches!(taken, Taken::TooLong { head: None, more: true, .. }));
        }
        assert_eq!(said, 1);
        assert!(assembly.unfinished[&1].kept.is_none() && assembly.kept_kind(1).is_none());
        assert_eq!(assembly.request(1, false, b"end"), Ok(Taken::Skipped { cost: 64 + 3 }));
        assert_eq!((assembly.forget(1), assembly.kept(), assembly.unfinished()), (None, 0, 0));
    }

    #[test]
    fn what_no_honest_sender_does_is_an_error() {
        let mut assembly = Assembly::new(100);
        assert_eq!(assembly.request(1, true, b"a"), Ok(Taken::Unfinished));
        assert_eq!(assembly.answer(1, false, b"b"), Err(FrameError::KindChanged(1)));
        assert_eq!(assembly.critical(2, true, b"too short"), Err(FrameError::ShortHead { length: 9 }));
        for id in 2..=MAX_UNFINISHED as u64 {
            assert_eq!(assembly.request(id, true, b""), Ok(Taken::Unfinished));
        }
        let one_more = u64::MAX;
        assert_eq!(
            assembly.request(one_more, true, b""),
            Err(FrameError::TooManyUnfinished { id: one_more })
        );
        assert!(assembly.request(one_more, false, b"whole").is_ok(), "what is whole at once takes no place");
        assert_eq!((assembly.kept(), assembly.forget(5)), (MAX_UNFINISHED, Some(64)));
        assert_eq!(assembly.kept(), MAX_UNFINISHED - 1);
        assert_eq!(assembly.request(one_more, true, b""), Ok(Taken::Unfinished));
    }
}
