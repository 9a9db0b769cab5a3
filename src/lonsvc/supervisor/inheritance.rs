//! HUP: what a `lonsvc` leaves to the one that follows it, beside what every program leaves, and
//! how that one takes it over.

use super::services::{Known, Replace};
use super::{Lonsvc, Machine};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::time::{Duration, Instant};
use supervise::control;
use supervise::table::{self, Event};

/// What is known of the services.
#[derive(Debug, Serialize, Deserialize)]
pub struct Own {
    /// Every one of them.
    pub services: Vec<LeftService>,
}

/// A service, and its program, which goes on while the program of its supervisor is replaced.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeftService {
    /// What it is called.
    pub name: String,
    /// What it was, as a number: of one that is another now, nothing counts but that its program is
    /// to end.
    pub mark: u32,
    /// Where its program stands, if it runs.
    pub state: Option<table::Carried>,
    /// The control socket of a child that is not its program yet.
    pub control: Option<(RawFd, control::Carried)>,
    /// How long it may take to end.
    pub drain: Duration,
    /// How often it was started.
    pub starts: u64,
    /// What went wrong last.
    pub last_error: Option<(String, Timestamp)>,
    /// It has ended, and is not to be started again.
    pub over: bool,
}

impl Lonsvc {
    pub(super) fn leave_all(&self, m: &Machine<'_>, now: Instant) -> io::Result<Own> {
        let mut services = Vec::new();
        for (name, known) in &self.services {
            let state = self.table.state(name).and_then(|state| table::Carried::from_state(state, now));
            services.push(LeftService {
                name: name.clone(),
                mark: mark(known),
                state,
                control: m.controls.leave(name)?,
                drain: known.service.drain_timeout,
                starts: known.starts,
                last_error: known.last_error.clone(),
                over: known.over,
            });
        }
        Ok(Own { services })
    }

    /// Takes over what the program before `exec` left: every program that runs, to be replaced in
    /// turn.
    pub(super) fn adopt(
        &mut self,
        m: &mut Machine<'_>,
        left: Own,
        take: &mut impl FnMut(RawFd) -> Option<OwnedFd>,
        now: Instant,
    ) {
        let config = m.start.config.clone();
        for LeftService { name, mark: before, state, control, drain, starts, last_error, over } in
            left.services
        {
            let service = config.services.iter().find(|service| service.name == name);
            if let Some(service) = service {
                let mut known = Known::new(service.clone());
                (known.starts, known.last_error) = (starts, last_error);
                known.over = over && mark(&known) == before;
                self.services.insert(name.clone(), known);
            }
            let Some(state) = state else { continue };
            self.table.adopt(name.clone(), state.state(now));
            if let Some((number, carried)) = control
                && let Some(fd) = take(number)
            {
                let token = m.tokens.fresh();
                let resumed = m.controls.resume(name.clone(), (fd, carried), m.poll.registry(), token);
                resumed.unwrap_or_else(|error| log::error!("{name}: take over its control socket: {error}"));
            }
            if service.is_some() {
                self.replacing.push_back(Replace { name, pid: state.pid, drain });
            } else {
                log::info!("{name} is no longer a service: its program ends");
                self.tell(m, &name, Event::Retire { deadline: now + drain }, now);
            }
        }
    }
}

/// Tells a service from another one of its name.
fn mark(known: &Known) -> u32 {
    crc32fast::hash(format!("{:?}", known.service).as_bytes())
}
