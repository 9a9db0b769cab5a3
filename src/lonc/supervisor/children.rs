//! What is done with the child of each peer, as the table says: forked, told, killed, replaced; and
//! what is said of its end.

use super::{Lonc, Machine};
use crate::entry::Seed;
use crate::handover::Takeover;
use crate::messages::{FromLink, ToLink};
use base::HostId;
use jiff::Timestamp;
use status::LinkState;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};
use supervise::controls::Opening;
use supervise::daemon::Role;
use supervise::spawn::Birth;
use supervise::table::{Action, Event, State};
use supervise::{limit, spawn, title};

/// A child with another configuration than the next one for its peer will have.
#[derive(Debug)]
pub(super) struct Replace {
    /// Whom it serves.
    pub peer: HostId,
    /// The process to be replaced; a later child of the same peer is not.
    pub pid: u32,
    /// How long it may go on answering: by its own configuration or the next one's, whichever is
    /// longer.
    pub drain: Duration,
}

/// A child that is about to be forked.
struct Prepared {
    peer: HostId,
    /// It is lent this host's key.
    shows_key: bool,
    listener: UnixListener,
    passage: Option<Takeover>,
    opening: Opening<ToLink, FromLink>,
    control: OwnedFd,
}

impl Lonc {
    /// All peers that have a child or wait for one.
    pub(super) fn peers(&self) -> Vec<HostId> {
        self.table.iter().map(|(peer, _)| peer.clone()).collect()
    }

    pub(super) fn tell(&mut self, m: &mut Machine<'_>, peer: &HostId, event: Event, now: Instant) {
        if let Some(action) = self.table.tell(peer, event, now) {
            self.act(m, peer, action, now);
        }
    }

    pub(super) fn act(&mut self, m: &mut Machine<'_>, peer: &HostId, action: Action, now: Instant) {
        match action {
            Action::Start => self.start_all(m, std::slice::from_ref(peer), now),
            Action::TellHandOver => self.tell_hand_over(m, peer, now),
            Action::TellDrain => self.send(m, peer, &ToLink::Drain, now),
            Action::Kill(pid) => {
                log::warn!("{peer}: killing child {pid}: it did not end or answer in time");
                spawn::kill_now(pid);
            }
        }
    }

    /// Forks children for these, together: see [`spawn::spawn_apart`].
    pub(super) fn start_all(&mut self, m: &mut Machine<'_>, peers: &[HostId], now: Instant) {
        let (mut shown, mut others) = (Vec::new(), Vec::new());
        for peer in peers {
            match self.prepare(m, peer) {
                Ok(prepared) if prepared.shows_key => shown.push(prepared),
                Ok(prepared) => others.push(prepared),
                Err(error) => self.start_failed(m, peer, &error, now),
            }
        }
        // The key is lent to those alone that show it.
        for (some, shows_key) in [(shown, true), (others, false)] {
            if !some.is_empty() {
                self.fork_all(m, some, shows_key, now);
            }
        }
    }

    /// What a child of this peer is to have.
    fn prepare(&mut self, m: &mut Machine<'_>, id: &HostId) -> io::Result<Prepared> {
        let listener = self.listener_for_child(m, id)?;
        let Some(shows_key) = self.links.shows_key(id) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it is no longer in the table"));
        };
        let passage = self.passages.for_child(id)?;
        let (opening, control) = m.open_control()?;
        self.sockets.untold.remove(id);
        Ok(Prepared { peer: id.clone(), shows_key, listener, passage, opening, control })
    }

    fn fork_all(&mut self, m: &mut Machine<'_>, some: Vec<Prepared>, shows_key: bool, now: Instant) {
        let (entry, files, links) = (self.entry, self.tiers.child, &self.links);
        let mut parents = Vec::with_capacity(some.len());
        let births =
            some.into_iter().map(|Prepared { peer, listener, passage, opening, control, .. }| {
                let mut keep = vec![listener.as_raw_fd(), control.as_raw_fd()];
                keep.extend(passage.iter().map(|end| end.as_fd().as_raw_fd()));
                parents.push((peer.clone(), opening));
                let begin = move || {
                    base::logging::set_host(peer.as_str());
                    title::set(&format!("{peer} starting"));
                    limit::lower(files);
                    // Made by the child: what this process wrote for it would cost each of them
                    // a page, wherever in its memory there was a gap.
                    let Some(settings) = links.of(&peer) else { std::process::exit(1) };
                    let pins = links.pins(&peer).into_iter().collect();
                    entry(Seed { settings, pins, listener, control, passage })
                };
                Birth { keep, entry: begin }
            });
        let births: Vec<_> = births.collect();
        let forked = match shows_key {
            true => links.key().lend(|| spawn::spawn_apart(births)),
            false => spawn::spawn_apart(births),
        };
        let failed = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
        let mut forked = forked.map(Vec::into_iter);
        for (peer, opening) in parents {
            let pid = match &mut forked {
                Ok(forked) => forked.next().unwrap_or_else(|| Err(io::ErrorKind::Other.into())),
                Err(error) => Err(failed(error)),
            };
            match pid {
                Ok(pid) => {
                    m.controls.keep(peer.clone(), opening);
                    self.tell(m, &peer, Event::Started { pid }, now);
                    self.board.starting(&peer, pid);
                }
                Err(error) => self.start_failed(m, &peer, &error, now),
            }
        }
    }

    fn start_failed(&mut self, m: &mut Machine<'_>, peer: &HostId, error: &io::Error, now: Instant) {
        log::error!("{peer}: start a child: {error}; tried again later");
        let doing = "no child could be started";
        let error = Some(format!("start a child: {error}"));
        self.board.unserved(peer, LinkState::Starting, doing, error, Timestamp::now());
        self.tell(m, peer, Event::StartFailed, now);
    }

    pub(super) fn say_ended(&mut self, peer: &HostId, pid: u32, end: spawn::End, now: Instant) {
        let next = match self.table.state(peer) {
            Some(State::Waiting { start_at }) => match start_at.saturating_duration_since(now) {
                Duration::ZERO => "starting anew".to_owned(),
                pause => format!("starting anew in {pause:.1?}"),
            },
            Some(State::Running { .. } | State::Draining { .. } | State::Killed { .. }) | None => {
                "stopped".to_owned()
            }
        };
        let error = match end {
            spawn::End::Exited(0) => {
                log::info!("{peer}: child {pid} ended; {next}");
                None
            }
            spawn::End::Exited(_) | spawn::End::Killed(_) => {
                log::warn!("{peer}: child {pid} {end}; {next}");
                Some(format!("the child {end}"))
            }
        };
        self.board.unserved(peer, LinkState::Starting, &next, error, Timestamp::now());
    }
}
