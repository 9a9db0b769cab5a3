//! Which child runs for each key, which waits for its next start, which is on its way out: pure.
//!
//! The supervisor tells what happened and when; the table answers what to do ([`Action`]). It never
//! lets two children run for one key, and knows the key of every pid until that pid was reaped.
//!
//! A child that ends is started again: at once the first time, then with pauses that double from
//! [`FIRST_PAUSE`] to [`LONGEST_PAUSE`] while it keeps ending within [`YOUNG`] of its start,
//! however it ended: one that exits 0 in a loop would spin as well as one that crashes. A child
//! that was told to end is followed by the next at once.
//!
//! ```text
//!            Started                 Drain, Retire, Lost                  deadline, Kill
//!  Waiting ----------> Running ---------------------------> Draining ---------------------> Killed
//!     ^                   | Exited                              | Exited                       | Exited
//!     +-------------------+------------ (still wanted) ---------+------------------------------+
//! ```

mod carried;

pub use carried::{Carried, deadline};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// A child that ends before this age died young.
pub const YOUNG: Duration = Duration::from_secs(10);
/// The pause after the second young death in a row.
pub const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The pauses double up to this one. Short, since its peer is served by nobody meanwhile, and a
/// fork each 5 s costs nothing.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Where the child of one key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No process; one is to be started at this time.
    Waiting {
        /// When the next process is started.
        start_at: Instant,
    },
    /// The child serves.
    Running {
        /// Its process.
        pid: u32,
        /// When it was started.
        since: Instant,
    },
    /// The child is on its way out.
    Draining {
        /// Its process.
        pid: u32,
        /// When it was started.
        since: Instant,
        /// When it is killed.
        deadline: Instant,
        /// It was told to; otherwise it has let go of its control socket.
        told: bool,
    },
    /// The child was killed and is not reaped yet.
    Killed {
        /// Its process.
        pid: u32,
        /// When it was started.
        since: Instant,
        /// It was told to end before.
        told: bool,
    },
}

/// What can happen to the child of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The supervisor forked it, as [`Action::Start`] said.
    Started {
        /// The new process.
        pid: u32,
    },
    /// The supervisor could not.
    StartFailed,
    /// It was reaped.
    Exited,
    /// It is to be replaced: told to end, killed at the deadline.
    Drain {
        /// When it is killed.
        deadline: Instant,
    },
    /// As [`Event::Drain`], and nothing follows it.
    Retire {
        /// When it is killed.
        deadline: Instant,
    },
    /// It has closed its control socket: it is ending by itself, or broken and then killed at the
    /// deadline.
    Lost {
        /// When it is killed.
        deadline: Instant,
    },
    /// It is broken, or there is no time: kill it now.
    Kill,
    /// A person wants it served now: no pause.
    Hurry,
    /// The time that the state names has come.
    Due,
}

/// What the supervisor is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Fork the child, then tell [`Event::Started`] or [`Event::StartFailed`].
    Start,
    /// Tell it to end, through its control socket; nothing follows it.
    TellDrain,
    /// Tell it to end and to leave its clients to the child that follows it.
    TellHandOver,
    /// Send SIGKILL to this process, whatever it is doing.
    Kill(u32),
}

#[derive(Debug)]
struct Entry {
    state: State,
    /// Young deaths in a row.
    streak: u32,
    /// Whether another child follows this one.
    wanted: bool,
}

/// The children of one supervisor.
#[derive(Debug)]
pub struct Table<K> {
    entries: BTreeMap<K, Entry>,
    /// The key of every process that was started or adopted and not reaped yet.
    pids: HashMap<u32, K>,
    /// The time in each `Waiting` and `Draining`; kept by [`Table::enter`] and [`Table::forget`]
    /// alone.
    timers: BTreeSet<(Instant, K)>,
    /// How many are on their way out; kept by the same, since it is asked for each that goes.
    leaving: usize,
}

impl<K: Ord + Clone> Default for Table<K> {
    fn default() -> Self {
        Table { entries: BTreeMap::new(), pids: HashMap::new(), timers: BTreeSet::new(), leaving: 0 }
    }
}

impl<K: Ord + Clone> Table<K> {
    /// Wants a child for `key` from now on: [`Table::due`] names it at once, unless an earlier one
    /// must end first.
    pub fn want(&mut self, key: K, now: Instant) {
        match self.entries.get_mut(&key) {
            Some(entry) => entry.wanted = true,
            None => self.enter(key, State::Waiting { start_at: now }, 0, true),
        }
    }

    /// Takes over a process that another program image started. It is wanted if [`Table::want`] is
    /// told so too. Nothing happens if the key has a process already.
    pub fn adopt(&mut self, key: K, state: State) {
        let free = match self.entries.get(&key) {
            None => true,
            Some(Entry { state: State::Waiting { .. }, .. }) => true,
            Some(Entry {
                state: State::Running { .. } | State::Draining { .. } | State::Killed { .. },
                ..
            }) => false,
        };
        if free {
            self.forget(&key);
            self.enter(key, state, 0, false);
        }
    }

    /// Tells what happened to the child of `key`; returns what to do. Nothing is done for an
    /// unknown key, nor for an event that cannot happen in a state.
    pub fn tell(&mut self, key: &K, event: Event, now: Instant) -> Option<Action> {
        let Entry { state, .. } = self.entries.get(key)?;
        match *state {
            State::Waiting { .. } => self.tell_waiting(key, event, now),
            State::Running { pid, since } => self.tell_running(key, (pid, since), event, now),
            State::Draining { pid, since, told, .. } => {
                self.tell_draining(key, (pid, since, told), event, now)
            }
            State::Killed { since, told, .. } => self.tell_killed(key, (since, told), event, now),
        }
    }

    fn tell_waiting(&mut self, key: &K, event: Event, now: Instant) -> Option<Action> {
        let streak = self.entries.get(key)?.streak;
        match event {
            Event::Started { pid } => self.go(key, State::Running { pid, since: now }),
            Event::StartFailed => {
                // Not at once: what a fork lacks (memory, processes) will not be there at once.
                let streak = streak.max(1);
                self.go(key, State::Waiting { start_at: now + pause(streak) });
                self.count_streak(key, streak + 1);
            }
            Event::Hurry => {
                self.go(key, State::Waiting { start_at: now });
                self.count_streak(key, 0);
            }
            Event::Retire { .. } => self.forget(key),
            Event::Due => return Some(Action::Start),
            Event::Drain { .. } | Event::Lost { .. } | Event::Kill | Event::Exited => {}
        }
        None
    }

    fn tell_running(
        &mut self,
        key: &K,
        (pid, since): (u32, Instant),
        event: Event,
        now: Instant,
    ) -> Option<Action> {
        match event {
            Event::Drain { deadline } => {
                self.go(key, State::Draining { pid, since, deadline, told: true });
                Some(Action::TellHandOver)
            }
            Event::Retire { deadline } => {
                self.go(key, State::Draining { pid, since, deadline, told: true });
                self.retire(key);
                Some(Action::TellDrain)
            }
            Event::Lost { deadline } => {
                self.go(key, State::Draining { pid, since, deadline, told: false });
                None
            }
            Event::Kill => {
                self.go(key, State::Killed { pid, since, told: false });
                Some(Action::Kill(pid))
            }
            Event::Exited => {
                self.follow(key, since, false, now);
                None
            }
            Event::Hurry | Event::Due => None,
            Event::Started { .. } | Event::StartFailed => second_start(),
        }
    }

    fn tell_draining(
        &mut self,
        key: &K,
        (pid, since, told): (u32, Instant, bool),
        event: Event,
        now: Instant,
    ) -> Option<Action> {
        match event {
            Event::Retire { .. } => self.retire(key),
            Event::Kill | Event::Due => {
                self.go(key, State::Killed { pid, since, told });
                return Some(Action::Kill(pid));
            }
            Event::Exited => self.follow(key, since, told, now),
            Event::Drain { .. } | Event::Lost { .. } | Event::Hurry => {}
            Event::Started { .. } | Event::StartFailed => return second_start(),
        }
        None
    }

    fn tell_killed(
        &mut self,
        key: &K,
        (since, told): (Instant, bool),
        event: Event,
        now: Instant,
    ) -> Option<Action> {
        match event {
            Event::Retire { .. } => self.retire(key),
            Event::Exited => self.follow(key, since, told, now),
            Event::Drain { .. } | Event::Lost { .. } | Event::Hurry | Event::Kill | Event::Due => {}
            Event::Started { .. } | Event::StartFailed => return second_start(),
        }
        None
    }

    /// The next key whose time has come, with what to do for it. A supervisor calls this until it
    /// gives `None`; a key to [`Action::Start`] is named again until it is told of.
    pub fn due(&mut self, now: Instant) -> Option<(K, Action)> {
        while let Some((at, key)) = self.timers.first().cloned() {
            if at > now {
                return None;
            }
            if let Some(action) = self.tell(&key, Event::Due, now) {
                return Some((key, action));
            }
        }
        None
    }

    /// The keys to [`Action::Start`], at most so many, as [`Table::due`] would name them.
    pub fn to_start(&self, now: Instant, most: usize) -> Vec<K> {
        let due = self.timers.iter().take_while(|(at, _)| *at <= now).map(|(_, key)| key);
        due.filter(|key| matches!(self.state(key), Some(State::Waiting { .. }))).take(most).cloned().collect()
    }

    /// When [`Table::due`] will have something.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Nobody is wanted any more, and there is no time: whose processes are to be killed, now. One
    /// that was killed before is not named again.
    pub fn kill_all(&mut self, now: Instant) -> Vec<(K, u32)> {
        let keys: Vec<K> = self.entries.keys().cloned().collect();
        let killed = keys.into_iter().filter_map(|key| {
            // Retired first, so that nothing follows it; the order to end is not sent.
            self.tell(&key, Event::Retire { deadline: now }, now);
            match self.tell(&key, Event::Kill, now) {
                Some(Action::Kill(pid)) => Some((key, pid)),
                Some(Action::Start | Action::TellDrain | Action::TellHandOver) | None => None,
            }
        });
        killed.collect()
    }

    /// Whose child `pid` is, until it was told to have exited.
    pub fn key_of(&self, pid: u32) -> Option<&K> {
        self.pids.get(&pid)
    }

    /// Where the child of `key` stands.
    pub fn state(&self, key: &K) -> Option<State> {
        self.entries.get(key).map(|entry| entry.state)
    }

    /// All keys and where their children stand, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, State)> {
        self.entries.iter().map(|(key, entry)| (key, entry.state))
    }

    /// How many children are on their way out.
    pub fn leaving(&self) -> usize {
        self.leaving
    }

    /// Whether no key is known: nobody is wanted, and every child was reaped.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What comes after a child that is no more.
    fn follow(&mut self, key: &K, since: Instant, told: bool, now: Instant) {
        let Some(Entry { wanted, streak, .. }) = self.entries.get(key) else { return };
        if !wanted {
            return self.forget(key);
        }
        let (start_at, streak) = if told {
            (now, *streak)
        } else {
            let streak = if now.saturating_duration_since(since) < YOUNG { *streak } else { 0 };
            (now + pause(streak), streak + 1)
        };
        self.enter(key.clone(), State::Waiting { start_at }, streak, true);
    }

    /// The same entry in another state.
    fn go(&mut self, key: &K, state: State) {
        let Some(Entry { streak, wanted, .. }) = self.entries.get(key) else { return };
        self.enter(key.clone(), state, *streak, *wanted);
    }

    fn count_streak(&mut self, key: &K, streak: u32) {
        self.entries.get_mut(key).into_iter().for_each(|entry| entry.streak = streak);
    }

    /// No child follows this one.
    fn retire(&mut self, key: &K) {
        self.entries.get_mut(key).into_iter().for_each(|entry| entry.wanted = false);
    }

    /// The one place where a state changes.
    fn enter(&mut self, key: K, state: State, streak: u32, wanted: bool) {
        self.forget(&key);
        if let Some(at) = state.time() {
            self.timers.insert((at, key.clone()));
        }
        if let Some(pid) = state.pid() {
            self.pids.insert(pid, key.clone());
        }
        self.leaving += usize::from(state.leaves());
        self.entries.insert(key, Entry { state, streak, wanted });
    }

    fn forget(&mut self, key: &K) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.leaving -= usize::from(entry.state.leaves());
        if let Some(at) = entry.state.time() {
            self.timers.remove(&(at, key.clone()));
        }
        if let Some(pid) = entry.state.pid() {
            self.pids.remove(&pid);
        }
    }
}

impl State {
    /// The process, if there is one.
    pub fn pid(self) -> Option<u32> {
        match self {
            State::Waiting { .. } => None,
            State::Running { pid, .. } | State::Draining { pid, .. } | State::Killed { pid, .. } => Some(pid),
        }
    }

    /// Whether the child is on its way out because it was told to be.
    pub fn was_told(self) -> bool {
        match self {
            State::Draining { told, .. } | State::Killed { told, .. } => told,
            State::Running { .. } | State::Waiting { .. } => false,
        }
    }

    fn leaves(self) -> bool {
        match self {
            State::Draining { .. } | State::Killed { .. } => true,
            State::Waiting { .. } | State::Running { .. } => false,
        }
    }

    fn time(self) -> Option<Instant> {
        match self {
            State::Waiting { start_at } => Some(start_at),
            State::Draining { deadline, .. } => Some(deadline),
            State::Running { .. } | State::Killed { .. } => None,
        }
    }
}

/// Cannot be: two children would run for one key.
fn second_start() -> Option<Action> {
    debug_assert!(false, "a second child was started for one key");
    None
}

/// The pause before the next start, after `streak` young deaths in a row before this one.
fn pause(streak: u32) -> Duration {
    match streak {
        0 => Duration::ZERO,
        _ => FIRST_PAUSE.saturating_mul(1 << (streak - 1).min(16)).min(LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests;
