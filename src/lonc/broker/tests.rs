//! The broker on a clock of the test's own, between programs and a peer that the test plays.

use super::*;
use crate::pending::Owner;
use crate::session::ClientId;
use crate::settings::LinkKeys;
use base::{Credentials, HostId, WireKind};
use config::fixture::{self, host};
use config::{LocalRules, Peer};
use std::path::{Path, PathBuf};
use std::time::Duration;
use store::spool::RealDisk;
use tempfile::TempDir;
use wire::classic::Cipher;

mod away;
mod dialling;
mod ending;
mod handing;
mod held_back;
mod programs;
mod secure;
mod sick_disk;
mod storing;
mod told;

const BUILDKEY: &str = "41342A79EAFBE8FC990EFC7D2928";

struct Rig<D: Disk = RealDisk> {
    broker: Broker<D>,
    now: Now,
    dir: TempDir,
    effects: Vec<Effect>,
}

/// `msul1`, on the classic wire.
pub(crate) fn peer() -> Peer {
    fixture::peer("msul1")
}

/// What a link to `peer` depends on, in `dir`.
pub(crate) fn settings(dir: &Path, peer: &Peer, keys: LinkKeys) -> LinkSettings {
    LinkSettings {
        id: HostId::new("msua1").unwrap(),
        peer: peer.clone(),
        keys,
        local: LocalRules::default(),
        user: 0,
        run_dir: dir.join("run"),
        spool_dir: dir.join("delayed"),
        log_dir: dir.join("log"),
        log_level: log::LevelFilter::Info,
        sandbox: config::Sandbox::Off,
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
        Rig::on(|_| RealDisk, peer, barred)
    }

    /// A file that was dropped in has come into the peer's folder, however long ago.
    fn drop_in(&self, name: &str, text: &str) -> PathBuf {
        let folder = self.dir.path().join("delayed/msul1/dropped");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// From now on nothing can be stored.
    fn spoil_spool(&self) {
        let folder = self.dir.path().join("delayed");
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::write(folder, "in the way").unwrap();
    }
}

impl<D: Disk> Rig<D> {
    /// On the disk that `disk` makes of the path of the delayed directory.
    fn on(disk: impl FnOnce(&Path) -> D, peer: Peer, barred: Option<&str>) -> Rig<D> {
        let dir = tempfile::tempdir().unwrap();
        let now = Now { mono: Instant::now(), wall: jiff::Timestamp::from_second(1_000_000_000).unwrap() };
        let keys = barred.map_or(LinkKeys::None, |why| LinkKeys::Barred(why.to_owned()));
        let settings = settings(dir.path(), &peer, keys);
        let spool_dir = dir.path().join("delayed");
        let spool = Spool::open(disk(&spool_dir), &spool_dir.join("msul1"), peer.spool);
        let mut rig = Rig { broker: Broker::new(settings, spool, 7, now), now, dir, effects: Vec::new() };
        rig.turn();
        rig
    }

    fn turn(&mut self) {
        self.broker.turn(self.now);
        self.effects.extend(self.broker.take_effects());
        self.broker.take_touched(&mut Vec::new());
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

    /// The same, of this user.
    fn program_of(&mut self, user: u32, lines: &[&str]) -> ClientId {
        let id = self.broker.client_connected();
        self.broker.client_belongs(id, Credentials::of_user(user));
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
    assert!(place <= serving::QUANTUM, "{place}");
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
