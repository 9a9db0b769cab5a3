//! The duplex control socket between a supervisor and one child: JSON lines on a stream socket pair.
//!
//! End of file on the child's side means that the supervisor is gone; on the supervisor's side, that the child is.

use crate::config::HostId;
use crate::status::PeerStatus;
use serde::{Deserialize, Serialize};

/// `lonc` to a link child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToLink {
    /// USR1: dial now if the link is not up, try it with a heartbeat if it is.
    Probe,
    /// Take no new clients, answer what is there (bounded by `drain_timeout`), exit 0.
    Drain,
    /// Send a status with this number back.
    Report(u64),
    /// Files for this peer appeared in the delayed directory: take them in.
    TakeIn,
}

/// A link child to `lonc`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromLink {
    /// The state changed, or a report was asked for (then with its number).
    Status {
        /// The number of the report, if this answers one.
        report: Option<u64>,
        /// The status.
        status: Box<PeerStatus>,
    },
}

/// `lond` to a link child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToServe {
    /// Answer what is there (bounded by `drain_timeout`), close the link, exit 0.
    Drain,
    /// A newer link from the same host is open: answer what is there (bounded), close, exit 0.
    Replaced,
}

/// A link child to `lond`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromServe {
    /// The caller is known and the opening dialogue is done.
    Opened {
        /// Who calls.
        caller: HostId,
    },
}
