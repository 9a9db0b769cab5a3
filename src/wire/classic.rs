//! The classic wire's cipher, and the caller's side of its opening dialogue.
//!
//! The facts are in `docs/wire.md`. The cipher is IDEA, each 8-byte block on its own, under a key
//! made of both ids and a *buildkey* that crosses in clear: it protects nothing from someone who
//! sees the opening dialogue, and is here to talk to hosts that speak nothing else.

mod cipher;
mod opening;

pub use cipher::{Cipher, CipherError, make_buildkey};
pub use opening::{Opening, OpeningError, Progress, Step};
