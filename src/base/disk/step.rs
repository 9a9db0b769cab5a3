//! A step on disk that failed: verb, object, cause.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A step on disk that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{verb} {}: {cause}", path.display())]
pub struct StepError {
    /// What was tried.
    pub verb: &'static str,
    /// The file or folder that it was to be done to.
    pub path: PathBuf,
    /// What the system said.
    pub cause: Arc<io::Error>,
}

impl StepError {
    /// Whether another process has what was asked for.
    pub fn is_locked(&self) -> bool {
        self.cause.kind() == io::ErrorKind::ResourceBusy
    }

    /// Whether the file or folder is not there.
    pub fn is_missing(&self) -> bool {
        self.cause.kind() == io::ErrorKind::NotFound
    }
}

/// Gives an [`io::Error`] its verb and object.
pub trait Context<T> {
    /// The error as that of the step `verb` on `path`.
    fn context(self, verb: &'static str, path: &Path) -> Result<T, StepError>;
}

impl<T> Context<T> for io::Result<T> {
    /// The error as that of the step `verb` on `path`.
    fn context(self, verb: &'static str, path: &Path) -> Result<T, StepError> {
        self.map_err(|cause| StepError { verb, path: path.to_owned(), cause: Arc::new(cause) })
    }
}
