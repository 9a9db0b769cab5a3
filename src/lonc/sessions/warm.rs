//! The programs whose buffers keep their room between requests, so that who sends and gets many at
//! once asks for no memory each time. Who falls silent gives it back.

use super::Sessions;
use crate::session::ClientId;
use std::time::{Duration, Instant};

/// Most room that is kept for all of them, in each direction.
pub(super) const WARM_SUM: usize = 2 << 20;
/// Most room of one buffer.
const WARM_MOST: usize = 256 << 10;
/// How long they do when nothing comes.
pub(super) const WARM_FOR: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Warm {
    programs: Vec<ClientId>,
    /// The room of one of their buffers each, in the sum.
    sum: usize,
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
    /// So many bytes of requests or answers of a program came at once: its buffers keep room for as
    /// many, if that is not too much for all.
    pub(super) fn keep_warm(&mut self, id: ClientId, bytes: usize) {
        let room = bytes.next_power_of_two().min(WARM_MOST);
        let sum = self.warm.sum;
        let Some(session) = self.get(id).filter(|session| session.room < room) else { return };
        let before = session.room;
        if sum + room - before > WARM_SUM {
            return;
        }
        session.keep_room(room);
        self.warm.sum = sum + room - before;
        if before == 0 {
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
        let mut sum = 0;
        programs.retain(|id| {
            let Some(session) = self.get(*id) else { return false };
            let silent = session.active_at + WARM_FOR <= now;
            if silent {
                session.keep_room(0);
            }
            sum += session.room;
            !silent
        });
        let look_at = (!programs.is_empty()).then_some(now + WARM_FOR);
        self.warm = Warm { programs, sum, look_at };
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use super::*;
    use crate::sessions::MAX_OF_USER;
    use base::line::KEPT_SPARINGLY;

    #[test]
    fn who_has_much_in_flight_keeps_its_room_until_it_is_silent_and_only_so_many_do() {
        let mut bench = Bench::new(1 << 20);
        let ids: Vec<_> = (0..MAX_OF_USER.min(200)).map(|_| bench.add(0)).collect();
        for id in &ids {
            bench.send(*id, 9000);
            bench.end_line(*id);
        }
        let kept = |bench: &mut Bench| -> Vec<usize> {
            let room = |id: &ClientId| bench.sessions.get(*id).unwrap().reader.room_kept();
            ids.iter().map(room).collect()
        };
        let before = kept(&mut bench);
        let warm = WARM_SUM / 16384;
        assert!(before[..warm].iter().all(|room| (9001..=16384).contains(room)), "{before:?}");
        assert!(before[warm..].iter().all(|room| *room <= KEPT_SPARINGLY), "{before:?}");
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
