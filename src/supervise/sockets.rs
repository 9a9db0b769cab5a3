//! Listening Unix sockets: one a peer, and those on which `lon` asks.
//!
//! A socket is made under a hidden name and renamed into its place, so that there is no moment at which a program
//! finds a socket there on which nobody listens, or one with the wrong permissions. A file that an earlier process
//! left behind gives way; anything that is not a socket stays, and is an error for that socket alone.

use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Connections that wait for the child to accept them; the system may have a lower bound (`somaxconn`). One more
/// waits in its own `connect`.
const BACKLOG: i32 = 4096;

/// Hidden name in the folder of the sockets; a host id cannot begin with a dot.
const NEW: &str = ".new.sock";

/// Why a socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error("listen on {}: {cause}", path.display())]
pub struct SocketError {
    path: PathBuf,
    cause: io::Error,
}

/// Listens on `path`, non-blocking and closed on `exec`, with these permission bits.
///
/// # Errors
/// When something else than a socket is there, or the system refuses.
pub fn listen(path: &Path, mode: u32) -> Result<UnixListener, SocketError> {
    try_listen(path, mode).map_err(|cause| SocketError { path: path.to_owned(), cause })
}

fn try_listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file that is not a socket is in its place",
            ));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let new = path.with_file_name(NEW);
    // Left behind by a supervisor that ended between the two steps below.
    remove(&new);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(&new)?)?;
    let placed = std::fs::set_permissions(&new, Permissions::from_mode(mode))
        .and_then(|()| socket.listen(BACKLOG))
        .and_then(|()| std::fs::rename(&new, path));
    if let Err(error) = placed {
        remove(&new);
        return Err(error);
    }
    Ok(UnixListener::from(std::os::fd::OwnedFd::from(socket)))
}

/// Sets the permission bits of a socket that stays.
///
/// # Errors
/// When the file is gone or the system refuses.
pub fn set_mode(path: &Path, mode: u32) -> Result<(), SocketError> {
    std::fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(|cause| SocketError { path: path.to_owned(), cause })
}

/// Removes a socket's file, if it is one.
pub fn remove(path: &Path) {
    let socket = std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket());
    if socket && let Err(error) = std::fs::remove_file(path) {
        log::warn!("remove {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_socket_that_was_left_behind_gives_way_and_a_connect_never_fails_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("msul1");
        drop(listen(&path, 0o660).unwrap());
        assert!(UnixStream::connect(&path).is_err(), "nobody listens on what is left");
        let mut listener = listen(&path, 0o600).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        for _ in 0..100 {
            UnixStream::connect(&path).unwrap();
            listener = listen(&path, 0o660).unwrap();
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no hidden name is left");
        drop(listener);
    }

    #[test]
    fn what_is_not_a_socket_stays_and_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("msul1");
        std::fs::write(&path, "precious").unwrap();
        let error = listen(&path, 0o660).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("listen on {}: a file that is not a socket is in its place", path.display())
        );
        remove(&path);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        assert!(listen(&deep.join("msul1"), 0o660).is_err());
    }
}
