//! What the fuzz targets do with bytes: all that is read before it is trusted, whoever wrote it.
//!
//! Each function panics when a promise is broken; any bytes at all are fine. Used by the targets in
//! `fuzz_targets` and by the replay of the corpora in `tests/fuzz_corpus.rs`, both through
//! [`TARGETS`].

mod classic;
mod disk;
mod local;
mod secure;
mod tagged;
mod texts;
mod within;

use std::collections::BTreeMap;

/// A function that any bytes can be given to.
pub type Target = fn(&[u8]);

/// Every target by its name: of its file in `fuzz_targets`, and of its folder in `corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("admin", within::admin),
    ("cipher", classic::cipher),
    ("config", texts::config),
    ("control", within::control),
    ("dial_classic", classic::dial_classic),
    ("dial_secure", secure::dial_secure),
    ("dropped", disk::dropped),
    ("frame", secure::frame),
    ("handoff", within::handoff),
    ("hello", secure::hello),
    ("hosts", texts::hosts),
    ("local_line", local::local_line),
    ("pins", texts::pins),
    ("record", disk::record),
    ("serve_classic", classic::serve_classic),
    ("serve_secure", secure::serve_secure),
    ("spool", disk::spool),
    ("status", texts::status),
    ("tagged", tagged::tagged),
];

/// Runs one target; panics if there is none of that name.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    target(bytes);
}

/// The bytes behind the first, in one piece, and in pieces as long as the first byte says.
fn pieces(bytes: &[u8]) -> (impl Iterator<Item = &[u8]>, impl Iterator<Item = &[u8]>) {
    let (size, bytes) =
        bytes.split_first().map_or((1, bytes), |(size, rest)| (usize::from(*size).max(1), rest));
    (bytes.chunks(bytes.len().max(1)), bytes.chunks(size))
}

/// What a line before a file's content begins with, in an input that stands for several files.
const FILE: &str = "@@ ";
/// Most files in an input.
const FILES_MOST: usize = 8;

/// The files that an input stands for: before each a line with [`FILE`] and its name. The newline
/// before such a line belongs to it.
fn files(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut rest = bytes;
    while let Some(named) = rest.strip_prefix(FILE.as_bytes()) {
        let end = named.iter().position(|byte| *byte == b'\n').unwrap_or(named.len());
        let name = String::from_utf8_lossy(&named[..end]).into_owned();
        let content = named.get(end + 1..).unwrap_or_default();
        let next =
            content.windows(1 + FILE.len()).position(|at| at[0] == b'\n' && at[1..] == *FILE.as_bytes());
        let (content, behind) = next.map_or((content, &[][..]), |at| (&content[..at], &content[at + 1..]));
        if files.len() < FILES_MOST {
            files.insert(name, content.to_vec());
        }
        rest = behind;
    }
    files
}
