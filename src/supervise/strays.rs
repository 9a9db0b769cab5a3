//! Processes that programs of others' making have left behind, ended with all that they have
//! started.
//!
//! A process that runs such programs, each in a session of its own, and every process above it that
//! may have to end them in its stead, takes in what they leave ([`take_in`]): whose parent ends is
//! this one's child from then on, also one that has made itself a daemon. So nothing gets away as
//! long as this process lives: what it was asked to end is below it. All of that is stopped before
//! any of it is killed ([`tree`]), so that what forks as fast as it is killed does not keep ahead.
//!
//! What a process leaves that was killed itself, with all above it, is nobody's. It is found again
//! by a mark in its environment ([`kill_marked`]), which a program passes on to all that it starts.
//! No process is sent anything by its number alone: a number may be another's by now.

mod tree;

use super::spawn;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpgid, getpgrp, getsid};
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tree::Herd;

/// How long one go may take to stop what is to be killed. What forks on past that is killed in
/// part, and the rest of it the next time.
const STOPPING: Duration = Duration::from_millis(200);
/// Pause between two looks at what is ending. Nothing tells when to look: what is below a child
/// becomes this process's own one by one, as those above it are reaped, what carries a mark is not
/// its child at all, and a kernel before 5.3 has no descriptor of a process that could be polled.
const PAUSE: Duration = Duration::from_millis(2);

/// From now on processes below this one that lose their parents become its children. Holds across
/// `exec`; children that are forked do not do so themselves.
///
/// # Errors
/// None that the system documents.
pub fn take_in() -> io::Result<()> {
    Ok(set_child_subreaper(true)?)
}

/// Kills every child of this process that is in another session, but for sessions that are `spared`
/// (those of programs that still run), with all below it, and the groups that these children are
/// in. To be called again when one of them was reaped: as long as it gives more than 0.
pub fn kill(spared: impl Fn(u32) -> bool) -> usize {
    let strays = || {
        let mut strays = tree::own_children();
        strays.retain(|child| other_session(*child).is_some_and(|session| !spared(session)));
        strays
    };
    let groups: Vec<Pid> = strays().into_iter().filter_map(|stray| getpgid(Some(stray)).ok()).collect();
    let count = end(strays);
    // A group is within one session, so nobody else is in it; while this process has not reaped
    // them, the system gives their number to nobody else.
    for group in groups.into_iter().filter(|group| group.as_raw() > 1 && *group != getpgrp()) {
        let _ = killpg(group, Signal::SIGKILL);
    }
    count
}

/// Kills a child that was not reaped yet, with all below it and all of the group that it leads.
pub fn kill_child(pid: u32) {
    let child = i32::try_from(pid).map(Pid::from_raw);
    // The group first: none of it is forked past a signal to it.
    if let Ok(group) = child
        && group.as_raw() > 1
    {
        let _ = killpg(group, Signal::SIGSTOP);
    }
    end(|| child.into_iter().filter(|child| tree::own_children().contains(child)).collect());
    spawn::kill_group_now(pid);
}

/// Kills all children with all below them, and reaps them, until none is left or the time is over;
/// gives how many are left. For a process that ends.
pub fn end_children(within: Duration) -> usize {
    end_all(within, tree::own_children)
}

/// As [`end_children`], but for children in this process's own session.
pub fn end_strays(within: Duration) -> usize {
    end_all(within, || {
        let mut strays = tree::own_children();
        strays.retain(|child| other_session(*child).is_some());
        strays
    })
}

fn end_all(within: Duration, which: impl Fn() -> Vec<Pid>) -> usize {
    let by = Instant::now() + within;
    loop {
        let left = which().len();
        if left == 0 || Instant::now() >= by {
            return left;
        }
        end(&which);
        sleep(PAUSE);
        while spawn::reap().is_some() {}
    }
}

/// Stops these children with all below them, then kills them; how many these were.
fn end(children: impl Fn() -> Vec<Pid>) -> usize {
    let mut herd = Herd::default();
    herd.stop(children, Instant::now() + STOPPING);
    herd.kill()
}

/// The session that a child is in, if it is not this process's.
fn other_session(child: Pid) -> Option<u32> {
    let own = getsid(None).ok()?;
    let session = getsid(Some(child)).ok().filter(|session| *session != own)?;
    Some(session.as_raw().unsigned_abs())
}

/// What [`kill_marked`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Processes that were killed.
    pub killed: usize,
    /// Those that were still there when the time was over.
    pub left: usize,
}

/// Kills every process in whose environment `mark` (`NAME=VALUE`) stands, but for those in this
/// process's own session, and waits until they are gone, for so long. This process's user has to be
/// theirs.
pub fn kill_marked(mark: &[u8], within: Duration) -> Found {
    let by = Instant::now() + within;
    let mut found = Found { killed: 0, left: 0 };
    loop {
        let (killed, left) = tree::kill_where(
            |pid| other_session(pid).is_some() && tree::has_in_environment(pid, mark),
            Instant::now() + STOPPING,
        );
        found = Found { killed: found.killed.max(killed), left };
        if left == 0 || Instant::now() >= by {
            return found;
        }
        sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command};

    fn sleeper() -> Command {
        let mut command = Command::new("sleep");
        command.arg("600");
        command
    }

    fn in_a_session(mut command: Command) -> Child {
        // SAFETY: a system call in a process of one thread.
        unsafe { command.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?)) };
        command.spawn().unwrap()
    }

    #[test]
    fn a_child_of_another_session_is_killed_and_those_that_are_spared_or_ones_own_are_not() {
        let (mut stray, mut runs) = (in_a_session(sleeper()), in_a_session(sleeper()));
        let (mut own, session) = (sleeper().spawn().unwrap(), stray.id());
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
    fn what_is_below_a_child_ends_with_it_in_whatever_session() {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        let mut shell = Command::new("sh");
        let script = format!("setsid sh -c 'echo $$ >> {0}; sleep 600' & sleep 600", pids.display());
        shell.args(["-c", &script]);
        let mut child = in_a_session(shell);
        let by = Instant::now() + Duration::from_secs(60);
        let below = loop {
            let text = std::fs::read_to_string(&pids).unwrap_or_default();
            match text.trim().parse() {
                Ok(pid) => break Pid::from_raw(pid),
                Err(_) => assert!(Instant::now() < by, "it never began"),
            }
        };
        kill_child(child.id());
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        let is_there =
            || !matches!(std::fs::read(format!("/proc/{below}/environ")), Ok(text) if text.is_empty());
        while is_there() && getsid(Some(below)).is_ok() {
            assert!(Instant::now() < by, "what is below it is still there");
        }
    }

    #[test]
    fn what_carries_a_mark_is_killed_and_nothing_else() {
        let marked = |value: &str| {
            let mut command = sleeper();
            command.env("LONNET_MARK_OF_A_TEST", value);
            command
        };
        let (mut one, mut other) = (in_a_session(marked("one")), in_a_session(marked("other")));
        let mut own = marked("one").spawn().unwrap();
        let found = kill_marked(b"LONNET_MARK_OF_A_TEST=one", Duration::from_secs(60));
        assert_eq!(found, Found { killed: 1, left: 0 });
        assert_eq!(one.wait().unwrap().signal(), Some(libc::SIGKILL));
        for child in [&mut other, &mut own] {
            assert!(child.try_wait().unwrap().is_none(), "of another mark, or in this session");
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
