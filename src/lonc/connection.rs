//! The connection to the peer: a TCP stream, with a TLS tunnel around what passes if the wire is the secure one.
//!
//! Part of the reactor: it owns the socket and whether it may be read. What it hands on is what the peer said, in clear.
//! It becomes ready once: when the TCP connection is made and the tunnel, if there is one, is established. Every error is
//! final; whoever gets one drops the connection.

use crate::config::Pin;
use crate::wire::line::Outgoing;
use crate::wire::secure::Tunnel;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long the kernel lets unacknowledged bytes stand before it gives the connection up.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(60);
/// Enciphered bytes that wait to be written; at this mark no more are enciphered.
const SEALED_HIGH_WATER: usize = 256 * 1024;

/// See the module.
pub struct Connection {
    stream: TcpStream,
    tunnel: Option<Box<Tunnel>>,
    stage: Stage,
    /// There may be something to read; no further edge comes before a read has found nothing.
    readable: bool,
    /// The end of the stream was announced: a read that leaves the socket empty must be followed by another.
    ends: bool,
    /// What the tunnel gave out and was not handed on yet.
    plain: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Shaking,
    Ready,
}

impl Connection {
    /// Begins a connection without waiting for it.
    ///
    /// # Errors
    /// What the system said.
    pub fn begin(
        address: SocketAddr,
        bind: Option<IpAddr>,
        tunnel: Option<Tunnel>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Connection> {
        let mut stream = start_connecting(address, bind)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let tunnel = tunnel.map(Box::new);
        Ok(Connection {
            stream,
            tunnel,
            stage: Stage::Connecting,
            readable: false,
            ends: false,
            plain: Vec::new(),
        })
    }

    /// Notes what the poll said.
    pub fn note(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.ends |= event.is_read_closed() || event.is_error();
    }

    /// Whether a read may find something.
    pub fn readable(&self) -> bool {
        self.readable && self.stage != Stage::Connecting
    }

    /// Whether the TCP connection is made.
    pub fn is_connected(&self) -> bool {
        self.stage != Stage::Connecting
    }

    /// Goes on with making the connection; `true` at the moment when it is ready.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn advance(&mut self, scratch: &mut [u8]) -> Result<bool, String> {
        if self.stage == Stage::Connecting {
            if !connected(&self.stream)? {
                return Ok(false);
            }
            self.stage = Stage::Shaking;
        }
        if self.stage != Stage::Shaking {
            return Ok(false);
        }
        let Some(tunnel) = &mut self.tunnel else {
            self.stage = Stage::Ready;
            return Ok(true);
        };
        while !tunnel.established() && self.readable {
            let count = read(&mut self.stream, &mut self.readable, self.ends, scratch)?;
            let fed = tunnel.feed(&scratch[..count], &mut self.plain);
            // An alert is for the other side even when it is all over here.
            let written = tunnel.out().flush_to(&mut self.stream);
            fed.map_err(|error| error.to_string())?;
            written.map_err(|error| format!("write: {error}"))?;
        }
        tunnel.out().flush_to(&mut self.stream).map_err(|error| format!("write: {error}"))?;
        let ready = tunnel.established();
        if ready {
            self.stage = Stage::Ready;
        }
        Ok(ready)
    }

    /// Reads once and hands on what the peer said; returns how many bytes were read.
    ///
    /// # Errors
    /// The connection is over; what the peer said before that was handed on.
    pub fn read(&mut self, scratch: &mut [u8], mut hand_on: impl FnMut(&[u8])) -> Result<usize, String> {
        if self.stage != Stage::Ready {
            return Ok(0);
        }
        // What came together with the end of the handshake.
        if !self.plain.is_empty() {
            hand_on(&self.plain);
            self.plain.clear();
        }
        let count = read(&mut self.stream, &mut self.readable, self.ends, scratch)?;
        let Some(tunnel) = &mut self.tunnel else {
            if count > 0 {
                hand_on(&scratch[..count]);
            }
            return Ok(count);
        };
        let fed = tunnel.feed(&scratch[..count], &mut self.plain);
        if !self.plain.is_empty() {
            hand_on(&self.plain);
            self.plain.clear();
        }
        if let Err(error) = fed {
            let _ = tunnel.out().flush_to(&mut self.stream);
            return Err(error.to_string());
        }
        if tunnel.peer_closed() {
            return Err("closed by the peer".to_owned());
        }
        Ok(count)
    }

    /// Writes of `out` what can be written; returns how many bytes of it were taken.
    ///
    /// # Errors
    /// The connection is over.
    pub fn write(&mut self, out: &mut Outgoing) -> Result<usize, String> {
        if self.stage != Stage::Ready {
            return Ok(0);
        }
        let before = out.len();
        let failed = |error: io::Error| format!("write: {error}");
        match &mut self.tunnel {
            None => {
                out.flush_to(&mut self.stream).map_err(failed)?;
            }
            Some(tunnel) => {
                while !out.is_empty() && tunnel.out().len() < SEALED_HIGH_WATER {
                    let count = out.len().min(SEALED_HIGH_WATER);
                    tunnel.seal(&out.bytes()[..count]).map_err(|error| error.to_string())?;
                    out.wrote(count);
                    tunnel.out().flush_to(&mut self.stream).map_err(failed)?;
                }
                tunnel.out().flush_to(&mut self.stream).map_err(failed)?;
            }
        }
        Ok(before - out.len())
    }

    /// Whether something that had to wait was written since the last call: see [`Outgoing::take_moved`]. `out` is what
    /// is given to [`Connection::write`].
    pub fn take_moved(&mut self, out: &mut Outgoing) -> bool {
        match &mut self.tunnel {
            None => out.take_moved(),
            Some(tunnel) => tunnel.out().take_moved(),
        }
    }

    /// Whether the peer's key has one of these pins. Not before it has shown one.
    pub fn is_with_one_of(&self, pins: &[Pin]) -> bool {
        let peer = self.tunnel.as_ref().and_then(|tunnel| tunnel.peer());
        peer.is_some_and(|(_, pin)| pins.contains(pin))
    }

    /// The connection ends: on the secure wire the peer is told why, as far as there is room for it. On the classic one
    /// nothing more is said, since what waits there can only be requests.
    pub fn last_words(&mut self, out: &mut Outgoing) {
        if self.tunnel.is_some() {
            // Nothing depends on it, and a connection that is lost takes nothing.
            let _ = self.write(out);
        }
    }
}

impl Drop for Connection {
    /// An orderly end is said, as far as there is room for it.
    fn drop(&mut self) {
        if let Some(tunnel) = &mut self.tunnel
            && self.stage == Stage::Ready
        {
            tunnel.close();
            let _ = tunnel.out().flush_to(&mut self.stream);
        }
    }
}

/// One read; 0 bytes when there is nothing now.
fn read(
    stream: &mut TcpStream,
    readable: &mut bool,
    ends: bool,
    scratch: &mut [u8],
) -> Result<usize, String> {
    loop {
        match stream.read(scratch) {
            Ok(0) => return Err("closed by the peer".to_owned()),
            Ok(count) => {
                // The socket is empty, and the next byte makes a new edge; the end of the stream, if it was announced
                // already, doesn't.
                *readable = count == scratch.len() || ends;
                return Ok(count);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                *readable = false;
                return Ok(0);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("read: {error}")),
        }
    }
}

/// Whether the TCP connection is made.
fn connected(stream: &TcpStream) -> Result<bool, String> {
    let error = match stream.peer_addr() {
        Ok(_) => return Ok(true),
        Err(error) if error.kind() == ErrorKind::NotConnected => match stream.take_error() {
            Ok(None) => return Ok(false),
            Ok(Some(error)) | Err(error) => error,
        },
        Err(error) => error,
    };
    Err(format!("connect: {error}"))
}

fn start_connecting(address: SocketAddr, bind: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(5);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    if let Some(bind) = bind {
        socket.bind(&SocketAddr::new(bind, 0).into())?;
    }
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}
