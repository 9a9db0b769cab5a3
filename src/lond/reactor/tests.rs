//! The loop over real sockets: a caller, a supervisor's end of the control socket, and local
//! programs as threads.

pub(super) mod rig;
mod secure;
mod secure_rig;

use super::*;
use rig::*;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use supervise::control;

#[test]
fn a_link_is_opened_told_to_the_supervisor_and_serves_what_is_built_in() {
    let mut link = Rig::new().open();
    assert_eq!(
        link.told(),
        [FromServe::Opened {
            caller: id("msua1"),
            pin: None,
            own_pin: None,
            wire: base::WireKind::Classic,
            sandbox: Some("nothing".to_owned()),
        }]
    );
    assert_eq!(link.ask("ping"), "msul1");
    assert_eq!(link.ask("sethost:msul1"), "ok");
    assert_eq!(link.ask("log:hello"), "ok");
    assert_eq!(link.ask("nonsense"), "unknown_cmd");
    assert!(link.ask("load").parse::<u32>().is_ok());
    assert_eq!(link.ask("exit"), "bye");
    assert_eq!(link.rest(), "");
    assert_eq!(link.end(), Reason::Exit);
}

#[test]
fn garbage_is_refused() {
    let mut link = Rig::new().start();
    link.send(b"\x00\xff\x16\x03\n\n\n");
    assert_eq!(link.rest(), "refused\n");
    assert!(matches!(link.end(), Reason::Refused(_)));
}

#[test]
fn a_caller_that_says_nothing_is_let_go_at_the_opening_deadline() {
    let mut rig = Rig::new();
    rig.config.lond.opening_timeout = Duration::from_millis(100);
    let mut link = rig.start();
    assert_eq!(link.rest(), "");
    assert_eq!(link.end(), Reason::OpeningTimeout);
}

#[test]
fn ten_thousand_requests_sent_ahead_are_answered_in_order() {
    let rig = Rig::new();
    let _program = LocalProgram::echo(rig.socket());
    let mut link = rig.open();
    let mut writer = link.caller.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let requests: String = (0..10_000)
            .map(|n| if n % 10 == 0 { "ping\n".to_owned() } else { format!("echo:{n}\n") })
            .collect();
        writer.write_all(requests.as_bytes()).unwrap();
    });
    for number in 0..10_000 {
        let expected = if number % 10 == 0 { "msul1".to_owned() } else { number.to_string() };
        assert_eq!(link.answer(), expected);
    }
    sender.join().unwrap();
    assert_eq!(link.end(), Reason::CallerClosed);
}

#[test]
fn a_request_past_its_timeout_fails_alone_and_its_late_answer_goes_to_nobody() {
    let rig = Rig::new().handler_timeout(Duration::from_secs(1));
    let program = LocalProgram::start(rig.socket(), slow_or_echo);
    let mut link = rig.open();
    link.send(b"echo:a\necho:slow\necho:b\nping\n");
    assert_eq!(link.answer(), "a");
    assert_eq!(link.answer(), "error:echo: no answer within 1s");
    link.send(b"echo:c\n");
    program.release();
    assert_eq!(link.answer(), "b");
    assert_eq!(link.answer(), "msul1");
    assert_eq!(link.answer(), "c");
    assert_eq!(link.ask("echo:d"), "d");
}

#[test]
fn a_program_that_stays_stuck_is_called_again() {
    let rig = Rig::new().handler_timeout(Duration::from_secs(1));
    let program = LocalProgram::start(rig.socket(), slow_or_echo);
    let mut link = rig.open();
    link.send(b"echo:slow\necho:b\n");
    program.saw("echo:slow");
    assert_eq!(link.answer(), "error:echo: no answer within 1s");
    assert_eq!(link.answer(), "error:echo: stuck behind a request that was not answered within 2s");
    program.release();
    assert_eq!(link.ask("echo:c"), "c");
}

#[test]
fn a_program_that_is_away_costs_its_requests_and_is_found_when_it_is_back() {
    let rig = Rig::new();
    let mut link = rig.open();
    let answer = link.ask("echo:1");
    assert!(answer.starts_with("error:echo: connect: "), "{answer}");
    assert_eq!(link.ask("ping"), "msul1");
    for round in 0..3 {
        let program = LocalProgram::start(rig.socket(), slow_or_echo);
        assert_eq!(link.ask(&format!("echo:{round}")), round.to_string());
        assert_eq!(link.ask("echo:die"), "error:echo: connection closed by the program");
        assert_eq!(link.ask("echo:after"), "after", "the program takes a new connection");
        // An idle connection is lost with the program, at no cost.
        drop(program);
    }
    let answer = link.ask("echo:2");
    assert!(answer.starts_with("error:echo: connect"), "{answer}");
}

#[test]
fn a_program_with_a_full_queue_is_tried_until_there_is_room() {
    let rig = Rig::new();
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(rig.socket()).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let mut queued = Vec::new();
    while let Ok(connection) = net::UnixStream::connect(rig.socket()) {
        queued.push(connection);
    }
    let mut link = rig.open();
    link.send(b"ping\necho:x\n");
    assert_eq!(link.answer(), "msul1", "written after the first try to connect, which found the queue full");
    drop(queued);
    let listener = UnixListener::from(OwnedFd::from(socket));
    let program = std::thread::spawn(move || {
        for connection in listener.incoming() {
            let connection = connection.unwrap();
            let mut line = String::new();
            BufReader::new(&connection).read_line(&mut line).unwrap();
            if line == "echo:x\n" {
                (&connection).write_all(b"X\n").unwrap();
                return;
            }
        }
    });
    assert_eq!(link.answer(), "X");
    program.join().unwrap();
}

#[test]
fn a_caller_that_shut_its_writing_half_gets_its_answers() {
    let rig = Rig::new();
    let program = LocalProgram::start(rig.socket(), slow_or_echo);
    let mut link = rig.open();
    link.send(b"echo:slow\nping\necho:b\nhalf a line");
    link.caller.shutdown(Shutdown::Write).unwrap();
    program.saw("echo:slow");
    program.release();
    assert_eq!(link.rest(), "slow\nmsul1\nb\n");
    assert_eq!(link.end(), Reason::CallerClosed);
}

#[test]
fn bye_is_not_lost_though_the_caller_sent_more() {
    let mut link = Rig::new().open();
    let mut bytes = b"ping\nexit\n".to_vec();
    bytes.extend(b"ping\n".repeat(20_000));
    link.send(&bytes);
    assert_eq!(link.answer(), "msul1");
    assert_eq!(link.answer(), "bye");
    assert_eq!(link.rest(), "");
    assert_eq!(link.end(), Reason::Exit);
}

#[test]
fn a_line_without_end_costs_one_error_and_no_memory() {
    let mut link = Rig::new().open();
    let chunk = vec![b'x'; 1024 * 1024];
    for _ in 0..64 {
        link.send(&chunk);
    }
    link.send(b"\nping\n");
    assert_eq!(link.answer(), "error:request longer than 1048576 bytes");
    assert_eq!(link.answer(), "msul1");
}

/// Sends `request` until nothing more is taken; returns how many whole ones were.
fn flood(link: &mut Running, request: &[u8]) -> usize {
    link.caller.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut sent = 0;
    loop {
        match link.caller.write(&request[sent % request.len()..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return sent / request.len(),
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 64 * 1024 * 1024, "nothing stops the caller");
    }
}

#[test]
fn a_caller_that_does_not_read_is_not_read_and_loses_nothing() {
    let rig = Rig::new();
    let _program = LocalProgram::echo(rig.socket());
    let mut link = rig.open();
    let text = "x".repeat(50_000);
    let requests = flood(&mut link, format!("echo:{text}\n").as_bytes());
    for _ in 0..requests {
        assert_eq!(link.answer(), text);
    }
    assert!(requests > 10);
}

#[test]
fn a_program_that_does_not_read_stops_the_caller_and_not_the_answers_before() {
    let rig = Rig::new().handler_timeout(Duration::from_secs(2));
    let _program = LocalProgram::start(rig.socket(), slow_or_echo);
    let mut link = rig.open();
    link.send(b"ping\necho:slow\n");
    assert_eq!(link.answer(), "msul1");
    let requests = flood(&mut link, format!("echo:{}\n", "x".repeat(50_000)).as_bytes());
    assert!(requests > 10);
    assert_eq!(link.answer(), "error:echo: no answer within 2s");
}

#[test]
fn told_to_end_it_answers_what_is_in_flight_and_closes() {
    for (order, reason) in [
        (Some(ToServe::Drain), Reason::Drained),
        (Some(ToServe::Replaced), Reason::Replaced),
        (None, Reason::Orphaned),
    ] {
        let rig = Rig::new();
        let program = LocalProgram::start(rig.socket(), slow_or_echo);
        let mut link = rig.open();
        link.send(b"echo:slow\nping\n");
        program.saw("echo:slow");
        match order {
            Some(order) => link.supervisor.send(&order).unwrap(),
            None => link.supervisor = Channel::from_fd(control::pair().unwrap().0).unwrap(),
        }
        program.release();
        assert_eq!(link.rest(), "slow\nmsul1\n");
        assert_eq!(link.end(), reason);
    }
}

#[test]
fn told_to_end_it_does_not_wait_for_a_slow_program_beyond_the_drain_timeout() {
    let mut rig = Rig::new();
    rig.config.lond.drain_timeout = Duration::from_millis(100);
    let program = LocalProgram::start(rig.socket(), slow_or_echo);
    let mut link = rig.open();
    link.send(b"echo:slow\n");
    program.saw("echo:slow");
    link.supervisor.send(&ToServe::Drain).unwrap();
    assert_eq!(link.rest(), "");
    assert_eq!(link.end(), Reason::DrainTimeout { unanswered: 1 });
}

#[test]
fn pong_asks_back_through_the_own_lonc() {
    let rig = Rig::new();
    let mut link = rig.open();
    assert_eq!(link.ask("pong"), "msul1:con_lost", "no socket");
    let listener = UnixListener::bind(rig.dir.path().join("msua1")).unwrap();
    let lonc = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&connection).read_line(&mut line).unwrap();
        assert_eq!(line, "ping\n");
        connection.write_all(b"msua1\n").unwrap();
        listener
    });
    assert_eq!(link.ask("pong"), "msul1:msua1");
    let listener = lonc.join().unwrap();
    link.send(b"pong\nping\npong\n");
    let (connection, _) = listener.accept().unwrap();
    assert_eq!(link.answer(), "msul1:con_lost", "silent for longer than the deadline");
    assert_eq!(link.answer(), "msul1");
    assert_eq!(link.answer(), "msul1:con_lost");
    drop(connection);
    drop(listener);
    assert_eq!(link.ask("pong"), "msul1:con_lost", "nobody listens");
}
