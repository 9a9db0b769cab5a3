//! What `lonsvc`'s supervisor and a child say to each other until the child is the service's
//! program: that closes the socket.

use serde::{Deserialize, Serialize};
use supervise::control::Message;

/// `lonsvc` to a child: nothing. A program is told by signals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToProgram {}

/// A child to `lonsvc`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromProgram {
    /// The program could not be executed; why.
    NotStarted(String),
}

impl Message for ToProgram {
    fn supersedes(&self, _earlier: &Self) -> bool {
        match *self {}
    }
}

impl Message for FromProgram {
    fn supersedes(&self, earlier: &Self) -> bool {
        self == earlier
    }
}
