//! Files of the status: when they are written, and how.
//!
//! All changes of one turn of the loop are one write, and after a write that took `t` there is none
//! for [`REST`]` * t`: with thousands of links coming up at once the files cost at most 5 % of a
//! core, and are still never older than the states by more than that. A file is written under a
//! name of its writer's own and replaced by a rename, so that nobody reads half of one, and two
//! programs that write to one folder do not mix theirs.

use base::Pin;
use base::clock::{WallClock, in_words, moved};
use base::disk::own::{self, OwnFile};
use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};
use status::Uptime;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How many times its own duration a write is not followed by another.
pub const REST: u32 = 20;

/// No rest is longer than this: a disk that hung once must not make the files stale for long. So
/// long is also the pause before a write that failed is tried again, whether or not anything
/// changes meanwhile.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// Permission bits of the files: what the links do is no secret on this host.
const MODE: u32 = 0o644;

/// Bytes: more than the files of tens of thousands of links have.
const LONGEST: u64 = 64 << 20;

/// Puts a file with `content` in the place of `path` at one stroke.
///
/// # Errors
/// What the system said; `path` is as it was then, and nothing is left beside it.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = OwnFile::create(path, MODE)?;
    new.file().write_all(content)?;
    new.replace()
}

/// What stands in a file that a program before this one has left, if it is there and one of ours
/// can be so long.
pub fn left(path: &Path) -> Option<Vec<u8>> {
    // Whatever lies there instead is not waited for.
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    let about = file.metadata().ok()?;
    let mut content = Vec::new();
    let is_ours = about.is_file() && about.len() <= LONGEST;
    is_ours.then(|| file.take(LONGEST).read_to_end(&mut content)).and_then(Result::ok)?;
    Some(content)
}

/// Now, by a clock that nobody sets; `None` where the system does not tell.
pub fn uptime() -> Option<Uptime> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
    let seconds = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?.tv_sec();
    Some(Uptime { boot, seconds: u64::try_from(seconds).ok()? })
}

/// When to write: pure.
#[derive(Debug)]
pub struct Pace {
    changed: bool,
    not_before: Instant,
}

impl Pace {
    /// Something is to be written at once.
    pub fn new(now: Instant) -> Pace {
        Pace { changed: true, not_before: now }
    }

    /// Notes that what is written is out of date.
    pub fn changed(&mut self) {
        self.changed = true;
    }

    /// When the next write is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.changed.then_some(self.not_before)
    }

    /// Notes that something could not be written: it stays due.
    pub fn failed(&mut self, ended: Instant) {
        self.changed = true;
        self.not_before = ended + LONGEST_REST;
    }

    /// Notes that all was written, and how long that took.
    pub fn wrote(&mut self, begun: Instant, ended: Instant) {
        self.changed = false;
        self.not_before =
            ended + ended.saturating_duration_since(begun).saturating_mul(REST).min(LONGEST_REST);
    }
}

/// What every supervisor tells of itself, and when its files are written.
#[derive(Debug)]
pub struct Board {
    started: Timestamp,
    doing: String,
    /// The pin of this host's own key.
    own_pin: Option<String>,
    /// Why the last restart came to nothing.
    failure: Option<String>,
    clock: WallClock,
    pace: Pace,
    /// The last write failed, and it was said.
    failing: bool,
}

impl Board {
    /// Of a program that runs since `started`, under this pid.
    pub fn new(started: Timestamp, doing: &str, now: Instant) -> Board {
        Board {
            started,
            doing: doing.to_owned(),
            own_pin: None,
            failure: None,
            clock: WallClock::new(now, Timestamp::now()),
            pace: Pace::new(now),
            failing: false,
        }
    }

    /// By how much the machine's clock was set, if it was: times that were noted before are wrong
    /// by that. To be called before each turn.
    pub fn see_clock(&mut self, now: Instant) -> Option<SignedDuration> {
        let step = self.clock.look(now, Timestamp::now())?;
        log::info!("the clock of this machine was set {}", in_words(step));
        self.started = moved(self.started, step);
        self.pace.changed();
        Some(step)
    }

    /// When the first program under this pid started.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// What the supervisor does, in words.
    pub fn doing(&self) -> &str {
        &self.doing
    }

    /// Says what the supervisor does.
    pub fn set_doing(&mut self, doing: &str) {
        doing.clone_into(&mut self.doing);
        self.pace.changed();
    }

    /// Which key this host shows.
    pub fn own_pin(&self) -> Option<String> {
        self.own_pin.clone()
    }

    /// Notes which key this host shows.
    pub fn set_own_pin(&mut self, pin: Option<Pin>) {
        self.own_pin = pin.map(|pin| pin.to_string());
        self.pace.changed();
    }

    /// Why the last restart came to nothing, if it did.
    pub fn failure(&self) -> Option<String> {
        self.failure.clone()
    }

    /// Says why the last restart came to nothing, if it did.
    pub fn set_failure(&mut self, failure: Option<&str>) {
        if self.failure.as_deref() != failure {
            self.failure = failure.map(str::to_owned);
            self.pace.changed();
        }
    }

    /// Has the files written: something that they tell has changed, or someone wants it.
    pub fn changed(&mut self) {
        self.pace.changed();
    }

    /// Has the files written if one of them was removed.
    pub fn see_files(&mut self, folder: &Path, names: &[&str]) {
        if !names.iter().all(|name| folder.join(name).exists()) {
            self.pace.changed();
        }
    }

    /// When the files are to be written.
    pub fn deadline(&self) -> Option<Instant> {
        self.pace.deadline()
    }

    /// Writes the files, now; `begun` is when making them began.
    pub fn write(&mut self, folder: &Path, files: &[(&str, String)], begun: Instant) {
        let mut failing = false;
        for (name, content) in files {
            if let Err(error) = replace(&folder.join(name), content.as_bytes()) {
                failing = true;
                if !self.failing {
                    log::error!("write {}: {error}; it is out of date", folder.join(name).display());
                }
            }
        }
        self.failing = failing;
        match failing {
            true => self.pace.failed(Instant::now()),
            false => self.pace.wrote(begun, Instant::now()),
        }
    }
}

/// Removes what killed programs left of status files that they were writing.
pub fn sweep(folder: &Path, names: &[&str]) {
    names.iter().for_each(|name| own::sweep(&folder.join(name)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_changes_cost_a_twentieth_of_the_time_and_the_last_one_is_always_written() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        let (mut now, mut writing, mut writes) = (begun, Duration::ZERO, 0);
        let cost = Duration::from_millis(3);
        for turn in 0..10_000 {
            if turn < 9000 {
                pace.changed();
            }
            if pace.deadline().is_some_and(|at| at <= now) {
                pace.wrote(now, now + cost);
                (now, writing, writes) = (now + cost, writing + cost, writes + 1);
            }
            now += Duration::from_millis(1);
        }
        assert!(
            writing * (REST + 1) <= (now - begun) + cost * (REST + 1),
            "{writing:?} of {:?}",
            now - begun
        );
        assert!(writes > 50);
        assert_eq!(
            pace.deadline(),
            None,
            "a change is written when the rest is over, and then there is nothing to do"
        );
    }

    #[test]
    fn what_could_not_be_written_is_tried_again_though_nothing_changes() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        pace.failed(begun);
        assert_eq!(pace.deadline(), Some(begun + LONGEST_REST));
        pace.wrote(begun, begun);
        assert_eq!(pace.deadline(), None);
    }

    #[test]
    fn a_status_file_is_replaced_whole_and_a_failure_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.json");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        std::fs::create_dir(folder.path().join("loncstatus.txt")).unwrap();
        assert!(replace(&folder.path().join("loncstatus.txt"), b"three").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn two_programs_that_replace_one_status_file_at_once_each_put_a_whole_one_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.json");
        let contents = [vec![b'a'; 100_000], vec![b'b'; 70_000]];
        std::thread::scope(|scope| {
            for content in &contents {
                scope.spawn(|| (0..100).for_each(|_| replace(&path, content).unwrap()));
            }
        });
        assert!(contents.contains(&std::fs::read(&path).unwrap()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
