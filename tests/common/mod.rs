//! A network of hosts in a temporary folder, and independent programs for the other end of everything.
//!
//! Written against `docs/` alone: nothing here calls the library, so that a mistake in it cannot hide itself.
//! Every helper that waits has a deadline, and panics with what it waited for when that passes.

pub mod caller;
pub mod cipher;
pub mod fake_lond;
pub mod handler;
pub mod load;
pub mod local;
pub mod network;
pub mod pair;
pub mod process;
pub mod program;
pub mod wait;
