//! What is seen of processes from outside: which children a supervisor has and what they do, by
//! their titles; their memory; what they use of the processors; connections a second.

use super::star::is_away;
use crate::median;
use crate::rig::{Program, memory};
use std::collections::BTreeSet;
use std::fs;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pause between looks at how many connections there were.
const LOOK: Duration = Duration::from_millis(50);
/// Looks of a second.
const SECOND: usize = 20;

/// The children whose titles say that their link is up.
pub fn up(supervisor: &Program) -> BTreeSet<u32> {
    let mut looks = Looks::but(BTreeSet::new());
    looks.up(supervisor);
    looks.up
}

/// Looks at which children are up, again and again. Of thousands each title is read until it says
/// so, and those of hosts that are away once: what looks is on the processors that it looks at.
pub struct Looks {
    up: BTreeSet<u32>,
    /// Whose titles are of no interest.
    others: BTreeSet<u32>,
}

impl Looks {
    /// At all children but these.
    pub fn but(others: BTreeSet<u32>) -> Looks {
        Looks { up: BTreeSet::new(), others }
    }

    /// How many are, or were when it was looked before.
    pub fn up(&mut self, supervisor: &Program) -> usize {
        for pid in supervisor.all().into_iter().skip(1) {
            if self.up.contains(&pid) || self.others.contains(&pid) {
                continue;
            }
            let title = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let title = title.trim_end_matches('\0');
            if title.ends_with(" up") || title.ends_with(" serving") {
                self.up.insert(pid);
            } else if title.split(' ').nth(1).is_some_and(is_away) {
                self.others.insert(pid);
            }
        }
        self.up.len()
    }
}

/// KiB of each process, in the middle.
pub fn middle_pss(pids: &BTreeSet<u32>) -> f64 {
    median(pids.iter().map(|&pid| memory(pid, "Pss") as f64))
}

/// What these have used of a processor: nanoseconds.
pub fn used(pids: &[u32]) -> u64 {
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
        text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
    };
    pids.iter().map(of).sum()
}

/// Counts the connections of this machine until it is asked.
pub struct Connections {
    /// Dropped when it is over.
    over: Sender<()>,
    counting: JoinHandle<[u64; 2]>,
}

impl Connections {
    /// Begins to count.
    pub fn count() -> Connections {
        let (over, told) = channel::<()>();
        let counting = std::thread::spawn(move || {
            let (mut looks, mut most) = (Vec::new(), [0; 2]);
            let mut next = Instant::now();
            loop {
                looks.push(opened());
                let now = looks[looks.len() - 1];
                let before = looks[looks.len().saturating_sub(SECOND + 1)];
                for (most, (now, before)) in most.iter_mut().zip(now.into_iter().zip(before)) {
                    *most = (*most).max(now - before);
                }
                next += LOOK;
                let pause = next.saturating_duration_since(Instant::now());
                if told.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return most;
                }
            }
        });
        Connections { over, counting }
    }

    /// The most of a second: that were tried, and that were taken.
    pub fn most(self) -> [u64; 2] {
        drop(self.over);
        self.counting.join().unwrap_or_default()
    }
}

/// How many connections were tried on this machine so far, and how many came to a listener.
fn opened() -> [u64; 2] {
    let text = fs::read_to_string("/proc/net/snmp").unwrap_or_default();
    let line = text.lines().filter(|line| line.starts_with("Tcp:")).nth(1).unwrap_or_default();
    let words: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // `-1` of the most connections is no number of ours.
    [3, 4].map(|at| words.get(at).copied().unwrap_or(0))
}
