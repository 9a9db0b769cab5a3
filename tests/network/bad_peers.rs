//! `lonc` calls a host that is broken or hostile: silence, half dialogues, nonsense, floods.

use crate::common::fake_lond::{Fault, Reply, STEPS, Step};
use crate::common::pair::Pair;
use crate::common::{process, wait};
use std::time::{Duration, Instant};

/// More than any line may be, and what a flood would be if it were let.
const FLOOD: u64 = 200 << 20;
/// Most memory that a link child may have had, in KiB: a few longest lines beside the program
/// itself.
const MEMORY: u64 = 64 << 10;

/// A lond that goes wrong at `step`; whatever it does, local programs are answered, and once it is
/// put right the link comes up.
fn survives(step: Step, fault: &Fault, opening_timeout: &str) {
    let pair = Pair::prepare(
        |host| {
            host.set("lonc", "opening_timeout", opening_timeout);
        },
        |fake| {
            fake.fail_at(step, fault.clone());
            fake.listen();
        },
    );
    let fault_name = format!("{step:?} {fault:?}");
    wait::until_true(&format!("another attempt after {fault_name}"), || pair.fake.connections() >= 2);
    assert_eq!(pair.ask("echo:meanwhile"), "con_lost", "{fault_name}");
    assert_eq!(pair.ask("critical:log:kept"), "con_delayed", "{fault_name}");
    pair.fake.behave();
    pair.fake.cut();
    pair.dial_now();
    assert_eq!(pair.ask("echo:better"), "echo:better", "{fault_name}");
    assert_eq!(pair.fake.wait_received("log:", 1)[0], "log:kept", "{fault_name}");
}

#[test]
fn a_host_that_accepts_and_says_nothing_at_any_step_is_tried_again() {
    for step in STEPS {
        survives(step, &Fault::Silence, "\"300ms\"");
    }
}

#[test]
fn a_host_that_closes_at_any_step_is_tried_again() {
    for step in STEPS {
        survives(step, &Fault::Close, "\"3s\"");
    }
}

#[test]
fn a_host_that_closes_in_the_middle_of_an_answer_is_tried_again() {
    for step in [Step::Init, Step::Version, Step::Pong, Step::Ekey] {
        survives(step, &Fault::HalfAnswer, "\"3s\"");
    }
}

#[test]
fn a_host_that_answers_nonsense_where_it_matters_is_tried_again() {
    for step in [Step::Init, Step::Challenge, Step::Ekey] {
        for nonsense in [&b"\n"[..], b"what?\n", b"\xff\x00\xfe\n"] {
            survives(step, &Fault::Say(nonsense.to_vec()), "\"3s\"");
        }
    }
}

#[test]
fn a_host_that_refuses_at_any_step_where_it_may_is_tried_again() {
    for step in [Step::Init, Step::Challenge, Step::Sethost] {
        survives(step, &Fault::Say(b"refused\n".to_vec()), "\"3s\"");
    }
}

#[test]
fn a_flood_without_a_newline_in_the_dialogue_is_hung_up_on_in_bounded_memory() {
    let pair = Pair::prepare(
        |_| {},
        |fake| {
            fake.fail_at(Step::Init, Fault::Flood(FLOOD));
            fake.listen();
        },
    );
    wait::until_true("another attempt", || pair.fake.connections() >= 2);
    assert!(pair.fake.flooded() < FLOOD, "the whole flood was taken");
    let memory = process::peak_memory(pair.lonc.only_child()).expect("the child lives");
    assert!(memory < MEMORY, "{memory} KiB");
    pair.fake.behave();
    pair.fake.cut();
    pair.dial_now();
    assert_eq!(pair.ask("ping"), "msul1");
}

#[test]
fn a_flood_without_a_newline_for_an_answer_fails_that_request_in_bounded_memory() {
    let pair = Pair::up();
    pair.fake.answer_with(|seen| match seen.text().as_str() {
        "echo:flood" => Reply::Flood(FLOOD),
        text => Reply::Line(text.into()),
    });
    let answer = pair.ask("echo:flood");
    assert!(answer == "con_lost" || answer.starts_with("error:"), "{answer}");
    wait::until_true("the link to serve again", || pair.ask("echo:after") == "echo:after");
    let memory = process::peak_memory(pair.lonc.only_child()).expect("the child lives");
    assert!(memory < MEMORY, "{memory} KiB");
}

#[test]
fn more_answers_than_requests_are_never_given_to_another_request() {
    let pair = Pair::up();
    pair.fake.answer_with(|seen| {
        Reply::Lines(vec![seen.request.clone(), b"stray one".to_vec(), b"stray two".to_vec()])
    });
    let mut right = 0;
    for number in 0..20 {
        let request = format!("echo:{number}");
        match pair.ask(&request).as_str() {
            answer if answer == request => right += 1,
            "con_lost" => {}
            other => panic!("{request} was answered {other}"),
        }
    }
    assert!(right > 0, "no request was ever answered");
    pair.fake.behave();
    wait::until_true("the link to serve again", || pair.ask("echo:right again") == "echo:right again");
}

#[test]
fn an_answer_before_any_request_is_never_given_to_one() {
    let pair = Pair::prepare(
        |_| {},
        |fake| {
            fake.fail_at(Step::Ekey, Fault::Say(b"41342A79EAFBE8FC990EFC7D2928\nstray\n".to_vec()));
            fake.listen();
        },
    );
    wait::until_true("a connection", || pair.fake.connections() >= 1);
    for number in 0..20 {
        let request = format!("echo:{number}");
        let answer = pair.ask(&request);
        assert!(answer == request || answer == "con_lost", "{request} was answered {answer}");
    }
}

#[test]
fn a_link_that_closes_after_some_requests_loses_only_those_in_flight() {
    let pair = Pair::up();
    pair.fake.answer_with(|seen| match seen.text().as_str() {
        "echo:close" => Reply::Close,
        text => Reply::Line(text.into()),
    });
    let mut client = pair.host.connect("msul1");
    client.send(b"echo:1\necho:2\necho:close\necho:3\n");
    assert_eq!(client.answer(), "echo:1");
    assert_eq!(client.answer(), "echo:2");
    assert_eq!(client.answer(), "con_lost");
    // Sent ahead of the loss or held back until the next link: both are honest.
    let last = client.answer();
    assert!(last == "con_lost" || last == "echo:3", "{last}");
    wait::until_true("the link to serve again", || client.ask("echo:4") == "echo:4");
}

#[test]
fn a_lost_link_is_dialled_again_without_being_told() {
    let pair = Pair::up();
    pair.fake.cut();
    wait::until_true("another connection", || pair.fake.connections() >= 2);
    let started = Instant::now();
    pair.host.wait_link("msul1", "up");
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(pair.ask("ping"), "msul1");
}
