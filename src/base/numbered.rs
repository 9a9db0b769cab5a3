//! What is known by numbers that go up: requests in flight, by the numbers that they were sent
//! under.
//!
//! A map in the order of the numbers, for which nearly always the number that is added is a little
//! above the others and the one that is taken is among the first: adding and taking are a few steps
//! in one piece of memory then, without an allocation. What stays while others come and go (a
//! request that waits long) is moved to a tree, so that the memory is that of what there is, and of
//! [`SPAN`] places at most. Any number may be added in any order: that costs time, not memory.

use std::collections::{BTreeMap, VecDeque};

/// Most places that there are between the first number and the last one, outside the tree.
const SPAN: usize = 8192;
/// Places without a value that one addition makes; a gap that is longer is none within the span.
const GAP: usize = 64;
/// Places whose memory is kept while there is nothing.
const KEPT: usize = 512;

/// Values by their numbers.
#[derive(Debug)]
pub struct Numbered<T> {
    /// Those with numbers below `first`.
    old: BTreeMap<u64, T>,
    /// The number of the first place of `places`, at which there is a value.
    first: u64,
    places: VecDeque<Option<T>>,
    /// How many values there are in `places`.
    held: usize,
}

impl<T> Default for Numbered<T> {
    fn default() -> Numbered<T> {
        Numbered { old: BTreeMap::new(), first: 0, places: VecDeque::new(), held: 0 }
    }
}

impl<T> Numbered<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.old.len() + self.held
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.held == 0 && self.old.is_empty()
    }

    /// Adds a value; returns the one that had this number.
    pub fn insert(&mut self, number: u64, value: T) -> Option<T> {
        if self.held == 0 && number >= self.first {
            // Nothing is there, unless in the tree; and what is there has lower numbers.
            self.first = number;
        }
        let Some(offset) = number.checked_sub(self.first) else {
            return self.old.insert(number, value);
        };
        if let Some(place) = self.place(number).and_then(|at| self.places.get_mut(at)) {
            let before = place.replace(value);
            self.held += usize::from(before.is_none());
            return before;
        }
        let within = usize::try_from(offset).is_ok_and(|at| at < SPAN && at - self.places.len() <= GAP);
        if within {
            // No more than the gap.
            while ((self.places.len()) as u64) < offset {
                self.places.push_back(None);
            }
        } else {
            self.age(number);
        }
        self.places.push_back(Some(value));
        self.held += 1;
        None
    }

    /// The value with this number.
    pub fn get(&self, number: u64) -> Option<&T> {
        match self.place(number) {
            Some(at) => self.places.get(at)?.as_ref(),
            None => self.old.get(&number),
        }
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        match self.place(number) {
            Some(at) => self.places.get_mut(at)?.as_mut(),
            None => self.old.get_mut(&number),
        }
    }

    /// Takes the value with this number.
    pub fn remove(&mut self, number: u64) -> Option<T> {
        let Some(at) = self.place(number) else { return self.old.remove(&number) };
        let value = self.places.get_mut(at)?.take()?;
        self.held -= 1;
        self.trim();
        Some(value)
    }

    /// The one with the lowest number.
    pub fn first(&self) -> Option<(u64, &T)> {
        self.iter().next()
    }

    /// The same, to be changed.
    pub fn first_mut(&mut self) -> Option<&mut T> {
        match self.old.first_entry() {
            Some(first) => Some(first.into_mut()),
            None => self.places.front_mut()?.as_mut(),
        }
    }

    /// Takes the one with the lowest number.
    pub fn pop_first(&mut self) -> Option<(u64, T)> {
        if let Some(first) = self.old.pop_first() {
            return Some(first);
        }
        let number = self.first;
        Some((number, self.remove(number)?))
    }

    /// All, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.from(0)
    }

    /// Those with this number and higher ones, in order.
    pub fn from(&self, number: u64) -> impl Iterator<Item = (u64, &T)> {
        let skipped = self.place(number).unwrap_or(0);
        let old = self.old.range(number..).map(|(number, value)| (*number, value));
        let places = self.places.iter().enumerate().skip(skipped);
        let first = self.first;
        old.chain(places.filter_map(move |(at, value)| Some((first + at as u64, value.as_ref()?))))
    }

    /// The same, to be changed.
    pub fn from_mut(&mut self, number: u64) -> impl Iterator<Item = (u64, &mut T)> {
        let skipped = self.place(number).unwrap_or(0);
        let old = self.old.range_mut(number..).map(|(number, value)| (*number, value));
        let places = self.places.iter_mut().enumerate().skip(skipped);
        let first = self.first;
        old.chain(places.filter_map(move |(at, value)| Some((first + at as u64, value.as_mut()?))))
    }

    /// Takes all, in the order of their numbers.
    pub fn take_all(&mut self) -> impl Iterator<Item = (u64, T)> + use<T> {
        let Numbered { old, first, places, .. } = std::mem::take(self);
        let places = places.into_iter().enumerate();
        old.into_iter().chain(places.filter_map(move |(at, value)| Some((first + at as u64, value?))))
    }

    /// Where in `places` a number would be; `None`: it is below them. May be behind the last.
    fn place(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }

    /// Makes room for a number behind the last, where there is none: what is too far below it is
    /// old from now on.
    fn age(&mut self, number: u64) {
        let near = number.saturating_sub(self.first.saturating_add(self.places.len() as u64)) <= GAP as u64;
        let room = if near { SPAN as u64 - GAP as u64 - 1 } else { 0 };
        while let Some(front) = self.places.front_mut()
            && number - self.first > room
        {
            if let Some(value) = front.take() {
                self.old.insert(self.first, value);
                self.held -= 1;
            }
            self.places.pop_front();
            self.first += 1;
        }
        self.trim();
        if self.held == 0 {
            self.first = number;
        }
        while near && self.first + (self.places.len() as u64) < number {
            self.places.push_back(None);
        }
    }

    /// Has a value in the first place, or no place.
    fn trim(&mut self) {
        if self.held == 0 {
            self.first = self.first.saturating_add(self.places.len() as u64);
            self.places.clear();
            if self.places.capacity() > KEPT {
                self.places.shrink_to(0);
            }
            return;
        }
        while let Some(None) = self.places.front() {
            self.places.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(numbered: &Numbered<u64>) -> Vec<(u64, u64)> {
        numbered.iter().map(|(number, value)| (number, *value)).collect()
    }

    #[test]
    fn whatever_is_added_and_taken_it_is_a_map_in_order() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..300 {
            let (mut numbered, mut model) = (Numbered::default(), BTreeMap::new());
            let jumps = random.u64(1..=4);
            let mut next = if random.bool() { 1 } else { u64::MAX - 5_000 };
            for step in 0..2_000_u64 {
                let known = model.keys().nth(random.usize(0..8)).copied().unwrap_or(next);
                let any = [known, next, random.u64(..), u64::MAX, 0][random.usize(0..5)];
                match random.u8(0..10) {
                    0..4 => {
                        next = next.saturating_add(match random.u64(0..100) {
                            0..90 => 1,
                            90..97 => random.u64(1..100),
                            _ => random.u64(1..20_000) * jumps,
                        });
                        assert_eq!(numbered.insert(next, step), model.insert(next, step));
                    }
                    4..7 => assert_eq!(numbered.remove(known), model.remove(&known)),
                    7 => assert_eq!(numbered.pop_first(), model.pop_first()),
                    8 if jumps == 1 => assert_eq!(numbered.insert(any, step), model.insert(any, step)),
                    _ => {
                        assert_eq!(numbered.get(any), model.get(&any));
                        assert_eq!(numbered.get_mut(any), model.get_mut(&any));
                        assert_eq!(numbered.remove(any), model.remove(&any));
                    }
                }
                assert_eq!((numbered.len(), numbered.is_empty()), (model.len(), model.is_empty()));
                assert_eq!(numbered.first(), model.first_key_value().map(|(number, value)| (*number, value)));
                assert_eq!(numbered.first_mut().copied(), model.values().next().copied());
                assert!(numbered.places.len() <= SPAN && numbered.held <= numbered.places.len());
                if step % 50 == 0 {
                    assert!(
                        numbered.from(any).map(|(number, _)| number).eq(model.range(any..).map(|one| *one.0))
                    );
                    numbered.from_mut(any).for_each(|(_, value)| *value += 1);
                    model.range_mut(any..).for_each(|(_, value)| *value += 1);
                    assert!(numbered.iter().eq(model.iter().map(|(number, value)| (*number, value))));
                }
            }
            assert!(numbered.take_all().eq(model));
            assert!(numbered.is_empty() && all(&numbered).is_empty());
        }
    }

    #[test]
    fn one_that_stays_costs_no_place_for_those_that_come_and_go() {
        let mut numbered = Numbered::default();
        numbered.insert(1, 1);
        numbered.insert(2, 2);
        for number in 3..1_000_000 {
            numbered.insert(number, number);
            numbered.remove(number - 1);
        }
        assert_eq!(all(&numbered), [(1, 1), (999_999, 999_999)]);
        assert!(numbered.places.capacity() <= 2 * SPAN);
        numbered.pop_first();
        numbered.pop_first();
        assert!(numbered.places.capacity() <= KEPT, "what is empty has given its memory back");
    }

    #[test]
    fn numbers_far_apart_take_no_time_for_what_lies_between() {
        let mut numbered = Numbered::default();
        for number in (0..100_000_u64).map(|count| count << 40) {
            numbered.insert(number, number);
            assert!(numbered.places.len() <= GAP + 1);
        }
        assert_eq!(numbered.len(), 100_000);
    }
}
