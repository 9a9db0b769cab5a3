//! The frames of the secure wire once more, from `docs/wire.md` and for these tests only.

use std::collections::BTreeMap;

pub const HELLO: u8 = 0x01;
pub const REQUEST: u8 = 0x02;
pub const CRITICAL: u8 = 0x03;
pub const ANSWER: u8 = 0x04;
pub const CANCEL: u8 = 0x05;
pub const PING: u8 = 0x06;
pub const PONG: u8 = 0x07;
pub const WINDOW: u8 = 0x08;
pub const GOAWAY: u8 = 0x09;
pub const ERROR: u8 = 0x0a;

/// More of the same message follows.
pub const MORE: u8 = 1;
/// Longest body of a frame.
pub const LONGEST: usize = 16384;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub id: u64,
    pub body: Vec<u8>,
}

impl Frame {
    /// A frame without flags.
    pub fn new(kind: u8, id: u64, body: impl Into<Vec<u8>>) -> Frame {
        Frame { kind, flags: 0, id, body: body.into() }
    }

    /// A message as frames: as many as it needs.
    pub fn message(kind: u8, id: u64, text: &[u8]) -> Vec<Frame> {
        let mut frames: Vec<Frame> = text.chunks(LONGEST).map(|chunk| Frame::new(kind, id, chunk)).collect();
        if frames.is_empty() {
            frames.push(Frame::new(kind, id, ""));
        }
        let last = frames.len() - 1;
        for frame in &mut frames[..last] {
            frame.flags = MORE;
        }
        frames
    }

    /// What it takes of a window.
    pub fn cost(&self) -> u64 {
        match self.kind {
            REQUEST | CRITICAL | ANSWER => 64 + self.body.len() as u64,
            _ => 0,
        }
    }

    /// As it crosses the link.
    pub fn bytes(&self) -> Vec<u8> {
        let length = u16::try_from(self.body.len()).expect("a body that its length can tell");
        let mut bytes = vec![self.kind, self.flags];
        bytes.extend(length.to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(&self.body);
        bytes
    }

    /// Takes a whole frame off the front.
    pub fn take(bytes: &mut Vec<u8>) -> Option<Frame> {
        let header = bytes.first_chunk::<12>()?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        assert!(length <= LONGEST, "a frame of {length} bytes");
        let id = u64::from_be_bytes(header[4..].try_into().expect("eight bytes"));
        let (kind, flags) = (header[0], header[1]);
        let body = bytes.get(12..12 + length)?.to_vec();
        bytes.drain(..12 + length);
        Some(Frame { kind, flags, id, body })
    }

    /// Its body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The lines of a HELLO.
pub type Hello = BTreeMap<String, String>;

/// A HELLO of these lines.
pub fn hello(lines: &Hello) -> Frame {
    let mut text = "lonnet\n".to_owned();
    for (name, value) in lines {
        text.push_str(&format!("{name}={value}\n"));
    }
    Frame::new(HELLO, 0, text)
}

/// What a HELLO says.
pub fn read_hello(frame: &Frame) -> Hello {
    assert_eq!((frame.kind, frame.flags, frame.id), (HELLO, 0, 0), "a HELLO comes first: {frame:?}");
    let text = frame.text();
    let lines = text.strip_prefix("lonnet\n").expect("the wire's name");
    let split = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    lines.lines().map(|line| split(line).expect("name=value")).collect()
}

/// What stands before a critical request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub sequence: u64,
    pub settled: u64,
    pub key: String,
}

impl Head {
    /// The head and the request behind it.
    pub fn before(&self, request: &[u8]) -> Vec<u8> {
        let mut body = self.sequence.to_be_bytes().to_vec();
        body.extend(self.settled.to_be_bytes());
        body.push(u8::try_from(self.key.len()).expect("a key that is short enough"));
        body.extend(self.key.as_bytes());
        body.extend(request);
        body
    }

    /// The head and the request behind it, apart.
    pub fn split(body: &[u8]) -> (Head, &[u8]) {
        let number = |at: usize| u64::from_be_bytes(body[at..at + 8].try_into().expect("eight bytes"));
        let (key, request) = body[17..].split_at(usize::from(body[16]));
        let key = String::from_utf8(key.to_vec()).expect("a key is ASCII");
        (Head { sequence: number(0), settled: number(8), key }, request)
    }
}
