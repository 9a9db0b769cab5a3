//! A connection between hosts: how it is made, and what the kernel is to do with it.
//!
//! Nothing here looks after a link by itself: the secure wire has its heartbeat, and the options
//! find out what that leaves, a classic peer that has vanished first of all.

use super::{Registry, Stream, Token};
use mio::net::TcpStream;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Silence after which the kernel asks whether the other side is still there: seldom enough to cost
/// nothing.
pub const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// Pause between two such questions: a lost packet is not taken for a lost host.
pub const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// Questions without an answer that end the connection: with the silence before, two minutes less
/// ten seconds.
pub const KEEPALIVE_TRIES: u32 = 5;
/// How long written bytes may stay unacknowledged, or the other side's receive window shut, before
/// the connection ends: while something is unacknowledged the kernel asks nothing, and by itself
/// would try for a quarter of an hour.
pub const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// Sets the options of a connection, at either end.
///
/// # Errors
/// What the system said.
pub fn set_up(socket: SockRef<'_>) -> io::Result<()> {
    // Each end writes once a turn what came together; to wait for more would only delay it.
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_TRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Begins to connect, from `bind` if it is to be that address, without waiting for it. What comes
/// of it is for whoever goes on with it ([`go_on`]), in this process or in another.
///
/// # Errors
/// What the system said.
pub fn begin(address: SocketAddr, bind: Option<IpAddr>) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    set_up(SockRef::from(&socket))?;
    if let Some(bind) = bind {
        socket.bind(&SocketAddr::new(bind, 0).into())?;
    }
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

/// Watches a connection that was begun.
///
/// # Errors
/// What the system said.
pub fn go_on(begun: OwnedFd, registry: &Registry, token: Token) -> io::Result<Stream<TcpStream>> {
    Stream::of_unconnected(TcpStream::from_std(begun.into()), registry, token)
}

/// Whether a connection that was begun is made.
///
/// # Errors
/// It cannot be.
pub fn is_connected(stream: &TcpStream) -> io::Result<bool> {
    let error = match stream.peer_addr() {
        Ok(_) => return Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => match stream.take_error() {
            Ok(None) => return Ok(false),
            Ok(Some(error)) | Err(error) => error,
        },
        Err(error) => error,
    };
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::Poll;

    fn assert_set_up(socket: SockRef<'_>) {
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_AFTER);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_EVERY);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_TRIES);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }

    #[test]
    fn both_ends_of_a_connection_notice_a_host_that_vanished() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let poll = Poll::new().unwrap();
        let begun = begin(listener.local_addr().unwrap(), None).unwrap();
        let calling = go_on(begun, poll.registry(), Token(0)).unwrap();
        assert_set_up(SockRef::from(calling.socket()));
        let (called, _) = listener.accept().unwrap();
        set_up(SockRef::from(&called)).unwrap();
        assert_set_up(SockRef::from(&called));
        assert!(is_connected(calling.socket()).unwrap() && !calling.readable());
    }
}
