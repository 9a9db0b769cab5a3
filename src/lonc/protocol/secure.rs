//! A conversation on the secure wire: HELLO both ways, then frames with numbers.
//!
//! Owns the requests that have no answer, and what flows both ways ([`wire::flow`]).
//! Critical requests are *in turn*: one is sent whole before the next is begun, and they are begun
//! before the others. Bounds: what was begun is bounded by the peer's window; what waits to be
//! begun by [`MAX_WAITING`].
//!
//! What the peer sends makes nothing grow here: chunks of an answer are kept only for a request
//! that waits for it, within our window, of which the peer gets them back when the answer is whole
//! and taken; of what this wire wants answered (PING, a window used up) there is one lot at a time
//! on its way out. So the peer is always read, however little it reads itself.

use super::{Heard, HeldCommands, Message, Once};
use base::line::Outgoing;
use base::request;
use base::{HostId, Key, Numbered, command};
use std::borrow::Cow;
use std::ops::ControlFlow;
use wire::flow::{self, Assembly, Cancelled, Chunk, Control, Credit, Sending, Taken};
use wire::secure::{
    CalledHello, CallerHello, CriticalHead, Frame, FrameReader, Hello, MAX_BODY, NO_EPOCH, Versions,
    put_cancel, put_critical, put_error, put_held, put_request,
};

/// Messages that wait for room in the peer's window; at this mark requests stay with their
/// programs.
const MAX_WAITING: usize = 16;
/// Bytes in the link's buffer at which no further chunk of a long message is added: what is added
/// later may stand before the rest of it.
const CHUNKS_UNTIL: usize = 4 * MAX_BODY;

/// What both ends of a link must know of this one.
#[derive(Debug, Clone)]
pub struct Terms {
    /// This host, which calls.
    pub caller: HostId,
    /// The peer, which must say that it is.
    pub called: HostId,
    /// The spool's epoch; empty where there is none.
    pub epoch: String,
    /// Bytes of answers that the peer may send ahead.
    pub window: u32,
    /// Longest answer taken.
    pub max_line: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Secure {
    called: HostId,
    reader: FrameReader,
    assembly: Assembly,
    open: bool,
    /// Longest request that the peer takes.
    peer_max_line: usize,
    /// The window of answers that the peer has.
    credit: Credit,
    control: Control,
    sending: Sending<Outbound>,
    begun: Begun,
    /// What the peer was told to be held.
    told_held: HeldCommands,
}

/// The requests begun that have no answer: the number of each, by its id on the wire. Ids are given
/// when a request is begun, since on the wire they must go up, and a short request may overtake a
/// long one that came before it.
#[derive(Debug, Default)]
struct Begun {
    numbers: Numbered<u64>,
    /// The id given last.
    last_id: u64,
}

impl Begun {
    /// The id on the wire of a request that is begun now.
    fn begin(&mut self, number: u64) -> u64 {
        self.last_id += 1;
        self.numbers.insert(self.last_id, number);
        self.last_id
    }
}

/// A message to be sent.
#[derive(Debug)]
struct Outbound {
    number: u64,
    /// Its id on the wire, once it is begun.
    id: u64,
    head: Option<CriticalHead>,
    /// What is held while it is sent, if it is critical.
    held: Option<HeldCommands>,
    text: Box<[u8]>,
    /// Nobody waits for its answer any more: said behind the last chunk.
    cancelled: bool,
}

impl flow::Message for Outbound {
    fn length(&self) -> usize {
        self.head_size() + self.text.len()
    }

    fn is_in_turn(&self) -> bool {
        self.head.is_some()
    }
}

impl Outbound {
    fn head_size(&self) -> usize {
        self.head.as_ref().map_or(0, CriticalHead::size)
    }

    /// Puts a chunk; the first begins the message. `told`: what the peer knows to be held.
    fn put(&mut self, chunk: &Chunk, begun: &mut Begun, told: &mut HeldCommands, out: &mut Outgoing) {
        if chunk.is_first() {
            self.id = begun.begin(self.number);
            if self.head.is_some() {
                tell_held(self.held.as_ref(), told, out);
            }
        }
        // A head is in the first chunk, whole.
        let (head, from) = match chunk.is_first() {
            true => (self.head.as_ref(), 0),
            false => (None, chunk.range.start - self.head_size()),
        };
        let text = &self.text[from..chunk.range.end - self.head_size()];
        match &self.head {
            Some(_) => put_critical(out.tail(), self.id, chunk.more, head, text),
            None => put_request(out.tail(), self.id, chunk.more, text),
        }
        if !chunk.more && self.cancelled {
            put_cancel(out.tail(), self.id);
        }
    }
}

impl Secure {
    /// Begins with our HELLO.
    pub fn begin(terms: &Terms, out: &mut Outgoing) -> Secure {
        let epoch = if terms.epoch.is_empty() { NO_EPOCH.to_owned() } else { terms.epoch.clone() };
        let hello = CallerHello {
            hello: Hello {
                versions: Versions::OURS,
                id: terms.caller.clone(),
                window: terms.window,
                max_line: terms.max_line,
                program: concat!("lonc/", env!("CARGO_PKG_VERSION")).to_owned(),
            },
            to: terms.called.clone(),
            epoch,
        };
        hello.put(out.tail());
        Secure {
            called: terms.called.clone(),
            reader: FrameReader::new(),
            assembly: Assembly::new(terms.max_line as usize),
            open: false,
            peer_max_line: 0,
            credit: Credit::new(terms.window),
            control: Control::default(),
            sending: Sending::new(0),
            begun: Begun::default(),
            told_held: HeldCommands::default(),
        }
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.reader.push(bytes);
    }

    pub(super) fn hear(
        &mut self,
        out: &mut Outgoing,
        mut tell: impl FnMut(Heard<'_>) -> ControlFlow<()>,
    ) -> Result<(), String> {
        let fault = |out: &mut Outgoing, why: String| {
            put_error(out.tail(), &why);
            Err(why)
        };
        while let Some(frame) = self.reader.next_frame() {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => return fault(out, error.to_string()),
            };
            let told = match frame {
                Frame::Error(text) => return Err(format!("the peer says: {}", shown(text))),
                Frame::Hello(_) if self.open => return fault(out, "a second HELLO".to_owned()),
                Frame::Hello(body) => match hello_of(&self.called, body) {
                    Ok(hello) => {
                        self.open = true;
                        self.sending = Sending::new(hello.window);
                        self.peer_max_line = hello.max_line as usize;
                        tell(Heard::Opened)
                    }
                    Err(why) => return fault(out, why),
                },
                _ if !self.open => return fault(out, "a frame before HELLO".to_owned()),
                Frame::Answer { id, more, broken, body } => {
                    let (begun, assembly) = (&mut self.begun, &mut self.assembly);
                    match take_chunk(begun, assembly, &mut self.credit, (id, more, body), frame.cost()) {
                        Ok(None) => ControlFlow::Continue(()),
                        Ok(Some((number, text))) => {
                            tell(Heard::Answer { number: Some(number), text: one_line(text), broken })
                        }
                        Err(why) => return fault(out, why),
                    }
                }
                Frame::Ping(body) => {
                    self.control.pinged(body);
                    ControlFlow::Continue(())
                }
                Frame::Pong(_) => tell(Heard::Pong),
                Frame::Window(bytes) => {
                    // More than can be meant is as good as no bound.
                    let _ = self.sending.widen(bytes);
                    ControlFlow::Continue(())
                }
                Frame::GoAway { last } => tell(Heard::Leaving { not_run: self.not_run(last) }),
                Frame::NotTaken { id, why } => match self.begun.numbers.remove(id) {
                    Some(number) => {
                        self.credit.give_back(self.assembly.forget(id).unwrap_or(0));
                        tell(Heard::NotTaken { number, why: shown(why) })
                    }
                    None => ControlFlow::Continue(()),
                },
                Frame::Ready(name) => tell(Heard::Ready { command: command(name) }),
                // Such a kind may be passed over.
                Frame::Held(_) => ControlFlow::Continue(()),
                Frame::Request { .. } | Frame::Critical { .. } | Frame::Cancel { .. } => {
                    return fault(out, "a frame that only a caller sends".to_owned());
                }
            };
            if told.is_break() {
                break;
            }
        }
        self.carry_on(out);
        Ok(())
    }

    pub(super) fn takes(&self, length: usize) -> Result<(), String> {
        match self.peer_max_line {
            most if length > most => Err(format!("the peer takes no line longer than {most} bytes")),
            _ => Ok(()),
        }
    }

    pub(super) fn send(&mut self, message: Message<'_>, out: &mut Outgoing) {
        let payload = request::payload(message.text);
        let head = message.once.as_ref().map(|Once { sequence, settled, .. }| CriticalHead {
            sequence: sequence.0,
            settled: settled.0,
            key: payload.key.and_then(|key| Key::new(key.as_bytes())),
        });
        let held = message.once.map(|once| once.held);
        // All is enciphered here: the prefix `encrypt:` asks for nothing more.
        let length = head.as_ref().map_or(0, CriticalHead::size) + payload.bytes.len();
        if self.sending.pass(length, head.is_some()) {
            let id = self.begun.begin(message.number);
            match &head {
                Some(_) => {
                    tell_held(held.as_ref(), &mut self.told_held, out);
                    put_critical(out.tail(), id, false, head.as_ref(), payload.bytes);
                }
                None => put_request(out.tail(), id, false, payload.bytes),
            }
            return;
        }
        let (number, text) = (message.number, payload.bytes.into());
        self.sending.push(Outbound { number, id: 0, head, held, text, cancelled: false });
        self.carry_on(out);
    }

    pub(super) fn carry_on(&mut self, out: &mut Outgoing) {
        self.control.put(&mut self.credit, out);
        let (begun, told) = (&mut self.begun, &mut self.told_held);
        self.sending.fill(out, CHUNKS_UNTIL, |message, chunk, out| message.put(chunk, begun, told, out));
    }

    pub(super) fn cancel(&mut self, number: u64, out: &mut Outgoing) {
        let under_way = match self.sending.cancel(|message| message.number == number) {
            Cancelled::Dropped(_) => return,
            Cancelled::UnderWay(message) => {
                message.cancelled = true;
                true
            }
            Cancelled::Unknown => false,
        };
        let begun = &mut self.begun.numbers;
        let Some(id) = begun.iter().find(|(_, begun)| **begun == number).map(|(id, _)| id) else { return };
        begun.remove(id);
        // An answer that is under way already is nobody's.
        self.credit.give_back(self.assembly.forget(id).unwrap_or(0));
        if !under_way {
            put_cancel(out.tail(), id);
        }
    }

    /// The numbers of the requests that are not run when `last` is the last id that is.
    fn not_run(&self, last: u64) -> Vec<u64> {
        let begun = self.begun.numbers.iter().filter(|(id, _)| *id > last).map(|(_, number)| *number);
        let mut numbers: Vec<u64> =
            begun.chain(self.sending.unsent().map(|message| message.number)).collect();
        numbers.sort_unstable();
        numbers
    }

    pub(super) fn ping(&mut self, out: &mut Outgoing) {
        self.control.ping(0);
        self.control.put(&mut self.credit, out);
    }

    pub(super) fn has_room(&self) -> bool {
        self.sending.waiting() < MAX_WAITING
    }
}

/// A whole answer, and the number of the request that it is for.
type Answer<'a> = (u64, Cow<'a, [u8]>);

/// The HELLO of the host that was called.
///
/// # Errors
/// It cannot be read, or is another host's.
fn hello_of(called: &HostId, body: &[u8]) -> Result<Hello, String> {
    // A replay begins at what our own spool has, whatever the peer's mark is.
    let CalledHello { hello, mark: _ } = CalledHello::parse(body).map_err(|error| error.to_string())?;
    if hello.id != *called {
        return Err(format!("{} answered in place of {called}", hello.id));
    }
    Ok(hello)
}

/// Takes a chunk of an answer; what it made whole, and what is kept no longer of our window. One to
/// a request that waits for none (it was cancelled, or answered before) is dropped as it comes: no
/// chunk of it is kept.
///
/// # Errors
/// The link cannot go on.
fn take_chunk<'a>(
    begun: &mut Begun,
    assembly: &mut Assembly,
    credit: &mut Credit,
    (id, more, body): (u64, bool, &'a [u8]),
    cost: usize,
) -> Result<Option<Answer<'a>>, String> {
    if id == 0 || id > begun.last_id {
        return Err("an answer to no request".to_owned());
    }
    if !credit.take(cost) {
        return Err("an answer beyond the window".to_owned());
    }
    let Some(number) = begun.numbers.get(id).copied() else {
        credit.give_back(cost);
        return Ok(None);
    };
    let (answer, given_back) = match assembly.answer(id, more, body).map_err(|error| error.to_string())? {
        Taken::Whole { text, cost, .. } => {
            begun.numbers.remove(id);
            (Some((number, text)), cost)
        }
        // The rest of it is dropped as it comes.
        Taken::TooLong { cost, .. } => {
            begun.numbers.remove(id);
            assembly.forget(id);
            (Some((number, Cow::Borrowed(&b"error:the answer is longer than max_line"[..]))), cost)
        }
        Taken::Unfinished => (None, 0),
        Taken::Skipped { cost } => (None, cost),
    };
    credit.give_back(given_back);
    Ok(answer)
}

/// Tells the peer what is held, if that is not what it was told last. What a critical request says
/// to be settled depends on it, so this stands right before its first chunk.
fn tell_held(held: Option<&HeldCommands>, told: &mut HeldCommands, out: &mut Outgoing) {
    if let Some(held) = held.filter(|held| *held != told) {
        put_held(out.tail(), held.iter().map(|command| command.as_bytes()));
        *told = held.clone();
    }
}

/// An answer as a line: a peer's newline must not become two answers.
fn one_line(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match memchr::memchr(b'\n', &text) {
        None => text,
        Some(_) => Cow::Borrowed(b"error:the answer has more than one line"),
    }
}

/// What a peer said, fit for a log line.
fn shown(text: &[u8]) -> String {
    text[..text.len().min(200)].escape_ascii().to_string()
}

#[cfg(test)]
mod tests;
