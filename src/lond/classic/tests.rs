//! Transcripts of links on a virtual clock.

mod requests;

use super::super::service::Route;
use super::*;
use crate::handler::builtin::Builtin;
use crate::handler::builtin::VERSION_ANSWER;
use base::HostId;
use std::rc::Rc;
use wire::classic::Cipher;

const OURS: &str = "msul1";
const CALLER: &str = "msua1";
const MAX_LINE: usize = 100;

fn id(text: &str) -> HostId {
    HostId::new(text).unwrap()
}

/// A link on a virtual clock, and what the reactor was told to do.
struct Bench {
    session: Classic,
    now: Instant,
    effects: Vec<String>,
    tickets: Vec<Ticket>,
}

impl Bench {
    fn new() -> Bench {
        Bench::with_lines_up_to(MAX_LINE)
    }

    fn with_lines_up_to(max_line: usize) -> Bench {
        let now = Instant::now();
        let settings = Settings {
            service: Service {
                id: id(OURS),
                caller: id(CALLER),
                routes: vec![Route::open("echo"), Route::barred("secret"), Route::open("other")],
                barred: Vec::new(),
            },
            max_line,
            drain_timeout: Duration::from_secs(5),
        };
        let session = Classic::new(settings, fastrand::Rng::with_seed(1), now + Duration::from_secs(10));
        Bench { session, now, effects: Vec::new(), tickets: Vec::new() }
    }

    /// One whose opening dialogue is done.
    fn open() -> Bench {
        let mut bench = Bench::new();
        let challenge = bench.exchange(b"init\n");
        assert_eq!(bench.exchange(challenge.as_bytes()), "ok\n");
        assert_eq!(bench.effects(), ["opened"]);
        bench
    }

    fn wait(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
        self.session.tick(self.now);
        self.work();
    }

    fn send(&mut self, bytes: &[u8]) {
        self.session.push(bytes);
        self.work();
    }

    fn work(&mut self) {
        while let Some(effect) = self.session.step(self.now) {
            self.effects.push(match effect {
                Effect::Opened => "opened".to_owned(),
                Effect::Ask { handler, ticket, order, request, .. } => {
                    assert_eq!(order, Order::Kept);
                    self.tickets.push(ticket);
                    format!("ask {handler} {}", String::from_utf8_lossy(&request))
                }
                Effect::AskBack(ticket) => {
                    self.tickets.push(ticket);
                    "ask back".to_owned()
                }
                Effect::Load(ticket) => {
                    self.tickets.push(ticket);
                    "load".to_owned()
                }
                Effect::Log { ticket, text } => {
                    let said = format!("log {}", String::from_utf8_lossy(&text));
                    self.session.answer(ticket, b"ok");
                    said
                }
                Effect::Refused(barred) => format!("refused {barred:?}"),
                Effect::Shut => "shut".to_owned(),
                Effect::Withdraw { .. } => panic!("not on this wire"),
            });
        }
    }

    /// What the caller reads.
    fn read(&mut self) -> String {
        let text = String::from_utf8_lossy(self.session.outgoing().bytes()).into_owned();
        self.session.outgoing().clear();
        self.work();
        text
    }

    fn exchange(&mut self, bytes: &[u8]) -> String {
        self.send(bytes);
        self.read()
    }

    fn effects(&mut self) -> Vec<String> {
        std::mem::take(&mut self.effects)
    }

    fn answer(&mut self, number: usize, answer: &str) {
        self.session.answer(self.tickets[number], answer.as_bytes());
        self.work();
    }

    fn finish(&mut self, reason: Reason) {
        self.session.finish(reason, self.now);
        self.work();
    }

    fn end_of_input(&mut self) {
        self.session.end_of_input();
        self.work();
    }

    fn ended(&self) -> Option<String> {
        self.session.ended().map(Reason::to_string)
    }

    /// Agrees on a cipher.
    fn ekey(&mut self) -> Cipher {
        let buildkey = self.exchange(b"ekey\n");
        Cipher::agree(&id(OURS), &id(CALLER), buildkey.trim_end().as_bytes())
    }
}

fn sealed(cipher: &Cipher, text: &str) -> String {
    let mut line = Vec::new();
    cipher.seal(text.as_bytes(), &mut line);
    line.push(b'\n');
    String::from_utf8(line).unwrap()
}

#[test]
fn the_opening_dialogue_goes_as_the_original_speaks_it() {
    let mut bench = Bench::new();
    let challenge = bench.exchange(b"init\n");
    let digits = challenge.strip_suffix('\n').unwrap();
    assert!(!digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()), "{digits}");
    assert_eq!(bench.effects(), [""; 0]);
    assert_eq!(bench.exchange(challenge.as_bytes()), "ok\n");
    assert_eq!(bench.effects(), ["opened"]);
    assert_eq!(bench.exchange(b"sethost:msul1\n"), "ok\n");
    assert_eq!(bench.exchange(b"version:1.2\n"), format!("{VERSION_ANSWER}\n"));
    assert!(VERSION_ANSWER.starts_with("version:"));
    bench.send(b"pong\n");
    assert_eq!(bench.effects(), ["ask back"]);
    bench.session.asked_back(bench.tickets[0], Some(b"msua1"));
    assert_eq!(bench.read(), "msul1:msua1\n");
    let buildkey = bench.exchange(b"ekey\n");
    let buildkey = buildkey.strip_suffix('\n').unwrap();
    assert!(!buildkey.is_empty() && buildkey.bytes().all(|c| c.is_ascii_alphanumeric()), "{buildkey}");
    let cipher = Cipher::agree(&id(OURS), &id(CALLER), buildkey.as_bytes());
    assert_eq!(bench.exchange(sealed(&cipher, "ping").as_bytes()), sealed(&cipher, "msul1"));
    assert_eq!(bench.effects(), [""; 0], "opened is said once");
    bench.wait(3600.0);
    assert_eq!(bench.ended(), None, "the opening deadline is over with the challenge");
}

#[test]
fn whoever_opens_otherwise_is_refused_and_left() {
    for opening in [
        "ping\n",
        "init:ssl\n",
        "enc:1:00\n",
        "ekey\n",
        "version:1\n",
        "sethost:msul1\n",
        "GET / HTTP/1.0\r\n",
        "\u{16}\u{3}\u{1}\n",
        "exit\n",
        "log:x\n",
    ] {
        let mut bench = Bench::new();
        assert_eq!(bench.exchange(opening.as_bytes()), "refused\n", "{opening:?}");
        assert_eq!(bench.effects(), ["shut"]);
        assert_eq!(bench.exchange(b"init\n"), "", "nothing more is answered");
        bench.end_of_input();
        assert!(bench.ended().unwrap().starts_with("refused: "), "{opening:?}");
    }
    for echo in ["init\n", "0\n", "ping\n", "ok\n"] {
        let mut bench = Bench::new();
        bench.exchange(b"init\n");
        assert_eq!(bench.exchange(echo.as_bytes()), "refused\n", "{echo:?}");
        assert_eq!(bench.effects(), ["shut"], "opened is not said");
        bench.wait(LINGER.as_secs_f64());
        assert!(bench.ended().unwrap().starts_with("refused: "));
    }
}

#[test]
fn challenges_differ() {
    let mut random = fastrand::Rng::with_seed(5);
    let mut challenge = || {
        let mut bench = Bench::new();
        bench.session.random = random.fork();
        bench.exchange(b"init\n")
    };
    assert_ne!(challenge(), challenge());
}

#[test]
fn the_opening_dialogue_has_one_deadline_in_all() {
    let mut bench = Bench::new();
    bench.wait(6.0);
    bench.exchange(b"init\n");
    bench.wait(3.9);
    assert_eq!(bench.ended(), None);
    bench.wait(0.1);
    assert_eq!(bench.ended().as_deref(), Some("the opening dialogue was not done in time"));

    let mut silent = Bench::new();
    silent.wait(10.0);
    assert!(silent.ended().is_some());
}

#[test]
fn a_caller_that_floods_before_it_is_known_is_refused() {
    let mut bench = Bench::with_lines_up_to(1024 * 1024);
    bench.send(&[b'x'; MAX_OPENING_LINE]);
    assert_eq!(bench.read(), "");
    bench.send(b"x");
    assert_eq!(bench.read(), "refused\n");
}

#[test]
fn a_blank_line_gets_no_answer_in_any_state() {
    let mut bench = Bench::new();
    assert_eq!(bench.exchange(b"\n"), "");
    let challenge = bench.exchange(b"\ninit\n");
    assert_eq!(bench.exchange(b"\n\n"), "");
    assert_eq!(bench.exchange(challenge.as_bytes()), "ok\n");
    assert_eq!(bench.exchange(b"\n\nping\n\nping\n\n"), "msul1\nmsul1\n");
}

#[test]
fn exit_is_answered_after_everything_before_it_and_nothing_after() {
    let mut bench = Bench::open();
    bench.send(b"echo:1\nexit\nping\n");
    assert_eq!(bench.read(), "");
    assert!(!bench.session.wants_input());
    bench.answer(0, "one");
    assert_eq!(bench.effects(), ["ask 0 echo:1"], "not shut before the answers are written");
    assert_eq!(bench.read(), "one\nbye\n");
    assert_eq!(bench.effects(), ["shut"]);
    assert!(bench.session.wants_input(), "lingering: what still comes is read and thrown away");
    assert_eq!(bench.exchange(b"ping\n"), "");
    bench.end_of_input();
    assert_eq!(bench.ended().as_deref(), Some("the caller said exit"));
}

#[test]
fn a_caller_that_shut_its_writing_half_gets_every_answer() {
    let mut bench = Bench::open();
    bench.send(b"echo:1\necho:2\nhalf a li");
    bench.end_of_input();
    assert_eq!(bench.session.deadline(), None, "the handlers' own timeouts are the bound");
    assert!(bench.ended().is_none());
    bench.answer(1, "two");
    bench.answer(0, "one");
    assert_eq!(bench.ended(), None, "not before the answers are written");
    assert_eq!(bench.read(), "one\ntwo\n");
    assert_eq!(bench.ended().as_deref(), Some("closed by the caller"));
}

#[test]
fn a_caller_that_leaves_during_the_opening_is_let_go() {
    let mut bench = Bench::new();
    bench.send(b"init\n");
    bench.end_of_input();
    assert!(!bench.read().is_empty());
    assert_eq!(bench.ended().as_deref(), Some("closed by the caller"));
}

#[test]
fn told_to_end_it_answers_what_was_read_and_closes() {
    for reason in [Reason::Drained, Reason::Replaced, Reason::Orphaned] {
        let mut bench = Bench::open();
        bench.send(b"echo:1\necho:2\nhalf");
        bench.finish(reason.clone());
        assert!(!bench.session.wants_input());
        bench.send(b" a line\nping\n");
        bench.answer(0, "one");
        bench.answer(1, "two");
        assert_eq!(bench.read(), "one\ntwo\n");
        assert_eq!(bench.effects().last().unwrap(), "shut");
        bench.wait(LINGER.as_secs_f64());
        assert_eq!(bench.ended(), Some(reason.to_string()));
    }
}

#[test]
fn lines_read_before_the_end_was_told_are_served_even_if_there_was_no_room_then() {
    let mut bench = Bench::open();
    let requests = 2 * answers::MAX_SLOTS;
    bench.send("echo\n".repeat(requests).as_bytes());
    assert_eq!(bench.tickets.len(), answers::MAX_SLOTS);
    bench.finish(Reason::Drained);
    for number in 0..requests {
        bench.answer(number, "x");
    }
    assert_eq!(bench.read(), "x\n".repeat(requests));
    assert_eq!(bench.effects().last().unwrap(), "shut");
}

#[test]
fn told_to_end_it_does_not_wait_longer_than_the_drain_timeout() {
    let mut bench = Bench::open();
    bench.send(b"echo:1\necho:2\n");
    bench.finish(Reason::Drained);
    bench.wait(3.0);
    bench.finish(Reason::Orphaned);
    bench.answer(0, "one");
    bench.wait(1.9);
    assert_eq!(bench.ended(), None);
    bench.wait(0.1);
    assert_eq!(bench.ended().as_deref(), Some("told to end, 1 requests not answered in time"));

    let mut opening = Bench::new();
    opening.finish(Reason::Drained);
    assert_eq!(opening.effects(), ["shut"]);
    opening.end_of_input();
    assert_eq!(opening.ended().as_deref(), Some("told to end"));
}

#[test]
fn with_too_much_in_flight_the_caller_is_not_read_until_there_is_room() {
    let mut bench = Bench::open();
    bench.send("echo\n".repeat(answers::MAX_SLOTS + 10).as_bytes());
    assert_eq!(bench.tickets.len(), answers::MAX_SLOTS);
    assert!(!bench.session.wants_input());
    assert!(!bench.session.has_work());
    for number in 0..10 {
        bench.session.answer(bench.tickets[number], b"x");
    }
    assert!(bench.session.has_work(), "there is room for the lines that wait");
    bench.work();
    assert_eq!(bench.tickets.len(), answers::MAX_SLOTS + 10);
    assert!(!bench.session.wants_input());
    bench.answer(10, "x");
    assert!(bench.session.wants_input());
    assert!(!bench.session.has_work());
}

#[test]
fn a_caller_that_does_not_read_is_not_read_either() {
    let mut bench = Bench::open();
    let mut sent = 0;
    while bench.session.wants_input() {
        bench.send(&b"ping\n".repeat(1000));
        sent += 1000;
        assert!(sent < 10_000_000, "no bound");
    }
    assert!(bench.session.outgoing().len() < 2 * answers::MAX_ANSWER_BYTES);
    assert!(!bench.session.wants_answers_from(0));
    let mut answered = 0;
    while bench.session.has_work() || !bench.session.outgoing().is_empty() {
        answered += bench.read().lines().count();
    }
    assert_eq!(answered, sent);
    assert!(bench.session.wants_input());
}

#[test]
fn garbage_never_panics_and_every_line_of_it_has_one_answer() {
    let mut random = fastrand::Rng::with_seed(9);
    for _ in 0..200 {
        let mut bench = Bench::open();
        bench.ekey();
        let mut lines = 0;
        for _ in 0..200 {
            let word = random.choice(["", "enc:", "enc:8:", "init", "version:", "sethost:", "x"]).unwrap();
            let mut line = word.as_bytes().to_vec();
            line.extend((0..random.usize(0..30)).map(|_| random.u8(..)).filter(|c| *c != b'\n'));
            if Builtin::parse(&line) == Some(Builtin::Exit) || line.is_empty() {
                continue;
            }
            line.push(b'\n');
            lines += 1;
            bench.send(&line);
        }
        let asked = bench.tickets.len();
        for number in 0..asked {
            bench.answer(number, "x");
        }
        assert_eq!(bench.read().lines().count(), lines);
    }
}
