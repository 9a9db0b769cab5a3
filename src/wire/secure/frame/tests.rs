//! The frame codec: golden bytes, everything in pieces, and everything broken.

use super::*;
use crate::secure::CriticalHead;
use base::Key;

fn every_kind() -> Vec<u8> {
    let mut out = Vec::new();
    let head = CriticalHead { sequence: 258, settled: 257, key: Key::new(b"k-1") };
    put_hello(&mut out, "lonnet\n");
    put_request(&mut out, 1, false, b"ping");
    put_request(&mut out, 2, true, b"log:");
    put_critical(&mut out, 3, true, Some(&head), b"log:x");
    put_critical(&mut out, 3, false, None, b"yz");
    put_answer(&mut out, u64::MAX, false, b"");
    put_cancel(&mut out, 2);
    put_ping(&mut out, 9);
    put_pong(&mut out, b"\x01");
    put_window(&mut out, 65536);
    put_go_away(&mut out, 3);
    put_error(&mut out, "bye");
    put_broken_answer(&mut out, 4, false, b"error:x");
    put_not_taken(&mut out, 5, "echo: away");
    put_ready(&mut out, "echo");
    put_held(&mut out, [b"echo".as_slice(), b"mail"].into_iter());
    out
}

/// The frames of `every_kind`, byte by byte: what is on the wire must never change within version
/// 1.
const GOLDEN: &[&str] = &[
    "01 00 0007 0000000000000000 6c6f6e6e65740a",
    "02 00 0004 0000000000000001 70696e67",
    "02 01 0004 0000000000000002 6c6f673a",
    "03 01 0019 0000000000000003 0000000000000102 0000000000000101 03 6b2d31 6c6f673a78",
    "03 00 0002 0000000000000003 797a",
    "04 00 0000 ffffffffffffffff",
    "05 00 0000 0000000000000002",
    "06 00 0008 0000000000000000 0000000000000009",
    "07 00 0001 0000000000000000 01",
    "08 00 0004 0000000000000000 00010000",
    "09 00 0008 0000000000000000 0000000000000003",
    "0a 00 0003 0000000000000000 627965",
    "04 02 0007 0000000000000004 6572726f723a78",
    "a0 00 000a 0000000000000005 6563686f3a2061776179",
    "a1 00 0004 0000000000000000 6563686f",
    "a2 00 000a 0000000000000000 6563686f0a6d61696c0a",
];

/// What the frames of a stream are, and the error that ended it.
fn read(chunks: impl Iterator<Item = impl AsRef<[u8]>>) -> (Vec<String>, Option<FrameError>) {
    let mut reader = FrameReader::new();
    let mut frames = Vec::new();
    let mut failed = None;
    for chunk in chunks {
        reader.push(chunk.as_ref());
        while let Some(frame) = reader.next_frame() {
            match frame {
                Ok(frame) => frames.push(format!("{frame:?}")),
                Err(error) => {
                    assert_eq!(failed, None, "nothing follows an error");
                    failed = Some(error);
                }
            }
        }
        assert!(failed.is_some() || reader.len() < HEADER + MAX_BODY, "{} bytes held", reader.len());
    }
    (frames, failed)
}

fn header(kind: u8, flags: u8, length: u16, id: u64) -> Vec<u8> {
    let mut bytes = vec![kind, flags];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes
}

#[test]
fn every_kind_has_its_bytes() {
    assert_eq!(hex::encode(every_kind()), GOLDEN.concat().replace(' ', ""));
}

#[test]
fn every_kind_is_read_back_however_the_bytes_arrive() {
    let bytes = every_kind();
    let (whole, failed) = read(std::iter::once(&bytes));
    assert_eq!((whole.len(), failed), (GOLDEN.len(), None));
    for size in 1..bytes.len() {
        assert_eq!(read(bytes.chunks(size)).0, whole, "in pieces of {size}");
    }
    let mut reader = FrameReader::new();
    reader.push(&bytes);
    let mut frames = std::iter::from_fn(|| reader.next_frame().map(|frame| format!("{frame:?}")));
    assert_eq!(frames.next().as_deref(), Some("Ok(Hello([108, 111, 110, 110, 101, 116, 10]))"));
    assert_eq!(
        frames.next().as_deref(),
        Some("Ok(Request { id: 1, more: false, body: [112, 105, 110, 103] })")
    );
    assert_eq!(
        frames.next().as_deref(),
        Some("Ok(Request { id: 2, more: true, body: [108, 111, 103, 58] })")
    );
    let last: Vec<String> = frames.skip(2).collect();
    assert_eq!(
        last,
        [
            "Ok(Answer { id: 18446744073709551615, more: false, broken: false, body: [] })",
            "Ok(Cancel { id: 2 })",
            "Ok(Ping([0, 0, 0, 0, 0, 0, 0, 9]))",
            "Ok(Pong([1]))",
            "Ok(Window(65536))",
            "Ok(GoAway { last: 3 })",
            "Ok(Error([98, 121, 101]))",
            "Ok(Answer { id: 4, more: false, broken: true, body: [101, 114, 114, 111, 114, 58, 120] })",
            "Ok(NotTaken { id: 5, why: [101, 99, 104, 111, 58, 32, 97, 119, 97, 121] })",
            "Ok(Ready([101, 99, 104, 111]))",
            "Ok(Held([101, 99, 104, 111, 10, 109, 97, 105, 108, 10]))",
        ]
    );
}

#[test]
fn unknown_high_kinds_and_unknown_flags_are_ignored() {
    let mut bytes = Vec::new();
    for kind in 0x80..=0xff {
        // Of those that are known, one that makes no sense is ignored too.
        bytes.extend(header(kind, 0xff, 3, 5));
        bytes.extend_from_slice(b"any");
    }
    // Nor need more be wrong with it than its id, or its length.
    for (kind, length, id) in [
        (Kind::NotTaken, 3, 0),
        (Kind::Ready, 3, 5),
        (Kind::Held, 3, 5),
        (Kind::Ready, MAX_NOTE as u16 + 1, 0),
    ] {
        bytes.extend(header(kind as u8, 0, length, id));
        bytes.extend(std::iter::repeat_n(b'y', length.into()));
    }
    bytes.extend(header(Kind::Request as u8, 0xfe, 1, 5));
    bytes.push(b'x');
    for size in [1, 7, bytes.len()] {
        let (frames, failed) = read(bytes.chunks(size));
        assert_eq!(frames, ["Request { id: 5, more: false, body: [120] }"]);
        assert_eq!(failed, None);
    }
}

#[test]
fn a_frame_that_cannot_be_is_an_error_as_soon_as_its_header_is_there() {
    let long = MAX_BODY as u16 + 1;
    for (bytes, error) in [
        (header(0, 0, 0, 0), FrameError::UnknownKind(0)),
        (header(0x0b, 0, 0, 0), FrameError::UnknownKind(0x0b)),
        (header(0x7f, 0, 0, 0), FrameError::UnknownKind(0x7f)),
        (header(2, 0, long, 1), FrameError::TooLong { kind: 2, length: 16385 }),
        (header(0x80, 0, u16::MAX, 0), FrameError::TooLong { kind: 0x80, length: 65535 }),
        (header(5, 0, 1, 1), FrameError::Length { kind: Kind::Cancel, length: 1 }),
        (header(6, 0, 9, 0), FrameError::Length { kind: Kind::Ping, length: 9 }),
        (header(7, 0, 9, 0), FrameError::Length { kind: Kind::Pong, length: 9 }),
        (header(8, 0, 3, 0), FrameError::Length { kind: Kind::Window, length: 3 }),
        (header(9, 0, 4, 0), FrameError::Length { kind: Kind::GoAway, length: 4 }),
        (header(2, 0, 0, 0), FrameError::Id { kind: Kind::Request, id: 0 }),
        (header(4, 0, 0, 0), FrameError::Id { kind: Kind::Answer, id: 0 }),
        (header(1, 0, 0, 7), FrameError::Id { kind: Kind::Hello, id: 7 }),
        (header(1, 1, 0, 0), FrameError::Chunked(Kind::Hello)),
        (header(5, 1, 0, 7), FrameError::Chunked(Kind::Cancel)),
    ] {
        let mut stream = every_kind();
        stream.extend_from_slice(&bytes);
        let (frames, failed) = read(std::iter::once(&stream));
        assert_eq!((frames.len(), failed), (GOLDEN.len(), Some(error.clone())));
        stream.extend(every_kind());
        let (frames, failed) = read(stream.chunks(5));
        assert_eq!((frames.len(), failed), (GOLDEN.len(), Some(error)), "nothing after it is believed");
    }
}

#[test]
fn after_an_error_nothing_is_kept() {
    let mut reader = FrameReader::new();
    reader.push(&header(0x7f, 0, 0, 0));
    assert!(matches!(reader.next_frame(), Some(Err(_))));
    for _ in 0..1000 {
        reader.push(&[0; 10_000]);
        assert!(reader.next_frame().is_none());
        assert!(reader.len() <= 10_000);
    }
}

#[test]
fn what_was_given_out_takes_no_room() {
    let frame = [header(2, 0, 1000, 1), vec![b'x'; 1000]].concat();
    // The bytes come in pieces that end at the end of a frame, within one, and within its header.
    for piece in [frame.len(), 700, frame.len() - 5] {
        let (mut reader, mut taken) = (FrameReader::new(), 0);
        let bytes = frame.repeat(700);
        for (n, part) in bytes.chunks(piece).enumerate() {
            reader.push(part);
            while let Some(next) = reader.next_frame() {
                next.unwrap();
                taken += frame.len();
            }
            let left = ((n + 1) * piece).min(bytes.len()) - taken;
            assert_eq!((reader.len(), reader.is_empty()), (left, left == 0));
        }
        assert_eq!(taken, bytes.len());
        assert!(reader.tail().capacity() < 4 * frame.len(), "{piece}: {}", reader.tail().capacity());
    }
    // What once was needed for many at a time is given back.
    let mut reader = FrameReader::new();
    reader.push(&frame.repeat(700));
    while let Some(next) = reader.next_frame() {
        next.unwrap();
    }
    let kept = reader.tail().capacity();
    assert!((frame.len()..=KEPT_CAPACITY).contains(&kept), "{kept}");
}

#[test]
fn every_truncation_waits_and_every_flipped_bit_is_a_frame_or_an_error() {
    let bytes = every_kind();
    for cut in 0..bytes.len() {
        let (frames, failed) = read(std::iter::once(&bytes[..cut]));
        assert_eq!(failed, None, "cut at {cut}");
        assert!(frames.len() < GOLDEN.len());
    }
    let mut errors = 0;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            errors += usize::from(read(bytes.chunks(11)).1.is_some());
        }
    }
    assert!(errors > 100, "only {errors} flips were noticed");
}

#[test]
fn what_is_put_is_what_is_read_for_any_messages_in_any_pieces() {
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..200 {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..random.usize(1..20) {
            let id = random.u64(1..);
            let more = random.bool();
            let length = if random.u8(..8) == 0 { MAX_BODY } else { random.usize(..300) };
            let body: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
            let frame = match random.u8(..4) {
                0 => {
                    put_request(&mut bytes, id, more, &body);
                    Frame::Request { id, more, body: &body }
                }
                1 => {
                    put_answer(&mut bytes, id, more, &body);
                    Frame::Answer { id, more, broken: false, body: &body }
                }
                2 => {
                    put_broken_answer(&mut bytes, id, more, &body);
                    Frame::Answer { id, more, broken: true, body: &body }
                }
                _ => {
                    put_critical(&mut bytes, id, more, None, &body);
                    Frame::Critical { id, more, body: &body }
                }
            };
            assert_eq!(frame.cost(), FRAME_COST + length);
            expected.push(format!("{frame:?}"));
        }
        let size = random.usize(1..40_000);
        assert_eq!(read(bytes.chunks(size)), (expected, None));
    }
}

#[test]
fn no_bytes_make_it_panic_or_grow() {
    let mut random = fastrand::Rng::with_seed(4);
    let golden = every_kind();
    for _ in 0..2000 {
        let mut bytes = golden.repeat(random.usize(1..4));
        for _ in 0..random.usize(..10) {
            let at = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => bytes[at] = random.u8(..),
                1 => bytes[at] ^= 1 << random.u8(..8),
                2 => bytes.insert(at, random.u8(..)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        read(bytes.chunks(random.usize(1..200)));
    }
}

#[test]
fn a_message_costs_the_sum_of_its_frames() {
    assert_eq!(message_cost(0), 64);
    assert_eq!(message_cost(MAX_BODY), 64 + MAX_BODY);
    assert_eq!(message_cost(MAX_BODY + 1), 128 + MAX_BODY + 1);
    let length = 1 << 20;
    let frames: usize = vec![b'x'; length].chunks(MAX_BODY).map(|chunk| cost(chunk.len())).sum();
    assert_eq!(message_cost(length), frames);
}

#[test]
fn a_long_error_text_is_cut() {
    let mut bytes = Vec::new();
    put_error(&mut bytes, &"é".repeat(10_000));
    assert_eq!(bytes.len(), HEADER + MAX_ERROR_TEXT);
}
