//! The numbers that dropped files get as they are moved. Pure.
//!
//! They rise, so that files are taken in as they came. Where the power goes, the move of one file
//! may be lost and that of a later one be kept, as far as neither was synced: then the first is
//! found where it was dropped, after the start, and gets a number before that of the later one.
//! Which of two is the later one is told by when they were changed last.

use jiff::Timestamp;

/// From one number to the next: between them is room for files whose move was lost.
const STRIDE: u64 = 1000;

/// The numbers of one peer's files.
#[derive(Debug)]
pub(super) struct Numbers {
    /// What the next one gets that came behind all.
    next: u64,
    /// What was there at the start, and what was moved between: numbers, in order, and when the
    /// files were changed.
    there: Vec<(u64, Timestamp)>,
}

impl Numbers {
    /// Counts on from the time, so that what was there before and is gone had lower ones.
    pub(super) fn counting_from(wall: Timestamp) -> Numbers {
        let micros = u64::try_from(wall.as_microsecond()).unwrap_or_default();
        Numbers { next: micros.saturating_mul(STRIDE), there: Vec::new() }
    }

    /// A file with this number is there.
    pub(super) fn is_taken(&mut self, number: u64) {
        self.next = self.next.max(number.saturating_add(STRIDE));
    }

    /// It was there at the start, and was changed then.
    pub(super) fn was_there(&mut self, number: u64, modified: Timestamp) {
        let at = self.there.partition_point(|(other, _)| *other < number);
        self.there.insert(at, (number, modified));
    }

    /// The number of a file that was changed then.
    pub(super) fn of(&self, modified: Timestamp) -> u64 {
        let Some(later) = self.there.iter().position(|(_, at)| *at > modified) else { return self.next };
        let numbers = |at: usize| self.there.get(at).map_or(self.next, |(number, _)| *number);
        let behind = numbers(later);
        let before = later.checked_sub(1).map_or(behind.saturating_sub(STRIDE), numbers);
        // Where there is no more room their names decide.
        before.saturating_add(1).min(behind.saturating_sub(1))
    }

    /// A file was moved under this number.
    pub(super) fn moved(&mut self, number: u64, modified: Timestamp) {
        if number < self.next {
            self.was_there(number, modified);
        }
        self.is_taken(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn numbers_rise_with_the_time_and_past_those_that_are_there() {
        let mut numbers = Numbers::counting_from(at(5));
        assert_eq!(numbers.of(at(1)), 5_000_000_000);
        numbers.is_taken(7_000_000_000);
        assert_eq!(numbers.of(at(1)), 7_000_001_000);
        numbers.moved(7_000_001_000, at(1));
        assert_eq!(numbers.of(at(1)), 7_000_002_000);
        assert!(numbers.there.is_empty(), "what is moved behind all is not kept");
    }

    #[test]
    fn files_whose_move_was_lost_get_numbers_between_those_that_came_before_and_after_them() {
        let mut numbers = Numbers::counting_from(at(1));
        for (number, modified) in [(20_000, 20), (10_000, 10), (21_000, 22)] {
            numbers.is_taken(number);
            numbers.was_there(number, at(modified));
        }
        let mut order = vec![10_000, 20_000, 21_000];
        for (modified, place) in [(5, 0), (6, 1), (15, 3), (16, 4), (21, 6)] {
            let number = numbers.of(at(modified));
            numbers.moved(number, at(modified));
            order.insert(place, number);
        }
        assert!(order.is_sorted() && order.windows(2).all(|two| two[0] < two[1]), "{order:?}");
        assert_eq!(numbers.of(at(22)), 1_000_000_000, "behind all");
    }
}
