//! What is done with each link child, as [`super::links`] says: told, replaced, killed; and what it
//! says.

use super::links::{Action, Event, Opened, State};
use super::{Lond, Machine};
use crate::messages::{FromServe, ToServe};
use jiff::Timestamp;
use std::time::Instant;
use supervise::daemon::Role;
use supervise::spawn;

impl Lond {
    pub(super) fn tell(&mut self, m: &mut Machine<'_>, pid: u32, event: Event, now: Instant) {
        if let Some(action) = self.links.tell(pid, event) {
            self.act(m, pid, action, now);
        }
    }

    pub(super) fn act(&mut self, m: &mut Machine<'_>, pid: u32, action: Action, now: Instant) {
        match action {
            Action::Greet(_) => {
                self.say_life(pid, &format!("link open, child {pid}"), now);
                self.greeting.want(now);
            }
            Action::Supersede(older) => {
                self.say_superseded(pid, older, now);
                let deadline = self.drain_deadline(now);
                self.tell(m, older, Event::Replace { deadline }, now);
                self.bound_children_of(pid, now);
            }
            Action::TellReplaced => self.send(m, &pid, &ToServe::Replaced, now),
            Action::TellDrain => self.send(m, &pid, &ToServe::Drain, now),
            Action::Kill => {
                self.say_killed(m, pid, now);
                spawn::kill_now(pid);
            }
        }
    }

    /// A child says something.
    pub(super) fn told(&mut self, m: &mut Machine<'_>, pid: u32, message: FromServe, now: Instant) {
        match message {
            FromServe::Handlers(handlers) => {
                if self.links.handlers(pid, handlers) {
                    self.board.changed();
                }
            }
            FromServe::Pool(status) => self.pool_told(pid, status),
            FromServe::Spoke => self.tell(m, pid, Event::Spoke, now),
            FromServe::Opened { caller, pin, own_pin, wire, sandbox } => {
                if let Some(link) = self.links.get(pid) {
                    self.names.called(&caller, link.remote.ip());
                }
                let opened = Opened { wire, pin, own_pin, sandbox, since: Timestamp::now() };
                self.board.saw(&caller, opened.wire, opened.since);
                self.tell(m, pid, Event::Opened(caller, opened), now);
            }
            FromServe::Closed { why, fault } => self.say_closed(m, pid, &why, fault, now),
            FromServe::Refused { why, key } => self.handshake_refused(m, pid, &why, key.as_deref(), now),
        }
    }

    pub(super) fn say_links(&self) {
        log::info!("{} links, {} in the opening dialogue", self.links.open(), self.links.unopened());
        for (pid, link) in self.links.iter() {
            let state = match link.state {
                State::Opening { .. } => "opening",
                State::Open => "open",
                State::Ending { .. } => "ending",
                State::Killed => "killed",
            };
            log::info!("{}: {state}, from {}, child {pid}", self.name(pid), link.remote);
        }
    }
}
