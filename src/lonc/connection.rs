//! The connection to the peer: a TCP stream, with a TLS tunnel around what passes if the wire is
//! the secure one.
//!
//! Part of the reactor: it owns the socket. What it hands on is what the peer said, in clear. It
//! becomes ready once: when the TCP connection is made and the tunnel, if there is one, is
//! established. Every error is final; whoever gets one drops the connection.

use base::Pin;
use base::line::Outgoing;
use net::{Event, ReadOutcome, Registry, Stream, TcpStream, Token, tcp, write_sealed};
use std::io;
use std::os::fd::OwnedFd;
use wire::secure::Tunnel;

/// See the module.
pub struct Connection {
    stream: Stream<TcpStream>,
    tunnel: Option<Box<Tunnel>>,
    stage: Stage,
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
    /// Goes on with a connection that was begun.
    ///
    /// # Errors
    /// What the system said.
    pub fn go_on(
        begun: OwnedFd,
        tunnel: Option<Tunnel>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Connection> {
        let stream = tcp::go_on(begun, registry, token)?;
        let tunnel = tunnel.map(Box::new);
        Ok(Connection { stream, tunnel, stage: Stage::Connecting, plain: Vec::new() })
    }

    /// Notes what the poll said.
    pub fn note(&mut self, event: &Event) {
        self.stream.note(event);
    }

    /// Whether a read may find something.
    pub fn readable(&self) -> bool {
        self.stream.readable() && self.stage != Stage::Connecting
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
            if !tcp::is_connected(self.stream.socket()).map_err(|error| format!("connect: {error}"))? {
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
        while !tunnel.established() && self.stream.readable() {
            let count = read(&mut self.stream, scratch)?;
            let fed = tunnel.feed(&scratch[..count], &mut self.plain);
            // An alert is for the other side even when it is all over here.
            let written = self.stream.flush(tunnel.out());
            fed.map_err(|error| error.to_string())?;
            written.map_err(|error| format!("write: {error}"))?;
        }
        self.stream.flush(tunnel.out()).map_err(|error| format!("write: {error}"))?;
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
        let count = read(&mut self.stream, scratch)?;
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
            let _ = self.stream.flush(tunnel.out());
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
        let written = match &mut self.tunnel {
            None => self.stream.flush(out).map(|()| before - out.len()),
            Some(tunnel) => write_sealed(tunnel, out, &mut self.stream),
        };
        written.map_err(|error| format!("write: {error}"))
    }

    /// Whether something that had to wait was written since the last call: see
    /// [`Outgoing::take_moved`]. `out` is what is given to [`Connection::write`].
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

    /// The connection ends: on the secure wire the peer is told why, as far as there is room for
    /// it. On the classic one nothing more is said, since what waits there can only be requests.
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
            let _ = self.stream.flush(tunnel.out());
        }
    }
}

/// One read; 0 bytes when there is nothing now.
fn read(stream: &mut Stream<TcpStream>, scratch: &mut [u8]) -> Result<usize, String> {
    match stream.read(scratch) {
        Ok(ReadOutcome::Bytes(count)) => Ok(count),
        Ok(ReadOutcome::Nothing) => Ok(0),
        Ok(ReadOutcome::End) => Err("closed by the peer".to_owned()),
        Err(error) => Err(format!("read: {error}")),
    }
}
