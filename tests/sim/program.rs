//! The local programs in the simulation: what they ask, and what they make of the answers.

use crate::ledger::{Attempt, Checked};
use crate::link::LinkInput;
use crate::net::Time;
use crate::sabotage::Sabotage;
use crate::scenario::*;
use crate::world::{Event, World};
use lonnet::base::line::Outgoing;
use lonnet::lonc::session::ClientId;
use lonnet::lonc::turn::Read;
use std::collections::VecDeque;

/// A process reads as much of one program in one turn for sure.
const READ_AT_ONCE: usize = 16 << 10;

/// A local program: it sends its messages in their order, over as many connections as it takes.
#[derive(Debug)]
pub struct Program {
    link: usize,
    client: Option<ClientId>,
    connection: u64,
    todo: VecDeque<usize>,
    /// To be written, and written and not read by the broker yet.
    unsent: VecDeque<u8>,
    sent: VecDeque<u8>,
    /// Requests without an answer: message and attempt.
    open: VecDeque<(usize, usize)>,
    /// Answers that it has not read, and the beginning of a line that it has.
    socket: Vec<u8>,
    line: Vec<u8>,
    /// It shut its writing half; and the broker knows.
    shut: bool,
    end_told: bool,
    /// It is connected, and between two processes.
    handed: bool,
    /// Its process was told to end for good then, and owed it so many answers beside those that it
    /// may go without.
    owed: Option<(Time, usize)>,
    /// Answers that it had before their time ([`Sabotage::AcknowledgedEarly`]).
    early: usize,
}

impl Program {
    pub fn new(link: usize, todo: VecDeque<usize>) -> Program {
        Program {
            link,
            client: None,
            connection: 0,
            todo,
            unsent: VecDeque::new(),
            sent: VecDeque::new(),
            open: VecDeque::new(),
            socket: Vec::new(),
            line: Vec::new(),
            shut: false,
            end_told: false,
            handed: false,
            owed: None,
            early: 0,
        }
    }

    pub fn link(&self) -> usize {
        self.link
    }

    /// Whether it is the program that its link process knows by this.
    pub fn is_client(&self, link: usize, id: ClientId) -> bool {
        self.link == link && self.client == Some(id)
    }

    /// As its link process knows it.
    pub fn client(&self) -> Option<ClientId> {
        self.client
    }

    /// Whether it takes more of its answers, in a socket of this size.
    pub fn takes(&self, socket: usize) -> bool {
        self.socket.len() < socket
    }

    /// Whether a process serves it.
    pub fn is_served(&self) -> bool {
        self.client.is_some()
    }

    /// Its process is told to end for good: whatever it has sent whole by now is answered still.
    fn is_drained(&mut self, now: Time) {
        let whole = |bytes: &VecDeque<u8>| bytes.iter().filter(|byte| **byte == b'\n').count();
        if self.owed.is_none() && self.sent.len() < READ_AT_ONCE {
            self.owed = Some((now, whole(&self.unsent)));
        }
    }

    /// Its process has closed its connection, and it has read what there was.
    ///
    /// # Errors
    /// It is owed an answer.
    pub fn is_closed(&self, now: Time) -> Checked {
        match self.owed {
            Some((at, may_lack)) if now < at + DRAIN_TIMEOUT && self.open.len() > may_lack => {
                Err(format!("a program was closed by a drain without its answers: {self:?}"))
            }
            _ => Ok(()),
        }
    }

    pub fn is_let_in(&mut self, id: ClientId) {
        self.client = Some(id);
    }

    pub fn is_handed_over(&mut self) {
        (self.client, self.handed) = (None, true);
    }

    pub fn comes_out(&mut self, id: ClientId) {
        (self.client, self.handed) = (Some(id), false);
    }

    /// Whether there is something of it to be read, or its end.
    pub fn has_sent(&self) -> bool {
        !self.sent.is_empty() || (self.shut && self.unsent.is_empty() && !self.end_told)
    }

    /// The broker reads from it once.
    pub fn is_read(
        &mut self,
        most: usize,
        random: &mut fastrand::Rng,
        hand_on: &mut dyn FnMut(&[u8]),
    ) -> Read {
        if self.sent.is_empty() {
            let ends = self.has_sent();
            self.end_told |= ends;
            return if ends { Read::End } else { Read::Last(0) };
        }
        let most = most.min(self.sent.len());
        let count = if random.u32(..4) == 0 { random.usize(1..=most) } else { most };
        hand_on(&self.sent.drain(..count).collect::<Vec<u8>>());
        if self.has_sent() { Read::Bytes(count) } else { Read::Last(count) }
    }

    pub fn is_done(&self) -> bool {
        self.todo.is_empty() && self.open.is_empty() && self.unsent.is_empty() && self.socket.is_empty()
    }
}

impl World {
    /// A program gets of its answers what its socket takes.
    pub fn write_answers(&mut self, program: usize, client: ClientId, out: &mut Outgoing) {
        self.note_refusals(program, out.bytes());
        let number = self.programs[program].link;
        let receiver = if self.sabotage == Sabotage::AnswerToAnother && self.random.u32(..10) == 0 {
            let other = |it: &Program| it.link == number && it.client.is_some_and(|other| other != client);
            self.programs.iter().position(other).unwrap_or(program)
        } else {
            program
        };
        let count = out.len().min(self.scenario.socket.saturating_sub(self.programs[receiver].socket.len()));
        self.programs[receiver].socket.extend_from_slice(&out.bytes()[..count]);
        out.wrote(count);
        if count > 0 {
            self.after(0, 20 * MILLI, Event::Program(receiver));
        }
    }

    /// What is refused has no place in the order from when that is said, whether or not the program
    /// lives to read it.
    fn note_refusals(&mut self, program: usize, unwritten: &[u8]) {
        let it = &self.programs[program];
        if !self.ledger.may_be_refused.contains(&program) {
            return;
        }
        let said = [it.line.as_slice(), &it.socket, unwritten].concat();
        for (line, (message, attempt)) in said.split(|byte| *byte == b'\n').zip(&it.open) {
            if line == b"con_failed" {
                self.ledger.messages[*message].attempts[*attempt].refused = true;
            }
        }
    }

    /// Whether nothing that this program asks may be lost or refused.
    fn must_be_well(&self, program: usize) -> bool {
        match self.scenario.weather {
            Weather::Calm => true,
            Weather::Gentle => self.links[self.programs[program].link].secure,
            Weather::Rough => false,
        }
    }

    pub fn read_answers(&mut self, program: usize) -> Checked {
        let bytes = std::mem::take(&mut self.programs[program].socket);
        for byte in bytes {
            if byte != b'\n' {
                self.programs[program].line.push(byte);
                continue;
            }
            let line =
                String::from_utf8_lossy(&std::mem::take(&mut self.programs[program].line)).into_owned();
            let Some((message, attempt)) = self.programs[program].open.pop_front() else {
                return Err(format!("program {program} got {line:?} and had asked nothing"));
            };
            let line = match self.sabotage {
                Sabotage::FailureHidden if line == "con_failed" => "con_delayed".to_owned(),
                _ => line,
            };
            let early = self.programs[program].early > 0;
            if early {
                self.programs[program].early -= 1;
            } else {
                self.trace(|_| format!("program {program}: message {message} answered {line:.60}"));
                self.ledger.answered(message, attempt, &line, self.now, self.must_be_well(program))?;
            }
        }
        Ok(())
    }

    /// The connection is gone; what was not answered has an unknown fate. What has a key is asked
    /// again.
    pub fn disconnect(&mut self, program: usize) {
        let it = &mut self.programs[program];
        it.client = None;
        it.handed = false;
        it.owed = None;
        (it.shut, it.end_told) = (false, false);
        it.early = 0;
        it.unsent.clear();
        it.sent.clear();
        it.socket.clear();
        it.line.clear();
        if self.scenario.weather != Weather::Rough && !it.open.is_empty() {
            self.broken = Some(format!("program {program} was closed, and is owed answers: {it:?}"));
        }
        for (message, attempt) in std::mem::take(&mut it.open).into_iter().rev() {
            self.ledger.counts.unknown += 1;
            self.ledger.messages[message].attempts[attempt].unheard = true;
            if self.ledger.messages[message].line.starts_with("critical;key=") {
                it.todo.push_front(message);
            }
        }
        self.after(0, SECOND, Event::Program(program));
    }

    /// A program does something.
    pub fn program(&mut self, program: usize) -> Checked {
        let number = self.programs[program].link;
        self.read_answers(program)?;
        if self.programs[program].handed {
            // It is connected, and notices nothing.
            if !self.programs[program].shut
                && let Some(message) = self.programs[program].todo.pop_front()
            {
                self.ask(program, message);
                self.send_some(program);
            }
            self.after(MILLI, SECOND, Event::Program(program));
            return Ok(());
        }
        if self.programs[program].is_done() {
            return Ok(());
        }
        let waits = self.links[number].door.contains(&program);
        if self.programs[program].client.is_none() && !waits {
            if self.hosts[self.links[number].host].supervisor.is_none() {
                // Nobody listens.
                self.after(MILLI, SECOND, Event::Program(program));
                return Ok(());
            }
            self.links[number].door.push_back(program);
            self.programs[program].connection += 1;
        }
        let client = self.programs[program].client;
        if !self.programs[program].shut {
            for _ in 0..self.random.usize(..3) {
                let Some(message) = self.programs[program].todo.pop_front() else { break };
                self.ask(program, message);
            }
        }
        if !self.programs[program].unsent.is_empty() {
            self.send_some(program);
        } else if client.is_some() && !self.programs[program].shut {
            match self.random.u32(..40) {
                0 => self.programs[program].shut = true,
                1 if self.scenario.weather == Weather::Rough => {
                    self.links[number].lost.extend(client);
                    self.disconnect(program);
                }
                _ => {}
            }
        }
        if !self.programs[program].is_done() {
            let more = self.random.u64(..2 * SECOND);
            self.at(self.now + more, Event::Program(program));
        }
        self.link_step(number, client.map_or(LinkInput::Turn, LinkInput::Program))
    }

    /// It writes at the very moment when its process is told to end: whatever is whole then is
    /// answered still.
    pub fn writes_at_drain(&mut self, program: usize) {
        if self.random.bool()
            && !self.programs[program].shut
            && let Some(message) = self.programs[program].todo.pop_front()
        {
            self.ask(program, message);
            let Program { unsent, sent, .. } = &mut self.programs[program];
            sent.append(unsent);
        }
        self.programs[program].is_drained(self.now);
    }

    /// Writes what it has, in part perhaps.
    fn send_some(&mut self, program: usize) {
        let Program { unsent, sent, .. } = &mut self.programs[program];
        let count =
            if self.random.u32(..4) == 0 { self.random.usize(1..=unsent.len()) } else { unsent.len() };
        sent.extend(unsent.drain(..count));
    }

    fn ask(&mut self, program: usize, message: usize) {
        let connection = self.programs[program].connection;
        let it = &mut self.ledger.messages[message];
        it.attempts.push(Attempt {
            connection,
            at: self.now,
            acknowledged: None,
            refused: false,
            unheard: false,
            delayed: false,
        });
        let attempt = it.attempts.len() - 1;
        let line = it.line.clone();
        let early = self.sabotage == Sabotage::AcknowledgedEarly && it.kind.is_critical();
        if early && self.programs[program].early == self.programs[program].open.len() {
            it.attempts[attempt].acknowledged = Some(self.now);
            self.programs[program].early += 1;
        }
        if let Some((_, may_lack)) = &mut self.programs[program].owed {
            *may_lack += 1;
        }
        self.programs[program].open.push_back((message, attempt));
        self.programs[program].unsent.extend(line.bytes());
        self.programs[program].unsent.push_back(b'\n');
    }
}
