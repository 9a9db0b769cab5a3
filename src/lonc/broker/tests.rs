//! The broker on a clock of the test's own, between programs and a peer that the test plays.

use super::*;
use crate::config::Peer;
use crate::config::fixture::{self, host};
use crate::lonc::settings::LinkKeys;
use crate::spool::RealDisk;
use crate::wire::classic::Cipher;
use std::collections::BTreeSet;
use std::path::Path;
use tempfile::TempDir;

mod away;
mod handing;
mod secure;

const BUILDKEY: &str = "41342A79EAFBE8FC990EFC7D2928";

struct Rig {
    broker: Broker<RealDisk>,
    now: Now,
    dir: TempDir,
    effects: Vec<Effect>,
}

/// `msul1`, on the classic wire.
pub(in crate::lonc) fn peer() -> Peer {
    fixture::peer("msul1")
}

/// What a link to `peer` depends on, in `dir`.
pub(in crate::lonc) fn settings(dir: &Path, peer: &Peer, keys: LinkKeys) -> LinkSettings {
    LinkSettings {
        id: HostId::new("msua1").unwrap(),
        peer: peer.clone(),
        longer: BTreeSet::new(),
        keys,
        run_dir: dir.join("run"),
        spool_dir: dir.join("delayed"),
        log_dir: dir.join("log"),
        log_level: log::LevelFilter::Info,
    }
}

impl Rig {
    fn new() -> Rig {
        Rig::with(peer())
    }

    fn with(peer: Peer) -> Rig {
        Rig::barred(peer, None)
    }

    fn barred(peer: Peer, barred: Option<&str>) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let now = Now { mono: Instant::now(), wall: jiff::Timestamp::from_second(1_000_000_000).unwrap() };
        let keys = barred.map_or(LinkKeys::None, |why| LinkKeys::Barred(why.to_owned()));
        let settings = settings(dir.path(), &peer, keys);
        let spool_dir = dir.path().join("delayed");
        let spool = Spool::open(RealDisk, &spool_dir.join("msul1"), peer.spool);
        let mut rig = Rig { broker: Broker::new(settings, spool, 7, now), now, dir, effects: Vec::new() };
        rig.turn();
        rig
    }

    fn turn(&mut self) {
        self.broker.turn(self.now);
        self.effects.extend(self.broker.take_effects());
        self.broker.take_touched();
    }

    fn wait(&mut self, seconds: f64) {
        let pause = Duration::from_secs_f64(seconds);
        self.now.mono += pause;
        self.now.wall += pause;
        self.turn();
    }

    /// Dials, and plays the peer's part of the opening dialogue.
    fn come_up(&mut self) {
        if !self.took(&Effect::Dial) {
            self.wait(61.0);
            assert!(self.took(&Effect::Dial), "a dial is due after the longest pause");
        }
        self.broker.link_connected(self.now);
        for answer in ["123", "ok", "ok", "version:1", "msul1:msua1", BUILDKEY] {
            assert_eq!(self.sent().len(), 1);
            self.say(&[answer]);
        }
        assert!(self.broker.link.is_up());
    }

    fn lose_link(&mut self) {
        self.broker.link_lost("test".into(), self.now);
        self.turn();
        assert!(self.took(&Effect::HangUp));
        self.took(&Effect::Dial);
    }

    fn took(&mut self, effect: &Effect) -> bool {
        let before = self.effects.len();
        self.effects.retain(|one| one != effect);
        self.effects.len() < before
    }

    fn delivered(&mut self) -> Vec<String> {
        let mut delivered = Vec::new();
        self.effects.retain(|effect| match effect {
            Effect::Delivered { request } => {
                delivered.push(String::from_utf8_lossy(request).into_owned());
                false
            }
            Effect::Dial | Effect::HangUp => true,
        });
        delivered
    }

    /// What the peer has been sent since the last call.
    fn sent(&mut self) -> Vec<String> {
        let text = String::from_utf8_lossy(self.broker.link_out().bytes()).into_owned();
        self.broker.link_out().clear();
        text.lines().map(str::to_owned).collect()
    }

    /// The peer sends lines.
    fn say(&mut self, lines: &[&str]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.broker.link_received(text.as_bytes(), self.now);
        self.turn();
    }

    /// A program connects and sends lines.
    fn program(&mut self, lines: &[&str]) -> ClientId {
        let id = self.broker.client_connected();
        self.ask(id, lines);
        id
    }

    fn ask(&mut self, id: ClientId, lines: &[&str]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.broker.client_sent(id, text.as_bytes());
        self.turn();
    }

    /// What a program has been answered since the last call.
    fn got(&mut self, id: ClientId) -> Vec<String> {
        let out = &mut self.broker.session(id).expect("the program is connected").answers.out;
        let text = String::from_utf8_lossy(out.bytes()).into_owned();
        out.clear();
        self.broker.client_read(id);
        self.turn();
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn requests_of_many_programs_share_the_link_and_each_gets_its_own_answers_in_order() {
    let mut rig = Rig::new();
    rig.come_up();
    let first = rig.program(&["a1", "a2"]);
    let second = rig.program(&["b1", "", "b2"]);
    assert_eq!(rig.sent(), ["a1", "a2", "b1", "b2"]);
    rig.say(&["A1", "A2"]);
    assert_eq!((rig.got(first), rig.got(second)), (vec!["A1".into(), "A2".into()], vec![]));
    rig.say(&["B1", "B2"]);
    assert_eq!(rig.got(second), ["B1", "B2"]);
}

#[test]
fn a_program_that_left_leaves_its_answers_to_nobody() {
    let mut rig = Rig::new();
    rig.come_up();
    let first = rig.program(&["a"]);
    rig.broker.client_gone(first);
    let second = rig.program(&["b"]);
    assert_eq!(first.index(), second.index());
    rig.say(&["A", "B"]);
    assert_eq!(rig.got(second), ["B"]);
}

#[test]
fn programs_wait_for_the_first_dial_but_not_for_long() {
    let mut rig = Rig::new();
    let id = rig.program(&["early"]);
    assert!(rig.got(id).is_empty());
    rig.come_up();
    assert_eq!(rig.sent(), ["early"]);

    let mut rig = Rig::new();
    let id = rig.program(&["early", "critical:early"]);
    rig.wait(1.0);
    assert_eq!(rig.got(id), ["con_lost", "con_delayed"], "the dial hangs");

    let mut rig = Rig::new();
    let id = rig.program(&["early"]);
    rig.lose_link();
    assert_eq!(rig.got(id), ["con_lost"], "the dial failed");
}

#[test]
fn with_the_link_down_plain_requests_are_lost_and_critical_ones_stored_at_once() {
    let mut rig = Rig::new();
    rig.lose_link();
    let id = rig.program(&["plain", "critical:log:1", "critical:encrypt:log:2"]);
    assert_eq!(rig.got(id), ["con_lost", "con_delayed", "con_delayed"]);
    assert_eq!(rig.broker.spool.waiting().messages, 2);
}

#[test]
fn stored_messages_are_replayed_in_order_and_new_critical_ones_queue_behind_while_plain_ones_pass() {
    let mut rig = Rig::new();
    rig.lose_link();
    let id = rig.program(&["critical:1", "critical:encrypt:2"]);
    assert_eq!(rig.got(id).len(), 2);
    rig.come_up();
    let sealed = rig.sent();
    assert_eq!(sealed[0], "1");
    let cipher = Cipher::agree(&host("msul1").id, &host("msua1").id, BUILDKEY.as_bytes());
    assert_eq!(cipher.open(sealed[1].as_bytes()).unwrap(), b"2");
    rig.ask(id, &["critical:3", "plain"]);
    assert_eq!(rig.got(id), ["con_delayed"]);
    assert_eq!(rig.sent(), ["plain", "3"]);
    rig.say(&["ok", "ok", "PLAIN", "ok"]);
    assert_eq!(rig.got(id), ["PLAIN"]);
    assert_eq!(rig.delivered(), ["1", "encrypt:2", "3"]);
    assert!(rig.broker.spool.is_empty());
    rig.ask(id, &["critical:4"]);
    assert_eq!(rig.sent(), ["4"]);
    rig.say(&["FOUR"]);
    assert_eq!(rig.got(id), ["FOUR"]);
    assert!(rig.delivered().is_empty());
}

#[test]
fn a_lost_link_loses_plain_requests_in_flight_and_stores_critical_ones_in_the_order_they_were_sent() {
    let mut rig = Rig::new();
    rig.come_up();
    let id = rig.program(&["critical:1", "plain", "critical:2"]);
    let gone = rig.program(&["critical:3"]);
    rig.broker.client_gone(gone);
    rig.sent();
    rig.lose_link();
    assert_eq!(rig.got(id), ["con_delayed", "con_lost", "con_delayed"]);
    rig.ask(id, &["critical:4"]);
    assert_eq!(rig.got(id), ["con_delayed"]);
    rig.come_up();
    assert_eq!(rig.sent(), ["1", "2", "3", "4"]);
    rig.say(&["ok"]);
    rig.lose_link();
    rig.come_up();
    assert_eq!(rig.sent(), ["2", "3", "4"], "what was answered is not sent again");
}

/// On the classic wire, where a request has no sequence that would put it in its place.
#[test]
fn what_was_in_flight_is_stored_before_what_was_gathered_after_it_in_the_turn_in_which_the_link_is_lost() {
    let mut rig = Rig::new();
    rig.come_up();
    let older = rig.program(&["critical:1", "critical:2"]);
    assert_eq!(rig.sent(), ["1", "2"]);
    let newer = rig.broker.client_connected();
    for text in [b"3", b"4"] {
        let slot = rig.broker.session(newer).unwrap().take_slot();
        rig.broker.gather(Owner { client: newer, slot }, text);
    }
    rig.lose_link();
    for id in [older, newer] {
        assert_eq!(rig.got(id), ["con_delayed", "con_delayed"]);
    }
    rig.come_up();
    assert_eq!(rig.sent(), ["1", "2", "3", "4"]);
}

#[test]
fn an_overdue_request_fails_alone_and_its_late_answer_is_given_to_nobody() {
    let mut rig = Rig::new();
    rig.come_up();
    let slow = rig.program(&["slow"]);
    rig.wait(200.0);
    let other = rig.program(&["other"]);
    rig.wait(100.0);
    assert_eq!(rig.got(slow), ["con_lost"]);
    rig.ask(slow, &["again"]);
    rig.say(&["LATE", "OTHER", "AGAIN"]);
    assert_eq!((rig.got(slow), rig.got(other)), (vec!["AGAIN".into()], vec!["OTHER".into()]));
    assert!(rig.broker.link.is_up());
}

#[test]
fn an_overdue_critical_request_is_stored_and_its_late_answer_counts_as_its_delivery() {
    let mut rig = Rig::new();
    rig.come_up();
    let first = rig.program(&["critical:slow"]);
    rig.wait(250.0);
    let second = rig.program(&["critical:behind"]);
    rig.sent();
    rig.wait(50.0);
    assert_eq!(rig.got(first), ["con_delayed"]);
    assert!(rig.got(second).is_empty(), "its own time is not over");
    assert!(rig.sent().is_empty(), "what is in flight is not sent twice");
    let third = rig.program(&["critical:newer"]);
    assert_eq!(rig.got(third), ["con_delayed"], "it queues behind what is stored");
    assert_eq!(rig.sent(), ["newer"]);
    rig.say(&["LATE", "BEHIND", "ok"]);
    assert_eq!(rig.got(second), ["BEHIND"]);
    assert_eq!(rig.delivered(), ["slow", "newer"]);
    assert!(rig.broker.spool.is_empty());
}

#[test]
fn what_was_stored_as_a_precaution_is_sent_first_with_the_next_link() {
    let mut rig = Rig::new();
    rig.come_up();
    let first = rig.program(&["critical:1"]);
    rig.wait(250.0);
    let second = rig.program(&["critical:2"]);
    rig.wait(50.0);
    let third = rig.program(&["critical:3"]);
    rig.sent();
    rig.lose_link();
    assert_eq!(rig.got(second), ["con_delayed"]);
    assert_eq!((rig.got(first).len(), rig.got(third).len()), (1, 1));
    rig.come_up();
    assert_eq!(rig.sent(), ["1", "2", "3"]);
}

#[test]
fn a_rejected_stored_message_is_set_aside_and_the_next_follows() {
    let mut rig = Rig::new();
    rig.lose_link();
    let id = rig.program(&["critical:a", "critical:b", "critical:c", "critical:d"]);
    rig.got(id);
    rig.come_up();
    rig.say(&["refused", "unknown_cmd", "", "error:busy"]);
    assert_eq!(rig.delivered(), ["d"]);
    let waiting = rig.broker.spool.waiting();
    assert_eq!((waiting.messages, waiting.failed), (0, 3));
}

#[test]
fn a_full_spool_says_con_failed_and_the_status_says_why() {
    let mut peer = peer();
    peer.spool.messages = 2;
    let mut rig = Rig::with(peer);
    rig.lose_link();
    let id = rig.program(&["critical:1", "critical:2", "critical:3"]);
    assert_eq!(rig.got(id), ["con_delayed", "con_delayed", "con_failed"]);
    assert!(rig.broker.status(rig.now).last_error.is_some_and(|error| !error.is_empty()));
}

#[test]
fn a_spool_that_stays_full_is_told_once_a_minute_not_once_a_request() {
    let mut peer = peer();
    peer.spool.messages = 0;
    let mut rig = Rig::with(peer);
    rig.lose_link();
    rig.broker.take_changed();
    let mut told = 0;
    let mut id = rig.program(&["critical:first"]);
    assert!(rig.broker.take_changed());
    for _ in 0..100 {
        id = rig.program(&["critical:again"]);
        told += usize::from(rig.broker.take_changed());
    }
    assert_eq!(rig.got(id), ["con_failed"]);
    assert_eq!(told, 0);
    rig.now.mono += Duration::from_secs(60);
    rig.program(&["critical:again"]);
    assert!(rig.broker.take_changed());
}

#[test]
fn an_outage_is_as_old_as_the_loss_of_the_link_however_often_it_is_dialled_meanwhile() {
    let mut rig = Rig::new();
    rig.come_up();
    rig.wait(10.0);
    rig.lose_link();
    let lost = rig.now.wall;
    for _ in 0..5 {
        rig.wait(61.0);
        assert!(rig.took(&Effect::Dial));
        assert_eq!(rig.broker.status(rig.now).since, lost, "while it dials");
        rig.lose_link();
        assert_eq!(rig.broker.status(rig.now).since, lost, "between two dials");
    }
    rig.come_up();
    assert_eq!(rig.broker.status(rig.now).since, rig.now.wall);
}

#[test]
fn what_is_told_of_an_outage_is_as_long_ago_as_it_was_however_the_clock_is_set() {
    let mut rig = Rig::new();
    rig.come_up();
    rig.lose_link();
    rig.wait(0.1);
    let true_clock = rig.now.wall;
    for years in [20, -60, 0] {
        rig.now.wall = true_clock + jiff::SignedDuration::from_hours(years * 365 * 24);
        let told = rig.broker.status(rig.now);
        for time in [Some(told.since), told.last_error_at] {
            assert_eq!(rig.now.wall.duration_since(time.unwrap()), jiff::SignedDuration::from_millis(100));
        }
    }
}

#[test]
fn an_answer_to_no_request_ends_the_link() {
    let mut rig = Rig::new();
    rig.come_up();
    let id = rig.program(&["a"]);
    rig.say(&["A", "and more"]);
    assert_eq!(rig.got(id), ["A"]);
    assert!(rig.took(&Effect::HangUp));
    assert!(!rig.broker.link.is_up());
}

#[test]
fn a_peer_that_answers_nothing_is_given_up_after_twice_the_request_timeout() {
    let mut rig = Rig::new();
    rig.come_up();
    let id = rig.program(&["a"]);
    rig.wait(300.0);
    assert_eq!(rig.got(id), ["con_lost"]);
    assert!(rig.broker.link.is_up());
    assert_eq!(rig.broker.deadline(), Some(rig.now.mono + Duration::from_secs(300)));
    rig.wait(300.0);
    assert!(!rig.broker.link.is_up() && rig.took(&Effect::HangUp));
}

#[test]
fn a_heartbeat_that_is_answered_keeps_the_link_and_one_that_is_not_ends_it() {
    let mut rig = Rig::new();
    rig.come_up();
    rig.broker.probe(rig.now);
    rig.broker.probe(rig.now);
    assert_eq!(rig.sent(), ["ping"]);
    rig.say(&["msul1"]);
    rig.wait(10.0);
    assert!(rig.broker.link.is_up());
    rig.broker.probe(rig.now);
    rig.wait(4.9);
    assert!(rig.broker.link.is_up());
    rig.wait(0.2);
    assert!(!rig.broker.link.is_up());
}

#[test]
fn usr1_dials_a_link_that_waits_for_its_next_dial_at_once() {
    let mut rig = Rig::new();
    for _ in 0..10 {
        rig.took(&Effect::Dial);
        rig.lose_link();
        rig.wait(61.0);
    }
    rig.lose_link();
    rig.took(&Effect::Dial);
    rig.broker.probe(rig.now);
    rig.turn();
    assert!(rig.took(&Effect::Dial));
    rig.lose_link();
    let next = rig.broker.link.deadline().unwrap();
    assert!(next <= rig.now.mono + Duration::from_millis(500), "the pauses begin anew");
}

#[test]
fn pauses_between_dials_double_from_half_a_second_to_a_minute_with_jitter() {
    let mut rig = Rig::new();
    rig.took(&Effect::Dial);
    let mut bases = Vec::new();
    for base in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] {
        rig.lose_link();
        let pause = rig.broker.link.deadline().unwrap().duration_since(rig.now.mono).as_secs_f64();
        assert!((base / 2.0..=base).contains(&pause), "{pause} of {base}");
        bases.push(pause / base);
        rig.wait(pause);
        assert!(rig.took(&Effect::Dial));
    }
    assert!(bases.iter().any(|part| (part - bases[0]).abs() > 0.02), "no jitter: {bases:?}");
}

#[test]
fn each_step_of_dialling_has_its_deadline() {
    let mut rig = Rig::new();
    rig.wait(20.0);
    assert!(rig.took(&Effect::HangUp), "connecting");
    rig.wait(1.0);
    rig.broker.link_connected(rig.now);
    for answer in ["123", "ok", "ok", "version:1", "msul1:x"] {
        rig.wait(19.9);
        assert!(!rig.took(&Effect::HangUp), "{answer}");
        rig.say(&[answer]);
    }
    rig.wait(20.0);
    assert!(rig.took(&Effect::HangUp), "ekey");
    let error = rig.broker.status(rig.now).last_error.unwrap();
    assert!(error.contains("ekey"), "{error}");
}

#[test]
fn a_program_with_thousands_of_requests_ahead_does_not_keep_another_waiting() {
    let mut rig = Rig::new();
    rig.come_up();
    let greedy = rig.broker.client_connected();
    let flood: String = (0..10_000).map(|number| format!("flood {number}\n")).collect();
    rig.broker.client_sent(greedy, flood.as_bytes());
    let modest = rig.broker.client_connected();
    rig.broker.client_sent(modest, b"modest\n");
    rig.turn();
    let sent = rig.sent();
    let place = sent.iter().position(|line| line == "modest").expect("it was sent");
    assert!(place <= QUANTUM, "{place}");
    assert!(sent.len() < 5000, "the window is bounded");
    let mut answered = 0;
    let mut waiting = sent;
    let mut answers: Vec<String> = Vec::new();
    while !waiting.is_empty() {
        answered += waiting.len();
        let batch: Vec<&str> = waiting.iter().map(String::as_str).collect();
        rig.say(&batch);
        answers.extend(rig.got(greedy));
        waiting = rig.sent();
    }
    assert_eq!((answered, rig.got(modest)), (10_001, vec!["modest".into()]));
    assert!(answers.iter().enumerate().all(|(number, line)| *line == format!("flood {number}")));
    assert_eq!(answers.len(), 10_000);
}

#[test]
fn a_program_that_reads_nothing_is_not_read_from_and_slows_nobody() {
    let mut rig = Rig::new();
    rig.come_up();
    let deaf = rig.broker.client_connected();
    let big = "x".repeat(50_000);
    while rig.broker.session(deaf).unwrap().wants_read() {
        rig.broker.client_sent(deaf, b"big\n".repeat(16_000).as_slice());
        rig.turn();
        let waiting = rig.sent();
        rig.say(&vec![&*big; waiting.len()]);
    }
    let out = rig.broker.session(deaf).unwrap().answers.out.len();
    assert!(out < 65 << 20, "{out}");
    let other = rig.program(&["quick"]);
    while !rig.sent().contains(&"quick".to_owned()) {
        assert!(rig.broker.pending.len() > 1, "the window is taken by the deaf one's requests only");
        rig.say(&[&big]);
    }
    while rig.broker.pending.len() > 1 {
        rig.say(&[&big]);
    }
    rig.say(&["QUICK"]);
    assert_eq!(rig.got(other), ["QUICK"]);
}

#[test]
fn what_could_not_be_a_request_is_answered_and_the_connection_goes_on() {
    let mut peer = peer();
    peer.max_line = 100;
    let mut rig = Rig::with(peer);
    rig.come_up();
    let long = "x".repeat(101);
    let id = rig.program(&[&long, "critical:", "ekey", "ping"]);
    let answers = rig.got(id);
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|answer| answer.starts_with("error:")), "{answers:?}");
    assert_eq!(rig.sent(), ["ping"]);
}

#[test]
fn an_enciphered_request_takes_an_enciphered_answer_or_a_bare_one() {
    let mut rig = Rig::new();
    rig.come_up();
    let id = rig.program(&["encrypt:ping", "encrypt:ping", "encrypt:ping", "ping"]);
    assert_eq!(rig.sent()[0], "enc:4:e9cf4008a9e0407d");
    rig.say(&["enc:4:e9cf4008a9e0407d", "ok", "enc:4:e9", "enc:4:e9cf4008a9e0407d"]);
    let answers = rig.got(id);
    assert_eq!(answers[..2], ["ping", "ok"]);
    assert!(answers[2].starts_with("error:"), "{answers:?}");
    assert_eq!(answers[3], "enc:4:e9cf4008a9e0407d", "a plain request's answer is not touched");
}

#[test]
fn an_answer_longer_than_the_limit_fails_its_request_alone() {
    let mut peer = peer();
    peer.max_line = 1000;
    let mut rig = Rig::with(peer);
    rig.come_up();
    let id = rig.program(&["a", "b"]);
    rig.say(&[&"x".repeat(1_000_000), "B"]);
    let answers = rig.got(id);
    assert!(answers[0].starts_with("error:") && answers[1] == "B", "{answers:?}");
}

#[test]
fn a_drain_answers_what_is_there_and_is_over_when_all_is_written() {
    let mut rig = Rig::new();
    rig.come_up();
    let busy = rig.program(&["a"]);
    let idle = rig.program(&[]);
    rig.broker.drain(rig.now);
    rig.turn();
    assert!(!rig.broker.accepts() && !rig.broker.over());
    assert!(rig.broker.session(idle).unwrap().finished());
    rig.broker.client_gone(idle);
    rig.say(&["A"]);
    assert!(!rig.broker.over());
    assert_eq!(rig.got(busy), ["A"]);
    assert!(rig.broker.session(busy).unwrap().finished());
    rig.broker.client_gone(busy);
    rig.turn();
    assert!(rig.broker.over());
}

#[test]
fn a_drain_with_files_to_be_taken_in_waits_rather_than_turns() {
    let mut rig = Rig::new();
    rig.come_up();
    rig.program(&["a"]);
    rig.broker.files_appeared(rig.now);
    rig.broker.drain(rig.now);
    rig.turn();
    rig.broker.status(rig.now);
    assert!(rig.broker.deadline().is_some_and(|at| at > rig.now.mono), "the files are the next child's");
}

#[test]
fn a_drain_s_end_stores_what_is_critical_and_does_not_wait_for_a_program_that_reads_nothing() {
    let mut rig = Rig::new();
    rig.come_up();
    let id = rig.program(&["plain", "critical:1"]);
    rig.broker.drain(rig.now);
    rig.turn();
    rig.wait(4.9);
    assert!(!rig.broker.over());
    rig.wait(0.2);
    assert!(rig.broker.over());
    assert_eq!(rig.got(id), ["con_lost", "con_delayed"]);
    assert_eq!(rig.broker.spool.waiting().messages, 1);
    rig.broker.status(rig.now);
    assert_eq!(rig.broker.deadline(), None);
}

#[test]
fn close_connection_exit_ends_the_child_at_once_and_stores_what_is_critical() {
    let mut rig = Rig::new();
    rig.come_up();
    let other = rig.program(&["critical:1", "plain"]);
    let id = rig.program(&["close_connection_exit"]);
    rig.turn();
    assert!(rig.broker.over());
    assert_eq!(rig.got(id), ["ok"]);
    assert_eq!(rig.got(other), ["con_delayed", "con_lost"]);
}

#[test]
fn a_host_that_cannot_be_spoken_with_is_never_dialled_and_its_critical_messages_are_kept() {
    let mut rig = Rig::barred(peer(), Some("no pin"));
    let id = rig.program(&["plain", "critical:1"]);
    rig.broker.probe(rig.now);
    rig.wait(100.0);
    assert_eq!(rig.got(id), ["con_lost", "con_delayed"]);
    assert!(!rig.took(&Effect::Dial));
    assert_eq!(rig.broker.status(rig.now).last_error.as_deref(), Some("no pin"));
    assert!(rig.dir.path().exists());
}

#[test]
fn nothing_to_do_means_no_deadline() {
    let mut rig = Rig::new();
    rig.come_up();
    rig.wait(2.0);
    rig.broker.status(rig.now);
    assert_eq!(rig.broker.deadline(), None);
}

#[test]
fn a_flood_of_critical_requests_does_not_keep_the_backlog_of_an_outage_from_shrinking() {
    let mut peer = peer();
    peer.spool.messages = 100_000;
    let mut rig = Rig::with(peer);
    rig.lose_link();
    let programs: Vec<ClientId> = (0..50).map(|_| rig.program(&[])).collect();
    for round in 0..60 {
        for &id in &programs {
            rig.ask(id, &[&format!("critical:{round}")]);
            assert_eq!(rig.got(id), ["con_delayed"]);
        }
    }
    rig.come_up();
    let plain = rig.program(&[]);
    // Each program sends its next request as soon as it is answered; the peer answers 64 a round.
    let mut asked: Vec<bool> = vec![false; programs.len()];
    let mut backlog = Vec::new();
    let mut longest_hold = 0;
    for round in 0..400 {
        rig.wait(0.01);
        for (at, &id) in programs.iter().enumerate() {
            if !rig.got(id).is_empty() {
                asked[at] = false;
            }
            if !asked[at] {
                asked[at] = true;
                rig.ask(id, &["critical:flood"]);
            }
        }
        longest_hold = longest_hold.max(asked.iter().filter(|waits| **waits).count());
        rig.ask(plain, &["plain"]);
        let sent = rig.sent();
        assert!(sent.contains(&"plain".to_owned()), "plain requests of others pass");
        rig.say(&vec!["ok"; sent.len()]);
        assert_eq!(rig.got(plain), ["ok"]);
        if round % 50 == 0 {
            backlog.push(rig.broker.spool.waiting().messages);
        }
        if rig.broker.spool.is_empty() {
            break;
        }
    }
    assert!(longest_hold > 0, "the flood was held back");
    assert!(rig.broker.spool.is_empty(), "the backlog at every 50th round: {backlog:?}");
    rig.ask(programs[0], &["critical:direct"]);
}

#[test]
fn a_critical_request_is_not_held_back_for_long_when_the_peer_is_stuck() {
    let mut peer = peer();
    peer.spool.messages = 100_000;
    let mut rig = Rig::with(peer);
    rig.lose_link();
    let id = rig.program(&["critical:1"]);
    rig.got(id);
    rig.come_up();
    let mut stored = 0;
    loop {
        rig.ask(id, &["critical:x"]);
        if rig.got(id).is_empty() {
            break;
        }
        stored += 1;
        assert!(stored < 10_000, "the supply has an end");
    }
    rig.ask(id, &["behind"]);
    rig.wait(0.9);
    assert!(rig.got(id).is_empty());
    rig.wait(0.2);
    assert_eq!(rig.got(id), ["con_delayed"]);
    assert!(rig.sent().contains(&"behind".to_owned()));
    let held = rig.program(&["critical:y"]);
    rig.lose_link();
    rig.turn();
    assert_eq!(rig.got(held), ["con_delayed"], "with the link down there is nothing to wait for");
}
