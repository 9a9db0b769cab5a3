//! The secure wire: frames, opening frames, and both ends of a link.

use super::pieces;
use lonnet::base::HostId;
use lonnet::base::Sequence;
use lonnet::base::line::Outgoing;
use lonnet::lonc::protocol::{Heard, HeldCommands, Message, Once, Protocol, Secure as Calling, Terms};
use lonnet::lond::handler::Reply;
use lonnet::lond::secure::{
    Opening, Recalled, Recorded as Before, Recorder, Secure as Called, Settings, UNSYNCED_MOST, Unrecorded,
    Wanted,
};
use lonnet::lond::service::{Effect, Route, Service};
use lonnet::wire::flow::{Assembly, Taken};
use lonnet::wire::secure::{
    CalledHello, CallerHello, CriticalHead, Frame, FrameError, FrameReader, HEADER, MAX_BODY, MAX_UNFINISHED,
    put_answer, put_broken_answer, put_cancel, put_critical, put_go_away, put_pong, put_request, put_window,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Longest line that the ends of this link take; short, so that little input is enough to pass it.
const MAX_LINE: usize = 40;

/// A stream of frames: it reads the same in pieces as in one, what was read is put as it was, and
/// nothing grows beyond its bounds.
pub fn frame(bytes: &[u8]) {
    let (whole, in_pieces) = pieces(bytes);
    assert_eq!(read(in_pieces), read(whole));
}

/// What a stream came to: its frames and messages in words, and what was wrong.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut reader = FrameReader::new();
    let mut requests = Assembly::new(MAX_LINE);
    let mut answers = Assembly::new(MAX_LINE);
    let mut said = Vec::new();
    let mut failed = false;
    for piece in pieces {
        reader.push(piece);
        while let Some(frame) = reader.next_frame() {
            assert!(!failed, "nothing follows an error");
            match frame {
                Ok(frame) => {
                    put_again(&frame);
                    said.push(format!("{frame:?}"));
                    said.push(take(frame, &mut requests, &mut answers));
                }
                Err(error) => {
                    failed = true;
                    said.push(error.to_string());
                }
            }
        }
        assert!(failed || reader.len() < HEADER + MAX_BODY, "{} bytes are held", reader.len());
        assert!(requests.unfinished() <= MAX_UNFINISHED && answers.unfinished() <= MAX_UNFINISHED);
    }
    said
}

fn take(frame: Frame<'_>, requests: &mut Assembly, answers: &mut Assembly) -> String {
    let taken = match frame {
        Frame::Request { id, more, body } => requests.request(id, more, body),
        Frame::Critical { id, more, body } => requests.critical(id, more, body),
        Frame::Answer { id, more, body, .. } => answers.answer(id, more, body),
        Frame::Cancel { id } => return format!("forgotten: {:?}", requests.forget(id)),
        Frame::Hello(body) => {
            hello(body);
            return String::new();
        }
        Frame::Ping(_)
        | Frame::Pong(_)
        | Frame::Window(_)
        | Frame::GoAway { .. }
        | Frame::Error(_)
        | Frame::NotTaken { .. }
        | Frame::Ready(_)
        | Frame::Held(_) => return String::new(),
    };
    if let Ok(Taken::Whole { text, .. }) = &taken {
        assert!(text.len() <= MAX_LINE);
    }
    taken.map_or_else(|error: FrameError| error.to_string(), |taken| format!("{taken:?}"))
}

/// A frame that is put and read again is the same.
fn put_again(frame: &Frame<'_>) {
    let mut out = Vec::new();
    match *frame {
        Frame::Request { id, more, body } => put_request(&mut out, id, more, body),
        Frame::Critical { id, more, body } => match CriticalHead::split(body) {
            Ok((head, text)) => put_critical(&mut out, id, more, Some(&head), text),
            Err(_) => put_critical(&mut out, id, more, None, body),
        },
        Frame::Answer { id, more, broken: false, body } => put_answer(&mut out, id, more, body),
        Frame::Answer { id, more, broken: true, body } => put_broken_answer(&mut out, id, more, body),
        Frame::Cancel { id } => put_cancel(&mut out, id),
        Frame::Pong(body) => put_pong(&mut out, body),
        Frame::Window(bytes) => put_window(&mut out, bytes),
        Frame::GoAway { last } => put_go_away(&mut out, last),
        // Those that we put are made of other things than what was read.
        Frame::Hello(_)
        | Frame::Ping(_)
        | Frame::Error(_)
        | Frame::NotTaken { .. }
        | Frame::Ready(_)
        | Frame::Held(_) => return,
    }
    let mut reader = FrameReader::new();
    reader.push(&out);
    assert_eq!(reader.next_frame(), Some(Ok(*frame)));
    assert!(reader.is_empty());
}

/// The body of an opening frame, as either end reads it: what is right is put as a frame and read
/// as the same.
pub fn hello(bytes: &[u8]) {
    let body = |out: &[u8]| out[HEADER..].to_vec();
    let mut out = Vec::new();
    if let Ok(hello) = CallerHello::parse(bytes) {
        hello.put(&mut out);
        assert_eq!(CallerHello::parse(&body(&out)), Ok(hello));
    }
    out.clear();
    if let Ok(hello) = CalledHello::parse(bytes) {
        hello.put(&mut out);
        assert_eq!(CalledHello::parse(&body(&out)), Ok(hello));
    }
}

/// Bytes that wait to be written at either end, with what is begun here: far below this.
const OUT_MOST: usize = 4 * 1024 * 1024;

/// A peer's bytes, to the end that called it: it hears the same in pieces as in one, answers each
/// request once, says why it ends, and holds a bounded part.
pub fn dial_secure(bytes: &[u8]) {
    let (whole, in_pieces) = pieces(bytes);
    assert_eq!(dial(in_pieces), dial(whole));
}

fn dial<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let id = |text: &str| HostId::new(text).expect("an id");
    let terms = Terms {
        caller: id("msua1"),
        called: id("msul1"),
        epoch: "0".repeat(32),
        window: 1 << 20,
        max_line: 1000,
    };
    let mut out = Outgoing::default();
    let mut link = Protocol::Secure(Calling::begin(&terms, &mut out));
    let (mut said, mut answered) = (Vec::new(), Vec::new());
    for piece in pieces {
        link.receive(piece);
        loop {
            let (mut opened, mut heard) = (false, false);
            let result = link.hear(&mut out, |what| {
                heard = true;
                said.push(format!("{what:?}"));
                match what {
                    Heard::Opened => opened = true,
                    Heard::Answer { number, text, .. } => {
                        let number = number.expect("answers of this wire have numbers");
                        assert!(!answered.contains(&number), "{number} is answered twice");
                        assert!(text.len() <= 1000 || text.starts_with(b"error:"));
                        answered.push(number);
                    }
                    Heard::NotTaken { number, why } => {
                        assert!(!answered.contains(&number), "{number} is answered twice");
                        assert!(why.len() <= 1000 && !why.contains('\n'));
                        answered.push(number);
                    }
                    Heard::Progress { .. } | Heard::Pong | Heard::Leaving { .. } | Heard::Ready { .. } => {}
                }
                ControlFlow::Break(())
            });
            if let Err(why) = result {
                assert!(!why.is_empty());
                said.push(why);
                return said;
            }
            if opened {
                for (number, text) in
                    [&b"ping"[..], &[b'x'; 3 * MAX_BODY], b"critical;key=K:log:x"].iter().enumerate()
                {
                    if link.takes(text.len()).is_ok() {
                        let held = HeldCommands::default();
                        let (sequence, settled) = (Sequence(9), Sequence(3));
                        let once = (number == 2).then_some(Once { sequence, settled, held });
                        link.send(Message { number: number as u64, text, once }, &mut out);
                    }
                }
            }
            link.carry_on(&mut out);
            assert!(out.len() <= OUT_MOST);
            out.clear();
            if !heard {
                break;
            }
        }
    }
    said
}

/// A caller's bytes, to the end that was called: it asks and answers each request once, holds a
/// bounded part, and does the same in pieces as in one. (Unless the caller breaks a rule, cancels
/// or ends the link: then what it had sent before or behind may be answered or not, whichever came
/// first.)
pub fn serve_secure(bytes: &[u8]) {
    let (whole, in_pieces) = pieces(bytes);
    let (whole, in_pieces) = (serve(whole), serve(in_pieces));
    let broken = |frame: &Frame<'_>| matches!(frame, Frame::Error(_));
    let ends = |frame: &Frame<'_>| matches!(frame, Frame::Cancel { .. } | Frame::Error(_));
    if !holds(&whole.1, broken) && !holds(bytes.get(1..).unwrap_or_default(), ends) {
        let (whole, in_pieces) = ((whole.0, answers(&whole.1)), (in_pieces.0, answers(&in_pieces.1)));
        let leaves = whole.1.values().any(|answer| answer == b"bye");
        assert!(in_pieces == whole || leaves, "{in_pieces:?} and {whole:?}");
    }
}

/// The text of each answer, by its id: critical requests and others take turns, however they came.
fn answers(sent: &[u8]) -> BTreeMap<u64, Vec<u8>> {
    let mut answers = BTreeMap::<u64, Vec<u8>>::new();
    let mut reader = FrameReader::new();
    reader.push(sent);
    while let Some(Ok(frame)) = reader.next_frame() {
        if let Frame::Answer { id, body, .. } = frame {
            answers.entry(id).or_default().extend_from_slice(body);
        }
    }
    answers
}

/// Whether there is such a frame.
fn holds(bytes: &[u8], is: impl Fn(&Frame<'_>) -> bool) -> bool {
    let mut reader = FrameReader::new();
    reader.push(bytes);
    while let Some(Ok(frame)) = reader.next_frame() {
        if is(&frame) {
            return true;
        }
    }
    false
}

/// A record that takes everything, and has every third message answered already.
#[derive(Debug, Default)]
struct Recorded {
    open: bool,
    /// Answers that were written since the last sync.
    unsynced: usize,
}

impl Recorder for Recorded {
    fn open(&mut self, _: &str) -> Opening {
        self.open = true;
        Opening::Open(7)
    }

    fn is_open(&self) -> bool {
        self.open
    }

    fn recall(&mut self, wanted: &Wanted<'_>) -> Recalled {
        match wanted.sequence {
            known if known % 3 == 0 => {
                Recalled::Answered(Before { text: (*b"before").into(), broken: known % 2 == 0 })
            }
            _ => Recalled::New,
        }
    }

    fn write(&mut self, answers: &[&Unrecorded]) -> Result<(), String> {
        assert!(self.open && !answers.is_empty());
        self.unsynced += answers.len();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), String> {
        assert!(self.open && self.unsynced > 0);
        self.unsynced = 0;
        Ok(())
    }

    fn close(&mut self) {
        self.open = false;
    }
}

/// What a session was to do, by the ids of the requests, and the frames that it sent.
fn serve<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (BTreeSet<String>, Vec<u8>) {
    let now = Instant::now();
    let id = |text: &str| HostId::new(text).expect("an id");
    let (routes, barred) = (vec![Route::open("echo"), Route::barred("closed")], vec!["version".to_owned()]);
    let settings = Settings {
        service: Service { id: id("msul1"), caller: id("msua1"), routes, barred },
        max_line: 1000,
        window: 1 << 20,
        heartbeat: Duration::from_secs(15),
        heartbeat_missed: 3,
        unsynced: UNSYNCED_MOST,
        drain_timeout: Duration::from_secs(5),
    };
    let mut session = Called::new(settings, Recorded::default(), now + Duration::from_secs(10), now);
    let (mut did, mut sent, mut asked) = (BTreeSet::new(), Vec::new(), BTreeSet::new());
    for piece in pieces {
        session.push(piece, now);
        while session.ended().is_none() {
            let Some(effect) = session.step(now, true) else {
                session.fill(now);
                let out = session.outgoing();
                assert!(out.len() <= OUT_MOST);
                if out.is_empty() {
                    break;
                }
                sent.extend_from_slice(out.bytes());
                let length = out.len();
                out.wrote(length);
                continue;
            };
            did.insert(format!("{effect:?}"));
            match effect {
                Effect::Ask { ticket, request, .. } => {
                    assert!(asked.insert(ticket), "{ticket:?} is asked twice");
                    let answer = request.to_vec();
                    session.answer(
                        ticket,
                        match answer.len() % 4 {
                            0 => Reply::NotTaken("echo: away"),
                            1 => Reply::Broken(&answer),
                            _ => Reply::Answer(&answer),
                        },
                    );
                    session.handler_back(0);
                }
                Effect::Withdraw { ticket, .. } => session.withdrawn(ticket),
                Effect::AskBack(ticket) => session.asked_back(ticket, None),
                Effect::Load(ticket) => session.answer(ticket, Reply::Answer(b"12")),
                Effect::Log { ticket, text } => {
                    let over = text.len() % 4 == 0;
                    session.answer(
                        ticket,
                        if over { Reply::NotTaken("log: over the quota") } else { Reply::Answer(b"ok") },
                    );
                }
                Effect::Opened | Effect::Refused(_) | Effect::Shut => {}
            }
            session.record(now);
        }
    }
    did.extend(session.ended().map(ToString::to_string));
    (did, sent)
}
