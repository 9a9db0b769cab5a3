//! The sockets `<run_dir>/lonc.sock` and `<run_dir>/lond.sock`, on which `lon status` and `lon
//! reload` ask.
//!
//! A client sends a line, gets an answer, and the connection is closed: that says that the answer
//! is whole.
//!
//! | line | answer |
//! | --- | --- |
//! | `status` | one line of JSON, made when every child that was asked has reported or [`WAIT`] has passed |
//! | `about` | one line of JSON, an [`About`]: what the program goes by, whatever its files say by now |
//! | `reload` | what the supervisor says of it, some lines: see [`super::reload`] |
//! | any other | `error:...` |
//!
//! At most [`MAX_CLIENTS`] are served at a time, more are closed at once; one that is not done
//! within [`STAY`] is closed. With no descriptors left nobody is taken in for [`ACCEPT_PAUSE`], and
//! then those who have come meanwhile are.

use super::sockets::{LocalSocket, Mark};
use base::line::{Line, LineReader, Outgoing};
use config::{Config, Whereabouts};
use net::listen::nobody_waits;
use net::{Interest, Registry, Token};
use net::{UnixListener, UnixStream};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Most clients at a time.
pub const MAX_CLIENTS: usize = 16;
/// How long the children may take to report.
pub const WAIT: Duration = Duration::from_secs(1);
/// How long accepting rests when there are no descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long a client may stay.
pub const STAY: Duration = Duration::from_secs(10);
/// Longest line of a client.
const MAX_LINE: usize = 256;
/// Permission bits of the socket: what the links do is for the user and its group, and a reload
/// reads only files that the administrator wrote.
const MODE: u32 = 0o660;

/// What a program that runs goes by, for the tools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// `lonc` or `lond`.
    pub program: String,
    /// Version of the program.
    pub version: String,
    /// Process id of the supervisor.
    pub pid: u32,
    /// Milliseconds within which it ends when it is told to.
    pub stops_within_ms: u64,
    /// Its folders and peers.
    #[serde(flatten)]
    pub whereabouts: Whereabouts,
}

impl About {
    /// What this process is, to be told to whoever connects.
    pub fn this_process(program: &str, config: &Config, stops_within: Duration) -> About {
        About {
            program: program.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            stops_within_ms: u64::try_from(stops_within.as_millis()).unwrap_or(u64::MAX),
            whereabouts: config.whereabouts(),
        }
    }
}

/// The socket and those who ask on it.
#[derive(Debug)]
pub struct Admin<K> {
    socket: LocalSocket<UnixListener>,
    token: Token,
    clients: BTreeMap<Token, Client<K>>,
    last_number: u64,
    /// Who waits is to be taken in then: the poll says so once only.
    accept_again: Option<Instant>,
}

#[derive(Debug)]
struct Client<K> {
    stream: UnixStream,
    reader: LineReader,
    out: Outgoing,
    stage: Stage<K>,
    leaves: Instant,
}

#[derive(Debug)]
enum Stage<K> {
    /// Its line has not come.
    Asking,
    /// The supervisor does what it asks for.
    Held,
    /// The children are being asked.
    Waiting { number: u64, missing: BTreeSet<K>, until: Instant },
    /// The answer is being written.
    Answering,
}

/// What the supervisor is to do for a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// Ask the children for a report with this number.
    Status(u64),
    /// Say what this program goes by, by [`Admin::answer`].
    About,
    /// Read the configuration again, then [`Admin::answer`].
    Reload,
}

impl<K: Ord> Admin<K> {
    /// Listens, on the socket that the program before `exec` left if there is one.
    ///
    /// # Errors
    /// When the socket cannot be made or registered.
    pub fn new(
        path: &Path,
        left: Option<(OwnedFd, Option<Mark>)>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Admin<K>> {
        let socket = match left {
            Some((fd, mark)) => LocalSocket::adopt(path, fd, mark),
            None => LocalSocket::listen(path, MODE).map_err(io::Error::other)?,
        };
        let socket = registered(socket, registry, token)?;
        Ok(Admin { socket, token, clients: BTreeMap::new(), last_number: 0, accept_again: None })
    }

    /// Whether its path still leads to the socket.
    pub fn is_in_place(&self) -> bool {
        self.socket.is_in_place()
    }

    /// Makes the socket again: its file is gone, or is another's. Who is connected stays so.
    ///
    /// # Errors
    /// As [`Admin::new`]; all is as it was then.
    pub fn listen_anew(&mut self, registry: &Registry) -> io::Result<()> {
        let socket = LocalSocket::listen(self.socket.path(), MODE).map_err(io::Error::other)?;
        let mut before = std::mem::replace(&mut self.socket, registered(socket, registry, self.token)?);
        if let Err(error) = registry.deregister(before.listener_mut()) {
            log::debug!("deregister {}: {error}", before.path().display());
        }
        Ok(())
    }

    /// What its file is known by.
    pub fn mark(&self) -> Option<Mark> {
        self.socket.mark()
    }

    /// Takes in who waited for descriptors, if it is time; `token` gives a new token.
    pub fn accept_if_due(&mut self, registry: &Registry, now: Instant, token: impl FnMut() -> Token) {
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept(registry, now, token);
        }
    }

    /// Takes in who connects; `token` gives a new token.
    pub fn accept(&mut self, registry: &Registry, now: Instant, mut token: impl FnMut() -> Token) {
        self.accept_again = None;
        loop {
            let mut stream = match self.socket.listener().accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Its client was gone again; the next one may be there.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) if nobody_waits(&error, self.socket.listener()) => return,
                Err(error) => {
                    log::error!("accept on {}: {error}; clients wait", self.socket.path().display());
                    self.accept_again = Some(now + ACCEPT_PAUSE);
                    return;
                }
            };
            if self.clients.len() >= MAX_CLIENTS {
                continue;
            }
            let token = token();
            if let Err(error) = registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)
            {
                log::warn!(
                    "accept on {}: register: {error}; its client is closed",
                    self.socket.path().display()
                );
                continue;
            }
            let (reader, out) = (LineReader::new(MAX_LINE), Outgoing::default());
            let client = Client { stream, reader, out, stage: Stage::Asking, leaves: now + STAY };
            self.clients.insert(token, client);
        }
    }

    /// Whether `token` is one of the clients.
    pub fn has(&self, token: Token) -> bool {
        self.clients.contains_key(&token)
    }

    /// Goes on with a client whose socket is ready. `children` are those that a status waits for.
    pub fn ready(
        &mut self,
        token: Token,
        scratch: &mut [u8],
        now: Instant,
        children: impl Iterator<Item = K>,
    ) -> Option<Asked> {
        let client = self.clients.get_mut(&token)?;
        let mut asked = None;
        match client.read(scratch) {
            Heard::Nothing => {}
            Heard::Status => {
                self.last_number += 1;
                asked = Some(Asked::Status(self.last_number));
                let missing = children.collect();
                client.stage = Stage::Waiting { number: self.last_number, missing, until: now + WAIT };
            }
            Heard::Reload => {
                asked = Some(Asked::Reload);
                client.stage = Stage::Held;
            }
            Heard::About => {
                asked = Some(Asked::About);
                client.stage = Stage::Held;
            }
            Heard::Other => client.answer("error:unknown command"),
            Heard::End => {
                self.clients.remove(&token);
                return None;
            }
        }
        self.write(token);
        asked
    }

    /// Answers the client that asked for something else than a status.
    pub fn answer(&mut self, token: Token, answer: &str) {
        if let Some(client) = self.clients.get_mut(&token) {
            client.answer(answer);
            self.write(token);
        }
    }

    /// Notes that `child` has reported with `number`, or (`u64::MAX`) that it will not any more.
    pub fn reported(&mut self, child: &K, number: u64) {
        for client in self.clients.values_mut() {
            match &mut client.stage {
                Stage::Waiting { number: asked, missing, .. } if *asked <= number => {
                    missing.remove(child);
                }
                Stage::Waiting { .. } | Stage::Asking | Stage::Held | Stage::Answering => {}
            }
        }
    }

    /// Answers those for whom all is reported or the wait is over, with what `answer` makes; closes
    /// those who have stayed too long.
    pub fn turn(&mut self, now: Instant, answer: impl FnOnce() -> String) {
        let due: Vec<Token> = self
            .clients
            .iter()
            .filter(|(_, client)| match &client.stage {
                Stage::Waiting { missing, until, .. } => missing.is_empty() || *until <= now,
                Stage::Asking | Stage::Held | Stage::Answering => false,
            })
            .map(|(token, _)| *token)
            .collect();
        if !due.is_empty() {
            let answer = answer();
            for token in due {
                if let Some(client) = self.clients.get_mut(&token) {
                    client.answer(&answer);
                }
                self.write(token);
            }
        }
        self.clients.retain(|_, client| client.leaves > now);
    }

    /// When [`Admin::turn`] or [`Admin::accept_if_due`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let clients = self.clients.values().map(|client| match &client.stage {
            Stage::Waiting { until, .. } => client.leaves.min(*until),
            Stage::Asking | Stage::Held | Stage::Answering => client.leaves,
        });
        clients.chain(self.accept_again).min()
    }

    /// Removes the socket's file, unless it is another's, and closes every connection.
    pub fn close(&mut self, registry: &Registry) {
        self.socket.remove();
        self.clients.clear();
        if let Err(error) = registry.deregister(self.socket.listener_mut()) {
            log::debug!("deregister {}: {error}", self.socket.path().display());
        }
    }

    fn write(&mut self, token: Token) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        match (client.out.flush_to(&mut client.stream), &client.stage) {
            // One answer a connection: closing says that it is whole.
            (Ok(true), Stage::Answering) | (Err(_), _) => {
                self.clients.remove(&token);
            }
            (Ok(false), Stage::Answering) | (Ok(_), Stage::Asking | Stage::Held | Stage::Waiting { .. }) => {}
        }
    }
}

impl<K> AsFd for Admin<K> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn registered(
    socket: LocalSocket,
    registry: &Registry,
    token: Token,
) -> io::Result<LocalSocket<UnixListener>> {
    let mut socket = socket.map(UnixListener::from_std);
    registry.register(socket.listener_mut(), token, Interest::READABLE)?;
    Ok(socket)
}

/// What a client said.
enum Heard {
    Nothing,
    Status,
    About,
    Reload,
    Other,
    End,
}

impl<K> Client<K> {
    fn answer(&mut self, line: &str) {
        self.out.push_line(line.as_bytes());
        self.stage = Stage::Answering;
    }

    /// Reads until there is no more, or the line is there; what follows it is not looked at.
    fn read(&mut self, scratch: &mut [u8]) -> Heard {
        match self.stage {
            Stage::Asking => {}
            Stage::Held | Stage::Waiting { .. } | Stage::Answering => return Heard::Nothing,
        }
        loop {
            match self.stream.read(scratch) {
                // A client that has shut its writing half after its line was heard already.
                Ok(0) => return Heard::End,
                Ok(count) => self.reader.push(scratch.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Heard::Nothing,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Heard::End,
            }
            match self.reader.next_line() {
                None => {}
                Some(Line::Whole(b"status")) => return Heard::Status,
                Some(Line::Whole(b"about")) => return Heard::About,
                Some(Line::Whole(b"reload")) => return Heard::Reload,
                Some(Line::Whole(_) | Line::TooLong) => return Heard::Other,
            }
        }
    }
}

#[cfg(test)]
mod tests;
