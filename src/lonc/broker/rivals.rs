//! How much one user may have in flight: pure.
//!
//! Requests go to the peer one behind the other, whoever's they are, and its handlers take them in
//! that order. So a request waits behind all that is in flight when it is sent, and turns among
//! those who wait here would come too late. A user alone may have [`ALONE`] parts of what a link
//! has room for: who comes then finds room at once. While another user has asked within
//! [`RECENTLY`], each has [`MOST`] requests and [`MOST_BYTES`] in flight at most: that keeps the
//! handlers of most hosts busy, and what goes beyond would but wait there.
//!
//! Stored messages that are replayed are bounded likewise while anybody asks what is sent at once.
//! Critical requests are not counted there: behind a backlog they are stored, and answered then.

use crate::pending::{MAX_BYTES, MAX_IN_FLIGHT};
use std::time::{Duration, Instant};

/// Requests of a user in flight while others ask; at this mark no more are taken.
pub(super) const MOST: usize = 64;
/// Their bytes, likewise; one request may go beyond it.
pub(super) const MOST_BYTES: usize = 256 << 10;
/// How long who has asked counts as one who asks.
const RECENTLY: Duration = Duration::from_secs(1);
/// What a user alone may have of a link's room, and of how many parts.
const ALONE: (usize, usize) = (3, 4);

/// Who asked of late: see the module.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    last: Option<(u32, Instant)>,
    /// The last one who is another.
    other: Option<(u32, Instant)>,
    /// When anybody's plain request was sent last.
    plain: Option<Instant>,
}

impl Rivals {
    /// This user asks.
    pub(super) fn asks(&mut self, user: u32, now: Instant) {
        if self.last.is_some_and(|(last, _)| last != user) {
            self.other = self.last;
        }
        self.last = Some((user, now));
    }

    /// A plain request was sent.
    pub(super) fn sent_plain(&mut self, now: Instant) {
        self.plain = Some(now);
    }

    /// How many stored messages may be in flight, and how many bytes of them.
    pub(super) fn of_replay(&self, now: Instant) -> (usize, usize) {
        match self.plain.is_some_and(|at| now < at + RECENTLY) {
            true => (MOST, MOST_BYTES),
            false => (usize::MAX, usize::MAX),
        }
    }

    /// When a replay may have more in flight, if nobody asks meanwhile.
    pub(super) fn replay_deadline(&self, now: Instant) -> Option<Instant> {
        self.plain.map(|at| at + RECENTLY).filter(|at| *at > now)
    }

    /// When this user's last rival asked.
    fn rival_of(&self, user: u32) -> Option<Instant> {
        let another = |one: Option<(u32, Instant)>| one.filter(|(who, _)| *who != user);
        another(self.last).or(another(self.other)).map(|(_, at)| at)
    }

    /// Whether this user, who has so much in flight, may have more.
    pub(super) fn allow(&self, user: u32, (requests, bytes): (usize, usize), now: Instant) -> bool {
        let has_rival = self.rival_of(user).is_some_and(|at| now < at + RECENTLY);
        let (most, most_bytes) = match has_rival {
            true => (MOST, MOST_BYTES),
            false => (MAX_IN_FLIGHT * ALONE.0 / ALONE.1, MAX_BYTES * ALONE.0 / ALONE.1),
        };
        requests < most && bytes < most_bytes
    }

    /// When somebody may have more than now, if nobody asks meanwhile.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let ends = [self.last, self.other].into_iter().flatten().map(|(_, at)| at + RECENTLY);
        ends.filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_alone_leaves_a_quarter_and_one_of_several_has_few_until_the_others_are_silent() {
        let begun = Instant::now();
        let mut rivals = Rivals::default();
        rivals.asks(7, begun);
        let most = |rivals: &Rivals, user, now| {
            let count = (0..=MAX_IN_FLIGHT).find(|count| !rivals.allow(user, (*count, 0), now)).unwrap();
            let bytes = (0..=MAX_BYTES).step_by(1024).find(|bytes| !rivals.allow(user, (0, *bytes), now));
            (count, bytes.unwrap())
        };
        assert_eq!(most(&rivals, 7, begun), (3072, 3 << 20));
        assert_eq!(most(&rivals, 8, begun), (MOST, MOST_BYTES), "the first is one who asks");
        rivals.asks(8, begun + RECENTLY / 2);
        assert_eq!(most(&rivals, 7, begun + RECENTLY), (MOST, MOST_BYTES));
        assert_eq!(rivals.deadline(begun + RECENTLY), Some(begun + RECENTLY * 3 / 2));
        rivals.asks(7, begun + RECENTLY * 2);
        assert_eq!(most(&rivals, 7, begun + RECENTLY * 2), (3072, 3 << 20), "the other is silent");
        assert_eq!(most(&rivals, 9, begun + RECENTLY * 2), (MOST, MOST_BYTES));
        rivals.asks(8, begun + RECENTLY * 2);
        rivals.asks(9, begun + RECENTLY * 2);
        for user in 7..11 {
            assert_eq!(most(&rivals, user, begun + RECENTLY * 2), (MOST, MOST_BYTES), "user {user}");
            assert_eq!(most(&rivals, user, begun + RECENTLY * 3), (3072, 3 << 20), "user {user}");
        }
    }
}
