//! Tests that a machine cannot do.

/// Says that a test could not be done on this machine, where a person sees it: the harness keeps
/// what a passing test prints, but not what is written to standard error itself. `scripts/test`
/// counts these lines.
pub fn skipped(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
