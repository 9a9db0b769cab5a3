//! What is done with the child of each peer, as the table says: forked, told, killed, replaced; and
//! what is said of its end.

use super::{Lonc, Machine};
use crate::entry::Seed;
use crate::messages::ToLink;
use crate::settings::LinkKeys;
use base::HostId;
use jiff::Timestamp;
use status::LinkState;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};
use supervise::daemon::Role;
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
            Action::Start => self.start(m, peer, now),
            Action::TellHandOver => self.tell_hand_over(m, peer, now),
            Action::TellDrain => self.send(m, peer, &ToLink::Drain, now),
            Action::Kill(pid) => {
                log::warn!("{peer}: killing child {pid}: it did not end or answer in time");
                spawn::kill_now(pid);
            }
        }
    }

    fn start(&mut self, m: &mut Machine<'_>, peer: &HostId, now: Instant) {
        match self.fork(m, peer) {
            Ok(pid) => {
                self.tell(m, peer, Event::Started { pid }, now);
                self.board.starting(peer, pid);
            }
            Err(error) => {
                log::error!("{peer}: start a child: {error}; tried again later");
                let doing = "no child could be started";
                let error = Some(format!("start a child: {error}"));
                self.board.unserved(peer, LinkState::Starting, doing, error, Timestamp::now());
                self.tell(m, peer, Event::StartFailed, now);
            }
        }
    }

    fn fork(&mut self, m: &mut Machine<'_>, id: &HostId) -> io::Result<u32> {
        let listener = self.listener_for_child(m, id)?;
        let Some(settings) = self.links.of(id) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it is no longer in the table"));
        };
        let pins = self.links.pins(id).into_iter().collect();
        let passage = self.passages.for_child(id)?;
        let (opening, control) = m.open_control()?;
        self.sockets.untold.remove(id);
        let mut keep = vec![listener.as_raw_fd(), control.as_raw_fd()];
        keep.extend(passage.iter().map(|end| end.as_fd().as_raw_fd()));
        let (entry, files) = (self.entry, self.tiers.child);
        let key = matches!(settings.keys, LinkKeys::Shown(_)).then(|| self.links.key());
        let begin = move || {
            base::logging::set_host(settings.peer.host.id.as_str());
            title::set(&format!("{} starting", settings.peer.host.id));
            limit::lower(files);
            entry(Seed { settings, pins, listener, control, passage })
        };
        let pid = match key {
            Some(key) => key.lend(|| spawn::spawn(keep, begin)),
            None => spawn::spawn(keep, begin),
        }?;
        m.controls.keep(id.clone(), opening);
        Ok(pid)
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
