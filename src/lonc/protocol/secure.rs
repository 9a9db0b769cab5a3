//! A conversation on the secure wire: HELLO both ways, then frames with numbers.
//!
//! Owns the flow control of both directions and the messages that are being sent in chunks. A message is begun only
//! when the peer's window has room for all of it, so that several begun ones never block each other. Long ones take
//! turns, a chunk each; short ones pass in between. Critical ones keep their order: one is sent whole before the next is
//! begun. Bounds: what was begun is bounded by the peer's window; what waits to be begun by [`MAX_WAITING`].
//!
//! What the peer sends makes nothing grow here: chunks of an answer are kept only for a request that waits for it, within
//! our window, of which the peer gets them back when the answer is whole and taken; of what this wire wants answered
//! (PING, a window used up) there is one frame at a time on its way out, and what is due meanwhile is one more. So the
//! peer is always read, however little it reads itself.

use super::{Heard, HeldCommands, Message, Once};
use crate::config::HostId;
use crate::lonc::request;
use crate::wire::line::Outgoing;
use crate::wire::secure::{
    Assembler, CalledHello, CallerHello, Credit, CriticalHead, Frame, FrameError, FrameReader, Hello, Key,
    MAX_BODY, NO_EPOCH, Taken, Versions, command, message_cost, put_cancel, put_critical, put_error,
    put_held, put_ping, put_pong, put_request, put_window,
};
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

/// Messages that wait for room in the peer's window; at this mark requests stay with their programs.
const MAX_WAITING: usize = 16;
/// Bytes in the link's buffer at which no further chunk of a long message is added: what is added later may stand
/// before the rest of it.
const CHUNKS_UNTIL: usize = 4 * MAX_BODY;

/// What both ends of a link must know of this one.
#[derive(Debug, Clone)]
pub struct Terms {
    /// This host.
    pub caller: HostId,
    /// The peer.
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
    assembler: Assembler,
    open: bool,
    /// Longest request that the peer takes.
    peer_max_line: usize,
    /// Bytes that may still be sent to the peer; what was begun is taken off already.
    credit: u64,
    /// The window of answers that the peer has.
    answers: Credit,
    /// The peer's PING that is to be answered: the newest, if they come faster than PONGs leave.
    pong: Option<Vec<u8>>,
    /// A PING of ours is to be sent.
    ping: bool,
    /// The control frames that were put last are gone when the link's buffer has come so far; no other is put before.
    control_gone_at: u64,
    /// The requests begun that have no answer, by their ids on the wire. Ids are given when a request is
    /// begun, since on the wire they must go up, and a short request may overtake a long one that came before it.
    begun: BTreeMap<u64, Begun>,
    /// The id given last.
    last_id: u64,
    /// What the peer was told to be held.
    told_held: HeldCommands,
    /// Requests that wait to be begun.
    waiting: VecDeque<Outbound>,
    /// Critical ones, in their order.
    waiting_critical: VecDeque<Outbound>,
    /// Begun and not sent whole; at most one of them is critical.
    sending: VecDeque<Outbound>,
}

/// A request that was begun and has no answer.
#[derive(Debug)]
struct Begun {
    number: u64,
    /// What the chunks of its answer that are kept took of our window.
    cost: usize,
}

/// A message to be sent.
#[derive(Debug)]
struct Outbound {
    number: u64,
    /// Its id on the wire; 0 until it is begun.
    id: u64,
    head: Option<CriticalHead>,
    /// What is held while it is sent, if it is critical.
    held: HeldCommands,
    text: Box<[u8]>,
    sent: usize,
    /// Nobody waits for its answer any more: said behind the last chunk.
    cancelled: bool,
}

impl Outbound {
    fn cost(&self) -> u64 {
        message_cost(self.head.as_ref().map_or(0, CriticalHead::size) + self.text.len()) as u64
    }

    /// Puts the next chunk; `true` if it was the last. `told`: what the peer knows to be held.
    fn put_chunk(&mut self, told: &mut HeldCommands, out: &mut Outgoing) -> bool {
        if self.head.is_some() && self.sent == 0 {
            tell_held(&self.held, told, out);
        }
        let head = self.head.as_ref().filter(|_| self.sent == 0);
        let room = MAX_BODY - head.map_or(0, CriticalHead::size);
        let end = self.text.len().min(self.sent + room);
        let (chunk, more) = (&self.text[self.sent..end], end < self.text.len());
        match &self.head {
            Some(_) => put_critical(out.tail(), self.id, more, head, chunk),
            None => put_request(out.tail(), self.id, more, chunk),
        }
        self.sent = end;
        if !more && self.cancelled {
            put_cancel(out.tail(), self.id);
        }
        !more
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
            assembler: Assembler::new(terms.max_line as usize),
            open: false,
            peer_max_line: 0,
            credit: 0,
            answers: Credit::new(terms.window),
            pong: None,
            ping: false,
            control_gone_at: 0,
            begun: BTreeMap::new(),
            last_id: 0,
            told_held: HeldCommands::default(),
            waiting: VecDeque::new(),
            waiting_critical: VecDeque::new(),
            sending: VecDeque::new(),
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
                Frame::Hello(body) => {
                    let hello = match CalledHello::parse(body) {
                        Ok(hello) => hello.hello,
                        Err(error) => return fault(out, error.to_string()),
                    };
                    if hello.id != self.called {
                        return fault(out, format!("{} answered in place of {}", hello.id, self.called));
                    }
                    self.open = true;
                    self.credit = u64::from(hello.window);
                    self.peer_max_line = hello.max_line as usize;
                    tell(Heard::Opened)
                }
                _ if !self.open => return fault(out, "a frame before HELLO".to_owned()),
                Frame::Answer { id, more, broken, body } => {
                    let cost = frame.cost();
                    if id == 0 || id > self.last_id {
                        return fault(out, "an answer to no request".to_owned());
                    }
                    if !self.answers.take(cost) {
                        return fault(out, "an answer beyond the window".to_owned());
                    }
                    match take_chunk(&mut self.begun, &mut self.assembler, id, more, body, cost) {
                        Ok(Chunk { text, given_back }) => {
                            self.answers.give_back(given_back);
                            match text {
                                Some((number, text)) => {
                                    tell(Heard::Answer { number: Some(number), text: one_line(text), broken })
                                }
                                None => ControlFlow::Continue(()),
                            }
                        }
                        Err(error) => return fault(out, error.to_string()),
                    }
                }
                Frame::Ping(body) => {
                    self.pong = Some(body.to_vec());
                    ControlFlow::Continue(())
                }
                Frame::Pong(_) => tell(Heard::Pong),
                Frame::Window(bytes) => {
                    self.credit = self.credit.saturating_add(u64::from(bytes));
                    ControlFlow::Continue(())
                }
                Frame::GoAway { last } => tell(Heard::Leaving { not_run: self.not_run(last) }),
                Frame::NotTaken { id, why } => match self.begun.remove(&id) {
                    Some(Begun { number, cost }) => {
                        self.assembler.forget(id);
                        self.answers.give_back(cost);
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
        let held = message.once.map(|once| once.held).unwrap_or_default();
        // All is enciphered here: the prefix `encrypt:` asks for nothing more.
        let length = head.as_ref().map_or(0, CriticalHead::size) + payload.bytes.len();
        let cost = message_cost(length) as u64;
        let nothing_before = match head {
            Some(_) => self.waiting_critical.is_empty() && !self.sending_critical(),
            None => self.waiting.is_empty(),
        };
        if nothing_before && length <= MAX_BODY && cost <= self.credit {
            self.credit -= cost;
            let id = self.next_id(message.number);
            match &head {
                Some(_) => {
                    tell_held(&held, &mut self.told_held, out);
                    put_critical(out.tail(), id, false, head.as_ref(), payload.bytes);
                }
                None => put_request(out.tail(), id, false, payload.bytes),
            }
            return;
        }
        let queue = if head.is_some() { &mut self.waiting_critical } else { &mut self.waiting };
        let text = payload.bytes.into();
        let (number, id, sent, cancelled) = (message.number, 0, 0, false);
        queue.push_back(Outbound { number, id, head, held, text, sent, cancelled });
        self.begin_waiting();
        self.carry_on(out);
    }

    fn sending_critical(&self) -> bool {
        self.sending.iter().any(|message| message.head.is_some())
    }

    /// Puts what the wire itself wants said, once what was said last has gone: a peer that does not read, and asks, makes
    /// nothing grow.
    fn put_control(&mut self, out: &mut Outgoing) {
        let due = self.answers.due();
        if out.gone() < self.control_gone_at || (self.pong.is_none() && !self.ping && due.is_none()) {
            return;
        }
        if let Some(ping) = self.pong.take() {
            put_pong(out.tail(), &ping);
        }
        if std::mem::take(&mut self.ping) {
            put_ping(out.tail(), 0);
        }
        if let Some(due) = due {
            put_window(out.tail(), due.get());
            self.answers.told(due);
        }
        self.control_gone_at = out.end();
    }

    pub(super) fn carry_on(&mut self, out: &mut Outgoing) {
        self.put_control(out);
        while out.len() < CHUNKS_UNTIL {
            self.begin_waiting();
            let Some(mut message) = self.sending.pop_front() else { return };
            if message.id == 0 {
                message.id = self.next_id(message.number);
            }
            if !message.put_chunk(&mut self.told_held, out) {
                self.sending.push_back(message);
            }
        }
    }

    /// Begins what there is room for: critical messages first, since they alone wait for each other. A long one at the
    /// front waits until all of it has room, and nothing that came later overtakes it: else it might wait for ever.
    fn begin_waiting(&mut self) {
        loop {
            let critical = (!self.sending_critical()).then(|| self.waiting_critical.front()).flatten();
            let Some(next) = critical.or(self.waiting.front()) else { return };
            let cost = next.cost();
            if cost > self.credit {
                return;
            }
            self.credit -= cost;
            let queue = if next.head.is_some() { &mut self.waiting_critical } else { &mut self.waiting };
            self.sending.extend(queue.pop_front());
        }
    }

    pub(super) fn cancel(&mut self, number: u64, out: &mut Outgoing) {
        let before = self.waiting.len();
        self.waiting.retain(|message| message.number != number);
        if self.waiting.len() < before {
            return;
        }
        if let Some(at) = self.sending.iter().position(|message| message.number == number) {
            if self.sending[at].id == 0 {
                self.credit += self.sending.remove(at).map_or(0, |message| message.cost());
                return;
            }
            self.sending[at].cancelled = true;
        }
        let Some(id) = self.begun.iter().find(|(_, begun)| begun.number == number).map(|(id, _)| *id) else {
            return;
        };
        // An answer that is under way already is nobody's.
        self.assembler.forget(id);
        if let Some(begun) = self.begun.remove(&id) {
            self.answers.give_back(begun.cost);
        }
        if !self.sending.iter().any(|message| message.number == number) {
            put_cancel(out.tail(), id);
        }
    }

    /// The id on the wire of a request that is begun now.
    fn next_id(&mut self, number: u64) -> u64 {
        self.last_id += 1;
        self.begun.insert(self.last_id, Begun { number, cost: 0 });
        self.last_id
    }

    /// The numbers of the requests that are not run when `last` is the last id that is.
    fn not_run(&self, last: u64) -> Vec<u64> {
        let begun = self.begun.iter().filter(|(id, _)| **id > last).map(|(_, begun)| begun.number);
        let unbegun = self.sending.iter().filter(|message| message.id == 0);
        let unbegun = unbegun.chain(&self.waiting).chain(&self.waiting_critical);
        let mut numbers: Vec<u64> = begun.chain(unbegun.map(|message| message.number)).collect();
        numbers.sort_unstable();
        numbers
    }

    pub(super) fn ping(&mut self, out: &mut Outgoing) {
        self.ping = true;
        self.put_control(out);
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() + self.waiting_critical.len() < MAX_WAITING
    }
}

/// What a chunk of an answer led to.
struct Chunk<'a> {
    /// The number of the request and its whole answer.
    text: Option<(u64, Cow<'a, [u8]>)>,
    /// What is kept no longer of our window.
    given_back: usize,
}

/// Takes a chunk of an answer. One to a request that waits for none (it was cancelled, or answered before) is dropped as it
/// comes: no chunk of it is kept.
///
/// # Errors
/// The link cannot go on.
fn take_chunk<'a>(
    begun: &mut BTreeMap<u64, Begun>,
    assembler: &mut Assembler,
    id: u64,
    more: bool,
    body: &'a [u8],
    cost: usize,
) -> Result<Chunk<'a>, FrameError> {
    let Some(open) = begun.get_mut(&id) else { return Ok(Chunk { text: None, given_back: cost }) };
    let number = open.number;
    let cost = cost + std::mem::take(&mut open.cost);
    let text = match assembler.answer(id, more, body)? {
        Taken::Whole { text, .. } => {
            begun.remove(&id);
            Some((number, text))
        }
        // The rest of it is dropped as it comes.
        Taken::TooLong { .. } => {
            begun.remove(&id);
            assembler.forget(id);
            Some((number, Cow::Borrowed(&b"error:the answer is longer than max_line"[..])))
        }
        Taken::Unfinished => {
            open.cost = cost;
            return Ok(Chunk { text: None, given_back: 0 });
        }
        Taken::Skipped => None,
    };
    Ok(Chunk { text, given_back: cost })
}

/// Tells the peer what is held, if that is not what it was told last. What a critical request says to be settled depends on
/// it, so this stands right before its first chunk.
fn tell_held(held: &HeldCommands, told: &mut HeldCommands, out: &mut Outgoing) {
    if held != told {
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
