//! What is spoken with the peer: one of two wires, behind one set of words.
//!
//! Owns what a conversation has to remember: what was read in part, what waits to be sent, how far
//! the opening has come. The link asks it to begin, to send, and what it heard; it knows nothing of
//! programs, of the spool, or of time. Pure: bytes in, bytes out.

mod classic;
mod secure;

pub use classic::Classic;
pub use secure::{Secure, Terms};

use base::Sequence;
use base::line::Outgoing;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

/// What a peer has said.
#[derive(Debug)]
pub enum Heard<'a> {
    /// The opening has come a step further; something was odd about it.
    Progress {
        /// For the log.
        odd: Option<String>,
    },
    /// The opening is done: requests may be sent.
    Opened,
    /// The peer answers a request.
    Answer {
        /// The request's number; `None`: the oldest request in flight is meant.
        number: Option<u64>,
        /// What it says, without the newline.
        text: Cow<'a, [u8]>,
        /// The handler had got the request and gave none: the text is the peer's own.
        broken: bool,
    },
    /// A critical request was not taken by its handler, and nothing was done.
    NotTaken {
        /// The request's number.
        number: u64,
        /// Why, for the log and the status.
        why: String,
    },
    /// The handler of this command, which had not taken a critical request, is back.
    Ready {
        /// As [`base::command`] tells them apart.
        command: &'a str,
    },
    /// The peer is there.
    Pong,
    /// The peer takes no more requests.
    Leaving {
        /// The numbers of those that it will not run, in their order.
        not_run: Vec<u64>,
    },
}

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    /// Its number on this link: one more than that of the one before.
    pub number: u64,
    /// In its stored form (prefixes and all).
    pub text: &'a [u8],
    /// What makes it run once, where the wire can say so.
    pub once: Option<Once>,
}

/// The name of a critical message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// Its place in the spool's epoch.
    pub sequence: Sequence,
    /// Every sequence below this one is settled, but for those of the commands that are held; if
    /// its own is held, this is about that alone.
    pub settled: Sequence,
    /// The commands that are held.
    pub held: HeldCommands,
}

/// The commands whose messages are kept back, since their handlers are away, while those of others
/// go on.
pub type HeldCommands = Arc<BTreeSet<Box<str>>>;

/// A conversation with the peer over one connection.
#[derive(Debug)]
pub enum Protocol {
    /// What the original speaks.
    Classic(Classic),
    /// Frames, within TLS.
    Secure(Secure),
}

impl Protocol {
    /// Takes bytes that came.
    pub fn receive(&mut self, bytes: &[u8]) {
        match self {
            Protocol::Classic(classic) => classic.receive(bytes),
            Protocol::Secure(secure) => secure.receive(bytes),
        }
    }

    /// Tells what the peer has said, as far as it is whole, until `tell` breaks off. What the wire
    /// itself wants answered is answered into `out`.
    ///
    /// # Errors
    /// The peer broke the rules of the wire: the connection is of no more use. Its end is explained
    /// in `out` where the wire has a word for that.
    pub fn hear(
        &mut self,
        out: &mut Outgoing,
        tell: impl FnMut(Heard<'_>) -> ControlFlow<()>,
    ) -> Result<(), String> {
        match self {
            Protocol::Classic(classic) => classic.hear(out, tell),
            Protocol::Secure(secure) => secure.hear(out, tell),
        }
    }

    /// Sends a request, at once or when there is room for it.
    pub fn send(&mut self, message: Message<'_>, out: &mut Outgoing) {
        match self {
            Protocol::Classic(classic) => classic.send(message, out),
            Protocol::Secure(secure) => secure.send(message, out),
        }
    }

    /// Whether the peer takes a request of this many bytes.
    ///
    /// # Errors
    /// It does not: what to tell the program.
    pub fn takes(&self, length: usize) -> Result<(), String> {
        match self {
            Protocol::Classic(_) => Ok(()),
            Protocol::Secure(secure) => secure.takes(length),
        }
    }

    /// Nobody waits for the answer to this request any more.
    pub fn cancel(&mut self, number: u64, out: &mut Outgoing) {
        match self {
            // The answer must come, since its place tells whose it is.
            Protocol::Classic(_) => {}
            Protocol::Secure(secure) => secure.cancel(number, out),
        }
    }

    /// Asks whether the peer is there, without a request; `false` where only a request can ask.
    pub fn ping(&mut self, out: &mut Outgoing) -> bool {
        match self {
            Protocol::Classic(_) => false,
            Protocol::Secure(secure) => {
                secure.ping(out);
                true
            }
        }
    }

    /// Carries on with what waits to be sent, as `out` empties.
    pub fn carry_on(&mut self, out: &mut Outgoing) {
        match self {
            Protocol::Classic(_) => {}
            Protocol::Secure(secure) => secure.carry_on(out),
        }
    }

    /// Whether another request may be sent, rather than be left with its program.
    pub fn has_room(&self) -> bool {
        match self {
            Protocol::Classic(_) => true,
            Protocol::Secure(secure) => secure.has_room(),
        }
    }

    /// Whether repeats of a critical message are recognised by the peer, so that each must have its
    /// sequence.
    pub fn knows_repeats(&self) -> bool {
        match self {
            Protocol::Classic(_) => false,
            Protocol::Secure(_) => true,
        }
    }

    /// What the opening waits for, in words.
    pub fn waits_for(&self) -> String {
        match self {
            Protocol::Classic(classic) => classic.waits_for(),
            Protocol::Secure(_) => "the opening frame".to_owned(),
        }
    }
}
