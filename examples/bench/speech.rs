//! How a program speaks with who is asked: a line each way, or the protocol of NATS
//! (<https://docs.nats.io/reference/reference-protocols/nats-protocol>), whose programs have
//! subjects and lengths.

use crate::rig::{PATIENCE, Result};
use crate::stream::{Address, READ};
use mio::{Events, Poll};
use std::ops::Range;

/// The subject of requests.
const SUBJECT: &str = "echo";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    Line,
    Nats,
}

/// What has come.
#[derive(Debug)]
pub enum Said {
    /// An answer, where it stands.
    Answer(Range<usize>),
    /// It may be asked now.
    Ready,
    /// Nothing to be done about.
    Nothing,
}

impl Speech {
    /// What is said at first, behind which [`Said::Ready`] comes; `None`: it may be asked at once.
    pub fn greeting(self, connection: usize) -> Option<String> {
        match self {
            Speech::Line => None,
            Speech::Nats => Some(greeting(&format!("answer.{}.{connection}", std::process::id()))),
        }
    }

    /// Appends a request.
    pub fn ask(self, out: &mut Vec<u8>, request: &[u8], connection: usize) {
        if self == Speech::Nats {
            let (pid, length) = (std::process::id(), request.len());
            let head = format!("PUB {SUBJECT} answer.{pid}.{connection} {length}\r\n");
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(request);
            out.push(b'\r');
        } else {
            out.extend_from_slice(request);
        }
        out.push(b'\n');
    }

    /// What stands at the beginning, and how many bytes it has; `None`: it is not whole yet.
    pub fn take(self, held: &[u8]) -> Option<(Said, usize)> {
        let end = memchr::memchr(b'\n', held)?;
        if self == Speech::Line {
            return Some((Said::Answer(0..end), end + 1));
        }
        if held.starts_with(b"MSG ") {
            let length = length(&held[..end])?;
            let whole = end + 1 + length + 2;
            return (held.len() >= whole).then_some((Said::Answer(end + 1..end + 1 + length), whole));
        }
        let said = if held.starts_with(b"PONG") { Said::Ready } else { Said::Nothing };
        Some((said, end + 1))
    }
}

fn greeting(subject: &str) -> String {
    format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {subject} 1\r\nPING\r\n")
}

/// The last word of a head.
fn length(head: &[u8]) -> Option<usize> {
    let word = head.trim_ascii_end().rsplit(|byte| *byte == b' ').next()?;
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// A program that gives each request back; it goes on until this program ends, or its server.
pub fn serve_nats(address: Address) -> Result<()> {
    let mut connection = address.connect(PATIENCE)?;
    let mut poll = Poll::new()?;
    connection.watch(poll.registry(), 0)?;
    connection.out.extend_from_slice(greeting(SUBJECT).as_bytes());
    std::thread::spawn(move || {
        let (mut events, mut scratch) = (Events::with_capacity(8), vec![0; READ]);
        while connection.write().is_ok() && poll.poll(&mut events, None).is_ok() {
            if connection.read(&mut scratch).is_err() {
                return;
            }
            let mut used = 0;
            while let Some((said, whole)) = Speech::Nats.take(&connection.held[used..]) {
                let message = &connection.held[used..used + whole];
                used += whole;
                let Said::Answer(request) = said else {
                    if message.starts_with(b"PING") {
                        connection.out.extend_from_slice(b"PONG\r\n");
                    }
                    continue;
                };
                // MSG, the subject, the number, where the answer is to go, the length.
                let Some(to) = message.split(|byte| *byte == b' ').nth(3) else { continue };
                connection.out.extend_from_slice(b"PUB ");
                connection.out.extend_from_slice(to);
                connection.out.extend_from_slice(format!(" {}\r\n", request.len()).as_bytes());
                connection.out.extend_from_slice(&message[request]);
                connection.out.extend_from_slice(b"\r\n");
            }
            connection.held.drain(..used);
        }
    });
    Ok(())
}
