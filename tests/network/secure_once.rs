//! Critical messages on the secure wire are done once, whatever dies.

use crate::common::frames::{self, Head};
use crate::common::handler::Program;
use crate::common::load::Load;
use crate::common::pair::{CALLED, CALLER};
use crate::common::process;
use crate::common::program;
use crate::common::secure_caller::{self, SecureCaller};
use crate::common::secure_pair::{SecurePair, TwoHosts};
use crate::common::tally::Tally;
use crate::common::wait::{self, Gate};
use nix::sys::signal::Signal;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Critical messages that one link has under way at most, when it catches up: what a killed child
/// of lond may have had in its handler.
pub const UNDER_WAY: usize = 1024;

/// Waits until all that was acknowledged is done, as long as more of everybody's is, and counts:
/// how much waits depends on how fast this machine is just then.
pub fn settle(prefix: &str, acknowledged: &[u64], done: impl Fn() -> Vec<String>) -> Tally {
    assert!(!acknowledged.is_empty(), "nothing was acknowledged");
    loop {
        let before = done();
        if Tally::of(prefix, acknowledged, &before).lost == 0 {
            return Tally::of(prefix, acknowledged, &done());
        }
        let more = wait::patiently(|| (done().len() > before.len()).then_some(()));
        let lost = Tally::of(prefix, acknowledged, &before).lost;
        assert!(
            more.is_some(),
            "{lost} acknowledged messages of {prefix} do not arrive, and nothing else does"
        );
    }
}

fn kill(pids: &[u32]) {
    pids.iter().for_each(|&pid| process::signal(pid, Signal::SIGKILL));
}

#[test]
fn lonc_killed_and_its_link_cut_under_load_loses_nothing_and_nothing_is_run_twice() {
    let mut pair = SecurePair::up();
    let load = Load::start(&pair.host.socket(CALLED), "load");
    for round in 0..9 {
        load.wait_for_more(50);
        match round % 3 {
            0 => kill(&pair.lonc.children()),
            1 => pair.fake.cut(),
            _ => {
                let children = pair.lonc.children();
                pair = pair.kill_and_restart();
                kill(&children);
            }
        }
    }
    load.wait_for_more(50);
    let acknowledged = load.finish();
    let tally = settle("log:load-", &acknowledged, || pair.fake.received("log:load-"));
    assert_eq!(tally, Tally { messages: acknowledged.len(), ..Tally::default() });
    assert!(pair.fake.connections() > 5, "the link was lost again and again");
}

#[test]
fn lond_killed_under_load_loses_nothing_and_runs_again_only_what_was_in_the_handler() {
    let both = TwoHosts::new();
    let (_lonc, mut lond) = both.start();
    let load = Load::start_as(&both.one.socket(CALLED), "critical:do:");
    let mut kills = 0;
    for round in 0..6 {
        load.wait_for_more(50);
        kill(&lond.children());
        if round % 2 == 1 {
            lond.kill();
            lond = both.other.lond();
        }
        kills += 1;
        both.one.wait_link(CALLED, "up");
    }
    load.wait_for_more(50);
    let acknowledged = load.finish();
    let tally = settle("do:", &acknowledged, || both.counter.done());
    assert_eq!((tally.lost, tally.out_of_order), (0, 0), "{tally:?}");
    assert!(tally.repeated <= kills * UNDER_WAY, "{kills} kills: {tally:?}");
}

#[test]
fn both_ends_killed_at_once_under_load_lose_nothing() {
    let both = TwoHosts::new();
    let (mut lonc, mut lond) = both.start();
    let load = Load::start_as(&both.one.socket(CALLED), "critical:do:");
    const KILLS: usize = 4;
    for _ in 0..KILLS {
        load.wait_for_more(50);
        let children = [lonc.children(), lond.children()].concat();
        kill(&[vec![lonc.pid(), lond.pid()], children].concat());
        lonc.kill();
        lond.kill();
        lond = both.other.lond();
        lonc = both.one.lonc();
    }
    load.wait_for_more(50);
    let acknowledged = load.finish();
    let tally = settle("do:", &acknowledged, || both.counter.done());
    assert_eq!((tally.lost, tally.out_of_order), (0, 0), "{tally:?}");
    assert!(tally.repeated <= KILLS * UNDER_WAY, "{tally:?}");
}

#[test]
fn only_lonc_killed_under_load_runs_nothing_twice_in_a_real_lond() {
    let both = TwoHosts::new();
    let (mut lonc, lond) = both.start();
    let load = Load::start_as(&both.one.socket(CALLED), "critical:do:");
    for round in 0..6 {
        load.wait_for_more(50);
        kill(&lonc.children());
        if round % 2 == 1 {
            lonc.kill();
            lonc = both.one.lonc();
        }
    }
    load.wait_for_more(50);
    let acknowledged = load.finish();
    let tally = settle("do:", &acknowledged, || both.counter.done());
    assert_eq!(tally, Tally { messages: acknowledged.len(), ..Tally::default() });
    assert_eq!(program::pid_in(&both.other.pid_file("lond")), Some(lond.pid()));
}

#[test]
fn messages_that_wait_while_everything_restarts_arrive_once_and_in_order() {
    let both = TwoHosts::new();
    let lonc = both.one.lonc();
    both.one.wait_link(CALLED, "down");
    for number in 0..200 {
        assert_eq!(both.one.ask(CALLED, &format!("critical:do:{number}")), "con_delayed");
    }
    lonc.kill();
    let (_lonc, lond) = both.start();
    wait::until_true("all of them", || both.counter.done().len() >= 200);
    drop(lond);
    let _lond = both.other.lond();
    _lonc.signal(Signal::SIGUSR1);
    both.one.wait_link(CALLED, "up");
    assert_eq!(both.one.ask(CALLED, "critical:do:200"), "ok");
    assert_eq!(both.counter.done(), (0..=200).map(|number| format!("do:{number}")).collect::<Vec<_>>());
}

#[test]
fn a_spool_that_was_wiped_begins_a_new_epoch_and_its_messages_are_run() {
    let both = TwoHosts::new();
    let (lonc, lond) = both.start();
    for number in 0..20 {
        assert_eq!(both.one.ask(CALLED, &format!("critical:do:before-{number}")), "ok");
    }
    lonc.stop();
    std::fs::remove_dir_all(both.one.dir.join("delayed")).expect("wipe the spool");
    let _lonc = both.one.lonc();
    both.one.wait_link(CALLED, "up");
    for number in 0..20 {
        assert_eq!(both.one.ask(CALLED, &format!("critical:do:after-{number}")), "ok");
    }
    let after: Vec<_> = both.counter.done().into_iter().filter(|text| text.contains("after")).collect();
    assert_eq!(after, (0..20).map(|number| format!("do:after-{number}")).collect::<Vec<_>>());
    assert_eq!(both.counter.done().len(), 40);
    drop(lond);
}

#[test]
fn a_record_that_was_wiped_loses_no_message_and_takes_new_ones() {
    let both = TwoHosts::new();
    let (_lonc, lond) = both.start();
    let load = Load::start_as(&both.one.socket(CALLED), "critical:do:");
    load.wait_for_more(50);
    lond.stop();
    std::fs::remove_dir_all(both.other.dir.join("delayed/.received")).expect("wipe the record");
    let _lond = both.other.lond();
    _lonc.signal(Signal::SIGUSR1);
    load.wait_for_more(50);
    let acknowledged = load.finish();
    let tally = settle("do:", &acknowledged, || both.counter.done());
    assert_eq!((tally.lost, tally.out_of_order), (0, 0), "{tally:?}");
    assert!(tally.repeated <= UNDER_WAY, "{tally:?}");
}

#[test]
fn a_clients_own_key_makes_its_own_retries_run_once() {
    let both = TwoHosts::new();
    let (lonc, lond) = both.start();
    for _ in 0..5 {
        assert_eq!(both.one.ask(CALLED, "critical;key=order-4711.a_B:do:paid"), "ok");
    }
    lonc.kill();
    let lonc = both.one.lonc();
    both.one.wait_link(CALLED, "up");
    assert_eq!(both.one.ask(CALLED, "critical;key=order-4711.a_B:do:paid"), "ok");
    lond.stop();
    let _lond = both.other.lond();
    lonc.signal(Signal::SIGUSR1);
    both.one.wait_link(CALLED, "up");
    assert_eq!(both.one.ask(CALLED, "critical;key=order-4711.a_B:do:paid"), "ok");
    assert_eq!(both.counter.done(), ["do:paid"]);
    assert_eq!(both.one.ask(CALLED, "critical;key=order-4712:do:paid"), "ok");
    assert_eq!(both.one.ask(CALLED, "critical:do:paid"), "ok");
    assert_eq!(both.counter.done().len(), 3);
    for bad in
        ["critical;key=:do:x", "critical;key=a b:do:x", &format!("critical;key={}:do:x", "k".repeat(65))]
    {
        let answer = both.one.ask(CALLED, bad);
        assert!(answer.starts_with("error:"), "{bad}: {answer}");
    }
    assert_eq!(both.counter.done().len(), 3);
}

#[test]
fn a_retry_with_the_same_key_while_the_link_was_down_runs_once() {
    let both = TwoHosts::new();
    let _lonc = both.one.lonc();
    both.one.wait_link(CALLED, "down");
    for _ in 0..3 {
        assert_eq!(both.one.ask(CALLED, "critical;key=again:do:once"), "con_delayed");
    }
    assert_eq!(both.one.ask(CALLED, "critical:do:last"), "con_delayed");
    let _lond = both.other.lond();
    _lonc.signal(Signal::SIGUSR1);
    wait::until_true("the last message", || both.counter.done().iter().any(|text| text == "do:last"));
    assert_eq!(both.counter.done(), ["do:once", "do:last"]);
}

#[test]
fn a_repeat_is_answered_from_the_record_and_a_settled_one_not_run() {
    let both = TwoHosts::new();
    let lond = both.other.lond();
    let key = both.network.key(CALLER);
    let open = || SecureCaller::open(&key, both.other.address, CALLER, CALLED);
    let mut link = open();
    assert_eq!(link.hello["mark"], "0");
    assert_eq!(link.ask_critical(5, 5, "", "do:five"), "ok");
    assert_eq!(link.ask_critical(5, 5, "", "do:five"), "ok");
    drop(link);
    // On another link, and in another process.
    assert_eq!(open().ask_critical(5, 5, "", "do:five"), "ok");
    lond.stop();
    let _lond = both.other.lond();
    let mut link = open();
    assert_eq!(link.ask_critical(5, 5, "", "do:five"), "ok");
    assert_eq!(link.ask_critical(6, 6, "", "do:six"), "ok");
    assert_eq!(link.ask_critical(5, 5, "", "do:five"), "error:settled before");
    assert_eq!(both.counter.done(), ["do:five", "do:six"]);
    // A new epoch: other messages, whatever their numbers.
    drop(link);
    let mut hello = secure_caller::hello(CALLER, CALLED);
    hello.insert("epoch".to_owned(), "f".repeat(32));
    let mut link = SecureCaller::open_with(&key, both.other.address, &hello).expect("open a link");
    assert_eq!(link.hello["mark"], "0");
    assert_eq!(link.ask_critical(5, 5, "", "do:another five"), "ok");
    assert_eq!(both.counter.done(), ["do:five", "do:six", "do:another five"]);
}

#[test]
fn a_newer_link_replaces_the_older_and_what_runs_there_is_not_run_again() {
    let mut both = TwoHosts::new();
    let (gate, runs) = (Gate::default(), Arc::new(AtomicU64::new(0)));
    let socket = both.other.handler("job");
    let _program = Program::start(&socket, {
        let (gate, runs) = (gate.clone(), runs.clone());
        move |line| {
            runs.fetch_add(1, Ordering::SeqCst);
            gate.pass();
            Some(line.to_vec())
        }
    });
    let lond = both.other.lond();
    let key = both.network.key(CALLER);
    let mut older = SecureCaller::open(&key, both.other.address, CALLER, CALLED);
    let head = |sequence| Head { sequence, settled: 1, key: String::new() };
    older.critical(&head(1), b"job:one");
    wait::until_true("the message in the handler", || runs.load(Ordering::SeqCst) == 1);
    let mut newer = SecureCaller::open(&key, both.other.address, CALLER, CALLED);
    let goaway = older.frame().expect("read").expect("a word from lond");
    assert_eq!(goaway.kind, frames::GOAWAY, "{goaway:?}");
    let (one, two) = (newer.critical(&head(1), b"job:one"), newer.critical(&head(2), b"job:two"));
    // The newer link serves meanwhile.
    assert_eq!(newer.ask("ping"), CALLED);
    gate.open();
    assert_eq!(newer.answer(one), "job:one");
    assert_eq!(newer.answer(two), "job:two");
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    drop(older);
    wait::until_true("the older link to end", || lond.children().len() == 1);
}

#[test]
fn behind_one_message_that_is_run_for_long_thousands_are_answered_the_others_wait_and_none_is_lost() {
    // More than a record keeps behind one that is being run, and than are in flight at once.
    const MESSAGES: usize = 8192 + 4096 + 100;
    let mut both = TwoHosts::new();
    // It would lose patience with a record that it cannot use after five seconds.
    both.other.set("lond", "drain_timeout", "\"0s\"");
    let gate = Gate::default();
    let at_gate = gate.clone();
    let _slow = Program::start(&both.other.handler("slow"), move |line| {
        at_gate.pass();
        Some(line.to_vec())
    });
    let (_lonc, _lond) = both.start();
    let mut first = both.one.connect(CALLED);
    first.send(b"critical:slow:x\n");
    wait::until_true("the first to be on its way", || {
        both.one.status(CALLED).is_some_and(|status| status["in_flight"] == 1)
    });
    let mut others = both.one.connect(CALLED);
    let mut writer = others.writer();
    let sending = std::thread::spawn(move || {
        // `lond` answers many of these with one sync.
        let requests = "critical:ping\n".repeat(MESSAGES);
        writer.write_all(requests.as_bytes()).expect("send to lonc");
    });
    wait::until_true("it to be said that messages wait", || {
        both.other.log("lond.log").contains("while an earlier one is being run; critical messages wait")
    });
    assert_eq!(both.one.ask(CALLED, "ping"), CALLED, "plain ones pass");
    gate.open();
    assert_eq!(first.answer(), "slow:x");
    for number in 0..MESSAGES {
        assert_eq!(others.answer(), CALLED, "to message {number}");
    }
    sending.join().expect("all were sent");
}
