//! What `lond`'s supervisor and its children (one for a link, or one that runs a handler's program)
//! say to each other, over a
//! [`supervise::control::Channel`].

use crate::access::Rights;
use base::{HostId, WireKind};
use serde::{Deserialize, Serialize};
use status::HandlerStatus;
use std::time::Duration;
use supervise::control::Message;

/// `lond` to a link child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToServe {
    /// Answer what is there (bounded by `drain_timeout`), close the link, exit 0.
    Drain,
    /// A newer link from the same host is open: answer what is there (bounded), close, exit 0.
    Replaced,
    /// Open the log again: its file may have been renamed.
    LogAnew,
    /// The configuration was read again: this is what the caller may ask from here on.
    Rights(Rights),
    /// To a process that runs a handler's program: the handler's socket is another one now; its
    /// descriptor comes with this.
    Listen,
    /// To a process that runs a handler's program: `lond` ends, and no link is left. Give what is
    /// under way so much time and no more, end all programs, exit 0.
    EndWithin(Duration),
}

/// A link child to `lond`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromServe {
    /// How the program does that this process runs, and what waits for it.
    Pool(HandlerStatus),
    /// How the handlers do, as this link knows it: all that it has counted so far.
    Handlers(Vec<HandlerStatus>),
    /// The caller has sent something. Who says nothing at all gives way first where there is a
    /// crowd.
    Spoke,
    /// The caller is known and the opening dialogue is done.
    Opened {
        /// Who calls, as its key or address proves.
        caller: HostId,
        /// The pin that its key matched, as `hosts.pins` has it (`sha256:...`); `None` on the
        /// classic wire, which knows a caller by its address alone.
        pin: Option<String>,
        /// The pin of this host's own key that it was shown; `None` on the classic wire.
        #[serde(default)]
        own_pin: Option<String>,
        /// What is spoken.
        wire: WireKind,
        /// What confines the child.
        #[serde(default)]
        sandbox: Option<String>,
    },
    /// An open link has ended. Said once, just before the child ends; the supervisor says it in the
    /// log, seldom enough that a caller who comes again and again cannot fill it.
    Closed {
        /// Why, as the end of a log line.
        why: String,
        /// It should not have: a warning.
        fault: bool,
    },
    /// The caller did not get as far as that and is turned away. Said once, just before the child
    /// ends; the supervisor counts it and says it in the log, with the address, seldom enough that
    /// a crowd cannot fill it.
    Refused {
        /// What was wrong, as the end of a log line: which pin was expected and seen, for instance.
        why: String,
        /// The pin of the key that it showed, as `hosts.pins` has it.
        #[serde(default)]
        key: Option<String>,
    },
}

impl Message for ToServe {
    fn supersedes(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (ToServe::Rights(_), ToServe::Rights(_)) => true,
            (
                ToServe::Rights(_)
                | ToServe::Drain
                | ToServe::Replaced
                | ToServe::LogAnew
                | ToServe::Listen
                | ToServe::EndWithin(_),
                _,
            ) => self == earlier,
        }
    }
}

impl Message for FromServe {
    fn supersedes(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (FromServe::Handlers(_), FromServe::Handlers(_)) => true,
            (FromServe::Pool(_), FromServe::Pool(_)) => true,
            (
                FromServe::Handlers(_)
                | FromServe::Pool(_)
                | FromServe::Spoke
                | FromServe::Opened { .. }
                | FromServe::Closed { .. }
                | FromServe::Refused { .. },
                _,
            ) => self == earlier,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_counts_stand_for_older_ones_and_nothing_else_for_what_it_is_not() {
        assert!(FromServe::Handlers(Vec::new()).supersedes(&FromServe::Handlers(Vec::new())));
        let closed = |why: &str| FromServe::Closed { why: why.to_owned(), fault: false };
        assert!(FromServe::Spoke.supersedes(&FromServe::Spoke) && closed("done").supersedes(&closed("done")));
        assert!(!FromServe::Spoke.supersedes(&closed("done")) && !closed("one").supersedes(&closed("other")));
        assert!(!FromServe::Handlers(Vec::new()).supersedes(&FromServe::Spoke));
        let rights =
            |barred: &str| ToServe::Rights(Rights { barred: vec![barred.into()], ..Rights::default() });
        assert!(rights("ping").supersedes(&rights("log")) && !rights("ping").supersedes(&ToServe::Drain));
        let pool = || FromServe::Pool(HandlerStatus::default());
        assert!(pool().supersedes(&pool()) && !pool().supersedes(&FromServe::Spoke));
        assert!(ToServe::Drain.supersedes(&ToServe::Drain) && !ToServe::Replaced.supersedes(&ToServe::Drain));
    }
}
