//! What a crew does where no process can be had. No test here starts one: it would be forked from a
//! process of many threads. `tests/network/pools.rs` has real ones.

use super::*;
use crate::handler::tag::Request;
use config::{Access, Handler, Program, fixture};
use net::Poll;

/// A program whose name cannot be given to the system.
fn crew(run: Run, now: Instant) -> (Crew, Poll) {
    let program = Program { file: "/no\0name".into(), arguments: Vec::new(), run, waiting: 8 };
    let handler = Handler { program: Some(program), ..fixture::handler("pay", Access::everyone()) };
    let settings = Settings { handler, max_line: 64, drain_timeout: Duration::from_secs(1) };
    let poll = Poll::new().unwrap();
    (Crew::new(settings, poll.registry().try_clone().unwrap(), now), poll)
}

fn ask(tag: u64) -> Ask {
    Ask::new(0, &Request { tag, from: b"a", id: b"-", key: b"-", text: b"pay:x" }, Instant::now())
}

#[test]
fn where_there_is_no_process_for_a_request_it_comes_back_and_another_is_tried_after_a_pause() {
    let now = Instant::now();
    let (mut crew, _poll) = crew(Run::Each(2), now);
    assert!(crew.has_room(now));
    assert_eq!(crew.begin(ask(7), now).map_err(|ask| ask.tag), Err(7));
    assert_eq!((crew.len(), crew.open(), crew.has_work()), (0, 0, false));
    assert!(crew.fault.as_deref().is_some_and(|what| what.starts_with("start a process: ")));
    assert!(!crew.has_room(now) && crew.deadline() == Some(now + FORK_PAUSE));
    crew.start_due(now + FORK_PAUSE / 2);
    assert!(!crew.has_room(now + FORK_PAUSE / 2));
    crew.start_due(now + FORK_PAUSE);
    assert!(crew.has_room(now + FORK_PAUSE) && crew.deadline().is_none());
}

#[test]
fn where_there_is_no_process_to_be_kept_there_is_no_room_and_all_are_tried_again() {
    let now = Instant::now();
    let (mut crew, _poll) = crew(Run::Kept(2), now);
    assert!(!crew.has_room(now), "none is started yet");
    crew.start_due(now);
    assert_eq!((crew.len(), crew.restarts), (0, 0));
    assert!(!crew.has_room(now) && crew.begin(ask(1), now).is_err());
    let again = crew.deadline().unwrap();
    assert!(again > now);
    crew.fault = None;
    crew.start_due(again);
    assert!(crew.fault.is_some(), "tried again");
}
