//! Connections: who is let in to a child, who is turned away at once.
//!
//! With the secure wire a caller is known by its key, which only a child looks at, so any address
//! may connect: at most `max_opening` children have callers that are not known yet, and
//! [`super::room`] sees to it that these share the room. So a crowd that never authenticates costs
//! that many processes, a few forks a second, and a bounded share of each turn ([`ACCEPTS_A_TURN`],
//! [`FORKS_A_TURN`]); links that are open are processes of their own. Where the secure wire can
//! serve nobody, an address that is no host's is refused without a child.

use super::door::{Guest, Origin};
use super::links::{Link, Started, State};
use super::lobby::Newcomer;
use super::refusal_quota::Caller;
use super::{Lond, Machine};
use crate::entry::Seed;
use crate::messages::{FromServe, ToServe};
use base::{HostId, Pin};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};
use supervise::controls::Opening;
use supervise::daemon::GRACE;
use supervise::spawn::Birth;
use supervise::{spawn, title};

/// How long accepting rests when there are no descriptors.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// What `accept` says then, and when there is no memory.
const SHORTAGES: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
/// Connections taken from one socket before other work has its turn.
const ACCEPTS_A_TURN: usize = 64;
/// Children forked before other work has its turn: a fork costs as much as hundreds of connections
/// that are closed.
const FORKS_A_TURN: usize = 8;
/// What a caller is answered who is not served.
const REFUSED: &[u8] = b"refused\n";

/// A caller that was turned away, to be said in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused<'a> {
    /// The child that it was with.
    pub pid: u32,
    /// The key that it showed, if any.
    pub key: Option<&'a str>,
    /// Why: what comes again for the same reason is said seldom.
    pub why: &'a str,
    /// What is said.
    pub text: &'a str,
}

/// A connection whose child is about to be forked.
#[derive(Debug)]
pub(super) struct Coming {
    newcomer: Newcomer,
    since: Instant,
    /// Whether nothing is logged of what comes from there.
    silent: bool,
    opening: Opening<ToServe, FromServe>,
    /// The child's end.
    control: OwnedFd,
}

impl Coming {
    /// What is known of it at the door, before it has a process.
    pub(super) fn guest(&self) -> Guest {
        let Newcomer { remote, familiar, .. } = self.newcomer;
        Guest {
            pid: 0,
            origin: Origin::of(remote.ip()),
            familiar,
            silent: true,
            since: self.since,
            leaves: false,
        }
    }
}

impl Lond {
    /// Takes connections in from every socket that has some, as far as the budgets go.
    pub(super) fn accept(&mut self, m: &mut Machine<'_>, now: Instant) {
        let mut forks = 0;
        self.heard_unopened = false;
        for place in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_A_TURN {
                let Some(listener) = self.listeners.get_mut(place).filter(|listener| listener.ready) else {
                    break;
                };
                match listener.socket.accept() {
                    Ok((stream, remote)) => forks += usize::from(self.welcome(m, stream, remote, now)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => listener.ready = false,
                    // Those that are to be forked have more open now than when they are.
                    Err(_) if !self.coming.is_empty() => self.fork_coming(m, now),
                    Err(error) if error.raw_os_error().is_some_and(|code| SHORTAGES.contains(&code)) => {
                        let text = format!("accept: {error}; callers wait for {ACCEPT_PAUSE:?}");
                        if let Some(line) = self.voice.shortages.line(&text, now) {
                            log::error!("{line}");
                        }
                        self.accept_again = Some(now + ACCEPT_PAUSE);
                        return;
                    }
                    // The caller was gone again; the next one may be there.
                    Err(error) => log::debug!("accept: {error}"),
                }
                if forks == FORKS_A_TURN {
                    return;
                }
            }
        }
    }

    /// Lets a connection in, or turns it away; whether a fork was tried.
    fn welcome(&mut self, m: &mut Machine<'_>, stream: TcpStream, remote: SocketAddr, now: Instant) -> bool {
        let ip = remote.ip().to_canonical();
        let caller = match self.callers.admit(&m.start.config, ip) {
            Ok(caller) => caller,
            Err(why) => {
                self.board.counts.refused += 1;
                let host = self.callers.host_at(&m.start.config, ip);
                let text = format!("refused {remote}: {why}");
                if let Some(line) = self.voice.refused.line(&Caller::at(ip, host.as_ref()), why, &text, now) {
                    log::warn!("{line}");
                }
                refuse(stream, &mut m.scratch);
                return false;
            }
        };
        let familiar = caller.is_some() || self.names.know(ip);
        if let Err(error) = stream.set_nonblocking(true) {
            log::debug!("accept {remote}: {error}");
            return false;
        }
        self.let_in(m, Newcomer { stream, remote, caller, familiar, speaks: false }, now)
    }

    /// A child is to be forked for the connection, by [`Lond::fork_coming`].
    pub(super) fn start_link(&mut self, m: &mut Machine<'_>, newcomer: Newcomer, now: Instant) {
        let ends = m.open_control().or_else(|error| {
            // Those that are to be forked have more open now than when they are.
            if self.coming.is_empty() {
                return Err(error);
            }
            self.fork_coming(m, now);
            m.open_control()
        });
        match ends {
            Ok((opening, control)) => {
                let silent = self.voice.visits.silent(newcomer.remote.ip(), now);
                self.coming.push(Coming { newcomer, since: now, silent, opening, control });
            }
            Err(error) => self.link_failed(newcomer.remote, newcomer.caller.as_ref(), &error, now),
        }
    }

    /// Forks the children that are to be, together: see [`spawn::spawn_apart`].
    pub(super) fn fork_coming(&mut self, m: &mut Machine<'_>, now: Instant) {
        if self.coming.is_empty() {
            return;
        }
        let (entry, ledger) = (self.entry, self.ledger);
        let (settings, directory) = (&self.settings, &self.directory);
        let (mut parents, mut births) = (Vec::new(), Vec::new());
        for Coming { newcomer, since: _, silent, opening, control } in self.coming.drain(..) {
            let Newcomer { stream, remote, caller, familiar, speaks: _ } = newcomer;
            let keep = vec![stream.as_raw_fd(), control.as_raw_fd()];
            parents.push((remote, caller.clone(), familiar, opening));
            let begin = move || {
                let name = caller.as_ref().map_or_else(|| remote.ip().to_string(), HostId::to_string);
                base::logging::set_host(&name);
                if silent {
                    base::logging::be_silent();
                }
                title::set(&format!("{name} opening"));
                let (settings, directory) = (settings.clone(), directory.clone());
                entry(Seed { settings, directory, stream, remote, caller, control, ledger })
            };
            births.push(Birth { keep, entry: begin });
        }
        // Which wire is spoken the child finds out.
        let mut forked = m.key.lend(|| spawn::spawn_apart(births)).map(Vec::into_iter);
        let deadline = now + m.start.config.lond.opening_timeout + GRACE;
        for (remote, caller, familiar, opening) in parents {
            let pid = match &mut forked {
                Ok(forked) => forked.next().unwrap_or_else(|| Err(io::ErrorKind::Other.into())),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            match pid {
                Ok(pid) => {
                    m.controls.keep(pid, opening);
                    self.links.started(pid, Started { remote, caller, familiar, deadline }, now);
                }
                Err(error) => self.link_failed(remote, caller.as_ref(), &error, now),
            }
        }
    }

    /// Says that no child could be had for a connection, which is closed.
    fn link_failed(&mut self, remote: SocketAddr, caller: Option<&HostId>, error: &io::Error, now: Instant) {
        let caller = Caller::at(remote.ip().to_canonical(), caller);
        let why = error.to_string();
        let text = format!("start a link for {remote}: {why}; closed");
        if let Some(line) = self.voice.failures.line(&caller, &why, &text, now) {
            log::error!("{line}");
        }
    }

    /// A child has turned its caller away, which showed this key if any: it counts, and is named
    /// once.
    pub(super) fn handshake_refused(
        &mut self,
        m: &mut Machine<'_>,
        pid: u32,
        why: &str,
        key: Option<&str>,
        now: Instant,
    ) {
        self.board.counts.unauthenticated += 1;
        let Some(remote) = self.links.get(pid).map(|link| link.remote) else { return };
        self.say_refused(m, Refused { pid, key, why, text: &format!("refused {remote}: {why}") }, now);
    }

    /// Says that a caller was turned away that a child could not come to know.
    pub(super) fn say_refused(&mut self, m: &mut Machine<'_>, refused: Refused<'_>, now: Instant) {
        let Refused { pid, key, why, text } = refused;
        let Some(link) = self.links.get(pid) else { return };
        let key: Option<Pin> = key.and_then(|key| key.parse().ok());
        let pins = &m.start.config.pins;
        let host = key.and_then(|key| pins.who(&key)).or(link.caller.as_ref());
        let caller = Caller { address: link.remote.ip(), key, host };
        if let Some(line) = self.voice.refused.line(&caller, why, text, now) {
            log::warn!("{line}");
        }
    }

    /// What is logged of a child that is killed: one whose caller was never known is no news each
    /// time.
    pub(super) fn say_killed(&mut self, m: &mut Machine<'_>, pid: u32, now: Instant) {
        self.board.counts.killed += 1;
        let Some(link) = self.links.get(pid) else { return };
        let text = format!("killing child {pid}: it did not open, end or answer in time");
        let name = self.name(pid);
        match (&link.opened, &link.caller) {
            (Some(_), Some(host)) => {
                if let Some(line) = self.voice.hosts.fault(host, &text, now) {
                    log::warn!("{name}: {line}");
                }
            }
            (_, _) => {
                let said = format!("{name}: {text}");
                self.say_refused(m, Refused { pid, key: None, why: &text, text: &said }, now);
            }
        }
    }

    /// What is logged of a child that was reaped; strangers can have thousands of them.
    pub(super) fn say_ended(&mut self, pid: u32, end: spawn::End, now: Instant) {
        let name = self.name(pid);
        let (opened, killed) = match self.links.get(pid) {
            Some(link) => (link.opened.is_some(), link.state == State::Killed),
            None => (false, false),
        };
        match end {
            spawn::End::Exited(0) if opened => self.say_life(pid, &format!("child {pid} ended"), now),
            spawn::End::Exited(0) => log::debug!("{name}: child {pid} ended, its caller unknown"),
            spawn::End::Killed(_) if killed && !opened => log::debug!("{name}: child {pid} {end}"),
            spawn::End::Exited(_) | spawn::End::Killed(_) => {
                let text = format!("child {pid} {end}");
                let line = match self.links.get(pid) {
                    Some(Link { caller: Some(host), .. }) => self.voice.hosts.fault(host, &text, now),
                    // Whoever makes children of unknown callers die has an address.
                    Some(link) => {
                        self.voice.failures.line(&Caller::at(link.remote.ip(), None), &text, &text, now)
                    }
                    None => Some(text),
                };
                if let Some(line) = line {
                    log::warn!("{name}: {line}");
                }
            }
        }
    }
}

/// Says so to the caller, as far as that can be done without waiting for it.
fn refuse(mut stream: TcpStream, scratch: &mut [u8]) {
    let said = stream
        .set_nonblocking(true)
        .and_then(|()| stream.write_all(REFUSED))
        .and_then(|()| stream.shutdown(Shutdown::Write));
    // Closing with something unread would reset the connection and take the word back.
    if said.is_ok() {
        let _ = stream.read(scratch);
    }
}
