//! Why a link ended, for the log.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The opening dialogue went another way than it must.
    Refused(Cow<'static, str>),
    /// The opening dialogue was not done in time.
    OpeningTimeout,
    /// The caller closed, or shut its writing half.
    CallerClosed,
    /// The caller said `exit`.
    Exit,
    /// The supervisor told us to end.
    Drained,
    /// A newer link from the same host is open.
    Replaced,
    /// The supervisor is gone.
    Orphaned,
    /// Not everything was answered in the time given for ending.
    DrainTimeout {
        /// Requests without an answer.
        unanswered: usize,
    },
    /// The connection broke.
    Lost(String),
    /// The caller did what it must not on an open link.
    Violation(String),
    /// The caller ended the link with these words.
    CallerError(String),
    /// Nothing was heard for so long.
    Silent(Duration),
    /// The record of critical messages could not be used for too long.
    Record(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Refused(what) => write!(f, "refused: {what}"),
            Reason::OpeningTimeout => f.write_str("the opening dialogue was not done in time"),
            Reason::CallerClosed => f.write_str("closed by the caller"),
            Reason::Exit => f.write_str("the caller said exit"),
            Reason::Drained => f.write_str("told to end"),
            Reason::Replaced => f.write_str("replaced by a newer link"),
            Reason::Orphaned => f.write_str("the supervisor is gone"),
            Reason::DrainTimeout { unanswered } => {
                write!(f, "told to end, {unanswered} requests not answered in time")
            }
            Reason::Lost(cause) => write!(f, "lost: {cause}"),
            Reason::Violation(what) => write!(f, "the caller broke the rules: {what}"),
            Reason::CallerError(text) => write!(f, "the caller says: {text}"),
            Reason::Silent(patience) => write!(f, "nothing was heard for {patience:?}"),
            Reason::Record(why) => write!(f, "critical messages cannot be served: {why}"),
        }
    }
}
