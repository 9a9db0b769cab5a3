//! What a program is to the machine of all supervisors, and what follows from it.

use super::Machine;
use crate::control::Message;
use crate::exec_state::Descriptors;
use crate::own_key::OwnKey;
use crate::publish::Board;
use crate::spawn;
use config::Config;
use jiff::{SignedDuration, Timestamp};
use net::Token;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why a role cannot do without something; an error of its own.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;

/// A program, as a supervisor of children. All functions are called by the machine; those with a
/// body are the same for all.
pub trait Role: Sized {
    /// `lonc`, `lond`, `lonsvc`: names the pid file, the log and the status socket.
    const PROGRAM: &'static str;
    /// The files in the status folder.
    const FILES: &'static [&'static str];
    /// Whether a status is made when the children have reported; else it is known here.
    const REPORTS: bool;
    /// What a child is called.
    type Key: Ord + Clone + Debug;
    /// What a child is told.
    type Tell: Message;
    /// What a child says.
    type Hear: DeserializeOwned;
    /// What is left to the next program, beside what every role leaves.
    type Own: Serialize + DeserializeOwned;

    /// What is told of the program.
    fn board(&self) -> &Board;
    /// The same, to tell more.
    fn board_mut(&mut self) -> &mut Board;
    /// Begins, with what the program before `exec` left if there was one.
    fn begin(
        &mut self,
        machine: &mut Machine<'_, Self>,
        left: Option<(Self::Own, Descriptors)>,
        now: Instant,
    );
    /// What is to be done because of the time, or is left over from the turn before.
    fn turn(&mut self, machine: &mut Machine<'_, Self>, now: Instant);
    /// When [`Role::turn`] has something to do that no event announces.
    fn deadline(&self, now: Instant) -> Option<Instant>;
    /// A socket of the role's own is ready.
    fn ready(&mut self, machine: &mut Machine<'_, Self>, token: Token, now: Instant);
    /// USR1: what the role has is tried now, or told of in the log.
    fn probe(&mut self, machine: &mut Machine<'_, Self>, now: Instant);

    /// A child says something.
    fn heard(&mut self, machine: &mut Machine<'_, Self>, key: &Self::Key, message: Self::Hear, now: Instant);
    /// A child has closed its control socket.
    fn lost(&mut self, machine: &mut Machine<'_, Self>, key: &Self::Key, now: Instant);
    /// A child is broken: it is to be killed.
    fn kill(&mut self, machine: &mut Machine<'_, Self>, key: &Self::Key, now: Instant);
    /// Whose process this is, until it was told to have ended.
    fn key_of(&self, pid: u32) -> Option<Self::Key>;
    /// A child was reaped.
    fn ended(
        &mut self,
        machine: &mut Machine<'_, Self>,
        key: &Self::Key,
        pid: u32,
        end: spawn::End,
        now: Instant,
    );
    /// A process was reaped; whether it was one of the role's that is no child as the others are.
    fn ended_beside(&mut self, _machine: &mut Machine<'_, Self>, _pid: u32, _now: Instant) -> bool {
        false
    }
    /// How the log names a child's control socket.
    fn control_name(&self, key: &Self::Key) -> String;
    /// Has every child open the log again.
    fn follow_log(&mut self, machine: &mut Machine<'_, Self>, now: Instant);
    /// The log's folder is another one now: children that have the one before alone are to be
    /// replaced.
    fn log_moved(&mut self, _machine: &mut Machine<'_, Self>, _now: Instant) {}
    /// Asks a child for a report with this number, where [`Role::REPORTS`].
    fn ask_report(
        &mut self,
        _machine: &mut Machine<'_, Self>,
        _key: &Self::Key,
        _number: u64,
        _now: Instant,
    ) {
    }

    /// Takes over another configuration, and this host's key with it: [`Machine::take_over`]. Gives
    /// what was done, in words.
    ///
    /// # Errors
    /// What is wrong, a line each; nothing was changed then.
    fn reload(
        &mut self,
        machine: &mut Machine<'_, Self>,
        config: Arc<Config>,
        key: OwnKey,
        now: Instant,
    ) -> Result<String, Vec<String>>;
    /// Makes again what is gone of the role's own in `run_dir`; what came `back` is said.
    fn keep(&mut self, _machine: &mut Machine<'_, Self>, _back: &mut Vec<PathBuf>, _now: Instant) {}
    /// Everything was looked after.
    fn kept(&mut self, _machine: &mut Machine<'_, Self>, _now: Instant) {}
    /// The machine's clock was set: times that were noted before are wrong by that.
    fn clock_was_set(&mut self, step: SignedDuration);
    /// What `status` is answered.
    fn snapshot(&self, config: &Config, now: Timestamp) -> String;
    /// What stands in [`Role::FILES`].
    fn files(&self, config: &Config, now: Timestamp) -> Vec<String>;

    /// What the next program needs to go on.
    ///
    /// # Errors
    /// When a message that waits cannot be handed over.
    fn leave(&self, machine: &Machine<'_, Self>, now: Instant) -> io::Result<Self::Own>;
    /// The descriptors that are among that; those of control sockets are not the role's to name.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;

    /// How long a child may take to end in order.
    fn longest_drain(&self, config: &Config) -> Duration;
    /// Nobody is let in any more.
    fn close_doors(&mut self, machine: &mut Machine<'_, Self>);
    /// Every child is to end, and is killed at the deadline; nothing follows it.
    fn drain_all(&mut self, machine: &mut Machine<'_, Self>, deadline: Instant, now: Instant);
    /// Every child is killed at once; nothing follows it.
    fn kill_all(&mut self, machine: &mut Machine<'_, Self>, now: Instant);
    /// Whether there is no child, not even one to be reaped.
    fn is_empty(&self) -> bool;
    /// The program ends: says which children are still there, and notes that none is.
    fn stopped(&mut self, config: &Config);

    /// Sends through the child's control socket. A child that does not read there is killed.
    fn send(&mut self, machine: &mut Machine<'_, Self>, key: &Self::Key, message: &Self::Tell, now: Instant) {
        if let Err(error) = machine.controls.send(key, message) {
            self.broken(machine, key, &error, now);
        }
    }

    /// A child does not do as it should with its control socket.
    fn broken(&mut self, machine: &mut Machine<'_, Self>, key: &Self::Key, error: &io::Error, now: Instant) {
        log::error!("{}: {error}", self.control_name(key));
        machine.close_control(key);
        self.kill(machine, key, now);
    }

    /// A child's control socket is ready.
    fn hear(&mut self, machine: &mut Machine<'_, Self>, key: &Self::Key, now: Instant) {
        match self.listen_to(machine, key, now) {
            Ok(false) => {}
            Ok(true) => {
                machine.close_control(key);
                self.lost(machine, key, now);
            }
            Err(error) => self.broken(machine, key, &error, now),
        }
    }

    /// Takes in what a child says; whether it has closed the socket.
    ///
    /// # Errors
    /// The child is broken.
    fn listen_to(
        &mut self,
        machine: &mut Machine<'_, Self>,
        key: &Self::Key,
        now: Instant,
    ) -> io::Result<bool> {
        let (messages, closed) = machine.controls.hear(key, &mut machine.scratch)?;
        for message in messages {
            self.heard(machine, key, message, now);
        }
        Ok(closed)
    }
}
