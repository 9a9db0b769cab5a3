//! The connection to a program, against sockets of the test's own.

use super::*;
use crate::handler::CONNECT_RETRY;
use std::io;

const TIMEOUT: Duration = Duration::from_secs(60);
const MAX_LINE: usize = 64;

/// A conversation on a virtual clock, the program's end of its connection, and the answers it gave.
struct Bench {
    conversation: Conversation,
    now: Instant,
    next: u64,
    answers: Vec<(u64, String)>,
}

impl Bench {
    fn new() -> Bench {
        let now = Instant::now();
        Bench {
            conversation: Conversation::new("echo", TIMEOUT, MAX_LINE, now),
            now,
            next: 0,
            answers: Vec::new(),
        }
    }

    /// One that has a connection.
    fn connected() -> Bench {
        let mut bench = Bench::new();
        bench.ask("first");
        assert!(bench.conversation.wants_dial(bench.now));
        bench.conversation.dialed(bench.now);
        assert_eq!(bench.written(), "first\n");
        bench.program_says("first").unwrap();
        assert_eq!(bench.answers(), [(0, "first")]);
        bench.answers.clear();
        bench
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn ask(&mut self, request: &str) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.conversation.ask(Ticket(ticket), request.as_bytes(), self.now);
        ticket
    }

    fn written(&mut self) -> String {
        let text = String::from_utf8_lossy(self.conversation.outgoing().bytes()).into_owned();
        self.conversation.outgoing().clear();
        text
    }

    fn program_says(&mut self, line: &str) -> Result<(), Fault> {
        self.program_sends(format!("{line}\n").as_bytes())
    }

    fn program_sends(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let answers = &mut self.answers;
        self.conversation.received(bytes, self.now, &mut |ticket, answer| {
            answers.push((ticket.0, shown(answer)));
        })
    }

    fn overdue(&mut self) -> Result<(), Fault> {
        let answers = &mut self.answers;
        self.conversation.overdue(self.now, &mut |ticket, answer| {
            answers.push((ticket.0, shown(answer)));
        })
    }

    fn failed(&mut self, fault: Fault) {
        let answers = &mut self.answers;
        self.conversation.failed(&fault, self.now, &mut |ticket, answer| {
            answers.push((ticket.0, shown(answer)));
        });
    }

    fn answers(&self) -> Vec<(u64, &str)> {
        self.answers.iter().map(|(ticket, text)| (*ticket, text.as_str())).collect()
    }
}

#[test]
fn requests_are_passed_on_at_once_and_answered_in_order() {
    let mut bench = Bench::connected();
    bench.ask("a");
    bench.ask("b");
    bench.ask("c");
    assert_eq!(bench.written(), "a\nb\nc\n");
    bench.program_sends(b"A\n\nC").unwrap();
    assert_eq!(bench.answers(), [(1, "A"), (2, "")], "an empty line is an answer");
    bench.program_sends(b"\n").unwrap();
    assert_eq!(bench.answers()[2], (3, "C"));
    assert_eq!(bench.conversation.deadline(), None);
}

#[test]
fn requests_wait_for_the_connection_and_go_out_in_order_when_it_is_there() {
    let mut bench = Bench::new();
    bench.ask("a");
    bench.ask("b");
    assert_eq!(bench.written(), "", "nothing is written without a connection");
    bench.conversation.dialed(bench.now);
    bench.ask("c");
    assert_eq!(bench.written(), "a\nb\nc\n");
}

#[test]
fn a_program_that_is_away_takes_none_of_the_requests_that_wait_and_the_next_one_dials() {
    let mut bench = Bench::new();
    bench.ask("a");
    bench.ask("b");
    bench.failed(Fault::Away(io::ErrorKind::ConnectionRefused.into()));
    assert_eq!(
        bench.answers(),
        [
            (0, "not taken: echo: connect: connection refused"),
            (1, "not taken: echo: connect: connection refused")
        ]
    );
    assert!(!bench.conversation.wants_dial(bench.now), "nothing waits: no dialing");
    assert_eq!(bench.conversation.deadline(), None);
    bench.ask("c");
    assert!(bench.conversation.wants_dial(bench.now));
    bench.conversation.dialed(bench.now);
    assert_eq!(bench.written(), "c\n");
}

#[test]
fn a_full_queue_is_tried_again_soon_until_the_oldest_request_is_overdue() {
    let mut bench = Bench::new();
    let begun = bench.now;
    bench.ask("a");
    bench.conversation.busy(bench.now);
    assert!(!bench.conversation.wants_dial(bench.now));
    assert_eq!(bench.conversation.deadline(), Some(begun + CONNECT_RETRY));
    bench.now += CONNECT_RETRY;
    assert!(bench.conversation.wants_dial(bench.now));
    bench.wait(59);
    bench.ask("b");
    assert!(bench.overdue().is_ok());
    bench.conversation.busy(bench.now);
    bench.wait(1);
    let fault = bench.overdue().unwrap_err();
    bench.failed(fault);
    let expected = "not taken: echo: connect: its queue of connections was full for 60s";
    assert_eq!(bench.answers(), [(0, expected), (1, expected)]);
}

#[test]
fn only_the_overdue_request_fails_and_its_late_answer_is_dropped() {
    let mut bench = Bench::connected();
    bench.ask("slow");
    bench.ask("b");
    assert_eq!(bench.conversation.deadline(), Some(bench.now + TIMEOUT));
    bench.wait(59);
    bench.overdue().unwrap();
    assert_eq!(bench.answers(), []);
    bench.wait(1);
    bench.overdue().unwrap();
    assert_eq!(bench.answers(), [(1, "error:echo: no answer within 60s")]);
    bench.written();
    bench.ask("c");
    assert_eq!(bench.written(), "", "held while the program is late");
    bench.wait(30);
    bench.overdue().unwrap();
    bench.program_sends(b"SLOW\nB\n").unwrap();
    assert_eq!(bench.written(), "c\n");
    bench.program_says("C").unwrap();
    assert_eq!(bench.answers()[1..], [(2, "B"), (3, "C")]);
    assert_eq!(bench.conversation.deadline(), None);
}

#[test]
fn the_time_of_a_request_begins_when_the_answer_before_it_came() {
    let mut bench = Bench::connected();
    for _ in 0..10 {
        bench.ask("x");
    }
    for _ in 0..10 {
        bench.wait(50);
        bench.overdue().unwrap();
        bench.program_says("y").unwrap();
    }
    assert_eq!(bench.answers().len(), 10);
    assert!(bench.answers().iter().all(|(_, text)| *text == "y"));
    bench.wait(1000);
    bench.ask("after a long pause");
    bench.overdue().unwrap();
    bench.wait(59);
    bench.overdue().unwrap();
    assert_eq!(bench.answers().len(), 10);
}

#[test]
fn a_program_that_stays_stuck_is_given_up_and_what_was_held_goes_to_a_new_connection() {
    let mut bench = Bench::connected();
    bench.ask("stuck");
    bench.ask("behind");
    bench.written();
    bench.wait(60);
    bench.overdue().unwrap();
    bench.wait(50);
    bench.ask("held");
    bench.wait(10);
    let fault = bench.overdue().unwrap_err();
    bench.failed(fault);
    assert_eq!(
        bench.answers(),
        [
            (1, "error:echo: no answer within 60s"),
            (2, "error:echo: stuck behind a request that was not answered within 120s")
        ]
    );
    assert!(bench.conversation.wants_dial(bench.now));
    bench.conversation.dialed(bench.now);
    assert_eq!(bench.written(), "held\n");
    bench.wait(59);
    bench.overdue().unwrap();
    bench.program_says("HELD").unwrap();
    assert_eq!(bench.answers()[2], (3, "HELD"));
}

#[test]
fn a_lost_connection_costs_the_requests_on_it_and_half_an_answer_is_none() {
    let mut bench = Bench::connected();
    bench.ask("a");
    bench.ask("b");
    assert_eq!(bench.written(), "a\nb\n");
    bench.program_sends(b"A\nhal").unwrap();
    bench.failed(Fault::Closed);
    assert_eq!(bench.answers(), [(1, "A"), (2, "error:echo: connection closed by the program")]);
    assert_eq!(bench.written(), "", "nothing of the old connection reaches the new one");
    bench.ask("c");
    bench.conversation.dialed(bench.now);
    assert_eq!(bench.written(), "c\n");
    bench.program_says("C").unwrap();
    assert_eq!(bench.answers()[2], (3, "C"));
}

#[test]
fn what_a_connection_took_nothing_of_is_given_to_the_next_one_and_to_no_third() {
    let broken = || Fault::Broken(io::ErrorKind::OutOfMemory.into());
    let mut bench = Bench::connected();
    for request in ["begun", "whole", "last"] {
        bench.ask(request);
    }
    bench.conversation.outgoing().wrote(2);
    bench.failed(broken());
    let lost = (1, "error:echo: connection lost: out of memory");
    assert_eq!(bench.answers(), [lost], "what was begun may have been acted on");
    assert!(bench.conversation.wants_dial(bench.now));
    bench.conversation.dialed(bench.now);
    assert_eq!(bench.conversation.outgoing().bytes(), b"whole\nlast\n");
    bench.failed(broken());
    let both = [2, 3].map(|ticket| (ticket, "not taken: echo: connection lost: out of memory"));
    assert_eq!(bench.answers()[1..], both);
    assert!(!bench.conversation.wants_dial(bench.now));
    // A connection that has answered begins again.
    bench.ask("x");
    bench.conversation.dialed(bench.now);
    bench.written();
    bench.program_says("X").unwrap();
    bench.ask("y");
    bench.failed(broken());
    assert!(bench.conversation.wants_dial(bench.now));
}

#[test]
fn a_request_that_the_program_left_unread_when_it_closed_was_not_taken_but_those_before_it_may_have_been() {
    let mut bench = Bench::connected();
    bench.ask("a");
    bench.ask("b");
    assert_eq!(bench.written(), "a\nb\n");
    bench.failed(Fault::Unread);
    let why = "echo: connection closed by the program before it had read the request";
    assert_eq!(bench.answers(), [(1, &*format!("error:{why}")), (2, &*format!("not taken: {why}"))]);
    // Of one that was not sent whole the program has something, perhaps.
    bench.ask("half");
    bench.conversation.dialed(bench.now);
    bench.conversation.outgoing().wrote(2);
    bench.failed(Fault::Unread);
    assert_eq!(bench.answers()[2], (3, &*format!("error:{why}")));
    assert!(!bench.conversation.wants_dial(bench.now));
}

#[test]
fn a_program_is_looked_for_without_a_request_and_the_connection_is_then_used() {
    let mut bench = Bench::new();
    bench.conversation.probe(bench.now);
    assert!(bench.conversation.wants_dial(bench.now));
    bench.failed(Fault::Away(io::ErrorKind::NotFound.into()));
    assert_eq!(bench.answers(), []);
    assert!(!bench.conversation.wants_dial(bench.now));
    bench.conversation.probe(bench.now);
    bench.conversation.dialed(bench.now);
    assert!(bench.conversation.is_free());
    bench.ask("a");
    assert_eq!(bench.written(), "a\n");
}

#[test]
fn an_idle_connection_that_closes_costs_nothing() {
    let mut bench = Bench::connected();
    bench.failed(Fault::Closed);
    assert_eq!(bench.answers(), []);
    assert!(!bench.conversation.wants_dial(bench.now));
}

#[test]
fn more_answers_than_requests_are_a_fault_and_belong_to_nobody() {
    for excess in [&b"B\nB2\n"[..], b"B\n\n", b"B\nx"] {
        let mut bench = Bench::connected();
        bench.ask("b");
        assert!(matches!(bench.program_sends(excess), Err(Fault::Unasked)), "{}", excess.escape_ascii());
        bench.failed(Fault::Unasked);
        assert_eq!(bench.answers(), [(1, "B")]);
    }
    let mut bench = Bench::connected();
    assert!(matches!(bench.program_sends(b"x"), Err(Fault::Unasked)));
}

#[test]
fn an_answer_that_is_too_long_costs_its_request_alone() {
    for chunk in [7, 100, 1000] {
        let mut bench = Bench::connected();
        bench.ask("a");
        bench.ask("b");
        bench.ask("c");
        let mut bytes = vec![b'x'; 10 * MAX_LINE];
        bytes.extend_from_slice(b"\nB\n");
        bytes.extend_from_slice(&[b'y'; MAX_LINE + 1]);
        for part in bytes.chunks(chunk) {
            bench.program_sends(part).unwrap();
        }
        let too_long = "error:echo: answer longer than 64 bytes";
        assert_eq!(bench.answers(), [(1, too_long), (2, "B"), (3, too_long)]);
        bench.ask("d");
        bench.program_sends(b"yyy\nD\n").unwrap();
        assert_eq!(bench.answers()[3], (4, "D"), "what is left of the long line is no answer");
    }
}

#[test]
fn the_clock_of_a_program_stands_while_it_is_not_read() {
    let mut bench = Bench::connected();
    bench.ask("a");
    bench.wait(50);
    bench.conversation.pause(true, bench.now);
    assert_eq!(bench.conversation.deadline(), None);
    bench.wait(1000);
    bench.ask("b");
    bench.overdue().unwrap();
    bench.conversation.pause(false, bench.now);
    assert_eq!(bench.conversation.deadline(), Some(bench.now + Duration::from_secs(10)));
    bench.overdue().unwrap();
    assert_eq!(bench.answers(), []);
    bench.wait(10);
    bench.overdue().unwrap();
    assert_eq!(bench.answers().len(), 1);
}

#[test]
fn every_request_is_answered_exactly_once_whatever_happens() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new();
        let mut up = false;
        for _ in 0..200 {
            let outcome = match random.u8(0..10) {
                0..=3 => {
                    bench.ask("x");
                    Ok(())
                }
                4 | 5 if up => bench.program_sends(random.choice([&b"y\n"[..], b"y\ny\n", b"y"]).unwrap()),
                6 if up => Err(Fault::Closed),
                7 => {
                    bench.wait(random.u64(0..70));
                    Ok(())
                }
                8 => {
                    bench.conversation.pause(random.bool(), bench.now);
                    Ok(())
                }
                _ => Ok(()),
            };
            if let Err(fault) = outcome.and_then(|()| bench.overdue()) {
                bench.failed(fault);
                up = false;
            }
            if bench.conversation.wants_dial(bench.now) {
                match random.u8(0..3) {
                    0 => bench.conversation.busy(bench.now),
                    1 => bench.failed(Fault::Away(io::ErrorKind::NotFound.into())),
                    _ => {
                        bench.conversation.dialed(bench.now);
                        up = true;
                    }
                }
            }
        }
        for _ in 0..2 {
            bench.failed(Fault::Closed);
        }
        let mut answered: Vec<u64> = bench.answers.iter().map(|(ticket, _)| *ticket).collect();
        assert!(answered.is_sorted(), "in order");
        answered.dedup();
        assert_eq!(answered, (0..bench.next).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(answered.len(), bench.answers.len());
    }
}

/// The answer, or what stands for it.
fn shown(reply: Reply<'_>) -> String {
    match reply {
        Reply::Answer(text) | Reply::Broken(text) => String::from_utf8_lossy(text).into_owned(),
        Reply::NotTaken(why) => format!("not taken: {why}"),
    }
}
