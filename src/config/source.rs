//! Where the bytes of the files come from, and what keeps them from being text or TOML.

use super::problem::Problem;
use super::section::Report;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Longest file that is read: 5,000 hosts are half a megabyte; beyond this it is not one of ours.
pub const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Where the files come from.
pub type Source<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// The whole file, unless it is too long for one of ours.
pub(super) fn read(file: &Path, source: Source<'_>) -> Result<Vec<u8>, Problem> {
    bounded(file, source(file))
}

pub(super) fn attempt(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn bounded(file: &Path, read: io::Result<Vec<u8>>) -> Result<Vec<u8>, Problem> {
    match read {
        Ok(bytes) if bytes.len() as u64 > MAX_FILE => {
            Err(Problem::of(file, format!("is longer than {} MiB: not a file of this kind", MAX_FILE >> 20)))
        }
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(Problem::of(file, format!("cannot be read: {error}"))),
    }
}

/// What was read as text.
///
/// # Errors
/// The line that is none.
pub(super) fn text_of<'a>(file: &Path, bytes: &'a [u8]) -> Result<&'a str, Problem> {
    str::from_utf8(bytes).map_err(|error| {
        let line = 1 + memchr::memchr_iter(b'\n', bytes.split_at(error.valid_up_to()).0).count();
        Problem::at(file, line, "the line is not UTF-8 text")
    })
}

/// Reports one problem a line, since what follows an error in the same line is mostly its echo.
/// Returns the lines.
pub(super) fn report_syntax(report: &mut Report, errors: &[toml::de::Error]) -> BTreeSet<usize> {
    let mut lines = BTreeSet::new();
    for error in errors {
        let line = error.span().map_or(1, |span| report.line_of(span.start));
        if lines.insert(line) {
            report.problem(Some(line), error.message().replace('\n', ", "));
        }
    }
    lines
}
