//! Where each link child of `lond` stands, and whose link is the newest: pure.
//!
//! ```text
//!            Opened             Replace, Drain             Exited
//!  Opening ---------> Open ------------------> Ending ----------------> gone
//!     |                                          | deadline, Kill
//!     +-- Drain, Lost --> Ending                 v
//!     +-- deadline, Kill ------------------> Killed ---- Exited ------> gone
//! ```
//!
//! A link child is not started again: the caller dials again.
//!
//! One caller has [`CHILDREN_OF_ONE`] at most: the newest, and those that are ending. Beyond that
//! the youngest of those that are ending is killed. The oldest is not, because it may have a
//! critical message in hand: while it lives it has the caller's record, and no other child of that
//! caller runs one.

use super::door::{Guest, Origin};
use base::clock::moved;
use base::{HostId, WireKind};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use status::HandlerStatus;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use supervise::table::deadline;

/// Children that one caller may have, whatever it does; at the bound the youngest of those that are
/// ending is killed. A host whose network flaps has two or three.
pub(super) const CHILDREN_OF_ONE: usize = 8;

/// Where one child stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The opening dialogue is under way; killed at the deadline.
    Opening {
        /// When the child is killed if it has not opened its link.
        deadline: Instant,
    },
    /// The caller is known, requests are answered.
    Open,
    /// It was told to end, or has let go of its control socket; killed at the deadline.
    Ending {
        /// When the child is killed if it has not ended.
        deadline: Instant,
    },
    /// It was killed and is not reaped yet.
    Killed,
}

impl State {
    /// When the child is killed.
    fn deadline(self) -> Option<Instant> {
        match self {
            State::Opening { deadline } | State::Ending { deadline } => Some(deadline),
            State::Open | State::Killed => None,
        }
    }
}

/// What can happen to one child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// It says that its caller has sent something.
    Spoke,
    /// It says that this caller has finished the opening dialogue.
    Opened(HostId, Opened),
    /// A newer link of its caller is open.
    Replace {
        /// When it is killed if it does not end.
        deadline: Instant,
    },
    /// It is to end.
    Drain {
        /// When it is killed if it does not.
        deadline: Instant,
    },
    /// It has closed its control socket.
    Lost {
        /// When it is killed if it does not end.
        deadline: Instant,
    },
    /// It is broken, or there is no time.
    Kill,
    /// The time that its state names has come.
    Due,
    /// It was reaped.
    Exited,
}

/// What the supervisor is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// A host that had no link has one: `lonc` may want to dial it.
    Greet(HostId),
    /// This older child of the same caller is to be told [`Event::Replace`].
    Supersede(u32),
    /// The child is told that its caller has a newer link.
    TellReplaced,
    /// The child is told to end when it has answered.
    TellDrain,
    /// The child is sent SIGKILL.
    Kill,
}

/// One child, and what is known of its link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Where it stands.
    pub state: State,
    /// Where the connection comes from.
    pub remote: SocketAddr,
    /// Who calls: by the address at first, as the child says once it is open.
    pub caller: Option<HostId>,
    /// What the child said when it was open.
    pub opened: Option<Opened>,
    /// When it was started.
    pub since: Instant,
    /// Whether the address is one of a host's: what the caller says counts more.
    pub familiar: bool,
    /// The caller has sent nothing yet.
    pub silent: bool,
    /// What the child said of the handlers last.
    pub handlers: Vec<HandlerStatus>,
}

impl Link {
    /// Who calls from where, if the child has said who it is.
    pub(super) fn known(&self) -> Option<(HostId, IpAddr)> {
        self.opened.as_ref().and_then(|_| self.caller.clone()).map(|caller| (caller, self.remote.ip()))
    }
}

/// What is known of a link from its opening on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Opened {
    /// What is spoken.
    pub wire: WireKind,
    /// The pin that the caller's key matched.
    pub pin: Option<String>,
    /// The pin of this host's own key that it was shown.
    #[serde(default)]
    pub own_pin: Option<String>,
    /// What confines its child.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// When it was open.
    pub since: Timestamp,
}

/// All children that were not reaped.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: BTreeMap<u32, Link>,
    /// The newest open link of each caller.
    newest: HashMap<HostId, u32>,
    /// The deadline in each `Opening` and `Ending`.
    timers: BTreeSet<(Instant, u32)>,
    /// Those that have never been open; a child that was refused or killed counts until it is
    /// reaped.
    unopened: BTreeSet<u32>,
    /// What children that are no more had counted of the handlers, by their names.
    ended: BTreeMap<String, HandlerStatus>,
}

/// A connection for which a child was started.
#[derive(Debug, Clone)]
pub(super) struct Started {
    /// Where it comes from.
    pub remote: SocketAddr,
    /// Who calls, by the address.
    pub caller: Option<HostId>,
    /// Whether the address is one of a host's.
    pub familiar: bool,
    /// When the child is killed if its caller is not known.
    pub deadline: Instant,
}

impl Links {
    /// A child was started.
    pub(super) fn started(&mut self, pid: u32, started: Started, now: Instant) {
        let Started { remote, caller, familiar, deadline } = started;
        let state = State::Opening { deadline };
        let (opened, silent, handlers) = (None, true, Vec::new());
        self.put(pid, Link { state, remote, caller, opened, since: now, familiar, silent, handlers });
    }

    /// Takes over a child of the program before `exec`.
    pub(super) fn adopt(&mut self, left: &Carried, now: Instant) {
        let state = left.state(now);
        if let (State::Open, Some(caller)) = (state, &left.caller) {
            self.newest.insert(caller.clone(), left.pid);
        }
        let (remote, caller, opened) = (left.remote, left.caller.clone(), left.opened.clone());
        let since = now.checked_sub(left.age).unwrap_or(now);
        let (familiar, silent, handlers) = (left.familiar, left.silent, Vec::new());
        self.put(left.pid, Link { state, remote, caller, opened, since, familiar, silent, handlers });
    }

    /// What crosses `exec`.
    pub(super) fn leave(&self, now: Instant) -> Vec<Carried> {
        let carried = |(pid, link): (&u32, &Link)| Carried {
            pid: *pid,
            remote: link.remote,
            caller: link.caller.clone(),
            opened: link.opened.clone(),
            age: now.saturating_duration_since(link.since),
            familiar: link.familiar,
            silent: link.silent,
            stage: match link.state {
                State::Opening { deadline } => {
                    Stage::Opening { left: deadline.saturating_duration_since(now) }
                }
                State::Open => Stage::Open,
                State::Ending { deadline } => Stage::Ending { left: deadline.saturating_duration_since(now) },
                State::Killed => Stage::Killed,
            },
        };
        self.links.iter().map(carried).collect()
    }

    /// Tells what happened to a child; returns what to do. Nothing happens for one that is not
    /// known.
    pub(super) fn tell(&mut self, pid: u32, event: Event) -> Option<Action> {
        let state = self.links.get(&pid)?.state;
        match (state, event) {
            (State::Opening { .. } | State::Ending { .. } | State::Open | State::Killed, Event::Spoke) => {
                if let Some(link) = self.links.get_mut(&pid) {
                    link.silent = false;
                }
                None
            }
            (State::Opening { .. }, Event::Opened(caller, opened)) => {
                Some(self.has_opened(pid, caller, opened))
            }
            (State::Opening { .. } | State::Open, Event::Replace { deadline }) => {
                self.enter(pid, State::Ending { deadline });
                Some(Action::TellReplaced)
            }
            (State::Opening { .. } | State::Open, Event::Drain { deadline }) => {
                self.enter(pid, State::Ending { deadline });
                Some(Action::TellDrain)
            }
            (State::Opening { .. } | State::Open, Event::Lost { deadline }) => {
                self.enter(pid, State::Ending { deadline });
                None
            }
            (State::Opening { .. } | State::Ending { .. }, Event::Due)
            | (State::Opening { .. } | State::Open | State::Ending { .. }, Event::Kill) => {
                self.enter(pid, State::Killed);
                Some(Action::Kill)
            }
            (State::Opening { .. } | State::Open | State::Ending { .. } | State::Killed, Event::Exited) => {
                let handlers = self.remove(pid).map(|link| link.handlers).unwrap_or_default();
                self.keep_handlers(handlers);
                None
            }
            // Said a second time, or too late.
            (State::Open | State::Ending { .. } | State::Killed, Event::Opened(..)) => None,
            (State::Open, Event::Due) => None,
            (
                State::Ending { .. } | State::Killed,
                Event::Replace { .. } | Event::Drain { .. } | Event::Lost { .. },
            ) => None,
            (State::Killed, Event::Kill | Event::Due) => None,
        }
    }

    /// The next child whose deadline has passed: it is to be killed.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<(u32, Action)> {
        let (at, pid) = *self.timers.first()?;
        if at > now {
            return None;
        }
        self.tell(pid, Event::Due).map(|action| (pid, action))
    }

    /// When [`Links::overdue`] has the next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// How many processes there are whose callers have not finished the opening dialogue, and may
    /// never do so.
    pub(super) fn unopened(&self) -> usize {
        self.unopened.len()
    }

    /// The processes of these connections.
    pub(super) fn unopened_pids(&self) -> Vec<u32> {
        self.unopened.iter().copied().collect()
    }

    /// The same, as the door wants to know them.
    pub(super) fn guests(&self) -> Vec<Guest> {
        let guest = |pid: &u32| {
            let link = self.links.get(pid)?;
            Some(Guest {
                pid: *pid,
                origin: Origin::of(link.remote.ip()),
                familiar: link.familiar,
                silent: link.silent,
                since: link.since,
                leaves: !matches!(link.state, State::Opening { .. }),
            })
        };
        self.unopened.iter().filter_map(guest).collect()
    }

    /// A child of `caller` that is to be killed, because it has more than [`CHILDREN_OF_ONE`]: the
    /// youngest of those that are ending.
    pub(super) fn beyond(&self, caller: &HostId) -> Option<u32> {
        let own = |link: &&(u32, &Link)| link.1.opened.is_some() && link.1.caller.as_ref() == Some(caller);
        let living = |link: &&(u32, &Link)| link.1.state != State::Killed;
        let all: Vec<(u32, &Link)> = self.iter().collect();
        let children: Vec<&(u32, &Link)> = all.iter().filter(own).filter(living).collect();
        (children.len() > CHILDREN_OF_ONE).then(|| youngest_ending(children.into_iter().copied())).flatten()
    }

    /// Where there is room for no more children at all: one that is ending of the caller that has
    /// most of these, if that has several.
    pub(super) fn spare(&self) -> Option<u32> {
        let ending = || self.iter().filter(|(_, link)| matches!(link.state, State::Ending { .. }));
        let mut counts: HashMap<&HostId, usize> = HashMap::new();
        for caller in ending().filter_map(|(_, link)| link.caller.as_ref()) {
            *counts.entry(caller).or_default() += 1;
        }
        let (caller, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        let own = ending().filter(|(_, link)| link.caller.as_ref() == Some(caller));
        (count > 1).then(|| youngest_ending(own)).flatten()
    }

    /// All children that were not reaped.
    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    /// How many hosts have an open link.
    pub(super) fn open(&self) -> usize {
        self.newest.len()
    }

    /// Whether there is none, not even one to be reaped.
    pub(super) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// The link that this child serves.
    pub(super) fn get(&self, pid: u32) -> Option<&Link> {
        self.links.get(&pid)
    }

    /// All, by pid.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Link)> {
        self.links.iter().map(|(pid, link)| (*pid, link))
    }

    /// Puts right the times that were noted before the machine's clock was set.
    pub(super) fn clock_was_set(&mut self, step: SignedDuration) {
        for opened in self.links.values_mut().filter_map(|link| link.opened.as_mut()) {
            opened.since = moved(opened.since, step);
        }
        let told = self.links.values_mut().flat_map(|link| &mut link.handlers);
        told.chain(self.ended.values_mut()).for_each(|handler| handler.clock_was_set(step));
    }

    fn has_opened(&mut self, pid: u32, caller: HostId, opened: Opened) -> Action {
        if let Some(link) = self.remove(pid) {
            let (caller, opened) = (Some(caller.clone()), Some(opened));
            self.put(pid, Link { state: State::Open, caller, opened, silent: false, ..link });
        }
        match self.newest.insert(caller.clone(), pid) {
            Some(older) => Action::Supersede(older),
            None => Action::Greet(caller),
        }
    }

    /// A child says how the handlers do; whether that is news.
    pub(super) fn handlers(&mut self, pid: u32, handlers: Vec<HandlerStatus>) -> bool {
        let Some(link) = self.links.get_mut(&pid) else { return false };
        let before = std::mem::replace(&mut link.handlers, handlers);
        let none = HandlerStatus::default();
        link.handlers.iter().enumerate().any(|(at, handler)| handler.is_news(before.get(at).unwrap_or(&none)))
    }

    /// How this handler does, as far as all children know.
    pub(super) fn handler(&self, name: &str) -> HandlerStatus {
        let mut all = HandlerStatus { name: name.to_owned(), ..HandlerStatus::default() };
        let told = self.links.values().flat_map(|link| &link.handlers).filter(|handler| handler.name == name);
        told.chain(self.ended.get(name)).for_each(|handler| all.add(handler));
        all
    }

    /// What stays of what a child that is no more had told.
    fn keep_handlers(&mut self, handlers: Vec<HandlerStatus>) {
        for handler in handlers.into_iter().map(HandlerStatus::ended) {
            match self.ended.get_mut(&handler.name) {
                Some(ended) => ended.add(&handler),
                None => drop(self.ended.insert(handler.name.clone(), handler)),
            }
        }
    }

    /// Where a state changes, but for what [`Links::has_opened`] does.
    fn enter(&mut self, pid: u32, state: State) {
        if let Some(link) = self.remove(pid) {
            self.put(pid, Link { state, ..link });
        }
    }

    fn put(&mut self, pid: u32, link: Link) {
        if link.opened.is_none() {
            self.unopened.insert(pid);
        }
        if let Some(deadline) = link.state.deadline() {
            self.timers.insert((deadline, pid));
        }
        self.links.insert(pid, link);
    }

    fn remove(&mut self, pid: u32) -> Option<Link> {
        let link = self.links.remove(&pid)?;
        self.unopened.remove(&pid);
        if let Some(deadline) = link.state.deadline() {
            self.timers.remove(&(deadline, pid));
        }
        if let Some(caller) = &link.caller
            && self.newest.get(caller) == Some(&pid)
        {
            self.newest.remove(caller);
        }
        Some(link)
    }
}

fn youngest_ending<'a>(links: impl Iterator<Item = (u32, &'a Link)>) -> Option<u32> {
    let ending = links.filter(|(_, link)| matches!(link.state, State::Ending { .. }));
    ending.max_by_key(|(_, link)| link.since).map(|(pid, _)| pid)
}

/// What of a link crosses `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The child's process, which goes on through `exec`.
    pub pid: u32,
    remote: SocketAddr,
    caller: Option<HostId>,
    /// Not there in what a program left that did not know of it.
    #[serde(default)]
    opened: Option<Opened>,
    /// Nor these, each with what it stands for if it is not there.
    #[serde(default)]
    age: Duration,
    #[serde(default)]
    familiar: bool,
    #[serde(default)]
    silent: bool,
    stage: Stage,
}

impl Carried {
    /// Where the link stands, as of `now`.
    pub fn state(&self, now: Instant) -> State {
        match self.stage {
            Stage::Opening { left } => State::Opening { deadline: deadline(now, left) },
            Stage::Open => State::Open,
            Stage::Ending { left } => State::Ending { deadline: deadline(now, left) },
            Stage::Killed => State::Killed,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    Opening { left: Duration },
    Open,
    Ending { left: Duration },
    Killed,
}

#[cfg(test)]
mod tests;
