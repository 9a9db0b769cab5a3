//! The dials of link processes in the simulation: the real questions of a child
//! (`lonc::resolve`), the real answers of its supervisor (`lonc::dials`), and between them the time
//! that they take and what is lost.
//!
//! An answer is lost with the supervisor, and at HUP of a program that leaves none to the next;
//! what is asked of a program is heard by the next one. Half of the links know their peer by name:
//! looking it up takes a moment, or longer than a dial may.

use crate::ledger::Checked;
use crate::link::{LinkInput, id_of};
use crate::sabotage::Sabotage;
use crate::scenario::*;
use crate::world::{Event, World};
use lonnet::config::Target;
use lonnet::lonc::dials::Reply;
use lonnet::lonc::resolve::Resolver;
use lonnet::lonc::turn::Dialled;
use std::net::SocketAddr;

/// Longest time that a look-up takes: more than a dial, and less than two.
const SLOW: u64 = 8 * SECOND;
/// Dials in a row, of one process and under one program, whose question is not answered: of two
/// look-ups, each longer than a dial, the first may be answered just when the next dial asks anew.
const MOST_IN_VAIN: u32 = 3;

/// What a link process knows of its dials.
#[derive(Debug, Default)]
pub struct Asking {
    resolver: Resolver,
    /// The last question, and whether its answer is to come.
    number: u64,
    waits: bool,
    /// An answer came between two dials.
    late: bool,
    /// Of the last dial: the supervisor's program when it began, and whether its question was
    /// answered.
    program: Option<u32>,
    answered: bool,
    in_vain: u32,
}

impl Asking {
    pub fn give_up(&mut self) {
        self.resolver.give_up();
    }
}

fn address_of(host: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host as u8], 5663))
}

/// How a host's peers know it.
fn target_of(host: usize, by_name: bool) -> Target {
    match by_name {
        true => Target::Lookup { name: id_of(host).to_string(), port: 5663 },
        false => Target::Address(address_of(host)),
    }
}

impl World {
    /// A link process dials.
    pub fn begin_dial(&mut self, link: usize) -> Checked {
        let program = self.hosts[self.links[link].host].supervisor.as_ref().map(|it| it.program);
        let (sabotage, pid) = (self.sabotage, self.links[link].pid);
        let asking = &mut self.links[link].asking;
        let in_vain = !asking.answered && program.is_some() && asking.program == program;
        asking.in_vain = if in_vain { asking.in_vain + 1 } else { 0 };
        if asking.in_vain > MOST_IN_VAIN {
            return Err(format!("link {link} dials again and again and is told no address"));
        }
        (asking.program, asking.answered) = (program, false);
        let late = std::mem::take(&mut asking.late);
        match asking.resolver.begin() {
            Ok(found) => {
                asking.answered = true;
                self.ask_connection(link, found.number);
            }
            Err(_) if late => return Err(format!("link {link} forgot what was found between two dials")),
            Err(_) if sabotage == Sabotage::LostAnswerAwaited && asking.waits => {}
            Err(number) => {
                (asking.number, asking.waits) = (number, true);
                self.after(0, 2 * MILLI, Event::AskAddresses(link, pid, number));
            }
        }
        Ok(())
    }

    fn ask_connection(&mut self, link: usize, number: u64) {
        let (pid, dial) = (self.links[link].pid, self.links[link].dial);
        self.after(0, 2 * MILLI, Event::AskConnection(link, pid, dial, number));
    }

    /// A child's question has come to its supervisor, if there is one.
    pub fn asked_addresses(&mut self, link: usize, pid: u32, number: u64) {
        let (host, now) = (self.links[link].host, self.clock().mono);
        let target = target_of(self.links[link].peer, link.is_multiple_of(2));
        let Some(supervisor) = self.supervisor_of(link, pid) else { return };
        if let Some(reply) = supervisor.dials.asked(&link, number, Some(&target), now) {
            self.reply(&reply);
        }
        self.look_up_names(host);
    }

    /// Begins the look-ups that may run.
    pub fn look_up_names(&mut self, host: usize) {
        while let Some(supervisor) = &mut self.hosts[host].supervisor {
            let program = supervisor.program;
            let Some(name) = supervisor.dials.next_name() else { break };
            let called = (0..self.hosts.len()).find(|it| id_of(*it).as_str() == name);
            let slow = self.scenario.weather == Weather::Rough && self.now < FAULTS_END;
            let most = if slow && self.random.u32(..4) == 0 { SLOW } else { 50 * MILLI };
            self.after(MILLI, most, Event::LookedUp(host, program, called.unwrap_or(host)));
        }
    }

    /// A look-up has ended, if its supervisor's program is still there.
    pub fn looked_up(&mut self, host: usize, program: u32, called: usize) {
        let supervisor = self.hosts[host].supervisor.as_mut().filter(|it| it.program == program);
        let Some(supervisor) = supervisor else { return };
        let mut found = address_of(called);
        found.set_port(0);
        for reply in supervisor.dials.found(id_of(called).as_str(), &Ok(vec![found])) {
            self.reply(&reply);
        }
        self.look_up_names(host);
    }

    fn reply(&mut self, reply: &Reply<usize>) {
        let pid = self.links[reply.child].pid;
        let found = reply.answer.as_ref().ok().and_then(|found| found.first().copied());
        self.after(0, 2 * MILLI, Event::Addresses(reply.child, pid, reply.number, found));
    }

    /// An answer has come to a child.
    pub fn addresses(&mut self, link: usize, pid: u32, number: u64, found: Option<SocketAddr>) -> Checked {
        if self.links[link].pid != pid || self.links[link].process.is_none() {
            return Ok(());
        }
        let sabotage = self.sabotage;
        let asking = &mut self.links[link].asking;
        if asking.number == number {
            (asking.waits, asking.answered) = (false, true);
        }
        let answer = found.map(|found| vec![found]).ok_or("asked too often".to_owned());
        match asking.resolver.answered(number, answer) {
            Some(Ok(found)) => {
                self.ask_connection(link, found.number);
                Ok(())
            }
            Some(Err(why)) => self.link_step(link, LinkInput::Dialled(Dialled::Failed(why))),
            None => {
                asking.late |= asking.number == number && found.is_some();
                if sabotage == Sabotage::LateAnswerForgotten {
                    asking.resolver = Resolver::default();
                }
                Ok(())
            }
        }
    }

    /// A child's wish to be connected has come to its supervisor.
    pub fn asked_connection(&mut self, link: usize, pid: u32, dial: u64, number: u64) -> Checked {
        let (peer, now) = (self.links[link].peer, self.clock().mono);
        let Some(supervisor) = self.supervisor_of(link, pid) else { return Ok(()) };
        match supervisor.dials.connect(&link, number, 0, now) {
            Ok(address) if address != address_of(peer) => {
                Err(format!("link {link} is connected to {address}, which is not its peer"))
            }
            Ok(_) => {
                self.after(MILLI, 50 * MILLI, Event::Dialled(link, dial));
                Ok(())
            }
            Err(_) => {
                self.after(0, 2 * MILLI, Event::NotBegun(link, dial));
                Ok(())
            }
        }
    }

    /// A child hears that its connection could not be begun.
    pub fn not_begun(&mut self, link: usize, dial: u64) -> Checked {
        let it = &self.links[link];
        if it.dial != dial || it.process.is_none() || it.conn.is_some() {
            return Ok(());
        }
        self.link_step(link, LinkInput::Dialled(Dialled::Failed("not begun".to_owned())))
    }
}
