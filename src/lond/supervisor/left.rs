//! HUP: what a `lond` leaves to the one that follows it under the same pid, and how that one takes it over.
//!
//! Nothing is let go before the new program has it: one that does not pass its trial, or an `exec` that fails, leaves
//! the old program as it was.

use super::board::Counts;
use super::links::{self, Event};
use super::listeners::Listener;
use super::{Supervisor, addresses, next};
use crate::net::listen::only_v6;
use crate::status::GoneCaller;
use crate::supervise::control::{self, Channel};
use crate::supervise::handoff;
use crate::supervise::sockets::Mark;
use crate::supervise::startup::{Common, Legacy, Start};
use jiff::Timestamp;
use mio::Interest;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Instant;

/// Sockets and children. Descriptors are numbers; the handoff keeps them open.
#[derive(Debug, Serialize, Deserialize)]
pub struct Left {
    /// Lock and log.
    pub common: Common,
    /// When the first program under this pid started; not there in what a program left that did not say so.
    #[serde(default)]
    pub started: Option<Timestamp>,
    /// What was counted since.
    #[serde(default)]
    pub counts: Counts,
    /// Who has had a link since.
    #[serde(default)]
    pub seen: Vec<GoneCaller>,
    /// The socket that `lon status` asks on.
    #[serde(default)]
    pub admin: Option<RawFd>,
    /// What its file is known by.
    #[serde(default)]
    pub admin_mark: Option<Mark>,
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

impl Supervisor<'_> {
    /// What a HUP asks for, step by step: see [`crate::supervise::restart`].
    pub(super) fn restart(&mut self, now: Instant) {
        while let Some(step) = self.start.restarts.step(now) {
            let left = self.leave(now);
            let Start { restarts, image, places, .. } = &mut *self.start;
            let (lock, spool_lock) = places.descriptors();
            let mut open: Vec<BorrowedFd<'_>> = vec![lock, self.admin.as_fd()];
            open.extend(spool_lock);
            open.extend(self.listeners.iter().map(AsFd::as_fd));
            open.extend(self.controls.values().map(|(_, channel)| channel.as_fd()));
            let late = restarts.carry_out(step, image, left, &open, &mut self.signals, now);
            late.into_iter().for_each(|signal| self.signal(signal, now));
        }
        self.board.set_failure(self.start.restarts.failure());
    }

    fn leave(&self, now: Instant) -> io::Result<Left> {
        let mut children = Vec::new();
        for link in self.links.leave(now) {
            let control = match self.controls.get(&link.pid) {
                Some((_, channel)) => Some((channel.as_fd().as_raw_fd(), channel.carried()?)),
                None => None,
            };
            children.push((link, control));
        }
        Ok(Left {
            common: Common::of(self.start, self.key.pin().is_some(), &self.start.restarts),
            started: Some(self.board.started()),
            counts: self.board.counts,
            seen: self.board.seen(),
            admin: Some(self.admin.as_fd().as_raw_fd()),
            admin_mark: self.admin.mark(),
            listeners: self.listeners.iter().map(|l| (l.address, l.socket.as_raw_fd())).collect(),
            children,
        })
    }

    /// Takes over what the program before `exec` left: sockets that are still wanted, and every child, which is
    /// told to end: its caller dials again and gets one with the new configuration.
    pub(super) fn adopt(&mut self, left: Left, mut descriptors: handoff::Descriptors, now: Instant) {
        for GoneCaller { caller, wire, last } in &left.seen {
            self.board.saw(caller, *wire, *last);
        }
        self.board.forget_strangers(&self.start.config);
        let wanted = self.start.config.lond.listen.clone();
        for (address, number) in left.listeners {
            let Some(fd) = descriptors.take(number) else { continue };
            if !wanted.contains(&address) {
                log::info!("{address} is no longer listened on");
                continue;
            }
            let token = next(&mut self.next_token);
            match Listener::adopt(address, fd, token, self.poll.registry()) {
                // It would take the callers of an IPv4 address that is new beside it, or leave out those of one that is gone.
                Ok(listener) if listener.only_v6 != only_v6(address, &wanted) => listener.close(),
                Ok(listener) => self.listeners.push(listener),
                Err(error) => log::error!("{error}"),
            }
        }
        let open = |address: &SocketAddr| self.listeners.iter().any(|listener| listener.address == *address);
        let missing: Vec<SocketAddr> = wanted.into_iter().filter(|address| !open(address)).collect();
        // Not fatal here, even if there is none: there are links, and each is tried again.
        self.listen_on(&missing, now);
        log::info!("started anew, listening on {}", addresses(&self.listeners));
        for (link, control) in left.children {
            let pid = link.pid;
            self.links.adopt(&link, now);
            if let Some((caller, from)) = self.links.get(pid).and_then(|link| link.known()) {
                self.names.called(&caller, from);
            }
            if let Some((number, carried)) = control
                && let Some(fd) = descriptors.take(number)
                && let Err(error) = self.resume(pid, fd, carried)
            {
                log::error!("take over the control socket of child {pid}: {error}");
            }
            let deadline = self.drain_deadline(now);
            self.tell(pid, Event::Drain { deadline }, now);
        }
    }

    fn resume(&mut self, pid: u32, fd: OwnedFd, carried: control::Carried) -> io::Result<()> {
        let mut channel = Channel::resume(fd, carried)?;
        let token = next(&mut self.next_token);
        self.poll.registry().register(&mut channel, token, Interest::READABLE | Interest::WRITABLE)?;
        self.tokens.insert(token, pid);
        self.controls.insert(pid, (token, channel));
        Ok(())
    }
}
