//! What goes wrong again and again is logged once a minute, with how often it went wrong since. Pure.
//!
//! A full disk fails every request, thousands a second: a line for each would fill what is left of the disk, and hide
//! all other lines. Two texts are the same fault if they differ in nothing but digits.

use std::time::{Duration, Instant};

/// How long the same fault is not logged again.
const REPEAT_AFTER: Duration = Duration::from_secs(60);

/// Different faults that are kept in mind; beyond them the one that was logged longest ago is forgotten, and is
/// logged again when it comes again.
const MOST_FAULTS: usize = 8;

#[derive(Debug)]
struct Fault {
    text: String,
    logged_at: Instant,
    unlogged: u64,
}

/// The faults of late.
#[derive(Debug, Default)]
pub struct Repeats(Vec<Fault>);

impl Repeats {
    /// What to log of a fault that has just come about, if anything.
    pub fn line(&mut self, text: &str, now: Instant) -> Option<String> {
        let found = self.0.iter().position(|fault| same_but_for_digits(&fault.text, text));
        if let Some(fault) = found.and_then(|place| self.0.get_mut(place))
            && now.saturating_duration_since(fault.logged_at) < REPEAT_AFTER
        {
            fault.unlogged += 1;
            return None;
        }
        let unlogged = match found {
            Some(place) => self.0.remove(place).unlogged,
            None => 0,
        };
        if self.0.len() >= MOST_FAULTS {
            self.0.remove(0);
        }
        // The oldest stands first.
        self.0.push(Fault { text: text.to_owned(), logged_at: now, unlogged: 0 });
        Some(match unlogged {
            0 => text.to_owned(),
            more => format!("{text} (and {more} times more since this was last logged)"),
        })
    }
}

fn same_but_for_digits(a: &str, b: &str) -> bool {
    let rest = |text| str::chars(text).filter(|c| !c.is_ascii_digit());
    rest(a).eq(rest(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_logged_once_a_minute_with_how_often_it_came() {
        let start = Instant::now();
        let mut repeats = Repeats::default();
        assert_eq!(repeats.line("full: 17 bytes free", start).as_deref(), Some("full: 17 bytes free"));
        for second in 0..60 {
            assert_eq!(repeats.line("full: 9 bytes free", start + Duration::from_secs(second)), None);
        }
        assert_eq!(
            repeats.line("full: 8 bytes free", start + REPEAT_AFTER).as_deref(),
            Some("full: 8 bytes free (and 60 times more since this was last logged)")
        );
        assert_eq!(
            repeats.line("full: 8 bytes free", start + 2 * REPEAT_AFTER).as_deref(),
            Some("full: 8 bytes free")
        );
    }

    #[test]
    fn faults_that_take_turns_are_each_logged_once_and_few_are_kept_in_mind() {
        let now = Instant::now();
        let mut repeats = Repeats::default();
        let logged = |repeats: &mut Repeats, text: &str| repeats.line(text, now).is_some();
        assert!(logged(&mut repeats, "a") && logged(&mut repeats, "b"));
        assert!(!logged(&mut repeats, "a") && !logged(&mut repeats, "b"));
        for fault in "cdefghijklmnop".chars() {
            assert!(logged(&mut repeats, &fault.to_string()));
            assert!(repeats.0.len() <= MOST_FAULTS);
        }
        assert!(logged(&mut repeats, "a"), "forgotten");
    }
}
