//! `lonc`'s supervisor in the simulation: the real table of children, the real passage of their
//! programs, and what the supervisor does with them: starting, replacing at HUP and reload, killing
//! what does not end, dying; and the real moves of files that programs drop in.
//!
//! A child that was started waits for the lock of the one before it, as in `lonc::entry`.

use crate::disk::Life;
use crate::ledger::Checked;
use crate::link::{LinkInput, id_of};
use crate::net::Time;
use crate::sabotage::Sabotage;
use crate::scenario::*;
use crate::world::{Event, World};
use lonnet::base::HostId;
use lonnet::lonc::dials::Dials;
use lonnet::lonc::supervisor::GRACE;
use lonnet::store::spool::{Arrivals, inbox_owner};
use lonnet::supervise::table::{Action, Carried, Event as Told, Table};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

#[derive(Debug, Default)]
pub struct Supervisor {
    /// By the numbers of the links.
    table: Table<usize>,
    /// What their children ask for their dials.
    pub dials: Dials<usize>,
    /// Tells one program from the next.
    pub program: u32,
    wake: Option<Time>,
    /// Files that are to be moved, and when that is looked at next.
    pub arrivals: Arrivals,
    moves_at: Option<Time>,
}

impl World {
    /// A supervisor starts: every link gets a child.
    pub fn supervisor_up(&mut self, host: usize) -> Checked {
        if !self.hosts[host].up || self.hosts[host].supervisor.is_some() {
            return Ok(());
        }
        let mut supervisor = self.new_program();
        let now = self.clock().mono;
        for link in self.links_of(host) {
            supervisor.table.want(link, now);
        }
        self.hosts[host].supervisor = Some(supervisor);
        // Before there is a child: after a loss of power a later file may be in its folder already,
        // and an earlier one not.
        self.move_files(host)?;
        self.supervise(host)
    }

    /// Moves files that programs dropped in to the folders of their links, and tells these.
    pub fn move_files(&mut self, host: usize) -> Checked {
        let (now, links, life) = (self.clock(), self.links_of(host), Rc::new(Life::default()));
        if !self.certain && self.random.u32(..16) == 0 {
            life.fuse.set(Some(self.random.u32(..12)));
        }
        let mut disk = self.disk(host, &life);
        let is_peer = |id: &str| links.iter().any(|link| id_of(self.links[*link].peer).as_str() == id);
        let owner = |name: &std::ffi::OsStr| inbox_owner(name, is_peer).and_then(|id| HostId::new(id).ok());
        let up = self.hosts[host].up;
        let Some(supervisor) = self.hosts[host].supervisor.as_mut().filter(|_| up) else { return Ok(()) };
        let passed = supervisor.arrivals.pass(&mut disk, Path::new("/spool"), &owner, now.mono, now.wall);
        let next = supervisor.arrivals.deadline(now.mono);
        if life.dead.get() {
            self.trace(|_| format!("the supervisor of h{host} dies while it moves files"));
            return self.kill_supervisor(host);
        }
        let next = next.map(|at| self.time_of(at));
        for link in links {
            let has_some = passed.peers.contains(&id_of(self.links[link].peer));
            if has_some && self.sabotage != Sabotage::DroppedFileUntold {
                self.link_step(link, LinkInput::TakeIn)?;
            }
        }
        self.move_files_at(host, next);
        Ok(())
    }

    fn move_files_at(&mut self, host: usize, next: Option<Time>) {
        let now = self.now;
        let Some(supervisor) = &mut self.hosts[host].supervisor else { return };
        let planned = supervisor.moves_at.filter(|at| *at > now);
        if let Some(at) = next.filter(|next| planned.is_none_or(|planned| *next < planned)) {
            supervisor.moves_at = Some(at);
            self.at(at, Event::MoveFiles(host));
        }
    }

    pub fn links_of(&self, host: usize) -> Vec<usize> {
        (0..self.links.len()).filter(|link| self.links[*link].host == host).collect()
    }

    /// Does what is due.
    pub fn supervise(&mut self, host: usize) -> Checked {
        let now = self.clock().mono;
        while let Some(supervisor) = &mut self.hosts[host].supervisor {
            match supervisor.table.due(now) {
                Some((link, action)) => self.act(host, link, action)?,
                None => break,
            }
        }
        let next = self.hosts[host].supervisor.as_ref().and_then(|it| it.table.next_deadline());
        if let (Some(at), Some(supervisor)) =
            (next.map(|at| self.time_of(at)), &mut self.hosts[host].supervisor)
            && supervisor.wake != Some(at)
        {
            supervisor.wake = Some(at);
            self.at(at, Event::Supervise(host));
        }
        Ok(())
    }

    fn tell(&mut self, host: usize, link: usize, told: Told) -> Checked {
        let now = self.clock().mono;
        let Some(supervisor) = &mut self.hosts[host].supervisor else { return Ok(()) };
        match supervisor.table.tell(&link, told, now) {
            Some(action) => self.act(host, link, action),
            None => Ok(()),
        }
    }

    fn act(&mut self, host: usize, link: usize, action: Action) -> Checked {
        match action {
            Action::Start => {
                self.pids += 1;
                let pid = self.pids;
                self.tell(host, link, Told::Started { pid })?;
                self.links[link].next_pid = Some(pid);
                self.start_link(link)
            }
            Action::TellDrain => self.link_step(link, LinkInput::Drain),
            Action::TellHandOver => self.link_step(link, LinkInput::HandOver),
            Action::Kill(pid) => {
                self.trace(|_| format!("child {pid} of link {link} is killed: it did not end in time"));
                if self.links[link].next_pid == Some(pid) {
                    self.links[link].next_pid = None;
                    return self.exited(link, pid);
                }
                self.end_link(link)
            }
        }
    }

    /// A link's process is no more: its supervisor reaps it, and one that waited for its lock
    /// begins.
    pub fn exited(&mut self, link: usize, pid: u32) -> Checked {
        let host = self.links[link].host;
        let known = self.hosts[host].supervisor.as_ref().and_then(|it| it.table.key_of(pid)) == Some(&link);
        if known {
            if let Some(supervisor) = &mut self.hosts[host].supervisor {
                supervisor.dials.gone(&link);
            }
            self.tell(host, link, Told::Exited)?;
        }
        self.supervise(host)?;
        self.start_link(link)
    }

    /// HUP: the program begins anew, adopts the children that are there, and has them replaced.
    pub fn hup(&mut self, host: usize) -> Checked {
        let now = self.clock().mono;
        let links = self.links_of(host);
        let Some(old) = self.hosts[host].supervisor.take() else { return Ok(()) };
        let mut supervisor = self.new_program();
        for (link, state) in old.table.iter() {
            if let Some(carried) = Carried::from_state(state, now) {
                supervisor.table.adopt(*link, carried.state(now));
            }
        }
        for link in &links {
            supervisor.table.want(*link, now);
        }
        // A program of before this was so leaves nothing of dials.
        if self.random.u32(..4) > 0 {
            supervisor.dials.adopt(old.dials.leave());
        }
        self.hosts[host].supervisor = Some(supervisor);
        self.look_up_names(host);
        self.after(0, SECOND / 10, Event::MoveFiles(host));
        for link in links {
            // Where there are many, some wait long for their turn.
            if self.scenario.weather == Weather::Rough && self.random.bool() {
                let at = self.random.u64(self.now..=self.now.max(FAULTS_END));
                self.at(at, Event::ReplaceChild(link, self.links[link].pid));
            } else {
                self.replace(link)?;
            }
        }
        self.supervise(host)
    }

    fn new_program(&mut self) -> Supervisor {
        self.pids += 1;
        Supervisor { program: self.pids, ..Supervisor::default() }
    }

    /// The supervisor of a link whose process this is, if both are there.
    pub fn supervisor_of(&mut self, link: usize, pid: u32) -> Option<&mut Supervisor> {
        let host = self.links[link].host;
        self.hosts[host].supervisor.as_mut().filter(|it| it.table.key_of(pid) == Some(&link))
    }

    /// A child that was adopted is replaced, unless it has ended meanwhile.
    pub fn replace_child(&mut self, link: usize, pid: u32) -> Checked {
        match self.supervisor_of(link, pid) {
            Some(_) => self.replace(link),
            None => Ok(()),
        }
    }

    /// A link's child is to be followed by another.
    pub fn replace(&mut self, link: usize) -> Checked {
        let deadline = self.clock().mono + Duration::from_micros(DRAIN_TIMEOUT) + GRACE;
        self.tell(self.links[link].host, link, Told::Drain { deadline })
    }

    /// The supervisor is killed: its children see the end of their control sockets, and programs
    /// that were between two children are closed.
    pub fn kill_supervisor(&mut self, host: usize) -> Checked {
        if self.hosts[host].supervisor.take().is_none() {
            return Ok(());
        }
        for link in self.links_of(host) {
            self.links[link].next_pid = None;
            self.lose_passage(link);
            self.link_step(link, LinkInput::Drain)?;
        }
        self.after(0, 2 * SECOND, Event::SupervisorUp(host));
        Ok(())
    }
}
