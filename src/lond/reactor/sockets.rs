//! The sockets of a link child, as its [`Turn`](crate::turn::Turn) uses them: the caller's
//! and the handlers'.

use super::handlers::Handler;
use super::room::Room;
use super::secure_link::SecureLink;
use super::wire::Wire;
use super::{Known, Sockets, service};
use crate::keeper::Keeper;
use crate::messages::FromServe;
use crate::secure::{self, Secure};
use crate::service::Effect;
use crate::turn::Io;
use base::line::READ_SIZE;
use base::{HostId, Pin};
use net::{ReadOutcome, Stream};
use std::io;
use std::time::Instant;
use supervise::places::child_holder;
use supervise::title;

impl Io<Wire> for Sockets {
    fn read_handlers(&mut self, wire: &mut Wire, now: Instant) {
        let Some(Known { handlers, tally, .. }) = &mut self.known else { return };
        let mut room = Room::beside(handlers.iter().flat_map(Handler::begun));
        for (number, handler) in handlers.iter_mut().enumerate() {
            let wanted = wire.wants_answers_from(number);
            handler.read(wanted, &mut room, &mut self.scratch, now, &mut |ticket, reply| {
                tally.replied(number, &reply);
                wire.answer(ticket, reply);
            });
        }
    }

    fn is_link_readable(&self) -> bool {
        self.link.as_ref().is_some_and(Stream::readable)
    }

    fn read_link(&mut self, wire: &mut Wire, now: Instant) -> io::Result<ReadOutcome> {
        let Some(link) = &mut self.link else { return Ok(ReadOutcome::Nothing) };
        let outcome = link.read(self.scratch.get_mut(..self.read_size).unwrap_or_default())?;
        if let ReadOutcome::Bytes(count) = outcome {
            self.receive(wire, count, now);
        }
        Ok(outcome)
    }

    fn carry_out(&mut self, wire: &mut Wire, effect: Effect, now: Instant) -> io::Result<()> {
        self.do_as_decided(wire, effect, now)
    }

    fn hold_critical(&mut self, hold: bool) {
        for handler in self.known.iter_mut().flat_map(|known| &mut known.handlers) {
            handler.hold_critical(hold);
        }
    }

    fn ask_handlers(&mut self, wire: &mut Wire, now: Instant) {
        let Some(known) = &mut self.known else { return };
        let Known { handlers, tally, .. } = known;
        for (number, handler) in handlers.iter_mut().enumerate() {
            handler.write(&self.registry, &mut self.scratch, now, &mut |ticket, reply| {
                tally.replied(number, &reply);
                wire.answer(ticket, reply);
            });
            if handler.take_back() {
                wire.handler_back(number);
            }
        }
        known.ask_back.work(&self.registry, &mut self.scratch, now, &mut |ticket, answer| {
            wire.asked_back(ticket, answer);
        });
    }

    fn write_link(&mut self, wire: &mut Wire, now: Instant) -> io::Result<()> {
        match &mut self.link {
            Some(link) => wire.flush(link, now),
            None => Ok(()),
        }
    }

    fn close_link(&mut self) {
        self.link = None;
    }

    fn rest(&mut self, wire: &mut Wire, now: Instant) {
        if let Some(Known { handlers, .. }) = &mut self.known {
            let room = Room::beside(handlers.iter().flat_map(Handler::begun));
            for (number, handler) in handlers.iter_mut().enumerate() {
                handler.pause(wire.wants_answers_from(number), &room, now);
            }
        }
        self.report_handlers(wire, now);
    }
}

impl Sockets {
    /// Whether there is something to be read from handlers, or to be passed on to them.
    pub(super) fn handlers_have_work(&self, wire: &Wire, now: Instant) -> bool {
        let handlers = || self.known.iter().flat_map(|known| &known.handlers);
        let room = Room::beside(handlers().flat_map(Handler::begun));
        handlers()
            .enumerate()
            .any(|(number, handler)| handler.has_work(wire.wants_answers_from(number), &room, now))
    }

    /// When there is something to be done if nothing happens before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let known = self.known.as_ref()?;
        let others = [known.ask_back.deadline(), known.tally.deadline()];
        known.handlers.iter().filter_map(Handler::deadline).chain(others.into_iter().flatten()).min()
    }

    /// Tells the supervisor how the handlers do, if there is news.
    fn report_handlers(&mut self, wire: &Wire, now: Instant) {
        let Some(Known { handlers, tally, .. }) = &mut self.known else { return };
        for (number, handler) in handlers.iter().enumerate() {
            tally.stands(number, handler.reachable(), wire.awaits(number));
        }
        if let Some(report) = tally.report(now)
            && let Err(error) = self.control.send(&FromServe::Handlers(report))
        {
            log::debug!("tell the supervisor how the handlers do: {error}");
        }
    }

    /// Takes what was read into the buffer.
    fn receive(&mut self, wire: &mut Wire, count: usize, now: Instant) {
        let bytes = &self.scratch[..count];
        match wire {
            Wire::Classic(session) => session.push(bytes),
            Wire::Secure(link) => {
                if let Some((caller, pin)) = link.receive(bytes, now) {
                    self.authenticated(link, &caller, pin, now);
                }
            }
        }
    }

    /// The caller has proved who it is: only now is there anything for it.
    fn authenticated(&mut self, link: &mut SecureLink, caller: &HostId, pin: Pin, now: Instant) {
        let (Some(directory), own) = (&self.directory, &self.settings) else { return };
        let Some(host) = directory.hosts().get(caller) else {
            return link.refuse(format!("{caller} is not in {}", directory.hosts_file().display()), now);
        };
        self.ledger.log_for(caller, now);
        title::set(&format!("{caller} opening"));
        self.confined.forget_key(directory);
        if let Err(error) = self.confined.narrow(&own.spool_dir, caller) {
            log::error!("{error}");
            return link.refuse(format!("its link is not served: {error}"), now);
        }
        let settings = secure::Settings {
            service: service(own, host),
            max_line: own.max_line,
            window: own.window,
            heartbeat: own.heartbeat,
            heartbeat_missed: own.heartbeat_missed,
            unsynced: secure::UNSYNCED_MOST,
            drain_timeout: own.drain_timeout,
        };
        self.known = Some(Known::new(own, caller, Some(pin), now));
        let keeper = Keeper::new(&own.spool_dir, caller).signed(child_holder("lond", &own.run_dir));
        let only = self.confined.only(&own.spool_dir, caller);
        let keeper = keeper.with_above(self.confined.above()).confined_to(only);
        link.open(Secure::new(settings, keeper, self.opening_deadline, now), now);
        // It holds what was just read, and all that was taken.
        self.read_size = READ_SIZE;
    }
}
