//! What a request is passed to at `lond`.
//!
//! | file | what it answers |
//! | --- | --- |
//! | `builtin` | the requests that `lond` itself knows: their names and the text of their answers |
//! | `socket` | requests passed to a local program through its Unix socket |
//!
//! Everything here is pure: bytes and the time come in, answers go out. The sockets are the reactor's.

pub mod builtin;
pub mod socket;

/// Names one request of a link from the moment it is taken until it is answered. Tickets count up and are never
/// used twice on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);
