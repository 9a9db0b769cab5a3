//! What each request means: its answer, or who is to give it.
//!
//! Every request that is taken is answered at once or owed by a handler or the reactor; a blank line is none. What
//! is wrong with a request costs an `error:` answer, before the link is open the link.

use super::answers::{Seal, Source};
use super::{Reason, Serve, State, Todo};
use crate::handler::builtin::{Builtin, VERSION_ANSWER};
use crate::wire::classic::{Cipher, make_buildkey};
use std::rc::Rc;

/// A line of the caller, by what is to be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Nothing: no request, and no answer.
    Blank,
    /// `init`: opens the dialogue; later it is as good as any unknown word.
    Init,
    /// `enc:...`: a request enciphered.
    Enciphered,
    /// `lond` answers it itself.
    Builtin(Builtin<'a>),
    /// A handler's, or nobody's.
    Other,
}

/// Whether `line` is to be deciphered.
pub fn is_enciphered(line: &[u8]) -> bool {
    line.starts_with(b"enc:")
}

impl<'a> Request<'a> {
    /// The kind of `line`.
    pub fn parse(line: &'a [u8]) -> Request<'a> {
        if line.is_empty() {
            Request::Blank
        } else if line == b"init" {
            Request::Init
        } else if is_enciphered(line) {
            Request::Enciphered
        } else {
            Builtin::parse(line).map_or(Request::Other, Request::Builtin)
        }
    }
}

impl Serve {
    /// Takes the request in `request`.
    pub(super) fn take(&mut self) -> Option<Todo> {
        // The buffer is put back, for its allocation and for what `step` makes of it.
        let mut line = std::mem::take(&mut self.request);
        let request = Request::parse(&line);
        let todo = match (&self.state, request) {
            (State::Init | State::Challenged(_) | State::Open | State::Finishing(_), Request::Blank) => None,
            (State::Init, Request::Init) => {
                let challenge = self.random.u64(..).to_string();
                self.answers.give(challenge.as_bytes(), None);
                self.enter(State::Challenged(challenge));
                None
            }
            (State::Init, Request::Enciphered | Request::Builtin(_) | Request::Other) => {
                self.refuse("it did not begin with init");
                None
            }
            (
                State::Challenged(challenge),
                Request::Init | Request::Enciphered | Request::Builtin(_) | Request::Other,
            ) => {
                if line == challenge.as_bytes() {
                    self.answers.give(b"ok", None);
                    self.opened = true;
                    self.deadline = None;
                    self.enter(State::Open);
                    Some(Todo::Opened)
                } else {
                    self.refuse("the challenge came back wrong");
                    None
                }
            }
            (State::Open | State::Finishing(_), Request::Enciphered) => match self.decipher(&line) {
                Ok(plain) if plain.len() > self.settings.max_line => {
                    self.answers.give(&self.too_long_answer(), self.cipher.clone());
                    None
                }
                Ok(plain) => {
                    line = plain;
                    match Request::parse(&line) {
                        Request::Builtin(builtin) => self.builtin(builtin, line.len(), self.cipher.clone()),
                        // An `enc:` line is a request whatever is in it: nothing is not `Blank` here.
                        Request::Blank | Request::Init | Request::Enciphered | Request::Other => {
                            self.other(&line, self.cipher.clone())
                        }
                    }
                }
                Err(answer) => {
                    self.answers.give(&answer, None);
                    None
                }
            },
            (State::Open | State::Finishing(_), Request::Builtin(builtin)) => {
                self.builtin(builtin, line.len(), None)
            }
            (State::Open | State::Finishing(_), Request::Init | Request::Other) => self.other(&line, None),
            // `step` takes no line in these.
            (
                State::Leaving(_) | State::Lingering(_) | State::Ended(_),
                Request::Blank | Request::Init | Request::Enciphered | Request::Builtin(_) | Request::Other,
            ) => None,
        };
        self.request = line;
        todo
    }

    /// The text of an `enc:` line, or the answer that says what is wrong.
    fn decipher(&self, line: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
        let Some(cipher) = &self.cipher else {
            return Err(b"error:enciphered request, but no cipher was agreed".to_vec());
        };
        let plain =
            cipher.open(line).map_err(|error| format!("error:enciphered request: {error}").into_bytes())?;
        // It would be two requests to a handler, and shift every later answer by one.
        if memchr::memchr(b'\n', &plain).is_some() {
            return Err(b"error:enciphered request: a newline in it".to_vec());
        }
        Ok(plain)
    }

    fn builtin(&mut self, builtin: Builtin<'_>, bytes: usize, seal: Seal) -> Option<Todo> {
        match builtin {
            Builtin::Ping => self.answers.give(self.settings.id.as_str().as_bytes(), seal),
            Builtin::Version => self.answers.give(VERSION_ANSWER.as_bytes(), seal),
            Builtin::SetHost(id) => {
                let ours = id == self.settings.id.as_str().as_bytes();
                self.answers.give(if ours { b"ok" } else { b"refused" }, seal);
            }
            Builtin::Ekey => {
                let buildkey = make_buildkey(&mut self.random);
                self.answers.give(buildkey.as_bytes(), seal);
                self.cipher = Some(Rc::new(Cipher::agree(
                    &self.settings.id,
                    &self.settings.caller,
                    buildkey.as_bytes(),
                )));
            }
            Builtin::Exit => {
                self.answers.give(b"bye", seal);
                self.enter(State::Leaving(Reason::Exit));
            }
            Builtin::Log(_) => {
                self.answers.give(b"ok", seal);
                return Some(Todo::Log);
            }
            Builtin::Pong => return Some(Todo::AskBack(self.answers.owe(Source::Reactor, bytes, seal))),
            Builtin::Load => return Some(Todo::Load(self.answers.owe(Source::Reactor, bytes, seal))),
        }
        None
    }

    /// A request that is not built in: a handler's, or nobody's.
    fn other(&mut self, request: &[u8], seal: Seal) -> Option<Todo> {
        let name = memchr::memchr(b':', request).map_or(request, |colon| &request[..colon]);
        let handler = self.settings.routes.iter().position(|route| route.name.as_bytes() == name);
        match handler.map(|at| (at, self.settings.routes[at].allowed)) {
            None => self.answers.give(b"unknown_cmd", seal),
            Some((_, false)) => self.answers.give(b"refused", seal),
            Some((handler, true)) => {
                let ticket = self.answers.owe(Source::Handler(handler), request.len(), seal);
                return Some(Todo::Ask { handler, ticket });
            }
        }
        None
    }
}
