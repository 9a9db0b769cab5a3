//! Load on one link, at a modest pace: numbered critical messages, and plain requests beside them.

use crate::common::local::Local;
use crate::common::wait;
use std::path::{Path, PathBuf};
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
    may_break: AtomicBool,
    done: AtomicU64,
    delayed: AtomicU64,
    answered: AtomicU64,
    lost: AtomicU64,
}

/// Critical messages that were sent.
#[derive(Debug, Default)]
pub struct Sent {
    /// The numbers of those that were acknowledged, in their order.
    pub acknowledged: Vec<u64>,
    /// The number of the next.
    pub next: u64,
}

/// A running load.
pub struct Traffic {
    shared: Arc<Shared>,
    critical: JoinHandle<Sent>,
    plain: JoinHandle<()>,
}

impl Traffic {
    /// Sends `critical:do:<number>`, from where it ended `before`, and `echo:<number>` to a peer's
    /// socket, each one after the other, until told to stop.
    pub fn start(socket: &Path, before: Sent) -> Traffic {
        let shared = Arc::<Shared>::default();
        let sender = || Sender { shared: shared.clone(), socket: socket.to_owned(), link: None };
        let (critical, plain) = (sender(), sender());
        let critical = std::thread::spawn(move || critical.send_critical(before));
        let plain = std::thread::spawn(move || plain.send_plain());
        Traffic { shared, critical, plain }
    }

    /// The broker will be killed: from now on the programs' connections may break, and are made
    /// anew.
    pub fn may_break(&self) {
        self.shared.may_break.store(true, Ordering::SeqCst);
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

    /// Ends it; gives what was sent in all.
    pub fn finish(self) -> Sent {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.plain.join().expect("the plain requests");
        self.critical.join().expect("the critical messages")
    }
}

/// A local program.
struct Sender {
    shared: Arc<Shared>,
    socket: PathBuf,
    link: Option<Local>,
}

impl Sender {
    /// The answer to a request; nothing where a connection broke that may.
    fn ask(&mut self, request: &str) -> Option<String> {
        let asked = match &mut self.link {
            Some(link) => link.try_ask(request),
            None => Local::try_connect(&self.socket).and_then(|link| self.link.insert(link).try_ask(request)),
        };
        match asked {
            Ok(answer) => return Some(answer),
            Err(_) if self.shared.may_break.load(Ordering::SeqCst) => self.link = None,
            Err(error) => panic!("{request}: {error}"),
        }
        None
    }

    fn goes_on(&self) -> bool {
        wait::let_pass(PACE);
        !self.shared.stop.load(Ordering::SeqCst)
    }

    fn send_critical(mut self, mut sent: Sent) -> Sent {
        while self.goes_on() {
            let number = sent.next;
            sent.next += 1;
            let Some(answer) = self.ask(&format!("critical:do:{number}")) else { continue };
            match answer.as_str() {
                "ok" => self.shared.done.fetch_add(1, Ordering::SeqCst),
                "con_delayed" => self.shared.delayed.fetch_add(1, Ordering::SeqCst),
                other => panic!("a critical message was answered {other:?}"),
            };
            sent.acknowledged.push(number);
        }
        sent
    }

    /// Each request is another, so an answer too many or too few would be seen by the next.
    fn send_plain(mut self) {
        for number in 0u64.. {
            if !self.goes_on() {
                return;
            }
            let request = format!("echo:{number}");
            let Some(answer) = self.ask(&request) else { continue };
            match answer.as_str() {
                "con_lost" => self.shared.lost.fetch_add(1, Ordering::SeqCst),
                answer if answer == request => self.shared.answered.fetch_add(1, Ordering::SeqCst),
                other => panic!("{request} was answered {other:?}"),
            };
        }
    }
}
