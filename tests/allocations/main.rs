//! What a request costs in memory that is asked for, in the cores of both ends: a gate that counts
//! and takes no time.
//!
//! A program's line goes through the broker to the frames of the secure wire or the lines of the
//! classic one, through the session at the other end to a handler that answers at once, with or
//! without the conversation that a handler of each form has, and its answer goes back. What is
//! stored goes through the spool, on a disk in memory. The tunnel is measured alone, sockets and
//! files are left out: they are the same for every request. The bounds are what was measured: a
//! change that raises one is looked at before the bound is.
//!
//! `scripts/bench instructions` runs the same under valgrind, with more requests to be counted
//! (`LONNET_COUNTED`), for what each costs in instructions.

mod rig;

use lonnet::base::{HostId, Pins, WireKind};
use lonnet::lond::handler::tag::Speaker;
use lonnet::lond::handler::{socket, tagged};
use lonnet::wire::secure::{Admission, HostKey, TlsIdentity, Tunnel};
use rig::{Handler, Rig, take};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Allocations of one critical request. Of a plain one there are none.
const CRITICAL: u64 = 7;
/// The same, when 64 are sent ahead.
const CRITICAL_AHEAD: u64 = 6;
/// Of one that was stored: storing it, 64 at once, and replaying it.
const STORED: u64 = 44;
/// Of a plain request of 1 MiB.
const LONG: u64 = 44;
/// Of one on the classic wire, one at a time and 64 ahead.
const CLASSIC: [u64; 2] = [1, 1];
/// Of a record of the tunnel, sealed and opened.
const RECORD: u64 = 2;

/// Requests that are made before it is counted, so that buffers have their size.
const BEFORE: usize = 200;
/// Requests that are counted, unless others are asked for.
const COUNTED: usize = 640;
/// A long one takes the time of so many.
const LONG_AS: usize = 40;

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

/// Allocations of one request; `each` makes so many, of which each takes the time of `as_many`.
fn counted(of_each: usize, as_many: usize, mut each: impl FnMut()) -> u64 {
    let asked = std::env::var("LONNET_COUNTED").map(|number| number.parse().expect("a number of requests"));
    let requests = asked.unwrap_or(COUNTED) / as_many;
    (0..BEFORE / as_many / of_each).for_each(|_| each());
    let begun = COUNT.get();
    (0..requests / of_each).for_each(|_| each());
    // Less than one in a hundred requests is a buffer's that grows, with the digits of a number.
    let of_growth = requests as u64 / 100;
    (COUNT.get() - begun).saturating_sub(of_growth).div_ceil(requests as u64)
}

/// Allocations of one request, with `ahead` sent at once.
fn cost(wire: WireKind, handler: fn(Instant) -> Handler, line: &str, ahead: usize) -> u64 {
    let (mut rig, lines) = (Rig::new(wire, handler), line.repeat(ahead));
    counted(ahead, 1, || rig.ask(&lines, ahead))
}

fn echo(_: Instant) -> Handler {
    Handler::Echo
}

fn line(now: Instant) -> Handler {
    Handler::Line(socket::Conversation::new("echo", Duration::from_secs(60), 1 << 20, now))
}

fn tagged(_: Instant) -> Handler {
    let timeout = Duration::from_secs(60);
    Handler::Tagged(tagged::Conversation::new("echo", Speaker::Program, timeout, 1 << 20))
}

const CHANGED: &str = "raised: why? lowered: lower the bound";

#[test]
fn a_plain_request_asks_for_no_memory() {
    for line in ["echo:one\n", "ping\n"] {
        assert_eq!(cost(WireKind::Secure, echo, line, 1), 0, "{line:?}");
    }
}

#[test]
fn plain_requests_sent_ahead_ask_for_no_memory() {
    let long = format!("echo:{}\n", "x".repeat(100));
    for line in [&long, "ping\n"] {
        assert_eq!(cost(WireKind::Secure, echo, line, 64), 0, "{line:?}");
    }
}

#[test]
fn a_long_request_asks_for_memory_no_more_often_than_it_did() {
    let long = format!("echo:{}\n", "x".repeat((1 << 20) - 5));
    let mut rig = Rig::new(WireKind::Secure, echo);
    assert_eq!(counted(1, LONG_AS, || rig.ask(&long, 1)), LONG, "{CHANGED}");
}

#[test]
fn a_critical_request_asks_for_memory_no_more_often_than_it_did() {
    assert_eq!(cost(WireKind::Secure, echo, "critical:echo:one\n", 1), CRITICAL, "{CHANGED}");
}

#[test]
fn critical_requests_sent_ahead_ask_for_memory_no_more_often_than_they_did() {
    assert_eq!(cost(WireKind::Secure, echo, "critical:echo:one\n", 64), CRITICAL_AHEAD, "{CHANGED}");
}

#[test]
fn a_request_on_the_classic_wire_asks_for_memory_no_more_often_than_it_did() {
    let costs = [1, 64].map(|ahead| cost(WireKind::Classic, echo, "echo:one\n", ahead));
    assert_eq!(costs, CLASSIC, "{CHANGED}");
}

#[test]
fn a_conversation_with_a_line_handler_asks_for_no_memory_of_its_own() {
    let costs = [1, 64].map(|ahead| cost(WireKind::Secure, line, "echo:one\n", ahead));
    assert_eq!(costs, [0, 0], "as a handler without one");
}

#[test]
fn a_conversation_with_a_tagged_handler_asks_for_no_memory_of_its_own() {
    let costs = [1, 64].map(|ahead| cost(WireKind::Secure, tagged, "echo:one\n", ahead));
    assert_eq!(costs, [0, 0], "as a handler without one");
}

#[test]
fn a_message_that_is_stored_and_replayed_asks_for_memory_no_more_often_than_it_did() {
    let mut rig = Rig::new(WireKind::Secure, echo);
    let together = 64;
    let lines = "critical:echo:one\n".repeat(together);
    let cost = counted(together, 1, || {
        rig.lose_link();
        rig.ask(&lines, together);
        rig.now.mono += Duration::from_secs(61);
        rig.broker.turn(rig.now);
        rig.come_up();
        assert_eq!(rig.broker.take_effects().len(), together, "each was delivered");
    });
    assert_eq!(cost, STORED, "{CHANGED}");
}

#[test]
fn a_record_of_the_tunnel_asks_for_memory_no_more_often_than_it_did() {
    let identity = |id: &str| {
        let dir = tempfile::tempdir().unwrap();
        (HostId::new(id).unwrap(), TlsIdentity::new(&HostKey::make(dir.path()).unwrap()).unwrap())
    };
    let ((near, near_identity), (far, far_identity)) = (identity("near"), identity("far"));
    let mut caller = Tunnel::caller(&near_identity, &far, &[far_identity.pin()]).unwrap();
    let pins = Pins::from_pairs([(near, near_identity.pin())]);
    let mut called = Tunnel::called(&Admission::new(&far_identity, pins).unwrap()).unwrap();
    let mut plain = Vec::new();
    while caller.wants_write() || called.wants_write() {
        take(caller.out(), |bytes| called.feed(bytes, &mut plain).unwrap());
        take(called.out(), |bytes| caller.feed(bytes, &mut plain).unwrap());
    }
    let cost = counted(1, 1, || {
        caller.seal(&[b'x'; 64]).unwrap();
        plain.clear();
        take(caller.out(), |bytes| called.feed(bytes, &mut plain).unwrap());
        assert_eq!(plain.len(), 64);
    });
    assert_eq!(cost, RECORD, "{CHANGED}");
}

#[test]
fn what_is_asked_for_is_counted() {
    let before = COUNT.get();
    let kept: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    assert!(COUNT.get() - before >= kept.len() as u64);
}
