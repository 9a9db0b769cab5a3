//! Standard error of a program in the foreground: it may be a pipe that nobody reads, a terminal
//! that was stopped, or the journal's socket, and none of them may hold the program up.
//!
//! Whether a write waits is a property of the open file, which others have too (the shell, the rest
//! of a pipeline), so it is not changed. A pipe or a terminal is opened a second time instead
//! ([`prepare`]), and a socket asked not to wait with each write. Where it cannot be opened
//! (another user's), the kernel is asked with each write, too.

use super::place::Out;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// How a write is kept from waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The file is our own and does not wait, or it is of a kind that never makes wait.
    Plain,
    /// A socket: it is asked with each write.
    Socket,
    /// A pipe or a terminal that could not be opened a second time.
    Asked,
}

/// See the module.
#[derive(Debug)]
pub struct Console {
    fd: RawFd,
    way: Way,
}

/// Has standard error be a file of this process's own, if it is one that could make wait. To be
/// called first: later, as another user, it may not be possible any more.
pub fn prepare() {
    Console::new(libc::STDERR_FILENO);
}

/// Says something to who has started a program, before there is a log or beside it: `lonc: what`, a
/// line that what it is about cannot break. It is written as standard error is: without waiting
/// once [`prepare`] was called.
pub fn say(program: &str, what: impl std::fmt::Display) {
    let line = super::escaped(format_args!("{program}: {what}")) + "\n";
    // If nobody is there to read it, nobody can be told.
    let _ = io::stderr().write_all(line.as_bytes());
}

impl Console {
    /// Standard error.
    pub fn stderr() -> Console {
        Console::new(libc::STDERR_FILENO)
    }

    /// `fd` stays open for as long as this lives.
    fn new(fd: RawFd) -> Console {
        Console { fd, way: way(fd).unwrap_or(Way::Asked) }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        borrowed(self.fd)
    }
}

fn borrowed<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: standard error is open for as long as the process lives (Rust's runtime sees to it at
    // the start), and in tests the pipe outlives the console.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

fn way(fd: RawFd) -> nix::Result<Way> {
    let kind = SFlag::from_bits_truncate(fstat(borrowed(fd))?.st_mode & libc::S_IFMT);
    if kind == SFlag::S_IFSOCK {
        return Ok(Way::Socket);
    }
    let waits =
        !OFlag::from_bits_truncate(fcntl(borrowed(fd), FcntlArg::F_GETFL)?).contains(OFlag::O_NONBLOCK);
    // A file of the disk has a place of its own where it is written, which a second opening would
    // not share.
    if !waits || ![SFlag::S_IFIFO, SFlag::S_IFCHR].contains(&kind) {
        return Ok(Way::Plain);
    }
    Ok(if open_again(fd).is_ok() { Way::Plain } else { Way::Asked })
}

/// Puts a second opening of the same pipe or terminal, which does not wait, in the place of `fd`.
fn open_again(fd: RawFd) -> nix::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let own = open(format!("/proc/self/fd/{fd}").as_str(), flags, Mode::empty())?;
    // SAFETY: `fd` is standard error, or a test's: nobody in this process owns it, and it stays
    // open under its number.
    Errno::result(unsafe { libc::dup2(own.as_raw_fd(), fd) }).map(drop)
}

/// A write that the kernel is asked to refuse rather than wait. Older kernels don't know how to be
/// asked so (for pipes: before Linux 6.4): then it is looked at first, which leaves a moment in
/// which another process may take the room.
fn ask(fd: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<usize> {
    let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: one part, whose bytes are only read and live as long as the call.
    let written = unsafe { libc::pwritev2(fd.as_raw_fd(), &raw const part, 1, -1, libc::RWF_NOWAIT) };
    match Errno::result(written) {
        Ok(count) => Ok(count.unsigned_abs()),
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL | Errno::ESPIPE) => {
            let mut place = [PollFd::new(fd, PollFlags::POLLOUT)];
            match poll(&mut place, PollTimeout::ZERO)? {
                0 => Err(Errno::EAGAIN),
                _ => unistd::write(fd, bytes),
            }
        }
        Err(errno) => Err(errno),
    }
}

impl Out for Console {
    /// So much a pipe takes whole or not at all.
    const LONGEST: usize = libc::PIPE_BUF;

    fn write_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let written = match self.way {
                Way::Plain => unistd::write(self.fd(), bytes),
                Way::Socket => send(self.fd, bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL),
                Way::Asked => ask(self.fd(), bytes),
            };
            match written {
                Err(Errno::EINTR) => {}
                written => return Ok(written?),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::common::Common;
    use super::super::place::Place;
    use super::*;
    use std::io::{ErrorKind, Read};
    use std::os::fd::{FromRawFd, OwnedFd};
    use std::os::unix::net::UnixStream;

    /// Writes until it is refused; how many lines that were.
    fn fill(console: &mut Console) -> usize {
        let line = [b'x'; 1000];
        for count in 0..100_000 {
            match console.write_once(&line) {
                Ok(written) => assert_eq!(written, line.len(), "whole or not at all"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    return count;
                }
            }
        }
        panic!("it takes lines without end");
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_not_waited_for_and_others_who_have_it_are_not_changed() {
        let (reader, writer) = std::io::pipe().unwrap();
        let others = writer.try_clone().unwrap();
        let mut console = Console::new(writer.as_raw_fd());
        assert_eq!(console.way, Way::Plain);
        assert!(fill(&mut console) > 10);
        let flags = fcntl(&others, FcntlArg::F_GETFL).unwrap();
        assert!(!OFlag::from_bits_truncate(flags).contains(OFlag::O_NONBLOCK));
        drop(reader);
    }

    #[test]
    fn a_pipe_that_cannot_be_opened_again_is_asked_with_each_write() {
        let (_reader, writer) = std::io::pipe().unwrap();
        let mut console = Console { fd: writer.as_raw_fd(), way: Way::Asked };
        assert!(fill(&mut console) > 10);
    }

    #[test]
    fn a_socket_that_nobody_reads_is_not_waited_for() {
        let (_reader, writer) = UnixStream::pair().unwrap();
        let mut console = Console::new(writer.as_raw_fd());
        assert_eq!(console.way, Way::Socket);
        assert!(fill(&mut console) > 10);
    }

    /// Both ends of a terminal.
    fn terminal() -> (OwnedFd, OwnedFd) {
        let mut name = [0; 64];
        // SAFETY: each call has the descriptor that the first made; the name is written within its
        // room, with an end.
        let ends = unsafe {
            let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY);
            assert!(master >= 0 && libc::grantpt(master) == 0 && libc::unlockpt(master) == 0);
            assert_eq!(libc::ptsname_r(master, name.as_mut_ptr(), name.len()), 0);
            let slave = libc::open(name.as_ptr(), libc::O_RDWR | libc::O_NOCTTY);
            assert!(slave >= 0);
            [master, slave].map(|fd| OwnedFd::from_raw_fd(fd))
        };
        ends.into()
    }

    #[test]
    fn a_terminal_that_was_stopped_is_not_waited_for_and_goes_on_with_a_line_of_its_own() {
        let (master, slave) = terminal();
        // SAFETY: the descriptor is open. It is what Ctrl-S does.
        assert_eq!(unsafe { libc::tcflow(slave.as_raw_fd(), libc::TCOOFF) }, 0);
        let common: &Common = crate::shared::zeroed().unwrap();
        let mut place = Place::new(Console::new(slave.as_raw_fd()), &common.console);
        assert_eq!(place.out.way, Way::Plain);
        let refused = (0..1000).filter(|_| place.put(&"z".repeat(1000)).is_err()).count();
        assert!(refused > 0);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::tcflow(slave.as_raw_fd(), libc::TCOON) }, 0);
        let mut screen = std::fs::File::from(master);
        let mut text = String::new();
        let mut buffer = [0; 4096];
        while !text.contains("left out: ") {
            // It is full until the screen has shown what it held; either way there is something to
            // show.
            let _ = place.put("again");
            let count = screen.read(&mut buffer).unwrap();
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        let line = text.lines().find(|line| line.contains("left out: ")).unwrap();
        assert!(line.starts_with("again ("), "{line}");
    }

    #[test]
    fn what_a_full_pipe_did_not_take_is_counted_in_the_first_line_that_it_takes_again() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let common: &Common = crate::shared::zeroed().unwrap();
        let mut place = Place::new(Console::new(writer.as_raw_fd()), &common.console);
        let put = 200;
        let taken = (0..put).filter(|_| place.put(&"y".repeat(1000)).is_ok()).count();
        let mut buffer = vec![0; 1 << 20];
        let held = reader.read(&mut buffer).unwrap() / 1001;
        assert_eq!(held, taken);
        assert_eq!(place.put("next"), Ok(()));
        let said = reader.read(&mut buffer).unwrap();
        let said = String::from_utf8_lossy(&buffer[..said]).into_owned();
        assert!(said.starts_with(&format!("next ({} lines before this left out: ", put - held)), "{said}");
    }
}
