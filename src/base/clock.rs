//! The wall clock is set while programs run, by hours at a change of battery, by years where a
//! machine begins in 1970. Times that were noted before are then put right, so that what is told of
//! them stays true: since when, how long ago.
//!
//! Pure: both clocks are read by whoever asks. Nothing but what people are shown depends on any of
//! it; timers go by the steady clock and the order of messages by their sequences.

use jiff::{SignedDuration, Timestamp};
use std::time::Instant;

/// The two clocks may differ by so much without one having been set: they are read one after the
/// other, and a machine may be busy between.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(1);

/// The time that was `wall` at `mono`, as a wall clock has it that says `now_wall` at `now_mono`:
/// the same, unless it was set in between.
pub fn put_right(mono: Instant, wall: Timestamp, now_mono: Instant, now_wall: Timestamp) -> Timestamp {
    let step = step(mono, wall, now_mono, now_wall);
    if step.abs() < TOLERANCE { wall } else { moved(wall, step) }
}

/// `time`, which was noted before the wall clock was set by `step`. At the ends of time it stays
/// there.
pub fn moved(time: Timestamp, step: SignedDuration) -> Timestamp {
    let end = if step.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
    time.checked_add(step).unwrap_or(end)
}

/// `forward by 2h`, `back by 8760h 5m`.
pub fn in_words(step: SignedDuration) -> String {
    let way = if step.is_negative() { "back" } else { "forward" };
    format!("{way} by {:#}", SignedDuration::from_secs(step.as_secs().saturating_abs()))
}

/// By how much the wall clock went further than the steady one.
fn step(mono: Instant, wall: Timestamp, now_mono: Instant, now_wall: Timestamp) -> SignedDuration {
    let passed = SignedDuration::try_from(now_mono.saturating_duration_since(mono));
    now_wall.duration_since(wall).saturating_sub(passed.unwrap_or(SignedDuration::MAX))
}

/// Notices that the wall clock was set, for who looks often.
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    mono: Instant,
    wall: Timestamp,
}

impl WallClock {
    /// From these times on.
    pub fn new(mono: Instant, wall: Timestamp) -> WallClock {
        WallClock { mono, wall }
    }

    /// By how much the clock was set since the last look, if it was.
    pub fn look(&mut self, mono: Instant, wall: Timestamp) -> Option<SignedDuration> {
        let step = step(self.mono, self.wall, mono, wall);
        *self = WallClock { mono, wall };
        (step.abs() >= TOLERANCE).then_some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const HOUR: Duration = Duration::from_secs(3600);
    const YEARS: SignedDuration = SignedDuration::from_hours(20 * 365 * 24);

    fn noon() -> Timestamp {
        "2026-11-20T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_time_is_the_same_while_nobody_sets_the_clock_and_as_long_ago_when_somebody_did() {
        let (mono, wall) = (Instant::now(), noon());
        let later = mono + HOUR;
        for untouched in [Duration::ZERO, Duration::from_millis(900)] {
            assert_eq!(put_right(mono, wall, later, wall + HOUR + untouched), wall);
        }
        for step in [YEARS, -YEARS, SignedDuration::from_secs(-1)] {
            let now = wall + HOUR + step;
            assert_eq!(put_right(mono, wall, later, now), now - HOUR);
        }
    }

    #[test]
    fn each_step_of_the_clock_is_noticed_once() {
        let (mono, wall) = (Instant::now(), noon());
        let mut clock = WallClock::new(mono, wall);
        assert_eq!(clock.look(mono + HOUR, wall + HOUR), None);
        assert_eq!(clock.look(mono + HOUR, wall + HOUR + YEARS), Some(YEARS));
        assert_eq!(clock.look(mono + 2 * HOUR, wall + 2 * HOUR + YEARS), None);
        assert_eq!(clock.look(mono + 2 * HOUR, wall + 2 * HOUR), Some(-YEARS));
    }

    #[test]
    fn a_step_is_told_with_its_direction() {
        assert_eq!(in_words(SignedDuration::from_millis(7_260_900)), "forward by 2h 1m");
        assert_eq!(in_words(SignedDuration::from_secs(-1)), "back by 1s");
    }

    #[test]
    fn no_step_is_too_long() {
        for (from, to) in [(Timestamp::MIN, Timestamp::MAX), (Timestamp::MAX, Timestamp::MIN)] {
            let mono = Instant::now();
            let step = WallClock::new(mono, from).look(mono, to).unwrap();
            assert_eq!((moved(from, step), moved(to, step)), (to, to));
            assert!(!in_words(step).is_empty());
        }
    }
}
