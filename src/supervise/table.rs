//! Which child runs for each key, which waits for its next start, which is on its way out: pure.
//!
//! The supervisor tells what happened and when; the table answers what to do ([`Action`]). It never lets two
//! children run for one key, and knows the key of every pid until that pid was reaped.
//!
//! A child that ends is started anew: at once the first time, then with pauses that double from [`FIRST_PAUSE`] to
//! [`LONGEST_PAUSE`] while it keeps ending within [`YOUNG`] of its start, however it ended: one that exits 0 in a
//! loop would spin as well as one that crashes. A child that was told to end is followed by the next at once.
//!
//! ```text
//!            Started                 Drain, Retire, Lost                  deadline, Kill
//!  Waiting ----------> Running ---------------------------> Draining ---------------------> Killed
//!     ^                   | Exited                              | Exited                       | Exited
//!     +-------------------+------------ (still wanted) ---------+------------------------------+
//! ```

mod carried;

pub use carried::Carried;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// A child that ends before this age died young.
pub const YOUNG: Duration = Duration::from_secs(10);
/// The pause after the second young death in a row.
pub const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The pauses double up to this one.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Where the child of one key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No process; one is to be started at this time.
    Waiting {
        /// When.
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
    /// It has closed its control socket: it is ending by itself, or broken and then killed at the deadline.
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
    /// Send SIGKILL.
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
    /// The time in each `Waiting` and `Draining`; kept by [`Table::enter`] and [`Table::forget`] alone.
    timers: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Clone> Default for Table<K> {
    fn default() -> Self {
        Table { entries: BTreeMap::new(), pids: HashMap::new(), timers: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Table<K> {
    /// Wants a child for `key` from now on: [`Table::due`] names it at once, unless an earlier one must end first.
    pub fn want(&mut self, key: K, now: Instant) {
        match self.entries.get_mut(&key) {
            Some(entry) => entry.wanted = true,
            None => self.enter(key, State::Waiting { start_at: now }, 0, true),
        }
    }

    /// Takes over a process that another program image started. It is wanted if [`Table::want`] is told so too.
    /// Nothing happens if the key has a process already.
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

    /// Tells what happened to the child of `key`; returns what to do. Nothing is done for an unknown key, nor for
    /// an event that cannot happen in a state.
    pub fn tell(&mut self, key: &K, event: Event, now: Instant) -> Option<Action> {
        let entry = self.entries.get(key)?;
        let (state, streak, wanted) = (entry.state, entry.streak, entry.wanted);
        let mut go = |state, streak, wanted| self.enter(key.clone(), state, streak, wanted);
        match (state, event) {
            (State::Waiting { .. }, Event::Started { pid }) => {
                go(State::Running { pid, since: now }, streak, wanted);
                None
            }
            (State::Waiting { .. }, Event::StartFailed) => {
                // Not at once: what a fork lacks (memory, processes) will not be there at once.
                let streak = streak.max(1);
                go(State::Waiting { start_at: now + pause(streak) }, streak + 1, wanted);
                None
            }
            (State::Waiting { .. }, Event::Hurry) => {
                go(State::Waiting { start_at: now }, 0, wanted);
                None
            }
            (State::Waiting { .. }, Event::Retire { .. }) => {
                self.forget(key);
                None
            }
            (State::Waiting { .. }, Event::Due) => Some(Action::Start),
            (State::Waiting { .. }, Event::Drain { .. } | Event::Lost { .. } | Event::Kill) => None,
            (State::Waiting { .. }, Event::Exited) => None,

            (State::Running { pid, since }, Event::Drain { deadline }) => {
                go(State::Draining { pid, since, deadline, told: true }, streak, wanted);
                Some(Action::TellHandOver)
            }
            (State::Running { pid, since }, Event::Retire { deadline }) => {
                go(State::Draining { pid, since, deadline, told: true }, streak, false);
                Some(Action::TellDrain)
            }
            (State::Running { pid, since }, Event::Lost { deadline }) => {
                go(State::Draining { pid, since, deadline, told: false }, streak, wanted);
                None
            }
            (State::Running { pid, since }, Event::Kill) => {
                go(State::Killed { pid, since, told: false }, streak, wanted);
                Some(Action::Kill(pid))
            }
            (State::Running { since, .. }, Event::Exited) => {
                self.follow(key, since, false, now);
                None
            }
            (State::Running { .. }, Event::Hurry | Event::Due) => None,

            (State::Draining { .. }, Event::Retire { .. }) => {
                go(state, streak, false);
                None
            }
            (State::Draining { pid, since, told, .. }, Event::Kill | Event::Due) => {
                go(State::Killed { pid, since, told }, streak, wanted);
                Some(Action::Kill(pid))
            }
            (State::Draining { since, told, .. } | State::Killed { since, told, .. }, Event::Exited) => {
                self.follow(key, since, told, now);
                None
            }
            (State::Draining { .. }, Event::Drain { .. } | Event::Lost { .. } | Event::Hurry) => None,

            (State::Killed { .. }, Event::Retire { .. }) => {
                go(state, streak, false);
                None
            }
            (State::Killed { .. }, Event::Drain { .. } | Event::Lost { .. } | Event::Hurry) => None,
            (State::Killed { .. }, Event::Kill | Event::Due) => None,

            (
                State::Running { .. } | State::Draining { .. } | State::Killed { .. },
                Event::Started { .. } | Event::StartFailed,
            ) => {
                debug_assert!(false, "a second child was started for one key");
                None
            }
        }
    }

    /// The next key whose time has come, with what to do for it. A supervisor calls this until it gives `None`; a
    /// key to [`Action::Start`] is named again until it is told of.
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

    /// When [`Table::due`] will have something.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
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

    /// Keys that are known; with none wanted, the children that are still to be reaped.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
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

    /// The one place where a state changes.
    fn enter(&mut self, key: K, state: State, streak: u32, wanted: bool) {
        self.forget(&key);
        if let Some(at) = state.time() {
            self.timers.insert((at, key.clone()));
        }
        if let Some(pid) = state.pid() {
            self.pids.insert(pid, key.clone());
        }
        self.entries.insert(key, Entry { state, streak, wanted });
    }

    fn forget(&mut self, key: &K) {
        let Some(entry) = self.entries.remove(key) else { return };
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

    fn time(self) -> Option<Instant> {
        match self {
            State::Waiting { start_at } => Some(start_at),
            State::Draining { deadline, .. } => Some(deadline),
            State::Running { .. } | State::Killed { .. } => None,
        }
    }
}

/// The pause before the next start, after `streak` young deaths in a row before this one.
fn pause(streak: u32) -> Duration {
    match streak {
        0 => Duration::ZERO,
        _ => FIRST_PAUSE.saturating_mul(1 << (streak - 1).min(16)).min(LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "msul1";

    /// Starts what is due, as a supervisor does; returns the pid.
    fn start(table: &mut Table<&'static str>, pid: u32, now: Instant) {
        assert_eq!(table.due(now), Some((KEY, Action::Start)));
        assert_eq!(table.tell(&KEY, Event::Started { pid }, now), None);
        assert_eq!(table.due(now), None);
        assert_eq!(table.key_of(pid), Some(&KEY));
    }

    #[test]
    fn a_child_that_keeps_dying_young_is_started_at_once_and_then_with_growing_pauses() {
        let mut now = Instant::now();
        let mut table = Table::default();
        table.want(KEY, now);
        let mut pauses = Vec::new();
        for pid in 1..12 {
            start(&mut table, pid, now);
            now += Duration::from_secs(1);
            table.tell(&KEY, Event::Exited, now);
            let next = table.next_deadline().unwrap();
            pauses.push((next - now).as_millis());
            assert!(table.due(next - Duration::from_nanos(1)).is_none());
            now = next;
        }
        assert_eq!(pauses, [0, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]);
        start(&mut table, 50, now);
        now += YOUNG;
        table.tell(&KEY, Event::Exited, now);
        assert_eq!(table.next_deadline(), Some(now), "it lived long");
    }

    #[test]
    fn a_child_that_was_told_to_end_is_followed_at_once_however_young() {
        let now = Instant::now();
        let mut table = Table::default();
        table.want(KEY, now);
        for pid in 1..20 {
            start(&mut table, pid, now);
            let deadline = now + Duration::from_secs(7);
            assert_eq!(table.tell(&KEY, Event::Drain { deadline }, now), Some(Action::TellHandOver));
            assert_eq!(table.tell(&KEY, Event::Drain { deadline }, now), None);
            if pid % 2 == 0 {
                assert_eq!(table.next_deadline(), Some(deadline));
                assert_eq!(table.due(deadline), Some((KEY, Action::Kill(pid))));
                assert_eq!(table.due(deadline), None, "killed once");
            }
            table.tell(&KEY, Event::Exited, now);
            assert_eq!(table.next_deadline(), Some(now));
        }
    }

    #[test]
    fn a_retired_child_is_not_followed_unless_it_is_wanted_again() {
        let now = Instant::now();
        let deadline = now + Duration::from_secs(7);
        let mut table = Table::default();
        table.want(KEY, now);
        start(&mut table, 1, now);
        assert_eq!(table.tell(&KEY, Event::Retire { deadline }, now), Some(Action::TellDrain));
        table.want(KEY, now);
        table.tell(&KEY, Event::Exited, now);
        start(&mut table, 2, now);
        table.tell(&KEY, Event::Retire { deadline }, now);
        table.tell(&KEY, Event::Exited, now);
        assert!(table.is_empty());
        table.want(KEY, now);
        table.tell(&KEY, Event::Retire { deadline }, now);
        assert!(table.is_empty(), "one that waits is forgotten at once");
    }

    #[test]
    fn hurry_ends_the_pause_and_a_failed_start_makes_one() {
        let now = Instant::now();
        let mut table = Table::default();
        table.want(KEY, now);
        assert_eq!(table.due(now), Some((KEY, Action::Start)));
        table.tell(&KEY, Event::StartFailed, now);
        assert_eq!(table.next_deadline(), Some(now + FIRST_PAUSE));
        table.tell(&KEY, Event::Hurry, now);
        start(&mut table, 1, now);
    }

    #[test]
    fn an_adopted_child_is_followed_by_one_of_ours() {
        let now = Instant::now();
        let mut table = Table::default();
        table.adopt(KEY, State::Running { pid: 9, since: now });
        table.adopt(KEY, State::Running { pid: 10, since: now });
        table.want(KEY, now);
        assert_eq!((table.key_of(9), table.key_of(10)), (Some(&KEY), None));
        assert_eq!(table.next_deadline(), None);
        table.tell(&KEY, Event::Drain { deadline: now }, now);
        table.tell(&KEY, Event::Exited, now);
        start(&mut table, 11, now);
    }

    /// A world of processes beside the table: what is alive must be what the table knows.
    #[test]
    fn whatever_happens_no_key_has_two_processes_and_every_process_is_accounted_for() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut now = Instant::now();
            let mut table: Table<u8> = Table::default();
            let mut alive: BTreeMap<u32, (u8, bool)> = BTreeMap::new();
            let mut next_pid = 100;
            for _ in 0..2000 {
                let key = random.u8(..8);
                let deadline = now + Duration::from_millis(random.u64(..5000));
                let event = match random.u8(..7) {
                    0 => {
                        table.want(key, now);
                        None
                    }
                    1 => Some(Event::Drain { deadline }),
                    2 => Some(Event::Retire { deadline }),
                    3 => Some(Event::Lost { deadline }),
                    4 => Some(Event::Kill),
                    5 => Some(Event::Hurry),
                    _ => {
                        let pids: Vec<u32> = alive.keys().copied().collect();
                        if let Some(pid) = random.choice(&pids) {
                            let (key, _) = alive.remove(pid).unwrap();
                            assert_eq!(table.key_of(*pid), Some(&key));
                            table.tell(&key, Event::Exited, now);
                            assert_eq!(table.key_of(*pid), None);
                        }
                        None
                    }
                };
                let mut actions = Vec::new();
                if let Some(event) = event {
                    actions.extend(table.tell(&key, event, now).map(|action| (key, action)));
                }
                for _ in 0..100 {
                    actions.extend(table.due(now));
                    let Some((key, action)) = actions.pop() else { break };
                    match action {
                        Action::Start if random.u8(..4) == 0 => {
                            table.tell(&key, Event::StartFailed, now);
                        }
                        Action::Start => {
                            assert!(alive.values().all(|(of, _)| *of != key), "two for one key");
                            next_pid += 1;
                            alive.insert(next_pid, (key, false));
                            table.tell(&key, Event::Started { pid: next_pid }, now);
                        }
                        Action::TellDrain | Action::TellHandOver => {
                            assert!(alive.values().any(|(of, _)| *of == key))
                        }
                        Action::Kill(pid) => {
                            let (of, killed) = alive.get_mut(&pid).unwrap();
                            assert_eq!(*of, key);
                            assert!(!std::mem::replace(killed, true), "killed twice");
                        }
                    }
                }
                assert_eq!(table.pids.len(), alive.len());
                assert!(table.next_deadline().is_none_or(|at| at > now), "nothing that is due is left");
                let timed = table.iter().filter(|(_, state)| state.time().is_some()).count();
                assert_eq!(table.timers.len(), timed);
                now += Duration::from_millis(random.u64(..2000));
            }
            assert!(next_pid > 110, "seed {seed} started almost nothing");
        }
    }
}
