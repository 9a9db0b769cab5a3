//! One handler over real sockets: who waits for whom.

use super::*;
use crate::reactor::tests::rig::PATIENCE;
use net::{Events, Poll};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

mod ahead;

/// A handler on a clock that the test moves, and its program.
/// As much as there can be.
fn room() -> Room {
    Room::beside(std::iter::empty())
}

struct Bench {
    handler: Lanes,
    listener: UnixListener,
    poll: Poll,
    now: Instant,
    /// Ticket of the next request of [`Bench::ask_for`].
    next: u64,
    answers: Vec<(u64, String)>,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("echo.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let now = Instant::now();
        let config = config::Handler {
            name: "echo".to_owned(),
            socket,
            program: None,
            form: config::Form::Line,
            window: 1,
            access: config::Access::everyone(),
            timeout: Duration::from_secs(60),
        };
        let handler = Lanes::new(&config, 1000, 100, now);
        Bench { handler, listener, poll: Poll::new().unwrap(), now, next: 0, answers: Vec::new(), _dir: dir }
    }

    fn ask(&mut self, ticket: u64) {
        self.handler.ask(Ticket(ticket), Order::Free, &mut ticket.to_string().into_bytes(), self.now);
    }

    fn ask_in_order(&mut self, ticket: u64) {
        self.handler.ask(Ticket(ticket), Order::Once, &mut ticket.to_string().into_bytes(), self.now);
    }

    fn until(&mut self, so: impl Fn(&Bench) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so(self) {
            assert!(Instant::now() < deadline);
            self.turn();
        }
    }

    fn note(&mut self) {
        let mut events = Events::with_capacity(64);
        self.poll.poll(&mut events, Some(Duration::from_millis(1))).unwrap();
        for event in &events {
            self.handler.note(event.token().0 - 100, event);
        }
    }

    fn turn(&mut self) {
        self.note();
        let answers = &mut self.answers;
        let mut answer = |ticket: Ticket, reply: Reply<'_>| {
            answers.push((ticket.0, String::from_utf8_lossy(&reply.text()).into_owned()));
        };
        self.handler.read(true, &mut room(), &mut [0; 1000], self.now, &mut answer);
        self.handler.write(self.poll.registry(), &mut [0; 1000], self.now, &mut answer);
    }

    fn accept(&self) -> BufReader<UnixStream> {
        let (connection, _) = self.listener.accept().unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(connection)
    }

    /// The program answers a request on this connection, and the answer is taken.
    fn serve(&mut self, connection: &mut BufReader<UnixStream>) -> String {
        let mut line = String::new();
        connection.read_line(&mut line).unwrap();
        connection.get_mut().write_all(line.as_bytes()).unwrap();
        let before = self.answers.len();
        self.until(|bench| bench.answers.len() > before);
        line.trim_end().to_owned()
    }
}

#[test]
fn each_request_has_a_connection_of_its_own_and_those_beyond_the_pool_wait_for_the_first_that_is_free() {
    let mut bench = Bench::new();
    for ticket in 0..POOL as u64 + 2 {
        bench.ask(ticket);
    }
    bench.turn();
    let mut connections: Vec<_> = (0..POOL).map(|_| bench.accept()).collect();
    bench.turn();
    assert!(!bench.handler.has_work(true, &room(), bench.now), "those that wait do so without a turn");
    assert!(bench.handler.withdraw(Ticket(17)));
    assert!(!bench.handler.withdraw(Ticket(3)), "the program has it");
    assert_eq!(bench.serve(&mut connections[7]), "7");
    assert_eq!(bench.serve(&mut connections[7]), "16");
    assert_eq!(bench.answers, [(7, "7".to_owned()), (16, "16".to_owned())]);
}

#[test]
fn a_request_of_which_no_byte_was_written_when_its_connection_closed_goes_to_another() {
    let mut bench = Bench::new();
    bench.ask(1);
    bench.turn();
    let mut first = bench.accept();
    bench.serve(&mut first);
    // It closes just before the next is written, and that it did is noted and not looked at yet.
    bench.ask(2);
    drop(first);
    bench.note();
    let mut answer = |ticket: Ticket, reply: Reply<'_>| {
        panic!("{ticket:?}: {}", String::from_utf8_lossy(&reply.text()));
    };
    bench.handler.write(bench.poll.registry(), &mut [0; 1000], bench.now, &mut answer);
    bench.turn();
    let mut second = bench.accept();
    assert_eq!(bench.serve(&mut second), "2");
}

#[test]
fn a_connection_that_is_not_used_is_closed_after_a_while_and_the_last_used_is_used_first() {
    let mut bench = Bench::new();
    bench.ask(1);
    bench.ask(2);
    bench.turn();
    let (mut first, mut second) = (bench.accept(), bench.accept());
    bench.serve(&mut first);
    bench.now += Duration::from_secs(10);
    bench.serve(&mut second);
    assert_eq!(bench.handler.deadline(), Some(bench.now - Duration::from_secs(10) + IDLE));
    bench.now += Duration::from_secs(10);
    bench.ask(3);
    bench.turn();
    assert_eq!(bench.serve(&mut second), "3");
    bench.now += Duration::from_secs(10);
    bench.turn();
    assert_eq!(first.read(&mut [0]).unwrap(), 0, "closed");
    bench.ask(4);
    bench.turn();
    assert_eq!(bench.serve(&mut second), "4");
}

#[test]
fn a_program_that_serves_one_connection_at_a_time_comes_to_all_requests_and_gets_one_connection_from_then_on()
{
    let mut bench = Bench::new();
    for ticket in 1..=3 {
        bench.ask(ticket);
    }
    bench.ask_in_order(4);
    bench.turn();
    // The program does not look at the others while this one is open.
    let mut first = bench.accept();
    bench.serve(&mut first);
    bench.turn();
    assert!(bench.handler.deadline().is_some_and(|at| at <= bench.now + STARVED), "it is looked at in time");
    bench.now += STARVED;
    bench.turn();
    assert_eq!(first.read(&mut [0]).unwrap(), 0, "closed for the sake of the others");
    // It came to one, so that none is kept waiting for the next.
    for _ in 0..3 {
        let mut next = bench.accept();
        bench.serve(&mut next);
        bench.turn();
        bench.ask(10 + bench.answers.len() as u64);
        if bench.answers.len() < 4 {
            assert_eq!(next.read(&mut [0]).unwrap(), 0, "closed for the sake of the others");
        } else {
            bench.ask_in_order(20);
            bench.turn();
            // Those that waited meanwhile, in their order over the connection that is left.
            let served: Vec<_> = (0..4).map(|_| bench.serve(&mut next)).collect();
            assert_eq!(served, ["12", "13", "14", "20"]);
            bench.now += STARVED;
            bench.turn();
            assert_eq!(next.read(&mut [0]).unwrap(), 0, "closed for the sake of other links");
        }
    }
    let mut served: Vec<_> = bench.answers.iter().map(|(ticket, _)| *ticket).collect();
    served[..4].sort_unstable();
    assert_eq!(served, [1, 2, 3, 4, 12, 13, 14, 20]);
    bench.listener.set_nonblocking(true).unwrap();
    assert!(bench.listener.accept().is_err(), "no connection beside");
}

#[test]
fn a_program_that_is_slow_on_one_connection_and_answers_on_others_keeps_them() {
    let mut bench = Bench::new();
    bench.ask(1);
    bench.ask(2);
    bench.turn();
    let (mut slow, mut fast) = (bench.accept(), bench.accept());
    let mut line = String::new();
    slow.read_line(&mut line).unwrap();
    bench.serve(&mut fast);
    for ticket in 3..20 {
        bench.now += STARVED;
        bench.turn();
        bench.ask(ticket);
        bench.turn();
        assert_eq!(bench.serve(&mut fast), ticket.to_string(), "not closed, and not behind the slow one");
    }
}

#[test]
fn a_program_that_takes_long_over_its_first_request_costs_an_idle_connection_nothing() {
    let mut bench = Bench::new();
    bench.ask(1);
    bench.ask(2);
    bench.turn();
    let (mut fast, mut slow) = (bench.accept(), bench.accept());
    bench.serve(&mut fast);
    let mut line = String::new();
    slow.read_line(&mut line).unwrap();
    bench.now += 5 * STARVED;
    bench.turn();
    bench.ask(3);
    bench.turn();
    assert_eq!(bench.serve(&mut fast), "3");
    slow.get_mut().write_all(b"2\n").unwrap();
    bench.until(|bench| bench.answers.len() == 3);
    assert_eq!(bench.handler.habit, Habit::Beside);
}

#[test]
fn a_connection_that_a_busy_program_passes_over_is_come_to_all_the_same() {
    let mut bench = Bench::new();
    bench.ask(1);
    bench.ask(2);
    bench.turn();
    let mut first = bench.accept();
    // Always busy on the one.
    let mut ticket = 3;
    while bench.handler.habit == Habit::Unknown {
        assert!(ticket < 100, "passed over for {:?}", STARVED * ticket as u32);
        bench.ask_in_order(ticket);
        bench.now += STARVED / 2;
        bench.serve(&mut first);
        bench.ask(ticket + 1);
        ticket += 2;
        bench.turn();
        if bench.handler.lanes[1].program.is_free() {
            bench.turn();
        }
    }
    assert_eq!(bench.handler.habit, Habit::OneByOne);
}

#[test]
fn a_critical_message_is_passed_on_when_the_one_before_it_was_answered_and_recorded() {
    let mut bench = Bench::new();
    for ticket in 1..=3 {
        bench.ask_in_order(ticket);
    }
    bench.turn();
    let mut connection = bench.accept();
    bench.handler.hold_critical(true);
    assert_eq!(bench.serve(&mut connection), "1");
    assert!(
        !bench.handler.has_work(true, &room(), bench.now),
        "what is held back is waited for without a turn"
    );
    connection.get_ref().set_nonblocking(true).unwrap();
    assert!(connection.read(&mut [0]).is_err(), "the next came before the answer was recorded");
    connection.get_ref().set_nonblocking(false).unwrap();
    bench.handler.hold_critical(false);
    bench.turn();
    connection.get_ref().set_nonblocking(true).unwrap();
    let mut got = [0; 10];
    assert_eq!(connection.read(&mut got).unwrap(), 2, "one at a time");
    assert_eq!(&got[..2], b"2\n");
}
