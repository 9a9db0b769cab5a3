//! What the fuzz targets do with bytes: all that comes from a peer or a shared file and is read before it is trusted.
//!
//! Each function panics when a promise is broken; any bytes at all are fine. Used by the targets beside it and by the
//! replay of the corpora in `tests/fuzz_corpus.rs`.

use lonnet::config::{PinFile, Pins};
use lonnet::wire::secure::{
    Assembler, CalledHello, CallerHello, CriticalHead, Frame, FrameError, FrameReader, HEADER, MAX_BODY,
    MAX_UNFINISHED, Taken, put_answer, put_cancel, put_critical, put_go_away, put_pong, put_request,
    put_window,
};
use std::path::Path;

/// Longest line that the ends of this link take; short, so that little input is enough to pass it.
const MAX_LINE: usize = 40;

/// A stream of frames, in pieces as long as the first byte says: it reads the same as in one piece, what was read is
/// put as it was, and nothing grows beyond its bounds.
pub fn frame(bytes: &[u8]) {
    let Some((&size, bytes)) = bytes.split_first() else { return };
    let whole = read(bytes, bytes.len().max(1));
    assert_eq!(read(bytes, usize::from(size).max(1)), whole);
}

/// What a stream came to: its frames and messages in words, and what was wrong.
fn read(bytes: &[u8], size: usize) -> Vec<String> {
    let mut reader = FrameReader::new();
    let mut requests = Assembler::new(MAX_LINE);
    let mut answers = Assembler::new(MAX_LINE);
    let mut said = Vec::new();
    let mut failed = false;
    for piece in bytes.chunks(size) {
        reader.push(piece);
        while let Some(frame) = reader.next_frame() {
            assert!(!failed, "nothing follows an error");
            match frame {
                Ok(frame) => {
                    put_again(&frame);
                    said.push(format!("{frame:?}"));
                    said.push(take(frame, &mut requests, &mut answers));
                }
                Err(error) => {
                    failed = true;
                    said.push(error.to_string());
                }
            }
        }
        assert!(failed || reader.len() < HEADER + MAX_BODY, "{} bytes are held", reader.len());
        assert!(requests.unfinished() <= MAX_UNFINISHED && answers.unfinished() <= MAX_UNFINISHED);
    }
    said
}

fn take(frame: Frame<'_>, requests: &mut Assembler, answers: &mut Assembler) -> String {
    let taken = match frame {
        Frame::Request { id, more, body } => requests.request(id, more, body),
        Frame::Critical { id, more, body } => requests.critical(id, more, body),
        Frame::Answer { id, more, body } => answers.answer(id, more, body),
        Frame::Cancel { id } => return format!("forgotten: {}", requests.forget(id)),
        Frame::Hello(body) => {
            hello(body);
            return String::new();
        }
        Frame::Ping(_) | Frame::Pong(_) | Frame::Window(_) | Frame::GoAway { .. } | Frame::Error(_) => {
            return String::new();
        }
    };
    if let Ok(Taken::Whole { text, .. }) = &taken {
        assert!(text.len() <= MAX_LINE);
    }
    taken.map_or_else(|error: FrameError| error.to_string(), |taken| format!("{taken:?}"))
}

/// A frame that is put and read again is the same.
fn put_again(frame: &Frame<'_>) {
    let mut out = Vec::new();
    match *frame {
        Frame::Request { id, more, body } => put_request(&mut out, id, more, body),
        Frame::Critical { id, more, body } => match CriticalHead::split(body) {
            Ok((head, text)) => put_critical(&mut out, id, more, Some(&head), text),
            Err(_) => put_critical(&mut out, id, more, None, body),
        },
        Frame::Answer { id, more, body } => put_answer(&mut out, id, more, body),
        Frame::Cancel { id } => put_cancel(&mut out, id),
        Frame::Pong(body) => put_pong(&mut out, body),
        Frame::Window(bytes) => put_window(&mut out, bytes),
        Frame::GoAway { last } => put_go_away(&mut out, last),
        // Those that we put are made of other things than what was read.
        Frame::Hello(_) | Frame::Ping(_) | Frame::Error(_) => return,
    }
    let mut reader = FrameReader::new();
    reader.push(&out);
    assert_eq!(reader.next_frame(), Some(Ok(*frame)));
    assert!(reader.is_empty());
}

/// The body of an opening frame, as either end reads it: what is right is put as a frame and read as the same.
pub fn hello(bytes: &[u8]) {
    let body = |out: &[u8]| out[HEADER..].to_vec();
    let mut out = Vec::new();
    if let Ok(hello) = CallerHello::parse(bytes) {
        hello.put(&mut out);
        assert_eq!(CallerHello::parse(&body(&out)), Ok(hello));
    }
    out.clear();
    if let Ok(hello) = CalledHello::parse(bytes) {
        hello.put(&mut out);
        assert_eq!(CalledHello::parse(&body(&out)), Ok(hello));
    }
}

/// A `hosts.pins`: every problem is one line, and a key is one host's.
pub fn pins(bytes: &[u8]) {
    let file = PinFile::parse(Path::new("hosts.pins"), bytes, None);
    for problem in file.problems.iter().chain(&file.warnings) {
        assert!(!problem.to_string().contains('\n'), "{problem}");
    }
    for line in String::from_utf8_lossy(bytes).lines() {
        let mut words = line.split_whitespace();
        let (Some(id), Some(pin)) = (words.next(), words.next()) else { continue };
        let (Ok(id), Ok(pin)) = (lonnet::config::HostId::new(id), pin.parse()) else { continue };
        let pinned = file.pins.of(&id).contains(&pin);
        assert_eq!(pinned, file.pins.who(&pin) == Some(&id));
        assert_eq!(Pins::from_pairs([(id.clone(), pin)]).who(&pin), Some(&id));
    }
}
