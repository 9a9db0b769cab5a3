//! What the programs of one host say to each other: control sockets, the admin socket, and what
//! crosses `exec`.

use super::pieces;
use lonnet::base::HostId;
use lonnet::lonc::messages::{FromLink, ToLink};
use lonnet::lond::messages::{FromServe, ToServe};
use lonnet::supervise::admin::{Admin, Asked};
use lonnet::supervise::control::{self, Carried, Channel, Message};
use lonnet::supervise::daemon::Inheritance;
use lonnet::supervise::exec_state;
use lonnet::{lonc, lond};
use mio::{Poll, Token};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Bytes of one read.
const SCRATCH: usize = 4096;

/// Bytes on a control socket, read as each of the four kinds of messages: the same in pieces as in
/// one, and what was read is sent as the same.
pub fn control(bytes: &[u8]) {
    hear::<FromLink, ToLink>(bytes);
    hear::<ToLink, FromLink>(bytes);
    hear::<FromServe, ToServe>(bytes);
    hear::<ToServe, FromServe>(bytes);
}

fn hear<S: Message + DeserializeOwned, R: Message + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let (whole, in_pieces) = pieces(bytes);
    // More at a time than a socket takes at once would have to be written in turns.
    let (messages, failed) = receive::<S, R>(whole.flat_map(|bytes| bytes.chunks(SCRATCH)));
    assert_eq!(receive::<S, R>(in_pieces), (messages.clone(), failed));
    let (ours, theirs) = control::pair().expect("a socket pair");
    let mut ours = Channel::<R, S>::from_fd(ours).expect("a channel");
    let mut theirs = Channel::<S, R>::from_fd(theirs).expect("a channel");
    for message in messages {
        match ours.send(&message) {
            Ok(()) => {
                let received = theirs.receive(&mut [0; SCRATCH]).expect("what we sent");
                assert_eq!(received.messages, [message]);
            }
            // Read within the bound, and longer when it is written: escapes.
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidData),
        }
    }
}

/// The messages in these pieces, and whether the channel is broken then.
fn receive<'a, S: Message, R: DeserializeOwned>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<R>, bool) {
    let (ours, theirs) = control::pair().expect("a socket pair");
    let mut channel = Channel::<S, R>::resume(theirs, Carried::default()).expect("a channel");
    let mut ours = UnixStream::from(ours);
    let mut messages = Vec::new();
    for piece in pieces {
        // What stands before a fault in the same read is lost with the channel: one line a time is
        // heard.
        for line in piece.split_inclusive(|byte| *byte == b'\n') {
            ours.write_all(line).expect("the other end is there");
            match channel.receive(&mut [0; SCRATCH]) {
                Ok(received) => {
                    assert!(!received.closed);
                    messages.extend(received.messages);
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::InvalidData);
                    return (messages, true);
                }
            }
        }
    }
    drop(ours);
    assert!(channel.receive(&mut [0; SCRATCH]).is_ok_and(|last| last.closed && last.messages.is_empty()));
    (messages, false)
}

/// The admin socket of a thread, for as many inputs as come.
struct Door {
    folder: tempfile::TempDir,
    poll: Poll,
    admin: RefCell<Admin<HostId>>,
    last: Cell<usize>,
}

thread_local! {
    static DOOR: Door = {
        let folder = tempfile::tempdir().expect("a folder");
        let poll = Poll::new().expect("a poll");
        let admin = Admin::new(&folder.path().join("admin.sock"), None, poll.registry(), Token(0)).expect("a socket");
        Door { folder, poll, admin: RefCell::new(admin), last: Cell::new(0) }
    };
}

/// A client of the admin socket: its first line alone counts, however it arrives; a word that is
/// none of ours has an error for an answer, and nobody stays.
pub fn admin(bytes: &[u8]) {
    let (whole, in_pieces) = pieces(bytes);
    let line =
        bytes.get(1..).unwrap_or_default().split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    let expected = match line {
        b"status\n" => "status",
        b"about\n" => "about",
        b"reload\n" => "reload",
        line if line.ends_with(b"\n") || line.len() > 256 => "error:unknown command\n",
        _ => "",
    };
    assert_eq!(ask(whole), expected);
    assert_eq!(ask(in_pieces), expected);
}

/// What one client asked for, or was answered.
fn ask<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> String {
    DOOR.with(|door| {
        let mut admin = door.admin.borrow_mut();
        let now = Instant::now();
        let mut client =
            UnixStream::connect(door.folder.path().join("admin.sock")).expect("the door is open");
        door.last.set(door.last.get() + 1);
        let token = Token(door.last.get());
        admin.accept(door.poll.registry(), now, || token);
        let peer = HostId::new("msul1").expect("an id");
        let mut asked = None;
        for piece in pieces.flat_map(|piece| piece.chunks(SCRATCH)) {
            // It may have been answered and closed already.
            let _ = client.write_all(piece);
            asked = admin.ready(token, &mut [0; SCRATCH], now, [peer.clone()].into_iter());
            if asked.is_some() || !admin.has(token) {
                break;
            }
        }
        let said = match asked {
            Some(Asked::Status(number)) => {
                admin.reported(&peer, number);
                admin.turn(now, || "answered".to_owned());
                "status"
            }
            Some(Asked::About) => {
                admin.answer(token, "answered");
                "about"
            }
            Some(Asked::Reload) => {
                admin.answer(token, "answered");
                "reload"
            }
            None => "",
        };
        let mut answer = String::new();
        if admin.has(token) {
            assert!(said.is_empty(), "who was answered stays");
            admin.turn(now + Duration::from_secs(3600), String::new);
            assert!(!admin.has(token), "nobody stays for ever");
        }
        // Closed with something unread, it may be reset; the answer was read by then or there was
        // none.
        let _ = client.read_to_string(&mut answer);
        if said.is_empty() {
            answer
        } else {
            assert!(answer.is_empty() || answer == "answered\n", "{answer:?}");
            said.to_owned()
        }
    })
}

/// What a program leaves to the next at HUP: what can be read is written as the same, its
/// descriptors can be some, and no time in it breaks a clock.
pub fn handoff(bytes: &[u8]) {
    let now = Instant::now();
    if let Some(left) = inheritance::<Inheritance<lonc::supervisor::Own>>(bytes) {
        for child in &left.own.children {
            let _ = child.state.state(now);
        }
    }
    if let Some(left) = inheritance::<Inheritance<lond::supervisor::Own>>(bytes) {
        for (link, _) in &left.own.children {
            let _ = link.state(now);
        }
    }
}

fn inheritance<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Option<T> {
    let (numbers, left) = exec_state::parse::<T>(bytes).ok()?;
    assert!(numbers.iter().all(|number| *number >= 0));
    let text = format!(
        "{{\"descriptors\":{},\"legacy\":{}}}",
        serde_json::to_string(&numbers).expect("numbers"),
        serde_json::to_string(&left).expect("what was read")
    );
    let (numbers_again, again) = exec_state::parse::<T>(text.as_bytes()).expect("what was written");
    assert_eq!(numbers_again, numbers);
    let text = |left: &T| serde_json::to_string(left).expect("what was read");
    assert_eq!(text(&again), text(&left));
    Some(left)
}
