//! The broker on the secure wire: numbers, sequences, heartbeats, and a peer that asks to be
//! dialled again.

use super::*;
use wire::secure::{
    CalledHello, CallerHello, CriticalHead, Frame, FrameReader, Hello, Versions, put_answer, put_go_away,
    put_not_taken, put_pong, put_ready,
};

const WINDOW: u32 = 4 << 20;

/// What the peer got.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Got {
    Request(u64, String),
    Critical(u64, u64, u64, Option<String>, String),
    Cancel(u64),
    Ping,
    Held(String),
    Other,
}

impl Got {
    pub(super) fn critical(number: u64, sequence: u64, settled: u64, text: &str) -> Got {
        Got::Critical(number, sequence, settled, None, text.to_owned())
    }
}

fn request(number: u64, text: &str) -> Got {
    Got::Request(number, text.to_owned())
}

pub(super) fn rig() -> Rig {
    let mut peer = peer();
    peer.wire = WireKind::Secure;
    Rig::with(peer)
}

impl<D: Disk> Rig<D> {
    pub(super) fn come_up_secure(&mut self) {
        if !self.took(&Effect::Dial) {
            self.wait(61.0);
            assert!(self.took(&Effect::Dial), "a dial is due after the longest pause");
        }
        self.broker.link_connected(self.now);
        let mut reader = FrameReader::new();
        reader.push(self.broker.link_out().bytes());
        self.broker.link_out().clear();
        let Some(Ok(Frame::Hello(body))) = reader.next_frame() else { panic!("HELLO comes first") };
        let theirs = CallerHello::parse(body).unwrap();
        assert_eq!((theirs.to.as_str(), theirs.hello.id.as_str()), ("msul1", "msua1"));
        assert_eq!(theirs.epoch, self.broker.spool.epoch());
        let hello = Hello {
            versions: Versions::OURS,
            id: host("msul1").id,
            window: WINDOW,
            max_line: 1 << 20,
            program: "test".to_owned(),
        };
        self.put(|out| CalledHello { hello, mark: 0 }.put(out));
        assert!(self.broker.link.is_up());
    }

    /// The dial that follows at once.
    fn come_up_secure_again(&mut self) {
        self.turn();
        assert!(self.took(&Effect::Dial) || self.broker.link.deadline() == Some(self.now.mono));
        self.effects.push(Effect::Dial);
        self.come_up_secure();
    }

    pub(super) fn put(&mut self, put: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        put(&mut bytes);
        self.broker.link_received(&bytes, self.now);
        self.turn();
    }

    pub(super) fn reply(&mut self, number: u64, text: &str) {
        self.put(|out| put_answer(out, number, false, text.as_bytes()));
    }

    /// All that the peer gets when it takes whatever it is sent.
    fn all_frames(&mut self) -> Vec<Got> {
        let mut got = Vec::new();
        loop {
            let more = self.frames();
            if more.is_empty() {
                return got;
            }
            got.extend(more);
            self.broker.link_wrote();
            self.turn();
        }
    }

    pub(super) fn frames(&mut self) -> Vec<Got> {
        let mut reader = FrameReader::new();
        reader.push(self.broker.link_out().bytes());
        self.broker.link_out().clear();
        let mut got = Vec::new();
        while let Some(frame) = reader.next_frame() {
            let text = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
            got.push(match frame.unwrap() {
                Frame::Request { id, body, .. } => Got::Request(id, text(body)),
                Frame::Critical { id, body, .. } => {
                    let (head, body) = CriticalHead::split(body).unwrap();
                    let key = head.key.map(|key| key.to_string());
                    Got::Critical(id, head.sequence, head.settled, key, text(body))
                }
                Frame::Cancel { id } => Got::Cancel(id),
                Frame::Ping(_) => Got::Ping,
                Frame::Held(names) => Got::Held(text(names)),
                _ => Got::Other,
            });
        }
        got
    }
}

#[test]
fn a_slow_answer_holds_up_nobody_else_s_and_each_program_s_order_is_kept() {
    let mut rig = rig();
    rig.come_up_secure();
    let first = rig.program(&["slow", "quick"]);
    let second = rig.program(&["other"]);
    assert_eq!(rig.frames(), [request(1, "slow"), request(2, "quick"), request(3, "other")]);
    rig.reply(3, "OTHER");
    rig.reply(2, "QUICK");
    assert_eq!((rig.got(first), rig.got(second)), (vec![], vec!["OTHER".to_owned()]));
    rig.reply(1, "SLOW");
    assert_eq!(rig.got(first), ["SLOW", "QUICK"]);
}

#[test]
fn an_overdue_request_is_cancelled_and_its_late_answer_goes_to_nobody() {
    let mut rig = rig();
    rig.come_up_secure();
    let id = rig.program(&["slow"]);
    rig.frames();
    // Heartbeats are answered meanwhile, so it is the request that is slow and not the link.
    for _ in 0..30 {
        rig.wait(10.0);
        rig.put(|out| put_pong(out, b""));
    }
    assert_eq!(rig.got(id), ["con_lost"]);
    assert_eq!(rig.frames().last(), Some(&Got::Cancel(1)));
    rig.ask(id, &["next"]);
    rig.reply(1, "LATE");
    rig.reply(2, "NEXT");
    assert_eq!(rig.got(id), ["NEXT"]);
    rig.reply(9, "to nothing");
    assert!(!rig.broker.link.is_up(), "an answer to a number that was never given ends the link");
}

#[test]
fn critical_requests_carry_their_sequence_and_keep_it_when_they_are_stored_and_sent_again() {
    let mut rig = rig();
    rig.come_up_secure();
    let id = rig.program(&["critical:a", "plain", "critical;key=k1:encrypt:b"]);
    let with_key = Got::Critical(3, 2, 1, Some("k1".to_owned()), "b".to_owned());
    assert_eq!(rig.frames(), [Got::critical(1, 1, 1, "a"), request(2, "plain"), with_key]);
    rig.lose_link();
    assert_eq!(rig.got(id), ["con_delayed", "con_lost", "con_delayed"]);
    rig.ask(id, &["critical:c"]);
    assert_eq!(rig.got(id), ["con_delayed"]);
    rig.come_up_secure();
    let with_key = Got::Critical(2, 2, 1, Some("k1".to_owned()), "b".to_owned());
    assert_eq!(rig.frames(), [Got::critical(1, 1, 1, "a"), with_key, Got::critical(3, 3, 1, "c")]);
    rig.reply(1, "ok");
    rig.reply(2, "ok");
    rig.reply(3, "refused");
    assert_eq!(rig.delivered(), ["a", "critical;key=k1:encrypt:b"]);
    assert_eq!((rig.broker.spool.waiting().messages, rig.broker.spool.waiting().failed), (0, 1));
    rig.ask(id, &["critical:d"]);
    assert_eq!(rig.frames(), [Got::critical(4, 4, 4, "d")]);
}

#[test]
fn what_is_settled_never_passes_what_is_in_flight() {
    let mut rig = rig();
    rig.come_up_secure();
    let id = rig.program(&["critical:1", "critical:2", "critical:3"]);
    rig.frames();
    rig.reply(2, "ok");
    rig.reply(3, "ok");
    rig.ask(id, &["critical:4"]);
    assert_eq!(rig.frames(), [Got::critical(4, 4, 1, "4")]);
    rig.reply(1, "ok");
    rig.ask(id, &["critical:5"]);
    assert_eq!(rig.frames(), [Got::critical(5, 5, 4, "5")]);
}

#[test]
fn an_overdue_critical_request_is_stored_and_not_cancelled() {
    let mut rig = rig();
    rig.come_up_secure();
    let id = rig.program(&["critical:slow"]);
    rig.frames();
    for _ in 0..30 {
        rig.wait(10.0);
        rig.put(|out| put_pong(out, b""));
    }
    assert_eq!(rig.got(id), ["con_delayed"]);
    assert!(rig.frames().iter().all(|got| *got == Got::Ping));
    rig.reply(1, "LATE");
    assert_eq!(rig.delivered(), ["slow"]);
}

#[test]
fn a_silent_link_is_tried_after_15_s_and_given_up_after_60() {
    let mut rig = rig();
    rig.come_up_secure();
    rig.wait(14.9);
    assert!(rig.frames().is_empty());
    for _ in 0..3 {
        rig.wait(15.0);
        assert_eq!(rig.frames(), [Got::Ping]);
    }
    assert!(rig.broker.link.is_up());
    rig.wait(15.1);
    assert!(!rig.broker.link.is_up() && rig.took(&Effect::HangUp));
    rig.come_up_secure();
    for _ in 0..10 {
        rig.wait(15.0);
        assert_eq!(rig.frames(), [Got::Ping]);
        rig.put(|out| put_pong(out, b""));
    }
    assert!(rig.broker.link.is_up());
}

#[test]
fn a_good_link_that_falls_silent_is_dialled_again_as_soon_as_one_that_breaks() {
    let mut rig = rig();
    for _ in 0..6 {
        rig.broker.link_lost("refused".to_owned(), rig.now);
        rig.wait(61.0);
    }
    rig.come_up_secure();
    (0..4).for_each(|_| rig.wait(15.0));
    assert!(!rig.broker.link.is_up());
    rig.effects.clear();
    rig.wait(0.5);
    assert!(rig.took(&Effect::Dial), "the failures before it was up are forgotten");
}

#[test]
fn a_slow_link_is_not_given_up_while_what_is_sent_goes_on() {
    let mut rig = rig();
    rig.come_up_secure();
    for _ in 0..20 {
        rig.wait(14.0);
        rig.broker.link_moved(rig.now);
        rig.broker.probe(rig.now);
        rig.wait(4.0);
        rig.broker.link_moved(rig.now);
        rig.wait(4.0);
        rig.broker.link_moved(rig.now);
        rig.put(|out| put_pong(out, b""));
    }
    assert!(rig.broker.link.is_up());
    rig.wait(60.1);
    rig.frames();
    for _ in 0..4 {
        rig.wait(15.0);
    }
    assert!(!rig.broker.link.is_up(), "nothing goes on");
}

#[test]
fn a_person_s_heartbeat_has_five_seconds() {
    let mut rig = rig();
    rig.come_up_secure();
    rig.broker.probe(rig.now);
    assert_eq!(rig.frames(), [Got::Ping]);
    rig.put(|out| put_pong(out, b""));
    rig.wait(6.0);
    assert!(rig.broker.link.is_up());
    rig.broker.probe(rig.now);
    rig.wait(5.0);
    assert!(!rig.broker.link.is_up());
}

#[test]
fn a_peer_that_asks_to_be_dialled_again_costs_no_request() {
    let mut rig = rig();
    rig.come_up_secure();
    let id = rig.program(&["a"]);
    rig.frames();
    rig.put(|out| put_go_away(out, u64::MAX));
    rig.ask(id, &["b", "critical:c"]);
    assert!(rig.frames().is_empty(), "nothing more is sent on this connection");
    rig.reply(1, "A");
    assert_eq!(rig.got(id), ["A"]);
    rig.turn();
    assert!(rig.took(&Effect::HangUp) && rig.took(&Effect::Dial), "dialled at once");
    rig.effects.push(Effect::Dial);
    rig.come_up_secure();
    rig.turn();
    assert_eq!(rig.frames(), [request(1, "b"), Got::critical(2, 1, 1, "c")]);
}

#[test]
fn a_leaving_peer_that_closes_first_is_dialled_at_once_all_the_same() {
    let mut rig = rig();
    rig.come_up_secure();
    rig.put(|out| put_go_away(out, 0));
    rig.effects.clear();
    rig.come_up_secure_again();
    rig.put(|out| put_go_away(out, u64::MAX));
    rig.broker.link_lost("closed by the peer".into(), rig.now);
    rig.turn();
    let id = rig.program(&["waits"]);
    assert!(rig.got(id).is_empty());
    rig.come_up_secure_again();
    assert_eq!(rig.frames(), [request(1, "waits")]);
}

#[test]
fn what_a_leaving_peer_will_not_run_is_lost_or_stored_at_once() {
    let mut rig = rig();
    rig.come_up_secure();
    let id = rig.program(&["a", "b", "critical:c"]);
    rig.frames();
    rig.put(|out| put_go_away(out, 1));
    rig.reply(1, "A");
    assert_eq!(rig.got(id), ["A", "con_lost", "con_delayed"]);
    rig.turn();
    rig.took(&Effect::HangUp);
    rig.come_up_secure();
    assert_eq!(rig.frames(), [Got::critical(1, 1, 1, "c")]);
}

#[test]
fn a_request_that_the_peer_does_not_take_is_answered_here_and_a_stored_one_set_aside() {
    let mut peer = peer();
    peer.wire = WireKind::Secure;
    peer.max_line = 2 << 20;
    peer.window = 5 << 20;
    let mut rig = Rig::with(peer);
    let long = format!("critical:{}", "x".repeat((1 << 20) + 1));
    rig.lose_link();
    let id = rig.program(&[&long]);
    assert_eq!(rig.got(id), ["con_delayed"]);
    rig.come_up_secure();
    assert_eq!(rig.broker.spool.waiting().failed, 1);
    rig.ask(id, &[&long, "short"]);
    assert_eq!(rig.frames(), [request(1, "short")]);
    rig.reply(1, "SHORT");
    let got = rig.got(id);
    assert!(got[0].starts_with("error:") && got[1] == "SHORT", "{got:?}");
}

#[test]
fn a_spool_that_begins_anew_is_never_spoken_of_in_an_old_conversation() {
    let mut rig = rig();
    rig.come_up_secure();
    let id = rig.program(&["critical:1"]);
    assert_eq!(rig.frames(), [Got::critical(1, 1, 1, "1")]);
    rig.reply(1, "ONE");
    let before = rig.broker.spool.epoch().to_owned();
    std::fs::remove_dir_all(rig.dir.path().join("delayed")).unwrap();
    // The numbers that were reserved are used up before the folder is looked at again.
    let mut asked = 1;
    while rig.broker.link.is_up() {
        rig.ask(id, &["critical:x"]);
        for got in rig.frames() {
            let Got::Critical(number, ..) = got else { continue };
            assert_eq!(rig.broker.spool.epoch(), before, "sent under the old epoch");
            rig.reply(number, "ok");
        }
        asked += 1;
        assert!(asked < 10_000, "the reservation has an end");
    }
    assert_ne!(rig.broker.spool.epoch(), before);
    rig.come_up_secure();
    let sent = rig.frames();
    assert!(matches!(&sent[..], [Got::Critical(1, _, _, None, text)] if text == "x"), "{sent:?}");
}

#[test]
fn a_link_on_which_anything_was_answered_is_dialled_again_soon_and_another_after_its_pause() {
    for (what, soon) in [("answer", true), ("pong", true), ("not taken", true), ("ready", false)] {
        let mut rig = rig();
        for _ in 0..6 {
            rig.broker.link_lost("refused".to_owned(), rig.now);
            rig.wait(61.0);
        }
        rig.come_up_secure();
        rig.program(&["critical:pay:1"]);
        rig.put(|out| match what {
            "answer" => put_answer(out, 1, false, b"ok"),
            "pong" => put_pong(out, b""),
            "not taken" => put_not_taken(out, 1, "away"),
            _ => put_ready(out, "pay"),
        });
        rig.broker.link_lost("reset".to_owned(), rig.now);
        let pause = rig.broker.link.deadline().unwrap().duration_since(rig.now.mono);
        assert_eq!(pause <= Duration::from_millis(500), soon, "{what}: {pause:?}");
    }
}

#[test]
fn a_long_request_is_put_on_the_link_piece_by_piece_as_it_is_written() {
    let mut rig = rig();
    rig.come_up_secure();
    rig.program(&[&"x".repeat(1_000_000)]);
    let mut written = 0;
    while !rig.broker.link_out().bytes().is_empty() {
        let piece = rig.broker.link_out().bytes().len();
        assert!(piece < 500_000, "{piece}");
        written += piece;
        rig.broker.link_out().clear();
        rig.broker.link_wrote();
    }
    assert!(written > 1_000_000, "{written}");
}

#[test]
fn while_anybody_asks_few_stored_messages_are_in_flight_and_else_many() {
    let mut peer = peer();
    (peer.wire, peer.spool.messages) = (WireKind::Secure, 10_000);
    let mut rig = Rig::with(peer);
    let (many, more) = (1024, 300);
    rig.lose_link();
    for count in [many, more] {
        rig.program(&vec!["critical:kept"; count]);
    }
    rig.come_up_secure();
    assert_eq!(rig.all_frames().len(), many, "nobody asks");
    let asks = rig.program(&["plain"]);
    assert_eq!(rig.frames(), [request(many as u64 + 1, "plain")], "it has room at once");
    // From now on what is answered makes no room for the stored ones until few are in flight.
    let few = 24;
    rig.put(|out| (few..many as u64).for_each(|number| put_answer(out, number + 1, false, b"ok")));
    assert_eq!(rig.frames().len(), rivals::MOST - few as usize);
    rig.put(|out| (0..few).for_each(|number| put_answer(out, number + 1, false, b"ok")));
    rig.ask(asks, &["plain"]);
    let frames = rig.frames();
    assert_eq!(frames.len(), few as usize + 1, "as many as were answered, and the plain one: {frames:?}");
    assert!(matches!(frames.last(), Some(Got::Request(..))), "{frames:?}");
    // Nobody asks any more: the deadline is when that counts.
    assert!(rig.broker.deadline().unwrap() <= rig.now.mono + Duration::from_secs(1));
    rig.wait(1.0);
    assert_eq!(rig.all_frames().len(), more - rivals::MOST, "all that waited");
}
