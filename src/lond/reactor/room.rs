//! Room for what handlers have begun to answer and not ended, over all connections of a link child
//! together.
//!
//! Pure. Each answer may be as long as `max_line`, and each handler may have many connections:
//! without a bound on the sum a few handlers that never come to an end would take gigabytes. Beyond
//! [`BEGUN_MOST`] only the connection that has the longest beginning is read, so that one answer
//! after the other comes to its end, or is overdue and makes room. The others are left unread,
//! which holds their programs up, and their time stands still.

use net::Token;

/// Bytes of answers that are begun; at this mark one connection alone is read, which may go beyond
/// it to its `max_line`.
pub(super) const BEGUN_MOST: usize = 8 << 20;

/// See the module. Made anew for each part of a turn.
#[derive(Debug)]
pub(super) struct Room {
    left: usize,
    longest: Option<(Token, usize)>,
}

impl Room {
    /// What is left beside what these connections have begun.
    pub(super) fn beside(begun: impl Iterator<Item = (Token, usize)>) -> Room {
        let mut room = Room { left: BEGUN_MOST, longest: None };
        for (token, bytes) in begun {
            room.left = room.left.saturating_sub(bytes);
            if bytes > room.longest.map_or(0, |(_, most)| most) {
                room.longest = Some((token, bytes));
            }
        }
        room
    }

    /// Whether this connection may be read.
    pub(super) fn may_read(&self, token: Token) -> bool {
        self.left > 0 || self.longest.is_some_and(|(longest, _)| longest == token)
    }

    /// What a connection has begun was this long, and is that long now.
    pub(super) fn took(&mut self, before: usize, after: usize) {
        self.left = (self.left + before).saturating_sub(after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_bound_only_the_longest_is_read_and_its_end_makes_room_for_all() {
        let begun = |bytes: [usize; 3]| Room::beside((0..).map(Token).zip(bytes));
        let may = |room: &Room| [0, 1, 2].map(|token| room.may_read(Token(token)));
        let mut room = begun([0, 10, BEGUN_MOST - 11]);
        assert_eq!(may(&room), [true; 3]);
        room.took(10, 11);
        assert_eq!(may(&room), [false, false, true]);
        assert_eq!(may(&begun([BEGUN_MOST / 2 + 1, BEGUN_MOST / 2, BEGUN_MOST])), [false, false, true]);
        assert_eq!(may(&begun([BEGUN_MOST, BEGUN_MOST, 0])), [true, false, false], "one of two");
        room.took(BEGUN_MOST - 11, 0);
        assert_eq!(may(&room), [true; 3]);
    }
}
