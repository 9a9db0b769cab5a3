//! Connections of link children, each one end of a pair of sockets whose other end the test has.

use super::*;
use net::{Events, Poll};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

const MAX_LINE: usize = 64;

struct Bench {
    poll: Poll,
    clients: Clients,
    /// What was asked: which connection, which tag.
    asked: Vec<(usize, u64)>,
    /// What a request is told at once.
    at_once: Option<Said<'static>>,
}

impl Bench {
    fn new() -> Bench {
        let poll = Poll::new().unwrap();
        let clients = Clients::new("pay", MAX_LINE, poll.registry().try_clone().unwrap());
        Bench { poll, clients, asked: Vec::new(), at_once: None }
    }

    fn connect(&mut self) -> StdStream {
        let (ours, theirs) = StdStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        self.clients.add(UnixStream::from_std(ours));
        theirs
    }

    /// Waits for something to happen.
    fn note(&mut self) {
        let mut events = Events::with_capacity(16);
        self.poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
        for event in &events {
            let place = event.token().0 - super::super::reactor::FIRST;
            self.clients.note(place / super::super::reactor::STEP, event);
        }
    }

    /// Waits for something to happen and reads of each until there is no more; who is gone then.
    fn turn(&mut self) -> Vec<usize> {
        self.note();
        let (mut gone, mut scratch) = (Vec::new(), vec![0; 4096]);
        while self.clients.has_work() {
            let Bench { clients, asked, at_once, .. } = self;
            gone.extend(clients.read(&mut scratch, &mut |id, request| {
                asked.push((id, request.tag));
                *at_once
            }));
        }
        gone
    }
}

fn heard(stream: &mut StdStream, most: usize) -> String {
    let mut bytes = vec![0; most];
    let count = stream.read(&mut bytes).unwrap();
    String::from_utf8(bytes[..count].to_vec()).unwrap()
}

#[test]
fn each_has_its_requests_and_gets_what_came_of_them_with_its_own_tags() {
    let mut bench = Bench::new();
    let (mut one, mut other) = (bench.connect(), bench.connect());
    one.write_all(b"1 a - - x\n2 a e/1 k x\n3 a - ").unwrap();
    other.write_all(b"1 b - - x\n").unwrap();
    while bench.asked.len() < 3 {
        assert!(bench.turn().is_empty());
    }
    bench.asked.sort_unstable();
    assert_eq!(bench.asked, [(0, 1), (0, 2), (1, 1)], "the third is not whole yet");
    bench.clients.answer(1, 1, Said::Answer(b"of b"));
    bench.clients.answer(0, 2, Said::Later);
    bench.clients.answer(0, 1, Said::Failed(b"error:pay: x"));
    bench.clients.answer(7, 1, Said::Busy);
    assert!(bench.clients.write().is_empty());
    assert_eq!(heard(&mut one, 100), "2!later\n1!failed error:pay: x\n");
    assert_eq!(heard(&mut other, 100), "1 of b\n");
    bench.at_once = Some(Said::Busy);
    one.write_all(b"- x\n").unwrap();
    assert!(bench.turn().is_empty());
    assert!(bench.clients.write().is_empty());
    assert_eq!(heard(&mut one, 100), "3!busy\n");
}

#[test]
fn who_says_what_is_no_request_is_closed_and_the_others_are_not() {
    for wrong in [&b"hello\n"[..], b"1 a - -\n", &[b'x'; MAX_LINE + WORDS + 2]] {
        let mut bench = Bench::new();
        let (mut bad, mut good) = (bench.connect(), bench.connect());
        bad.write_all(wrong).unwrap();
        assert_eq!(bench.turn(), [0]);
        assert!(!bench.clients.has(0) && bench.clients.has(1));
        assert_eq!(heard(&mut bad, 1), "");
        good.write_all(b"1 a - - x\n").unwrap();
        assert!(bench.turn().is_empty());
        assert_eq!(bench.asked, [(1, 1)]);
    }
}

#[test]
fn who_does_not_read_its_answers_is_not_read_until_it_does() {
    let mut bench = Bench::new();
    let mut deaf = bench.connect();
    deaf.write_all(b"1 a - - x\n2 a - - x\n").unwrap();
    bench.turn();
    let long = vec![b'y'; MOST_UNREAD + (1 << 20)];
    bench.clients.answer(0, 1, Said::Answer(&long));
    assert!(bench.clients.write().is_empty());
    assert!(!bench.clients.takes(0), "no more of its requests are begun");
    deaf.write_all(b"3 a - - x\n").unwrap();
    bench.turn();
    assert!(!bench.clients.has_work());
    assert_eq!(bench.asked, [(0, 1), (0, 2)]);
    let mut left = long.len() + 3;
    while left > 0 {
        left -= heard(&mut deaf, left).len();
        if !bench.clients.all[&0].out.is_empty() {
            bench.note();
            bench.clients.write();
        }
    }
    assert!(bench.clients.takes(0));
    while bench.asked.len() < 3 {
        bench.turn();
    }
}

#[test]
fn who_has_nothing_open_is_cut_off_first_and_closed_when_all_was_read() {
    let mut bench = Bench::new();
    let (mut idle, mut busy) = (bench.connect(), bench.connect());
    busy.write_all(b"1 a - - x\n").unwrap();
    bench.turn();
    bench.clients.close_idle();
    assert!(bench.clients.has(0), "what it has sent before is read first");
    assert!(idle.write_all(b"1 a - - x\n").is_err(), "it can send no more");
    while bench.clients.has(0) {
        bench.turn();
        bench.clients.close_idle();
    }
    assert_eq!(heard(&mut idle, 1), "");
    assert!(bench.clients.has(1), "it waits for an answer");
    bench.clients.answer(1, 1, Said::Answer(b"done"));
    bench.clients.write();
    assert_eq!(heard(&mut busy, 100), "1 done\n");
    while !bench.clients.is_empty() {
        bench.clients.close_idle();
        if !bench.clients.is_empty() {
            bench.turn();
        }
    }
}
