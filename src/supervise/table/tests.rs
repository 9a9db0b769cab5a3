//! The table of children, event by event.

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
    assert_eq!(pauses, [0, 500, 1000, 2000, 4000, 5000, 5000, 5000, 5000, 5000, 5000]);
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
fn starts_that_keep_failing_are_tried_with_growing_pauses() {
    let mut now = Instant::now();
    let mut table = Table::default();
    table.want(KEY, now);
    let mut pauses = Vec::new();
    for _ in 0..6 {
        assert_eq!(table.due(now), Some((KEY, Action::Start)));
        table.tell(&KEY, Event::StartFailed, now);
        let next = table.next_deadline().unwrap();
        pauses.push((next - now).as_millis());
        now = next;
    }
    assert_eq!(pauses, [500, 1000, 2000, 4000, 5000, 5000]);
}

#[test]
fn those_to_start_are_named_together_as_far_as_their_time_has_come() {
    let now = Instant::now();
    let mut table = Table::default();
    for key in ["a", "b", "c", "failed", "running"] {
        table.want(key, now);
    }
    table.tell(&"failed", Event::StartFailed, now);
    table.tell(&"running", Event::Started { pid: 7 }, now);
    assert_eq!(table.to_start(now, 9), ["a", "b", "c"]);
    assert_eq!(table.to_start(now, 2), ["a", "b"]);
    assert_eq!(table.due(now), Some(("a", Action::Start)), "the first is the one that is due");
    assert_eq!(table.to_start(now + FIRST_PAUSE, 9), ["a", "b", "c", "failed"]);
}

#[test]
fn where_there_is_no_time_every_child_is_killed_once_and_none_follows() {
    let now = Instant::now();
    let deadline = now + Duration::from_secs(7);
    let mut table = Table::default();
    let all = ["draining", "killed", "retired", "running", "waiting"];
    for (key, pid) in all.into_iter().zip(1..) {
        table.want(key, now);
        if key != "waiting" {
            table.tell(&key, Event::Started { pid }, now);
        }
    }
    table.tell(&"draining", Event::Drain { deadline }, now);
    table.tell(&"retired", Event::Retire { deadline }, now);
    table.tell(&"killed", Event::Kill, now);
    assert_eq!(table.kill_all(now), [("draining", 1), ("retired", 3), ("running", 4)]);
    assert_eq!(table.kill_all(now), []);
    assert_eq!(table.next_deadline(), None, "nothing is waited for but their ends");
    for key in all.iter().filter(|key| **key != "waiting") {
        assert!(!table.is_empty());
        table.tell(key, Event::Exited, now);
    }
    assert!(table.is_empty());
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
            let leaves = |state| matches!(state, State::Draining { .. } | State::Killed { .. });
            assert_eq!(table.leaving(), table.iter().filter(|(_, state)| leaves(*state)).count());
            now += Duration::from_millis(random.u64(..2000));
        }
        assert!(next_pid > 110, "seed {seed} started almost nothing");
    }
}
