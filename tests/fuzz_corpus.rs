//! The corpora of the fuzz targets through the same functions, and each input cut short and with its bits flipped.

// The helpers of the tests fail as loudly as the tests themselves.
#![allow(clippy::unwrap_used)]

#[path = "../fuzz/src/lib.rs"]
mod bodies;

use std::fs;
use std::path::Path;

/// Runs every input of a corpus as it is and damaged; says which one it is that breaks.
fn replay(target: &str, body: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut seen = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let run = |bytes: &[u8], what: &str| {
            let broken = std::panic::catch_unwind(|| body(bytes)).is_err();
            assert!(!broken, "{} {what}", path.display());
        };
        run(&bytes, "as it is");
        let step = bytes.len().div_ceil(500).max(1);
        for at in (0..bytes.len()).step_by(step) {
            run(&bytes[..at], &format!("cut at {at}"));
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            run(&flipped, &format!("flipped at {at}"));
        }
        seen += 1;
    }
    assert!(seen >= 5, "only {seen} inputs for {target}");
}

#[test]
fn every_input_for_frames_keeps_the_promises() {
    replay("frame", bodies::frame);
}

#[test]
fn every_input_for_opening_frames_keeps_the_promises() {
    replay("hello", bodies::hello);
}

#[test]
fn every_input_for_pins_keeps_the_promises() {
    replay("pins", bodies::pins);
}
