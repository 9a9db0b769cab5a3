//! The programs whose buffers keep their room between requests, so that who sends and gets many at
//! once asks for no memory each time. Who falls silent gives it back.

use super::Sessions;
use crate::session::ClientId;
use std::time::{Duration, Instant};

/// So many programs keep their room.
pub(super) const WARM: usize = 64;
/// How long they do when nothing comes.
pub(super) const WARM_FOR: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Warm {
    programs: Vec<ClientId>,
    /// When to look which of them have fallen silent.
    look_at: Option<Instant>,
}

impl Warm {
    /// When [`Sessions::cool`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.look_at
    }
}

impl Sessions {
    /// The requests or answers of a program come many at once: its buffers keep their room, if not
    /// too many do already.
    pub(super) fn keep_warm(&mut self, id: ClientId) {
        if self.warm.programs.len() >= WARM {
            return;
        }
        if let Some(session) = self.get(id).filter(|session| !session.warm) {
            session.keep_room(true);
            self.warm.programs.push(id);
            self.warm.look_at.get_or_insert(self.now + WARM_FOR);
        }
    }

    /// Gives back the room of those that have fallen silent.
    pub(super) fn cool(&mut self, now: Instant) {
        if self.warm.look_at.is_none_or(|at| at > now) {
            return;
        }
        let mut programs = std::mem::take(&mut self.warm.programs);
        programs.retain(|id| {
            let Some(session) = self.get(*id) else { return false };
            let silent = session.active_at + WARM_FOR <= now;
            if silent {
                session.keep_room(false);
            }
            !silent
        });
        let look_at = (!programs.is_empty()).then_some(now + WARM_FOR);
        self.warm = Warm { programs, look_at };
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use super::*;
    use crate::sessions::MAX_OF_USER;
    use base::line::{KEPT_BUSY, KEPT_SPARINGLY};

    #[test]
    fn who_has_much_in_flight_keeps_its_room_until_it_is_silent_and_only_so_many_do() {
        let mut bench = Bench::new(1 << 20);
        let ids: Vec<_> = (0..MAX_OF_USER.min(200)).map(|_| bench.add(0)).collect();
        for id in &ids {
            bench.send(*id, 8000);
            bench.end_line(*id);
        }
        let kept = |bench: &mut Bench| -> Vec<usize> {
            let room = |id: &ClientId| bench.sessions.get(*id).unwrap().reader.room_kept();
            ids.iter().map(room).collect()
        };
        let before = kept(&mut bench);
        assert!(before[..WARM].iter().all(|room| (8000..=KEPT_BUSY).contains(room)), "{before:?}");
        assert!(before[WARM..].iter().all(|room| *room <= KEPT_SPARINGLY), "{before:?}");
        assert!(bench.sessions.deadline().is_some());
        bench.pass(Duration::from_millis(1));
        // One goes on.
        bench.pass(WARM_FOR / 2);
        bench.sessions.was_active(ids[0]);
        bench.pass(WARM_FOR / 2);
        bench.pass(WARM_FOR / 10);
        let after = kept(&mut bench);
        assert!(after[0] > KEPT_SPARINGLY, "{after:?}");
        assert!(after[1..].iter().all(|room| *room <= KEPT_SPARINGLY), "{after:?}");
        bench.pass(2 * WARM_FOR);
        assert!(kept(&mut bench)[0] <= KEPT_SPARINGLY);
        assert_eq!(bench.sessions.deadline(), None, "nothing wakes an idle process");
    }
}
