//! Whatever comes in whatever order: each request has exactly one answer, no window is ever
//! exceeded.

use super::*;
use wire::secure::message_cost;

#[test]
fn every_request_is_answered_once_and_windows_are_kept_whatever_the_interleaving() {
    let (mut answered, mut cancelled) = (0, 0);
    for seed in 0..150 {
        let mut random = fastrand::Rng::with_seed(seed);
        let caller_window = window();
        let mut bench = Bench::new().opened(caller_window);
        bench.handlers_hold = random.bool();
        // Chunks that are still to be sent of each request that was begun, the oldest first.
        let mut sending: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut expected: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut withdrawn: Vec<u64> = Vec::new();
        let mut reserved = 0;
        let (mut next, mut sequence, mut owed) = (1, 1, 0);
        let mut critical = std::collections::BTreeSet::new();
        for _ in 0..400 {
            match random.u8(..12) {
                0..=3 => {
                    let length =
                        if random.u8(..8) == 0 { random.usize(..MAX_LINE) } else { random.usize(..50) };
                    let text = [&b"echo:"[..], &vec![b'a' + random.u8(..26); length]].concat();
                    let text = text[..text.len().min(MAX_LINE)].to_vec();
                    let cost = message_cost(text.len() + 17) as u64;
                    if reserved + cost > bench.caller.window {
                        continue;
                    }
                    expected.insert(next, text.clone());
                    if text.len() < 1000 && random.bool() {
                        bench.caller.window -= (FRAME_COST + 17 + text.len()) as u64;
                        critical.insert(next);
                        bench.critical(next, sequence, None, str::from_utf8(&text).unwrap());
                        sequence += 1;
                    } else {
                        reserved += cost;
                        sending.push((next, text));
                    }
                    next += 1;
                    // Ids are begun in their order.
                    if let Some((id, rest)) = sending.last_mut().filter(|(id, _)| *id == next - 1) {
                        reserved -= message_cost(rest.len() + 17) as u64;
                        let chunk = rest.len().min(random.usize(1..=MAX_BODY));
                        let (first, left) = rest.split_at(chunk);
                        let mut bytes = Vec::new();
                        put_request(&mut bytes, *id, !left.is_empty(), first);
                        bench.caller.window -= (FRAME_COST + chunk) as u64;
                        *rest = left.to_vec();
                        reserved += if rest.is_empty() { 0 } else { message_cost(rest.len() + 17) as u64 };
                        sending.retain(|(_, rest)| !rest.is_empty());
                        bench.send(&bytes);
                    }
                }
                4 | 5 => {
                    if sending.is_empty() {
                        continue;
                    }
                    let at = random.usize(..sending.len());
                    let (id, rest) = &mut sending[at];
                    reserved -= message_cost(rest.len() + 17) as u64;
                    let chunk = rest.len().min(MAX_BODY);
                    let left = rest.split_off(chunk);
                    let mut bytes = Vec::new();
                    put_request(&mut bytes, *id, !left.is_empty(), rest);
                    bench.caller.window -= (FRAME_COST + chunk) as u64;
                    *rest = left;
                    reserved += if rest.is_empty() { 0 } else { message_cost(rest.len() + 17) as u64 };
                    sending.retain(|(_, rest)| !rest.is_empty());
                    bench.send(&bytes);
                }
                6..=8 => {
                    let open: Vec<usize> = (0..bench.asked.len())
                        .filter(|at| bench.session.requests.flight(bench.asked[*at].0).is_some())
                        .collect();
                    if let Some(at) = random.choice(&open).copied().filter(|_| bench.session.wants_answers())
                    {
                        let text = expected[&bench.asked[at].0].clone();
                        bench.answer(at, &text);
                    }
                }
                9 => {
                    let id = random.u64(1..next.max(2));
                    let known = expected.contains_key(&id) && !critical.contains(&id);
                    if known && random.u8(..4) == 0 && !bench.caller.done.contains_key(&id) {
                        if let Some(at) = sending.iter().position(|(sent, _)| *sent == id) {
                            reserved -= message_cost(sending.remove(at).1.len() + 17) as u64;
                        }
                        withdrawn.push(id);
                        bench.cancel(id);
                    }
                }
                10 => {
                    let before = bench.caller.theirs;
                    let saw = bench.read();
                    assert!(!saw.contains("ERROR"), "seed {seed}: {saw}");
                    owed += before - bench.caller.theirs;
                }
                _ => {
                    if owed > 0 {
                        bench.widen(u32::try_from(owed).unwrap());
                        owed = 0;
                    }
                    bench.wait(random.f64());
                }
            }
            assert!(bench.session.credit.held() <= u64::from(window()));
        }
        for (id, rest) in sending {
            let mut bytes = Vec::new();
            let mut chunks = rest.chunks(MAX_BODY).peekable();
            while let Some(chunk) = chunks.next() {
                put_request(&mut bytes, id, chunks.peek().is_some(), chunk);
            }
            bench.send(&bytes);
        }
        loop {
            let before = bench.caller.theirs;
            let saw = bench.read();
            assert!(!saw.contains("ERROR"), "seed {seed}: {saw}");
            owed += before - bench.caller.theirs;
            bench.widen(u32::try_from(owed).unwrap());
            let idle = owed == 0;
            owed = 0;
            let mut answers = 0;
            for at in 0..bench.asked.len() {
                let ticket = bench.asked[at];
                if bench.session.wants_answers() && bench.session.requests.flight(ticket.0).is_some() {
                    let text = expected[&ticket.0].clone();
                    bench.answer(at, &text);
                    answers += 1;
                }
            }
            if idle && answers == 0 {
                break;
            }
        }
        for (id, text) in &expected {
            match bench.caller.done.get(id) {
                Some(answer) => assert_eq!(answer, text, "seed {seed}: {id}"),
                None => assert!(withdrawn.contains(id), "seed {seed}: {id} has no answer"),
            }
        }
        assert_eq!(bench.session.credit.held(), 0, "seed {seed}");
        assert_eq!(bench.session.memory.recorder.answers.len(), critical.len());
        answered += bench.caller.done.len();
        cancelled += withdrawn.len();
    }
    assert!(answered > 5000 && cancelled > 100, "{answered} {cancelled}");
}

#[test]
fn no_bytes_make_it_panic() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = if random.bool() { Bench::open() } else { Bench::new() };
        for _ in 0..50 {
            let body: Vec<u8> = (0..random.usize(..60)).map(|_| random.u8(..)).collect();
            let mut bytes = raw(random.u8(..12), random.u64(..4), &body);
            if random.u8(..4) == 0 {
                let at = random.usize(..bytes.len());
                bytes[at] ^= 1 << random.u8(..8);
            }
            bench.send(&bytes);
            bench.wait(random.f64());
        }
        bench.session.outgoing().clear();
        bench.work();
    }
}
