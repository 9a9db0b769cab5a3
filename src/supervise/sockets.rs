//! Listening Unix sockets: one a peer, and those on which `lon` asks.
//!
//! A socket is made under a hidden name of its maker's own and renamed into its place, so that
//! there is no moment at which a program finds a socket there on which nobody listens, or one with
//! the wrong permissions, and so that of two programs which start at the same moment in the same
//! folder neither takes the other's. A file that an earlier process left behind gives way; anything
//! that is not a socket stays, and is an error for that socket alone.
//!
//! A [`LocalSocket`] knows its own file again ([`LocalSocket::is_in_place`]): what another has put
//! in its place is never removed, and never taken for one's own.

use base::disk::{Identity, own};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use std::ffi::OsStr;
use std::fs::{Metadata, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Connections that wait for the child to accept them; the system may have a lower bound
/// (`somaxconn`). One more waits in its own `connect`.
const BACKLOG: i32 = 4096;

/// Length of a hidden name: no longer than `lonc.sock`, so that where that one's path is short
/// enough, this one's is too. A host id cannot begin with a dot.
const HIDDEN_LENGTH: usize = 9;

/// What the rest of a hidden name is made of.
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Why a socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error("listen on {}: {cause}", path.display())]
pub struct SocketError {
    path: PathBuf,
    cause: io::Error,
}

/// Tells a socket's file from every other that has had, has or will have its name. The time is
/// there because a number is given to another file as soon as the first one is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    #[serde(flatten)]
    file: Identity,
    made: i64,
}

/// A listening socket and the file that leads to it.
#[derive(Debug)]
pub struct LocalSocket<L = UnixListener> {
    listener: L,
    path: PathBuf,
    mark: Option<Mark>,
}

impl LocalSocket {
    /// Listens on `path`, non-blocking and closed on `exec`, with these permission bits.
    ///
    /// # Errors
    /// When something else than a socket is there, or the system refuses.
    pub fn listen(path: &Path, mode: u32) -> Result<LocalSocket, SocketError> {
        try_listen(path, mode).map_err(|cause| SocketError { path: path.to_owned(), cause })
    }

    /// Goes on with the socket that the program before `exec` left: its descriptor, and what its
    /// file is known by. An older program does not tell that: then it is what is there now.
    pub fn adopt(path: &Path, fd: OwnedFd, mark: Option<Mark>) -> LocalSocket {
        LocalSocket { listener: fd.into(), path: path.to_owned(), mark: mark.or_else(|| Mark::of(path)) }
    }
}

impl<L> LocalSocket<L> {
    /// The same with another kind of listener.
    pub fn map<M>(self, into: impl FnOnce(L) -> M) -> LocalSocket<M> {
        LocalSocket { listener: into(self.listener), path: self.path, mark: self.mark }
    }

    /// The socket that takes connections.
    pub fn listener(&self) -> &L {
        &self.listener
    }

    /// What listens, to be registered.
    pub fn listener_mut(&mut self) -> &mut L {
        &mut self.listener
    }

    /// Where programs find it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its file is known by.
    pub fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// Whether its path still leads to it.
    pub fn is_in_place(&self) -> bool {
        match Mark::of(&self.path) {
            None => !is_missing(&self.path),
            found => found == self.mark,
        }
    }

    /// Whether it takes connections: a process that has a copy of it can end that, for good and for
    /// all.
    pub fn takes_connections(&self) -> bool
    where
        L: AsFd,
    {
        let shut = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR | libc::POLLNVAL;
        let mut look = libc::pollfd { fd: self.as_fd().as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
        // SAFETY: one of these, which lives through the call; nothing is waited for.
        let found = unsafe { libc::poll(&raw mut look, 1, 0) };
        // What the system does not tell just now is no sign of that.
        found <= 0 || look.revents & shut == 0
    }

    /// Removes its file, unless that is another's by now.
    pub fn remove(&self) {
        if self.mark.is_some() && Mark::of(&self.path) == self.mark {
            remove(&self.path);
        }
    }

    /// Sets the permission bits of its file.
    ///
    /// # Errors
    /// When the file is gone or the system refuses.
    pub fn set_mode(&self, mode: u32) -> Result<(), SocketError> {
        set_mode(&self.path, mode).map_err(|cause| SocketError { path: self.path.clone(), cause })
    }
}

impl<L: AsFd> AsFd for LocalSocket<L> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Mark {
    /// Of the socket at `path`; `None` when there is none.
    fn of(path: &Path) -> Option<Mark> {
        let found = std::fs::symlink_metadata(path).ok().filter(|found| found.file_type().is_socket())?;
        // When it was made does not change; a file system that does not know it has, for a socket,
        // the same as the time of its last change.
        let made = made(&found)?.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        Some(Mark { file: Identity::of(&found), made: i64::try_from(made).unwrap_or(i64::MAX) })
    }
}

/// Whether there is no socket at `path`: what the system does not tell just now is no sign of that.
fn is_missing(path: &Path) -> bool {
    match std::fs::symlink_metadata(path) {
        Ok(found) => !found.file_type().is_socket(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn made(found: &Metadata) -> Option<SystemTime> {
    found.created().or_else(|_| found.modified()).ok()
}

fn try_listen(path: &Path, mode: u32) -> io::Result<LocalSocket> {
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
    // A socket is bound once, so each try has its own; `bind` takes no name that is taken.
    let (socket, new) = own::exclusively(|| {
        let new = path.with_file_name(hidden_name()?);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(&new)?).inspect_err(|error| say_if_taken(&new, error))?;
        Ok((socket, new))
    })?;
    let placed = set_mode(&new, mode).and_then(|()| socket.listen(BACKLOG)).and_then(|()| {
        let mark = Mark::of(&new);
        std::fs::rename(&new, path).map(|()| mark)
    });
    match placed {
        Ok(mark) => Ok(LocalSocket { listener: OwnedFd::from(socket).into(), path: path.to_owned(), mark }),
        Err(error) => {
            remove(&new);
            Err(error)
        }
    }
}

fn say_if_taken(name: &Path, error: &io::Error) {
    if error.kind() == io::ErrorKind::AddrInUse {
        log::warn!("bind {}: {error}; another name is tried", name.display());
    }
}

fn hidden_name() -> io::Result<String> {
    let random = getrandom::u64().map_err(io::Error::other)?;
    let letters = LETTERS.iter().map(|letter| char::from(*letter)).collect::<Vec<_>>();
    let letter =
        |place: usize| letters.get((random >> (5 * place)) as usize % LETTERS.len()).copied().unwrap_or('a');
    Ok(std::iter::once('.').chain((1..HIDDEN_LENGTH).map(letter)).collect())
}

fn is_hidden_name(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    bytes.len() == HIDDEN_LENGTH
        && bytes
            .split_first()
            .is_some_and(|(dot, rest)| *dot == b'.' && rest.iter().all(|letter| LETTERS.contains(letter)))
}

/// Sets the permission bits of what is at `path` itself, if that is a socket: a link that somebody
/// put in its place leads to a file which is none of ours.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let there = std::fs::File::from(nix::fcntl::open(path, flags, Mode::empty())?);
    if !there.metadata()?.file_type().is_socket() {
        return Err(io::Error::other("something that is not a socket came to stand in its place"));
    }
    // A descriptor that only names a file cannot be given to `fchmod`, but its name can.
    let name = format!("/proc/self/fd/{}", there.as_raw_fd());
    std::fs::set_permissions(name, Permissions::from_mode(mode))
}

/// Removes a socket's file, if it is one.
fn remove(path: &Path) {
    let socket = std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket());
    if socket && let Err(error) = std::fs::remove_file(path) {
        log::warn!("remove {}: {error}", path.display());
    }
}

/// Removes hidden sockets that killed processes left in `folder`. Nothing that fails here matters.
pub fn sweep(folder: &Path) {
    for path in own::hidden_in(folder) {
        if path.file_name().is_some_and(is_hidden_name) && own::is_left_behind(&path) {
            remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    fn names(folder: &Path) -> Vec<std::ffi::OsString> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_socket_that_was_left_behind_gives_way_and_a_connect_never_fails_meanwhile() {
        let _still = crate::still::no_program_starts();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("msul1");
        drop(LocalSocket::listen(&path, 0o660).unwrap());
        assert!(UnixStream::connect(&path).is_err(), "nobody listens on what is left");
        let mut listener = LocalSocket::listen(&path, 0o600).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        for _ in 0..100 {
            UnixStream::connect(&path).unwrap();
            listener = LocalSocket::listen(&path, 0o660).unwrap();
        }
        assert_eq!(names(folder.path()).len(), 1, "no hidden name is left");
        drop(listener);
    }

    #[test]
    fn many_who_make_sockets_in_one_folder_at_once_each_have_their_own() {
        let _still = crate::still::no_program_starts();
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for maker in 0..4 {
                let path = folder.path().join(maker.to_string());
                scope.spawn(move || {
                    for _ in 0..200 {
                        let own = LocalSocket::listen(&path, 0o600).unwrap();
                        let client = UnixStream::connect(&path).unwrap();
                        // Non-blocking: the connection is there, or it went to another's.
                        own.listener().accept().unwrap();
                        drop(client);
                    }
                });
            }
        });
        assert_eq!(names(folder.path()).len(), 4);
    }

    #[test]
    fn a_socket_of_another_in_its_place_is_told_from_ones_own_and_not_removed() {
        let _still = crate::still::no_program_starts();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("msul1");
        let own = LocalSocket::listen(&path, 0o600).unwrap();
        own.set_mode(0o660).unwrap();
        assert!(own.is_in_place());
        std::fs::remove_file(&path).unwrap();
        assert!(!own.is_in_place());
        // Most file systems give the next file the number that has just become free.
        let others = LocalSocket::listen(&path, 0o600).unwrap();
        assert!(!own.is_in_place() && others.is_in_place());
        own.remove();
        assert!(others.is_in_place(), "it was another's");
        let mark: Mark =
            serde_json::from_str(&serde_json::to_string(&others.mark().unwrap()).unwrap()).unwrap();
        let fd = || others.as_fd().try_clone_to_owned().unwrap();
        LocalSocket::adopt(&path, fd(), own.mark()).remove();
        assert!(path.exists());
        LocalSocket::adopt(&path, fd(), Some(mark)).remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_was_shut_in_either_direction_takes_no_connections_and_a_full_one_does() {
        let _still = crate::still::no_program_starts();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("msul1");
        for how in [libc::SHUT_RD, libc::SHUT_RDWR] {
            let own = LocalSocket::listen(&path, 0o600).unwrap();
            let _client = UnixStream::connect(&path).unwrap();
            assert!(own.takes_connections());
            let copy = own.listener().try_clone().unwrap();
            // SAFETY: a number that is open.
            assert_eq!(unsafe { libc::shutdown(copy.as_raw_fd(), how) }, 0);
            drop(copy);
            assert!(UnixStream::connect(&path).is_err());
            assert!(!own.takes_connections());
        }
    }

    #[test]
    fn only_what_is_known_not_to_be_ones_own_socket_is_one_that_is_missing() {
        let _still = crate::still::no_program_starts();
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        std::fs::create_dir(&run).unwrap();
        let path = run.join("msul1");
        let own = LocalSocket::listen(&path, 0o600).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        assert!(!own.is_in_place(), "a file of another kind");
        // As in a folder that may not be looked into just now.
        std::fs::rename(&run, folder.path().join("elsewhere")).unwrap();
        std::fs::write(&run, "").unwrap();
        assert!(own.is_in_place());
    }

    #[test]
    fn hidden_names_are_each_makers_own_and_known_from_all_others() {
        let _still = crate::still::no_program_starts();
        let names: std::collections::BTreeSet<String> = (0..2000).map(|_| hidden_name().unwrap()).collect();
        assert_eq!(names.len(), 2000);
        assert!(names.iter().all(|name| is_hidden_name(name.as_ref())));
        for name in ["lonc.sock", "abcdefghi", ".abcdefg", ".abcdefghi", ".abcdefgH", ".abc.efgh", ""] {
            assert!(!is_hidden_name(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn a_link_in_the_place_of_a_socket_does_not_lead_its_permission_bits_elsewhere() {
        let _still = crate::still::no_program_starts();
        let folder = tempfile::tempdir().unwrap();
        let (path, precious) = (folder.path().join("msul1"), folder.path().join("precious"));
        std::fs::write(&precious, "").unwrap();
        std::fs::set_permissions(&precious, Permissions::from_mode(0o600)).unwrap();
        let own = LocalSocket::listen(&path, 0o600).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        own.set_mode(0o666).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        own.set_mode(0o666).unwrap_err();
        assert_eq!(precious.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_a_killed_process_left_is_swept_away_and_what_is_at_work_is_not() {
        let _still = crate::still::no_program_starts();
        let folder = tempfile::tempdir().unwrap();
        let hidden = |n: usize| folder.path().join(hidden_name().unwrap() + &"x".repeat(n));
        let (old, new, foreign) = (hidden(0), hidden(0), hidden(1));
        for path in [&old, &new, &foreign] {
            drop(UnixListener::bind(path).unwrap());
        }
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        let stamp =
            nix::sys::time::TimeSpec::from_duration(long_ago.duration_since(SystemTime::UNIX_EPOCH).unwrap());
        for path in [&old, &foreign] {
            let follow = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
            nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, path, &stamp, &stamp, follow).unwrap();
        }
        sweep(folder.path());
        assert!(!old.exists() && new.exists() && foreign.exists());
    }

    #[test]
    fn what_is_not_a_socket_stays_and_is_an_error() {
        let _still = crate::still::no_program_starts();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("msul1");
        std::fs::write(&path, "precious").unwrap();
        let error = LocalSocket::listen(&path, 0o660).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("listen on {}: a file that is not a socket is in its place", path.display())
        );
        remove(&path);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_an_error() {
        let _still = crate::still::no_program_starts();
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        assert!(LocalSocket::listen(&deep.join("msul1"), 0o660).is_err());
    }
}
