//! What a request is passed to at `lond`.
//!
//! | file | what it answers |
//! | --- | --- |
//! | `builtin` | the requests that `lond` itself knows: their names and the text of their answers |
//! | `socket` | requests passed to a local program through its Unix socket |
//! | `tag` | the lines of the `tagged` form |
//!
//! Everything here is pure: bytes and the time come in, answers go out. The sockets are the
//! reactor's.

pub mod builtin;
pub mod socket;
pub mod tag;

use std::borrow::Cow;

/// Names one request of a link from the moment it is taken until it is answered. Tickets count up
/// and are never used twice on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What came of a request that was passed to a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The handler's own words, whatever they are.
    Answer(&'a [u8]),
    /// The handler has got the request, or may have, and there is no answer of its own: ours,
    /// `error:...`.
    Broken(&'a [u8]),
    /// The handler has not got the request, and nothing was done: why, beginning with the handler's
    /// name.
    NotTaken(&'a str),
}

impl Reply<'_> {
    /// The answer to a request that is not kept by anyone, whose place must be filled.
    pub fn text(&self) -> Cow<'_, [u8]> {
        match self {
            Reply::Answer(text) | Reply::Broken(text) => Cow::Borrowed(text),
            Reply::NotTaken(why) => Cow::Owned(format!("error:{why}").into_bytes()),
        }
    }
}
