//! The way out through a tunnel.

use super::Stream;
use base::line::Outgoing;
use mio::net::TcpStream;
use std::io;
use wire::secure::Tunnel;

/// Bytes of ciphertext that may wait to be written. At the bound nothing more is enciphered.
pub const SEALED_FULL: usize = 256 * 1024;

/// Enciphers what waits in `plain` and writes it, as far as the socket takes it; how many bytes of
/// `plain` that took. What was enciphered before goes first, and also when `plain` is empty. At the
/// bound of what may wait nothing is taken.
///
/// # Errors
/// What the socket said; or the tunnel is gone.
pub fn write_sealed(
    tunnel: &mut Tunnel,
    plain: &mut Outgoing,
    stream: &mut Stream<TcpStream>,
) -> io::Result<usize> {
    let before = plain.len();
    // First: where there was no room and now is, no further word of it comes while it is not used
    // up.
    stream.flush(tunnel.out())?;
    while !plain.is_empty() && tunnel.out().len() < SEALED_FULL {
        let count = plain.len().min(SEALED_FULL);
        tunnel.seal(plain.bytes().get(..count).unwrap_or_default()).map_err(io::Error::other)?;
        plain.wrote(count);
        stream.flush(tunnel.out())?;
    }
    Ok(before - plain.len())
}
