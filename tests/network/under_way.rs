//! Descriptors under way between processes, of which the system lets a user have only so many:
//! however many programs are handed over, and whatever a child sends that was taken over, no other
//! peer notices.

use crate::common::fake_lond::FakeLond;
use crate::common::local::Local;
use crate::common::network::Host;
use crate::common::pair::{CALLED, CALLER};
use crate::common::{process, skipped, wait};
use crate::owners::{as_nobody_with, by_a_shell};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use std::sync::{Mutex, MutexGuard, PoisonError};

const OTHERS: [&str; 3] = ["msul2", "msul3", "msul4"];

/// What is under way is counted for a user, whichever program sends it: who needs most of what
/// `nobody` may have is alone with it.
static ALLOWANCE: Mutex<()> = Mutex::new(());

fn all_of_nobodys() -> MutexGuard<'static, ()> {
    ALLOWANCE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn child_of(host: &Host, peer: &str) -> u32 {
    wait::until("its child", || {
        let pid = host.status(peer)?["pid"].as_u64()?;
        u32::try_from(pid).ok().filter(|pid| *pid != 0 && process::alive(*pid))
    })
}

#[test]
fn programs_of_many_peers_stay_connected_at_hup_where_few_descriptors_may_be_under_way() {
    const IDLE: usize = 1500;
    let peers = [&[CALLED], &OTHERS[..]].concat();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
    if most < 3 * (IDLE * peers.len()) as u64 {
        return skipped("needs more open files");
    }
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("raise the limit of open files");
    let _alone = all_of_nobodys();
    let Some((_network, host, _)) = as_nobody_with(&[&[CALLER], &peers[..]].concat()) else { return };
    // All of them are more than that.
    let lonc = by_a_shell(&host, "lonc", "ulimit -n 4096");
    peers.iter().for_each(|peer| host.wait_link(peer, "down"));
    let mut programs = Vec::new();
    for peer in &peers {
        programs.extend((0..IDLE).map(|_| Local::connect(&host.socket(peer))));
        let all = || host.status(peer).is_some_and(|status| status["clients"] == IDLE);
        wait::until_true("all to be connected", all);
    }
    let before = peers.iter().map(|peer| child_of(&host, peer)).collect::<Vec<_>>();
    lonc.signal(Signal::SIGHUP);
    wait::until_true("other children", || before.iter().all(|pid| !process::alive(*pid)));
    for program in &mut programs {
        assert_eq!(program.ask("ping"), "con_lost");
    }
    let log = host.log("lonc.log");
    assert!(!log.contains("served to the end here"), "{log}");
}

#[cfg(target_arch = "x86_64")]
mod taken_over {
    use super::*;
    use crate::common::fake_lond::well_behaved;
    use crate::common::inject::{self, Argument, Stopped};
    use crate::common::secure_pair::TwoHosts;
    use crate::handover::with_a_program_that_waits;

    /// As many as go with one message.
    const MOST: usize = 253;

    /// Sends descriptors until the system takes no more; how many messages it took, and what it
    /// said then.
    fn fill(child: &Stopped, socket: i64) -> (usize, i64) {
        let mut messages = 0;
        loop {
            match child.send_descriptor(socket, 0, MOST) {
                1 => messages += 1,
                said => return (messages, said),
            }
        }
    }

    #[test]
    fn a_child_that_sends_as_many_as_it_can_keeps_no_other_peer_from_being_dialled_or_handed_over() {
        if !inject::possible() {
            return skipped("needs root");
        }
        let _alone = all_of_nobodys();
        let Some((network, host, _)) = as_nobody_with(&[CALLER, CALLED, OTHERS[0]]) else { return };
        let [mut one, mut other] =
            [CALLED, OTHERS[0]].map(|id| FakeLond::away(id, CALLER, network.address(id)));
        one.listen();
        let lonc = by_a_shell(&host, "lonc", "ulimit -n 10000");
        host.wait_link(CALLED, "up");
        host.wait_link(OTHERS[0], "down");
        // A program that is in it with whoever has taken the child over, and reads nothing.
        let _program = host.connect(CALLED);
        let pid = child_of(&host, CALLED);
        let sockets = |child: &Stopped| child.sockets(libc::SOCK_STREAM, "/run/.");
        wait::until_true("the program to be connected", || !sockets(&Stopped::at(pid)).is_empty());
        {
            let child = Stopped::at(pid);
            let (messages, said) = fill(&child, sockets(&child)[0]);
            assert_eq!(said, -i64::from(libc::ETOOMANYREFS), "after {messages} messages");
            assert!(messages * MOST > 4000, "that were only {messages}");
            assert!(child.sockets(libc::SOCK_SEQPACKET, "").is_empty(), "there is a way to the next child");
        }
        other.listen();
        lonc.signal(Signal::SIGUSR1);
        host.wait_link(OTHERS[0], "up");
        let mut programs: Vec<Local> = (0..300).map(|_| host.connect(OTHERS[0])).collect();
        assert!(programs.iter_mut().all(|program| program.ask("echo:1") == "echo:1"));
        let (before, of_it) = (child_of(&host, OTHERS[0]), host.log("lonc.log").len());
        lonc.signal(Signal::SIGHUP);
        wait::until_true("another child", || !process::alive(before));
        assert!(programs.iter_mut().all(|program| program.ask("echo:2") == "echo:2"));
        let log = host.log("lonc.log").split_off(of_it);
        assert!(!log.contains("served to the end here"), "{log}");
    }

    #[test]
    fn what_a_child_leaves_for_the_next_one_is_bounded_and_ends_nobody() {
        if !inject::possible() {
            return skipped("needs root");
        }
        let (pair, gate, mut slow) = with_a_program_that_waits();
        let pid = pair.lonc.only_child();
        pair.lonc.signal(Signal::SIGHUP);
        pair.host.wait_link(CALLED, "draining");
        let ways = |child: &Stopped| child.sockets(libc::SOCK_SEQPACKET, "");
        wait::until_true("the way to the next child", || ways(&Stopped::at(pid)).len() == 1);
        {
            let child = Stopped::at(pid);
            let (messages, said) = fill(&child, ways(&child)[0]);
            assert_eq!(said, -i64::from(libc::EAGAIN), "after {messages} messages");
            assert!((30..60).contains(&messages), "{messages}");
        }
        gate.open();
        assert_eq!(slow.answer(), "echo:slow");
        assert_eq!(slow.try_answer().expect("the end"), None, "there was no room for it");
        wait::until_true("it to end", || !process::alive(pid));
        pair.host.wait_link(CALLED, "up");
        let next = pair.lonc.only_child();
        pair.fake.answer_with(|seen| well_behaved(CALLED, seen));
        assert_eq!(pair.ask("echo:next"), "echo:next");
        assert_eq!(pair.lonc.only_child(), next);
        let log = pair.host.log("lonc.log");
        assert!(log.contains("take programs over: a message "), "{log}");
        assert!(!log.contains("exited with") && !log.contains("killed by"), "{log}");
    }

    #[test]
    fn a_peers_local_socket_that_its_child_has_shut_is_made_again_and_the_child_killed() {
        if !inject::possible() {
            return skipped("needs root");
        }
        let hosts = TwoHosts::new();
        let (lonc, _lond) = hosts.start();
        let mut program = hosts.one.connect(CALLED);
        for at_its_end in [false, true] {
            let pid = lonc.only_child();
            {
                let child = Stopped::at(pid);
                let listeners = child.listeners("/run/.");
                assert_eq!(listeners.len(), 1);
                assert_eq!(child.call(libc::SYS_shutdown, &[listeners[0], 2].map(Argument::Number)), 0);
            }
            if at_its_end {
                process::signal(pid, Signal::SIGKILL);
            }
            wait::until_true("another child", || !process::alive(pid));
            wait::until_true("the socket to be there again", || {
                Local::try_connect(&hosts.one.socket(CALLED)).is_ok()
            });
            hosts.one.wait_link(CALLED, "up");
            assert_eq!(hosts.one.ask(CALLED, "ping"), CALLED);
        }
        assert_eq!(program.try_answer().expect("the end"), None, "it went with its child");
        let log = hosts.one.log("lonc.log");
        let said = ["has shut its local socket; it is killed", "has shut the local socket; it is made again"];
        assert_eq!(said.map(|said| log.matches(said).count()).iter().sum::<usize>(), 2, "{log}");
    }
}
