//! Processes that programs of others' making have left behind, ended with all that they have
//! started.
//!
//! A process that runs such programs, each in a session of its own, and every process above it that
//! may have to end them in its stead, takes in what they leave ([`take_in`]): whose parent ends is
//! this one's child from then on, also one that has made itself a daemon. [`kill`] ends those.
//! Processes in this one's own session are its own children, and are not touched.

use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpgid, getpgrp, getsid};
use std::io;

/// From now on processes below this one that lose their parents become its children. Holds across
/// `exec`; children that are forked do not do so themselves.
///
/// # Errors
/// None that the system documents.
pub fn take_in() -> io::Result<()> {
    Ok(set_child_subreaper(true)?)
}

/// Kills every child of this process that is in another session, but for sessions that are `spared`
/// (those of programs that still run), and the groups that these children are in. To be called
/// again when one of them was reaped, since that may bring others to light: as long as it gives
/// more than 0.
pub fn kill(spared: impl Fn(u32) -> bool) -> usize {
    let Ok(own) = getsid(None) else { return 0 };
    let strays = children().into_iter().filter(|child| {
        let session = getsid(Some(*child)).ok().filter(|session| *session != own);
        session.is_some_and(|session| !spared(session.as_raw().unsigned_abs()))
    });
    let mut count = 0;
    for stray in strays {
        count += 1;
        super::spawn::kill_now(stray.as_raw().unsigned_abs());
        // A group is within one session, so nobody else is in it.
        if let Ok(group) = getpgid(Some(stray))
            && group.as_raw() > 1
            && group != getpgrp()
        {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
    count
}

/// The children of this process that were not reaped, as far as the system tells.
fn children() -> Vec<Pid> {
    let own = std::process::id();
    let numbers = |text: String| text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // Those of this thread: a process that has children has no other.
    match std::fs::read_to_string("/proc/thread-self/children") {
        Ok(listed) => numbers(listed),
        // A kernel without that list.
        Err(_) => every().into_iter().filter(|pid| parent(*pid) == Some(own)).collect::<Vec<_>>(),
    }
    .into_iter()
    .map(Pid::from_raw)
    .collect()
}

fn every() -> Vec<i32> {
    let names = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).collect()
}

fn parent(pid: i32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may have blanks and brackets.
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    fn sleeper() -> Command {
        let mut command = Command::new("sleep");
        command.arg("600");
        command
    }

    #[test]
    fn a_child_of_another_session_is_killed_and_those_that_are_spared_or_ones_own_are_not() {
        let in_a_session = || {
            let mut command = sleeper();
            // SAFETY: a system call in a process of one thread.
            unsafe { command.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?)) };
            command.spawn().unwrap()
        };
        let (mut stray, mut runs, mut own) = (in_a_session(), in_a_session(), sleeper().spawn().unwrap());
        let session = stray.id();
        // Other tests have children, too.
        assert_eq!(kill(|other| other != session), 1);
        assert_eq!(stray.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert_eq!(kill(|other| other != session), 0, "it was reaped");
        for child in [&mut runs, &mut own] {
            assert!(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn whose_child_a_process_is_is_told_without_the_kernels_list_too() {
        let mut child = sleeper().spawn().unwrap();
        let pid = child.id() as i32;
        assert_eq!(parent(pid), Some(std::process::id()));
        assert!(every().contains(&pid) && children().contains(&Pid::from_raw(pid)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(parent(pid), None);
    }
}
