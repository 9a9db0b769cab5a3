//! What handlers' programs have started in sessions of their own ends with `lond`, however that
//! ends, or before the next one runs the program.

use crate::common::{process, wait};
use crate::pools::{Serving, pool_of, serving};
use crate::programs_of_handlers::{linked, pay};
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;

/// Processes that carry the mark of this handler's socket: its programs, and all that they have
/// started.
fn marked(socket: &Path) -> Vec<u32> {
    let mark = format!("LONNET_POOL={}", socket.display());
    let carries = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|one| one == mark.as_bytes())
    };
    let names = fs::read_dir("/proc").expect("read /proc").flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).filter(carries).collect()
}

/// Lines of a shell: starts processes in sessions below sessions; some heed no TERM, some have lost
/// their parents.
const SESSIONS: &str = "i=0; while [ $i -lt 8 ]; do i=$((i+1))\n\
    setsid sh -c 'trap \"\" TERM; setsid sh -c \"sleep 600; :\" & (setsid sleep 600 &); sleep 600' &\n\
    (setsid sh -c 'trap \"\" TERM; sleep 600; :' &)\ndone\n";
/// Processes of that, and the program itself.
const ALL: usize = 8 * 7 + 1;

fn wait_sessions(socket: &Path) {
    wait::until_true("the processes of its sessions", || marked(socket).len() >= ALL);
}

/// What a worker does with a line.
const WORK: &str = "case $line in *:hold) sleep 600 ;; *) echo \"$line\" ;; esac";

/// A worker that answers, and has such processes beside it.
fn with_sessions(serving: &mut Serving) {
    serving.host.set("lond", "drain_timeout", "\"1s\"");
    serving.handler("echo", "worker", &format!("{SESSIONS}while read -r line; do {WORK}; done"), &[]);
}

/// Ends a process that is not the test's child; it was seen off when this returns.
fn kill(pid: u32) {
    process::signal(pid, Signal::SIGKILL);
    wait::until_true("a killed process to be gone", || !process::alive(pid));
}

#[test]
fn lond_that_is_told_to_stop_during_a_request_leaves_nothing_of_its_program() {
    let mut linked = linked(|host| {
        // Longer than a process gets beyond it.
        host.set("lond", "drain_timeout", "\"3s\"");
        pay(host, &format!("{SESSIONS}sleep 600"));
    });
    let socket = linked.other.dir.join("run/handler/pay");
    let mut client = linked.one.connect("msul1");
    client.send(b"pay:1\n");
    wait_sessions(&socket);
    process::signal(linked.lond.pid(), Signal::SIGTERM);
    assert!(linked.lond.wait().success());
    assert_eq!(marked(&socket), Vec::<u32>::new(), "{}", linked.other.log("lond.log"));
    let log = linked.other.log("lond.log");
    assert!(!log.contains("did not end in time"), "its process ends its programs itself: {log}");
}

#[test]
fn lond_that_is_told_to_stop_at_once_leaves_nothing_of_its_program() {
    let mut serving = serving();
    with_sessions(&mut serving);
    let mut lond = serving.host.lond();
    let socket = serving.socket("echo");
    wait_sessions(&socket);
    process::signal(lond.pid(), Signal::SIGQUIT);
    assert!(lond.wait().success());
    assert_eq!(marked(&socket), Vec::<u32>::new());
}

/// The next `lond` is started at once, and runs the program when nothing is left of the first
/// one's.
fn the_next_one_begins_alone(serving: &Serving, first: Vec<u32>, was_killed: impl FnOnce()) {
    was_killed();
    let next = serving.host.lond();
    assert_eq!(serving.connect("echo").ask("2 msua1 - - echo:x"), "2 echo:x");
    let left: Vec<u32> = first.into_iter().filter(|pid| process::alive(*pid)).collect();
    assert_eq!(left, Vec::<u32>::new(), "{}", serving.log());
    let socket = serving.socket("echo");
    wait_sessions(&socket);
    drop(next);
    assert_eq!(marked(&socket), Vec::<u32>::new());
}

#[test]
fn a_killed_supervisor_leaves_nothing_of_its_programs_and_the_next_one_waits_for_their_end() {
    let mut serving = serving();
    with_sessions(&mut serving);
    let lond = serving.host.lond();
    // Who is served by its process is served for a while longer.
    let mut client = serving.connect("echo");
    assert_eq!(client.ask("1 msua1 - - echo:x"), "1 echo:x");
    let socket = serving.socket("echo");
    wait_sessions(&socket);
    let first = marked(&socket);
    client.send(b"2 msua1 e/1 - echo:hold\n");
    the_next_one_begins_alone(&serving, first, || lond.kill());
    let failed = "2!failed error:echo: ended before it answered: lond ends, or takes another program";
    assert_eq!(client.answer(), failed);
    let log = serving.log();
    assert!(!log.contains("that an earlier lond had left"), "each ends its own: {log}");
}

#[test]
fn what_is_left_when_all_of_lond_is_killed_ends_before_the_next_one_runs_the_program() {
    let mut serving = serving();
    with_sessions(&mut serving);
    let lond = serving.host.lond();
    let (socket, pool) = (serving.socket("echo"), pool_of(&lond, "echo"));
    wait_sessions(&socket);
    let first = marked(&socket);
    let kill_all = || {
        // So that it starts no other one meanwhile.
        process::signal(lond.pid(), Signal::SIGSTOP);
        kill(pool);
        lond.kill();
        wait::until_true("its program to be gone", || marked(&socket).len() < first.len());
        assert!(marked(&socket).len() > ALL / 2, "what nobody is left to end");
    };
    the_next_one_begins_alone(&serving, first.clone(), kill_all);
    let log = serving.log();
    assert!(log.contains("processes that an earlier lond had left"), "{log}");
}

#[test]
fn a_program_that_makes_a_session_with_each_fork_ends_with_its_time() {
    let mut serving = serving();
    // Twice as many with each generation; half of their parents end.
    let script = "read -r line\nexport BODY='n=$1; if [ $n -gt 0 ]; then setsid sh -c \"$BODY\" bomb $((n-1)) &\n\
        (setsid sh -c \"$BODY\" bomb $((n-1)) &); fi; sleep 600'\nsh -c \"$BODY\" bomb 7; sleep 600";
    serving.handler("bomb", "exec", script, &[("timeout", "\"2s\"")]);
    let lond = serving.host.lond();
    let mut client = serving.connect("bomb");
    assert_eq!(client.ask("1 msua1 - - bomb"), "1!failed error:bomb: no answer within 2s");
    let socket = serving.socket("bomb");
    wait::until_true("all of it to be gone", || marked(&socket).is_empty());
    let pool = pool_of(&lond, "bomb");
    wait::until_true("all of it to be reaped", || process::children(pool).is_empty());
}
