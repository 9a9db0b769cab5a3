//! The conversation with a program that answers in any order, on a clock of the test's own.

use super::*;
use crate::handler::CONNECT_RETRY;
use std::io;

const TIMEOUT: Duration = Duration::from_secs(60);
const MAX_LINE: usize = 64;

struct Bench {
    conversation: Conversation,
    now: Instant,
    told: Vec<String>,
}

impl Bench {
    fn new(speaker: Speaker) -> Bench {
        let conversation = Conversation::new("echo", speaker, TIMEOUT, MAX_LINE);
        Bench { conversation, now: Instant::now(), told: Vec::new() }
    }

    /// With a connection, over which these were passed on and taken.
    fn with(tickets: impl IntoIterator<Item = u64>) -> Bench {
        let mut bench = Bench::new(Speaker::Program);
        tickets.into_iter().for_each(|ticket| bench.ask(ticket));
        assert!(bench.conversation.wants_dial(bench.now));
        bench.conversation.dialed(bench.now);
        bench.written();
        bench
    }

    fn ask(&mut self, ticket: u64) {
        self.conversation.ask(Ticket(ticket), format!("{ticket} a - - echo").as_bytes(), self.now);
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn written(&mut self) -> String {
        let text = String::from_utf8_lossy(self.conversation.outgoing().bytes()).into_owned();
        self.conversation.outgoing().clear();
        text
    }

    fn says(&mut self, line: &str) -> Result<(), Fault> {
        let told = &mut self.told;
        let line = format!("{line}\n");
        self.conversation.received(line.as_bytes(), self.now, &mut |ticket, reply| tell(told, ticket, reply))
    }

    fn overdue(&mut self) -> Result<(), Fault> {
        let told = &mut self.told;
        self.conversation.overdue(self.now, &mut |ticket, reply| tell(told, ticket, reply))
    }

    fn fail(&mut self, fault: &Fault) {
        let told = &mut self.told;
        self.conversation.failed(fault, self.now, &mut |ticket, reply| tell(told, ticket, reply));
    }

    /// What was told since the last call.
    fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }
}

fn tell(told: &mut Vec<String>, ticket: Ticket, reply: Reply<'_>) {
    let kind = match reply {
        Reply::Answer(_) => "",
        Reply::Broken(_) => "broken ",
        Reply::NotTaken(_) => "not taken ",
    };
    told.push(format!("{}: {kind}{}", ticket.0, String::from_utf8_lossy(&reply.text())));
}

#[test]
fn hundreds_are_passed_on_at_once_and_each_answer_goes_to_its_request() {
    let mut bench = Bench::new(Speaker::Program);
    bench.ask(0);
    bench.conversation.dialed(bench.now);
    (1..300).for_each(|ticket| bench.ask(ticket));
    assert_eq!(bench.written().lines().count(), 300);
    for ticket in (0..300).rev() {
        bench.says(&format!("{ticket} it is  {ticket}\r")).unwrap();
    }
    let expected: Vec<_> = (0..300).rev().map(|ticket| format!("{ticket}: it is  {ticket}\r")).collect();
    assert_eq!(bench.told(), expected);
    assert!(bench.conversation.is_free() && bench.conversation.deadline().is_none());
}

#[test]
fn what_is_later_was_not_taken_and_only_a_process_of_our_own_says_busy_or_failed() {
    let mut bench = Bench::with([1, 2, 3]);
    bench.says("2!later").unwrap();
    assert_eq!(bench.told(), ["2: not taken error:echo: not now"]);
    assert!(matches!(bench.says("1!failed error:x"), Err(Fault::Malformed(_))));
    let mut bench = Bench::new(Speaker::Pool);
    (1..4).for_each(|ticket| bench.ask(ticket));
    bench.conversation.dialed(bench.now);
    bench.says("1!failed error:echo: exit 3").unwrap();
    assert!(!bench.conversation.take_short());
    bench.says("3!busy").unwrap();
    assert_eq!(bench.told(), ["1: broken error:echo: exit 3", "3: not taken error:echo: busy"]);
    assert!(bench.conversation.take_short() && !bench.conversation.take_short());
    bench.says("2!away start /x: no").unwrap();
    assert_eq!(bench.told(), ["2: not taken error:echo: start /x: no"]);
    assert!(bench.conversation.take_short());
}

#[test]
fn of_what_a_process_of_our_own_had_when_it_ended_it_is_not_said_that_the_program_ended() {
    for fault in [Fault::Closed, Fault::Unread, Fault::Broken(io::ErrorKind::ConnectionReset.into())] {
        let mut bench = Bench::new(Speaker::Pool);
        bench.ask(1);
        bench.ask(2);
        bench.conversation.dialed(bench.now);
        bench.written();
        bench.fail(&fault);
        let told = bench.told();
        let why = "error:echo: the process of lond that runs its program has ended; whether the request was begun is not known";
        assert_eq!(told[0], format!("1: broken {why}"));
        assert!(told[1].ends_with(why), "{told:?}");
    }
}

#[test]
fn an_overdue_request_costs_itself_alone_and_its_late_answer_is_dropped() {
    let mut bench = Bench::with([1, 2]);
    bench.wait(59);
    bench.ask(3);
    bench.says("2 two").unwrap();
    bench.wait(1);
    assert_eq!(bench.conversation.deadline(), Some(bench.now));
    bench.overdue().unwrap();
    assert_eq!(bench.told(), ["2: two", "1: broken error:echo: no answer within 60s"]);
    bench.says("1 late").unwrap();
    bench.says("2 again").unwrap();
    bench.says("3 three").unwrap();
    assert_eq!(bench.told(), ["3: three"]);
    assert!(matches!(bench.says("4 never asked"), Err(Fault::Unasked)));
}

#[test]
fn a_program_that_is_late_and_says_nothing_is_given_up_and_one_that_says_something_is_not() {
    for speaks in [false, true] {
        let mut bench = Bench::with([1]);
        bench.wait(60);
        bench.overdue().unwrap();
        bench.ask(2);
        bench.wait(30);
        if speaks {
            bench.says("1 late").unwrap();
        }
        bench.wait(30);
        assert_eq!(bench.conversation.deadline(), Some(bench.now));
        let stuck = bench.overdue();
        assert_eq!(matches!(stuck, Err(Fault::Stuck(_))), !speaks, "{stuck:?}");
    }
}

#[test]
fn what_the_program_may_have_is_broken_and_what_it_cannot_have_is_asked_again_once() {
    let mut bench = Bench::with([1, 2]);
    bench.ask(3);
    bench.ask(4);
    // All of the third and a part of the fourth have gone.
    let sent = "3 a - - echo\n4".len();
    bench.conversation.outgoing().wrote(sent);
    bench.ask(5);
    bench.says("2 two").unwrap();
    bench.fail(&Fault::Closed);
    let closed = "broken error:echo: connection closed by the program";
    assert_eq!(
        bench.told(),
        ["2: two".to_owned(), format!("1: {closed}"), format!("3: {closed}"), format!("4: {closed}")]
    );
    assert!(bench.conversation.wants_dial(bench.now));
    bench.conversation.dialed(bench.now);
    bench.fail(&Fault::Closed);
    assert_eq!(bench.told(), ["5: not taken error:echo: connection closed by the program"]);
    assert!(bench.conversation.is_free());
}

#[test]
fn what_was_left_unread_was_not_taken_and_nobody_there_takes_nothing() {
    let mut bench = Bench::with([1, 2]);
    bench.fail(&Fault::Unread);
    let told = bench.told();
    assert!(told[0].starts_with("1: broken ") && told[1].starts_with("2: not taken "), "{told:?}");
    bench.ask(3);
    bench.fail(&Fault::Away(io::ErrorKind::NotFound.into()));
    assert!(bench.told()[0].starts_with("3: not taken error:echo: connect: "));
    assert!(bench.conversation.deadline().is_none());
}

#[test]
fn an_answer_that_is_too_long_costs_its_request_alone() {
    let mut bench = Bench::with([1, 2]);
    let too_long = "1: broken error:echo: answer longer than 64 bytes";
    for length in [MAX_LINE + 1, MAX_LINE + BEFORE_TEXT, 10 * MAX_LINE] {
        bench.says(&format!("1 {}", "x".repeat(length))).unwrap();
        assert_eq!(bench.told(), [too_long], "{length}");
        bench.ask(1);
    }
    bench.says(&format!("2 {}", "x".repeat(MAX_LINE))).unwrap();
    assert_eq!(bench.told()[0].len(), MAX_LINE + 3);
}

#[test]
fn a_program_that_is_not_read_is_not_late() {
    let mut bench = Bench::with([1]);
    bench.wait(10);
    bench.conversation.pause(true, bench.now);
    bench.wait(1000);
    assert_eq!(bench.conversation.deadline(), None);
    bench.overdue().unwrap();
    bench.conversation.pause(false, bench.now);
    assert_eq!(bench.conversation.deadline(), Some(bench.now + Duration::from_secs(50)));
}

#[test]
fn a_full_queue_is_tried_again_until_the_request_is_overdue_and_one_that_waits_can_be_withdrawn() {
    let mut bench = Bench::new(Speaker::Program);
    bench.ask(1);
    bench.conversation.busy(bench.now);
    assert_eq!(bench.conversation.deadline(), Some(bench.now + CONNECT_RETRY));
    assert!(!bench.conversation.wants_dial(bench.now));
    bench.wait(60);
    assert!(matches!(bench.overdue(), Err(Fault::Busy(_))));
    assert!(bench.conversation.withdraw(Ticket(1)) && !bench.conversation.withdraw(Ticket(1)));
    assert!(bench.conversation.is_free());
    bench.conversation.probe(bench.now);
    assert!(bench.conversation.wants_dial(bench.now));
}
