//! Which request ids of a link were used.
//!
//! A caller numbers its requests upwards, but a long or critical one may begin after a later one
//! has: its turn comes when the window has room for it. So an id may come late, once. Bounded: a
//! caller skips at most [`MAX_SKIPPED`] ids at once, and of those it skipped so many are
//! remembered, the highest; an older one that comes after all is taken for used.

use std::collections::BTreeSet;

/// Ids skipped at once, and remembered as unused.
pub(super) const MAX_SKIPPED: usize = 8192;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ids {
    highest: u64,
    /// Below `highest` and not used.
    skipped: BTreeSet<u64>,
}

impl Ids {
    /// Takes an id for a new request; `false` if it was used, or cannot be the next.
    pub(super) fn begin(&mut self, id: u64) -> bool {
        if id <= self.highest {
            return self.skipped.remove(&id);
        }
        let between = id - self.highest - 1;
        if between > MAX_SKIPPED as u64 {
            return false;
        }
        self.skipped.extend(self.highest + 1..id);
        self.highest = id;
        while self.skipped.len() > MAX_SKIPPED {
            self.skipped.pop_first();
        }
        true
    }

    /// Whether a request with this id has come.
    pub(super) fn has_begun(&self, id: u64) -> bool {
        (1..=self.highest).contains(&id) && !self.skipped.contains(&id)
    }

    /// The highest that came.
    pub(super) fn highest(&self) -> u64 {
        self.highest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_is_taken_once_in_whatever_order_they_begin() {
        let mut ids = Ids::default();
        assert!(!ids.has_begun(0) && !ids.has_begun(1));
        for id in [1, 4, 2, 5] {
            assert!(ids.begin(id) && ids.has_begun(id), "{id}");
            assert!(!ids.begin(id), "{id} again");
        }
        assert!(!ids.has_begun(3) && ids.begin(3) && !ids.begin(3));
        assert!(!ids.begin(0));
        assert_eq!(ids.highest(), 5);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut ids = Ids::default();
        assert!(!ids.begin(MAX_SKIPPED as u64 + 2), "too far");
        assert!(ids.begin(MAX_SKIPPED as u64 + 1));
        assert_eq!(ids.skipped.len(), MAX_SKIPPED);
        assert!(ids.begin(MAX_SKIPPED as u64 + 3));
        assert_eq!(ids.skipped.len(), MAX_SKIPPED);
        assert!(!ids.begin(1), "forgotten");
        assert!(ids.begin(2));
    }
}
