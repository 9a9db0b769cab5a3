//! A network of hosts in a temporary folder, and independent programs for the other end of everything.
//!
//! Written against `docs/` alone: nothing here calls the library, so that a mistake in it cannot hide itself.
//! Every helper that waits has a deadline, and panics with what it waited for when that passes.

pub mod caller;
pub mod cipher;
pub mod fake_lond;
pub mod frames;
pub mod handler;
pub mod keys;
pub mod load;
pub mod local;
pub mod network;
pub mod pair;
pub mod process;
pub mod program;
pub mod relay;
pub mod secure_caller;
pub mod secure_link;
pub mod secure_lond;
pub mod secure_pair;
pub mod small_disk;
pub mod tally;
pub mod wait;

/// Says that a test could not be done on this machine, where a person sees it: the harness keeps what a passing test
/// prints, but not what is written to standard error itself. `scripts/test` counts these lines.
pub fn skipped(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
