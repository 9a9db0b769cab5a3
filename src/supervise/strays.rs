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
    match std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")) {
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
