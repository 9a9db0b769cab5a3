//! Failures of which no line of the log is expected, each for its reason. Every other one is to be
//! named there.

use crate::plan::{CHILD, Fault, Tested};

/// Failures that are alike.
struct Quiet {
    applies: fn(&Fault, &str) -> bool,
    /// For who reads this.
    _why: &'static str,
}

const QUIET: [Quiet; 13] = [
    Quiet {
        applies: |_, object| {
            ["/proc/", "/sys/", "/usr/share/", "/etc/", "/dev/"].iter().any(|at| object.starts_with(at))
                || object.ends_with("/zones")
        },
        _why: "libraries look there for what they can do without: the time zone, the number of processors, a title",
    },
    Quiet {
        applies: |_, object| [".stderr", "/lonc.log", "/lond.log"].iter().any(|at| object.ends_with(at)),
        _why: "a log that cannot be written cannot say so",
    },
    Quiet {
        applies: |fault, object| fault.tested == Tested::Lond && object.ends_with("/lonc.pid"),
        _why: "lonc, that was to be told who has called, finds out by itself a little later",
    },
    Quiet {
        applies: |fault, _| fault.call() == "statvfs" && fault.role != CHILD,
        _why: "advice on the configuration: whether the bounds of a spool fit its disk",
    },
    Quiet {
        applies: |_, object| object.starts_with("pipe:"),
        _why: "a program on trial whose one word is not heard is known by that",
    },
    Quiet {
        applies: |_, object| object.starts_with("/memfd:lonnet-handoff"),
        _why: "read before there is a log, and read again",
    },
    Quiet {
        applies: |fault, _| fault.call() == "close",
        _why: "the descriptor is gone, and what had to be durable was synced before",
    },
    Quiet {
        applies: |fault, _| {
            matches!(fault.error, libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED | libc::ENOTCONN)
        },
        _why: "the other end has gone away, as it may",
    },
    Quiet {
        applies: |fault, _| fault.call() == "close_range",
        _why: "tried again at once; a process that cannot close what it was not given in the end says so, and does not start",
    },
    Quiet {
        applies: |fault, _| fault.call() == "stat",
        _why: "asked to know what is there before a step, which then fails or not",
    },
    Quiet {
        applies: |fault, _| matches!(fault.call(), "setsockopt" | "poll"),
        _why: "a link does without the option; and the standard library's start looks at its descriptors with poll",
    },
    Quiet {
        applies: |fault, _| {
            matches!((fault.call(), fault.error), ("send", libc::ENOBUFS) | ("recv", libc::ENOMEM))
        },
        _why: "the socket that wakes a supervisor at a signal, which hears signals without it as well",
    },
    Quiet {
        applies: |fault, _| fault.call() == "accept" && matches!(fault.error, libc::EMFILE | libc::ENFILE),
        _why: "most calls of accept find nobody; whoever does wait is taken in, or said to wait (tests/network/few_descriptors)",
    },
];

/// Whether the log need not name this failure of a call on `object`.
pub fn may_be_quiet(fault: &Fault, object: &str) -> bool {
    QUIET.iter().any(|quiet| (quiet.applies)(fault, object))
}
