//! What a request means, whichever wire it came over: its answer, or who is to give it.
//!
//! Pure. Both wires ask [`Service::decide`], and say in an [`Effect`] what the reactor is to do
//! about it. Nothing here fails: what nobody knows is `unknown_cmd`, what the caller may not use is
//! `refused`.

use crate::access::{Right, Rights};
use crate::handler::Ticket;
use crate::handler::builtin::{Builtin, VERSION_ANSWER};
use base::{HostId, Key};
use std::sync::Arc;

/// A handler of the configuration, as the caller of this link sees it. Its place in the list is its
/// number.
#[derive(Debug, Clone)]
pub struct Route {
    /// The command of its requests.
    pub name: String,
    /// Whether this caller may ask it.
    pub right: Right,
}

impl Route {
    /// To a handler that this caller may ask.
    pub fn open(name: &str) -> Route {
        Route { name: name.to_owned(), right: Right::Full }
    }

    /// To one that it may not.
    pub fn barred(name: &str) -> Route {
        Route { name: name.to_owned(), right: Right::Nothing }
    }
}

/// What one caller is served with.
#[derive(Debug, Clone)]
pub struct Service {
    /// The id of this host.
    pub id: HostId,
    /// The host that calls.
    pub caller: HostId,
    /// All handlers, by their numbers.
    pub routes: Vec<Route>,
    /// The built-in requests that the caller may not ask for.
    pub barred: Vec<String>,
}

/// What the caller may not ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barred {
    /// The handler with this number.
    Handler(usize),
    /// That handler: it may, but not what crossed the network in the clear (`private_only`).
    InClear(usize),
    /// The built-in request of this name.
    Builtin(&'static str),
}

/// What a request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It is answered with this, at once.
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
    /// `refused` is the answer: the caller may not ask this.
    Refused(Barred),
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
    /// The caller was refused this, and has its answer: count it, and say so.
    Refused(Barred),
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
    /// What `request` means. `private`: it did not cross the network in the clear.
    pub fn decide<'a>(&'a self, request: &'a [u8], private: bool) -> Verdict<'a> {
        let Some(builtin) = Builtin::parse(request) else {
            return self.route(request, private);
        };
        if let Some(name) = builtin.name().filter(|name| self.barred.iter().any(|barred| barred == name)) {
            return Verdict::Refused(Barred::Builtin(name));
        }
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
    fn route(&self, request: &[u8], private: bool) -> Verdict<'static> {
        let name = memchr::memchr(b':', request).map_or(request, |colon| &request[..colon]);
        let found = self.routes.iter().enumerate().find(|(_, route)| route.name.as_bytes() == name);
        match found.map(|(at, route)| (at, route.right)) {
            None => Verdict::Answer(b"unknown_cmd"),
            Some((at, Right::Full)) => Verdict::Ask(at),
            Some((at, Right::Private)) if private => Verdict::Ask(at),
            Some((at, Right::Private)) => Verdict::Refused(Barred::InClear(at)),
            Some((at, Right::Nothing)) => Verdict::Refused(Barred::Handler(at)),
        }
    }

    /// The configuration was read again: the same handlers, and other rights of this caller.
    pub fn change(&mut self, rights: Rights) {
        for (route, right) in self.routes.iter_mut().zip(rights.handlers) {
            route.right = right;
        }
        self.barred = rights.barred;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_refused_what_its_rights_are_not() {
        let host = |text: &str| HostId::new(text).unwrap_or_else(|_| HostId::unknown());
        let private = Route { name: "private".into(), right: Right::Private };
        let routes = vec![Route::open("open"), private, Route::barred("barred")];
        let barred = vec!["load".to_owned(), "version".to_owned(), "log".to_owned()];
        let mut service = Service { id: host("called"), caller: host("caller"), routes, barred };
        let (handler, builtin) =
            (|at| Verdict::Refused(Barred::Handler(at)), |name| Verdict::Refused(Barred::Builtin(name)));
        for (request, in_clear, enciphered) in [
            ("open:x", Verdict::Ask(0), Verdict::Ask(0)),
            ("private", Verdict::Refused(Barred::InClear(1)), Verdict::Ask(1)),
            ("barred:x:y", handler(2), handler(2)),
            ("nobody's", Verdict::Answer(b"unknown_cmd"), Verdict::Answer(b"unknown_cmd")),
            ("ping", Verdict::Answer(b"called"), Verdict::Answer(b"called")),
            ("load", builtin("load"), builtin("load")),
            ("version:1", builtin("version"), builtin("version")),
            ("log:a text", builtin("log"), builtin("log")),
            ("sethost:called", Verdict::Answer(b"ok"), Verdict::Answer(b"ok")),
            ("exit", Verdict::Exit, Verdict::Exit),
        ] {
            assert_eq!(service.decide(request.as_bytes(), false), in_clear, "{request}");
            assert_eq!(service.decide(request.as_bytes(), true), enciphered, "{request}, private");
        }
        let handlers = vec![Right::Nothing, Right::Nothing, Right::Full];
        service.change(Rights { handlers, barred: vec!["exit".to_owned()] });
        for (request, verdict) in [
            ("open", handler(0)),
            ("barred", Verdict::Ask(2)),
            ("load", Verdict::Load),
            ("exit", builtin("exit")),
        ] {
            assert_eq!(service.decide(request.as_bytes(), true), verdict, "{request}, after a change");
        }
    }
}
