//! Where a link child begins.

use crate::config::{Config, HostId};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

/// What a link child is born with.
#[derive(Debug)]
pub struct Seed {
    /// The whole configuration.
    pub config: Config,
    /// The accepted connection; non-blocking.
    pub stream: TcpStream,
    /// Where it comes from.
    pub remote: SocketAddr,
    /// Who calls, by the address; `None` where only a host with an empty address in the table can be meant: its
    /// name is to be looked up.
    pub caller: Option<HostId>,
    /// The child's end of the control socket: receives `ToServe`, sends `FromServe`.
    pub control: OwnedFd,
}

/// Serves one link until it closes or the child is told to stop; exits 0 then.
pub fn run(seed: Seed) -> ! {
    drop(seed);
    std::process::exit(0)
}
