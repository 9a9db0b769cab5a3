//! The floor of the architecture: what two processes cost that put the lines of all local
//! connections as frames onto one link, sealed, and do nothing else. No handshake, no identity, no
//! bound, no word when something fails: it protects nothing, and ends with whatever it is connected
//! to.
//!
//! A frame is `[length u32][program u32][line]`; frames of one turn are one record
//! `[length u32][AES-128-GCM of them][tag]`, of at most [`RECORD`] bytes.

use crate::rig::{Result, wait};
use crate::stream::{Connection, READ};
use mio::net::{TcpStream, UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

/// Bytes of frames that are sealed together.
const RECORD: usize = 64 << 10;

const LISTENER: usize = usize::MAX - 1;
const LINK: usize = usize::MAX - 2;
const HANDLER: usize = usize::MAX - 3;

/// One of the two processes; it goes on until what it is connected to ends.
pub fn run(side: &str, listen: &str, connect: &str) -> Result<()> {
    match side {
        "near" => near(Path::new(listen), connect.parse()?),
        "far" => far(listen.parse()?, Path::new(connect)),
        _ => Err("want near or far".into()),
    }
}

/// The link: frames in and out.
struct Link {
    connection: Connection,
    sealing: (LessSafeKey, u64),
    opening: (LessSafeKey, u64),
    /// Frames that are not sealed yet.
    frames: Vec<u8>,
    /// Frames that have come.
    came: Vec<u8>,
}

impl Link {
    fn new(stream: TcpStream, near: bool, poll: &Poll) -> Result<Link> {
        // Keys that anybody knows: it is what sealing costs that is measured.
        let key = |byte: u8| UnboundKey::new(&AES_128_GCM, &[byte; 16]).map(LessSafeKey::new);
        let (one, other) = match (key(1), key(2)) {
            (Ok(one), Ok(other)) => (one, other),
            _ => return Err("make a key".into()),
        };
        let (sealing, opening) = if near { (one, other) } else { (other, one) };
        let mut connection = Connection::from(stream);
        connection.watch(poll.registry(), LINK)?;
        let (sealing, opening) = ((sealing, 0), (opening, 0));
        Ok(Link { connection, sealing, opening, frames: Vec::new(), came: Vec::new() })
    }

    fn put(&mut self, program: u32, line: &[u8]) {
        self.frames.extend_from_slice(&(line.len() as u32).to_le_bytes());
        self.frames.extend_from_slice(&program.to_le_bytes());
        self.frames.extend_from_slice(line);
    }

    /// Seals what was put, and writes what can be written.
    fn flush(&mut self) -> Result<()> {
        let (key, count) = &mut self.sealing;
        let out = &mut self.connection.out;
        for part in self.frames.chunks(RECORD) {
            out.extend_from_slice(&(part.len() as u32 + 16).to_le_bytes());
            let begin = out.len();
            out.extend_from_slice(part);
            let sealed = key.seal_in_place_separate_tag(nonce(count), Aad::empty(), &mut out[begin..]);
            out.extend_from_slice(sealed.map_err(|_| "seal a record")?.as_ref());
        }
        self.frames.clear();
        Ok(self.connection.write()?)
    }

    /// Reads, and gives each frame that is whole to `each`.
    fn read(&mut self, scratch: &mut [u8], mut each: impl FnMut(u32, &[u8])) -> Result<()> {
        if !self.connection.read(scratch)? {
            return Ok(());
        }
        let (key, count) = &mut self.opening;
        let held = &mut self.connection.held;
        let mut at = 0;
        while let Some(length) = number(held, at).filter(|length| held.len() >= at + 4 + length) {
            let record = &mut held[at + 4..at + 4 + length];
            let opened = key.open_in_place(nonce(count), Aad::empty(), record);
            self.came.extend_from_slice(opened.map_err(|_| "open a record")?);
            at += 4 + length;
        }
        held.drain(..at);
        let mut at = 0;
        while let Some(length) = number(&self.came, at)
            && let Some(program) = number(&self.came, at + 4)
            && let Some(line) = self.came.get(at + 8..at + 8 + length)
        {
            each(program as u32, line);
            at += 8 + length;
        }
        self.came.drain(..at);
        Ok(())
    }
}

fn nonce(count: &mut u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&count.to_be_bytes());
    *count += 1;
    Nonce::assume_unique_for_key(bytes)
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
}

/// A local program: its connection, whether something is to be written to it, and the number of
/// those that had its place.
#[derive(Default)]
struct Place {
    connection: Option<Connection>,
    to_write: bool,
    number: u16,
}

/// With local programs on the one side, and the link on the other.
fn near(listen: &Path, connect: SocketAddr) -> Result<()> {
    let mut poll = Poll::new()?;
    // The other one takes one link and no other, so that nobody can look before whether it is
    // there.
    let mut called = std::net::TcpStream::connect(connect);
    wait("the far side to listen", || {
        if called.is_err() {
            called = std::net::TcpStream::connect(connect);
        }
        called.is_ok()
    })?;
    let stream = called?;
    stream.set_nonblocking(true)?;
    let mut link = Link::new(TcpStream::from_std(stream), true, &poll)?;
    let mut listener = UnixListener::bind(listen)?;
    poll.registry().register(&mut listener, Token(LISTENER), Interest::READABLE)?;
    let mut places: Vec<Place> = Vec::new();
    let mut scratch = vec![0; READ];
    let mut events = Events::with_capacity(256);
    let mut to_write: Vec<usize> = Vec::new();
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            match event.token().0 {
                LISTENER => {
                    while let Ok((stream, _)) = listener.accept() {
                        take_up(&mut places, stream, &poll)?;
                    }
                }
                LINK => link.read(&mut scratch, |program, line| {
                    let (at, number) = ((program & 0xffff) as usize, (program >> 16) as u16);
                    let Some(place) = places.get_mut(at).filter(|place| place.number == number) else {
                        return;
                    };
                    let Some(connection) = &mut place.connection else { return };
                    connection.out.extend_from_slice(line);
                    connection.out.push(b'\n');
                    if !std::mem::replace(&mut place.to_write, true) {
                        to_write.push(at);
                    }
                })?,
                at => {
                    let place = &mut places[at];
                    let Some(connection) = &mut place.connection else { continue };
                    let program = u32::from(place.number) << 16 | at as u32;
                    if connection.read(&mut scratch).is_err() || connection.write().is_err() {
                        place.connection = None;
                        continue;
                    }
                    let mut begin = 0;
                    for end in memchr::memchr_iter(b'\n', &connection.held) {
                        link.put(program, &connection.held[begin..end]);
                        begin = end + 1;
                    }
                    connection.held.drain(..begin);
                }
            }
        }
        for at in to_write.drain(..) {
            places[at].to_write = false;
            // Its end is seen where it is read.
            let _ = places[at].connection.as_mut().map(Connection::write);
        }
        link.flush()?;
    }
}

fn take_up(places: &mut Vec<Place>, stream: UnixStream, poll: &Poll) -> Result<()> {
    let at = places.iter().position(|place| place.connection.is_none()).unwrap_or(places.len());
    if at == places.len() {
        places.push(Place::default());
    }
    let mut connection = Connection::from(stream);
    connection.watch(poll.registry(), at)?;
    places[at].number = places[at].number.wrapping_add(1);
    places[at].connection = Some(connection);
    Ok(())
}

/// With the link on the one side, and one connection to the handler on the other.
fn far(listen: SocketAddr, connect: &Path) -> Result<()> {
    let mut poll = Poll::new()?;
    let listener = TcpListener::bind(listen)?;
    let stream = listener.accept()?.0;
    stream.set_nonblocking(true)?;
    let mut link = Link::new(TcpStream::from_std(stream), false, &poll)?;
    let mut handler = Connection::from(UnixStream::connect(connect)?);
    handler.watch(poll.registry(), HANDLER)?;
    // Those who have asked, in order: the handler answers so.
    let mut asked: VecDeque<u32> = VecDeque::new();
    let mut scratch = vec![0; READ];
    let mut events = Events::with_capacity(256);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token().0 == LINK {
                link.read(&mut scratch, |program, line| {
                    asked.push_back(program);
                    handler.out.extend_from_slice(line);
                    handler.out.push(b'\n');
                })?;
            } else if handler.read(&mut scratch)? {
                let mut begin = 0;
                for end in memchr::memchr_iter(b'\n', &handler.held) {
                    let program = asked.pop_front().ok_or("an answer that nobody asked for")?;
                    link.put(program, &handler.held[begin..end]);
                    begin = end + 1;
                }
                handler.held.drain(..begin);
            }
        }
        handler.write()?;
        link.flush()?;
    }
}
