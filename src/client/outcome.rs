//! What an answer means, and why there is none.
//!
//! Pure. An answer line is all that there is to tell by: a handler's own words that are the same as
//! those of the broker or of `lond` are taken for them.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// What became of a request, by its answer line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The other host has answered, with these bytes.
    Answer(Vec<u8>),
    /// `con_lost`: there is no answer to be had. The other host may have done it all the same.
    Lost,
    /// `con_delayed`: the critical message is on disk here and will be sent.
    Delayed,
    /// `con_failed`: the critical message could not even be kept.
    Failed,
    /// `refused`, or `unknown_cmd`: the other host does not do this, or not for this host.
    Refused,
    /// `error:<this>`: it was no request, or nobody knows what became of it at the other host.
    Error(String),
}

impl Outcome {
    /// What this answer line, without its newline, means.
    pub fn of(line: &[u8]) -> Outcome {
        match line {
            b"con_lost" => Outcome::Lost,
            b"con_delayed" => Outcome::Delayed,
            b"con_failed" => Outcome::Failed,
            b"refused" | b"unknown_cmd" => Outcome::Refused,
            _ => match line.strip_prefix(b"error:") {
                Some(what) => Outcome::Error(String::from_utf8_lossy(what).into_owned()),
                None => Outcome::Answer(line.to_owned()),
            },
        }
    }

    /// What the other host has answered, if it has.
    pub fn answer(self) -> Option<Vec<u8>> {
        match self {
            Outcome::Answer(bytes) => Some(bytes),
            Outcome::Lost | Outcome::Delayed | Outcome::Failed | Outcome::Refused | Outcome::Error(_) => None,
        }
    }
}

/// For people: the answer with what is not text in it escaped, else the broker's word.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Answer(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Outcome::Lost => f.write_str("con_lost"),
            Outcome::Delayed => f.write_str("con_delayed"),
            Outcome::Failed => f.write_str("con_failed"),
            Outcome::Refused => f.write_str("refused"),
            Outcome::Error(what) => write!(f, "error:{what}"),
        }
    }
}

/// Why there is no answer line.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It cannot be a request; nothing was sent.
    #[error("the request cannot be one: {0}")]
    Request(&'static str),
    /// No connection could be made, or not in time: the broker is away. Nothing was sent.
    #[error("connect {}: {source}", socket.display())]
    Away {
        /// The peer's local socket.
        socket: PathBuf,
        /// What the system said; `TimedOut` when it said nothing in time.
        source: io::Error,
    },
    /// The connection ended when the request had been sent, or a part of it: whether it was taken
    /// is not known.
    #[error("ask at {}: {source}", socket.display())]
    Broken {
        /// The peer's local socket.
        socket: PathBuf,
        /// What was noticed of it.
        source: io::Error,
    },
    /// There was no answer in time; the request may be carried out all the same. The connection was
    /// given up, since the late answer would come first on it.
    #[error("ask at {}: no answer in time", socket.display())]
    Deadline {
        /// The peer's local socket.
        socket: PathBuf,
    },
    /// The message could not be stored while the broker is away.
    #[error("store the message: {0}")]
    Store(io::Error),
}

impl ClientError {
    /// Whether the other host may have the request all the same. If not, it may be asked again
    /// without a key.
    pub fn may_have_been_taken(&self) -> bool {
        match self {
            ClientError::Request(_) | ClientError::Away { .. } | ClientError::Store(_) => false,
            ClientError::Broken { .. } | ClientError::Deadline { .. } => true,
        }
    }
}
