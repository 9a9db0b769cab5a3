//! HUP: what a `lond` leaves to the one that follows it, beside what every program leaves, and how
//! that one takes it over.

use super::board::Counts;
use super::links::{self, Event};
use super::listeners::{Listener, addresses};
use super::pools::LeftPool;
use super::{Lond, Machine};
use net::listen::only_v6;
use serde::{Deserialize, Serialize};
use status::GoneCaller;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;
use supervise::control;
use supervise::exec_state::Descriptors;

/// Sockets and children.
#[derive(Debug, Serialize, Deserialize)]
pub struct Own {
    /// What was counted since the first program under this pid started.
    #[serde(default)]
    pub counts: Counts,
    /// Who has had a link since.
    #[serde(default)]
    pub seen: Vec<GoneCaller>,
    /// What is listened on.
    pub listeners: Vec<(SocketAddr, RawFd)>,
    /// Every child that was not reaped, with its control socket, if it has not let go of it.
    pub children: Vec<(links::Carried, Option<(RawFd, control::Carried)>)>,
    /// Every process that runs a handler's program, and its socket.
    #[serde(default)]
    pub pools: Vec<LeftPool>,
}

impl Lond {
    pub(super) fn leave_all(&self, m: &Machine<'_>, now: Instant) -> io::Result<Own> {
        let mut children = Vec::new();
        for link in self.links.leave(now) {
            let control = m.controls.leave(&link.pid)?;
            children.push((link, control));
        }
        Ok(Own {
            counts: self.board.counts,
            seen: self.board.seen(),
            listeners: self.listeners.iter().map(|l| (l.address, l.socket.as_raw_fd())).collect(),
            children,
            pools: self.leave_pools(m, now)?,
        })
    }

    /// Takes over what the program before `exec` left: sockets that are still wanted, and every
    /// child, which is told to end: its caller dials again and gets one with the new configuration.
    pub(super) fn adopt(
        &mut self,
        m: &mut Machine<'_>,
        left: Own,
        mut descriptors: Descriptors,
        now: Instant,
    ) {
        self.board.counts = left.counts;
        for GoneCaller { caller, wire, last } in &left.seen {
            self.board.saw(caller, *wire, *last);
        }
        self.board.forget_strangers(&m.start.config);
        let wanted = m.start.config.lond.listen.clone();
        for (address, number) in left.listeners {
            let Some(fd) = descriptors.take(number) else { continue };
            if !wanted.contains(&address) {
                log::info!("{address} is no longer listened on");
                continue;
            }
            let token = m.tokens.fresh();
            match Listener::adopt(address, fd, token, m.poll.registry()) {
                // It would take the callers of an IPv4 address that is new beside it, or leave out
                // those of one that is gone.
                Ok(listener) if listener.only_v6 != only_v6(address, &wanted) => listener.close(),
                Ok(listener) => self.listeners.push(listener),
                Err(error) => log::error!("{error}"),
            }
        }
        let open = |address: &SocketAddr| self.listeners.iter().any(|listener| listener.address == *address);
        let missing: Vec<SocketAddr> = wanted.into_iter().filter(|address| !open(address)).collect();
        // Not fatal here, even if there is none: there are links, and each is tried again.
        self.listen_on(m, &missing, now);
        log::info!("started anew, listening on {}", addresses(&self.listeners));
        self.adopt_pools(m, left.pools, &mut descriptors, now);
        for (link, control) in left.children {
            let pid = link.pid;
            self.links.adopt(&link, now);
            if let Some((caller, from)) = self.links.get(pid).and_then(|link| link.known()) {
                self.names.called(&caller, from);
            }
            if let Some((number, carried)) = control
                && let Some(fd) = descriptors.take(number)
                && let Err(error) = m.controls.resume(pid, (fd, carried), m.poll.registry(), m.tokens.fresh())
            {
                log::error!("take over the control socket of child {pid}: {error}");
            }
            let deadline = self.drain_deadline(now);
            self.tell(m, pid, Event::Drain { deadline }, now);
        }
    }
}
