//! That nobody waits at a socket.
//!
//! It is a property of what was opened, which other processes have too; so a process that is
//! confined cannot change it, and makes sure before.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io;
use std::os::fd::AsFd;

/// Whether nobody waits there.
///
/// # Errors
/// What the system said.
pub fn does_not_wait(of: impl AsFd) -> io::Result<bool> {
    Ok(flags(of)?.contains(OFlag::O_NONBLOCK))
}

/// Has nobody wait there, if that is not so already.
///
/// # Errors
/// What the system said.
pub fn unblock(what: impl AsFd) -> io::Result<()> {
    let flags = flags(&what)?;
    if !flags.contains(OFlag::O_NONBLOCK) {
        fcntl(&what, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    }
    Ok(())
}

fn flags(of: impl AsFd) -> io::Result<OFlag> {
    Ok(OFlag::from_bits_retain(fcntl(of, FcntlArg::F_GETFL)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_socket_that_would_wait_does_not_and_stays_so() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(!does_not_wait(&one).unwrap());
        for _ in 0..2 {
            unblock(&one).unwrap();
            assert!(does_not_wait(&one).unwrap());
        }
    }
}
