//! What is on its way in the simulated network: deliveries, dials, and who is woken by them.

use crate::ledger::Checked;
use crate::link::LinkInput;
use crate::net::{Conn, End, Fate, Time};
use crate::scenario::*;
use crate::wiretap::Mistaken;
use crate::world::{Event, World};
use lonnet::lonc::turn::Dialled;

impl World {
    /// Plans the deliveries of a connection.
    pub fn plan(&mut self, conn: usize) {
        for called in [false, true] {
            let end = if called { End::Called } else { End::Caller };
            let due = self.conns[conn].input(end).travelling.front().map(|(due, _)| *due);
            if let Some(due) = due
                && self.planned.insert((conn, called, due))
            {
                self.at(due, Event::Deliver(conn, called));
            }
        }
    }

    fn parted(&self, from: usize, to: usize) -> Option<Time> {
        let parted =
            self.partitions.iter().filter(|(a, b, until)| *a == from && *b == to && *until > self.now);
        parted.map(|(_, _, until)| *until).max()
    }

    pub fn deliver(&mut self, conn: usize, called: bool) -> Checked {
        self.planned.retain(|(of, to, due)| *of != conn || *to != called || *due > self.now);
        let end = if called { End::Called } else { End::Caller };
        let (caller, called_host) = (self.conns[conn].caller, self.conns[conn].called);
        let (from, to) = if called { (caller, called_host) } else { (called_host, caller) };
        if let Some(until) = self.parted(from, to) {
            // The kernels send it again until it passes.
            self.at(until + 200 * MILLI, Event::Deliver(conn, called));
            return Ok(());
        }
        let any = self.conns[conn].deliver(end, self.now);
        self.plan(conn);
        if !any {
            return Ok(());
        }
        match end {
            End::Called => {
                match self.children.iter().position(|c| c.as_ref().is_some_and(|c| c.conn == Some(conn))) {
                    Some(child) => self.child_turn(child),
                    None => Ok(()),
                }
            }
            End::Caller => match self.links.iter().position(|link| link.conn == Some(conn)) {
                Some(link) => self.link_step(link, LinkInput::Turn),
                None => Ok(()),
            },
        }
    }

    /// The other end has read, so there is room: whoever waits to write is woken.
    pub fn room_made(&mut self, conn: usize, writer: End) {
        let at = self.now + 100;
        match writer {
            End::Caller => {
                if let Some(link) = self.links.iter().position(|link| link.conn == Some(conn)) {
                    self.wake_link(link, at);
                }
            }
            End::Called => {
                if let Some(child) =
                    self.children.iter().position(|c| c.as_ref().is_some_and(|c| c.conn == Some(conn)))
                {
                    self.wake_child(child, at);
                }
            }
        }
    }

    pub fn wake_link(&mut self, link: usize, at: Time) {
        if self.links[link].wake.is_none_or(|planned| planned > at) {
            self.links[link].wake = Some(at);
            self.at(at, Event::WakeLink(link));
        }
    }

    pub fn wake_child(&mut self, child: usize, at: Time) {
        let Some(it) = self.children[child].as_mut() else { return };
        if it.wake.is_none_or(|planned| planned > at) {
            it.wake = Some(at);
            self.at(at, Event::WakeChild(child));
        }
    }

    pub fn close(&mut self, conn: usize, end: End, reset: bool) {
        let (now, random) = (self.now, &mut self.random);
        self.conns[conn].close(end, reset, now, random);
        self.plan(conn);
    }

    pub fn dialled(&mut self, link: usize, dial: u64) -> Checked {
        let it = &self.links[link];
        if it.dial != dial || it.process.is_none() || it.conn.is_some() {
            return Ok(());
        }
        let (caller, mut called, secure) = (it.host, it.peer, it.secure);
        let mut mistaken = None;
        if let Some((of_called, _)) = it.mistaken.filter(|(_, until)| secure && *until > self.now) {
            let known =
                |other| self.scenario.links.iter().any(|(from, to, _)| (*from, *to) == (caller, other));
            if of_called {
                // One that this host has no other link with: its own address may lead back to
                // itself.
                mistaken = Some(Mistaken::Called(called));
                called = (0..self.hosts.len()).find(|&it| it != called && !known(it)).unwrap_or(caller);
            } else {
                mistaken = (0..3).find(|&other| other != caller && other != called).map(Mistaken::Caller);
            }
        }
        if self.parted(caller, called).is_some()
            || self.parted(called, caller).is_some()
            || !self.hosts[called].up
        {
            // Nothing comes back; the caller's own deadline ends it.
            return Ok(());
        }
        if self.hosts[called].listens_at > self.now {
            return self.link_step(link, LinkInput::Dialled(Dialled::Failed("refused".to_owned())));
        }
        let mut fate = None;
        if self.now < FAULTS_END {
            let breaks = self.random.u32(..100) < self.scenario.breaking_percent;
            let swallows = self.random.u32(..100) < self.scenario.swallowing_percent;
            if breaks || swallows {
                let from = if self.random.bool() { End::Caller } else { End::Called };
                let bytes = self.random.usize(1..3000);
                let one_way = self.random.bool();
                fate = Some(Fate { from, bytes, silent: !breaks, one_way });
            }
        }
        let conn = self.conns.len();
        self.conns.push(Conn::new(caller, called, self.scenario.capacity, self.scenario.delay, fate, secure));
        if let Some(wiretap) = &mut self.conns[conn].wiretap {
            wiretap.mistaken = mistaken;
        }
        self.links[link].conn = Some(conn);
        self.accept(conn, caller, called, secure);
        self.link_step(link, LinkInput::Dialled(Dialled::Connected))
    }
}
