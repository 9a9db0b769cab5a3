//! What each request means: its answer, or who is to give it.
//!
//! Every request that is taken is answered at once or owed by a handler or the reactor; a blank
//! line is none. What is wrong with a request costs an `error:` answer, before the link is open the
//! link.

use super::answers::{Seal, Source};
use super::{Classic, Effect, Order, Reason, Service, State, Verdict, too_long_answer};
use std::rc::Rc;
use wire::classic::{Cipher, make_buildkey};

/// A line of the caller, by what is to be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// Nothing: no request, and no answer.
    Blank,
    /// `init`: opens the dialogue; later it is as good as any unknown word.
    Init,
    /// `enc:...`: a request enciphered.
    Enciphered,
    /// Anything else.
    Other,
}

/// Whether `line` is to be deciphered.
pub(super) fn is_enciphered(line: &[u8]) -> bool {
    line.starts_with(b"enc:")
}

impl Request {
    /// The kind of `line`.
    pub(super) fn parse(line: &[u8]) -> Request {
        if line.is_empty() {
            Request::Blank
        } else if line == b"init" {
            Request::Init
        } else if is_enciphered(line) {
            Request::Enciphered
        } else {
            Request::Other
        }
    }
}

impl Classic {
    /// Takes the request in `request`.
    pub(super) fn take(&mut self) -> Option<Effect> {
        // The buffer is put back, for its allocation.
        let mut line = std::mem::take(&mut self.request);
        let request = Request::parse(&line);
        let effect = match (&self.state, request) {
            (State::Init | State::Challenged(_) | State::Open | State::Finishing(_), Request::Blank) => None,
            (State::Init, Request::Init) => {
                let challenge = self.random.u64(..).to_string();
                self.answers.give(challenge.as_bytes(), None);
                self.enter(State::Challenged(challenge));
                None
            }
            (State::Init, Request::Enciphered | Request::Other) => {
                self.refuse("it did not begin with init");
                None
            }
            (State::Challenged(challenge), Request::Init | Request::Enciphered | Request::Other) => {
                if line == challenge.as_bytes() {
                    self.answers.give(b"ok", None);
                    self.opened = true;
                    self.deadline = None;
                    self.enter(State::Open);
                    Some(Effect::Opened)
                } else {
                    self.refuse("the challenge came back wrong");
                    None
                }
            }
            (State::Open | State::Finishing(_), Request::Enciphered) => match self.decipher(&line) {
                Ok(plain) if plain.len() > self.settings.max_line => {
                    self.answers.give(&too_long_answer(self.settings.max_line), self.cipher.clone());
                    None
                }
                Ok(plain) => {
                    line = plain;
                    // An `enc:` line is a request whatever is in it: nothing is not `Blank` here.
                    self.serve(&line, self.cipher.clone())
                }
                Err(answer) => {
                    self.answers.give(&answer, None);
                    None
                }
            },
            (State::Open | State::Finishing(_), Request::Init | Request::Other) => self.serve(&line, None),
            // `step` takes no line in these.
            (
                State::Leaving(_) | State::Lingering(_) | State::Ended(_),
                Request::Blank | Request::Init | Request::Enciphered | Request::Other,
            ) => None,
        };
        self.request = line;
        effect
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

    /// A request that is one, and whether its answer is to be enciphered.
    fn serve(&mut self, request: &[u8], seal: Seal) -> Option<Effect> {
        match self.settings.service.decide(request, seal.is_some()) {
            Verdict::Answer(answer) => self.answers.give(answer, seal),
            Verdict::Refused(barred) => {
                self.answers.give(b"refused", seal);
                return Some(Effect::Refused(barred));
            }
            Verdict::AgreeCipher => {
                let buildkey = make_buildkey(&mut self.random);
                self.answers.give(buildkey.as_bytes(), seal);
                let Service { id, caller, .. } = &self.settings.service;
                self.cipher = Some(Rc::new(Cipher::agree(id, caller, buildkey.as_bytes())));
            }
            Verdict::Exit => {
                self.answers.give(b"bye", seal);
                self.enter(State::Leaving(Reason::Exit));
            }
            Verdict::Log(text) => {
                let ticket = self.answers.owe(Source::Reactor, request.len(), seal);
                return Some(Effect::Log { ticket, text: text.to_vec() });
            }
            Verdict::AskBack => {
                return Some(Effect::AskBack(self.answers.owe(Source::Reactor, request.len(), seal)));
            }
            Verdict::Load => {
                return Some(Effect::Load(self.answers.owe(Source::Reactor, request.len(), seal)));
            }
            Verdict::Ask(handler) => {
                let ticket = self.answers.owe(Source::Handler(handler), request.len(), seal);
                let (order, request) = (Order::Kept, request.to_vec());
                return Some(Effect::Ask { handler, ticket, order, name: None, request });
            }
        }
        None
    }
}
