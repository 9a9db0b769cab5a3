//! What a request means, whichever wire it came over: its answer, or who is to give it.
//!
//! Pure. Both wires ask [`Service::decide`], and say in an [`Effect`] what the reactor is to do
//! about it. Nothing here fails: what nobody knows is `unknown_cmd`, what the caller may not use is
//! `refused`.

use crate::handler::Ticket;
use crate::handler::builtin::{Builtin, VERSION_ANSWER};
use base::{HostId, Key};
use std::sync::Arc;

/// A handler of the configuration, as the caller of this link sees it. Its place in the list is its
/// number.
#[derive(Debug, Clone)]
pub struct Route {
    /// Request name.
    pub name: String,
    /// Whether this caller may use it.
    pub allowed: bool,
}

/// What one caller is served with.
#[derive(Debug, Clone)]
pub struct Service {
    /// This host.
    pub id: HostId,
    /// The host that calls.
    pub caller: HostId,
    /// The handlers.
    pub routes: Vec<Route>,
}

/// What a request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// This is the answer.
    Answer(&'a [u8]),
    /// The text goes to the log, if the caller's quota allows it.
    Log(&'a [u8]),
    /// `bye` is the answer, and the link ends.
    Exit,
    /// A new cipher is to be agreed on, where the wire has one.
    AgreeCipher,
    /// The caller is to be asked back; then [`Service::asked_back`] is the answer.
    AskBack,
    /// The load average is to be read.
    Load,
    /// The handler with this number is to be asked.
    Ask(usize),
}

/// What the reactor is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// The opening is done: tell the supervisor. Once a link.
    Opened,
    /// Pass the request to a handler and give its answer.
    Ask {
        /// The place of the handler in the settings of `lond`.
        handler: usize,
        /// For the answer.
        ticket: Ticket,
        /// How it is to be passed on.
        order: Order,
        /// What a critical message is known by.
        name: Option<MessageName>,
        /// The whole request.
        request: Vec<u8>,
    },
    /// Nobody waits for the answer to this request: if the handler has not got it yet, it is not to
    /// get it, which is to be told (`withdrawn`); else its answer is to be given as ever.
    Withdraw {
        /// The handler's number.
        handler: usize,
        /// Of the request.
        ticket: Ticket,
    },
    /// Ping the caller through this host's own `lonc`, and give its answer.
    AskBack(Ticket),
    /// Read the load average and give the answer.
    Load(Ticket),
    /// Append the text to the log, if the caller's quota allows it, and give the answer.
    Log {
        /// For the answer.
        ticket: Ticket,
        /// What to append.
        text: Vec<u8>,
    },
    /// Everything is said: shut the writing half.
    Shut,
}

/// What a critical message is known by for as long as there is a record of it: the same when it
/// comes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageName {
    /// The epoch of its caller's spool.
    pub epoch: Arc<str>,
    /// Its sequence in that.
    pub sequence: u64,
    /// The key that its client has given it.
    pub key: Option<Key>,
}

impl MessageName {
    /// As a handler is told it: `<epoch>/<sequence>`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.epoch, self.sequence)
    }
}

/// How a request is passed to its handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// After all others of this link that were passed so.
    Kept,
    /// Likewise, and only when the one before it was answered and its answer recorded.
    Once,
    /// As soon as it can be, beside others.
    Free,
}

impl Service {
    /// What `request` means.
    pub fn decide<'a>(&'a self, request: &'a [u8]) -> Verdict<'a> {
        let Some(builtin) = Builtin::parse(request) else {
            return self.route(request);
        };
        let id = self.id.as_str().as_bytes();
        match builtin {
            Builtin::Ping => Verdict::Answer(id),
            Builtin::Version => Verdict::Answer(VERSION_ANSWER.as_bytes()),
            Builtin::SetHost(meant) => Verdict::Answer(if meant == id { b"ok" } else { b"refused" }),
            Builtin::Ekey => Verdict::AgreeCipher,
            Builtin::Exit => Verdict::Exit,
            Builtin::Log(text) => Verdict::Log(text),
            Builtin::Pong => Verdict::AskBack,
            Builtin::Load => Verdict::Load,
        }
    }

    /// A request that is not built in: a handler's, or nobody's.
    fn route(&self, request: &[u8]) -> Verdict<'static> {
        let name = memchr::memchr(b':', request).map_or(request, |colon| &request[..colon]);
        match self.routes.iter().position(|route| route.name.as_bytes() == name) {
            None => Verdict::Answer(b"unknown_cmd"),
            Some(at) if !self.routes[at].allowed => Verdict::Answer(b"refused"),
            Some(at) => Verdict::Ask(at),
        }
    }

    /// The answer to `pong`, from what this host's own `lonc` answered to the ping; `None`:
    /// nothing.
    pub fn asked_back(&self, answer: Option<&[u8]>) -> Vec<u8> {
        [self.id.as_str().as_bytes(), b":", answer.unwrap_or(b"con_lost")].concat()
    }
}

/// The answer to a request that is longer than it may be.
pub fn too_long_answer(max_line: usize) -> Vec<u8> {
    format!("error:request longer than {max_line} bytes").into_bytes()
}
