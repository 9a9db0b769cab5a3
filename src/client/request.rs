//! What can be a request, and the prefixes that make a critical one of it.
//!
//! Pure.

use base::Key;
use base::request::KEYED;

pub use base::request::CRITICAL;

/// The request with [`CRITICAL`] before it, if it does not say by itself that it is critical.
pub fn as_critical(request: &[u8]) -> Vec<u8> {
    let said = request.starts_with(CRITICAL) || request.starts_with(KEYED);
    if said { request.to_owned() } else { [CRITICAL, request].concat() }
}

/// The request as a critical one with a key: its own, or an automatic one, so that a copy of it is
/// known for one. Where the key would make it longer than `max_line` bytes, it is
/// [`as_critical`].
pub fn as_critical_once(request: &[u8], max_line: usize) -> Vec<u8> {
    let plain = as_critical(request);
    let Some(bare) = plain.strip_prefix(CRITICAL) else { return plain };
    let Some(key) = Key::automatic() else { return plain };
    let keyed = [KEYED, b"key=", key.as_bytes(), b":", bare].concat();
    // `critical:critical;...` is no request, and is to be told so.
    if bare.starts_with(KEYED) || keyed.len() > max_line { plain } else { keyed }
}

/// The line of a critical request, with its key.
pub(crate) fn critical_line(request: &[u8], key: Option<&Key>) -> Result<Vec<u8>, &'static str> {
    let bare = request.strip_prefix(CRITICAL).unwrap_or(request);
    check_request(bare)?;
    match key {
        None => Ok(as_critical(request)),
        Some(_) if bare.starts_with(KEYED) => Err("it has a key already"),
        Some(key) => Ok([KEYED, b"key=", key.as_bytes(), b":", bare].concat()),
    }
}

/// Why this cannot be a request, if it cannot.
pub(crate) fn check_request(request: &[u8]) -> Result<(), &'static str> {
    match memchr::memchr(b'\n', request) {
        Some(_) => Err("a request is one line"),
        None if request.is_empty() => Err("the request is empty"),
        None => Ok(()),
    }
}
