//! A local program's lines.

use super::pieces;
use lonnet::base::line::{Line, LineReader};
use lonnet::base::request::{Forward, Request, parse, payload};

/// Longest line of a program.
const MAX_LINE: usize = 100;

/// A program's bytes: they are the same lines in pieces as in one, and after a handover within any
/// of them; a request is taken apart into what it was made of; no more than a line and a piece is
/// held.
pub fn local_line(bytes: &[u8]) {
    let (whole, in_pieces) = pieces(bytes);
    let expected = lines(whole, false);
    let size = bytes.first().map_or(1, |size| usize::from(*size).max(1));
    assert_eq!(lines(in_pieces, false), expected);
    assert_eq!(lines(bytes.get(1..).unwrap_or_default().chunks(size), true), expected);
    for line in expected.into_iter().flatten() {
        take_apart(&line);
    }
}

/// The lines in these pieces, `None` for one that is too long; with `handed`, another reader goes
/// on behind each piece.
fn lines<'a>(pieces: impl Iterator<Item = &'a [u8]>, handed: bool) -> Vec<Option<Vec<u8>>> {
    let mut reader = LineReader::new(MAX_LINE);
    let mut found = Vec::new();
    for piece in pieces {
        reader.push(piece);
        while let Some(line) = reader.next_line() {
            found.push(match line {
                Line::Whole(line) => Some(line.to_vec()),
                Line::TooLong => None,
            });
        }
        assert!(reader.len() <= MAX_LINE, "{} bytes of an unfinished line", reader.len());
        if handed {
            let (rest, skipping) = reader.rest();
            reader = LineReader::resume(MAX_LINE, rest.to_vec(), skipping);
        }
    }
    found
}

fn take_apart(line: &[u8]) {
    match parse(line) {
        Request::Blank => assert!(line.is_empty()),
        Request::CloseConnectionExit => assert_eq!(line, b"close_connection_exit"),
        Request::Bad(why) => assert!(!why.is_empty() && !why.contains('\n')),
        Request::Forward(Forward { critical, text }) => {
            let parts = payload(text);
            assert!(!parts.bytes.is_empty() && line.ends_with(parts.bytes));
            assert!(critical || parts.key.is_none());
            // What is stored means the same when it is read again, and put together again it is the
            // line.
            let mut again = match (parts.key, critical) {
                (Some(key), _) => format!("critical;key={key}:").into_bytes(),
                (None, true) => b"critical:".to_vec(),
                (None, false) => Vec::new(),
            };
            if parts.encrypt {
                again.extend_from_slice(b"encrypt:");
            }
            again.extend_from_slice(parts.bytes);
            assert_eq!(again, line);
            assert_eq!(payload(text), parts);
        }
    }
}
