//! Who is at the other end of a Unix socket: what the system noted when it connected, which the
//! socket keeps, whoever has it.

use base::Credentials;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Groups that are asked for at once; the system says how many there are if they are more.
const GROUPS: usize = 64;

/// Who connected; nobody if the system does not say. Of whom the groups cannot be told has but one.
pub fn of(socket: &impl AsFd) -> Credentials {
    let Ok(peer) = getsockopt(&socket.as_fd(), PeerCredentials) else { return Credentials::nobody() };
    let mut groups = groups_of(socket).unwrap_or_default();
    groups.push(peer.gid());
    Credentials { user: peer.uid(), groups: groups.into() }
}

/// The process that had made the other end when it connected; of one that was connected to, the
/// process that listened.
pub fn process_of(socket: &impl AsFd) -> Option<u32> {
    getsockopt(&socket.as_fd(), PeerCredentials).ok().and_then(|peer| u32::try_from(peer.pid()).ok())
}

fn groups_of(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; GROUPS];
    loop {
        let mut bytes = (groups.len() * size_of::<libc::gid_t>()) as libc::socklen_t;
        // SAFETY: the descriptor is open as long as it is borrowed, and the system writes no more
        // than `bytes`, which is what the vector has, and how many it wrote or would have.
        let done = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let (count, error) = (bytes as usize / size_of::<libc::gid_t>(), io::Error::last_os_error());
        match done {
            0 => {
                groups.truncate(count);
                return Ok(groups);
            }
            _ if error.raw_os_error() == Some(libc::ERANGE) && count > groups.len() => {
                groups.resize(count, 0);
            }
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{getegid, geteuid, getgroups};
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_other_end_of_a_socket_of_ones_own_is_oneself() {
        let (one, _other) = UnixStream::pair().expect("a pair");
        let who = of(&one);
        assert_eq!(who.user, geteuid().as_raw());
        assert_eq!(process_of(&one), Some(std::process::id()));
        assert!(who.groups.contains(&getegid().as_raw()));
        for group in getgroups().expect("groups") {
            assert!(who.groups.contains(&group.as_raw()), "{group}");
        }
    }
}
