//! The world of a child of `lond` in the simulation: its caller's end of a virtual connection, and
//! the handlers that it asks.

use crate::child::{Child, Said, SimLink, Wire};
use crate::ledger::Checked;
use crate::link::Sink;
use crate::lond::message_of;
use crate::net::{End, Time};
use crate::recorder::Note;
use crate::sabotage::Sabotage;
use crate::scenario::*;
use crate::wiretap::Mistaken;
use crate::world::{Answers, Event, World};
use lonnet::lond::handler::{Reply, Ticket};
use lonnet::lond::secure::Recalled;
use lonnet::lond::service::{Effect, Order};
use lonnet::lond::turn::Io;
use lonnet::net::ReadOutcome;
use std::io;
use std::time::Instant;

/// The most that a child may have waiting for its caller: the cores' own mark, and a frame or an
/// answer beyond it.
const MOST_OUT: usize = (1 << 20) + 2 * MAX_LINE + (256 << 10);
/// Bytes taken from a session that may wait to be written.
const OUT_FULL: usize = 256 * 1024;
/// What a child answers for a handler that is gone.
const HANDLER_GONE: &[u8] = b"error:the handler is gone; it is not known what was done";

/// What a turn of a child is made with.
pub struct ChildIo<'a> {
    pub world: &'a mut World,
    pub number: usize,
    pub child: &'a mut Child,
    /// What must not be and was seen.
    pub wrong: Checked,
}

impl Io<SimLink> for ChildIo<'_> {
    fn read_handlers(&mut self, link: &mut SimLink, _: Instant) {
        self.take_notes();
        for (ticket, said) in std::mem::take(&mut self.child.said) {
            match said {
                Said::Answer(answer) => link.answer(ticket, Reply::Answer(answer.as_bytes())),
                Said::Gone => link.answer(ticket, Reply::Broken(HANDLER_GONE)),
            }
        }
    }

    fn is_link_readable(&self) -> bool {
        let Some(conn) = self.child.conn.filter(|_| !self.is_dead()) else { return false };
        let pipe = &self.world.conns[conn].to_called;
        pipe.reset || !pipe.arrived.is_empty() || (pipe.ended && !self.child.end_told)
    }

    fn read_link(&mut self, link: &mut SimLink, now: Instant) -> io::Result<ReadOutcome> {
        self.take_notes();
        let Some(conn) = self.child.conn.filter(|_| !self.is_dead()) else { return Ok(ReadOutcome::Nothing) };
        let world = &mut *self.world;
        let pipe = world.conns[conn].input(End::Called);
        if pipe.reset {
            self.child.conn = None;
            world.close(conn, End::Called, false);
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if pipe.arrived.is_empty() {
            self.child.end_told |= pipe.ended;
            return Ok(if pipe.ended { ReadOutcome::End } else { ReadOutcome::Nothing });
        }
        let count = world.random.usize(1..=pipe.arrived.len());
        let bytes: Vec<u8> = world.conns[conn].to_called.arrived.drain(..count).collect();
        link.push(&bytes, now);
        self.child.heard = world.now;
        world.room_made(conn, End::Caller);
        Ok(ReadOutcome::Bytes(count))
    }

    fn carry_out(&mut self, link: &mut SimLink, effect: Effect, _: Instant) -> io::Result<()> {
        self.take_notes();
        if !self.is_dead() && self.wrong.is_ok() {
            self.wrong = self.decided(link, effect);
        }
        Ok(())
    }

    fn hold_critical(&mut self, hold: bool) {
        self.child.held = hold;
    }

    fn ask_handlers(&mut self, link: &mut SimLink, _: Instant) {
        self.take_notes();
        if !self.is_dead() {
            self.pass_on(link);
        }
    }

    fn write_link(&mut self, link: &mut SimLink, _: Instant) -> io::Result<()> {
        self.take_notes();
        if !self.is_dead() && self.wrong.is_ok() {
            self.wrong = self.write(link).map(drop);
        }
        Ok(())
    }

    fn close_link(&mut self) {
        if let Some(conn) = self.child.conn.take_if(|_| !self.child.life.dead.get()) {
            self.world.close(conn, End::Called, false);
        }
    }

    fn rest(&mut self, _: &mut SimLink, _: Instant) {
        self.take_notes();
    }
}

impl ChildIo<'_> {
    /// Whether the child's process, or its machine, died just now.
    pub fn is_dead(&self) -> bool {
        self.child.life.dead.get() || self.world.hosts[self.child.host].disk.is_dead()
    }

    /// Writes what there is to the caller, as far as there is room; how much that was.
    pub fn write(&mut self, link: &mut SimLink) -> Result<usize, String> {
        let now = self.world.clock().mono;
        let mut written = 0;
        loop {
            if let Wire::Secure(session) = &mut link.wire
                && link.out.len() < OUT_FULL
            {
                session.fill(now);
                let frames = session.outgoing();
                link.out.tail().extend_from_slice(frames.bytes());
                frames.clear();
            }
            let Some(conn) = self.child.conn else { return Ok(written) };
            let mut sink = Sink { world: self.world, conn, from: End::Called };
            let out = match &mut link.wire {
                Wire::Secure(_) => &mut link.out,
                Wire::Classic(serve) => serve.outgoing(),
            };
            let before = out.len();
            // It fails with nothing but that there is no room.
            out.flush_to(&mut sink).unwrap_or(false);
            let (left, moved) = (out.len(), out.take_moved());
            if let Wire::Secure(session) = &mut link.wire
                && moved
            {
                session.moved(now);
                self.child.heard = self.world.now;
            }
            if left > MOST_OUT {
                return Err(format!("{left} bytes wait for the caller"));
            }
            if left == before {
                return Ok(written);
            }
            written += before - left;
            self.world.plan(conn);
        }
    }

    fn decided(&mut self, link: &mut SimLink, effect: Effect) -> Checked {
        let number = self.number;
        match effect {
            Effect::Opened => return self.link_opened(),
            Effect::Ask { handler, ticket, order, request, .. } => {
                let text = text_of(&request);
                if let (Some(sequence), Some(message)) =
                    (self.child.sequences.get(&ticket), message_of(&text))
                {
                    self.child.by_sequence.insert(*sequence, message);
                }
                match order {
                    Order::Kept | Order::Once => {
                        self.child.handlers[handler].waiting.push_back((ticket, text));
                    }
                    Order::Free if self.world.is_away(self.child.host, handler) => {
                        self.not_taken(link, ticket, &text);
                    }
                    Order::Free => {
                        self.child.handlers[handler].plain.push_back((ticket, text));
                    }
                }
            }
            Effect::Withdraw { ticket, .. } => {
                let waiting = |child: &Child| -> usize {
                    child.handlers.iter().map(|handler| handler.waiting.len() + handler.plain.len()).sum()
                };
                let before = waiting(self.child);
                for handler in &mut self.child.handlers {
                    handler.waiting.retain(|(waiting, _)| *waiting != ticket);
                    handler.plain.retain(|(waiting, _)| *waiting != ticket);
                }
                let withdrawn = waiting(self.child) < before;
                if let Wire::Secure(session) = &mut link.wire
                    && withdrawn
                    && self.world.sabotage != Sabotage::WithdrawnKept
                {
                    session.withdrawn(ticket);
                }
            }
            Effect::Refused(barred) => {
                return Err(format!("{barred:?} is refused, and everybody may ask all"));
            }
            Effect::AskBack(ticket) | Effect::Load(ticket) => link.answer(ticket, Reply::Answer(b"0")),
            Effect::Log { ticket, text } => {
                let text = text_of(&text);
                let message = text.parse().map_err(|_| format!("log of {text:?}"))?;
                self.world.trace(|_| format!("child {number} logs message {message}"));
                self.world.ledger.run(message, number, self.child.host, self.world.certain)?;
                if let Some(sequence) = self.child.sequences.get(&ticket).copied() {
                    self.child.by_sequence.insert(sequence, message);
                }
                link.answer(ticket, Reply::Answer(b"ok"));
            }
            Effect::Shut => {
                // The last words go first.
                self.write(link)?;
                if let Some(conn) = self.child.conn {
                    let (time, random) = (self.world.now, &mut self.world.random);
                    self.world.conns[conn].shut(End::Called, time, random);
                    self.world.plan(conn);
                }
            }
        }
        Ok(())
    }

    /// The supervisor tells an older link of the same caller to end.
    fn link_opened(&mut self) -> Checked {
        let number = self.number;
        self.child.opened = true;
        if let Some(Mistaken::Caller(other)) = self.child.mistaken {
            let caller = self.child.caller;
            return Err(format!("child {number} serves h{caller}, which says that it is h{other}"));
        }
        for (other, older) in self.world.children.iter_mut().enumerate() {
            let Some(older) = older else { continue };
            let same = older.host == self.child.host && older.caller == self.child.caller;
            if same && older.opened && !older.replaced {
                older.replaced = true;
                self.world.replace_later.push(other);
            }
        }
        for other in std::mem::take(&mut self.world.replace_later) {
            self.world.after(100, 50 * MILLI, Event::Replaced(other));
        }
        Ok(())
    }

    // The handlers.

    /// Gives the handler what it takes ahead.
    fn pass_on(&mut self, link: &mut SimLink) {
        let (number, host) = (self.number, self.child.host);
        let windows = self.world.scenario.windows();
        for (handler, window) in windows.into_iter().enumerate() {
            let (depth, held) = match (&link.wire, self.world.sabotage) {
                (Wire::Classic(_), _) | (Wire::Secure(_), Sabotage::PassedOnEarly) => {
                    (self.world.scenario.handler_depth, false)
                }
                (Wire::Secure(_), Sabotage::WindowIgnored) if window > 1 => (usize::MAX, self.child.held),
                (Wire::Secure(_), _) => (window, self.child.held),
            };
            let order = match &link.wire {
                Wire::Secure(_) if window > 1 => Answers::InAnyOrder,
                Wire::Secure(_) | Wire::Classic(_) => Answers::InOrder,
            };
            if self.world.is_away(host, handler) {
                self.give_back(link, handler);
            }
            let ChildIo { world, child, .. } = self;
            while child.handlers[handler].passed.len() < depth && !held && !world.is_away(host, handler) {
                let waiting = &mut child.handlers[handler].waiting;
                let next = match world.sabotage {
                    Sabotage::WindowUnordered if order == Answers::InAnyOrder => waiting.pop_back(),
                    _ => waiting.pop_front(),
                };
                let Some((ticket, text)) = next else { break };
                let job = world.job(number, host, ticket, text, order);
                // One after the other: none before those that it was given earlier.
                let pause = world.handler_pause();
                let to = &mut child.handlers[handler];
                to.passed.push_back(job);
                to.busy_until = (world.now + pause).max(to.busy_until);
                world.at(to.busy_until, Event::Run(job));
            }
            while child.handlers[handler].asked.len() < world.scenario.handler_places
                && let Some((ticket, text)) = child.handlers[handler].plain.pop_front()
            {
                let job = world.job(number, host, ticket, text, Answers::Beside);
                child.handlers[handler].asked.push(job);
                let due = world.now + world.handler_pause();
                world.at(due, Event::Run(job));
            }
        }
    }

    /// What waits for a handler that is away: all of it goes back, since none may overtake the
    /// first.
    fn give_back(&mut self, link: &mut SimLink, handler: usize) {
        let to = &mut self.child.handlers[handler];
        let waiting: Vec<_> = to.waiting.drain(..).chain(to.plain.drain(..)).collect();
        for (ticket, text) in waiting {
            self.not_taken(link, ticket, &text);
        }
    }

    fn not_taken(&mut self, link: &mut SimLink, ticket: Ticket, text: &str) {
        let world = &mut *self.world;
        world.trace(|_| format!("{text:?} is not taken"));
        world.ledger.counts.not_taken += 1;
        let critical = self.child.sequences.contains_key(&ticket);
        if let Some(message) = message_of(text).filter(|_| !critical) {
            // The answer is all that there will be.
            world.ledger.messages[message].given_up = true;
        }
        let reply = match world.sabotage {
            Sabotage::NotTakenAnswered => Reply::Broken(b"error:the handler is away"),
            _ => Reply::NotTaken("the handler is away"),
        };
        link.answer(ticket, reply);
    }

    /// Looks at what was asked of the child's record.
    fn take_notes(&mut self) {
        let dead = self.is_dead();
        let ChildIo { world, number, child, .. } = self;
        let notes = std::mem::take(&mut *child.notes.borrow_mut());
        for note in notes {
            match note {
                Note::Opened(epoch, mark, durable) => {
                    if !durable {
                        world.broken = Some(format!("child {number} answers from what is not synced"));
                    }
                    world.recovered(child.caller, child.host);
                    opened(world, child, epoch, mark);
                }
                Note::NotOpened => child.trouble = true,
                Note::Looked { ticket, sequence, settled, found } => {
                    child.sequences.insert(ticket, sequence);
                    child.settled = child.settled.max(settled);
                    child.trouble |= matches!(found, Recalled::Failed(_) | Recalled::NoRoom(_));
                    world
                        .trace(|_| format!("child {number}: {sequence}, settled below {settled}: {found:?}"));
                    if matches!(found, Recalled::NoRoom(_)) {
                        child.no_room_since.get_or_insert(world.now);
                    } else if !matches!(found, Recalled::Failed(_)) {
                        child.no_room_since = None;
                    }
                }
                // Even if the process dies before it hears that this is recorded.
                Note::Writing(answers) => {
                    for (sequence, text) in answers {
                        if let Some(message) = child.by_sequence.get(&sequence) {
                            world.ledger.give_up(*message, &text);
                        }
                    }
                }
                note => noted(world, (*number, child), note),
            }
        }
        let is_well = !dead && child.unrecorded_since.is_none();
        if child.unsynced.len() >= world.scenario.unsynced() && is_well {
            let count = child.unsynced.len();
            world.broken = Some(format!("child {number} has {count} answers written and not synced"));
        }
    }
}

/// What became of answers that were to be written and synced.
fn noted(world: &mut World, (number, child): (usize, &mut Child), note: Note) {
    match note {
        Note::Synced(None) => {}
        Note::NotDurable => {
            world.broken = Some(format!("child {number} answers what it could not sync"));
        }
        Note::Written(sequences, None) => {
            for message in sequences.iter().filter_map(|sequence| child.by_sequence.get(sequence)) {
                world.ledger.perhaps_written(*message);
            }
        }
        Note::Written(_, Some(false)) | Note::Synced(Some(false)) => {
            child.trouble = true;
            child.unrecorded_since.get_or_insert(world.now);
        }
        Note::Written(sequences, Some(true)) => {
            for message in sequences.iter().filter_map(|sequence| child.by_sequence.get(sequence)) {
                world.ledger.recorded(*message, number);
            }
            child.floor_written.get_or_insert(child.settled);
            child.unsynced.extend(sequences);
        }
        Note::Synced(Some(true)) => {
            child.unrecorded_since = None;
            let noted = world.settled.entry((child.caller, child.host, child.epoch.clone()));
            let noted = noted.or_default();
            // Where it was in trouble, what was written again may have been there already.
            let floor = child.floor_written.take().filter(|_| !child.trouble);
            *noted = (*noted).max(floor.unwrap_or_default());
            for sequence in std::mem::take(&mut child.unsynced) {
                if let Some(message) = child.by_sequence.get(&sequence) {
                    world.ledger.synced(*message, number);
                }
            }
        }
        Note::Opened(..) | Note::NotOpened | Note::Looked { .. } | Note::Writing(_) => {}
    }
}

/// The child has opened its record.
fn opened(world: &mut World, child: &mut Child, epoch: String, mark: u64) {
    world.trace(|_| format!("a link of h{} begins with epoch {epoch}", child.caller));
    // While a handler is away less is settled for it than for others.
    let away = |(_, trouble): &(Time, Trouble)| matches!(trouble, Trouble::HandlerAway(..));
    let plain = !world.scenario.troubles.iter().any(away);
    let noted = world.settled.get(&(child.caller, child.host, epoch.clone())).copied();
    if let Some(below) = noted.filter(|below| plain && mark + 1 < *below) {
        world.broken = Some(format!(
            "the record of h{} says that all up to {mark} is settled, and all below {below} was",
            child.caller
        ));
    }
    // What it was told before, and could not write, it has forgotten.
    (child.epoch, child.settled) = (epoch, 0);
}

fn text_of(request: &[u8]) -> String {
    String::from_utf8_lossy(request).into_owned()
}
