//! The TCP sockets that `lond` listens on; those that cannot be had are tried again
//! ([`super::absent`]).

use super::{Lond, Machine};
use net::SourceFd;
use net::listen::{bind, only_v6};
use net::{Interest, Registry, Token};
use socket2::SockRef;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;
use supervise::daemon::Tokens;

/// Connections that wait to be accepted; the system may have a lower bound.
const BACKLOG: i32 = 1024;

/// Why a socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}: {cause}")]
pub(super) struct ListenError {
    address: SocketAddr,
    /// What the system said.
    pub cause: io::Error,
}

/// One listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    /// The address as the configuration has it.
    pub address: SocketAddr,
    /// The socket; non-blocking.
    pub socket: TcpListener,
    /// By which the poll names it.
    pub token: Token,
    /// Connections may wait to be accepted. The poll says so once, when they come.
    pub ready: bool,
    /// It is `[::]`, and IPv4 callers have another one.
    pub only_v6: bool,
}

impl Listener {
    /// Listens on `address`; `[::]` takes IPv4 callers too, unless it is for IPv6 alone
    /// ([`only_v6`]), and is `0.0.0.0` on a machine without IPv6.
    ///
    /// # Errors
    /// When the address is not this machine's, or taken.
    pub(super) fn open(
        address: SocketAddr,
        only_v6: bool,
        token: Token,
        registry: &Registry,
    ) -> Result<Listener, ListenError> {
        let opened = bind(address, only_v6).and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        });
        opened
            .and_then(|socket| Listener::register(address, socket, token, registry))
            .map_err(|cause| ListenError { address, cause })
    }

    /// Goes on with the socket that the program before `exec` left.
    ///
    /// # Errors
    /// When it cannot be registered.
    pub(super) fn adopt(
        address: SocketAddr,
        fd: OwnedFd,
        token: Token,
        registry: &Registry,
    ) -> Result<Listener, ListenError> {
        Listener::register(address, fd.into(), token, registry)
            .map_err(|cause| ListenError { address, cause })
    }

    fn register(
        address: SocketAddr,
        socket: TcpListener,
        token: Token,
        registry: &Registry,
    ) -> io::Result<Listener> {
        registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
        // Of one that was left, the kernel knows; where there is no IPv6, the socket is one for
        // IPv4.
        let only_v6 = address.ip().is_unspecified() && SockRef::from(&socket).only_v6().unwrap_or(false);
        Ok(Listener { address, socket, token, ready: false, only_v6 })
    }
}

impl Listener {
    /// Ends listening at once: closing alone would leave the port taken for as long as a child that
    /// was forked a moment ago has its copy of the descriptor.
    pub(super) fn close(self) {
        if let Err(error) = SockRef::from(&self.socket).shutdown(Shutdown::Both) {
            log::debug!("shut down the socket of {}: {error}", self.address);
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Listens on all that can be had of these; with the others, and why they cannot.
///
/// # Errors
/// None can be had. Who starts a program sees at once that it serves nobody; who has it started
/// again and again need not.
#[expect(clippy::type_complexity, reason = "a named struct would be taken apart at once by the only caller")]
pub(super) fn open_all(
    wanted: &[SocketAddr],
    registry: &Registry,
    tokens: &mut Tokens,
) -> Result<(Vec<Listener>, Vec<(SocketAddr, ListenError)>), ListenError> {
    let (mut listeners, mut missing) = (Vec::new(), Vec::new());
    for address in wanted {
        match Listener::open(*address, only_v6(*address, wanted), tokens.fresh(), registry) {
            Ok(listener) => listeners.push(listener),
            Err(error) => missing.push((*address, error)),
        }
    }
    match missing.pop() {
        Some((_, error)) if listeners.is_empty() => Err(error),
        last => {
            missing.extend(last);
            Ok((listeners, missing))
        }
    }
}

/// Their addresses, for a line.
pub(super) fn addresses(listeners: &[Listener]) -> String {
    listeners.iter().map(|listener| listener.address.to_string()).collect::<Vec<_>>().join(", ")
}

impl Lond {
    pub(super) fn listen(&mut self, m: &mut Machine<'_>, address: SocketAddr) -> Result<(), ListenError> {
        let token = m.tokens.fresh();
        let alone = only_v6(address, &m.start.config.lond.listen);
        self.listeners.push(Listener::open(address, alone, token, m.poll.registry())?);
        Ok(())
    }

    /// Listens on all that can be had of these; the others are said, and tried again later.
    pub(super) fn listen_on(&mut self, m: &mut Machine<'_>, wanted: &[SocketAddr], now: Instant) {
        for address in wanted {
            if let Err(error) = self.listen(m, *address) {
                self.miss(*address, &error, now);
            }
        }
    }

    /// An address cannot be listened on.
    pub(super) fn miss(&mut self, address: SocketAddr, error: &ListenError, now: Instant) {
        if self.absent.note(address, error.cause.to_string(), now) {
            log::error!("{error}; no caller comes that way; tried again");
            self.board.changed();
        }
    }

    /// Tries again what could not be listened on, when that is due.
    pub(super) fn try_absent(&mut self, m: &mut Machine<'_>, now: Instant) {
        for address in self.absent.due(now) {
            match self.listen(m, address) {
                Ok(()) => {
                    log::info!("listening on {address} now");
                    self.absent.retain(|missing| missing != address);
                    self.board.changed();
                }
                Err(error) => self.miss(address, &error, now),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_socket_frees_its_port_though_another_process_still_has_a_copy() {
        let poll = net::Poll::new().unwrap();
        let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let first = Listener::open(everywhere, false, Token(0), poll.registry()).unwrap();
        let port = first.socket.local_addr().unwrap().port();
        let copy = first.socket.try_clone().unwrap();
        let there = SocketAddr::from(([127, 0, 0, 1], port));
        assert!(Listener::open(there, false, Token(1), poll.registry()).is_err());
        first.close();
        assert!(std::net::TcpStream::connect(there).is_err());
        Listener::open(there, false, Token(2), poll.registry()).unwrap();
        drop(copy);
    }
}
