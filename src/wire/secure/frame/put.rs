//! Frames to bytes, each appended to what waits to go through the tunnel.

use super::{BROKEN, HEADER, Kind, MAX_ERROR_TEXT, MAX_NOTE, MAX_REASON, MORE};
use crate::secure::CriticalHead;

/// Appends a chunk of a request, of at most [`MAX_BODY`] bytes.
pub fn put_request(out: &mut Vec<u8>, id: u64, more: bool, chunk: &[u8]) {
    put(out, Kind::Request, id, more, chunk);
}

/// Appends a chunk of a critical request; the first, and it alone, with the head. Head and chunk
/// together have at most [`MAX_BODY`] bytes.
pub fn put_critical(out: &mut Vec<u8>, id: u64, more: bool, head: Option<&CriticalHead>, chunk: &[u8]) {
    let length = head.map_or(0, CriticalHead::size) + chunk.len();
    put_header(out, Kind::Critical, id, if more { MORE } else { 0 }, length);
    if let Some(head) = head {
        head.put(out);
    }
    out.extend_from_slice(chunk);
}

/// Appends a chunk of an answer, of at most [`MAX_BODY`] bytes.
pub fn put_answer(out: &mut Vec<u8>, id: u64, more: bool, chunk: &[u8]) {
    put(out, Kind::Answer, id, more, chunk);
}

/// Appends a chunk of what stands for the answer of a handler that gave none, of at most
/// [`MAX_BODY`] bytes.
pub fn put_broken_answer(out: &mut Vec<u8>, id: u64, more: bool, chunk: &[u8]) {
    put_header(out, Kind::Answer, id, if more { BROKEN | MORE } else { BROKEN }, chunk.len());
    out.extend_from_slice(chunk);
}

/// Appends a NOT_TAKEN; a long reason is cut.
pub fn put_not_taken(out: &mut Vec<u8>, id: u64, why: &str) {
    put(out, Kind::NotTaken, id, false, why.as_bytes().get(..MAX_REASON).unwrap_or(why.as_bytes()));
}

/// Appends a READY for the handler of this name.
pub fn put_ready(out: &mut Vec<u8>, handler: &str) {
    put(out, Kind::Ready, 0, false, handler.as_bytes().get(..MAX_REASON).unwrap_or(handler.as_bytes()));
}

/// Appends a HELD with these handlers' names.
pub fn put_held<'a>(out: &mut Vec<u8>, handlers: impl Iterator<Item = &'a [u8]>) {
    let mut names = Vec::new();
    for name in handlers.filter(|name| !name.is_empty()) {
        names.extend_from_slice(name);
        names.push(b'\n');
    }
    debug_assert!(names.len() <= MAX_NOTE);
    put(out, Kind::Held, 0, false, &names);
}

/// Appends a CANCEL.
pub fn put_cancel(out: &mut Vec<u8>, id: u64) {
    put(out, Kind::Cancel, id, false, b"");
}

/// Appends a PING.
pub fn put_ping(out: &mut Vec<u8>, token: u64) {
    put(out, Kind::Ping, 0, false, &token.to_be_bytes());
}

/// Appends a PONG with the bytes of the PING.
pub fn put_pong(out: &mut Vec<u8>, ping: &[u8]) {
    put(out, Kind::Pong, 0, false, ping);
}

/// Appends a WINDOW.
pub fn put_window(out: &mut Vec<u8>, bytes: u32) {
    put(out, Kind::Window, 0, false, &bytes.to_be_bytes());
}

/// Appends a GOAWAY.
pub fn put_go_away(out: &mut Vec<u8>, last: u64) {
    put(out, Kind::GoAway, 0, false, &last.to_be_bytes());
}

/// Appends an ERROR; a long text is cut.
pub fn put_error(out: &mut Vec<u8>, text: &str) {
    put(out, Kind::Error, 0, false, text.as_bytes().get(..MAX_ERROR_TEXT).unwrap_or(text.as_bytes()));
}

/// Appends a HELLO.
pub(in crate::secure) fn put_hello(out: &mut Vec<u8>, text: &str) {
    put(out, Kind::Hello, 0, false, text.as_bytes());
}

pub(super) fn put(out: &mut Vec<u8>, kind: Kind, id: u64, more: bool, body: &[u8]) {
    put_header(out, kind, id, if more { MORE } else { 0 }, body.len());
    out.extend_from_slice(body);
}

pub(super) fn put_header(out: &mut Vec<u8>, kind: Kind, id: u64, flags: u8, length: usize) {
    debug_assert!(kind.lengths().contains(&length) && kind.has_id() == (id != 0), "{kind:?} {id} {length}");
    out.reserve(HEADER + length);
    out.push(kind as u8);
    out.push(flags);
    // At most MAX_BODY, as the callers promise.
    out.extend_from_slice(&(length as u16).to_be_bytes());
    out.extend_from_slice(&id.to_be_bytes());
}
