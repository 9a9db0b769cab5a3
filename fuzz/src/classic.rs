//! The classic wire: both ends of a link, and its cipher.

use super::pieces;
use lonnet::base::HostId;
use lonnet::base::line::Outgoing;
use lonnet::lonc::protocol::{Classic, Heard, Message, Protocol};
use lonnet::lond::classic::{self, Settings};
use lonnet::lond::service::{Effect, Route, Service};
use lonnet::wire::classic::Cipher;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Longest request and answer.
const MAX_LINE: usize = 256;
/// Bytes that wait to be written at either end: far below this.
const OUT_MOST: usize = 1024 * 1024;

fn id(text: &str) -> HostId {
    HostId::new(text).expect("an id")
}

/// An `enc:` line: what it holds is no longer than its blocks and comes back when it is sealed
/// anew; and any text is opened as it was sealed.
pub fn cipher(bytes: &[u8]) {
    let cipher = Cipher::agree(&id("msul1"), &id("msua1"), b"0123456789ABCDEF0123456789ABCDEF");
    let mut sealed = Vec::new();
    cipher.seal(bytes, &mut sealed);
    assert!(!sealed.contains(&b'\n') && sealed.len() <= 2 * bytes.len() + 64);
    assert_eq!(cipher.open(&sealed).as_deref(), Ok(bytes));
    if let Ok(text) = cipher.open(bytes) {
        assert!(2 * text.len() <= bytes.len());
        sealed.clear();
        cipher.seal(&text, &mut sealed);
        assert_eq!(cipher.open(&sealed), Ok(text));
    }
}

/// A caller's bytes, to `lond`: it does the same in pieces as in one, and answers in the order of
/// the requests. The challenge is always the same, so that an input can pass it.
pub fn serve_classic(bytes: &[u8]) {
    let (whole, in_pieces) = pieces(bytes);
    assert_eq!(serve(in_pieces), serve(whole));
}

/// What a link did, and what it sent.
fn serve<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, Vec<u8>) {
    let now = Instant::now();
    let (routes, barred) = (vec![Route::open("echo"), Route::barred("closed")], vec!["version".to_owned()]);
    let settings = Settings {
        service: Service { id: id("msul1"), caller: id("msua1"), routes, barred },
        max_line: MAX_LINE,
        drain_timeout: Duration::from_secs(5),
    };
    let mut link =
        classic::Classic::new(settings, fastrand::Rng::with_seed(1), now + Duration::from_secs(10));
    let (mut did, mut sent) = (Vec::new(), Vec::new());
    for piece in pieces {
        link.push(piece);
        loop {
            let Some(effect) = link.step(now) else {
                let out = link.outgoing();
                assert!(out.len() <= OUT_MOST);
                sent.extend_from_slice(out.bytes());
                let length = out.len();
                out.wrote(length);
                if link.has_work() { continue } else { break }
            };
            did.push(format!("{effect:?}"));
            match effect {
                Effect::Ask { ticket, request, .. } => {
                    let answer = request.to_vec();
                    link.answer(ticket, &answer);
                }
                Effect::AskBack(ticket) => link.asked_back(ticket, Some(b"msua1")),
                Effect::Load(ticket) => link.answer(ticket, b"12"),
                Effect::Log { ticket, .. } => link.answer(ticket, b"ok"),
                Effect::Opened | Effect::Refused(_) | Effect::Shut => {}
                Effect::Withdraw { .. } => {
                    panic!("{effect:?} is of the other wire")
                }
            }
        }
    }
    link.end_of_input();
    while let Some(effect) = link.step(now) {
        did.push(format!("{effect:?}"));
    }
    (did, sent)
}

/// A peer's bytes, to `lonc`, with three requests in flight once the link is open: it hears the
/// same in pieces as in one, and no answer without a request.
pub fn dial_classic(bytes: &[u8]) {
    let (whole, in_pieces) = pieces(bytes);
    assert_eq!(dial(in_pieces), dial(whole));
}

fn dial<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, Vec<u8>) {
    let (mut out, mut sent, mut said, mut answers) = (Outgoing::default(), Vec::new(), Vec::new(), 0);
    let mut link = Protocol::Classic(Classic::begin(&id("msul1"), &id("msua1"), MAX_LINE, &mut out));
    for piece in pieces {
        link.receive(piece);
        loop {
            let (mut opened, mut heard) = (false, false);
            let result = link.hear(&mut out, |what| {
                heard = true;
                said.push(format!("{what:?}"));
                match what {
                    Heard::Opened => opened = true,
                    Heard::Answer { text, .. } => {
                        answers += 1;
                        assert!(!text.contains(&b'\n') && text.len() <= 2 * MAX_LINE + 64);
                    }
                    Heard::Progress { odd } => assert!(odd.is_none_or(|odd| !odd.contains('\n'))),
                    Heard::Pong | Heard::Leaving { .. } | Heard::NotTaken { .. } | Heard::Ready { .. } => {
                        panic!("that is of the other wire")
                    }
                }
                ControlFlow::Break(())
            });
            if opened {
                for (number, text) in
                    [&b"ping"[..], b"encrypt:log:secret", b"encrypt:ping"].iter().enumerate()
                {
                    link.send(Message { number: number as u64, text, once: None }, &mut out);
                }
            }
            assert!(out.len() <= OUT_MOST && answers <= 3);
            sent.extend_from_slice(out.bytes());
            out.clear();
            if let Err(why) = result {
                assert!(!why.is_empty() && !why.contains('\n'));
                said.push(why);
                return (said, sent);
            }
            if !heard {
                break;
            }
        }
    }
    (said, sent)
}
