//! Pieces of C that stand between a program and the C library.

use super::skip::skipped;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles a file of `tests` into a library for `LD_PRELOAD`, kept in a folder; nothing where
/// there is no compiler.
pub fn library(source: &str, kept_in: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(source);
    let library = kept_in.join(source.file_name().expect("a file's name")).with_extension("so");
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
