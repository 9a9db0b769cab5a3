//! Pieces of C that stand between a program and the C library.

use crate::common::skip::skipped;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles a file of this folder into a library for `LD_PRELOAD`, kept in a folder; nothing where there is no compiler.
pub fn library(source: &str, kept_in: &Path) -> Option<PathBuf> {
    let library = kept_in.join(source).with_extension("so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/netns").join(source);
    let mut compiler = Command::new("cc");
    compiler
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl");
    match compiler.status() {
        Ok(status) => assert!(status.success(), "{compiler:?}"),
        Err(error) => {
            skipped(&format!("a library of a test's own: cc: {error}"));
            return None;
        }
    }
    Some(library)
}
