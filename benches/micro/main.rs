//! What the parts of a request's way cost, each alone: `scripts/bench micro`.
//!
//! No sockets, no processes, no waiting: lines, frames, records of the tunnel, what is in flight,
//! the conversations with handlers, the classic cipher; and the spool on a file system in memory,
//! without syncs. A run of the tests does each once, so that they cannot rot.

mod spool;

use criterion::{Criterion, Throughput};
use lonnet::base::line::{Line, LineReader};
use lonnet::base::{HostId, Numbered, Pins, WireKind};
use lonnet::lonc::pending::{Entry, Found, Pending, Purpose};
use lonnet::lond::handler::tag::{Request, Speaker};
use lonnet::lond::handler::{Talk, Ticket, socket, tagged};
use lonnet::wire::classic::Cipher;
use lonnet::wire::secure::{
    Admission, Frame, FrameReader, HostKey, MAX_BODY, TlsIdentity, Tunnel, put_request,
};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Requests that come together.
const TOGETHER: u64 = 64;
/// Bytes of a short request.
const SHORT: usize = 64;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    lines(&mut criterion);
    frames(&mut criterion);
    tunnel(&mut criterion);
    in_flight(&mut criterion);
    handlers(&mut criterion);
    classic(&mut criterion);
    spool::benches(&mut criterion);
    criterion.final_summary();
}

fn lines(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lines");
    for (name, length, count) in [("64 of 64 bytes", SHORT, TOGETHER as usize), ("1 of 1 MiB", 1 << 20, 1)] {
        let bytes = format!("{}\n", "x".repeat(length - 1)).repeat(count).into_bytes();
        let mut reader = LineReader::new(1 << 20);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                reader.push(black_box(&bytes));
                let mut whole = 0;
                while let Some(Line::Whole(line)) = reader.next_line() {
                    black_box(line);
                    whole += 1;
                }
                assert_eq!(whole, count);
            });
        });
    }
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frames");
    for (name, length, count) in [("64 of 64 bytes", SHORT, TOGETHER), ("1 of 16 KiB", MAX_BODY, 1)] {
        let body = vec![b'x'; length];
        let put =
            |out: &mut Vec<u8>| (1..=count).for_each(|id| put_request(out, id, false, black_box(&body)));
        let mut out = Vec::new();
        put(&mut out);
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("put {name}"), |bencher| {
            let mut out = Vec::new();
            bencher.iter(|| {
                out.clear();
                put(&mut out);
                black_box(&out);
            });
        });
        let mut reader = FrameReader::new();
        group.bench_function(format!("read {name}"), |bencher| {
            bencher.iter(|| {
                reader.push(black_box(&out));
                let mut whole = 0;
                while let Some(Ok(Frame::Request { body, .. })) = reader.next_frame() {
                    black_box(body);
                    whole += 1;
                }
                assert_eq!(whole, count);
            });
        });
    }
}

/// Both ends of a tunnel, established.
fn tunnels() -> (Tunnel, Tunnel) {
    let host = |id: &str| {
        let dir = tempfile::tempdir().expect("a folder");
        let key = HostKey::make(dir.path()).expect("a key");
        (HostId::new(id).expect("an id"), TlsIdentity::new(&key).expect("an identity"))
    };
    let ((near, near_identity), (far, far_identity)) = (host("near"), host("far"));
    let pins = Pins::from_pairs([(near, near_identity.pin())]);
    let mut caller = Tunnel::caller(&near_identity, &far, &[far_identity.pin()]).expect("a caller");
    let admission = Admission::new(&far_identity, pins).expect("who is let in");
    let mut called = Tunnel::called(&admission).expect("a called one");
    while caller.wants_write() || called.wants_write() {
        carry(&mut caller, &mut called, &mut Vec::new());
        carry(&mut called, &mut caller, &mut Vec::new());
    }
    assert!(caller.established() && called.established());
    (caller, called)
}

fn carry(from: &mut Tunnel, to: &mut Tunnel, plain: &mut Vec<u8>) {
    to.feed(from.out().bytes(), plain).expect("what the other end sealed");
    from.out().clear();
}

fn tunnel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tunnel");
    for (name, length) in [("64 bytes", SHORT), ("16 KiB", MAX_BODY)] {
        let text = vec![b'x'; length];
        group.throughput(Throughput::Bytes(length as u64));
        let (mut caller, _) = tunnels();
        group.bench_function(format!("seal {name}"), |bencher| {
            bencher.iter(|| {
                caller.seal(black_box(&text)).expect("an open tunnel");
                caller.out().clear();
            });
        });
        let (mut caller, mut called) = tunnels();
        let mut plain = Vec::new();
        group.bench_function(format!("seal and open {name}"), |bencher| {
            bencher.iter(|| {
                caller.seal(black_box(&text)).expect("an open tunnel");
                plain.clear();
                carry(&mut caller, &mut called, &mut plain);
                assert_eq!(plain.len(), length);
            });
        });
    }
}

fn in_flight(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("in flight");
    group.throughput(Throughput::Elements(1));
    for depth in [TOGETHER, 4000] {
        let (mut numbered, mut next) = (Numbered::default(), 0);
        while next < depth {
            numbered.insert(next, next);
            next += 1;
        }
        group.bench_function(format!("Numbered, one more and one less of {depth}"), |bencher| {
            bencher.iter(|| {
                numbered.insert(next, next);
                next += 1;
                assert!(numbered.remove(black_box(next - depth - 1)).is_some());
            });
        });
        let now = Instant::now();
        let mut pending = Pending::new(Duration::from_secs(300), WireKind::Secure);
        let plain = || Entry { owner: None, purpose: Purpose::Plain, size: SHORT };
        (0..depth).for_each(|_| pending.push(plain(), now));
        group.bench_function(format!("Pending, one sent and one answered of {depth}"), |bencher| {
            bencher.iter(|| {
                let answered = pending.next_number() - depth;
                pending.push(plain(), now);
                assert!(matches!(pending.answered(black_box(answered)), Found::Entry(_)));
            });
        });
    }
}

fn handlers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("handlers");
    group.throughput(Throughput::Elements(TOGETHER));
    let (now, timeout) = (Instant::now(), Duration::from_secs(60));
    let mut line = socket::Conversation::new("line", timeout, 1 << 20, now);
    let answers = b"an answer\n".repeat(TOGETHER as usize);
    let text = vec![b'x'; SHORT];
    group.bench_function("line, 64 asked and answered", |bencher| {
        let put = |_, out: &mut Vec<u8>| out.extend_from_slice(black_box(&text));
        bencher.iter(|| converse(&mut line, 0, &put, &answers, now));
    });
    let mut tagged = tagged::Conversation::new("tagged", Speaker::Program, timeout, 1 << 20);
    let mut first = 0;
    let mut answers = Vec::new();
    group.bench_function("tagged, 64 asked and answered", |bencher| {
        let put = |tag, out: &mut Vec<u8>| {
            Request { tag, from: b"near", id: b"-", key: b"-", text: black_box(&text) }.put(out)
        };
        bencher.iter(|| {
            answers.clear();
            for tag in first..first + TOGETHER {
                answers.extend_from_slice(format!("{tag} an answer\n").as_bytes());
            }
            converse(&mut tagged, first, &put, &answers, now);
            first += TOGETHER;
        });
    });
}

/// Has a program asked so many requests, the first under this ticket, and answer them.
fn converse(
    talk: &mut impl Talk,
    first: u64,
    put: &impl Fn(u64, &mut Vec<u8>),
    answers: &[u8],
    now: Instant,
) {
    let mut request = Vec::new();
    for ticket in first..first + TOGETHER {
        request.clear();
        put(ticket, &mut request);
        talk.ask(Ticket(ticket), &request, now);
        if talk.wants_dial(now) {
            talk.dialed(now);
        }
    }
    talk.outgoing().clear();
    let mut answered = 0;
    talk.received(answers, now, &mut |_, reply| {
        black_box(reply.text());
        answered += 1;
    })
    .expect("answers to what was asked");
    assert_eq!(answered, TOGETHER);
}

fn classic(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("classic cipher");
    let [called, caller] = ["msul1", "msua1"].map(|id| HostId::new(id).expect("an id"));
    let cipher = Cipher::agree(&called, &caller, b"41342A79EAFBE8FC990EFC7D2928");
    for (name, length) in [("64 bytes", SHORT), ("16 KiB", MAX_BODY)] {
        let (text, mut line) = (vec![b'x'; length], Vec::new());
        cipher.seal(&text, &mut line);
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(format!("seal {name}"), |bencher| {
            let mut out = Vec::new();
            bencher.iter(|| {
                out.clear();
                cipher.seal(black_box(&text), &mut out);
            });
        });
        group.bench_function(format!("open {name}"), |bencher| {
            bencher
                .iter(|| assert_eq!(cipher.open(black_box(&line)).expect("what was sealed").len(), length));
        });
    }
}
