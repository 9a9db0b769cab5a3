//! `lonc`'s supervisor: a child for each peer, their listening sockets, the watch over the delayed
//! directory.
//!
//! Owns every listening Unix socket for as long as it runs, through any number of HUPs and reloads:
//! a child that dies or is replaced leaves its peer's socket open, and who connects meanwhile waits
//! for the next child. A peer whose socket cannot be made is an error in the log and in the status,
//! and tried again; the others are served. What it has in common with other supervisors is in
//! [`supervise::daemon`].
//!
//! | file | what it owns |
//! | --- | --- |
//! | `children` | what is done with each child, as the table says |
//! | `dialling` | what children ask for their dials: their peers' addresses, connections |
//! | `listening` | the local sockets of the peers |
//! | `handovers` | when children hand their programs over, a few at a time |
//! | `order` | whose child is begun, and replaced, before whose |
//! | `passages` | the ways of connected programs to the next child |
//! | `watch` | notices files that are dropped into the delayed directory |
//! | `dropped` | moves them into the folders of the peers that they are for |
//! | `board` | the last status of each link, and the files that show them |
//! | `reload` | another configuration, in the same process |
//! | `inheritance` | HUP: another program, under the same pid |

// Whatever comes from outside, a supervisor goes on: nothing here may panic.
#![deny(clippy::indexing_slicing, clippy::string_slice)]

mod board;
mod children;
mod dialling;
mod dropped;
mod handovers;
mod inheritance;
mod listening;
mod order;
mod passages;
mod reload;
mod watch;

pub use inheritance::Own;
pub use supervise::daemon::GRACE;

use super::entry::{self, Seed};
use super::messages::{FromLink, ToLink};
use super::sessions::MAX_CLIENTS;
use super::settings::Links;
use base::HostId;
use board::Board;
use children::Replace;
use config::Config;
use dialling::Dialling;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use listening::Sockets;
use net::Token;
use passages::Passages;
use status::{self, LinkState};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::spool::Arrivals;
use supervise::daemon::{self, DaemonError, Inheritance, Role};
use supervise::exec_state::Descriptors;
use supervise::limit::{Tiers, raise_descriptor_limit};
use supervise::names::Names;
use supervise::own_key::OwnKey;
use supervise::sandbox::{self, Calls};
use supervise::startup::{self, Start};
use supervise::table::{Action, Event, State, Table};
use supervise::{publish, spawn, title};
use watch::{Lookout, Watch};

/// Children on their way out at a time while all are replaced: the others serve meanwhile.
pub const REPLACED_AT_ONCE: usize = 16;
/// Children forked, told or killed in one turn of the loop, so that signals are heard while
/// thousands start.
const ACTIONS_A_TURN: usize = 64;
/// Children forked together, so that what this process writes between two forks costs each of them
/// a part of it; each needs three descriptors here meanwhile.
const FORKED_AT_ONCE: usize = 16;

/// Descriptors that the supervisor needs for each peer: its socket, a control socket, and while its
/// child is replaced the two ends of a passage.
const DESCRIPTORS_A_PEER: u64 = 4;

/// Descriptors that a child has at most: its programs', those of a dial, and some for its spool.
const DESCRIPTORS_A_CHILD: u64 = MAX_CLIENTS as u64 + 128;

const WATCH: Token = Token(daemon::FIRST_OF_ROLE);

/// Where a child begins: [`entry::run`].
pub type Entry = fn(Seed) -> !;

type Machine<'a> = daemon::Machine<'a, Lonc>;

/// The program `lonc`.
pub fn main() -> ExitCode {
    startup::main("lonc", |start| serve(start, entry::run))
}

/// Serves until told to stop.
///
/// # Errors
/// As [`daemon::serve`].
pub fn serve(start: &mut Start<Inheritance<Own>>, entry: Entry) -> Result<(), DaemonError> {
    daemon::serve(start, |ground| {
        raise_descriptor_limit(ground.config.peers.len(), DESCRIPTORS_A_PEER);
        sandbox::prepare(Calls::Accepts);
        Ok(Lonc {
            tiers: Tiers::of_this_process(DESCRIPTORS_A_CHILD),
            entry,
            links: Links::new(ground.config.clone(), ground.key.clone()),
            table: Table::default(),
            sockets: Sockets::default(),
            passages: Passages::default(),
            board: Board::new(ground.config, ground.started, ground.now),
            lookout: Lookout::default(),
            dialling: Dialling::default(),
            replacing: VecDeque::new(),
            later: order::unwell_before(&ground),
            run_names: Names::default(),
            spool_names: Names::default(),
        })
    })
}

/// See the head of this file.
struct Lonc {
    /// How many descriptors children may have.
    tiers: Tiers,
    entry: Entry,
    /// What the links depend on.
    links: Links,
    /// Where each child stands.
    table: Table<HostId>,
    sockets: Sockets,
    passages: Passages,
    board: Board,
    lookout: Lookout,
    dialling: Dialling,
    /// Children that are to be replaced, if they have not ended before.
    replacing: VecDeque<Replace>,
    /// At a start: whose links were not well when the program before this one ended.
    later: BTreeSet<HostId>,
    /// Where the peers' sockets are.
    run_names: Names,
    /// Where their folders are.
    spool_names: Names,
}

impl Role for Lonc {
    const PROGRAM: &'static str = "lonc";
    const FILES: &'static [&'static str] = &["loncstatus.txt", "status.json"];
    const REPORTS: bool = true;
    type Key = HostId;
    type Tell = ToLink;
    type Hear = FromLink;
    type Own = Own;

    fn board(&self) -> &publish::Board {
        self.board.common()
    }

    fn board_mut(&mut self) -> &mut publish::Board {
        self.board.common_mut()
    }

    fn begin(&mut self, m: &mut Machine<'_>, left: Option<(Own, Descriptors)>, now: Instant) {
        let serves = left.is_some();
        if let Some((left, mut descriptors)) = left {
            self.take_over_watch(m, left.watch, &mut |number| descriptors.take(number));
            self.adopt(m, left, &mut |number| descriptors.take(number), now);
        }
        self.listen_where_missing(m, now);
        self.keep_folders(m, now);
        self.keep_watch(m);
        // Said when every socket is there: whoever waits for this line finds them.
        if !serves {
            let links = m.start.config.peers.len();
            self.later.clear();
            log::info!("started, {links} link{}", if links == 1 { "" } else { "s" });
        }
        title::set(self.board.common().doing());
    }

    fn turn(&mut self, m: &mut Machine<'_>, now: Instant) {
        if self.lookout.again {
            self.look_for_files(m, now);
        }
        // Before a child is started: after a loss of power a later file may be in its folder, and
        // an earlier one not.
        self.move_dropped(m, now);
        if self.sockets.again.is_some_and(|at| at <= now) {
            self.listen_where_missing(m, now);
        }
        self.replace_in_turn(m, now);
        self.tell_untold(m, now);
        if !m.is_stopping() {
            self.look_up_in_turn(m, now);
        }
        for _ in 0..ACTIONS_A_TURN {
            match self.table.due(now) {
                Some((_, Action::Start)) => {
                    let peers = self.table.to_start(now, FORKED_AT_ONCE);
                    self.start_all(m, &peers, now);
                }
                Some((peer, action)) => self.act(m, &peer, action, now),
                None => break,
            }
        }
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        let files = [self.lookout.again.then_some(now), self.lookout.arrivals.deadline(now)];
        let others = [self.table.next_deadline(), self.sockets.again, self.dialling.deadline()];
        files.into_iter().chain(others).flatten().min()
    }

    fn ready(&mut self, m: &mut Machine<'_>, token: Token, now: Instant) {
        if !self.hear_look_up(m, token, now) {
            self.lookout.again |= token == WATCH;
        }
    }

    /// Every link is seen after now: those that wait for a child get it, the others a probe.
    fn probe(&mut self, m: &mut Machine<'_>, now: Instant) {
        log::info!("seeing after every link");
        self.listen_where_missing(m, now);
        for peer in self.peers() {
            self.tell(m, &peer, Event::Hurry, now);
            self.send(m, &peer, &ToLink::Probe, now);
        }
    }

    fn heard(&mut self, m: &mut Machine<'_>, peer: &HostId, message: FromLink, now: Instant) {
        let (report, status) = match message {
            FromLink::Status { report, status } => (report, status),
            FromLink::HandsOver => return self.wants_to_hand_over(m, peer, now),
            FromLink::LookUp { number } => return self.asked_addresses(m, peer, number, now),
            FromLink::Connect { attempt, number, place } => {
                return self.begin_connection(m, peer, (attempt, number, place), now);
            }
        };
        if status.peer != *peer {
            log::error!("{peer}: its child speaks for {}", status.peer);
            // None of ours does that, and its next word would be no better.
            self.kill(m, peer, now);
            return;
        }
        self.board.note(*status);
        // It says so only when it has taken over what there was.
        if let Some(State::Running { .. }) = self.table.state(peer) {
            self.passages.taken(peer);
        }
        if let Some(number) = report {
            m.admin.reported(peer, number);
        }
    }

    fn lost(&mut self, m: &mut Machine<'_>, peer: &HostId, now: Instant) {
        let deadline = now + drain_timeout(&m.start.config, peer) + GRACE;
        self.tell(m, peer, Event::Lost { deadline }, now);
    }

    fn kill(&mut self, m: &mut Machine<'_>, peer: &HostId, now: Instant) {
        self.tell(m, peer, Event::Kill, now);
    }

    fn key_of(&self, pid: u32) -> Option<HostId> {
        self.table.key_of(pid).cloned()
    }

    fn ended(&mut self, m: &mut Machine<'_>, peer: &HostId, pid: u32, end: spawn::End, now: Instant) {
        self.dialling.dials.gone(peer);
        self.tell(m, peer, Event::Exited, now);
        self.say_ended(peer, pid, end, now);
    }

    fn ended_beside(&mut self, m: &mut Machine<'_>, pid: u32, now: Instant) -> bool {
        self.look_up_ended(m, pid, now)
    }

    fn control_name(&self, peer: &HostId) -> String {
        format!("{peer}: control socket")
    }

    fn follow_log(&mut self, m: &mut Machine<'_>, now: Instant) {
        self.peers().iter().for_each(|peer| self.send(m, peer, &ToLink::LogAnew, now));
    }

    fn log_moved(&mut self, m: &mut Machine<'_>, _now: Instant) {
        self.replace(m, &self.peers(), &m.start.config.clone());
    }

    fn ask_report(&mut self, m: &mut Machine<'_>, peer: &HostId, number: u64, now: Instant) {
        self.send(m, peer, &ToLink::Report(number), now);
    }

    fn reload(
        &mut self,
        m: &mut Machine<'_>,
        config: Arc<Config>,
        key: OwnKey,
        now: Instant,
    ) -> Result<String, Vec<String>> {
        Ok(self.change(m, config, key, now))
    }

    fn keep(&mut self, m: &mut Machine<'_>, back: &mut Vec<PathBuf>, now: Instant) {
        self.keep_sockets(m, back, now);
    }

    fn kept(&mut self, m: &mut Machine<'_>, now: Instant) {
        self.tell_listeners(m, now);
        self.keep_folders(m, now);
        self.keep_watch(m);
    }

    fn clock_was_set(&mut self, step: SignedDuration) {
        self.board.clock_was_set(step);
    }

    fn snapshot(&self, _config: &Config, now: Timestamp) -> String {
        status::json(&self.board.snapshot(now))
    }

    fn files(&self, _config: &Config, now: Timestamp) -> Vec<String> {
        let snapshot = self.board.snapshot(now);
        vec![status::classic_text(&snapshot, &TimeZone::system()), status::json(&snapshot) + "\n"]
    }

    fn leave(&self, m: &Machine<'_>, now: Instant) -> io::Result<Own> {
        self.leave_all(m, now)
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let sockets = self.sockets.listeners.values().map(AsFd::as_fd);
        let watch = self.lookout.watch.as_ref().map(Watch::as_fd);
        sockets.chain(self.passages.descriptors()).chain(watch).collect()
    }

    fn longest_drain(&self, config: &Config) -> Duration {
        config.peers.iter().map(|peer| peer.drain_timeout).max().unwrap_or_default()
    }

    /// No socket is left for new clients.
    fn close_doors(&mut self, _m: &mut Machine<'_>) {
        self.sockets.remove_all();
        self.passages.close_all();
        self.lookout.arrivals = Arrivals::none();
        self.replacing.clear();
        self.dialling.end();
    }

    fn drain_all(&mut self, m: &mut Machine<'_>, deadline: Instant, now: Instant) {
        for peer in self.peers() {
            self.tell(m, &peer, Event::Retire { deadline }, now);
        }
    }

    fn kill_all(&mut self, _m: &mut Machine<'_>, now: Instant) {
        for (peer, pid) in self.table.kill_all(now) {
            log::debug!("{peer}: no time to drain");
            spawn::kill_now(pid);
        }
    }

    fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    fn stopped(&mut self, config: &Config) {
        for (peer, state) in self.table.iter() {
            log::error!("{peer}: child {:?} is still there", state.pid());
        }
        let now = Timestamp::now();
        for id in config.peers.iter().map(|peer| &peer.host.id) {
            self.board.unserved(id, LinkState::Stopped, "stopped", None, now);
        }
    }
}

/// How long a child may go on answering.
fn drain_timeout(config: &Config, peer: &HostId) -> Duration {
    config.peer(peer).map(|peer| peer.drain_timeout).unwrap_or_default()
}
