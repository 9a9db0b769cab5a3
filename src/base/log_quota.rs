//! What comes again and again is logged seldom, with how often it came since. Pure.
//!
//! A full disk fails every request, thousands a second: a line for each would fill what is left of
//! the disk, and hide all other lines. [`Repeats`] logs the same fault once a minute; two texts are
//! the same fault if they differ in nothing but digits. Whoever is on the other end may choose
//! other words each time, so a [`Quota`] bounds all lines about one thing, whatever they say; and
//! where many users may each do so, [`ByUser`] leaves each of them lines of its own.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

/// How long the same fault is not logged again.
const REPEAT_AFTER: Duration = Duration::from_secs(60);

/// Different faults that are kept in mind; beyond them the one that was logged longest ago is
/// forgotten, and is logged again when it comes again.
const MOST_FAULTS: usize = 8;

#[derive(Debug)]
struct Fault {
    about: Option<u32>,
    text: String,
    logged_at: Instant,
    unlogged: u64,
}

/// Most lines about one thing in [`REPEAT_AFTER`].
pub const MOST_LINES: u64 = 20;

/// Most of them about one user, of those about all.
const USER_LINES: u64 = 5;

/// Users, and things about them, that are kept in mind; beyond them the counts begin again.
const MOST_USERS: usize = 256;

/// Bounds the lines about one thing: [`MOST_LINES`] a minute, and with the next how many were not
/// logged.
#[derive(Debug)]
pub struct Quota {
    most: u64,
    begun: Option<Instant>,
    logged: u64,
    unlogged: u64,
}

impl Default for Quota {
    fn default() -> Quota {
        Quota::of(MOST_LINES)
    }
}

impl Quota {
    /// So many lines a minute.
    fn of(most: u64) -> Quota {
        Quota { most, begun: None, logged: 0, unlogged: 0 }
    }

    /// Whether one more may be logged.
    pub fn allows(&mut self, now: Instant) -> bool {
        if self.begun.is_none_or(|begun| now.saturating_duration_since(begun) >= REPEAT_AFTER) {
            self.begun = Some(now);
            self.logged = 0;
        }
        if self.logged >= self.most {
            self.unlogged += 1;
            return false;
        }
        self.logged += 1;
        true
    }

    /// What to log of a text, if anything.
    pub fn line(&mut self, text: &str, now: Instant) -> Option<String> {
        self.allows(now).then(|| match std::mem::take(&mut self.unlogged) {
            0 => text.to_owned(),
            more => format!("{text} (and {more} lines like this were not logged)"),
        })
    }
}

/// The faults of late.
#[derive(Debug, Default)]
pub struct Repeats {
    faults: Vec<Fault>,
    quota: Quota,
}

impl Repeats {
    /// What to log of a fault that has just come about, if anything.
    pub fn line(&mut self, text: &str, now: Instant) -> Option<String> {
        self.line_about(None, text, now)
    }

    /// The same of a fault that somebody may have, whom digits tell from others.
    pub fn line_about(&mut self, about: Option<u32>, text: &str, now: Instant) -> Option<String> {
        let is_same = |fault: &Fault| fault.about == about && same_but_for_digits(&fault.text, text);
        let found = self.faults.iter().position(is_same);
        if let Some(fault) = found.and_then(|place| self.faults.get_mut(place))
            && now.saturating_duration_since(fault.logged_at) < REPEAT_AFTER
        {
            fault.unlogged += 1;
            return None;
        }
        let unlogged = match found {
            Some(place) => self.faults.remove(place).unlogged,
            None => 0,
        };
        if self.faults.len() >= MOST_FAULTS {
            self.faults.remove(0);
        }
        // The oldest stands first.
        self.faults.push(Fault { about, text: text.to_owned(), logged_at: now, unlogged: 0 });
        let line = match unlogged {
            0 => text.to_owned(),
            more => format!("{text} (and {more} times more since this was last logged)"),
        };
        self.quota.line(&line, now)
    }
}

/// What comes again and again of many users: the same of the same user is logged once a minute,
/// five lines a minute of one user and [`MOST_LINES`] of all.
#[derive(Debug, Default)]
pub struct ByUser {
    /// When it was logged last, by user and digest, and how often it came since.
    said: HashMap<(u32, u64), (Instant, u64)>,
    users: HashMap<u32, Quota>,
    all: Quota,
}

impl ByUser {
    /// What to log of `what` that a user has done, if anything: `text`, which names both.
    pub fn line(&mut self, user: u32, what: &[u8], text: &str, now: Instant) -> Option<String> {
        let mut digest = DefaultHasher::new();
        what.hash(&mut digest);
        let key = (user, digest.finish());
        let unsaid = match self.said.get_mut(&key) {
            Some((at, unsaid)) if now.saturating_duration_since(*at) < REPEAT_AFTER => {
                *unsaid += 1;
                return None;
            }
            Some((_, unsaid)) => *unsaid,
            None => 0,
        };
        if self.users.len() >= MOST_USERS && !self.users.contains_key(&user) {
            self.users.clear();
        }
        let own = self.users.entry(user).or_insert_with(|| Quota::of(USER_LINES));
        let text = match unsaid {
            0 => text.to_owned(),
            more => format!("{text} (and {more} times more since this was last logged)"),
        };
        let line = own.line(&text, now).and_then(|line| self.all.line(&line, now))?;
        if self.said.len() >= MOST_USERS && !self.said.contains_key(&key) {
            self.said.retain(|_, (at, _)| now.saturating_duration_since(*at) < REPEAT_AFTER);
            if self.said.len() >= MOST_USERS {
                self.said.clear();
            }
        }
        self.said.insert(key, (now, 0));
        Some(line)
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
    fn a_fault_of_one_is_not_the_same_as_that_of_another() {
        let now = Instant::now();
        let mut repeats = Repeats::default();
        let mut logs = |about, text| repeats.line_about(about, text, now).is_some();
        assert!(logs(Some(7), "user 7 has 100") && !logs(Some(7), "user 7 has 101"));
        assert!(logs(Some(8), "user 8 has 100") && !logs(Some(8), "user 8 has 102"));
        assert!(!logs(Some(7), "user 7 has 102"));
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
            assert!(repeats.faults.len() <= MOST_FAULTS);
        }
        assert!(logged(&mut repeats, "a"), "forgotten");
    }

    #[test]
    fn other_words_each_time_are_no_more_than_the_quota_and_are_counted() {
        let begun = Instant::now();
        let mut repeats = Repeats::default();
        let mut logged = Vec::new();
        for second in 0..180 {
            for count in 0..100 {
                let words = "abcdefghij".repeat(count + 1) + &"x".repeat(second);
                logged.extend(repeats.line(&words, begun + Duration::from_secs(second as u64)));
            }
        }
        assert_eq!(logged.len() as u64, 3 * MOST_LINES);
        assert!(logged[20].ends_with("(and 5980 lines like this were not logged)"), "{}", logged[20]);
    }

    #[test]
    fn each_user_is_named_for_each_thing_and_none_takes_the_lines_of_another() {
        let now = Instant::now();
        let mut by_user = ByUser::default();
        let mut logs = |user: u32, what: &str, at| by_user.line(user, what.as_bytes(), what, at);
        for user in [7, 8] {
            assert_eq!(logs(user, "pay", now).as_deref(), Some("pay"), "{user}");
            assert_eq!(logs(user, "log", now).as_deref(), Some("log"), "{user}");
            assert_eq!(logs(user, "pay", now), None, "said of this user already");
        }
        let later = now + REPEAT_AFTER;
        let again = "pay (and 1 times more since this was last logged)";
        assert_eq!(logs(7, "pay", later).as_deref(), Some(again));
        // One that has other words each time has five lines, and leaves others theirs.
        let flood = (0..1000).filter_map(|number| logs(7, &format!("word {number}"), later)).count();
        assert_eq!(flood as u64, USER_LINES - 1);
        assert!(logs(8, "pay", later).is_some());
        // So have all together, however many they are.
        let all = (100..10_000).filter_map(|user| logs(user, "pay", later)).count();
        assert_eq!(all as u64, MOST_LINES - USER_LINES - 1);
        assert!(by_user.users.len() <= MOST_USERS && by_user.said.len() <= MOST_USERS);
        let next = by_user.line(7, b"new", "new", later + REPEAT_AFTER).unwrap();
        assert!(
            next.starts_with("new (and ") && next.contains(" lines like this were not logged)"),
            "{next}"
        );
    }
}
