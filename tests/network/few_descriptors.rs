//! A program that can open no more files: it says so, gives up what is idle or has others wait, and
//! goes on once it can.
//!
//! When the limit is set a descriptor may be open that is just being closed; so each test connects
//! until there is none left.

use crate::common::caller::Caller;
use crate::common::fake_lond::Reply;
use crate::common::local::Local;
use crate::common::network::Network;
use crate::common::pair::{CALLED, CALLER, Pair};
use crate::common::process;
use crate::common::wait::{self, Gate};

/// What the system says then.
const SHORTAGE: &str = "Too many open files (os error 24)";

/// So many lines of a log have all of these words.
fn lines(log: &str, words: &[&str]) -> usize {
    log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

#[test]
fn where_no_more_files_can_be_open_the_idlest_program_is_closed_for_the_one_that_comes() {
    let pair = Pair::up();
    let mut programs: Vec<Local> = (0..3).map(|_| pair.host.connect(CALLED)).collect();
    // The second was silent for longest.
    for number in [1, 0, 2] {
        assert_eq!(programs[number].ask("echo:one"), "echo:one");
    }
    let _limit = process::open_no_more_files(pair.lonc.only_child());
    let words = ["ERROR", SHORTAGE, "the program that was idle for longest is closed for the one that comes"];
    let said = || lines(&pair.host.log("lonc.log"), &words);
    let mut newcomers = Vec::new();
    wait::until_true("it to be said", || {
        newcomers.push(pair.host.connect(CALLED));
        assert_eq!(newcomers.last_mut().expect("one").ask("echo:two"), "echo:two");
        said() == 1
    });
    assert_eq!(programs[1].try_answer().expect("the end, and no fault"), None);
    drop(programs.remove(1));
    for program in programs.iter_mut().chain(&mut newcomers) {
        assert_eq!(program.ask("echo:three"), "echo:three");
    }
}

#[test]
fn where_no_more_files_can_be_open_and_no_program_is_idle_the_next_one_waits() {
    let pair = Pair::up();
    let gate = Gate::default();
    let at_gate = gate.clone();
    pair.fake.answer_with(move |seen| {
        at_gate.pass();
        Reply::Line(seen.request.clone())
    });
    let mut programs: Vec<Local> = (0..3).map(|_| pair.host.connect(CALLED)).collect();
    programs.iter_mut().for_each(|program| program.send(b"echo:held\n"));
    wait::until_true("all to be on their way", || {
        pair.host.status(CALLED).is_some_and(|status| status["in_flight"] == 3)
    });
    let _limit = process::open_no_more_files(pair.lonc.only_child());
    let words = ["ERROR accept a program's connection: ", SHORTAGE, "; programs wait"];
    let said = || lines(&pair.host.log("lonc.log"), &words);
    wait::until_true("it to be said", || {
        programs.push(pair.host.connect(CALLED));
        programs.last_mut().expect("one").send(b"echo:held\n");
        said() == 1
    });
    // When the first have their answers and are idle, each of these takes the place of one: never
    // that of another whose request was not even read.
    for _ in 0..5 {
        programs.push(pair.host.connect(CALLED));
        programs.last_mut().expect("one").send(b"echo:held\n");
    }
    gate.open();
    for program in &mut programs {
        assert_eq!(program.answer(), "echo:held");
    }
    assert_eq!(said(), 1, "once, however often it was tried");
}

#[test]
fn callers_wait_while_lond_can_open_no_more_files_which_is_said_once() {
    let network = Network::new(&[CALLER, CALLED]);
    let (host, from) = (network.host(CALLED), network.address(CALLER).ip());
    let lond = host.lond();
    let mut open = Caller::open(from, host.address, CALLED).0;
    let words = ["ERROR accept: ", SHORTAGE, "; callers wait for "];
    let said = || lines(&host.log("lond.log"), &words);
    let limit = process::open_no_more_files(lond.pid());
    let mut last = None;
    wait::until_true("it to be said", || {
        // One that can be accepted, and has no child, is closed.
        process::open_no_more_files(lond.pid());
        last = Some(Caller::connect(from, host.address).expect("the kernel takes it"));
        said() == 1
    });
    assert_eq!(open.ask("ping"), CALLED, "the link that is open goes on");
    limit.lift();
    assert!(!last.expect("one").ask("init").is_empty(), "it is served");
    assert_eq!(said(), 1);
}

#[test]
fn who_asks_for_a_status_waits_while_lonc_can_open_no_more_files() {
    let pair = Pair::up();
    let limit = process::open_no_more_files(pair.lonc.pid());
    let socket = pair.host.dir.join("run/lonc.sock");
    let words = ["ERROR accept on ", "run/lonc.sock: ", SHORTAGE, "; clients wait"];
    let mut clients = Vec::new();
    wait::until_true("it to be said", || {
        // More than a few would be too many to be served at a time.
        if clients.len() < 8 {
            clients.push(Local::connect(&socket));
        }
        lines(&pair.host.log("lonc.log"), &words) > 0
    });
    assert_eq!(pair.ask("echo:meanwhile"), "echo:meanwhile");
    limit.lift();
    assert!(clients.last_mut().expect("one").ask("status").contains(CALLED), "a status");
}

#[test]
fn the_last_file_that_can_be_open_serves_one_client_and_nobody_is_said_to_wait() {
    let pair = Pair::up();
    let _limit = process::open_one_more_file(pair.lonc.pid());
    let mut client = Local::connect(&pair.host.dir.join("run/lonc.sock"));
    assert!(client.ask("status").contains(CALLED), "a status");
    assert_eq!(lines(&pair.host.log("lonc.log"), &["clients wait"]), 0);
}
