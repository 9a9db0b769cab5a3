//! Which wire a caller speaks, by the first byte that it sends: one port serves both.
//!
//! Looks at the byte and leaves it there. There is nothing else to do meanwhile but to hear whether
//! the supervisor, or a signal, wants the link to end, so this waits; until the deadline at the
//! most. Fails when the system does not let it wait, or the connection is broken.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

/// First byte of a TLS handshake. No line of the classic wire begins with it.
const HANDSHAKE: u8 = 0x16;

/// What came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// It begins a TLS handshake: the secure wire.
    Tls,
    /// Anything else.
    Other,
    /// The end of what the caller sends.
    End,
    /// A word of the supervisor, its end, or a signal: the link is not wanted any more.
    Told,
    /// The time for it is over.
    Deadline,
}

/// Waits for what comes first. `ends`: what is readable when the link is not wanted any more.
///
/// # Errors
/// What `poll` or `recv` said.
pub(crate) fn wait(stream: &TcpStream, ends: [BorrowedFd<'_>; 2], deadline: Instant) -> io::Result<First> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(First::Deadline);
        }
        // Rounded up, so as not to wake just before the deadline again and again.
        let left = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        let [control, signals] = ends;
        let mut watched = [stream.as_fd(), control, signals].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut watched, left) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [caller, supervisor, signal] = watched.map(|fd| fd.any().unwrap_or_default());
        if supervisor || signal {
            return Ok(First::Told);
        }
        let mut byte = [0];
        match if caller { stream.peek(&mut byte) } else { continue } {
            Ok(0) => return Ok(First::End),
            Ok(_) => return Ok(if byte == [HANDSHAKE] { First::Tls } else { First::Other }),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener};
    use std::time::Duration;
    use supervise::control;

    fn ends() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        (caller, stream)
    }

    #[test]
    fn the_first_byte_tells_the_wires_apart_and_is_left_where_it_is() {
        let soon = Instant::now() + Duration::from_secs(20);
        let (quiet, _nobody) = control::pair().unwrap();
        let (supervisor, control) = control::pair().unwrap();
        for (sent, first) in [(&b"\x16\x03\x01"[..], First::Tls), (b"init\n", First::Other)] {
            let (mut caller, mut stream) = ends();
            caller.write_all(sent).unwrap();
            assert_eq!(wait(&stream, [control.as_fd(), quiet.as_fd()], soon).unwrap(), first);
            stream.set_nonblocking(false).unwrap();
            let mut read = vec![0; sent.len()];
            stream.read_exact(&mut read).unwrap();
            assert_eq!(read, sent);
        }
        let (caller, stream) = ends();
        caller.shutdown(Shutdown::Write).unwrap();
        assert_eq!(wait(&stream, [control.as_fd(), quiet.as_fd()], soon).unwrap(), First::End);
        let (_caller, stream) = ends();
        let deadline = Instant::now() + Duration::from_millis(50);
        assert_eq!(wait(&stream, [control.as_fd(), quiet.as_fd()], deadline).unwrap(), First::Deadline);
        assert!(Instant::now() >= deadline);
        drop(supervisor);
        assert_eq!(wait(&stream, [control.as_fd(), quiet.as_fd()], soon).unwrap(), First::Told);
    }
}
