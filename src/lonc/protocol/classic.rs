//! A conversation on the classic wire: the opening dialogue, then a line for a line.

use super::{Heard, Message};
use base::HostId;
use base::line::{Line, LineReader, Outgoing};
use base::request;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use wire::classic::{Cipher, Opening, Progress};

/// See the module.
#[derive(Debug)]
pub struct Classic {
    reader: LineReader,
    stage: Stage,
    /// For each request in flight, whether it was sent enciphered, so that its answer may be. The
    /// broker bounds it.
    enciphered: VecDeque<bool>,
}

#[derive(Debug)]
enum Stage {
    Opening(Opening),
    Open(Cipher),
}

impl Classic {
    /// Begins the opening dialogue.
    pub fn begin(called: &HostId, caller: &HostId, max_line: usize, out: &mut Outgoing) -> Classic {
        Classic {
            // An enciphered answer takes two hex digits a byte.
            reader: LineReader::new(2 * max_line + 64),
            stage: Stage::Opening(Opening::begin(called.clone(), caller.clone(), out)),
            enciphered: VecDeque::new(),
        }
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.reader.push(bytes);
    }

    pub(super) fn hear(
        &mut self,
        out: &mut Outgoing,
        mut tell: impl FnMut(Heard<'_>) -> ControlFlow<()>,
    ) -> Result<(), String> {
        while let Some(line) = self.reader.next_line() {
            let heard = match &mut self.stage {
                Stage::Opening(opening) => {
                    let Line::Whole(line) = line else {
                        return Err(format!("an endless line in answer to {}", opening.step()));
                    };
                    match opening.answer(line, out).map_err(|error| error.to_string())? {
                        Progress::Next { warning } => Heard::Progress { odd: warning },
                        Progress::Done(cipher) => {
                            self.stage = Stage::Open(cipher);
                            Heard::Opened
                        }
                    }
                }
                Stage::Open(cipher) => {
                    let Some(enciphered) = self.enciphered.pop_front() else {
                        // From here on no answer could be given to its request with certainty.
                        return Err("the peer sent an answer to no request".to_owned());
                    };
                    let text = match line {
                        Line::TooLong => Cow::Borrowed(&b"error:the answer is longer than max_line"[..]),
                        Line::Whole(line) if enciphered => decipher(line, cipher),
                        Line::Whole(line) => Cow::Borrowed(line),
                    };
                    Heard::Answer { number: None, text, broken: false }
                }
            };
            if tell(heard).is_break() {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn send(&mut self, message: Message<'_>, out: &mut Outgoing) {
        let Stage::Open(cipher) = &self.stage else {
            debug_assert!(false, "the link is not open");
            return;
        };
        let payload = request::payload(message.text);
        if payload.encrypt {
            cipher.seal(payload.bytes, out.tail());
            out.tail().push(b'\n');
        } else {
            out.push_line(payload.bytes);
        }
        self.enciphered.push_back(payload.encrypt);
    }

    pub(super) fn waits_for(&self) -> String {
        match &self.stage {
            Stage::Opening(opening) => format!("the answer to {}", opening.step()),
            Stage::Open(_) => "nothing".to_owned(),
        }
    }
}

/// The answer to an enciphered request. Some versions of the original answer some of them in clear.
fn decipher<'a>(line: &'a [u8], cipher: &Cipher) -> Cow<'a, [u8]> {
    if !line.starts_with(b"enc:") {
        return Cow::Borrowed(line);
    }
    match cipher.open(line) {
        Ok(mut text) => {
            while text.last() == Some(&b'\n') {
                text.pop();
            }
            match text.contains(&b'\n') {
                false => Cow::Owned(text),
                true => Cow::Borrowed(b"error:the deciphered answer has more than one line"),
            }
        }
        Err(error) => Cow::Owned(format!("error:the answer could not be deciphered: {error}").into_bytes()),
    }
}
