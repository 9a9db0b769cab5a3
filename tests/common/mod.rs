//! A network of hosts in a temporary folder, and independent programs for the other end of
//! everything.
//!
//! Written against `docs/` alone: nothing here calls the library, so that a mistake in it cannot
//! hide itself. Every helper that waits has a deadline, and panics with what it waited for when
//! that passes.

pub mod caller;
pub mod cipher;
pub mod counter;
pub mod fake_lond;
pub mod frames;
pub mod handler;
pub mod inject;
pub mod keys;
pub mod load;
pub mod local;
pub mod network;
pub mod pair;
pub mod preload;
pub mod process;
pub mod program;
pub mod relay;
pub mod secure_caller;
pub mod secure_link;
pub mod secure_lond;
pub mod secure_pair;
pub mod skip;
pub mod small_disk;
pub mod tally;
pub mod wait;

pub use skip::skipped;
