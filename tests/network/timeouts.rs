//! Requests that wait too long for the other host.

use crate::common::fake_lond::Reply;
use crate::common::pair::Pair;
use crate::common::wait::{self, Gate};
use std::time::{Duration, Instant};

/// A link whose lond does not answer `echo:slow` until the gate is opened, and everything behind it
/// neither.
fn slow_pair(request_timeout: &str) -> (Pair, Gate) {
    let pair = Pair::up_with(|host| {
        host.set("lonc", "request_timeout", request_timeout);
    });
    let gate = Gate::default();
    let waits = gate.clone();
    pair.fake.answer_with(move |seen| {
        if seen.request == b"echo:slow" {
            waits.pass();
        }
        Reply::Line(seen.request.clone())
    });
    (pair, gate)
}

#[test]
fn a_request_that_times_out_fails_alone_and_its_late_answer_is_given_to_nobody() {
    let (pair, gate) = slow_pair("\"2s\"");
    let child = pair.lonc.only_child();
    let mut other = pair.host.connect("msul1");
    assert_eq!(other.ask("echo:before"), "echo:before");
    let started = Instant::now();
    let mut slow = pair.host.connect("msul1");
    slow.send(b"echo:slow\n");
    assert_eq!(slow.answer(), "con_lost");
    assert!(started.elapsed() >= Duration::from_secs(2), "timed out early: {:?}", started.elapsed());
    // Behind the slow one on the link, with two seconds of its own.
    other.send(b"echo:behind\n");
    gate.open();
    assert_eq!(other.answer(), "echo:behind");
    assert_eq!(slow.ask("echo:the same client again"), "echo:the same client again");
    for number in 0..100 {
        assert_eq!(other.ask(&format!("echo:{number}")), format!("echo:{number}"));
    }
    assert_eq!(pair.lonc.only_child(), child, "the child was replaced");
    assert_eq!(pair.fake.connections(), 1, "the link was given up");
}

#[test]
fn a_client_goes_on_after_a_timeout_in_the_order_of_its_requests() {
    let (pair, gate) = slow_pair("\"1s\"");
    let mut client = pair.host.connect("msul1");
    client.send(b"echo:1\necho:slow\n");
    assert_eq!(client.answer(), "echo:1");
    assert_eq!(client.answer(), "con_lost");
    client.send(b"echo:2\necho:3\n");
    gate.open();
    assert_eq!(client.answer(), "echo:2");
    assert_eq!(client.answer(), "echo:3");
}

#[test]
fn a_host_that_stops_answering_times_requests_out_and_is_served_again_when_it_recovers() {
    let pair = Pair::up_with(|host| {
        host.set("lonc", "request_timeout", "\"500ms\"");
    });
    pair.fake.answer_with(|_| Reply::Nothing);
    let mut clients: Vec<_> = (0..20).map(|_| pair.host.connect("msul1")).collect();
    for client in &mut clients {
        client.send(b"echo:into the void\n");
    }
    for client in &mut clients {
        assert_eq!(client.answer(), "con_lost");
    }
    pair.fake.behave();
    wait::until_true("the link to serve again", || pair.ask("echo:back") == "echo:back");
    // Whatever became of the old link, answers belong to their requests.
    for number in 0..100 {
        let request = format!("echo:{number}");
        assert_eq!(pair.ask(&request), request);
    }
}

#[test]
fn a_client_with_a_deadline_of_its_own_may_leave_and_nobody_gets_its_answer() {
    let (pair, gate) = slow_pair("\"30s\"");
    let mut impatient = pair.host.connect("msul1");
    impatient.send(b"echo:slow\n");
    pair.fake.wait_received("echo:slow", 1);
    drop(impatient);
    let mut next = pair.host.connect("msul1");
    next.send(b"echo:next\n");
    gate.open();
    assert_eq!(next.answer(), "echo:next");
}
