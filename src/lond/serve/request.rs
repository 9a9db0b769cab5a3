//! What kind of line the caller sent.

use crate::handler::builtin::Builtin;

/// A line of the caller, by what is to be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Nothing: no request, and no answer.
    Blank,
    /// `init`: opens the dialogue; later it is as good as any unknown word.
    Init,
    /// `enc:...`: a request enciphered.
    Enciphered,
    /// `lond` answers it itself.
    Builtin(Builtin<'a>),
    /// A handler's, or nobody's.
    Other,
}

impl<'a> Request<'a> {
    /// The kind of `line`.
    pub fn parse(line: &'a [u8]) -> Request<'a> {
        if line.is_empty() {
            Request::Blank
        } else if line == b"init" {
            Request::Init
        } else if line.starts_with(b"enc:") {
            Request::Enciphered
        } else {
            Builtin::parse(line).map_or(Request::Other, Request::Builtin)
        }
    }
}
