//! What a `lond` leaves to the one that follows it at HUP, under the same pid.

use super::links;
use crate::supervise::control;
use crate::supervise::startup::{Common, Legacy};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::os::fd::RawFd;

/// Sockets and children. Descriptors are numbers; the handoff keeps them open.
#[derive(Debug, Serialize, Deserialize)]
pub struct Left {
    /// Lock and log.
    pub common: Common,
    /// What is listened on.
    pub listeners: Vec<(SocketAddr, RawFd)>,
    /// Every child that was not reaped, with its control socket, if it has not let go of it.
    pub children: Vec<(links::Carried, Option<(RawFd, control::Carried)>)>,
}

impl Legacy for Left {
    fn common(&self) -> &Common {
        &self.common
    }
}
