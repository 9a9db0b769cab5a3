//! What goes wrong in the simulation, each kind of it.
//!
//! When, and how often, is the scenario's; what must hold all the same is the ledger's.

use crate::ledger::Checked;
use crate::link::{LinkInput, LinkProcess};
use crate::net::{End, Time};
use crate::sabotage::Sabotage;
use crate::scenario::*;
use crate::world::{Event, World};
use lonnet::base::disk::{Fault, Keep};
use lonnet::lond::Reason;
use std::path::Path;

impl World {
    pub fn trouble(&mut self, trouble: Trouble) -> Checked {
        match trouble {
            Trouble::KillLink(link, None) => self.end_link(link),
            Trouble::KillLink(link, fuse) => {
                if let Some((_, life)) = &self.links[link].process {
                    life.fuse.set(fuse);
                }
                Ok(())
            }
            Trouble::KillChild(host, fuse) => self.kill_some_child(host, fuse),
            Trouble::DrainLink(link) => self.link_step(link, LinkInput::Drain),
            Trouble::DrainChildren(host) => self.finish_children(host, &Reason::Drained),
            Trouble::ListenerDown(host, time) => {
                self.hosts[host].listens_at = (self.now + time).min(FAULTS_END);
                self.finish_children(host, &Reason::Orphaned)
            }
            Trouble::MachineDies(host) => self.machine_dies(host),
            Trouble::DiskFails(host, operation, errno) => {
                self.disk_fails(host, operation, Fault::Fail(errno), FAULTS_END)
            }
            Trouble::DiskDies(host, operation, bytes) => {
                self.disk_fails(host, operation, Fault::Torn(bytes), FAULTS_END)
            }
            Trouble::DiskSick(host, time, errno) => {
                self.disk_fails(host, 0, Fault::FailFrom(errno), (self.now + time).min(FAULTS_END))
            }
            Trouble::DiskFull(host, time) => {
                self.hosts[host].disk.set_free_space(1000);
                self.disk_trouble(host, (self.now + time).min(FAULTS_END))
            }
            Trouble::Partition(from, to, time) => self.part(from, to, time),
            Trouble::Cut(host, silent) => self.cut(host, silent),
            Trouble::Probe(link) => self.probe(link),
            Trouble::Hup(host) => self.hup(host),
            Trouble::Reload(link, other_wire) => {
                self.links[link].other_wire =
                    other_wire && self.hosts[self.links[link].host].supervisor.is_some();
                self.replace(link)
            }
            Trouble::KillSupervisor(host) => self.kill_supervisor(host),
            Trouble::HandlerDies(host) => self.handler_dies(host),
            Trouble::HandlerAway(host, handler, time) => self.handler_goes(host, handler, time),
            Trouble::WipeSpool(link) => {
                self.links[link].wiped = true;
                self.end_link(link)
            }
            Trouble::WipeRecord(host) => self.wipe_record(host),
            Trouble::Mistaken(link, called, time) => {
                self.links[link].mistaken = Some((called, (self.now + time).min(FAULTS_END)));
                // The next connection is one.
                if let Some(conn) = self.links[link].conn {
                    self.close(conn, End::Called, true);
                }
                Ok(())
            }
        }
    }

    fn kill_some_child(&mut self, host: usize, fuse: Option<u32>) -> Checked {
        let alive = self.children_of(host);
        if alive.is_empty() {
            return Ok(());
        }
        let child = alive[self.random.usize(..alive.len())];
        match (fuse, &self.children[child]) {
            (Some(_), Some(it)) => {
                it.life.fuse.set(fuse);
                Ok(())
            }
            (None, _) | (_, None) => self.kill_child(child),
        }
    }

    fn finish_children(&mut self, host: usize, reason: &Reason) -> Checked {
        self.children_of(host).into_iter().try_for_each(|child| self.finish_child(child, reason.clone()))
    }

    fn disk_fails(&mut self, host: usize, operation: usize, fault: Fault, until: Time) -> Checked {
        let disk = &self.hosts[host].disk;
        disk.plan(disk.operations().len() + operation, fault);
        self.disk_trouble(host, until)
    }

    fn part(&mut self, from: usize, to: usize, time: Time) -> Checked {
        let until = (self.now + time).min(FAULTS_END);
        self.partitions.push((from, to, until));
        if self.random.bool() {
            self.partitions.push((to, from, until));
        }
        Ok(())
    }

    /// Every link of a host breaks, or swallows what it is given.
    fn cut(&mut self, host: usize, silent: bool) -> Checked {
        let open = |(number, link): (usize, &LinkProcess)| (link.host == host).then_some(number);
        let links: Vec<usize> = self.links.iter().enumerate().filter_map(open).collect();
        for link in links {
            let Some(conn) = self.links[link].conn else { continue };
            if silent {
                self.conns[conn].to_called.swallows = true;
                self.conns[conn].to_caller.swallows = true;
            } else {
                self.close(conn, End::Called, true);
                let (now, random) = (self.now, &mut self.random);
                // The called side hears of it in its own time.
                self.conns[conn].close(End::Caller, true, now, random);
                self.plan(conn);
            }
        }
        Ok(())
    }

    /// A handler goes with what it was given; what is passed on to it from now on is not taken.
    fn handler_goes(&mut self, host: usize, handler: usize, time: Time) -> Checked {
        let back = (self.now + time).min(FAULTS_END);
        self.hosts[host].away_until[handler] = back;
        self.handler_dies(host)?;
        let found = self.random.u64(..SECOND);
        self.at(back + found, Event::HandlerBack(host, handler));
        self.children_of(host).into_iter().try_for_each(|child| self.child_turn(child))
    }

    /// From now on this host's brokers may refuse what they should store; the disk is well then.
    fn disk_trouble(&mut self, host: usize, until: Time) -> Checked {
        for (number, program) in self.programs.iter().enumerate() {
            if self.links[program.link()].host == host {
                self.ledger.may_be_refused.insert(number);
            }
        }
        self.at(until, Event::DiskWell(host));
        Ok(())
    }

    /// Power is lost: every process is gone, and what was not synced perhaps too.
    pub fn machine_dies(&mut self, host: usize) -> Checked {
        if !std::mem::replace(&mut self.hosts[host].up, false) {
            return Ok(());
        }
        self.hosts[host].supervisor = None;
        let silent = self.random.bool();
        for conn in &mut self.conns {
            if silent && (conn.caller == host || conn.called == host) {
                conn.to_called.swallows = true;
                conn.to_caller.swallows = true;
            }
        }
        for link in 0..self.links.len() {
            if self.links[link].host == host {
                self.links[link].next_pid = None;
                self.lose_passage(link);
                self.end_link(link)?;
            }
        }
        for child in self.children_of(host) {
            self.kill_child(child)?;
        }
        for job in self.jobs.iter_mut().filter(|job| job.host == host) {
            job.alive = false;
        }
        self.ledger.power_lost(host);
        self.machine_died = true;
        self.after(SECOND / 10, 5 * SECOND, Event::MachineUp(host));
        Ok(())
    }

    pub fn machine_up(&mut self, host: usize) {
        let keep = match self.random.u32(..4) {
            0 => Keep::Nothing,
            1 => Keep::All,
            _ => Keep::Some(self.random.u64(..)),
        };
        self.hosts[host].disk.restart(keep);
        self.hosts[host].up = true;
        self.after(0, SECOND, Event::SupervisorUp(host));
    }

    /// A spool that was removed while no process had it.
    pub fn wipe_spool(&mut self, link: usize) {
        let (host, peer) = (self.links[link].host, self.links[link].peer);
        let senders = self.senders(link);
        self.ledger.give_up_unsent(&senders);
        let dir = format!("/spool/h{peer}");
        let epoch = self.hosts[host].disk.files().get(Path::new(&format!("{dir}/epoch"))).cloned();
        self.hosts[host].disk.take_away(Path::new(&dir));
        if let Some(epoch) = epoch.filter(|_| self.sabotage == Sabotage::EpochReused) {
            self.hosts[host].disk.put(Path::new(&format!("{dir}/epoch")), &first_epoch_file(&epoch));
        }
    }

    fn wipe_record(&mut self, host: usize) -> Checked {
        if !self.hosts[host].up {
            return Ok(());
        }
        for child in self.children_of(host) {
            self.kill_child(child)?;
        }
        self.hosts[host].disk.take_away(Path::new("/spool/.received"));
        self.settled.retain(|(_, called, _), _| *called != host);
        for link in 0..self.links.len() {
            if self.links[link].peer == host {
                let senders = self.senders(link);
                self.ledger.forget_runs(&senders);
            }
        }
        Ok(())
    }
}

/// An epoch file with the same epoch and nothing reserved, as of a spool that was wiped and forgot
/// to begin another.
fn first_epoch_file(found: &[u8]) -> Vec<u8> {
    let epoch = String::from_utf8_lossy(&found[..32.min(found.len())]).into_owned();
    let text = format!("{epoch} {:020}", 1);
    format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes())).into_bytes()
}
