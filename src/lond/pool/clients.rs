//! The connections of link children: each has many requests open, and gets what came of each.
//!
//! One that does not read what it is answered is not read either, and no more of its requests are
//! begun, until it does. One that says what is no request is closed.

use crate::handler::tag::{Answer, Request, Said};
use base::line::{Line, LineReader, Outgoing};
use net::{Event, ReadOutcome, Registry, Stream, Token, UnixStream};
use std::collections::BTreeMap;

/// Bytes of a line beside the request: the words before it.
const WORDS: usize = 512;
/// Bytes of answers that may wait for one before it is read no more.
const MOST_UNREAD: usize = 1 << 20;

#[derive(Debug)]
struct Client {
    stream: Stream<UnixStream>,
    reader: LineReader,
    out: Outgoing,
    /// Its requests that were not answered.
    open: usize,
    /// It can send nothing more.
    cut: bool,
}

impl Client {
    fn is_read(&self) -> bool {
        self.out.len() < MOST_UNREAD
    }

    fn is_idle(&self) -> bool {
        self.open == 0 && self.out.is_empty() && !self.stream.readable()
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Clients {
    registry: Registry,
    all: BTreeMap<usize, Client>,
    next: usize,
    max_line: usize,
    name: String,
}

impl Clients {
    pub(super) fn new(name: &str, max_line: usize, registry: Registry) -> Clients {
        Clients { registry, all: BTreeMap::new(), next: 0, max_line, name: name.to_owned() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// One more has connected.
    pub(super) fn add(&mut self, socket: UnixStream) {
        match Stream::of_unix(socket, &self.registry, token(self.next)) {
            Ok(stream) => {
                let reader = LineReader::new(self.max_line + WORDS);
                let client = Client { stream, reader, out: Outgoing::default(), open: 0, cut: false };
                self.all.insert(self.next, client);
            }
            Err(error) => log::warn!("handler {}: watch a connection: {error}; closed", self.name),
        }
        self.next += 1;
    }

    pub(super) fn note(&mut self, id: usize, event: &Event) {
        if let Some(client) = self.all.get_mut(&id) {
            client.stream.note(event);
        }
    }

    /// Reads once of each; gives the connections that are no more.
    pub(super) fn read(
        &mut self,
        scratch: &mut [u8],
        ask: &mut impl FnMut(usize, &Request<'_>) -> Option<Said<'static>>,
    ) -> Vec<usize> {
        let mut gone = Vec::new();
        for (id, client) in &mut self.all {
            if !(client.stream.readable() && client.is_read()) {
                continue;
            }
            let there = match client.stream.read(scratch) {
                Ok(ReadOutcome::Bytes(count)) => {
                    client.reader.push(scratch.get(..count).unwrap_or_default());
                    client.take_lines(&self.name, *id, ask)
                }
                Ok(ReadOutcome::Nothing) => true,
                // Cut off, it is there until it has its answers.
                Ok(ReadOutcome::End) => client.cut && client.open > 0,
                Err(error) => {
                    log::debug!("handler {}: read a connection: {error}", self.name);
                    false
                }
            };
            if !there {
                gone.push(*id);
            }
        }
        self.close(&gone);
        gone
    }

    /// Whether there is more to read.
    pub(super) fn has_work(&self) -> bool {
        self.all.values().any(|client| client.stream.readable() && client.is_read())
    }

    pub(super) fn has(&self, id: usize) -> bool {
        self.all.contains_key(&id)
    }

    /// Whether answers to its requests are taken.
    pub(super) fn takes(&self, id: usize) -> bool {
        self.all.get(&id).is_some_and(Client::is_read)
    }

    /// Says what came of a request.
    pub(super) fn answer(&mut self, id: usize, tag: u64, said: Said<'_>) {
        let Some(client) = self.all.get_mut(&id) else { return };
        client.open = client.open.saturating_sub(1);
        put(&mut client.out, tag, said);
    }

    /// Writes what waits; gives the connections that are no more.
    pub(super) fn write(&mut self) -> Vec<usize> {
        let Clients { all, registry, .. } = self;
        let broken = |(id, client): (&usize, &mut Client)| {
            client.stream.flush(&mut client.out, registry, token(*id)).err().map(|_| *id)
        };
        let gone: Vec<usize> = all.iter_mut().filter_map(broken).collect();
        self.close(&gone);
        gone
    }

    /// Closes those that have nothing open. First each is kept from sending: what it has sent
    /// before that is still read.
    pub(super) fn close_idle(&mut self) {
        let mut done = Vec::new();
        for (id, client) in self.all.iter_mut().filter(|(_, client)| client.is_idle()) {
            if client.cut {
                done.push(*id);
            } else if client.stream.cut().is_ok() {
                client.cut = true;
            } else {
                done.push(*id);
            }
        }
        self.close(&done);
    }

    fn close(&mut self, ids: &[usize]) {
        ids.iter().for_each(|id| drop(self.all.remove(id)));
    }
}

fn token(id: usize) -> Token {
    Token(super::reactor::FIRST + super::reactor::STEP * id)
}

impl Client {
    /// Passes on what was read; whether it is all in order.
    fn take_lines(
        &mut self,
        name: &str,
        id: usize,
        ask: &mut impl FnMut(usize, &Request<'_>) -> Option<Said<'static>>,
    ) -> bool {
        while let Some(line) = self.reader.next_line() {
            let problem = match line {
                Line::TooLong => "a line that is too long".to_owned(),
                Line::Whole(line) => match Request::parse(line) {
                    Ok(request) => {
                        match ask(id, &request) {
                            None => self.open += 1,
                            Some(said) => put(&mut self.out, request.tag, said),
                        }
                        continue;
                    }
                    Err(error) => error.to_string(),
                },
            };
            log::error!("handler {name}: read a connection: {problem}; closed");
            return false;
        }
        self.reader.compact();
        true
    }
}

fn put(out: &mut Outgoing, tag: u64, said: Said<'_>) {
    Answer { tag, said }.put(out.tail());
    out.tail().push(b'\n');
}

#[cfg(test)]
mod tests;
