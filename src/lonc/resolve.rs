//! What a link child asks its supervisor of its peer's addresses, and what becomes of the answers:
//! pure.
//!
//! A look-up may take longer than a dial. An answer that comes between two dials serves the next
//! one, so a host is reached however long its name takes; it is used once, so that the address of a
//! dial is no older than the pause before it. Each dial that has none asks, whatever was asked
//! before: an answer may have been lost with the supervisor's program. Questions are numbered, and
//! the last one's answer alone counts.

use std::net::SocketAddr;
use supervise::look_up::Answer;

/// What a look-up has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The question that this answers: addresses are asked for by it, and their places.
    pub number: u64,
    /// The peer's addresses, in the order of the answer.
    pub addresses: Vec<SocketAddr>,
}

/// The questions of one child.
#[derive(Debug, Default)]
pub struct Resolver {
    /// Number of the last question.
    asked: u64,
    /// A dial waits for its answer.
    wanted: bool,
    /// Found when no dial wanted it any more.
    late: Option<Found>,
}

impl Resolver {
    /// A dial begins. Gives what was found too late for the one before.
    ///
    /// # Errors
    /// There is no such thing: the question of this number is to be asked.
    pub fn begin(&mut self) -> Result<Found, u64> {
        self.late.take().ok_or_else(|| {
            self.wanted = true;
            self.asked += 1;
            self.asked
        })
    }

    /// The dial is over; an answer that comes now is for the next.
    pub fn give_up(&mut self) {
        self.wanted = false;
    }

    /// The answer to a question; what the dial under way is to try, or why it has failed.
    pub fn answered(&mut self, number: u64, answer: Answer) -> Option<Result<Found, String>> {
        if number != self.asked {
            return None;
        }
        let found = answer.map(|addresses| Found { number, addresses });
        if std::mem::take(&mut self.wanted) {
            return Some(found);
        }
        // Of one that failed there is nobody to be told: the dial that wanted it has failed too.
        self.late = found.ok();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(n: u8) -> Answer {
        Ok(vec![SocketAddr::from(([192, 0, 2, n], 5663))])
    }

    #[test]
    fn an_answer_serves_the_dial_that_asked_or_else_the_next_one_once() {
        let mut resolver = Resolver::default();
        assert_eq!(resolver.begin(), Err(1));
        let found = resolver.answered(1, addresses(1)).unwrap().unwrap();
        assert_eq!((found.number, found.addresses), (1, addresses(1).unwrap()));
        resolver.give_up();
        assert_eq!(resolver.begin(), Err(2), "it is not used again");
        resolver.give_up();
        assert_eq!(resolver.answered(2, addresses(2)), None, "too late");
        assert_eq!(resolver.begin(), Ok(Found { number: 2, addresses: addresses(2).unwrap() }));
        resolver.give_up();
        assert_eq!(resolver.begin(), Err(3));
        assert_eq!(resolver.answered(3, Err("no".into())), Some(Err("no".into())));
    }

    #[test]
    fn an_answer_that_was_lost_is_asked_for_again_and_one_that_comes_twice_is_heard_once() {
        let mut resolver = Resolver::default();
        assert_eq!(resolver.begin(), Err(1));
        resolver.give_up();
        assert_eq!(resolver.begin(), Err(2));
        assert_eq!(resolver.answered(1, addresses(1)), None, "the answer to the second is to come");
        assert!(resolver.answered(2, addresses(2)).is_some());
        resolver.give_up();
        assert_eq!(resolver.begin(), Err(3));
        resolver.give_up();
        assert_eq!(resolver.answered(3, Err("failed".into())), None);
        assert_eq!(resolver.begin(), Err(4), "a failure is not kept");
    }
}
