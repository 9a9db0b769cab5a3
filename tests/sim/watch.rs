//! Limits in time, and what must be so at the end.
//!
//! A silent link is given up in time, at both ends; a person's wish is heeded; dials come neither
//! too late nor too often; at rest everything has arrived or was set aside, and nothing is left
//! lying.

use crate::ledger::{Checked, Manner};
use crate::link::LinkInput;
use crate::net::Time;
use crate::scenario::*;
use crate::world::World;
use lonnet::status::{LinkState, PeerStatus};

/// How long a silent link may stay: the heartbeat, and those that may be missed.
const SILENCE: Time = HEARTBEAT * (HEARTBEAT_MISSED as u64 + 1) + SECOND / 5;
/// How long an answer to a person's heartbeat may take.
const PROBE: Time = 5 * SECOND + SECOND / 5;
/// The first pause before a redial: at least, and at most.
const FIRST_PAUSE: (Time, Time) = (240 * MILLI, 502 * MILLI);
/// After so many failures in a row the pause is at least this long.
const MANY_FAILURES: (u32, Time) = (6, 4 * SECOND);

/// What is known of one link process.
#[derive(Debug, Default)]
pub struct LinkWatch {
    /// The last sign of life on the link.
    pub heard: Time,
    state: Option<LinkState>,
    up_since: Time,
    done: u64,
    /// The next dial must come by then.
    dial_by: Option<Time>,
    /// The last attempt failed then.
    failed_at: Option<Time>,
    failures: u32,
    pub dials: u32,
    /// A person wanted the link, over this connection, to be tried.
    probed: Option<(usize, Time)>,
}

impl World {
    /// A link process's state, after each step of it.
    pub fn note_state(&mut self, number: usize, status: &PeerStatus) -> Checked {
        let now = self.now;
        // The peer may have left in order: that is no failure, and trouble with the spool is none
        // of the link's.
        let of_the_spool = status
            .last_error
            .as_ref()
            .is_some_and(|error| error.contains("/spool/") && !error.contains("/.received/"));
        let failed = status.last_error_at == Some(self.clock().wall) && !of_the_spool;
        let watch = &mut self.links[number].watch;
        let before = watch.state.replace(status.state);
        match (before, status.state) {
            (Some(LinkState::Up), LinkState::Up) => {}
            (_, LinkState::Up) => {
                (watch.up_since, watch.done, watch.heard) = (now, status.done, now);
                (watch.dial_by, watch.failed_at) = (None, None);
            }
            (Some(LinkState::Up), LinkState::Down) if !failed => {
                watch.dial_by = Some(now + FIRST_PAUSE.0);
                // If it was a good link, the pauses begin anew; what was replayed over it is not in
                // its status.
                watch.failures = 0;
            }
            // It left and was dialled between two looks.
            (Some(LinkState::Up), LinkState::Connecting | LinkState::Opening) => watch.failures = 0,
            (Some(LinkState::Up), LinkState::Down) => {
                let good = now - watch.up_since >= 5 * SECOND || status.done > watch.done;
                watch.failures = 1;
                watch.dial_by = good.then_some(now + FIRST_PAUSE.1);
                watch.failed_at = Some(now);
            }
            (Some(LinkState::Connecting | LinkState::Opening), LinkState::Down) if failed => {
                watch.failures += 1;
                watch.failed_at = Some(now);
            }
            _ => {}
        }
        Ok(())
    }

    /// A link process dials.
    pub fn note_dial(&mut self, number: usize) -> Checked {
        let now = self.now;
        let watch = &mut self.links[number].watch;
        watch.dials += 1;
        let failed_at = watch.failed_at.take();
        if watch.dial_by.take().is_some_and(|by| now > by) {
            return Err(format!("link {number} was good and is dialled too late"));
        }
        let least = if watch.failures >= MANY_FAILURES.0 { MANY_FAILURES.1 } else { FIRST_PAUSE.0 };
        if failed_at.is_some_and(|at| now - at < least) {
            return Err(format!("link {number} is dialled too soon, after {} failures", watch.failures));
        }
        Ok(())
    }

    /// USR1 for one link: it dials now, or is tried.
    pub fn probe(&mut self, number: usize) -> Checked {
        let now = self.clock();
        let Some((turn, _)) = &mut self.links[number].process else { return Ok(()) };
        if !turn.broker().accepts() {
            return Ok(());
        }
        let before = turn.broker().status(now).state;
        let watch =
            LinkWatch { failures: 0, failed_at: None, ..std::mem::take(&mut self.links[number].watch) };
        self.links[number].watch = watch;
        self.link_step(number, LinkInput::Probe)?;
        let link = &mut self.links[number];
        let Some((turn, _)) = &mut link.process else { return Ok(()) };
        match (turn.broker().status(now).state, link.conn) {
            (LinkState::Down, _) if before == LinkState::Down => {
                Err(format!("link {number} is down, and was not dialled when that was asked for"))
            }
            (LinkState::Up, Some(conn)) if link.secure => {
                link.watch.probed = Some((conn, self.now));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Looks at what may have been too long.
    pub fn watch(&mut self) -> Checked {
        let (now, clock) = (self.now, self.clock());
        for (number, link) in self.links.iter_mut().enumerate() {
            let Some((turn, _)) = link.process.as_mut().filter(|_| link.secure) else { continue };
            if turn.broker().status(clock).state != LinkState::Up {
                link.watch.probed = None;
                continue;
            }
            if now - link.watch.heard > SILENCE {
                return Err(format!("link {number} is up and was silent for too long"));
            }
            if let Some((conn, at)) = link.watch.probed
                && now > at + PROBE
            {
                link.watch.probed = None;
                if link.conn == Some(conn) && link.watch.heard <= at {
                    return Err(format!("link {number} is up and did not answer a person's heartbeat"));
                }
            }
        }
        for (number, child) in self.children.iter().enumerate() {
            let Some(child) = child else { continue };
            let beats = child.secure && child.opened && !child.end_told;
            // Told to end meanwhile, or at fault, it may say its last words.
            let most = SILENCE + DRAIN_TIMEOUT + SECOND;
            if [child.no_room_since, child.unrecorded_since]
                .into_iter()
                .flatten()
                .any(|at| now - at > PATIENCE + SECOND + SECOND / 2)
                && !child.is_cut()
            {
                return Err(format!("child {number} goes on though what it is asked cannot be recorded"));
            }
            if beats && child.conn.is_some() && !child.is_cut() && now - child.heard > most {
                return Err(format!("child {number} goes on with a silent link"));
            }
        }
        Ok(())
    }

    /// The network is at rest: everything has arrived or was set aside.
    pub fn at_rest(&mut self) -> Checked {
        self.ledger.arrived()?;
        self.refused_are_kept()?;
        for (number, link) in self.links.iter().enumerate() {
            let Some(conn) = link.conn else { continue };
            let Some(wiretap) = &mut self.conns[conn].wiretap else { continue };
            let last = self.last_words.get(number);
            wiretap.flushed = last.is_some_and(|(over, word)| *over == conn && self.ledger.is_settled(*word));
            wiretap.at_rest()?;
        }
        let redialled = self.links.iter().position(|link| link.watch.dials != 1);
        match redialled.filter(|_| self.scenario.weather == Weather::Calm) {
            Some(link) => Err(format!("link {link} was lost, and nothing had happened to it")),
            None => Ok(()),
        }
    }

    /// What was stored and then refused is in `failed/`.
    fn refused_are_kept(&self) -> Checked {
        for (number, link) in self.links.iter().enumerate() {
            let folder = format!("/spool/h{}/failed", link.peer);
            let files = self.hosts[link.host].disk.files();
            let kept: Vec<&Vec<u8>> =
                files.iter().filter(|(path, _)| path.starts_with(&folder)).map(|(_, bytes)| bytes).collect();
            let senders = self.senders(number);
            let refused = self.ledger.messages.iter().filter(|message| {
                message.manner == Manner::Refused
                    && senders.contains(&message.program)
                    && !message.given_up
                    && !message.wiped
                    && message.attempts.iter().all(|attempt| attempt.delayed)
                    && !message.attempts.is_empty()
            });
            for message in refused {
                let request = message.request.as_bytes();
                if !kept.iter().any(|file| file.windows(request.len()).any(|part| part == request)) {
                    return Err(format!("a message was refused and is not in {folder}: {message:?}"));
                }
            }
        }
        Ok(())
    }
}
