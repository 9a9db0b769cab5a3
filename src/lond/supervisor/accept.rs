//! Connections: who is let in to a child, who is turned away at once.
//!
//! With the secure wire a caller is known by its key, which only a child looks at, so any address may connect: at
//! most `max_opening` children have callers that are not known yet, and who of them gives way to whom, [`super::door`] says. So a
//! crowd that never authenticates costs that many processes, a few forks a second, and a bounded share of each turn
//! ([`ACCEPTS_A_TURN`], [`FORKS_A_TURN`]); links that are open are processes of their own.
//! There are never more children than [`Supervisor::most_children`] says, however many callers are known: beyond that one that is
//! ending is given up of the caller that has most of these; where nobody has two, the newcomer is closed at once.
//! Where the secure wire can serve nobody, an address that is no host's is refused without a child.

use super::door::{self, Bounds, Origin, Verdict};
use super::hush::Caller;
use super::links::{CHILDREN_OF_ONE, Event, Link, Links, Started, State};
use super::{GRACE, Supervisor, next};
use crate::config::{Config, HostId, Pin};
use crate::lond::entry::Seed;
use crate::supervise::control::{self, Channel};
use crate::supervise::{spawn, title};
use mio::Interest;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// How long accepting rests when there are no descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// What `accept` says then, and when there is no memory.
const SHORTAGES: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
/// Connections taken from one socket before other work has its turn.
const ACCEPTS_A_TURN: usize = 64;
/// Children forked before other work has its turn: a fork costs as much as hundreds of connections that are closed.
const FORKS_A_TURN: usize = 8;
/// Children beyond two for each host and those in the opening dialogue: a few hosts may have more that are ending.
pub const CHILDREN_TO_SPARE: usize = 64;
/// What a caller is answered who is not served.
const REFUSED: &[u8] = b"refused\n";

impl Supervisor<'_> {
    /// Takes connections in from every socket that has some, as far as the budgets go.
    pub(super) fn accept(&mut self, now: Instant) {
        let mut forks = 0;
        self.heard_unopened = false;
        for place in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_A_TURN {
                let Some(listener) = self.listeners.get_mut(place).filter(|listener| listener.ready) else {
                    break;
                };
                match listener.socket.accept() {
                    Ok((stream, remote)) => forks += usize::from(self.welcome(stream, remote, now)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => listener.ready = false,
                    Err(error) if error.raw_os_error().is_some_and(|code| SHORTAGES.contains(&code)) => {
                        let text = format!("accept: {error}; callers wait for {ACCEPT_PAUSE:?}");
                        if let Some(line) = self.shortages.line(&text, now) {
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

    /// Forks a child for the connection, or turns it away; whether a fork was tried.
    fn welcome(&mut self, stream: TcpStream, remote: SocketAddr, now: Instant) -> bool {
        let ip = remote.ip().to_canonical();
        let caller = match self.callers.admit(&self.start.config, ip) {
            Ok(caller) => caller,
            Err(why) => {
                self.board.counts.refused += 1;
                let host = self.callers.host_at(&self.start.config, ip);
                let text = format!("refused {remote}: {why}");
                if let Some(line) = self.refused.line(&Caller::at(ip, host.as_ref()), why, &text, now) {
                    log::warn!("{line}");
                }
                refuse(stream, &mut self.scratch);
                return false;
            }
        };
        let familiar = caller.is_some() || self.names.know(ip);
        if !self.make_way(remote, caller.as_ref(), familiar, now) {
            return false;
        }
        let deadline = now + self.start.config.lond.opening_timeout + GRACE;
        match self.fork(stream, remote, caller.clone(), now) {
            Ok(pid) => self.links.started(pid, Started { remote, caller, familiar, deadline }, now),
            Err(error) => {
                let (why, caller) = (error.to_string(), Caller::at(ip, caller.as_ref()));
                let text = format!("start a link for {remote}: {why}; closed");
                if let Some(line) = self.failures.line(&caller, &why, &text, now) {
                    log::error!("{line}");
                }
            }
        }
        true
    }

    /// Whether there is room for a newcomer, be it that another gives way.
    fn make_way(
        &mut self,
        remote: SocketAddr,
        caller: Option<&HostId>,
        familiar: bool,
        now: Instant,
    ) -> bool {
        let ip = remote.ip().to_canonical();
        let bounds = Bounds::new(self.start.config.lond.max_opening);
        let judge = |links: &Links| door::judge(bounds, &links.guests(), Origin::of(ip), familiar, now);
        let mut verdict = judge(&self.links);
        if verdict != Verdict::Welcome && !self.heard_unopened {
            // Some may have opened by now and have told so; nobody must give way or be turned away for them.
            self.heard_unopened = true;
            self.look_names_up(now);
            for pid in self.links.unopened_pids() {
                if let Some(token) = self.controls.get(&pid).map(|(token, _)| *token) {
                    self.hear(token, now);
                }
            }
            verdict = judge(&self.links);
        }
        match verdict {
            Verdict::Welcome => {}
            Verdict::InPlaceOf(pid) => self.give_up(pid, now),
            Verdict::TurnedAway => {
                self.board.counts.crowded += 1;
                let unopened = self.links.unopened();
                let text = format!("closed {remote}: {unopened} connections are in the opening dialogue");
                if let Some(line) = self.crowd.line(&Caller::at(ip, caller), "", &text, now) {
                    log::warn!("{line}");
                }
                return false;
            }
        }
        let most = self.most_children();
        if self.links.len() < most {
            return true;
        }
        if let Some(pid) = self.links.spare() {
            self.cut_off(pid, &format!("there are {most} links, as many as may be"), now);
            return true;
        }
        // Few descriptors are no reason for a host of the table to wait for strangers.
        if familiar && let Some(pid) = door::oldest_stranger(&self.links.guests()) {
            self.give_up(pid, now);
            return true;
        }
        self.board.counts.crowded += 1;
        let text = format!("closed {remote}: there are {most} links, as many as may be");
        if let Some(line) = self.crowd.line(&Caller::at(ip, caller), "all", &text, now) {
            log::error!("{line}");
        }
        false
    }

    /// Kills a child whose caller was not known in time for another's sake: it counts as crowded out, and is said as seldom.
    fn give_up(&mut self, pid: u32, now: Instant) {
        self.board.counts.crowded += 1;
        let unopened = self.links.unopened();
        if let Some(Link { remote, caller, .. }) = self.links.get(pid) {
            let text = format!(
                "closed {remote}, for a newcomer: {unopened} connections are in the opening dialogue"
            );
            if let Some(line) = self.crowd.line(&Caller::at(remote.ip(), caller.as_ref()), "", &text, now) {
                log::warn!("{line}");
            }
        }
        if self.links.tell(pid, Event::Kill).is_some() {
            spawn::kill_now(pid);
        }
    }

    /// The caller of this child may have had more than its share.
    pub(super) fn bound_children_of(&mut self, pid: u32, now: Instant) {
        let Some(caller) = self.links.get(pid).and_then(|link| link.caller.clone()) else { return };
        while let Some(pid) = self.links.beyond(&caller) {
            self.cut_off(pid, &format!("it has {CHILDREN_OF_ONE} links that have not ended"), now);
        }
    }

    /// Kills a child that is ending, because there is no room for it any more.
    fn cut_off(&mut self, pid: u32, why: &str, now: Instant) {
        self.board.counts.killed += 1;
        if let Some(caller) = self.links.get(pid).and_then(|link| link.caller.as_ref())
            && let Some(line) = self.said.fault(caller, &format!("{why}; killing child {pid}"), now)
        {
            log::warn!("{caller}: {line}");
        }
        if self.links.tell(pid, Event::Kill).is_some() {
            spawn::kill_now(pid);
        }
    }

    /// Children that there may be at a time: a link for each host and one that is ending, whoever is in the opening dialogue,
    /// and some to spare; no more than there are descriptors for.
    fn most_children(&self) -> usize {
        links_of(&self.start.config).min(self.descriptors)
    }

    fn fork(
        &mut self,
        stream: TcpStream,
        remote: SocketAddr,
        caller: Option<HostId>,
        now: Instant,
    ) -> io::Result<u32> {
        stream.set_nonblocking(true)?;
        let (ours, theirs) = control::pair()?;
        let mut channel = Channel::from_fd(ours)?;
        let token = next(&mut self.next_token);
        self.poll.registry().register(&mut channel, token, Interest::READABLE | Interest::WRITABLE)?;
        let keep = vec![stream.as_raw_fd(), theirs.as_raw_fd()];
        let silent = self.visits.silent(remote.ip(), now);
        let (entry, config, ledger) = (self.entry, self.start.config.clone(), self.ledger);
        let pid = spawn::spawn(keep, move || {
            let name = caller.as_ref().map_or_else(|| remote.ip().to_string(), HostId::to_string);
            crate::logging::set_host(&name);
            if silent {
                crate::logging::be_silent();
            }
            title::set(&format!("{name} opening"));
            entry(Seed { config, stream, remote, caller, control: theirs, ledger })
        })?;
        self.tokens.insert(token, pid);
        self.controls.insert(pid, (token, channel));
        Ok(pid)
    }

    /// A child has turned its caller away, which showed this key if any: it counts, and is named once.
    pub(super) fn handshake_refused(&mut self, pid: u32, why: &str, key: Option<&str>, now: Instant) {
        self.board.counts.unauthenticated += 1;
        let Some(remote) = self.links.get(pid).map(|link| link.remote) else { return };
        self.say_refused(pid, key, why, &format!("refused {remote}: {why}"), now);
    }

    /// Says that a caller was turned away that a child could not come to know.
    pub(super) fn say_refused(&mut self, pid: u32, key: Option<&str>, why: &str, text: &str, now: Instant) {
        let Some(link) = self.links.get(pid) else { return };
        let key: Option<Pin> = key.and_then(|key| key.parse().ok());
        let pins = &self.start.config.pins;
        let host = key.and_then(|key| pins.who(&key)).or(link.caller.as_ref());
        let caller = Caller { address: link.remote.ip(), key, host };
        if let Some(line) = self.refused.line(&caller, why, text, now) {
            log::warn!("{line}");
        }
    }

    /// What is logged of a child that is killed: one whose caller was never known is no news each time.
    pub(super) fn say_killed(&mut self, pid: u32, now: Instant) {
        self.board.counts.killed += 1;
        let Some(link) = self.links.get(pid) else { return };
        let text = format!("killing child {pid}: it did not open, end or answer in time");
        let name = self.name(pid);
        match (&link.opened, &link.caller) {
            (Some(_), Some(host)) => {
                if let Some(line) = self.said.fault(host, &text, now) {
                    log::warn!("{name}: {line}");
                }
            }
            (_, _) => self.say_refused(pid, None, &text, &format!("{name}: {text}"), now),
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
                    Some(Link { caller: Some(host), .. }) => self.said.fault(host, &text, now),
                    // Whoever makes children of unknown callers die has an address.
                    Some(link) => self.failures.line(&Caller::at(link.remote.ip(), None), &text, &text, now),
                    None => Some(text),
                };
                if let Some(line) = line {
                    log::warn!("{name}: {line}");
                }
            }
        }
    }
}

/// Children that this configuration may come to need at a time.
pub fn links_of(config: &Config) -> usize {
    2 * config.hosts.len() + config.lond.max_opening + CHILDREN_TO_SPARE
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
