//! Which files of `dropped/` one look at the folder is for: the first of each user, however many
//! another has there.
//!
//! Pure. Who may drop files may drop more than a look takes, which cannot be taken in just now: the
//! user has its share of the spool, say. So a look that has not room for all leaves out the last of
//! the user that has the most.

use super::NAMES_MOST;
use crate::spool::layout::Arrived;
use crate::spool::share::Refused;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::ffi::{OsStr, OsString};

/// A user, as the name of a file says it. A version before this did not write it down: `None`.
pub(super) type Owner = Option<u32>;

/// What a look at the folder has found.
#[derive(Debug, Default)]
pub(in crate::spool) struct Listed {
    /// The first names that were not looked at yet, in the order in which the files came.
    pub(super) names: VecDeque<OsString>,
    /// There are others behind these.
    pub(super) more: bool,
    /// Something was taken in, or set aside, since this look.
    pub(super) progress: bool,
    /// Who has had files left because of their share: what is behind these must not overtake them.
    pub(super) over: Refused,
    /// Whose files wait for one that cannot be read just now.
    pub(super) held: BTreeSet<Owner>,
}

/// Whose this file is.
pub(super) fn owner(name: &OsStr) -> Owner {
    Arrived::parse(name).map(|arrived| arrived.user)
}

/// The first names of each user.
#[derive(Debug, Default)]
pub(super) struct First {
    users: BTreeMap<Owner, BinaryHeap<Place>>,
    count: usize,
    more: bool,
}

/// Where a file stands among the others: those that a version before this has moved came before,
/// and are in the order of their names.
type Place = (bool, OsString);

impl First {
    /// One more name.
    pub(super) fn add(&mut self, name: &OsStr) {
        let owner = owner(name);
        self.users.entry(owner).or_default().push((owner.is_some(), name.to_owned()));
        self.count += 1;
        if self.count <= NAMES_MOST {
            return;
        }
        self.more = true;
        self.count -= 1;
        if let Some(most) = self.users.values_mut().max_by_key(|places| places.len()) {
            most.pop();
        }
    }

    pub(super) fn listed(self) -> Listed {
        let mut places: Vec<Place> = self.users.into_values().flatten().collect();
        places.sort_unstable();
        let names = places.into_iter().map(|(_, name)| name).collect();
        Listed { names, more: self.more, ..Listed::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u64, user: u32) -> OsString {
        Arrived { number, user, name: OsStr::new("1.msul1") }.file_name()
    }

    #[test]
    fn a_user_of_very_many_files_leaves_room_for_the_first_of_each_other() {
        let mut first = First::default();
        let many = NAMES_MOST as u64 + 100;
        (0..many).for_each(|number| first.add(&name(number, 1000)));
        (0..10).for_each(|number| first.add(&name(many + number, 1001)));
        first.add(OsStr::new("9.msul1"));
        let listed = first.listed();
        assert!(listed.more && listed.names.len() == NAMES_MOST);
        assert_eq!(listed.names[0], "9.msul1", "moved before there were numbers");
        let greedy = NAMES_MOST as u64 - 11;
        let expected = (0..greedy).map(|number| name(number, 1000));
        let expected = expected.chain((0..10).map(|number| name(many + number, 1001)));
        assert!(listed.names.into_iter().skip(1).eq(expected));
    }
}
