//! Plain requests: answers in any order, chunks, windows, cancels; what must not be.

use super::*;
use wire::secure::put_ping;

#[test]
fn built_in_requests_and_handlers_are_routed_as_on_the_classic_wire() {
    let mut bench = Bench::open();
    for (number, (request, answer)) in [
        ("ping", "msul1"),
        ("sethost:msul1", "ok"),
        ("sethost:x", "refused"),
        ("log:hello", "ok"),
        ("nonsense", "unknown_cmd"),
        ("secret:x", "refused"),
        ("ekey", "unknown_cmd"),
        ("enc:1:00", "unknown_cmd"),
        ("init", "unknown_cmd"),
        ("", "unknown_cmd"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = number as u64 + 1;
        bench.request(id, request.as_bytes());
        assert_eq!(bench.read(), format!("ANSWER {id} {answer}"), "{request}");
    }
    assert_eq!(bench.effects(), ["log hello", "refused Handler(1)"]);
    bench.request(20, b"pong");
    bench.request(21, b"load");
    bench.request(22, b"other:\n\x00");
    assert_eq!(bench.effects(), ["ask back", "load", "ask 2 other:\n\u{0}"]);
    bench.session.asked_back(Ticket(20), None);
    bench.answer(1, b"50");
    bench.answer(2, b"yes");
    assert_eq!(bench.read(), "ANSWER 20 msul1:con_lost, ANSWER 21 50, ANSWER 22 yes");
}

#[test]
fn answers_leave_as_they_come_whatever_the_order_of_the_requests() {
    let mut bench = Bench::open();
    bench.request(1, b"echo:slow");
    bench.request(2, b"echo:quick");
    bench.request(3, b"ping");
    assert_eq!(bench.read(), "ANSWER 3 msul1");
    bench.answer(1, b"quick");
    assert_eq!(bench.read(), "ANSWER 2 quick");
    bench.answer(0, b"slow");
    assert_eq!(bench.read(), "ANSWER 1 slow");
}

#[test]
fn requests_come_whole_however_their_chunks_are_interleaved() {
    let mut bench = Bench::open();
    let long = [b'x'; 3 * MAX_BODY];
    let mut bytes = Vec::new();
    put_request(&mut bytes, 1, true, b"echo:");
    put_request(&mut bytes, 2, true, b"other:");
    put_request(&mut bytes, 1, true, &long[..MAX_BODY]);
    put_request(&mut bytes, 3, false, b"ping");
    put_request(&mut bytes, 2, false, b"two");
    put_request(&mut bytes, 1, false, b"");
    for chunk in bytes.chunks(1000) {
        bench.send(chunk);
    }
    assert_eq!(bench.effects(), ["ask 2 other:two", "ask 0 echo:xxxxxxxxxxxxxxx"]);
    assert_eq!(bench.read(), "ANSWER 3 msul1");
}

#[test]
fn long_answers_take_turns_a_chunk_each_and_short_ones_pass_between() {
    let mut bench = Bench::new().opened(u32::MAX / 2);
    for id in 1..=3 {
        bench.request(id, b"echo");
    }
    let long = vec![b'x'; 3 * MAX_BODY];
    bench.session.answer(bench.asked[0], Reply::Answer(&long));
    bench.session.answer(bench.asked[1], Reply::Answer(&long));
    bench.session.answer(bench.asked[2], Reply::Answer(b"short"));
    bench.work();
    assert_eq!(
        bench.read(),
        "ANSWER 3 short, CHUNK 1, CHUNK 2, CHUNK 1, CHUNK 2, ANSWER 1 ".to_owned()
            + &"x".repeat(80)
            + ", ANSWER 2 "
            + &"x".repeat(80)
    );
    assert_eq!(bench.caller.done[&1], long);
}

#[test]
fn a_request_longer_than_the_limit_costs_its_answer_alone_and_no_window() {
    let mut bench = Bench::open();
    let long = vec![b'x'; MAX_LINE + 1];
    bench.request(1, &long);
    bench.request(2, &long[1..]);
    bench.read();
    assert_eq!(bench.caller.done[&1], b"error:request longer than 100000 bytes");
    assert_eq!(bench.caller.done[&2], b"unknown_cmd");
    assert_eq!(bench.session.credit.held(), 0);
    assert_eq!(bench.ended(), None);
}

#[test]
fn an_answer_longer_than_the_caller_takes_is_an_error_to_it() {
    let mut bench = Bench::open();
    bench.request(1, b"echo");
    bench.answer(0, &vec![b'x'; MAX_LINE + 1]);
    assert_eq!(bench.read(), "ANSWER 1 error:answer longer than 100000 bytes");
}

#[test]
fn a_cancelled_request_has_no_answer_wherever_it_was() {
    let mut bench = Bench::open();
    bench.request(1, b"echo:with the handler");
    bench.cancel(1);
    assert_eq!(bench.effects(), ["ask 0 echo:with the handle", "withdraw 1"]);
    bench.answer(0, b"late");
    assert_eq!(bench.read(), "");
    assert_eq!(bench.session.credit.held(), 0);

    bench.handlers_hold = true;
    bench.request(2, b"echo:not passed on yet");
    bench.cancel(2);
    assert_eq!(bench.session.credit.held(), 0);

    let mut chunk = Vec::new();
    put_request(&mut chunk, 3, true, b"begun");
    bench.send(&chunk);
    bench.cancel(3);
    assert_eq!(bench.session.credit.held(), 0);

    bench.request(4, b"ping");
    assert_eq!(bench.read(), "ANSWER 4 msul1");
    bench.cancel(4);
    bench.cancel(1);
    assert_eq!(bench.read(), "", "an answer that has left cannot be called back, nor is that a fault");
    assert_eq!(bench.ended(), None);
}

#[test]
fn an_answer_that_waits_for_the_window_is_dropped_with_a_cancel_and_one_begun_is_ended() {
    let mut bench = Bench::open();
    for id in 1..=4 {
        bench.request(id, b"echo");
    }
    let long = vec![b'x'; MAX_LINE];
    for number in 0..4 {
        bench.answer(number, &long);
    }
    let saw = bench.read();
    assert!(saw.contains("ANSWER 1") && saw.contains("ANSWER 2") && !saw.contains(" 3"), "{saw}");
    bench.cancel(3);
    bench.cancel(1);
    bench.widen(window());
    let saw = bench.read();
    assert!(saw.contains("ANSWER 4") && !saw.contains(" 3"), "{saw}");
    assert_eq!(bench.session.credit.held(), 0);
}

#[test]
fn a_cancel_of_what_was_never_sent_or_is_critical_ends_the_link() {
    let mut bench = Bench::open();
    bench.cancel(1);
    assert_eq!(bench.read(), "ERROR request 1 cannot be cancelled: it is critical, or was never sent");
    let mut bench = Bench::open();
    bench.critical(1, 1, None, "echo");
    bench.cancel(1);
    assert_eq!(bench.read(), "ERROR request 1 cannot be cancelled: it is critical, or was never sent");
    bench.end_of_input();
    assert_eq!(bench.ended(), None, "the message is still being run");
    bench.answer(0, b"done");
    assert!(bench.ended().unwrap().starts_with("the caller broke the rules: request 1"));
    assert_eq!(bench.session.memory.recorder.answers[&1].0, b"done");
}

#[test]
fn a_request_may_begin_after_one_with_a_higher_number() {
    let mut bench = Bench::open();
    bench.request(7, b"ping");
    bench.critical(3, 1, None, "ping");
    bench.request(2, b"ping");
    let saw = bench.read();
    for id in [7, 3, 2] {
        assert!(saw.contains(&format!("ANSWER {id} msul1")), "{saw}");
    }
}

#[test]
fn what_must_not_be_on_an_open_link_ends_it_with_its_name() {
    for (sent, error) in [
        (hello(window()), "a Hello frame is not for the caller to send now"),
        (raw(4, 1, b"x"), "a Answer frame is not for the caller to send now"),
        (raw(9, 0, &[0; 8]), "a GoAway frame is not for the caller to send now"),
        (
            [raw(2, 7, b"ping"), raw(2, 7, b"ping")].concat(),
            "request id 7 is used twice, or far from the one before",
        ),
        (raw(2, 10_000, b"ping"), "request id 10000 is used twice, or far from the one before"),
        (raw(3, 1, b"short"), "read a critical request: 5 bytes end within its head"),
        (raw(2, 0, b"ping"), "read a Request frame: it cannot have the id 0"),
        (raw(5, 1, b"x"), "read a Cancel frame: it cannot have 1 bytes"),
        (raw(6, 0, b"123456789"), "read a Ping frame: it cannot have 9 bytes"),
        (raw(8, 0, b"123"), "read a Window frame: it cannot have 3 bytes"),
        (raw(8, 0, &[0xff; 4]), "the window has more than 32 bits"),
        (raw(0x0b, 0, b""), "read a frame: its kind 0x0b is unknown"),
        (
            vec![2, 0, 0x40, 1, 0, 0, 0, 0, 0, 0, 0, 1],
            "read a frame of kind 0x02: 16385 bytes are more than 16384",
        ),
    ] {
        let mut bench = Bench::open();
        let saw = bench.exchange(&sent);
        assert!(saw.ends_with(&format!("ERROR {error}")), "{saw}: {error}");
        assert_eq!(bench.effects(), ["shut"]);
        assert_eq!(bench.exchange(&raw(2, 9, b"ping")), "");
        bench.wait(LINGER.as_secs_f64());
        assert_eq!(bench.ended().unwrap(), format!("the caller broke the rules: {error}"));
    }
}

#[test]
fn what_the_window_lets_in_is_taken_and_a_byte_more_ends_the_link() {
    let mut bench = Bench::open();
    let mut left = window() as usize;
    let mut id = 0;
    while left > 0 {
        id += 1;
        // The last two frames share what is left, so that it comes out even.
        let body =
            if left > 2 * (FRAME_COST + MAX_BODY) { MAX_BODY } else { (left / 2).max(left % MAX_BODY) };
        let body = body.min(MAX_BODY).min(left - FRAME_COST);
        let body =
            if (1..FRAME_COST).contains(&(left - FRAME_COST - body)) { body - FRAME_COST } else { body };
        left -= FRAME_COST + body;
        bench.send(&raw(2, id, &[&b"echo:"[..], &vec![b'x'; body - 5]].concat()));
    }
    assert_eq!(bench.read(), "");
    assert_eq!(bench.session.credit.held(), u64::from(window()));
    bench.send(&raw(2, id + 1, b""));
    assert_eq!(bench.read(), "ERROR sent beyond the window");
}

#[test]
fn nothing_is_given_back_while_a_handler_has_the_requests() {
    let mut bench = Bench::open();
    let mut sent = 0;
    for id in 1.. {
        let mut bytes = Vec::new();
        let body = [&b"echo:"[..], &[b'x'; MAX_BODY - 5]].concat();
        put_request(&mut bytes, id, false, &body);
        bench.send(&bytes);
        sent += FRAME_COST + MAX_BODY;
        if sent > window() as usize {
            break;
        }
        assert_eq!(bench.read(), "", "nothing is given back while the handler has them");
    }
    assert_eq!(bench.read(), "ERROR sent beyond the window");
}

#[test]
fn the_window_is_given_back_when_answers_leave_and_not_before() {
    let mut bench = Bench::open();
    let body = [&b"echo:"[..], &[b'x'; MAX_BODY - 5]].concat();
    for id in 1..=8 {
        bench.request(id, &body);
    }
    assert_eq!(bench.read(), "");
    for number in 0..8 {
        bench.answer(number, b"y");
    }
    let saw = bench.read();
    let given: u32 =
        saw.split(", ").filter_map(|s| s.strip_prefix("WINDOW ")).map(|n| n.parse::<u32>().unwrap()).sum();
    assert!(given > 4 * MAX_BODY as u32, "{saw}");
    assert_eq!(bench.session.credit.held(), 0);
}

#[test]
fn a_caller_that_does_not_read_is_still_read_and_costs_bounded_memory() {
    let mut bench = Bench::new().opened(u32::MAX / 2);
    let long = vec![b'x'; MAX_LINE];
    let (mut id, mut answered, mut most) = (0, 0, 0);
    // As many requests as the window lets in; the caller takes none of the answers.
    while bench.session.credit.held() + 1000 < u64::from(window()) && id < 5000 {
        id += 1;
        bench.request(id, b"echo");
        assert!(bench.session.wants_input());
        while bench.session.wants_answers() && answered < bench.asked.len() {
            bench.answer(answered, &long);
            answered += 1;
        }
        most = most.max(bench.session.outgoing().len());
        if !bench.session.wants_answers() && bench.asked.len() == answered && id > 3000 {
            break;
        }
    }
    assert!(!bench.session.wants_answers());
    assert!(most < answer::OUT_FULL + 2 * MAX_BODY, "{most}");
    assert!(answered < 30, "no handler is read any more: {answered}");
    bench.exchange(&raw(6, 0, b"still"));
    assert!(bench.caller.saw.is_empty());
    while answered < bench.asked.len() {
        bench.answer(answered, b"y");
        answered += 1;
        bench.read();
    }
    assert_eq!(bench.caller.done.len() as u64, id, "and nothing is lost");
}

#[test]
fn pings_are_answered_before_answers_and_of_a_flood_the_newest() {
    let mut bench = Bench::open();
    assert_eq!(bench.exchange(&raw(6, 0, b"12345678")), "PONG 12345678");
    let mut flood = Vec::new();
    for number in 0..100_000_u64 {
        flood.extend(raw(6, 0, &number.to_be_bytes()));
    }
    for part in flood.chunks(60_000) {
        bench.session.push(part, bench.now);
        bench.work();
    }
    assert!(bench.session.outgoing().len() < answer::OUT_FULL + 100);
}

#[test]
fn the_heartbeat_tries_a_silent_caller_and_gives_it_up() {
    let mut bench = Bench::open();
    bench.wait(14.9);
    assert_eq!(bench.read(), "");
    bench.wait(0.1);
    assert_eq!(bench.read(), "PING");
    bench.send(&raw(7, 0, b"x"));
    for _ in 0..3 {
        bench.wait(15.0);
        assert_eq!(bench.read(), "PING");
    }
    assert_eq!(bench.ended(), None);
    assert_eq!(bench.session.deadline(), Some(bench.now + HEARTBEAT));
    bench.wait(15.0);
    assert_eq!(bench.ended().as_deref(), Some("nothing was heard for 60s"));
}

#[test]
fn a_caller_that_takes_what_it_is_sent_is_not_given_up_though_it_says_nothing() {
    let mut bench = Bench::open();
    for _ in 0..20 {
        bench.wait(14.0);
        bench.session.moved(bench.now);
    }
    assert_eq!((bench.read(), bench.ended()), (String::new(), None));
    (0..4).for_each(|_| bench.wait(15.0));
    assert_eq!(bench.ended().as_deref(), Some("nothing was heard for 60s"));
}

#[test]
fn answers_that_go_as_they_come_leave_room_for_what_is_none() {
    let mut bench = Bench::new().opened(16 << 20);
    let body = vec![b'x'; 10_000];
    // So many that they alone fill what may wait.
    let count = answer::OUT_FULL / body.len() + 1;
    for id in 1..=count {
        bench.request(id as u64, b"echo:x");
    }
    bench.read();
    let mut ping = Vec::new();
    put_ping(&mut ping, 7);
    bench.session.push(&ping, bench.now);
    for ticket in std::mem::take(&mut bench.asked) {
        bench.session.answer(ticket, Reply::Answer(&body));
    }
    bench.session.fill(bench.now);
    bench.caller.reader.push(bench.session.outgoing().bytes());
    let mut ponged = false;
    while let Some(frame) = bench.caller.reader.next_frame() {
        ponged |= matches!(frame, Ok(Frame::Pong(_)));
    }
    assert!(ponged, "the PONG waits behind what is taken later");
}
