//! Which calls fail, how, and at which of their times.

use crate::shim::Seen;
use std::fmt;

/// A call, and what it can fail with.
pub struct Call {
    /// As in `shim.c`.
    pub name: &'static str,
    /// The errors that it can give; [`SHORT`] is a short count.
    pub errors: &'static [i32],
}

/// Half of the bytes, and no error.
pub const SHORT: i32 = 0;

const DESCRIPTORS: &[i32] = &[libc::EMFILE, libc::ENFILE, libc::ENOMEM];

/// Every call that is made to fail, in the order of `shim.c`.
pub const CALLS: [Call; 47] = [
    Call { name: "open", errors: &[libc::ENOSPC, libc::EIO, libc::EMFILE, libc::ENFILE, libc::EINTR] },
    Call { name: "opendir", errors: &[libc::EMFILE, libc::EIO] },
    Call { name: "stat", errors: &[libc::EIO] },
    Call { name: "statvfs", errors: &[libc::EIO, libc::EINTR] },
    Call { name: "mkdir", errors: &[libc::ENOSPC, libc::EIO] },
    Call { name: "rename", errors: &[libc::ENOSPC, libc::EIO] },
    Call { name: "unlink", errors: &[libc::EIO, libc::EROFS] },
    Call { name: "chmod", errors: &[libc::EIO] },
    Call { name: "ftruncate", errors: &[libc::EIO, libc::EINTR] },
    Call { name: "close", errors: &[libc::EIO] },
    Call { name: "read", errors: &[libc::EIO, libc::EINTR, SHORT] },
    Call { name: "pread", errors: &[libc::EIO, libc::EINTR, SHORT] },
    Call { name: "recv", errors: &[libc::ENOMEM, libc::ECONNRESET, libc::EINTR, libc::EAGAIN, SHORT] },
    Call { name: "recvmsg", errors: &[libc::ENOMEM, libc::EINTR] },
    Call { name: "write", errors: &[libc::ENOSPC, libc::EIO, libc::EINTR, SHORT] },
    Call { name: "pwrite", errors: &[libc::ENOSPC, libc::EIO, libc::EINTR, SHORT] },
    Call { name: "send", errors: &[libc::ENOBUFS, libc::EPIPE, libc::EINTR, libc::EAGAIN, SHORT] },
    Call { name: "sendmsg", errors: &[libc::ENOBUFS, libc::EINTR, libc::EAGAIN, libc::ETOOMANYREFS] },
    Call { name: "writev", errors: &[libc::EIO, libc::EINTR, libc::EAGAIN, SHORT] },
    Call { name: "fsync", errors: &[libc::EIO, libc::ENOSPC] },
    Call { name: "fdatasync", errors: &[libc::EIO, libc::ENOSPC] },
    Call { name: "socket", errors: DESCRIPTORS },
    Call { name: "socketpair", errors: DESCRIPTORS },
    Call { name: "bind", errors: &[libc::EADDRINUSE, libc::ENOMEM] },
    Call { name: "listen", errors: &[libc::EADDRINUSE] },
    Call {
        name: "accept",
        errors: &[libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ECONNABORTED, libc::EINTR],
    },
    Call { name: "connect", errors: &[libc::EADDRNOTAVAIL, libc::ECONNREFUSED, libc::EAGAIN] },
    Call { name: "setsockopt", errors: &[libc::ENOMEM] },
    Call { name: "shutdown", errors: &[libc::ENOTCONN] },
    Call { name: "epoll_create", errors: DESCRIPTORS },
    Call { name: "epoll_ctl", errors: &[libc::ENOMEM, libc::ENOSPC] },
    Call { name: "epoll_wait", errors: &[libc::EINTR] },
    Call { name: "poll", errors: &[libc::EINTR, libc::ENOMEM] },
    Call { name: "waitpid", errors: &[libc::EINTR] },
    Call { name: "eventfd", errors: DESCRIPTORS },
    Call { name: "inotify_init", errors: DESCRIPTORS },
    Call { name: "inotify_add_watch", errors: &[libc::ENOSPC, libc::ENOMEM] },
    Call { name: "pipe", errors: DESCRIPTORS },
    Call { name: "dup", errors: &[libc::EMFILE] },
    Call { name: "fcntl", errors: &[libc::ENOLCK] },
    Call { name: "flock", errors: &[libc::ENOLCK, libc::EINTR] },
    Call { name: "memfd", errors: DESCRIPTORS },
    Call { name: "fork", errors: &[libc::EAGAIN, libc::ENOMEM] },
    Call { name: "thread", errors: &[libc::EAGAIN] },
    Call { name: "exec", errors: &[libc::ENOMEM, libc::EIO, libc::EMFILE] },
    Call { name: "close_range", errors: &[libc::ENOMEM] },
    Call { name: "random", errors: &[libc::EINTR] },
];

/// The calls with which messages and answers are kept on disk.
const KEEPING: [&str; 4] = ["pwrite", "fdatasync", "fsync", "rename"];
/// Of how many of the times of these a sample has one.
const SPREAD: u32 = 6;

/// What a process is to its program, in the order of `shim.c`.
pub const ROLES: [&str; 3] = ["supervisor", "child", "helper"];
/// Place of what a supervisor forks in [`ROLES`].
pub const CHILD: usize = 1;

/// The program whose call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tested {
    Lonc,
    Lond,
    Lon,
}

impl Tested {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Tested::Lonc => "lonc",
            Tested::Lond => "lond",
            Tested::Lon => "lon",
        }
    }
}

/// One call that fails.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub tested: Tested,
    /// Index in [`ROLES`].
    pub role: usize,
    /// Index in [`CALLS`].
    pub call: usize,
    /// From 1 on.
    pub nth: u32,
    pub error: i32,
}

impl Fault {
    /// The name of the call.
    pub fn call(&self) -> &'static str {
        CALLS[self.call].name
    }

    /// The error's text, as a log line has it; none where the call is to be made again, or goes on,
    /// without a word.
    pub fn words(&self) -> Option<String> {
        let later = self.error == libc::EAGAIN && !matches!(self.call(), "fork" | "thread");
        if later || matches!(self.error, SHORT | libc::EINTR) {
            return None;
        }
        let text = std::io::Error::from_raw_os_error(self.error).to_string();
        text.split(" (os error").next().map(str::to_owned)
    }

    /// What [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Fault> {
        let mut words = text.split_whitespace();
        let mut word = || words.next();
        let tested = word()?;
        let tested = [Tested::Lonc, Tested::Lond, Tested::Lon].into_iter().find(|t| t.name() == tested)?;
        let role = word()?;
        let role = ROLES.iter().position(|name| *name == role)?;
        let call = word()?;
        let call = CALLS.iter().position(|known| known.name == call)?;
        let error = word()?;
        let error = CALLS[call].errors.iter().copied().find(|known| name_of(*known) == error)?;
        let nth = word()?.parse().ok()?;
        Some(Fault { tested, role, call, nth, error })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (program, role) = (self.tested.name(), ROLES[self.role]);
        write!(f, "{program} {role} {} {} {}", self.call(), name_of(self.error), self.nth)
    }
}

fn name_of(error: i32) -> String {
    if error == SHORT { "short".to_owned() } else { format!("{:?}", nix::errno::Errno::from_raw(error)) }
}

/// Every fault of a run that was counted so.
pub fn every(tested: Tested, seen: &Seen) -> Vec<Fault> {
    at(tested, seen, |_, _, _, count| (1..=count).collect())
}

/// Some of them: each error of each call once, at the first, the second, a middle or the last time,
/// in turns; of the calls with which children keep messages, at several.
pub fn sample(tested: Tested, seen: &Seen) -> Vec<Fault> {
    at(tested, seen, |turn, role, call, count| {
        if role == CHILD && KEEPING.contains(&call) {
            let mut spread: Vec<u32> =
                (0..SPREAD).map(|part| 1 + part * (count - 1) / (SPREAD - 1)).collect();
            spread.dedup();
            return spread;
        }
        let nth = match turn % 4 {
            0 => 1,
            1 => 2,
            2 => count.div_ceil(2),
            _ => count,
        };
        vec![nth.min(count)]
    })
}

/// The calls that were counted, for a person.
pub fn counts(seen: &Seen) -> String {
    let of_role = |role: usize| {
        let calls = CALLS.iter().enumerate().map(|(at, call)| (call.name, seen.count(role, at)));
        let made: Vec<String> =
            calls.filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}")).collect();
        (!made.is_empty()).then(|| format!("{}: {}", ROLES[role], made.join(", ")))
    };
    (0..ROLES.len()).filter_map(of_role).collect::<Vec<_>>().join("; ")
}

/// The faults at those of the `count` times that `times` gives for a turn, a role, a call and the
/// count.
fn at(
    tested: Tested,
    seen: &Seen,
    times: impl Fn(usize, usize, &'static str, u32) -> Vec<u32>,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut turn = 0;
    for role in 0..ROLES.len() {
        for (call, known) in CALLS.iter().enumerate() {
            let count = seen.count(role, call);
            // Of the handler that says that it is away, which answers its messages: docs/adr/0054.
            let away = |error: i32| tested == Tested::Lond && error == libc::ECONNREFUSED;
            for &error in known.errors.iter().filter(|error| count > 0 && !away(**error)) {
                let nths = times(turn, role, known.name, count);
                faults.extend(nths.into_iter().map(|nth| Fault { tested, role, call, nth, error }));
                turn += 1;
            }
        }
    }
    faults
}

#[test]
fn a_fault_is_found_again_by_what_it_is_called() {
    for text in
        ["lonc child pwrite ENOSPC 3", "lond supervisor accept EMFILE 1", "lon supervisor write short 12"]
    {
        assert_eq!(Fault::parse(text).expect("a fault").to_string(), text);
    }
    for text in ["lonc child", "lonc child read ENOSPC 3", "lonc child pwrite ENOSPC x", ""] {
        assert!(Fault::parse(text).is_none(), "{text}");
    }
}
