//! What a `lonc` leaves to the one that follows it at HUP, under the same pid.

use crate::config::HostId;
use crate::status::PeerStatus;
use crate::supervise::control;
use crate::supervise::startup::{Common, Legacy};
use crate::supervise::table;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::os::fd::RawFd;

/// Sockets, children, and what is known of the links. Descriptors are numbers; the handoff keeps them open.
#[derive(Debug, Serialize, Deserialize)]
pub struct Left {
    /// Lock and log.
    pub common: Common,
    /// When the first program under this pid started.
    pub started: Timestamp,
    /// The socket that `lon status` asks on.
    pub admin: Option<RawFd>,
    /// The local sockets.
    pub listeners: Vec<(HostId, RawFd)>,
    /// Every child that was not reaped.
    pub children: Vec<LeftChild>,
    /// The last status of each link.
    pub statuses: Vec<PeerStatus>,
}

/// A child that goes on while the program of its supervisor is replaced.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeftChild {
    /// Whom it serves.
    pub peer: HostId,
    /// Where it stands.
    pub state: table::Carried,
    /// Its control socket, if it has not let go of it, and what is under way on it.
    pub control: Option<(RawFd, control::Carried)>,
}

impl Legacy for Left {
    fn common(&self) -> &Common {
        &self.common
    }
}
