//! The processes below this one, as the system tells of them; stopped before they are killed.
//!
//! A process that is stopped forks no more and reaps nobody. So once all that were found are
//! stopped and none is new, there are no others; and the numbers of their children stay theirs.
//! Before that a number is sent a signal only through a descriptor of its process that was opened
//! before it was looked at whose it is.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

/// Children by their parents, where the kernel does not list them.
type Table = HashMap<Pid, Vec<Pid>>;

/// What is to end together.
#[derive(Debug, Default)]
pub(super) struct Herd {
    /// Each with who was its parent when it was stopped; parents before their children.
    members: Vec<(Pid, Pid)>,
    known: HashSet<Pid>,
}

impl Herd {
    /// Stops those of this process's children with all below them, until none is new or the time is
    /// over.
    pub(super) fn stop(&mut self, children: impl Fn() -> Vec<Pid>, by: Instant) {
        let mut news = true;
        while std::mem::take(&mut news) && Instant::now() < by {
            let mut table = None;
            for child in children() {
                news |= self.take(child, Pid::this());
            }
            let mut at = 0;
            while let Some((parent, _)) = self.members.get(at).copied()
                && Instant::now() < by
            {
                for child in children_of(parent, &mut table) {
                    news |= self.take(child, parent);
                }
                at += 1;
            }
        }
    }

    /// Whether it is new.
    fn take(&mut self, child: Pid, parent: Pid) -> bool {
        let new = self.known.insert(child);
        if new && send(child, Signal::SIGSTOP, |pid| parent_of(pid) == Some(parent)) {
            self.members.push((child, parent));
        }
        new
    }

    /// Kills them; how many these were. Children first: their parents, which are stopped, reap
    /// none of them.
    pub(super) fn kill(self) -> usize {
        let killed = self.members.iter().rev().filter(|(child, parent)| {
            let is_it = |pid| parent_of(pid).is_some_and(|now| now == *parent || now == Pid::this());
            send(*child, Signal::SIGKILL, is_it)
        });
        killed.count()
    }
}

/// Stops all processes that are meant, until none is new or the time is over, and kills them: how
/// many, and how many there are still.
pub(super) fn kill_where(is_meant: impl Fn(Pid) -> bool, by: Instant) -> (usize, usize) {
    let mut stopped = HashSet::new();
    let mut news = true;
    while std::mem::take(&mut news) && Instant::now() < by {
        for pid in every().into_iter().filter(|pid| *pid != Pid::this()) {
            if !stopped.contains(&pid) && is_meant(pid) && send(pid, Signal::SIGSTOP, &is_meant) {
                news = stopped.insert(pid);
            }
        }
    }
    let killed = stopped.iter().filter(|pid| send(**pid, Signal::SIGKILL, &is_meant)).count();
    (killed, every().into_iter().filter(|pid| *pid != Pid::this() && is_meant(*pid)).count())
}

/// Sends a process a signal, if it is still the one that is meant. A child that this process has
/// not reaped cannot be another.
fn send(pid: Pid, signal: Signal, is_it: impl Fn(Pid) -> bool) -> bool {
    let Some(process) = descriptor_of(pid) else {
        return parent_of(pid) == Some(Pid::this()) && is_it(pid) && kill(pid, signal).is_ok();
    };
    if !is_it(pid) {
        return false;
    }
    // SAFETY: the descriptor is open, and what is to be told beside the signal is nothing.
    let sent = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal as libc::c_int, 0usize, 0)
    };
    sent == 0
}

/// A descriptor of the process that has this number now; none on a kernel before 5.3.
fn descriptor_of(pid: Pid) -> Option<OwnedFd> {
    // SAFETY: it takes two numbers.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let number = Errno::result(opened).ok().and_then(|number| i32::try_from(number).ok())?;
    // SAFETY: it was just opened, and is nobody else's.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The children of this process that were not reaped, as far as the system tells.
pub(super) fn own_children() -> Vec<Pid> {
    // Those of this thread: a process that has children has no other.
    match fs::read_to_string("/proc/thread-self/children") {
        Ok(listed) => numbers(&listed),
        // A kernel without that list.
        Err(_) => table().remove(&Pid::this()).unwrap_or_default(),
    }
}

/// Those of another process, whichever of its threads has started them.
fn children_of(parent: Pid, known: &mut Option<Table>) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = threads.map(|thread| fs::read_to_string(thread.path().join("children")));
    let mut all = Vec::new();
    for list in lists {
        match list {
            Ok(list) => all.extend(numbers(&list)),
            // The thread has ended, or the kernel has no such list.
            Err(_) => return known.get_or_insert_with(table).get(&parent).cloned().unwrap_or_default(),
        }
    }
    all
}

fn numbers(text: &str) -> Vec<Pid> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).map(Pid::from_raw).collect()
}

fn table() -> Table {
    let mut table = Table::new();
    for pid in every() {
        if let Some(parent) = parent_of(pid) {
            table.entry(parent).or_default().push(pid);
        }
    }
    table
}

fn every() -> Vec<Pid> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).map(Pid::from_raw).collect()
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may have blanks and brackets.
    let parent = text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
    Some(Pid::from_raw(parent))
}

/// Whether a process began its program with this in its environment, and still has it. Of a process
/// of another user that is not told, nor of one that has ended.
pub(super) fn has_in_environment(pid: Pid, variable: &[u8]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ"));
    environment.is_ok_and(|all| all.split(|byte| *byte == 0).any(|one| one == variable))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn whose_child_a_process_is_is_told_without_the_kernels_list_too() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        assert_eq!(parent_of(pid), Some(Pid::this()));
        assert!(every().contains(&pid) && own_children().contains(&pid));
        assert!(table()[&Pid::this()].contains(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(parent_of(pid), None);
    }

    #[test]
    fn a_process_that_is_not_the_one_meant_is_sent_nothing() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        assert!(!send(pid, Signal::SIGKILL, |pid| parent_of(pid) == Some(Pid::from_raw(1))));
        assert!(child.try_wait().unwrap().is_none());
        assert!(send(pid, Signal::SIGKILL, |pid| parent_of(pid) == Some(Pid::this())));
        child.wait().unwrap();
        assert!(!send(pid, Signal::SIGKILL, |_| true), "it is no more");
    }
}
