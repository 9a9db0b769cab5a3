//! Looking host names up without stopping the loop: a process of its own.
//!
//! The system's resolver blocks, for half a minute where a name server is away, and it reads what
//! name servers send. A supervisor has one loop, and as it forks it can have no thread beside. So
//! a child looks the names up, each in a thread, says what it finds as it finds it, and ends. It
//! ends as well when its time is over, or when nobody is left to hear it: its supervisor has ended,
//! or begun again.
//!
//! Which files and sockets it needs is the C library's affair, and the administrator's. It may read
//! what `user` may, connect anywhere and start threads; it can change no file, start no program and
//! reach no other process ([`sandbox::enter_look_up`]).
//!
//! What it says is a list of addresses, bounded by [`ADDRESSES_MOST`], and is read as one.

use super::control::{self, Channel, Message};
use super::{sandbox, spawn, title};
use config::Sandbox;
use net::{Interest, Registry, Token};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// Threads that look names up at a time: one name whose servers are silent must not take the time
/// of the others.
const THREADS: usize = 8;
/// Addresses that are told of one name; those beyond are left out.
pub const ADDRESSES_MOST: usize = 256;

/// The addresses of a name, or why there are none.
pub type Answer = Result<Vec<SocketAddr>, String>;

/// What the process says of one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its place among the names that were asked for.
    pub name: usize,
    /// What was found, with port 0.
    pub answer: Answer,
}

/// The process is told nothing.
#[derive(Debug, Clone, Serialize)]
enum Nothing {}

impl Message for Nothing {
    fn supersedes(&self, _: &Self) -> bool {
        match *self {}
    }
}

/// A process that looks names up.
#[derive(Debug)]
pub struct LookUp {
    pid: u32,
    token: Token,
    channel: Channel<Nothing, Found>,
}

impl LookUp {
    /// Has these names looked up, within that time; the poll tells of what is found by `token`.
    ///
    /// # Errors
    /// There are no descriptors, or no process.
    pub fn begin(
        names: Vec<String>,
        within: Duration,
        confined: Sandbox,
        registry: &Registry,
        token: Token,
    ) -> io::Result<LookUp> {
        let (ours, theirs) = control::pair()?;
        let mut channel = Channel::from_fd(ours)?;
        registry.register(&mut channel, token, Interest::READABLE)?;
        let pid = spawn::spawn(vec![theirs.as_raw_fd()], move || serve(names, within, confined, theirs))?;
        Ok(LookUp { pid, token, channel })
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// By which the poll tells of it.
    pub fn token(&self) -> Token {
        self.token
    }

    /// What it has found since.
    ///
    /// # Errors
    /// It does not speak as it should.
    pub fn hear(&mut self, scratch: &mut [u8]) -> io::Result<Vec<Found>> {
        self.channel.receive(scratch).map(|received| received.messages)
    }

    /// The process was reaped: nothing is heard of it any more.
    pub fn close(mut self, registry: &Registry) {
        // Closing alone would do, but for a moment a child just forked may hold a copy.
        if let Err(error) = registry.deregister(&mut self.channel) {
            log::debug!("deregister the socket of process {}: {error}", self.pid);
        }
    }
}

/// The process.
fn serve(names: Vec<String>, within: Duration, confined: Sandbox, control: OwnedFd) -> Infallible {
    match names.as_slice() {
        [name] => title::set(&format!("looking {name} up")),
        _ => title::set("looking names up"),
    }
    // Before there are threads, which it would not be for.
    if let Err(error) = sandbox::enter_look_up(confined) {
        log::error!("confine a look-up of names: {error}; none is done");
        std::process::exit(1)
    }
    let control = UnixStream::from(control);
    let begun = control.set_nonblocking(false).and_then(|()| control.try_clone());
    let begun = begun.and_then(|to| thread::Builder::new().spawn(move || say_all(names, to)));
    if let Err(error) = begun {
        log::warn!("start a thread for name lookups: {error}");
        std::process::exit(1)
    }
    // Whoever says nothing and hears nothing is asked for its end alone.
    let mut ends = [PollFd::new(control.as_fd(), PollFlags::empty())];
    let _ = poll(&mut ends, PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX));
    std::process::exit(0)
}

/// Says what is found of each name; the process ends with the last.
fn say_all(names: Vec<String>, mut to: UnixStream) {
    for (name, found) in each(names, addresses) {
        let answer = found.map(|found| found.into_iter().take(ADDRESSES_MOST).collect());
        if say(&mut to, &Found { name, answer }).is_err() {
            break;
        }
    }
    std::process::exit(0)
}

fn say(to: &mut UnixStream, found: &Found) -> io::Result<()> {
    let mut line = serde_json::to_vec(found)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// The addresses of a name, as the system finds them, with port 0. Waits for it.
///
/// # Errors
/// The name could not be looked up, or has no address.
pub fn addresses(name: &str) -> Answer {
    match (name, 0).to_socket_addrs() {
        Ok(found) if found.len() > 0 => Ok(found.collect()),
        Ok(_) => Err("look up: the name has no address".to_owned()),
        Err(error) => Err(format!("look up {name}: {error}")),
    }
}

/// Looks all names up, [`THREADS`] at a time; gives the place of each and what was found, as it is
/// found. Ends with the last, or when no thread could be had.
pub fn each<T: Send + 'static>(
    names: Vec<String>,
    look_up: impl Fn(&str) -> T + Send + Sync + 'static,
) -> mpsc::Receiver<(usize, T)> {
    let (report, found) = mpsc::channel();
    let next = Arc::new(AtomicUsize::new(0));
    let threads = names.len().min(THREADS);
    let work = Arc::new((names, look_up));
    for _ in 0..threads {
        let (report, next, work) = (report.clone(), Arc::clone(&next), Arc::clone(&work));
        let body = move || {
            let (names, look_up) = &*work;
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(name) = names.get(at) else { return };
                if report.send((at, look_up(name))).is_err() {
                    return; // Nobody wants to know any more.
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("lookup".to_owned()).spawn(body) {
            log::warn!("start a thread for name lookups: {error}");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    #[test]
    fn what_is_said_of_a_name_fits_a_line_of_the_control_socket() {
        let one = SocketAddr::from((Ipv6Addr::from([0xffff; 8]), u16::MAX));
        let longest = Found { name: usize::MAX, answer: Ok(vec![one; ADDRESSES_MOST]) };
        assert!(serde_json::to_vec(&longest).unwrap().len() + 1000 < control::MAX_LINE);
    }

    #[test]
    fn a_name_without_addresses_is_an_error_that_names_it() {
        let why = addresses("no such name").unwrap_err();
        assert!(why.starts_with("look up no such name: "), "{why}");
        assert_eq!(addresses("192.0.2.7"), Ok(vec![SocketAddr::from(([192, 0, 2, 7], 0))]));
    }
}
