//! Flow control of what comes in: how much the other side may still send, and what it gets back.
//!
//! Every byte that is held for the other side is within the window that our HELLO gave it, so the
//! window bounds the memory of one link's messages: of the requests at the called side, of the
//! answers that are not whole at the caller.

use std::num::NonZeroU32;

/// What is given back is told in portions of this part of the window: often enough that the longest
/// line fits into what is left, seldom enough to cost next to nothing.
const PORTION: u64 = 4;

/// The other side's account with us.
#[derive(Debug)]
pub struct Credit {
    window: u64,
    /// What it may send.
    left: u64,
    /// Given back, and not told yet. `left + owed <= window`; the rest is held for its messages.
    owed: u64,
}

impl Credit {
    /// The account that HELLO opens.
    pub fn new(window: u32) -> Credit {
        Credit { window: window.into(), left: window.into(), owed: 0 }
    }

    /// A frame came that costs so much; whether the other side was allowed to send it.
    pub fn take(&mut self, cost: usize) -> bool {
        match self.left.checked_sub(cost as u64) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// What frames cost is held no longer.
    pub fn give_back(&mut self, cost: usize) {
        self.owed += cost as u64;
        debug_assert!(self.left + self.owed <= self.window);
    }

    /// What is to be told the other side now, if it is worth a frame.
    pub fn due(&self) -> Option<NonZeroU32> {
        let portion = self.owed >= self.window / PORTION;
        NonZeroU32::new(u32::try_from(self.owed).unwrap_or(u32::MAX)).filter(|_| portion)
    }

    /// The other side was told of so many bytes.
    pub fn told(&mut self, bytes: NonZeroU32) {
        let bytes = u64::from(bytes.get());
        self.owed -= bytes;
        self.left += bytes;
    }

    /// Bytes of the window that messages hold which were begun and not let go of.
    pub fn held(&self) -> u64 {
        self.window - self.left - self.owed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secure::{least_window, message_cost};

    #[test]
    fn what_is_given_back_is_told_in_portions_and_never_more_than_was_taken() {
        let mut credit = Credit::new(1000);
        assert!(credit.take(900));
        assert!(!credit.take(101), "beyond the window");
        assert!(credit.take(100), "a refused frame took nothing");
        credit.give_back(249);
        assert_eq!((credit.due(), credit.held()), (None, 751), "what is not told is held no longer");
        credit.give_back(1);
        let due = credit.due().unwrap();
        assert_eq!(due.get(), 250);
        credit.told(due);
        assert_eq!((credit.due(), credit.held()), (None, 750));
        assert!(credit.take(250) && !credit.take(1));
    }

    #[test]
    fn the_longest_line_fits_whatever_is_not_told_yet() {
        for max_line in [1, 1024, 16 * 1024, 1 << 20, 16 << 20] {
            let window = least_window(max_line);
            let mut credit = Credit::new(u32::try_from(window).unwrap());
            let untold = window / 4 - 1;
            assert!(credit.take(untold));
            credit.give_back(untold);
            assert_eq!(credit.due(), None);
            assert!(credit.take(message_cost(max_line + 17 + 64)), "{max_line}");
        }
    }
}
