//! What is done with each link child, as [`super::links`] says: told, replaced, killed; and what it
//! says.

use super::callers as address;
use super::links::{Action, Event, Link, Opened, State};
use super::refusal_quota::Caller;
use super::{Lond, Machine};
use crate::messages::{FromServe, ToServe};
use base::{HostId, Pin, WireKind};
use config::{BUILTINS, Config};
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
            FromServe::Handlers(mut handlers) => {
                // What a child makes up is kept for nobody.
                handlers.retain(|handler| is_handler(&m.start.config, &handler.name));
                if self.links.handlers(pid, handlers) {
                    self.board.changed();
                }
            }
            FromServe::Pool(status) => self.pool_told(pid, status),
            FromServe::Spoke => self.tell(m, pid, Event::Spoke, now),
            FromServe::Opened { caller, pin, own_pin, wire, sandbox } => {
                let opened = Opened { wire, pin, own_pin, sandbox, since: Timestamp::now() };
                self.has_opened(m, pid, caller, opened, now);
            }
            FromServe::Closed { why, fault } => self.say_closed(m, pid, &why, fault, now),
            FromServe::Refused { why, key } => self.handshake_refused(m, pid, &why, key.as_deref(), now),
        }
    }

    /// A child says who calls. It is believed once, and as far as this process can know it: whoever
    /// took one over can still say that it is a host whose pin is known, but not that it is one
    /// that has none, nor another on the classic wire than its address says, nor that its caller is
    /// another by now.
    fn has_opened(&mut self, m: &mut Machine<'_>, pid: u32, caller: HostId, opened: Opened, now: Instant) {
        let Some(link) = self.links.get(pid) else { return };
        let (state, remote) = (link.state, link.remote);
        let doubt = match state {
            State::Opening { .. } => self.doubt(&m.start.config, link, &caller, &opened),
            State::Open if link.caller.as_ref() == Some(&caller) => return,
            State::Open => Some("its caller is known already"),
            // It was told to end meanwhile.
            State::Ending { .. } | State::Killed => return,
        };
        if let Some(why) = doubt {
            let text = format!("child {pid}, of {remote}, says that its caller is {caller}: {why}; killed");
            let known = Caller::at(remote.ip().to_canonical(), None);
            if let Some(line) = self.voice.failures.line(&known, why, &text, now) {
                log::error!("{line}");
            }
            return self.tell(m, pid, Event::Kill, now);
        }
        self.names.called(&caller, remote.ip());
        self.board.saw(&caller, opened.wire, opened.since);
        self.tell(m, pid, Event::Opened(caller, opened), now);
    }

    /// Why it cannot be as a child says, if it cannot.
    fn doubt(&self, config: &Config, link: &Link, caller: &HostId, opened: &Opened) -> Option<&'static str> {
        if config.hosts.get(caller).is_none() {
            return Some("no host of the table");
        }
        let pin = opened.pin.as_deref().and_then(|pin| pin.parse::<Pin>().ok());
        match opened.wire {
            WireKind::Secure => {
                let is_its = pin.is_some_and(|pin| config.pins.who(&pin) == Some(caller));
                (!is_its).then_some("the pin that it names is not that host's")
            }
            WireKind::Classic if !config.lond.classic => Some("the classic wire is refused"),
            WireKind::Classic => match self.callers.of(config, link.remote.ip()) {
                address::Caller::Known(host) if host == *caller => None,
                // By its name; that is the child's to look up.
                address::Caller::Unaddressed => {
                    let by_name = config.hosts.get(caller).is_some_and(|host| host.address.is_none());
                    (!by_name).then_some("its address is not that host's")
                }
                address::Caller::Known(_) | address::Caller::Stranger => {
                    Some("its address is not that host's")
                }
            },
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

fn is_handler(config: &Config, name: &str) -> bool {
    BUILTINS.contains(&name) || config.handlers.iter().any(|handler| handler.name == name)
}
