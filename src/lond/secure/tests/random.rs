//! Whatever comes in whatever order: each request has exactly one answer, no window is ever
//! exceeded.

use super::*;
use std::collections::BTreeSet;
use wire::secure::message_cost;

/// Bytes before the text of a message that are counted as if each were critical.
const HEAD: usize = 17;

/// A caller and handlers that do whatever they may, by the dice.
struct Play {
    seed: u64,
    random: fastrand::Rng,
    bench: Bench,
    /// What is still to be sent of each request that was begun.
    sending: Vec<(u64, Vec<u8>)>,
    /// The answer that each request is to get.
    expected: BTreeMap<u64, Vec<u8>>,
    critical: BTreeSet<u64>,
    cancelled: Vec<u64>,
    /// What `sending` will cost of the window.
    reserved: u64,
    /// Bytes of answers that were read and not given back yet.
    owed: u64,
    next_id: u64,
    next_sequence: u64,
}

impl Play {
    fn new(seed: u64) -> Play {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new().opened(window());
        bench.handlers_hold = random.bool();
        Play {
            seed,
            random,
            bench,
            sending: Vec::new(),
            expected: BTreeMap::new(),
            critical: BTreeSet::new(),
            cancelled: Vec::new(),
            reserved: 0,
            owed: 0,
            next_id: 1,
            next_sequence: 1,
        }
    }

    /// Something happens.
    fn step(&mut self) {
        match self.random.u8(..12) {
            0..=3 => self.ask(),
            4 | 5 => self.go_on(),
            6..=8 => self.answer(),
            9 => self.cancel(),
            10 => _ = self.read(),
            _ => {
                if self.owed > 0 {
                    self.widen();
                }
                let pause = self.random.f64();
                self.bench.wait(pause);
            }
        }
        assert!(self.bench.session.credit.held() <= u64::from(window()));
    }

    /// Begins a request if there is room for the whole of it.
    fn ask(&mut self) {
        let long = self.random.u8(..8) == 0;
        let length = if long { self.random.usize(..MAX_LINE) } else { self.random.usize(..50) };
        let text = [&b"echo:"[..], &vec![b'a' + self.random.u8(..26); length]].concat();
        let text = text[..text.len().min(MAX_LINE)].to_vec();
        if self.reserved + message_cost(text.len() + HEAD) as u64 > self.bench.caller.window {
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.expected.insert(id, text.clone());
        if text.len() < 1000 && self.random.bool() {
            self.bench.caller.window -= (FRAME_COST + HEAD + text.len()) as u64;
            self.critical.insert(id);
            self.bench.critical(id, self.next_sequence, None, str::from_utf8(&text).unwrap());
            self.next_sequence += 1;
        } else {
            // Ids are begun in their order.
            let most = self.random.usize(1..=MAX_BODY);
            self.send_chunk(id, text, most);
        }
    }

    /// Sends the next chunk of a request that is not sent whole.
    fn go_on(&mut self) {
        if !self.sending.is_empty() {
            let at = self.random.usize(..self.sending.len());
            let (id, rest) = self.sending.remove(at);
            self.reserved -= message_cost(rest.len() + HEAD) as u64;
            self.send_chunk(id, rest, MAX_BODY);
        }
    }

    fn send_chunk(&mut self, id: u64, mut text: Vec<u8>, most: usize) {
        let left = text.split_off(text.len().min(most));
        let mut bytes = Vec::new();
        put_request(&mut bytes, id, !left.is_empty(), &text);
        self.bench.caller.window -= (FRAME_COST + text.len()) as u64;
        if !left.is_empty() {
            self.reserved += message_cost(left.len() + HEAD) as u64;
            self.sending.push((id, left));
        }
        self.bench.send(&bytes);
    }

    /// Places of the requests that handlers have.
    fn open(&self) -> Vec<usize> {
        let flying: BTreeSet<u64> = self.bench.session.requests.flying().map(|(id, _)| id).collect();
        (0..self.bench.asked.len()).filter(|at| flying.contains(&self.bench.asked[*at].0)).collect()
    }

    /// A handler answers, if it is listened to.
    fn answer(&mut self) {
        let open = self.open();
        if let Some(at) = self.random.choice(&open).copied() {
            self.answer_one(at);
        }
    }

    fn answer_one(&mut self, at: usize) -> bool {
        let listens = self.bench.session.wants_answers();
        if listens {
            let text = self.expected[&self.bench.asked[at].0].clone();
            self.bench.answer(at, &text);
        }
        listens
    }

    /// The caller cancels a request that it may cancel, sometimes.
    fn cancel(&mut self) {
        let id = self.random.u64(1..self.next_id.max(2));
        let known = self.expected.contains_key(&id) && !self.critical.contains(&id);
        if known && self.random.u8(..4) == 0 && !self.bench.caller.done.contains_key(&id) {
            if let Some(at) = self.sending.iter().position(|(sent, _)| *sent == id) {
                self.reserved -= message_cost(self.sending.remove(at).1.len() + HEAD) as u64;
            }
            self.cancelled.push(id);
            self.bench.cancel(id);
        }
    }

    /// The caller reads; how much it has got.
    fn read(&mut self) -> u64 {
        let before = self.bench.caller.theirs;
        let saw = self.bench.read();
        assert!(!saw.contains("ERROR"), "seed {}: {saw}", self.seed);
        let got = before - self.bench.caller.theirs;
        self.owed += got;
        got
    }

    /// The caller gives back what it has read.
    fn widen(&mut self) {
        self.bench.widen(u32::try_from(self.owed).unwrap());
        self.owed = 0;
    }

    /// All that was begun is sent, answered and read.
    fn end(&mut self) {
        while let Some((id, rest)) = self.sending.pop() {
            let mut bytes = Vec::new();
            let mut chunks = rest.chunks(MAX_BODY).peekable();
            while let Some(chunk) = chunks.next() {
                put_request(&mut bytes, id, chunks.peek().is_some(), chunk);
            }
            self.bench.send(&bytes);
        }
        loop {
            self.read();
            let idle = self.owed == 0;
            self.widen();
            let mut answers = 0;
            for at in self.open() {
                answers += usize::from(self.answer_one(at));
            }
            if idle && answers == 0 {
                return;
            }
        }
    }

    fn check(&self) {
        let seed = self.seed;
        for (id, text) in &self.expected {
            match self.bench.caller.done.get(id) {
                Some(answer) => assert_eq!(answer, text, "seed {seed}: {id}"),
                None => assert!(self.cancelled.contains(id), "seed {seed}: {id} has no answer"),
            }
        }
        assert_eq!(self.bench.session.credit.held(), 0, "seed {seed}");
        assert_eq!(self.bench.session.memory.recorder.answers.len(), self.critical.len());
    }
}

#[test]
fn every_request_is_answered_once_and_windows_are_kept_whatever_the_interleaving() {
    let (mut answered, mut cancelled) = (0, 0);
    for seed in 0..150 {
        let mut play = Play::new(seed);
        (0..400).for_each(|_| play.step());
        play.end();
        play.check();
        answered += play.bench.caller.done.len();
        cancelled += play.cancelled.len();
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
