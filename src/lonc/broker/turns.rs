//! Whose turn it is to be served: pure.
//!
//! Users have their turns one after the other, and of each user one program, so that a user with a
//! hundred programs has no more than one with a single one. A user who comes waits for one turn of
//! each of the others at most.

use std::collections::{HashMap, VecDeque};

/// Users whose empty queues are kept, so that a request asks for no memory for its turn.
const USERS_KEPT: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Turns<P> {
    /// The programs of each user that waits; empty ones of users who do not.
    programs: HashMap<u32, VecDeque<P>>,
    /// Those users who wait, in turn.
    users: VecDeque<u32>,
}

impl<P> Default for Turns<P> {
    fn default() -> Turns<P> {
        Turns { programs: HashMap::new(), users: VecDeque::new() }
    }
}

impl<P: Copy> Turns<P> {
    /// A program of this user waits, which did not.
    pub(super) fn push(&mut self, user: u32, id: P) {
        let programs = self.programs.entry(user).or_default();
        if programs.is_empty() {
            self.users.push_back(user);
        }
        programs.push_back(id);
    }

    /// The next one of a user who `may` be served, which waits no longer. The others keep their
    /// places.
    pub(super) fn pop(&mut self, may: impl Fn(u32) -> bool) -> Option<P> {
        let place = self.users.iter().position(|user| may(*user))?;
        let user = self.users.remove(place)?;
        let programs = self.programs.get_mut(&user)?;
        let id = programs.pop_front();
        if !programs.is_empty() {
            self.users.push_back(user);
        } else if self.programs.len() > USERS_KEPT {
            self.programs.remove(&user);
        }
        id
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Whether nobody waits who `may` be served.
    pub(super) fn none(&self, may: impl Fn(u32) -> bool) -> bool {
        !self.users.iter().any(|user| may(*user))
    }

    /// Only those that `stay` wait on.
    pub(super) fn retain(&mut self, mut stay: impl FnMut(P) -> bool) {
        self.programs.retain(|_, programs| {
            programs.retain(|id| stay(*id));
            !programs.is_empty()
        });
        self.users.retain(|user| self.programs.contains_key(user));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(turns: &mut Turns<u64>) -> Vec<u64> {
        std::iter::from_fn(|| turns.pop(|_| true)).collect()
    }

    #[test]
    fn users_have_their_turns_one_after_the_other_and_the_programs_of_each_likewise() {
        let mut turns = Turns::default();
        for id in 0..4 {
            turns.push(1000, id);
        }
        turns.push(1001, 10);
        turns.push(1002, 20);
        turns.push(1002, 21);
        assert_eq!(all(&mut turns), [0, 10, 20, 1, 21, 2, 3]);
        assert!(turns.is_empty());
    }

    #[test]
    fn who_may_not_be_served_keeps_its_place_and_others_pass() {
        let mut turns = Turns::default();
        for (user, id) in [(1, 1), (2, 2), (3, 3), (2, 4)] {
            turns.push(user, id);
        }
        assert_eq!(turns.pop(|user| user != 1), Some(2));
        assert_eq!(turns.pop(|user| user != 1), Some(3));
        assert!(turns.none(|user| user == 3) && !turns.none(|user| user == 1));
        assert_eq!(all(&mut turns), [1, 4]);
    }

    #[test]
    fn of_users_who_are_gone_a_few_are_remembered_and_no_more() {
        let mut turns = Turns::default();
        for user in 0..10_000 {
            turns.push(user, 1);
            assert_eq!(all(&mut turns), [1]);
        }
        assert!(turns.programs.len() <= USERS_KEPT + 1);
        assert!(turns.is_empty() && turns.pop(|_| true).is_none());
    }

    #[test]
    fn who_does_not_stay_has_no_turn() {
        let mut turns = Turns::default();
        for (user, id) in [(1, 1), (2, 2), (1, 3), (3, 4)] {
            turns.push(user, id);
        }
        turns.retain(|id| id % 2 == 1);
        assert_eq!(all(&mut turns), [1, 3]);
    }
}
