//! `lonsvc`'s supervisor: the program of each `[service.<name>]`, started by fork and exec, and
//! started again with growing pauses. What it has in common with other supervisors is in
//! [`supervise::daemon`].
//!
//! A program is told to end by TERM, and killed with all of its process group when its
//! `drain_timeout` is over; whatever it has left of its group goes with it. A reload replaces the
//! programs whose service is another one now; HUP replaces all, a few at a time. USR1 ends the
//! pauses. One that has ended and is not to be started again stays so until its service changes.
//!
//! Started as root, it keeps root, for services that have a user of their own, and acts with the
//! rights of `user` over files; a service with no user of its own gets that one for good.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `services` | what is done with each program, as the table says; what is known of it |
//! | `inheritance` | HUP: another program, under the same pid |

// Whatever comes from outside, a supervisor goes on: nothing here may panic.
#![deny(clippy::indexing_slicing, clippy::string_slice)]

mod inheritance;
mod services;

pub use inheritance::Own;

use super::messages::{FromProgram, ToProgram};
use base::clock::moved;
use base::logging;
use config::Config;
use jiff::{SignedDuration, Timestamp};
use net::Token;
use services::{Known, Replace};
use status::{self, ServicesSnapshot};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use supervise::daemon::{self, DaemonError, Inheritance, Role};
use supervise::exec_state::Descriptors;
use supervise::own_key::OwnKey;
use supervise::publish::{self, uptime};
use supervise::startup::{self, Rights, Start};
use supervise::table::{Event, Table};
use supervise::{spawn, title};

type Machine<'a> = daemon::Machine<'a, Lonsvc>;

/// The program `lonsvc`.
pub fn main() -> ExitCode {
    startup::main_with("lonsvc", Rights::Kept, serve)
}

/// Serves until told to stop.
///
/// # Errors
/// As [`daemon::serve`].
pub fn serve(start: &mut Start<Inheritance<Own>>) -> Result<(), DaemonError> {
    daemon::serve(start, |ground| {
        Ok(Lonsvc {
            board: publish::Board::new(ground.started, &doing(ground.config), ground.now),
            table: Table::default(),
            services: BTreeMap::new(),
            replacing: VecDeque::new(),
        })
    })
}

fn doing(config: &Config) -> String {
    format!("supervisor, {} services", config.services.len())
}

/// See the head of this file.
struct Lonsvc {
    board: publish::Board,
    /// Where each program stands.
    table: Table<String>,
    /// Every service of the configuration, and those whose programs have not ended yet.
    services: BTreeMap<String, Known>,
    /// Programs that are to be replaced, if they have not ended before.
    replacing: VecDeque<Replace>,
}

impl Role for Lonsvc {
    const PROGRAM: &'static str = "lonsvc";
    const FILES: &'static [&'static str] = &["lonsvc.json"];
    /// What a status tells is known here.
    const REPORTS: bool = false;
    type Key = String;
    type Tell = ToProgram;
    type Hear = FromProgram;
    type Own = Own;

    fn board(&self) -> &publish::Board {
        &self.board
    }

    fn board_mut(&mut self) -> &mut publish::Board {
        &mut self.board
    }

    fn begin(&mut self, m: &mut Machine<'_>, left: Option<(Own, Descriptors)>, now: Instant) {
        let count = m.start.config.services.len();
        let services = format!("{count} service{}", if count == 1 { "" } else { "s" });
        match left {
            Some((left, mut descriptors)) => {
                log::info!("started anew, {services}");
                self.adopt(m, left, &mut |number| descriptors.take(number), now);
            }
            None => log::info!("started, {services}"),
        }
        self.want_all(&m.start.config.clone(), now);
        title::set(self.board.doing());
    }

    fn turn(&mut self, m: &mut Machine<'_>, now: Instant) {
        self.replace_in_turn(m, now);
        while let Some((name, action)) = self.table.due(now) {
            self.act(m, &name, action, now);
        }
    }

    fn deadline(&self, _now: Instant) -> Option<Instant> {
        self.table.next_deadline()
    }

    fn ready(&mut self, _m: &mut Machine<'_>, _token: Token, _now: Instant) {}

    /// Programs that wait for their next start are started now.
    fn probe(&mut self, m: &mut Machine<'_>, now: Instant) {
        log::info!("seeing after every service");
        for name in self.names() {
            self.tell(m, &name, Event::Hurry, now);
        }
    }

    fn heard(&mut self, _m: &mut Machine<'_>, name: &String, message: FromProgram, _now: Instant) {
        let FromProgram::NotStarted(why) = message;
        log::error!("{name}: start its program: {why}");
        self.note_error(name, format!("start its program: {why}"));
    }

    /// It is the program now, or has ended.
    fn lost(&mut self, _m: &mut Machine<'_>, _name: &String, _now: Instant) {}

    /// Why, was said.
    fn kill(&mut self, _m: &mut Machine<'_>, name: &String, now: Instant) {
        self.kill_broken(name, now);
    }

    fn key_of(&self, pid: u32) -> Option<String> {
        self.table.key_of(pid).cloned()
    }

    fn ended(&mut self, m: &mut Machine<'_>, name: &String, pid: u32, end: spawn::End, now: Instant) {
        self.program_ended(m, name, pid, end, now);
    }

    fn control_name(&self, name: &String) -> String {
        format!("{name}: control socket")
    }

    /// What a program says goes to a log that it has open itself.
    fn follow_log(&mut self, _m: &mut Machine<'_>, _now: Instant) {}

    fn reload(
        &mut self,
        m: &mut Machine<'_>,
        config: Arc<Config>,
        key: OwnKey,
        now: Instant,
    ) -> Result<String, Vec<String>> {
        Ok(self.change(m, config, key, now))
    }

    fn clock_was_set(&mut self, step: SignedDuration) {
        for known in self.services.values_mut() {
            known.since = moved(known.since, step);
            known.last_error = known.last_error.take().map(|(error, at)| (error, moved(at, step)));
        }
    }

    fn snapshot(&self, config: &Config, now: Timestamp) -> String {
        status::json(&ServicesSnapshot {
            program: Self::PROGRAM.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            id: config.id.clone(),
            pid: std::process::id(),
            started: self.board.started(),
            written: now,
            written_uptime: uptime(),
            doing: self.board.doing().to_owned(),
            not_restarted: self.board.failure(),
            last_log: logging::last_line(),
            services: self.statuses(now),
        })
    }

    fn files(&self, config: &Config, now: Timestamp) -> Vec<String> {
        vec![self.snapshot(config, now) + "\n"]
    }

    fn leave(&self, m: &Machine<'_>, now: Instant) -> io::Result<Own> {
        self.leave_all(m, now)
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    fn longest_drain(&self, config: &Config) -> Duration {
        let drains = config.services.iter().map(|service| service.drain_timeout);
        drains
            .chain(self.services.values().map(|known| known.service.drain_timeout))
            .max()
            .unwrap_or_default()
    }

    fn close_doors(&mut self, _m: &mut Machine<'_>) {
        self.replacing.clear();
    }

    /// Each has its own time, which is within the deadline.
    fn drain_all(&mut self, m: &mut Machine<'_>, _deadline: Instant, now: Instant) {
        for name in self.names() {
            let deadline = now + self.drain_timeout(&name);
            self.tell(m, &name, Event::Retire { deadline }, now);
        }
    }

    fn kill_all(&mut self, _m: &mut Machine<'_>, now: Instant) {
        for (name, pid) in self.table.kill_all(now) {
            services::kill(&name, pid, "there is no time");
        }
    }

    fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    fn stopped(&mut self, _config: &Config) {
        for (name, state) in self.table.iter() {
            log::error!("{name}: program {:?} is still there", state.pid());
        }
        let now = Timestamp::now();
        self.services.values_mut().for_each(|known| known.stop(now));
    }
}
