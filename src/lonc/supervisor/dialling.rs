//! What the supervisor does for its children's dials: looks their peers' names up, and begins their
//! connections.
//!
//! A child asks ([`FromLink`](crate::messages::FromLink)), [`crate::dials`] says what it may have.
//! Nothing here waits. A name is looked up by a process of its own. A connection is only begun: its
//! socket goes to the child at once, while the other host has not answered yet, and what comes of
//! it is the child's to see, with its race and its deadlines. No copy of it is left here.
//!
//! Questions and answers pass to the next program at HUP. Should one be lost all the same, the
//! child's dial ends by its own deadline, and the next one asks anew.

use super::{Lonc, Machine};
use crate::dials::{Dials, Reply, is_too_often};
use crate::messages::ToLink;
use base::HostId;
use base::log_quota::Repeats;
use net::{Token, tcp};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use supervise::daemon::Role;
use supervise::look_up::{Answer, LookUp};
use supervise::spawn;

/// How long a name may take: longer than the system's resolver does with several servers that are
/// silent. By then it has failed.
const LOOK_UP_TAKES: Duration = Duration::from_secs(120);

/// How long its process may take to end when it has said what it found.
const END_TAKES: Duration = Duration::from_secs(2);

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Dialling {
    pub dials: Dials<HostId>,
    /// At most [`crate::dials::LOOK_UPS`] of them wait for an answer.
    looking: Vec<Looking>,
    repeats: Repeats,
}

/// A process that looks a name up, until it is reaped.
#[derive(Debug)]
struct Looking {
    process: LookUp,
    name: String,
    /// When it is killed; not if it was.
    give_up: Option<Instant>,
    /// The name was found, or given up.
    over: bool,
}

impl Dialling {
    /// When the next look-up is to be given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.looking.iter().filter_map(|it| it.give_up).min()
    }

    /// Nobody is left to dial.
    pub(super) fn end(&mut self) {
        self.looking.iter().for_each(|it| spawn::kill_now(it.process.pid()));
    }
}

impl Lonc {
    /// A child asks for its peer's addresses.
    pub(super) fn asked_addresses(&mut self, m: &mut Machine<'_>, peer: &HostId, number: u64, now: Instant) {
        let target = m.start.config.peer(peer).map(|peer| &peer.target);
        if let Some(reply) = self.dialling.dials.asked(peer, number, target, now) {
            self.reply(m, reply, now);
        }
        self.see_refusals(m, peer, now);
    }

    /// A child that asks for what it may not have, again and again, is none of ours any more.
    fn see_refusals(&mut self, m: &mut Machine<'_>, peer: &HostId, now: Instant) {
        if self.dialling.dials.is_broken(peer) {
            self.broken(m, peer, &io::Error::other("its child asks for dials without end"), now);
        }
    }

    fn reply(&mut self, m: &mut Machine<'_>, reply: Reply<HostId>, now: Instant) {
        let Reply { child, number, answer } = reply;
        if is_too_often(&answer)
            && let Some(line) = self
                .dialling
                .repeats
                .line(&format!("{child}: its child asks for addresses without end; its dial fails"), now)
        {
            log::warn!("{line}");
        }
        self.send(m, &child, &ToLink::Addresses { number, answer }, now);
    }

    /// Begins what is to be looked up, and gives up what takes too long.
    pub(super) fn look_up_in_turn(&mut self, m: &mut Machine<'_>, now: Instant) {
        while let Some(name) = self.dialling.dials.next_name() {
            let token = m.tokens.fresh();
            let confined = m.start.config.sandbox;
            match LookUp::begin(vec![name.clone()], LOOK_UP_TAKES, confined, m.poll.registry(), token) {
                Ok(process) => {
                    let give_up = Some(now + LOOK_UP_TAKES);
                    self.dialling.looking.push(Looking { process, name, give_up, over: false });
                }
                Err(error) => self.found(m, &name, &Err(format!("look up {name}: {error}")), now),
            }
        }
        let is_due = |it: &Looking| it.give_up.is_some_and(|at| at <= now);
        while let Some(at) = self.dialling.looking.iter().position(is_due) {
            self.look_up_failed(m, at, &format!("nothing within {LOOK_UP_TAKES:?}"), now);
        }
    }

    /// What a look-up has found; whether the token is one's.
    pub(super) fn hear_look_up(&mut self, m: &mut Machine<'_>, token: Token, now: Instant) -> bool {
        let looking = self.dialling.looking.iter_mut();
        let Some((at, it)) = looking.enumerate().find(|(_, it)| it.process.token() == token) else {
            return false;
        };
        if it.over {
            return true;
        }
        match it.process.hear(&mut m.scratch) {
            Ok(found) => {
                if let Some(found) = found.into_iter().next() {
                    (it.over, it.give_up) = (true, Some(now + END_TAKES));
                    let name = it.name.clone();
                    self.found(m, &name, &found.answer, now);
                }
            }
            Err(error) => self.look_up_failed(m, at, &error.to_string(), now),
        }
        true
    }

    fn look_up_failed(&mut self, m: &mut Machine<'_>, at: usize, why: &str, now: Instant) {
        let Some(it) = self.dialling.looking.get_mut(at) else { return };
        spawn::kill_now(it.process.pid());
        it.give_up = None;
        if !std::mem::replace(&mut it.over, true) {
            let name = it.name.clone();
            self.found(m, &name, &Err(format!("look up {name}: {why}")), now);
        }
    }

    fn found(&mut self, m: &mut Machine<'_>, name: &str, answer: &Answer, now: Instant) {
        for reply in self.dialling.dials.found(name, answer) {
            self.reply(m, reply, now);
        }
    }

    /// A process was reaped; whether it was one that looked a name up.
    pub(super) fn look_up_ended(&mut self, m: &mut Machine<'_>, pid: u32, now: Instant) -> bool {
        let of_pid = |it: &Looking| it.process.pid() == pid;
        let Some(token) = self.dialling.looking.iter().find(|it| of_pid(it)).map(|it| it.process.token())
        else {
            return false;
        };
        // Its last words may still be unread.
        self.hear_look_up(m, token, now);
        let Some(at) = self.dialling.looking.iter().position(of_pid) else { return true };
        let Looking { process, name, over, .. } = self.dialling.looking.swap_remove(at);
        process.close(m.poll.registry());
        if !over {
            self.found(m, &name, &Err(format!("look up {name}: its process ended without a word")), now);
        }
        true
    }

    /// A child asks for a connection, to the address at this place of the answer of that number.
    pub(super) fn begin_connection(
        &mut self,
        m: &mut Machine<'_>,
        peer: &HostId,
        (attempt, number, place): (u64, u64, usize),
        now: Instant,
    ) {
        let begun = self.dialling.dials.connect(peer, number, place, now).map_err(str::to_owned);
        let bind = m.start.config.peer(peer).and_then(|peer| peer.bind);
        let begun = begun.and_then(|address| {
            tcp::begin(address, bind).map_err(|error| format!("connect to {address}: {error}"))
        });
        let why = match begun {
            Ok(socket) => {
                match m.controls.send_descriptor(peer, &ToLink::Begun { attempt }, socket.as_fd()) {
                    Ok(true) => return,
                    Ok(false) => "connect: the link's process does not read what it is told".to_owned(),
                    // Somebody of this user has too many that were sent and not taken: that is not
                    // this child's fault.
                    Err(error) if error.raw_os_error() == Some(libc::ETOOMANYREFS) => {
                        format!("connect: {error}")
                    }
                    Err(error) => return self.broken(m, peer, &error, now),
                }
            }
            Err(why) => why,
        };
        self.send(m, peer, &ToLink::NotBegun { attempt, why }, now);
        self.see_refusals(m, peer, now);
    }

    /// The configuration is another one.
    pub(super) fn retarget(&mut self, m: &mut Machine<'_>, now: Instant) {
        let config = m.start.config.clone();
        for reply in self.dialling.dials.retarget(|id| config.peer(id).map(|peer| &peer.target)) {
            self.reply(m, reply, now);
        }
    }
}
