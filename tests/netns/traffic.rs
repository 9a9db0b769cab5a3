//! Load on one link, at a modest pace: numbered critical messages, and plain requests beside them.

use crate::common::local::Local;
use crate::common::wait;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two requests of each kind.
const PACE: Duration = Duration::from_millis(10);

/// What the requests were answered so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answers {
    /// Critical messages that were done at once.
    pub done: u64,
    /// Critical messages that were stored.
    pub delayed: u64,
    /// Plain requests with an answer of the other host.
    pub answered: u64,
    /// Plain requests without one.
    pub lost: u64,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    done: AtomicU64,
    delayed: AtomicU64,
    answered: AtomicU64,
    lost: AtomicU64,
}

/// A running load.
pub struct Traffic {
    shared: Arc<Shared>,
    critical: JoinHandle<Vec<u64>>,
    plain: JoinHandle<()>,
}

impl Traffic {
    /// Sends `critical:do:<number>` and `echo:<number>` to a peer's socket, each one after the other, until told to stop.
    pub fn start(socket: &Path) -> Traffic {
        let shared = Arc::<Shared>::default();
        let critical = std::thread::spawn({
            let (shared, mut link) = (shared.clone(), Local::connect(socket));
            move || send_critical(&shared, &mut link)
        });
        let plain = std::thread::spawn({
            let (shared, mut link) = (shared.clone(), Local::connect(socket));
            move || send_plain(&shared, &mut link)
        });
        Traffic { shared, critical, plain }
    }

    /// What was answered so far.
    pub fn answers(&self) -> Answers {
        let count = |of: &AtomicU64| of.load(Ordering::SeqCst);
        let Shared { done, delayed, answered, lost, .. } = &*self.shared;
        Answers { done: count(done), delayed: count(delayed), answered: count(answered), lost: count(lost) }
    }

    /// Waits until both kinds were answered by the other host, so many more times each.
    pub fn flows(&self, more: u64) {
        let from = self.answers();
        wait::until_true("answers of the other host", || {
            let now = self.answers();
            now.done >= from.done + more && now.answered >= from.answered + more
        });
    }

    /// Waits until plain requests are answered `con_lost` and critical ones `con_delayed`.
    pub fn is_held_up(&self) {
        let from = self.answers();
        wait::until_true("con_lost and con_delayed", || {
            let now = self.answers();
            now.lost > from.lost && now.delayed > from.delayed
        });
    }

    /// Ends it; gives the numbers of the critical messages that were acknowledged, in their order.
    pub fn finish(self) -> Vec<u64> {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.plain.join().expect("the plain requests");
        self.critical.join().expect("the critical messages")
    }
}

fn numbers(shared: &Shared) -> impl Iterator<Item = u64> {
    let goes_on = |_: &u64| !shared.stop.load(Ordering::SeqCst);
    (0..).take_while(goes_on).inspect(|_| wait::let_pass(PACE))
}

fn send_critical(shared: &Shared, link: &mut Local) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    for number in numbers(shared) {
        match link.ask(&format!("critical:do:{number}")).as_str() {
            "ok" => shared.done.fetch_add(1, Ordering::SeqCst),
            "con_delayed" => shared.delayed.fetch_add(1, Ordering::SeqCst),
            other => panic!("a critical message was answered {other:?}"),
        };
        acknowledged.push(number);
    }
    acknowledged
}

/// Each request is another, so an answer too many or too few would be seen by the next.
fn send_plain(shared: &Shared, link: &mut Local) {
    for number in numbers(shared) {
        let request = format!("echo:{number}");
        match link.ask(&request).as_str() {
            "con_lost" => shared.lost.fetch_add(1, Ordering::SeqCst),
            answer if answer == request => shared.answered.fetch_add(1, Ordering::SeqCst),
            other => panic!("{request} was answered {other:?}"),
        };
    }
}
