//! A child's state, as it crosses `exec`. Pure.

use super::State;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// What of a [`State`] with a process crosses `exec`, where an `Instant` cannot go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The process.
    pub pid: u32,
    age: Duration,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    Running,
    Draining { left: Duration, told: bool },
    Killed { told: bool },
}

impl Carried {
    /// `None` for a state without a process.
    pub fn from_state(state: State, now: Instant) -> Option<Carried> {
        let (pid, since, stage) = match state {
            State::Waiting { .. } => return None,
            State::Running { pid, since } => (pid, since, Stage::Running),
            State::Draining { pid, since, deadline, told } => {
                (pid, since, Stage::Draining { left: deadline.saturating_duration_since(now), told })
            }
            State::Killed { pid, since, told } => (pid, since, Stage::Killed { told }),
        };
        Some(Carried { pid, age: now.saturating_duration_since(since), stage })
    }

    /// The state, as of `now`.
    pub fn state(self, now: Instant) -> State {
        let pid = self.pid;
        // A clock that began later than the child (it cannot be told how old it is) makes it young.
        let since = now.checked_sub(self.age).unwrap_or(now);
        match self.stage {
            Stage::Running => State::Running { pid, since },
            Stage::Draining { left, told } => {
                State::Draining { pid, since, deadline: deadline(now, left), told }
            }
            Stage::Killed { told } => State::Killed { pid, since, told },
        }
    }
}

/// When `left` is over. A time that no clock can show is over now: whoever wrote that down is not
/// to be waited for.
pub fn deadline(now: Instant, left: Duration) -> Instant {
    now.checked_add(left).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_crosses_exec_with_its_age_and_what_is_left_of_its_time() {
        let now = Instant::now();
        let (since, deadline) = (now - Duration::from_secs(3), now + Duration::from_secs(2));
        for state in [
            State::Running { pid: 1, since },
            State::Draining { pid: 2, since, deadline, told: true },
            State::Killed { pid: 3, since, told: false },
        ] {
            let text = serde_json::to_string(&Carried::from_state(state, now).unwrap()).unwrap();
            assert_eq!(serde_json::from_str::<Carried>(&text).unwrap().state(now), state);
        }
        assert_eq!(Carried::from_state(State::Waiting { start_at: now }, now), None);
    }

    #[test]
    fn a_time_beyond_every_clock_is_over_now() {
        let now = Instant::now();
        let text =
            format!(r#"{{"pid":2,"age":{0},"stage":{{"Draining":{{"left":{0},"told":true}}}}}}"#, MOST);
        let state = serde_json::from_str::<Carried>(&text).unwrap().state(now);
        assert_eq!(state, State::Draining { pid: 2, since: now, deadline: now, told: true });
    }

    /// The longest time, as JSON.
    const MOST: &str = r#"{"secs":18446744073709551615,"nanos":0}"#;
}
