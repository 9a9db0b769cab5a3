//! What a link process of `lonc` has of the simulated world: its turn is the product's own, over
//! this.
//!
//! A process that has died in the middle of a turn does nothing more that anybody could see.

use crate::disk::Life;
use crate::link::Sink;
use crate::net::End;
use crate::sabotage::Sabotage;
use crate::world::World;
use lonnet::base::Credentials;
use lonnet::base::line::Outgoing;
use lonnet::lonc::handover::Passage;
use lonnet::lonc::link::Now;
use lonnet::lonc::session::{ClientId, Rest};
use lonnet::lonc::turn::{Accepted, Dialled, HandedOver, Io, Read};
use lonnet::status::PeerStatus;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

/// See the module.
pub struct LinkIo<'a> {
    pub world: &'a mut World,
    pub number: usize,
    pub life: Rc<Life>,
    /// What programs have sent is not seen ([`Sabotage::DrainedUnread`]).
    pub deaf: bool,
}

impl LinkIo<'_> {
    /// Whether the process, or its machine, died just now.
    pub fn is_dead(&self) -> bool {
        let host = self.world.links[self.number].host;
        self.life.dead.get() || self.world.hosts[host].disk.is_dead()
    }

    fn program(&self, id: ClientId) -> Option<usize> {
        self.world.programs.iter().position(|it| it.is_client(self.number, id))
    }

    /// A promise that was broken, where the turn cannot be told.
    fn broken(&mut self, checked: Result<(), String>) {
        if let Err(why) = checked {
            self.world.broken.get_or_insert(why);
        }
    }

    fn is_lost(&mut self, id: ClientId) -> bool {
        let lost = &mut self.world.links[self.number].lost;
        let before = lost.len();
        lost.retain(|it| *it != id);
        lost.len() < before
    }

    fn garble<'r>(&self, mut rest: Rest<'r>) -> Rest<'r> {
        match self.world.sabotage {
            Sabotage::UnreadForgotten => rest.unread = b"".as_slice().into(),
            Sabotage::AnswersForgotten => rest.unsent = b"".as_slice().into(),
            Sabotage::HandedTwice => rest.unread = [&*rest.unread, &*rest.unread].concat().into(),
            _ => {}
        }
        rest
    }
}

impl LinkIo<'_> {
    fn try_hand_over(&mut self, programs: Vec<(ClientId, Rest<'_>)>) -> io::Result<()> {
        // Where the supervisor is gone nobody reads at the other end.
        let link = &mut self.world.links[self.number];
        if self.world.hosts[link.host].supervisor.is_none() || self.is_dead() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let link = &mut self.world.links[self.number];
        if link.passage.is_none() {
            link.passage = Some(Passage::new()?);
        }
        let Some(passage) = &link.passage else { return Err(io::ErrorKind::NotFound.into()) };
        let handover = passage.handover()?;
        // No bytes pass through these: what programs read and write is kept here.
        let (stream, _) = UnixStream::pair()?;
        // As a child has them: it waits at none.
        stream.set_nonblocking(true)?;
        let known = programs.into_iter().filter(|(id, _)| self.program(*id).is_some());
        let with_streams: Vec<_> = known.map(|(_, rest)| (stream.as_fd(), self.garble(rest))).collect();
        handover.send(&with_streams)
    }
}

impl Io for LinkIo<'_> {
    fn may_accept(&self) -> bool {
        !self.world.links[self.number].door.is_empty() && !self.is_dead()
    }

    fn accepts_again(&mut self, _: Now) {}

    fn accept(&mut self, _: Now) -> Accepted {
        let door = &self.world.links[self.number].door;
        match door.front().filter(|_| self.may_accept()) {
            Some(program) => Accepted::Waiting { who: Credentials::of_user(self.world.user_of(*program)) },
            None => Accepted::Nobody,
        }
    }

    fn let_in(&mut self, id: ClientId) -> bool {
        let Some(program) = self.world.links[self.number].door.pop_front() else { return false };
        self.world.trace(|_| format!("program {program} is let in"));
        self.world.programs[program].is_let_in(id);
        true
    }

    fn turn_away(&mut self) {
        self.broken(Err(format!("link {}: a program was turned away", self.number)));
    }

    fn pause_accepting(&mut self, cause: &io::Error, _: Now) {
        self.broken(Err(format!("link {}: accept: {cause}", self.number)));
    }

    fn is_readable(&self, id: ClientId) -> bool {
        if self.deaf || self.is_dead() {
            return false;
        }
        let lost = self.world.links[self.number].lost.contains(&id);
        lost || self.program(id).is_some_and(|program| self.world.programs[program].has_sent())
    }

    fn read(&mut self, id: ClientId, most: usize, hand_on: &mut dyn FnMut(&[u8])) -> Read {
        if self.is_dead() {
            return Read::Last(0);
        }
        if self.is_lost(id) {
            return Read::Gone;
        }
        let Some(program) = self.program(id) else { return Read::Gone };
        let World { programs, random, .. } = &mut *self.world;
        programs[program].is_read(most, random, hand_on)
    }

    fn write(&mut self, id: ClientId, out: &mut Outgoing) -> bool {
        if self.is_dead() {
            return true;
        }
        match self.program(id) {
            Some(program) => {
                self.world.write_answers(program, id, out);
                true
            }
            None => false,
        }
    }

    fn close(&mut self, id: ClientId) {
        if self.is_dead() {
            return;
        }
        self.is_lost(id);
        if let Some(program) = self.program(id) {
            let read = self.world.read_answers(program);
            self.broken(read);
            let closed = self.world.programs[program].is_closed(self.world.now);
            self.broken(closed);
            self.world.disconnect(program);
        }
    }

    /// The way to the next process is there at once, or never comes.
    fn may_hand_over(&mut self, _: Now) -> bool {
        true
    }

    fn hand_over(&mut self, programs: Vec<(ClientId, Rest<'_>)>, _: Now) -> HandedOver {
        match self.try_hand_over(programs) {
            Ok(()) => HandedOver::Gone,
            Err(error) => HandedOver::Stay(error),
        }
    }
    fn let_go(&mut self, id: ClientId) {
        self.is_lost(id);
        if let Some(program) = self.program(id) {
            self.world.trace(|_| format!("program {program} is handed over"));
            self.world.programs[program].is_handed_over();
            self.world.links[self.number].passing.push_back(program);
        }
    }

    fn is_link_readable(&self) -> bool {
        let Some(conn) = self.world.links[self.number].conn else { return false };
        let pipe = &self.world.conns[conn].to_caller;
        !self.is_dead() && (!pipe.arrived.is_empty() || pipe.ended)
    }

    fn read_link(&mut self, hand_on: &mut dyn FnMut(&[u8])) -> Result<usize, String> {
        let world = &mut *self.world;
        let Some(conn) = world.links[self.number].conn else { return Ok(0) };
        let pipe = world.conns[conn].input(End::Caller);
        if pipe.reset {
            pipe.arrived.clear();
        }
        if pipe.arrived.is_empty() {
            return if pipe.ended { Err("closed by the peer".to_owned()) } else { Ok(0) };
        }
        let count = world.random.usize(1..=pipe.arrived.len());
        let mut bytes: Vec<u8> = pipe.arrived.drain(..count).collect();
        if world.sabotage == Sabotage::AnswerTwice
            && !world.links[self.number].secure
            && world.random.u32(..8) == 0
        {
            let whole = bytes.iter().position(|byte| *byte == b'\n').map(|at| bytes[..=at].to_vec());
            if let Some(line) = whole.filter(|line| line.starts_with(b"done:")) {
                bytes.splice(0..0, line);
            }
        }
        hand_on(&bytes);
        world.links[self.number].watch.heard = world.now;
        world.room_made(conn, End::Called);
        Ok(count)
    }

    fn write_link(&mut self, out: &mut Outgoing, moved: &mut bool) -> Result<usize, String> {
        let dead = self.is_dead();
        let Some(conn) = self.world.links[self.number].conn.filter(|_| !dead) else { return Ok(0) };
        let before = out.len();
        // It fails with nothing but that there is no room.
        out.flush_to(&mut Sink { world: self.world, conn, from: End::Caller }).unwrap_or(false);
        *moved = out.take_moved();
        if *moved {
            self.world.links[self.number].watch.heard = self.world.now;
        }
        if out.len() < before {
            self.world.plan(conn);
        }
        Ok(before - out.len())
    }

    fn dial(&mut self, _: Now) {
        if self.is_dead() {
            return;
        }
        let noted = self.world.note_dial(self.number);
        self.broken(noted);
        let begun = self.world.begin_dial(self.number);
        self.broken(begun);
    }

    fn dialled(&mut self, _: Now) -> Dialled {
        self.world.links[self.number].news.take().unwrap_or(Dialled::UnderWay)
    }

    fn link_opened(&mut self) {}

    fn hang_up(&mut self, out: &mut Outgoing) {
        if self.is_dead() {
            return;
        }
        if self.world.links[self.number].secure {
            // Nothing depends on it.
            let _ = self.write_link(out, &mut false);
        }
        self.world.hang_up(self.number, false);
    }

    fn delivered(&mut self, requests: &[Vec<u8>], _: Now) {
        for request in requests {
            if self.is_dead() {
                return;
            }
            let delivered = self.world.ledger.delivered(request);
            self.world.broken = self.world.broken.take().or(delivered.err());
        }
    }

    fn report(&mut self, _: Option<u64>, _: PeerStatus) {}

    fn flush_reports(&mut self) {}
}
