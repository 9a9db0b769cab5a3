//! Steps that a process which serves already cannot go without: tried again for a while before they
//! count as failed.
//!
//! What lacks for a moment (descriptors, memory) is back a moment later. At a first start a person
//! looks, and an error at once is better; but a supervisor that has just begun again under its own
//! pid would take all its links down with it. The children go on meanwhile.

use std::fmt::Display;
use std::time::Duration;

/// Times that a step is tried.
const TRIES: u32 = 30;
/// Pause between two of them; all together three seconds.
const PAUSE: Duration = Duration::from_millis(100);

/// Does `step`; if it fails, and the process `serves` already, again and again. The first of these
/// failures is logged, as that of `what`.
///
/// # Errors
/// That of the last try.
pub fn retry<T, E: Display>(
    serves: bool,
    what: &str,
    mut step: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    for tried in 0..if serves { TRIES } else { 0 } {
        match step() {
            Ok(done) => return Ok(done),
            Err(error) if tried == 0 => log::error!("{what}: {error}; tried again"),
            Err(_) => {}
        }
        // What is tried is what the loop needs to wait with, so there is nothing else to wait with
        // yet.
        std::thread::sleep(PAUSE);
    }
    step()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_twice_is_done_at_the_third_try() {
        let at_the_third = |serves| {
            let mut tries = 0;
            retry(serves, "count", || {
                tries += 1;
                if tries == 3 { Ok(tries) } else { Err("not yet") }
            })
        };
        assert_eq!(at_the_third(true), Ok(3));
        assert_eq!(at_the_third(false), Err("not yet"), "where a person looks");
    }
}
