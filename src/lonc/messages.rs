//! What `lonc`'s supervisor and a link child say to each other, over a
//! [`supervise::control::Channel`].

use serde::{Deserialize, Serialize};
use status::PeerStatus;
use supervise::control::Message;
use supervise::look_up::Answer;

/// `lonc` to a link child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToLink {
    /// USR1: dial now if the link is not up, try it with a heartbeat if it is.
    Probe,
    /// Take no new clients, answer what is there (bounded by `drain_timeout`), exit 0.
    Drain,
    /// Another child will follow: take no new clients and no more requests, answer those that were
    /// taken (bounded by `drain_timeout`), hand the programs' connections over, exit 0. The way to
    /// the next child comes with this, but for children of an older program, which have it.
    HandOver,
    /// Send a status with this number back. Numbers grow; a later report answers earlier ones too.
    Report(u64),
    /// Files for this peer were moved into its folder: take them in.
    TakeIn,
    /// The peer's local socket is another one now, whose descriptor comes with this
    /// ([`supervise::control::Channel::send_descriptor`]): programs find only that one from here
    /// on.
    Listen,
    /// The peer's pins are these now. A link to a key that is not among them ends; another stays.
    Pins(Vec<String>),
    /// Open the log again: its file may have been renamed.
    LogAnew,
    /// The answer to [`FromLink::LookUp`].
    Addresses {
        /// The number of the question.
        number: u64,
        /// The peer's addresses, or why there are none.
        answer: Answer,
    },
    /// The connection that [`FromLink::Connect`] asks for was begun: its socket comes with this.
    Begun {
        /// The number of the attempt.
        attempt: u64,
    },
    /// It could not be.
    NotBegun {
        /// The number of the attempt.
        attempt: u64,
        /// What the system said.
        why: String,
    },
}

/// A link child to `lonc`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromLink {
    /// The state changed, or a report was asked for (then with its number).
    Status {
        /// The number of the report, if this answers one.
        report: Option<u64>,
        /// How the link and its spool are.
        status: Box<PeerStatus>,
    },
    /// This child is to end, as a signal said or because it cannot go on, and will hand its
    /// programs over: it is to be told [`ToLink::HandOver`].
    HandsOver,
    /// A dial needs the addresses of this child's peer.
    LookUp {
        /// Of the question; they grow.
        number: u64,
    },
    /// An attempt to connect is to be begun, to one of these addresses.
    Connect {
        /// What the attempt is called.
        attempt: u64,
        /// The question that the addresses are the answer to.
        number: u64,
        /// The place of this one among them.
        place: usize,
    },
}

impl Message for ToLink {
    fn supersedes(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (ToLink::Report(_), ToLink::Report(_)) | (ToLink::Pins(_), ToLink::Pins(_)) => true,
            // An answer is to the last question, and ends what was tried of the one before.
            (ToLink::Addresses { .. }, ToLink::Addresses { .. } | ToLink::NotBegun { .. }) => true,
            (
                ToLink::Probe
                | ToLink::Drain
                | ToLink::HandOver
                | ToLink::TakeIn
                | ToLink::Listen
                | ToLink::Report(_)
                | ToLink::Pins(_)
                | ToLink::LogAnew
                | ToLink::Addresses { .. }
                | ToLink::Begun { .. }
                | ToLink::NotBegun { .. },
                _,
            ) => self == earlier,
        }
    }
}

impl Message for FromLink {
    fn supersedes(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            // `None < Some(_)`: a status that nobody asked for must not swallow the answer to a
            // report.
            (FromLink::Status { report, .. }, FromLink::Status { report: before, .. }) => report >= before,
            // Another dial: that of before is over.
            (FromLink::LookUp { .. }, FromLink::LookUp { .. } | FromLink::Connect { .. })
            | (FromLink::HandsOver, FromLink::HandsOver) => true,
            (FromLink::Status { .. }, FromLink::LookUp { .. } | FromLink::Connect { .. })
            | (FromLink::LookUp { .. }, FromLink::Status { .. })
            | (FromLink::Connect { .. } | FromLink::HandsOver, _)
            | (_, FromLink::HandsOver) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{HostId, WireKind};
    use status::PeerStatus;

    #[test]
    fn a_newer_status_stands_for_an_older_one_but_not_for_the_answer_to_a_report() {
        let peer = HostId::new("msul1").unwrap();
        let since = "2026-11-20T08:12:14Z".parse().unwrap();
        let status = || Box::new(PeerStatus::starting(peer.clone(), WireKind::Classic, since));
        let said = |report| FromLink::Status { report, status: status() };
        assert!(said(None).supersedes(&said(None)) && said(Some(3)).supersedes(&said(Some(2))));
        assert!(said(Some(1)).supersedes(&said(None)) && !said(None).supersedes(&said(Some(1))));
        let pins = |pin: &str| ToLink::Pins(vec![pin.to_owned()]);
        assert!(ToLink::Report(2).supersedes(&ToLink::Report(1)) && pins("b").supersedes(&pins("a")));
        assert!(ToLink::Probe.supersedes(&ToLink::Probe) && !ToLink::Drain.supersedes(&ToLink::Probe));
    }

    #[test]
    fn of_dials_the_last_alone_waits_to_be_told_of_and_nothing_else_gives_way_to_it() {
        let connect = |attempt| FromLink::Connect { attempt, number: 1, place: 0 };
        let look_up = |number| FromLink::LookUp { number };
        assert!(look_up(2).supersedes(&look_up(1)) && look_up(2).supersedes(&connect(1)));
        assert!(!connect(2).supersedes(&connect(1)) && !connect(1).supersedes(&look_up(1)));
        let addresses = |number| ToLink::Addresses { number, answer: Ok(Vec::new()) };
        let failed = |attempt| ToLink::NotBegun { attempt, why: String::new() };
        assert!(addresses(2).supersedes(&addresses(1)) && addresses(2).supersedes(&failed(1)));
        assert!(!failed(2).supersedes(&failed(1)) && !failed(1).supersedes(&addresses(1)));
        for other in [ToLink::Probe, ToLink::Drain, ToLink::Listen, ToLink::Report(1)] {
            assert!(!addresses(1).supersedes(&other) && !other.supersedes(&addresses(1)));
        }
    }
}
