//! An address to listen on: how it is bound, and whether it could be; whether somebody waits there.
//!
//! `[::]` takes IPv4 callers too, unless an IPv4 address of its port stands beside it; on a machine
//! without IPv6 it is `0.0.0.0`.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

/// Whether `address` is `[::]` beside an IPv4 address of the same port among `all`, `0.0.0.0` say:
/// the kernel gives IPv4 callers to one of them only, so that `[::]` is then for IPv6 alone.
pub fn only_v6(address: SocketAddr, all: &[SocketAddr]) -> bool {
    let everyone = address.is_ipv6() && address.ip().is_unspecified();
    everyone && all.iter().any(|other| other.is_ipv4() && other.port() == address.port())
}

/// Whether `address` could be listened on beside the others of `all`; nothing is, and nobody who
/// does so just now notices.
///
/// # Errors
/// When it could not.
pub fn could_listen(address: SocketAddr, all: &[SocketAddr]) -> io::Result<()> {
    bind(address, only_v6(address, all)).map(drop)
}

/// A socket on `address`, which does not listen yet.
///
/// # Errors
/// When the address is not this machine's, or taken.
pub fn bind(address: SocketAddr, only_v6: bool) -> io::Result<Socket> {
    match bind_as_it_is(address, only_v6) {
        // Beside an IPv4 address there is nothing to stand in for.
        Err(error)
            if !only_v6
                && address.ip().is_unspecified()
                && error.raw_os_error() == Some(libc::EAFNOSUPPORT) =>
        {
            bind_as_it_is(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()), false)
        }
        bound => bound,
    }
}

fn bind_as_it_is(address: SocketAddr, only_v6: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A listener that was stopped leaves connections in TIME_WAIT, which must not stop the next
    // one.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6 || !address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Whether `error`, of an `accept`, says only that no descriptor could be had for nobody: the
/// kernel finds that out before it looks whether anybody waits to be accepted.
pub fn nobody_waits(error: &io::Error, listener: impl AsFd) -> bool {
    if !matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
        return false;
    }
    let mut looked = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    // Where it cannot be known, somebody may.
    poll(&mut looked, PollTimeout::ZERO) == Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everywhere_is_for_ipv6_alone_only_beside_an_ipv4_address_of_its_port() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let beside = |others: &[&str]| {
            let all: Vec<_> = others.iter().map(|text| address(text)).collect();
            only_v6(address("[::]:5663"), &all)
        };
        assert!(beside(&["[::]:5663", "0.0.0.0:5663"]) && beside(&["127.0.0.1:5663", "[::]:5663"]));
        assert!(!beside(&["[::]:5663"]) && !beside(&["0.0.0.0:5664", "[::1]:5663"]));
        assert!(!only_v6(address("[::1]:5663"), &[address("0.0.0.0:5663")]));
    }
}
