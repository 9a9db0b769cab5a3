//! What a request costs in memory that is asked for, in the cores of both ends: a gate that counts
//! and takes no time.
//!
//! A program's line goes through the broker to the frames of the secure wire, through the session
//! at the other end to a handler that answers at once, and its answer goes back. The tunnel,
//! sockets and files are left out: they are the same for every request. The bounds are what was
//! measured: a change that raises one is looked at before the bound is.

use lonnet::base::disk::FaultyDisk;
use lonnet::base::line::Outgoing;
use lonnet::config::{LocalRules, Peer, fixture};
use lonnet::lonc::broker::Broker;
use lonnet::lonc::link::Now;
use lonnet::lonc::session::ClientId;
use lonnet::lonc::settings::{LinkKeys, LinkSettings};
use lonnet::lond::handler::Reply;
use lonnet::lond::secure::{
    Opening, Recalled, Recorder, Secure, Settings, UNSYNCED_MOST, Unrecorded, Wanted,
};
use lonnet::lond::service::{Effect, Route, Service};
use lonnet::store::spool::Spool;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Allocations of one critical request. Of a plain one there are none.
const CRITICAL: u64 = 7;

/// Requests that are made before it is counted, so that buffers have their size.
const BEFORE: usize = 200;
/// Requests that are counted.
const COUNTED: usize = 640;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends may allocate when its counter is gone.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: it hands everything to the system's allocator, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the promises of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the promises of this very function.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the promises of this very function.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A record that takes everything.
#[derive(Debug, Default)]
struct Recorded;

impl Recorder for Recorded {
    fn open(&mut self, _: &str) -> Opening {
        Opening::Open(0)
    }
    fn is_open(&self) -> bool {
        true
    }
    fn recall(&mut self, _: &Wanted<'_>) -> Recalled {
        Recalled::New
    }
    fn write(&mut self, _: &[&Unrecorded]) -> Result<(), String> {
        Ok(())
    }
    fn sync(&mut self) -> Result<(), String> {
        Ok(())
    }
    fn close(&mut self) {}
}

/// A link between two cores, and one program.
struct Rig {
    broker: Broker<FaultyDisk>,
    session: Secure<Recorded>,
    program: ClientId,
    touched: Vec<ClientId>,
    now: Now,
}

impl Rig {
    fn new() -> Rig {
        let now = Now { mono: Instant::now(), wall: jiff::Timestamp::UNIX_EPOCH };
        let peer = Peer { wire: lonnet::base::WireKind::Secure, ..fixture::peer("called") };
        let spool = Spool::open(FaultyDisk::new(&[Path::new("/")]), Path::new("/delayed/called"), peer.spool);
        let settings = LinkSettings {
            id: fixture::host("caller").id,
            peer,
            keys: LinkKeys::None,
            local: LocalRules::default(),
            user: 0,
            run_dir: PathBuf::new(),
            spool_dir: PathBuf::from("/delayed"),
            log_dir: PathBuf::new(),
            log_level: log::LevelFilter::Off,
            sandbox: config::Sandbox::Off,
        };
        let mut broker = Broker::new(settings, spool, 7, now);
        broker.turn(now);
        broker.take_effects();
        broker.link_connected(now);
        let routes = vec![Route::open("echo")];
        let settings = Settings {
            service: Service {
                id: fixture::host("called").id,
                caller: fixture::host("caller").id,
                routes,
                barred: Vec::new(),
            },
            max_line: 1 << 20,
            window: 4 << 20,
            heartbeat: Duration::from_secs(15),
            heartbeat_missed: 3,
            unsynced: UNSYNCED_MOST,
            drain_timeout: Duration::from_secs(5),
        };
        let opening = now.mono + Duration::from_secs(10);
        let session = Secure::new(settings, Recorded, opening, now.mono);
        let program = broker.client_connected();
        let mut rig = Rig { broker, session, program, touched: Vec::new(), now };
        rig.carry();
        assert!(rig.broker.link_is_up());
        rig
    }

    /// Carries bytes until nothing moves.
    fn carry(&mut self) {
        loop {
            self.broker.turn(self.now);
            let mut moved = take(self.broker.link_out(), |bytes| self.session.push(bytes, self.now.mono));
            while let Some(effect) = self.session.step(self.now.mono, true) {
                if let Effect::Ask { ticket, request, .. } = effect {
                    self.session.answer(ticket, Reply::Answer(&request));
                    self.session.take_room(request);
                }
            }
            if self.session.has_unrecorded() {
                self.session.record(self.now.mono);
                self.session.sync(self.now.mono);
            }
            self.session.fill(self.now.mono);
            moved |= take(self.session.outgoing(), |bytes| self.broker.link_received(bytes, self.now));
            if !moved {
                return;
            }
        }
    }

    /// Sends these lines, and takes as many answers.
    fn ask(&mut self, lines: &str, count: usize) {
        self.broker.client_sent(self.program, lines.as_bytes());
        self.carry();
        let out = &mut self.broker.session(self.program).expect("it is connected").answers.out;
        let answers = out.bytes().iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(answers, count, "{}", String::from_utf8_lossy(out.bytes()));
        out.clear();
        self.broker.client_read(self.program);
        self.broker.take_touched(&mut self.touched);
        self.touched.clear();
    }
}

/// Gives what is to be written to `to`.
fn take(out: &mut Outgoing, to: impl FnOnce(&[u8])) -> bool {
    if out.is_empty() {
        return false;
    }
    to(out.bytes());
    out.clear();
    true
}

/// Allocations of [`COUNTED`] requests, with `ahead` sent at once.
fn cost(line: &str, ahead: usize) -> u64 {
    let (mut rig, lines) = (Rig::new(), line.repeat(ahead));
    for _ in 0..BEFORE / ahead {
        rig.ask(&lines, ahead);
    }
    let before = COUNT.get();
    for _ in 0..COUNTED / ahead {
        rig.ask(&lines, ahead);
    }
    let counted = COUNT.get() - before;
    println!("{ahead} ahead: {counted} allocations for {COUNTED} of {}", line.trim_end());
    counted
}

#[test]
fn a_plain_request_asks_for_no_memory() {
    let long = format!("echo:{}\n", "x".repeat(100));
    for (line, ahead) in [("echo:one\n", 1), (&long, 64), ("ping\n", 1), ("ping\n", 64)] {
        assert_eq!(cost(line, ahead), 0, "{line:?}, {ahead} ahead");
    }
}

#[test]
fn a_critical_request_asks_for_memory_no_more_often_than_it_did() {
    let bound = CRITICAL * COUNTED as u64;
    assert_eq!(cost("critical:echo:one\n", 1), bound, "raised: why? lowered: lower the bound");
}

#[test]
fn what_is_asked_for_is_counted() {
    let before = COUNT.get();
    let kept: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    assert!(COUNT.get() - before >= kept.len() as u64);
}
