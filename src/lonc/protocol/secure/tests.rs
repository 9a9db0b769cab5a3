//! The conversation against a peer that the test plays, frame by frame.

mod answers;

use super::*;
use base::Sequence;
use wire::secure::{
    Kind, least_window, message_cost, put_answer, put_go_away, put_ping, put_pong, put_window,
};

const MAX_LINE: u32 = 1 << 20;

fn id(text: &str) -> HostId {
    HostId::new(text).unwrap()
}

struct Rig {
    secure: Secure,
    out: Outgoing,
}

/// A frame as the peer got it: kind, number, whether more follows, length of its body.
#[derive(Debug, PartialEq, Eq, Clone)]
struct Got(Kind, u64, bool, usize);

/// What was heard, in words.
type Words = Vec<String>;

impl Rig {
    fn new() -> Rig {
        let terms = Terms {
            caller: id("msua1"),
            called: id("msul1"),
            epoch: "0123456789abcdef0123456789abcdef".to_owned(),
            window: least_window(MAX_LINE as usize) as u32,
            max_line: MAX_LINE,
        };
        let mut out = Outgoing::default();
        Rig { secure: Secure::begin(&terms, &mut out), out }
    }

    fn open(window: u32) -> Rig {
        let mut rig = Rig::new();
        let sent = rig.sent();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].0, Kind::Hello);
        assert_eq!(rig.hear(|out| hello("msul1", window).put(out)).unwrap(), ["opened"]);
        rig
    }

    /// The peer sends what `put` puts.
    fn hear(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> Result<Words, String> {
        let mut bytes = Vec::new();
        put(&mut bytes);
        self.secure.receive(&bytes);
        self.go_on()
    }

    fn go_on(&mut self) -> Result<Words, String> {
        let mut words = Words::new();
        self.secure.hear(&mut self.out, |heard| {
            words.push(match heard {
                Heard::Progress { .. } => "progress".to_owned(),
                Heard::Opened => "opened".to_owned(),
                Heard::Answer { number, text, broken } => {
                    let broken = if broken { "broken: " } else { "" };
                    format!("{}: {broken}{}", number.unwrap(), String::from_utf8_lossy(&text))
                }
                Heard::NotTaken { number, why } => format!("{number} not taken: {why}"),
                Heard::Ready { command } => format!("{command} is ready"),
                Heard::Pong => "pong".to_owned(),
                Heard::Leaving { not_run } => format!("leaving without {not_run:?}"),
            });
            ControlFlow::Continue(())
        })?;
        Ok(words)
    }

    fn send(&mut self, number: u64, text: &[u8], once: Option<(u64, u64)>) {
        let once = once.map(|(sequence, settled)| Once {
            sequence: Sequence(sequence),
            settled: Sequence(settled),
            held: HeldCommands::default(),
        });
        self.secure.send(Message { number, text, once }, &mut self.out);
    }

    /// Sends short requests with these numbers; what is sent for them is of no interest.
    fn ask(&mut self, numbers: std::ops::RangeInclusive<u64>) {
        for number in numbers {
            self.send(number, b"x", None);
        }
        self.sent();
    }

    /// All that is sent, as fast as it can be written.
    fn sent(&mut self) -> Vec<Got> {
        let mut reader = FrameReader::new();
        let mut got = Vec::new();
        loop {
            reader.push(self.out.bytes());
            self.out.clear();
            while let Some(frame) = reader.next_frame() {
                got.push(match frame.unwrap() {
                    Frame::Hello(body) => Got(Kind::Hello, 0, false, body.len()),
                    Frame::Request { id, more, body } => Got(Kind::Request, id, more, body.len()),
                    Frame::Critical { id, more, body } => Got(Kind::Critical, id, more, body.len()),
                    Frame::Answer { id, more, body, .. } => Got(Kind::Answer, id, more, body.len()),
                    Frame::Cancel { id } => Got(Kind::Cancel, id, false, 0),
                    Frame::Ping(body) => Got(Kind::Ping, 0, false, body.len()),
                    Frame::Pong(body) => Got(Kind::Pong, 0, false, body.len()),
                    Frame::Window(bytes) => Got(Kind::Window, 0, false, bytes as usize),
                    Frame::GoAway { last } => Got(Kind::GoAway, last, false, 8),
                    Frame::Error(body) => Got(Kind::Error, 0, false, body.len()),
                    Frame::NotTaken { id, why } => Got(Kind::NotTaken, id, false, why.len()),
                    Frame::Ready(body) => Got(Kind::Ready, 0, false, body.len()),
                    Frame::Held(body) => Got(Kind::Held, 0, false, body.len()),
                });
            }
            self.secure.carry_on(&mut self.out);
            if self.out.is_empty() {
                return got;
            }
        }
    }
}

fn hello(id_: &str, window: u32) -> CalledHello {
    let hello = Hello {
        versions: Versions::OURS,
        id: id(id_),
        window,
        max_line: (window.saturating_sub(65536)) / 2,
        program: "test".to_owned(),
    };
    CalledHello { hello, mark: 0 }
}

fn big() -> u32 {
    least_window(MAX_LINE as usize) as u32
}

#[test]
fn short_requests_are_a_frame_each_and_answers_come_in_any_order() {
    let mut rig = Rig::open(big());
    rig.send(1, b"first", None);
    rig.send(2, b"encrypt:second", None);
    let request = |number, length| Got(Kind::Request, number, false, length);
    assert_eq!(rig.sent(), [request(1, 5), request(2, 6)]);
    let heard = rig.hear(|out| {
        put_answer(out, 2, false, b"B");
        put_answer(out, 1, false, b"A");
    });
    assert_eq!(heard.unwrap(), ["2: B", "1: A"]);
}

#[test]
fn long_messages_take_turns_chunk_by_chunk_and_short_ones_pass_between() {
    let mut rig = Rig::open(big());
    let long = vec![b'x'; 10 * MAX_BODY];
    rig.send(1, &long, None);
    rig.send(2, &long, None);
    rig.send(3, b"short", None);
    let sent = rig.sent();
    let chunks = |number| sent.iter().filter(|got| got.1 == number).count();
    // The short one is begun before the second long one, and so has its id.
    assert_eq!((chunks(1), chunks(3), chunks(2)), (10, 10, 1));
    let place = sent.iter().position(|got| got.1 == 2).unwrap();
    assert!(place <= CHUNKS_UNTIL / MAX_BODY + 1, "{place}");
    let later = &sent[place + 1..place + 11];
    assert!(later.windows(2).all(|pair| pair[0].1 != pair[1].1), "they take turns: {later:?}");
    assert!(sent.iter().filter(|got| got.1 != 2).all(|got| got.3 == MAX_BODY));
    assert_eq!(sent.iter().filter(|got| !got.2).count(), 3, "the last of each says that it is");
}

#[test]
fn nothing_is_sent_beyond_the_window_and_what_waits_is_sent_when_there_is_room() {
    let window = least_window(100) as u32;
    let mut rig = Rig::open(window);
    let mut sent = 0;
    let mut number = 0;
    while rig.secure.has_room() {
        number += 1;
        rig.send(number, &[b'x'; 100], None);
        sent += rig.sent().len();
    }
    assert_eq!(sent, window as usize / (100 + 64));
    assert_eq!(number as usize, sent + MAX_WAITING);
    rig.hear(|out| put_window(out, 2 * 164)).unwrap();
    assert_eq!(rig.sent().len(), 2);
    assert!(rig.secure.has_room());
    rig.hear(|out| put_window(out, 10_000)).unwrap();
    assert_eq!(rig.sent().len(), MAX_WAITING - 2);
}

#[test]
fn a_message_is_begun_only_when_all_of_it_has_room() {
    let mut rig = Rig::open(big());
    let long = vec![b'x'; MAX_LINE as usize];
    for number in 1..=3 {
        rig.send(number, &long, None);
    }
    let begun = |sent: &[Got]| sent.iter().map(|got| got.1).max().unwrap();
    let sent = rig.sent();
    assert_eq!(begun(&sent), 2, "the third waits until there is room for all of it");
    assert_eq!(sent.iter().filter(|got| !got.2).count(), 2);
    rig.hear(|out| put_window(out, message_cost(long.len()) as u32)).unwrap();
    assert_eq!(begun(&rig.sent()), 3);
}

#[test]
fn critical_messages_keep_their_order_whatever_their_length() {
    let mut rig = Rig::open(big());
    rig.send(1, &vec![b'x'; 10 * MAX_BODY], Some((7, 7)));
    rig.send(2, b"critical;key=k:short", Some((8, 7)));
    rig.send(3, b"plain", None);
    let sent = rig.sent();
    let last_of_first = sent.iter().rposition(|got| got.1 == 1).unwrap();
    let second = sent.iter().position(|got| got.1 == 3).unwrap();
    let plain = sent.iter().position(|got| got.0 == Kind::Request).unwrap();
    assert!(second > last_of_first && plain < last_of_first, "{sent:?}");
    assert_eq!(sent[second], Got(Kind::Critical, 3, false, 17 + 1 + 5));
    assert_eq!(sent.iter().filter(|got| got.1 == 1).map(|got| got.3).sum::<usize>(), 17 + 10 * MAX_BODY);
}

#[test]
fn a_cancelled_request_is_not_sent_if_it_waits_and_is_told_of_if_it_was_begun() {
    let window = least_window(100) as u32;
    let mut rig = Rig::open(window);
    rig.send(1, b"sent", None);
    rig.sent();
    rig.secure.cancel(1, &mut rig.out);
    assert_eq!(rig.sent(), [Got(Kind::Cancel, 1, false, 0)]);
    let mut number = 1;
    while rig.secure.sending.is_empty() {
        number += 1;
        rig.send(number, &[b'x'; 100], None);
        rig.sent();
    }
    rig.secure.cancel(number, &mut rig.out);
    rig.hear(|out| put_window(out, 1 << 20)).unwrap();
    assert!(rig.sent().is_empty());

    let mut rig = Rig::open(big());
    rig.send(1, &vec![b'x'; 10 * MAX_BODY], None);
    rig.secure.cancel(1, &mut rig.out);
    let sent = rig.sent();
    assert_eq!((sent.len(), sent[10].clone()), (11, Got(Kind::Cancel, 1, false, 0)));
}

#[test]
fn a_peer_that_breaks_the_rules_is_told_so_and_given_up() {
    type Put = fn(&mut Vec<u8>);
    let cases: [(Put, &str); 7] = [
        (|out| put_answer(out, 1, false, b"x"), "no request"),
        (|out| hello("msul1", big()).put(out), "second HELLO"),
        (|out| put_request(out, 1, false, b"x"), "only a caller"),
        (|out| put_cancel(out, 1), "only a caller"),
        (|out| out.extend_from_slice(&[0x3f; 12]), "unknown"),
        (|out| out.extend_from_slice(&[0x04, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1]), "65535"),
        (
            |out| {
                for _ in 0..=MAX_LINE as usize / MAX_BODY {
                    put_answer(out, 1, true, &[b'x'; MAX_BODY]);
                }
            },
            "longer",
        ),
    ];
    for (put, why) in cases {
        let mut rig = Rig::open(big());
        if why == "longer" {
            // Too much for one answer, and yet within the window.
            rig.ask(1..=1);
            assert!(rig.hear(put).is_ok());
            continue;
        }
        let error = rig.hear(put).unwrap_err();
        assert!(error.contains(why), "{error}");
        assert_eq!(rig.sent().last().map(|got| got.0), Some(Kind::Error), "{why}");
    }
}

#[test]
fn a_peer_that_sends_beyond_our_window_is_given_up() {
    let mut rig = Rig::open(big());
    rig.ask(1..=1000);
    let mut result = Ok(Words::new());
    let (mut sent, mut id) = (0, 0);
    while result.is_ok() {
        id += 1;
        result = rig.hear(|out| put_answer(out, id, true, &[b'x'; MAX_BODY]));
        sent += MAX_BODY + 64;
    }
    assert!(result.unwrap_err().contains("beyond the window"));
    assert!(sent > big() as usize && sent < big() as usize + 2 * MAX_BODY);
    assert_eq!(rig.sent().last().map(|got| got.0), Some(Kind::Error), "no window was given back before");
}

#[test]
fn a_flood_of_pings_makes_no_more_than_one_pong_wait() {
    let mut rig = Rig::open(big());
    for round in 0..1000_u64 {
        rig.hear(|out| (0..100).for_each(|token| put_ping(out, 100 * round + token))).unwrap();
    }
    assert_eq!(rig.out.len(), 12 + 8);
    // The first was answered at once; of those that came before it had gone, the newest.
    let mut pongs = Vec::new();
    let mut reader = FrameReader::new();
    while !rig.out.is_empty() {
        reader.push(rig.out.bytes());
        rig.out.clear();
        while let Some(Ok(Frame::Pong(body))) = reader.next_frame() {
            pongs.push(u64::from_be_bytes(body.try_into().unwrap()));
        }
        rig.secure.carry_on(&mut rig.out);
    }
    assert_eq!(pongs, [99, 99_999]);
}

#[test]
fn control_frames_wait_for_the_ones_before_them_and_not_for_requests_that_came_later() {
    let mut rig = Rig::open(big());
    rig.ask(1..=200);
    rig.send(201, b"before", None);
    rig.hear(|out| put_ping(out, 1)).unwrap();
    rig.send(202, b"after", None);
    // A peer that does not read is heard all the same: its PINGs and answers make nothing more
    // wait.
    let waits = rig.out.len();
    rig.hear(|out| put_ping(out, 2)).unwrap();
    for id in 1..=100 {
        rig.hear(|out| put_answer(out, id, false, &[b'x'; MAX_BODY])).unwrap();
    }
    rig.secure.ping(&mut rig.out);
    rig.secure.ping(&mut rig.out);
    assert_eq!(rig.out.len(), waits);
    // What is before the first PONG, and itself, goes; then the others are put though more waits.
    rig.out.wrote(12 + 6 + 12 + 8);
    rig.secure.carry_on(&mut rig.out);
    let kinds: Vec<Kind> = rig.sent().iter().map(|got| got.0).collect();
    assert_eq!(kinds, [Kind::Request, Kind::Pong, Kind::Ping, Kind::Window]);
}

#[test]
fn the_opening_frame_must_be_the_peer_s_and_of_a_version_in_common() {
    let other = Rig::new().hear(|out| hello("msul2", big()).put(out)).unwrap_err();
    assert_eq!(other, "msul2 answered in place of msul1");
    let early = Rig::new().hear(|out| put_answer(out, 1, false, b"x")).unwrap_err();
    assert!(early.contains("before HELLO"), "{early}");
    let mut rig = Rig::new();
    let mut later = hello("msul1", big());
    later.hello.versions = Versions { lowest: 2, highest: 3 };
    let error = rig.hear(|out| later.put(out)).unwrap_err();
    assert!(error.contains("2-3") && error.contains("1-1"), "{error}");
    assert_eq!(rig.sent().last().map(|got| got.0), Some(Kind::Error));
    let mut both = hello("msul1", big());
    both.hello.versions = Versions { lowest: 1, highest: 2 };
    assert_eq!(Rig::new().hear(|out| both.put(out)).unwrap(), ["opened"]);
    let said = Rig::open(big()).hear(|out| put_error(out, "go \x1b away")).unwrap_err();
    assert_eq!(said, "the peer says: go \\x1b away");
}

#[test]
fn ids_go_up_on_the_link_whatever_overtakes_what_and_answers_find_their_requests() {
    let mut rig = Rig::open(u32::MAX);
    let long = vec![b'x'; 12 * MAX_BODY];
    for number in (1..=20).step_by(4) {
        rig.send(number, &long, None);
        rig.send(number + 1, &long, Some((number, number)));
        rig.send(number + 2, b"short", None);
        rig.send(number + 3, b"short", Some((number + 1, number)));
    }
    let mut first = Vec::new();
    for got in rig.sent() {
        if !first.contains(&got.1) {
            first.push(got.1);
        }
    }
    assert_eq!(first, (1..=20).collect::<Vec<_>>());
    let answered = rig.hear(|out| (1..=20).for_each(|id| put_answer(out, id, false, b"")));
    let mut numbers: Vec<u64> =
        answered.unwrap().iter().map(|words| words.trim_end_matches(": ").parse().unwrap()).collect();
    assert!(!numbers.is_sorted(), "some were overtaken");
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
}

#[test]
fn heartbeats_are_answered_and_kinds_of_a_later_version_are_passed_over() {
    let mut rig = Rig::open(big());
    rig.ask(1..=5);
    let heard = rig.hear(|out| {
        put_ping(out, 7);
        out.extend_from_slice(&[0x90, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 9, 1, 2, 3]);
        put_pong(out, b"");
        put_go_away(out, 3);
    });
    assert_eq!(heard.unwrap(), ["pong", "leaving without [4, 5]"]);
    assert_eq!(rig.sent(), [Got(Kind::Pong, 0, false, 8)]);
}

#[test]
fn no_bytes_make_it_panic() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..2000 {
        let mut rig = Rig::open(big());
        let mut bytes: Vec<u8> = Vec::new();
        for _ in 0..random.usize(1..6) {
            match random.u8(0..4) {
                0 => put_answer(&mut bytes, random.u64(1..4), random.bool(), b"xyz"),
                1 => put_window(&mut bytes, random.u32(..)),
                2 => put_go_away(&mut bytes, random.u64(..)),
                _ => bytes.extend((0..random.usize(0..30)).map(|_| random.u8(..))),
            }
        }
        for _ in 0..random.usize(0..4) {
            let at = random.usize(..bytes.len().max(1));
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.u8(..);
            }
        }
        let _ = rig.hear(|out| out.extend_from_slice(&bytes));
        rig.send(1, b"x", None);
    }
}
