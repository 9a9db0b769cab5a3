//! Handlers that are told who asks, and answer in any order.

use crate::common::caller::Caller;
use crate::common::handler::Program as Handler;
use crate::common::local::Local;
use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::program::Program;
use crate::common::wait;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Two whole hosts; `pay` is a tagged handler of the second, whose program is the test's business.
struct Tagged {
    _lonc: Program,
    lond: Program,
    one: Host,
    other: Host,
    pay: PathBuf,
    _network: Network,
}

fn tagged(window: usize) -> Tagged {
    let network = Network::secure(&[CALLER, CALLED]);
    let (one, mut other) = (network.host(CALLER), network.host(CALLED));
    let pay = other.handler("pay");
    other.set("handler.pay", "format", "\"tagged\"").set("handler.pay", "window", &window.to_string());
    let lond = other.lond();
    let lonc = one.lonc();
    one.wait_link(CALLED, "up");
    Tagged { _lonc: lonc, lond, one, other, pay, _network: network }
}

/// The words of a request, as text: tag, who asks, id, key, and the request itself.
fn words(line: &[u8]) -> [String; 5] {
    let words: Vec<_> = String::from_utf8_lossy(line).splitn(5, ' ').map(str::to_owned).collect();
    words.try_into().unwrap_or_else(|words| panic!("{words:?}"))
}

#[test]
fn hundreds_of_requests_are_in_flight_over_one_connection_and_answered_in_any_order() {
    let hosts = tagged(1);
    let waiting = Mutex::new(Vec::new());
    // Answers nothing before it has the last request, and then all of them, the last first.
    let program = Handler::start(&hosts.pay, move |line| {
        let [tag, from, id, key, request] = words(line);
        assert_eq!((from.as_str(), id.as_str(), key.as_str()), (CALLER, "-", "-"));
        let mut waiting = waiting.lock().expect("the requests");
        waiting.push(format!("{tag} {request}"));
        (waiting.len() == 300).then(|| {
            let all: Vec<String> = waiting.drain(..).rev().collect();
            all.join("\n").into_bytes()
        })
    });
    let mut local = hosts.one.connect(CALLED);
    let all: String = (0..300).map(|number| format!("pay:{number}  x \n")).collect();
    local.send(all.as_bytes());
    for number in 0..300 {
        assert_eq!(local.answer(), format!("pay:{number}  x "));
    }
    assert_eq!(program.connections(), 1);
}

#[test]
fn a_message_that_is_for_later_is_kept_in_its_place_and_comes_again_under_the_same_id() {
    let hosts = tagged(1);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let _program = Handler::start(&hosts.pay, {
        let seen = seen.clone();
        move |line| {
            let [tag, _, id, key, request] = words(line);
            let mut seen = seen.lock().expect("seen");
            seen.push((id, key, request.clone()));
            let tries = seen.iter().filter(|(_, _, asked)| *asked == request).count();
            let later = request == "pay:1" && tries < 3;
            Some(if later { format!("{tag}!later") } else { format!("{tag} done") }.into_bytes())
        }
    });
    let ask = |request: &str| Local::connect(&hosts.one.socket(CALLED)).ask(request);
    assert_eq!(ask("critical;key=k-1:pay:1"), "con_delayed");
    assert_eq!(ask("critical:pay:2"), "con_delayed", "it must not overtake the first");
    hosts.one.wait_delivered(CALLED);
    let seen = seen.lock().expect("seen").clone();
    let requests: Vec<_> = seen.iter().map(|(_, _, request)| request.as_str()).collect();
    assert_eq!(requests, ["pay:1", "pay:1", "pay:1", "pay:2"]);
    let ids: BTreeSet<_> = seen.iter().take(3).map(|(id, key, _)| (id, key.as_str())).collect();
    assert_eq!(ids.len(), 1, "{seen:?}");
    let (id, key) = ids.first().expect("one");
    assert!(id.contains('/') && *key == "k-1", "{seen:?}");
    assert_ne!(seen[3].0, seen[0].0);
    // A request that nobody keeps is told.
    assert_eq!(hosts.one.ask(CALLED, "pay:1"), "done");
}

#[test]
fn a_key_that_lon_made_for_a_message_is_not_told_and_one_that_its_user_gave_is() {
    let hosts = tagged(1);
    let _program = Handler::start(&hosts.pay, |line| {
        let [tag, _, id, key, request] = words(line);
        assert_ne!(id, "-", "a critical one");
        Some(format!("{tag} {key} {request}").into_bytes())
    });
    for (asked, answer) in [("pay:1", "- pay:1\n"), ("critical;key=mine:pay:2", "mine pay:2\n")] {
        let output = hosts.one.lon(&["critical", CALLED, asked]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), answer, "{output:?}");
    }
}

#[test]
fn a_program_with_a_window_has_several_messages_at_once_in_their_order() {
    let hosts = tagged(4);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (waiting, kept) = (Mutex::new(Vec::new()), seen.clone());
    // Answers when it has four, the last first.
    let program = Handler::start(&hosts.pay, move |line| {
        let [tag, _, _, _, request] = words(line);
        kept.lock().expect("seen").push(request);
        let mut waiting = waiting.lock().expect("the requests");
        waiting.push(format!("{tag} done"));
        (waiting.len() == 4).then(|| {
            let all: Vec<String> = waiting.drain(..).rev().collect();
            all.join("\n").into_bytes()
        })
    });
    let mut local = hosts.one.connect(CALLED);
    let all: String = (0..40).map(|number| format!("critical:pay:{number:02}\n")).collect();
    local.send(all.as_bytes());
    for _ in 0..40 {
        assert_eq!(local.answer(), "done");
    }
    let expected: Vec<_> = (0..40).map(|number| format!("pay:{number:02}")).collect();
    assert_eq!(*seen.lock().expect("seen"), expected);
    assert_eq!(program.connections(), 1);
    drop(hosts.lond);
}

#[test]
fn a_line_that_is_no_answer_ends_the_connection_and_the_message_that_was_taken_has_failed() {
    let hosts = tagged(1);
    let _program = Handler::start(&hosts.pay, |line| {
        let [tag, _, _, _, request] = words(line);
        Some(if request == "pay:bad" { "done".to_owned() } else { format!("{tag} done") }.into_bytes())
    });
    let answer = hosts.one.ask(CALLED, "pay:bad");
    assert_eq!(answer, "error:pay: an answer without a decimal tag: \"done\"");
    assert_eq!(hosts.one.ask(CALLED, "pay:good"), "done");
    wait::until_true("the log to say it", || hosts.other.log("lond.log").contains("without a decimal tag"));
}

#[test]
fn on_the_classic_wire_a_tagged_program_is_told_who_asks_and_answers_come_in_order() {
    let network = Network::new(&[CALLER, CALLED]);
    let mut host = network.host(CALLED);
    let socket = host.handler("pay");
    host.set("handler.pay", "format", "\"tagged\"");
    let _lond = host.lond();
    let first = Mutex::new(None);
    let _program = Handler::start(&socket, move |line| {
        let [tag, from, id, key, request] = words(line);
        let answer = format!("{tag} {from} {id} {key} {request}");
        let mut first = first.lock().expect("the first");
        match first.take() {
            None => {
                *first = Some(answer);
                None
            }
            Some(before) => Some(format!("{answer}\n{before}").into_bytes()),
        }
    });
    let mut caller = Caller::open(network.address(CALLER).ip(), host.address, CALLED).0;
    caller.send(b"pay:1\npay:2\n");
    for number in [1, 2] {
        assert_eq!(caller.hear(), Some(format!("{CALLER} - - pay:{number}")));
    }
}
