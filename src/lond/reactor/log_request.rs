//! `log:` requests: written to the log as far as the quota of their host goes and the file takes
//! them.

use crate::handler::{Reply, builtin};
use crate::ledger::{Ledger, Over};
use base::HostId;
use base::logging;
use std::time::Instant;

/// What became of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Logged {
    /// It is in the log.
    Written,
    /// It is not, but may be later: why.
    Later(String),
    /// It never can be: why.
    Never(String),
}

impl Logged {
    /// What is said to the request.
    pub(super) fn reply(&self) -> Reply<'_> {
        match self {
            Logged::Written => Reply::Answer(b"ok"),
            Logged::Later(why) => Reply::NotTaken(why),
            // Nobody is to keep it and try again.
            Logged::Never(answer) => Reply::Broken(answer.as_bytes()),
        }
    }
}

/// Writes what `caller`, which has this `quota`, wants logged.
pub(super) fn log(ledger: &Ledger, caller: &HostId, quota: u64, text: &[u8], now: Instant) -> Logged {
    // As it will stand there, which may be several times as long.
    let text = logging::escaped(builtin::printable(text));
    let over = |what| format!("log: {what} of {quota} bytes a minute (log_quota); not written");
    let logged = match ledger.take(caller, text.len() as u64, quota, now) {
        Ok(()) => match logging::always(format_args!("log from {caller}: {text}")) {
            Ok(()) => Logged::Written,
            Err(cause) => Logged::Later(format!("log: append to the log: {cause}")),
        },
        Err(Over::Now) => Logged::Later(over("over this host's quota")),
        Err(Over::Ever) => Logged::Never(format!("error:{}", over("longer than this host's whole quota"))),
    };
    if logged != Logged::Written {
        ledger.refuse(caller);
    }
    if let Some(refused) = ledger.to_tell(caller, now) {
        // If that cannot be written either, it is counted like any line; each request has its
        // answer.
        let _ = logging::always(format_args!(
            "log from {caller}: {refused} not written, over its quota of {quota} bytes a minute (log_quota) or for \
             want of room"
        ));
    }
    logged
}
