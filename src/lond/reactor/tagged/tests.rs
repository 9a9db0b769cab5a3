//! A handler that answers in any order, over a real socket: what it is told, and how much at once.

use super::*;
use crate::reactor::tests::rig::PATIENCE;
use base::Key;
use config::Form;
use net::{Events, Poll};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};

struct Bench {
    handler: Tagged,
    listener: Option<UnixListener>,
    poll: Poll,
    now: Instant,
    told: Vec<String>,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(window: usize) -> Bench {
        Bench::of(window, None)
    }

    /// With a program, `lond`'s own process is at the socket.
    fn of(window: usize, program: Option<config::Program>) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("echo.sock");
        let now = Instant::now();
        let config = config::Handler {
            name: "echo".to_owned(),
            socket: socket.clone(),
            program,
            form: Form::Tagged,
            window,
            access: config::Access::everyone(),
            timeout: Duration::from_secs(60),
        };
        let handler = Tagged::new(&config, &HostId::new("msua1").unwrap(), 1000, 100, now);
        let listener = Some(UnixListener::bind(&socket).unwrap());
        Bench { handler, listener, poll: Poll::new().unwrap(), now, told: Vec::new(), dir }
    }

    fn ask(&mut self, ticket: u64) {
        self.handler.ask(Ticket(ticket), Order::Free, None, b"echo: x ", self.now);
    }

    fn ask_in_order(&mut self, ticket: u64, key: Option<&[u8]>) {
        let key = key.and_then(Key::new);
        let name = MessageName { epoch: "e".into(), sequence: ticket, key };
        self.handler.ask(Ticket(ticket), Order::Once, Some(&name), b"echo", self.now);
    }

    fn turn(&mut self) {
        let mut events = Events::with_capacity(64);
        self.poll.poll(&mut events, Some(Duration::from_millis(1))).unwrap();
        for event in &events {
            self.handler.note(event);
        }
        let told = &mut self.told;
        let mut answer = |ticket: Ticket, reply: Reply<'_>| {
            let kind = if matches!(reply, Reply::NotTaken(_)) { "kept " } else { "" };
            told.push(format!("{}: {kind}{}", ticket.0, String::from_utf8_lossy(&reply.text())));
        };
        let mut room = Room::beside(std::iter::empty());
        self.handler.read(true, &mut room, &mut [0; 1000], self.now, &mut answer);
        self.handler.write(self.poll.registry(), &mut [0; 1000], self.now, &mut answer);
    }

    fn accept(&self) -> BufReader<UnixStream> {
        let (connection, _) = self.listener.as_ref().unwrap().accept().unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(connection)
    }

    /// Turns until this much was told, and gives it.
    fn told(&mut self, count: usize) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        while self.told.len() < count {
            assert!(Instant::now() < deadline, "{:?}", self.told);
            self.turn();
        }
        std::mem::take(&mut self.told)
    }
}

fn line(program: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    program.read_line(&mut line).unwrap();
    line.trim_end_matches('\n').to_owned()
}

/// Whether nothing more was sent.
fn is_all(program: &mut BufReader<UnixStream>) -> bool {
    program.get_ref().set_nonblocking(true).unwrap();
    let more = program.fill_buf().map(<[u8]>::to_vec);
    program.get_ref().set_nonblocking(false).unwrap();
    more.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn a_program_is_told_who_asks_which_message_under_which_key_and_the_request_with_its_blanks() {
    let mut bench = Bench::new(2);
    bench.ask(3);
    bench.ask_in_order(4, Some(b"k-1"));
    bench.ask_in_order(5, None);
    bench.turn();
    let mut program = bench.accept();
    for expected in ["3 msua1 - - echo: x ", "4 msua1 e/4 k-1 echo", "5 msua1 e/5 - echo"] {
        assert_eq!(line(&mut program), expected);
    }
    program.get_mut().write_all(b"5 five\n3 three\n4 four\n").unwrap();
    assert_eq!(bench.told(3), ["5: five", "3: three", "4: four"]);
}

#[test]
fn a_program_has_no_more_critical_messages_at_once_than_its_window_and_none_while_one_is_unrecorded() {
    let mut bench = Bench::new(2);
    (1..=4).for_each(|ticket| bench.ask_in_order(ticket, None));
    bench.ask(9);
    bench.turn();
    let mut program = bench.accept();
    let got: Vec<_> = (0..3).map(|_| line(&mut program)).collect();
    assert_eq!(got, ["9 msua1 - - echo: x ", "1 msua1 e/1 - echo", "2 msua1 e/2 - echo"]);
    bench.turn();
    assert!(is_all(&mut program));
    bench.handler.hold_critical(true);
    program.get_mut().write_all(b"2 two\n").unwrap();
    assert_eq!(bench.told(1), ["2: two"]);
    bench.turn();
    assert!(is_all(&mut program) && !bench.handler.has_work(true, &Room::beside(std::iter::empty())));
    bench.handler.hold_critical(false);
    assert!(bench.handler.has_work(true, &Room::beside(std::iter::empty())));
    bench.turn();
    assert_eq!(line(&mut program), "3 msua1 e/3 - echo");
    assert!(is_all(&mut program));
}

#[test]
fn what_waits_behind_a_message_that_is_for_later_goes_back_with_it_and_the_program_is_not_looked_for() {
    let mut bench = Bench::new(1);
    (1..=3).for_each(|ticket| bench.ask_in_order(ticket, None));
    bench.turn();
    let mut program = bench.accept();
    line(&mut program);
    program.get_mut().write_all(b"1!later\n").unwrap();
    let kept = |ticket| format!("{ticket}: kept error:echo: not now");
    assert_eq!(bench.told(3), [1, 2, 3].map(kept));
    bench.turn();
    assert!(!bench.handler.take_back());
    // It comes again.
    bench.ask_in_order(1, None);
    bench.turn();
    assert_eq!(line(&mut program), "1 msua1 e/1 - echo");
}

#[test]
fn a_program_that_is_away_is_looked_for_until_it_is_back() {
    let mut bench = Bench::new(1);
    bench.listener = None;
    (1..=2).for_each(|ticket| bench.ask_in_order(ticket, None));
    let told = bench.told(2);
    assert!(told.iter().all(|told| told.contains("kept error:echo: connect: ")), "{told:?}");
    assert_eq!(bench.handler.reachable(), Some(false));
    let path = bench.dir.path().join("echo.sock");
    std::fs::remove_file(&path).unwrap();
    bench.listener = Some(UnixListener::bind(&path).unwrap());
    bench.turn();
    assert!(!bench.handler.take_back(), "it is not time");
    bench.now = bench.handler.deadline().unwrap();
    bench.turn();
    assert!(bench.handler.take_back() && !bench.handler.take_back());
    assert_eq!(bench.handler.reachable(), Some(true));
}

#[test]
fn a_connection_without_requests_is_closed_after_a_while() {
    let mut bench = Bench::new(1);
    bench.ask(1);
    bench.turn();
    let mut program = bench.accept();
    line(&mut program);
    program.get_mut().write_all(b"1 one\n").unwrap();
    bench.told(1);
    bench.now = bench.handler.deadline().unwrap();
    bench.turn();
    assert_eq!(line(&mut program), "", "the end");
    assert_eq!(bench.handler.deadline(), None);
}

#[test]
fn what_its_own_process_has_no_place_for_is_to_come_again_within_a_second_and_sooner_at_first() {
    let run = config::Run::Each(1);
    let program = config::Program { file: "/x".into(), arguments: Vec::new(), run, waiting: 1 };
    let mut bench = Bench::of(1, Some(program));
    let mut process = None;
    let mut pauses = Vec::new();
    for (number, said) in (1..=8).zip(["busy", "away start /x: no"].into_iter().cycle()) {
        bench.ask_in_order(number, None);
        bench.turn();
        let process = process.get_or_insert_with(|| bench.accept());
        assert_eq!(line(process), format!("{number} msua1 e/{number} - echo"));
        process.get_mut().write_all(format!("{number}!{said}\n").as_bytes()).unwrap();
        bench.told(1);
        let due = bench.handler.again.deadline().expect("a time");
        pauses.push(due - bench.now);
        bench.now = due - Duration::from_nanos(1);
        bench.turn();
        assert!(!bench.handler.take_back());
        bench.now = due;
        bench.turn();
        assert!(bench.handler.take_back() && !bench.handler.take_back());
    }
    assert!(pauses[0] <= Duration::from_millis(100), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(1)), "{pauses:?}");
    // The program's own word for it is no such thing, and one that is taken begins anew.
    let mut process = process.expect("a connection");
    for (number, said) in [(9, "!later"), (10, " done"), (11, "!busy")] {
        bench.ask_in_order(number, None);
        bench.turn();
        line(&mut process);
        process.get_mut().write_all(format!("{number}{said}\n").as_bytes()).unwrap();
        bench.told(1);
        assert_eq!(bench.handler.again.deadline().is_some(), number == 11);
    }
    assert!(bench.handler.again.deadline().expect("a time") - bench.now <= Duration::from_millis(100));
}
