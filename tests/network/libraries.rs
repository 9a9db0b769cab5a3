//! The libraries for programs, in each language, against two real hosts.
//!
//! What a program asks with one of them, and what a handler serves that is made with one, must be
//! the same in all. A language that this machine does not have is skipped, visibly.

mod installing;
mod languages;

use crate::common::handler::Program as Handler;
use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::process;
use crate::common::program::Program;
use crate::common::wait;
use languages::{Asker, Language};
use nix::sys::signal::Signal;
use std::sync::Mutex;

/// A host that is in the table and never runs.
const AWAY: &str = "msul2";

/// Two whole hosts and one that is away. Fields are dropped in this order.
struct World {
    lonc: Program,
    lond: Program,
    one: Host,
    other: Host,
    _network: Network,
}

impl World {
    /// `prepare` gets the two hosts before anything is started.
    fn new(prepare: impl FnOnce(&mut Host, &mut Host)) -> World {
        let network = Network::secure(&[CALLER, CALLED, AWAY]);
        let (mut one, mut other) = (network.host(CALLER), network.host(CALLED));
        prepare(&mut one, &mut other);
        let (lond, lonc) = (other.lond(), one.lonc());
        one.wait_link(CALLED, "up");
        World { lonc, lond, one, other, _network: network }
    }

    fn asker(&self, language: Language, peer: &str) -> Asker {
        Asker::start(language, &self.one.dir.join("run"), peer)
    }
}

/// A handler of the other host, for everybody.
fn handler(host: &mut Host, name: &str, form: &str) -> std::path::PathBuf {
    let socket = host.handler(name);
    let section = format!("handler.{name}");
    host.set(&section, "allow", "[\"*\"]").set(&section, "format", &format!("{form:?}"));
    socket
}

#[test]
fn each_outcome_is_told_by_its_class() {
    let mut world = World::new(|one, other| {
        handler(other, "gone", "line");
        other.set("handler.mine", "socket", "\"mine\"").set("handler.mine", "allow", "[\"msul2\"]");
        one.set(&format!("host.{AWAY}"), "spool_messages", "1");
    });
    world.one.wait_link(AWAY, "down");
    for (round, language) in Language::asking().into_iter().enumerate() {
        let mut asker = world.asker(language, CALLED);
        assert_eq!(asker.reply("ping"), format!("Answer {CALLED}"), "{language:?}");
        assert_eq!(asker.critical("", "log:one"), "Answer ok");
        for request in ["mine:x", "nothing:x"] {
            let said = asker.reply(request);
            assert!(said.starts_with("Refused"), "{language:?} {request}: {said}");
        }
        let said = asker.reply("gone:x");
        assert!(said.starts_with("Error gone: "), "{language:?}: {said}");
        assert_eq!(asker.reply(""), "BadRequest");
        let mut away = world.asker(language, AWAY);
        assert_eq!(away.reply("ping"), "Lost con_lost", "{language:?}");
        let kept = if round == 0 { "Delayed con_delayed" } else { "Failed con_failed" };
        assert_eq!(away.critical("", "log:one"), kept, "{language:?}");
        assert_eq!(away.critical("", "log:two"), "Failed con_failed", "{language:?}");
    }
    world.lonc.assert_running();
}

#[test]
fn what_has_a_key_is_run_once_however_often_it_is_asked() {
    let mut socket = None;
    let world = World::new(|_, other| socket = Some(handler(other, "count", "line")));
    let count = Mutex::new(0);
    let _program = Handler::start(&socket.unwrap(), move |_| {
        let mut count = count.lock().unwrap();
        *count += 1;
        Some(format!("run {count}").into_bytes())
    });
    for (round, language) in Language::asking().into_iter().enumerate() {
        let mut asker = world.asker(language, CALLED);
        let first = asker.critical(&format!("order-{round}"), "count:x");
        assert_eq!(first, format!("Answer run {}", 2 * round + 1), "{language:?}");
        assert_eq!(asker.critical(&format!("order-{round}"), "count:x"), first, "{language:?}");
        assert_ne!(asker.critical(&format!("other-{round}"), "count:x"), first, "{language:?}");
    }
}

#[test]
fn a_request_has_its_deadline_and_a_late_answer_is_nobodys() {
    let mut socket = None;
    let world = World::new(|_, other| socket = Some(handler(other, "slow", "line")));
    let gate = wait::Gate::default();
    let waits = gate.clone();
    let _program = Handler::start(&socket.unwrap(), move |line| {
        waits.pass();
        Some(line.to_vec())
    });
    let mut askers: Vec<_> =
        Language::asking().into_iter().map(|language| (language, world.asker(language, CALLED))).collect();
    for (language, asker) in &mut askers {
        assert_eq!(asker.reply_within(1.0, "slow:one"), "Timeout", "{language:?}");
    }
    gate.open();
    for (language, asker) in &mut askers {
        assert_eq!(asker.reply("slow:two"), "Answer slow:two", "{language:?}");
    }
}

#[test]
fn a_client_lives_through_a_restart_and_through_the_brokers_death() {
    let World { lonc, lond, one, other, _network } = World::new(|_, _| {});
    let run = one.dir.join("run");
    let languages = Language::asking();
    let mut askers: Vec<_> = languages.iter().map(|language| Asker::start(*language, &run, CALLED)).collect();
    let mut all = |what: &str, expected: &str| {
        for (asker, language) in askers.iter_mut().zip(&languages) {
            assert_eq!(asker.reply("ping"), expected, "{language:?} {what}");
        }
    };
    let answer = format!("Answer {CALLED}");
    all("before", &answer);
    let before = lonc.children();
    lonc.signal(Signal::SIGHUP);
    wait::until_true("other children", || {
        let now = lonc.children();
        now.len() == before.len() && before.iter().all(|child| !now.contains(child))
    });
    all("after the restart", &answer);
    let children = lonc.children();
    lonc.kill();
    wait::until_true("its children to end", || !children.iter().any(|child| process::alive(*child)));
    all("while the broker is away", "Away");
    let _lonc = one.lonc();
    one.wait_link(CALLED, "up");
    all("after the broker's death", &answer);
    drop((askers, lond, other));
}

#[test]
fn hundreds_of_requests_go_ahead_and_each_gets_its_own_answer() {
    let mut socket = None;
    let world = World::new(|_, other| socket = Some(handler(other, "echo", "line")));
    let _program = Handler::echo(&socket.unwrap());
    let requests: Vec<String> = (0..500).map(|number| format!("echo:{number} é")).collect();
    let answers: Vec<String> = requests.iter().map(|request| format!("Answer {request}")).collect();
    for language in Language::asking() {
        let mut asker = world.asker(language, CALLED);
        assert!(asker.many(&requests) == answers, "{language:?}");
        assert_eq!(asker.reply("echo:then"), "Answer echo:then", "{language:?}");
    }
}

#[test]
fn a_tagged_handler_made_with_a_library_serves_programs_in_every_language() {
    let mut sockets = Vec::new();
    let serving = Language::serving();
    let world = World::new(|_, other| {
        sockets.extend(serving.iter().map(|language| handler(other, &language.name(), "tagged")));
    });
    for (language, socket) in serving.iter().zip(&sockets) {
        let program = language.serve("tagged", Some(socket));
        let name = language.name();
        let mut runs = 0;
        for (round, from) in Language::asking().into_iter().enumerate() {
            let mut asker = world.asker(from, CALLED);
            let who = asker.reply(&format!("{name}:who: a  b "));
            assert_eq!(who, format!("Answer {CALLER} none none {name}:who: a  b "), "{from:?}");
            let who = asker.critical(&format!("key-{name}-{round}"), &format!("{name}:who"));
            let words: Vec<_> = who.split(' ').collect();
            let key = format!("key-{name}-{round}");
            assert!(words[1] == CALLER && words[2].contains('/') && words[3] == key, "{from:?}: {who}");
            // The first is answered when the second has come.
            let both = [format!("{name}:wait"), format!("{name}:go")];
            assert_eq!(asker.many(&both), ["Answer waited", "Answer gone"], "{from:?}");
            for _ in 0..2 {
                runs += 1;
                assert_eq!(asker.critical("", &format!("{name}:run")), format!("Answer run {runs}"));
            }
            let died = asker.reply(&format!("{name}:die"));
            assert!(died.starts_with("Error ") && died.ends_with("no way"), "{from:?}: {died}");
            assert_eq!(asker.reply(&format!("{name}:nothing")), "Answer ", "{from:?}");
            let lines = asker.reply(&format!("{name}:lines"));
            assert_eq!(lines, "Error the handler's answer has a newline in it", "{from:?}");
        }
        let mut asker = world.asker(Language::Rust, CALLED);
        let later = format!("{name}:later");
        assert_eq!(asker.critical("", &later), "Delayed con_delayed", "{name}");
        world.one.wait_delivered(CALLED);
        assert_eq!(asker.reply(&later), "Answer try 3 of none", "{name}");
        program.terminate();
        assert!(!socket.exists(), "its socket goes with it");
    }
    drop(world.other);
    drop(world.lond);
}

#[test]
fn a_line_handler_made_with_a_library_answers_in_order() {
    let mut sockets = Vec::new();
    let serving = Language::serving();
    let world = World::new(|_, other| {
        sockets.extend(serving.iter().map(|language| handler(other, &language.name(), "line")));
    });
    let mut asker = world.asker(Language::Rust, CALLED);
    for (language, socket) in serving.iter().zip(&sockets) {
        let program = language.serve("line", Some(socket));
        let name = language.name();
        let who = asker.critical(&name, &format!("{name}:who"));
        assert_eq!(who, format!("Answer none none none {name}:who"), "{language:?}");
        let requests: Vec<String> = (0..200).map(|number| format!("{name}:x{number}")).collect();
        let answers: Vec<String> = requests.iter().map(|request| format!("Answer {request}")).collect();
        assert!(asker.many(&requests) == answers, "{language:?}");
        assert_eq!(asker.reply(&format!("{name}:later")), "Error not now", "{language:?}");
        assert_eq!(asker.reply(&format!("{name}:nothing")), "Answer ", "{language:?}");
        program.terminate();
    }
}

#[test]
fn a_worker_made_with_a_library_keeps_what_it_prints_out_of_its_answers() {
    for language in Language::serving() {
        let mut program = language.serve("worker", None);
        program.send("1 a - - x:wait\n2 msua1 e/7 k-1 x:who: one\n3 a e/8 - x:later\n");
        let mut answers = [program.line(), program.line()];
        answers.sort();
        assert_eq!(answers, ["2 msua1 e/7 k-1 x:who: one", "3!later"], "{language:?}");
        program.send("18446744073709551615 a - - x:lines\n");
        assert_eq!(program.line(), "18446744073709551615 error:the handler's answer has a newline in it");
        program.send("4 a - - x:go\n");
        let mut answers = [program.line(), program.line()];
        answers.sort();
        assert_eq!(answers, ["1 waited", "4 gone"], "{language:?}");
        program.finish();
    }
}

#[test]
fn lond_keeps_a_worker_running_that_is_made_with_a_library() {
    let serving = Language::serving();
    let world = World::new(|_, other| {
        for language in &serving {
            let section = format!("handler.{}", language.name());
            other.set(&section, "worker", &format!("{:?}", language.worker()));
            other.set(&section, "allow", "[\"*\"]").set(&section, "format", "\"tagged\"");
        }
    });
    let mut asker = world.asker(Language::Rust, CALLED);
    for language in serving {
        let name = language.name();
        let who = asker.critical(&name, &format!("{name}:who"));
        let ends = format!(" {name} {name}:who");
        assert!(who.starts_with(&format!("Answer {CALLER} ")) && who.ends_with(&ends), "{who}");
        let both = [format!("{name}:wait"), format!("{name}:go")];
        assert_eq!(asker.many(&both), ["Answer waited", "Answer gone"], "{language:?}");
        for run in 1..3 {
            assert_eq!(asker.critical("", &format!("{name}:run")), format!("Answer run {run}"));
        }
    }
}
