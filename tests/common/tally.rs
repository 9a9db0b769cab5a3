//! Counting what became of numbered messages: lost, repeated, out of order.

use std::collections::HashMap;

/// What became of messages `<prefix><number>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Acknowledged.
    pub messages: usize,
    /// Acknowledged, and never done.
    pub lost: usize,
    /// Done once more than once.
    pub repeated: usize,
    /// First done after a later one.
    pub out_of_order: usize,
}

impl Tally {
    /// Compares what was acknowledged, in the order of sending, with what was done.
    pub fn of(prefix: &str, acknowledged: &[u64], done: &[String]) -> Tally {
        let numbers = done.iter().filter_map(|text| text.strip_prefix(prefix)?.parse().ok());
        Tally::of_numbers(acknowledged, &numbers.collect::<Vec<_>>())
    }

    /// [`Tally::of`], with the numbers of what was done.
    pub fn of_numbers(acknowledged: &[u64], done: &[u64]) -> Tally {
        let mut first: HashMap<u64, usize> = HashMap::new();
        let mut tally = Tally { messages: acknowledged.len(), ..Tally::default() };
        for (place, &number) in done.iter().enumerate() {
            if first.contains_key(&number) {
                tally.repeated += 1;
            }
            first.entry(number).or_insert(place);
        }
        tally.lost = acknowledged.iter().filter(|number| !first.contains_key(number)).count();
        let places: Vec<_> = acknowledged.iter().filter_map(|number| first.get(number)).collect();
        tally.out_of_order = places.windows(2).filter(|pair| pair[0] > pair[1]).count();
        tally
    }
}

#[test]
fn a_tally_sees_each_kind_of_failure() {
    let done = |numbers: &[u64]| numbers.iter().map(|number| format!("do:{number}")).collect::<Vec<_>>();
    let tally = |numbers: &[u64]| Tally::of("do:", &[1, 2, 3], &done(numbers));
    let good = Tally { messages: 3, ..Tally::default() };
    assert_eq!(tally(&[1, 2, 3]), good);
    assert_eq!(tally(&[0, 1, 2, 3, 4]), good, "what was not acknowledged may be done");
    assert_eq!(tally(&[1, 3]), Tally { lost: 1, ..good });
    assert_eq!(tally(&[1, 2, 1, 2, 3]), Tally { repeated: 2, ..good });
    assert_eq!(tally(&[1, 3, 2]), Tally { out_of_order: 1, ..good });
}
