//! What is wrong with the configuration, and where: `file:line: what is wrong`.

use std::fmt;
use std::path::{Path, PathBuf};

/// Most problems that are kept of one file, and reported of one load; one more line then says that
/// there are more.
pub(super) const MAX_PROBLEMS: usize = 10_000;

/// Where a key stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its file.
    pub file: PathBuf,
    /// Its line.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// File, as it was named.
    pub file: PathBuf,
    /// Line, counted from 1; `None` where the file as a whole is meant.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
}

impl Problem {
    /// A problem in one line.
    pub fn at(file: &Path, line: usize, what: impl Into<String>) -> Problem {
        Problem { file: file.to_owned(), line: Some(line), what: what.into() }
    }

    /// A problem of the file as a whole.
    pub fn of(file: &Path, what: impl Into<String>) -> Problem {
        Problem { file: file.to_owned(), line: None, what: what.into() }
    }
}

/// Keeps a problem, unless so many are kept that it would never be reported: one beyond the bound
/// shows that there were more.
pub(super) fn keep(problems: &mut Vec<Problem>, problem: Problem) {
    if problems.len() <= MAX_PROBLEMS {
        problems.push(problem);
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A path may hold anything; a problem is one line.
        let mut file = self.file.display().to_string();
        if file.contains(char::is_control) {
            file = file.escape_debug().to_string();
        }
        match self.line {
            Some(line) => write!(f, "{file}:{line}: {}", self.what),
            None => write!(f, "{file}: {}", self.what),
        }
    }
}

/// All that is wrong with the configuration, a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors(pub Vec<Problem>);
