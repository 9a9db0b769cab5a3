//! A client of one peer: each request with its deadline, over one connection that is made anew
//! where that can do no harm.
//!
//! A connection that went away between two requests is replaced in silence, once a request. One
//! that went when a request had been sent, or a part of it, is an error: the request may have been
//! taken, and asking it again might do it twice. Only a critical one with a key is sent again by
//! itself, once, because the other host runs it once however often it comes.

use crate::connection::Connection;
use crate::outcome::{ClientError, Outcome};
use crate::request::{CRITICAL, check_request, critical_line};
use base::{HostId, Key};
use config::Config;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// One peer, asked over one connection at a time. Not to be shared: a program with several threads
/// has a client for each.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    /// None: it broke, or was given up.
    connection: Option<Connection>,
}

/// Why a request has no answer on one connection.
enum Unanswered {
    /// The connection ended before it took a byte.
    Untouched(ClientError),
    /// Anything else.
    Other(ClientError),
}

impl Client {
    /// Connects to the socket of `peer`.
    ///
    /// # Errors
    /// [`ClientError::Away`].
    pub fn connect(config: &Config, peer: &HostId, deadline: Instant) -> Result<Client, ClientError> {
        Client::connect_to(&config.socket_path(peer), deadline)
    }

    /// Connects to the socket at `path`, `<run_dir>/<peer>`.
    ///
    /// # Errors
    /// [`ClientError::Away`].
    pub fn connect_to(path: &Path, deadline: Instant) -> Result<Client, ClientError> {
        let mut client = Client { socket: path.to_owned(), connection: None };
        client.connection = Some(client.open(deadline)?);
        Ok(client)
    }

    /// Sends one request and waits for its answer, until `deadline`.
    ///
    /// # Errors
    /// See [`ClientError`]. The next request connects anew where that is needed.
    pub fn reply(&mut self, request: impl AsRef<[u8]>, deadline: Instant) -> Result<Outcome, ClientError> {
        let line = request.as_ref();
        match self.ask_once(line, deadline) {
            Ok(outcome) => Ok(outcome),
            Err(Unanswered::Untouched(_)) => self.ask_once(line, deadline).map_err(Unanswered::error),
            Err(Unanswered::Other(error)) => Err(error),
        }
    }

    /// Sends one critical request and waits for what becomes of it. With a key it is run once,
    /// however often it is sent with this key, and it is sent once more over another connection if
    /// the first broke. If that fails since the broker is away by then, the first error is told.
    ///
    /// # Errors
    /// As [`Client::reply`]. What has an error may be kept or done all the same, unless
    /// [`ClientError::may_have_been_taken`] denies it.
    pub fn critical(
        &mut self,
        request: impl AsRef<[u8]>,
        key: Option<&Key>,
        deadline: Instant,
    ) -> Result<Outcome, ClientError> {
        let line = critical_line(request.as_ref(), key).map_err(ClientError::Request)?;
        let keyed = !line.starts_with(CRITICAL);
        match self.reply(&line, deadline) {
            Err(broken @ ClientError::Broken { .. }) if keyed => match self.reply(&line, deadline) {
                // "Nothing was sent" is true of the second try alone.
                Err(ClientError::Away { .. }) => Err(broken),
                asked => asked,
            },
            asked => asked,
        }
    }

    /// Sends all `requests`, many ahead of their answers, and gives each outcome to `each`, in
    /// order. All is to be done until `deadline`. What cannot be a request ends it: those before it
    /// are answered, those behind it are not sent.
    ///
    /// # Errors
    /// As [`Client::reply`], for the first request that was not given to `each`; those behind it
    /// that were sent may have been taken, too.
    pub fn reply_all<R: AsRef<[u8]>>(
        &mut self,
        requests: impl IntoIterator<Item = R>,
        deadline: Instant,
        mut each: impl FnMut(Outcome),
    ) -> Result<(), ClientError> {
        let mut requests = requests.into_iter().fuse();
        let mut connection = self.ready(deadline)?;
        let mut stopped = None;
        loop {
            while stopped.is_none() && connection.has_room() {
                let Some(request) = requests.next() else { break };
                stopped = check_request(request.as_ref()).err();
                if stopped.is_none() {
                    connection.send(request.as_ref()).map_err(|error| self.broken(error))?;
                }
            }
            if connection.waiting() == 0 {
                self.connection = Some(connection);
                return stopped.map_or(Ok(()), |what| Err(ClientError::Request(what)));
            }
            each(self.next_outcome(&mut connection, deadline)?);
        }
    }

    /// One request over one connection, which stays for the next one if this one is answered.
    fn ask_once(&mut self, line: &[u8], deadline: Instant) -> Result<Outcome, Unanswered> {
        check_request(line).map_err(ClientError::Request).map_err(Unanswered::Other)?;
        let mut connection = self.ready(deadline).map_err(Unanswered::Other)?;
        let before = connection.written();
        connection.send(line).map_err(|error| Unanswered::Other(self.broken(error)))?;
        match self.next_outcome(&mut connection, deadline) {
            Ok(outcome) => {
                self.connection = Some(connection);
                Ok(outcome)
            }
            Err(error @ ClientError::Broken { .. }) if connection.written() == before => {
                Err(Unanswered::Untouched(error))
            }
            Err(error) => Err(Unanswered::Other(error)),
        }
    }

    fn next_outcome(&self, connection: &mut Connection, deadline: Instant) -> Result<Outcome, ClientError> {
        loop {
            match connection.next_answer() {
                Ok(Some(line)) => return Ok(Outcome::of(&line)),
                Ok(None) if Instant::now() >= deadline => {
                    return Err(ClientError::Deadline { socket: self.socket.clone() });
                }
                Ok(None) => connection.turn(None, Some(deadline)).map_err(|error| self.broken(error))?,
                Err(error) => return Err(self.broken(error)),
            };
        }
    }

    /// The connection, if it is still there and silent, else another one.
    fn ready(&mut self, deadline: Instant) -> Result<Connection, ClientError> {
        match self.connection.take().filter(Connection::is_idle) {
            Some(connection) => Ok(connection),
            None => self.open(deadline),
        }
    }

    fn open(&self, deadline: Instant) -> Result<Connection, ClientError> {
        Connection::open(&self.socket, Some(deadline))
            .map_err(|source| ClientError::Away { socket: self.socket.clone(), source })
    }

    fn broken(&self, source: io::Error) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), source }
    }
}

impl Unanswered {
    fn error(self) -> ClientError {
        match self {
            Unanswered::Untouched(error) | Unanswered::Other(error) => error,
        }
    }
}
