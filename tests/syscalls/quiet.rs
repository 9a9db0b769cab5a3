//! Failures of which no line of the log is expected, each for its reason. Every other one is to be named there.

use crate::plan::{CALLS, Fault};

/// Calls, errors or objects that are alike.
struct Quiet {
    applies: fn(&str, i32, &str) -> bool,
    /// For who reads this.
    _why: &'static str,
}

const QUIET: [Quiet; 7] = [
    Quiet {
        applies: |_, _, object| {
            ["/proc/", "/sys/", "/usr/share/", "/etc/", "/dev/"].iter().any(|at| object.starts_with(at))
                || object.ends_with("/zones")
        },
        _why: "libraries look there for what they can do without: the time zone, the number of processors, a title",
    },
    Quiet {
        applies: |_, _, object| {
            object.ends_with(".stderr") || object.ends_with("/lonc.log") || object.ends_with("/lond.log")
        },
        _why: "a log that cannot be written can not say so",
    },
    Quiet {
        applies: |call, _, _| call == "close",
        _why: "the descriptor is gone, and what had to be durable was synced before",
    },
    Quiet {
        applies: |_, error, _| {
            matches!(error, libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED | libc::ENOTCONN)
        },
        _why: "the other end has gone away, as it may",
    },
    Quiet {
        applies: |call, _, _| call == "stat",
        _why: "asked to know what is there before a step, which then fails or not",
    },
    Quiet {
        applies: |call, _, _| matches!(call, "setsockopt" | "poll"),
        _why: "a link does without the option; and the standard library's start looks at its descriptors with poll",
    },
    Quiet {
        applies: |call, error, _| matches!((call, error), ("send", libc::ENOBUFS) | ("recv", libc::ENOMEM)),
        _why: "the socket that wakes a supervisor at a signal, which hears signals without it as well",
    },
];

/// Whether the log need not name this failure of a call on `object`.
pub fn may_be_quiet(fault: &Fault, object: &str) -> bool {
    QUIET.iter().any(|quiet| (quiet.applies)(CALLS[fault.call].name, fault.error, object))
}
